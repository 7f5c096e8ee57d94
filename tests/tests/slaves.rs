//! Slaves that come and go while the bond runs.

mod common;

use std::{fs, net::Ipv4Addr, path::Path};

use common::{
    BOND, DATAPATHS, SLAVES, active_slave, builder, eventually, meet, show, slave, traffic, wait_for_active,
    wait_for_status,
};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use xbond_tests::{
    Capture, Cut, Frame, HOST_V4, Lab, Mac, Nic, WAIT_LIMIT, Xbond, lab::Datapath, skip, skip_if_unable,
};

const POLICIES: [&str; 3] = ["none", "active", "follow"];
/// The third NIC, which is not in the bond at first, and its MTU.
const THIRD: &str = "enp0s10";
const THIRD_MTU: u32 = 1450;

/// Creates the scenario's NICs and a third one.
fn lab(datapath: Datapath) -> Lab {
    let third = Nic { name: THIRD.to_owned(), mac: Mac::new([0x08, 0, 0x27, 0x11, 0x22, 0x33]) };
    let lab = builder(datapath).nics(Nic::scenario().into_iter().chain([third])).build().unwrap();
    lab.host.ip(&format!("link set {THIRD} mtu {THIRD_MTU}")).unwrap();
    lab
}

/// Starts a bond of the scenario's two slaves.
fn run<'lab>(lab: &'lab Lab, datapath: Datapath, options: &[&str]) -> Xbond<'lab> {
    let address = format!("{HOST_V4}/24");
    let mut line = vec!["--bond", BOND, "--address", &address, "--datapath", datapath.name()];
    line.extend(SLAVES.iter().flat_map(|name| ["--slave", name]));
    line.extend(["miimon=100"].iter().chain(options).flat_map(|option| ["-o", option]));
    let xbond = Xbond::run(&lab.host, line).unwrap();
    meet(lab);
    xbond
}

fn names(bond: &Value) -> Vec<String> {
    let slaves = bond["slaves"].as_array().unwrap();
    slaves.iter().map(|slave| slave["name"].as_str().unwrap().to_owned()).collect()
}

fn mac(lab: &Lab, name: &str) -> Mac {
    lab.host.link(name).unwrap().mac
}

/// Returns the MAC addresses of bond0 and of the two NICs of the scenario.
fn macs(lab: &Lab) -> [Mac; 3] {
    [BOND, SLAVES[0], SLAVES[1]].map(|name| mac(lab, name))
}

/// Returns whether an address is locally administered.
fn is_made_up(mac: Mac) -> bool {
    mac.bytes()[0] & 0b10 != 0
}

/// A slave that gets a slot starts its counters from zero.
#[test]
fn counters_are_the_slaves_not_the_slots() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let xbond = run(&lab, Datapath::Tc, &["fail_over_mac=active"]);
    let traffic = traffic(&lab, 1_000);
    traffic.wait_for_more(200).unwrap();
    let [to_peer, _] = traffic.stop().unwrap();
    let counted = |name: &str| slave(&show(&xbond), name)["counters"]["tx_packets"].as_u64().unwrap();
    let slot = slave(&show(&xbond), SLAVES[0])["slot"].clone();
    assert!(counted(SLAVES[0]) >= to_peer.received);
    xbond.cli(["del-slave", BOND, SLAVES[0]]).unwrap();
    // A slot that was freed just now is quarantined for a second.
    let back_in_its_slot = || {
        xbond.cli(["add-slave", BOND, THIRD]).unwrap();
        let third = slave(&show(&xbond), THIRD);
        if third["slot"] != slot {
            xbond.cli(["del-slave", BOND, THIRD]).unwrap();
        }
        third["slot"].clone()
    };
    eventually("the slot is used again", back_in_its_slot, |found| *found == slot);
    assert_eq!(slave(&show(&xbond), THIRD)["counters"]["tx_packets"], 0);
    xbond.stop().unwrap();
}

