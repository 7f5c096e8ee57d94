//! The bonding engine: it decides, and leaves the actions to its caller.
//!
//! The caller passes events and their times to the engine ([`Engine::handle`]). The engine returns a batch of
//! commands ([`command::Batch`]) and the time of its next call ([`Engine::poll_timeout`]). It reads no clock, does no I/O,
//! logs nothing and uses neither netlink nor BPF, so every rule of the bonding driver that it follows is a table in a
//! test. Functions of drivers/net/bonding/bond_main.c are named where a rule comes from them.
//!
//! - [`event`], [`command`], [`status`], [`options`], [`damping`], [`watch`]: the engine's input and output; [`name`]: valid names of bonds and
//!   interfaces.
//! - `engine`: the bond's state, the way from each event to its batch, and the rules: `link_state` (miimon, updelay,
//!   downdelay), `arp_monitor` (arp_interval), `election` (primary, primary_reselect, prio), `mac_plan` (fail_over_mac),
//!   `avoid` (drained and damped slaves), `announce` (rounds of announcements), `receive_check` (whether the active slave receives unicast).

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        clippy::panic,
        clippy::unwrap_used,
        clippy::wildcard_enum_match_arm
    )
)]

mod change;
pub mod command;
pub mod damping;
mod engine;
pub mod event;
pub mod name;
pub mod options;
pub mod purpose;
pub mod status;
#[cfg(test)]
mod tests;
pub mod watch;

pub use change::{ChangedBy, DataPlaneChange};
pub use engine::{Engine, LeftSlave, NewBond, OrphanState, Refusal, SlaveRef, announcement_interval};

/// A point in time: the duration since a fixed moment, which never decreases (CLOCK_MONOTONIC).
pub type Time = std::time::Duration;
