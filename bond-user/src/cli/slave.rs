//! `xbond add-slave` and `xbond del-slave`

use std::process::ExitCode;

use anyhow::Result;
use hyper::Method;

use super::{AddSlaveArgs, DelSlaveArgs, client};
use crate::agent::server::control::NewSlave;

pub fn add(arguments: AddSlaveArgs) -> Result<ExitCode> {
    let path = format!("{}/slaves", client::path_of(&arguments.bond));
    let slave = serde_json::to_value(NewSlave { name: arguments.slave, options: arguments.options })?;
    let done = client::change(Method::POST, &path, Some(slave), &arguments.wait)?;
    Ok(client::finish(&done))
}

pub fn delete(arguments: &DelSlaveArgs) -> Result<ExitCode> {
    let path = client::path_of_slave(&arguments.bond, &arguments.slave);
    let done = client::change(Method::DELETE, &path, None, &arguments.wait)?;
    Ok(client::finish(&done))
}
