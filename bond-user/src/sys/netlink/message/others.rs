//! Messages about neighbours, rules and nexthop objects.

use std::net::IpAddr;

use super::{
    FRA_IIFNAME, FRA_OIFNAME, FRA_PRIORITY, Message, NDA_CACHEINFO, NDA_DST, NDA_IFINDEX, NDA_PROBES,
    NHA_ENCAP, NHA_GROUP, NHA_ID, NHA_OIF, NHA_RES_GROUP, Substitute, append,
    bytes::{Builder, attributes, replaced, u16_at, u32_at},
    numbers::{
        NHA_ANSWERS, NHA_RES_GROUP_UNBALANCED_TIME, NLA_F_NESTED, NLA_TYPE_MASK, RTNH_SETTABLE, RULE_SETTABLE,
    },
};

impl Message {
    /// NUD_*
    pub fn neighbour_state(&self) -> u16 {
        u16_at(&self.body, 8).unwrap_or(0)
    }

    /// NTF_*
    pub fn neighbour_flags(&self) -> u8 {
        self.byte(10)
    }

    /// Returns RTN_* of its address.
    pub fn neighbour_type(&self) -> u8 {
        self.byte(11)
    }

    /// Returns what identifies a neighbour: family, address and flags.
    pub fn neighbour_key(&self) -> (u8, Option<IpAddr>, u8) {
        const NTF_PROXY: u8 = 8;
        (self.family(), self.ip(NDA_DST), self.neighbour_flags() & NTF_PROXY)
    }

    /// Returns the neighbour for another device.
    pub fn neighbour_for(&self, substitute: &Substitute<'_>) -> Self {
        /// NUD_REACHABLE | STALE | NOARP | PERMANENT. The kernel determines the outcome of the other states.
        const KNOWN: u16 = 0x02 | 0x04 | 0x40 | 0x80;
        let mut message = Builder::of(self);
        message.set_word(4, substitute.to);
        let state = self.neighbour_state() & KNOWN;
        message.set(8, &state.to_ne_bytes());
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            NDA_CACHEINFO | NDA_PROBES => None,
            NDA_IFINDEX => Some(replaced(value, substitute)),
            _ => Some(value.to_vec()),
        });
        message.done()
    }

    /// Returns whether the rule matches packets that this device receives, or that are sent by it.
    pub fn names_device(&self, name: &str) -> bool {
        [FRA_IIFNAME, FRA_OIFNAME].iter().any(|kind| self.name(*kind) == Some(name))
    }

    /// Returns the priority of a rule.
    pub fn rule_priority(&self) -> u32 {
        self.number(FRA_PRIORITY).unwrap_or(0)
    }

    /// Returns the rule for another device.
    pub fn rule_for(&self, substitute: &Substitute<'_>) -> Self {
        let mut message = Builder::of(self);
        message.set_word(8, self.word(8) & RULE_SETTABLE);
        message.attributes(|kind, value| match (kind & NLA_TYPE_MASK, substitute.names) {
            (FRA_IIFNAME | FRA_OIFNAME, Some((from, to)))
                if value.strip_suffix(b"\0").unwrap_or(value) == from.as_bytes() =>
            {
                Some([to.as_bytes(), b"\0"].concat())
            }
            _ => Some(value.to_vec()),
        });
        message.done()
    }

    /// Returns the id of a next hop.
    pub fn next_hop_id(&self) -> u32 {
        self.number(NHA_ID).unwrap_or(0)
    }

    /// Returns the ids of the members of a group (struct nexthop_grp is 8 bytes).
    pub fn members(&self) -> impl Iterator<Item = u32> {
        self.attribute(NHA_GROUP).unwrap_or_default().chunks_exact(8).filter_map(|member| u32_at(member, 0))
    }

    /// Returns the next hop for another device.
    pub fn next_hop_for(&self, substitute: &Substitute<'_>) -> Self {
        let mut message = Builder::of(self);
        // The kernel determines its scope.
        message.set_byte(1, 0);
        message.set_word(4, self.word(4) & u32::from(RTNH_SETTABLE & 4));
        message.attributes(|kind, value| match kind & NLA_TYPE_MASK {
            NHA_OIF => Some(replaced(value, substitute)),
            NHA_RES_GROUP => {
                let mut kept = Vec::new();
                for (kind, value) in attributes(value) {
                    if kind & NLA_TYPE_MASK != NHA_RES_GROUP_UNBALANCED_TIME {
                        append(&mut kept, kind, value);
                    }
                }
                Some(kept)
            }
            kind if NHA_ANSWERS.contains(&kind) => None,
            _ => Some(value.to_vec()),
        });
        // The kernel lists it without this flag, and does not accept it without.
        message.retype(NHA_ENCAP, NHA_ENCAP | NLA_F_NESTED);
        message.done()
    }
}
