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

pub mod message;

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::{Duration, Instant},
};

use bond_common::mac::Mac;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

use self::message::{
    IFA_F_NODAD, IFA_F_STABLE_PRIVACY, IFA_F_TEMPORARY, IFA_PROTO, INET, INET6, MPLS, Message, MessageKind,
    NDA_FLAGS_EXT, NDA_IFINDEX, NHA_OIF, RTA_NH_ID, RouteKey, Substitute,
};
use super::{
    Devices, SysError,
    netlink::{IPV6_MIN_MTU, Raw},
};

/// RTPROT_REDIRECT, KERNEL and RA: the origin of a route.
const BY_REDIRECT: u8 = 1;
const BY_KERNEL: u8 = 2;
const BY_ADVERTISEMENT: u8 = 9;
/// RTN_UNICAST
const UNICAST: u8 = 1;
/// IFAPROT_KERNEL_LL
const KERNEL_LINK_LOCAL: u8 = 3;
/// A NIC that was set down needs some seconds until it has a link again.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(10);
const CARRIER_POLL: Duration = Duration::from_millis(20);
/// How many failures an error names.
const NAMED: usize = 5;

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
    pub what: String,
    pub why: &'static str,
}

/// The device, and its names, to which the messages are sent.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// ifindex of the device that was read.
    pub from: u32,
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

/// Returns whether a route comes with an IPv6 address or with the device.
fn comes_by_itself(route: &Message) -> bool {
    let of_device = matches!(route.destination(), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() || ip.is_multicast());
    route.family() == INET6
        && route.route_protocol() == BY_KERNEL
        && (of_device || route.route_type() != UNICAST)
}

/// The parts of a dump of routes that are of one device.
#[derive(Default)]
struct Reading {
    routes: Vec<Message>,
    ahead: Vec<usize>,
    /// The key of the last route of the device, and its indexes in `messages`.
    last: Option<(RouteKey, Vec<usize>)>,
}

impl Reading {
    fn take(&mut self, route: Message, is_own: bool) {
        if !is_own {
            if let Some((key, places)) = &self.last
                && route.family() == INET
                && *key == route.route_key()
            {
                self.ahead.extend(places);
            }
            self.last = None;
            return;
        }
        let (key, place) = (route.route_key(), self.routes.len());
        match &mut self.last {
            Some((last, places)) if *last == key => places.push(place),
            _ => self.last = Some((key, vec![place])),
        }
        self.routes.push(route);
    }
}

/// Returns a request for a list of this family.
fn listing(kind: MessageKind, family: u8) -> Raw {
    let mut body = vec![0; kind.header()];
    if let Some(place) = body.first_mut() {
        *place = family;
    }
    Raw { kind: kind.new_type() + 2, body }
}

/// The requests that are still to be sent, and the results of those that were.
struct Sender<'a> {
    devices: &'a (dyn Devices + 'a),
    on: String,
    /// The device to which the messages belong.
    device: Option<u32>,
    failures: Vec<(String, rtnetlink::Error)>,
}

