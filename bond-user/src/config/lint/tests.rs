//! Tests of the check of configurations.

use std::fs;

use bond_core::options;

use super::*;
use crate::config::toml;

/// Lines 1 to 4; the lines of a row begin at line 5.
const BOND: &str = "version = 1\n[bond.bond0]\nslaves = [\"a\", \"b\"]\naddresses = [\"192.0.2.1/24\"]\n";
const NOTHING: HostFacts = HostFacts {
    strict_ports: None,
    hooked: Vec::new(),
    conflicts: Vec::new(),
    absent: Vec::new(),
    is_other_machine: false,
};

/// Returns the findings as `check` prints them, without the name of the file.
fn said(text: &str, surroundings: &HostFacts) -> Vec<String> {
    let findings = check_text(Path::new("f"), text, surroundings).findings;
    findings.iter().map(|finding| finding.to_string().trim_start_matches("f:").to_owned()).collect()
}

#[test]
fn addresses_that_move_to_bond0_are_no_finding() {
    let conflict = |interface: &str| ConflictOn {
        interface: interface.to_owned(),
        id: ADDRESS_OF_SLAVE,
        text: format!("has an address that stays on {interface}"),
    };
    let facts = HostFacts { conflicts: vec![conflict("a"), conflict("b")], ..NOTHING };
    let of = |settings: &str| {
        let findings = said(&format!("{BOND}miimon=100\n{settings}"), &facts);
        findings.into_iter().filter(|line| line.contains(ADDRESS_OF_SLAVE)).collect::<Vec<_>>()
    };
    assert_eq!(of("").len(), 2, "{:?}", of(""));
    let found = of("move_addresses=true");
    assert!(matches!(&found[..], [of_b] if of_b.contains("stays on b")), "{found:?}");
}

#[test]
fn absent_interfaces_are_warned_of_unless_the_files_are_for_another_machine() {
    let text = format!("{BOND}miimon=100\nport='tap0'\nprimary='a'\n");
    let of = |absent: &[&str], is_other_machine| {
        let absent = absent.iter().map(|&name| name.to_owned()).collect();
        let findings = said(&text, &HostFacts { absent, is_other_machine, ..NOTHING });
        findings.into_iter().filter(|line| line.contains("absent-")).collect::<Vec<_>>()
    };
    assert!(of(&[], false).is_empty());
    let slave = of(&["b"], false);
    assert!(matches!(&slave[..], [b] if b.starts_with("3: warning: bond0: no interface b on")), "{slave:?}");
    let port = of(&["tap0", "eth9"], false);
    assert!(
        matches!(&port[..], [port] if port.starts_with("6: warning: bond0: port=tap0: no such")),
        "{port:?}"
    );
    let other = of(&["a", "b", "tap0"], true);
    assert_eq!(other.len(), 2);
    assert!(other.iter().all(|line| line.contains(": note: ")), "{other:?}");
}

