//! The second thread of a layer: it reads, decompresses and hashes while the caller writes.
//!
//! Buffers go to the caller through a bounded channel and come back through another, so that a pass
//! over a layer of any size holds a handful of them. Dropping the caller's end stops the thread.

use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use thinstore_storage::{Error, ErrorKind, Result};

use crate::compress::Compression;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::region::{CHUNK_BYTES, Region, RegionReader, from_io};
use crate::tar::members::TarStream;
use crate::{refuse, to_u64};

/// Buffers between the two threads.
const BUFFERS: usize = 8;

/// Told the compressed bytes consumed so far and their total, from the reading thread.
pub type Progress = Box<dyn FnMut(u64, u64) + Send>;

/// What a pass over a blob found.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    /// The digest of the blob as it is stored, where one was asked for.
    pub(crate) blob: Option<Digest>,
    /// The digest of the uncompressed tar.
    pub(crate) diff: Digest,
    pub(crate) compressed_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
}

enum Message {
    Data(Vec<u8>),
    End(Totals),
    Failed(Error),
}

/// What makes the uncompressed bytes: runs on the thread, writes into the sink, and says how large the
/// blob was and what its digest is.
pub(crate) type Producer = Box<dyn FnOnce(&mut Sink) -> Result<(Option<Digest>, u64)> + Send>;

/// The thread's end: takes bytes, hashes them, and hands them over in whole buffers.
pub(crate) struct Sink {
    hasher: Hasher,
    bytes: u64,
    current: Vec<u8>,
    sender: SyncSender<Message>,
    empty: Receiver<Vec<u8>>,
}

impl Sink {
    /// Reads `source` to its end into buffers, which spares a copy.
    fn take_all(&mut self, source: &mut dyn Read) -> io::Result<()> {
        loop {
            self.flush_buffer()?;
            let mut buffer = std::mem::take(&mut self.current);
            buffer.resize(CHUNK_BYTES, 0);
            let filled = fill(source, &mut buffer);
            buffer.truncate(*filled.as_ref().unwrap_or(&0));
            self.current = buffer;
            if filled? < CHUNK_BYTES {
                return self.flush_buffer();
            }
        }
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        let mut next = self.empty.try_recv().unwrap_or_default();
        next.clear();
        let full = std::mem::replace(&mut self.current, next);
        self.hasher.update(&full);
        self.bytes += to_u64(full.len());
        self.sender.send(Message::Data(full)).map_err(|_| {
            io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the layer any more")
        })
    }
}

/// Fills all of `buffer`, or what there is.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.current.len() >= CHUNK_BYTES {
            self.flush_buffer()?;
        }
        let room = CHUNK_BYTES - self.current.len();
        let part = data.get(..room.min(data.len())).unwrap_or_default();
        self.current.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_buffer()
    }
}

/// Reads a blob through a hash and counts it.
struct Tap {
    reader: RegionReader,
    hasher: Option<Hasher>,
    consumed: u64,
    total: u64,
    progress: Option<Progress>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        self.consumed += to_u64(count);
        if let Some(progress) = &mut self.progress {
            progress(self.consumed, self.total);
        }
        Ok(count)
    }
}

/// A producer that decompresses `region`. `blob_algorithm` asks for the digest of the stored bytes.
pub(crate) fn decompress(
    region: Region,
    compression: Compression,
    blob_algorithm: Option<Algorithm>,
    progress: Option<Progress>,
) -> Producer {
    Box::new(move |sink| {
        // The stored bytes of an uncompressed blob are the tar: one hash serves for both.
        let tar_is_blob =
            compression == Compression::None && blob_algorithm == Some(sink.hasher.algorithm());
        let mut tap = Tap {
            reader: region.reader()?,
            hasher: blob_algorithm.filter(|_| !tar_is_blob).map(Hasher::new),
            consumed: 0,
            total: region.length_bytes(),
            progress,
        };
        let damaged = |error: io::Error| {
            let form = compression.name();
            refuse(format!("{} is damaged or truncated {form} data: {error}", region.name()))
        };
        {
            let buffered = BufReader::with_capacity(CHUNK_BYTES, &mut tap);
            let mut plain =
                compression.reader(buffered).map_err(|error| from_io(error, damaged))?;
            sink.take_all(&mut plain).map_err(|error| from_io(error, damaged))?;
        }
        // A decoder may stop before the end of the blob; the digest covers all of it.
        io::copy(&mut tap, &mut io::sink()).map_err(|error| from_io(error, damaged))?;
        let blob = match tap.hasher {
            Some(hasher) => Some(hasher.finish()),
            None if tar_is_blob => Some(sink.hasher.clone().finish()),
            None => None,
        };
        Ok((blob, tap.consumed))
    })
}

