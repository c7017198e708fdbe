//! One owner at a time, and who it is.

use super::*;

#[test]
fn a_second_owner_is_told_that_the_first_is_this_process() {
    let (folder, storage) = new_file(4096, FileOptions::new());
    let path = folder.path().join("pool");
    for options in [FileOptions::new(), reading()] {
        assert_refused(options.open(&path), ErrorKind::InUse, &["pool", "this process itself"]);
    }
    drop(storage);
    FileOptions::new().open(&path).unwrap();
}

#[test]
fn readers_share_and_keep_writers_out() {
    let (folder, storage) = new_file(4096, FileOptions::new());
    drop(storage);
    let path = folder.path().join("pool");
    let readers = [reading().open(&path).unwrap(), reading().open(&path).unwrap()];
    assert_refused(FileOptions::new().open(&path), ErrorKind::InUse, &["pool"]);
    drop(readers);
    FileOptions::new().open(&path).unwrap();
}

#[test]
fn the_lock_ends_with_its_owner_though_the_description_was_inherited() {
    let (folder, storage) = new_file(4096, FileOptions::new());
    let inherited = storage.file.try_clone().unwrap();
    drop(storage);
    FileOptions::new().open(folder.path().join("pool")).unwrap();
    drop(inherited);
}

/// A process that ends when its standard input does, which is when this is dropped.
struct Holder(Child);

impl Holder {
    /// Starts `flock` on the file, and returns once it has the lock.
    fn start(path: &Path, no_fork: bool) -> Holder {
        let mut command = Command::new("flock");
        command.args(no_fork.then_some("--no-fork")).arg(path);
        command.args(["sh", "-c", "echo locked; read line"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this test needs flock of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_owner_is_told_which_process_is_the_first() {
    let (folder, storage) = new_file(4096, FileOptions::new());
    drop(storage);
    let path = folder.path().join("pool");
    let holder = Holder::start(&path, true);
    let named = format!("process {} (sh -c echo locked; read line)", holder.0.id());
    assert_refused(FileOptions::new().open(&path), ErrorKind::InUse, &[&named]);
    drop(holder);
    FileOptions::new().open(&path).unwrap();
}

#[test]
fn a_lock_that_outlives_its_process_is_traced_to_who_inherited_it() {
    let (folder, storage) = new_file(4096, FileOptions::new());
    drop(storage);
    let path = folder.path().join("pool");
    // flock takes the lock, its child inherits it, and then flock is killed.
    let mut holder = Holder::start(&path, false);
    holder.0.kill().unwrap();
    let input = holder.0.stdin.take();
    holder.0.wait().unwrap();
    assert_refused(FileOptions::new().open(&path), ErrorKind::InUse, &["process", "(sh -c echo"]);
    drop(input);
}
