//! ARP and NS monitoring of running bonds: paths that are dead while their carrier is on.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    ARP_INTERVAL_EMULATED, BOND, DATAPATHS, SLAVES, active_slave, brisk, builder, eventually, meet, show,
    skip, slave, wait_for_active, wait_for_status,
};
use xbond_tests::{
    Cut, HOST_V4, HOST_V6, Lab, PEER_V4, PEER_V6, WAIT_LIMIT, Xbond,
    capture::Capture,
    lab::{Datapath, PEER_NIC},
    time_is_no_measure,
};

/// Milliseconds; with missed_max=2 a dead path is found after 400 to 600 ms.
const ARP_INTERVAL: &str = "arp_interval=200";
/// The lower bound is exact; the upper one allows for a slow machine.
const FAILOVER: std::ops::Range<Duration> = Duration::from_millis(390)..Duration::from_millis(2000);

fn arp_interval() -> &'static str {
    if time_is_no_measure().is_some() { ARP_INTERVAL_EMULATED } else { ARP_INTERVAL }
}

/// Starts a bond of the scenario's slaves with these options and addresses; it is ready.
fn bond<'lab>(lab: &'lab Lab, datapath: Datapath, options: &[&str], addresses: &[&str]) -> Xbond<'lab> {
    let mut line = vec!["--bond", BOND, "--datapath", datapath.name()];
    line.extend(SLAVES.iter().flat_map(|slave| ["--slave", slave]));
    line.extend(addresses.iter().flat_map(|address| ["--address", address]));
    line.extend(options.iter().flat_map(|option| ["-o", option]));
    Xbond::run(&lab.host, line).unwrap()
}

fn status(xbond: &Xbond<'_>, name: &str) -> String {
    slave(&show(xbond), name)["mii_status"].as_str().unwrap().to_owned()
}

fn failures(xbond: &Xbond<'_>) -> [u64; 2] {
    SLAVES.map(|name| slave(&show(xbond), name)["link_failure_count"].as_u64().unwrap())
}

/// Asserts that nothing changes during this many rounds of probes.
fn stays(xbond: &Xbond<'_>, lab: &Lab, active: &str) {
    let before = failures(xbond);
    let capture = Capture::start_on(&lab.switch.netns, "peer").unwrap();
    let probe = |count: usize| {
        eventually(
            "probes",
            || capture.frames().iter().filter(|frame| frame.outgoing && is_arp_or_nd(&frame.bytes)).count(),
            |seen| *seen >= count,
        )
    };
    probe(8);
    assert_eq!((active_slave(xbond).as_deref(), failures(xbond)), (Some(active), before));
    assert_eq!(SLAVES.map(|name| status(xbond, name)), ["up", "up"]);
}

fn is_arp_or_nd(bytes: &[u8]) -> bool {
    let ether_type = bytes.get(12..14);
    ether_type == Some(&[0x08, 0x06]) || ether_type == Some(&[0x86, 0xdd]) && bytes.get(54) == Some(&135)
}

/// Both paths fail, one after the other, and return in the other order.
fn paths_die_and_come_back(lab: &Lab, datapath: Datapath, options: &[&str]) {
    let addresses = [format!("{HOST_V4}/24"), format!("{HOST_V6}/64")];
    let xbond = bond(lab, datapath, options, &[&addresses[0], &addresses[1]]);
    let [first, second] = SLAVES;
    meet(lab);
    for name in SLAVES {
        wait_for_status(&xbond, name, "up");
    }
    let [active, backup] =
        if active_slave(&xbond).as_deref() == Some(first) { [first, second] } else { [second, first] };
    stays(&xbond, lab, active);

    let cut = lab.cut(active, Cut::Silent).unwrap();
    wait_for_active(&xbond, backup);
    let took = Instant::now() - cut;
    match time_is_no_measure() {
        Some(reason) => skip(&format!("how soon: {reason}")),
        None => assert!(FAILOVER.contains(&took), "{options:?}: {took:?}"),
    }
    wait_for_status(&xbond, active, "down");
    assert_eq!(lab.host.ping(PEER_V4.into(), 1).unwrap().received, 1);

    lab.cut(backup, Cut::Silent).unwrap();
    eventually("no active slave", || active_slave(&xbond), Option::is_none);
    assert!(!lab.host.link(BOND).unwrap().has_carrier());
    for turn in ["going back", "going down", "going back"] {
        wait_for_status(&xbond, active, turn);
    }

    lab.reconnect(backup, Cut::Silent).unwrap();
    wait_for_active(&xbond, backup);
    lab.reconnect(active, Cut::Silent).unwrap();
    wait_for_status(&xbond, active, "up");
    assert_eq!(lab.host.ping(PEER_V4.into(), 1).unwrap().received, 1);
    stays(&xbond, lab, backup);
    xbond.stop().unwrap();
}

