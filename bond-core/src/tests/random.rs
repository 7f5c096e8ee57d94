//! Random histories, checked against invariants that do not depend on the implementation of the engine.

use std::collections::BTreeMap;

use bond_common::{abi::ProbeTimes, mac::Mac};
use proptest::prelude::*;

use super::lab::{CommandMode, Lab, mac, ms};
use crate::{
    NewBond, Time,
    event::{Elects, Event},
    options::{ArpAllTargets, ArpValidate, BondOptions, FailOverMac, Named as _, PrimaryReselect},
    status::{MiiStatus, SlaveState},
};

const NICS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// The carrier changes; a netlink notification reports it, or the next poll has to find it.
    Carrier {
        nic: u8,
        up: bool,
        notified: bool,
    },
    /// The active slave loses its carrier, and the guard finds it at the next packet.
    Guard,
    /// The switch of a NIC forwards frames, or not.
    Path(u8, bool),
    Join(u8),
    Leave(u8),
    Gone(u8),
    Rename(u8, u8),
    Prio(u8, i32),
    /// The bond's MAC address is changed externally.
    BondMac(u8),
    Active(Option<u8>),
    Options(Change),
    /// So many slow commands are executed and answered.
    Work(u8),
    /// A timeout that the engine did not ask for.
    Timeout,
    /// Every slow command is executed and answered.
    Settle,
    Written(Elects),
}

#[derive(Clone, Debug)]
enum Change {
    Miimon(u32),
    Arp(u32, ArpValidate, ArpAllTargets),
    Delays(u32, u32),
    Primary(Option<u8>),
    Reselect(PrimaryReselect),
    Announcements(u8, u32),
    Policy(FailOverMac),
}

fn policies() -> impl Strategy<Value = FailOverMac> {
    prop_oneof![Just(FailOverMac::None), Just(FailOverMac::Active), Just(FailOverMac::Follow)]
}

