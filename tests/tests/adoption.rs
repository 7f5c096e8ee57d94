//! A new agent adopts the bond of an agent that has ended, under traffic.

mod common;
mod snapshot;

use std::{fs, process::Command, thread, time::Instant};

use bond_common::names::LATER_MAPS;
use common::{
    BOND, DATAPATHS, SLAVES, active_slave, bond, builder, concurrently, eventually, lab, show, slave,
    traffic, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use snapshot::Snapshot;
use xbond_tests::{
    Capture, Cut, Frame, HOST_V4, Lab, Mac, Nic, Policy, WAIT_LIMIT, Xbond, has_tcx,
    lab::Datapath,
    skip, skip_if_unable,
    xbond::{binary, cli},
};

const RATE: u32 = 5_000;

fn arguments(datapath: Datapath, options: &[&str]) -> Vec<String> {
    let mut line =
        vec!["--bond".to_owned(), BOND.to_owned(), "--address".to_owned(), format!("{HOST_V4}/24")];
    line.extend(["--datapath".to_owned(), datapath.name().to_owned()]);
    for name in SLAVES {
        line.extend(["--slave".to_owned(), name.to_owned()]);
    }
    for option in options {
        line.extend(["-o".to_owned(), (*option).to_owned()]);
    }
    line
}

fn pins(lab: &Lab) -> String {
    format!("/sys/fs/bpf/xbond/{}/{BOND}", lab.host.cookie().unwrap())
}

fn program_ids(lab: &Lab) -> Vec<u32> {
    let mut ids = Vec::new();
    for pin in fs::read_dir(pins(lab)).unwrap().flatten() {
        let path = pin.path();
        if path.to_string_lossy().ends_with("_prog") {
            let text = lab.host.exec(&format!("bpftool -j prog show pinned {}", path.display())).unwrap();
            let program: serde_json::Value = serde_json::from_str(&text).unwrap();
            ids.push(program["id"].as_u64().unwrap() as u32);
        }
    }
    ids.sort_unstable();
    ids
}

/// `ip netns exec` gives each command a /sys of its own; pins there would end with the agent.
#[test]
fn an_agent_under_ip_netns_exec_leaves_its_bond_to_the_next_one() {
    skip_if_unable!();
    if let Err(error) = fs::read_link("/proc/1/ns/mnt") {
        return skip(&format!("what process 1 has mounted is not to be seen: {error}"));
    }
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let options = ["miimon=100"];
    let mut exec = Command::new("ip");
    exec.args(["netns", "exec", lab.host.name()]).arg(binary().unwrap()).arg("run");
    exec.args(arguments(Datapath::Tc, &options));
    let first = Xbond::start_as(&lab.host, exec).unwrap();
    first.wait_for("ready").unwrap();
    let traffic = traffic(&lab, RATE);
    traffic.wait_for_more(1_000).unwrap();
    let programs = program_ids(&lab);
    assert!(!programs.is_empty());
    first.kill().unwrap();
    traffic.wait_for_more(1_000).unwrap();
    let second = Xbond::run(&lab.host, arguments(Datapath::Tc, &options)).unwrap();
    second.wait_for("bond0: adopted, with enp0s8, enp0s9").unwrap();
    traffic.wait_for_more(1_000).unwrap();
    for report in traffic.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    second.stop().unwrap();
    before.assert_holds(&lab.host, "under ip netns exec");
}

/// kill -9, then another agent: no packet is lost, every program is the new agent's, counters continue.
#[test]
fn a_killed_agents_bond_is_adopted_and_nothing_is_lost() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        for policy in ["none", "active", "follow"] {
            let what = format!("{} {policy}", datapath.name());
            let lab = lab(datapath, Policy::Learning);
            snapshot::open_once(&lab.host);
            let before = Snapshot::of(&lab.host);
            let options = [format!("fail_over_mac={policy}"), "miimon=100".to_owned()];
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let first = bond(&lab, datapath, &options);
            let traffic = traffic(&lab, RATE);
            traffic.wait_for_more(1_000).unwrap();
            // Away from the first slave, with a recorded failure.
            lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            wait_for_active(&first, SLAVES[1]);
            lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
            wait_for_status(&first, SLAVES[0], "up");
            drop(traffic.stop().unwrap());
            let traffic = common::traffic(&lab, RATE);
            traffic.wait_for_more(1_000).unwrap();
            let macs = || [BOND, SLAVES[0], SLAVES[1]].map(|name| lab.host.link(name).unwrap().mac);
            let (macs_before, sent_before) =
                (macs(), slave(&show(&first), SLAVES[1])["counters"]["tx_packets"].as_u64());
            let programs = program_ids(&lab);
            first.kill().unwrap();
            let second = Xbond::run(&lab.host, arguments(datapath, &options)).unwrap();
            second.wait_for("bond0: adopted, with enp0s8, enp0s9").unwrap();
            traffic.wait_for_more(1_000).unwrap();
            let bond = show(&second);
            assert_eq!(bond["active_slave"], SLAVES[1], "{what}");
            assert_eq!(slave(&bond, SLAVES[0])["link_failure_count"], 1, "{what}");
            assert!(slave(&bond, SLAVES[1])["counters"]["tx_packets"].as_u64() > sent_before, "{what}");
            assert_eq!(macs(), macs_before, "{what}");
            let stayed = program_ids(&lab).iter().filter(|id| programs.contains(id)).count();
            if datapath == Datapath::Tc && !has_tcx() {
                assert_eq!(stayed, programs.len(), "{what}: filters cannot be replaced without a gap");
            } else {
                assert_eq!(stayed, 0, "{what}: programs stayed");
            }
            // The second agent controls the bond as if it had created it.
            second.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
            traffic.wait_for_more(2_000).unwrap();
            let reports = traffic.stop().unwrap();
            for (direction, report) in ["to peer", "to host"].iter().zip(&reports) {
                if policy == "follow" && *direction == "to host" {
                    continue;
                }
                assert_eq!((report.lost, report.duplicated), (0, 0), "{what}, {direction}");
            }
            lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            wait_for_active(&second, SLAVES[1]);
            lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
            wait_for_status(&second, SLAVES[0], "up");
            second.stop().unwrap();
            before.assert_holds(&lab.host, &what);
        }
    }
}

