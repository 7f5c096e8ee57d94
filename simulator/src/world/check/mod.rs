//! What must hold: always, at rest, and when everything is taken down.

pub mod liveness;
mod macs;
pub mod records;
pub mod restored;

use std::fmt;

use bond_core::status::BondStatus;

use crate::world::{Programs, World};

/// Something that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Virtual milliseconds since the start.
    pub at: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {}", self.at, self.what)
    }
}

/// What holds at each moment for the bond with this number.
pub fn always(world: &mut World<'_>, number: usize) {
    let (now, has_reader) = (world.clocks.now, world.plan.setup.has_reader);
    let (has_agent, since) = world.machinery();
    let Some(bond) = world.bonds.get_mut(number) else { return };
    let Some(words) = &bond.words else { return };
    let programs = Programs { words, kernel: &world.kernel, now };
    let word = programs.word();
    let mut faults = Vec::new();
    let receivers = programs.receivers();
    if receivers.len() > 1 {
        faults.push(format!("{} slaves deliver broadcast frames", receivers.len()));
    }
    if word.active().is_some() && word.active() == word.draining() {
        faults.push("the active slave drains".to_owned());
    }
    faults.extend(bond.records.observe(word));
    if now <= bond.foreign_until || !has_reader {
        bond.liveness.reset();
    } else {
        let settings = liveness::Settings { miimon: bond.miimon, delays: bond.delays, period: bond.period };
        // Not one whose removal has failed.
        let has_bond =
            || world.process.as_ref().is_some_and(|process| process.agent().status(&bond.name).is_some());
        let machinery = || liveness::Machinery { has_agent: has_agent && has_bond(), since };
        faults.extend(bond.liveness.check(&programs, settings, machinery));
    }
    let is_to_be_read = bond.records.is_to_be_read();
    let fingerprint = word.bits();
    let name = bond.name.clone();
    world.mix(fingerprint);
    if is_to_be_read {
        records::read(world, number);
    }
    if let Some(fault) = faults.into_iter().next() {
        world.fail(format!("{name}: {fault} ({word:?})"));
    }
}

/// What holds when the world is healed, and an agent has had time for everything.
pub fn at_rest(world: &mut World<'_>) {
    for number in 0..world.names.len() {
        records::read(world, number);
        let Some(name) = world.names.get(number).cloned() else { continue };
        let status = world.process.as_ref().and_then(|process| process.agent().status(&name));
        let Some(status) = status else { return world.fail(format!("{name} is not there")) };
        let faults = [
            macs::check(world, number, &status),
            serves(world, number, &status),
            records::check(world, number),
            world.nics.check_bystander(&world.kernel),
        ];
        if let Some(fault) = faults.into_iter().flatten().next() {
            world.fail(format!("at rest, {name}: {fault}"));
        }
        world.mix(status.slaves.len() as u64);
    }
}

/// The bond has its slaves, and one of them is active.
fn serves(world: &World<'_>, number: usize, status: &BondStatus) -> Option<String> {
    let setup = world.plan.setup.bonds.get(number)?;
    if !status.carrier || status.active_slave.is_none() {
        return Some(format!("no active slave, although every link is up: {status:?}"));
    }
    let is_slave = |nic: &usize| status.slaves.iter().any(|slave| slave.name == format!("nic{nic}"));
    let missing = setup.slaves.iter().find(|nic| !is_slave(nic) && !world.nics.refuses_macs(**nic));
    if let Some(missing) = missing {
        return Some(format!("nic{missing} of its file is no slave"));
    }
    let words = world.bonds.get(number)?.words.as_ref()?;
    let active = words.active().active()?;
    let slave = status.slaves.iter().find(|slave| Some(&slave.name) == status.active_slave.as_ref())?;
    if usize::from(slave.slot) != active.index() || words.slave(active).ifindex() != slave.ifindex {
        return Some(format!("ACTIVE is {:?}, and the agent says {}", words.active(), slave.name));
    }
    None
}

/// What holds when every bond is removed.
pub fn taken_down(world: &mut World<'_>) {
    let left = world.machine.bonds();
    if !left.is_empty() {
        return world.fail(format!("files of {left:?} are left"));
    }
    if let Some(fault) = world.nics.check_restored(&world.kernel) {
        world.fail(fault);
    }
}
