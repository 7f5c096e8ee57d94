//! The path monitor: what dies with its link up is left within 40 ms, with and without an agent.

mod common;
#[path = "common/pinned.rs"]
mod pinned;

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, active_slave, alone, bond, bond_with, builder, concurrently, eventually, rate,
    show, slave, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use pinned::Pinned;
use serde_json::{Value, json};
use xbond_tests::{
    Cut, Flow, FlowOptions, HOST_V4, Lab, NetNs, PEER_V4, Recovery, TwoWay, Xbond, figures::quantile,
    lab::Datapath, netns::unique_stem, skip_if_unable, xbond::cli,
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
    let mut line = vec![target.as_str()];
    line.extend(
        Some("path_interval=10")
            .filter(|_| !options.iter().any(|option| option.starts_with("path_interval="))),
    );
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
    eventually("a sentence", sentence, |text| text.contains("no target answers through any slave"));
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
    lab.host.ip("-6 route add default via fe80::7 dev bond0").unwrap();
    eventually("an IPv6 gateway", fault, |fault| {
        fault.contains("the IPv6 gateway fe80::7, and only IPv4 neighbours")
    });
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

/// Probing by backups changes no table of the switches and of the target, for the bond's MAC addresses. `PROBED` has another
/// time than 20 seconds for each policy: `PROBED=3600 cargo test -p xbond-tests --test paths move_no_table`.
#[test]
fn probes_of_backups_move_no_table() {
    skip_if_unable!();
    let _turn = concurrently();
    let seconds = std::env::var("PROBED").map_or(20, |seconds| seconds.parse().unwrap());
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
                .filter(|line| wire.iter().any(|mac| line.contains(mac)))
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
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            assert_eq!(tables(), before, "{policy}");
            thread::sleep(Duration::from_millis(100));
        }
        let answers = |name| slave(&show(&xbond), name)["path"]["answers"].as_u64().unwrap();
        assert!(answers(SLAVES[1]) >= seconds * 3 / 4, "{policy}: {}", answers(SLAVES[1]));
        xbond.stop().unwrap();
    }
}

/// A switch port that comes up five seconds before it forwards, as the first slave's link returns. Returns how many of the
/// packets to the peer were lost from then on, until the primary was active again and its port forwarded.
fn lost_at_the_return(lab: &Lab, pinned: &Pinned) -> u64 {
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    eventually("a failover", || pinned.active() == Some(SLAVES[1]), |left| *left);
    thread::sleep(Duration::from_secs(2));
    swallow(lab, SLAVES[0], Swallows::All);
    let options = FlowOptions { rate: 2_000, ..FlowOptions::default() };
    let flow = Flow::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), options).unwrap();
    flow.wait_for_more(100).unwrap();
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    thread::sleep(Duration::from_secs(5));
    forward_again(lab, SLAVES[0]);
    eventually("the primary", || pinned.active() == Some(SLAVES[0]), |back| *back);
    thread::sleep(Duration::from_secs(1));
    flow.stop().unwrap().account.lost
}

/// What a port swallows before it forwards is lost if a slave takes back as soon as its link is up, and not if it has to prove
/// its path: with an agent, and by the ticks of the kernel.
#[test]
fn a_proven_slave_takes_back_without_loss_from_a_port_that_forwards_late() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let primary = format!("primary={}", SLAVES[0]);
    for (failback, killed) in [("now", false), ("proven", false), ("proven", true)] {
        let lab = builder(Datapath::Tc).build().unwrap();
        let option = format!("failback={failback}");
        let xbond = monitored(&lab, Datapath::Tc, &[&option, &primary, "path_interval=100", "on_exit=keep"]);
        let pinned = Pinned::open(&lab.host, BOND).unwrap();
        let xbond = if killed { xbond.kill().map(|()| None).unwrap() } else { Some(xbond) };
        let lost = lost_at_the_return(&lab, &pinned);
        println!("failback={failback} killed={killed}: {lost} packets lost");
        match failback {
            "now" => assert!(lost > 100, "{lost}"),
            _ => assert_eq!(lost, 0, "killed={killed}"),
        }
        match xbond {
            Some(xbond) => drop(xbond.stop().unwrap()),
            None => drop(cli(&lab.host, ["down", BOND, "--force"]).unwrap()),
        }
    }
}

