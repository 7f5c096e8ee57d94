//! Making a bond: its devices, its data plane, its slaves.
//!
//! Everything is looked at before anything is changed, and what was found is on disk before the change:
//! whoever stops it half-way, [`crate::store::record::undo`] puts everything back.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
};

use bond_common::{
    abi::{BondEntry, Slot},
    mac::Mac,
};
use bond_core::{
    Engine, Left, NewBond, Refusal,
    event::{Event, NewSlave},
    name::{BondName, InterfaceName},
    options::{BondOptions, SlaveOptions},
    status::BondStatus,
};
use ipnet::IpNet;
use nix::errno::Errno;
use tokio::{
    sync::{OwnedMutexGuard, oneshot, watch},
    task::JoinHandle,
};
use tracing::{info, warn};

use crate::{
    agent::{
        AgentError, LinkEventSource, MissingSlaves,
        bond::{
            announcer::{AnnouncerTask, Announcing},
            arp_prober::{self as prober, ArpProber, Probing},
            engine_thread::{BondId, EngineHandle, Input, Member, Stopping},
            guard::GuardState,
            interface::{Host, Queues, port_names},
            ledger::Ledger,
            recorder::{Entry, Recording},
            work::Work,
            worker::{self as effects, Effect, Effects, Parts, Wishes},
        },
        lifecycle::{
            confirm::Confirmation, missed_failovers::MissedFailovers, move_addresses::Moved, slaves::Wanted,
        },
        server::events::Feed,
    },
    config::{self, BondConfig, Destination, SlaveConfig},
    report::text,
    store::{
        paths::Paths,
        receipts::{History, ReceiptWriter},
        record::{Configured, Ends, Record, RecordedPair, Shape, System},
    },
    sys::{
        Devices, SysError,
        announcer::Announced,
        dataplane::{DataPlane, DataPlanes, DeviceReader, Events, Hook, Kernel, Maps, Port},
        directory::Trust,
        enslave::EnslavePlan,
        found::Found,
        layer3::{Layer3, Target},
        netlink::{self, Address, KernelRoute, LinkInfo, LinkSetting, PairKind, PairPlan},
        offload::{self, Role},
        ownership::Mark,
        sysctl::PromoteSecondaries,
    },
};

/// Bytes; the MTU of a bond that nobody gave one.
pub const DEFAULT_MTU: u32 = 1500;

/// What all bonds of an agent share.
pub struct Machine {
    pub paths: Paths,
    /// SO_NETNS_COOKIE
    pub cookie: u64,
    pub kernel: Arc<Kernel>,
    pub planes: Arc<dyn DataPlanes>,
    /// For bond0's device; the engine has it, too.
    pub reader: Option<Arc<DeviceReader>>,
    pub devices: Arc<dyn Devices>,
    pub link_events: LinkEventSource,
    /// Held while the path of one bond is read, which may wait for RTNL.
    pub path_lane: Arc<tokio::sync::Mutex<()>>,
    /// Grows with each change of filters and nftables.
    pub hook_changes: Arc<AtomicU64>,
    pub engine: EngineHandle,
    pub tasks: Tasks,
    pub feed: Feed,
    pub confirmation: Arc<Confirmation>,
    /// Held by whoever enslaves an interface, from the question whose it is to the record that says so: it becomes the slave
    /// of one bond.
    pub enslaving: Arc<tokio::sync::Mutex<()>>,
}

impl Machine {
    /// What bonds are restored with.
    pub fn system(&self) -> System<'_> {
        System { devices: &*self.devices, pins: self.planes.pins() }
    }
}

/// The bonds' tasks, to wait for.
#[derive(Default)]
pub struct Tasks(Mutex<HashMap<BondId, JoinHandle<()>>>);

impl Tasks {
    fn add(&self, id: BondId, task: JoinHandle<()>) {
        // Poisoned or not, a map of handles is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, task);
    }

