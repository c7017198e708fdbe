//! Every form in which an image may come, and every way in which it may lie.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use thinstore_archive::{
    Digest, HostTree, Image, ImageSource, Limits, Platform, SourceKind, SourceOptions, apply_layer,
    chain_id,
};
use thinstore_filesystem::Node;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::random::Random;
use crate::raw::{RawHeader, RawTar};
use crate::tree::{MemoryTree, assert_same};
use crate::{file_of, refused_error};

/// The files of a layout or of an archive, by path.
type Files = BTreeMap<String, Vec<u8>>;

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn options() -> SourceOptions {
    SourceOptions::new(&std::env::temp_dir())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two layers: the second deletes a file of the first.
fn layers() -> [Vec<u8>; 2] {
    [
        RawTar::new().folder("etc/").file("etc/a", b"a").file("etc/b", b"b").end(),
        RawTar::new().file("etc/.wh.a", b"").file("new", b"n").end(),
    ]
}

fn blob(files: &mut Files, bytes: Vec<u8>) -> Value {
    let digest = Digest::of(&bytes);
    let size = bytes.len();
    files.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
    json!({ "digest": digest.to_string(), "size": size })
}

fn config_of(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes()
}

/// Puts an image into a layout and gives its descriptor.
fn image_into(files: &mut Files, layers: &[Vec<u8>], pack: impl Fn(&[u8]) -> Vec<u8>) -> Value {
    let mut config = blob(files, config_of(layers));
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let mut descriptor = blob(files, pack(layer));
            descriptor["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
            descriptor
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut descriptor = blob(files, manifest.to_string().into_bytes());
    descriptor["mediaType"] = json!(MANIFEST_TYPE);
    descriptor
}

fn named(mut descriptor: Value, key: &str, name: &str) -> Value {
    descriptor["annotations"] = json!({ key: name });
    descriptor
}

fn index_into(files: &mut Files, manifests: &[Value]) {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests });
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
}

fn layout(pack: impl Fn(&[u8]) -> Vec<u8>) -> Files {
    let mut files = Files::new();
    let descriptor = image_into(&mut files, &layers(), pack);
    let name = "docker.io/library/app:1";
    index_into(&mut files, &[named(descriptor, "io.containerd.image.name", name)]);
    files
}

fn write_folder(files: &Files) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

fn tar_of(files: &Files) -> Vec<u8> {
    files.iter().fold(RawTar::new(), |tar, (path, bytes)| tar.file(path, bytes)).end()
}

fn open_image(path: &Path, name: Option<&str>) -> Result<Image> {
    ImageSource::open(path, &options())?.image(name, &options())
}

fn open_bytes(bytes: &[u8]) -> Result<(SourceKind, Image)> {
    let file = file_of(bytes);
    let source = ImageSource::open(file.path(), &options())?;
    let image = source.image(None, &options())?;
    Ok((source.kind(), image))
}

fn unpack(image: &Image) -> Result<MemoryTree> {
    let mut tree = MemoryTree::new();
    for layer in &image.layers {
        apply_layer(&mut layer.open(None)?, &mut tree)?;
    }
    Ok(tree)
}

fn assert_is_the_image(image: &Image) {
    let layers = layers();
    assert_eq!(image.diff_ids(), layers.iter().map(|layer| Digest::of(layer)).collect::<Vec<_>>());
    assert_eq!(image.chain_ids().last(), chain_id(&image.diff_ids()).as_ref());
    assert_eq!(image.config, config_of(&layers));
    assert_eq!(image.config_digest, Digest::of(&image.config));
    let tree = unpack(image).unwrap();
    assert_eq!(tree.paths(), ["", "etc", "etc/b", "new"]);
}

