//! `xbond show`

use std::{collections::BTreeSet, thread};

use anyhow::{Result, anyhow, bail};
use bond_core::name::BondName;
use nix::errno::Errno;
use serde::Serialize;

use super::{
    ShowArgs,
    client::{self, NoAgent, NoAnswer},
    output,
};
use crate::{
    api::Endpoint,
    report::{
        json::{AnswerSource, Report},
        procfs,
        text::{self, Amount},
        wording,
    },
    store::offline as kept,
    store::paths::Paths,
    sys::{SysError, caps, limits, netns},
};

/// Threads that a report without an agent needs: tokio panics without its first one.
const THREADS: usize = 2;

/// Prints the state of bonds, with or without an agent: `xbond show`.
///
/// # Errors
/// There is no such bond, or neither agent nor maps can be read.
pub fn show(arguments: &ShowArgs) -> Result<()> {
    let amount = Amount { details: arguments.details, statistics: arguments.statistics };
    let text = if arguments.all_netns {
        let namespaces = of_all_namespaces()?;
        if namespaces.is_empty() && !arguments.json {
            output::note(wording::nothing_anywhere());
        }
        if arguments.json {
            json(&Namespaces { version: NAMESPACES_VERSION, namespaces: &namespaces })?
        } else {
            namespaces.iter().map(|namespace| namespace.text(amount)).collect::<Vec<_>>().join("\n")
        }
    } else {
        let report = read(arguments.bond.as_ref())?;
        of_one(&report, arguments, amount)?
    };
    if arguments.json {
        output::print_json(text.trim_end())
    } else {
        output::print(&text)
    }
    Ok(())
}

fn json(what: &impl Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(what)?))
}

fn of_one(report: &Report, arguments: &ShowArgs, amount: Amount) -> Result<String> {
    if arguments.json {
        return json(report);
    }
    if !arguments.proc {
        return Ok(text::show(report, amount));
    }
    if report.source == AnswerSource::Maps {
        let why = report.no_answer.clone().unwrap_or_else(wording::none_runs);
        bail!(wording::proc_needs_agent(why));
    }
    Ok(report.bonds.iter().map(procfs::show).collect::<Vec<_>>().join("\n"))
}

/// Reads from the agent; if none answers, from what an agent has pinned and left in files.
fn read(bond: Option<&BondName>) -> Result<Report> {
    let call = match bond {
        Some(bond) => Endpoint::Bond.call_of(bond),
        None => Endpoint::Bonds.call(),
    };
    let no_answer = match client::request(&call, None) {
        Ok(report) => return Ok(report),
        Err(error) if error.is::<NoAgent>() => None,
        Err(error) => Some(error.downcast::<NoAnswer>()?),
    };
    let paths = Paths::of(netns::cookie()?);
    if !paths.bonds().is_empty() {
        match (caps::check(), &no_answer) {
            (Err(_), Some(no_answer)) => bail!(no_answer.clone()),
            (answer, _) => answer?,
        }
    } else if let Some(bond) = bond {
        // There is nothing to read of it.
        match no_answer {
            Some(no_answer) => bail!(no_answer),
            None => bail!("{bond}: {NoAgent}"),
        }
    }
    limits::check_threads(THREADS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(kept::report(&paths, bond, no_answer.map(|why| why.fact())))?;
    // A netlink request that waits for RTNL blocks only its own thread.
    runtime.shutdown_background();
    Ok(report)
}

/// Version of the JSON output for all namespaces; each report in it has its own.
const NAMESPACES_VERSION: u32 = 1;

/// The output of `--all-netns -j`.
#[derive(Serialize)]
struct Namespaces<'a> {
    version: u32,
    namespaces: &'a [Namespace],
}

/// The bonds of a network namespace.
#[derive(Serialize)]
struct Namespace {
    /// Its name; none for the current one, and for those without a name.
    netns: Option<String>,
    /// SO_NETNS_COOKIE
    cookie: u64,
    /// Whether the command runs in it.
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
    /// Why there is no report.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Namespace {
    fn text(&self, amount: Amount) -> String {
        let heading = match &self.netns {
            Some(name) => wording::namespace_named(name),
            None if self.current => wording::namespace_current(),
            None => wording::namespace_nameless(self.cookie),
        };
        let body = match (&self.report, &self.error) {
            (Some(report), _) => text::show(report, amount),
            (None, error) => format!("! {}\n", error.clone().unwrap_or_else(wording::namespace_unread)),
        };
        format!("{heading}:\n{body}")
    }
}

/// Returns the namespaces that have bonds or an agent.
fn of_all_namespaces() -> Result<Vec<Namespace>> {
    let (mut seen, mut stale) = (BTreeSet::new(), Vec::new());
    let mut namespaces = Vec::new();
    for name in [None].into_iter().chain(netns::names()?.into_iter().map(Some)) {
        let entered = name.clone();
        // A thread can be in another namespace than the process.
        let observing = thread::Builder::new().spawn(move || {
            if let Some(name) = &entered {
                netns::enter(name)?;
            }
            anyhow::Ok((netns::cookie()?, read(None)))
        })?;
        let current = name.is_none();
        match observing.join().map_err(|_| anyhow!(wording::thread_failed()))? {
            Ok((cookie, answer)) if seen.insert(cookie) => {
                namespaces.extend(namespace(name, cookie, current, answer));
            }
            Ok(_) => {}
            // A file of `ip netns` without a mount, for example after a restart of a container.
            Err(error) if name.is_some() && is_stale(&error) => stale.extend(name),
            Err(error) => namespaces.push(Namespace {
                netns: name,
                cookie: 0,
                current,
                report: None,
                error: Some(error.to_string()),
            }),
        }
    }
    if !stale.is_empty() {
        output::note(wording::stale_namespaces(stale.join(", ")));
    }
    for cookie in Paths::cookies().into_iter().filter(|cookie| !seen.contains(cookie)) {
        let answer = client::request_in(&Paths::of(cookie), &Endpoint::Bonds.call(), None);
        namespaces.extend(namespace(None, cookie, false, answer));
    }
    Ok(namespaces)
}

/// Returns whether the error is EINVAL: setns(2) returns it for a file that is no network namespace.
fn is_stale(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SysError>().is_some_and(|error| error.errno() == Some(Errno::EINVAL))
}

/// Returns a namespace's entry; `None` if it has no agent, and no orphaned bond.
fn namespace(netns: Option<String>, cookie: u64, current: bool, answer: Result<Report>) -> Option<Namespace> {
    let (report, error) = match answer {
        Ok(report) if is_nothing(&report) => return None,
        Ok(report) => (Some(report), None),
        Err(error) if error.is::<NoAgent>() => return None,
        Err(error) => (None, Some(error.to_string())),
    };
    Some(Namespace { netns, cookie, current, report, error })
}

/// Returns whether no agent runs, and none has left anything.
fn is_nothing(report: &Report) -> bool {
    let Report { source, no_answer, bonds, notes, .. } = report;
    *source == AnswerSource::Maps && no_answer.is_none() && bonds.is_empty() && notes.is_empty()
}
