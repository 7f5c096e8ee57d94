//! The reference scenario: three policies, each from its own ifcfg files, with the MAC addresses that `ip link` must
//! show.

mod common;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, tc::TcAttachType};
use common::{
    BOND, Brief, DATAPATHS, SLAVES, bond, brief, eventually, lab, meet, show, slave, traffic,
    wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use xbond_tests::{
    Cut, Flow, FlowOptions, HOST_V4, Lab, NetNs, PEER_V4, Policy, Recovery, Xbond, lab::Datapath,
    skip_if_unable, xbond::scenario_files,
};

/// A permanent MAC address.
const FIRST: &str = "08:00:27:e8:26:58";
const SECOND: &str = "08:00:27:27:a9:2d";

/// The MAC addresses of bond0, enp0s8 and enp0s9.
struct Macs {
    fail_over_mac: &'static str,
    before: [&'static str; 3],
    after: [&'static str; 3],
}

const TABLE: [Macs; 3] = [
    Macs { fail_over_mac: "none", before: [FIRST, FIRST, FIRST], after: [FIRST, FIRST, FIRST] },
    Macs { fail_over_mac: "active", before: [FIRST, FIRST, SECOND], after: [SECOND, FIRST, SECOND] },
    Macs { fail_over_mac: "follow", before: [FIRST, FIRST, SECOND], after: [FIRST, SECOND, FIRST] },
];

/// Runs the scenario's files unchanged.
fn run<'lab>(lab: &'lab Lab, fail_over_mac: &str, datapath: Datapath) -> Xbond<'lab> {
    let files = scenario_files(fail_over_mac);
    Xbond::run(&lab.host, ["--ifcfg", files.to_str().unwrap(), "--datapath", datapath.name()]).unwrap()
}

fn links(host: &NetNs) -> [Brief; 3] {
    [BOND, SLAVES[0], SLAVES[1]].map(|name| brief(host, name))
}

fn expected(macs: [&str; 3], states: [&str; 3]) -> [Brief; 3] {
    let row = |index: usize| Brief { state: states[index].to_owned(), mac: macs[index].to_owned() };
    [row(0), row(1), row(2)]
}

#[track_caller]
fn assert_addressed(host: &NetNs) {
    let address = host.ip("-o address show dev bond0").unwrap();
    assert!(address.contains(" 192.168.99.101/24 "), "{address}");
    for name in [BOND, SLAVES[0], SLAVES[1]] {
        assert_eq!(host.link(name).unwrap().mtu, 1500, "{name}");
    }
}

fn mac_tables(datapath: Datapath) {
    for (cut, signal) in [(Cut::Admin, Signal::SIGINT), (Cut::Carrier, Signal::SIGTERM)] {
        for Macs { fail_over_mac, before, after } in &TABLE {
            let what = format!("{fail_over_mac}, {}, {cut:?}", datapath.name());
            let lab = lab(datapath, Policy::Learning);
            let found = used_once(&lab);
            let xbond = run(&lab, fail_over_mac, datapath);
            let wanted = expected(*before, ["UP", "UP", "UP"]);
            eventually(&format!("{what}, before"), || links(&lab.host), |seen| *seen == wanted);
            assert_addressed(&lab.host);
            let bond = show(&xbond);
            assert_eq!(
                (&bond["active_slave"], &bond["mac"]),
                (&"enp0s8".into(), &before[0].into()),
                "{what}"
            );

            lab.cut("enp0s8", cut).unwrap();
            let wanted = expected(*after, ["UP", "DOWN", "UP"]);
            eventually(&format!("{what}, after"), || links(&lab.host), |seen| *seen == wanted);
            assert_addressed(&lab.host);
            let bond = show(&xbond);
            assert_eq!((&bond["active_slave"], &bond["mac"]), (&"enp0s9".into(), &after[0].into()), "{what}");
            for (name, mac) in SLAVES.iter().zip(&after[1..]) {
                assert_eq!(slave(&bond, name)["mac"], *mac, "{what}, {name}");
            }
            meet(&lab);

            lab.reconnect("enp0s8", cut).unwrap();
            wait_for_status(&xbond, "enp0s8", "up");
            end(xbond, signal);
            assert_as_found(&lab, &found, &what);
            assert_nothing_left(&lab);
        }
    }
}

#[test]
fn macs_are_those_of_the_scenario_by_tc() {
    skip_if_unable!();
    mac_tables(Datapath::Tc);
}

#[test]
fn macs_are_those_of_the_scenario_by_xdp() {
    skip_if_unable!();
    mac_tables(Datapath::Xdp);
}

/// Returns everything about the slaves that a bond could leave behind, as lines.
fn state_of_slaves(lab: &Lab) -> Vec<String> {
    let host = &lab.host;
    let of = |name: &&str| {
        let texts = [
            host.ip(&format!("-d -o link show dev {name}")),
            host.ip(&format!("-o address show dev {name}")),
            host.ip(&format!("route show dev {name}")),
            host.ip(&format!("-6 route show dev {name}")),
            host.exec(&format!("ethtool -k {name}")),
            host.exec(&format!("bridge fdb show dev {name}")),
        ];
        let text = texts.map(Result::unwrap).concat();
        let lines = text.lines().map(|line| format!("{name}: {line}")).collect::<Vec<_>>();
        [lines, vec![format!("{name}: {} programs", programs(lab, name))]].concat()
    };
    SLAVES.iter().flat_map(of).collect()
}

/// An interface that was never up has another qdisc, and multicast groups that the kernel does not restore.
fn used_once(lab: &Lab) -> Vec<String> {
    for state in ["up", "down"] {
        for name in SLAVES {
            lab.host.ip(&format!("link set {name} {state}")).unwrap();
        }
    }
    state_of_slaves(lab)
}

/// Counts the programs that are attached to an interface: XDP, tcx, and filters of clsact, which kernels before 6.6
/// have instead.
fn programs(lab: &Lab, name: &str) -> usize {
    let tcx = lab.host.run(|| {
        let attached = |direction| SchedClassifier::query_tcx(name, direction).map(|(_, all)| all.len());
        // A kernel without tcx refuses the query.
        Ok([TcAttachType::Ingress, TcAttachType::Egress].map(|direction| attached(direction).unwrap_or(0)))
    });
    let filters = ["ingress", "egress"].map(|direction| {
        let filters = lab.host.exec(&format!("tc filter show dev {name} {direction}")).unwrap_or_default();
        filters.lines().filter(|line| line.contains("direct-action")).count()
    });
    let xdp = lab.host.ip(&format!("-d -o link show dev {name}")).unwrap().contains("xdp");
    tcx.unwrap().iter().chain(&filters).sum::<usize>() + usize::from(xdp)
}

/// Waits until the slaves have their original state.
#[track_caller]
fn assert_as_found(lab: &Lab, found: &[String], what: &str) {
    let differences = || {
        let now = state_of_slaves(lab);
        let gone = found.iter().filter(|line| !now.contains(line)).map(|line| format!("- {line}"));
        let new = now.iter().filter(|line| !found.contains(line)).map(|line| format!("+ {line}"));
        gone.chain(new).collect::<Vec<_>>()
    };
    eventually(&format!("{what}, as found"), differences, Vec::is_empty);
}

fn end(mut xbond: Xbond<'_>, signal: Signal) {
    xbond.signal(signal).unwrap();
    let status = xbond.wait().unwrap();
    assert!(status.success(), "{signal}: {status}; its log:\n{}", xbond.log());
}

/// Returns pins and run files of the lab's host: those of bond0, and others that an agent creates.
fn paths(lab: &Lab) -> [PathBuf; 3] {
    let cookie = lab.host.cookie().unwrap().to_string();
    let run = Path::new("/run/xbond").join(&cookie);
    [Path::new("/sys/fs/bpf/xbond").join(cookie), run.join(BOND), run.join("xbond.sock")]
}

fn assert_nothing_left(lab: &Lab) {
    let links = lab.host.ip("-o link").unwrap();
    assert!(!links.contains(BOND), "{links}");
    for place in paths(lab) {
        assert!(!place.exists(), "{}", place.display());
    }
}

/// Prepares slaves that have been in use: one up, with addresses, routes and an MTU; one down, with another MTU.
fn use_slaves(lab: &Lab) {
    let host = &lab.host;
    used_once(lab);
    for arguments in [
        "link set enp0s8 mtu 1450 up",
        "address add 192.0.2.8/24 dev enp0s8",
        "address add 2001:db8::8/64 dev enp0s8",
        "route add 198.51.100.0/24 via 192.0.2.1 dev enp0s8 metric 7",
        "link set enp0s9 mtu 1400 allmulticast on",
        "address add 192.0.2.9/24 dev enp0s9",
    ] {
        host.ip(arguments).unwrap();
    }
    host.exec("ethtool -K enp0s9 gro on").unwrap();
    let of_first = || host.ip("-o address show dev enp0s8").unwrap();
    eventually("addresses", of_first, |text| text.contains("fe80::") && !text.contains("tentative"));
}

/// After a failover, so that the MAC addresses are where the policy has put them.
#[test]
fn slaves_are_restored_after_an_interrupt_or_a_termination() {
    skip_if_unable!();
    for (datapath, signal, fail_over_mac) in [
        (Datapath::Tc, Signal::SIGINT, "none"),
        (Datapath::Tc, Signal::SIGTERM, "follow"),
        (Datapath::Xdp, Signal::SIGINT, "active"),
        (Datapath::Xdp, Signal::SIGTERM, "follow"),
    ] {
        let what = format!("{fail_over_mac}, {}, {signal}", datapath.name());
        let lab = lab(datapath, Policy::Learning);
        use_slaves(&lab);
        let found = state_of_slaves(&lab);
        let xbond = run(&lab, fail_over_mac, datapath);
        let wanted = TABLE.iter().find(|row| row.fail_over_mac == fail_over_mac).unwrap();
        let wanted = expected(wanted.before, ["UP", "UP", "UP"]);
        eventually(&format!("{what}, before"), || links(&lab.host), |seen| *seen == wanted);
        assert_addressed(&lab.host);
        // The checks below would find these if they stayed.
        for name in SLAVES {
            // After an XDP program, one of tc for link-local frames.
            let wanted = if datapath == Datapath::Xdp { 2 } else { 1 };
            assert_eq!(programs(&lab, name), wanted, "{what}, {name}");
            assert!(
                !lab.host.ip(&format!("-o address show dev {name}")).unwrap().contains("inet6"),
                "{what}"
            );
        }
        assert!(paths(&lab).iter().all(|place| place.exists()), "{what}");

        lab.cut("enp0s8", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s9");
        lab.reconnect("enp0s8", Cut::Carrier).unwrap();
        wait_for_status(&xbond, "enp0s8", "up");
        end(xbond, signal);
        assert_as_found(&lab, &found, &what);
        assert_nothing_left(&lab);
    }
}

/// Returns the expected warning in the scenario's network.
fn no_unicast(slave: &str, sent: u64) -> String {
    format!(
        "{slave}: {sent} frames sent, no unicast received since it became active; \
         the port may accept only its own MAC: use fail_over_mac=active"
    )
}

const WITHIN: Duration = Duration::from_secs(5);

/// Returns the number of frames in the first such message in `text`, if `text` contains it exactly.
fn reported(text: &str, slave: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("no unicast received"))?;
    let sent = line.split(&format!("{slave}: ")).nth(1)?.split(' ').next()?.parse().ok()?;
    line.ends_with(&no_unicast(slave, sent)).then_some(sent)
}

/// Undoes the wrapping of lines; `show` wraps them at 80 columns.
fn unwrapped(text: &str) -> String {
    let mark = text.find("  ! ").unwrap_or(text.len());
    text[mark..].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn active_survives_a_failover_on_a_port_that_accepts_only_its_own_mac() {
    skip_if_unable!();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::VirtualBox);
        let xbond = run(&lab, "active", datapath);
        meet(&lab);
        let traffic = traffic(&lab, 1_000);
        traffic.wait_for_more(300).unwrap();
        let event = lab.cut("enp0s8", Cut::Admin).unwrap();
        wait_for_active(&xbond, "enp0s9");
        // Longer than it takes to report a port that receives no unicast.
        traffic.wait_for_more(4_000).unwrap();
        for (direction, report) in ["to peer", "to host"].iter().zip(traffic.stop().unwrap()) {
            let recovery = report.recovery(event);
            println!(
                "{} {direction}: {} of {} lost, {recovery:?}",
                datapath.name(),
                report.lost,
                report.sent
            );
            assert!(matches!(recovery, Recovery::After(_)), "{direction}: {report:?}");
            assert!(report.lost < report.sent / 10, "{direction}: {report:?}");
        }
        assert_eq!(reported(&xbond.log(), "enp0s9"), None, "{}", xbond.log());
        assert_eq!(slave(&show(&xbond), "enp0s9")["warnings"], serde_json::json!([]));
    }
}

