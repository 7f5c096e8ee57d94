//! The agent: it brings bonds up, looks after them, and takes them down.
//!
//! Decisions are made on the [`bond::engine_thread`]; what takes time is done by a task per bond ([`bond::worker`]);
//! this module joins the two with the machine, the control socket and the signals.

pub(crate) mod bond;
pub mod kind;
mod lifecycle;
pub mod server;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        self as sync, Arc, Barrier, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bond_common::abi::{ABI_VERSION, Slot};
use bond_core::{
    Refusal,
    event::{Elects, Event},
    name::{BondName, NameError, shell_word},
    options::{BondOptions, OptionError, Setting, Slaves},
    status::BondStatus,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, oneshot, watch::Receiver},
    task::AbortHandle,
    time::MissedTickBehavior,
};
use tracing::{info, warn};

pub use crate::store::record::owner_of;
use crate::{
    agent::{
        bond::{
            engine_thread::{BondId, EngineHandle, Input, Stopping},
            interface::{Host, Queues},
            link_mail::LinkFeed,
            work::{End, Work},
            worker::Effect,
        },
        kind::Kind,
        lifecycle::{
            confirm::Confirmation,
            end::{take_down, undo},
            lost::Lost,
            machine::{Machine, Tasks},
            slaves::{Arrivals, Wanted},
        },
        server::{
            access::Access,
            counters::CounterCache,
            events::Feed,
            metrics::{Bound, Scrapes},
            retries::{self, Retries},
        },
    },
    config::{BondConfig, Change, Config, ConfigError, OnExit, Origin, Problem, Source, Writers, settings},
    report::{
        event::{BondChange, What},
        lines,
        moment::{Moment, monotonic},
        repeats::{Repeats, left_out},
        text::{self, ORPHANED},
    },
    store::record::{self, Record, System},
    store::{
        collect::{self, Extent},
        paths::{Claim, Lasting, PathError, Paths, lasting},
        receipts::History,
    },
    sys::{
        KernelDevices, SysError, ThreadRuntime, caps,
        dataplane::{
            BpfDataPlanes, BpfPins, DataPlaneError, DeviceReader, Hook, Kernel, KernelError, Maps, TcAttach,
        },
        directory::Identity,
        hook_events, limits,
        memory::{self, Frugal},
        netlink::{AddressEvents, LinkEvents, PairKind},
        netns, notify, signals,
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
    Place(#[from] PathError),
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {problem}; it is damaged, or was not written by xbond")]
    BadRecord { path: PathBuf, problem: String },
    #[error(
        "{path}: version {found}; xbond reads version {wanted} here: use the version of xbond that wrote it"
    )]
    OtherRecord { path: PathBuf, found: u32, wanted: u32 },
    #[error("{bond}: {problem}")]
    Small { bond: String, problem: Problem },
    #[error("{bond} ({origin}): {error}")]
    Unconfigured { bond: String, origin: String, error: Box<SysError> },
    #[error("{0}: no such bond; `xbond show` lists them")]
    NoSuchBond(String),
    #[error(
        "{bond}: its maps are of version {found}, this xbond reads {ABI_VERSION}; use the xbond that made them"
    )]
    OtherMaps { bond: String, found: u32 },
    #[error("{0}: {ORPHANED}")]
    Orphaned(String),
    #[error("{0}")]
    Lost(String),
    #[error("{0}: no agent left a bond of this name behind in this network namespace")]
    NothingLeft(String),
    #[error(
        "{bond}: its programs and maps are gone, but its interfaces are as it left them, up: found.json says how they were \
         before, and cannot be used ({fault}); to do: {commands}, and what they had of addresses, routes, offloads and MTU"
    )]
    NotPutBack { bond: String, fault: String, commands: String },
    #[error(
        "{bond}: {} in found.json, but nothing in the kernel confirms that: no alias xbond:{bond} (ip -d link), and no \
         program of {bond}. Not changed; all else of {bond} is removed. If {bond} had {}: {}; xbond down {} --force. If \
         not: rm -r {}", are(names), them(names), aliases(names, bond), shell_word(.bond), shell_word(files.display())
    )]
    Unconfirmed { bond: String, names: Vec<String>, files: PathBuf },
    #[error(
        "{bond}: not restored: {failures}; found.json keeps how that was found, all else of {bond} is removed. To try again: \
         xbond down {} --force. To leave it as it is: rm -r {}", shell_word(.bond), shell_word(files.display())
    )]
    NotRestored { bond: String, failures: String, files: PathBuf },
    #[error("{bond} has no slave {slave}; `xbond show {}` lists them", shell_word(.bond))]
    NoSuchSlave { bond: String, slave: String },
    #[error(
        "{slave}: is a slave of {bond} already; xbond set {} --slave {} changes its options", shell_word(.bond),
        shell_word(.slave)
    )]
    AlreadySlave { bond: String, slave: String },
    #[error("{slave}: queue_id={queue_id}: {bond} {queues}")]
    NoSuchQueue { bond: String, slave: String, queue_id: u16, queues: Queues },
    #[error(
        "{0}: this kernel makes no netkit pairs with 16 transmit queues (Linux 6.7 on, with CONFIG_NETKIT; 7.3 does \
         not); leave pair out, or use pair=veth"
    )]
    NoNetkit(String),
    #[error("{name}: an interface of this name exists already ({kind}); choose another name for the bond")]
    NameTaken { name: String, kind: String },
    #[error(
        "{port}: an interface of this name exists already, and the port of {bond} would have it; rename it, or \
         choose another name for the bond"
    )]
    PortNameTaken { bond: String, port: String },
    #[error(
        "{bond} was left by another agent and cannot be adopted: {why}; it is as it was left, and still carries packets; to \
         create it again, which interrupts it: xbond down {} --force",
        shell_word(.bond)
    )]
    CannotAdopt { bond: String, why: String },
    #[error("{0}: this agent has it already; change it by `xbond set`, or by its file and `xbond reload`")]
    HasBond(String),
    #[error("{slave}: has MAC {found}, but HWADDR says {wanted}; this is another NIC than the file means")]
    OtherNic { slave: String, found: bond_common::mac::Mac, wanted: bond_common::mac::Mac },
    #[error("{0}; everything is as it was")]
    BadConfig(#[from] ConfigError),
    #[error(
        "this agent was started by flags: there is no file to read again; use `xbond set`, `xbond add` and \
         `xbond down`"
    )]
    NoFiles,
    #[error("{bond}: {what} cannot be changed while the bond is there: xbond down {}, then xbond reload", shell_word(.bond))]
    NeedsAnother { bond: String, what: &'static str },
    #[error(
        "{bond}: {slave}: {key} cannot be changed while it is a slave: xbond del-slave {} {}, then xbond \
         reload",
        shell_word(.bond), shell_word(.slave)
    )]
    NeedsReleased { bond: String, slave: String, key: &'static str },
    #[error("{bond}: its interface is in another network namespace; {what} has to be changed there")]
    Elsewhere { bond: String, what: &'static str },
    #[error("{origin}: {group}: {why}")]
    NoSuchGroup { origin: Origin, group: String, why: &'static str },
    #[error(
        "{bond}: {key} is a setting of xbond, no option of the driver, and `xbond set` does not change it; {}",
        match .change {
            Change::Live => "change it in the bond's file, then: xbond reload",
            Change::Recreate => "it needs another bond: change it in the file or the flags, xbond down, then xbond reload or \
                                 xbond add",
        }
    )]
    OwnSetting { bond: String, key: String, change: Change },
    #[error("active_slave is a request, not an option; set it alone")]
    ActiveSlaveAlone,
    #[error("cannot serve metrics at {address}: {source}; choose another address or port")]
    Metrics { address: SocketAddr, source: io::Error },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error(
        "not confirmed within {seconds} s: everything is as it was; to keep it, run `xbond confirm` in that time"
    )]
    NotConfirmed { seconds: u64 },
    #[error(
        "the {seconds} s for a confirmation are over: everything is being undone; to try again: xbond run --confirm"
    )]
    ConfirmedTooLate { seconds: u64 },
    #[error(
        "{bond}: was not confirmed within {seconds} s, while no agent ran: it is removed now, slaves as they were found"
    )]
    TrialOver { bond: String, seconds: u64 },
    #[error(
        "{bond}: another agent left it running, and --confirm could not undo what a further agent changes of it; nothing was \
         changed: leave --confirm out to adopt it, or remove it first: xbond down {} --force", shell_word(.bond)
    )]
    NotOnTrial { bond: String },
    #[error("not confirmed, the time is still running: {error}")]
    NotRecorded { error: Box<AgentError> },
    #[error("nothing waits for a confirmation; `xbond run --confirm SECONDS` does")]
    NothingToConfirm,
    #[error("interrupted; everything is as it was")]
    Interrupted,
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn them(names: &[String]) -> &'static str {
    if names.len() == 1 { "it" } else { "them" }
}

