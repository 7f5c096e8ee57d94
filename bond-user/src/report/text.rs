//! The text of `xbond show`, `xbond log` and `xbond monitor`, in 80 columns.

mod columns;
mod log;
mod monitor;
mod show;
mod wording;

pub use self::{
    log::log,
    monitor::event,
    show::{Amount, show},
    wording::{
        KEPT, LEFT_TO_MOUNT, ORPHANED, PARTIAL_CHECKSUMS, PRIVATE_PINS, PathFault, PathNote, Repair,
        all_slaves_active_below, announced, bypassed, conflict, damaged, expiring, given_away, goes_round,
        macs_followed, no_more, no_unicast, not_all_restored, not_here, not_restored_yet, on_trial,
        path_fault, recounted, unconfirmed, unrecorded, why,
    },
};

#[cfg(test)]
mod tests;
