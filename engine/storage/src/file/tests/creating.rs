//! New files: how large, whose, and what is refused.

use super::*;

#[test]
fn a_new_file_is_sparse_private_and_of_the_size_asked_for() {
    let (folder, storage) = new_file(1 << 40, FileOptions::new());
    assert_eq!(storage.size_bytes(), 1 << 40);
    assert_eq!(storage.allocated_bytes().unwrap(), 0);
    assert!(!storage.is_block_device() && !storage.is_read_only());
    assert_eq!(storage.name(), storage.path().display().to_string());
    let metadata = fs::metadata(folder.path().join("pool")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(read(&storage, (1 << 40) - 4096, 4096), vec![0; 4096]);
}

#[test]
fn what_exists_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "contents").unwrap();
    assert_refused(FileOptions::new().create_new(&path, 4096), ErrorKind::Exists, &["precious"]);
    assert_eq!(fs::read(&path).unwrap(), b"contents");
    let link = folder.path().join("dangling");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
    assert_refused(FileOptions::new().create_new(&link, 4096), ErrorKind::Exists, &["dangling"]);
}

#[test]
fn impossible_sizes_are_refused_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for size_bytes in [0, 1, 4095, 4097, 1 << 63, u64::MAX - 4095, u64::MAX] {
        let result = FileOptions::new().create_new(folder.path().join("pool"), size_bytes);
        assert_refused(result, ErrorKind::Usage, &["pool", &size_bytes.to_string()]);
    }
    let result = reading().create_new(folder.path().join("pool"), 4096);
    assert_refused(result, ErrorKind::Usage, &["writable"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_folder_is_named_as_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let result = FileOptions::new().create_new(folder.path().join("a/pool"), 4096);
    assert_refused(result, ErrorKind::NotFound, &["a/pool", "folder"]);
}
