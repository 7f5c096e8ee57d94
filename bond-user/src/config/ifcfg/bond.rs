//! Reads a bond, and its slaves, from their files.

use bond_core::{
    name::BondName,
    options::{BondOptions, Unmonitored},
};

use super::{Ifcfg, Lacking};
use crate::config::{BondConfig, BondMac, ConfigError, Note, Origin, Problem, SlaveConfig};

/// Keys of a bond for functions that xbond lacks. Ignoring one would result in another network.
const REFUSED_OF_BOND: &[(&str, &str)] = &[
    ("TEAM_CONFIG", "a team is not a bond; write BONDING_OPTS"),
    ("TEAM_MASTER", "a bond cannot be a port of a team here"),
    ("SRCADDR", "xbond sets no source address of a route; remove it"),
    ("SCOPE", "xbond sets addresses of global scope only; remove it"),
    ("WINDOW", "xbond sets no window of a route; remove it"),
    ("EXTRA_ROUTE_OPTS", "xbond takes no further options of a route; remove it"),
];

/// Keys of a bond for functions that an administrator can add once the bond is up. An import reports them.
const LACKING_OF_BOND: &[(&str, &str)] = &[
    ("BRIDGE", "xbond does not put a bond into a bridge; remove it, and do so once the bond is up"),
    ("OVS_BRIDGE", "xbond does not put a bond into a bridge; remove it, and do so once the bond is up"),
];

const REFUSED_OF_SLAVE: &[(&str, &str)] = &[
    ("TEAM_MASTER", "a slave of a bond cannot be a port of a team"),
    ("OVS_BRIDGE", "a slave of a bond cannot be a port of a bridge"),
];

/// Parameters of the driver's module that no bond has.
const OF_MODULE: &[&str] = &["max_bonds", "tx_queues"];

/// Options and their values.
type Pairs<'a> = Vec<(&'a str, &'a str)>;

