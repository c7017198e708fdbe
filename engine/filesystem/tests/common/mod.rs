//! What the tests of this crate share: a device that is a sparse file, e2fsck, loop devices and
//! mounts that go away with their guards, and file contents.

#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use thinstore_filesystem::template::{TemplateIdentity, make_ext4};
use thinstore_filesystem::{
    FileContent, Metadata, Node, Timestamp, TreePath, TreeReader, TreeWriter, manifest,
};
use thinstore_storage::{BlockDevice, Error, Result};

pub const IDENTITY: TemplateIdentity = TemplateIdentity { uuid: [0x11; 16], hash_seed: [0x22; 16] };

/// A block device that is a sparse file, so that e2fsck and loop devices can look at it.
pub struct FileDevice {
    file: File,
    size_bytes: u64,
}

impl FileDevice {
    pub fn open(path: &Path) -> Arc<FileDevice> {
        let file = File::options().read(true).write(true).open(path).expect("open the image");
        let size_bytes = file.metadata().expect("stat the image").len();
        Arc::new(FileDevice { file, size_bytes })
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("the image file failed", error)
}

impl BlockDevice for FileDevice {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset_bytes).map_err(failed)
    }
    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        assert!(offset_bytes + data.len() as u64 <= self.size_bytes, "a write past the end");
        self.file.write_all_at(data, offset_bytes).map_err(failed)
    }
    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        use rustix::fs::FallocateFlags;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, mode, offset_bytes, length_bytes)
            .map_err(|errno| failed(errno.into()))
    }
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.write_zeroes(offset_bytes, length_bytes)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A fresh ext4 in a sparse file of a temporary folder.
pub struct Image {
    pub folder: TempDir,
    pub path: PathBuf,
}

impl Image {
    pub fn new(size_bytes: u64) -> Image {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("image");
        File::create(&path).expect("create").set_len(size_bytes).expect("set the size");
        make_ext4(FileDevice::open(&path).as_ref(), &IDENTITY).expect("make a file system");
        Image { folder, path }
    }

    /// A file system as mke2fs makes it elsewhere, with resize_inode and one table of descriptors.
    pub fn foreign(size_bytes: u64, options: &[&str]) -> Image {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("image");
        File::create(&path).expect("create").set_len(size_bytes).expect("set the size");
        let fixed = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-O", "^orphan_file"];
        run("mke2fs", &[&fixed[..], options, &[text(&path)]].concat());
        Image { folder, path }
    }

    pub fn device(&self) -> Arc<FileDevice> {
        FileDevice::open(&self.path)
    }

    pub fn copy(&self) -> Image {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("image");
        run("cp", &["--sparse=always", text(&self.path), text(&path)]);
        Image { folder, path }
    }

    /// Fails unless e2fsck finds nothing at all to say.
    pub fn check(&self) {
        let output = Command::new("e2fsck")
            .args(["-fn", text(&self.path)])
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .expect("e2fsck must be installed (package e2fsprogs)");
        let said = String::from_utf8_lossy(&output.stdout);
        // Five lines for the passes and one of numbers; every complaint adds one.
        assert!(output.status.success() && said.lines().count() <= 6, "e2fsck says:\n{said}");
    }

    /// Mounts the image by the kernel.
    pub fn mount(&self) -> Mounted {
        let device = run("losetup", &["--find", "--show", text(&self.path)]);
        let device = LoopDevice(device.trim().to_owned());
        let point = self.folder.path().join("mounted");
        std::fs::create_dir_all(&point).expect("make the mount point");
        run("mount", &[&device.0, text(&point)]);
        Mounted { point, _device: device }
    }
}

struct LoopDevice(String);

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// A mounted image.
pub struct Mounted {
    pub point: PathBuf,
    // Dropped after the unmount.
    _device: LoopDevice,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.point).status();
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

/// Runs a program that must succeed, and returns what it says.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("'{program}' must be installed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn path(text: &str) -> TreePath {
    TreePath::from_archive(text.as_bytes()).expect("a path")
}

/// Data in parts, as an archive gives it.
pub struct Parts(pub Vec<(u64, Vec<u8>)>);

impl FileContent for Parts {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let Some((offset, data)) = self.0.first_mut() else {
            return Ok(None);
        };
        let at = *offset;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        if count == data.len() {
            self.0.remove(0);
        } else {
            data.drain(..count);
            *offset += count as u64;
        }
        Ok(Some((at, count)))
    }
}

pub fn metadata(mode: u32) -> Metadata {
    Metadata {
        mode,
        modified: Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 },
        ..Metadata::default()
    }
}

pub fn put_file(tree: &mut dyn TreeWriter, name: &str, data: &[u8]) {
    let node = Node::File { size_bytes: data.len() as u64 };
    // In parts of the size that is asked for, so that giving them costs nothing.
    let parts = data.chunks(256 << 10).enumerate();
    let parts = parts.map(|(at, part)| (at as u64 * (256 << 10), part.to_vec()));
    let mut content = Parts(parts.collect());
    tree.put(&path(name), &node, &metadata(0o644), Some(&mut content)).expect(name);
}

pub fn put_folder(tree: &mut dyn TreeWriter, name: &str) {
    tree.put(&path(name), &Node::Directory, &metadata(0o755), None).expect(name);
}

pub fn put_symlink(tree: &mut dyn TreeWriter, name: &str, target: &str) {
    let node = Node::Symlink { target: target.as_bytes().to_vec() };
    tree.put(&path(name), &node, &metadata(0o777), None).expect(name);
}

pub fn manifest_of(tree: &dyn TreeReader) -> String {
    let mut text = Vec::new();
    manifest(tree, &mut text).expect("manifest");
    String::from_utf8(text).expect("a manifest is ASCII")
}

/// Fails with the first lines that differ.
pub fn assert_same_manifest(left: &str, right: &str, what: &str) {
    for (left, right) in left.lines().zip(right.lines()) {
        assert_eq!(left, right, "{what}");
    }
    assert_eq!(left.lines().count(), right.lines().count(), "{what}: the number of paths");
}

/// A pseudo-random sequence (xorshift), so that a seed repeats a test exactly.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// A path through the symlink `name`, which climbs above the root, must be refused whatever is asked
/// of it. The tree must have a file `file`.
pub fn assert_climbing_is_refused(tree: &mut dyn TreeWriter, name: &str) {
    let through = path(&format!("{name}/new"));
    let node = Node::File { size_bytes: 0 };
    for (what, outcome) in [
        ("put", tree.put(&through, &node, &metadata(0o644), None)),
        ("a folder", tree.put(&through, &Node::Directory, &metadata(0o755), None)),
        ("below", tree.put(&through.join(b"deep"), &node, &metadata(0o644), None)),
        ("link", tree.hard_link(&through, &path("file"))),
        ("target", tree.hard_link(&path("linked"), &path(&format!("{name}/file")))),
        ("remove", tree.remove(&through)),
        ("clear", tree.clear(&path(name))),
    ] {
        let error = outcome.expect_err(what);
        assert_eq!(error.kind(), thinstore_storage::ErrorKind::Refused, "{what}: {error}");
        assert!(error.to_string().contains(name), "{what}: {error}");
    }
}