fn found_json(lab: &Lab) -> Vec<String> {
    let path = Path::new("/run/xbond").join(lab.host.cookie().unwrap().to_string()).join("bond0/found.json");
    let found: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    names(&found)
}

/// Counts the pins of the programs on slaves.
fn programs(lab: &Lab) -> usize {
    let pins = Path::new("/sys/fs/bpf/xbond").join(lab.host.cookie().unwrap().to_string()).join(BOND);
    let names = fs::read_dir(pins).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("slave") && name.ends_with("_rx_prog")).count()
}

#[test]
fn slaves_join_and_leave_under_traffic_without_loss() {
    skip_if_unable!();
    for datapath in DATAPATHS {
        let what = datapath.name();
        let lab = lab(datapath);
        let xbond = run(&lab, datapath, &["primary=enp0s8"]);
        let flow = traffic(&lab, 1_000);
        flow.wait_for_more(200).unwrap();

        xbond.cli(["add-slave", BOND, THIRD, "-o", "prio=7"]).unwrap();
        flow.wait_for_more(200).unwrap();
        let bond = show(&xbond);
        assert_eq!(names(&bond), [SLAVES[0], SLAVES[1], THIRD], "{what}");
        assert_eq!((&bond["active_slave"], &slave(&bond, THIRD)["prio"]), (&"enp0s8".into(), &7.into()));
        assert_eq!((found_json(&lab), programs(&lab)), (names(&bond), 3), "{what}");
        let link = lab.host.link(THIRD).unwrap();
        assert_eq!((link.is_up(), link.mtu, link.mac), (true, 1500, mac(&lab, BOND)), "{what}");

        // First a backup, then the active slave.
        xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
        assert_eq!((found_json(&lab), programs(&lab)), (vec!["enp0s8".into(), THIRD.into()], 2), "{what}");
        flow.wait_for_more(200).unwrap();
        xbond.cli(["del-slave", BOND, "enp0s8"]).unwrap();
        assert_eq!(active_slave(&xbond).as_deref(), Some(THIRD), "{what}");
        assert_eq!((found_json(&lab), programs(&lab)), (vec![THIRD.into()], 1), "{what}");
        flow.wait_for_more(200).unwrap();
        for report in flow.stop().unwrap() {
            let (lost, duplicated) = (report.lost, report.duplicated);
            assert_eq!((lost, duplicated), (0, 0), "{what}");
        }
        xbond.stop().unwrap();
    }
}

/// The last slave leaves: the bond has a random MAC address, and then that of the next slave that joins.
fn the_last_slave_leaves(lab: &Lab, xbond: &Xbond<'_>, policy: &str) {
    let [first, second] = SLAVES.map(|name| lab.mac(name).unwrap());
    let third = lab.mac(THIRD).unwrap();
    xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
    assert_eq!(mac(lab, "enp0s9"), second, "{policy}");
    let is_unused = |mac: &Mac| ![first, second, third].contains(mac) && is_made_up(*mac);
    eventually(&format!("{policy}, the empty bond"), || mac(lab, BOND), is_unused);
    let bond = show(xbond);
    assert_eq!((names(&bond), &bond["carrier"]), (vec![], &false.into()), "{policy}");
    assert_eq!((found_json(lab), programs(lab)), (vec![], 0), "{policy}");

    xbond.cli(["add-slave", BOND, THIRD]).unwrap();
    eventually(&format!("{policy}, its first slave"), || mac(lab, BOND), |mac| *mac == third);
}

