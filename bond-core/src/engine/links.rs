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

    /// Moves every link state on and elects if that asks for it (`bond_miimon_inspect`, `bond_miimon_commit`).
    pub(super) fn inspect(&mut self, now: Time) {
        let monitoring = self.monitoring();
        let mut ignore_updelay = self.active.is_none();
        let mut commit = Commit::Nothing;
        for index in 0..self.slaves.len() {
            let slave = &mut self.slaves[index];
            if slave.phase != Phase::Joined {
                continue;
            }
            let before = slave.state;
            slave.state = before.next(now, slave.link.up, monitoring.without_updelay(ignore_updelay));
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
                    self.slaves[index].link_failure_count =
                        self.slaves[index].link_failure_count.saturating_add(1);
                    if self.active == Some(slot) {
                        commit = Commit::Elect(Reason::LinkFailed);
                    }
                }
                LinkState::GoingDown { .. }
                | LinkState::GoingBack { .. }
                | LinkState::Probing
                | LinkState::Unanswered => {}
            }
            self.report_link(index);
        }
        if let Commit::Elect(reason) = commit {
            self.elect(now, reason);
        }
    }

    /// A link state that the ARP monitor decides on.
    pub(super) fn move_to(&mut self, slot: Slot, state: LinkState) {
        let Some(index) = self.slaves.iter().position(|slave| slave.slot == slot) else { return };
        let slave = &mut self.slaves[index];
        slave.state = state;
        if state == LinkState::Down {
            slave.link_failure_count = slave.link_failure_count.saturating_add(1);
        }
        self.report_link(index);
    }

    /// A slave that comes back starts an election only then (`bond_miimon_commit`).
    pub(super) fn may_take_over(&self, slot: Slot) -> bool {
        let prio = |slot| self.slave(slot).map(|slave| slave.options.prio);
        match self.active {
            None => true,
            Some(active) => self.primary() == Some(slot) || prio(slot) > prio(active),
        }
    }

    pub(super) fn report_link(&mut self, index: usize) {
        let slave = &self.slaves[index];
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
            // Turns go on for as long as nobody answers.
            LinkState::Probing | LinkState::Unanswered => return,
        };
        self.outbox.notices.push(notice);
    }

    /// The next PollLinks: whenever the clock shows a multiple of miimon, so that bonds with the same miimon look at
    /// their links together.
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
