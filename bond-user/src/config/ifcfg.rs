//! Reads RHEL's ifcfg files (of initscripts; NetworkManager wrote the same format).
//!
//! initscripts source them into a shell as root. Here they are parsed by the same rules, and never executed. SUSE's
//! files, which have other keys for a bond, are read too ([`suse`]).

mod addresses;
mod aliases;
mod bond;
mod routes;
mod suse;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use bond_common::mac::Mac;
use bond_core::{name::InterfaceName, options::Unmonitored};

use self::routes::routes_beside;
use super::{
    BondConfig, Config, ConfigError, Known, Lines, Note, Origin, Problem,
    shell::{self, Assignment},
};
use crate::sys::file;

const PREFIX: &str = "ifcfg-";

/// Bytes of all files of a directory. Each file has its own limit ([`file::LARGEST`]).
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Files that initscripts skip (`is_ignored_file`).
const IGNORED: &[&str] = &["~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave"];

/// Keys with an effect that other programs can have: they are reported, and ignored.
const NOT_APPLIED: &[&str] = &["ETHTOOL_OPTS", "DNS1", "DNS2", "DNS3", "DOMAIN", "SEARCH", "ZONE"];

/// Reads the bonds of a directory like /etc/sysconfig/network-scripts, and checks the whole.
///
/// Slaves are ordered by their files' names, as in initscripts; the order decides the bond's MAC address.
///
/// # Errors
/// There is no bond, or a file of one cannot be read or contains a refused value; the error names the file and, if
/// possible, the line.
pub fn read(directory: &Path, unmonitored: Unmonitored) -> Result<Config, ConfigError> {
    checked(read_as(directory, unmonitored, Lacking::IsRefused)?)
}

/// As [`read`], but what xbond does not do for a bond, DHCP or a bridge above it for example, is reported, as from files of
/// other programs.
///
/// # Errors
/// As [`read`].
pub fn import(directory: &Path) -> Result<Config, ConfigError> {
    checked(read_as(directory, Unmonitored::Allow, Lacking::IsReported)?)
}

/// What becomes of a bond whose file has a key for a function that xbond lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacking {
    IsRefused,
    IsReported,
}

fn checked(mut config: Config) -> Result<Config, ConfigError> {
    config.check()?;
    let doubts: Vec<_> = config.bonds.iter().flat_map(BondConfig::doubts).collect();
    config.notes.extend(doubts);
    Ok(config)
}

/// Returns whether a path is a directory for [`read`].
pub fn is_directory_of_them(path: &Path) -> bool {
    list(path).is_ok_and(|files| !files.is_empty())
}

/// Returns the lines of all keys in these files. Unreadable files are skipped.
pub fn lines(directory: &Path) -> Lines {
    let mut lines = Lines::default();
    for path in list(directory).unwrap_or_default() {
        let Ok(text) = text(&path) else { continue };
        let Ok(file) = Ifcfg::parse(&path, &text) else { continue };
        match (file.master(), file.name()) {
            (None, Some(bond)) if file.is_bond() => lines.add_ifcfg(bond, None, &path, &text),
            (Some((_, bond)), Some(slave)) => lines.add_ifcfg(bond, Some(slave), &path, &text),
            _ => {}
        }
    }
    lines
}

/// Reads like [`read`], without the check of the whole.
pub(super) fn read_unchecked(directory: &Path, unmonitored: Unmonitored) -> Result<Config, ConfigError> {
    read_as(directory, unmonitored, Lacking::IsRefused)
}

