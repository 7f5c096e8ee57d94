//! Slaves that the engine avoids: it uses them only while no other slave is up.
//!
//! The administrator drains a slave before work on its port. Damping suppresses a slave whose link flaps (as route flap
//! damping does, RFC 2439). The path monitor finds that the path of a slave does not work, link or not. None of these takes
//! a slave out of the bond, so the last slave that works is always used.

use super::*;
use crate::damping::{Damping, Penalty};

/// Whether the engine avoids a slave. A greater value gives way to a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Avoidance {
    None,
    Damped,
    Drained,
    /// Its path does not work; the others may.
    Failed,
}

/// What makes the engine avoid a slave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Avoided {
    drained: bool,
    /// What the link failures of the last time add up to.
    penalty: Penalty,
    /// The penalty reached `suppress`, and has not fallen to `reuse` since.
    suppressed: bool,
    /// The path monitor found that its path does not work.
    failed_path: bool,
}

impl Avoided {
    pub(super) fn drained(drained: bool) -> Self {
        Self { drained, ..Self::default() }
    }

    pub(super) const fn is_drained(self) -> bool {
        self.drained
    }

    /// Returns the slave as it is avoided because its path does not work, or not.
    pub(super) const fn with_path(self, failed_path: bool) -> Self {
        Self { failed_path, ..self }
    }

    pub(super) const fn has_failed_path(self) -> bool {
        self.failed_path
    }

    pub(super) const fn is_damped(self) -> bool {
        self.suppressed
    }

    pub(super) fn why(self) -> Avoidance {
        match (self.failed_path, self.drained, self.suppressed) {
            (true, _, _) => Avoidance::Failed,
            (false, true, _) => Avoidance::Drained,
            (false, false, true) => Avoidance::Damped,
            (false, false, false) => Avoidance::None,
        }
    }

    /// Counts a link failure. Returns whether the slave is suppressed from now on.
    fn fail(&mut self, now: Time, damping: Option<Damping>) -> bool {
        let Some(damping) = damping else { return false };
        self.penalty.add_failure(now, damping);
        let before = self.suppressed;
        self.suppressed |= self.penalty.suppresses(now, damping);
        self.suppressed && !before
    }

    /// Returns when the slave may be used again.
    fn reuse_at(self, damping: Option<Damping>) -> Option<Time> {
        damping.filter(|_| self.suppressed).map(|damping| self.penalty.reuse_at(damping))
    }
}

