//! Puts addresses, routes, neighbours and rules onto a device.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::{
    BY_ADVERTISEMENT, BY_KERNEL, Layer3, Target, UNICAST, Unrestorable, named, read::listing, send::Sender,
};
use crate::sys::{
    Devices, SysError,
    netlink::message::{INET, INET6, Message, MessageKind, RTA_NH_ID, Substitute},
};

/// A NIC that was set down needs some seconds until it has a link again.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(10);
const CARRIER_POLL: Duration = Duration::from_millis(20);

/// Returns whether a route comes with an IPv6 address or with the device.
pub(super) fn comes_by_itself(route: &Message) -> bool {
    let of_device = matches!(route.destination(), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() || ip.is_multicast());
    route.family() == INET6
        && route.route_protocol() == BY_KERNEL
        && (of_device || route.route_type() != UNICAST)
}

impl dyn Devices + '_ {
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
    ///
    /// # Errors
    /// An address cannot be added; the first failure is returned after the others were tried.
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
    ///
    /// # Errors
    /// An address cannot be deleted; the first failure is returned after the others were tried.
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
        let routes = self.routes_to_put(layer3, target, &substitute, device);
        let mut present = Vec::new();
        for family in [INET, INET6] {
            let on_device = |route: &Message| route.route_devices().contains(&target.to);
            present.extend(self.read_routes(family, on_device).await?.routes);
        }
        sender.delete(&routes_to_undo(layer3, &present, &routes)).await;
        let present: HashSet<_> = present.iter().filter_map(Message::canonical_route).collect();
        let is_there = |route: &Message| route.canonical_route().is_some_and(|key| present.contains(&key));
        // A route that stood ahead of another device's route does so again; the existing ones then stand behind it.
        let (ahead, behind): (Vec<_>, Vec<_>) = routes.into_iter().partition(|(ahead, _)| *ahead);
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
        let (by_object, by_gateway): (Vec<_>, Vec<_>) = by_gateway
            .into_iter()
            .map(|request| replacing(request, target))
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

    /// Returns the routes over the device that the kernel does not create itself, with the substitute in place of the
    /// device, and whether each stood ahead of another device's route.
    fn routes_to_put(
        &self,
        layer3: &Layer3,
        target: &Target<'_>,
        substitute: &Substitute<'_>,
        device: &str,
    ) -> Vec<(bool, Message)> {
        let learns = layer3.learns && self.learns_routes(device);
        let is_learned =
            |route: &Message| learns && route.family() == INET6 && route.route_protocol() == BY_ADVERTISEMENT;
        let objects: HashSet<_> = layer3.next_hops_over(target.from).map(Message::next_hop_id).collect();
        let is_ours = |route: &Message| {
            let by_object = || route.number(RTA_NH_ID).is_some_and(|id| objects.contains(&id));
            let is_over = route.route_devices().contains(&target.from) || by_object();
            is_over && !comes_by_itself(route) && !is_learned(route)
        };
        layer3
            .messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.kind() == MessageKind::Route && is_ours(message))
            .filter_map(|(place, route)| Some((layer3.ahead.contains(&place), route.route_for(substitute)?)))
            .collect()
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
    ///
    /// # Errors
    /// A neighbour cannot be added; the first failure is returned after the others were tried.
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
    ///
    /// # Errors
    /// A rule cannot be added; the first failure is returned after the others were tried.
    pub async fn add_rules(&self, rules: &Layer3) -> Result<(), SysError> {
        let mut sender =
            Sender { devices: self, on: "the rules".to_owned(), device: None, failures: Vec::new() };
        let rules = rules.of_kind(MessageKind::Rule).map(|rule| (NLM_F_CREATE | NLM_F_EXCL, rule.clone()));
        sender.send_repeatedly(rules.collect()).await;
        sender.finish()
    }

    /// Deletes rules; a missing one counts as deleted.
    ///
    /// # Errors
    /// A rule that exists cannot be deleted; the first failure is returned after the others were tried.
    pub async fn del_rules(&self, rules: &Layer3) -> Result<(), SysError> {
        let mut sender =
            Sender { devices: self, on: "the rules".to_owned(), device: None, failures: Vec::new() };
        sender.delete(&rules.of_kind(MessageKind::Rule).cloned().collect::<Vec<_>>()).await;
        sender.finish()
    }
}

/// Returns the routes that the kernel created with an address, and that had been deleted before the device was read.
fn routes_to_undo(layer3: &Layer3, present: &[Message], routes: &[(bool, Message)]) -> Vec<Message> {
    let wanted: HashSet<_> = routes.iter().filter_map(|(_, route)| route.canonical_route()).collect();
    let is_wanted = |route: &Message| route.canonical_route().is_some_and(|key| wanted.contains(&key));
    present
        .iter()
        .filter(|route| route.route_protocol() == BY_KERNEL && !comes_by_itself(route))
        .filter(|route| comes_with_address(route, layer3) && !is_wanted(route))
        .cloned()
        .collect()
}

/// Lets a route that has next hops over other devices replace the existing one. Its other next hops exist, alone or
/// with one that does not: the kernel accepts none of them twice. It removes the whole IPv4 route when a next hop
/// vanishes.
fn replacing((flags, route): (u16, Message), target: &Target<'_>) -> (u16, Message) {
    let shared = route.route_devices().iter().any(|device| *device != target.to);
    let replaces = shared && (route.family() == INET6 || !target.is_back());
    (if replaces { NLM_F_CREATE | NLM_F_REPLACE } else { flags }, route)
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
