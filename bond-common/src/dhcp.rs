//! DHCP requests of a host whose MAC address is not the one of its frames.
//!
//! A server sends its answer to the client's hardware address (`chaddr`) while the client has no IP address. Where bond0
//! keeps its MAC address, that address is not on the wire: no switch knows it, and the active slave's NIC does not receive
//! it. The address has to stay, because leases belong to it. With the broadcast flag in its request, the client receives
//! the answer (RFC 2131, 4.1).

use core::mem::offset_of;

use network_types::{
    eth::EtherType,
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
};

use crate::{
    mac::Mac,
    wire::{Frame, RewriteError, payload},
};

/// The ports of clients and servers, in wire order.
const PORTS: [u8; 4] = [0, 68, 0, 67];
/// `op` of a request, `htype` and `hlen` of Ethernet.
const REQUEST: [u8; 3] = [1, 1, 6];
/// Offsets in a message (RFC 2131, figure 1).
const FLAGS: usize = 10;
const CLIENT_ADDRESS: usize = 12;
const CLIENT_HARDWARE: usize = 28;
const BROADCAST: u8 = 0x80;
/// The part of the fragment field that is the offset.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Sets the broadcast flag in a DHCP request over IPv4 of the client with this hardware address, if the client has no IP
/// address yet, and updates the checksum. Leaves all other frames as they are.
///
/// # Errors
/// The frame cannot be written.
#[inline(always)]
pub fn ask_for_broadcast(frame: &mut impl Frame, client: Mac) -> Result<(), RewriteError> {
    let Some((udp, message)) = request(frame) else { return Ok(()) };
    let is_of_client = frame.read(message + CLIENT_HARDWARE) == Some(client.bytes());
    let has_address = frame.read(message + CLIENT_ADDRESS) != Some([0; 4]);
    let Some([high, low]) = frame.read(message + FLAGS) else { return Ok(()) };
    if !is_of_client || has_address || high & BROADCAST != 0 {
        return Ok(());
    }
    let asked = [high | BROADCAST, low];
    frame.write(message + FLAGS, asked).ok_or(RewriteError)?;
    frame.update_udp_checksum(udp + offset_of!(UdpHdr, check), [high, low], asked).ok_or(RewriteError)
}

/// Returns the offsets of the UDP header and of the message of a client's request.
#[inline(always)]
fn request(frame: &impl Frame) -> Option<(usize, usize)> {
    let (ether_type, ip) = payload(frame);
    if ether_type != EtherType::Ipv4 as u16
        || frame.read(ip + offset_of!(Ipv4Hdr, proto)) != Some([IpProto::Udp as u8])
    {
        return None;
    }
    let [version_and_length] = frame.read(ip)?;
    let udp = ip + usize::from(version_and_length & 0xf) * 4;
    let fragment = frame.read(ip + offset_of!(Ipv4Hdr, frags)).map(u16::from_be_bytes)?;
    let message = udp + UdpHdr::LEN;
    let is_request = fragment & FRAGMENT_OFFSET == 0
        && frame.read(udp) == Some(PORTS)
        && frame.read(message) == Some(REQUEST);
    is_request.then_some((udp, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::Bytes;

    const CLIENT: Mac = Mac::new([0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0x01]);
    const OTHER: Mac = Mac::new([0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0x02]);

    /// A request in IPv4 whose header has this number of options, of four bytes each.
    fn request(options: usize, flags: u16, client: Mac) -> Vec<u8> {
        let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 7];
        message.extend(flags.to_be_bytes());
        message.extend([0; 16]);
        message.extend(client.bytes());
        message.resize(240, 0);
        message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
        let mut ip =
            vec![0x45 + options as u8, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
        ip.resize(20 + 4 * options, 1);
        let length = (8 + message.len()) as u16;
        let mut udp = [&PORTS[..], &length.to_be_bytes(), &[0, 0], &message].concat();
        let sum = checksum(&ip, &udp);
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        [ip, udp].concat()
    }

    /// From scratch, as a receiver does it: pseudo-header and datagram.
    fn checksum(ip: &[u8], udp: &[u8]) -> u16 {
        let words = ip[12..20].chunks(2).chain(udp.chunks(2));
        let mut sum = words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>();
        sum += 17 + udp.len() as u64;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn asked(tags: usize, payload: &[u8]) -> Vec<u8> {
        let mut frame = Bytes::tagged(tags, 0x0800, payload);
        ask_for_broadcast(&mut frame, CLIENT).unwrap();
        frame.0.split_off(14 + 4 * tags)
    }

    #[test]
    fn a_request_gets_the_flag_and_a_correct_checksum() {
        for tags in 0..3 {
            for options in [0, 1, 10] {
                for flags in [0, 0x7fff, 0x0001] {
                    let (before, after) =
                        (request(options, flags, CLIENT), request(options, flags | 0x8000, CLIENT));
                    assert_eq!(asked(tags, &before), after, "{tags} tags, {options} options, {flags:x}");
                }
            }
        }
    }

    #[test]
    fn a_request_without_a_checksum_has_none_afterwards() {
        let mut before = request(0, 0, CLIENT);
        before[26..28].fill(0);
        let mut after = request(0, 0x8000, CLIENT);
        after[26..28].fill(0);
        assert_eq!(asked(0, &before), after);
    }

    #[test]
    fn other_frames_are_unchanged() {
        let changed = |at: usize, value: u8| {
            let mut bytes = request(0, 0, CLIENT);
            bytes[at] = value;
            bytes
        };
        let table = [
            ("a client that asks for it", request(0, 0x8000, CLIENT)),
            ("another client", request(0, 0, OTHER)),
            ("a client with an address", changed(20 + 8 + 12, 192)),
            ("a relay", changed(20 + 1, 67)),
            ("another port", changed(20 + 3, 68)),
            ("an answer", changed(20 + 8, 2)),
            ("another kind of hardware", changed(20 + 9, 6)),
            ("a later fragment", changed(7, 1)),
            ("TCP", changed(9, 6)),
        ];
        for (what, bytes) in table {
            assert_eq!(asked(0, &bytes), bytes, "{what}");
        }
        let mut frame = Bytes::tagged(0, 0x86dd, &request(0, 0, CLIENT));
        let before = frame.0.clone();
        ask_for_broadcast(&mut frame, CLIENT).unwrap();
        assert_eq!(frame.0, before, "another protocol");
    }

    #[test]
    fn no_frame_that_ends_too_early_is_changed() {
        let whole = request(0, 0, CLIENT);
        for end in 0..20 + 8 + CLIENT_HARDWARE + 6 {
            assert_eq!(asked(0, &whole[..end]), whole[..end], "{end} bytes");
        }
    }
}
