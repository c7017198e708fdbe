//! Target `oci`: an image in an archive or a folder, OCI or of `docker save`. Digests and sizes in its
//! documents are brought up to what they name, so that what is wrong stands behind digests that are right.

use std::path::Path;

use thinstore_archive::{
    Compression, Digest, Image, ImageSource, Limits, OciArchiveWriter, SourceKind, SourceOptions,
};

use super::tree::Tree;
use super::{Stored, is_refusal, stored, tar_builder, with_file};
use crate::input::Input;

const MOST_MEMBERS: usize = 12;
const MOST_IMAGES: usize = 4;

const DOCUMENTS: [&str; 12] = [
    // `$0` to `$9` stand for the digests of the members before, `#0` to `#9` for their sizes.
    r#"{"imageLayoutVersion":"1.0.0"}"#,
    r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$9","size":#9,"annotations":{"org.opencontainers.image.ref.name":"web"}}]}"#,
    r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$1","size":#1},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$0","size":#0}]}"#,
    r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["$0"]},"history":[{"created_by":"x"}]}"#,
    r#"[{"Config":"config.json","RepoTags":["web:1"],"Layers":["layer.tar"]}]"#,
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"$9","size":#9,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$8","size":#8,"platform":{"os":"linux","architecture":"amd64"}}]}"#,
    r#"{"rootfs":{"type":"layers","diff_ids":["$0","$0","$1"]}}"#,
    r#"{"schemaVersion":2,"config":{"digest":"$1","size":#1},"layers":[{"digest":"$0","size":#0},{"digest":"$0","size":#0}]}"#,
    r#"{"schemaVersion":2,"manifests":null}"#,
    r#"{}"#,
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    r#"{"imageLayoutVersion":"2"}"#,
];

const NAMES: [&str; 12] = [
    "oci-layout",
    "index.json",
    "manifest.json",
    "config.json",
    "layer.tar",
    "repositories",
    "blobs/sha256/",
    "./index.json",
    "blobs/",
    "VERSION",
    "a/../index.json",
    "id/layer.tar",
];

/// A name and a content.
type Member = (String, Vec<u8>);

/// Puts digests and sizes where a document leaves room for them. Nine is the newest before it.
fn filled(text: &[u8], before: &[Member]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let number = rest.as_slice().first().filter(|next| next.is_ascii_digit());
        let Some(number) = number.filter(|_| matches!(byte, b'$' | b'#')) else {
            out.push(*byte);
            continue;
        };
        rest.next();
        let place = match usize::from(number - b'0') {
            place @ 0..=4 => Some(place),
            place => before.len().checked_sub(10 - place),
        };
        let content = place.and_then(|place| before.get(place)).map_or(&[][..], |(_, bytes)| bytes);
        out.extend(match byte {
            b'$' => Digest::of(content).to_string().into_bytes(),
            _ => content.len().to_string().into_bytes(),
        });
    }
    out
}

/// A document with some bytes of it changed.
fn document(input: &mut Input<'_>) -> Vec<u8> {
    let mut text = DOCUMENTS[usize::from(input.u8()) % DOCUMENTS.len()].as_bytes().to_vec();
    for _ in 0..input.u8() % 4 {
        let at = usize::from(input.u16()) % text.len();
        let count = usize::from(input.u8() % 16).min(text.len() - at);
        let new = usize::from(input.u8() % 16);
        text.splice(at..at + count, input.take(new).iter().copied());
        if text.is_empty() {
            break;
        }
    }
    text
}

fn member(input: &mut Input<'_>, before: &[Member]) -> Member {
    let kind = input.u8();
    let content = match kind % 4 {
        0 | 1 => filled(&document(input), before),
        2 => {
            let how = [Stored::Plain, Stored::Gzip, Stored::Zstd][usize::from(input.u8() % 3)];
            let count = usize::from(input.u8());
            stored(tar_builder::build(&mut Input::new(input.take(count))), how)
        }
        _ => {
            let count = usize::from(input.u16() % 2000);
            filled(input.take(count), before)
        }
    };
    let name = match input.u8() {
        choice @ 0..=127 => NAMES[usize::from(choice) % NAMES.len()].to_owned(),
        128..=239 => format!("blobs/sha256/{}", Digest::of(&content).hex()),
        _ => {
            let count = usize::from(input.u8() % 40);
            String::from_utf8_lossy(input.take(count)).into_owned()
        }
    };
    (name, content)
}

fn options(folder: &Path) -> SourceOptions {
    let limits = Limits { max_uncompressed_bytes: 64 << 20, ..Limits::default() };
    SourceOptions { limits, ..SourceOptions::new(folder) }
}

