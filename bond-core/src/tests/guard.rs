//! Failovers of the carrier guard, which the engine learns of afterwards.

use super::lab::{Command, CommandMode, Lab, mac, ms, options};
use crate::{
    ChangedBy, DataPlaneChange,
    command::{Announce, Failover, Publish::Switch, Query::PollLinks, Reason, Report, Work::SetSlaveMac},
    event::Event,
    options::{
        BondOptions,
        FailOverMac::{self, Active, Follow, None as Same},
    },
    status::MiiStatus,
};

const POLICIES: [FailOverMac; 3] = [Same, Active, Follow];

fn is_reason(command: &Command, wanted: Reason) -> bool {
    matches!(command, Command::Report(Report::Failover(Failover { reason, .. })) if *reason == wanted)
}

fn is_switch(command: &Command) -> bool {
    matches!(command, Command::Publish(Switch { .. }))
}

#[test]
fn the_engine_completes_a_failover_of_the_guard() {
    for policy in POLICIES {
        let mut lab = Lab::enslaved(options(policy), 2);
        let mut other = Lab::enslaved(options(policy), 2);
        assert!(lab.guard(0));
        other.set_link(0, false);
        // ACTIVE is right already; the slow commands are those of any failover.
        let slow = |commands: Vec<Command>| {
            let fast = |command: &Command| {
                is_switch(command) || matches!(command, Command::Report(Report::Failover(_)))
            };
            commands.into_iter().filter(|command| !fast(command)).collect::<Vec<_>>()
        };
        let commands = lab.take();
        assert!(!commands.iter().any(is_switch), "{policy:?}: {commands:?}");
        assert!(commands.iter().any(|command| is_reason(command, Reason::CarrierGuard)), "{policy:?}");
        assert_eq!(slow(commands), slow(other.take()), "{policy:?}");
        assert_eq!((lab.macs(), lab.word), (other.macs(), other.word), "{policy:?}");
        assert_eq!((lab.mii(0), lab.status(0).link_failure_count), (MiiStatus::Down, 1), "{policy:?}");
    }
}

#[test]
fn late_link_events_change_nothing() {
    let mut lab = Lab::enslaved(options(Active), 3);
    assert!(lab.guard(0));
    lab.take();
    lab.notify_link(0);
    lab.notify_link(1);
    lab.wait(ms(150));
    let commands: Vec<_> = lab.take().into_iter().filter(|command| *command != PollLinks.into()).collect();
    assert_eq!(commands, []);
    assert_eq!((lab.active().as_deref(), lab.status(0).link_failure_count), (Some("slave1"), 1));
}

#[test]
fn going_back_is_for_updelay_and_the_rules_of_reselection() {
    let delayed = BondOptions { updelay: 300, primary: Some("slave0".into()), ..options(Same) };
    let mut lab = Lab::enslaved(delayed, 2);
    assert!(lab.guard(0));
    // The link was lost for a moment only.
    lab.set_link(0, true);
    assert_eq!((lab.active().as_deref(), lab.mii(0)), (Some("slave1"), MiiStatus::GoingBack));
    lab.wait(ms(299));
    assert_eq!(lab.active().as_deref(), Some("slave1"));
    lab.wait(ms(2));
    assert_eq!(lab.active().as_deref(), Some("slave0"));

    // Without a primary the bond does not switch back.
    let mut lab = Lab::enslaved(options(Same), 2);
    assert!(lab.guard(0));
    lab.set_link(0, true);
    lab.wait(ms(500));
    assert_eq!((lab.active().as_deref(), lab.mii(0)), (Some("slave1"), MiiStatus::Up));
}

#[test]
fn a_slave_in_updelay_is_used_early() {
    let mut lab = Lab::enslaved(BondOptions { updelay: 1000, ..options(Same) }, 2);
    lab.set_link(1, false);
    lab.set_link(1, true);
    assert_eq!(lab.mii(1), MiiStatus::GoingBack);
    assert!(lab.guard(0));
    assert_eq!((lab.active().as_deref(), lab.mii(1)), (Some("slave1"), MiiStatus::Up));
}

