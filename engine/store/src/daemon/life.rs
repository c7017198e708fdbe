//! The daemon's life: own the pool, listen, serve, and end when nothing needs it.
//!
//! Order of the start: the pool's lock first (a second daemon ends here), then what a killed one left
//! is cleaned up, then the socket (made under another name and renamed over a stale one), then
//! `daemon.json`, and only then is it announced. Order of the end: the listener first, so that no new
//! request comes, then running requests, devices, socket and `daemon.json`, and the pool last: whoever
//! gets the pool's lock finds no socket of ours.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thinstore_pool::OnFull;
use thinstore_storage::{Error, ErrorKind, Result};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::listener::{ConnectionCount, PeerListener};
use super::server::{Shared, router};
use super::start::DaemonRecord;
use crate::layout::{Layout, remove_durably, write_durably};
use crate::store::{OpenMode, Store};
use crate::types::VersionInfo;

/// How often the daemon looks whether it is idle.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a service waits for a pool that is in use. A daemon that a command starts does not wait: the
/// command tries again, and may find another daemon.
const SERVICE_PATIENCE: Duration = Duration::from_secs(2);

/// How the daemon is to live.
pub struct ServeOptions {
    /// Stay until told to end, also when nothing needs it.
    pub service: bool,
    /// How long nothing may need it before it ends (when it is not a service).
    pub idle: Duration,
    /// What a write does that finds no room in the pool.
    pub on_full: OnFull,
    /// Called once, when requests are answered.
    pub ready: Box<dyn FnOnce(&DaemonRecord)>,
}

/// Owns the store at `root` and answers requests until told to end, or idle.
///
/// Errors: `InUse` if another process owns the pool, and whatever opening the pool finds.
pub fn serve(root: PathBuf, options: ServeOptions) -> Result<()> {
    // before any thread: they inherit it
    let missing = if crate::store::is_root() { thinstore_export::harden() } else { Vec::new() };
    let patience = if options.service { SERVICE_PATIENCE } else { Duration::ZERO };
    let store = Arc::new(open(&root, patience, options.on_full)?);
    for missing in missing {
        tracing::warn!("devices may stop when memory is short: {missing}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("daemon")
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the daemon's threads", error))?;
    let served = runtime.block_on(live(&store, options));
    // Requests have ended; what is left on blocking threads are reads of clients that went away.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let layout = store.layout().clone();
    let cleaned = remove_durably(&layout.daemon_socket())
        .and_then(|()| remove_durably(&layout.daemon_json()));
    let closed = match Arc::try_unwrap(store) {
        Ok(store) => store.close(),
        // a blocked request still holds it; the pool recovers at the next open
        Err(store) => store.detach_unmounted(),
    };
    served.and(cleaned).and(closed)
}

/// Opens the store, waiting a little for a command that owns it for a moment.
fn open(root: &Path, patience: Duration, on_full: OnFull) -> Result<Store> {
    let deadline = Instant::now() + patience;
    loop {
        match Store::open_with(root, OpenMode::Daemon, on_full) {
            Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {
                std::thread::sleep(IDLE_CHECK_INTERVAL);
            }
            other => return other,
        }
    }
}

async fn live(store: &Arc<Store>, options: ServeOptions) -> Result<()> {
    let layout = store.layout().clone();
    let listener = bind(&layout)?;
    let record = DaemonRecord::of_this_process(&layout);
    let text = serde_json::to_vec(&record)
        .map_err(|error| Error::new(ErrorKind::Io, format!("cannot write daemon.json: {error}")))?;
    write_durably(&layout.daemon_json(), &text)?;

    let (end, ended) = watch::channel(false);
    let end = Arc::new(end);
    let connections = ConnectionCount::default();
    let shared = Arc::new(Shared {
        operations: store.clone(),
        version: VersionInfo {
            version: record.version.clone(),
            api_version: super::API_VERSION,
            pid: record.pid,
            service: options.service,
            mount_namespace: super::mount_namespace(),
        },
        stop: stopper(store.clone(), end.clone()),
        started: Instant::now(),
        requests: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    let watcher = Watcher {
        store: store.clone(),
        shared: shared.clone(),
        connections: connections.clone(),
        idle: (!options.service).then_some(options.idle),
        end: end.clone(),
    };
    let watching = tokio::spawn(watcher.watch());
    tokio::spawn(end_on_signals(store.clone(), end));
    tracing::info!(pid = record.pid, root = %layout.root().display(), "the daemon is ready");
    (options.ready)(&record);
    let served = axum::serve(PeerListener::new(listener, connections), router(shared))
        .with_graceful_shutdown(wait_for_end(ended))
        .await
        .map_err(|error| Error::io("the daemon's listener failed", error));
    watching.abort();
    tracing::info!("the daemon ends");
    served
}

fn bind(layout: &Layout) -> Result<UnixListener> {
    let failed = |error| {
        let socket = layout.daemon_socket();
        Error::io(format!("cannot listen at {}", socket.display()), error)
    };
    let (root, address) = layout.socket_address()?;
    let fresh = address.with_extension("sock.new");
    remove_durably(&fresh)?;
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&fresh, &address).map_err(failed)?;
    drop(root);
    Ok(listener)
}

/// Ends the daemon unless something is mounted.
fn stopper(
    store: Arc<Store>,
    end: Arc<watch::Sender<bool>>,
) -> Box<dyn Fn() -> Result<()> + Send + Sync> {
    Box::new(move || {
        store.refuse_if_mounted()?;
        store.detach_unmounted()?;
        end.send_replace(true);
        Ok(())
    })
}

async fn wait_for_end(mut ended: watch::Receiver<bool>) {
    // an error means that the sender is gone, which ends it as well
    drop(ended.wait_for(|ended| *ended).await);
}

async fn end_on_signals(store: Arc<Store>, end: Arc<watch::Sender<bool>>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("cannot listen to signals; 'thinstore serve --stop' ends this daemon");
        return;
    };
    let stop: Arc<dyn Fn() -> Result<()> + Send + Sync> = Arc::from(stopper(store, end));
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let stop = stop.clone();
        match tokio::task::spawn_blocking(move || stop()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!("the daemon stays: {error}"),
            Err(_) => tracing::error!("the daemon stays: the check for mounts failed"),
        }
    }
}

/// Ends a daemon that nothing needs.
struct Watcher {
    store: Arc<Store>,
    shared: Arc<Shared>,
    connections: ConnectionCount,
    /// None: it is a service.
    idle: Option<Duration>,
    end: Arc<watch::Sender<bool>>,
}

impl Watcher {
    async fn watch(self) {
        let Some(idle) = self.idle else { return };
        let mut idle_since = Instant::now();
        let mut requests = 0;
        loop {
            tokio::time::sleep(IDLE_CHECK_INTERVAL.min(idle)).await;
            let now_requests = self.shared.requests.load(Ordering::Relaxed);
            let needed = self.connections.get() > 0
                || now_requests != requests
                || self.store.has_attachments();
            requests = now_requests;
            if needed {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= idle {
                tracing::info!("nothing is attached and nobody has asked for {idle:?}");
                self.end.send_replace(true);
                return;
            }
        }
    }
}
