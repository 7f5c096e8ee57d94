//! Going on with a bond that another agent has left, and that the data plane has kept going.
//!
//! Everything is looked at before anything is changed. What does not fit is refused with a sentence, and then the bond
//! goes on as it did. A slave that is gone, or was not set up to the end, is not taken over, and the rest is.

use bond_common::{
    abi::{ActiveWord, BondEntry, SlaveEntry, Slot},
    mac::Mac,
};
use bond_core::{
    Left, LeftSlave, Time,
    command::Notice,
    event::Link,
    options::{BondOptions, FailOverMac, SlaveOptions},
};
use tracing::{info, warn};

use crate::{
    agent::{
        AgentError, MissingSlaves,
        bond::{
            engine_thread::BondId,
            guard::GuardState,
            interface::{Host, Queues},
            notices, worker as effects,
        },
        lifecycle::{
            checks, configured,
            create::{Created, DEFAULT_MTU},
            join::{self, Joining},
            machine::Machine,
            missed_failovers::{Known, MissedFailovers},
            port::port_of,
            slaves::Wanted,
            start::{self, Plane, Taken},
        },
    },
    config::BondConfig,
    report::{
        moment::monotonic,
        receipt::Receipt,
        text::{self, PathFault, Repair},
    },
    store::{
        receipts,
        record::{self, Ends, Record, Shape},
    },
    sys::{
        announcer::{self, Announced},
        dataplane::{Attachment, Maps, Replaced, Unfit},
        directory::{Location, Trust},
        enslave::PutBack,
        found::Found,
        netlink::{In6AddrGenMode, Interfaces, LinkEvent, LinkInfo, LinkSetting, PairKind},
        ownership::Ownership,
    },
};

/// Takes a bond over. None if there is nothing to take over: nothing was left, or a bond that was not finished and
/// carries nothing, of which nothing is left now.
///
/// # Errors
/// [`AgentError::CannotAdopt`]; the bond goes on as it did.
pub async fn adopt(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    missing: MissingSlaves,
) -> Result<Option<Created>, AgentError> {
    if !machine.paths.has(&config.name) {
        return Ok(None);
    }
    let whole = look(machine, config).await;
    match whole.map_err(|error| error.into_refusal(&config.name))? {
        Look::Whole(whole) => {
            let made = take_over(machine, id, config, *whole, missing).await;
            made.map(Some).map_err(|error| Misfit::from(error).into_refusal(&config.name))
        }
        remains => {
            match remains {
                Look::Portless(port) => warn!(
                    "{}: its port {port} is gone, so it carries nothing: what is left of it is removed, and it is made \
                     again",
                    config.name
                ),
                _ if is_unrestored(machine, config) => info!(
                    "{}: it was removed, but not everything could be restored: the rest is restored first",
                    config.name
                ),
                _ => info!(
                    "{}: an agent was stopped while it made this bond: its remains are removed first",
                    config.name
                ),
            }
            let notes = record::undo(&machine.paths, &config.name, &machine.system()).await?;
            notes.iter().for_each(|note| warn!("{}: {note}", config.name));
            Ok(None)
        }
    }
}

fn is_unrestored(machine: &Machine, config: &BondConfig) -> bool {
    Record::read(&machine.paths, &config.name, Trust::Ours)
        .is_ok_and(|record| record.is_some_and(|record| record.is_unrestored()))
}