/// With an interval of a second, a dead path is left in three seconds without traffic. Traffic that is not answered any more has
/// it probed at once.
#[test]
fn traffic_without_answers_has_a_dead_path_found_sooner() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &["path_interval=1000", "path_method=echo"]);
    let pinned = Pinned::open(&lab.host, BOND).unwrap();
    let gaps = gaps(&lab, &pinned, SLAVES[0], Swallows::ToHost);
    println!("{gaps:?}");
    assert!(gaps[1] <= Duration::from_millis(400), "{gaps:?}");
    assert_eq!(monitor(&show(&xbond))["suspicions"], 1);
    xbond.stop().unwrap();
}

/// A host that ends is no dead path: the targets answer.
#[test]
fn traffic_without_answers_leaves_no_slave_whose_targets_answer() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &["path_interval=1000", "path_method=echo"]);
    let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
    let _sent = Flow::start(host, peer, FlowOptions::default()).unwrap();
    let answers = Flow::start(peer, host, FlowOptions::default()).unwrap();
    answers.wait_for_more(500).unwrap();
    answers.stop().unwrap();
    let suspicion = || slave(&show(&xbond), SLAVES[0])["path"]["suspicion"].clone();
    eventually("a suspicion", suspicion, |suspicion| suspicion["silence"].as_u64() > Some(2000));
    let text = xbond.cli(["show", BOND]).unwrap();
    assert!(text.contains(&format!("! {}: one-way suspicion: it has sent ", SLAVES[0])), "{text}");
    assert!(text.contains("its targets answer, so it stays active"), "{text}");
    assert!(receipts(&xbond).is_empty());
    let again = Flow::start(peer, host, FlowOptions::default()).unwrap();
    eventually("no suspicion", suspicion, Value::is_null);
    again.stop().unwrap();
    xbond.stop().unwrap();
}

#[test]
fn a_slave_that_has_to_prove_its_path_is_shown() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let primary = format!("primary={}", SLAVES[0]);
    let xbond = monitored(&lab, Datapath::Tc, &["failback=proven", &primary]);
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_active(&xbond, SLAVES[1]);
    swallow(&lab, SLAVES[0], Swallows::All);
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[0], "up");
    let state = || slave(&show(&xbond), SLAVES[0])["path"]["state"].clone();
    eventually("an unproven path", state, |state| state == "unproven");
    let text = xbond.cli(["show", BOND]).unwrap();
    assert!(
        text.contains(&format!("path of {} unproven: it joined, or its link was lost", SLAVES[0])),
        "{text}"
    );
    assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[1]));
    // Without the setting it is used at once.
    xbond.set(BOND, "failback=now").unwrap();
    xbond.wait_for("active slave enp0s8 instead of enp0s9").unwrap();
    forward_again(&lab, SLAVES[0]);
    xbond.stop().unwrap();
}

/// A port that takes the bond's MAC address only, as under fail_over_mac=none it has to: the backup cannot be probed.
#[test]
fn a_backup_whose_port_takes_one_mac_only_is_said_not_to_be_probed() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    route_on_peer(&lab, true);
    let (port, mac) = (lab.port(SLAVES[1]).unwrap(), lab.mac(SLAVES[0]).unwrap());
    nft(
        &lab,
        &format!(
            "add table netdev {port}\nadd chain netdev {port} ingress {{ type filter hook ingress device {port} priority 0; }}\n\
             add rule netdev {port} ingress ether saddr != {mac} drop\n"
        ),
    );
    let target = format!("path_target={PEER_V4}");
    let xbond = bond(&lab, Datapath::Tc, &[&target, "fail_over_mac=none"]);
    let why = || slave(&show(&xbond), SLAVES[1])["path"]["why"].as_str().unwrap_or_default().to_owned();
    eventually("seldom probes", why, |why| why.contains("off but for one a minute"));
    assert_eq!(slave(&show(&xbond), SLAVES[1])["path"]["answers"], 0);
    // It is used all the same, as soon as the other one fails.
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_active(&xbond, SLAVES[1]);
    let state = || slave(&show(&xbond), SLAVES[1])["path"]["state"].clone();
    eventually("a path", state, |state| state == "works");
    xbond.stop().unwrap();
}

