//! Packets at tc and XDP hooks behind one trait.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, TC_ACT_REDIRECT},
    helpers::{bpf_redirect, generated::bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::info;
use bond_common::{
    abi::Slot,
    behind::Tag,
    counters::DropReason,
    mac::Mac,
    wire::{Frame, Header},
};

use crate::maps;

/// A packet at a tc or XDP hook.
pub trait Packet: Frame {
    /// Returns the two addresses; None for a runt.
    fn header(&self) -> Option<Header>;
    /// Returns the length in bytes, with the Ethernet header.
    fn length(&self) -> u64;
    /// Returns the VLAN tag that the kernel holds outside of the frame.
    fn offloaded_tag(&self) -> Tag;
    /// Returns the transmit queue of bond0 that the packet was sent from.
    fn queue(&self) -> u16;
    /// Redirects the packet to the egress of a slave.
    ///
    /// # Errors
    /// Why the kernel does not redirect it.
    fn to_slave(&self, slot: Slot, ifindex: u32) -> Result<Redirected, DropReason>;
    /// Redirects the packet to the port.
    ///
    /// # Errors
    /// Why the kernel does not redirect it.
    fn to_port(&self, ifindex: u32) -> Result<Redirected, DropReason>;
    /// Redirects a copy to the port and keeps the packet. The copy is lost if the port is down, as a redirect is.
    fn copy_to_port(&self, ifindex: u32);
    /// Logs a learned MAC address through the agent, once in the life of a bond.
    fn log_learned(&self, mac: Mac);
}

/// Proof that the kernel took the redirect.
pub struct Redirected(());

/// The contiguous part of a packet, which programs read without a helper.
#[derive(Clone, Copy)]
struct Linear {
    data: usize,
    end: usize,
}

impl Linear {
    /// Returns a pointer to `N` bytes from `offset` on; None if the contiguous part ends before them. All direct access
    /// to packet memory goes through this check.
    #[inline(always)]
    fn at<const N: usize>(self, offset: usize) -> Option<*mut [u8; N]> {
        let start = self.data + offset;
        if start + N > self.end { None } else { Some(start as *mut [u8; N]) }
    }

    /// Returns the addresses with two loads of eight bytes, of which the last two are ignored. None if the EtherType is
    /// missing.
    #[inline(always)]
    fn header(self) -> Option<Header> {
        let start = self.at::<14>(0)?;
        // SAFETY: the 14 bytes are inside the packet, as `at` checked.
        let [destination, source] = unsafe { [load_word::<0>(start), load_word::<6>(start)] };
        Some(Header { destination: Mac::from_word(destination), source: Mac::from_word(source) })
    }
}

/// Loads eight bytes with one instruction, where the compiler would emit eight because it does not know the alignment.
/// The kernel accepts this on machines with efficient unaligned access and refuses the program on others.
///
/// # Safety
///
/// Eight bytes from `OFFSET` on are inside the packet.
#[inline(always)]
unsafe fn load_word<const OFFSET: usize>(start: *const [u8; 14]) -> u64 {
    let word: u64;
    // SAFETY: reads what the caller vouches for.
    unsafe {
        core::arch::asm!(
            "{word} = *(u64 *)({start} + {offset})",
            word = out(reg) word,
            start = in(reg) start,
            offset = const OFFSET,
            options(pure, readonly, nostack),
        );
    }
    word
}

/// Returns the offset as one of which the compiler knows nothing. Where it has checked an offset before, it would leave
/// the check out and compute the pointer anew, and the verifier knows of a pointer only what was checked of itself.
#[inline(always)]
fn checked_again(offset: usize) -> usize {
    let mut offset = offset;
    // SAFETY: adds nothing. Without an instruction two lines would have one place, which the kernel refuses.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) offset, options(nomem, nostack)) };
    offset
}

/// The length of a MAC address in bytes.
const MAC: usize = 6;

/// Stores six bytes with two instructions, where the compiler would emit six; see [`load_word`].
///
/// # Safety
///
/// Six bytes from `place` on are inside the packet, which may be written.
#[inline(always)]
unsafe fn store_mac(place: *mut u8, [a, b, c, d, e, f]: [u8; MAC]) {
    let (first, last) = (u32::from_ne_bytes([a, b, c, d]) as u64, u16::from_ne_bytes([e, f]) as u64);
    // SAFETY: writes what the caller vouches for.
    unsafe {
        core::arch::asm!(
            "*(u32 *)({place} + 0) = {first}",
            "*(u16 *)({place} + 4) = {last}",
            place = in(reg) place,
            first = in(reg) first,
            last = in(reg) last,
            options(nostack),
        );
    }
}

/// An skb at a tc hook, read and written by helpers, except that its header is read directly. The kernel prefixes a
/// program that writes packet memory directly with a prologue that unshares every clone, and TCP sends clones.
pub struct SkbPacket<'a>(&'a TcContext);

impl<'a> SkbPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self(ctx)
    }
}

impl Frame for SkbPacket<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.load(offset).ok()
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.0.store(offset, &bytes, 0).ok()
    }

    /// The helper leaves a checksum alone that the device will complete: it does not cover the payload yet.
    #[inline(always)]
    fn update_udp_checksum(&mut self, offset: usize, from: [u8; 2], to: [u8; 2]) -> Option<()> {
        let [from, to] = [from, to].map(|word| u16::from_ne_bytes(word).into());
        let flags = BPF_F_MARK_MANGLED_0 as u64 | size_of::<u16>() as u64;
        self.0.l4_csum_replace(offset, from, to, flags).ok()
    }
}

