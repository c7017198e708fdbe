//! How a path finds its folder. Symlinks on the way are followed inside the tree, as a process whose
//! root folder is the tree's root would see them: an absolute target begins at the root. So `lib/x`
//! under `lib -> usr/lib` lands in `usr/lib/x`, and nothing leaves the tree. A `..` in the root stays
//! there for those who read, as it does for such a process; those who write refuse it, for whoever made
//! a layer that goes that way meant to get out. The last component of a path is never followed by those
//! who ask for its folder only.

use thinstore_storage::{Error, ErrorKind, Result};

use crate::tree::TreePath;

/// How many symlinks one path may lead through: the kernel's limit.
const SYMLINKS_MAX: usize = 40;

/// The longest name that a folder holds.
const NAME_BYTES_MAX: usize = 255;

/// What stands behind a name.
pub(crate) enum Child<D> {
    /// A folder.
    Directory(D),
    /// A symlink and its target.
    Symlink(Vec<u8>),
    /// Anything else.
    Other,
    /// Nothing.
    Missing,
}

/// A tree in which paths are resolved.
pub(crate) trait Lookup {
    /// A handle of a folder.
    type Directory: Clone;

    /// The root.
    fn root(&mut self) -> Self::Directory;

    /// What a folder has under a name.
    fn child(&mut self, folder: &Self::Directory, name: &[u8]) -> Result<Child<Self::Directory>>;

    /// Makes a folder that was missing (root:root, 0755), or stands where something else stood.
    fn make(&mut self, folder: &Self::Directory, name: &[u8]) -> Result<Self::Directory>;

    /// May a `..` in the root stay in the root? It is refused otherwise.
    fn stays_in_root(&mut self) -> bool;

    /// Is told of every folder on the way to one that is about to be changed.
    fn passed(&mut self, folder: &Self::Directory, name: &[u8]);
}

struct Step {
    name: Vec<u8>,
    /// Is it a component of the path itself, rather than of a symlink's target?
    written: bool,
}

