//! ARP monitoring without an agent behaves as the kernel's bonding driver was recorded: one test for each file of
//! tests/fixtures/driver with ARP or NS monitoring.
//!
//! The agent is stopped (SIGSTOP) before each series of steps in which links and targets fail and return, and resumed for
//! steps that ask it for something. Meanwhile the active slave, which slaves are up, and the announcements must be as
//! recorded. What only an agent can do must be as recorded when it runs again: it counts the failures of links, sets the
//! carrier of bond0, and under fail_over_mac=follow moves MAC addresses.

#[path = "common/pinned.rs"]
mod pinned;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};
use libtest_mimic::{Arguments, Trial};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use pinned::Pinned;
use xbond_tests::{
    Lab, obstacle,
    parity::{
        self, BOND, Case, Implementation, OurBond, Outcome, Pace, Scenario, Slave, SlaveKey, SlaveStatus,
        Status,
    },
    skip_as, time_is_no_measure,
};

/// They mostly wait for links and timers.
const AT_A_TIME: usize = 6;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let trials = fixtures()?.into_iter().map(|(name, scenario)| {
        Trial::test(name.clone(), move || {
            conforms(&name, &scenario).map_err(|error| format!("{error:#}").into())
        })
    });
    Ok(libtest_mimic::run(&arguments, trials.collect()).exit_code())
}

fn fixtures() -> Result<Vec<(String, Scenario)>> {
    let monitors = |case: &Case| case.step.to_string().contains("arp_interval=");
    let mut fixtures = Scenario::recorded()?;
    fixtures.retain(|(name, scenario)| {
        (name.starts_with("arp") || name == "ns") && scenario.cases.iter().any(monitors)
    });
    Ok(fixtures)
}

fn conforms(name: &str, scenario: &Scenario) -> Result<()> {
    if let Some(reason) = obstacle().or(time_is_no_measure()) {
        skip_as(name, reason);
        return Ok(());
    }
    let lab = parity::lab()?;
    let shared = Shared::default();
    let mut bond = Unattended { lab: &lab, inner: OurBond::new(&lab.host), shared: &shared };
    let mut next = scenario.cases.iter().skip(1);
    let result = parity::run(scenario, &lab, Pace::Native, &mut bond, |case, seen| {
        let expected = case.xbond();
        let is_stopped = shared.is_stopped.get();
        if !shared.is_as_expected(expected, &seen) {
            let (expected, seen) = (expected.join("\n    "), seen.join("\n    "));
            bail!(
                "step `{}`, agent stopped: {is_stopped}\n  expected\n    {expected}\n  seen\n    {seen}",
                case.step
            );
        }
        shared.expected.borrow_mut().follow(expected);
        shared.seen.borrow_mut().follow(&seen);
        match next.next() {
            Some(next) if next.step.is_from_outside() => shared.stop(),
            Some(_) | None => shared.resume(),
        }
    });
    let result = result.and_then(|()| bond.ends_as_expected());
    shared.resume()?;
    result.map_err(|error| anyhow!("{error:#}\n  log of xbond\n{}", bond.inner.log()))
}

/// What a record is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// The last line of each device.
    devices: BTreeMap<String, String>,
    /// The other lines of the last step.
    others: Vec<String>,
}

impl State {
    fn follow(&mut self, record: &[String]) {
        self.others.clear();
        for line in record {
            match line.split_once(' ') {
                Some((device, rest)) if device == BOND || device.starts_with("slave") => {
                    self.devices.insert(device.to_owned(), rest.to_owned());
                }
                _ => self.others.push(line.clone()),
            }
        }
    }

    /// Returns the state after this record, without what only an agent can do if none runs.
    fn after(&self, record: &[String], without_agent: bool) -> Self {
        let mut state = self.clone();
        state.follow(record);
        let agents = |word: &&str| word.starts_with("failures=") || word.starts_with("carrier=");
        for line in state.devices.values_mut().filter(|_| without_agent) {
            *line = line.split(' ').filter(|word| !agents(word)).collect::<Vec<_>>().join(" ");
        }
        state
    }
}

