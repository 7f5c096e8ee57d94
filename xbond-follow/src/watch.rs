//! Changes as a descriptor for poll(2) and epoll(7).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Follower, follower::SHORTEST_INTERVAL, sys};

/// A descriptor that becomes readable when ACTIVE, or the interface or MAC address of the active slave, has changed.
///
/// A thread reads the maps once in each interval. The kernel cannot wake a program at a change of a mapped word, and the
/// ring buffer EVENTS is the agent's: it has one consumer, lacks the agent's own changes, and fills up while no agent
/// runs.
///
/// Wait for it together with the program's sockets; then call [`Self::take`] and [`Follower::active`].
#[derive(Debug)]
pub struct Watch {
    changed: Arc<OwnedFd>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread. `interval` is the longest time until a change is seen: at least 10 µs; a millisecond costs about 2 %
    /// of a CPU of a virtual machine. Changes after this call returns are seen.
    ///
    /// # Errors
    /// There is no free descriptor, or the thread cannot be started.
    pub fn start(follower: Arc<Follower>, interval: Duration) -> io::Result<Self> {
        let (changed, stop) = (Arc::new(sys::eventfd()?), sys::eventfd()?);
        let (event, end) = (Arc::clone(&changed), stop.try_clone()?);
        let interval = interval.max(SHORTEST_INTERVAL);
        let mut seen = follower.active_with_word();
        let thread = thread::Builder::new().name("xbond-follow".to_owned()).spawn(move || {
            sys::block_signals();
            while !sys::pause(interval, Some(end.as_fd())) {
                let now = follower.active_with_word();
                if now != seen {
                    seen = now;
                    sys::notify(&*event);
                }
            }
        })?;
        Ok(Self { changed, stop, thread: Some(thread) })
    }

    /// Returns the number of changes that were seen since the last call, 0 if there was none. The descriptor is not readable
    /// any more.
    pub fn take(&self) -> u64 {
        sys::take(&*self.changed)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        OwnedFd::as_fd(&self.changed)
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.changed.as_raw_fd()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        sys::notify(&self.stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
