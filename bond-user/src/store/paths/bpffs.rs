//! The BPF file system with the pins: where it is mounted, and how long pins last.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::IntoRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::PathError;

pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// The bpffs as process 1 sees it. A process in a mount namespace with another /sys, such as `ip netns exec` creates
/// for each command, finds it there.
const BPFFS_OF_INIT: &str = "/proc/1/root/sys/fs/bpf";

fn is_bpffs(path: &str) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Returns a path to the bpffs with the pins, which is valid in this process.
pub(super) fn bpffs() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let elsewhere = if is_bpffs(BPFFS) { None } else { bpffs_of_init() };
        elsewhere.unwrap_or_else(|| BPFFS.into())
    })
}

/// Held open as long as this process runs: after an agent has dropped its capabilities, it may not access process 1
/// any more.
fn bpffs_of_init() -> Option<PathBuf> {
    let path = Some(BPFFS_OF_INIT).filter(|path| is_bpffs(path))?;
    let directory =
        File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path).ok()?;
    Some(format!("/proc/self/fd/{}", directory.into_raw_fd()).into())
}

/// Returns whether there is a bpffs for pins.
pub fn has_bpffs() -> bool {
    bpffs().to_str().is_some_and(is_bpffs)
}

/// How long pins last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// The bpffs is also mounted for process 1.
    Machine,
    /// It is mounted in the mount namespace of this process only, or of some: it ends with the last of them.
    Namespace,
    /// Process 1 cannot be inspected: nothing is known.
    Unknown,
}

/// Facts about the bpffs with the pins.
#[derive(Clone, Debug, Default)]
pub(super) struct BpffsFacts {
    /// Whether it is reached through process 1.
    pub(super) by_init: bool,
    /// The mount namespaces of this process and of process 1, by their names in /proc.
    pub(super) namespace: Option<PathBuf>,
    pub(super) namespace_of_init: Option<PathBuf>,
    /// st_dev of the mount of this process; each mount that is not a bind mount is a file system of its own.
    pub(super) device: Option<u64>,
    /// st_dev of the mount of process 1; the inner `None` means that there is no bpffs.
    pub(super) device_of_init: Option<Option<u64>>,
}

impl BpffsFacts {
    pub(super) fn now() -> Self {
        let namespace = |process| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
        let device = |path: &str| fs::metadata(path).map(|found| found.dev());
        // A missing one is known to be missing; an inaccessible one is unknown.
        let device_of_init = match device(BPFFS_OF_INIT) {
            Ok(device) => Some(Some(device).filter(|_| is_bpffs(BPFFS_OF_INIT))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
            Err(_) => None,
        };
        Self {
            by_init: bpffs() != Path::new(BPFFS),
            namespace: namespace("self"),
            namespace_of_init: namespace("1"),
            device: device(BPFFS).ok(),
            device_of_init,
        }
    }

    pub(super) fn lasting(&self) -> Lasting {
        let Self { by_init, namespace, namespace_of_init, device, device_of_init } = self;
        let is_same = namespace.is_some() && namespace == namespace_of_init;
        match (device, device_of_init) {
            _ if *by_init || is_same => Lasting::Machine,
            (Some(own), Some(Some(of_init))) if own == of_init => Lasting::Machine,
            (Some(_), Some(_)) => Lasting::Namespace,
            (_, None) | (None, _) => Lasting::Unknown,
        }
    }
}

/// Returns how long pins last, as determined at the first call: before capabilities are dropped, without which
/// process 1 cannot be inspected.
pub fn lasting() -> Lasting {
    static LASTING: OnceLock<Lasting> = OnceLock::new();
    *LASTING.get_or_init(|| BpffsFacts::now().lasting())
}

pub(super) fn mount_bpffs() -> Result<(), PathError> {
    if has_bpffs() {
        return Ok(());
    }
    let BpffsFacts { namespace, namespace_of_init, .. } = BpffsFacts::now();
    // Without a comparison the mount may be private.
    if namespace_of_init.is_none() || namespace != namespace_of_init {
        return Err(PathError::Private);
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(PathError::Bpffs)
}
