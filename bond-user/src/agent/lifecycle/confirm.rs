//! Bonds on trial (`run --confirm`): unless an administrator confirms them in time, they are removed.
//!
//! Each bond's record says until when it is on trial, so an agent that adopts the bond takes the rest of the time over.
//! The bonds of one agent are confirmed, or removed, together.

use std::{
    future,
    io::{self, IsTerminal as _},
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use bond_core::name::BondName;
use tokio::{sync::Notify, time::sleep};
use tracing::warn;

use crate::{
    agent::{Agent, AgentError, Bond, Stopping, bond::work::Request},
    report::{lines, log, wording},
    store::record::{Record, Trial},
    sys::directory::Trust,
};

/// A trial runs by a clock that does not stop with the machine, and timers do.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

/// What is waited for.
pub struct Confirmation {
    /// Of this agent's own --confirm, if it has one: all bonds that it makes are on trial.
    limit: Option<Duration>,
    state: std::sync::Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is on trial, or the bonds of this agent's own trial are still being made.
    NotYet,
    Awaited(Trial),
    Given,
    /// The time was over first: everything on trial is being removed.
    TooLate(Trial),
    /// Everything that was on trial is removed.
    Undone(Trial),
    /// The agent was asked to end first: each bond ends by its on_exit.
    Ending,
}

/// What became of a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stays; this was until when it was on trial.
    Stays(Trial),
    /// Nothing waits for one: it was given before, or bonds are still being made.
    NotAwaited,
    /// Of a trial of so many seconds.
    TooLate(u64),
    Ending,
}

impl Confirmation {
    /// With the limit of --confirm, if that was given.
    pub fn new(limit: Option<Duration>) -> Self {
        Self { limit, state: std::sync::Mutex::new(State::NotYet), changed: Notify::new() }
    }

    /// Returns the trial of a bond that this agent makes now.
    pub fn of_new_bond(&self) -> Option<Trial> {
        let limit = self.limit?;
        match &*self.state() {
            State::NotYet => Some(Trial::within(limit)),
            State::Awaited(trial) => Some(trial.clone()),
            State::Given | State::TooLate(_) | State::Undone(_) | State::Ending => None,
        }
    }

    /// Whether what this agent makes is removed after the time of its own --confirm.
    pub fn is_own(&self) -> bool {
        self.limit.is_some()
    }

    /// Takes over the rest of the time of a bond's trial that another agent began. What ends first ends all.
    pub fn inherit(&self, trial: Trial) {
        let mut state = self.state();
        match &*state {
            State::NotYet | State::Given | State::Undone(_) => *state = State::Awaited(trial),
            State::Awaited(known) => *state = State::Awaited(known.clone().or_earlier(trial)),
            State::TooLate(_) | State::Ending => return,
        }
        self.changed.notify_waiters();
    }

