//! The kernel's overlay: Documentation/filesystems/overlayfs.rst of Linux.

use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use thinstore_storage::{Error, Result};

/// What mount(2) takes of options, its last NUL too: a page.
const OPTIONS_LIMIT_BYTES: usize = 4096;

/// As Docker mounts: hard links are not kept together over layers, folders of lower layers are not renamed.
const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")];

/// Folders to be laid over each other, as seen from `base`.
pub(crate) struct Overlay<'a> {
    /// Where the relative names begin.
    pub(crate) base: &'a Path,
    /// The uppermost first.
    pub(crate) lower: &'a [String],
    /// Where changes go; without it, it is only looked at.
    pub(crate) upper: Option<Upper>,
}

/// The folder that takes changes.
pub(crate) struct Upper {
    pub(crate) changes: String,
    /// On the same file system, for the kernel's use.
    pub(crate) work: String,
}

impl Overlay<'_> {
    fn options(&self) -> Vec<(&str, &str)> {
        let mut options = Vec::from(OPTIONS);
        if let Some(upper) = &self.upper {
            options.extend([("upperdir", upper.changes.as_str()), ("workdir", &upper.work)]);
        }
        options
    }

    /// Mounts it on a directory (absolute).
    ///
    /// Names of many layers fit into the options only if they are relative; but to what is a property of
    /// the whole process. So a thread that has its own (unshare(2), CLONE_FS) goes there.
    pub(crate) fn mount(&self, directory: &Path) -> Result<()> {
        let failed = |error: std::io::Error| {
            let layers = self.lower.len();
            let what =
                format!("mounting an overlay of {layers} folders on {}", directory.display());
            Error::io(format!("{what} failed"), error)
        };
        let mounted = std::thread::scope(|scope| {
            let mount = || -> std::io::Result<()> {
                unshare(CloneFlags::CLONE_FS)?;
                std::env::set_current_dir(self.base)?;
                self.mount_here(directory)
            };
            let thread = std::thread::Builder::new().name("overlay".to_owned());
            let thread = thread.spawn_scoped(scope, mount)?;
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread has panicked")))
        });
        mounted.map_err(failed)
    }

    fn mount_here(&self, directory: &Path) -> std::io::Result<()> {
        let mut text = format!("lowerdir={}", self.lower.join(":"));
        for (name, value) in self.options() {
            text.push_str(&format!(",{name}={value}"));
        }
        if text.len() >= OPTIONS_LIMIT_BYTES {
            return self.mount_many(directory);
        }
        let none = None::<&str>;
        let flags = match self.upper {
            Some(_) => MsFlags::empty(),
            None => MsFlags::MS_RDONLY,
        };
        nix::mount::mount(Some("overlay"), directory, Some("overlay"), flags, Some(text.as_str()))?;
        nix::mount::mount(none, directory, none, MsFlags::MS_PRIVATE, none)?;
        Ok(())
    }

    /// Layer by layer, which Linux can since 6.5.
    fn mount_many(&self, directory: &Path) -> std::io::Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", "overlay")?;
        for lower in self.lower {
            fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
        }
        for (name, value) in self.options() {
            fsconfig_set_string(context.as_fd(), name, value)?;
        }
        let mut attributes = MountAttrFlags::empty();
        if self.upper.is_none() {
            fsconfig_set_flag(context.as_fd(), "ro")?;
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        fsconfig_create(context.as_fd())?;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(
            mount.as_fd(),
            "",
            rustix::fs::CWD,
            directory,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        let none = None::<&str>;
        nix::mount::mount(none, directory, none, MsFlags::MS_PRIVATE, none)?;
        Ok(())
    }
}

/// Why there are no overlays here.
pub(crate) fn obstacle() -> Option<String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        true => None,
        false => Some("the kernel has no overlay file system (CONFIG_OVERLAY_FS)".to_owned()),
    }
}
