//! `xbond confirm`

use anyhow::Result;
use hyper::Method;

use super::{client, output};
use crate::agent::server::control::Done;

pub fn confirm() -> Result<()> {
    let done: Done = client::request(Method::POST, "/v1/confirm", None)?;
    output::print_lines(&done.changes);
    Ok(())
}
