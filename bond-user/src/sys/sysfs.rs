//! Settings that only sysfs can change.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    sys::statvfs::{FsFlags, fstatvfs},
};

use super::SysError;

/// The sysfs of the network namespace in which it was mounted. It has no mount point: /sys may be another
/// namespace's.
#[derive(Debug)]
pub struct Sysfs(OwnedFd);

impl Sysfs {
    /// Mounts the sysfs of the calling thread's network namespace. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    ///
    /// It cannot be mounted, or is read-only: a namespace has one sysfs, and container runtimes mount it read-only
    /// first, which holds for every later mount.
    pub fn mount() -> Result<Self, SysError> {
        let sysfs = Self::try_mount().map_err(|error| SysError::kernel("mount", "sysfs", error.into()))?;
        match fstatvfs(&sysfs.0) {
            Ok(status) if status.flags().contains(FsFlags::ST_RDONLY) => {
                Err(SysError::kernel("write to", "sysfs", Errno::EROFS.into()))
            }
            _ => Ok(sysfs),
        }
    }

    fn try_mount() -> nix::Result<Self> {
        // SAFETY: the name is a C string, which the kernel copies.
        let context =
            owned(unsafe { libc::syscall(libc::SYS_fsopen, c"sysfs".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
        let (none, create) = (std::ptr::null::<libc::c_char>(), libc::FSCONFIG_CMD_CREATE);
        // SAFETY: this command takes no key and no value.
        let created =
            unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), create, none, none, 0) };
        Errno::result(created)?;
        // SAFETY: integers only.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0) })
            .map(Self)
    }

    /// Makes every CPU use the first transmit queue of a device for packets that have no assigned queue (XPS). The
    /// kernel would spread them over all queues by their hash.
    ///
    /// # Errors
    /// A file of the device's queues cannot be written; those before it are.
    pub fn send_by_first_queue(&self, device: &str) -> Result<(), SysError> {
        let failed = |error| SysError::kernel("set XPS of the first queue", device, error);
        let set = |queue: &str, mask: String| fs::write(self.cpus_of(device, queue), mask).map_err(failed);
        set(FIRST_QUEUE, every_cpu().map_err(failed)?)?;
        let others = self.queues(device).filter(|queue| queue != FIRST_QUEUE);
        // A CPU with two queues would use either.
        others.filter(|queue| self.has_cpus(device, queue)).try_for_each(|queue| set(&queue, "0".to_owned()))
    }

    /// Returns whether every CPU still does; `None` if it cannot be read. The kernel waits for RTNL.
    pub fn sends_by_first_queue(&self, device: &str) -> Option<bool> {
        let cpus = fs::read_to_string(self.cpus_of(device, FIRST_QUEUE)).ok()?;
        let is_first = significant(&cpus) == significant(&every_cpu().ok()?);
        let is_other = |queue: String| queue != FIRST_QUEUE && self.has_cpus(device, &queue);
        Some(is_first && !self.queues(device).any(is_other))
    }

    fn has_cpus(&self, device: &str, queue: &str) -> bool {
        fs::read_to_string(self.cpus_of(device, queue)).is_ok_and(|cpus| !significant(&cpus).is_empty())
    }

    fn cpus_of(&self, device: &str, queue: &str) -> PathBuf {
        self.queues_of(device).join(queue).join("xps_cpus")
    }

    fn queues_of(&self, device: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/class/net/{device}/queues", self.0.as_raw_fd()))
    }

    /// Returns the transmit queues of a device.
    fn queues(&self, device: &str) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(self.queues_of(device)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with("tx-"))
    }
}

const FIRST_QUEUE: &str = "tx-0";

/// Returns a cpumask without leading zeros and commas: the kernel prints all groups in full.
fn significant(mask: &str) -> String {
    let digits: String = mask.trim().chars().filter(|digit| *digit != ',').collect();
    digits.trim_start_matches('0').to_owned()
}

fn owned(answer: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(answer)?;
    // SAFETY: the kernel has just created this descriptor, which has no other owner; descriptors are ints.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Returns all possible CPUs, as a cpumask for the kernel.
fn every_cpu() -> io::Result<String> {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok());
    last.map(mask).ok_or_else(|| io::Error::other(format!("possible CPUs: {possible:?}")))
}

/// Returns CPUs 0 to `last`: groups of 32 bits in hexadecimal, the highest first.
fn mask(last: u32) -> String {
    let groups = (0..=last / 32).rev().map(|group| {
        let bits = (last - group * 32).min(31) + 1;
        format!("{:x}", u32::MAX >> (32 - bits))
    });
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{mask, significant};

    #[test]
    fn masks_are_compared_without_what_the_kernel_adds() {
        for (read, expected) in
            [("00000003\n", "3"), ("0,00000003", "3"), ("00000000", ""), ("1,ffffffff", "1ffffffff")]
        {
            assert_eq!(significant(read), expected);
        }
    }

    #[test]
    fn masks_are_written_as_the_kernel_reads_them() {
        for (last, expected) in
            [(0, "1"), (1, "3"), (31, "ffffffff"), (32, "1,ffffffff"), (95, "ffffffff,ffffffff,ffffffff")]
        {
            assert_eq!(mask(last), expected);
        }
    }
}
