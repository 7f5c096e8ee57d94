//! Helpers that the tests of running bonds share.

// Each test program uses a part of them.
#![allow(dead_code)]

use std::{
    fmt::Debug,
    sync::{PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
pub use xbond_tests::skip;
use xbond_tests::{
    HOST_V4, Lab, LabBuilder, NetNs, PEER_V4, Policy, TwoWay, Xbond, lab::Datapath, time_is_no_measure,
    wait_limit,
};

pub const BOND: &str = "bond0";
pub const DATAPATHS: [Datapath; 2] = [Datapath::Tc, Datapath::Xdp];

/// The two slaves of the scenario.
pub const SLAVES: [&str; 2] = ["enp0s8", "enp0s9"];

/// A test that measures times runs alone; the others run concurrently.
static TIMED: RwLock<()> = RwLock::new(());

/// Excludes all other tests, for a test whose result depends on milliseconds: other labs are created and removed
/// under RTNL, which delays link events. Hold it to the end of the test. Returns `None`, after reporting a skip,
/// where times are meaningless.
pub fn alone() -> Option<impl Drop> {
    if let Some(reason) = time_is_no_measure() {
        skip(reason);
        return None;
    }
    Some(TIMED.write().unwrap_or_else(PoisonError::into_inner))
}

/// Allows other tests to run concurrently, for all tests that measure no times.
pub fn concurrently() -> impl Drop {
    TIMED.read().unwrap_or_else(PoisonError::into_inner)
}

/// Polls until `wanted` holds, for changes without an event.
#[track_caller]
pub fn eventually<T: Debug>(what: &str, mut poll: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + wait_limit();
    loop {
        let seen = poll();
        if wanted(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {:?}; at last {seen:#?}", wait_limit());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns options that have other values for another `value`, which changes no link.
pub fn six_options(value: u32) -> [(&'static str, u32); 6] {
    [
        ("resend_igmp", value),
        ("num_grat_arp", value),
        ("arp_missed_max", value),
        ("peer_notif_delay", 100 * value),
        ("updelay", 100 * value),
        ("downdelay", 100 * value),
    ]
}

/// For machines on which times of milliseconds are meaningless and answers are late.
pub const ARP_INTERVAL_EMULATED: &str = "arp_interval=1000";

/// Returns an option for tests that do not measure failover times: a short interval where milliseconds are meaningful.
pub fn brisk() -> &'static str {
    if time_is_no_measure().is_some() { ARP_INTERVAL_EMULATED } else { "arp_interval=100" }
}

pub fn lab(datapath: Datapath, switch: Policy) -> Lab {
    builder(datapath).switch(switch).build().unwrap()
}

pub fn builder(datapath: Datapath) -> LabBuilder {
    Lab::builder().datapath(datapath)
}

/// Starts a bond of the scenario's slaves by flags, with these options, and miimon=100 if they name no monitor. It is
/// ready, and host and peer have resolved each other's MAC address.
pub fn bond<'lab>(lab: &'lab Lab, datapath: Datapath, options: &[&str]) -> Xbond<'lab> {
    bond_with(lab, datapath, options, &[])
}

/// Starts a bond like [`bond`], with further arguments of `xbond run`.
pub fn bond_with<'lab>(
    lab: &'lab Lab,
    datapath: Datapath,
    options: &[&str],
    arguments: &[&str],
) -> Xbond<'lab> {
    let address = format!("{HOST_V4}/24");
    let mut line = vec!["--bond", BOND, "--address", &address, "--datapath", datapath.name()];
    for nic in &lab.nics {
        line.extend(["--slave", &nic.name]);
    }
    let miimon = Some(&"miimon=100").filter(|_| !options.iter().any(|option| option.starts_with("miimon=")));
    for option in miimon.into_iter().chain(options) {
        line.extend(["-o", option]);
    }
    line.extend(arguments);
    let xbond = Xbond::run(&lab.host, line).unwrap();
    meet(lab);
    xbond
}

/// Waits until the peer answers.
pub fn meet(lab: &Lab) {
    eventually(
        "the peer answers",
        || lab.host.ping(PEER_V4.into(), 1).unwrap().received,
        |count| *count == 1,
    );
}

/// Returns how many packets a second a test sends in each direction that has no reason for another rate. An emulated
/// machine is late at times, and then sends 50 ms of packets at once: no more than the rings of veths hold (256), in
/// which XDP receives.
pub fn rate() -> u32 {
    if time_is_no_measure().is_some() { 1_000 } else { 10_000 }
}

/// Starts numbered packets in each direction between host and peer, `rate` a second.
pub fn traffic(lab: &Lab, rate: u32) -> TwoWay {
    TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), rate).unwrap()
}

/// Returns bond0 as in `xbond show -j`.
pub fn show(xbond: &Xbond<'_>) -> Value {
    xbond.show(BOND).unwrap()["bonds"][0].take()
}

/// Returns a slave of the bond.
pub fn slave(bond: &Value, name: &str) -> Value {
    let slaves = bond["slaves"].as_array().unwrap();
    slaves.iter().find(|slave| slave["name"] == name).unwrap_or_else(|| panic!("no {name} in {bond}")).clone()
}

pub fn active_slave(xbond: &Xbond<'_>) -> Option<String> {
    show(xbond)["active_slave"].as_str().map(str::to_owned)
}

#[track_caller]
pub fn wait_for_active(xbond: &Xbond<'_>, name: &str) {
    eventually("the active slave", || active_slave(xbond), |active| active.as_deref() == Some(name));
}

/// Waits until a slave has this MII status.
#[track_caller]
pub fn wait_for_status(xbond: &Xbond<'_>, name: &str, status: &str) {
    let poll = || slave(&show(xbond), name)["mii_status"].as_str().unwrap().to_owned();
    eventually("the MII status", poll, |seen| seen == status);
}

/// A line of `ip -br link`: state and MAC address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    pub state: String,
    pub mac: String,
}

/// Returns what `ip -br link` prints of `name`.
pub fn brief(netns: &NetNs, name: &str) -> Brief {
    let text = netns.ip("-br link").unwrap();
    // For a veth it prints the far end, too: enp0s8@if2.
    let of =
        |line: &str| line.split_whitespace().next().and_then(|word| word.split('@').next()) == Some(name);
    let line = text.lines().find(|line| of(line)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let mut words = line.split_whitespace().skip(1).map(str::to_owned);
    // A veth may seem to have a lower layer, by its far end's ifindex, which is valid in another namespace.
    let state = words.next().unwrap().replace("LOWERLAYERDOWN", "DOWN");
    Brief { state, mac: words.next().unwrap() }
}