#[test]
fn an_oci_layout_is_opened_with_every_compression_of_its_layers() {
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let plain = |bytes: &[u8]| bytes.to_vec();
    for files in [layout(gzip), layout(zstd), layout(plain)] {
        let folder = write_folder(&files);
        let source = ImageSource::open(folder.path(), &options()).unwrap();
        assert_eq!(source.kind(), SourceKind::OciLayout);
        assert_eq!(source.image_names(), ["app:1"]);
        let image = source.image(None, &options()).unwrap();
        assert_eq!(image.name.as_deref(), Some("app:1"));
        let manifest = image.manifest.as_ref().unwrap();
        assert!(files.values().any(|bytes| bytes == manifest));
        for layer in &image.layers {
            let digest = layer.blob_digest.as_ref().unwrap();
            let bytes = &files[&format!("blobs/sha256/{}", digest.hex())];
            assert_eq!(layer.compressed_size_bytes, bytes.len() as u64);
        }
        assert_is_the_image(&image);
    }
}

#[test]
fn an_oci_archive_is_opened_plain_and_compressed_and_through_a_pipe() {
    let archive = tar_of(&layout(gzip));
    let forms = [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()];
    for bytes in forms {
        let (kind, image) = open_bytes(&bytes).unwrap();
        assert_eq!(kind, SourceKind::OciArchive);
        assert_eq!(image.name.as_deref(), Some("app:1"));
        assert_is_the_image(&image);
        let source = ImageSource::from_reader(&bytes[..], &options()).unwrap();
        assert_is_the_image(&source.image(Some("docker.io/library/app:1"), &options()).unwrap());
    }
}

#[test]
fn a_named_pipe_is_read_like_standard_input() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, tar_of(&layout(gzip))).unwrap()
    });
    assert_is_the_image(&open_image(&pipe, None).unwrap());
    writer.join().unwrap();
}

fn saved_files(layer_paths: &[String], config_path: &str) -> Files {
    let layers = layers();
    let mut files = Files::new();
    files.insert(config_path.to_owned(), config_of(&layers));
    for (path, layer) in layer_paths.iter().zip(&layers) {
        files.insert(path.clone(), layer.clone());
    }
    let manifest = json!([{
        "Config": config_path,
        "RepoTags": ["app:1", "app:latest"],
        "Layers": layer_paths,
    }]);
    files.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    files
}

fn old_saved_files() -> Files {
    let paths = [format!("{}/layer.tar", "1".repeat(64)), format!("{}/layer.tar", "2".repeat(64))];
    let config = format!("{}.json", Digest::of(&config_of(&layers())).hex());
    saved_files(&paths, &config)
}

#[test]
fn archives_of_docker_save_are_opened_in_the_old_and_the_new_style() {
    let layers = layers();
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let new = saved_files(&[path(&layers[0]), path(&layers[1])], &path(&config_of(&layers)));
    for (files, has_digest) in [(old_saved_files(), false), (new, true)] {
        for bytes in [tar_of(&files), gzip(&tar_of(&files))] {
            let (kind, image) = open_bytes(&bytes).unwrap();
            assert_eq!(kind, SourceKind::DockerArchive);
            assert_eq!(image.name.as_deref(), Some("app:1"));
            assert_eq!(image.manifest, None);
            assert!(image.layers.iter().all(|layer| layer.blob_digest.is_some() == has_digest));
            assert_is_the_image(&image);
        }
    }
}

#[test]
fn a_layer_that_docker_saved_as_a_symlink_is_found() {
    let layer = RawTar::new().file("x", b"").end();
    let stack = [layer.clone(), layer.clone()];
    let manifest =
        json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar"] }]);
    let archive = |target: &str| {
        RawTar::new()
            .file("1/layer.tar", &layer)
            .symlink("2/layer.tar", target)
            .file("c.json", &config_of(&stack))
            .file("manifest.json", manifest.to_string().as_bytes())
            .end()
    };
    let (_, image) = open_bytes(&archive("../1/layer.tar")).unwrap();
    assert_eq!(image.name, None);
    assert_eq!(unpack(&image).unwrap().paths(), ["", "x"]);
    for target in ["../../1/layer.tar", "/etc/passwd", "../2/layer.tar"] {
        let message = refused_error(open_bytes(&archive(target)).unwrap_err());
        assert!(message.contains("leads nowhere"), "{message}");
    }
}