    pub fn take(&self, id: BondId) -> Option<JoinHandle<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

/// A bond that was made.
pub struct Created {
    pub hook: Hook,
    pub queues: Queues,
    pub host: Host,
    /// What bond0 and its port are made of; None where it ends in a port that was there before.
    pub pair: Option<PairKind>,
    pub port: String,
    pub maps: Arc<Maps>,
    pub started: Started,
    pub wanted: Vec<Wanted>,
}

/// How others reach a bond that has its engine and its worker.
pub struct Started {
    pub effects: Work,
    pub history: History,
    pub status: watch::Receiver<BondStatus>,
}

/// A slave that can be enslaved, as it was found.
struct Candidate<'a> {
    config: &'a SlaveConfig,
    found: Found,
}

/// Makes a bond. Refuses what cannot be before it changes anything.
pub async fn bring_up(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    missing: MissingSlaves,
) -> Result<Created, AgentError> {
    let hook = effects::hook(config.datapath, config.port.is_some());
    let mtu = config.mtu.unwrap_or(DEFAULT_MTU);
    let queues = match (&config.port, machine.devices.has_queues()) {
        (Some(_), _) => Queues::OfPort,
        (None, true) => Queues::Sixteen,
        (None, false) => Queues::One,
    };
    for slave in &config.slaves {
        check_queue(&config.name, queues, &slave.name, slave.options)?;
    }
    check_queues_differ(&config.slaves)?;
    refuse_existing(machine, config).await?;
    let plan = EnslavePlan { mac: None, mtu, hook, unicast: Vec::new() };
    let _one_at_a_time = machine.enslaving.lock().await;
    let candidates = look_at_slaves(machine, config, &plan, missing).await?;
    let rules = match Moved::of(candidates.iter().map(|slave| &slave.found), &config.name, (0, Mac::ZERO)) {
        Some(moved) if config.move_addresses => moved.check(&*machine.devices, mtu).await?,
        _ => Layer3::default(),
    };
    let port_found = match &config.port {
        Some(port) => Some(observe(machine, (port, None), &plan).await?),
        None => None,
    };

    let pair = match config.port {
        Some(_) => None,
        None => Some(RecordedPair::new(config.name.clone(), free_port_name(machine, &config.name).await?)),
    };

    // From here on things change, and each change is on disk before it is made.
    machine.paths.make_run_of(&config.name)?;
    let shape = Shape {
        pair: pair.clone(),
        port: port_found.clone(),
        datapath: hook.to_string(),
        queues: queues.count(),
    };
    let record = Record::new(&machine.paths, &config.name, shape);
    let mut record = record.on_trial(machine.confirmation.of_new_bond());
    record.save()?;

    let pins = machine.paths.pins_of(&config.name);
    let mut data_plane = machine.planes.create(&pins, hook)?;
    machine.paths.link_pins(&config.name);
    let assigned = config.mac.or(config.host_mac.filter(|_| config.port.is_some()));
    // Neighbours know the addresses that are moved by the MAC of the slave that has them.
    let giver = || {
        let founds = candidates.iter().map(|slave| &slave.found);
        Moved::of(founds, &config.name, (0, Mac::ZERO)).map(|moved| moved.from.mac)
    };
    let mac = assigned
        .or_else(|| config.move_addresses.then(giver).flatten())
        .or_else(|| candidates.first().map(|slave| slave.config.mac.unwrap_or(slave.found.mac)))
        .unwrap_or_else(random_mac);
    let side = match (&pair, &port_found) {
        (Some(RecordedPair { bond, port, .. }), _) => {
            let queues_of_bond = queues.count().into();
            let mark = record.mark();
            let plan = PairPlan { bond, port, mac, mtu, queues: queues_of_bond, mark: Some(&mark) };
            let side = make_pair(machine, &plan, config.pair, (hook, queues)).await?;
            record.made(Ends { bond: side.host.device(), port: side.host.port() })?;
            side
        }
        (None, Some(found)) => take_port(machine, found, &plan, (&record.mark(), config.host_mac)).await?,
        // A bond has one of the two by construction.
        (None, None) => return Err(AgentError::NoSuchBond(config.name.to_string())),
    };
    if side.queues != queues {
        record.set_queues(side.queues.count())?;
        for slave in &config.slaves {
            check_queue(&config.name, side.queues, &slave.name, slave.options)?;
        }
    }
    data_plane.attach_port(&side.place(pair.as_ref().map(|pair| pair.bond.as_str())))?;
    if let Host::Port { port, .. } = side.host {
        machine.devices.open_slave(port).await?;
    }
    if pair.is_none()
        && hook != Hook::Tc
        && machine.devices.has_peer_on_this_machine(side.host.port())
    {
        info!("{}: {}: {}", config.name, side.port_name, text::PARTIAL_CHECKSUMS);
    }
    let options = config.options.clone();
    let guard = GuardState::new(config.guard, &machine.kernel, &options);
    let entry = BondEntry::new(options.fail_over_mac, side.host.port(), side.host_mac, machine.cookie)
        .with_host_device(side.host_device)
        .with_flags(side.flags | effects::option_flags(&options, guard));
    data_plane.maps().set_bond(entry);

    let moved = match side.host {
        Host::Pair { bond, .. } if config.move_addresses => {
            Moved::of(candidates.iter().map(|slave| &slave.found), &config.name, (bond, mac))
        }
        _ => None,
    };
    if let Host::Pair { bond, .. } = side.host {
        record.set_configured(configured(bond, config))?;
    }
    if let Some(moved) = &moved {
        record.add_giver(moved.from.clone(), &rules)?;
    }

    let maps = data_plane.maps();
    let plane = Plane {
        data_plane,
        entry,
        host: side.host,
        mtu,
        mac,
        mac_assigned: assigned.is_some(),
        options,
        record,
        announced: Announced::default(),
        left: None,
    };
    let started = start(machine, id, config, plane)?;
    for note in config.notes.iter().chain(&config.doubts()) {
        info!("{note}");
    }
    if let Some(moved) = &moved {
        moved.take_addresses(&*machine.devices, &rules).await?;
    }
    for candidate in &candidates {
        enslave(machine, id, &started.effects, candidate, None).await?;
        if let Some(moved) = moved.as_ref().filter(|moved| moved.from.ifindex == candidate.found.ifindex) {
            moved.take_routes(&*machine.devices).await?;
        }
    }
    if let Host::Pair { bond, .. } = side.host {
        configure(&*machine.devices, bond, config).await?;
        started.effects.look(|looks| looks.addresses.insert(bond));
    }
    settle(machine, id, &started.effects).await?;
    let joined = |slave: &SlaveConfig| {
        candidates
            .iter()
            .find(|candidate| candidate.config.name == slave.name)
            .map(|slave| slave.found.ifindex)
    };
    let wanted = match missing {
        MissingSlaves::Refuse => Vec::new(),
        MissingSlaves::Await => {
            config.slaves.iter().map(|slave| Wanted::new(slave.clone(), joined(slave))).collect()
        }
    };
    let Side { host, pair, port_name: port, queues, .. } = side;
    Ok(Created { hook, queues, host, pair, port, maps, started, wanted })
}

