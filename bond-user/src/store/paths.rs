//! The agent's directories: named by its network namespace's cookie, so that agents in different namespaces never
//! conflict, and linked under readable names.
//!
//! Everything here is reached through [`Location`]s: /run/xbond and /sys/fs/bpf/xbond may belong to a service user,
//! and root runs the same program.

mod bpffs;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::MetadataExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use bond_core::name::BondName;
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
    },
    unistd::geteuid,
};
use tracing::{debug, warn};

use self::bpffs::{BPFFS, bpffs, mount_bpffs};
use crate::{
    report::wording,
    sys::{
        SysError, caps,
        dataplane::witness::{self, WITNESS},
        directory::{Directory, EntryKind, FileIdentity, Location, SocketFile, Trust},
        locks,
    },
};

pub use self::bpffs::{Lasting, has_bpffs, lasting};

/// The directory there, and in /run, that contains everything of xbond's.
const XBOND: &str = "xbond";

const RUN: &str = "/run";
const ROOT_USER: u32 = 0;
/// No [`BondName`] has these names.
pub const SOCKET: &str = "xbond.sock";
pub(super) const LOCK: &str = "lock";
/// A random number of each boot, the same in all containers of a machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Bytes; more than it has.
const LONGEST_BOOT: u64 = 64;

/// A directory that could not be used.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot mount bpffs on {BPFFS}: {0}; mount it first: mount -t bpf bpf {BPFFS}")]
    Bpffs(nix::Error),
    #[error(
        "there is no bpffs on {BPFFS}, and this process has a mount namespace of its own, as under `ip netns exec`: a bpffs \
         that is mounted here ends with it, and the bonds as well; run `xbond --netns NAME run` instead of \
         `ip netns exec NAME xbond run`, or mount it outside first: mount -t bpf bpf {BPFFS}"
    )]
    Private,
    #[error(
        "an agent runs in this network namespace already{}, and one serves all its bonds: use `xbond add`, or end \
         that agent first", pid_in_words(*.owner)
    )]
    Occupied {
        /// `None` if the kernel does not report it.
        owner: Option<u32>,
    },
}

/// An agent that has no control socket: it is starting, or another process has removed its files.
#[derive(Debug, thiserror::Error)]
#[error(
    "an agent runs in this network namespace{}, but does not listen at {} yet; it creates that socket again within some \
     seconds if another process has removed it: try again", pid_in_words(*.pid), socket.display()
)]
pub struct HiddenAgent {
    socket: PathBuf,
    pid: Option<u32>,
}

/// An agent that lives, whether or not it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivingAgent {
    /// `None` if the kernel does not report it.
    pub pid: Option<u32>,
}

/// Returns ` (pid 7)`, or nothing if the pid is not known.
pub fn pid_in_words(owner: Option<u32>) -> String {
    owner.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// The directories of one network namespace.
#[derive(Clone, Debug)]
pub struct Paths {
    pub(super) pins: Location,
    pub(super) shown_pins: PathBuf,
    pub(super) run: Location,
}

/// The claim of an agent on its directories; the kernel releases it when the agent ends.
///
/// There are two locks. A lock of a file in the run directory is visible from every network namespace, and identifies
/// its holder; but a user who can remove the directory can remove it. An abstract socket cannot be removed, and is
/// found from every mount namespace; but any user can bind its name first, so one that is neither root's nor this
/// user's excludes no agent. A lock in bpffs would have prevented the administrator from unmounting it.
pub struct Claim {
    lock: Flock<File>,
    /// The run directory.
    directory: Directory,
    /// `None` if another user has bound its name.
    socket: Option<UnixListener>,
}

impl Claim {
    /// Takes the socket, to accept connections: a process that wants to identify the owner connects.
    pub fn take_socket(&mut self) -> Option<UnixListener> {
        self.socket.take()
    }
}

/// A locked run directory.
pub(super) struct Locked {
    pub(super) file: Flock<File>,
    pub(super) directory: Directory,
    /// Whether it was created just now.
    pub(super) is_new: bool,
}

impl Locked {
    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }
}

/// When an agent last had a run directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// Since the machine was started.
    This,
    /// Before: cookies were reused since.
    Former,
    /// The file does not contain it: an older xbond created it, or the disk was full.
    Unknown,
}

/// Returns when the agent that last locked this file had it.
pub(super) fn boot_of(lock: &mut File) -> Boot {
    let mut text = String::new();
    let read = lock.take(LONGEST_BOOT).read_to_string(&mut text);
    match (read, boot_id()) {
        (Ok(_), Some(now)) if text.trim() == now => Boot::This,
        (Ok(length), Some(now)) if length == now.len() => Boot::Former,
        _ => Boot::Unknown,
    }
}

