//! `xbond add`

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};

use super::{
    AddArgs, client, output,
    persist::{self, Persistent},
    run,
};
use crate::{
    api::{Endpoint, NewBonds},
    config::{Config, toml},
    report::wording,
};

/// Adds bonds to the running agent: `xbond add`.
///
/// # Errors
/// Nothing is described, a file is refused, or the agent is; files of `--persist` cannot be written.
pub fn add(arguments: &AddArgs) -> Result<ExitCode> {
    let Some(described) = run::described(&arguments.bonds)? else {
        bail!(wording::nothing_to_add());
    };
    let config = described.read()?;
    if let Some((key, origin)) = config.key_of_agent() {
        bail!(wording::key_of_agent(origin, key));
    }
    for note in config.notes.iter().chain(config.bonds.iter().flat_map(|bond| &bond.notes)) {
        output::note(note);
    }
    let persistent = arguments.persist.then(|| Persistent::of(&config, Path::new("/"))).transpose()?;
    let missing_slaves = described.missing_slaves();
    let toml = toml::write(&Config { bonds: config.bonds, ..Config::default() });
    let new = serde_json::to_value(NewBonds { toml, missing_slaves })?;
    let done = client::change(Endpoint::AddBonds.call(), Some(new), &arguments.wait)?;
    persist::finish(&done, persistent)
}
