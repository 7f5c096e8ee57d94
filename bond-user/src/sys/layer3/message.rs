//! One rtnetlink message about an address, a route, a neighbour, a rule or a nexthop object.
//!
//! It stays as the kernel sent it. Only these parts are changed before it is sent back: the device's ifindex or name,
//! the state that only the kernel sets (flags, counters), and the remaining time.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::sys::netlink::Raw;

/// AF_INET, AF_INET6 and AF_MPLS, as in headers.
pub const INET: u8 = libc::AF_INET as u8;
pub const INET6: u8 = libc::AF_INET6 as u8;
pub const MPLS: u8 = 28;

/// Flags of an attribute's type.
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
pub const IFA_LABEL: u16 = 3;
pub const IFA_CACHEINFO: u16 = 6;
pub const IFA_FLAGS: u16 = 8;
pub const IFA_PROTO: u16 = 11;

pub const RTA_DST: u16 = 1;
pub const RTA_SRC: u16 = 2;
pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;
pub const RTA_PRIORITY: u16 = 6;
pub const RTA_PREFSRC: u16 = 7;
pub const RTA_MULTIPATH: u16 = 9;
pub const RTA_CACHEINFO: u16 = 12;
pub const RTA_TABLE: u16 = 15;
pub const RTA_VIA: u16 = 18;
pub const RTA_ENCAP_TYPE: u16 = 21;
pub const RTA_ENCAP: u16 = 22;
pub const RTA_EXPIRES: u16 = 23;
pub const RTA_NH_ID: u16 = 30;

pub const NDA_DST: u16 = 1;
pub const NDA_CACHEINFO: u16 = 3;
pub const NDA_PROBES: u16 = 4;
pub const NDA_IFINDEX: u16 = 8;
pub const NDA_FLAGS_EXT: u16 = 15;

pub const FRA_IIFNAME: u16 = 3;
pub const FRA_PRIORITY: u16 = 6;
pub const FRA_OIFNAME: u16 = 17;

pub const NHA_ID: u16 = 1;
pub const NHA_GROUP: u16 = 2;
pub const NHA_OIF: u16 = 5;
pub const NHA_GATEWAY: u16 = 6;
pub const NHA_ENCAP_TYPE: u16 = 7;
pub const NHA_ENCAP: u16 = 8;
pub const NHA_RES_GROUP: u16 = 12;
/// Attributes that only the kernel's answers have: NHA_GROUPS, NHA_MASTER, NHA_RES_BUCKET, NHA_OP_FLAGS,
/// NHA_GROUP_STATS, NHA_HW_STATS_USED.
const NHA_ANSWERS: [u16; 6] = [9, 10, 13, 14, 15, 17];
/// Within NHA_RES_GROUP.
const NHA_RES_GROUP_UNBALANCED_TIME: u16 = 4;

/// Flags of a next hop that a user may set: RTNH_F_PERVASIVE and RTNH_F_ONLINK. The others are its state.
const RTNH_SETTABLE: u8 = 2 | 4;
/// RTM_F_CLONED
const CLONED: u32 = 0x200;
/// FIB_RULE_PERMANENT and FIB_RULE_INVERT; the others are its state.
const RULE_SETTABLE: u32 = 1 | 2;
/// IFA_F_NODAD | HOMEADDRESS | MANAGETEMPADDR | NOPREFIXROUTE | MCAUTOJOIN
const ADDRESS_SETTABLE: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
pub const IFA_F_NODAD: u32 = 0x02;
/// Flag of an IPv6 address: the kernel chose it, for privacy, and will replace it.
pub const IFA_F_TEMPORARY: u32 = 0x01;
/// Flag of an IPv6 address: the kernel derived it from a secret and the network.
pub const IFA_F_STABLE_PRIVACY: u32 = 0x800;
/// Seconds; no limit.
const INFINITY: u32 = u32::MAX;
/// USER_HZ, the unit of rta_expires.
const TICKS_PER_SECOND: u32 = 100;

/// The kind of object in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    Address,
    Route,
    Neighbour,
    Rule,
    NextHop,
}

impl MessageKind {
    const ALL: [Self; 5] = [Self::Address, Self::Route, Self::Neighbour, Self::Rule, Self::NextHop];

    /// Returns RTM_NEW...; RTM_DEL... and RTM_GET... are the next two numbers.
    pub fn new_type(self) -> u16 {
        match self {
            Self::Address => 20,
            Self::Route => 24,
            Self::Neighbour => 28,
            Self::Rule => 32,
            Self::NextHop => 104,
        }
    }