/// Writes into the lock the boot of the machine in which it was held. Only the removal of the directory after the
/// next boot depends on it.
fn sign(lock: &mut File) {
    let Some(now) = boot_id() else { return };
    let _ = lock.rewind().and_then(|()| lock.set_len(0)).and_then(|()| lock.write_all(now.as_bytes()));
}

/// Returns the random number of this boot; `None` if it cannot be read.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string(BOOT_ID).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

impl Paths {
    /// Returns the directories of the namespace with this SO_NETNS_COOKIE.
    pub fn of(netns_cookie: u64) -> Self {
        let name = netns_cookie.to_string();
        Self {
            shown_pins: Path::new(BPFFS).join(XBOND).join(&name),
            pins: all_pins().child(&name),
            run: all_runs().child(name),
        }
    }

    /// Below another directory, as if it were the root of both: for a bond that has no kernel.
    ///
    /// # Errors
    /// The directories cannot be made.
    #[cfg(any(test, feature = "fake"))]
    pub fn below(root: &Path) -> io::Result<Self> {
        let [pins, run] = ["bpf", "run"].map(|name| Location::new(root).child(name).child("1"));
        pins.make_all(0o700)?;
        Ok(Self { shown_pins: pins.path(), pins, run })
    }

    /// Keeps other agents out of directories that [`Self::below`] has made.
    ///
    /// # Errors
    /// Another agent has them.
    #[cfg(any(test, feature = "fake"))]
    pub fn claim_below(&self) -> Result<Claim, PathError> {
        let Locked { file: lock, directory, is_new: _ } = self.lock()?;
        Ok(Claim { lock, directory, socket: None })
    }

    /// Where the pins of all network namespaces are.
    fn all_pins(&self) -> Location {
        self.pins.above().unwrap_or_default()
    }

    /// The cookies of the network namespaces in which agents are, or were.
    pub fn cookies() -> Vec<u64> {
        let entries = all_runs().open(Trust::Anyones).and_then(|directory| directory.entries());
        let entries =
            entries.unwrap_or_default().into_iter().filter(|(_, kind)| *kind == EntryKind::Directory);
        let mut cookies: Vec<_> = entries.filter_map(|(name, _)| name.parse().ok()).collect();
        cookies.sort_unstable();
        cookies
    }

    /// Returns the directory of a bond's pins.
    pub fn pins_of(&self, bond: &BondName) -> Location {
        self.pins.child(pin_name(bond))
    }

    /// Returns the directory of a bond's pins, for messages.
    pub fn shown_pins_of(&self, bond: &BondName) -> PathBuf {
        self.shown_pins.join(pin_name(bond))
    }

    /// Returns whether anything of a bond exists here. An agent that ends while it creates or removes its directories
    /// leaves some of them, also empty ones.
    pub fn has(&self, bond: &BondName) -> bool {
        self.pins_of(bond).kind().is_some() || self.run_of(bond).kind().is_some()
    }

    /// Returns whether a bond is pinned here.
    pub fn is_pinned(&self, bond: &BondName) -> bool {
        self.pins_of(bond).kind() == Some(EntryKind::Directory)
    }

    /// Returns the bonds of which anything exists here, in the order of their names. A file with a name that no bond
    /// can have is not xbond's.
    pub fn bonds(&self) -> BTreeSet<BondName> {
        let directories = |place: &Location| {
            let entries = place.open(Trust::Anyones).and_then(|directory| directory.entries());
            let entries = entries.unwrap_or_default().into_iter();
            entries.filter(|(_, kind)| *kind == EntryKind::Directory).map(|(name, _)| name)
        };
        let pinned = directories(&self.pins).map(|name| name.replace(DOT_IN_PINS, "."));
        directories(&self.run).chain(pinned).filter_map(|name| BondName::new(name).ok()).collect()
    }

    /// Returns the directory of found.json and other files of a bond.
    pub fn run_of(&self, bond: &BondName) -> Location {
        self.run.child(bond.as_str())
    }

    /// Opens the control socket of this namespace's agent, to connect to it: no link on the way is followed.
    ///
    /// # Errors
    /// There is no socket, it is no socket, or a component of its path is a link or not to be opened.
    pub fn open_socket(&self) -> io::Result<SocketFile> {
        self.run.open(Trust::Anyones)?.socket(SOCKET)
    }

