//! The engine: one bond's state, and the way from events to commands.
//!
//! Pure rules, each with its table of tests: [`link_state`], [`arp_monitor`], [`election`], [`mac_plan`],
//! [`announce`], [`receive_check`]. The other modules hold what the engine does with them, by subject.

mod adoption;
mod announce;
mod arp;
mod arp_monitor;
mod election;
mod lateness;
mod link_state;
mod links;
mod mac_plan;
mod macs;
mod membership;
mod receive_check;
mod requests;
mod switch;

use std::{cmp::Reverse, collections::VecDeque};

use bond_common::{
    abi::{ActiveWord, MAX_SLAVES, Slot},
    mac::Mac,
};
use thiserror::Error;

use self::{
    announce::{Announcements, Rounds},
    arp_monitor::{Monitor, Path, Proposal, Standing, Tolerance},
    election::{Candidate, Choice, Election},
    lateness::Lateness,
    link_state::{LinkState, Monitoring},
    mac_plan::{AtEnslave, MadeUpMacs, SlaveMac, TrackedMac},
    receive_check::{Counters, HearingTest, Verdict},
};
use crate::{
    Time,
    command::{Chosen, Command, Notice, Reason, Seen},
    event::{Duplex, Elects, Event, Heard, Link, NewSlave, Speed},
    options::{BondOptions, FailOverMac, SlaveOptions},
    status::{BondStatus, MiiStatus, Pending, SlaveState, SlaveStatus},
};

/// After the first announcement of a planned switch, how long peers may go on sending to the old slave.
const DRAIN_AFTER_ANNOUNCEMENT: Time = Time::from_millis(100);
/// A planned switch ends then, announced or not.
const DRAIN_AT_MOST: Time = Time::from_secs(1);
/// How long a freed slot stays empty, so that no packet on its way meets another slave in it.
const SLOT_REST: Time = Time::from_secs(1);

/// A bond that has no slaves yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewBond {
    /// The bond's interface, for messages.
    pub name: String,
    pub mac: Mac,
    /// The MAC was set by hand: it is kept. Otherwise the bond takes its first slave's.
    pub mac_assigned: bool,
    /// fail_over_mac=follow: every slave receives the bond's MAC, so that a failover need not wait for the exchange of
    /// MACs.
    pub prearm: bool,
    /// What made-up MACs are derived from, where the driver takes random ones. It should differ between bonds
    /// and hosts, or their made-up MACs are the same.
    pub seed: u64,
    pub options: BondOptions,
}

/// What another engine has left of a bond, and the data plane has kept going.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// ACTIVE, as it is now.
    pub active: Option<Slot>,
    pub draining: Option<Slot>,
    pub usable: u16,
    /// The active slot when an engine looked last: another one since is the data plane's doing.
    pub known_active: Option<Slot>,
    /// The failovers that the guard has made since, as far as they are known: the oldest first.
    pub failovers: Vec<GuardFailover>,
    /// The bond has carrier.
    pub carrier: bool,
    /// In enslave order; only those that are whole.
    pub slaves: Vec<LeftSlave>,
    /// Names of those that are not there any more.
    pub gone: Vec<(Slot, String)>,
}

/// A failover of the data plane's guard: ACTIVE after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardFailover {
    pub active: Slot,
    pub usable: u16,
}

impl GuardFailover {
    /// By ACTIVE after it; None of a word that the guard does not store.
    pub fn of(word: ActiveWord) -> Option<Self> {
        Some(Self { active: word.active()?, usable: word.usable() })
    }
}

/// A slave that is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftSlave {
    pub slot: Slot,
    pub name: String,
    pub ifindex: u32,
    /// What it has.
    pub mac: Mac,
    /// What it wore when it was enslaved.
    pub permanent_mac: Mac,
    pub options: SlaveOptions,
    pub link: Link,
    pub link_failure_count: u32,
}

