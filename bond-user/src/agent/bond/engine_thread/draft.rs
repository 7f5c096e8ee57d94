//! What the engine thread knows of a failover, for its record.

use bond_core::{
    ChangedBy,
    command::{Failover, Seen},
};

use super::{bond::Running, follow::Followed};
use crate::agent::bond::receipt_writer::{Draft, DropsBefore, FailoverId, Made};

/// What the records of a bond's failovers need from one to the next.
#[derive(Debug, Default)]
pub(super) struct Drafter {
    /// The number of the last failover.
    last: u64,
    /// Since when there is no active slave, in drops.
    none_since: Option<DropsBefore>,
}

impl Running {
    /// Drafts the record of a failover. The switch is made: nothing waits for this. `mac_changes` are those that were decided
    /// together with it.
    pub(super) fn draft(&mut self, failover: Failover, followed: &mut Followed, mac_changes: usize) -> Draft {
        let (made, is_late) = match failover.seen {
            Seen::Guard | Seen::Tick => {
                followed.next().unwrap_or((self.follower.followed, followed.is_adoption()))
            }
            Seen::LinkEvent
            | Seen::Miimon
            | Seen::Delay
            | Seen::ArpMonitor
            | Seen::Request
            | Seen::SlaveJoined
            | Seen::SlaveLeft => (self.follower.switch, false),
        };
        let unrecorded = followed.take_unrecorded(is_late);
        let seen = match made.made {
            Made::ByAgent { .. } => failover.seen,
            Made::ByDataPlane { by: ChangedBy::Guard, .. } => Seen::Guard,
            Made::ByDataPlane { by: ChangedBy::Tick(_), .. } => Seen::Tick,
        };
        let slots = self.engine.slaves().map(|slave| slave.slot.index() as u32);
        let now = DropsBefore::read(self.mirror.maps(), slots);
        let before =
            self.drafter.none_since.take().filter(|_| failover.from.is_none()).or_else(|| now.clone());
        self.drafter.none_since = now.filter(|_| failover.to.is_none());
        self.drafter.last += 1;
        Draft {
            id: FailoverId(self.drafter.last),
            is_announced: failover.to.is_some() && self.engine.options().num_grat_arp > 0,
            failover: Failover { seen, ..failover },
            made: made.made,
            switched: made.at,
            generation: made.generation,
            before: before.filter(|_| !is_late),
            is_late,
            unrecorded,
            mac_changes,
        }
    }
}
