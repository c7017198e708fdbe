//! The folders of layers as Docker's overlay2 keeps them:
//!
//! ```text
//! ID/diff        what the layer says
//! ID/link        the name of its link
//! ID/lower       the links of all that it stands on, the nearest first: l/A:l/B
//! ID/work        for the kernel's use; not for layers that stand on nothing
//! ID/merged      where it is mounted, while it is
//! ID/committed   there if the layer is sealed
//! l/LINK         a symbolic link to ../ID/diff, so short that 128 of them fit into the options of a mount
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thinstore_storage::{Error, Result};

use super::kernel::{Overlay, Upper};
use super::{is_plain, says_something};
use crate::directory::{self, failed};
use crate::driver::{LayerId, Stack, Unchanged};

/// The length of a link's name, which is Docker's.
const LINK_LETTERS: usize = 26;

/// The folder of all layers.
pub(crate) struct Folders {
    base: PathBuf,
}

impl Folders {
    /// Opens the folder, and makes it if it is not there.
    pub(crate) fn open(base: PathBuf) -> Result<Folders> {
        directory::make_private(&base.join("l"))?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o710);
        std::fs::set_permissions(&base, permissions).map_err(failed("make", &base))?;
        Ok(Folders { base })
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn folder(&self, id: &LayerId) -> PathBuf {
        self.base.join(id.as_str())
    }

    pub(crate) fn diff(&self, id: &LayerId) -> PathBuf {
        self.folder(id).join("diff")
    }

    pub(crate) fn merged(&self, id: &LayerId) -> PathBuf {
        self.folder(id).join("merged")
    }

    fn read(&self, id: &LayerId, name: &str) -> Result<String> {
        let path = self.folder(id).join(name);
        std::fs::read_to_string(&path).map_err(|error| failed("read", &path)(error))
    }

    fn write(&self, id: &LayerId, name: &str, text: &str, mode: u32) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.folder(id).join(name);
        let mut options = std::fs::File::options();
        options.write(true).create_new(true).mode(mode);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed("write", &path)(error))
    }

    /// Makes the folders of a layer; `diff` is empty.
    pub(crate) fn create(&self, layer: &Stack) -> Result<()> {
        let id = &layer.id;
        directory::make(&self.folder(id), 0o710)?;
        // The link's name stands in the folder before the link is there: whoever removes the folder
        // knows what to remove.
        let link = link_name()?;
        self.write(id, "link", &link, 0o644)?;
        let path = self.base.join("l").join(&link);
        symlink(format!("../{id}/diff"), &path).map_err(|error| failed("make", &path)(error))?;
        directory::make(&self.diff(id), 0o755)?;
        let Some(parent) = layer.below.first() else {
            return directory::settle_root(&self.diff(id));
        };
        directory::make(&self.folder(id).join("work"), 0o700)?;
        self.write(id, "lower", &self.lower_of_child(parent)?, 0o644)?;
        // an overlay shows the root of its uppermost folder
        directory::copy_root(&self.diff(parent), &self.diff(id), is_plain)
    }

    /// What a layer on `parent` has in its file `lower`.
    fn lower_of_child(&self, parent: &LayerId) -> Result<String> {
        let link = self.read(parent, "link")?;
        match self.lower(parent)? {
            Some(lower) => Ok(format!("l/{link}:{lower}")),
            None => Ok(format!("l/{link}")),
        }
    }

    /// What a layer stands on; none if it stands on nothing.
    pub(crate) fn lower(&self, id: &LayerId) -> Result<Option<String>> {
        let path = self.folder(id).join("lower");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Notes that nobody writes to a layer any more.
    fn note_sealed(&self, id: &LayerId) -> Result<()> {
        self.write(id, "committed", "", 0o600)
    }

    /// Makes a layer durable, to which nobody writes any more.
    pub(crate) fn seal(&self, id: &LayerId) -> Result<()> {
        self.note_sealed(id)?;
        directory::sync(&self.folder(id))
    }

    /// The link first: what is left of a folder then can be removed again.
    pub(crate) fn remove(&self, id: &LayerId) -> Result<()> {
        // one that a crash has left empty, or half written, has no link
        if let Some(link) = self.read(id, "link").ok().filter(|link| is_link_name(link)) {
            directory::remove_file(&self.base.join("l").join(link))?;
        }
        directory::remove(&self.folder(id))
    }

    /// Copies what a layer says into another one, which stands on the same, and makes it durable.
    pub(crate) fn copy(&self, from: &Stack, to: &LayerId) -> Result<()> {
        self.create(&Stack { id: to.clone(), below: from.below.clone() })?;
        self.note_sealed(to)?;
        directory::copy(&self.diff(&from.id), &self.diff(to), says_something)
    }

    /// The folders of a layer that takes changes; none for one that stands on nothing, whose `diff` is all
    /// there is to see.
    pub(crate) fn with_changes(&self, id: &LayerId) -> Result<Option<(Vec<String>, Upper)>> {
        let lower = self.lower(id)?;
        Ok(lower.map(|lower| {
            let lower = lower.split(':').map(str::to_owned).collect();
            let upper = Upper { changes: format!("{id}/diff"), work: format!("{id}/work") };
            (lower, upper)
        }))
    }

    /// The folders of a layer that is only looked at, the uppermost first.
    pub(crate) fn to_look_at(&self, id: &LayerId) -> Result<Vec<String>> {
        let own = format!("l/{}", self.read(id, "link")?);
        let lower = self.lower(id)?;
        let lower = lower.iter().flat_map(|lower| lower.split(':')).map(str::to_owned);
        Ok(std::iter::once(own).chain(lower).collect())
    }

    /// An overlay of some of the folders.
    pub(crate) fn overlay<'a>(&'a self, lower: &'a [String], upper: Option<Upper>) -> Overlay<'a> {
        Overlay { base: &self.base, lower, upper }
    }

    /// What stands in none of the folders above the old layer was not changed since.
    pub(crate) fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        match new.below.iter().position(|id| *id == old.id) {
            Some(position) => {
                let above = new.below.iter().take(position);
                let above = std::iter::once(&new.id).chain(above);
                Unchanged::NotIn(above.map(|id| self.diff(id)).collect())
            }
            None => Unchanged::Unknown,
        }
    }

    /// As Docker tells of them: the links resolved.
    pub(crate) fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        let text = |path: PathBuf| path.display().to_string();
        let lower: Vec<String> = layer.below.iter().map(|id| text(self.diff(id))).collect();
        let mut facts = BTreeMap::from([
            ("UpperDir".to_owned(), text(self.diff(&layer.id))),
            ("WorkDir".to_owned(), text(self.folder(&layer.id).join("work"))),
            ("MergedDir".to_owned(), text(self.merged(&layer.id))),
        ]);
        if !lower.is_empty() {
            facts.insert("LowerDir".to_owned(), lower.join(":"));
        }
        facts
    }
}

fn is_link_name(text: &str) -> bool {
    text.len() == LINK_LETTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A name that no other link has: letters and digits of base 32.
fn link_name() -> Result<String> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bytes = [0_u8; LINK_LETTERS];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes))
        .map_err(|error| Error::io("cannot read /dev/urandom", error))?;
    let letter = |byte: u8| LETTERS.get(usize::from(byte & 31)).copied().map_or('A', char::from);
    Ok(bytes.into_iter().map(letter).collect())
}