/// A request that was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{name} is enslaved already")]
    AlreadyEnslaved { name: String },
    #[error("{name} has interface index {ifindex}, which is the slave {slave}'s; read the interfaces again")]
    IfindexInUse { name: String, ifindex: u32, slave: String },
    #[error("the bond has {MAX_SLAVES} slaves, which is the most; release one before {name} is added")]
    TooManySlaves { name: String },
    #[error("the slots left for {name} were freed just now and have to rest; try again in a second")]
    SlotsResting { name: String },
    #[error(
        "{name} cannot change its MAC, and the bond gives its slaves its own; make the bond with fail_over_mac=active"
    )]
    CannotSetMac { name: String },
    #[error("slot {} has no slave; look up the slave by name again", .slot.index())]
    NoSuchSlave { slot: Slot },
    #[error("{name} is not up and cannot be made the active slave; choose one whose MII status is up")]
    NotUp { name: String },
    #[error("the bond has no active slave to take over from; {name} becomes active when it can")]
    NoActiveSlave { name: String },
    #[error("{name}: queue_id={queue_id} is {slave}'s already; set that to another one, or 0, first")]
    QueueIdTaken { name: String, queue_id: u16, slave: String },
    #[error("{name} is being released and cannot be made the active slave; choose another one")]
    Leaving { name: String },
    #[error("fail_over_mac cannot be changed while the bond has slaves; release them first")]
    FailOverMacInUse,
}

/// A slave, for whoever executes commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlaveRef<'a> {
    pub slot: Slot,
    pub ifindex: u32,
    pub name: &'a str,
    /// What it has, or will when everything asked for is done.
    pub mac: Mac,
    /// It takes part: `Joined` has come.
    pub joined: bool,
    pub link_failure_count: u32,
}

/// One bond. Told of events, it says what is to be done, and when it wants to be called again.
///
/// After each [`Engine::handle`] take all commands; call it with `Event::Timeout` at
/// [`Engine::poll_timeout`]. Of the commands of one event those to the data plane come first, then the
/// notices, then what takes time.
///
/// MACs are taken for changed as soon as that is asked for, and are corrected when it is refused.
#[derive(Clone, Debug)]
pub struct Engine {
    name: String,
    options: BondOptions,
    mac: TrackedMac,
    mac_assigned: bool,
    prearm: bool,
    made_up: MadeUpMacs,
    /// In enslave order.
    slaves: Vec<Slave>,
    active: Option<Slot>,
    /// The primary was set, or enslaved, and takes over as soon as it is up (`force_primary`).
    force_primary: bool,
    open: Option<OpenElection>,
    /// Some slave has been active since the bond was last empty.
    has_been_active: bool,
    drain: Option<Drain>,
    announcements: Announcements,
    /// IGMP and MLD reports (`igmp_retrans`).
    reports: Rounds,
    hearing: Option<HearingTest>,
    next_poll: Option<Time>,
    arp: Monitor,
    lateness: Lateness,
    resting: [Option<Rest>; MAX_SLAVES],
    published: Published,
    outbox: Outbox,
    commands: VecDeque<Command>,
    /// What the event in hand is, to whoever asks why another slave is active.
    seen: Seen,
}

#[derive(Clone, Debug)]
struct Slave {
    slot: Slot,
    name: String,
    ifindex: u32,
    mac: TrackedMac,
    permanent_mac: Mac,
    options: SlaveOptions,
    phase: Phase,
    link: Link,
    state: LinkState,
    path: Path,
    link_failure_count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Being set up.
    Joining,
    /// Could not be set up.
    Failed,
    Joined,
    /// It was the active slave, and is released when it has drained.
    Leaving,
}

/// A freed slot is not given to another slave before it has rested, and whoever was in it is done with.
#[derive(Clone, Copy, Debug)]
struct Rest {
    since: Time,
    /// Answers that are still to come, and are not the next slave's.
    answers_to_go: u32,
}

/// The previous active slave of a planned switch, which still delivers what is sent to it.
#[derive(Clone, Copy, Debug)]
struct Drain {
    slot: Slot,
    until: Time,
    /// How many announcements have to be answered until the first of this switch is.
    answers_to_go: u32,
}

/// The active slave was kept only because a speed was being read: the election is held again when that is known, if it is
/// still between these two.
#[derive(Clone, Copy, Debug)]
struct OpenElection {
    challenger: Slot,
    reason: Reason,
}

/// What the data plane and the bond's interface were told last.
#[derive(Clone, Debug, Default)]
struct Published {
    slaves: [Option<Entry>; MAX_SLAVES],
    word: Word,
    carrier: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    ifindex: u32,
    wire_mac: Mac,
    permanent_mac: Mac,
    queue_id: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Word {
    active: Option<Slot>,
    draining: Option<Slot>,
    usable: u16,
}

/// The commands of the event in hand, by group.
#[derive(Clone, Debug, Default)]
struct Outbox {
    reads: Vec<Command>,
    notices: Vec<Notice>,
    slow: Vec<Command>,
}

/// What a change of link states asks for (`bond_miimon_commit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Nothing,
    Elect(Reason),
}

