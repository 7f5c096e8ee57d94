//! What the agent tells those who ask how its bonds are.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bond_common::abi::{PORT_STATS, Slot};
use bond_core::{name::BondName, status::BondStatus};
use tokio::time::timeout;

use crate::{
    agent::{
        Agent, AgentError, Bond,
        bond::{guard::GuardState, worker::PINS_GONE},
        lifecycle::machine::Machine,
        server::{
            counters::{self, Counted},
            events::Listener,
        },
    },
    config::OnExit,
    report::{
        event::{Event, What},
        json::{self, AgentInfo, AnswerSource, Around, BondContext, Report},
        moment::Moment,
        receipt::Log,
        text,
    },
    store::{receipts, record::Record},
    sys::{Devices, directory::Trust, softnet::Softnet},
};

/// A process that holds RTNL does not keep a reader without an agent from the rest.
const DEVICES_AT_MOST: Duration = Duration::from_secs(1);

/// How far a report goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The bonds, and what netlink says of the devices around them.
    All,
    /// The bonds alone, which nobody who holds RTNL delays.
    Bonds,
}

impl Agent {
    /// The state of one bond, or of all.
    pub async fn report(&self, only: Option<&BondName>, scope: Scope) -> Result<Report, AgentError> {
        let agent = AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.clone(),
        };
        let gone = if only.is_none() { self.lost_bonds(None).await } else { Vec::new() };
        let bonds = match only.map(|name| (name, self.find(name))) {
            Some((name, Some(bond))) => vec![(name.clone(), bond)],
            Some((name, None)) => return Err(self.absence_of(name).await),
            None => self.all(),
        };
        // While somebody makes a bond, what is there of it is no remains.
        let orphaned = match self.phase.try_lock() {
            Ok(_) if only.is_none() => self.orphaned(),
            _ => Vec::new(),
        };
        let statuses: Vec<_> = bonds.iter().map(|(name, bond)| (name, bond, bond.status())).collect();
        let mut devices = Vec::new();
        for (_, bond, status) in &statuses {
            devices.extend([bond.host.device(), bond.host.port()]);
            devices.extend(status.slaves.iter().map(|slave| slave.ifindex));
        }
        let mut notes = Vec::new();
        let counted = match scope {
            Scope::All => self.counters.of(&self.machine.devices, &devices, &mut notes).await,
            Scope::Bonds => Counted::new(),
        };
        let softnet = softnet(&mut notes);
        let bonds =
            statuses.iter().map(|(name, bond, status)| bond.report(name, status, &self.machine, &counted));
        Ok(Report {
            version: json::VERSION,
            source: AnswerSource::Agent,
            moment: Moment::now(),
            agent: Some(agent),
            softnet,
            notes,
            bonds: bonds.collect::<Result<_, _>>()?,
            orphaned,
            gone,
            missing: self.retries.sentences(),
        })
    }

    /// The last failovers of a bond.
    pub async fn log(&self, name: &BondName) -> Result<Log, AgentError> {
        self.bond(name)?;
        receipts::log(&self.machine.paths, name)
    }

    /// What happens from now on, and how the bonds are now.
    pub async fn listen(&self, only: Option<&BondName>) -> Result<(Listener, Vec<Event>), AgentError> {
        let listener = self.machine.feed.listen();
        let mut states = Vec::new();
        for (name, bond) in self.asked_for(only)? {
            let BondStatus { active_slave, carrier, .. } = bond.status();
            states.push(Event::new(Some(&name), What::State { active_slave, carrier }));
        }
        Ok((listener, states))
    }

    /// One bond, or all.
    fn asked_for(&self, only: Option<&BondName>) -> Result<Vec<(BondName, Arc<Bond>)>, AgentError> {
        match only {
            Some(name) => Ok(vec![(name.clone(), self.bond(name)?)]),
            None => Ok(self.all()),
        }
    }
}

