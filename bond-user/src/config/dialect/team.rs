//! team: JSON files of teamd, with the runner `activebackup`.
//!
//! teamd follows the events of links; here that is miimon, with events. A team has several watchers for each port; a bond has
//! one link monitor for all slaves, and `watch` says which of its signs a slave needs. What does not fit is a note.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use bond_core::{
    name::InterfaceName,
    watch::{Sign, Watch},
};

use super::{
    draft::{Draft, check_number, differs, gather},
    files::{self, Files, at_file},
    tree::{self, Node, Pair},
};
use crate::config::{BondConfig, BondMac, Config, ConfigError, Note, Origin, Problem, SlaveConfig};

/// What stands for events of links, in milliseconds.
const MIIMON: u32 = 100;
/// teamd's default interval of probes, in milliseconds.
const INTERVAL: &str = "1000";
/// teamd's default number of probes without an answer.
const MISSED: u32 = 3;

/// Policies for hardware addresses, and those of the driver.
const POLICIES: &[(&str, &str)] = &[("same_all", "none"), ("by_active", "active"), ("only_active", "follow")];

/// Reads the teams of files, or of directories with `*.conf` files.
///
/// # Errors
/// No team of the runner activebackup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut files, mut notes, mut bonds) = (Files::default(), Vec::new(), Vec::new());
    for path in files::named(paths, |name| name.ends_with(".conf"))? {
        let root = tree::json(&path, &files.text(&path)?)?;
        files.count(root.nodes(), &path)?;
        bonds.push(bond(&root, &mut notes));
        check_number(bonds.len(), || root.origin())?;
    }
    let none = || {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        at_file(path, Problem::Unsupported("no *.conf file of a team in it".to_owned()))
    };
    gather(bonds, notes, none)
}

fn bond(root: &Node, notes: &mut Vec<Note>) -> Result<BondConfig, ConfigError> {
    let name = root.get("device").ok_or_else(|| root.refuse("no device, and xbond goes by it"))?;
    let mut draft = Draft::new(name.require_text("device")?, name.origin());
    runner(&mut draft, root)?;
    if let Some(mac) = root.get("hwaddr") {
        let address = mac.parsed("hwaddr", "a MAC address of the form 08:00:27:e8:26:58")?;
        draft.mac = Some((BondMac::Address(address), mac.origin()));
    }
    for port in root.get("ports").map(|ports| ports.mapping("ports")).transpose()?.unwrap_or_default() {
        slave(&mut draft, port)?;
    }
    stickiness(&mut draft, root);
    watchers(&mut draft, root)?;
    bursts(&mut draft, root)?;
    let known = [
        "device",
        "runner",
        "hwaddr",
        "ports",
        "link_watch",
        "link_watch_policy",
        "notify_peers",
        "mcast_rejoin",
    ];
    notes.extend(root.pairs().iter().filter(|pair| !known.contains(&pair.key.as_str())).map(not_applied));
    draft.finish("write \"runner\": {\"name\": \"activebackup\"}")
}

fn not_applied(pair: &Pair) -> Note {
    Note::NotApplied { origin: pair.origin.clone(), key: pair.key.clone() }
}

fn runner(draft: &mut Draft, root: &Node) -> Result<(), ConfigError> {
    let runner = root.get("runner");
    let name = runner.and_then(|runner| runner.get("name"));
    match name.and_then(|name| name.text()) {
        Some("activebackup") => {}
        Some(other) => {
            let text = format!("runner {other}: xbond does active-backup (activebackup) only");
            return Err(name.map_or_else(|| root.refuse(text.clone()), |name| name.refuse(text.clone())));
        }
        None => {
            return Err(root.refuse(
                "no name of a runner, which means roundrobin; xbond does active-backup: write \"runner\": {\"name\": \
                 \"activebackup\"}",
            ));
        }
    }
    draft.set("mode", "active-backup", "activebackup", &root.origin());
    for pair in runner.map(|runner| runner.mapping("runner")).transpose()?.unwrap_or_default() {
        match pair.key.as_str() {
            "name" => {}
            "hwaddr_policy" => {
                let text = pair.value.require_text("hwaddr_policy")?;
                let policy = POLICIES.iter().find(|(name, _)| *name == text);
                let Some((_, policy)) = policy else {
                    return Err(pair
                        .value
                        .refuse(format!("hwaddr_policy {text}: not same_all, by_active or only_active")));
                };
                draft.set("fail_over_mac", policy, format!("hwaddr_policy {text}"), &pair.origin);
            }
            _ => draft.notes.push(not_applied(pair)),
        }
    }
    Ok(())
}

fn slave(draft: &mut Draft, port: &Pair) -> Result<(), ConfigError> {
    let refuse = |origin: &Origin, problem| ConfigError::new(origin.clone(), problem);
    let name = InterfaceName::new(port.key.as_str()).map_err(|error| refuse(&port.origin, error.into()))?;
    let mut slave = SlaveConfig::new(name);
    for pair in port.value.mapping(&port.key)?.iter().filter(|pair| !pair.value.is_null()) {
        match pair.key.as_str() {
            "prio" | "queue_id" => {
                let text = pair.value.require_text(&pair.key)?;
                slave.options.set(&pair.key, text).map_err(|error| refuse(&pair.origin, error.into()))?;
            }
            "sticky" | "link_watch" => {}
            _ => draft.notes.push(not_applied(pair)),
        }
    }
    draft.slave(slave, port.origin.clone())
}

