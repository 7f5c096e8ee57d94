//! Delays, polls, announcements and the end of draining, with a simulated clock.

use super::lab::{Command, Lab, ms, options};
use crate::{
    Time,
    command::{Announce, Notice, Query, Reason, Report, Work},
    event::Event,
    options::{
        BondOptions,
        FailOverMac::{Active, Follow, None as Same},
    },
    status::MiiStatus::{self, Down, GoingBack, GoingDown, Up},
};

fn delays(updelay: u32, downdelay: u32) -> BondOptions {
    BondOptions { updelay, downdelay, ..options(Same) }
}

fn at(lab: &Lab, start: Time) -> u128 {
    (lab.now - start).as_millis()
}

#[test]
fn polls_that_find_nothing_new_change_nothing() {
    let mut lab = Lab::enslaved(options(Active), 2);
    lab.set_link(1, false);
    lab.wait(ms(10_000));
    lab.changes = 0;
    lab.wait(ms(10_000));
    assert_eq!(lab.changes, 0);
    lab.nic_mut(1).link.up = true;
    lab.wait(ms(100));
    assert_eq!((lab.changes, lab.mii(1)), (1, Up));
}

/// Waits until a slave has this status, and returns the elapsed milliseconds.
fn wait_for(lab: &mut Lab, index: u8, status: MiiStatus) -> u128 {
    let start = lab.now;
    while lab.mii(index) != status {
        assert!(lab.now - start < ms(10_000), "slave{index} never is {status}");
        lab.wait(ms(1));
    }
    at(lab, start)
}

fn announcement(command: &Command) -> bool {
    matches!(command, Command::Announce(_))
}

#[test]
fn downdelay_always_runs_and_the_dead_slave_stays_active() {
    let mut lab = Lab::enslaved(delays(0, 500), 2);
    lab.set_link(0, false);
    assert_eq!((lab.mii(0), lab.active().as_deref()), (GoingDown, Some("slave0")));
    assert_eq!(wait_for(&mut lab, 0, Down), 500);
    assert_eq!((lab.active().as_deref(), lab.status(0).link_failure_count), (Some("slave1"), 1));

    // Also if no other slave can be used.
    lab.set_link(1, false);
    assert_eq!((lab.active().as_deref(), lab.carrier), (Some("slave1"), false));
    assert_eq!(wait_for(&mut lab, 1, Down), 500);
    assert_eq!(lab.active(), None);
}

#[test]
fn a_flap_inside_downdelay_is_no_failover() {
    let mut lab = Lab::enslaved(delays(1000, 500), 2);
    lab.set_link(0, false);
    lab.wait(ms(499));
    lab.set_link(0, true);
    lab.wait(ms(3000));
    assert_eq!(
        (lab.mii(0), lab.active().as_deref(), lab.status(0).link_failure_count),
        (Up, Some("slave0"), 0)
    );
    assert_eq!(lab.take_failovers(), []);
}

#[test]
fn updelay_runs_while_another_is_active() {
    let mut lab = Lab::enslaved(delays(1000, 0), 2);
    lab.set_link(1, false);
    lab.set_link(1, true);
    assert_eq!(lab.mii(1), GoingBack);
    assert_eq!(wait_for(&mut lab, 1, Up), 1000);
}

#[test]
fn a_link_lost_in_updelay_is_down_and_counted_again() {
    let mut lab = Lab::enslaved(delays(1000, 500), 2);
    wait_for(&mut lab, 1, Up);
    lab.set_link(1, false);
    wait_for(&mut lab, 1, Down);
    lab.set_link(1, true);
    lab.wait(ms(900));
    lab.set_link(1, false);
    assert_eq!((lab.mii(1), lab.status(1).link_failure_count), (Down, 2));
}

#[test]
fn updelay_is_ignored_without_an_active_slave() {
    let mut lab = Lab::enslaved(delays(1000, 0), 2);
    lab.set_link(0, false);
    lab.set_link(1, false);
    assert_eq!((lab.active(), lab.carrier), (None, false));
    lab.set_link(1, true);
    assert_eq!((lab.mii(1), lab.active().as_deref(), lab.carrier), (Up, Some("slave1"), true));
    lab.set_link(0, true);
    assert_eq!((lab.mii(0), wait_for(&mut lab, 0, Up)), (GoingBack, 1000));
}

#[test]
fn at_enslave_the_first_is_used_and_the_second_waits() {
    let lab = Lab::enslaved(delays(1000, 0), 2);
    assert_eq!((lab.mii(0), lab.mii(1), lab.active().as_deref()), (Up, GoingBack, Some("slave0")));
}

