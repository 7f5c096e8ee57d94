//! Tests of reading and writing TOML files.

use std::fs;

use bond_common::mac::Mac;
use bond_core::{
    name::BondName,
    options::{BondOptions, FailOverMac, Unmonitored},
};
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::config::{
    Datapath, Destination, Guard, HostMac, MTU_RANGE, Note, OnExit, Pair, Route, SlaveConfig,
};

/// A pattern of values of every type.
const VALUE: &str =
    "-?[0-9]{1,25}|0x[0-9a-f]{1,20}|\"[^\"\\\\]*\"|\\[\"[a-z0-9.,/]*\"\\]|true|1e9|1979-05-27";

fn read_text(text: &str) -> Result<Config, ConfigError> {
    let config = parse(Path::new("a.toml"), text)?;
    config.check()?;
    Ok(config)
}

fn refusal(text: &str) -> String {
    read_text(text).expect_err(text).to_string()
}

/// Returns a bond of a valid configuration, followed by these lines.
fn bond_with(lines: &str) -> String {
    format!("version = 1\n[bond.bond0]\nslaves = [\"a\", \"b\"]\nmiimon = 100\n{lines}")
}

// One thing: a file with every key, and what it means.
#[test]
fn every_key_is_read() {
    let config = read_text(
        r#"
        version = 1
        [bond.bond0]
        slaves = ["enp0s8", "enp0s9"]
        fail_over_mac = "follow"
        miimon = 100
        updelay = "200"
        primary = "enp0s9"
        mac = "02:00:00:00:00:01"
        addresses = ["192.168.99.101/24", "2001:db8::1/64"]
        routes = [{ to = "default", via = "192.168.99.1", metric = 100 }, { to = "10.0.0.0/8" }]
        mtu = 9000
        datapath = "xdp-generic"
        pair = "veth"
        on_exit = "keep"
        guard = "off"
        prearm = true
        [bond.bond0.slave.enp0s9]
        prio = -10
        queue_id = 2
        hwaddr = "08:00:27:27:a9:2d"
        mac = "02:00:00:00:00:02"
        mtu = 1500
        [bond.wire]
        slaves = []
        port = "eth3"
        host_mac = "02:00:00:00:00:03"
        allow_unmonitored = true
        "#,
    )
    .unwrap();

    let [bond, wire] = &config.bonds[..] else { panic!("{config:?}") };
    let names: Vec<_> = bond.slaves.iter().map(|slave| slave.name.as_str()).collect();
    assert_eq!((bond.name.as_str(), names), ("bond0", vec!["enp0s8", "enp0s9"]));
    let expected = BondOptions {
        fail_over_mac: FailOverMac::Follow,
        miimon: 100,
        updelay: 200,
        primary: Some("enp0s9".to_owned()),
        ..BondOptions::default()
    };
    assert_eq!(bond.options, expected);
    assert_eq!(bond.mac, "02:00:00:00:00:01".parse().ok());
    assert_eq!(
        bond.addresses.iter().map(IpNet::to_string).collect::<Vec<_>>(),
        ["192.168.99.101/24", "2001:db8::1/64"]
    );
    let default = Route { to: Destination::Default, via: "192.168.99.1".parse().ok(), metric: Some(100) };
    let on_link = Route { to: Destination::Prefix("10.0.0.0/8".parse().unwrap()), via: None, metric: None };
    assert_eq!(bond.routes, [default, on_link]);
    assert_eq!((bond.mtu, bond.datapath, bond.on_exit), (Some(9000), Datapath::XdpGeneric, OnExit::Keep));
    assert_eq!((bond.pair, config.bonds[1].pair), (Pair::Veth, Pair::Auto));
    assert_eq!((bond.guard, bond.prearm, config.bonds[1].prearm), (Guard::Off, true, false));
    assert_eq!(bond.slaves[0], SlaveConfig::named("enp0s8"));
    let slave = SlaveConfig {
        options: SlaveOptions { prio: -10, queue_id: 2, watch: None },
        hwaddr: "08:00:27:27:a9:2d".parse().ok(),
        mac: "02:00:00:00:00:02".parse().ok(),
        mtu: Some(1500),
        ..SlaveConfig::named("enp0s9")
    };
    assert_eq!(bond.slaves[1], slave);
    assert_eq!((wire.port.as_deref(), wire.allow_unmonitored), (Some("eth3"), Unmonitored::Allow));
    assert_eq!(wire.host_mac, Some(HostMac::Address(Mac::new([2, 0, 0, 0, 0, 3]))));
    let unmonitored = Note::Option { bond: "wire".to_owned(), note: options::Note::Unmonitored };
    assert_eq!(wire.notes, [unmonitored]);
}

