//! Slaves that the engine avoids: it uses them only while no other slave is up.
//!
//! The administrator drains a slave before work on its port. Damping suppresses a slave whose link flaps (as route flap
//! damping does, RFC 2439). The path monitor finds that the path of a slave does not work, link or not; under
//! `failback=proven` a slave whose link returns has to prove that its path works. None of these takes a slave out of the bond,
//! so the last slave that works is always used.
//!
//! ```text
//!   Works --link lost, joined--> Unproven (unconfirmed) --the monitor sees it--> Unproven (confirmed) --answers--> Works
//!     ^ \------------silent---------------------------> Failed --answers--> Works         |
//!     \--the monitor has looked since, and found nothing to prove--/                      \--silent--> Failed
//! ```

use super::*;
use crate::{
    command::PathChange,
    damping::{Damping, Penalty},
    event::FoundPaths,
};

/// So long after a link was lost the path monitor has certainly seen the word of ACTIVE that follows from that.
const SEEN_AFTER: Time = Time::from_millis(50);

/// Whether the engine avoids a slave. A greater value gives way to a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Avoidance {
    None,
    Damped,
    Drained,
    /// Its path may not work yet.
    Unproven,
    /// Its path does not work; the others may.
    Failed,
}

/// What is known of the path of a slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Finding {
    /// As far as is known.
    #[default]
    Works,
    /// It has to answer before it is used like the others. `doubted_at`: the engine has found that, and the path monitor has
    /// not confirmed it.
    Unproven {
        doubted_at: Option<Time>,
    },
    Failed,
}

impl FoundPaths {
    fn of(&self, slot: Slot) -> Finding {
        match (self.failed & slot.bit() != 0, self.unproven & slot.bit() != 0) {
            (false, _) => Finding::Works,
            (true, true) => Finding::Unproven { doubted_at: None },
            (true, false) => Finding::Failed,
        }
    }
}

impl Finding {
    /// Returns whether the path monitor could not yet know better when it found that the path works.
    fn outlasts(self, found: &FoundPaths) -> bool {
        match self {
            Self::Unproven { doubted_at: Some(at) } => {
                found.wants_proof && found.seen_at < at.saturating_add(SEEN_AFTER)
            }
            Self::Unproven { doubted_at: None } | Self::Works | Self::Failed => false,
        }
    }

    /// Returns what is reported where this becomes `next`.
    fn change_to(self, next: Self) -> Option<PathChange> {
        match (self, next) {
            (Self::Works | Self::Unproven { .. }, Self::Failed) => Some(PathChange::Failed),
            (Self::Failed, Self::Works) => Some(PathChange::Recovered),
            (Self::Unproven { doubted_at: None }, Self::Works) => Some(PathChange::Proven),
            // Nothing had to be proven, or that is reported when it is.
            (Self::Unproven { doubted_at: Some(_) }, Self::Works)
            | (_, Self::Unproven { .. })
            | (Self::Works, Self::Works)
            | (Self::Failed, Self::Failed) => None,
        }
    }
}

/// What makes the engine avoid a slave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Avoided {
    drained: bool,
    /// What the link failures of the last time add up to.
    penalty: Penalty,
    /// When the penalty reached `suppress`; None if it has fallen to `reuse` since.
    suppressed_since: Option<Time>,
    /// What the path monitor has found, and what it has to find out.
    path: Finding,
}

impl Avoided {
    pub(super) fn drained(drained: bool) -> Self {
        Self { drained, ..Self::default() }
    }

    pub(super) const fn is_drained(self) -> bool {
        self.drained
    }

    /// Returns the slave as it is avoided because its path does not work.
    pub(super) const fn with_failed_path(self) -> Self {
        Self { path: Finding::Failed, ..self }
    }

    /// Returns the slave as it is avoided whatever its path is.
    pub(super) const fn without_path(self) -> Self {
        Self { path: Finding::Works, ..self }
    }

    pub(super) fn has_failed_path(self) -> bool {
        self.path == Finding::Failed
    }

    /// Has the slave prove its path from now on.
    pub(super) fn doubt(&mut self, now: Time) {
        if self.path != Finding::Failed {
            self.path = Finding::Unproven { doubted_at: Some(now) };
        }
    }

    /// Returns what damping has counted; None if the link has not failed.
    pub(super) fn damping(self, settings: Damping) -> Option<SlaveDamping> {
        let Self { penalty, suppressed_since, .. } = self;
        (penalty != Penalty::default()).then_some(SlaveDamping { penalty, settings, suppressed_since })
    }

