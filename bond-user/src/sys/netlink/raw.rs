//! Messages that pass unparsed: the kernel's list is sent back byte for byte, whatever attributes a later kernel
//! adds.

use std::convert::Infallible;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use super::{
    Netlink,
    dump::{Attempts, DumpFault, RequestLock},
    steady::{Answers, NoAnswer, SteadyConnection, insist},
};
use crate::sys::SysError;

/// Concurrent requests. The kernel's answers to this many fit into a socket's receive buffer.
const IN_FLIGHT: usize = 64;

/// A message of rtnetlink: its type, and the family's header with the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The type of the message (RTM_*).
    pub kind: u16,
    /// The bytes after struct nlmsghdr.
    pub body: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

/// A connection for [`Raw`] messages. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct RawConnection {
    connection: SteadyConnection<Raw>,
    turn: RequestLock,
}

impl RawConnection {
    /// Opens the connection in the network namespace of the calling thread. The returned future drives it.
    pub(super) fn open() -> Result<(Self, impl Future<Output = ()> + Send + 'static), SysError> {
        let (connection, work) = SteadyConnection::open()?;
        Ok((Self { connection, turn: RequestLock::default() }, work))
    }

    /// Sends a request with these NLM_F_* flags in addition to REQUEST.
    fn request(&self, flags: u16, request: Raw) -> Answers<Raw> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), request.into_payload());
        message.header.flags = NLM_F_REQUEST | flags;
        self.connection.request(message)
    }

    /// Sends a request that has one answer.
    async fn ask(&self, request: Raw) -> Result<Result<Option<Raw>, rtnetlink::Error>, NoAnswer> {
        let mut answer = Ok(None);
        let read = self.request(0, request).read(|message| match message.payload {
            NetlinkPayload::InnerMessage(raw) => answer = Ok(Some(raw)),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                answer = Err(rtnetlink::Error::NetlinkError(error));
            }
            _ => {}
        });
        read.await.map(|()| answer)
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    async fn change(&self, flags: u16, request: Raw) -> Result<Result<(), rtnetlink::Error>, NoAnswer> {
        acknowledged(self.request(NLM_F_ACK | flags, request)).await
    }
}

/// Returns the kernel's result for a request that changes something.
async fn acknowledged(answers: Answers<Raw>) -> Result<Result<(), rtnetlink::Error>, NoAnswer> {
    let mut result = Ok(());
    let read = answers.read(|message| {
        if let NetlinkPayload::Error(error @ ErrorMessage { code: Some(_), .. }) = message.payload {
            result = Err(rtnetlink::Error::NetlinkError(error));
        }
    });
    read.await.map(|()| result)
}

/// Converts a missing answer to an error of the library; see [`SysError::NoAnswer`].
fn no_answer(_: NoAnswer) -> rtnetlink::Error {
    rtnetlink::Error::RequestFailed
}

impl Netlink {
    /// Reads a list of the kernel: calls `each` with every message, and `start` once for each attempt, to create what
    /// `each` fills. On a kernel without this list it is empty.
    ///
    /// # Errors
    /// Why the list could not be read; `what` names its entries.
    pub async fn dump_raw<C>(
        &self,
        request: &Raw,
        what: &str,
        start: impl Fn() -> C,
        each: impl Fn(&mut C, Raw),
    ) -> Result<C, SysError> {
        let _turn = self.raw.turn.lock().await;
        let mut attempts = Attempts::default();
        loop {
            match self.dump_raw_once(request, what, start(), &each).await {
                Ok(collected) => return Ok(collected),
                Err(fault) => attempts.after(fault).await?,
            }
        }
    }

    async fn dump_raw_once<C>(
        &self,
        request: &Raw,
        what: &str,
        mut collected: C,
        each: &impl Fn(&mut C, Raw),
    ) -> Result<C, DumpFault> {
        let failed = |error| SysError::netlink("list", what, error);
        let (mut interrupted, mut refused) = (false, None);
        let answers = self.raw.request(NLM_F_DUMP, request.clone()).read(|message| {
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(entry) => each(&mut collected, entry),
                NetlinkPayload::Error(error) => refused = Some(failed(rtnetlink::Error::NetlinkError(error))),
                _ => {}
            }
        });
        answers.await.map_err(|lost| DumpFault::Passing(failed(no_answer(lost))))?;
        match refused.map(|error| (error.errno(), error)) {
            Some((Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT), _)) => Ok(collected),
            // The connection has not read the end of a list yet that was abandoned.
            Some((Some(Errno::EBUSY), error)) => Err(DumpFault::Passing(error)),
            Some((_, error)) => Err(DumpFault::Lasting(error)),
            None if interrupted => Err(DumpFault::changed(what)),
            None => Ok(collected),
        }
    }

    /// Sends a request that has one answer, and changes nothing. Returns `None` if the kernel gives none.
    pub(super) async fn ask_raw(&self, request: Raw) -> Result<Option<Raw>, rtnetlink::Error> {
        insist(|| self.raw.ask(request.clone())).await.map_err(no_answer)?
    }

    /// Sends a request, with its NLM_F_* flags in addition to REQUEST and ACK, that may be executed twice. The
    /// returned result may be that of the second execution.
    pub(super) async fn change_raw(&self, flags: u16, request: Raw) -> Result<(), rtnetlink::Error> {
        insist(|| self.raw.change(flags, request.clone())).await.map_err(no_answer)?
    }

    /// Sends requests, each with its NLM_F_* flags in addition to REQUEST and ACK. The kernel executes them in this
    /// order; the answers have the same order. No request is repeated.
    pub async fn send_raw(&self, requests: Vec<(u16, Raw)>) -> Vec<Result<(), rtnetlink::Error>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let chunk = requests.by_ref().take(IN_FLIGHT);
            // All are sent before the first answer is awaited.
            let under_way: Vec<_> =
                chunk.map(|(flags, request)| self.raw.request(NLM_F_ACK | flags, request)).collect();
            for answers in under_way {
                results.push(acknowledged(answers).await.map_err(no_answer).flatten());
            }
        }
        results
    }
}

impl From<RouteNetlinkMessage> for Raw {
    fn from(message: RouteNetlinkMessage) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        Self { kind: message.message_type(), body }
    }
}

impl Raw {
    /// Parses the message with the library; returns `None` if that fails.
    pub(super) fn parse(&self) -> Option<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        RouteNetlinkMessage::deserialize(&header, &self.body).ok()
    }

    fn into_payload(self) -> NetlinkPayload<Self> {
        NetlinkPayload::InnerMessage(self)
    }
}
