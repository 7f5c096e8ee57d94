//! The steps of the ARP and NS monitor.

use super::*;

impl Engine {
    /// Makes one step of the ARP monitor (`bond_activebackup_arp_mon`).
    pub(super) fn probes(&mut self, now: Time, receptions: &[Reception]) {
        let Some(tolerance) = Tolerance::of(&self.options) else { return };
        self.receive(receptions);
        if let Some(asked) = self.arp.asked.take() {
            // The last round was neither sent nor refused: the prober is late.
            self.report_lateness(now, now.saturating_sub(asked));
            self.arp.is_late = true;
        }
        if std::mem::take(&mut self.arp.is_late) {
            self.late_step(now);
        } else {
            self.inspect_paths(now, tolerance);
            self.probe(now);
        }
    }

    /// Begins the grace of every slave again: nothing was asked, so silence says nothing about a path.
    pub(super) fn not_probed(&mut self, now: Time) {
        self.arp.asked = None;
        for slave in self.slaves.iter_mut().filter(|slave| slave.phase == Phase::Joined) {
            slave.path.begin(now);
        }
    }

    pub(super) fn probed(&mut self, now: Time, slot: Slot) {
        self.notice_late_probe(now);
        if let Some(slave) = self.slave_mut(slot) {
            slave.path.probed(now);
        }
    }

    /// Stores the reception times of slaves. A backup sees only the bond's own probes. They count as reception only
    /// after the active slave has received a reply (`bond_arp_rcv`).
    pub(super) fn receive(&mut self, receptions: &[Reception]) {
        let validate = self.options.arp_validate;
        let prober = self.active.or(self.arp.round_robin);
        let hunts = self.hunts();
        let (mut probers, mut backups) = (Vec::new(), Vec::new());
        for Reception { slot, times } in receptions {
            let (validated, list) = if Some(*slot) == prober {
                (validate.validates_active(), &mut probers)
            } else {
                (validate.validates_backup(), &mut backups)
            };
            let families = Families::of(self.slave(*slot).and_then(|slave| self.watch_of(slave)));
            let at =
                arp_monitor::last_rx(&self.options, (validated, families), times, self.arp.targets_since);
            list.push((*slot, at));
        }
        for (slot, at) in probers {
            if let Some(path) =
                self.path_mut(slot).filter(|path| !hunts || !path.is_doubted || path.is_answer(at))
            {
                path.received(at);
            }
        }
        let active = self.active.and_then(|slot| self.slave(slot)).map(|active| active.path);
        let answered = active.is_none_or(|active| active.is_confirmed());
        if !answered && validate.validates_backup() {
            return;
        }
        // What the probes of a dead path show is that two slaves are at one switch.
        let proves = |at| active.is_some_and(|active| active.is_confirmed() && active.is_answer(at));
        for (slot, at) in backups {
            if let Some(path) = self.path_mut(slot).filter(|path| !hunts || !path.is_doubted || proves(at)) {
                path.received(at);
            }
        }
    }

    /// Returns whether slaves that were asked without an answer are doubted: there are more than two to choose from.
    fn hunts(&self) -> bool {
        self.joined_slaves().filter(|slave| slave.link.up).count() >= HUNTERS
    }

    pub(super) fn path_mut(&mut self, slot: Slot) -> Option<&mut Path> {
        self.slave_mut(slot).map(|slave| &mut slave.path)
    }

    /// Judges all slaves (`bond_ab_arp_inspect`), then commits the proposals (`bond_ab_arp_commit`).
    pub(super) fn inspect_paths(&mut self, now: Time, tolerance: Tolerance) {
        let waiting = self.arp.round_robin.is_some();
        let is_tried = self.arp.is_hunting && self.hunts();
        let propose = |slave: &Slave| {
            let standing = match self.active {
                Some(active) if active == slave.slot && is_tried => Standing::Tried,
                Some(active) if active == slave.slot => Standing::Active,
                _ if waiting => Standing::Waiting,
                _ => Standing::Backup,
            };
            arp_monitor::inspect(now, tolerance, slave.state, standing, &slave.path)
                .map(|proposal| (slave.slot, proposal))
        };
        let is_probed = |slave: &&Slave| self.monitoring_of(slave) == Monitoring::Arp;
        // One that answers, and has lost another sign that it needs, does not come up.
        let is_wanted = |slot: Slot, proposal: Proposal| {
            proposal != Proposal::Up || !self.slave(slot).is_some_and(|slave| self.lacks_a_sign(slave))
        };
        let proposals = self.joined_slaves().filter(is_probed).filter_map(propose);
        let proposals: Vec<_> = proposals.filter(|(slot, proposal)| is_wanted(*slot, *proposal)).collect();
        let mut commit = Commit::Nothing;
        for (slot, proposal) in proposals {
            match proposal {
                Proposal::Up => {
                    self.doubt(slot, false);
                    self.move_to(now, slot, LinkState::Up);
                    if commit == Commit::Nothing && self.may_take_over(slot) {
                        commit = Commit::Elect(Reason::LinkRecovered);
                    }
                }
                Proposal::Down => {
                    self.move_to(now, slot, LinkState::Down);
                    if self.active == Some(slot) {
                        self.doubt(slot, true);
                        commit = Commit::Elect(Reason::LinkFailed);
                    }
                }
                Proposal::Unanswered => {
                    self.doubt(slot, true);
                    self.move_to(now, slot, LinkState::Unanswered);
                }
            }
        }
        if let Commit::Elect(reason) = commit {
            self.elect(now, reason);
            self.arp.is_hunting |= reason == Reason::LinkFailed && self.active.is_some();
        }
        let active = self.active.and_then(|slot| self.slave(slot));
        self.arp.is_hunting &= active.is_some_and(|active| !active.path.is_confirmed());
    }

