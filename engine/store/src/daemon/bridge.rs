//! Between blocking code, which reads and writes, and HTTP bodies, which are polled.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::header::{HeaderMap, HeaderValue};
use thinstore_storage::Error;
use tokio::sync::mpsc;

use super::wire::{ERROR_TRAILER, ErrorBody};

/// How many pieces wait between the two sides.
const PIECES: usize = 8;

/// How large a piece is at most.
const PIECE_BYTES: usize = 128 * 1024;

/// How much of a body nobody wants is read, so that its sender hears the answer.
const DRAINED_BYTES: usize = 1 << 30;

/// How long the sender of such a body may send nothing.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);

/// A part of a body that blocking code makes.
pub(super) enum Piece {
    Data(Bytes),
    /// The last one, if something went wrong.
    Failed(Error),
}

/// The blocking end: gathers small writes into pieces.
pub(super) struct PieceWriter {
    sender: mpsc::Sender<Piece>,
    gathered: Vec<u8>,
}

/// A writer, and the body that its bytes come out of.
pub(super) fn piece_channel() -> (PieceWriter, mpsc::Receiver<Piece>) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (PieceWriter { sender, gathered: Vec::with_capacity(PIECE_BYTES) }, receiver)
}

fn gone_away() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other side has gone away")
}

impl PieceWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE_BYTES));
        self.sender.blocking_send(Piece::Data(Bytes::from(piece))).map_err(|_| gone_away())
    }

    /// Sends what is gathered, and the error if there is one.
    pub(super) fn finish(mut self, result: thinstore_storage::Result<()>) {
        let result = result
            .and_then(|()| self.send().map_err(|error| Error::io("cannot send the answer", error)));
        if let Err(error) = result {
            // a receiver that has gone away needs no answer
            drop(self.sender.blocking_send(Piece::Failed(error)));
        }
    }
}

impl Write for PieceWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES.saturating_sub(self.gathered.len());
        let part = data.get(..room.min(data.len())).unwrap_or(data);
        self.gathered.extend_from_slice(part);
        if self.gathered.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(part.len())
    }

    /// Also says whether anybody is still there, where there was nothing to send.
    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        if self.sender.is_closed() { Err(gone_away()) } else { Ok(()) }
    }
}

/// The polled end: a body of pieces.
pub(super) struct PieceBody {
    first: Option<Piece>,
    receiver: mpsc::Receiver<Piece>,
    /// May an error be sent as a trailer? Otherwise it breaks the body off.
    trailers: bool,
    ended: bool,
}

impl PieceBody {
    pub(super) fn new(
        first: Option<Piece>,
        receiver: mpsc::Receiver<Piece>,
        trailers: bool,
    ) -> PieceBody {
        PieceBody { first, receiver, trailers, ended: false }
    }
}

impl Body for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(piece) => Some(piece),
            None => match self.receiver.poll_recv(context) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
        };
        match piece {
            Some(Piece::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Piece::Failed(error)) => {
                self.ended = true;
                let text = serde_json::to_vec(&ErrorBody::new(&error)).unwrap_or_default();
                match HeaderValue::from_bytes(&text) {
                    Ok(value) if self.trailers => {
                        let mut trailers = HeaderMap::new();
                        trailers.insert(ERROR_TRAILER, value);
                        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                    }
                    _ => Poll::Ready(Some(Err(io::Error::other(error)))),
                }
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }
}

/// Reads a body from a thread that may block.
pub(super) struct BodyReader {
    runtime: tokio::runtime::Handle,
    body: axum::body::Body,
    chunk: Bytes,
}

impl BodyReader {
    pub(super) fn new(runtime: tokio::runtime::Handle, body: axum::body::Body) -> BodyReader {
        BodyReader { runtime, body, chunk: Bytes::new() }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.body.frame()) {
                None => return Ok(0),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.chunk = data;
                    }
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        let part = self.chunk.split_to(count);
        if let Some(target) = buffer.get_mut(..count) {
            target.copy_from_slice(&part);
        }
        Ok(count)
    }
}

/// A request that fails early leaves the rest of its body. It is read all the same: a client that is cut
/// off while it sends does not come to read why. One that sends nothing for a moment is not waited for: it
/// is listening.
impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut left = DRAINED_BYTES;
        while left > 0 {
            let body = &mut self.body;
            let next = async { tokio::time::timeout(DRAIN_PATIENCE, body.frame()).await };
            match self.runtime.block_on(next) {
                Ok(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    left = left.saturating_sub(length.max(1));
                }
                Ok(None | Some(Err(_))) | Err(_) => return,
            }
        }
    }
}

/// Reads `input` to its end on a thread of its own, as the pieces of a body. The thread is not waited
/// for: it may hang in a read of a terminal long after the request has failed.
pub(super) fn read_in_background(mut input: crate::operations::Input) -> mpsc::Receiver<Piece> {
    let (mut writer, receiver) = piece_channel();
    let copy = move || {
        let result = io::copy(&mut input, &mut writer)
            .map(drop)
            .map_err(|error| Error::io("cannot read the input", error));
        writer.finish(result);
    };
    // without a thread the body is empty, and the request fails for that
    drop(std::thread::Builder::new().name("input".to_owned()).spawn(copy));
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{API_VERSION, Client};
    use crate::layout::Layout;
    use crate::operations::Operations;
    use crate::types::{CatRequest, VersionInfo};
    use axum::Router;
    use axum::http::header::{TE, TRAILER};
    use axum::routing::get;
    use thinstore_storage::ErrorKind;

    fn version() -> VersionInfo {
        VersionInfo {
            version: "0".to_owned(),
            api_version: API_VERSION,
            pid: 0,
            service: false,
            mount_namespace: 0,
        }
    }

    /// Answers `cat` with half a megabyte, and then an error.
    async fn broken_cat(headers: HeaderMap) -> impl axum::response::IntoResponse {
        let (mut writer, receiver) = piece_channel();
        tokio::task::spawn_blocking(move || {
            let written = writer.write_all(&vec![7; 512 << 10]);
            let error = Error::new(ErrorKind::Corrupt, "block 7 – is damaged");
            writer.finish(written.map_err(|error| Error::io("", error)).and(Err(error)));
        });
        let trailers = headers.contains_key(TE);
        let body = axum::body::Body::new(PieceBody::new(None, receiver, trailers));
        ([(TRAILER, ERROR_TRAILER)], body)
    }

    #[test]
    fn an_error_in_the_middle_of_a_stream_reaches_the_client_with_its_kind() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(layout.daemon_socket()).expect("a socket")
        };
        let router = Router::new()
            .route("/version", get(|| async { axum::Json(version()) }))
            .route("/v1/cat", get(broken_cat));
        runtime.spawn(async move { axum::serve(listener, router).await });
        let client = Client::connect(&layout).expect("connected").expect("somebody");
        for _ in 0..3 {
            let mut received = Vec::new();
            let request = CatRequest::default();
            let error = client.cat(&request, &mut received).expect_err("the error");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(error.to_string(), "block 7 – is damaged");
            assert_eq!(received.len(), 512 << 10, "what came before is there");
        }
        let missing = client.images().expect_err("no such route");
        assert!(missing.to_string().contains("broke the connection off"), "{missing}");
    }
}