#[test]
fn none_and_follow_warn_of_a_port_that_accepts_only_its_own_mac() {
    skip_if_unable!();
    for datapath in DATAPATHS {
        for fail_over_mac in ["none", "follow"] {
            let what = format!("{fail_over_mac}, {}", datapath.name());
            let lab = lab(datapath, Policy::VirtualBox);
            let xbond = run(&lab, fail_over_mac, datapath);
            meet(&lab);
            let traffic = traffic(&lab, 100);
            traffic.wait_for_more(20).unwrap();
            let event = lab.cut("enp0s8", Cut::Admin).unwrap();

            xbond.wait_for("no unicast received").unwrap();
            let after = event.elapsed();
            assert!(after < WITHIN, "{what}: reported after {after:?}");
            let logged =
                reported(&xbond.log(), "enp0s9").unwrap_or_else(|| panic!("{what}: {}", xbond.log()));
            assert!((10..10_000).contains(&logged), "{what}: {logged}");
            let text = unwrapped(&xbond.cli(["show"]).unwrap());
            assert!(reported(&text, "enp0s9").is_some_and(|sent| sent >= logged), "{what}: {text}");
            let bond = show(&xbond);
            let warnings = slave(&bond, "enp0s9")["warnings"].clone();
            assert!(reported(warnings[0].as_str().unwrap(), "enp0s9").is_some(), "{what}: {warnings}");
            assert_eq!(slave(&bond, "enp0s8")["warnings"], serde_json::json!([]), "{what}");

            // Back on the port that accepts the bond's MAC address, no warning remains.
            lab.reconnect("enp0s8", Cut::Admin).unwrap();
            wait_for_status(&xbond, "enp0s8", "up");
            xbond.set(BOND, "active_slave=enp0s8").unwrap();
            meet(&lab);
            let [_, to_host] = traffic.stop().unwrap();
            assert!(to_host.lost > 0, "{what}: {to_host:?}");
            let bond = show(&xbond);
            assert!(
                SLAVES.iter().all(|name| slave(&bond, name)["warnings"] == serde_json::json!([])),
                "{bond}"
            );
            assert!(xbond.log().matches("no unicast received").count() == 1, "{what}: {}", xbond.log());
        }
    }
}

