//! Tests of reading ifcfg files.

use std::fs;

use bond_core::{
    name::BondName,
    options::{BondOptions, FailOverMac},
};
use ipnet::IpNet;
use proptest::prelude::*;
use tempfile::TempDir;

use super::routes::routes_in;
use super::*;
use crate::config::{Destination, Route, SlaveConfig};

const BOND: &str = "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS='mode=1 miimon=100'\n";
/// A pattern of nearly valid lines.
const VARIABLE: &str = "(IPADDR|PREFIX|GATEWAY|MTU|IPV6ADDR|BONDING_OPTS)[0-9]?=['\"]?[a-z0-9./:= ]*['\"]?\n";
const SLAVE: &str = "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\n";

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn read_files(files: &[(&str, &str)]) -> Config {
    let directory = directory(files);
    read(directory.path(), Unmonitored::Refuse).unwrap()
}

/// Returns the error text, without the directory's name.
fn refusal(files: &[(&str, &str)]) -> String {
    let directory = directory(files);
    let error = read(directory.path(), Unmonitored::Refuse).expect_err(files[0].1).to_string();
    error.replace(&format!("{}/", directory.path().display()), "")
}

fn bond_with(lines: &str) -> BondConfig {
    let text = format!("{BOND}{lines}");
    read_files(&[("ifcfg-bond0", &text), ("ifcfg-eth0", SLAVE)]).bonds.remove(0)
}

fn names(config: &Config) -> Vec<&str> {
    config.bonds[0].slaves.iter().map(|slave| slave.name.as_str()).collect()
}

#[test]
fn the_scenario_runs_as_it_is() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/scenario");
    for (name, policy) in
        [("none", FailOverMac::None), ("active", FailOverMac::Active), ("follow", FailOverMac::Follow)]
    {
        let config = read(&fixtures.join(name), Unmonitored::Refuse).unwrap();
        let origin = Origin::File { path: fixtures.join(name).join("ifcfg-bond0"), line: None };
        let expected = BondConfig {
            slaves: vec![SlaveConfig::named("enp0s8"), SlaveConfig::named("enp0s9")],
            options: BondOptions { miimon: 100, fail_over_mac: policy, ..BondOptions::default() },
            addresses: vec!["192.168.99.101/24".parse().unwrap()],
            ..BondConfig::new(BondName::new("bond0").unwrap(), origin)
        };
        assert_eq!(config, Config { bonds: vec![expected], ..Config::default() }, "{name}");
    }
}

#[test]
fn slaves_are_those_that_initscripts_would_enslave_in_their_order() {
    let slave = |device: &str, slave: &str| format!("DEVICE={device}\nMASTER=bond0\nSLAVE={slave}\n");
    let config = read_files(&[
        ("ifcfg-bond0", BOND),
        ("ifcfg-eth9", &slave("eth9", "Yes")),
        ("ifcfg-eth10", &slave("eth10", "t")),
        ("ifcfg-a", &slave("eth8", "1")),
        ("ifcfg-onboot", &format!("{}ONBOOT=no", slave("eth7", "on"))),
        ("ifcfg-no", &slave("eth1", "no")),
        ("ifcfg-unset", &slave("eth2", "")),
        ("ifcfg-plain", "DEVICE=eth3\nIPADDR=$(which one)\n"),
        ("ifcfg-x~", &slave("eth4", "yes")),
        ("ifcfg-x.bak", &slave("eth4", "yes")),
        ("ifcfg-x.rpmsave", &slave("eth4", "yes")),
        ("not-ifcfg-x", &slave("eth4", "yes")),
    ]);
    assert_eq!(names(&config), ["eth8", "eth10", "eth9", "eth7"]);
    let Some(Note::Skipped { origin, why }) = config.notes.first() else { panic!("{:?}", config.notes) };
    assert!(origin.to_string().ends_with("ifcfg-plain:2"));
    assert_eq!(why, "$(which one): files are read, not run; write the value itself");
    let without_slave = &config.notes[1..];
    assert!(without_slave.iter().all(|note| note.text().starts_with("MASTER=bond0 without SLAVE=yes")));
    assert_eq!(without_slave.len(), 2, "{without_slave:?}");
}

