//! The main job, without root and without a daemon, as far as that goes.
#![allow(missing_docs)]
// a test that cannot go on ends here
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{Place, exists};

fn text(place: &Place, name: &str, path: &str) -> String {
    place.run(["cat", name, path]).good().text()
}

#[test]
fn an_image_is_imported_and_listed() {
    let place = Place::with_image();
    let images = place.json(["images"]);
    assert_eq!(images[0]["name"], "base:latest");
    assert_eq!(images[0]["layers"], 1);
    assert!(images[0]["id"].as_str().expect("an id").starts_with("sha256:"));
    let layers = place.json(["layers"]);
    assert_eq!(layers[0]["name"], images[0]["top_layer"]);
    assert_eq!(layers[0]["images"], serde_json::json!(["base:latest"]));
    let tree = place.json(["tree"]);
    assert_eq!(tree[0]["kind"], "template");
    assert_eq!(
        (&tree[1]["kind"], &tree[1]["parent_layer_id"]),
        (&"layer".into(), &tree[0]["layer_id"])
    );
    assert_eq!(text(&place, "base", "/etc/motd"), "welcome\n");
    assert_eq!(text(&place, "base", "lib/../../etc/issue"), "welcome\n");
    place.assert_clean();
}

#[test]
fn an_image_comes_from_standard_input() {
    let place = Place::with_image();
    let archive = place.run(["export", "base"]).good().stdout;
    let mut child = place
        .command()
        .args(["import", "-", "--name", "again"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    child.stdin.take().expect("a pipe").write_all(&archive).expect("written");
    assert!(child.wait().expect("ended").success());
    assert_eq!(text(&place, "again", "/etc/motd"), "welcome\n");
}

#[test]
fn layers_are_stored_once() {
    let place = Place::with_image();
    let used =
        |place: &Place| place.json(["df", "--wait"])["pool_used_bytes"].as_u64().expect("bytes");
    let before = used(&place);
    let tree = place.make_tree();
    let outcome = place.json(["import", tree.to_str().expect("UTF-8"), "--name", "same"]);
    assert_eq!((&outcome["reused_layers"], &outcome["new_bytes"]), (&1.into(), &0.into()));
    assert!(used(&place) - before <= 64 << 10, "the image's record alone");
    let report = place.json(["df", "-v"]);
    assert_eq!(report["images"][0]["unique_bytes"], 0);
    assert_eq!(report["images"][0]["shared_bytes"], report["images"][1]["shared_bytes"]);
}

#[test]
fn containers_do_not_see_each_other() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "one"]).good();
    let file = place.write("file", b"from one\n");
    place.run(["cp", file.to_str().expect("UTF-8"), "one:/etc/motd"]).good();
    place.run(["snapshot", "one", "two"]).good();
    place.run(["snapshot", "base", "three"]).good();
    assert_eq!(text(&place, "one", "/etc/motd"), "from one\n");
    assert_eq!(text(&place, "two", "/etc/motd"), "from one\n");
    assert_eq!(text(&place, "three", "/etc/motd"), "welcome\n");
    assert_eq!(text(&place, "base", "/etc/motd"), "welcome\n");
    let images: Vec<_> = place.json(["ls"]).as_array().expect("a list").clone();
    assert!(images.iter().all(|one| one["image"] == "base:latest" && one["state"] == "created"));
    place.assert_clean();
}

#[test]
fn files_and_folders_are_copied_as_docker_does() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let folder = place.path("folder");
    fs::create_dir_all(folder.join("sub")).expect("made");
    fs::write(folder.join("sub/file"), "x").expect("written");
    fs::write(folder.join(".wh.name"), "not a whiteout").expect("written");
    let cp = |source: &str, destination: &str| place.run(["cp", source, destination]);
    // a folder: into an existing one, to a new name, its contents only
    cp("folder", "c:/srv").good();
    assert_eq!(text(&place, "c", "/srv/folder/sub/file"), "x");
    assert_eq!(text(&place, "c", "/srv/folder/.wh.name"), "not a whiteout");
    cp("folder", "c:/srv/new").good();
    assert_eq!(text(&place, "c", "/srv/new/sub/file"), "x");
    cp("folder/.", "c:/etc").good();
    assert_eq!(text(&place, "c", "/etc/sub/file"), "x");
    // a file: over a file, into a folder through a link, to a missing folder
    cp("folder/sub/file", "c:/etc/motd").good();
    assert_eq!(text(&place, "c", "/etc/motd"), "x");
    cp("folder/sub/file", "c:/lib/").good();
    assert_eq!(text(&place, "c", "/usr/lib/file"), "x");
    cp("folder/sub/file", "c:/no/such/").fails(3, "/no");
    cp("folder", "c:/etc/motd").fails(2, "");
    cp("folder/sub/file", "c:/srv/data/x").fails(3, "not a folder");
    cp("nothing", "c:/etc").fails(3, "nothing");
    cp("folder", "base:/etc").fails(3, "'base'");
    // and out again
    cp("c:/srv/folder", "out").good();
    assert_eq!(fs::read_to_string(place.path("out/sub/file")).expect("copied"), "x");
    cp("c:/srv/folder", "out").good();
    assert!(exists(&place.path("out/folder/sub/file")));
    cp("c:/srv/folder/.", "out").good();
    cp("c:/etc/motd", "out/").good();
    assert_eq!(fs::read_to_string(place.path("out/motd")).expect("copied"), "x");
    cp("c:/lib", "link").good();
    assert!(place.path("link").symlink_metadata().expect("there").is_symlink());
    cp("c:/no/such", "x").fails(3, "/no");
    cp("c:/srv/folder", "out/motd").fails(2, "");
    cp("a", "b").fails(2, "neither side");
    cp("c:/a", "c:/b").fails(2, "both sides");
    place.assert_clean();
}

