//! `xbond confirm`

use anyhow::Result;

use super::{client, output};
use crate::api::{Done, Endpoint};

pub fn confirm() -> Result<()> {
    let done: Done = client::request(&Endpoint::Confirm.call(), None)?;
    output::print_lines(&done.changes);
    Ok(())
}
