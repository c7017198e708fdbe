//! Group commit: what a flush promises, how few it takes, and who hears of a failure.

use std::sync::Arc;

use thinstore_storage::{BlockDevice, Error};

use super::{explore, new_pool, open};
use crate::layers::change::NewLayer;
use crate::sync::thread;
use crate::types::BLOCK_BYTES;

#[test]
fn a_flush_that_returned_has_made_durable_what_was_written_before_it() {
    explore(800, || {
        let (disk, pool) = new_pool(false);
        let id = pool.create_layer(NewLayer::default()).unwrap();
        let threads: Vec<_> = (1..4_u8)
            .map(|number| {
                let (disk, device) = (Arc::clone(&disk), pool.device(id).unwrap());
                thread::spawn(move || {
                    let mut left = None;
                    // The second time, it is overwritten where it is or goes elsewhere, as it comes.
                    for round in 0..2 {
                        let value = 10 * number + round;
                        device.write(u64::from(number) * BLOCK_BYTES, &[value; 4096]).unwrap();
                        device.flush().unwrap();
                        left = Some((number, value, disk.after_power_loss()));
                    }
                    left
                })
            })
            .collect();
        for thread in threads {
            let (number, value, left) = thread.join().unwrap().unwrap();
            let pool = open(Arc::new(left), false);
            let mut bytes = [0; 4096];
            pool.device(id).unwrap().read(u64::from(number) * BLOCK_BYTES, &mut bytes).unwrap();
            assert_eq!(bytes, [value; 4096]);
        }
    });
}

#[test]
fn sixteen_flushes_that_wait_together_take_two_syncs_at_most() {
    explore(800, || {
        let (disk, pool) = new_pool(false);
        let id = pool.create_layer(NewLayer::default()).unwrap();
        // While the writer is held, one commit waits for it, and all the others for that one.
        let held = pool.core().writer.lock();
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let device = pool.device(id).unwrap();
                thread::spawn(move || device.flush().unwrap())
            })
            .collect();
        while pool.core().group_commit.waiting() < 15 {
            thread::yield_now();
        }
        let before = disk.syncs();
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(disk.syncs() - before <= 2, "{} syncs", disk.syncs() - before);
    });
}

#[test]
fn a_sync_that_failed_is_told_to_all_and_nothing_is_promised_after_it() {
    explore(800, || {
        let (disk, pool) = new_pool(false);
        let id = pool.create_layer(NewLayer::default()).unwrap();
        disk.fail_sync_after(1);
        let threads: Vec<_> = (0..4_u8)
            .map(|number| {
                let (disk, device) = (Arc::clone(&disk), pool.device(id).unwrap());
                thread::spawn(move || {
                    let write = || -> Result<(), Error> {
                        device.write(u64::from(number) * BLOCK_BYTES, &[number + 1; 4096])?;
                        device.flush()
                    };
                    let promised = write().is_ok();
                    assert!(promised || write().is_err(), "an error is for good");
                    promised.then(|| disk.after_power_loss())
                })
            })
            .collect();
        for (number, thread) in (0..).zip(threads) {
            let Some(left) = thread.join().unwrap() else { continue };
            let pool = open(Arc::new(left), false);
            let mut bytes = [0; 4096];
            pool.device(id).unwrap().read(number * BLOCK_BYTES, &mut bytes).unwrap();
            assert_eq!(u64::from(bytes[0]), number + 1);
        }
    });
}
