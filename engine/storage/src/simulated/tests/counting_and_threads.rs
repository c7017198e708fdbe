//! Counters, and many threads at once.

use super::*;

#[test]
fn every_kind_of_access_is_counted() {
    let disk = SimulatedDisk::new(8192);
    disk.write_at(0, &[1; 5000]).unwrap();
    disk.write_at(0, &[]).unwrap();
    disk.punch_hole(0, 4096).unwrap();
    disk.sync().unwrap();
    read(&disk, 0, 100);
    let expected = DiskCounters {
        reads: 1,
        writes: 2,
        punches: 1,
        syncs: 1,
        bytes_read: 100,
        bytes_written: 5000,
        bytes_punched: 4096,
    };
    assert_eq!(disk.counters(), expected);
    assert_eq!(disk.operations(), 4);
}

#[test]
fn what_a_thread_has_synced_survives_a_crash_at_any_moment() {
    const THREADS: usize = 4;
    let disk = SimulatedDisk::new(64 * SECTOR_BYTES);
    let promised: [AtomicU64; THREADS] = Default::default();
    std::thread::scope(|scope| {
        for (lane, promised) in (0..).zip(&promised) {
            let disk = &disk;
            scope.spawn(move || {
                for round in 1..=200_u8 {
                    write_sector(disk, lane * 9, round);
                    disk.sync().unwrap();
                    promised.store(u64::from(round), Ordering::SeqCst);
                }
            });
        }
        for seed in 0..200 {
            let before = promised.each_ref().map(|value| value.load(Ordering::SeqCst));
            let found = sectors(&disk.crash(seed), 64);
            for (lane, promised) in before.into_iter().enumerate() {
                assert!(u64::from(found[lane * 9]) >= promised, "seed {seed}, lane {lane}");
            }
        }
    });
    assert_eq!(disk.counters().syncs, 800);
    assert_eq!(disk.operations(), 1600);
}
