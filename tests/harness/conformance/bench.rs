//! A store to try a driver in.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::command::{Outcome, run_within};
use crate::layout::rich_image;
use crate::program::Identity;
use crate::{Layout, LayoutImage, TempStore, Tree, host, run_tool};

/// What `thinstore drivers` says of each.
#[track_caller]
pub fn listed_drivers() -> Vec<Value> {
    let place = TempStore::without_init(Identity::Current);
    place.rows(&["drivers"])
}

/// A store, and the driver that is tried in it.
pub struct Bench {
    /// The store.
    pub store: TempStore,
    /// The driver.
    pub driver: String,
    tree_hash: RefCell<String>,
    /// What the pool held when nothing was in it.
    empty_bytes: u64,
    /// Where the file system that the driver has in a file is held open; none has one, or it is not.
    held_open: RefCell<Option<PathBuf>>,
}

impl Bench {
    /// An empty store.
    #[track_caller]
    pub fn new(driver: &str) -> Bench {
        let store = TempStore::without_init(Identity::Current);
        store.ok(&["init", "--size", "4G", "--device-size", "1G"]);
        let mut bench = Bench {
            store,
            driver: driver.to_owned(),
            tree_hash: RefCell::default(),
            empty_bytes: 0,
            held_open: RefCell::default(),
        };
        // the empty file system that is made for the first image stays
        bench.import_rich("first");
        bench.hold_open();
        bench.ok(&["rmi", "first"]);
        bench.empty_bytes = bench.store.pool_used_bytes();
        bench
    }

    /// A driver that has a file system in a file mounts it for each command, if nobody uses it: much work, which
    /// need not be part of every check. So somebody uses it, from outside.
    fn hold_open(&self) {
        self.ok(&["snapshot", "first", "first"]);
        self.mount("first", &[]);
        let folder = self.store.root().join(&self.driver);
        if host::mount_at(&folder).is_some() {
            let place = self.store.new_folder("held-open");
            run_tool("mount", &["--bind", folder.to_str().expect("UTF-8"), &place]);
            *self.held_open.borrow_mut() = Some(PathBuf::from(place));
        }
        self.ok(&["umount", "first"]);
        self.ok(&["rm", "first"]);
    }

    /// From here on every command has to mount it itself.
    pub fn let_go(&self) {
        if let Some(place) = self.held_open.take() {
            run_tool("umount", &[&place]);
            // the next command sees that nobody uses it
            self.ok(&["ls"]);
        }
    }

    /// What stands on the test's folder, but for what holds the driver's file system open.
    fn left(&self) -> Vec<String> {
        let mut left = host::left_below(self.store.folder());
        if let Some(place) = &*self.held_open.borrow() {
            let root = self.store.root();
            let file = root.join(format!("{}.img", self.driver));
            let folder = root.join(&self.driver);
            let is_held = |line: &String| {
                line.ends_with(&format!(" on {}", file.display()))
                    || [place, &folder]
                        .iter()
                        .any(|path| line.starts_with(&format!("mount {} ", path.display())))
            };
            left.retain(|line| !is_held(line));
        }
        left
    }