// One thing: a table, with a row for each refusal.
#[test]
fn refusals_name_file_line_and_remedy() {
    let table = [
        ("", "a.toml: no version; write version = 1 at the top"),
        ("\nversion = 2", "a.toml:2: version = 2: this xbond reads version 1"),
        ("version = 1\nbonds = 1", "a.toml:2: bonds: no such key in the file; did you mean bond?"),
        ("version = 1\nbond = 3", "a.toml:2: bond: an integer where a table is wanted"),
        (
            "version = 1\n[agent]\nreaders = \"x\"",
            "a.toml:3: readers: no such key in agent; there are: writers, metrics, textfile, proc_files",
        ),
        ("version = 1\n[agent]\nwriters = 4", "a.toml:3: writers: an integer where text is wanted"),
    ];
    for (text, said) in table {
        assert_eq!(refusal(text), said);
    }

    let in_bond = [
        ("failover_mac = 1", "a.toml:5: failover_mac: no such key in bond0; did you mean fail_over_mac?"),
        ("adresses = []", "a.toml:5: adresses: no such key in bond0; did you mean addresses?"),
        (
            "fail_over_mac = \"foo\"",
            "a.toml:5: fail_over_mac=foo: not a value; allowed: none (0), active (1), follow (2)",
        ),
        ("updelay = -1", "a.toml:5: updelay=-1: not a value; allowed: 0 to 2147483647 ms"),
        ("updelay = 1.5", "a.toml:5: updelay: a number with a fraction where text or an integer is wanted"),
        ("primary = [\"a\"]", "a.toml:5: primary: a list where text or an integer is wanted"),
        ("\nlacp_rate = 1", "a.toml:6: lacp_rate: an option of 802.3ad; xbond does active-backup (1) only"),
        ("mode = 4", "a.toml:5: mode=4: xbond does active-backup (1) only"),
        (
            "arp_ip_target = [\"192.0.2.1\"]",
            "a.toml:2: bond0: arp_ip_target: never probed while arp_interval is 0; set arp_interval, or \
             remove arp_ip_target",
        ),
        (
            "addresses = [\"192.0.2.1\"]",
            "a.toml:5: addresses = 192.0.2.1: not an address with its prefix length, like 192.0.2.1/24",
        ),
        ("addresses = [\"0.0.0.0/8\"]", "a.toml:2: 0.0.0.0/8: not an address that a host can have"),
        ("routes = [{ via = \"192.0.2.1\" }]", "a.toml:5: no to, and xbond goes by it"),
        (
            "routes = [{ to = \"10.0.0.1/8\" }]",
            "a.toml:2: route to 10.0.0.1/8: has bits beyond its prefix length; 10.0.0.0/8 is meant",
        ),
        (
            "routes = [{ to = \"10.0.0.0/8\", via = \"fd00::1\" }]",
            "a.toml:2: route to 10.0.0.0/8 via fd00::1: IPv4 and IPv6 cannot be mixed",
        ),
        ("mtu = 67", "a.toml:2: mtu = 67: not an MTU; allowed: 68 to 65535 bytes"),
        ("mtu = -1", "a.toml:5: mtu = -1: not a number of bytes"),
        (
            "mac = \"8:0\"",
            "a.toml:5: mac = 8:0: not a MAC address of the form 08:00:27:e8:26:58, or the name of a slave",
        ),
        (
            "mac = \"eth7\"",
            "a.toml:2: bond0: mac = eth7: not a slave of bond0; name one of its slaves, or a MAC address of the form \
             08:00:27:e8:26:58",
        ),
        (
            "mac = \"01:00:5e:00:00:01\"",
            "a.toml:2: mac = 01:00:5e:00:00:01: not the address of one station; it is zero or a group",
        ),
        (
            "mac = \"02:00:00:00:00:01\"\nfail_over_mac = 1",
            "a.toml:2: bond0: mac has no meaning with fail_over_mac=active: the bond has its active \
             slave's MAC",
        ),
        ("datapath = \"ebpf\"", "a.toml:5: datapath = ebpf: not one of auto, tc, xdp, xdp-generic"),
        ("pair = \"tun\"", "a.toml:5: pair = tun: not one of auto, netkit, veth"),
        (
            "pair = \"netkit\"\ndatapath = \"xdp\"",
            "a.toml:2: bond0: pair=netkit carries no datapath=xdp, which takes a veth pair; leave one of the two \
             out",
        ),
        (
            "port = \"eth3\"\npair = \"veth\"",
            "a.toml:2: bond0: pair cannot be set together with port, which is there already: no pair is made",
        ),
        (
            "damping = {}",
            "a.toml:5: damping = : not half_life, suppress, reuse and max, as half_life=15,suppress=3, or off (it is empty)",
        ),
        (
            "damping = \"max=70,max=70\"",
            "a.toml:5: damping = max=70,max=70: not half_life, suppress, reuse and max, as half_life=15,suppress=3, or off \
             (max is given twice)",
        ),
        (
            "damping = \"max=70,\"",
            "a.toml:5: damping = max=70,: not half_life, suppress, reuse and max, as half_life=15,suppress=3, or off \
             (\"\": not KEY=VALUE with a key of half_life, suppress, reuse, max)",
        ),
        (
            "\ndamping={\"half_life=4,suppress\"=3}",
            "a.toml:6: half_life=4,suppress: no such key in damping; there are: half_life, suppress, reuse, max",
        ),
        (
            "damping={\"\"=3}",
            "a.toml:5: : no such key in damping; there are: half_life, suppress, reuse, max",
        ),
        ("guard = \"on\"", "a.toml:5: guard = on: not one of auto, off"),
        (
            "prearm = true",
            "a.toml:2: bond0: prearm is for fail_over_mac=follow, where the bond's MAC moves from NIC to NIC; leave it \
             out",
        ),
        ("on_exit = \"stay\"", "a.toml:5: on_exit = stay: not one of down, keep"),
        (
            "host_mac = \"02:00:00:00:00:01\"\nmac = \"02:00:00:00:00:02\"",
            "a.toml:2: bond0: mac and host_mac both name the bond's MAC address; remove one, or set host_mac=stable",
        ),
        (
            "host_mac = \"stable\"\nport = \"eth3\"",
            "a.toml:2: bond0: host_mac=stable is for a bond0 that xbond makes; with port, set the MAC address of the host \
             behind it, or leave host_mac out to have it learned",
        ),
        (
            "host_mac = \"fixed\"",
            "a.toml:5: host_mac = fixed: not a MAC address of the form 08:00:27:e8:26:58, or stable",
        ),
        (
            "port = \"eth3\"\nmtu = 1500",
            "a.toml:2: bond0: mtu cannot be set together with port: the host behind the port has its own",
        ),
        ("port = \"a\"", "a.toml:2: a is a slave of bond0 and the port of bond0; it can be only one"),
        ("port = \"lo\"", "a.toml:2: \"lo\" cannot be an interface here: it is the loopback device"),
        (
            "[bond.bond0.slave.c]\nprio = 1",
            "a.toml:5: slave c has a table, but is not in slaves = [...] of bond0",
        ),
        (
            "[bond.bond0.slave.a]\nprio = 1\nspeed = 2",
            "a.toml:7: speed: no such key in slave a; there are: hwaddr, mac, mtu, prio, queue_id, watch",
        ),
        (
            "[bond.bond0.slave.a]\nprio = \"high\"",
            "a.toml:6: prio=high: not a value; allowed: -2147483648 to 2147483647",
        ),
        (
            "[bond.bond1]\nslaves = [\"b\"]\nmiimon = 100",
            "a.toml:5: b is a slave of bond0 and a slave of bond1; it can be only one",
        ),
        ("miimon = 50", "a.toml:5: duplicate key"),
    ];
    for (lines, said) in in_bond {
        assert_eq!(refusal(&bond_with(lines)), said);
    }

    let names = [
        ("\"\"", "is empty"),
        ("\"..\"", "is a directory"),
        ("\"a b\"", "contains white space"),
        ("\"a/b\"", "contains '/'"),
        ("\"a:b\"", "contains ':'"),
        ("abcdefghijklmnop", "is longer than 15 bytes"),
    ];
    for (name, fault) in names {
        let text = format!("version = 1\n[bond.{name}]\nmiimon = 100");
        let bare = name.trim_matches('"');
        assert_eq!(refusal(&text), format!("a.toml:2: {bare:?} cannot be an interface here: it {fault}"));
    }
}

