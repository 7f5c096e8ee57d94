//! What a packet's outcome means in each program type: the one place where actions are chosen.

use crate::packet::Redirected;
use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};

/// What became of a packet. A drop is counted by the time it gets here.
pub enum Outcome {
    Redirected(Redirected),
    /// The device's own stack, and programs behind this one, go on with it.
    Local,
    Dropped,
}

#[inline(always)]
pub fn tc_action(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Redirected(_) => TC_ACT_REDIRECT as i32,
        Outcome::Local => TC_ACT_UNSPEC,
        Outcome::Dropped => TC_ACT_SHOT as i32,
    }
}

#[inline(always)]
pub fn xdp_action(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Redirected(_) => xdp_action::XDP_REDIRECT,
        Outcome::Local => xdp_action::XDP_PASS,
        Outcome::Dropped => xdp_action::XDP_DROP,
    }
}
