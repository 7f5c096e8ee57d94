//! What a run prints.

use std::cell::Cell;

thread_local! {
    static IS_VERBOSE: Cell<bool> = const { Cell::new(false) };
}

/// Has the lines of runs on this thread printed, or not.
pub fn set_verbose(verbose: bool) {
    IS_VERBOSE.set(verbose);
}

/// Prints a line of a run's history.
pub fn line(at: u64, text: &str) {
    if IS_VERBOSE.get() {
        println!("{:>9}.{:03} {text}", at / 1000, at % 1000);
    }
}
