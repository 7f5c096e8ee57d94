//! What the agent answers to queries of its bonds' state.

use std::sync::{Arc, atomic::Ordering};

use bond_common::abi::{BondEntry, PORT_STATS, Slot};
use bond_core::{
    name::BondName,
    status::{BondStatus, SlaveStatus},
};

use crate::{
    agent::{Agent, AgentError, Bond, bond::guard::GuardState, feed::Listener, lifecycle::machine::Machine},
    config::OnExit,
    report::{
        counted::{Counted, softnet},
        drain::Damped,
        event::{Event, What},
        json::{self, AgentInfo, AnswerSource, BondContext, Report, SlaveContext, Ticks},
        misdirected,
        moment::{Moment, monotonic},
        path,
        receipt::Log,
        wording,
    },
    store::{drains::DrainedSlave, receipts, record::Record},
    sys::directory::Trust,
};

/// How far a report goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The bonds, and what netlink says of the devices around them.
    All,
    /// The bonds alone, without what needs RTNL.
    Bonds,
}

impl Agent {
    /// Returns the state of one bond, or of all bonds.
    ///
    /// # Errors
    /// There is no such bond, or its counters cannot be read.
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
        // What exists of a bond that is being created is not left over.
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
            no_answer: None,
            moment: Moment::now(),
            agent: Some(agent),
            softnet,
            notes,
            bonds: bonds.collect::<Result<_, _>>()?,
            orphaned,
            gone,
            missing: self.retries.sentences().into_iter().chain(self.published.sentences()).collect(),
        })
    }

    /// Returns the last failovers of a bond.
    ///
    /// # Errors
    /// There is no such bond, or its receipts cannot be read.
    pub async fn log(&self, name: &BondName) -> Result<Log, AgentError> {
        self.bond(name)?;
        Ok(receipts::log(&self.machine.paths, name)?)
    }

    /// Returns a listener for events from now on, and the present state of the bonds as events.
    ///
    /// # Errors
    /// There is no such bond.
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
        // A record that cannot be read is reported where it is needed.
        let record = Record::read(paths, name, Trust::Ours).ok().flatten();
        let trial = record.as_ref().and_then(Record::trial);
        let slaves = self.slaves(name, status, machine, record.as_ref())?;
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
            clock: self.clock_text(),
            ticks: self.ticks(record.as_ref()),
            path: path::monitor(&self.maps, self.path.fault()),
            host_mac: self.maps.bond().host_mac(),
            host_mac_stays: self.maps.bond().has(BondEntry::HOST_MAC_STAYS),
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
            devices: devices.filter_map(|device| Some(counted.get(&device)?.device.clone())).collect(),
            warnings: self
                .pins_gone(name)
                .into_iter()
                .chain(trial.map(|trial| wording::on_trial(name, trial.left())))
                .chain(self.standing_clock(name))
                .chain(wording::unmonitored(name, &status.options, goal.config.allow_unmonitored))
                .chain(misdirected::left_out(name, &self.maps))
                .chain(failovers.faults)
                .chain(failovers.notes)
                .chain(misdirected::warnings(name, &self.maps, |slot| name_in(status, slot)))
                .collect(),
        };
        Ok(json::Bond::new(status, around))
    }

    /// Returns what the maps and the record say of each slave.
    fn slaves(
        &self,
        name: &BondName,
        status: &BondStatus,
        machine: &Machine,
        record: Option<&Record>,
    ) -> Result<Vec<SlaveContext>, AgentError> {
        let slave = |slave: &SlaveStatus| {
            let wire_mac = Slot::new(slave.slot).map(|slot| self.maps.slave(slot).wire_mac());
            let found = record.and_then(|record| record.slave(slave.ifindex));
            let known = DrainedSlave { bond: name, name: &slave.name, ifindex: slave.ifindex };
            Ok(SlaveContext {
                stats: self.maps.stats(slave.slot.into())?,
                misdirected: Slot::new(slave.slot).map_or(0, |slot| self.maps.misdirected(slot)),
                wire_mac: wire_mac.unwrap_or(slave.mac),
                found: found.map(json::OriginalState::from),
                drained: machine.drained(known).filter(|_| slave.drained),
                damping: slave.damping.map(|damping| Damped::at(&damping, monotonic())),
                path: Slot::new(slave.slot).and_then(|slot| path::of_slave(&self.maps, slot)),
            })
        };
        status.slaves.iter().map(slave).collect()
    }

    /// Returns the warning about pins that another process has removed.
    fn pins_gone(&self, name: &str) -> Option<String> {
        let is_pinned = self.pinned.load(Ordering::Relaxed);
        (!is_pinned).then(|| format!("{name}: {}", wording::PINS_GONE))
    }
}

impl Bond {
    fn clock_text(&self) -> String {
        let state = self.clock.get();
        match self.maps.clock() {
            Some(maps) => wording::clock(&maps.entry(), &maps.ticks(), state.why_off(), monotonic()),
            None => wording::NO_CLOCK_MAPS.to_owned(),
        }
    }

    fn ticks(&self, record: Option<&Record>) -> Option<Ticks> {
        let pair = record.and_then(Record::clock).map(|clock| &clock.names);
        let devices = pair.map(|names| vec![names.sender.to_string(), names.receiver.to_string()]);
        Some(Ticks::read(self.maps.clock()?, devices.unwrap_or_default(), monotonic()))
    }

    /// Returns the warning about a clock that ran and stands still.
    fn standing_clock(&self, name: &str) -> Option<String> {
        let clock = self.maps.clock()?;
        let (entry, ticks, now) = (clock.entry(), clock.ticks(), monotonic());
        let stands = entry.period > 0 && ticks.ticks > 0 && !wording::clock_ticks(&entry, &ticks, now);
        stands.then(|| wording::clock_stands(name, &self.clock_text()))
    }
}

/// Returns the name of the slave in a slot.
fn name_in(status: &BondStatus, slot: Slot) -> Option<String> {
    let slave = status.slaves.iter().find(|slave| usize::from(slave.slot) == slot.index());
    slave.map(|slave| slave.name.clone())
}

fn on_exit(on_exit: OnExit) -> &'static str {
    match on_exit {
        OnExit::Down => "down",
        OnExit::Keep => "keep",
    }
}
