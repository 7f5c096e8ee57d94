//! A NIC that loses its carrier without RTNL, like real hardware, which notifies its driver by an interrupt. The carrier
//! of veths, taps and other software devices changes under that lock. A bridge is an exception: it also loses its
//! carrier when a spanning tree blocks its last port, for which a frame suffices.
//!
//! ```text
//!      NAME (bridge) ---- port ======== the switch
//!                   \____ NAME-q ====== NAME-far
//! ```

use anyhow::Result;

use crate::{Mac, PacketSocket, netns::NetNs};

/// A bridge that serves as a NIC.
#[derive(Debug)]
pub struct StpNic {
    name: String,
    other: PacketSocket,
    wire: PacketSocket,
}

/// The root of the spanning tree, which is also the sender.
const ROOT: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 1];
const NEIGHBOUR: [u8; 8] = [0, 1, 2, 0, 0, 0, 0, 2];

impl StpNic {
    /// Creates the bridge `name` with this MAC address above `port`, an interface of `host` that is down. `wire` is
    /// the far end of `port` in its namespace.
    ///
    /// # Errors
    /// `ip` fails, or a socket cannot be opened.
    pub fn create(host: &NetNs, (name, mac): (&str, Mac), port: &str, wire: (&NetNs, &str)) -> Result<Self> {
        host.ip(&format!("link add {name} address {mac} type bridge forward_delay 0 mcast_snooping 0"))?;
        host.ip(&format!("link add {name}-q type veth peer name {name}-far"))?;
        host.ip(&format!("link set {name}-far up"))?;
        host.ip(&format!("link set {port} master {name} up"))?;
        let other = PacketSocket::open(host, &format!("{name}-far"))?;
        let wire = PacketSocket::open(wire.0, wire.1)?;
        Ok(Self { name: name.to_owned(), other, wire })
    }

    /// Lets the spanning tree control the carrier: its port forwards as long as the tree allows it. The
    /// bridge must not be set down afterwards: a second port is waiting.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn arm(&self, host: &NetNs) -> Result<()> {
        let name = &self.name;
        host.ip(&format!("link set {name} type bridge stp_state 1 forward_delay 3000"))?;
        host.ip(&format!("link set {name}-q master {name} up"))?;
        Ok(())
    }

    /// Removes its carrier: the root is now behind the port that does not forward yet, and the other port is
    /// redundant.
    ///
    /// # Errors
    /// An interface does not take the frame.
    pub fn cut(&self) -> Result<()> {
        self.other.send(&bpdu(ROOT))?;
        self.wire.send(&bpdu(NEIGHBOUR))
    }
}

/// Returns a configuration BPDU of IEEE 802.1D from `bridge`, directly at the root.
fn bpdu(bridge: [u8; 8]) -> Vec<u8> {
    const GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
    const LLC: [u8; 3] = [0x42, 0x42, 0x03];
    /// In units of 1/256 s: message age, maximum age, hello time, forward delay.
    const TIMES: [u8; 8] = [0, 0, 20, 0, 2, 0, 30, 0];
    let length = [0, 38];
    let mut frame = [&GROUP[..], &bridge[2..], &length, &LLC].concat();
    frame.extend([0, 0, 0, 0, 0]);
    frame.extend(ROOT);
    frame.extend([0; 4]);
    frame.extend(bridge);
    frame.extend([0x80, 0x01]);
    frame.extend(TIMES);
    frame.resize(60, 0);
    frame
}
