//! The two attacks, run on the host: the guest is booted by `tools/guest`, and what its disk holds when power is
//! lost is judged here.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use thinstore_storage::{FileOptions, SimulatedDisk, Storage};
use thinstore_tests::attack::random::Random;
use thinstore_tests::command::{Running, run_tool, run_within};
use thinstore_tests::{host, program};

use crate::cuts::{Replay, beginning, choose, events_at};
use crate::history::{Bounds, Event, History, Known};
use crate::judge::{Looked, Loss, judge};
use crate::load::Below;
use crate::log::{Entry, LogReader, read_entries};

const PIECE_BYTES: usize = 1 << 20;

/// What both attacks want to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What the pool lies on
    #[arg(long, value_enum, default_value_t = Below::Nothing)]
    below: Below,
    /// What the load and the moments follow from; the default is the time
    #[arg(long)]
    seed: Option<u64>,
}

/// A folder that the guest has too, with the programs, the disk, and the history.
struct Site {
    folder: PathBuf,
    script: PathBuf,
    below: Below,
    seed: u64,
    started: Instant,
}

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Site {
    fn new(script: &Path, options: &Options) -> Site {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = options.seed.unwrap_or(since.as_secs());
        let base = std::env::var_os("TMPDIR").map_or(PathBuf::from("/var/tmp"), PathBuf::from);
        // Kept after a finding: it is what there is to look at.
        let folder = tempfile::Builder::new().prefix("thinstore-power.").tempdir_in(base);
        let folder = folder.expect("a folder").keep();
        let this = std::env::current_exe().expect("this program");
        std::fs::copy(this, folder.join("power-cut")).expect("copy this program");
        std::fs::copy(program::binary(), folder.join("thinstore")).expect("copy the program");
        let site = Site {
            folder,
            script: script.to_owned(),
            below: options.below,
            seed,
            started: Instant::now(),
        };
        println!("seed {seed}, pool on {:?}, in {}", options.below, site.folder.display());
        site.make_disk();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn make_disk(&self) {
        let store = self.path("store");
        let mut init = Command::new(self.path("thinstore"));
        init.arg("--root").arg(&store).args(["init", "--size", "512M", "--device-size", "64M"]);
        run_within(init, Duration::from_secs(60)).assert_success();
        let disk = self.path("disk");
        match self.below {
            Below::Nothing => std::fs::rename(store.join("pool"), disk).expect("move the pool"),
            Below::Ext4 => {
                let words = ["-q", "-t", "ext4", "-d", &text(&store), &text(&disk), "768M"];
                run_tool("mke2fs", &words);
            }
        }
        std::fs::remove_dir_all(store).expect("remove the store's folder");
    }

    /// Boots the guest with `disks`, where `before` is run, then the load, then `after`. It ends by itself after
    /// [`limit_of`] such a load.
    fn boot(&self, disks: &[&str], seconds: u64, before: &str, load: &str, after: &str) -> Running {
        let name = self.below.to_possible_value().expect("a name");
        let (name, seed) = (name.get_name(), self.seed);
        let line = format!(
            "modprobe -a loop fuse && cp power-cut thinstore /tmp && {before} /tmp/power-cut load \
             --below {name} --program /tmp/thinstore --folder /tmp/load --history $PWD/history \
             --seconds {seconds} --seed {seed} {load} {after}"
        );
        let mut command = Command::new(&self.script);
        command.arg("--share").arg(&self.folder).arg("--pid-file").arg(self.path("pid"));
        for disk in disks {
            command.arg("--disk").arg(self.path(disk));
        }
        command.args(["--limit", &limit_of(seconds).as_secs().to_string()]);
        command.args(["--", "bash", "-c", &line]);
        Running::start(command)
    }

    /// How many guests have come to their load.
    fn loads_begun(&self) -> usize {
        let text = std::fs::read_to_string(self.path("history")).unwrap_or_default();
        text.lines().filter(|line| *line == "\"Started\"").count()
    }

    /// Hands the pool on the disk in `file` to `look`.
    fn with_pool<T>(
        &self,
        file: &Path,
        look: impl FnOnce(Arc<dyn Storage>) -> Result<T, String>,
    ) -> Result<T, String> {
        let open = |path: &Path| FileOptions::new().open(path).map_err(say);
        if self.below == Below::Nothing {
            return look(Arc::new(open(file)?));
        }
        let point = self.path("below");
        std::fs::create_dir_all(&point).map_err(say)?;
        run_tool("mount", &["-o", "loop", &text(file), &text(&point)]);
        let result = open(&point.join("pool")).and_then(|pool| look(Arc::new(pool)));
        run_tool("umount", &[&point]);
        result
    }

    /// Says what was done, and removes the folder if nothing was found.
    fn end(&self, what: &str, looked: &Looked, result: Result<(), String>) -> Result<(), String> {
        println!("{what} in {:.0?}", self.started.elapsed());
        println!("{looked}");
        match result {
            Ok(()) => {
                println!("nothing was lost");
                std::fs::remove_dir_all(&self.folder).map_err(say)
            }
            Err(error) => Err(format!("{error}\nseed {}, in {}", self.seed, self.folder.display())),
        }
    }
}

/// How long a guest may take for a load of so many seconds, emulated on a busy machine.
fn limit_of(seconds: u64) -> Duration {
    Duration::from_secs(1200 + seconds)
}

fn succeeded(running: Running, seconds: u64) -> Result<(), String> {
    let outcome = running.wait(limit_of(seconds) + Duration::from_secs(60));
    if outcome.status.success() { Ok(()) } else { Err(format!("the guest has failed\n{outcome}")) }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Boots the guest once with its disk below the kernel's `log-writes`, and judges what it would have held had the power
/// failed at each of `count` moments.
///
/// # Errors
/// The first finding.
pub fn log_writes(
    script: &Path,
    options: &Options,
    count: usize,
    seconds: u64,
) -> Result<(), String> {
    let site = Site::new(script, options);
    let disk = read_disk(&site.path("disk"))?;
    let log = File::create_new(site.path("log")).map_err(say)?;
    log.set_len(16 << 30).map_err(say)?;
    let running = site.boot(
        &["disk", "log"],
        seconds,
        "modprobe dm-log-writes && dmsetup create logged --table \
         \"0 $(blockdev --getsz /dev/vdb) log-writes /dev/vdb /dev/vdc\" &&",
        "--disk /dev/mapper/logged --marks logged",
        "&& dmsetup remove logged",
    );
    succeeded(running, seconds)?;
    let (_, events) = History::open(&site.path("history"))?;
    let log = File::open(site.path("log")).map_err(say)?;
    let mut reader = LogReader::open(BufReader::new(log))?;
    let entries = read_entries(&mut reader)?;
    println!("{} entries in the log, {} events of the load", entries.len(), events.len());
    let first = beginning(&entries).ok_or("the load has left no mark in the log")?;
    let mut random = Random::new(site.seed);
    let cuts = choose(&entries, first, count, &mut random);
    let mut replay = Replay::new(reader, &entries, disk);
    let mut looked = Looked::default();
    let mut done = 0;
    let mut attack = || {
        for cut in &cuts {
            replay.advance_to(cut.position)?;
            let (least, most) = events_at(&entries, cut.position);
            let bounds = Bounds {
                at_least: known_at(&events, Some(least))?,
                at_most: known_at(&events, most)?,
            };
            let disk = replay.after_power_loss(cut.policy);
            let choice = random.number();
            let look = |disk: Arc<dyn Storage>| {
                judge(disk, &bounds, Loss::Disk, choice, &site.folder, &mut |_| {})
            };
            let verdict = if site.below == Below::Nothing {
                look(Arc::new(disk))
            } else {
                write_disk(&disk, &site.path("cut"))
                    .and_then(|()| site.with_pool(&site.path("cut"), look))
            };
            looked += verdict.map_err(|error| format!("power lost at {cut:?}: {error}"))?;
            done += 1;
        }
        replay.advance_to(entries.len())?;
        // What a discard leaves is the disk's own affair.
        let discards = entries.iter().any(|entry| matches!(entry, Entry::Discard { .. }));
        match discards || replay.is_same_as(&File::open(site.path("disk")).map_err(say)?)? {
            true => Ok(()),
            false => Err("the log does not lead to what the disk holds".to_owned()),
        }
    };
    let result = attack();
    site.end(&format!("{done} losses of power replayed"), &looked, result)
}

/// Kills the guest `times` times under its load, and judges its disk after each.
///
/// # Errors
/// The first finding.
pub fn kill(script: &Path, options: &Options, times: u32) -> Result<(), String> {
    let site = Site::new(script, options);
    let mut random = Random::new(site.seed);
    let mut looked = Looked::default();
    let (mut kills, mut early) = (0, 0);
    let mut to_load_ms = 8000;
    let mut attack = || {
        while kills < times {
            let begun = site.loads_begun();
            let _ = std::fs::remove_file(site.path("pid"));
            let booted = Instant::now();
            let mut running = site.boot(&["disk"], 300, "exec", "--disk /dev/vdb", "");
            if kills > 0 && random.below(4) == 0 {
                // While it boots, or recovers what the last kill has left.
                std::thread::sleep(
                    Duration::from_millis(to_load_ms / 2) + random.time(to_load_ms / 2),
                );
            } else {
                let under_way = || site.loads_begun() > begun;
                host::wait_until(limit_of(300), || running.has_ended() || under_way());
                to_load_ms = u64::try_from(booted.elapsed().as_millis()).unwrap_or(u64::MAX);
                std::thread::sleep(random.time(10_000));
            }
            let pid = || std::fs::read_to_string(site.path("pid")).unwrap_or_default();
            host::wait_until(limit_of(300), || running.has_ended() || pid().ends_with('\n'));
            if !running.has_ended() {
                host::kill(pid().trim().parse().map_err(say)?);
            }
            let outcome = running.wait(limit_of(300) + Duration::from_secs(60));
            if outcome.status.code() != Some(125) {
                return Err(format!("the guest was not killed, but ended\n{outcome}"));
            }
            kills += 1;
            early += u32::from(site.loads_begun() == begun);
            site.judge_killed(random.number(), &mut looked)
                .map_err(|error| format!("kill {kills}: {error}"))?;
        }
        let running = site.boot(&["disk"], 3, "", "--disk /dev/vdb", "");
        succeeded(running, 3)?;
        site.judge_killed(random.number(), &mut looked)
    };
    let result = attack();
    let what = format!("{kills} guests killed, {early} of them before their load had begun");
    site.end(&what, &looked, result)
}

impl Site {
    /// Judges a copy of the disk: the next guest is to recover it by itself.
    fn judge_killed(&self, choice: u64, looked: &mut Looked) -> Result<(), String> {
        let copy = self.path("copy");
        run_tool("cp", &["--sparse=always", &text(&self.path("disk")), &text(&copy)]);
        let (history, events) = History::open(&self.path("history"))?;
        let known = Known::after(&events)?;
        let bounds = Bounds { at_least: known.clone(), at_most: known };
        *looked += self.with_pool(&copy, |disk| {
            let mut found = |event| history.note(&event);
            judge(disk, &bounds, Loss::Machine, choice, &self.folder, &mut found)
        })?;
        Ok(())
    }
}

fn known_at(events: &[Event], number: Option<u64>) -> Result<Known, String> {
    let count = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(events.len());
    Known::after(events.get(..count).ok_or("a mark of events that nobody noted")?)
}

fn read_disk(path: &Path) -> Result<SimulatedDisk, String> {
    let file = File::open(path).map_err(say)?;
    let size_bytes = file.metadata().map_err(say)?.len();
    let disk = SimulatedDisk::new(size_bytes);
    for_pieces(size_bytes, |offset_bytes, piece| {
        file.read_exact_at(piece, offset_bytes)?;
        if piece.iter().any(|byte| *byte != 0) {
            disk.write_at(offset_bytes, piece)
        } else {
            Ok(())
        }
    })?;
    disk.sync().map_err(say)?;
    Ok(disk)
}

fn write_disk(disk: &SimulatedDisk, path: &Path) -> Result<(), String> {
    let mut file = File::create(path).map_err(say)?;
    file.set_len(disk.size_bytes()).map_err(say)?;
    for_pieces(disk.size_bytes(), |offset_bytes, piece| {
        disk.read_at(offset_bytes, piece)?;
        if piece.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        file.seek(SeekFrom::Start(offset_bytes))?;
        file.write_all(piece)
    })
}

/// Goes through so many bytes.
///
/// # Errors
/// That of a piece.
pub fn for_pieces(
    size_bytes: u64,
    mut each: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> Result<(), String> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset_bytes = 0;
    while offset_bytes < size_bytes {
        let length = usize::try_from(size_bytes - offset_bytes)
            .map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let piece = buffer.get_mut(..length).unwrap_or_default();
        each(offset_bytes, piece)
            .map_err(|error| format!("the disk at {offset_bytes}: {error}"))?;
        offset_bytes += u64::try_from(length).unwrap_or(u64::MAX);
    }
    Ok(())
}
