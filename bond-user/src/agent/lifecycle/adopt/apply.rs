//! Taking a bond over: its programs are replaced without a packet in between, and its engine completes what the former agent
//! may have left unfinished.

use bond_common::abi::Slot;
use bond_core::{LeftSlave, OrphanState, event::Link, options::SlaveOptions};
use tokio::sync::oneshot;

use super::{
    identity::{AdoptedIdentity, identity, missed},
    observe::{AdoptFacts, LeftPins},
    plan::{AdoptStep, Takeover},
};
use crate::{
    agent::{
        AgentError,
        bond::{engine_handle::BondId, interface::Host, work::End},
        lifecycle::{
            DEFAULT_MTU, configured,
            create::Created,
            join::{self, Joining},
            machine::Machine,
            port::port_of,
            slaves::Wanted,
            start::{self, Plane, Started, Taken},
        },
    },
    api::MissingSlaves,
    config::BondConfig,
    report::{
        log,
        wording::{self, PathFault, Repair},
    },
    store::{
        StoreError,
        drains::DrainedSlave,
        record::{Configured, Ends, Record},
    },
    sys::{
        announcer::{self, Announced},
        dataplane::{Attachment, DataPlane, Maps, Replaced},
        enslave::RestoreOutcome,
        found::Found,
        netlink::{Interfaces, LinkEvent, LinkInfo, LinkSetting},
    },
};

/// Takes the bond of this plan over.
///
/// # Errors
/// It could not be taken over: the bond keeps running, without an agent.
pub async fn apply(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    adoption: Takeover,
    observed: AdoptFacts,
    missing: MissingSlaves,
) -> Result<Created, AgentError> {
    let (Some(record), LeftPins::Whole(maps, seen)) = (observed.record, observed.pinned) else {
        // The plan of such a bond is to remove it.
        return Err(StoreError::NothingLeft(config.name.to_string()).into());
    };
    let (record, data_plane) = open(machine, config, &adoption, record)?;
    let mut taking = Taking {
        machine,
        config,
        adoption: &adoption,
        record,
        data_plane,
        maps,
        slaves: Vec::new(),
        gone: Vec::new(),
    };
    for step in &adoption.steps {
        if let Err(error) = taking.take(step).await {
            // Its programs stay at their hooks, filters included.
            taking.data_plane.keep();
            return Err(error);
        }
    }
    let (plane, rest) = taking.taken(seen.host_device).await;
    let maps = plane.data_plane.mirror().maps().clone();
    let started = start::start(machine, id, config, plane)?;
    match complete(machine, (config, id), &adoption, &started, rest, missing).await {
        Ok(wanted) => {
            let Takeover { hook, queues, host, made_of: pair, port, .. } = adoption;
            Ok(Created { hook, queues, host, pair, port: port.name, maps, started, wanted })
        }
        Err(error) => {
            let_go(machine, id, &started).await;
            Err(error)
        }
    }
}

/// Leaves a bond that has its engine already to the data plane again.
async fn let_go(machine: &Machine, id: BondId, started: &Started) {
    machine.engine.remove(id);
    let (reply, kept) = oneshot::channel();
    started.work.end(End::Keep { reply });
    let _ = kept.await;
    if let Some(task) = machine.tasks.take(id) {
        let _ = task.await;
    }
}

/// A record that cannot be written stays: it says more than is left, never less.
fn as_recorded(config: &BondConfig, answer: Result<(), StoreError>) {
    if let Err(error) = answer {
        log::of(&config.name).warn(wording::record_unchanged(&error));
    }
}

/// Takes found.json and the maps over, and replaces the port's program.
fn open(
    machine: &Machine,
    config: &BondConfig,
    adoption: &Takeover,
    mut record: Record,
) -> Result<(Record, Box<dyn DataPlane>), AgentError> {
    let Takeover { hook, host, made_of, port, bond, .. } = adoption;
    // First: what is written below has room then, on a file system that is full by now as well.
    as_recorded(config, record.save());
    if let (Host::Pair { bond, port, .. }, Some(_)) = (*host, made_of) {
        as_recorded(config, record.made(Ends { bond, port }));
    }
    let mut data_plane = machine.planes.adopt(&machine.paths.pins_of(&config.name), *hook)?;
    let bond_name = bond.as_ref().map(|bond| bond.name.as_str());
    if data_plane.replace_port(&port_of(&port.name, *host, *made_of, bond_name))? {
        warn_of_detached(&config.name, &port.name);
    }
    Ok((record, data_plane))
}

