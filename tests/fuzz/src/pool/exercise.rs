//! What is asked of a damaged pool. It may be refused; if it is not, nothing panics, nothing goes on for
//! ever, and what `check` calls clean is.

use std::ops::ControlFlow;
use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, LayerId, Namespace, NewLayer, OpenOptions, Pool, Repair};
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result, Storage};

use super::template::options;
use crate::overlay::Overlay;

/// Blocks that are read of one layer at most.
const MOST_BLOCKS: u64 = 512;

fn is_refusal(error: &Error) {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible), "{kind:?}: {error}");
}

/// Reads all that can be read of a pool; of what is larger than the whole one was, a part.
pub(crate) fn contents(pool: &Pool) -> Result<u64> {
    let mut blocks = 0;
    let mut block = vec![0; BLOCK_BYTES as usize];
    for info in pool.layers() {
        let device = match pool.device(info.id) {
            Ok(device) => device,
            // Removed: nobody can read it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut at = 0;
        let limit = blocks + MOST_BLOCKS;
        while let Some(range) = device.next_mapped(at)? {
            at = range.start;
            while at < range.end && blocks < limit {
                device.read(at, &mut block)?;
                at += BLOCK_BYTES;
                blocks += 1;
            }
            if blocks >= limit {
                break;
            }
        }
    }
    Ok(blocks)
}

/// Looks at the layers as the floor above does.
fn look_around(pool: &Pool) {
    let infos = pool.layers();
    for info in infos.iter().take(30) {
        // Each may fail, of a pool that is damaged.
        let _ = (pool.unique_bytes(info.id), pool.mapped_bytes(info.id), pool.document(info.id));
        if let Some(origin) = info.origin {
            let _ = pool.differences(origin, info.id);
        }
    }
    pool.usage();
}

/// Changes a pool a little; gives the layers that took a write.
fn change(pool: &Pool) -> Vec<LayerId> {
    let infos = pool.layers();
    let mut written = Vec::new();
    for info in infos.iter().filter(|info| !info.sealed && !info.hidden).take(3) {
        let Ok(device) = pool.device(info.id) else { continue };
        let mut good = true;
        for block in [0, 255, 400, 66_000] {
            good &= device.write(block * BLOCK_BYTES, &[b'w'; 2 * BLOCK_BYTES as usize]).is_ok();
        }
        good &= device.discard(13 * BLOCK_BYTES, 2 * BLOCK_BYTES).is_ok();
        if good {
            written.push(info.id);
        }
        drop(device);
        let new = NewLayer {
            namespace: Namespace(2),
            name: format!("of {}", info.id),
            ..NewLayer::default()
        };
        let _ = pool.snapshot(info.id, new);
    }
    let _ = pool.flush();
    if let Some(info) = infos.iter().find(|info| info.sealed && !info.hidden) {
        let _ = pool.remove(info.id);
    }
    if let Some(info) = infos.last() {
        let _ = pool.remove(info.id);
    }
    let _ = pool.sum_sealed();
    let _ = pool.wait_for_frees();
    let _ = pool.checkpoint();
    written
}

/// Repairs a copy. What a repair writes is sound, but for what it names as lost.
fn repair(disk: Overlay, was_clean: bool) {
    let storage: Arc<dyn Storage> = Arc::new(disk);
    let repair = match Repair::prepare(Arc::clone(&storage)) {
        Ok(repair) => repair,
        Err(error) => {
            assert!(!was_clean, "clean, and cannot be looked at for a repair: {error}");
            // What damaged maps see many times over may be more than fits.
            if error.kind() != ErrorKind::Full {
                is_refusal(&error);
            }
            return;
        }
    };
    assert!(!was_clean || repair.report().findings.is_empty(), "clean, and repaired all the same");
    // What would not be sound is not written.
    if repair.write().is_err() {
        return;
    }
    let pool = Pool::open(storage, &options(true)).expect("a repaired pool opens");
    let report = pool.check().expect("a storage that can be read can be checked");
    let wrong = report.findings.iter().find(|finding| !finding.is_lost());
    assert!(wrong.is_none(), "repaired, and not sound: {wrong:?}");
    if report.is_clean() {
        let _ = contents(&pool).map_err(|error| is_refusal(&error));
    }
}

/// Opens, checks, scrubs, reads, changes, closes, opens again, and repairs.
pub(crate) fn exercise(disk: Overlay) {
    let untouched = disk.copy();
    let was_clean = match Pool::open(Arc::new(disk), &options(true)) {
        Err(error) => {
            is_refusal(&error);
            false
        }
        Ok(pool) => {
            let report = pool.check().expect("a storage that can be read can be checked");
            look_around(&pool);
            let scrub = pool.scrub(&[], &mut |_| ControlFlow::Continue(()));
            assert!(scrub.complete, "a scrub ends");
            // What does not match its checksum is said to be damaged, and that is right.
            if let Err(error) = contents(&pool) {
                is_refusal(&error);
            }
            report.is_clean()
        }
    };
    repair(untouched.copy(), was_clean);
    let disk = Arc::new(untouched);
    let storage = || Arc::clone(&disk) as Arc<dyn Storage>;
    if was_clean {
        let unverified = OpenOptions { verify_reads: false, ..options(true) };
        let pool = Pool::open(storage(), &unverified).expect("it was opened before");
        contents(&pool).expect("a pool that is clean can be read");
    }
    let pool = match Pool::open(storage(), &options(false)) {
        Ok(pool) => pool,
        Err(error) => {
            assert!(!was_clean, "clean, and cannot be opened for writing: {error}");
            return;
        }
    };
    let written = change(&pool);
    if was_clean {
        assert_clean(&pool, "after changes");
    } else {
        let _ = pool.check();
    }
    let mut block = vec![0; BLOCK_BYTES as usize];
    for id in written {
        // One of them was removed.
        if let Ok(device) = pool.device(id) {
            let read = device.read(66_000 * BLOCK_BYTES, &mut block);
            assert!(read.is_err() || block[0] == b'w', "{id} does not have what was written to it");
        }
    }
    let closed = pool.close();
    if was_clean {
        closed.expect("a pool that is clean can be closed");
        let pool = Pool::open(storage(), &options(true)).expect("a pool that is clean stays it");
        assert_clean(&pool, "after opening again");
    } else if let Ok(pool) = Pool::open(storage(), &options(true)) {
        let _ = pool.check();
    }
}

fn assert_clean(pool: &Pool, when: &str) {
    let report = pool.check().expect("a storage that can be read can be checked");
    assert!(report.is_clean(), "a pool that was clean is not {when}: {:?}", report.findings);
}
