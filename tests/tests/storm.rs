//! Storms of events, which a neighbour or another program can cause: urgent work is as fast as without them, and
//! readers of the agent's state do not wait.

mod common;

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use common::{BOND, SLAVES, alone, bond, eventually, lab};
use xbond_tests::{
    Cut, Lab, Policy, WAIT_LIMIT, Xbond,
    lab::Datapath,
    rtnl::RtnlHeld,
    skip_if_unable,
    storm::{RouterAdvertisements, macvlans},
    xbond,
};

/// The MAC address changes of a failover take some milliseconds; the rest is tolerance for a busy machine and for the
/// kernel's work on the storm.
const SOON: Duration = Duration::from_millis(400);
/// How long a storm lasts before the first request to the agent.
const STORM: Duration = Duration::from_secs(2);

/// Makes bond0 accept router advertisements, and the peer flood it with them.
fn flood(lab: &Lab, rate: u32) -> RouterAdvertisements {
    lab.host.sysctl(&format!("ipv6/conf/{BOND}/accept_ra"), "2").unwrap();
    let storm = RouterAdvertisements::start(&lab.peer, xbond_tests::lab::PEER_NIC, rate).unwrap();
    let addresses =
        || lab.host.ip(&format!("-6 -o address show dev {BOND} dynamic")).unwrap().lines().count();
    eventually("addresses of all prefixes", addresses, |count| *count == 8);
    thread::sleep(STORM);
    storm
}

/// Returns the time from the cut of the active slave until the host's MAC addresses are those of the failover.
fn macs_follow(lab: &Lab, xbond: &Xbond<'_>, policy: &str) -> Duration {
    let [first, second] = SLAVES.map(|name| lab.mac(name).unwrap());
    let cut = lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    // Under follow the new active slave gets the bond's MAC address, under active the bond that of the slave.
    let (interface, wanted) = if policy == "active" { (BOND, second) } else { (SLAVES[1], first) };
    let mac = || lab.host.link(interface).unwrap().mac;
    while mac() != wanted {
        assert!(cut.elapsed() < WAIT_LIMIT, "{interface} does not get {wanted}:\n{}", xbond.log());
    }
    cut.elapsed()
}

fn of_a_flood(policy: &str, rate: u32) {
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
    let storm = flood(&lab, rate);
    let took = macs_follow(&lab, &xbond, policy);
    println!("{policy}, {rate}/s: MACs after {took:?}");
    assert!(took < SOON, "{policy}, {rate}/s: MACs after {took:?}");

    let asked = Instant::now();
    xbond.cli(["del-slave", BOND, SLAVES[0]]).unwrap();
    xbond.cli(["add-slave", BOND, SLAVES[0]]).unwrap();
    xbond.show(BOND).unwrap();
    println!("{policy}, {rate}/s: del-slave, add-slave and show after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(10), "verbs took {:?}", asked.elapsed());
    let asked = Instant::now();
    xbond.stop().unwrap();
    println!("{policy}, {rate}/s: ended after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(2), "SIGTERM took {:?}", asked.elapsed());
    assert!(storm.stop().unwrap() > u64::from(rate), "the machine did not send the storm");
}

#[test]
fn router_advertisements_do_not_delay_macs_verbs_nor_the_end() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for (policy, rate) in [("active", 1_000), ("follow", 1_000), ("active", 5_000)] {
        of_a_flood(policy, rate);
    }
}

#[test]
fn macvlans_that_appear_do_not_delay_macs() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for policy in ["active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        macvlans(&lab.host, BOND, 300).unwrap();
        let took = macs_follow(&lab, &xbond, policy);
        println!("{policy}, 300 macvlans: MACs after {took:?}");
        assert!(took < Duration::from_secs(2), "{policy}: MACs after {took:?}");
        xbond.stop().unwrap();
    }
}

/// Returns the time that one GET request takes.
fn get(socket: &Path, path: &str) -> (Duration, String) {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: xbond\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    (start.elapsed(), answer)
}

/// The required figure on a machine without other load. A busy one delays single requests.
const AT_ONCE: Duration = Duration::from_millis(20);
const ON_A_BUSY_MACHINE: Duration = Duration::from_millis(500);

#[track_caller]
fn are_at_once(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} {what}: median {median:?}, slowest {slowest:?}", times.len());
    assert!(median < AT_ONCE && slowest < ON_A_BUSY_MACHINE, "{what}: {times:?}");
}

/// While RTNL is held for five seconds, and while slaves join and leave.
#[test]
fn readers_wait_neither_for_rtnl_nor_for_slaves_that_join() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    xbond.cli(["del-slave", BOND, SLAVES[1]]).unwrap();
    let socket = PathBuf::from(format!("/run/xbond/{}/xbond.sock", lab.host.cookie().unwrap()));
    let before = get(&socket, "/v1/bonds").1;
    assert!(!before.contains("counters are"), "{before}");

    let held = RtnlHeld::take(&lab.host).unwrap();
    let start = Instant::now();
    let mut joining = lab.host.command(xbond::binary().unwrap());
    let mut joining = joining.args(["add-slave", BOND, SLAVES[1]]).spawn().unwrap();
    thread::sleep(Duration::from_millis(1_500));
    let bonds: Vec<_> = (0..200).map(|_| get(&socket, "/v1/bonds")).collect();
    let scrapes = (0..1000).map(|_| get(&socket, "/metrics").0).collect();
    assert!(joining.try_wait().unwrap().is_none(), "it joined: RTNL was not held");
    thread::sleep(Duration::from_secs(5).saturating_sub(start.elapsed()));
    held.release().unwrap();
    assert!(joining.wait().unwrap().success());
    are_at_once("reports while RTNL is held", bonds.iter().map(|(time, _)| *time).collect());
    are_at_once("scrapes while RTNL is held", scrapes);
    for (_, report) in &bonds {
        // The counters are the earlier ones, and the report has their age.
        assert!(report.contains("the devices' counters are ") && report.contains(" s old"), "{report}");
        assert!(report.contains("\"kind\""), "{report}");
    }
    let is_new = |(_, report): &(Duration, String)| !report.contains("counters are");
    eventually("new counters", || get(&socket, "/v1/bonds"), is_new);

    let mut scrapes = Vec::new();
    let mut change = |verb: &str| {
        let mut command = lab.host.command(xbond::binary().unwrap());
        let mut changing = command.args([verb, BOND, SLAVES[1]]).spawn().unwrap();
        while changing.try_wait().unwrap().is_none() {
            scrapes.extend([get(&socket, "/metrics").0, get(&socket, "/v1/bonds").0]);
        }
    };
    (0..3).for_each(|_| ["del-slave", "add-slave"].into_iter().for_each(&mut change));
    are_at_once("requests while slaves join and leave", scrapes);
    xbond.stop().unwrap();
}
