//! Archives made byte by byte, by code that shares nothing with the code under test.

/// A tar in the making.
#[derive(Clone, Default)]
pub struct RawTar {
    pub bytes: Vec<u8>,
}

/// A header whose every field can be set as raw bytes.
#[derive(Clone)]
pub struct RawHeader(pub [u8; 512]);

impl RawHeader {
    pub fn new(name: &[u8], kind: u8, size: u64) -> RawHeader {
        let mut header = RawHeader([0; 512]);
        header.set(0, name);
        header.set(100, b"0000644\0");
        header.set(108, b"0000000\0");
        header.set(116, b"0000000\0");
        header.set(124, format!("{size:011o}\0").as_bytes());
        header.set(136, b"00000000000\0");
        header.0[156] = kind;
        header.set(257, b"ustar\x0000");
        header
    }

    pub fn gnu(mut self) -> RawHeader {
        self.set(257, b"ustar  \0");
        self
    }

    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn with(mut self, at: usize, bytes: &[u8]) -> RawHeader {
        self.set(at, bytes);
        self
    }

    pub fn link(self, target: &[u8]) -> RawHeader {
        self.with(157, target)
    }

    pub fn sealed(mut self) -> [u8; 512] {
        self.set(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

impl RawTar {
    pub fn new() -> RawTar {
        RawTar::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> RawTar {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn entry(mut self, header: RawHeader, content: &[u8]) -> RawTar {
        self.bytes.extend_from_slice(&header.sealed());
        self.bytes.extend_from_slice(content);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> RawTar {
        self.entry(RawHeader::new(name.as_bytes(), b'0', content.len() as u64), content)
    }

    pub fn folder(self, name: &str) -> RawTar {
        let header = RawHeader::new(name.as_bytes(), b'5', 0).with(100, b"0000755\0");
        self.entry(header, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> RawTar {
        self.entry(RawHeader::new(name.as_bytes(), b'1', 0).link(target.as_bytes()), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> RawTar {
        self.entry(RawHeader::new(name.as_bytes(), b'2', 0).link(target.as_bytes()), b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> RawTar {
        self.extension(b'x', &pax(records))
    }

    pub fn extension(self, kind: u8, body: &[u8]) -> RawTar {
        self.entry(RawHeader::new(b"extension", kind, body.len() as u64), body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}
