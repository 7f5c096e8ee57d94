//! Slaves that join and leave.

use super::*;

impl Engine {
    /// The first half of `bond_enslave`.
    pub(super) fn join(&mut self, now: Time, new: NewSlave) -> Result<(), Refusal> {
        let slot = self.admit(now, &new)?;
        let NewSlave { name, ifindex, mac, can_set_mac, options, drained } = new;
        let path = Path::new(now, Tolerance::of(&self.options));
        let first = self.slaves.is_empty();
        if !can_set_mac && self.options.fail_over_mac != FailOverMac::Active {
            self.options.fail_over_mac = FailOverMac::Active;
            self.outbox.publish.push(Publish::SetPolicy(FailOverMac::Active));
            self.notify(Notice::PolicyTurnedActive { slave: name.clone() });
        }
        if first && !self.mac_assigned {
            self.set_bond_mac(mac);
            self.mac_assigned = self.keeps_mac();
        }
        let to_set = match mac_plan::at_enslave(self.policy(), mac, self.mac.get(), &self.slave_macs()) {
            AtEnslave::Keep => None,
            AtEnslave::TakeBonds => Some(self.mac.get()),
            AtEnslave::Replace => {
                let made_up = self.make_up_mac(mac);
                self.notify(Notice::DuplicateMacReplaced { slave: name.clone(), mac: made_up });
                Some(made_up)
            }
        };
        self.outbox.work.push(Work::Enslave { slot, mac: to_set });
        self.slaves.push(Slave {
            slot,
            name,
            ifindex,
            mac: TrackedMac::new(to_set.unwrap_or(mac)),
            permanent_mac: mac,
            options,
            phase: Phase::Joining,
            link: Link::new(false),
            state: LinkState::Down,
            path,
            avoided: Avoided::drained(drained),
            link_failure_count: 0,
        });
        Ok(())
    }

    /// Returns the slot for a new slave, or why the bond refuses the slave.
    pub(super) fn admit(&self, now: Time, new: &NewSlave) -> Result<Slot, Refusal> {
        let name = || new.name.clone();
        if self.slot_of(&new.name).is_some() {
            return Err(Refusal::AlreadyEnslaved { name: name() });
        }
        if let Some(duplicate) = self.slaves.iter().find(|slave| slave.ifindex == new.ifindex) {
            let slave = duplicate.name.clone();
            return Err(Refusal::IfindexInUse { name: name(), ifindex: new.ifindex, slave });
        }
        if self.slaves.len() >= MAX_SLAVES {
            return Err(Refusal::TooManySlaves { name: name() });
        }
        if !new.can_set_mac && !self.slaves.is_empty() && self.policy() != FailOverMac::Active {
            return Err(Refusal::CannotSetMac { name: name() });
        }
        self.check_queue_id(&new.name, new.options)?;
        let is_free = |slot: &Slot| {
            let quarantine = self.quarantined.get(slot.index()).copied().flatten();
            quarantine.is_none_or(|last| {
                last.answers_to_go == 0 && last.since.saturating_add(SLOT_QUARANTINE) <= now
            })
        };
        let mut free = Slot::all().filter(|slot| self.slave(*slot).is_none());
        free.find(is_free).ok_or_else(|| Refusal::SlotsQuarantined { name: name() })
    }

    /// The second half of `bond_enslave`.
    pub(super) fn joined(&mut self, now: Time, slot: Slot, link: Link) {
        let path = Path::new(now, Tolerance::of(&self.options));
        let needs_proof = self.wants_proof && self.active.is_some();
        let Some(slave) = self.slave_mut(slot) else { return self.late_answer(slot) };
        if slave.phase != Phase::Joining {
            return;
        }
        slave.phase = Phase::Joined;
        if needs_proof {
            slave.avoided.doubt(now);
        }
        slave.link = link;
        slave.path = path;
        let enslaved = Notice::Enslaved { slave: slave.name.clone(), up: link.up };
        let monitoring = self.slave(slot).map(|slave| self.monitoring_of(slave));
        if let (Some(monitoring), Some(slave)) = (monitoring, self.slave_mut(slot)) {
            slave.state = LinkState::at_enslave(now, link.up, monitoring);
        }
        self.notify(enslaved);
        self.force_primary |= self.primary() == Some(slot);
        if self.next_poll.is_none() {
            self.arm_poll(now);
        }
        if self.arp.next_step.is_none() {
            self.start_arp(now);
        }
        self.elect(now, Reason::Joined);
    }