#[test]
fn a_slave_in_updelay_is_used_early_if_nothing_is_up() {
    let mut lab = Lab::enslaved(delays(1000, 0), 3);
    lab.wait(ms(2000));
    for index in [2, 1] {
        lab.set_link(index, false);
        lab.set_link(index, true);
        lab.wait(ms(300));
    }
    lab.take();
    lab.set_link(0, false);
    assert_eq!((lab.active().as_deref(), lab.mii(2), lab.mii(1)), (Some("slave2"), Up, GoingBack));
    let changed = Notice::LinkChanged { slave: "slave2".into(), up: true };
    assert!(lab.take_reports().iter().any(|report| *report == changed));
}

#[test]
fn delays_and_their_ends_are_reported() {
    let mut lab = Lab::enslaved(delays(400, 200), 2);
    lab.wait(ms(1000));
    lab.take();
    let expected = |up, delay_ms| Notice::LinkDelayed { slave: "slave1".into(), up, delay_ms };
    let changed = |up| Notice::LinkChanged { slave: "slave1".into(), up };
    lab.set_link(1, false);
    assert_eq!(lab.take_reports(), [expected(false, 200)]);
    lab.wait(ms(200));
    assert_eq!(lab.take_reports(), [changed(false)]);
    lab.set_link(1, true);
    assert_eq!(lab.take_reports(), [expected(true, 400)]);
    lab.wait(ms(400));
    assert_eq!(lab.take_reports(), [changed(true)]);
}

#[test]
fn links_are_polled_each_miimon_and_not_without() {
    let mut lab = Lab::enslaved(options(Active), 2);
    let start = lab.now;
    lab.wait(ms(350));
    assert_eq!(
        lab.take_times(start, |command| *command == Command::Query(Query::PollLinks)),
        [100, 200, 300]
    );
    // A change without a netlink notification is found at the next poll.
    lab.nic_mut(0).link.up = false;
    assert_eq!(wait_for(&mut lab, 0, Down), 50);
    lab.take();

    let start = lab.now;
    lab.set_options(|options| options.miimon = 30).unwrap();
    lab.wait(ms(100));
    // At multiples of miimon: all bonds with this miimon poll together.
    assert_eq!(
        lab.take_times(start, |command| *command == Command::Query(Query::PollLinks)),
        [10, 40, 70, 100]
    );
    lab.set_options(|options| options.miimon = 0).unwrap();
    lab.take();
    lab.wait(ms(1000));
    assert_eq!(lab.take(), []);
    assert_eq!(lab.engine.poll_timeout(), None);
}

/// A switch that takes two of three links down is one failover, and one that gives all back elects the first.
#[test]
fn links_that_change_together_are_one_election() {
    let mut lab = Lab::enslaved(options(Follow), 3);
    let failovers = |lab: &mut Lab| lab.take_failovers().len();
    for (up, expected) in [([false, false, true], "slave2"), ([false; 3], ""), ([true; 3], "slave0")] {
        for (index, up) in (0..).zip(up) {
            lab.nic_mut(index).link.up = up;
        }
        lab.wait(ms(100));
        assert_eq!((lab.active().unwrap_or_default().as_str(), failovers(&mut lab)), (expected, 1), "{up:?}");
    }
}

#[test]
fn an_engine_that_is_a_little_late_keeps_its_interval() {
    let mut lab = Lab::enslaved(options(Active), 1);
    lab.now += ms(130);
    let start = lab.now;
    lab.timeout();
    lab.wait(ms(200));
    assert_eq!(lab.take_times(start, |command| *command == Command::Query(Query::PollLinks)), [0, 70, 170]);
}

#[test]
fn a_late_engine_polls_once() {
    let mut lab = Lab::enslaved(options(Same), 1);
    lab.now += ms(1050);
    let start = lab.now;
    lab.timeout();
    lab.wait(ms(250));
    assert_eq!(
        lab.take_times(start, |command| *command == Command::Query(Query::PollLinks)),
        [0, 50, 150, 250]
    );
}

#[test]
fn unmonitored_slaves_are_up_whatever_their_link() {
    let mut lab = Lab::new(BondOptions::default(), 2);
    lab.nic_mut(0).link.up = false;
    lab.join(0).unwrap();
    lab.join(1).unwrap();
    lab.set_link(1, false);
    lab.wait(ms(5000));
    assert_eq!(
        (lab.mii(0), lab.mii(1), lab.active().as_deref(), lab.carrier),
        (Up, Up, Some("slave0"), true)
    );
}

