//! RTNLGRP_LINK, read without an intermediate task.

use std::{collections::VecDeque, time::Duration};

use bytes::BytesMut;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use tracing::debug;

use super::{LinkInfo, text::make_readable};
use crate::sys::{SysError, alias::Alias};

/// RTMGRP_LINK. Changes of addresses, which a neighbour can cause a thousand times a second, have a socket of their
/// own, so that they cannot make this one overflow.
const GROUPS: u32 = 0x1;

/// One datagram holds one message here; with all its attributes a message takes less than 4 kB.
const DATAGRAM: usize = 32 << 10;

/// Bytes that may wait unread: some hundred links that change at once. The kernel may grant less.
const QUEUE: libc::c_int = 1 << 20;

/// Consecutive failed reads after which the socket is abandoned: a quarter of an hour.
pub(super) const FAILURES: u32 = 600;
/// The pause after the first failure; it increases with each further one.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// An event of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared, or has this state now; possibly nothing has changed.
    Changed(Box<LinkInfo>),
    /// It is gone: deleted, or moved to another network namespace.
    Deleted {
        /// The index that the link had.
        ifindex: u32,
        /// [`LinkInfo::is_end_of_pair`], as far as the kernel described the link.
        end_of_pair: bool,
        /// Whether it is in another network namespace now.
        moved: bool,
    },
    /// Events were lost: every link must be read again.
    Overrun,
}

/// The link events of one network namespace.
///
/// The task that awaits [`Self::next`] reads the socket, with no other task or channel in between: on a thread with
/// its own current-thread runtime an event costs one wake-up. The socket sends nothing, so it never waits for RTNL.
pub struct LinkEvents {
    socket: TokioSocket,
    buffer: BytesMut,
    waiting: VecDeque<LinkEvent>,
    /// Consecutive failed reads.
    failures: u32,
    /// Links are to be read again as soon as the socket can be read: what a failed read would have returned is unknown.
    may_lack: bool,
}

impl LinkEvents {
    /// Opens the socket in the network namespace of the calling thread, inside a tokio runtime. Events are received
    /// from now on: read the state of links after this call, or a change in between is missed.
    ///
    /// # Errors
    /// A socket cannot be opened or bound to the groups: the process lacks descriptors or memory.
    pub fn open() -> Result<Self, SysError> {
        let failed = |error| SysError::kernel("listen to link events", "rtnetlink", error);
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.socket_ref().set_rx_buf_sz(QUEUE).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).map_err(failed)?;
        Ok(Self {
            socket,
            buffer: BytesMut::with_capacity(DATAGRAM),
            waiting: VecDeque::new(),
            failures: 0,
            may_lack: false,
        })
    }

    /// Returns the next event. The future may be dropped and created again: no event is lost.
    ///
    /// # Errors
    /// The socket could not be read several times in succession.
    pub async fn next(&mut self) -> Result<LinkEvent, SysError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            self.buffer.clear();
            self.buffer.reserve(DATAGRAM);
            match self.socket.recv_from(&mut self.buffer).await {
                Ok(_) => {
                    self.failures = 0;
                    if std::mem::take(&mut self.may_lack) {
                        self.waiting.push_back(LinkEvent::Overrun);
                    }
                    read(&self.buffer, &mut self.waiting);
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.drain();
                    return Ok(LinkEvent::Overrun);
                }
                // ENOMEM, for example.
                Err(error) if self.failures < FAILURES => {
                    self.failures += 1;
                    self.may_lack = true;
                    debug!("link events cannot be read, {} times by now: {error}", self.failures);
                    tokio::time::sleep(self.failures * PAUSE).await;
                }
                Err(error) => return Err(SysError::kernel("read link events", "rtnetlink", error)),
            }
        }
    }

    /// Reads everything that is queued: after an overrun the kernel drops events, without a further error, until the
    /// queue is empty (NETLINK_S_CONGESTED).
    fn drain(&mut self) {
        loop {
            self.buffer.clear();
            if self.socket.socket_ref().recv(&mut self.buffer, 0).is_err() {
                return;
            }
        }
    }
}

