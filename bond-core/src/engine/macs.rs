//! Commands that change MAC addresses, and their results.

use super::*;

impl Engine {
    pub(super) fn slave_mac_set(&mut self, now: Time, slot: Slot, mac: Mac, done: bool) {
        let Some(slave) = self.slave_mut(slot) else { return self.late_answer(slot) };
        slave.mac.answer(mac, done);
        let settled = slave.mac.is_settled();
        if !done {
            let interface = slave.name.clone();
            self.notify(Notice::MacRefused { interface, mac });
        }
        if !settled {
            return;
        }
        if !done && self.policy() == FailOverMac::Follow && mac == self.mac.get() {
            let duplicate = mac_plan::after_refusal(self.mac.get(), &self.slave_macs(), slot);
            duplicate.into_iter().for_each(|duplicate| self.set_slave_mac(duplicate));
        }
        if self.active == Some(slot) {
            self.announcements.rounds.release(now);
            self.reports.release(now);
            self.announce(now);
        }
    }

    pub(super) fn bond_mac_set(&mut self, mac: Mac, done: bool) {
        self.mac.answer(mac, done);
        if done {
            return;
        }
        self.notify(Notice::MacRefused { interface: self.name.clone(), mac });
        let (bond, slaves) = (self.mac.get(), self.slave_macs());
        for change in mac_plan::after_bond_refusal(self.policy(), bond, &slaves, self.active) {
            self.set_slave_mac(change);
        }
    }

    /// Handles an external change of a slave's address. The driver reads the address when a failover needs it
    /// (`bond_do_fail_over_mac`). Here, under active, the bond takes the address of its active slave at once, because
    /// frames carry it from now on; a bond that keeps its address announces the new one.
    pub(super) fn slave_mac_found(&mut self, now: Time, slot: Slot, mac: Mac) {
        let Some(slave) = self.slave_mut(slot) else { return };
        let before = slave.mac;
        slave.mac.find(mac);
        // What was asked for before overtakes it.
        if !before.is_settled() || mac == before.get() {
            return;
        }
        let notice = Notice::SlaveMacChanged { slave: slave.name.clone(), mac };
        self.notify(notice);
        if self.active == Some(slot) && self.policy() == FailOverMac::Active {
            let changes = self.macs_at_failover(slot);
            self.move_macs(now, slot, changes);
        }
    }

    /// Handles an external change of the bond's address (`bond_set_mac_address`). Under active and follow the driver
    /// reports success and keeps the address; here the address was changed, and is restored. In both cases the bond does
    /// not copy the address of its next first slave (`addr_assign_type`).
    pub(super) fn bond_mac_found(&mut self, mac: Mac) {
        let before = self.mac.get();
        let settled = self.mac.is_settled();
        self.mac.find(mac);
        // What was asked for before overtakes it.
        if !settled || mac == before {
            return;
        }
        self.mac_assigned = true;
        if self.policy() != FailOverMac::None {
            self.set_bond_mac(before);
            self.notify(Notice::BondMacRestored { mac });
            return;
        }
        let slots: Vec<_> = self.slaves.iter().map(|slave| slave.slot).collect();
        slots.into_iter().for_each(|slot| self.set_slave_mac(SlaveMac { slot, mac }));
        self.notify(Notice::BondMacChanged { mac });
    }

    /// Returns the changes of MAC addresses of a failover to `new`.
    pub(super) fn macs_at_failover(&self, new: Slot) -> mac_plan::Changes {
        let changes = mac_plan::at_failover(self.policy(), self.mac.get(), &self.slave_macs(), new);
        self.without_kept(changes)
    }

    /// Leaves out the change of the bond's MAC address if the bond keeps that.
    pub(super) fn without_kept(&self, changes: mac_plan::Changes) -> mac_plan::Changes {
        mac_plan::Changes { bond: changes.bond.filter(|_| !self.keeps_mac()), ..changes }
    }

    /// Returns whether the bond keeps its MAC address, whichever slave is active.
    pub(super) fn keeps_mac(&self) -> bool {
        self.mac_stays && self.policy() == FailOverMac::Active
    }

    /// Announces `active` and asks for changes of addresses. Under active its frames carry the right address already.
    /// Under follow the announcement waits until the NIC has the bond's address, because the NIC would not receive
    /// answers before; with `prearm` it receives them.
    pub(super) fn move_macs(&mut self, now: Time, active: Slot, changes: mac_plan::Changes) {
        let (rounds, reports) = (self.options.num_grat_arp, self.options.resend_igmp);
        let exchanges = changes.slaves.iter().any(|change| change.slot == active)
            || self.slave(active).is_some_and(|slave| !slave.mac.is_settled());
        if exchanges && !self.prearm {
            self.announcements.rounds.hold(rounds);
            self.reports.hold(reports);
        } else {
            self.announcements.rounds.begin(rounds, now);
            self.reports.begin(reports, now);
        }
        self.announce(now);
        changes.slaves.into_iter().for_each(|change| self.set_slave_mac(change));
        if let Some(mac) = changes.bond {
            self.set_bond_mac(mac);
        }
    }

    pub(super) fn set_slave_mac(&mut self, change: SlaveMac) {
        let SlaveMac { slot, mac } = change;
        if let Some(slave) = self.slave_mut(slot) {
            slave.mac.ask(mac);
            self.outbox.work.push(Work::SetSlaveMac { slot, mac });
        }
    }

    pub(super) fn set_bond_mac(&mut self, mac: Mac) {
        if mac != self.mac.get() {
            self.mac.ask(mac);
            self.outbox.work.push(Work::SetBondMac(mac));
        }
    }

    /// Returns a new address that neither the bond nor a slave has, and that is not `also`.
    pub(super) fn make_up_mac(&mut self, also: Mac) -> Mac {
        let (bond, slaves) = (self.mac.get(), &self.slaves);
        let taken = |mac| {
            let in_use = |slave: &Slave| slave.mac.get() == mac || slave.permanent_mac == mac;
            mac == bond || mac == also || slaves.iter().any(in_use)
        };
        self.made_up.next(taken)
    }

    /// Returns the source address of a slave's frames while it is active.
    pub(super) fn wire_mac(&self, slave: &Slave) -> Mac {
        match self.policy() {
            FailOverMac::None | FailOverMac::Follow => self.mac.get(),
            FailOverMac::Active => slave.mac.get(),
        }
    }

    pub(super) fn slave_macs(&self) -> Vec<SlaveMac> {
        self.slaves.iter().map(|slave| SlaveMac { slot: slave.slot, mac: slave.mac.get() }).collect()
    }
}