impl Bond {
    fn report(
        &self,
        name: &BondName,
        status: &BondStatus,
        machine: &Machine,
        counted: &Counted,
    ) -> Result<json::Bond, AgentError> {
        let paths = &machine.paths;
        // A record that cannot be read is told by whoever needs it.
        let record = Record::read(paths, name, Trust::Ours).ok().flatten();
        let found =
            |ifindex| record.as_ref().and_then(|record| record.slave(ifindex)).map(json::OriginalState::from);
        let trial = record.as_ref().and_then(Record::trial);
        let mut slaves = Vec::new();
        for slave in &status.slaves {
            let wire_mac = Slot::new(slave.slot).map(|slot| self.maps.slave(slot).wire_mac());
            slaves.push(Around {
                stats: self.maps.stats(slave.slot.into())?,
                wire_mac: wire_mac.unwrap_or(slave.mac),
                found: found(slave.ifindex),
            });
        }
        let failovers = self.history.get();
        let goal = self.goal();
        let (host, port) = (self.host.device(), self.host.port());
        let devices = [host].into_iter().filter(|host| *host != port).chain([port]);
        let devices = devices.chain(status.slaves.iter().map(|slave| slave.ifindex));
        let around = BondContext {
            name: name.to_string(),
            ifindex: Some(host).filter(|host| *host != port && counted.contains_key(host)),
            datapath: self.hook.to_string(),
            pair: self.pair.map(|kind| kind.to_string()),
            port: self.port.clone(),
            port_ifindex: port,
            guard: GuardState::new(goal.config.guard, &machine.kernel, &status.options).to_string(),
            host_mac: self.maps.bond().host_mac(),
            mtu: counted.get(&host).or(counted.get(&port)).map(|counted| counted.mtu),
            on_exit: Some(on_exit(goal.config.on_exit).to_owned()),
            pins: paths.shown_pins_of(name).display().to_string(),
            files: paths.run_of(name).path().display().to_string(),
            active: self.maps.active(),
            absent: goal.absent(status).map(|wanted| wanted.name().to_owned()).collect(),
            addresses_of: record.as_ref().and_then(Record::released_giver).map(|found| found.name.clone()),
            port_stats: self.maps.stats(PORT_STATS)?,
            slaves,
            failovers: failovers.by_reason,
            unrecorded_changes: failovers.unrecorded,
            path_faults: failovers.faults.clone(),
            path_restored: failovers.restored,
            last_failover: failovers.last,
            devices: devices
                .filter_map(|device| counted.get(&device))
                .map(|counted| counted.device.clone())
                .collect(),
            warnings: Some(format!("{name}: {PINS_GONE}"))
                .filter(|_| !self.pinned.load(Ordering::Relaxed))
                .into_iter()
                .chain(trial.map(|trial| text::on_trial(name, trial.left())))
                .chain(failovers.faults)
                .chain(failovers.notes)
                .collect(),
        };
        Ok(json::Bond::new(status, around))
    }
}

fn on_exit(on_exit: OnExit) -> &'static str {
    match on_exit {
        OnExit::Down => "down",
        OnExit::Keep => "keep",
    }
}

/// Counters of devices, for who reads them once. If the kernel does not answer soon, none.
pub async fn count(of: &dyn Devices, devices: &[u32], notes: &mut Vec<String>) -> Counted {
    match timeout(DEVICES_AT_MOST, counters::read(of, devices)).await {
        Ok(Ok(counted)) => counted,
        Ok(Err(error)) => {
            notes.push(format!("the devices' counters are missing: {error}"));
            Counted::new()
        }
        Err(_) => {
            let why = "the kernel did not answer within a second; another process may hold RTNL";
            notes.push(format!("the devices' counters are missing: {why}"));
            Counted::new()
        }
    }
}

pub fn softnet(notes: &mut Vec<String>) -> Option<json::SoftnetCounters> {
    match Softnet::read() {
        Ok(softnet) => Some(softnet.into()),
        Err(error) => {
            notes.push(format!("softnet counters are missing: {error}"));
            None
        }
    }
}
