//! Bind mounts, tmpfs, propagation and freezing, on the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use std::os::unix::fs::PermissionsExt;
use support::{MEBIBYTE, Scratch, make_ext4, memory, run};
use thinstore_export::{
    BindOptions, Ext4Options, MountFlags, Propagation, TmpfsOptions, Unmount, freeze,
    make_private_mount_point, mount_bind, mount_ext4, mount_tmpfs, mounted_at, thaw, unmount,
    unmount_all_below,
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
    let options = BindOptions {
        recursive: true,
        flags: read_only,
        recursive_propagation: true,
        ..BindOptions::default()
    };
    mount_bind(&source, &target, &options).unwrap();
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
    mount_bind(&source, &target, &BindOptions::default()).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"a");
    unmount(&target, Unmount::Normal).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"b");
    let missing = scratch.path().join("missing");
    let error = mount_bind(&missing, &target, &BindOptions::default()).unwrap_err();
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

/// A tmpfs that shares its mounts, with one below it, and a place to bind it to.
fn shared_source(scratch: &Scratch) -> (std::path::PathBuf, std::path::PathBuf) {
    let source = scratch.place("shared");
    mount_tmpfs(&source, &TmpfsOptions::default()).unwrap();
    let status = std::process::Command::new("mount").arg("--make-shared").arg(&source).status();
    assert!(status.unwrap().success());
    let inner = scratch.place("shared/inner");
    mount_tmpfs(&inner, &TmpfsOptions::default()).unwrap();
    (source, scratch.place("bound"))
}

fn bound(propagation: Propagation, recursive: bool) -> BindOptions {
    let recursive_propagation = true;
    BindOptions { recursive, propagation, recursive_propagation, ..BindOptions::default() }
}

#[test]
#[ignore = "needs root: mounts"]
fn later_mounts_arrive_where_they_are_to_and_ending_a_bind_mount_ends_nothing_else() {
    let is_mounted = |point: &std::path::Path| mounted_at(point).unwrap().is_some();
    for (propagation, arrives, leaves) in [
        (Propagation::Private, false, false),
        (Propagation::Slave, true, false),
        (Propagation::Shared, true, true),
    ] {
        let scratch = Scratch::new();
        let (source, target) = shared_source(&scratch);
        let (later, inside) = (scratch.place("shared/later"), scratch.place("shared/inside"));
        mount_bind(&source, &target, &bound(propagation, true)).unwrap();
        assert!(is_mounted(&target.join("inner")));
        mount_tmpfs(&later, &TmpfsOptions::default()).unwrap();
        assert_eq!(is_mounted(&target.join("later")), arrives, "{propagation:?}");
        mount_tmpfs(&target.join("inside"), &TmpfsOptions::default()).unwrap();
        assert_eq!(is_mounted(&inside), leaves, "{propagation:?}");

        unmount_all_below(&target).unwrap();
        assert!(!is_mounted(&target));
        assert!(is_mounted(&source.join("inner")), "{propagation:?} took the host's mount away");
        assert!(is_mounted(&later), "{propagation:?} took the host's mount away");
        unmount_all_below(&source).unwrap();
    }
}

#[test]
#[ignore = "needs root: mounts"]
fn what_cannot_propagate_is_refused_and_a_bind_mount_can_leave_out_what_lies_below() {
    let scratch = Scratch::new();
    let private = scratch.place("private");
    mount_tmpfs(&private, &TmpfsOptions::default()).unwrap();
    let target = scratch.place("target");
    for propagation in [Propagation::Slave, Propagation::Shared] {
        let error = mount_bind(&private, &target, &bound(propagation, true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("make-rshared"), "{error}");
        assert!(mounted_at(&target).unwrap().is_none());
    }
    let (source, target) = shared_source(&scratch);
    mount_bind(&source, &target, &bound(Propagation::Private, false)).unwrap();
    assert!(mounted_at(&target.join("inner")).unwrap().is_none());
    unmount(&target, Unmount::Normal).unwrap();
}
