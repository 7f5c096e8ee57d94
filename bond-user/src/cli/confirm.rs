//! `xbond confirm`

use anyhow::Result;
use hyper::Method;

use super::client;
use crate::agent::server::control::Done;

pub fn confirm() -> Result<()> {
    let done: Done = client::request(Method::POST, "/v1/confirm", None)?;
    client::print(&done.changes);
    Ok(())
}
