//! `xbond down`

use anyhow::{Result, bail};
use hyper::Method;

use super::{DownArgs, client};
use crate::{
    agent::server::control::Done,
    agent::{self},
    store::paths::Places,
    sys::netns,
};

pub fn down(arguments: &DownArgs) -> Result<()> {
    match &arguments.bond {
        Some(bond) => one(bond, arguments.force),
        None => all(),
    }
}

fn one(bond: &str, force: bool) -> Result<()> {
    let path = client::path_of(bond)?;
    match client::request::<Done>(Method::DELETE, &path, None) {
        Ok(_) => Ok(()),
        Err(error) if !error.is::<client::NoAgent>() => Err(error),
        Err(_) if force => agent::down_without_agent(&Places::of(netns::cookie()?), bond),
        Err(_) => bail!(
            "no agent runs in this network namespace; to take {bond} down without one: xbond down {bond} --force"
        ),
    }
}

/// Those of an agent and those that were left behind. One that fails does not stop the others.
fn all() -> Result<()> {
    let places = Places::of(netns::cookie()?);
    let mut failed = Vec::new();
    for bond in places.bonds() {
        if let Err(error) = one(&bond, true) {
            failed.push(agent::of_bond(&bond, error.to_string()));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}
