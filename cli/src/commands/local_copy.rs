//! The host's side of `cp`: a file or folder as a tar, and a tar as a file or folder.

use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tar::{Archive, Builder, Entry, EntryType};
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::{CopyTarget, Input, PathState, copy_target};

use crate::failure::Failure;
use crate::text::printable;

fn failed(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::Engine(Error::io(format!("cannot {what} {}", path.display()), error))
}

/// A file or folder of the host that is copied into a container.
pub struct PackedItem {
    path: PathBuf,
    name: String,
    metadata: Metadata,
    follow: bool,
}

impl PackedItem {
    /// Looks at `path`; what a link at its end points at, if `follow` is set.
    pub fn open(path: &Path, follow: bool) -> Result<PackedItem, Failure> {
        let follow = follow || path.as_os_str().as_bytes().ends_with(b"/");
        let metadata = if follow { path.metadata() } else { path.symlink_metadata() };
        let metadata = metadata.map_err(|error| failed("look at", path, error))?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Err(Failure::usage(format!(
                "{} is a socket; it cannot be copied",
                path.display()
            )));
        }
        // a file that cannot be read is told now, not in the middle
        if kind.is_file() {
            File::open(path).map_err(|error| failed("read", path, error))?;
        }
        Ok(PackedItem { path: path.to_owned(), name: name_of(path)?, metadata, follow })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_directory(&self) -> bool {
        self.metadata.is_dir()
    }

    /// Its tar, made while it is read.
    pub fn pack(self) -> Result<Input, Failure> {
        let (reader, writer) = io::pipe().map_err(|error| failed("read", &self.path, error))?;
        let spawned = std::thread::Builder::new()
            .name("pack".to_owned())
            .spawn(move || self.write_to(writer));
        match spawned {
            Ok(thread) => Ok(Box::new(PackedReader { reader, thread: Some(thread) })),
            Err(error) => Err(Failure::Engine(Error::io("cannot start a thread", error))),
        }
    }

    fn write_to(&self, writer: PipeWriter) -> io::Result<()> {
        let mut builder = Builder::new(io::BufWriter::with_capacity(256 << 10, writer));
        builder.follow_symlinks(false);
        if self.is_directory() {
            builder.append_dir_all(".", &self.path)?;
        } else {
            // the name is not looked at, as there is only the one
            builder.follow_symlinks(self.follow);
            builder.append_path_with_name(&self.path, "item")?;
        }
        builder.into_inner()?.flush()
    }
}

/// What a path's last part is called, whatever it is written like.
fn name_of(path: &Path) -> Result<String, Failure> {
    let named = match path.file_name() {
        Some(name) => Some(name.to_owned()),
        None => path.canonicalize().ok().and_then(|path| path.file_name().map(OsStr::to_owned)),
    };
    match named.map(|name| name.into_string()) {
        // only `/` itself has none; its contents can be copied all the same
        None => Ok("root".to_owned()),
        Some(Ok(name)) => Ok(name),
        Some(Err(name)) => Err(Failure::usage(format!(
            "the name '{}' is not UTF-8; name the destination in full",
            printable(&name.to_string_lossy())
        ))),
    }
}

/// Reads what a thread packs. At the end it is asked whether all went well: a tar that is cut off must
/// not look complete.
struct PackedReader {
    reader: PipeReader,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Read for PackedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && let Some(thread) = self.thread.take()
        {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("packing failed")))?;
        }
        Ok(count)
    }
}

/// Connects what writes with what reads, each on its own thread. If both fail, the reader knows why,
/// unless all it saw was that the writer broke off.
pub fn through_pipe(
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), Failure>,
    read: impl FnOnce(PipeReader) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    let (reader, mut writer) =
        io::pipe().map_err(|error| Failure::Engine(Error::io("cannot make a pipe", error)))?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read(reader));
        let written = write(&mut writer);
        drop(writer);
        let was_read = match reading.join() {
            Ok(result) => result,
            Err(_) => Err(Failure::Engine(Error::new(ErrorKind::Io, "unpacking failed"))),
        };
        match (written, was_read) {
            (Ok(()), was_read) => was_read,
            (Err(error), Ok(())) => Err(error),
            // a writer that found nobody reading was stopped by the reader's failure
            (Err(Failure::Engine(error)), Err(reading)) if error.kind() == ErrorKind::Io => {
                drop(error);
                Err(reading)
            }
            (Err(error), Err(_)) => Err(error),
        }
    })
}

/// Where a tar is unpacked to.
pub struct Unpacking {
    /// The path that the item had: its name in an existing folder.
    pub item_path: PathBuf,
    pub destination: PathBuf,
    /// Was the source written as `FOLDER/.`?
    pub contents_only: bool,
    pub keep_owners: bool,
}

/// A folder whose mode and time are set when all is in it.
struct LateFolder {
    path: PathBuf,
    mode: u32,
    modified_seconds: u64,
}

