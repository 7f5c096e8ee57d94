//! Reads a bond's `.netdev` file.

use bond_common::mac::Mac;
use bond_core::options;

use super::Unit;
use crate::config::{
    BondMac, ConfigError, Origin, Problem,
    dialect::{draft::Draft, ini::Entry, time},
};

/// Keys of `[Bond]` whose values are the driver's words, and its options.
const WORDS: &[(&str, &str)] = &[
    ("Mode", "mode"),
    ("FailOverMACPolicy", "fail_over_mac"),
    ("ARPValidate", "arp_validate"),
    ("ARPAllTargets", "arp_all_targets"),
    ("PrimaryReselectPolicy", "primary_reselect"),
    ("ResendIGMP", "resend_igmp"),
    ("GratuitousARP", "num_grat_arp"),
    ("MinLinks", "min_links"),
    ("ARPMissedMax", "arp_missed_max"),
    ("TransmitHashPolicy", "xmit_hash_policy"),
];

/// Keys of `[Bond]` whose values are time spans, and the driver's options in milliseconds.
const TIMES: &[(&str, &str)] = &[
    ("MIIMonitorSec", "miimon"),
    ("UpDelaySec", "updelay"),
    ("DownDelaySec", "downdelay"),
    ("PeerNotifyDelaySec", "peer_notif_delay"),
    ("ARPIntervalSec", "arp_interval"),
];

/// Keys of `[Bond]` for other modes.
const OF_OTHER_MODES: &[&str] = &[
    "LACPTransmitRate",
    "AdSelect",
    "PacketsPerSlave",
    "DynamicTransmitLoadBalancing",
    "LearnPacketIntervalSec",
    "AdActorSystemPriority",
    "AdUserPortKey",
    "AdActorSystem",
];

/// The words that networkd takes for an option. Other values, also the driver's own numbers and words, are ignored.
const TAKEN: &[(&str, &[&str])] = &[
    (
        "mode",
        &["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"],
    ),
    ("fail_over_mac", &["none", "active", "follow"]),
    ("arp_validate", &["none", "active", "backup", "all"]),
    ("arp_all_targets", &["any", "all"]),
    ("primary_reselect", &["always", "better", "failure"]),
];

const TIME: &str = "a time span like 100ms";

/// Sets an option to a word, if networkd takes it. `text`: the key and value in the words of the file.
///
/// # Errors
/// networkd ignores the mode, which is another one then.
pub(in crate::config::dialect) fn word(
    draft: &mut Draft,
    option: &str,
    value: &str,
    text: String,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let taken = TAKEN.iter().find(|(known, _)| *known == option).map(|(_, words)| *words);
    let Some(words) = taken.filter(|words| !words.contains(&value)) else {
        draft.set(option, value, text, origin);
        return Ok(());
    };
    let ignored = format!("{}: {text}: networkd ignores it; it takes {}", draft.name, words.join(", "));
    if option == "mode" {
        let why = format!("{ignored}; no mode means balance-rr: write active-backup");
        return Err(ConfigError::new(origin.clone(), Problem::Unsupported(why)));
    }
    draft.note(origin, format!("{ignored}: left out"));
    Ok(())
}

/// Reads the options of a bond.
///
/// # Errors
/// A value that xbond goes by is no value.
pub(super) fn draft(unit: &Unit) -> Result<Draft, ConfigError> {
    let origin = Origin::File { path: unit.path.clone(), line: None };
    let name = unit
        .last("NetDev", "Name")
        .ok_or_else(|| ConfigError::new(origin.clone(), Problem::Missing { key: "Name in [NetDev]" }))?;
    let mut draft = Draft::new(&name.value, name.origin.clone());
    for entry in &unit.entries {
        match (entry.section.as_str(), entry.key.as_str()) {
            ("NetDev", "Name" | "Kind" | "Description") => {}
            ("NetDev", "MTUBytes") => draft.mtu = mtu(entry)?,
            ("NetDev", "MACAddress") => draft.mac = mac(entry)?,
            ("Bond", "ARPIPTargets") => targets(&mut draft, entry)?,
            ("Bond", "AllSlavesActive") => {
                let value = time::boolean(&entry.value).ok_or_else(|| entry.bad_value("yes or no"))?;
                draft.set("all_slaves_active", u8::from(value), entry.text(), &entry.origin);
            }
            ("Bond", key) => option(&mut draft, key, entry)?,
            ("Match", _) => {
                let text = format!("{}: xbond takes the bond to be wanted on this host", entry.text());
                draft.note(&entry.origin, text);
            }
            _ => draft.notes.push(entry.not_applied()),
        }
    }
    let has_mac = unit.last("NetDev", "MACAddress").is_some();
    if !has_mac {
        draft.note_mac_of_networkd("MACAddress");
    }
    Ok(draft)
}