    /// Returns the size in bytes of struct ifaddrmsg, rtmsg, ndmsg, fib_rule_hdr, nhmsg.
    pub fn header(self) -> usize {
        match self {
            Self::Address | Self::NextHop => 8,
            Self::Route | Self::Neighbour | Self::Rule => 12,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Route => "route",
            Self::Neighbour => "neighbour",
            Self::Rule => "rule",
            Self::NextHop => "nexthop",
        }
    }
}

/// A message as the kernel sent it; its header and attributes are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: MessageKind,
    body: Vec<u8>,
}

/// The device that replaces another one in a message.
#[derive(Clone, Copy, Debug)]
pub struct Substitute<'a> {
    pub from: u32,
    pub to: u32,
    /// The former and the new name in labels and rules.
    pub names: Option<(&'a str, &'a str)>,
    /// Time since the message was read.
    pub elapsed: Duration,
}

impl Message {
    /// Checks a message; returns `None` if it is of another kind, or truncated.
    pub fn new(kind: MessageKind, raw: Raw) -> Option<Self> {
        (raw.kind == kind.new_type()).then_some(())?;
        Self::checked(kind, raw.body)
    }

    pub(super) fn checked(kind: MessageKind, body: Vec<u8>) -> Option<Self> {
        let mut rest = body.get(kind.header()..)?;
        while !rest.is_empty() {
            rest = split_attribute(rest)?.2;
        }
        Some(Self { kind, body })
    }

    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Returns the request that creates this object.
    pub fn creation(&self) -> Raw {
        Raw { kind: self.kind.new_type(), body: self.body.clone() }
    }

    /// Returns the request that deletes this object.
    pub fn deletion(&self) -> Raw {
        Raw { kind: self.kind.new_type() + 1, body: self.body.clone() }
    }

    pub fn family(&self) -> u8 {
        self.byte(0)
    }

