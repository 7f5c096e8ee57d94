//! Random histories of a bond, compared with a model: a second, simple implementation of the rules of election and of
//! link states, which polls everything each 10 ms instead of using events and deadlines.

use proptest::prelude::*;

use super::lab::{Lab, ms};
use crate::{
    Time,
    event::{Duplex, Elects, Event, Link, Speed},
    options::{BondOptions, FailOverMac, PrimaryReselect},
    status::MiiStatus,
};

const NICS: u8 = 4;
/// All times of a history are multiples of it.
const TICK: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mii {
    Up,
    /// Going down until.
    Fail(u64),
    Down,
    /// Going back until.
    Back(u64),
}

#[derive(Clone, Debug)]
struct Slave {
    nic: u8,
    prio: i32,
    mii: Mii,
    failures: u32,
}

/// What is plugged into a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    up: bool,
    speed: Speed,
    duplex: Duplex,
}

#[derive(Clone, Debug)]
struct Model {
    now: u64,
    updelay: u64,
    downdelay: u64,
    reselect: PrimaryReselect,
    primary: Option<u8>,
    force_primary: bool,
    wires: [Wire; NICS as usize],
    /// In enslave order.
    slaves: Vec<Slave>,
    active: Option<u8>,
}

impl Model {
    fn slave(&self, nic: u8) -> Option<&Slave> {
        self.slaves.iter().find(|slave| slave.nic == nic)
    }

    fn is_up(&self, nic: Option<u8>) -> bool {
        nic.and_then(|nic| self.slave(nic)).is_some_and(|slave| slave.mii == Mii::Up)
    }

    /// The primary, if it is a slave.
    fn primary(&self) -> Option<u8> {
        self.primary.filter(|nic| self.slave(*nic).is_some())
    }

    /// Polls all links, then holds one election if a change requires it.
    fn poll(&mut self) {
        let mut ignore_updelay = self.active.is_none();
        let mut election = false;
        for index in 0..self.slaves.len() {
            let Slave { nic, prio, mii, .. } = self.slaves[index];
            let link = self.wires[usize::from(nic)].up;
            let next = match mii {
                Mii::Up if !link && self.downdelay == 0 => Mii::Down,
                Mii::Up if !link => Mii::Fail(self.now + self.downdelay),
                Mii::Fail(_) if link => Mii::Up,
                Mii::Fail(until) if self.now >= until => Mii::Down,
                Mii::Down if link && (self.updelay == 0 || ignore_updelay) => Mii::Up,
                Mii::Down if link => Mii::Back(self.now + self.updelay),
                Mii::Back(_) if !link => Mii::Down,
                Mii::Back(until) if self.now >= until => Mii::Up,
                same => same,
            };
            if next == mii {
                continue;
            }
            self.slaves[index].mii = next;
            if next == Mii::Up {
                ignore_updelay = false;
                let active = self.active.and_then(|active| self.slave(active));
                election |= self.primary() == Some(nic) || active.is_none_or(|active| prio > active.prio);
            }
            if next == Mii::Down {
                self.slaves[index].failures += 1;
                election |= self.active == Some(nic);
            }
        }
        if election {
            self.elect();
        }
    }

    fn elect(&mut self) {
        let best = self.best();
        // A slave that is elected during its updelay is up at once.
        if let Some(slave) = self.slaves.iter_mut().find(|slave| Some(slave.nic) == best) {
            slave.mii = Mii::Up;
        }
        self.active = best;
    }

    fn best(&mut self) -> Option<u8> {
        if self.is_up(self.primary()) {
            let force = std::mem::take(&mut self.force_primary);
            return if force { self.primary() } else { self.reselected(self.primary()?) };
        }
        let mut best: Option<&Slave> = None;
        for slave in self.slaves.iter().filter(|slave| slave.mii == Mii::Up) {
            if best.is_none_or(|best| slave.prio > best.prio) {
                best = Some(slave);
            }
        }
        if let Some(best) = best {
            return self.reselected(best.nic);
        }
        let mut back: Option<(u64, u8)> = None;
        for slave in &self.slaves {
            if let Mii::Back(until) = slave.mii
                && back.is_none_or(|(least, _)| until < least)
            {
                back = Some((until, slave.nic));
            }
        }
        back.map(|(_, nic)| nic)
    }

