//! Finds and rewrites MAC addresses inside frames.
//!
//! All functions take a [`Frame`], which is a packet in the kernel and a byte array in tests.

use core::mem::offset_of;

use network_types::{
    arp::ArpHdr,
    eth::{EthHdr, EtherType},
    icmp::Icmpv6Hdr,
    ip::{IpProto, Ipv6Hdr},
    vlan::VlanHdr,
};

use crate::mac::Mac;

/// A frame that begins with its Ethernet header. Implementations must not panic for any `offset`.
pub trait Frame {
    /// Returns the `N` bytes from `offset` on, None if the frame ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// Writes `bytes` from `offset` on; None if the frame ends before them or cannot be written.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Updates the UDP checksum at `offset` after two even-aligned bytes were written; None if it cannot be written. A
    /// datagram without a checksum stays without one.
    #[inline(always)]
    fn update_udp_checksum(&mut self, offset: usize, from: [u8; 2], to: [u8; 2]) -> Option<()> {
        match self.read(offset)? {
            [0, 0] => Some(()),
            checksum => self.write(offset, updated_udp_checksum(checksum, from, to)),
        }
    }
}

/// The error of a frame that could not be written. It may be changed in part and must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteError;

/// The two addresses of an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first address of the frame, bytes 0 to 5.
    pub destination: Mac,
    /// The second address of the frame, bytes 6 to 11.
    pub source: Mac,
}

impl Header {
    /// Reads the addresses; None if the frame is shorter than an Ethernet header.
    #[inline(always)]
    pub fn read(frame: &impl Frame) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, _, _] = frame.read::<{ EthHdr::LEN }>(0)?;
        Some(Self { destination: Mac::new([a, b, c, d, e, f]), source: Mac::new([g, h, i, j, k, l]) })
    }
}

/// 802.1X and MACsec, which network-types does not name. In wire order.
const EAPOL: u16 = 0x888e_u16.to_be();
const MACSEC: u16 = 0x88e5_u16.to_be();
/// The EAPOL packet type whose check value (ICV) covers both addresses of the frame (IEEE 802.1X, 11.11), and the offset
/// of the type in the EAPOL packet.
const EAPOL_MKA: u8 = 5;
const EAPOL_TYPE: usize = 1;
pub(crate) const ETHERNET: [u8; 2] = 1u16.to_be_bytes();

/// Neighbour discovery (RFC 4861): message types and the two options that carry a MAC.
pub(crate) mod nd {
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub const REDIRECT: u8 = 137;
    pub const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
    pub const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    /// The most options that are searched; kernels send the address first.
    pub const MOST_OPTIONS: usize = 8;
}

/// Rewrites the source MAC address to `to`: in the Ethernet header and, if the payload repeats it, in the ARP sender
/// field or the neighbour discovery option, with an incremental update of the checksum. Returns false, and changes
/// nothing, if the frame protects its addresses.
///
/// # Errors
/// The frame cannot be written.
#[inline(always)]
pub fn rewrite_source(frame: &mut impl Frame, header: Header, to: Mac) -> Result<bool, RewriteError> {
    let (ether_type, payload) = payload(frame);
    if protects_addresses(frame, ether_type, payload) {
        return Ok(false);
    }
    frame.write(offset_of!(EthHdr, src_addr), to.bytes()).ok_or(RewriteError)?;
    if ether_type == EtherType::Arp as u16 {
        replace_in_arp(frame, payload, offset_of!(ArpHdr, sha), header.source, to)?;
    } else if ether_type == EtherType::Ipv6 as u16 {
        replace_in_nd(frame, payload, header.source, to)?;
    }
    Ok(true)
}

/// Rewrites the destination MAC address to `to`: in the Ethernet header and in the ARP target field of an answer.
/// Returns false, and changes nothing, if the frame protects its addresses.
///
/// # Errors
/// The frame cannot be written.
#[inline(always)]
pub fn rewrite_destination(frame: &mut impl Frame, header: Header, to: Mac) -> Result<bool, RewriteError> {
    let (ether_type, payload) = payload(frame);
    if protects_addresses(frame, ether_type, payload) {
        return Ok(false);
    }
    frame.write(offset_of!(EthHdr, dst_addr), to.bytes()).ok_or(RewriteError)?;
    if ether_type == EtherType::Arp as u16 {
        replace_in_arp(frame, payload, offset_of!(ArpHdr, tha), header.destination, to)?;
    }
    Ok(true)
}

