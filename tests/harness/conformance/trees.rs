//! Layers over each other: what a container sees of them.

use std::fs;
use std::io;

use super::bench::first_difference;
use super::{Bench, Seen};

/// The image with something of everything shows the same tree as with the thin driver, times and all.
pub fn same_tree(bench: &Bench) -> Seen {
    bench.import_rich("image");
    let tree = bench.tree_of_image("image");
    let source = bench.source(&crate::layout::rich_image(), "image");
    let measure = bench.thin_tree(&source);
    bench.note_tree(&tree);
    let lines = measure.differences(&tree);
    if !lines.is_empty() {
        return Err(lines.join("\n"));
    }
    assert_eq!(measure.hash(), tree.hash());
    Ok(())
}

/// Commits on commits: each shows what those below it do.
pub fn nested_layers(bench: &Bench) -> Seen {
    bench.import_rich("level0");
    for level in 1..=3_u32 {
        let (below, name) = (format!("level{}", level - 1), format!("level{level}"));
        let container = format!("web{level}");
        bench.ok(&["snapshot", &below, &container]);
        let expected = bench.with_mounted(&container, |root| {
            fs::write(root.join(format!("etc/of-{level}")), "here").expect("write");
            fs::write(root.join("etc/kept"), format!("{level}")).expect("write");
            crate::Tree::read(root).with_shown_names()
        });
        bench.ok(&["commit", &container, &name]);
        first_difference(&expected, &bench.tree_of_image(&name))?;
    }
    let tree = bench.tree_of_image("level3");
    for path in ["etc/of-1", "etc/of-2", "etc/of-3", "bin/su", "away-and-back/new"] {
        assert!(tree.get(path).is_some(), "{path} is missing");
    }
    // one in the middle goes; what stands on it stays
    bench.ok(&["rm", "web1", "web2", "web3"]);
    bench.ok(&["rmi", "level1"]);
    first_difference(&tree, &bench.tree_of_image("level3"))
}

/// What is removed is gone, is gone in what is committed, and can be there again.
pub fn whiteouts(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        fs::remove_file(root.join("bin/su"))?;
        fs::remove_file(root.join("to-etc"))?;
        fs::remove_file(root.join("pipe"))?;
        fs::remove_file(root.join("links/second"))?;
        fs::remove_dir_all(root.join("etc"))?;
        fs::remove_dir_all(root.join("away-and-back"))?;
        // removed and there again, as something else
        fs::remove_file(root.join("folder-to-file"))?;
        fs::create_dir(root.join("folder-to-file"))?;
        fs::write(root.join("folder-to-file/again"), "again")?;
        fs::remove_dir_all(root.join("file-to-folder"))?;
        fs::write(root.join("file-to-folder"), "a file")
    })?;
    // in a container of that, what is gone comes back as something new
    bench.ok(&["snapshot", "changed", "next"]);
    bench
        .with_mounted("next", |root| -> io::Result<()> {
            fs::write(root.join("bin/su"), "new")?;
            fs::remove_file(root.join("bin/ping"))?;
            fs::create_dir(root.join("etc"))
        })
        .map_err(|error| error.to_string())?;
    bench.ok(&["commit", "next", "again"]);
    let tree = bench.tree_of_image("again");
    assert_eq!(tree.get("bin/su").expect("there again").mode & 0o7000, 0, "the old one is back");
    assert!(tree.get("bin/ping").is_none(), "it is there again");
    let below: Vec<&str> = ["etc/kept", "etc/emptied", "away-and-back"]
        .into_iter()
        .filter(|path| tree.get(path).is_some())
        .collect();
    assert!(below.is_empty(), "there again: {below:?}");
    Ok(())
}

/// A folder that was removed and made anew has nothing of the old one, in all layers above.
pub fn opaque_folders(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        for name in ["etc", "links"] {
            fs::remove_dir_all(root.join(name))?;
            fs::create_dir(root.join(name))?;
        }
        fs::create_dir(root.join("etc/emptied"))?;
        fs::write(root.join("links/new"), "new")
    })?;
    bench.ok(&["snapshot", "changed", "next"]);
    bench
        .with_mounted("next", |root| fs::write(root.join("etc/emptied/later"), "later"))
        .map_err(|error| error.to_string())?;
    bench.ok(&["commit", "next", "again"]);
    let tree = bench.tree_of_image("again");
    for gone in ["etc/kept", "etc/emptied/new", "links/first"] {
        assert!(tree.get(gone).is_none(), "{gone} is there again");
    }
    assert!(tree.get("etc/emptied/later").is_some() && tree.get("links/new").is_some());
    Ok(())
}
