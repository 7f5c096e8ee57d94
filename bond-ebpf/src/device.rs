//! Reads the state of a device from its `struct net_device` in the kernel.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    helpers::bpf_probe_read_kernel,
    programs::TcContext,
};
use bond_common::{
    abi::{DeviceHandle, DeviceState, LinkQuestion, SlaveEntry},
    mac::Mac,
    names,
};

use crate::maps;

/// Bits of `net_device.state` (enum netdev_state_t).
const LINK_STATE_START: u64 = 1;
const LINK_STATE_PRESENT: u64 = 1 << 1;
const LINK_STATE_NOCARRIER: u64 = 1 << 2;

/// The bits of a device that has a link: started and present, with carrier (`netif_running`, `netif_carrier_ok`).
const LINK_MASK: u64 = LINK_STATE_START | LINK_STATE_PRESENT | LINK_STATE_NOCARRIER;
const LINK_UP: u64 = LINK_STATE_START | LINK_STATE_PRESENT;

/// Calls the kernel function `bpf_rdonly_cast`, which turns an address into a pointer to a type, whose fields are then
/// read by plain loads that cannot fault.
///
/// The BTF ids of kernel functions differ between kernels. The call here names a helper that no kernel has, and the
/// agent replaces it by the right call before it loads the program. In a kernel without the function (before 6.2), no
/// path leads here and the verifier removes the call.
///
/// # Safety
///
/// The caller may dereference the result only by volatile loads of the type's fields.
#[inline(always)]
unsafe fn rdonly_cast(address: u64, of_type: u32) -> u64 {
    // SAFETY: helpers are called by their numbers, as functions at these addresses.
    let call: unsafe extern "C" fn(u64, u64) -> u64 =
        unsafe { core::mem::transmute(names::RDONLY_CAST_CALL as usize) };
    // SAFETY: the function reads nothing.
    unsafe { call(address, of_type as u64) }
}

/// Writes a [`DeviceState`] into the packet, behind the Ethernet header.
#[inline(always)]
pub fn report(ctx: &TcContext) -> i32 {
    match state(ctx) {
        Some(state) if ctx.store(14, &state, 0).is_ok() => TC_ACT_OK,
        _ => TC_ACT_SHOT,
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
    let net: u64 = read(device, offsets.nd_net)?;
    let handle = DeviceHandle::new(device, net);
    Some(DeviceState::new(handle, mac(device)?, ifindex, state & LINK_MASK == LINK_UP))
}

/// Answers each [`LinkQuestion`] behind the Ethernet header.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    let mut offset = 14;
    for _ in 0..LinkQuestion::MOST {
        // The frame ends after the last question.
        let Ok(question) = ctx.load::<LinkQuestion>(offset) else { break };
        let handle = question.handle();
        let answer = ask(handle.device(), handle.net(), question.ifindex() as u64) as u32;
        if ctx.store(offset + LinkQuestion::ANSWER, &answer, 0).is_err() {
            return TC_ACT_SHOT;
        }
        offset += size_of::<LinkQuestion>();
    }
    TC_ACT_OK
}

/// Calls [`is_up`] in a function separate from the loop; inlined there, the verifier sees reads of stack that was never
/// written. Functions of BPF take and return numbers.
#[inline(never)]
fn ask(device: u64, net: u64, ifindex: u64) -> u64 {
    is_up(DeviceHandle::new(device, net), ifindex as u32) as u64
}

/// Returns whether a slave's device exists and has a link at this moment.
#[inline(always)]
pub fn has_link(slave: &SlaveEntry) -> bool {
    is_up(slave.handle(), slave.ifindex())
}

/// Returns whether a slave's device is known to have no link. Without a handle the state is unknown, and this returns
/// false: the agent could not read the device.
#[inline(always)]
pub fn is_dead(slave: &SlaveEntry) -> bool {
    let handle = slave.handle();
    if slave.ifindex() == 0 {
        return true;
    }
    handle.device() != 0 && !is_up(handle, slave.ifindex())
}

/// Returns whether a slave's device has a link; None if that is not known. A slot without a slave has none.
#[inline(always)]
pub fn link(slave: &SlaveEntry) -> Option<bool> {
    if slave.ifindex() == 0 {
        return Some(false);
    }
    let handle = slave.handle();
    (handle.device() != 0).then(|| is_up(handle, slave.ifindex()))
}

/// Returns whether the device at `handle` has a link. False for a stale handle: memory that another device uses now has
/// another ifindex, and a device that was moved has another namespace.
#[inline(always)]
fn is_up(handle: DeviceHandle, wanted_ifindex: u32) -> bool {
    let offsets = maps::offsets();
    if handle.device() == 0 || offsets.skb_dev == 0 {
        return false;
    }
    let (state, ifindex, net) = if offsets.net_device_type != 0 {
        // SAFETY: loads through the result of the cast read zero if the address is invalid.
        unsafe {
            let device = rdonly_cast(handle.device(), offsets.net_device_type);
            (
                ((device + offsets.state as u64) as *const u64).read_volatile(),
                ((device + offsets.ifindex as u64) as *const u32).read_volatile(),
                ((device + offsets.nd_net as u64) as *const u64).read_volatile(),
            )
        }
    } else {
        let device = handle.device();
        let (Some(state), Some(ifindex), Some(net)) =
            (read(device, offsets.state), read(device, offsets.ifindex), read(device, offsets.nd_net))
        else {
            return false;
        };
        (state, ifindex, net)
    };
    state & LINK_MASK == LINK_UP && ifindex == wanted_ifindex && net == handle.net()
}

/// Returns `net_device.dev_addr` at this moment; None if the kernel does not let the program read the device.
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
