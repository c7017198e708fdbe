//! Making the tar of a layer again, from its recipe and its unpacked files.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result};

use super::{Crc64, FILE, Line, SEGMENT};
use crate::compress::Compression;
use crate::host::HostTree;
use crate::layer::pump::{Producer, Progress, Sink};
use crate::region::{CHUNK_BYTES, Region, from_io};
use crate::tar::base64;
use crate::{refuse, to_u64};

/// The longest line: a header with the largest extensions comes to a part of it.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A producer of the tar that `recipe` describes, with the contents that stand in `tree`. Whether it is
/// the promised one, its digest says.
pub(crate) fn assemble(
    recipe: Region,
    tree: Arc<HostTree>,
    total_bytes: u64,
    mut progress: Option<Progress>,
) -> Producer {
    Box::new(move |sink| {
        let name = recipe.name().to_owned();
        let damaged = |error: std::io::Error| refuse(format!("{name} is damaged: {error}"));
        let unread = |error| from_io(error, damaged);
        let buffered = BufReader::with_capacity(CHUNK_BYTES, recipe.reader()?);
        let plain = Compression::of(&recipe)?.reader(buffered).map_err(unread)?;
        let mut lines = BufReader::with_capacity(CHUNK_BYTES, plain);
        let mut text = Vec::new();
        let mut consumed = 0;
        loop {
            text.clear();
            lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text).map_err(unread)?;
            if text.is_empty() {
                return Ok((None, total_bytes));
            }
            let line: Line =
                serde_json::from_slice(&text).map_err(|error| damaged(error.into()))?;
            let payload = line.payload.as_ref().map(|payload| base64::decode(payload.as_bytes()));
            let payload = payload.unwrap_or_else(|| Some(Vec::new()));
            let raw = match &line.name_raw {
                Some(raw) => base64::decode(raw.as_bytes()),
                None => Some(line.name.clone().unwrap_or_default().into_bytes()),
            };
            let (Some(payload), Some(raw)) = (payload, raw) else {
                return Err(refuse(format!("{name} is damaged: it has no base64 where it should")));
            };
            match line.kind {
                SEGMENT => sink.write_all(&payload).map_err(broken_off)?,
                FILE if line.size == 0 => {}
                FILE => {
                    copy(&tree, &raw, line.size, &payload, sink)?;
                    consumed += line.size;
                    if let Some(progress) = &mut progress {
                        progress(consumed.min(total_bytes), total_bytes);
                    }
                }
                _ => return Err(refuse(format!("{name} has lines of an unknown kind"))),
            }
        }
    })
}

fn broken_off(error: std::io::Error) -> Error {
    from_io(error, |error| Error::io("a layer cannot be handed over", error))
}

/// Copies the content of one file, which must be what it was when the recipe was written.
fn copy(
    tree: &HostTree,
    name: &[u8],
    size_bytes: u64,
    checksum: &[u8],
    sink: &mut Sink,
) -> Result<()> {
    let (mut file, place) = tree.file_of_layer(name).map_err(|error| match error.kind() {
        // It is the image that is not whole; there is one.
        ErrorKind::NotFound => refuse(error.to_string()),
        _ => error,
    })?;
    let changed = |what: String| {
        refuse(format!("{place} is not the file that the layer was made of: {what}"))
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut crc = Crc64::new();
    let mut copied = 0;
    loop {
        let count = file
            .read(&mut chunk)
            .map_err(|error| Error::io(format!("{place} cannot be read"), error))?;
        if count == 0 {
            break;
        }
        let part = chunk.get(..count).unwrap_or_default();
        copied += to_u64(count);
        if copied > size_bytes {
            break;
        }
        crc.update(part);
        sink.write_all(part).map_err(broken_off)?;
    }
    if copied != size_bytes {
        return Err(changed(format!("its size is not {size_bytes} bytes")));
    }
    if crc.finish() != checksum {
        return Err(changed("its content is another".to_owned()));
    }
    Ok(())
}
