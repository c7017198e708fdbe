//! Containers see nothing of each other, and other users nothing of a store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore, host, run_tool};

const MIB: u64 = 1 << 20;

fn small_image(store: &TempStore, name: &str) {
    let tar = store.path("image.tar");
    TarWriter::new().file("file", b"content\n").write_to(Path::new(&tar));
    store.give_to_user(Path::new(&tar));
    store.ok(&["import", &tar, "--name", name]);
}

/// Does the device hold these bytes anywhere? All of it is read.
fn holds(device: &Path, pattern: &[u8]) -> bool {
    let mut bytes = Vec::new();
    File::open(device).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.windows(pattern.len()).any(|window| window == pattern)
}

#[test]
#[ignore = "needs root: attaches containers"]
fn a_new_container_shows_nothing_of_another_on_its_whole_device() {
    const SECRET: &[u8; 16] = b"the secret of 1!";
    let store = TempStore::without_init(Identity::Current);
    // As large as two devices: blocks are used again.
    store.ok(&["init", "--size", "96M", "--device-size", "48M", "--allocation-run", "1M"]);
    small_image(&store, "image");
    for (round, unaligned) in [0, 100, 700].into_iter().enumerate() {
        store.ok(&["snapshot", "image", "one"]);
        let device = store.attach("one");
        let file = File::options().write(true).open(&device).unwrap();
        file.write_all_at(&SECRET.repeat(2 << 20), unaligned).unwrap();
        file.sync_all().unwrap();
        drop(file);
        run_tool("blkdiscard", &["-o", "4M", "-l", "8M", device.to_str().unwrap()])
            .assert_success();
        assert!(holds(&device, SECRET));
        if round == 0 {
            // The daemon dies with all of it; its block device goes with it.
            host::kill(store.daemon_pid().unwrap());
        } else {
            store.ok(&["detach", "one"]);
        }
        store.ok(&["rm", "one"]);
        store.ok(&["snapshot", "image", "two", "--size", "64M"]);
        let device = store.attach("two");
        assert!(!holds(&device, SECRET), "round {round}");
        // Parts of blocks all over: what is round them must be its own.
        let file = File::options().write(true).open(&device).unwrap();
        for at in (0..44 * MIB).step_by(256 << 10) {
            file.write_all_at(b"mine", at + 1000).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        assert!(!holds(&device, SECRET), "round {round}, after writing");
        store.ok(&["detach", "two"]);
        store.ok(&["rm", "two"]);
    }
    store.finish();
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
#[ignore = "needs root: another user tries to get in"]
fn a_store_is_its_owners_alone_whatever_the_modes_were() {
    let store = TempStore::without_init(Identity::Current);
    fs::set_permissions(store.root(), Permissions::from_mode(0o777)).unwrap();
    // With no umask at all: nothing relies on it.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    store.ok(&["init", "--size", "256M", "--device-size", "64M"]);
    small_image(&store, "image");
    store.ok(&["snapshot", "image", "web"]);
    let service = store.start(&["serve"]);
    assert!(host::wait_until(Duration::from_secs(30), || store.daemon_pid().is_some()));
    let point = store.new_folder("web");
    store.ok(&["mount", "web", &point]);
    rustix::process::umask(umask);
    assert_eq!(mode_of(&store.root()), 0o700);
    for (name, mode) in [("pool", 0o600), ("daemon.sock", 0o600), ("run", 0o700)] {
        assert_eq!(mode_of(&store.root().join(name)), mode, "{name}");
    }
    for name in ["daemon.json", "run/mounts", "run/devices"] {
        let path = store.root().join(name);
        assert_eq!(mode_of(&path) & 0o077, 0, "{name}: {:o}", mode_of(&path));
    }
    // Even if somebody opens the doors, the daemon looks at who comes in.
    fs::set_permissions(store.root(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(store.root().join("daemon.sock"), Permissions::from_mode(0o666)).unwrap();
    for arguments in [&["ls"][..], &["rm", "web"], &["df"], &["serve", "--stop"]] {
        let command = store.command_as(Identity::Unprivileged, arguments);
        let outcome = thinstore_tests::command::run_within(command, Duration::from_secs(60));
        // 'serve --stop' may find no daemon that answers; nobody finds anything out.
        assert!(!outcome.stdout_text().contains("web"), "{outcome}");
        assert!(arguments[0] == "serve" || outcome.code() != 0, "{outcome}");
    }
    assert_eq!(store.names("ls"), ["web"]);
    store.ok(&["umount", "web"]);
    store.ok(&["serve", "--stop"]);
    let log = service.wait(Duration::from_secs(30)).stderr_text();
    assert!(log.contains("another user was refused"), "{log}");
    store.finish();
}

/// Names that mean something to a shell, a path, an option parser or a terminal.
const HOSTILE_NAMES: [&str; 14] = [
    "../x",
    "..",
    "/etc/passwd",
    "a/../../b",
    "-rf",
    "--help",
    "a\nb",
    "a\rb",
    "a\x1b[2Jb",
    "$(id)",
    "`id`",
    "a;id",
    "a b",
    "",
];

#[test]
fn hostile_names_are_refused_and_shown_escaped() {
    let store = TempStore::with_size(Identity::Unprivileged, "256M");
    small_image(&store, "image");
    store.ok(&["snapshot", "image", "web"]);
    let before = store.contents();
    for name in HOSTILE_NAMES {
        let commands = [
            vec!["snapshot", "image", "--", name],
            vec!["commit", "web", "--", name],
            vec!["snapshot", "--", name, "new"],
            vec!["rm", "--", name],
            vec!["rmi", "--", name],
            vec!["inspect", "--", name],
        ];
        for words in &commands {
            // The last but one takes its name before another: all come after '--'.
            let outcome = store.run(words);
            assert_ne!(outcome.code(), 0, "{name:?}: {outcome}");
            let said = outcome.stderr_text();
            assert!(
                said.chars().all(|one| !one.is_control() || one == '\n'),
                "{name:?} is shown as it is: {said:?}"
            );
            assert_eq!(said.trim_end().lines().count(), 1, "{name:?}: {said:?}");
        }
    }
    assert_eq!(store.contents(), before);
    store.finish();
}

#[test]
fn what_an_image_says_of_itself_does_not_reach_the_terminal_as_it_is() {
    let store = TempStore::with_size(Identity::Unprivileged, "256M");
    let source = store.path("source");
    let escape = "\x1b]0;owned\x07\x1b[2J";
    let tar = TarWriter::new()
        .directory("etc")
        .file(&format!("etc/{escape}"), b"x\n")
        .file("etc/a\nb", b"x\n")
        .finish();
    Layout::write(Path::new(&source), &LayoutImage::new().layer(tar));
    // The name that the image gives itself is an annotation in its index.
    let index = Path::new(&source).join("index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["manifests"][0]["annotations"] = serde_json::json!({
        "org.opencontainers.image.ref.name": format!("evil{escape}"),
    });
    fs::write(&index, value.to_string()).unwrap();
    let safe = |text: &str| text.chars().all(|one| !one.is_control() || one == '\n');
    let outcome = store.run(&["import", &source]);
    let said = outcome.stderr_text() + &outcome.stdout_text();
    assert!(safe(&said), "{said:?}");
    store.ok(&["import", &source, "--name", "image"]);
    store.ok(&["snapshot", "image", "web"]);
    let changed = store.path("changed");
    File::create(&changed).unwrap().write_all(b"y\n").unwrap();
    store.ok(&["cp", &changed, &format!("web:/etc/{escape}2")]);
    for arguments in
        [&["images"][..], &["layers"], &["tree"], &["ls"], &["diff", "web"], &["df", "-v"]]
    {
        let shown = store.ok(arguments).stdout_text();
        assert!(safe(&shown), "{arguments:?}: {shown:?}");
    }
    let missing = format!("web:/{escape}");
    let said = store.run(&["cp", &missing, "."]).stderr_text();
    assert!(safe(&said), "{said:?}");
    let said = store.run(&["cat", "web", escape]).stderr_text();
    assert!(safe(&said), "{said:?}");
    store.finish();
}
