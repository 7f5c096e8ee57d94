//! `xbond add`

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};

use super::{AddArgs, client, output, persist::Persistent, run};
use crate::{
    api::{Endpoint, NewBonds},
    config::{Config, toml},
};

pub fn add(arguments: &AddArgs) -> Result<ExitCode> {
    let Some(described) = run::described(&arguments.bonds)? else {
        bail!(
            "nothing to add: give files (-c FILE), network scripts (--ifcfg DIR), or --bond; `xbond reload` \
             reads the agent's own files again"
        );
    };
    let config = described.read()?;
    if let Some((key, origin)) = config.key_of_agent() {
        bail!("{origin}: {key} is for the files that an agent is started with");
    }
    for note in config.notes.iter().chain(config.bonds.iter().flat_map(|bond| &bond.notes)) {
        output::note(note);
    }
    let persistent = arguments.persist.then(|| Persistent::of(&config, Path::new("/"))).transpose()?;
    let missing_slaves = described.missing_slaves();
    let toml = toml::write(&Config { bonds: config.bonds, ..Config::default() });
    let new = serde_json::to_value(NewBonds { toml, missing_slaves })?;
    let done = client::change(Endpoint::AddBonds.call(), Some(new), &arguments.wait)?;
    output::print_lines(&done.changes);
    if let Some(persistent) = persistent {
        for path in persistent.write()? {
            output::print(&format!("{}\n", path.display()));
        }
        output::note(
            "network managers read their files when they are reloaded: networkctl reload, nmcli general reload",
        );
    }
    Ok(client::finish(&done))
}
