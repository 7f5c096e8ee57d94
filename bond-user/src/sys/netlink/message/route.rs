//! Messages about routes, and their next hops.

use std::{net::IpAddr, time::Duration};

use super::{
    Message, MessageKind, NHA_ENCAP, NHA_ENCAP_TYPE, NHA_GATEWAY, NHA_OIF, RTA_CACHEINFO, RTA_DST, RTA_ENCAP,
    RTA_ENCAP_TYPE, RTA_EXPIRES, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY,
    RTA_TABLE, RTA_VIA, Substitute, append,
    bytes::{Builder, attributes, device_for, replaced, time_left, u16_at, u32_at},
    numbers::{CLONED, MPLS, NLA_TYPE_MASK, RTNH_SETTABLE, TICKS_PER_SECOND},
};

impl Message {
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

    /// Returns the destination of a route; `None` for a default route.
    pub fn destination(&self) -> Option<IpAddr> {
        self.ip(RTA_DST)
    }

    /// Returns the incoming label of an MPLS route: the upper 20 bits of its destination.
    pub fn mpls_label(&self) -> Option<u32> {
        let destination = self.attribute(RTA_DST).filter(|_| self.family() == MPLS)?;
        Some(u32::from_be_bytes(destination.try_into().ok()?) >> 12)
    }

    /// Returns the source address that the route prefers.
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

    pub(super) fn table(&self) -> u32 {
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
pub(super) struct NextHop<'a> {
    pub(super) flags: u8,
    pub(super) hops: u8,
    pub(super) ifindex: u32,
    pub(super) attributes: &'a [u8],
}

const RTNEXTHOP: usize = 8;

pub(super) fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = NextHop<'_>> {
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
