//! `xbond takeover` and `xbond giveback`

mod programs;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Result, anyhow};
use bond_core::name::BondName;

use super::{
    GivebackArgs, TakeoverArgs, WaitArgs, client, import, output,
    persist::{self, Persistent},
};
use crate::{
    api::{Call, Done, Endpoint, NewTakeover},
    config::{BondConfig, Config, toml},
    report::wording,
    sys::netlink::LinkInfo,
};

/// A NIC may take ten seconds to have a link, and there may be several.
const WITHIN: Duration = Duration::from_secs(120);

/// Takes a bond of the kernel's driver over, or leads it back: `xbond takeover`.
///
/// # Errors
/// There is no such bond, something of it cannot be moved, or a step failed; then it was led back.
pub fn takeover(arguments: &TakeoverArgs) -> Result<ExitCode> {
    let bond = &arguments.bond;
    if arguments.undo {
        let done = change(Endpoint::UndoTakeover.call_of(bond), None, &arguments.wait)?;
        output::print_lines(&done.changes);
        return Ok(client::finish(&done));
    }
    let (config, stack) = read(bond)?;
    // Before anything is changed.
    for warning in programs::warnings(bond, &stack) {
        output::note(warning);
    }
    if arguments.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let whole = Config { bonds: vec![config], ..Config::default() };
    let persistent = arguments.persist.then(|| Persistent::of(&whole, Path::new("/"))).transpose()?;
    let new = NewTakeover { toml: toml::write(&whole), confirm: arguments.confirm };
    let call = Endpoint::TakeOver.call_of(bond);
    let done = change(call, Some(serde_json::to_value(new)?), &arguments.wait)?;
    persist::finish(&done, persistent)
}

/// Gives a bond to the kernel's driver: `xbond giveback`.
///
/// # Errors
/// There is no such bond, something of it cannot be moved, or a step failed.
pub fn giveback(arguments: &GivebackArgs) -> Result<ExitCode> {
    let call = Endpoint::GiveBack.call_of(&arguments.bond);
    let done = change(call, None, &arguments.wait)?;
    output::print_lines(&done.changes);
    Ok(client::finish(&done))
}

/// Requests a change, for whose end the agent waits longer than usual.
fn change(call: Call, body: Option<serde_json::Value>, wait: &WaitArgs) -> Result<Done> {
    let call = if wait.wait.is_some() { call } else { call.within(WITHIN) };
    client::change(call, body, wait)
}

/// Reads the driver's bond, and returns it with its interface and those of its VLANs.
fn read(name: &BondName) -> Result<(BondConfig, Vec<LinkInfo>)> {
    let (bonds, above) = import::kernel_bonds()?;
    let bond = bonds.iter().find(|bond| bond.link.name == **name);
    let bond = bond.ok_or_else(|| anyhow!(wording::no_such_kernel_bond(name)))?;
    let order = import::order_of_enslaving(name);
    let mut config = import::kernel::convert(bond, &above, &order)?.config;
    // The bond keeps its MAC address, whichever slave it is of.
    if config.options.fail_over_mac != bond_core::options::FailOverMac::Active {
        config.mac = Some(crate::config::BondMac::Address(bond.link.mac));
    }
    config.notes.clear();
    let mut stack = vec![bond.link.clone()];
    let mut place = 0;
    while let Some(below) = stack.get(place).map(|link| link.ifindex) {
        let is_above = |link: &&LinkInfo| link.vlan.is_some() && link.link == Some(below);
        stack.extend(above.links.iter().filter(is_above).cloned());
        place += 1;
    }
    Ok((config, stack))
}
