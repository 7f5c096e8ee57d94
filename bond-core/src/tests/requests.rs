//! Requests: their effects and refusals.

use bond_common::abi::Slot;

use super::lab::{Command, CommandMode, Lab, mac, ms, options};
use crate::{
    Refusal,
    command::{Chosen, Failover, Publish, Reason, Trigger, Work},
    event::{Duplex, Elects, Event, Link, Speed},
    options::{
        FailOverMac::{Active, Follow, None as Same},
        PrimaryReselect, SlaveOptions,
    },
    status::{MiiStatus, Pending, SlaveState},
};

fn active(lab: &Lab) -> String {
    lab.active().unwrap_or_default()
}

fn refused(lab: &mut Lab, event: Event, expected: Refusal) {
    let (before, rank) = (lab.engine.status(), lab.engine.rank());
    lab.take();
    assert_eq!(lab.handle(event), Err(expected.clone()));
    assert_eq!((lab.engine.status(), lab.engine.rank(), lab.take()), (before, rank, vec![]), "{expected}");
}

#[test]
fn invalid_joins_are_refused() {
    let mut lab = Lab::enslaved(options(Same), 2);
    let again = lab.new_slave(0);
    refused(&mut lab, Event::Join(again), Refusal::AlreadyEnslaved { name: "slave0".into() });
    let mut duplicate = lab.new_slave(1);
    duplicate.name = "other".into();
    let expected = Refusal::IfindexInUse { name: "other".into(), ifindex: 11, slave: "slave1".into() };
    refused(&mut lab, Event::Join(duplicate), expected);
    let mut stubborn = lab.new_slave(0);
    (stubborn.name, stubborn.ifindex, stubborn.can_set_mac) = ("tun".into(), 99, false);
    refused(&mut lab, Event::Join(stubborn), Refusal::CannotSetMac { name: "tun".into() });

    let mut lab = Lab::enslaved(options(Same), 16);
    let mut one_more = lab.new_slave(0);
    (one_more.name, one_more.ifindex) = ("slave16".into(), 99);
    refused(&mut lab, Event::Join(one_more), Refusal::TooManySlaves { name: "slave16".into() });
}

#[test]
fn a_nic_that_cannot_change_its_mac_joins_under_active() {
    let mut lab = Lab::enslaved(options(Active), 2);
    lab.leave(1).unwrap();
    lab.nic_mut(1).can_set_mac = false;
    lab.join(1).unwrap();
    assert_eq!(lab.macs(), [0x10, 0x10, 0x11]);
}

#[test]
fn a_released_slot_is_quarantined_for_a_second() {
    let mut lab = Lab::enslaved(options(Same), 3);
    assert_eq!([0, 1, 2].map(|index| lab.slot(index).index()), [0, 1, 2]);
    lab.leave(0).unwrap();
    lab.wait(ms(999));
    lab.join(0).unwrap();
    assert_eq!(lab.slot(0).index(), 3);
    lab.leave(1).unwrap();
    lab.wait(ms(1));
    lab.join(1).unwrap();
    assert_eq!(lab.slot(1).index(), 0);

    let mut lab = Lab::enslaved(options(Same), 16);
    lab.leave(5).unwrap();
    let new = Event::Join(lab.new_slave(5));
    refused(&mut lab, new.clone(), Refusal::SlotsQuarantined { name: "slave5".into() });
    lab.wait(ms(1000));
    lab.handle(new).unwrap();
    assert_eq!(lab.slot(5).index(), 5);
}

