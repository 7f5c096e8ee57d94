//! A connection to rtnetlink that is reopened when it fails.
//!
//! A socket may fail temporarily: the kernel lacks memory for a message (ENOBUFS, ENOMEM), or the receive buffer was
//! full and an answer was dropped (ENOBUFS). netlink-proto ends its connection then, and the request seems to be
//! acknowledged, since the end of an answer is the end of its stream. Here a call that had no effect is repeated, a
//! socket that has lost an answer is replaced, and a request without a complete answer is an error.

use std::{
    cell::{Cell, RefCell},
    fmt::Debug,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BufMut;
use futures_util::StreamExt as _;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_proto::{Connection, ConnectionHandle};
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use tokio::time::Sleep;

use crate::sys::{SysError, netns};

/// Consecutive failed calls after which the socket is replaced.
const CALLS: u32 = 10;
/// Pause before a call is repeated.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause before another attempt to open a socket.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that repeats failed calls if they had no effect.
pub(super) struct SteadySocket {
    socket: TokioSocket,
    failures: Cell<u32>,
    pause: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl SteadySocket {
    /// Polls a call until it succeeds, has failed [`CALLS`] times, or `is_final` returns that repeating it would not
    /// help.
    fn repeat<T>(
        &self,
        cx: &mut Context<'_>,
        is_final: impl Fn(&io::Error) -> bool,
        mut call: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut pause = self.pause.borrow_mut();
            if let Some(running) = pause.as_mut() {
                ready!(running.as_mut().poll(cx));
                *pause = None;
            }
            match ready!(call(cx)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.failures.get() < CALLS && !is_final(&error) => {
                    self.failures.set(self.failures.get() + 1);
                    *pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
                answer => {
                    if answer.is_ok() {
                        self.failures.set(0);
                    }
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

/// Returns false: a request for which `sendto` returned an error was not executed (`netlink_sendmsg`).
fn never(_: &io::Error) -> bool {
    false
}

/// Returns whether messages were dropped (ENOBUFS). netlink-proto would keep reading, and their receivers would wait
/// forever.
fn has_lost_messages(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Returns an error that netlink-proto treats as the end of the socket.
fn end(error: io::Error) -> io::Error {
    if has_lost_messages(&error) { io::Error::other("answers were lost") } else { error }
}

impl AsyncSocket for SteadySocket {
    fn socket_ref(&self) -> &Socket {
        self.socket.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        let socket = TokioSocket::new(protocol)?;
        Ok(Self { socket, failures: Cell::new(0), pause: RefCell::new(None) })
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.repeat(cx, never, |cx| self.socket.poll_send(cx, buf))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        self.repeat(cx, never, |cx| self.socket.poll_send_to(cx, buf, addr))
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.repeat(cx, has_lost_messages, |cx| self.socket.poll_recv(cx, buf)).map_err(end)
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        self.repeat(cx, has_lost_messages, |cx| self.socket.poll_recv_from(cx, buf)).map_err(end)
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.repeat(cx, has_lost_messages, |cx| self.socket.poll_recv_from_full(cx)).map_err(end)
    }
}

/// The answer is incomplete or missing: the request may have been executed, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// A connection to rtnetlink. Clones share it.
#[derive(Debug)]
pub(super) struct SteadyConnection<T: Debug> {
    handle: Arc<Mutex<ConnectionHandle<T>>>,
}

impl<T: Debug> Clone for SteadyConnection<T> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<T> SteadyConnection<T>
where
    T: Debug + NetlinkSerializable + NetlinkDeserializable + Unpin + Send + 'static,
{
    /// Opens the connection in the network namespace of the calling thread, inside a tokio runtime. The returned
    /// future drives it.
    ///
    /// # Errors
    /// A socket cannot be opened: the process lacks descriptors or memory.
    pub fn open() -> Result<(Self, impl Future<Output = ()> + Send + 'static), SysError> {
        let failed = |error| SysError::kernel("open a socket", "rtnetlink", error);
        let (handle, connection) = connect::<T>().map_err(failed)?;
        let netns = netns::cookie().ok();
        let handle = Arc::new(Mutex::new(handle));
        let work = keep_open(connection, netns, Arc::downgrade(&handle));
        Ok((Self { handle }, work))
    }

    /// Sends a request. The returned value yields its answers.
    pub fn request(&self, message: NetlinkMessage<T>) -> Answers<T> {
        let expected = match message.header.flags {
            flags if flags & NLM_F_DUMP == NLM_F_DUMP => Expected::Done,
            flags if flags & NLM_F_ACK != 0 => Expected::Acknowledgement,
            _ => Expected::One,
        };
        // The kernel's own address.
        let stream = locked(&self.handle).request(message, SocketAddr::new(0, 0));
        Answers { stream: stream.ok().map(|stream| Box::pin(stream) as Pin<Box<_>>), expected }
    }
}

/// The message that ends the answers to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    One,
    Acknowledgement,
    Done,
}

/// The answers to one request.
pub(super) struct Answers<T> {
    stream: Option<Pin<Box<dyn futures_util::Stream<Item = NetlinkMessage<T>> + Send>>>,
    expected: Expected,
}

impl<T> Answers<T> {
    /// Calls `each` with every message up to the last one, which is an error or an acknowledgement.
    ///
    /// # Errors
    /// The last message did not arrive.
    pub async fn read(mut self, mut each: impl FnMut(NetlinkMessage<T>)) -> Result<(), NoAnswer> {
        let mut stream = self.stream.take().ok_or(NoAnswer)?;
        let mut is_whole = false;
        while let Some(message) = stream.next().await {
            is_whole |= match message.payload {
                NetlinkPayload::InnerMessage(_) => self.expected == Expected::One,
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => true,
                _ => false,
            };
            each(message);
        }
        if is_whole { Ok(()) } else { Err(NoAnswer) }
    }
}

fn locked<T: Debug>(handle: &Mutex<ConnectionHandle<T>>) -> MutexGuard<'_, ConnectionHandle<T>> {
    handle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect<T>() -> io::Result<(ConnectionHandle<T>, Connection<T, SteadySocket>)>
where
    T: Debug + NetlinkSerializable + NetlinkDeserializable + Unpin,
{
    let (mut connection, handle, _) =
        netlink_proto::new_connection_with_socket::<T, SteadySocket>(NETLINK_ROUTE)?;
    // Without acknowledgements an answer that arrived cannot be distinguished from one that was lost.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    let socket = connection.socket_mut().socket_ref();
    super::explain_errors(socket)?;
    // Without this, a dump of addresses ignores its filter, and would be of this namespace, whichever was requested.
    socket.set_netlink_get_strict_chk(true)?;
    Ok((handle, connection))
}

/// Drives a connection, and replaces it when it has ended, as long as there is a handle.
async fn keep_open<T>(
    mut connection: Connection<T, SteadySocket>,
    netns: Option<u64>,
    handle: Weak<Mutex<ConnectionHandle<T>>>,
) where
    T: Debug + NetlinkSerializable + NetlinkDeserializable + Unpin,
{
    loop {
        // When the connection is dropped, the pending requests end without their last answer.
        connection.await;
        let mut pause = PAUSE;
        connection = loop {
            let Some(handle) = handle.upgrade() else { return };
            // In another namespace the new connection would describe other links.
            let fresh = (netns::cookie().ok() == netns).then(connect::<T>);
            if let Some(Ok((fresh, connection))) = fresh {
                *locked(&handle) = fresh;
                break connection;
            }
            drop(handle);
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        };
    }
}

/// Repeats a request that may be executed twice, until it has a complete answer.
pub(super) async fn insist<A, F>(mut request: impl FnMut() -> F) -> Result<A, NoAnswer>
where
    F: Future<Output = Result<A, NoAnswer>>,
{
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match request().await {
            Err(NoAnswer) => tokio::time::sleep(2 * PAUSE).await,
            answer => return answer,
        }
    }
    request().await
}
