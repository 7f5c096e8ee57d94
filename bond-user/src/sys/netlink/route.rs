//! Routes over one device.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{Emitable as _, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Netlink, Raw, called};
use crate::sys::{
    SysError,
    netlink::message::{Message, MessageKind},
};

/// A unicast route with one next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRoute {
    /// The device.
    pub ifindex: u32,
    /// The network; 0.0.0.0 or :: for the default route.
    pub to: IpAddr,
    /// Length of the network prefix in bits, 0 for the default route.
    pub prefix_len: u8,
    /// The gateway, of the same family.
    pub via: Option<IpAddr>,
    /// The kernel uses the route with the lowest metric to a network.
    pub metric: u32,
    /// The source address of packets that have none yet.
    pub source: Option<IpAddr>,
    /// The routing table.
    pub table: u32,
    /// RT_SCOPE_*
    pub scope: u8,
    /// RTPROT_*: the origin of the route.
    pub protocol: u8,
    /// Whether the gateway may be outside of the device's networks.
    pub onlink: bool,
}

impl KernelRoute {
    /// RT_TABLE_MAIN
    pub const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
    const KERNEL: u8 = 2;
    const ROUTER_ADVERTISEMENT: u8 = 9;
    const STATIC: u8 = 4;
    const SCOPE_UNIVERSE: u8 = 0;
    const SCOPE_LINK: u8 = 253;
    /// IP6_RT_PRIO_USER: the metric of an IPv6 route that was added without one.
    const IPV6_METRIC: u32 = 1024;

    /// Creates a route in the main table, with the kernel's default metric.
    pub fn new(ifindex: u32, to: IpAddr, prefix_len: u8, via: Option<IpAddr>) -> Self {
        let (metric, scope) = match (to, via) {
            (IpAddr::V6(_), _) => (Self::IPV6_METRIC, Self::SCOPE_UNIVERSE),
            (IpAddr::V4(_), Some(_)) => (0, Self::SCOPE_UNIVERSE),
            (IpAddr::V4(_), None) => (0, Self::SCOPE_LINK),
        };
        Self {
            ifindex,
            to,
            prefix_len,
            via,
            metric,
            source: None,
            table: RouteHeader::RT_TABLE_MAIN.into(),
            scope,
            protocol: Self::STATIC,
            onlink: false,
        }
    }

    /// Returns whether the kernel adds it by itself: with an address, or from a router advertisement.
    pub fn is_automatic(&self) -> bool {
        matches!(self.protocol, Self::KERNEL | Self::ROUTER_ADVERTISEMENT)
    }

    /// Returns whether it comes with the device or a router advertisement, whatever its addresses are.
    pub fn comes_by_itself(&self) -> bool {
        let of_device = matches!(self.to, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast());
        of_device || self.protocol == Self::ROUTER_ADVERTISEMENT
    }

    /// Returns whether the kernel treats them as the same route: one can only replace the other.
    pub fn has_same_key(&self, other: &Self) -> bool {
        (self.to, self.prefix_len, self.metric, self.table)
            == (other.to, other.prefix_len, other.metric, other.table)
    }

    fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let any = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        // A route for some packets only is never the one in a configuration.
        if header.kind != RouteType::Unicast || header.tos != 0 || header.source_prefix_length != 0 {
            return None;
        }
        let mut route = Self::new(0, any, header.destination_prefix_length, None);
        route.metric = 0;
        route.table = header.table.into();
        route.scope = header.scope.into();
        route.protocol = header.protocol.into();
        route.onlink = header.flags.contains(RouteFlags::Onlink);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => route.to = ip(address)?,
                RouteAttribute::Gateway(address) => route.via = Some(ip(address)?),
                RouteAttribute::PrefSource(address) => route.source = Some(ip(address)?),
                RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Table(table) => route.table = *table,
                _ => {}
            }
        }
        (route.ifindex != 0).then_some(route)
    }

    /// Converts it to a message of the kernel.
    pub fn to_kept(&self) -> Option<Message> {
        let message = self.to_message();
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Message::new(MessageKind::Route, Raw { kind: MessageKind::Route.new_type(), body })
    }

    /// The route that a message of the kernel's is about; None if it is about something else.
    #[cfg(any(test, feature = "fake"))]
    pub fn of_kept(message: &Message) -> Option<Self> {
        use netlink_packet_core::Parseable as _;
        let is_route = message.kind() == MessageKind::Route;
        Self::from_message(&RouteMessage::parse(&message.creation().body).ok().filter(|_| is_route)?)
    }

    fn to_message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = match self.to {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        header.destination_prefix_length = self.prefix_len;
        header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        header.scope = RouteScope::from(self.scope);
        header.protocol = RouteProtocol::from(self.protocol);
        header.kind = RouteType::Unicast;
        if self.onlink {
            header.flags.insert(RouteFlags::Onlink);
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        attributes.push(RouteAttribute::Oif(self.ifindex));
        attributes.push(RouteAttribute::Priority(self.metric));
        if self.prefix_len != 0 {
            attributes.push(RouteAttribute::Destination(self.to.into()));
        }
        attributes.extend(self.via.map(|via| RouteAttribute::Gateway(via.into())));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        message
    }
}

