//! The engine: the state of one bond, and the path from events to commands.
//!
//! These modules are pure rules, each with its table of tests: [`link_state`], [`arp_monitor`], [`election`],
//! [`mac_plan`], [`announce`], [`receive_check`]. The other modules apply them to the engine, by subject.

mod adoption;
mod announce;
mod arp;
mod arp_monitor;
mod avoid;
mod election;
mod lateness;
mod link_state;
mod links;
mod mac_plan;
mod macs;
mod membership;
mod order;
mod quiet;
mod receive_check;
mod refusal;
mod requests;
mod switch;
mod watched;

use bond_common::{
    abi::{MAX_SLAVES, Slot},
    clock::{decide::Cause, layout::Preference},
    mac::Mac,
};

use self::{
    announce::{Announcements, PendingRounds},
    arp_monitor::{HUNTERS, Monitor, Path, Proposal, Standing, Tolerance},
    avoid::Avoided,
    election::{Candidate, Choice, Election},
    lateness::Lateness,
    link_state::{LinkState, Monitoring},
    mac_plan::{AtEnslave, MadeUpMacs, SlaveMac, TrackedMac},
    receive_check::{Counters, ReceiveCheck, Verdict},
    watched::Families,
};
use crate::{
    Time,
    change::{ChangedBy, DataPlaneChange},
    command::{
        Announce, Batch, Chosen, Failover, Notice, Probe, Publish, Query, Reason, Report, Trigger, Work,
    },
    damping::Damping,
    event::{Duplex, Elects, Event, Link, NewSlave, Reception, Speed},
    options::{BondOptions, FailOverMac, SlaveOptions},
    status::{BondStatus, MiiStatus, Pending, SlaveDamping, SlaveState, SlaveStatus},
    watch::Watch,
};

pub use self::{announce::interval as announcement_interval, refusal::Refusal};

/// The time after the first announcement of a planned switch in which peers may still send to the old slave.
const DRAIN_AFTER_ANNOUNCEMENT: Time = Time::from_millis(100);
/// The longest time of a planned switch, announced or not.
const DRAIN_AT_MOST: Time = Time::from_secs(1);
/// The quarantine of a released slot, so that no packet in flight finds another slave in it.
const SLOT_QUARANTINE: Time = Time::from_secs(1);

/// A new bond without slaves.
#[derive(Clone, Debug, PartialEq)]
pub struct NewBond {
    /// The name of the bond's interface, for notices.
    pub name: String,
    /// The present MAC address of the bond's interface.
    pub mac: Mac,
    /// Whether the administrator set the MAC address, which the bond then keeps. Otherwise the bond takes the address of
    /// its first slave.
    pub mac_assigned: bool,
    /// Under fail_over_mac=active: the bond keeps its MAC address when another slave becomes active, and frames carry the
    /// slave's.
    pub mac_stays: bool,
    /// Under fail_over_mac=follow: every slave receives the bond's MAC address, so that a failover need not wait for the
    /// exchange of addresses.
    pub prearm: bool,
    /// The seed of generated MAC addresses, where the driver takes random ones. Bonds and hosts need different seeds;
    /// equal seeds generate equal addresses.
    pub seed: u64,
    /// The options, which [`BondOptions`] has checked.
    pub options: BondOptions,
    /// The settings of damping, None if slaves that flap are treated like others.
    pub damping: Option<Damping>,
    /// What slaves need to count as up that have no such option of their own; None for what the monitors in force judge by.
    pub watch: Option<Watch>,
}

/// The state of a running bond that a former engine has left to the data plane.
#[derive(Clone, Debug, PartialEq)]
pub struct OrphanState {
    /// The active slot of the present word in ACTIVE.
    pub active: Option<Slot>,
    /// The draining slot of that word.
    pub draining: Option<Slot>,
    /// The usable mask of that word.
    pub usable: u16,
    /// The active slot as the former engine knew it last. If it differs, the data plane has failed over.
    pub known_active: Option<Slot>,
    /// The usable mask as the former engine knew it last.
    pub known_usable: u16,
    /// The recorded changes by the data plane since then, the oldest first.
    pub changes: Vec<DataPlaneChange>,
    /// Whether the bond has carrier.
    pub carrier: bool,
    /// The slaves that are completely set up, in enslave order.
    pub slaves: Vec<LeftSlave>,
    /// The names of slaves whose interfaces have vanished.
    pub gone: Vec<(Slot, String)>,
}