#[test]
fn each_error_of_the_parser_has_its_line() {
    let dots = format!("version = 1\nx = \"\"\"\n\"\"\"\n{} = 1\ny = 2\n", ["a"; 99].join("."));
    assert_eq!(refusal(&dots), "a.toml:4: recursion limit");
    assert_eq!(refusal(&(["a"; 99].join(".") + " = 1")), "a.toml:1: recursion limit");
    let lists = format!("version = 1\nx = {}", "[".repeat(99));
    assert!(refusal(&lists).starts_with("a.toml:2: "), "{}", refusal(&lists));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    fs::write(&path, b"version = 1\n# \xff\n").unwrap();
    let error = read(std::slice::from_ref(&path)).unwrap_err().to_string();
    assert_eq!(error, format!("{}:2: not UTF-8 text", path.display()));
}

#[test]
fn an_error_repeats_only_the_beginning_of_a_long_word() {
    let long = "x".repeat(1 << 16);
    let begun = std::time::Instant::now();
    for line in [
        format!("{long} = 1"),
        format!("[{long}]"),
        format!("miimon = \"{long}\""),
        format!("slaves = [\"{long}\"]"),
        format!("mac = \"{long}\""),
        format!("addresses = [\"{long}\"]"),
        format!("damping = \"{long}\""),
        format!("damping = \"max={long}\""),
        format!("[bond.bond0.slave.{long}]"),
        format!("[bond.{long}]"),
        format!("x = {long}"),
    ] {
        let refused = refusal(&format!("version = 1\n[bond.bond0]\n{line}"));
        assert!(refused.len() < 3000, "{} bytes: {}", refused.len(), refused.get(..200).unwrap_or_default());
    }
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn slaves_are_counted_and_duplicates_refused() {
    let with = |slaves: Vec<String>| {
        refusal(&format!("version = 1\n[bond.bond0]\nmiimon = 100\nslaves = {slaves:?}"))
    };
    let twice = with(["a", "b", "a"].map(str::to_owned).to_vec());
    assert_eq!(twice, "a.toml:2: bond0: slave a is named twice");
    let many = with((0..17).map(|number| format!("eth{number}")).collect());
    assert_eq!(many, "a.toml:4: bond0: 17 slaves; a bond has at most 16");
}

#[test]
fn files_merge_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bond: &str| {
        fs::write(directory.path().join(name), format!("version = 1\n[bond.{bond}]\nmiimon = 100\n"))
            .unwrap();
    };
    let paths = [directory.path().to_owned()];
    let empty = read(&paths).unwrap_err().to_string();
    assert_eq!(empty, format!("{}: no files named *.toml in this directory", directory.path().display()));

    write("20-b.toml", "bond2");
    write("10-a.toml", "bond1");
    write("30-c.toml.bak", "bond3");
    let config = read(&paths).unwrap();
    assert_eq!(config.bonds.iter().map(|bond| bond.name.as_str()).collect::<Vec<_>>(), ["bond1", "bond2"]);
    let lonely = |bond: &str| Note::NoSlaves { bond: bond.to_owned() };
    assert_eq!(config.notes, [lonely("bond1"), lonely("bond2")]);

    write("30-c.toml", "bond1");
    let at = |name: &str| directory.path().join(name).display().to_string();
    assert_eq!(
        read(&paths).unwrap_err().to_string(),
        format!("{}:2: bond bond1 is already defined in {}:2", at("30-c.toml"), at("10-a.toml"))
    );
}

