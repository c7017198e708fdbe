//! What bad use gets: a clear sentence, the right exit code, and nothing changed.
#![allow(missing_docs)]
// a test that cannot go on ends here
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{PROGRAM, Place, finish};

#[test]
fn help_and_version_are_answered_by_every_command() {
    let commands = [
        "init",
        "import",
        "images",
        "layers",
        "tree",
        "snapshot",
        "ls",
        "mount",
        "umount",
        "attach",
        "detach",
        "commit",
        "diff",
        "cat",
        "cp",
        "export",
        "rm",
        "rmi",
        "inspect",
        "df",
        "check",
        "repair",
        "scrub",
        "trace",
        "drivers",
        "bench",
        "run",
        "start",
        "stop",
        "exec",
        "ps",
        "logs",
        "volume",
        "serve",
        "demo",
        "completions",
    ];
    for command in commands {
        for option in ["--help", "--version"] {
            let run = finish(Command::new(PROGRAM).args([command, option]));
            assert_eq!(run.code, 0, "{command} {option}: {run:?}");
            assert!(!run.stdout.is_empty());
        }
        let run = finish(Command::new(PROGRAM).args([command, "--no-such-option"]));
        assert_eq!(run.code, 2, "{command}: {run:?}");
    }
    assert_eq!(finish(Command::new(PROGRAM).arg("no-such-command")).code, 2);
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let place = Place::empty();
    for (arguments, code, name) in [
        (&["ls", "--format", "json"][..], 3, "not_found"),
        (&["--format=json", "snapshot", "only-one"], 2, "usage"),
        (&["--format", "json", "init", "--size", "0"], 2, "usage"),
    ] {
        let run = place.run(arguments);
        assert_eq!(run.code, code, "{run:?}");
        let error: serde_json::Value = serde_json::from_str(&run.stderr).expect("JSON");
        assert_eq!(error["error"]["code"], name);
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.len() > 10));
    }
}

#[test]
fn a_store_is_made_once_and_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::empty();
    place.run(["ls"]).fails(3, "there is no store at");
    place.run(["init", "--size", "1G", "--device-size", "64M"]).good();
    let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(place.root()), mode(place.root().join("pool"))), (0o700, 0o600));
    let before = place.state();
    place.run(["init", "--size", "1G"]).fails(4, "already");
    assert_eq!(place.state(), before);
}

#[test]
fn sizes_that_make_no_sense_make_nothing() {
    let place = Place::empty();
    for arguments in [
        &["init", "--size", "0"][..],
        &["init", "--size", "1000"],
        &["init", "--size", "4K"],
        &["init", "--size", "3000T"],
        &["init", "--size", "9E"],
        &["init", "--device-size", "0"],
        &["init", "--device-size", "4K"],
        &["init", "--device-size", "2P"],
        &["init", "--allocation-run", "0"],
        &["init", "--allocation-run", "2K"],
        &["init", "--allocation-run", "2M"],
        &["init", "--allocation-run", "12K"],
    ] {
        place.run(arguments).fails(2, "");
        assert!(!place.root().exists(), "{arguments:?}");
    }
    for arguments in [&["init", "--size", "-1"][..], &["init", "--size", "1X"]] {
        assert_eq!(place.run(arguments).code, 2);
        assert!(!place.root().exists(), "{arguments:?}");
    }
}

#[test]
fn a_folder_that_holds_other_things_is_left_alone() {
    let place = Place::empty();
    fs::create_dir(place.root()).expect("made");
    fs::write(place.root().join("precious"), "x").expect("written");
    place.run(["init"]).fails(2, "precious");
    assert_eq!(fs::read_dir(place.root()).expect("there").count(), 1);
    let file = place.write("file", b"x");
    let run = finish(Command::new(PROGRAM).arg("--root").arg(&file).arg("init"));
    run.fails(2, "not a folder");
}

#[test]
fn what_is_not_a_pool_is_told_so() {
    let place = Place::empty();
    fs::create_dir(place.root()).expect("made");
    let pool = place.root().join("pool");
    fs::write(&pool, vec![0x5a; 8 << 20]).expect("written");
    place.run(["ls"]).fails(1, "is not a thinstore pool");
    place.run(["check"]).fails(1, "is not a thinstore pool");
    fs::write(&pool, b"short").expect("written");
    place.run(["ls"]).fails(1, "pool");
    fs::remove_file(&pool).expect("removed");
    fs::create_dir(&pool).expect("made");
    place.run(["ls"]).fails(2, "pool");
}

#[test]
fn a_pool_that_is_cut_off_is_told_so_and_not_changed() {
    let place = Place::with_image();
    let pool = fs::OpenOptions::new().write(true).open(place.root().join("pool")).expect("open");
    pool.set_len(512 << 20).expect("cut");
    drop(pool);
    let before = fs::read(place.root().join("pool")).expect("read");
    place.run(["ls"]).fails(6, "cut off");
    place.run(["snapshot", "base", "c"]).fails(6, "cut off");
    assert_eq!(fs::read(place.root().join("pool")).expect("read"), before);
}

#[test]
fn a_second_owner_is_told_who_has_the_pool() {
    let place = Place::with_image();
    let held = thinstore_storage::FileOptions::new().open(place.root().join("pool")).expect("open");
    let process = format!("process {}", std::process::id());
    place.run(["snapshot", "base", "c"]).fails(4, &process);
    let run = place.run(["serve"]);
    assert_eq!(run.code, 4, "{run:?}");
    drop(held);
    place.run(["snapshot", "base", "c"]).good();
}