/// A slave of a running bond, completely set up.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftSlave {
    /// The index of the slave in the maps.
    pub slot: Slot,
    /// The name of the interface.
    pub name: String,
    /// The index of the interface.
    pub ifindex: u32,
    /// The present MAC address.
    pub mac: Mac,
    /// The MAC address that the slave had before it was enslaved.
    pub permanent_mac: Mac,
    /// The options of the slave.
    pub options: SlaveOptions,
    /// The present state of the link.
    pub link: Link,
    /// The number of link failures that SLAVES holds.
    pub link_failure_count: u32,
    /// Whether the administrator has drained the slave.
    pub drained: bool,
    /// Whether the path monitor found that its path does not work.
    pub path_failed: bool,
}

/// A view of a slave, for the executor of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlaveRef<'a> {
    /// The index of the slave in the maps.
    pub slot: Slot,
    /// The index of the interface.
    pub ifindex: u32,
    /// The name of the interface.
    pub name: &'a str,
    /// The MAC address that the slave has, or will have when all commands are executed.
    pub mac: Mac,
    /// Whether the slave is set up: the engine has handled its `Joined`.
    pub joined: bool,
    /// The number of link failures since the slave was enslaved.
    pub link_failure_count: u32,
}

/// One bond: turns each event into a batch of commands.
///
/// The caller executes the batch of each [`Engine::handle`], one after the other, and calls it with `Event::Timeout` at
/// [`Engine::poll_timeout`].
///
/// The engine treats a MAC address as changed as soon as it has asked for the change, and corrects it if the answer is
/// a refusal.
#[derive(Clone, Debug)]
pub struct Engine {
    name: String,
    options: BondOptions,
    damping: Option<Damping>,
    watch: Option<Watch>,
    /// Slaves that join, and slaves whose links return, have to prove their paths: the path monitor runs, with
    /// `failback=proven`.
    wants_proof: bool,
    mac: TrackedMac,
    mac_assigned: bool,
    mac_stays: bool,
    prearm: bool,
    made_up: MadeUpMacs,
    /// In enslave order.
    slaves: Vec<Slave>,
    active: Option<Slot>,
    /// The primary was set, or enslaved, and will take over as soon as it is up (`force_primary`).
    force_primary: bool,
    open: Option<OpenElection>,
    /// Some slave has been active since the bond was last empty.
    has_been_active: bool,
    drain: Option<Drain>,
    announcements: Announcements,
    /// IGMP and MLD reports (`igmp_retrans`).
    reports: PendingRounds,
    receive_check: Option<ReceiveCheck>,
    next_poll: Option<Time>,
    arp: Monitor,
    lateness: Lateness,
    quarantined: [Option<Quarantine>; MAX_SLAVES],
    published: Published,
    /// What the present event asks for so far.
    outbox: Batch,
    /// An event may have changed something since [`Self::take_change`].
    has_changed: bool,
    /// The trigger that failovers of the present event record.
    seen: Trigger,
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
    avoided: Avoided,
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

/// The quarantine of a released slot. The slot is assigned again after [`SLOT_QUARANTINE`] and after all answers about its
/// former slave.
#[derive(Clone, Copy, Debug)]
struct Quarantine {
    since: Time,
    /// The number of outstanding answers about the former slave.
    answers_to_go: u32,
}

/// The former active slave of a planned switch, which still delivers unicast.
#[derive(Clone, Copy, Debug)]
struct Drain {
    slot: Slot,
    until: Time,
    /// The number of answers to announcements up to the one about the first announcement of this switch.
    answers_to_go: u32,
}

/// An election that kept the active slave only because a speed was being read. It is repeated when the speed is known, if
/// the same two slaves still compete.
#[derive(Clone, Copy, Debug)]
struct OpenElection {
    challenger: Slot,
    reason: Reason,
}

/// The state of the data plane and of the bond's interface after the last commands.
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

/// The consequence of a change of link states (`bond_miimon_commit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Nothing,
    Elect(Reason),
}

