//! `xbond add-slave` and `xbond del-slave`

use std::process::ExitCode;

use anyhow::Result;

use super::{AddSlaveArgs, DelSlaveArgs, client};
use crate::api::{Endpoint, NewSlave};

pub fn add(arguments: AddSlaveArgs) -> Result<ExitCode> {
    let call = Endpoint::AddSlave.call_of(&arguments.bond);
    let slave = serde_json::to_value(NewSlave { name: arguments.slave, options: arguments.options })?;
    let done = client::change(call, Some(slave), &arguments.wait)?;
    Ok(client::finish(&done))
}

pub fn delete(arguments: &DelSlaveArgs) -> Result<ExitCode> {
    let call = Endpoint::DelSlave.call_of_slave(&arguments.bond, &arguments.slave);
    let done = client::change(call, None, &arguments.wait)?;
    Ok(client::finish(&done))
}
