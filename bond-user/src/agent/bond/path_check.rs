//! Whether packets still find the path that the bond's task has made for them: programs at their hooks, device maps, the
//! devices' settings. What another process has changed is restored where it is the bond's own, and reported.

use std::{sync::atomic::Ordering, time::Duration};

use bond_common::abi::{BondEntry, Slot};
use nix::net::if_::if_indextoname;
use tokio::time::timeout;

use crate::{
    agent::{
        LinkEventSource,
        bond::{
            interface::Host,
            worker::{Effects, Slave, waiting},
        },
    },
    report::text::{PathFault, Repair},
    sys::{
        SysError,
        dataplane::{Attachment, Fault, Port},
        netlink::{In6AddrGenMode, LinkInfo, LinkSetting},
        offload::{self, Otherwise, Role},
    },
};

/// An interface is read within this time unless another process holds RTNL; the next check comes a second later.
const RTNL_IS_FREE: Duration = Duration::from_millis(50);

/// A fault, and what became of it.
type Found = (PathFault, Repair);

/// A slave to be checked.
struct Checked {
    slot: Slot,
    name: String,
    ifindex: u32,
}

impl Effects {
    /// The devices are read only after an event about one of them: programs and maps have no events. It may be broken off, and
    /// done again.
    pub(super) async fn check_path(&mut self) {
        // A query of programs waits for RTNL and cannot be cancelled; a failover's record would wait with it.
        let free = self.devices.netlink.link_by_index(self.host.port());
        if timeout(RTNL_IS_FREE, free).await.is_err() {
            return;
        }
        let slaves = self.to_check();
        let mut found = self.check_programs(&slaves).await;
        let has_events = self.wanted.link_events == LinkEventSource::Netlink;
        self.are_devices_unchecked |= self.is_changed.swap(false, Ordering::AcqRel);
        if self.are_devices_unchecked || !has_events || !self.device_faults.is_empty() {
            let devices = self.check_devices(&slaves).await;
            self.device_faults =
                devices.iter().filter(|(_, repair)| *repair != Repair::Done).cloned().collect();
            found.extend(devices);
            self.are_devices_unchecked = false;
        }
        self.scribe.path(found);
    }

    /// Slaves whose devices are in this network namespace. What became of others comes as a link event.
    fn to_check(&self) -> Vec<Checked> {
        let named = |(&slot, slave): (&Slot, &Slave)| {
            let name = if_indextoname(slave.ifindex).ok()?.to_string_lossy().into_owned();
            Some(Checked { slot, name, ifindex: slave.ifindex })
        };
        self.slaves.iter().filter_map(named).collect()
    }

    async fn check_programs(&mut self, slaves: &[Checked]) -> Vec<Found> {
        let Ok(name) = if_indextoname(self.host.port()) else { return Vec::new() };
        let name = name.to_string_lossy();
        let netkit = match self.host {
            Host::Pair { bond, .. } if self.entry.has(BondEntry::NETKIT) => Some(bond),
            Host::Pair { .. } | Host::Port { .. } => None,
        };
        let port = Port { device: &name, ifindex: self.host.port(), netkit, bond: None };
        let attached: Vec<_> = slaves
            .iter()
            .map(|slave| Attachment { slot: slave.slot, device: &slave.name, ifindex: slave.ifindex })
            .collect();
        let mut faults = waiting(|| self.data_plane.faults(&port, &attached));
        faults.extend(self.check_filter(None, &name, port.ifindex).await);
        for slave in slaves {
            faults.extend(self.check_filter(Some(slave.slot), &slave.name, slave.ifindex).await);
        }
        faults.into_iter().map(|fault| self.repair(fault, &port, &attached)).collect()
    }

    /// Where programs are filters: whether there is one of ours on a device.
    async fn check_filter(&self, of: Option<Slot>, device: &str, ifindex: u32) -> Option<Fault> {
        let wanted = self.data_plane.filter(of)?;
        match self.devices.netlink.ingress_filters(ifindex).await {
            Ok(names) if names.iter().any(|name| name == wanted) => None,
            Ok(_) => Some(Fault::Detached { of, device: device.to_owned() }),
            Err(error) if error.is_gone() => None,
            Err(error) => Some(Fault::Unknown { what: device.to_owned(), why: error.to_string() }),
        }
    }

