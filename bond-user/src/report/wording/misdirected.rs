//! Sentences about frames for the bond that arrived on backups.

use std::{collections::BTreeSet, fmt};

use bond_common::mac::Mac;

/// An address whose frames arrived on a backup, for `show` and the log.
#[derive(Clone, Copy, Debug)]
pub struct MisdirectedAddress<'a> {
    /// The backup; None if it has left.
    pub slave: Option<&'a str>,
    /// The address.
    pub mac: Mac,
    /// VLAN identifiers; 0: without a tag.
    pub vlans: &'a BTreeSet<u16>,
}

/// What happened while no agent ran.
#[derive(Clone, Copy, Debug)]
pub struct MissedFrames {
    /// How often the frames began to arrive.
    pub times: u32,
    /// The number of such frames since the slave was enslaved.
    pub frames: u64,
}

impl fmt::Display for MisdirectedAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than so many VLANs are counted.
        const LISTED: usize = 8;
        write!(f, "{}", self.mac)?;
        let tagged: Vec<_> = self.vlans.iter().filter(|vlan| **vlan != 0).collect();
        let (listed, others) = tagged.split_at(tagged.len().min(LISTED));
        let listed: Vec<_> = listed.iter().map(ToString::to_string).collect();
        let untagged = if self.vlans.contains(&0) && !listed.is_empty() { " without a tag and" } else { "" };
        match (listed.len(), others.len()) {
            (0, _) => Ok(()),
            (1, 0) => write!(f, "{untagged} in VLAN {}", listed.concat()),
            (_, 0) => write!(f, "{untagged} in VLANs {}", listed.join(", ")),
            (_, others) => write!(f, "{untagged} in VLANs {} and {others} more", listed.join(", ")),
        }
    }
}

/// Returns the text about frames for the bond that arrived on a backup, after which the address was announced.
pub fn misdirected(address: &MisdirectedAddress<'_>, missed: Option<MissedFrames>) -> String {
    let slave = address.slave.unwrap_or(LEFT);
    let wrong = "a switch had this address on the wrong port";
    match missed {
        None => format!("{slave}: a backup received frames for {address}: {wrong}; it was announced at once"),
        Some(MissedFrames { times, frames }) => format!(
            "{slave}: while no agent ran, a backup began to receive frames for {address} {}: {wrong}; the clock announced \
             it each time; {frames} such frames since {slave} was enslaved",
            if times == 1 { "once".to_owned() } else { format!("{times} times") }
        ),
    }
}

/// Returns the warning about frames for the bond that keep arriving on a backup, for `show` and the log.
pub fn flooded(address: &MisdirectedAddress<'_>, missed: Option<MissedFrames>) -> String {
    let slave = address.slave.unwrap_or(LEFT);
    let what = "in spite of announcements: a switch sends them to all ports";
    match missed {
        None => format!(
            "{slave}: a backup keeps receiving frames for {address} {what}; nothing more is announced for a minute"
        ),
        Some(MissedFrames { frames, .. }) => format!(
            "{slave}: while no agent ran, a backup kept receiving frames for {address} {what}; {frames} such frames since \
             {slave} was enslaved"
        ),
    }
}

/// A slave that the bond had then.
const LEFT: &str = "a slave that left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_with_its_vlans() {
        let mac = Mac::new([2, 0, 0, 0, 0, 9]);
        for (vlans, expected) in [
            (vec![0], ""),
            (vec![5], " in VLAN 5"),
            (vec![0, 5], " without a tag and in VLAN 5"),
            (vec![7, 5], " in VLANs 5, 7"),
            ((1..=8).collect(), " in VLANs 1, 2, 3, 4, 5, 6, 7, 8"),
            ((0..=300).collect(), " without a tag and in VLANs 1, 2, 3, 4, 5, 6, 7, 8 and 292 more"),
        ] {
            let vlans = BTreeSet::from_iter(vlans);
            let address = MisdirectedAddress { slave: None, mac, vlans: &vlans };
            assert_eq!(address.to_string(), format!("{mac}{expected}"));
        }
    }

    #[test]
    fn what_was_missed_is_said_with_its_count() {
        let vlans = BTreeSet::from([0]);
        let address = MisdirectedAddress { slave: Some("s1"), mac: Mac::BROADCAST, vlans: &vlans };
        let missed = Some(MissedFrames { times: 3, frames: 40 });
        for text in [misdirected(&address, missed), flooded(&address, missed)] {
            assert!(text.starts_with("s1: while no agent ran, a backup "), "{text}");
            assert!(text.contains("ff:ff:ff:ff:ff:ff") && text.contains("40 such frames"), "{text}");
        }
        assert!(
            misdirected(&address, missed).contains(" 3 times: a switch had this address on the wrong port")
        );
    }
}
