//! An agent that is late: it was stopped, or got no processor time. It does not judge slaves by that time.

mod common;

use std::{thread, time::Duration};

use common::{BOND, SLAVES, active_slave, alone, bond, lab, meet, show, slave};
use nix::sys::signal::Signal;
use xbond_tests::{Cut, HOST_V4, Lab, PEER_V4, Policy, Xbond, lab::Datapath, skip_if_unable};

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
