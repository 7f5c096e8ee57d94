//! Sentences about the path monitor.

use std::{
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bond_common::path::layout::PathMethod;
use bond_core::command::PathChange;

use crate::report::{
    path_state::{PathMonitor, PathStatus, Probed, SlavePath, Suspicion},
    receipt::SilentPath,
};

/// The bond has an ARP monitor.
pub const PATH_BESIDE_ARP: &str = "arp_interval is set: the ARP monitor judges the slaves; set miimon instead of arp_interval to use path_target";
/// The bond has an existing port.
pub const PATH_BEHIND_PORT: &str = "the bond ends in an existing port: the addresses of the host behind it are not known, so nothing can be probed";
/// bond0 was moved.
pub const PATH_ELSEWHERE: &str = "the bond's interface is in another network namespace, whose routes are not known: targets are probed as before";
/// `path_target = "gateway"`
pub const NO_GATEWAY: &str = "path_target=gateway: no IPv4 default route with a single gateway leads over the bond; the monitor waits for one, and probes the former gateway, if there was one, until then";

/// `path_target = "gateway"`, and the gateway has an IPv6 address only.
pub fn path_gateway_ipv6(gateway: Ipv6Addr) -> String {
    format!(
        "path_target=gateway: the default route over the bond has the IPv6 gateway {gateway}, and only IPv4 neighbours are \
         probed; set path_target to an IPv4 address of that router"
    )
}

/// Returns the warning about targets that are not probed.
pub fn path_fault_of_targets(fault: &str) -> String {
    format!("path monitor: {fault}")
}

/// No route leads to a target.
pub fn path_no_route(target: Ipv4Addr) -> String {
    format!("{target}: the bond has no route or no address to reach it; it is probed as soon as there is one")
}

/// A target's route leads elsewhere.
pub fn path_elsewhere(target: Ipv4Addr) -> String {
    format!("{target}: its route does not lead over the bond, so it is not probed")
}

/// A target is not a neighbour.
pub fn path_indirect(target: Ipv4Addr, via: impl Display) -> String {
    format!(
        "{target}: it is reached by the gateway {via}; only neighbours can be probed: use path_target = [\"{via}\"], or \
         path_target = \"gateway\""
    )
}

/// A target is behind too many VLANs.
pub fn path_too_many_tags(target: Ipv4Addr) -> String {
    format!("{target}: it is behind more than two VLANs, so it is not probed")
}

/// Returns why a method is in use.
pub fn path_method(wanted: PathMethod, is_echo: bool, has_fallen_back: bool) -> &'static str {
    match (wanted, is_echo, has_fallen_back) {
        (PathMethod::Echo | PathMethod::Arp, _, _) => "as configured",
        (PathMethod::Auto, true, _) => "the target returns echoes",
        (PathMethod::Auto, false, true) => "the target has stopped returning echoes",
        (PathMethod::Auto, false, false) => "the target has not returned echoes",
    }
}

/// Returns why a path is in a state.
pub fn path_status(status: PathStatus, is_active: bool, probed: Probed, misses: u64) -> String {
    let is_probed = probed == Probed::Often;
    match status {
        PathStatus::Unproven | PathStatus::Unknown if probed == Probed::Seldom => {
            "its probes as a backup are off but for one a minute: it has never answered from a MAC address of its own. Its port may \
             take one MAC address only, its NIC may filter, or its path is dead; it is used only while no other slave is known to work"
                .to_owned()
        }
        PathStatus::Works if is_active => "answers".to_owned(),
        PathStatus::Works => "answers to a backup's probes".to_owned(),
        PathStatus::Silent => format!("no answer for {misses} probes"),
        PathStatus::Unproven if is_active => "its link returned; used because no other slave is up".to_owned(),
        PathStatus::Unproven if is_probed => {
            "it joined, or its link was lost: used like the others after path_misses answers in succession".to_owned()
        }
        PathStatus::Unproven => {
            "it joined, or its link was lost, and it cannot be probed as a backup: used only while no other slave is up"
                .to_owned()
        }
        PathStatus::Failed => "left because it was silent; used only while no other slave is up".to_owned(),
        PathStatus::Unknown if is_active => "no target has answered yet".to_owned(),
        PathStatus::Unknown if is_probed => {
            "never answered as a backup: nothing is known of its path until it is active".to_owned()
        }
        PathStatus::Unknown => "not probed as a backup: it has no MAC address of its own for that".to_owned(),
    }
}