    /// The words of a command of the driver.
    pub fn words<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--driver", self.driver.as_str()], arguments].concat()
    }

    /// Runs a command of the driver, whatever comes of it.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.store.run(&self.words(arguments))
    }

    /// Runs one that must succeed; what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.store.ok(&self.words(arguments)).stdout_text()
    }

    /// Runs one that must be refused, in a sentence that has `names`.
    #[track_caller]
    pub fn refused(&self, codes: &[i32], arguments: &[&str], names: &[&str]) {
        self.store.refused(codes, &self.words(arguments), names);
    }

    /// The rows of a listing.
    #[track_caller]
    pub fn rows(&self, listing: &str) -> Vec<Value> {
        self.store.rows(&self.words(&[listing]))
    }

    /// The names in a listing.
    #[track_caller]
    pub fn names(&self, listing: &str) -> Vec<String> {
        let rows = self.rows(listing);
        rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// The tree of an image of that source with the thin driver, which the others are held against.
    #[track_caller]
    pub fn thin_tree(&self, source: &str) -> Tree {
        let store = &self.store;
        store.ok(&["import", source, "--name", "measure"]);
        store.ok(&["snapshot", "measure", "measure"]);
        let point = store.new_folder("at-measure");
        store.ok(&["mount", "measure", &point, "--read-only"]);
        let tree = Tree::read(Path::new(&point)).with_shown_names();
        store.ok(&["umount", "measure"]);
        store.ok(&["rm", "measure"]);
        store.ok(&["rmi", "measure"]);
        tree
    }

    /// Brings an image in.
    #[track_caller]
    pub fn import(&self, image: &LayoutImage, name: &str) {
        let source = self.source(image, name);
        self.ok(&["import", &source, "--name", name]);
    }

    /// An image's layout, which lies where it lay before if it was written before.
    pub fn source(&self, image: &LayoutImage, name: &str) -> String {
        let source = self.store.path(&format!("source-{name}"));
        if !Path::new(&source).exists() {
            Layout::write(Path::new(&source), image);
        }
        source
    }

    /// The image that has something of everything.
    #[track_caller]
    pub fn import_rich(&self, name: &str) {
        self.import(&rich_image(), name);
    }

    /// Mounts a container.
    #[track_caller]
    pub fn mount(&self, container: &str, options: &[&str]) -> PathBuf {
        let point = self.store.new_folder(&format!("at-{container}"));
        self.ok(&[&["mount", container, &point], options].concat());
        PathBuf::from(point)
    }

    /// Does something with a mounted container.
    #[track_caller]
    pub fn with_mounted<T>(&self, container: &str, action: impl FnOnce(&Path) -> T) -> T {
        let root = self.mount(container, &[]);
        let result = action(&root);
        self.ok(&["umount", container]);
        result
    }

    /// The tree of a container that is not mounted.
    #[track_caller]
    pub fn tree(&self, container: &str) -> Tree {
        let root = self.mount(container, &["--read-only"]);
        let tree = Tree::read(&root).with_shown_names();
        self.ok(&["umount", container]);
        tree
    }

    /// The tree that a container of an image begins with.
    #[track_caller]
    pub fn tree_of_image(&self, image: &str) -> Tree {
        self.ok(&["snapshot", image, "reader"]);
        let tree = self.tree("reader");
        self.ok(&["rm", "reader"]);
        tree
    }

    /// A plain folder with what a mounted container has now.
    pub fn plain_copy(&self, root: &Path) -> PathBuf {
        let copy = PathBuf::from(self.store.path("plain"));
        if copy.exists() {
            fs::remove_dir_all(&copy).expect("remove the last copy");
        }
        let (from, to) = (root.to_str().expect("UTF-8"), copy.to_str().expect("UTF-8"));
        run_tool("cp", &["-a", from, to]);
        copy
    }

    /// Does the same to a container of the rich image and to a plain folder; then both must be the same, but for
    /// times, and so must be a container of what was committed. What failed, or differs, first.
    #[track_caller]
    pub fn beside_a_plain_folder(
        &self,
        action: fn(&Path) -> std::io::Result<()>,
    ) -> Result<(), String> {
        self.import_rich("image");
        self.ok(&["snapshot", "image", "web"]);
        let expected = self.with_mounted("web", |root| {
            let plain = self.plain_copy(root);
            action(&plain).expect("a plain folder takes it");
            action(root).map_err(|error| error.to_string())?;
            let expected = Tree::read(&plain).with_shown_names();
            first_difference(&expected, &Tree::read(root).with_shown_names())?;
            Ok::<Tree, String>(expected)
        })?;
        self.ok(&["commit", "web", "changed"]);
        first_difference(&expected, &self.tree("web"))?;
        first_difference(&expected, &self.tree_of_image("changed"))
    }

    /// Notes the hash of the tree that all drivers are shown.
    pub fn note_tree(&self, tree: &Tree) {
        *self.tree_hash.borrow_mut() = tree.hash();
    }

    /// What was noted.
    pub fn tree_hash(&self) -> String {
        self.tree_hash.borrow().clone()
    }

    /// Takes everything away, after which nothing may be left.
    #[track_caller]
    pub fn clear(&self) {
        for row in self.rows("ls") {
            let name = row["name"].as_str().expect("a name");
            if row["mount_point"].is_string() {
                self.ok(&["umount", name]);
            }
            self.ok(&["rm", name]);
        }
        let images = self.names("images");
        if !images.is_empty() {
            let images = images.iter().map(String::as_str);
            self.ok(&["rmi"].into_iter().chain(images).collect::<Vec<&str>>());
        }
        self.assert_empty();
    }

    /// Nothing is called anything, the driver has no layer, and nothing is mounted.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.names("layers"), [""; 0], "layers are left");
        let checked = self.store.json(&self.words(&["check"]));
        assert_eq!(checked["clean"], true, "{checked}");
        if self.driver == "thin" {
            assert_eq!(self.store.pool_used_bytes(), self.empty_bytes, "space is lost");
        } else {
            assert_eq!(checked["layers"], 0, "the driver has layers that nobody knows: {checked}");
        }
        if self.driver == "thin" || self.store.daemon_pid().is_some() {
            self.store.ok(&["serve", "--stop"]);
        }
        let root = self.store.root();
        // what is made aside begins so, and places to look at something are in this folder
        let unfinished = |path: &Path| {
            let names = fs::read_dir(path).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| name.starts_with(".new-")).collect::<Vec<String>>()
        };
        assert_eq!(unfinished(&root), [""; 0], "left behind");
        if let Ok(places) = fs::read_dir(root.join("run/places")) {
            assert_eq!(places.count(), 0, "places are left");
        }
        let all_gone = host::wait_until(Duration::from_secs(5), || self.left().is_empty());
        assert!(all_gone, "left behind: {:#?}", self.left());
    }

    /// Takes down whatever a failed check has left, as far as that goes.
    pub fn clear_after_a_failure(&self) {
        for driver in [self.driver.as_str(), "thin"] {
            let command = |words: &[&str]| {
                let words = [&["--driver", driver], words].concat();
                let outcome = run_within(self.store.command(&words), crate::command::TIME_LIMIT);
                outcome.stdout_text().lines().map(str::to_owned).collect::<Vec<String>>()
            };
            for name in command(&["--quiet", "ls"]) {
                command(&["umount", &name]);
                command(&["rm", &name]);
            }
            for name in command(&["--quiet", "images"]) {
                command(&["rmi", &name]);
            }
        }
    }
}

/// What differs between two trees, but for times: the first few lines.
pub fn first_difference(expected: &Tree, found: &Tree) -> Result<(), String> {
    let expected = expected.clone().without_times();
    let lines = expected.differences(&found.clone().without_times());
    match lines.is_empty() {
        true => Ok(()),
        false => Err(lines.into_iter().take(5).collect::<Vec<String>>().join("\n")),
    }
}
