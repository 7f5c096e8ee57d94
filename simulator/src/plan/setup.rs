//! The machine and the configuration of its bonds.

use std::{fmt::Write as _, path::Path};

use bond_core::name::BondName;
use bond_user::{
    config::{BondConfig, toml},
    sys::fake::MacChange,
};

/// The machine.
#[derive(Clone, Debug)]
pub struct Setup {
    /// nic0, nic1, ...
    pub nics: Vec<NicSetup>,
    /// bond0, bond1, ...
    pub bonds: Vec<BondSetup>,
    /// Whether programs can read devices. Otherwise links are known by netlink alone.
    pub has_reader: bool,
    /// How late link events are when nothing is wrong, in milliseconds.
    pub usual_delay: u64,
    /// Whether the kernel makes netkit pairs.
    pub has_netkit: bool,
}

/// A NIC.
#[derive(Clone, Debug)]
pub struct NicSetup {
    /// How its driver takes MAC addresses at first.
    pub macs: MacChange,
    /// It has addresses and routes.
    pub has_addresses: bool,
}

/// A bond, and what is known of its settings.
#[derive(Clone, Debug)]
pub struct BondSetup {
    /// The NICs that its file names.
    pub slaves: Vec<usize>,
    /// Keys and values of its file, as TOML.
    pub settings: Vec<(&'static str, String)>,
}

impl BondSetup {
    /// Returns the value of a setting; `None` for the default.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a setting that is a number; 0 if it is not set.
    pub fn number(&self, key: &str) -> u64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

impl Setup {
    /// Returns the names of the bonds.
    pub fn names(&self) -> Vec<BondName> {
        (0..self.bonds.len()).filter_map(|bond| BondName::new(format!("bond{bond}")).ok()).collect()
    }

    /// Returns the text of the file of all bonds.
    pub fn file(&self) -> String {
        let mut text = String::from("version = 1\n");
        for (number, bond) in self.bonds.iter().enumerate() {
            let slaves: Vec<_> = bond.slaves.iter().map(|nic| format!("\"nic{nic}\"")).collect();
            let _ = writeln!(text, "[bond.bond{number}]\nslaves = [{}]", slaves.join(", "));
            for (key, value) in &bond.settings {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    /// Returns what the agent is configured with.
    ///
    /// # Errors
    /// The file is refused: the simulator has made a mistake.
    pub fn configs(&self) -> anyhow::Result<Vec<BondConfig>> {
        let text = self.file();
        let config = toml::parse(Path::new("simulated.toml"), &text);
        config.map(|config| config.bonds).map_err(|error| anyhow::anyhow!("{error}\n{text}"))
    }
}