impl fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len {
            0 => f.write_str("default")?,
            bits => write!(f, "{}/{bits}", self.to)?,
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        // As in iproute2: 0 is the metric of a route without one.
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The path of a packet to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRoute {
    /// The device by which it leaves.
    pub ifindex: u32,
    /// The source address that the kernel chooses, if the device has one.
    pub source: Option<IpAddr>,
    /// The gateway; None if the host is a neighbour.
    pub via: Option<IpAddr>,
}

impl Netlink {
    /// Returns the path to a host that the kernel would choose now; `None` if there is none, or the host is this one.
    /// The kernel answers without RTNL.
    ///
    /// # Errors
    /// The kernel does not answer, or answers with an error that is not about the target.
    pub async fn route_to(&self, target: IpAddr) -> Result<Option<ResolvedRoute>, SysError> {
        let mut request = RouteMessage::default();
        let (family, bits) = match target {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request.header.address_family = family;
        request.header.destination_prefix_length = bits;
        request.attributes.push(RouteAttribute::Destination(target.into()));
        let message = match self.ask_raw(RouteNetlinkMessage::GetRoute(request).into()).await {
            Ok(answer) => match answer.and_then(|answer| answer.parse()) {
                Some(RouteNetlinkMessage::NewRoute(message)) => Some(message),
                _ => None,
            },
            Err(error) => {
                let error = SysError::netlink("look up the route", target.to_string(), error);
                // ENETUNREACH, or the errors of unreachable, prohibit and blackhole routes.
                let no_way = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
                return if error.errno().is_some_and(|errno| no_way.contains(&errno)) {
                    Ok(None)
                } else {
                    Err(error)
                };
            }
        };
        let Some(message) = message.filter(|message| message.header.kind == RouteType::Unicast) else {
            return Ok(None);
        };
        let mut way = ResolvedRoute { ifindex: 0, source: None, via: None };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(ifindex) => way.ifindex = *ifindex,
                RouteAttribute::PrefSource(address) => way.source = ip(address),
                RouteAttribute::Gateway(address) => way.via = ip(address),
                _ => {}
            }
        }
        Ok(Some(way))
    }

    /// Returns the unicast routes over one device, of all tables. Routes with several next hops belong to no single
    /// device.
    ///
    /// # Errors
    /// The kernel does not list the routes.
    pub async fn routes_of(&self, ifindex: u32) -> Result<Vec<KernelRoute>, SysError> {
        let mut routes = self.routes().await?;
        routes.retain(|route| route.ifindex == ifindex);
        Ok(routes)
    }

    async fn routes(&self) -> Result<Vec<KernelRoute>, SysError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let messages = self.list(RouteNetlinkMessage::GetRoute(request), "the routes").await?;
            let route = |message| match message {
                RouteNetlinkMessage::NewRoute(route) => KernelRoute::from_message(&route),
                _ => None,
            };
            routes.extend(messages.into_iter().filter_map(route));
        }
        Ok(routes)
    }

    /// Adds or replaces a route. Another one of the same network, metric and table is replaced if it uses the same
    /// device; one over another device has another owner, and the error is EEXIST.
    ///
    /// # Errors
    /// EEXIST if another device has the route; the gateway is not reachable, the device does not exist or is down, or
    /// the routes cannot be listed.
    pub async fn replace_route(&self, route: &KernelRoute) -> Result<(), SysError> {
        let same: Vec<_> =
            self.routes().await?.into_iter().filter(|found| found.has_same_key(route)).collect();
        let ours = same.iter().find(|found| found.ifindex == route.ifindex);
        if ours.is_some_and(|found| (found.via, found.source) == (route.via, route.source)) {
            return Ok(());
        }
        let flags = NLM_F_CREATE | if ours.is_some() { NLM_F_REPLACE } else { NLM_F_EXCL };
        let advice = same.first().map(|other| {
            format!("the route {other} over {} is there; give another metric", called(other.ifindex))
        });
        let request = RouteNetlinkMessage::NewRoute(route.to_message());
        let answer = self.change_raw(flags, request.into()).await;
        answer.map_err(|error| failed("add", route, error).advise(advice))
    }

    /// Deletes a route. A missing route counts as success.
    ///
    /// # Errors
    /// The kernel refuses to delete the route, or gives no answer.
    pub async fn del_route(&self, route: &KernelRoute) -> Result<(), SysError> {
        let answer = self.change_raw(0, RouteNetlinkMessage::DelRoute(route.to_message()).into()).await;
        match answer.map_err(|error| failed("delete", route, error)) {
            Err(error) if error.is_gone() || error.errno() == Some(Errno::ESRCH) => Ok(()),
            answer => answer,
        }
    }
}

fn failed(verb: &str, route: &KernelRoute, error: rtnetlink::Error) -> SysError {
    SysError::netlink(format!("{verb} route {route}"), called(route.ifindex), error)
}