    /// From now on the time of this agent's own --confirm runs. Returns the trial, if it has one. On a terminal, Enter
    /// calls `confirm`.
    pub fn begin(&self, confirm: impl FnOnce() + Send + 'static) -> Option<Trial> {
        let trial = self.start(Trial::within(self.limit?));
        let hears_enter = io::stdin().is_terminal() && {
            let read = move || {
                // The end of the input is no answer.
                if io::stdin().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                    confirm();
                }
            };
            // Without a thread for it, `xbond confirm` still works.
            thread::Builder::new().name("confirm".into()).spawn(read).is_ok()
        };
        let seconds = trial.left().as_secs_f64().round();
        let line = if hears_enter { wording::press_enter(seconds) } else { wording::run_confirm(seconds) };
        lines::print(&line);
        Some(trial)
    }

    fn start(&self, own: Trial) -> Trial {
        let mut state = self.state();
        let trial = match &*state {
            State::Awaited(known) => known.clone().or_earlier(own),
            _ => own,
        };
        *state = State::Awaited(trial.clone());
        trial
    }

    /// Confirms. Whether it counts is decided once, here or in [`Self::failed`]: never both.
    pub fn give(&self) -> Answer {
        let mut state = self.state();
        match &*state {
            State::Awaited(trial) if !trial.is_over() => {
                let trial = trial.clone();
                *state = State::Given;
                self.changed.notify_waiters();
                Answer::Stays(trial)
            }
            State::Awaited(trial) | State::TooLate(trial) | State::Undone(trial) => {
                Answer::TooLate(trial.seconds())
            }
            State::NotYet | State::Given => Answer::NotAwaited,
            State::Ending => Answer::Ending,
        }
    }

    /// A confirmation that could not be recorded does not count.
    fn take_back(&self, trial: Trial) {
        let mut state = self.state();
        if *state == State::Given {
            *state = State::Awaited(trial);
            self.changed.notify_waiters();
        }
    }

    /// The agent ends for another reason: a confirmation that comes now keeps nothing.
    pub fn end(&self) {
        let mut state = self.state();
        if !matches!(*state, State::TooLate(_)) {
            *state = State::Ending;
        }
    }

    /// What was on trial is removed, and the agent keeps running.
    fn undone(&self) {
        let mut state = self.state();
        if let State::TooLate(trial) = &*state {
            *state = State::Undone(trial.clone());
        }
    }

    /// Ends when the time is over without a confirmation, and returns the trial; else never.
    pub async fn failed(&self) -> Trial {
        loop {
            let changed = self.changed.notified();
            let left = match self.advance() {
                State::TooLate(trial) => return trial,
                State::Awaited(trial) => trial.left().min(BETWEEN_CHECKS),
                State::NotYet | State::Given | State::Undone(_) => Duration::MAX,
                State::Ending => future::pending().await,
            };
            tokio::select! {
                biased;
                () = sleep(left) => {}
                () = changed => {}
            }
        }
    }

    /// How it is now. Once a time is over without a confirmation, none counts.
    fn advance(&self) -> State {
        let mut state = self.state();
        if let State::Awaited(trial) = &*state
            && trial.is_over()
        {
            *state = State::TooLate(trial.clone());
        }
        state.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bond {
    /// Has the record say until when the bond is on trial.
    async fn record_trial(&self, trial: Option<Trial>) -> Result<(), AgentError> {
        self.work.ask(|reply| Request::RecordTrial { trial, reply }).await?
    }

    /// Has it stay.
    pub(in crate::agent) async fn end_trial(&self) -> Result<(), AgentError> {
        self.record_trial(None).await?;
        self.set_on_trial(false);
        Ok(())
    }
}

impl Agent {
    /// Refuses what --confirm could not undo: the adoption of a bond that an agent left and that is not on trial. Returns the
    /// trial of one that is.
    ///
    /// # Errors
    /// [`AgentError::NotOnTrial`]; nothing is changed. [`AgentError::TrialOver`]; what is left of the bond is to be removed.
    pub(in crate::agent) fn check_trial(&self, bond: &BondName) -> Result<Option<Trial>, AgentError> {
        let paths = &self.machine.paths;
        // Adoption refuses a bond whose record cannot be read.
        let record = Record::read(paths, bond, Trust::Ours).ok().flatten();
        match record.as_ref().and_then(Record::trial) {
            Some(trial) if trial.is_over() => {
                Err(AgentError::TrialOver { bond: bond.to_string(), seconds: trial.seconds() })
            }
            None if self.is_left(bond) && self.machine.confirmation.of_new_bond().is_some() => {
                Err(AgentError::NotOnTrial { bond: bond.to_string() })
            }
            trial => Ok(trial.cloned()),
        }
    }

    /// The time of this agent's own --confirm begins.
    pub(in crate::agent) async fn begin_trial(self: &Arc<Self>) {
        let (agent, runtime) = (Arc::clone(self), tokio::runtime::Handle::current());
        let confirm = move || {
            if let Err(error) = runtime.block_on(agent.confirm()) {
                warn!("{error}");
            }
        };
        let Some(trial) = self.machine.confirmation.begin(confirm) else { return };
        for (name, bond) in self.on_trial() {
            if let Err(error) = bond.record_trial(Some(trial.clone())).await {
                log::of(&name).warn(wording::trial_unrecorded(&error));
            }
        }
    }

    /// What was tried is to stay.
    ///
    /// # Errors
    /// Nothing is on trial, the time is over, or it could not be recorded: then the bonds stay on trial.
    pub async fn confirm(&self) -> Result<(), AgentError> {
        let trial = match self.machine.confirmation.give() {
            Answer::Stays(trial) => trial,
            Answer::NotAwaited => return Err(AgentError::NothingToConfirm),
            Answer::TooLate(seconds) => return Err(AgentError::ConfirmedTooLate { seconds }),
            Answer::Ending => return Err(Stopping.into()),
        };
        let bonds = self.on_trial();
        for (_, bond) in &bonds {
            if let Err(error) = bond.record_trial(None).await {
                self.machine.confirmation.take_back(trial.clone());
                for (_, bond) in &bonds {
                    // Those that were recorded are on trial again.
                    let _ = bond.record_trial(Some(trial.clone())).await;
                }
                return Err(AgentError::NotRecorded { error: Box::new(error) });
            }
        }
        bonds.iter().for_each(|(_, bond)| bond.set_on_trial(false));
        Ok(())
    }

    /// Removes what is on trial, and keeps in mind that it is not there.
    pub(in crate::agent) async fn undo_trial(&self, trial: &Trial) {
        let _phase = self.phase.lock().await;
        for (name, bond) in self.on_trial() {
            // Waits for a change of the bond that is under way.
            let turn = bond.turn.lock().await;
            self.bonds().remove(&name);
            drop(turn);
            let goal = bond.goal();
            if let Err(error) = self.take_down(&name, &bond).await {
                log::of(&name).warn(wording::not_all_restored(&name, &error));
            }
            let sentence =
                self.remember_unconfirmed(goal.config.clone(), goal.of_files, trial.seconds()).await;
            log::of(&name).warn(sentence);
        }
        self.machine.confirmation.undone();
    }

    fn on_trial(&self) -> Vec<(BondName, Arc<Bond>)> {
        self.all().into_iter().filter(|(_, bond)| bond.is_on_trial()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn own() -> Confirmation {
        Confirmation::new(Some(LIMIT))
    }

    #[test]
    fn a_confirmation_counts_before_the_time_is_over_and_once() {
        let confirmation = own();
        assert_eq!(confirmation.give(), Answer::NotAwaited);
        let trial = confirmation.start(Trial::within(LIMIT));
        assert_eq!(confirmation.of_new_bond(), Some(trial.clone()));
        assert_eq!(confirmation.give(), Answer::Stays(trial));
        assert_eq!(confirmation.give(), Answer::NotAwaited);
        assert_eq!((confirmation.advance(), confirmation.of_new_bond()), (State::Given, None));
    }

    /// The undoing may take seconds, in which the agent still answers.
    #[tokio::test]
    async fn a_confirmation_after_the_time_does_not_count() {
        let confirmation = own();
        let over = confirmation.start(Trial::within(Duration::ZERO));
        assert_eq!(confirmation.give(), Answer::TooLate(0));
        assert_eq!(confirmation.failed().await, over);
        assert_eq!(confirmation.give(), Answer::TooLate(0));
        confirmation.undone();
        assert_eq!((confirmation.give(), confirmation.advance()), (Answer::TooLate(0), State::Undone(over)));
    }

    #[test]
    fn a_confirmation_while_the_agent_ends_does_not_count() {
        let confirmation = own();
        confirmation.start(Trial::within(LIMIT));
        confirmation.end();
        assert_eq!((confirmation.give(), confirmation.advance()), (Answer::Ending, State::Ending));
    }

    #[test]
    fn a_confirmation_that_could_not_be_recorded_is_awaited_again() {
        let confirmation = own();
        let trial = confirmation.start(Trial::within(LIMIT));
        assert_eq!(confirmation.give(), Answer::Stays(trial.clone()));
        confirmation.take_back(trial.clone());
        assert_eq!(confirmation.advance(), State::Awaited(trial));
    }

    /// The bonds that an agent without --confirm makes are not on trial, whatever it has inherited.
    #[tokio::test]
    async fn an_inherited_trial_ends_when_the_first_ends() {
        let (early, late) = (Trial::within(Duration::ZERO), Trial::within(LIMIT));
        let confirmation = Confirmation::new(None);
        confirmation.inherit(late.clone());
        assert_eq!(confirmation.advance(), State::Awaited(late.clone()));
        confirmation.inherit(early.clone());
        confirmation.inherit(late.clone());
        assert_eq!((confirmation.failed().await, confirmation.of_new_bond()), (early.clone(), None));

        let confirmation = own();
        confirmation.inherit(early.clone());
        assert_eq!(confirmation.start(late), early);
    }
}
