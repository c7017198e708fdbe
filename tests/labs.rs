//! What people learn of container storage, tried out: what lasts and what does not, who shares what, and
//! where it is. Each function is a lesson; docs/lessons.md walks through the same ones.
//!
//! Each is tried on the driver thin, or the one that `THINSTORE_DRIVER` names, and on overlay2:
//!
//!     cargo test --test labs -- --include-ignored                     # as root
//!     THINSTORE_DRIVER=btrfs cargo test --test labs -- --include-ignored chosen
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thinstore_tests::{Identity, Outcome, TempStore, Tree, host, images};

/// Makes each lesson a test on each of two drivers.
macro_rules! lessons {
    ($($name:ident,)*) => {
        mod with_the_chosen_driver {
            $(
                #[test]
                #[ignore = "needs root: runs containers"]
                fn $name() {
                    let chosen = std::env::var("THINSTORE_DRIVER");
                    super::Lab::give(chosen.as_deref().unwrap_or("thin"), super::$name);
                }
            )*
        }

        mod with_overlay2 {
            $(
                #[test]
                #[ignore = "needs root: runs containers"]
                fn $name() {
                    super::Lab::give("overlay2", super::$name);
                }
            )*
        }
    };
}

lessons! {
    what_a_container_writes_lasts_until_it_is_removed,
    the_merged_folder_is_found_by_inspect_and_listed_from_the_host,
    a_volume_outlives_the_container_that_wrote_it,
    a_bind_mount_shows_each_side_the_other_s_changes_at_once,
    a_tmpfs_is_in_memory_and_empty_after_a_stop,
    ten_containers_of_an_image_store_its_layers_once,
    changing_a_file_of_the_image_copies_it_and_leaves_the_image_as_it_is,
    two_containers_share_a_volume_at_once,
    layers_are_read_only,
    what_a_killed_command_leaves_is_cleaned_up_by_the_next,
    a_process_is_run_as_the_image_and_the_command_line_say,
}

/// A place to learn in: a store with a small image, `web`, which is a shell, some files, and a page that it
/// serves.
struct Lab {
    store: TempStore,
    driver: String,
}

impl Lab {
    fn give(driver: &str, lesson: fn(&Lab)) {
        let store = TempStore::without_init(Identity::Current);
        store.ok(&["init", "--size", "2G", "--device-size", "256M"]);
        let lab = Lab { store, driver: driver.to_owned() };
        lab.ok(&["import", images::busybox().to_str().unwrap(), "--name", "plain"]);
        lab.ok(&["snapshot", "plain", "build"]);
        let page = lab.store.path("page");
        fs::write(&page, "welcome\n").unwrap();
        lab.ok(&["cp", &page, "build:/home/page"]);
        lab.ok(&["commit", "build", "web"]);
        lab.ok(&["rm", "build"]);
        lesson(&lab);
        for row in lab.rows("ls") {
            lab.ok(&["rm", "--force", row["name"].as_str().unwrap()]);
        }
        lab.ok(&["check"]);
        lab.store.finish();
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.store.run(&[&["--driver", &self.driver], arguments].concat())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).assert_success().stdout_text()
    }

    fn refused(&self, codes: &[i32], arguments: &[&str], names: &[&str]) {
        self.store.refused(codes, &[&["--driver", &self.driver], arguments].concat(), names);
    }

    fn rows(&self, listing: &str) -> Vec<serde_json::Value> {
        self.store.rows(&["--driver", &self.driver, listing])
    }

    /// A container that does nothing, in the background.
    fn start(&self, name: &str, options: &[&str]) {
        let command = ["--", "sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"];
        self.ok(&[&["run", "web", "--name", name, "-d"], options, &command].concat());
    }

    /// What a shell in a running container prints.
    fn shell(&self, name: &str, command: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-c", command])
    }

    fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, name]).trim().to_owned()
    }

    /// What everything of the driver's takes on the disk.
    fn stored_bytes(&self) -> u64 {
        if self.driver == "thin" {
            return self.store.pool_used_bytes();
        }
        let usage = self.store.json(&["--driver", &self.driver, "df"]);
        usage["data_bytes"].as_u64().expect("a count of bytes")
    }
}

