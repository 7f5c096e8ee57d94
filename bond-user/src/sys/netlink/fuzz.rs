//! Fuzz targets: messages of rtnetlink.

use std::{collections::VecDeque, time::Duration};

use xbond_fuzz::{Input, target};

use super::{
    LinkInfo, Raw, address_events, events,
    message::{Message, MessageKind, Substitute},
};

const KINDS: [MessageKind; 5] = [
    MessageKind::Address,
    MessageKind::Route,
    MessageKind::Neighbour,
    MessageKind::Rule,
    MessageKind::NextHop,
];

#[test]
fn link_messages() {
    target("link_messages", |input| {
        if let Some(link) = LinkInfo::from_body(input) {
            let _ = (link.has_link(), link.is_end_of_pair(), format!("{link:?}"));
        }
        let mut found = VecDeque::new();
        events::read(input, &mut found);
        assert!(found.len() <= input.len());
        let mut changed = address_events::Interfaces::default();
        address_events::read(input, &mut changed);
    });
}

/// What the agent reads of a message that it keeps.
fn read(message: &Message) {
    let _ = (message.family(), message.ifindex(), message.creation(), message.deletion());
    match message.kind() {
        MessageKind::Address => {
            let _ = (message.local(), message.address_key(), message.address_flags());
            let _ = (message.valid_for(), message.address_scope());
        }
        MessageKind::Route => {
            let _ = (message.destination(), message.mpls_label(), message.preferred_source());
            let _ = (message.route_key(), message.route_devices(), message.has_gateway());
            let _ = (message.encapsulations(), message.canonical_route(), message.is_clone());
        }
        MessageKind::Neighbour => {
            let _ = (message.neighbour_key(), message.neighbour_state(), message.neighbour_flags());
        }
        MessageKind::Rule => {
            let _ = (message.names_device("eth0"), message.rule_priority());
        }
        MessageKind::NextHop => {
            let _ = (message.next_hop_id(), message.members().count());
        }
    }
}

/// Returns the messages with which the agent restores one on another device.
fn moved(message: &Message, substitute: &Substitute<'_>) -> Vec<Message> {
    match message.kind() {
        MessageKind::Address => message.address_for(substitute, 2).into_iter().collect(),
        MessageKind::Route => {
            let to_gateways = message.routes_to_gateways(substitute.to);
            message.route_for(substitute).into_iter().chain(to_gateways).collect()
        }
        MessageKind::Neighbour => vec![message.neighbour_for(substitute)],
        MessageKind::Rule => vec![message.rule_for(substitute)],
        MessageKind::NextHop => vec![message.next_hop_for(substitute)],
    }
}

#[test]
fn kept_messages() {
    target("kept_messages", |input| {
        let mut input = Input::new(input);
        let (kind, from, to) = (KINDS[usize::from(input.u8()) % KINDS.len()], input.u32(), input.u32());
        let elapsed = Duration::from_secs(input.u32().into());
        let raw = Raw { kind: kind.new_type(), body: input.rest().to_vec() };
        let _ = raw.parse();
        let Some(message) = Message::new(kind, raw) else { return };
        read(&message);
        for names in [None, Some(("eth0", "bond0"))] {
            let substitute = Substitute { from, to, names, elapsed };
            for moved in moved(&message, &substitute) {
                assert_eq!(moved.kind(), kind);
                assert!(Message::new(kind, moved.creation()).is_some(), "it is no message: {moved:?}");
                read(&moved);
            }
        }
    });
}
