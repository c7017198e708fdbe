//! Fresh file systems. `mke2fs` makes one in memory, whatever the size of the device, and only its
//! blocks that are not zero are written to the device: 30 for 10 GiB.
//!
//! What the options are for:
//!  - `meta_bg` spreads the group descriptors, so that a device can grow without moving any of them,
//!    and without the 4 MiB that `resize_inode` would write.
//!  - `lazy_itable_init=0` and `lazy_journal_init=0`: inode tables and journal are zero already, and
//!    marked so; the kernel would else write zeroes to all of them in the background after a mount.
//!  - No `lost+found`: a container's root must not show it. `e2fsck -fn` takes a file system without
//!    it as clean (`e2fsck -p` and `-y` make it again on the occasion of a full check). No
//!    `orphan_file` and no `metadata_csum_seed`: older kernels do not know them.
//!  - No blocks are reserved for root, whose container this is.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::ext4::Ext4Writer;
use crate::sealed::seal_and_map;
use crate::tree::{Metadata, Node, TreePath, TreeWriter};

/// The smallest file system that is made: its journal takes 4 MiB of it.
pub const SIZE_MIN_BYTES: u64 = 16 << 20;

/// The largest. Ext4 describes every 128 MiB, so that this size costs 230 MiB on the device (and in
/// memory, while it is made) before the first file; 1 PiB would cost 3.5 GiB.
pub const SIZE_MAX_BYTES: u64 = 64 << 40;

const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,meta_bg,\
                        sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// All that mke2fs needs to know of kinds of file systems: that they exist.
const CONFIGURATION: &str = "[defaults]\n[fs_types]\n\text4 = {\n\t}\n\tsmall = {\n\t}\n\tfloppy = \
                             {\n\t}\n\tbig = {\n\t}\n\thuge = {\n\t}\n\tdefault = {\n\t}\n";

/// What a fresh file system is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateIdentity {
    /// Its UUID. File systems of one UUID can be mounted side by side.
    pub uuid: [u8; 16],
    /// What the hashes of names begin with.
    pub hash_seed: [u8; 16],
}

/// What making a file system took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateReport {
    /// How many blocks of 4096 bytes were written to the device.
    pub written_blocks: u64,
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (position, byte) in uuid.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The journal grows with the file system: from 4 to 64 MiB.
fn journal_mebibytes(size_bytes: u64) -> u64 {
    (size_bytes >> 20 >> 6).clamp(4, 64)
}

/// One inode for every 16 KiB, and fewer where there would be more than the format can number.
fn bytes_per_inode(size_bytes: u64) -> u64 {
    (size_bytes >> 31).next_power_of_two().max(16_384)
}

/// Makes an empty ext4 over all of `device`, which must read as zeroes. The root folder belongs to
/// root, has mode 0755 and the time 0; the same size and identity give the same bytes.
///
/// Errors: `Usage` for a size that no file system is made for, `Unsupported` without mke2fs.
pub fn make_ext4(device: &dyn BlockDevice, identity: &TemplateIdentity) -> Result<TemplateReport> {
    let size_bytes = device.size_bytes();
    if !(SIZE_MIN_BYTES..=SIZE_MAX_BYTES).contains(&size_bytes) || !size_bytes.is_multiple_of(4096)
    {
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "no ext4 can be made on a device of {size_bytes} bytes: it takes {SIZE_MIN_BYTES} \
                 (16 MiB) to {SIZE_MAX_BYTES} (64 TiB), in blocks of 4096"
            ),
        ));
    }
    let image = Arc::new(Image { file: memory_file("image")?, size_bytes });
    rustix::fs::ftruncate(&image.file, size_bytes)
        .map_err(|errno| Error::io("cannot make a sparse file in memory", errno.into()))?;
    run_mke2fs(&image, identity)?;
    remove_lost_and_found(image.clone())?;
    let written_blocks = image.copy_to(device)?;
    device.flush()?;
    Ok(TemplateReport { written_blocks })
}

fn memory_file(what: &str) -> Result<File> {
    let created = rustix::fs::memfd_create(format!("ext4-{what}"), MemfdFlags::ALLOW_SEALING);
    let fd = created.map_err(|errno| Error::io("cannot make a file in memory", errno.into()))?;
    Ok(File::from(fd))
}

