//! `xbond set`

use anyhow::Result;
use hyper::Method;

use super::{SetArgs, client};
use crate::agent::server::control::{Change, Done};

pub fn set(arguments: SetArgs) -> Result<()> {
    let of_what = match &arguments.slave {
        Some(slave) => client::path_of_slave(&arguments.bond, slave)?,
        None => client::path_of(&arguments.bond)?,
    };
    let path = format!("{of_what}/options");
    let change = serde_json::to_value(Change { set: arguments.settings })?;
    let done: Done = client::request(Method::POST, &path, Some(change))?;
    for note in done.notes {
        client::note(note);
    }
    Ok(())
}
