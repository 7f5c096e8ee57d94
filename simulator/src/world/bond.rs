//! What the world knows of one bond.

use bond_core::name::BondName;
use bond_user::{
    agent::simulated::SimulatedMachine,
    sys::{dataplane::fake::ProgramMaps, fake::FakeKernel},
};

use super::check::{liveness::Liveness, records::Records};
use crate::plan::BondSetup;

/// A bond.
pub struct Bond {
    pub name: BondName,
    /// The ifindex of its device, and its maps, while it is there.
    pub ifindex: Option<u32>,
    pub words: Option<ProgramMaps>,
    /// Until then ticks are made one by one, in milliseconds.
    pub hot_until: u64,
    pub next_tick: u64,
    /// Milliseconds from one tick to the next.
    pub period: u64,
    /// The longest delay of a link state, in milliseconds.
    pub delays: u64,
    pub miimon: u64,
    /// The host sends.
    pub has_traffic: bool,
    /// Until then what another process has written to the maps may not be restored.
    pub foreign_until: u64,
    pub liveness: Liveness,
    pub records: Records,
}

impl Bond {
    pub fn new(name: &BondName, setup: &BondSetup) -> Self {
        Self {
            name: name.clone(),
            ifindex: None,
            words: None,
            hot_until: 0,
            next_tick: 0,
            period: setup.number("clock_interval").max(10),
            delays: setup.number("updelay").max(setup.number("downdelay")),
            miimon: setup.number("miimon"),
            has_traffic: true,
            foreign_until: 0,
            liveness: Liveness::default(),
            records: Records::default(),
        }
    }

    /// Opens the maps of a bond that has appeared, and closes those of one that is gone.
    pub fn follow(&mut self, machine: &SimulatedMachine, kernel: &FakeKernel) {
        let ifindex = kernel.index_of(&self.name);
        if ifindex == self.ifindex && (ifindex.is_none() || self.words.is_some()) {
            return;
        }
        self.ifindex = ifindex;
        self.words = ifindex.and_then(|_| machine.words(&self.name));
        self.liveness = Liveness::default();
        self.records.begin(self.words.as_ref().map(ProgramMaps::active));
    }
}