/// Reads what is to be announced. The bond's task reads it again; until then there may be something that is not known.
async fn announced(machine: &Machine, config: &BondConfig, adoption: &Takeover) -> Announced {
    let read = announcer::addresses_behind(&*machine.devices, adoption.port.ifindex).await;
    read.unwrap_or_else(|error| {
        log::of(&config.name).warn(wording::addresses_unread(&error));
        Announced { elsewhere: true, ..Announced::default() }
    })
}

/// A slave that was taken over.
struct Adopted {
    left: LeftSlave,
    found: Found,
    link: LinkInfo,
}

/// A bond that is being taken over, and has no engine yet.
struct Taking<'a> {
    machine: &'a Machine,
    config: &'a BondConfig,
    adoption: &'a Takeover,
    record: Record,
    data_plane: Box<dyn DataPlane>,
    maps: Box<Maps>,
    slaves: Vec<Adopted>,
    /// Names of slaves that are gone.
    gone: Vec<(Slot, String)>,
}

impl Taking<'_> {
    async fn take(&mut self, step: &AdoptStep) -> Result<(), AgentError> {
        let name = &self.config.name;
        match step {
            AdoptStep::GiveAliases => {
                let given = self.give_aliases().await;
                as_recorded(self.config, given);
                Ok(())
            }
            AdoptStep::Replace { slot, found, link } => self.replace(*slot, found, link).await,
            AdoptStep::Restore { slot, found, link } => self.restore_slave(*slot, found, link).await,
            AdoptStep::Forget { slot, ifindex, name: slave } => {
                match slave {
                    Some(slave) => {
                        log::of(name).warn(wording::slave_gone(slave));
                        let departed = self.record.depart(*ifindex);
                        as_recorded(self.config, departed);
                    }
                    None => log::of(name).info(wording::half_enslaved(ifindex)),
                }
                self.gone.extend(slave.iter().map(|slave| (*slot, slave.clone())));
                self.empty(*slot)
            }
            AdoptStep::CloseStray { found } => {
                Ok(self.machine.devices.close_to_restore(found, &self.adoption.proof).await?)
            }
            AdoptStep::Clear { slot } => Ok(self.data_plane.detach_slave(*slot)?),
            AdoptStep::RestoreStray { found } => self.restore_stray(found).await,
        }
    }

    /// What was taken over, ready for its engine.
    async fn taken(self, host_device: Option<u64>) -> (Plane, Rest) {
        let Self { machine, config, adoption, record, mut data_plane, maps, slaves, gone } = self;
        let wire = slaves.first().map(|slave| maps.slave(slave.left.slot).wire_mac());
        let found = (maps.bond(), host_device);
        let AdoptedIdentity { entry, mac, mac_assigned } = identity(machine, config, adoption, found, wire);
        data_plane.mirror().update_bond(|_| entry);
        let slot_of = |name: &str| {
            let adopted = slaves.iter().find(|slave| slave.left.name == name);
            adopted
                .map(|slave| slave.left.slot)
                .or_else(|| Some(gone.iter().find(|(_, gone)| gone == name)?.0))
        };
        let (missed, known) = missed(machine, config, &maps, &mut *data_plane, slot_of);
        let given_away = slaves.iter().map(|slave| &slave.link).filter(|link| link.master.is_some());
        let rest = Rest {
            is_any_away: !record.away().is_empty(),
            former: record.configured().clone(),
            given_away: given_away.cloned().collect(),
            joined: slaves.iter().map(|slave| (slave.left.name.clone(), slave.left.ifindex)).collect(),
        };
        let founds = slaves.iter().map(|slave| (slave.left.slot, slave.found.clone())).collect();
        let left = OrphanState {
            active: missed.word.active(),
            draining: missed.word.draining(),
            usable: missed.word.usable(),
            known_active: known.active(),
            known_usable: known.usable(),
            changes: missed.for_engine(),
            carrier: adoption.port.is_up(),
            slaves: slaves.into_iter().map(|slave| slave.left).collect(),
            gone,
        };
        let plane = Plane {
            data_plane,
            host: adoption.host,
            mtu: adoption.bond.as_ref().unwrap_or(&adoption.port).mtu,
            mac,
            mac_assigned,
            options: adoption.options.clone(),
            record,
            announced: announced(machine, config, adoption).await,
            carrier: false,
            left: Some(Taken { left, missed, founds }),
        };
        (plane, rest)
    }

    async fn replace(&mut self, slot: Slot, found: &Found, link: &LinkInfo) -> Result<(), AgentError> {
        let is_whole = match self.data_plane.replace_slave(slot, &link.name, link.ifindex)? {
            Replaced::Done => true,
            Replaced::Detached if has_stayed(found, link) => {
                self.data_plane.reattach_slave(&Attachment {
                    slot,
                    device: &link.name,
                    ifindex: link.ifindex,
                })?;
                warn_of_detached(&self.config.name, &link.name);
                true
            }
            Replaced::Detached | Replaced::Absent => false,
        };
        if !is_whole {
            return self.restore_slave(slot, found, link).await;
        }
        // Its alias may have been recorded since.
        let found = self.record.slave(found.ifindex).unwrap_or(found).clone();
        let left = left_slave(self.machine, self.config, &self.maps, slot, link);
        self.slaves.push(Adopted { left, found, link: link.clone() });
        Ok(())
    }

    async fn restore_slave(&mut self, slot: Slot, found: &Found, link: &LinkInfo) -> Result<(), AgentError> {
        let name = &self.config.name;
        log::of(name).slave(&link.name).info(wording::set_up_incomplete(&link.name));
        let found = self.record.slave(found.ifindex).unwrap_or(found).clone();
        self.machine.devices.close_to_restore(&found, &self.adoption.proof).await?;
        self.empty(slot)?;
        let restored = self.restore(&found).await;
        as_recorded(self.config, restored);
        Ok(())
    }

    /// Removes what is in a slot.
    fn empty(&mut self, slot: Slot) -> Result<(), AgentError> {
        self.data_plane.detach_slave(slot)?;
        self.data_plane.mirror().clear_slave(slot);
        Ok(())
    }

    async fn restore_stray(&mut self, found: &Found) -> Result<(), AgentError> {
        let there = self.machine.devices.find(found).await?;
        if let Some(link) = there.filter(|link| self.adoption.proof.holds(link)) {
            log::of(&self.config.name).slave(&link.name).info(wording::in_no_slot(&link.name));
            self.data_plane.detach_filters(&link.name);
        }
        let restored = self.restore(found).await;
        as_recorded(self.config, restored);
        Ok(())
    }

    /// Restores an interface, if it is the bond's. Of one that is not restored it stays on record how it was found.
    async fn restore(&mut self, found: &Found) -> Result<(), StoreError> {
        let (bond, record) = (&self.config.name, &mut self.record);
        match self.machine.devices.restore(found, &self.adoption.proof).await {
            Ok(RestoreOutcome::Done | RestoreOutcome::Gone) => record.remove(found.ifindex),
            Ok(RestoreOutcome::Unconfirmed(link)) => {
                log::of(bond).warn(wording::unconfirmed(bond, &link.name));
                if link.looks_enslaved { record.depart(found.ifindex) } else { record.remove(found.ifindex) }
            }
            Err(error) => {
                log::of(bond).slave(&found.name).warn(format_args!(
                    "{}: {}",
                    found.name,
                    wording::not_restored_yet(&error)
                ));
                record.depart(found.ifindex)
            }
        }
    }

    /// Gives the devices of a bond that an xbond without aliases has made its alias. What they had is recorded first.
    async fn give_aliases(&mut self) -> Result<(), StoreError> {
        let slaves = self.adoption.steps.iter().filter_map(|step| match step {
            AdoptStep::Replace { link, .. } | AdoptStep::Restore { link, .. } => Some(&**link),
            _ => None,
        });
        let links: Vec<_> = slaves.chain([&self.adoption.port]).chain(&self.adoption.bond).collect();
        self.record
            .set_aliases(|ifindex| links.iter().find(|link| link.ifindex == ifindex)?.alias.clone())?;
        for link in links {
            self.machine.devices.set_alias(link.ifindex, Some(self.record.mark().alias())).await?;
        }
        Ok(())
    }
}

