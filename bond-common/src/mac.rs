//! MAC addresses as one aligned 64-bit word.

use core::{fmt, str::FromStr};

/// An Ethernet address in a 64-bit word: six bytes in wire order, then two zero bytes. One aligned load reads the
/// address, one comparison compares it, and a store of it cannot tear.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Mac(u64);

impl Mac {
    /// The address 00:00:00:00:00:00, which stands for no address.
    pub const ZERO: Self = Self(0);
    /// The address ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self::new([0xff; 6]);

    /// Creates an address from its six bytes in wire order.
    pub const fn new(bytes: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Returns the 64-bit word that maps hold.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Creates an address from a word of a map; the two bytes after the address are ignored.
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = word.to_ne_bytes();
        Self::new([a, b, c, d, e, f])
    }

    /// Returns the six bytes in wire order.
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_ne_bytes();
        [a, b, c, d, e, f]
    }

    /// Returns whether this is [`Self::ZERO`], that is, no address.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns whether the group bit is set: multicast, broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0.to_ne_bytes()[0] & 1 != 0
    }

    /// Returns whether the address is one from 01:80:c2:00:00:00 to :0f, which no bridge forwards: STP, LACP, LLDP,
    /// 802.1X.
    pub const fn is_link_local(self) -> bool {
        const GROUP: u64 = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0]).0;
        const MASK: u64 = Mac::new([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]).0;
        self.0 & MASK == GROUP
    }

    /// Returns whether a NIC may have this address: neither zero nor a group address (`is_valid_ether_addr`).
    pub const fn is_unicast(self) -> bool {
        !self.is_zero() && !self.is_multicast()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.bytes();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error of a text that is not six hexadecimal bytes separated by colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address of the form 08:00:27:e8:26:58")
    }
}

impl core::error::Error for InvalidMac {}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(InvalidMac)?;
            // from_str_radix would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(InvalidMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        if parts.next().is_some() { Err(InvalidMac) } else { Ok(Self::new(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let mac: Mac = "08:00:27:E8:26:58".parse().unwrap();
        assert_eq!(mac.to_string(), "08:00:27:e8:26:58");
        assert_eq!(mac.bytes(), [0x08, 0x00, 0x27, 0xe8, 0x26, 0x58]);
        for bad in ["", "08:00:27:e8:26", "08:00:27:e8:26:58:00", "8:00:27:e8:26:58", "+8:00:27:e8:26:58"] {
            assert_eq!(bad.parse::<Mac>(), Err(InvalidMac), "{bad}");
        }
    }

    #[test]
    fn mac_addresses_have_their_kind() {
        let last = |byte| Mac::new([0x01, 0x80, 0xc2, 0, 0, byte]);
        assert!(last(0).is_link_local() && last(0x0e).is_link_local() && last(0x0f).is_link_local());
        assert!(!last(0x10).is_link_local() && !Mac::BROADCAST.is_link_local());
        assert!(Mac::BROADCAST.is_multicast() && !Mac::BROADCAST.is_unicast() && !Mac::ZERO.is_unicast());
        assert_eq!(Mac::from_word(Mac::BROADCAST.to_word() | 0xffff << 48), Mac::BROADCAST);
    }
}
