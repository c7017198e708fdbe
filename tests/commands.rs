//! Every command: its help, its refusals, its human form and its JSON form.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use thinstore_tests::command::{TIME_LIMIT, run_within};
use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore, images, run_tool};

/// Every command that this version has.
const COMMANDS: &[&str] = &[
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
    "run",
    "start",
    "stop",
    "exec",
    "ps",
    "logs",
    "volume",
    "rm",
    "rmi",
    "inspect",
    "df",
    "check",
    "scrub",
    "trace",
    "drivers",
    "bench",
    "grow",
    "serve",
    "demo",
    "completions",
];

/// A store with an image `image` of two layers and a container `box` in which a file was changed.
fn small_store() -> TempStore {
    let store = TempStore::with_size(Identity::Unprivileged, "4G");
    let source = store.path("source");
    let lower = TarWriter::new().directory("etc").file("etc/file", b"content\n").finish();
    let upper =
        TarWriter::new().file("etc/second", b"second\n").symlink("link", "etc/file").finish();
    Layout::write(Path::new(&source), &LayoutImage::new().layer(lower).layer(upper));
    store.ok(&["import", &source, "--name", "image"]);
    store.ok(&["snapshot", "image", "box"]);
    let changed = store.path("changed");
    fs::write(&changed, "changed\n").unwrap();
    store.ok(&["cp", &changed, "box:/etc/file"]);
    store
}

fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text '{field}' in {value}"))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number '{field}' in {value}"))
}

// --- help, version and bad options ---------------------------------------------------------------

