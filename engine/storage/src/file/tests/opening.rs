//! Existing files: what opens, and what is refused in which words.

use super::*;

#[test]
fn what_is_no_file_and_no_block_device_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let cases: [(&Path, &str); 4] = [
        (folder.path(), "a directory"),
        (&fifo, "a FIFO"),
        (&socket, "a socket"),
        (Path::new("/dev/null"), "a character device"),
    ];
    for (path, what) in cases {
        for options in [FileOptions::new(), reading()] {
            let name = path.to_str().unwrap();
            assert_refused(options.open(path), ErrorKind::Usage, &[name, what]);
        }
    }
}

#[test]
fn a_missing_file_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [folder.path().join("missing"), file.join("below"), PathBuf::new()] {
        assert_refused(FileOptions::new().open(path), ErrorKind::NotFound, &["no such file"]);
    }
}

#[test]
fn a_file_of_somebody_else_asks_for_permission() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("pool");
    drop(FileOptions::new().create_new(&path, 4096).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let nobody = nix::unistd::Uid::from_raw(65534);
    // Root may open everything. Its file system identity belongs to a thread alone, and another
    // one takes the privilege away; without root this does nothing, and mode 000 is enough.
    let result = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            nix::unistd::setfsuid(nobody);
            let created = FileOptions::new().create_new(folder.path().join("new"), 4096);
            if nix::unistd::geteuid().is_root() {
                assert_refused(created, ErrorKind::Permission, &["cannot create", "root"]);
            }
            assert_refused(reading().open(&path), ErrorKind::Permission, &["for reading:"]);
            FileOptions::new().open(&path)
        });
        opening.join().unwrap()
    });
    assert_refused(result, ErrorKind::Permission, &["for reading and writing", "root"]);
}

#[test]
fn a_symbolic_link_leads_to_its_file() {
    let (folder, storage) = new_file(8192, FileOptions::new());
    storage.write_at(4096, &[3; 4096]).unwrap();
    drop(storage);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("pool"), &link).unwrap();
    assert_eq!(read(&reading().open(&link).unwrap(), 4096, 4096), vec![3; 4096]);
}

#[test]
fn a_file_of_odd_size_is_read_to_its_last_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd");
    fs::write(&path, vec![5; 5000]).unwrap();
    let storage = FileOptions::new().open(&path).unwrap();
    assert!(!storage.is_direct());
    assert_eq!(storage.size_bytes(), 5000);
    assert_eq!(read(&storage, 4999, 1), vec![5]);
    storage.write_at(4990, &[6; 10]).unwrap();
    assert!(storage.write_at(4990, &[6; 11]).is_err());
    drop(storage);
    assert_eq!(fs::metadata(&path).unwrap().size(), 5000);
}

#[test]
fn an_empty_file_opens_and_has_no_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty");
    fs::write(&path, "").unwrap();
    let storage = FileOptions::new().open(&path).unwrap();
    assert_eq!(storage.size_bytes(), 0);
    assert!(storage.read_at(0, &mut [0]).is_err());
    storage.read_at(0, &mut []).unwrap();
}