/// Returns the text about a path that failed, or answers again.
pub fn path_changed(slave: &str, change: PathChange) -> String {
    match change {
        PathChange::Failed => format!(
            "{slave}: its path does not work; it is used only while no other slave is up, until a target answers through it"
        ),
        PathChange::Recovered => format!("{slave}: its path works again; it is used like the others"),
        PathChange::Proven => format!("{slave}: its path is proven; it is used like the others"),
    }
}

/// Returns the line of a receipt about the path that was left.
pub fn silent_path(path: &SilentPath) -> String {
    let SilentPath { targets, method, last_heard, misses } = path;
    let targets = targets.join(", ");
    let last = last_heard.map_or_else(|| "never heard".to_owned(), |ms| format!("last heard {ms} ms before"));
    format!("path to {targets} by {method}: {last}; {misses} intervals without an answer")
}

/// Returns the line of `xbond show` about the path monitor.
pub fn path_monitor(path: &PathMonitor) -> String {
    let PathMonitor { targets, method, why, interval, misses, .. } = path;
    let failovers =
        if path.failovers == 0 { String::new() } else { format!(", failovers {}", path.failovers) };
    format!(
        "paths: {method} to {} each {interval} ms, {misses} misses ({why}){failovers}",
        targets.join(", ")
    )
}

/// Returns the line of `xbond show` about the path of a slave.
pub fn slave_path(slave: &str, path: &SlavePath) -> String {
    let SlavePath { state, why, last_heard, misses, .. } = path;
    let state = match state {
        PathStatus::Works => "works",
        PathStatus::Silent => "silent",
        PathStatus::Failed => "failed",
        PathStatus::Unproven => "unproven",
        PathStatus::Unknown => "unknown",
    };
    let heard = last_heard.map(|ms| format!("; last heard {ms} ms ago")).unwrap_or_default();
    let missed = if *misses == 0 { String::new() } else { format!(", misses {misses}") };
    let round_trip = path.round_trip.map(|us| format!(", round trip {us} µs")).unwrap_or_default();
    format!("path of {slave} {state}: {why}{heard}{missed}{round_trip}")
}

/// ms of a suspicion from which on it is a warning: a peer that ends is noticed by what sends to it.
const SUSPICIOUS: u64 = 2000;

/// Returns the warning about a slave that may have a path in one direction.
pub fn one_way_suspicion(slave: &str, path: &SlavePath) -> Option<String> {
    let Suspicion { silence, sent } = path.suspicion.filter(|suspicion| suspicion.silence >= SUSPICIOUS)?;
    let seconds = silence / 1000;
    let verdict = match path.state {
        PathStatus::Works => {
            "its targets answer, so it stays active: look at the hosts that it sends to, and at filters on the way"
        }
        PathStatus::Silent | PathStatus::Failed | PathStatus::Unproven | PathStatus::Unknown => {
            "its targets do not answer either, and no other slave is known to be better: look at the port of its switch"
        }
    };
    Some(format!(
        "{slave}: one-way suspicion: it has sent {sent} frames and received no unicast for {seconds} s, as it did before; \
         {verdict}"
    ))
}

/// No target answers through any slave.
pub const PATH_TARGET_SILENT: &str = "no target answers through any slave: the targets are down, or every path is; no slave is better than the active one";

/// Returns the settings of the path monitor, for the outcome of a reload.
pub fn wanted_path(
    target: &impl Display,
    interval: Duration,
    misses: u32,
    (method, failback): (&impl Display, &impl Display),
) -> String {
    let interval = interval.as_millis();
    format!(
        "path_target={target} path_interval={interval} path_misses={misses} path_method={method} failback={failback}"
    )
}
