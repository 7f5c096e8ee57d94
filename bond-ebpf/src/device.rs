//! What the kernel knows of a device, read from its `struct net_device`.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    helpers::bpf_probe_read_kernel,
    programs::TcContext,
};
use bond_common::{abi::DeviceState, mac::Mac};

use crate::maps;

/// Bits of `net_device.state` (enum netdev_state_t).
const LINK_STATE_START: u64 = 1;
const LINK_STATE_PRESENT: u64 = 1 << 1;
const LINK_STATE_NOCARRIER: u64 = 1 << 2;

/// Writes a [`DeviceState`] into the packet, behind the Ethernet header.
#[inline(always)]
pub fn report(ctx: &TcContext) -> i32 {
    match state(ctx) {
        Some(state) if ctx.store(14, &state, 0).is_ok() => TC_ACT_OK as i32,
        _ => TC_ACT_SHOT as i32,
    }
}

#[inline(always)]
fn state(ctx: &TcContext) -> Option<DeviceState> {
    let offsets = maps::offsets();
    if offsets.skb_dev == 0 {
        return None;
    }
    // The context of a tc program is the sk_buff itself.
    let device: u64 = read(ctx.as_ptr() as u64, offsets.skb_dev)?;
    let state: u64 = read(device, offsets.state)?;
    let ifindex: u32 = read(device, offsets.ifindex)?;
    let up =
        state & LINK_STATE_START != 0 && state & LINK_STATE_PRESENT != 0 && state & LINK_STATE_NOCARRIER == 0;
    Some(DeviceState::new(device, mac(device)?, ifindex, up))
}

/// `net_device.dev_addr`, at this moment; None where the kernel does not let us look.
#[inline(always)]
pub fn mac(device: u64) -> Option<Mac> {
    let offsets = maps::offsets();
    if device == 0 || offsets.skb_dev == 0 {
        return None;
    }
    let address: u64 = read(device, offsets.dev_addr)?;
    read(address, 0).map(Mac::new)
}

#[inline(always)]
fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails instead of faulting; all `T` here are integers.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const T) }.ok()
}
