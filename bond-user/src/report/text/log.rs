//! The text of `xbond log`, and of a receipt in `xbond show`.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use bond_core::command::{Chosen, Reason, Trigger};

use super::columns::{short, took, wrap, wrap_below};
use crate::report::{
    receipt::{Receipt, Steps},
    wording::{announced, is_arp, peers, silent_path, unrecorded, why},
};

fn seen_by(seen: Trigger) -> &'static str {
    match seen {
        Trigger::LinkEvent => "a link event",
        Trigger::Miimon => "miimon",
        Trigger::Delay => "the end of updelay or downdelay",
        Trigger::ArpMonitor => "the ARP monitor",
        Trigger::Request => "a request",
        Trigger::SlaveJoined => "a slave that joined",
        Trigger::SlaveLeft => "a slave that left",
        Trigger::Guard => "the carrier guard",
        Trigger::Tick => "a tick of the clock",
        Trigger::ArpTick => "the ARP monitor in the kernel",
        Trigger::Path => "the path monitor in the kernel",
    }
}

fn because(chosen: Chosen) -> &'static str {
    match chosen {
        Chosen::Primary => "the primary",
        Chosen::Prio => "the highest prio that is up",
        Chosen::FirstEnslaved => "the first in enslave order that is up",
        Chosen::OnlyOneUp => "the only one that is up",
        Chosen::Better => "faster, as primary_reselect=better asks",
        Chosen::UsedEarly => "used early: nothing was up, it has the least updelay left",
        Chosen::Kept => "kept: nothing was better",
        Chosen::Administrator => "named by the administrator",
        Chosen::Guard => "the data plane's first that had a link",
    }
}

/// Returns the reasons with a count of dropped packets.
pub(super) fn reasons(drops: &BTreeMap<String, u64>) -> String {
    let some = drops.iter().filter(|(_, count)| **count > 0);
    let some: Vec<_> = some.map(|(reason, count)| format!("{reason} {count}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

/// Prints the receipts, the oldest first: a line each, and with `details` all of their fields.
pub fn log(receipts: &[Receipt], details: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = show_log(&mut text, receipts, details);
    text
}

fn show_log(text: &mut String, receipts: &[Receipt], details: bool) -> fmt::Result {
    if receipts.is_empty() {
        return writeln!(text, "no failover yet");
    }
    if !details {
        writeln!(text, "{:<21}{:<16}{:<16}{:>9} WHY", "TIME (UTC)", "FROM", "TO", "SWITCHED")?;
    }
    for receipt in receipts {
        let time = receipt.switched.time.as_str();
        if details {
            wrap_below(text, "", "    ", &format!("{time} {}", change(receipt)))?;
            show_receipt(text, "  ", receipt)?;
            continue;
        }
        let seconds = time.get(..19).unwrap_or(time).replace('T', " ");
        let [from, to] = [&receipt.from, &receipt.to].map(|slave| slave.as_deref().unwrap_or("none"));
        let took = switched_in(receipt);
        writeln!(text, "{seconds:<21}{from:<16}{to:<16}{took:>9} {}", briefly(receipt.reason, receipt.seen))?;
    }
    Ok(())
}

/// Returns how long the agent took, in 9 columns.
pub(super) fn switched_in(receipt: &Receipt) -> String {
    match receipt.seen {
        Trigger::Guard | Trigger::Tick | Trigger::ArpTick => "in kernel".to_owned(),
        Trigger::Path if receipt.reason == Reason::Path => "in kernel".to_owned(),
        _ => short(receipt.duration()),
    }
}

/// Returns [`why`], in 16 columns.
pub(super) fn briefly(reason: Reason, seen: Trigger) -> &'static str {
    match reason {
        Reason::LinkFailed if is_arp(seen) => "no probe answer",
        Reason::LinkRecovered if is_arp(seen) => "answers again",
        Reason::LinkFailed => "link failed",
        Reason::CarrierGuard => "carrier guard",
        Reason::LinkRecovered => "link came back",
        Reason::Left => "slave left",
        Reason::Joined => "slave joined",
        Reason::Requested => "requested",
        Reason::OptionChanged => "option changed",
        Reason::Drained => "drained",
        Reason::Undrained => "drain ended",
        Reason::DampingEnded => "stable again",
        Reason::Path => "path silent",
        Reason::PathRecovered => "path answers",
    }
}

/// Returns a sentence without its full stop.
pub(super) fn change(receipt: &Receipt) -> String {
    let to = receipt.to.as_deref().unwrap_or("none");
    let why = why(receipt.reason, receipt.seen);
    match (&receipt.from, receipt.reason) {
        // It is not known which slave it was.
        (None, Reason::CarrierGuard) => format!("{to}, {why}"),
        (from, _) => format!("{to} instead of {}, {why}", from.as_deref().unwrap_or("none")),
    }
}

pub(super) fn show_receipt(text: &mut String, indent: &str, receipt: &Receipt) -> fmt::Result {
    let mut seen = format!("seen by {}", seen_by(receipt.seen));
    if let Some(chosen) = receipt.chosen {
        write!(seen, "; chosen: {}", because(chosen))?;
    }
    wrap(text, indent, &seen)?;
    let Steps { detect_us, decide_us, switch_us, heard_us, macs_us, announce_us } = receipt.steps;
    match (receipt.seen, heard_us) {
        (Trigger::Guard | Trigger::Tick | Trigger::ArpTick | Trigger::Path, Some(heard)) => {
            writeln!(text, "{indent}switched in the kernel; the agent was notified +{}", took(heard))?;
        }
        (Trigger::Guard | Trigger::Tick | Trigger::ArpTick, None) => {
            writeln!(text, "{indent}switched in the kernel")?
        }
        _ => {
            let [detect, decide, switch] = [detect_us, decide_us, switch_us].map(took);
            writeln!(text, "{indent}detect {detect}, decide {decide}, switch {switch}")?;
        }
    }
    if let Some(path) = &receipt.path {
        wrap(text, indent, &silent_path(path))?;
    }
    let announced = receipt.announced.as_ref().map_or_else(|| "announced".to_owned(), announced);
    let after = [("MACs", macs_us), (&announced, announce_us)];
    let after: Vec<_> =
        after.into_iter().filter_map(|(what, done)| Some(format!("{what} +{}", took(done?)))).collect();
    if !after.is_empty() {
        wrap(text, indent, &format!("after the switch: {}", after.join(", ")))?;
    }
    if receipt.announced.is_some() && announce_us.is_none() {
        wrap(text, indent, &announced)?;
    }
    if let Some(found) = &receipt.peers {
        wrap(text, indent, &peers(found))?;
    }
    let dropped = match &receipt.drops {
        None => "not known".to_owned(),
        Some(drops) => reasons(drops),
    };
    wrap(
        text,
        indent,
        &format!("dropped during the failover: {dropped}; generation {}", receipt.generation),
    )?;
    if receipt.unrecorded > 0 {
        wrap(text, indent, &format!("just before it: {}", unrecorded(receipt.unrecorded)))?;
    }
    Ok(())
}