/// Returns whether the frame is MACsec or its key agreement, whose receivers discard frames with other addresses.
#[inline(always)]
fn protects_addresses(frame: &impl Frame, ether_type: u16, payload: usize) -> bool {
    ether_type == MACSEC || ether_type == EAPOL && frame.read(payload + EAPOL_TYPE) == Some([EAPOL_MKA])
}

/// Returns the EtherType behind up to two VLAN tags, in wire order, and the offset of what follows it.
/// A frame that ends too early has the type 0.
#[inline(always)]
pub(crate) fn payload(frame: &impl Frame) -> (u16, usize) {
    let mut offset = EthHdr::LEN;
    let mut ether_type = ether_type_at(frame, offset_of!(EthHdr, ether_type));
    for _ in 0..2 {
        let tagged = ether_type == EtherType::Ieee8021q as u16
            || ether_type == EtherType::Ieee8021ad as u16
            || ether_type == EtherType::Ieee8021QinQ1 as u16;
        if !tagged {
            break;
        }
        ether_type = ether_type_at(frame, offset + offset_of!(VlanHdr, ether_type));
        offset += VlanHdr::LEN;
    }
    (ether_type, offset)
}

#[inline(always)]
fn ether_type_at(frame: &impl Frame, offset: usize) -> u16 {
    frame.read(offset).map_or(0, u16::from_ne_bytes)
}

#[inline(always)]
fn replace_in_arp(
    frame: &mut impl Frame,
    arp: usize,
    field: usize,
    from: Mac,
    to: Mac,
) -> Result<(), RewriteError> {
    let ethernet = frame.read(arp + offset_of!(ArpHdr, htype)) == Some(ETHERNET)
        && frame.read(arp + offset_of!(ArpHdr, hlen)) == Some([6]);
    if ethernet && frame.read(arp + field) == Some(from.bytes()) {
        frame.write(arp + field, to.bytes()).ok_or(RewriteError)?;
    }
    Ok(())
}

#[inline(always)]
fn replace_in_nd(frame: &mut impl Frame, ipv6: usize, from: Mac, to: Mac) -> Result<(), RewriteError> {
    if frame.read(ipv6 + offset_of!(Ipv6Hdr, next_hdr)) != Some([IpProto::Ipv6Icmp as u8]) {
        return Ok(());
    }
    let icmp = ipv6 + Ipv6Hdr::LEN;
    let Some([kind]) = frame.read(icmp + offset_of!(Icmpv6Hdr, type_)) else { return Ok(()) };
    let (carrier, options) = match kind {
        nd::ROUTER_SOLICITATION => (nd::SOURCE_LINK_LAYER_ADDRESS, 8),
        nd::ROUTER_ADVERTISEMENT => (nd::SOURCE_LINK_LAYER_ADDRESS, 16),
        nd::NEIGHBOUR_SOLICITATION => (nd::SOURCE_LINK_LAYER_ADDRESS, 24),
        nd::NEIGHBOUR_ADVERTISEMENT => (nd::TARGET_LINK_LAYER_ADDRESS, 24),
        // The target of a redirect is another router, and the option has that router's MAC address.
        nd::REDIRECT => return Ok(()),
        _ => return Ok(()),
    };
    let mut option = icmp + options;
    for _ in 0..nd::MOST_OPTIONS {
        // The length counts units of eight bytes; zero is malformed or padding.
        let Some([kind, length @ 1..=u8::MAX]) = frame.read(option) else { return Ok(()) };
        if kind == carrier && frame.read(option + 2) == Some(from.bytes()) {
            let checksum_at = icmp + offset_of!(Icmpv6Hdr, check);
            let checksum = frame.read(checksum_at).ok_or(RewriteError)?;
            frame.write(option + 2, to.bytes()).ok_or(RewriteError)?;
            return frame.write(checksum_at, updated_checksum(checksum, from, to)).ok_or(RewriteError);
        }
        option += length as usize * 8;
    }
    Ok(())
}

