//! Docker's own overlay2 folders beside those of the driver of that name: the same image, brought into both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use thinstore_tests::command::Running;
use thinstore_tests::tar::Header;
use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore, Tree, host, run_tool};

/// What layers do to each other, as far as Docker unpacks it: it links only to files of the same layer.
fn image() -> LayoutImage {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let suid = Header { name: b"bin/su", mode: 0o4755, gid: 8, ..Header::default() };
    let root = Header { name: b"./", kind: b'5', mode: 0o755, ..Header::default() };
    let lowest = TarWriter::new()
        .entry(&root, b"")
        .directory("bin")
        .entry(&suid, b"su")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .file("bin/ping", b"ping")
        .directory("etc")
        .directory("etc/emptied")
        .file("etc/emptied/one", b"1")
        .file("etc/kept", b"kept")
        .file("etc/deleted", b"deleted")
        .directory("folder-to-file")
        .file("folder-to-file/inside", b"inside")
        .directory("away")
        .file("away/old", b"old")
        .directory("links")
        .file("links/first", b"one file")
        .hard_link("links/second", "links/first")
        .symlink("to-etc", "etc")
        .finish();
    let middle = TarWriter::new()
        .entry(&root, b"")
        .directory("etc")
        .file("etc/.wh.deleted", b"")
        .directory("etc/emptied")
        .file("etc/emptied/.wh..wh..opq", b"")
        .file("etc/emptied/new", b"new")
        .file("folder-to-file", b"a file now")
        .file(".wh.away", b"")
        .finish();
    let highest = TarWriter::new()
        .entry(&root, b"")
        .directory("etc")
        .file("etc/deleted", b"there again")
        .file("etc/kept", b"changed")
        .finish();
    LayoutImage::new().layer(lowest).layer(middle).layer(highest)
}

/// Docker's daemon on a data root of its own. In namespaces of its own too: it ends with all that it started and
/// mounted, however the test ends, and touches nothing of the host.
struct Docker {
    _daemon: Running,
    folder: PathBuf,
}

impl Docker {
    fn start(folder: PathBuf) -> Docker {
        fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        // it would leave a key in the one and folders in the other
        let hide = "mount -t tmpfs none /etc && mount -t tmpfs none /run && exec dockerd \"$@\"";
        command.args(["sh", "-c", hide, "sh"]);
        command.args(["--storage-driver", "overlay2", "--bridge=none", "--iptables=false"]);
        command.args(["--ip-forward=false", "--data-root", &path("data")]);
        command.args(["--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--host", &format!("unix://{}", path("socket"))]);
        // administrators' programs are not on everybody's path
        let programs = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{programs}:/usr/local/sbin:/usr/sbin:/sbin"));
        command.stdin(Stdio::null());
        let mut daemon = Running::start(command);
        let socket = folder.join("socket");
        let mut is_there = false;
        host::wait_until(Duration::from_secs(120), || {
            is_there = UnixStream::connect(&socket).is_ok();
            is_there || daemon.has_ended()
        });
        if !is_there {
            panic!("dockerd does not answer: {}", daemon.wait(Duration::ZERO));
        }
        Docker { _daemon: daemon, folder }
    }

    /// Brings an image in, as `docker load` does.
    fn load(&self, source: &str, name: &str) {
        let host = format!("unix://{}", self.folder.join("socket").display());
        let to = format!("docker-daemon:{name}");
        run_tool("skopeo", &["copy", "--quiet", "--dest-daemon-host", &host, source, &to]);
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        host::take_down(&self.folder);
    }
}

/// The folders of layers, the lowest first.
fn layers_of(overlay2: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<(usize, PathBuf)> = fs::read_dir(overlay2)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("link").exists())
        .map(|path| {
            let lower = fs::read_to_string(path.join("lower")).unwrap_or_default();
            (lower.split(':').filter(|name| !name.is_empty()).count(), path)
        })
        .collect();
    folders.sort();
    folders.into_iter().map(|(_, path)| path).collect()
}

/// The names in a folder but `committed`, with their modes.
fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().mode();
            format!("{} {mode:o}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.retain(|name| !name.starts_with("committed "));
    names.sort();
    names
}

