//! Which frames that a slave receives are answers to probes of its path.

use core::mem::offset_of;

use network_types::{
    arp::ArpHdr,
    eth::EtherType,
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
};

use crate::{
    abi::Slot,
    mac::Mac,
    path::layout::{MOST_PATH_TARGETS, PathEntry, pair},
    wire::{ETHERNET, Frame, payload},
};

/// The UDP port of unaffiliated echo: that of BFD echo (RFC 9747, RFC 5881).
pub const ECHO_PORT: u16 = 3785;
/// The time to live of an echo that a neighbour has forwarded once.
const RETURNED_TTL: u8 = 254;
/// Echoes that have been on their way for longer prove nothing: nanoseconds.
const LATEST: u64 = 1_000_000_000;
const ARP_REPLY: [u8; 2] = 2u16.to_be_bytes();
const NO_OPTIONS: u8 = 0x45;

/// Offsets from the start of the IPv4 header of an echo.
pub mod echo {
    use super::{Ipv4Hdr, UdpHdr};

    /// The nonce, with the slot that has sent the echo in its lowest four bits.
    pub const NONCE: usize = Ipv4Hdr::LEN + UdpHdr::LEN;
    /// When it was sent: CLOCK_MONOTONIC in nanoseconds.
    pub const SENT: usize = NONCE + 8;
    /// The end.
    pub const END: usize = SENT + 8;
}

/// The meaning of a received frame for the path monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAnswer {
    /// It is none of the path monitor's.
    None,
    /// An echo that this slave had sent at this time came back.
    Echo(u64),
    /// An echo of this bond that proves nothing of this slave: another one had sent it, it is old, or no neighbour has
    /// forwarded it.
    Stray,
    /// The ARP answer of the target with this index, and the target's MAC address.
    Arp(usize, Mac),
}

/// Returns the meaning of a frame that `slot` received at `now`, CLOCK_MONOTONIC in nanoseconds.
#[inline(always)]
pub fn answer(frame: &impl Frame, entry: &PathEntry, slot: Slot, now: u64) -> PathAnswer {
    let (ether_type, payload) = payload(frame);
    if ether_type == EtherType::Ipv4 as u16 {
        return in_ipv4(frame, payload, entry, slot, now);
    }
    if ether_type == EtherType::Arp as u16 { in_arp(frame, payload, entry) } else { PathAnswer::None }
}

/// An echo has one address as its source and its destination: most other packets are recognised by their addresses alone.
#[inline(always)]
fn in_ipv4(frame: &impl Frame, ipv4: usize, entry: &PathEntry, slot: Slot, now: u64) -> PathAnswer {
    let Some(addresses) = frame.read::<8>(ipv4 + offset_of!(Ipv4Hdr, src_addr)) else {
        return PathAnswer::None;
    };
    let addresses = u64::from_ne_bytes(addresses);
    if addresses >> 32 != addresses & 0xffff_ffff {
        return PathAnswer::None;
    }
    // Read and checked one after the other: of several at once the compiler makes programs that read what they have not
    // written, which the verifiers of older kernels refuse.
    let Some([first]) = frame.read::<1>(ipv4) else { return PathAnswer::None };
    let Some([ttl, protocol]) = frame.read::<2>(ipv4 + offset_of!(Ipv4Hdr, ttl)) else {
        return PathAnswer::None;
    };
    if first != NO_OPTIONS || protocol != IpProto::Udp as u8 {
        return PathAnswer::None;
    }
    let udp = ipv4 + Ipv4Hdr::LEN;
    if frame.read::<2>(udp + offset_of!(UdpHdr, dst)) != Some(ECHO_PORT.to_be_bytes()) {
        return PathAnswer::None;
    }
    let Some(nonce) = frame.read::<8>(ipv4 + echo::NONCE) else { return PathAnswer::None };
    let Some(sent) = frame.read::<8>(ipv4 + echo::SENT) else { return PathAnswer::None };
    let (nonce, sent) = (u64::from_ne_bytes(nonce), u64::from_ne_bytes(sent));
    if nonce & !0xf != entry.nonce {
        return PathAnswer::None;
    }
    let is_own = nonce & 0xf == slot.index() as u64 && ttl == RETURNED_TTL;
    let is_new = now.wrapping_sub(sent) < LATEST;
    if is_own && is_new { PathAnswer::Echo(sent) } else { PathAnswer::Stray }
}

#[inline(always)]
fn in_arp(frame: &impl Frame, arp: usize, entry: &PathEntry) -> PathAnswer {
    let Some([h0, h1, p0, p1, hlen, plen, o0, o1]) = frame.read::<8>(arp) else { return PathAnswer::None };
    let wanted_protocol = (EtherType::Ipv4 as u16).to_ne_bytes();
    if [h0, h1] != ETHERNET || [p0, p1] != wanted_protocol || [hlen, plen] != [6, 4] || [o0, o1] != ARP_REPLY
    {
        return PathAnswer::None;
    }
    let Some(sender) = frame.read::<4>(arp + offset_of!(ArpHdr, spa)) else { return PathAnswer::None };
    let Some(asked) = frame.read::<4>(arp + offset_of!(ArpHdr, tpa)) else { return PathAnswer::None };
    let Some(mac) = frame.read::<6>(arp + offset_of!(ArpHdr, sha)) else { return PathAnswer::None };
    let mac = Mac::new(mac);
    if !mac.is_unicast() {
        return PathAnswer::None;
    }
    match find(entry, sender, asked) {
        Some(index) => PathAnswer::Arp(index, mac),
        None => PathAnswer::None,
    }
}