/// The next agent detects what the guard did, reports it, and completes it.
#[test]
fn a_failover_without_an_agent_is_announced_by_the_next_one() {
    skip_if_unable!();
    let _turn = concurrently();
    for policy in ["none", "active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let options = [&format!("fail_over_mac={policy}"), "miimon=100", "clock=off"];
        let first = bond(&lab, Datapath::Tc, &options);
        let own = SLAVES.map(|name| lab.mac(name).unwrap());
        first.kill().unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        let sent = traffic(&lab, 1_000);
        sent.wait_for_more(200).unwrap();
        sent.stop().unwrap();
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let second = Xbond::run(&lab.host, arguments(Datapath::Tc, &options)).unwrap();
        let log = second.log();
        assert!(
            log.contains("active slave enp0s9 instead of enp0s8: a packet found its carrier gone"),
            "{log}"
        );
        capture.wait_for(WAIT_LIMIT, |frame| frame.announces(HOST_V4.into()).is_some()).unwrap();
        let expected: [Mac; 3] = match policy {
            "none" => [own[0]; 3],
            "active" => [own[1], own[0], own[1]],
            _ => [own[0], own[1], own[0]],
        };
        let macs = || [BOND, SLAVES[0], SLAVES[1]].map(|name| lab.host.link(name).unwrap().mac);
        eventually("the MACs", macs, |macs| *macs == expected);
        assert_eq!(slave(&show(&second), SLAVES[0])["mii_status"], "down");
        lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_status(&second, SLAVES[0], "up");
        second.stop().unwrap();
        before.assert_holds(&lab.host, policy);
    }
}

/// One of the slaves is gone by then, and a new interface has the name of another one.
#[test]
fn adoption_detects_slaves_that_changed_without_an_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let nics =
        [("nic0", 1), ("nic1", 2), ("nic2", 3)].map(|(name, last)| Nic::new(name, [2, 0, 0, 0, 1, last]));
    let lab = builder(Datapath::Tc).nics(nics).build().unwrap();
    let first = bond(&lab, Datapath::Tc, &["fail_over_mac=active"]);
    first.kill().unwrap();
    lab.host.ip("link delete nic0").unwrap();
    lab.host.ip("link add nic0 type veth peer name far0").unwrap();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = "version = 1\n[bond.bond0]\nslaves = [\"nic0\", \"nic1\", \"nic2\"]\nmiimon = 100\n\
                fail_over_mac = \"active\"\n";
    fs::write(file.path(), text).unwrap();
    let second = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    assert_eq!(active_slave(&second).as_deref(), Some("nic1"));
    let bond = show(&second);
    let names: Vec<_> =
        bond["slaves"].as_array().unwrap().iter().map(|slave| slave["name"].clone()).collect();
    assert_eq!(names, ["nic1", "nic2", "nic0"], "the new nic0 has joined after the others");
    let log = second.stop().unwrap();
    assert!(log.contains("nic0 is gone, or is another interface by now"), "{log}");
    // A packet of bring-up may have caused the failover.
    assert!(
        log.contains("active slave nic1 instead of nic0") || log.contains("active slave nic1: "),
        "{log}"
    );
}

