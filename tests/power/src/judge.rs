//! Holds a disk that lost power against what was known.
//!
//! The engine opens the pool, as after a real loss of power, and looks at it; the devices are copied out of it, and from there
//! on e2fsck, debugfs and sqlite3 have the word, and the ledgers of what was acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use thinstore_pool::{LayerId, Namespace, OpenOptions, Pool};
use thinstore_storage::{BlockDevice, Storage};
use thinstore_tests::attack::ledger::Content;
use thinstore_tests::attack::records::{BLOCK_BYTES, is_torn_among, read_block};
use thinstore_tests::attack::writers::{Kind, Target};

use crate::database;
use crate::history::{
    Bounds, CONTAINERS, Event, KnownContainer, KnownCopy, container_name, targets_of,
};

/// Where images and containers have their names (docs/format.md).
const IMAGES: Namespace = Namespace(2);
const BOXES: Namespace = Namespace(3);

/// How the power was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Of a disk: blocks that were being written may be torn between sectors.
    Disk,
    /// Of a machine whose disk lived on: what reached it is whole.
    Machine,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Containers and copies of them.
    pub devices: u64,
    /// Of these, copies.
    pub copies: u64,
    /// Units of files.
    pub units: u64,
    /// Units that were torn while they were being written, as they may be.
    pub torn: u64,
    /// Transactions that were acknowledged and are there.
    pub transactions: u64,
}

impl std::ops::AddAssign for Looked {
    fn add_assign(&mut self, other: Looked) {
        self.devices += other.devices;
        self.copies += other.copies;
        self.units += other.units;
        self.torn += other.torn;
        self.transactions += other.transactions;
    }
}

impl std::fmt::Display for Looked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "looked at {} devices ({} of them copies): {} units ({} torn while they were written), {} transactions",
            self.devices, self.copies, self.units, self.torn, self.transactions
        )
    }
}

/// What is wrong, or what was looked at.
pub type Verdict = Result<Looked, String>;

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Opens the pool on `disk`, which is changed by that, and judges it. `choice` says which copies are looked into;
/// that they are there or not is judged of all. What was found in the containers is told to `found`.
///
/// # Errors
/// What is wrong.
pub fn judge(
    disk: Arc<dyn Storage>,
    bounds: &Bounds,
    loss: Loss,
    choice: u64,
    folder: &Path,
    found: &mut dyn FnMut(Event),
) -> Verdict {
    let options = OpenOptions { background: choice.is_multiple_of(2), ..OpenOptions::default() };
    let pool = Pool::open(Arc::clone(&disk), &options)
        .map_err(|error| format!("the pool cannot be opened: {error}"))?;
    check(&pool, "after the loss of power")?;
    let mut looked = Looked::default();
    for container in 0..CONTAINERS {
        let name = container_name(container);
        let Some(id) = pool.find(BOXES, &name) else {
            if bounds.at_least.started {
                return Err(format!("{name} is gone"));
            }
            continue;
        };
        let known = bounds.container(container).ok_or("more containers than are known")?;
        judge_device(&pool, id, container, &known, loss, folder, &mut looked)
            .map(&mut *found)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    let copies = judge_presence(&pool, bounds)?;
    let chosen = usize::try_from(choice).unwrap_or(0).checked_rem(copies.len()).unwrap_or(0);
    if let Some((name, copy, id)) = copies.get(chosen) {
        let known = bounds.copy(name).ok_or("a copy that is not known")?;
        // What was sealed was flushed: nothing of it can be torn.
        judge_device(&pool, *id, copy.container, &known, Loss::Machine, folder, &mut looked)
            .map_err(|error| format!("the copy {name} of a container: {error}"))?;
        looked.copies += 1;
    }
    pool.close().map_err(|error| format!("the pool cannot be closed: {error}"))?;
    let options = OpenOptions { background: false, read_only: true, ..OpenOptions::default() };
    let pool = Pool::open(disk, &options)
        .map_err(|error| format!("the recovered pool cannot be opened: {error}"))?;
    check(&pool, "after it was recovered and closed")?;
    Ok(looked)
}

fn check(pool: &Pool, when: &str) -> Result<(), String> {
    let report = pool.check().map_err(|error| format!("check {when}: {error}"))?;
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(format!(
            "check {when} has {} findings, the first: {}: {}",
            report.findings.len(),
            finding.structure,
            finding.message
        )),
    }
}

