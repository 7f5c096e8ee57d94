//! `xbond show`

use std::io::Write as _;

use anyhow::Result;
use hyper::Method;

use super::{ShowArgs, client};
use crate::report::{json::Report, procfs, text};

pub fn show(arguments: &ShowArgs) -> Result<()> {
    let path = match &arguments.bond {
        Some(bond) => client::path_of(bond)?,
        None => "/v1/bonds".to_owned(),
    };
    let report: Report = client::request(Method::GET, &path, None)?;
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else if arguments.proc {
        report.bonds.iter().map(procfs::show).collect::<Vec<_>>().join("\n")
    } else {
        text::show(&report.bonds)
    };
    // A reader that has seen enough, such as head, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
