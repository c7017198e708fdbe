use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::mounts::{MountRecord, MountRecords};
use crate::types::MountSpecification;

struct Bed {
    _folder: tempfile::TempDir,
    layout: Layout,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        Bed { _folder: folder, layout }
    }

    /// As a process of its own has them.
    fn volumes(&self) -> Volumes {
        Volumes::new(self.layout.clone())
    }

    fn create(&self, name: &str) {
        let request = VolumeCreateRequest { name: Some(name.to_owned()), ..Default::default() };
        self.volumes().create(&request).expect("a volume");
    }

    /// A folder of a container, with a file.
    fn target(&self) -> PathBuf {
        let target = self.layout.root().join("target");
        std::fs::create_dir_all(&target).expect("a folder");
        std::fs::write(target.join("file"), "of the image").expect("a file");
        target
    }
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).expect("a name")
}

fn mounts(texts: &[&str]) -> Vec<MountSpecification> {
    let parse = |text| MountSpecification::from_volume_option(text, Path::new("/here"));
    texts.iter().map(|text| parse(text).expect("a mount")).collect()
}

#[test]
fn without_a_store_there_are_no_volumes_and_looking_makes_nothing() {
    let bed = Bed::new();
    assert_eq!(bed.volumes().list().expect("none"), []);
    assert_eq!(bed.volumes().usages().expect("none"), []);
    assert_eq!(bed.volumes().remove("v").expect_err("none").kind(), ErrorKind::NotFound);
    let pruned = bed.volumes().prune(VolumePruneRequest { all: true }).expect("nothing");
    assert_eq!(pruned, PrunedVolumes::default());
    assert!(!bed.layout.volumes().exists());
}

#[test]
fn the_longest_name_is_as_good_as_any() {
    let bed = Bed::new();
    let longest = "n".repeat(255);
    bed.create(&longest);
    bed.volumes().remove(&longest).expect("removed");
    assert_eq!(bed.volumes().list().expect("none"), []);
}

#[test]
fn a_volume_that_is_being_filled_holds_up_only_those_who_want_it() {
    let bed = Bed::new();
    bed.create("busy");
    let target = bed.target();
    let filling = Locked::folder(&bed.volumes().folder(&name("busy"))).expect("the lock");
    let (sender, receiver) = mpsc::channel();
    let mount = &mounts(&["any:/d"])[0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let data = bed.volumes().prepare(&name("busy"), &target, mount).expect("prepared");
            sender.send(data).expect("told");
        });
        let other = bed.volumes().prepare(&name("other"), &target, mount).expect("at once");
        assert_eq!(std::fs::read(other.join("file")).expect("filled"), b"of the image");
        bed.create("third");
        bed.volumes().remove("third").expect("removed");
        assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait");
        drop(filling);
        let data = receiver.recv_timeout(Duration::from_secs(20)).expect("prepared");
        assert_eq!(std::fs::read(data.join("file")).expect("filled"), b"of the image");
    });
}

#[test]
fn a_volume_that_many_make_and_remove_at_once_is_there_whole_or_not_at_all() {
    let bed = Bed::new();
    let target = bed.target();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let volumes = bed.volumes();
                    let request =
                        VolumeCreateRequest { name: Some("v".to_owned()), ..Default::default() };
                    volumes.create(&request).expect("made, or there");
                    for one in volumes.list().expect("a list") {
                        assert_eq!(one.driver, "local");
                    }
                    match volumes.remove("v") {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        other => other.expect("removed"),
                    }
                }
            });
        }
    });
    bed.volumes().prepare(&name("v"), &target, &mounts(&["v:/d:nocopy"])[0]).expect("made");
    bed.volumes().remove("v").expect("removed");
    let left: Vec<_> = std::fs::read_dir(bed.layout.volumes()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "only the lock stays: {left:?}");
}

#[test]
fn a_container_that_was_run_keeps_its_volumes_until_it_is_removed() {
    let bed = Bed::new();
    for volume in ["data", "logs", "free"] {
        bed.create(volume);
    }
    let folder = bed.layout.containers().join("1234");
    std::fs::create_dir_all(&folder).expect("a folder");
    let record = serde_json::json!({
        "name": "web", "id": "1234", "line": ["sh"],
        "mounts": mounts(&["data:/d", "data:/e:ro", "logs:/l", "/srv:/s"]),
    });
    std::fs::write(bed.layout.run_record("1234"), record.to_string()).expect("a record");
    // of one that is just being made
    std::fs::create_dir_all(bed.layout.containers().join("5678")).expect("a folder");

    let error = bed.volumes().remove("data").expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert_eq!(
        error.to_string(),
        "the volume 'data' is used by the container 'web'; remove that first"
    );
    let used_by = |volume: &str| {
        let all = bed.volumes().list().expect("a list");
        all.into_iter().find(|one| one.name == volume).expect("a volume").used_by
    };
    assert_eq!(used_by("data"), ["web"], "once, though it is mounted twice");
    assert_eq!(used_by("free"), Vec::<String>::new());
    let pruned = bed.volumes().prune(VolumePruneRequest { all: true }).expect("pruned");
    assert_eq!(pruned.volumes, ["free"]);
    let links: Vec<u64> =
        bed.volumes().usages().expect("usages").iter().map(|one| one.links).collect();
    assert_eq!(links, [1, 1]);

    std::fs::remove_dir_all(&folder).expect("removed");
    bed.volumes().remove("data").expect("removed");
}

#[test]
fn what_a_record_says_counts_while_something_is_mounted_there() {
    let bed = Bed::new();
    bed.create("mounted");
    bed.create("dead");
    let records = MountRecords::new(bed.layout.clone());
    let record = |name: &str, directory: &str, volume: &str| MountRecord {
        name: name.to_owned(),
        driver: "overlay2".to_owned(),
        directory: PathBuf::from(directory),
        read_only: false,
        mounts: mounts(&[&format!("{volume}:/d")]),
    };
    // always a mount point
    records.remember("1", &record("web", "/proc", "mounted")).expect("noted");
    records.remember("2", &record("gone", "/nowhere", "dead")).expect("noted");
    let error = bed.volumes().remove("mounted").expect_err("in use");
    assert_eq!(error.to_string(), "the volume 'mounted' is mounted in 'web'; unmount that first");
    bed.volumes().remove("dead").expect("removed");
    records.forget("1").expect("forgotten");
    bed.volumes().remove("mounted").expect("removed");
}
