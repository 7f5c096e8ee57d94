//! `xbond run`

use std::io::IsTerminal as _;

use anyhow::{Result, bail};
use tracing_subscriber::EnvFilter;

use super::RunArgs;
use crate::{
    agent::{self, LinkEventSource, MissingSlaves, RunOptions},
    bond::options::{BondOptions, Unmonitored},
    config::{BondConfig, Config, Note, Origin, SlaveConfig, ifcfg, toml},
    sys::dataplane::TcAttach,
};

pub fn run(arguments: RunArgs) -> Result<()> {
    let missing_slaves = if arguments.bond.is_some() { MissingSlaves::Refuse } else { MissingSlaves::Await };
    let link_events = if arguments.no_link_events { LinkEventSource::Off } else { LinkEventSource::Netlink };
    let config = configuration(&arguments)?;
    config.check()?;
    log_to_standard_error()?;
    let tc_attach = arguments.clsact.then_some(TcAttach::Clsact);
    agent::run(RunOptions { config, missing_slaves, link_events, tc_attach })?;
    Ok(())
}

fn configuration(arguments: &RunArgs) -> Result<Config> {
    let unmonitored = if arguments.allow_unmonitored { Unmonitored::Allow } else { Unmonitored::Refuse };
    let mut config = if let Some(directory) = &arguments.ifcfg {
        ifcfg::read(directory, unmonitored)?
    } else if !arguments.config.is_empty() {
        toml::read(&arguments.config)?
    } else if let Some(name) = &arguments.bond {
        Config { bonds: vec![from_flags(name, arguments, unmonitored)?], notes: Vec::new() }
    } else {
        bail!("nothing to run: give files (-c FILE), network scripts (--ifcfg DIR), or --bond and --slave");
    };
    if let Some(datapath) = arguments.datapath {
        for bond in &mut config.bonds {
            bond.datapath = datapath.into();
        }
    }
    Ok(config)
}

fn from_flags(name: &str, arguments: &RunArgs, unmonitored: Unmonitored) -> Result<BondConfig> {
    let mut bond = BondConfig::new(name, Origin::Flags);
    let pairs = arguments.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let (options, notes) = BondOptions::from_pairs(pairs, unmonitored)?;
    bond.options = options;
    bond.notes = notes.into_iter().map(|note| Note::Option { bond: name.to_owned(), note }).collect();
    bond.unmonitored = unmonitored;
    bond.slaves = arguments.slave.iter().map(SlaveConfig::new).collect();
    bond.addresses.clone_from(&arguments.address);
    bond.port.clone_from(&arguments.port);
    bond.host_mac = arguments.host_mac;
    bond.mac = arguments.mac;
    bond.mtu = arguments.mtu;
    bond.guard = arguments.guard.unwrap_or_default();
    bond.prearm = arguments.prearm;
    Ok(bond)
}

/// netlink-proto warns of answers that nobody waits for any more, as of a request that was given up: no news.
const DEFAULT_FILTER: &str = "info,netlink_proto=error";

/// Lines on standard error, INFO and above unless RUST_LOG says otherwise.
fn log_to_standard_error() -> Result<()> {
    tracing_log::LogTracer::init()?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::io::stderr().is_terminal();
    // A reader of the log that went away, as a restarted journal, is no reason to fall.
    let lines = lines.with_target(false).with_ansi(colour).log_internal_errors(false);
    tracing::subscriber::set_global_default(lines.finish())?;
    Ok(())
}
