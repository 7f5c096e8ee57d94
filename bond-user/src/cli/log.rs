//! `xbond log`

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};

use super::{LogArgs, client};
use crate::{
    agent::{places::Places, receipts},
    report::{receipt, text},
    sys::netns,
};

/// From the file, which is there with an agent and without.
pub fn log(arguments: &LogArgs) -> Result<()> {
    let bond = &arguments.bond;
    client::path_of(bond)?;
    let places = Places::of(netns::cookie()?);
    let directory = places.run_of(bond);
    if places.reserves(bond) || !directory.is_dir() {
        bail!("{bond}: no such bond in this network namespace; `xbond show` lists them");
    }
    let receipts = receipts::read(&directory)
        .with_context(|| format!("{}", directory.join(receipts::FILE).display()))
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let text = if arguments.json {
        let log = receipt::Log { version: receipt::VERSION, bond: bond.clone(), receipts };
        format!("{}\n", serde_json::to_string_pretty(&log)?)
    } else {
        text::log(&receipts, arguments.details)
    };
    // A reader that has seen enough, such as head, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