/// Commands that say whose interfaces are.
fn aliases(names: &[String], bond: &str) -> String {
    let alias = |name: &String| {
        let (name, alias) = (shell_word(name), shell_word(format!("xbond:{bond}")));
        format!("ip link set {name} alias {alias}")
    };
    names.iter().map(alias).collect::<Vec<_>>().join("; ")
}

/// How often the pins are looked at.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// So many times as often as at the memory.
const LOOKS_AT_MEMORY: u32 = 5;

/// After this time an agent that has started begins with no further directory of an ended network namespace.
const TIME_TO_COLLECT: Duration = Duration::from_secs(5);

/// Threads that run tasks.
const WORKERS: usize = 3;

/// Threads that wait until a worker waits for the kernel. With more bonds that do so at once, their tasks wait for each
/// other where no further thread can be started.
const SPARE_THREADS: usize = 4;

/// Until the agent ends. tokio adds it to the current time.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// How [`run`] treats what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingSlaves {
    /// Named on the command line: a mistake.
    Refuse,
    /// Named in a file: they join when they appear.
    #[default]
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
    /// Where `config` was read; None if flags said it.
    pub source: Option<Source>,
    /// Instead of what files say.
    pub writers: Option<Writers>,
    pub link_events: LinkEventSource,
    /// None: as this kernel does it best.
    pub tc_attach: Option<TcAttach>,
    /// Undo everything after this time, unless it is confirmed.
    pub confirm: Option<Duration>,
}

/// One agent of one network namespace.
pub struct Agent {
    started: Moment,
    machine: Machine,
    /// Held to find, insert or remove one, and for nothing that may wait: readers need it.
    bonds: sync::Mutex<BTreeMap<BondName, Arc<Bond>>>,
    /// Taken after [`Self::phase`]; held for nothing that may wait.
    lost: Mutex<BTreeMap<BondName, Lost>>,
    next_id: AtomicU32,
    /// Held by whoever makes bonds, takes them down, or goes through all of them.
    phase: Mutex<Phase>,
    /// Held by the reload that reads files or applies them; taken before [`Self::phase`].
    reloading: Mutex<()>,
    source: Option<Source>,
    /// By the command line.
    writers: Option<Writers>,
    access: RwLock<Access>,
    claim: sync::Mutex<Claim>,
    serving: sync::Mutex<Option<Serving>>,
    scrapes: Scrapes,
    retries: Retries,
    counters: Arc<CounterCache>,
}

/// The control socket that is served.
struct Serving {
    identity: Option<Identity>,
    task: AbortHandle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// No bond is made any more.
    Ending,
}

/// What a request did that may do several things.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A line each.
    pub changes: Vec<String>,
    /// A sentence each.
    pub failures: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Of the first failure.
    pub kind: Option<Kind>,
    /// The caller logs the failures.
    pub is_quiet: bool,
}

impl Outcome {
    fn failed(error: &AgentError) -> Self {
        Self { failures: vec![error.to_string()], kind: Some(error.kind()), ..Self::default() }
    }

