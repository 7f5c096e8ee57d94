//! `xbond run`

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::HashMap,
    panic,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use bond_core::{
    name::{BondName, InterfaceName},
    options::{self, BondOptions, OptionError, Unmonitored},
};

use super::{BondArgs, REFUSED, RunArgs, traffic};
use crate::{
    agent::{self, LinkEventSource, RunOptions},
    api::MissingSlaves,
    config::{
        BondConfig, Config, ConfigError, Files, Metrics, Note, Origin, OutputDirectory, Problem, SlaveConfig,
        Source, Writers, settings,
    },
    report::{lines, log, wording},
    store::paths::Paths,
    sys::{dataplane::TcAttach, memory, netlink::Netlink, netns, signals},
};

/// Runs an agent to its end. Its output, including its error, waits for no reader.
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
        // Every error includes its causes.
        error.to_string().lines().for_each(|line| lines::note(&format!("xbond: {line}")));
    }
    lines::end();
    if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

fn serve(arguments: RunArgs) -> Result<()> {
    // Before there are threads.
    memory::be_frugal();
    signals::hold_reload()?;
    let link_events = if arguments.no_link_events { LinkEventSource::Off } else { LinkEventSource::Netlink };
    let described = match described(&arguments.bonds)? {
        Some(described) => described,
        None if arguments.bonds.allow_unmonitored => {
            bail!(wording::unmonitored_without_bond(Source::DIRECTORY))
        }
        None => Described::Files(source(Files::Default, &arguments.bonds)),
    };
    let mut config = described.read()?;
    if let Some(address) = arguments.metrics {
        config.metrics = Some(Metrics { address, origin: Origin::Flags });
    }
    let directory = |path| OutputDirectory { path, origin: Origin::Flags };
    config.textfile = arguments.textfile.map(directory).or(config.textfile);
    config.proc_files = arguments.proc_files.map(directory).or(config.proc_files);
    let source = match described {
        Described::Files(source) => Some(source),
        Described::Flags(_) => None,
    };
    let writers = arguments.writers.map(|group| Writers { group, origin: Origin::Flags });
    log::start(arguments.log_format.into())?;
    let tc_attach = arguments.clsact.then_some(TcAttach::Clsact);
    warn_of_traffic(&config)?;
    let confirm = arguments.confirm.map(|seconds| Duration::from_secs(seconds.into()));
    agent::run(RunOptions { config, source, writers, link_events, tc_attach, confirm })?;
    Ok(())
}

/// Warns before a bond is created that would cut off a login through one of its slaves.
fn warn_of_traffic(config: &Config) -> Result<()> {
    let paths = Paths::of(netns::cookie()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        for bond in config.bonds.iter().filter(|bond| !bond.move_addresses && !paths.has(&bond.name)) {
            for slave in &bond.slaves {
                let Ok(link) = netlink.link_by_name(&slave.name).await else { continue };
                if let Some(what) = traffic::carried_by(&netlink, link.ifindex).await? {
                    log::of(&bond.name).slave(&slave.name).warn(format_args!(
                        "{} has {what}, which goes now; to have the bond take it: --move-addresses, or \
                         move_addresses = true, and --confirm to undo it if that cuts you off",
                        slave.name
                    ));
                }
            }
        }
        Ok(())
    })
}

/// The source of the bonds' descriptions.
pub enum Described {
    Files(Source),
    Flags(Box<BondConfig>),
}

impl Described {
    /// Reads the configuration that the command line describes.
    ///
    /// # Errors
    /// A file is refused, or the bond of the flags is.
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

/// Returns the source; `None` if the command line describes no bonds.
///
/// # Errors
/// The flags describe no valid bond.
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
    let notes = set_options(&mut bond, &arguments.options)?;
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
    bond.mac = arguments.mac.clone().or(bond.mac);
    bond.mtu = arguments.mtu.or(bond.mtu);
    bond.datapath = arguments.datapath.map_or(bond.datapath, Into::into);
    bond.pair = arguments.pair.unwrap_or(bond.pair);
    bond.guard = arguments.guard.unwrap_or(bond.guard);
    bond.on_exit = arguments.on_exit.map_or(bond.on_exit, Into::into);
    bond.prearm |= arguments.prearm;
    bond.move_addresses |= arguments.move_addresses;
    Ok(bond)
}

/// Applies the arguments of `-o`: the driver's options and xbond's own settings.
fn set_options(
    bond: &mut BondConfig,
    options: &[(String, String)],
) -> Result<Vec<options::Note>, ConfigError> {
    let refuse = |problem| ConfigError::new(Origin::Flags, problem);
    let (mut own, mut drivers) = (HashMap::new(), Vec::new());
    for (key, value) in options {
        let Some(row) = settings::ROWS.iter().find(|row| row.key == key) else {
            drivers.push((key.as_str(), value.as_str()));
            continue;
        };
        if own.insert(row.key, value).is_some_and(|earlier| earlier != value) {
            return Err(refuse(OptionError::Twice { key: row.key }.into()));
        }
        if let Some(Err(wanted)) = bond.set(key, value) {
            let (key, value) = (key.clone(), value.clone());
            return Err(refuse(Problem::BadValue { key, value, wanted }));
        }
    }
    let (options, notes) = BondOptions::from_pairs(drivers, bond.allow_unmonitored)
        .map_err(|error| refuse(error.or_one_of(settings::KEYS.iter().copied()).into()))?;
    bond.options = options;
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Guard, OnExit};

    fn set(pairs: &[(&str, &str)]) -> Result<BondConfig, String> {
        let mut bond = BondConfig::new(BondName::new("bond0").unwrap(), Origin::Flags);
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        set_options(&mut bond, &pairs).map(|_| bond).map_err(|error| error.to_string())
    }

    #[test]
    fn options_and_settings_are_set_together() {
        let bond =
            set(&[("miimon", "100"), ("guard", "off"), ("on_exit", "keep"), ("guard", "off")]).unwrap();
        assert_eq!((bond.options.miimon, bond.guard, bond.on_exit), (100, Guard::Off, OnExit::Keep));
    }

    #[test]
    fn a_setting_with_two_values_or_a_mistake_is_refused() {
        for (pairs, sentence) in [
            (
                [("miimon", "100"), ("guard", "off"), ("guard", "auto")],
                "guard: given twice, with different values",
            ),
            (
                [("miimon", "100"), ("mtu", "9000"), ("gaurd", "off")],
                "gaurd: no such option; did you mean guard?",
            ),
            ([("miimon", "100"), ("mtu", "big"), ("guard", "off")], "mtu = big: not a number of bytes"),
        ] {
            let error = set(&pairs).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
