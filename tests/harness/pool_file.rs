//! The pool's file as bytes: has a command written to it? Where does something lie in it, to be damaged?

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::SeekFrom;
use sha2::{Digest, Sha256};

const CHUNK_BYTES: usize = 4096;

/// A hash of a file's length and of its blocks that are not all zero, with where they lie. Holes are
/// passed over, so that a sparse pool of many gigabytes takes no time.
pub fn content_hash(path: &Path) -> String {
    let mut hash = Sha256::new();
    let size_bytes = path.metadata().expect("the file's size").len();
    hash.update(size_bytes.to_le_bytes());
    for_each_chunk(path, |offset_bytes, chunk| {
        if chunk.iter().any(|byte| *byte != 0) {
            hash.update(offset_bytes.to_le_bytes());
            hash.update(chunk);
        }
    });
    crate::tree::hexadecimal(&hash.finalize())
}

/// The block of the pool that holds exactly this; there must be one alone.
#[track_caller]
pub fn block_with(path: &Path, contents: &[u8]) -> u64 {
    let mut found = Vec::new();
    for_each_chunk(path, |offset_bytes, chunk| {
        if chunk == contents {
            found.push(offset_bytes / 4096);
        }
    });
    assert_eq!(found.len(), 1, "blocks with these contents: {found:?}");
    found[0]
}

/// Flips a bit of a byte of the pool that nobody has open. Done again, it is as it was.
pub fn flip_bit(path: &Path, offset_bytes: u64) {
    let file = File::options().read(true).write(true).open(path).expect("open the file to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset_bytes).expect("read the byte to damage");
    file.write_all_at(&[byte[0] ^ 4], offset_bytes).expect("damage a byte");
    file.sync_all().expect("sync the damaged file");
}

/// Calls `visit` with each block of a file that is not in a hole, and with where it lies.
fn for_each_chunk(path: &Path, mut visit: impl FnMut(u64, &[u8])) {
    let file = File::open(path).expect("open the file to read");
    let size_bytes = file.metadata().expect("the file's size").len();
    let mut offset_bytes = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    while offset_bytes < size_bytes {
        // The kernel answers ENXIO when nothing but a hole follows.
        let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(offset_bytes)) else {
            break;
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(data)).expect("find the end of the data");
        offset_bytes = data;
        while offset_bytes < end {
            let wanted =
                usize::try_from(end - offset_bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            file.read_exact_at(&mut chunk[..wanted], offset_bytes).expect("read the file");
            visit(offset_bytes, &chunk[..wanted]);
            offset_bytes += u64::try_from(wanted).expect("a chunk's length");
        }
    }
}

/// Asserts that what `action` does writes nothing to the pool. The pool's own thread may still be at work
/// (it settles, and takes checksums of what was sealed), so a change is blamed on the action only if it comes
/// each time that the action is done again.
pub fn assert_unwritten_by(path: &Path, what: &str, mut action: impl FnMut()) {
    for _ in 0..10 {
        let before = content_hash(path);
        action();
        if content_hash(path) == before {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
    panic!("{what} wrote to {}, ten times of ten", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_writes_is_found_and_what_is_written_beside_it_is_not_its_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let mut bytes = 0..;
        let mut write = || std::fs::write(&path, [bytes.next().unwrap()]).unwrap();
        write();
        let mut times = 0;
        assert_unwritten_by(&path, "the second", || {
            times += 1;
            if times == 1 {
                write();
            }
        });
        assert_eq!(times, 2);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_unwritten_by(&path, "all of them", &mut write);
        }));
        assert!(found.is_err());
    }

    #[test]
    fn holes_and_written_zeroes_are_the_same_content_and_a_byte_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let file = File::create(&path).unwrap();
        file.set_len(10 << 30).unwrap();
        file.write_all_at(b"magic", 0).unwrap();
        let before = content_hash(&path);
        file.write_all_at(&[0; 8192], 1 << 20).unwrap();
        assert_eq!(content_hash(&path), before);
        file.write_all_at(b"x", 5 << 30).unwrap();
        let after = content_hash(&path);
        assert_ne!(after, before);
        file.set_len(11 << 30).unwrap();
        assert_ne!(content_hash(&path), after);
    }
}
