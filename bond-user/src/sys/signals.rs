//! Holds signals that arrive before their handlers are installed.
//!
//! By default SIGHUP, SIGINT and SIGTERM terminate a process at once. A starting agent blocks them: they wait in the
//! kernel until its handlers are installed.

use std::{io, mem::MaybeUninit};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// The signals that the agent handles.
const HANDLED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// Blocks SIGHUP, which requests a reload: the agent may read files now before they are changed.
///
/// # Errors
/// The kernel refuses it.
pub fn hold_reload() -> io::Result<()> {
    mask(SigmaskHow::SIG_BLOCK, &[Signal::SIGHUP])
}

/// Blocks all signals that the agent handles, for the calling thread and those that it starts.
///
/// # Errors
/// The kernel refuses it.
pub fn hold() -> io::Result<()> {
    mask(SigmaskHow::SIG_BLOCK, &HANDLED)
}

/// Unblocks the signals; those that wait are delivered.
///
/// # Errors
/// The kernel refuses it.
pub fn release() -> io::Result<()> {
    mask(SigmaskHow::SIG_UNBLOCK, &HANDLED)
}

/// Returns whether SIGINT or SIGTERM is pending.
pub fn is_end_waiting() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the kernel fills the set, which outlives the call.
    if unsafe { libc::sigpending(pending.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: filled by the call above, which succeeded.
    let pending = unsafe { SigSet::from_sigset_t_unchecked(pending.assume_init()) };
    pending.contains(Signal::SIGINT) || pending.contains(Signal::SIGTERM)
}

fn mask(how: SigmaskHow, signals: &[Signal]) -> io::Result<()> {
    let signals: SigSet = signals.iter().copied().collect();
    Ok(pthread_sigmask(how, Some(&signals), None)?)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::signal::raise;

    use super::*;

    /// The mask belongs to a thread, and so does a signal that is sent to it.
    #[test]
    fn held_signals_stay_pending() {
        let test = || {
            hold().unwrap();
            assert!(!is_end_waiting());
            raise(Signal::SIGHUP).unwrap();
            assert!(!is_end_waiting());
            raise(Signal::SIGTERM).unwrap();
            assert!(is_end_waiting());
        };
        // Pending signals of the thread end with it.
        thread::spawn(test).join().unwrap();
    }
}