/// What is still to be done when the engine has started.
struct Rest {
    is_any_away: bool,
    /// What a former configuration has set on bond0.
    former: Configured,
    /// Slaves that another process has made ports of something.
    given_away: Vec<LinkInfo>,
    joined: Vec<(String, u32)>,
}

/// Makes the bond what its configuration says. Returns the slaves of its file.
async fn complete(
    machine: &Machine,
    (config, id): (&BondConfig, BondId),
    adoption: &Takeover,
    started: &Started,
    rest: Rest,
    missing: MissingSlaves,
) -> Result<Vec<Wanted>, AgentError> {
    let Rest { is_any_away, former, given_away, joined } = rest;
    let (name, work) = (&config.name, &started.work);
    machine.paths.link_pins(name);
    log::of(name).info(wording::adopted(list(joined.iter().map(|(name, _)| name.as_str()))));
    if let Some(bond) = &adoption.bond {
        configure(machine, config, started, (bond, former)).await?;
    }
    if is_any_away {
        // One that is back may have another ifindex.
        work.check(|pending| pending.appeared = Interfaces::any());
    }
    join::settle(machine, id, work).await?;
    for link in given_away {
        // Another process has made it a port of something while no agent ran: it leaves, as it would have then.
        machine.engine.device(LinkEvent::Changed(Box::new(link)));
    }
    let to = Joining { bond: name, id, work, hook: adoption.hook };
    let wanted = join_wanted(machine, config, to, &joined).await;
    join::settle(machine, id, work).await?;
    if missing == MissingSlaves::Refuse {
        return Ok(Vec::new());
    }
    for (slave, _) in &joined {
        if !config.slaves.iter().any(|wanted| wanted.name == *slave) {
            log::of(name).warn(wording::in_no_file(slave));
        }
    }
    Ok(wanted)
}

