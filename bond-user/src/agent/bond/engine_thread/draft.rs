//! What the engine thread knows of a failover, for its record.

use bond_core::command::{Failover, Reason, Trigger};

use super::{bond::Running, follow::Followed};
use crate::agent::bond::{
    announcer::of_ticks,
    missed_failovers::TickRound,
    receipt_writer::{Draft, DropsBefore, FailoverId, Made},
    recorder::Entry,
};
use crate::report::receipt::SilentPath;

/// What the records of a bond's failovers need from one to the next.
#[derive(Debug, Default)]
pub(super) struct Drafter {
    /// The number of the last failover.
    last: u64,
    /// Since when there is no active slave, in drops.
    none_since: Option<DropsBefore>,
    /// Rounds of announcements by ticks that no record has yet.
    pub rounds: Vec<TickRound>,
}

impl Drafter {
    /// `rounds` are those that ticks have sent before.
    pub fn new(rounds: Vec<TickRound>) -> Self {
        Self { rounds, ..Self::default() }
    }

    /// Takes the rounds that announce the failover with this generation, and drops those of earlier ones. `next` is the
    /// generation of the next failover, if it is known.
    fn take_rounds(&mut self, generation: u32, next: Option<u32>) -> Vec<TickRound> {
        let since = |generation: u32| move |round: &TickRound| round.is_since(generation);
        self.rounds.retain(since(generation));
        let Some(next) = next.filter(|next| *next != generation) else {
            return std::mem::take(&mut self.rounds);
        };
        let (later, ours) = self.rounds.drain(..).partition(since(next));
        self.rounds = later;
        ours
    }
}

impl Running {
    /// Drafts the record of a failover. The switch is made: nothing waits for this. `mac_changes` are those that were decided
    /// together with it.
    pub(super) fn draft(&mut self, failover: Failover, followed: &mut Followed, mac_changes: usize) -> Draft {
        let (made, is_late) = match failover.seen {
            Trigger::Guard | Trigger::Tick | Trigger::ArpTick => {
                followed.next().unwrap_or((self.follower.followed, followed.is_adoption()))
            }
            Trigger::Path if failover.reason == Reason::Path => {
                followed.next().unwrap_or((self.follower.followed, followed.is_adoption()))
            }
            // Because a path answers again the engine has switched.
            Trigger::Path
            | Trigger::LinkEvent
            | Trigger::Miimon
            | Trigger::Delay
            | Trigger::ArpMonitor
            | Trigger::Request
            | Trigger::SlaveJoined
            | Trigger::SlaveLeft => (self.follower.switch, false),
        };
        let unrecorded = followed.take_unrecorded(is_late);
        let rounds = self.drafter.take_rounds(made.generation, followed.next_generation());
        let seen = match made.made {
            Made::ByAgent { .. } => failover.seen,
            Made::ByDataPlane { by, .. } => by.seen(),
        };
        let slots = self.engine.slaves().map(|slave| slave.slot.index() as u32);
        let now = DropsBefore::read(self.mirror.maps(), slots);
        let before =
            self.drafter.none_since.take().filter(|_| failover.from.is_none()).or_else(|| now.clone());
        self.drafter.none_since = now.filter(|_| failover.to.is_none());
        self.drafter.last += 1;
        let path = self.silent_path(&failover);
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
            announced: of_ticks(&rounds),
            path,
        }
    }

    /// Returns what the path monitor knew of the slave that it has left.
    fn silent_path(&self, failover: &Failover) -> Option<SilentPath> {
        let slave = self.engine.slaves().find(|slave| Some(slave.name) == failover.from.as_deref())?;
        SilentPath::read(self.mirror.maps(), slave.slot).filter(|_| failover.reason == Reason::Path)
    }

    /// Hands rounds of ticks to the recorder: of failovers whose records were drafted before.
    pub(super) fn hand_on_rounds(&mut self) {
        if self.drafter.rounds.is_empty() {
            return;
        }
        let next = self.mirror.active().generation().wrapping_add(1);
        let (later, ours) = self.drafter.rounds.drain(..).partition(|round: &TickRound| round.is_since(next));
        self.drafter.rounds = later;
        for round in &ours {
            if let Some((at, announcement)) = of_ticks(std::slice::from_ref(round)) {
                self.recording.add(Entry::Announced(at, announcement));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bond_common::event::AnnouncedRound;
    use bond_core::Time;

    use super::*;

    #[test]
    fn rounds_belong_to_the_failover_that_they_were_sent_after() {
        let round = |generation, number| TickRound {
            at: Time::from_millis(u64::from(number)),
            round: AnnouncedRound { generation, sent: 1, macs: 0, is_capped: false, failed: 0, number },
        };
        let sent = [round(6, 3), round(7, 1), round(8, 3), round(9, 1), round(10, 3)];
        let mut drafter = Drafter::new(sent.to_vec());
        // ACTIVE was changed at 8 without a failover.
        assert_eq!(drafter.take_rounds(7, Some(9)), sent[1..3]);
        assert_eq!(drafter.take_rounds(9, Some(9)), sent[3..]);
        assert_eq!(drafter.take_rounds(9, None), []);
    }
}