/// Traffic of a host without a fault.
#[derive(Clone, Copy, Debug)]
enum Habit {
    Talks,
    Quiet,
    /// Sends broadcasts that no host has reason to answer.
    Broadcasts,
    /// Sends to a host that never answers.
    OneWay,
}

impl Habit {
    const ALL: [Self; 4] = [Self::Talks, Self::Quiet, Self::Broadcasts, Self::OneWay];

    /// Sends for longer than it takes to report a port that receives no unicast.
    fn live(self, lab: &Lab) {
        let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
        let until = Instant::now() + WITHIN + Duration::from_secs(1);
        match self {
            Self::Talks => {
                let traffic = traffic(lab, 100);
                thread::sleep(until.saturating_duration_since(Instant::now()));
                traffic.wait_for_more(10).unwrap();
                traffic.stop().unwrap();
            }
            Self::Quiet => thread::sleep(until.saturating_duration_since(Instant::now())),
            Self::Broadcasts => {
                let socket = lab.host.run(|| Ok(std::net::UdpSocket::bind((HOST_V4, 0))?)).unwrap();
                socket.set_broadcast(true).unwrap();
                while Instant::now() < until {
                    socket.send_to(b"anybody?", "192.168.99.255:9").unwrap();
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Self::OneWay => {
                let flow =
                    Flow::start(host, peer, FlowOptions { rate: 100, ..FlowOptions::default() }).unwrap();
                flow.wait_for_more(600).unwrap();
                flow.stop().unwrap();
            }
        }
    }
}

#[test]
fn an_ordinary_port_gives_no_warning() {
    skip_if_unable!();
    thread::scope(|scope| {
        for habit in Habit::ALL {
            // Under active the bond's MAC address is always one that the port accepts.
            for fail_over_mac in ["none", "follow"] {
                scope.spawn(move || {
                    let lab = lab(Datapath::Tc, Policy::Learning);
                    let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={fail_over_mac}")]);
                    lab.cut("enp0s8", Cut::Admin).unwrap();
                    wait_for_active(&xbond, "enp0s9");
                    habit.live(&lab);
                    let bond = show(&xbond);
                    let log = xbond.stop().unwrap();
                    assert!(!log.contains("no unicast received"), "{habit:?}, {fail_over_mac}:\n{log}");
                    let warnings = slave(&bond, "enp0s9")["warnings"].clone();
                    assert_eq!(warnings, serde_json::json!([]), "{habit:?}, {fail_over_mac}");
                });
            }
        }
    });
}
