//! Runs the steps with xbond.

use std::{fmt::Write as _, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{BOND, Case, Implementation, Outcome, Slave, SlaveStatus, Status, step::SlaveKey};
use crate::{Xbond, netns::NetNs, xbond};

/// A bond of xbond.
pub struct OurBond<'lab> {
    host: &'lab NetNs,
    agent: Option<Xbond<'lab>>,
}

impl<'lab> OurBond<'lab> {
    pub fn new(host: &'lab NetNs) -> Self {
        Self { host, agent: None }
    }

    /// Returns the agent's log.
    pub fn log(&self) -> String {
        self.agent.as_ref().map(Xbond::log).unwrap_or_default()
    }

    /// Returns the process id of the agent; None while there is no bond.
    pub fn pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Xbond::pid)
    }

    fn agent(&self) -> Result<&Xbond<'lab>> {
        self.agent.as_ref().context("there is no bond")
    }

    fn show(&self) -> Result<Option<Value>> {
        self.agent.as_ref().map(|agent| Ok(agent.show(BOND)?["bonds"][0].take())).transpose()
    }
}

/// Converts the result of a command: an exit with 2 is a refusal; any other error is a failure.
fn outcome(result: Result<String>) -> Result<Outcome> {
    match result {
        Ok(_) => Ok(Outcome::Accepted),
        Err(error) if format!("{error:#}").contains("exit status: 2") => Ok(Outcome::Refused(None)),
        Err(error) => Err(error),
    }
}

/// Returns a configuration file instead of flags: flags have no options of slaves.
fn configuration(options: &[(String, String)], slaves: &[Slave]) -> String {
    let names: Vec<String> = slaves.iter().map(|slave| format!("{:?}", slave.name)).collect();
    let mut text = format!("version = 1\n[bond.{BOND}]\nslaves = [{}]\n", names.join(", "));
    for (key, value) in options {
        let _ = writeln!(text, "{key} = {value:?}");
    }
    for slave in slaves {
        if let Some(prio) = slave.prio {
            let _ = writeln!(text, "[bond.{BOND}.slave.{}]\nprio = {prio}", slave.name);
        }
    }
    text
}

impl Implementation for OurBond<'_> {
    fn expected<'case>(&self, case: &'case Case) -> &'case [String] {
        case.xbond()
    }

    fn create(&mut self, options: &[(String, String)], slaves: &[Slave]) -> Result<Outcome> {
        let mut file = NamedTempFile::with_suffix(".toml").context("cannot make a configuration file")?;
        write!(file, "{}", configuration(options, slaves))?;
        let mut agent = Xbond::start(self.host, [Path::new("-c"), file.path()])?;
        match agent.wait_for(xbond::READY) {
            Ok(_) => {
                self.agent = Some(agent);
                Ok(Outcome::Accepted)
            }
            Err(error) => match agent.wait()?.code() {
                Some(2) => Ok(Outcome::Refused(None)),
                _ => Err(error),
            },
        }
    }

    fn remove(&mut self) -> Result<()> {
        // There is no agent if xbond refused the bond and the driver did not.
        self.agent.take().map_or(Ok(()), |agent| agent.stop().map(drop))
    }

    fn enslave(&mut self, slave: &str) -> Result<Outcome> {
        outcome(self.agent()?.cli(["add-slave", BOND, slave]))
    }

    fn release(&mut self, slave: &str) -> Result<Outcome> {
        outcome(self.agent()?.cli(["del-slave", BOND, slave]))
    }

    fn set_slave(&mut self, slave: &str, key: SlaveKey, value: &str) -> Result<Outcome> {
        outcome(self.agent()?.cli(["set", BOND, "--slave", slave, &format!("{}={value}", key.name())]))
    }

    fn proc(&self) -> Result<String> {
        self.agent()?.cli(["show", "--proc", BOND])
    }

    fn set(&mut self, key: &str, value: &str) -> Result<Outcome> {
        outcome(self.agent()?.cli(["set", BOND, &format!("{key}={value}")]))
    }

    fn get(&self, key: &str) -> Result<String> {
        let bond = self.show()?.context("there is no bond")?;
        // Two names of one number; the report has one of them.
        let key = if key == "num_unsol_na" { "num_grat_arp" } else { key };
        Ok(match &bond["options"][key] {
            Value::String(text) => text.clone(),
            Value::Bool(yes) => u8::from(*yes).to_string(),
            Value::Number(number) => number.to_string(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            Value::Null | Value::Object(_) => String::new(),
        })
    }

    fn status(&self) -> Result<Option<Status>> {
        let Some(bond) = self.show()? else { return Ok(None) };
        let slaves = bond["slaves"].as_array().into_iter().flatten().map(|slave| SlaveStatus {
            name: slave["name"].as_str().unwrap_or_default().to_owned(),
            mii: slave["mii_status"].as_str().unwrap_or_default().to_owned(),
            failures: slave["link_failure_count"].as_u64().unwrap_or_default(),
        });
        let active = bond["active_slave"].as_str().map(str::to_owned);
        Ok(Some(Status { active, slaves: slaves.collect() }))
    }
}
