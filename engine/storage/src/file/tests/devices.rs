//! Block devices, and file systems that can do less. All of this needs root.

use super::*;

/// A loop device; detached when dropped.
struct LoopDevice {
    path: PathBuf,
    _folder: TempDir,
}

impl LoopDevice {
    fn new(size_bytes: u64) -> LoopDevice {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backing");
        File::create(&file).unwrap().set_len(size_bytes).unwrap();
        let path = run("losetup", &["--find", "--show", file.to_str().unwrap()]);
        LoopDevice { path: path.into(), _folder: folder }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", self.path()]).status();
    }
}

/// A mount; unmounted when dropped.
struct Mount(TempDir);

impl Mount {
    fn new(arguments: &[&str]) -> Mount {
        let folder = tempfile::tempdir().unwrap();
        run("mount", &[arguments, &[folder.path().to_str().unwrap()]].concat());
        Mount(folder)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
#[ignore = "needs root: makes a loop device"]
fn a_block_device_is_read_written_punched_and_synced_in_whole_blocks() {
    let device = LoopDevice::new(MIB + 512);
    let storage = FileOptions::new().open(&device.path).unwrap();
    assert!(storage.is_block_device() && storage.is_direct());
    assert_eq!(storage.size_bytes(), MIB);
    assert_eq!(storage.allocated_bytes().unwrap(), MIB);
    storage.write_at(0, &vec![1; 1 << 20]).unwrap();
    storage.write_at(5000, &[2; 5000]).unwrap();
    storage.sync().unwrap();
    assert_eq!(read(&storage, 4999, 5002), [vec![1], vec![2; 5000], vec![1]].concat());
    storage.punch_hole(8192, 8192).unwrap();
    assert_eq!(read(&storage, 8192, 8192), vec![0; 8192]);
    storage.reserve(0, MIB).unwrap();
    storage.drop_cache().unwrap();
    assert!(storage.write_at(MIB, &[0; 512]).is_err());
}

#[test]
#[ignore = "needs root: makes a loop device"]
fn a_block_device_grows_only_when_it_has_grown_itself() {
    let device = LoopDevice::new(MIB);
    let storage = FileOptions::new().open(&device.path).unwrap();
    let error = storage.grow(2 * MIB).unwrap_err();
    assert!(error.to_string().contains(device.path()), "{error}");
    assert_eq!(storage.size_bytes(), MIB);
    let backing = device._folder.path().join("backing");
    OpenOptions::new().write(true).open(backing).unwrap().set_len(2 * MIB).unwrap();
    run("losetup", &["--set-capacity", device.path()]);
    storage.grow(2 * MIB).unwrap();
    storage.write_at(2 * MIB - 4096, &[1; 4096]).unwrap();
}

#[test]
#[ignore = "needs root: makes a loop device"]
fn a_block_device_has_one_owner_whichever_node_it_is_opened_by() {
    let device = LoopDevice::new(MIB);
    let storage = FileOptions::new().open(&device.path).unwrap();
    for options in [FileOptions::new(), reading()] {
        let words = [device.path(), "this process itself"];
        assert_refused(options.open(&device.path), ErrorKind::InUse, &words);
    }
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node");
    let number = fs::metadata(&device.path).unwrap().rdev();
    let major = nix::sys::stat::major(number).to_string();
    let minor = nix::sys::stat::minor(number).to_string();
    run("mknod", &[node.to_str().unwrap(), "b", &major, &minor]);
    assert_refused(FileOptions::new().open(&node), ErrorKind::InUse, &["node"]);
    drop(storage);
    FileOptions::new().open(&node).unwrap();
}

#[test]
#[ignore = "needs root: makes and mounts a loop device"]
fn a_mounted_block_device_is_refused_with_its_mount_point() {
    let device = LoopDevice::new(16 * MIB);
    run("mke2fs", &["-q", "-t", "ext4", device.path()]);
    let mount = Mount::new(&[device.path()]);
    let mount_point = mount.0.path().to_str().unwrap();
    let words = [device.path(), mount_point];
    assert_refused(FileOptions::new().open(&device.path), ErrorKind::InUse, &words);
    reading().open(&device.path).unwrap();
}

#[test]
#[ignore = "needs root: mounts a ramfs, which has no direct I/O"]
fn a_file_system_without_direct_io_is_used_through_the_page_cache() {
    let mount = Mount::new(&["-t", "ramfs", "none"]);
    let path = mount.0.path().join("pool");
    let storage = FileOptions::new().create_new(&path, MIB).unwrap();
    assert!(!storage.is_direct());
    storage.write_at(100, &[1; 5000]).unwrap();
    assert_eq!(read(&storage, 99, 5001), [vec![0], vec![1; 5000]].concat());
    // ramfs has no holes and no reservations either: both must do nothing.
    storage.punch_hole(0, 4096).unwrap();
    storage.reserve(0, MIB).unwrap();
    storage.sync().unwrap();
}

#[test]
#[ignore = "needs root: makes and mounts a small file system"]
fn a_full_file_system_is_told_as_full() {
    let device = LoopDevice::new(8 * MIB);
    run("mke2fs", &["-q", "-t", "ext4", "-O", "^has_journal", device.path()]);
    let mount = Mount::new(&[device.path()]);
    let path = mount.0.path().join("pool");
    let storage = FileOptions::new().create_new(&path, 64 * MIB).unwrap();
    let error = storage.write_at(0, &vec![1; 32 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let error = storage.reserve(32 * MIB, 16 * MIB).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(Error::io("write failed", error).kind(), ErrorKind::Full);
}

#[test]
#[ignore = "needs root: makes and mounts a small file system"]
fn a_read_only_file_system_is_told_as_read_only() {
    let device = LoopDevice::new(8 * MIB);
    run("mke2fs", &["-q", "-t", "ext4", device.path()]);
    let mount = Mount::new(&[device.path()]);
    let path = mount.0.path().join("pool");
    drop(FileOptions::new().create_new(&path, MIB).unwrap());
    run("mount", &["-o", "remount,ro", mount.0.path().to_str().unwrap()]);
    assert_refused(FileOptions::new().open(&path), ErrorKind::ReadOnly, &["read-only"]);
    reading().open(&path).unwrap();
    let other = mount.0.path().join("other");
    assert_refused(FileOptions::new().create_new(other, MIB), ErrorKind::ReadOnly, &["other"]);
}