impl Engine {
    pub fn new(bond: NewBond) -> Self {
        Self {
            name: bond.name,
            options: bond.options,
            mac: TrackedMac::new(bond.mac),
            mac_assigned: bond.mac_assigned,
            prearm: bond.prearm,
            made_up: MadeUpMacs::new(bond.seed),
            slaves: Vec::new(),
            active: None,
            force_primary: false,
            open: None,
            has_been_active: false,
            drain: None,
            announcements: Announcements::default(),
            reports: Rounds::default(),
            hearing: None,
            next_poll: None,
            arp: Monitor::default(),
            lateness: Lateness::default(),
            resting: [None; MAX_SLAVES],
            published: Published::default(),
            outbox: Outbox::default(),
            commands: VecDeque::new(),
            seen: Seen::Request,
        }
    }

    /// Takes notice of an event. Only requests are refused, and then nothing has changed. A fact about a slot
    /// that has no slave (any more) is ignored: answers may be late.
    pub fn handle(&mut self, now: Time, event: Event) -> Result<(), Refusal> {
        self.seen = seen(&event);
        self.notice_lateness(now);
        match event {
            Event::Timeout => self.timeout(now),
            Event::Join(new) => self.join(now, new)?,
            Event::Joined { slot, link } => self.joined(now, slot, link),
            Event::JoinFailed { slot } => self.join_failed(now, slot),
            Event::Leave { slot } => self.leave(now, slot)?,
            Event::Gone { slot } => self.gone(now, slot),
            Event::Renamed { slot, name } => self.renamed(now, slot, name),
            Event::Link { slot, link } => self.links(now, &[(slot, link)]),
            Event::Links(links) => self.links(now, &links),
            Event::Speed { slot, speed, duplex } => self.speed(now, slot, (speed, duplex)),
            Event::ActiveChanged { earlier, active, draining, usable } => {
                self.active_changed(now, &earlier, Word { active, draining, usable });
            }
            Event::SetOptions(options) => self.set_options(now, *options)?,
            Event::SetSlaveOptions { slot, options } => self.set_slave_options(now, slot, options)?,
            Event::Written(option) => self.written(now, option),
            Event::SetActiveSlave(Some(slot)) => self.set_active_slave(now, slot)?,
            Event::SetActiveSlave(None) => self.clear_active_slave(now),
            Event::SlaveMacSet { slot, mac, done } => self.slave_mac_set(now, slot, mac, done),
            Event::BondMacSet { mac, done } => self.bond_mac_set(mac, done),
            Event::SlaveMacFound { slot, mac } => self.slave_mac_found(now, slot, mac),
            Event::BondMacFound { mac } => self.bond_mac_found(mac),
            Event::Announced { slot: _ } => self.announced(now),
            Event::Probes(heard) => self.probes(now, &heard),
            Event::Probed { slot } => self.probed(now, slot),
            Event::ProbeFailed { slot: _ } => self.notice_late_probe(now),
            Event::NotProbed { slot: _ } => self.not_probed(now),
            Event::Suspended { time } => self.suspended(now, time),
            Event::Counters { slot, tx_packets, rx_unicast } => {
                self.counters(now, slot, Counters { tx_packets, rx_unicast });
            }
            Event::NeighboursAsked(asked) => {
                if let Some(hearing) = &mut self.hearing {
                    hearing.asked(now, asked);
                }
            }
        }
        self.release_drained(now);
        self.publish();
        Ok(())
    }