/// What a layer says: without what the kernel notes for itself in what it has copied up.
fn content_of(layer: &Path) -> Tree {
    let tree = Tree::read(&layer.join("diff")).with_bare_deletions();
    tree.without_attributes(|name| {
        name.starts_with(b"trusted.overlay.") && name != b"trusted.overlay.opaque"
    })
}

/// An image of Docker's beside the archive that it was loaded from.
fn loaded_image(store: &TempStore) -> (Docker, String) {
    let source = store.path("source");
    Layout::write(Path::new(&source), &image());
    let archive = store.path("image.tar");
    let from = format!("oci:{source}:latest");
    run_tool("skopeo", &["copy", "--quiet", &from, &format!("docker-archive:{archive}:image:1")]);
    let docker = Docker::start(store.folder().join("docker"));
    docker.load(&format!("docker-archive:{archive}"), "image:1");
    (docker, archive)
}

/// The same layers: the names beside `diff`, what they say, and all that is in `diff`.
fn assert_same_folders(theirs: &Path, ours: &Path) {
    let (theirs, ours) = (layers_of(theirs), layers_of(ours));
    assert_eq!((theirs.len(), ours.len()), (3, 3));
    let highest = theirs.last().unwrap();
    let note =
        |layer: &Path| layer.join("committed").metadata().map(|file| (file.mode(), file.len()));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(names_in(theirs), names_in(ours));
        // ours are all sealed; Docker notes it when something comes to stand on a layer
        assert_eq!(note(ours).unwrap(), (0o100_600, 0));
        if theirs != highest {
            assert_eq!(note(theirs).unwrap(), note(ours).unwrap());
        }
        let text = |layer: &Path, name: &str| fs::read_to_string(layer.join(name));
        assert_eq!(text(theirs, "link").unwrap().len(), text(ours, "link").unwrap().len());
        let lower = |layer: &Path| -> Vec<(Option<String>, usize)> {
            let lower = text(layer, "lower").unwrap_or_default();
            lower.split(':').map(|link| (link.get(..2).map(str::to_owned), link.len())).collect()
        };
        assert_eq!(lower(theirs), lower(ours));
        for layer in [theirs, ours] {
            let link = layer.parent().unwrap().join("l").join(text(layer, "link").unwrap());
            let id = layer.file_name().unwrap();
            assert_eq!(fs::read_link(link).unwrap(), Path::new("..").join(id).join("diff"));
        }
        let (theirs, ours) = (content_of(theirs), content_of(ours));
        // Docker leaves the root's time as it happens to be
        theirs.clone().without_entry("").assert_same(&ours.clone().without_entry(""));
        assert_eq!(theirs.without_times().get(""), ours.without_times().get(""));
    }
}

#[test]
#[ignore = "needs root: runs dockerd"]
fn docker_s_folders_of_an_image_are_those_of_the_driver_overlay2() {
    let store = TempStore::with_size(Identity::Current, "1G");
    let (docker, archive) = loaded_image(&store);
    store.ok(&["--driver", "overlay2", "import", &archive, "--name", "image:1"]);
    assert_same_folders(&docker.data().join("overlay2"), &store.root().join("overlay2"));
    store.ok(&["--driver", "overlay2", "rmi", "image:1"]);
    drop(docker);
    store.finish();
}

#[test]
#[ignore = "needs root: runs dockerd"]
fn docker_s_data_root_is_the_image_that_it_was_given_and_is_what_an_export_makes() {
    let store = TempStore::with_size(Identity::Current, "1G");
    let (docker, archive) = loaded_image(&store);
    store.ok(&["import", &archive, "--name", "archive:1"]);
    let layers = store.layer_count();
    let data = docker.data();
    store.ok(&["import", data.to_str().unwrap(), "--name", "folders:1"]);
    assert_eq!(store.layer_count(), layers, "its layers were not those of the archive");
    let ids: Vec<_> = store.rows(&["images"]).iter().map(|row| row["id"].clone()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    let exported = PathBuf::from(store.path("exported"));
    store.ok(&["export", "archive:1", "--overlay2", exported.to_str().unwrap()]);
    assert_same_folders(&data.join("overlay2"), &exported.join("overlay2"));
    drop(docker);
    store.finish();
}
