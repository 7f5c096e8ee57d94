//! An agent that executes batches on simulated NICs, with a simulated clock.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use bond_common::{
    abi::{ActiveWord, MAX_TARGETS, ProbeTimes, Rank, Slot},
    guard,
    mac::Mac,
};

use crate::{
    Engine, NewBond, Refusal, Time,
    command::{Announce, Batch, Failover, Notice, Probe, Publish, Query, Report, Work},
    event::{Duplex, Event, FoundPaths, Link, Neighbours, NewSlave, Reception, Speed},
    options::{BondOptions, FailOverMac, SlaveOptions},
    status::{MiiStatus, SlaveStatus},
};

/// The MAC address of a new bond.
pub const BORN: Mac = mac(0xb0);

/// MAC addresses of the transcripts of the driver: the last byte names the device.
pub const fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

pub const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// Returns options with miimon 100 and this policy, without IGMP and MLD reports, which have separate tests.
pub fn options(fail_over_mac: FailOverMac) -> BondOptions {
    BondOptions { miimon: 100, fail_over_mac, resend_igmp: 0, ..BondOptions::default() }
}

#[derive(Clone, Debug)]
pub struct Nic {
    pub name: String,
    pub burned_in: Mac,
    pub mac: Mac,
    pub link: Link,
    pub can_set_mac: bool,
    /// The NIC refuses every MAC address from now on, although it accepted others before.
    pub refuses: bool,
    pub tx_packets: u64,
    pub rx_unicast: u64,
    /// The switch forwards frames of this NIC, independently of the carrier.
    pub path: bool,
    /// The switch that it is connected to.
    pub switch: u8,
    pub received: ProbeTimes,
}

/// A part of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Publish(Publish),
    Query(Query),
    Report(Report),
    Announce(Announce),
    Probe(Probe),
    Work(Work),
}

impl Command {
    /// Returns the parts of a batch, in the order in which they are executed or handed on.
    pub fn of(batch: Batch) -> Vec<Self> {
        let Batch { publish, queries, reports, announcements, probes, work } = batch;
        let publish = publish.into_iter().map(Self::Publish);
        let queries = queries.into_iter().map(Self::Query);
        let reports = reports.into_iter().map(Self::Report);
        let announcements = announcements.into_iter().map(Self::Announce);
        let probes = probes.into_iter().map(Self::Probe);
        let work = work.into_iter().map(Self::Work);
        publish.chain(queries).chain(reports).chain(announcements).chain(probes).chain(work).collect()
    }
}

macro_rules! part_of_a_batch {
    ($($part:ident)*) => {
        $(impl From<$part> for Command {
            fn from(part: $part) -> Self {
                Self::$part(part)
            }
        })*
    };
}

part_of_a_batch!(Publish Query Report Announce Probe Work);

impl From<Notice> for Command {
    fn from(notice: Notice) -> Self {
        Self::Report(Report::Notice(notice))
    }
}

impl From<Failover> for Command {
    fn from(failover: Failover) -> Self {
        Self::Report(Report::Failover(failover))
    }
}

impl PartialEq<Notice> for Report {
    fn eq(&self, other: &Notice) -> bool {
        matches!(self, Self::Notice(notice) if notice == other)
    }
}

/// When slow commands are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandMode {
    /// At once, with an immediate answer.
    Prompt,
    /// One at each [`Lab::work`].
    Manual,
}

#[derive(Debug)]
pub struct Lab {
    pub engine: Engine,
    pub now: Time,
    pub bond_mac: Mac,
    pub bond_refuses: bool,
    pub carrier: bool,
    /// By ifindex; slave0 has 10.
    pub nics: BTreeMap<u32, Nic>,
    /// SLAVES, by slot.
    pub slaves: BTreeMap<Slot, (u32, Mac, Mac)>,
    pub queue_ids: BTreeMap<Slot, u16>,
    /// ACTIVE
    pub word: (Option<Slot>, Option<Slot>, u16),
    pub mode: CommandMode,
    /// Targets that do not answer.
    pub dead: Vec<IpAddr>,
    /// Switches without an uplink: they forward between their own ports only.
    pub cut_off: Vec<u8>,
    /// Events that may have changed something.
    pub changes: usize,
    batches: VecDeque<Batch>,
    slow: VecDeque<(u32, Command)>,
    ifindex_of: BTreeMap<Slot, u32>,
    log: Vec<(Time, Command)>,
}

