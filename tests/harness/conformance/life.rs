//! Containers come and go.

use std::fs;

use super::{Bench, Seen};
use crate::host;

/// Names are given once, what is used stays, and what is removed is gone.
pub fn create_and_remove(bench: &Bench) -> Seen {
    bench.import_rich("image");
    let source = bench.source(&crate::layout::rich_image(), "image");
    bench.refused(&[1, 2, 3, 4], &["import", &source, "--name", "image"], &["image"]);
    bench.ok(&["import", &source, "--name", "same"]);
    let layers = bench.names("layers");
    assert_eq!(layers.len(), 3, "one image's layers are there twice: {layers:?}");
    bench.ok(&["snapshot", "image", "web1"]);
    bench.ok(&["snapshot", "image", "web2"]);
    bench.ok(&["snapshot", "web1", "copy"]);
    bench.refused(&[1, 2, 3, 4], &["snapshot", "image", "web1"], &["web1"]);
    bench.refused(&[3], &["snapshot", "nothing", "web3"], &["nothing"]);
    bench.refused(&[4], &["rmi", "image"], &["image", "copy"]);
    bench.refused(&[3], &["rm", "nothing"], &["nothing"]);
    assert_eq!(bench.names("ls"), ["copy", "web1", "web2"]);
    bench.ok(&["rm", "web1", "copy", "web2"]);
    bench.ok(&["rmi", "image"]);
    assert_eq!(bench.names("layers"), layers, "the other image needs them");
    bench.ok(&["rmi", "same"]);
    bench.assert_empty();
    Ok(())
}

/// A container is mounted once, keeps what was written, and stays while it is mounted.
pub fn mount(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    bench.ok(&["snapshot", "image", "other"]);
    let root = bench.mount("web", &[]);
    let point = root.to_str().expect("UTF-8").to_owned();
    fs::write(root.join("etc/mine"), "mine").expect("write");
    let row = bench.rows("ls").into_iter().find(|row| row["name"] == "web").expect("web");
    assert_eq!(
        (row["state"].as_str(), row["mount_point"].as_str()),
        (Some("mounted"), Some(&*point))
    );
    // the same again is no mistake; elsewhere, and another one here, are
    bench.ok(&["mount", "web", &point]);
    let elsewhere = bench.store.new_folder("elsewhere");
    bench.refused(&[4], &["mount", "web", &elsewhere], &["web", "umount"]);
    bench.refused(&[2, 4], &["mount", "other", &point], &["web"]);
    bench.refused(&[4], &["rm", "web"], &["web", "umount"]);
    bench.ok(&["umount", "web"]);
    assert!(host::mount_at(&root).is_none(), "it is still mounted");
    let root = bench.mount("web", &["--read-only"]);
    assert_eq!(fs::read(root.join("etc/mine")).expect("read"), b"mine");
    let refused = fs::write(root.join("etc/more"), "more").expect_err("read-only");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    bench.ok(&["umount", "web"]);
    let other = bench.tree("other");
    assert!(other.get("etc/mine").is_none(), "another container has the file");
    Ok(())
}
