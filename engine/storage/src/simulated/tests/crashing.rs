//! What each policy leaves of the unsynced writes.

use super::*;

/// Sectors 0 to 7 hold 1, durably; then each is written as 2, in ascending order, unsynced.
fn eight_unsynced() -> SimulatedDisk {
    let disk = SimulatedDisk::new(8 * SECTOR_BYTES);
    disk.write_at(0, &[1; 8 * SECTOR]).unwrap();
    disk.sync().unwrap();
    (0..8).for_each(|sector| write_sector(&disk, sector, 2));
    disk
}

#[test]
fn the_plain_policies_keep_all_none_or_the_newest() {
    let disk = eight_unsynced();
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::KeepAll), 8), [2; 8]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 8), [1; 8]);
    let newest = sectors(&disk.crash_with(CrashPolicy::LastOnly), 8);
    assert_eq!(newest, [1, 1, 1, 1, 1, 1, 1, 2]);
}

#[test]
fn a_prefix_has_no_gap_and_every_length_occurs() {
    let disk = eight_unsynced();
    let mut lengths = BTreeSet::new();
    for seed in 0..200 {
        let found = sectors(&disk.crash_with(CrashPolicy::Prefix { seed }), 8);
        let length = found.iter().take_while(|value| **value == 2).count();
        assert!(found[length..].iter().all(|value| *value == 1), "{found:?}");
        lengths.insert(length);
    }
    assert_eq!(lengths, (0..=8).collect());
}

#[test]
fn all_but_one_misses_each_in_its_turn() {
    let disk = eight_unsynced();
    let mut missing = BTreeSet::new();
    for seed in 0..200 {
        let found = sectors(&disk.crash_with(CrashPolicy::AllButOne { seed }), 8);
        assert_eq!(found.iter().filter(|value| **value == 1).count(), 1);
        missing.insert(found.iter().position(|value| *value == 1).unwrap());
    }
    assert_eq!(missing, (0..8).collect());
}

#[test]
fn every_value_that_a_sector_has_had_since_the_sync_can_be_found() {
    let disk = SimulatedDisk::new(SECTOR_BYTES);
    write_sector(&disk, 0, 1);
    disk.sync().unwrap();
    (2..=4).for_each(|value| write_sector(&disk, 0, value));
    for policy in [|seed| CrashPolicy::Sectors { seed }, |seed| CrashPolicy::Writes { seed }] {
        let found = (0..300).map(|seed| sectors(&disk.crash_with(policy(seed)), 1)[0]);
        assert_eq!(found.collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3, 4]));
    }
}

#[test]
fn a_long_write_is_torn_between_any_sectors() {
    let disk = SimulatedDisk::new(4 * SECTOR_BYTES);
    disk.write_at(0, &[1; 4 * SECTOR]).unwrap();
    let policies: [fn(u64) -> CrashPolicy; 3] = [
        |seed| CrashPolicy::Sectors { seed },
        |seed| CrashPolicy::Writes { seed },
        |seed| CrashPolicy::Prefix { seed },
    ];
    for policy in policies {
        let found = (0..1000).map(|seed| sectors(&disk.crash_with(policy(seed)), 4));
        assert_eq!(found.collect::<BTreeSet<_>>().len(), 16);
    }
}

#[test]
fn nearly_all_and_nearly_none_of_many_writes_occur() {
    let disk = SimulatedDisk::new(64 * SECTOR_BYTES);
    (0..64).for_each(|sector| write_sector(&disk, sector, 1));
    for policy in [|seed| CrashPolicy::Sectors { seed }, |seed| CrashPolicy::Writes { seed }] {
        let kept = (0..200).map(|seed| {
            let found = sectors(&disk.crash_with(policy(seed)), 64);
            found.iter().filter(|value| **value == 1).count()
        });
        let kept: BTreeSet<usize> = kept.collect();
        assert!(kept.first().unwrap() < &10 && kept.last().unwrap() > &50, "{kept:?}");
    }
}

#[test]
fn seeds_begin_with_the_plain_policies_and_reach_every_other() {
    let policies: Vec<CrashPolicy> = (0..8).map(CrashPolicy::from_seed).collect();
    assert_eq!(
        policies,
        [
            CrashPolicy::KeepAll,
            CrashPolicy::DropAll,
            CrashPolicy::LastOnly,
            CrashPolicy::AllButFirst,
            CrashPolicy::AllButOne { seed: 4 },
            CrashPolicy::Prefix { seed: 5 },
            CrashPolicy::Writes { seed: 6 },
            CrashPolicy::Sectors { seed: 7 },
        ]
    );
}

#[test]
fn with_nothing_unsynced_every_policy_finds_the_same() {
    let disk = eight_unsynced();
    disk.sync().unwrap();
    for seed in 0..40 {
        assert_eq!(sectors(&disk.crash(seed), 8), [2; 8]);
    }
}

#[test]
fn a_punched_hole_may_have_happened_or_not() {
    let disk = SimulatedDisk::new(16 * SECTOR_BYTES);
    disk.write_at(0, &[1; 16 * SECTOR]).unwrap();
    disk.sync().unwrap();
    disk.punch_hole(0, 16 * SECTOR_BYTES).unwrap();
    assert_eq!(sectors(&disk, 16), [0; 16]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 16), [1; 16]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::KeepAll), 16), [0; 16]);
    for policy in [|seed| CrashPolicy::Sectors { seed }, |seed| CrashPolicy::Writes { seed }] {
        let mut found = BTreeSet::new();
        for seed in 0..200 {
            found.extend(sectors(&disk.crash_with(policy(seed)), 16).into_iter().enumerate());
        }
        assert_eq!(found.len(), 32, "each sector was found both as it was and punched");
    }
}

#[test]
fn holes_as_large_as_the_largest_disk_take_no_time() {
    let disk = SimulatedDisk::new(u64::MAX);
    assert_eq!(disk.size_bytes(), 1 << 62);
    let middle_bytes = 1 << 61;
    disk.write_at(middle_bytes, &[1; 4096]).unwrap();
    disk.sync().unwrap();
    disk.punch_hole(1, (1 << 62) - 1).unwrap();
    for seed in 0..40 {
        disk.crash(seed).sync().unwrap();
    }
    assert_eq!(read(&disk, middle_bytes, 4096), vec![0; 4096]);
    assert!(disk.grow(u64::MAX).is_err());
}

#[test]
fn the_crashed_disk_is_another_disk() {
    let disk = eight_unsynced();
    let crashed = disk.crash_with(CrashPolicy::DropAll);
    assert_eq!(crashed.operations(), 0);
    assert_eq!(crashed.counters(), DiskCounters::default());
    write_sector(&crashed, 0, 9);
    crashed.sync().unwrap();
    write_sector(&disk, 1, 8);
    assert_eq!(sectors(&disk, 2), [2, 8]);
    assert_eq!(sectors(&crashed, 2), [9, 1]);
    assert_eq!(sectors(&crashed.crash_with(CrashPolicy::DropAll), 2), [9, 1]);
}

#[test]
fn an_image_tells_what_is_unsynced() {
    let disk = eight_unsynced();
    let image = disk.image();
    write_sector(&disk, 0, 7);
    assert_eq!(image.operations(), 10);
    assert_eq!(image.unsynced_count(), 8);
    assert!(image.unsynced_operations().eq(3..=10));
    assert_eq!(sectors(&image.disk(CrashPolicy::KeepAll), 8), [2; 8]);
}