    /// The next command, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When `Event::Timeout` is wanted next; None: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Time> {
        let deadlines = [
            self.next_poll,
            self.arp.next_step,
            self.drain.map(|drain| drain.until),
            self.announcements.rounds.deadline(),
            self.reports.deadline(),
            self.hearing.map(|hearing| hearing.deadline()),
        ];
        let links = self.joined_slaves().map(|slave| slave.state.deadline());
        deadlines.into_iter().chain(links).flatten().min()
    }

    pub fn status(&self) -> BondStatus {
        BondStatus {
            mac: self.mac.get(),
            carrier: self.carrier(),
            active_slave: self.active.and_then(|slot| self.name_of(slot)),
            options: self.options.clone(),
            slaves: self.slaves.iter().map(|slave| self.slave_status(slave)).collect(),
        }
    }

    /// Returns what was decided and is not done yet. Later rounds of announcements, slaves that join or leave, and
    /// delays of link states are not part of it.
    pub fn pending(&self) -> impl Iterator<Item = Pending> + '_ {
        let election = self.open.map(|_| Pending::Election);
        let bond = (!self.mac.is_settled()).then(|| Pending::BondMac(self.mac.get()));
        let unsettled = self.slaves.iter().filter(|slave| !slave.mac.is_settled());
        let slaves =
            unsettled.map(|slave| Pending::SlaveMac { slave: slave.name.clone(), mac: slave.mac.get() });
        let announcement = self.announcements.is_open().then_some(Pending::Announcement);
        election.into_iter().chain(bond).chain(slaves).chain(announcement)
    }

    /// The options in force. They differ from those given where a slave turned fail_over_mac to active.
    pub fn options(&self) -> &BondOptions {
        &self.options
    }

    pub fn slot_of(&self, name: &str) -> Option<Slot> {
        self.slaves.iter().find(|slave| slave.name == name).map(|slave| slave.slot)
    }

    /// The slaves in enslave order, those being set up included.
    pub fn slaves(&self) -> impl Iterator<Item = SlaveRef<'_>> {
        self.slaves.iter().map(|slave| SlaveRef {
            slot: slave.slot,
            ifindex: slave.ifindex,
            name: &slave.name,
            mac: slave.mac.get(),
            joined: slave.phase == Phase::Joined,
            link_failure_count: slave.link_failure_count,
        })
    }

    pub fn has_active(&self) -> bool {
        self.active.is_some()
    }

    /// The slots from the first choice to the last, were no slave active: those that are up, the primary first, then
    /// by prio, then in enslave order; those in updelay, the soonest first; and the others.
    pub fn rank(&self) -> Vec<Slot> {
        let primary = self.primary();
        let mut slaves: Vec<&Slave> = self.joined_slaves().collect();
        slaves.sort_by_key(|slave| {
            let merit = (Some(slave.slot) != primary, Reverse(slave.options.prio));
            match slave.state {
                LinkState::Up | LinkState::GoingDown { .. } => (0, Time::ZERO, merit),
                // Of two that are as soon, the first enslaved.
                LinkState::GoingBack { until } => (1, until, (false, Reverse(0))),
                LinkState::Down | LinkState::Probing | LinkState::Unanswered => (2, Time::ZERO, merit),
            }
        });
        slaves.into_iter().map(|slave| slave.slot).collect()
    }
}

fn seen(event: &Event) -> Seen {
    match event {
        Event::Timeout => Seen::Delay,
        Event::Link { .. } | Event::Speed { .. } | Event::Renamed { .. } => Seen::LinkEvent,
        Event::Links(_) => Seen::Miimon,
        Event::ActiveChanged { .. } => Seen::Guard,
        Event::Probes(_) | Event::Probed { .. } | Event::NotProbed { .. } | Event::ProbeFailed { .. } => {
            Seen::ArpMonitor
        }
        Event::Join(_) | Event::Joined { .. } | Event::JoinFailed { .. } => Seen::SlaveJoined,
        Event::Leave { .. } | Event::Gone { .. } => Seen::SlaveLeft,
        Event::SetOptions(_)
        | Event::SetSlaveOptions { .. }
        | Event::SetActiveSlave(_)
        | Event::Written(_)
        // Answers make nobody active.
        | Event::SlaveMacSet { .. }
        | Event::BondMacSet { .. }
        | Event::SlaveMacFound { .. }
        | Event::BondMacFound { .. }
        | Event::Announced { .. }
        | Event::Counters { .. }
        | Event::NeighboursAsked(_)
        | Event::Suspended { .. } => Seen::Request,
    }
}

/// One method for each event.
impl Engine {
    fn timeout(&mut self, now: Time) {
        self.inspect(now);
        if self.next_poll.is_some_and(|at| at <= now) {
            self.outbox.reads.push(Command::PollLinks);
            self.arm_poll(now);
        }
        if self.arp.next_step.is_some_and(|at| at <= now) {
            self.outbox.reads.push(Command::ReadProbes);
            self.arm_arp(now);
        }
        if self.drain.is_some_and(|drain| drain.until <= now) {
            self.drain = None;
        }
        self.announce(now);
        if let Some(hearing) = &mut self.hearing
            && hearing.take_due(now)
        {
            self.outbox.reads.push(Command::ReadCounters { slot: hearing.slot() });
        }
    }

    fn counters(&mut self, now: Time, slot: Slot, counters: Counters) {
        let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.slot() == slot) else { return };
        let verdict = hearing.look(now, counters);
        let Some(slave) = self.name_of(slot) else { return };
        match verdict {
            Verdict::Wait => {}
            Verdict::Ask => self.outbox.slow.push(Command::AskNeighbours),
            Verdict::NoUnicast { sent } => self.outbox.notices.push(Notice::NoUnicast { slave, sent }),
            Verdict::Heard { was_told } => {
                self.hearing = None;
                if was_told {
                    self.outbox.notices.push(Notice::HeardAgain { slave });
                }
            }
        }
    }
}