    /// Returns the identity of the control socket's file.
    pub fn socket_identity(&self) -> Option<FileIdentity> {
        self.run.open(Trust::Ours).and_then(|run| run.identity(Some(SOCKET))).ok()
    }

    /// Returns the path of the control socket of this namespace's agent, for messages.
    pub fn socket(&self) -> PathBuf {
        self.run.path().join(SOCKET)
    }

    /// Returns the directory of everything that is not a bond's.
    pub fn run_root(&self) -> &Location {
        &self.run
    }

    /// Opens the directory of the control socket.
    ///
    /// # Errors
    /// The directory is missing or not to be trusted.
    pub fn open_run(&self) -> Result<Directory, PathError> {
        self.run.open(Trust::Ours).map_err(at(&self.run))
    }

    /// Creates the directories, mounts bpffs if it is not mounted, and excludes other agents. What an agent left
    /// there before the machine was last started is removed: its interfaces are others now.
    ///
    /// # Errors
    /// Another agent has the lock; a directory is not to be trusted or cannot be created; bpffs cannot be mounted; or
    /// what a former agent left cannot be removed.
    pub fn claim(&self) -> Result<Claim, PathError> {
        mount_bpffs()?;
        lasting();
        let Locked { file: mut lock, directory, is_new: _ } = self.lock()?;
        if boot_of(&mut lock) == Boot::Former {
            for name in directories_in(&directory) {
                directory.remove_all(&name).map_err(at(&self.run))?;
            }
        }
        sign(&mut lock);
        // Under the lock: its former holder removes empty directories.
        self.make_pins()?;
        Ok(Claim { lock, directory, socket: self.claim_socket()? })
    }

    /// Of the abstract socket.
    fn socket_name(&self) -> String {
        format!("{XBOND}-{}", self.run.name())
    }

    /// An agent of this network namespace whose run directory may be gone, as far as its abstract socket says.
    pub fn hidden_agent(&self) -> Option<HiddenAgent> {
        let address = SocketAddr::from_abstract_name(self.socket_name()).ok()?;
        let (user, pid) = owner_of(&address)?;
        let is_trusted = user == ROOT_USER || user == geteuid().as_raw();
        is_trusted.then(|| HiddenAgent { socket: self.socket(), pid })
    }

