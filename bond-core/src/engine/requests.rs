//! Requests: options and the active slave.

use super::*;

impl Engine {
    pub(super) fn set_options(&mut self, now: Time, options: BondOptions) -> Result<(), Refusal> {
        if options.fail_over_mac != self.policy() && !self.slaves.is_empty() {
            return Err(Refusal::FailOverMacInUse);
        }
        let primary_before = self.primary();
        let before = std::mem::replace(&mut self.options, options);
        let primary = self.primary();
        let primary_set = self.options.primary != before.primary && primary.is_some();
        // The flag remains until any primary is up (`bond_choose_primary_or_current`).
        self.force_primary |= primary_set;
        if self.options.num_grat_arp == 0 {
            self.announcements.rounds.cancel();
        }
        if self.options.resend_igmp == 0 {
            self.reports.cancel();
        }
        let targets = |options: &BondOptions| (options.arp_ip_target.clone(), options.ns_ip6_target.clone());
        if targets(&self.options) != targets(&before) {
            self.arp.targets_since = now;
        }
        let pace = |options: &BondOptions| (options.miimon, options.arp_interval);
        if pace(&self.options) != pace(&before) {
            self.next_poll = None;
            self.arm_poll(now);
            self.start_arp(now);
            self.inspect(now);
        }
        // A primary that is not enslaved is stored and causes no election (`bond_option_primary_set`).
        let primary_changed = primary_set || primary != primary_before;
        if primary_changed || self.options.primary_reselect != before.primary_reselect {
            self.elect(now, Reason::OptionChanged);
        }
        Ok(())
    }

    /// Sets the options of a slave (`bond_option_prio_set`). A new prio causes no election while a primary is enslaved.
    pub(super) fn set_slave_options(
        &mut self,
        now: Time,
        slot: Slot,
        options: SlaveOptions,
    ) -> Result<(), Refusal> {
        let slave = self.slave(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        self.check_queue_id(&slave.name, options)?;
        let slave = self.slave_mut(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        let before = std::mem::replace(&mut slave.options, options);
        if before.watch != options.watch {
            self.inspect(now);
        }
        if before.prio != options.prio && self.primary().is_none() {
            self.elect(now, Reason::OptionChanged);
        }
        Ok(())
    }

    /// Elects after an option was written (`bond_option_primary_set`, `bond_option_primary_reselect_set`,
    /// `bond_option_prio_set`). None of them compares the new value with the old one.
    pub(super) fn written(&mut self, now: Time, option: Elects) {
        let is_enslaved = self.primary().is_some();
        let elects = match option {
            Elects::Primary => {
                self.force_primary |= is_enslaved;
                is_enslaved || self.options.primary.is_none()
            }
            Elects::PrimaryReselect => true,
            Elects::Prio => !is_enslaved,
        };
        if elects {
            self.elect(now, Reason::OptionChanged);
        }
    }

    /// Checks that no other slave has the queue_id (`bond_option_queue_id_set`).
    pub(super) fn check_queue_id(&self, name: &str, options: SlaveOptions) -> Result<(), Refusal> {
        let queue_id = options.queue_id;
        let has_it = |slave: &&Slave| slave.name != name && slave.options.queue_id == queue_id;
        match self.slaves.iter().find(has_it) {
            Some(slave) if queue_id != 0 => {
                Err(Refusal::QueueIdTaken { name: name.to_owned(), queue_id, slave: slave.name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Makes a slave active by a planned switch (`bond_option_active_slave_set`).
    pub(super) fn set_active_slave(&mut self, now: Time, slot: Slot) -> Result<(), Refusal> {
        let slave = self.slave(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        if self.active == Some(slot) {
            return Ok(());
        }
        if slave.phase == Phase::Leaving {
            return Err(Refusal::Leaving { name: slave.name.clone() });
        }
        if slave.avoided.is_drained() {
            return Err(Refusal::Drained { name: slave.name.clone() });
        }
        if !slave.state.is_up() || !slave.link.up {
            return Err(Refusal::NotUp { name: slave.name.clone() });
        }
        if self.active.is_none() {
            return Err(Refusal::NoActiveSlave { name: slave.name.clone() });
        }
        let from = self.active.and_then(|active| self.name_of(active));
        self.forgive(slot);
        let chosen = Choice { slot, why: Chosen::Administrator };
        self.change_active(now, from, Some(chosen), Reason::Requested);
        Ok(())
    }

    /// Holds an election in which the active slave has no advantage (`bond_option_active_slave_set`).
    pub(super) fn clear_active_slave(&mut self, now: Time) {
        self.elect_from(now, None, Reason::OptionChanged);
    }
}