fn read_as(directory: &Path, unmonitored: Unmonitored, lacking: Lacking) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let (mut files, mut bytes) = (Vec::new(), 0);
    for path in list(directory)? {
        let text = text(&path)?;
        bytes += text.len();
        if bytes > MOST_BYTES {
            let why =
                format!("with it, the files of this directory have more than {MOST_BYTES} bytes, the limit");
            return Err(at_file(&path, Problem::Unsupported(why)));
        }
        match Ifcfg::parse(&path, &text) {
            Ok(file) => files.push(file),
            Err(error) if mentions_bonds(&text) => return Err(error),
            Err(error) => {
                let why = error.problem.to_string();
                config.notes.push(Note::Skipped { origin: error.origin, why });
            }
        }
    }

    let known = add_bonds(&mut config, directory, &files, (unmonitored, lacking))?;
    if known.is_empty() {
        let origin = Origin::File { path: directory.to_owned(), line: None };
        return Err(ConfigError::new(origin, Problem::NoBonds));
    }
    add_slaves(&mut config, &files, &known)?;
    for bond in &mut config.bonds {
        bond.routes.extend(routes_beside(directory, &bond.name)?);
    }
    aliases::add(&mut config, &files)?;
    note_above(&mut config, &files);
    Ok(config)
}

/// Adds the bonds that are set up at boot; returns the names of all.
fn add_bonds<'a>(
    config: &mut Config,
    directory: &Path,
    files: &'a [Ifcfg],
    (unmonitored, lacking): (Unmonitored, Lacking),
) -> Result<Vec<&'a str>, ConfigError> {
    let (mut known, mut merged) = (Vec::new(), Known::default());
    // The first slave of each bond.
    let mut slaves: HashMap<&str, &Ifcfg> = HashMap::new();
    for slave in files.iter().filter(|file| !file.is_alias()) {
        if let Some((_, master)) = slave.master() {
            slaves.entry(master).or_insert(slave);
        }
    }
    // The file of a bond only because a slave names it: its options were the module's once.
    let is_named = |file: &Ifcfg| {
        let is_other = file.below().is_some() || file.is_alias();
        !is_other && file.name().is_some_and(|name| slaves.contains_key(name))
    };
    for file in files.iter().filter(|file| file.is_bond() || is_named(file)) {
        let name = file.name().ok_or_else(|| file.refuse("DEVICE", Problem::Missing { key: "DEVICE" }))?;
        known.push(name);
        let is_on_request = file.is_one_of("STARTMODE", &["off", "manual"]);
        if file.is_false("ONBOOT") || is_on_request {
            let key = if is_on_request { "STARTMODE" } else { "ONBOOT" };
            let value = file.get(key).unwrap_or_default().to_owned();
            let (origin, bond) = (file.origin(key), name.to_owned());
            config.notes.push(Note::NotOnBoot { origin, bond, key, value });
        } else {
            if let Some(slave) = slaves.get(name).filter(|_| !file.is_bond()) {
                let slave = slave.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(file.refuse("DEVICE", Problem::NoOptions { slave }));
            }
            let mut notes = file.not_applied();
            notes.extend(file.lacking(lacking)?);
            let found = Config { bonds: vec![file.bond(name, unmonitored)?], notes, ..Config::default() };
            config.merge_with(found, &mut merged)?;
        }
        if let Some(bond) = config.bonds.iter_mut().find(|bond| bond.name == name && file.is_suse()) {
            bond.slaves.extend(file.suse_slaves()?);
            suse::refuse_rules(directory, name)?;
            let routes = suse::routes(directory, bond)?;
            bond.routes.extend(routes);
        }
    }
    Ok(known)
}

/// Adds the slaves of these bonds, in the order of their files.
fn add_slaves(config: &mut Config, files: &[Ifcfg], known: &[&str]) -> Result<(), ConfigError> {
    let mut of_uuids: HashMap<&str, &Ifcfg> = HashMap::new();
    for bond in files.iter().filter(|file| file.is_bond()) {
        if let Some(uuid) = bond.get("UUID") {
            of_uuids.entry(uuid).or_insert(bond);
        }
    }
    for file in files.iter().filter(|file| !file.is_alias()) {
        let Some((key, master)) = file.master() else {
            config.notes.extend(file.master_without_slave(known));
            continue;
        };
        // NetworkManager also finds the bond by the UUID of its connection.
        let of_uuid = of_uuids.get(master);
        let name =
            of_uuid.and_then(|bond| bond.name()).filter(|_| !known.contains(&master)).unwrap_or(master);
        if !known.contains(&name) {
            return Err(file.refuse(key, Problem::NoSuchBond { key, bond: master.to_owned() }));
        }
        if let Some(bond) = config.bonds.iter_mut().find(|bond| bond.name == name) {
            bond.slaves.push(file.slave()?);
            config.notes.extend(file.not_applied());
        }
    }
    Ok(())
}

