//! The network namespace of the calling thread.

use std::{io, os::fd::AsRawFd, path::Path};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{SysError, file};

/// From include/uapi/asm-generic/socket.h; libc does not have it.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The directory of `ip netns`.
const NAMED: &str = "/run/netns";

/// Moves the calling thread, and those that it starts, into a namespace of `ip netns`. Mounts are unchanged: bpffs
/// can be reached, and /sys/class/net still shows the former namespace. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// There is no such namespace, or it may not be entered.
pub fn enter(name: &str) -> Result<(), SysError> {
    // As in `ip netns`, a name is no path.
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(SysError::NoSuchNamespace(name.to_owned()));
    }
    let namespace = match file::options().read(true).open(Path::new(NAMED).join(name)) {
        Ok(namespace) => namespace,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SysError::NoSuchNamespace(name.to_owned()));
        }
        Err(error) => return Err(SysError::kernel("enter", format!("network namespace {name}"), error)),
    };
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| {
        SysError::kernel("enter", format!("network namespace {name}"), error.into())
            .advise((error == nix::Error::EPERM).then(|| "run it with sudo".to_owned()))
    })
}

/// Returns the names of the namespaces of `ip netns`, sorted.
///
/// # Errors
/// Their directory exists and cannot be read.
pub fn names() -> Result<Vec<String>, SysError> {
    let paths = match file::list(Path::new(NAMED)) {
        Ok(paths) => paths,
        Err(error) if error.is_absent() => Vec::new(),
        Err(error) => return Err(SysError::kernel("list the network namespaces", NAMED, error.into())),
    };
    let mut names: Vec<_> =
        paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Returns `SO_NETNS_COOKIE`: a number that no other network namespace has had or will have until the next boot.
/// Linux 5.14 or later.
///
/// # Errors
/// The kernel is older than 5.14, or the process lacks descriptors.
pub fn cookie() -> Result<u64, SysError> {
    let failed = |error: nix::Error| {
        SysError::kernel("read SO_NETNS_COOKIE", "the network namespace", io::Error::from(error))
            .advise(Some("xbond needs Linux 5.14 or later".to_owned()))
    };
    let socket =
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `cookie`, and the new length; both
    // outlive the call.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, value, &mut length)
    };
    nix::errno::Errno::result(result).map_err(failed)?;
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use crate::sys::testing::in_namespace;

    #[test]
    fn a_name_is_no_path() {
        for name in ["", ".", "..", "../../proc/1/ns/net", "a/b", "no-such-namespace"] {
            let error = super::enter(name).unwrap_err().to_string();
            assert_eq!(error, format!("{name:?}: no such network namespace; `ip netns list` lists them"));
        }
    }

    #[test]
    fn every_namespace_has_its_own() {
        let here = super::cookie().unwrap();
        assert_eq!(here, super::cookie().unwrap());
        in_namespace(async move |_| assert_ne!(super::cookie().unwrap(), here));
    }
}