    /// Whether a candidate takes over, by primary_reselect.
    fn reselected(&self, candidate: u8) -> Option<u8> {
        let current = self.active.filter(|_| self.is_up(self.active));
        let Some(current) = current else { return Some(candidate) };
        let [old, new] = [current, candidate].map(|nic| self.wires[usize::from(nic)]);
        let takes_over = match self.reselect {
            PrimaryReselect::Always => true,
            PrimaryReselect::Failure => false,
            PrimaryReselect::Better if new.speed == old.speed => new.duplex > old.duplex,
            PrimaryReselect::Better => new.speed > old.speed,
        };
        Some(if takes_over { candidate } else { current })
    }

    fn join(&mut self, nic: u8) {
        let link = self.wires[usize::from(nic)].up;
        let mii = match (link, self.updelay) {
            (false, _) => Mii::Down,
            (true, 0) => Mii::Up,
            (true, updelay) => Mii::Back(self.now + updelay),
        };
        self.slaves.push(Slave { nic, prio: 0, mii, failures: 0 });
        self.force_primary |= self.primary == Some(nic);
        self.elect();
    }

    fn leave(&mut self, nic: u8) {
        self.slaves.retain(|slave| slave.nic != nic);
        if self.active == Some(nic) {
            self.active = None;
            self.elect();
        }
    }

