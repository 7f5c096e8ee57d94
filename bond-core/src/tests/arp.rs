//! ARP monitoring, compared with the observed behaviour of the driver: dead paths, with the carrier up, at
//! arp_interval=200 and arp_missed_max=2 unless a test sets other values.

use bond_common::mac::Mac;

use super::lab::{Command, Lab, ms};
use crate::{
    command::{Notice, Probe, Report},
    event::Event,
    options::{ArpAllTargets, ArpValidate, BondOptions, FailOverMac, Named as _},
    status::MiiStatus::{self, Down, GoingBack, GoingDown, Up},
};

fn options(arp_validate: ArpValidate) -> BondOptions {
    BondOptions {
        arp_interval: 200,
        arp_ip_target: vec!["10.0.0.254".parse().unwrap()],
        arp_validate,
        ..BondOptions::default()
    }
}

/// Creates a bond that has been up for a while.
fn settled(options: BondOptions, nics: u8) -> Lab {
    let mut lab = Lab::enslaved(options, nics);
    lab.wait(ms(2000));
    lab.take();
    lab
}

fn states(lab: &Lab) -> Vec<MiiStatus> {
    (0..lab.nics.len()).map(|index| lab.mii(index as u8)).collect()
}

/// What changes within so many ms, and when: the active slave and every status.
fn history(lab: &mut Lab, time: u64) -> Vec<(u128, Option<String>, Vec<MiiStatus>)> {
    let start = lab.now;
    let mut seen = vec![(0, lab.active(), states(lab))];
    while lab.now < start + ms(time) {
        lab.wait(ms(1));
        let (active, states) = (lab.active(), states(lab));
        if seen.last().is_none_or(|(_, a, s)| (a, s) != (&active, &states)) {
            seen.push(((lab.now - start).as_millis(), active, states));
        }
    }
    seen
}

fn name(index: u8) -> Option<String> {
    Some(format!("slave{index}"))
}

#[test]
fn probes_that_the_agent_could_not_send_judge_no_slave() {
    let mut lab = settled(options(ArpValidate::None), 2);
    (0..2).for_each(|index| lab.nic_mut(index).path = false);
    for _ in 0..20 {
        let slot = lab.slot(0);
        lab.handle(Event::NotProbed { slot }).unwrap();
        lab.wait(ms(200));
        assert_eq!((lab.active(), states(&lab)), (name(0), vec![Up, Up]));
    }
    lab.wait(ms(2000));
    assert_eq!(lab.active(), None);
}

/// The driver took 430 to 770 ms, including one of its ticks and 10 ms of the poll. Here it takes two intervals and the
/// rest of the third.
#[test]
fn a_dead_path_fails_over_in_every_mode_whenever_it_dies() {
    for validate in ArpValidate::VALUES {
        for phase in (0..200).step_by(10) {
            let mut lab = settled(options(*validate), 2);
            assert_eq!((lab.active(), states(&lab)), (name(0), vec![Up, Up]), "{}", validate.name());
            lab.wait(ms(phase));
            lab.nic_mut(0).path = false;
            let history = history(&mut lab, 2500);
            let [_, (at, active, states)] = history.as_slice() else {
                panic!("{validate:?} {phase}: {history:?}")
            };
            assert!((400..=600).contains(at), "{validate:?} {phase}: after {at} ms");
            assert_eq!((active, states), (&name(1), &vec![Down, Up]), "{validate:?} {phase}");
            assert_eq!(lab.status(0).link_failure_count, 1);
        }
    }
}

/// The slaves but the last are at a switch whose uplink dies: each receives the probes of the others. The driver's slaves take
/// turns there for ever, unless backups are validated.
#[test]
fn the_only_slave_that_works_is_reached_in_one_interval_for_each() {
    for validate in ArpValidate::VALUES {
        for (slaves, primary) in [(3, 0), (3, 1), (4, 0), (4, 2), (6, 3)] {
            let what = format!("{} {slaves} {primary}", validate.name());
            let options = BondOptions { primary: name(primary), ..options(*validate) };
            let mut lab = settled(options, slaves);
            assert_eq!(lab.active(), name(primary), "{what}");
            (0..slaves - 1).for_each(|index| lab.nic_mut(index).switch = 1);
            lab.cut_off = vec![1];
            let history = history(&mut lab, 5000);
            let (left, ..) = *history.iter().find(|(_, active, _)| *active != name(primary)).unwrap();
            assert!((400..=600).contains(&left), "{what}: {history:?}");
            let (reached, active, _) = history.last().unwrap();
            assert_eq!(*active, name(slaves - 1), "{what}: {history:?}");
            assert!(*reached <= left + 200 * u128::from(slaves), "{what}: {history:?}");
            let failures: u32 = (0..slaves).map(|index| lab.status(index).link_failure_count).sum();
            assert!(failures <= u32::from(slaves), "{what}: {failures} failures");

            // The uplink is back.
            lab.cut_off.clear();
            lab.wait(ms(600));
            assert_eq!((lab.active(), states(&lab)), (name(primary), vec![Up; slaves.into()]), "{what}");
        }
    }
}

