//! Drained slaves, and slaves that are damped because their links flap.

use super::lab::{Lab, ms, options};
use crate::{
    Refusal, Time,
    command::{Notice, PathChange, Reason, Report},
    damping::Damping,
    event::{Event, FoundPaths},
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
    let damping = lab.status(0).damping.unwrap();
    assert!(damping.penalty_at(lab.now) > 20.0 && damping.penalty_at(lab.now + Time::from_secs(15)) < 15.0);
    // Since the third failure, one second after the first one.
    assert!(damping.suppressed_since.unwrap() < lab.now - Time::from_secs(55), "{damping:?}");
    assert_eq!(damping.reuse_at().unwrap() - lab.now, Time::from_secs(60) - ms(500));
    assert_eq!(lab.status(1).damping, None);
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
        (active(&lab), lab.status(0).is_damped()),
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
    assert_eq!((active(&lab), lab.status(0).is_damped()), ("slave0".to_owned(), false));
}

const PROVEN: FoundPaths = FoundPaths { failed: 0, unproven: 0, wants_proof: true, seen_at: Time::ZERO };

fn unproven(slots: u16) -> FoundPaths {
    FoundPaths { failed: slots, unproven: slots, ..PROVEN }
}

/// What the reports since the last call say of paths.
fn changes(lab: &mut Lab) -> Vec<PathChange> {
    let changes = lab.take_reports().into_iter().filter_map(|report| match report {
        Report::Notice(Notice::Path { change, .. }) => Some(change),
        _ => None,
    });
    changes.collect()
}

/// A bond whose primary has lost its link and has one again.
fn returned(found: FoundPaths) -> Lab {
    let mut lab = Lab::enslaved(primary_first(), 2);
    lab.find_paths(found);
    lab.set_link(0, false);
    lab.wait(ms(200));
    lab.take();
    lab.set_link(0, true);
    lab
}

#[test]
fn a_slave_whose_link_returns_takes_back_when_its_path_is_proven() {
    let mut lab = returned(PROVEN);
    assert_eq!(active(&lab), "slave1");
    let of_slave0 = lab.slot(0).bit();
    lab.find_paths(unproven(of_slave0));
    lab.wait(Time::from_secs(10));
    assert_eq!((active(&lab), lab.word.2, lab.status(0).path_failed), ("slave1".to_owned(), 0b10, false));
    assert!(!lab.engine.awaits_paths());
    lab.take();
    lab.find_paths(PROVEN);
    assert_eq!(active(&lab), "slave0");
    assert_eq!(changes(&mut lab), [PathChange::Proven]);
    // Without the setting at once.
    assert_eq!(active(&returned(FoundPaths::default())), "slave0");
}

#[test]
fn a_lost_link_is_doubted_before_the_path_monitor_has_seen_it() {
    let mut lab = Lab::enslaved(primary_first(), 2);
    lab.find_paths(PROVEN);
    lab.set_link(0, false);
    lab.set_link(0, true);
    assert_eq!((active(&lab), lab.engine.awaits_paths()), ("slave1".to_owned(), true));
    // It has not seen the word that follows from the loss.
    lab.wait(ms(10));
    lab.find_paths(PROVEN);
    assert_eq!(active(&lab), "slave1");
    // It has, and finds that nothing has to be proven.
    lab.wait(ms(90));
    lab.take();
    lab.find_paths(PROVEN);
    assert_eq!(
        (active(&lab), changes(&mut lab), lab.engine.awaits_paths()),
        ("slave0".to_owned(), vec![], false)
    );
    // A monitor that is turned off confirms nothing any more.
    lab.set_link(0, false);
    lab.set_link(0, true);
    lab.find_paths(FoundPaths::default());
    assert_eq!(active(&lab), "slave0");
}

#[test]
fn an_unproven_slave_is_better_than_none_and_than_a_failed_path() {
    let mut lab = returned(PROVEN);
    let [zero, one] = [0, 1].map(|index| lab.slot(index).bit());
    lab.find_paths(unproven(zero));
    lab.set_link(1, false);
    assert_eq!((active(&lab), lab.carrier), ("slave0".to_owned(), true));
    lab.set_link(1, true);
    assert_eq!(active(&lab), "slave0", "neither is proven");
    lab.find_paths(unproven(one));
    assert_eq!(active(&lab), "slave0");
    lab.find_paths(FoundPaths { failed: zero | one, ..unproven(one) });
    lab.set_active(Some(0)).unwrap();
    assert_eq!(active(&lab), "slave0", "the administrator's word counts");
}

#[test]
fn a_slave_that_joins_proves_its_path() {
    let mut lab = Lab::new(primary_first(), 2);
    lab.join(1).unwrap();
    lab.find_paths(PROVEN);
    lab.join(0).unwrap();
    assert_eq!(active(&lab), "slave1");
    lab.find_paths(unproven(lab.slot(0).bit()));
    lab.find_paths(PROVEN);
    assert_eq!(active(&lab), "slave0");
}

/// A tick takes back without an agent, when it finds the path proven: the preference does not depend on what it finds itself.
#[test]
fn the_preference_of_ticks_does_not_depend_on_paths() {
    let mut lab = returned(PROVEN);
    let [zero, one] = [0, 1].map(|index| lab.slot(index));
    lab.find_paths(unproven(zero.bit()));
    assert!(lab.engine.preference().prefers(zero, one) && !lab.engine.preference().prefers(one, zero));
    drain(&mut lab, 0, true).unwrap();
    assert!(!lab.engine.preference().prefers(zero, one) && lab.engine.preference().prefers(one, zero));
}