#[test]
fn help_and_version_need_no_store() {
    let store = TempStore::without_init(Identity::Unprivileged);
    let help = store.ok(&["--help"]).stdout_text();
    for command in COMMANDS {
        assert!(help.contains(command), "--help does not tell of '{command}'");
    }
    let version = store.ok(&["--version"]).stdout_text();
    assert_eq!(version.trim(), format!("thinstore {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
}

#[test]
fn every_command_answers_help_and_refuses_an_unknown_option() {
    let store = TempStore::without_init(Identity::Unprivileged);
    for command in COMMANDS {
        let outcome = store.ok(&[command, "--help"]);
        let help = outcome.stdout_text();
        assert!(help.contains("Usage:") && help.contains(command), "{outcome}");
        assert!(outcome.stderr.is_empty(), "{outcome}");
        let outcome = store.run(&[command, "--no-such-option"]).assert_code(&[2]);
        assert!(outcome.stderr_text().contains("--no-such-option"), "{outcome}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
}

#[test]
fn wrong_use_of_the_command_line_exits_with_2() {
    let store = TempStore::without_init(Identity::Unprivileged);
    let uses: [&[&str]; 9] = [
        &[],
        &["no-such-command"],
        &["--format", "xml", "ls"],
        &["snapshot", "only-one"],
        &["mount", "box"],
        &["commit", "box"],
        &["cat", "box"],
        &["rm"],
        &["ls", "surplus"],
    ];
    for arguments in uses {
        let outcome = store.run(arguments).assert_code(&[2]);
        assert!(!outcome.stderr.is_empty(), "{outcome}");
    }
}

#[test]
fn completions_are_scripts_that_their_shells_accept() {
    let store = TempStore::without_init(Identity::Unprivileged);
    for shell in ["bash", "zsh", "fish"] {
        let script = store.ok(&["completions", shell]).stdout_text();
        assert!(script.contains("snapshot"), "{shell}");
        if shell == "bash" {
            let path = store.path("completions");
            fs::write(&path, script).unwrap();
            run_tool("bash", &["-n", path.as_str()]);
        }
    }
    store.run(&["completions", "no-such-shell"]).assert_code(&[2]);
}

// --- files that are not what they should be ------------------------------------------------------

#[test]
fn missing_unreadable_and_misplaced_files_are_named() {
    let store = small_store();
    let unreadable = store.path("unreadable");
    fs::write(&unreadable, "x").unwrap();
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let absent = store.path("absent");
    let below_file = format!("{}/below", store.path("changed"));
    let folder = store.new_folder("folder");
    let before = store.contents();
    let cases: [(&[i32], &[&str], &str); 9] = [
        (&[1, 3], &["import", &absent, "--name", "n"], &absent),
        (&[1], &["import", &unreadable, "--name", "n"], &unreadable),
        (&[1, 3], &["cp", &absent, "box:/etc/x"], &absent),
        (&[1], &["cp", &unreadable, "box:/etc/x"], &unreadable),
        (&[1, 3], &["cp", "box:/etc/file", &below_file], &below_file),
        (&[1, 2, 3, 4], &["export", "box", "-o", &folder], &folder),
        (&[1, 2, 3], &["cat", "box", "/etc"], "/etc"),
        (&[1, 3], &["cat", "box", "/etc/file/below"], "/etc/file/below"),
        (&[1, 2, 3], &["cp", &absent, "nowhere"], "nowhere"),
    ];
    for (codes, arguments, name) in cases {
        // The last case may be refused for either path: neither is in a container.
        let names: &[&str] = if name == "nowhere" { &[] } else { &[name] };
        store.refused(codes, arguments, names);
    }
    assert_eq!(store.contents(), before);
    store.finish();
}

#[test]
fn a_root_that_is_a_file_or_cannot_be_entered_is_named() {
    let store = TempStore::without_init(Identity::Unprivileged);
    let file = store.path("a-file");
    fs::write(&file, "x").unwrap();
    let closed = store.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let mut roots = vec![file];
    if thinstore_tests::program::is_root() {
        // Root's own folder, seen by somebody else.
        roots.push(closed);
    }
    for root in roots {
        for command in ["init", "ls", "check", "df"] {
            let mut process = thinstore_tests::program::command_of(
                store.binary(),
                Identity::Unprivileged,
                &store.folder().join("home"),
            );
            process.args(["--root", &root, command]);
            let outcome = run_within(process, TIME_LIMIT).assert_code(&[1, 2, 3, 4]);
            outcome.assert_sentence(&[&root]);
        }
    }
}

#[test]
fn the_root_comes_from_the_environment_too() {
    let store = TempStore::without_init(Identity::Unprivileged);
    let home = store.folder().join("home");
    let run = |variable: &str, value: &Path, arguments: &[&str]| {
        let mut process =
            thinstore_tests::program::command_of(store.binary(), Identity::Unprivileged, &home);
        process.env(variable, value).args(arguments);
        run_within(process, TIME_LIMIT).assert_success()
    };
    run("THINSTORE_ROOT", &store.root(), &["init", "--size", "1G"]);
    assert!(store.pool().is_file());
    let data = store.new_folder("data");
    run("XDG_DATA_HOME", Path::new(&data), &["init", "--size", "1G"]);
    assert!(Path::new(&data).join("thinstore/pool").is_file());
}

// --- listings ------------------------------------------------------------------------------------

#[test]
fn listings_have_their_fields_in_the_json_form() {
    let store = small_store();
    let images = store.rows(&["images"]);
    assert_eq!(images.len(), 1);
    assert_eq!(string(&images[0], "name"), "image:latest");
    assert!(string(&images[0], "id").starts_with("sha256:"));
    assert_eq!(number(&images[0], "layers"), 2);
    assert!(number(&images[0], "size_bytes") > 0);

    let layers = store.rows(&["layers"]);
    assert_eq!(layers.len(), 2);
    for layer in &layers {
        assert!(string(layer, "name").starts_with("sha256:"));
        assert!(string(layer, "diff_id").starts_with("sha256:"));
        assert!(number(layer, "own_bytes") > 0);
    }

    let containers = store.rows(&["ls"]);
    assert_eq!(containers.len(), 1);
    assert_eq!(string(&containers[0], "name"), "box");
    assert_eq!(string(&containers[0], "image"), "image:latest");
    assert_eq!(string(&containers[0], "state"), "created");
    assert_eq!(number(&containers[0], "size_bytes"), 10 << 30);
    assert!(number(&containers[0], "own_bytes") > 0);
    assert_eq!(containers[0]["device"], Value::Null);
    assert_eq!(containers[0]["mount_point"], Value::Null);

    assert!(store.rows(&["tree"]).len() >= 3);
    store.finish();
}

#[test]
fn df_adds_up() {
    let store = small_store();
    let report = store.json(&["df", "--wait"]);
    let field = |name| number(&report, name);
    assert_eq!(field("pool_size_bytes"), 4 << 30);
    assert_eq!(field("pending_free_bytes"), 0);
    assert_eq!(field("data_bytes") + field("metadata_bytes"), field("pool_used_bytes"));
    assert!(field("reserved_bytes") > 0);
    for kind in ["images", "containers", "volumes"] {
        let objects = report[kind].as_array().unwrap_or_else(|| panic!("no '{kind}' in {report}"));
        for object in objects {
            assert!(!string(object, "name").is_empty());
            for bytes in ["own_bytes", "unique_bytes", "shared_bytes"] {
                number(object, bytes);
            }
        }
    }
    // What df says that removing gives back is what it gives back.
    let unique = number(&report["containers"][0], "unique_bytes");
    let before = field("pool_used_bytes");
    store.ok(&["rm", "box"]);
    // Its record goes as well; with the last of eight records, so does the page that held them.
    let freed = before - store.pool_used_bytes();
    assert!(freed == unique || freed == unique + 4096, "{freed} came back, not {unique}");
    store.finish();
}

#[test]
fn inspect_has_the_shape_that_docker_has() {
    let store = small_store();
    let value = store.json(&["inspect", "box"]);
    let object = if value.is_array() { value[0].clone() } else { value };
    assert!(!string(&object, "Id").is_empty());
    assert!(string(&object, "Created").contains('T'));
    assert!(!string(&object["GraphDriver"], "Name").is_empty());
    assert!(object["GraphDriver"]["Data"].is_object());
    assert_eq!(object["Mounts"], serde_json::json!([]));
    store.ok(&["inspect", "image"]);
    store.finish();
}

#[test]
fn tables_have_a_heading_and_aligned_columns() {
    let store = small_store();
    store.ok(&["snapshot", "image", "a-container-with-a-long-name"]);
    for (command, heading) in [
        ("images", "REPOSITORY TAG IMAGE ID CREATED LAYERS SIZE CONTAINERS"),
        ("ls", "NAME IMAGE STATE SIZE OWN CREATED DEVICE MOUNTED ON"),
        ("layers", "LAYER PARENT DEPTH OWN DEVICE CREATED IMAGES"),
    ] {
        let text = store.ok(&[command]).stdout_text();
        assert!(!text.contains('\u{1b}'), "colour where nobody sees it: {text}");
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(words.join(" "), heading, "{command}");
        assert!(lines.len() >= 2, "{text}");
        assert!(lines.iter().all(|line| line.trim_end() == *line), "spaces at the end: {text:?}");
    }
    // Every name begins in the same column.
    let text = store.ok(&["ls"]).stdout_text();
    let columns: Vec<usize> =
        text.lines().skip(1).map(|line| line.find("image").unwrap_or(usize::MAX)).collect();
    assert_eq!(columns.len(), 2, "{text}");
    assert!(text.contains("GiB") || text.contains("10G"), "no binary units: {text}");
    assert_eq!(store.ok(&["-q", "ls"]).stdout_text().lines().count(), 2);
    store.finish();
}

#[test]
fn an_empty_store_lists_nothing_and_is_clean() {
    let store = TempStore::with_size(Identity::Unprivileged, "1G");
    for command in ["images", "ls", "layers"] {
        assert_eq!(store.rows(&[command]), Vec::<Value>::new());
        store.ok(&[command]);
    }
    store.ok(&["tree"]);
    store.ok(&["df"]);
    assert_eq!(store.json(&["check"])["clean"], true);
    assert_eq!(store.json(&["scrub"])["clean"], true);
    store.finish();
}

#[test]
fn a_tree_is_drawn_to_a_file_and_to_standard_output() {
    let store = small_store();
    let folder = store.new_folder("drawn");
    let file = format!("{folder}/layers.svg");
    assert_eq!(store.ok(&["tree", "--svg", &file]).stdout_text(), "");
    let drawn = std::fs::read_to_string(&file).unwrap();
    assert_eq!(store.ok(&["tree", "--svg"]).stdout_text(), drawn);
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    for name in store.rows(&["ls"]).iter().chain(&store.rows(&["images"])) {
        let name = name["name"].as_str().unwrap();
        assert!(drawn.contains(&format!(">{name}<")), "no {name} in {drawn}");
    }
    assert_eq!(drawn.matches("<g ").count(), store.rows(&["tree"]).len());
    store.refused(&[3], &["tree", "--svg", &store.path("missing/layers.svg")], &["layers.svg"]);
    store.finish();
}

#[test]
fn listings_inspections_check_and_scrub_write_nothing() {
    let store = small_store();
    let commands: [&[&str]; 12] = [
        &["images"],
        &["ls"],
        &["layers"],
        &["tree"],
        &["df"],
        &["df", "-v"],
        &["check"],
        &["scrub"],
        &["inspect", "box"],
        &["diff", "box"],
        &["cat", "box", "/etc/file"],
        &["export", "box", "-o", "/dev/null"],
    ];
    for arguments in commands {
        let what = format!("'{}'", arguments.join(" "));
        thinstore_tests::pool_file::assert_unwritten_by(&store.pool(), &what, || {
            store.ok(arguments);
        });
    }
    store.finish();
}

// --- contents ------------------------------------------------------------------------------------

#[test]
fn diff_cat_and_cp_tell_what_changed() {
    let store = small_store();
    let mut lines: Vec<String> =
        store.ok(&["diff", "box"]).stdout_text().lines().map(str::to_owned).collect();
    lines.retain(|line| line != "C /etc");
    assert_eq!(lines, ["C /etc/file"]);
    let rows = store.rows(&["diff", "box"]);
    assert!(rows.iter().any(|row| row["kind"] == "C" && row["path"] == "/etc/file"), "{rows:?}");
    let ranges = store.rows(&["diff", "box", "--blocks"]);
    assert!(!ranges.is_empty());
    for range in &ranges {
        assert_eq!(number(range, "offset_bytes") % 4096, 0);
        assert!(number(range, "length_bytes") > 0);
    }
    // Two objects: what a container has against its image, told from the image's side.
    store.ok(&["diff", "image", "box"]);
    assert_eq!(store.ok(&["cat", "box", "/etc/file"]).stdout, b"changed\n");
    assert_eq!(store.ok(&["cat", "image", "/etc/file"]).stdout, b"content\n");
    // Through a symbolic link, as the container would see it.
    assert_eq!(store.ok(&["cat", "box", "/link"]).stdout, b"changed\n");

    let out = store.new_folder("out");
    store.ok(&["cp", "box:/etc", &out]);
    assert_eq!(fs::read_to_string(format!("{out}/etc/file")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(format!("{out}/etc/second")).unwrap(), "second\n");
    store.finish();
}

#[test]
fn a_folder_goes_in_and_comes_out_the_same() {
    let store = small_store();
    let folder = store.path("folder");
    fs::create_dir_all(format!("{folder}/a/b")).unwrap();
    fs::write(format!("{folder}/a/b/file"), vec![b'x'; 300_000]).unwrap();
    fs::write(format!("{folder}/empty"), "").unwrap();
    std::os::unix::fs::symlink("a/b/file", format!("{folder}/link")).unwrap();
    run_tool("chmod", &["-R", "a+rX", folder.as_str()]);
    store.ok(&["cp", &folder, "box:/opt"]);
    let out = store.new_folder("out");
    store.ok(&["cp", "box:/opt", &format!("{out}/opt")]);
    run_tool("diff", &["-r", "--no-dereference", folder.as_str(), &format!("{out}/opt")]);
    store.finish();
}

#[test]
fn export_to_standard_output_is_a_tar() {
    let store = small_store();
    let outcome = store.ok(&["export", "box"]);
    let path = store.path("box.tar");
    fs::write(&path, &outcome.stdout).unwrap();
    let listed = run_tool("tar", &["-tf", path.as_str()]).stdout_text();
    let names: Vec<&str> = listed.lines().map(|line| line.trim_start_matches("./")).collect();
    for name in ["etc/", "etc/file", "etc/second", "link"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("lost+found")));
    store.finish();
}

#[test]
fn removing_several_at_once_tells_which_could_not_be_removed() {
    let store = small_store();
    store.ok(&["snapshot", "image", "second"]);
    store.refused(&[3], &["rm", "box", "absent"], &["absent"]);
    let left = store.names("ls");
    // Either all or those before the one that failed; never one after it, silently.
    assert!(left == ["second"] || left == ["box", "second"], "{left:?}");
    store.finish();
}

#[test]
fn an_image_without_a_name_is_called_as_its_source_calls_it() {
    let store = TempStore::with_size(Identity::Unprivileged, "4G");
    let source = images::copy_for_everyone(&images::busybox_docker_archive(), store.folder());
    store.ok(&["import", source.to_str().unwrap()]);
    assert_eq!(store.names("images"), ["busybox:latest"]);
    store.finish();
}