/// A sticky port stays active when a better one returns. The driver has that for all slaves of a bond.
fn stickiness(draft: &mut Draft, root: &Node) {
    let ports = root.get("ports").map(|ports| ports.pairs()).unwrap_or_default();
    let is_sticky = |port: &&Pair| port.value.get("sticky").and_then(|sticky| sticky.boolean()) == Some(true);
    let sticky: Vec<_> = ports.iter().filter(is_sticky).collect();
    let Some(first) = sticky.first() else { return };
    let origin = first.value.get("sticky").map_or_else(|| first.origin.clone(), |sticky| sticky.origin());
    if sticky.len() < ports.len() {
        let text = format!(
            "{}: sticky of some ports: a bond has that for all slaves or none; here a better slave takes over always; \
             set primary_reselect = \"failure\" if none is to",
            draft.name
        );
        draft.note(&origin, text);
    } else {
        draft.set("primary_reselect", "failure", "sticky", &origin);
    }
}

/// Reads the watchers: those of the team, or of its first port that has some.
fn watchers(draft: &mut Draft, root: &Node) -> Result<(), ConfigError> {
    let ports = root.get("ports").map(|ports| ports.pairs()).unwrap_or_default();
    let first = || ports.iter().find_map(|port| port.value.get("link_watch"));
    let chosen = root.get("link_watch").or_else(first);
    let has_probes = |node: &Rc<Node>| watchers_in(node).iter().any(|watcher| name_of(watcher) != "ethtool");
    let is_probed = chosen.is_some_and(has_probes);
    for port in ports {
        let own = port.value.get("link_watch");
        if own.is_some_and(|own| chosen.is_some_and(|chosen| Rc::ptr_eq(chosen, own))) {
            continue;
        }
        // Without one, teamd watches the link.
        let watches_link = match own {
            Some(own) => !has_probes(own),
            None => root.get("link_watch").is_none(),
        };
        if is_probed && watches_link {
            watch_link(draft, &port.key);
            own.into_iter()
                .for_each(|own| watchers_in(own).iter().for_each(|watcher| delays(draft, watcher)));
        } else if let Some(own) = own {
            let text = format!(
                "{}: link_watch of a port: a bond has one link monitor for all slaves, and this one is left out",
                draft.name
            );
            draft.note(&own.origin(), text);
        }
    }
    let policy = root.get("link_watch_policy").and_then(|policy| policy.text()).unwrap_or("any");
    let Some(chosen) = chosen else {
        draft.set("miimon", MIIMON, "link_watch ethtool", &root.origin());
        return Ok(());
    };
    let watchers = watchers_in(chosen);
    let (links, probes): (Vec<_>, Vec<_>) =
        watchers.iter().partition(|watcher| name_of(watcher) == "ethtool");
    if !links.is_empty() && !probes.is_empty() && policy != "all" {
        let text = format!(
            "{}: link_watch of links or of probes ({policy}): a port without a link answers no probe, so the probes are left out",
            draft.name
        );
        draft.note(&chosen.origin(), text);
    }
    draft.watch = watch(&links, &probes, policy);
    if let (Some(link), true, "all") = (links.first(), !probes.is_empty(), policy) {
        delays(draft, link);
    }
    match (links.first(), probes.first()) {
        (Some(link), probe) if probe.is_none() || policy != "all" => ethtool(draft, link),
        (_, Some(_)) => pings(draft, &probes, policy),
        _ => Ok(()),
    }
}

/// Returns the watchers of a `link_watch`: one, or a list of them.
fn watchers_in(link_watch: &Rc<Node>) -> Vec<Rc<Node>> {
    if link_watch.items().is_empty() { vec![Rc::clone(link_watch)] } else { link_watch.items().to_vec() }
}

fn name_of(watcher: &Rc<Node>) -> &str {
    watcher.get("name").and_then(|name| name.text()).unwrap_or("ethtool")
}

/// Has a slave count as up by its link, although others are probed.
fn watch_link(draft: &mut Draft, name: &str) {
    let carrier = Sign::Carrier.word().parse().ok();
    if let Some((slave, _)) = draft.slaves.iter_mut().find(|(slave, _)| slave.name == *name) {
        slave.options.watch = carrier;
    }
}

/// Returns what a port needs where the link monitor alone does not say it.
fn watch(links: &[&Rc<Node>], probes: &[&Rc<Node>], policy: &str) -> Option<Watch> {
    if policy != "all" {
        return None;
    }
    let has =
        |name: &str| probes.iter().any(|probe| probe.get("name").and_then(|name| name.text()) == Some(name));
    let signs =
        [(Sign::Carrier, !links.is_empty()), (Sign::Arp, has("arp_ping")), (Sign::Ns, has("nsna_ping"))];
    let signs: Vec<_> =
        signs.into_iter().filter(|(_, is_there)| *is_there).map(|(sign, _)| sign.word()).collect();
    let is_said = signs.len() < 2;
    format!("all={}", signs.join(",")).parse().ok().filter(|_| !is_said)
}

