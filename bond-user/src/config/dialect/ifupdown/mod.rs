//! ifupdown, ifupdown2 and ifupdown-ng: `/etc/network/interfaces`.
//!
//! ifenslave's rules are those of its script `if-pre-up.d/ifenslave`: a key that is repeated is one list, the bond names its
//! slaves or they name it, of several primaries the first that is a slave is one, and of two monitors miimon remains.

mod addresses;
mod stanza;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use bond_core::{name::InterfaceName, options};

use self::stanza::{Interfaces, Key, Stanza};
use super::{
    draft::{Draft, check_number, differs, gather},
    files::{self, at_file},
};
use crate::config::{BondConfig, Config, ConfigError, Note, Origin, Problem, SlaveConfig};

/// The directory of `interfaces`.
pub(super) const DIRECTORIES: &[&str] = &["/etc/network"];

/// The most names of a range as `glob swp1-32`.
const LONGEST_RANGE: u32 = 64;

/// Keys that name slaves: of ifenslave, of older files, of ifupdown2, of ifupdown-ng.
const SLAVES: &[&str] = &["bond-slaves", "slaves", "bond-ports", "bond-members"];

/// Options that ifenslave does not set.
const NOT_OF_IFENSLAVE: &[&str] = &[
    "resend_igmp",
    "all_slaves_active",
    "arp_all_targets",
    "arp_missed_max",
    "min_links",
    "ns_ip6_target",
    "peer_notif_delay",
];

/// Keys of other modes.
const OF_OTHER_MODES: &[&str] = &[
    "bond-lacp-rate",
    "bond-ad-select",
    "bond-ad-sys-priority",
    "bond-ad-sys-mac-addr",
    "bond-ad-actor-sys-prio",
    "bond-ad-actor-system",
    "bond-ad-user-port-key",
    "bond-lacp-bypass-allow",
    "bond-packets-per-slave",
    "bond-tlb-dynamic-lb",
    "bond-lp-interval",
    "es-sys-mac",
];

/// Reads the bonds of files, or of directories with a file `interfaces`.
///
/// # Errors
/// No bond of active-backup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut bonds, mut notes) = (Vec::new(), Vec::new());
    for path in paths {
        let file = if files::is_directory(path)? { path.join("interfaces") } else { path.clone() };
        let interfaces = stanza::read(&file)?;
        let names = bonds_in(&interfaces);
        check_number(names.len() + bonds.len(), || Origin::File { path: file.clone(), line: None })?;
        for name in &names {
            bonds.push(bond(name, &interfaces));
        }
        notes.extend(above(&interfaces, &names));
        notes.extend(interfaces.notes);
    }
    let none = || {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        at_file(path, Problem::Unsupported("no iface with bond-slaves or bond-mode".to_owned()))
    };
    gather(bonds, notes, none)
}