    fn changed(&mut self, line: String) {
        info!("{line}");
        self.changes.push(line);
    }

    /// With the name of the bond that it is about.
    fn fail(&mut self, bond: &str, error: &AgentError) {
        let sentence = of_bond(bond, error.to_string());
        if !self.is_quiet {
            warn!("{sentence}");
        }
        self.kind.get_or_insert(error.kind());
        self.failures.push(sentence);
    }
}

/// A sentence that begins with the name of the bond that it is about, as many do by themselves.
pub fn of_bond(bond: &str, sentence: String) -> String {
    let is_named = sentence.strip_prefix(bond).is_some_and(|rest| rest.starts_with([':', ' ']));
    if is_named { sentence } else { format!("{bond}: {sentence}") }
}

/// A bond of this agent.
struct Bond {
    id: BondId,
    past: Past,
    hook: Hook,
    queues: Queues,
    host: Host,
    pair: Option<PairKind>,
    port: String,
    /// bond0 was moved to another network namespace.
    is_elsewhere: AtomicBool,
    /// It is removed, unless it is confirmed.
    on_trial: AtomicBool,
    maps: Arc<Maps>,
    effects: Work,
    history: History,
    /// How it was after the last event that its engine has handled.
    status: Receiver<BondStatus>,
    /// The pins were there when they were looked at last.
    pinned: AtomicBool,
    /// Interfaces that appeared or changed, and that may be slaves of a file.
    arrivals: sync::Mutex<Arrivals>,
    /// Held by whoever changes the bond, from the first question to the last step, which may wait for the kernel. Readers do
    /// without.
    turn: Mutex<()>,
    goal: sync::Mutex<Arc<Goal>>,
}

/// What was asked for: at first, and by changes since.
#[derive(Clone)]
struct Goal {
    config: BondConfig,
    /// The agent's own files name it: whether it is there is their business.
    of_files: bool,
    /// The slaves of its file; none of a bond that was made by flags.
    wanted: Vec<Wanted>,
}

impl Bond {
    /// What is asked for by now.
    fn goal(&self) -> Arc<Goal> {
        Arc::clone(&self.locked_goal())
    }

    /// Changes what is asked for. `change` must not wait.
    fn change_goal<T>(&self, change: impl FnOnce(&mut Goal) -> T) -> T {
        change(Arc::make_mut(&mut *self.locked_goal()))
    }

    fn locked_goal(&self) -> MutexGuard<'_, Arc<Goal>> {
        // Poisoned or not, an Arc is whole.
        self.goal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_on_trial(&self) -> bool {
        self.on_trial.load(Ordering::Relaxed)
    }

    fn set_on_trial(&self, on_trial: bool) {
        self.on_trial.store(on_trial, Ordering::Relaxed);
    }

    /// ifindexes of bond0, the port and the slaves.
    fn devices(&self) -> Vec<u32> {
        let slaves = self.status.borrow().slaves.iter().map(|slave| slave.ifindex).collect::<Vec<_>>();
        [self.host.device(), self.host.port()].into_iter().chain(slaves).collect()
    }

    /// As of the last event that the engine has handled. It waits for nothing.
    fn status(&self) -> BondStatus {
        self.status.borrow().clone()
    }
}

