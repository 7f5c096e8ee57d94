//! What an agent could not do, a sentence each.

use std::{io, net::SocketAddr, path::PathBuf};

use bond_common::mac::Mac;
use bond_core::{
    Refusal,
    name::{NameError, shell_word, shortened},
    options::OptionError,
};

use crate::{
    agent::queues::Queues,
    config::{Change, ConfigError, Origin, Problem},
    report::wording::{self, ORPHANED},
    store::{StoreError, paths::PathError},
    sys::{
        SysError,
        dataplane::{DataPlaneError, KernelError},
    },
};

/// The thread has ended, which it does only when the agent does.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopping;

/// What an agent could not do.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Sys(#[from] SysError),
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error("{path}: {source}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("{bond}: {problem}")]
    Small { bond: String, problem: Problem },
    #[error("{bond} ({origin}): {error}")]
    Unconfigured { bond: String, origin: String, error: Box<SysError> },
    #[error("{0}: no such bond; `xbond show` lists them")]
    NoSuchBond(String),
    #[error("{0}: {ORPHANED}")]
    Orphaned(String),
    #[error("{0}")]
    Lost(String),
    #[error("{bond} has no slave {}; `xbond show {}` lists them", shortened(.slave), shell_word(.bond))]
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
        "{bond} was left by another agent and cannot be adopted: {why}; it is unchanged and still carries packets; to \
         create it again, which interrupts it: xbond down {} --force",
        shell_word(.bond)
    )]
    CannotAdopt { bond: String, why: String },
    #[error(
        "{0}: this agent manages it already; change it by `xbond set`, or by its file and `xbond reload`"
    )]
    HasBond(String),
    #[error("{slave}: has MAC {found}, but HWADDR says {wanted}; this is another NIC than the file means")]
    OtherNic { slave: String, found: Mac, wanted: Mac },
    #[error("{0}; nothing was changed")]
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
    #[error("{bond}: {key}={}: takes {wanted}", shortened(.value))]
    BadSetting { bond: String, key: String, value: String, wanted: String },
    #[error("active_slave is a request, not an option; set it alone")]
    ActiveSlaveAlone,
    #[error("cannot serve metrics at {address}: {source}; {}", wording::remedy_of_address(source))]
    Metrics { address: SocketAddr, source: io::Error },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error(
        "not confirmed within {seconds} s: everything was undone; to keep it, run `xbond confirm` in that time"
    )]
    NotConfirmed { seconds: u64 },
    #[error(
        "the {seconds} s for a confirmation are over: everything is being undone; to try again: xbond run --confirm"
    )]
    ConfirmedTooLate { seconds: u64 },
    #[error(
        "{bond}: was not confirmed within {seconds} s, while no agent ran: it is removed now, and its slaves are restored"
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
    #[error("{bond}: cannot be taken over: {why}; nothing was changed")]
    CannotTakeOver { bond: String, why: String },
    #[error("{bond}: was not taken over: {error}; it is the driver's again, as before")]
    NotTakenOver { bond: String, error: Box<AgentError> },
    #[error(
        "{bond}: was not taken over: {error}; and it could not be led back: {back}; the host keeps the devices that it has \
         now, and the next agent tries again: restart it, or see `ip -d link`"
    )]
    NotLedBack { bond: String, error: Box<AgentError>, back: Box<AgentError> },
    #[error("{bond}: cannot be given to the driver: {why}; nothing was changed")]
    CannotGiveBack { bond: String, why: String },
    #[error("{slave}: {why}")]
    NotProven { slave: String, why: String },
    #[error(
        "{bond}: its takeover waits for a confirmation: `xbond confirm` keeps it, xbond takeover {} --undo leads back",
        shell_word(.bond)
    )]
    TakeoverOnTrial { bond: String },
    #[error("{bond}: no takeover of it waits for a confirmation")]
    NoTakeover { bond: String },
    #[error("interrupted; everything was undone")]
    Interrupted,
}

impl From<PathError> for AgentError {
    fn from(error: PathError) -> Self {
        Self::Store(error.into())
    }
}
