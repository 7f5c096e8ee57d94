//! The path monitor: what dies with its link up is left within 40 ms, with and without an agent.

mod common;
#[path = "common/pinned.rs"]
mod pinned;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, alone, bond, bond_with, builder, concurrently, eventually, rate, show, slave,
    wait_for_active,
};
use nix::sys::signal::Signal;
use pinned::Pinned;
use serde_json::{Value, json};
use xbond_tests::{
    HOST_V4, Lab, PEER_V4, Recovery, TwoWay, Xbond, figures::quantile, lab::Datapath, skip_if_unable,
    xbond::cli,
};

const POLICIES: [&str; 3] = ["none", "active", "follow"];
/// What a failover may take at path_interval=10 and path_misses=3.
const FAILOVER: Duration = Duration::from_millis(40);
/// What the machine takes for a rule of nftables, which is given the time before it is in force.
const RULE: Duration = Duration::from_millis(30);

/// What a switch's port swallows. The carrier stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swallows {
    All,
    FromHost,
    ToHost,
    Unicast,
}

impl Swallows {
    const EACH: [Self; 4] = [Self::All, Self::FromHost, Self::ToHost, Self::Unicast];

    /// Returns the rules of the hooks that drop frames: for the switch a frame from the NIC is ingress.
    fn rules(self) -> [Option<&'static str>; 2] {
        const UNICAST: &str = "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 drop";
        match self {
            Self::All => [Some("drop"), Some("drop")],
            Self::FromHost => [Some("drop"), None],
            Self::ToHost => [None, Some("drop")],
            Self::Unicast => [Some(UNICAST), Some(UNICAST)],
        }
    }
}

/// Has the port of a NIC swallow frames. Returns the times before and after that began.
fn swallow(lab: &Lab, nic: &str, what: Swallows) -> [Instant; 2] {
    let port = lab.port(nic).unwrap();
    let mut rules = format!("add table netdev {port}\n");
    for (hook, rule) in ["ingress", "egress"].into_iter().zip(what.rules()) {
        let Some(rule) = rule else { continue };
        rules += &format!(
            "add chain netdev {port} {hook} {{ type filter hook {hook} device {port} priority 0; }}\n"
        );
        rules += &format!("add rule netdev {port} {hook} {rule}\n");
    }
    let before = Instant::now();
    nft(lab, &rules);
    [before, Instant::now()]
}

fn forward_again(lab: &Lab, nic: &str) -> Instant {
    let before = Instant::now();
    nft(lab, &format!("delete table netdev {}", lab.port(nic).unwrap()));
    before
}

fn nft(lab: &Lab, rules: &str) {
    let output = lab.switch.netns.command("nft").arg(rules).output().unwrap();
    assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Has the peer send echoes back, as a router does.
fn route_on_peer(lab: &Lab, on: bool) {
    lab.peer.sysctl("ipv4/ip_forward", if on { "1" } else { "0" }).unwrap();
}

fn monitor(bond: &Value) -> Value {
    bond["path"].clone()
}

/// Starts a bond whose targets answer, and waits until every path is known to work.
fn monitored<'lab>(lab: &'lab Lab, datapath: Datapath, options: &[&str]) -> Xbond<'lab> {
    route_on_peer(lab, true);
    let target = format!("path_target={PEER_V4}");
    let mut line = vec![target.as_str(), "path_interval=10"];
    line.extend(options);
    let xbond = bond(lab, datapath, &line);
    wait_for_paths(&xbond, "echo");
    xbond
}

#[track_caller]
fn wait_for_paths(xbond: &Xbond<'_>, method: &str) {
    let works = |bond: &Value| {
        let works = |name: &str| slave(bond, name)["path"]["state"] == "works";
        bond["path"]["method"] == method && SLAVES.iter().all(|name| works(name))
    };
    eventually("paths that work", || show(xbond), works);
}

