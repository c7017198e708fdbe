//! Paths as people write them, in a file system whose root is the container's.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use thinstore_filesystem::{Node, TreePath, TreeReader};
use thinstore_storage::{Error, ErrorKind, Result};

/// How many symbolic links one path may lead through, as in the kernel.
const LINK_LIMIT: usize = 40;

/// The longest path, as in the kernel.
const PATH_LIMIT_BYTES: usize = 4096;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Something, whose path without symbolic links this is.
    There(TreePath),
    /// Nothing, in a folder that exists.
    MissingIn(TreePath),
    /// Nothing, in a folder that does not exist either.
    Nowhere(TreePath),
}

impl Found {
    /// The path, or an error of kind `NotFound`.
    pub(super) fn existing(self, name: &str) -> Result<TreePath> {
        match self {
            Found::There(path) => Ok(path),
            Found::MissingIn(path) | Found::Nowhere(path) => {
                Err(Error::new(ErrorKind::NotFound, format!("there is no '{path}' in '{name}'")))
            }
        }
    }
}

/// Follows a path from the root of a tree: `..` and absolute links stay inside. The last component is
/// followed if it is a link and `follow` is set, or if a slash comes after it.
pub(super) fn find(tree: &dyn TreeReader, path: &Path, follow: bool) -> Result<Found> {
    let bytes = path.as_os_str().as_bytes();
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorKind::Usage,
            format!("the path '{}' {why}", path.to_string_lossy().escape_debug()),
        ))
    };
    if bytes.is_empty() {
        return refuse("is empty");
    }
    if bytes.len() >= PATH_LIMIT_BYTES || bytes.contains(&0) {
        return refuse("is longer than 4095 bytes or contains a NUL");
    }
    let follow = follow || bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let mut waiting: Vec<Vec<u8>> = steps(bytes);
    let mut current = TreePath::root();
    let mut links = 0;
    while let Some(name) = waiting.pop() {
        if name == b".." {
            current = current.parent();
            continue;
        }
        if name.len() > 255 {
            return refuse("has a component above 255 bytes");
        }
        let next = current.join(&name);
        if next.as_bytes().len() >= PATH_LIMIT_BYTES {
            return refuse("leads to one above 4095 bytes");
        }
        let node = match tree.node(&next) {
            Ok((node, _)) => node,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(match waiting.is_empty() {
                    true => Found::MissingIn(next),
                    false => Found::Nowhere(next),
                });
            }
            Err(error) => return Err(error),
        };
        match node {
            Node::Symlink { target } if follow || !waiting.is_empty() => {
                links += 1;
                if links > LINK_LIMIT {
                    return refuse("leads through more than 40 symbolic links");
                }
                if target.first() == Some(&b'/') {
                    current = TreePath::root();
                }
                waiting.extend(steps(&target));
            }
            Node::Directory => current = next,
            _ if waiting.is_empty() => current = next,
            _ => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "the path '{}' leads through '{next}', which is not a folder",
                        path.to_string_lossy().escape_debug()
                    ),
                ));
            }
        }
    }
    Ok(Found::There(current))
}

/// The components, the first one last.
fn steps(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use thinstore_filesystem::DirectoryTree;

    fn tree() -> (tempfile::TempDir, DirectoryTree) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir_all(root.join("usr/lib")).expect("made");
        std::fs::write(root.join("usr/lib/file"), b"x").expect("written");
        symlink("/usr/lib", root.join("lib")).expect("linked");
        symlink("../../../../usr", root.join("usr/up")).expect("linked");
        symlink("loop", root.join("loop")).expect("linked");
        symlink("usr/nothing", root.join("dangling")).expect("linked");
        let tree = DirectoryTree::open(root).expect("a tree");
        (folder, tree)
    }

    fn at(path: &str) -> TreePath {
        TreePath::from_archive(path.as_bytes()).expect("a path")
    }

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let (_folder, tree) = tree();
        let found = |path: &str, follow| find(&tree, Path::new(path), follow).expect(path);
        assert_eq!(found("/lib/file", false), Found::There(at("usr/lib/file")));
        assert_eq!(found("usr/up/lib/../lib/./file", false), Found::There(at("usr/lib/file")));
        assert_eq!(found("/../../usr", false), Found::There(at("usr")));
        assert_eq!(found("/lib", false), Found::There(at("lib")));
        assert_eq!(found("/lib", true), Found::There(at("usr/lib")));
        assert_eq!(found("/lib/", false), Found::There(at("usr/lib")));
        assert_eq!(found("/", false), Found::There(TreePath::root()));
    }

    #[test]
    fn what_is_missing_says_where() {
        let (_folder, tree) = tree();
        let found = |path: &str| find(&tree, Path::new(path), true).expect(path);
        assert_eq!(found("/usr/new"), Found::MissingIn(at("usr/new")));
        assert_eq!(found("/no/new"), Found::Nowhere(at("no")));
        assert_eq!(found("/dangling"), Found::MissingIn(at("usr/nothing")));
        assert!(found("/no").existing("c").is_err());
        let through_a_file =
            find(&tree, Path::new("/usr/lib/file/x"), true).expect_err("no folder");
        assert_eq!(through_a_file.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn paths_that_make_no_sense_are_refused() {
        let (_folder, tree) = tree();
        for bad in ["", "/loop", "/loop/x", &"x".repeat(300), &"a/".repeat(3000)] {
            let error = find(&tree, Path::new(bad), true).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        }
    }
}
