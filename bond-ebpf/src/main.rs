//! The BPF programs. Each one wraps its context in a packet (module `packet`), passes it to `rx` or `tx`, which redirect
//! and count it, and returns the outcome as an action of its program type.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unstable_features, reason = "assembly of this target is the only way to compare and swap"),
    feature(asm_experimental_arch)
)]

#[cfg(target_arch = "bpf")]
mod action;
#[cfg(target_arch = "bpf")]
mod behind;
#[cfg(target_arch = "bpf")]
mod device;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod heard;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod misdirected;
#[cfg(target_arch = "bpf")]
mod monitor;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod path;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod rx;
#[cfg(target_arch = "bpf")]
mod stats;
#[cfg(target_arch = "bpf")]
mod tick;
#[cfg(target_arch = "bpf")]
mod tx;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
