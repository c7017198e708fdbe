//! Block devices of the kernel on devices served here: what they carry, refuse and give back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{
    MEBIBYTE, Scratch, check_ext4, detach, make_ext4, memory, run, shut_down, system_number, text,
    wait_until,
};
use thinstore_export::loop_device::bound_loops;
use thinstore_export::{Detached, Ext4Options, MountFlags, Unmount};
use thinstore_export::{isolated, lies_on, mount_ext4, trim, unmount};
use thinstore_storage::{BlockDevice, Error, ErrorKind, MemoryDevice, Result};

/// A device that counts what it is asked to free, and can grow.
struct CountingDevice {
    inner: MemoryDevice,
    size_bytes: AtomicU64,
    zeroed_bytes: AtomicU64,
    flushes: AtomicU64,
}

impl CountingDevice {
    fn new(size_bytes: u64, largest_bytes: u64) -> Arc<CountingDevice> {
        Arc::new(CountingDevice {
            inner: MemoryDevice::new(largest_bytes),
            size_bytes: AtomicU64::new(size_bytes),
            zeroed_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        })
    }
}

impl BlockDevice for CountingDevice {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }
    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.inner.read(offset_bytes, buffer)
    }
    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.inner.write(offset_bytes, data)
    }
    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.zeroed_bytes.fetch_add(length_bytes, Ordering::AcqRel);
        self.inner.write_zeroes(offset_bytes, length_bytes)
    }
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.inner.discard(offset_bytes, length_bytes)
    }
    fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::AcqRel);
        self.inner.flush()
    }
}