/// The agent hangs while it sets an interface up, and the slave of this slot has left long ago.
#[test]
fn a_late_answer_is_not_applied_to_another_slave() {
    let mut lab = Lab::enslaved(options(Same), 1);
    lab.nics.extend(Lab::new(options(Same), 3).nics.into_iter().skip(1));
    lab.mode = CommandMode::Manual;
    lab.join(1).unwrap();
    let (slot, gone) = (lab.slot(1), lab.nics.remove(&11));
    lab.handle(Event::Gone { slot }).unwrap();
    lab.wait(ms(5000));
    lab.join(2).unwrap();
    assert_ne!(lab.slot(2), slot);
    while lab.work() {}
    assert_eq!(lab.status(2).mii_status, MiiStatus::Up);
    lab.nics.extend(gone.map(|nic| (11, nic)));
    lab.join(1).unwrap();
    assert_eq!(lab.slot(1), slot);
}

#[test]
fn a_late_mac_is_not_applied_to_another_slave() {
    let mut lab = Lab::enslaved(options(Follow), 3);
    lab.leave(2).unwrap();
    lab.wait(ms(1000));
    lab.mode = CommandMode::Manual;
    lab.set_link(0, false);
    let slot = lab.slot(1);
    lab.leave(1).unwrap();
    lab.wait(ms(5000));
    lab.join(2).unwrap();
    assert_ne!(lab.slot(2), slot);
    while lab.work() {}
    lab.join(1).unwrap();
    assert_eq!(lab.slot(1), slot);
}

#[test]
fn a_slave_whose_setup_failed_is_dropped() {
    let mut lab = Lab::new(options(Same), 2);
    lab.mode = CommandMode::Manual;
    lab.join(0).unwrap();
    assert_eq!(lab.status(0).mii_status, MiiStatus::Down);
    let slot = lab.slot(0);
    lab.take();
    lab.handle(Event::JoinFailed { slot }).unwrap();
    let commands = lab.take();
    assert!(
        matches!(
            &commands[..],
            [Command::Publish(Publish::ClearSlave { .. }), Command::Work(Work::SetBondMac(_))]
        ),
        "{commands:?}"
    );
    lab.handle(Event::Joined { slot, link: Link::new(true) }).unwrap();
    assert_eq!((lab.take(), lab.active(), lab.engine.status().slaves.len()), (vec![], None, 0));
}

#[test]
fn a_slave_takes_part_only_when_it_has_joined() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.leave(1).unwrap();
    lab.set_options(|options| options.primary = Some("slave1".into())).unwrap();
    lab.mode = CommandMode::Manual;
    lab.join(1).unwrap();
    lab.notify_link(1);
    assert_eq!(lab.set_active(Some(1)), Err(Refusal::NotUp { name: "slave1".into() }));
    lab.set_link(0, false);
    assert_eq!((lab.active(), lab.word.2, lab.engine.rank().len()), (None, 0, 1));
    while lab.work() {}
    assert_eq!(active(&lab), "slave1");
}

#[test]
fn a_slave_may_leave_while_it_joins() {
    let mut lab = Lab::enslaved(options(Same), 1);
    lab.wait(ms(1000));
    lab.nics.insert(11, Lab::new(options(Same), 2).nic(1).clone());
    lab.mode = CommandMode::Manual;
    lab.join(1).unwrap();
    lab.leave(1).unwrap();
    while lab.work() {}
    assert_eq!((lab.macs(), active(&lab).as_str()), (vec![0x10, 0x10, 0x11], "slave0"));
}

#[test]
fn active_slave_is_set_by_the_administrator() {
    let mut lab = Lab::enslaved(options(Same), 3);
    lab.take();
    lab.set_active(Some(0)).unwrap();
    assert_eq!(lab.take(), [], "it is active already");
    lab.set_active(Some(2)).unwrap();
    assert_eq!(
        (active(&lab).as_str(), lab.status(2).state, lab.status(0).state),
        ("slave2", SlaveState::Active, SlaveState::Backup)
    );
    lab.set_link(1, false);
    let slot = lab.slot(1);
    refused(&mut lab, Event::SetActiveSlave(Some(slot)), Refusal::NotUp { name: "slave1".into() });
    let unused = Slot::new(9).unwrap();
    refused(&mut lab, Event::SetActiveSlave(Some(unused)), Refusal::NoSuchSlave { slot: unused });
    // Cleared: an election in which the active slave has no advantage.
    lab.set_active(None).unwrap();
    assert_eq!(active(&lab), "slave0");
    let reason = Reason::OptionChanged;
    let expected = Failover {
        from: Some("slave2".into()),
        to: Some("slave0".into()),
        reason,
        seen: Trigger::Request,
        chosen: Some(Chosen::FirstEnslaved),
    };
    assert!(lab.take_failovers().contains(&expected));
}