#[test]
fn monitoring_that_starts_detects_dead_links_and_when_it_stops_they_stay_down() {
    let mut lab = Lab::new(BondOptions::default(), 2);
    lab.nic_mut(0).link.up = false;
    lab.join(0).unwrap();
    lab.join(1).unwrap();
    lab.set_options(|options| options.miimon = 100).unwrap();
    assert_eq!((lab.mii(0), lab.active().as_deref()), (Down, Some("slave1")));
    lab.set_options(|options| options.miimon = 0).unwrap();
    assert_eq!((lab.mii(0), lab.active().as_deref()), (Down, Some("slave1")));
    lab.set_link(0, true);
    lab.set_link(0, false);
    assert_eq!((lab.mii(0), lab.active().as_deref()), (Up, Some("slave1")));
}

#[test]
fn announcements_come_at_once_and_then_each_interval() {
    for (num_grat_arp, peer_notif_delay, expected) in [
        (0, 0, vec![]),
        (1, 0, vec![0]),
        (3, 0, vec![0, 100, 200]),
        (3, 300, vec![0, 300, 600]),
        (5, 0, vec![0, 100, 200, 300, 400]),
    ] {
        for policy in [Same, Active, Follow] {
            let options = BondOptions { num_grat_arp, peer_notif_delay, ..options(policy) };
            let mut lab = Lab::enslaved(options, 2);
            lab.wait(ms(5000));
            lab.take();
            let start = lab.now;
            lab.set_link(0, false);
            lab.wait(ms(5000));
            let times = lab.take_times(start, announcement);
            assert_eq!(
                times, expected,
                "num_grat_arp {num_grat_arp}, peer_notif_delay {peer_notif_delay}, {policy:?}"
            );
        }
    }
}

#[test]
fn announcements_end_when_none_are_wanted_any_more() {
    let mut lab = Lab::enslaved(BondOptions { num_grat_arp: 9, ..options(Same) }, 2);
    lab.wait(ms(5000));
    lab.take();
    let start = lab.now;
    lab.set_link(0, false);
    lab.wait(ms(150));
    lab.set_options(|options| options.num_grat_arp = 0).unwrap();
    lab.wait(ms(5000));
    assert_eq!(lab.take_times(start, announcement), [0, 100]);
}

fn report(command: &Command) -> bool {
    matches!(command, Command::Work(Work::SendReports { .. }))
}

#[test]
fn reports_come_at_once_and_then_every_200_ms() {
    for (resend_igmp, expected) in [(0, vec![]), (1, vec![0]), (3, vec![0, 200, 400])] {
        for policy in [Same, Active, Follow] {
            // Another miimon and no announcements: reports have their own interval.
            let options = BondOptions { resend_igmp, num_grat_arp: 0, miimon: 30, ..options(policy) };
            let mut lab = Lab::enslaved(options, 2);
            lab.wait(ms(5000));
            lab.take();
            let start = lab.now;
            lab.set_link(0, false);
            lab.wait(ms(5000));
            assert_eq!(lab.take_times(start, report), expected, "resend_igmp {resend_igmp}, {policy:?}");
        }
    }
}

#[test]
fn reports_go_by_the_active_slave_with_the_bonds_mac_and_end_with_it() {
    let mut lab = Lab::enslaved(BondOptions { resend_igmp: 3, ..options(Active) }, 3);
    lab.wait(ms(5000));
    lab.take();
    lab.set_link(0, false);
    lab.wait(ms(250));
    lab.set_link(1, false);
    lab.wait(ms(50));
    lab.set_link(2, false);
    lab.wait(ms(5000));
    let sent = |command| match command {
        Command::Work(Work::SendReports { slot, mac }) => Some((slot.index(), mac.bytes()[5])),
        _ => None,
    };
    let sent: Vec<_> = lab.take().into_iter().filter_map(sent).collect();
    assert_eq!(sent, [(1, 0x11), (1, 0x11), (2, 0x12)], "none is sent without an active slave");

    lab.set_link(2, true);
    lab.wait(ms(50));
    lab.set_options(|options| options.resend_igmp = 0).unwrap();
    lab.wait(ms(5000));
    assert_eq!(lab.take().into_iter().filter(report).count(), 1);
}

#[test]
fn announcements_go_by_the_active_slave_with_its_mac_and_restart() {
    let mut lab = Lab::enslaved(BondOptions { num_grat_arp: 3, ..options(Active) }, 3);
    lab.wait(ms(5000));
    lab.take();
    lab.set_link(0, false);
    lab.wait(ms(150));
    lab.set_link(1, false);
    lab.wait(ms(5000));
    let sent: Vec<u8> = lab
        .take()
        .into_iter()
        .filter_map(|command| match command {
            Command::Announce(Announce { slot, mac }) => {
                assert_eq!(lab.slaves[&slot].1, mac, "not what its frames carry");
                Some(mac.bytes()[5])
            }
            _ => None,
        })
        .collect();
    assert_eq!(sent, [0x11, 0x11, 0x12, 0x12, 0x12]);
}

