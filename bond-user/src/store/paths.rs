//! Where an agent keeps things: by its network namespace's cookie, so that agents in different namespaces
//! never meet, with names for people beside.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::IntoRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

const BPFFS: &str = "/sys/fs/bpf";
/// The directory there that has everything of xbond's.
const XBOND: &str = "xbond";
/// The same as the first process sees it. Whoever is in a mount namespace with another /sys, as `ip netns exec` makes one
/// for each command, finds it there.
const BPFFS_OF_INIT: &str = "/proc/1/root/sys/fs/bpf";
const RUN: &str = "/run/xbond";
const SOCKET: &str = "xbond.sock";
const LOCK: &str = "lock";

/// A place that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot mount bpffs on {BPFFS}: {0}; mount it first: mount -t bpf bpf {BPFFS}")]
    Bpffs(nix::Error),
    #[error(
        "there is no bpffs on {BPFFS}, and one that were mounted in this process's own mount namespace would be gone with \
         it, and the bonds, too; mount it outside first: mount -t bpf bpf {BPFFS}"
    )]
    Private,
    #[error(
        "an agent runs in this network namespace already, and one serves all its bonds: use `xbond add`, or end \
         that agent first"
    )]
    Occupied,
}

/// The places of one network namespace.
#[derive(Clone, Debug)]
pub struct Places {
    pins: PathBuf,
    shown_pins: PathBuf,
    run: PathBuf,
}

/// Held as long as an agent runs; the kernel lets go of it when the agent dies.
pub struct Claim {
    _lock: Flock<File>,
}

impl Places {
    /// Of the namespace with this SO_NETNS_COOKIE.
    pub fn of(netns_cookie: u64) -> Self {
        let name = netns_cookie.to_string();
        Self {
            pins: pins().join(&name),
            shown_pins: Path::new(BPFFS).join(XBOND).join(&name),
            run: Path::new(RUN).join(&name),
        }
    }

    /// The cookies of the network namespaces in which agents are, or were.
    pub fn cookies() -> Vec<u64> {
        let entries = fs::read_dir(RUN).into_iter().flatten().flatten();
        let mut cookies: Vec<_> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        cookies.sort_unstable();
        cookies
    }

    /// Pins of a bond.
    pub fn pins_of(&self, bond: &str) -> PathBuf {
        self.pins.join(pin_name(bond))
    }

    /// The same, as people find them.
    pub fn shown_pins_of(&self, bond: &str) -> PathBuf {
        self.shown_pins.join(pin_name(bond))
    }

    /// Where the run directories of all bonds are.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Whether anything of a bond is here. An agent that dies while it makes its places or takes them away
    /// leaves some of them, empty ones too.
    pub fn has(&self, bond: &str) -> bool {
        self.pins_of(bond).exists() || self.run_of(bond).is_dir()
    }

    /// The bonds of which anything is here, in the order of their names.
    pub fn bonds(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.run).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut bonds: Vec<_> =
            directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        bonds.sort();
        bonds
    }

    /// Names that no bond can have, because the agent's own files have them.
    pub fn reserves(&self, bond: &str) -> bool {
        [LOCK, SOCKET].contains(&bond)
    }

    /// Where found.json and the like of a bond are.
    pub fn run_of(&self, bond: &str) -> PathBuf {
        self.run.join(bond)
    }

    /// The control socket of this namespace's agent.
    pub fn socket(&self) -> PathBuf {
        self.run.join(SOCKET)
    }

    /// Makes the directories, mounts bpffs if nobody has, and keeps other agents out.
    pub fn claim(&self) -> Result<Claim, PlaceError> {
        mount_bpffs()?;
        make_dir(Path::new(RUN), 0o755)?;
        make_dir(&self.run, 0o755)?;
        let path = self.run.join(LOCK);
        let error = |source| PlaceError::Io { path: path.clone(), source };
        // Nobody else may even read it: whoever has it open can lock it.
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock(file.map_err(error)?, error)?;
        // Under the lock: whoever had it before takes the empty ones away.
        self.make_pins()?;
        Ok(Claim { _lock: lock })
    }

    /// Agents of other namespaces take the one that is everybody's away when they find it empty.
    fn make_pins(&self) -> Result<(), PlaceError> {
        const ATTEMPTS: u32 = 100;
        let mut attempt = 1;
        loop {
            make_dir(pins(), 0o700)?;
            match make_dir(&self.pins, 0o700) {
                Err(PlaceError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// True while an agent of this namespace lives, as far as whoever asks may know.
    pub fn is_claimed(&self) -> bool {
        let Ok(file) = File::options().write(true).open(self.run.join(LOCK)) else { return false };
        matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::Error::EWOULDBLOCK)))
    }

    /// Makes a bond's run directory.
    pub fn make_run_of(&self, bond: &str) -> Result<PathBuf, PlaceError> {
        make_dir(Path::new(RUN), 0o755)?;
        make_dir(&self.run, 0o755)?;
        let dir = self.run_of(bond);
        make_dir(&dir, 0o755)?;
        Ok(dir)
    }

    /// Names for people: /sys/fs/bpf/xbond/bond0. The first to claim a name has it.
    pub fn link_pins(&self, bond: &str) {
        link(&self.shown_pins_of(bond), &pins().join(pin_name(bond)));
    }

    /// /run/xbond/xbond.sock, likewise.
    pub fn link_socket(&self) {
        link(&self.socket(), &Path::new(RUN).join(SOCKET));
    }

    /// Takes a bond's name for people and its run directory away.
    pub fn forget(&self, bond: &str) {
        unlink(&self.shown_pins_of(bond), &pins().join(pin_name(bond)));
        let _ = fs::remove_dir_all(self.run_of(bond));
    }

    /// Takes away what the agent itself made; bonds that are kept keep theirs.
    pub fn leave(&self) {
        unlink(&self.socket(), &Path::new(RUN).join(SOCKET));
        let _ = fs::remove_file(self.socket());
        // Empty directories only, and not one that was made for the service's user.
        let _ = fs::remove_dir(&self.pins);
        let pins = pins();
        if fs::metadata(pins).is_ok_and(|found| found.uid() == nix::unistd::geteuid().as_raw()) {
            let _ = fs::remove_dir(pins);
        }
        // The lock stays: removing it would let two agents hold two locks of one name.
    }
}

