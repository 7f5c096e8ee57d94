//! The agent: it brings bonds up, looks after them, and takes them down.
//!
//! Decisions are made on the [`engine`] thread; what takes time is done by a task per bond ([`effects`]);
//! this module joins the two with the machine, the control socket and the signals.

mod bring_up;
pub mod control;
mod effects;
mod engine;
mod host;
mod notices;
pub mod places;
mod prober;
mod record;
mod slaves;
mod watch;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use bond_common::abi::{PORT_STATS, Slot};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, mpsc, oneshot},
};
use tracing::{info, warn};

use self::{
    bring_up::{Machine, Tasks},
    effects::Effect,
    engine::{BondId, EngineHandle, Input, Stopping},
    host::Queues,
    places::{PlaceError, Places},
    slaves::Wanted,
};
use crate::{
    bond::{
        Refusal,
        event::{Elects, Event},
        options::{OptionError, Setting, Slaves},
        status::BondStatus,
    },
    config::{BondConfig, Config, OnExit},
    report::json::{self, Report, Surroundings},
    sys::{
        Devices, SysError, caps,
        dataplane::{DataPlaneError, DeviceReader, Hook, Kernel, KernelError, Maps, TcAttach},
        netlink::{LinkEvent, LinkEvents},
        netns,
        sysfs::Sysfs,
    },
};

/// What an agent could not do.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Sys(#[from] SysError),
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {problem}; it was not written by this version of xbond")]
    BadRecord { path: PathBuf, problem: String },
    #[error("{0}: no such bond; `xbond show` lists them")]
    NoSuchBond(String),
    #[error("{0}: no agent left a bond of this name behind in this network namespace")]
    NothingLeft(String),
    #[error("{bond} has no slave {slave}; `xbond show {bond}` lists them")]
    NoSuchSlave { bond: String, slave: String },
    #[error("{slave}: queue_id={queue_id}: {bond} {queues}")]
    NoSuchQueue { bond: String, slave: String, queue_id: u16, queues: Queues },
    #[error("{name:?} {fault}; it cannot be the name of an interface")]
    BadName { name: String, fault: &'static str },
    #[error("{name}: an interface of this name exists already ({kind}); choose another name for the bond")]
    NameTaken { name: String, kind: String },
    #[error("{0}: a file of xbond's own has this name; choose another name for the bond")]
    Reserved(String),
    #[error(
        "{port}: an interface of this name exists already, and the port of {bond} would have it; rename it, or \
         choose another name for the bond"
    )]
    PortNameTaken { bond: String, port: String },
    #[error(
        "{0} was left behind by an agent that is gone, or told to keep it; take it down with `xbond down {0} --force`"
    )]
    LeftBehind(String),
    #[error("{slave}: has MAC {found}, but HWADDR says {wanted}; this is another NIC than the file means")]
    OtherNic { slave: String, found: bond_common::mac::Mac, wanted: bond_common::mac::Mac },
    #[error("active_slave is a request, not an option; set it alone")]
    ActiveSlaveAlone,
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("interrupted; everything is as it was")]
    Interrupted,
}

/// How [`run`] treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingSlaves {
    /// Named on the command line: a mistake.
    Refuse,
    /// Named in a file: they join when they appear.
    Await,
}

/// Where link events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEventSource {
    Netlink,
    /// None: links are looked at every miimon only.
    Off,
}

/// Everything [`run`] wants to know.
pub struct RunOptions {
    pub config: Config,
    pub missing_slaves: MissingSlaves,
    pub link_events: LinkEventSource,
    /// None: as this kernel does it best.
    pub tc_attach: Option<TcAttach>,
}

/// One agent of one network namespace.
pub struct Agent {
    machine: Machine,
    bonds: Mutex<BTreeMap<String, Bond>>,
    next_id: AtomicU32,
}

/// A bond of this agent.
struct Bond {
    id: BondId,
    config: BondConfig,
    hook: Hook,
    queues: Queues,
    port: String,
    maps: Arc<Maps>,
    effects: mpsc::UnboundedSender<Effect>,
    /// The slaves of its file; none of a bond that was made by flags.
    wanted: Vec<Wanted>,
}