    pub(super) fn why(self) -> Avoidance {
        match (self.path, self.drained, self.suppressed_since.is_some()) {
            (Finding::Failed, _, _) => Avoidance::Failed,
            (Finding::Unproven { .. }, _, _) => Avoidance::Unproven,
            (Finding::Works, true, _) => Avoidance::Drained,
            (Finding::Works, false, true) => Avoidance::Damped,
            (Finding::Works, false, false) => Avoidance::None,
        }
    }

    /// Counts a link failure. Returns whether the slave is suppressed from now on.
    fn fail(&mut self, now: Time, damping: Option<Damping>) -> bool {
        let Some(damping) = damping else { return false };
        self.penalty.add_failure(now, damping);
        let is_new = self.suppressed_since.is_none() && self.penalty.suppresses(now, damping);
        if is_new {
            self.suppressed_since = Some(now);
        }
        is_new
    }

    /// Returns when the slave may be used again.
    fn reuse_at(self, damping: Option<Damping>) -> Option<Time> {
        damping.filter(|_| self.suppressed_since.is_some()).map(|damping| self.penalty.reuse_at(damping))
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
            if slave.avoided.suppressed_since.take().is_some() {
                let slot = slave.slot;
                self.use_again(now, slot, Reason::DampingEnded);
            }
        }
    }

    /// Counts a failure of a slave's link. A drained slave that is not active is worked on: its failures do not count.
    pub(super) fn count_failure(&mut self, now: Time, slot: Slot) {
        let (is_active, damping) = (self.active == Some(slot), self.damping);
        let wants_proof = self.wants_proof;
        let Some(slave) = self.slave_mut(slot) else { return };
        if wants_proof {
            slave.avoided.doubt(now);
        }
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
            slave.avoided.suppressed_since = None;
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

    /// Takes what the path monitor has found. Where a path answers, the slave may become active again.
    pub(super) fn paths(&mut self, now: Time, found: &FoundPaths) {
        self.wants_proof = found.wants_proof;
        let mut is_changed = false;
        for index in 0..self.slaves.len() {
            let Some(slave) = self.slaves.get_mut(index) else { break };
            let (slot, before, next) = (slave.slot, slave.avoided.path, found.of(slave.slot));
            if before == next || next == Finding::Works && before.outlasts(found) {
                continue;
            }
            slave.avoided.path = next;
            is_changed = true;
            let name = slave.name.clone();
            // Nothing is proven if that is not wanted any more.
            let is_news = |change: &PathChange| *change != PathChange::Proven || found.wants_proof;
            if let Some(change) = before.change_to(next).filter(is_news) {
                self.notify(Notice::Path { slave: name, change });
            }
            if next == Finding::Works {
                self.use_again(now, slot, Reason::PathRecovered);
            }
        }
        // Slaves that need their paths are up or down now.
        if is_changed {
            self.inspect(now);
        }
    }

    /// Returns whether the path monitor has to confirm what the engine knows of a path: the caller repeats what it found.
    pub fn awaits_paths(&self) -> bool {
        let is_open = |slave: &Slave| matches!(slave.avoided.path, Finding::Unproven { doubted_at: Some(_) });
        self.joined_slaves().any(is_open)
    }

    /// Notes that the path monitor has left these slaves, in their order: the active slave before each change of its own.
    pub(super) fn leave_paths(&mut self, known_active: Option<Slot>, changes: &[DataPlaneChange]) {
        let mut from = known_active;
        for change in changes.iter().filter(|change| change.is_failover()) {
            if change.by == ChangedBy::Tick(Cause::PathSilent)
                && let Some(slave) = from.and_then(|slot| self.slave_mut(slot))
            {
                slave.avoided.path = Finding::Failed;
            }
            from = change.active;
        }
    }

    /// Returns the slots whose paths were found silent.
    pub(super) fn failed_paths(&self) -> u16 {
        self.mask_of(|slave| slave.avoided.has_failed_path())
    }

    /// Returns the slots that the engine uses only while no other slave is up.
    pub(super) fn avoided(&self) -> u16 {
        self.mask_of(|slave| slave.avoided.why() > Avoidance::None)
    }

    /// Returns the slots that the data plane uses only while no other slave has a link, without those whose paths have failed
    /// or are unproven, which it knows itself.
    pub fn avoided_by_agent(&self) -> u16 {
        self.mask_of(|slave| slave.avoided.without_path().why() > Avoidance::None)
    }

    fn mask_of(&self, is_in: impl Fn(&Slave) -> bool) -> u16 {
        self.joined_slaves().filter(|slave| is_in(slave)).fold(0, |mask, slave| mask | slave.slot.bit())
    }
}