/// Runs an agent until it is told to stop. What needs more than the few capabilities that it keeps is done
/// before it has threads.
pub fn run(options: RunOptions) -> Result<(), AgentError> {
    let started = Moment::now();
    memory::be_frugal();
    caps::check()?;
    limits::check()?;
    limits::raise_files();
    limits::check_files(limits::FILES_OF_AGENT)?;
    limits::reserve_files();
    limits::check_threads(limits::THREADS_OF_AGENT)?;
    let io = |what| move |source| AgentError::Io { what, source };
    // Before there are threads, which have the same mask.
    signals::hold().map_err(io("cannot hold signals back"))?;
    for bond in &options.config.bonds {
        check_kernel(bond)?;
    }
    let retries = Retries::default();
    let metrics = retries::bind(options.config.metrics.as_ref(), &retries);
    let cookie = netns::cookie()?;
    let paths = Paths::of(cookie);
    let claim = paths.claim()?;
    let access = retries::access(options.writers.as_ref().or(options.config.writers.as_ref()), &retries)?;
    let socket = server::control::Socket::prepare(paths.open_run()?, &access);
    let socket = socket.map_err(|source| AgentError::File { path: paths.socket(), source })?;
    if let Some(readers) = access.readers() {
        // The socket may have to be made again.
        caps::join_group(readers);
    }
    let sysfs =
        Sysfs::mount().inspect_err(|error| warn!("no slave can have a queue_id: {error}")).ok().map(Arc::new);
    caps::keep_needed()?;
    lines::start().map_err(io("cannot start a thread"))?;

    let kernel = Kernel::read();
    let kernel = Arc::new(match options.tc_attach {
        Some(tc) => kernel.with_tc(tc),
        None => kernel,
    });
    let (kernel, reader) = match DeviceReader::new(&kernel) {
        Ok(reader) => (kernel, Some(Arc::new(reader))),
        Err(error) => {
            info!("links are known by netlink only, and the data plane does not read them: {error}");
            (Arc::new(Kernel::clone(&kernel).without_types()), None)
        }
    };
    let engine = EngineHandle::start(reader.clone()).map_err(io("cannot start a thread"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_keep_alive(FOREVER)
        .enable_all()
        .build()
        .map_err(io("cannot start the runtime"))?;
    start_spare_threads(&runtime);
    let answer = runtime.block_on(async {
        let devices = KernelDevices::open_apart()?.with_sysfs(sysfs);
        let tasks = Tasks::default();
        let RunOptions { config, source, writers, link_events, tc_attach: _, confirm } = options;
        let feed = Feed::default();
        let hook_changes = hook_events::listen();
        let machine = Machine {
            paths,
            cookie,
            planes: Arc::new(BpfDataPlanes::new(Arc::clone(&kernel))),
            kernel,
            reader,
            devices: Arc::new(devices),
            link_events,
            engine,
            tasks,
            path_lane: Arc::default(),
            hook_changes,
            feed,
            confirmation: Arc::new(Confirmation::new(confirm)),
            enslaving: Arc::default(),
        };
        let agent = Agent {
            started,
            machine,
            bonds: sync::Mutex::default(),
            lost: Mutex::new(BTreeMap::new()),
            next_id: AtomicU32::new(0),
            phase: Mutex::new(Phase::Serving),
            reloading: Mutex::new(()),
            source,
            writers,
            access: RwLock::new(access),
            claim: sync::Mutex::new(claim),
            serving: sync::Mutex::default(),
            scrapes: Scrapes::default(),
            retries,
            counters: Arc::default(),
        };
        Arc::new(agent).live(config, link_events, socket, metrics).await
    });
    // A reload that waits for a file system holds its thread, and not the end of the agent.
    runtime.shutdown_background();
    answer
}

/// Removes what agents of network namespaces that have ended left, on a thread of its own: the kernel may take its time,
/// and nothing of this agent depends on it.
fn collect_dead(here: u64) {
    let collect = move || {
        let until = Some(Instant::now() + TIME_TO_COLLECT);
        match collect::collect(Extent { dry_run: false, here, until }) {
            Ok(collection) => {
                if let Some(line) = collection.log_line() {
                    info!("{line}");
                }
            }
            Err(error) => warn!("directories of ended network namespaces were not removed: {error}"),
        }
    };
    if let Err(error) = thread::Builder::new().name("gc".into()).spawn(collect) {
        warn!("directories of ended network namespaces were not removed: cannot start a thread: {error}");
    }
}

/// Starts the threads that take the place of workers which wait for the kernel, and read files: when they are needed, the
/// machine may have no further thread for this process.
fn start_spare_threads(runtime: &tokio::runtime::Runtime) {
    let all = Arc::new(Barrier::new(SPARE_THREADS + 1));
    for _ in 0..SPARE_THREADS {
        let all = Arc::clone(&all);
        // They wait for each other, so that each has a thread.
        runtime.spawn_blocking(move || all.wait());
    }
    all.wait();
}

/// Whether this kernel can do it.
fn check_kernel(bond: &BondConfig) -> Result<(), KernelError> {
    let hook = bond::worker::hook(bond.datapath, bond.port.is_some());
    Kernel::check(hook, bond.mtu.unwrap_or(lifecycle::create::DEFAULT_MTU))
}

/// Takes down what an agent left behind. Returns what should be known about it.
pub fn down_without_agent(paths: &Paths, bond: &BondName) -> anyhow::Result<Vec<String>> {
    caps::check()?;
    paths.act_as_their_owner()?;
    let _claim = paths.claim()?;
    if !paths.has(bond) {
        paths.leave();
        return Err(AgentError::NothingLeft(bond.to_string()).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let notes = runtime.block_on(async {
        let system = System { devices: &KernelDevices::open()?, pins: &BpfPins };
        record::undo(paths, bond, &system).await
    })?;
    paths.leave();
    Ok(notes)
}

/// SIGINT and SIGTERM: the end that on_exit decides about. SIGHUP: files are read again.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

#[derive(PartialEq, Eq)]
enum Told {
    End,
    Reload,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let listening = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // Those that came since the start were held back.
        signals::release()?;
        Ok(listening)
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

#[cfg(test)]
impl Agent {
    /// An agent of bonds in memory, without files of its own and without a control socket.
    fn in_memory(machine: Machine) -> Result<Self, AgentError> {
        let claim = machine.paths.claim_below()?;
        Ok(Self {
            started: Moment::now(),
            machine,
            bonds: sync::Mutex::default(),
            lost: Mutex::new(BTreeMap::new()),
            next_id: AtomicU32::new(1),
            phase: Mutex::new(Phase::Serving),
            reloading: Mutex::new(()),
            source: None,
            writers: None,
            access: RwLock::new(Access::of(None)?),
            claim: sync::Mutex::new(claim),
            serving: sync::Mutex::default(),
            scrapes: Scrapes::default(),
            retries: Retries::default(),
            counters: Arc::default(),
        })
    }
}

impl Agent {
    async fn live(
        self: Arc<Self>,
        config: Config,
        link_events: LinkEventSource,
        socket: server::control::Socket,
        metrics: Option<Bound>,
    ) -> Result<(), AgentError> {
        let io = |what| move |source| AgentError::Io { what, source };
        let is_told_to_end = signals::is_end_waiting();
        let mut signals = Signals::listen().map_err(io("cannot listen to signals"))?;
        if is_told_to_end {
            socket.remove();
            self.end(Ending::Undo).await?;
            return Err(AgentError::Interrupted);
        }
        for note in &config.notes {
            info!("{note}");
        }
        let link_events = match link_events {
            // Before bonds are made, whose addresses they tell of.
            LinkEventSource::Netlink => {
                Some((listen_to_links(self.machine.engine.clone())?, AddressEvents::open()?))
            }
            LinkEventSource::Off => None,
        };
        for bond in &config.bonds {
            if let Err(error @ AgentError::NotOnTrial { .. }) = self.check_trial(&bond.name) {
                socket.remove();
                self.end(Ending::Undo).await?;
                return Err(error);
            }
        }
        let mut failures = Vec::new();
        for bond in config.bonds {
            let (name, wanted) = (bond.name.clone(), bond.clone());
            let (id, missing) = (self.new_id(), self.missing_slaves());
            // What goes on already is taken over as a whole; a signal that comes meanwhile is heard after it.
            let answer = match self.adopt(id, &bond, missing).await {
                Ok(Adoption::Done) => Ok(()),
                Ok(Adoption::NothingLeft) => tokio::select! {
                    answer = self.make(id, bond, missing) => answer,
                    () = signals.end() => Err(AgentError::Interrupted),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = answer {
                undo(&self.machine, id, &name, &error).await;
                if self.source.is_some() && !matches!(error, AgentError::Interrupted) {
                    failures.push((wanted, error));
                    continue;
                }
                socket.remove();
                self.end(Ending::Undo).await?;
                return Err(error);
            }
            if let Some(bond) = self.find(&name) {
                bond.change_goal(|goal| goal.of_files = self.source.is_some());
            }
        }
        // Bonds of files are independent of each other. Without any, it is as with flags: there is nothing to look after.
        let is_over = |(_, error): &(_, AgentError)| matches!(error, AgentError::TrialOver { .. });
        let is_refused = self.bonds().is_empty() && !failures.iter().any(is_over);
        for (bond, error) in failures {
            if let AgentError::TrialOver { seconds, .. } = error {
                warn!("{error}");
                self.remember_unconfirmed(bond, true, seconds).await;
                continue;
            }
            if is_refused {
                socket.remove();
                self.end(Ending::Undo).await?;
                return Err(error);
            }
            self.remember_failed(bond, error.to_string()).await;
        }

        for name in self.orphaned() {
            warn!("{name}: {ORPHANED}");
        }
        if let Err(error) = self.serve(socket) {
            self.end(Ending::Undo).await?;
            return Err(error);
        }
        self.accept_askers();
        if let Some(Err(error)) = metrics.map(|bound| self.serve_metrics(bound)) {
            warn!("{error}");
        }
        tokio::spawn(Arc::clone(&self).retry_missing());
        if let Some((link_events, address_events)) = link_events {
            tokio::spawn(Arc::clone(&self).follow_links(link_events));
            tokio::spawn(Arc::clone(&self).follow_addresses(address_events));
        }
        let agent = Arc::clone(&self);
        tokio::spawn(async move { agent.keep_house().await });
        self.say_ready().await?;
        notify::ready();
        self.say_status().await;
        collect_dead(self.machine.cookie);
        if let Some(interval) = notify::watchdog() {
            let engine = self.machine.engine.clone();
            tokio::spawn(async move {
                // Fed by whoever decides: an agent whose engine hangs is started anew.
                notify::feed(interval, || engine.is_alive()).await;
            });
        }
        self.begin_trial().await;
        let ending = loop {
            tokio::select! {
                told = signals.next() => match told {
                    // Beside, so that an end need not wait for this loop.
                    Told::Reload => {
                        let agent = Arc::clone(&self);
                        tokio::spawn(async move { agent.reload().await });
                    }
                    Told::End => break Ending::AsConfigured,
                },
                trial = self.machine.confirmation.failed() => {
                    // Bonds of files are not made again by an agent that keeps running.
                    if self.machine.confirmation.is_own() || self.source.is_none() {
                        break Ending::NotConfirmed { seconds: trial.seconds() };
                    }
                    self.undo_trial(&trial).await;
                }
            }
        };
        notify::stopping();
        self.machine.confirmation.end();
        // Nobody asks any more; what was begun is brought to its end.
        if let Some(serving) = self.serving().take() {
            serving.task.abort();
        }
        self.end(ending).await?;
        match ending {
            Ending::NotConfirmed { seconds } => Err(AgentError::NotConfirmed { seconds }),
            Ending::AsConfigured | Ending::Undo => Ok(()),
        }
    }

    /// Answers at a control socket, and at no other one.
    fn serve(self: &Arc<Self>, socket: server::control::Socket) -> Result<(), AgentError> {
        let paths = &self.machine.paths;
        let listener = socket.open().map_err(|source| AgentError::File { path: paths.socket(), source })?;
        let task = tokio::spawn(server::control::serve(listener, Arc::clone(self))).abort_handle();
        let serving = Serving { identity: paths.socket_identity(), task };
        if let Some(former) = self.serving().replace(serving) {
            former.task.abort();
        }
        paths.link_socket();
        Ok(())
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        // Poisoned or not, it is whole.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        // Poisoned or not, there is a lock.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connections of other agents, which want to know whose the socket is, so that it never has too many.
    fn accept_askers(&self) {
        let Some(socket) = self.claim().take_socket() else { return };
        let listener = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
        match listener {
            Ok(listener) => drop(tokio::spawn(async move {
                loop {
                    if listener.accept().await.is_err() {
                        tokio::time::sleep(BETWEEN_LOOKS).await;
                    }
                }
            })),
            Err(error) => warn!("an agent whose directories are removed is not found: {error}"),
        }
    }

    /// Makes again what another process has removed of the run directory: lock, control socket, and records.
    fn keep_places(self: &Arc<Self>, failures: &mut Repeats) {
        let paths = &self.machine.paths;
        let remade = paths.reclaim(&mut self.claim());
        let is_served = |serving: &Serving| serving.identity == paths.socket_identity();
        let served = match &remade {
            Ok(_) if self.serving().as_ref().is_none_or(is_served) => Ok(false),
            Ok(_) => self.serve_again().map(|()| true),
            Err(_) => Ok(false),
        };
        let shown = paths.socket();
        match (remade, served) {
            (Ok(false), Ok(false)) => {}
            (Ok(_), Ok(_)) => {
                warn!("{}: was removed by another process; it is there again", shown.display());
            }
            (Err(error), _) => self.warn_of_places(failures, &error.to_string()),
            (_, Err(error)) => self.warn_of_places(failures, &error.to_string()),
        }
        for (name, bond) in self.all() {
            if !Record::is_there(paths, &name) {
                bond.effects.read(|reads| reads.record = true);
            }
        }
    }

    fn warn_of_places(&self, failures: &mut Repeats, error: &str) {
        if let Some(count) = failures.admit(monotonic(), error) {
            let shown = self.machine.paths.socket();
            warn!("{}: was removed by another process: {error}{}", shown.display(), left_out(count));
        }
    }

    fn serve_again(self: &Arc<Self>) -> Result<(), AgentError> {
        let paths = &self.machine.paths;
        let socket = server::control::Socket::prepare(paths.open_run()?, &self.access());
        self.serve(socket.map_err(|source| AgentError::File { path: paths.socket(), source })?)
    }

    /// Bonds that another agent has left here, and that nobody looks after.
    fn orphaned(&self) -> Vec<String> {
        let left = self.machine.paths.bonds();
        let bonds = self.bonds();
        let is_unserved = |name: &BondName| !bonds.contains_key(name) && self.is_left(name);
        left.into_iter().filter(is_unserved).map(String::from).collect()
    }

    fn bonds(&self) -> MutexGuard<'_, BTreeMap<BondName, Arc<Bond>>> {
        // Poisoned or not, a map of bonds is whole.
        self.bonds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bonds as they are now, by name.
    fn all(&self) -> Vec<(BondName, Arc<Bond>)> {
        self.bonds().iter().map(|(name, bond)| (name.clone(), Arc::clone(bond))).collect()
    }

    fn find(&self, name: &str) -> Option<Arc<Bond>> {
        self.bonds().get(name).cloned()
    }

    /// # Errors
    /// This agent has no such bond.
    fn bond(&self, name: &BondName) -> Result<Arc<Bond>, AgentError> {
        self.find(name).ok_or_else(|| self.no_such_bond(name))
    }

    fn is_left(&self, bond: &BondName) -> bool {
        self.machine.paths.is_pinned(bond)
    }

    fn no_such_bond(&self, bond: &BondName) -> AgentError {
        if self.is_left(bond) {
            AgentError::Orphaned(bond.to_string())
        } else {
            AgentError::NoSuchBond(bond.to_string())
        }
    }

    /// Once a second: tells bonds whose pins somebody has taken away, or put back. Of all bonds at once: each for itself
    /// would wake the agent as often as there are bonds. Now and then gives memory back.
    async fn keep_house(self: Arc<Self>) {
        let mut look = tokio::time::interval(BETWEEN_LOOKS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Frugal::default();
        let mut failures = Repeats::default();
        let mut missing = self.lost_bonds(None).await.len();
        for number in 1_u32.. {
            look.tick().await;
            if number.is_multiple_of(LOOKS_AT_MEMORY) {
                memory.look();
                self.make_lost_again().await;
                let lost = self.lost_bonds(None).await.len();
                if std::mem::replace(&mut missing, lost) != lost {
                    self.say_status().await;
                }
            }
            self.machine.engine.send(Input::CheckMaps);
            self.keep_places(&mut failures);
            for (name, bond) in self.all() {
                bond.effects.look(|looks| looks.path = true);
                let pinned = match self.machine.planes.pins().check(&self.machine.paths.pins_of(&name)) {
                    Ok(()) => true,
                    Err(DataPlaneError::Unpinned(_)) => false,
                    // Unknown is as it was.
                    Err(_) => continue,
                };
                if bond.pinned.swap(pinned, Ordering::Relaxed) != pinned {
                    bond.effects.read(|reads| reads.pinned = Some(pinned));
                }
            }
        }
    }

    fn new_id(&self) -> BondId {
        BondId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// By where the agent's bonds were described.
    fn missing_slaves(&self) -> MissingSlaves {
        if self.source.is_some() { MissingSlaves::Await } else { MissingSlaves::Refuse }
    }

    fn access(&self) -> Access {
        // Poisoned or not, the groups are whole.
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One line per bond on standard output: whoever started the agent may go on.
    async fn say_ready(&self) -> Result<(), AgentError> {
        let mut ready = Vec::new();
        for (name, bond) in self.all() {
            ready.push(self.is_ready(&name, &bond).await?);
        }
        ready.extend(self.lost_bonds(None).await);
        if ready.is_empty() {
            ready.push("ready: no bonds; `xbond add` makes one".to_owned());
        }
        ready.iter().for_each(|line| lines::print(line));
        Ok(())
    }

    /// Has systemd show which bonds are not there.
    async fn say_status(&self) {
        let bonds = self.bonds().len();
        let lost = self.lost_bonds(None).await;
        notify::status(&format!(
            "{bonds} {} up{}",
            if bonds == 1 { "bond" } else { "bonds" },
            lost.iter().map(|sentence| format!("; {sentence}")).collect::<String>()
        ));
    }

    async fn is_ready(&self, name: &str, bond: &Bond) -> Result<String, AgentError> {
        let status = self.machine.engine.status(bond.id).await?;
        let active = status.active_slave.as_deref().unwrap_or("none");
        let carrier = if status.carrier { "up" } else { "down" };
        let absent: Vec<_> = bond.goal().absent(&status).map(|wanted| wanted.name().to_owned()).collect();
        let missing = match absent.as_slice() {
            [] => String::new(),
            names => format!("; not enslaved yet: {}", names.join(", ")),
        };
        Ok(format!("{name} ready: active slave {active}, carrier {carrier}, datapath {}{missing}", bond.hook))
    }

    /// Brings up further bonds: each of them whole, or not at all.
    pub async fn add_bonds(&self, config: Config, missing: MissingSlaves) -> Outcome {
        if let Err(error) = config.check() {
            return Outcome::failed(&error.into());
        }
        let phase = self.phase.lock().await;
        if *phase == Phase::Ending {
            return Outcome::failed(&Stopping.into());
        }
        let mut outcome = Outcome::default();
        for bond in config.bonds {
            self.add_or_undo(bond, missing, &mut outcome).await;
        }
        outcome
    }

    /// Whoever calls it holds [`Self::phase`].
    async fn add_or_undo(&self, config: BondConfig, missing: MissingSlaves, outcome: &mut Outcome) {
        let (id, name) = (self.new_id(), config.name.clone());
        if self.find(&name).is_some() {
            return outcome.fail(&name, &AgentError::HasBond(name.to_string()));
        }
        if let Err(error) = check_kernel(&config) {
            return outcome.fail(&name, &error.into());
        }
        let answer = match self.adopt(id, &config, missing).await {
            Ok(Adoption::Done) => Ok(()),
            Ok(Adoption::NothingLeft) => self.make(id, config, missing).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answer {
            undo(&self.machine, id, &name, &error).await;
            return outcome.fail(&name, &error);
        }
        if let Some(bond) = self.find(&name) {
            match self.is_ready(&name, &bond).await {
                Ok(line) => outcome.changed(line),
                Err(error) => outcome.fail(&name, &error),
            }
        }
    }

    /// Takes over a bond that another agent has left.
    async fn adopt(
        &self,
        id: BondId,
        config: &BondConfig,
        missing: MissingSlaves,
    ) -> Result<Adoption, AgentError> {
        let trial = self.check_trial(&config.name)?;
        let Some(made) = lifecycle::adopt::adopt(&self.machine, id, config, missing).await? else {
            return Ok(Adoption::NothingLeft);
        };
        self.insert(id, config.clone(), made, Past::Adopted, trial.is_some()).await;
        if let Some(trial) = trial {
            warn!("{}", text::on_trial(&config.name, trial.left()));
            self.machine.confirmation.inherit(trial);
        }
        Ok(Adoption::Done)
    }

    /// Brings a bond up. If it fails, or is dropped half-way, [`undo`] restores what it changed.
    async fn make(&self, id: BondId, config: BondConfig, missing: MissingSlaves) -> Result<(), AgentError> {
        let made = lifecycle::create::bring_up(&self.machine, id, &config, missing).await?;
        let (name, confirmation) = (config.name.clone(), &self.machine.confirmation);
        self.insert(id, config, made, Past::Made, confirmation.is_own()).await;
        // A confirmation from now on finds the bond.
        if confirmation.is_own()
            && confirmation.of_new_bond().is_none()
            && let Some(bond) = self.find(&name)
        {
            bond.end_trial().await?;
        }
        Ok(())
    }

    async fn insert(
        &self,
        id: BondId,
        config: BondConfig,
        made: lifecycle::create::Created,
        past: Past,
        on_trial: bool,
    ) {
        let lifecycle::create::Created { hook, queues, host, pair, port, maps, started, wanted } = made;
        let lifecycle::start::Started { effects, history, status } = started;
        let name = config.name.clone();
        self.machine.feed.tell(&name, What::Bond { change: BondChange::Up });
        let goal = Goal { config, of_files: false, wanted };
        let is_elsewhere = past == Past::Adopted
            && self
                .machine
                .devices
                .link_by_index(host.port())
                .await
                .is_ok_and(|port| port.link_netns.is_some());
        let bond = Bond {
            id,
            past,
            hook,
            queues,
            host,
            pair,
            port,
            is_elsewhere: AtomicBool::new(is_elsewhere),
            on_trial: AtomicBool::new(on_trial),
            maps,
            effects,
            history,
            status,
            pinned: AtomicBool::new(true),
            arrivals: sync::Mutex::default(),
            turn: Mutex::default(),
            goal: sync::Mutex::new(Arc::new(goal)),
        };
        let bond = Arc::new(bond);
        self.bonds().insert(name.clone(), Arc::clone(&bond));
        // For whoever asks when the kernel does not answer.
        let (counters, devices) = (Arc::clone(&self.counters), Arc::clone(&self.machine.devices));
        tokio::spawn(async move { counters.refresh(&devices, &bond.devices()).await });
        self.lost.lock().await.remove(&name);
    }

    async fn end(&self, ending: Ending) -> Result<(), AgentError> {
        // Waits for a bond that is being created.
        *self.phase.lock().await = Phase::Ending;
        limits::release_files();
        let mut answer = Ok(());
        let bonds = std::mem::take(&mut *self.bonds());
        for (name, bond) in bonds {
            let keep = match ending {
                Ending::AsConfigured => bond.goal().config.on_exit == OnExit::Keep,
                Ending::Undo => bond.past == Past::Adopted,
                Ending::NotConfirmed { .. } if bond.is_on_trial() => false,
                Ending::NotConfirmed { .. } => bond.goal().config.on_exit == OnExit::Keep,
            };
            let checked = self.machine.planes.pins().check(&self.machine.paths.pins_of(&name));
            let pins = match &checked {
                Err(error @ DataPlaneError::Unpinned(_)) => Err(error.to_string()),
                // Pins that cannot be looked for are not gone.
                Ok(()) | Err(_) => match lasting() {
                    Lasting::Machine => Ok(text::KEPT),
                    Lasting::Unknown => Ok(text::LEFT_TO_MOUNT),
                    Lasting::Namespace => Err(text::PRIVATE_PINS.to_owned()),
                },
            };
            match (&pins, &checked) {
                (Err(error), _) if keep => warn!("{name}: it cannot be kept, and is taken down: {error}"),
                (Ok(_), Err(error)) if keep => {
                    warn!("{name}: its pins cannot be checked, and it is kept: {error}");
                }
                _ => {}
            }
            if let (true, Ok(kept_how)) = (keep, pins) {
                let (reply, kept) = oneshot::channel();
                bond.effects.end(End::Keep { reply });
                let _ = kept.await;
                self.machine.feed.tell(&name, What::Bond { change: BondChange::Kept });
                info!("{name}: {kept_how}");
                if let Ok(Some(trial)) = self.check_trial(&name) {
                    warn!("{}", text::on_trial(&name, trial.left()));
                }
            } else {
                answer = answer.and(self.take_down(&name, &bond).await.map(drop));
            }
        }
        self.machine.feed.end().await;
        self.machine.paths.leave();
        answer
    }

    /// Returns what should be known about it.
    async fn take_down(&self, name: &BondName, bond: &Bond) -> Result<Vec<String>, AgentError> {
        take_down(&self.machine, (name, bond.id), &bond.effects).await
    }

    /// Changes options of a bond; all of them, or none. Returns what should be known about it.
    pub async fn set(
        &self,
        name: &BondName,
        settings: &[(String, String)],
    ) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        // Held over the whole change: two that come at once do not undo each other.
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let mut options = status.options.clone();
        let slaves = if status.slaves.is_empty() { Slaves::None } else { Slaves::Present };
        let mut noted = Vec::new();
        for (key, value) in settings {
            if let Some(change) = settings::change_of(key) {
                return Err(AgentError::OwnSetting { bond: name.to_string(), key: key.clone(), change });
            }
            match Setting::parse(key, value)? {
                Setting::Option(option) => {
                    noted.extend(options.apply(option, slaves)?);
                }
                Setting::ActiveSlave(_) if settings.len() > 1 => return Err(AgentError::ActiveSlaveAlone),
                Setting::ActiveSlave(slave) => {
                    let slot = slave.map(|slave| slot_of(name, &status, &slave)).transpose()?;
                    self.machine.engine.request(bond.id, Event::SetActiveSlave(slot)).await??;
                    return Ok(Vec::new());
                }
            }
        }
        let mut notes: Vec<_> =
            noted.iter().filter(|note| options.still(note)).map(ToString::to_string).collect();
        if let Some(primary) = &options.primary
            && status.options.primary != options.primary
            && !status.slaves.iter().any(|slave| slave.name == *primary)
        {
            notes.push(format!("primary={primary}: is no slave yet; it takes over when it is one, and up"));
        }
        self.set_options(&bond, options).await?;
        for option in settings.iter().filter_map(|(key, _)| Elects::of(key)) {
            self.machine.engine.request(bond.id, Event::Written(option)).await??;
        }
        for (key, value) in settings {
            info!("{name}: {key}={value}");
            let (option, value) = (key.clone(), value.clone());
            self.machine.feed.tell(name, What::Option { slave: None, option, value });
        }
        for note in &notes {
            info!("{name}: {note}");
        }
        Ok(notes)
    }

    /// Whoever calls it has the bond's turn.
    async fn set_options(&self, bond: &Bond, options: BondOptions) -> Result<(), AgentError> {
        let before = self.machine.engine.status(bond.id).await?.options;
        let event = Event::SetOptions(Box::new(options.clone()));
        self.machine.engine.request(bond.id, event).await??;
        bond.effects.send(Effect::Options(Box::new(options.clone())));
        bond.change_goal(|goal| {
            let wished = &mut goal.config.options;
            let policy = if options.fail_over_mac == before.fail_over_mac {
                // Not asked for now: the bond may have another one than it was given.
                wished.fail_over_mac
            } else {
                options.fail_over_mac
            };
            *wished = BondOptions { fail_over_mac: policy, ..options };
        });
        Ok(())
    }

    /// Takes one bond down. Returns what should be known about it.
    pub async fn down(&self, name: &BondName) -> Result<Vec<String>, AgentError> {
        let _phase = self.phase.lock().await;
        let is_lost = self.forget_lost(name).await;
        if let Some(bond) = self.find(name) {
            // Waits for a change of the bond that is under way.
            let _turn = bond.turn.lock().await;
        }
        let bond = self.bonds().remove(name);
        match bond {
            Some(bond) => self.take_down(name, &bond).await,
            None if is_lost => Ok(Vec::new()),
            None if self.is_left(name) => {
                let notes = record::undo(&self.machine.paths, name, &self.machine.system()).await?;
                notes.iter().for_each(|note| warn!("{name}: {note}"));
                Ok(notes)
            }
            None => Err(AgentError::NoSuchBond(name.to_string())),
        }
    }

    /// A bond whose port is gone carries nothing any more: somebody has deleted its device. A bond0 that is
    /// moved to another network namespace leaves its port behind.
    async fn take_down_without_port(&self, ifindex: u32) {
        let phase = self.phase.lock().await;
        let is_it = |_: &BondName, bond: &mut Arc<Bond>| bond.maps.bond().port_ifindex() == ifindex;
        let lost = self.bonds().extract_if(.., is_it).next();
        let Some((name, bond)) = lost else { return };
        let goal = bond.goal();
        let is_elsewhere = bond.is_elsewhere.load(Ordering::Relaxed);
        let comes_again = goal.of_files && is_elsewhere && *phase == Phase::Serving;
        if comes_again {
            warn!("{name}: {} was deleted with the network namespace that its device was in", bond.port);
        } else {
            let text = self.remember_deleted(goal.config.clone(), goal.of_files).await;
            warn!("{text} ({} was deleted)", bond.port);
        }
        if let Err(error) = self.take_down(&name, &bond).await {
            warn!("{}", text::not_all_restored(&name, &error));
        }
        if comes_again {
            self.make_again(&name, goal.config.clone()).await;
        }
    }
}

/// How an agent ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By each bond's on_exit.
    AsConfigured,
    /// As before it began: what was made goes, what was adopted goes on.
    Undo,
    /// What was on trial for so many seconds is removed; of the rest each bond's on_exit decides.
    NotConfirmed { seconds: u64 },
}

/// What became of an attempt to take a bond over.
enum Adoption {
    Done,
    NothingLeft,
}

/// Whether a bond was there before this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Made,
    Adopted,
}

fn slot_of(bond: &str, status: &BondStatus, slave: &str) -> Result<Slot, AgentError> {
    let found = status.slaves.iter().find(|known| known.name == slave);
    found
        .and_then(|slave| Slot::new(slave.slot))
        .ok_or_else(|| AgentError::NoSuchSlave { bond: bond.to_owned(), slave: slave.to_owned() })
}

/// Starts the thread that hands link events to the engine as they come. What it returns has them, too, for what is not
/// as urgent.
fn listen_to_links(engine: EngineHandle) -> Result<LinkFeed, AgentError> {
    let io = |what| move |source| AgentError::Io { what, source };
    let feed = LinkFeed::default();
    let runtime = ThreadRuntime::new().map_err(io("cannot start the link events' runtime"))?;
    let mut events = runtime.inside(LinkEvents::open)?;
    let listen = {
        let feed = feed.clone();
        async move {
            loop {
                match events.next().await {
                    Ok(event) => {
                        engine.device(event.clone());
                        feed.put(event);
                    }
                    Err(error) => {
                        warn!("no link events any more, miimon alone watches: {error}");
                        return;
                    }
                }
            }
        }
    };
    thread::Builder::new()
        .name("link-events".into())
        .spawn(move || runtime.block_on(listen))
        .map_err(io("cannot start a thread"))?;
    Ok(feed)
}