/// Sets on bond0 what the configuration says, and removes what a former one has set.
async fn configure(
    machine: &Machine,
    config: &BondConfig,
    started: &Started,
    (bond, former): (&LinkInfo, Configured),
) -> Result<(), AgentError> {
    let (devices, work) = (&*machine.devices, &started.work);
    let wanted = configured::configured(bond.ifindex, config);
    let both = wanted.clone().and(&former.clone().over(bond.ifindex));
    configured::record_configured(work, both).await?;
    if let Some(mtu) = config.mtu.or(former.mtu.and(Some(DEFAULT_MTU))) {
        devices.set(bond.ifindex, LinkSetting::Mtu(mtu)).await?;
    }
    configured::configure(devices, bond.ifindex, config).await?;
    let former = former.over(bond.ifindex).without(&wanted);
    configured::remove_former(devices, bond, &former, config).await?;
    configured::record_configured(work, wanted).await
}

/// Enslaves what the configuration names and is no slave. What cannot join is reported.
async fn join_wanted(
    machine: &Machine,
    config: &BondConfig,
    to: Joining<'_>,
    joined: &[(String, u32)],
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for slave in &config.slaves {
        let known = joined.iter().find(|(name, _)| *name == slave.name).map(|(_, ifindex)| *ifindex);
        let ifindex = match known {
            Some(ifindex) => Some(ifindex),
            None => join::join(machine, to, slave)
                .await
                .inspect_err(|error| log::of(&config.name).warn(error))
                .ok(),
        };
        wanted.push(Wanted::new(slave.clone(), ifindex));
    }
    wanted
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "no slaves".to_owned() } else { names.join(", ") }
}

/// Whether a slave without its program was never away: what only enslaving sets is as it was.
fn has_stayed(found: &Found, link: &LinkInfo) -> bool {
    found.addr_gen_mode.is_some() && link.is_up() && LinkSetting::Allmulti(true).holds(link)
}

fn warn_of_detached(bond: &str, device: &str) {
    let fault = PathFault::Detached { device: device.to_owned() };
    log::of(bond).warn(wording::path_fault(&fault, &Repair::Done));
}

fn left_slave(machine: &Machine, config: &BondConfig, maps: &Maps, slot: Slot, link: &LinkInfo) -> LeftSlave {
    let entry = maps.slave(slot);
    let wanted = config.slaves.iter().find(|slave| slave.name == link.name);
    let options = match wanted {
        Some(slave) => slave.options,
        // `add-slave` added it; only the former agent knew its prio.
        None => SlaveOptions { queue_id: entry.queue_id(), ..SlaveOptions::default() },
    };
    let (speed, duplex) = machine.devices.speed(link.ifindex);
    let known = DrainedSlave { bond: &config.name, name: &link.name, ifindex: link.ifindex };
    LeftSlave {
        slot,
        name: link.name.clone(),
        ifindex: link.ifindex,
        mac: link.mac,
        permanent_mac: entry.permanent_mac(),
        options,
        link: Link { speed, duplex, ..Link::new(link.has_link()) },
        link_failure_count: entry.link_failure_count(),
        drained: machine.is_drained(known),
        path_failed: maps.clock().is_some_and(|clock| clock.path().failed() & slot.bit() != 0),
    }
}
