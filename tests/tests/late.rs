//! An agent that is late: it was stopped, or got no processor time. It does not judge slaves by that time; nor does the clock
//! on a machine whose CPUs and backlogs are full.

mod common;
#[path = "common/pinned.rs"]
mod pinned;

use std::{thread, time::Duration};

use common::{BOND, SLAVES, active_slave, alone, bond, eventually, lab, meet, show, slave, wait_for_status};
use nix::sys::signal::Signal;
use pinned::Pinned;
use xbond_tests::{
    Cut, HOST_V4, Lab, PEER_V4, Policy, Xbond, lab::Datapath, load::Load, netns::unique_stem, skip_if_unable,
};

/// Stops the agent for this time, in milliseconds.
fn stop(xbond: &Xbond<'_>, time: u64) {
    xbond.pause().unwrap();
    thread::sleep(Duration::from_millis(time));
    xbond.signal(Signal::SIGCONT).unwrap();
}

fn failures(xbond: &Xbond<'_>) -> [u64; 2] {
    SLAVES.map(|name| slave(&show(xbond), name)["link_failure_count"].as_u64().unwrap())
}

/// Starts an agent with one address and this `arp_validate`, and waits for some probes.
fn monitored<'lab>(lab: &'lab Lab, arp_validate: &str) -> Xbond<'lab> {
    let target = format!("arp_ip_target={PEER_V4}");
    let address = format!("{HOST_V4}/24");
    let validate = format!("arp_validate={arp_validate}");
    let mut line = vec!["--bond", BOND, "--address", &address];
    line.extend(SLAVES.iter().flat_map(|name| ["--slave", name]));
    line.extend(["-o", "arp_interval=100", "-o", &target, "-o", &validate]);
    let xbond = Xbond::run(&lab.host, line).unwrap();
    meet(lab);
    thread::sleep(Duration::from_secs(1));
    xbond
}

#[test]
fn a_resumed_agent_fails_no_slave() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for arp_validate in ["none", "all"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = monitored(&lab, arp_validate);
        let before = failures(&xbond);
        for time in [250, 400, 400, 1000] {
            stop(&xbond, time);
            // Several steps of the monitor, which judges slaves again.
            thread::sleep(Duration::from_millis(800));
        }
        let what = format!("arp_validate={arp_validate}:\n{}", xbond.log());
        assert_eq!((active_slave(&xbond).as_deref(), failures(&xbond)), (Some(SLAVES[0]), before), "{what}");
        assert!(xbond.log().contains("was late by up to "), "{what}");
        // A state that lasts only while the bond comes up is not reported.
        assert!(!xbond.log().contains("no route"), "{what}");
        xbond.stop().unwrap();
    }
}

#[test]
fn a_delay_does_not_run_while_the_agent_is_stopped() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["miimon=100", "downdelay=400"]);
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    xbond.wait_for("disabled if it stays down for 400 ms").unwrap();
    xbond.pause().unwrap();
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    thread::sleep(Duration::from_secs(1));
    let said = xbond.log().len();
    xbond.signal(Signal::SIGCONT).unwrap();
    xbond.wait_for_after(said, "link up").unwrap();
    assert_eq!(
        (active_slave(&xbond).as_deref(), failures(&xbond)),
        (Some(SLAVES[0]), [0, 0]),
        "{}",
        xbond.log()
    );
    xbond.stop().unwrap();
}

/// Who judges the slaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    Agent,
    /// The clock: the agent is stopped.
    Tick,
}

/// Has a bond of these options run for this time while every CPU is full, or at rest; no slave may fail.
fn no_slave_fails(options: &[&str], judge: Judge, load: bool, time: Duration) {
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, options);
    for slave in SLAVES {
        wait_for_status(&xbond, slave, "up");
    }
    let clock = || show(&xbond)["clock"].as_str().unwrap().to_owned();
    eventually("the clock runs", clock, |clock| clock.starts_with("on"));
    let pinned = Pinned::open(&lab.host, BOND).unwrap();
    let state =
        || (pinned.maps.active().switches(), pinned.maps.active().usable(), pinned.active().is_some());
    let (before, failed) = (state(), failures(&xbond));
    let ticks = || pinned.maps.clock().unwrap().ticks().ticks;
    let first = ticks();
    if judge == Judge::Tick {
        xbond.pause().unwrap();
    }
    let load = load.then(|| Load::start(&format!("{}-load", unique_stem())).unwrap());
    thread::sleep(time);
    let dropped = load.as_ref().map(|load| load.dropped().unwrap());
    let seen = state();
    drop(load);
    let laps = ticks() - first;
    xbond.signal(Signal::SIGCONT).unwrap();
    let what = format!("{options:?}, {judge:?}: {laps} laps, frames dropped by backlogs: {dropped:?}");
    println!("{what}");
    assert_eq!(seen, before, "{what}");
    // A second in which the agent judges again.
    thread::sleep(Duration::from_secs(1));
    assert_eq!((state(), failures(&xbond)), (before, failed), "{what}:\n{}", xbond.log());
    xbond.stop().unwrap();
}

/// With each monitor, judged by the agent and by the tick.
fn no_slave_fails_in(load: bool, time: Duration) {
    let target = format!("arp_ip_target={PEER_V4}");
    // Answers that full backlogs drop are lost indeed, and some are in succession.
    let arp = ["miimon=0", "arp_interval=100", "arp_missed_max=20", &target, "arp_validate=all"];
    for options in [&["miimon=10"][..], &["miimon=100", "downdelay=100"], &arp] {
        for judge in [Judge::Agent, Judge::Tick] {
            no_slave_fails(options, judge, load, time);
        }
    }
}

#[test]
fn full_cpus_and_backlogs_fail_no_slave() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    no_slave_fails_in(true, Duration::from_secs(2));
}

#[test]
fn an_agent_that_is_stopped_for_long_fails_no_slave() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    no_slave_fails_in(false, Duration::from_secs(3));
}

#[test]
#[ignore = "takes 18 minutes: cargo test -p xbond-tests --test late -- --ignored"]
fn full_cpus_and_backlogs_fail_no_slave_for_minutes() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for load in [true, false] {
        no_slave_fails_in(load, Duration::from_secs(90));
    }
}