    /// Returns a byte of the header.
    pub fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }

    fn word(&self, at: usize) -> u32 {
        u32_at(&self.body, at).unwrap_or(0)
    }

    pub fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        attributes(self.body.get(self.kind.header()..)?)
            .find(|(kind, _)| kind & NLA_TYPE_MASK == wanted)
            .map(|(_, value)| value)
    }

    pub fn number(&self, wanted: u16) -> Option<u32> {
        u32_at(self.attribute(wanted)?, 0)
    }

    /// Returns a name, without the final zero.
    pub fn name(&self, wanted: u16) -> Option<&str> {
        let bytes = self.attribute(wanted)?;
        std::str::from_utf8(bytes.strip_suffix(b"\0").unwrap_or(bytes)).ok()
    }

    fn ip(&self, wanted: u16) -> Option<IpAddr> {
        ip_of(self.attribute(wanted)?)
    }

    /// Returns the ifindex of an address or a neighbour.
    pub fn ifindex(&self) -> u32 {
        self.word(4)
    }

    // --- Addresses ---

    /// Returns the address itself, not that of the peer.
    pub fn local(&self) -> Option<IpAddr> {
        self.ip(IFA_LOCAL).or_else(|| self.ip(IFA_ADDRESS))
    }

    /// Returns the key that identifies an address on its device.
    pub fn address_key(&self) -> (Option<IpAddr>, u8, Option<IpAddr>) {
        (self.local(), self.byte(1), self.ip(IFA_ADDRESS))
    }

    /// IFA_F_*
    pub fn address_flags(&self) -> u32 {
        self.number(IFA_FLAGS).unwrap_or_else(|| self.byte(2).into())
    }

    /// Returns the seconds until the kernel removes it, counted from when it was read; `None` if it stays.
    pub fn valid_for(&self) -> Option<u32> {
        self.attribute(IFA_CACHEINFO).and_then(|info| u32_at(info, 4)).filter(|valid| *valid != u32::MAX)
    }

    /// RT_SCOPE_*
    pub fn address_scope(&self) -> u8 {
        self.byte(3)
    }

    /// Returns the same address for another device, with these flags in addition; `None` if its lifetime is over.
    pub fn address_for(&self, substitute: &Substitute<'_>, flags: u32) -> Option<Self> {
        let flags = self.address_flags() & ADDRESS_SETTABLE | flags;
        let mut message = Builder::of(self);
        message.set_byte(2, flags as u8);
        message.set_word(4, substitute.to);
        let mut expired = false;
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            IFA_FLAGS => Some(flags.to_ne_bytes().to_vec()),
            IFA_CACHEINFO => {
                let mut value = value.to_vec();
                for place in [0, 4] {
                    let left = time_left(u32_at(&value, place)?, substitute.elapsed);
                    value.get_mut(place..place + 4)?.copy_from_slice(&left.to_ne_bytes());
                }
                expired = u32_at(&value, 4) == Some(0);
                Some(value)
            }
            IFA_LABEL => Some(label_for(value, substitute.names)),
            _ => Some(value.to_vec()),
        });
        (!expired).then(|| message.done())
    }

    // --- Routes ---

    /// RTN_*
    pub fn route_type(&self) -> u8 {
        self.byte(7)
    }

    /// RTPROT_*
    pub fn route_protocol(&self) -> u8 {
        self.byte(5)
    }

    /// Returns whether this is a copy that the kernel made of a route for one destination.
    pub fn is_clone(&self) -> bool {
        self.word(8) & CLONED != 0
    }

    pub fn destination(&self) -> Option<IpAddr> {
        self.ip(RTA_DST)
    }

    pub fn preferred_source(&self) -> Option<IpAddr> {
        self.ip(RTA_PREFSRC)
    }

    /// Returns the key of a route; of two routes with one key the kernel uses the first that matches.
    pub fn route_key(&self) -> RouteKey {
        RouteKey {
            family: self.family(),
            table: self.table(),
            destination: self.destination(),
            prefix_len: self.byte(1),
            tos: self.byte(3),
            metric: self.number(RTA_PRIORITY).unwrap_or(0),
        }
    }

    fn table(&self) -> u32 {
        self.number(RTA_TABLE).unwrap_or_else(|| self.byte(4).into())
    }

    /// Returns the ifindexes of its next hops, as far as they are in the message.
    pub fn route_devices(&self) -> Vec<u32> {
        let hops = self.attribute(RTA_MULTIPATH).unwrap_or_default();
        let of_hops = next_hops(hops).map(|hop| hop.ifindex);
        self.number(RTA_OIF).into_iter().chain(of_hops).collect()
    }

    /// Returns whether the kernel resolves its next hops by another route.
    pub fn has_gateway(&self) -> bool {
        [RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, RTA_NH_ID].iter().any(|kind| self.attribute(*kind).is_some())
    }

    /// Returns routes to its gateways over a device, directly over that device, in the table in which the kernel
    /// looks the gateways up.
    pub fn routes_to_gateways(&self, device: u32) -> Vec<Self> {
        let (oif, gateway) = match self.kind {
            MessageKind::NextHop => (NHA_OIF, NHA_GATEWAY),
            _ => (RTA_OIF, RTA_GATEWAY),
        };
        let own = self.body.get(self.kind.header()..).unwrap_or_default();
        let mut ways = vec![(self.number(oif), own)];
        if self.kind == MessageKind::Route {
            let hops = self.attribute(RTA_MULTIPATH).unwrap_or_default();
            ways.extend(next_hops(hops).map(|hop| (Some(hop.ifindex), hop.attributes)));
        }
        let table = match self.kind {
            MessageKind::Route => self.number(RTA_TABLE).unwrap_or(MAIN),
            _ => MAIN,
        };
        let ways = ways.into_iter().filter(|(ifindex, _)| *ifindex == Some(device));
        ways.filter_map(|(_, bytes)| {
            let find = |wanted| {
                attributes(bytes).find(|(kind, _)| kind & NLA_TYPE_MASK == wanted).map(|(_, value)| value)
            };
            match (find(gateway), find(RTA_VIA).filter(|_| self.kind == MessageKind::Route)) {
                (Some(gateway), _) => host_route(self.family(), gateway, device, table),
                (None, Some([low, high, gateway @ ..])) => {
                    host_route(u8::try_from(u16::from_ne_bytes([*low, *high])).ok()?, gateway, device, table)
                }
                _ => None,
            }
        })
        .collect()
    }

    /// Returns the types of its encapsulations (LWTUNNEL_ENCAP_*), and the value of each.
    pub fn encapsulations(&self) -> Vec<(u16, &[u8])> {
        let (of_type, of) = match self.kind {
            MessageKind::NextHop => (NHA_ENCAP_TYPE, NHA_ENCAP),
            _ => (RTA_ENCAP_TYPE, RTA_ENCAP),
        };
        let encapsulation = |bytes| {
            let find = |wanted| {
                attributes(bytes).find(|(kind, _)| kind & NLA_TYPE_MASK == wanted).map(|(_, value)| value)
            };
            Some((u16_at(find(of_type)?, 0)?, find(of)?))
        };
        let own = self.body.get(self.kind.header()..).and_then(encapsulation);
        let hops =
            self.attribute(RTA_MULTIPATH).filter(|_| self.kind == MessageKind::Route).unwrap_or_default();
        own.into_iter().chain(next_hops(hops).filter_map(|hop| encapsulation(hop.attributes))).collect()
    }

    /// Returns the same route over another device; `None` if its lifetime is over.
    pub fn route_for(&self, substitute: &Substitute<'_>) -> Option<Self> {
        let by_id = self.attribute(RTA_NH_ID).is_some();
        let mut message = Builder::of(self);
        message.set_word(8, if by_id { 0 } else { self.word(8) & u32::from(RTNH_SETTABLE) });
        let mut expires = None;
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            // The nexthop object contains all of these.
            RTA_OIF | RTA_GATEWAY | RTA_VIA | RTA_MULTIPATH | RTA_ENCAP | RTA_ENCAP_TYPE if by_id => None,
            RTA_OIF => Some(replaced(value, substitute)),
            RTA_MULTIPATH => Some(next_hops_for(value, substitute)),
            // struct rta_cacheinfo: rta_expires is the third word.
            RTA_CACHEINFO => {
                expires = u32_at(value, 8).filter(|ticks| *ticks != 0).map(|ticks| {
                    let seconds = ticks.cast_signed().max(0).cast_unsigned().div_ceil(TICKS_PER_SECOND);
                    time_left(seconds, substitute.elapsed)
                });
                None
            }
            RTA_EXPIRES => None,
            _ => Some(value.to_vec()),
        });
        if let Some(seconds) = expires {
            (seconds != 0).then(|| message.append(RTA_EXPIRES, &seconds.to_ne_bytes()))?;
        }
        Some(message.done())
    }

    /// Returns a form of the route without its state and its remaining time, to compare routes.
    pub fn canonical_route(&self) -> Option<Vec<u8>> {
        let none = Substitute { from: 0, to: 0, names: None, elapsed: Duration::ZERO };
        let route = self.route_for(&none)?;
        let header = self.kind.header();
        let mut attributes: Vec<_> = attributes(route.body.get(header..)?)
            .map(|(kind, value)| (kind & NLA_TYPE_MASK, value.to_vec()))
            .filter(|(kind, _)| *kind != RTA_EXPIRES)
            .collect();
        attributes.sort();
        let mut canonical = route.body.get(..header)?.to_vec();
        for (kind, value) in attributes {
            append(&mut canonical, kind, &value);
        }
        Some(canonical)
    }

    // --- Neighbours ---

    /// NUD_*
    pub fn neighbour_state(&self) -> u16 {
        u16_at(&self.body, 8).unwrap_or(0)
    }

    /// NTF_*
    pub fn neighbour_flags(&self) -> u8 {
        self.byte(10)
    }

    /// Returns RTN_* of its address.
    pub fn neighbour_type(&self) -> u8 {
        self.byte(11)
    }

    pub fn neighbour_key(&self) -> (u8, Option<IpAddr>, u8) {
        const NTF_PROXY: u8 = 8;
        (self.family(), self.ip(NDA_DST), self.neighbour_flags() & NTF_PROXY)
    }

    pub fn neighbour_for(&self, substitute: &Substitute<'_>) -> Self {
        /// NUD_REACHABLE | STALE | NOARP | PERMANENT. The kernel determines the outcome of the other states.
        const KNOWN: u16 = 0x02 | 0x04 | 0x40 | 0x80;
        let mut message = Builder::of(self);
        message.set_word(4, substitute.to);
        let state = self.neighbour_state() & KNOWN;
        message.set(8, &state.to_ne_bytes());
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            NDA_CACHEINFO | NDA_PROBES => None,
            NDA_IFINDEX => Some(replaced(value, substitute)),
            _ => Some(value.to_vec()),
        });
        message.done()
    }

    // --- Rules ---

    /// Returns whether the rule matches packets that this device receives, or that are sent by it.
    pub fn names_device(&self, name: &str) -> bool {
        [FRA_IIFNAME, FRA_OIFNAME].iter().any(|kind| self.name(*kind) == Some(name))
    }

    pub fn rule_priority(&self) -> u32 {
        self.number(FRA_PRIORITY).unwrap_or(0)
    }

    pub fn rule_for(&self, substitute: &Substitute<'_>) -> Self {
        let mut message = Builder::of(self);
        message.set_word(8, self.word(8) & RULE_SETTABLE);
        message.attributes(|kind, value| match (kind & NLA_TYPE_MASK, substitute.names) {
            (FRA_IIFNAME | FRA_OIFNAME, Some((from, to)))
                if value.strip_suffix(b"\0").unwrap_or(value) == from.as_bytes() =>
            {
                Some([to.as_bytes(), b"\0"].concat())
            }
            _ => Some(value.to_vec()),
        });
        message.done()
    }

    // --- Nexthop objects ---

    pub fn next_hop_id(&self) -> u32 {
        self.number(NHA_ID).unwrap_or(0)
    }

    /// Returns the ids of the members of a group (struct nexthop_grp is 8 bytes).
    pub fn members(&self) -> impl Iterator<Item = u32> {
        self.attribute(NHA_GROUP).unwrap_or_default().chunks_exact(8).filter_map(|member| u32_at(member, 0))
    }

    pub fn next_hop_for(&self, substitute: &Substitute<'_>) -> Self {
        let mut message = Builder::of(self);
        // The kernel determines its scope.
        message.set_byte(1, 0);
        message.set_word(4, self.word(4) & u32::from(RTNH_SETTABLE & 4));
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            NHA_OIF => Some(replaced(value, substitute)),
            NHA_RES_GROUP => {
                let mut kept = Vec::new();
                for (kind, value) in attributes(value) {
                    if kind & NLA_TYPE_MASK != NHA_RES_GROUP_UNBALANCED_TIME {
                        append(&mut kept, kind, value);
                    }
                }
                Some(kept)
            }
            kind if NHA_ANSWERS.contains(&kind) => None,
            _ => Some(value.to_vec()),
        });
        // The kernel lists it without this flag, and does not accept it without.
        message.retype(NHA_ENCAP, NHA_ENCAP | NLA_F_NESTED);
        message.done()
    }

    /// Formats it for a log or an error, as `ip` prints it.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            MessageKind::Address => match self.local() {
                Some(ip) => write!(f, "{ip}/{}", self.byte(1)),
                None => f.write_str("address"),
            },
            MessageKind::Route => self.describe_route(f),
            MessageKind::Neighbour => match self.ip(NDA_DST) {
                Some(ip) if self.neighbour_key().2 != 0 => write!(f, "proxy {ip}"),
                Some(ip) => write!(f, "{ip}"),
                None => f.write_str("neighbour"),
            },
            MessageKind::Rule => {
                write!(f, "{}:", self.rule_priority())?;
                for (word, kind) in [("iif", FRA_IIFNAME), ("oif", FRA_OIFNAME)] {
                    if let Some(name) = self.name(kind) {
                        write!(f, " {word} {name}")?;
                    }
                }
                Ok(())
            }
            MessageKind::NextHop => write!(f, "nexthop id {}", self.next_hop_id()),
        }
    }

    fn describe_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TYPES: [&str; 12] = [
            "",
            "",
            "local ",
            "broadcast ",
            "anycast ",
            "multicast ",
            "blackhole ",
            "unreachable ",
            "prohibit ",
            "throw ",
            "nat ",
            "",
        ];
        f.write_str(TYPES.get(usize::from(self.route_type())).unwrap_or(&""))?;
        match (self.destination(), self.byte(1)) {
            (_, 0) => f.write_str("default")?,
            (Some(ip), bits) => write!(f, "{ip}/{bits}")?,
            (None, bits) => write!(f, "?/{bits}")?,
        }
        if let Some(source) = self.ip(RTA_SRC) {
            write!(f, " from {source}/{}", self.byte(2))?;
        }
        if self.byte(3) != 0 {
            write!(f, " tos {:#04x}", self.byte(3))?;
        }
        if let Some(id) = self.number(RTA_NH_ID) {
            write!(f, " nhid {id}")?;
        } else if let Some(via) = self.ip(RTA_GATEWAY) {
            write!(f, " via {via}")?;
        } else if let Some(via) = self.attribute(RTA_VIA).and_then(|via| ip_of(via.get(2..)?)) {
            write!(f, " via inet6 {via}")?;
        } else if let Some(hops) = self.attribute(RTA_MULTIPATH) {
            write!(f, " by {} nexthops", next_hops(hops).count())?;
        }
        if let Some(metric) = self.number(RTA_PRIORITY) {
            write!(f, " metric {metric}")?;
        }
        const RT_TABLE_MAIN: u32 = 254;
        match self.table() {
            RT_TABLE_MAIN => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

/// See [`Message::route_key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteKey {
    family: u8,
    table: u32,
    destination: Option<IpAddr>,
    prefix_len: u8,
    tos: u8,
    metric: u32,
}

