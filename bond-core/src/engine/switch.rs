//! The election and what follows it: ACTIVE, MAC addresses, announcements.

use super::*;

impl Engine {
    /// `bond_select_active_slave`
    pub(super) fn elect(&mut self, now: Time, reason: Reason) {
        self.elect_from(now, self.active, reason);
    }

    pub(super) fn elect_from(&mut self, now: Time, current: Option<Slot>, reason: Reason) {
        let best = self.best_slave(current, reason);
        if best.map(|best| best.slot) != self.active {
            let from = self.active.and_then(|active| self.name_of(active));
            self.change_active(now, from, best, reason);
        }
    }

    /// Repeats an election that waited for a speed if all speeds are known now.
    pub(super) fn elect_again(&mut self, now: Time) {
        let Some(OpenElection { challenger, reason }) = self.open else { return };
        let up = |slot| self.usable().find(|slave| slave.slot == slot);
        let (Some(current), Some(challenger)) = (self.active.and_then(up), up(challenger)) else {
            self.open = None;
            return;
        };
        if !current.link.is_stale && !challenger.link.is_stale {
            self.elect(now, reason);
        }
    }

    pub(super) fn best_slave(&mut self, current: Option<Slot>, reason: Reason) -> Option<Choice> {
        let wanted = self.joined_slaves().filter(|slave| !self.is_avoided(slave));
        let candidates: Vec<Candidate> = wanted.map(Slave::candidate).collect();
        let primary = self.primary();
        let election = Election {
            candidates: &candidates,
            current,
            primary,
            force_primary: self.force_primary,
            reselect: self.options.primary_reselect,
        };
        // A primary that is used early, in its updelay, still has to take over when it is up.
        let is_up = |candidate: &Candidate| candidate.state == LinkState::Up;
        let primary_is_up = candidates.iter().any(|slave| Some(slave.slot) == primary && is_up(slave));
        self.force_primary &= !primary_is_up;
        self.open = election.open_for().map(|challenger| OpenElection { challenger, reason });
        election.best()
    }

    /// Makes a slave active (`bond_change_active_slave`). `from` is the name of the old one, which may have left already.
    pub(super) fn change_active(
        &mut self,
        now: Time,
        from: Option<String>,
        choice: Option<Choice>,
        reason: Reason,
    ) {
        let new = choice.map(|choice| choice.slot);
        let old = std::mem::replace(&mut self.active, new);
        self.open = None;
        self.use_early(new);
        let to = new.and_then(|slot| self.name_of(slot));
        let (seen, chosen) = (self.seen, choice.map(|choice| choice.why));
        self.outbox.reports.push(Report::Failover(Failover { from, to, reason, seen, chosen }));
        self.drain = None;
        self.receive_check = None;
        (self.arp.round_robin, self.arp.is_hunting) = (None, false);
        if let Some(path) = new.and_then(|slot| self.path_mut(slot)) {
            path.begin(now);
        }
        let Some(new) = new else {
            self.announcements.rounds.cancel();
            return self.reports.cancel();
        };

        let rounds = self.options.num_grat_arp;
        // A slave that left, or whose link is down, has nothing to deliver.
        let old = old.filter(|old| *old != new).and_then(|slot| self.slave(slot));
        self.drain = old.filter(|old| old.link.up).map(|old| Drain {
            slot: old.slot,
            until: now.saturating_add(if rounds == 0 { DRAIN_AFTER_ANNOUNCEMENT } else { DRAIN_AT_MOST }),
            answers_to_go: self.announcements.unanswered().saturating_add(1),
        });
        if self.has_been_active && self.policy() != FailOverMac::Active {
            self.receive_check = Some(ReceiveCheck::new(new, now));
            self.outbox.queries.push(Query::ReadCounters { slot: new });
        }
        self.has_been_active = true;

        let changes = self.macs_at_failover(new);
        self.move_macs(now, new, changes);
    }

    /// Sets an elected slave in updelay to up (`bond_change_active_slave`).
    pub(super) fn use_early(&mut self, elected: Option<Slot>) {
        let Some(slot) = elected else { return };
        if let Some(slave) = self.slave_mut(slot).filter(|slave| !slave.state.is_up()) {
            slave.state = LinkState::Up;
            self.report_link(slot);
        }
    }

    pub(super) fn announced(&mut self, now: Time) {
        self.announcements.answered();
        let Some(drain) = &mut self.drain else { return };
        if drain.answers_to_go == 1 {
            drain.until = drain.until.min(now.saturating_add(DRAIN_AFTER_ANNOUNCEMENT));
        }
        drain.answers_to_go = drain.answers_to_go.saturating_sub(1);
    }

    /// Sends the rounds of announcements and of reports that are due, if any.
    pub(super) fn announce(&mut self, now: Time) {
        let Some(active) = self.active.and_then(|slot| self.slave(slot)) else { return };
        let (slot, mac) = (active.slot, self.wire_mac(active));
        if self.announcements.take_due(now, announce::interval(&self.options)) {
            self.outbox.announcements.push(Announce { slot, mac });
        }
        if self.reports.take_due(now, announce::REPORT_INTERVAL) {
            self.outbox.work.push(Work::SendReports { slot, mac });
        }
    }

    pub(super) fn primary(&self) -> Option<Slot> {
        let name = self.options.primary.as_ref()?;
        self.joined_slaves().find(|slave| slave.name == *name).map(|slave| slave.slot)
    }
}
