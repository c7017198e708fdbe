//! Bytes at any offset, in any memory, with and without direct I/O.

use super::*;

#[test]
fn direct_io_is_used_where_it_is_asked_for() {
    let (_folder, storage) = new_file(MIB, FileOptions::new());
    assert!(storage.is_direct(), "the file system of TMPDIR has no direct I/O: choose another");
    let (_folder, storage) = new_file(MIB, buffered());
    assert!(!storage.is_direct());
}

#[test]
fn any_range_in_any_memory_reads_back_direct_and_buffered() {
    for options in [FileOptions::new(), buffered()] {
        let (_folder, storage) = new_file(4 * MIB, options);
        let mut model = vec![0_u8; usize::try_from(4 * MIB).unwrap()];
        let mut random = Random::new(1);
        for round in 0..300_u64 {
            // Every third range is whole blocks, and long ones exceed one bounce buffer.
            let unit = if round % 3 == 0 { 4096 } else { 1 };
            let longest = [5000, 70_000, 3 << 20][usize::try_from(round % 7 / 3).unwrap()];
            let length = random.below(longest).next_multiple_of(unit);
            let offset_bytes = random.below(4 * MIB - length) / unit * unit;
            let start = usize::try_from(offset_bytes).unwrap();
            let range = start..start + usize::try_from(length).unwrap();
            // Memory at every alignment: at 0 on every second round.
            let shift = usize::try_from(random.below(4096) * (round % 2)).unwrap();
            let mut memory = AlignedBuffer::new(range.len() + shift);
            if random.below(2) == 0 {
                memory.fill(u8::try_from(round % 256).unwrap());
                storage.write_at(offset_bytes, &memory[shift..]).unwrap();
                model[range].copy_from_slice(&memory[shift..]);
            } else {
                storage.read_at(offset_bytes, &mut memory[shift..]).unwrap();
                assert!(memory[shift..] == model[range], "round {round} at {offset_bytes}");
            }
        }
        assert!(read(&storage, 0, model.len()) == model);
        storage.sync().unwrap();
        let on_disk = fs::read(storage.path()).unwrap();
        assert!(on_disk == model);
    }
}

#[test]
fn small_writes_beside_each_other_do_not_undo_one_another() {
    let (_folder, storage) = new_file(8192, FileOptions::new());
    std::thread::scope(|scope| {
        for lane in 0..4_u8 {
            let storage = &storage;
            scope.spawn(move || {
                let offset_bytes = 3000 + u64::from(lane) * 700;
                for round in 1..=50 {
                    storage.write_at(offset_bytes, &[lane * 50 + round; 700]).unwrap();
                    assert_eq!(read(storage, offset_bytes, 700), vec![lane * 50 + round; 700]);
                }
            });
        }
    });
    for lane in 0..4_u8 {
        let offset_bytes = 3000 + u64::from(lane) * 700;
        assert_eq!(read(&storage, offset_bytes, 700), vec![lane * 50 + 50; 700]);
    }
}

#[test]
fn ranges_past_the_end_are_refused_and_change_nothing() {
    for options in [FileOptions::new(), buffered()] {
        let (_folder, storage) = new_file(8192, options);
        for (offset_bytes, length) in [(8192, 1), (4096, 4097), (u64::MAX, 2)] {
            let mut memory = vec![1; length];
            let error = storage.read_at(offset_bytes, &mut memory).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("pool"), "{error}");
            assert!(storage.write_at(offset_bytes, &memory).is_err());
            let length = u64::try_from(length).unwrap();
            assert!(storage.punch_hole(offset_bytes, length).is_err());
            assert!(storage.reserve(offset_bytes, length).is_err());
        }
        assert_eq!(fs::metadata(storage.path()).unwrap().size(), 8192);
        assert_eq!(storage.allocated_bytes().unwrap(), 0);
    }
}

#[test]
fn a_file_that_is_cut_off_under_its_owner_is_an_error() {
    for options in [FileOptions::new(), buffered()] {
        let (_folder, storage) = new_file(MIB, options);
        storage.write_at(0, &vec![1; 1 << 20]).unwrap();
        let other = OpenOptions::new().write(true).open(storage.path()).unwrap();
        other.set_len(6000).unwrap();
        let error = storage.read_at(0, &mut AlignedBuffer::new(16384)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(storage.read_at(5000, &mut [0; 2000]).is_err());
        assert_eq!(read(&storage, 100, 300), vec![1; 300]);
    }
}

#[test]
fn a_read_only_storage_reads_and_refuses_all_changes() {
    let (folder, storage) = new_file(MIB, FileOptions::new());
    storage.write_at(4096, &[9; 4096]).unwrap();
    drop(storage);
    let storage = reading().open(folder.path().join("pool")).unwrap();
    assert!(storage.is_read_only() && storage.is_direct());
    let changes = [
        storage.write_at(0, &[1; 4096]),
        storage.punch_hole(4096, 4096),
        storage.reserve(0, 4096),
        storage.grow(2 * MIB),
    ];
    for change in changes {
        assert_eq!(change.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    storage.sync().unwrap();
    storage.drop_cache().unwrap();
    assert_eq!(read(&storage, 4096, 4096), vec![9; 4096]);
}

fn cached_pages(path: &Path) -> u64 {
    let path = path.to_str().unwrap();
    run("fincore", &["--bytes", "--noheadings", "--output", "PAGES", path]).parse().unwrap()
}

#[test]
#[ignore = "needs fincore: of the package util-linux-extra"]
fn direct_writes_stay_out_of_the_page_cache_and_drop_cache_empties_it() {
    let (_folder, storage) = new_file(MIB, FileOptions::new());
    storage.write_at(0, &vec![1; 1 << 20]).unwrap();
    storage.write_at(100, &vec![1; 5000]).unwrap();
    assert_eq!(cached_pages(storage.path()), 0);
    let (_folder, storage) = new_file(MIB, buffered());
    storage.write_at(0, &vec![1; 1 << 20]).unwrap();
    storage.sync().unwrap();
    assert_eq!(cached_pages(storage.path()), 256);
    storage.drop_cache().unwrap();
    assert_eq!(cached_pages(storage.path()), 0);
    assert_eq!(read(&storage, 0, 4096), vec![1; 4096]);
}
