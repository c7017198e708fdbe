//! The operations, asked of the daemon over the store's socket.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, TE};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thinstore_storage::{Error, ErrorKind, Result};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::bridge::{PieceBody, read_in_background};
use super::wire::{ERROR_TRAILER, ErrorBody, Line};
use crate::layout::Layout;
use crate::operations::{Input, Operations, Progress};
use crate::types::{
    AttachOutcome, AttachRequest, BlockRange, CatRequest, CheckSummary, CommitOutcome,
    CommitRequest, ContainerSummary, CopyInRequest, CopyOutRequest, DetachOutcome, DiffRequest,
    ExportRequest, GrowOutcome, GrowRequest, ImageSummary, ImportOutcome, ImportRequest,
    InspectRequest, LayerSummary, MountOutcome, MountRequest, NameRequest, PathChange,
    PrunedVolumes, RemovedImage, ScrubRequest, ScrubSummary, SnapshotRequest, TreeEntry,
    UsageReport, UsageRequest, VersionInfo, VolumeCopyRequest, VolumeCreateRequest,
    VolumePruneRequest, VolumeResizeOutcome, VolumeResizeRequest, VolumeSummary,
};

/// How long a daemon may take to accept a connection and to say its version.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a running operation asks whether it shall end.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

type RequestBody = BoxBody<Bytes, std::io::Error>;

/// A connection to the daemon. As long as it is there the daemon does not end by itself.
pub struct Client {
    version: VersionInfo,
    connection: Mutex<Connection>,
}

struct Connection {
    runtime: Runtime,
    sender: SendRequest<RequestBody>,
}

fn gone(error: &impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("the daemon broke the connection off ({error}); see daemon.log in the store"),
    )
}

impl Client {
    /// Connects to the store's daemon. `None` if there is none: no socket, nobody at it, or one that
    /// is just ending.
    pub fn connect(layout: &Layout) -> Result<Option<Client>> {
        if !layout.daemon_socket().exists() {
            return Ok(None);
        }
        let (root, address) = layout.socket_address()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("cannot start the client", error))?;
        let greeting = async {
            let stream = match UnixStream::connect(&address).await {
                Ok(stream) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(Error::io(
                        format!(
                            "the daemon of the store {} is another user's",
                            layout.root().display()
                        ),
                        error,
                    ));
                }
                Err(_) => return Ok(None),
            };
            let Ok((mut sender, connection)) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
            else {
                return Ok(None);
            };
            tokio::spawn(connection);
            let request = build(Method::GET, "/version", None)?;
            let Ok(response) = sender.send_request(request).await else { return Ok(None) };
            let version: VersionInfo = decode(response).await?;
            Ok(Some((sender, version)))
        };
        let greeted = runtime.block_on(async {
            match tokio::time::timeout(GREETING_TIMEOUT, greeting).await {
                Ok(result) => result,
                Err(_) => Err(Error::new(
                    ErrorKind::InUse,
                    format!(
                        "the daemon of the store {} does not answer; look at daemon.log there",
                        layout.root().display()
                    ),
                )),
            }
        });
        drop(root);
        let Some((sender, version)) = greeted? else { return Ok(None) };
        if version.api_version != super::API_VERSION {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the daemon (process {}) is thinstore {} and speaks another version of the API; end it with its own 'thinstore serve --stop'",
                    version.pid, version.version
                ),
            ));
        }
        Ok(Some(Client { version, connection: Mutex::new(Connection { runtime, sender }) }))
    }

    /// What the daemon said of itself.
    pub fn version(&self) -> &VersionInfo {
        &self.version
    }

    /// Ends the daemon; an error of kind `InUse` if something is mounted. The daemon may still be
    /// closing the pool when this returns.
    pub fn stop(&self) -> Result<()> {
        self.post("/v1/stop", &())
    }

    fn get<Q: Serialize, R: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<R> {
        let request = build(Method::GET, &with_query(path, query)?, None)?;
        self.connection.lock().exchange(request)
    }

    fn post<Q: Serialize, R: DeserializeOwned>(&self, path: &str, body: &Q) -> Result<R> {
        let request = build(Method::POST, path, Some(json_body(body)?))?;
        self.connection.lock().exchange(request)
    }

    fn download<Q: Serialize>(&self, path: &str, query: &Q, output: &mut dyn Write) -> Result<()> {
        let request = build(Method::GET, &with_query(path, query)?, None)?;
        let mut connection = self.connection.lock();
        let Connection { runtime, sender } = &mut *connection;
        runtime.block_on(async {
            let response = send(sender, request).await?;
            let mut body = succeeded(response).await?.into_body();
            let mut failure = None;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| gone(&error))?;
                if let Some(data) = frame.data_ref() {
                    output.write_all(data).map_err(crate::output_failed)?;
                } else if let Some(trailers) = frame.trailers_ref()
                    && let Some(value) = trailers.get(ERROR_TRAILER)
                {
                    failure = Some(error_of(value.as_bytes()));
                }
            }
            failure.map_or(Ok(()), Err)
        })
    }
}

