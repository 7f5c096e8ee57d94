//! RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR: reports which interfaces' addresses have changed.
//!
//! A neighbour that sends router advertisements makes the kernel send thousands of these messages a second. Their
//! reader only needs the interfaces whose addresses it must read again. So the socket's buffer is the queue: the
//! reader takes all queued messages when it has time, and when the buffer has overflowed, any address may have
//! changed.

use std::{collections::BTreeSet, io};

use bytes::BytesMut;
use netlink_packet_core::NetlinkBuffer;
use netlink_packet_route::address::AddressHeader;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use super::events::{FAILURES, PAUSE};
use crate::sys::SysError;

/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
const GROUPS: u32 = 0x10 | 0x100;
/// One datagram holds one message here, of some hundred bytes.
const DATAGRAM: usize = 4 << 10;
/// Datagrams that are read at once. The others are read by the next call.
const AT_ONCE: usize = 4096;

/// A set of interfaces, by ifindex: a few known ones, or any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    some: BTreeSet<u32>,
    any: bool,
}

impl Interfaces {
    /// A larger set is treated as any.
    const AT_MOST: usize = 256;

    /// Returns the set of all interfaces.
    pub fn any() -> Self {
        Self { some: BTreeSet::new(), any: true }
    }

    /// Adds a device.
    pub fn insert(&mut self, ifindex: u32) {
        if !self.any && self.some.insert(ifindex) && self.some.len() > Self::AT_MOST {
            *self = Self::any();
        }
    }

    /// Adds the interfaces in `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.any {
            *self = Self::any();
        }
        other.some.iter().for_each(|ifindex| self.insert(*ifindex));
    }

    /// Returns whether this interface may be in the set.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.any || self.some.contains(&ifindex)
    }

    /// Returns whether an interface that `matches` may be in the set.
    pub fn any_of(&self, matches: impl FnMut(&u32) -> bool) -> bool {
        self.any || self.some.iter().any(matches)
    }

    /// Returns whether there is no device.
    pub fn is_empty(&self) -> bool {
        !self.any && self.some.is_empty()
    }
}

/// The events about addresses of one network namespace.
pub struct AddressEvents {
    socket: TokioSocket,
    buffer: BytesMut,
}

impl AddressEvents {
    /// Opens the socket in the network namespace of the calling thread, inside a tokio runtime. Events are received
    /// from now on.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn open() -> Result<Self, SysError> {
        let failed = |error| SysError::kernel("listen to changes of addresses", "rtnetlink", error);
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).map_err(failed)?;
        Ok(Self { socket, buffer: BytesMut::with_capacity(DATAGRAM) })
    }

    /// Waits for a change, and returns the interfaces with changed addresses since the last call.
    ///
    /// # Errors
    /// The socket cannot be read any more. A loss of events is no error: then any address may have changed.
    pub async fn next(&mut self) -> Result<Interfaces, SysError> {
        let mut changed = Interfaces::default();
        let mut failures = 0;
        loop {
            self.buffer.clear();
            self.buffer.reserve(DATAGRAM);
            match self.socket.recv_from(&mut self.buffer).await {
                Ok(_) => read(&self.buffer, &mut changed),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    changed = Interfaces::any();
                }
                // ENOMEM, for example: what would have been read is unknown.
                Err(_) if failures < FAILURES => {
                    failures += 1;
                    changed = Interfaces::any();
                    tokio::time::sleep(failures * PAUSE).await;
                    continue;
                }
                Err(error) => return Err(SysError::kernel("read changes of addresses", "rtnetlink", error)),
            }
            break;
        }
        for _ in 0..AT_ONCE {
            self.buffer.clear();
            self.buffer.reserve(DATAGRAM);
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Ok(_) => read(&self.buffer, &mut changed),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    changed = Interfaces::any();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    changed = Interfaces::any();
                    break;
                }
            }
        }
        Ok(changed)
    }
}

/// Adds the interfaces in a datagram to the set. An unreadable message may be about any interface.
pub(super) fn read(mut datagram: &[u8], changed: &mut Interfaces) {
    while !datagram.is_empty() {
        let header = NetlinkBuffer::new_checked(datagram)
            .and_then(|message| Ok((message.length() as usize, AddressHeader::parse(message.payload())?)));
        let Ok((length, header)) = header else {
            *changed = Interfaces::any();
            return;
        };
        changed.insert(header.index);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::sys::{
        netlink::Address,
        testing::{in_namespace, veth},
    };

    #[test]
    fn interfaces_that_are_too_many_are_any() {
        let mut interfaces = Interfaces::default();
        assert!(interfaces.is_empty() && !interfaces.contains(1));
        let most = Interfaces::AT_MOST as u32;
        (0..most).for_each(|ifindex| interfaces.insert(ifindex));
        assert!(interfaces.contains(0) && !interfaces.contains(most));
        interfaces.insert(most);
        assert!(interfaces.contains(most + 1) && interfaces.any_of(|_| false));
        assert_eq!(interfaces, Interfaces::any());
    }

    #[test]
    fn a_datagram_that_cannot_be_read_is_about_any_interface() {
        for datagram in [&[20, 0, 0, 0, 20, 0, 0, 0][..], &[1; 15], &[0; 16]] {
            let mut changed = Interfaces::default();
            read(datagram, &mut changed);
            assert_eq!(changed, Interfaces::any(), "{datagram:?}");
        }
    }

    #[test]
    fn changes_are_read_together_and_an_overflow_is_about_any_interface() {
        in_namespace(async |devices| {
            let (link, far) = veth(&devices, "eth1", "far1").await;
            let mut events = AddressEvents::open().unwrap();
            let add = async |ifindex, last: u8| {
                let address = Address::new(ifindex, [192, 0, 2, last].into(), 32);
                devices.netlink.add_address(&address).await.unwrap();
            };
            let next = async |events: &mut AddressEvents| {
                timeout(Duration::from_secs(10), events.next()).await.expect("no event").unwrap()
            };
            for (ifindex, last) in [(link.ifindex, 1), (far.ifindex, 2), (link.ifindex, 3)] {
                add(ifindex, last).await;
            }
            let mut both = Interfaces::default();
            [link.ifindex, far.ifindex].into_iter().for_each(|ifindex| both.insert(ifindex));
            assert_eq!(next(&mut events).await, both);

            events.socket.socket_ref().set_rx_buf_sz::<libc::c_int>(4096).unwrap();
            for last in 10..110 {
                add(link.ifindex, last).await;
            }
            assert_eq!(next(&mut events).await, Interfaces::any());
            add(far.ifindex, 200).await;
            assert!(next(&mut events).await.contains(far.ifindex), "events come again after that");
        });
    }
}
