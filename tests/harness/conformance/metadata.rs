//! Owners, attributes and times.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::Command;

use super::{Bench, Seen};

fn tool(program: &str, arguments: &[&str], path: &Path) -> std::io::Result<()> {
    let output = Command::new(program).args(arguments).arg(path).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Everything below a folder, folders after what is in them.
fn all_below(folder: &Path, action: &dyn Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all_below(&entry.path(), action)?;
        }
        action(&entry.path())?;
    }
    Ok(())
}

/// `chown -R`, as many an image's first command does.
pub fn chown_of_a_tree(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        all_below(root, &|path| lchown(path, Some(1000), Some(70_000)))?;
        lchown(root, Some(3), Some(4))
    })
}

/// Attributes of all kinds, on files and folders of the image and on new ones; changed and removed.
pub fn attributes(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        let set = |name: &str, value: &str, path: &str| {
            tool("setfattr", &["-h", "-n", name, "-v", value], &root.join(path))
        };
        fs::write(root.join("new"), "new")?;
        for path in ["new", "etc/kept", "links", "bin/su"] {
            set("user.text", "text", path)?;
            set("user.binary", "0x00ff0a0d00", path)?;
            set("trusted.mine", "mine", path)?;
            set("security.mine", "mine", path)?;
        }
        set("trusted.of.link", "yes", "to-etc")?;
        set("user.long", &"x".repeat(2000), "etc/deleted")?;
        tool("setfattr", &["-x", "user.note"], &root.join("etc"))?;
        tool("setfattr", &["-x", "security.capability"], &root.join("bin/ping"))?;
        tool("setfacl", &["-m", "u:1234:rw,g:55:r"], &root.join("etc/kept"))?;
        tool("setfacl", &["-d", "-m", "u:1234:rwx"], &root.join("links"))?;
        // of the folder's default
        fs::write(root.join("links/inherits"), "it")
    })
}

/// What a container does not touch keeps its times, also beside and below what it does, and so does a commit of it.
pub fn times(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    let before = bench.tree("web");
    bench.with_mounted("web", |root| {
        fs::write(root.join("etc/emptied/new"), "changed").expect("write");
        fs::write(root.join("bin/added"), "added").expect("write");
    });
    let after = bench.tree("web");
    bench.ok(&["commit", "web", "changed"]);
    let touched = ["etc/emptied/new", "bin/added", "bin"];
    let rest = |mut tree: crate::Tree| {
        for path in touched {
            // what is below it is looked at
            tree = tree.without_entry(path);
        }
        tree
    };
    let differences = rest(before).differences(&rest(after.clone()));
    let committed = after.differences(&bench.tree_of_image("changed"));
    match differences.into_iter().chain(committed).next() {
        None => Ok(()),
        Some(line) => Err(line),
    }
}
