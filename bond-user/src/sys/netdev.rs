//! Features of a driver's XDP, from the kernel (generic netlink, family netdev). Linux 6.3 or later.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use netlink_packet_core::{DefaultNla, Emitable as _, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::SysError;

/// GENL_ID_CTRL
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// struct nlmsghdr, struct genlmsghdr
const HEADERS: usize = 16 + 4;

/// The sequence number of the next request.
static SEQUENCE: AtomicU32 = AtomicU32::new(1);

/// NETDEV_XDP_ACT_*
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    const BASIC: u64 = 1;
    const REDIRECT: u64 = 2;
    const NDO_XMIT: u64 = 4;
    const RX_SG: u64 = 32;

    #[cfg(test)]
    pub fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns whether programs run in the driver.
    pub fn is_native(self) -> bool {
        self.0 & Self::BASIC != 0
    }

    /// Returns whether a program may redirect a frame to another device.
    pub fn redirects(self) -> bool {
        self.0 & Self::REDIRECT != 0
    }

    /// Returns whether frames may be redirected to it. Some drivers report this only while they have a program.
    pub fn is_target(self) -> bool {
        self.0 & Self::NDO_XMIT != 0
    }

    /// Returns whether programs get frames in several fragments.
    pub fn has_fragments(self) -> bool {
        self.0 & Self::RX_SG != 0
    }
}

/// A client of the family.
#[derive(Debug)]
pub struct Netdev {
    socket: Socket,
    family: u16,
}

impl Netdev {
    /// Opens a client in the network namespace of the calling thread. Returns `None` if the kernel has no such
    /// family.
    pub fn open() -> Result<Option<Self>, SysError> {
        let failed = |error| SysError::kernel("open a socket", "generic netlink", error);
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        let name = DefaultNla::new(CTRL_ATTR_FAMILY_NAME, b"netdev\0".to_vec());
        match ask(&socket, CONTROLLER, CTRL_CMD_GETFAMILY, &name, CTRL_ATTR_FAMILY_ID) {
            Ok(Some(id)) => match id.try_into() {
                Ok(id) => Ok(Some(Self { socket, family: u16::from_ne_bytes(id) })),
                Err(_) => Ok(None),
            },
            Ok(None) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(SysError::kernel("look up the family netdev", "generic netlink", error)),
        }
    }

    /// Returns the features; `None` if the kernel does not report them.
    pub fn xdp_features(&self, ifindex: u32) -> Result<Option<XdpFeatures>, SysError> {
        let which = DefaultNla::new(NETDEV_A_DEV_IFINDEX, ifindex.to_ne_bytes().to_vec());
        let answer = ask(&self.socket, self.family, NETDEV_CMD_DEV_GET, &which, NETDEV_A_DEV_XDP_FEATURES);
        let bits = answer.map_err(|error| {
            SysError::kernel("read the XDP features", super::netlink::called(ifindex), error)
        })?;
        Ok(bits.and_then(|bits| bits.try_into().ok()).map(|bits| XdpFeatures(u64::from_ne_bytes(bits))))
    }
}

/// Sends one request with one attribute; returns one attribute of the answer. The request is repeated if the kernel
/// lacked memory for it, or for the answer.
fn ask(
    socket: &Socket,
    family: u16,
    command: u8,
    what: &DefaultNla,
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match ask_once(socket, family, command, what, wanted) {
            Err(error) if super::netlink::is_passing(&error) => {}
            answer => return answer,
        }
    }
    ask_once(socket, family, command, what, wanted)
}

fn ask_once(
    socket: &Socket,
    family: u16,
    command: u8,
    what: &DefaultNla,
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; HEADERS + what.buffer_len()];
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&family.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // A late answer to an earlier request is not that to the next one.
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
    message[8..12].copy_from_slice(&sequence);
    message[16..18].copy_from_slice(&[command, 1]);
    what.emit(&mut message[HEADERS..]);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if answer.get(8..12) == Some(&sequence) {
            return attribute(&answer, wanted);
        }
    }
}

/// Returns one attribute of a message; an error if the message is one.
fn attribute(message: &[u8], wanted: u16) -> io::Result<Option<Vec<u8>>> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = message.get(4..6).ok_or_else(cut)?;
    if kind == NLMSG_ERROR.to_ne_bytes() {
        let code: [u8; 4] = message.get(16..20).and_then(|code| code.try_into().ok()).ok_or_else(cut)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    let attributes = NlasIterator::new(message.get(HEADERS..).ok_or_else(cut)?);
    let mut found = attributes.flatten().filter(|attribute| attribute.kind() == wanted);
    Ok(found.next().map(|attribute| attribute.value().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, veth};

    #[test]
    fn a_veth_has_native_xdp() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let Some(netdev) = Netdev::open().unwrap() else {
                eprintln!("skipped: this kernel has no generic netlink family netdev (Linux 6.3 on)");
                return;
            };
            let features = netdev.xdp_features(link.ifindex).unwrap().unwrap();
            assert!(features.is_native() && features.redirects() && features.has_fragments(), "{features:?}");
            let loopback = netdev.xdp_features(1).unwrap().unwrap_or_default();
            assert!(!loopback.is_native());
            let error = netdev.xdp_features(9999).unwrap_err();
            assert!(error.is_gone(), "{error}");
        });
    }

    #[test]
    fn a_truncated_answer_is_an_error_or_nothing() {
        for length in 0..40 {
            let _ = attribute(&[0xff; 40][..length], 1);
        }
    }
}
