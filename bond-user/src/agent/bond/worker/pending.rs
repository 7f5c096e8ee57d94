//! What may have changed at any rate: bond0, the MAC addresses of slaves, devices above the bond, interfaces that appeared.

use bond_common::{
    abi::{BondEntry, Slot},
    mac::Mac,
};
use bond_core::event::Event;
use nix::errno::Errno;
use tracing::debug;

use super::{SlaveDevice, Worker};
use crate::{
    agent::{
        AgentError,
        bond::{
            clock::{ClockTools, Kept},
            interface::Host,
            recorder::Entry,
            work::{Jobs, PendingChecks},
        },
    },
    report::{log, wording},
    sys::{
        netlink::{LinkInfo, LinkSetting},
        topology::{self, Pairs},
    },
};

impl Worker {
    /// Reads what may have changed, now: an event may be older than a change that this task made since. A request that waits
    /// for RTNL gives way to what is urgent.
    pub(super) async fn check_pending(&mut self, pending: PendingChecks, jobs: &Jobs) {
        let mut uppers = pending.uppers;
        if pending.host {
            let again = PendingChecks { host: true, ..PendingChecks::default() };
            let link = self.devices.link_by_index(self.host.device());
            if let Some(Ok(link)) = jobs.unless_urgent(again, link).await {
                let promisc = self.host.promisc();
                self.host_changed(&link).await;
                // What takes all frames may be a switch that gives the host a port.
                uppers |= self.host.promisc() != promisc;
                uppers |= std::mem::replace(&mut self.master, link.master) != link.master;
                self.warn_of_bridge(&link).await;
                self.release_loops(&link).await;
            }
        }
        for slot in Slot::all().filter(|slot| pending.slave_macs & slot.bit() != 0) {
            let Some(ifindex) = self.slaves.get(&slot).map(|slave| slave.ifindex) else { continue };
            let again = PendingChecks { slave_macs: slot.bit(), ..PendingChecks::default() };
            let link = self.devices.link_by_index(ifindex);
            if let Some(Ok(link)) = jobs.unless_urgent(again, link).await {
                self.engine.event(self.id, Event::SlaveMacFound { slot, mac: link.mac });
            }
        }
        for slot in Slot::all().filter(|slot| pending.speeds & slot.bit() != 0) {
            self.read_speed(slot, None);
        }
        if pending.path {
            self.check_path();
            uppers |= self.path.is_time_for_others() && self.has_other_namespaces().await;
        }
        if pending.path || pending.clock {
            self.keep_clock().await;
        }
        if !pending.appeared.is_empty() && !self.record.away().is_empty() {
            let again = PendingChecks { appeared: pending.appeared.clone(), ..PendingChecks::default() };
            let links = self.devices.links(None);
            let back = match jobs.unless_urgent(again, links).await {
                Some(Ok(links)) => self.appeared(&pending.appeared, &links).await,
                Some(Err(error)) => Err(error.into()),
                None => Ok(()),
            };
            if let Err(error) = back {
                self.recording.warn(error.to_string());
            }
        }
        // A macvlan above a VLAN above bond0, for example, or a bridge that came up. What is above bond0 itself comes as
        // `uppers`.
        let device = self.host.device();
        let is_related = |ifindex: u32| {
            ifindex != device && (self.is_announced(ifindex) || self.announced.masters.contains(&ifindex))
        };
        let uppers = uppers || pending.related.any_of(|&ifindex| is_related(ifindex));
        let addresses = pending.addresses.any_of(|&ifindex| self.is_announced(ifindex));
        if uppers || addresses {
            let again = PendingChecks { uppers, addresses: pending.addresses, ..PendingChecks::default() };
            jobs.unless_urgent(again, self.look_above(uppers)).await;
        }
    }

    /// Has the clock run as it is wanted.
    pub(super) async fn keep_clock(&mut self) {
        let proof = self.proof();
        let Self { clock, devices, data_plane, record, .. } = self;
        let tools = ClockTools { devices: &**devices, plane: &mut **data_plane, record, proof };
        match clock.keep(tools).await {
            Kept::Unchanged => {}
            Kept::Started => debug!("{}: the clock runs", self.bond),
            Kept::Restarted => self.recording.warn(wording::CLOCK_RESTARTED),
            Kept::Stopped => self.recording.add(Entry::Info(wording::CLOCK_STOPPED.to_owned())),
            Kept::Failed(why) => self.recording.warn(wording::no_clock(&why)),
        }
    }

    /// It may be broken off, and done again.
    async fn look_above(&mut self, uppers: bool) {
        self.read_addresses().await;
        if uppers && let Err(error) = self.receive_further().await {
            log::of(&self.bond).warn(error);
        }
    }