#[test]
fn a_tar_of_a_root_file_system_is_told_by_content_and_gets_a_configuration() {
    let tar = RawTar::new().folder("./").folder("./etc/").file("./etc/a", b"a").end();
    for (bytes, media_type) in [
        (tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
        (gzip(&tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
        (zstd::encode_all(&tar[..], 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd"),
    ] {
        let (kind, image) = open_bytes(&bytes).unwrap();
        assert_eq!(kind, SourceKind::RootFileSystem);
        assert_eq!(image.layers.len(), 1);
        assert_eq!(image.layers[0].diff_id, Digest::of(&tar));
        assert_eq!(image.layers[0].blob_digest, Some(Digest::of(&bytes)));
        assert_eq!(image.layers[0].media_type, media_type);
        let config: Value = serde_json::from_slice(&image.config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], Digest::of(&tar).to_string());
        assert_eq!(config["os"], "linux");
        assert_eq!(unpack(&image).unwrap().paths(), ["", "etc", "etc/a"]);
    }
}

#[test]
fn a_folder_is_taken_with_links_holes_attributes_and_names_of_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), b"content").unwrap();
    std::fs::set_permissions(at("d/f"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    std::fs::hard_link(at("d/f"), at("h")).unwrap();
    symlink("/anywhere", at("s")).unwrap();
    std::fs::write(folder.path().join(OsStr::from_bytes(b"\xff\xfe")), b"1").unwrap();
    nix::unistd::mkfifo(&at("p"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let sparse = std::fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    sparse.write_all_at(b"middle", 1 << 29).unwrap();
    sparse.sync_all().unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    std::fs::File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();

    let image = open_image(folder.path(), None).unwrap();
    let tree = unpack(&image).unwrap();
    assert!(!tree.has("socket"));
    std::fs::remove_file(at("socket")).unwrap();
    // Removing the socket changed the root's time; everything else is as it was taken.
    let metadata = std::fs::metadata(folder.path()).unwrap();
    let unpacked_root = tree.get("").1;
    assert_eq!(unpacked_root.mode, metadata.permissions().mode() & 0o7777);
    assert_eq!(tree.get("sparse").0, Node::File { size_bytes: 1 << 30 });
    let data: u64 = tree.extents("sparse").iter().map(|extent| extent.1).sum();
    assert!(data < 1 << 20, "{data} bytes of a file with six bytes of data were read");
    assert!(tree.same_file("h", "d/f"));
    assert_eq!(tree.get("d/f").1.mode, 0o6755);
    let file = std::fs::File::open(folder.path()).unwrap();
    file.set_modified(
        std::time::UNIX_EPOCH
            + std::time::Duration::new(
                unpacked_root.modified.seconds as u64,
                unpacked_root.modified.nanoseconds,
            ),
    )
    .unwrap();
    assert_same(&tree, &HostTree::open(folder.path()).unwrap());
}

#[test]
fn a_folder_that_changes_after_it_was_measured_is_refused() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("a"), b"before").unwrap();
    let image = open_image(folder.path(), None).unwrap();
    std::fs::write(folder.path().join("a"), b"after, and longer").unwrap();
    let message = refused_error(unpack(&image).unwrap_err());
    assert!(message.contains("changed"), "{message}");
}

#[test]
fn a_folder_with_a_name_that_marks_a_deletion_is_not_taken_silently() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join(".wh.x"), b"").unwrap();
    let error = open_image(folder.path(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(".wh.x"), "{error}");
}

#[test]
fn of_several_images_one_is_chosen_by_name_or_digest() {
    let mut files = Files::new();
    let first = image_into(&mut files, &layers(), gzip);
    let second = image_into(&mut files, &[RawTar::new().file("other", b"").end()], gzip);
    let digest = second["digest"].as_str().unwrap().to_owned();
    let reference = "org.opencontainers.image.ref.name";
    index_into(
        &mut files,
        &[named(first, reference, "docker.io/library/one:latest"), named(second, reference, "two")],
    );
    let folder = write_folder(&files);
    let open = |name: Option<&str>| open_image(folder.path(), name);
    let error = open(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("one:latest, two"), "{error}");
    assert_is_the_image(&open(Some("one")).unwrap());
    assert_eq!(open(Some("two")).unwrap().layers.len(), 1);
    assert_eq!(open(Some(&digest)).unwrap().name.as_deref(), Some("two"));
    assert_eq!(open(Some("three")).unwrap_err().kind(), ErrorKind::NotFound);

    let mut saved = old_saved_files();
    let mut manifest: Value = serde_json::from_slice(&saved["manifest.json"]).unwrap();
    let mut other = manifest[0].clone();
    other["RepoTags"] = json!(["other:2"]);
    manifest.as_array_mut().unwrap().push(other);
    saved.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    let file = file_of(&tar_of(&saved));
    assert_eq!(open_image(file.path(), None).unwrap_err().kind(), ErrorKind::Usage);
    let image = open_image(file.path(), Some("app")).unwrap();
    assert_eq!(image.name.as_deref(), Some("app:latest"));
}

#[test]
fn the_platform_is_chosen_through_nested_indexes_and_past_attestations() {
    let mut files = Files::new();
    let mut wanted = image_into(&mut files, &layers(), gzip);
    let mut other = image_into(&mut files, &[RawTar::new().file("arm", b"").end()], gzip);
    let mut attestation = image_into(&mut files, &[RawTar::new().file("proof", b"").end()], gzip);
    wanted["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    other["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let inner = json!({ "schemaVersion": 2, "manifests": [attestation, other, wanted] });
    let mut nested = blob(&mut files, inner.to_string().into_bytes());
    nested["mediaType"] = json!(INDEX_TYPE);
    let outer = json!({ "schemaVersion": 2, "manifests": [nested] });
    let mut outer = blob(&mut files, outer.to_string().into_bytes());
    outer["mediaType"] = json!(INDEX_TYPE);
    index_into(&mut files, &[outer]);
    let folder = write_folder(&files);
    let source = ImageSource::open(folder.path(), &options()).unwrap();
    let on = |architecture: &str| {
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        };
        source.image(None, &SourceOptions { platform, ..options() })
    };
    assert_is_the_image(&on("amd64").unwrap());
    assert_eq!(unpack(&on("arm64").unwrap()).unwrap().paths(), ["", "arm"]);
    let error = on("s390x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("linux/arm64, linux/amd64"), "{error}");
}

/// Opens and unpacks a layout after something in it was changed.
fn broken(files: &Files) -> Error {
    let folder = write_folder(files);
    let from_folder = open_image(folder.path(), None).and_then(|image| unpack(&image)).unwrap_err();
    let file = file_of(&tar_of(files));
    let from_archive = open_image(file.path(), None).and_then(|image| unpack(&image)).unwrap_err();
    assert_eq!(from_folder.kind(), from_archive.kind());
    from_folder
}

#[test]
fn every_blob_with_a_wrong_byte_is_refused_by_name() {
    let files = layout(gzip);
    for path in files.keys().filter(|path| path.starts_with("blobs/")) {
        let mut changed = files.clone();
        let bytes = changed.get_mut(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let message = refused_error(broken(&changed));
        assert!(message.contains(path.rsplit('/').next().unwrap()), "{path}: {message}");

        changed.get_mut(path).unwrap().push(0);
        let message = refused_error(broken(&changed));
        assert!(message.contains("promised"), "{message}");

        changed.remove(path);
        let message = refused_error(broken(&changed));
        assert!(message.contains("missing"), "{message}");
    }
}

#[test]
fn a_layer_whose_diff_id_is_wrong_is_refused_at_its_end() {
    let mut files = Files::new();
    let honest = layers();
    let lie = [honest[0].clone(), RawTar::new().file("another", b"").end()];
    let mut descriptor = image_into(&mut files, &honest, gzip);
    let path = |digest: &str| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    let manifest_path = path(descriptor["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&files[&manifest_path]).unwrap();
    let mut config = blob(&mut files, config_of(&lie));
    config["mediaType"] = manifest["config"]["mediaType"].clone();
    manifest["config"] = config;
    let changed = blob(&mut files, manifest.to_string().into_bytes());
    descriptor["digest"] = changed["digest"].clone();
    descriptor["size"] = changed["size"].clone();
    index_into(&mut files, &[descriptor]);
    let message = refused_error(broken(&files));
    assert!(message.contains(&Digest::of(&lie[1]).to_string()), "{message}");

    // As many layers as diff ids, or it is refused before anything is unpacked.
    manifest["layers"].as_array_mut().unwrap().pop();
    let mut descriptor = blob(&mut files, manifest.to_string().into_bytes());
    descriptor["mediaType"] = json!(MANIFEST_TYPE);
    index_into(&mut files, &[descriptor]);
    assert!(refused_error(broken(&files)).contains("2 layers where the manifest has 1"));
}

#[test]
fn saved_archives_with_wrong_bytes_are_refused() {
    let files = old_saved_files();
    for path in files.keys().filter(|path| *path != "manifest.json") {
        let mut changed = files.clone();
        let bytes = changed.get_mut(path).unwrap();
        let place = bytes.len() / 3;
        bytes[place] ^= 1;
        let file = file_of(&tar_of(&changed));
        let outcome = open_image(file.path(), None).and_then(|image| unpack(&image));
        refused_error(outcome.unwrap_err());
        changed.remove(path);
        let file = file_of(&tar_of(&changed));
        let message = refused_error(open_image(file.path(), None).unwrap_err());
        assert!(message.contains("missing"), "{message}");
    }
}

#[test]
fn an_image_archive_cut_anywhere_is_refused_or_means_the_same() {
    for files in [layout(gzip), old_saved_files()] {
        let whole = tar_of(&files);
        let mut same = 0;
        for length in (0..whole.len()).step_by(512) {
            match open_bytes(&whole[..length]).and_then(|(_, image)| unpack(&image)) {
                Ok(tree) => {
                    assert_eq!(tree.paths(), ["", "etc", "etc/b", "new"], "cut at {length}");
                    same += 1;
                }
                Err(error) => {
                    refused_error(error);
                }
            }
        }
        assert!(same <= 1);
    }
}

#[test]
fn an_image_archive_with_a_flipped_byte_is_refused_or_means_the_same() {
    let mut random = Random::new(9);
    let mut unnoticed = 0;
    for files in [layout(gzip), old_saved_files()] {
        let whole = tar_of(&files);
        for _ in 0..1500 {
            let mut bytes = whole.clone();
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << random.below(8);
            if let Ok(tree) = open_bytes(&bytes).and_then(|(_, image)| unpack(&image)) {
                assert_eq!(tree.paths(), ["", "etc", "etc/b", "new"], "byte {place}");
                unnoticed += 1;
            }
        }
    }
    // Padding and fields of the outer archive that mean nothing.
    assert!(unnoticed < 2000, "{unnoticed}");
}

#[test]
fn documents_that_make_no_sense_are_refused_and_never_panic() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "null", "[]", "{}", "\"x\"", "{\"manifests\":{}}", "[{}]", "[null]", &deep] {
        let mut files = layout(gzip);
        for name in ["index.json", "oci-layout"] {
            files.insert(name.to_owned(), text.as_bytes().to_vec());
            broken(&files);
        }
        let mut saved = old_saved_files();
        saved.insert("manifest.json".to_owned(), text.as_bytes().to_vec());
        let file = file_of(&tar_of(&saved));
        refused_error(open_image(file.path(), None).unwrap_err());
    }
    let mut files = layout(gzip);
    files.insert("index.json".to_owned(), vec![b' '; 9 << 20]);
    assert!(refused_error(broken(&files)).contains("bytes"));
    let mut files = layout(gzip);
    let version = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
    files.insert("oci-layout".to_owned(), version);
    assert_eq!(broken(&files).kind(), ErrorKind::Incompatible);
}

#[test]
fn digests_that_are_paths_lead_nowhere() {
    let mut files = layout(gzip);
    for digest in ["sha256:../../../../etc/passwd", "../x", "sha256:", "md5:abc"] {
        let manifest = json!({ "mediaType": MANIFEST_TYPE, "digest": digest, "size": 1 });
        index_into(&mut files, &[manifest]);
        refused_error(broken(&files));
    }
}

#[test]
fn indexes_that_contain_one_another_without_end_are_refused() {
    let mut files = Files::new();
    let mut descriptor = image_into(&mut files, &layers(), gzip);
    for _ in 0..20 {
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        descriptor = blob(&mut files, index.to_string().into_bytes());
        descriptor["mediaType"] = json!(INDEX_TYPE);
    }
    index_into(&mut files, &[descriptor]);
    assert!(refused_error(broken(&files)).contains("indexes in indexes"));
}

#[test]
fn artifacts_that_are_no_images_and_encrypted_layers_are_named() {
    let mut files = Files::new();
    let mut config = blob(&mut files, b"{}".to_vec());
    config["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
    let mut descriptor = blob(&mut files, manifest.to_string().into_bytes());
    descriptor["mediaType"] = json!(MANIFEST_TYPE);
    index_into(&mut files, &[descriptor]);
    let error = broken(&files);
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("empty"), "{error}");
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    for bytes in [&b""[..], b"hello", &[b'x'; 5000], &[0; 512], &[0; 10240], &[0xff; 512]] {
        refused_error(open_bytes(bytes).unwrap_err());
    }
    refused_error(open_bytes(&gzip(b"not a tar")).unwrap_err());
    refused_error(open_bytes(&gzip(b"")).unwrap_err());
    refused_error(open_bytes(&gzip(&[0; 10240])).unwrap_err());
    let error = ImageSource::open(Path::new("/nonexistent/image"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/nonexistent/image"), "{error}");
    let repositories = RawTar::new().file("repositories", b"{}").end();
    assert_eq!(open_bytes(&repositories).unwrap_err().kind(), ErrorKind::Incompatible);
}

#[test]
fn limits_count_over_all_layers_and_not_twice_for_a_second_reading() {
    let folder = write_folder(&layout(gzip));
    let with = |max_entries| {
        let limits = Limits { max_entries, ..Limits::default() };
        let options = SourceOptions { limits, ..options() };
        ImageSource::open(folder.path(), &options).unwrap().image(None, &options).unwrap()
    };
    let image = with(5);
    unpack(&image).unwrap();
    unpack(&image).unwrap();
    assert!(refused_error(unpack(&with(4)).unwrap_err()).contains("4 entries"));
}

#[test]
fn progress_ends_at_the_total() {
    let folder = write_folder(&layout(gzip));
    let image = open_image(folder.path(), None).unwrap();
    for layer in &image.layers {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let progress = Box::new(move |done, total| sink.lock().unwrap().push((done, total)));
        let mut reader = layer.open(Some(progress)).unwrap();
        let totals = reader.finish().unwrap();
        assert_eq!(totals.compressed_bytes, layer.compressed_size_bytes);
        let seen = seen.lock().unwrap();
        assert!(seen.is_sorted());
        let size = layer.compressed_size_bytes;
        assert_eq!(seen.last(), Some(&(size, size)));
    }
}

#[test]
fn layers_without_a_closing_mark_are_taken_where_a_digest_vouches_for_them() {
    let bare = RawTar::new().file("a", b"a").bytes;
    let empty = Vec::new();
    let mut files = Files::new();
    let descriptor = image_into(&mut files, &[bare.clone(), empty], |bytes| bytes.to_vec());
    index_into(&mut files, &[descriptor]);
    let folder = write_folder(&files);
    let image = open_image(folder.path(), None).unwrap();
    assert_eq!(unpack(&image).unwrap().paths(), ["", "a"]);
    refused_error(open_bytes(&bare).unwrap_err());
}

#[test]
fn an_outer_archive_may_be_hostile_without_effect() {
    let files = layout(gzip);
    let mut tar = RawTar::new()
        .file("/etc/evil", b"x")
        .file("../evil", b"x")
        .symlink("blobs/extra", "/etc")
        .entry(RawHeader::new(b"dev", b'3', 0), b"");
    for (path, bytes) in &files {
        tar = tar.file(path, bytes);
    }
    let (_, image) = open_bytes(&tar.end()).unwrap();
    assert_is_the_image(&image);
    // A document that is a link out of the archive is not there.
    let linked = RawTar::new().symlink("index.json", "/etc/passwd").file("oci-layout", b"{}").end();
    refused_error(open_bytes(&linked).unwrap_err());
}
