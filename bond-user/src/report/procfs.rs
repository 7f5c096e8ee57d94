//! `xbond show --proc`: the text of /proc/net/bonding/NAME in the driver's format, for tools that parse it
//! (`bond_info_show_master`, `bond_info_show_slave`). Only the first line differs.

use std::fmt::{self, Write as _};

use bond_core::options;

use super::json::{Bond, Slave};

/// How the text begins, as the driver's.
pub const FIRST_WORDS: &str = "Ethernet Channel Bonding Driver: ";

/// Options that the driver shows only with the ARP monitor.
const ARP_MONITOR: &[&str] = &["arp_interval", "arp_missed_max", "arp_ip_target", "ns_ip6_target"];

/// Prints one bond.
pub fn show(bond: &Bond) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = show_bond(&mut text, bond);
    text
}

fn show_bond(text: &mut String, bond: &Bond) -> fmt::Result {
    writeln!(text, "{FIRST_WORDS}v{} (xbond)\n", env!("CARGO_PKG_VERSION"))?;
    write!(text, "Bonding Mode: fault-tolerance (active-backup)")?;
    match name(bond, "fail_over_mac") {
        "none" => writeln!(text)?,
        policy => writeln!(text, " (fail_over_mac {policy})")?,
    }
    // A primary that is not enslaved is shown as none.
    match bond.slaves.iter().find(|slave| slave.name == name(bond, "primary")) {
        Some(primary) => {
            let reselect = name(bond, "primary_reselect");
            writeln!(text, "Primary Slave: {} (primary_reselect {reselect})", primary.name)?;
        }
        None => writeln!(text, "Primary Slave: None")?,
    }
    writeln!(text, "Currently Active Slave: {}", bond.active_slave.as_deref().unwrap_or("None"))?;
    writeln!(text, "MII Status: {}", if bond.carrier { "up" } else { "down" })?;
    let probes = number(bond, "arp_interval") > 0;
    for row in options::ROWS.iter().filter(|row| probes || !ARP_MONITOR.contains(&row.key)) {
        if let Some(title) = row.title {
            writeln!(text, "{title}:{}", value(bond, row.key))?;
        }
    }
    bond.slaves.iter().try_for_each(|slave| show_slave(text, slave))
}

fn show_slave(text: &mut String, slave: &Slave) -> fmt::Result {
    writeln!(text, "\nSlave Interface: {}", slave.name)?;
    writeln!(text, "MII Status: {}", slave.mii_status)?;
    match slave.speed {
        Some(speed) => writeln!(text, "Speed: {speed} Mbps")?,
        None => writeln!(text, "Speed: Unknown")?,
    }
    writeln!(text, "Duplex: {}", slave.duplex.as_deref().unwrap_or("Unknown"))?;
    writeln!(text, "Link Failure Count: {}", slave.link_failure_count.unwrap_or_default())?;
    writeln!(text, "Permanent HW addr: {}", slave.permanent_mac)?;
    writeln!(text, "Slave queue ID: {}", slave.queue_id)
}

fn name<'bond>(bond: &'bond Bond, key: &str) -> &'bond str {
    bond.options.get(key).and_then(|value| value.as_str()).unwrap_or_default()
}

fn number(bond: &Bond, key: &str) -> u64 {
    bond.options.get(key).and_then(|value| value.as_u64()).unwrap_or_default()
}

/// Prints a number, or the items of a list, with a space before each and a comma between two.
fn value(bond: &Bond, key: &str) -> String {
    let Some(items) = bond.options.get(key).and_then(|value| value.as_array()) else {
        return format!(" {}", number(bond, key));
    };
    let items: Vec<_> =
        items.iter().filter_map(|item| item.as_str()).map(|item| format!(" {item}")).collect();
    items.join(",")
}

