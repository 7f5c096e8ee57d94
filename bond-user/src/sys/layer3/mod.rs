//! Addresses, routes, neighbours and nexthop objects of a device, stored as the kernel's own messages.
//!
//! Setting a device down removes its routes, neighbours and nexthop objects, and enslaving removes its IPv6
//! addresses. They are sent back as they were read ([`Layer3`]), to the same device or, with `move_addresses`, to the
//! bond: only the device is replaced. What the kernel would not accept back is refused before anything is changed
//! ([`Layer3::unrestorable`]).
//!
//! Three kinds of objects are created by the kernel itself, and are left to it: IPv6 addresses that it chose for
//! privacy, IPv6 routes that come with addresses and with the device, and, where it listens to router advertisements,
//! the addresses and routes from those.

mod read;
mod restore;
mod routes;
mod send;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use bond_common::mac::Mac;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::netlink::IPV6_MIN_MTU;
use super::netlink::message::{
    self, IFA_F_STABLE_PRIVACY, IFA_F_TEMPORARY, IFA_PROTO, INET6, Message, MessageKind, NHA_OIF, Substitute,
};

/// RTPROT_REDIRECT, KERNEL and RA: the origin of a route.
const BY_REDIRECT: u8 = 1;
const BY_KERNEL: u8 = 2;
const BY_ADVERTISEMENT: u8 = 9;
/// RTN_UNICAST
const UNICAST: u8 = 1;
/// IFAPROT_KERNEL_LL
const KERNEL_LINK_LOCAL: u8 = 3;

/// The addresses, routes, neighbours and nexthop objects of a device, in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer3 {
    /// Milliseconds of CLOCK_MONOTONIC, by which lifetimes run.
    read_at: u64,
    messages: Vec<Message>,
    /// Whether the kernel learned routes from router advertisements on the device, and will do so again.
    learns: bool,
    /// Indexes in `messages` of IPv4 routes that stood ahead of another device's route to the same destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ahead: Vec<usize>,
}

/// An object that cannot be restored or moved, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrestorable {
    /// The object, as `ip` shows it.
    pub what: String,
    /// Why it cannot be restored.
    pub why: &'static str,
}

/// The device, and its names, to which the messages are sent.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// ifindex of the device that was read.
    pub from: u32,
    /// ifindex of the device that gets the objects.
    pub to: u32,
    /// The names of the two devices, where they differ.
    pub names: Option<(&'a str, &'a str)>,
    /// MAC address of the second device, from which the kernel derives its link-local address.
    pub mac: Option<Mac>,
}

impl Target<'_> {
    /// Returns the device that was read as the target.
    pub fn same(ifindex: u32) -> Self {
        Self::back(ifindex, ifindex)
    }

    /// Returns the device that was read, which may have another ifindex by now, as the target.
    pub fn back(from: u32, to: u32) -> Self {
        Self { from, to, names: None, mac: None }
    }

    /// Returns whether the kernel gives the device another address instead of this one.
    fn has_another(&self, address: &Message) -> bool {
        if self.is_back() {
            return is_chosen(address);
        }
        let is_the_same = self.mac.is_some_and(|mac| address.local() == Some(link_local_of(mac)));
        is_own_link_local(address) && !is_the_same
    }

    fn substitute(&self, elapsed: Duration) -> Substitute<'_> {
        Substitute { from: self.from, to: self.to, names: self.names, elapsed }
    }

    fn is_back(&self) -> bool {
        self.names.is_none()
    }
}

impl Layer3 {
    /// Creates it from messages that did not come from the kernel, for example those of an older record.
    pub fn of(messages: Vec<Message>) -> Self {
        Self { read_at: now(), messages, learns: true, ahead: Vec::new() }
    }