/// Notes VLANs above the bonds, and bridges that have one as a port, which are not created.
fn note_above(config: &mut Config, files: &[Ifcfg]) {
    let bonds: HashMap<&str, &BondConfig> =
        config.bonds.iter().map(|bond| (bond.name.as_str(), bond)).collect();
    let bond_of = |wanted: &str| bonds.get(wanted).copied();
    for file in files.iter().filter(|file| !file.is_bond() && !file.is_alias()) {
        let Some(name) = file.name() else { continue };
        if let Some((key, bond)) = file.below().and_then(|(key, below)| Some((key, bond_of(below)?))) {
            let (origin, bond, vlan) = (file.origin(key), bond.name.to_string(), name.to_owned());
            config.notes.push(Note::VlanAbove { origin, bond, vlan });
            if let Some(key) =
                ["BONDING_OPTS", "BONDING_MODULE_OPTS"].into_iter().find(|key| file.get(key).is_some())
            {
                let (origin, text) = (file.origin(key), format!("{key} has no effect in the file of a VLAN"));
                config.notes.push(Note::Differs { origin, text });
            }
        }
        for port in file.get("BRIDGE_PORTS").unwrap_or_default().split_whitespace() {
            let Some(bond) = bond_of(port) else { continue };
            let text = format!(
                "{bond} is a port of the bridge {name}, which xbond does not make; add it to {name} once {bond} is up",
                bond = bond.name
            );
            config.notes.push(Note::Differs { origin: file.origin("BRIDGE_PORTS"), text });
        }
    }
}

/// Returns the files of a directory, in the order of their names' bytes.
fn list(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut paths = file::list(directory).map_err(|error| at_file(directory, error.into()))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(PREFIX) && !IGNORED.iter().any(|suffix| name.ends_with(suffix))
    });
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let bytes = file::read(path).map_err(|error| at_file(path, error.into()))?;
    super::lines::utf8(path, bytes)
}

/// Returns whether an optional file exists.
fn is_there(path: &Path) -> Result<bool, ConfigError> {
    let kind = file::kind(path).map_err(|error| at_file(path, error.into()))?;
    Ok(kind != file::FileKind::Absent)
}

fn at_file(path: &Path, problem: Problem) -> ConfigError {
    ConfigError::new(Origin::File { path: path.to_owned(), line: None }, problem)
}

/// Returns whether this may be a file of a bond or of a slave. Any other file may contain any shell code.
fn mentions_bonds(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    ["MASTER", "SLAVE", "BOND"].iter().any(|word| text.contains(word))
}

/// The variables of a file. An empty one counts as not set, as in initscripts.
struct Ifcfg {
    path: PathBuf,
    variables: HashMap<String, Assignment>,
}

