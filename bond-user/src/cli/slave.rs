//! `xbond add-slave`, `xbond del-slave`, `xbond drain` and `xbond undrain`

use std::process::ExitCode;

use anyhow::Result;

use super::{AddSlaveArgs, DelSlaveArgs, DrainArgs, UndrainArgs, client};
use crate::api::{Endpoint, NewDrain, NewSlave};

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

pub fn drain(arguments: DrainArgs) -> Result<ExitCode> {
    let call = Endpoint::Drain.call_of_slave(&arguments.bond, &arguments.slave);
    let drain = serde_json::to_value(NewDrain { seconds: arguments.time, why: arguments.why })?;
    let done = client::change(call, Some(drain), &arguments.wait)?;
    Ok(client::finish(&done))
}

pub fn undrain(arguments: &UndrainArgs) -> Result<ExitCode> {
    let call = Endpoint::Undrain.call_of_slave(&arguments.bond, &arguments.slave);
    let done = client::change(call, None, &arguments.wait)?;
    Ok(client::finish(&done))
}
