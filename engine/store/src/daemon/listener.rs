//! Accepts connections from who may ask: the store's owner and root. Counts them, since a daemon with
//! a connection is not idle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

/// How many connections are open.
#[derive(Clone, Default)]
pub(super) struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A listener that checks who connects.
pub(super) struct PeerListener {
    listener: UnixListener,
    count: ConnectionCount,
    owner_uid: u32,
}

impl PeerListener {
    pub(super) fn new(listener: UnixListener, count: ConnectionCount) -> PeerListener {
        PeerListener { listener, count, owner_uid: nix::unistd::geteuid().as_raw() }
    }

    fn may_ask(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) => peer.uid() == 0 || peer.uid() == self.owner_uid,
            Err(_) => false,
        }
    }
}

impl axum::serve::Listener for PeerListener {
    type Io = CountedStream;
    type Addr = ();

    async fn accept(&mut self) -> (CountedStream, ()) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.may_ask(&stream) => {
                    return (CountedStream::new(stream, self.count.clone()), ());
                }
                Ok(_) => tracing::warn!("a connection of another user was refused"),
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that is counted as long as it is there.
pub(super) struct CountedStream {
    stream: UnixStream,
    count: ConnectionCount,
}

impl CountedStream {
    fn new(stream: UnixStream, count: ConnectionCount) -> CountedStream {
        count.0.fetch_add(1, Ordering::SeqCst);
        CountedStream { stream, count }
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
