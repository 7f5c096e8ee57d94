//! `xbond down`

use anyhow::{Result, bail};
use hyper::Method;

use super::{DownArgs, client};
use crate::{
    agent::{self, control::Done, places::Places},
    sys::netns,
};

pub fn down(arguments: &DownArgs) -> Result<()> {
    let path = client::path_of(&arguments.bond)?;
    match client::request::<Done>(Method::DELETE, &path, None) {
        Ok(_) => Ok(()),
        Err(error) if !error.is::<client::NoAgent>() => Err(error),
        Err(_) if arguments.force => {
            agent::down_without_agent(&Places::of(netns::cookie()?), &arguments.bond)
        }
        Err(_) => bail!(
            "no agent runs in this network namespace; to take {} down without one: xbond down {} --force",
            arguments.bond,
            arguments.bond
        ),
    }
}
