//! The recorded runs of the bonding driver (tests/fixtures/driver), on the machine in memory: what calibrates it.
//!
//! A run is replayed up to the first step that is about something else than the engine: frames, other devices, ARP.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use bond_common::mac::Mac;
use bond_core::{
    name::{BondName, InterfaceName},
    status::{BondStatus, MiiStatus},
};
use bond_user::{
    agent::simulated::SimulatedMachine,
    config::toml,
    sys::{
        dataplane::fake::ProgramMaps,
        fake::{FakeKernel, MacChange, random},
        netlink::LinkFlags,
    },
};
use tempfile::TempDir;

use crate::world::{Clocks, Process, Programs, Start};

/// A recorded run.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Virtual milliseconds without a change after which a step has ended.
    pub quiet: u64,
    /// Steps, and what xbond is expected to do.
    pub steps: Vec<(String, Vec<String>)>,
}

impl Recorded {
    /// Parses a file of steps.
    pub fn parse(text: &str) -> Self {
        let mut recorded = Self { quiet: 600, steps: Vec::new() };
        for line in text.lines() {
            if let Some(step) = line.strip_prefix("$ ") {
                recorded.steps.push((step.to_owned(), Vec::new()));
            } else if let Some(quiet) = line.strip_prefix("@ quiet ") {
                recorded.quiet = quiet.parse().unwrap_or(recorded.quiet);
            } else if let Some((_, lines)) = recorded.steps.last_mut() {
                if line.starts_with("! ") {
                    lines.clear();
                } else if !line.starts_with('#') && !line.is_empty() {
                    lines.push(line.to_owned());
                }
            }
        }
        recorded
    }
}

/// The longest time that a step may take, in virtual milliseconds.
const LIMIT: u64 = 60_000;
/// Milliseconds from one look at the state to the next; the period of the clock, too.
const TICK: u64 = 10;

/// The machine of one run.
struct Replay {
    kernel: FakeKernel,
    machine: SimulatedMachine,
    process: Option<Process>,
    clocks: Clocks,
    name: BondName,
    /// The ifindex of the bond, and its maps.
    words: Option<(u32, ProgramMaps)>,
    seen: BTreeMap<String, String>,
    _directory: TempDir,
}

/// Replays a run. Returns the number of steps that were compared.
///
/// # Errors
/// A step did something else, or the simulator has failed.
pub fn replay(recorded: &Recorded) -> anyhow::Result<usize> {
    let mut replay = Replay::new()?;
    let mut compared = 0;
    for (step, expected) in &recorded.steps {
        let mut lines = match replay.act(step)? {
            Said::Lines(lines) => lines,
            Said::Nothing => continue,
            Said::NotAboutTheEngine => return Ok(compared),
        };
        compared += 1;
        let expected: Vec<_> =
            expected.iter().filter(|line| is_compared(line)).map(|line| common(line)).collect();
        let before = replay.seen.clone();
        replay.settle(recorded.quiet)?;
        let changed = replay.seen.iter().filter(|(name, line)| before.get(*name) != Some(*line));
        lines.extend(changed.map(|(name, line)| format!("{name} {line}")));
        let gone = before.keys().filter(|name| !replay.seen.contains_key(*name));
        lines.extend(gone.map(|name| format!("{name} gone")));
        anyhow::ensure!(
            lines == expected,
            "step `{step}`\n  expected\n    {}\n  seen\n    {}",
            expected.join("\n    "),
            lines.join("\n    ")
        );
    }
    Ok(compared)
}

/// What a step says.
enum Said {
    /// So much, besides the state that follows.
    Lines(Vec<String>),
    /// It changes nothing of the bond's state.
    Nothing,
    /// What follows is about frames, other devices, or ARP.
    NotAboutTheEngine,
}

/// Whether a line of a record is about the state of the bond, and not about frames.
fn is_compared(line: &str) -> bool {
    let word = line.split(' ').next().unwrap_or_default();
    word == "bond0"
        || word.starts_with("slave")
        || word == "refused"
        || word.contains('=') && !word.starts_with("vlan=")
}

/// A refusal of the driver has an error's name, one of xbond a sentence.
fn common(line: &str) -> String {
    if line.starts_with("refused") { "refused".to_owned() } else { line.to_owned() }
}

