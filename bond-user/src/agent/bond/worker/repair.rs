//! The worker's part of the check of the path: it restores what another process has changed, and reports what it cannot
//! restore. What needs RTNL was read by a task of its own: [`path_check`](crate::agent::bond::path_check).

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use bond_common::{
    abi::{BondEntry, Slot},
    names,
};
use nix::errno::Errno;

use super::{SlaveDevice, Worker, waiting};
use crate::{
    agent::{
        LinkEventSource,
        bond::{
            interface::Host,
            path_check::{
                CHECKS_WITHOUT_EVENT, Checked, Filters, Found, PathReading, Question, Wanted,
                missing_unicast, needs_promisc, wrong_features,
            },
            receipt_writer::Part,
            recorder::Entry,
            work::Request,
        },
    },
    report::wording::{self, PathFault, Repair},
    sys::{
        SysError,
        dataplane::{At, AtHook, Attachment, DataPlaneError, Fault, Port, Watched},
        netlink::{In6AddrGenMode, LinkInfo, LinkSetting},
        offload::{self, Role},
    },
};

impl Worker {
    /// Checks and restores what can be read without RTNL, and has the rest read. The answer is [`Request::RepairPath`].
    pub(super) fn check_path(&mut self) {
        let slaves = self.to_check();
        let mut found =
            if self.path.is_time_for_pins() { self.check_pins().0 } else { self.path.pin_faults.clone() };
        self.check_device_maps(slaves.clone(), &mut found);
        self.recording.add(Entry::Path(Part::Maps, found));
        if self.path.is_asked {
            return;
        }
        let Some(question) = self.question(slaves) else { return };
        self.path.is_asked = true;
        let (work, lane) = (self.own_work.clone(), Arc::clone(&self.path_lane));
        tokio::spawn(async move {
            // One for all bonds: while another process holds RTNL, one thread waits for it.
            let _lane = lane.lock().await;
            let seen = question.ask().await;
            if let Some(work) = work.upgrade() {
                work.request(Request::RepairPath(Box::new(seen)));
            }
        });
    }

    /// Pins and device maps. Returns whether there is a bpffs for the pins.
    pub(super) fn check_maps(&mut self) -> bool {
        let (mut found, has_bpffs) = self.check_pins();
        self.check_device_maps(self.to_check(), &mut found);
        self.recording.add(Entry::Path(Part::Maps, found));
        has_bpffs
    }

    /// Returns what was wrong with the pins, and whether there is a bpffs for them.
    fn check_pins(&mut self) -> (Vec<Found>, bool) {
        let (mut found, mut has_bpffs) = (Vec::new(), true);
        match self.data_plane.missing_pins() {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => match self.data_plane.pin_again(&missing) {
                // bpffs was unmounted, which is reported once.
                Err(DataPlaneError::Unpinned(_)) => has_bpffs = false,
                answer => {
                    let repair = outcome(answer);
                    let fault = |pin: &String| (PathFault::Unpinned { pin: pin.clone() }, repair.clone());
                    let are_all = missing.iter().any(|pin| pin == names::ACTIVE)
                        && missing.len() >= names::PINNED_MAPS.len();
                    match are_all {
                        true => found.push(fault(&self.data_plane.shown_pins())),
                        false => found.extend(missing.iter().map(fault)),
                    }
                }
            },
            Err(error) => {
                let (what, why) = (self.data_plane.shown_pins(), error.to_string());
                found.push((PathFault::Unknown { what, why }, Repair::None));
            }
        }
        self.path.pin_faults = found.iter().filter(|(_, repair)| *repair != Repair::Done).cloned().collect();
        (found, has_bpffs)
    }

    fn check_device_maps(&mut self, mut slaves: Vec<Checked>, found: &mut Vec<Found>) {
        let mut faults = self.data_plane.changed_maps(self.host.port(), &attachments(&slaves));
        if !faults.is_empty() {
            // A device that has gone since took its entry along, after its name.
            slaves = self.to_check();
            let port = self.ends().map(|_| self.host.port());
            faults =
                port.map_or_else(Vec::new, |port| self.data_plane.changed_maps(port, &attachments(&slaves)));
        }
        let attached = attachments(&slaves);
        for fault in faults {
            found.push(match fault {
                Fault::DeviceMap { map, key } => {
                    let restored = self.data_plane.restore_maps(self.host.port(), &attached);
                    (PathFault::DeviceMap { map, key }, outcome(restored))
                }
                Fault::Detached { device } => (PathFault::Detached { device }, Repair::None),
                Fault::Replaced { device } => (PathFault::Replaced { device }, Repair::None),
                Fault::Unknown { what, why } => (PathFault::Unknown { what, why }, Repair::None),
            });
        }
    }