/// Returns bond0 as `xbond show -j` reports it without an agent.
fn orphan(lab: &Lab) -> Value {
    let text = cli(&lab.host, ["show", BOND, "-j"]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["bonds"][0].take()
}

/// Returns the receipts of the path monitor's failovers.
fn receipts(xbond: &Xbond<'_>) -> Vec<Value> {
    let log = xbond.cli(["log", BOND, "-j"]).unwrap();
    let receipts = serde_json::from_str::<Value>(&log).unwrap()["receipts"].take();
    receipts.as_array().unwrap().iter().filter(|receipt| receipt["reason"] == "path").cloned().collect()
}

/// Has a port swallow under numbered packets in both directions. Returns for how long none arrived at the peer, and at the host.
fn gaps(lab: &Lab, pinned: &Pinned, nic: &str, what: Swallows) -> [Duration; 2] {
    let flows = TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), rate()).unwrap();
    flows.wait_for_more(100).unwrap();
    let [before, after] = swallow(lab, nic, what);
    let deadline = after + Duration::from_secs(5);
    while pinned.active() == Some(nic) {
        assert!(
            Instant::now() < deadline,
            "{nic} stays active: {:?}",
            pinned.maps.clock().unwrap().path().state()
        );
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(200));
    flows.stop().unwrap().map(|report| {
        let from = report.since_start(before);
        assert_ne!(report.recovery(before), Recovery::Never, "{what:?}");
        report.account.outage_within(from..from + Duration::from_secs(1))
    })
}

#[test]
fn a_port_that_swallows_is_left_with_an_agent() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        for policy in POLICIES {
            let lab = builder(datapath).build().unwrap();
            let option = format!("fail_over_mac={policy}");
            let xbond = monitored(&lab, datapath, &[&option]);
            let pinned = Pinned::open(&lab.host, BOND).unwrap();
            let mut active = 0;
            for (number, what) in Swallows::EACH.into_iter().enumerate() {
                let nic = SLAVES[active];
                let gaps = gaps(&lab, &pinned, nic, what);
                println!("{} {policy} {what:?}: {gaps:?}", datapath.name());
                assert!(gaps.iter().all(|gap| *gap <= FAILOVER + RULE), "{what:?} {policy}: {gaps:?}");
                eventually("a receipt", || receipts(&xbond).len(), |found| *found == number + 1);
                forward_again(&lab, nic);
                wait_for_paths(&xbond, "echo");
                active = 1 - active;
            }
            let last = receipts(&xbond).pop().unwrap();
            assert_eq!(
                (&last["seen"], &last["path"]["targets"]),
                (&json!("path"), &json!([PEER_V4.to_string()]))
            );
            let bond = show(&xbond);
            let failures = SLAVES.map(|name| slave(&bond, name)["link_failure_count"].clone());
            assert_eq!(failures, [0, 0].map(Value::from), "{policy}: no link has failed");
            xbond.stop().unwrap();
        }
    }
}

#[test]
fn a_port_that_swallows_is_left_without_an_agent() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        for policy in POLICIES {
            let lab = builder(datapath).build().unwrap();
            let option = format!("fail_over_mac={policy}");
            let options = [option.as_str(), "prearm=true", "on_exit=keep"];
            let options = if policy == "follow" { &options[..2] } else { &options[..1] };
            let xbond = monitored(&lab, datapath, options);
            let pinned = Pinned::open(&lab.host, BOND).unwrap();
            xbond.kill().unwrap();
            thread::sleep(Duration::from_millis(500));
            let gaps = gaps(&lab, &pinned, SLAVES[0], Swallows::All);
            println!("{} {policy} without an agent: {gaps:?}", datapath.name());
            assert!(gaps.iter().all(|gap| *gap <= FAILOVER + RULE), "{policy}: {gaps:?}");
            let bond = orphan(&lab);
            assert_eq!(bond["active_slave"], SLAVES[1]);
            assert_eq!(slave(&bond, SLAVES[0])["path"]["state"], "failed");
            assert_eq!(bond["last_failover"]["reason"], "path", "{bond}");
            // It is not used again before it answers, however long that takes.
            thread::sleep(Duration::from_secs(2));
            assert_eq!(pinned.active(), Some(SLAVES[1]));
            let target = format!("path_target={PEER_V4}");
            let mut line = vec![target.as_str(), "path_interval=10"];
            line.extend(options);
            let xbond = bond_with_paths(&lab, datapath, &line);
            eventually("the receipt", || receipts(&xbond), |found| found.len() == 1);
            assert_eq!(show(&xbond)["active_slave"], SLAVES[1], "{policy}");
            forward_again(&lab, SLAVES[0]);
            wait_for_paths(&xbond, "echo");
            xbond.stop().unwrap();
        }
    }
}

