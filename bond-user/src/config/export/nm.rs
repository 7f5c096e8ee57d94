//! Writes keyfiles for NetworkManager, one a connection.

use std::fmt::Write as _;

use bond_core::options::SlaveOptions;

use super::{Exported, Program, ProgramFile, lost, options};
use crate::config::{BondConfig, Destination, Route, SlaveConfig};

pub(super) fn write(bond: &BondConfig, exported: &mut Exported) {
    let name = &bond.name;
    exported.files.push(file(format!("{name}.nmconnection"), connection(bond, &mut exported.notes)));
    for slave in &bond.slaves {
        exported.files.push(file(format!("{name}-port-{}.nmconnection", slave.name), port(bond, slave)));
    }
    if !bond.slaves.is_sorted_by_key(|slave| slave.name.as_str()) {
        lost(&mut exported.notes, bond, "the order of the slaves", Program::Nm);
    }
}

fn file(name: String, text: String) -> ProgramFile {
    ProgramFile { name, text, is_private: true }
}

/// Returns a UUID that is the same for the same connection. It need not be random, only differ from others.
fn uuid(connection: &str) -> String {
    // FNV-1a, from two bases.
    let hash = |basis: u64| {
        let bytes = b"xbond:".iter().chain(connection.as_bytes());
        bytes.fold(basis, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let bits = u128::from(hash(0xcbf2_9ce4_8422_2325)) << 64 | u128::from(hash(0x8422_2325_cbf2_9ce4));
    // Version 8, whose bits are free, and the variant of RFC 9562.
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let digits = format!("{bits:032x}");
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn connection(bond: &BondConfig, notes: &mut Vec<String>) -> String {
    let name = &bond.name;
    let mut text = format!(
        "[connection]\nid={name}\nuuid={}\ntype=bond\ninterface-name={name}\nautoconnect-slaves=1\n\n[bond]\nmode=active-backup\n",
        uuid(name)
    );
    if !bond.options.is_monitored() {
        // Without it, NetworkManager takes 100.
        text.push_str("miimon=0\n");
    }
    for (key, value) in options(bond) {
        let _ = writeln!(text, "{key}={value}");
    }
    if bond.mac_address().is_some() || bond.mtu.is_some() {
        text.push_str("\n[ethernet]\n");
    }
    if let Some(mac) = bond.mac_address() {
        let _ = writeln!(text, "cloned-mac-address={mac}");
    }
    if let Some(mtu) = bond.mtu {
        let _ = writeln!(text, "mtu={mtu}");
    }
    for (section, is_ipv4) in [("ipv4", true), ("ipv6", false)] {
        let _ = write!(text, "\n[{section}]\n{}", ip(bond, is_ipv4, notes));
    }
    text
}

fn port(bond: &BondConfig, slave: &SlaveConfig) -> String {
    let (name, id) = (&slave.name, format!("{}-port-{}", bond.name, slave.name));
    let mut text = format!(
        "[connection]\nid={id}\nuuid={}\ntype=ethernet\ninterface-name={name}\nmaster={}\nslave-type=bond\n",
        uuid(&id),
        bond.name
    );
    if slave.hwaddr.is_some() || slave.mac.is_some() || slave.mtu.is_some() {
        text.push_str("\n[ethernet]\n");
    }
    if let Some(hwaddr) = slave.hwaddr {
        let _ = writeln!(text, "mac-address={hwaddr}");
    }
    if let Some(mac) = slave.mac {
        let _ = writeln!(text, "cloned-mac-address={mac}");
    }
    if let Some(mtu) = slave.mtu {
        let _ = writeln!(text, "mtu={mtu}");
    }
    let SlaveOptions { prio, queue_id, watch: _ } = slave.options;
    if (prio, queue_id) != (0, 0) {
        let _ = write!(text, "\n[bond-port]\nprio={prio}\nqueue-id={queue_id}\n");
    }
    text
}

/// Returns the keys of one family. A manual one has addresses; IPv6 without any still has its link-local one.
fn ip(bond: &BondConfig, is_ipv4: bool, notes: &mut Vec<String>) -> String {
    let addresses: Vec<_> =
        bond.addresses.iter().filter(|address| address.addr().is_ipv4() == is_ipv4).collect();
    let routes: Vec<_> = bond.routes.iter().filter(|route| is_of(route) == is_ipv4).collect();
    let method = match (addresses.is_empty(), is_ipv4) {
        (false, _) => "manual",
        (true, true) => "disabled",
        (true, false) if routes.is_empty() => "ignore",
        (true, false) => "link-local",
    };
    let mut text = format!("method={method}\n");
    for (number, address) in addresses.iter().enumerate() {
        let _ = writeln!(text, "address{}={address}", number + 1);
    }
    if addresses.is_empty() && is_ipv4 {
        for route in routes {
            lost(notes, bond, format_args!("route to {} without an address", route.to), Program::Nm);
        }
        return text;
    }
    for (number, route) in routes.iter().enumerate() {
        let nowhere = if is_ipv4 { "0.0.0.0" } else { "::" };
        let to = match route.to {
            Destination::Default => format!("{nowhere}/0"),
            Destination::Prefix(prefix) => prefix.to_string(),
        };
        let via = route.via.map_or_else(|| nowhere.to_owned(), |via| via.to_string());
        let metric = route.metric.map(|metric| format!(",{metric}")).unwrap_or_default();
        let _ = writeln!(text, "route{}={to},{via}{metric}", number + 1);
    }
    text
}

/// Whether a route is one of IPv4.
fn is_of(route: &Route) -> bool {
    match (route.to, route.via) {
        (Destination::Prefix(prefix), _) => prefix.addr().is_ipv4(),
        (Destination::Default, via) => via.is_none_or(|via| via.is_ipv4()),
    }
}
