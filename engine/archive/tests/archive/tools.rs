//! The real programs: GNU tar, umoci and skopeo, in both directions.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use thinstore_archive::{
    Compression, HostTree, ImageSource, Limits, SourceKind, SourceOptions, apply_layer,
};
use thinstore_filesystem::{Node, TreeReader};

use crate::tree::{Description, MemoryTree, assert_same, describe, tree_path};
use crate::writing::{oci_archive, rich_tree, tar_of_tree};
use crate::{apply_file, file_of};

/// Runs a program and fails with what it said.
fn run(program: &str, arguments: &[&str]) {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("'{program}' is needed for this test and cannot be run: {error}"),
    };
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn shell(folder: &Path, script: &str) {
    run("bash", &["-euc", &format!("cd '{}'\n{script}", folder.display())]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder of all that a file system can hold.
fn full_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    shell(
        folder.path(),
        r#"
        mkdir -p d/sub empty
        echo content > d/f
        echo owned > owned; chown 70000:3000000000 owned
        chmod 6755 d/f; chmod 1777 empty
        ln d/f first-name; ln d/f z-last-name
        ln -s ../../anywhere s; ln -s "$(printf 't%.0s' {1..300})" s-long
        mknod c c 1 3; mknod b b 259 70000; mkfifo p
        touch -d '1969-12-31 23:59:58.25 UTC' old; touch -d '2100-01-01 00:00:00.123456789 UTC' future
        touch "$(printf 'n%.0s' {1..255})"
        mkdir -p "$(printf 'e%.0s' {1..200})/$(printf 'g%.0s' {1..200})"
        touch "$(printf 'e%.0s' {1..200})/$(printf 'g%.0s' {1..200})/deep"
        touch "$(printf 'caf\xe9')" 'grün' 'with space' "$(printf 'new\nline')"
        touch attributes; setfattr -n user.text -v value attributes
        setfattr -n user.binary -v 0x0a3d000a attributes; setfattr -n trusted.t -v x attributes
        touch capable; setcap cap_net_raw+ep capable
        touch acl; setfacl -m u:12345:rwx,g:54321:r acl
        mkdir acl-folder; setfacl -d -m u:12345:rx acl-folder
        "#,
    );
    let sparse = File::create(folder.path().join("sparse")).unwrap();
    sparse.set_len(6 << 30).unwrap();
    for piece in 0..100 {
        sparse.write_all_at(b"piece", piece * (50 << 20)).unwrap();
    }
    sparse.write_all_at(b"end", (6 << 30) - 3).unwrap();
    sparse.sync_all().unwrap();
    folder
}

fn unpack_tar(path: &Path) -> MemoryTree {
    let mut tree = MemoryTree::new();
    apply_file(path, &mut tree, &Limits::default()).unwrap();
    tree
}

#[test]
#[ignore = "needs root, GNU tar, acl, attr and libcap2-bin"]
fn archives_of_gnu_tar_in_pax_form_come_back_whole() {
    let folder = full_folder();
    let expected = HostTree::open(folder.path()).unwrap();
    let archive = TempDir::new().unwrap();
    let path = archive.path().join("a.tar");
    for options in [
        &["--xattrs", "--sparse", "--sparse-version=1.0"][..],
        &["--xattrs", "--sparse", "--sparse-version=0.1"],
        &["--xattrs", "--sparse", "--sparse-version=0.0"],
        &["--xattrs", "--acls", "--xattrs-include=*", "--sparse", "--numeric-owner"],
    ] {
        let mut arguments = vec!["--format=posix", "-cf", text(&path), "-C", text(folder.path())];
        arguments.extend_from_slice(options);
        arguments.push(".");
        run("tar", &arguments);
        let tree = unpack_tar(&path);
        assert_same(&tree, &expected);
        assert_eq!(tree.extents("sparse").iter().map(|extent| extent.1 / 4096).max(), Some(1));
    }
    for program in ["gzip", "zstd"] {
        run(
            "tar",
            &[
                "--format=posix",
                "--xattrs",
                "--sparse",
                "-I",
                program,
                "-cf",
                text(&path),
                "-C",
                text(folder.path()),
                ".",
            ],
        );
        assert_same(&unpack_tar(&path), &expected);
    }
}

#[test]
#[ignore = "needs root, GNU tar, acl, attr and libcap2-bin"]
fn acls_that_gnu_tar_writes_as_text_come_back() {
    let folder = full_folder();
    let archive = TempDir::new().unwrap();
    let path = archive.path().join("a.tar");
    run(
        "tar",
        &[
            "--format=posix",
            "--acls",
            "--sparse",
            "-cf",
            text(&path),
            "-C",
            text(folder.path()),
            ".",
        ],
    );
    let (found, expected) = (unpack_tar(&path), HostTree::open(folder.path()).unwrap());
    for name in ["acl", "acl-folder"] {
        assert_eq!(found.get(name).1, expected.node(&tree_path(name)).unwrap().1, "{name}");
    }
}

#[test]
#[ignore = "needs root, GNU tar, acl, attr and libcap2-bin"]
fn archives_of_gnu_tar_in_its_own_forms_come_back_but_for_what_they_cannot_hold() {
    let folder = full_folder();
    let archive = TempDir::new().unwrap();
    let path = archive.path().join("a.tar");
    let expected = describe(&HostTree::open(folder.path()).unwrap());
    for format in ["gnu", "oldgnu"] {
        let format = format!("--format={format}");
        run("tar", &[&format, "--sparse", "-cf", text(&path), "-C", text(folder.path()), "."]);
        let found = describe(&unpack_tar(&path));
        assert_eq!(found.len(), expected.len());
        for (name, description) in &expected {
            assert_eq!(found[name], without_extensions(description), "{format} {name}");
        }
    }
}

/// What a form without extended attributes and fractions of seconds keeps. The ACL's mask stays as the
/// group's permissions.
fn without_extensions(description: &Description) -> Description {
    let mut plain = description.clone();
    plain.metadata.xattrs.clear();
    plain.metadata.modified.nanoseconds = 0;
    plain
}

#[test]
#[ignore = "needs root, GNU tar"]
fn gnu_tar_unpacks_what_is_written_here() {
    let tree = rich_tree();
    let file = file_of(&tar_of_tree(&tree, ""));
    let folder = TempDir::new().unwrap();
    run(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-xpf",
            text(file.path()),
            "-C",
            text(folder.path()),
        ],
    );
    let (found, expected) = (describe(&HostTree::open(folder.path()).unwrap()), describe(&tree));
    let names =
        |tree: &std::collections::BTreeMap<_, _>| tree.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(&expected));
    for (path, description) in &expected {
        let mut description = description.clone();
        let mut other = found[path].clone();
        // GNU tar knows no attribute whose name contains '='; ext4 holds no time beyond 2446 or before
        // 1901.
        description.metadata.xattrs.remove(&b"user.with=equals"[..]);
        let name = path.to_string();
        if name == "/time3" || name == "/time4" {
            description.metadata.modified = other.metadata.modified;
        }
        // Symlinks have no mode of their own on Linux.
        if matches!(description.node, Node::Symlink { .. }) {
            other.metadata.mode = description.metadata.mode;
        }
        assert_eq!(other.metadata, description.metadata, "{path}");
        assert_eq!(other.node, description.node, "{path}");
        assert!(other.blocks == description.blocks, "{path}");
        assert_eq!(other.first_name, description.first_name, "{path}");
    }
}

