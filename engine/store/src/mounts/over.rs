//! Mount points, and what lies over a mounted container, whatever its file system is made of.

use std::path::{Path, PathBuf};

use thinstore_export::{mounts, unmount_all_below};
use thinstore_storage::{Error, ErrorKind, Result};

use super::inside::{mount_inside, shown_at};
use crate::types::{MountInfo, MountKind, MountSpecification};
use crate::volumes::VolumeProvider;

/// The directory without links in its path.
pub(crate) fn existing_directory(directory: &Path) -> Result<PathBuf> {
    let found = directory.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("the mount point {} is not there; make it first", directory.display()),
        ),
        _ => Error::io(format!("cannot look at the mount point {}", directory.display()), error),
    })?;
    if !found.is_dir() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the mount point {} is not a folder; choose one", directory.display()),
        ));
    }
    Ok(found)
}

/// A mount point must be empty, so that nothing is hidden by accident.
pub(crate) fn refuse_unusable(directory: &Path) -> Result<()> {
    let mut entries = std::fs::read_dir(directory).map_err(|error| {
        Error::io(format!("cannot look into the mount point {}", directory.display()), error)
    })?;
    if entries.next().is_some() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the mount point {} is not empty; choose an empty folder", directory.display()),
        ));
    }
    Ok(())
}

/// Outer destinations before inner ones, and none twice.
pub(crate) fn ordered(mounts: &[MountSpecification]) -> Result<Vec<MountSpecification>> {
    let mut ordered = mounts.to_vec();
    ordered.sort_by(|a, b| a.destination.cmp(&b.destination));
    for pair in ordered.windows(2) {
        if let [first, second] = pair
            && first.destination == second.destination
        {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("two mounts are wanted at {}; leave one out", first.destination.display()),
            ));
        }
    }
    Ok(ordered)
}

/// Unmounts a directory and all below it, the latest first. If something is in use, what was below, as
/// `specifications` has it, is mounted again.
pub(crate) fn unmount_with_all_below(
    volumes: &dyn VolumeProvider,
    directory: &Path,
    specifications: &[MountSpecification],
) -> Result<()> {
    let result = unmount_all_below(directory);
    if result.is_err()
        && let Err(error) = mount_missing(volumes, directory, specifications)
    {
        tracing::error!("{error}");
    }
    result
}

fn mount_missing(
    volumes: &dyn VolumeProvider,
    directory: &Path,
    specifications: &[MountSpecification],
) -> Result<()> {
    let table = mounts()?;
    // a bind mount that stayed does not propagate any more: it is covered by one that does
    let is_missing = |one: &&MountSpecification| {
        let point = shown_at(directory, &one.destination);
        let there = table.iter().rfind(|entry| entry.mount_point == point);
        let propagates = one.propagation.is_shared() || one.propagation.is_slave();
        there.is_none_or(|entry| propagates && entry.propagation.is_empty())
    };
    let missing: Vec<MountSpecification> =
        specifications.iter().filter(is_missing).cloned().collect();
    mount_inside(volumes, directory, &missing)
}

/// What is mounted over a container, as Docker lists it.
pub(crate) fn mount_infos(
    volumes: &dyn VolumeProvider,
    specifications: Vec<MountSpecification>,
) -> Vec<MountInfo> {
    specifications.into_iter().map(|one| mount_info(volumes, one)).collect()
}

fn mount_info(volumes: &dyn VolumeProvider, specification: MountSpecification) -> MountInfo {
    let source = specification.source.unwrap_or_default();
    let mut info = MountInfo {
        kind: specification.kind.name().to_owned(),
        destination: specification.destination.display().to_string(),
        mode: if specification.read_only { "ro" } else { "" }.to_owned(),
        writable: !specification.read_only,
        ..MountInfo::default()
    };
    match specification.kind {
        MountKind::Volume => {
            let (data, driver) = volumes.described(&source);
            info.source = data.display().to_string();
            info.driver = driver;
            info.name = source;
        }
        MountKind::Bind => {
            info.source = source;
            info.propagation = specification.propagation.name().to_owned();
        }
        MountKind::Tmpfs => {}
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::volumes::Volumes;

    fn volume(text: &str) -> MountSpecification {
        MountSpecification::from_volume_option(text, Path::new("/here")).expect("a mount")
    }

    #[test]
    fn outer_destinations_come_first_and_none_twice() {
        let sorted = ordered(&[volume("a:/x/y"), volume("b:/x"), volume("c:/a")]).expect("good");
        let places: Vec<&Path> = sorted.iter().map(|one| one.destination.as_path()).collect();
        assert_eq!(places, ["/a", "/x", "/x/y"].map(Path::new));
        let error = ordered(&[volume("a:/x"), volume("b:/x/")]).expect_err("twice");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_mount_point_is_an_empty_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        assert_eq!(existing_directory(&inner).expect_err("none").kind(), ErrorKind::NotFound);
        std::fs::write(&inner, "").expect("a file");
        assert_eq!(existing_directory(&inner).expect_err("a file").kind(), ErrorKind::Usage);
        assert_eq!(refuse_unusable(folder.path()).expect_err("full").kind(), ErrorKind::Usage);
        std::fs::remove_file(&inner).expect("removed");
        let found = existing_directory(folder.path()).expect("a folder");
        refuse_unusable(&found).expect("empty");
    }

    #[test]
    fn mounts_are_told_as_docker_tells_them() {
        let volumes = Volumes::new(Layout::new("/store"));
        let infos = mount_infos(&volumes, vec![volume("data:/d:ro"), volume("/srv:/s")]);
        let [data, host] = infos.as_slice() else { panic!("two") };
        assert_eq!((data.kind.as_str(), data.name.as_str()), ("volume", "data"));
        assert_eq!((data.source.as_str(), data.mode.as_str()), ("/store/volumes/data/_data", "ro"));
        assert_eq!((host.source.as_str(), host.writable), ("/srv", true));
        assert_eq!(host.propagation, "rprivate");
    }
}