    fn doubt(&mut self, slot: Slot, is_doubted: bool) {
        if let Some(path) = self.path_mut(slot) {
            path.is_doubted = is_doubted;
        }
    }

    /// Probes through the active slave, or through the next one in the round robin (`bond_ab_arp_probe`).
    pub(super) fn probe(&mut self, now: Time) {
        let slot = match self.active {
            Some(active) => Some(active),
            None => self.next_in_round_robin(now),
        };
        slot.into_iter().for_each(|slot| self.ask(now, slot));
    }

    /// Asks for probes through this slave.
    pub(super) fn ask(&mut self, now: Time, slot: Slot) {
        if let Some(slave) = self.slave(slot) {
            let probe = Probe { slot, mac: self.probe_mac(slave) };
            self.arp.asked = Some(now);
            self.outbox.probes.push(probe);
        }
    }

    /// Returns the source address of a slave's probes: the targets learn it, so it is that of the bond's frames, also if the
    /// slave's own was changed externally. Under `follow` only the active slave has, and receives by, the bond's.
    fn probe_mac(&self, slave: &Slave) -> Mac {
        match self.policy() {
            FailOverMac::Follow if self.active != Some(slave.slot) => slave.mac.get(),
            FailOverMac::None | FailOverMac::Active | FailOverMac::Follow => self.wire_mac(slave),
        }
    }

    pub(super) fn next_in_round_robin(&mut self, now: Time) -> Option<Slot> {
        let slaves: Vec<_> = self.joined_slaves().map(|slave| (slave.slot, slave.link.up)).collect();
        // A slave that was up when all others failed, and was not elected, is down now.
        for (slot, has_link) in &slaves {
            if !has_link && self.slave(*slot).is_some_and(|slave| slave.state.is_up()) {
                self.move_to(now, *slot, LinkState::Down);
            }
        }
        let hunts = self.hunts();
        let is_fresh = |slot| self.slave(slot).is_some_and(|slave| !hunts || !slave.path.is_doubted);
        let fresh: Vec<_> =
            slaves.iter().map(|(slot, has_link)| (*slot, *has_link && is_fresh(*slot))).collect();
        let last = self.arp.round_robin;
        let next = arp_monitor::next_in_round_robin(&fresh, last)
            .or_else(|| arp_monitor::next_in_round_robin(&slaves, last))?;
        self.move_to(now, next, LinkState::Probing);
        self.path_mut(next).into_iter().for_each(|path| path.begin(now));
        self.arp.round_robin = Some(next);
        Some(next)
    }

    /// Starts the ARP monitor, with the first step at once, or stops it, as the options require.
    pub(super) fn start_arp(&mut self, now: Time) {
        let tolerance = Tolerance::of(&self.options);
        (self.arp.round_robin, self.arp.asked) = (None, None);
        (self.arp.is_late, self.arp.is_hunting) = (false, false);
        self.arp.next_step = tolerance.filter(|_| self.joined_slaves().next().is_some()).map(|_| now);
        for slave in self.slaves.iter_mut().filter(|slave| slave.phase == Phase::Joined) {
            slave.path = Path::new(now, tolerance);
        }
    }

    /// Sets the time of the next step, one interval after the last.
    pub(super) fn arm_arp(&mut self, now: Time) {
        let interval = Tolerance::of(&self.options).map(Tolerance::interval);
        let next = |after: Time| interval.map(|interval| after.saturating_add(interval));
        let on_time = self.arp.next_step.and_then(next).filter(|next| *next > now);
        self.arp.next_step = on_time.or_else(|| next(now));
    }
}