/// The steps "release" and "enslave again" of the reference, for each policy.
#[test]
fn macs_at_release_and_enslave() {
    skip_if_unable!();
    for policy in POLICIES {
        let lab = lab(Datapath::Tc);
        let [first, second] = SLAVES.map(|name| lab.mac(name).unwrap());
        let third = lab.mac(THIRD).unwrap();
        let xbond = run(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        let settled = |what: &str, expected: [Mac; 3]| {
            eventually(&format!("{policy}, {what}"), || macs(&lab), |seen| *seen == expected);
        };
        let shared = if policy == "none" { first } else { second };
        settled("enslaved", [first, first, shared]);

        // A backup is released, and enslaved again.
        xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
        assert_eq!(macs(&lab), [first, first, second], "{policy}, a backup released");
        assert!(!lab.host.link("enp0s9").unwrap().is_up(), "{policy}");
        xbond.cli(["add-slave", BOND, "enp0s9"]).unwrap();
        assert_eq!(macs(&lab), [first, first, shared], "{policy}, enslaved again");

        // A slave with another MTU.
        xbond.cli(["add-slave", BOND, THIRD]).unwrap();
        assert_eq!(mac(&lab, THIRD), if policy == "none" { first } else { third }, "{policy}");
        xbond.cli(["del-slave", BOND, THIRD]).unwrap();
        let link = lab.host.link(THIRD).unwrap();
        assert_eq!((link.is_up(), link.mtu, link.mac), (false, THIRD_MTU, third), "{policy}");

        // The first slave, whose MAC address the bond has: the slave has it again, and the bond keeps it, or takes
        // the next one's.
        wait_for_status(&xbond, "enp0s9", "up");
        xbond.cli(["del-slave", BOND, "enp0s8"]).unwrap();
        settled(
            "the first released",
            match policy {
                "active" => [second, first, second],
                _ => [first, first, first],
            },
        );
        // Under follow another slave has its MAC address by now, and it gets an unused one.
        xbond.cli(["add-slave", BOND, "enp0s8"]).unwrap();
        let again = mac(&lab, "enp0s8");
        assert_eq!(again == first, policy != "follow", "{policy}: {again}");
        assert!(again == first || again != second && is_made_up(again), "{policy}: {again}");
        xbond.cli(["del-slave", BOND, "enp0s8"]).unwrap();
        assert_eq!(mac(&lab, "enp0s8"), first, "{policy}");

        the_last_slave_leaves(&lab, &xbond, policy);
        meet(&lab);
        xbond.stop().unwrap();
    }
}

#[test]
fn refusals_change_nothing() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    lab.host.ip("link add br0 type bridge").unwrap();
    lab.host.ip("link add eth7 type veth peer name eth8").unwrap();
    lab.host.ip("link set eth8 master br0").unwrap();
    let xbond = run(&lab, Datapath::Tc, &[]);
    lab.host.ip("link add link bond0 name above0 type macvlan mode bridge").unwrap();
    let state = || {
        let mut slaves = show(&xbond)["slaves"].take();
        for slave in slaves.as_array_mut().unwrap() {
            // The counters continue.
            slave["counters"].take();
        }
        (slaves, lab.host.links().unwrap(), found_json(&lab))
    };
    let before = state();
    for (arguments, sentence) in [
        (
            "add-slave bond0 enp0s8",
            "enp0s8: is a slave of bond0 already; xbond set bond0 --slave enp0s8 changes its options",
        ),
        ("add-slave bond0 eth9", "eth9: no such interface in this network namespace"),
        ("add-slave bond0 lo", "lo: the loopback device cannot be a slave"),
        (
            "add-slave bond0 eth8",
            "eth8: already a port of bridge br0; remove it first: ip link set eth8 nomaster",
        ),
        ("add-slave bond0 bond0", "bond0: belongs to the bond bond0, and cannot be a slave"),
        ("add-slave bond0 bond0-port", "bond0-port: belongs to the bond bond0, and cannot be a slave"),
        ("add-slave bond0 above0", "above0: lies above the bond bond0, and cannot be a slave of a bond"),
        ("del-slave bond0 ..", "\"..\" cannot be an interface: it is a directory"),
        (
            "add-slave bond0 enp0s10 -o prio=high",
            "prio=high: not a value; allowed: -2147483648 to 2147483647",
        ),
        ("add-slave bond0 enp0s10 -o miimon=1", "miimon: no such option; there are: prio, queue_id, watch"),
        ("add-slave bond9 enp0s10", "bond9: no such bond; `xbond show` lists them"),
        ("del-slave bond0 enp0s10", "bond0 has no slave enp0s10; `xbond show bond0` lists them"),
        ("del-slave bond9 enp0s8", "bond9: no such bond; `xbond show` lists them"),
        ("set bond0 --slave enp0s10 prio=1", "bond0 has no slave enp0s10; `xbond show bond0` lists them"),
        ("set bond0 --slave enp0s8 prio=1 prio=x", "prio=x: not a value; allowed: -2147483648 to 2147483647"),
    ] {
        let error = xbond.cli(arguments.split(' ')).unwrap_err().to_string();
        assert!(error.ends_with(&format!("xbond: {sentence}")), "{arguments}: {error}");
        assert_eq!(state(), before, "{arguments}");
    }
    xbond.stop().unwrap();
}