/// Brings an image in, whole or not at all.
fn bring_in(image: &Image) -> Option<Tree> {
    let tree = Tree::new();
    for layer in &image.layers {
        tree.apply(layer).map_err(|error| is_refusal(&error)).ok()?;
    }
    Some(tree)
}

/// An image that was brought in, written as an archive and brought in again is the same.
fn write_and_read(image: &Image, tree: &Tree, options: &SourceOptions) {
    let Some(tar) = tree.tar() else { return };
    let mut writer = OciArchiveWriter::new(&options.temporary_folder, Compression::None);
    let added = writer.add_layer(|out| {
        out.write_all(&tar).map_err(|error| thinstore_storage::Error::io("cannot write", error))
    });
    let diff_id = added.expect("a layer can be written");
    // Of no object no configuration can be made.
    let Ok((archive, written)) = writer.finish(&image.config, Some("again:1"), Vec::new()) else {
        return;
    };
    with_file(&archive, |path| {
        let source = ImageSource::open(path, options).expect("an archive of ours can be opened");
        assert_eq!(source.kind(), SourceKind::OciArchive);
        assert_eq!(source.image_names(), ["again:1"]);
        // Made for another platform, it is not found among those for this one.
        let Ok(again) = source.image(None, options) else { return };
        assert_eq!(again.config_digest, written.config_digest);
        assert_eq!(again.diff_ids(), std::slice::from_ref(&diff_id));
        if let Some(same) = bring_in(&again) {
            assert_eq!(
                tree.manifest(),
                same.manifest(),
                "an image written and read is another one"
            );
        }
    });
}

fn look(path: &Path, options: &SourceOptions) -> Option<(Image, Tree)> {
    let source = ImageSource::open(path, options).map_err(|error| is_refusal(&error)).ok()?;
    let names = source.image_names();
    let mut last = None;
    let asked = names.iter().take(MOST_IMAGES).map(|name| Some(name.as_str()));
    for name in [None, Some("web")].into_iter().chain(asked) {
        match source.image(name, options) {
            Ok(image) => {
                assert_eq!(image.config_digest, Digest::of(&image.config));
                assert_eq!(image.chain_ids().len(), image.layers.len());
                last = bring_in(&image).map(|tree| (image, tree)).or(last);
            }
            Err(error) => is_refusal(&error),
        }
    }
    last
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let form = input.u8();
    let mut members: Vec<Member> = Vec::new();
    while members.len() < MOST_MEMBERS && !input.is_empty() {
        let next = member(&mut input, &members);
        members.push(next);
    }
    let options = options(&std::env::temp_dir());
    let how = [Stored::Plain, Stored::Plain, Stored::Gzip, Stored::Zstd][usize::from(form % 4)];
    let mut tar: Vec<u8> =
        members.iter().flat_map(|(name, content)| tar_builder::member(name, content)).collect();
    tar.extend([0; 1024]);
    if let Some((image, tree)) = with_file(&stored(tar, how), |path| look(path, &options)) {
        write_and_read(&image, &tree, &options);
    }
}

/// An input of whole members: content by number of a document, or the entries of a tar; and names.
fn seed(form: u8, members: &[(u8, u8)]) -> Vec<u8> {
    let mut seed = vec![form];
    for (what, name) in members {
        match what {
            // A layer with one file.
            200 => {
                seed.extend([2, form % 3, 16, 0, 0, 0, 5, b'h', b'i', 3, 3, 3, 3, 0, 3, 3, 3, 3, 3])
            }
            document => seed.extend([0, *document, 0]),
        }
        seed.push(*name);
    }
    seed
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![]];
    for form in 0..4 {
        // A layer, its configuration, the manifest, the index, the mark.
        seeds.push(seed(form, &[(200, 130), (3, 130), (2, 130), (1, 1), (0, 0)]));
        seeds.push(seed(form, &[(200, 4), (3, 3), (4, 2)]));
        seeds.push(seed(form, &[(200, 130), (6, 130), (7, 130), (5, 130), (1, 1), (0, 0)]));
        seeds.push(seed(
            form,
            &[(200, 130), (3, 130), (2, 130), (5, 130), (5, 130), (1, 1), (0, 0)],
        ));
        seeds.push(seed(form, &[(8, 1), (0, 0)]));
        seeds.push(seed(form, &[(10, 1), (0, 0)]));
        seeds.push(seed(form, &[(9, 1), (11, 0)]));
    }
    seeds
}
