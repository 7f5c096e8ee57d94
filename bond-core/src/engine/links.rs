//! Link states under miimon.

use super::*;

impl Engine {
    pub(super) fn links(&mut self, now: Time, links: &[(Slot, Link)]) {
        for (slot, link) in links {
            let Some(slave) = self.slave_mut(*slot).filter(|slave| slave.has_joined()) else { continue };
            slave.link = *link;
            if !link.up && self.drain.is_some_and(|drain| drain.slot == *slot) {
                self.drain = None;
            }
        }
        self.inspect(now);
        self.elect_again(now);
    }

    pub(super) fn speed(&mut self, now: Time, slot: Slot, (speed, duplex): (Speed, Duplex)) {
        if let Some(slave) = self.slave_mut(slot) {
            slave.link = Link { speed, duplex, is_stale: false, ..slave.link };
        }
        self.elect_again(now);
    }

    /// Advances every link state and elects if a change requires it (`bond_miimon_inspect`, `bond_miimon_commit`).
    pub(super) fn inspect(&mut self, now: Time) {
        let mut ignore_updelay = self.active.is_none();
        let mut commit = Commit::Nothing;
        for index in 0..self.slaves.len() {
            let Some(slave) = self.slaves.get(index) else { break };
            if slave.phase != Phase::Joined {
                continue;
            }
            let (before, next) = (slave.state, self.next_state(now, slave, ignore_updelay));
            let Some(slave) = self.slaves.get_mut(index) else { break };
            slave.state = next;
            if slave.state == before {
                continue;
            }
            let (slot, state) = (slave.slot, slave.state);
            match state {
                LinkState::Up => {
                    ignore_updelay = false;
                    if commit == Commit::Nothing && self.may_take_over(slot) {
                        commit = Commit::Elect(Reason::LinkRecovered);
                    }
                }
                LinkState::Down => {
                    self.count_failure(now, slot);
                    if self.active == Some(slot) {
                        commit = Commit::Elect(Reason::LinkFailed);
                    }
                }
                LinkState::GoingDown { .. }
                | LinkState::GoingBack { .. }
                | LinkState::Probing
                | LinkState::Unanswered => {}
            }
            self.report_link(slot);
        }
        if let Commit::Elect(reason) = commit {
            self.elect(now, reason);
        }
    }

    /// Returns the state of a slave at `now`; with `ignore_updelay`, an updelay does not count.
    pub(super) fn next_state(&self, now: Time, slave: &Slave, ignore_updelay: bool) -> LinkState {
        let monitoring = self.monitoring_of(slave);
        if monitoring == Monitoring::Arp && self.lacks_a_sign(slave) && slave.state.is_up() {
            return LinkState::Down;
        }
        slave.state.next(now, self.has_signs(slave), monitoring.without_updelay(ignore_updelay))
    }

    /// Sets a link state that the ARP monitor or the carrier guard has decided on.
    pub(super) fn move_to(&mut self, now: Time, slot: Slot, state: LinkState) {
        let Some(slave) = self.slave_mut(slot) else { return };
        slave.state = state;
        if state == LinkState::Down {
            self.count_failure(now, slot);
        }
        self.report_link(slot);
    }

    /// Returns whether a slave whose link recovers causes an election (`bond_miimon_commit`).
    pub(super) fn may_take_over(&self, slot: Slot) -> bool {
        let prio = |slot| self.slave(slot).map(|slave| slave.options.prio);
        match self.active {
            None => true,
            Some(active) => {
                self.is_avoided_less(slot, active)
                    || self.primary() == Some(slot)
                    || prio(slot) > prio(active)
            }
        }
    }

    /// Adds the notice of a slave's present link state, if the state is one that is reported.
    pub(super) fn report_link(&mut self, slot: Slot) {
        let Some(slave) = self.slave(slot) else { return };
        let name = slave.name.clone();
        let notice = match slave.state {
            LinkState::Up => Notice::LinkChanged { slave: name, up: true },
            LinkState::Down => Notice::LinkChanged { slave: name, up: false },
            LinkState::GoingDown { .. } => {
                Notice::LinkDelayed { slave: name, up: false, delay_ms: self.options.downdelay }
            }
            LinkState::GoingBack { .. } => {
                Notice::LinkDelayed { slave: name, up: true, delay_ms: self.options.updelay }
            }
            // The round robin repeats these states as long as no target answers.
            LinkState::Probing | LinkState::Unanswered => return,
        };
        self.notify(notice);
    }

    /// Sets the time of the next `PollLinks`: a multiple of miimon, so that bonds with equal miimon poll together.
    pub(super) fn arm_poll(&mut self, now: Time) {
        let miimon = u128::from(self.options.miimon) * 1_000_000;
        let wanted = miimon > 0 && self.joined_slaves().next().is_some();
        let next = || (now.as_nanos() / miimon + 1) * miimon;
        self.next_poll = wanted.then(|| Time::from_nanos(u64::try_from(next()).unwrap_or(u64::MAX)));
    }

    pub(super) fn monitoring(&self) -> Monitoring {
        match self.options.miimon {
            0 if self.options.arp_interval > 0 => Monitoring::Arp,
            0 => Monitoring::Off,
            _ => Monitoring::Mii {
                updelay: Time::from_millis(self.options.updelay.into()),
                downdelay: Time::from_millis(self.options.downdelay.into()),
            },
        }
    }
}