impl Engine {
    /// Creates the engine of a bond without slaves, which asks for nothing yet.
    pub fn new(bond: NewBond) -> Self {
        Self {
            name: bond.name,
            options: bond.options,
            damping: bond.damping,
            watch: bond.watch,
            wants_proof: false,
            mac: TrackedMac::new(bond.mac),
            mac_assigned: bond.mac_assigned,
            mac_stays: bond.mac_stays,
            prearm: bond.prearm,
            made_up: MadeUpMacs::new(bond.seed),
            slaves: Vec::new(),
            active: None,
            force_primary: false,
            open: None,
            has_been_active: false,
            drain: None,
            announcements: Announcements::default(),
            reports: PendingRounds::default(),
            receive_check: None,
            next_poll: None,
            arp: Monitor::default(),
            lateness: Lateness::default(),
            quarantined: [None; MAX_SLAVES],
            published: Published::default(),
            outbox: Batch::default(),
            has_changed: true,
            seen: Trigger::Request,
        }
    }

    /// Handles an event that happened at `now`, and returns what it asks for. A fact about a slot without a slave is ignored,
    /// because answers may arrive after the slave has left.
    ///
    /// # Errors
    /// A request is refused. A refused request changes nothing.
    pub fn handle(&mut self, now: Time, event: Event) -> Result<Batch, Refusal> {
        self.has_changed |= !self.is_quiet(now, &event);
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
            Event::ActiveChanged { changes, active, draining, usable } => {
                self.active_changed(now, &changes, Word { active, draining, usable });
            }
            Event::SetOptions(options) => self.set_options(now, *options)?,
            Event::SetSlaveOptions { slot, options } => self.set_slave_options(now, slot, options)?,
            Event::Written(option) => self.written(now, option),
            Event::SetActiveSlave(Some(slot)) => self.set_active_slave(now, slot)?,
            Event::SetActiveSlave(None) => self.clear_active_slave(now),
            Event::SetDrained { slot, drained } => self.set_drained(now, slot, drained)?,
            Event::SetDamping(damping) => self.set_damping(now, damping),
            Event::SetWatch(watch) => self.set_watch(now, watch),
            Event::Paths(found) => self.paths(now, &found),
            Event::SlaveMacSet { slot, mac, done } => self.slave_mac_set(now, slot, mac, done),
            Event::BondMacSet { mac, done } => self.bond_mac_set(mac, done),
            Event::SlaveMacFound { slot, mac } => self.slave_mac_found(now, slot, mac),
            Event::BondMacFound { mac } => self.bond_mac_found(mac),
            Event::Announced { slot: _ } => self.announced(now),
            Event::Probes(receptions) => self.probes(now, &receptions),
            Event::Probed { slot } => self.probed(now, slot),
            Event::ProbeFailed { slot: _ } => self.notice_late_probe(now),
            Event::NotProbed { slot: _ } => self.not_probed(now),
            Event::Suspended { time } => self.suspended(now, time),
            Event::Counters { slot, tx_packets, rx_unicast } => {
                self.counters(now, slot, Counters { tx_packets, rx_unicast });
            }
            Event::NeighboursAsked(asked) => {
                if let Some(receive_check) = &mut self.receive_check {
                    receive_check.asked(now, asked);
                }
            }
        }
        self.release_drained(now);
        Ok(self.publish())
    }

    /// Returns the time at which the engine needs `Event::Timeout`; None if it needs none before another event.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines_but_poll().chain(self.next_poll).min()
    }

    /// Returns when something other than the next poll is due.
    fn deadlines_but_poll(&self) -> impl Iterator<Item = Time> + '_ {
        let deadlines = [
            self.arp.next_step,
            self.drain.map(|drain| drain.until),
            self.announcements.rounds.deadline(),
            self.reports.deadline(),
            self.damping_deadline(),
            self.receive_check.map(|receive_check| receive_check.deadline()),
        ];
        let links = self.joined_slaves().map(|slave| slave.state.deadline());
        deadlines.into_iter().chain(links).flatten()
    }

    /// Returns the present state of the bond and of its slaves.
    pub fn status(&self) -> BondStatus {
        BondStatus {
            mac: self.mac.get(),
            carrier: self.carrier(),
            active_slave: self.active.and_then(|slot| self.name_of(slot)),
            options: self.options.clone(),
            slaves: self.slaves.iter().map(|slave| self.slave_status(slave)).collect(),
        }
    }

    /// Returns the decisions that are not carried out yet, without later rounds of announcements, slaves that join or
    /// leave, and delays of link states.
    pub fn pending(&self) -> impl Iterator<Item = Pending> + '_ {
        let election = self.open.map(|_| Pending::Election);
        let bond = (!self.mac.is_settled()).then(|| Pending::BondMac(self.mac.get()));
        let unsettled = self.slaves.iter().filter(|slave| !slave.mac.is_settled());
        let slaves =
            unsettled.map(|slave| Pending::SlaveMac { slave: slave.name.clone(), mac: slave.mac.get() });
        let announcement = self.announcements.is_open().then_some(Pending::Announcement);
        let leaving = self.drain.and_then(|drain| self.slave(drain.slot));
        let leaving = leaving.filter(|slave| slave.avoided.is_drained());
        let draining = leaving.map(|slave| Pending::Draining { slave: slave.name.clone() });
        election.into_iter().chain(bond).chain(slaves).chain(announcement).chain(draining)
    }

    /// Returns the options in force. They differ from the given ones if a slave changed fail_over_mac to active.
    pub fn options(&self) -> &BondOptions {
        &self.options
    }

    /// Returns the slot of the slave with this name, None if the bond has no such slave.
    pub fn slot_of(&self, name: &str) -> Option<Slot> {
        self.slaves.iter().find(|slave| slave.name == name).map(|slave| slave.slot)
    }

    /// Returns the slaves in enslave order, including those that are being set up.
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

    /// Returns whether the bond has an active slave.
    pub fn has_active(&self) -> bool {
        self.active.is_some()
    }
}