    /// Takes the abstract socket of this network namespace.
    ///
    /// # Errors
    /// Another agent has it, whose run directory was removed.
    fn claim_socket(&self) -> Result<Option<UnixListener>, PathError> {
        let name = self.socket_name();
        let error = |source| PathError::Io { path: Path::new(&format!("@{name}")).to_owned(), source };
        let address = SocketAddr::from_abstract_name(&name).map_err(error)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => return Ok(Some(socket)),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(error(source)),
        }
        match owner_of(&address) {
            Some((user, pid)) if user == ROOT_USER || user == geteuid().as_raw() => {
                Err(PathError::Occupied { owner: pid })
            }
            Some((user, pid)) => {
                warn!("{}", wording::foreign_socket(&name, Some((user, &pid_in_words(pid)))));
                Ok(None)
            }
            None => {
                warn!("{}", wording::foreign_socket(&name, None));
                Ok(None)
            }
        }
    }

    /// Creates the run directory and its lock again, if another process has removed one of them. Returns whether that
    /// was so.
    ///
    /// # Errors
    /// They cannot be created, or another process has the new lock: it is about to find this agent's socket, and
    /// ends.
    pub fn reclaim(&self, claim: &mut Claim) -> Result<bool, PathError> {
        let is_there = |run: &Directory| {
            let lock = run.identity(Some(LOCK)).ok();
            run.is_same(claim.directory.as_fd())
                && lock.is_some()
                && lock == FileIdentity::of(&*claim.lock).ok()
        };
        match self.run.open(Trust::Ours) {
            Ok(run) if is_there(&run) => return Ok(false),
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(at(&self.run)(source)),
            Ok(_) | Err(_) => {}
        }
        let Locked { mut file, directory, is_new: _ } = self.lock()?;
        sign(&mut file);
        (claim.lock, claim.directory) = (file, directory);
        Ok(true)
    }

    /// Waits until no process has the run directory, up to a limit. Returns false if one still has it.
    pub fn is_left_within(&self, limit: Duration) -> bool {
        const PAUSE: Duration = Duration::from_millis(10);
        let until = Instant::now() + limit;
        while self.is_claimed() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(PAUSE);
        }
        true
    }

    /// Locks the run directory, and creates it if it is missing.
    pub(super) fn lock(&self) -> Result<Locked, PathError> {
        const ATTEMPTS: u32 = 100;
        let mut attempt = 1;
        loop {
            match self.try_lock() {
                // Another process has just removed it, because it was empty.
                Err(PathError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
                // Or it was removed before it was locked.
                Ok(lock) if lock.is_removed().map_err(at(&self.run))? && attempt < ATTEMPTS => {}
                answer => return answer,
            }
            attempt += 1;
        }
    }

    fn try_lock(&self) -> Result<Locked, PathError> {
        let is_new = self.run.kind().is_none();
        let directory = self.make_run()?;
        let error = |source| PathError::Io { path: directory.shown(LOCK), source };
        // No other user may even read it: a process that can open it can lock it.
        let file = directory.file(LOCK, OFlag::O_RDWR | OFlag::O_CREAT, Trust::Ours).map_err(error)?;
        let file = lock(file, error)?;
        Ok(Locked { file, directory, is_new })
    }

    fn make_run(&self) -> Result<Directory, PathError> {
        let all = self.run.above().unwrap_or_default();
        all.make(0o755).map_err(at(&all))?;
        self.run.make(0o755).map_err(at(&self.run))
    }

    /// Agents of other namespaces remove the common directory when they find it empty.
    fn make_pins(&self) -> Result<(), PathError> {
        const ATTEMPTS: u32 = 100;
        let (all, mut attempt) = (all_pins(), 1);
        loop {
            all.make(0o700).map_err(at(&all))?;
            match self.pins.make(0o700).and_then(|pins| make_witness(&pins)) {
                Ok(()) => return Ok(()),
                Err(source) if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                Err(source) => return Err(at(&self.pins)(source)),
            }
        }
    }

    /// Returns the agent of this namespace that lives, as far as the calling process may see it: it may be starting, ending
    /// or stopped.
    pub fn living_agent(&self) -> Option<LivingAgent> {
        let directory = self.run.open(Trust::Anyones);
        let lock = directory.and_then(|directory| directory.file(LOCK, OFlag::O_WRONLY, Trust::Anyones));
        if let Ok(lock) = lock
            && let Err((lock, nix::Error::EWOULDBLOCK)) = Flock::lock(lock, FlockArg::LockSharedNonblock)
        {
            return Some(LivingAgent { pid: locks::holder(lock) });
        }
        self.hidden_agent().map(|agent| LivingAgent { pid: agent.pid })
    }

    /// Returns whether an agent of this namespace lives, as far as the calling process may see it.
    pub fn is_claimed(&self) -> bool {
        let directory = self.run.open(Trust::Anyones);
        let lock = directory.and_then(|directory| directory.file(LOCK, OFlag::O_WRONLY, Trust::Anyones));
        let Ok(lock) = lock else { return false };
        matches!(Flock::lock(lock, FlockArg::LockSharedNonblock), Err((_, nix::Error::EWOULDBLOCK)))
    }

    /// Changes a process of root's to the user whose agent has created these directories, if that is another one:
    /// links there then lead it only where that user may go. Call this before threads are started.
    ///
    /// # Errors
    /// The user cannot be changed.
    pub fn act_as_their_owner(&self) -> Result<(), SysError> {
        let owner = all_runs().open(Trust::Anyones).and_then(|directory| directory.owner());
        match owner {
            Ok(owner) if geteuid().is_root() && owner != geteuid().as_raw() => caps::become_user(owner),
            _ => Ok(()),
        }
    }

    /// Creates a bond's run directory.
    ///
    /// # Errors
    /// A directory is not to be trusted, or cannot be created.
    pub fn make_run_of(&self, bond: &BondName) -> Result<(), PathError> {
        self.make_run()?;
        let place = self.run_of(bond);
        place.make(0o755).map(drop).map_err(at(&place))
    }

    /// Creates a readable name: /sys/fs/bpf/xbond/bond0. The first bond with a name has it. A name of digits could be
    /// that of a namespace's directory.
    pub fn link_pins(&self, bond: &BondName) {
        if bond.contains(|character: char| !character.is_ascii_digit()) {
            link(&self.all_pins(), &self.shown_pins_of(bond), &pin_name(bond));
        }
    }

    /// Creates /run/xbond/xbond.sock in the same way.
    pub fn link_socket(&self) {
        link(&all_runs(), &self.socket(), SOCKET);
    }

    /// Removes a bond's readable name and its run directory.
    pub fn forget(&self, bond: &BondName) {
        unlink(&self.all_pins(), &self.shown_pins_of(bond), &pin_name(bond));
        let _ = self.run_of(bond).remove_all();
    }

    /// Removes what the agent itself created; kept bonds keep their files.
    pub fn leave(&self) {
        unlink(&all_runs(), &self.socket(), SOCKET);
        if let Ok(directory) = self.run.open(Trust::Ours) {
            let _ = directory.remove_file(SOCKET);
        }
        let _ = remove_if_empty(&all_pins(), &self.pins);
        // The directory stays, with its lock: this process holds it. `xbond gc` and other agents remove it.
    }
}