#[test]
fn the_guard_uses_one_slave_after_another_and_returns() {
    for policy in POLICIES {
        let mut lab = Lab::enslaved(options(policy), 3);
        assert!(lab.guard(0) && lab.guard(1));
        assert_eq!(lab.active().as_deref(), Some("slave2"));
        assert!(!lab.guard(2), "no slave is left");
        lab.notify_link(2);
        assert_eq!((lab.active(), lab.carrier), (None, false));
        lab.set_link(1, true);
        assert_eq!((lab.active().as_deref(), lab.carrier), (Some("slave1"), true));
        assert!(!lab.guard(1), "no slave is left");
    }
}

/// Failovers of the guard while the engine is not called. Each one is reported and counted once, also if the last one
/// leads back to the first slave.
#[test]
fn unreported_failovers_are_reported_one_by_one() {
    for policy in POLICIES {
        for path in [&[1][..], &[1, 0], &[1, 2], &[1, 0, 1], &[1, 2, 0, 1, 2, 0], &[1, 0, 2, 1, 0, 1]] {
            let mut lab = Lab::enslaved(options(policy), 3);
            lab.take();
            let slots = [0, 1, 2].map(|index| lab.slot(index));
            let mut from = 0;
            let mut usable = slots.iter().fold(0, |mask, slot| mask | slot.bit());
            let (mut failovers, mut failures) = (Vec::new(), [0; 3]);
            for &to in path {
                usable = usable & !slots[from].bit() | slots[to].bit();
                failovers.push(DataPlaneChange { active: Some(slots[to]), usable, by: ChangedBy::Guard });
                failures[from] += 1;
                from = to;
            }
            lab.word = (Some(slots[from]), None, usable);
            let (active, draining) = (Some(slots[from]), None);
            lab.handle(Event::ActiveChanged { changes: failovers, active, draining, usable }).unwrap();
            let commands = lab.take();
            let reported = commands.iter().filter(|command| is_reason(command, Reason::CarrierGuard)).count();
            assert_eq!(reported, path.len(), "{policy:?} {path:?}: {commands:?}");
            assert_eq!(
                [0, 1, 2].map(|index| lab.status(index).link_failure_count),
                failures,
                "{policy:?} {path:?}"
            );
            assert_eq!(lab.active(), Some(format!("slave{from}")), "{policy:?} {path:?}");
            assert!(
                commands.iter().any(|command| matches!(command, Command::Announce(_))),
                "{policy:?} {path:?}"
            );
        }
    }
}

/// The engine follows another process that writes a slave which is up into ACTIVE, and corrects other words.
#[test]
fn a_word_without_an_active_slave_is_corrected() {
    let mut lab = Lab::enslaved(options(Same), 2);
    let unused = lab.slot(1).index() as u8 + 5;
    let before = lab.word;
    for active in [None, bond_common::abi::Slot::new(unused)] {
        lab.word = (active, None, 0);
        lab.handle(Event::ActiveChanged { changes: Vec::new(), active, draining: None, usable: 0 }).unwrap();
        assert_eq!(lab.word, before);
        assert_eq!(lab.active().as_deref(), Some("slave0"));
    }
}

#[test]
fn under_follow_a_prepared_slave_announces_first() {
    for prearm in [false, true] {
        let new = crate::NewBond {
            name: "bond0".into(),
            mac: super::lab::BORN,
            mac_assigned: false,
            mac_stays: false,
            prearm,
            seed: 1,
            options: options(Follow),
            damping: None,
            watch: None,
        };
        let mut lab = Lab::of(new, 2);
        lab.join(0).unwrap();
        lab.join(1).unwrap();
        lab.take();
        lab.mode = CommandMode::Manual;
        lab.set_active(Some(1)).unwrap();
        let (s0, s1) = (lab.slot(0), lab.slot(1));
        let swap = [(s1, 0x10), (s0, 0x11)].map(|(slot, last)| SetSlaveMac { slot, mac: mac(last) }.into());
        let slow: Vec<_> = lab
            .take()
            .into_iter()
            .filter(|command| matches!(command, Command::Work(SetSlaveMac { .. }) | Command::Announce(_)))
            .collect();
        let announced = Command::from(Announce { slot: s1, mac: mac(0x10) });
        let expected = if prearm { [&[announced][..], &swap].concat() } else { swap.to_vec() };
        assert_eq!(slow, expected, "prearm {prearm}");
    }
}