/// Of slaves that do not work the one that failed longest ago is next: all of them are tried again and again.
#[test]
fn every_slave_is_tried_while_none_works() {
    for validate in ArpValidate::VALUES {
        for healed in 0..4 {
            let mut lab = settled(options(*validate), 4);
            (0..4).for_each(|index| lab.nic_mut(index).switch = 1 + index / 2);
            lab.cut_off = vec![1, 2];
            lab.wait(ms(7000));
            lab.nic_mut(healed).switch = 0;
            lab.wait(ms(5 * 200));
            assert_eq!(lab.active(), name(healed), "{} {healed}", validate.name());
            lab.wait(ms(5000));
            assert_eq!(lab.active(), name(healed), "{} {healed}", validate.name());
        }
    }
}

/// One probe that is lost fails no slave, also after a failover.
#[test]
fn a_slave_that_became_active_and_answers_has_the_usual_tolerance() {
    let mut lab = settled(options(ArpValidate::None), 3);
    lab.nic_mut(0).path = false;
    lab.wait(ms(800));
    assert_eq!(lab.active(), name(1));
    lab.nic_mut(1).path = false;
    lab.wait(ms(190));
    lab.nic_mut(1).path = true;
    lab.wait(ms(2000));
    assert_eq!((lab.active(), lab.status(1).link_failure_count), (name(1), 0));
}

/// "also the other out of the bridge", then its port back, then the first one's.
#[test]
fn with_both_paths_dead_slaves_probe_in_round_robin() {
    for validate in ArpValidate::VALUES {
        let mut lab = settled(options(*validate), 2);
        lab.nic_mut(0).path = false;
        lab.wait(ms(2500));
        lab.nic_mut(1).path = false;
        let turns = history(&mut lab, 2500);
        let (at, active, first) = &turns[1];
        assert!((400..=600).contains(at), "{validate:?}: after {at} ms");
        // The round robin begins after the first slave.
        assert_eq!((active, first), (&None, &vec![Down, GoingBack]), "{validate:?}");
        assert!(!lab.carrier);
        for (turn, ((before, ..), (at, active, states))) in turns[1..].iter().zip(&turns[2..]).enumerate() {
            let expected = if turn % 2 == 0 { [GoingBack, GoingDown] } else { [GoingDown, GoingBack] };
            assert_eq!(
                (at - before, active, &states[..]),
                (200, &None, &expected[..]),
                "{validate:?} {turn}"
            );
        }
        assert!(turns.len() > 10, "{validate:?}");
        let notices = lab.take_reports();
        let spoken = notices
            .iter()
            .filter(|report| matches!(report, Report::Notice(Notice::LinkChanged { .. })))
            .count();
        assert_eq!(spoken, 2, "the round robin is not reported: {notices:?}");

        lab.nic_mut(1).path = true;
        let back = history(&mut lab, 1000);
        let (at, active, states) = &back[back.len() - 1];
        assert!(*at <= 600, "{validate:?}: after {at} ms");
        assert_eq!((active, states[1], lab.carrier), (&name(1), Up, true), "{validate:?}");

        lab.nic_mut(0).path = true;
        lab.wait(ms(600));
        // It is up and not a better choice, so the other one stays active.
        assert_eq!((lab.active(), self::states(&lab)), (name(1), vec![Up, Up]), "{validate:?}");
    }
}

#[test]
fn carrier_counts_only_as_far_as_probes_do_not_come_back() {
    let mut lab = settled(options(ArpValidate::All), 2);
    lab.set_link(0, false);
    let history = history(&mut lab, 1000);
    assert_eq!(history.len(), 2);
    assert!((400..=600).contains(&history[1].0), "{history:?}");
    assert_eq!(lab.active(), name(1));

    // While no slave is active, slaves without carrier do not probe.
    lab.nic_mut(1).path = false;
    lab.wait(ms(1000));
    lab.take();
    lab.wait(ms(1000));
    let probes = lab.take().into_iter().filter_map(|command| match command {
        Command::Probe(Probe { slot, .. }) => Some(slot),
        _ => None,
    });
    assert_eq!(probes.collect::<Vec<_>>(), vec![lab.slot(1); 5]);
}

#[test]
fn missed_max_is_how_many_intervals_are_waited_for() {
    for (missed_max, range) in [(1, 200..=400), (5, 1000..=1200)] {
        let mut lab = settled(BondOptions { arp_missed_max: missed_max, ..options(ArpValidate::All) }, 2);
        lab.wait(ms(70));
        lab.nic_mut(0).path = false;
        let history = history(&mut lab, 2000);
        assert!(range.contains(&history[1].0), "{missed_max}: {history:?}");
    }
}

