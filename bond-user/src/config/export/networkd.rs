//! Writes `.netdev` and `.network` files.

use std::fmt::Write as _;

use bond_core::options::FailOverMac;

use super::{Exported, Program, ProgramFile, is_of_slave, lost, lost_of_slave, options};
use crate::config::{BondConfig, Destination, SlaveConfig};

const TIMES: &[(&str, &str)] = &[
    ("miimon", "MIIMonitorSec"),
    ("updelay", "UpDelaySec"),
    ("downdelay", "DownDelaySec"),
    ("peer_notif_delay", "PeerNotifyDelaySec"),
    ("arp_interval", "ARPIntervalSec"),
];

const WORDS: &[(&str, &str)] = &[
    ("fail_over_mac", "FailOverMACPolicy"),
    ("arp_validate", "ARPValidate"),
    ("arp_all_targets", "ARPAllTargets"),
    ("primary_reselect", "PrimaryReselectPolicy"),
    ("resend_igmp", "ResendIGMP"),
    ("num_grat_arp", "GratuitousARP"),
    ("arp_missed_max", "ARPMissedMax"),
    ("all_slaves_active", "AllSlavesActive"),
];

pub(super) fn write(bond: &BondConfig, exported: &mut Exported) {
    let name = &bond.name;
    exported.files.push(file(format!("20-{name}.netdev"), netdev(bond, &mut exported.notes)));
    for (place, slave) in bond.slaves.iter().enumerate() {
        let text = slave_file(bond, slave);
        lost_of_slave(&mut exported.notes, bond, slave, Program::Networkd, &["prio", "queue_id"]);
        exported.files.push(file(format!("20-{name}-{place:02}-{}.network", slave.name), text));
    }
    exported.files.push(file(format!("30-{name}.network"), network(bond)));
}

fn file(name: String, text: String) -> ProgramFile {
    ProgramFile { name, text, is_private: false }
}

fn netdev(bond: &BondConfig, notes: &mut Vec<String>) -> String {
    let mut text = format!("[NetDev]\nName={}\nKind=bond\n", bond.name);
    if let Some(mtu) = bond.mtu {
        let _ = writeln!(text, "MTUBytes={mtu}");
    }
    match bond.mac_address() {
        Some(mac) => {
            let _ = writeln!(text, "MACAddress={mac}");
        }
        // Without it, networkd makes an address of its own.
        None if bond.options.fail_over_mac != FailOverMac::Active => text.push_str("MACAddress=none\n"),
        None => {}
    }
    text.push_str("\n[Bond]\nMode=active-backup\n");
    for (key, value) in options(bond) {
        let time = TIMES.iter().find(|(option, _)| *option == key);
        let word = WORDS.iter().find(|(option, _)| *option == key);
        let line = match (key, time, word) {
            ("arp_validate", ..) if value.starts_with("filter") => None,
            (_, Some((_, name)), _) => Some(format!("{name}={value}ms")),
            (_, _, Some((_, name))) => Some(format!("{name}={value}")),
            ("arp_ip_target", ..) => Some(format!("ARPIPTargets={}", value.replace(',', " "))),
            ("primary", ..) if is_of_slave(bond, &value) => continue,
            _ => None,
        };
        match line {
            Some(line) => {
                let _ = writeln!(text, "{line}");
            }
            None => lost(notes, bond, format_args!("{key}={value}"), Program::Networkd),
        }
    }
    text
}

fn slave_file(bond: &BondConfig, slave: &SlaveConfig) -> String {
    let mut text = format!("[Match]\nName={}\n", slave.name);
    if let Some(hwaddr) = slave.hwaddr {
        let _ = writeln!(text, "PermanentMACAddress={hwaddr}");
    }
    if slave.mac.is_some() || slave.mtu.is_some() {
        text.push_str("\n[Link]\n");
    }
    if let Some(mac) = slave.mac {
        let _ = writeln!(text, "MACAddress={mac}");
    }
    if let Some(mtu) = slave.mtu {
        let _ = writeln!(text, "MTUBytes={mtu}");
    }
    let _ = write!(text, "\n[Network]\nBond={}\n", bond.name);
    if bond.options.primary.as_deref() == Some(slave.name.as_str()) {
        text.push_str("PrimarySlave=yes\n");
    }
    text
}

/// networkd leaves a bond down that has no `.network` file.
fn network(bond: &BondConfig) -> String {
    let mut text = format!("[Match]\nName={}\n\n[Network]\n", bond.name);
    for address in &bond.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for route in &bond.routes {
        text.push_str("\n[Route]\n");
        match (route.to, route.via) {
            (Destination::Prefix(prefix), _) => {
                let _ = writeln!(text, "Destination={prefix}");
            }
            (Destination::Default, None) => text.push_str("Destination=0.0.0.0/0\n"),
            (Destination::Default, Some(_)) => {}
        }
        if let Some(via) = route.via {
            let _ = writeln!(text, "Gateway={via}");
        }
        if let Some(metric) = route.metric {
            let _ = writeln!(text, "Metric={metric}");
        }
    }
    text
}
