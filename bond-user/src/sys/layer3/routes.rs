//! Addresses, neighbours and routes that go from one device to another one that is there at the same time: both have
//! them for a moment, so that no packet finds none.

use std::collections::HashSet;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};

use super::{Layer3, Target, Unrestorable, named, read::listing, restore::comes_by_itself};
use crate::sys::{
    Devices, SysError,
    netlink::message::{INET, INET6, Message, MessageKind},
};

/// RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST: they come and go with addresses.
const OF_ADDRESSES: [u8; 3] = [2, 3, 4];
/// NUD_REACHABLE, STALE, DELAY, PROBE: the kernel knows the MAC address.
const RESOLVED: u16 = 0x02 | 0x04 | 0x08 | 0x10;

/// Requests by which routes go to another device: first those that add, then those that delete.
#[derive(Debug, Default)]
pub(in crate::sys) struct RouteMoves {
    /// With their NLM_F_* flags; those without a gateway first.
    pub(in crate::sys) adds: Vec<(u16, Message)>,
    /// Those with a gateway first.
    pub(in crate::sys) deletes: Vec<Message>,
}

impl Layer3 {
    /// Returns an object that cannot go to another device while the first one still has it.
    pub fn unsharable(&self) -> Option<Unrestorable> {
        let object = self.of_kind(MessageKind::NextHop).next();
        let object = object.map(|object| Unrestorable {
            what: named(object),
            why: "a nexthop object is on one device only; replace it by routes with a gateway",
        });
        object.or_else(|| self.unrestorable())
    }
}

impl dyn Devices + '_ {
    /// Gives a second device the neighbours whose MAC addresses the first one knows, so that no packet waits for an
    /// answer.
    ///
    /// # Errors
    /// The kernel does not list the neighbours. One that it does not take is asked for again.
    pub(in crate::sys) async fn copy_neighbours(&self, target: &Target<'_>) -> Result<(), SysError> {
        let substitute = target.substitute(std::time::Duration::ZERO);
        let mut requests = Vec::new();
        for family in [INET, INET6] {
            let is_known = |neighbour: &Message| {
                neighbour.family() == family
                    && neighbour.ifindex() == target.from
                    && neighbour.neighbour_state() & RESOLVED != 0
            };
            let request = listing(MessageKind::Neighbour, family);
            let known = self.messages(MessageKind::Neighbour, &request, "the neighbours", is_known).await?;
            requests.extend(known.iter().map(|neighbour| neighbour.neighbour_for(&substitute)));
        }
        let stale = requests.iter().map(|neighbour| (NLM_F_CREATE | NLM_F_REPLACE, neighbour.creation()));
        // The kernel asks for what it does not take.
        drop(self.send_raw(stale.collect()).await);
        Ok(())
    }

    /// Returns the requests by which the routes go to another device, as both have them now.
    ///
    /// # Errors
    /// The kernel does not list the routes.
    pub(in crate::sys) async fn route_moves(&self, target: &Target<'_>) -> Result<RouteMoves, SysError> {
        let layer3 = self.layer3_of(target.from, &self.called(target.from)).await?;
        let substitute = target.substitute(layer3.elapsed());
        let mut present = Vec::new();
        for family in [INET, INET6] {
            let on_device = |route: &Message| route.route_devices().contains(&target.to);
            present.extend(self.read_routes(family, on_device).await?.routes);
        }
        let present: HashSet<_> = present.iter().filter_map(Message::canonical_route).collect();
        let goes = |route: &&Message| {
            route.route_devices().contains(&target.from)
                && !comes_by_itself(route)
                && !OF_ADDRESSES.contains(&route.route_type())
        };
        let (by_gateway, direct): (Vec<_>, Vec<_>) =
            layer3.routes().filter(goes).partition(|route| route.has_gateway());
        let mut moves = RouteMoves::default();
        for route in direct.iter().chain(&by_gateway) {
            let Some(new) = route.route_for(&substitute) else { continue };
            let is_there = new.canonical_route().is_some_and(|key| present.contains(&key));
            // The kernel would make one route of two next hops out of two IPv6 routes.
            let replaces = route.family() == INET6 && route.has_gateway();
            if !is_there {
                let how = if replaces { NLM_F_REPLACE } else { NLM_F_APPEND };
                moves.adds.push((NLM_F_CREATE | how, new));
            }
        }
        moves.deletes = by_gateway.into_iter().chain(direct).cloned().collect();
        Ok(moves)
    }
}
