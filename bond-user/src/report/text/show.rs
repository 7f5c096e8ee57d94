//! The text of `xbond show`.

use std::fmt::{self, Write as _};

use bond_core::command::Reason;

use super::{
    columns::{age, count, wrap, wrap_below},
    log::{change, reasons, show_receipt},
};
use crate::report::{
    json::{AnswerSource, Bond, Counters, Device, OriginalState, Report, Slave, Ticks},
    moment::Moment,
    path::PathStatus,
    receipt::Receipt,
    wording::{self, ORPHANED},
};

/// How much `xbond show` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// All settings and known values.
    pub details: bool,
    /// The counters of xbond and of the kernel.
    pub statistics: bool,
}

/// Prints the bonds, one after the other.
pub fn show(report: &Report, amount: Amount) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = show_report(&mut text, report, amount);
    text
}

fn show_report(text: &mut String, report: &Report, amount: Amount) -> fmt::Result {
    let is_empty = report.bonds.is_empty() && report.notes.is_empty();
    if report.source == AnswerSource::Maps {
        match &report.no_answer {
            None if is_empty => writeln!(text, "{NO_BONDS_NO_AGENT}")?,
            None => writeln!(text, "no agent: from the pinned maps")?,
            Some(fact) => writeln!(text, "{fact}: from the pinned maps")?,
        }
        if is_empty && report.no_answer.is_some() {
            writeln!(text, "no bonds")?;
        }
    } else if report.bonds.is_empty() && report.orphaned.is_empty() && report.gone.is_empty() {
        writeln!(text, "{}", wording::NO_BONDS)?;
    }
    for (number, bond) in report.bonds.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        show_bond(text, bond, report, amount)?;
    }
    report.gone.iter().try_for_each(|sentence| writeln!(text, "! {sentence}"))?;
    report.orphaned.iter().try_for_each(|name| writeln!(text, "! {name}: {ORPHANED}"))?;
    report.missing.iter().try_for_each(|sentence| writeln!(text, "! {sentence}"))?;
    if amount.statistics
        && let Some(softnet) = &report.softnet
    {
        writeln!(
            text,
            "  softnet, all CPUs: dropped {}, time_squeeze {}",
            softnet.dropped, softnet.time_squeeze
        )?;
    }
    if amount.details
        && let Some(agent) = &report.agent
    {
        let age = age(agent.started.until(&report.moment));
        writeln!(
            text,
            "agent {}, pid {}, started {age} ago ({})",
            agent.version, agent.pid, agent.started.time
        )?;
    }
    // Without an agent, the notes concern bonds that cannot be read.
    if amount.statistics || amount.details || report.source == AnswerSource::Maps {
        report.notes.iter().try_for_each(|note| writeln!(text, "! {note}"))?;
    }
    Ok(())
}

/// The answer where nothing is.
const NO_BONDS_NO_AGENT: &str =
    "no bonds, and no agent runs in this network namespace; start one with `xbond run`";

/// Options that are shown even with their default values.
const ALWAYS_SHOWN: [&str; 2] = ["fail_over_mac", "miimon"];

fn show_bond(text: &mut String, bond: &Bond, report: &Report, amount: Amount) -> fmt::Result {
    let carrier = if bond.carrier { "up" } else { "DOWN" };
    let active = bond.active_slave.as_deref().unwrap_or("none");
    writeln!(text, "{}: active slave {active}, carrier {carrier}, mac {}", bond.name, bond.mac)?;
    let mut options = format!("datapath={} port={}", bond.datapath, bond.port);
    if amount.details {
        show_details(text, bond)?;
        options = "options".to_owned();
    }
    for (name, value) in &bond.options {
        if amount.details || ALWAYS_SHOWN.contains(&name.as_str()) || !is_default(name, value) {
            write!(options, " {name}={}", plain(value))?;
        }
    }
    wrap(text, "  ", &options)?;
    if !(bond.slaves.is_empty() && bond.absent.is_empty()) {
        row(text, ["SLAVE", "STATE", "MII", "MAC", "FAILED", "TX", "RX"])?;
    }
    for slave in &bond.slaves {
        show_slave(text, slave)?;
    }
    for slave in &bond.slaves {
        show_avoided(text, slave, &report.moment)?;
    }
    show_path(text, bond, amount)?;
    show_misdirected(text, bond)?;
    for absent in &bond.absent {
        writeln!(text, "  {absent:<16}absent: it joins when it appears")?;
    }
    // The first active slave of a bond is shown with details only.
    let is_news = |last: &&Receipt| last.from.is_some() || last.reason != Reason::Joined;
    if let Some(last) = bond.last_failover.as_ref().filter(|last| amount.details || is_news(last)) {
        let age = age(last.switched.until(&report.moment));
        wrap_below(text, "  ", "    ", &format!("last failover {age} ago: {}", change(last)))?;
        if amount.details {
            show_receipt(text, "    ", last)?;
        }
    }
    if bond.unrecorded_changes > 0 {
        writeln!(text, "  {}", wording::unrecorded_in_all(bond.unrecorded_changes))?;
    }
    if amount.details {
        bond.slaves.iter().try_for_each(|slave| show_slave_details(text, slave))?;
    }
    if amount.statistics {
        show_statistics(text, bond)?;
    }
    for warning in bond.warnings.iter().chain(bond.slaves.iter().flat_map(|slave| &slave.warnings)) {
        // In one line of any length, as in the log, so that it can be searched for.
        writeln!(text, "  ! {warning}")?;
    }
    Ok(())
}

