//! `xbond run`

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal as _,
    panic,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use bond_core::{
    name::{BondName, InterfaceName},
    options::{BondOptions, Unmonitored},
};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::{BondArgs, REFUSED, RunArgs, traffic};
use crate::{
    agent::{self, LinkEventSource, MissingSlaves, RunOptions},
    config::{
        BondConfig, Config, ConfigError, Files, Metrics, Note, Origin, Problem, SlaveConfig, Source, Writers,
    },
    report::lines,
    store::paths::Paths,
    sys::{dataplane::TcAttach, netlink::Netlink, netns, signals},
};

/// Runs an agent to its end. What it prints, its error included, waits for no reader.
pub fn run(arguments: RunArgs) -> ExitCode {
    panic::set_hook(Box::new(|panic| {
        lines::note(&panic.to_string());
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            trace.to_string().lines().for_each(lines::note);
        }
    }));
    let answer = serve(arguments);
    if let Err(error) = &answer {
        // Every error says its causes itself.
        error.to_string().lines().for_each(|line| lines::note(&format!("xbond: {line}")));
    }
    lines::end();
    if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

fn serve(arguments: RunArgs) -> Result<()> {
    signals::hold_reload()?;
    let link_events = if arguments.no_link_events { LinkEventSource::Off } else { LinkEventSource::Netlink };
    let described = match described(&arguments.bonds)? {
        Some(described) => described,
        None if arguments.bonds.allow_unmonitored => {
            bail!(
                "--allow-unmonitored is for flags and --ifcfg; a file in {} says it itself",
                Source::DIRECTORY
            )
        }
        None => Described::Files(source(Files::Default, &arguments.bonds)),
    };
    let mut config = described.read()?;
    if let Some(address) = arguments.metrics {
        config.metrics = Some(Metrics { address, origin: Origin::Flags });
    }
    let source = match described {
        Described::Files(source) => Some(source),
        Described::Flags(_) => None,
    };
    let writers = arguments.writers.map(|group| Writers { group, origin: Origin::Flags });
    log_to_standard_error()?;
    let tc_attach = arguments.clsact.then_some(TcAttach::Clsact);
    warn_of_traffic(&config)?;
    let confirm = arguments.confirm.map(|seconds| Duration::from_secs(seconds.into()));
    agent::run(RunOptions { config, source, writers, link_events, tc_attach, confirm })?;
    Ok(())
}

/// Of a bond that is to be made now: whoever is logged in through a slave would be cut off.
fn warn_of_traffic(config: &Config) -> Result<()> {
    let paths = Paths::of(netns::cookie()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        for bond in config.bonds.iter().filter(|bond| !bond.move_addresses && !paths.has(&bond.name)) {
            for slave in &bond.slaves {
                let Ok(link) = netlink.link_by_name(&slave.name).await else { continue };
                if let Some(what) = traffic::carried_by(&netlink, link.ifindex).await? {
                    warn!(
                        "{}: {} has {what}, which goes now; to have the bond take it: --move-addresses, or \
                         move_addresses = true, and --confirm to undo it if that cuts you off",
                        bond.name, slave.name
                    );
                }
            }
        }
        Ok(())
    })
}

/// Where bonds are described.
pub enum Described {
    Files(Source),
    Flags(Box<BondConfig>),
}

impl Described {
    pub fn read(&self) -> Result<Config> {
        let config = match self {
            Self::Files(source) => return Ok(source.read()?),
            Self::Flags(bond) => Config { bonds: vec![(**bond).clone()], ..Config::default() },
        };
        config.check()?;
        Ok(config)
    }

    pub fn missing_slaves(&self) -> MissingSlaves {
        match self {
            Self::Files(_) => MissingSlaves::Await,
            Self::Flags(_) => MissingSlaves::Refuse,
        }
    }
}

/// None if the command line says nothing of bonds.
pub fn described(arguments: &BondArgs) -> Result<Option<Described>> {
    let unmonitored = if arguments.allow_unmonitored { Unmonitored::Allow } else { Unmonitored::Refuse };
    let files = if let Some(directory) = &arguments.ifcfg {
        Files::Ifcfg { directory: directory.clone(), unmonitored }
    } else if !arguments.config.is_empty() {
        Files::Toml(arguments.config.clone())
    } else if let Some(name) = &arguments.bond {
        return Ok(Some(Described::Flags(Box::new(from_flags(name, arguments, unmonitored)?))));
    } else {
        return Ok(None);
    };
    Ok(Some(Described::Files(source(files, arguments))))
}

fn source(files: Files, arguments: &BondArgs) -> Source {
    Source { files, datapath: arguments.datapath.map(Into::into), on_exit: arguments.on_exit.map(Into::into) }
}

fn from_flags(name: &str, arguments: &BondArgs, unmonitored: Unmonitored) -> Result<BondConfig> {
    let checked = BondName::new(name).map_err(|error| ConfigError::new(Origin::Flags, error.into()))?;
    let mut bond = BondConfig::new(checked, Origin::Flags);
    bond.allow_unmonitored = unmonitored;
    let mut pairs = Vec::new();
    for (key, value) in &arguments.options {
        match bond.set(key, value) {
            None => pairs.push((key.as_str(), value.as_str())),
            Some(Ok(())) => {}
            Some(Err(wanted)) => {
                let (key, value) = (key.clone(), value.clone());
                return Err(ConfigError::new(Origin::Flags, Problem::BadValue { key, value, wanted }).into());
            }
        }
    }
    let (options, notes) = BondOptions::from_pairs(pairs, bond.allow_unmonitored)?;
    bond.options = options;
    bond.notes = notes.into_iter().map(|note| Note::Option { bond: name.to_owned(), note }).collect();
    let interface = |name: &String| {
        InterfaceName::new(name).map_err(|error| ConfigError::new(Origin::Flags, error.into()))
    };
    bond.slaves =
        arguments.slave.iter().map(|name| interface(name).map(SlaveConfig::new)).collect::<Result<_, _>>()?;
    bond.addresses.clone_from(&arguments.address);
    if let Some(port) = &arguments.port {
        bond.port = Some(interface(port)?);
    }
    bond.host_mac = arguments.host_mac.or(bond.host_mac);
    bond.mac = arguments.mac.or(bond.mac);
    bond.mtu = arguments.mtu.or(bond.mtu);
    bond.datapath = arguments.datapath.map_or(bond.datapath, Into::into);
    bond.pair = arguments.pair.unwrap_or(bond.pair);
    bond.guard = arguments.guard.unwrap_or(bond.guard);
    bond.on_exit = arguments.on_exit.map_or(bond.on_exit, Into::into);
    bond.prearm |= arguments.prearm;
    bond.move_addresses |= arguments.move_addresses;
    Ok(bond)
}

/// netlink-proto warns of answers that nobody waits for any more, as of a request that was given up: no news.
const DEFAULT_FILTER: &str = "info,netlink_proto=error";

/// Lines on standard error, INFO and above unless RUST_LOG says otherwise.
fn log_to_standard_error() -> Result<()> {
    tracing_log::LogTracer::init()?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines::Log);
    let colour = std::io::stderr().is_terminal();
    let lines = lines.with_target(false).with_ansi(colour);
    tracing::subscriber::set_global_default(lines.finish())?;
    Ok(())
}
