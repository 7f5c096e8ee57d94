//! The order in which the data plane tries slaves while no agent decides.

use std::cmp::Reverse;

use super::*;

impl Engine {
    /// Returns which slave takes over from which when it comes up (`bond_miimon_commit`): the primary, and slaves with a higher
    /// prio, as `primary_reselect` says.
    pub fn preference(&self) -> Preference {
        let up = |slave: &Slave| Candidate { state: LinkState::Up, ..slave.candidate() };
        self.joined_slaves().fold(Preference::default(), |preference, slave| {
            let takes_from = |active: &&Slave| {
                // What the path monitor finds, a tick knows itself.
                let [own, others] = [slave, *active].map(|slave| slave.avoided.without_path().why());
                if own != others {
                    return own < others;
                }
                if Some(slave.slot) != self.primary() && slave.options.prio <= active.options.prio {
                    return false;
                }
                let mut both = [up(slave), up(active)];
                // In enslave order, which decides between equals.
                both.sort_by_key(|candidate| self.place_of(candidate.slot));
                let election = Election {
                    candidates: &both,
                    current: Some(active.slot),
                    primary: self.primary(),
                    force_primary: false,
                    reselect: self.options.primary_reselect,
                };
                election.best().is_some_and(|best| best.slot == slave.slot)
            };
            let others = self.joined_slaves().filter(|active| active.slot != slave.slot);
            let from = others.filter(takes_from).fold(0, |mask, active| mask | active.slot.bit());
            preference.with(slave.slot, from)
        })
    }

    /// Returns the slots of the slaves that are set up, in enslave order.
    pub fn enslave_order(&self) -> Vec<Slot> {
        self.joined_slaves().map(|slave| slave.slot).collect()
    }

    /// Returns the slots in the order in which their slaves become active if all of them are up. Avoided slaves are the last.
    pub fn merit_order(&self) -> Vec<Slot> {
        let primary = self.primary();
        let mut slaves: Vec<&Slave> = self.joined_slaves().collect();
        slaves.sort_by_key(|slave| {
            (slave.avoided.why(), Some(slave.slot) != primary, Reverse(slave.options.prio))
        });
        slaves.into_iter().map(|slave| slave.slot).collect()
    }

    /// Returns when the targets of the ARP monitor changed last.
    pub fn arp_targets_since(&self) -> Time {
        self.arp.targets_since
    }

    /// Returns the position of a slave in enslave order.
    fn place_of(&self, slot: Slot) -> Option<usize> {
        self.slaves.iter().position(|slave| slave.slot == slot)
    }

    /// Returns the slots in the order in which the engine would choose them if no slave were active: first those that
    /// are up (the primary, then by prio, then in enslave order), then those in updelay (the shortest rest first), then
    /// the others. Avoided slaves are the last.
    pub fn rank(&self) -> Vec<Slot> {
        let primary = self.primary();
        let mut slaves: Vec<&Slave> = self.joined_slaves().collect();
        slaves.sort_by_key(|slave| {
            let merit = (Some(slave.slot) != primary, Reverse(slave.options.prio));
            let place = match slave.state {
                LinkState::Up | LinkState::GoingDown { .. } => (0, Time::ZERO, merit),
                // Among equal rests, the slave that was enslaved first.
                LinkState::GoingBack { until } => (1, until, (false, Reverse(0))),
                LinkState::Down | LinkState::Probing | LinkState::Unanswered => (2, Time::ZERO, merit),
            };
            (slave.avoided.why(), place)
        });
        slaves.into_iter().map(|slave| slave.slot).collect()
    }
}
