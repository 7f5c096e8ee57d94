//! dracut: `bond=` and `ip=` of a kernel's command line.
//!
//! `bond=NAME[:SLAVES[:OPTIONS[:MTU]]]`, with commas between slaves and options, and semicolons between the targets of one
//! option. Without options, dracut writes mode=balance-rr.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use bond_core::name::{InterfaceName, shortened};
use ipnet::{IpNet, Ipv4Net};

use super::{
    draft::{Draft, check_number, differs, gather},
    files::{self, Files, at, at_file},
};
use crate::config::{BondMac, Config, ConfigError, Destination, Note, Origin, Problem, Route, SlaveConfig};

/// The directory of files that dracut joins to the command line.
pub(super) const DIRECTORIES: &[&str] = &["/etc/cmdline.d"];

/// Methods of `ip=` with which no address comes from the network.
const FIXED: &[&str] = &["none", "off", "static"];

/// A word of a command line.
struct Word {
    text: String,
    origin: Origin,
}

/// Reads the bonds of command lines: files such as /proc/cmdline, or directories with `*.conf` files.
///
/// # Errors
/// No bond of active-backup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut files, mut words) = (Files::default(), Vec::new());
    for path in files::named(paths, |name| name.ends_with(".conf"))? {
        let text = files.text(&path)?;
        let lines = files::lines(&path, &text, false, |line, _| line.starts_with('#'))?;
        let before = words.len();
        for (number, line) in lines {
            let origin = at(&path, number);
            words.extend(split(&line).into_iter().map(|text| Word { text, origin: origin.clone() }));
        }
        files.count(words.len() - before, &path)?;
    }
    let is_bond = |word: &&Word| word.text == "bond" || word.text.starts_with("bond=");
    let origin = || Origin::File { path: paths.first().cloned().unwrap_or_default(), line: None };
    check_number(words.iter().filter(is_bond).count(), origin)?;
    let mut drafts = Vec::new();
    let mut failed = Vec::new();
    for word in &words {
        let bond = word.text.strip_prefix("bond=").or((word.text == "bond").then_some(""));
        match bond.map(|text| bond_of(text, word)) {
            Some(Ok(draft)) => drafts.push(draft),
            Some(Err(error)) => failed.push(Err(error)),
            None => {}
        }
    }
    let notes = of_network(&words, &mut drafts)?;
    let bonds =
        drafts.into_iter().map(|draft| draft.finish("write mode=active-backup")).chain(failed).collect();
    let none = || {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        at_file(path, Problem::Unsupported("no bond= in it".to_owned()))
    };
    gather(bonds, notes, none)
}

/// Splits a line at blanks outside of double quotes, as the kernel does.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for char in line.chars() {
        match char {
            '"' => quoted = !quoted,
            blank if blank.is_whitespace() && !quoted => words.push(String::new()),
            other => words.last_mut().into_iter().for_each(|word| word.push(other)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn bond_of(text: &str, word: &Word) -> Result<Draft, ConfigError> {
    let origin = &word.origin;
    let fields: Vec<&str> = text.split(':').collect();
    let field = |place: usize| fields.get(place).copied().filter(|field| !field.is_empty());
    let mut draft = Draft::new(field(0).unwrap_or("bond0"), origin.clone());
    for name in field(1).unwrap_or("eth0,eth1").split([',', ' ']).filter(|name| !name.is_empty()) {
        let checked =
            InterfaceName::new(name).map_err(|error| ConfigError::new(origin.clone(), error.into()))?;
        draft.slave(SlaveConfig::new(checked), origin.clone())?;
    }
    for option in field(2).unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            let text =
                format!("{}: no value; options are KEY=VALUE with commas between them", shortened(option));
            ConfigError::new(origin.clone(), Problem::Syntax(text))
        })?;
        match key {
            "arp_ip_target" | "ns_ip6_target" => {
                for target in value.split(';').filter(|target| !target.is_empty()) {
                    draft.target(key, target, option, origin)?;
                }
            }
            _ => draft.set(key, value, option, origin),
        }
    }
    if let Some(mtu) = field(3) {
        let mtu = mtu.parse().map_err(|_| {
            let (key, value) = ("bond".to_owned(), mtu.to_owned());
            let problem =
                Problem::BadValue { key, value, wanted: "a number of bytes as its fourth field".to_owned() };
            ConfigError::new(origin.clone(), problem)
        })?;
        draft.mtu = Some((mtu, origin.clone()));
    }
    if fields.len() > 4 {
        let text = format!(
            "{}: fields after the fourth one are ignored; a target list has semicolons",
            shortened(&word.text)
        );
        draft.note(origin, text);
    }
    Ok(draft)
}

