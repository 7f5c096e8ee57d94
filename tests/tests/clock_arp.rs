//! ARP and NS monitoring by the clock's tick: dead paths are found without an agent, and the next agent reports it.

mod common;
#[path = "common/pinned.rs"]
mod pinned;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, alone, builder, concurrently, eventually, meet, show, slave, wait_for_active,
    wait_for_status,
};
use nix::sys::signal::Signal;
use pinned::Pinned;
use serde_json::Value;
use xbond_tests::{
    Cut, HOST_V4, HOST_V6, Lab, PEER_V4, PEER_V6, Xbond,
    capture::{Capture, Frame},
    lab::{Datapath, Nic, PEER_NIC},
    skip_if_unable,
    xbond::cli,
};

/// Milliseconds, with missed_max=2.
const INTERVAL: u64 = 100;
/// From the moment at which a path dies: missed_max + 1 intervals and two periods of the clock; and what the machine takes.
const FAILOVER: Duration = Duration::from_millis(3 * INTERVAL + 20 + 30);

/// An agent that no longer acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    Killed,
    Stopped,
}

/// A bond with ARP monitoring, and its maps.
struct Monitored<'lab> {
    lab: &'lab Lab,
    xbond: Option<Xbond<'lab>>,
    pinned: Pinned,
}

impl<'lab> Monitored<'lab> {
    /// Brings a bond up whose paths are alive, with these options.
    fn new(lab: &'lab Lab, datapath: Datapath, options: &[&str]) -> Self {
        let xbond = start(lab, datapath, options);
        meet(lab);
        for nic in &lab.nics {
            wait_for_status(&xbond, &nic.name, "up");
        }
        let clock = || show(&xbond)["clock"].as_str().unwrap().to_owned();
        eventually("the clock runs", clock, |clock| clock.starts_with("on"));
        let pinned = Pinned::open(&lab.host, BOND).unwrap();
        Self { lab, xbond: Some(xbond), pinned }
    }

    /// Stops the agent's actions. Returns when the tick monitors, and the grace of all slaves has ended.
    fn leave(&mut self, agent: Agent) {
        match agent {
            Agent::Killed => self.xbond.take().unwrap().kill().unwrap(),
            Agent::Stopped => self.xbond.as_ref().unwrap().pause().unwrap(),
        }
        self.steps(5);
    }

    /// Waits until the tick has made so many further steps.
    fn steps(&self, number: u64) {
        let until = self.pinned.arp_steps() + number;
        eventually("steps of the tick", || self.pinned.arp_steps(), |steps| *steps >= until);
    }

    /// Waits until this slave is active, or none, and returns how long after `since` that was.
    #[track_caller]
    fn wait_for(&self, active: Option<&str>, since: Instant) -> Duration {
        let deadline = since + Duration::from_secs(10);
        while self.pinned.active() != active {
            let at_last = self.pinned.active();
            assert!(
                Instant::now() < deadline,
                "{active:?} is not active but {at_last:?}: {:?}",
                self.state()
            );
            thread::sleep(Duration::from_millis(1));
        }
        since.elapsed()
    }

    fn state(&self) -> impl std::fmt::Debug {
        self.pinned.maps.clock().unwrap().monitor_state()
    }

    /// Asserts that nothing changes during so many steps.
    #[track_caller]
    fn stays(&self, steps: u64) {
        let state = || (self.pinned.maps.active().switches(), self.pinned.maps.active().usable());
        let before = state();
        self.steps(steps);
        assert_eq!(state(), before, "{:?}", self.state());
    }

    /// Lets an agent manage the bond again.
    fn resume(&mut self, datapath: Datapath, options: &[&str]) -> &Xbond<'lab> {
        match &self.xbond {
            Some(stopped) => stopped.signal(Signal::SIGCONT).unwrap(),
            None => self.xbond = Some(start(self.lab, datapath, options)),
        }
        self.xbond.as_ref().unwrap()
    }
}

fn start<'lab>(lab: &'lab Lab, datapath: Datapath, options: &[&str]) -> Xbond<'lab> {
    let addresses = [format!("{HOST_V4}/24"), format!("{HOST_V6}/64")];
    let mut line = vec!["--bond", BOND, "--datapath", datapath.name()];
    line.extend(lab.nics.iter().flat_map(|nic| ["--slave", nic.name.as_str()]));
    line.extend(addresses.iter().flat_map(|address| ["--address", address.as_str()]));
    line.extend(options.iter().flat_map(|option| ["-o", option]));
    Xbond::run(&lab.host, line).unwrap()
}

