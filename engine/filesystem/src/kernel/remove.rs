//! Taking nodes away from a directory of the host.

use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use thinstore_storage::Result;

use super::read::list;
use super::{DirectoryTree, Folder, failed, file_type, stat};
use crate::tree::{TreePath, TreeReader};

/// A folder that is being emptied, and what is left in it.
struct Emptying {
    folder: Arc<Folder>,
    names: Vec<(Vec<u8>, FileType)>,
}

impl DirectoryTree {
    /// Removes a folder's child and all below it; nothing there is no error. Never follows a symlink.
    pub(super) fn remove_child(&mut self, folder: &Arc<Folder>, name: &[u8]) -> Result<()> {
        let path = folder.path.join(name);
        self.touch(folder)?;
        self.unmark(folder, name);
        let found = stat(folder, name).map_err(|errno| failed("look at", &path, errno))?;
        let Some(found) = found else { return Ok(()) };
        let kind = file_type(&found);
        if kind == FileType::Directory || kind == FileType::Symlink {
            // Paths that led through it lead elsewhere now.
            self.state_mut().open.clear();
        }
        if kind != FileType::Directory {
            return unlink(folder, name, AtFlags::empty());
        }
        self.forget_times(&path);
        let mut stack = vec![self.emptying(folder, name)?];
        while let Some(top) = stack.last_mut() {
            let Some((child, kind)) = top.names.pop() else {
                let Some(done) = stack.pop() else { break };
                self.state_mut().ours.remove(&done.folder.inode);
                let above = stack.last().map_or(folder, |above| &above.folder);
                let own = done.folder.path.name().unwrap_or(b"");
                unlink(above, own, AtFlags::REMOVEDIR)?;
                continue;
            };
            let within = top.folder.clone();
            if kind == FileType::Directory {
                stack.push(self.emptying(&within, &child)?);
                continue;
            }
            match rustix::fs::unlinkat(&within.fd, child.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Some file systems do not say what is a folder.
                Err(Errno::ISDIR) => stack.push(self.emptying(&within, &child)?),
                Err(errno) => return Err(failed("remove", &within.path.join(&child), errno)),
            }
        }
        Ok(())
    }

    fn emptying(&self, folder: &Arc<Folder>, name: &[u8]) -> Result<Emptying> {
        let path = folder.path.join(name);
        let opened = self.open_child(folder, name).map_err(|errno| failed("open", &path, errno))?;
        let names = list(&opened).map_err(|errno| failed("list", &path, errno))?;
        Ok(Emptying { folder: opened, names })
    }

    /// Makes a folder that is empty anew, as it is. An overlay hides what is below it from then on, by one mark
    /// instead of one for each name. Any other path is left alone.
    ///
    /// # Errors
    /// `Io` or `Permission` as the host says.
    pub fn renew_empty_folder(&mut self, path: &TreePath) -> Result<()> {
        let Some(folder) = self.folder_to_change(path)? else { return Ok(()) };
        let names = list(&folder).map_err(|errno| failed("list", &folder.path, errno))?;
        let path = folder.path.clone();
        let (Some(name), true) = (path.name(), names.is_empty()) else { return Ok(()) };
        let Some(above) = self.folder_to_change(&path.parent())? else { return Ok(()) };
        let (node, mut metadata) = self.node(&path)?;
        self.touch(&folder)?;
        if let Some(time) = self.state_mut().times.get(&path) {
            metadata.modified = *time;
        }
        let ours = self.state_mut().ours.get(&above.inode);
        let is_ours = ours.is_some_and(|names| names.contains(name));
        self.remove_child(&above, name)?;
        self.put_at(&path, &above, name, &node, &metadata, None)?;
        if !is_ours {
            // it is as much from below as it was
            self.unmark(&above, name);
        }
        Ok(())
    }

    /// Removes what came from below this writer out of a folder.
    pub(super) fn clear_folder(&mut self, top: Arc<Folder>) -> Result<()> {
        let mut pending = vec![top];
        while let Some(folder) = pending.pop() {
            let names = list(&folder).map_err(|errno| failed("list", &folder.path, errno))?;
            for (name, _) in names {
                let ours = self.state_mut().ours.get(&folder.inode);
                if !ours.is_some_and(|names| names.contains(&name)) {
                    self.remove_child(&folder, &name)?;
                    continue;
                }
                match self.open_child(&folder, &name) {
                    Ok(child) => pending.push(child),
                    Err(Errno::NOTDIR | Errno::LOOP) => {}
                    Err(errno) => return Err(failed("open", &folder.path.join(&name), errno)),
                }
            }
        }
        Ok(())
    }
}

fn unlink(folder: &Folder, name: &[u8], flags: AtFlags) -> Result<()> {
    match rustix::fs::unlinkat(&folder.fd, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove", &folder.path.join(name), errno)),
    }
}
