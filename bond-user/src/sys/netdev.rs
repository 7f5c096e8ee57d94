//! Features of a driver's XDP, from the kernel (generic netlink, family netdev). Linux 6.3 or later.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    constants::{CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::SysError;

const FAMILY: &str = "netdev";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

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
    ///
    /// # Errors
    /// A socket cannot be opened, or the kernel does not answer which families it has.
    pub fn open() -> Result<Option<Self>, SysError> {
        let failed = |error| SysError::kernel("open a socket", "generic netlink", error);
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        let name = (CTRL_ATTR_FAMILY_NAME, format!("{FAMILY}\0").into_bytes());
        let request = FamilyMessage { command: CTRL_CMD_GETFAMILY, attributes: vec![name] };
        match ask(&socket, GENL_ID_CTRL, &request, CTRL_ATTR_FAMILY_ID) {
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
    ///
    /// # Errors
    /// The device does not exist, or the kernel does not answer.
    pub fn xdp_features(&self, ifindex: u32) -> Result<Option<XdpFeatures>, SysError> {
        let which = (NETDEV_A_DEV_IFINDEX, ifindex.to_ne_bytes().to_vec());
        let request = FamilyMessage { command: NETDEV_CMD_DEV_GET, attributes: vec![which] };
        let answer = ask(&self.socket, self.family, &request, NETDEV_A_DEV_XDP_FEATURES);
        let bits = answer.map_err(|error| {
            SysError::kernel("read the XDP features", super::netlink::called(ifindex), error)
        })?;
        Ok(bits.and_then(|bits| bits.try_into().ok()).map(|bits| XdpFeatures(u64::from_ne_bytes(bits))))
    }
}

/// A message of a generic netlink family: its command, and its attributes as kinds and values. They are not interpreted,
/// so the attributes of later kernels are no error.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FamilyMessage {
    command: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl FamilyMessage {
    fn encoded(&self) -> Vec<DefaultNla> {
        self.attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.clone())).collect()
    }
}

impl GenlFamily for FamilyMessage {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for FamilyMessage {
    fn buffer_len(&self) -> usize {
        self.encoded().as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.encoded().as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for FamilyMessage {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(buffer)
            .map(|attribute| attribute.map(|attribute| (attribute.kind(), attribute.value().to_vec())));
        Ok(Self { command: header.cmd, attributes: attributes.collect::<Result<_, _>>()? })
    }
}

type Message = NetlinkMessage<GenlMessage<FamilyMessage>>;

/// Sends a request; returns the value of one attribute of the answer. The request is repeated if the kernel lacked memory
/// for it, or for the answer.
fn ask(socket: &Socket, family: u16, request: &FamilyMessage, wanted: u16) -> io::Result<Option<Vec<u8>>> {
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match ask_once(socket, family, request, wanted) {
            Err(error) if super::netlink::is_passing(&error) => {}
            answer => return answer,
        }
    }
    ask_once(socket, family, request, wanted)
}

fn ask_once(
    socket: &Socket,
    family: u16,
    request: &FamilyMessage,
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    // The answer to an earlier request may arrive late.
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    socket.send_to(&bytes(family, request, sequence), &SocketAddr::new(0, 0), 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if let Some(message) = answer_to(sequence, &answer)? {
            let mut attributes = message.attributes.into_iter();
            return Ok(attributes.find(|(kind, _)| *kind == wanted).map(|(_, value)| value));
        }
    }
}

fn bytes(family: u16, request: &FamilyMessage, sequence: u32) -> Vec<u8> {
    let mut inner = GenlMessage::from_payload(request.clone());
    inner.set_resolved_family_id(family);
    let mut message = Message::from(inner);
    message.header.flags = NLM_F_REQUEST;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Parses an answer; returns `None` if it belongs to another request. The kernel's error is an error.
fn answer_to(sequence: u32, answer: &[u8]) -> io::Result<Option<FamilyMessage>> {
    let message = Message::deserialize(answer).map_err(io::Error::other)?;
    if message.header.sequence_number != sequence {
        return Ok(None);
    }
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(Some(inner.payload)),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
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
    fn a_truncated_answer_is_an_error() {
        let sent = FamilyMessage { command: 1, attributes: vec![(3, vec![7; 8]), (99, vec![1; 4])] };
        let whole = bytes(21, &sent, 5);
        assert_eq!(answer_to(5, &whole).unwrap(), Some(sent));
        assert_eq!(answer_to(6, &whole).unwrap(), None);
        for length in 0..whole.len() {
            let mut part = whole[..length].to_vec();
            // The header's own length is that of the part, so that the attributes are cut.
            if let Some(stated) = part.get_mut(..4) {
                stated.copy_from_slice(&(length as u32).to_ne_bytes());
            }
            let answer = answer_to(5, &part);
            let is_whole = answer
                .as_ref()
                .is_ok_and(|answer| answer.as_ref().is_some_and(|it| it.attributes.len() == 2));
            assert!(!is_whole, "{length}: {answer:?}");
        }
    }

    #[test]
    fn an_error_of_the_kernel_is_an_error() {
        // struct nlmsghdr of type NLMSG_ERROR, and struct nlmsgerr with -ENODEV.
        let mut answer = vec![0; 36];
        answer[..4].copy_from_slice(&36_u32.to_ne_bytes());
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        answer[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(answer_to(5, &answer).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(answer_to(6, &answer).unwrap(), None);
    }
}
