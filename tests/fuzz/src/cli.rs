//! Target `cli`: what people write as words of a command: sizes, names, paths, mounts, and the JSON
//! forms that the answers and requests of the same types have.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::names::{ContainerName, ImageName, VolumeName, digest_prefix};
use thinstore_store::size::{format_size, parse_size};
use thinstore_store::time::{ago, rfc3339};
use thinstore_store::types::{CatRequest, MountKind, MountSpecification};

use crate::input::Input;

/// What was refused, in words that a terminal can take.
fn is_usage(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "a terminal would obey: {text:?}");
}

fn good<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| is_usage(&error)).ok()
}

fn sizes(text: &str, bytes: u64) {
    if let Some(size) = good(parse_size(text)) {
        assert_eq!(parse_size(&size.to_string()).unwrap(), size);
        let (digits, _) = text.split_at(text.trim_end_matches(|c: char| !c.is_ascii_digit()).len());
        assert!(size >= digits.parse::<u64>().unwrap());
    }
    let shown = format_size(bytes);
    let (number, unit) = shown.split_once(' ').unwrap();
    let unit = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter().position(|at| *at == unit);
    let scale = 1024_f64.powi(i32::try_from(unit.unwrap()).unwrap());
    let back = number.parse::<f64>().unwrap() * scale;
    // Three digits of it are right.
    assert!(
        (back - bytes as f64).abs() <= bytes as f64 * 0.006 + 0.5,
        "{bytes} is shown as {shown}"
    );
}

fn names(text: &str) {
    if let Some(name) = good(ContainerName::parse(text)) {
        assert_eq!(name.to_string(), text);
        assert!(good(VolumeName::parse(text)).is_some());
    }
    if let Some(name) = good(ImageName::parse(text)) {
        assert_eq!(ImageName::parse(&name.to_string()).unwrap(), name);
        assert!(name.to_string().len() <= 255);
    }
    let made = ImageName::from_text(text);
    assert_eq!(ImageName::parse(&made.to_string()).unwrap(), made, "from {text:?}");
    if let Some(prefix) = digest_prefix(text) {
        assert!(prefix.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

fn is_sound(mount: &MountSpecification) {
    let to = &mount.destination;
    assert!(to.is_absolute() && to != Path::new("/"), "{mount:?}");
    assert!(to.components().all(|part| part != Component::ParentDir), "{mount:?}");
    if mount.kind == MountKind::Bind {
        assert!(Path::new(mount.source.as_ref().unwrap()).is_absolute(), "{mount:?}");
    }
    let json = serde_json::to_string(mount).unwrap();
    assert_eq!(&serde_json::from_str::<MountSpecification>(&json).unwrap(), mount);
}

fn mounts(text: &str) {
    let here = Path::new("/here");
    for mount in [
        good(MountSpecification::from_volume_option(text, here)),
        good(MountSpecification::from_tmpfs_option(text)),
        good(MountSpecification::from_mount_option(text, here)),
    ] {
        mount.iter().for_each(is_sound);
    }
}

fn paths(bytes: &[u8]) {
    let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let request = CatRequest { name: "web".to_owned(), path };
    let json = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<CatRequest>(&json).unwrap(), request);
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (number, then) = (input.u64(), input.u64());
    let rest = input.rest();
    let text = String::from_utf8_lossy(rest);
    sizes(&text, number);
    names(&text);
    mounts(&text);
    paths(rest);
    let when = rfc3339(number.cast_signed());
    assert_eq!(when.len(), 30, "{when}");
    ago(number.cast_signed(), then.cast_signed());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "0",
        "512",
        "4K",
        "20m",
        "10G",
        "1T",
        "15E",
        "16E",
        "18446744073709551615",
        "web",
        "web-1.x_y",
        "registry.example:5000/team/app:v1.2",
        "localhost/app",
        "debian",
        "UPPER",
        "a__b",
        "a--b:t",
        "sha256:0123456789abcdef",
        "thin:0123",
        "data:/var/lib/data",
        "data:/d:ro",
        "./here:/there:rw,z",
        "/tmp:size=64m,mode=1777",
        "/run",
        "type=bind,source=/a,target=/b,readonly",
        "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700",
        "source=v,target=/v",
        "hex:00",
        "/\u{e4}/x",
        "type=volume,src=v,dst=/../v",
    ];
    texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let mut seed = (1_u64 << (number * 2)).to_le_bytes().to_vec();
            seed.extend((number as u64).to_le_bytes());
            seed.extend(text.as_bytes());
            seed
        })
        .collect()
}