/// (a) A container's own layer goes through stop and start; removing it drops it, and the next container of the
/// image gets a new one.
fn what_a_container_writes_lasts_until_it_is_removed(lab: &Lab) {
    lab.start("web1", &[]);
    lab.shell("web1", "echo mine > /home/mine");
    lab.ok(&["stop", "web1"]);
    assert_eq!(lab.ok(&["ps", "-q"]), "");
    lab.ok(&["start", "web1"]);
    assert_eq!(lab.shell("web1", "cat /home/mine"), "mine\n", "lost by stopping");
    lab.refused(&[4], &["rm", "web1"], &["'web1'", "running"]);
    lab.ok(&["rm", "--force", "web1"]);
    lab.start("web1", &[]);
    let seen = lab.shell("web1", "ls /home");
    assert_eq!(seen, "page\nuser\n", "a new container has the old one's file");
}

/// (b) What a container sees is a folder of the host while it runs, and `inspect` says which.
fn the_merged_folder_is_found_by_inspect_and_listed_from_the_host(lab: &Lab) {
    lab.start("web1", &[]);
    let merged = PathBuf::from(lab.inspect("web1", "{{ .GraphDriver.Data.MergedDir }}"));
    let names: Vec<String> = fs::read_dir(&merged)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["bin", "etc", "home"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    assert_eq!(fs::read_to_string(merged.join("home/page")).unwrap(), "welcome\n");
    lab.shell("web1", "echo new > /home/new");
    assert_eq!(fs::read_to_string(merged.join("home/new")).unwrap(), "new\n");
    let status = lab.inspect("web1", "{{.State.Status}} {{.State.Running}}");
    assert_eq!(status, "running true");
    assert_eq!(lab.inspect("web1", "{{ .GraphDriver.Name }}"), lab.driver);
    lab.ok(&["stop", "web1"]);
    assert!(!merged.join("home").exists(), "it is still mounted");
}

/// (c) A named volume is the host's: what web2 wrote is read by web3 after web2 is gone.
fn a_volume_outlives_the_container_that_wrote_it(lab: &Lab) {
    lab.start("web2", &["-v", "pages:/srv"]);
    lab.shell("web2", "echo kept > /srv/page");
    lab.ok(&["rm", "--force", "web2"]);
    lab.start("web3", &["-v", "pages:/srv"]);
    assert_eq!(lab.shell("web3", "cat /srv/page"), "kept\n");
    let mounts = lab.inspect("web3", "{{ json .Mounts }}");
    assert!(
        mounts.contains("\"Type\":\"volume\"") && mounts.contains("\"Name\":\"pages\""),
        "{mounts}"
    );
    lab.refused(&[4], &["volume", "rm", "pages"], &["'web3'"]);
    // A container that was stopped can be started again, so it still needs its volume.
    lab.ok(&["stop", "web3"]);
    lab.refused(&[4], &["volume", "rm", "pages"], &["'pages'", "'web3'", "remove that first"]);
    lab.ok(&["volume", "prune", "--all", "--force"]);
    lab.ok(&["start", "web3"]);
    assert_eq!(lab.shell("web3", "cat /srv/page"), "kept\n");
    lab.ok(&["rm", "--force", "web3"]);
    lab.ok(&["volume", "rm", "pages"]);
}

/// (d) A folder of the host in a container: each side sees at once what the other writes.
fn a_bind_mount_shows_each_side_the_other_s_changes_at_once(lab: &Lab) {
    let folder = lab.store.new_folder("site");
    lab.start("web1", &["-v", &format!("{folder}:/srv")]);
    fs::write(Path::new(&folder).join("page"), "of the host\n").unwrap();
    assert_eq!(lab.shell("web1", "cat /srv/page"), "of the host\n");
    lab.shell("web1", "echo of the container > /srv/page");
    assert_eq!(fs::read_to_string(Path::new(&folder).join("page")).unwrap(), "of the container\n");
    lab.start("web2", &["-v", &format!("{folder}:/srv:ro")]);
    let denied = lab.run(&["exec", "web2", "--", "sh", "-c", "echo no > /srv/page"]);
    assert!(denied.assert_code(&[1]).stderr_text().contains("Read-only"));
    let missing = lab.store.path("missing");
    let mount = format!("type=bind,source={missing},target=/srv");
    let run = ["run", "web", "--name", "web3", "--mount", &mount, "--", "true"];
    lab.refused(&[3], &run, &["missing", "make it first"]);
}

/// (e) A tmpfs is in memory, belongs to one container, and is empty after a stop.
fn a_tmpfs_is_in_memory_and_empty_after_a_stop(lab: &Lab) {
    lab.start("web1", &["--tmpfs", "/run:size=1m,mode=1777"]);
    lab.start("web2", &["--tmpfs", "/run"]);
    lab.shell("web1", "echo secret > /run/secret");
    assert!(lab.shell("web1", "mount").contains("tmpfs on /run"));
    assert_eq!(lab.shell("web2", "ls /run"), "", "another container's tmpfs is seen");
    let fill = "dd if=/dev/zero of=/run/big bs=1024 count=2000";
    let full = lab.run(&["exec", "web1", "--", "sh", "-c", fill]);
    assert!(full.assert_code(&[1]).stderr_text().contains("No space left"));
    lab.ok(&["stop", "web1"]);
    lab.ok(&["start", "web1"]);
    assert_eq!(lab.shell("web1", "ls /run"), "");
}

/// (f) What ten containers of an image share is stored once: each adds a fraction of the image.
fn ten_containers_of_an_image_store_its_layers_once(lab: &Lab) {
    let layers = lab.rows("layers").len();
    let before = lab.stored_bytes();
    for number in 0..10 {
        lab.start(&format!("web{number}"), &[]);
    }
    assert_eq!(lab.ok(&["ps", "-q"]).lines().count(), 10);
    for number in 0..10 {
        lab.ok(&["stop", &format!("web{number}")]);
    }
    assert_eq!(lab.rows("layers").len(), layers);
    let each = (lab.stored_bytes() - before) / 10;
    let image = lab.rows("images")[0]["size_bytes"].as_u64().unwrap();
    assert!(each < image / 4, "each takes {each} bytes, the image {image}");
}

/// (g) Copy-on-write: the change is the container's, `diff` shows it, and the image is as it was.
fn changing_a_file_of_the_image_copies_it_and_leaves_the_image_as_it_is(lab: &Lab) {
    lab.start("web1", &[]);
    lab.shell("web1", "echo changed > /home/page; echo new > /home/new; rm /etc/motd; sync");
    lab.ok(&["stop", "web1"]);
    let changes = lab.ok(&["diff", "web1"]);
    for line in ["C /home/page", "A /home/new", "D /etc/motd"] {
        assert!(changes.lines().any(|found| found == line), "no {line} in\n{changes}");
    }
    assert_eq!(lab.ok(&["cat", "web", "/home/page"]), "welcome\n");
    assert_eq!(lab.ok(&["cat", "web1", "/home/page"]), "changed\n");
    lab.start("web2", &[]);
    assert_eq!(lab.shell("web2", "cat /home/page"), "welcome\n");
    if lab.driver == "overlay2" {
        // The copy, the new file and the deletion can be looked at: they are the upper folder.
        let upper = PathBuf::from(lab.inspect("web1", "{{ .GraphDriver.Data.UpperDir }}"));
        assert_eq!(fs::read_to_string(upper.join("home/page")).unwrap(), "changed\n");
        let deletion = fs::symlink_metadata(upper.join("etc/motd")).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&deletion.file_type()));
    }
}

