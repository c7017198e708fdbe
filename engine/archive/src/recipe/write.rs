//! Writing the recipe of a tar.

use std::io::{BufWriter, Write};
use std::path::Path;

use flate2::write::GzEncoder;
use thinstore_storage::{Error, Result};

use super::{Crc64, FILE, Line, SEGMENT};
use crate::layer::Layer;
use crate::region::CHUNK_BYTES;
use crate::tar::base64;
use crate::tar::members::{Members, TarStream};
use crate::to_u64;

/// Keeps what passes through, but for the contents of files.
struct Tee<S> {
    inner: S,
    segment: Vec<u8>,
    in_content: bool,
}

impl<S: TarStream> TarStream for Tee<S> {
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.inner.read_some(buffer)?;
        if !self.in_content {
            self.segment.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64> {
        let mut skipped = 0;
        let mut chunk = [0; 4096];
        while skipped < count {
            let want = usize::try_from(count - skipped).unwrap_or(usize::MAX).min(chunk.len());
            match self.read_some(chunk.get_mut(..want).unwrap_or_default())? {
                0 => break,
                read => skipped += to_u64(read),
            }
        }
        Ok(skipped)
    }
}

struct Lines<W: Write> {
    output: W,
    position: u64,
}

impl<W: Write> Lines<W> {
    fn segment(&mut self, bytes: Vec<u8>) -> std::io::Result<()> {
        let payload = Some(text(&bytes));
        self.line(Line { kind: SEGMENT, name: None, name_raw: None, size: 0, payload, position: 0 })
    }

    fn file(&mut self, name: &[u8], size: u64, crc: Option<[u8; 8]>) -> std::io::Result<()> {
        let (name, name_raw) = match std::str::from_utf8(name) {
            Ok(name) => (Some(name.to_owned()), None),
            Err(_) => (None, Some(text(name))),
        };
        let payload = crc.map(|crc| text(&crc));
        self.line(Line { kind: FILE, name, name_raw, size, payload, position: 0 })
    }

    fn line(&mut self, line: Line) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.output, &Line { position: self.position, ..line })?;
        self.output.write_all(b"\n")?;
        self.position += 1;
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    base64::encode(bytes).into_iter().map(char::from).collect()
}

/// Writes the recipe of a layer's tar to `path`; the bytes of all contents together.
pub(crate) fn write_recipe(layer: &Layer, path: &Path) -> Result<u64> {
    let failed = |error| Error::io(format!("'{}' cannot be written", path.display()), error);
    let file = std::fs::File::create_new(path).map_err(failed)?;
    let gzip = GzEncoder::new(BufWriter::new(file), flate2::Compression::default());
    let mut lines = Lines { output: BufWriter::with_capacity(CHUNK_BYTES, gzip), position: 0 };
    let tee = Tee { inner: layer.stream_unverified()?, segment: Vec::new(), in_content: false };
    let mut members = Members::new(tee, layer.budget(), true);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total_bytes = 0;
    while let Some(member) = members.next()? {
        lines.segment(std::mem::take(&mut members.stream_mut().segment)).map_err(failed)?;
        let mut crc = Crc64::new();
        members.stream_mut().in_content = true;
        loop {
            let count = members.read_content(&mut chunk)?;
            if count == 0 {
                break;
            }
            crc.update(chunk.get(..count).unwrap_or_default());
        }
        members.stream_mut().in_content = false;
        let crc = (member.stored_bytes > 0).then(|| crc.finish());
        lines.file(&member.name, member.stored_bytes, crc).map_err(failed)?;
        total_bytes += member.stored_bytes;
    }
    members.drain()?;
    lines.segment(std::mem::take(&mut members.stream_mut().segment)).map_err(failed)?;
    let gzip = lines.output.into_inner().map_err(|error| failed(error.into_error()))?;
    let mut file = gzip.finish().map_err(failed)?;
    file.flush().map_err(failed)?;
    Ok(total_bytes)
}