impl Ifcfg {
    fn refuse_keys(&self, refused: &[(&str, &'static str)]) -> Result<(), ConfigError> {
        match refused.iter().find(|(key, _)| self.get(key).is_some()) {
            Some((key, why)) => Err(self.refuse_value(key, why)),
            None if self.is_true("VLAN") => {
                Err(self.refuse_value("VLAN", "xbond makes no VLAN devices; remove it"))
            }
            None => Ok(()),
        }
    }

    /// Returns notes of what the file of a bond asks for and xbond does not do.
    ///
    /// # Errors
    /// There is something of that kind, and it is to be refused.
    pub(super) fn lacking(&self, lacking: Lacking) -> Result<Vec<Note>, ConfigError> {
        const DHCP: &[&str] = &["dhcp", "dhcp4", "dhcp6", "dhcp+autoip", "bootp", "autoip"];
        let of_dhcp = self.is_one_of("BOOTPROTO", DHCP).then_some((
            "BOOTPROTO",
            "xbond sets fixed addresses only; write IPADDR and PREFIX, or BOOTPROTO=none and run a DHCP client on the \
             bond",
        ));
        let of_dhcp6 = self.is_true("DHCPV6C").then_some((
            "DHCPV6C",
            "xbond sets fixed addresses only; remove it, and run a DHCP client on the bond",
        ));
        let of_keys = LACKING_OF_BOND.iter().copied().filter(|(key, _)| self.get(key).is_some());
        let mut notes = Vec::new();
        for (key, why) in of_keys.chain(of_dhcp).chain(of_dhcp6) {
            let error = self.refuse_value(key, why);
            if lacking == Lacking::IsRefused {
                return Err(error);
            }
            notes.push(Note::Differs { origin: error.origin, text: error.problem.to_string() });
        }
        Ok(notes)
    }

    pub(super) fn bond(&self, name: &str, unmonitored: Unmonitored) -> Result<BondConfig, ConfigError> {
        self.refuse_keys(REFUSED_OF_BOND)?;
        if let Some((key, _)) = self.master() {
            return Err(self.refuse_value(key, "a bond cannot be a slave of another bond"));
        }
        if self.is_false("ARP") {
            return Err(self.refuse_value("ARP", "a bond here has ARP; remove it"));
        }

        let origin = Origin::File { path: self.path.clone(), line: None };
        let checked = BondName::new(name).map_err(|error| ConfigError::new(origin.clone(), error.into()))?;
        let mut bond = BondConfig::new(checked, origin);
        let (pairs, dropped) = self.bonding_opts()?;
        let (options, notes) = BondOptions::from_pairs(pairs, unmonitored)
            .map_err(|error| self.refuse(self.options_key(), error.into()))?;
        bond.options = options;
        bond.allow_unmonitored = unmonitored;
        bond.notes = notes.into_iter().map(|note| Note::Option { bond: name.to_owned(), note }).collect();
        bond.notes.extend(dropped);
        bond.mac = self.mac("MACADDR")?.or(self.mac("LLADDR")?).map(BondMac::Address);
        bond.mtu = self.parsed("MTU", "a number of bytes")?;
        if self.is_suse() {
            bond.addresses = self.suse_addresses()?;
            return Ok(bond);
        }
        bond.addresses = self.ipv4_addresses()?;
        bond.routes.extend(self.ipv4_default(&bond.addresses, &mut bond.notes)?);
        if !self.is_false("IPV6INIT") {
            bond.addresses.extend(self.ipv6_addresses()?);
            bond.routes.extend(self.ipv6_default()?);
        }
        Ok(bond)
    }

    /// Returns the options, split as `install_bonding_driver` does: the key ends at the first `=`, the value begins
    /// after the last one.
    fn bonding_opts(&self) -> Result<(Pairs<'_>, Vec<Note>), ConfigError> {
        let text = self.get(self.options_key()).unwrap_or_default();
        let (mut pairs, mut notes) = (Vec::new(), Vec::new());
        for word in text.split_whitespace() {
            if word.contains(',') && word.matches('=').count() > 1 {
                let why = "options stand between blanks, not commas";
                return Err(self.refuse(self.options_key(), Problem::Unsupported(format!("{word}: {why}"))));
            }
            let key = word.split('=').next().unwrap_or(word);
            let value = word.rsplit('=').next().unwrap_or(word);
            if OF_MODULE.contains(&key) {
                let text = format!(
                    "{key}={value} is an option of the driver's module, not of a bond, and initscripts cannot set it \
                     either; remove it"
                );
                notes.push(Note::Differs { origin: self.origin(self.options_key()), text });
            } else {
                pairs.push((key, value));
            }
        }
        if !pairs.iter().any(|(key, _)| *key == "mode") {
            return Err(self.refuse(self.options_key(), Problem::NoMode));
        }
        // initscripts write miimon first, and arp_interval then resets it.
        let given = |wanted: &str| {
            let found = pairs.iter().find(|(key, value)| *key == wanted && value.parse() != Ok(0));
            found.map(|(_, value)| (*value).to_owned())
        };
        let dropped = given("arp_interval").map(|arp_interval| {
            let origin = self.origin(self.options_key());
            given("miimon").map(|miimon| Note::MiimonDropped { origin, miimon, arp_interval })
        });
        if dropped.is_some() {
            pairs.retain(|(key, _)| *key != "miimon");
        }
        notes.extend(dropped.flatten());
        Ok((pairs, notes))
    }

    /// Returns the key that contains the options in this file.
    fn options_key(&self) -> &'static str {
        if self.get("BONDING_OPTS").is_none() && self.is_suse() {
            "BONDING_MODULE_OPTS"
        } else {
            "BONDING_OPTS"
        }
    }

    pub(super) fn slave(&self) -> Result<SlaveConfig, ConfigError> {
        self.refuse_keys(REFUSED_OF_SLAVE)?;
        if self.is_one_of("TYPE", &["infiniband"]) {
            return Err(self.refuse_value("TYPE", "xbond enslaves Ethernet devices only"));
        }
        Ok(SlaveConfig {
            hwaddr: self.mac("HWADDR")?,
            mac: self.mac("MACADDR")?,
            mtu: self.parsed("MTU", "a number of bytes")?,
            ..SlaveConfig::new(self.interface_name("DEVICE", self.require("DEVICE")?)?)
        })
    }
}
