//! Determines the bond of an interface from the kernel's state.
//!
//! A file's claim is believed only if the kernel confirms it: the interface has the alias of the bond (IFLA_IFALIAS
//! `xbond:bond0`), which it keeps in other network namespaces and without bpffs, or a program of the bond is attached
//! to it. A pair that was just created has no alias yet; it is in a group of interfaces ([`UNFINISHED_PAIR`]) from
//! the message on that created it.

use std::collections::BTreeSet;

use super::{
    Devices,
    alias::{Mark, UNFINISHED_PAIR},
    dataplane::Pinned,
    netlink::LinkInfo,
};

impl Mark {
    /// Returns whether a link has the mark.
    pub fn is_on(&self, link: &LinkInfo) -> bool {
        link.alias.as_ref() == Some(self.alias())
    }
}

/// The evidence by which the kernel confirms that interfaces belong to a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    mark: Mark,
    /// ifindexes, in this network namespace, of interfaces that have a program of the bond, or that this process
    /// itself gave to the bond.
    known: BTreeSet<u32>,
}

impl Ownership {
    /// Returns the proof by a mark, and by the interfaces that are known to be the bond's.
    pub fn new(mark: Mark, known: impl IntoIterator<Item = u32>) -> Self {
        Self { mark, known: known.into_iter().collect() }
    }

    /// Returns the mark.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Returns whether an interface belongs to the bond.
    pub fn holds(&self, link: &LinkInfo) -> bool {
        self.mark.is_on(link) || self.known.contains(&link.ifindex)
    }

    /// Returns whether an end of a pair belongs to the bond: evidence for its other end, if that is in this network
    /// namespace, counts for both.
    pub fn holds_of_pair(&self, end: &LinkInfo, other: Option<&LinkInfo>) -> bool {
        let is_other = |other: &&LinkInfo| {
            end.link == Some(other.ifindex) && end.link_netns.is_none() && other.link == Some(end.ifindex)
        };
        let other = other.filter(is_other);
        let are_unfinished = || {
            let is_unfinished = |link: &LinkInfo| link.group == UNFINISHED_PAIR;
            is_unfinished(end) && other.is_some_and(|other| is_unfinished(other) || self.holds(other))
        };
        self.holds(end) || other.is_some_and(|other| self.holds(other)) || are_unfinished()
    }
}

impl dyn Devices + '_ {
    /// Asks the kernel which interfaces are a bond's. `candidates` are asked for programs where those are filters.
    pub async fn prove(&self, mark: Mark, pinned: &Pinned, candidates: &[u32]) -> Ownership {
        let mut known = BTreeSet::new();
        for link in pinned.links.iter().filter(|link| link.ifindex != 0) {
            let is_there =
                link.stays_in_namespace() || link.is_xdp() && self.runs_xdp(link.ifindex, link.program).await;
            known.extend(is_there.then_some(link.ifindex));
        }
        for &ifindex in candidates.iter().filter(|_| !pinned.programs.is_empty()) {
            let programs = self.ingress_programs(ifindex).await.unwrap_or_default();
            known.extend(programs.iter().any(|program| pinned.programs.contains(program)).then_some(ifindex));
        }
        Ownership { mark, known }
    }

    /// Returns whether an XDP program runs on the interface: the ifindex of its link may belong to another network
    /// namespace by now.
    async fn runs_xdp(&self, ifindex: u32, program: u32) -> bool {
        let link = self.link_by_index(ifindex).await;
        link.is_ok_and(|link| link.xdp.is_some_and(|xdp| xdp.program == program))
    }
}

#[cfg(test)]
mod tests {
    use bond_core::name::BondName;

    use super::*;
    use crate::sys::{alias::Alias, testing};

    fn mark(bond: &str) -> Mark {
        Mark::of(&BondName::new(bond).unwrap())
    }

    fn link(ifindex: u32, alias: &str) -> LinkInfo {
        LinkInfo { alias: Alias::new(alias), ..testing::link(ifindex, "eth0") }
    }

    #[test]
    fn an_interface_is_a_bonds_by_its_alias_or_its_program() {
        let proof = Ownership::new(mark("bond0"), [7]);
        let table = [
            (link(3, "xbond:bond0"), true),
            (link(3, "xbond:bond01"), false),
            (link(3, "xbond:bond"), false),
            (link(3, "XBOND:bond0"), false),
            (link(3, "bond0"), false),
            (link(3, ""), false),
            (link(7, ""), true),
            (link(7, "uplink to sw1"), true),
            (link(7, "xbond:bond1"), true),
        ];
        for (link, expected) in table {
            assert_eq!(proof.holds(&link), expected, "{link:?}");
        }
    }

    #[test]
    fn one_end_of_a_pair_confirms_both() {
        let proof = Ownership::new(mark("bond0"), []);
        let end = |ifindex: u32, peer: u32, alias: &str, group: u32| LinkInfo {
            link: Some(peer),
            group,
            ..link(ifindex, alias)
        };
        let table = [
            ("ours", end(3, 4, "xbond:bond0", 0), end(4, 3, "", 0), true),
            ("by the other end", end(3, 4, "", 0), end(4, 3, "xbond:bond0", 0), true),
            ("not the other end", end(3, 5, "", 0), end(4, 3, "xbond:bond0", 0), false),
            ("the other end of another one", end(3, 4, "", 0), end(4, 5, "xbond:bond0", 0), false),
            ("a stranger's", end(3, 4, "", 0), end(4, 3, "", 0), false),
            ("just made", end(3, 4, "", UNFINISHED_PAIR), end(4, 3, "", UNFINISHED_PAIR), true),
            ("made by half", end(3, 4, "", UNFINISHED_PAIR), end(4, 3, "xbond:bond0", 0), true),
            ("one in the group", end(3, 4, "", UNFINISHED_PAIR), end(4, 3, "", 0), false),
        ];
        for (what, one, other, expected) in table {
            assert_eq!(proof.holds_of_pair(&one, Some(&other)), expected, "{what}");
        }
        let elsewhere = LinkInfo { link_netns: Some(1), ..end(3, 4, "", 0) };
        assert!(!proof.holds_of_pair(&elsewhere, Some(&end(4, 3, "xbond:bond0", 0))));
        assert!(!proof.holds_of_pair(&end(3, 4, "", UNFINISHED_PAIR), None));
    }

    #[test]
    fn aliases_of_any_bytes_are_kept() {
        for bytes in [&b"uplink to sw1"[..], "Büro".as_bytes(), b"\xff\xfe", b" ", b"\"\n\0"] {
            let alias = Alias::new(bytes).unwrap();
            let text = serde_json::to_string(&alias).unwrap();
            assert_eq!(serde_json::from_str::<Alias>(&text).unwrap(), alias, "{text}");
        }
        assert_eq!(Alias::new(""), None);
    }
}