fn show_slave(text: &mut String, slave: &Slave) -> fmt::Result {
    let failed = slave.link_failure_count.map_or_else(|| "-".to_owned(), |failed| count(failed.into()));
    let [tx, rx] = [slave.counters.tx_packets, slave.counters.rx_packets].map(count);
    row(text, [&slave.name, &slave.state, &slave.mii_status, &slave.mac, &failed, &tx, &rx])
}

/// Prints why a slave is used only while no other is up.
fn show_avoided(text: &mut String, slave: &Slave, now: &Moment) -> fmt::Result {
    if let Some(drained) = &slave.drained {
        wrap_below(text, "  ", "    ", &wording::is_drained(&slave.name, drained))?;
    }
    if slave.damped {
        let damped = wording::is_damped(&slave.name, slave.damping.as_ref(), now);
        wrap_below(text, "  ", "    ", &damped)?;
    }
    Ok(())
}

/// Prints how targets are probed, and the paths that do not work; with details all of them.
fn show_path(text: &mut String, bond: &Bond, amount: Amount) -> fmt::Result {
    let Some(path) = &bond.path else { return Ok(()) };
    if !path.targets.is_empty() {
        wrap_below(text, "  ", "    ", &wording::path_monitor(path))?;
    }
    if path.silent {
        writeln!(text, "  ! {}", wording::PATH_TARGET_SILENT)?;
    }
    for (slave, path) in bond.slaves.iter().filter_map(|slave| Some((slave, slave.path.as_ref()?))) {
        if amount.details || path.state != PathStatus::Works {
            wrap_below(text, "  ", "    ", &wording::slave_path(&slave.name, path))?;
        }
    }
    for suspicion in bond.slaves.iter().filter_map(one_way_suspicion) {
        writeln!(text, "  ! {suspicion}")?;
    }
    match &path.fault {
        Some(fault) => writeln!(text, "  ! {}", wording::path_fault_of_targets(fault)),
        None => Ok(()),
    }
}

fn one_way_suspicion(slave: &Slave) -> Option<String> {
    wording::one_way_suspicion(&slave.name, slave.path.as_ref()?)
}

/// Prints how many frames for the bond backups received, if any.
fn show_misdirected(text: &mut String, bond: &Bond) -> fmt::Result {
    let some = bond.slaves.iter().filter(|slave| slave.counters.misdirected > 0);
    let some: Vec<_> =
        some.map(|slave| format!("{} {}", slave.name, count(slave.counters.misdirected))).collect();
    if some.is_empty() {
        return Ok(());
    }
    let what = "frames for the bond that a switch sent to a backup";
    wrap_below(text, "  ", "    ", &format!("misdirected: {} ({what})", some.join(", ")))
}

/// Prints a row of 80 columns.
fn row(text: &mut String, [name, state, mii, mac, failed, tx, rx]: [&str; 7]) -> fmt::Result {
    writeln!(text, "  {name:<16}{state:<7}{mii:<11}{mac:<18}{failed:>6}{tx:>10}{rx:>10}")
}

fn show_details(text: &mut String, bond: &Bond) -> fmt::Result {
    let unknown = || "unknown".to_owned();
    let bond_ifindex = bond.ifindex.map_or_else(|| "none".to_owned(), |ifindex| ifindex.to_string());
    let mtu = bond.mtu.map_or_else(unknown, |mtu| mtu.to_string());
    let host_mac = bond.host_mac.clone().unwrap_or_else(unknown);
    let stays = if bond.host_mac_stays { " (stays)" } else { "" };
    let on_exit = bond.on_exit.as_deref().map(|on_exit| format!(" on_exit={on_exit}")).unwrap_or_default();
    let port_ifindex = bond.port_ifindex;
    let pair = bond.pair.as_ref().map(|pair| format!(" pair={pair}")).unwrap_or_default();
    let devices = format!(
        "datapath={}{pair} port={} ifindex={bond_ifindex} port_ifindex={port_ifindex} host_mac={host_mac}{stays} \
         mtu={mtu}{on_exit}",
        bond.datapath, bond.port
    );
    wrap(text, "  ", &devices)?;
    let draining = bond.draining_slave.as_deref().unwrap_or("none");
    writeln!(text, "  ACTIVE: generation {}, draining {draining}", bond.generation)?;
    wrap(text, "  ", &format!("carrier guard {}", bond.guard))?;
    wrap(text, "  ", &format!("clock {}", bond.clock))?;
    if let Some(ticks) = bond.ticks.as_ref().filter(|ticks| !ticks.devices.is_empty()) {
        wrap(text, "  ", &ticks_of(ticks))?;
    }
    if let Some(of) = &bond.addresses_of {
        wrap(
            text,
            "  ",
            &format!("has the addresses of {of}, which gets them back when the bond is removed"),
        )?;
    }
    writeln!(text, "  pins {}", bond.pins)?;
    writeln!(text, "  files {}", bond.files)
}