#[test]
fn unknown_slots_are_refused_in_requests_and_ignored_in_facts() {
    let mut lab = Lab::enslaved(options(Follow), 2);
    let slot = Slot::new(9).unwrap();
    refused(&mut lab, Event::Leave { slot }, Refusal::NoSuchSlave { slot });
    let options = Default::default();
    refused(&mut lab, Event::SetSlaveOptions { slot, options }, Refusal::NoSuchSlave { slot });
    let before = lab.engine.status();
    for fact in [
        Event::Joined { slot, link: Link::new(true) },
        Event::JoinFailed { slot },
        Event::Gone { slot },
        Event::Renamed { slot, name: "slave0".into() },
        Event::Link { slot, link: Link::new(false) },
        Event::SlaveMacSet { slot, mac: mac(0x10), done: false },
        Event::Announced { slot },
        Event::Counters { slot, tx_packets: 99, rx_unicast: 0 },
    ] {
        lab.handle(fact.clone()).unwrap();
        assert_eq!((lab.engine.status(), lab.take()), (before.clone(), vec![]), "{fact:?}");
    }
}

#[test]
fn fail_over_mac_changes_only_without_slaves() {
    let mut lab = Lab::enslaved(options(Same), 1);
    assert_eq!(lab.set_options(|options| options.fail_over_mac = Active), Err(Refusal::FailOverMacInUse));
    assert_eq!(lab.engine.options().fail_over_mac, Same);
    lab.leave(0).unwrap();
    lab.set_options(|options| options.fail_over_mac = Active).unwrap();
    assert_eq!(lab.engine.options().fail_over_mac, Active);
}

/// The transcript of primary.txt, for each primary_reselect.
#[test]
fn primary_and_its_reselect_rules() {
    #[rustfmt::skip]
    let table = [
        // returned, the other failed and returned, cleared
        (PrimaryReselect::Always,  "slave0", "slave0", "slave0"),
        (PrimaryReselect::Better,  "slave1", "slave0", "slave2"),
        (PrimaryReselect::Failure, "slave1", "slave0", "slave2"),
    ];
    for (reselect, returned, other_failed, cleared) in table {
        let mut lab = Lab::enslaved(options(Same), 3);
        lab.set_options(|options| {
            options.primary = Some("slave0".into());
            options.primary_reselect = reselect;
        })
        .unwrap();
        lab.set_link(0, false);
        assert_eq!(active(&lab), "slave1", "{reselect:?}, failed");
        lab.set_link(0, true);
        assert_eq!(active(&lab), returned, "{reselect:?}, returned");
        let now_active = if returned == "slave0" { 0 } else { 1 };
        lab.set_link(now_active, false);
        lab.set_link(now_active, true);
        assert_eq!(active(&lab), other_failed, "{reselect:?}, the active failed");
        lab.set_options(|options| options.primary = Some("slave2".into())).unwrap();
        assert_eq!(active(&lab), "slave2", "{reselect:?}, set by force");
        lab.set_options(|options| options.primary = None).unwrap();
        assert_eq!(active(&lab), cleared, "{reselect:?}, cleared");
        lab.set_options(|options| options.primary = Some("nosuch".into())).unwrap();
        assert_eq!(active(&lab), cleared, "{reselect:?}, unknown");
        lab.set_options(|options| options.primary = Some("slave0".into())).unwrap();
        lab.set_active(Some(1)).unwrap();
        lab.wait(ms(500));
        assert_eq!(active(&lab), "slave1", "{reselect:?}, on request");
        lab.set_active(None).unwrap();
        assert_eq!(active(&lab), "slave0", "{reselect:?}, hand taken off");
        lab.leave(0).unwrap();
        assert_eq!((active(&lab).as_str(), lab.status(1).state), ("slave1", SlaveState::Active));
        lab.join(0).unwrap();
        assert_eq!(active(&lab), "slave0", "{reselect:?}, the primary came back by force");
    }
}

