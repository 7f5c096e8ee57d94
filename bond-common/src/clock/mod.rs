//! The clock in the kernel: what a tick reads, decides and writes.
//!
//! Frames circulate in a veth pair, whose one end lets one of them out in each period. At the other end a program, the
//! tick, sends the frame round again. A tick therefore runs in each period, without an agent. It fails over when no packet
//! does, and announces the bond.
//!
//! - [`frame`]: the frame that circulates.
//! - [`layout`]: the values of the maps.
//! - [`decide`]: which slave is active after a tick.
//! - [`announce`]: who announces the bond, and when.
//! - [`misdirected`]: what a tick does about frames for the bond that arrive on a backup.
//! - [`monitor`]: ARP and NS monitoring.

pub mod announce;
pub mod decide;
pub mod frame;
pub mod layout;
pub mod misdirected;
pub mod monitor;