/// A data plane that is ready for its engine.
pub struct Plane {
    pub data_plane: Box<dyn DataPlane>,
    /// What BOND holds.
    pub entry: BondEntry,
    pub host: Host,
    /// Bytes.
    pub mtu: u32,
    /// The bond's.
    pub mac: Mac,
    pub mac_assigned: bool,
    pub options: BondOptions,
    pub record: Record,
    /// What is known already of what is to be announced.
    pub announced: Announced,
    /// What another agent has left.
    pub left: Option<Taken>,
}

/// What is taken over.
pub struct Taken {
    pub left: Left,
    pub meanwhile: MissedFailovers,
    /// How its slaves were found.
    pub founds: Vec<(Slot, Found)>,
}

/// Gives a data plane its engine, its task and its prober.
pub fn start(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    plane: Plane,
) -> Result<Started, AgentError> {
    let Plane { mut data_plane, entry, host, mtu, mac, mac_assigned, options, record, announced, left } =
        plane;
    let records = watch_data_plane(config, &mut *data_plane, (machine.engine.clone(), id));
    let maps = data_plane.maps();
    // What happened to its devices before is not known.
    let is_changed = Arc::new(AtomicBool::new(true));
    let ledger = Arc::new(Ledger::new(Arc::clone(&maps)));
    let (work, jobs) = Work::new();
    let (to_prober, rounds) = Probing::new();
    let (to_herald, told) = Announcing::new(announced.clone());
    let of = prober::Of {
        id,
        bond: config.name.to_string(),
        maps: Arc::clone(&maps),
        engine: machine.engine.clone(),
    };
    let asking = ArpProber::new(of, host, Arc::clone(&machine.devices));
    let run = machine.paths.run_of(&config.name);
    let receipt_writer =
        ReceiptWriter::new(&config.name, &run, machine.feed.clone(), Arc::clone(&maps), Arc::clone(&ledger));
    let history = receipt_writer.history();
    let recording = Recording::start(receipt_writer);
    let announcer_task = AnnouncerTask {
        id,
        host,
        maps: Arc::clone(&maps),
        devices: Arc::clone(&machine.devices),
        engine: machine.engine.clone(),
        effects: work.downgrade(),
        recording: recording.clone(),
        sockets: HashMap::new(),
    };
    let parts = Parts {
        id,
        bond: config.name.to_string(),
        devices: Arc::clone(&machine.devices),
        macs: machine.devices.open_macs()?,
        data_plane,
        entry,
        host,
        mtu,
        engine: machine.engine.clone(),
        record,
        recording: recording.clone(),
        own_work: work.downgrade(),
        path_lane: Arc::clone(&machine.path_lane),
        hook_changes: Arc::clone(&machine.hook_changes),
        wanted: Wishes { guard: config.guard, prearm: config.prearm, link_events: machine.link_events },
        announced,
        announcer_task: to_herald.clone(),
        carrier: left.as_ref().is_some_and(|taken| taken.left.carrier),
        is_changed: Arc::clone(&is_changed),
    };
    if let Some(taken) = &left {
        if taken.meanwhile.unrecorded > 0 {
            recording.add(Entry::Unrecorded(taken.meanwhile.unrecorded));
        }
        // What became of bond0 and of what is above it while nobody looked: the engine may have it announced at once.
        work.look(|looks| (looks.host, looks.uppers) = (true, true));
    }
    let (left, founds) = left.map(|Taken { left, meanwhile, founds }| ((left, meanwhile), founds)).unzip();
    let effects = Effects::new(parts, founds.unwrap_or_default());
    let bond = NewBond {
        name: config.name.to_string(),
        mac,
        mac_assigned,
        prearm: config.prearm,
        seed: random(),
        options,
    };
    let (shown, status) = watch::channel(Engine::new(bond.clone()).status());
    let member = Member {
        id,
        bond,
        left,
        maps,
        records,
        ledger,
        effects: work.clone(),
        recording,
        prober: to_prober,
        announcer_task: to_herald,
        host: host.device(),
        port: host.port(),
        is_changed,
        status: shown,
    };
    tokio::spawn(asking.run(rounds));
    tokio::spawn(announcer_task.run(told));
    machine.engine.send(Input::Add(Box::new(member)));
    machine.tasks.add(id, tokio::spawn(effects.run(jobs)));
    Ok(Started { effects: work, history, status })
}

