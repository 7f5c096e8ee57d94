//! Runs the same steps with the kernel's bonding driver and with xbond, and records what each did.
//!
//! A scenario is a file of steps, each followed by what the driver did (`tests/fixtures/driver`):
//!
//! ```text
//! # The new active slave gets the bond's MAC, the failed one the new one's.
//! $ bond miimon=100 fail_over_mac=follow : slave0 slave1
//! bond0 02:00:00:00:00:10 active=slave0 carrier=on
//! slave0 02:00:00:00:00:10 active up failures=0
//! slave1 02:00:00:00:00:11 backup up failures=0
//! $ carrier slave0 off
//! bond0 02:00:00:00:00:10 active=slave1 carrier=on
//! ...
//! ! garp-rounds
//! ...
//! ```
//!
//! A record holds the lines that the step changed, one for the bond and one for each slave, and the announcements
//! that reached the switch. Where xbond differs, `!` names the row of docs/PARITY.md that gives the reason, and
//! xbond's record follows. `cargo xtask vm` runs scenarios against both in one guest, and `cargo xtask vm --record`
//! writes the driver's part of these files.

mod driver;
mod record;
mod scenario;
mod step;
mod xbond;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use self::{
    driver::Driver,
    scenario::{Case, Difference, Scenario},
    step::{Slave, SlaveKey, Step},
    xbond::OurBond,
};
use self::{
    record::Snapshot,
    step::{LinkPart, Switched},
};
use crate::{Capture, Cut, Lab, Nic, PacketSocket, WAIT_LIMIT, lab::PEER_NIC, link::Link as Device};

pub const BOND: &str = "bond0";
/// How many NICs a scenario has: slave0, slave1 and slave2.
const NICS: u8 = 3;
const REFUSED: &str = "refused";
const MIN_POLLS: u32 = 3;
/// Tolerated delay of a change on a busy machine.
const LATENESS: Duration = Duration::from_secs(2);

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The driver's error, where it has one.
    Refused(Option<nix::errno::Errno>),
}

/// State of a bond that its interfaces do not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub active: Option<String>,
    pub slaves: Vec<SlaveStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlaveStatus {
    pub name: String,
    /// up, going down, down or going back.
    pub mii: String,
    pub failures: u64,
}

/// The speed of the machine that runs the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// An emulated machine, for which the scenario's quiet time is chosen.
    Emulated,
    /// An ordinary machine. A state that is as expected ends the step; if it does not last, the next step shows it.
    Native,
}

impl Pace {
    /// Returns how long nothing must change until a step has ended, if all is as expected.
    fn quiet(self, scenario: Duration) -> Duration {
        match self {
            Self::Emulated => scenario,
            Self::Native => scenario / 3,
        }
    }

    /// Returns the time limit until nothing changes any more.
    fn wait_limit(self) -> Duration {
        match self {
            Self::Emulated => WAIT_LIMIT * 6,
            Self::Native => WAIT_LIMIT,
        }
    }

    /// Returns the time between two polls. A poll starts a few processes, which are slow on an emulated machine.
    fn between_looks(self, scenario: Duration) -> Duration {
        self.quiet(scenario) / 4
    }
}

/// An implementation that runs the steps. A refusal is an [`Outcome`]; the errors are those of the test's own means, such
/// as a program that cannot be run.
pub trait Implementation {
    /// Returns the expected record of a step.
    fn expected<'case>(&self, case: &'case Case) -> &'case [String];
    /// Returns whether the record of a step is as expected.
    fn is_as_expected(&self, expected: &[String], seen: &[String]) -> bool {
        same(expected, seen)
    }
    /// Creates the bond with these options and slaves, and sets it up.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn create(&mut self, options: &[(String, String)], slaves: &[Slave]) -> Result<Outcome>;
    /// Removes the bond.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn remove(&mut self) -> Result<()>;
    /// Enslaves an interface.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn enslave(&mut self, slave: &str) -> Result<Outcome>;
    /// Releases a slave.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn release(&mut self, slave: &str) -> Result<Outcome>;
    /// Sets an option of the bond.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn set(&mut self, key: &str, value: &str) -> Result<Outcome>;
    /// Sets an option of a slave.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn set_slave(&mut self, slave: &str, key: SlaveKey, value: &str) -> Result<Outcome>;
    /// Returns the text of /proc/net/bonding/BOND.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn proc(&self) -> Result<String>;
    /// Returns the value of an option in the form of the driver's sysfs.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn get(&self, key: &str) -> Result<String>;
    /// Returns the state of the bond; `None` if there is none.
    ///
    /// # Errors
    /// A program or file of the implementation fails.
    fn status(&self) -> Result<Option<Status>>;
}

/// Creates three NICs on a learning switch.
///
/// # Errors
/// As for [`LabBuilder::build`](crate::LabBuilder::build).
pub fn lab() -> Result<Lab> {
    Lab::builder().nics((0..NICS).map(|index| Nic::new(&nic(index), [2, 0, 0, 0, 0, 0x10 + index]))).build()
}

fn nic(index: u8) -> String {
    format!("slave{index}")
}

