//! Files of other programs that describe bonds: each dialect has its own units, defaults and words.
//!
//! A dialect's reader makes [`draft::Draft`]s of its files, which become the one model of all configurations. What xbond
//! does not do is a note with file and line. Nothing of a file is executed.

mod dracut;
mod draft;
mod files;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
mod ifupdown;
mod ini;
mod netplan;
mod networkd;
mod nm;
mod nmstate;
mod team;
#[cfg(test)]
mod tests;
mod time;
mod tree;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use bond_core::options::{self, Unmonitored};

use super::{Config, ConfigError, Note, ifcfg};

/// Whose files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Network scripts of RHEL and SUSE.
    Ifcfg,
    /// systemd-networkd.
    Networkd,
    /// netplan.
    Netplan,
    /// NetworkManager's keyfiles.
    Nm,
    /// ifupdown, ifupdown2 and ifupdown-ng.
    Ifupdown,
    /// nmstate.
    Nmstate,
    /// teamd.
    Team,
    /// The kernel's command line.
    Dracut,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: &'static [Self] = &[
        Self::Ifcfg,
        Self::Networkd,
        Self::Netplan,
        Self::Nm,
        Self::Ifupdown,
        Self::Nmstate,
        Self::Team,
        Self::Dracut,
    ];

    /// Returns the places of the files on a host, the first of which wins.
    pub fn places(self) -> &'static [&'static str] {
        match self {
            Self::Ifcfg => &["/etc/sysconfig/network-scripts"],
            Self::Networkd => networkd::DIRECTORIES,
            Self::Netplan => netplan::DIRECTORIES,
            Self::Nm => nm::DIRECTORIES,
            Self::Ifupdown => ifupdown::DIRECTORIES,
            Self::Nmstate => nmstate::DIRECTORIES,
            Self::Team => &[],
            Self::Dracut => dracut::DIRECTORIES,
        }
    }

    /// Returns what keeps the program from making the driver's bond at the next boot.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::Ifcfg => "set ONBOOT=no (RHEL) or STARTMODE=off (SUSE) in them",
            Self::Networkd => "remove the .netdev file, and Bond= from the files of the slaves",
            Self::Netplan => "remove the bond from them, and run `netplan generate`",
            Self::Nm => "delete the connection of the bond, and those of its ports: nmcli connection delete",
            Self::Ifupdown => "remove the stanzas of the bond, and bond-master from those of its slaves",
            Self::Nmstate => "remove the bond from them, and delete its connection: nmcli connection delete",
            Self::Team => "stop teamd, and remove what starts it",
            Self::Dracut => "remove bond= from the kernel's command line",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ifcfg => "ifcfg",
            Self::Networkd => "networkd",
            Self::Netplan => "netplan",
            Self::Nm => "nm",
            Self::Ifupdown => "ifupdown",
            Self::Nmstate => "nmstate",
            Self::Team => "team",
            Self::Dracut => "dracut",
        })
    }
}

/// Reads the bonds of files or directories. A bond without a link monitor is accepted with a note.
///
/// # Errors
/// No bond that xbond can have is in them; the error has the file and, if there is one, the line.
pub fn read(dialect: Dialect, paths: &[PathBuf]) -> Result<Config, ConfigError> {
    files::check_exist(paths)?;
    match dialect {
        Dialect::Ifcfg => read_ifcfg(paths),
        Dialect::Networkd => networkd::read(paths),
        Dialect::Netplan => netplan::read(paths),
        Dialect::Nm => nm::read(paths),
        Dialect::Ifupdown => ifupdown::read(paths),
        Dialect::Nmstate => nmstate::read(paths),
        Dialect::Team => team::read(paths),
        Dialect::Dracut => dracut::read(paths),
    }
}

fn read_ifcfg(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    for path in paths {
        config.merge(ifcfg::import(path)?)?;
    }
    config.check()?;
    let is_unmonitored = |note: &Note| matches!(note, Note::Option { note: options::Note::Unmonitored, .. });
    for bond in &mut config.bonds {
        if bond.options.is_monitored() {
            bond.allow_unmonitored = Unmonitored::Refuse;
        }
        bond.notes.retain(|note| !is_unmonitored(note));
        if !bond.options.is_monitored() {
            bond.notes.push(draft::differs(&bond.origin, unmonitored(&bond.name)));
        }
    }
    Ok(config)
}

/// Returns a sentence about a bond that is imported without a link monitor.
pub fn unmonitored(bond: &str) -> String {
    format!(
        "{bond}: miimon=0: nothing monitors its links, so it never fails over; set miimon = 100 and remove \
         allow_unmonitored"
    )
}

/// Returns those of a dialect's places that are directories.
pub fn places_here(dialect: Dialect) -> Vec<PathBuf> {
    let places = dialect.places().iter().map(|place| Path::new(place).to_owned());
    places.filter(|place| files::is_directory(place).unwrap_or(false)).collect()
}