impl Unpacking {
    pub fn run(&self, input: PipeReader) -> Result<(), Failure> {
        let mut archive = Archive::new(io::BufReader::with_capacity(256 << 10, input));
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        archive.set_preserve_ownerships(self.keep_owners && nix::unistd::geteuid().is_root());
        archive.set_overwrite(true);
        let broken = |error| failed("unpack to", &self.destination, error);
        let mut base = None;
        let mut folders = Vec::new();
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            let (base, is_directory) = match &base {
                Some(known) => known,
                None => base.insert(self.base(&entry)?),
            };
            if !*is_directory {
                if unpackable(&entry, base) {
                    entry.unpack(base).map_err(broken)?;
                }
                continue;
            }
            self.unpack_in(base, &path, &mut entry, &mut folders)?;
        }
        for folder in folders.iter().rev() {
            finish_folder(folder).map_err(|error| failed("finish", &folder.path, error))?;
        }
        Ok(())
    }

    /// Where the item goes, and whether it is a folder: as the first entry says.
    fn base<R: Read>(&self, first: &Entry<'_, R>) -> Result<(PathBuf, bool), Failure> {
        let is_directory = first.header().entry_type() == EntryType::Directory;
        let state = match self.destination.metadata() {
            Ok(metadata) if metadata.is_dir() => PathState::Directory,
            Ok(_) => PathState::Other,
            Err(error) if error.kind() == io::ErrorKind::NotFound => PathState::Missing,
            Err(error) => return Err(failed("look at", &self.destination, error)),
        };
        let shown = self.destination.display().to_string();
        let slash = self.destination.as_os_str().as_bytes().ends_with(b"/");
        let target = copy_target(&shown, state, slash, is_directory, self.contents_only)?;
        let base = match target {
            CopyTarget::Itself => self.destination.clone(),
            CopyTarget::Inside => match self.item_path.file_name() {
                Some(name) => self.destination.join(name),
                // the root of a container has no name: its contents are meant
                None => self.destination.clone(),
            },
        };
        match base.symlink_metadata() {
            Ok(there) if there.is_dir() != is_directory && target == CopyTarget::Inside => {
                let (what, onto) =
                    if is_directory { ("a folder", "a file") } else { ("a file", "a folder") };
                Err(Failure::usage(format!(
                    "{what} cannot replace {}, which is {onto}",
                    base.display()
                )))
            }
            _ => Ok((base, is_directory)),
        }
    }

    fn unpack_in<R: Read>(
        &self,
        base: &Path,
        path: &Path,
        entry: &mut Entry<'_, R>,
        folders: &mut Vec<LateFolder>,
    ) -> Result<(), Failure> {
        let broken = |error| failed("unpack to", base, error);
        let inside: PathBuf =
            path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if entry.header().entry_type() == EntryType::Directory {
            let target = base.join(&inside);
            let is_new = !target.symlink_metadata().is_ok_and(|there| there.is_dir());
            if is_new {
                if !inside.as_os_str().is_empty() {
                    refuse_outside(base, &target)?;
                }
                std::fs::create_dir(&target).map_err(|error| failed("make", &target, error))?;
                folders.push(LateFolder {
                    path: target,
                    mode: entry.header().mode().map_err(broken)? & 0o7777,
                    modified_seconds: entry.header().mtime().map_err(broken)?,
                });
            }
            return Ok(());
        }
        if unpackable(entry, path) {
            entry.unpack_in(base).map_err(broken)?;
        }
        Ok(())
    }
}

/// A damaged file system could hold a link and a folder of one name: no link may lead out.
fn refuse_outside(base: &Path, target: &Path) -> Result<(), Failure> {
    let parent = target.parent().unwrap_or(base);
    let is_inside = match (base.canonicalize(), parent.canonicalize()) {
        (Ok(base), Ok(parent)) => parent.starts_with(base),
        _ => false,
    };
    match is_inside {
        true => Ok(()),
        false => Err(Failure::Engine(Error::new(
            ErrorKind::Refused,
            format!("{} leads out of {} through a link", target.display(), base.display()),
        ))),
    }
}

/// Devices and pipes are not made on the host; they are told of.
fn unpackable<R: Read>(entry: &Entry<'_, R>, path: &Path) -> bool {
    let special =
        matches!(entry.header().entry_type(), EntryType::Char | EntryType::Block | EntryType::Fifo);
    if special {
        let shown = printable(&path.display().to_string());
        eprintln!("thinstore: {shown} is a device or pipe and is left out");
    }
    !special
}

fn finish_folder(folder: &LateFolder) -> io::Result<()> {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(folder.modified_seconds);
    File::open(&folder.path)?.set_modified(modified)?;
    std::fs::set_permissions(&folder.path, Permissions::from_mode(folder.mode))
}
