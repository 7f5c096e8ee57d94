//! Rules about the packets' path: datapath, hooks of other programs, conflicts on slaves.

use super::{ADDRESS_OF_SLAVE, ConflictOn, HostFacts, Rules};
use crate::config::{Datapath, SlaveConfig};

impl Rules<'_> {
    pub(super) fn bypassed(&mut self, surroundings: &HostFacts) {
        let is_xdp = match self.bond.datapath {
            Datapath::Xdp | Datapath::XdpGeneric => true,
            Datapath::Auto => self.bond.port.is_some(),
            Datapath::Tc => false,
        };
        // bond0 takes the addresses of the first slave that has some; those of the others stay.
        let stays = |conflict: &&ConflictOn| conflict.id == ADDRESS_OF_SLAVE;
        let has_some = |slave: &&SlaveConfig| {
            surroundings.conflicts.iter().filter(stays).any(|conflict| conflict.interface == slave.name)
        };
        let giver = self.bond.slaves.iter().filter(|_| self.bond.move_addresses).find(has_some);
        for slave in &self.bond.slaves {
            let of_slave = surroundings.hooked.iter().filter(|hooked| hooked.interface == slave.name);
            for hooked in of_slave.filter(|hooked| is_xdp || !hooked.by_xdp_alone) {
                let text = format!("{}: {}", slave.name, hooked.text.replace("{bond}", &self.bond.name));
                self.warn("bypassed", "slaves", text);
            }
            let of_slave = surroundings.conflicts.iter().filter(|conflict| conflict.interface == slave.name);
            let is_moved = |conflict: &&ConflictOn| stays(conflict) && giver == Some(slave);
            for conflict in of_slave.filter(|conflict| !is_moved(conflict)) {
                let text = format!("{}: {}", slave.name, conflict.text.replace("{bond}", &self.bond.name));
                self.warn(conflict.id, "slaves", text);
            }
        }
    }

    pub(super) fn frames(&mut self) {
        let bond = self.bond;
        if self.is_written("use_carrier") {
            self.warn(
                "use-carrier",
                "use_carrier",
                "use_carrier: removed from later kernels, and the others accept only 1; remove it",
            );
        }
        if bond.options.all_slaves_active {
            self.warn(
                "all-slaves-active",
                "all_slaves_active",
                "all_slaves_active=1: what backups receive is delivered too, so every broadcast arrives once per \
                 slave, and a bridge above the bond learns its own guests' MACs at the bond, so that the guests \
                 receive nothing more; remove it unless a switch sends each frame to one port only",
            );
        }
        match bond.datapath {
            Datapath::Xdp if bond.port.is_none() => self.warn(
                "xdp-host",
                "datapath",
                "datapath=xdp: TCP of a bond that ends in this host is slower with it, because segmentation and \
                 checksum offload are off; use datapath = \"tc\" unless frames are forwarded by XDP",
            ),
            Datapath::XdpGeneric => self.warn(
                "xdp-generic",
                "datapath",
                "datapath=xdp-generic: slower than tc, and no NIC needs it; use datapath = \"tc\"",
            ),
            _ => {}
        }
    }
}