fn option(draft: &mut Draft, key: &str, entry: &Entry) -> Result<(), ConfigError> {
    let known = WORDS.iter().find(|(name, _)| *name == key);
    let span = TIMES.iter().find(|(name, _)| *name == key);
    match (known, span) {
        // An empty assignment is no value of these, which networkd ignores.
        _ if entry.value.is_empty() => {}
        (Some((_, option)), _) => word(draft, option, &entry.value, entry.text(), &entry.origin)?,
        (_, Some((_, option))) => {
            let ms = time::milliseconds(&entry.value).ok_or_else(|| entry.bad_value(TIME))?;
            draft.set(option, ms, entry.text(), &entry.origin);
            if entry.value.bytes().all(|byte| byte.is_ascii_digit()) && ms >= 10_000 {
                let text = format!(
                    "{}: {}: networkd reads a number without unit as seconds; if milliseconds are meant, set {option} = {}",
                    draft.name,
                    entry.text(),
                    entry.value
                );
                draft.note(&entry.origin, text);
            }
        }
        _ if OF_OTHER_MODES.contains(&key) => {
            let text = format!("{}: {} has no effect in active-backup", draft.name, entry.text());
            draft.note(&entry.origin, text);
        }
        _ => {
            let names = WORDS.iter().chain(TIMES).map(|(name, _)| *name);
            let suggestion = options::closest(key, names).map(|name| format!("; is {name} meant?"));
            let text = format!(
                "{}: {}: no key of [Bond] that xbond knows, left out{}",
                draft.name,
                entry.text(),
                suggestion.unwrap_or_default()
            );
            draft.note(&entry.origin, text);
        }
    }
    Ok(())
}

/// Adds targets. networkd takes blanks between them, and ignores what has commas.
fn targets(draft: &mut Draft, entry: &Entry) -> Result<(), ConfigError> {
    if entry.value.is_empty() {
        draft.unset("arp_ip_target");
    }
    if entry.value.contains(',') {
        let text = format!(
            "{}: {}: networkd wants blanks between the targets, and ignores them with commas; here all are read",
            draft.name,
            entry.text()
        );
        draft.note(&entry.origin, text);
    }
    for target in entry.value.split([',', ' ', '\t']).filter(|target| !target.is_empty()) {
        draft.target("arp_ip_target", target, entry.text(), &entry.origin)?;
    }
    Ok(())
}

/// Returns an MTU; `None` for an empty assignment.
pub(super) fn mtu(entry: &Entry) -> Result<Option<(u32, Origin)>, ConfigError> {
    if entry.value.is_empty() {
        return Ok(None);
    }
    let bytes = time::bytes(&entry.value).ok_or_else(|| entry.bad_value("a number of bytes"))?;
    Ok(Some((bytes, entry.origin.clone())))
}

/// Returns a MAC address; `None` for one that networkd leaves to the kernel.
pub(super) fn mac(entry: &Entry) -> Result<Option<(BondMac, Origin)>, ConfigError> {
    Ok(address(entry)?.map(|mac| (BondMac::Address(mac), entry.origin.clone())))
}

/// Returns the MAC address of an entry, if it names one.
pub(super) fn address(entry: &Entry) -> Result<Option<Mac>, ConfigError> {
    if ["", "none"].contains(&entry.value.as_str()) {
        return Ok(None);
    }
    // networkd also takes hyphens between the bytes.
    let text = entry.value.replace('-', ":");
    text.parse().map(Some).map_err(|_| entry.bad_value("a MAC address of the form 08:00:27:e8:26:58"))
}