fn loops_of(scratch: &Scratch) -> Vec<PathBuf> {
    bound_loops()
        .unwrap()
        .into_iter()
        .filter(|bound| bound.backing_file.starts_with(scratch.path()))
        .map(|bound| bound.device.path())
        .collect()
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn an_ext4_keeps_its_files_from_attach_to_attach() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let device = CountingDevice::new(64 * MEBIBYTE, 64 * MEBIBYTE);
    let path = exporter.attach("one", device.clone(), false).unwrap();
    assert_eq!(system_number(&path, "queue/logical_block_size"), 4096);
    assert_eq!(system_number(&path, "loop/dio"), 1);
    make_ext4(&path);

    let place = scratch.place("mount");
    mount_ext4(&path, &place, &Ext4Options::default()).unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let mut file = std::fs::File::create(place.join("file")).unwrap();
    file.write_all(&data).unwrap();
    file.sync_all().unwrap();
    assert!(device.flushes.load(Ordering::Acquire) > 0);
    drop(file);

    let error = exporter.detach("one").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains(text(&place)), "{error}");
    unmount(&place, Unmount::Normal).unwrap();
    check_ext4(&path);
    detach(exporter, "one");
    assert!(loops_of(&scratch).is_empty());

    let path = exporter.attach("one", device, true).unwrap();
    let flags = MountFlags { read_only: true, ..MountFlags::default() };
    mount_ext4(&path, &place, &Ext4Options { flags, ..Ext4Options::default() }).unwrap();
    assert_eq!(std::fs::read(place.join("file")).unwrap(), data);
    unmount(&place, Unmount::Normal).unwrap();
    shut_down(exporter);
    assert!(scratch.mounts().is_empty());
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn random_writes_of_all_sizes_at_depth_are_read_back() {
    let scratch = Scratch::start();
    let path = scratch.exporter().attach("one", memory(256 * MEBIBYTE), false).unwrap();
    run(
        "fio",
        &[
            "--name=verify",
            &format!("--filename={}", path.display()),
            "--ioengine=libaio",
            "--direct=1",
            "--rw=randwrite",
            "--bsrange=4k-512k",
            "--blockalign=4k",
            "--iodepth=32",
            "--size=256M",
            "--io_size=1G",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_backlog=256",
            "--serialize_overlap=1",
            "--fsync=64",
            "--randrepeat=1",
            "--verify_state_save=0",
        ],
    );
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn discards_reach_the_device_and_read_as_zeroes() {
    let scratch = Scratch::start();
    let device = CountingDevice::new(64 * MEBIBYTE, 64 * MEBIBYTE);
    let path = scratch.exporter().attach("one", device.clone(), false).unwrap();
    assert_eq!(system_number(&path, "queue/discard_granularity"), 4096);

    device.write(0, &[7; 1 << 20]).unwrap();
    run("blkdiscard", &["--offset", "4096", "--length", "65536", text(&path)]);
    assert_eq!(device.zeroed_bytes.load(Ordering::Acquire), 65536);
    let mut buffer = vec![1; 1 << 20];
    let file = std::fs::File::open(&path).unwrap();
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert!(buffer[4096..4096 + 65536].iter().all(|byte| *byte == 0));
    assert!(buffer[..4096].iter().chain(&buffer[4096 + 65536..]).all(|byte| *byte == 7));
    drop(file);

    run("blkdiscard", &["--zeroout", "--offset", "0", "--length", "4096", text(&path)]);
    let mut buffer = [1; 8192];
    device.read(0, &mut buffer).unwrap();
    assert!(buffer.iter().all(|byte| *byte == 0));
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn deleted_files_give_their_space_back_when_trimmed() {
    let scratch = Scratch::start();
    let device = CountingDevice::new(64 * MEBIBYTE, 64 * MEBIBYTE);
    let path = scratch.exporter().attach("one", device.clone(), false).unwrap();
    make_ext4(&path);
    let place = scratch.place("mount");
    mount_ext4(&path, &place, &Ext4Options::default()).unwrap();
    std::fs::write(place.join("file"), vec![5; 20 << 20]).unwrap();
    run("sync", &["-f", text(&place)]);
    std::fs::remove_file(place.join("file")).unwrap();
    run("sync", &["-f", text(&place)]);
    let trimmed = trim(&place).unwrap();
    assert!(trimmed >= 20 * MEBIBYTE, "{trimmed}");
    assert!(device.zeroed_bytes.load(Ordering::Acquire) >= 20 * MEBIBYTE);
    run("fstrim", &[text(&place)]);
    unmount(&place, Unmount::Normal).unwrap();
    check_ext4(&path);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_read_only_device_refuses_writes_and_mounts_without_replaying_its_journal() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let device = Arc::new(MemoryDevice::new(64 * MEBIBYTE));
    let path = exporter.attach("one", device.clone(), false).unwrap();
    make_ext4(&path);
    let place = scratch.place("mount");
    mount_ext4(&path, &place, &Ext4Options::default()).unwrap();
    std::fs::write(place.join("file"), b"kept").unwrap();
    run("sync", &["-f", text(&place)]);
    // What the device holds now is what a loss of power would leave: a journal to be replayed.
    let copy = Arc::new(MemoryDevice::new(64 * MEBIBYTE));
    let mut buffer = vec![0; 1 << 20];
    for offset_bytes in (0..64).map(|number| number * MEBIBYTE) {
        device.read(offset_bytes, &mut buffer).unwrap();
        copy.write(offset_bytes, &buffer).unwrap();
    }
    unmount(&place, Unmount::Normal).unwrap();

    let path = exporter.attach("copy", copy, true).unwrap();
    assert_eq!(system_number(&path, "ro"), 1);
    assert!(std::fs::File::options().write(true).open(exporter.directory().join("copy")).is_err());
    let flags = MountFlags { read_only: true, ..MountFlags::default() };
    let mut options = Ext4Options { flags, ..Ext4Options::default() };
    let error = mount_ext4(&path, &place, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let error = mount_ext4(&path, &place, &Ext4Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    options.without_journal_replay = true;
    mount_ext4(&path, &place, &options).unwrap();
    assert!(std::fs::write(place.join("other"), b"x").is_err());
    unmount(&place, Unmount::Normal).unwrap();

    options.flags.read_only = false;
    assert_eq!(mount_ext4(&path, &place, &options).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn fifty_devices_are_served_at_once_and_all_go() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50)
            .map(|number| {
                scope.spawn(move || {
                    let name = format!("device-{number}");
                    let path = exporter.attach(&name, memory(MEBIBYTE), false).unwrap();
                    let file = std::fs::File::options().write(true).open(&path).unwrap();
                    file.write_all_at(&[number; 4096], 8192).unwrap();
                    file.sync_all().unwrap();
                    path
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let names: std::collections::HashSet<&PathBuf> = paths.iter().collect();
    assert_eq!(names.len(), 50);
    for (number, path) in (0_u8..).zip(&paths) {
        let mut buffer = [0; 4096];
        std::fs::File::open(path).unwrap().read_exact_at(&mut buffer, 8192).unwrap();
        assert_eq!(buffer, [number; 4096]);
    }
    assert_eq!(exporter.list().unwrap().len(), 50);
    let shown = std::fs::read_dir(exporter.directory()).unwrap().count();
    assert_eq!(shown, 50);
    shut_down(exporter);
    assert!(loops_of(&scratch).is_empty());
    assert!(scratch.mounts().is_empty());
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn attaching_and_detaching_again_changes_nothing() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    assert_eq!(exporter.detach("one").unwrap(), Detached::NotAttached);
    let device = memory(MEBIBYTE);
    let path = exporter.attach("one", device.clone(), false).unwrap();
    assert_eq!(exporter.attach("one", device.clone(), false).unwrap(), path);
    assert_eq!(exporter.path_of("one").unwrap(), Some(path.clone()));
    let error = exporter.attach("one", device.clone(), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let error = exporter.attach("one", memory(MEBIBYTE), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert_eq!(loops_of(&scratch), [path]);
    detach(exporter, "one");
    assert_eq!(exporter.detach("one").unwrap(), Detached::NotAttached);
    assert_eq!(exporter.path_of("one").unwrap(), None);
    let error = exporter.attach("a/b", device, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_loop_device_that_somebody_else_unbound_is_attached_anew() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let device = memory(MEBIBYTE);
    let path = exporter.attach("one", device.clone(), false).unwrap();
    run("losetup", &["--detach", text(&path)]);
    wait_until("it is unbound", || loops_of(&scratch).is_empty());
    assert!(exporter.list().unwrap().is_empty());
    let path = exporter.attach("one", device, false).unwrap();
    assert_eq!(loops_of(&scratch), [path]);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_device_that_is_held_open_goes_when_it_is_let_go() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let device = memory(MEBIBYTE);
    let path = exporter.attach("one", device.clone(), false).unwrap();
    let held = std::fs::File::open(&path).unwrap();
    let Detached::Deferred(holders) = exporter.detach("one").unwrap() else {
        panic!("the device is held");
    };
    assert!(holders.iter().any(|holder| holder.to_string().contains("open in process")));
    assert!(exporter.list().unwrap()[0].deferred);
    assert_eq!(exporter.attach("one", device.clone(), false).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(exporter.shutdown().unwrap_err().kind(), ErrorKind::InUse);
    // It is served until then.
    held.read_exact_at(&mut [0; 4096], 0).unwrap();
    drop(held);
    wait_until("it has gone", || exporter.list().unwrap().is_empty());
    exporter.attach("one", device, false).unwrap();
    shut_down(exporter);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_mount_in_another_namespace_defers_the_detach_and_is_named() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let path = exporter.attach("one", memory(64 * MEBIBYTE), false).unwrap();
    make_ext4(&path);
    let place = scratch.place("mount");
    // The new namespace begins with copies of the mounts of tests that run beside this one.
    let script = format!(
        "grep -o '/tmp/thinstore-export-[^ ]*' /proc/self/mounts | xargs -r umount -l; \
         mount {} {} && echo ready && read line",
        path.display(),
        place.display()
    );
    let mut other = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("this test needs the program unshare");
    let mut line = String::new();
    let mut output = std::io::BufReader::new(other.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");

    let Detached::Deferred(holders) = exporter.detach("one").unwrap() else {
        panic!("the device is mounted elsewhere");
    };
    let shown: Vec<String> = holders.iter().map(ToString::to_string).collect();
    assert!(
        shown.iter().any(|line| line.contains("in the mount namespace of process")),
        "{shown:?}"
    );
    drop(other.stdin.take());
    other.wait().unwrap();
    wait_until("it has gone", || exporter.list().unwrap().is_empty());
    shut_down(exporter);
    assert!(loops_of(&scratch).is_empty());
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_device_that_grows_is_seen_larger() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let device = CountingDevice::new(MEBIBYTE, 4 * MEBIBYTE);
    let path = exporter.attach("one", device.clone(), false).unwrap();
    assert_eq!(system_number(&path, "size"), MEBIBYTE / 512);
    device.size_bytes.store(4 * MEBIBYTE, Ordering::Release);
    assert_eq!(exporter.resize("one").unwrap(), path);
    assert_eq!(system_number(&path, "size"), 4 * MEBIBYTE / 512);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[1; 4096], 3 * MEBIBYTE).unwrap();
    file.sync_all().unwrap();
    assert_eq!(exporter.list().unwrap()[0].size_bytes, 4 * MEBIBYTE);
    assert_eq!(exporter.resize("none").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_path_on_an_own_device_is_told_through_what_lies_between() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let path = exporter.attach("one", memory(64 * MEBIBYTE), false).unwrap();
    make_ext4(&path);
    let place = scratch.place("mount");
    mount_ext4(&path, &place, &Ext4Options::default()).unwrap();
    assert!(lies_on(&place.join("pool"), exporter).unwrap());
    assert!(lies_on(&path, exporter).unwrap());
    assert!(lies_on(&exporter.directory().join("one"), exporter).unwrap());
    assert!(!lies_on(scratch.path(), exporter).unwrap());
    assert!(!lies_on(Path::new("/nowhere/pool"), exporter).unwrap());

    let (upper, work, merged) = (scratch.place("u"), place.join("w"), scratch.place("m"));
    std::fs::create_dir_all(&work).unwrap();
    let upper_on_device = place.join("u");
    std::fs::create_dir_all(&upper_on_device).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        upper.display(),
        upper_on_device.display(),
        work.display()
    );
    run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
    assert!(lies_on(&merged.join("pool"), exporter).unwrap());
    unmount(&merged, Unmount::Normal).unwrap();

    // A loop device of somebody else, on a file of ours.
    std::fs::File::create(place.join("image")).unwrap().set_len(8 * MEBIBYTE).unwrap();
    let image = place.join("image");
    let nested = run("losetup", &["--find", "--show", text(&image)]);
    let found = lies_on(Path::new(nested.trim()), exporter).unwrap();
    run("losetup", &["--detach", nested.trim()]);
    assert!(found);
    unmount(&place, Unmount::Normal).unwrap();
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn files_cannot_be_made_truncated_or_removed_by_hand() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    exporter.attach("one", memory(MEBIBYTE), false).unwrap();
    let file = exporter.directory().join("one");
    assert!(std::fs::File::create(exporter.directory().join("new")).is_err());
    assert!(std::fs::remove_file(&file).is_err());
    assert!(std::fs::OpenOptions::new().write(true).truncate(true).open(&file).is_err());
    assert_eq!(std::fs::metadata(&file).unwrap().len(), MEBIBYTE);
}

/// A device that holds flushes back until it is told, fails writes, or panics on reads.
#[derive(Default)]
struct BadDevice {
    flushing: AtomicU64,
    released: AtomicBool,
}

impl BlockDevice for BadDevice {
    fn size_bytes(&self) -> u64 {
        MEBIBYTE
    }
    fn read(&self, _offset_bytes: u64, _buffer: &mut [u8]) -> Result<()> {
        panic!("a read of this device panics");
    }
    fn write(&self, _offset_bytes: u64, _data: &[u8]) -> Result<()> {
        Err(Error::new(ErrorKind::Full, "the pool is full; remove something"))
    }
    fn write_zeroes(&self, _offset_bytes: u64, _length_bytes: u64) -> Result<()> {
        Err(Error::new(ErrorKind::Corrupt, "the map page 7 is damaged; run check"))
    }
    fn discard(&self, _offset_bytes: u64, _length_bytes: u64) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        self.flushing.fetch_add(1, Ordering::AcqRel);
        while !self.released.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Lets the flushes end, also when the test fails.
struct Release<'a>(&'a BadDevice);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.released.store(true, Ordering::Release);
    }
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn flushes_that_hang_on_many_devices_hold_up_no_read_of_another() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let bad = Arc::new(BadDevice::default());
    let path = exporter.attach("good", memory(MEBIBYTE), false).unwrap();
    for number in 0..48 {
        exporter.attach(&format!("bad-{number}"), bad.clone(), false).unwrap();
    }
    std::thread::scope(|scope| {
        let release = Release(&bad);
        for number in 0..48 {
            let file = exporter.directory().join(format!("bad-{number}"));
            scope.spawn(move || {
                let file = std::fs::File::options().write(true).open(file).unwrap();
                let _ = file.write_all_at(&[1; 4096], 0);
                file.sync_all().unwrap();
            });
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while bad.flushing.load(Ordering::Acquire) < 32 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(bad.flushing.load(Ordering::Acquire), 32);
        let started = Instant::now();
        run("dd", &[&format!("if={}", path.display()), "of=/dev/null", "bs=4k", "iflag=direct"]);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        drop(release);
    });
    assert_eq!(bad.flushing.load(Ordering::Acquire), 48);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn errors_of_a_device_arrive_as_the_errno_of_their_kind_and_a_panic_as_eio() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    let bad = Arc::new(BadDevice::default());
    bad.released.store(true, Ordering::Release);
    let path = exporter.attach("bad", bad, false).unwrap();
    let file = exporter.directory().join("bad");
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let code = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    assert_eq!(code(file.write_all_at(&[1; 4096], 0)), nix::libc::ENOSPC);
    assert_eq!(code(file.read_exact_at(&mut [0; 4096], 0)), nix::libc::EIO);
    drop(file);
    let read = |path: &Path| std::fs::File::open(path).unwrap().read_exact_at(&mut [0; 4096], 0);
    assert_eq!(code(read(&path)), nix::libc::EIO);
    let output = std::process::Command::new("blkdiscard").arg(&path).output().unwrap();
    assert!(!output.status.success());
    // The thread that met the panic is still there for others.
    let good = exporter.attach("good", memory(MEBIBYTE), false).unwrap();
    read(&good).unwrap();
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn the_kernel_forgets_a_name_that_a_thread_without_open_files_detached() {
    let scratch = Scratch::start();
    let exporter = scratch.exporter();
    exporter.attach("disk", memory(4 * MEBIBYTE), false).unwrap();
    let file = exporter.directory().join("disk");
    // Now the kernel knows the name, and would go on knowing it.
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 4 * MEBIBYTE);
    let detached = isolated(|| exporter.detach("disk")).unwrap();
    assert!(matches!(detached, Detached::Done));
    let error = std::fs::metadata(&file).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    shut_down(exporter);
}
