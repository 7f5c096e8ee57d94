//! Messages as text: as `ip` prints them for logs, in hexadecimal for records.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    FRA_IIFNAME, FRA_OIFNAME, Message, MessageKind, NDA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID,
    RTA_PRIORITY, RTA_SRC, RTA_VIA, ip_of, route::next_hops,
};

impl Message {
    /// Formats it for a log or an error, as `ip` prints it.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            MessageKind::Address => match self.local() {
                Some(ip) => write!(f, "{ip}/{}", self.byte(1)),
                None => f.write_str("address"),
            },
            MessageKind::Route => self.describe_route(f),
            MessageKind::Neighbour => match self.ip(NDA_DST) {
                Some(ip) if self.neighbour_key().2 != 0 => write!(f, "proxy {ip}"),
                Some(ip) => write!(f, "{ip}"),
                None => f.write_str("neighbour"),
            },
            MessageKind::Rule => {
                write!(f, "{}:", self.rule_priority())?;
                for (word, kind) in [("iif", FRA_IIFNAME), ("oif", FRA_OIFNAME)] {
                    if let Some(name) = self.name(kind) {
                        write!(f, " {word} {name}")?;
                    }
                }
                Ok(())
            }
            MessageKind::NextHop => write!(f, "nexthop id {}", self.next_hop_id()),
        }
    }

    fn describe_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TYPES: [&str; 12] = [
            "",
            "",
            "local ",
            "broadcast ",
            "anycast ",
            "multicast ",
            "blackhole ",
            "unreachable ",
            "prohibit ",
            "throw ",
            "nat ",
            "",
        ];
        f.write_str(TYPES.get(usize::from(self.route_type())).unwrap_or(&""))?;
        if let Some(label) = self.mpls_label() {
            return write!(f, "{label}");
        }
        match (self.destination(), self.byte(1)) {
            (_, 0) => f.write_str("default")?,
            (Some(ip), bits) => write!(f, "{ip}/{bits}")?,
            (None, bits) => write!(f, "?/{bits}")?,
        }
        if let Some(source) = self.ip(RTA_SRC) {
            write!(f, " from {source}/{}", self.byte(2))?;
        }
        if self.byte(3) != 0 {
            write!(f, " tos {:#04x}", self.byte(3))?;
        }
        if let Some(id) = self.number(RTA_NH_ID) {
            write!(f, " nhid {id}")?;
        } else if let Some(via) = self.ip(RTA_GATEWAY) {
            write!(f, " via {via}")?;
        } else if let Some(via) = self.attribute(RTA_VIA).and_then(|via| ip_of(via.get(2..)?)) {
            write!(f, " via inet6 {via}")?;
        } else if let Some(hops) = self.attribute(RTA_MULTIPATH) {
            write!(f, " by {} nexthops", next_hops(hops).count())?;
        }
        if let Some(metric) = self.number(RTA_PRIORITY) {
            write!(f, " metric {metric}")?;
        }
        const RT_TABLE_MAIN: u32 = 254;
        match self.table() {
            RT_TABLE_MAIN => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

/// Serializes as `route 0218fe02...`: the kind, and the bytes in hexadecimal.
impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write as _;
        let mut text = format!("{} ", self.kind.name());
        text.reserve(2 * self.body.len());
        for byte in &self.body {
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let message = || {
            let (kind, digits) = text.split_once(' ')?;
            let kind = MessageKind::ALL.into_iter().find(|known| known.name() == kind)?;
            let digits = digits.as_bytes();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let body: Option<Vec<_>> = digits.chunks(2).map(byte).collect();
            (digits.len() % 2 == 0).then_some(())?;
            Self::checked(kind, body?)
        };
        message().ok_or_else(|| D::Error::custom(format!("{text:?}: no message of the kernel's")))
    }
}