fn options<'option>(interval: &'option str, target: &'option str, others: &'option str) -> Vec<&'option str> {
    [interval, target].into_iter().chain(others.split_whitespace()).collect()
}

/// Returns the failovers of the kernel's ARP monitor that the agent reports: from, to, reason.
fn reported(xbond: &Xbond<'_>) -> Vec<(String, String, String)> {
    let log = xbond.cli(["log", BOND, "-j"]).unwrap();
    let receipts = serde_json::from_str::<Value>(&log).unwrap()["receipts"].take();
    let of = |receipt: &Value, key: &str| receipt[key].as_str().unwrap_or("none").to_owned();
    let seen = receipts.as_array().unwrap().iter().filter(|receipt| receipt["seen"] == "arp_tick");
    seen.map(|receipt| (of(receipt, "from"), of(receipt, "to"), of(receipt, "reason"))).collect()
}

/// One path fails, then the other; one path recovers, then an agent runs again.
fn paths_die_and_come_back(datapath: Datapath, agent: Agent, target: &str, others: &str) {
    let what = format!("{} {agent:?} {target} {others}", datapath.name());
    let lab = builder(datapath).build().unwrap();
    let interval = format!("arp_interval={INTERVAL}");
    let options = options(&interval, target, others);
    let mut bond = Monitored::new(&lab, datapath, &options);
    let [first, second] = SLAVES;
    bond.leave(agent);
    bond.stays(5);

    let cut = lab.cut(first, Cut::Silent).unwrap();
    let took = bond.wait_for(Some(second), cut);
    assert!(took <= FAILOVER, "{what}: after {took:?}");
    println!("{what}: after {took:?}");
    assert_eq!(bond.pinned.up(), [second], "{what}");
    bond.stays(5);

    let cut = lab.cut(second, Cut::Silent).unwrap();
    bond.wait_for(None, cut);
    bond.steps(5);
    let reconnected = lab.reconnect(first, Cut::Silent).unwrap();
    bond.wait_for(Some(first), reconnected);
    lab.reconnect(second, Cut::Silent).unwrap();
    eventually("both are up", || bond.pinned.up().len(), |up| *up == 2);
    bond.stays(5);

    let xbond = bond.resume(datapath, &options);
    let expected =
        [(first, second, "link_failed"), (second, "none", "link_failed"), ("none", first, "link_recovered")];
    let expected = expected.map(|(from, to, why)| (from.to_owned(), to.to_owned(), why.to_owned()));
    eventually("receipts", || reported(xbond), |reported| *reported == expected);
    thread::sleep(Duration::from_millis(6 * INTERVAL));
    let report = show(xbond);
    assert_eq!(
        (&report["active_slave"], &report["unrecorded_changes"]),
        (&first.into(), &0.into()),
        "{what}"
    );
    for name in SLAVES {
        let slave = slave(&report, name);
        assert_eq!(
            (&slave["mii_status"], &slave["link_failure_count"]),
            (&"up".into(), &1.into()),
            "{what}: {slave}"
        );
    }
    assert_eq!(reported(xbond).len(), 3, "{what}: the agent changes nothing");
    bond.xbond.take().unwrap().stop().unwrap();
}

#[test]
fn a_dead_path_is_left_without_an_agent_in_every_mode() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let target = format!("arp_ip_target={PEER_V4}");
    for (agent, mode) in [Agent::Killed, Agent::Stopped].into_iter().cycle().zip([
        "none",
        "active",
        "backup",
        "all",
        "filter",
        "filter_active",
        "filter_backup",
    ]) {
        paths_die_and_come_back(Datapath::Tc, agent, &target, &format!("arp_validate={mode}"));
    }
}

#[test]
fn a_dead_path_is_left_without_an_agent_under_xdp_and_every_policy() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let target = format!("arp_ip_target={PEER_V4}");
    for (policy, agent) in [("active", Agent::Killed), ("follow", Agent::Stopped)] {
        let others = format!("arp_validate=all fail_over_mac={policy}");
        paths_die_and_come_back(Datapath::Xdp, agent, &target, &others);
    }
}