/// Whoever only asks whether somebody has it ([`Places::is_claimed`]) has it for a moment.
fn lock(mut file: File, error: impl Fn(io::Error) -> PlaceError) -> Result<Flock<File>, PlaceError> {
    const ATTEMPTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(10);
    let mut attempt = 1;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, nix::Error::EWOULDBLOCK)) if attempt < ATTEMPTS => file = again,
            Err((_, nix::Error::EWOULDBLOCK)) => return Err(PlaceError::Occupied),
            Err((_, other)) => return Err(error(other.into())),
        }
        attempt += 1;
        thread::sleep(PAUSE);
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), PlaceError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(PlaceError::Io { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

/// A convenience: that it fails, or that another namespace has the name, stops nobody.
fn link(target: &Path, name: &Path) {
    // A link whose target is gone belongs to nobody.
    if fs::symlink_metadata(name).is_ok() && fs::metadata(name).is_err() {
        let _ = fs::remove_file(name);
    }
    let _ = symlink(target, name);
}

fn unlink(target: &Path, name: &Path) {
    if fs::read_link(name).is_ok_and(|found| found == target) {
        let _ = fs::remove_file(name);
    }
}

/// bpffs takes no dots in names.
fn pin_name(bond: &str) -> String {
    bond.replace('.', "%2E")
}

fn is_bpffs(path: &str) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Where everybody's pins are, by a path that leads there from this process.
fn pins() -> &'static Path {
    static PINS: OnceLock<PathBuf> = OnceLock::new();
    PINS.get_or_init(|| {
        let elsewhere = if is_bpffs(BPFFS) { None } else { bpffs_of_init() };
        elsewhere.unwrap_or_else(|| BPFFS.into()).join(XBOND)
    })
}

/// Held open as long as this process runs: an agent has no right to look through the first process's eyes for long.
fn bpffs_of_init() -> Option<PathBuf> {
    let path = Some(BPFFS_OF_INIT).filter(|path| is_bpffs(path))?;
    let directory =
        File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path).ok()?;
    Some(format!("/proc/self/fd/{}", directory.into_raw_fd()).into())
}

/// Whether pins have a place.
pub fn has_bpffs() -> bool {
    pins().parent().and_then(Path::to_str).is_some_and(is_bpffs)
}

fn mount_bpffs() -> Result<(), PlaceError> {
    if has_bpffs() {
        return Ok(());
    }
    let namespace = |process| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    if namespace("1").is_some_and(|of_init| namespace("self") != Some(of_init)) {
        return Err(PlaceError::Private);
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(PlaceError::Bpffs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_are_escaped_where_bpffs_needs_it() {
        let places = Places::of(7);
        assert_eq!(places.pins_of("bond0.5"), Path::new("/sys/fs/bpf/xbond/7/bond0%2E5"));
        assert_eq!(places.run_of("bond0.5"), Path::new("/run/xbond/7/bond0.5"));
    }
}