/// Reads the words that give addresses and routes to bonds, or lie above them.
fn of_network(words: &[Word], drafts: &mut [Draft]) -> Result<Vec<Note>, ConfigError> {
    let mut notes = Vec::new();
    for word in words {
        let Some((key, value)) = word.text.split_once('=') else { continue };
        match key {
            "ip" => ip(value, word, drafts)?,
            "vlan" => {
                let (vlan, below) = value.split_once(':').unwrap_or((value, ""));
                if let Some(draft) = drafts.iter().find(|draft| draft.name == below) {
                    let (origin, bond, vlan) = (word.origin.clone(), draft.name.clone(), vlan.to_owned());
                    notes.push(Note::VlanAbove { origin, bond, vlan });
                }
            }
            "bridge" => {
                let (bridge, ports) = value.split_once(':').unwrap_or((value, ""));
                for draft in drafts.iter().filter(|draft| ports.split(',').any(|port| port == draft.name)) {
                    let text = format!(
                        "{} is a port of the bridge {bridge}, which xbond does not make; add it once it is up",
                        draft.name
                    );
                    notes.push(differs(&word.origin, text));
                }
            }
            "nameserver" | "rd.route" | "rd.peerdns" | "team" | "ifname" | "bootdev" => {
                notes.push(Note::NotApplied { origin: word.origin.clone(), key: word.text.clone() });
            }
            _ => {}
        }
    }
    Ok(notes)
}

/// Reads `ip=ADDRESS:PEER:GATEWAY:NETMASK:HOST:INTERFACE:METHOD[:MTU[:MAC]]`, or `ip=INTERFACE:METHOD`, of a bond.
fn ip(value: &str, word: &Word, drafts: &mut [Draft]) -> Result<(), ConfigError> {
    let fields = fields(value);
    let field = |place: usize| fields.get(place).map(String::as_str).filter(|field| !field.is_empty());
    let origin = &word.origin;
    let short_form = drafts.iter_mut().find(|draft| field(0) == Some(draft.name.as_str()));
    let refuse = |wanted: &str| {
        let (key, value) = ("ip".to_owned(), value.to_owned());
        ConfigError::new(origin.clone(), Problem::BadValue { key, value, wanted: wanted.to_owned() })
    };
    if let Some(draft) = short_form {
        if !field(1).is_none_or(|method| FIXED.contains(&method)) {
            let text = format!(
                "{}: {}: xbond sets fixed addresses only; run a DHCP client on it",
                draft.name,
                shortened(&word.text)
            );
            draft.note(origin, text);
        }
        return Ok(());
    }
    let Some(draft) = drafts.iter_mut().find(|draft| field(5) == Some(draft.name.as_str())) else {
        return Ok(());
    };
    if let Some(text) = field(0) {
        let net =
            address(text, field(3)).ok_or_else(|| refuse("an address with a netmask in its fourth field"))?;
        draft.address(net, origin.clone())?;
    }
    if let Some(gateway) = field(2) {
        let via = Some(gateway.parse().map_err(|_| refuse("an address with a gateway in its third field"))?);
        draft.route(Route { to: Destination::Default, via, metric: None }, origin.clone())?;
    }
    if !field(6).is_none_or(|method| FIXED.contains(&method)) || field(1).is_some() {
        let text = format!(
            "{}: {}: its method, or its peer, is not applied by xbond",
            draft.name,
            shortened(&word.text)
        );
        draft.note(origin, text);
    }
    if let Some(mtu) = field(7).and_then(|mtu| mtu.parse().ok()) {
        draft.mtu = Some((mtu, origin.clone()));
    }
    if fields.len() > 8 {
        let mac = fields.get(8..).unwrap_or_default().join(":");
        match mac.parse() {
            Ok(mac) => draft.mac = Some((BondMac::Address(mac), origin.clone())),
            Err(_) => draft.note(
                origin,
                format!("{}: what follows the MTU is ignored: {}", shortened(&word.text), shortened(&mac)),
            ),
        }
    }
    Ok(())
}

/// Parses an address with its length, or with a netmask.
fn address(text: &str, mask: Option<&str>) -> Option<IpNet> {
    if let Ok(net) = text.parse() {
        return Some(net);
    }
    let (ip, mask): (IpAddr, _) = (text.parse().ok()?, mask?);
    if let Ok(length) = mask.parse() {
        return IpNet::new(ip, length).ok();
    }
    match (ip, mask.parse()) {
        (IpAddr::V4(ip), Ok(mask)) => Ipv4Net::with_netmask(ip, mask).ok().map(IpNet::from),
        _ => None,
    }
}

/// Splits at colons outside of square brackets, which are around IPv6 addresses.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for char in text.chars() {
        match char {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => fields.push(String::new()),
            other => fields.last_mut().into_iter().for_each(|field| field.push(other)),
        }
    }
    fields
}