impl Connection {
    fn exchange<R: DeserializeOwned>(&mut self, request: Request<RequestBody>) -> Result<R> {
        let Connection { runtime, sender } = self;
        runtime.block_on(async {
            let response = send(sender, request).await?;
            decode(response).await
        })
    }

    /// An operation `what` whose answer comes in lines, until its outcome or until it shall end.
    fn exchange_lines<R: DeserializeOwned>(
        &mut self,
        request: Request<RequestBody>,
        progress: &dyn Progress,
        what: &str,
    ) -> Result<R> {
        let Connection { runtime, sender } = self;
        let exchange = async {
            let response = send(sender, request).await?;
            let mut body = succeeded(response).await?.into_body();
            let mut lines = LineBuffer::default();
            let mut outcome = None;
            // to its end also after the outcome: a connection whose answer is left unread is closed
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| gone(&error))?;
                if let Some(data) = frame.data_ref()
                    && outcome.is_none()
                {
                    outcome = lines.take(data, progress).transpose();
                }
            }
            outcome.unwrap_or_else(|| Err(gone(&"the answer has no end")))
        };
        let cancelled = async {
            while !progress.cancelled() {
                tokio::time::sleep(CANCEL_INTERVAL).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                result = exchange => result,
                () = cancelled => Err(crate::interrupted(what)),
            }
        })
    }
}

fn not_sendable(error: &impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, format!("the request cannot be written: {error}"))
}

fn with_query<Q: Serialize>(path: &str, query: &Q) -> Result<String> {
    let query = serde_urlencoded::to_string(query).map_err(|error| not_sendable(&error))?;
    Ok(if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") })
}

fn build(method: Method, uri: &str, body: Option<RequestBody>) -> Result<Request<RequestBody>> {
    let body = body.unwrap_or_else(|| Full::default().map_err(|never| match never {}).boxed());
    Request::builder()
        .method(method)
        .uri(uri)
        .header(HOST, "thinstore")
        .header(TE, "trailers")
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| not_sendable(&error))
}

fn json_body<Q: Serialize>(request: &Q) -> Result<RequestBody> {
    let text = serde_json::to_vec(request).map_err(|error| not_sendable(&error))?;
    Ok(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed())
}

async fn send(
    sender: &mut SendRequest<RequestBody>,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>> {
    sender.ready().await.map_err(|error| gone(&error))?;
    sender.send_request(request).await.map_err(|error| gone(&error))
}

fn error_of(text: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorBody>(text) {
        Ok(body) => body.into_error(),
        Err(_) => gone(&String::from_utf8_lossy(text)),
    }
}

async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let body = response.into_body().collect().await.map_err(|error| gone(&error))?;
    Err(error_of(&body.to_bytes()))
}

async fn decode<R: DeserializeOwned>(response: Response<Incoming>) -> Result<R> {
    let body = succeeded(response).await?.into_body();
    let body = body.collect().await.map_err(|error| gone(&error))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| gone(&error))
}

/// Takes the lines of such an answer apart as they come.
#[derive(Default)]
struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// The outcome, once its line is complete; progress on the way.
    fn take<R: DeserializeOwned>(
        &mut self,
        data: &[u8],
        progress: &dyn Progress,
    ) -> Result<Option<R>> {
        self.0.extend_from_slice(data);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(|error| gone(&error))? {
                Line::Progress(event) => progress.report(&event),
                Line::Outcome(outcome) => return Ok(Some(outcome)),
                Line::Error(error) => return Err(ErrorBody { error }.into_error()),
            }
        }
        Ok(None)
    }
}

impl Operations for Client {
    fn images(&self) -> Result<Vec<ImageSummary>> {
        self.get("/v1/images", &())
    }