fn options() -> SourceOptions {
    SourceOptions::new(&std::env::temp_dir())
}

fn unpack_image(path: &Path, name: Option<&str>) -> (SourceKind, MemoryTree) {
    let source = ImageSource::open(path, &options()).unwrap();
    let image = source.image(name, &options()).unwrap();
    let mut tree = MemoryTree::new();
    for layer in &image.layers {
        apply_layer(&mut layer.open(None).unwrap(), &mut tree).unwrap();
    }
    (source.kind(), tree)
}

/// A layout of three layers made by umoci, and its own unpacking of it.
fn umoci_layout() -> TempDir {
    let folder = TempDir::new().unwrap();
    shell(
        folder.path(),
        r#"
        umoci init --layout layout
        umoci new --image layout:app
        umoci unpack --image layout:app one
        cd one/rootfs
        mkdir -p etc usr/bin var/cache opt/app/data
        echo a > etc/a; echo b > etc/b; echo tool > usr/bin/tool; chmod 4755 usr/bin/tool
        ln usr/bin/tool usr/bin/alias; ln -s usr/bin bin
        for i in $(seq 200); do echo $i > var/cache/$i; done
        echo x > opt/app/data/x; echo y > opt/app/y
        mknod null c 1 3; mkfifo pipe; touch capable; setcap cap_net_raw+ep capable
        setfattr -n user.k -v v etc/a; chown 70000:80000 etc/b
        touch -d '2001-02-03 04:05:06.789 UTC' etc/b
        cd ../..; umoci repack --image layout:app one
        umoci unpack --image layout:app two; cd two/rootfs
        rm -r opt/app; mkdir opt/app; echo z > opt/app/z
        rm etc/a; echo b2 >> etc/b; rm bin; mkdir bin; echo s > bin/sh
        rm var/cache/1*; chmod 700 var
        cd ../..; umoci repack --image layout:app two
        umoci unpack --image layout:app three; cd three/rootfs
        rm -r var/cache; echo back > etc/a; ln etc/a etc/c
        cd ../..; umoci repack --image layout:app three
        umoci unpack --image layout:app final
        "#,
    );
    folder
}

