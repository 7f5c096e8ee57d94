//! Reads files of further addresses of a bond: `ifcfg-bond0:1`, and `ifcfg-bond0-range0` (`ifup-aliases`).

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use ipnet::IpNet;

use super::{Ifcfg, PREFIX};
use crate::config::{BondConfig, Config, ConfigError, Note};

/// The most addresses of one range: those that differ in the last byte.
const LONGEST_RANGE: u32 = 256;

/// The addresses of a bond so far.
type Addresses = HashSet<IpNet>;

/// Adds the addresses of all files of aliases to their bonds.
pub(super) fn add(config: &mut Config, files: &[Ifcfg]) -> Result<(), ConfigError> {
    let mut known = HashMap::new();
    for file in files {
        let Some(alias) = file.alias() else { continue };
        let Some(bond) = config.bonds.iter_mut().find(|bond| bond.name == alias.parent()) else { continue };
        if file.is_false("ONPARENT") {
            let text = format!("ONPARENT=no: the addresses of this file are left out of {}", bond.name);
            config.notes.push(Note::Differs { origin: file.origin("ONPARENT"), text });
            continue;
        }
        let known: &mut Addresses =
            known.entry(bond.name.clone()).or_insert_with(|| bond.addresses.iter().copied().collect());
        match alias {
            Alias::Label { label, .. } => file.add_labelled(label, bond, known)?,
            Alias::Range { .. } => file.add_range(bond, known)?,
        }
    }
    Ok(())
}

/// A file of addresses of another file's interface.
enum Alias<'a> {
    Label { parent: &'a str, label: &'a str },
    Range { parent: &'a str },
}

impl Alias<'_> {
    fn parent(&self) -> &str {
        match self {
            Self::Label { parent, .. } | Self::Range { parent } => parent,
        }
    }
}

impl Ifcfg {
    /// Whether the file has only addresses for the interface of another file.
    pub(super) fn is_alias(&self) -> bool {
        self.alias().is_some()
    }

    /// Returns the interface whose addresses this file has. initscripts find it by the name of the file.
    fn alias(&self) -> Option<Alias<'_>> {
        let file = self.path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        for label in [self.get("DEVICE").unwrap_or_default(), file] {
            if let Some((parent, _)) = label.split_once(':') {
                return Some(Alias::Label { parent, label });
            }
        }
        let (parent, number) = file.rsplit_once("-range")?;
        let is_range = self.get("IPADDR_START").is_some() || number.bytes().all(|byte| byte.is_ascii_digit());
        is_range.then_some(Alias::Range { parent })
    }

    fn add_labelled(
        &self,
        label: &str,
        bond: &mut BondConfig,
        known: &mut Addresses,
    ) -> Result<(), ConfigError> {
        let mut addresses = self.ipv4_addresses()?;
        if !self.is_false("IPV6INIT") {
            addresses.extend(self.ipv6_addresses()?);
        }
        addresses.retain(|address| known.insert(*address));
        for address in addresses {
            let text = format!("{}: address {address} loses its label {label}", bond.name);
            bond.notes.push(Note::Differs { origin: self.origin("IPADDR"), text });
            bond.addresses.push(address);
        }
        Ok(())
    }

    fn add_range(&self, bond: &mut BondConfig, known: &mut Addresses) -> Result<(), ConfigError> {
        const WANTED: &str = "an IPv4 address";
        self.require("IPADDR_START")?;
        self.require("IPADDR_END")?;
        let parsed = |key| self.parsed::<Ipv4Addr>(key, WANTED).map(|address| address.map_or(0, u32::from));
        let (start, end) = (parsed("IPADDR_START")?, parsed("IPADDR_END")?);
        if start / LONGEST_RANGE != end / LONGEST_RANGE || start > end {
            let why =
                "not after IPADDR_START in the same /24, as initscripts want it; write a range in one /24";
            return Err(self.refuse_value("IPADDR_END", why));
        }
        for address in start..=end {
            let address = self.with_prefix("IPADDR_START", address.into(), "")?.into();
            if known.insert(address) {
                bond.addresses.push(address);
            }
        }
        let text = format!("{}: the addresses of this range lose their labels", bond.name);
        bond.notes.push(Note::Differs { origin: self.origin("IPADDR_START"), text });
        Ok(())
    }
}