#[test]
fn a_dead_path_is_left_without_an_agent_by_neighbour_solicitations() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let target = format!("ns_ip6_target={PEER_V6}");
    for (datapath, agent) in DATAPATHS.into_iter().zip([Agent::Stopped, Agent::Killed]) {
        paths_die_and_come_back(datapath, agent, &target, "arp_validate=all");
    }
}

/// With two targets one answer is enough, unless all are required.
#[test]
fn targets_count_without_an_agent_as_arp_all_targets_says() {
    skip_if_unable!();
    let _turn = concurrently();
    for (all, stays) in [("any", true), ("all", false)] {
        let lab = builder(Datapath::Tc).build().unwrap();
        lab.peer.ip(&format!("address add 192.168.99.2/24 dev {PEER_NIC}")).unwrap();
        let target = format!("arp_ip_target={PEER_V4},192.168.99.2");
        let others = format!("arp_validate=all arp_all_targets={all}");
        let interval = format!("arp_interval={INTERVAL}");
        let options = options(&interval, &target, &others);
        let mut bond = Monitored::new(&lab, Datapath::Tc, &options);
        bond.leave(Agent::Stopped);
        bond.stays(10);
        let gone = Instant::now();
        lab.peer.ip(&format!("address del 192.168.99.2/24 dev {PEER_NIC}")).unwrap();
        if stays {
            bond.stays(20);
        } else {
            bond.wait_for(None, gone);
            lab.peer.ip(&format!("address add 192.168.99.2/24 dev {PEER_NIC}")).unwrap();
            eventually("an active slave", || bond.pinned.active().is_some(), |is_some| *is_some);
        }
        bond.resume(Datapath::Tc, &options);
        bond.xbond.take().unwrap().stop().unwrap();
    }
}

/// Only the active slave probes, in the interval, with its own MAC address; without one, the slaves take turns.
#[test]
fn probes_leave_without_an_agent_as_with_one() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = builder(Datapath::Tc).build().unwrap();
    let (interval, target) = (format!("arp_interval={INTERVAL}"), format!("arp_ip_target={PEER_V4}"));
    let options = options(&interval, &target, "fail_over_mac=active");
    let mut bond = Monitored::new(&lab, Datapath::Tc, &options);
    let capture = Capture::start_on(&lab.switch.netns, &lab.port(SLAVES[0]).unwrap()).unwrap();
    // The tick sends what the agent sent last, which has the bond's address as soon as there is a route.
    let numbered = |frame: &Frame| !frame.outgoing && frame.bytes.get(28..32) == Some(&HOST_V4.octets());
    eventually(
        "probes of the agent",
        || capture.frames().iter().filter(|frame| numbered(frame)).count(),
        |seen| *seen >= 3,
    );
    bond.leave(Agent::Killed);
    let ports = SLAVES.map(|nic| lab.port(nic).unwrap());
    // The requests that arrived at each port: when, and the bytes.
    let requests = |capture: &Capture| {
        let asks =
            |bytes: &[u8]| bytes.get(12..14) == Some(&[8, 6]) && bytes.get(38..42) == Some(&PEER_V4.octets());
        let frames = capture.frames().into_iter().filter(|frame| !frame.outgoing && asks(&frame.bytes));
        frames.filter(|frame| ports.contains(&frame.ifname)).collect::<Vec<_>>()
    };
    let capture = Capture::start(&lab.switch.netns).unwrap();
    bond.steps(10);
    let sent = requests(&capture);
    assert!((9..=12).contains(&sent.len()), "{}", sent.len());
    let (mac, port) = (lab.mac(SLAVES[0]).unwrap().bytes(), lab.port(SLAVES[0]).unwrap());
    for frame in &sent {
        assert_eq!(frame.ifname, port);
        assert_eq!((&frame.bytes[6..12], &frame.bytes[22..28]), (&mac[..], &mac[..]), "source and sender");
        assert_eq!(frame.bytes[28..32], HOST_V4.octets());
    }
    let gaps = sent.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at).as_millis());
    assert!(gaps.clone().all(|gap| (80..=130).contains(&gap)), "{:?}", gaps.collect::<Vec<_>>());

    for nic in SLAVES {
        lab.cut(nic, Cut::Silent).unwrap();
    }
    bond.wait_for(None, Instant::now());
    let capture = Capture::start(&lab.switch.netns).unwrap();
    bond.steps(8);
    let ports: Vec<_> = requests(&capture).into_iter().map(|frame| frame.ifname).collect();
    assert!(ports.len() >= 6 && ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

/// Nothing fails over while everything answers, however long no agent acts; and the agent that returns changes nothing.
#[test]
fn a_healthy_bond_keeps_its_slave_while_its_agent_is_stopped() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let (interval, target) = (format!("arp_interval={INTERVAL}"), format!("arp_ip_target={PEER_V4}"));
    for others in ["arp_validate=all arp_missed_max=1", "arp_validate=none"] {
        let options = options(&interval, &target, others);
        let mut bond = Monitored::new(&lab, Datapath::Tc, &options);
        for seconds in [0.3, 1.0, 10.0] {
            let before = bond.pinned.maps.active();
            bond.xbond.as_ref().unwrap().pause().unwrap();
            thread::sleep(Duration::from_secs_f64(seconds));
            let xbond = bond.resume(Datapath::Tc, &options);
            wait_for_active(xbond, SLAVES[0]);
            thread::sleep(Duration::from_millis(8 * INTERVAL));
            assert_eq!(bond.pinned.maps.active(), before, "{others} after {seconds} s: {:?}", bond.state());
        }
        bond.xbond.take().unwrap().stop().unwrap();
    }
}

