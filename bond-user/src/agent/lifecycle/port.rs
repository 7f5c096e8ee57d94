//! Where the port's program goes.

use crate::{
    agent::bond::interface::Host,
    sys::{dataplane::Port, netlink::PairKind},
};

/// Where the port's program goes. `bond` is bond0, if there is one in the agent's network namespace.
pub fn port_of<'a>(device: &'a str, host: Host, pair: Option<PairKind>, bond: Option<&'a str>) -> Port<'a> {
    let netkit = Some(host.device()).filter(|_| pair == Some(PairKind::Netkit));
    Port { device, ifindex: host.port(), netkit, bond }
}
