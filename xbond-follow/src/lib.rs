//! Follows the active slave of a bond from a program that has sockets of its own on the slaves: AF_XDP or packet
//! sockets, a DPDK port.
//!
//! The data plane of a bond keeps one 64-bit word, ACTIVE, which says which slave transmits and receives. The agent and
//! the BPF programs change it; every packet of bond0 reads it. [`Follower`] maps this word and the table of slaves, SLAVES,
//! into the program, read-only: reading them is a load from memory and no system call, and works whether or not an agent
//! runs. The layout of both is a promise for all versions 1.x (`docs/reference/follow.md` in the repository).
//!
//! ```no_run
//! # fn main() -> Result<(), xbond_follow::FollowError> {
//! use xbond_follow::Follower;
//!
//! let follower = Follower::open("bond0")?;
//! loop {
//!     // Once for each batch of frames.
//!     let Some(active) = follower.active() else { continue };
//!     println!("transmit by ifindex {} from {:02x?}", active.ifindex, active.mac);
//! }
//! # }
//! ```
//!
//! - [`Follower::active`] before each batch is all that a program needs which sends or receives all the time.
//! - [`Follower::wait`] and [`Watch`] are for programs that have to act on a change itself. No notification exists that
//!   works without an agent, so both read the word at an interval.
//! - [`Word::delivers`] says whether a frame that a slave received is for the bond.
//!
//! `include/xbond_follow.h` offers the same to C.

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

mod error;
mod follower;
mod paths;
mod sys;
mod watch;
mod word;

pub use error::FollowError;
pub use follower::{Follower, Slave};
pub use watch::Watch;
pub use word::Word;

/// The number of slots, and so of slaves, of a bond.
pub const MAX_SLAVES: u8 = 16;
