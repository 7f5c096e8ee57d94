//! Writes commands of iproute2.

use std::fmt::Write as _;

use bond_core::options::SlaveOptions;

use super::{Exported, Program, ProgramFile, lost_of_slave, options};
use crate::config::{BondConfig, Route};

/// Options that iproute2 calls otherwise.
const NAMES: &[(&str, &str)] = &[("peer_notif_delay", "peer_notify_delay"), ("arp_missed_max", "missed_max")];

pub(super) fn write(bonds: &[BondConfig], exported: &mut Exported) {
    let mut text = "#!/bin/sh\nset -e\n".to_owned();
    for bond in bonds {
        commands(bond, &mut text, &mut exported.notes);
    }
    exported.files.push(ProgramFile { name: "bonds.sh".to_owned(), text, is_private: false });
}

/// Returns a command that adds a route.
pub(super) fn route(bond: &BondConfig, route: &Route) -> String {
    let family = if route.is_ipv6() { "-6 " } else { "" };
    let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let metric = route.metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
    format!("ip {family}route add {}{via} dev {}{metric}", route.to, bond.name)
}

fn commands(bond: &BondConfig, text: &mut String, notes: &mut Vec<String>) {
    let name = &bond.name;
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    let mut add = format!("ip link add {name}");
    if let Some(mac) = bond.mac_address() {
        let _ = write!(add, " address {mac}");
    }
    add.push_str(" type bond mode active-backup");
    let primary = bond.options.primary.as_ref();
    for (key, value) in options(bond).into_iter().filter(|(key, _)| *key != "primary") {
        let name = NAMES.iter().find(|(option, _)| *option == key).map_or(key, |(_, name)| name);
        let _ = write!(add, " {name} {value}");
    }
    line(add);
    for slave in &bond.slaves {
        lost_of_slave(notes, bond, slave, Program::Ip, &["hwaddr"]);
        let mut set = format!("ip link set {} down", slave.name);
        if let Some(mac) = slave.mac {
            let _ = write!(set, " address {mac}");
        }
        line(set);
        line(format!("ip link set {} master {name}", slave.name));
        let SlaveOptions { prio, queue_id, watch: _ } = slave.options;
        if (prio, queue_id) != (0, 0) {
            line(format!("ip link set {} type bond_slave prio {prio} queue_id {queue_id}", slave.name));
        }
    }
    if let Some(primary) = primary {
        line(format!("ip link set {name} type bond primary {primary}"));
    }
    if let Some(mtu) = bond.mtu {
        line(format!("ip link set {name} mtu {mtu}"));
    }
    line(format!("ip link set {name} up"));
    for address in &bond.addresses {
        line(format!("ip address add {address} dev {name}"));
    }
    for to in &bond.routes {
        line(route(bond, to));
    }
}
