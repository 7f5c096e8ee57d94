//! A bond's engine, worker and tasks, on a data plane that is ready for them.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use bond_common::{abi::Slot, mac::Mac};
use bond_core::{Engine, NewBond, OrphanState, options::BondOptions, status::BondStatus};
use tokio::sync::watch;

use crate::{
    agent::{
        AgentError,
        bond::{
            announcer::{AnnouncerTask, Announcing, Progress, SentRounds},
            arp_prober::{self, ArpProber, Probing},
            clock::{self, ClockKeeper, SharedClockState},
            engine_handle::{BondId, EngineHandle, Member},
            interface::Host,
            kernel_monitor,
            ledger::Ledger,
            missed_failovers::MissedFailovers,
            path_targets::{self, PathOrders},
            receipt_writer::{History, ReceiptWriter},
            recorder::{Entry, Recording},
            ring_reader,
            work::WorkQueue,
            worker::{OwnSettings, Parts, Worker},
        },
        lifecycle::machine::Machine,
    },
    config::{BondConfig, WantedClock, WantedPath},
    report::{log, wording},
    store::record::Record,
    sys::{
        announcer::Announced,
        dataplane::{DataPlane, Events, MapMirror},
        devices::ChangeMacs,
        found::Found,
        random,
    },
};

/// A data plane that is ready for its engine.
pub struct Plane {
    pub data_plane: Box<dyn DataPlane>,
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
    /// bond0 has a carrier, although no slave gives it one.
    pub carrier: bool,
    /// What another agent has left.
    pub left: Option<Taken>,
}

/// What is taken over.
pub struct Taken {
    pub left: OrphanState,
    pub missed: MissedFailovers,
    /// How its slaves were found.
    pub founds: Vec<(Slot, Found)>,
}

/// How others reach a bond that has its engine and its worker.
pub struct Started {
    pub work: WorkQueue,
    pub history: History,
    pub status: watch::Receiver<BondStatus>,
    pub clock: SharedClockState,
    pub path: PathOrders,
}

/// Gives a data plane its engine, its worker, and its tasks.
///
/// # Errors
/// A socket cannot be opened, or the kernel gives no random numbers. The programs stay at their hooks.
pub fn start(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    mut plane: Plane,
) -> Result<Started, AgentError> {
    let prepared =
        machine.devices.open_macs().and_then(|macs| Ok((macs, random::number()?, random::number()?)));
    let (macs, seed, nonce) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            plane.data_plane.keep();
            return Err(error.into());
        }
    };
    let records = watch_data_plane(config, &mut *plane.data_plane, (machine.engine.clone(), id));
    let (options, kernel) = (&plane.options, plane.data_plane.kernel());
    let mirror = plane.data_plane.mirror();
    mirror.update_clock(|entry| clock::follow_options(entry, options, config.guard, kernel));
    mirror.update_monitor(|entry| kernel_monitor::follow_options(entry, options));
    let (work, jobs) = WorkQueue::new();
    let ends = Ends::start(machine, id, config, &plane, (work, seed, nonce));
    let (work, history) = (ends.work.clone(), ends.history.clone());
    let carrier = plane.carrier || plane.left.as_ref().is_some_and(|taken| taken.left.carrier);
    let (left, founds) = plane.left.take().map(|taken| hand_over(taken, &work, &ends.recording)).unzip();
    let (member, status) = ends.member(id, config, &plane, left, records);
    let path = ends.start_path(machine, config, &plane, &status);
    let parts = ends.parts(machine, id, config, plane, (macs, carrier));
    let clock = parts.clock.state();
    let worker = Worker::new(parts, founds.unwrap_or_default());
    machine.engine.add(member);
    machine.tasks.add(id, tokio::spawn(worker.run(jobs)));
    // When what is more urgent is done.
    work.check(|pending| pending.clock = true);
    Ok(Started { work, history, status, clock, path })
}

/// The ends of the channels between the parts of a bond.
struct Ends {
    mirror: Arc<MapMirror>,
    ledger: Arc<Ledger>,
    work: WorkQueue,
    recording: Recording,
    history: History,
    prober: Probing,
    announcer: Announcing,
    /// Whether something may have happened to the bond's devices.
    is_changed: Arc<AtomicBool>,
    /// The engine's, for the MAC addresses that it makes.
    seed: u64,
    /// The path monitor's, for its probes.
    nonce: u64,
}

impl Ends {
    /// Starts the recorder, the ARP prober and the announcer.
    fn start(
        machine: &Machine,
        id: BondId,
        config: &BondConfig,
        plane: &Plane,
        (work, seed, nonce): (WorkQueue, u64, u64),
    ) -> Self {
        let mirror = plane.data_plane.mirror();
        let maps = Arc::clone(mirror.maps());
        let ledger = Arc::new(Ledger::new(Arc::clone(&mirror)));
        let (run, feed) = (machine.paths.run_of(&config.name), machine.feed.clone());
        let writer = ReceiptWriter::new(&config.name, &run, feed, Arc::clone(&maps), Arc::clone(&ledger));
        let history = writer.history();
        let recording = Recording::start(writer);
        let prober = start_prober(machine, id, config, (plane.host, &mirror));
        let announced = plane.announced.clone();
        let announcer = start_announcer(machine, id, (plane.host, &mirror), &work, &recording, announced);
        // What happened to its devices before is not known.
        let is_changed = Arc::new(AtomicBool::new(true));
        Self { mirror, ledger, work, recording, history, prober, announcer, is_changed, seed, nonce }
    }