    /// Passes changes of bond0 by the administrator on to the slaves, as the driver's ndo_change_mtu and ndo_set_rx_mode do.
    async fn host_changed(&mut self, link: &LinkInfo) {
        if !link.mac.is_zero()
            && link.mac != self.mirror.bond().host_mac()
            && matches!(self.host, Host::Pair { .. })
        {
            // Changed externally: packets translate between it and the wire MAC address until the engine has decided.
            self.mirror.update_bond(|bond| bond.with_host_mac(link.mac));
            self.announcer.host_mac_changed();
            self.engine.event(self.id, Event::BondMacFound { mac: link.mac });
        }
        if matches!(self.host, Host::Pair { .. }) && link.name != self.device_name {
            self.device_name.clone_from(&link.name);
            let (bond, device) = (&self.bond, &link.name);
            log::of(bond).warn(wording::device_renamed(device, bond));
        }
        if link.mtu != self.mtu {
            self.mtu = link.mtu;
            for ifindex in self.slaves.values().map(|slave| slave.ifindex).chain([self.host.port()]) {
                let answer = self.devices.set_mtu_of_member(ifindex, link.mtu).await;
                self.warn_of(answer.map(drop));
            }
        }
        let promisc = link.promiscuity > 0;
        if promisc != self.host.promisc() {
            self.host.set_promisc(promisc);
            for slave in self.slaves.values() {
                let wanted = promisc || slave.found.promisc;
                let answer = self.devices.set(slave.ifindex, LinkSetting::Promisc(wanted)).await;
                self.warn_of(answer.map(drop));
            }
        }
    }

    /// Has slaves leave through which frames go round, since bond0 was made a port of something: the kernel would refuse
    /// that with its own bonds (`__netdev_upper_dev_link`).
    async fn release_loops(&mut self, host: &LinkInfo) {
        let Host::Pair { bond, .. } = self.host else { return };
        if std::mem::replace(&mut self.checked_below, host.master) == host.master || host.master.is_none() {
            return;
        }
        // Hardware lies above nothing.
        let is_made = |(_, slave): &(&Slot, &SlaveDevice)| slave.found.kind.is_some();
        let slaves: Vec<_> = self.slaves.iter().filter(is_made).collect();
        if slaves.is_empty() {
            return;
        }
        let links = match self.devices.links(None).await {
            Ok(links) => links,
            Err(error) => return self.warn_of(Err(error)),
        };
        for (&slot, slave) in slaves {
            let senders = topology::sends_by(slave.ifindex, &links, Pairs::Followed);
            if senders.iter().any(|sender| sender.ifindex == bond) {
                self.recording.warn(wording::goes_round(&slave.name, &self.bond));
                self.engine.event(self.id, Event::Leave { slot });
            }
        }
    }

    /// Warns once of a bridge above a bond that delivers what backups receive.
    pub(super) async fn warn_of_bridge(&mut self, link: &LinkInfo) {
        let all = self.mirror.bond().has(BondEntry::ALL_SLAVES_ACTIVE);
        let master = link.master.filter(|_| all && matches!(self.host, Host::Pair { .. }));
        if self.warned_of == master {
            return;
        }
        self.warned_of = master;
        let Some(master) = master else { return };
        match self.devices.link_by_index(master).await {
            Ok(bridge) if bridge.kind.as_deref() == Some("bridge") => {
                log::of(&self.bond).warn(wording::all_slaves_active_below(&bridge.name));
            }
            _ => {}
        }
    }

    /// Has the slaves receive what devices above bond0 want to receive, macvlans for example: bond0 knows it
    /// (`dev_uc_sync`), the slaves do not. And the answers to the path monitor, which come to MAC addresses that are not the
    /// slaves' own. What does not take a further MAC becomes promiscuous.
    async fn receive_further(&mut self) -> Result<(), AgentError> {
        let Host::Pair { bond, .. } = self.host else { return Ok(()) };
        let devices = &*self.devices;
        let mut wanted = devices.unicast(bond).await?;
        self.mirror.set_above(&wanted);
        wanted.extend(self.prearmed);
        for mac in self.probed_by().await? {
            if !wanted.contains(&mac) {
                wanted.push(mac);
            }
        }
        if wanted == self.further_macs {
            return Ok(());
        }
        // Taking the bond down takes these away, too: the record has to name them before a slave gets them.
        self.record.set_unicast(&wanted)?;
        for slave in self.slaves.values() {
            for &mac in wanted.iter().filter(|mac| !self.further_macs.contains(mac)) {
                match devices.add_unicast(slave.ifindex, mac).await {
                    Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                        devices.set(slave.ifindex, LinkSetting::Promisc(true)).await?;
                    }
                    answer => answer?,
                }
            }
            for &mac in self.further_macs.iter().filter(|mac| !wanted.contains(mac)) {
                devices.del_unicast(slave.ifindex, mac).await?;
            }
        }
        self.further_macs = wanted;
        Ok(())
    }

    /// Returns the MAC addresses by which backups are probed, but for those that they have.
    async fn probed_by(&self) -> Result<Vec<Mac>, AgentError> {
        let entry = self.mirror.path();
        let mut macs = Vec::new();
        for (&slot, slave) in self.slaves.iter().filter(|_| entry.is_on()) {
            let mac = entry.mac(slot);
            if !mac.is_zero() && self.devices.link_by_index(slave.ifindex).await?.mac != mac {
                macs.push(mac);
            }
        }
        macs.sort();
        Ok(macs)
    }

    /// Whether the addresses of an interface are: a new VLAN has had a link event before.
    fn is_announced(&self, ifindex: u32) -> bool {
        ifindex == self.host.device() || self.announced.uppers.iter().any(|upper| upper.ifindex == ifindex)
    }
}