/// Returns the names of all bonds, in the order of their stanzas.
fn bonds_in(interfaces: &Interfaces) -> Vec<String> {
    let (mut names, mut known) = (Vec::new(), HashSet::new());
    for stanza in &interfaces.stanzas {
        let has = |wanted: &str| stanza.keys.iter().any(|key| key.name == wanted);
        let is_bond = !has("bond-master") && (has("bond-mode") || SLAVES.iter().any(|key| has(key)));
        let of = stanza.master().map(|key| key.value.as_str());
        for name in is_bond.then_some(stanza.name.as_str()).into_iter().chain(of) {
            if known.insert(name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

fn bond(name: &str, interfaces: &Interfaces) -> Result<BondConfig, ConfigError> {
    let stanzas: Vec<&Stanza> = interfaces.of(name).collect();
    let keys = interfaces.stanzas.iter().filter_map(|stanza| Some((stanza, stanza.master()?)));
    let masters: Vec<_> = keys.filter(|(_, key)| key.value == name).collect();
    let Some(first) = stanzas.first() else {
        let origin = masters.first().map(|(_, key)| key.origin.clone()).unwrap_or_default();
        let text = format!("bond-master {name}: no iface {name} is in the files");
        return Err(ConfigError::new(origin, Problem::Unsupported(text)));
    };
    let mut draft = Draft::new(name, first.origin.clone());
    if !interfaces.is_automatic(name) {
        draft.note(
            &first.origin,
            format!("{name}: no auto {name}: ifupdown brings it up on request only; xbond at once"),
        );
    }
    let keys: Vec<&Key> = stanzas.iter().flat_map(|stanza| &stanza.keys).collect();
    for key in keys.iter().filter(|key| SLAVES.contains(&key.name.as_str())) {
        slaves_of(&mut draft, key, interfaces)?;
    }
    for (stanza, key) in &masters {
        if !draft.slaves.iter().any(|(slave, _)| slave.name == *stanza.name) {
            let slave = slave(&mut draft, &stanza.name, key, interfaces)?;
            draft.slave(slave, key.origin.clone())?;
        }
    }
    for key in &keys {
        option(&mut draft, key)?;
    }
    for stanza in &stanzas {
        addresses::read(&mut draft, stanza)?;
    }
    for alias in interfaces.stanzas.iter().filter(|stanza| is_alias_of(&stanza.name, name)) {
        addresses::read_alias(&mut draft, alias)?;
    }
    // A slave's stanza may have the primary, too.
    let of_slaves = masters.iter().flat_map(|(stanza, _)| &stanza.keys);
    primary(&mut draft, keys.iter().copied().chain(of_slaves));
    one_monitor(&mut draft);
    draft.finish("write bond-mode active-backup")
}

fn is_alias_of(name: &str, bond: &str) -> bool {
    name.split_once(':').is_some_and(|(parent, _)| parent == bond)
}

/// Adds the slaves that a bond names.
fn slaves_of(draft: &mut Draft, key: &Key, interfaces: &Interfaces) -> Result<(), ConfigError> {
    if key.value.contains(',') {
        let text = format!(
            "{}: {}: ifupdown wants blanks between names; read as if they were there",
            draft.name,
            key.text()
        );
        draft.note(&key.origin, text);
    }
    let mut words = key.value.split([' ', '\t', ',']).filter(|word| !word.is_empty()).peekable();
    match words.peek().copied() {
        Some("none") => return Ok(()),
        Some("all" | "regex") => {
            let text = format!(
                "{}: {}: which NICs there are is not in the file: left out; add their names to slaves",
                draft.name,
                key.text()
            );
            draft.note(&key.origin, text);
            return Ok(());
        }
        _ => {}
    }
    let is_glob = words.next_if_eq(&"glob").is_some();
    for word in words {
        let names = if is_glob { expanded(word) } else { Some(vec![word.to_owned()]) };
        let names = names.ok_or_else(|| key.bad_value("names, or a range like swp1-4 of at most 64"))?;
        for name in names {
            if draft.is_new_slave(&name, &key.origin)? {
                let slave = slave(draft, &name, key, interfaces)?;
                draft.slaves.push((slave, key.origin.clone()));
            }
        }
    }
    Ok(())
}

/// Expands a range of ifupdown2: `swp1-4`, `swp[1-4]s0`.
fn expanded(word: &str) -> Option<Vec<String>> {
    let (before, range, after) = match word.split_once('[') {
        Some((before, rest)) => {
            let (range, after) = rest.split_once(']')?;
            (before, range, after)
        }
        None => match word.rsplit_once('-') {
            None => return Some(vec![word.to_owned()]),
            Some((start, _)) => {
                let digits = start.bytes().rev().take_while(u8::is_ascii_digit).count();
                let (before, _) = start.split_at(start.len() - digits);
                (before, word.get(before.len()..)?, "")
            }
        },
    };
    let (first, last) = range.split_once('-')?;
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    if last < first || last - first >= LONGEST_RANGE {
        return None;
    }
    Some((first..=last).map(|number| format!("{before}{number}{after}")).collect())
}

/// Reads what the stanzas of a slave say.
fn slave(
    draft: &mut Draft,
    name: &str,
    of: &Key,
    interfaces: &Interfaces,
) -> Result<SlaveConfig, ConfigError> {
    let checked =
        InterfaceName::new(name).map_err(|error| ConfigError::new(of.origin.clone(), error.into()))?;
    let mut slave = SlaveConfig::new(checked);
    for stanza in interfaces.of(name) {
        if !["manual", "none"].contains(&stanza.method.as_str()) {
            let text = format!(
                "{}: iface {name} {} {}: addresses of a slave are left out",
                draft.name, stanza.family, stanza.method
            );
            draft.note(&stanza.origin, text);
        }
        for key in &stanza.keys {
            match key.name.as_str() {
                "bond-master" if key.value == draft.name => {}
                "bond-master" => {
                    let text = format!(
                        "{}: {}: {name} is a slave of two bonds; of this one here",
                        draft.name,
                        key.text()
                    );
                    draft.note(&key.origin, text);
                }
                "bond-primary" | "bond-primary-reselect" => {}
                "hwaddress" => slave.mac = addresses::hwaddress(key, &mut draft.notes)?,
                "mtu" => slave.mtu = Some(key.parsed("a number of bytes")?),
                option if option.starts_with("bond-") => {
                    let text =
                        format!("{}: {}: has no effect in the stanza of a slave", draft.name, key.text());
                    draft.note(&key.origin, text);
                }
                _ => draft.notes.push(key.not_applied()),
            }
        }
    }
    Ok(slave)
}

fn option(draft: &mut Draft, key: &Key) -> Result<(), ConfigError> {
    let Some(name) = key.name.strip_prefix("bond-") else { return Ok(()) };
    let option = name.replace('-', "_");
    let text = key.text();
    match option.as_str() {
        _ if SLAVES.contains(&key.name.as_str()) => {}
        "primary" => {}
        "master" => {
            let text =
                format!("{}: {}: a bond cannot be a slave of another one: left out", draft.name, key.text());
            draft.note(&key.origin, text);
        }
        "active_slave" => {
            let text = format!(
                "{}: {}: made active once, and nothing keeps it so; set primary for a lasting preference",
                draft.name,
                key.text()
            );
            draft.note(&key.origin, text);
        }
        "queue_id" => queue_ids(draft, key)?,
        "arp_ip_target" | "ns_ip6_target" => targets(draft, &option, key)?,
        "use_carrier" => {
            let is_on = super::time::boolean(&key.value).ok_or_else(|| key.bad_value("yes or no"))?;
            draft.set(&option, u8::from(is_on), text, &key.origin);
        }
        _ if OF_OTHER_MODES.contains(&key.name.as_str()) => {
            draft.note(&key.origin, format!("{}: {text} has no effect in active-backup", draft.name));
        }
        _ if options::KEYS.contains(&option.as_str()) => plain(draft, &option, key),
        _ => {
            let suggestion = options::closest(&option, options::KEYS.iter().copied());
            let suggestion = suggestion
                .map(|key| format!("; is bond-{} meant?", key.replace('_', "-")))
                .unwrap_or_default();
            let text = format!("{}: {text}: no option of a bond: left out{suggestion}", draft.name);
            draft.note(&key.origin, text);
        }
    }
    Ok(())
}

/// Sets an option of the driver.
fn plain(draft: &mut Draft, option: &str, key: &Key) {
    let text = key.text();
    if NOT_OF_IFENSLAVE.contains(&option) {
        draft.note(&key.origin, format!("{}: {text}: ifenslave ignores it; xbond does not", draft.name));
    }
    match draft.option(option).map(str::to_owned) {
        None => draft.set(option, &key.value, text, &key.origin),
        Some(earlier) if earlier == key.value => {}
        Some(earlier) => {
            // As lines of one text, of which the driver takes the first.
            let text =
                format!("{}: {text}: given before as {earlier}, which remains, as with ifupdown", draft.name);
            draft.note(&key.origin, text);
        }
    }
}

fn targets(draft: &mut Draft, option: &str, key: &Key) -> Result<(), ConfigError> {
    let text = key.text();
    for target in key.value.split([' ', '\t', ',']) {
        let target = target.trim_start_matches('+');
        if !target.is_empty() {
            draft.target(option, target, &text, &key.origin)?;
        }
    }
    if key.value.contains(',') {
        let text = format!(
            "{}: {text}: ifenslave wants blanks between targets; read as if they were there",
            draft.name
        );
        draft.note(&key.origin, text);
    }
    Ok(())
}

/// Reads `bond-queue-id eth0:1 eth1:2`.
fn queue_ids(draft: &mut Draft, key: &Key) -> Result<(), ConfigError> {
    for word in key.value.split_whitespace() {
        let (name, number) = word.split_once(':').ok_or_else(|| key.bad_value("pairs like eth0:1"))?;
        match draft.slaves.iter_mut().find(|(slave, _)| slave.name == *name) {
            Some((slave, _)) => slave
                .options
                .set("queue_id", number)
                .map_err(|error| ConfigError::new(key.origin.clone(), error.into()))?,
            None => {
                let text =
                    format!("{}: {}: {name} is not one of its slaves: left out", draft.name, key.text());
                draft.note(&key.origin, text);
            }
        }
    }
    Ok(())
}

/// Sets the first primary that is a slave.
fn primary<'a>(draft: &mut Draft, keys: impl Iterator<Item = &'a Key>) {
    for key in keys.filter(|key| key.name == "bond-primary") {
        let names: Vec<&str> = key.value.split([' ', '\t', ',']).filter(|name| !name.is_empty()).collect();
        let is_slave = |name: &&&str| draft.slaves.iter().any(|(slave, _)| slave.name == ***name);
        let Some(name) = names.iter().find(is_slave).or(names.first()).map(|name| (*name).to_owned()) else {
            continue;
        };
        if names.len() > 1 {
            let text = format!(
                "{}: {}: a bond has one primary: {name}, the first of them that is a slave",
                draft.name,
                key.text()
            );
            draft.note(&key.origin, text);
        }
        draft.set("primary", name, key.text(), &key.origin);
    }
}

/// ifenslave writes miimon after arp_interval, which the driver then turns off.
fn one_monitor(draft: &mut Draft) {
    let is_set = |key: &str| draft.option(key).is_some_and(|value| value.trim() != "0");
    if is_set("miimon") && is_set("arp_interval") {
        let origin = draft.origin.clone();
        let text = format!(
            "{}: bond-arp-interval is ignored, because bond-miimon is written after it: a bond has one link monitor",
            draft.name
        );
        draft.note(&origin, text);
        for key in ["arp_interval", "arp_ip_target", "ns_ip6_target", "arp_validate"] {
            draft.unset(key);
        }
    }
}

/// Returns notes about devices above bonds.
fn above(interfaces: &Interfaces, bonds: &[String]) -> Vec<Note> {
    let is_bond = |name: &str| bonds.iter().any(|bond| bond == name);
    let mut notes = Vec::new();
    for stanza in &interfaces.stanzas {
        let raw = stanza
            .keys
            .iter()
            .find(|key| key.name == "vlan-raw-device")
            .map(|key| (key.value.as_str(), &key.origin));
        let dotted = stanza.name.rsplit_once('.').map(|(below, _)| (below, &stanza.origin));
        if let Some((bond, origin)) = raw.or(dotted).filter(|(below, _)| is_bond(below)) {
            let (origin, bond, vlan) = (origin.clone(), bond.to_owned(), stanza.name.clone());
            notes.push(Note::VlanAbove { origin, bond, vlan });
        }
        for key in stanza.keys.iter().filter(|key| key.name == "bridge-ports") {
            for bond in key.value.split_whitespace().filter(|port| is_bond(port)) {
                let text = format!(
                    "{bond} is a port of the bridge {}, which xbond does not make; add it to {} once {bond} is up",
                    stanza.name, stanza.name
                );
                notes.push(differs(&key.origin, text));
            }
        }
    }
    notes
}
