//! Entry points.

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_UNSPEC},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{
    device, error,
    packet::{SkbPacket, XdpPacket},
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