#[cfg(test)]
mod readers;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;
    use bond_core::options::{BondOptions, FailOverMac, PrimaryReselect};

    pub(super) fn bond(options: BondOptions, active: Option<&str>, slaves: Vec<Slave>) -> Bond {
        Bond {
            active_slave: active.map(str::to_owned),
            mac: "02:00:00:00:00:10".into(),
            carrier: active.is_some(),
            options: serde_json::to_value(options).unwrap().as_object().unwrap().clone(),
            slaves,
            ..testing::plain_bond()
        }
    }

    pub(super) fn slave(last: u8, mii: &str, failures: u32) -> Slave {
        Slave {
            mac: "02:00:00:00:00:99".into(),
            permanent_mac: format!("02:00:00:00:00:1{last}"),
            link_failure_count: Some(failures),
            speed: Some(10_000),
            ..testing::slave(&format!("slave{last}"), "backup", mii)
        }
    }

    pub(super) fn miimon(fail_over_mac: FailOverMac) -> BondOptions {
        BondOptions { miimon: 100, fail_over_mac, ..BondOptions::default() }
    }

    /// Compares without the version line, which differs.
    #[track_caller]
    fn assert_shown(bond: &Bond, expected: &str) {
        let shown = show(bond);
        let (version, rest) = shown.split_once('\n').unwrap();
        assert!(version.starts_with("Ethernet Channel Bonding Driver: v"), "{version}");
        assert_eq!(rest, expected);
    }

    const DELAYS: &str = "Up Delay (ms): 0\nDown Delay (ms): 0\nPeer Notification Delay (ms): 0\n";

    #[test]
    fn procfs_shows_each_policy_as_the_driver_does() {
        for (policy, word) in [
            (FailOverMac::None, ""),
            (FailOverMac::Active, " (fail_over_mac active)"),
            (FailOverMac::Follow, " (fail_over_mac follow)"),
        ] {
            let bond = bond(miimon(policy), Some("slave1"), vec![slave(0, "down", 2), slave(1, "up", 0)]);
            let expected = format!(
                "
Bonding Mode: fault-tolerance (active-backup){word}
Primary Slave: None
Currently Active Slave: slave1
MII Status: up
MII Polling Interval (ms): 100
{DELAYS}
Slave Interface: slave0
MII Status: down
Speed: 10000 Mbps
Duplex: full
Link Failure Count: 2
Permanent HW addr: 02:00:00:00:00:10
Slave queue ID: 0

Slave Interface: slave1
MII Status: up
Speed: 10000 Mbps
Duplex: full
Link Failure Count: 0
Permanent HW addr: 02:00:00:00:00:11
Slave queue ID: 0
"
            );
            assert_shown(&bond, &expected);
        }
    }

    #[test]
    fn procfs_shows_a_bond_without_slaves() {
        let expected = format!(
            "
Bonding Mode: fault-tolerance (active-backup) (fail_over_mac follow)
Primary Slave: None
Currently Active Slave: None
MII Status: down
MII Polling Interval (ms): 100
{DELAYS}"
        );
        assert_shown(&bond(miimon(FailOverMac::Follow), None, Vec::new()), &expected);
    }

    #[test]
    fn a_primary_counts_while_it_is_enslaved() {
        for (primary, expected) in
            [("slave0", "Primary Slave: slave0 (primary_reselect better)"), ("nosuch", "Primary Slave: None")]
        {
            let options = BondOptions {
                primary: Some(primary.into()),
                primary_reselect: PrimaryReselect::Better,
                ..miimon(FailOverMac::None)
            };
            let shown = show(&bond(options, Some("slave0"), vec![slave(0, "up", 0)]));
            assert_eq!(shown.lines().nth(3), Some(expected));
        }
    }

    #[test]
    fn procfs_shows_an_unknown_speed_a_delayed_link_and_a_queue() {
        let slave = Slave { speed: None, duplex: None, queue_id: 3, ..slave(2, "going back", 1) };
        let shown = show(&bond(miimon(FailOverMac::None), None, vec![slave]));
        let (_, of_slave) = shown.split_once("Slave Interface: ").unwrap();
        let expected = "slave2
MII Status: going back
Speed: Unknown
Duplex: Unknown
Link Failure Count: 1
Permanent HW addr: 02:00:00:00:00:12
Slave queue ID: 3
";
        assert_eq!(of_slave, expected);
    }

    #[test]
    fn procfs_shows_the_arp_monitor() {
        let options = BondOptions {
            arp_interval: 200,
            arp_ip_target: vec!["10.0.0.254".parse().unwrap(), "10.0.0.253".parse().unwrap()],
            ..BondOptions::default()
        };
        let shown = show(&bond(options, None, Vec::new()));
        let expected = "Peer Notification Delay (ms): 0
ARP Polling Interval (ms): 200
ARP Missed Max: 2
ARP IP target/s (n.n.n.n form): 10.0.0.254, 10.0.0.253
NS IPv6 target/s (xx::xx form):
";
        assert!(shown.ends_with(expected), "{shown}");
    }
}
