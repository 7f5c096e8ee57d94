//! The sentences about bonds without an agent, and about bonds that an agent is to have and does not have.

use bond_common::mac::Mac;
use bond_core::name::{BondName, shell_word};

use crate::report::unrecorded::Unrecorded;

/// The parts of the data plane that fail over without an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailsOver {
    /// Whether the carrier guard is on.
    pub guard: bool,
    /// Whether the clock runs.
    pub clock: bool,
}

/// Returns the warning about a bond without an active slave. `up` are the slaves with a link.
pub fn no_active_slave(bond: &str, up: &[&str], by_itself: FailsOver) -> String {
    if by_itself.clock && up.is_empty() {
        return format!("{bond}: no active slave, and no slave has a link; the first that returns is used");
    }
    let has_link = match up[..] {
        [] => "and no slave has a link".to_owned(),
        [one] => format!("although {one} has a link"),
        _ => format!("although {} have links", up.join(", ")),
    };
    format!("{bond}: no active slave, {has_link}: it carries nothing until an agent runs")
}

/// Returns the warning about a bond that has no clock. `guard`: its carrier guard fails over.
pub fn clock_off(bond: &BondName, guard: bool) -> String {
    if guard {
        format!("{bond}: its clock is off: while it sends nothing, it does not fail over until an agent runs")
    } else {
        format!("{bond}: its clock and its carrier guard are off: it does not fail over until an agent runs")
    }
}

/// Returns the warning about an active slave without a link. `is_last`: no other slave has one.
pub fn dead_active_slave(bond: &str, active: &str, is_last: bool, by_itself: FailsOver) -> String {
    let dead = format!("{bond}: its active slave {active} has no link");
    if is_last {
        format!("{dead}, and no other has one; its carrier stays as it is while no agent runs")
    } else if by_itself.clock {
        format!("{dead}: the clock moves it to another")
    } else if by_itself.guard {
        format!("{dead}: the next packet that is sent moves it to another")
    } else {
        format!("{dead}, and the carrier guard is off: it carries nothing until an agent runs")
    }
}

/// Returns the sentence about failovers without a receipt. `lives`: there is an agent, which does not answer.
pub fn unrecorded_failovers(bond: &BondName, unrecorded: Unrecorded, lives: bool) -> String {
    let Unrecorded { failovers, or_more } = unrecorded;
    let number = match (failovers, or_more) {
        (1, false) => "1 failover".to_owned(),
        (failovers, false) => format!("{failovers} failovers"),
        (failovers, true) => format!("{failovers} failovers or more"),
    };
    if lives {
        format!(
            "{bond}: {number} not listed yet: the agent records what happened without it when it continues"
        )
    } else {
        format!(
            "{bond}: {number} since its agent ended, not listed yet: the next agent records what happened without one"
        )
    }
}

/// Returns the warning about a bond whose found.json cannot be used, for this reason; None if it is missing.
pub fn unadoptable(bond: &BondName, fault: Option<&str>) -> String {
    format!(
        "{bond}: {}: no agent adopts it, and `xbond down {} --force` removes it without restoring its slaves, and prints the \
         commands for that",
        fault.unwrap_or("its found.json is gone"),
        shell_word(bond)
    )
}

/// Returns the warning about a bond without its port.
pub fn without_port(bond: &BondName) -> String {
    format!("{bond}: its port is gone: it carries nothing; xbond down {} --force", shell_word(bond))
}

/// Returns the warning about a pin that is gone.
pub fn pin_lost(bond: &BondName, pin: &str) -> String {
    format!(
        "{bond}: the pin {pin} is gone, and its program with it: see xbond down {} --force",
        shell_word(bond)
    )
}

/// Returns the warning about another MAC address on bond0 than its frames have.
pub fn host_mac_changed(bond: &BondName, mac: Mac, of_frames: Mac) -> String {
    format!(
        "{bond}: its MAC was changed externally to {mac}; its frames have {of_frames} until an agent runs"
    )
}

/// Returns the warning about a slave whose interface is gone.
pub fn slave_missing(name: &str) -> String {
    format!("{name}: the interface is gone")
}

/// Returns a name for an interface that has none any more.
pub fn nameless(ifindex: u32) -> String {
    format!("ifindex {ifindex}")
}

/// The warning about a bond without its pins.
pub const PINS_GONE: &str = "its pins are gone (bpffs unmounted?): the bond carries packets, but ends with this agent, and takes no \
                             further slaves; to create it again: xbond down, then xbond reload or xbond add";

/// Returns the warning about an address for metrics that the agent cannot have.
pub fn metrics_missing(why: &str) -> String {
    format!("metrics are not served: {why}; the agent keeps trying")
}

/// Returns the warning about a group of writers that does not exist.
pub fn writers_missing(why: &str) -> String {
    format!("only root may change bonds: {why}; the agent keeps trying")
}

/// Returns the sentence about a bond of a file that could not be brought up.
pub fn not_brought_up(bond: &BondName, origin: impl std::fmt::Display, why: Option<&str>) -> String {
    format!(
        "{bond} ({origin}): not brought up: {}; the agent tries again now and then, and `xbond reload` does at once",
        why.unwrap_or("unknown")
    )
}

/// Returns the sentence about a bond that was deleted with its network namespace. `why` it could not be recreated.
pub fn gone_with_namespace(bond: &BondName, why: Option<&str>) -> String {
    let gone = format!("{bond}: its device was deleted with its network namespace");
    match why {
        Some(why) => format!("{gone}; the agent cannot recreate it yet, and keeps trying: {why}"),
        None => format!("{gone}; the agent recreates it"),
    }
}

/// Returns the sentence about a bond whose device was deleted.
pub fn deleted(bond: &BondName, remedy: &str) -> String {
    format!("{bond}: its device was deleted, and the bond with it; {remedy}")
}

/// Returns the sentence about a bond whose trial has ended.
pub fn not_confirmed(bond: &BondName, seconds: u64, remedy: &str) -> String {
    format!("{bond}: not confirmed within {seconds} s: it was removed; {remedy}")
}

/// Returns the warning about an abstract socket of another user, or one whose owner is unknown.
pub fn foreign_socket(name: &str, user: Option<(u32, &str)>) -> String {
    let whose = match user {
        Some((user, pid)) => format!("is used by user {user}{pid}"),
        None => "is used, and does not answer".to_owned(),
    };
    format!("the socket @{name} {whose}: an agent whose directories are removed is not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failovers_without_a_receipt_are_counted() {
        let bond = BondName::new("bond0").unwrap();
        let said =
            |failovers, or_more, lives| unrecorded_failovers(&bond, Unrecorded { failovers, or_more }, lives);
        assert!(said(1, false, false).starts_with("bond0: 1 failover since its agent ended,"));
        assert!(said(2, false, false).starts_with("bond0: 2 failovers since its agent ended,"));
        assert!(said(8, true, true).starts_with("bond0: 8 failovers or more not listed yet: the agent"));
    }
}