/// (h) One volume in two containers at once: each sees what the other wrote.
fn two_containers_share_a_volume_at_once(lab: &Lab) {
    lab.start("web3", &["-v", "pages:/srv"]);
    lab.start("web4", &["--mount", "type=volume,source=pages,target=/data"]);
    lab.shell("web3", "echo from web3 > /srv/page");
    assert_eq!(lab.shell("web4", "cat /data/page"), "from web3\n");
    lab.shell("web4", "echo and web4 >> /data/page");
    assert_eq!(lab.shell("web3", "cat /srv/page"), "from web3\nand web4\n");
    lab.refused(&[4], &["volume", "rm", "pages"], &["pages"]);
    lab.ok(&["rm", "--force", "web3", "web4"]);
    lab.ok(&["volume", "rm", "pages"]);
}

/// (i) Layers are read-only: nothing writes to them, and whatever containers do, they stay what they were.
fn layers_are_read_only(lab: &Lab) {
    let layers = lab.rows("layers");
    // Where layers are folders of the host, they can be read there.
    let data = lab.inspect("web", "{{ json .GraphDriver.Data }}");
    let data: serde_json::Value = serde_json::from_str(&data).unwrap();
    let lower = data["LowerDir"].as_str().unwrap_or_default();
    let folders = lower.split(':').filter(|path| Path::new(path).is_dir());
    let folders: Vec<(String, String)> =
        folders.map(|path| (path.to_owned(), Tree::read(Path::new(path)).hash())).collect();
    assert!(lab.driver != "overlay2" || !folders.is_empty());
    lab.start("web1", &[]);
    lab.shell("web1", "rm -rf /home /etc/motd; chown -R 7:7 /bin; echo x > /x; sync");
    lab.ok(&["stop", "web1"]);
    assert_eq!(lab.rows("layers"), layers);
    for (path, hash) in folders {
        assert_eq!(Tree::read(Path::new(&path)).hash(), hash, "{path}");
    }
    let top = layers.last().unwrap()["name"].as_str().unwrap().to_owned();
    let file = lab.store.path("file");
    fs::write(&file, "no").unwrap();
    lab.refused(&[2, 3], &["cp", &file, &format!("{top}:/home/page")], &["container"]);
    let point = lab.store.new_folder("point");
    lab.refused(&[2, 3], &["mount", &top, &point], &["container"]);
    assert_eq!(lab.ok(&["cat", "web", "/home/page"]), "welcome\n");
}

