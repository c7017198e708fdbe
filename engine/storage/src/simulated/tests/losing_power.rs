//! What happens when power fails in the midst of an operation.

use super::*;

#[test]
fn everything_fails_from_the_chosen_operation_on() {
    let disk = SimulatedDisk::new(4096);
    disk.power_fails_at(3);
    write_sector(&disk, 0, 1);
    disk.sync().unwrap();
    assert!(!disk.is_off());
    assert_power_is_off(disk.write_at(512, &[2; 512]));
    assert!(disk.is_off());
    let before = disk.counters();
    assert_power_is_off(disk.read_at(0, &mut [0; 1]));
    assert_power_is_off(disk.write_at(0, &[0; 1]));
    assert_power_is_off(disk.sync());
    assert_power_is_off(disk.punch_hole(0, 512));
    assert_power_is_off(disk.reserve(0, 512));
    assert_power_is_off(disk.grow(8192));
    assert_power_is_off(disk.drop_cache());
    assert_eq!(disk.counters(), before);
    assert_eq!(disk.operations(), 3);
    assert_eq!(disk.size_bytes(), 4096);
}

#[test]
fn the_write_in_which_power_fails_may_be_in_out_or_torn() {
    let disk = SimulatedDisk::new(8 * SECTOR_BYTES);
    disk.power_fails_at(1);
    assert_power_is_off(disk.write_at(0, &[1; 8 * SECTOR]));
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::KeepAll), 8), [1; 8]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 8), [0; 8]);
    let found = (0..100).map(|seed| sectors(&disk.crash(seed), 8));
    assert!(found.collect::<BTreeSet<_>>().len() > 20);
}

#[test]
fn a_sync_in_which_power_fails_has_promised_nothing() {
    let disk = SimulatedDisk::new(4096);
    write_sector(&disk, 0, 1);
    disk.power_fails_at(2);
    assert_power_is_off(disk.sync());
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 1), [0]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::KeepAll), 1), [1]);
}

#[test]
fn a_growth_is_durable_but_for_the_one_in_which_power_fails() {
    let disk = SimulatedDisk::new(4096);
    disk.grow(8192).unwrap();
    assert_eq!(disk.crash_with(CrashPolicy::DropAll).size_bytes(), 8192);
    disk.power_fails_at(2);
    assert_power_is_off(disk.grow(16384));
    assert_eq!(disk.crash_with(CrashPolicy::KeepAll).size_bytes(), 16384);
    assert_eq!(disk.crash_with(CrashPolicy::DropAll).size_bytes(), 8192);
    let sizes: BTreeSet<u64> = (3..40).map(|seed| disk.crash(seed).size_bytes()).collect();
    assert_eq!(sizes, BTreeSet::from([8192, 16384]));
}

#[test]
fn power_can_be_cut_between_operations_and_during_recovery() {
    let disk = SimulatedDisk::new(4096);
    write_sector(&disk, 0, 1);
    disk.power_off();
    assert_power_is_off(disk.sync());
    let recovered = disk.crash_with(CrashPolicy::KeepAll);
    recovered.power_fails_at(1);
    assert_power_is_off(recovered.write_at(0, &[2; 512]));
    assert_eq!(sectors(&recovered.crash_with(CrashPolicy::DropAll), 1), [1]);
}

#[test]
fn a_refused_range_is_no_operation() {
    let disk = SimulatedDisk::new(4096);
    disk.power_fails_at(1);
    let error = disk.write_at(4096, &[0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(disk.punch_hole(0, 4097).is_err() && disk.reserve(1, u64::MAX).is_err());
    assert_eq!((disk.operations(), disk.is_off()), (0, false));
    assert_eq!(disk.counters(), DiskCounters::default());
}

#[test]
fn observed_images_are_those_of_runs_that_lose_power_there() {
    let scenario = |disk: &SimulatedDisk| -> io::Result<()> {
        disk.write_at(0, &[1; 1000])?;
        disk.write_at(700, &[2; 3000])?;
        disk.sync()?;
        disk.punch_hole(100, 2000)?;
        disk.grow(8192)?;
        disk.write_at(5000, &[3; 100])
    };
    let images = Arc::new(Mutex::new(Vec::new()));
    let observed = SimulatedDisk::new(4096);
    let sink = images.clone();
    observed.observe(move |operation, image| sink.lock().push((operation, image)));
    scenario(&observed).unwrap();
    let images = images.lock();
    let operations: Vec<DiskOperation> = images.iter().map(|(operation, _)| *operation).collect();
    use DiskOperation::{Grow, Punch, Sync, Write};
    assert_eq!(operations, [Write, Write, Sync, Punch, Grow, Write]);
    for (number, (operation, image)) in (1..).zip(images.iter()) {
        assert_eq!(image.operations(), number);
        let cut = SimulatedDisk::new(4096);
        cut.power_fails_at(number);
        assert_power_is_off(scenario(&cut));
        for seed in 0..20 {
            // A sync or a growth that was cut has promised nothing yet; all else is the same.
            if !matches!(operation, Sync | Grow) {
                let (one, other) = (cut.crash(seed), image.disk(CrashPolicy::from_seed(seed)));
                assert_eq!(one.size_bytes(), other.size_bytes());
                assert_eq!(read(&one, 0, 4096), read(&other, 0, 4096));
            }
        }
    }
}
