//! The adoption of a running bond, and failovers of the data plane.

use super::*;

impl Engine {
    /// Creates the engine of a running bond that a former engine left at any moment, and returns what it asks for. Each
    /// failover of [`OrphanState::changes`] is reported, in their order, before other failovers.
    pub fn adopt(now: Time, bond: NewBond, left: OrphanState) -> (Self, Batch) {
        let OrphanState {
            active,
            draining,
            usable,
            known_active,
            known_usable,
            changes,
            carrier,
            slaves,
            gone,
        } = left;
        let mut engine = Self::new(bond);
        let path = Path::new(now, Tolerance::of(&engine.options));
        let links: Vec<_> = slaves.iter().map(|slave| (slave.slot, slave.link)).collect();
        let watch = engine.watch;
        engine.slaves = slaves.into_iter().map(|slave| orphaned(slave, usable, (path, watch))).collect();
        engine.active = active.filter(|slot| engine.slave(*slot).is_some());
        engine.has_been_active = engine.active.is_some();
        engine.published.word = Word { active, draining, usable };
        engine.published.carrier = carrier;
        let known = Word { active: known_active, draining: None, usable: known_usable };
        engine.leave_paths(known_active, &changes);
        engine.count_losses(now, known, &changes);
        let known_active = engine.catch_up(known_active, &changes, &gone);
        if engine.active.is_some() && engine.active != known_active {
            // A draining slave is left by a planned switch that the former engine did not report.
            let by_guard = draining.is_some() || is_guards(known_active, usable);
            let how =
                if by_guard { BY_GUARD } else { (Reason::Requested, Chosen::Administrator, Trigger::Guard) };
            engine.report_missed(known_active, active, how, &gone);
            if is_guards(known_active, usable)
                && let Some(left) = known_active
            {
                engine.count_failure(now, left);
            }
        }
        engine.seen = Trigger::Miimon;
        engine.use_early(engine.active);
        engine.arm_poll(now);
        engine.start_arp(now);
        engine.links(now, &links);
        if engine.active.is_none() {
            match active {
                // The slave that ACTIVE names is none of the bond any more.
                Some(slot) => {
                    engine.seen = Trigger::SlaveLeft;
                    let best = engine.best_slave(None, Reason::Left);
                    let name = gone.iter().find(|(of, _)| *of == slot).map(|(_, name)| name.clone());
                    engine.change_active(now, name, best, Reason::Left);
                }
                None => engine.elect(now, Reason::Joined),
            }
        }
        engine.finish_failover(now);
        let batch = engine.publish();
        (engine, batch)
    }

    /// Reports failovers of the data plane, one after the other. Returns the active slot after the last change.
    pub(super) fn catch_up(
        &mut self,
        known_active: Option<Slot>,
        changes: &[DataPlaneChange],
        gone: &[(Slot, String)],
    ) -> Option<Slot> {
        changes.iter().filter(|change| change.is_failover()).fold(known_active, |from, change| {
            let to = change.active;
            // Unrecorded failovers happened in between.
            let from = from.filter(|_| from != to);
            self.report_missed(from, to, change.report(), gone);
            to
        })
    }

    /// Reports a change of ACTIVE that no engine has reported.
    pub(super) fn report_missed(
        &mut self,
        from: Option<Slot>,
        to: Option<Slot>,
        (reason, chosen, seen): (Reason, Chosen, Trigger),
        gone: &[(Slot, String)],
    ) {
        let name = |slot: Option<Slot>| {
            let departed = || gone.iter().find(|(of, _)| Some(*of) == slot).map(|(_, name)| name.clone());
            slot.and_then(|slot| self.name_of(slot)).or_else(departed)
        };
        let chosen = Some(chosen).filter(|_| to.is_some());
        let failover = Failover { from: name(from), to: name(to), reason, seen, chosen };
        self.outbox.reports.push(Report::Failover(failover));
    }

    /// Counts the failures of slaves that changes of the data plane found down, one after the other from `known` on. Returns
    /// the slots whose failures were counted.
    fn count_losses(&mut self, now: Time, known: Word, changes: &[DataPlaneChange]) -> u16 {
        let usable_of = |usable: u16, active: Option<Slot>| usable | active.map_or(0, Slot::bit);
        // As they were: a failure that is counted below may have a slave prove its path.
        let avoided = self.avoided();
        let (mut before, mut counted) = (usable_of(known.usable, known.active), 0);
        for change in changes {
            let lost = before & !change.usable;
            for slot in Slot::all().filter(|slot| lost & slot.bit() != 0) {
                // An avoided slave is not usable any more as soon as another one is, although it is up.
                let gives_way = !change.is_failure() && avoided & slot.bit() != 0;
                if !gives_way && self.joined_slaves().any(|slave| slave.slot == slot) {
                    self.count_failure(now, slot);
                    counted |= slot.bit();
                }
            }
            before = usable_of(change.usable, change.active);
        }
        counted
    }

    /// Completes the changes of addresses and the announcements of the last failover, which the former engine may not
    /// have completed.
    pub(super) fn finish_failover(&mut self, now: Time) {
        let permanent: Vec<_> = self.slaves.iter().map(|slave| slave.permanent_mac).collect();
        let changes =
            mac_plan::at_adoption(self.policy(), self.mac.get(), &self.slave_macs(), &permanent, self.active);
        let changes = self.without_kept(changes);
        match self.active {
            Some(active) => self.move_macs(now, active, changes),
            None => changes.slaves.into_iter().for_each(|change| self.set_slave_mac(change)),
        }
    }