    fn of_kind(&self, kind: MessageKind) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.kind() == kind)
    }

    /// Returns the addresses in the kernel's order, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = &Message> {
        self.of_kind(MessageKind::Address)
    }

    /// Returns the routes.
    pub fn routes(&self) -> impl Iterator<Item = &Message> {
        self.of_kind(MessageKind::Route)
    }

    /// Returns nexthop objects over a device, and groups of them. A record of a device that was read has no others,
    /// but a record may have been edited.
    fn next_hops_over(&self, ifindex: u32) -> impl Iterator<Item = &Message> {
        let leads = move |object: &Message| object.number(NHA_OIF) == Some(ifindex);
        let own: HashSet<_> = self
            .of_kind(MessageKind::NextHop)
            .filter(|object| leads(object))
            .map(Message::next_hop_id)
            .collect();
        self.of_kind(MessageKind::NextHop)
            .filter(move |object| leads(object) || object.members().any(|id| own.contains(&id)))
    }

    /// Returns the rules about packets that a device of this name receives or sends.
    pub fn rules_about(&self, device: &str) -> Self {
        let rules = self.of_kind(MessageKind::Rule).filter(|rule| rule.names_device(device));
        Self { messages: rules.cloned().collect(), ahead: Vec::new(), ..*self }
    }

    /// Returns whether both hold the same messages, whatever the remaining times were when they were read.
    pub fn is_same(&self, other: &Self) -> bool {
        let stable = |layer: &Self| -> Vec<Option<Vec<u8>>> {
            let of = |message: &Message| match message.kind() {
                MessageKind::Route => message.canonical_route(),
                MessageKind::Address => {
                    let target = Target::same(message.ifindex());
                    let address = message.address_for(&target.substitute(Duration::MAX / 2), 0);
                    Some(address.map_or_else(Vec::new, |address| address.creation().body))
                }
                MessageKind::Neighbour | MessageKind::Rule | MessageKind::NextHop => {
                    Some(message.creation().body)
                }
            };
            layer.messages.iter().map(of).collect()
        };
        self.messages.len() == other.messages.len() && stable(self) == stable(other)
    }

    /// Returns whether there is anything that enslaving removes from the device, and that the kernel does not create
    /// again.
    pub fn gives_anything(&self) -> bool {
        self.addresses().any(|address| !is_own_link_local(address))
            || self.routes().any(|route| ![BY_KERNEL, BY_ADVERTISEMENT].contains(&route.route_protocol()))
            || self
                .messages
                .iter()
                .any(|message| matches!(message.kind(), MessageKind::Neighbour | MessageKind::NextHop))
    }

    /// Returns an object that the kernel would not accept back. A device that has one cannot be set down without a
    /// loss.
    pub fn unrestorable(&self) -> Option<Unrestorable> {
        /// LWTUNNEL_ENCAP_BPF and LWTUNNEL_ENCAP_SEG6_LOCAL, and SEG6_LOCAL_BPF within the latter.
        const BPF: u16 = 6;
        const SEG6_LOCAL: u16 = 7;
        const SEG6_LOCAL_BPF: u16 = 8;
        let is_program = |(kind, says): (u16, &[u8])| match kind {
            BPF => true,
            SEG6_LOCAL => message::nested(says).any(|(kind, _)| kind == SEG6_LOCAL_BPF),
            _ => false,
        };
        let programmed = self
            .messages
            .iter()
            .filter(|message| matches!(message.kind(), MessageKind::Route | MessageKind::NextHop));
        programmed.into_iter().find(|message| message.encapsulations().into_iter().any(is_program)).map(
            |message| Unrestorable {
                what: named(message),
                why: "it runs a BPF program (encap bpf), which the kernel does not hand out",
            },
        )
    }

    /// Returns an object that cannot be moved to a device of another name, with this MTU in bytes.
    pub fn unmovable(&self, target: &Target<'_>, mtu: u32) -> Option<Unrestorable> {
        let is_ipv6 = |message: &&Message| i32::from(message.family()) == libc::AF_INET6;
        let addresses = self.addresses().filter(|address| !is_own_link_local(address));
        let routes =
            self.routes().filter(|route| ![BY_KERNEL, BY_ADVERTISEMENT].contains(&route.route_protocol()));
        if let Some(message) = addresses.chain(routes).find(is_ipv6).filter(|_| mtu < IPV6_MIN_MTU) {
            let why = "it is IPv6, which needs an MTU of 1280 bytes";
            return Some(Unrestorable { what: named(message), why });
        }
        let too_long = |message: &&Message| {
            let moved = message.address_for(&target.substitute(Duration::ZERO), 0);
            let label = moved.as_ref().and_then(|moved| moved.name(message::IFA_LABEL));
            label.is_some_and(|label| label.len() >= libc::IFNAMSIZ)
        };
        self.addresses().find(too_long).map(|address| Unrestorable {
            what: format!(
                "{} with label {}",
                named(address),
                address.name(message::IFA_LABEL).unwrap_or_default()
            ),
            why: "the label would be too long with the bond's name",
        })
    }
}

/// Formats a message with the word for its kind.
fn named(message: &Message) -> String {
    match message.kind() {
        MessageKind::Address => format!("address {message}"),
        MessageKind::Route => format!("route {message}"),
        MessageKind::Neighbour => format!("neighbour {message}"),
        MessageKind::Rule => format!("rule {message}"),
        MessageKind::NextHop => message.to_string(),
    }
}

/// Returns milliseconds of the clock by which the kernel's lifetimes run.
fn now() -> u64 {
    #[cfg(any(test, feature = "fake"))]
    if let Some(now) = super::fake::time::monotonic() {
        return u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    }
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn link_local(ip: Option<IpAddr>) -> bool {
    matches!(ip, Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// Returns whether this is the link-local address that the kernel gives to every device. Before Linux 5.18 the kernel
/// does not mark it.
fn is_own_link_local(address: &Message) -> bool {
    let by_kernel = match address.attribute(IFA_PROTO) {
        Some(&[origin]) => origin == KERNEL_LINK_LOCAL,
        _ => address.address_flags() & IFA_F_STABLE_PRIVACY != 0 || is_eui64(address),
    };
    link_local(address.local()) && by_kernel
}

/// Returns fe80::/64 with the modified EUI-64 of a MAC address.
fn link_local_of(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac.bytes();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]).into()
}

/// Returns whether an address was derived from a MAC address.
fn is_eui64(address: &Message) -> bool {
    matches!(address.local(), Some(IpAddr::V6(ip)) if ip.octets().get(11..13) == Some(&[0xff, 0xfe]))
}

/// Returns whether the kernel chose the address, and would choose again.
fn is_chosen(address: &Message) -> bool {
    address.family() == INET6 && address.address_flags() & (IFA_F_TEMPORARY | IFA_F_STABLE_PRIVACY) != 0
}

impl Layer3 {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.read_at))
    }
}
