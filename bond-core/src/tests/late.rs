//! A late agent: it was stopped or kept from running, or its machine was suspended. The engine judges no slave by that
//! time.

use super::lab::{Command, Lab, ms};
use crate::{
    command::{Notice, Probe, Report},
    event::Event,
    options::{ArpValidate, BondOptions, Named as _},
    status::MiiStatus::{self, Down, GoingDown, Up},
};

fn arp(arp_missed_max: u8, arp_validate: ArpValidate) -> BondOptions {
    BondOptions {
        arp_interval: 100,
        arp_missed_max,
        arp_ip_target: vec!["10.0.0.254".parse().unwrap()],
        arp_validate,
        ..BondOptions::default()
    }
}

fn mii(updelay: u32, downdelay: u32) -> BondOptions {
    BondOptions { miimon: 100, updelay, downdelay, ..BondOptions::default() }
}

/// A bond of two slaves that has been up for a while; half an interval after its monitor's last step.
fn settled(options: BondOptions) -> Lab {
    let mut lab = Lab::enslaved(options, 2);
    lab.wait(ms(2050));
    lab.take();
    lab
}

/// Lets time pass without calls of the engine, then calls it.
fn stop(lab: &mut Lab, time: u64) {
    lab.now += ms(time);
    lab.timeout();
}

fn states(lab: &Lab) -> [MiiStatus; 2] {
    [lab.mii(0), lab.mii(1)]
}

fn is_late(command: &Command) -> bool {
    matches!(command, Command::Report(Report::Notice(Notice::Late { .. })))
}

#[test]
fn an_agent_that_was_stopped_judges_no_path() {
    for validate in ArpValidate::VALUES {
        for missed_max in [1, 2, 5] {
            for time in [160, 250, 400, 1_000, 86_400_000] {
                let what = format!("{}, arp_missed_max={missed_max}, {time} ms", validate.name());
                let mut lab = settled(arp(missed_max, *validate));
                stop(&mut lab, time);
                let asked = lab.take();
                assert!(asked.iter().any(is_late), "{what}: {asked:?}");
                assert!(asked.iter().any(|command| matches!(command, Command::Probe(_))), "{what}");
                lab.wait(ms(2000));
                assert_eq!((lab.active(), states(&lab)), (Some("slave0".into()), [Up, Up]), "{what}");
                assert_eq!([0, 1].map(|index| lab.status(index).link_failure_count), [0, 0], "{what}");
            }
        }
    }
}

#[test]
fn a_step_that_is_late_by_half_an_interval_judges() {
    for (late, is_reported) in [(0, false), (50, false), (51, true)] {
        let mut lab = settled(arp(2, ArpValidate::None));
        stop(&mut lab, 50 + late);
        assert_eq!(lab.take().iter().any(is_late), is_reported, "{late} ms late");
    }
}

#[test]
fn a_path_that_died_during_a_stop_is_detected_after_the_grace_period() {
    let mut lab = settled(arp(2, ArpValidate::None));
    lab.nic_mut(0).path = false;
    stop(&mut lab, 400);
    assert_eq!(states(&lab), [Up, Up]);
    lab.wait(ms(200));
    assert_eq!(lab.active().as_deref(), Some("slave0"), "the grace");
    lab.wait(ms(300));
    assert_eq!(lab.active().as_deref(), Some("slave1"));
}

#[test]
fn a_slave_that_probed_probes_again() {
    let mut lab = settled(arp(2, ArpValidate::Active));
    lab.nic_mut(0).path = false;
    lab.nic_mut(1).path = false;
    lab.wait(ms(2000));
    assert_eq!(lab.active(), None);
    lab.take();
    let probed = |lab: &mut Lab| {
        let slot = |command| if let Command::Probe(Probe { slot, .. }) = command { Some(slot) } else { None };
        lab.take().into_iter().filter_map(slot).collect::<Vec<_>>()
    };
    lab.wait(ms(100));
    let prober = probed(&mut lab);
    stop(&mut lab, 500);
    assert_eq!(probed(&mut lab), prober);
}

#[test]
fn an_event_before_the_late_step_judges_no_slave_either() {
    let mut lab = settled(mii(0, 200));
    lab.set_link(0, false);
    assert_eq!(states(&lab), [GoingDown, Up]);
    lab.now += ms(5000);
    // The link of the other slave is reported first.
    lab.notify_link(1);
    assert_eq!((lab.active().as_deref(), states(&lab)), (Some("slave0"), [GoingDown, Up]));
}

#[test]
fn a_delay_does_not_run_while_the_engine_is_not_called() {
    // The link of the active slave, which is in downdelay, recovers in the meantime or not.
    for (is_back, at_once, later) in [(true, Up, Up), (false, GoingDown, Down)] {
        let mut lab = settled(mii(0, 200));
        lab.set_link(0, false);
        lab.nic_mut(0).link.up = is_back;
        stop(&mut lab, 5000);
        assert_eq!(lab.mii(0), at_once, "back: {is_back}");
        assert!(lab.take().iter().any(is_late));
        lab.wait(ms(200));
        assert_eq!(lab.mii(0), later, "back: {is_back}");
        assert_eq!(lab.status(0).link_failure_count, u32::from(!is_back));
    }
}

#[test]
fn a_suspended_machine_judges_no_slave() {
    let mut lab = settled(arp(2, ArpValidate::None));
    // The clock has not counted the time, and frames in flight are lost.
    lab.nic_mut(0).received = bond_common::abi::ProbeTimes::NEVER;
    lab.handle(Event::Suspended { time: ms(60_000) }).unwrap();
    let suspended = Notice::Suspended { ms: 60_000 };
    assert!(lab.take_reports().iter().any(|report| *report == suspended));
    lab.wait(ms(2000));
    assert_eq!((lab.active().as_deref(), states(&lab)), (Some("slave0"), [Up, Up]));
}

#[test]
fn a_probe_that_is_sent_late_judges_no_slave() {
    let mut lab = settled(arp(1, ArpValidate::None));
    lab.mode = super::lab::CommandMode::Manual;
    // The step is on time, and the prober is not: until the next step no probe is sent.
    lab.wait(ms(50));
    for _ in 0..3 {
        lab.wait(ms(100));
        assert_eq!((lab.active().as_deref(), states(&lab)), (Some("slave0"), [Up, Up]));
    }
    while lab.work() {}
    lab.mode = super::lab::CommandMode::Prompt;
    lab.wait(ms(1000));
    assert_eq!((lab.active().as_deref(), states(&lab)), (Some("slave0"), [Up, Up]));
}