/// Returns the index of the target that answers this address of ours, or none of ours: a backup asks from no address.
#[inline(always)]
fn find(entry: &PathEntry, sender: [u8; 4], asked: [u8; 4]) -> Option<usize> {
    let (pair_of_active, sender_word) = (pair(sender, asked), pair(sender, [0; 4]) >> 32);
    let is_anonymous = asked == [0; 4];
    let mut index = 0;
    while index < MOST_PATH_TARGETS {
        let Some(&target) = entry.targets.get(index) else { break };
        if target != 0 && (target == pair_of_active || is_anonymous && target >> 32 == sender_word) {
            return Some(index);
        }
        index += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::Bytes;

    const TARGET: [u8; 4] = [192, 0, 2, 1];
    const OURS: [u8; 4] = [192, 0, 2, 7];
    const NONCE: u64 = 0x1234_5678_9abc_def0;
    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0xfe]);
    const NOW: u64 = 7_000_000_000;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn entry() -> PathEntry {
        let mut entry = PathEntry { nonce: NONCE, ..PathEntry::default() };
        entry.targets[1] = pair(TARGET, OURS);
        entry
    }

    struct Sent {
        from: [u8; 4],
        to: [u8; 4],
        ttl: u8,
        protocol: u8,
        port: u16,
        nonce: u64,
        sent: u64,
    }

    const RETURNED: Sent =
        Sent { from: OURS, to: OURS, ttl: 254, protocol: 17, port: 3785, nonce: NONCE | 3, sent: NOW - 100 };

    fn echo(tags: usize, sent: &Sent) -> Bytes {
        let mut ip = vec![0x45, 0, 0, 44, 0, 0, 0, 0, sent.ttl, sent.protocol, 0, 0];
        ip.extend(sent.from);
        ip.extend(sent.to);
        ip.extend(3785u16.to_be_bytes());
        ip.extend(sent.port.to_be_bytes());
        ip.extend([0, 24, 0, 0]);
        ip.extend(sent.nonce.to_ne_bytes());
        ip.extend(sent.sent.to_ne_bytes());
        assert_eq!(ip.len(), super::echo::END);
        Bytes::tagged(tags, 0x0800, &ip)
    }

    #[test]
    fn only_returned_echoes_of_this_slave_count() {
        use PathAnswer::{Echo, None, Stray};
        let table = [
            (RETURNED, Echo(NOW - 100)),
            (Sent { ttl: 255, ..RETURNED }, Stray),
            (Sent { ttl: 253, ..RETURNED }, Stray),
            (Sent { nonce: NONCE | 4, ..RETURNED }, Stray),
            (Sent { sent: NOW - LATEST, ..RETURNED }, Stray),
            (Sent { sent: NOW + 1, ..RETURNED }, Stray),
            (Sent { nonce: NONCE ^ 16, ..RETURNED }, None),
            (Sent { nonce: 0, ..RETURNED }, None),
            (Sent { to: TARGET, ..RETURNED }, None),
            (Sent { protocol: 6, ..RETURNED }, None),
            (Sent { port: 3784, ..RETURNED }, None),
        ];
        for (row, (sent, expected)) in table.into_iter().enumerate() {
            for tags in 0..3 {
                assert_eq!(answer(&echo(tags, &sent), &entry(), slot(3), NOW), expected, "{row} {tags}");
            }
        }
        let Bytes(bytes) = echo(0, &RETURNED);
        for length in 0..bytes.len() {
            let cut = Bytes(bytes.get(..length).unwrap().to_vec());
            assert_eq!(answer(&cut, &entry(), slot(3), NOW), None, "{length}");
        }
    }

    fn arp(operation: u8, (sha, spa): (Mac, [u8; 4]), tpa: [u8; 4]) -> Bytes {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
        arp.extend(sha.bytes());
        arp.extend(spa);
        arp.extend([2, 0, 0, 0, 0, 7]);
        arp.extend(tpa);
        Bytes::tagged(0, 0x0806, &arp)
    }

    #[test]
    fn arp_answers_of_targets_count() {
        let heard = PathAnswer::Arp(1, MAC);
        for (row, (frame, expected)) in [
            (arp(2, (MAC, TARGET), OURS), heard),
            (arp(2, (MAC, TARGET), [0; 4]), heard),
            (arp(2, (MAC, TARGET), [192, 0, 2, 8]), PathAnswer::None),
            (arp(2, (MAC, [192, 0, 2, 2]), OURS), PathAnswer::None),
            (arp(2, (MAC, [0; 4]), [0; 4]), PathAnswer::None),
            (arp(2, (Mac::BROADCAST, TARGET), OURS), PathAnswer::None),
            (arp(1, (MAC, TARGET), OURS), PathAnswer::None),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(answer(&frame, &entry(), slot(3), NOW), expected, "{row}");
        }
    }
}
