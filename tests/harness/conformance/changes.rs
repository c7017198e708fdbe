//! What a container has changed: listed, taken out as a layer, and applied again.

use std::fs;
use std::path::Path;

use super::{Bench, Seen};

fn change(root: &Path) {
    fs::write(root.join("etc/added"), "added").expect("write");
    fs::remove_file(root.join("etc/kept")).expect("remove");
    fs::remove_dir_all(root.join("etc/emptied")).expect("remove");
    fs::write(root.join("bin/ping"), "changed").expect("write");
    fs::remove_file(root.join("folder-to-file")).expect("remove");
    fs::create_dir(root.join("folder-to-file")).expect("make");
    fs::hard_link(root.join("links/first"), root.join("links/fourth")).expect("link");
    // what is only looked at, or written as it was, is no change
    fs::read(root.join("bin/su")).expect("read");
}

/// What `diff` says of a container, and of an image beside another one.
pub fn listed_changes(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    assert_eq!(bench.ok(&["diff", "web"]), "");
    bench.with_mounted("web", change);
    bench.ok(&["commit", "web", "changed"]);
    let expected = "C /bin\nC /bin/ping\nC /etc\nA /etc/added\nD /etc/emptied\nD /etc/kept\n\
                    C /folder-to-file\nC /links\nA /links/fourth\n";
    let of = |arguments: &[&str]| {
        let text = bench.ok(&[&["diff"], arguments].concat());
        // of a file with several names the others may be listed as well: their count has changed
        let names = ["C /links/first", "C /links/second", "C /links/third"];
        let lines = text.lines().filter(|line| !names.contains(line));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    for arguments in [&["web"][..], &["changed"], &["image", "changed"], &["image", "web"]] {
        let found = of(arguments);
        if found != expected {
            return Err(format!("diff {arguments:?} says\n{found}"));
        }
    }
    assert_eq!(bench.ok(&["diff", "web", "changed"]), "");
    Ok(())
}

/// The changes, exported as a layer and imported again, on the same driver and on the thin one, make the same
/// tree.
pub fn diff_and_apply(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    bench.with_mounted("web", change);
    let expected = bench.tree("web");
    let archive = bench.store.path("changed.oci");
    bench.ok(&["export", "web", "--oci", "-o", &archive]);
    bench.ok(&["import", &archive, "--name", "back"]);
    let found = bench.tree_of_image("back");
    let thin = bench.thin_tree(&archive);
    fs::remove_file(&archive).expect("remove the archive");
    let lines = expected.differences(&found).into_iter().chain(found.differences(&thin));
    match lines.take(5).collect::<Vec<String>>() {
        none if none.is_empty() => Ok(()),
        lines => Err(lines.join("\n")),
    }
}