/// What the run of a scenario and its bond share.
#[derive(Default)]
struct Shared {
    pid: Cell<Option<u32>>,
    is_stopped: Cell<bool>,
    expected: RefCell<State>,
    seen: RefCell<State>,
}

impl Shared {
    fn agent(&self) -> Option<Pid> {
        self.pid.get().map(|pid| Pid::from_raw(pid.cast_signed()))
    }

    fn stop(&self) -> Result<()> {
        if let Some(agent) = self.agent().filter(|_| !self.is_stopped.replace(true)) {
            kill(agent, Signal::SIGSTOP).context("cannot stop the agent")?;
            waitid(Id::Pid(agent), WaitPidFlag::WSTOPPED).context("cannot wait for the agent to stop")?;
        }
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        if let Some(agent) = self.agent().filter(|_| self.is_stopped.replace(false)) {
            kill(agent, Signal::SIGCONT).context("cannot resume the agent")?;
        }
        Ok(())
    }

    fn is_as_expected(&self, expected: &[String], seen: &[String]) -> bool {
        let is_stopped = self.is_stopped.get();
        let wanted = self.expected.borrow().after(expected, is_stopped);
        let found = self.seen.borrow().after(seen, is_stopped);
        wanted.devices == found.devices && parity::same(&wanted.others, &found.others)
    }
}

/// A bond whose agent is stopped at times.
struct Unattended<'lab> {
    lab: &'lab Lab,
    inner: OurBond<'lab>,
    shared: &'lab Shared,
}

impl Unattended<'_> {
    /// Waits until the agent reports the state at the end.
    fn ends_as_expected(&self) -> Result<()> {
        self.shared.resume()?;
        let Some(status) = self.inner.status()? else { return Ok(()) };
        let expected = self.shared.expected.borrow();
        for slave in &status.slaves {
            let words = expected.devices.get(&slave.name).context("a slave without a record")?;
            let failures = format!("failures={}", slave.failures);
            if !words.split(' ').any(|word| word == failures) {
                bail!("at the end {} has {failures}, and `{words}` is expected", slave.name);
            }
        }
        Ok(())
    }
}

impl Implementation for Unattended<'_> {
    fn expected<'case>(&self, case: &'case Case) -> &'case [String] {
        case.xbond()
    }

    fn is_as_expected(&self, expected: &[String], seen: &[String]) -> bool {
        self.shared.is_as_expected(expected, seen)
    }

    fn create(&mut self, options: &[(String, String)], slaves: &[Slave]) -> Result<Outcome> {
        let outcome = self.inner.create(options, slaves);
        self.shared.pid.set(self.inner.pid());
        outcome
    }

    fn remove(&mut self) -> Result<()> {
        self.shared.pid.set(None);
        self.inner.remove()
    }

    fn enslave(&mut self, slave: &str) -> Result<Outcome> {
        self.inner.enslave(slave)
    }

    fn release(&mut self, slave: &str) -> Result<Outcome> {
        self.inner.release(slave)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<Outcome> {
        self.inner.set(key, value)
    }

    fn set_slave(&mut self, slave: &str, key: SlaveKey, value: &str) -> Result<Outcome> {
        self.inner.set_slave(slave, key, value)
    }

    fn proc(&self) -> Result<String> {
        self.inner.proc()
    }

    fn get(&self, key: &str) -> Result<String> {
        self.inner.get(key)
    }

    fn status(&self) -> Result<Option<Status>> {
        if !self.shared.is_stopped.get() {
            return self.inner.status();
        }
        let pinned = Pinned::open(&self.lab.host, BOND)?;
        let slave = |(name, is_up): (&str, bool)| SlaveStatus {
            name: name.to_owned(),
            mii: if is_up { "up" } else { "down" }.to_owned(),
            failures: 0,
        };
        let slaves = pinned.slaves().map(slave).collect();
        Ok(Some(Status { active: pinned.active().map(str::to_owned), slaves }))
    }
}
