//! A try for some time (`run --confirm`): unless somebody confirms, everything is undone.

use std::{
    future,
    io::{self, IsTerminal as _},
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::report::lines;

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
    /// The time was over first: everything is being undone.
    TooLate,
    /// The agent was told to end first: each bond ends by its on_exit.
    Ending,
}

/// What became of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stays.
    Stays,
    /// Nothing waits for one: it was given before, or bonds are still being made.
    NotAwaited,
    TooLate,
    Ending,
}

impl Confirmation {
    pub fn within(limit: Duration) -> Self {
        Self { limit, state: std::sync::Mutex::new(State::NotYet), given: Notify::new() }
    }

    /// From now on the time runs. On a terminal, Enter confirms as well.
    pub fn begin(self: &Arc<Self>) {
        self.become_(State::Awaited { until: Instant::now() + self.limit });
        let seconds = self.limit.as_secs();
        let hears_enter = if io::stdin().is_terminal() {
            let confirmation = Arc::clone(self);
            let read = move || {
                // The end of the input is no answer.
                if io::stdin().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                    let _ = confirmation.give();
                }
            };
            // Without a thread for it, `xbond confirm` still works.
            thread::Builder::new().name("confirm".into()).spawn(read).is_ok()
        } else {
            false
        };
        let line = if hears_enter {
            format!(
                "press Enter within {seconds} s to keep this, or run `xbond confirm`; else everything is undone"
            )
        } else {
            format!("run `xbond confirm` within {seconds} s to keep this; else everything is undone")
        };
        lines::print(&line);
    }

    /// Confirms. Whether it counts is decided once, here or in [`Self::failed`]: never both.
    pub fn give(&self) -> Answer {
        self.give_at(Instant::now())
    }

    fn give_at(&self, now: Instant) -> Answer {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Awaited { until } if now < until => {
                *state = State::Given;
                self.given.notify_waiters();
                Answer::Stays
            }
            State::Awaited { .. } | State::TooLate => Answer::TooLate,
            State::NotYet | State::Given => Answer::NotAwaited,
            State::Ending => Answer::Ending,
        }
    }

    /// The agent ends for another reason: a confirmation that comes now keeps nothing.
    pub fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::TooLate) {
            *state = State::Ending;
        }
    }

    /// Ends when the time is over without a confirmation, and else never.
    pub async fn failed(&self) {
        loop {
            let given = self.given.notified();
            match self.state() {
                State::Awaited { until } => {
                    tokio::select! {
                        () = sleep_until(until) => {}
                        () = given => {}
                    }
                    if self.is_over() {
                        return;
                    }
                }
                State::TooLate => return,
                State::NotYet | State::Given | State::Ending => future::pending().await,
            }
        }
    }

    /// Whether the time is over and no confirmation came first; from then on none counts.
    fn is_over(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Awaited { until } = *state
            && Instant::now() >= until
        {
            *state = State::TooLate;
        }
        *state == State::TooLate
    }

    pub fn seconds(&self) -> u64 {
        self.limit.as_secs()
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn become_(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn awaited() -> (Confirmation, Instant) {
        let confirmation = Confirmation::within(LIMIT);
        let until = Instant::now() + LIMIT;
        confirmation.become_(State::Awaited { until });
        (confirmation, until)
    }

    #[test]
    fn a_confirmation_counts_before_the_time_is_over_and_once() {
        let (confirmation, until) = awaited();
        assert_eq!(confirmation.give_at(until - Duration::from_nanos(1)), Answer::Stays);
        assert_eq!(confirmation.give_at(until - Duration::from_nanos(1)), Answer::NotAwaited);
        assert!(!confirmation.is_over());
    }

    /// The undoing may take seconds, in which the agent still answers.
    #[tokio::test]
    async fn a_confirmation_after_the_time_does_not_count() {
        let (confirmation, until) = awaited();
        assert_eq!(confirmation.give_at(until), Answer::TooLate);
        confirmation.become_(State::Awaited { until: Instant::now() });
        confirmation.failed().await;
        for now in [until - LIMIT, until, until + LIMIT] {
            assert_eq!(confirmation.give_at(now), Answer::TooLate);
        }
    }

    #[test]
    fn a_confirmation_while_the_agent_ends_does_not_count() {
        let (confirmation, until) = awaited();
        confirmation.end();
        assert_eq!(confirmation.give_at(until - LIMIT), Answer::Ending);
        assert!(!confirmation.is_over());
    }
}
