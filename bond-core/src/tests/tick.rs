//! Changes of ACTIVE by ticks of the clock, which the engine learns of afterwards.

use bond_common::clock::decide::Cause;

use super::lab::{Command, Lab, ms, options};
use crate::{
    ChangedBy, DataPlaneChange,
    command::{Failover, Reason, Report, Trigger},
    event::Event,
    options::{
        BondOptions,
        FailOverMac::{Active, Follow, None as Same},
    },
    status::MiiStatus,
};

impl Lab {
    /// Has ticks store these words, by the index of the active slave and those of the usable ones, before the engine knows of
    /// any of them.
    fn ticks(&mut self, changes: &[(Option<u8>, &[u8], Cause)]) {
        let mut recorded = Vec::new();
        for (active, usable, cause) in changes {
            let active = active.map(|index| self.slot(index));
            let usable = usable.iter().fold(0, |mask, index| mask | self.slot(*index).bit());
            self.word = (active, None, usable);
            recorded.push(DataPlaneChange { active, usable, by: ChangedBy::Tick(*cause) });
        }
        let (active, draining, usable) = self.word;
        self.handle(Event::ActiveChanged { changes: recorded, active, draining, usable }).unwrap();
    }
}

/// From, to, and the reason of each failover that was reported as a tick's.
fn reported(commands: &[Command]) -> Vec<(Option<&str>, Option<&str>, Reason)> {
    reported_as(commands, Trigger::Tick)
}

/// The same of failovers that were seen so.
fn reported_as(commands: &[Command], by: Trigger) -> Vec<(Option<&str>, Option<&str>, Reason)> {
    let failover = |command| match command {
        &Command::Report(Report::Failover(Failover { ref from, ref to, reason, seen, .. })) if seen == by => {
            Some((from.as_deref(), to.as_deref(), reason))
        }
        _ => None,
    };
    commands.iter().filter_map(failover).collect()
}

#[test]
fn failovers_of_ticks_are_adopted_and_reported_one_by_one() {
    let (zero, one) = (Some("slave0"), Some("slave1"));
    for policy in [Same, Active, Follow] {
        let mut lab = Lab::enslaved(options(policy), 2);
        lab.take();
        lab.nic_mut(0).link.up = false;
        lab.ticks(&[(Some(1), &[1], Cause::LinkLost)]);
        let commands = lab.take();
        assert_eq!(reported(&commands), [(zero, one, Reason::LinkFailed)], "{policy:?}");
        assert!(commands.iter().any(|command| matches!(command, Command::Announce(_))), "{policy:?}");
        assert_eq!((lab.mii(0), lab.status(0).link_failure_count), (MiiStatus::Down, 1), "{policy:?}");

        // Both are down, then the first returns.
        lab.nic_mut(1).link.up = false;
        lab.nic_mut(0).link.up = true;
        lab.ticks(&[(None, &[], Cause::LinkLost), (Some(0), &[0], Cause::LinkReturned)]);
        let commands = lab.take();
        let expected = [(one, None, Reason::LinkFailed), (None, zero, Reason::LinkRecovered)];
        assert_eq!(reported(&commands), expected, "{policy:?}");
        assert_eq!((lab.mii(0), lab.mii(1)), (MiiStatus::Up, MiiStatus::Down), "{policy:?}");
        assert_eq!([0, 1].map(|index| lab.status(index).link_failure_count), [1, 1], "{policy:?}");
        assert_eq!(lab.active().as_deref(), zero, "{policy:?}");
    }
}

#[test]
fn a_failover_that_the_engine_and_a_tick_decided_is_one_failover() {
    let is_failover = |command: &&Command| matches!(command, Command::Report(Report::Failover(_)));
    let is_round = |command: &&Command| matches!(command, Command::Announce(_));
    for policy in [Same, Active, Follow] {
        let mut lab = Lab::enslaved(BondOptions { num_grat_arp: 3, ..options(policy) }, 2);
        lab.take();
        // The engine loses the compare-and-swap to the tick.
        lab.set_link(0, false);
        lab.ticks(&[(Some(1), &[1], Cause::LinkLost)]);
        lab.wait(ms(2000));
        let commands = lab.take();
        let count = |is: fn(&&Command) -> bool| commands.iter().filter(is).count();
        assert_eq!((count(is_failover), count(is_round)), (1, 3), "{policy:?}: {commands:?}");
        assert_eq!(lab.status(0).link_failure_count, 1, "{policy:?}");
        lab.set_link(1, false);
        lab.ticks(&[(None, &[], Cause::LinkLost)]);
        assert_eq!(lab.take().iter().filter(is_failover).count(), 1, "{policy:?}");
    }
}

