//! Reports bonds that no agent manages, from their maps, netlink and found.json.

use std::collections::BTreeSet;

use bond_common::{
    abi::{ABI_ADOPTED, ABI_VERSION, ActiveWord, BondEntry, FailOverMac, PORT_STATS, SlaveEntry, Slot},
    clock::layout::ClockEntry,
};
use bond_core::{
    Time,
    command::{Chosen, Reason, Trigger},
    name::{BondName, shell_word},
    options::Named as _,
    status::SlaveState,
};

use crate::{
    report::{
        counted::{Counted, count, softnet},
        json::{self, AnswerSource, Bond, Counters, Report, Slave, Ticks, VERSION},
        misdirected,
        moment::{Moment, monotonic},
        path,
        receipt::{self, Receipt, SilentPath, Steps},
        unrecorded::Unrecorded,
        wording::{self, FailsOver, PathFault, PathNote},
    },
    store::{
        StoreError,
        drains::{Drain, DrainedSlave, Drains},
        paths::Paths,
        receipts,
        record::Record,
    },
    sys::{
        Devices, KernelDevices,
        dataplane::{self, Attachment, Fault, Maps, Port},
        directory::{Location, Trust},
        netlink::{LinkInfo, PairKind},
    },
};

/// Returns the bonds that are pinned in this network namespace, by name.
pub fn names(paths: &Paths) -> BTreeSet<BondName> {
    paths.bonds().into_iter().filter(|name| paths.is_pinned(name)).collect()
}

/// Reports one of them, or all. `no_answer` says why an agent that lives is not asked.
///
/// # Errors
/// There is no bond of that name, or its maps have another version.
pub async fn report(
    paths: &Paths,
    only: Option<&BondName>,
    no_answer: Option<String>,
) -> Result<Report, StoreError> {
    let names = names(paths);
    if let Some(name) = only
        && !names.contains(name)
    {
        return Err(StoreError::NothingLeft(name.to_string()));
    }
    let devices = KernelDevices::open()?;
    let mut notes = Vec::new();
    let mut bonds = Vec::new();
    for name in names.iter().filter(|name| only.is_none_or(|only| only == *name)) {
        match bond(paths, name, &devices, &mut notes).await {
            Ok(bond) => bonds.push(bond),
            Err(error @ StoreError::OtherMaps { .. }) if only.is_some() => return Err(error),
            // The agent may be creating or removing it at this moment.
            Err(error) if no_answer.is_some() => notes.push(wording::of_bond(name, error.to_string())),
            Err(error) => {
                let error = wording::of_bond(name, error.to_string());
                notes.push(format!(
                    "{error}; to remove what is left of it: xbond down {} --force",
                    shell_word(name)
                ));
            }
        }
    }
    Ok(Report {
        version: VERSION,
        source: AnswerSource::Maps,
        moment: Moment::now(),
        agent: None,
        no_answer,
        softnet: softnet(&mut notes),
        notes,
        bonds,
        orphaned: Vec::new(),
        gone: Vec::new(),
        missing: Vec::new(),
    })
}

/// What is left of a bond without an agent: its maps, its record and its interfaces.
struct Remains<'a> {
    name: &'a BondName,
    pins: Location,
    maps: Maps,
    entry: BondEntry,
    record: Option<Record>,
    /// Why there is no record, if it could not be read.
    fault: Option<String>,
    links: Vec<LinkInfo>,
    /// The drained slaves of all bonds.
    drains: Vec<Drain>,
    /// The slots with a slave.
    used: Vec<(Slot, SlaveEntry)>,
}