/// Waits until what the slaves' joining set off is done: the election, the bond's carrier and MAC.
pub async fn settle(machine: &Machine, id: BondId, effects: &Work) -> Result<(), AgentError> {
    // Its answer comes after everything that the engine was told before.
    machine.engine.status(id).await?;
    let (reply, settled) = oneshot::channel();
    effects.send(Effect::Settle { reply });
    Ok(settled.await.map_err(|_| Stopping)?)
}

/// A bond that an interface joins.
#[derive(Clone, Copy)]
pub struct Joining<'a> {
    pub bond: &'a BondName,
    pub id: BondId,
    pub effects: &'a Work,
    pub hook: Hook,
}

/// Enslaves one more interface, which must exist. Its ifindex is the answer.
pub async fn join(machine: &Machine, to: Joining<'_>, slave: &SlaveConfig) -> Result<u32, AgentError> {
    let Joining { bond, id, effects, hook } = to;
    let (reply, tidied) = oneshot::channel();
    effects.send(Effect::TidyRecord { reply });
    tidied.await.map_err(|_| Stopping)??;
    let plan = EnslavePlan { mac: None, mtu: DEFAULT_MTU, hook, unicast: Vec::new() };
    let claim = Arc::clone(&machine.enslaving).lock_owned().await;
    let found = observe(machine, (&slave.name, Some(bond)), &plan).await?;
    check_nic(slave, &found)?;
    let ifindex = found.ifindex;
    enslave(machine, id, effects, &Candidate { config: slave, found }, Some(claim)).await?;
    Ok(ifindex)
}

