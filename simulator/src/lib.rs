//! The simulator: xbond's own agents, with their engines, workers, plans and files, on a machine in memory and in virtual
//! time. A seed makes a [`plan`], a run of it in the [`world`] is always the same, [`world::check`] says what must hold, and
//! [`shrink`] looks for the shortest plan that still fails.

pub mod plan;
pub mod replay;
pub mod report;
pub mod shrink;
pub mod world;

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use self::{
    plan::Plan,
    world::{World, check::Violation},
};

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Virtual milliseconds.
    pub time: u64,
    /// A number made of everything that was observed: equal for equal runs.
    pub fingerprint: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Changes of active slaves.
    pub failovers: u64,
}

thread_local! {
    /// The last panic of this thread: tasks that panic end without a word.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Returns the panic since the last call, if there was one.
fn take_panic() -> Option<String> {
    PANIC.take()
}

/// Has panics noted, in place of printed.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let text = format!("{info}");
            PANIC.with_borrow_mut(|panic| {
                panic.get_or_insert(text);
            });
        }));
    });
}

/// Runs a plan.
///
/// # Errors
/// The simulator itself has failed: a directory cannot be made, or the configuration is refused.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    note_panics();
    drop(take_panic());
    let ran = panic::catch_unwind(AssertUnwindSafe(|| World::new(plan)?.run()));
    bond_user::sys::fake::time::set_clock(None);
    bond_user::sys::fake::random::seed(None);
    match ran {
        Ok(outcome) => outcome,
        Err(_) => {
            let what = take_panic().unwrap_or_else(|| "a panic".to_owned());
            Ok(Outcome { violation: Some(Violation { at: 0, what }), ..Outcome::default() })
        }
    }
}