    /// None if the port is gone: a link event says so.
    fn question(&mut self, slaves: Vec<Checked>) -> Option<Question> {
        let (port, bond) = self.ends()?;
        self.path.checks = self.path.checks.wrapping_add(1);
        let is_due = self.path.checks.is_multiple_of(CHECKS_WITHOUT_EVENT);
        let has_events = self.wanted.link_events == LinkEventSource::Netlink;
        self.path.are_devices_unchecked |= self.is_changed.swap(false, Ordering::AcqRel);
        let devices =
            is_due || self.path.are_devices_unchecked || !has_events || !self.path.device_faults.is_empty();
        let hook_changes = self.hook_changes.load(Ordering::Acquire);
        let hooks =
            is_due || std::mem::replace(&mut self.path.hook_changes_seen, hook_changes) != hook_changes;
        self.path.are_devices_unchecked = false;
        let attached = attachments(&slaves);
        let of_port = Filters {
            at: At::Port,
            device: port.clone(),
            ifindex: self.host.port(),
            names: self.data_plane.filters(None),
        };
        let filters = slaves.iter().map(|slave| Filters {
            at: At::Slave(slave.slot),
            device: slave.name.clone(),
            ifindex: slave.ifindex,
            names: self.data_plane.filters(Some(slave.slot)),
        });
        let filters = [of_port].into_iter().chain(filters).filter(|filters| !filters.names.is_empty());
        Some(Question {
            bond: self.bond.clone(),
            devices: self.devices.clone(),
            hook: self.data_plane.hook(),
            watched: self.data_plane.watched(&self.port(&port, bond.as_deref()), &attached),
            filters: filters.collect(),
            wanted: devices.then(|| self.wanted_devices(&port, bond.as_deref(), &slaves)),
            hooks: hooks.then(|| slaves.clone()),
            host: bond.map(|name| (self.host.device(), name)),
        })
    }

    /// The names of the port and of bond0, where that is in this network namespace.
    fn ends(&self) -> Option<(String, Option<String>)> {
        let bond = match self.host {
            // Another interface of that number would have another name.
            Host::Pair { bond, .. } => self.devices.name_of(bond).filter(|name| *name == self.device_name),
            Host::Port { .. } => None,
        };
        Some((self.devices.name_of(self.host.port())?, bond))
    }

    fn port<'a>(&self, device: &'a str, bond: Option<&'a str>) -> Port<'a> {
        let netkit = match self.host {
            Host::Pair { bond, .. } if self.mirror.bond().has(BondEntry::NETKIT) => Some(bond),
            Host::Pair { .. } | Host::Port { .. } => None,
        };
        Port { device, ifindex: self.host.port(), netkit, bond }
    }

    /// Slaves whose devices are in this network namespace. What became of others comes as a link event.
    fn to_check(&self) -> Vec<Checked> {
        let named = |(&slot, slave): (&Slot, &SlaveDevice)| {
            let name = self.devices.name_of(slave.ifindex)?;
            Some(Checked { slot, name, ifindex: slave.ifindex })
        };
        self.slaves.iter().filter_map(named).collect()
    }

    /// How the bond needs its devices: what `sys::enslave`, `take_port` and `make_pair` have set, and what the worker
    /// has changed since.
    fn wanted_devices(&self, port: &str, bond: Option<&str>, slaves: &[Checked]) -> Vec<Wanted> {
        let own = || vec![LinkSetting::Allmulti(true), LinkSetting::AddrGenMode(In6AddrGenMode::None)];
        let wanted = |ifindex, name: &str, role, settings| Wanted {
            ifindex,
            name: name.to_owned(),
            role,
            settings,
            unicast: Vec::new(),
            first_queue: false,
        };
        let mut of_port = vec![LinkSetting::Up(self.carrier)];
        let role = match self.host {
            Host::Pair { .. } => {
                of_port.extend([LinkSetting::Mtu(self.mtu), LinkSetting::AddrGenMode(In6AddrGenMode::None)]);
                Role::Port
            }
            // It has the MTU that its owner gives it, which is the bond's.
            Host::Port { .. } => {
                of_port.extend(own());
                of_port.push(LinkSetting::Promisc(true));
                Role::Slave
            }
        };
        let mut devices = vec![wanted(self.host.port(), port, role, of_port)];
        if let Some(bond) = bond {
            let first_queue = self.mirror.bond().has(BondEntry::QUEUE_IDS);
            let device = wanted(self.host.device(), bond, Role::Bond, Vec::new());
            devices.push(Wanted { first_queue, ..device });
        }
        for slave in slaves {
            let mut settings = vec![LinkSetting::Mtu(self.mtu)];
            settings.extend(own());
            settings.extend(Some(LinkSetting::Promisc(true)).filter(|_| self.host.promisc()));
            let unicast = self.further_macs.clone();
            devices.push(Wanted { unicast, ..wanted(slave.ifindex, &slave.name, Role::Slave, settings) });
        }
        devices
    }