/// Returns the devices of a clock and what it has counted.
fn ticks_of(clock: &Ticks) -> String {
    let Ticks { devices, ticks, late, injected, refused, failovers, unsent, .. } = clock;
    let mut text = format!("{}: {} ticks", devices.join(", "), count(*ticks));
    let counted = [
        (late, "late"),
        (failovers, "failovers"),
        (injected, "re-injected"),
        (refused, "refused"),
        (unsent, "not announced"),
    ];
    for (number, what) in counted.into_iter().filter(|(number, _)| **number > 0) {
        text.push_str(&format!(", {what} {}", count(*number)));
    }
    text
}

fn show_slave_details(text: &mut String, slave: &Slave) -> fmt::Result {
    let speed = slave.speed.map_or_else(|| "unknown".to_owned(), |speed| format!("{speed}Mb/s"));
    let duplex = slave.duplex.as_deref().unwrap_or("unknown");
    let Slave { ifindex, slot, queue_id, wire_mac, permanent_mac, .. } = slave;
    writeln!(text, "  {}:", slave.name)?;
    let mut details = format!("permanent_mac={permanent_mac} wire_mac={wire_mac}");
    write!(details, " ifindex={ifindex} slot={slot} speed={speed} duplex={duplex}")?;
    if let Some(prio) = slave.prio {
        write!(details, " prio={prio}")?;
    }
    write!(details, " queue_id={queue_id}")?;
    wrap(text, "    ", &details)?;
    match &slave.found {
        Some(found) => show_found(text, found),
        None => writeln!(text, "    found: not recorded"),
    }
}

fn show_found(text: &mut String, found: &OriginalState) -> fmt::Result {
    let up = if found.up { "up" } else { "down" };
    let mut words = format!("found {up}, mac {}, mtu {}", found.mac, found.mtu);
    for (what, list) in
        [("addresses", &found.addresses), ("routes", &found.routes), ("offloads", &found.features)]
    {
        if !list.is_empty() {
            write!(words, "; {what} {}", list.join(", "))?;
        }
    }
    wrap(text, "    ", &words)
}

/// Prints the counters of xbond, then those of the kernel.
fn show_statistics(text: &mut String, bond: &Bond) -> fmt::Result {
    counters_row(
        text,
        "COUNTED",
        ["TX", "TX BYTES", "REWRITTEN", "RX", "RX BYTES", "REWRITTEN"].map(str::to_owned),
    )?;
    for slave in &bond.slaves {
        let Counters { tx_packets, tx_bytes, tx_rewritten, rx_packets, rx_bytes, rx_rewritten, .. } =
            slave.counters;
        let numbers = [tx_packets, tx_bytes, tx_rewritten, rx_packets, rx_bytes, rx_rewritten];
        counters_row(text, &slave.name, numbers.map(count))?;
    }
    writeln!(text, "  DROPPED BY XBOND")?;
    let slaves = bond.slaves.iter().map(|slave| (&slave.name, &slave.counters.drops));
    for (name, drops) in slaves.chain([(&bond.port, &bond.drops)]) {
        wrap(text, "  ", &format!("{name:<15} {}", reasons(drops)))?;
    }
    if bond.devices.is_empty() {
        return Ok(());
    }
    let titles = ["RX DROP", "TX DROP", "MISSED", "NOHANDLER", "OTHERHOST", "QDISC"];
    counters_row(text, "DROPPED AROUND", titles.map(str::to_owned))?;
    for device in &bond.devices {
        let Device { rx_dropped, tx_dropped, rx_missed, rx_nohandler, rx_otherhost_dropped, .. } = *device;
        let numbers =
            [rx_dropped, tx_dropped, rx_missed, rx_nohandler, rx_otherhost_dropped, device.qdisc_drops()];
        counters_row(text, &device.name, numbers.map(count))?;
    }
    Ok(())
}

/// Prints a row of 78 columns.
fn counters_row(text: &mut String, name: &str, [a, b, c, d, e, f]: [String; 6]) -> fmt::Result {
    writeln!(text, "  {name:<16}{a:>10}{b:>10}{c:>10}{d:>10}{e:>10}{f:>10}")
}

fn is_default(name: &str, value: &serde_json::Value) -> bool {
    let defaults = serde_json::to_value(bond_core::options::BondOptions::default());
    defaults.is_ok_and(|defaults| defaults.get(name) == Some(value))
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "none".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) if values.is_empty() => "none".to_owned(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