/// The ARP monitor has no delays.
fn delays(draft: &mut Draft, link: &Node) {
    for key in ["delay_up", "delay_down"] {
        if let Some(delay) = link.get(key).filter(|delay| delay.text() != Some("0")) {
            let text = format!(
                "{}: {key}: a bond with probes has no delays of links, and this one is left out",
                draft.name
            );
            draft.note(&delay.origin(), text);
        }
    }
}

fn ethtool(draft: &mut Draft, watcher: &Node) -> Result<(), ConfigError> {
    draft.set("miimon", MIIMON, "link_watch ethtool", &watcher.origin());
    for pair in watcher.mapping("link_watch")?.iter().filter(|pair| !pair.value.is_null()) {
        let option = match pair.key.as_str() {
            "name" => continue,
            "delay_up" => "updelay",
            "delay_down" => "downdelay",
            _ => {
                draft.notes.push(not_applied(pair));
                continue;
            }
        };
        let text = pair.value.require_text(&pair.key)?;
        draft.set(option, text, format!("{} {text}", pair.key), &pair.origin);
    }
    Ok(())
}

fn pings(draft: &mut Draft, watchers: &[&Rc<Node>], policy: &str) -> Result<(), ConfigError> {
    let (mut active, mut inactive) = (false, false);
    for (place, watcher) in watchers.iter().enumerate() {
        let name = watcher.get("name").and_then(|name| name.text()).unwrap_or_default();
        let targets = match name {
            "arp_ping" => "arp_ip_target",
            "nsna_ping" => "ns_ip6_target",
            other => {
                let text = format!("link_watch {other}: xbond has ethtool, arp_ping and nsna_ping");
                return Err(watcher.refuse(text));
            }
        };
        if place == 0 {
            let interval = watcher.get("interval").and_then(|interval| interval.text()).unwrap_or(INTERVAL);
            draft.set("arp_interval", interval, format!("interval {interval}"), &watcher.origin());
            missed(draft, watcher)?;
        }
        for pair in watcher.mapping("link_watch")?.iter().filter(|pair| !pair.value.is_null()) {
            match pair.key.as_str() {
                "name" => {}
                "target_host" => {
                    let host = pair.value.require_text("target_host")?;
                    draft.target(targets, host, format!("target_host {host}"), &pair.origin)?;
                }
                "validate_active" => active |= pair.value.boolean() == Some(true),
                "validate_inactive" => inactive |= pair.value.boolean() == Some(true),
                "interval" | "missed_max" if place == 0 => {}
                "interval" | "missed_max" => {
                    let text =
                        format!("{}: {}: that of the first watcher is for all targets", draft.name, pair.key);
                    draft.note(&pair.origin, text);
                }
                _ => draft.notes.push(not_applied(pair)),
            }
        }
    }
    let validate = match (active, inactive) {
        (true, true) => "all",
        (true, false) => "active",
        (false, true) => "backup",
        (false, false) => "none",
    };
    let origin = watchers.first().map(|watcher| watcher.origin()).unwrap_or_default();
    draft.set("arp_validate", validate, "validate_active", &origin);
    if policy == "all" {
        draft.set("arp_all_targets", "all", "link_watch_policy all", &origin);
    }
    Ok(())
}

/// Reads missed_max; the driver's has to be 1 at least.
fn missed(draft: &mut Draft, watcher: &Node) -> Result<(), ConfigError> {
    let node = watcher.get("missed_max");
    let missed = node.map(|node| node.parsed("missed_max", "a number")).transpose()?.unwrap_or(MISSED);
    let origin = node.map_or_else(|| watcher.origin(), |node| node.origin());
    if missed == 0 {
        draft.note(
            &origin,
            format!("{}: missed_max 0: the driver's arp_missed_max is 1 at least", draft.name),
        );
    }
    draft.set("arp_missed_max", missed.max(1), format!("missed_max {missed}"), &origin);
    Ok(())
}

/// Reads how often a failover is announced.
fn bursts(draft: &mut Draft, root: &Node) -> Result<(), ConfigError> {
    for (object, count, interval) in
        [("notify_peers", "num_grat_arp", Some("peer_notif_delay")), ("mcast_rejoin", "resend_igmp", None)]
    {
        for pair in root.get(object).map(|node| node.mapping(object)).transpose()?.unwrap_or_default() {
            let text = pair.value.require_text(&pair.key)?;
            let written = format!("{object}.{} {text}", pair.key);
            match (pair.key.as_str(), interval) {
                ("count", _) => draft.set(count, text, written, &pair.origin),
                ("interval", Some(option)) => draft.set(option, text, written, &pair.origin),
                ("interval", None) => {
                    let text =
                        format!("{}: {written}: reports are 200 ms apart, as the driver's", draft.name);
                    draft.notes.push(differs(&pair.origin, text));
                }
                _ => draft.notes.push(not_applied(pair)),
            }
        }
    }
    Ok(())
}