/// Returns CLOCK_MONOTONIC, as in receipts.
fn monotonic_us() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000
}

/// Returns the last failover that `show` reports without an agent.
fn last_failover(lab: &Lab) -> serde_json::Value {
    let shown = cli(&lab.host, ["show", BOND, "-j"]).unwrap();
    serde_json::from_str::<serde_json::Value>(&shown).unwrap()["bonds"][0]["last_failover"].take()
}

/// Returns the receipts of the guard's failovers.
fn guard_receipts(lab: &Lab) -> Vec<serde_json::Value> {
    let log: serde_json::Value = serde_json::from_str(&cli(&lab.host, ["log", BOND, "-j"]).unwrap()).unwrap();
    let receipts = log["receipts"].as_array().unwrap().iter();
    receipts.filter(|receipt| receipt["seen"] == "guard").cloned().collect()
}

/// Several failovers between two slaves: each is reported with its time, and counted where the link failed.
#[test]
fn adoption_records_each_failover_of_the_guard() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    // A tick may find a link first.
    let options = ["fail_over_mac=active", "miimon=100", "clock=off"];
    let first = bond(&lab, Datapath::Tc, &options);
    if show(&first)["guard"] != "on" {
        return skip("the carrier guard is off here");
    }
    first.kill().unwrap();
    let traffic = traffic(&lab, 1_000);
    let moves = [(0, 1), (1, 0), (0, 1)].map(|(from, to): (usize, usize)| (SLAVES[from], SLAVES[to]));
    for (number, (from, to)) in moves.into_iter().enumerate() {
        traffic.wait_for_more(100).unwrap();
        lab.cut(from, Cut::Carrier).unwrap();
        eventually("a failover", || last_failover(&lab)["to"].clone(), |seen| seen == to);
        // The last one keeps its link down: the next agent then has nothing to change.
        if number + 1 < moves.len() {
            lab.reconnect(from, Cut::Carrier).unwrap();
        }
    }
    traffic.stop().unwrap();
    let before = monotonic_us();
    let second = Xbond::run(&lab.host, arguments(Datapath::Tc, &options)).unwrap();
    let log = second.log();
    for (from, to, times) in [(SLAVES[0], SLAVES[1], 2), (SLAVES[1], SLAVES[0], 1)] {
        let line = format!("active slave {to} instead of {from}: a packet found its carrier gone");
        let reported =
            log.lines().filter(|reported| reported.contains(&line) && reported.ends_with("without an agent"));
        assert_eq!(reported.count(), times, "{log}");
    }
    let receipts =
        eventually("the receipts", || guard_receipts(&lab), |receipts| receipts.len() == moves.len());
    let reported: Vec<_> = receipts.iter().map(|receipt| [&receipt["from"], &receipt["to"]]).collect();
    assert_eq!(reported, moves.map(|(from, to)| [from, to]));
    let at: Vec<_> = receipts.iter().map(|receipt| receipt["monotonic_us"].as_u64().unwrap()).collect();
    assert!(at.is_sorted() && at.iter().all(|at| *at < before), "{at:?}, an agent since {before}");
    for receipt in &receipts {
        let steps = &receipt["steps"];
        assert!(steps["heard_us"].as_u64() > Some(0) && steps["switch_us"] == 0, "{receipt:#}");
    }
    let bond = show(&second);
    assert_eq!(bond["failovers"]["carrier_guard"], 3);
    assert_eq!(SLAVES.map(|name| slave(&bond, name)["link_failure_count"].clone()), [2, 1], "{bond:#}");
    // The next agent knows them.
    second.kill().unwrap();
    let third = Xbond::run(&lab.host, arguments(Datapath::Tc, &options)).unwrap();
    let log = third.log();
    assert!(!log.contains("a packet found its carrier gone") && !log.contains("ACTIVE was changed"), "{log}");
    third.stop().unwrap();
}

