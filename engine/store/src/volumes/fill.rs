//! The first use of a volume: what the container has where it is mounted becomes its content, as with
//! Docker.
//!
//! It is gathered in a folder beside (or, on a volume of its own file system, in) the volume's data, and
//! then moved there name by name: others may have the volume mounted already, so its folder must stay the
//! same one, and what they write meanwhile must stay too. What a crash interrupts is begun again, or, once
//! everything was gathered, gone on with.

use std::path::Path;

use thinstore_archive::{HostTree, copy_tree};
use thinstore_filesystem::{DirectoryTree, Node, TreePath, TreeReader, TreeWriter};
use thinstore_storage::{Error, Result};

use crate::layout::{make_private_directory, sync_directory};

/// Where the content is gathered, and what it is called when it is complete.
const GATHERING: &str = ".thinstore-gathering";
const GATHERED: &str = ".thinstore-gathered";

/// A volume's data, and the folder of the same file system that its content is gathered in.
pub(super) struct Filling<'a> {
    pub(super) data: &'a Path,
    pub(super) beside: &'a Path,
}

impl Filling<'_> {
    /// Copies what is in `target` if the volume is empty; ends what a crash has interrupted. The caller
    /// holds the volume's lock.
    pub(super) fn fill_from(&self, target: &Path, wanted: bool) -> Result<()> {
        let gathered = self.beside.join(GATHERED);
        if gathered.is_dir() {
            return self.move_in(&gathered);
        }
        let gathering = self.beside.join(GATHERING);
        remove_all(&gathering)?;
        if !wanted || !is_empty(self.data)? || is_empty(target)? {
            return Ok(());
        }
        make_private_directory(&gathering)?;
        let copied = HostTree::open(target)
            .and_then(|source| copy_tree(&source, &mut DirectoryTree::open(&gathering)?))
            .and_then(|()| std::fs::rename(&gathering, &gathered).map_err(self.failed()))
            .and_then(|()| sync_directory(self.beside));
        if copied.is_err() {
            drop(std::fs::remove_dir_all(&gathering));
        }
        copied.and_then(|()| self.move_in(&gathered))
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> Error {
        let folder = self.data.display().to_string();
        move |error| Error::io(format!("cannot fill {folder}"), error)
    }

    /// What is there by now stays. The folder's own owner, mode and times come last.
    fn move_in(&self, gathered: &Path) -> Result<()> {
        let (_, metadata) = HostTree::open(gathered)?.node(&TreePath::root())?;
        for entry in std::fs::read_dir(gathered).map_err(self.failed())? {
            let entry = entry.map_err(self.failed())?;
            let place = self.data.join(entry.file_name());
            if place.symlink_metadata().is_err() {
                std::fs::rename(entry.path(), place).map_err(self.failed())?;
            }
        }
        sync_directory(self.data)?;
        remove_all(gathered)?;
        let mut data = DirectoryTree::open(self.data)?;
        data.put(&TreePath::root(), &Node::Directory, &metadata, None)?;
        data.finish()?;
        sync_directory(self.beside)
    }
}

fn remove_all(folder: &Path) -> Result<()> {
    super::remove_all(folder)
        .map_err(|error| Error::io(format!("cannot remove {}", folder.display()), error))
}

/// A file system of its own has a `lost+found`, which is nobody's content.
fn is_empty(folder: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Error::io(format!("cannot look into {}", folder.display()), error))?;
    Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    struct Bed {
        _folder: tempfile::TempDir,
        data: PathBuf,
        beside: PathBuf,
        target: PathBuf,
    }

    /// A volume with its content gathered beside it, or within.
    fn bed(within: bool) -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, target) = (folder.path().join("data"), folder.path().join("target"));
        for path in [&data, &target, &target.join("inner")] {
            std::fs::create_dir(path).expect("a folder");
        }
        std::fs::write(target.join("file"), "of the image").expect("a file");
        std::fs::set_permissions(&target, PermissionsExt::from_mode(0o751)).expect("a mode");
        let beside = if within { data.clone() } else { folder.path().to_owned() };
        Bed { _folder: folder, data, beside, target }
    }

    impl Bed {
        fn fill(&self) {
            let filling = Filling { data: &self.data, beside: &self.beside };
            filling.fill_from(&self.target, true).expect("filled");
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.data).expect("a folder").flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn the_folder_stays_the_same_one_and_gets_content_and_mode() {
        for within in [false, true] {
            let bed = bed(within);
            let before = std::fs::File::open(&bed.data).expect("open");
            bed.fill();
            assert_eq!(bed.names(), ["file", "inner"]);
            let mode = before.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o7777, 0o751, "another folder took its place");
            // once only
            std::fs::write(bed.target.join("later"), "").expect("a file");
            bed.fill();
            assert_eq!(bed.names(), ["file", "inner"]);
        }
    }

    #[test]
    fn what_was_interrupted_is_begun_again_or_gone_on_with() {
        for within in [false, true] {
            let half = bed(within);
            let gathering = half.beside.join(GATHERING);
            std::fs::create_dir(&gathering).expect("a folder");
            std::fs::write(gathering.join("half"), "").expect("a file");
            half.fill();
            assert_eq!(half.names(), ["file", "inner"]);

            let whole = bed(within);
            let gathered = whole.beside.join(GATHERED);
            std::fs::create_dir(&gathered).expect("a folder");
            for name in ["one", "two"] {
                std::fs::write(gathered.join(name), "gathered").expect("a file");
            }
            std::fs::write(whole.data.join("two"), "of a user").expect("a file");
            whole.fill();
            assert_eq!(whole.names(), ["one", "two"]);
            let two = std::fs::read_to_string(whole.data.join("two")).expect("read");
            assert_eq!(two, "of a user");
        }
    }
}
