//! Messages about addresses.

use std::net::IpAddr;

use super::{
    IFA_ADDRESS, IFA_CACHEINFO, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, Message, Substitute,
    bytes::{Builder, time_left, u32_at},
    numbers::{ADDRESS_SETTABLE, NLA_TYPE_MASK},
};

impl Message {
    /// Returns the address itself, not that of the peer.
    pub fn local(&self) -> Option<IpAddr> {
        self.ip(IFA_LOCAL).or_else(|| self.ip(IFA_ADDRESS))
    }

    /// Returns the key that identifies an address on its device.
    pub fn address_key(&self) -> (Option<IpAddr>, u8, Option<IpAddr>) {
        (self.local(), self.byte(1), self.ip(IFA_ADDRESS))
    }

    /// IFA_F_*
    pub fn address_flags(&self) -> u32 {
        self.number(IFA_FLAGS).unwrap_or_else(|| self.byte(2).into())
    }

    /// Returns the seconds until the kernel removes it, counted from when it was read; `None` if it stays.
    pub fn valid_for(&self) -> Option<u32> {
        self.attribute(IFA_CACHEINFO).and_then(|info| u32_at(info, 4)).filter(|valid| *valid != u32::MAX)
    }

    /// RT_SCOPE_*
    pub fn address_scope(&self) -> u8 {
        self.byte(3)
    }

    /// Returns the same address for another device, with these flags in addition; `None` if its lifetime is over.
    pub fn address_for(&self, substitute: &Substitute<'_>, flags: u32) -> Option<Self> {
        let flags = self.address_flags() & ADDRESS_SETTABLE | flags;
        let mut message = Builder::of(self);
        message.set_byte(2, flags as u8);
        message.set_word(4, substitute.to);
        let mut expired = false;
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            IFA_FLAGS => Some(flags.to_ne_bytes().to_vec()),
            IFA_CACHEINFO => {
                let mut value = value.to_vec();
                for place in [0, 4] {
                    let left = time_left(u32_at(&value, place)?, substitute.elapsed);
                    value.get_mut(place..place + 4)?.copy_from_slice(&left.to_ne_bytes());
                }
                expired = u32_at(&value, 4) == Some(0);
                Some(value)
            }
            IFA_LABEL => Some(label_for(value, substitute.names)),
            _ => Some(value.to_vec()),
        });
        (!expired).then(|| message.done())
    }
}

/// Replaces the name in a label: "eth0:1" of eth0 becomes "bond0:1"; a label of another form stays.
pub(super) fn label_for(label: &[u8], names: Option<(&str, &str)>) -> Vec<u8> {
    let Some((from, to)) = names else { return label.to_vec() };
    match label.strip_prefix(from.as_bytes()) {
        Some(rest) => [to.as_bytes(), rest].concat(),
        None => label.to_vec(),
    }
}