impl SkbPacket<'_> {
    /// Returns whether the packet is link-local. A runt is not.
    #[inline(always)]
    pub fn is_link_local(&self) -> bool {
        self.header().is_some_and(|header| header.destination.is_link_local())
    }

    /// Returns whether a device has received the packet: it is not one that this host just sends.
    #[inline(always)]
    pub fn was_received(&self) -> bool {
        // SAFETY: the context is this program's.
        unsafe { (*self.0.skb.skb).ingress_ifindex != 0 }
    }
}

impl Packet for SkbPacket<'_> {
    #[inline(always)]
    fn header(&self) -> Option<Header> {
        let linear = Linear { data: self.0.data(), end: self.0.data_end() };
        linear.header().or_else(|| Header::read(self))
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    #[inline(always)]
    fn offloaded_tag(&self) -> Tag {
        // SAFETY: the context is this program's.
        let (present, tpid, control) = unsafe {
            let skb = self.0.skb.skb;
            ((*skb).vlan_present, (*skb).vlan_proto, (*skb).vlan_tci)
        };
        if present == 0 { Tag::NONE } else { Tag::new(u16::from_be(tpid as u16), control as u16) }
    }

    /// A veth keeps the queue that its other end sent from; in a netkit pair this hook is the other end.
    #[inline(always)]
    fn queue(&self) -> u16 {
        // SAFETY: the context is this program's.
        unsafe { (*self.0.skb.skb).queue_mapping as u16 }
    }

    #[inline(always)]
    fn to_slave(&self, _slot: Slot, ifindex: u32) -> Result<Redirected, DropReason> {
        redirect(ifindex)
    }

    #[inline(always)]
    fn to_port(&self, ifindex: u32) -> Result<Redirected, DropReason> {
        redirect(ifindex)
    }

    #[inline(always)]
    fn copy_to_port(&self, ifindex: u32) {
        let _ = self.0.clone_redirect(ifindex, 0);
    }

    #[inline(always)]
    fn log_learned(&self, mac: Mac) {
        info!(self.0, "the host behind the port has {:mac}", mac.bytes());
    }
}

/// Redirects to the egress of a device. The result does not show whether the device transmits the packet.
#[inline(always)]
fn redirect(ifindex: u32) -> Result<Redirected, DropReason> {
    // SAFETY: a helper without pointers.
    if unsafe { bpf_redirect(ifindex, 0) } == TC_ACT_REDIRECT as i64 {
        Ok(Redirected(()))
    } else {
        Err(DropReason::RedirectFailed)
    }
}

/// Returns the action that discards a packet without an error for its sender, which would log each one: a redirect to no
/// device. tcx has no action for this.
#[inline(always)]
pub fn discard() -> i32 {
    // SAFETY: a helper without pointers. No device has the ifindex 0.
    unsafe { bpf_redirect(0, 0) as i32 }
}

/// A frame at an XDP hook; the bytes that xbond reads are in its first fragment.
pub struct XdpPacket<'a>(&'a XdpContext);

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self(ctx)
    }

    #[inline(always)]
    fn linear(&self) -> Linear {
        Linear { data: self.0.data(), end: self.0.data_end() }
    }
}

impl Frame for XdpPacket<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: inside the packet, as `at` checked; any bytes are valid.
        Some(unsafe { *self.linear().at(offset)? })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        if let Some(mac) = bytes.first_chunk().filter(|_| N == MAC) {
            let place = self.linear().at::<N>(offset)?;
            // SAFETY: inside the packet, as `at` checked; XDP owns its frame.
            unsafe { store_mac(place.cast(), *mac) };
            return Some(());
        }
        let place = self.linear().at::<N>(checked_again(offset))?;
        // SAFETY: inside the packet, as `at` checked; XDP owns its frame.
        unsafe { *place = bytes };
        Some(())
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn header(&self) -> Option<Header> {
        self.linear().header()
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        // SAFETY: the context is this program's.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) }
    }

    /// None: the devices of XDP datapaths leave tags inside frames (`BOND_XDP` and `SLAVE_XDP` of the agent).
    #[inline(always)]
    fn offloaded_tag(&self) -> Tag {
        Tag::NONE
    }

    /// A veth receives on the queue that its other end sent from.
    #[inline(always)]
    fn queue(&self) -> u16 {
        // SAFETY: the context is this program's.
        unsafe { (*self.0.ctx).rx_queue_index as u16 }
    }

    #[inline(always)]
    fn to_slave(&self, slot: Slot, _ifindex: u32) -> Result<Redirected, DropReason> {
        redirected(maps::tx_ports().redirect(slot.index() as u32, 0))
    }

    #[inline(always)]
    fn to_port(&self, _ifindex: u32) -> Result<Redirected, DropReason> {
        redirected(maps::rx_port().redirect(0, 0))
    }

    /// Does nothing, because XDP cannot copy a frame; [`crate::rx::copy_link_local`] does it at the next hook.
    #[inline(always)]
    fn copy_to_port(&self, _ifindex: u32) {}

    #[inline(always)]
    fn log_learned(&self, mac: Mac) {
        info!(self.0, "the host behind the port has {:mac}", mac.bytes());
    }
}

#[inline(always)]
fn redirected(result: Result<u32, u32>) -> Result<Redirected, DropReason> {
    result.map(|_| Redirected(())).map_err(|_| DropReason::RedirectFailed)
}
