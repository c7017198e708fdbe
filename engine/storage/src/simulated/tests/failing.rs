//! Errors to order, and what they leave behind.

use super::*;

fn errno(result: io::Result<()>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

const EIO: Option<i32> = Some(5);
const ENOSPC: Option<i32> = Some(28);

#[test]
fn each_kind_of_operation_fails_when_its_turn_comes() {
    use DiskOperation::{Grow, Punch, Read, Reserve, Sync, Write};
    for operation in [Read, Write, Punch, Reserve, Grow, Sync] {
        let disk = SimulatedDisk::new(4096);
        disk.write_at(0, &[1; 10]).unwrap();
        disk.set_faults(FaultPlan::new().once(operation, 2, Fault::InputOutput));
        let go = |tried: DiskOperation| match tried {
            Read => disk.read_at(0, &mut [0; 10]),
            Write => disk.write_at(0, &[2; 10]),
            Punch => disk.punch_hole(0, 10),
            Reserve => disk.reserve(0, 10),
            Grow => disk.grow(8192),
            Sync => disk.sync(),
        };
        for tried in [Read, Write, Punch, Reserve, Grow, Sync] {
            go(tried).unwrap();
            let second = go(tried);
            assert_eq!(second.is_err(), tried == operation);
            if tried == operation {
                assert_eq!(errno(second), EIO);
            }
            go(tried).unwrap();
        }
    }
}

#[test]
fn a_lasting_fault_stays_until_the_plan_is_replaced() {
    let disk = SimulatedDisk::new(4096);
    let plan = FaultPlan::new().once(DiskOperation::Write, 2, Fault::InputOutput).from(
        DiskOperation::Write,
        2,
        Fault::NoSpace,
    );
    disk.set_faults(plan);
    write_sector(&disk, 0, 1);
    assert_eq!(errno(disk.write_at(0, &[2; 512])), EIO);
    for _ in 0..3 {
        let error = disk.write_at(0, &[2; 512]).unwrap_err();
        assert_eq!(Error::io("write failed", error).kind(), ErrorKind::Full);
    }
    assert_eq!(sectors(&disk, 1), [1]);
    disk.set_faults(FaultPlan::new());
    write_sector(&disk, 0, 3);
    assert_eq!(sectors(&disk, 1), [3]);
    assert_eq!(disk.counters().writes, 6);
    assert_eq!(disk.counters().bytes_written, 1024);
    assert_eq!(disk.operations(), 6);
}

#[test]
fn a_failed_write_can_leave_its_first_sectors() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimulatedDisk::new(4096);
        let plan = FaultPlan::new()
            .once(DiskOperation::Write, 1, Fault::NoSpace)
            .failed_write(FailedWrite::LeavesPrefix { seed });
        disk.set_faults(plan);
        assert_eq!(errno(disk.write_at(0, &[1; 4 * SECTOR])), ENOSPC);
        let found = sectors(&disk, 8);
        let length = found.iter().take_while(|value| **value == 1).count();
        assert!(found[length..].iter().all(|value| *value == 0));
        assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 8), [0; 8]);
        lengths.insert(length);
    }
    assert_eq!(lengths, (0..4).collect());
}

#[test]
fn ignored_operations_answer_success_and_do_nothing() {
    let disk = SimulatedDisk::new(4096);
    write_sector(&disk, 0, 1);
    let plan = FaultPlan::new()
        .once(DiskOperation::Write, 1, Fault::Ignored)
        .once(DiskOperation::Punch, 1, Fault::Ignored)
        .once(DiskOperation::Read, 1, Fault::Ignored)
        .once(DiskOperation::Sync, 1, Fault::Ignored);
    disk.set_faults(plan);
    write_sector(&disk, 0, 2);
    disk.punch_hole(0, 512).unwrap();
    disk.sync().unwrap();
    assert_eq!(read(&disk, 0, 2), [0xee; 2]);
    assert_eq!(sectors(&disk, 1), [1]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 1), [0]);
}

fn with_failed_sync(failed_sync: FailedSync) -> SimulatedDisk {
    let disk = SimulatedDisk::new(4096);
    disk.write_at(0, &[1; 8 * SECTOR]).unwrap();
    disk.sync().unwrap();
    disk.write_at(0, &[2; 7 * SECTOR]).unwrap();
    let plan = FaultPlan::new().once(DiskOperation::Sync, 1, Fault::InputOutput);
    disk.set_faults(plan.failed_sync(failed_sync));
    assert_eq!(errno(disk.sync()), EIO);
    disk
}

#[test]
fn a_failed_sync_can_leave_writes_to_the_next_one() {
    let disk = with_failed_sync(FailedSync::KeepsUnsynced);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 8), [1; 8]);
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::KeepAll), 8), [2, 2, 2, 2, 2, 2, 2, 1]);
    disk.drop_cache().unwrap();
    disk.sync().unwrap();
    assert_eq!(sectors(&disk.crash_with(CrashPolicy::DropAll), 8), [2, 2, 2, 2, 2, 2, 2, 1]);
}

#[test]
fn writes_lost_by_a_failed_sync_are_shown_until_the_cache_is_dropped() {
    let disk = with_failed_sync(FailedSync::LosesUnsynced);
    write_sector(&disk, 6, 3);
    assert_eq!(sectors(&disk, 8), [2, 2, 2, 2, 2, 2, 3, 1]);
    disk.sync().unwrap();
    assert_eq!(sectors(&disk, 8), [2, 2, 2, 2, 2, 2, 3, 1]);
    for seed in 0..20 {
        assert_eq!(sectors(&disk.crash(seed), 8), [1, 1, 1, 1, 1, 1, 3, 1]);
    }
    write_sector(&disk, 7, 4);
    disk.drop_cache().unwrap();
    assert_eq!(sectors(&disk, 8), [1, 1, 1, 1, 1, 1, 3, 4]);
}

#[test]
fn a_failed_sync_can_lose_some_sectors_and_then_all_is_settled() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..40 {
        let disk = with_failed_sync(FailedSync::LosesSome { seed });
        assert_eq!(sectors(&disk, 8), [2, 2, 2, 2, 2, 2, 2, 1]);
        let settled = sectors(&disk.crash_with(CrashPolicy::DropAll), 8);
        assert!(settled[..7].iter().all(|value| [1, 2].contains(value)) && settled[7] == 1);
        assert_eq!(sectors(&disk.crash_with(CrashPolicy::KeepAll), 8), settled);
        disk.drop_cache().unwrap();
        assert_eq!(sectors(&disk, 8), settled);
        outcomes.insert(settled);
    }
    assert!(outcomes.len() > 10);
}

#[test]
fn corrupted_bytes_are_durable_and_not_counted() {
    let disk = SimulatedDisk::new(4096);
    write_sector(&disk, 0, 1);
    disk.sync().unwrap();
    let before = (disk.counters(), disk.operations());
    disk.corrupt(10, &[0xff]).unwrap();
    assert!(disk.corrupt(4096, &[0]).is_err());
    assert_eq!((disk.counters(), disk.operations()), before);
    assert_eq!(read(&disk, 9, 3), [1, 0xff, 1]);
    assert_eq!(read(&disk.crash_with(CrashPolicy::DropAll), 9, 3), [1, 0xff, 1]);
}