#[test]
fn a_bond_without_an_active_slave_stays_so_until_a_link_returns() {
    let mut lab = Lab::enslaved(options(Same), 1);
    lab.nic_mut(0).link.up = false;
    lab.ticks(&[(None, &[], Cause::LinkLost)]);
    assert_eq!((lab.active(), lab.carrier), (None, false));
    lab.set_link(0, true);
    assert_eq!((lab.active().as_deref(), lab.carrier), (Some("slave0"), true));
}

#[test]
fn a_preferred_slave_takes_over_from_one_that_stays_up() {
    let mut lab =
        Lab::enslaved(BondOptions { primary: Some("slave0".into()), updelay: 300, ..options(Same) }, 2);
    assert!(lab.guard(0));
    lab.set_link(0, true);
    lab.take();
    // The tick counts updelay, too, and may be first.
    lab.ticks(&[(Some(1), &[0, 1], Cause::Bookkeeping), (Some(0), &[0, 1], Cause::Preferred)]);
    assert_eq!(reported(&lab.take()), [(Some("slave1"), Some("slave0"), Reason::LinkRecovered)]);
    assert_eq!((lab.mii(0), lab.mii(1)), (MiiStatus::Up, MiiStatus::Up));
    assert_eq!([0, 1].map(|index| lab.status(index).link_failure_count), [1, 0]);
    lab.wait(ms(500));
    assert_eq!(lab.active().as_deref(), Some("slave0"));
}

#[test]
fn bookkeeping_of_a_tick_is_adopted_without_a_notice() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.nic_mut(1).link.up = false;
    lab.take();
    lab.ticks(&[(Some(0), &[0], Cause::Bookkeeping)]);
    let commands = lab.take();
    let failover = |command: &Command| matches!(command, Command::Report(Report::Failover(_)));
    assert!(!commands.iter().any(failover), "{commands:?}");
    assert_eq!((lab.mii(1), lab.status(1).link_failure_count), (MiiStatus::Down, 1));
    assert_eq!(lab.active().as_deref(), Some("slave0"));
}

#[test]
fn a_preference_is_the_outcome_of_an_election_between_two() {
    use crate::options::PrimaryReselect::{self, Always, Better, Failure};
    type Row<'a> = (Option<&'a str>, PrimaryReselect, &'a [(u8, u8)]);
    let table: &[Row<'_>] = &[
        (None, Always, &[]),
        (Some("slave2"), Always, &[(2, 0), (2, 1)]),
        (Some("slave2"), Failure, &[]),
        // Their speeds are equal.
        (Some("slave2"), Better, &[]),
    ];
    for (primary, reselect, expected) in table {
        let primary = primary.map(String::from);
        let lab = Lab::enslaved(BondOptions { primary, primary_reselect: *reselect, ..options(Same) }, 3);
        let preference = lab.engine.preference();
        let pairs = (0..3).flat_map(|taker| (0..3).map(move |active| (taker, active)));
        let found: Vec<_> =
            pairs.filter(|(taker, active)| preference.prefers(lab.slot(*taker), lab.slot(*active))).collect();
        assert_eq!(found, *expected, "{reselect:?}");
    }
}

#[test]
fn what_ticks_did_after_their_last_failover_is_adopted_with_it() {
    for (policy, by) in [(Same, Cause::LinkLost), (Active, Cause::LinkLost)] {
        let mut lab = Lab::enslaved(options(policy), 2);
        lab.take();
        lab.ticks(&[(Some(1), &[1], by), (Some(1), &[0, 1], Cause::Bookkeeping)]);
        let expected = [(Some("slave0"), Some("slave1"), Reason::LinkFailed)];
        assert_eq!(reported(&lab.take()), expected, "{policy:?}");
        assert_eq!(lab.active().as_deref(), Some("slave1"), "{policy:?}");
        assert_eq!([0, 1].map(|index| lab.mii(index)), [MiiStatus::Up; 2], "{policy:?}");
        assert_eq!([0, 1].map(|index| lab.status(index).link_failure_count), [1, 0], "{policy:?}");
        lab.wait(ms(500));
        assert_eq!(lab.active().as_deref(), Some("slave1"), "{policy:?}");
    }
}

/// A bond with ARP monitoring, whose agent was stopped; its paths are alive again when it returns.
fn unattended() -> Lab {
    let arp = BondOptions {
        miimon: 0,
        arp_interval: 100,
        arp_ip_target: vec!["10.0.0.254".parse().unwrap()],
        ..options(Same)
    };
    let mut lab = Lab::enslaved(arp, 3);
    lab.wait(ms(1050));
    lab.take();
    lab.now += ms(2000);
    lab
}

