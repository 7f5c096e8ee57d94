//! What systemd is told of the agent (sd_notify). Where it runs without systemd nothing is told to anybody.

use std::{future::Future, time::Duration};

use sd_notify::NotifyState;
use tracing::warn;

/// The bonds that can be brought up are up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Files are read again; [`ready`] says that this is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// What `systemctl status` shows of the agent.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The agent has begun to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often the watchdog wants to be fed; None where there is none.
pub fn watchdog() -> Option<Duration> {
    // Half of the time after which it bites, as sd_watchdog_enabled(3) recommends.
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Feeds the watchdog each `interval`, as long as `is_alive` answers yes. An answer that does not come is a no.
pub async fn feed<Answer: Future<Output = bool>>(interval: Duration, is_alive: impl Fn() -> Answer) {
    let mut beat = tokio::time::interval(interval);
    loop {
        beat.tick().await;
        match tokio::time::timeout(interval, is_alive()).await {
            Ok(true) => tell(&[NotifyState::Watchdog]),
            Ok(false) => return,
            Err(_) => warn!("the engine does not answer: the watchdog is not fed"),
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd cannot be told: {error}");
    }
}
