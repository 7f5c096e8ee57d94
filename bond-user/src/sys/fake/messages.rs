//! Addresses, routes, neighbours, rules and nexthop objects of the kernel in memory, as rtnetlink messages.

use std::num::NonZero;

use netlink_packet_core::{ErrorMessage, NLM_F_REPLACE};
use nix::errno::Errno;

use super::State;
use crate::sys::{
    netlink::message::{IFA_F_NODAD, INET6, Message, MessageKind, NHA_OIF},
    netlink::{Address, KernelRoute, Raw},
};

const KINDS: [MessageKind; 5] = [
    MessageKind::Address,
    MessageKind::Route,
    MessageKind::Neighbour,
    MessageKind::Rule,
    MessageKind::NextHop,
];

/// Whether it stands on this device.
pub fn is_on(message: &Message, ifindex: u32) -> bool {
    match message.kind() {
        MessageKind::Address | MessageKind::Neighbour => message.ifindex() == ifindex,
        MessageKind::Route => message.route_devices().contains(&ifindex),
        MessageKind::NextHop => message.number(NHA_OIF) == Some(ifindex),
        MessageKind::Rule => false,
    }
}

/// Whether closing the device takes it away: all but IPv4 addresses.
pub fn goes_when_closed(message: &Message, ifindex: u32) -> bool {
    is_on(message, ifindex) && (message.kind() != MessageKind::Address || message.family() == INET6)
}

/// What the kernel lists for this request.
pub fn listed(state: &State, request: &Raw) -> Vec<Raw> {
    const RTM_GET: u16 = 2;
    const FLAGS_OF_NEIGHBOUR: usize = 10;
    let family = request.body.first().copied().unwrap_or(0);
    let flags = request.body.get(FLAGS_OF_NEIGHBOUR).copied().unwrap_or(0);
    let is_listed = |message: &&Message| {
        message.kind().new_type() + RTM_GET == request.kind
            && (family == 0 || message.family() == family)
            && (message.kind() != MessageKind::Neighbour || (message.neighbour_key().2 != 0) == (flags != 0))
    };
    state.messages.iter().filter(is_listed).map(Message::creation).collect()
}

/// Carries out a request to make or delete something.
///
/// # Errors
/// The kernel's errors: EINVAL for a malformed request, EEXIST, ENODEV, ENETDOWN, and what it returns for an object
/// that is missing.
pub fn send(state: &mut State, flags: u16, request: Raw) -> Result<(), Errno> {
    let (is_new, message) = parse(request).ok_or(Errno::EINVAL)?;
    let place = state.messages.iter().position(|known| is_same(known, &message));
    if !is_new {
        let place = place.ok_or(match message.kind() {
            MessageKind::Address => Errno::EADDRNOTAVAIL,
            MessageKind::Route => Errno::ESRCH,
            MessageKind::Neighbour | MessageKind::Rule | MessageKind::NextHop => Errno::ENOENT,
        })?;
        state.messages.remove(place);
        return Ok(());
    }
    match message.kind() {
        MessageKind::Address | MessageKind::Neighbour => drop(state.link(message.ifindex())?),
        MessageKind::Route => {
            for device in message.route_devices() {
                if !state.link(device)?.info.is_up() {
                    return Err(Errno::ENETDOWN);
                }
            }
        }
        MessageKind::Rule | MessageKind::NextHop => {}
    }
    match place {
        Some(_) if flags & NLM_F_REPLACE == 0 => return Err(Errno::EEXIST),
        Some(place) => state.messages[place] = message,
        None => state.messages.push(message),
    }
    Ok(())
}

/// Whether the kernel holds only one of them.
fn is_same(one: &Message, other: &Message) -> bool {
    one.kind() == other.kind()
        && match one.kind() {
            MessageKind::Address => {
                (one.ifindex(), one.address_key()) == (other.ifindex(), other.address_key())
            }
            MessageKind::Route => {
                (one.route_key(), one.route_devices()) == (other.route_key(), other.route_devices())
            }
            MessageKind::Neighbour => {
                (one.ifindex(), one.neighbour_key()) == (other.ifindex(), other.neighbour_key())
            }
            MessageKind::Rule => one == other,
            MessageKind::NextHop => one.next_hop_id() == other.next_hop_id(),
        }
}

/// Whether it is to be made, and what.
fn parse(request: Raw) -> Option<(bool, Message)> {
    let kind =
        KINDS.into_iter().find(|kind| [kind.new_type(), kind.new_type() + 1].contains(&request.kind))?;
    let is_new = request.kind == kind.new_type();
    Some((is_new, Message::new(kind, Raw { kind: kind.new_type(), ..request })?))
}

/// What a request is called among the calls.
pub fn called(request: &Raw) -> String {
    match parse(request.clone()) {
        Some((true, message)) => format!("add {:?} {message}", message.kind()),
        Some((false, message)) => format!("delete {:?} {message}", message.kind()),
        None => format!("send a message of type {}", request.kind),
    }
}

/// The kernel's answer to a request that it refuses.
pub fn error(errno: Errno) -> rtnetlink::Error {
    let mut error = ErrorMessage::default();
    error.code = NonZero::new(-(errno as i32));
    rtnetlink::Error::NetlinkError(error)
}

/// The same without the flag that says how an address was added: it has no effect once the address is there.
pub fn without_nodad(message: Message) -> Message {
    let address =
        Address::of_kept(&message).map(|address| Address { flags: address.flags & !IFA_F_NODAD, ..address });
    address.and_then(|address| address.to_kept()).unwrap_or(message)
}

/// Returns the addresses of all devices.
pub fn addresses(state: &State) -> Vec<Address> {
    state.messages.iter().filter_map(Address::of_kept).collect()
}

/// Adds an address; an existing one counts as success.
///
/// # Errors
/// EINVAL for an address that no message can have, ENODEV without its device.
pub fn add_address(state: &mut State, address: &Address) -> Result<(), Errno> {
    let message = address.to_kept().ok_or(Errno::EINVAL)?;
    match send(state, 0, message.creation()) {
        Err(Errno::EEXIST) => Ok(()),
        answer => answer,
    }
}

/// Deletes an address; a missing one counts as success.
pub fn del_address(state: &mut State, address: &Address) {
    let is_it = |message: &Message| Address::of_kept(message).is_some_and(|known| known.is_same(address));
    state.forget_messages(is_it);
}

/// Returns the routes over a device.
pub fn routes_of(state: &State, ifindex: u32) -> Vec<KernelRoute> {
    let routes = state.messages.iter().filter_map(KernelRoute::of_kept);
    routes.filter(|route| route.ifindex == ifindex).collect()
}

/// Adds or replaces a route of the same device.
///
/// # Errors
/// EEXIST if another device has a route of the same key, ENODEV or ENETDOWN without a device that is up.
pub fn replace_route(state: &mut State, route: &KernelRoute) -> Result<(), Errno> {
    let same = state.messages.iter().filter_map(KernelRoute::of_kept).find(|known| known.has_same_key(route));
    if same.is_some_and(|known| known.ifindex != route.ifindex) {
        return Err(Errno::EEXIST);
    }
    send(state, NLM_F_REPLACE, route.to_kept().ok_or(Errno::EINVAL)?.creation())
}

/// Deletes a route; a missing one counts as success.
pub fn del_route(state: &mut State, route: &KernelRoute) {
    let is_it = |message: &Message| {
        let known = KernelRoute::of_kept(message);
        known.is_some_and(|known| known.has_same_key(route) && known.ifindex == route.ifindex)
    };
    state.forget_messages(is_it);
}