/// "two targets, one dead": any keeps the bond up, all takes it down and keeps it so.
#[test]
fn any_and_all_differ_with_one_dead_target_of_two() {
    let dead = "10.0.0.77".parse().unwrap();
    for (all, validate, up) in [
        (ArpAllTargets::Any, ArpValidate::All, true),
        (ArpAllTargets::All, ArpValidate::All, false),
        (ArpAllTargets::All, ArpValidate::None, true),
    ] {
        let mut options = options(validate);
        options.arp_all_targets = all;
        options.arp_ip_target.push(dead);
        let mut lab = Lab::new(options, 2);
        lab.dead.push(dead.into());
        (0..2).for_each(|index| lab.join(index).unwrap());
        lab.wait(ms(2000));
        for _ in 0..20 {
            lab.wait(ms(100));
            assert_eq!((lab.carrier, lab.active().is_some()), (up, up), "{all:?} {validate:?}");
        }
        // The dead target is removed.
        lab.set_options(|options| options.arp_ip_target.retain(|ip| *ip != dead)).unwrap();
        lab.wait(ms(800));
        assert!(lab.carrier, "{all:?} {validate:?}");
    }
}

/// A target that is added to a running bond has as long to answer as any other; then it counts.
#[test]
fn targets_are_added_and_removed_at_run_time() {
    let mut lab =
        settled(BondOptions { arp_all_targets: ArpAllTargets::All, ..options(ArpValidate::All) }, 2);
    lab.set_options(|options| options.arp_ip_target.insert(0, "10.0.0.9".parse().unwrap())).unwrap();
    lab.set_options(|options| options.ns_ip6_target.push("fd00::254".parse().unwrap())).unwrap();
    lab.wait(ms(2000));
    assert_eq!((lab.active(), states(&lab)), (name(0), vec![Up, Up]));
    assert_eq!(lab.status(0).link_failure_count, 0);

    let dead = "10.0.0.77".parse().unwrap();
    lab.dead.push(dead);
    let std::net::IpAddr::V4(ip) = dead else { unreachable!() };
    lab.set_options(|options| options.arp_ip_target.push(ip)).unwrap();
    let history = history(&mut lab, 2000);
    assert!((300..=600).contains(&history[1].0), "{history:?}");
    assert!(!lab.carrier);
}

/// The slaves receive each other's probes through the switch, and no target answers. Only validation detects this.
#[test]
fn a_bond_does_not_count_its_own_probes_as_answers() {
    for (validate, up) in [(ArpValidate::None, true), (ArpValidate::Backup, false), (ArpValidate::All, false)]
    {
        let mut lab = settled(options(validate), 2);
        lab.dead.push("10.0.0.254".parse().unwrap());
        lab.wait(ms(3000));
        let mut carriers = Vec::new();
        for _ in 0..20 {
            lab.wait(ms(100));
            carriers.push(lab.carrier);
        }
        assert_eq!(carriers.contains(&true), up, "{validate:?}: {carriers:?}");
        lab.dead.clear();
        lab.wait(ms(1000));
        assert!(lab.carrier, "{validate:?}");
    }
}

#[test]
fn the_active_slave_alone_probes_once_an_interval() {
    let mut lab = settled(options(ArpValidate::All), 3);
    let start = lab.now;
    lab.wait(ms(1000));
    let active = lab.slot(0);
    let by = |command: &Command| matches!(command, Command::Probe(Probe { slot, .. }) if *slot == active);
    let probes: Vec<_> = lab.take_times(start, |command| matches!(command, Command::Probe(_)));
    assert_eq!(probes, [200, 400, 600, 800, 1000]);
    lab.wait(ms(1000));
    assert_eq!(lab.take_times(start, by).len(), 5);
}

/// Probes that cannot be sent are not answered. An agent that is slow to send them is another case.
#[test]
fn probes_that_cannot_be_sent_take_the_active_slave_down() {
    let mut lab = settled(options(ArpValidate::None), 2);
    lab.mode = super::lab::CommandMode::Manual;
    let slot = lab.slot(0);
    for _ in 0..20 {
        // The other slaves receive answers all the time.
        lab.wait(ms(100));
        lab.handle(Event::ProbeFailed { slot }).unwrap();
        let at = lab.now.as_nanos() as u64;
        (0..2).for_each(|index| lab.nic_mut(index).received.note(at, None));
    }
    assert_ne!(lab.status(0).link_failure_count, 0);
}

