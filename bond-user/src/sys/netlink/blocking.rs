//! One request at a time, on the calling thread, for the moments that must be short.

use bond_common::mac::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::LinkSetting;
use crate::sys::SysError;

/// A netlink socket outside of any runtime. The kernel executes a request inside `send`: when it returns,
/// the change is made, and packets see it.
#[derive(Debug)]
pub struct BlockingNetlink {
    socket: Socket,
    sequence: u32,
}

impl BlockingNetlink {
    /// In the network namespace of the calling thread.
    pub fn open() -> Result<Self, SysError> {
        let failed = |error| SysError::kernel("open a socket", "rtnetlink", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        super::explain_errors(&socket).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Changes the MAC of a device at once, whatever it was. Waits for RTNL.
    pub fn set_mac(&mut self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        let setting = LinkSetting::Mac(mac);
        let failed = |error| SysError::kernel(format!("set {setting}"), super::called(ifindex), error);
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(setting.request(ifindex)));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        loop {
            let (answer, _) = self.socket.recv_from_full().map_err(failed)?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|error| failed(std::io::Error::other(error)))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = answer.payload {
                return match error.code {
                    None => Ok(()),
                    Some(_) => Err(SysError::netlink(
                        format!("set {setting}"),
                        super::called(ifindex),
                        rtnetlink::Error::NetlinkError(error),
                    )),
                };
            }
        }
    }
}
