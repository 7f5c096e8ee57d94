//! Notifications of the agent to systemd (sd_notify). Without systemd nothing is sent.

use std::{future::Future, time::Duration};

use sd_notify::NotifyState;
use tracing::warn;

/// Notifies that the bonds that can be brought up are up.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Notifies that files are read again; [`ready`] notifies the end of that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Sets the text that `systemctl status` shows for the agent.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// Notifies that the agent has begun to end.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Returns how often the watchdog has to be fed; `None` if there is none.
pub fn watchdog() -> Option<Duration> {
    // Half of the watchdog's timeout, as sd_watchdog_enabled(3) recommends.
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Feeds the watchdog each `interval`, as long as `is_alive` answers yes. A missing answer counts as no.
pub async fn feed<Answer: Future<Output = bool>>(interval: Duration, is_alive: impl Fn() -> Answer) {
    let mut beat = tokio::time::interval(interval);
    loop {
        beat.tick().await;
        match tokio::time::timeout(interval, is_alive()).await {
            Ok(true) => notify(&[NotifyState::Watchdog]),
            Ok(false) => return,
            Err(_) => warn!("the engine does not answer: the watchdog is not fed"),
        }
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd cannot be notified: {error}");
    }
}
