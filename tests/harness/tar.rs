//! A writer of tar archives that writes what it is told, hostile or broken: no library would.

use std::fs;
use std::path::Path;

const BLOCK_BYTES: usize = 512;

/// One entry's header fields. What archives of honest programs hold stands in `Default`.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// The name as it goes into the archive: up to 100 raw bytes.
    pub name: &'a [u8],
    /// The type flag: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` folder, `6` fifo.
    pub kind: u8,
    /// The permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Seconds since 1970.
    pub modified: u32,
    /// The target of a link.
    pub link: &'a [u8],
    /// The size that the header claims; the data's length if none.
    pub claimed_size_bytes: Option<u64>,
}

impl Default for Header<'_> {
    fn default() -> Self {
        Header {
            name: b"",
            kind: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: 1_700_000_000,
            link: b"",
            claimed_size_bytes: None,
        }
    }
}

/// Builds an archive in memory.
#[derive(Clone, Debug, Default)]
pub struct TarWriter {
    bytes: Vec<u8>,
}

fn put(block: &mut [u8; BLOCK_BYTES], at: usize, field: &[u8]) {
    block[at..at + field.len()].copy_from_slice(field);
}

impl TarWriter {
    /// An empty archive.
    pub fn new() -> TarWriter {
        TarWriter::default()
    }

    /// Adds an entry, its header as told and its data.
    #[must_use]
    pub fn entry(mut self, header: &Header<'_>, data: &[u8]) -> TarWriter {
        let length = u64::try_from(data.len()).expect("a length");
        let size_bytes = header.claimed_size_bytes.unwrap_or(length);
        let mut block = [0; BLOCK_BYTES];
        assert!(header.name.len() <= 100 && header.link.len() <= 100, "use a PAX header");
        put(&mut block, 0, header.name);
        put(&mut block, 100, format!("{:07o}\0", header.mode).as_bytes());
        put(&mut block, 108, format!("{:07o}\0", header.uid).as_bytes());
        put(&mut block, 116, format!("{:07o}\0", header.gid).as_bytes());
        put(&mut block, 124, format!("{size_bytes:011o}\0").as_bytes());
        put(&mut block, 136, format!("{:011o}\0", header.modified).as_bytes());
        put(&mut block, 148, b"        ");
        put(&mut block, 156, &[header.kind]);
        put(&mut block, 157, header.link);
        put(&mut block, 257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, data: &[u8]) -> TarWriter {
        self.entry(&Header { name: name.as_bytes(), ..Header::default() }, data)
    }

    /// Adds a folder.
    #[must_use]
    pub fn directory(self, name: &str) -> TarWriter {
        let name = format!("{name}/");
        let header = Header { name: name.as_bytes(), kind: b'5', mode: 0o755, ..Header::default() };
        self.entry(&header, b"")
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> TarWriter {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.entry(&Header { name, kind: b'2', mode: 0o777, link, ..Header::default() }, b"")
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> TarWriter {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.entry(&Header { name, kind: b'1', link, ..Header::default() }, b"")
    }

    /// Adds PAX records that hold for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> TarWriter {
        let mut body = Vec::new();
        for (key, value) in records {
            // "LENGTH KEY=VALUE\n", where LENGTH counts its own digits too.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(&Header { name: b"PaxHeaders/x", kind: b'x', ..Header::default() }, &body)
    }

    /// The archive's bytes, ended as it should be.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK_BYTES, 0);
        self.bytes
    }

    /// The archive's bytes without the two blocks that end it.
    pub fn finish_without_end(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes the archive to a file.
    pub fn write_to(self, path: &Path) {
        fs::write(path, self.finish()).expect("write a tar archive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gnu_tar_lists_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.tar");
        let long = "l".repeat(200);
        TarWriter::new()
            .directory("folder")
            .file("folder/file", b"hello")
            .hard_link("folder/second", "folder/file")
            .symlink("folder/link", "file")
            .pax(&[("path", long.as_bytes()), ("mtime", b"1700000000.5")])
            .file("replaced-by-pax", b"x")
            .write_to(&path);
        let listed = crate::run_tool("tar", &["-tf", path.to_str().unwrap()]).stdout_text();
        let expected = format!("folder/\nfolder/file\nfolder/second\nfolder/link\n{long}\n");
        assert_eq!(listed, expected);
    }
}