/// What events have in common.
impl Engine {
    /// Turns what changed since the last event into commands: first what packets depend on.
    fn publish(&mut self) {
        for slot in Slot::all() {
            let entry = self.slave(slot).map(|slave| Entry {
                ifindex: slave.ifindex,
                wire_mac: self.wire_mac(slave),
                permanent_mac: slave.permanent_mac,
                queue_id: slave.options.queue_id,
            });
            let written = &mut self.published.slaves[slot.index()];
            if let Some(new) = entry
                && *written != entry
            {
                *written = entry;
                let Entry { ifindex, wire_mac, permanent_mac, queue_id } = new;
                let write = Command::WriteSlave { slot, ifindex, wire_mac, permanent_mac, queue_id };
                self.commands.push_back(write);
            }
        }
        let word = Word {
            active: self.active,
            draining: self.drain.map(|drain| drain.slot),
            usable: self.usable().fold(0, |mask, slave| mask | slave.slot.bit()),
        };
        if self.published.word != word {
            self.published.word = word;
            let Word { active, draining, usable } = word;
            self.commands.push_back(Command::Switch { active, draining, usable });
        }
        for slot in Slot::all() {
            if self.slave(slot).is_none() && self.published.slaves[slot.index()].take().is_some() {
                self.commands.push_back(Command::ClearSlave { slot });
            }
        }
        self.commands.extend(self.outbox.reads.drain(..));
        self.commands.extend(self.outbox.notices.drain(..).map(Command::Notify));
        let carrier = self.carrier();
        if self.published.carrier != carrier {
            self.published.carrier = carrier;
            self.commands.push_back(Command::SetCarrier(carrier));
        }
        self.commands.extend(self.outbox.slow.drain(..));
    }

    fn policy(&self) -> FailOverMac {
        self.options.fail_over_mac
    }

    /// `bond_set_carrier`
    fn carrier(&self) -> bool {
        self.usable().next().is_some()
    }

    fn usable(&self) -> impl Iterator<Item = &Slave> {
        self.joined_slaves().filter(|slave| slave.state.is_up())
    }

    fn joined_slaves(&self) -> impl Iterator<Item = &Slave> {
        self.slaves.iter().filter(|slave| slave.phase == Phase::Joined)
    }

    fn slave(&self, slot: Slot) -> Option<&Slave> {
        self.slaves.iter().find(|slave| slave.slot == slot)
    }

    fn slave_mut(&mut self, slot: Slot) -> Option<&mut Slave> {
        self.slaves.iter_mut().find(|slave| slave.slot == slot)
    }

    fn name_of(&self, slot: Slot) -> Option<String> {
        self.slave(slot).map(|slave| slave.name.clone())
    }

    fn slave_status(&self, slave: &Slave) -> SlaveStatus {
        let active = self.active == Some(slave.slot);
        SlaveStatus {
            slot: slave.slot.index() as u8,
            name: slave.name.clone(),
            ifindex: slave.ifindex,
            state: if active { SlaveState::Active } else { SlaveState::Backup },
            mii_status: match slave.phase {
                Phase::Joining | Phase::Failed | Phase::Leaving => MiiStatus::Down,
                Phase::Joined => slave.state.mii_status(),
            },
            mac: slave.mac.get(),
            permanent_mac: slave.permanent_mac,
            link_failure_count: slave.link_failure_count,
            speed: slave.link.speed,
            duplex: slave.link.duplex,
            options: slave.options,
            no_unicast: self.hearing.filter(|_| active).and_then(|hearing| hearing.no_unicast()),
        }
    }
}

const BY_GUARD: (Reason, Chosen) = (Reason::CarrierGuard, Chosen::Guard);

/// The guard leaves a slot only when its device is dead, and then the slot is not usable any more.
fn is_guards(from: Option<Slot>, usable: u16) -> bool {
    from.is_some_and(|from| usable & from.bit() == 0)
}

impl Slave {
    /// Its interface is set up.
    fn has_joined(&self) -> bool {
        matches!(self.phase, Phase::Joined | Phase::Leaving)
    }

    fn candidate(&self) -> Candidate {
        Candidate { slot: self.slot, state: self.state, prio: self.options.prio, link: self.link }
    }
}
