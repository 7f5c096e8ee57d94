//! A bond that another agent left, and failovers that the data plane made.

use super::*;

impl Engine {
    /// Goes on where another engine was stopped, at whatever moment. Take the commands, as after
    /// [`Engine::handle`]. Of each of [`Left::failovers`] there is a notice, in their order, before any other of a
    /// failover.
    pub fn adopt(now: Time, bond: NewBond, left: Left) -> Self {
        let Left { active, draining, usable, known_active, failovers, carrier, slaves, gone } = left;
        let mut engine = Self::new(bond);
        let path = Path::new(now, Tolerance::of(&engine.options));
        let links: Vec<_> = slaves.iter().map(|slave| (slave.slot, slave.link)).collect();
        engine.slaves = slaves
            .into_iter()
            .map(|slave| Slave {
                slot: slave.slot,
                name: slave.name,
                ifindex: slave.ifindex,
                mac: TrackedMac::new(slave.mac),
                permanent_mac: slave.permanent_mac,
                options: slave.options,
                phase: Phase::Joined,
                link: slave.link,
                state: if usable & slave.slot.bit() != 0 { LinkState::Up } else { LinkState::Down },
                path,
                link_failure_count: slave.link_failure_count,
            })
            .collect();
        engine.active = active.filter(|slot| engine.slave(*slot).is_some());
        engine.has_been_active = engine.active.is_some();
        engine.published.word = Word { active, draining, usable };
        engine.published.carrier = carrier;
        let known_active = engine.catch_up(known_active, &failovers, &gone);
        if engine.active.is_some() && engine.active != known_active {
            // What is draining was left by an engine that did not come to say so.
            let by_guard = draining.is_some() || is_guards(known_active, usable);
            let how = if by_guard { BY_GUARD } else { (Reason::Requested, Chosen::Administrator) };
            engine.tell_of_past(known_active, active, usable, how, &gone);
        }
        engine.seen = Seen::Miimon;
        engine.use_early(engine.active);
        engine.arm_poll(now);
        engine.start_arp(now);
        engine.links(now, &links);
        if engine.active.is_none() {
            engine.elect(now, Reason::Joined);
        }
        engine.finish_failover(now);
        engine.publish();
        engine
    }

    /// The guard's failovers, one after the other. Returns who was active after them.
    pub(super) fn catch_up(
        &mut self,
        known_active: Option<Slot>,
        failovers: &[GuardFailover],
        gone: &[(Slot, String)],
    ) -> Option<Slot> {
        failovers.iter().fold(known_active, |from, failover| {
            let to = Some(failover.active);
            // There were others in between that nobody knows.
            let from = from.filter(|from| Some(*from) != to);
            self.tell_of_past(from, to, failover.usable, BY_GUARD, gone);
            to
        })
    }

    /// A change of ACTIVE that no engine has told of.
    pub(super) fn tell_of_past(
        &mut self,
        from: Option<Slot>,
        to: Option<Slot>,
        usable: u16,
        (reason, chosen): (Reason, Chosen),
        gone: &[(Slot, String)],
    ) {
        let name = |slot: Option<Slot>| {
            let departed = || gone.iter().find(|(of, _)| Some(*of) == slot).map(|(_, name)| name.clone());
            slot.and_then(|slot| self.name_of(slot)).or_else(departed)
        };
        let told = Notice::Failover {
            from: name(from),
            to: name(to),
            reason,
            seen: Seen::Guard,
            chosen: Some(chosen),
        };
        self.outbox.notices.push(told);
        if is_guards(from, usable)
            && let Some(left) = from.and_then(|slot| self.slave_mut(slot))
        {
            left.link_failure_count = left.link_failure_count.saturating_add(1);
        }
    }

    /// MACs and announcements of the failover that whoever was before may not have come to.
    pub(super) fn finish_failover(&mut self, now: Time) {
        let permanent: Vec<_> = self.slaves.iter().map(|slave| slave.permanent_mac).collect();
        let changes =
            mac_plan::at_adoption(self.policy(), self.mac.get(), &self.slave_macs(), &permanent, self.active);
        match self.active {
            Some(active) => self.move_macs(now, active, changes),
            None => changes.slaves.into_iter().for_each(|change| self.set_slave_mac(change)),
        }
    }

    /// What the data plane did is followed, not judged: the old slave's link was gone at that moment, the new one's
    /// was there. Going back is for the next look at the links, with updelay and by the rules of reselection.
    ///
    /// A failover away and back is one, too: the neighbours may have learned the other way.
    pub(super) fn active_changed(&mut self, now: Time, failovers: &[GuardFailover], found: Word) {
        let before = std::mem::replace(&mut self.published.word, found);
        let joined = |slot: &Slot| self.joined_slaves().any(|slave| slave.slot == *slot);
        let new = found.active.filter(joined);
        let active_after =
            |failovers: &[GuardFailover]| failovers.last().map(|last| last.active).or(self.active);
        let earlier = match failovers.split_last() {
            // It is the one that made `new` active.
            Some((last, earlier)) if Some(last.active) == new => earlier,
            _ => failovers,
        };
        let from = active_after(earlier);
        self.catch_up(self.active, earlier, &[]);
        let Some(new) = new.filter(|new| from != Some(*new)) else {
            // The same decision, or none of the guard's: publishing puts the word right.
            return;
        };
        if !is_guards(from, found.usable) {
            // Somebody has written it, who may choose among those that are up, as by `active_slave`.
            if self.slave(new).is_some_and(|slave| slave.state.is_up() && slave.link.up) {
                let from = from.and_then(|active| self.name_of(active));
                let choice = Choice { slot: new, why: Chosen::Administrator };
                self.change_active(now, from, Some(choice), Reason::Requested);
            }
            return;
        }
        // Of those that were left earlier the failure is counted already.
        let left = earlier.iter().scan(self.active, |from, failover| Some(from.replace(failover.active)));
        let counted = left.flatten().fold(0, |mask, slot| mask | slot.bit());
        let lost = (before.usable | from.map_or(0, Slot::bit)) & !found.usable;
        for slot in Slot::all().filter(|slot| lost & slot.bit() != 0) {
            let is_counted = Some(slot) != from && counted & slot.bit() != 0;
            let Some(slave) = self.slave_mut(slot).filter(|slave| slave.phase == Phase::Joined) else {
                continue;
            };
            slave.link.up = false;
            if is_counted {
                slave.link_failure_count = slave.link_failure_count.saturating_sub(1);
            }
            self.move_to(slot, LinkState::Down);
        }
        let from = from.and_then(|slot| self.name_of(slot));
        if let Some(slave) = self.slave_mut(new) {
            slave.link.up = true;
        }
        let choice = Choice { slot: new, why: Chosen::Guard };
        self.change_active(now, from, Some(choice), Reason::CarrierGuard);
    }
}
