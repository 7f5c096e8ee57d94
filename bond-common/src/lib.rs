//! The contract between xbond's data plane (BPF programs) and its agent.
//!
//! - [`abi`], [`counters`], [`event`]: the values of the maps and the records of the ring buffer; [`names`]: what maps
//!   and programs are called.
//! - [`verdict`]: whether a packet is delivered, redirected or dropped; [`guard`]: the failover of the carrier guard.
//! - [`wire`]: finds and rewrites MAC addresses in frames; [`mac`]: the address itself.
//! - [`dhcp`]: has answers to DHCP requests reach a host whose MAC address is not on the wire.
//! - [`probe`]: recognises the frames that the ARP monitor counts.
//! - [`clock`]: what a tick of the clock in the kernel reads, decides and writes.
//! - [`path`]: the path monitor, which is part of the tick.
//!
//! All of it is pure and `no_std`: it runs in the kernel and, in tests, on the host.
#![cfg_attr(not(test), no_std)]
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

pub mod abi;
pub mod behind;
pub mod clock;
pub mod counters;
pub mod dhcp;
pub mod event;
#[cfg(test)]
mod fuzz;
pub mod guard;
pub mod heard;
pub mod mac;
pub mod names;
pub mod path;
pub mod probe;
pub mod verdict;
pub mod wire;
