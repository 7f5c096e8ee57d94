//! `xbond add-slave` and `xbond del-slave`

use anyhow::Result;
use hyper::Method;

use super::{AddSlaveArgs, DelSlaveArgs, client};
use crate::agent::server::control::{Done, NewSlave};

pub fn add(arguments: AddSlaveArgs) -> Result<()> {
    let path = format!("{}/slaves", client::path_of(&arguments.bond)?);
    let slave = serde_json::to_value(NewSlave { name: arguments.slave, options: arguments.options })?;
    client::request::<Done>(Method::POST, &path, Some(slave))?;
    Ok(())
}

pub fn delete(arguments: &DelSlaveArgs) -> Result<()> {
    let path = client::path_of_slave(&arguments.bond, &arguments.slave)?;
    client::request::<Done>(Method::DELETE, &path, None)?;
    Ok(())
}
