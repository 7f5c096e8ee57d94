//! Entry points.

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_UNSPEC},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{
    device, error,
    packet::{SkbPacket, XdpPacket, discard},
    rx, tx,
};

/// linux/if_packet.h: to us.
const PACKET_HOST: u32 = 0;

/// What bond0 sends: at the ingress of the port, and of a netkit pair where bond0 sends it.
#[classifier]
pub fn tc_port_tx(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket::new(&ctx);
    if tx::goes_by_port(&packet) {
        return TC_ACT_OK as i32;
    }
    error::tc_action(tx::port_tx(&mut packet))
}

/// Ingress of a slave: what the wire brings.
#[classifier]
pub fn tc_slave_rx(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket::new(&ctx);
    error::tc_action(rx::slave_rx(&mut packet))
}

/// Ingress of the port: what bond0, or whoever is behind an existing port, sends.
#[xdp(frags)]
pub fn xdp_port_tx(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    error::xdp_action(tx::port_tx(&mut packet))
}

/// Ingress of a slave: what the wire brings.
#[xdp(frags)]
pub fn xdp_slave_rx(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    error::xdp_action(rx::slave_rx(&mut packet))
}

/// Ingress of a slave under XDP, behind [`xdp_slave_rx`]: only what that one lets pass comes here.
#[classifier]
pub fn tc_slave_local(ctx: TcContext) -> i32 {
    rx::copy_link_local(&SkbPacket::new(&ctx));
    TC_ACT_UNSPEC
}

/// Egress of the port of a pair. What slaves receive passes; what a program of this host sends by the port, as daemons
/// that speak LLDP on every interface do, would make bond0 a neighbour of its own port.
#[classifier]
pub fn tc_port_egress(ctx: TcContext) -> i32 {
    let packet = SkbPacket::new(&ctx);
    if packet.is_link_local() && !packet.was_received() { discard() } else { TC_ACT_UNSPEC }
}

/// Egress of bond0 of a veth pair under tc: what concerns the link leaves from here, because packet sockets at the port
/// hear everything that comes to it before [`tc_port_tx`] does.
#[classifier]
pub fn tc_bond_egress(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket::new(&ctx);
    if packet.is_link_local() { error::tc_action(tx::port_tx(&mut packet)) } else { TC_ACT_UNSPEC }
}

/// Ingress of bond0, while its MAC changes. Programs behind it go on.
#[classifier]
pub fn tc_host_rx(ctx: TcContext) -> i32 {
    if rx::is_for_host(&SkbPacket::new(&ctx)) {
        // Refused of packets that are for nobody here anyway: loopback and the like.
        let _ = ctx.change_type(PACKET_HOST);
    }
    TC_ACT_UNSPEC
}

/// Attached nowhere: test runs with `ctx.ifindex` set ask it for that device's state.
#[classifier]
pub fn device_state(ctx: TcContext) -> i32 {
    device::report(&ctx)
}

/// Attached nowhere: test runs hand it a frame of questions, and it answers them in place.
#[classifier]
pub fn device_links(ctx: TcContext) -> i32 {
    device::answer(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing in the programs can panic; the compiler still wants the symbol.
    loop {}
}

/// bpf_probe_read_kernel is for GPL-compatible programs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
