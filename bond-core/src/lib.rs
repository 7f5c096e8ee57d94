//! The bonding engine: everything that decides, nothing that acts.
//!
//! The engine is told what happened and when ([`Engine::handle`]), and answers with what is to be done
//! ([`Engine::poll_command`]) and when it wants to be called again ([`Engine::poll_timeout`]). It reads no
//! clock, does no I/O, logs nothing and knows neither netlink nor BPF, so every rule of the bonding driver
//! that it follows is a table in a test. Functions of drivers/net/bonding/bond_main.c are named where a rule
//! comes from them.
//!
//! - [`event`], [`command`], [`status`], [`options`]: what goes in and comes out; [`name`]: what bonds and interfaces may
//!   be called.
//! - `engine`: the bond's state, the way from each event to its commands, and the rules: `link_state` (miimon, updelay,
//!   downdelay), `arp_monitor` (arp_interval), `election` (primary, primary_reselect, prio), `mac_plan` (fail_over_mac),
//!   `announce` (rounds of announcements), `receive_check` (whether the active slave receives unicast).

pub mod command;
mod engine;
pub mod event;
pub mod name;
pub mod options;
pub mod status;
#[cfg(test)]
mod tests;

pub use engine::{Engine, GuardFailover, Left, LeftSlave, NewBond, Refusal, SlaveRef};

/// A moment: the time since a fixed one, which never goes back (CLOCK_MONOTONIC).
pub type Time = std::time::Duration;