fn seen(event: &Event) -> Trigger {
    match event {
        Event::Timeout => Trigger::Delay,
        Event::Link { .. } | Event::Speed { .. } | Event::Renamed { .. } => Trigger::LinkEvent,
        Event::Links(_) => Trigger::Miimon,
        Event::ActiveChanged { .. } => Trigger::Guard,
        Event::Probes(_) | Event::Probed { .. } | Event::NotProbed { .. } | Event::ProbeFailed { .. } => {
            Trigger::ArpMonitor
        }
        Event::Paths(_) => Trigger::Path,
        Event::Join(_) | Event::Joined { .. } | Event::JoinFailed { .. } => Trigger::SlaveJoined,
        Event::Leave { .. } | Event::Gone { .. } => Trigger::SlaveLeft,
        Event::SetOptions(_)
        | Event::SetSlaveOptions { .. }
        | Event::SetActiveSlave(_)
        | Event::SetDrained { .. }
        | Event::SetDamping(_)
        | Event::SetWatch(_)
        | Event::Written(_)
        // Answers cause no election.
        | Event::SlaveMacSet { .. }
        | Event::BondMacSet { .. }
        | Event::SlaveMacFound { .. }
        | Event::BondMacFound { .. }
        | Event::Announced { .. }
        | Event::Counters { .. }
        | Event::NeighboursAsked(_)
        | Event::Suspended { .. } => Trigger::Request,
    }
}