/// The driver forgets it: one round was asked for, and none is sent (peernotif.txt).
#[test]
fn coming_back_from_no_active_slave_is_announced() {
    let mut lab = Lab::enslaved(options(Same), 1);
    lab.set_link(0, false);
    lab.wait(ms(1000));
    let start = lab.now;
    lab.take();
    lab.set_link(0, true);
    assert_eq!(lab.take_times(start, announcement), [0]);
}

#[test]
fn without_an_active_slave_nothing_is_announced() {
    let mut lab = Lab::enslaved(BondOptions { num_grat_arp: 5, ..options(Same) }, 2);
    lab.set_link(0, false);
    lab.set_link(1, false);
    lab.take();
    lab.wait(ms(1000));
    assert!(!lab.take().iter().any(announcement));
}

/// When, in ms after a planned switch, the old slave no longer drains; `announced` in ms after it, if at all.
fn drain_end(num_grat_arp: u8, announced: Option<u64>) -> u128 {
    let mut lab = Lab::enslaved(BondOptions { num_grat_arp, ..options(Same) }, 2);
    lab.wait(ms(5000));
    lab.mode = super::lab::CommandMode::Manual;
    let start = lab.now;
    lab.set_active(Some(1)).unwrap();
    assert_eq!(lab.word, (Some(lab.slot(1)), Some(lab.slot(0)), 0b11));
    if let Some(announced) = announced {
        lab.wait(ms(announced));
        assert!(lab.work());
    }
    while lab.word.1.is_some() {
        lab.wait(ms(1));
    }
    assert_eq!(lab.word, (Some(lab.slot(1)), None, 0b11));
    at(&lab, start)
}

#[test]
fn draining_ends_after_the_announcement() {
    assert_eq!(drain_end(1, Some(0)), 100);
    assert_eq!(drain_end(1, Some(250)), 350);
    assert_eq!(drain_end(3, Some(250)), 350, "the first round counts");
    assert_eq!(drain_end(1, Some(950)), 1000, "a second is the most");
    assert_eq!(drain_end(1, None), 1000);
    assert_eq!(drain_end(0, None), 100);
}

#[test]
fn the_answer_to_an_earlier_switch_ends_no_draining() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.wait(ms(5000));
    lab.mode = super::lab::CommandMode::Manual;
    for index in [1, 0, 1] {
        lab.set_active(Some(index)).unwrap();
    }
    assert!(lab.work() && lab.work());
    lab.wait(ms(300));
    assert_eq!(lab.word.1, Some(lab.slot(0)));
    assert!(lab.work() && !lab.work());
    lab.wait(ms(100));
    assert_eq!(lab.word.1, None);
}

#[test]
fn draining_ends_at_once_when_the_slave_fails_or_leaves() {
    let draining = || {
        let mut lab = Lab::enslaved(options(Same), 2);
        lab.set_active(Some(1)).unwrap();
        assert_eq!(lab.word.1, Some(lab.slot(0)));
        lab
    };
    let mut lab = draining();
    lab.set_link(0, false);
    assert_eq!(lab.word, (Some(lab.slot(1)), None, 0b10));
    let mut lab = draining();
    lab.leave(0).unwrap();
    assert_eq!(lab.word, (Some(lab.slot(1)), None, 0b10));
}

#[test]
fn a_failed_active_does_not_drain() {
    let mut lab = Lab::enslaved(options(Same), 3);
    lab.set_link(0, false);
    assert_eq!(lab.word, (Some(lab.slot(1)), None, 0b110));
}