#[test]
fn a_default_directory_may_be_empty_or_missing() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("nosuch")] {
        assert_eq!(read_if_any(&path).unwrap(), Config::default());
    }
    fs::write(directory.path().join("a.toml"), "version = 1\n[bond.bond0]\nmiimon = 100\n").unwrap();
    assert_eq!(read_if_any(directory.path()).unwrap().bonds[0].name, "bond0");
}

#[test]
fn an_agent_has_one_group_of_writers() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, group: &str| {
        let text = format!("version = 1\n[agent]\nwriters = \"{group}\"\n");
        fs::write(directory.path().join(name), text).unwrap();
    };
    write("10-a.toml", "netadmin");
    write("20-b.toml", "netadmin");
    let config = read(&[directory.path().to_owned()]).unwrap();
    assert_eq!(config.writers.as_ref().unwrap().group, "netadmin");
    assert_eq!(read_text(&super::write(&config)).unwrap().writers.unwrap().group, "netadmin");
    write("20-b.toml", "wheel");
    let error = read(&[directory.path().to_owned()]).unwrap_err().to_string();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let said = format!(
        "{}:3: writers is netadmin already in {}:3; an agent has one group of them",
        at("20-b.toml"),
        at("10-a.toml")
    );
    assert_eq!(error, said);
}