    /// Restores what was found wrong, and still is, and records it.
    pub(super) async fn repair_path(&mut self, seen: PathReading) {
        self.path.is_asked = false;
        let PathReading { programs, filters, wrong, unknown, ahead, of_devices, hooked } = seen;
        let mut found = Vec::new();
        if let Some((port, bond)) = self.ends() {
            let slaves = self.to_check();
            found.extend(self.repair_programs((&port, bond.as_deref()), &slaves, programs));
            found.extend(self.repair_filters((&port, bond.as_deref()), &slaves, &filters).await);
            if let Some(wrong) = wrong {
                let mut of_wrong = Vec::new();
                let wanted = self.wanted_devices(&port, bond.as_deref(), &slaves);
                for wanted in wanted.iter().filter(|wanted| wrong.contains(&wanted.ifindex)) {
                    of_wrong.extend(self.repair_device(wanted).await);
                }
                self.path.device_faults =
                    of_wrong.iter().filter(|(_, repair)| *repair != Repair::Done).cloned().collect();
                found.extend(of_wrong);
            }
        }
        let unknown = unknown.into_iter();
        found.extend(unknown.map(|(what, why)| (PathFault::Unknown { what, why }, Repair::None)));
        self.recording.add(Entry::Path(Part::Devices, found));
        self.path.notes.ahead = ahead;
        if let Some(of_devices) = of_devices {
            self.path.notes.of_devices = of_devices;
        }
        if let Some(hooked) = hooked {
            self.path.notes.hooked = hooked;
        }
        self.recording.add(Entry::Notes { all: self.path.notes.all(), logged: false });
    }

    fn repair_programs(
        &mut self,
        (port, bond): (&str, Option<&str>),
        slaves: &[Checked],
        programs: Vec<(Watched, AtHook)>,
    ) -> Vec<Found> {
        let (mut found, mut repaired) = (Vec::new(), HashSet::new());
        // Of those that were attached again since, nothing is known.
        let programs: Vec<_> =
            programs.into_iter().filter(|(watched, _)| self.data_plane.is_current(watched)).collect();
        for (watched, at_hook) in programs {
            // Those of one place are attached again together.
            if !repaired.insert(watched.at) {
                continue;
            }
            let Some(repair) = self.reattach(watched.at, (port, bond), slaves) else { continue };
            let device = watched.device;
            let fault = match at_hook {
                AtHook::Replaced => PathFault::Replaced { device },
                AtHook::Detached | AtHook::Yes => PathFault::Detached { device },
            };
            found.push((fault, repair));
        }
        found
    }

    /// None if its device is gone.
    fn reattach(&mut self, at: At, (port, bond): (&str, Option<&str>), slaves: &[Checked]) -> Option<Repair> {
        let port = self.port(port, bond);
        let plane = &mut self.data_plane;
        Some(match at {
            At::Port => outcome(waiting(|| plane.reattach_port(&port))),
            At::Ends => outcome(waiting(|| plane.reattach_ends(&port))),
            At::Slave(slot) => {
                let slaves = attachments(slaves);
                let slave = slaves.iter().find(|slave| slave.slot == slot)?;
                outcome(waiting(|| plane.reattach_slave(slave)))
            }
        })
    }

    async fn repair_filters(
        &mut self,
        (port, bond): (&str, Option<&str>),
        slaves: &[Checked],
        missing: &[At],
    ) -> Vec<Found> {
        let mut found = Vec::new();
        for &at in missing {
            let (of, device, ifindex) = match at {
                At::Port => (None, port, self.host.port()),
                At::Slave(slot) => match slaves.iter().find(|slave| slave.slot == slot) {
                    Some(slave) => (Some(slot), slave.name.as_str(), slave.ifindex),
                    None => continue,
                },
                At::Ends => continue,
            };
            let filters =
                Filters { at, device: device.to_owned(), ifindex, names: self.data_plane.filters(of) };
            if filters.are_there(&*self.devices).await == Ok(false)
                && let Some(repair) = self.reattach(at, (port, bond), slaves)
            {
                found.push((PathFault::Detached { device: device.to_owned() }, repair));
            }
        }
        found
    }