/// Two of three slaves are at a switch whose uplink dies. Each of them receives the other's probes.
#[test]
fn the_slave_at_another_switch_is_reached_in_one_interval_for_each() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let nics = (0..3).map(|index| Nic::new(&format!("nic{index}"), [2, 0, 0, 0, 9, index]));
    let lab = builder(Datapath::Tc).nics(nics).two_switches().build().unwrap();
    let moved = lab.port("nic2").unwrap();
    lab.switch.netns.ip(&format!("link set {moved} nomaster")).unwrap();
    lab.switch.plug_into_second(&moved).unwrap();
    let (interval, target) = (format!("arp_interval={INTERVAL}"), format!("arp_ip_target={PEER_V4}"));
    for validate in ["none", "active", "filter", "all"] {
        for agent in [None, Some(Agent::Killed), Some(Agent::Stopped)] {
            let what = format!("{validate} {agent:?}");
            let others = format!("arp_validate={validate} primary=nic1");
            let options = options(&interval, &target, &others);
            let mut bond = Monitored::new(&lab, Datapath::Tc, &options);
            bond.wait_for(Some("nic1"), Instant::now());
            if let Some(agent) = agent {
                bond.leave(agent);
            }
            let trunk = |state: &str| lab.switch.netns.ip(&format!("link set trunk0 {state}")).unwrap();
            trunk("down");
            let took = bond.wait_for(Some("nic0"), Instant::now());
            println!("{what}: {took:?}");
            assert!(took <= FAILOVER + Duration::from_millis(3 * INTERVAL), "{what}: {took:?}");
            thread::sleep(Duration::from_millis(10 * INTERVAL));
            assert_eq!(bond.pinned.active(), Some("nic0"), "{what}");
            trunk("up");
            bond.wait_for(Some("nic1"), Instant::now());
            bond.resume(Datapath::Tc, &options);
            bond.xbond.take().unwrap().stop().unwrap();
        }
    }
}

/// A preferred slave takes over when it answers again.
#[test]
fn a_primary_takes_over_without_an_agent_when_it_answers_again() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let (interval, target) = (format!("arp_interval={INTERVAL}"), format!("arp_ip_target={PEER_V4}"));
    let primary = format!("primary={}", SLAVES[0]);
    let options = options(&interval, &target, &primary);
    let mut bond = Monitored::new(&lab, Datapath::Tc, &options);
    bond.leave(Agent::Killed);
    let cut = lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    bond.wait_for(Some(SLAVES[1]), cut);
    bond.steps(3);
    let reconnected = lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    bond.wait_for(Some(SLAVES[0]), reconnected);
    bond.stays(5);
    let xbond = bond.resume(Datapath::Tc, &options);
    let reasons: Vec<_> = reported(xbond).into_iter().map(|(_, _, reason)| reason).collect();
    assert_eq!(reasons, ["link_failed", "link_recovered"]);
    bond.xbond.take().unwrap().stop().unwrap();
}