#[test]
fn differences_are_shown_as_docker_does() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    assert_eq!(place.run(["diff", "c"]).good().text(), "");
    let file = place.write("file", b"changed\n");
    place.run(["cp", file.to_str().expect("UTF-8"), "c:/etc/motd"]).good();
    place.run(["cp", file.to_str().expect("UTF-8"), "c:/etc/new"]).good();
    assert_eq!(place.run(["diff", "c"]).good().text(), "C /etc\nC /etc/motd\nA /etc/new\n");
    assert_eq!(place.run(["diff", "c", "base"]).good().text(), "C /etc\nC /etc/motd\nD /etc/new\n");
    let blocks = place.json(["diff", "c", "--blocks"]);
    let blocks = blocks.as_array().expect("a list");
    assert!(!blocks.is_empty());
    assert!(blocks.iter().all(|range| range["length_bytes"].as_u64().expect("bytes") % 4096 == 0));
    assert_eq!(place.run(["diff", "c", "c"]).good().text(), "");
}

#[test]
fn a_commit_is_an_image_like_any_other() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let file = place.write("file", b"changed\n");
    place.run(["cp", file.to_str().expect("UTF-8"), "c:/etc/new"]).good();
    let outcome = place.json(["commit", "c", "team/new:1", "-m", "why"]);
    assert_eq!((&outcome["image"], &outcome["live"]), (&"team/new:1".into(), &false.into()));
    place.run(["snapshot", "team/new:1", "d"]).good();
    assert_eq!(text(&place, "d", "/etc/new"), "changed\n");
    assert_eq!(place.run(["diff", "d"]).good().text(), "");
    assert_eq!(place.run(["diff", "team/new:1"]).good().text(), "C /etc\nA /etc/new\n");
    let image = place.json(["inspect", "team/new:1"])[0].clone();
    assert_eq!(image["Comment"], "why");
    assert_eq!(image["RepoTags"], serde_json::json!(["team/new:1"]));
    assert_eq!(image["RootFS"]["Layers"].as_array().expect("a list").len(), 2);
    // the container goes on, and its image can go
    place.run(["rm", "d"]).good();
    place.run(["rmi", "team/new:1"]).good();
    assert_eq!(text(&place, "c", "/etc/new"), "changed\n");
    assert_eq!(place.json(["layers"]).as_array().expect("a list").len(), 1);
    place.assert_clean();
}

#[test]
fn an_exported_image_comes_back_the_same() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let file = place.write("file", b"changed\n");
    place.run(["cp", file.to_str().expect("UTF-8"), "c:/etc/new"]).good();
    place.run(["commit", "c", "second"]).good();
    let before = place.json(["layers"]);
    place.run(["export", "second", "--oci", "-o", "image.tar"]).good();
    let outcome = place.json(["import", "image.tar", "--name", "third"]);
    assert_eq!((&outcome["layers"], &outcome["reused_layers"]), (&2.into(), &1.into()));
    assert_eq!(place.run(["diff", "second", "third"]).good().text(), "");
    assert_eq!(
        place.json(["layers"]).as_array().expect("a list").len(),
        before.as_array().expect("a list").len() + 1
    );
}

#[test]
fn what_is_removed_gives_its_space_back_exactly() {
    let place = Place::with_image();
    let (used, _) = place.state();
    place.run(["snapshot", "base", "c"]).good();
    let file = place.write("file", &vec![9; 3 << 20]);
    place.run(["cp", file.to_str().expect("UTF-8"), "c:/srv"]).good();
    place.run(["commit", "c", "second"]).good();
    place.run(["snapshot", "c", "d"]).good();
    assert_ne!(place.state().0, used);
    place.run(["rm", "c", "d"]).good();
    place.run(["rmi", "second"]).good();
    assert_eq!(place.state().0, used);
    place.run(["snapshot", "base", "e"]).good();
    place.run(["cat", "e", "/srv/file"]).fails(3, "/srv/file");
    place.run(["rm", "e"]).good();
    place.assert_clean();
}