/// The folder at `path`, all symlinks followed. With `create`, what is missing is made, and what
/// stands in the way is replaced; without it, `None` says that there is no such folder.
pub(crate) fn directory<L: Lookup>(
    lookup: &mut L,
    path: &TreePath,
    create: bool,
) -> Result<Option<L::Directory>> {
    let mut above: Vec<L::Directory> = Vec::new();
    let mut current = lookup.root();
    let mut symlinks = 0;
    // The steps still to take, the next one last.
    let step = |name: &[u8], written| Step { name: name.to_vec(), written };
    let mut steps: Vec<Step> = path.components().rev().map(|name| step(name, true)).collect();
    while let Some(Step { name, written }) = steps.pop() {
        if name == b".." {
            match above.pop() {
                Some(parent) => current = parent,
                // Nothing lies above the root.
                None if lookup.stays_in_root() => {}
                None => {
                    return Err(Error::new(
                        ErrorKind::Refused,
                        format!(
                            "the path '{path}' leaves the root through the '..' of a symlink on it"
                        ),
                    ));
                }
            }
            continue;
        }
        if name.len() > NAME_BYTES_MAX {
            let why = format!("a symlink on the path '{path}' leads to a name above 255 bytes");
            return Err(Error::new(ErrorKind::Refused, why));
        }
        let next = match lookup.child(&current, &name)? {
            Child::Directory(next) => next,
            Child::Symlink(target) => {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(Error::new(
                        ErrorKind::Refused,
                        format!(
                            "the path '{path}' leads through more than {SYMLINKS_MAX} symlinks"
                        ),
                    ));
                }
                if target.first() == Some(&b'/') {
                    above.clear();
                    current = lookup.root();
                }
                let parts = target.split(|byte| *byte == b'/').rev();
                let named = parts.filter(|name| !name.is_empty() && *name != b".");
                steps.extend(named.map(|name| step(name, false)));
                continue;
            }
            Child::Missing if create => lookup.make(&current, &name)?,
            Child::Other if create && written => lookup.make(&current, &name)?,
            Child::Other if create => {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("a symlink on the path '{path}' leads to something that is no folder"),
                ));
            }
            Child::Missing | Child::Other => return Ok(None),
        };
        if create {
            lookup.passed(&current, &name);
        }
        above.push(std::mem::replace(&mut current, next));
    }
    Ok(Some(current))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A tree of paths: a folder's handle is its path.
    struct Paths {
        symlinks: BTreeMap<&'static str, &'static str>,
        files: Vec<&'static str>,
        folders: Vec<String>,
        stays: bool,
    }

    impl Lookup for Paths {
        type Directory = String;

        fn root(&mut self) -> String {
            String::new()
        }

        fn child(&mut self, folder: &String, name: &[u8]) -> Result<Child<String>> {
            let path = format!("{folder}/{}", String::from_utf8_lossy(name));
            if let Some(target) = self.symlinks.get(path.as_str()) {
                return Ok(Child::Symlink(target.as_bytes().to_vec()));
            }
            if self.folders.contains(&path) {
                return Ok(Child::Directory(path));
            }
            let file = self.files.contains(&path.as_str());
            Ok(if file { Child::Other } else { Child::Missing })
        }

        fn make(&mut self, folder: &String, name: &[u8]) -> Result<String> {
            let path = format!("{folder}/{}", String::from_utf8_lossy(name));
            self.folders.push(path.clone());
            Ok(path)
        }

        fn stays_in_root(&mut self) -> bool {
            self.stays
        }

        fn passed(&mut self, _folder: &String, _name: &[u8]) {}
    }

    fn resolved(path: &str, create: bool) -> Result<Option<String>> {
        resolved_by(path, create, true)
    }

    fn resolved_by(path: &str, create: bool, stays: bool) -> Result<Option<String>> {
        let mut paths = Paths {
            symlinks: BTreeMap::from([
                ("/lib", "usr/lib"),
                ("/up", "../../../usr"),
                ("/absolute", "/usr/./lib/"),
                ("/beyond", "/usr/../.."),
                ("/usr/side", "../usr/lib/.."),
                ("/usr/lib/start", "../.."),
                ("/loop", "loop"),
                ("/device", "usr/null"),
                ("/usr/lib/back", "../lib"),
            ]),
            files: vec!["/usr/null"],
            folders: vec!["/usr".to_owned(), "/usr/lib".to_owned()],
            stays,
        };
        let path = TreePath::from_archive(path.as_bytes()).expect("path");
        directory(&mut paths, &path, create)
    }

    #[test]
    fn symlinks_are_followed_inside_the_tree_and_never_out_of_it() {
        for (path, want) in [
            ("", ""),
            ("lib", "/usr/lib"),
            ("up/lib", "/usr/lib"),
            ("absolute", "/usr/lib"),
            ("lib/back/back", "/usr/lib"),
        ] {
            assert_eq!(resolved(path, false).expect("resolve").as_deref(), Some(want), "{path}");
        }
        assert_eq!(resolved("lib/new/deep", false).expect("resolve"), None);
        assert_eq!(
            resolved("lib/new/deep", true).expect("resolve").as_deref(),
            Some("/usr/lib/new/deep")
        );
    }

    #[test]
    fn a_writer_refuses_to_climb_above_the_root_and_nothing_less() {
        for path in ["up", "up/lib", "beyond/usr", "lib/start/up/x"] {
            for create in [false, true] {
                let error = resolved_by(path, create, false).expect_err(path);
                assert_eq!(error.kind(), ErrorKind::Refused);
                assert!(error.to_string().contains(&format!("'/{path}'")), "{error}");
            }
        }
        for (path, want) in [
            ("lib", "/usr/lib"),
            ("absolute", "/usr/lib"),
            ("lib/back/back", "/usr/lib"),
            ("usr/side/lib", "/usr/lib"),
            ("lib/start/usr", "/usr"),
        ] {
            let found = resolved_by(path, true, false).expect("resolve");
            assert_eq!(found.as_deref(), Some(want), "{path}");
        }
    }

    #[test]
    fn a_loop_of_symlinks_is_refused() {
        assert_eq!(resolved("loop/x", true).expect_err("loop").kind(), ErrorKind::Refused);
    }

    #[test]
    fn what_is_no_folder_gives_way_where_the_path_names_it_but_not_behind_a_symlink() {
        assert!(resolved("usr/null/x", true).expect("replaced").is_some());
        assert_eq!(resolved("device/x", true).expect_err("kept").kind(), ErrorKind::Refused);
        assert_eq!(resolved("usr/null/x", false).expect("resolve"), None);
    }
}