/// As in the driver, which does not compare the value with the old one.
#[test]
fn writing_the_same_value_again_elects() {
    let mut lab = Lab::enslaved(options(Same), 3);
    let primary = Some("slave0".to_owned());
    lab.set_options(|options| {
        (options.primary, options.primary_reselect) = (primary, PrimaryReselect::Failure);
    })
    .unwrap();
    let mut written = |option| {
        lab.set_active(Some(1)).unwrap();
        lab.handle(Event::Written(option)).unwrap();
        active(&lab)
    };
    assert_eq!(written(Elects::PrimaryReselect), "slave1", "an election, which failure leaves to the active");
    assert_eq!(written(Elects::Prio), "slave1", "none, while there is a primary");
    assert_eq!(written(Elects::Primary), "slave0", "by force");
    lab.set_options(|options| {
        (options.primary, options.primary_reselect) = (None, PrimaryReselect::Always);
    })
    .unwrap();
    for option in [Elects::Primary, Elects::PrimaryReselect, Elects::Prio] {
        lab.set_active(Some(2)).unwrap();
        lab.handle(Event::Written(option)).unwrap();
        assert_eq!(active(&lab), "slave0", "{option:?}");
    }
    lab.set_options(|options| options.primary = Some("nosuch".into())).unwrap();
    lab.set_active(Some(2)).unwrap();
    lab.handle(Event::Written(Elects::Primary)).unwrap();
    assert_eq!(active(&lab), "slave2", "one that is not enslaved is noted down");
}

#[test]
fn the_primary_follows_renames() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.set_options(|options| options.primary = Some("wan".into())).unwrap();
    assert_eq!(active(&lab), "slave0");
    let slot = lab.slot(1);
    lab.nic_mut(1).name = "wan".into();
    lab.handle(Event::Renamed { slot, name: "wan".into() }).unwrap();
    assert_eq!((active(&lab).as_str(), lab.engine.rank()[0]), ("wan", slot));
    lab.nic_mut(1).name = "slave1".into();
    lab.handle(Event::Renamed { slot, name: "slave1".into() }).unwrap();
    assert_eq!(active(&lab), "slave0");
}

/// A primary set while it is down takes over when it comes up, whatever primary_reselect says.
#[test]
fn force_lasts_until_the_primary_is_up() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.set_link(1, false);
    lab.set_options(|options| {
        options.primary = Some("slave1".into());
        options.primary_reselect = PrimaryReselect::Failure;
    })
    .unwrap();
    assert_eq!(active(&lab), "slave0");
    lab.set_link(1, true);
    assert_eq!(active(&lab), "slave1");
    lab.set_link(1, false);
    lab.set_link(1, true);
    assert_eq!(active(&lab), "slave0", "force is used up");
}

/// The transcript of primary.txt on prio.
#[test]
fn prio() {
    let mut lab = Lab::enslaved(options(Same), 3);
    lab.set_prio(2, 10);
    assert_eq!(active(&lab), "slave2");
    lab.set_prio(1, 20);
    assert_eq!(active(&lab), "slave1");
    lab.set_link(1, false);
    assert_eq!(active(&lab), "slave2");
    lab.set_link(1, true);
    assert_eq!(active(&lab), "slave1");
    lab.set_prio(1, -5);
    assert_eq!(active(&lab), "slave2");
    lab.set_options(|options| options.primary = Some("slave1".into())).unwrap();
    assert_eq!(active(&lab), "slave1");
    lab.set_prio(0, 100);
    assert_eq!(active(&lab), "slave1", "no effect while a primary is set");
    lab.set_active(Some(2)).unwrap();
    lab.set_prio(0, 101);
    assert_eq!(active(&lab), "slave2", "not even an election");
    lab.set_active(None).unwrap();
    assert_eq!(lab.engine.rank(), [1, 0, 2].map(|index| lab.slot(index)));
    lab.set_link(1, false);
    assert_eq!(active(&lab), "slave0");
    lab.set_link(0, false);
    assert_eq!(active(&lab), "slave2");
    lab.set_link(0, true);
    assert_eq!(active(&lab), "slave0");
}