/// Runs each in a lab of its own, concurrently: they mostly wait.
fn in_labs(datapath: Datapath, of_each: &[&str]) {
    let target = format!("arp_ip_target={PEER_V4}");
    thread::scope(|scope| {
        for options in of_each {
            let options: Vec<&str> =
                [arp_interval(), &target].into_iter().chain(options.split(' ')).collect();
            let named = thread::Builder::new().name(options.join(" "));
            let run = move || {
                paths_die_and_come_back(&builder(datapath).build().unwrap(), datapath, &options);
            };
            named.spawn_scoped(scope, run).unwrap();
        }
    });
}

#[test]
fn a_dead_path_is_found_in_every_mode() {
    let modes = ["none", "active", "backup", "all", "filter", "filter_active", "filter_backup"];
    let options = modes.map(|mode| format!("arp_validate={mode}"));
    in_labs(Datapath::Tc, &options.each_ref().map(String::as_str));
}

#[test]
fn a_dead_path_is_found_under_xdp_and_every_policy() {
    let policies = ["none", "active", "follow"];
    let options = policies.map(|policy| format!("arp_validate=all fail_over_mac={policy}"));
    in_labs(Datapath::Xdp, &options.each_ref().map(String::as_str));
}

#[test]
fn a_dead_path_is_found_by_neighbour_solicitations() {
    for datapath in DATAPATHS {
        let lab = builder(datapath).build().unwrap();
        let target = format!("ns_ip6_target={PEER_V6}");
        paths_die_and_come_back(&lab, datapath, &[arp_interval(), &target, "arp_validate=all"]);
    }
}

/// Returns whether this kernel has VLAN devices.
fn vlans(lab: &Lab) -> bool {
    let tried = lab.switch.netns.ip("link add link peer name probe0 type vlan id 1");
    match tried {
        Ok(_) => lab.switch.netns.ip("link del probe0").is_ok(),
        Err(error) => {
            skip(&format!("VLAN devices (CONFIG_VLAN_8021Q): {error:#}"));
            false
        }
    }
}

/// With arp_all_targets=all each of these has to answer: through the bond, through a VLAN, through a VLAN in a VLAN.
#[test]
fn vlans_above_the_bond_are_probed_with_their_tags() {
    for datapath in DATAPATHS {
        let lab = builder(datapath).build().unwrap();
        if !vlans(&lab) {
            return;
        }
        let xbond = bond(&lab, datapath, &["miimon=100"], &[&format!("{HOST_V4}/24")]);
        meet(&lab);
        for (netns, below, host) in [(&lab.host, BOND, 101), (&lab.peer, PEER_NIC, 1)] {
            for line in [
                format!("link add v100 link {below} type vlan proto 802.1ad id 100"),
                "link add v100.5 link v100 type vlan id 5".into(),
                format!("address add 10.100.0.{host}/24 dev v100"),
                format!("address add 10.5.0.{host}/24 dev v100.5"),
                "link set v100 up".into(),
                "link set v100.5 up".into(),
            ] {
                netns.ip(&line).unwrap();
            }
        }
        let capture = Capture::start_on(&lab.switch.netns, "peer").unwrap();
        let targets = format!("arp_ip_target={PEER_V4},10.100.0.1,10.5.0.1");
        monitor(&xbond, &[&targets, "arp_all_targets=all"]);
        for (target, vlans) in
            [(PEER_V4.octets(), &[][..]), ([10, 100, 0, 1], &[100]), ([10, 5, 0, 1], &[100, 5])]
        {
            let asks = |bytes: &[u8]| bytes.ends_with(&target) && is_arp_behind(bytes, vlans.len());
            capture.wait_for(WAIT_LIMIT, |frame| asks(&frame.bytes) && frame.vlans() == vlans).unwrap();
        }
        stays(&xbond, &lab, SLAVES[0]);
        xbond.stop().unwrap();
    }
}