/// `claim` is [`Machine::enslaving`], unless the caller holds it: it is given back when the record names the interface.
async fn enslave(
    machine: &Machine,
    id: BondId,
    effects: &Work,
    candidate: &Candidate<'_>,
    claim: Option<OwnedMutexGuard<()>>,
) -> Result<(), AgentError> {
    let Candidate { config, found } = candidate;
    let link = machine.devices.link_by_index(found.ifindex).await?;
    let can_set_mac = machine.devices.can_set_mac(&link).await?;
    machine.devices.put_neighbours(&found.layer3, &Target::same(found.ifindex)).await?;
    let slave = NewSlave {
        name: found.name.clone(),
        ifindex: found.ifindex,
        mac: config.mac.unwrap_or(found.mac),
        can_set_mac,
        options: config.options,
    };
    let ((reply, joined), (recorded, is_recorded)) = (oneshot::channel(), oneshot::channel());
    effects.send(Effect::AwaitJoin { found: Box::new(found.clone()), mac: config.mac, recorded, reply });
    machine.engine.request(id, Event::Join(slave)).await??;
    // Its other end is dropped, whatever became of it. Others read in the record whose the interface is.
    let _ = is_recorded.await;
    drop(claim);
    joined.await.map_err(|_| Stopping)??;
    // Readers see it as a slave from now on.
    machine.engine.status(id).await?;
    Ok(())
}

/// A bond's name must be free; what earlier agents left was adopted, or is gone.
async fn refuse_existing(machine: &Machine, config: &BondConfig) -> Result<(), AgentError> {
    let name = &config.name;
    match kind_of(machine, name).await? {
        Some(kind) => Err(AgentError::NameTaken { name: name.to_string(), kind }),
        None => Ok(()),
    }
}

/// A name for the port that no interface has: whoever undoes this bond deletes the interface of that name.
async fn free_port_name(machine: &Machine, bond: &str) -> Result<InterfaceName, AgentError> {
    let mut taken = String::new();
    for port in port_names(bond) {
        if kind_of(machine, &port).await?.is_none() {
            return Ok(InterfaceName::new(port)?);
        }
        taken = port;
    }
    Err(AgentError::PortNameTaken { bond: bond.to_owned(), port: taken })
}

/// What an interface is, if there is one of this name.
async fn kind_of(machine: &Machine, name: &str) -> Result<Option<String>, AgentError> {
    match machine.devices.link_by_name(name).await {
        Ok(link) => Ok(Some(link.kind.unwrap_or_else(|| "hardware".into()))),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn look_at_slaves<'a>(
    machine: &Machine,
    config: &'a BondConfig,
    plan: &EnslavePlan,
    missing: MissingSlaves,
) -> Result<Vec<Candidate<'a>>, AgentError> {
    let (mut candidates, mut refusals) = (Vec::new(), Vec::new());
    for slave in &config.slaves {
        let observed = observe(machine, (&slave.name, None), plan).await;
        match observed.and_then(|found| check_nic(slave, &found).map(|()| found)) {
            Ok(found) => candidates.push(Candidate { config: slave, found }),
            Err(AgentError::Sys(error)) if error.is_gone() && missing == MissingSlaves::Await => {
                warn!("{}: {}: absent, joins when it appears", config.name, slave.name);
            }
            Err(error) if missing == MissingSlaves::Await => refusals.push(error),
            Err(error) => return Err(error),
        }
    }
    // A slave that cannot join now is awaited like an absent one, unless that leaves the bond without any.
    if candidates.is_empty() && !refusals.is_empty() {
        return Err(refusals.swap_remove(0));
    }
    for error in refusals {
        warn!("{}: {error}; until then the bond runs without it", config.name);
    }
    Ok(candidates)
}

