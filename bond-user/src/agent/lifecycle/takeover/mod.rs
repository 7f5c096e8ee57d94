//! Taking a live bond of the kernel's driver over, without interrupting it, and the way back.
//!
//! 1. [`observe`] reads everything that the takeover depends on, and changes nothing.
//! 2. [`plan`] decides, without a system call, what is to be done, or what speaks against it.
//! 3. [`apply`] does it. takeovers.json says before each stage how far it is.
//! 4. [`back`] leads back from wherever it stopped. An agent that finds a takeover in that file does the same.
//!
//! Packets are never without a way: a backup leaves the driver and becomes the active slave of xbond's bond, which has
//! the same MAC and IP addresses on devices of its own. For a moment both bonds receive for the host, each by a NIC of its
//! own; then routes and bridge ports change over in one batch, and the other slaves follow.

mod apply;
mod back;
mod giveback;
mod observe;
mod plan;
#[cfg(test)]
mod tests;