    fn layers(&self) -> Result<Vec<LayerSummary>> {
        self.get("/v1/layers", &())
    }

    fn tree(&self) -> Result<Vec<TreeEntry>> {
        self.get("/v1/tree", &())
    }

    fn containers(&self) -> Result<Vec<ContainerSummary>> {
        self.get("/v1/containers", &())
    }

    fn import(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome> {
        let body =
            input.map(|input| PieceBody::new(None, read_in_background(input), false).boxed());
        let request = build(Method::POST, &with_query("/v1/import", request)?, body)?;
        self.connection.lock().exchange_lines(request, progress.as_ref(), "the import")
    }

    fn snapshot(&self, request: &SnapshotRequest) -> Result<ContainerSummary> {
        self.post("/v1/snapshot", request)
    }

    fn remove_container(&self, request: &NameRequest) -> Result<()> {
        self.post("/v1/remove-container", request)
    }

    fn remove_image(&self, request: &NameRequest) -> Result<RemovedImage> {
        self.post("/v1/remove-image", request)
    }

    fn inspect(&self, request: &InspectRequest) -> Result<serde_json::Value> {
        self.get("/v1/inspect", request)
    }

    fn usage(&self, request: &UsageRequest) -> Result<UsageReport> {
        self.get("/v1/usage", request)
    }

    fn grow(&self, request: &GrowRequest) -> Result<GrowOutcome> {
        self.post("/v1/grow", request)
    }

    fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        self.post("/v1/commit", request)
    }

    fn differences(&self, request: &DiffRequest) -> Result<Vec<PathChange>> {
        self.get("/v1/diff", request)
    }

    fn block_differences(&self, request: &DiffRequest) -> Result<Vec<BlockRange>> {
        self.get("/v1/block-diff", request)
    }

    fn cat(&self, request: &CatRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.download("/v1/cat", request, output)
    }

    fn copy_out(&self, request: &CopyOutRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.download("/v1/copy-out", request, output)
    }

    fn copy_in(&self, request: &CopyInRequest, input: Input) -> Result<()> {
        let body = PieceBody::new(None, read_in_background(input), false).boxed();
        let request = build(Method::POST, &with_query("/v1/copy-in", request)?, Some(body))?;
        self.connection.lock().exchange(request)
    }

    fn export(&self, request: &ExportRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.download("/v1/export", request, output)
    }

    fn attach(&self, request: &AttachRequest) -> Result<AttachOutcome> {
        self.post("/v1/attach", request)
    }

    fn detach(&self, request: &NameRequest) -> Result<DetachOutcome> {
        self.post("/v1/detach", request)
    }

    fn mount(&self, request: &MountRequest) -> Result<MountOutcome> {
        self.post("/v1/mount", request)
    }

    fn unmount(&self, request: &NameRequest) -> Result<DetachOutcome> {
        self.post("/v1/unmount", request)
    }

    fn volumes(&self) -> Result<Vec<VolumeSummary>> {
        self.get("/v1/volumes", &())
    }

    fn create_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        self.post("/v1/create-volume", request)
    }

    fn copy_volume(&self, request: &VolumeCopyRequest) -> Result<VolumeSummary> {
        self.post("/v1/copy-volume", request)
    }

    fn resize_volume(&self, request: &VolumeResizeRequest) -> Result<VolumeResizeOutcome> {
        self.post("/v1/resize-volume", request)
    }

    fn remove_volume(&self, request: &NameRequest) -> Result<()> {
        self.post("/v1/remove-volume", request)
    }

    fn prune_volumes(&self, request: &VolumePruneRequest) -> Result<PrunedVolumes> {
        self.post("/v1/prune-volumes", request)
    }

    fn check(&self) -> Result<CheckSummary> {
        self.get("/v1/check", &())
    }

    fn trace(&self, request: &NameRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.download("/v1/trace", request, output)
    }

    fn end_trace(&self, request: &NameRequest) -> Result<()> {
        self.post("/v1/end-trace", request)
    }

    fn scrub(&self, request: &ScrubRequest, progress: Arc<dyn Progress>) -> Result<ScrubSummary> {
        let request = build(Method::POST, "/v1/scrub", Some(json_body(request)?))?;
        self.connection.lock().exchange_lines(request, progress.as_ref(), "the scrub")
    }
}
