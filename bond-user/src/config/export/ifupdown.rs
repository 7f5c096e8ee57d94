//! Writes an `interfaces` file for ifupdown with ifenslave.

use std::{fmt::Write as _, net::IpAddr};

use super::{Exported, Program, ProgramFile, lost_of_slave, options};
use crate::config::{BondConfig, Destination, Route};

/// Options that ifenslave does not set, though the file can have them.
const IGNORED: &[&str] = &[
    "resend_igmp",
    "all_slaves_active",
    "arp_all_targets",
    "arp_missed_max",
    "ns_ip6_target",
    "peer_notif_delay",
];

pub(super) fn write(bonds: &[BondConfig], exported: &mut Exported) {
    let mut text = String::new();
    for bond in bonds {
        slaves(bond, &mut text, &mut exported.notes);
        stanzas(bond, &mut text, &mut exported.notes);
    }
    exported.files.push(ProgramFile { name: "xbond".to_owned(), text, is_private: false });
}

fn slaves(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    for slave in &bond.slaves {
        lost_of_slave(notes, bond, slave, Program::Ifupdown, &["prio", "hwaddr"]);
        if slave.mac.is_none() && slave.mtu.is_none() {
            continue;
        }
        let _ = writeln!(text, "iface {} inet manual", slave.name);
        if let Some(mac) = slave.mac {
            let _ = writeln!(text, "    hwaddress {mac}");
        }
        if let Some(mtu) = slave.mtu {
            let _ = writeln!(text, "    mtu {mtu}");
        }
        text.push('\n');
    }
}

/// Writes a stanza with the options, and one more for each further address.
fn stanzas(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    let name = &bond.name;
    let _ = writeln!(text, "auto {name}");
    let mut gateways = Vec::new();
    let mut others = Vec::new();
    for route in &bond.routes {
        let is_first = |via: IpAddr| {
            let has_address = bond.addresses.iter().any(|address| address.addr().is_ipv4() == via.is_ipv4());
            has_address && !gateways.iter().any(|(known, _): &(IpAddr, _)| known.is_ipv4() == via.is_ipv4())
        };
        match (route.to, route.via) {
            (Destination::Default, Some(via)) if is_first(via) => gateways.push((via, route.metric)),
            _ => others.push(route),
        }
    }
    let of_options = options_text(bond, &others, notes);
    if bond.addresses.is_empty() {
        let _ = write!(text, "iface {name} inet manual\n{of_options}\n");
    }
    for (place, address) in bond.addresses.iter().enumerate() {
        let family = if address.addr().is_ipv4() { "inet" } else { "inet6" };
        let _ = write!(text, "iface {name} {family} static\n    address {address}\n");
        let gateway = gateways.iter().position(|(via, _)| via.is_ipv4() == address.addr().is_ipv4());
        if let Some((via, metric)) = gateway.map(|place| gateways.remove(place)) {
            let _ = writeln!(text, "    gateway {via}");
            if let Some(metric) = metric {
                let _ = writeln!(text, "    metric {metric}");
            }
        }
        if place == 0 {
            text.push_str(&of_options);
        }
        text.push('\n');
    }
}

fn options_text(bond: &BondConfig, routes: &[&Route], notes: &mut Vec<String>) -> String {
    let names: Vec<_> = bond.slaves.iter().map(|slave| slave.name.as_str()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let mut text = format!("    bond-slaves {names}\n    bond-mode active-backup\n");
    for (key, value) in options(bond) {
        if IGNORED.contains(&key) {
            notes.push(format!("{}: {key}={value} is in the file, but ifenslave does not set it", bond.name));
        }
        let value = if key.ends_with("_target") { value.replace(',', " ") } else { value };
        let _ = writeln!(text, "    bond-{} {value}", key.replace('_', "-"));
    }
    let queues = bond.slaves.iter().filter(|slave| slave.options.queue_id != 0);
    let queues: Vec<_> = queues.map(|slave| format!("{}:{}", slave.name, slave.options.queue_id)).collect();
    if !queues.is_empty() {
        let _ = writeln!(text, "    bond-queue-id {}", queues.join(" "));
    }
    if let Some(mtu) = bond.mtu {
        let _ = writeln!(text, "    mtu {mtu}");
    }
    if let Some(mac) = bond.mac_address() {
        let _ = writeln!(text, "    hwaddress {mac}");
    }
    for route in routes {
        let _ = writeln!(text, "    up {}", super::ip::route(bond, route));
        notes.push(format!(
            "{}: route to {} is a line `up ip route add`, which is not read when the file is imported again",
            bond.name, route.to
        ));
    }
    text
}