    fn repair(&mut self, fault: Fault, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Found {
        let plane = &mut self.data_plane;
        let repaired = |result: Result<(), _>| match result {
            Ok(()) => Repair::Done,
            Err(error) => Repair::Failed(crate::sys::dataplane::DataPlaneError::to_string(&error)),
        };
        match fault {
            Fault::Detached { of, device } => {
                let repair = match of {
                    None => repaired(waiting(|| plane.reattach_port(port))),
                    Some(slot) => match slaves.iter().find(|slave| slave.slot == slot) {
                        Some(slave) => repaired(waiting(|| plane.reattach_slave(slave))),
                        None => Repair::None,
                    },
                };
                (PathFault::Detached { device }, repair)
            }
            Fault::DeviceMap { map, key } => {
                (PathFault::DeviceMap { map, key }, repaired(plane.restore_maps(port.ifindex, slaves)))
            }
            Fault::Unpinned { pin } => (PathFault::Unpinned { pin }, Repair::None),
            Fault::Unknown { what, why } => (PathFault::Unknown { what, why }, Repair::None),
        }
    }

    async fn check_devices(&self, slaves: &[Checked]) -> Vec<Found> {
        let mut found = Vec::new();
        found.extend(self.check_port().await);
        for slave in slaves {
            found.extend(self.check_slave(slave).await);
        }
        found
    }

    /// The port is up while the bond has carrier; its MTU is the bond's.
    async fn check_port(&self) -> Vec<Found> {
        let (netlink, port) = (&self.devices.netlink, self.host.port());
        let link = match netlink.link_by_index(port).await {
            Ok(link) => link,
            Err(error) => return unreadable("the port", &error),
        };
        let mut found = Vec::new();
        if link.is_up() != self.carrier {
            let fault = PathFault::Carrier { device: link.name.clone(), up: link.is_up() };
            found.push((fault, outcome(netlink.set(port, LinkSetting::Up(self.carrier)).await)));
        }
        // An existing port has the MTU that its owner gives it, which is the bond's.
        if let Host::Pair { bond, .. } = self.host {
            found.extend(self.check_setting(&link, LinkSetting::Mtu(self.mtu)).await);
            found.extend(self.check_features(&link, Role::Port));
            if let Ok(bond) = netlink.link_by_index(bond).await {
                found.extend(self.check_features(&bond, Role::Bond));
            }
        }
        found
    }

    async fn check_slave(&self, slave: &Checked) -> Vec<Found> {
        let link = match self.devices.netlink.link_by_index(slave.ifindex).await {
            Ok(link) => link,
            Err(error) => return unreadable(&slave.name, &error),
        };
        let mut settings = vec![LinkSetting::Mtu(self.mtu), LinkSetting::Allmulti(true)];
        settings.extend(Some(LinkSetting::Promisc(true)).filter(|_| self.host.promisc()));
        settings.push(LinkSetting::AddrGenMode(In6AddrGenMode::None));
        let mut found = Vec::new();
        for setting in settings {
            found.extend(self.check_setting(&link, setting).await);
        }
        found.extend(self.check_features(&link, Role::Slave));
        found.extend(self.check_unicast(&link).await);
        found
    }

    async fn check_setting(&self, link: &LinkInfo, wanted: LinkSetting) -> Option<Found> {
        if wanted.holds(link) {
            return None;
        }
        let fault = PathFault::Setting { device: link.name.clone(), wanted: wanted.to_string() };
        Some((fault, outcome(self.devices.netlink.set(link.ifindex, wanted).await)))
    }

    /// Offloads without which packets would be lost or broken.
    fn check_features(&self, link: &LinkInfo, role: Role) -> Vec<Found> {
        let (ethtool, hook) = (&self.devices.ethtool, self.data_plane.hook());
        let changes = offload::prepare(role, hook);
        if changes.is_empty() {
            return Vec::new();
        }
        let features = match waiting(|| ethtool.features(link.ifindex)) {
            Ok(features) => features,
            Err(error) => return unreadable(&link.name, &error),
        };
        let is_wrong = |change: &&offload::FeatureChange| {
            change.otherwise == Otherwise::Refuse
                && features.iter().any(|feature| feature.name == change.name && feature.active != change.on)
        };
        let wrong: Vec<_> = changes.iter().filter(is_wrong).collect();
        if wrong.is_empty() {
            return Vec::new();
        }
        let repair = match waiting(|| offload::apply(ethtool, link, role, hook)) {
            Ok(_) => Repair::Done,
            Err(error) => Repair::Failed(error.to_string()),
        };
        let found = |change: &offload::FeatureChange| {
            let wanted = format!("{} {}", change.name, if change.on { "on" } else { "off" });
            (PathFault::Setting { device: link.name.clone(), wanted }, repair.clone())
        };
        wrong.into_iter().map(found).collect()
    }

    /// MACs that slaves receive in addition to their own.
    async fn check_unicast(&self, link: &LinkInfo) -> Vec<Found> {
        if self.further_macs.is_empty() || LinkSetting::Promisc(true).holds(link) {
            return Vec::new();
        }
        let netlink = &self.devices.netlink;
        let received = match netlink.unicast(link.ifindex).await {
            Ok(received) => received,
            Err(error) => return unreadable(&link.name, &error),
        };
        let mut found = Vec::new();
        for &mac in self.further_macs.iter().filter(|mac| !received.contains(mac) && **mac != link.mac) {
            let fault =
                PathFault::Setting { device: link.name.clone(), wanted: format!("unicast filter {mac}") };
            found.push((fault, outcome(netlink.add_unicast(link.ifindex, mac).await)));
        }
        found
    }
}

fn outcome<T>(result: Result<T, SysError>) -> Repair {
    match result {
        Ok(_) => Repair::Done,
        Err(error) => Repair::Failed(error.to_string()),
    }
}

/// A device that is gone is no fault here: a link event tells.
fn unreadable(what: &str, error: &SysError) -> Vec<Found> {
    if error.is_gone() {
        return Vec::new();
    }
    vec![(PathFault::Unknown { what: what.to_owned(), why: error.to_string() }, Repair::None)]
}
