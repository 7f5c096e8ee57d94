//! Virtual time: a thread whose clocks are those of its runtime, which tokio can stop and advance.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// The clocks of a thread, and of the agent that runs on it.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    /// A moment of the runtime's clock.
    pub origin: Instant,
    /// CLOCK_MONOTONIC of the machine at that moment.
    pub monotonic: Duration,
    /// The time for which the machine was suspended so far.
    pub suspended: Duration,
    /// The time of day at that moment, since 1970.
    pub wall: Duration,
}

thread_local! {
    static CLOCK: Cell<Option<VirtualClock>> = const { Cell::new(None) };
}

/// Gives this thread these clocks, or those of the machine. They can be read inside of the runtime only.
pub fn set_clock(clock: Option<VirtualClock>) {
    CLOCK.set(clock);
}

fn read(time: impl FnOnce(VirtualClock) -> Duration) -> Option<Duration> {
    let clock = CLOCK.get()?;
    Some(time(clock).saturating_add(Instant::now().saturating_duration_since(clock.origin)))
}

/// Returns CLOCK_MONOTONIC; `None` on a thread with the machine's clocks.
pub fn monotonic() -> Option<Duration> {
    read(|clock| clock.monotonic)
}

/// Returns CLOCK_BOOTTIME; `None` on a thread with the machine's clocks.
pub fn boottime() -> Option<Duration> {
    read(|clock| clock.monotonic.saturating_add(clock.suspended))
}

/// Returns how far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC; `None` on a thread with the machine's clocks.
pub fn boottime_ahead() -> Option<Duration> {
    CLOCK.get().map(|clock| clock.suspended)
}

/// Returns the time of day since 1970; `None` on a thread with the machine's clocks.
pub fn wall() -> Option<Duration> {
    read(|clock| clock.wall)
}
