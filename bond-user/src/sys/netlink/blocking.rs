//! Executes one netlink request at a time on the calling thread, where latency matters.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use bond_common::mac::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::LinkSetting;
use crate::sys::SysError;

/// A netlink socket without a runtime. The kernel executes a request inside `send`: when it returns, the change is
/// made and affects packets.
#[derive(Debug)]
pub struct BlockingNetlink {
    socket: Socket,
    sequence: u32,
}

impl BlockingNetlink {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// A socket cannot be opened: the process lacks descriptors or memory.
    pub fn open() -> Result<Self, SysError> {
        let failed = |error| SysError::kernel("open a socket", "rtnetlink", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        super::explain_errors(&socket).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Changes the MAC address of a device at once, whatever it was. Waits for RTNL.
    ///
    /// # Errors
    /// The device does not exist, or refuses the address.
    pub fn set_mac(&mut self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        let setting = LinkSetting::Mac(mac);
        self.change(format!("set {setting}"), ifindex, &setting.request(ifindex))
    }

    /// Detaches an XDP program that was attached by netlink, unless another one has replaced it.
    ///
    /// # Errors
    /// Another program is attached (EEXIST), or the device does not exist.
    pub fn clear_xdp(
        &mut self,
        ifindex: u32,
        program: BorrowedFd<'_>,
        is_generic: bool,
    ) -> Result<(), SysError> {
        const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
        const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
        const XDP_FLAGS_REPLACE: u32 = 1 << 4;
        let mode = if is_generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE };
        let request = LinkUnspec::new_with_index(ifindex).append_extra_attribute(LinkAttribute::Xdp(vec![
            LinkXdp::Fd(-1),
            LinkXdp::Flags(mode | XDP_FLAGS_REPLACE),
            LinkXdp::ExpectedFd(program.as_raw_fd().cast_unsigned()),
        ]));
        self.change("detach the XDP program".to_owned(), ifindex, &request.build())
    }

    fn change(&mut self, what: String, ifindex: u32, request: &LinkMessage) -> Result<(), SysError> {
        let mut attempts = 0;
        loop {
            let error = match self.ask(request) {
                Ok(answer) => {
                    return answer.map_err(|error| SysError::netlink(what, super::called(ifindex), error));
                }
                Err(error) => error,
            };
            attempts += 1;
            // Setting the same value twice has no further effect.
            if attempts == ATTEMPTS || !is_passing(&error) {
                return Err(SysError::kernel(what, super::called(ifindex), error));
            }
        }
    }

    fn ask(&mut self, request: &LinkMessage) -> io::Result<Result<(), rtnetlink::Error>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(request.clone()));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
            // A late answer to an earlier request.
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = answer.payload {
                return Ok(match error.code {
                    None => Ok(()),
                    Some(_) => Err(rtnetlink::Error::NetlinkError(error)),
                });
            }
        }
    }
}

/// How often a request without an answer is sent.
const ATTEMPTS: u32 = 5;

/// Returns whether the kernel lacked memory for a moment, or a signal arrived: the same call may succeed.
pub(in crate::sys) fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::ENOBUFS, Errno::ENOMEM, Errno::EINTR];
    error.raw_os_error().is_some_and(|errno| passing.contains(&Errno::from_raw(errno)))
}
