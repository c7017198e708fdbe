//! The container images that tests import, and what other tools make of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::command::run_within;
use crate::run_tool;

/// The repository's top folder.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the repository").to_owned()
}

/// The folder that `tools/make-image` filled with the images of `kind`: `THINSTORE_IMAGES` if it is
/// set, else one in the build folder, filled now unless it is already.
#[track_caller]
fn made(kind: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("THINSTORE_IMAGES") {
        return PathBuf::from(folder);
    }
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().expect("a test lies in a folder").join("images");
    let mut command = Command::new(repository().join("tools/make-image"));
    command.arg(&folder).args(["--kind", kind]);
    run_within(command, Duration::from_secs(1200)).assert_success();
    folder
}

#[track_caller]
fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is not there; run tools/make-image", path.display());
    path
}

/// The OCI layout of the Debian image: four layers, over 10,000 files.
#[track_caller]
pub fn debian() -> PathBuf {
    existing(made("debian").join("debian"))
}

/// The OCI layout of an image that shares three layers with [`debian`].
#[track_caller]
pub fn debian_variant() -> PathBuf {
    existing(made("debian").join("debian-variant"))
}

/// The OCI layout of the busybox image: three layers.
#[track_caller]
pub fn busybox() -> PathBuf {
    existing(made("busybox").join("busybox"))
}

/// The busybox image as an OCI archive.
#[track_caller]
pub fn busybox_oci_archive() -> PathBuf {
    existing(made("busybox").join("busybox.oci.tar"))
}

/// The busybox image as `docker save` writes it.
#[track_caller]
pub fn busybox_docker_archive() -> PathBuf {
    existing(made("busybox").join("busybox.docker.tar"))
}

/// An image unpacked by another tool; removed when dropped.
pub struct Unpacked {
    folder: TempDir,
}

impl Unpacked {
    /// The root of the unpacked tree.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("bundle/rootfs")
    }
}

/// What `umoci unpack` makes of the image `latest` in an OCI layout. As root only: otherwise it could
/// not set the owners.
#[track_caller]
pub fn umoci_unpack(layout: &Path) -> Unpacked {
    let folder = TempDir::new().expect("a temporary folder");
    let image = format!("{}:latest", layout.display());
    let bundle = folder.path().join("bundle");
    run_tool("umoci", &["unpack", "--image", &image, bundle.to_str().expect("a UTF-8 path")]);
    Unpacked { folder }
}

/// A copy of an image, folder or file, in `folder`, that every user can read.
pub fn copy_for_everyone(image: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join(image.file_name().expect("an image has a name"));
    let (from, to) = (image.to_str().expect("UTF-8"), copy.to_str().expect("UTF-8"));
    run_tool("cp", &["-r", from, to]);
    run_tool("chmod", &["-R", "a+rX", to]);
    copy
}
