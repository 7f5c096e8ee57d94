//! Reads what stands on a device.

use std::{collections::HashSet, path::Path};

use super::{BY_REDIRECT, Layer3, UNICAST, now};
use crate::sys::{
    Devices, SysError,
    netlink::{
        Raw,
        message::{
            self, INET, INET6, MPLS, Message, MessageKind, NDA_FLAGS_EXT, NDA_IFINDEX, NHA_OIF, RTA_NH_ID,
            RouteKey,
        },
    },
};

/// The parts of a dump of routes that are of one device.
#[derive(Default)]
pub(super) struct RouteDump {
    pub(super) routes: Vec<Message>,
    pub(super) ahead: Vec<usize>,
    /// The key of the last route of the device, and its indexes in `messages`.
    pub(super) last: Option<(RouteKey, Vec<usize>)>,
}

impl RouteDump {
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
pub(super) fn listing(kind: MessageKind, family: u8) -> Raw {
    let mut body = vec![0; kind.header()];
    if let Some(place) = body.first_mut() {
        *place = family;
    }
    Raw { kind: kind.new_type() + 2, body }
}

impl dyn Devices + '_ {
    /// Reads the addresses, routes, next hops and neighbours of a device of this network namespace.
    ///
    /// # Errors
    /// The kernel does not list one of them.
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
    pub(super) fn learns_routes(&self, device: &str) -> bool {
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

    pub(super) async fn raw_addresses(&self, ifindex: u32) -> Result<Vec<Message>, SysError> {
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

    pub(super) async fn read_routes(
        &self,
        family: u8,
        is_own: impl Fn(&Message) -> bool + Sync,
    ) -> Result<RouteDump, SysError> {
        let each = |reading: &mut RouteDump, raw| {
            if let Some(route) = Message::new(MessageKind::Route, raw)
                && route.family() == family
                && !route.is_clone()
                && route.route_protocol() != BY_REDIRECT
            {
                let is_own = is_own(&route);
                reading.take(route, is_own);
            }
        };
        self.collect(&listing(MessageKind::Route, family), "the routes", RouteDump::default, each).await
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

    pub(super) async fn messages(
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

    /// Returns the MPLS routes over a device, which xbond neither moves nor removes: closing the device disables them, and
    /// opening it enables them again.
    ///
    /// # Errors
    /// The kernel does not list the MPLS routes.
    pub async fn mpls_routes_over(&self, ifindex: u32) -> Result<Vec<Message>, SysError> {
        /// Only a kernel that routes MPLS has it. Another one would list all routes of other families.
        const LABELS: &str = "/proc/sys/net/mpls/platform_labels";
        if self.read_sysctl(Path::new(LABELS)).is_none() {
            return Ok(Vec::new());
        }
        let over = |route: &Message| route.family() == MPLS && route.route_devices().contains(&ifindex);
        self.messages(MessageKind::Route, &listing(MessageKind::Route, MPLS), "the MPLS routes", over).await
    }
}