#[test]
fn prio_elects_at_once() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let xbond = run(&lab, Datapath::Tc, &[]);
    wait_for_active(&xbond, "enp0s8");
    xbond.cli(["set", BOND, "--slave", "enp0s9", "prio=1"]).unwrap();
    assert_eq!(active_slave(&xbond).as_deref(), Some("enp0s9"));
    xbond.cli(["set", BOND, "--slave", "enp0s8", "prio=2"]).unwrap();
    assert_eq!(active_slave(&xbond).as_deref(), Some("enp0s8"));
    let bond = show(&xbond);
    assert_eq!(SLAVES.map(|name| slave(&bond, name)["prio"].as_i64()), [Some(2), Some(1)]);
    xbond.stop().unwrap();
}

/// Creates a NIC of the lab again that was deleted, with a MAC address of its own.
fn plug_again(lab: &Lab, name: &str) {
    let port = lab.port(name).unwrap();
    let switch = lab.switch.netns.name();
    lab.host.ip(&format!("link add {name} type veth peer name {port} netns {switch}")).unwrap();
    lab.switch.plug(&port).unwrap();
}

/// Runs a file, so that its slaves are wanted.
fn run_file<'lab>(lab: &'lab Lab, directory: &tempfile::TempDir) -> Xbond<'lab> {
    let file = directory.path().join("bond0.toml");
    let text = format!(
        "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\naddresses = [\"{HOST_V4}/24\"]\n"
    );
    fs::write(&file, text).unwrap();
    let xbond = Xbond::run(&lab.host, ["-c", file.to_str().unwrap()]).unwrap();
    meet(lab);
    xbond
}

fn wait_for_slaves(xbond: &Xbond<'_>, expected: &[&str]) {
    eventually("the slaves", || names(&show(xbond)), |seen| seen == expected);
}

#[test]
fn a_slave_of_a_file_that_vanishes_joins_again_and_another_does_not() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let directory = tempfile::tempdir().unwrap();
    let xbond = run_file(&lab, &directory);
    xbond.cli(["add-slave", BOND, THIRD]).unwrap();

    // The active slave is deleted.
    lab.host.ip("link delete enp0s8").unwrap();
    wait_for_slaves(&xbond, &["enp0s9", THIRD]);
    meet(&lab);
    assert_eq!(show(&xbond)["absent"], serde_json::json!(["enp0s8"]));
    eventually("found.json", || found_json(&lab), |found| found == &["enp0s9", THIRD]);
    // The slave that a command added is moved away, and returns.
    let peer = lab.peer.name();
    lab.host.ip(&format!("link set {THIRD} netns {peer}")).unwrap();
    wait_for_slaves(&xbond, &["enp0s9"]);
    lab.peer.ip(&format!("link set {THIRD} netns {}", lab.host.name())).unwrap();

    plug_again(&lab, "enp0s8");
    wait_for_slaves(&xbond, &["enp0s9", "enp0s8"]);
    wait_for_status(&xbond, "enp0s8", "up");
    assert_eq!(show(&xbond)["absent"], serde_json::json!([]));
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_active(&xbond, "enp0s8");
    meet(&lab);

    // A slave that the administrator released stays released, whatever happens to it.
    lab.reconnect("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "up");
    xbond.cli(["del-slave", BOND, "enp0s8"]).unwrap();
    lab.host.ip("link set enp0s8 down").unwrap();
    lab.host.ip("link set enp0s8 up").unwrap();
    // When the slave of the file has returned, the other one would have joined, too.
    lab.host.ip("link delete enp0s9").unwrap();
    wait_for_slaves(&xbond, &[]);
    plug_again(&lab, "enp0s9");
    wait_for_slaves(&xbond, &["enp0s9"]);
    assert_eq!(show(&xbond)["absent"], serde_json::json!([]));
    xbond.stop().unwrap();
}

