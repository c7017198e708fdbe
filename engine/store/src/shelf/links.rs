//! What an overlay does otherwise than an image says, and than Docker writes into its folders.
//!
//! An overlay that copies a file up for a new name parts it from the names that it has below. In an image all
//! of them are one file; so they are all made anew, of what was copied up.
//!
//! An overlay marks what is removed one by one. A folder that is made in the place of a removed one it marks as
//! opaque, as Docker does a folder of which nothing that is below shall be seen.

use std::collections::HashMap;

use thinstore_filesystem::{
    DirectoryTree, FileContent, Metadata, Node, TreePath, TreeReader, TreeWriter,
};
use thinstore_storage::Result;

/// A tree in which files keep all of their names.
pub(super) struct WithLinks<'a> {
    tree: &'a mut DirectoryTree,
    /// The names of files that had several when this was first asked for, by their number.
    names: Option<HashMap<u64, Vec<TreePath>>>,
}

impl<'a> WithLinks<'a> {
    pub(super) fn new(tree: &'a mut DirectoryTree) -> WithLinks<'a> {
        WithLinks { tree, names: None }
    }

    /// The names of a file besides `target` itself that still are its names.
    fn other_names(&mut self, target: &TreePath, number: u64) -> Result<Vec<TreePath>> {
        let names = match &mut self.names {
            Some(names) => names,
            empty => empty.insert(several_names(self.tree)?),
        };
        let mut others = Vec::new();
        for name in names.get(&number).into_iter().flatten() {
            let is_same = self.tree.identity(name).is_ok_and(|(found, _)| found == number);
            if name != target && is_same {
                others.push(name.clone());
            }
        }
        Ok(others)
    }
}

/// All files with several names.
fn several_names(tree: &DirectoryTree) -> Result<HashMap<u64, Vec<TreePath>>> {
    let mut names: HashMap<u64, Vec<TreePath>> = HashMap::new();
    let mut waiting = vec![TreePath::root()];
    while let Some(folder) = waiting.pop() {
        for name in tree.names(&folder)? {
            let path = folder.join(&name);
            match tree.node(&path)?.0 {
                Node::Directory => waiting.push(path),
                _ => {
                    let (number, links) = tree.identity(&path)?;
                    if links > 1 {
                        names.entry(number).or_default().push(path);
                    }
                }
            }
        }
    }
    Ok(names)
}

impl TreeWriter for WithLinks<'_> {
    fn put(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        self.tree.put(path, node, metadata, content)
    }

    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let others = match self.tree.identity(target) {
            Ok((number, links)) if links > 1 => self.other_names(target, number)?,
            _ => Vec::new(),
        };
        self.tree.hard_link(path, target)?;
        others.iter().try_for_each(|other| self.tree.hard_link(other, target))
    }

    fn remove(&mut self, path: &TreePath) -> Result<()> {
        self.tree.remove(path)
    }

    fn clear(&mut self, path: &TreePath) -> Result<()> {
        self.tree.clear(path)?;
        self.tree.renew_empty_folder(path)
    }

    fn finish(&mut self) -> Result<()> {
        self.tree.finish()
    }
}
