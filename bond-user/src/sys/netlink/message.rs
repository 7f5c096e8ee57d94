//! One rtnetlink message about an address, a route, a neighbour, a rule or a nexthop object.
//!
//! It stays as the kernel sent it. Only these parts are changed before it is sent back: the device's ifindex or name,
//! the state that only the kernel sets (flags, counters), and the remaining time.

mod address;
mod bytes;
mod numbers;
mod others;
mod route;
mod text;

use std::{net::IpAddr, time::Duration};

use self::{
    bytes::{attributes, split_attribute, u32_at},
    numbers::NLA_TYPE_MASK,
};
use crate::sys::netlink::Raw;

pub use self::{
    numbers::{
        FRA_IIFNAME, FRA_OIFNAME, FRA_PRIORITY, IFA_ADDRESS, IFA_CACHEINFO, IFA_F_NODAD,
        IFA_F_STABLE_PRIVACY, IFA_F_TEMPORARY, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFA_PROTO, INET, INET6, MPLS,
        NDA_CACHEINFO, NDA_DST, NDA_FLAGS_EXT, NDA_IFINDEX, NDA_PROBES, NHA_ENCAP, NHA_ENCAP_TYPE,
        NHA_GATEWAY, NHA_GROUP, NHA_ID, NHA_OIF, NHA_RES_GROUP, RTA_CACHEINFO, RTA_DST, RTA_ENCAP,
        RTA_ENCAP_TYPE, RTA_EXPIRES, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PREFSRC,
        RTA_PRIORITY, RTA_SRC, RTA_TABLE, RTA_VIA,
    },
    route::RouteKey,
};

/// The kind of object in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// RTM_NEWADDR.
    Address,
    /// RTM_NEWROUTE.
    Route,
    /// RTM_NEWNEIGH.
    Neighbour,
    /// RTM_NEWRULE.
    Rule,
    /// RTM_NEWNEXTHOP.
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
    /// ifindex that is replaced.
    pub from: u32,
    /// ifindex that replaces it.
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

    fn checked(kind: MessageKind, body: Vec<u8>) -> Option<Self> {
        let mut rest = body.get(kind.header()..)?;
        while !rest.is_empty() {
            rest = split_attribute(rest)?.2;
        }
        Some(Self { kind, body })
    }

    /// Returns the kind of the message.
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

    /// Returns the address family (AF_*).
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

    /// Returns the value of an attribute.
    pub fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        attributes(self.body.get(self.kind.header()..)?)
            .find(|(kind, _)| kind & NLA_TYPE_MASK == wanted)
            .map(|(_, value)| value)
    }

    /// Returns the value of an attribute that is a 32-bit number.
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
}

pub(in crate::sys) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Appends an attribute.
pub(in crate::sys) fn append(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Returns the attributes in a nested one, without the flags of their types.
pub(in crate::sys) fn nested(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(value).map(|(kind, value)| (kind & NLA_TYPE_MASK, value))
}

#[cfg(test)]
mod tests;