/// Returns the Internet checksum after six even-aligned bytes changed (RFC 1624, equation 3).
#[inline(always)]
fn updated_checksum(checksum: [u8; 2], from: Mac, to: Mac) -> [u8; 2] {
    let words = |mac: Mac| {
        let [a, b, c, d, e, f] = mac.bytes();
        [[a, b], [c, d], [e, f]].map(|word| u16::from_be_bytes(word) as u32)
    };
    let ([a, b, c], [x, y, z]) = (words(from), words(to));
    let mut sum = (!u16::from_be_bytes(checksum)) as u32;
    sum += (0xffff - a) + (0xffff - b) + (0xffff - c) + x + y + z;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

/// Returns the UDP checksum after two even-aligned bytes changed (RFC 1624, equation 3). Zero would mean that there is
/// none, and is sent as its complement (RFC 768).
#[inline(always)]
fn updated_udp_checksum(checksum: [u8; 2], from: [u8; 2], to: [u8; 2]) -> [u8; 2] {
    let [checksum, from, to] = [checksum, from, to].map(|word| u32::from(u16::from_be_bytes(word)));
    let sum = (0xffff - checksum) + (0xffff - from) + to;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    match !(sum as u16) {
        0 => [0xff, 0xff],
        sum => sum.to_be_bytes(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame of a test. What does not lie in it can neither be read nor written.
    pub(crate) struct Bytes(pub Vec<u8>);

    impl Bytes {
        /// Returns a frame between two stations with this number of tags.
        pub(crate) fn tagged(tags: usize, ether_type: u16, payload: &[u8]) -> Self {
            let mut bytes = vec![2; 12];
            (0..tags).for_each(|_| bytes.extend([0x81, 0, 0, 5]));
            bytes.extend(ether_type.to_be_bytes());
            bytes.extend(payload);
            Self(bytes)
        }
    }

    impl Frame for Bytes {
        fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.get(offset..offset.checked_add(N)?)?.try_into().ok()
        }

        fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
            self.0.get_mut(offset..offset.checked_add(N)?)?.copy_from_slice(&bytes);
            Some(())
        }
    }

    const FROM: Mac = Mac::new([0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0x01]);
    const TO: Mac = Mac::new([0x08, 0x00, 0x27, 0xff, 0xfe, 0x02]);
    const PEER: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x77]);

    fn ethernet(destination: Mac, source: Mac, tags: &[u16], ether_type: u16) -> Vec<u8> {
        let mut bytes = [destination.bytes(), source.bytes()].concat();
        for tag in tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0x20, 5]);
        }
        bytes.extend(ether_type.to_be_bytes());
        bytes
    }

    fn arp(sender: Mac, target: Mac) -> Vec<u8> {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 2];
        bytes.extend(sender.bytes());
        bytes.extend([10, 0, 0, 1]);
        bytes.extend(target.bytes());
        bytes.extend([10, 0, 0, 2]);
        bytes
    }

    /// IPv6 with ICMPv6 whose checksum is right.
    fn neighbour(kind: u8, head: usize, options: &[u8]) -> Vec<u8> {
        let mut icmp = vec![kind, 0, 0, 0];
        icmp.resize(head, 0x5a);
        icmp.extend(options);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((icmp.len() as u16).to_be_bytes());
        bytes.extend([58, 255]);
        bytes.extend([0xfe; 32]);
        let sum = checksum(&bytes[8..], &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(icmp);
        bytes
    }

    /// From scratch, as a receiver does it: pseudo-header and message.
    fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
        let words = addresses[..32].chunks(2).chain(message.chunks(2));
        let mut sum =
            words.map(|w| u16::from_be_bytes([w[0], w[1]]) as u64).sum::<u64>() + message.len() as u64 + 58;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn rewritten(bytes: Vec<u8>) -> (Vec<u8>, bool) {
        let mut frame = Bytes(bytes);
        let header = Header::read(&frame).unwrap();
        let rewritten = rewrite_source(&mut frame, header, TO).unwrap();
        (frame.0, rewritten)
    }

    const TAGS: [&[u16]; 4] = [&[], &[0x8100], &[0x88a8], &[0x88a8, 0x8100]];

    #[test]
    fn the_arp_sender_is_rewritten_behind_any_tags() {
        for tags in TAGS {
            let frame = [ethernet(Mac::BROADCAST, FROM, tags, 0x0806), arp(FROM, PEER)].concat();
            let expected = [ethernet(Mac::BROADCAST, TO, tags, 0x0806), arp(TO, PEER)].concat();
            assert_eq!(rewritten(frame), (expected, true), "{tags:x?}");
        }
    }

    #[test]
    fn arp_of_another_host_keeps_its_sender() {
        let frame = [ethernet(Mac::BROADCAST, FROM, &[], 0x0806), arp(PEER, FROM)].concat();
        let expected = [ethernet(Mac::BROADCAST, TO, &[], 0x0806), arp(PEER, FROM)].concat();
        assert_eq!(rewritten(frame), (expected, true));
    }

    #[test]
    fn neighbour_discovery_is_rewritten_with_a_correct_checksum() {
        let option = |kind: u8, mac: Mac| [&[kind, 1][..], &mac.bytes()].concat();
        let nonce = vec![14, 1, 1, 2, 3, 4, 5, 6];
        for tags in TAGS {
            for (kind, head, carrier) in [(133, 8, 1), (134, 16, 1), (135, 24, 1), (136, 24, 2)] {
                let build = |source, mac| {
                    let options = [nonce.clone(), option(carrier, mac)].concat();
                    [ethernet(PEER, source, tags, 0x86dd), neighbour(kind, head, &options)].concat()
                };
                assert_eq!(rewritten(build(FROM, FROM)), (build(TO, TO), true), "type {kind}, {tags:x?}");
                assert_eq!(rewritten(build(FROM, PEER)), (build(TO, PEER), true), "type {kind}, {tags:x?}");
            }
        }
    }

    #[test]
    fn protected_addresses_and_payload_stay() {
        for tags in TAGS {
            for (ether_type, kind, protects) in
                [(0x888e, 0, false), (0x888e, 1, false), (0x888e, 5, true), (0x88e5, 0, true)]
            {
                let from = |source| [ethernet(PEER, source, tags, ether_type), vec![3, kind, 0, 0]].concat();
                let expected = if protects { (from(FROM), false) } else { (from(TO), true) };
                assert_eq!(rewritten(from(FROM)), expected, "{ether_type:x} of type {kind}, {tags:x?}");
            }
        }
        let ip = |source| [ethernet(PEER, source, &[], 0x0800), FROM.bytes().repeat(8)].concat();
        assert_eq!(rewritten(ip(FROM)), (ip(TO), true));
    }

    #[test]
    fn destination_and_arp_target_are_rewritten() {
        let build = |mac| [ethernet(mac, PEER, &[0x8100], 0x0806), arp(PEER, mac)].concat();
        let mut frame = Bytes(build(FROM));
        let header = Header::read(&frame).unwrap();
        assert!(rewrite_destination(&mut frame, header, TO).unwrap());
        assert_eq!(frame.0, build(TO));

        let macsec = ethernet(FROM, PEER, &[], 0x88e5);
        let mut frame = Bytes(macsec.clone());
        assert!(!rewrite_destination(&mut frame, Header::read(&Bytes(macsec.clone())).unwrap(), TO).unwrap());
        assert_eq!(frame.0, macsec);
    }

    #[test]
    fn every_prefix_of_a_frame_is_survived() {
        let option = [&[2, 1][..], &FROM.bytes()].concat();
        for whole in [
            [ethernet(PEER, FROM, &[0x88a8, 0x8100], 0x86dd), neighbour(136, 24, &option)].concat(),
            [ethernet(PEER, FROM, &[0x8100], 0x0806), arp(FROM, FROM)].concat(),
        ] {
            for length in 0..whole.len() {
                let mut frame = Bytes(whole[..length].to_vec());
                let header = Header::read(&frame);
                assert_eq!(header.is_some(), length >= 14);
                if let Some(header) = header {
                    rewrite_source(&mut frame, header, TO).unwrap();
                    assert_eq!(frame.0[6..12], TO.bytes());
                    assert_eq!(frame.0.len(), length);
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn an_updated_checksum_equals_the_computed_one(from: [u8; 6], to: [u8; 6], rest: [u8; 20]) {
            let build = |mac: [u8; 6]| [&rest[..], &mac[..]].concat();
            let addresses = [0xfe; 32];
            let before = checksum(&addresses, &build(from)).to_be_bytes();
            let after = checksum(&addresses, &build(to));
            let updated_checksum = u16::from_be_bytes(updated_checksum(before, Mac::new(from), Mac::new(to)));
            // One's complement has two zeros; a receiver takes either.
            proptest::prop_assert!(updated_checksum == after || (updated_checksum ^ after) == 0xffff && (updated_checksum == 0 || after == 0));
        }
    }
}
