//! What a program does with files of the image: renaming, hard links, open files.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::{Bench, Seen};

/// Files of the image get other names, in their folder and in others, and over files that are there.
pub fn rename_file(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        let rename = |from: &str, to: &str| fs::rename(root.join(from), root.join(to));
        rename("bin/su", "bin/su.old")?;
        rename("bin/ping", "etc/ping")?;
        rename("etc/deleted", "etc/kept")?;
        rename("to-etc", "bin/link")?;
        rename("pipe", "links/pipe")?;
        rename("away-and-back/new", "new")?;
        rename("new", "away-and-back/new")?;
        fs::write(root.join("bin/su"), "another one")
    })
}

/// A folder of the image gets another name.
pub fn rename_folder(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        fs::rename(root.join("etc"), root.join("bin/etc"))?;
        fs::rename(root.join("bin"), root.join("sbin"))?;
        fs::write(root.join("sbin/etc/new"), "new")
    })
}

/// What is written to one name of a file is read by the others, of which one is new.
pub fn hard_links(bench: &Bench) -> Seen {
    bench.beside_a_plain_folder(|root| {
        fs::hard_link(root.join("links/first"), root.join("links/new"))?;
        fs::write(root.join("links/second"), "changed")
    })
}

/// A file that is open for reading shows what is written to it, the first change too.
pub fn open_file(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    let read = bench.with_mounted("web", |root| {
        let mut reader = File::open(root.join("etc/kept")).expect("open");
        let writer = File::options().write(true).open(root.join("etc/kept")).expect("open");
        writer.write_all_at(b"KEPT", 0).expect("write");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        text
    });
    match read.as_str() {
        "KEPT" => Ok(()),
        old => Err(format!("it shows '{old}'")),
    }
}