/// Serializes as `route 0218fe02...`: the kind, and the bytes in hexadecimal.
impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write as _;
        let mut text = format!("{} ", self.kind.name());
        text.reserve(2 * self.body.len());
        for byte in &self.body {
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let message = || {
            let (kind, digits) = text.split_once(' ')?;
            let kind = MessageKind::ALL.into_iter().find(|known| known.name() == kind)?;
            let digits = digits.as_bytes();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let body: Option<Vec<_>> = digits.chunks(2).map(byte).collect();
            (digits.len() % 2 == 0).then_some(())?;
            Self::checked(kind, body?)
        };
        message().ok_or_else(|| D::Error::custom(format!("{text:?}: no message of the kernel's")))
    }
}

/// The parts of a message that is being changed.
struct Builder {
    kind: MessageKind,
    body: Vec<u8>,
}

impl Builder {
    fn of(message: &Message) -> Self {
        Self { kind: message.kind, body: message.body.clone() }
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.body.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn set_byte(&mut self, at: usize, byte: u8) {
        self.set(at, &[byte]);
    }

    fn set_word(&mut self, at: usize, word: u32) {
        self.set(at, &word.to_ne_bytes());
    }

    /// Replaces each attribute's value by the result of `change`, or drops it.
    fn attributes(&mut self, mut change: impl FnMut(u16, &[u8]) -> Option<Vec<u8>>) {
        let attributes_begin = self.kind.header();
        let mut body = self.body.get(..attributes_begin).unwrap_or_default().to_vec();
        for (kind, value) in attributes(self.body.get(attributes_begin..).unwrap_or_default()) {
            if let Some(value) = change(kind, value) {
                append(&mut body, kind, &value);
            }
        }
        self.body = body;
    }

    fn retype(&mut self, from: u16, to: u16) {
        let attributes_begin = self.kind.header();
        let mut body = self.body.get(..attributes_begin).unwrap_or_default().to_vec();
        for (kind, value) in attributes(self.body.get(attributes_begin..).unwrap_or_default()) {
            append(&mut body, if kind == from { to } else { kind }, value);
        }
        self.body = body;
    }

    fn append(&mut self, kind: u16, value: &[u8]) {
        append(&mut self.body, kind, value);
    }

    fn done(self) -> Message {
        Message { kind: self.kind, body: self.body }
    }
}

/// RT_TABLE_MAIN
const MAIN: u32 = 254;

/// Returns a route to one host over a device, with a metric that no other route has.
fn host_route(family: u8, host: &[u8], device: u32, table: u32) -> Option<Message> {
    const METRIC: u32 = 0x7862_6f6e;
    const BOOT: u8 = 3;
    const LINK: u8 = 253;
    let bits = u8::try_from(host.len() * 8).ok()?;
    let mut body = vec![family, bits, 0, 0, u8::try_from(table).unwrap_or(0), BOOT, LINK, 1, 0, 0, 0, 0];
    let numbers = [(RTA_OIF, device), (RTA_TABLE, table), (RTA_PRIORITY, METRIC)];
    let numbers = numbers.map(|(kind, number)| (kind, number.to_ne_bytes().to_vec()));
    for (kind, value) in numbers.into_iter().chain([(RTA_DST, host.to_vec())]) {
        body.extend(((4 + value.len()) as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    }
    Message::checked(MessageKind::Route, body)
}

/// A next hop of RTA_MULTIPATH (struct rtnexthop).
struct NextHop<'a> {
    flags: u8,
    hops: u8,
    ifindex: u32,
    attributes: &'a [u8],
}

const RTNEXTHOP: usize = 8;

fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = NextHop<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let hop = rest.get(..length).filter(|_| length >= RTNEXTHOP)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NextHop {
            flags: *hop.get(2)?,
            hops: *hop.get(3)?,
            ifindex: u32_at(hop, 4)?,
            attributes: hop.get(RTNEXTHOP..)?,
        })
    })
}