    /// Adopts a change of ACTIVE. The engine accepts what the data plane has recorded as it is: at that moment the old slave
    /// had no link, or the new one was a better choice. The next poll of the links may switch back, with updelay and the
    /// rules of reselection.
    ///
    /// A failover from a slave and back to it counts, too: the neighbours may have learned the other path.
    pub(super) fn active_changed(&mut self, now: Time, changes: &[DataPlaneChange], found: Word) {
        let before = std::mem::replace(&mut self.published.word, found);
        let joined = |slot: &Slot| self.joined_slaves().any(|slave| slave.slot == *slot);
        let new = found.active.filter(joined);
        // The last failover is the one that made `new` active. What ticks did after it is not reported.
        let is_last = |change: &DataPlaneChange| change.is_failover() && change.active == new;
        let place = changes.iter().rposition(DataPlaneChange::is_failover);
        let (last, earlier, later) = match place.map(|place| changes.split_at(place)) {
            Some((earlier, [last, later @ ..])) if is_last(last) => (Some(last), earlier, later),
            Some(_) => (None, changes, &[][..]),
            None => (changes.last().filter(|last| last.active == new), &[][..], changes),
        };
        let from = earlier.last().map_or(self.active, |last| last.active);
        let known = Word { active: self.active, ..before };
        self.leave_paths(self.active, changes);
        let counted = self.count_losses(now, known, changes);
        self.catch_up(self.active, earlier, &[]);
        let is_ticks = |change: &DataPlaneChange| matches!(change.by, ChangedBy::Tick(_));
        if let Some(change) = last.filter(|change| is_ticks(change) || later.iter().any(is_ticks)) {
            let usable = later.last().unwrap_or(change).usable;
            return self.follow_tick(now, from, DataPlaneChange { usable, ..*change }, (before, counted));
        }
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
        self.mark_lost(now, from, (before, counted), found.usable);
        let from = from.and_then(|slot| self.name_of(slot));
        if let Some(slave) = self.slave_mut(new) {
            slave.link.up = true;
        }
        let choice = Choice { slot: new, why: Chosen::Guard };
        self.change_active(now, from, Some(choice), Reason::CarrierGuard);
    }

    /// Adopts the last change of a tick: slaves are up and down as it found them.
    fn follow_tick(
        &mut self,
        now: Time,
        from: Option<Slot>,
        change: DataPlaneChange,
        (before, counted): (Word, u16),
    ) {
        let by_link = self.monitoring() != Monitoring::Arp;
        self.mark_lost(now, from, (before, counted), change.usable);
        for slot in Slot::all().filter(|slot| change.usable & slot.bit() != 0) {
            let returned = |slave: &&mut Slave| slave.phase == Phase::Joined && !slave.state.is_up();
            if let Some(slave) = self.slave_mut(slot).filter(returned) {
                slave.link.up |= by_link;
                self.move_to(now, slot, LinkState::Up);
            }
        }
        // The engine may have decided on the same slave a moment later: it has reported that, and announces it.
        if !change.is_failover() || change.active == from {
            return;
        }
        let (reason, why, seen) = change.report();
        self.seen = seen;
        let from = from.and_then(|slot| self.name_of(slot));
        self.change_active(now, from, change.active.map(|slot| Choice { slot, why }), reason);
    }

    /// Sets the slaves to down that the data plane found so. The failures of those in `counted` are counted already.
    fn mark_lost(&mut self, now: Time, from: Option<Slot>, (before, counted): (Word, u16), usable: u16) {
        let by_link = self.monitoring() != Monitoring::Arp;
        // An avoided slave is not usable although it is up.
        let may_be_up = if usable == 0 { 0 } else { self.avoided() };
        // One that the path monitor has left has its link.
        let left = from.map_or(0, Slot::bit) & !self.failed_paths();
        let lost = (before.usable & !may_be_up | left | counted) & !usable;
        for slot in Slot::all().filter(|slot| lost & slot.bit() != 0) {
            let Some(slave) = self.slave_mut(slot).filter(|slave| slave.phase == Phase::Joined) else {
                continue;
            };
            // The ARP monitor judges paths: the link may be there.
            slave.link.up &= !by_link;
            if counted & slot.bit() != 0 {
                slave.state = LinkState::Down;
                self.report_link(slot);
            } else {
                self.move_to(now, slot, LinkState::Down);
            }
        }
    }
}

/// Returns whether the guard left `from`: it clears the usable bit of the slot that it leaves.
fn is_guards(from: Option<Slot>, usable: u16) -> bool {
    from.is_some_and(|from| usable & from.bit() == 0)
}

/// Returns a slave as a former engine has left it.
fn orphaned(slave: LeftSlave, usable: u16, (path, watch): (Path, Option<Watch>)) -> Slave {
    // A drained slave is not usable, whatever its link is, nor is one whose path has failed.
    let is_avoided = slave.drained || slave.path_failed;
    // One that needs its path is down without it, and its failure was counted.
    let watch = slave.options.watch.or(watch);
    let is_avoided = is_avoided && !(slave.path_failed && watch.is_some_and(Watch::needs_path));
    let is_up = usable & slave.slot.bit() != 0 || is_avoided && slave.link.up;
    let avoided = Avoided::drained(slave.drained);
    Slave {
        slot: slave.slot,
        name: slave.name,
        ifindex: slave.ifindex,
        mac: TrackedMac::new(slave.mac),
        permanent_mac: slave.permanent_mac,
        options: slave.options,
        phase: Phase::Joined,
        link: slave.link,
        state: if is_up { LinkState::Up } else { LinkState::Down },
        path,
        avoided: if slave.path_failed { avoided.with_failed_path() } else { avoided },
        link_failure_count: slave.link_failure_count,
    }
}
