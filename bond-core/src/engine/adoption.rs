//! The adoption of a running bond, and failovers of the data plane.

use super::*;

impl Engine {
    /// Creates the engine of a running bond that a former engine left at any moment. The caller takes the commands, as
    /// after [`Engine::handle`]. Each of [`Left::failovers`] causes a notice, in their order, before the notices of other
    /// failovers.
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
            // A draining slave is left by a planned switch that the former engine did not report.
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

    /// Reports the guard's failovers, one after the other. Returns the active slot after the last one.
    pub(super) fn catch_up(
        &mut self,
        known_active: Option<Slot>,
        failovers: &[GuardFailover],
        gone: &[(Slot, String)],
    ) -> Option<Slot> {
        failovers.iter().fold(known_active, |from, failover| {
            let to = Some(failover.active);
            // Unrecorded failovers happened in between.
            let from = from.filter(|from| Some(*from) != to);
            self.tell_of_past(from, to, failover.usable, BY_GUARD, gone);
            to
        })
    }

    /// Reports a change of ACTIVE that no engine has reported.
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

    /// Completes the changes of addresses and the announcements of the last failover, which the former engine may not
    /// have completed.
    pub(super) fn finish_failover(&mut self, now: Time) {
        let permanent: Vec<_> = self.slaves.iter().map(|slave| slave.permanent_mac).collect();
        let changes =
            mac_plan::at_adoption(self.policy(), self.mac.get(), &self.slave_macs(), &permanent, self.active);
        match self.active {
            Some(active) => self.move_macs(now, active, changes),
            None => changes.slaves.into_iter().for_each(|change| self.set_slave_mac(change)),
        }
    }

    /// Adopts a change of ACTIVE. The engine accepts the guard's failovers as they are: at that moment the old slave had
    /// no link and the new one had one. The next poll of the links may switch back, with updelay and the rules of
    /// reselection.
    ///
    /// A failover from a slave and back to it counts, too: the neighbours may have learned the other path.
    pub(super) fn active_changed(&mut self, now: Time, failovers: &[GuardFailover], found: Word) {
        let before = std::mem::replace(&mut self.published.word, found);
        let joined = |slot: &Slot| self.joined_slaves().any(|slave| slave.slot == *slot);
        let new = found.active.filter(joined);
        let active_after =
            |failovers: &[GuardFailover]| failovers.last().map(|last| last.active).or(self.active);
        let earlier = match failovers.split_last() {
            // The last failover is the one that made `new` active.
            Some((last, earlier)) if Some(last.active) == new => earlier,
            _ => failovers,
        };
        let from = active_after(earlier);
        self.catch_up(self.active, earlier, &[]);
        let Some(new) = new.filter(|new| from != Some(*new)) else {
            // The engine's own decision, or none of the guard's: publishing corrects the word.
            return;
        };
        if !is_guards(from, found.usable) {
            // Another process wrote the word. It may choose among the slaves that are up, as `active_slave` may.
            if self.slave(new).is_some_and(|slave| slave.state.is_up() && slave.link.up) {
                let from = from.and_then(|active| self.name_of(active));
                let choice = Choice { slot: new, why: Chosen::Administrator };
                self.change_active(now, from, Some(choice), Reason::Requested);
            }
            return;
        }
        // The failures of slaves that were left earlier are counted already.
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