/// The speed of a link that has just come up is reported a moment later.
#[test]
fn better_compares_the_speeds_that_links_report() {
    let mut lab = Lab::enslaved(options(Same), 3);
    lab.set_options(|options| {
        options.primary_reselect = PrimaryReselect::Better;
        options.primary = Some("slave0".into());
    })
    .unwrap();
    let mut comes_back_with = |speed| {
        lab.set_link(0, false);
        assert_eq!(active(&lab), "slave1");
        let before = lab.nic_mut(0).link;
        lab.nic_mut(0).link = Link { up: true, is_stale: true, ..before };
        lab.notify_link(0);
        assert_eq!(active(&lab), "slave1", "before the speed is known");
        lab.nic_mut(0).link = Link { up: true, speed, ..before };
        lab.notify_link(0);
        active(&lab)
    };
    assert_eq!(comes_back_with(Speed(1000)), "slave1", "the primary is slower");
    assert_eq!(comes_back_with(Speed(10_000)), "slave1", "it is as fast");
    assert_eq!(comes_back_with(Speed(25_000)), "slave0");
    assert_eq!(comes_back_with(Speed(100)), "slave1", "it was faster before");
}

/// The election waits for a speed only if there is another slave. A request of the administrator, or a failure of the
/// faster slave, ends the wait.
#[test]
fn better_waits_for_a_speed_only_while_another_slave_is_up() {
    let bond = || {
        let mut lab = Lab::enslaved(options(Same), 3);
        lab.set_options(|options| {
            options.primary_reselect = PrimaryReselect::Better;
            options.primary = Some("slave0".into());
        })
        .unwrap();
        lab.set_link(0, false);
        lab.nic_mut(0).link = Link { up: true, is_stale: true, ..lab.nic_mut(0).link };
        lab.notify_link(0);
        assert_eq!(active(&lab), "slave1");
        lab
    };
    let read = |lab: &mut Lab| {
        let event = Event::Speed { slot: lab.slot(0), speed: Speed(25_000), duplex: Duplex::Full };
        lab.handle(event).unwrap();
        active(lab)
    };
    assert_eq!(read(&mut bond()), "slave0");

    let mut lab = bond();
    lab.set_active(Some(2)).unwrap();
    assert_eq!(read(&mut lab), "slave2", "chosen by the administrator");

    let mut lab = bond();
    lab.nic_mut(2).link.speed = Speed(40_000);
    lab.notify_link(2);
    lab.set_link(0, false);
    assert_eq!(
        (active(&lab).as_str(), read(&mut lab).as_str()),
        ("slave1", "slave1"),
        "the primary has gone again"
    );

    let mut lab = bond();
    lab.set_link(1, false);
    lab.set_link(2, false);
    assert_eq!(active(&lab), "slave0", "there is no other one");
}