/// Why a bond cannot be taken over.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error("its found.json is gone, which says how its interfaces were before")]
    NoRecord,
    #[error("its map {0} is not pinned any more")]
    NoMap(&'static str),
    #[error("its maps are of version {found}, and this xbond's of {}", bond_common::abi::ABI_VERSION)]
    OtherVersion { found: u32 },
    #[error("it belongs to another network namespace")]
    OtherNamespace,
    #[error("{what} is {found}, and the configuration says {wanted}")]
    Differs { what: &'static str, found: String, wanted: String },
    #[error(transparent)]
    Failed(#[from] Box<AgentError>),
}

impl Misfit {
    fn into_refusal(self, bond: &str) -> AgentError {
        match self {
            // It is a refusal as it is.
            Self::Failed(error) if matches!(*error, AgentError::CannotAdopt { .. }) => *error,
            other => AgentError::CannotAdopt { bond: bond.to_owned(), why: other.to_string() },
        }
    }
}

impl<E: Into<AgentError>> From<E> for Misfit {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// A bond that fits.
struct Whole {
    record: Record,
    maps: Maps,
    queues: Queues,
    port: LinkInfo,
    host: Host,
    /// What bond0 and the port are made of, if they were made for the bond.
    made_of: Option<PairKind>,
    /// bond0, where it is in this network namespace.
    bond: Option<LinkInfo>,
    options: BondOptions,
    /// In enslave order; what is left of others is in `remains`.
    slaves: Vec<(Slot, Found, LinkInfo)>,
    gone: Vec<Gone>,
    /// Interfaces that were changed and are in no slot.
    strays: Vec<Found>,
    /// What the kernel confirmed to be the bond's before anything was changed.
    proof: Ownership,
}

/// What is there of a bond.
enum Look {
    Whole(Box<Whole>),
    /// It was not finished.
    Unfinished,
    /// Its port, of this name, does not exist in this network namespace: it carries nothing.
    Portless(String),
}

/// A slot whose slave is not there.
struct Gone {
    slot: Slot,
    ifindex: u32,
    /// None of one that was about to be enslaved.
    name: Option<String>,
}

async fn look(machine: &Machine, config: &BondConfig) -> Result<Look, Misfit> {
    let pins = machine.paths.pins_of(&config.name);
    let record = Record::read(&machine.paths, &config.name, Trust::Ours)?;
    if pins.kind().is_none() {
        return Ok(Look::Unfinished);
    }
    let maps = match machine.planes.pins().left(&pins)? {
        Ok(maps) => maps,
        // Version 0 is that of a map that nobody has written yet.
        Err(Unfit::NoPort | Unfit::OtherVersion(0)) => return Ok(Look::Unfinished),
        Err(Unfit::NoMap(name)) => return Err(Misfit::NoMap(name)),
        Err(Unfit::OtherVersion(found)) => return Err(Misfit::OtherVersion { found }),
    };
    let entry = maps.bond();
    if entry.port_ifindex() == 0 {
        // It was killed before packets had a port.
        return Ok(Look::Unfinished);
    }
    if entry.netns_cookie() != machine.cookie {
        return Err(Misfit::OtherNamespace);
    }
    let record = record.ok_or(Misfit::NoRecord)?;
    let Shape { pair, port, datapath, queues } = record.shape();
    let devices = &*machine.devices;
    let port_name =
        pair.as_ref().map(|pair| pair.port.as_str()).or(port.as_ref().map(|port| port.name.as_str()));
    let portless = || Ok(Look::Portless(port_name.unwrap_or_default().to_owned()));
    let port_link = match devices.link_by_index(entry.port_ifindex()).await {
        Ok(port) => port,
        Err(error) if error.is_gone() => return portless(),
        Err(error) => return Err(error.into()),
    };
    let made_of = port_link.pair().filter(|_| pair.is_some());
    if pair.is_some() && made_of.is_none() {
        return portless();
    }
    let same = |what, found: Option<String>, wanted: Option<String>| {
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        if found == wanted {
            return Ok(());
        }
        Err(Misfit::Differs { what, found: text(found), wanted: text(wanted) })
    };
    let hook = effects::hook(config.datapath, config.port.is_some());
    same("datapath", Some(datapath), Some(hook.to_string()))?;
    same("port", port.as_ref().map(|port| port.name.clone()), config.port.clone().map(Into::into))?;
    let queues = match (&config.port, queues) {
        (Some(_), _) => Queues::OfPort,
        (None, 0 | 1) => Queues::One,
        (None, _) => Queues::Sixteen,
    };
    for slave in &config.slaves {
        checks::check_queue(&config.name, queues, &slave.name, slave.options)?;
    }

    if !checks::fits(config.pair, made_of) {
        same("pair", made_of.map(|kind| kind.to_string()), Some(config.pair.to_string()))?;
    }
    let port = port_link;
    let (host, bond) = match (&pair, port.link) {
        (Some(_), Some(peer)) => {
            let bond = match port.link_netns {
                None => Some(devices.link_by_index(peer).await?),
                Some(_) => None,
            };
            let promisc = bond.as_ref().is_some_and(|bond| bond.promiscuity > 0);
            (Host::Pair { bond: peer, port: port.ifindex, promisc }, bond)
        }
        (Some(_), None) => return portless(),
        (None, _) => (Host::Port { port: port.ifindex, promisc: false }, None),
    };

    if let Some(bond) = &bond {
        checks::check_ipv6(config, config.mtu.unwrap_or(bond.mtu))?;
    }

    let (mut slaves, mut gone) = (Vec::new(), Vec::new());
    let mut in_slots = Vec::new();
    for slot in Slot::all() {
        let entry = maps.slave(slot);
        if entry == SlaveEntry::default() {
            continue;
        }
        let ifindex = entry.ifindex();
        in_slots.push(ifindex);
        let Some(found) = record.slave(ifindex) else {
            gone.push(Gone { slot, ifindex, name: None });
            continue;
        };
        match devices.find(found).await?.filter(|link| link.ifindex == ifindex) {
            Some(link) => slaves.push((slot, found.clone(), link)),
            None => gone.push(Gone { slot, ifindex, name: Some(found.name.clone()) }),
        }
    }
    let place = |ifindex| record.slaves().iter().position(|found| found.ifindex == ifindex);
    slaves.sort_by_key(|(_, found, _)| place(found.ifindex));
    let strays = record.slaves().iter().filter(|found| !in_slots.contains(&found.ifindex)).cloned().collect();

    let options = policy(machine, config, entry, &slaves).await?;
    let mac = config.mac.filter(|_| !slaves.is_empty());
    let worn = slaves.first().map(|(slot, ..)| maps.slave(*slot).wire_mac()).filter(|_| mac.is_some());
    same("its MAC", worn.map(|mac| mac.to_string()), mac.map(|mac| mac.to_string()))?;
    let proof = record.prove(&machine.system(), &pins).await;
    let whole =
        Whole { record, maps, queues, port, host, made_of, bond, options, slaves, gone, strays, proof };
    Ok(Look::Whole(Box::new(whole)))
}

/// The options that are wanted, with the policy that is in force.
async fn policy(
    machine: &Machine,
    config: &BondConfig,
    entry: BondEntry,
    slaves: &[(Slot, Found, LinkInfo)],
) -> Result<BondOptions, Misfit> {
    let mut options = config.options.clone();
    let (found, wanted) = (entry.policy(), options.fail_over_mac);
    if found == wanted || slaves.is_empty() {
        return Ok(options);
    }
    // A first slave that cannot change its MAC turned the policy.
    if found == FailOverMac::Active {
        for (_, _, link) in slaves {
            if !machine.devices.can_set_mac(link).await? {
                options.fail_over_mac = found;
                return Ok(options);
            }
        }
    }
    let name = |policy: FailOverMac| {
        let options = BondOptions { fail_over_mac: policy, ..BondOptions::default() };
        let pairs = options.to_pairs();
        pairs.into_iter().find(|(key, _)| *key == "fail_over_mac").map(|(_, value)| value).unwrap_or_default()
    };
    Err(Misfit::Differs { what: "fail_over_mac", found: name(found), wanted: name(wanted) })
}

async fn take_over(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    whole: Whole,
    missing: MissingSlaves,
) -> Result<Created, AgentError> {
    let Whole { mut record, maps, queues, port, host, made_of, bond, options, slaves, gone, strays, proof } =
        whole;
    let name = &config.name;
    let devices = &*machine.devices;
    let hook = effects::hook(config.datapath, config.port.is_some());
    // First: what is written below has room then, on a file system that is full by now as well. If it is full already, what
    // is recorded stays: it says more than is left, never less.
    let as_recorded = |answer: Result<(), AgentError>| {
        if let Err(error) = answer {
            warn!("{name}: {error}; the bond is adopted, and its record stays as it was");
        }
    };
    as_recorded(record.save());
    if let (Host::Pair { bond, port, .. }, Some(_)) = (host, made_of) {
        as_recorded(record.made(Ends { bond, port }));
    }
    let mut data_plane = machine.planes.adopt(&machine.paths.pins_of(name), hook)?;
    let bond_name = bond.as_ref().map(|bond| bond.name.as_str());
    if data_plane.replace_port(&port_of(&port.name, host, made_of, bond_name))? {
        warn_of_detached(name, &port.name);
    }
    if !record.has_aliases() {
        let devices_of_bond = slaves.iter().map(|(_, _, link)| link).chain([&port]).chain(bond.as_ref());
        as_recorded(give_aliases(machine, &mut record, devices_of_bond).await);
    }
    let (mut left, mut founds, mut given_away) = (Vec::new(), Vec::new(), Vec::new());
    for (slot, found, link) in slaves {
        let found = record.slave(found.ifindex).cloned().unwrap_or(found);
        let whole = is_set_up(&found, &link)
            && match data_plane.replace_slave(slot, &link.name, link.ifindex)? {
                Replaced::Done => true,
                Replaced::Detached if has_stayed(&found, &link) => {
                    data_plane.reattach_slave(&Attachment {
                        slot,
                        device: &link.name,
                        ifindex: link.ifindex,
                    })?;
                    warn_of_detached(name, &link.name);
                    true
                }
                Replaced::Detached | Replaced::Absent => false,
            };
        if !whole {
            info!("{name}: {}: was not set up to the end, or was away since; it is put back", link.name);
            devices.close_to_restore(&found, &proof).await?;
            data_plane.detach_slave(slot)?;
            data_plane.maps().set_slave(slot, SlaveEntry::default());
            as_recorded(restore(machine, &mut record, &found, &proof).await);
            continue;
        }
        left.push(left_slave(machine, config, &maps, slot, &link));
        founds.push((slot, found));
        given_away.extend(Some(link).filter(|link| link.master.is_some()));
    }
    for Gone { slot, ifindex, name: slave } in &gone {
        match slave {
            Some(slave) => {
                warn!("{name}: {slave} is gone, or is another interface by now; it is no slave any more");
                as_recorded(record.depart(*ifindex));
            }
            None => info!("{name}: interface {ifindex} was not set up to the end, and is no slave"),
        }
        data_plane.detach_slave(*slot)?;
        data_plane.maps().set_slave(*slot, SlaveEntry::default());
    }
    for found in &strays {
        devices.close_to_restore(found, &proof).await?;
    }
    // What was being released, or lost its slot otherwise: the slot is to be used again.
    let in_use: Vec<_> = left.iter().map(|slave| slave.slot).collect();
    for slot in Slot::all().filter(|slot| !in_use.contains(slot)) {
        data_plane.detach_slave(slot)?;
    }
    for found in strays {
        if let Some(link) = devices.find(&found).await?.filter(|link| proof.holds(link)) {
            info!("{name}: {}: is in no slot of the bond, and is put back", link.name);
            data_plane.detach_filters(&link.name);
        }
        as_recorded(restore(machine, &mut record, &found, &proof).await);
    }

    let mut entry = entry(machine, config, maps.bond(), host, bond.as_ref(), &options);
    let wire = founds.first().map(|(slot, _)| maps.slave(*slot).wire_mac());
    let by_hand = bond.as_ref().map(|bond| bond.mac).filter(|mac| *mac != entry.host_mac());
    let mac = match (options.fail_over_mac, by_hand) {
        (FailOverMac::None, Some(mac)) => {
            notices::log(name, &Notice::BondMacTaken { mac }, None, 0);
            entry = entry.with_host_mac(mac);
            mac
        }
        // It is put back.
        (FailOverMac::Active, _) => entry.host_mac(),
        (FailOverMac::None | FailOverMac::Follow, _) => wire.unwrap_or(entry.host_mac()),
    };
    let mac_assigned = config.mac.is_some() || mac != wire.unwrap_or(mac);
    data_plane.maps().set_bond(entry);
    let word = maps.active();
    let known = on_record(&maps, &machine.paths.run_of(name), word);
    let known_until = Known {
        word: known,
        // GUARD does not say.
        at: Time::ZERO,
        switched_at: Time::from_nanos(maps.guard().switched_at()),
        now: monotonic(),
    };
    let mut meanwhile = MissedFailovers::new(known_until, word, data_plane.drain_events());
    if meanwhile.is_foreign {
        let last = meanwhile.failovers.last().map_or(known, |(_, word)| *word);
        meanwhile.word = maps.recount_active(last);
        warn!("{name}: {}", text::recounted(word.generation(), meanwhile.word.generation()));
    }
    let word = meanwhile.word;
    let left = Left {
        active: word.active(),
        draining: word.draining(),
        usable: word.usable(),
        known_active: known.active(),
        failovers: meanwhile.guard_failovers(),
        carrier: port.is_up(),
        slaves: left,
        gone: gone.into_iter().filter_map(|gone| Some((gone.slot, gone.name?))).collect(),
    };
    let joined: Vec<_> = left.slaves.iter().map(|slave| (slave.name.clone(), slave.ifindex)).collect();
    let is_any_away = !record.away().is_empty();
    // Read again by the bond's task; until then there may be something to announce that is not known.
    let announced = announcer::addresses_behind(devices, port.ifindex).await.unwrap_or_else(|error| {
        warn!("{name}: its addresses cannot be read yet: {error}");
        Announced { uppers: Vec::new(), elsewhere: true }
    });
    let plane = Plane {
        data_plane,
        entry,
        host,
        mtu: bond.as_ref().unwrap_or(&port).mtu,
        mac,
        mac_assigned,
        options,
        record,
        announced,
        left: Some(Taken { left, meanwhile, founds }),
    };
    let maps = plane.data_plane.maps();
    let former = plane.record.configured().clone();
    let started = start::start(machine, id, config, plane)?;
    let effects = &started.effects;
    machine.paths.link_pins(name);
    info!("{name}: adopted, with {}", join(joined.iter().map(|(name, _)| name.as_str())));
    if let Some(bond) = &bond {
        let wanted = configured::configured(bond.ifindex, config);
        configured::record_configured(effects, wanted.and(&former.clone().over(bond.ifindex))).await?;
    }
    let mtu = config.mtu.or(former.mtu.and(Some(DEFAULT_MTU)));
    if let (Some(bond), Some(mtu)) = (&bond, mtu) {
        devices.set(bond.ifindex, LinkSetting::Mtu(mtu)).await?;
    }
    if let Some(bond) = &bond {
        configured::configure(devices, bond.ifindex, config).await?;
        let wanted = configured::configured(bond.ifindex, config);
        let former = former.over(bond.ifindex).without(&wanted);
        configured::remove_former(devices, bond, &former, config).await?;
        configured::record_configured(effects, wanted).await?;
    }
    if is_any_away {
        // One that is back may have another ifindex.
        effects.look(|looks| looks.appeared = Interfaces::any());
    }
    // What is back is put back before it joins.
    join::settle(machine, id, effects).await?;
    for link in given_away {
        // Another process has made it a port of something while no agent ran: it leaves, as it would have then.
        machine.engine.device(LinkEvent::Changed(Box::new(link)));
    }
    let mut wanted = Vec::new();
    for slave in &config.slaves {
        let known = joined.iter().find(|(name, _)| *name == slave.name).map(|(_, ifindex)| *ifindex);
        let ifindex = match known {
            Some(ifindex) => Some(ifindex),
            None => match join::join(machine, Joining { bond: name, id, effects, hook }, slave).await {
                Ok(ifindex) => Some(ifindex),
                Err(error) => {
                    warn!("{name}: {error}");
                    None
                }
            },
        };
        if missing == MissingSlaves::Await {
            wanted.push(Wanted::new(slave.clone(), ifindex));
        }
    }
    join::settle(machine, id, effects).await?;
    for (slave, _) in &joined {
        if missing == MissingSlaves::Await && !config.slaves.iter().any(|wanted| wanted.name == *slave) {
            warn!(
                "{name}: {slave} is a slave that no file names; it stays until `xbond reload` or `xbond del-slave`"
            );
        }
    }
    Ok(Created { hook, queues, host, pair: made_of, port: port.name, maps, started, wanted })
}

/// Gives the devices of a bond, which an xbond without them has made, its alias. What they had is recorded first.
async fn give_aliases<'a>(
    machine: &Machine,
    record: &mut Record,
    links: impl Iterator<Item = &'a LinkInfo>,
) -> Result<(), AgentError> {
    let links: Vec<_> = links.collect();
    record.set_aliases(|ifindex| links.iter().find(|link| link.ifindex == ifindex)?.alias.clone())?;
    for link in links {
        machine.devices.set_alias(link.ifindex, Some(record.mark().alias())).await?;
    }
    Ok(())
}

/// Restores an interface, if it is the bond's. Of one that is not restored it stays on record how it was found.
async fn restore(
    machine: &Machine,
    record: &mut Record,
    found: &Found,
    proof: &Ownership,
) -> Result<(), AgentError> {
    let bond = record.bond_name();
    match machine.devices.restore(found, proof).await {
        Ok(PutBack::Done | PutBack::Gone) => record.remove(found.ifindex),
        Ok(PutBack::Unconfirmed(link)) => {
            warn!("{bond}: {}", text::unconfirmed(&bond, &link.name));
            if link.looks_enslaved { record.depart(found.ifindex) } else { record.remove(found.ifindex) }
        }
        Err(error) => {
            warn!("{bond}: {}: {}", found.name, text::not_restored_yet(&error));
            record.depart(found.ifindex)
        }
    }
}

/// ACTIVE after the last change that is on a receipt. An agent that dies right after it wrote one has not told GUARD yet.
fn on_record(maps: &Maps, directory: &Location, word: ActiveWord) -> ActiveWord {
    let known = maps.guard().known();
    let last = receipts::read(directory, Trust::Ours).ok().and_then(|mut receipts| receipts.pop());
    let is_last = |last: Receipt| last.generation == word.generation();
    if last.is_some_and(is_last) && word.changes_since(known).is_some() { word } else { known }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "no slaves".to_owned() } else { names.join(", ") }
}

/// In another network namespace a device loses what it is with IPv6, and is closed: its set-up is not whole any more. Of one
/// whose set-up was not finished it is the opening that is missing.
fn is_set_up(found: &Found, link: &LinkInfo) -> bool {
    let is_prepared =
        found.addr_gen_mode.is_none() || LinkSetting::AddrGenMode(In6AddrGenMode::None).holds(link);
    let was_opened = found.allmulti || link.is_up() || LinkSetting::Allmulti(true).holds(link);
    is_prepared && was_opened
}

/// Whether a slave without its program was never away: what only enslaving sets is as it was.
fn has_stayed(found: &Found, link: &LinkInfo) -> bool {
    found.addr_gen_mode.is_some() && link.is_up() && LinkSetting::Allmulti(true).holds(link)
}

fn warn_of_detached(bond: &str, device: &str) {
    let fault = PathFault::Detached { device: device.to_owned() };
    warn!("{bond}: {}", text::path_fault(&fault, &Repair::Done));
}

fn left_slave(machine: &Machine, config: &BondConfig, maps: &Maps, slot: Slot, link: &LinkInfo) -> LeftSlave {
    let entry = maps.slave(slot);
    let wanted = config.slaves.iter().find(|slave| slave.name == link.name);
    let options = match wanted {
        Some(slave) => slave.options,
        // Added by hand; its prio was the former agent's.
        None => SlaveOptions { queue_id: entry.queue_id(), ..SlaveOptions::default() },
    };
    let (speed, duplex) = machine.devices.speed(link.ifindex);
    LeftSlave {
        slot,
        name: link.name.clone(),
        ifindex: link.ifindex,
        mac: link.mac,
        permanent_mac: entry.permanent_mac(),
        options,
        link: Link { speed, duplex, ..Link::new(link.has_link()) },
        link_failure_count: entry.link_failure_count(),
    }
}

/// What packets go by from now on.
fn entry(
    machine: &Machine,
    config: &BondConfig,
    found: BondEntry,
    host: Host,
    bond: Option<&LinkInfo>,
    options: &BondOptions,
) -> BondEntry {
    let guard = GuardState::new(config.guard, &machine.kernel, options);
    let kept = found.flags() & (BondEntry::LEARN_HOST_MAC | BondEntry::QUEUE_IDS | BondEntry::NETKIT);
    let host_mac = match (host, bond) {
        // An agent was about to change it. What it is otherwise, and was not then, somebody else has set.
        (Host::Pair { .. }, Some(bond)) if found.has(BondEntry::HOST_MAC_MOVES) => bond.mac,
        (Host::Pair { .. }, _) => found.host_mac(),
        (Host::Port { .. }, _) => config.host_mac.unwrap_or(found.host_mac()),
    };
    let device = machine.reader.as_ref().and_then(|reader| reader.read(bond?.ifindex).ok().flatten());
    let learned = kept & BondEntry::LEARN_HOST_MAC != 0;
    BondEntry::new(
        options.fail_over_mac,
        found.port_ifindex(),
        if learned { Mac::ZERO } else { host_mac },
        machine.cookie,
    )
    .with_host_device(device.map_or(found.host_device(), |state| state.handle().device()))
    .with_flags(kept | effects::option_flags(options, guard))
}