/// Runs mke2fs once. Its files are memory, inherited by descriptor: memory files are sparse and of any
/// size, which the files of a host's /tmp need not be.
fn run_mke2fs(image: &Image, identity: &TemplateIdentity) -> Result<()> {
    let mut configuration = memory_file("configuration")?;
    configuration
        .write_all(CONFIGURATION.as_bytes())
        .map_err(|error| Error::io("cannot write the configuration of mke2fs", error))?;
    let inherited = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let extended = format!(
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed={}",
        uuid_text(&identity.hash_seed)
    );
    let output = Command::new("mke2fs")
        .env("PATH", search_path())
        .env("MKE2FS_CONFIG", inherited(&configuration))
        // Any time but the present, so that the same request gives the same bytes.
        .env("E2FSPROGS_FAKE_TIME", "1")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES])
        .args(["-i", &bytes_per_inode(image.size_bytes).to_string()])
        .args(["-J", &format!("size={}", journal_mebibytes(image.size_bytes))])
        .args(["-U", &uuid_text(&identity.uuid), "-E", &extended])
        .arg(inherited(&image.file))
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::Unsupported,
            "mke2fs is missing, which makes file systems; install e2fsprogs",
        ),
        _ => Error::io("cannot run mke2fs", error),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(
            ErrorKind::Io,
            format!("mke2fs failed ({}): {}", output.status, said.trim()),
        ));
    }
    Ok(())
}

/// Where mke2fs lies for root only, too: making a file system in memory takes no rights.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/local/sbin")
}

fn remove_lost_and_found(image: Arc<Image>) -> Result<()> {
    let mut writer = Ext4Writer::open_at(image, crate::tree::Timestamp::default())?;
    writer.remove(&TreePath::root().join(b"lost+found"))?;
    let root = Metadata { mode: 0o755, ..Metadata::default() };
    writer.put(&TreePath::root(), &Node::Directory, &root, None)?;
    writer.finish()
}

/// A file in memory as a device.
struct Image {
    file: File,
    size_bytes: u64,
}

impl Image {
    /// Writes every block that is not zero to `device`; returns how many. The image is done: it is sealed.
    fn copy_to(&self, device: &dyn BlockDevice) -> Result<u64> {
        let failed = |errno: Errno| Error::io("cannot read the fresh file system", errno.into());
        let image = seal_and_map(&self.file)?;
        let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let (mut at, mut written) = (0, 0);
        loop {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start - start % 4096,
                Err(Errno::NXIO) => return Ok(written),
                Err(errno) => return Err(failed(errno)),
            };
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).map_err(failed)?;
            at = hole.next_multiple_of(4096).min(self.size_bytes);
            written +=
                copy_blocks(device, start, image.get(place(start)..place(at)).unwrap_or(&[]))?;
        }
    }
}

/// Writes the blocks of `part` that are not zero, adjacent ones together.
fn copy_blocks(device: &dyn BlockDevice, offset_bytes: u64, part: &[u8]) -> Result<u64> {
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let blocks: Vec<&[u8]> = part.chunks(4096).collect();
    let mut at = offset_bytes;
    let mut written = 0;
    for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        if run.first().is_some_and(|block| !is_zero(block)) {
            device.write(at, &run.concat())?;
            written += u64::try_from(run.len()).unwrap_or(0);
        }
        at += u64::try_from(run.len()).unwrap_or(0) * 4096;
    }
    Ok(written)
}

impl BlockDevice for Image {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset_bytes)
            .map_err(|error| Error::io("cannot read the fresh file system", error))
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.file
            .write_all_at(data, offset_bytes)
            .map_err(|error| Error::io("cannot write the fresh file system", error))
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, mode, offset_bytes, length_bytes).map_err(|errno| {
            Error::io("cannot clear a part of the fresh file system", errno.into())
        })
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.write_zeroes(offset_bytes, length_bytes)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::Ext4Reader;
    use crate::tree::TreeReader;
    use thinstore_storage::MemoryDevice;

    const IDENTITY: TemplateIdentity = TemplateIdentity { uuid: [0x11; 16], hash_seed: [0x22; 16] };

    #[test]
    fn a_fresh_root_is_empty_and_costs_few_blocks() {
        for (size_bytes, most_blocks) in [(16 << 20, 20), (10 << 30, 40), (1 << 40, 1000)] {
            let device = Arc::new(MemoryDevice::new(size_bytes));
            let report = make_ext4(device.as_ref(), &IDENTITY).expect("make");
            assert!(report.written_blocks <= most_blocks, "{size_bytes}: {report:?}");
            let reader = Ext4Reader::open(device).expect("open");
            assert_eq!(reader.names(&TreePath::root()).expect("names"), Vec::<Vec<u8>>::new());
        }
    }

    #[test]
    fn the_same_request_gives_the_same_bytes() {
        let make = || {
            let device = MemoryDevice::new(64 << 20);
            make_ext4(&device, &IDENTITY).expect("make");
            let mut bytes = vec![0; 64 << 20];
            device.read(0, &mut bytes).expect("read");
            bytes
        };
        assert!(make() == make());
    }

    #[test]
    fn sizes_that_no_file_system_is_made_for_are_refused() {
        for size_bytes in [0, 4096, SIZE_MIN_BYTES - 4096, SIZE_MAX_BYTES + 4096, 1 << 50] {
            let device = MemoryDevice::new(size_bytes);
            let error = make_ext4(&device, &IDENTITY).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn uuids_are_written_as_mke2fs_reads_them() {
        let uuid = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(uuid_text(&uuid), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
