//! Writes bonds as files of other programs, the way back from [`super::dialect`].
//!
//! What a program cannot express is a note. What its reader makes of the files is the same bond, as far as there is no note; the
//! tests try that with bonds of all kinds.

mod ifupdown;
mod ip;
mod netplan;
mod networkd;
mod nm;
mod nmstate;
#[cfg(test)]
mod tests;
pub mod unmanaged;

use std::{fmt, path::Path};

use bond_core::options::{self, BondOptions, SlaveOptions};

use super::{BondConfig, Config, SlaveConfig};

/// For which program files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// systemd-networkd.
    Networkd,
    /// netplan.
    Netplan,
    /// NetworkManager's keyfiles.
    Nm,
    /// ifupdown with ifenslave.
    Ifupdown,
    /// nmstate.
    Nmstate,
    /// Commands of iproute2.
    Ip,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Networkd => "networkd",
            Self::Netplan => "netplan",
            Self::Nm => "nm",
            Self::Ifupdown => "ifupdown",
            Self::Nmstate => "nmstate",
            Self::Ip => "ip",
        })
    }
}

/// Files for a program, and what they do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The files.
    pub files: Vec<ProgramFile>,
    /// A sentence for each setting that is lost.
    pub notes: Vec<String>,
}

/// A file for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// Its name in its directory.
    pub name: String,
    /// The contents.
    pub text: String,
    /// The program refuses or warns of a file that others can read.
    pub is_private: bool,
}

/// A name that cannot be written into files of other programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name}: not a name for files of other programs; they take letters, digits, and any of . _ - @ + in a name"
)]
pub struct UnsafeName {
    /// The name.
    pub name: String,
}

/// Writes all bonds of a configuration.
///
/// # Errors
/// A name has characters that mean something else in such files.
pub fn write(program: Program, config: &Config) -> Result<Exported, UnsafeName> {
    let mut exported = Exported::default();
    for bond in &config.bonds {
        check_names(bond)?;
        note_own_settings(bond, &mut exported.notes);
        if let Some(slave) = bond.mac_slave().filter(|_| program != Program::Nmstate) {
            lost(&mut exported.notes, bond, format_args!("mac={slave}"), program);
        }
    }
    match program {
        Program::Networkd => each(config, &mut exported, networkd::write),
        Program::Nm => each(config, &mut exported, nm::write),
        Program::Netplan => netplan::write(&config.bonds, &mut exported),
        Program::Ifupdown => ifupdown::write(&config.bonds, &mut exported),
        Program::Nmstate => nmstate::write(&config.bonds, &mut exported),
        Program::Ip => ip::write(&config.bonds, &mut exported),
    }
    Ok(exported)
}

fn each(config: &Config, exported: &mut Exported, write: fn(&BondConfig, &mut Exported)) {
    config.bonds.iter().for_each(|bond| write(bond, exported));
}

/// Every dialect takes these characters as they are; others would have to be quoted, which some cannot.
fn check_names(bond: &BondConfig) -> Result<(), UnsafeName> {
    let slaves = bond.slaves.iter().map(|slave| slave.name.as_str());
    let primary = bond.options.primary.as_deref();
    for name in [bond.name.as_str()].into_iter().chain(slaves).chain(primary) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
        if name.starts_with('-') || !name.bytes().all(is_plain) || Path::new(name).components().count() != 1 {
            return Err(UnsafeName { name: name.to_owned() });
        }
    }
    Ok(())
}

fn note_own_settings(bond: &BondConfig, notes: &mut Vec<String>) {
    let own = bond.settings().into_iter().map(|(key, _)| key);
    for key in own.filter(|key| !["allow_unmonitored", "mac", "mtu"].contains(key)) {
        notes.push(format!(
            "{}: {key} is a setting of xbond, and the driver's bonds do not have it",
            bond.name
        ));
    }
    let unused = bond.options.to_pairs().into_iter().zip(BondOptions::default().to_pairs());
    for ((key, value), _) in unused.filter(|((key, value), (_, default))| is_unused(key) && value != default)
    {
        notes.push(format!("{}: {key}={value} has no effect in active-backup", bond.name));
    }
}

fn is_unused(key: &str) -> bool {
    options::ROWS.iter().any(|row| row.key == key && row.unused)
}

/// Returns the options with an effect that differ from the driver's defaults, without the mode.
fn options(bond: &BondConfig) -> Vec<(&'static str, String)> {
    let pairs = bond.options.to_pairs().into_iter().zip(BondOptions::default().to_pairs());
    let differing = pairs.filter(|((key, value), (_, default))| value != default && !is_unused(key));
    differing.map(|(pair, _)| pair).collect()
}

fn is_of_slave(bond: &BondConfig, name: &str) -> bool {
    bond.slaves.iter().any(|slave| slave.name == *name)
}

/// Adds the note that something is lost.
fn lost(notes: &mut Vec<String>, bond: &BondConfig, what: impl fmt::Display, program: Program) {
    notes.push(format!("{}: {what} is lost: {program} cannot express it", bond.name));
}

/// Adds notes about settings of a slave that the program cannot express.
fn lost_of_slave(
    notes: &mut Vec<String>,
    bond: &BondConfig,
    slave: &SlaveConfig,
    program: Program,
    cannot: &[&str],
) {
    let defaults = SlaveOptions::default();
    let settings = [
        ("prio", (slave.options.prio != defaults.prio).then(|| slave.options.prio.to_string())),
        (
            "queue_id",
            (slave.options.queue_id != defaults.queue_id).then(|| slave.options.queue_id.to_string()),
        ),
        ("watch", slave.options.watch.map(|watch| watch.to_string())),
        ("hwaddr", slave.hwaddr.map(|mac| mac.to_string())),
        ("mac", slave.mac.map(|mac| mac.to_string())),
        ("mtu", slave.mtu.map(|mtu| mtu.to_string())),
    ];
    // No other program has `watch`.
    let is_lost = |key: &str| key == "watch" || cannot.contains(&key);
    for (key, value) in settings.into_iter().filter(|(key, _)| is_lost(key)) {
        if let Some(value) = value {
            lost(notes, bond, format_args!("{}: {key}={value}", slave.name), program);
        }
    }
}
