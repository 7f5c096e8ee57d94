//! Changes of ACTIVE that the data plane made by itself.

use bond_common::{
    abi::{ActiveWord, Slot},
    clock::decide::Cause,
};

use crate::command::{Chosen, Reason, Trigger};

/// A change of ACTIVE by the data plane, described by the word that it stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPlaneChange {
    /// The active slot after the change.
    pub active: Option<Slot>,
    /// The usable mask after the change.
    pub usable: u16,
    /// The part of the data plane that changed it.
    pub by: ChangedBy,
}

/// The part of the data plane that changed ACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// The carrier guard: the active slave's device had no link.
    Guard,
    /// A tick of the clock, for this reason.
    Tick(Cause),
}

impl ChangedBy {
    /// Returns what showed this part of the data plane that ACTIVE had to change.
    pub fn seen(self) -> Trigger {
        match self {
            Self::Guard => Trigger::Guard,
            Self::Tick(Cause::LinkLost | Cause::LinkReturned | Cause::Preferred | Cause::Bookkeeping) => {
                Trigger::Tick
            }
            Self::Tick(Cause::Unanswered | Cause::Answered | Cause::AnsweredPreferred) => Trigger::ArpTick,
            Self::Tick(Cause::PathSilent) => Trigger::Path,
        }
    }
}

impl DataPlaneChange {
    /// Creates the change after which ACTIVE was `word`.
    pub fn new(word: ActiveWord, by: ChangedBy) -> Self {
        Self { active: word.active(), usable: word.usable(), by }
    }

    /// Returns whether the change is a failover: the active slave was another one before. A notice follows.
    pub fn is_failover(&self) -> bool {
        self.by != ChangedBy::Tick(Cause::Bookkeeping)
    }

    /// Returns how the change is reported.
    pub(crate) fn report(&self) -> (Reason, Chosen, Trigger) {
        let reason = match self.by {
            ChangedBy::Guard => Reason::CarrierGuard,
            ChangedBy::Tick(Cause::LinkLost | Cause::Unanswered) => Reason::LinkFailed,
            ChangedBy::Tick(Cause::PathSilent) => Reason::Path,
            ChangedBy::Tick(
                Cause::LinkReturned
                | Cause::Preferred
                | Cause::Bookkeeping
                | Cause::Answered
                | Cause::AnsweredPreferred,
            ) => Reason::LinkRecovered,
        };
        (reason, Chosen::Guard, self.by.seen())
    }

    /// Returns whether a slave was found down.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.by, ChangedBy::Guard | ChangedBy::Tick(Cause::LinkLost | Cause::Unanswered))
    }
}