#[test]
fn a_renamed_slave_stays_one_under_traffic() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let directory = tempfile::tempdir().unwrap();
    let xbond = run_file(&lab, &directory);
    let flow = traffic(&lab, 1_000);
    flow.wait_for_more(100).unwrap();
    if let Err(error) = lab.host.ip("link set enp0s8 name lan0") {
        // Before Linux 6.2 an interface that is up keeps its name.
        let error = format!("{error:#}");
        assert!(error.contains("busy"), "{error}");
        return skip(&error);
    }
    wait_for_slaves(&xbond, &["lan0", "enp0s9"]);
    let bond = show(&xbond);
    assert_eq!((&bond["active_slave"], &bond["absent"]), (&"lan0".into(), &serde_json::json!([])));
    // The primary is known by its name.
    xbond.set(BOND, "primary=lan1").unwrap();
    lab.host.ip("link set enp0s9 name lan1").unwrap();
    wait_for_active(&xbond, "lan1");
    flow.wait_for_more(100).unwrap();
    for report in flow.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    xbond.cli(["del-slave", BOND, "lan0"]).unwrap();
    wait_for_slaves(&xbond, &["lan1"]);
    xbond.stop().unwrap();
}

/// As the kernel does with a slave of its own bond (`do_set_master`).
#[test]
fn a_slave_that_is_made_a_port_of_a_bridge_leaves() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let xbond = run(&lab, Datapath::Tc, &[]);
    let flow = traffic(&lab, 1_000);
    flow.wait_for_more(100).unwrap();
    lab.host.ip("link add br0 type bridge").unwrap();
    lab.host.ip("link set enp0s8 master br0").unwrap();
    wait_for_slaves(&xbond, &["enp0s9"]);
    xbond.wait_for("enp0s8: was made a port of br0, and leaves the bond").unwrap();
    xbond.wait_for("enp0s8: released").unwrap();
    flow.wait_for_more(100).unwrap();
    flow.stop().unwrap();
    assert_eq!(lab.host.link("enp0s8").unwrap().mac, lab.mac("enp0s8").unwrap());
    let pins = format!("/sys/fs/bpf/xbond/{}/{BOND}", lab.host.cookie().unwrap());
    let has_program = |slot| Path::new(&pins).join(format!("slave{slot}_rx_prog")).exists();
    assert_eq!([0, 1].map(has_program), [false, true]);
    xbond.stop().unwrap();
}

#[test]
fn a_bond_whose_device_gets_another_name_keeps_its_own() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let xbond = run(&lab, Datapath::Tc, &[]);
    if lab.host.ip("link set bond0 name lan").is_err() {
        return skip("before Linux 6.2 an interface that is up keeps its name");
    }
    xbond.wait_for("bond0: its device is called lan now").unwrap();
    let flow = traffic(&lab, 1_000);
    flow.wait_for_more(100).unwrap();
    xbond.set(BOND, "active_slave=enp0s9").unwrap();
    wait_for_active(&xbond, "enp0s9");
    flow.wait_for_more(100).unwrap();
    for report in flow.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    xbond.stop().unwrap();
    assert!(lab.host.link("lan").is_err());
}

fn is_mld(frame: &Frame) -> bool {
    frame.bytes.get(12..14) == Some(&[0x86, 0xdd]) && frame.bytes.get(62) == Some(&143) && !frame.outgoing
}