/// The caller's end: the uncompressed bytes, and at their end the totals.
pub(crate) struct Piped {
    receiver: Option<Receiver<Message>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    totals: Option<Totals>,
    thread: Option<JoinHandle<()>>,
}

impl Piped {
    /// Starts the thread. `diff_algorithm` is the hash function of the uncompressed bytes.
    pub(crate) fn start(diff_algorithm: Algorithm, producer: Producer) -> Result<Piped> {
        let (sender, receiver) = sync_channel(BUFFERS);
        let (empty_sender, empty) = channel();
        let work = move || {
            let mut sink = Sink {
                hasher: Hasher::new(diff_algorithm),
                bytes: 0,
                current: Vec::new(),
                sender,
                empty,
            };
            let outcome = producer(&mut sink).and_then(|(blob, compressed_bytes)| {
                sink.flush_buffer()
                    .map_err(|error| Error::io("a layer cannot be handed over", error))?;
                Ok((blob, compressed_bytes))
            });
            let message = match outcome {
                Ok((blob, compressed_bytes)) => Message::End(Totals {
                    blob,
                    diff: sink.hasher.finish(),
                    compressed_bytes,
                    uncompressed_bytes: sink.bytes,
                }),
                Err(error) => Message::Failed(error),
            };
            // Nobody there to hear it is the caller's wish.
            let _ = sink.sender.send(message);
        };
        let thread = std::thread::Builder::new()
            .name("thinstore-layer".to_owned())
            .spawn(work)
            .map_err(|error| Error::io("no thread can be started to read a layer", error))?;
        Ok(Piped {
            receiver: Some(receiver),
            empty: empty_sender,
            current: Vec::new(),
            position: 0,
            totals: None,
            thread: Some(thread),
        })
    }

    /// The totals, once the end has been reached.
    pub(crate) fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }

    /// Makes sure that unread bytes stand in the current buffer; false at the end.
    fn refill(&mut self) -> Result<bool> {
        while self.position >= self.current.len() {
            let Some(receiver) = &self.receiver else {
                return Ok(false);
            };
            match receiver.recv() {
                Ok(Message::Data(data)) => {
                    let used = std::mem::replace(&mut self.current, data);
                    self.position = 0;
                    // The thread may be gone already, and its buffers with it.
                    let _ = self.empty.send(used);
                }
                Ok(Message::End(totals)) => {
                    self.totals = Some(totals);
                    self.receiver = None;
                }
                Ok(Message::Failed(error)) => {
                    self.receiver = None;
                    return Err(error);
                }
                Err(_) => {
                    self.receiver = None;
                    return Err(Error::new(
                        ErrorKind::Io,
                        "the thread that reads a layer ended before the layer did",
                    ));
                }
            }
        }
        Ok(true)
    }
}

impl TarStream for Piped {
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() || !self.refill()? {
            return Ok(0);
        }
        let ready = self.current.get(self.position..).unwrap_or_default();
        let count = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), ready.get(..count)) {
            to.copy_from_slice(from);
        }
        self.position += count;
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64> {
        let mut skipped = 0;
        while skipped < count && self.refill()? {
            let ready = self.current.len() - self.position;
            let step = usize::try_from(count - skipped).unwrap_or(usize::MAX).min(ready);
            self.position += step;
            skipped += to_u64(step);
        }
        Ok(skipped)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // The receiver goes first: the thread's next send fails, and it ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
