//! The gate and the range lock by themselves.

use std::sync::Arc;

use super::explore;
use crate::device::gate::Gate;
use crate::device::range_lock::RangeLock;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread;

#[test]
fn nobody_is_inside_a_closed_gate() {
    explore(10_000, || {
        let gate = Arc::new(Gate::default());
        let base = Arc::new(AtomicU64::new(0));
        let writers = (0..3).map(|_| {
            let (gate, base) = (Arc::clone(&gate), Arc::clone(&base));
            thread::spawn(move || {
                for _ in 0..2 {
                    let _inside = gate.enter();
                    let decided = base.load(Ordering::SeqCst);
                    assert_eq!(base.load(Ordering::SeqCst), decided, "the base changed meanwhile");
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let forks = (0..2).map(|_| {
            let (gate, base) = (Arc::clone(&gate), Arc::clone(&base));
            thread::spawn(move || {
                let _closed = gate.close();
                let before = base.fetch_add(1, Ordering::SeqCst);
                assert_eq!(base.load(Ordering::SeqCst), before + 1, "two forks at once");
            })
        });
        let forks: Vec<_> = forks.collect();
        writers.into_iter().chain(forks).for_each(|thread| thread.join().unwrap());
        assert_eq!(base.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn of_overlapping_ranges_one_holds_alone_or_many_share() {
    explore(10_000, || {
        let lock = Arc::new(RangeLock::default());
        let changing: Arc<[AtomicBool; 4]> = Arc::default();
        let threads: Vec<_> = [(0, 2, true), (1, 3, true), (2, 4, false), (0, 4, false)]
            .map(|(start, end, alone)| {
                let (lock, changing) = (Arc::clone(&lock), Arc::clone(&changing));
                thread::spawn(move || {
                    for _ in 0..2 {
                        if alone {
                            let _guard = lock.alone(start, end);
                            for block in start..end {
                                assert!(!changing[block as usize].swap(true, Ordering::SeqCst));
                            }
                            for block in start..end {
                                changing[block as usize].store(false, Ordering::SeqCst);
                            }
                        } else {
                            let _guard = lock.shared(start, end);
                            for block in start..end {
                                assert!(!changing[block as usize].load(Ordering::SeqCst));
                            }
                        }
                    }
                })
            })
            .into();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
