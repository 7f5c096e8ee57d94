//! The connections of a server. A client may be broken, or hostile: what is not asked within a few
//! seconds is not heard, there is a bound on connections, and who asks slowly gives way to who comes next.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tracing::warn;

use crate::{
    api::{ErrorKind, Failure},
    report::{
        moment::monotonic,
        repeats::{Repeats, left_out},
        wording,
    },
};

/// How long a request may take to arrive: its head, and its body.
pub const ASKING: Duration = Duration::from_secs(5);
/// How long an answer may wait for its reader.
const ANSWERING: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const LARGEST_HEAD: usize = 64 * 1024;
/// Connections at once.
const CONNECTIONS: usize = 256;
/// Those among them whose answer does not end.
const STREAMS: usize = 64;
/// How long a connection has to ask before others that wait may take its place.
const GRACE: Duration = Duration::from_millis(50);
/// How long a task takes to end after it was asked to, and more.
const TURN: Duration = Duration::from_millis(10);

/// Until the next attempt to accept a connection that the process has no descriptor for.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// A socket that connections come from.
pub trait ConnectionSource {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + AsRawFd + Unpin + Send + 'static;

    /// Returns the next connection.
    ///
    /// # Errors
    /// It could not be accepted: the client has left, or the process has no descriptor for it.
    fn next(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl ConnectionSource for UnixListener {
    type Io = UnixStream;

    async fn next(&mut self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl ConnectionSource for TcpListener {
    type Io = TcpStream;

    async fn next(&mut self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// The head of an answer to a connection for which there is no room; [`Failure`] follows it.
const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n";

struct Connections {
    paths: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Those whose request is not complete, the oldest first.
    asking: Mutex<BTreeMap<u64, Asking>>,
}

struct Asking {
    since: Instant,
    task: AbortHandle,
}

/// A connection, as its request sees it.
#[derive(Clone)]
pub struct Connection {
    number: u64,
    connections: Arc<Connections>,
    /// Its socket, which hyper does not hand out.
    socket: RawFd,
}

impl Connection {
    /// Returns whether the peer has closed the connection, or its sending side. hyper notices that only when it reads again,
    /// and offers no way to ask. To be called while the request is served: then the connection's task owns the socket.
    pub fn peer_has_left(&self) -> bool {
        match recv(self.socket, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(bytes) => bytes == 0,
            Err(errno) => errno != Errno::EAGAIN && errno != Errno::EINTR,
        }
    }

    /// Its request is complete, and will be answered.
    pub fn has_asked(&self) {
        self.connections.asking().remove(&self.number);
    }

    /// For an answer that does not end, to be held as long as it lasts. None if there are as many as may be.
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections.streams).try_acquire_owned().ok()
    }
}

/// Serves one request of each connection. `routes` is what a connection may ask; None if it is gone already.
pub async fn serve<L: ConnectionSource>(
    mut listener: L,
    routes: impl Fn(&L::Io, Connection) -> Option<Router>,
) {
    let connections = Arc::new(Connections {
        paths: Arc::new(Semaphore::new(CONNECTIONS)),
        streams: Arc::new(Semaphore::new(STREAMS)),
        asking: Mutex::default(),
    });
    let mut failures = Repeats::default();
    for number in 0.. {
        let stream = connections.accept(&mut listener, &mut failures).await;
        let Some(place) = connections.admit().await else {
            turn_away(stream).await;
            continue;
        };
        let socket = stream.as_raw_fd();
        let connection = Connection { number, connections: Arc::clone(&connections), socket };
        let Some(routes) = routes(&stream, connection.clone()) else { continue };
        let serving = async move {
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(ANSWERING));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(ASKING);
            http.max_buf_size(LARGEST_HEAD).keep_alive(false);
            let stream = TokioIo::new(Box::pin(stream));
            // Who does not speak HTTP, or leaves, has had their answer.
            let _ = http.serve_connection(stream, TowerToHyperService::new(routes)).await;
            connection.has_asked();
            drop(place);
        };
        // Held until the task is in it, which takes itself out.
        let mut asking = connections.asking();
        let task = tokio::spawn(serving).abort_handle();
        asking.insert(number, Asking { since: Instant::now(), task });
    }
}

/// With a sentence, if it can be said at once.
async fn turn_away(mut stream: impl AsyncWrite + Unpin) {
    let failure = Failure::new(ErrorKind::Unavailable, wording::too_busy());
    let body = serde_json::to_string(&failure).unwrap_or_default();
    let _ = timeout(TURN, stream.write_all(format!("{BUSY}{body}").as_bytes())).await;
}

impl Connections {
    /// Returns the next connection. While the process has no descriptor for it, connections whose request is not complete
    /// are closed, the oldest first; the kernel keeps the new one waiting until then.
    async fn accept<L: ConnectionSource>(&self, listener: &mut L, failures: &mut Repeats) -> L::Io {
        loop {
            match listener.next().await {
                Ok(stream) => return stream,
                // The client has left.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if let Some(count) = failures.admit(monotonic(), "accept") {
                        warn!("{}{}", wording::not_accepted(&error), left_out(count));
                    }
                    self.evict();
                    sleep(BETWEEN_ATTEMPTS).await;
                }
            }
        }
    }

    /// Closes the oldest connection whose request is not complete, if it has had time to ask. Returns how long it has had;
    /// None if there is none.
    fn evict(&self) -> Option<Duration> {
        let mut asking = self.asking();
        let oldest = asking.first_entry()?;
        let waited = oldest.get().since.elapsed();
        if waited >= GRACE {
            oldest.remove().task.abort();
        }
        Some(waited)
    }

    /// Returns a place for another connection; `None` if all places belong to connections that are being answered.
    async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.paths).try_acquire_owned() {
                return Some(place);
            }
            let waited = self.evict()?;
            // The place is free when that task is gone, or when another one is.
            let freed = Arc::clone(&self.paths).acquire_owned();
            if let Ok(Ok(place)) = timeout(GRACE.saturating_sub(waited).max(TURN), freed).await {
                return Some(place);
            }
        }
    }

    fn asking(&self) -> MutexGuard<'_, BTreeMap<u64, Asking>> {
        // Poisoned or not, a map of handles is whole.
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
