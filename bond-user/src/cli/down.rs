//! `xbond down`

use anyhow::{Result, bail};
use hyper::Method;

use super::{DownArgs, client};
use crate::{
    agent::{self, control::Done, places::Places},
    sys::{caps, netns},
};

pub fn down(arguments: &DownArgs) -> Result<()> {
    let path = client::path_of(&arguments.bond)?;
    caps::check()?;
    let places = Places::of(netns::cookie()?);
    if places.is_claimed() {
        client::request::<Done>(Method::DELETE, &path, None)?;
        return Ok(());
    }
    if !arguments.force {
        bail!(
            "no agent runs in this network namespace; to take {} down without one: xbond down {} --force",
            arguments.bond,
            arguments.bond
        );
    }
    agent::down_without_agent(&places, &arguments.bond)
}