    /// Handles a request of the administrator.
    fn set_active(&mut self, nic: Option<u8>) {
        match nic {
            None => {
                self.active = None;
                self.elect();
            }
            Some(nic) => {
                let can = self.is_up(Some(nic)) && self.wires[usize::from(nic)].up && self.active.is_some();
                self.active = if can { Some(nic) } else { self.active };
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Carrier(u8, bool),
    Speed(u8, Speed, Duplex),
    Join(u8),
    Leave(u8),
    Prio(u8, i32),
    Active(Option<u8>),
    Primary(Option<u8>),
    Reselect(PrimaryReselect),
    Delays(u32, u32),
}

fn steps() -> impl Strategy<Value = Step> {
    let nic = 0..NICS;
    let speed = prop_oneof![Just(Speed(100)), Just(Speed(1000)), Just(Speed::UNKNOWN)];
    let duplex = prop_oneof![Just(Duplex::Half), Just(Duplex::Full), Just(Duplex::Unknown)];
    let reselect = prop_oneof![
        Just(PrimaryReselect::Always),
        Just(PrimaryReselect::Better),
        Just(PrimaryReselect::Failure)
    ];
    prop_oneof![
        6 => (1..150u64).prop_map(|ticks| Step::Wait(ticks * TICK)),
        10 => (nic.clone(), any::<bool>()).prop_map(|(nic, up)| Step::Carrier(nic, up)),
        1 => (nic.clone(), speed, duplex).prop_map(|(nic, speed, duplex)| Step::Speed(nic, speed, duplex)),
        4 => nic.clone().prop_map(Step::Join),
        1 => nic.clone().prop_map(Step::Leave),
        2 => (nic.clone(), -2..3i32).prop_map(|(nic, prio)| Step::Prio(nic, prio)),
        2 => proptest::option::of(nic.clone()).prop_map(Step::Active),
        2 => proptest::option::of(nic).prop_map(Step::Primary),
        1 => reselect.prop_map(Step::Reselect),
        2 => (0..5u32, 0..5u32).prop_map(|(up, down)| Step::Delays(up * 100, down * 100)),
    ]
}

/// The bond and its model.
struct Both {
    lab: Lab,
    model: Model,
}

impl Both {
    fn new(policy: FailOverMac) -> Self {
        let options = BondOptions { miimon: 100, fail_over_mac: policy, ..BondOptions::default() };
        let lab = Lab::new(options, NICS);
        let wire = Wire { up: true, speed: Speed(10_000), duplex: Duplex::Full };
        let model = Model {
            now: lab.now.as_millis() as u64,
            updelay: 0,
            downdelay: 0,
            reselect: PrimaryReselect::Always,
            primary: None,
            force_primary: false,
            wires: [wire; NICS as usize],
            slaves: Vec::new(),
            active: None,
        };
        Self { lab, model }
    }

    fn is_slave(&self, nic: u8) -> bool {
        self.model.slave(nic).is_some()
    }

    fn wire(&mut self, nic: u8, change: impl FnOnce(&mut Wire)) {
        let wire = &mut self.model.wires[usize::from(nic)];
        change(wire);
        let Wire { up, speed, duplex } = *wire;
        // The engine learns the speed later than the link; the driver learns both together.
        let link = &mut self.lab.nic_mut(nic).link;
        let comes_up = up && !link.up;
        *link = if comes_up {
            Link { up, is_stale: true, ..*link }
        } else {
            Link { speed, duplex, ..Link::new(up) }
        };
        if self.is_slave(nic) {
            self.lab.notify_link(nic);
        }
        if comes_up {
            self.lab.nic_mut(nic).link = Link { speed, duplex, ..Link::new(up) };
            if self.is_slave(nic) {
                let slot = self.lab.slot(nic);
                self.lab.handle(Event::Speed { slot, speed, duplex }).unwrap();
            }
        }
        self.model.poll();
    }

    fn wait_until(&mut self, end: u64) {
        self.lab.wait(ms(end) - self.lab.now);
        while self.model.now < end {
            self.model.now += TICK;
            self.model.poll();
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait(time) => self.wait_until(self.model.now + time),
            Step::Carrier(nic, up) => self.wire(nic, |wire| wire.up = up),
            Step::Speed(nic, speed, duplex) => {
                self.wire(nic, |wire| (wire.speed, wire.duplex) = (speed, duplex));
            }
            Step::Join(nic) if !self.is_slave(nic) => {
                if self.lab.join(nic).is_ok() {
                    self.model.join(nic);
                }
            }
            // The active slave is replaced first, and removed when it has drained.
            Step::Leave(nic) if self.is_slave(nic) => {
                self.model.leave(nic);
                self.lab.leave(nic).unwrap();
                self.wait_until((self.lab.now.as_millis() as u64).next_multiple_of(TICK));
            }
            Step::Prio(nic, prio) if self.is_slave(nic) => {
                self.lab.set_prio(nic, prio);
                self.lab.handle(Event::Written(Elects::Prio)).unwrap();
                self.model.slaves.iter_mut().find(|slave| slave.nic == nic).unwrap().prio = prio;
                if self.model.primary().is_none() {
                    self.model.elect();
                }
            }
            Step::Active(nic) if nic.is_none_or(|nic| self.is_slave(nic)) => {
                let _ = self.lab.set_active(nic);
                self.model.set_active(nic);
            }
            Step::Primary(nic) => {
                let name = nic.map(|nic| format!("slave{nic}"));
                self.lab.set_options(|options| options.primary = name).unwrap();
                self.lab.handle(Event::Written(Elects::Primary)).unwrap();
                let before = self.model.primary();
                self.model.primary = nic;
                self.model.force_primary |= self.model.primary().is_some();
                // A primary that is not enslaved is stored, and causes no election if there was none before.
                if nic.is_none() || self.model.primary().is_some() || before.is_some() {
                    self.model.elect();
                }
            }
            Step::Reselect(reselect) => {
                self.lab.set_options(|options| options.primary_reselect = reselect).unwrap();
                self.lab.handle(Event::Written(Elects::PrimaryReselect)).unwrap();
                self.model.reselect = reselect;
                self.model.elect();
            }
            Step::Delays(updelay, downdelay) => {
                let set =
                    |options: &mut BondOptions| (options.updelay, options.downdelay) = (updelay, downdelay);
                self.lab.set_options(set).unwrap();
                (self.model.updelay, self.model.downdelay) = (updelay.into(), downdelay.into());
            }
            Step::Join(_) | Step::Leave(_) | Step::Prio(..) | Step::Active(Some(_)) => {}
            Step::Active(None) => unreachable!("no slave is always a choice"),
        }
    }

    fn check(&self) {
        let model = &self.model;
        assert_eq!(self.lab.now, Time::from_millis(model.now));
        let states: Vec<_> = model
            .slaves
            .iter()
            .map(|slave| {
                let mii = match slave.mii {
                    Mii::Up => MiiStatus::Up,
                    Mii::Fail(_) => MiiStatus::GoingDown,
                    Mii::Down => MiiStatus::Down,
                    Mii::Back(_) => MiiStatus::GoingBack,
                };
                (format!("slave{}", slave.nic), mii, slave.failures)
            })
            .collect();
        let status = self.lab.engine.status();
        let seen: Vec<_> = status
            .slaves
            .iter()
            .map(|slave| (slave.name.clone(), slave.mii_status, slave.link_failure_count))
            .collect();
        assert_eq!(seen, states, "the engine's slaves, and the model's");
        let active = model.active.map(|nic| format!("slave{nic}"));
        assert_eq!(self.lab.active(), active, "the engine's active slave, and the model's");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_as_its_model(
        policy in prop_oneof![Just(FailOverMac::None), Just(FailOverMac::Active), Just(FailOverMac::Follow)],
        steps in proptest::collection::vec(steps(), 1..60),
    ) {
        let mut both = Both::new(policy);
        for step in &steps {
            both.step(step);
            both.check();
        }
    }
}