#[test]
fn monitors_are_switched_at_run_time() {
    let mut lab = settled(options(ArpValidate::All), 2);
    lab.nic_mut(0).path = false;
    lab.nic_mut(1).path = false;
    lab.wait(ms(2000));
    assert!(!lab.carrier);
    // miimon checks the carrier only.
    let (arp, mii) = (options(ArpValidate::All), BondOptions { miimon: 100, ..BondOptions::default() });
    lab.handle(Event::SetOptions(Box::new(mii.clone()))).unwrap();
    assert_eq!(states(&lab), [Up, Up]);
    lab.take();
    lab.wait(ms(3000));
    assert!(lab.carrier && !lab.take().iter().any(|command| matches!(command, Command::Probe(_))));

    // In the middle of a downdelay, whose deadline has no effect any more.
    let delayed = BondOptions { downdelay: 1000, ..mii };
    lab.handle(Event::SetOptions(Box::new(delayed))).unwrap();
    lab.set_link(0, false);
    assert_eq!(states(&lab), [GoingDown, Up]);
    (0..2).for_each(|index| lab.nic_mut(index).path = true);
    lab.handle(Event::SetOptions(Box::new(arp))).unwrap();
    assert_eq!((lab.active(), states(&lab)), (name(1), vec![Down, Up]));
    lab.wait(ms(2000));
    assert_eq!((lab.active(), states(&lab)), (name(1), vec![Down, Up]));
    lab.set_link(0, true);
    lab.wait(ms(400));
    assert_eq!((lab.active(), states(&lab)), (name(1), vec![Up, Up]));
}

#[test]
fn a_primary_takes_over_when_it_receives_again() {
    let mut lab = settled(BondOptions { primary: name(0), ..options(ArpValidate::All) }, 2);
    lab.nic_mut(0).path = false;
    lab.wait(ms(1000));
    assert_eq!(lab.active(), name(1));
    lab.nic_mut(0).path = true;
    lab.wait(ms(400));
    assert_eq!(lab.active(), name(0));
}

#[test]
fn the_slave_that_probes_may_leave() {
    let mut lab = settled(options(ArpValidate::All), 3);
    (0..3).for_each(|index| lab.nic_mut(index).path = false);
    lab.wait(ms(2000));
    let turn = (0..3).find(|index| lab.mii(*index) == GoingBack).unwrap();
    lab.leave(turn).unwrap();
    (0..3).for_each(|index| lab.nic_mut(index).path = true);
    lab.wait(ms(1000));
    assert!(lab.carrier);
    for index in (0..3).filter(|index| *index != turn) {
        lab.leave(index).unwrap();
    }
    assert_eq!(lab.engine.poll_timeout(), None);
}

/// Under every policy the source is the slave's own address, as in the driver (`bond_arp_send`).
#[test]
fn probes_carry_the_slaves_mac() {
    for (policy, macs) in [
        (FailOverMac::None, [0x10, 0x10]),
        (FailOverMac::Active, [0x10, 0x11]),
        // They exchanged addresses when the first one failed.
        (FailOverMac::Follow, [0x11, 0x10]),
    ] {
        let mut lab = settled(BondOptions { fail_over_mac: policy, ..options(ArpValidate::None) }, 2);
        (0..2).for_each(|index| lab.nic_mut(index).path = false);
        lab.wait(ms(1000));
        lab.take();
        lab.wait(ms(400));
        let probes = lab.take().into_iter().filter_map(|command| match command {
            Command::Probe(Probe { slot, mac }) => Some((slot, mac.bytes()[5])),
            _ => None,
        });
        let mut probes: Vec<_> = probes.collect();
        probes.sort();
        assert_eq!(probes, [(lab.slot(0), macs[0]), (lab.slot(1), macs[1])], "{policy:?}");
    }
}

/// Targets learn the MAC address of a probe: with one of the slave's own that was changed externally, they would send to an
/// address that is not the bond's.
#[test]
fn probes_carry_the_address_of_the_bonds_frames_when_a_slaves_own_was_changed() {
    let foreign = Mac::new([2, 0xb1, 0, 0, 2, 7]);
    for policy in [FailOverMac::None, FailOverMac::Active, FailOverMac::Follow] {
        let mut lab = settled(BondOptions { fail_over_mac: policy, ..options(ArpValidate::None) }, 2);
        lab.change_slave_mac(0, foreign);
        lab.take();
        lab.wait(ms(1000));
        let probed: Vec<_> = lab
            .take()
            .into_iter()
            .filter_map(|command| match command {
                Command::Probe(Probe { slot, mac }) => Some((slot, mac)),
                _ => None,
            })
            .collect();
        assert!(!probed.is_empty());
        let (_, wire, _) = lab.slaves[&lab.slot(0)];
        assert!(probed.iter().all(|probe| *probe == (lab.slot(0), wire)), "{policy:?}: {probed:?} {wire}");
    }
}
