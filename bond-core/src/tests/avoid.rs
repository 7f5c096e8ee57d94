//! Drained slaves, and slaves that are damped because their links flap.

use super::lab::{Lab, ms, options};
use crate::{
    Refusal, Time,
    command::{Notice, Reason, Report},
    damping::Damping,
    event::Event,
    options::{BondOptions, FailOverMac, PrimaryReselect},
    status::Pending,
};

fn primary_first() -> BondOptions {
    BondOptions { primary: Some("slave0".to_owned()), ..options(FailOverMac::None) }
}

fn drain(lab: &mut Lab, index: u8, drained: bool) -> Result<(), Refusal> {
    lab.handle(Event::SetDrained { slot: lab.slot(index), drained })
}

fn active(lab: &Lab) -> String {
    lab.active().unwrap_or_else(|| "none".to_owned())
}

/// The reasons of the failovers since the last call.
fn reasons(lab: &mut Lab) -> Vec<Reason> {
    lab.take_failovers().into_iter().map(|failover| failover.reason).collect()
}

#[test]
fn a_drained_slave_gives_way_and_takes_back_when_the_drain_ends() {
    let mut lab = Lab::enslaved(primary_first(), 2);
    drain(&mut lab, 0, true).unwrap();
    assert_eq!((active(&lab), reasons(&mut lab)), ("slave1".to_owned(), vec![Reason::Drained]));
    assert!(lab.status(0).drained && !lab.status(1).drained);
    assert_eq!(lab.word.2, 0b10, "the data plane cannot choose it");
    drain(&mut lab, 0, true).unwrap();
    assert_eq!(reasons(&mut lab), [], "draining it once more changes nothing");
    drain(&mut lab, 0, false).unwrap();
    assert_eq!((active(&lab), reasons(&mut lab)), ("slave0".to_owned(), vec![Reason::Undrained]));
}

#[test]
fn a_drain_is_pending_until_peers_use_the_new_slave() {
    let mut lab = Lab::enslaved(options(FailOverMac::None), 2);
    drain(&mut lab, 0, true).unwrap();
    let is_pending = |lab: &Lab| {
        lab.engine.pending().any(|pending| pending == Pending::Draining { slave: "slave0".to_owned() })
    };
    assert!(is_pending(&lab));
    lab.wait(ms(200));
    assert!(!is_pending(&lab));
    // The end of a drain switches nothing without a preferred slave.
    drain(&mut lab, 0, false).unwrap();
    assert_eq!(active(&lab), "slave1");
}

#[test]
fn failures_of_a_drained_slave_do_not_count() {
    let mut lab = Lab::enslaved(primary_first(), 3);
    drain(&mut lab, 0, true).unwrap();
    for _ in 0..3 {
        lab.set_link(0, false);
        lab.set_link(0, true);
    }
    assert_eq!((lab.status(0).link_failure_count, active(&lab)), (0, "slave1".to_owned()));
    lab.set_link(1, false);
    assert_eq!((lab.status(1).link_failure_count, active(&lab)), (1, "slave2".to_owned()));
}

#[test]
fn a_drained_slave_is_used_while_no_other_is_up() {
    let mut lab = Lab::enslaved(options(FailOverMac::None), 2);
    drain(&mut lab, 0, true).unwrap();
    lab.set_link(1, false);
    assert_eq!((active(&lab), lab.carrier), ("slave0".to_owned(), true));
    lab.set_link(1, true);
    assert_eq!(active(&lab), "slave1");
}

#[test]
fn a_drain_that_leaves_no_other_slave_is_refused() {
    let mut lab = Lab::enslaved(options(FailOverMac::None), 2);
    lab.set_link(1, false);
    let refused = Err(Refusal::NoOtherUp { name: "slave0".to_owned() });
    assert_eq!(drain(&mut lab, 0, true), refused);
    drain(&mut lab, 1, true).unwrap();
    lab.set_link(1, true);
    assert_eq!(drain(&mut lab, 0, true), refused, "the other one is drained");
    assert_eq!(lab.set_active(Some(1)), Err(Refusal::Drained { name: "slave1".to_owned() }));
    assert_eq!(active(&lab), "slave0");
}

#[test]
fn a_slave_that_joins_drained_is_not_chosen() {
    let mut lab = Lab::new(primary_first(), 2);
    lab.handle(Event::Join(crate::event::NewSlave { drained: true, ..lab.new_slave(0) })).unwrap();
    assert_eq!(active(&lab), "slave0", "it is the only one");
    lab.join(1).unwrap();
    assert_eq!(active(&lab), "slave1");
}

/// Lets the link of a slave flap at 2 Hz for a time. Returns the failovers.
fn flap(lab: &mut Lab, index: u8, time: Time) -> Vec<Reason> {
    lab.take();
    let end = lab.now + time;
    while lab.now < end {
        for up in [false, true] {
            lab.set_link(index, up);
            lab.wait(ms(250));
        }
    }
    reasons(lab)
}

#[test]
fn a_slave_that_flaps_is_left_until_its_link_is_stable() {
    let mut lab = Lab::enslaved(primary_first(), 2);
    lab.handle(Event::SetDamping(Some(Damping::default()))).unwrap();
    let failovers = flap(&mut lab, 0, Time::from_secs(60));
    assert!(failovers.len() <= 5, "{failovers:?}");
    assert_eq!(active(&lab), "slave1");
    assert!(lab.status(0).damped);
    lab.wait(Time::from_secs(59));
    assert_eq!(active(&lab), "slave1");
    lab.wait(Time::from_secs(2));
    let reports = lab.take_reports();
    assert!(reports.contains(&Report::Notice(Notice::Damped { slave: "slave0".to_owned(), damped: false })));
    assert_eq!(active(&lab), "slave0");
}

#[test]
fn without_damping_each_flap_is_a_failover() {
    let mut lab = Lab::enslaved(primary_first(), 2);
    assert_eq!(flap(&mut lab, 0, Time::from_secs(5)).len(), 20);
}

#[test]
fn the_last_slave_that_is_up_is_used_however_it_flaps() {
    let mut lab = Lab::enslaved(options(FailOverMac::None), 2);
    lab.handle(Event::SetDamping(Some(Damping::default()))).unwrap();
    lab.set_link(1, false);
    flap(&mut lab, 0, Time::from_secs(10));
    assert_eq!(active(&lab), "slave0");
    lab.set_link(1, true);
    assert_eq!(active(&lab), "slave1", "a stable one takes over from it");
    lab.set_active(Some(0)).unwrap();
    assert_eq!(
        (active(&lab), lab.status(0).damped),
        ("slave0".to_owned(), false),
        "the administrator decides"
    );
}

#[test]
fn damping_that_is_switched_off_forgets_all_failures() {
    let options = BondOptions { primary_reselect: PrimaryReselect::Always, ..primary_first() };
    let mut lab = Lab::enslaved(options, 2);
    lab.handle(Event::SetDamping(Some(Damping::default()))).unwrap();
    flap(&mut lab, 0, Time::from_secs(10));
    assert_eq!(active(&lab), "slave1");
    lab.handle(Event::SetDamping(None)).unwrap();
    assert_eq!((active(&lab), lab.status(0).damped), ("slave0".to_owned(), false));
}