/// The primary loses its link at some time while its bond is adopted: no failover to it is recorded afterwards.
#[test]
fn a_slave_that_loses_its_link_during_adoption_is_not_used() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let run = || bond(&lab, Datapath::Tc, &["primary=enp0s8", "miimon=100"]);
    let started = Instant::now();
    let mut xbond = run();
    let bring_up = started.elapsed();
    for moment in 1..=10 {
        let former = cli(&lab.host, ["log", BOND, "-j"]).unwrap();
        let former: serde_json::Value = serde_json::from_str(&former).unwrap();
        xbond.kill().unwrap();
        xbond = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(bring_up * moment / 10);
                lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            });
            run()
        });
        wait_for_active(&xbond, SLAVES[1]);
        wait_for_status(&xbond, SLAVES[0], "down");
        let log = cli(&lab.host, ["log", BOND, "-j"]).unwrap();
        let log: serde_json::Value = serde_json::from_str(&log).unwrap();
        let receipts = &log["receipts"].as_array().unwrap()[former["receipts"].as_array().unwrap().len()..];
        assert!(receipts.iter().all(|receipt| receipt["to"] != SLAVES[0]), "{moment}: {receipts:#?}");
        lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_active(&xbond, SLAVES[0]);
    }
    xbond.stop().unwrap();
}

/// `bond_set_mac_address`, late: under none the slaves take the address, otherwise it is restored.
#[test]
fn adoption_handles_a_mac_set_without_an_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let changed = Mac::new([0x02, 0, 0, 0, 0x77, 0x01]);
    for policy in ["none", "active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let options = [&format!("fail_over_mac={policy}"), "miimon=100", "clock=off"];
        let first = bond(&lab, Datapath::Tc, &options);
        let macs = || [BOND, SLAVES[0], SLAVES[1]].map(|name| lab.host.link(name).unwrap().mac);
        let before = macs();
        first.kill().unwrap();
        lab.host.ip(&format!("link set {BOND} address {changed}")).unwrap();
        let shown = cli(&lab.host, ["show", BOND]).unwrap();
        assert!(shown.contains(&format!("! bond0: its MAC was changed externally to {changed}")), "{shown}");
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let second = Xbond::run(&lab.host, arguments(Datapath::Tc, &options)).unwrap();
        let (expected, said) = match policy {
            "none" => ([changed; 3], "all slaves take it"),
            _ => (before, "is restored"),
        };
        eventually("the MACs", macs, |macs| *macs == expected);
        second.wait_for(&format!("its MAC was changed externally to {changed}")).unwrap();
        assert!(second.log().contains(said), "{policy}: {}", second.log());
        assert_eq!(show(&second)["mac"], expected[0].to_string(), "{policy}");
        // No neighbour receives another MAC address, to which it would send.
        let announced = |frame: &Frame| frame.announces(HOST_V4.into());
        capture.wait_for(WAIT_LIMIT, |frame| announced(frame).is_some()).unwrap();
        let reported: Vec<_> = capture.stop().unwrap().iter().filter_map(announced).collect();
        assert!(reported.iter().all(|mac| *mac == expected[0]), "{policy}: {reported:?}");
        common::meet(&lab);
        second.stop().unwrap();
    }
}

/// An agent that is configured with other bonds, or with none: the orphaned bond is visible, and can be adopted or
/// removed.
#[test]
fn an_agent_reports_orphaned_bonds_that_it_does_not_manage() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let options = ["fail_over_mac=active", "miimon=100"];
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), "version = 1\n").unwrap();
    let idle = || Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    for taken_over in [true, false] {
        bond(&lab, Datapath::Tc, &options).kill().unwrap();
        let agent = idle();
        agent.wait_for("ready: no bonds").unwrap();
        let orphaned = "bond0: another agent left it, and this one does not manage it";
        assert!(agent.log().contains(orphaned), "{}", agent.log());
        let shown = agent.cli(["show"]).unwrap();
        assert!(shown.starts_with(&format!("! {orphaned}")), "{shown}");
        for request in [&["show", BOND][..], &["set", BOND, "miimon=50"]] {
            let error = agent.cli(request).unwrap_err().to_string();
            assert!(error.contains(orphaned), "{error}");
        }
        if taken_over {
            let line = arguments(Datapath::Tc, &options);
            agent.cli(["add".to_owned()].into_iter().chain(line)).unwrap();
            assert_eq!(active_slave(&agent).as_deref(), Some(SLAVES[0]));
        }
        agent.cli(["down", BOND]).unwrap();
        assert_eq!(agent.cli(["show"]).unwrap(), "no bonds; `xbond add` creates one\n");
        agent.stop().unwrap();
        before.assert_holds(&lab.host, &format!("taken over: {taken_over}"));
    }
}