impl Replay {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        random::seed(Some(1));
        let kernel = FakeKernel::default();
        for number in 0..3_u8 {
            let nic = kernel.add_nic(&format!("slave{number}"), Mac::new([2, 0, 0, 0, 0, 0x10 + number]));
            kernel.change(nic, |link| {
                link.macs = MacChange::Live;
                link.info.flags -= LinkFlags::Up;
            });
        }
        kernel.judge_calls(|_| None);
        let machine = SimulatedMachine::new(kernel.clone(), directory.path().to_owned(), true)?;
        let clocks = Clocks { now: 1_000_000, ..Clocks::default() };
        let name = BondName::new("bond0")?;
        let mut replay = Self {
            kernel,
            machine,
            process: None,
            clocks,
            name,
            words: None,
            seen: BTreeMap::new(),
            _directory: directory,
        };
        replay.seen = replay.observe();
        Ok(replay)
    }

    /// Lets a tick pass.
    fn pass(&mut self) {
        self.clocks.now += TICK;
        let Some(process) = &self.process else { return };
        process.run_until(&self.kernel, self.clocks);
        let present = self.kernel.index_of(&self.name);
        if self.words.as_ref().map(|(ifindex, _)| *ifindex) != present {
            self.words = present.and_then(|ifindex| Some((ifindex, self.machine.words(&self.name)?)));
        }
        let Some((_, words)) = &self.words else { return };
        let programs = Programs { words, kernel: &self.kernel, now: self.clocks.now };
        programs.tick();
        if words.events().has_records() {
            process.agent().data_plane_events(&self.name);
        }
    }

    fn settle(&mut self, quiet: u64) -> anyhow::Result<()> {
        let (mut since, limit) = (self.clocks.now, self.clocks.now + LIMIT);
        while self.clocks.now < since + quiet {
            anyhow::ensure!(self.clocks.now < limit, "the state keeps changing: {:?}", self.seen);
            self.pass();
            let now = self.observe();
            if now != self.seen {
                (self.seen, since) = (now, self.clocks.now);
            }
        }
        Ok(())
    }

    /// Does a step.
    fn act(&mut self, step: &str) -> anyhow::Result<Said> {
        let words: Vec<_> = step.split(' ').collect();
        let is_on = words.last() == Some(&"on");
        let answer = match words.as_slice() {
            ["bond", rest @ ..] if rest.iter().any(|option| option.starts_with("arp_")) => {
                return Ok(Said::NotAboutTheEngine);
            }
            ["bond", rest @ ..] => self.create(rest)?,
            ["remove"] => self.remove(),
            ["enslave", slave] => {
                let slave = InterfaceName::new(*slave)?;
                self.ask(|agent, bond| async move { agent.add_slave(&bond, &slave).await })
            }
            ["release", slave] => {
                let slave = (*slave).to_owned();
                self.ask(|agent, bond| async move { agent.del_slave(&bond, &slave).await })
            }
            ["set", setting] => return Ok(self.set(setting)),
            ["carrier", slave, _] => {
                let runtime = self.process.as_ref().map(Process::runtime);
                let _clocks = runtime.as_ref().map(tokio::runtime::Handle::enter);
                self.change(slave, |link| link.cable = is_on);
                Ok(())
            }
            ["admin", slave, _] => {
                let runtime = self.process.as_ref().map(Process::runtime);
                let _clocks = runtime.as_ref().map(tokio::runtime::Handle::enter);
                self.change(slave, |link| link.info.flags.set(LinkFlags::Up, is_on));
                Ok(())
            }
            // Frames, addresses, and what is read.
            ["address" | "group" | "frames" | "proc" | "get" | "promiscuous", ..] => {
                return Ok(Said::Nothing);
            }
            _ => return Ok(Said::NotAboutTheEngine),
        };
        Ok(Said::Lines(answer.err().map(|_| "refused".to_owned()).into_iter().collect()))
    }

    fn change(&self, slave: &str, change: impl FnOnce(&mut bond_user::sys::fake::FakeLink)) {
        if let Some(ifindex) = self.kernel.index_of(slave) {
            self.kernel.change(ifindex, change);
        }
    }

    fn create(&mut self, words: &[&str]) -> anyhow::Result<Result<(), String>> {
        let (options, slaves) =
            words.split_at(words.iter().position(|word| *word == ":").unwrap_or(words.len()));
        let slaves: Vec<_> =
            slaves.iter().skip(1).map(|slave| slave.split_once('/').unwrap_or((slave, ""))).collect();
        let names: Vec<_> = slaves.iter().map(|(name, _)| format!("{name:?}")).collect();
        let mut text = format!("version = 1\n[bond.bond0]\nslaves = [{}]\n", names.join(", "));
        for (key, value) in options.iter().filter_map(|option| option.split_once('=')) {
            let _ = writeln!(text, "{key} = {value:?}");
        }
        for (name, prio) in
            slaves.iter().filter_map(|(name, option)| Some((name, option.strip_prefix("prio=")?)))
        {
            let _ = writeln!(text, "[bond.bond0.slave.{name}]\nprio = {prio}");
        }
        let Ok(config) = toml::parse(Path::new("recorded.toml"), &text) else {
            return Ok(Err("refused".to_owned()));
        };
        let mut process = Process::start(&self.machine, self.clocks, config.bonds)?;
        let agent = process.agent().clone();
        self.kernel.listen(move |event| agent.link_event(&event));
        loop {
            self.clocks.now += TICK;
            process.run_until(&self.kernel, self.clocks);
            match process.started() {
                Start::UnderWay => {}
                Start::Done => break,
                Start::Failed(why) => {
                    self.kernel.listen_no_more();
                    return Ok(Err(why));
                }
            }
        }
        self.process = Some(process);
        Ok(Ok(()))
    }

    fn remove(&mut self) -> Result<(), String> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.terminate();
        let answer = loop {
            self.clocks.now += TICK;
            process.run_until(&self.kernel, self.clocks);
            if let Some(answer) = process.ended() {
                break answer;
            }
        };
        self.kernel.listen_no_more();
        answer
    }

    fn ask<F, T, E>(
        &mut self,
        ask: impl FnOnce(bond_user::agent::simulated::SimulatedAgent, BondName) -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: std::fmt::Display + 'static,
    {
        let bond = self.name.clone();
        let Some(process) = &mut self.process else { return Err("there is no bond".to_owned()) };
        process.request(self.clocks.now, String::new(), |agent| ask(agent, bond));
        loop {
            self.pass();
            let answers = self.process.as_mut().map(Process::answers).unwrap_or_default();
            if let Some((_, answer)) = answers.into_iter().next() {
                return answer;
            }
        }
    }

    fn set(&mut self, setting: &str) -> Said {
        let Some((key, value)) = setting.split_once('=') else { return Said::NotAboutTheEngine };
        if key.starts_with("arp_") {
            return Said::NotAboutTheEngine;
        }
        let (asked, wanted) = (key.to_owned(), value.to_owned());
        let answer = self.ask(|agent, bond| async move { agent.set(&bond, &asked, &wanted).await });
        if answer.is_err() {
            return Said::Lines(vec!["refused".to_owned()]);
        }
        if key == "active_slave" {
            return Said::Lines(Vec::new());
        }
        let pairs = self.status().map(|status| status.options.to_pairs()).unwrap_or_default();
        let value = pairs.into_iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        value.map_or(Said::NotAboutTheEngine, |value| Said::Lines(vec![format!("{key}={value}")]))
    }

    fn status(&self) -> Option<BondStatus> {
        self.process.as_ref()?.agent().status(&self.name)
    }

    fn observe(&self) -> BTreeMap<String, String> {
        let status = self.status();
        let links = self.kernel.all_links();
        let line = |link: &bond_user::sys::netlink::LinkInfo| {
            let mut words = vec![mac(link.mac)];
            if link.name == *self.name {
                let status = status.as_ref()?;
                words.push(format!("active={}", status.active_slave.as_deref().unwrap_or("none")));
                words.push(format!("carrier={}", if link.carrier { "on" } else { "off" }));
            } else if link.name.starts_with("slave") {
                let slave =
                    status.iter().flat_map(|status| &status.slaves).find(|slave| slave.name == link.name);
                match slave {
                    Some(slave) => {
                        let is_active = status.as_ref()?.active_slave.as_ref() == Some(&slave.name);
                        words.push(if is_active { "active" } else { "backup" }.to_owned());
                        words.push(mii(slave.mii_status).to_owned());
                        words.push(format!("failures={}", slave.link_failure_count));
                    }
                    None => words.push("free".to_owned()),
                }
                if !link.is_up() {
                    words.push("admin-down".to_owned());
                }
            } else {
                return None;
            }
            if link.mtu != 1500 {
                words.push(format!("mtu={}", link.mtu));
            }
            Some((link.name.clone(), words.join(" ")))
        };
        links.iter().filter_map(line).collect()
    }
}

fn mii(status: MiiStatus) -> &'static str {
    match status {
        MiiStatus::Up => "up",
        MiiStatus::GoingDown => "going down",
        MiiStatus::Down => "down",
        MiiStatus::GoingBack => "going back",
    }
}

/// Formats a MAC address. Scenarios use addresses that begin with 02:00:00:00:00; others are random.
fn mac(mac: Mac) -> String {
    if mac.bytes().starts_with(&[2, 0, 0, 0, 0]) { mac.to_string() } else { "random".to_owned() }
}