/// Has an agent adopt the bond.
fn bond_with_paths<'lab>(lab: &'lab Lab, datapath: Datapath, options: &[&str]) -> Xbond<'lab> {
    bond_with(lab, datapath, options, &[])
}

#[test]
fn a_silent_target_moves_nothing() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &[]);
    let before = show(&xbond)["generation"].clone();
    // The target reboots: it answers nothing, then ARP, and forwards at last.
    route_on_peer(&lab, false);
    lab.peer.ip("link set eth0 down").unwrap();
    let sentence = || xbond.cli(["show", BOND]).unwrap();
    eventually("a sentence", sentence, |text| text.contains("the targets answer by no slave"));
    thread::sleep(Duration::from_secs(10));
    lab.peer.ip("link set eth0 up").unwrap();
    thread::sleep(Duration::from_secs(3));
    route_on_peer(&lab, true);
    wait_for_paths(&xbond, "echo");
    let bond = show(&xbond);
    assert_eq!((&bond["active_slave"], &bond["generation"]), (&json!(SLAVES[0]), &before), "{bond}");
    assert_eq!(monitor(&bond)["silent"], false);
    assert!(receipts(&xbond).is_empty());
    xbond.stop().unwrap();
}

#[test]
fn a_target_that_returns_no_echo_is_asked_by_arp() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = builder(Datapath::Tc).build().unwrap();
    let target = format!("path_target={PEER_V4}");
    let xbond = bond(&lab, Datapath::Tc, &[&target, "path_interval=10"]);
    wait_for_paths(&xbond, "arp");
    let path = monitor(&show(&xbond));
    assert_eq!(
        (&path["interval"], &path["why"]),
        (&json!(200), &json!("the target has not returned echoes"))
    );
    let pinned = Pinned::open(&lab.host, BOND).unwrap();
    let [before, _] = swallow(&lab, SLAVES[0], Swallows::Unicast);
    wait_for_active(&xbond, SLAVES[1]);
    let took = before.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(pinned.active(), Some(SLAVES[1]));
    forward_again(&lab, SLAVES[0]);
    // Then it does, and stops again: no path has failed by that.
    route_on_peer(&lab, true);
    wait_for_paths(&xbond, "echo");
    route_on_peer(&lab, false);
    wait_for_paths(&xbond, "arp");
    let path = monitor(&show(&xbond));
    assert_eq!((&path["fallbacks"], &path["failovers"]), (&json!(1), &json!(1)), "{path}");
    xbond.stop().unwrap();
}

#[test]
fn targets_are_taken_from_the_default_route_and_set_while_the_bond_runs() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    route_on_peer(&lab, true);
    let xbond = bond(&lab, Datapath::Tc, &["path_target=gateway"]);
    let fault = || monitor(&show(&xbond))["fault"].to_string();
    eventually("no gateway", fault, |fault| fault.contains("no IPv4 default route"));
    lab.host.ip(&format!("route add default via {PEER_V4}")).unwrap();
    let targets = || monitor(&show(&xbond))["targets"].clone();
    eventually("the gateway", targets, |targets| *targets == json!([PEER_V4.to_string()]));
    lab.peer.ip("address add 192.168.99.2/24 dev eth0").unwrap();
    lab.host.ip("route replace default via 192.168.99.2").unwrap();
    eventually("the new gateway", targets, |targets| *targets == json!(["192.168.99.2"]));
    xbond.set(BOND, &format!("path_target={PEER_V4},192.168.99.2")).unwrap();
    eventually("two targets", targets, |targets| *targets == json!([PEER_V4.to_string(), "192.168.99.2"]));
    wait_for_paths(&xbond, "echo");
    xbond.set(BOND, "path_target=203.0.113.7").unwrap();
    eventually("no neighbour", fault, |fault| fault.contains("reached by the gateway 192.168.99.2"));
    xbond.set(BOND, "path_target=off").unwrap();
    eventually("no monitor", || monitor(&show(&xbond)), Value::is_null);
    xbond.stop().unwrap();
}