/// Without the record the original state of the NICs is unknown, and the agent does not guess it.
#[test]
fn a_bond_without_a_record_keeps_running_and_is_removed_as_far_as_known() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let first = bond(&lab, Datapath::Tc, &["fail_over_mac=none"]);
    let own = SLAVES.map(|name| lab.mac(name).unwrap());
    first.kill().unwrap();
    let record = format!("/run/xbond/{}/{BOND}/found.json", lab.host.cookie().unwrap());
    fs::remove_file(record).unwrap();
    let traffic = traffic(&lab, RATE);
    traffic.wait_for_more(500).unwrap();
    let line = arguments(Datapath::Tc, &["fail_over_mac=none", "miimon=100"]);
    let error = cli(&lab.host, ["run".to_owned()].into_iter().chain(line)).unwrap_err().to_string();
    assert!(error.contains("found.json is gone") && error.contains("xbond down bond0 --force"), "{error}");
    traffic.wait_for_more(500).unwrap();
    for report in traffic.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    let error = cli(&lab.host, ["down", BOND, "--force"]).unwrap_err().to_string();
    let commands =
        ["ip link delete bond0-port".to_owned(), format!("ip link set {} address {}", SLAVES[1], own[1])];
    for command in &commands {
        assert!(error.contains(command), "{error}");
        lab.host.ip(command.strip_prefix("ip ").unwrap()).unwrap();
    }
    assert_eq!(lab.host.link(SLAVES[1]).unwrap().mac, own[1]);
    assert!(!fs::exists(pins(&lab)).unwrap());
}

#[test]
fn adoption_refuses_a_misfit_and_the_bond_keeps_running() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let first = bond(&lab, Datapath::Tc, &["fail_over_mac=active"]);
    first.kill().unwrap();
    let traffic = traffic(&lab, RATE);
    traffic.wait_for_more(500).unwrap();
    let programs = program_ids(&lab);
    for (datapath, options, why) in [
        (
            Datapath::Xdp,
            &["miimon=100", "fail_over_mac=active"][..],
            "datapath is tc, and the configuration says xdp",
        ),
        (Datapath::Tc, &["miimon=100"], "fail_over_mac is active, and the configuration says none"),
    ] {
        let error =
            cli(&lab.host, ["run".to_owned()].into_iter().chain(arguments(datapath, options))).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(why) && error.contains("xbond down bond0 --force"), "{error}");
    }
    // Maps of another version: the agent reads the version first.
    store_version(&lab, 99);
    let options = ["miimon=100", "fail_over_mac=active"];
    let error =
        cli(&lab.host, ["run".to_owned()].into_iter().chain(arguments(Datapath::Tc, &options))).unwrap_err();
    let versions = format!("maps are of version 99, and this xbond's of {}", bond_common::abi::ABI_VERSION);
    assert!(error.to_string().contains(&versions), "{error}");

    assert_eq!(program_ids(&lab), programs, "nothing was changed");
    traffic.wait_for_more(500).unwrap();
    for report in traffic.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    before.assert_holds(&lab.host, "after xbond down --force");
}

/// The variable with the path of an xbond whose maps have the former version. Without it a bond of such an xbond is made of one
/// of this version.
const FORMER_BINARY: &str = "XBOND_FORMER_BIN";

/// Brings bond0 up with maps of the former version, and kills its agent.
fn bond_of_the_former_version(lab: &Lab) {
    if let Some(former) = std::env::var_os(FORMER_BINARY) {
        let mut command = lab.host.command(former);
        command.arg("run").args(arguments(Datapath::Tc, &["miimon=100"]));
        let first = Xbond::start_as(&lab.host, command).unwrap();
        first.wait_for("ready").unwrap();
        return first.kill().unwrap();
    }
    bond(lab, Datapath::Tc, &[]).kill().unwrap();
    let clock = lab.host.links().unwrap().into_iter().find(|link| link.name.contains("-clk"));
    if let Some(clock) = clock {
        lab.host.ip(&format!("link delete {}", clock.name)).unwrap();
    }
    let pins = pins(lab);
    for name in
        LATER_MAPS.iter().copied().chain(["tick_link", "tick_prog", "tick_path_link", "tick_path_prog"])
    {
        let _ = fs::remove_file(format!("{pins}/{name}"));
    }
    store_version(lab, bond_common::abi::ABI_ADOPTED);
}

