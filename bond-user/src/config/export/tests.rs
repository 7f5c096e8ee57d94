//! Tests of what is written, and of the way back.

use std::fs;

use bond_common::mac::Mac;
use bond_core::{
    name::{BondName, InterfaceName},
    options::{
        ArpAllTargets, ArpValidate, BondOptions, FailOverMac, PrimaryReselect, SlaveOptions, Unmonitored,
    },
};
use proptest::prelude::*;

use super::*;
use crate::config::{
    BondMac, Destination, Origin, Route,
    dialect::{self, Dialect},
};

const BOTH_WAYS: &[(Program, Dialect)] = &[
    (Program::Networkd, Dialect::Networkd),
    (Program::Netplan, Dialect::Netplan),
    (Program::Nm, Dialect::Nm),
    (Program::Ifupdown, Dialect::Ifupdown),
    (Program::Nmstate, Dialect::Nmstate),
];

fn config(bond: BondConfig) -> Config {
    Config { bonds: vec![bond], ..Config::default() }
}

/// Writes a bond as files, and reads them.
fn there_and_back(program: Program, dialect: Dialect, bond: &BondConfig) -> (Exported, BondConfig) {
    let exported = write(program, &config(bond.clone())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut path = directory.path().to_owned();
    for file in &exported.files {
        fs::write(directory.path().join(&file.name), &file.text).unwrap();
        if program == Program::Ifupdown {
            path = directory.path().join(&file.name);
        }
    }
    let read = dialect::read(dialect, &[path]);
    let again = read.unwrap_or_else(|error| panic!("{program}: {error}\n{}", exported.files[0].text));
    (exported, again.bonds.into_iter().next().unwrap())
}

/// The parts of a bond that files of other programs have; the order of routes and families does not matter.
fn comparable(bond: &BondConfig) -> BondConfig {
    let mut bond = BondConfig { notes: Vec::new(), origin: Origin::Flags, ..bond.clone() };
    bond.addresses.sort_by_key(|address| address.addr().is_ipv6());
    bond.routes.sort_by_key(|route| format!("{route:?}"));
    bond
}

prop_compose! {
    fn a_slave(name: &'static str, number: u8)(
        prio in prop_oneof![Just(0), any::<i32>()],
        queue_id in prop_oneof![Just(0), 1..16u16],
        hwaddr in prop::option::of(Just(Mac::new([8, 0, 0x27, 0, 0, number]))),
        mac in prop::option::of(Just(Mac::new([2, 0, 0, 0, 1, number]))),
        mtu in prop::option::of(1400..9000u32),
    ) -> SlaveConfig {
        let name = InterfaceName::new(name).unwrap();
        SlaveConfig { name, options: SlaveOptions { prio, queue_id, watch: None }, hwaddr, mac, mtu }
    }
}

prop_compose! {
    fn some_options()(
        monitor in 0..3u8,
        miimon in 1..1000u32,
        ticks in (0..4u32, 0..4u32, 0..4u32),
        grat in 0..5u8,
        policy in prop::sample::select(vec![FailOverMac::None, FailOverMac::Active, FailOverMac::Follow]),
        primary in prop::option::of(Just("eth1".to_owned())),
        reselect in prop::sample::select(vec![PrimaryReselect::Always, PrimaryReselect::Better, PrimaryReselect::Failure]),
        missed in 1..9u8,
        validate in prop::sample::select(vec![ArpValidate::None, ArpValidate::All, ArpValidate::Active, ArpValidate::Filter]),
        all_targets in any::<bool>(),
        ns in any::<bool>(),
        all_slaves_active in any::<bool>(),
        resend_igmp in 0..5u8,
    ) -> BondOptions {
        let common = BondOptions {
            num_grat_arp: grat, fail_over_mac: policy, primary, primary_reselect: reselect, all_slaves_active, resend_igmp,
            ..BondOptions::default()
        };
        match monitor {
            0 => common,
            1 => BondOptions {
                miimon, updelay: ticks.0 * miimon, downdelay: ticks.1 * miimon, peer_notif_delay: ticks.2 * miimon, ..common
            },
            _ => BondOptions {
                arp_interval: miimon,
                arp_ip_target: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
                ns_ip6_target: if ns { vec!["2001:db8::1".parse().unwrap()] } else { Vec::new() },
                arp_missed_max: missed,
                arp_validate: validate,
                arp_all_targets: if all_targets { ArpAllTargets::All } else { ArpAllTargets::Any },
                ..common
            },
        }
    }
}

prop_compose! {
    fn a_bond()(
        options in some_options(),
        slaves in (a_slave("eth0", 1), a_slave("eth1", 2)),
        swapped in any::<bool>(),
        mac in prop::option::of(Just(Mac::new([2, 0, 0, 0, 0, 1]))),
        mtu in prop::option::of(1400..9000u32),
        hosts in prop::collection::btree_set(3..99u8, 0..3),
        hosts6 in prop::collection::btree_set(3..99u8, 0..3),
        routes in prop::sample::subsequence(vec![0, 1, 2, 3, 4], 0..5),
        metric in prop::option::of(1..1000u32),
    ) -> BondConfig {
        let v4 = hosts.into_iter().map(|host| format!("192.0.2.{host}/24"));
        let v6 = hosts6.into_iter().map(|host| format!("2001:db8::{host}/64"));
        let to = |text: &str, via: Option<&str>| {
            let via = via.map(|via| via.parse().unwrap());
            Route { to: text.parse().unwrap(), via, metric }
        };
        let all = [
            to("default", Some("192.0.2.1")), to("default", Some("2001:db8::1")), to("10.0.0.0/8", Some("192.0.2.2")),
            to("198.51.100.0/24", None), to("2001:db8:1::/48", Some("fe80::1")),
        ];
        let mut slaves = vec![slaves.0, slaves.1];
        if swapped {
            slaves.reverse();
        }
        let is_monitored = options.is_monitored();
        BondConfig {
            slaves,
            mac: mac.map(BondMac::Address).filter(|_| options.fail_over_mac != FailOverMac::Active),
            mtu,
            addresses: v4.chain(v6).map(|address| address.parse().unwrap()).collect(),
            routes: routes.into_iter().map(|place: usize| all[place].clone()).collect(),
            allow_unmonitored: if is_monitored { Unmonitored::Refuse } else { Unmonitored::Allow },
            options,
            ..BondConfig::new(BondName::new("bond0").unwrap(), Origin::Flags)
        }
    }
}

/// Returns the bond without what a program cannot express.
fn sayable(program: Program, mut bond: BondConfig) -> BondConfig {
    let cannot: &[&str] = match program {
        Program::Networkd | Program::Netplan => &["prio", "queue_id"],
        Program::Nm | Program::Ip => &[],
        Program::Ifupdown => &["prio", "hwaddr"],
        Program::Nmstate => &["hwaddr", "mac"],
    };
    for slave in &mut bond.slaves {
        let is_said = |key: &str| !cannot.contains(&key);
        slave.options.prio *= i32::from(is_said("prio"));
        slave.options.queue_id *= u16::from(is_said("queue_id"));
        slave.hwaddr = slave.hwaddr.filter(|_| is_said("hwaddr"));
        slave.mac = slave.mac.filter(|_| is_said("mac"));
    }
    let (options, default) = (&mut bond.options, BondOptions::default());
    if matches!(program, Program::Networkd | Program::Netplan) && options.arp_validate == ArpValidate::Filter
    {
        options.arp_validate = ArpValidate::Backup;
    }
    if program != Program::Nm {
        options.ns_ip6_target = Vec::new();
    }
    if !matches!(program, Program::Nm | Program::Networkd) {
        options.peer_notif_delay = 0;
    }
    match program {
        Program::Netplan => {
            options.arp_missed_max = default.arp_missed_max;
            // Otherwise networkd makes an address.
            bond.mac = bond.mac.or_else(|| {
                (options.fail_over_mac != FailOverMac::Active).then_some(BondMac::Address(Mac::new([2; 6])))
            });
        }
        Program::Nm => {
            bond.slaves.sort_by(|a, b| a.name.cmp(&b.name));
            if bond.addresses.iter().all(|address| address.addr().is_ipv6()) {
                bond.routes.retain(Route::is_ipv6);
            }
        }
        Program::Ifupdown => {
            (options.resend_igmp, options.all_slaves_active) = (default.resend_igmp, false);
            (options.arp_all_targets, options.arp_missed_max) =
                (default.arp_all_targets, default.arp_missed_max);
            let has = |ipv6: bool| bond.addresses.iter().any(|address| address.addr().is_ipv6() == ipv6);
            bond.routes.retain(|route| route.to == Destination::Default && has(route.is_ipv6()));
        }
        Program::Networkd | Program::Nmstate | Program::Ip => {}
    }
    bond
}

#[test]
fn a_mac_of_a_slave_is_copied_by_nmstate_and_lost_elsewhere() {
    let slave = |name: &str| SlaveConfig::new(InterfaceName::new(name).unwrap());
    let mut bond = BondConfig::new(BondName::new("bond0").unwrap(), Origin::Flags);
    bond.options.miimon = 100;
    bond.slaves = vec![slave("eth0"), slave("eth1")];
    bond.mac = Some("eth1".parse().unwrap());
    let config = config(bond);
    for program in [Program::Networkd, Program::Netplan, Program::Nm, Program::Ifupdown, Program::Ip] {
        let notes = write(program, &config).unwrap().notes;
        let lost = format!("bond0: mac=eth1 is lost: {program} cannot express it");
        assert!(notes.contains(&lost), "{program}: {notes:?}");
    }
    let exported = write(Program::Nmstate, &config).unwrap();
    assert_eq!(exported.notes, [""; 0]);
    assert!(exported.files[0].text.contains("copy-mac-from: "), "{}", exported.files[0].text);
}

proptest! {
    #[test]
    fn what_a_dialect_can_say_reads_back(bond in a_bond()) {
        for (program, dialect) in BOTH_WAYS {
            let bond = sayable(*program, bond.clone());
            let (exported, again) = there_and_back(*program, *dialect, &bond);
            prop_assert_eq!(&exported.notes, &Vec::<String>::new(), "{}", program);
            prop_assert_eq!(comparable(&again), comparable(&bond), "{}: {}", program, exported.files[0].text);
        }
    }

    /// What is lost has a note, and the rest survives a second time.
    #[test]
    fn what_a_dialect_cannot_say_is_a_note(bond in a_bond()) {
        for (program, dialect) in BOTH_WAYS {
            let (exported, again) = there_and_back(*program, *dialect, &bond);
            prop_assert!(!exported.notes.is_empty() || comparable(&again) == comparable(&bond), "{}: {:?}", program, again);
        }
    }
}

fn full_bond() -> BondConfig {
    let slave = |name: &str, last: u8| SlaveConfig {
        options: SlaveOptions { prio: last.into(), queue_id: last.into(), watch: None },
        hwaddr: Some(Mac::new([8, 0, 0x27, 0, 0, last])),
        mac: Some(Mac::new([2, 0, 0, 0, 1, last])),
        mtu: Some(9000),
        ..SlaveConfig::new(InterfaceName::new(name).unwrap())
    };
    let options = [
        ("mode", "1"),
        ("miimon", "100"),
        ("updelay", "200"),
        ("peer_notif_delay", "300"),
        ("num_grat_arp", "3"),
        ("fail_over_mac", "follow"),
        ("primary", "eth1"),
        ("primary_reselect", "failure"),
        ("all_slaves_active", "1"),
        ("resend_igmp", "2"),
        ("min_links", "1"),
    ];
    let (options, _) = BondOptions::from_pairs(options, Unmonitored::Refuse).unwrap();
    BondConfig {
        slaves: vec![slave("eth1", 2), slave("eth0", 1)],
        options,
        addresses: vec!["192.0.2.10/24".parse().unwrap(), "2001:db8::10/64".parse().unwrap()],
        routes: vec![
            Route { to: Destination::Default, via: "192.0.2.1".parse().ok(), metric: Some(50) },
            Route { to: "198.51.100.0/24".parse().unwrap(), via: None, metric: None },
        ],
        mac: Some(BondMac::Address(Mac::new([2, 0, 0, 0, 0, 1]))),
        mtu: Some(9000),
        prearm: true,
        ..BondConfig::new(BondName::new("bond0").unwrap(), Origin::Flags)
    }
}

#[test]
fn a_full_bond_is_written_for_each_program() {
    let programs =
        [Program::Networkd, Program::Netplan, Program::Nm, Program::Ifupdown, Program::Nmstate, Program::Ip];
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects/export"));
    settings.bind(|| {
        for program in programs {
            let exported = write(program, &config(full_bond())).unwrap();
            let notes = exported.notes.iter().map(|note| format!("# {note}\n"));
            let files = exported.files.iter().map(|file| format!("## {}\n{}", file.name, file.text));
            insta::assert_snapshot!(program.to_string(), notes.chain(files).collect::<String>());
        }
    });
}

#[test]
fn a_name_that_means_something_else_in_files_is_refused() {
    for name in ["a*", "-a", "a\"b", "a;b", "a$b", "\u{e9}", "a#b"] {
        let bond = BondConfig::new(BondName::new(name).unwrap(), Origin::Flags);
        assert_eq!(write(Program::Ip, &config(bond)), Err(UnsafeName { name: name.to_owned() }));
    }
}