/// One row per finding: lines, and the line, the severity, the id and the beginning of the expected text.
// One thing: a table, with a row for each finding.
#[test]
fn every_common_mistake_is_found() {
    let table = [
        // Values that the driver rounds, ignores or overrides.
        (
            "miimon=100\nupdelay=250",
            "6: warning: bond0: updelay=250: delays count in whole miimon (100 ms), so it becomes 200 ms, as in the driver; write 200 or 300 [rounded]",
        ),
        (
            "miimon=100\nupdelay=30",
            "6: warning: bond0: updelay=30: delays count in whole miimon (100 ms), so it becomes 0: there is no delay at all",
        ),
        ("miimon=100\ndowndelay=150", "6: warning: bond0: downdelay=150: delays count"),
        ("miimon=100\npeer_notif_delay=150", "6: warning: bond0: peer_notif_delay=150: delays count"),
        ("miimon=100\nmin_links=2", "6: warning: bond0: min_links: without effect in active-backup"),
        (
            "miimon=100\nxmit_hash_policy='layer2+3'",
            "6: warning: bond0: xmit_hash_policy: without effect in active-backup; remove it [unused]",
        ),
        ("miimon=100\nuse_carrier=1", "6: warning: bond0: use_carrier: removed from later kernels"),
        ("miimon=100\narp_validate='all'", "6: warning: bond0: arp_validate: accepted without arp_interval"),
        ("miimon=100\narp_all_targets='all'", "6: warning: bond0: arp_all_targets: accepted without"),
        ("miimon=100\narp_missed_max=3", "6: warning: bond0: arp_missed_max: accepted without"),
        ("miimon=100\nprimary='c'", "6: warning: bond0: primary=c: not one of its slaves"),
        (
            "miimon=100\nprimary='a'\n[bond.bond0.slave.b]\nprio=1",
            "8: warning: bond0: b: prio=1: without effect while primary=a",
        ),
        (
            "miimon=100\nprimary_reselect='better'",
            "6: warning: bond0: primary_reselect=better: takes an unknown speed",
        ),
        (
            "miimon=100\nprimary_reselect='failure'",
            "6: warning: bond0: primary_reselect: without effect without primary or prio",
        ),
        (
            "miimon=100\nprimary_reselect='always'",
            "6: warning: bond0: primary_reselect: without effect without primary or prio",
        ),
        (
            "miimon=100\nprimary_reselect='better'",
            "6: warning: bond0: primary_reselect: without effect without primary or prio",
        ),
        (
            "miimon=100\nfail_over_mac='follow'\nmac='02:00:00:00:00:01'",
            "7: warning: bond0: mac: under fail_over_mac=follow the driver ignores",
        ),
        (
            "miimon=100\nfail_over_mac='active'\nmac='02:00:00:00:00:01'",
            "7: error: bond0: mac has no meaning with fail_over_mac=active",
        ),
        (
            "miimon=100\npeer_notif_delay=100",
            "6: warning: bond0: peer_notif_delay=100: without effect with num_grat_arp=1",
        ),
        ("miimon=100\n[bond.bond0.slave.b]\nmtu=1400", "7: warning: bond0: b: mtu: without effect"),
        ("miimon=100\nallow_unmonitored=true", "6: warning: bond0: allow_unmonitored: without effect"),
        // Values that the driver accepts and that are rarely intended.
        (
            "allow_unmonitored=true",
            "2: warning: bond0: miimon=0, the driver's default: links are not monitored and the bond never fails over; set miimon = 100",
        ),
        (
            "miimon=0",
            "5: error: bond0: miimon=0: the kernel accepts this and then never fails over; set miimon=100",
        ),
        (
            "miimon=100\narp_interval=100\narp_ip_target='192.0.2.9'",
            "6: error: bond0: miimon=100 and arp_interval=100: a bond has one link monitor",
        ),
        ("updelay=200", "5: error: bond0: updelay=200: needs miimon"),
        ("arp_interval=100", "5: error: bond0: arp_interval=100: nothing to probe; set arp_ip_target"),
        (
            "miimon=100\narp_ip_target='192.0.2.9'",
            "6: error: bond0: arp_ip_target: never probed while arp_interval is 0",
        ),
        (
            "miimon=100\nnum_grat_arp=2\nnum_unsol_na=3",
            "7: error: bond0: num_grat_arp=2 and num_unsol_na=3: two names of one number; give one",
        ),
        ("miimon=100\nmode='balance-rr'", "6: error: mode=balance-rr: xbond does active-backup (1) only"),
        ("miimon=100\nlacp_rate=1", "6: error: lacp_rate: an option of 802.3ad"),
        (
            "miimon=100\nuse_carrier=0",
            "6: error: use_carrier=0: not a value; allowed: on (1); the kernel has given up the other test of links, so remove it",
        ),
        ("miimon=100\nmimon=1", "6: error: mimon: no such key in bond0; did you mean miimon?"),
        // The units of delays, and the duration of failures.
        (
            "miimon=1",
            "5: warning: bond0: miimon=1: milliseconds; if seconds are meant, as by a bare MIIMonitorSec of systemd-networkd, write 1000, and else 10 or more",
        ),
        (
            "miimon=5000",
            "5: warning: bond0: miimon=5000: a link that dies without an event is noticed up to 5000 ms late",
        ),
        (
            "miimon=100\ndowndelay=200",
            "6: warning: bond0: downdelay=200: for this many ms after its link failed the dead slave stays active and all frames are lost",
        ),
        (
            "miimon=100\nupdelay=200",
            "6: note: bond0: updelay=200: not waited for while the bond has no active slave",
        ),
        // A link that is up while the path behind it is dead.
        ("miimon=100", "5: note: bond0: miimon: sees links, not paths"),
        // The path monitor.
        (
            "miimon=100\npath_interval=20",
            "6: warning: bond0: path_interval: without effect without path_target",
        ),
        ("miimon=100\npath_misses=2", "6: warning: bond0: path_misses: without effect without path_target"),
        (
            "miimon=100\npath_method='arp'",
            "6: warning: bond0: path_method: without effect without path_target",
        ),
        (
            "miimon=100\nfailback='proven'",
            "6: warning: bond0: failback = \"proven\": without path_target no path is ever proven",
        ),
        (
            "miimon=100\nwatch={all=['carrier', 'path']}",
            "6: warning: bond0: watch = all=carrier,path: nothing probes paths",
        ),
        (
            "miimon=100\npath_target='gateway'\nwatch={any=['carrier', 'path']}",
            "7: warning: bond0: watch = any=carrier,path: a slave without a link neither sends nor receives",
        ),
        ("miimon=100\nwatch='arp'", "6: warning: bond0: watch = all=arp: arp and ns are answers"),
        (
            "arp_interval=100\narp_validate='all'\narp_ip_target='192.0.2.9'\nwatch={any=['arp', 'ns']}",
            "8: warning: bond0: watch = any=arp,ns: there is no target of that family",
        ),
        (
            "arp_interval=100\narp_ip_target='192.0.2.9'\nwatch={all=['carrier', 'arp']}",
            "7: warning: bond0: watch = all=carrier,arp: without arp_validate any frame counts",
        ),
        (
            "arp_interval=100\narp_validate='all'\narp_ip_target='192.0.2.9'\n[bond.bond0.slave.a]\nwatch='carrier'",
            "9: warning: bond0: a: watch = all=carrier: arp_interval is set, and the answers",
        ),
        ("miimon=100\nwatch={some=['carrier']}", "6: error: some: no such key in watch"),
        (
            "miimon=100\nwatch={all=['link']}",
            "6: error: watch = all=link: not all or any of carrier, path, arp and ns",
        ),
        (
            "miimon=100\nclock='off'\npath_target='gateway'",
            "7: warning: bond0: path_target: the path monitor runs in the ticks of the clock",
        ),
        (
            "arp_interval=100\narp_ip_target='192.0.2.9'\npath_target=['192.0.2.9']",
            "7: warning: bond0: path_target: with arp_interval the ARP monitor judges",
        ),
        (
            "miimon=100\nclock_interval=50\npath_interval=20\npath_target='gateway'",
            "7: warning: bond0: path_interval=20: below clock_interval=50",
        ),
        (
            "miimon=100\npath_interval=20\npath_method='arp'\npath_target='192.0.2.9'",
            "6: warning: bond0: path_interval=20: with path_method = \"arp\" targets are asked each 200 ms",
        ),
        (
            "miimon=100\npath_target=['198.51.100.1', '192.0.2.9']",
            "6: warning: bond0: path_target=198.51.100.1: no address of this bond is in its network",
        ),
        ("miimon=100\npath_interval=9", "6: error: path_interval = 9: not a number of milliseconds from 10"),
        (
            "miimon=100\npath_target='fe80::1'",
            "6: error: path_target = fe80::1: not an IPv4 address: IPv6 neighbours are not probed",
        ),
        (
            "miimon=100\npath_target=['192.0.2.1', '2001:db8::1']",
            "6: error: path_target = 192.0.2.1,2001:db8::1: not an IPv4 address: IPv6 neighbours are not probed",
        ),
        (
            "miimon=100\npath_target='192.0.2.300'",
            "6: error: path_target = 192.0.2.300: not up to 4 different IPv4 addresses",
        ),
        (
            "arp_interval=100\narp_ip_target=['192.0.2.8', '192.0.2.9']",
            "5: warning: bond0: arp_validate=none: a slave counts as up while it receives anything at all",
        ),
        (
            "arp_interval=100\narp_validate='backup'\narp_ip_target=['192.0.2.8', '192.0.2.9']",
            "6: warning: bond0: arp_validate=backup: a slave counts as up while it receives anything at all",
        ),
        (
            "arp_interval=100\narp_validate='filter'\narp_ip_target=['192.0.2.8', '192.0.2.9']",
            "6: warning: bond0: arp_validate=filter: a slave counts as up while it receives any ARP",
        ),
        (
            "arp_interval=100\narp_validate=3\narp_ip_target='192.0.2.9'",
            "7: warning: bond0: arp_ip_target: there is only one target",
        ),
        (
            "arp_interval=100\narp_validate=3\nns_ip6_target='2001:db8::1'",
            "7: warning: bond0: ns_ip6_target=2001:db8::1: no address or route of this bond leads there",
        ),
        (
            "arp_interval=100\narp_validate=2\narp_all_targets=1\narp_ip_target='192.0.2.9,192.0.2.8'",
            "7: warning: bond0: arp_all_targets=all: without effect unless answers are validated",
        ),
        // Announcements.
        ("miimon=100\nnum_unsol_na=0", "6: warning: bond0: num_unsol_na=0: failovers are not announced"),
        (
            "miimon=100\nresend_igmp=0",
            "6: warning: bond0: resend_igmp=0: after a failover multicast is not received",
        ),
        ("miimon=100\nnum_grat_arp=1", "6: note: bond0: num_grat_arp=1: a failover is announced once"),
        // One MAC address on two ports, and MAC addresses that change.
        (
            "miimon=100\nfail_over_mac=0",
            "6: note: bond0: fail_over_mac=none: all slaves have one MAC; ports that accept only their own",
        ),
        (
            "miimon=100\nfail_over_mac=1",
            "6: note: bond0: fail_over_mac=active: the bond's MAC changes at each failover",
        ),
        ("miimon=100\nfail_over_mac=2", "6: note: bond0: fail_over_mac=follow: slaves exchange their MACs"),
        (
            "miimon=100\nfail_over_mac=1\nhost_mac=\"stable\"",
            "7: note: bond0: host_mac: bond0 keeps its MAC at a failover, and frames carry the active slave's",
        ),
        (
            "miimon=100\nfail_over_mac=2\nhost_mac=\"stable\"",
            "7: warning: bond0: host_mac: without effect under fail_over_mac=follow, where bond0 keeps its MAC anyway",
        ),
        // Settings that would fail, or be slow, or duplicate frames.
        (
            "miimon=100\n[bond.bond0.slave.b]\nqueue_id=16",
            "7: error: bond0: b: queue_id=16: refused, because the bond has the transmit queues 1 to 15",
        ),
        (
            "miimon=100\n[bond.bond0.slave.a]\nqueue_id=2\n[bond.bond0.slave.b]\nqueue_id=2",
            "9: error: bond0: b: queue_id=2: refused, because a has it",
        ),
        (
            "miimon=100\nall_slaves_active=1",
            "6: warning: bond0: all_slaves_active=1: what backups receive is delivered too, so every broadcast arrives \
             once per slave, and a bridge above the bond learns its own guests' MACs",
        ),
        (
            "miimon=100\ndatapath='xdp'",
            "6: warning: bond0: datapath=xdp: TCP of a bond that ends in this host is slower",
        ),
        ("miimon=100\ndatapath='xdp-generic'", "6: warning: bond0: datapath=xdp-generic: slower than tc"),
        (
            "miimon=100\nroutes=[{to='default', via='10.0.0.1'}]",
            "6: warning: bond0: route to default via 10.0.0.1: in the network of none of the bond's addresses",
        ),
        (
            "miimon=100\nroutes=[{to='10.0.0.1/8'}]",
            "6: error: route to 10.0.0.1/8: has bits beyond its prefix length; 10.0.0.0/8 is meant",
        ),
        ("miimon=100\nmtu=1", "6: error: mtu = 1: not an MTU"),
        ("miimon=100\nmtu=9000\nport='a'", "4: error: bond0: addresses cannot be set together with port"),
        (
            "miimon=100\n[bond.x]\nslaves=['b', 'c']\nmiimon=100",
            "6: error: b is a slave of bond0 and a slave of x; it can be only one",
        ),
    ];
    for (lines, expected) in table {
        let said = said(&format!("{BOND}{lines}\n"), &NOTHING);
        assert!(
            said.iter().any(|said| said.starts_with(expected)),
            "{lines}: wanted {expected}, got {said:#?}"
        );
    }
}

