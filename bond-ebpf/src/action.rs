//! Maps the outcome of a packet to the action of each program type.

use crate::packet::Redirected;
use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};

/// The outcome of a packet, which is counted already.
pub enum Outcome {
    /// The kernel took the packet for another device.
    Redirected(Redirected),
    /// Later programs and the device's own stack receive the packet.
    Local,
    /// The packet is discarded.
    Dropped,
}

/// Returns the action of a program for tc.
#[inline(always)]
pub fn tc_action(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Redirected(_) => TC_ACT_REDIRECT,
        Outcome::Local => TC_ACT_UNSPEC,
        Outcome::Dropped => TC_ACT_SHOT,
    }
}

/// Returns the action of a program for XDP.
#[inline(always)]
pub fn xdp_action(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Redirected(_) => xdp_action::XDP_REDIRECT,
        Outcome::Local => xdp_action::XDP_PASS,
        Outcome::Dropped => xdp_action::XDP_DROP,
    }
}