/// A slave's queue must be one of the bond's.
pub fn check_queue(bond: &str, queues: Queues, slave: &str, options: SlaveOptions) -> Result<(), AgentError> {
    let queue_id = options.queue_id;
    if queues.has(queue_id) {
        return Ok(());
    }
    Err(AgentError::NoSuchQueue { bond: bond.to_owned(), slave: slave.to_owned(), queue_id, queues })
}

/// A bond with so small an MTU has no IPv6 addresses.
pub fn check_ipv6(config: &BondConfig, mtu: u32) -> Result<(), AgentError> {
    let small = |problem| AgentError::Small { bond: config.name.to_string(), problem };
    config.check_ipv6(mtu).map_err(small)
}

/// A queue is one slave's. The engine refuses it, too, when the other one is there already.
fn check_queues_differ(slaves: &[SlaveConfig]) -> Result<(), AgentError> {
    let mut owners = HashMap::new();
    for slave in slaves.iter().filter(|slave| slave.options.queue_id != 0) {
        let queue_id = slave.options.queue_id;
        if let Some(owner) = owners.insert(queue_id, &slave.name) {
            let (name, slave) = (slave.name.to_string(), owner.to_string());
            return Err(Refusal::QueueIdTaken { name, queue_id, slave }.into());
        }
    }
    Ok(())
}

/// HWADDR of an ifcfg file names the NIC that is meant.
pub fn check_nic(slave: &SlaveConfig, found: &Found) -> Result<(), AgentError> {
    let has = |mac: Mac| found.mac == mac || found.permanent_mac == Some(mac);
    match slave.hwaddr {
        Some(wanted) if !has(wanted) => {
            Err(AgentError::OtherNic { slave: slave.name.to_string(), found: found.mac, wanted })
        }
        _ => Ok(()),
    }
}

/// Looks at an interface that is to be a slave or a port. The bond is named where it exists.
pub async fn observe(
    machine: &Machine,
    (name, bond): (&str, Option<&BondName>),
    plan: &EnslavePlan,
) -> Result<Found, AgentError> {
    let records = records(&machine.paths);
    let owner = |link: &LinkInfo| records.iter().find_map(|record| record.owner(link));
    Ok(machine.devices.observe((name, bond.map(|bond| &**bond)), plan, owner).await?)
}

/// Of the bonds of this namespace, those without an agent included.
fn records(paths: &Paths) -> Vec<Record> {
    // A record that cannot be read has no say.
    let record = |bond: BondName| Record::read(paths, &bond, Trust::Ours).ok().flatten();
    paths.bonds().into_iter().filter_map(record).collect()
}

/// A bond's side that is not the wire, as it was made.
struct Side {
    host: Host,
    pair: Option<PairKind>,
    port_name: String,
    /// As they can be used.
    queues: Queues,
    host_mac: Mac,
    host_device: u64,
    /// Of [`BondEntry`].
    flags: u32,
}

impl Side {
    fn place<'a>(&'a self, bond: Option<&'a str>) -> Port<'a> {
        port_of(&self.port_name, self.host, self.pair, bond)
    }
}

/// Where the port's program goes. `bond` is bond0, if there is one in the agent's network namespace.
pub fn port_of<'a>(device: &'a str, host: Host, pair: Option<PairKind>, bond: Option<&'a str>) -> Port<'a> {
    let netkit = Some(host.device()).filter(|_| pair == Some(PairKind::Netkit));
    Port { device, ifindex: host.port(), netkit, bond }
}

/// Whether a pair is what is wanted; None is a port that was there before.
pub fn fits(wanted: config::Pair, made_of: Option<PairKind>) -> bool {
    match wanted {
        config::Pair::Auto => true,
        config::Pair::Netkit => made_of == Some(PairKind::Netkit),
        config::Pair::Veth => made_of == Some(PairKind::Veth),
    }
}