    async fn repair_device(&self, wanted: &Wanted) -> Vec<Found> {
        let devices = &*self.devices;
        let link = match devices.link_by_index(wanted.ifindex).await {
            Ok(link) => link,
            Err(error) => return unreadable(&wanted.name, &error),
        };
        let mut found = Vec::new();
        for setting in wanted.settings.iter().filter(|setting| !setting.holds(&link)) {
            let answer = match *setting {
                LinkSetting::Mtu(mtu) if wanted.role != Role::Bond => {
                    devices.set_mtu_of_member(wanted.ifindex, mtu).await
                }
                LinkSetting::AddrGenMode(In6AddrGenMode::None) => devices.clear_ipv6(wanted.ifindex).await,
                other => devices.set(wanted.ifindex, other).await,
            };
            let repair = outcome(answer);
            found.push((fault_of(&link, setting), repair));
        }
        found.extend(self.repair_features(&link, wanted.role).await);
        found.extend(self.repair_unicast(&link, wanted).await);
        if wanted.first_queue && waiting(|| devices.sends_by_first_queue(&link.name)) == Some(false) {
            let fault = setting(&link.name, wording::FIRST_QUEUE);
            found.push((fault, outcome(waiting(|| devices.send_by_first_queue(&link.name)))));
        }
        found
    }

    /// Offloads without which packets would be lost or broken.
    async fn repair_features(&self, link: &LinkInfo, role: Role) -> Vec<Found> {
        let (devices, hook) = (&*self.devices, self.data_plane.hook());
        if offload::prepare(role, hook).is_empty() {
            return Vec::new();
        }
        let features = match waiting(|| devices.features(link.ifindex)) {
            Ok(features) => features,
            Err(error) => return unreadable(&link.name, &error),
        };
        let mut found = Vec::new();
        if needs_promisc(&features, role, hook) && !LinkSetting::Promisc(true).holds(link) {
            let wanted = LinkSetting::Promisc(true);
            let fault = fault_of(link, &wanted);
            found.push((fault, outcome(self.devices.set(link.ifindex, wanted).await)));
        }
        let wrong: Vec<_> = wrong_features(&features, role, hook).collect();
        if !wrong.is_empty() {
            let repair = outcome(waiting(|| offload::apply(devices, link, role, hook)));
            let fault = |change: &&offload::FeatureChange| {
                setting(&link.name, wording::feature_wanted(change.name, change.on))
            };
            found.extend(wrong.iter().map(|change| (fault(change), repair.clone())));
        }
        found
    }

    async fn repair_unicast(&self, link: &LinkInfo, wanted: &Wanted) -> Vec<Found> {
        let devices = &*self.devices;
        let missing = match missing_unicast(devices, link, wanted).await {
            Ok(missing) => missing,
            Err(error) => return unreadable(&link.name, &error),
        };
        let mut found = Vec::new();
        for mac in missing {
            let answer = match devices.add_unicast(link.ifindex, mac).await {
                // As when it was enslaved.
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                    devices.set(link.ifindex, LinkSetting::Promisc(true)).await.map(drop)
                }
                answer => answer,
            };
            found.push((setting(&link.name, wording::unicast_wanted(mac)), outcome(answer)));
        }
        found
    }
}

fn attachments(slaves: &[Checked]) -> Vec<Attachment<'_>> {
    fn attachment(slave: &Checked) -> Attachment<'_> {
        Attachment { slot: slave.slot, device: &slave.name, ifindex: slave.ifindex }
    }
    slaves.iter().map(attachment).collect()
}

fn fault_of(link: &LinkInfo, wanted: &LinkSetting) -> PathFault {
    match wanted {
        LinkSetting::Up(_) => PathFault::Carrier { device: link.name.clone(), up: link.is_up() },
        wanted => setting(&link.name, wanted.to_string()),
    }
}

fn setting(device: &str, wanted: impl Into<String>) -> PathFault {
    PathFault::Setting { device: device.to_owned(), wanted: wanted.into() }
}

fn outcome<T, E: std::fmt::Display>(result: Result<T, E>) -> Repair {
    match result {
        Ok(_) => Repair::Done,
        Err(error) => Repair::Failed(error.to_string()),
    }
}

/// A device that is gone is no fault here: a link event reports it.
fn unreadable(what: &str, error: &SysError) -> Vec<Found> {
    if error.is_gone() {
        return Vec::new();
    }
    vec![(PathFault::Unknown { what: what.to_owned(), why: error.to_string() }, Repair::None)]
}