fn next_hops_for(value: &[u8], substitute: &Substitute<'_>) -> Vec<u8> {
    let mut changed = Vec::with_capacity(value.len());
    for hop in next_hops(value) {
        let length = (RTNEXTHOP + hop.attributes.len()) as u16;
        changed.extend(length.to_ne_bytes());
        changed.extend([hop.flags & RTNH_SETTABLE, hop.hops]);
        changed.extend(device_for(hop.ifindex, substitute).to_ne_bytes());
        changed.extend(hop.attributes);
        changed.resize(changed.len().next_multiple_of(4), 0);
    }
    changed
}

fn device_for(ifindex: u32, substitute: &Substitute<'_>) -> u32 {
    if ifindex == substitute.from { substitute.to } else { ifindex }
}

fn replaced(value: &[u8], substitute: &Substitute<'_>) -> Vec<u8> {
    let ifindex = u32_at(value, 0).unwrap_or(0);
    device_for(ifindex, substitute).to_ne_bytes().to_vec()
}

/// Replaces the name in a label: "eth0:1" of eth0 becomes "bond0:1"; a label of another form stays.
fn label_for(label: &[u8], names: Option<(&str, &str)>) -> Vec<u8> {
    let Some((from, to)) = names else { return label.to_vec() };
    match label.strip_prefix(from.as_bytes()) {
        Some(rest) => [to.as_bytes(), rest].concat(),
        None => label.to_vec(),
    }
}

