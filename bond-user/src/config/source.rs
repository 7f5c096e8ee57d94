//! Where the bonds of an agent are described, to be read again at any time.

use std::path::{Path, PathBuf};

use bond_core::options::Unmonitored;

use super::{Config, ConfigError, Datapath, OnExit, ifcfg, toml};

/// Files, and what the command line says of all their bonds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub files: Files,
    /// Instead of what the files say.
    pub datapath: Option<Datapath>,
    pub on_exit: Option<OnExit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// What is in [`Source::DIRECTORY`]; nothing is an answer.
    Default,
    /// TOML files, and directories of them.
    Toml(Vec<PathBuf>),
    /// A directory of RHEL's ifcfg files.
    Ifcfg { directory: PathBuf, unmonitored: Unmonitored },
}

impl Source {
    /// Whose bonds an agent serves that is told of no others.
    pub const DIRECTORY: &'static str = "/etc/xbond";

    /// What the files say now, checked as a whole.
    ///
    /// # Errors
    /// A file cannot be read, or says what is refused.
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
