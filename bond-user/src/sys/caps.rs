//! Capabilities of the agent.

use std::io;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::unistd::{Gid, Uid, User, getgroups, setgroups, setresgid, setresuid};

use super::SysError;

/// For netlink, ethtool and BPF networking programs; packet sockets; maps and programs; bpf_probe_read_kernel.
const NEEDED: [Capability; 4] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_BPF, Capability::CAP_PERFMON];

/// Checks that the calling thread has the capabilities that xbond needs.
///
/// # Errors
/// A capability is missing ([`SysError::NotPrivileged`] names it), or the kernel does not return the thread's
/// capabilities.
pub fn check() -> Result<(), SysError> {
    let effective = caps::read(None, CapSet::Effective).map_err(failed)?;
    let missing: Vec<_> = NEEDED.into_iter().filter(|needed| !effective.contains(needed)).collect();
    if missing.is_empty() { Ok(()) } else { Err(SysError::NotPrivileged { missing: names(&missing) }) }
}

/// Permanently drops all other capabilities of the calling thread. Call this before the first thread is started, and
/// after everything that needs more (mounting bpffs, entering a namespace).
///
/// # Errors
/// The kernel refuses to drop or keep a capability, or to set `no_new_privs`. Some capabilities may be dropped then:
/// the process must not continue.
pub fn keep_needed() -> Result<(), SysError> {
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    // CAP_SETPCAP itself is dropped, too.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        for other in caps::runtime::thread_all_supported().difference(&needed) {
            caps::drop(None, CapSet::Bounding, *other).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    // Effective first: it is a part of the permitted ones.
    for set in [CapSet::Effective, CapSet::Permitted] {
        if caps::read(None, set).map_err(failed)? != needed {
            caps::set(None, set, &needed).map_err(failed)?;
        }
    }
    // A service begins with no others, and its filter of system calls refuses every change. Without new privileges, inheritable
    // ones give nothing to the programs that it executes.
    let _ = caps::clear(None, CapSet::Inheritable);
    // Prevents a program with file capabilities, should the agent ever execute one, from regaining them.
    nix::sys::prctl::set_no_new_privs()
        .map_err(|error| SysError::kernel("set no_new_privs", "this thread", error.into()))
}

/// Permanently changes the user, with the capabilities that xbond needs and no others. As for [`keep_needed`], call
/// this before the first thread is started.
///
/// # Errors
/// The kernel refuses to change the groups, the user or the capabilities. Some may be changed then: the process must
/// not continue.
pub fn become_user(user: u32) -> Result<(), SysError> {
    let failed_to = |error: nix::Error| SysError::kernel("become", format!("user {user}"), error.into());
    let (uid, gid) = (Uid::from_raw(user), User::from_uid(Uid::from_raw(user)).ok().flatten());
    let gid = gid.map_or(Gid::from_raw(user), |user| user.gid);
    nix::sys::prctl::set_keepcaps(true).map_err(failed_to)?;
    setgroups(&[]).map_err(failed_to)?;
    setresgid(gid, gid, gid).map_err(failed_to)?;
    setresuid(uid, uid, uid).map_err(failed_to)?;
    keep_needed()
}

/// Joins a group, so that the process can change the group of its files later, for which it would need CAP_CHOWN
/// otherwise. If that is not allowed, the process is a member already, or its files keep its own group.
pub fn join_group(group: Gid) {
    let mut groups = getgroups().unwrap_or_default();
    if !groups.contains(&group) {
        groups.push(group);
        let _ = setgroups(&groups);
    }
}

fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn failed(error: CapsError) -> SysError {
    SysError::kernel("change the capabilities", "this thread", io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Capabilities belong to a thread, so the other threads of this process keep theirs.
    #[test]
    fn unneeded_capabilities_are_dropped_and_missing_ones_named() {
        if let Err(error) = check() {
            eprintln!("skipped: {error}");
            return;
        }
        let test = || {
            keep_needed().unwrap();
            check().unwrap();
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert_eq!(caps::read(None, set).unwrap(), NEEDED.into_iter().collect(), "{set:?}");
            }
            assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(true));
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
            caps::drop(None, CapSet::Effective, Capability::CAP_BPF).unwrap();
            assert_eq!(
                check().unwrap_err().to_string(),
                "xbond needs CAP_BPF, which this process does not have; run it with sudo"
            );
        };
        thread::spawn(test).join().unwrap();
    }
}