impl Engine {
    /// Avoids a slave from now on, or no longer.
    ///
    /// # Errors
    /// The slot has no slave, it is being released, or no other slave is up that is not drained.
    pub(super) fn set_drained(&mut self, now: Time, slot: Slot, drained: bool) -> Result<(), Refusal> {
        let slave = self.slave(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        if slave.phase == Phase::Leaving {
            return Err(Refusal::Leaving { name: slave.name.clone() });
        }
        if slave.avoided.drained == drained {
            return Ok(());
        }
        let is_other = |other: &Slave| other.slot != slot && other.state.is_up() && other.link.up;
        if drained && !self.joined_slaves().any(|other| is_other(other) && !other.avoided.drained) {
            return Err(Refusal::NoOtherUp { name: slave.name.clone() });
        }
        if let Some(slave) = self.slave_mut(slot) {
            slave.avoided.drained = drained;
        }
        if drained && self.active == Some(slot) {
            self.elect(now, Reason::Drained);
        } else if !drained {
            self.use_again(now, slot, Reason::Undrained);
        }
        Ok(())
    }

    /// Replaces the settings of damping. Without settings no slave is suppressed any more.
    pub(super) fn set_damping(&mut self, now: Time, damping: Option<Damping>) {
        self.damping = damping;
        if damping.is_some() {
            return;
        }
        for index in 0..self.slaves.len() {
            let Some(slave) = self.slaves.get_mut(index) else { break };
            slave.avoided.penalty = Penalty::default();
            if std::mem::take(&mut slave.avoided.suppressed) {
                let slot = slave.slot;
                self.use_again(now, slot, Reason::DampingEnded);
            }
        }
    }

    /// Counts a failure of a slave's link. A drained slave that is not active is worked on: its failures do not count.
    pub(super) fn count_failure(&mut self, now: Time, slot: Slot) {
        let (is_active, damping) = (self.active == Some(slot), self.damping);
        let Some(slave) = self.slave_mut(slot) else { return };
        if slave.avoided.drained && !is_active {
            return;
        }
        slave.link_failure_count = slave.link_failure_count.saturating_add(1);
        if slave.avoided.fail(now, damping) {
            let name = slave.name.clone();
            self.notify(Notice::Damped { slave: name, damped: true });
        }
    }

    /// Ends the suppression of slaves whose links have been stable for long enough.
    pub(super) fn end_damping(&mut self, now: Time) {
        let damping = self.damping;
        for index in 0..self.slaves.len() {
            let Some(slave) = self.slaves.get_mut(index) else { break };
            if slave.avoided.reuse_at(damping).is_none_or(|at| at > now) {
                continue;
            }
            slave.avoided.suppressed = false;
            let (slot, name) = (slave.slot, slave.name.clone());
            self.notify(Notice::Damped { slave: name, damped: false });
            self.use_again(now, slot, Reason::DampingEnded);
        }
    }

    /// Ends the suppression of a slave that the administrator makes active.
    pub(super) fn forgive(&mut self, slot: Slot) {
        if let Some(slave) = self.slave_mut(slot) {
            slave.avoided = Avoided::drained(slave.avoided.drained);
        }
    }

    /// Returns the time of the next call of [`Self::end_damping`].
    pub(super) fn damping_deadline(&self) -> Option<Time> {
        self.slaves.iter().filter_map(|slave| slave.avoided.reuse_at(self.damping)).min()
    }

    /// Elects, as if the link of a slave had recovered: it is not avoided any more.
    fn use_again(&mut self, now: Time, slot: Slot, reason: Reason) {
        let is_up = self.slave(slot).is_some_and(|slave| slave.state.is_up());
        if is_up && self.active != Some(slot) && self.may_take_over(slot) {
            self.elect(now, reason);
        }
    }

    /// Returns whether the engine avoids a slave, because another one is up that it avoids less.
    pub(super) fn is_avoided(&self, slave: &Slave) -> bool {
        let why = slave.avoided.why();
        why > Avoidance::None
            && self.joined_slaves().any(|other| other.state.is_up() && other.avoided.why() < why)
    }

    /// Returns whether a slave is avoided less than another one.
    pub(super) fn is_avoided_less(&self, slot: Slot, than: Slot) -> bool {
        let why = |slot| self.slave(slot).map(|slave| slave.avoided.why());
        why(slot) < why(than)
    }

    /// Takes what the path monitor has found: a bit for each slot whose path has failed. Where a path answers again, the slave
    /// may become active again.
    pub(super) fn paths(&mut self, now: Time, failed: u16) {
        for index in 0..self.slaves.len() {
            let Some(slave) = self.slaves.get_mut(index) else { break };
            let (slot, has_failed) = (slave.slot, failed & slave.slot.bit() != 0);
            if slave.avoided.failed_path == has_failed {
                continue;
            }
            slave.avoided.failed_path = has_failed;
            let name = slave.name.clone();
            self.notify(Notice::Path { slave: name, failed: has_failed });
            if !has_failed {
                self.use_again(now, slot, Reason::PathRecovered);
            }
        }
    }

    /// Notes that the path monitor has left these slaves, in their order: the active slave before each change of its own.
    pub(super) fn leave_paths(&mut self, known_active: Option<Slot>, changes: &[DataPlaneChange]) {
        let mut from = known_active;
        for change in changes.iter().filter(|change| change.is_failover()) {
            if change.by == ChangedBy::Tick(Cause::PathSilent)
                && let Some(slave) = from.and_then(|slot| self.slave_mut(slot))
            {
                slave.avoided.failed_path = true;
            }
            from = change.active;
        }
    }

    /// Returns the slots whose paths have failed.
    pub(super) fn failed_paths(&self) -> u16 {
        self.mask_of(|slave| slave.avoided.failed_path)
    }

    /// Returns the slots that the engine uses only while no other slave is up.
    pub(super) fn avoided(&self) -> u16 {
        self.mask_of(|slave| slave.avoided.why() > Avoidance::None)
    }

    /// Returns the slots that the data plane uses only while no other slave has a link, without those whose paths have failed,
    /// which it knows itself.
    pub fn avoided_by_agent(&self) -> u16 {
        self.mask_of(|slave| slave.avoided.with_path(false).why() > Avoidance::None)
    }

    fn mask_of(&self, is_in: impl Fn(&Slave) -> bool) -> u16 {
        self.joined_slaves().filter(|slave| is_in(slave)).fold(0, |mask, slave| mask | slave.slot.bit())
    }
}