#[test]
fn groups_are_reported_after_a_failover() {
    skip_if_unable!();
    for rounds in [0, 1, 3] {
        let lab = lab(Datapath::Tc);
        let xbond = run(&lab, Datapath::Tc, &[&format!("resend_igmp={rounds}"), "num_grat_arp=1"]);
        for group in ["239.1.1.1", "239.2.2.2"] {
            lab.host.ip(&format!("address add {group}/32 dev bond0 autojoin")).unwrap();
        }
        let capture = Capture::start_on(&lab.switch.netns, &lab.port("enp0s9").unwrap()).unwrap();
        lab.cut("enp0s8", Cut::Carrier).unwrap();
        let announced = |frame: &Frame| !frame.outgoing && frame.announces(HOST_V4.into()).is_some();
        capture.wait_for(WAIT_LIMIT, announced).unwrap();
        if rounds > 0 {
            capture.wait_for(WAIT_LIMIT, is_mld).unwrap();
        }
        // The kernel's own report of a new group, which it repeats at random times, has another form.
        let is_report = |frame: &Frame| !frame.outgoing && frame.igmp_report().is_some();
        let reports = || {
            let frames = capture.frames();
            let reports = frames.iter().filter(|frame| is_report(frame)).filter_map(Frame::igmp_report);
            reports.collect::<Vec<_>>()
        };
        // In the order observed with the driver: the group that was joined last first.
        let expected = [[239, 2, 2, 2], [239, 1, 1, 1]].map(Ipv4Addr::from).repeat(rounds);
        eventually("all rounds", reports, |seen| seen.len() >= expected.len());
        assert_eq!(reports(), expected);
        let bond = mac(&lab, BOND);
        let frames = capture.stop().unwrap();
        assert!(frames.iter().filter(|frame| is_report(frame)).all(|frame| frame.source() == bond));
        xbond.stop().unwrap();
    }
}

/// As the driver makes the kernel report them: bridges forward the request, and so do VLANs and macvlans above them.
#[test]
fn groups_above_a_bridge_are_reported_after_a_failover() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let xbond = run(&lab, Datapath::Tc, &["resend_igmp=1", "num_grat_arp=1"]);
    for command in [
        "link add br0 type bridge",
        "link set bond0 master br0",
        "link set br0 up",
        "link add link br0 mv0 type macvlan mode bridge",
        "link set mv0 up",
        "address add 239.1.1.1/32 dev br0 autojoin",
        "address add 239.2.2.2/32 dev mv0 autojoin",
    ] {
        lab.host.ip(command).unwrap();
    }
    let capture = Capture::start_on(&lab.switch.netns, &lab.port("enp0s9").unwrap()).unwrap();
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let reports = || {
        let frames = capture.frames().into_iter().filter(|frame| !frame.outgoing);
        let report = |frame: Frame| Some((frame.igmp_report()?, frame.source()));
        // The bridge itself listens to 224.0.0.106, for snooping.
        let is_ours = |(group, _): &(Ipv4Addr, Mac)| group.octets()[0] == 239;
        let mut reports: Vec<_> = frames.filter_map(report).filter(is_ours).collect();
        reports.sort();
        reports
    };
    let expected = [([239, 1, 1, 1].into(), mac(&lab, "br0")), ([239, 2, 2, 2].into(), mac(&lab, "mv0"))];
    eventually("both groups are reported", reports, |seen| seen.len() >= expected.len());
    assert_eq!(reports(), expected);
    let of_macvlan = mac(&lab, "mv0");
    capture.wait_for(WAIT_LIMIT, |frame| is_mld(frame) && frame.source() == of_macvlan).unwrap();
    drop(capture);
    xbond.stop().unwrap();
}

