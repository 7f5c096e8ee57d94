//! Events about filters (RTNLGRP_TC) and nftables (NFNLGRP_NFTABLES) of a network namespace. Only their number is
//! used: the reader of the counter reads filters and chains again. Events beyond a limited rate are dropped.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tracing::info;

/// linux/rtnetlink.h, linux/netfilter/nfnetlink.h
const RTNLGRP_TC: u32 = 4;
const NFNLGRP_NFTABLES: u32 = 7;

/// Counts events from now on, on its own thread, in the network namespace of the calling thread. If the kernel sends
/// none, readers of the counter have to poll.
pub fn listen() -> Arc<AtomicU64> {
    let changes = Arc::<AtomicU64>::default();
    let groups = [(NETLINK_ROUTE, RTNLGRP_TC), (NETLINK_NETFILTER, NFNLGRP_NFTABLES)];
    let open = |(protocol, group)| {
        subscribe(protocol, group)
            .inspect_err(|error| info!("filters and nftables are read every ten seconds: {error}"))
            .ok()
    };
    let sockets: Vec<_> = groups.into_iter().filter_map(open).collect();
    if !sockets.is_empty() {
        let counted = Arc::clone(&changes);
        let started =
            thread::Builder::new().name("hook-events".into()).spawn(move || count(&sockets, &counted));
        if let Err(error) = started {
            info!("filters and nftables are read every ten seconds: {error}");
        }
    }
    changes
}

fn subscribe(protocol: isize, group: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(group)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn count(sockets: &[Socket], changes: &AtomicU64) {
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        let mut ready: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, PollTimeout::NONE) {
            // The kernel lacks memory for the call: it is repeated after the pause.
            Ok(_) | Err(Errno::EINTR | Errno::ENOMEM | Errno::EAGAIN) => {}
            Err(error) => return info!("filters and nftables are read every ten seconds: {error}"),
        }
        for socket in sockets {
            loop {
                buffer.clear();
                match socket.recv(&mut buffer, 0) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The buffer has overflowed (ENOBUFS), which is a change, too.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    // What would have been read may be a change.
                    Err(_) => {
                        changes.fetch_add(1, Ordering::AcqRel);
                        break;
                    }
                }
                changes.fetch_add(1, Ordering::AcqRel);
            }
        }
        // Events may arrive at any rate; they are read a hundred times a second.
        thread::sleep(PAUSE);
    }
}

const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::testing::{in_namespace, veth};

    fn waits_for_more(changes: &AtomicU64, before: u64) -> bool {
        (0..500).any(|_| {
            thread::sleep(PAUSE);
            changes.load(Ordering::Acquire) > before
        })
    }

    #[test]
    fn changes_of_filters_and_chains_are_counted() {
        in_namespace(async |devices| {
            veth(&devices, "eth1", "far1").await;
            let changes = listen();
            let run = |line: &str| {
                let mut words = line.split(' ');
                let status = Command::new(words.next().unwrap()).args(words).status();
                status.is_ok_and(|status| status.success())
            };
            let before = changes.load(Ordering::Acquire);
            assert!(run("tc qdisc add dev eth1 clsact"));
            assert!(waits_for_more(&changes, before));
            let before = changes.load(Ordering::Acquire);
            if run("nft add table netdev t") {
                assert!(waits_for_more(&changes, before));
            }
        });
    }
}
