//! Link notifications of the kernel, with the time at which each was received.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::netns::NetNs;

/// How often the listener checks whether it should end.
const TICK: Duration = Duration::from_millis(20);
const RTMGRP_LINK: u32 = 1;
/// struct nlmsghdr; in the struct ifinfomsg that follows, the index and the flags.
const HEADER: usize = 16;
const INDEX: usize = HEADER + 4;
const FLAGS: usize = HEADER + 8;
/// Room for the datagrams of a hundred bonds that fail over at once.
const QUEUE: libc::c_int = 16 << 20;

/// The state of a link in a notification of RTNLGRP_LINK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    pub at: Instant,
    pub ifindex: u32,
    /// IFF_LOWER_UP
    pub carrier: bool,
}

/// Receives the link notifications of a namespace.
pub struct LinkWatch {
    shared: Arc<Shared>,
    listener: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    notifications: Mutex<Vec<Notification>>,
    changed: Condvar,
    stop: AtomicBool,
}

impl LinkWatch {
    /// Starts to receive: every notification from the return of this call on.
    ///
    /// # Errors
    /// The socket or the thread cannot be created.
    pub fn start(namespace: &NetNs) -> Result<Self> {
        let socket = namespace.run(|| listen().context("cannot listen to link events"))?;
        let shared = Arc::new(Shared::default());
        let listener = namespace.spawn({
            let shared = shared.clone();
            move || hear(&socket, &shared)
        })?;
        Ok(Self { shared, listener: Some(listener) })
    }

    /// Returns the first time after `start` at which a notification reports this link with, or without, a carrier.
    ///
    /// # Errors
    /// No such notification arrived in time.
    pub fn wait_for(
        &self,
        start: Instant,
        ifindex: u32,
        carrier: bool,
        timeout: Duration,
    ) -> Result<Instant> {
        let deadline = Instant::now() + timeout;
        let mut notifications = self.shared.notifications.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let wanted = |notifications: &&Notification| {
                notifications.at >= start
                    && notifications.ifindex == ifindex
                    && notifications.carrier == carrier
            };
            if let Some(found) = notifications.iter().find(wanted) {
                return Ok(found.at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the kernel reports no such change of link {ifindex} within {timeout:?}");
            }
            notifications = self
                .shared
                .changed
                .wait_timeout(notifications, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join().unwrap_or_else(|_| Err(anyhow!("the listener panicked")));
        }
    }
}

fn listen() -> io::Result<OwnedFd> {
    // SAFETY: three integers; the descriptor in the answer is new and has no other owner.
    let fd = unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let fd = Errno::result(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE))?;
        OwnedFd::from_raw_fd(fd)
    };
    nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::RcvBufForce, &(QUEUE as usize))?;
    // SAFETY: sockaddr_nl is plain data, for which zero bytes are a valid value.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = RTMGRP_LINK;
    // SAFETY: the address is a sockaddr_nl that outlives the call, and its size is given.
    let bound =
        unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    Errno::result(bound)?;
    Ok(fd)
}

fn hear(socket: &OwnedFd, shared: &Shared) -> Result<()> {
    let mut datagram = vec![0; 64 << 10];
    while !shared.stop.load(Ordering::Acquire) {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("cannot wait for link events"),
        }
        let length =
            nix::sys::socket::recv(socket.as_raw_fd(), &mut datagram, nix::sys::socket::MsgFlags::empty())
                .context("cannot read link events")?;
        let at = Instant::now();
        let mut notifications = shared.notifications.lock().unwrap_or_else(PoisonError::into_inner);
        notifications.extend(read(&datagram[..length]).map(|(ifindex, carrier)| Notification {
            at,
            ifindex,
            carrier,
        }));
        shared.changed.notify_all();
    }
    Ok(())
}

/// Returns index and carrier of every link in a datagram.
fn read(mut datagram: &[u8]) -> impl Iterator<Item = (u32, bool)> {
    std::iter::from_fn(move || {
        loop {
            let length = word(datagram, 0)? as usize;
            let message = datagram.get(..length.max(HEADER))?;
            datagram = datagram.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
            let kind = word(message, 4)? as u16;
            // A bridge's notification describes only its port.
            if kind == libc::RTM_NEWLINK && message.get(HEADER) == Some(&0) {
                let carrier = word(message, FLAGS)? & libc::IFF_LOWER_UP as u32 != 0;
                return Some((word(message, INDEX)?, carrier));
            }
        }
    })
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cut, Lab, WAIT_LIMIT};

    #[test]
    fn a_cut_is_reported() {
        crate::skip_if_unable!();
        let lab = Lab::scenario().unwrap();
        lab.host.ip("link set enp0s8 up").unwrap();
        let ifindex = lab.host.link("enp0s8").unwrap().ifindex;
        let watch = LinkWatch::start(&lab.host).unwrap();
        let start = lab.cut("enp0s8", Cut::Carrier).unwrap();
        let down = watch.wait_for(start, ifindex, false, WAIT_LIMIT).unwrap();
        lab.reconnect("enp0s8", Cut::Carrier).unwrap();
        assert!(watch.wait_for(down, ifindex, true, WAIT_LIMIT).unwrap() >= down);
    }
}