/// The process that watches over a container is killed: the next command cleans up, and nothing is lost.
fn what_a_killed_command_leaves_is_cleaned_up_by_the_next(lab: &Lab) {
    lab.start("web1", &[]);
    lab.shell("web1", "echo mine > /home/mine; sync");
    let pid: i32 = lab.inspect("web1", "{{.State.Pid}}").parse().unwrap();
    // Whoever watches over the container dies; its process goes on, until somebody looks.
    let watcher = host::processes_of(lab.store.folder())
        .into_iter()
        .find(|(_, line)| line.contains("--supervise"))
        .expect("nobody watches over the container");
    host::kill(watcher.0);
    assert_eq!(lab.ok(&["ps", "-q"]), "");
    assert!(host::wait_until(Duration::from_secs(10), || !host::is_alive(pid)), "{pid} lives");
    let state = lab.inspect("web1", "{{.State.Status}} {{.State.ExitCode}}");
    assert_eq!(state, "exited 137");
    lab.ok(&["start", "web1"]);
    assert_eq!(lab.shell("web1", "cat /home/mine"), "mine\n");
}

/// What a process is given: variables, a name, a user, a folder, a root that it cannot write to.
fn a_process_is_run_as_the_image_and_the_command_line_say(lab: &Lab) {
    let run = |options: &[&str], command: &[&str]| {
        lab.run(&[&["run", "web", "--rm"], options, &["--"], command].concat())
    };
    let printed = |options: &[&str], command: &str| {
        run(options, &["sh", "-c", command]).assert_success().stdout_text()
    };
    assert_eq!(printed(&["-e", "A=b c", "--name", "n"], "echo $A; hostname"), "b c\nn\n");
    assert_eq!(printed(&["-u", "1234:55", "-w", "/tmp"], "id -u; id -g; pwd"), "1234\n55\n/tmp\n");
    run(&[], &["sh", "-c", "exit 9"]).assert_code(&[9]);
    run(&[], &["/none"]).assert_code(&[127]);
    run(&["-u", "nobody-of-that-name"], &["true"]).assert_code(&[3]);
    let read_only = run(&["--read-only"], &["sh", "-c", "echo x > /x"]).assert_code(&[1]);
    assert!(read_only.stderr_text().contains("Read-only"));
    lab.refused(&[3], &["run", "none", "--", "true"], &["none"]);
    lab.refused(&[2], &["run", "web", "-v", "a:b", "--", "true"], &["not absolute"]);
    lab.refused(&[2], &["run", "web", "-v", "a:/", "--", "true"], &["root"]);
    assert_eq!(lab.rows("ls"), Vec::<serde_json::Value>::new(), "something is left");
    assert_eq!(lab.ok(&["ps", "--all", "-q"]), "");
}