/// A minute of probing by backups changes no table of the switches and of the target.
#[test]
fn probes_of_backups_move_no_table() {
    skip_if_unable!();
    let _turn = concurrently();
    for policy in POLICIES {
        let lab = builder(Datapath::Tc).two_switches().build().unwrap();
        let option = format!("fail_over_mac={policy}");
        let xbond = monitored(&lab, Datapath::Tc, &[&option]);
        lab.host.ping(PEER_V4.into(), 1).unwrap();
        let wire: Vec<String> = SLAVES
            .iter()
            .map(|name| slave(&show(&xbond), name)["wire_mac"].as_str().unwrap().to_owned())
            .collect();
        let tables = || {
            let fdb = lab.switch.netns.exec("bridge fdb show").unwrap();
            let mut fdb: Vec<_> = fdb
                .lines()
                .filter(|line| wire[..1].iter().any(|mac| line.contains(mac)))
                .map(str::to_owned)
                .collect();
            fdb.sort();
            let neighbour = lab.peer.ip(&format!("neighbour show {HOST_V4}")).unwrap();
            let mac =
                neighbour.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned);
            (fdb, mac)
        };
        let before = tables();
        assert!(!before.0.is_empty() && before.1.is_some(), "{before:?}");
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            assert_eq!(tables(), before, "{policy}");
            thread::sleep(Duration::from_millis(100));
        }
        let answers = |name| slave(&show(&xbond), name)["path"]["answers"].as_u64().unwrap();
        assert!(answers(SLAVES[1]) >= 15, "{policy}: {}", answers(SLAVES[1]));
        xbond.stop().unwrap();
    }
}

/// An agent that is stopped for long changes nothing, nor does it when it is resumed.
#[test]
fn a_stopped_agent_is_no_reason_to_move() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &[]);
    let before = show(&xbond)["generation"].clone();
    xbond.pause().unwrap();
    thread::sleep(Duration::from_secs(5));
    xbond.signal(Signal::SIGCONT).unwrap();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(show(&xbond)["generation"], before);
    xbond.stop().unwrap();
}

/// The slowest of many failovers. It takes minutes: `cargo test -p xbond-tests --test paths -- --ignored --nocapture`.
#[test]
#[ignore = "measures for minutes"]
fn failovers_of_fifty_trials() {
    let Some(_turn) = alone() else { return };
    let trials = std::env::var("TRIALS").ok().and_then(|number| number.parse().ok()).unwrap_or(50);
    for datapath in DATAPATHS {
        for policy in POLICIES {
            for killed in [false, true] {
                let lab = builder(datapath).build().unwrap();
                let option = format!("fail_over_mac={policy}");
                let xbond = monitored(
                    &lab,
                    datapath,
                    &[&option, "prearm=true"][..if policy == "follow" { 2 } else { 1 }],
                );
                let pinned = Pinned::open(&lab.host, BOND).unwrap();
                let xbond = if killed { xbond.kill().map(|()| None).unwrap() } else { Some(xbond) };
                let (mut sent, mut received) = (Vec::new(), Vec::new());
                for trial in 0..trials {
                    let nic = SLAVES[trial % 2];
                    let gaps = gaps(&lab, &pinned, nic, Swallows::All).map(|gap| gap.as_secs_f64() * 1000.0);
                    sent.push(gaps[0]);
                    received.push(gaps[1]);
                    forward_again(&lab, nic);
                    let path = || pinned.maps.clock().unwrap().path().state().failed;
                    eventually("both paths work", path, |failed| *failed == 0);
                }
                sent.sort_by(f64::total_cmp);
                received.sort_by(f64::total_cmp);
                let of = |values: &[f64]| [0.5, 0.99, 1.0].map(|part| quantile(values, part));
                let (sent, received) = (of(&sent), of(&received));
                println!(
                    "{} {policy} killed={killed}: sent {sent:.1?} received {received:.1?}",
                    datapath.name()
                );
                match xbond {
                    Some(xbond) => drop(xbond.stop().unwrap()),
                    None => drop(cli(&lab.host, ["down", BOND, "--force"]).unwrap()),
                }
            }
        }
    }
}
