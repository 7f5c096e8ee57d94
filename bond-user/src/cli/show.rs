//! `xbond show`

use std::io::Write as _;

use anyhow::{Result, bail};
use hyper::Method;

use super::{
    ShowArgs,
    client::{self, NoAgent},
};
use crate::{
    report::{
        json::{Report, Source},
        procfs,
        text::{self, Amount},
    },
    store::offline as kept,
    store::paths::Places,
    sys::{caps, netns},
};

pub fn show(arguments: &ShowArgs) -> Result<()> {
    let report = read(arguments)?;
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else if arguments.proc {
        if report.source == Source::Maps {
            bail!("--proc shows options, which only an agent knows, and none runs; leave --proc out");
        }
        report.bonds.iter().map(procfs::show).collect::<Vec<_>>().join("\n")
    } else {
        text::show(&report, Amount { details: arguments.details, statistics: arguments.statistics })
    };
    // A reader that has seen enough, such as head, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// From the agent; if none runs, from what one has left.
fn read(arguments: &ShowArgs) -> Result<Report> {
    let path = match &arguments.bond {
        Some(bond) => client::path_of(bond)?,
        None => "/v1/bonds".to_owned(),
    };
    let error = match client::request(Method::GET, &path, None) {
        Ok(report) => return Ok(report),
        Err(error) => error,
    };
    let places = Places::of(netns::cookie()?);
    // One that is just starting, or ending, is not to be looked over the shoulder.
    if !error.is::<NoAgent>() || places.is_claimed() || kept::names(&places).is_empty() {
        return Err(error);
    }
    caps::check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(kept::report(&places, arguments.bond.as_deref()))?;
    // A netlink request that waits for RTNL keeps its thread, and nobody else.
    runtime.shutdown_background();
    Ok(report)
}
