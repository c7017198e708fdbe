//! Bind mounts, tmpfs, propagation and freezing, on the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use std::os::unix::fs::PermissionsExt;
use support::{MEBIBYTE, Scratch, make_ext4, memory, run};
use thinstore_export::{
    Ext4Options, MountFlags, TmpfsOptions, Unmount, freeze, make_private_mount_point, mount_bind,
    mount_ext4, mount_tmpfs, mounted_at, thaw, unmount,
};
use thinstore_storage::ErrorKind;

#[test]
#[ignore = "needs root: mounts"]
fn a_tmpfs_has_the_size_and_mode_that_were_asked_for() {
    let scratch = Scratch::new();
    let place = scratch.place("with space");
    let options =
        TmpfsOptions { size_bytes: Some(MEBIBYTE), mode: Some(0o750), ..TmpfsOptions::default() };
    mount_tmpfs(&place, &options).unwrap();
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(std::fs::write(place.join("file"), vec![1; 2 << 20]).is_err());
    let entry = mounted_at(&place).unwrap().unwrap();
    assert_eq!(entry.file_system_type, "tmpfs");
    assert!(entry.propagation.is_empty());
    unmount(&place, Unmount::Normal).unwrap();
    assert_eq!(unmount(&place, Unmount::Normal).unwrap_err().kind(), ErrorKind::NotFound);
    let nothing = TmpfsOptions { size_bytes: Some(0), ..TmpfsOptions::default() };
    assert_eq!(mount_tmpfs(&place, &nothing).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
#[ignore = "needs root: mounts"]
fn a_read_only_bind_mount_keeps_the_flags_of_its_source_and_reaches_below() {
    let scratch = Scratch::new();
    let (source, target) = (scratch.place("source"), scratch.place("target"));
    let flags = MountFlags { no_devices: true, no_execution: true, ..MountFlags::default() };
    mount_tmpfs(&source, &TmpfsOptions { flags, ..TmpfsOptions::default() }).unwrap();
    let inner = scratch.place("source/inner");
    mount_tmpfs(&inner, &TmpfsOptions::default()).unwrap();
    let read_only = MountFlags { read_only: true, ..MountFlags::default() };
    mount_bind(&source, &target, true, read_only).unwrap();
    assert!(std::fs::write(target.join("file"), b"x").is_err());
    assert!(std::fs::write(target.join("inner/file"), b"x").is_err());
    std::fs::write(source.join("file"), b"x").unwrap();
    let entry = mounted_at(&target).unwrap().unwrap();
    assert!(entry.is_read_only());
    assert!(entry.options.contains("nodev") && entry.options.contains("noexec"), "{entry:?}");
    assert_eq!(unmount(&target, Unmount::Normal).unwrap_err().kind(), ErrorKind::InUse);
    unmount(&target.join("inner"), Unmount::Normal).unwrap();
    unmount(&target, Unmount::Normal).unwrap();
}

#[test]
#[ignore = "needs root: mounts"]
fn a_single_file_is_bound_over_another() {
    let scratch = Scratch::new();
    let (source, target) = (scratch.path().join("a"), scratch.path().join("b"));
    std::fs::write(&source, b"a").unwrap();
    std::fs::write(&target, b"b").unwrap();
    mount_bind(&source, &target, false, MountFlags::default()).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"a");
    unmount(&target, Unmount::Normal).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"b");
    let missing = scratch.path().join("missing");
    let error = mount_bind(&missing, &target, false, MountFlags::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
#[ignore = "needs root: mounts"]
fn a_private_mount_point_is_made_once() {
    let scratch = Scratch::new();
    let place = scratch.place("root");
    make_private_mount_point(&place).unwrap();
    make_private_mount_point(&place).unwrap();
    assert_eq!(scratch.mounts(), std::slice::from_ref(&place));
    assert!(mounted_at(&place).unwrap().unwrap().propagation.is_empty());
    unmount(&place, Unmount::Normal).unwrap();
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn writes_wait_while_a_file_system_is_frozen() {
    let scratch = Scratch::start();
    let path = scratch.exporter().attach("one", memory(64 * MEBIBYTE), false).unwrap();
    make_ext4(&path);
    let place = scratch.place("mount");
    mount_ext4(&path, &place, &Ext4Options::default()).unwrap();
    let frozen = freeze(&place).unwrap();
    assert_eq!(freeze(&place).map(drop).unwrap_err().kind(), ErrorKind::InUse);
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::fs::write(place.join("file"), b"x").unwrap();
            written.store(true, Ordering::Release);
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(!written.load(Ordering::Acquire));
        frozen.thaw().unwrap();
    });
    assert!(written.load(Ordering::Acquire));

    drop(freeze(&place).unwrap());
    assert!(!thaw(&place).unwrap(), "the guard has thawed it");
    run("fsfreeze", &["--freeze", place.to_str().unwrap()]);
    assert!(thaw(&place).unwrap());
    unmount(&place, Unmount::Normal).unwrap();
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn what_is_no_ext4_is_said_to_be_none() {
    let scratch = Scratch::start();
    let path = scratch.exporter().attach("one", memory(MEBIBYTE), false).unwrap();
    let place = scratch.place("mount");
    let error = mount_ext4(&path, &place, &Ext4Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let error = mount_ext4(&path, &place.join("missing"), &Ext4Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
