//! `xbond reload`

use anyhow::Result;
use hyper::Method;

use super::client;
use crate::agent::server::control::Done;

pub fn reload() -> Result<()> {
    let done: Done = client::request(Method::POST, "/v1/reload", None)?;
    for note in &done.notes {
        client::note(note);
    }
    if done.changes.is_empty() {
        client::print(&["nothing changed".to_owned()]);
    } else {
        client::print(&done.changes);
    }
    Ok(())
}