#[test]
fn show_proc_is_the_drivers_text() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc);
    let xbond = run(&lab, Datapath::Tc, &["fail_over_mac=follow", "primary=enp0s9"]);
    wait_for_active(&xbond, "enp0s9");
    let shown = xbond.cli(["show", "--proc", BOND]).unwrap();
    let [first, second] = SLAVES.map(|name| lab.mac(name).unwrap());
    let expected = format!(
        "
Bonding Mode: fault-tolerance (active-backup) (fail_over_mac follow)
Primary Slave: enp0s9 (primary_reselect always)
Currently Active Slave: enp0s9
MII Status: up
MII Polling Interval (ms): 100
Up Delay (ms): 0
Down Delay (ms): 0
Peer Notification Delay (ms): 0

Slave Interface: enp0s8
MII Status: up
Speed: 10000 Mbps
Duplex: full
Link Failure Count: 0
Permanent HW addr: {first}
Slave queue ID: 0

Slave Interface: enp0s9
MII Status: up
Speed: 10000 Mbps
Duplex: full
Link Failure Count: 0
Permanent HW addr: {second}
Slave queue ID: 0
"
    );
    assert_eq!(shown.split_once('\n').unwrap().1, expected);
    xbond.stop().unwrap();
}

/// Makes every CPU send by this queue of bond0, or none.
fn send_by(lab: &Lab, queue: u32, every: bool) {
    let path = format!("/sys/class/net/bond0/queues/tx-{queue}/xps_cpus");
    // A missing CPU is refused; the mask has one word, for the first 32.
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).unwrap().unwrap().clamp(1, 32);
    let mask = if every { u32::MAX >> (32 - cpus) } else { 0 };
    // Enters a mount namespace, too, with the sysfs of the network namespace.
    let line = format!("echo {mask:x} > {path}");
    let status =
        std::process::Command::new("ip").args(["netns", "exec", lab.host.name(), "sh", "-c", &line]).status();
    assert!(status.unwrap().success(), "{line}");
}

fn sent(xbond: &Xbond<'_>, name: &str) -> u64 {
    slave(&show(xbond), name)["counters"]["tx_packets"].as_u64().unwrap()
}

#[test]
fn a_queue_chooses_its_slave_while_that_is_up() {
    skip_if_unable!();
    for datapath in DATAPATHS {
        let what = datapath.name();
        let lab = lab(datapath);
        let xbond = run(&lab, datapath, &[]);
        let refused = |arguments: &str| xbond.cli(arguments.split(' ')).unwrap_err().to_string();
        let error = refused("set bond0 --slave enp0s9 queue_id=16");
        let sentence =
            "enp0s9: queue_id=16: bond0 has transmit queues 1 to 15; choose one of them, or 0 for none";
        assert!(error.ends_with(sentence), "{error}");
        xbond.cli(["set", BOND, "--slave", "enp0s9", "queue_id=2"]).unwrap();
        let error = refused("add-slave bond0 enp0s10 -o queue_id=2");
        let sentence = "enp0s10: queue_id=2 is enp0s9's already; set that to another one, or 0, first";
        assert!(error.ends_with(sentence), "{error}");

        // Flows of many hashes, none of which was assigned to a queue.
        let flows = |count: u64| {
            for number in 0..count {
                let to = (xbond_tests::PEER_V4, 9000 + number as u16);
                xbond_tests::datagram::send(&lab.host, HOST_V4, to, b"by any queue").unwrap();
            }
        };
        let before = SLAVES.map(|name| sent(&xbond, name));
        flows(64);
        eventually(what, || sent(&xbond, "enp0s8"), |sent| *sent >= before[0] + 64);
        assert_eq!(sent(&xbond, "enp0s9"), before[1], "{what}");

        // Now each flow uses queue 2, and then a queue that no slave has.
        send_by(&lab, 0, false);
        send_by(&lab, 2, true);
        flows(64);
        eventually(what, || sent(&xbond, "enp0s9"), |sent| *sent >= before[1] + 64);
        lab.cut("enp0s9", Cut::Carrier).unwrap();
        wait_for_status(&xbond, "enp0s9", "down");
        let before = SLAVES.map(|name| sent(&xbond, name));
        flows(64);
        eventually(what, || sent(&xbond, "enp0s8"), |sent| *sent >= before[0] + 64);
        assert_eq!(sent(&xbond, "enp0s9"), before[1], "{what}");
        xbond.stop().unwrap();
    }
}