    /// Returns the bond for the engine thread, and the receiver of what that publishes.
    fn member(
        &self,
        id: BondId,
        config: &BondConfig,
        plane: &Plane,
        left: Option<(OrphanState, MissedFailovers)>,
        records: Option<Box<dyn Events>>,
    ) -> (Member, watch::Receiver<BondStatus>) {
        let bond = NewBond {
            name: config.name.to_string(),
            mac: plane.mac,
            mac_assigned: plane.mac_assigned,
            mac_stays: config.keeps_mac(),
            prearm: config.prearm,
            seed: self.seed,
            options: plane.options.clone(),
            damping: config.damping,
            watch: config.watch,
        };
        let (shown, status) = watch::channel(Engine::new(bond.clone()).status());
        let member = Member {
            id,
            bond,
            left,
            mirror: Arc::clone(&self.mirror),
            records,
            ledger: Arc::clone(&self.ledger),
            work: self.work.clone(),
            recording: self.recording.clone(),
            prober: self.prober.clone(),
            announcer: self.announcer.clone(),
            host: plane.host,
            is_changed: Arc::clone(&self.is_changed),
            status: shown,
        };
        (member, status)
    }

    /// Starts the task that has the path monitor follow the routes.
    fn start_path(
        &self,
        machine: &Machine,
        config: &BondConfig,
        plane: &Plane,
        status: &watch::Receiver<BondStatus>,
    ) -> PathOrders {
        let of = path_targets::TargetContext {
            bond: config.name.to_string(),
            mirror: Arc::clone(&self.mirror),
            host: plane.host,
            devices: Arc::clone(&machine.devices),
            status: status.clone(),
            uppers: self.prober.other_uppers(),
            nonce: self.nonce,
        };
        path_targets::start(of, WantedPath::of(config))
    }

    /// Returns the parts of the bond's worker.
    fn parts(
        self,
        machine: &Machine,
        id: BondId,
        config: &BondConfig,
        plane: Plane,
        (macs, carrier): (Box<dyn ChangeMacs>, bool),
    ) -> Parts {
        let Plane { data_plane, host, mtu, record, announced, .. } = plane;
        Parts {
            id,
            bond: config.name.to_string(),
            devices: Arc::clone(&machine.devices),
            macs,
            data_plane,
            mirror: self.mirror,
            host,
            mtu,
            engine: machine.engine.clone(),
            record,
            recording: self.recording,
            own_work: self.work.downgrade(),
            path_lane: Arc::clone(&machine.path_lane),
            hook_changes: Arc::clone(&machine.hook_changes),
            wanted: OwnSettings {
                guard: config.guard,
                prearm: config.prearm,
                link_events: machine.link_events,
            },
            announced,
            announcer: self.announcer,
            carrier,
            is_changed: self.is_changed,
            clock: ClockKeeper::new(config.name.clone(), WantedClock::of(config)),
        }
    }
}

/// Splits what another agent has left into what the engine and what the worker are given.
fn hand_over(
    taken: Taken,
    work: &WorkQueue,
    recording: &Recording,
) -> ((OrphanState, MissedFailovers), Vec<(Slot, Found)>) {
    let Taken { left, missed, founds } = taken;
    if missed.unrecorded > 0 {
        recording.add(Entry::Unrecorded(missed.unrecorded));
    }
    // What became of bond0 and of what is above it while no agent ran: the engine may have it announced at once.
    work.check(|pending| (pending.host, pending.uppers) = (true, true));
    ((left, missed), founds)
}

fn start_prober(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    (host, mirror): (Host, &Arc<MapMirror>),
) -> Probing {
    let (prober, rounds) = Probing::new();
    let (bond, mirror) = (config.name.to_string(), Arc::clone(mirror));
    let of = arp_prober::Of { id, bond, mirror, engine: machine.engine.clone() };
    tokio::spawn(ArpProber::new(of, host, Arc::clone(&machine.devices)).run(rounds));
    prober
}

fn start_announcer(
    machine: &Machine,
    id: BondId,
    (host, mirror): (Host, &Arc<MapMirror>),
    work: &WorkQueue,
    recording: &Recording,
    announced: Announced,
) -> Announcing {
    let (announcing, orders) = Announcing::new(announced);
    let task = AnnouncerTask {
        id,
        host,
        mirror: Arc::clone(mirror),
        devices: Arc::clone(&machine.devices),
        engine: machine.engine.clone(),
        work: work.downgrade(),
        recording: recording.clone(),
        sockets: HashMap::new(),
        rounds: SentRounds::before(mirror.maps()),
        progress: Progress::default(),
    };
    tokio::spawn(task.run(orders));
    announcing
}

/// Starts the readers of EVENTS and, where the programs write one, of their log. No other task waits for them.
fn watch_data_plane(
    config: &BondConfig,
    data_plane: &mut dyn DataPlane,
    engine: (EngineHandle, BondId),
) -> Option<Box<dyn Events>> {
    let bond = &config.name;
    let unread = |error: &dyn std::fmt::Display| log::of(bond).warn(wording::events_unread(error));
    let records = data_plane.take_events().inspect_err(|error| unread(error)).ok();
    if let Some(records) = &records {
        match records.descriptor() {
            Ok(None) => {}
            Ok(Some(events)) => drop(tokio::spawn(ring_reader::events(events, engine))),
            Err(error) => unread(&error),
        }
    }
    // They write only of whom they find behind a port, and a log is a quarter of a megabyte of mapped memory.
    if config.port.is_some() {
        match data_plane.take_log() {
            Ok(log) => drop(tokio::spawn(ring_reader::log(log))),
            Err(error) => log::of(bond).warn(wording::program_log_unread(&error)),
        }
    }
    data_plane.forget_object();
    records
}