/// The guard uses the slave early that the engine would use early.
#[test]
fn slaves_in_updelay_rank_by_the_rest_of_it() {
    let mut lab = Lab::enslaved(options(Same), 4);
    let rank = |lab: &Lab, slots: [u8; 4]| assert_eq!(lab.engine.rank(), slots.map(|index| lab.slot(index)));
    lab.set_options(|options| options.updelay = 60_000).unwrap();
    rank(&lab, [0, 1, 2, 3]);
    for slave in [3, 1] {
        lab.set_link(slave, false);
        lab.set_link(slave, true);
        lab.wait(ms(1000));
    }
    rank(&lab, [0, 2, 3, 1]);
    lab.set_link(2, false);
    rank(&lab, [0, 3, 1, 2]);
    lab.set_link(0, false);
    assert_eq!(active(&lab), "slave3");
    lab.wait(ms(60_000));
    rank(&lab, [1, 3, 0, 2]);
    // With equal rests: in enslave order, without regard to preferences.
    lab.set_prio(2, 10);
    for up in [false, true] {
        [2, 1].into_iter().for_each(|index| lab.set_link(index, up));
    }
    rank(&lab, [3, 1, 2, 0]);
}

#[test]
fn options_that_do_not_elect_do_not_switch() {
    let mut lab = Lab::enslaved(options(Same), 2);
    lab.set_active(Some(1)).unwrap();
    lab.wait(ms(2000));
    lab.take();
    lab.set_options(|options| {
        options.num_grat_arp = 7;
        options.updelay = 500;
        options.primary = Some("nosuch".into());
    })
    .unwrap();
    assert_eq!((lab.take(), active(&lab).as_str()), (vec![], "slave1"));
    // Writing primary_reselect elects, and the first enslaved wins.
    lab.set_options(|options| options.primary_reselect = PrimaryReselect::Failure).unwrap();
    assert_eq!(active(&lab), "slave1");
    lab.set_options(|options| options.primary_reselect = PrimaryReselect::Always).unwrap();
    assert_eq!(active(&lab), "slave0");
}

#[test]
fn a_queue_is_one_slaves_and_packets_learn_it() {
    let mut lab = Lab::enslaved(options(Same), 3);
    let queue = |lab: &Lab, index: u8, queue_id: u16| {
        let options = SlaveOptions { queue_id, ..SlaveOptions::default() };
        Event::SetSlaveOptions { slot: lab.slot(index), options }
    };
    lab.handle(queue(&lab, 1, 2)).unwrap();
    assert_eq!(lab.queue_ids[&lab.slot(1)], 2);
    lab.handle(queue(&lab, 1, 2)).unwrap();
    let taken = |name: &str| Refusal::QueueIdTaken { name: name.into(), queue_id: 2, slave: "slave1".into() };
    let event = queue(&lab, 0, 2);
    refused(&mut lab, event, taken("slave0"));
    let mut new = lab.new_slave(0);
    (new.name, new.ifindex, new.options.queue_id) = ("other".into(), 99, 2);
    refused(&mut lab, Event::Join(new), taken("other"));
    // A queue that no slave has can be taken.
    lab.handle(queue(&lab, 1, 0)).unwrap();
    lab.handle(queue(&lab, 0, 2)).unwrap();
    assert_eq!([0, 1, 2].map(|index| lab.queue_ids[&lab.slot(index)]), [2, 0, 0]);
}

#[test]
fn pending_lists_the_steps_of_a_switch_until_they_are_done() {
    let slave_mac = |slave: &str, last| Pending::SlaveMac { slave: slave.into(), mac: mac(last) };
    for (policy, expected) in [
        (Same, vec![Pending::Announcement]),
        (Active, vec![Pending::BondMac(mac(0x11)), Pending::Announcement]),
        (Follow, vec![slave_mac("slave0", 0x11), slave_mac("slave1", 0x10), Pending::Announcement]),
    ] {
        let mut lab = Lab::enslaved(options(policy), 2);
        let pending = |lab: &Lab| lab.engine.pending().collect::<Vec<_>>();
        assert_eq!(pending(&lab), [], "{policy:?}");
        lab.mode = CommandMode::Manual;
        lab.set_active(Some(1)).unwrap();
        assert_eq!(pending(&lab), expected, "{policy:?}");
        while lab.work() {}
        assert_eq!(pending(&lab), [], "{policy:?}");
    }
}