/// While the slave drains it may be released again, vanish or fail, and it does not become active.
#[test]
fn a_released_active_drains_first() {
    let leaving = || {
        let mut lab = Lab::enslaved(options(Same), 3);
        lab.ask_to_leave(0).unwrap();
        assert_eq!(lab.word, (Some(lab.slot(1)), Some(lab.slot(0)), 0b110));
        assert_eq!(lab.mii(0), Down);
        lab
    };
    let is_enslaved = |lab: &Lab| lab.engine.slot_of("slave0").is_some();

    let mut lab = leaving();
    lab.wait(ms(50));
    lab.ask_to_leave(0).unwrap();
    assert_eq!(lab.set_active(Some(0)), Err(crate::Refusal::Leaving { name: "slave0".into() }));
    lab.set_options(|options| options.primary = Some("slave0".into())).unwrap();
    assert_eq!(lab.active().as_deref(), Some("slave1"));
    lab.wait(ms(49));
    assert!(is_enslaved(&lab));
    lab.wait(ms(1));
    assert!(!is_enslaved(&lab));
    assert_eq!(lab.word, (Some(lab.slot(1)), None, 0b110));

    let mut lab = leaving();
    lab.set_link(0, false);
    assert!(!is_enslaved(&lab), "a dead link has nothing to deliver");

    let mut lab = leaving();
    lab.handle(Event::Gone { slot: lab.slot(0) }).unwrap();
    assert!(!is_enslaved(&lab) && lab.word.1.is_none());

    // The next switch replaces the draining slave.
    let mut lab = leaving();
    let second = lab.slot(1);
    lab.set_active(Some(2)).unwrap();
    assert_eq!(lab.word, (Some(lab.slot(2)), Some(second), 0b110));
    assert!(!is_enslaved(&lab));

    // The last slave is released at once.
    let mut lab = Lab::enslaved(options(Same), 1);
    lab.ask_to_leave(0).unwrap();
    assert!(!is_enslaved(&lab));
}

/// The slave sends frames and receives none, as behind a port that accepts only the NIC's own address.
#[test]
fn a_slave_without_unicast_is_reported_within_five_seconds() {
    for policy in [Same, Follow] {
        let mut lab = Lab::enslaved(options(policy), 2);
        lab.wait(ms(30_000));
        lab.set_link(0, false);
        lab.take();
        let start = lab.now;
        while lab.now - start < ms(5000) {
            lab.nic_mut(1).tx_packets += 10;
            lab.wait(ms(100));
        }
        let reports = lab.take_reports();
        assert!(
            matches!(&reports[..], [Report::Notice(Notice::NoUnicast { slave, .. })] if slave == "slave1"),
            "{policy:?}: {reports:?}"
        );
        assert!(lab.status(1).no_unicast > Some(100), "{policy:?}");
        assert_eq!(lab.status(0).no_unicast, None);

        lab.nic_mut(1).rx_unicast += 1;
        lab.wait(ms(10_000));
        assert_eq!(lab.take_reports(), [Notice::UnicastReceived { slave: "slave1".into() }], "{policy:?}");
        assert_eq!(lab.status(1).no_unicast, None);
        lab.wait(ms(60_000));
        assert!(
            !lab.take().iter().any(|command| matches!(command, Command::Query(Query::ReadCounters { .. })))
        );
    }
}

#[test]
fn reception_is_not_tested_under_active_nor_at_the_start() {
    let reads = |lab: &mut Lab| {
        lab.take()
            .iter()
            .filter(|command| matches!(command, Command::Query(Query::ReadCounters { .. })))
            .count()
    };
    let mut lab = Lab::new(options(Same), 1);
    lab.join(0).unwrap();
    lab.wait(ms(5000));
    assert_eq!(reads(&mut lab), 0);
    let mut lab = Lab::enslaved(options(Active), 2);
    lab.set_link(0, false);
    lab.wait(ms(5000));
    assert_eq!(reads(&mut lab), 0);
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.set_link(0, false);
    assert_eq!(reads(&mut lab), 1);
}

#[test]
fn follow_announces_when_the_mac_is_set_even_if_it_is_refused() {
    for refuses in [false, true] {
        let mut lab = Lab::enslaved(BondOptions { resend_igmp: 1, ..options(Follow) }, 2);
        lab.wait(ms(5000));
        lab.take();
        lab.nic_mut(1).refuses = refuses;
        lab.mode = super::lab::CommandMode::Manual;
        let start = lab.now;
        lab.set_link(0, false);
        lab.wait(ms(700));
        assert!(lab.work());
        lab.wait(ms(1000));
        let times = lab.take_times(start, |command| announcement(command) || report(command));
        assert_eq!(times, [700, 700], "refuses: {refuses}");
    }
}

#[test]
fn every_timer_is_survived_by_a_bond_that_is_emptied() {
    let mut lab = Lab::enslaved(delays(1000, 500), 2);
    lab.set_link(0, false);
    lab.leave(0).unwrap();
    lab.handle(Event::Gone { slot: lab.slot(1) }).unwrap();
    lab.wait(ms(5000));
    assert_eq!((lab.engine.poll_timeout(), lab.word, lab.carrier), (None, (None, None, 0), false));
    let reasons: Vec<Reason> = lab.take_failovers().into_iter().map(|failover| failover.reason).collect();
    assert_eq!(reasons, [Reason::Left, Reason::Left]);
}