    pub(super) fn join_failed(&mut self, now: Time, slot: Slot) {
        let Some(slave) = self.slave_mut(slot) else { return self.late_answer(slot) };
        if slave.phase == Phase::Joining {
            // This is the answer that the slot would otherwise wait for.
            slave.phase = Phase::Failed;
            self.remove(now, slot);
        }
    }

    /// Releases a slave. The active one is released after a planned switch to another slave, when it has drained.
    pub(super) fn leave(&mut self, now: Time, slot: Slot) -> Result<(), Refusal> {
        let active = self.active == Some(slot);
        let slave = self.slave_mut(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        if active {
            slave.phase = Phase::Leaving;
            let name = slave.name.clone();
            let best = self.best_slave(None, Reason::Left);
            self.change_active(now, Some(name), best, Reason::Left);
        } else if slave.phase != Phase::Leaving {
            self.release(now, slot);
        }
        Ok(())
    }

    /// The second half of [`Self::leave`].
    pub(super) fn release_drained(&mut self, now: Time) {
        let draining = self.drain.map(|drain| drain.slot);
        let leaving = |slave: &&Slave| slave.phase == Phase::Leaving && Some(slave.slot) != draining;
        while let Some(slot) = self.slaves.iter().find(leaving).map(|slave| slave.slot) {
            self.release(now, slot);
        }
    }

    pub(super) fn release(&mut self, now: Time, slot: Slot) {
        if let Some(slave) = self.remove(now, slot) {
            let mac = mac_plan::at_release(self.policy(), slave.permanent_mac);
            self.outbox.work.push(Work::Release { slot, mac });
            self.notify(Notice::Released { slave: slave.name });
        }
    }

    pub(super) fn gone(&mut self, now: Time, slot: Slot) {
        if let Some(slave) = self.remove(now, slot) {
            self.notify(Notice::Released { slave: slave.name });
        }
    }

    /// A slave may become the primary by its new name, or cease to be it (`bond_slave_netdev_event`).
    pub(super) fn renamed(&mut self, now: Time, slot: Slot, name: String) {
        let before = self.primary();
        let Some(slave) = self.slave_mut(slot) else { return };
        slave.name = name;
        if self.primary() != before {
            self.elect(now, Reason::OptionChanged);
        }
    }

    /// Removes a slave from the bond, without changes to the interface (`__bond_release_one`).
    pub(super) fn remove(&mut self, now: Time, slot: Slot) -> Option<Slave> {
        let index = self.slaves.iter().position(|slave| slave.slot == slot)?;
        let slave = self.slaves.remove(index);
        let joining = u32::from(slave.phase == Phase::Joining);
        let answers_to_go = joining.saturating_add(slave.mac.unanswered());
        if let Some(quarantine) = self.quarantined.get_mut(slot.index()) {
            *quarantine = Some(Quarantine { since: now, answers_to_go });
        }
        if self.drain.is_some_and(|drain| drain.slot == slot) {
            self.drain = None;
        }
        if self.active == Some(slot) {
            let best = self.best_slave(None, Reason::Left);
            self.change_active(now, Some(slave.name.clone()), best, Reason::Left);
        }
        if self.arp.round_robin == Some(slot) {
            self.arp.round_robin = None;
        }
        if self.joined_slaves().next().is_none() {
            self.next_poll = None;
            self.arp.next_step = None;
        }
        if self.slaves.is_empty() {
            self.has_been_active = false;
            // A bond whose first slave could not be set up gives up only that slave's MAC address (`bond_enslave`).
            if !self.keeps_mac() && (slave.has_joined() || self.mac.get() == slave.permanent_mac) {
                let mac = self.make_up_mac(slave.permanent_mac);
                self.set_bond_mac(mac);
                self.mac_assigned = false;
            }
        } else {
            self.warn_of_duplicate_mac(&slave);
        }
        Some(slave)
    }

    /// Warns if the bond, or under follow another slave, still has the MAC address of a released slave. The driver warns
    /// only about the bond's address.
    pub(super) fn warn_of_duplicate_mac(&mut self, released: &Slave) {
        let mac = released.permanent_mac;
        let in_use = mac == self.mac.get() || mac_plan::slave_with(&self.slave_macs(), mac).is_some();
        if in_use && self.policy() != FailOverMac::Active {
            self.notify(Notice::ReleasedMacInUse { slave: released.name.clone(), mac });
        }
    }

    /// Counts an answer about a slave that has left.
    pub(super) fn late_answer(&mut self, slot: Slot) {
        if let Some(quarantine) = self.quarantined.get_mut(slot.index()).and_then(Option::as_mut) {
            quarantine.answers_to_go = quarantine.answers_to_go.saturating_sub(1);
        }
    }
}
