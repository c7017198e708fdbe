//! Commits of containers that are written meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Bench, Seen};

/// What was written before is in the image, what is written after is not, and the container goes on.
pub fn live_commit(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    let root = bench.mount("web", &[]);
    // not synced, and open
    let open = File::create(root.join("etc/open")).expect("make");
    open.write_all_at(b"before", 0).expect("write");
    fs::remove_file(root.join("etc/kept")).expect("remove");
    bench.ok(&["commit", "web", "live"]);
    open.write_all_at(b"after!", 0).expect("write");
    fs::write(root.join("etc/later"), "later").expect("write");
    bench.ok(&["snapshot", "live", "look"]);
    bench.with_mounted("look", |root| {
        assert_eq!(fs::read(root.join("etc/open")).expect("read"), b"before");
        assert!(!root.join("etc/later").exists() && !root.join("etc/kept").exists());
    });
    assert_eq!(fs::read(root.join("etc/open")).expect("read"), b"after!");
    drop(open);
    bench.ok(&["umount", "web"]);
    assert!(bench.tree("web").get("etc/later").is_some());
    Ok(())
}

/// A writer counts in two files, one after the other: in what is committed, too, one is ahead by at most one.
pub fn one_moment(bench: &Bench) -> Seen {
    bench.import_rich("image");
    bench.ok(&["snapshot", "image", "web"]);
    let root = bench.mount("web", &[]);
    // what is copied file by file comes to the first one long before it comes to the last
    for number in 0..40 {
        fs::write(root.join(format!("m{number}")), vec![7; 200_000]).expect("write");
    }
    let made = |name: &str| File::create(root.join(name)).expect("make");
    let (first, last) = (made("a"), made("z"));
    let over = AtomicBool::new(false);
    let mut seen = Ok(());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = 0_u64;
            while !over.load(Ordering::Relaxed) {
                count += 1;
                last.write_all_at(&count.to_le_bytes(), 0).expect("write");
                first.write_all_at(&count.to_le_bytes(), 0).expect("write");
            }
        });
        for number in 0..3 {
            let outcome = bench.run(&["commit", "web", &format!("moment{number}")]);
            if !outcome.status.success() {
                seen = Err(outcome.stderr_text());
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    drop((first, last));
    seen?;
    bench.ok(&["umount", "web"]);
    for number in 0..3 {
        bench.ok(&["snapshot", &format!("moment{number}"), "look"]);
        let (first, last) = bench.with_mounted("look", |root| {
            let count = |name: &str| {
                let bytes = fs::read(root.join(name)).expect("read");
                u64::from_le_bytes(bytes.try_into().unwrap_or_default())
            };
            (count("a"), count("z"))
        });
        bench.ok(&["rm", "look"]);
        if last != first && last != first + 1 {
            return Err(format!("the first says {first}, the last {last}"));
        }
    }
    Ok(())
}
