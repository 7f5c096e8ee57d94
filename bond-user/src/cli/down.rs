//! `xbond down`

use anyhow::{Result, bail};
use hyper::Method;

use super::{DownArgs, client};
use crate::{
    agent::{self, control::Done, places::Places},
    sys::{caps, netns},
};

pub fn down(arguments: &DownArgs) -> Result<()> {
    match &arguments.bond {
        Some(bond) => one(bond, arguments.force),
        None => all(),
    }
}

fn one(bond: &str, force: bool) -> Result<()> {
    let path = client::path_of(bond)?;
    caps::check()?;
    let places = Places::of(netns::cookie()?);
    if places.is_claimed() {
        client::request::<Done>(Method::DELETE, &path, None)?;
        return Ok(());
    }
    if !force {
        bail!(
            "no agent runs in this network namespace; to take {bond} down without one: xbond down {bond} --force"
        );
    }
    agent::down_without_agent(&places, bond)
}

/// Those of an agent and those that were left behind. One that fails does not stop the others.
fn all() -> Result<()> {
    let places = Places::of(netns::cookie()?);
    let mut failed = Vec::new();
    for bond in places.bonds() {
        if let Err(error) = one(&bond, true) {
            failed.push(format!("{bond}: {error}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}
