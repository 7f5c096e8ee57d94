//! Entry points.

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_UNSPEC},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{
    action, device,
    packet::{SkbPacket, XdpPacket, discard},
    path, rx, tick, tx,
};

/// The packet type of packets to this host (linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// Redirects what bond0 sends to a slave: at the ingress of the port and, in a netkit pair, at bond0.
#[classifier]
pub fn tc_port_tx(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket::new(&ctx);
    if tx::goes_by_port(&packet) {
        return TC_ACT_OK;
    }
    action::tc_action(tx::port_tx(&mut packet))
}

/// Delivers what a slave receives to the port, at the ingress of the slave.
#[classifier]
pub fn tc_slave_rx(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket::new(&ctx);
    action::tc_action(rx::slave_rx(&mut packet))
}

/// Redirects what bond0, or the host behind an existing port, sends to a slave, at the ingress of the port.
#[xdp(frags)]
pub fn xdp_port_tx(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    action::xdp_action(tx::port_tx(&mut packet))
}

/// Delivers what a slave receives to the port, at the ingress of the slave.
#[xdp(frags)]
pub fn xdp_slave_rx(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    action::xdp_action(rx::slave_rx(&mut packet))
}

/// Copies link-local frames to the port, at the ingress of a slave behind [`xdp_slave_rx`], which passes only these.
#[classifier]
pub fn tc_slave_local(ctx: TcContext) -> i32 {
    rx::copy_link_local(&SkbPacket::new(&ctx));
    TC_ACT_UNSPEC
}

/// Discards link-local frames that a program of this host sends through the port of a pair, at the egress of the port.
/// Daemons that speak LLDP on every interface send them; they would make bond0 a neighbour of its own port. Frames that
/// slaves received pass.
#[classifier]
pub fn tc_port_egress(ctx: TcContext) -> i32 {
    let packet = SkbPacket::new(&ctx);
    if packet.is_link_local() && !packet.was_received() { discard() } else { TC_ACT_UNSPEC }
}

/// Redirects link-local frames to a slave at the egress of bond0 of a veth pair under tc, because packet sockets at the
/// port receive every frame before [`tc_port_tx`] does.
#[classifier]
pub fn tc_bond_egress(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket::new(&ctx);
    if packet.is_link_local() { action::tc_action(tx::port_tx(&mut packet)) } else { TC_ACT_UNSPEC }
}

/// Accepts frames to the former MAC address of bond0 while the address changes, at the ingress of bond0. Later programs
/// run as well.
#[classifier]
pub fn tc_host_rx(ctx: TcContext) -> i32 {
    if rx::is_for_host(&SkbPacket::new(&ctx)) {
        // The kernel refuses this for packets of other types, for example loopback, which are not for this host anyway.
        let _ = ctx.change_type(PACKET_HOST);
    }
    TC_ACT_UNSPEC
}

/// Runs once in each period of the clock, when a frame of the clock arrives at the receiving end of its pair. Sends the frame
/// round again; drops all others.
#[classifier]
pub fn tc_tick(ctx: TcContext) -> i32 {
    tick::tick(&ctx)
}

/// Runs once in each period of the clock behind [`tc_tick`], when the frame leaves by the sending end of the pair: monitors
/// the slaves' paths.
#[classifier]
pub fn tc_tick_path(ctx: TcContext) -> i32 {
    path::lap(&ctx)
}

/// Reports the state of the device in `ctx.ifindex`. Not attached; the agent calls it by test runs.
#[classifier]
pub fn device_state(ctx: TcContext) -> i32 {
    device::report(&ctx)
}

/// Answers a frame of questions in place. Not attached; the agent calls it by test runs.
#[classifier]
pub fn device_links(ctx: TcContext) -> i32 {
    device::answer(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing in the programs can panic, but the compiler requires the function.
    loop {}
}

/// bpf_probe_read_kernel is for GPL-compatible programs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
