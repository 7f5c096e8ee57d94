//! Messages that pass unparsed: what the kernel lists is sent back to it byte for byte, whatever attributes a later
//! kernel adds.

use std::convert::Infallible;

use futures_util::StreamExt as _;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_proto::{ConnectionHandle, sys::SocketAddr};
use netlink_sys::{AsyncSocket as _, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use super::{
    Netlink,
    dump::{Attempts, DumpFault, Turn},
};
use crate::sys::SysError;

/// Requests under way at once. The kernel's answers to so many fit into a socket's receive buffer.
const IN_FLIGHT: usize = 64;

/// A message of rtnetlink: its type, and the family's header with the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    pub kind: u16,
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
    handle: ConnectionHandle<Raw>,
    turn: Turn,
}

impl RawConnection {
    /// In the network namespace of the calling thread. The future is the connection's work.
    pub(super) fn open() -> Result<(Self, impl Future<Output = ()> + Send + 'static), SysError> {
        let failed = |error| SysError::kernel("open a socket", "rtnetlink", error);
        let (mut connection, handle, _) =
            netlink_proto::new_connection::<Raw>(NETLINK_ROUTE).map_err(failed)?;
        let socket = connection.socket_mut().socket_ref();
        super::explain_errors(socket).map_err(failed)?;
        socket.set_netlink_get_strict_chk(true).map_err(failed)?;
        Ok((Self { handle, turn: Turn::default() }, connection))
    }
}

/// The kernel's own: it answers where no address is bound.
fn kernel() -> SocketAddr {
    SocketAddr::new(0, 0)
}

impl Netlink {
    /// Reads a list of the kernel's: `each` is called with every message, `start` makes what it collects into, once
    /// for each attempt. A kernel that does not have this list has an empty one.
    ///
    /// # Errors
    /// Why there is no list; `what` is listed.
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
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), request.clone().into_payload());
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let answers = self.raw.handle.request(message, kernel());
        let mut answers = answers.map_err(|_| DumpFault::Lasting(failed(rtnetlink::Error::RequestFailed)))?;
        let mut interrupted = false;
        while let Some(message) = answers.next().await {
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(entry) => each(&mut collected, entry),
                NetlinkPayload::Error(error) => {
                    let error = failed(rtnetlink::Error::NetlinkError(error));
                    return match error.errno() {
                        Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(collected),
                        Some(Errno::EBUSY) => Err(DumpFault::Passing(error)),
                        _ => Err(DumpFault::Lasting(error)),
                    };
                }
                _ => {}
            }
        }
        if interrupted { Err(DumpFault::changed(what)) } else { Ok(collected) }
    }

    /// Sends a request that has one answer. None if the kernel gives none.
    pub(super) async fn ask_raw(&self, request: Raw) -> Result<Option<Raw>, rtnetlink::Error> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), request.into_payload());
        message.header.flags = NLM_F_REQUEST;
        let answers = self.raw.handle.request(message, kernel());
        let mut answers = answers.map_err(|_| rtnetlink::Error::RequestFailed)?;
        let mut answer = None;
        while let Some(message) = answers.next().await {
            match message.payload {
                NetlinkPayload::InnerMessage(raw) => answer = Some(raw),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Sends requests, each with its NLM_F_* flags beside REQUEST and ACK. The kernel executes them in this order; the
    /// answers are in the same one.
    pub async fn send_raw(&self, requests: Vec<(u16, Raw)>) -> Vec<Result<(), rtnetlink::Error>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let chunk = requests.by_ref().take(IN_FLIGHT);
            // All are sent before the first answer is awaited.
            let under_way: Vec<_> = chunk
                .map(|(flags, request)| {
                    let mut message = NetlinkMessage::new(NetlinkHeader::default(), request.into_payload());
                    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
                    self.raw.handle.request(message, kernel())
                })
                .collect();
            for answers in under_way {
                let mut result = Ok(());
                match answers {
                    Ok(mut answers) => {
                        while let Some(message) = answers.next().await {
                            if let NetlinkPayload::Error(error @ ErrorMessage { code: Some(_), .. }) =
                                message.payload
                            {
                                result = Err(rtnetlink::Error::NetlinkError(error));
                            }
                        }
                    }
                    Err(_) => result = Err(rtnetlink::Error::RequestFailed),
                }
                results.push(result);
            }
        }
        results
    }
}

impl Raw {
    fn into_payload(self) -> NetlinkPayload<Self> {
        NetlinkPayload::InnerMessage(self)
    }
}
