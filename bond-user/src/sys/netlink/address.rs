//! IP addresses of devices.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{Emitable as _, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
        CacheInfo,
    },
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Netlink, NetnsId, Raw};
use crate::sys::{
    SysError,
    netlink::message::{Message, MessageKind},
};

/// An address on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The device.
    pub ifindex: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix_len: u8,
    /// The other end, on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// The broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// IPv4: "eth0:1" and the like.
    pub label: Option<String>,
    /// RT_SCOPE_*
    pub scope: u8,
    /// IFA_F_*
    pub flags: u32,
    /// `None`: no limit.
    pub lifetime: Option<Lifetime>,
    /// Whether the kernel added it by itself: a link-local address, or one from a router advertisement (IFA_PROTO,
    /// Linux 5.18 or later).
    pub by_kernel: bool,
}

/// Lifetimes in seconds, counted from when they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Seconds until the address is deprecated.
    pub preferred: u32,
    /// Seconds until the kernel removes the address.
    pub valid: u32,
}

impl Address {
    /// Creates an address with the usual broadcast address and without a limit.
    pub fn new(ifindex: u32, ip: IpAddr, prefix_len: u8) -> Self {
        let broadcast = match ip {
            IpAddr::V4(ip) if prefix_len < 31 => Some(Ipv4Addr::from(u32::from(ip) | u32::MAX >> prefix_len)),
            _ => None,
        };
        Self {
            ifindex,
            ip,
            prefix_len,
            peer: None,
            broadcast,
            label: None,
            scope: 0,
            flags: 0,
            lifetime: None,
            by_kernel: false,
        }
    }

    /// Returns whether duplicate address detection forbids its use: tentative and not optimistic, or a duplicate.
    pub fn is_tentative(&self) -> bool {
        let flags = AddressFlags::from_bits_retain(self.flags);
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic)
    }

    /// Returns whether the kernel added it; before Linux 5.18 the kernel does not mark its link-local addresses.
    pub fn is_automatic(&self) -> bool {
        let is_link_local = matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        self.ip.is_ipv6() && (self.by_kernel || is_link_local)
    }

    /// Returns whether both are the same address, whatever their flags and lifetimes.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.ifindex, self.ip, self.prefix_len, self.peer)
            == (other.ifindex, other.ip, other.prefix_len, other.peer)
    }

    fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut address, mut local, mut flags) = (None, None, u32::from(message.header.flags.bits()));
        let mut found = Self::new(message.header.index, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        found.prefix_len = message.header.prefix_len;
        found.scope = message.header.scope.into();
        found.broadcast = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Broadcast(ip) => found.broadcast = Some(*ip),
                AddressAttribute::Label(label) => found.label = Some(label.clone()),
                AddressAttribute::Flags(all) => flags = all.bits(),
                AddressAttribute::CacheInfo(info) if info.ifa_valid != u32::MAX => {
                    found.lifetime = Some(Lifetime { preferred: info.ifa_preferred, valid: info.ifa_valid });
                }
                AddressAttribute::Protocol(origin) => {
                    found.by_kernel = !matches!(origin, AddressProtocol::Other(_));
                }
                _ => {}
            }
        }
        found.ip = local.or(address)?;
        found.peer = address.filter(|&ip| ip != found.ip);
        found.flags = flags;
        Some(found)
    }

    /// Converts it to a message of the kernel.
    pub fn to_kept(&self) -> Option<Message> {
        let message = self.to_message();
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Message::new(MessageKind::Address, Raw { kind: MessageKind::Address.new_type(), body })
    }

    /// The address that a message of the kernel's is about; None if it is about something else.
    #[cfg(any(test, feature = "fake"))]
    pub fn of_kept(message: &Message) -> Option<Self> {
        use netlink_packet_core::Parseable as _;
        let is_address = message.kind() == MessageKind::Address;
        Self::from_message(&AddressMessage::parse(&message.creation().body).ok().filter(|_| is_address)?)
    }

    fn to_message(&self) -> AddressMessage {
        const SETTABLE: AddressFlags = AddressFlags::Nodad
            .union(AddressFlags::Optimistic)
            .union(AddressFlags::Homeaddress)
            .union(AddressFlags::Managetempaddr)
            .union(AddressFlags::Noprefixroute)
            .union(AddressFlags::Mcautojoin);
        let flags = AddressFlags::from_bits_retain(self.flags) & SETTABLE;
        let mut message = AddressMessage::default();
        message.header.family = match self.ip {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.index = self.ifindex;
        message.header.prefix_len = self.prefix_len;
        message.header.scope = AddressScope::from(self.scope);
        message.header.flags = AddressHeaderFlags::from_bits_truncate(flags.bits() as u8);
        let attributes = &mut message.attributes;
        attributes.push(AddressAttribute::Local(self.ip));
        attributes.push(AddressAttribute::Address(self.peer.unwrap_or(self.ip)));
        attributes.push(AddressAttribute::Flags(flags));
        attributes.extend(self.broadcast.map(AddressAttribute::Broadcast));
        attributes.extend(self.label.clone().map(AddressAttribute::Label));
        if let Some(lifetime) = self.lifetime {
            let mut info = CacheInfo::default();
            info.ifa_preferred = lifetime.preferred;
            info.ifa_valid = lifetime.valid;
            attributes.push(AddressAttribute::CacheInfo(info));
        }
        message
    }
}

