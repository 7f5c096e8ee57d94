//! Writes a YAML file for netplan.

use std::fmt::{Display, Write as _};

use bond_core::options::FailOverMac;

use super::{Exported, Program, ProgramFile, is_of_slave, lost, lost_of_slave, options};
use crate::config::{BondConfig, Destination, Route};

const PARAMETERS: &[(&str, &str)] = &[
    ("miimon", "mii-monitor-interval"),
    ("updelay", "up-delay"),
    ("downdelay", "down-delay"),
    ("arp_interval", "arp-interval"),
    ("fail_over_mac", "fail-over-mac-policy"),
    ("arp_validate", "arp-validate"),
    ("arp_all_targets", "arp-all-targets"),
    ("primary_reselect", "primary-reselect-policy"),
    ("resend_igmp", "resend-igmp"),
    ("num_grat_arp", "gratuitous-arp"),
];

pub(super) fn write(bonds: &[BondConfig], exported: &mut Exported) {
    let mut text = "network:\n  version: 2\n  ethernets:\n".to_owned();
    for bond in bonds {
        slaves(bond, &mut text, &mut exported.notes);
    }
    text.push_str("  bonds:\n");
    for bond in bonds {
        definition(bond, &mut text, &mut exported.notes);
    }
    exported.files.push(ProgramFile { name: "90-xbond.yaml".to_owned(), text, is_private: true });
}

fn quoted(value: impl Display) -> String {
    format!("\"{value}\"")
}

fn slaves(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    for slave in &bond.slaves {
        lost_of_slave(notes, bond, slave, Program::Netplan, &["prio", "queue_id"]);
        let name = quoted(&slave.name);
        let mut keys = Vec::new();
        if let Some(hwaddr) = slave.hwaddr {
            keys.push(format!("match: {{macaddress: {}}}", quoted(hwaddr)));
            keys.push(format!("set-name: {name}"));
        }
        keys.extend(slave.mac.map(|mac| format!("macaddress: {}", quoted(mac))));
        keys.extend(slave.mtu.map(|mtu| format!("mtu: {mtu}")));
        let _ = writeln!(text, "    {name}: {{{}}}", keys.join(", "));
    }
}

fn definition(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    let mut line = |depth: usize, line: String| {
        let _ = writeln!(text, "{:depth$}{line}", "", depth = depth * 2);
    };
    line(2, format!("{}:", quoted(&bond.name)));
    let names: Vec<_> = bond.slaves.iter().map(|slave| quoted(&slave.name)).collect();
    line(3, format!("interfaces: [{}]", names.join(", ")));
    match bond.mac_address() {
        Some(mac) => line(3, format!("macaddress: {}", quoted(mac))),
        None if bond.options.fail_over_mac != FailOverMac::Active => notes.push(format!(
            "{}: no mac: under networkd the bond gets an address made of the machine's id, not that of its first slave",
            bond.name
        )),
        None => {}
    }
    if let Some(mtu) = bond.mtu {
        line(3, format!("mtu: {mtu}"));
    }
    if !bond.addresses.is_empty() {
        let addresses: Vec<_> = bond.addresses.iter().map(quoted).collect();
        line(3, format!("addresses: [{}]", addresses.join(", ")));
    }
    if !bond.routes.is_empty() {
        line(3, "routes:".to_owned());
    }
    for route in &bond.routes {
        line(4, format!("- {}", route_text(route)));
    }
    line(3, "parameters:".to_owned());
    line(4, "mode: active-backup".to_owned());
    for (key, value) in options(bond) {
        let parameter = PARAMETERS.iter().find(|(option, _)| *option == key);
        match (key, parameter) {
            ("arp_validate", _) if value.starts_with("filter") => {
                lost(notes, bond, format_args!("{key}={value}"), Program::Netplan);
            }
            (_, Some((_, name))) => line(4, format!("{name}: {value}")),
            ("all_slaves_active", _) => line(4, "all-members-active: true".to_owned()),
            ("arp_ip_target", _) => line(4, format!("arp-ip-targets: [{}]", value.replace(',', ", "))),
            ("primary", _) if is_of_slave(bond, &value) => line(4, format!("primary: {}", quoted(value))),
            _ => lost(notes, bond, format_args!("{key}={value}"), Program::Netplan),
        }
    }
}

fn route_text(route: &Route) -> String {
    let to = match (route.to, route.via) {
        (Destination::Default, None) => quoted("0.0.0.0/0"),
        (to, _) => quoted(to),
    };
    let via = route.via.map_or_else(|| ", scope: link".to_owned(), |via| format!(", via: {}", quoted(via)));
    let metric = route.metric.map(|metric| format!(", metric: {metric}")).unwrap_or_default();
    format!("{{to: {to}{via}{metric}}}")
}