/// Makes a pair of what is wanted. XDP runs on veth, and a kernel without tcx has no netkit either.
async fn create_pair(
    machine: &Machine,
    plan: &PairPlan<'_>,
    hook: Hook,
    wanted: config::Pair,
) -> Result<(PairKind, netlink::LinkPair), AgentError> {
    let of = async |kind| {
        let made = machine.devices.create_pair(kind, plan).await;
        made.map(|pair| (kind, pair))
    };
    let netkit = match wanted {
        config::Pair::Auto => hook == Hook::Tc && machine.kernel.has_tcx(),
        config::Pair::Netkit => true,
        config::Pair::Veth => false,
    };
    if netkit {
        match of(PairKind::Netkit).await {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                if wanted == config::Pair::Netkit {
                    return Err(AgentError::NoNetkit(plan.bond.to_owned()));
                }
            }
            answer => return Ok(answer?),
        }
    }
    Ok(of(PairKind::Veth).await?)
}

async fn make_pair(
    machine: &Machine,
    plan: &PairPlan<'_>,
    wanted: config::Pair,
    (hook, queues): (Hook, Queues),
) -> Result<Side, AgentError> {
    let (kind, made) = create_pair(machine, plan, hook, wanted).await?;
    offload::apply(&*machine.devices, &made.bond, Role::Bond, hook)?;
    offload::apply(&*machine.devices, &made.port, Role::Port, hook)?;
    let mut queues = queues;
    if queues == Queues::Sixteen
        && let Err(error) = machine.devices.send_by_first_queue(plan.bond)
    {
        // The kernel's hash spreads flows over the queues now. Programs that take all queues for one do not mind.
        warn!("{}: no slave can have a queue_id: {error}", plan.bond);
        queues = Queues::One;
    }
    let (bond, port) = (made.bond.ifindex, made.port.ifindex);
    let device = machine.reader.as_ref().and_then(|reader| reader.read(bond).ok().flatten());
    Ok(Side {
        host: Host::Pair { bond, port, promisc: false },
        pair: Some(kind),
        port_name: plan.port.to_owned(),
        queues,
        host_mac: plan.mac,
        host_device: device.map_or(0, |state| state.handle().device()),
        flags: [
            (queues == Queues::Sixteen, BondEntry::QUEUE_IDS),
            (kind == PairKind::Netkit, BondEntry::NETKIT),
        ]
        .into_iter()
        .fold(0, |flags, (on, flag)| if on { flags | flag } else { flags }),
    })
}

/// An existing device becomes the port: like a slave, it takes everything in and has no addresses. It stays closed until its
/// program is attached.
async fn take_port(
    machine: &Machine,
    found: &Found,
    plan: &EnslavePlan,
    (mark, host_mac): (&Mark, Option<Mac>),
) -> Result<Side, AgentError> {
    let link = machine.devices.enslave(found, plan, mark).await?;
    machine.devices.set(link.ifindex, LinkSetting::Promisc(true)).await?;
    Ok(Side {
        host: Host::Port { port: link.ifindex, promisc: false },
        pair: None,
        port_name: link.name,
        queues: Queues::OfPort,
        host_mac: host_mac.unwrap_or(Mac::ZERO),
        host_device: 0,
        flags: if host_mac.is_some() { 0 } else { BondEntry::LEARN_HOST_MAC },
    })
}

/// bond0 up, with its addresses and routes.
pub async fn configure(devices: &dyn Devices, bond: u32, config: &BondConfig) -> Result<(), AgentError> {
    let error = match set_up(devices, bond, config).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(AgentError::Unconfigured {
        bond: config.name.to_string(),
        origin: config.origin.to_string(),
        error: Box::new(error),
    })
}

async fn set_up(devices: &dyn Devices, bond: u32, config: &BondConfig) -> Result<(), SysError> {
    devices.set(bond, LinkSetting::Up(true)).await?;
    for address in &config.addresses {
        devices.add_address(&Address::new(bond, address.addr(), address.prefix_len())).await?;
    }
    for route in &config.routes {
        devices.replace_route(&route_over(bond, route)).await?;
    }
    Ok(())
}