impl Ifcfg {
    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let at = |line| Origin::File { path: path.to_owned(), line: Some(line) };
        let assignments =
            shell::assignments(text).map_err(|(line, error)| ConfigError::new(at(line), error.into()))?;
        // Of two assignments to one key, the later one wins.
        let variables = assignments.into_iter().map(|variable| (variable.key.clone(), variable)).collect();
        Ok(Self { path: path.to_owned(), variables })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.variables.get(key).map(|variable| variable.value.as_str()).filter(|value| !value.is_empty())
    }

    fn require(&self, key: &'static str) -> Result<&str, ConfigError> {
        self.get(key).ok_or_else(|| self.refuse(key, Problem::Missing { key }))
    }

    /// Returns DEVICE; SUSE's files may lack it, and use the name of the file.
    fn name(&self) -> Option<&str> {
        self.get("DEVICE")
            .or_else(|| suse::name_of(&self.path).filter(|_| !self.variables.contains_key("DEVICE")))
    }

    fn parsed<T: FromStr>(&self, key: &str, wanted: &'static str) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.bad_value(key, text, wanted))
    }

    fn mac(&self, key: &str) -> Result<Option<Mac>, ConfigError> {
        self.parsed(key, "a MAC address of the form 08:00:27:e8:26:58")
    }

    /// Does `is_true` of initscripts.
    fn is_true(&self, key: &str) -> bool {
        self.is_one_of(key, &["t", "y", "yes", "on", "true", "1"])
    }

    /// Does `is_false` of initscripts, which is not the opposite.
    fn is_false(&self, key: &str) -> bool {
        self.is_one_of(key, &["f", "n", "no", "off", "false", "0"])
    }

    fn is_one_of(&self, key: &str, words: &[&str]) -> bool {
        self.get(key).is_some_and(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
    }

    /// Returns the file, with the line of `key` if the file has the key.
    fn origin(&self, key: &str) -> Origin {
        let line = self.variables.get(key).map(|variable| variable.line);
        Origin::File { path: self.path.clone(), line }
    }

    fn refuse(&self, key: &str, problem: Problem) -> ConfigError {
        ConfigError::new(self.origin(key), problem)
    }

    /// Returns the checked name of an interface from `key`.
    fn interface_name(&self, key: &str, name: &str) -> Result<InterfaceName, ConfigError> {
        InterfaceName::new(name).map_err(|error| self.refuse(key, error.into()))
    }

    fn bad_value(&self, key: &str, value: &str, wanted: &str) -> ConfigError {
        let (value, wanted) = (value.to_owned(), wanted.to_owned());
        self.refuse(key, Problem::BadValue { key: key.to_owned(), value, wanted })
    }

    fn refuse_value(&self, key: &str, why: &'static str) -> ConfigError {
        let value = self.get(key).unwrap_or_default().to_owned();
        self.refuse(key, Problem::Refused { key: key.to_owned(), value, why })
    }

    fn not_applied(&self) -> Vec<Note> {
        let given = NOT_APPLIED.iter().filter(|key| self.get(key).is_some());
        given.map(|key| Note::NotApplied { origin: self.origin(key), key: (*key).to_owned() }).collect()
    }

    /// Whether the file describes a bond. One that was copied for a VLAN or an alias still has the bond's keys.
    fn is_bond(&self) -> bool {
        if self.below().is_some() || self.is_alias() || self.is_false("BONDING_MASTER") {
            return false;
        }
        self.is_one_of("TYPE", &["bond"])
            || self.is_true("BONDING_MASTER")
            || self.get("BONDING_OPTS").is_some()
            || self.get("BONDING_MODULE_OPTS").is_some()
    }

    /// Returns the key that makes the file one of a VLAN, and the interface below the VLAN.
    fn below(&self) -> Option<(&'static str, &str)> {
        let is_vlan = self.is_true("VLAN") || self.is_one_of("TYPE", &["vlan"]);
        if let Some(below) = self.get("ETHERDEVICE") {
            return Some(("ETHERDEVICE", below));
        }
        if let Some(below) = self.get("PHYSDEV").filter(|_| is_vlan || self.get("VLAN_ID").is_some()) {
            return Some(("PHYSDEV", below));
        }
        let below = self.name().and_then(|name| name.rsplit_once('.')).filter(|_| is_vlan);
        below.map(|(below, _)| ("DEVICE", below))
    }

    /// Returns the bond of which this is a slave, and the key that says so.
    fn master(&self) -> Option<(&'static str, &str)> {
        let master = self.get("MASTER").filter(|_| self.is_true("SLAVE")).map(|master| ("MASTER", master));
        // A key of NetworkManager, which needs no SLAVE.
        master.or_else(|| self.get("MASTER_UUID").map(|master| ("MASTER_UUID", master)))
    }

    /// Returns a note about a file that names a bond of these, and is no slave of it to initscripts.
    fn master_without_slave(&self, known: &[&str]) -> Option<Note> {
        let master = self.get("MASTER").filter(|master| known.contains(master))?;
        let text = format!(
            "MASTER={master} without SLAVE=yes: left out, as by initscripts; NetworkManager takes it for a slave: \
             write SLAVE=yes if it is one"
        );
        Some(Note::Differs { origin: self.origin("MASTER"), text })
    }
}

#[cfg(test)]
mod tests;
