//! The network namespace of the calling thread.

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::SysError;

/// From include/uapi/asm-generic/socket.h; libc does not have it.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// `SO_NETNS_COOKIE`: a number that no other network namespace has had or will have until the next boot.
/// Linux 5.14 on.
pub fn cookie() -> Result<u64, SysError> {
    let failed = |error: nix::Error| {
        SysError::kernel("read SO_NETNS_COOKIE", "the network namespace", io::Error::from(error))
            .advise(Some("xbond needs Linux 5.14 or later".to_owned()))
    };
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
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
    fn every_namespace_has_its_own() {
        let here = super::cookie().unwrap();
        assert_eq!(here, super::cookie().unwrap());
        in_namespace(async move |_| assert_ne!(super::cookie().unwrap(), here));
    }
}
