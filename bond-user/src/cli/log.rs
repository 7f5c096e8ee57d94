//! `xbond log`

use std::io::Write as _;

use anyhow::{Result, bail};
use hyper::Method;

use super::{
    LogArgs,
    client::{self, NoAgent},
};
use crate::{
    report::{receipt::Log, text},
    store::offline as kept,
    store::paths::Places,
    store::receipts,
    sys::netns,
};

pub fn log(arguments: &LogArgs) -> Result<()> {
    let log = read(&arguments.bond)?;
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&log)?)
    } else {
        text::log(&log.receipts, arguments.details)
    };
    // A reader that has seen enough, such as head, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// From the agent, who may be asked by more than may read the file; if none runs, from the file.
fn read(bond: &str) -> Result<Log> {
    match client::request(Method::GET, &format!("{}/log", client::path_of(bond)?), None) {
        Err(error) if error.is::<NoAgent>() => {}
        answer => return answer,
    }
    let places = Places::of(netns::cookie()?);
    if places.reserves(bond) || !places.run_of(bond).is_dir() {
        bail!("{bond}: no such bond in this network namespace; `xbond show` lists them");
    }
    let log = receipts::log(&places, bond)?;
    if !places.is_claimed() {
        match kept::has_changed(&places, bond) {
            Some(false) => {}
            Some(true) => {
                client::note(format_args!(
                    "{bond}: failovers since its agent ended are told by the next one"
                ));
            }
            None => client::note(format_args!(
                "{bond}: its maps cannot be read: whether it failed over since its agent ended is not known"
            )),
        }
    }
    Ok(log)
}
