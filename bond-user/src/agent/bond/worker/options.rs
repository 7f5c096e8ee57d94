//! What options, and the MTU, mean to the maps and the devices.

use bond_common::abi::BondEntry;
use bond_core::options::BondOptions;

use super::Worker;
use crate::{
    agent::{
        AgentError,
        bond::{clock, guard::GuardState, interface::Host, kernel_monitor, recorder::Entry},
    },
    sys::{
        SysError,
        netlink::{LinkInfo, LinkSetting},
    },
};

/// The flags of [`BondEntry`] that follow from the options.
const OPTION_FLAGS: u32 = BondEntry::ALL_SLAVES_ACTIVE
    | BondEntry::MONITOR
    | BondEntry::VALIDATE_ACTIVE
    | BondEntry::VALIDATE_BACKUP
    | BondEntry::FILTER
    | BondEntry::GUARD;

/// Returns the flags of [`BondEntry`] that follow from the options.
pub fn option_flags(options: &BondOptions, guard: GuardState) -> u32 {
    let validate = options.arp_validate;
    [
        (options.all_slaves_active, BondEntry::ALL_SLAVES_ACTIVE),
        (options.arp_interval > 0, BondEntry::MONITOR),
        (validate.validates_active(), BondEntry::VALIDATE_ACTIVE),
        (validate.validates_backup(), BondEntry::VALIDATE_BACKUP),
        (validate.filters(), BondEntry::FILTER),
        (guard == GuardState::On, BondEntry::GUARD),
    ]
    .into_iter()
    .fold(0, |flags, (on, flag)| if on { flags | flag } else { flags })
}

impl Worker {
    /// Publishes changed options to packets.
    pub(super) async fn set_options(&mut self, options: &BondOptions) {
        let guard = GuardState::new(self.wanted.guard, self.data_plane.kernel(), options);
        self.mirror.update_bond(|bond| {
            let is_other = bond.policy() != options.fail_over_mac;
            let settled = if is_other { BondEntry::POLICY_TURNED } else { 0 };
            let flags = bond.flags() & !(OPTION_FLAGS | settled) | option_flags(options, guard);
            bond.with_flags(flags).with_policy(options.fail_over_mac)
        });
        let (guard, kernel) = (self.wanted.guard, self.data_plane.kernel());
        self.mirror.update_clock(|entry| clock::follow_options(entry, options, guard, kernel));
        self.mirror.update_monitor(|entry| kernel_monitor::follow_options(entry, options));
        if options.num_grat_arp == 0 {
            self.recording.add(Entry::WithoutAnnouncement);
        }
        if options.all_slaves_active
            && let Ok(link) = self.devices.link_by_index(self.host.device()).await
        {
            self.warn_of_bridge(&link).await;
        }
    }

    /// Sets the MTU of all devices, in an order in which none of them ever receives a frame larger than its MTU.
    pub(super) async fn set_mtu(&mut self, mtu: u32) -> Result<(), AgentError> {
        let slaves = self.slaves.values().map(|slave| slave.ifindex);
        let mut devices: Vec<_> = slaves.chain([self.host.port()]).collect();
        if let Host::Pair { bond, .. } = self.host {
            devices.push(bond);
        }
        if mtu < self.mtu {
            devices.reverse();
        }
        let former = std::mem::replace(&mut self.mtu, mtu);
        for (place, &device) in devices.iter().enumerate() {
            let Err(error) = self.set_mtu_of(device, mtu).await else { continue };
            for &done in devices[..place].iter().rev() {
                let answer = self.set_mtu_of(done, former).await;
                self.warn_of(answer.map(drop));
            }
            self.mtu = former;
            return Err(error.into());
        }
        Ok(())
    }

    async fn set_mtu_of(&self, device: u32, mtu: u32) -> Result<LinkInfo, SysError> {
        match self.host {
            Host::Pair { bond, .. } if bond == device => {
                self.devices.set(device, LinkSetting::Mtu(mtu)).await
            }
            _ => self.devices.set_mtu_of_member(device, mtu).await,
        }
    }
}
