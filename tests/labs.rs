//! What people learn of container storage, tried out: what lasts and what does not, who shares what, and
//! where it is. Each test is a lesson; docs/lessons.md walks through the same ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thinstore_tests::{Identity, TempStore, host, images};

/// A store with a small image, `web`: a shell and some files, and a page that it serves.
fn lab() -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "2G", "--device-size", "256M"]);
    store.ok(&["import", images::busybox().to_str().unwrap(), "--name", "plain"]);
    store.ok(&["snapshot", "plain", "build"]);
    let page = store.path("page");
    fs::write(&page, "welcome\n").unwrap();
    store.ok(&["cp", &page, "build:/home/page"]);
    store.ok(&["commit", "build", "web"]);
    store.ok(&["rm", "build"]);
    store
}

/// A container that does nothing, in the background.
fn start(store: &TempStore, name: &str, options: &[&str]) {
    let mut arguments = vec!["run", "web", "--name", name, "-d"];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]);
    store.ok(&arguments);
}

/// What a shell in a running container prints.
fn shell(store: &TempStore, name: &str, command: &str) -> String {
    store.ok(&["exec", name, "--", "sh", "-c", command]).stdout_text()
}

fn end(store: TempStore) {
    for name in store.names("ls") {
        store.ok(&["rm", "--force", &name]);
    }
    store.finish();
}

