//! The images that workloads ask for, as docker-save archives: files of bytes that do not compress, below as many
//! layers as are wanted.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use thinstore_compare::run::ImageOrder;
use thinstore_compare::workload::Content;

use super::programs::{HostFile, with_libraries};

/// All times in an image: 2024-01-01.
const TIME: u64 = 1_704_067_200;

/// Bytes that are the same every time (xorshift64), without an end.
struct Noise {
    state: u64,
    left: Vec<u8>,
}

impl Noise {
    fn new(seed: u64) -> Noise {
        Noise {
            state: seed.wrapping_mul(2).wrapping_add(0x2545_f491_4f6c_dd1d) | 1,
            left: Vec::new(),
        }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() {
            for _ in 0..8192 {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.left.extend_from_slice(&self.state.to_le_bytes());
            }
        }
        let count = buffer.len().min(self.left.len());
        let rest = self.left.split_off(count);
        let bytes = std::mem::replace(&mut self.left, rest);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&bytes);
        }
        Ok(count)
    }
}

/// Knows the digest of what went through it.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn header(size_bytes: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(size_bytes);
    header
}

/// Writes a layer's tar; its digest.
fn write_layer(
    path: &Path,
    files: &[(String, Content<u64>)],
    programs: &[HostFile],
) -> io::Result<String> {
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut tar = Builder::new(Hashed { inner: file, hash: Sha256::new() });
    for (number, (name, content)) in files.iter().enumerate() {
        match content {
            Content::Noise(size_bytes) => {
                let noise = Noise::new(u64::try_from(number).unwrap_or(0)).take(*size_bytes);
                tar.append_data(&mut header(*size_bytes), name, noise)?;
            }
            Content::Text(text) => {
                let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
                tar.append_data(&mut header(length), name, text.as_bytes())?;
            }
        }
    }
    for program in programs {
        let mut source = File::open(&program.source)?;
        let mut header = header(source.metadata()?.len());
        header.set_mode(0o755);
        tar.append_data(&mut header, &program.path, &mut source)?;
    }
    let mut written = tar.into_inner()?;
    written.flush()?;
    let digest: String = written.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digest}"))
}

/// Writes an image as an archive; `folder` takes its layers for the moment.
pub fn write(order: &ImageOrder, folder: &Path, archive: &Path) -> io::Result<()> {
    let mut programs: Vec<HostFile> = Vec::new();
    for program in &order.programs {
        let more = with_libraries(program)?;
        // Libraries that two programs share are in the image once.
        programs
            .extend(more.into_iter().filter(|file| !programs.contains(file)).collect::<Vec<_>>());
    }
    let mut layers = Vec::new();
    for number in 0..order.layers {
        let name = format!("{number}.tar");
        let path = folder.join(&name);
        let digest = match number {
            0 => write_layer(&path, &order.files, &programs)?,
            _ => write_layer(&path, &[(format!("layer{number}"), Content::Noise(64))], &[])?,
        };
        layers.push((name, digest));
    }
    let diff_ids: Vec<&str> = layers.iter().map(|(_, digest)| digest.as_str()).collect();
    let names: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": ["bench:latest"], "Layers": names}
    ]);
    let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, File::create(archive)?));
    for (name, document) in [("config.json", &config), ("manifest.json", &manifest)] {
        let text = document.to_string();
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        tar.append_data(&mut header(length), name, text.as_bytes())?;
    }
    for name in &names {
        let path = folder.join(name);
        let mut layer = File::open(&path)?;
        let length = layer.metadata()?.len();
        tar.append_data(&mut header(length), name, &mut layer)?;
        std::fs::remove_file(&path)?;
    }
    tar.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_bytes_every_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let order = ImageOrder {
            base: None,
            layers: 3,
            files: vec![
                ("data".to_owned(), Content::Noise(100_000)),
                ("empty".to_owned(), Content::Noise(0)),
                ("a/text".to_owned(), Content::Text("a text".to_owned())),
            ],
            programs: vec!["sh".to_owned(), "sh".to_owned()],
        };
        let image = |name: &str| {
            let path = folder.path().join(name);
            write(&order, folder.path(), &path).expect("written");
            std::fs::read(path).expect("an archive")
        };
        let first = image("a");
        assert_eq!(first, image("b"));
        assert!(first.len() > 100_000);
    }
}