#[test]
#[ignore = "needs root, umoci, attr and libcap2-bin"]
fn an_image_of_umoci_unpacks_to_the_same_tree_as_umocis() {
    let folder = umoci_layout();
    let expected = HostTree::open(&folder.path().join("final/rootfs")).unwrap();
    let (kind, tree) = unpack_image(&folder.path().join("layout"), Some("app"));
    assert_eq!(kind, SourceKind::OciLayout);
    assert_same(&tree, &expected);
}

#[test]
#[ignore = "needs root, umoci, skopeo, attr and libcap2-bin"]
fn every_form_that_skopeo_writes_unpacks_to_the_same_tree() {
    let folder = umoci_layout();
    let expected = HostTree::open(&folder.path().join("final/rootfs")).unwrap();
    shell(
        folder.path(),
        r#"
        copy() { skopeo copy --insecure-policy -q oci:layout:app "$@"; }
        copy oci-archive:oci.tar:app
        copy docker-archive:docker.tar:app:9
        copy oci:zstd:app --dest-compress-format zstd --dest-compress
        gzip -k docker.tar
        zstd -q oci.tar
        "#,
    );
    for (name, kind) in [
        ("oci.tar", SourceKind::OciArchive),
        ("oci.tar.zst", SourceKind::OciArchive),
        ("docker.tar", SourceKind::DockerArchive),
        ("docker.tar.gz", SourceKind::DockerArchive),
        ("zstd", SourceKind::OciLayout),
    ] {
        let (found, tree) = unpack_image(&folder.path().join(name), None);
        assert_eq!(found, kind, "{name}");
        assert_same(&tree, &expected);
    }
}

#[test]
#[ignore = "needs root, umoci and skopeo"]
fn archives_written_here_are_taken_by_skopeo_and_umoci() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (bytes, tree) = oci_archive(compression, Some("app:2"));
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.tar"), bytes).unwrap();
        shell(
            folder.path(),
            r#"
            skopeo copy --insecure-policy -q oci-archive:a.tar oci:layout:app
            skopeo copy --insecure-policy -q docker-archive:a.tar oci:from-docker:app
            skopeo inspect docker-archive:a.tar | grep -q 'linux'
            "#,
        );
        let (_, from_docker) = unpack_image(&folder.path().join("from-docker"), None);
        assert_same(&from_docker, &tree);
        // umoci 0.4 knows no zstd.
        if compression != Compression::Zstd {
            shell(folder.path(), "umoci unpack --image layout:app bundle");
            let unpacked = HostTree::open(&folder.path().join("bundle/rootfs")).unwrap();
            let names = |reader: &dyn TreeReader| describe(reader).into_keys().collect::<Vec<_>>();
            assert_eq!(names(&unpacked), names(&tree));
        }
    }
}