impl Sender<'_> {
    /// Sends all requests; an object that exists already counts as success. Returns the failed ones.
    async fn send(&self, requests: Vec<(u16, Message)>) -> Vec<(u16, Message, rtnetlink::Error)> {
        let raw = requests.iter().map(|(flags, message)| (*flags, message.creation())).collect();
        let answers = self.devices.send_raw(raw).await;
        let failed = |((flags, message), answer): ((u16, Message), Result<(), rtnetlink::Error>)| match answer
        {
            Ok(()) => None,
            Err(error) if errno(&error) == Some(Errno::EEXIST) => None,
            Err(error) => Some((flags, message, error)),
        };
        requests.into_iter().zip(answers).filter_map(failed).collect()
    }

    /// Sends all requests, and repeats failed ones as long as some succeed: one of them may be the route to another
    /// one's gateway.
    async fn send_repeatedly(&mut self, mut requests: Vec<(u16, Message)>) {
        loop {
            let before = requests.len();
            let failed = self.send(requests).await;
            if failed.is_empty() {
                return;
            }
            if failed.len() == before {
                let failed = self.send_with_gateways(failed).await;
                self.failures.extend(failed.into_iter().map(|(_, message, error)| (named(&message), error)));
                return;
            }
            requests = failed.into_iter().map(|(flags, message, _)| (flags, message)).collect();
        }
    }

    /// Sends routes again that were refused because no route reaches their gateways, together with temporary routes
    /// to the gateways. The kernel keeps such routes when the address vanishes that made a gateway reachable, but
    /// does not add them. Returns the routes that failed.
    async fn send_with_gateways(
        &self,
        requests: Vec<(u16, Message, rtnetlink::Error)>,
    ) -> Vec<(u16, Message, rtnetlink::Error)> {
        let mut failed = Vec::new();
        for (flags, message, error) in requests {
            let unreachable = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL];
            let helpers = match self.device {
                Some(device) if errno(&error).is_some_and(|errno| unreachable.contains(&errno)) => {
                    message.routes_to_gateways(device)
                }
                _ => Vec::new(),
            };
            if helpers.is_empty() {
                failed.push((flags, message, error));
                continue;
            }
            // Sent together: a killed agent leaves the temporary routes only if it is killed between two system
            // calls.
            let mut raw: Vec<_> =
                helpers.iter().map(|helper| (NLM_F_CREATE | NLM_F_EXCL, helper.creation())).collect();
            raw.push((flags, message.creation()));
            raw.extend(helpers.iter().map(|helper| (0, helper.deletion())));
            match self.devices.send_raw(raw).await.into_iter().nth(helpers.len()) {
                Some(Err(error)) if errno(&error) != Some(Errno::EEXIST) => {
                    failed.push((flags, message, error))
                }
                _ => {}
            }
        }
        failed
    }

    async fn delete(&mut self, messages: &[Message]) {
        let raw = messages.iter().map(|message| (0, message.deletion())).collect();
        for (message, answer) in messages.iter().zip(self.devices.send_raw(raw).await) {
            let gone = [Errno::EADDRNOTAVAIL, Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
            if let Err(error) = answer
                && errno(&error).is_none_or(|errno| !gone.contains(&errno))
            {
                self.failures.push((named(message), error));
            }
        }
    }

    /// # Errors
    /// Names the objects that could not be sent.
    fn finish(self) -> Result<(), SysError> {
        let mut failures = self.failures.into_iter();
        let Some((what, error)) = failures.next() else { return Ok(()) };
        let mut what = format!("restore {what}");
        let others: Vec<_> = failures.map(|(what, _)| what).collect();
        if !others.is_empty() {
            let _ =
                write!(what, ", and {}", others.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "));
        }
        if others.len() > NAMED {
            let _ = write!(what, ", and {} more", others.len() - NAMED);
        }
        Err(SysError::netlink(what, self.on, error))
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.to_io().raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}

impl dyn Devices + '_ {
    /// Reads what stands on a device of this network namespace.
    pub async fn layer3_of(&self, ifindex: u32, name: &str) -> Result<Layer3, SysError> {
        let read_at = now();
        let mut messages = self.raw_addresses(ifindex).await?;
        let next_hops = self.next_hops_of(ifindex).await?;
        let ids: HashSet<_> = next_hops.iter().map(Message::next_hop_id).collect();
        messages.extend(next_hops);
        let mut ahead = Vec::new();
        for family in [INET, INET6] {
            let is_own = |route: &Message| {
                route.number(RTA_NH_ID).is_some_and(|id| ids.contains(&id))
                    || route.route_devices().contains(&ifindex)
            };
            let begin = messages.len();
            let reading = self.read_routes(family, is_own).await?;
            ahead.extend(reading.ahead.into_iter().map(|place| begin + place));
            messages.extend(reading.routes);
        }
        messages.extend(self.neighbours_to_keep(ifindex).await?);
        Ok(Layer3 { read_at, messages, learns: self.learns_routes(name), ahead })
    }

    /// Whether the kernel learns routes of router advertisements on this device. Unknown is no.
    fn learns_routes(&self, device: &str) -> bool {
        let number = |directory: &str, name: &str| {
            let path = Path::new("/proc/sys/net/ipv6/conf").join(directory).join(name);
            self.read_sysctl(&path).and_then(|text| text.trim().parse::<i32>().ok())
        };
        match number(device, "accept_ra") {
            Some(2) => true,
            Some(1) => number(device, "forwarding") == Some(0),
            _ => false,
        }
    }

    async fn raw_addresses(&self, ifindex: u32) -> Result<Vec<Message>, SysError> {
        let mut addresses = Vec::new();
        for family in [INET, INET6] {
            addresses.extend(
                self.messages(
                    MessageKind::Address,
                    &listing(MessageKind::Address, family),
                    "the addresses",
                    |address| {
                        // Without IPv6 in the kernel, its list contains all families.
                        address.family() == family && address.ifindex() == ifindex
                    },
                )
                .await?,
            );
        }
        Ok(addresses)
    }

    async fn read_routes(
        &self,
        family: u8,
        is_own: impl Fn(&Message) -> bool + Sync,
    ) -> Result<Reading, SysError> {
        let each = |reading: &mut Reading, raw| {
            if let Some(route) = Message::new(MessageKind::Route, raw)
                && route.family() == family
                && !route.is_clone()
                && route.route_protocol() != BY_REDIRECT
            {
                let is_own = is_own(&route);
                reading.take(route, is_own);
            }
        };
        self.collect(&listing(MessageKind::Route, family), "the routes", Reading::default, each).await
    }

    /// Returns the nexthop objects over a device, before the groups that they are members of.
    async fn next_hops_of(&self, ifindex: u32) -> Result<Vec<Message>, SysError> {
        let all = self
            .messages(MessageKind::NextHop, &listing(MessageKind::NextHop, 0), "the nexthop objects", |_| {
                true
            })
            .await?;
        let mut kept: Vec<_> =
            all.iter().filter(|object| object.number(NHA_OIF) == Some(ifindex)).cloned().collect();
        let ids: HashSet<_> = kept.iter().map(Message::next_hop_id).collect();
        kept.extend(all.iter().filter(|object| object.members().any(|id| ids.contains(&id))).cloned());
        Ok(kept)
    }

    /// Returns neighbours that the kernel does not find again: permanent ones, those of a routing daemon, and
    /// proxies.
    async fn neighbours_to_keep(&self, ifindex: u32) -> Result<Vec<Message>, SysError> {
        const NUD_NOARP: u16 = 0x40;
        const NUD_PERMANENT: u16 = 0x80;
        const NTF_PROXY: u8 = 0x08;
        const NTF_EXT_LEARNED: u8 = 0x10;
        const NTF_EXT_MANAGED: u32 = 1;
        let is_kept = |neighbour: &Message| {
            let state = neighbour.neighbour_state();
            neighbour.ifindex() == ifindex
                && (state & NUD_PERMANENT != 0
                    || state & NUD_NOARP != 0 && neighbour.neighbour_type() == UNICAST
                    || neighbour.neighbour_flags() & (NTF_PROXY | NTF_EXT_LEARNED) != 0
                    || neighbour.number(NDA_FLAGS_EXT).unwrap_or(0) & NTF_EXT_MANAGED != 0)
        };
        let mut kept = Vec::new();
        for family in [INET, INET6] {
            for flags in [0, NTF_PROXY] {
                let mut request = listing(MessageKind::Neighbour, family);
                if let Some(place) = request.body.get_mut(10) {
                    *place = flags;
                }
                message::append(&mut request.body, NDA_IFINDEX, &ifindex.to_ne_bytes());
                kept.extend(
                    self.messages(MessageKind::Neighbour, &request, "the neighbours", is_kept).await?,
                );
            }
        }
        Ok(kept)
    }

    async fn messages(
        &self,
        kind: MessageKind,
        request: &Raw,
        what: &str,
        is_wanted: impl Fn(&Message) -> bool + Sync,
    ) -> Result<Vec<Message>, SysError> {
        let each = |messages: &mut Vec<Message>, raw| {
            messages.extend(Message::new(kind, raw).filter(|message| is_wanted(message)));
        };
        self.collect(request, what, Vec::new, each).await
    }

    fn sender(&self, target: &Target<'_>) -> Sender<'_> {
        Sender { devices: self, on: self.called(target.to), device: Some(target.to), failures: Vec::new() }
    }

    /// Adds the addresses to a device, in the same order: existing ones in another order are removed and added again.
    /// The kernel accepts IPv6 addresses without duplicate address detection.
    ///
    /// # Errors
    /// Names the objects that the kernel refused; the others were added.
    pub async fn put_addresses(&self, layer3: &Layer3, target: &Target<'_>) -> Result<(), SysError> {
        self.put_addresses_of(&[INET, INET6], layer3, target).await
    }

    /// Does `put_addresses` for IPv4 only.
    pub async fn put_ipv4_addresses(&self, layer3: &Layer3, target: &Target<'_>) -> Result<(), SysError> {
        self.put_addresses_of(&[INET], layer3, target).await
    }

    async fn put_addresses_of(
        &self,
        families: &[u8],
        layer3: &Layer3,
        target: &Target<'_>,
    ) -> Result<(), SysError> {
        let present = self.raw_addresses(target.to).await?;
        let mut sender = self.sender(target);
        for &family in families {
            // The newest IPv6 address of a scope is the first.
            let in_order = |messages: Vec<Message>| -> Vec<Message> {
                if family == INET6 { messages.into_iter().rev().collect() } else { messages }
            };
            let is_wanted = |address: &&Message| address.family() == family && !target.has_another(address);
            let wanted = in_order(layer3.addresses().filter(is_wanted).cloned().collect());
            let scopes: BTreeSet<_> = wanted.iter().map(Message::address_scope).collect();
            for scope in scopes {
                let of_scope = |address: &&Message| {
                    address.family() == family && (family == INET || address.address_scope() == scope)
                };
                let wanted: Vec<_> = wanted.iter().filter(of_scope).collect();
                let is_one = |address: &&Message| {
                    wanted.iter().any(|wanted| wanted.address_key() == address.address_key())
                };
                let there = in_order(present.iter().filter(of_scope).filter(is_one).cloned().collect());
                let as_wanted = wanted.iter().zip(&there).all(|(a, b)| a.address_key() == b.address_key());
                let first = if as_wanted { there.len() } else { 0 };
                if !as_wanted {
                    let reversed: Vec<_> = there.into_iter().rev().collect();
                    sender.delete(&reversed).await;
                }
                sender.add_addresses(layer3, target, wanted.get(first..).unwrap_or_default()).await;
                if family == INET {
                    break;
                }
            }
        }
        sender.finish()
    }

    /// Removes the IPv4 addresses, secondary ones first.
    pub async fn take_ipv4_addresses(&self, layer3: &Layer3) -> Result<(), SysError> {
        let mut addresses: Vec<_> =
            layer3.addresses().filter(|address| address.family() == INET).cloned().collect();
        addresses.reverse();
        let mut sender =
            Sender { devices: self, on: "the slave".to_owned(), device: None, failures: Vec::new() };
        sender.delete(&addresses).await;
        sender.finish()
    }

    /// Adds the missing routes, nexthop objects and neighbours to a device that is up, after its addresses. Routes
    /// that the kernel created with an address, and that had been deleted before, are deleted again. `device` is its
    /// name.
    ///
    /// # Errors
    /// Names the objects that the kernel refused; the others were added.
    pub async fn put_routes(
        &self,
        layer3: &Layer3,
        target: &Target<'_>,
        device: &str,
    ) -> Result<(), SysError> {
        let substitute = target.substitute(layer3.elapsed());
        let mut sender = self.sender(target);
        let learns = layer3.learns && self.learns_routes(device);
        let is_learned =
            |route: &Message| learns && route.family() == INET6 && route.route_protocol() == BY_ADVERTISEMENT;
        let objects: HashSet<_> = layer3.next_hops_over(target.from).map(Message::next_hop_id).collect();
        let is_ours = |route: &Message| {
            let by_object = || route.number(RTA_NH_ID).is_some_and(|id| objects.contains(&id));
            let is_over = route.route_devices().contains(&target.from) || by_object();
            is_over && !comes_by_itself(route) && !is_learned(route)
        };
        let mut routes: Vec<_> = layer3
            .messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.kind() == MessageKind::Route && is_ours(message))
            .filter_map(|(place, route)| Some((layer3.ahead.contains(&place), route.route_for(&substitute)?)))
            .collect();
        let mut present = Vec::new();
        for family in [INET, INET6] {
            let on_device = |route: &Message| route.route_devices().contains(&target.to);
            present.extend(self.read_routes(family, on_device).await?.routes);
        }
        let wanted: HashSet<_> = routes.iter().filter_map(|(_, route)| route.canonical_route()).collect();
        let is_wanted = |route: &Message| route.canonical_route().is_some_and(|key| wanted.contains(&key));
        let undone: Vec<_> = present
            .iter()
            .filter(|route| route.route_protocol() == BY_KERNEL && !comes_by_itself(route))
            .filter(|route| comes_with_address(route, layer3) && !is_wanted(route))
            .cloned()
            .collect();
        sender.delete(&undone).await;
        let present: HashSet<_> = present.iter().filter_map(Message::canonical_route).collect();
        let is_there = |route: &Message| route.canonical_route().is_some_and(|key| present.contains(&key));
        // A route that stood ahead of another device's route does so again; the existing ones then stand behind it.
        let (ahead, behind): (Vec<_>, Vec<_>) = routes.drain(..).partition(|(ahead, _)| *ahead);
        let again: Vec<_> =
            ahead.iter().map(|(_, route)| route).filter(|route| is_there(route)).cloned().collect();
        sender.delete(&again).await;
        // Each is inserted before the one that was sent before it.
        let first = ahead.into_iter().rev().map(|(_, route)| (NLM_F_CREATE, route));
        let rest = behind.into_iter().map(|(_, route)| route).filter(|route| !is_there(route));
        let all: Vec<_> = first.chain(rest.map(|route| (NLM_F_CREATE | NLM_F_APPEND, route))).collect();
        let (by_gateway, direct): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, route)| route.has_gateway());
        sender.send_repeatedly(direct).await;
        let shared = |route: &Message| route.route_devices().iter().any(|device| *device != target.to);
        let replacing = |(flags, route): (u16, Message)| {
            // Its other next hops exist, alone or with one that does not: the kernel accepts none of them twice. It
            // removes the whole IPv4 route when a next hop vanishes.
            let replaces = shared(&route) && (route.family() == INET6 || !target.is_back());
            (if replaces { NLM_F_CREATE | NLM_F_REPLACE } else { flags }, route)
        };
        let (by_object, by_gateway): (Vec<_>, Vec<_>) = by_gateway
            .into_iter()
            .map(replacing)
            .partition(|(_, route)| route.attribute(RTA_NH_ID).is_some());
        sender.send_repeatedly(by_gateway).await;
        sender.put_neighbours(layer3, &substitute).await;
        let objects = layer3.next_hops_over(target.from).map(|object| object.next_hop_for(&substitute));
        let objects: Vec<_> = objects.map(|object| (NLM_F_CREATE | NLM_F_REPLACE, object)).collect();
        if !objects.is_empty() {
            self.await_carrier(target.to).await?;
            sender.send_repeatedly(objects).await;
        }
        sender.send_repeatedly(by_object).await;
        sender.finish()
    }

    /// Waits until a device has a carrier, without which it accepts no nexthop object; the time is limited.
    async fn await_carrier(&self, ifindex: u32) -> Result<(), SysError> {
        let deadline = Instant::now() + CARRIER_TIMEOUT;
        while !self.link_by_index(ifindex).await?.is_lower_up() && Instant::now() < deadline {
            tokio::time::sleep(CARRIER_POLL).await;
        }
        Ok(())
    }

    /// Adds the neighbours to a device: each change of its MAC address removes them, even if the address stays the
    /// same.
    pub async fn put_neighbours(&self, layer3: &Layer3, target: &Target<'_>) -> Result<(), SysError> {
        let mut sender = self.sender(target);
        sender.put_neighbours(layer3, &target.substitute(layer3.elapsed())).await;
        sender.finish()
    }

    /// Returns the rules about packets that a device of this name receives or sends, with the name of another device,
    /// as far as they do not exist yet.
    ///
    /// # Errors
    /// Another rule of the same priority follows one of them: the kernel would insert a copy after it.
    pub async fn rules_to_copy(
        &self,
        from: &str,
        to: &str,
    ) -> Result<Result<Layer3, Unrestorable>, SysError> {
        let substitute = Substitute { from: 0, to: 0, names: Some((from, to)), elapsed: Duration::ZERO };
        let mut copies = Vec::new();
        for family in [INET, INET6] {
            let rules = self
                .messages(MessageKind::Rule, &listing(MessageKind::Rule, family), "the rules", |_| true)
                .await?;
            for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.names_device(from)) {
                let follows = |other: &&Message| {
                    other.rule_priority() == rule.rule_priority() && !other.names_device(from)
                };
                let copy = rule.rule_for(&substitute);
                if rules.iter().any(|other| other.rule_for(&substitute) == copy && !other.names_device(from))
                {
                    continue;
                }
                if rules.get(place + 1..).unwrap_or_default().iter().any(|other| follows(&other)) {
                    let (what, why) =
                        (named(rule), "another rule of this priority follows it; give it its own priority");
                    return Ok(Err(Unrestorable { what, why }));
                }
                copies.push(copy);
            }
        }
        Ok(Ok(Layer3::of(copies)))
    }

    /// Adds rules, in their order.
    pub async fn add_rules(&self, rules: &Layer3) -> Result<(), SysError> {
        let mut sender =
            Sender { devices: self, on: "the rules".to_owned(), device: None, failures: Vec::new() };
        let rules = rules.of_kind(MessageKind::Rule).map(|rule| (NLM_F_CREATE | NLM_F_EXCL, rule.clone()));
        sender.send_repeatedly(rules.collect()).await;
        sender.finish()
    }

    /// Deletes rules; a missing one counts as deleted.
    pub async fn del_rules(&self, rules: &Layer3) -> Result<(), SysError> {
        let mut sender =
            Sender { devices: self, on: "the rules".to_owned(), device: None, failures: Vec::new() };
        sender.delete(&rules.of_kind(MessageKind::Rule).cloned().collect::<Vec<_>>()).await;
        sender.finish()
    }

    /// Returns an MPLS route over a device: its next hops have a form that cannot be moved.
    pub async fn mpls_route_over(&self, ifindex: u32) -> Result<Option<Unrestorable>, SysError> {
        let over = |route: &Message| route.family() == MPLS && route.route_devices().contains(&ifindex);
        let routes = self
            .messages(MessageKind::Route, &listing(MessageKind::Route, MPLS), "the MPLS routes", over)
            .await?;
        let why = "MPLS routes are not moved; delete it, and add it to the bond then";
        Ok((!routes.is_empty()).then(|| Unrestorable { what: "an MPLS route".to_owned(), why }))
    }
}

