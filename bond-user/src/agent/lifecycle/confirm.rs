//! A try for some time (`run --confirm`): unless somebody confirms, everything is undone.

use std::{
    future,
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// What is waited for.
pub struct Confirmation {
    limit: Duration,
    state: std::sync::Mutex<State>,
    given: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bonds are being made; the time does not run yet.
    NotYet,
    Awaited {
        until: Instant,
    },
    Given,
}

impl Confirmation {
    pub fn within(limit: Duration) -> Self {
        Self { limit, state: std::sync::Mutex::new(State::NotYet), given: Notify::new() }
    }

    /// From now on the time runs. On a terminal, Enter confirms as well.
    pub fn begin(self: &Arc<Self>) {
        self.become_(State::Awaited { until: Instant::now() + self.limit });
        let seconds = self.limit.as_secs();
        let line = if io::stdin().is_terminal() {
            let confirmation = Arc::clone(self);
            thread::spawn(move || {
                // The end of the input is no answer.
                if io::stdin().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                    confirmation.give();
                }
            });
            format!(
                "press Enter within {seconds} s to keep this, or run `xbond confirm`; else everything is undone"
            )
        } else {
            format!("run `xbond confirm` within {seconds} s to keep this; else everything is undone")
        };
        let _ = writeln!(io::stdout(), "{line}");
    }

    /// False if nothing waits for it.
    pub fn give(&self) -> bool {
        let awaited = matches!(self.state(), State::Awaited { .. });
        if awaited {
            self.become_(State::Given);
            self.given.notify_waiters();
        }
        awaited
    }

    /// Ends when the time is over without a confirmation, and else never.
    pub async fn failed(&self) {
        loop {
            let given = self.given.notified();
            match self.state() {
                State::Awaited { until } => {
                    tokio::select! {
                        () = sleep_until(until) => return,
                        () = given => {}
                    }
                }
                State::NotYet | State::Given => future::pending().await,
            }
        }
    }

    pub fn seconds(&self) -> u64 {
        self.limit.as_secs()
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn become_(&self, state: State) {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
    }
}
