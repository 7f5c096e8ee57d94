//! The contract between xbond's data plane (BPF programs) and its agent.
//!
//! `abi` is what lies in the maps, `verdict` decides what becomes of a packet, `wire` finds and changes
//! MAC addresses in frames, `probe` recognises what the ARP monitor waits for. All of it is pure and `no_std`: it runs in the kernel and, in tests, on the host.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod counters;
pub mod event;
pub mod guard;
pub mod mac;
pub mod names;
pub mod probe;
pub mod verdict;
pub mod wire;