/// Parses the events of one datagram. An unreadable message counts as lost.
pub(super) fn read(mut datagram: &[u8], events: &mut VecDeque<LinkEvent>) {
    while !datagram.is_empty() {
        let length = datagram.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        let message = datagram.get(..length).map(readable);
        let message = message.map(|(message, alias)| (NetlinkMessage::deserialize(&message), alias));
        let Some((Ok(message), alias)) = message else {
            events.push_back(LinkEvent::Overrun);
            return;
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                let link = LinkInfo::from_message(&link).map(|link| LinkInfo { alias, ..link });
                events.extend(link.map(|link| LinkEvent::Changed(Box::new(link))));
            }
            // A bridge's message only means that the link is no longer its port.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.interface_family == AddressFamily::Unspec =>
            {
                let end_of_pair = LinkInfo::from_message(&link).is_some_and(|link| link.is_end_of_pair());
                let is_place = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::NewNetnsId(_));
                let moved = link.attributes.iter().any(is_place);
                events.push_back(LinkEvent::Deleted { ifindex: link.header.index, end_of_pair, moved });
            }
            NetlinkPayload::Overrun(_) => events.push_back(LinkEvent::Overrun),
            _ => {}
        }
    }
}

/// Returns a message about a link with texts that the library can parse, and the original alias.
fn readable(message: &[u8]) -> (Vec<u8>, Option<Alias>) {
    /// struct nlmsghdr
    const HEADER: usize = 16;
    let mut message = message.to_vec();
    let alias = message.get_mut(HEADER..).and_then(make_readable);
    (message, alias)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::sys::{
        netlink::LinkSetting,
        testing::{in_namespace, mac, veth},
    };

    async fn until(events: &mut LinkEvents, wanted: impl Fn(&LinkEvent) -> bool) {
        let found = async { while !wanted(&events.next().await.unwrap()) {} };
        timeout(Duration::from_secs(10), found).await.expect("the event did not come");
    }

    #[test]
    fn a_link_that_appears_changes_and_goes() {
        in_namespace(async |devices| {
            let mut events = LinkEvents::open().unwrap();
            let (link, far) = veth(&devices, "eth1", "far1").await;
            let changed = |event: &LinkEvent, test: &dyn Fn(&LinkInfo) -> bool| match event {
                LinkEvent::Changed(info) => info.ifindex == link.ifindex && test(info),
                _ => false,
            };
            until(&mut events, |event| changed(event, &|info| info.name == "eth1" && !info.has_link())).await;
            for ifindex in [link.ifindex, far.ifindex] {
                devices.netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
            }
            until(&mut events, |event| changed(event, &LinkInfo::has_link)).await;
            devices.netlink.set(far.ifindex, LinkSetting::Up(false)).await.unwrap();
            until(&mut events, |event| changed(event, &|info| info.is_up() && !info.carrier)).await;
            devices.netlink.set(link.ifindex, LinkSetting::Mac(mac(3))).await.unwrap();
            until(&mut events, |event| changed(event, &|info| info.mac == mac(3))).await;
            devices.netlink.delete(link.ifindex).await.unwrap();
            let deleted = LinkEvent::Deleted { ifindex: link.ifindex, end_of_pair: true, moved: false };
            until(&mut events, |event| *event == deleted).await;
        });
    }

    #[test]
    fn a_slow_reader_is_notified_of_lost_events() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let mut events = LinkEvents::open().unwrap();
            events.socket.socket_ref().set_rx_buf_sz::<libc::c_int>(4096).unwrap();
            for last in 0..100 {
                devices.netlink.set(link.ifindex, LinkSetting::Mac(mac(last))).await.unwrap();
            }
            until(&mut events, |event| *event == LinkEvent::Overrun).await;
            // Events after this one are received again.
            devices.netlink.set(link.ifindex, LinkSetting::Mac(mac(200))).await.unwrap();
            let new = |event: &LinkEvent| matches!(event, LinkEvent::Changed(info) if info.mac == mac(200));
            until(&mut events, new).await;
        });
    }

    #[test]
    fn an_unreadable_notification_is_an_overrun() {
        let mut events = VecDeque::new();
        read(&[20, 0, 0, 0, 16, 0, 0, 0], &mut events);
        assert_eq!(events, [LinkEvent::Overrun]);
    }

    #[test]
    fn a_bridges_view_of_its_port_is_no_event() {
        use netlink_packet_route::link::LinkMessage;
        let mut link = LinkMessage::default();
        link.header.interface_family = AddressFamily::Bridge;
        link.header.index = 5;
        for message in [RouteNetlinkMessage::NewLink(link.clone()), RouteNetlinkMessage::DelLink(link)] {
            let mut message = NetlinkMessage::from(message);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            let mut events = VecDeque::new();
            read(&bytes, &mut events);
            assert_eq!(events, [], "{message:?}");
        }
    }
}
