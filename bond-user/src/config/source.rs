//! The source of an agent's bonds, which can be read again at any time.

use std::path::{Path, PathBuf};

use bond_core::options::Unmonitored;

use super::{Config, ConfigError, Datapath, OnExit, ifcfg, toml};

/// Files, and the settings of the command line for all their bonds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The files.
    pub files: Files,
    /// Overrides the setting in the files.
    pub datapath: Option<Datapath>,
    /// Overrides the files.
    pub on_exit: Option<OnExit>,
}

/// The files of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// The files in [`Source::DIRECTORY`]; an empty or missing directory is valid.
    Default,
    /// TOML files, and directories of them.
    Toml(Vec<PathBuf>),
    /// A directory of RHEL's ifcfg files.
    Ifcfg {
        /// The directory of the scripts.
        directory: PathBuf,
        /// Whether bonds without monitoring are accepted.
        unmonitored: Unmonitored,
    },
}

impl Source {
    /// The directory of bonds for an agent whose command line names no others.
    pub const DIRECTORY: &'static str = "/etc/xbond";

    /// Returns the current contents of the files, checked as a whole.
    ///
    /// # Errors
    /// A file cannot be read, or contains a refused setting.
    pub fn read(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.files {
            Files::Default => toml::read_if_any(Path::new(Self::DIRECTORY))?,
            Files::Toml(paths) => toml::read(paths)?,
            Files::Ifcfg { directory, unmonitored } => ifcfg::read(directory, *unmonitored)?,
        };
        for bond in &mut config.bonds {
            bond.datapath = self.datapath.unwrap_or(bond.datapath);
            bond.on_exit = self.on_exit.unwrap_or(bond.on_exit);
        }
        config.check()?;
        Ok(config)
    }
}