#[test]
fn what_the_arp_monitor_of_ticks_did_is_adopted_and_every_failure_counts() {
    use Cause::{Answered, Bookkeeping, Unanswered};
    let mut lab = unattended();
    lab.ticks(&[
        (Some(1), &[1, 2], Unanswered),
        (Some(1), &[0, 1], Bookkeeping),
        (Some(1), &[0, 1, 2], Bookkeeping),
        (Some(0), &[0, 2], Unanswered),
        (None, &[], Unanswered),
        (Some(1), &[1], Answered),
        (Some(1), &[0, 1], Bookkeeping),
    ]);
    let commands = lab.take();
    let [zero, one] = [Some("slave0"), Some("slave1")];
    let failed = Reason::LinkFailed;
    let expected =
        [(zero, one, failed), (one, zero, failed), (zero, None, failed), (None, one, Reason::LinkRecovered)];
    assert_eq!(reported_as(&commands, Trigger::ArpTick), expected);
    assert!(reported(&commands).is_empty());
    assert_eq!([0, 1, 2].map(|index| lab.status(index).link_failure_count), [2, 1, 2]);
    assert_eq!([0, 1, 2].map(|index| lab.mii(index)), [MiiStatus::Up, MiiStatus::Up, MiiStatus::Down]);
    // Its links were there all the time, and no slave is judged by the time in which no agent probed.
    lab.wait(ms(1000));
    assert_eq!(lab.active().as_deref(), one);
    assert_eq!([0, 1, 2].map(|index| lab.mii(index)), [MiiStatus::Up; 3]);
    assert_eq!([0, 1, 2].map(|index| lab.status(index).link_failure_count), [2, 1, 2]);
}

#[test]
fn an_agent_that_returns_to_a_healthy_bond_changes_nothing() {
    let mut lab = unattended();
    lab.ticks(&[]);
    lab.timeout();
    lab.wait(ms(2000));
    assert_eq!((lab.active().as_deref(), lab.carrier), (Some("slave0"), true));
    assert_eq!([0, 1, 2].map(|index| lab.status(index).link_failure_count), [0; 3]);
}

#[test]
fn a_path_that_a_tick_left_is_avoided_until_it_answers_again() {
    let (zero, one) = (Some("slave0"), Some("slave1"));
    for policy in [Same, Active, Follow] {
        let mut lab = Lab::enslaved(BondOptions { primary: zero.map(str::to_owned), ..options(policy) }, 3);
        lab.take();
        lab.ticks(&[(Some(1), &[1, 2], Cause::PathSilent)]);
        let commands = lab.take();
        assert_eq!(reported_as(&commands, Trigger::Path), [(zero, one, Reason::Path)], "{policy:?}");
        assert!(commands.iter().any(|command| matches!(command, Command::Announce(_))), "{policy:?}");
        // Its link is there, and no failure of it is counted.
        assert_eq!((lab.mii(0), lab.status(0).link_failure_count), (MiiStatus::Up, 0), "{policy:?}");
        lab.wait(ms(1000));
        assert_eq!((lab.active().as_deref(), lab.status(0).path_failed), (one, true), "{policy:?}");
        assert_eq!(lab.engine.avoided_by_agent(), 0, "the data plane knows it itself");
        lab.find(lab.slot(0).bit());
        lab.take();
        // Damaged as it is, it is better than none.
        let failed = lab.slot(0).bit() | lab.slot(1).bit();
        lab.ticks(&[(Some(2), &[2], Cause::PathSilent)]);
        lab.find(failed);
        assert_eq!(lab.active().as_deref(), Some("slave2"), "{policy:?}");
        lab.take();
        lab.find(lab.slot(1).bit());
        let back = reported_as(&lab.take(), Trigger::Path).len();
        assert_eq!((lab.active().as_deref(), back), (zero, 1), "the primary takes over, {policy:?}");
    }
}

#[test]
fn the_last_slave_with_a_link_is_used_whatever_its_path_is() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.ticks(&[(Some(1), &[1], Cause::PathSilent)]);
    lab.take();
    lab.nic_mut(1).link.up = false;
    lab.ticks(&[(Some(0), &[0], Cause::LinkLost)]);
    assert_eq!(lab.active().as_deref(), Some("slave0"));
    assert_eq!([0, 1].map(|index| lab.status(index).link_failure_count), [0, 1]);
}
