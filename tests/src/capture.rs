//! Captures what passes the interfaces of a namespace, to assert announcements and their absence.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use etherparse::{ArpOperation, IpNumber, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use nix::net::if_::if_indextoname;

use crate::{
    Mac,
    netns::NetNs,
    packet::{PacketSocket, Received},
};

/// How often the sniffer checks whether it should end.
const TICK: Duration = Duration::from_millis(20);
const ICMPV6_NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The target of an NA, after its ICMPv6 header. Options follow it (RFC 4861, 4.4); the option below holds the MAC
/// address.
const NA_TARGET: std::ops::Range<usize> = 0..16;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// A frame with the time and the interface at which it was captured.
#[derive(Clone)]
pub struct Frame {
    /// Timestamp of the kernel.
    pub at: Instant,
    pub ifname: String,
    /// Sent by this interface rather than received.
    pub outgoing: bool,
    /// From the destination address on, VLAN tags included.
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn destination(&self) -> Mac {
        self.mac_at(0)
    }

    pub fn source(&self) -> Mac {
        self.mac_at(6)
    }

    fn mac_at(&self, offset: usize) -> Mac {
        let bytes = self.bytes.get(offset..offset + 6).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(Mac::ZERO, Mac::new)
    }

    /// Returns the parsed headers; `None` if the frame is malformed.
    pub fn packet(&self) -> Option<SlicedPacket<'_>> {
        SlicedPacket::from_ethernet(&self.bytes).ok()
    }

    /// Returns the VLAN identifiers, outermost first.
    pub fn vlans(&self) -> Vec<u16> {
        let packet = LaxSlicedPacket::from_ethernet(&self.bytes).ok();
        packet.map_or_else(Vec::new, |packet| packet.vlan_ids().iter().map(|id| id.value()).collect())
    }

    /// Returns the first group that an IGMPv3 report lists as joined, in the form of an answer to a query (RFC 3376,
    /// 4.2). The report of a host that joins has another form.
    pub fn igmp_report(&self) -> Option<Ipv4Addr> {
        const V3_REPORT: u8 = 0x22;
        const MODE_IS_EXCLUDE: u8 = 2;
        let packet = self.packet()?;
        let NetSlice::Ipv4(ipv4) = packet.net? else { return None };
        let payload = ipv4.payload();
        let [V3_REPORT, _, _, _, _, _, _, _, MODE_IS_EXCLUDE, _, _, _, a, b, c, d, ..] = *payload.payload
        else {
            return None;
        };
        (payload.ip_number == IpNumber::IGMP).then_some(Ipv4Addr::new(a, b, c, d))
    }

    /// Returns the MAC address that this frame announces for `address` by broadcast or multicast.
    pub fn announces(&self, address: IpAddr) -> Option<Mac> {
        self.announcement().filter(|found| found.address == address).map(|found| found.mac)
    }

    /// Returns whether the frame asks for the MAC address of `address` by ARP.
    pub fn asks_for(&self, address: Ipv4Addr) -> bool {
        let Some(NetSlice::Arp(arp)) = self.packet().and_then(|packet| packet.net) else { return false };
        let is_target = arp.target_protocol_addr() == address.octets();
        arp.operation() == ArpOperation::REQUEST && is_target && self.announcement().is_none()
    }

    /// Returns the announcement in this frame: a gratuitous ARP, request or reply (RFC 5227), or an unsolicited
    /// neighbour advertisement (RFC 4861, 7.2.6).
    pub fn announcement(&self) -> Option<Announcement> {
        let packet = self.packet()?;
        match packet.net? {
            NetSlice::Arp(arp) => {
                let address: [u8; 4] = arp.sender_protocol_addr().try_into().ok()?;
                let mac = arp.sender_hw_addr().try_into().ok().map(Mac::new)?;
                let kind = if arp.operation() == ArpOperation::REQUEST {
                    AnnouncementKind::ArpRequest
                } else {
                    AnnouncementKind::ArpReply
                };
                (arp.target_protocol_addr() == address).then_some(Announcement {
                    kind,
                    address: address.into(),
                    mac,
                })
            }
            NetSlice::Ipv6(ipv6) => {
                let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { return None };
                let is_na = ipv6.payload().ip_number == IpNumber::IPV6_ICMP
                    && icmp.type_u8() == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
                if !is_na || !ipv6.header().destination_addr().is_multicast() {
                    return None;
                }
                let payload = icmp.payload();
                let address: [u8; 16] = payload.get(NA_TARGET)?.try_into().ok()?;
                let [TARGET_LINK_LAYER_ADDRESS, 1, a, b, c, d, e, f, ..] = payload.get(NA_TARGET.end..)?
                else {
                    return None;
                };
                Some(Announcement {
                    kind: AnnouncementKind::Na { flags: icmp.bytes5to8()[0] >> 5 },
                    address: address.into(),
                    mac: Mac::new([*a, *b, *c, *d, *e, *f]),
                })
            }
            _ => None,
        }
    }
}

/// The MAC address at which a station announces an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub kind: AnnouncementKind,
    pub address: IpAddr,
    pub mac: Mac,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncementKind {
    ArpRequest,
    ArpReply,
    /// A neighbour advertisement with router 4, solicited 2 and override 1.
    Na {
        flags: u8,
    },
}

