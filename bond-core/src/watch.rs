//! `watch`: what a slave needs to count as up.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::name::shortened;

/// A sign of life of a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Its link is up.
    Carrier,
    /// The path monitor has not found its path silent.
    Path,
    /// Answers of the ARP monitor's IPv4 targets.
    Arp,
    /// Answers of its IPv6 targets.
    Ns,
}

impl Sign {
    /// All signs, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::Carrier, Self::Path, Self::Arp, Self::Ns];

    /// Returns the word of a configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Carrier => "carrier",
            Self::Path => "path",
            Self::Arp => "arp",
            Self::Ns => "ns",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How many of the signs a slave needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Each of them.
    All,
    /// One of them.
    Any,
}

impl Needs {
    /// Returns the key of a configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
        }
    }
}

/// The signs that a slave needs to count as up.
///
/// A slave without a link neither sends nor receives, so each other sign includes its link. Therefore any of several signs, if
/// the link is one of them, means the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    needs: Needs,
    /// [`Sign::bit`] of each; at least one.
    signs: u8,
}

impl Watch {
    /// The keys of a table of a configuration.
    pub const KEYS: [&'static str; 2] = [Needs::All.key(), Needs::Any.key()];

    /// Returns whether it names a sign.
    pub const fn names(self, sign: Sign) -> bool {
        self.signs & sign.bit() != 0
    }

    /// Returns how many of the signs it wants.
    pub const fn needs(self) -> Needs {
        self.needs
    }

    /// Returns whether it is one of several signs, of which the link is enough.
    pub const fn is_link_enough(self) -> bool {
        matches!(self.needs, Needs::Any) && self.names(Sign::Carrier)
    }

    /// Returns whether answers to the ARP monitor's probes count.
    pub const fn is_probed(self) -> bool {
        (self.names(Sign::Arp) || self.names(Sign::Ns)) && !self.is_link_enough()
    }

    /// Returns whether a slave is down as soon as it has no link, also under ARP monitoring.
    pub const fn needs_link(self) -> bool {
        self.names(Sign::Carrier) || self.names(Sign::Path)
    }

    /// Returns whether a slave is down as soon as its path has failed.
    pub const fn needs_path(self) -> bool {
        self.names(Sign::Path) && !self.is_link_enough()
    }

    /// Returns the names of its signs.
    pub fn signs(self) -> impl Iterator<Item = Sign> {
        Sign::ALL.into_iter().filter(move |sign| self.names(*sign))
    }
}

/// Parses `all=carrier,path`, `any=arp,ns`, or one sign.
impl FromStr for Watch {
    type Err = BadWatch;

    fn from_str(text: &str) -> Result<Self, BadWatch> {
        let text = text.trim();
        let (needs, list) = match text.split_once('=') {
            None => (Needs::All, text),
            Some((key, list)) => match key.trim() {
                "all" => (Needs::All, list),
                "any" => (Needs::Any, list),
                _ => return Err(BadWatch::Key { key: key.trim().to_owned() }),
            },
        };
        if !text.contains('=') && list.contains(',') {
            return Err(BadWatch::NoKey);
        }
        let mut signs = 0;
        for word in list.split(',').map(str::trim) {
            let sign = Sign::ALL.into_iter().find(|sign| sign.word() == word);
            let sign = sign.ok_or_else(|| BadWatch::Sign { word: word.to_owned() })?;
            if signs & sign.bit() != 0 {
                return Err(BadWatch::Twice { word: sign.word() });
            }
            signs |= sign.bit();
        }
        // Of a single sign there is nothing to choose.
        let needs = if signs.count_ones() == 1 { Needs::All } else { needs };
        Ok(Self { needs, signs })
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signs = self.signs().map(Sign::word).collect::<Vec<_>>().join(",");
        write!(f, "{}={signs}", self.needs.key())
    }
}

impl Serialize for Watch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is no [`Watch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWatch {
    /// It is neither all nor any.
    #[error("{:?}: neither all nor any", shortened(.key))]
    Key {
        /// What was found.
        key: String,
    },
    /// Several signs without all or any.
    #[error("several signs need all or any, as all=carrier,path")]
    NoKey,
    /// It is no sign.
    #[error("{:?}: not carrier, path, arp or ns", shortened(.word))]
    Sign {
        /// What was found.
        word: String,
    },
    /// A sign is there twice.
    #[error("{word} is given twice")]
    Twice {
        /// The sign.
        word: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_parsed_and_written() {
        for (text, expected) in [
            ("carrier", Ok("all=carrier")),
            ("any=path", Ok("all=path")),
            ("all=path,carrier", Ok("all=carrier,path")),
            (" any = arp , ns ", Ok("any=arp,ns")),
            ("", Err(BadWatch::Sign { word: String::new() })),
            ("all=", Err(BadWatch::Sign { word: String::new() })),
            ("all=carrier,", Err(BadWatch::Sign { word: String::new() })),
            ("all=link", Err(BadWatch::Sign { word: "link".to_owned() })),
            ("carrier,path", Err(BadWatch::NoKey)),
            ("some=carrier", Err(BadWatch::Key { key: "some".to_owned() })),
            ("all=arp,arp", Err(BadWatch::Twice { word: "arp" })),
        ] {
            let parsed = text.parse().map(|watch: Watch| watch.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn what_a_slave_needs_follows_from_the_signs() {
        // text, needs its link, needs its path, is probed
        for (text, link, path, probed) in [
            ("carrier", true, false, false),
            ("path", true, true, false),
            ("all=carrier,path", true, true, false),
            ("any=carrier,path", true, false, false),
            ("any=carrier,arp", true, false, false),
            ("all=carrier,arp", true, false, true),
            ("arp", false, false, true),
            ("all=arp,ns", false, false, true),
            ("any=arp,ns", false, false, true),
            ("all=carrier,path,arp,ns", true, true, true),
        ] {
            let watch: Watch = text.parse().unwrap();
            assert_eq!(
                (watch.needs_link(), watch.needs_path(), watch.is_probed()),
                (link, path, probed),
                "{text}"
            );
        }
    }
}