/// Runs a scenario's steps in `lab` and passes the record of each to `each`; an error of `each` ends the run.
///
/// # Errors
/// A step failed, a state cannot be read, or `each` failed; the error names the step.
pub fn run(
    scenario: &Scenario,
    lab: &Lab,
    pace: Pace,
    bond: &mut dyn Implementation,
    mut each: impl FnMut(&Case, Vec<String>) -> Result<()>,
) -> Result<()> {
    let mut run = Run { lab, bond, pace, scenario, seen: Snapshot::default() };
    run.seen = run.observe(Vec::new())?;
    for case in &scenario.cases {
        let record = run.step(case).with_context(|| format!("at the step `{}`", case.step))?;
        each(case, record)?;
    }
    Ok(())
}

struct Run<'run> {
    lab: &'run Lab,
    bond: &'run mut dyn Implementation,
    pace: Pace,
    scenario: &'run Scenario,
    seen: Snapshot,
}

impl Run<'_> {
    fn step(&mut self, case: &Case) -> Result<Vec<String>> {
        let capture = Capture::start(&self.lab.switch.netns)?;
        let said = self.act(&case.step)?;
        let expected = self.bond.expected(case);
        let record = |snapshot: &Snapshot| [said.clone(), snapshot.changes_since(&self.seen)].concat();
        let is_expected = |snapshot: &Snapshot| self.bond.is_as_expected(expected, &record(snapshot));
        let snapshot = self.settle(&capture, is_expected)?;
        let lines = record(&snapshot);
        self.seen = snapshot;
        Ok(lines)
    }

    /// Runs a step; returns the lines that its record has in addition to the changes that follow.
    // One thing: an arm for each step.
    fn act(&mut self, step: &Step) -> Result<Vec<String>> {
        let host = &self.lab.host;
        match step {
            Step::Bond { options, slaves } => return Ok(refusal(&self.bond.create(options, slaves)?)),
            Step::Remove => self.bond.remove()?,
            Step::Enslave(slave) => return Ok(refusal(&self.bond.enslave(slave)?)),
            Step::Release(slave) => return Ok(refusal(&self.bond.release(slave)?)),
            Step::SlaveOption { key, slave, value } => {
                return Ok(refusal(&self.bond.set_slave(slave, *key, value)?));
            }
            Step::Frames(slave) => return self.frames(slave),
            Step::Proc => return Ok(proc_lines(&self.bond.proc()?)),
            Step::Set { key, value } => {
                let outcome = self.bond.set(key, value)?;
                let mut lines = refusal(&outcome);
                if outcome == Outcome::Accepted && key != "active_slave" {
                    lines.push(format!("{key}={}", self.bond.get(key)?));
                }
                return Ok(lines);
            }
            Step::Get { key } => return Ok(vec![format!("{key}={}", self.bond.get(key)?)]),
            Step::Promiscuous => return self.promiscuous(),
            Step::Address(address) => {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                host.ip(&format!("address add {address} dev {BOND}{nodad}"))?;
            }
            Step::Group(address) => {
                host.ip(&format!("address add {address}/32 dev {BOND} autojoin"))?;
            }
            Step::Peer { address, state } => {
                let verb = if *state == Switched::On { "add" } else { "del" };
                self.lab.peer.ip(&format!("address {verb} {address} dev {PEER_NIC}"))?;
            }
            Step::Vlan { id, address } => {
                host.ip(&format!("link add link {BOND} name {BOND}.{id} type vlan id {id}"))?;
                host.ip(&format!("link set {BOND}.{id} addrgenmode none up"))?;
                host.ip(&format!("address add {address} dev {BOND}.{id}"))?;
            }
            Step::Macvlan { lower, mac, address } => {
                host.ip(&format!("link add link {lower} name mac0 address {mac} type macvlan mode bridge"))?;
                host.ip("link set mac0 addrgenmode none")?;
                host.ip("link set mac0 up")?;
                host.ip(&format!("address add {address} dev mac0"))?;
            }
            Step::Link { slave, link, state } => {
                let cut = match link {
                    LinkPart::Carrier => Cut::Carrier,
                    LinkPart::Admin => Cut::Admin,
                    LinkPart::Path => Cut::Silent,
                };
                match state {
                    Switched::Off => self.lab.cut(slave, cut)?,
                    Switched::On => self.lab.reconnect(slave, cut)?,
                };
            }
            Step::Device { arguments } => {
                if host.ip(&format!("link set {arguments}")).is_err() {
                    return Ok(vec![REFUSED.to_owned()]);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Returns the devices that are promiscuous. A request of a device above is not among the flags that `ip` shows.
    fn promiscuous(&self) -> Result<Vec<String>> {
        let json = self.lab.host.ip("-details -json link show")?;
        let devices: Vec<serde_json::Value> = serde_json::from_str(&json).context("the output of ip")?;
        let promiscuous = devices.iter().filter(|device| device["promiscuity"].as_u64() > Some(0));
        let names = promiscuous.filter_map(|device| device["ifname"].as_str());
        let ours = names.filter(|name| *name == BOND || name.starts_with("slave"));
        Ok(vec![format!("promiscuous: {}", ours.collect::<Vec<_>>().join(" "))])
    }

    /// Returns which sockets receive each of the frames that the switch sends to a slave.
    fn frames(&self, slave: &str) -> Result<Vec<String>> {
        const STATION: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
        const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
        let bond = self.lab.host.link(BOND)?.mac.bytes();
        let kinds = [
            ("unicast to the bond", bond, EXPERIMENT),
            ("unicast to another", [2, 0, 0, 0, 0, 0x77], EXPERIMENT),
            ("broadcast", [0xff; 6], EXPERIMENT),
            ("multicast", [0x01, 0x00, 0x5e, 0, 0, 1], EXPERIMENT),
            ("LLDP", [0x01, 0x80, 0xc2, 0, 0, 0x0e], [0x88, 0xcc]),
            ("LACP", [0x01, 0x80, 0xc2, 0, 0, 0x02], [0x88, 0x09]),
        ];
        let capture = Capture::start(&self.lab.host)?;
        let port = PacketSocket::open(&self.lab.switch.netns, &self.lab.port(slave)?)?;
        let frame = |(_, destination, kind): &(&str, [u8; 6], [u8; 2])| {
            let mut frame = [destination.as_slice(), &STATION, kind].concat();
            frame.resize(60, 0);
            frame
        };
        kinds.iter().try_for_each(|kind| port.send(&frame(kind)))?;
        // A socket that received the last one has received the others, or never will.
        let last = kinds.last().map(frame);
        let is_last = |seen: &crate::Frame| seen.ifname == slave && Some(&seen.bytes) == last.as_ref();
        capture.wait_for(WAIT_LIMIT, is_last)?;
        thread::sleep(self.pace.between_looks(self.scenario.quiet));
        let seen = capture.stop()?;
        let mut lines = Vec::new();
        for (name, destination, kind) in &kinds {
            let is_it = |seen: &&crate::Frame| {
                let headers = [destination.as_slice(), &STATION, kind].concat();
                !seen.outgoing && seen.bytes.starts_with(&headers)
            };
            let mut by: Vec<&str> = seen.iter().filter(is_it).map(|seen| seen.ifname.as_str()).collect();
            by.retain(|name| *name == BOND || *name == slave);
            by.sort_unstable();
            lines
                .push(format!("{name}: {}", if by.is_empty() { String::from("none") } else { by.join(" ") }));
        }
        Ok(lines)
    }

    /// Waits until nothing changes any more, and longer for a state that is not as expected: on a busy machine it may
    /// be late.
    fn settle(&self, capture: &Capture, is_expected: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let quiet = self.scenario.quiet;
        let deadline = Instant::now() + self.pace.wait_limit() + quiet;
        let mut last = self.observe(capture.frames())?;
        let (mut since, mut polls) = (Instant::now(), 0);
        loop {
            let quiet = if is_expected(&last) { self.pace.quiet(quiet) } else { quiet + LATENESS };
            if since.elapsed() >= quiet && polls >= MIN_POLLS && !self.has_tentative()? {
                return Ok(last);
            }
            if Instant::now() > deadline {
                bail!("the state keeps changing; the last one is {last:#?}");
            }
            thread::sleep(self.pace.between_looks(self.scenario.quiet));
            let snapshot = self.observe(capture.frames())?;
            polls += 1;
            if snapshot != last {
                (last, since, polls) = (snapshot, Instant::now(), 0);
            }
        }
    }

    /// Returns whether an address is being tested for duplicates; its announcements may or may not be sent.
    fn has_tentative(&self) -> Result<bool> {
        let addresses = self.lab.host.ip("-o address show tentative")?;
        Ok(self.has_carrier()? && addresses.lines().any(|line| line.contains(BOND)))
    }

    fn has_carrier(&self) -> Result<bool> {
        Ok(self.lab.host.links()?.iter().any(|link| link.name == BOND && link.has_carrier()))
    }

    fn observe(&self, frames: Vec<crate::Frame>) -> Result<Snapshot> {
        let devices: Vec<Device> = self.lab.host.links()?;
        Ok(Snapshot::new(&devices, self.bond.status()?.as_ref(), &frames))
    }
}

/// Returns whether two records are equivalent. A refusal of the driver has an error's name, one of xbond a sentence.
pub fn same(left: &[String], right: &[String]) -> bool {
    let common = |line: &String| if line.starts_with(REFUSED) { REFUSED.to_owned() } else { line.clone() };
    left.iter().map(common).eq(right.iter().map(common))
}

/// Returns the lines after the version. An empty one would be lost in a file of steps.
fn proc_lines(text: &str) -> Vec<String> {
    text.lines().skip(1).map(|line| if line.is_empty() { "-" } else { line }.to_owned()).collect()
}

fn refusal(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Accepted => Vec::new(),
        Outcome::Refused(Some(errno)) => vec![format!("{REFUSED} {errno:?}")],
        Outcome::Refused(None) => vec![REFUSED.to_owned()],
    }
}