/// Makes it possible to determine later whether this network namespace still exists. Without a witness, fewer proofs
/// or none allow to collect the directory, and everything else works.
///
/// # Errors
/// The directory was removed in the meantime.
fn make_witness(pins: &Directory) -> io::Result<()> {
    match witness::make(pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(error) => {
            debug!(
                "{}: {error}: `xbond gc` cannot know when this network namespace ends",
                pins.shown(WITNESS).display()
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Returns the names of the directories in this one.
pub(super) fn directories_in(directory: &Directory) -> Vec<String> {
    let entries = directory.entries().unwrap_or_default().into_iter();
    entries.filter(|(_, kind)| *kind == EntryKind::Directory).map(|(name, _)| name).collect()
}

/// Removes the directories if they are empty, except one that was created for the service's user.
fn remove_if_empty(all: &Location, pins: &Location) -> io::Result<()> {
    let directory = all.open(Trust::Ours)?;
    if let Ok(pins) = pins.open(Trust::Ours)
        && pins.entries()?.iter().all(|(name, _)| name == WITNESS)
    {
        pins.remove_file(WITNESS)?;
    }
    directory.remove_directory(pins.name())?;
    if directory.owner()? == geteuid().as_raw() {
        Location::new(bpffs()).open(Trust::Ours)?.remove_directory(XBOND)?;
    }
    Ok(())
}

fn at(place: &Location) -> impl Fn(io::Error) -> PathError {
    move |source| PathError::Io { path: place.path(), source }
}

/// Locks a file; a process that only checks for an agent ([`Paths::is_claimed`]) holds the lock for a moment.
fn lock(mut file: File, error: impl Fn(io::Error) -> PathError) -> Result<Flock<File>, PathError> {
    const ATTEMPTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(10);
    let mut attempt = 1;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, nix::Error::EWOULDBLOCK)) if attempt < ATTEMPTS => file = again,
            Err((file, nix::Error::EWOULDBLOCK)) => {
                return Err(PathError::Occupied { owner: locks::holder(file) });
            }
            Err((_, other)) => return Err(error(other.into())),
        }
        attempt += 1;
        thread::sleep(PAUSE);
    }
}

/// Returns the user and, if the kernel reports it, the pid of the process that listens on a socket; `None` if it
/// accepts no connection.
fn owner_of(address: &SocketAddr) -> Option<(u32, Option<u32>)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asking = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(asking.as_raw_fd(), &UnixAddr::new_abstract(address.as_abstract_name()?).ok()?).ok()?;
    let owner = getsockopt(&asking, PeerCredentials).ok()?;
    // 0 for a process in another pid namespace.
    Some((owner.uid(), owner.pid().try_into().ok().filter(|pid| *pid != 0)))
}

/// Creates a link for convenience: a failure, or another namespace's link of this name, is no error.
fn link(place: &Location, target: &Path, name: &str) {
    let Ok(directory) = place.open(Trust::Ours) else { return };
    // A link without a target has no owner.
    if directory.kind(name) == Some(EntryKind::Link) && !directory.leads_somewhere(name) {
        let _ = directory.remove_file(name);
    }
    let _ = directory.link(target, name);
}

pub(super) fn unlink(place: &Location, target: &Path, name: &str) {
    let Ok(directory) = place.open(Trust::Ours) else { return };
    if directory.linked(name).is_some_and(|found| found == target) {
        let _ = directory.remove_file(name);
    }
}

/// bpffs accepts no dots in names, and no bond has a percent sign in its own.
const DOT_IN_PINS: &str = "%2E";

fn pin_name(bond: &BondName) -> String {
    bond.replace('.', DOT_IN_PINS)
}

/// Returns the directory of all namespaces' pins.
pub(super) fn all_pins() -> Location {
    Location::new(bpffs()).child(XBOND)
}

/// Returns the directory of all namespaces' files.
pub(super) fn all_runs() -> Location {
    Location::new(RUN).child(XBOND)
}

#[cfg(test)]
mod tests;
