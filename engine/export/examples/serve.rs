//! Serves one device until standard input ends: memory, or a file.
//!
//! `serve DIRECTORY NAME memory SIZE_BYTES` or `serve DIRECTORY NAME file|direct PATH`; the file's size
//! is the device's, and `direct` goes past the page cache. `serve DIRECTORY NAME stuck MOUNT_POINT` serves
//! a device that never answers and tries to mount it. Prints the block device's path. The tests kill it to see what the next start cleans up.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinstore_export::{Exporter, Ext4Options, harden, mount_ext4};
use thinstore_storage::{BlockDevice, Error, ErrorKind, MemoryDevice, Result};

/// A device that never answers a read.
struct StuckDevice;

impl BlockDevice for StuckDevice {
    fn size_bytes(&self) -> u64 {
        1 << 20
    }

    fn read(&self, _offset_bytes: u64, _buffer: &mut [u8]) -> Result<()> {
        loop {
            std::thread::park();
        }
    }

    fn write(&self, _offset_bytes: u64, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _offset_bytes: u64, _length_bytes: u64) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _offset_bytes: u64, _length_bytes: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A file as it is.
struct FileDevice {
    file: File,
    path: PathBuf,
    size_bytes: u64,
}

impl FileDevice {
    fn open(path: &Path, flags: i32) -> Result<FileDevice> {
        let failed = |error| Error::io(format!("opening {} failed", path.display()), error);
        let mut options = File::options();
        options.read(true).write(true).custom_flags(flags);
        let file = options.open(path).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        Ok(FileDevice { file, path: path.to_owned(), size_bytes })
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("reading or writing {} failed", self.path.display()), error)
    }
}

impl BlockDevice for FileDevice {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset_bytes).map_err(|error| self.failed(error))
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset_bytes).map_err(|error| self.failed(error))
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, number(offset_bytes), number(length_bytes))
            .map_err(|errno| self.failed(errno.into()))
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.write_zeroes(offset_bytes, length_bytes)
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.failed(error))
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let usage = || {
        let text =
            "usage: serve DIRECTORY NAME memory SIZE_BYTES | serve DIRECTORY NAME file|direct PATH";
        Error::new(ErrorKind::Usage, text)
    };
    let [directory, name, kind, what] = arguments else {
        return Err(usage());
    };
    let device: Arc<dyn BlockDevice> = match kind.as_str() {
        "memory" => Arc::new(MemoryDevice::new(what.parse().map_err(|_| usage())?)),
        "stuck" => Arc::new(StuckDevice),
        "file" => Arc::new(FileDevice::open(Path::new(what), 0)?),
        "direct" => Arc::new(FileDevice::open(Path::new(what), nix::libc::O_DIRECT)?),
        _ => return Err(usage()),
    };
    for problem in harden() {
        eprintln!("{problem}");
    }
    let exporter = Exporter::start(Path::new(directory))?;
    let path = exporter.attach(name, device, false)?;
    println!("{}", path.display());
    if kind == "stuck" {
        mount_ext4(&path, Path::new(what), &Ext4Options::default())?;
    }
    let failed = |error| Error::io("reading standard input failed", error);
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(failed)?;
    exporter.shutdown()
}

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::from(error.kind().exit_code())
        }
    }
}
