//! The start of an agent's process: what needs more privileges than the agent keeps, then its threads.

use std::{
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{self, Runtime};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, LinkEventSource,
        access::Access,
        bond::engine_thread,
        check_kernel,
        feed::Feed,
        life::Start,
        lifecycle::{
            confirm::Confirmation,
            machine::{Machine, Tasks},
        },
        server::{
            control::Socket,
            metrics::BoundMetrics,
            published::Publisher,
            retries::{self, Retries},
        },
    },
    config::{Config, Source, Writers},
    report::{lines, moment::Moment, wording},
    store::{
        collect::{self, Extent},
        drains::Drains,
        paths::{Claim, Paths},
    },
    sys::{
        KernelDevices, caps,
        dataplane::{BpfDataPlanes, DeviceReader, Kernel, TcAttach},
        directory::Trust,
        hook_events, limits, netns, signals,
        sysfs::Sysfs,
    },
};

/// After this time an agent that has started begins with no further directory of an ended network namespace.
const TIME_TO_COLLECT: Duration = Duration::from_secs(5);

/// Threads that run tasks.
const WORKERS: usize = 3;

/// Threads that wait until a worker waits for the kernel. With more bonds that do so at once, their tasks wait for each
/// other where no further thread can be started.
const SPARE_THREADS: usize = 4;

/// Until the agent ends. tokio adds it to the current time.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// What [`run`] needs to know.
pub struct RunOptions {
    /// The configuration.
    pub config: Config,
    /// Where `config` was read; `None` if it was given by flags.
    pub source: Option<Source>,
    /// The group of writers of the command line, which overrides that of files.
    pub writers: Option<Writers>,
    /// Where link events come from.
    pub link_events: LinkEventSource,
    /// How tc programs are attached; `None` for the best way of this kernel.
    pub tc_attach: Option<TcAttach>,
    /// Undo everything after this time, unless it is confirmed.
    pub confirm: Option<Duration>,
}