#[test]
fn names_follow_dockers_rules() {
    let place = Place::with_image();
    let before = place.state();
    let long = "x".repeat(256);
    for name in ["a/b", "", "-x", ".", "..", "a b", "a:b", "a\u{7}b", "ä", &long] {
        let run = place.run(["snapshot", "--", "base", name]);
        assert_eq!(run.code, 2, "{name:?}: {run:?}");
        assert!(!run.stderr.contains('\u{7}'));
    }
    place.run(["snapshot", "base", "a/b"]).fails(2, "contains '/'");
    let tree = place.make_tree();
    for name in ["Upper", "a b", "a//b", "x:", "", "a@sha256:00"] {
        let run = place.run(["import", tree.to_str().expect("UTF-8"), "--name", name]);
        assert_eq!(run.code, 2, "{name:?}: {run:?}");
    }
    assert_eq!(place.state(), before);
    place.run(["snapshot", "base", &"x".repeat(255)]).good();
}

#[test]
fn a_name_is_taken_only_once() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let before = place.state();
    let tree = place.make_tree();
    place.run(["import", tree.to_str().expect("UTF-8"), "--name", "base"]).fails(4, "already");
    place.run(["snapshot", "base", "c"]).fails(4, "already");
    place.run(["commit", "c", "base"]).fails(4, "already");
    assert_eq!(place.state(), before);
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::with_image();
    place.run(["snapshot", "nothing", "c"]).fails(3, "'nothing'");
    place.run(["cat", "nothing", "/x"]).fails(3, "'nothing'");
    place.run(["cat", "base", "/no/such"]).fails(3, "/no");
    place.run(["rm", "nothing"]).fails(3, "'nothing'");
    place.run(["rmi", "nothing"]).fails(3, "'nothing'");
    place.run(["inspect", "nothing"]).fails(3, "'nothing'");
    place.run(["commit", "nothing", "x"]).fails(3, "'nothing'");
    place.run(["umount", "nothing"]).fails(3, "'nothing'");
    place.run(["detach", "nothing"]).fails(3, "'nothing'");
    place.run(["diff", "nothing"]).fails(3, "'nothing'");
    place.run(["export", "nothing", "-o", "x"]).fails(3, "'nothing'");
    assert!(!place.path("x").exists());
    place.run(["import", "no-such-file"]).fails(3, "no-such-file");
    place.run(["import", "--", "-"]).fails(1, "");
}

#[test]
fn an_image_with_containers_stays() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let before = place.state();
    place.run(["rmi", "base"]).fails(4, "'c'");
    assert_eq!(place.state(), before);
    place.run(["rm", "c"]).good();
    place.run(["rmi", "base"]).good();
}

#[test]
fn of_several_removals_those_that_can_be_are_done() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "a"]).good();
    place.run(["snapshot", "base", "b"]).good();
    let run = place.run(["rm", "a", "nothing", "b"]).fails(3, "'nothing'");
    assert_eq!(run.text(), "a\nb\n");
    assert_eq!(place.json(["ls"]), serde_json::json!([]));
}

#[test]
fn a_device_cannot_be_smaller_than_its_file_system() {
    let place = Place::with_image();
    let before = place.state();
    for size in ["32M", "0", "1000", "2P"] {
        place.run(["snapshot", "base", "c", "--size", size]).fails(2, "device");
    }
    assert_eq!(place.state(), before);
    place.run(["snapshot", "base", "c", "--size", "128M"]).good();
    assert_eq!(place.json(["ls"])[0]["size_bytes"], 128 << 20);
}

#[test]
fn a_hostile_archive_leaves_nothing_behind() {
    let place = Place::with_image();
    let before = place.state();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    // a checked path cannot be set to this, its bytes can
    header.as_old_mut().name[..11].copy_from_slice(b"../../evil\0");
    header.set_cksum();
    archive.append(&header, &b"x"[..]).expect("appended");
    let file = place.write("evil.tar", &archive.into_inner().expect("a tar"));
    place.run(["import", file.to_str().expect("UTF-8")]).fails(1, "evil");
    let garbage = place.write("garbage", &[0x11; 4096]);
    place.run(["import", garbage.to_str().expect("UTF-8")]).fails(1, "garbage");
    assert_eq!(place.state(), before);
    place.assert_clean();
}

#[test]
fn a_pipe_that_nobody_reads_ends_quietly() {
    let place = Place::with_image();
    for arguments in [&["cat", "base", "/srv/data"][..], &["export", "base"], &["inspect", "base"]]
    {
        let mut child = place
            .command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ended");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    let place = Place::empty();
    for shell in ["bash", "zsh", "fish"] {
        let run = place.run(["completions", shell]).good();
        assert!(run.text().contains("thinstore"), "{shell}");
    }
    place.run(["man", "--output", "pages"]).good();
    let pages = fs::read_dir(place.path("pages")).expect("made").count();
    assert!(pages > 20, "{pages} pages");
}

#[test]
fn the_root_comes_from_the_environment_too() {
    let place = Place::with_image();
    let run =
        finish(Command::new(PROGRAM).env("THINSTORE_ROOT", place.root()).args(["images", "-q"]));
    assert_eq!(run.good().text(), "base:latest\n");
}
