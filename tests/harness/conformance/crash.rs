//! Commands killed (SIGKILL) at random moments: the next ones work, and once everything was removed nothing is
//! left. `THINSTORE_CONFORMANCE_KILLS=100` for more of them, `THINSTORE_CONFORMANCE_SEED` for others.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Bench, Seen};
use crate::attack::random::Random;
use crate::command::TIME_LIMIT;
use crate::layout::rich_image;

/// How often each command is killed if nothing else is said.
const KILLS: u32 = 2;

/// How many files the image has, by name.
const FILES: usize = 11;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Import,
    Snapshot,
    Mount,
    Commit,
    Remove,
    RemoveImage,
}

const VICTIMS: [Victim; 6] = [
    Victim::Import,
    Victim::Snapshot,
    Victim::Mount,
    Victim::Commit,
    Victim::Remove,
    Victim::RemoveImage,
];

impl Victim {
    /// Makes what the command needs.
    fn prepare(self, bench: &Bench) {
        if self != Victim::Import {
            bench.import_rich("image");
        }
        if matches!(self, Victim::Mount | Victim::Commit | Victim::Remove) {
            bench.ok(&["snapshot", "image", "web"]);
        }
        if self == Victim::Commit {
            let root = bench.mount("web", &[]);
            std::fs::write(root.join("etc/mine"), "mine").expect("write");
        }
    }

    fn words(self, bench: &Bench) -> Vec<String> {
        let source = bench.source(&rich_image(), "image");
        let point = bench.store.new_folder("at-web");
        let words: &[&str] = match self {
            Victim::Import => &["import", &source, "--name", "image"],
            Victim::Snapshot => &["snapshot", "image", "web"],
            Victim::Mount => &["mount", "web", &point],
            Victim::Commit => &["commit", "web", "committed"],
            Victim::Remove => &["rm", "web"],
            Victim::RemoveImage => &["rmi", "image"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What a refusal says of a command that had done its work before it was killed; none if it can be given
    /// again.
    fn is_done(self) -> Option<(i32, &'static str)> {
        match self {
            Victim::Import | Victim::Commit => Some((4, "image")),
            Victim::Snapshot => Some((4, "web")),
            Victim::Mount => None,
            Victim::Remove => Some((3, "web")),
            Victim::RemoveImage => Some((3, "image")),
        }
    }
}

fn setting(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// Kills each of them.
pub fn killed(bench: &Bench) -> Seen {
    let seed = setting("THINSTORE_CONFORMANCE_SEED").unwrap_or(1);
    let kills = setting("THINSTORE_CONFORMANCE_KILLS").unwrap_or(KILLS);
    // that it comes and goes may be what is interrupted
    bench.let_go();
    let mut random = Random::new(u64::from(seed));
    for victim in VICTIMS {
        victim.prepare(bench);
        let started = Instant::now();
        let words = victim.words(bench);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench.ok(&words);
        let duration = started.elapsed();
        bench.clear();
        for _ in 0..kills {
            victim.prepare(bench);
            let limit_ms = u64::try_from(duration.as_millis()).expect("a time") + 2;
            let moment = random.time(limit_ms);
            kill_after(bench, &words, moment);
            look_after(bench, victim, &words).map_err(|why| {
                format!("{victim:?} killed after {moment:?} of {duration:?}, seed {seed}: {why}")
            })?;
            bench.clear();
        }
    }
    Ok(())
}

fn kill_after(bench: &Bench, words: &[&str], moment: Duration) {
    let running = bench.store.start(&bench.words(words));
    std::thread::sleep(moment);
    running.signal(Signal::KILL);
    running.wait(TIME_LIMIT);
}

/// The next commands.
fn look_after(bench: &Bench, victim: Victim, words: &[&str]) -> Seen {
    for command in ["ls", "layers", "check"] {
        let outcome = bench.run(&[command]);
        if !outcome.status.success() {
            return Err(format!("{outcome}"));
        }
    }
    let again = bench.run(words);
    let refused_for_being_done = victim
        .is_done()
        .is_some_and(|(code, name)| again.code() == code && again.stderr_text().contains(name));
    if !again.status.success() && !refused_for_being_done {
        return Err(format!("{again}"));
    }
    let (listing, name, wanted) = match victim {
        Victim::Import => ("images", "image:latest", true),
        Victim::Commit => ("images", "committed:latest", true),
        Victim::Snapshot | Victim::Mount => ("ls", "web", true),
        Victim::Remove => ("ls", "web", false),
        Victim::RemoveImage => ("images", "image:latest", false),
    };
    let there = bench.names(listing).iter().any(|found| found == name);
    if there != wanted {
        return Err(format!("{name} is {}", if there { "still there" } else { "not there" }));
    }
    let files = match victim {
        Victim::Import => bench.tree_of_image("image").file_count(),
        Victim::Commit => bench.tree_of_image("committed").file_count() - 1,
        _ => return Ok(()),
    };
    match files {
        FILES => Ok(()),
        _ => Err(format!("{files} files of the image are there")),
    }
}