#[test]
fn a_primary_that_is_no_slave_is_a_warning() {
    let config = read_text(&bond_with("primary = \"c\"")).unwrap();
    let doubts: Vec<_> = config.bonds[0].doubts().iter().map(Note::to_string).collect();
    assert_eq!(doubts, ["bond0: primary=c is not one of its slaves"]);
}

prop_compose! {
    fn a_slave(name: String, last: u8)(
        prio in any::<i32>(),
        queue_id in any::<u16>(),
        watch in prop::sample::select(vec![None, "all=carrier,path".parse().ok(), "any=arp,ns".parse().ok()]),
        hwaddr in prop::option::of(Just(Mac::new([2, 0, 0, 0, 0, last]))),
        mtu in prop::option::of(MTU_RANGE),
    ) -> SlaveConfig {
        let options = SlaveOptions { prio, queue_id, watch };
        SlaveConfig { options, hwaddr, mtu, ..SlaveConfig::named(&name) }
    }
}

prop_compose! {
    fn a_bond()(
        name in "[a-z.\"'#\u{e9}-]{3,7}",
        slaves in (a_slave("enp0s8".to_owned(), 1), a_slave("eth1.5".to_owned(), 2)),
        miimon in 1..1000u32,
        ticks in 0..20u32,
        primary in prop::option::of(Just("eth1.5".to_owned())),
        hosts in prop::collection::btree_set(1..255u8, 0..4),
        metric in prop::option::of(any::<u32>()),
        mtu in prop::option::of(MTU_RANGE),
        datapath in prop::sample::select(Datapath::ALL),
        pair in prop::sample::select(Pair::ALL),
        on_exit in prop::sample::select(OnExit::ALL),
        guard in prop::sample::select(Guard::ALL),
    ) -> BondConfig {
        let address = |host: u8| IpNet::new([192, 0, 2, host].into(), 24).unwrap();
        let has_ipv6 = mtu.is_none_or(|mtu| mtu >= crate::sys::netlink::IPV6_MIN_MTU);
        let routes = [
            Route { to: Destination::Default, via: "192.0.2.1".parse().ok(), metric },
            Route { to: Destination::Prefix("2001:db8::/32".parse().unwrap()), via: None, metric },
        ];
        BondConfig {
            slaves: vec![slaves.0, slaves.1],
            options: BondOptions { miimon, updelay: ticks * miimon, primary, ..BondOptions::default() },
            addresses: hosts.into_iter().map(address).collect(),
            routes: routes.into_iter().filter(|route| route.via.is_some() || has_ipv6).collect(),
            mtu,
            datapath,
            pair: if pair == Pair::Netkit && !matches!(datapath, Datapath::Auto | Datapath::Tc) {
                Pair::Veth
            } else {
                pair
            },
            on_exit,
            guard,
            ..BondConfig::new(BondName::new(name).unwrap(), Origin::Flags)
        }
    }
}

