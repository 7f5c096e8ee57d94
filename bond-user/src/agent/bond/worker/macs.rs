//! Changes of MAC addresses.

use std::time::Duration;

use bond_common::{
    abi::{BondEntry, Slot},
    mac::Mac,
};
use bond_core::event::Event;

use super::{Worker, waiting};
use crate::{
    agent::bond::{
        interface::Host,
        recorder::Entry,
        work::{MacOf, SetMac},
    },
    report::{log, wording},
    sys::{dataplane::FormerMacs, netlink::LinkSetting},
};

/// How long a frame may be under way to bond0, through the queues of a busy machine.
const UNDER_WAY: Duration = Duration::from_millis(200);

impl Worker {
    /// Changes a MAC address, and answers each time that the engine has asked for one.
    pub(super) async fn set_mac(&mut self, change: SetMac) {
        let SetMac { of, mac, answers, failover } = change;
        let done = match of {
            MacOf::Slave(slot) => self.set_slave_mac(slot, mac).await,
            MacOf::Bond => self.set_bond_mac(mac).await,
        };
        if let Some((failover, steps)) = failover {
            self.recording.add(Entry::MacsChanged(failover, steps));
        }
        for _ in 0..answers {
            let event = match of {
                MacOf::Slave(slot) => Event::SlaveMacSet { slot, mac, done },
                MacOf::Bond => Event::BondMacSet { mac, done },
            };
            self.engine.event(self.id, event);
        }
    }

    async fn set_slave_mac(&self, slot: Slot, mac: Mac) -> bool {
        let Some(slave) = self.slaves.get(&slot) else { return false };
        let answer = self.devices.set(slave.ifindex, LinkSetting::Mac(mac)).await;
        let done = answer.is_ok();
        self.warn_of(answer.map(drop));
        done
    }

    /// While the kernel changes it, packets read bond0's MAC from the device (see [`BondEntry::HOST_MAC_MOVES`]),
    /// and bond0 takes those that were rewritten before.
    async fn set_bond_mac(&mut self, mac: Mac) -> bool {
        let Host::Pair { bond, .. } = self.host else {
            // The host behind a port keeps its MAC address; its frames are rewritten.
            return true;
        };
        let accepted = self.accept_former_macs(bond).await;
        self.mirror.update_bond(|bond| bond.with_flags(bond.flags() | BondEntry::HOST_MAC_MOVES));
        let answer = waiting(|| self.macs.set_mac(bond, mac));
        self.mirror.update_bond(|bond| {
            let bond = bond.with_flags(bond.flags() & !BondEntry::HOST_MAC_MOVES);
            if answer.is_ok() { bond.with_host_mac(mac) } else { bond }
        });
        self.announcer.host_mac_changed();
        self.settling = Some(tokio::spawn(async move {
            tokio::time::sleep(UNDER_WAY).await;
            waiting(|| drop(accepted));
        }));
        match answer {
            Ok(()) => true,
            // bond0 was moved into another namespace: it keeps its MAC address, and its frames are rewritten.
            Err(error) if error.is_gone() => true,
            Err(error) => {
                self.warn_of(Err(error));
                false
            }
        }
    }

    /// Until the answer is dropped.
    async fn accept_former_macs(&mut self, bond: u32) -> Option<FormerMacs> {
        if let Some(settling) = self.settling.take() {
            settling.abort();
            // It is detached when the task is gone.
            let _ = settling.await;
        }
        // A bond0 that was moved into another namespace keeps its MAC.
        let name = self.devices.name_of(bond)?;
        waiting(|| self.data_plane.accept_former_macs(&name)).unwrap_or_else(|error| {
            log::of(&self.bond).warn(wording::unprepared_mac_change(&error));
            None
        })
    }
}
