//! The routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Json, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thinstore_storage::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use super::bridge::{BodyReader, Piece, PieceBody, PieceWriter, piece_channel};
use super::wire::{ERROR_TRAILER, ErrorBody, ErrorFields, Line, status};
use crate::operations::{Operations, Progress, ProgressEvent};
use crate::types::{CopyInRequest, ImportRequest, ScrubRequest, VersionInfo};

/// How often at most an operation says how many bytes it has read.
const ADVANCE_INTERVAL: Duration = Duration::from_millis(100);

/// What the routes need.
pub(super) struct Shared {
    pub(super) operations: Arc<dyn Operations>,
    pub(super) version: VersionInfo,
    /// Ends the daemon, or says why it cannot.
    pub(super) stop: Box<dyn Fn() -> Result<()> + Send + Sync>,
    pub(super) started: Instant,
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
}

type Ask = Arc<dyn Operations>;

/// The daemon's routes over any operations, without a socket and without an end: what a request is
/// answered, for tests.
pub fn routes(operations: Arc<dyn Operations>) -> Router {
    router(Arc::new(Shared {
        operations,
        version: VersionInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: super::API_VERSION,
            pid: std::process::id(),
            service: true,
            mount_namespace: super::mount_namespace(),
        },
        stop: Box::new(|| Ok(())),
        started: Instant::now(),
        requests: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    }))
}

/// All routes of the daemon.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let listings = Router::new()
        .route("/v1/images", asked(|store, ()| store.images()))
        .route("/v1/layers", asked(|store, ()| store.layers()))
        .route("/v1/tree", asked(|store, ()| store.tree()))
        .route("/v1/containers", asked(|store, ()| store.containers()))
        .route("/v1/volumes", asked(|store, ()| store.volumes()))
        .route("/v1/check", asked(|store, ()| store.check()))
        .route("/v1/inspect", asked(|store, request| store.inspect(&request)))
        .route("/v1/usage", asked(|store, request| store.usage(&request)))
        .route("/v1/diff", asked(|store, request| store.differences(&request)))
        .route("/v1/block-diff", asked(|store, request| store.block_differences(&request)));
    let streams = Router::new()
        .route("/v1/cat", streamed(|store, request, output| store.cat(&request, output)))
        .route("/v1/copy-out", streamed(|store, request, output| store.copy_out(&request, output)))
        .route("/v1/export", streamed(|store, request, output| store.export(&request, output)))
        .route("/v1/trace", streamed(|store, request, output| store.trace(&request, output)))
        .route("/v1/copy-in", post(copy_in))
        .route("/v1/import", post(import))
        .route("/v1/scrub", post(scrub));
    let changes = Router::new()
        .route("/v1/snapshot", ordered(|store, request| store.snapshot(&request)))
        .route("/v1/grow", ordered(|store, request| store.grow(&request)))
        .route("/v1/commit", ordered(|store, request| store.commit(&request)))
        .route("/v1/attach", ordered(|store, request| store.attach(&request)))
        .route("/v1/detach", ordered(|store, request| store.detach(&request)))
        .route("/v1/mount", ordered(|store, request| store.mount(&request)))
        .route("/v1/unmount", ordered(|store, request| store.unmount(&request)))
        .route("/v1/remove-container", ordered(|store, request| store.remove_container(&request)))
        .route("/v1/remove-image", ordered(|store, request| store.remove_image(&request)))
        .route("/v1/create-volume", ordered(|store, request| store.create_volume(&request)))
        .route("/v1/copy-volume", ordered(|store, request| store.copy_volume(&request)))
        .route("/v1/resize-volume", ordered(|store, request| store.resize_volume(&request)))
        .route("/v1/remove-volume", ordered(|store, request| store.remove_volume(&request)))
        .route("/v1/prune-volumes", ordered(|store, request| store.prune_volumes(&request)))
        .route("/v1/end-trace", ordered(|store, request| store.end_trace(&request)))
        .route("/v1/stop", post(stop));
    listings
        .merge(streams)
        .merge(changes)
        .route("/version", get(version))
        .route("/metrics", get(super::metrics::metrics))
        .fallback(unknown_route)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(shared.clone(), counted))
        .with_state(shared)
}