/// One method for each event.
impl Engine {
    fn timeout(&mut self, now: Time) {
        self.inspect(now);
        self.end_damping(now);
        if self.next_poll.is_some_and(|at| at <= now) {
            self.outbox.queries.push(Query::PollLinks);
            self.arm_poll(now);
        }
        if self.arp.next_step.is_some_and(|at| at <= now) {
            self.outbox.queries.push(Query::ReadProbes);
            self.arm_arp(now);
        }
        if self.drain.is_some_and(|drain| drain.until <= now) {
            self.drain = None;
        }
        self.announce(now);
        if let Some(receive_check) = &mut self.receive_check
            && receive_check.take_due(now)
        {
            self.outbox.queries.push(Query::ReadCounters { slot: receive_check.slot() });
        }
    }

    fn counters(&mut self, now: Time, slot: Slot, counters: Counters) {
        let Some(receive_check) =
            self.receive_check.as_mut().filter(|receive_check| receive_check.slot() == slot)
        else {
            return;
        };
        let verdict = receive_check.check(now, counters);
        let Some(slave) = self.name_of(slot) else { return };
        match verdict {
            Verdict::Wait => {}
            Verdict::Ask => self.outbox.work.push(Work::AskNeighbours),
            Verdict::NoUnicast { sent } => self.notify(Notice::NoUnicast { slave, sent }),
            Verdict::Received { was_reported } => {
                self.receive_check = None;
                if was_reported {
                    self.notify(Notice::UnicastReceived { slave });
                }
            }
        }
    }
}

/// Functions that several events use.
impl Engine {
    /// Adds a notice to what the present event asks for.
    fn notify(&mut self, notice: Notice) {
        self.outbox.reports.push(Report::Notice(notice));
    }

    /// Returns what the present event asks for, with the changes of what packets read since the last event.
    fn publish(&mut self) -> Batch {
        for slot in Slot::all() {
            let entry = self.slave(slot).map(|slave| Entry {
                ifindex: slave.ifindex,
                wire_mac: self.wire_mac(slave),
                permanent_mac: slave.permanent_mac,
                queue_id: slave.options.queue_id,
            });
            let Some(written) = self.published.slaves.get_mut(slot.index()) else { continue };
            if let Some(new) = entry
                && *written != entry
            {
                *written = entry;
                let Entry { ifindex, wire_mac, permanent_mac, queue_id } = new;
                let write = Publish::WriteSlave { slot, ifindex, wire_mac, permanent_mac, queue_id };
                self.outbox.publish.push(write);
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
            self.outbox.publish.push(Publish::Switch { active, draining, usable });
        }
        for slot in Slot::all() {
            if self.slave(slot).is_none()
                && self.published.slaves.get_mut(slot.index()).and_then(Option::take).is_some()
            {
                self.outbox.publish.push(Publish::ClearSlave { slot });
            }
        }
        let carrier = self.carrier();
        if self.published.carrier != carrier {
            self.published.carrier = carrier;
            self.outbox.work.insert(0, Work::SetCarrier(carrier));
        }
        std::mem::take(&mut self.outbox)
    }

    fn policy(&self) -> FailOverMac {
        self.options.fail_over_mac
    }

    /// `bond_set_carrier`
    fn carrier(&self) -> bool {
        self.usable().next().is_some()
    }

    fn usable(&self) -> impl Iterator<Item = &Slave> {
        self.joined_slaves().filter(|slave| slave.state.is_up() && !self.is_avoided(slave))
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
            drained: slave.avoided.is_drained(),
            damping: self.damping.and_then(|settings| slave.avoided.damping(settings)),
            path_failed: slave.avoided.has_failed_path(),
            no_unicast: self
                .receive_check
                .filter(|_| active)
                .and_then(|receive_check| receive_check.no_unicast()),
        }
    }
}

const BY_GUARD: (Reason, Chosen, Trigger) = (Reason::CarrierGuard, Chosen::Guard, Trigger::Guard);

impl Slave {
    /// Its interface is set up.
    fn has_joined(&self) -> bool {
        matches!(self.phase, Phase::Joined | Phase::Leaving)
    }

    fn candidate(&self) -> Candidate {
        Candidate { slot: self.slot, state: self.state, prio: self.options.prio, link: self.link }
    }
}
