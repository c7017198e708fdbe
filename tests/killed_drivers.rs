//! Commands of drivers beside the thin one that are killed, at moments spread over what they do: the next command
//! takes down and removes what was left, no file system stays frozen, and what was written stays written.
//! `THINSTORE_KILLED_COMMANDS=1000` for more moments, `THINSTORE_TEST_DRIVERS=qcow2` for chosen drivers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use thinstore_tests::drivers::chosen_drivers;
use thinstore_tests::layout::rich_image;
use thinstore_tests::{Identity, Layout, TempStore, host};

/// The commands of a life, by what they begin with.
const LIFE: [&str; 8] = ["import", "snapshot", "diff", "mount", "commit", "umount", "rm", "rmi"];

/// Longer than any command takes.
const LIMIT: Duration = Duration::from_secs(120);

struct Life<'a> {
    store: &'a TempStore,
    driver: &'a str,
    source: String,
    point: String,
}

impl Life<'_> {
    fn words<'a>(&'a self, command: &'a str) -> Vec<&'a str> {
        let rest: &[&str] = match command {
            "import" => &["import", &self.source, "--name", "image"],
            "snapshot" => &["snapshot", "image", "web"],
            "mount" => &["mount", "web", &self.point],
            "commit" => &["commit", "web", "changed"],
            "rmi" => &["rmi", "changed", "image"],
            one => &[one, "web"],
        };
        [&["--driver", self.driver][..], rest].concat()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        self.store.ok(&[&["--driver", self.driver][..], words].concat()).stdout_text()
    }

    /// What is called how in a listing.
    fn names(&self, listing: &str) -> BTreeSet<String> {
        let rows = self.store.rows(&["--driver", self.driver, listing]);
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }

    fn is_mounted(&self) -> bool {
        host::mount_at(Path::new(&self.point)).is_some()
    }

    fn write(&self, name: &str) {
        let file = fs::File::create(Path::new(&self.point).join(name)).unwrap();
        std::io::Write::write_all(&mut &file, &vec![7; 100_000]).unwrap();
        file.sync_all().unwrap();
    }

    #[track_caller]
    fn assert_written(&self, name: &str) {
        assert_eq!(
            self.store.ok(&["--driver", self.driver, "cat", "web", name]).stdout,
            vec![7; 100_000]
        );
    }

    /// Everything up to a command; then it, killed after a while. Says if it had ended by itself.
    fn kill(&self, victim: &str, after: Duration) -> bool {
        for command in LIFE.iter().take_while(|command| **command != victim) {
            self.store.ok(&self.words(command));
            if *command == "mount" {
                self.write("before");
            }
        }
        let mut child = self.store.command(&self.words(victim)).spawn().unwrap();
        std::thread::sleep(after);
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        ended
    }

    /// What has to hold then; in the end there is nothing.
    fn clean_up(&self) {
        let containers = self.names("ls");
        if containers.contains("web") {
            if !self.is_mounted() {
                self.ok(&["mount", "web", &self.point]);
            }
            // it would wait for ever in a file system that stayed frozen
            self.write("after");
            let has_before = Path::new(&self.point).join("before").exists();
            self.ok(&["umount", "web"]);
            self.assert_written("after");
            if has_before {
                self.assert_written("before");
            }
            if self.names("images").contains("changed:latest") {
                // what was committed is older than what was written last
                let listed = self.ok(&["diff", "changed", "web"]);
                assert!(listed.lines().any(|line| line == "A /after"), "{listed}");
            }
            self.ok(&["rm", "web"]);
        }
        for image in self.names("images") {
            self.ok(&["rmi", &image]);
        }
        if !self.names("layers").is_empty() {
            // layers that no image has got any more go with the next that goes
            self.store.run(&self.words("import")).assert_success();
            self.ok(&["rmi", "image"]);
        }
        assert!(self.names("layers").is_empty());
        self.ok(&["check"]);
    }

    /// The files that the driver has of its own.
    fn files(&self) -> BTreeSet<String> {
        let folder = self.store.root().join(self.driver);
        let mut files = BTreeSet::new();
        let mut unseen = vec![folder];
        while let Some(folder) = unseen.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                files.insert(entry.path().display().to_string());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    unseen.push(entry.path());
                }
            }
        }
        files
    }
}

#[test]
#[ignore = "needs root: mounts what every driver has; needs the programs of all drivers"]
fn the_next_command_removes_what_killed_ones_of_any_driver_have_left() {
    let kills =
        std::env::var("THINSTORE_KILLED_COMMANDS").map_or(4, |count| count.parse().unwrap());
    let store = TempStore::with_size(Identity::Current, "64M");
    let source = store.path("source");
    Layout::write(Path::new(&source), &rich_image());
    for driver in chosen_drivers() {
        let point = store.new_folder(&format!("at-{driver}"));
        let life = Life { store: &store, driver: &driver, source: source.clone(), point };
        let mut spans = Vec::new();
        for command in LIFE {
            let started = Instant::now();
            store.ok(&life.words(command));
            spans.push(started.elapsed());
        }
        life.clean_up();
        let files = life.files();
        let mut cut = 0;
        for (command, span) in LIFE.into_iter().zip(spans) {
            for moment in 0..kills {
                let ended = life.kill(command, span * moment / kills);
                cut += usize::from(!ended);
                life.clean_up();
            }
        }
        println!("{driver}: {cut} of {} commands were killed before they ended", kills * 8);
        assert!(cut > 0, "{driver}");
        // Who only looks removes nothing; and what a killed command was just starting may hold its locks for a moment.
        let same = host::wait_until(LIMIT, || {
            store.refused(&[3], &["--driver", &driver, "rm", "nobody"], &["nobody"]);
            life.files() == files
        });
        let left: Vec<_> = life.files().difference(&files).cloned().collect();
        assert!(same, "{driver} has left {left:#?}");
    }
    store.finish();
}
