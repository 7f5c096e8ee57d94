//! The engine: one bond's state, and the way from events to commands.

use std::{cmp::Reverse, collections::VecDeque};

use bond_common::{
    abi::{MAX_SLAVES, Slot},
    mac::Mac,
};
use thiserror::Error;

use super::{
    Time,
    announce::{self, Announcements, Rounds},
    arp_monitor::{self, Monitor, Path, Patience, Proposal, Standing},
    command::{Chosen, Command, Notice, Reason, Seen},
    election::{Candidate, Choice, Election},
    event::{Duplex, Elects, Event, Heard, Link, NewSlave, Speed},
    link::{LinkState, Monitoring},
    mac_plan::{self, AtEnslave, MadeUpMacs, TrackedMac, Wearer},
    monitor::{Counters, HearingTest, Verdict},
    options::{BondOptions, FailOverMac, SlaveOptions},
    status::{BondStatus, MiiStatus, SlaveState, SlaveStatus},
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

/// A slave that is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftSlave {
    pub slot: Slot,
    pub name: String,
    pub ifindex: u32,
    /// What it wears.
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
    /// What it wears, or will when everything asked for is done.
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
            resting: [None; MAX_SLAVES],
            published: Published::default(),
            outbox: Outbox::default(),
            commands: VecDeque::new(),
            seen: Seen::Request,
        }
    }

    /// Goes on where another engine was stopped, at whatever moment. Take the commands, as after
    /// [`Engine::handle`]. Of each of [`Left::failovers`] there is a notice, in their order, before any other of a
    /// failover.
    pub fn adopt(now: Time, bond: NewBond, left: Left) -> Self {
        let Left { active, draining, usable, known_active, failovers, carrier, slaves, gone } = left;
        let mut engine = Self::new(bond);
        let path = Path::new(now, Patience::of(&engine.options));
        let links: Vec<_> = slaves.iter().map(|slave| (slave.slot, slave.link)).collect();
        engine.slaves = slaves
            .into_iter()
            .map(|slave| Slave {
                slot: slave.slot,
                name: slave.name,
                ifindex: slave.ifindex,
                mac: TrackedMac::new(slave.mac),
                permanent_mac: slave.permanent_mac,
                options: slave.options,
                phase: Phase::Joined,
                link: slave.link,
                state: if usable & slave.slot.bit() != 0 { LinkState::Up } else { LinkState::Down },
                path,
                link_failure_count: slave.link_failure_count,
            })
            .collect();
        engine.active = active.filter(|slot| engine.slave(*slot).is_some());
        engine.has_been_active = engine.active.is_some();
        engine.published.word = Word { active, draining, usable };
        engine.published.carrier = carrier;
        let known_active = engine.catch_up(known_active, &failovers, &gone);
        if engine.active.is_some() && engine.active != known_active {
            // What is draining was left by an engine that did not come to say so.
            let by_guard = draining.is_some() || is_guards(known_active, usable);
            let how = if by_guard { BY_GUARD } else { (Reason::Requested, Chosen::ByHand) };
            engine.tell_of_past(known_active, active, usable, how, &gone);
        }
        engine.seen = Seen::Miimon;
        engine.use_early(engine.active);
        engine.arm_poll(now);
        engine.start_arp(now);
        engine.links(now, &links);
        if engine.active.is_none() {
            engine.elect(now, Reason::Joined);
        }
        engine.finish_failover(now);
        engine.publish();
        engine
    }

    /// The guard's failovers, one after the other. Returns who was active after them.
    fn catch_up(
        &mut self,
        known_active: Option<Slot>,
        failovers: &[GuardFailover],
        gone: &[(Slot, String)],
    ) -> Option<Slot> {
        failovers.iter().fold(known_active, |from, failover| {
            let to = Some(failover.active);
            // There were others in between that nobody knows.
            let from = from.filter(|from| Some(*from) != to);
            self.tell_of_past(from, to, failover.usable, BY_GUARD, gone);
            to
        })
    }

    /// A change of ACTIVE that no engine has told of.
    fn tell_of_past(
        &mut self,
        from: Option<Slot>,
        to: Option<Slot>,
        usable: u16,
        (reason, chosen): (Reason, Chosen),
        gone: &[(Slot, String)],
    ) {
        let name = |slot: Option<Slot>| {
            let departed = || gone.iter().find(|(of, _)| Some(*of) == slot).map(|(_, name)| name.clone());
            slot.and_then(|slot| self.name_of(slot)).or_else(departed)
        };
        let told = Notice::Failover {
            from: name(from),
            to: name(to),
            reason,
            seen: Seen::Guard,
            chosen: Some(chosen),
        };
        self.outbox.notices.push(told);
        if is_guards(from, usable)
            && let Some(left) = from.and_then(|slot| self.slave_mut(slot))
        {
            left.link_failure_count = left.link_failure_count.saturating_add(1);
        }
    }

    /// MACs and announcements of the failover that whoever was before may not have come to.
    fn finish_failover(&mut self, now: Time) {
        let permanent: Vec<_> = self.slaves.iter().map(|slave| slave.permanent_mac).collect();
        let changes =
            mac_plan::at_adoption(self.policy(), self.mac.get(), &self.wearers(), &permanent, self.active);
        match self.active {
            Some(active) => self.move_macs(now, active, changes),
            None => changes.slaves.into_iter().for_each(|change| self.set_slave_mac(change)),
        }
    }

    /// Takes notice of an event. Only requests are refused, and then nothing has changed. A fact about a slot
    /// that has no slave (any more) is ignored: answers may be late.
    pub fn handle(&mut self, now: Time, event: Event) -> Result<(), Refusal> {
        self.seen = seen(&event);
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
            Event::ActiveChanged { active, draining, usable } => {
                self.active_changed(now, Word { active, draining, usable });
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
        Event::Probes(_) | Event::Probed { .. } => Seen::ArpMonitor,
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
        | Event::NeighboursAsked(_) => Seen::Request,
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

    /// The first half of `bond_enslave`.
    fn join(&mut self, now: Time, new: NewSlave) -> Result<(), Refusal> {
        let slot = self.admit(now, &new)?;
        let NewSlave { name, ifindex, mac, can_set_mac, options } = new;
        let path = Path::new(now, Patience::of(&self.options));
        let first = self.slaves.is_empty();
        if !can_set_mac && self.options.fail_over_mac != FailOverMac::Active {
            self.options.fail_over_mac = FailOverMac::Active;
            self.outbox.notices.push(Notice::PolicyTurnedActive { slave: name.clone() });
        }
        if first && !self.mac_assigned {
            self.set_bond_mac(mac);
        }
        let to_set = match mac_plan::at_enslave(self.policy(), mac, self.mac.get(), &self.wearers()) {
            AtEnslave::Keep => None,
            AtEnslave::TakeBonds => Some(self.mac.get()),
            AtEnslave::Replace => {
                let made_up = self.make_up_mac(mac);
                self.outbox.notices.push(Notice::DuplicateMacReplaced { slave: name.clone(), mac: made_up });
                Some(made_up)
            }
        };
        self.outbox.slow.push(Command::Enslave { slot, mac: to_set });
        self.slaves.push(Slave {
            slot,
            name,
            ifindex,
            mac: TrackedMac::new(to_set.unwrap_or(mac)),
            permanent_mac: mac,
            options,
            phase: Phase::Joining,
            link: Link::new(false),
            state: LinkState::Down,
            path,
            link_failure_count: 0,
        });
        Ok(())
    }

    /// Where a new slave goes, if it may.
    fn admit(&self, now: Time, new: &NewSlave) -> Result<Slot, Refusal> {
        let name = || new.name.clone();
        if self.slot_of(&new.name).is_some() {
            return Err(Refusal::AlreadyEnslaved { name: name() });
        }
        if let Some(twin) = self.slaves.iter().find(|slave| slave.ifindex == new.ifindex) {
            let slave = twin.name.clone();
            return Err(Refusal::IfindexInUse { name: name(), ifindex: new.ifindex, slave });
        }
        if self.slaves.len() >= MAX_SLAVES {
            return Err(Refusal::TooManySlaves { name: name() });
        }
        if !new.can_set_mac && !self.slaves.is_empty() && self.policy() != FailOverMac::Active {
            return Err(Refusal::CannotSetMac { name: name() });
        }
        self.check_queue_id(&new.name, new.options)?;
        let rested = |slot: &Slot| {
            self.resting[slot.index()]
                .is_none_or(|rest| rest.answers_to_go == 0 && rest.since.saturating_add(SLOT_REST) <= now)
        };
        let mut free = Slot::all().filter(|slot| self.slave(*slot).is_none());
        free.find(rested).ok_or_else(|| Refusal::SlotsResting { name: name() })
    }

    /// The second half of `bond_enslave`.
    fn joined(&mut self, now: Time, slot: Slot, link: Link) {
        let monitoring = self.monitoring();
        let path = Path::new(now, Patience::of(&self.options));
        let Some(slave) = self.slave_mut(slot) else { return self.late_answer(slot) };
        if slave.phase != Phase::Joining {
            return;
        }
        slave.phase = Phase::Joined;
        slave.link = link;
        slave.path = path;
        slave.state = LinkState::at_enslave(now, link.up, monitoring);
        let enslaved = Notice::Enslaved { slave: slave.name.clone(), up: link.up };
        self.outbox.notices.push(enslaved);
        self.force_primary |= self.primary() == Some(slot);
        if self.next_poll.is_none() {
            self.arm_poll(now);
        }
        if self.arp.next_step.is_none() {
            self.start_arp(now);
        }
        self.elect(now, Reason::Joined);
    }

    fn join_failed(&mut self, now: Time, slot: Slot) {
        let Some(slave) = self.slave_mut(slot) else { return self.late_answer(slot) };
        if slave.phase == Phase::Joining {
            // This is the answer that the slot would wait for.
            slave.phase = Phase::Failed;
            self.remove(now, slot);
        }
    }

    /// The active slave hands over first, as at any planned switch, and is released when it has drained.
    fn leave(&mut self, now: Time, slot: Slot) -> Result<(), Refusal> {
        let active = self.active == Some(slot);
        let slave = self.slave_mut(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        if active {
            slave.phase = Phase::Leaving;
            let name = slave.name.clone();
            let best = self.best_slave(None, Reason::Left);
            self.change_active(now, Some(name), best, Reason::Left);
        } else if slave.phase != Phase::Leaving {
            self.release(now, slot);
        }
        Ok(())
    }

    /// The second half of [`Self::leave`].
    fn release_drained(&mut self, now: Time) {
        let draining = self.drain.map(|drain| drain.slot);
        let leaving = |slave: &&Slave| slave.phase == Phase::Leaving && Some(slave.slot) != draining;
        while let Some(slot) = self.slaves.iter().find(leaving).map(|slave| slave.slot) {
            self.release(now, slot);
        }
    }

    fn release(&mut self, now: Time, slot: Slot) {
        if let Some(slave) = self.remove(now, slot) {
            let mac = mac_plan::at_release(self.policy(), slave.permanent_mac);
            self.outbox.slow.push(Command::Release { slot, mac });
            self.outbox.notices.push(Notice::Released { slave: slave.name });
        }
    }

    fn gone(&mut self, now: Time, slot: Slot) {
        if let Some(slave) = self.remove(now, slot) {
            self.outbox.notices.push(Notice::Released { slave: slave.name });
        }
    }

    /// A slave may become the primary by its new name, or cease to be it (`bond_slave_netdev_event`).
    fn renamed(&mut self, now: Time, slot: Slot, name: String) {
        let before = self.primary();
        let Some(slave) = self.slave_mut(slot) else { return };
        slave.name = name;
        if self.primary() != before {
            self.elect(now, Reason::OptionChanged);
        }
    }

    fn links(&mut self, now: Time, links: &[(Slot, Link)]) {
        for (slot, link) in links {
            let Some(slave) = self.slave_mut(*slot).filter(|slave| slave.has_joined()) else { continue };
            slave.link = *link;
            if !link.up && self.drain.is_some_and(|drain| drain.slot == *slot) {
                self.drain = None;
            }
        }
        self.inspect(now);
        self.elect_again(now);
    }

    fn speed(&mut self, now: Time, slot: Slot, (speed, duplex): (Speed, Duplex)) {
        if let Some(slave) = self.slave_mut(slot) {
            slave.link = Link { speed, duplex, is_stale: false, ..slave.link };
        }
        self.elect_again(now);
    }

    /// What the data plane did is followed, not judged: the old slave's link was gone at that moment, the new one's
    /// was there. Going back is for the next look at the links, with updelay and by the rules of reselection.
    fn active_changed(&mut self, now: Time, found: Word) {
        let before = std::mem::replace(&mut self.published.word, found);
        let joined = |slot: &Slot| self.joined_slaves().any(|slave| slave.slot == *slot);
        let Some(new) = found.active.filter(|slot| Some(*slot) != self.active).filter(joined) else {
            // The same decision, or none of the guard's: publishing puts the word right.
            return;
        };
        if !is_guards(self.active, found.usable) {
            // Somebody has written it, who may choose among those that are up, as by `active_slave`.
            if self.slave(new).is_some_and(|slave| slave.state.is_up() && slave.link.up) {
                let from = self.active.and_then(|active| self.name_of(active));
                let choice = Choice { slot: new, why: Chosen::ByHand };
                self.change_active(now, from, Some(choice), Reason::Requested);
            }
            return;
        }
        let from = self.active.and_then(|active| self.name_of(active));
        let lost = before.usable & !found.usable;
        for slot in Slot::all().filter(|slot| lost & slot.bit() != 0) {
            let Some(slave) = self.slave_mut(slot).filter(|slave| slave.phase == Phase::Joined) else {
                continue;
            };
            slave.link.up = false;
            self.move_to(slot, LinkState::Down);
        }
        if let Some(slave) = self.slave_mut(new) {
            slave.link.up = true;
        }
        let choice = Choice { slot: new, why: Chosen::Guard };
        self.change_active(now, from, Some(choice), Reason::CarrierGuard);
    }

    fn set_options(&mut self, now: Time, options: BondOptions) -> Result<(), Refusal> {
        if options.fail_over_mac != self.policy() && !self.slaves.is_empty() {
            return Err(Refusal::FailOverMacInUse);
        }
        let primary_before = self.primary();
        let before = std::mem::replace(&mut self.options, options);
        let primary = self.primary();
        let primary_set = self.options.primary != before.primary && primary.is_some();
        // It holds until a primary is up, whichever (`bond_choose_primary_or_current`).
        self.force_primary |= primary_set;
        if self.options.num_grat_arp == 0 {
            self.announcements.rounds.cancel();
        }
        if self.options.resend_igmp == 0 {
            self.reports.cancel();
        }
        let targets = |options: &BondOptions| (options.arp_ip_target.clone(), options.ns_ip6_target.clone());
        if targets(&self.options) != targets(&before) {
            self.arp.targets_since = now;
        }
        let pace = |options: &BondOptions| (options.miimon, options.arp_interval);
        if pace(&self.options) != pace(&before) {
            self.next_poll = None;
            self.arm_poll(now);
            self.start_arp(now);
            self.inspect(now);
        }
        // A primary that is not enslaved is noted down and elects nobody (`bond_option_primary_set`).
        let primary_changed = primary_set || primary != primary_before;
        if primary_changed || self.options.primary_reselect != before.primary_reselect {
            self.elect(now, Reason::OptionChanged);
        }
        Ok(())
    }

    /// `bond_option_prio_set`: the election is left out while a primary is enslaved.
    fn set_slave_options(&mut self, now: Time, slot: Slot, options: SlaveOptions) -> Result<(), Refusal> {
        let slave = self.slave(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        self.check_queue_id(&slave.name, options)?;
        let slave = self.slave_mut(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        let before = std::mem::replace(&mut slave.options, options);
        if before.prio != options.prio && self.primary().is_none() {
            self.elect(now, Reason::OptionChanged);
        }
        Ok(())
    }

    /// `bond_option_primary_set`, `bond_option_primary_reselect_set`, `bond_option_prio_set`: none of them looks at
    /// the value that was there.
    fn written(&mut self, now: Time, option: Elects) {
        let is_enslaved = self.primary().is_some();
        let elects = match option {
            Elects::Primary => {
                self.force_primary |= is_enslaved;
                is_enslaved || self.options.primary.is_none()
            }
            Elects::PrimaryReselect => true,
            Elects::Prio => !is_enslaved,
        };
        if elects {
            self.elect(now, Reason::OptionChanged);
        }
    }

    /// `bond_option_queue_id_set`: a queue is one slave's.
    fn check_queue_id(&self, name: &str, options: SlaveOptions) -> Result<(), Refusal> {
        let queue_id = options.queue_id;
        let has_it = |slave: &&Slave| slave.name != name && slave.options.queue_id == queue_id;
        match self.slaves.iter().find(has_it) {
            Some(slave) if queue_id != 0 => {
                Err(Refusal::QueueIdTaken { name: name.to_owned(), queue_id, slave: slave.name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// `bond_option_active_slave_set`
    fn set_active_slave(&mut self, now: Time, slot: Slot) -> Result<(), Refusal> {
        let slave = self.slave(slot).ok_or(Refusal::NoSuchSlave { slot })?;
        if self.active == Some(slot) {
            return Ok(());
        }
        if slave.phase == Phase::Leaving {
            return Err(Refusal::Leaving { name: slave.name.clone() });
        }
        if !slave.state.is_up() || !slave.link.up {
            return Err(Refusal::NotUp { name: slave.name.clone() });
        }
        if self.active.is_none() {
            return Err(Refusal::NoActiveSlave { name: slave.name.clone() });
        }
        let from = self.active.and_then(|active| self.name_of(active));
        let chosen = Choice { slot, why: Chosen::ByHand };
        self.change_active(now, from, Some(chosen), Reason::Requested);
        Ok(())
    }

    /// An election in which the active slave has no advantage (`bond_option_active_slave_set`).
    fn clear_active_slave(&mut self, now: Time) {
        self.elect_from(now, None, Reason::OptionChanged);
    }

    fn slave_mac_set(&mut self, now: Time, slot: Slot, mac: Mac, done: bool) {
        let Some(slave) = self.slave_mut(slot) else { return self.late_answer(slot) };
        slave.mac.answer(mac, done);
        let settled = slave.mac.is_settled();
        if !done {
            let interface = slave.name.clone();
            self.outbox.notices.push(Notice::MacRefused { interface, mac });
        }
        if !settled {
            return;
        }
        if !done && self.policy() == FailOverMac::Follow && mac == self.mac.get() {
            let twin = mac_plan::after_refusal(self.mac.get(), &self.wearers(), slot);
            twin.into_iter().for_each(|twin| self.set_slave_mac(twin));
        }
        if self.active == Some(slot) {
            self.announcements.rounds.release(now);
            self.reports.release(now);
            self.announce(now);
        }
    }

    fn bond_mac_set(&mut self, mac: Mac, done: bool) {
        self.mac.answer(mac, done);
        if done {
            return;
        }
        self.outbox.notices.push(Notice::MacRefused { interface: self.name.clone(), mac });
        let (bond, slaves) = (self.mac.get(), self.wearers());
        for change in mac_plan::after_bond_refusal(self.policy(), bond, &slaves, self.active) {
            self.set_slave_mac(change);
        }
    }

    /// The driver looks at a slave's MAC when a failover needs it (`bond_do_fail_over_mac`). Here the bond takes that of
    /// its active slave at once: under active frames carry it from now on.
    fn slave_mac_found(&mut self, now: Time, slot: Slot, mac: Mac) {
        let Some(slave) = self.slave_mut(slot) else { return };
        let before = slave.mac;
        slave.mac.find(mac);
        // What was asked for before overtakes it.
        if !before.is_settled() || mac == before.get() {
            return;
        }
        let notice = Notice::SlaveMacTaken { slave: slave.name.clone(), mac };
        self.outbox.notices.push(notice);
        if self.active == Some(slot) && self.policy() == FailOverMac::Active {
            let changes = mac_plan::at_failover(self.policy(), self.mac.get(), &self.wearers(), slot);
            self.move_macs(now, slot, changes);
        }
    }

    /// `bond_set_mac_address`. The driver leaves the bond's MAC alone under active and follow, and says that it was
    /// set; here it was, and is put back. Either way the next first slave's is not copied (`addr_assign_type`).
    fn bond_mac_found(&mut self, mac: Mac) {
        let before = self.mac.get();
        let settled = self.mac.is_settled();
        self.mac.find(mac);
        // What was asked for before overtakes it.
        if !settled || mac == before {
            return;
        }
        self.mac_assigned = true;
        if self.policy() != FailOverMac::None {
            self.set_bond_mac(before);
            self.outbox.notices.push(Notice::BondMacPutBack { mac });
            return;
        }
        let slots: Vec<_> = self.slaves.iter().map(|slave| slave.slot).collect();
        slots.into_iter().for_each(|slot| self.set_slave_mac(Wearer { slot, mac }));
        self.outbox.notices.push(Notice::BondMacTaken { mac });
    }

    fn announced(&mut self, now: Time) {
        self.announcements.answered();
        let Some(drain) = &mut self.drain else { return };
        if drain.answers_to_go == 1 {
            drain.until = drain.until.min(now.saturating_add(DRAIN_AFTER_ANNOUNCEMENT));
        }
        drain.answers_to_go = drain.answers_to_go.saturating_sub(1);
    }

    /// One step of the ARP monitor (`bond_activebackup_arp_mon`).
    fn probes(&mut self, now: Time, heard: &[Heard]) {
        let Some(patience) = Patience::of(&self.options) else { return };
        self.hear(heard);
        self.inspect_paths(now, patience);
        self.probe(now);
    }

    fn probed(&mut self, now: Time, slot: Slot) {
        if let Some(slave) = self.slave_mut(slot) {
            slave.path.probed(now);
        }
    }

    fn counters(&mut self, now: Time, slot: Slot, counters: Counters) {
        let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.slot() == slot) else { return };
        let verdict = hearing.look(now, counters);
        let Some(slave) = self.name_of(slot) else { return };
        match verdict {
            Verdict::Wait => {}
            Verdict::Ask => self.outbox.slow.push(Command::AskNeighbours),
            Verdict::Unheard { sent } => self.outbox.notices.push(Notice::Unheard { slave, sent }),
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
    /// Moves every link state on and elects if that asks for it (`bond_miimon_inspect`, `bond_miimon_commit`).
    fn inspect(&mut self, now: Time) {
        let monitoring = self.monitoring();
        let mut ignore_updelay = self.active.is_none();
        let mut commit = Commit::Nothing;
        for index in 0..self.slaves.len() {
            let slave = &mut self.slaves[index];
            if slave.phase != Phase::Joined {
                continue;
            }
            let before = slave.state;
            slave.state = before.next(now, slave.link.up, monitoring.without_updelay(ignore_updelay));
            if slave.state == before {
                continue;
            }
            let (slot, state) = (slave.slot, slave.state);
            match state {
                LinkState::Up => {
                    ignore_updelay = false;
                    if commit == Commit::Nothing && self.may_take_over(slot) {
                        commit = Commit::Elect(Reason::LinkRecovered);
                    }
                }
                LinkState::Down => {
                    self.slaves[index].link_failure_count =
                        self.slaves[index].link_failure_count.saturating_add(1);
                    if self.active == Some(slot) {
                        commit = Commit::Elect(Reason::LinkFailed);
                    }
                }
                LinkState::GoingDown { .. }
                | LinkState::GoingBack { .. }
                | LinkState::Probing
                | LinkState::Unanswered => {}
            }
            self.report_link(index);
        }
        if let Commit::Elect(reason) = commit {
            self.elect(now, reason);
        }
    }

    /// Takes over what slaves have heard. A backup's requests count only while the active slave is answered: or
    /// the bond would take its own voice for an answer (`bond_arp_rcv`).
    fn hear(&mut self, heard: &[Heard]) {
        let validate = self.options.arp_validate;
        let prober = self.active.or(self.arp.turn);
        let (mut probers, mut backups) = (Vec::new(), Vec::new());
        for Heard { slot, times } in heard {
            let (validated, list) = if Some(*slot) == prober {
                (validate.validates_active(), &mut probers)
            } else {
                (validate.validates_backup(), &mut backups)
            };
            let at = arp_monitor::last_rx(&self.options, validated, times, self.arp.targets_since);
            list.push((*slot, at));
        }
        for (slot, at) in probers {
            self.path_mut(slot).into_iter().for_each(|path| path.heard(at));
        }
        let answered =
            self.active.and_then(|slot| self.slave(slot)).is_none_or(|active| active.path.is_confirmed());
        if answered || !validate.validates_backup() {
            for (slot, at) in backups {
                self.path_mut(slot).into_iter().for_each(|path| path.heard(at));
            }
        }
    }

    fn path_mut(&mut self, slot: Slot) -> Option<&mut Path> {
        self.slave_mut(slot).map(|slave| &mut slave.path)
    }

    /// `bond_ab_arp_inspect`, then `bond_ab_arp_commit` of all that it proposes.
    fn inspect_paths(&mut self, now: Time, patience: Patience) {
        let waiting = self.arp.turn.is_some();
        let propose = |slave: &Slave| {
            let standing = match self.active {
                Some(active) if active == slave.slot => Standing::Active,
                _ if waiting => Standing::Waiting,
                _ => Standing::Backup,
            };
            arp_monitor::inspect(now, patience, slave.state, standing, &slave.path)
                .map(|proposal| (slave.slot, proposal))
        };
        let proposals: Vec<_> = self.joined_slaves().filter_map(propose).collect();
        let mut commit = Commit::Nothing;
        for (slot, proposal) in proposals {
            match proposal {
                Proposal::Up => {
                    self.move_to(slot, LinkState::Up);
                    if commit == Commit::Nothing && self.may_take_over(slot) {
                        commit = Commit::Elect(Reason::LinkRecovered);
                    }
                }
                Proposal::Down => {
                    self.move_to(slot, LinkState::Down);
                    if self.active == Some(slot) {
                        commit = Commit::Elect(Reason::LinkFailed);
                    }
                }
                Proposal::Unanswered => self.move_to(slot, LinkState::Unanswered),
            }
        }
        if let Commit::Elect(reason) = commit {
            self.elect(now, reason);
        }
    }

    /// The active slave probes, or whose turn it is (`bond_ab_arp_probe`).
    fn probe(&mut self, now: Time) {
        let slot = match self.active {
            Some(active) => Some(active),
            None => self.next_turn(now),
        };
        if let Some(slave) = slot.and_then(|slot| self.slave(slot)) {
            let probe = Command::Probe { slot: slave.slot, mac: slave.mac.get() };
            self.outbox.slow.push(probe);
        }
    }

    fn next_turn(&mut self, now: Time) -> Option<Slot> {
        let slaves: Vec<_> = self.joined_slaves().map(|slave| (slave.slot, slave.link.up)).collect();
        // A slave that was up when all failed, and was not elected, is down by now.
        for (slot, has_link) in &slaves {
            if !has_link && self.slave(*slot).is_some_and(|slave| slave.state.is_up()) {
                self.move_to(*slot, LinkState::Down);
            }
        }
        let next = arp_monitor::next_turn(&slaves, self.arp.turn)?;
        self.move_to(next, LinkState::Probing);
        self.path_mut(next).into_iter().for_each(|path| path.begin(now));
        self.arp.turn = Some(next);
        Some(next)
    }

    /// A link state that the ARP monitor decides on.
    fn move_to(&mut self, slot: Slot, state: LinkState) {
        let Some(index) = self.slaves.iter().position(|slave| slave.slot == slot) else { return };
        let slave = &mut self.slaves[index];
        slave.state = state;
        if state == LinkState::Down {
            slave.link_failure_count = slave.link_failure_count.saturating_add(1);
        }
        self.report_link(index);
    }

    /// A slave that comes back starts an election only then (`bond_miimon_commit`).
    fn may_take_over(&self, slot: Slot) -> bool {
        let prio = |slot| self.slave(slot).map(|slave| slave.options.prio);
        match self.active {
            None => true,
            Some(active) => self.primary() == Some(slot) || prio(slot) > prio(active),
        }
    }

    fn report_link(&mut self, index: usize) {
        let slave = &self.slaves[index];
        let name = slave.name.clone();
        let notice = match slave.state {
            LinkState::Up => Notice::LinkChanged { slave: name, up: true },
            LinkState::Down => Notice::LinkChanged { slave: name, up: false },
            LinkState::GoingDown { .. } => {
                Notice::LinkDelayed { slave: name, up: false, delay_ms: self.options.downdelay }
            }
            LinkState::GoingBack { .. } => {
                Notice::LinkDelayed { slave: name, up: true, delay_ms: self.options.updelay }
            }
            // Turns go on for as long as nobody answers.
            LinkState::Probing | LinkState::Unanswered => return,
        };
        self.outbox.notices.push(notice);
    }

    /// `bond_select_active_slave`
    fn elect(&mut self, now: Time, reason: Reason) {
        self.elect_from(now, self.active, reason);
    }

    fn elect_from(&mut self, now: Time, current: Option<Slot>, reason: Reason) {
        let best = self.best_slave(current, reason);
        if best.map(|best| best.slot) != self.active {
            let from = self.active.and_then(|active| self.name_of(active));
            self.change_active(now, from, best, reason);
        }
    }

    /// If the election that waited for a speed can be held now.
    fn elect_again(&mut self, now: Time) {
        let Some(OpenElection { challenger, reason }) = self.open else { return };
        let up = |slot| self.usable().find(|slave| slave.slot == slot);
        let (Some(current), Some(challenger)) = (self.active.and_then(up), up(challenger)) else {
            self.open = None;
            return;
        };
        if !current.link.is_stale && !challenger.link.is_stale {
            self.elect(now, reason);
        }
    }

    fn best_slave(&mut self, current: Option<Slot>, reason: Reason) -> Option<Choice> {
        let candidates: Vec<Candidate> = self.joined_slaves().map(Slave::candidate).collect();
        let primary = self.primary();
        let election = Election {
            candidates: &candidates,
            current,
            primary,
            force_primary: self.force_primary,
            reselect: self.options.primary_reselect,
        };
        // A primary that is used early, in its updelay, still has to take over when it is up.
        let is_up = |candidate: &Candidate| candidate.state == LinkState::Up;
        let primary_is_up = candidates.iter().any(|slave| Some(slave.slot) == primary && is_up(slave));
        self.force_primary &= !primary_is_up;
        self.open = election.open_for().map(|challenger| OpenElection { challenger, reason });
        election.best()
    }

    /// `bond_change_active_slave`. The old active may have left already, so its name is given.
    fn change_active(&mut self, now: Time, from: Option<String>, choice: Option<Choice>, reason: Reason) {
        let new = choice.map(|choice| choice.slot);
        let old = std::mem::replace(&mut self.active, new);
        self.open = None;
        self.use_early(new);
        let to = new.and_then(|slot| self.name_of(slot));
        let (seen, chosen) = (self.seen, choice.map(|choice| choice.why));
        self.outbox.notices.push(Notice::Failover { from, to, reason, seen, chosen });
        self.drain = None;
        self.hearing = None;
        self.arp.turn = None;
        if let Some(path) = new.and_then(|slot| self.path_mut(slot)) {
            path.begin(now);
        }
        let Some(new) = new else {
            self.announcements.rounds.cancel();
            return self.reports.cancel();
        };

        let rounds = self.options.num_grat_arp;
        // A slave that left, or whose link is down, has nothing to deliver.
        self.drain = old.and_then(|slot| self.slave(slot)).filter(|old| old.link.up).map(|old| Drain {
            slot: old.slot,
            until: now.saturating_add(if rounds == 0 { DRAIN_AFTER_ANNOUNCEMENT } else { DRAIN_AT_MOST }),
            answers_to_go: self.announcements.unanswered().saturating_add(1),
        });
        if self.has_been_active && self.policy() != FailOverMac::Active {
            self.hearing = Some(HearingTest::new(new, now));
            self.outbox.reads.push(Command::ReadCounters { slot: new });
        }
        self.has_been_active = true;

        let changes = mac_plan::at_failover(self.policy(), self.mac.get(), &self.wearers(), new);
        self.move_macs(now, new, changes);
    }

    /// Announces `active`, and has MACs changed. Under active its frames carry the right MAC already; under follow the
    /// NIC would not hear answers before it has the bond's, unless it was prepared.
    fn move_macs(&mut self, now: Time, active: Slot, changes: mac_plan::Changes) {
        let (rounds, reports) = (self.options.num_grat_arp, self.options.resend_igmp);
        let exchanges = changes.slaves.iter().any(|change| change.slot == active)
            || self.slave(active).is_some_and(|slave| !slave.mac.is_settled());
        if exchanges && !self.prearm {
            self.announcements.rounds.hold(rounds);
            self.reports.hold(reports);
        } else {
            self.announcements.rounds.begin(rounds, now);
            self.reports.begin(reports, now);
        }
        self.announce(now);
        changes.slaves.into_iter().for_each(|change| self.set_slave_mac(change));
        if let Some(mac) = changes.bond {
            self.set_bond_mac(mac);
        }
    }

    /// A slave in updelay that is elected is up (`bond_change_active_slave`).
    fn use_early(&mut self, elected: Option<Slot>) {
        let elected = self.slaves.iter().position(|slave| Some(slave.slot) == elected);
        if let Some(index) = elected.filter(|index| !self.slaves[*index].state.is_up()) {
            self.slaves[index].state = LinkState::Up;
            self.report_link(index);
        }
    }

    /// `__bond_release_one`, without what is done to the interface.
    fn remove(&mut self, now: Time, slot: Slot) -> Option<Slave> {
        let index = self.slaves.iter().position(|slave| slave.slot == slot)?;
        let slave = self.slaves.remove(index);
        let joining = u32::from(slave.phase == Phase::Joining);
        let answers_to_go = joining.saturating_add(slave.mac.unanswered());
        self.resting[slot.index()] = Some(Rest { since: now, answers_to_go });
        if self.drain.is_some_and(|drain| drain.slot == slot) {
            self.drain = None;
        }
        if self.active == Some(slot) {
            let best = self.best_slave(None, Reason::Left);
            self.change_active(now, Some(slave.name.clone()), best, Reason::Left);
        }
        if self.arp.turn == Some(slot) {
            self.arp.turn = None;
        }
        if self.joined_slaves().next().is_none() {
            self.next_poll = None;
            self.arp.next_step = None;
        }
        if self.slaves.is_empty() {
            self.has_been_active = false;
            // A bond whose first slave could not be set up gives only that slave's MAC back (`bond_enslave`).
            if slave.has_joined() || self.mac.get() == slave.permanent_mac {
                let mac = self.make_up_mac(slave.permanent_mac);
                self.set_bond_mac(mac);
                self.mac_assigned = false;
            }
        } else {
            self.warn_of_twin(&slave);
        }
        Some(slave)
    }

    /// The driver warns of the bond's MAC only. Under follow another slave may wear the released one's.
    fn warn_of_twin(&mut self, released: &Slave) {
        let mac = released.permanent_mac;
        let worn = mac == self.mac.get() || mac_plan::worn_by(&self.wearers(), mac).is_some();
        if worn && self.policy() != FailOverMac::Active {
            self.outbox.notices.push(Notice::ReleasedMacInUse { slave: released.name.clone(), mac });
        }
    }

    /// An answer about a slave that is not there any more.
    fn late_answer(&mut self, slot: Slot) {
        if let Some(rest) = &mut self.resting[slot.index()] {
            rest.answers_to_go = rest.answers_to_go.saturating_sub(1);
        }
    }

    /// Sends the rounds of announcements and of reports that are due, if any.
    fn announce(&mut self, now: Time) {
        let Some(active) = self.active.and_then(|slot| self.slave(slot)) else { return };
        let (slot, mac) = (active.slot, self.wire_mac(active));
        if self.announcements.take_due(now, announce::interval(&self.options)) {
            self.outbox.slow.push(Command::Announce { slot, mac });
        }
        if self.reports.take_due(now, announce::REPORT_INTERVAL) {
            self.outbox.slow.push(Command::Report { slot, mac });
        }
    }

    /// The next PollLinks: whenever the clock shows a multiple of miimon, so that bonds with the same miimon look at
    /// their links together.
    fn arm_poll(&mut self, now: Time) {
        let miimon = u128::from(self.options.miimon) * 1_000_000;
        let wanted = miimon > 0 && self.joined_slaves().next().is_some();
        let next = || (now.as_nanos() / miimon + 1) * miimon;
        self.next_poll = wanted.then(|| Time::from_nanos(u64::try_from(next()).unwrap_or(u64::MAX)));
    }

    /// The ARP monitor begins, with a first step at once, or ends.
    fn start_arp(&mut self, now: Time) {
        let patience = Patience::of(&self.options);
        self.arp.turn = None;
        self.arp.next_step = patience.filter(|_| self.joined_slaves().next().is_some()).map(|_| now);
        for slave in self.slaves.iter_mut().filter(|slave| slave.phase == Phase::Joined) {
            slave.path = Path::new(now, patience);
        }
    }

    /// The next step, one interval after the last.
    fn arm_arp(&mut self, now: Time) {
        let interval = Patience::of(&self.options).map(Patience::interval);
        let next = |after: Time| interval.map(|interval| after.saturating_add(interval));
        let on_time = self.arp.next_step.and_then(next).filter(|next| *next > now);
        self.arp.next_step = on_time.or_else(|| next(now));
    }

    fn set_slave_mac(&mut self, change: Wearer) {
        let Wearer { slot, mac } = change;
        if let Some(slave) = self.slave_mut(slot) {
            slave.mac.ask(mac);
            self.outbox.slow.push(Command::SetSlaveMac { slot, mac });
        }
    }

    fn set_bond_mac(&mut self, mac: Mac) {
        if mac != self.mac.get() {
            self.mac.ask(mac);
            self.outbox.slow.push(Command::SetBondMac(mac));
        }
    }

    /// A MAC that nobody here has, `also` neither.
    fn make_up_mac(&mut self, also: Mac) -> Mac {
        let (bond, slaves) = (self.mac.get(), &self.slaves);
        let taken = |mac| {
            let worn = |slave: &Slave| slave.mac.get() == mac || slave.permanent_mac == mac;
            mac == bond || mac == also || slaves.iter().any(worn)
        };
        self.made_up.next(taken)
    }

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

    /// What a slave's frames carry while it is active.
    fn wire_mac(&self, slave: &Slave) -> Mac {
        match self.policy() {
            FailOverMac::None | FailOverMac::Follow => self.mac.get(),
            FailOverMac::Active => slave.mac.get(),
        }
    }

    fn policy(&self) -> FailOverMac {
        self.options.fail_over_mac
    }

    fn monitoring(&self) -> Monitoring {
        match self.options.miimon {
            0 if self.options.arp_interval > 0 => Monitoring::Arp,
            0 => Monitoring::Off,
            _ => Monitoring::Mii {
                updelay: Time::from_millis(self.options.updelay.into()),
                downdelay: Time::from_millis(self.options.downdelay.into()),
            },
        }
    }

    /// `bond_set_carrier`
    fn carrier(&self) -> bool {
        self.usable().next().is_some()
    }

    fn primary(&self) -> Option<Slot> {
        let name = self.options.primary.as_ref()?;
        self.joined_slaves().find(|slave| slave.name == *name).map(|slave| slave.slot)
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

    fn wearers(&self) -> Vec<Wearer> {
        self.slaves.iter().map(|slave| Wearer { slot: slave.slot, mac: slave.mac.get() }).collect()
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
            unheard: self.hearing.filter(|_| active).and_then(|hearing| hearing.unheard()),
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