#[test]
fn notes_depend_on_the_configuration_and_the_host() {
    let bond = |lines: &str| format!("version = 1\n[bond.bond0]\nmiimon=100\n{lines}\n");
    let strict = HostFacts { strict_ports: Some("VirtualBox"), ..NOTHING };
    let table = [
        (
            bond("slaves=[]"),
            NOTHING,
            "4: warning: bond0: has no slaves; name them in slaves = [...] [no-slaves]",
        ),
        (bond("slaves=['a']"), NOTHING, "4: warning: bond0: a is the only slave"),
        (
            bond("slaves=['a','b']\nport='c'\n[bond.bond0.slave.a]\nqueue_id=1"),
            NOTHING,
            "7: error: bond0: a: queue_id=1: refused, because the queues of a port",
        ),
        (
            bond("slaves=['a','b']\naddresses=['2001:db8::1/64']\nmtu=1000"),
            NOTHING,
            "6: error: mtu = 1000: address 2001:db8::1/64 is IPv6, which needs 1280 bytes",
        ),
        (
            bond("slaves=['a','b']"),
            strict.clone(),
            "2: warning: bond0: fail_over_mac=none: this machine runs under VirtualBox",
        ),
        (
            bond("slaves=['a','b']\nfail_over_mac=2"),
            strict,
            "5: warning: bond0: fail_over_mac=follow: this machine runs under VirtualBox",
        ),
        ("version = 1\n[bond.bond0\n".to_owned(), NOTHING, "2: error: "),
        ("[bond.bond0]\n".to_owned(), NOTHING, " error: no version; write version = 1 at the top [refused]"),
    ];
    for (text, surroundings, expected) in table {
        let said = said(&text, &surroundings);
        assert!(
            said.iter().any(|said| said.starts_with(expected)),
            "{text}: wanted {expected}, got {said:#?}"
        );
    }
}

