//! `xbond set`

use std::process::ExitCode;

use anyhow::Result;
use hyper::Method;

use super::{SetArgs, client};
use crate::agent::server::control::OptionChange;

pub fn set(arguments: SetArgs) -> Result<ExitCode> {
    let of_what = match &arguments.slave {
        Some(slave) => client::path_of_slave(&arguments.bond, slave),
        None => client::path_of(&arguments.bond),
    };
    let path = format!("{of_what}/options");
    let change = serde_json::to_value(OptionChange { set: arguments.settings })?;
    let done = client::change(Method::POST, &path, Some(change), &arguments.wait)?;
    Ok(client::finish(&done))
}