#[test]
fn a_bond_of_the_former_version_is_adopted_under_traffic_and_gets_a_clock() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    bond_of_the_former_version(&lab);
    let traffic = traffic(&lab, RATE);
    traffic.wait_for_more(500).unwrap();
    let shown = cli(&lab.host, ["show", BOND, "-d"]).unwrap();
    assert!(shown.contains("clock off: an earlier version of xbond created the bond"), "{shown}");
    let second = bond(&lab, Datapath::Tc, &[]);
    second.wait_for("bond0: adopted, with enp0s8, enp0s9").unwrap();
    let clock = || show(&second)["clock"].as_str().unwrap().to_owned();
    eventually("the clock runs", clock, |clock| clock == "on, every 10 ms");
    traffic.wait_for_more(500).unwrap();
    for report in traffic.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    // It does without its agent what a bond of this version does.
    second.kill().unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    let active = || cli(&lab.host, ["show", BOND]).unwrap();
    eventually("a failover", active, |shown| shown.contains("active slave enp0s9"));
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    before.assert_holds(&lab.host, "after xbond down --force");
}

/// Stores a version in the maps of bond0.
fn store_version(lab: &Lab, version: u32) {
    let pin = format!("{}/BOND", pins(lab));
    let entry = lab.host.exec(&format!("bpftool -j map lookup pinned {pin} key 0 0 0 0")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
    let mut bytes: Vec<String> =
        entry["value"].as_array().unwrap().iter().map(|byte| byte.as_str().unwrap().to_owned()).collect();
    bytes[24] = format!("{version:#x}");
    lab.host.exec(&format!("bpftool map update pinned {pin} key 0 0 0 0 value {}", bytes.join(" "))).unwrap();
}

/// on_exit = "keep": stopping and starting repeatedly, which is also how a new version is installed.
#[test]
fn restarts_of_a_kept_bond_lose_nothing() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let text = format!(
            "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\non_exit = \"keep\"\n\
             datapath = \"{}\"\nfail_over_mac = \"active\"\naddresses = [\"{HOST_V4}/24\"]\n",
            datapath.name()
        );
        fs::write(file.path(), text).unwrap();
        let start = || Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
        let mut agent = start();
        common::meet(&lab);
        let traffic = traffic(&lab, RATE);
        traffic.wait_for_more(500).unwrap();
        for number in 0..6 {
            agent.signal(if number % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL }).unwrap();
            agent.wait().unwrap();
            agent = start();
            agent.set(BOND, &format!("active_slave={}", SLAVES[(number + 1) % 2])).unwrap();
            traffic.wait_for_more(1_000).unwrap();
        }
        for (direction, report) in ["to peer", "to host"].iter().zip(traffic.stop().unwrap()) {
            assert_eq!((report.lost, report.duplicated), (0, 0), "{}, {direction}", datapath.name());
        }
        agent.stop().unwrap();
        cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    }
}

/// An agent that ended during bring-up has left nothing that carries packets: the remains are removed, and the bond
/// is created.
#[test]
fn a_half_created_bond_is_removed_and_recreated() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    for step in 0..12u64 {
        let agent = Xbond::start(&lab.host, arguments(Datapath::Tc, &["miimon=100"])).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(step * 15));
        agent.kill().unwrap();
        let agent = Xbond::run(&lab.host, arguments(Datapath::Tc, &["miimon=100"])).unwrap();
        common::meet(&lab);
        let names: Vec<_> = show(&agent)["slaves"]
            .as_array()
            .unwrap()
            .iter()
            .map(|slave| slave["name"].as_str().unwrap().to_owned())
            .collect();
        assert!(SLAVES.iter().all(|name| names.contains(&(*name).to_owned())), "step {step}: {names:?}");
        agent.stop().unwrap();
        before.assert_holds(&lab.host, &format!("step {step}"));
    }
}
