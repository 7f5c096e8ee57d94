//! `xbond set`

use std::process::ExitCode;

use anyhow::Result;

use super::{SetArgs, client};
use crate::api::{Endpoint, OptionChange};

/// Changes options of a bond or a slave: `xbond set`.
///
/// # Errors
/// There is no agent or no such bond, or an option is refused.
pub fn set(arguments: SetArgs) -> Result<ExitCode> {
    let call = match &arguments.slave {
        Some(slave) => Endpoint::SetSlave.call_of_slave(&arguments.bond, slave),
        None => Endpoint::SetBond.call_of(&arguments.bond),
    };
    let change = serde_json::to_value(OptionChange { set: arguments.settings })?;
    let done = client::change(call, Some(change), &arguments.wait)?;
    Ok(client::finish(&done))
}
