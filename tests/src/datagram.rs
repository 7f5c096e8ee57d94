//! Single UDP packets to one host, to a group, or by broadcast.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{WAIT_LIMIT, netns::NetNs};

/// Receives packets that arrive at a port.
#[derive(Debug)]
pub struct Listener {
    socket: UdpSocket,
    port: u16,
}

impl Listener {
    /// Listens on all addresses of the namespace, including broadcast.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open(namespace: &NetNs) -> Result<Self> {
        let socket = namespace.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port })
    }

    /// Joins `group` on the interface that has the address `interface`: the host announces it by IGMP.
    ///
    /// # Errors
    /// The socket cannot be opened, or the interface does not exist.
    pub fn join(namespace: &NetNs, group: Ipv4Addr, interface: Ipv4Addr) -> Result<Self> {
        let listener = Self::open(namespace)?;
        let joined = listener.socket.join_multicast_v4(&group, &interface);
        joined.with_context(|| format!("cannot join {group} on {interface} in {}", namespace.name()))?;
        Ok(listener)
    }

    /// Returns the port to send to, which the kernel chose.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for a packet with this payload, and ignores others.
    ///
    /// # Errors
    /// No such packet arrived in time, or the socket failed.
    pub fn expect(&self, payload: &[u8]) -> Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        // One byte more than expected, so that a longer packet differs.
        let mut buffer = vec![0; payload.len() + 1];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no packet `{}` on port {} within {WAIT_LIMIT:?}", payload.escape_ascii(), self.port);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) if buffer[..length] == *payload => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }
}

/// Sends one packet from the address `from`, through its interface also if `to` is a group or broadcast.
///
/// # Errors
/// `from` is no address of the namespace, or there is no route.
pub fn send(namespace: &NetNs, from: Ipv4Addr, to: (Ipv4Addr, u16), payload: &[u8]) -> Result<()> {
    let socket = namespace.run(|| Ok(UdpSocket::bind((from, 0))?));
    let socket = socket.with_context(|| format!("cannot bind to {from} in {}", namespace.name()))?;
    socket.set_broadcast(true)?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpMulticastTtl, &1)?;
    let target = SocketAddr::V4(SocketAddrV4::new(to.0, to.1));
    socket.send_to(payload, target).with_context(|| format!("cannot send from {from} to {target}"))?;
    Ok(())
}