/// Runs an agent until a signal ends it. What needs more than the few capabilities that it keeps is done before it has
/// threads.
///
/// # Errors
/// The machine lacks something, another agent serves this network namespace, a bond given by flags cannot be created,
/// what was on trial was not confirmed, or something could not be restored at the end.
pub fn run(options: RunOptions) -> Result<(), AgentError> {
    let started = Moment::now();
    check_process(&options.config)?;
    let ClaimedNamespace { paths, cookie, claim, access, socket, sysfs, retries, metrics } =
        claim_namespace(&options)?;
    caps::keep_needed()?;
    lines::start().map_err(io("cannot start a thread"))?;
    let (kernel, reader) = read_kernel(options.tc_attach);
    let engine = engine_thread::start(reader.clone()).map_err(io("cannot start a thread"))?;
    let runtime = start_runtime()?;
    let RunOptions { config, source, writers, link_events, tc_attach: _, confirm } = options;
    let answer = runtime.block_on(async {
        let drains = Drains::read(&paths, Trust::Ours).unwrap_or_else(|error| {
            warn!("{}", wording::drains_unread(&error));
            Vec::new()
        });
        let machine = Machine {
            drains: Mutex::new(Drains::new(&paths, drains)),
            paths,
            cookie,
            planes: Arc::new(BpfDataPlanes::new(Arc::clone(&kernel))),
            kernel,
            reader,
            devices: Arc::new(KernelDevices::open_apart()?.with_sysfs(sysfs)),
            link_events,
            engine,
            tasks: Tasks::default(),
            path_lane: Arc::default(),
            hook_changes: hook_events::listen(),
            feed: Feed::default(),
            confirmation: Arc::new(Confirmation::new(confirm)),
            enslaving: Arc::default(),
        };
        let published = Publisher::of(&config);
        let agent =
            Agent { started, source, writers, retries, published, ..Agent::new(machine, claim, access) };
        Arc::new(agent).live(Start { config, link_events, socket, metrics }).await
    });
    // A reload that waits for a file system holds its thread, and not the end of the agent.
    runtime.shutdown_background();
    answer
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> AgentError {
    move |source| AgentError::Io { what, source }
}

/// Checks and raises the limits of this process, and holds signals back.
fn check_process(config: &Config) -> Result<(), AgentError> {
    caps::check()?;
    limits::check()?;
    limits::raise_files();
    limits::check_files(limits::FILES_OF_AGENT)?;
    limits::reserve_files();
    limits::check_threads(limits::THREADS_OF_AGENT)?;
    // Before there are threads, which have the same mask.
    signals::hold().map_err(io("cannot hold signals back"))?;
    for bond in &config.bonds {
        check_kernel(bond)?;
    }
    Ok(())
}

/// The place of an agent in its network namespace.
struct ClaimedNamespace {
    paths: Paths,
    /// SO_NETNS_COOKIE
    cookie: u64,
    claim: Claim,
    access: Access,
    socket: Socket,
    /// `None` if it cannot be mounted.
    sysfs: Option<Arc<Sysfs>>,
    retries: Retries,
    metrics: Option<BoundMetrics>,
}

/// Claims the network namespace, and does what needs privileges that the agent gives up afterwards.
fn claim_namespace(options: &RunOptions) -> Result<ClaimedNamespace, AgentError> {
    let retries = Retries::default();
    let metrics = retries::bind(options.config.metrics.as_ref(), &retries);
    let cookie = netns::cookie()?;
    let paths = Paths::of(cookie);
    let claim = paths.claim()?;
    let access = retries::access(options.writers.as_ref().or(options.config.writers.as_ref()), &retries)?;
    let socket = Socket::prepare(paths.open_run()?, &access);
    let socket = socket.map_err(|source| AgentError::Socket { path: paths.socket(), source })?;
    if let Some(readers) = access.readers() {
        // The socket may have to be created again.
        caps::join_group(readers);
    }
    let sysfs = Sysfs::mount().inspect_err(|error| warn!("{}", wording::no_queue_ids(error))).ok();
    Ok(ClaimedNamespace {
        paths,
        cookie,
        claim,
        access,
        socket,
        sysfs: sysfs.map(Arc::new),
        retries,
        metrics,
    })
}

/// Reads what this kernel can do. Without its types the data plane does not read devices.
fn read_kernel(tc_attach: Option<TcAttach>) -> (Arc<Kernel>, Option<Arc<DeviceReader>>) {
    let kernel = Kernel::read();
    let kernel = match tc_attach {
        Some(tc) => kernel.with_tc(tc),
        None => kernel,
    };
    let kernel = Arc::new(kernel);
    match DeviceReader::new(&kernel) {
        Ok(reader) => (kernel, Some(Arc::new(reader))),
        Err(error) => {
            info!("{}", wording::netlink_only(&error));
            (Arc::new(Kernel::clone(&kernel).without_types()), None)
        }
    }
}

fn start_runtime() -> Result<Runtime, AgentError> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_keep_alive(FOREVER)
        .enable_all()
        .build()
        .map_err(io("cannot start the runtime"))?;
    start_spare_threads(&runtime);
    Ok(runtime)
}

/// Starts the threads that take the place of workers which wait for the kernel, and read files: when they are needed, the
/// machine may have no further thread for this process.
fn start_spare_threads(runtime: &Runtime) {
    let all = Arc::new(Barrier::new(SPARE_THREADS + 1));
    for _ in 0..SPARE_THREADS {
        let all = Arc::clone(&all);
        // They wait for each other, so that each has a thread.
        runtime.spawn_blocking(move || all.wait());
    }
    all.wait();
}

/// Removes what agents of network namespaces that have ended left, on a thread of its own: the kernel may take its time,
/// and nothing of this agent depends on it.
pub(in crate::agent) fn collect_dead(here: u64) {
    let collect = move || {
        let until = Some(Instant::now() + TIME_TO_COLLECT);
        match collect::collect(Extent { dry_run: false, here, until }) {
            Ok(collection) => {
                if let Some(line) = collection.log_line() {
                    info!("{line}");
                }
            }
            Err(error) => warn!("{}", wording::not_collected(&error)),
        }
    };
    if let Err(error) = thread::Builder::new().name("gc".into()).spawn(collect) {
        warn!("{}", wording::no_collection_thread(error));
    }
}