/// With `path` in watch a slave whose path has failed is down, and not only avoided.
#[test]
fn a_slave_that_watches_its_path_is_down_when_that_fails() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &["watch=all=carrier,path"]);
    swallow(&lab, SLAVES[0], Swallows::All);
    wait_for_active(&xbond, SLAVES[1]);
    wait_for_status(&xbond, SLAVES[0], "down");
    assert_eq!(slave(&show(&xbond), SLAVES[0])["link_failure_count"], 1);
    // The setting of the slave precedes.
    xbond.cli(["set", BOND, "--slave", SLAVES[0], "watch=carrier"]).unwrap();
    wait_for_status(&xbond, SLAVES[0], "up");
    xbond.cli(["set", BOND, "--slave", SLAVES[0], "watch=bond"]).unwrap();
    wait_for_status(&xbond, SLAVES[0], "down");
    forward_again(&lab, SLAVES[0]);
    wait_for_status(&xbond, SLAVES[0], "up");
    xbond.set(BOND, "watch=monitor").unwrap();
    assert!(xbond.set(BOND, "watch=link").unwrap_err().to_string().contains("all or any of carrier"));
    xbond.stop().unwrap();
}

/// Returns the unicast MAC addresses that a NIC of the host receives in addition to its own.
fn filter_of(lab: &Lab, nic: &str) -> Vec<String> {
    let fdb = lab.host.exec(&format!("bridge fdb show dev {nic}")).unwrap();
    let unicast = fdb.lines().filter(|line| line.contains("self permanent"));
    let macs = unicast.filter_map(|line| line.split_whitespace().next());
    macs.filter(|mac| !mac.starts_with("01:") && !mac.starts_with("33:")).map(str::to_owned).collect()
}

/// Under none a backup is probed by a MAC address that is not its own: the NIC has to receive the answer.
#[test]
fn nics_receive_the_answers_to_probes_of_backups() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &["fail_over_mac=none"]);
    let permanent = lab.mac(SLAVES[1]).unwrap().to_string();
    for nic in SLAVES {
        eventually("the filter", || filter_of(&lab, nic), |macs| macs.contains(&permanent));
    }
    xbond.set(BOND, "path_target=off").unwrap();
    eventually("no further MAC", || filter_of(&lab, SLAVES[1]), Vec::is_empty);
    xbond.set(BOND, &format!("path_target={PEER_V4}")).unwrap();
    eventually("the filter", || filter_of(&lab, SLAVES[1]), |macs| macs.contains(&permanent));
    // What is removed without its agent leaves nothing behind.
    xbond.kill().unwrap();
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    assert!(SLAVES.iter().all(|nic| filter_of(&lab, nic).is_empty()));
}

/// A macvlan above bond0 has the permanent MAC address of the backup, by which that would be probed.
#[test]
fn probes_of_backups_take_no_frames_of_a_guest() {
    const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 109);
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).two_switches().build().unwrap();
    let xbond = monitored(&lab, Datapath::Tc, &["fail_over_mac=none"]);
    let permanent = slave(&show(&xbond), SLAVES[1])["permanent_mac"].as_str().unwrap().to_owned();
    let guest = NetNs::create(&format!("{}-guest", unique_stem())).unwrap();
    lab.host
        .ip(&format!("link add mv0 link {BOND} address {permanent} type macvlan mode bridge"))
        .and_then(|_| lab.host.ip(&format!("link set mv0 netns {}", guest.name())))
        .and_then(|_| guest.ip("link set mv0 up"))
        .and_then(|_| guest.ip(&format!("address add {GUEST}/24 dev mv0")))
        .unwrap();
    eventually("the guest speaks", || guest.ping(PEER_V4.into(), 1).unwrap().received, |found| *found == 1);
    // Its own, and the one by which it is probed now.
    eventually("another address", || filter_of(&lab, SLAVES[1]), |filter| filter.len() == 2);
    guest.ping(PEER_V4.into(), 1).unwrap();
    let options = FlowOptions { rate: 500, ..FlowOptions::default() };
    let flow = Flow::start((&lab.peer, PEER_V4.into()), (&guest, GUEST.into()), options).unwrap();
    // Three probes of the backup.
    flow.wait_for_more(1500).unwrap();
    let report = flow.stop().unwrap();
    assert_eq!(report.lost, 0, "of {}", report.sent);
    xbond.stop().unwrap();
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