/// Judges of each copy whether it is there; those that are.
fn judge_presence<'a>(
    pool: &Pool,
    bounds: &'a Bounds,
) -> Result<Vec<(&'a str, &'a KnownCopy, LayerId)>, String> {
    let mut there = Vec::new();
    for (name, copy) in &bounds.at_most.copies {
        let id = if copy.image {
            pool.find(IMAGES, &format!("{name}:latest"))
        } else {
            pool.find(BOXES, name)
        };
        match (bounds.is_there(name), id) {
            (Some(true), None) => return Err(format!("{name} was made, and is gone")),
            (Some(false), Some(_)) => return Err(format!("{name} was removed, and is there")),
            (_, None) => {}
            (_, Some(record)) => {
                let layer = pool.layer(record).map_err(say)?;
                let device = if copy.image { layer.reference } else { Some(record) };
                let device = device.ok_or_else(|| format!("the image {name} has no layer"))?;
                there.push((name.as_str(), copy, device));
            }
        }
    }
    Ok(there)
}

fn judge_device(
    pool: &Pool,
    id: LayerId,
    container: usize,
    known: &KnownContainer,
    loss: Loss,
    folder: &Path,
    looked: &mut Looked,
) -> Result<Event, String> {
    let folder = tempfile::tempdir_in(folder).map_err(say)?;
    let device = folder.path().join("device");
    copy_out(pool, id, &device)?;
    let files = folder.path().join("files");
    std::fs::create_dir(&files).map_err(say)?;
    take_files_out(&device, &files)?;
    looked.devices += 1;
    let mut units = Vec::new();
    for (target, ledger) in targets_of(container).into_iter().zip(&known.ledgers) {
        let contents = read_target(&target, ledger, loss, &files, looked)?;
        ledger.judge_all(&contents).map_err(|error| format!("{}: {error}", target.name()))?;
        looked.units += u64::try_from(contents.len()).unwrap_or(0);
        let generation = |content: &Content| match *content {
            Content::Generation(generation) => Some(generation),
            Content::Erased => None,
        };
        units.push(contents.iter().map(generation).collect());
    }
    let transaction = database::newest_transaction(&files)?;
    if !(known.transaction_acknowledged..=known.transaction_begun).contains(&transaction) {
        return Err(format!(
            "the database ends with transaction {transaction}; {} was acknowledged, and {} begun",
            known.transaction_acknowledged, known.transaction_begun
        ));
    }
    looked.transactions += known.transaction_acknowledged;
    Ok(Event::Found { container, units, transaction })
}

/// Copies a device to a sparse file.
fn copy_out(pool: &Pool, id: LayerId, path: &Path) -> Result<(), String> {
    let device = pool.device(id).map_err(say)?;
    let file = File::create(path).map_err(say)?;
    file.set_len(device.size_bytes()).map_err(say)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while let Some(range) = device.next_mapped(at).map_err(say)? {
        at = range.end.min(range.start + (1 << 20));
        let length = usize::try_from(at - range.start).map_err(say)?;
        device.read(range.start, &mut buffer[..length]).map_err(say)?;
        file.write_all_at(&buffer[..length], range.start).map_err(say)?;
    }
    Ok(())
}

/// Replays the journal of the ext4 on `device`, has e2fsck find nothing wrong with it, and copies its files
/// to `files`.
fn take_files_out(device: &Path, files: &Path) -> Result<(), String> {
    let device = device.display().to_string();
    run("e2fsck", &["-y", "-E", "journal_only", &device], &[0, 1])?;
    // Files that were removed or cut while they were open are dealt with before a look, as by a mount.
    run("e2fsck", &["-p", &device], &[0, 1])?;
    run("e2fsck", &["-f", "-n", &device], &[0])?;
    run("debugfs", &["-R", &format!("rdump / {}", files.display()), &device], &[0])
}

fn run(program: &str, arguments: &[&str], good: &[i32]) -> Result<(), String> {
    let path: PathBuf = ["/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(program));
    let output = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    Err(format!(
        "{program} {}: {}\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn read_target(
    target: &Target,
    ledger: &thinstore_tests::attack::ledger::Ledger,
    loss: Loss,
    files: &Path,
    looked: &mut Looked,
) -> Result<Vec<Content>, String> {
    if target.kind == Kind::Small || loss == Loss::Machine {
        return target.read(files);
    }
    let bytes = match std::fs::read(files.join(target.name())) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(say)?,
    };
    let mut contents = vec![Content::Erased; ledger.units()];
    for ((unit, block), content) in bytes.chunks(BLOCK_BYTES).enumerate().zip(contents.iter_mut()) {
        *content = match read_block(block, target.stream(), unit) {
            Ok(content) => content,
            Err(_) if is_torn_among(block, target.stream(), unit, ledger.under_way(unit)) => {
                looked.torn += 1;
                Content::Generation(*ledger.under_way(unit).end())
            }
            Err(error) => return Err(format!("{}: {error}", target.name())),
        };
    }
    Ok(contents)
}