async fn counted(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let response = next.run(request).await;
    if !response.status().is_success() {
        shared.failures.fetch_add(1, Ordering::Relaxed);
    }
    response
}

async fn version(State(shared): State<Arc<Shared>>) -> Json<VersionInfo> {
    Json(shared.version.clone())
}

async fn unknown_route(request: Request) -> Response {
    let message = format!("the daemon has no {} {}", request.method(), request.uri().path());
    failure(&Error::new(ErrorKind::NotFound, message))
}

async fn stop(State(shared): State<Arc<Shared>>) -> Response {
    let ended = tokio::task::spawn_blocking(move || (shared.stop)()).await;
    answer(ended.unwrap_or_else(|_| Err(broken())))
}

/// An error as a response.
pub(super) fn failure(error: &Error) -> Response {
    (status(error.kind()), Json(ErrorBody::new(error))).into_response()
}

fn answer<R: Serialize>(result: Result<R>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => failure(&error),
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Io, "the request ended in a fault of the daemon; see daemon.log")
}

fn bad_request(why: &impl std::fmt::Display) -> Response {
    failure(&Error::new(ErrorKind::Usage, format!("the request is not understood: {why}")))
}

/// `GET`: the request stands in the query string, the answer is JSON.
fn asked<Q, R>(
    operation: impl Fn(&dyn Operations, Q) -> Result<R> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Shared>>
where
    Q: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    get(
        async move |State(shared): State<Arc<Shared>>,
                    query: std::result::Result<Query<Q>, QueryRejection>| {
            match query {
                Ok(Query(request)) => run(&shared, move |store| operation(store, request)).await,
                Err(why) => bad_request(&why),
            }
        },
    )
}

/// `POST`: the request is the JSON body, the answer is JSON.
fn ordered<Q, R>(
    operation: impl Fn(&dyn Operations, Q) -> Result<R> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Shared>>
where
    Q: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    post(
        async move |State(shared): State<Arc<Shared>>,
                    body: std::result::Result<Json<Q>, JsonRejection>| {
            match body {
                Ok(Json(request)) => run(&shared, move |store| operation(store, request)).await,
                Err(why) => bad_request(&why),
            }
        },
    )
}

async fn run<R: Serialize + Send + 'static>(
    shared: &Shared,
    operation: impl FnOnce(&dyn Operations) -> Result<R> + Send + 'static,
) -> Response {
    let operations: Ask = shared.operations.clone();
    let done = tokio::task::spawn_blocking(move || operation(operations.as_ref())).await;
    answer(done.unwrap_or_else(|_| Err(broken())))
}

/// `GET`: the answer is a stream of bytes. The status waits for the first of them, so that an
/// operation that fails at once answers with its error.
fn streamed<Q>(
    operation: impl Fn(&dyn Operations, Q, &mut PieceWriter) -> Result<()>
    + Clone
    + Send
    + Sync
    + 'static,
) -> MethodRouter<Arc<Shared>>
where
    Q: DeserializeOwned + Send + 'static,
{
    get(
        async move |State(shared): State<Arc<Shared>>,
                    headers: HeaderMap,
                    query: std::result::Result<Query<Q>, QueryRejection>| {
            let Query(request) = match query {
                Ok(query) => query,
                Err(why) => return bad_request(&why),
            };
            let (mut writer, mut receiver) = piece_channel();
            let operations: Ask = shared.operations.clone();
            tokio::task::spawn_blocking(move || {
                let result = operation(operations.as_ref(), request, &mut writer);
                writer.finish(result);
            });
            let first = receiver.recv().await;
            if let Some(Piece::Failed(error)) = &first {
                return failure(error);
            }
            let trailers = headers
                .get(header::TE)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.contains("trailers"));
            let Some(first) = first else {
                return StatusCode::OK.into_response();
            };
            let body = PieceBody::new(Some(first), receiver, trailers);
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::TRAILER, ERROR_TRAILER),
            ];
            (headers, Body::new(body)).into_response()
        },
    )
}

