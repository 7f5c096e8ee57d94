//! The agent: it brings bonds up, manages them, and takes them down.
//!
//! # The tour
//!
//! Which threads and tasks there are, what each owns, what it may block on, and what wakes it. docs/internals/agent.md has
//! all of them, with the bounds of each queue.
//!
//! | thread (T) or task | owns | may block on | is woken by | where |
//! |---|---|---|---|---|
//! | T main | start-up, signals, the end | everything, before it serves | SIGINT, SIGTERM, SIGHUP, `--confirm` | [`mod@run`], [`life`] |
//! | T `engine` | the engines of all bonds, and the maps that packets read | nothing: never netlink, never RTNL | flags and inputs, the earliest deadline of an engine | [`bond::engine_thread`] |
//! | T `link-events` | the socket of link events | receiving | the kernel | [`life`] |
//! | T `netlink` | the connection for the requests of all bonds | RTNL, in the kernel | requests of tasks | [`crate::sys::netlink`] |
//! | T `hook-events` | the sockets of changes of tc and nftables | receiving | the kernel | [`crate::sys::hook_events`] |
//! | T `log`, `stdout` | standard error, standard output | their readers, for ever | lines | [`crate::report::lines`] |
//! | T `gc`, once | what ended network namespaces left | bpffs, RTNL | the start | [`mod@run`] |
//! | worker, one per bond | MAC addresses, MTU, membership, found.json, carrier | RTNL, files | its work | [`bond::worker`] |
//! | recorder, one per bond | log lines, events and receipts | files | engine, worker, announcer | [`bond::recorder`] |
//! | announcer, one per bond | packet sockets | nothing | rounds of the engine | [`bond::announcer`] |
//! | confirmer, one per bond | which peers are heard after a failover | neighbour tables (RTNL) | failovers of the engine | [`bond::confirmer`] |
//! | ARP prober, one per bond | probes, a connection for route look-ups | route look-ups, which take no RTNL | rounds of the engine | [`bond::arp_prober`] |
//! | ring-buffer reader, one per bond | EVENTS | nothing | the data plane | [`bond::ring_reader`] |
//! | link follower, address follower | which interfaces appeared, vanished, or have other addresses | receiving; RTNL after lost events | the kernel, at most every 100 ms | [`lifecycle::slaves`] |
//! | upkeep | pins, lock, control socket, memory | bpffs | a timer, once per second | [`upkeep`] |
//! | recreation of bonds | bonds of files that are gone | RTNL | a timer, every five seconds | [`upkeep`], [`lifecycle::lost`] |
//! | published | files for other programs, in directories that the administrator names | those, on a thread of its own | events, at least every 15 s | [`server::published`] |
//! | one per connection, at most 256 | a request | for a change: the turn of its bond, and its worker. For a query: nothing | the client | [`server`] |
//!
//! Tasks run on three threads of tokio; four further ones take the place of those that wait in the kernel.
//!
//! # A bond's way through the agent
//!
//! [`lifecycle::add`] adopts or creates it, [`lifecycle::start`] gives it its engine and its tasks, requests of [`server`]
//! and of files ([`lifecycle::reload`]) change it, and [`lifecycle::end`] keeps it or takes it down.
//!
//! # Locks
//!
//! [`Agent::bonds`] is held to find, insert or remove a bond, and never across an `await`. The turn of a bond is held for a
//! whole change, the phase while bonds are created or removed; readers take neither. Order: `reloading`, `phase`, `turn`,
//! `lost`, `bonds`.

pub mod access;
pub(crate) mod bond;
mod error;
mod error_kind;
mod feed;
mod life;
mod lifecycle;
mod options;
mod outcome;
mod queues;
mod ready;
mod run;
pub mod server;
#[cfg(any(test, feature = "fake"))]
pub mod simulated;
mod upkeep;

use std::{
    collections::BTreeMap,
    sync::{
        self as sync, Arc, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use bond_core::{name::BondName, status::BondStatus};
use tokio::{
    sync::{Mutex, watch::Receiver},
    task::AbortHandle,
};

use self::{
    access::Access,
    bond::{
        clock::SharedClockState, engine_handle::BondId, interface::Host, path_targets::PathOrders,
        receipt_writer::History, work::WorkQueue,
    },
    lifecycle::{
        lost::Lost,
        machine::Machine,
        slaves::{Arrivals, Wanted},
    },
    queues::Queues,
    server::{counters::CounterCache, metrics::Scrapes, published::Publisher, retries::Retries},
};
pub use self::{
    error::{AgentError, Stopping},
    outcome::Outcome,
    run::{RunOptions, run},
};
use crate::{
    api::MissingSlaves,
    config::{BondConfig, Source, Writers},
    report::moment::Moment,
    store::paths::Claim,
    sys::{
        dataplane::{Hook, Kernel, KernelError, Maps},
        directory::FileIdentity,
        netlink::PairKind,
    },
};

/// Where link events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEventSource {
    /// Link events of netlink.
    Netlink,
    /// None: links are polled every miimon only.
    Off,
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
    /// Held while bonds are created, removed, or all of them are visited.
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
    published: Publisher,
    counters: Arc<CounterCache>,
}

/// The control socket that is served.
struct Serving {
    identity: Option<FileIdentity>,
    task: AbortHandle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// No bond is made any more.
    Ending,
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
    clock: SharedClockState,
    path: PathOrders,
    work: WorkQueue,
    history: History,
    /// How it was after the last event that its engine has handled.
    status: Receiver<BondStatus>,
    /// Whether the pins existed at the last check.
    pinned: AtomicBool,
    /// Interfaces that appeared or changed, and that may be slaves of a file.
    arrivals: sync::Mutex<Arrivals>,
    /// Held during a change of the bond, from the first question to the last step, which may wait for the kernel. Readers do
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

/// Whether a bond was there before this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Made,
    Adopted,
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

/// Whether this kernel can do it.
fn check_kernel(bond: &BondConfig) -> Result<(), KernelError> {
    let hook = bond::worker::hook(bond.datapath, bond.port.is_some());
    Kernel::check(hook, bond.mtu.unwrap_or(lifecycle::DEFAULT_MTU))
}

impl Agent {
    /// Returns an agent without bonds that was started by flags, has no files, and serves nothing yet.
    fn new(machine: Machine, claim: Claim, access: Access) -> Self {
        Self {
            started: Moment::now(),
            machine,
            bonds: sync::Mutex::default(),
            lost: Mutex::default(),
            next_id: AtomicU32::new(0),
            phase: Mutex::new(Phase::Serving),
            reloading: Mutex::default(),
            source: None,
            writers: None,
            access: RwLock::new(access),
            claim: sync::Mutex::new(claim),
            serving: sync::Mutex::default(),
            scrapes: Scrapes::default(),
            retries: Retries::default(),
            published: Publisher::default(),
            counters: Arc::default(),
        }
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        // Poisoned or not, it is whole.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        // Poisoned or not, there is a lock.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orphaned bonds: another agent has left them, and none manages them.
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
}

#[cfg(any(test, feature = "fake"))]
impl Agent {
    /// Returns an agent of bonds in memory, without files of its own and without a control socket.
    fn in_memory(machine: Machine) -> Result<Self, AgentError> {
        let claim = machine.paths.claim_below()?;
        Ok(Self { next_id: AtomicU32::new(1), ..Self::new(machine, claim, Access::of(None)?) })
    }
}
