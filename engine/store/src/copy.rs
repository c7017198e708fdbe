//! `cp`: where a file or folder goes, as for `docker cp`.

use thinstore_storage::{Error, ErrorKind, Result};

/// What is at the place that something is copied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Nothing.
    Missing,
    /// A folder, perhaps through symbolic links.
    Directory,
    /// Anything else.
    Other,
}

/// Where the item itself goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyTarget {
    /// It gets the destination's path: made, replaced, or (a folder onto a folder) merged into it.
    Itself,
    /// It goes into the destination under its own name.
    Inside,
}

/// Decides where an item goes, by the table of docker-container-cp(1).
///
/// `trailing_slash`: the destination was written with `/` at its end, so it must be a folder.
/// `contents_only`: the source was written as `FOLDER/.`. Errors are of kind `Usage`, for a missing
/// folder `NotFound`.
pub fn copy_target(
    destination: &str,
    state: PathState,
    trailing_slash: bool,
    item_is_directory: bool,
    contents_only: bool,
) -> Result<CopyTarget> {
    match (state, item_is_directory) {
        (PathState::Missing, false) if trailing_slash => Err(Error::new(
            ErrorKind::NotFound,
            format!("the folder {destination} is not there; make it first"),
        )),
        (PathState::Missing, _) => Ok(CopyTarget::Itself),
        (PathState::Other, true) => Err(Error::new(
            ErrorKind::Usage,
            format!("a folder cannot be copied onto {destination}, which is not one"),
        )),
        (PathState::Other, false) if trailing_slash => Err(Error::new(
            ErrorKind::Usage,
            format!("{destination} is not a folder; write it without the slash at its end"),
        )),
        (PathState::Other, false) => Ok(CopyTarget::Itself),
        (PathState::Directory, true) if contents_only => Ok(CopyTarget::Itself),
        (PathState::Directory, _) => Ok(CopyTarget::Inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_follow_dockers_table() {
        use PathState::{Directory, Missing, Other};
        let target = |state, slash, directory, contents| {
            copy_target("/x", state, slash, directory, contents).ok()
        };
        // a file
        assert_eq!(target(Missing, false, false, false), Some(CopyTarget::Itself));
        assert_eq!(target(Missing, true, false, false), None);
        assert_eq!(target(Other, false, false, false), Some(CopyTarget::Itself));
        assert_eq!(target(Other, true, false, false), None);
        assert_eq!(target(Directory, false, false, false), Some(CopyTarget::Inside));
        // a folder
        assert_eq!(target(Missing, false, true, false), Some(CopyTarget::Itself));
        assert_eq!(target(Missing, true, true, true), Some(CopyTarget::Itself));
        assert_eq!(target(Other, false, true, false), None);
        assert_eq!(target(Directory, false, true, false), Some(CopyTarget::Inside));
        assert_eq!(target(Directory, false, true, true), Some(CopyTarget::Itself));
    }
}
