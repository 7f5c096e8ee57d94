//! Writes a YAML file for nmstate.

use std::fmt::{Display, Write as _};

use bond_core::options::SlaveOptions;

use super::{Exported, Program, ProgramFile, lost, lost_of_slave, options};
use crate::config::{BondConfig, BondMac, Destination};

/// Options that nmstate refuses as unknown.
const UNKNOWN: &[&str] = &["ns_ip6_target", "peer_notif_delay"];

pub(super) fn write(bonds: &[BondConfig], exported: &mut Exported) {
    let mut text = "interfaces:\n".to_owned();
    for bond in bonds {
        interface(bond, &mut text, &mut exported.notes);
    }
    if bonds.iter().any(|bond| !bond.routes.is_empty()) {
        text.push_str("routes:\n  config:\n");
    }
    for (bond, route) in bonds.iter().flat_map(|bond| bond.routes.iter().map(move |route| (bond, route))) {
        let is_ipv6 = route.via.is_some_and(|via| via.is_ipv6());
        let to = match route.to {
            Destination::Default if is_ipv6 => "::/0".to_owned(),
            Destination::Default => "0.0.0.0/0".to_owned(),
            Destination::Prefix(prefix) => prefix.to_string(),
        };
        let _ = writeln!(text, "  - destination: {}", quoted(to));
        let _ = writeln!(text, "    next-hop-interface: {}", quoted(&bond.name));
        if let Some(via) = route.via {
            let _ = writeln!(text, "    next-hop-address: {}", quoted(via));
        }
        if let Some(metric) = route.metric {
            let _ = writeln!(text, "    metric: {metric}");
        }
    }
    exported.files.push(ProgramFile { name: "90-xbond.yml".to_owned(), text, is_private: false });
}

fn quoted(value: impl Display) -> String {
    format!("\"{value}\"")
}

fn interface(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    for slave in &bond.slaves {
        lost_of_slave(notes, bond, slave, Program::Nmstate, &["hwaddr", "mac"]);
        if let Some(mtu) = slave.mtu {
            let name = quoted(&slave.name);
            let _ = write!(text, "- name: {name}\n  type: ethernet\n  state: up\n  mtu: {mtu}\n");
        }
    }
    let _ = write!(text, "- name: {}\n  type: bond\n  state: up\n", quoted(&bond.name));
    if let Some(mtu) = bond.mtu {
        let _ = writeln!(text, "  mtu: {mtu}");
    }
    match &bond.mac {
        Some(BondMac::Address(mac)) => {
            let _ = writeln!(text, "  mac-address: {}", quoted(mac));
        }
        Some(BondMac::OfSlave(slave)) => {
            let _ = writeln!(text, "  copy-mac-from: {}", quoted(slave));
        }
        None => {}
    }
    for (family, is_ipv4) in [("ipv4", true), ("ipv6", false)] {
        let addresses: Vec<_> =
            bond.addresses.iter().filter(|address| address.addr().is_ipv4() == is_ipv4).collect();
        if addresses.is_empty() {
            continue;
        }
        let _ = write!(text, "  {family}:\n    enabled: true\n    address:\n");
        for address in addresses {
            let (ip, length) = (quoted(address.addr()), address.prefix_len());
            let _ = write!(text, "    - ip: {ip}\n      prefix-length: {length}\n");
        }
    }
    aggregation(bond, text, notes);
}

fn aggregation(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    text.push_str("  link-aggregation:\n    mode: active-backup\n");
    let names: Vec<_> = bond.slaves.iter().map(|slave| quoted(&slave.name)).collect();
    let _ = writeln!(text, "    port: [{}]", names.join(", "));
    let configured: Vec<_> =
        bond.slaves.iter().filter(|slave| (slave.options.prio, slave.options.queue_id) != (0, 0)).collect();
    if !configured.is_empty() {
        text.push_str("    ports-config:\n");
    }
    for slave in configured {
        let SlaveOptions { prio, queue_id, watch: _ } = slave.options;
        let name = quoted(&slave.name);
        let _ = write!(text, "    - name: {name}\n      priority: {prio}\n      queue-id: {queue_id}\n");
    }
    let mut options = options(bond);
    if !bond.options.is_monitored() {
        // Without it, NetworkManager takes 100.
        options.push(("miimon", "0".to_owned()));
    }
    if !options.iter().all(|(key, _)| UNKNOWN.contains(key)) {
        text.push_str("    options:\n");
    }
    for (key, value) in options {
        match key {
            _ if UNKNOWN.contains(&key) => lost(notes, bond, format_args!("{key}={value}"), Program::Nmstate),
            "all_slaves_active" => text.push_str("      all_slaves_active: delivered\n"),
            _ => {
                let _ = writeln!(text, "      {key}: {}", quoted(value));
            }
        }
    }
}