#[test]
fn every_sign_of_a_bond_file_is_recognised() {
    for text in [
        "DEVICE=bond0\nTYPE=bond\nBONDING_OPTS=\"mode=active-backup miimon=100\"",
        "DEVICE=bond0\nTYPE=Ethernet\nBONDING_OPTS=\"mode=active-backup miimon=100\"",
        "DEVICE=bond0\nBONDING_MASTER=yes\nBONDING_OPTS=\"mode=active-backup miimon=100\"",
    ] {
        let config = read_files(&[("ifcfg-x", text), ("ifcfg-eth0", SLAVE)]);
        assert_eq!((config.bonds[0].name.as_str(), names(&config)), ("bond0", vec!["eth0"]), "{text}");
    }
}

#[test]
fn bonding_opts_split_as_in_initscripts() {
    let options = |text: &str| bond_with(&format!("BONDING_OPTS=\"{text}\"\n")).options;
    let monitored = BondOptions { miimon: 100, ..BondOptions::default() };
    // The later assignment wins.
    assert_eq!(options("mode=1 miimon=100 updelay=200"), BondOptions { updelay: 200, ..monitored.clone() });
    assert_eq!(options("updelay=200\n miimon=100 \\\n mode=1").updelay, 200);
    assert_eq!(options("mode=x=1 miimon=100 primary=eth0").primary.as_deref(), Some("eth0"));
    let arp = options("mode=1 miimon=100 arp_interval=200 arp_ip_target=+192.0.2.1 arp_ip_target=+192.0.2.2");
    assert_eq!((arp.miimon, arp.arp_interval, arp.arp_ip_target.len()), (0, 200, 2));
}

#[test]
fn keys_of_a_bond_file_are_read() {
    let bond = bond_with(
        "MTU=9000\nMACADDR=02:00:00:00:00:01\nIPADDR=192.0.2.10\nNETMASK=255.255.255.0\nPREFIX=\n\
         IPADDR1=198.51.100.1\nPREFIX1=25\nIPADDR2=203.0.113.1\nPREFIX2=32\nIPADDR4=192.0.2.99\n\
         GATEWAY=192.0.2.1\nMETRIC=100\n\
         IPV6ADDR=2001:db8::10/64\nIPV6ADDR_SECONDARIES='2001:db8::11/64 2001:db8::12/64'\n\
         IPV6_DEFAULTGW=fe80::1%bond0\n",
    );
    assert_eq!((bond.mtu, bond.mac), (Some(9000), "02:00:00:00:00:01".parse().ok()));
    let addresses: Vec<_> = bond.addresses.iter().map(IpNet::to_string).collect();
    assert_eq!(
        addresses,
        [
            "192.0.2.10/24",
            "198.51.100.1/25",
            "203.0.113.1/32",
            "2001:db8::10/64",
            "2001:db8::11/64",
            "2001:db8::12/64"
        ]
    );
    let default = |via: &str, metric| Route { to: Destination::Default, via: via.parse().ok(), metric };
    assert_eq!(bond.routes, [default("192.0.2.1", Some(100)), default("fe80::1", None)]);
}

#[test]
fn a_gateway_is_a_default_route_only_where_initscripts_make_it_one() {
    let routes = |lines: &str| {
        let bond = bond_with(&format!("IPADDR=192.0.2.10\nPREFIX=24\n{lines}"));
        (bond.routes.len(), bond.notes.len())
    };
    assert_eq!(routes("GATEWAY=192.0.2.1"), (1, 0));
    assert_eq!(routes("GATEWAY=192.0.2.1\nDEFROUTE=no"), (0, 0));
    assert_eq!(routes("GATEWAY=192.0.2.1\nGATEWAYDEV=eth5"), (0, 0));
    assert_eq!(routes("GATEWAY=192.0.2.1\nGATEWAYDEV=bond0"), (1, 0));
    assert_eq!(routes("GATEWAY=198.51.100.1"), (0, 1));
    assert_eq!(routes("IPV6_DEFAULTGW=fe80::1\nIPV6INIT=no"), (0, 0));
    assert_eq!(routes("IPV6_DEFAULTGW=fe80::1%eth5"), (0, 0));
}