fn changes() -> impl Strategy<Value = Change> {
    let reselect = prop_oneof![
        Just(PrimaryReselect::Always),
        Just(PrimaryReselect::Better),
        Just(PrimaryReselect::Failure)
    ];
    prop_oneof![
        prop_oneof![Just(0), Just(10), Just(100)].prop_map(Change::Miimon),
        (
            prop_oneof![Just(0), Just(10), Just(100)],
            proptest::sample::select(ArpValidate::VALUES),
            proptest::sample::select(ArpAllTargets::VALUES)
        )
            .prop_map(|(interval, validate, all)| Change::Arp(interval, validate, all)),
        (0..4u32, 0..4u32).prop_map(|(up, down)| Change::Delays(up * 100, down * 100)),
        proptest::option::of(0..NICS + 1).prop_map(Change::Primary),
        reselect.prop_map(Change::Reselect),
        (0..4u8, 0..3u32).prop_map(|(rounds, delay)| Change::Announcements(rounds, delay * 100)),
        policies().prop_map(Change::Policy),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let nic = 0..NICS;
    prop_oneof![
        4 => (0..1500u64).prop_map(Step::Wait),
        8 => (nic.clone(), any::<bool>(), any::<bool>()).prop_map(|(nic, up, notified)| Step::Carrier { nic, up, notified }),
        2 => Just(Step::Guard),
        3 => (nic.clone(), any::<bool>()).prop_map(|(nic, path)| Step::Path(nic, path)),
        4 => nic.clone().prop_map(Step::Join),
        1 => nic.clone().prop_map(Step::Leave),
        1 => nic.clone().prop_map(Step::Gone),
        1 => (nic.clone(), 0..NICS + 1).prop_map(|(nic, name)| Step::Rename(nic, name)),
        1 => (nic.clone(), -2..3i32).prop_map(|(nic, prio)| Step::Prio(nic, prio)),
        1 => (0x80..0x84u8).prop_map(Step::BondMac),
        2 => proptest::option::of(nic).prop_map(Step::Active),
        2 => changes().prop_map(Step::Options),
        6 => (1..5u8).prop_map(Step::Work),
        1 => Just(Step::Timeout),
        2 => Just(Step::Settle),
        1 => proptest::sample::select(&[Elects::Primary, Elects::PrimaryReselect, Elects::Prio][..])
            .prop_map(Step::Written),
    ]
}

struct History {
    lab: Lab,
    /// NICs that are unplugged.
    unplugged: BTreeMap<u32, super::lab::Nic>,
}

impl History {
    fn new(policy: FailOverMac, mac_assigned: bool) -> Self {
        let options = BondOptions { miimon: 100, fail_over_mac: policy, ..BondOptions::default() };
        let new = NewBond {
            name: "bond0".into(),
            mac: mac(0x99),
            mac_assigned,
            mac_stays: false,
            prearm: false,
            seed: 3,
            options,
            damping: None,
            watch: None,
        };
        let mut lab = Lab::of(new, NICS);
        lab.mode = CommandMode::Manual;
        Self { lab, unplugged: BTreeMap::new() }
    }

    // One thing: an arm for each step.
    fn step(&mut self, step: &Step) {
        let lab = &mut self.lab;
        let plugged = |nic: &u8| !self.unplugged.contains_key(&(10 + u32::from(*nic)));
        let enslaved = |lab: &Lab, nic: &u8| {
            plugged(nic) && lab.engine.slaves().any(|slave| slave.ifindex == 10 + u32::from(*nic))
        };
        match step {
            Step::Wait(time) => lab.wait(ms(*time)),
            Step::Carrier { nic, up, notified } if plugged(nic) => {
                lab.nic_mut(*nic).link.up = *up;
                if *notified && enslaved(lab, nic) {
                    lab.notify_link(*nic);
                }
            }
            Step::Guard => {
                let options = lab.engine.options();
                let is_on = options.miimon > 0 && options.downdelay == 0;
                let active = lab.active().filter(|_| is_on);
                let nic = (0..NICS).filter(plugged).find(|nic| Some(&lab.nic(*nic).name) == active.as_ref());
                if let Some(nic) = nic {
                    let before = lab.word;
                    assert_eq!(lab.guard(nic), lab.word.0 != before.0, "it is followed, and not undone");
                }
            }
            Step::Path(nic, path) if plugged(nic) => lab.nic_mut(*nic).path = *path,
            // An agent reads a NIC only after it has finished the last release.
            Step::Join(nic) if !lab.is_busy(*nic) => {
                if let Some(again) = self.unplugged.remove(&(10 + u32::from(*nic))) {
                    lab.nics.insert(10 + u32::from(*nic), again);
                }
                let _ = lab.join(*nic);
            }
            Step::Leave(nic) if enslaved(lab, nic) => lab.leave(*nic).unwrap(),
            Step::Gone(nic) if enslaved(lab, nic) => {
                let slot = lab.slot(*nic);
                let mut gone = lab.nics.remove(&(10 + u32::from(*nic))).unwrap();
                gone.mac = gone.burned_in;
                self.unplugged.insert(10 + u32::from(*nic), gone);
                lab.handle(Event::Gone { slot }).unwrap();
            }
            Step::Rename(nic, name) if enslaved(lab, nic) => {
                let name = format!("slave{name}");
                if lab.nics.values().chain(self.unplugged.values()).all(|nic| nic.name != name) {
                    let slot = lab.slot(*nic);
                    lab.nic_mut(*nic).name = name.clone();
                    lab.handle(Event::Renamed { slot, name }).unwrap();
                }
            }
            Step::Prio(nic, prio) if enslaved(lab, nic) => lab.set_prio(*nic, *prio),
            Step::BondMac(last) => lab.change_bond_mac(mac(*last)),
            Step::Active(None) => lab.set_active(None).unwrap(),
            Step::Active(Some(nic)) if enslaved(lab, nic) => drop(lab.set_active(Some(*nic))),
            Step::Options(change) => drop(lab.set_options(|options| apply(change, options))),
            Step::Work(count) => {
                for _ in 0..*count {
                    lab.work();
                }
            }
            Step::Timeout => lab.timeout(),
            Step::Settle => while lab.work() {},
            Step::Written(option) => lab.handle(Event::Written(*option)).unwrap(),
            Step::Carrier { .. }
            | Step::Path(..)
            | Step::Join(_)
            | Step::Leave(_)
            | Step::Gone(_)
            | Step::Rename(..)
            | Step::Prio(..)
            | Step::Active(Some(_)) => {}
        }
    }

    /// What holds after every event.
    fn check(&self) {
        let status = self.lab.engine.status();
        let active = self.lab.active();
        let up: Vec<_> = status.slaves.iter().filter(|slave| slave.mii_status == MiiStatus::Up).collect();
        let mask = up.iter().fold(0, |mask, slave| mask | 1u16 << slave.slot);
        let actives = status.slaves.iter().filter(|slave| slave.state == SlaveState::Active);
        assert!(actives.count() <= 1, "two active slaves");
        assert_eq!(self.lab.word.2, mask, "usable mask");
        assert_eq!((status.carrier, self.lab.carrier), (mask != 0, mask != 0), "carrier");
        let state =
            |name: &String| status.slaves.iter().find(|slave| slave.name == *name).unwrap().mii_status;
        match &active {
            Some(active) => {
                let down = matches!(state(active), MiiStatus::Down | MiiStatus::GoingBack);
                assert!(!down, "the active slave is {}", state(active));
            }
            None => {
                // With ARP monitoring GoingBack means that the slave probes, possibly without an answer.
                let probes = self.lab.engine.options().arp_interval > 0;
                let ready = |slave: &&crate::status::SlaveStatus| {
                    slave_is_ready(slave) && !(probes && slave.mii_status == MiiStatus::GoingBack)
                };
                assert_eq!(status.slaves.iter().find(ready), None, "no active slave, although one is ready");
            }
        }
        if self.lab.engine.options().is_monitored()
            && status.slaves.iter().any(|slave| slave.mii_status == MiiStatus::Up)
        {
            assert!(self.lab.engine.poll_timeout().is_some(), "no poll is due");
        }
    }

    /// What holds once every command is executed and answered.
    fn check_settled(&mut self) {
        while self.lab.work() {}
        self.check();
        let (lab, status) = (&self.lab, self.lab.engine.status());
        assert_eq!(status.mac, lab.bond_mac, "the bond's MAC is believed another");
        for slave in &status.slaves {
            let nic = &lab.nics[&slave.ifindex];
            assert_eq!(
                (slave.mac, slave.permanent_mac),
                (nic.mac, nic.burned_in),
                "{} is believed another",
                slave.name
            );
        }
        let enslaved: Vec<u32> = status.slaves.iter().map(|slave| slave.ifindex).collect();
        for (_, nic) in lab.nics.iter().filter(|(ifindex, _)| !enslaved.contains(ifindex)) {
            assert_eq!(nic.mac, nic.burned_in, "{} was released with another's MAC", nic.name);
        }
        let slave_macs: Vec<&str> =
            status.slaves.iter().filter(|s| s.mac == lab.bond_mac).map(|s| s.name.as_str()).collect();
        let Some(active) = lab.active() else { return };
        match lab.engine.options().fail_over_mac {
            FailOverMac::None => assert_eq!(slave_macs.len(), status.slaves.len(), "all have the bond's MAC"),
            FailOverMac::Active => {
                assert!(
                    slave_macs.contains(&active.as_str()),
                    "the bond has {}, not {active}'s",
                    lab.bond_mac
                );
                assert!(status.slaves.iter().all(|slave| slave.mac == slave.permanent_mac));
            }
            FailOverMac::Follow => {
                assert_eq!(slave_macs, [active.as_str()], "only the active has the bond's MAC");
                let mut macs: Vec<Mac> = status.slaves.iter().map(|slave| slave.mac).collect();
                macs.sort();
                macs.dedup();
                assert_eq!(macs.len(), status.slaves.len(), "a MAC on two ports");
            }
        }
        for (slot, (ifindex, wire_mac, _)) in &lab.slaves {
            let nic = &lab.nics[ifindex];
            let expected = match lab.engine.options().fail_over_mac {
                FailOverMac::None | FailOverMac::Follow => lab.bond_mac,
                FailOverMac::Active => nic.mac,
            };
            assert_eq!(*wire_mac, expected, "SLAVES, slot {}", slot.index());
        }
    }
}

fn slave_is_ready(slave: &crate::status::SlaveStatus) -> bool {
    matches!(slave.mii_status, MiiStatus::Up | MiiStatus::GoingBack)
}

fn apply(change: &Change, options: &mut BondOptions) {
    match *change {
        Change::Miimon(miimon) => {
            options.miimon = miimon;
            if miimon > 0 {
                options.arp_interval = 0;
            } else {
                (options.updelay, options.downdelay, options.peer_notif_delay) = (0, 0, 0);
            }
        }
        Change::Arp(interval, validate, all) => {
            (options.arp_interval, options.arp_validate, options.arp_all_targets) = (interval, validate, all);
            options.arp_ip_target = vec![[10, 0, 0, 254].into()];
            if interval > 0 {
                apply(&Change::Miimon(0), options);
                options.arp_interval = interval;
            }
        }
        Change::Delays(updelay, downdelay) if options.miimon > 0 => {
            (options.updelay, options.downdelay) = (updelay, downdelay);
        }
        Change::Announcements(rounds, delay) if options.miimon > 0 => {
            (options.num_grat_arp, options.peer_notif_delay) = (rounds, delay);
        }
        Change::Delays(..) | Change::Announcements(..) => {}
        Change::Primary(name) => options.primary = name.map(|name| format!("slave{name}")),
        Change::Reselect(reselect) => options.primary_reselect = reselect,
        Change::Policy(policy) => options.fail_over_mac = policy,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_in_every_history(
        policy in policies(), mac_assigned: bool, steps in proptest::collection::vec(steps(), 1..60),
    ) {
        let mut history = History::new(policy, mac_assigned);
        for step in &steps {
            history.step(step);
            history.check();
            if matches!(step, Step::Settle) {
                history.check_settled();
            }
        }
        history.check_settled();
    }

    /// NICs that refuse addresses unexpectedly: the engine knows the present addresses, and all else holds.
    #[test]
    fn refused_macs_are_noticed(
        policy in policies(), refuses: [bool; NICS as usize], bond_refuses: bool,
        steps in proptest::collection::vec(steps(), 1..60),
    ) {
        let mut history = History::new(policy, false);
        history.lab.bond_refuses = bond_refuses;
        for step in &steps {
            history.step(step);
            history.check();
            for (nic, refuses) in (0..NICS).zip(refuses) {
                if history.lab.nics.contains_key(&(10 + u32::from(nic))) {
                    history.lab.nic_mut(nic).refuses = refuses;
                }
            }
        }
        while history.lab.work() {}
        let status = history.lab.engine.status();
        prop_assert_eq!(status.mac, history.lab.bond_mac);
        for slave in &status.slaves {
            prop_assert_eq!(slave.mac, history.lab.nics[&slave.ifindex].mac, "{}", slave.name);
        }
    }

    /// Any event at any time, also with a clock that jumps: no panic and no timeout in the past.
    #[test]
    fn arbitrary_events_cause_no_panic(events in proptest::collection::vec((0..3u64, nonsense()), 1..80)) {
        let mut engine = crate::Engine::new(NewBond {
            name: "bond0".into(), mac: mac(1), mac_assigned: false, mac_stays: false, prearm: false, seed: 0,
            options: BondOptions { miimon: 100, ..BondOptions::default() }, damping: None, watch: None,
        });
        for (when, event) in events {
            let now = [Time::ZERO, ms(5000), Time::MAX][when as usize];
            let _ = engine.handle(now, event);
            let _ = (engine.status(), engine.poll_timeout());
        }
    }
}

// One thing: a strategy for each event.
fn nonsense() -> impl Strategy<Value = Event> {
    use crate::event::{Duplex, Link, NewSlave, Reception, Speed};
    let slot = || (0..3u8).prop_map(|index| bond_common::abi::Slot::new(index).unwrap());
    let some_mac = || (0..4u8).prop_map(mac);
    let options = proptest::collection::vec(changes(), 0..5).prop_map(|changes| {
        let mut options = BondOptions { miimon: 100, ..BondOptions::default() };
        changes.iter().for_each(|change| apply(change, &mut options));
        Event::SetOptions(Box::new(options))
    });
    let join = (0..4u8, 0..4u32, some_mac(), any::<bool>()).prop_map(|(name, ifindex, mac, can_set_mac)| {
        let options = Default::default();
        Event::Join(NewSlave {
            name: format!("slave{name}"),
            ifindex,
            mac,
            can_set_mac,
            options,
            drained: false,
        })
    });
    prop_oneof![
        Just(Event::Timeout),
        join.clone(),
        join,
        (slot(), any::<bool>()).prop_map(|(slot, up)| Event::Joined { slot, link: Link::new(up) }),
        slot().prop_map(|slot| Event::JoinFailed { slot }),
        slot().prop_map(|slot| Event::Leave { slot }),
        slot().prop_map(|slot| Event::Gone { slot }),
        (slot(), any::<bool>()).prop_map(|(slot, up)| Event::Link { slot, link: Link::new(up) }),
        slot().prop_map(|slot| Event::Link { slot, link: Link { is_stale: true, ..Link::new(true) } }),
        (slot(), 1..3u32).prop_map(|(slot, gigabits)| Event::Speed {
            slot,
            speed: Speed(1000 * gigabits),
            duplex: Duplex::Full
        }),
        options,
        proptest::option::of(slot()).prop_map(Event::SetActiveSlave),
        (slot(), any::<bool>()).prop_map(|(slot, drained)| Event::SetDrained { slot, drained }),
        any::<bool>().prop_map(|on| Event::SetDamping(on.then(crate::damping::Damping::default))),
        prop::sample::select(vec!["carrier", "all=carrier,path", "arp", "any=arp,ns", "all=carrier,arp,ns"])
            .prop_map(|text| Event::SetWatch(text.parse().ok())),
        (0..8u16, 0..8u16, any::<bool>()).prop_map(|(failed, unproven, wants_proof)| {
            let seen_at = ms(5000);
            Event::Paths(crate::event::FoundPaths { failed, unproven, wants_proof, seen_at })
        }),
        (slot(), some_mac(), any::<bool>()).prop_map(|(slot, mac, done)| Event::SlaveMacSet {
            slot,
            mac,
            done
        }),
        (some_mac(), any::<bool>()).prop_map(|(mac, done)| Event::BondMacSet { mac, done }),
        (slot(), some_mac()).prop_map(|(slot, mac)| Event::SlaveMacFound { slot, mac }),
        some_mac().prop_map(|mac| Event::BondMacFound { mac }),
        (slot(), any::<bool>()).prop_map(|(slot, up)| Event::Links(vec![(slot, Link::new(up)); 2])),
        slot().prop_map(|slot| Event::Announced { slot }),
        slot().prop_map(|slot| Event::Probed { slot }),
        slot().prop_map(|slot| Event::ProbeFailed { slot }),
        (slot(), any::<u64>(), 0..40usize).prop_map(|(slot, at, target)| {
            let mut times = ProbeTimes::NEVER;
            times.note(at, Some(target));
            Event::Probes(vec![Reception { slot, times }; 2])
        }),
        (slot(), 0..50u64, 0..2u64).prop_map(|(slot, tx_packets, rx_unicast)| Event::Counters {
            slot,
            tx_packets,
            rx_unicast
        }),
    ]
}