impl Netlink {
    /// Returns the addresses of every device of a namespace, IPv4 first; the primary ones before the secondary ones
    /// of a device.
    ///
    /// # Errors
    /// The namespace does not exist, or the kernel does not list its addresses.
    pub async fn addresses(&self, netns: NetnsId) -> Result<Vec<Address>, SysError> {
        let mut request = AddressMessage::default();
        request.attributes.extend(netns.map(AddressAttribute::TargetNetNsId));
        let addresses = self.list(RouteNetlinkMessage::GetAddress(request), "the addresses").await?;
        let address = |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Address::from_message(&address),
            _ => None,
        };
        Ok(addresses.into_iter().filter_map(address).collect())
    }

    /// Returns the addresses of one device.
    ///
    /// # Errors
    /// The kernel does not list the addresses.
    pub async fn addresses_of(&self, ifindex: u32) -> Result<Vec<Address>, SysError> {
        let mut addresses = self.addresses(None).await?;
        addresses.retain(|address| address.ifindex == ifindex);
        Ok(addresses)
    }

    /// Adds an address. An existing address counts as success.
    ///
    /// # Errors
    /// The device does not exist, or the kernel refuses the address.
    pub async fn add_address(&self, address: &Address) -> Result<(), SysError> {
        let request = RouteNetlinkMessage::NewAddress(address.to_message());
        let answer = self.change_raw(NLM_F_CREATE | NLM_F_EXCL, request.into()).await;
        match answer.map_err(|error| failed("add", address, error)) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            answer => answer,
        }
    }

    /// Deletes an address. A missing address counts as success.
    ///
    /// # Errors
    /// The kernel refuses to delete the address, or gives no answer.
    pub async fn del_address(&self, address: &Address) -> Result<(), SysError> {
        let answer = self.change_raw(0, RouteNetlinkMessage::DelAddress(address.to_message()).into()).await;
        match answer.map_err(|error| failed("delete", address, error)) {
            Err(error) if error.is_gone() || error.errno() == Some(Errno::EADDRNOTAVAIL) => Ok(()),
            answer => answer,
        }
    }
}

fn failed(verb: &str, address: &Address, error: rtnetlink::Error) -> SysError {
    let what = format!("{verb} address {}/{}", address.ip, address.prefix_len);
    SysError::netlink(what, super::called(address.ifindex), error)
}