/// What a configuration sets on bond0, of which this is the ifindex.
pub fn configured(bond: u32, config: &BondConfig) -> Configured {
    let address = |net: &IpNet| Address::new(bond, net.addr(), net.prefix_len());
    Configured {
        addresses: config.addresses.iter().map(address).collect(),
        routes: config.routes.iter().map(|route| route_over(bond, route)).collect(),
        mtu: config.mtu,
    }
}

/// Has the record name what a configuration sets on bond0.
pub async fn record_configured(effects: &Work, configured: Configured) -> Result<(), AgentError> {
    let (reply, recorded) = oneshot::channel();
    effects.send(Effect::Configured { configured, reply });
    recorded.await.map_err(|_| Stopping)?
}

/// Removes what a former configuration has set on bond0, where it still is, after the present one was set.
pub async fn remove_former(
    devices: &dyn Devices,
    bond: &LinkInfo,
    former: &Configured,
    config: &BondConfig,
) -> Result<(), AgentError> {
    let name = &config.name;
    let present = devices.routes_of(bond.ifindex).await?;
    let is_there = |route: &&KernelRoute| {
        present.iter().any(|found| found.has_same_key(route) && found.via == route.via)
    };
    for route in former.routes.iter().filter(is_there) {
        devices.del_route(route).await?;
        info!("{name}: route {route}: removed, the configuration does not have it any more");
    }
    let present = devices.addresses_of(bond.ifindex).await?;
    let is_there = |address: &&Address| present.iter().any(|found| found.is_same(address));
    let old: Vec<_> = former.addresses.iter().filter(is_there).collect();
    if old.is_empty() {
        return Ok(());
    }
    {
        let _others_stay = PromoteSecondaries::of(devices, &bond.name);
        for address in old {
            devices.del_address(address).await?;
            let net = format!("{}/{}", address.ip, address.prefix_len);
            info!("{name}: address {net}: removed, the configuration does not have it any more");
        }
    }
    // Where they could not be told to stay, and for routes that had a deleted address as their source.
    configure(devices, bond.ifindex, config).await
}

/// A route of a configuration, over this device.
pub fn route_over(ifindex: u32, route: &config::Route) -> KernelRoute {
    let (to, prefix_len) = match (route.to, route.via) {
        (Destination::Prefix(net), _) => (net.network(), net.prefix_len()),
        (Destination::Default, Some(std::net::IpAddr::V6(_))) => (std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
        (Destination::Default, _) => (std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
    };
    let mut wanted = KernelRoute::new(ifindex, to, prefix_len, route.via);
    if let Some(metric) = route.metric {
        wanted.metric = metric;
    }
    wanted
}

/// Reads what the programs say: EVENTS, and their log where they write one. Nobody waits for either.
fn watch_data_plane(
    config: &BondConfig,
    data_plane: &mut dyn DataPlane,
    engine: (EngineHandle, BondId),
) -> Option<Box<dyn Events>> {
    let bond = &config.name;
    let unread = |error: &dyn std::fmt::Display| warn!("{bond}: what the programs say is not read: {error}");
    let records = data_plane.take_events().inspect_err(|error| unread(error)).ok();
    if let Some(records) = &records {
        match records.descriptor() {
            Ok(None) => {}
            Ok(Some(events)) => drop(tokio::spawn(crate::agent::bond::ring_reader::events(events, engine))),
            Err(error) => unread(&error),
        }
    }
    // They write only of whom they find behind a port, and a log is a quarter of a megabyte of mapped memory.
    if config.port.is_some() {
        match data_plane.take_log() {
            Ok(log) => drop(tokio::spawn(crate::agent::bond::ring_reader::log(log))),
            Err(error) => warn!("{bond}: the log of the programs is not read: {error}"),
        }
    }
    data_plane.forget_object();
    records
}

/// A locally administered address that nobody else should have.
fn random_mac() -> Mac {
    let [a, b, c, d, e, f, ..] = random().to_ne_bytes();
    Mac::new([a & 0xfe | 0x02, b, c, d, e, f])
}

fn random() -> u64 {
    // The standard library's hashers are seeded by the kernel's random numbers.
    RandomState::new().build_hasher().finish()
}
