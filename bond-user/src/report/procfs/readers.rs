//! The text as programs read it that were written for /proc/net/bonding: each reader here has the rules of one of them.

use super::{show, tests};
use crate::report::json::{Bond, Slave};
use bond_core::options::{BondOptions, FailOverMac, PrimaryReselect};

/// What a reader knows of a slave; what it does not look for is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReadSlave {
    name: String,
    is_up: bool,
    failures: Option<u32>,
    permanent_mac: Option<String>,
}

/// What a reader knows of a bond.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReadBond {
    is_up: bool,
    active: Option<String>,
    primary: Option<String>,
    slaves: Vec<ReadSlave>,
}

/// A line, split at its colons; the parts are trimmed.
fn fields(line: &str) -> Vec<&str> {
    line.split(':').map(str::trim).collect()
}

/// Telegraf's plugin `bond`: everything before the first `Slave Interface:` is the bond's, and there the MII status is the
/// last line that it reads. The count of failures ends a slave, and is a number and nothing else.
fn telegraf(text: &str) -> ReadBond {
    let text = text.trim();
    let (of_bond, of_slaves) = text.split_at(text.find("Slave Interface:").unwrap_or(text.len()));
    let mut bond = ReadBond::default();
    let mut has_status = false;
    for line in of_bond.lines().map(fields).filter(|fields| fields.len() >= 2) {
        if line[0].contains("Currently Active Slave") {
            bond.active = Some(line[1].to_owned());
        } else if line[0].contains("MII Status") {
            bond.is_up = line[1] == "up";
            has_status = true;
            break;
        }
    }
    assert!(has_status, "no status of the bond in {text}");
    let mut slave = ReadSlave::default();
    for line in of_slaves.lines().map(fields).filter(|fields| fields.len() >= 2) {
        match line[0] {
            "Slave Interface" => slave = ReadSlave { name: line[1].to_owned(), ..ReadSlave::default() },
            "MII Status" => slave.is_up = line[1] == "up",
            "Link Failure Count" => {
                slave.failures = Some(line[1].parse().unwrap());
                bond.slaves.push(std::mem::take(&mut slave));
            }
            _ => {}
        }
    }
    bond
}

/// check_linux_bonding without sysfs: lines that begin with a title, a colon and one blank. A status is the bond's until
/// there is a slave.
fn check_linux_bonding(text: &str) -> ReadBond {
    let mut bond = ReadBond::default();
    let mut has_mode = false;
    for line in text.split_inclusive('\n') {
        let line = line.strip_suffix('\n').expect("the last character of a line is cut off");
        let value =
            |title: &str| line.strip_prefix(title)?.strip_prefix(": ").filter(|value| !value.is_empty());
        if value("Bonding Mode").is_some() {
            has_mode = true;
        } else if let Some(name) = value("Slave Interface") {
            bond.slaves.push(ReadSlave { name: name.to_owned(), ..ReadSlave::default() });
        } else if let Some(status) = value("MII Status") {
            match bond.slaves.last_mut() {
                Some(slave) => slave.is_up = status == "up",
                None => bond.is_up = status == "up",
            }
        } else if let Some(primary) = value("Primary Slave") {
            bond.primary = primary.split_whitespace().next().map(str::to_owned);
        } else if let Some(active) = value("Currently Active Slave") {
            bond.active = Some(active.to_owned());
        }
    }
    assert!(has_mode, "no mode in {text}");
    bond
}

/// Checkmk's section `lnx_bonding`: each line that is not empty is a key before its first colon; a slave begins with its name.
/// The mode ends where a parenthesis begins.
fn checkmk(text: &str) -> ReadBond {
    let blocks = text.lines().filter(|line| !line.is_empty()).fold(vec![Vec::new()], |mut blocks, line| {
        let (key, value) = line.split_once(':').expect("a line without a colon");
        if key.trim() == "Slave Interface" {
            blocks.push(Vec::new());
        }
        blocks.last_mut().unwrap().push((key.trim(), value.trim()));
        blocks
    });
    let find = |block: &[(&str, &str)], key: &str| {
        block.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned())
    };
    let (main, slaves) = blocks.split_first().unwrap();
    assert_eq!(find(main, "Bonding Mode").unwrap().split('(').next(), Some("fault-tolerance "));
    ReadBond {
        is_up: find(main, "MII Status").unwrap() == "up",
        active: find(main, "Currently Active Slave"),
        primary: find(main, "Primary Slave").and_then(|primary| primary.split(' ').next().map(str::to_owned)),
        slaves: slaves
            .iter()
            .map(|slave| ReadSlave {
                name: find(slave, "Slave Interface").unwrap(),
                is_up: find(slave, "MII Status").unwrap() == "up",
                failures: Some(find(slave, "Link Failure Count").unwrap().parse().unwrap()),
                permanent_mac: find(slave, "Permanent HW addr"),
            })
            .collect(),
    }
}