impl Lab {
    /// A bond with the MAC [`BORN`], not enslaved NICs slave0 (:10), slave1 (:11), ... with link.
    pub fn new(options: BondOptions, nics: u8) -> Self {
        let new = NewBond {
            name: "bond0".into(),
            mac: BORN,
            mac_assigned: false,
            mac_stays: false,
            prearm: false,
            seed: 1,
            options,
            damping: None,
            watch: None,
        };
        Self::of(new, nics)
    }

    pub fn of(new: NewBond, nics: u8) -> Self {
        let nic = |index: u8| Nic {
            name: format!("slave{index}"),
            burned_in: mac(0x10 + index),
            mac: mac(0x10 + index),
            link: Link { speed: Speed(10_000), duplex: Duplex::Full, ..Link::new(true) },
            can_set_mac: true,
            refuses: false,
            tx_packets: 0,
            rx_unicast: 0,
            path: true,
            switch: 0,
            received: ProbeTimes::NEVER,
        };
        Self {
            bond_mac: new.mac,
            bond_refuses: false,
            engine: Engine::new(new),
            now: ms(1_000_000),
            carrier: false,
            nics: (0..nics).map(|index| (10 + u32::from(index), nic(index))).collect(),
            slaves: BTreeMap::new(),
            queue_ids: BTreeMap::new(),
            word: (None, None, 0),
            mode: CommandMode::Prompt,
            dead: Vec::new(),
            cut_off: Vec::new(),
            changes: 0,
            batches: VecDeque::new(),
            slow: VecDeque::new(),
            ifindex_of: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// All NICs enslaved in order, and what that took forgotten.
    pub fn enslaved(options: BondOptions, nics: u8) -> Self {
        let mut lab = Self::new(options, nics);
        for index in 0..nics {
            lab.join(index).unwrap();
        }
        lab.take();
        lab
    }

    pub fn slot(&self, index: u8) -> Slot {
        self.engine.slot_of(&self.nic(index).name).unwrap()
    }

    pub fn nic(&self, index: u8) -> &Nic {
        &self.nics[&(10 + u32::from(index))]
    }

    pub fn nic_mut(&mut self, index: u8) -> &mut Nic {
        self.nics.get_mut(&(10 + u32::from(index))).unwrap()
    }

    pub fn new_slave(&self, index: u8) -> NewSlave {
        let nic = self.nic(index);
        NewSlave {
            name: nic.name.clone(),
            ifindex: 10 + u32::from(index),
            mac: nic.mac,
            can_set_mac: nic.can_set_mac,
            options: SlaveOptions::default(),
            drained: false,
        }
    }

    pub fn join(&mut self, index: u8) -> Result<(), Refusal> {
        self.handle(Event::Join(self.new_slave(index)))
    }

    /// Requests it, and in the prompt mode waits until it is done.
    pub fn leave(&mut self, index: u8) -> Result<(), Refusal> {
        self.ask_to_leave(index)?;
        while self.mode == CommandMode::Prompt && self.engine.slot_of(&self.nic(index).name).is_some() {
            self.wait(ms(1));
        }
        Ok(())
    }

    pub fn ask_to_leave(&mut self, index: u8) -> Result<(), Refusal> {
        self.handle(Event::Leave { slot: self.slot(index) })
    }

    /// Changes the carrier, with a netlink notification.
    pub fn set_link(&mut self, index: u8, up: bool) {
        self.nic_mut(index).link.up = up;
        self.notify_link(index);
    }

    /// Takes the carrier away and lets the guard fail over at the next packet, before any notification. Returns false if
    /// no slave can take over.
    pub fn guard(&mut self, lost: u8) -> bool {
        self.nic_mut(lost).link.up = false;
        let (active, draining, usable) = self.word;
        let word = ActiveWord::default().next(active, draining, usable);
        let rank = Rank::new(self.engine.rank());
        // The guard has no device of a slave that is not set up.
        let joined: Vec<_> = self.engine.slaves().filter(|slave| slave.joined).collect();
        let has_link = |slot: Slot| {
            let slave = joined.iter().find(|slave| slave.slot == slot);
            slave.and_then(|slave| self.nics.get(&slave.ifindex)).is_some_and(|nic| nic.link.up)
        };
        let Some(next) = guard::fail_over(word, rank, has_link) else { return false };
        self.word = (next.active(), next.draining(), next.usable());
        let (active, draining, usable) = self.word;
        self.handle(Event::ActiveChanged { changes: Vec::new(), active, draining, usable }).unwrap();
        true
    }

    pub fn notify_link(&mut self, index: u8) {
        let (slot, link) = (self.slot(index), self.nic(index).link);
        self.handle(Event::Link { slot, link }).unwrap();
    }

    pub fn set_options(&mut self, change: impl FnOnce(&mut BondOptions)) -> Result<(), Refusal> {
        let mut options = self.engine.options().clone();
        change(&mut options);
        self.handle(Event::SetOptions(Box::new(options)))
    }

    pub fn change_bond_mac(&mut self, mac: Mac) {
        self.bond_mac = mac;
        self.handle(Event::BondMacFound { mac }).unwrap();
    }

    pub fn change_slave_mac(&mut self, index: u8, mac: Mac) {
        let slot = self.slot(index);
        self.nic_mut(index).mac = mac;
        self.handle(Event::SlaveMacFound { slot, mac }).unwrap();
    }

    pub fn set_prio(&mut self, index: u8, prio: i32) {
        let options = SlaveOptions { prio, ..SlaveOptions::default() };
        self.handle(Event::SetSlaveOptions { slot: self.slot(index), options }).unwrap();
    }

    pub fn set_active(&mut self, index: Option<u8>) -> Result<(), Refusal> {
        self.handle(Event::SetActiveSlave(index.map(|index| self.slot(index))))
    }

    /// Passes an event to the engine and executes its commands.
    /// Has the path monitor find that the paths of these slots have failed, now.
    pub fn find(&mut self, failed: u16) {
        self.find_paths(FoundPaths { failed, ..FoundPaths::default() });
    }

    /// Has the path monitor find this, now.
    pub fn find_paths(&mut self, found: FoundPaths) {
        self.handle(Event::Paths(FoundPaths { seen_at: self.now, ..found })).unwrap();
    }

    pub fn handle(&mut self, event: Event) -> Result<(), Refusal> {
        let answer = self.decide(event).map(|batch| self.batches.push_back(batch));
        self.execute();
        while self.mode == CommandMode::Prompt && self.work() {}
        answer
    }

    /// Has the engine handle an event. One that is said to have changed nothing has not.
    fn decide(&mut self, event: Event) -> Result<Batch, Refusal> {
        let answers = |engine: &Engine| {
            let orders = [engine.enslave_order(), engine.merit_order(), engine.rank()];
            let rest = (engine.preference(), engine.avoided_by_agent(), engine.arp_targets_since());
            (engine.status(), engine.options().clone(), orders, rest)
        };
        let before = answers(&self.engine);
        self.engine.take_change();
        let said = format!("{event:?}");
        let batch = self.engine.handle(self.now, event);
        if self.engine.take_change() {
            self.changes += 1;
        } else {
            assert_eq!(answers(&self.engine), before, "{said}");
        }
        batch
    }

    /// Replaces the engine and executes the first batch of the new one.
    pub fn replace_engine(&mut self, (engine, batch): (Engine, Batch)) {
        self.engine = engine;
        self.batches.push_back(batch);
        // The new engine writes all entries again.
        self.slaves.clear();
        self.queue_ids.clear();
        self.execute();
        while self.mode == CommandMode::Prompt && self.work() {}
    }

    /// Advances the clock; the engine is called exactly at its timeouts.
    pub fn wait(&mut self, time: Time) {
        let end = self.now + time;
        while let Some(next) = self.engine.poll_timeout().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.timeout();
        }
        self.now = end;
    }

    pub fn timeout(&mut self) {
        self.handle(Event::Timeout).unwrap();
        assert!(self.engine.poll_timeout().is_none_or(|next| next > self.now), "the engine is in a hurry");
    }

    /// Executes the oldest slow command, and answers it. False if there was none.
    pub fn work(&mut self) -> bool {
        let Some((ifindex, command)) = self.slow.pop_front() else { return false };
        if let Some(answer) = self.execute_slow(ifindex, command) {
            self.handle(answer).unwrap();
        }
        true
    }

    pub fn is_busy(&self, index: u8) -> bool {
        self.slow.iter().any(|(ifindex, _)| *ifindex == 10 + u32::from(index))
    }

    pub fn status(&self, index: u8) -> SlaveStatus {
        let status = self.engine.status();
        status.slaves.into_iter().find(|slave| slave.name == self.nic(index).name).unwrap()
    }

    pub fn mii(&self, index: u8) -> MiiStatus {
        self.status(index).mii_status
    }

    pub fn active(&self) -> Option<String> {
        let status = self.engine.status();
        let slot = status.slaves.iter().find(|slave| Some(&slave.name) == status.active_slave.as_ref());
        assert_eq!(
            self.word.0.map(Slot::index),
            slot.map(|slave| slave.slot.into()),
            "ACTIVE is not the active slave"
        );
        status.active_slave
    }

    /// Returns the last bytes of the MAC addresses in use: the bond's, then each NIC's.
    pub fn macs(&self) -> Vec<u8> {
        let nics = self.nics.values().map(|nic| nic.mac);
        std::iter::once(self.bond_mac).chain(nics).map(|mac| mac.bytes()[5]).collect()
    }

    /// Returns all commands since the last call.
    pub fn take(&mut self) -> Vec<Command> {
        self.log.drain(..).map(|(_, command)| command).collect()
    }

    /// Returns all reports since the last call, and forgets everything.
    pub fn take_reports(&mut self) -> Vec<Report> {
        let report = |command| if let Command::Report(report) = command { Some(report) } else { None };
        self.take().into_iter().filter_map(report).collect()
    }

    /// Returns all changes of the active slave since the last call, and forgets everything.
    pub fn take_failovers(&mut self) -> Vec<Failover> {
        let failover = |report| if let Report::Failover(failover) = report { Some(failover) } else { None };
        self.take_reports().into_iter().filter_map(failover).collect()
    }

    /// Times, in ms since `start`, at which a command of this kind came; forgets everything.
    pub fn take_times(&mut self, start: Time, kind: impl Fn(&Command) -> bool) -> Vec<u128> {
        self.log
            .drain(..)
            .filter(|(_, command)| kind(command))
            .map(|(at, _)| (at - start).as_millis())
            .collect()
    }

    fn execute(&mut self) {
        while let Some(batch) = self.batches.pop_front() {
            for command in Command::of(batch) {
                self.log.push((self.now, command.clone()));
                self.execute_one(command);
            }
        }
    }

    fn execute_one(&mut self, command: Command) {
        let ifindex_of = |slot: Slot| self.ifindex_of[&slot];
        match &command {
            Command::Publish(publish) => self.publish(publish),
            Command::Query(query) => {
                if let Some(answer) = self.answer(query) {
                    let batch = self.decide(answer).unwrap();
                    self.batches.push_back(batch);
                }
            }
            Command::Report(_) => {}
            Command::Announce(Announce { slot, .. }) | Command::Probe(Probe { slot, .. }) => {
                self.slow.push_back((ifindex_of(*slot), command));
            }
            Command::Work(work) => match work {
                Work::SetCarrier(carrier) => {
                    assert_ne!(self.carrier, *carrier, "carrier set twice");
                    self.carrier = *carrier;
                }
                Work::Enslave { slot, .. }
                | Work::Release { slot, .. }
                | Work::SetSlaveMac { slot, .. }
                | Work::SendReports { slot, .. } => self.slow.push_back((ifindex_of(*slot), command)),
                Work::SetBondMac(_) | Work::AskNeighbours => self.slow.push_back((0, command)),
            },
        }
    }

    fn publish(&mut self, publish: &Publish) {
        match *publish {
            // The lab has no packets.
            Publish::SetPolicy(_) => {}
            Publish::WriteSlave { slot, ifindex, wire_mac, permanent_mac, queue_id } => {
                let entry = (ifindex, wire_mac, permanent_mac);
                let same = self.slaves.insert(slot, entry) == Some(entry);
                let same_queue = self.queue_ids.insert(slot, queue_id) == Some(queue_id);
                assert!(!(same && same_queue), "written twice");
                self.ifindex_of.insert(slot, ifindex);
            }
            Publish::ClearSlave { slot } => {
                assert_ne!(self.word.0, Some(slot), "the active slave was cleared");
                assert_ne!(self.word.1, Some(slot), "the draining slave was cleared");
                assert!(self.slaves.remove(&slot).is_some(), "cleared twice");
            }
            Publish::Switch { active, draining, usable } => {
                let word = (active, draining, usable);
                assert_ne!(self.word, word, "switched twice");
                let written = |slot: &Slot| self.slaves.contains_key(slot);
                assert!(active.iter().chain(&draining).all(written), "a switch to an empty slot");
                assert!(active.is_none() || active != draining);
                self.word = word;
            }
        }
    }

    fn answer(&self, query: &Query) -> Option<Event> {
        let slaves =
            || self.slaves.iter().filter_map(|(slot, entry)| Some((*slot, self.nics.get(&entry.0)?)));
        match query {
            Query::PollLinks => Some(Event::Links(slaves().map(|(slot, nic)| (slot, nic.link)).collect())),
            Query::ReadProbes => Some(Event::Probes(
                slaves().map(|(slot, nic)| Reception { slot, times: nic.received }).collect(),
            )),
            Query::ReadCounters { slot } => {
                let Nic { tx_packets, rx_unicast, .. } = *self.nics.get(&self.ifindex_of[slot])?;
                Some(Event::Counters { slot: *slot, tx_packets, rx_unicast })
            }
        }
    }

    /// Probes every target. The switch floods the requests, the targets answer after a millisecond, and PROBES gets the
    /// times that the data plane would store.
    fn probe(&mut self, ifindex: u32) {
        let options = self.engine.options();
        let ipv4 = options.arp_ip_target.iter().map(|ip| IpAddr::from(*ip)).enumerate();
        let ipv6 = options.ns_ip6_target.iter().map(|ip| IpAddr::from(*ip)).enumerate();
        let ipv6 = ipv6.map(|(index, ip)| (MAX_TARGETS + index, ip));
        let targets: Vec<_> = ipv4.chain(ipv6).collect();
        let validate = options.arp_validate;
        let at = (self.now + ms(1)).as_nanos() as u64;
        let is_plugged = |nic: &Nic| nic.path && nic.link.up;
        let is_cut_off = |switch: u8| self.cut_off.contains(&switch);
        let switch = self.nics.get(&ifindex).map_or(0, |nic| nic.switch);
        if !self.nics.get(&ifindex).is_some_and(is_plugged) {
            return;
        }
        let enslaved: Vec<_> = self.slaves.values().map(|entry| entry.0).collect();
        for (index, target) in targets {
            for (other, nic) in self.nics.iter_mut().filter(|(_, nic)| is_plugged(nic)) {
                if *other != ifindex && nic.switch != switch && (is_cut_off(switch) || is_cut_off(nic.switch))
                {
                    continue;
                }
                if *other == ifindex && !is_cut_off(switch) && !self.dead.contains(&target) {
                    nic.received.note(at, Some(index).filter(|_| validate.validates_active()));
                } else if *other != ifindex && enslaved.contains(other) {
                    match (validate.validates_backup(), self.word.0) {
                        (true, Some(_)) => nic.received.note(at, Some(index)),
                        (true, None) => {}
                        (false, _) => nic.received.note(at, None),
                    }
                }
            }
        }
    }

    fn execute_slow(&mut self, ifindex: u32, command: Command) -> Option<Event> {
        match command {
            Command::Probe(Probe { slot, .. }) => {
                self.probe(ifindex);
                Some(Event::Probed { slot })
            }
            Command::Announce(Announce { slot, .. }) => Some(Event::Announced { slot }),
            Command::Work(work) => self.execute_work(ifindex, work),
            Command::Publish(_) | Command::Query(_) | Command::Report(_) => {
                panic!("{command:?} is not slow")
            }
        }
    }

    fn execute_work(&mut self, ifindex: u32, work: Work) -> Option<Event> {
        let nic = self.nics.get_mut(&ifindex);
        let set = |nic: Option<&mut Nic>, mac| match nic {
            Some(nic) if !nic.refuses => {
                nic.mac = mac;
                true
            }
            Some(_) | None => false,
        };
        match work {
            Work::Enslave { slot, mac } => {
                let link = nic.as_ref().map(|nic| nic.link);
                let done = link.is_some() && mac.is_none_or(|mac| set(nic, mac));
                Some(match link.filter(|_| done) {
                    Some(link) => Event::Joined { slot, link },
                    None => Event::JoinFailed { slot },
                })
            }
            Work::Release { mac, .. } => {
                mac.map(|mac| set(nic, mac));
                None
            }
            Work::SetSlaveMac { slot, mac } => Some(Event::SlaveMacSet { slot, mac, done: set(nic, mac) }),
            Work::SetBondMac(mac) => {
                let done = !self.bond_refuses;
                self.bond_mac = if done { mac } else { self.bond_mac };
                Some(Event::BondMacSet { mac, done })
            }
            Work::SendReports { .. } => None,
            Work::AskNeighbours => Some(Event::NeighboursAsked(Neighbours::Asked)),
            Work::SetCarrier(_) => panic!("{work:?} is not slow"),
        }
    }
}