async fn copy_in(
    State(shared): State<Arc<Shared>>,
    query: std::result::Result<Query<CopyInRequest>, QueryRejection>,
    request: Request,
) -> Response {
    let Query(copy) = match query {
        Ok(query) => query,
        Err(why) => return bad_request(&why),
    };
    let reader = BodyReader::new(tokio::runtime::Handle::current(), request.into_body());
    run(&shared, move |store| store.copy_in(&copy, Box::new(reader))).await
}

async fn import(
    State(shared): State<Arc<Shared>>,
    query: std::result::Result<Query<ImportRequest>, QueryRejection>,
    request: Request,
) -> Response {
    let Query(import) = match query {
        Ok(query) => query,
        Err(why) => return bad_request(&why),
    };
    let reader = BodyReader::new(tokio::runtime::Handle::current(), request.into_body());
    in_lines(&shared, move |store, progress| {
        store.import(&import, Some(Box::new(reader)), progress)
    })
}

async fn scrub(
    State(shared): State<Arc<Shared>>,
    body: std::result::Result<Json<ScrubRequest>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(request)) => {
            in_lines(&shared, move |store, progress| store.scrub(&request, progress))
        }
        Err(why) => bad_request(&why),
    }
}

/// An operation that tells how far it is: a line of JSON for each step, the outcome in the last.
fn in_lines<R: Serialize>(
    shared: &Shared,
    operation: impl FnOnce(&dyn Operations, Arc<LineProgress>) -> Result<R> + Send + 'static,
) -> Response {
    let (sender, receiver) = mpsc::channel(64);
    let operations: Ask = shared.operations.clone();
    tokio::task::spawn_blocking(move || {
        let progress = Arc::new(LineProgress::new(sender.clone()));
        let outcome = operation(operations.as_ref(), progress.clone());
        progress.send_advance();
        let line = match outcome {
            Ok(outcome) => Line::Outcome(outcome),
            Err(error) => {
                let ErrorBody { error: ErrorFields { code, message } } = ErrorBody::new(&error);
                Line::Error(ErrorFields { code, message })
            }
        };
        // a client that has gone away needs no answer
        drop(sender.blocking_send(Piece::Data(line_bytes(&line))));
    });
    let body = PieceBody::new(None, receiver, false);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response()
}

fn line_bytes<R: Serialize>(line: &Line<R>) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

/// Progress as lines of JSON. A client that has gone away cancels the operation.
struct LineProgress {
    sender: mpsc::Sender<Piece>,
    gone: AtomicBool,
    advance: Mutex<(u64, Instant)>,
}

impl LineProgress {
    fn new(sender: mpsc::Sender<Piece>) -> LineProgress {
        let advance = Mutex::new((0, Instant::now()));
        LineProgress { sender, gone: AtomicBool::new(false), advance }
    }

    fn send(&self, event: ProgressEvent) {
        let piece = Piece::Data(line_bytes(&Line::<()>::Progress(event)));
        if self.sender.blocking_send(piece).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    fn send_advance(&self) {
        let bytes = std::mem::take(&mut self.advance.lock().0);
        if bytes > 0 {
            self.send(ProgressEvent::Advanced { bytes });
        }
    }
}

impl Progress for LineProgress {
    fn report(&self, event: &ProgressEvent) {
        if let ProgressEvent::Advanced { bytes } = event {
            let mut advance = self.advance.lock();
            advance.0 = advance.0.saturating_add(*bytes);
            if advance.1.elapsed() < ADVANCE_INTERVAL {
                return;
            }
            advance.1 = Instant::now();
            drop(advance);
            self.send_advance();
        } else {
            self.send_advance();
            self.send(event.clone());
        }
    }

    fn cancelled(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.sender.is_closed()
    }
}