/// Returns the remaining seconds after some time has elapsed.
fn time_left(seconds: u32, elapsed: Duration) -> u32 {
    if seconds == INFINITY {
        return INFINITY;
    }
    seconds.saturating_sub(u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX))
}

pub(super) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Returns type, value and the bytes that follow; `None` if the attribute is truncated.
fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    const HEADER: usize = 4;
    let length = usize::from(u16_at(bytes, 0)?);
    let value = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 2)?, value, rest))
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, value, after) = split_attribute(rest)?;
        rest = after;
        Some((kind, value))
    })
}

/// Appends an attribute.
pub(super) fn append(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Returns the attributes in a nested one, without the flags of their types.
pub(super) fn nested(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(value).map(|(kind, value)| (kind & NLA_TYPE_MASK, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_NAMES: Substitute<'_> =
        Substitute { from: 3, to: 7, names: None, elapsed: Duration::from_secs(100) };

    fn message(kind: MessageKind, header: &[u8], attributes: Attributes<'_>) -> Message {
        let mut body = header.to_vec();
        body.resize(kind.header(), 0);
        for (kind, value) in attributes {
            append(&mut body, *kind, value);
        }
        Message::checked(kind, body).unwrap()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    type Attributes<'a> = &'a [(u16, &'a [u8])];

    /// An attribute that no kernel has yet.
    const FUTURE: (u16, &[u8]) = (99, b"later");

    #[test]
    fn only_the_device_of_a_route_changes() {
        let cases: [(Attributes<'_>, Attributes<'_>); 4] = [
            (
                &[(RTA_DST, &[20, 0, 0, 0]), (RTA_OIF, &words(&[3])), FUTURE],
                &[(RTA_DST, &[20, 0, 0, 0]), (RTA_OIF, &words(&[7])), FUTURE],
            ),
            (
                &[(RTA_OIF, &words(&[9])), (RTA_VIA, &[10, 0, 1, 2])],
                &[(RTA_OIF, &words(&[9])), (RTA_VIA, &[10, 0, 1, 2])],
            ),
            // 50 000 ticks of 10 ms are 500 s.
            (&[(RTA_CACHEINFO, &words(&[1, 2, 50_000, 0, 0, 0, 0, 0]))], &[(RTA_EXPIRES, &words(&[400]))]),
            (
                &[(RTA_OIF, &words(&[3])), (RTA_GATEWAY, &[10, 0, 0, 1]), (RTA_NH_ID, &words(&[5]))],
                &[(RTA_NH_ID, &words(&[5]))],
            ),
        ];
        for (found, expected) in cases {
            let header = [INET, 8, 0, 0, 254, 4, 0, 1];
            let route = message(MessageKind::Route, &header, found);
            assert_eq!(route.route_for(&NO_NAMES).unwrap(), message(MessageKind::Route, &header, expected));
        }
        let expired =
            message(MessageKind::Route, &[INET6], &[(RTA_CACHEINFO, &words(&[0, 0, 9_000, 0, 0, 0, 0, 0]))]);
        assert_eq!(expired.route_for(&NO_NAMES), None);
    }

    #[test]
    fn next_hops_of_a_route_change_one_by_one_and_lose_their_state() {
        // Each with its gateway; RTNH_F_DEAD is 1, RTNH_F_ONLINK 4, RTNH_F_LINKDOWN 16.
        let hop = |flags: u8, ifindex: u32| {
            let mut hop = [&16u16.to_ne_bytes()[..], &[flags, 2], &ifindex.to_ne_bytes()].concat();
            append(&mut hop, RTA_GATEWAY, &[10, 0, 0, 8]);
            hop
        };
        let found = [hop(1 | 4, 3), hop(16, 9)].concat();
        let expected = [hop(4, 7), hop(0, 9)].concat();
        let route = message(MessageKind::Route, &[INET], &[(RTA_MULTIPATH, &found)]);
        assert_eq!(route.route_devices(), [3, 9]);
        let moved = route.route_for(&NO_NAMES).unwrap();
        assert_eq!(moved, message(MessageKind::Route, &[INET], &[(RTA_MULTIPATH, &expected)]));
        assert_eq!(moved.canonical_route(), moved.route_for(&NO_NAMES).unwrap().canonical_route());
    }

    #[test]
    fn labels_and_rules_follow_the_name_of_the_device() {
        let names = Some(("eth0", "bond0"));
        for (label, expected) in [("eth0", "bond0"), ("eth0:1", "bond0:1"), ("web", "web")] {
            assert_eq!(label_for(label.as_bytes(), names), expected.as_bytes(), "{label}");
        }
        let rule = |iif: &[u8]| {
            message(MessageKind::Rule, &[INET], &[(FRA_IIFNAME, iif), (FRA_PRIORITY, &words(&[9]))])
        };
        let substitute = Substitute { names, ..NO_NAMES };
        assert_eq!(rule(b"eth0\0").rule_for(&substitute), rule(b"bond0\0"));
        assert_eq!(rule(b"eth01\0").rule_for(&substitute), rule(b"eth01\0"));
    }

    #[test]
    fn lifetimes_keep_running_and_state_is_the_kernels() {
        const PERMANENT: u32 = 0x80;
        let address = |flags: u32, left: &[u32], ifindex: u32| {
            let header = [&[INET6, 64, flags as u8, 0][..], &words(&[ifindex])].concat();
            message(
                MessageKind::Address,
                &header,
                &[(IFA_FLAGS, &words(&[flags])), (IFA_CACHEINFO, &words(left))],
            )
        };
        let cases = [
            ([50, 150, 1, 2], Some([0, 50, 1, 2])),
            ([INFINITY, INFINITY, 1, 2], Some([INFINITY, INFINITY, 1, 2])),
            ([0, INFINITY, 1, 2], Some([0, INFINITY, 1, 2])),
            ([50, 100, 1, 2], None),
        ];
        for (found, expected) in cases {
            let moved = address(PERMANENT | 0x200, &found, 3).address_for(&NO_NAMES, IFA_F_NODAD);
            assert_eq!(moved, expected.map(|left| address(0x200 | IFA_F_NODAD, &left, 7)), "{found:?}");
        }
    }

    #[test]
    fn messages_are_written_and_read() {
        let route = message(MessageKind::Route, &[INET, 8], &[(RTA_DST, &[20, 0, 0, 0]), FUTURE]);
        let text = serde_json::to_string(&route).unwrap();
        assert!(text.starts_with("\"route 0208"), "{text}");
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), route);
        for wrong in
            ["", "route", "route 02", "route 0g", "link 00", "address 0", "address 00000000000000000500"]
        {
            assert!(serde_json::from_value::<Message>(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_route_is_named_as_ip_names_it() {
        let table = [
            (vec![0], vec![(RTA_TABLE, words(&[254]))], "default"),
            (
                vec![8],
                vec![(RTA_DST, vec![20, 0, 0, 0]), (RTA_GATEWAY, vec![10, 0, 0, 1])],
                "20.0.0.0/8 via 10.0.0.1 table 0",
            ),
            (vec![0], vec![(RTA_TABLE, words(&[9])), (RTA_NH_ID, words(&[5]))], "default nhid 5 table 9"),
        ];
        for (bits, attributes, expected) in table {
            let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
            let header = [&[INET][..], &bits, &[0, 0, 0, 4, 0, 1]].concat();
            assert_eq!(message(MessageKind::Route, &header, &attributes).to_string(), expected);
        }
    }
}