#[test]
fn keys_of_a_slave_file_are_read() {
    let text = format!("{SLAVE}HWADDR=08:00:27:E8:26:58\nMACADDR=02:00:00:00:00:01\nMTU=1400\n");
    let config = read_files(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", &text)]);
    let expected = SlaveConfig {
        hwaddr: "08:00:27:e8:26:58".parse().ok(),
        mac: "02:00:00:00:00:01".parse().ok(),
        mtu: Some(1400),
        ..SlaveConfig::named("eth0")
    };
    assert_eq!(config.bonds[0].slaves, [expected]);
}

#[test]
fn static_routes_are_read_from_files_of_their_own() {
    let lines =
        "# comment\n10.0.0.0/8 via 192.0.2.1 dev bond0 metric 5 # trailing\n198.51.100.7 via 192.0.2.2\n";
    let numbered = "ADDRESS0=10.0.0.0\nNETMASK0=255.0.0.0\nGATEWAY0=192.0.2.1\nADDRESS1=198.51.100.7\n";
    let routes = |name: &str, text: &str| {
        let config = read_files(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", SLAVE), (name, text)]);
        let routes = config.bonds[0].routes.iter();
        let shown =
            routes.map(|route| (route.to.to_string(), route.via.map(|via| via.to_string()), route.metric));
        shown.collect::<Vec<_>>()
    };
    let to = |to: &str, via: Option<&str>, metric| (to.to_owned(), via.map(str::to_owned), metric);
    assert_eq!(
        routes("route-bond0", lines),
        [to("10.0.0.0/8", Some("192.0.2.1"), Some(5)), to("198.51.100.7/32", Some("192.0.2.2"), None)]
    );
    assert_eq!(
        routes("route-bond0", numbered),
        [to("10.0.0.0/8", Some("192.0.2.1"), None), to("198.51.100.7/32", None, None)]
    );
    assert_eq!(routes("route6-bond0", "default via fe80::1"), [to("default", Some("fe80::1"), None)]);
    assert_eq!(routes("route-bond1", "default via 192.0.2.1"), []);

    let with_file = |name, text| refusal(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", SLAVE), (name, text)]);
    assert_eq!(
        with_file("route-bond0", "\n10.0.0.0/8 via 192.0.2.1 table 5"),
        "route-bond0:2: 10.0.0.0/8 via 192.0.2.1 table 5: not a route that xbond sets; it reads PREFIX \
         via GATEWAY dev DEVICE metric NUMBER"
    );
    assert_eq!(
        with_file("rule-bond0", "from 192.0.2.1 table 5"),
        "rule-bond0: a rule file: xbond sets no rules of policy routing; move it away, and set them once \
         the bond is up"
    );
}

/// A host's address by DHCP, and a bridge above the bond, are nothing that a bond consists of.
#[test]
fn an_import_reports_what_xbond_does_not_do() {
    for line in ["BOOTPROTO=dhcp", "BRIDGE=br0", "OVS_BRIDGE=br0", "DHCPV6C=yes"] {
        let text = format!("{BOND}{line}\n");
        let directory = directory(&[("ifcfg-bond0", &text), ("ifcfg-eth0", SLAVE)]);
        let found = import(directory.path()).unwrap();
        assert_eq!(found.bonds[0].slaves.len(), 1, "{line}");
        let noted = found.notes.iter().any(|note| note.to_string().contains(&format!("{line}: xbond")));
        assert!(noted, "{line}: {:?}", found.notes);
        assert!(read(directory.path(), Unmonitored::Refuse).is_err(), "{line}");
    }
}

// One thing: a table, with a row for each refusal.
#[test]
fn refusals_name_file_line_and_remedy() {
    let table = [
        (
            "BOOTPROTO=dhcp",
            "BOOTPROTO=dhcp: xbond sets fixed addresses only; write IPADDR and PREFIX, or BOOTPROTO=none \
             and run a DHCP client on the bond",
        ),
        (
            "BRIDGE=br0",
            "BRIDGE=br0: xbond does not put a bond into a bridge; remove it, and do so once the bond is \
             up",
        ),
        ("VLAN=yes", "VLAN=yes: xbond makes no VLAN devices; remove it"),
        ("MASTER=bond1\nSLAVE=yes", "MASTER=bond1: a bond cannot be a slave of another bond"),
        ("IPADDR=192.0.2.1", "IPADDR=192.0.2.1: has neither PREFIX nor NETMASK; write PREFIX"),
        ("IPADDR=192.0.2.256", "IPADDR = 192.0.2.256: not an IPv4 address"),
        ("PREFIX=33\nIPADDR=192.0.2.1", "PREFIX = 33: not a number from 0 to 32"),
        ("NETMASK=255.0.255.0\nIPADDR=192.0.2.1", "NETMASK = 255.0.255.0: not a netmask like 255.255.255.0"),
        ("MTU=big", "MTU = big: not a number of bytes"),
        ("IPADDR=$IP", "$IP: files are read, not run; write the value itself"),
        (
            "BONDING_OPTS='miimon=100'",
            "no mode in BONDING_OPTS, which means balance-rr; xbond does active-backup: write \
             mode=active-backup",
        ),
        ("BONDING_OPTS='mode=1,miimon=100'", "mode=1,miimon=100: options stand between blanks, not commas"),
        ("BONDING_OPTS='mode=4 miimon=100'", "mode=4: xbond does active-backup (1) only"),
        (
            "BONDING_OPTS='mode=1'",
            "miimon=0: the kernel accepts this and then never fails over; set miimon=100, or allow it \
             with allow_unmonitored = true / --allow-unmonitored",
        ),
        ("BONDING_OPTS='mode=1 mimon=100'", "mimon: no such option; did you mean miimon?"),
        (
            "BONDING_OPTS='mode=1 miimon=100 arp_interval=100'",
            "arp_interval=100: nothing to probe; set arp_ip_target or ns_ip6_target",
        ),
    ];
    for (lines, said) in table {
        let text = format!("{BOND}{lines}\n");
        assert_eq!(
            refusal(&[("ifcfg-bond0", &text), ("ifcfg-eth0", SLAVE)]),
            format!("ifcfg-bond0:4: {said}")
        );
    }

    let slaves = [
        ("VLAN=yes", "4: VLAN=yes: xbond makes no VLAN devices; remove it"),
        ("TYPE=InfiniBand", "4: TYPE=InfiniBand: xbond enslaves Ethernet devices only"),
        ("MASTER=bond9", "4: MASTER=bond9: no ifcfg file of this directory is that bond's"),
        ("HWADDR=08:00", "4: HWADDR = 08:00: not a MAC address of the form 08:00:27:e8:26:58"),
        ("DEVICE=", "4: no DEVICE, and xbond goes by it"),
    ];
    for (lines, said) in slaves {
        let text = format!("{SLAVE}{lines}\n");
        assert_eq!(refusal(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", &text)]), format!("ifcfg-eth0:{said}"));
    }
    assert_eq!(
        refusal(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", SLAVE), ("ifcfg-eth1", SLAVE)]),
        "ifcfg-bond0: bond0: slave eth0 is named twice"
    );
    assert!(
        refusal(&[("ifcfg-eth0", "DEVICE=eth0\n")]).ends_with("no bond in the ifcfg files of this directory")
    );
}

#[test]
fn suse_files_are_read_like_red_hat_files() {
    let bond0 = "STARTMODE=auto\nBOOTPROTO=static\nIPADDR='192.168.0.101/24'\nIPADDR_2=10.0.0.1\nPREFIXLEN_2=8\n\
                 BONDING_MASTER=yes\nBONDING_MODULE_OPTS='mode=active-backup miimon=100'\n\
                 BONDING_SLAVE_1=eth1\nBONDING_SLAVE0='eth10'\nBONDING_SLAVE2=eth2\nLLADDR=02:00:00:00:00:07\n";
    let config = read_files(&[
        ("ifcfg-bond0", bond0),
        ("ifcfg-eth10", "BOOTPROTO=none\nSTARTMODE=hotplug\n"),
        ("ifcfg-vlan5", "ETHERDEVICE=bond0\nVLAN_ID=5\n"),
        ("ifroute-bond0", "172.16.0.0 10.0.0.2 255.240.0.0 -\n"),
        ("routes", "default 192.168.0.1 - -\n192.0.2.0/24 198.51.100.1 - eth7\n"),
    ]);
    assert_eq!(names(&config), ["eth10", "eth1", "eth2"]);
    let bond = &config.bonds[0];
    assert_eq!((bond.options.miimon, bond.mac.clone()), (100, "02:00:00:00:00:07".parse().ok()));
    let addresses: Vec<_> = bond.addresses.iter().map(IpNet::to_string).collect();
    assert_eq!(addresses, ["192.168.0.101/24", "10.0.0.1/8"]);
    let routes: Vec<_> =
        bond.routes.iter().map(|route| format!("{} via {:?}", route.to, route.via)).collect();
    assert_eq!(routes, ["172.16.0.0/12 via Some(10.0.0.2)", "default via Some(192.168.0.1)"]);
    assert!(
        matches!(&config.notes[..], [Note::VlanAbove { vlan, .. }] if vlan == "vlan5"),
        "{:?}",
        config.notes
    );

    let table = [
        ("BONDING_MODULE_OPTS='mode=4'", "ifcfg-bond0:2: mode=4: xbond does active-backup (1) only"),
        (
            "BONDING_MODULE_OPTS='mode=1 miimon=9'\nIPADDR=10.0.0.1",
            "ifcfg-bond0:3: IPADDR=10.0.0.1: has neither a prefix length nor NETMASK; write it as 192.0.2.1/24",
        ),
        (
            "BONDING_MODULE_OPTS='mode=1 miimon=9'\nIPADDR=10.0.0.1/99",
            "ifcfg-bond0:3: IPADDR = 10.0.0.1/99: not an address with its prefix length, like 192.0.2.1/24",
        ),
    ];
    for (lines, said) in table {
        assert_eq!(refusal(&[("ifcfg-bond0", &format!("BONDING_SLAVE0=eth0\n{lines}\n"))]), said);
    }
}

#[test]
fn keys_without_effect_are_reported() {
    let bond1 = "DEVICE=bond1\nTYPE=Bond\nONBOOT=no\nBOOTPROTO=dhcp\nBONDING_OPTS='mode=4'\n";
    let slave1 = "DEVICE=eth1\nMASTER=bond1\nSLAVE=yes\n";
    let slave0 = format!("{SLAVE}ETHTOOL_OPTS='speed 1000'\n");
    let config = read_files(&[
        ("ifcfg-bond0", BOND),
        ("ifcfg-bond1", bond1),
        ("ifcfg-eth0", &slave0),
        ("ifcfg-eth1", slave1),
    ]);
    assert_eq!((config.bonds.len(), names(&config)), (1, vec!["eth0"]));
    let said: Vec<_> = config.notes.iter().map(Note::to_string).collect();
    let said: Vec<_> = said.iter().filter_map(|note| Some(note.rsplit_once('/')?.1)).collect();
    assert_eq!(
        said,
        ["ifcfg-bond1:3: ONBOOT=no: bond1 is left out", "ifcfg-eth0:4: ETHTOOL_OPTS is not applied by xbond"]
    );
}

#[test]
fn a_bond_without_monitor_is_read_when_allowed() {
    let text = "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS=mode=1\n";
    let directory = directory(&[("ifcfg-bond0", text), ("ifcfg-eth0", SLAVE)]);
    let config = read(directory.path(), Unmonitored::Allow).unwrap();
    let unmonitored = bond_core::options::Note::Unmonitored;
    assert_eq!(config.bonds[0].notes, [Note::Option { bond: "bond0".to_owned(), note: unmonitored }]);
}

#[test]
fn imported_files_are_equivalent_in_toml() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/scenario/follow");
    let config = read(&fixtures, Unmonitored::Refuse).unwrap();
    let text = super::super::toml::write(&config);
    assert_eq!(
        text,
        "version = 1\n\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n\
         fail_over_mac = \"follow\"\naddresses = [\"192.168.99.101/24\"]\n"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        noise in "(?s).*",
        lines in prop::collection::vec(VARIABLE, 0..6),
    ) {
        let _ = routes_in(Path::new("x"), &noise, "bond0");
        for text in [noise, format!("{BOND}{}", lines.concat())] {
            if let Ok(file) = Ifcfg::parse(Path::new("x"), &text) {
                let _ = file.bond("bond0", Unmonitored::Allow);
                let _ = file.slave();
            }
        }
    }
}