/// The example is valid unchanged, with any of its commented keys, and with ARP monitoring instead of miimon.
#[test]
fn the_example_is_valid() {
    let example = include_str!("../../../../packaging/bond0.toml.example");
    let config = read_text(example).unwrap();
    assert_eq!(config.bonds[0].doubts(), []);
    let commented: Vec<_> = example.lines().filter_map(|line| line.strip_prefix('#')).collect();
    let keys: Vec<_> = commented.iter().filter(|line| !line.starts_with(' ')).collect();
    assert!(keys.len() > 10, "{keys:?}");
    let uncommented = |text: &str, key: &str| text.replace(&format!("\n#{key}"), &format!("\n{key}"));
    let (arp, alone): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|key| key.starts_with("arp_") || key.starts_with("ns_ip6_"));
    for key in alone {
        let text = uncommented(example, key);
        assert!(read_text(&text).is_ok(), "{key}: {:?}", read_text(&text));
    }
    let text = example.replace("\nmiimon", "\n#miimon");
    let text = arp.iter().fold(text, |text, key| uncommented(&text, key));
    let options = read_text(&text).unwrap().bonds[0].options.clone();
    assert_eq!((options.miimon, options.arp_interval, arp.len()), (0, 200, 6));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).*", lines in "([a-z_]{1,9} = [\\[\\]{}\"0-9a-z,]*\n){0,5}") {
        let _ = read_text(&text);
        let _ = read_text(&bond_with(&lines));
    }

    #[test]
    fn no_value_of_a_key_makes_it_panic(
        key in prop::sample::select(bond_keys()),
        value in VALUE,
    ) {
        let _ = read_text(&bond_with(&format!("{key} = {value}")));
    }

    #[test]
    fn a_written_bond_reads_back(bond in a_bond()) {
        let written = write(&Config { bonds: vec![bond.clone()], ..Config::default() });
        let read = read_text(&written);
        let mut read = read.map_err(|error| TestCaseError::fail(format!("{error}\n{written}")))?;
        read.bonds[0].origin = Origin::Flags;
        prop_assert_eq!(&read.bonds[0], &bond, "{}", written);
    }
}

#[test]
fn settings_of_the_agent_are_read() {
    let text = "version = 1\n[agent]\nmetrics = \"[::1]:9815\"\n";
    let config = parse(Path::new("a.toml"), text).unwrap();
    let address = "[::1]:9815".parse().unwrap();
    let origin = Origin::File { path: "a.toml".into(), line: Some(3) };
    assert_eq!(config.metrics, Some(Metrics { address, origin }));
    assert_eq!(write(&config), "version = 1\n\n[agent]\nmetrics = \"[::1]:9815\"\n");

    let refused = |text: &str| parse(Path::new("a.toml"), text).unwrap_err().to_string();
    let error = refused("version = 1\nagent = { metrics = \"9815\" }\n");
    assert!(error.contains("a.toml:2") && error.contains("127.0.0.1:9815"), "{error}");
    let error = refused("version = 1\n[agent]\nmetric = \"[::1]:9815\"\n");
    assert!(error.contains("metrics"), "{error}");

    assert_set_once(text);
}

/// Checks that two files cannot have the key in line 3 of this one.
#[track_caller]
fn assert_set_once(text: &str) {
    let mut first = parse(Path::new("a.toml"), text).unwrap();
    let second = parse(Path::new("b.toml"), text).unwrap();
    let error = first.merge(second).unwrap_err().to_string();
    assert!(error.contains("b.toml:3") && error.contains("already set in a.toml:3"), "{error}");
}

#[test]
fn directories_for_other_programs_are_read() {
    for key in ["textfile", "proc_files"] {
        let text = format!("version = 1\n\n[agent]\n{key} = \"/var/lib/x y\"\n");
        let config = parse(Path::new("a.toml"), &text).unwrap();
        assert_eq!(config.key_of_agent().map(|(key, _)| key), Some(key));
        assert_eq!(write(&config), text);
        assert_set_once(&text.replacen("\n\n", "\n", 1));
        let relative = text.replace("/var", "var");
        let error = parse(Path::new("a.toml"), &relative).unwrap_err().to_string();
        assert_eq!(error, format!("a.toml:4: {key} = var/lib/x y: not an absolute path"));
    }
}
