//! What is to happen: a machine, its bonds, and events at times. A plan is made of a seed, and nothing of a run is decided
//! anywhere else: a run of the same plan is the same.

mod event;
mod generate;
mod setup;

pub use self::{
    event::{Event, KillPoint, Timed},
    setup::{BondSetup, NicSetup, Setup},
};

/// A machine, and what happens to it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made of.
    pub seed: u64,
    /// The machine and its bonds.
    pub setup: Setup,
    /// In the order of their times.
    pub events: Vec<Timed>,
    /// Virtual milliseconds until everything is healed and taken down.
    pub duration: u64,
}

impl Plan {
    /// Returns the plan of a seed, with so many bonds, or some.
    pub fn new(seed: u64, bonds: Option<usize>) -> Self {
        generate::plan(seed, bonds)
    }

    /// Returns the plan with the events of these numbers only.
    #[must_use]
    pub fn with_events(&self, numbers: &[usize]) -> Self {
        let kept = |timed: &&Timed| numbers.contains(&timed.number);
        Self { events: self.events.iter().filter(kept).cloned().collect(), ..self.clone() }
    }
}
