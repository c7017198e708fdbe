//! The files that declare workloads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::path::Path;

use proptest::prelude::*;
use thinstore_compare::run::{ImageOrder, MountOrder, MountedOver};
use thinstore_compare::workload::{Action, Content, Workload};

const GOOD: &str = r#"
name = "copy"
title = "A copy"
purpose = "To see."
needs = ["fio"]
image = { layers = "{depth}", files = [{ path = "data", size = "{size_bytes}" }] }

[parameters]
depth = [1, 10]
size_bytes = ["4K", "1M", 512]

[quick.parameters]
depth = [1]

[[steps]]
do = "create"

[[steps]]
do = "write"
file = "data"
size = "{size_bytes}"
measure = "change"
"#;

fn parse(text: &str) -> Result<Workload, String> {
    Workload::parse(Path::new("copy.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_workloads_are_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads");
    let workloads = Workload::read_folder(&folder).unwrap();
    assert!(workloads.len() >= 17);
    for workload in &workloads {
        assert!(!workload.source.is_empty() && !workload.group.is_empty(), "{}", workload.name);
        assert!(workload.seconds.is_some(), "{}", workload.name);
        assert!(!workload.combinations(false).is_empty());
        assert!(folder.join(format!("{}.toml", workload.name)).exists(), "{}", workload.name);
    }
    assert!(workloads.iter().any(|workload| !workload.combinations(true).is_empty()));
}

#[test]
fn a_workload_is_read() {
    let workload = parse(GOOD).unwrap();
    assert_eq!(workload.combinations(false).len(), 6);
    let quick: Vec<String> = workload.combinations(true).iter().map(ToString::to_string).collect();
    // What the short set does not say otherwise is as in the long one.
    assert_eq!(
        quick,
        ["depth=1 size_bytes=4096", "depth=1 size_bytes=1048576", "depth=1 size_bytes=512"]
    );
    assert!(matches!(workload.steps[1].action, Action::Write { sync: false, .. }));
    assert_eq!(workload.steps[1].measure.as_ref().unwrap().name, "change");
}

#[test]
fn an_image_has_texts_and_programs_and_mounts_lie_over_it() {
    let text = GOOD
        .replace(
            "files = [",
            "programs = [\"sh\"], files = [{ path = \"a/text\", text = \"int x[] = {1};\" }, ",
        )
        .replace("do = \"create\"", "do = \"mount\"\nmounts = [\"layer:/a\", \"volume:/b\"]");
    let workload = parse(&text).unwrap();
    let order = ImageOrder::of(&workload.image, &workload.combinations(true)[1]).unwrap();
    // A text stands as it is: brackets in it are no parameters.
    assert_eq!(order.files[0], ("a/text".into(), Content::Text("int x[] = {1};".into())));
    assert_eq!(order.files[1], ("data".into(), Content::Noise(1 << 20)));
    assert_eq!(order.programs, ["sh"]);
    assert!(matches!(&workload.steps[0].action, Action::Mount(mounts) if mounts.len() == 2));
    assert_eq!(MountOrder::parse("layer:/a"), Ok(None));
    let volume = MountOrder { kind: MountedOver::Volume, path: "/b".into() };
    assert_eq!(MountOrder::parse("volume:/b"), Ok(Some(volume)));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (from, to, said) in [
        ("name = \"copy\"", "name = \"Copy up\"", "only a to z"),
        ("name = \"copy\"", "", "missing field `name`"),
        ("title = \"A copy\"", "titel = \"A copy\"", "line 3: unknown field `titel`"),
        ("purpose = \"To see.\"", "purpose = \" \"", "'purpose' is empty"),
        (
            "do = \"create\"",
            "do = \"creat\"",
            "line 15: step 1: there is no action 'creat'; there are create, mount",
        ),
        (
            "do = \"create\"",
            "do = \"create\"\nfile = \"x\"",
            "step 1: 'file' does not belong to 'create'",
        ),
        ("file = \"data\"\n", "", "line 18: step 2: 'write' wants 'file'"),
        (
            "size = \"{size_bytes}\"\nmeasure",
            "size = \"{sise_bytes}\"\nmeasure",
            "step 2 (write): '{sise_bytes}': there is no parameter 'sise_bytes'",
        ),
        (
            "size = \"{size_bytes}\"\nmeasure",
            "size = \"lots\"\nmeasure",
            "'lots' is no number and no size",
        ),
        ("measure = \"change\"", "", "none of its steps has a 'measure'"),
        ("measure = \"change\"", "measure = \"a b\"", "measure 'a b'"),
        ("measure = \"change\"", "operations = 5", "'operations' without 'measure'"),
        ("depth = [1, 10]", "depth = []", "parameter 'depth' of 'copy' has no values"),
        ("depth = [1, 10]", "depth = [1, 1]", "the value 1 twice"),
        ("\"4K\"", "\"4Q\"", "'4Q' is no size like 4K"),
        (
            "[quick.parameters]\ndepth",
            "[quick.parameters]\nheight",
            "[quick] has a parameter 'height'",
        ),
        ("do = \"create\"", "do = \"command\"\nrun = []", "'run' is empty"),
        ("do = \"create\"", "do = \"space\"", "wants 'measure'"),
        ("do = \"create\"", "do = \"create\"\ncontainers = 0", "for 0 containers"),
        ("do = \"create\"", "do = \"create\"\nmounts = []", "'mounts' does not belong to 'create'"),
        (
            "do = \"create\"",
            "do = \"mount\"\nmounts = [\"bind:/x\"]",
            "step 1 (mount): 'bind:/x': a mount is layer:/path",
        ),
        ("do = \"create\"", "do = \"mount\"\nmounts = [\"tmpfs:/a/../b\"]", "without '..'"),
        ("do = \"create\"", "do = \"mount\"\nmounts = [\"volume:x\"]", "'volume:x'"),
        ("size = \"{size_bytes}\" }] }", "}] }", "image: data: it wants 'size' or 'text'"),
        ("\"{size_bytes}\" }] }", "1, text = \"x\" }] }", "it wants 'size' or 'text'"),
        (
            "do = \"create\"",
            "do = \"start\"\nrun = [\"true\"]",
            "what 'start' begins wants a 'finish' after it",
        ),
        (
            "measure = \"change\"",
            "measure = \"change\"\nfigure = { after = \"x\", unit = \"seconds\" }",
            "'figure' is what a 'command', or what was started, says",
        ),
        (
            "do = \"create\"",
            "do = \"finish\"\nfigure = { after = \"x\", unit = \"seconds\" }",
            "'figure' without 'measure'",
        ),
        ("[[steps]]", "[[step]]", "unknown field `step`"),
        ("title =", "title", "line 3"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).expect_err(said);
        assert!(
            error.contains(said) && error.contains("copy.toml"),
            "wanted: {said}\ngot: {error}"
        );
    }
}

#[test]
fn two_files_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), GOOD).unwrap();
    std::fs::write(folder.path().join("b.toml"), GOOD).unwrap();
    std::fs::write(folder.path().join("README.md"), "not one of them").unwrap();
    let error = Workload::read_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("b.toml") && error.contains("'copy'"), "{error}");
    assert!(Workload::read_folder(&folder.path().join("nothing")).is_err());
}

proptest! {
    #[test]
    fn whatever_a_file_has_in_it_is_read_or_refused(
        place in 0..GOOD.len(), length in 0..20_usize, text in "[a-z0-9{}\\[\\]=\"\n. ]{0,12}",
    ) {
        let mut damaged = GOOD.to_owned();
        damaged.replace_range(place..(place + length).min(GOOD.len()), &text);
        parse(&damaged).ok();
    }
}
