//! Holes, reservations and growth.

use super::*;

#[test]
fn a_punched_range_reads_as_zeroes_and_gives_its_space_back() {
    for options in [FileOptions::new(), buffered()] {
        let (_folder, storage) = new_file(MIB, options);
        storage.write_at(0, &vec![1; 1 << 20]).unwrap();
        storage.sync().unwrap();
        let before = storage.allocated_bytes().unwrap();
        storage.punch_hole(65536, 524_288).unwrap();
        assert_eq!(read(&storage, 65536, 524_288), vec![0; 524_288]);
        assert_eq!(read(&storage, 65535, 1), vec![1]);
        assert_eq!(read(&storage, 65536 + 524_288, 1), vec![1]);
        assert_eq!(storage.allocated_bytes().unwrap(), before - 524_288);
        assert_eq!(storage.size_bytes(), MIB);
        storage.punch_hole(100, 0).unwrap();
    }
}

#[test]
fn a_reserved_range_has_its_space_and_keeps_its_contents() {
    let (_folder, storage) = new_file(MIB, FileOptions::new());
    storage.write_at(4096, &[4; 4096]).unwrap();
    storage.reserve(0, MIB).unwrap();
    assert!(storage.allocated_bytes().unwrap() >= MIB);
    assert_eq!(read(&storage, 4096, 4096), vec![4; 4096]);
    assert_eq!(read(&storage, 8192, 4096), vec![0; 4096]);
    assert_eq!(fs::metadata(storage.path()).unwrap().size(), MIB);
}

#[test]
fn a_grown_file_can_be_used_to_its_new_end_and_never_shrinks() {
    let (_folder, storage) = new_file(8192, FileOptions::new());
    storage.grow(4 * MIB).unwrap();
    storage.write_at(4 * MIB - 4096, &[2; 4096]).unwrap();
    storage.grow(4096).unwrap();
    assert_eq!(storage.size_bytes(), 4 * MIB);
    assert!(storage.grow(4 * MIB + 1).is_err());
    assert!(storage.grow(u64::MAX - 4095).is_err());
    assert_eq!(storage.size_bytes(), 4 * MIB);
    assert_eq!(read(&storage, 4 * MIB - 4096, 4096), vec![2; 4096]);
}

#[test]
fn of_many_who_grow_at_once_the_largest_size_stays() {
    let (_folder, storage) = new_file(4096, FileOptions::new());
    std::thread::scope(|scope| {
        for size in 1..20_u64 {
            let storage = &storage;
            scope.spawn(move || storage.grow(size * 4096).unwrap());
        }
    });
    assert_eq!(storage.size_bytes(), 19 * 4096);
    assert_eq!(fs::metadata(storage.path()).unwrap().size(), 19 * 4096);
}

#[test]
fn a_copy_holds_the_same_and_has_the_same_holes() {
    for options in [FileOptions::new(), buffered()] {
        let (folder, storage) = new_file(64 * MIB, options);
        storage.write_at(3 * MIB + 100, &[7; 5000]).unwrap();
        storage.write_at(64 * MIB - 4096, &[8; 4096]).unwrap();
        storage.sync().unwrap();
        let path = folder.path().join("copy");
        let copy = storage.copy_to(&path).unwrap();
        assert_eq!(copy.size_bytes(), 64 * MIB);
        for offset in [0, 3 * MIB, 63 * MIB] {
            assert_eq!(read(&copy, offset, 1 << 20), read(&storage, offset, 1 << 20));
        }
        assert!(copy.allocated_bytes().unwrap() <= 4 * MIB, "{:?}", copy.allocated_bytes());
        let again = storage.copy_to(&path).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Exists);
    }
}