impl Sender<'_> {
    async fn put_neighbours(&mut self, layer3: &Layer3, substitute: &Substitute<'_>) {
        let neighbours =
            layer3.of_kind(MessageKind::Neighbour).map(|neighbour| neighbour.neighbour_for(substitute));
        let neighbours = neighbours.map(|neighbour| (NLM_F_CREATE | NLM_F_REPLACE, neighbour));
        self.send_repeatedly(neighbours.collect()).await;
    }

    /// Adds addresses one after the other. Addresses that this host had already are added without duplicate address
    /// detection; then they get their own flags.
    async fn add_addresses(&mut self, layer3: &Layer3, target: &Target<'_>, wanted: &[&Message]) {
        let substitute = target.substitute(layer3.elapsed());
        let nodad = |address: &Message| if address.family() == INET6 { IFA_F_NODAD } else { 0 };
        let add = wanted.iter().filter_map(|address| address.address_for(&substitute, nodad(address)));
        let failed = self.send(add.map(|address| (NLM_F_CREATE | NLM_F_EXCL, address)).collect()).await;
        self.failures.extend(failed.into_iter().map(|(_, address, error)| (named(&address), error)));
        let plain = wanted
            .iter()
            .filter(|address| address.family() == INET6 && address.address_flags() & IFA_F_NODAD == 0)
            .filter_map(|address| address.address_for(&substitute, 0));
        let failed = self.send(plain.map(|address| (NLM_F_REPLACE, address)).collect()).await;
        self.failures.extend(failed.into_iter().map(|(_, address, error)| (named(&address), error)));
    }
}

impl Layer3 {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.read_at))
    }
}

/// Returns whether the kernel creates such a route with one of the addresses.
fn comes_with_address(route: &Message, layer3: &Layer3) -> bool {
    let source = route.preferred_source();
    let network = |address: &Message| match (address.local(), route.destination()) {
        (Some(IpAddr::V6(ip)), Some(IpAddr::V6(to))) => {
            let bits = u32::from(address.byte(1).min(128));
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            route.byte(1) == address.byte(1) && u128::from(ip) & mask == u128::from(to)
        }
        _ => false,
    };
    layer3.addresses().any(|address| {
        if address.family() == INET {
            source.is_some() && source == address.local()
        } else {
            network(address)
        }
    })
}