/// Each row has its own finding, and none of the others: a correct bond has notes only.
#[test]
fn a_correct_bond_has_only_notes() {
    let good = [
        "miimon=100\nfail_over_mac='active'\nnum_grat_arp=3\npeer_notif_delay=1000\nprimary='a'",
        "arp_interval=200\narp_ip_target=['192.0.2.8', '192.0.2.9']\narp_validate='all'\narp_missed_max=3",
        "arp_interval=200\narp_ip_target=['192.0.2.8', '192.0.2.9']\narp_validate='filter_active'",
        "miimon=100\nroutes=[{to='default', via='192.0.2.254'}]\nprimary='b'\nprimary_reselect='failure'",
        "miimon=100\nprimary_reselect='always'\n[bond.bond0.slave.b]\nprio=1",
    ];
    for lines in good {
        let findings = check_text(Path::new("f"), &format!("{BOND}{lines}\n"), &NOTHING).findings;
        assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{lines}: {findings:#?}");
    }
}

#[test]
fn ifcfg_files_are_checked_by_the_same_rules() {
    let directory = tempfile::tempdir().unwrap();
    let files = [
        (
            "ifcfg-bond0",
            "DEVICE=bond0\nTYPE=Bond\nDNS1=192.0.2.1\nBONDING_OPTS='mode=1 miimon=100 arp_interval=100 arp_ip_target=192.0.2.9 min_links=1'\n",
        ),
        ("ifcfg-bond1", "DEVICE=bond1\nBONDING_OPTS=mode=1\n"),
        ("ifcfg-bond2", "DEVICE=bond2\nBONDING_OPTS=mode=1\nONBOOT=no\n"),
        ("ifcfg-eth0", "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\nMTU=1400\n"),
        ("ifcfg-eth1", "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n"),
        ("ifcfg-bond0.5", "DEVICE=bond0.5\nVLAN=yes\n"),
    ];
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let findings = check(&[directory.path().to_owned()], &NOTHING).findings;
    let prefix = format!("{}/ifcfg-", directory.path().display());
    let said: Vec<_> = findings.iter().map(|finding| finding.to_string().replace(&prefix, "")).collect();
    let expected = [
        "bond0:3: warning: DNS1 is not applied by xbond",
        "bond0:4: warning: bond0: miimon=100: ignored, because arp_interval=100 is set after it",
        "bond0:4: warning: bond0: min_links: without effect",
        "bond0:4: warning: bond0: arp_validate=none",
        "bond0:4: warning: bond0: arp_ip_target: there is only one target",
        "bond1: error: miimon=0: the kernel accepts this and then never fails over",
        "bond1: warning: bond1: has no slaves",
        "bond2:3: warning: ONBOOT=no: bond2 is left out",
        "eth0:4: warning: bond0: eth0: mtu: without effect",
        "bond0.5:1: warning: bond0.5 is a VLAN on bond0, which xbond does not make",
    ];
    for expected in expected {
        assert!(said.iter().any(|said| said.starts_with(expected)), "wanted {expected}, got {said:#?}");
    }
}

/// The example has every key with an effect, and no finding.
#[test]
fn the_example_is_complete_and_good() {
    let text = include_str!("../../../../packaging/bond0.toml.example");
    let findings = check_text(Path::new("f"), text, &NOTHING).findings;
    assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
    // Options of the driver that have no effect, are aliases, or have one value only.
    let idle =
        ["mode", "num_unsol_na", "min_links", "use_carrier", "xmit_hash_policy", "ad_select", "lp_interval"];
    let request = "active_slave";
    let keys = [&toml::bond_keys(), toml::SLAVE_KEYS, options::SlaveOptions::KEYS].concat();
    for key in keys.iter().filter(|key| ![request, "slave"].contains(key) && !idle.contains(key)) {
        let has =
            text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = ")));
        assert!(has, "{key}");
    }
}

#[test]
fn a_missing_or_binary_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    let paths = [directory.path().join("none"), binary, directory.path().to_owned()];
    let findings = check(&paths, &NOTHING).findings;
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    assert_eq!((errors, findings.len()), (3, 3), "{findings:#?}");
}