#[test]
#[ignore = "needs root: runs containers"]
fn what_a_container_writes_lasts_until_it_is_removed() {
    let store = lab();
    start(&store, "web1", &[]);
    shell(&store, "web1", "echo mine > /home/mine");
    store.ok(&["stop", "web1"]);
    assert_eq!(store.ok(&["ps", "-q"]).stdout_text(), "");
    store.ok(&["start", "web1"]);
    assert_eq!(shell(&store, "web1", "cat /home/mine"), "mine\n", "lost by stopping");
    store.refused(&[4], &["rm", "web1"], &["'web1'", "running"]);
    store.ok(&["rm", "--force", "web1"]);
    start(&store, "web1", &[]);
    assert_eq!(
        shell(&store, "web1", "ls /home"),
        "page\nuser\n",
        "a new container has the old one's file"
    );
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_container_s_files_are_seen_from_the_host_where_inspect_says() {
    let store = lab();
    start(&store, "web1", &[]);
    let template = "{{ .GraphDriver.Data.MergedDir }}";
    let merged = store.ok(&["inspect", "--format", template, "web1"]).stdout_text();
    let merged = PathBuf::from(merged.trim());
    assert_eq!(fs::read_to_string(merged.join("home/page")).unwrap(), "welcome\n");
    shell(&store, "web1", "echo new > /home/new");
    assert_eq!(fs::read_to_string(merged.join("home/new")).unwrap(), "new\n");
    let status = store.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Running}}", "web1"]);
    assert_eq!(status.stdout_text(), "running true\n");
    store.ok(&["stop", "web1"]);
    assert!(!merged.join("home").exists(), "it is still mounted");
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_volume_outlives_the_container_that_wrote_it_and_is_shared() {
    let store = lab();
    start(&store, "web2", &["-v", "pages:/srv"]);
    shell(&store, "web2", "echo kept > /srv/page");
    store.ok(&["rm", "--force", "web2"]);
    start(&store, "web3", &["-v", "pages:/srv"]);
    assert_eq!(shell(&store, "web3", "cat /srv/page"), "kept\n");
    // Two at once.
    start(&store, "web4", &["--mount", "type=volume,source=pages,target=/data"]);
    shell(&store, "web4", "echo both > /data/page");
    assert_eq!(shell(&store, "web3", "cat /srv/page"), "both\n");
    store.refused(&[4], &["volume", "rm", "pages"], &["'web3'"]);
    let mounts = store.ok(&["inspect", "-f", "{{ json .Mounts }}", "web3"]).stdout_text();
    assert!(
        mounts.contains("\"Type\":\"volume\"") && mounts.contains("\"Name\":\"pages\""),
        "{mounts}"
    );
    // A container that was stopped can be started again, so it still needs its volume.
    store.ok(&["rm", "--force", "web4"]);
    store.ok(&["stop", "web3"]);
    store.refused(&[4], &["volume", "rm", "pages"], &["'pages'", "'web3'", "remove that first"]);
    store.ok(&["volume", "prune", "--all", "--force"]);
    store.ok(&["start", "web3"]);
    assert_eq!(shell(&store, "web3", "cat /srv/page"), "both\n");
    store.ok(&["rm", "--force", "web3"]);
    store.ok(&["volume", "rm", "pages"]);
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_bind_mount_is_the_host_s_folder() {
    let store = lab();
    let folder = store.new_folder("site");
    start(&store, "web1", &["-v", &format!("{folder}:/srv")]);
    fs::write(Path::new(&folder).join("page"), "of the host\n").unwrap();
    assert_eq!(shell(&store, "web1", "cat /srv/page"), "of the host\n");
    shell(&store, "web1", "echo of the container > /srv/page");
    assert_eq!(fs::read_to_string(Path::new(&folder).join("page")).unwrap(), "of the container\n");
    start(&store, "web2", &["-v", &format!("{folder}:/srv:ro")]);
    let denied = store.run(&["exec", "web2", "--", "sh", "-c", "echo no > /srv/page"]);
    assert!(denied.assert_code(&[1]).stderr_text().contains("Read-only"));
    let missing = store.path("missing");
    let mount = format!("type=bind,source={missing},target=/srv");
    let run = ["run", "web", "--name", "web3", "--mount", &mount, "--", "true"];
    store.refused(&[3], &run, &["missing", "make it first"]);
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_tmpfs_is_in_memory_and_gone_with_the_process() {
    let store = lab();
    start(&store, "web1", &["--tmpfs", "/run:size=1m,mode=1777"]);
    start(&store, "web2", &["--tmpfs", "/run"]);
    shell(&store, "web1", "echo secret > /run/secret");
    assert!(shell(&store, "web1", "mount").contains("tmpfs on /run"));
    assert_eq!(shell(&store, "web2", "ls /run"), "", "another container's tmpfs is seen");
    let full = store.run(&[
        "exec",
        "web1",
        "--",
        "sh",
        "-c",
        "dd if=/dev/zero of=/run/big bs=1024 count=2000",
    ]);
    assert!(full.assert_code(&[1]).stderr_text().contains("No space left"));
    store.ok(&["stop", "web1"]);
    store.ok(&["start", "web1"]);
    assert_eq!(shell(&store, "web1", "ls /run"), "");
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn ten_containers_of_an_image_store_its_layers_once() {
    let store = lab();
    let before = store.pool_used_bytes();
    for number in 0..10 {
        start(&store, &format!("web{number}"), &[]);
    }
    assert_eq!(store.ok(&["ps", "-q"]).stdout_text().lines().count(), 10);
    for number in 0..10 {
        store.ok(&["stop", &format!("web{number}")]);
    }
    let each = (store.pool_used_bytes() - before) / 10;
    let image = store.rows(&["images"])[0]["size_bytes"].as_u64().unwrap();
    assert!(each < image / 4, "each takes {each} bytes, the image {image}");
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn changing_a_file_of_the_image_leaves_the_image_as_it_is() {
    let store = lab();
    let layers = store.rows(&["layers"]);
    start(&store, "web1", &[]);
    shell(&store, "web1", "echo changed > /home/page; echo new > /home/new; rm /etc/motd; sync");
    store.ok(&["stop", "web1"]);
    let changes = store.ok(&["diff", "web1"]).stdout_text();
    for line in ["C /home/page", "A /home/new", "D /etc/motd"] {
        assert!(changes.lines().any(|found| found == line), "no {line} in\n{changes}");
    }
    assert_eq!(store.ok(&["cat", "web", "/home/page"]).stdout_text(), "welcome\n");
    start(&store, "web2", &[]);
    assert_eq!(shell(&store, "web2", "cat /home/page"), "welcome\n");
    // Layers are read-only: whatever containers do, they are what they were.
    assert_eq!(store.rows(&["layers"]), layers);
    let top = layers.last().unwrap()["name"].as_str().unwrap().to_owned();
    let file = store.path("file");
    fs::write(&file, "no").unwrap();
    store.refused(&[2, 3], &["cp", &file, &format!("{top}:/home/page")], &["container"]);
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn what_a_killed_command_leaves_is_cleaned_up_by_the_next() {
    let store = lab();
    start(&store, "web1", &[]);
    shell(&store, "web1", "echo mine > /home/mine; sync");
    let pid: i32 = store
        .ok(&["inspect", "-f", "{{.State.Pid}}", "web1"])
        .stdout_text()
        .trim()
        .parse()
        .unwrap();
    // Whoever watches over the container dies; its process goes on, until somebody looks.
    let watcher = host::processes_of(store.folder())
        .into_iter()
        .find(|(_, line)| line.contains("--supervise"))
        .expect("nobody watches over the container");
    host::kill(watcher.0);
    assert_eq!(store.ok(&["ps", "-q"]).stdout_text(), "");
    assert!(host::wait_until(Duration::from_secs(10), || !host::is_alive(pid)), "{pid} lives");
    let state = store.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web1"]);
    assert_eq!(state.stdout_text(), "exited 137\n");
    store.ok(&["start", "web1"]);
    assert_eq!(shell(&store, "web1", "cat /home/mine"), "mine\n");
    end(store);
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_process_is_run_as_the_image_and_the_command_line_say() {
    let store = lab();
    let run = |options: &[&str], command: &[&str]| {
        let mut arguments = vec!["run", "web", "--rm"];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(command);
        store.run(&arguments)
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
    store.refused(&[3], &["run", "none", "--", "true"], &["none"]);
    store.refused(&[2], &["run", "web", "-v", "a:b", "--", "true"], &["not absolute"]);
    store.refused(&[2], &["run", "web", "-v", "a:/", "--", "true"], &["root"]);
    assert_eq!(store.names("ls"), [""; 0], "something is left");
    assert_eq!(store.ok(&["ps", "--all", "-q"]).stdout_text(), "");
    end(store);
}
