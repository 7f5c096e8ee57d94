//! `xbond add-slave`, `xbond del-slave`, `xbond drain` and `xbond undrain`

use std::process::ExitCode;

use anyhow::Result;

use super::{AddSlaveArgs, DelSlaveArgs, DrainArgs, UndrainArgs, client};
use crate::api::{Endpoint, NewDrain, NewSlave};

/// Enslaves an interface: `xbond add-slave`.
///
/// # Errors
/// There is no agent or no such bond, or the slave is refused.
pub fn add(arguments: AddSlaveArgs) -> Result<ExitCode> {
    let call = Endpoint::AddSlave.call_of(&arguments.bond);
    let slave = serde_json::to_value(NewSlave { name: arguments.slave, options: arguments.options })?;
    let done = client::change(call, Some(slave), &arguments.wait)?;
    Ok(client::finish(&done))
}

/// Releases a slave: `xbond del-slave`.
///
/// # Errors
/// There is no agent, no such bond or no such slave, or the release fails.
pub fn delete(arguments: &DelSlaveArgs) -> Result<ExitCode> {
    let call = Endpoint::DelSlave.call_of_slave(&arguments.bond, &arguments.slave);
    let done = client::change(call, None, &arguments.wait)?;
    Ok(client::finish(&done))
}

/// Drains a slave: `xbond drain`.
///
/// # Errors
/// There is no agent, no such bond or no such slave, or the time is refused.
pub fn drain(arguments: DrainArgs) -> Result<ExitCode> {
    let call = Endpoint::Drain.call_of_slave(&arguments.bond, &arguments.slave);
    let drain = serde_json::to_value(NewDrain { seconds: arguments.time, why: arguments.why })?;
    let done = client::change(call, Some(drain), &arguments.wait)?;
    Ok(client::finish(&done))
}

/// Ends the drain of a slave: `xbond undrain`.
///
/// # Errors
/// There is no agent, no such bond or no such slave.
pub fn undrain(arguments: &UndrainArgs) -> Result<ExitCode> {
    let call = Endpoint::Undrain.call_of_slave(&arguments.bond, &arguments.slave);
    let done = client::change(call, None, &arguments.wait)?;
    Ok(client::finish(&done))
}