impl<'a> Remains<'a> {
    async fn read(paths: &Paths, name: &'a BondName, devices: &dyn Devices) -> Result<Self, StoreError> {
        let pins = paths.pins_of(name);
        let maps = Maps::open(&pins)?;
        let entry = maps.bond();
        if !(ABI_ADOPTED..=ABI_VERSION).contains(&entry.abi_version()) {
            return Err(StoreError::OtherMaps { bond: name.to_string(), found: entry.abi_version() });
        }
        let (record, fault) = match Record::read(paths, name, Trust::Anyones) {
            Ok(record) => (record, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let links = devices.links(None).await?;
        // A file that cannot be read drains nothing.
        let drains = Drains::read(paths, Trust::Anyones).unwrap_or_default();
        let used = Slot::all().map(|slot| (slot, maps.slave(slot)));
        let used = used.filter(|(_, slave)| slave.ifindex() != 0).collect();
        Ok(Self { name, pins, maps, entry, record, fault, links, drains, used })
    }

    fn link(&self, ifindex: u32) -> Option<&LinkInfo> {
        self.links.iter().find(|link| link.ifindex == ifindex)
    }

    fn host(&self) -> Option<&LinkInfo> {
        let pair = self.record.as_ref().and_then(Record::pair);
        pair.and_then(|pair| self.links.iter().find(|link| pair.is_bond(link)))
    }

    fn port(&self) -> Option<&LinkInfo> {
        self.link(self.entry.port_ifindex())
    }

    /// Returns the ifindexes of the bond, its port and its slaves.
    fn interfaces(&self) -> Vec<u32> {
        let pair = self.host().map(|host| host.ifindex).into_iter().chain([self.entry.port_ifindex()]);
        pair.chain(self.used.iter().map(|(_, slave)| slave.ifindex())).collect()
    }

    fn slaves(&self, devices: &dyn Devices, active: ActiveWord) -> Result<Vec<Slave>, StoreError> {
        let slave = |(slot, entry): &(Slot, SlaveEntry)| {
            let is_active = active.active() == Some(*slot);
            let state = if is_active { SlaveState::Active } else { SlaveState::Backup };
            self.slave(*slot, entry, state, devices)
        };
        self.used.iter().map(slave).collect()
    }

    fn slave(
        &self,
        slot: Slot,
        entry: &SlaveEntry,
        state: SlaveState,
        devices: &dyn Devices,
    ) -> Result<Slave, StoreError> {
        let found = self.record.as_ref().and_then(|record| record.slave(entry.ifindex()));
        let now = self.link(entry.ifindex());
        let (speed, duplex) = devices.speed(entry.ifindex());
        let name = now.map(|link| link.name.clone()).or_else(|| found.map(|found| found.name.clone()));
        let mut warnings = Vec::new();
        let name = name.unwrap_or_else(|| wording::nameless(entry.ifindex()));
        if now.is_none() {
            warnings.push(wording::slave_missing(&name));
        }
        let known = DrainedSlave { bond: self.name, name: &name, ifindex: entry.ifindex() };
        let name_of = |ifindex| Some(self.link(ifindex)?.name.clone());
        let drained = self.drains.iter().find(|drain| drain.is_of(&known, name_of)).map(Drain::report);
        Ok(Slave {
            ifindex: entry.ifindex(),
            slot: slot.index() as u8,
            state: state.to_string(),
            mii_status: if self.is_up(slot, now) { "up" } else { "down" }.to_owned(),
            mac: now.map_or(entry.permanent_mac(), |link| link.mac).to_string(),
            wire_mac: entry.wire_mac().to_string(),
            permanent_mac: entry.permanent_mac().to_string(),
            link_failure_count: Some(entry.link_failure_count()),
            speed: json::speed(speed),
            duplex: json::duplex(duplex),
            drained,
            damped: false,
            damping: None,
            path: path::of_slave(&self.maps, slot),
            prio: None,
            queue_id: entry.queue_id(),
            counters: Counters::new(&self.maps.stats(slot.index() as u32)?, self.maps.misdirected(slot)),
            found: found.map(json::OriginalState::from),
            no_unicast: false,
            warnings,
            name,
        })
    }

    /// Returns whether a slave is up: it has a link, and the ARP monitor, where it is on, gets answers.
    fn is_up(&self, slot: Slot, link: Option<&LinkInfo>) -> bool {
        let is_silent = self.entry.has(BondEntry::MONITOR) && self.maps.active().usable() & slot.bit() == 0;
        link.is_some_and(LinkInfo::has_link) && !is_silent
    }

    /// Returns a sentence for each fault that an agent would repair, and for each that none repairs.
    fn warnings(&self, slaves: &[Slave], path_faults: &[String]) -> Vec<String> {
        let name = self.name;
        let mut warnings: Vec<_> = without_failover(name, slaves, self.by_itself()).into_iter().collect();
        if self.record.is_none() {
            warnings.push(wording::unadoptable(name, self.fault.as_deref()));
        }
        let trial = self.record.as_ref().and_then(Record::trial);
        warnings.extend(trial.map(|trial| wording::on_trial(name, trial.left())));
        if self.port().is_none() {
            warnings.push(wording::without_port(name));
        }
        for lost in dataplane::lost_programs(&self.pins, self.used.iter().map(|(slot, _)| *slot)) {
            warnings.push(wording::pin_lost(name, &lost));
        }
        warnings.extend(self.standing_clock());
        warnings.extend(self.clock_off());
        warnings.extend(misdirected::left_out(name, &self.maps));
        warnings.extend(path_faults.iter().cloned());
        warnings.extend(misdirected::warnings(name, &self.maps, |slot| name_in(slaves, Some(slot))));
        warnings.extend(self.host_warnings());
        warnings
    }

    /// Returns the parts of the data plane that fail over.
    fn by_itself(&self) -> FailsOver {
        let clock = self.maps.clock().is_some_and(|maps| {
            let (clock, ticks) = (maps.entry(), maps.ticks());
            let decides = clock.has(ClockEntry::LINKS) || maps.monitor().is_ready();
            decides && wording::clock_ticks(&clock, &ticks, monotonic())
        });
        FailsOver { guard: self.entry.has(BondEntry::GUARD), clock }
    }

    fn ticks(&self) -> Option<Ticks> {
        let ends = self.record.as_ref().and_then(Record::clock).and_then(|clock| clock.ends);
        let name = |ifindex| self.link(ifindex).map(|link| link.name.clone());
        let devices = ends.map(|ends| [ends.sender, ends.receiver].into_iter().filter_map(name).collect());
        Some(Ticks::read(self.maps.clock()?, devices.unwrap_or_default(), monotonic()))
    }

    /// Returns the warning about a clock that stands still.
    fn standing_clock(&self) -> Option<String> {
        let clock = self.maps.clock()?;
        let (entry, ticks) = (clock.entry(), clock.ticks());
        let stands = entry.period > 0 && !wording::clock_ticks(&entry, &ticks, monotonic());
        stands.then(|| wording::clock_stands(self.name, &clock_text(&self.maps)))
    }

    /// Returns the warning about a bond without a clock.
    fn clock_off(&self) -> Option<String> {
        let is_off = self.maps.clock().is_none_or(|clock| clock.entry().period == 0);
        is_off.then(|| wording::clock_off(self.name, self.entry.has(BondEntry::GUARD)))
    }

    /// Returns the warnings about the bond's own interface.
    fn host_warnings(&self) -> Vec<String> {
        let Some(host) = self.host() else { return Vec::new() };
        let name = self.name;
        let mut warnings = Vec::new();
        if !host.is_up() {
            warnings.push(format!("{name}: {}", PathNote::BondDown { device: host.name.clone() }));
        }
        if !self.entry.has(BondEntry::HOST_MAC_MOVES) && host.mac != self.entry.host_mac() {
            warnings.push(wording::host_mac_changed(name, host.mac, self.entry.host_mac()));
        }
        warnings
    }
}

async fn bond(
    paths: &Paths,
    name: &BondName,
    devices: &dyn Devices,
    notes: &mut Vec<String>,
) -> Result<Bond, StoreError> {
    let remains = Remains::read(paths, name, devices).await?;
    let Remains { pins, maps, entry, record, .. } = &remains;
    let (host, port, active) = (remains.host(), remains.port(), maps.active());
    let all = remains.interfaces();
    let counted = count(devices, &all, notes).await;
    let slaves = remains.slaves(devices, active)?;
    let directory = paths.run_of(name);
    let path_faults = path_faults(name, pins, port, host, &slaves);
    let known = receipts::read(&directory, Trust::Anyones).ok().and_then(|mut receipts| receipts.pop());
    let last_failover = known
        .into_iter()
        .chain(unrecorded_failover(name, maps, &slaves))
        .max_by_key(|receipt| receipt.switched.monotonic_us);
    let has_pair = record.as_ref().and_then(Record::pair).is_some();
    let guard = entry.has(BondEntry::GUARD);
    Ok(Bond {
        name: name.to_string(),
        ifindex: host.map(|host| host.ifindex),
        active_slave: name_in(&slaves, active.active()),
        draining_slave: name_in(&slaves, active.draining()),
        generation: active.generation(),
        mac: host.map_or(entry.host_mac(), |host| host.mac).to_string(),
        host_mac: json::known(entry.host_mac()),
        host_mac_stays: entry.has(BondEntry::HOST_MAC_STAYS),
        carrier: port.is_some_and(LinkInfo::is_up),
        datapath: dataplane::pinned_hook(pins).map(|hook| hook.to_string()).unwrap_or_default(),
        pair: port.filter(|_| has_pair).and_then(LinkInfo::pair).map(|kind| kind.to_string()),
        port: port.map_or_else(|| wording::nameless(entry.port_ifindex()), |port| port.name.clone()),
        port_ifindex: entry.port_ifindex(),
        guard: if guard { "on".to_owned() } else { format!("off: {}", wording::LEFT_OFF) },
        clock: clock_text(maps),
        ticks: remains.ticks(),
        path: path::monitor(maps, None),
        mtu: mtu(&counted, host.map(|host| host.ifindex), entry.port_ifindex()),
        on_exit: None,
        pins: paths.shown_pins_of(name).display().to_string(),
        files: directory.path().display().to_string(),
        options: options(*entry),
        drops: json::drops(&maps.stats(PORT_STATS)?),
        warnings: remains.warnings(&slaves, &path_faults),
        slaves,
        absent: Vec::new(),
        addresses_of: record.as_ref().and_then(Record::released_giver).map(|found| found.name.clone()),
        failovers: Default::default(),
        unrecorded_changes: 0,
        path_restored: 0,
        path_faults,
        last_failover,
        devices: all.iter().filter_map(|device| Some(counted.get(device)?.device.clone())).collect(),
    })
}

/// Returns the programs and maps that another process has changed; no agent restores them.
fn path_faults(
    bond: &str,
    pins: &Location,
    port: Option<&LinkInfo>,
    host: Option<&LinkInfo>,
    slaves: &[Slave],
) -> Vec<String> {
    let Some(port) = port else { return Vec::new() };
    let is_netkit = port.pair() == Some(PairKind::Netkit);
    let netkit = host.filter(|_| is_netkit).map(|host| host.ifindex);
    let bond_device = host.map(|host| host.name.as_str());
    let port = Port { device: &port.name, ifindex: port.ifindex, netkit, bond: bond_device };
    let attached = |slave: &Slave| {
        let slot = Slot::new(slave.slot)?;
        Some((slot, slave.name.clone(), slave.ifindex))
    };
    let attached: Vec<_> = slaves.iter().filter_map(attached).collect();
    let attached: Vec<_> = attached
        .iter()
        .map(|(slot, device, ifindex)| Attachment { slot: *slot, device, ifindex: *ifindex })
        .collect();
    let faults = dataplane::faults(pins, &port, &attached).into_iter();
    let sentence = |fault| match fault {
        Fault::Detached { device } => PathFault::Detached { device },
        Fault::Replaced { device } => PathFault::Replaced { device },
        Fault::DeviceMap { map, key } => PathFault::DeviceMap { map, key },
        Fault::Unknown { what, why } => PathFault::Unknown { what, why },
    };
    faults.map(sentence).map(|fault| format!("{bond}: {fault}")).collect()
}

fn clock_text(maps: &Maps) -> String {
    match maps.clock() {
        Some(maps) => wording::clock(&maps.entry(), &maps.ticks(), None, monotonic()),
        None => wording::NO_CLOCK_MAPS.to_owned(),
    }
}

/// Returns warnings about an active slave without a link, for which no failover happens without an agent.
fn without_failover(bond: &str, slaves: &[Slave], by_itself: FailsOver) -> Option<String> {
    let up: Vec<_> =
        slaves.iter().filter(|slave| slave.mii_status == "up").map(|slave| slave.name.as_str()).collect();
    match slaves.iter().find(|slave| slave.state == SlaveState::Active.to_string()) {
        None => Some(wording::no_active_slave(bond, &up, by_itself)),
        Some(active) if active.mii_status == "up" => None,
        Some(active) => Some(wording::dead_active_slave(bond, &active.name, up.is_empty(), by_itself)),
    }
}

/// Returns how many failovers no agent has recorded yet; `None` if the bond's maps cannot be read.
pub fn unrecorded_failovers(paths: &Paths, bond: &BondName) -> Option<Unrecorded> {
    let maps = Maps::open(&paths.pins_of(bond)).ok()?;
    Some(Unrecorded::between(maps.guard().known(), maps.active()))
}

/// Returns the name of the slave in a slot.
fn name_in(slaves: &[Slave], slot: Option<Slot>) -> Option<String> {
    let slot = slot?.index();
    slaves.iter().find(|slave| usize::from(slave.slot) == slot).map(|slave| slave.name.clone())
}

/// Returns the last failover of the data plane, if no agent was notified of it.
fn unrecorded_failover(bond: &str, maps: &Maps, slaves: &[Slave]) -> Option<Receipt> {
    let (guard, word) = (maps.guard(), maps.active());
    let switched = Time::from_nanos(guard.switched_at());
    // The next agent records those in between.
    let is_only = word.changes_since(guard.known()) == Some(1);
    let from = name_in(slaves, guard.known().active()).filter(|_| is_only);
    // A tick notes its failovers where the guard does, too.
    let by_tick = maps.clock().is_some_and(|clock| clock.ticks().switched_at == guard.switched_at());
    let by_path =
        maps.clock().is_some_and(|clock| clock.path().state().failed_changed == guard.switched_at());
    let (reason, seen) = if by_tick && by_path {
        (Reason::Path, Trigger::Path)
    } else if by_tick {
        (reason_of_tick(slaves, from.as_deref(), word.active()), Trigger::Tick)
    } else {
        (Reason::CarrierGuard, Trigger::Guard)
    };
    (guard.known() != word && !switched.is_zero()).then(|| Receipt {
        version: receipt::VERSION,
        bond: bond.to_owned(),
        switched: Moment::at(switched),
        generation: word.generation(),
        from,
        to: name_in(slaves, word.active()),
        reason,
        seen,
        chosen: word.active().map(|_| Chosen::Guard),
        steps: Steps::default(),
        drops: None,
        announced: None,
        peers: None,
        path: guard
            .known()
            .active()
            .and_then(|slot| SilentPath::read(maps, slot))
            .filter(|_| by_path)
            .map(Box::new),
        unrecorded: 0,
    })
}

/// Returns why a tick made `to` active instead of `from`; the record with its own reason is for the next agent.
fn reason_of_tick(slaves: &[Slave], from: Option<&str>, to: Option<Slot>) -> Reason {
    let is_up = |slave: &Slave| Some(slave.name.as_str()) == from && slave.mii_status == "up";
    if to.is_some() && slaves.iter().any(is_up) { Reason::LinkRecovered } else { Reason::LinkFailed }
}

fn mtu(counted: &Counted, host: Option<u32>, port: u32) -> Option<u32> {
    host.and_then(|host| counted.get(&host)).or(counted.get(&port)).map(|counted| counted.mtu)
}

/// Returns the options that packets read.
fn options(entry: BondEntry) -> serde_json::Map<String, serde_json::Value> {
    let policy: FailOverMac = entry.policy();
    let all = u8::from(entry.has(BondEntry::ALL_SLAVES_ACTIVE));
    [("fail_over_mac", policy.name().into()), ("all_slaves_active", all.into())]
        .map(|(key, value): (&str, serde_json::Value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}