/// Facter's fact `macaddress`, and scripts with `grep -A`: the permanent address of a slave is in the lines after its name,
/// which are not interrupted by an empty one, and the MII status is in the first of these.
fn facter(text: &str) -> Vec<ReadSlave> {
    let slaves = text.split("\nSlave Interface: ").skip(1);
    let slave = |block: &str| {
        let lines: Vec<_> = block.lines().take_while(|line| !line.is_empty()).collect();
        let mac = lines.iter().find_map(|line| line.strip_prefix("Permanent HW addr: "));
        ReadSlave {
            name: lines[0].to_owned(),
            is_up: lines[1] == "MII Status: up",
            failures: None,
            permanent_mac: mac.map(str::to_owned),
        }
    };
    slaves.map(slave).collect()
}

/// What the bond is, for a reader that knows everything.
fn expected(bond: &Bond) -> ReadBond {
    let none = || Some("None".to_owned());
    let primary = bond.options["primary"].as_str().map(str::to_owned);
    let slave = |slave: &Slave| ReadSlave {
        name: slave.name.clone(),
        is_up: slave.mii_status == "up",
        failures: slave.link_failure_count,
        permanent_mac: Some(slave.permanent_mac.clone()),
    };
    ReadBond {
        is_up: bond.carrier,
        active: bond.active_slave.clone().or_else(none),
        primary: primary.or_else(none),
        slaves: bond.slaves.iter().map(slave).collect(),
    }
}

fn bonds() -> Vec<Bond> {
    let miimon = tests::miimon(FailOverMac::Active);
    let primary = BondOptions {
        primary: Some("slave1".into()),
        primary_reselect: PrimaryReselect::Failure,
        ..tests::miimon(FailOverMac::None)
    };
    let probes = BondOptions {
        arp_interval: 200,
        arp_ip_target: vec!["192.0.2.1".parse().unwrap()],
        ns_ip6_target: vec!["2001:db8::1".parse().unwrap()],
        ..BondOptions::default()
    };
    let unknown = Slave { speed: None, duplex: None, ..tests::slave(1, "going back", 12) };
    vec![
        tests::bond(miimon, Some("slave0"), vec![tests::slave(0, "up", 0), tests::slave(1, "down", 3)]),
        tests::bond(
            primary,
            Some("slave1"),
            vec![tests::slave(0, "going down", 1), tests::slave(1, "up", 7)],
        ),
        tests::bond(probes, None, vec![tests::slave(0, "down", 4_000_000_000), unknown]),
        tests::bond(tests::miimon(FailOverMac::None), None, Vec::new()),
    ]
}

#[test]
fn programs_for_the_drivers_bonds_read_what_they_need() {
    for bond in bonds() {
        let (text, all) = (show(&bond), expected(&bond));
        let without = |reduce: fn(&mut ReadSlave)| -> Vec<ReadSlave> {
            let mut bond = expected(&bond);
            bond.slaves.iter_mut().for_each(reduce);
            bond.slaves
        };
        assert_eq!(checkmk(&text), all, "{text}");
        let names = without(|slave| (slave.failures, slave.permanent_mac) = (None, None));
        assert_eq!(check_linux_bonding(&text), ReadBond { slaves: names, ..expected(&bond) }, "{text}");
        let failures = without(|slave| slave.permanent_mac = None);
        assert_eq!(telegraf(&text), ReadBond { primary: None, slaves: failures, ..all }, "{text}");
        assert_eq!(facter(&text), without(|slave| slave.failures = None), "{text}");
    }
}