/// Changes a bond with miimon to validated ARP monitoring.
fn monitor(xbond: &Xbond<'_>, settings: &[&str]) {
    let monitor = ["arp_validate=all", brisk()];
    let settings = settings.iter().chain(&monitor);
    xbond.cli(["set", BOND].iter().chain(settings)).unwrap();
}

#[test]
fn targets_and_monitors_change_while_the_bond_runs() {
    for datapath in DATAPATHS {
        let lab = builder(datapath).build().unwrap();
        let xbond = bond(&lab, datapath, &["miimon=100"], &[&format!("{HOST_V4}/24")]);
        meet(&lab);
        lab.peer.ip(&format!("address add 192.168.99.2/24 dev {PEER_NIC}")).unwrap();
        monitor(&xbond, &[&format!("arp_ip_target={PEER_V4}"), "arp_all_targets=all"]);
        assert_eq!(show(&xbond)["options"]["miimon"], 0);
        xbond.set(BOND, "arp_ip_target=+192.168.99.2").unwrap();
        stays(&xbond, &lab, SLAVES[0]);

        // A target that does not answer takes the bond down, until it is removed.
        xbond.set(BOND, "arp_ip_target=+192.168.99.77").unwrap();
        eventually("no active slave", || active_slave(&xbond), Option::is_none);
        xbond.set(BOND, "arp_ip_target=-192.168.99.77").unwrap();
        eventually("an active slave", || active_slave(&xbond), Option::is_some);

        // miimon checks the carrier and nothing else.
        xbond.set(BOND, "miimon=100").unwrap();
        assert_eq!(show(&xbond)["options"]["arp_interval"], 0);
        lab.cut(SLAVES[0], Cut::Silent).unwrap();
        lab.cut(SLAVES[1], Cut::Carrier).unwrap();
        wait_for_active(&xbond, SLAVES[0]);
        xbond.stop().unwrap();
    }
}

fn is_arp_behind(bytes: &[u8], tags: usize) -> bool {
    bytes.get(12 + 4 * tags..14 + 4 * tags) == Some(&[0x08, 0x06])
}

/// Without an address there is no route: probes are sent from 0.0.0.0, and any answer shows that the path works.
#[test]
fn a_bond_without_address_is_monitored() {
    let lab = builder(Datapath::Tc).build().unwrap();
    let target = format!("arp_ip_target={PEER_V4}");
    let xbond = bond(&lab, Datapath::Tc, &[brisk(), &target], &[]);
    lab.host.ip(&format!("link set {BOND} up")).unwrap();
    let capture = Capture::start_on(&lab.switch.netns, "peer").unwrap();
    let unnumbered = |bytes: &[u8]| bytes.get(28..32) == Some(&[0; 4]) && is_arp_behind(bytes, 0);
    let probe = capture.wait_for(WAIT_LIMIT, |frame| unnumbered(&frame.bytes)).unwrap();
    assert_eq!(probe.bytes.len(), 42);
    stays(&xbond, &lab, SLAVES[0]);
    lab.cut(SLAVES[0], Cut::Silent).unwrap();
    wait_for_active(&xbond, SLAVES[1]);
    xbond.stop().unwrap();
}

/// A bridge above the bond, as on hypervisors: probes have its address as their source.
#[test]
fn a_target_is_probed_through_a_bridge_above_the_bond() {
    let lab = builder(Datapath::Tc).build().unwrap();
    let target = format!("arp_ip_target={PEER_V4}");
    let xbond = bond(&lab, Datapath::Tc, &["miimon=100"], &[]);
    for line in [
        "link add br0 type bridge forward_delay 0 mcast_snooping 0",
        &format!("link set {BOND} master br0 up"),
        &format!("address add {HOST_V4}/24 dev br0"),
        "link set br0 up",
    ] {
        lab.host.ip(line).unwrap();
    }
    monitor(&xbond, &[&target]);
    let capture = Capture::start_on(&lab.switch.netns, "peer").unwrap();
    let from_bridge = |bytes: &[u8]| bytes.get(28..32) == Some(&HOST_V4.octets()) && is_arp_behind(bytes, 0);
    capture.wait_for(WAIT_LIMIT, |frame| from_bridge(&frame.bytes)).unwrap();
    for name in SLAVES {
        wait_for_status(&xbond, name, "up");
    }
    stays(&xbond, &lab, SLAVES[0]);
    xbond.stop().unwrap();
}