/// Runs an agent until it is told to stop. What needs more than the few capabilities that it keeps is done
/// before it has threads.
pub fn run(options: RunOptions) -> Result<(), AgentError> {
    caps::check()?;
    for bond in &options.config.bonds {
        Kernel::check(effects::hook(bond.datapath, bond.port.is_some()))?;
    }
    let cookie = netns::cookie()?;
    let places = Places::of(cookie);
    let _claim = places.claim()?;
    let sysfs = Sysfs::mount().inspect_err(|error| info!("no slave can have a queue_id: {error}")).ok();
    caps::keep_needed()?;

    let kernel = Kernel::read();
    let kernel = Arc::new(match options.tc_attach {
        Some(tc) => kernel.with_tc(tc),
        None => kernel,
    });
    let reader = DeviceReader::new(&kernel)
        .inspect_err(|error| info!("links are known by netlink only: {error}"))
        .ok();
    let io = |what| move |source| AgentError::Io { what, source };
    let host_reader = DeviceReader::new(&kernel).ok();
    let engine = EngineHandle::start(reader).map_err(io("cannot start a thread"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .map_err(io("cannot start the runtime"))?;
    runtime.block_on(async {
        let devices = Devices::open()?;
        let tasks = Tasks::default();
        let machine = Machine { places, cookie, kernel, host_reader, devices, engine, tasks, sysfs };
        let agent =
            Arc::new(Agent { machine, bonds: Mutex::new(BTreeMap::new()), next_id: AtomicU32::new(0) });
        agent.live(options).await
    })
}

/// Takes down what an agent left behind.
pub fn down_without_agent(places: &Places, bond: &str) -> anyhow::Result<()> {
    caps::check()?;
    let _claim = places.claim()?;
    if !places.has(bond) {
        places.leave();
        return Err(AgentError::NothingLeft(bond.to_owned()).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { record::undo(places, bond, &Devices::open()?).await })?;
    places.leave();
    Ok(())
}

/// SIGINT and SIGTERM: the end that on_exit decides about.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Agent {
    async fn live(self: Arc<Self>, options: RunOptions) -> Result<(), AgentError> {
        let io = |what| move |source| AgentError::Io { what, source };
        let mut signals = Signals::listen().map_err(io("cannot listen to signals"))?;
        let RunOptions { config, missing_slaves, link_events, tc_attach: _ } = options;
        for note in &config.notes {
            info!("{note}");
        }
        let link_events = match link_events {
            LinkEventSource::Netlink => Some(listen_to_links(self.machine.engine.clone())?),
            LinkEventSource::Off => None,
        };
        for bond in config.bonds {
            let name = bond.name.clone();
            let id = BondId(self.next_id.fetch_add(1, Ordering::Relaxed));
            let answer = tokio::select! {
                answer = self.add(id, bond, missing_slaves) => answer,
                () = signals.any() => Err(AgentError::Interrupted),
            };
            if let Err(error) = answer {
                self.undo(id, &name, &error).await;
                self.end(Ending::Down).await?;
                return Err(error);
            }
        }

        let socket = self.machine.places.socket();
        match control::bind(&socket) {
            Ok(listener) => tokio::spawn(control::serve(listener, Arc::clone(&self))),
            Err(source) => {
                self.end(Ending::Down).await?;
                return Err(AgentError::File { path: socket, source });
            }
        };
        self.machine.places.link_socket();
        if let Some(link_events) = link_events {
            tokio::spawn(Arc::clone(&self).follow_links(link_events));
        }
        self.say_ready().await?;
        signals.any().await;
        self.end(Ending::AsConfigured).await
    }

    /// One line per bond on standard output: whoever started the agent may go on.
    async fn say_ready(&self) -> Result<(), AgentError> {
        for (name, bond) in &*self.bonds.lock().await {
            let status = self.machine.engine.status(bond.id).await?;
            let active = status.active_slave.as_deref().unwrap_or("none");
            let carrier = if status.carrier { "up" } else { "down" };
            let line =
                format!("{name} ready: active slave {active}, carrier {carrier}, datapath {}", bond.hook);
            // Bonds are worth more than somebody who reads this.
            let _ = writeln!(io::stdout(), "{line}");
        }
        Ok(())
    }

    /// Brings a bond up. If it fails, or is dropped half-way, [`Self::undo`] puts back what it changed.
    async fn add(&self, id: BondId, config: BondConfig, missing: MissingSlaves) -> Result<(), AgentError> {
        let made = bring_up::bring_up(&self.machine, id, &config, missing).await?;
        let bring_up::Made { hook, queues, port, maps, effects, wanted } = made;
        let name = config.name.clone();
        self.bonds.lock().await.insert(name, Bond { id, config, hook, queues, port, maps, effects, wanted });
        Ok(())
    }

    async fn undo(&self, id: BondId, bond: &str, cause: &AgentError) {
        // These found somebody else's bond of that name: nothing was changed, nothing is to be undone.
        if matches!(cause, AgentError::LeftBehind(_) | AgentError::NameTaken { .. } | AgentError::Reserved(_))
        {
            return;
        }
        // The bond's task, if there is one by now, ends when nobody can ask it for anything any more.
        self.machine.engine.send(Input::Remove(id));
        if let Some(task) = self.machine.tasks.take(id) {
            let _ = task.await;
        }
        if let Err(error) = record::undo(&self.machine.places, bond, &self.machine.devices).await {
            warn!("{bond}: not everything could be put back: {error}; try `xbond down {bond} --force`");
        }
    }

    async fn end(&self, ending: Ending) -> Result<(), AgentError> {
        let mut answer = Ok(());
        let bonds = std::mem::take(&mut *self.bonds.lock().await);
        for (name, bond) in bonds {
            let keep = ending == Ending::AsConfigured && bond.config.on_exit == OnExit::Keep;
            if keep {
                let (reply, kept) = oneshot::channel();
                let _ = bond.effects.send(Effect::Keep { reply });
                let _ = kept.await;
                info!("{name}: kept; it goes on without an agent");
            } else {
                answer = answer.and(self.take_down(&name, &bond).await);
            }
        }
        self.machine.places.leave();
        answer
    }

    async fn take_down(&self, name: &str, bond: &Bond) -> Result<(), AgentError> {
        self.machine.engine.send(Input::Remove(bond.id));
        let (reply, done) = oneshot::channel();
        let _ = bond.effects.send(Effect::TearDown { reply });
        done.await.map_err(|_| Stopping)??;
        self.machine.places.forget(name);
        info!("{name}: down, slaves as they were found");
        Ok(())
    }

    /// The state of one bond, or of all.
    pub async fn report(&self, only: Option<&str>) -> Result<Report, AgentError> {
        let bonds = self.bonds.lock().await;
        if let Some(name) = only
            && !bonds.contains_key(name)
        {
            return Err(AgentError::NoSuchBond(name.to_owned()));
        }
        let mut report = Report { version: json::VERSION, bonds: Vec::new() };
        for (name, bond) in bonds.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
            let status = self.machine.engine.status(bond.id).await?;
            report.bonds.push(bond.report(name, &status)?);
        }
        Ok(report)
    }

    /// Changes options of a bond; all of them, or none. Returns what should be known about it.
    pub async fn set(&self, name: &str, settings: &[(String, String)]) -> Result<Vec<String>, AgentError> {
        // Held over the whole change: two that come at once do not undo each other.
        let bonds = self.bonds.lock().await;
        let bond = bonds.get(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        let status = self.machine.engine.status(bond.id).await?;
        let mut options = status.options.clone();
        let slaves = if status.slaves.is_empty() { Slaves::None } else { Slaves::Present };
        let mut notes = Vec::new();
        for (key, value) in settings {
            match Setting::parse(key, value)? {
                Setting::Option(option) => {
                    let said = options.apply(option, slaves)?;
                    notes.extend(said.iter().map(ToString::to_string));
                }
                Setting::ActiveSlave(_) if settings.len() > 1 => return Err(AgentError::ActiveSlaveAlone),
                Setting::ActiveSlave(slave) => {
                    let slot = slave.map(|slave| slot_of(name, &status, &slave)).transpose()?;
                    self.machine.engine.request(bond.id, Event::SetActiveSlave(slot)).await??;
                    return Ok(notes);
                }
            }
        }
        let event = Event::SetOptions(Box::new(options.clone()));
        self.machine.engine.request(bond.id, event).await??;
        for option in settings.iter().filter_map(|(key, _)| Elects::of(key)) {
            self.machine.engine.request(bond.id, Event::Written(option)).await??;
        }
        let _ = bond.effects.send(Effect::Options(Box::new(options)));
        for (key, value) in settings {
            info!("{name}: {key}={value}");
        }
        for note in &notes {
            info!("{name}: {note}");
        }
        Ok(notes)
    }

    /// Takes one bond down.
    pub async fn down(&self, name: &str) -> Result<(), AgentError> {
        let bond = self.bonds.lock().await.remove(name);
        let bond = bond.ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        self.take_down(name, &bond).await
    }

    /// A bond whose port is gone carries nothing any more: somebody has deleted its device. A bond0 that is
    /// moved to another network namespace leaves its port behind.
    async fn take_down_without_port(&self, ifindex: u32) {
        let mut bonds = self.bonds.lock().await;
        let lost = bonds.extract_if(.., |_, bond| bond.maps.bond().port_ifindex() == ifindex).next();
        drop(bonds);
        let Some((name, bond)) = lost else { return };
        warn!("{name}: {} was deleted, and the bond with it; restart the agent to have it again", bond.port);
        if let Err(error) = self.take_down(&name, &bond).await {
            warn!("{name}: not everything could be put back: {error}; try `xbond down {name} --force`");
        }
    }
}

/// How an agent ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By each bond's on_exit.
    AsConfigured,
    Down,
}

impl Bond {
    fn report(&self, name: &str, status: &BondStatus) -> Result<json::Bond, AgentError> {
        let slave_stats = status.slaves.iter().map(|slave| self.maps.stats(slave.slot.into()));
        let around = Surroundings {
            name: name.to_owned(),
            datapath: self.hook.to_string(),
            port: self.port.clone(),
            absent: self.absent(status).map(|wanted| wanted.name().to_owned()).collect(),
            port_stats: self.maps.stats(PORT_STATS)?,
            slave_stats: slave_stats.collect::<Result<_, _>>()?,
        };
        Ok(json::Bond::new(status, around))
    }
}

fn slot_of(bond: &str, status: &BondStatus, slave: &str) -> Result<Slot, AgentError> {
    let found = status.slaves.iter().find(|known| known.name == slave);
    found
        .and_then(|slave| Slot::new(slave.slot))
        .ok_or_else(|| AgentError::NoSuchSlave { bond: bond.to_owned(), slave: slave.to_owned() })
}

/// Starts the thread that hands link events to the engine as they come. What it returns tells them, too, for
/// what is not as urgent.
fn listen_to_links(engine: EngineHandle) -> Result<mpsc::UnboundedReceiver<LinkEvent>, AgentError> {
    let io = |what| move |source| AgentError::Io { what, source };
    let (told, events_told) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("cannot start the link events' runtime"))?;
    let mut events = {
        let _inside = runtime.enter();
        LinkEvents::open()?
    };
    let listen = async move {
        loop {
            match events.next().await {
                Ok(event) => {
                    engine.send(Input::Device(event.clone()));
                    let _ = told.send(event);
                }
                Err(error) => {
                    warn!("no link events any more, miimon alone watches: {error}");
                    return;
                }
            }
        }
    };
    thread::Builder::new()
        .name("link-events".into())
        .spawn(move || runtime.block_on(listen))
        .map_err(io("cannot start a thread"))?;
    Ok(events_told)
}