impl fmt::Display for AnnouncementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArpRequest => f.write_str("arp-request"),
            Self::ArpReply => f.write_str("arp-reply"),
            Self::Na { flags } => {
                f.write_str("na")?;
                let letters = [(4, "R"), (2, "S"), (1, "O")];
                letters
                    .iter()
                    .filter(|(bit, _)| flags & bit != 0)
                    .try_for_each(|(_, name)| write!(f, "-{name}"))
            }
        }
    }
}

/// Prints one line: interface, addresses, length and the first bytes of the payload.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.outgoing { "out" } else { "in" };
        write!(
            f,
            "{} {way} {} > {} {} bytes:",
            self.ifname,
            self.source(),
            self.destination(),
            self.bytes.len()
        )?;
        self.bytes.iter().skip(12).take(48).try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

#[derive(Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    changed: Condvar,
    stop: AtomicBool,
}

/// A sniffer on all interfaces of a namespace, or on one.
pub struct Capture {
    shared: Arc<Shared>,
    sniffer: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Starts to capture: every frame from the return of this call on.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn start(namespace: &NetNs) -> Result<Self> {
        Self::with(namespace, PacketSocket::open_all(namespace)?)
    }

    /// Starts to capture on one interface: every frame from the return of this call on.
    ///
    /// # Errors
    /// There is no such interface, or the socket cannot be opened.
    pub fn start_on(namespace: &NetNs, ifname: &str) -> Result<Self> {
        Self::with(namespace, PacketSocket::open(namespace, ifname)?)
    }

    fn with(namespace: &NetNs, socket: PacketSocket) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let sniffer = namespace.spawn({
            let shared = shared.clone();
            move || sniff(&socket, &shared)
        })?;
        Ok(Self { shared, sniffer: Some(sniffer) })
    }

    /// Returns the first frame that fulfils `condition`, captured already or within `timeout`.
    ///
    /// # Errors
    /// No such frame arrived in time; the error lists the last ones that did.
    pub fn wait_for(&self, timeout: Duration, condition: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let deadline = Instant::now() + timeout;
        let mut frames = self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looked_at = 0;
        loop {
            if let Some(frame) = frames[looked_at..].iter().find(|frame| condition(frame)) {
                return Ok(frame.clone());
            }
            looked_at = frames.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<_> = frames.iter().rev().take(10).collect();
                bail!("no such frame within {timeout:?}; {looked_at} others, the last of them: {last:#?}");
            }
            let waited = self.shared.changed.wait_timeout(frames, left);
            frames = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns the frames that were captured so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the capture and returns every frame that passed before this call.
    ///
    /// # Errors
    /// The capturing thread failed or panicked.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.join()?;
        Ok(self.frames())
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let Some(sniffer) = self.sniffer.take() else { return Ok(()) };
        sniffer.join().unwrap_or_else(|_| Err(anyhow!("the sniffer panicked")))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn sniff(socket: &PacketSocket, shared: &Shared) -> Result<()> {
    let mut names = HashMap::new();
    loop {
        // The flag is read before the queue: what was queued before the stop is still taken.
        let stop = shared.stop.load(Ordering::Acquire);
        match socket.receive(if stop { Duration::ZERO } else { TICK })? {
            Some(Received { at, ifindex, outgoing, bytes }) => {
                let ifname = names.entry(ifindex).or_insert_with(|| name(ifindex)).clone();
                let frame = Frame { at, ifname, outgoing, bytes };
                shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
                shared.changed.notify_all();
            }
            None if stop => return Ok(()),
            None => {}
        }
    }
}

/// Returns the name of an interface in the namespace of the calling thread; the interface may be gone already.
fn name(ifindex: u32) -> String {
    let name = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("if{ifindex}"))
}

#[cfg(test)]
mod tests {
    use etherparse::{ArpHardwareId, ArpPacket, EtherType, PacketBuilder};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn frame(bytes: Vec<u8>) -> Frame {
        Frame { at: Instant::now(), ifname: String::from("p0"), outgoing: false, bytes }
    }

    fn arp(sender: [u8; 4], target: [u8; 4]) -> Frame {
        let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
        let operation = ArpOperation::REQUEST;
        let packet = ArpPacket::new(hardware, protocol, operation, &MAC, &sender, &[0; 6], &target).unwrap();
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(MAC, [0xff; 6]).arp(packet).write(&mut bytes).unwrap();
        frame(bytes)
    }

    #[test]
    fn a_gratuitous_arp_announces_and_a_question_does_not() {
        let (mine, other) = ([192, 168, 99, 101], [192, 168, 99, 1]);
        assert_eq!(arp(mine, mine).announces(mine.into()), Some(Mac::new(MAC)));
        assert_eq!(arp(mine, other).announces(mine.into()), None);
        assert_eq!(arp(mine, mine).announces(other.into()), None);
    }

    #[test]
    fn an_unsolicited_advertisement_announces() {
        let address: std::net::Ipv6Addr = "fd00:99::101".parse().unwrap();
        for (destination, announced) in [("ff02::1", Some(Mac::new(MAC))), ("fd00:99::1", None)] {
            let destination: std::net::Ipv6Addr = destination.parse().unwrap();
            let body = [&address.octets()[..], &[TARGET_LINK_LAYER_ADDRESS, 1], &MAC].concat();
            let builder = PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0, 0, 0, 1])
                .ipv6(address.octets(), destination.octets(), 255)
                .icmpv6_raw(ICMPV6_NEIGHBOUR_ADVERTISEMENT, 0, [0x20, 0, 0, 0]);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, &body).unwrap();
            assert_eq!(frame(bytes).announces(address.into()), announced, "to {destination}");
        }
    }
}