#[test]
fn usage_has_its_promised_fields() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let report = place.json(["df"]);
    for field in [
        "pool_size_bytes",
        "pool_used_bytes",
        "pending_free_bytes",
        "data_bytes",
        "metadata_bytes",
        "reserved_bytes",
    ] {
        assert!(report[field].is_u64(), "{field}");
    }
    assert_eq!(report["pool_size_bytes"], 1 << 30);
    for object in [&report["images"][0], &report["containers"][0]] {
        for field in ["own_bytes", "unique_bytes", "shared_bytes"] {
            assert!(object[field].is_u64(), "{field} of {object}");
        }
        assert!(object["name"].is_string());
    }
    assert_eq!(report["containers"][0]["own_bytes"], 0);
    assert!(report["containers"][0]["shared_bytes"].as_u64() >= Some(1 << 20));
}

#[test]
fn inspect_has_dockers_shape() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let found = place.json(["inspect", "c", "base"]);
    let container = &found[0];
    assert_eq!(container["Id"].as_str().expect("an id").len(), 64);
    assert_eq!(
        (&container["Name"], &container["GraphDriver"]["Name"]),
        (&"/c".into(), &"thin".into())
    );
    assert_eq!(container["GraphDriver"]["Data"]["DeviceSize"], (64 << 20).to_string());
    assert_eq!(container["Mounts"], serde_json::json!([]));
    let created = container["Created"].as_str().expect("a time");
    assert!(created.ends_with('Z') && created.contains('T'), "{created}");
    assert_eq!(container["Image"], found[1]["Id"]);
    // by id, and by the beginning of it
    let id = container["Id"].as_str().expect("an id");
    assert_eq!(place.json(["inspect", &id[..12]])[0]["Id"], container["Id"]);
    let digest = found[1]["Id"].as_str().expect("an id");
    assert_eq!(place.json(["inspect", &digest[..20]])[0]["Id"], found[1]["Id"]);
}

#[test]
fn inspect_prints_what_a_template_says() {
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    let text = |run: common::Run| String::from_utf8(run.good().stdout).expect("text");
    let printed = |template: &str| text(place.run(["inspect", "--format", template, "c"]));
    assert_eq!(printed("{{ .GraphDriver.Data.DeviceName }}"), "c\n");
    assert_eq!(printed("{{ json .Mounts }}"), "[]\n");
    assert_eq!(printed("{{range .Mounts}}{{.Type}}{{else}}none{{end}}"), "none\n");
    let both = text(place.run(["inspect", "-f", "{{.GraphDriver.Name}}", "c", "base"]));
    assert_eq!(both, "thin\nthin\n");
    place.run(["inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", "c"]).fails(2, "'MergedDir'");
    let unknown = place.run(["inspect", "-f", "{{printf .Id}}", "c"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("'printf'"), "{unknown:?}");
    place.run(["ls", "--format", "{{.Name}}"]).fails(2, "only 'thinstore inspect'");
}

#[test]
fn mounting_without_root_says_what_to_do_instead() {
    if nix::unistd::geteuid().is_root() {
        // as another user, in a folder that this one can reach
        let place = Place::with_image();
        let program = place.path("program");
        fs::copy(common::PROGRAM, &program).expect("copied");
        fs::create_dir(place.path("m")).expect("made");
        for (path, mode) in [(place.path("."), 0o755), (program.clone(), 0o755)] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        }
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(program);
        command.arg("--root").arg(place.root()).args(["mount", "c", "m"]).uid(65534).gid(65534);
        command.current_dir(place.path("."));
        common::finish(&mut command).fails(1, "needs root");
    } else {
        let place = Place::with_image();
        place.run(["snapshot", "base", "c"]).good();
        fs::create_dir(place.path("m")).expect("made");
        place.run(["mount", "c", "m"]).fails(1, "needs root");
        place.run(["attach", "c"]).fails(1, "needs root");
    }
}

#[test]
fn the_demo_runs_and_leaves_nothing() {
    let place = Place::empty();
    fs::create_dir(place.path("tmp")).expect("made");
    let run = common::finish(
        place.command().env("TMPDIR", place.path("tmp")).args(["--format", "json", "demo"]),
    );
    let steps = run.good().json();
    let steps = steps.as_array().expect("a list");
    assert!(steps.len() >= 12, "{} steps", steps.len());
    assert!(
        steps.iter().any(|step| step["results"].to_string().contains("to the byte")),
        "{steps:?}"
    );
    assert!(steps.iter().any(|step| step["results"].to_string().contains("clean")));
    assert_eq!(fs::read_dir(place.path("tmp")).expect("there").count(), 0);
}
