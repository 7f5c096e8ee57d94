//! The slow half of a bond: netlink and found.json. One task per bond carries out, in order, what the engine asked for, and
//! answers with events.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bond_common::{
    abi::{BondEntry, FailOverMac, Slot},
    mac::Mac,
};
use bond_core::{
    event::{Asked, Event, Link},
    options::BondOptions,
};
use nix::errno::Errno;
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};

use crate::{
    agent::{
        AgentError, LinkEventSource,
        bond::{
            announcer::{self as announcer_task, Announcing, Told},
            engine_thread::{BondId, EngineHandle, Input},
            guard::GuardState,
            interface::Host,
            path_check::{Notes, Seen, hooked_at},
            recorder::{Entry, Recording},
            work::{End, Job, Jobs, Lane, Looks, Reads, WeakWork},
        },
    },
    config::Guard,
    report::wording::{self as text, PathFault, Repair},
    store::record::{Configured, Record, Trial},
    sys::{
        Devices, SysError,
        announcer::{self, Announced},
        dataplane::{DataPlane, FormerMacs, Hook, MapMirror},
        devices::ChangeMacs,
        enslave::{EnslavePlan, PutBack},
        found::{Found, Lower},
        membership,
        netlink::{Interfaces, LinkInfo, LinkSetting},
        ownership::Ownership,
        topology::{self, Pairs},
    },
};

/// How long a frame may be under way to bond0, through the queues of a busy machine.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// Something for a bond's worker to do.
pub enum Effect {
    /// The MAC addresses of a failover, which were asked for before this, are changed.
    FailedOver,
    /// A round of announcements.
    Announced(Box<Told>),
    /// What the check of the path has read.
    PathSeen(Box<Seen>),
    /// A slave that cannot change its MAC has turned fail_over_mac to active.
    PolicyTurnedActive,
    SetCarrier(bool),
    SetMac {
        of: MacOf,
        mac: Mac,
        /// How many times the engine has asked for a MAC of this interface, and waits for an answer.
        answers: u32,
    },
    /// Options changed; some of them packets read.
    Options(Box<BondOptions>),
    /// Whether the data plane may fail over by itself; [`Self::Options`] follows, which tells it.
    SetGuard(Guard),
    Enslave {
        slot: Slot,
        ifindex: u32,
        name: String,
        mac: Option<Mac>,
    },
    Release {
        slot: Slot,
        mac: Option<Mac>,
    },
    /// A slave's device vanished: what is left of it is taken away.
    Forget {
        slot: Slot,
    },
    /// This slave was made a port of something else, and leaves.
    GivenAway {
        slot: Slot,
        master: u32,
    },
    /// This interface will be enslaved: as it was found, with a MAC of its own if one is configured. Tell when
    /// it is set up, or why it could not be.
    AwaitJoin {
        found: Box<Found>,
        mac: Option<Mac>,
        /// Dropped when the record names the interface.
        recorded: oneshot::Sender<()>,
        reply: oneshot::Sender<Result<(), AgentError>>,
    },
    /// This slave will be released. Tell when it is, or what could not be put back.
    AwaitRelease {
        slot: Slot,
        reply: oneshot::Sender<Result<(), AgentError>>,
    },
    /// Have the record name no interface but those that are slaves, or are about to be. Tell when it does.
    TidyRecord {
        reply: oneshot::Sender<Result<(), AgentError>>,
    },
    /// Have the record name what a configuration sets on bond0. Tell when it does.
    Configured {
        configured: Configured,
        reply: oneshot::Sender<Result<(), AgentError>>,
    },
    /// Have the record say until when the bond is on trial. Answers when it does.
    Trial {
        trial: Option<Trial>,
        reply: oneshot::Sender<Result<(), AgentError>>,
    },
    /// Give the bond another MTU, in bytes. Tell when all its devices have it, or that they have the former one.
    SetMtu {
        mtu: u32,
        reply: oneshot::Sender<Result<(), AgentError>>,
    },
    /// Tell when everything that was asked for before is done.
    Settle {
        reply: oneshot::Sender<()>,
    },
    /// Tell when everything that was asked for before is done, and every failover so far has its record.
    AwaitRecords {
        reply: oneshot::Sender<()>,
    },
}

/// An interface whose MAC is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacOf {
    Bond,
    Slave(Slot),
}

impl Effect {
    pub fn lane(&self) -> Lane {
        match self {
            Self::SetCarrier(_)
            | Self::SetMac { .. }
            | Self::Options(_)
            | Self::SetGuard(_)
            | Self::PolicyTurnedActive
            | Self::FailedOver
            | Self::Announced(_) => Lane::Urgent,
            Self::Enslave { .. }
            | Self::Release { .. }
            | Self::Forget { .. }
            | Self::GivenAway { .. }
            | Self::AwaitJoin { .. }
            | Self::AwaitRelease { .. }
            | Self::TidyRecord { .. }
            | Self::Configured { .. }
            | Self::Trial { .. }
            | Self::SetMtu { .. }
            | Self::PathSeen(_)
            | Self::Settle { .. }
            | Self::AwaitRecords { .. } => Lane::Request,
        }
    }

    /// The slot whose interface it sets up, or takes away.
    pub fn sets_up(&self) -> Option<Slot> {
        match self {
            Self::Enslave { slot, .. } | Self::Release { slot, .. } | Self::Forget { slot } => Some(*slot),
            _ => None,
        }
    }

    /// Whether `newer` makes it needless.
    pub fn is_overtaken_by(&self, newer: &Self) -> bool {
        match (self, newer) {
            (Self::SetMac { of, .. }, Self::SetMac { of: newer, .. }) => of == newer,
            (Self::SetCarrier(_), Self::SetCarrier(_))
            | (Self::Options(_), Self::Options(_))
            | (Self::SetGuard(_), Self::SetGuard(_))
            | (Self::PolicyTurnedActive, Self::PolicyTurnedActive)
            | (Self::FailedOver, Self::FailedOver)
            | (Self::Announced(_), Self::Announced(_)) => true,
            _ => false,
        }
    }

    /// Takes over what is owed for an older one.
    pub fn overtake(&mut self, older: &Self) {
        if let (Self::SetMac { answers, .. }, Self::SetMac { answers: owed, .. }) = (self, older) {
            *answers = answers.saturating_add(*owed);
        }
    }
}

/// What to tell of a bond without its pins.
pub const PINS_GONE: &str = "its pins are gone (bpffs unmounted?): the bond carries packets, but ends with this agent, and takes no further \
     slaves; to create it again: xbond down, then xbond reload or xbond add";

/// What a slave needs of this task.
pub(super) struct SlaveDevice {
    pub(super) ifindex: u32,
    name: String,
    found: Found,
}

impl SlaveDevice {
    fn new(found: Found) -> Self {
        Self { ifindex: found.ifindex, name: found.name.clone(), found }
    }
}

/// An interface that is about to be enslaved.
struct Waiting {
    found: Found,
    mac: Option<Mac>,
    recorded: oneshot::Sender<()>,
    reply: oneshot::Sender<Result<(), AgentError>>,
}

/// The task's state.
pub struct Effects {
    pub id: BondId,
    pub bond: String,
    /// What bond0's device is called, where that is ours: somebody may give it another name.
    pub(super) device_name: String,
    pub devices: Arc<dyn Devices>,
    /// For the one change that must not take long: bond0's MAC.
    pub macs: Box<dyn ChangeMacs>,
    pub data_plane: Box<dyn DataPlane>,
    /// What BOND holds.
    pub mirror: Arc<MapMirror>,
    pub host: Host,
    /// Bytes, of every device of the bond.
    pub mtu: u32,
    pub engine: EngineHandle,
    pub record: Record,
    pub(super) recording: Recording,
    /// To have more done by this task.
    pub(super) own_work: WeakWork,
    /// Held while the path of one bond is read.
    pub(super) path_lane: Arc<Mutex<()>>,
    /// The count of changes of filters and chains on this machine, which [`crate::sys::hook_events`] increments.
    pub(super) hook_changes: Arc<AtomicU64>,
    pub wanted: Wishes,
    pub(super) slaves: HashMap<Slot, SlaveDevice>,
    /// By ifindex.
    waiting: HashMap<u32, Waiting>,
    /// Who waits for a slave to be released.
    leaving: HashMap<Slot, oneshot::Sender<Result<(), AgentError>>>,
    /// How often it was tried to restore an interface that is no slave any more, by ifindex.
    unrestored: HashMap<u32, u32>,
    /// MACs that slaves receive beside their own: those of devices above bond0, and with prearm the bond's.
    pub(super) further_macs: Vec<Mac>,
    /// What is announced, as it was when something of it changed last.
    announced: Announced,
    /// It has changed, or may have, since it was read.
    is_above_old: bool,
    announcer_task: Announcing,
    /// With prearm, once there is a slave: the bond's MAC.
    prearmed: Option<Mac>,
    /// What the bond's carrier is to be: the port is up or down.
    pub(super) carrier: bool,
    /// Set at each event of a device of the bond.
    pub(super) is_changed: Arc<AtomicBool>,
    /// One has come since the devices were checked to the end.
    pub(super) are_devices_unchecked: bool,
    /// Faults of devices that were found by the last check.
    pub(super) device_faults: Vec<(PathFault, Repair)>,
    /// The path is being read, and the answer has not come.
    pub(super) is_path_asked: bool,
    /// How often it was read.
    pub(super) checks: u32,
    /// [`Self::hook_changes`] as of the last time that hooks were read.
    pub(super) hook_changes_seen: u64,
    pub(super) notes: Notes,
    /// Ends the time in which bond0 takes frames with its former MAC.
    settling: Option<JoinHandle<()>>,
    /// The device above bond0 of which [`Self::warn_of_bridge`] knows already.
    warned_of: Option<u32>,
    /// The master of bond0 for which [`Self::release_loops`] has looked.
    checked_below: Option<u32>,
}

/// The parts of [`Effects`] that bring-up makes.
pub struct Parts {
    pub id: BondId,
    pub bond: String,
    pub devices: Arc<dyn Devices>,
    pub macs: Box<dyn ChangeMacs>,
    pub data_plane: Box<dyn DataPlane>,
    pub mirror: Arc<MapMirror>,
    pub host: Host,
    pub mtu: u32,
    pub engine: EngineHandle,
    pub record: Record,
    pub recording: Recording,
    pub own_work: WeakWork,
    pub path_lane: Arc<Mutex<()>>,
    pub hook_changes: Arc<AtomicU64>,
    pub wanted: Wishes,
    pub announced: Announced,
    pub announcer_task: Announcing,
    pub carrier: bool,
    pub is_changed: Arc<AtomicBool>,
}

/// What is wished for beyond the driver's options.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    pub guard: Guard,
    /// fail_over_mac=follow: every slave receives the bond's MAC.
    pub prearm: bool,
    pub link_events: LinkEventSource,
}

/// Why an interface is no slave, and whether it is as it was found.
struct NotSetUp {
    error: AgentError,
    is_undone: bool,
}

impl Effects {
    /// `left` are the slaves that another agent has left, as they were found.
    pub fn new(parts: Parts, left: Vec<(Slot, Found)>) -> Self {
        let Parts {
            id,
            bond,
            devices,
            macs,
            data_plane,
            mirror,
            host,
            mtu,
            engine,
            record,
            wanted,
            recording,
            own_work,
            path_lane,
            hook_changes,
            announced,
            announcer_task,
            carrier,
            is_changed,
        } = parts;
        let further_macs = left.first().map(|(_, found)| found.unicast.clone()).unwrap_or_default();
        let wire_mac = |(slot, _): &(Slot, Found)| mirror.slave(*slot).wire_mac();
        let prearmed = left.first().filter(|_| wanted.prearm).map(wire_mac);
        Self {
            id,
            device_name: bond.clone(),
            bond,
            devices,
            macs,
            data_plane,
            mirror,
            host,
            mtu,
            engine,
            record,
            recording,
            own_work,
            path_lane,
            hook_changes,
            wanted,
            slaves: left.into_iter().map(|(slot, found)| (slot, SlaveDevice::new(found))).collect(),
            waiting: HashMap::new(),
            leaving: HashMap::new(),
            unrestored: HashMap::new(),
            further_macs,
            announced,
            is_above_old: false,
            announcer_task,
            prearmed,
            carrier,
            is_changed,
            are_devices_unchecked: false,
            device_faults: Vec::new(),
            is_path_asked: false,
            checks: 0,
            hook_changes_seen: u64::MAX,
            notes: Notes::default(),
            settling: None,
            warned_of: None,
            checked_below: None,
        }
    }

    /// Runs until it is told to end.
    pub async fn run(mut self, mut jobs: Jobs) {
        for (slot, slave) in &self.slaves {
            self.announcer_task.prepare(*slot, slave.ifindex);
        }
        while let Some(job) = jobs.next().await {
            match job {
                Job::End(End::TearDown { reply }) => {
                    self.recording.finish().await;
                    self.keep_record();
                    let _ = reply.send(self.tear_down().await);
                    return;
                }
                Job::End(End::Keep { reply }) => {
                    self.recording.finish().await;
                    self.keep_record();
                    self.data_plane.keep();
                    let _ = reply.send(());
                    return;
                }
                Job::Do(effect) => {
                    self.is_above_old = jobs.wants_look_above();
                    self.carry_out(effect).await;
                }
                Job::Read(reads) => self.read(reads).await,
                Job::Look(looks) => self.look(looks, &jobs).await,
            }
        }
        self.recording.finish().await;
        self.keep_record();
    }

    /// Leaves found.json to the next agent or `xbond down`, also if another process has removed it since the last check.
    fn keep_record(&self) {
        if !self.record.is_written() {
            self.write_record_again();
        }
    }

    /// Somebody has unmounted bpffs, or removed files in it: only this agent holds the programs at their hooks now.
    fn pinned(&mut self, pinned: bool) {
        if pinned {
            info!("{}: its pins are back", self.bond);
        } else if !self.check_maps() {
            self.recording.warn(PINS_GONE);
        }
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::FailedOver => self.recording.add(Entry::FirstPartDone),
            Effect::PolicyTurnedActive => {
                self.mirror.update_bond(|bond| bond.with_policy(FailOverMac::Active))
            }
            Effect::PathSeen(seen) => self.path_seen(*seen).await,
            Effect::Announced(told) => self.announced(*told).await,
            Effect::SetCarrier(up) => {
                self.carrier = up;
                let answer = self.devices.set(self.host.port(), LinkSetting::Up(up)).await;
                self.warn_of(answer.map(drop));
                self.recording.add(Entry::Carrier(up));
            }
            Effect::SetMac { of, mac, answers } => self.set_mac(of, mac, answers).await,
            Effect::Options(options) => {
                self.write_options(&options);
                if options.num_grat_arp == 0 {
                    self.recording.add(Entry::WithoutAnnouncement);
                }
                if self.mirror.bond().has(BondEntry::ALL_SLAVES_ACTIVE)
                    && let Ok(link) = self.devices.link_by_index(self.host.device()).await
                {
                    self.warn_of_bridge(&link).await;
                }
            }
            Effect::SetGuard(guard) => self.wanted.guard = guard,
            Effect::Enslave { slot, ifindex, name, mac } => self.enslave(slot, ifindex, name, mac).await,
            Effect::Release { slot, mac } => self.release(slot, mac).await,
            Effect::Forget { slot } => self.forget(slot),
            Effect::GivenAway { slot, master } => {
                let Some(slave) = self.slaves.get(&slot) else { return };
                let master = self.devices.link_by_index(master).await;
                let master = master.map(|link| link.name);
                warn!("{}: {}", self.bond, text::given_away(&slave.name, master.ok().as_deref()));
            }
            Effect::AwaitJoin { found, mac, recorded, reply } => {
                self.waiting.insert(found.ifindex, Waiting { found: *found, mac, recorded, reply });
            }
            Effect::AwaitRelease { slot, reply } => {
                self.leaving.insert(slot, reply);
            }
            Effect::TidyRecord { reply } => {
                let is_slave = |ifindex| self.slaves.values().any(|slave| slave.ifindex == ifindex);
                let kept = |ifindex| is_slave(ifindex) || self.waiting.contains_key(&ifindex);
                let _ = reply.send(self.record.remove_others(kept).map_err(AgentError::from));
            }
            Effect::Configured { configured, reply } => {
                let _ = reply.send(self.record.set_configured(configured).map_err(AgentError::from));
            }
            Effect::Trial { trial, reply } => {
                let _ = reply.send(self.record.set_trial(trial).map_err(AgentError::from));
            }
            Effect::SetMtu { mtu, reply } => {
                let _ = reply.send(self.set_mtu(mtu).await);
            }
            Effect::Settle { reply } => self.recording.add(Entry::Reached(reply)),
            Effect::AwaitRecords { reply } => self.recording.add(Entry::Await(reply)),
        }
    }

    async fn set_mac(&mut self, of: MacOf, mac: Mac, answers: u32) {
        let done = match of {
            MacOf::Slave(slot) => self.set_slave_mac(slot, mac).await,
            MacOf::Bond => self.set_bond_mac(mac).await,
        };
        self.recording.add(Entry::MacChanged);
        for _ in 0..answers {
            let event = match of {
                MacOf::Slave(slot) => Event::SlaveMacSet { slot, mac, done },
                MacOf::Bond => Event::BondMacSet { mac, done },
            };
            self.engine.event(self.id, event);
        }
    }

    /// What the engine wants to know, or have sent, as often as its clocks say.
    async fn read(&mut self, reads: Reads) {
        let Reads { links, speeds, report, neighbours, restored, pinned, record } = reads;
        if record {
            self.write_record_again();
        }
        restored.into_iter().for_each(|map| self.warn_of_restored(map));
        if let Some(pinned) = pinned {
            self.pinned(pinned);
        }
        if links {
            self.read_links().await;
        }
        for (slot, number) in Slot::all().zip(speeds) {
            if let Some(number) = number {
                self.read_speed(slot, number);
            }
        }
        if let Some((slot, mac)) = report {
            let answer = self.report(slot, mac).await;
            self.warn_of(answer);
        }
        if neighbours {
            let asked = self.ask_neighbours().await;
            self.engine.event(self.id, Event::NeighboursAsked(asked));
        }
    }

    /// Without found.json no other agent could adopt the bond, and no command restore its slaves.
    fn write_record_again(&self) {
        match self.record.write_again() {
            Ok(()) => {
                self.recording.warn("its found.json was removed by another process; it is written again")
            }
            Err(error) => {
                self.recording.warn(format!("its found.json was removed by another process: {error}"))
            }
        }
    }

    /// What may have changed at any rate.
    async fn look(&mut self, looks: Looks, jobs: &Jobs) {
        // Read here and now: an event may be older than a change that this task made since. What waits for RTNL meanwhile
        // gives way to what is urgent.
        if looks.host {
            let again = Looks { host: true, ..Looks::default() };
            let link = self.devices.link_by_index(self.host.device());
            if let Some(Ok(link)) = jobs.unless_urgent(again, link).await {
                self.host_changed(&link).await;
                self.warn_of_bridge(&link).await;
                self.release_loops(&link).await;
            }
        }
        for slot in Slot::all().filter(|slot| looks.slave_macs & slot.bit() != 0) {
            let Some(ifindex) = self.slaves.get(&slot).map(|slave| slave.ifindex) else { continue };
            let again = Looks { slave_macs: slot.bit(), ..Looks::default() };
            let link = self.devices.link_by_index(ifindex);
            if let Some(Ok(link)) = jobs.unless_urgent(again, link).await {
                self.engine.event(self.id, Event::SlaveMacFound { slot, mac: link.mac });
            }
        }
        if looks.path {
            self.check_path();
        }
        if !looks.appeared.is_empty() && !self.record.away().is_empty() {
            let again = Looks { appeared: looks.appeared.clone(), ..Looks::default() };
            let links = self.devices.links(None);
            let back = match jobs.unless_urgent(again, links).await {
                Some(Ok(links)) => self.appeared(&looks.appeared, &links).await,
                Some(Err(error)) => Err(error.into()),
                None => Ok(()),
            };
            if let Err(error) = back {
                self.recording.warn(error.to_string());
            }
        }
        // A macvlan above a VLAN above bond0, say. What is above bond0 itself comes as `uppers`.
        let device = self.host.device();
        let uppers = looks.uppers || looks.below.any_of(|&below| below != device && self.is_announced(below));
        let addresses = looks.addresses.any_of(|&ifindex| self.is_announced(ifindex));
        if uppers || addresses {
            let again = Looks { uppers, addresses: looks.addresses, ..Looks::default() };
            jobs.unless_urgent(again, self.look_above(uppers)).await;
        }
    }

    /// It may be broken off, and done again.
    async fn look_above(&mut self, uppers: bool) {
        self.read_addresses().await;
        if uppers && let Err(error) = self.receive_for_uppers().await {
            warn!("{}: {error}", self.bond);
        }
    }

    async fn enslave(&mut self, slot: Slot, ifindex: u32, name: String, mac: Option<Mac>) {
        // Whoever asked the engine has said first what was found.
        let Some(Waiting { found, mac: configured, recorded, reply }) = self.waiting.remove(&ifindex) else {
            self.engine.event(self.id, Event::JoinFailed { slot });
            return;
        };
        let answer = self.try_enslave(slot, name, found, mac.or(configured), recorded).await;
        let event = match &answer {
            Ok(link) => Event::Joined { slot, link: *link },
            Err(_) => Event::JoinFailed { slot },
        };
        self.engine.event(self.id, event);
        let _ = reply.send(answer.map(drop));
    }

    async fn try_enslave(
        &mut self,
        slot: Slot,
        name: String,
        found: Found,
        mac: Option<Mac>,
        recorded: oneshot::Sender<()>,
    ) -> Result<Link, AgentError> {
        self.data_plane.check_pins()?;
        let prearmed = self.wanted.prearm.then(|| self.mirror.slave(slot).wire_mac());
        let mut unicast = self.further_macs.clone();
        if let Some(mac) = prearmed {
            unicast.retain(|known| Some(*known) != self.prearmed);
            unicast.push(mac);
        }
        // On disk before the first change: the next agent, or `xbond down --force`, can undo a half-made bond.
        let found = self.record_found(Found { unicast: unicast.clone(), ..found }).await?;
        // Others read there whose it is.
        drop(recorded);
        let plan = EnslavePlan { mac, mtu: self.mtu, hook: self.data_plane.hook(), unicast };
        let ifindex = found.ifindex;
        let link = match self.set_up(slot, &name, &found, &plan).await {
            Ok(link) => link,
            Err(NotSetUp { error, is_undone }) => {
                // A restored interface is no longer the bond's. The original state of another one is still needed.
                let recorded =
                    if is_undone { self.record.remove(ifindex) } else { self.record.depart(ifindex) };
                if let Err(error) = recorded {
                    warn!("{}: {name}: {error}", self.bond);
                }
                return Err(error);
            }
        };
        self.further_macs = plan.unicast;
        self.prearmed = prearmed.or(self.prearmed);
        if self.host.promisc() {
            let answer = self.devices.set(ifindex, LinkSetting::Promisc(true)).await;
            self.warn_of(answer.map(drop));
        }
        self.warn_of_device(&name, ifindex).await;
        let (speed, duplex) = self.devices.speed(ifindex);
        self.slaves.insert(slot, SlaveDevice { name, ..SlaveDevice::new(found) });
        Ok(Link { speed, duplex, ..Link::new(link.has_link()) })
    }

    /// Reports what a new slave keeps from the bond, or from others, without an error.
    async fn warn_of_device(&mut self, name: &str, ifindex: u32) {
        let (bond, hook) = (&self.bond, self.data_plane.hook());
        let hooked = hooked_at(&*self.devices, bond, (name, ifindex), hook).await;
        for note in &hooked {
            self.recording.warn(note.to_string());
        }
        match self.devices.conflicts(ifindex).await {
            Ok(conflicts) => conflicts.iter().for_each(|conflict| {
                self.recording.warn(format!("{name}: {}", text::conflict(conflict, name, bond)))
            }),
            Err(error) => self.recording.warn(format!("{error}; what else stands on {name} is not known")),
        }
        self.notes.hooked.extend(hooked);
        self.recording.add(Entry::Notes { all: self.notes.all(), logged: true });
        if hook != Hook::Tc && self.devices.has_peer_on_this_machine(ifindex) {
            // It may be as it should; nothing shows from here whether it is.
            info!("{bond}: {name}: {}", text::PARTIAL_CHECKSUMS);
        }
    }

    /// Has slaves leave through which frames go round, since bond0 was made a port of something: the kernel would refuse
    /// that with its own bonds (`__netdev_upper_dev_link`).
    async fn release_loops(&mut self, host: &LinkInfo) {
        let Host::Pair { bond, .. } = self.host else { return };
        if std::mem::replace(&mut self.checked_below, host.master) == host.master || host.master.is_none() {
            return;
        }
        // Hardware lies above nothing.
        let is_made = |(_, slave): &(&Slot, &SlaveDevice)| slave.found.kind.is_some();
        let slaves: Vec<_> = self.slaves.iter().filter(is_made).collect();
        if slaves.is_empty() {
            return;
        }
        let links = match self.devices.links(None).await {
            Ok(links) => links,
            Err(error) => return self.warn_of(Err(error)),
        };
        for (&slot, slave) in slaves {
            let senders = topology::sends_by(slave.ifindex, &links, Pairs::Followed);
            if senders.iter().any(|sender| sender.ifindex == bond) {
                self.recording.warn(text::goes_round(&slave.name, &self.bond));
                self.engine.event(self.id, Event::Leave { slot });
            }
        }
    }

    /// Warns once of a bridge above a bond that delivers what backups receive.
    async fn warn_of_bridge(&mut self, link: &LinkInfo) {
        let all = self.mirror.bond().has(BondEntry::ALL_SLAVES_ACTIVE);
        let master = link.master.filter(|_| all && matches!(self.host, Host::Pair { .. }));
        if self.warned_of == master {
            return;
        }
        self.warned_of = master;
        let Some(master) = master else { return };
        match self.devices.link_by_index(master).await {
            Ok(bridge) if bridge.kind.as_deref() == Some("bridge") => {
                warn!("{}: {}", self.bond, text::all_slaves_active_below(&bridge.name));
            }
            _ => {}
        }
    }

    /// Writes down how an interface is, until it is what was written: it may change meanwhile.
    async fn record_found(&mut self, mut found: Found) -> Result<Found, AgentError> {
        /// One whose routes change all the time is enslaved nevertheless.
        const READINGS: usize = 5;
        // It comes again, and gets back at the end what it had at first.
        if let Some(known) = self.record.released_giver().filter(|known| known.ifindex == found.ifindex) {
            let found = Found { name: found.name, unicast: found.unicast, ..known.clone() };
            self.record.add(found.clone())?;
            return Ok(found);
        }
        // What the bond took from it already is not there any more.
        if let Some(known) = self.record.slave(found.ifindex) {
            found.layer3 = Arc::clone(&known.layer3);
            self.record.add(found.clone())?;
            return Ok(found);
        }
        // It could not be restored when it left, and is as the bond left it.
        if let Some(known) = self.record.away().iter().find(|known| known.ifindex == found.ifindex)
            && self.record.mark().is_on(&self.devices.link_by_index(found.ifindex).await?)
        {
            let found = Found { name: found.name, unicast: found.unicast, ..known.clone() };
            self.record.add(found.clone())?;
            self.record.returned(found.ifindex)?;
            return Ok(found);
        }
        self.record.add(found.clone())?;
        for _ in 0..READINGS {
            match self.devices.observe_again(&found).await {
                Ok(None) => break,
                Ok(Some(changed)) => found = changed,
                Err(error) => {
                    self.record.remove(found.ifindex)?;
                    return Err(error.into());
                }
            }
            self.record.add(found.clone())?;
        }
        Ok(found)
    }

    /// All of it, or nothing.
    async fn set_up(
        &mut self,
        slot: Slot,
        name: &str,
        found: &Found,
        plan: &EnslavePlan,
    ) -> Result<LinkInfo, NotSetUp> {
        self.devices.enslave(found, plan, &self.record.mark()).await.map_err(|error| {
            let is_undone = !matches!(error, SysError::NotUndone { .. });
            NotSetUp { error: error.into(), is_undone }
        })?;
        // While it is closed: in between the host's own stack would answer on it for bond0's addresses.
        let attached = waiting(|| self.data_plane.attach_slave(slot, name, found.ifindex));
        let answer = match attached {
            Ok(()) => {
                self.announcer_task.prepare(slot, found.ifindex);
                self.devices.open_slave(found.ifindex).await.map_err(AgentError::from)
            }
            Err(error) => Err(error.into()),
        };
        let error = match answer {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        let proof = Ownership::new(self.record.mark(), [found.ifindex]);
        let mut is_undone = true;
        for undone in [
            self.devices.close_to_restore(found, &proof).await.map_err(AgentError::from),
            waiting(|| self.data_plane.detach_slave(slot)).map_err(AgentError::from),
            self.devices.restore(found, &proof).await.map(drop).map_err(AgentError::from),
        ] {
            if let Err(error) = undone {
                is_undone = false;
                warn!("{}: {name}: {}", self.bond, text::not_restored_yet(&error));
            }
        }
        Err(NotSetUp { error, is_undone })
    }

    async fn release(&mut self, slot: Slot, mac: Option<Mac>) {
        let answer = self.try_release(slot, mac).await;
        match (self.leaving.remove(&slot), answer) {
            (Some(reply), answer) => {
                let _ = reply.send(answer);
            }
            (None, Err(error)) => warn!("{}: {error}", self.bond),
            (None, Ok(())) => {}
        }
    }

    /// Every step is tried; the first error is the answer.
    async fn try_release(&mut self, slot: Slot, mac: Option<Mac>) -> Result<(), AgentError> {
        let proof = self.proof();
        let Some(slave) = self.slaves.remove(&slot) else { return Ok(()) };
        self.announcer_task.forget(slot);
        // The record knows the MACs of devices above bond0 that it was given since it was found.
        let found = self.record.slave(slave.ifindex).unwrap_or(&slave.found);
        let closed = self.devices.close_to_release(found, &proof).await;
        let detached = waiting(|| self.data_plane.detach_slave(slot));
        let released = self.devices.release(found, mac, &proof).await;
        if self.record.has_addresses_of(slave.ifindex) {
            warn!(
                "{}: the addresses and routes of {} stay on the bond; it gets them back when the bond is removed",
                self.bond, slave.name
            );
            // By its alias the kernel confirms at the end that it is to get them.
            let mark = self.record.mark();
            let marked = self.devices.set_alias(slave.ifindex, Some(mark.alias())).await;
            self.warn_of(marked.map(drop));
        }
        let recorded = match &released {
            Ok(PutBack::Unconfirmed(link)) if link.looks_enslaved => self.record.depart(slave.ifindex),
            Ok(_) => self.record.remove(slave.ifindex),
            // How it was found is still needed.
            Err(_) => self.record.depart(slave.ifindex),
        };
        closed?;
        detached?;
        released?;
        Ok(recorded?)
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(reply) = self.leaving.remove(&slot) {
            let _ = reply.send(Ok(()));
        }
        let Some(slave) = self.slaves.remove(&slot) else { return };
        self.announcer_task.forget(slot);
        warn!("{}: {}: the interface is gone", self.bond, slave.name);
        if let Err(error) = waiting(|| self.data_plane.detach_slave(slot)) {
            warn!("{}: {error}", self.bond);
        }
        if let Err(error) = self.record.depart(slave.ifindex) {
            warn!("{}: {error}", self.bond);
        }
    }

    /// What was a slave comes back from another network namespace as it was in the bond, which it left without being
    /// released: it is put back as it was found then, and may join anew.
    async fn appeared(&mut self, interfaces: &Interfaces, links: &[LinkInfo]) -> Result<(), AgentError> {
        let is_slave = |link: &&LinkInfo| self.slaves.values().any(|slave| slave.ifindex == link.ifindex);
        let (slaves, others): (Vec<_>, Vec<_>) =
            links.iter().filter(|link| interfaces.contains(link.ifindex)).partition(is_slave);
        for link in slaves {
            // It was restored before it joined again; how it was found then is in its own record.
            if let Some(ifindex) = self.away(link).map(|found| found.ifindex) {
                self.record.returned(ifindex)?;
            }
        }
        for link in others {
            self.take_back(link).await?;
        }
        Ok(())
    }

    /// Restores an interface if it was a slave that went away.
    async fn take_back(&mut self, link: &LinkInfo) -> Result<(), AgentError> {
        /// Of an interface that refuses what it had: closing it is an event that leads here again.
        const ATTEMPTS: u32 = 3;
        let Some(found) = self.away(link).cloned() else { return Ok(()) };
        let attempts = self.unrestored.entry(link.ifindex).or_default();
        *attempts += 1;
        if *attempts > ATTEMPTS {
            return Ok(());
        }
        // Only its alias came back with it: no program of the bond is attached to it.
        match self.devices.restore(&found, &Ownership::new(self.record.mark(), [])).await? {
            PutBack::Done if link.name != found.name => {
                info!(
                    "{}: {}: is back, renamed to {}, and as it was found",
                    self.bond, found.name, link.name
                );
            }
            PutBack::Done => info!("{}: {}: is back, and as it was found", self.bond, found.name),
            PutBack::Gone => {}
            PutBack::Unconfirmed(link) => {
                self.recording.warn(text::unconfirmed(&self.bond, &link.name));
                if link.looks_enslaved {
                    return Ok(());
                }
            }
        }
        self.unrestored.remove(&link.ifindex);
        // Now, and not before: an agent that dies between the two leaves it to the next one.
        Ok(self.record.returned(found.ifindex)?)
    }

    /// How an interface was found that was a slave and went away.
    fn away(&self, link: &LinkInfo) -> Option<&Found> {
        let is_it = |found: &&Found| {
            let is_there_again = found.ifindex == link.ifindex && found.lower == Lower::of(link);
            is_there_again || self.devices.is_returned(link, found)
        };
        self.record.away().iter().find(is_it)
    }

    fn read_speed(&self, slot: Slot, number: u32) {
        let Some(slave) = self.slaves.get(&slot) else { return };
        let (speed, duplex) = waiting(|| self.devices.speed(slave.ifindex));
        self.engine.send(Input::Speed { bond: self.id, slot, number, speed, duplex });
    }

    async fn read_links(&self) {
        let mut links = Vec::new();
        for (&slot, slave) in &self.slaves {
            let up = match self.devices.link_by_index(slave.ifindex).await {
                Ok(link) => link.has_link(),
                // A link event tells what became of it.
                Err(error) if error.is_gone() => false,
                // Nothing is known: it stays as it was.
                Err(error) => {
                    self.recording.warn(format!("{}: its link cannot be read: {error}", slave.name));
                    continue;
                }
            };
            let (speed, duplex) = waiting(|| self.devices.speed(slave.ifindex));
            links.push((slot, Link { speed, duplex, ..Link::new(up) }));
        }
        self.engine.event(self.id, Event::Links(links));
    }

    /// Has the slaves receive what devices above bond0 want to receive, macvlans for example: bond0 knows it
    /// (`dev_uc_sync`), the slaves do not. What does not take a further MAC becomes promiscuous.
    async fn receive_for_uppers(&mut self) -> Result<(), AgentError> {
        let Host::Pair { bond, .. } = self.host else { return Ok(()) };
        let devices = &*self.devices;
        let mut wanted = devices.unicast(bond).await?;
        wanted.extend(self.prearmed);
        if wanted == self.further_macs {
            return Ok(());
        }
        // Whoever takes the bond down takes these away, too.
        self.record.set_unicast(&wanted)?;
        for slave in self.slaves.values() {
            for &mac in wanted.iter().filter(|mac| !self.further_macs.contains(mac)) {
                match devices.add_unicast(slave.ifindex, mac).await {
                    Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                        devices.set(slave.ifindex, LinkSetting::Promisc(true)).await?;
                    }
                    answer => answer?,
                }
            }
            for &mac in self.further_macs.iter().filter(|mac| !wanted.contains(mac)) {
                devices.del_unicast(slave.ifindex, mac).await?;
            }
        }
        self.further_macs = wanted;
        Ok(())
    }

    async fn set_slave_mac(&self, slot: Slot, mac: Mac) -> bool {
        let Some(slave) = self.slaves.get(&slot) else { return false };
        let answer = self.devices.set(slave.ifindex, LinkSetting::Mac(mac)).await;
        let done = answer.is_ok();
        self.warn_of(answer.map(drop));
        done
    }

    /// While the kernel changes it, packets read bond0's MAC from the device (see [`BondEntry::HOST_MAC_MOVES`]),
    /// and bond0 takes those that were rewritten before.
    async fn set_bond_mac(&mut self, mac: Mac) -> bool {
        let Host::Pair { bond, .. } = self.host else {
            // Whoever is behind a port keeps their MAC; packets translate.
            return true;
        };
        let accepted = self.accept_former_macs(bond).await;
        self.mirror.update_bond(|bond| bond.with_flags(bond.flags() | BondEntry::HOST_MAC_MOVES));
        let answer = waiting(|| self.macs.set_mac(bond, mac));
        self.mirror.update_bond(|bond| {
            let bond = bond.with_flags(bond.flags() & !BondEntry::HOST_MAC_MOVES);
            if answer.is_ok() { bond.with_host_mac(mac) } else { bond }
        });
        self.settling = Some(tokio::spawn(async move {
            tokio::time::sleep(UNDER_WAY).await;
            waiting(|| drop(accepted));
        }));
        match answer {
            Ok(()) => true,
            // bond0 was moved into another namespace: it keeps its MAC, and packets translate.
            Err(error) if error.is_gone() => true,
            Err(error) => {
                self.warn_of(Err(error));
                false
            }
        }
    }

    /// Until the answer is dropped.
    async fn accept_former_macs(&mut self, bond: u32) -> Option<FormerMacs> {
        if let Some(settling) = self.settling.take() {
            settling.abort();
            // It is detached when the task is gone.
            let _ = settling.await;
        }
        // A bond0 that was moved into another namespace keeps its MAC.
        let name = self.devices.name_of(bond)?;
        waiting(|| self.data_plane.accept_former_macs(&name)).unwrap_or_else(|error| {
            warn!("{}: a frame may be lost while its MAC changes: {error}", self.bond);
            None
        })
    }

    /// Where no events tell of addresses, or one is still to be looked at, they are read after the first announcement: it
    /// does not wait for that.
    async fn announced(&mut self, told: Told) {
        let Told { slot, ifindex, mac, frames } = told;
        let Some(known) = frames else { return };
        let is_old = self.announced.elsewhere || self.is_above_old;
        if is_old || self.wanted.link_events == LinkEventSource::Off {
            self.read_addresses().await;
            let frames = announcer_task::frames(self.host, &self.announced, mac);
            if frames != known {
                self.announcer_task.send(slot, ifindex, frames);
            }
        }
    }

    /// Whether the addresses of an interface are: a VLAN that is new has told of itself before.
    fn is_announced(&self, ifindex: u32) -> bool {
        ifindex == self.host.device() || self.announced.uppers.iter().any(|upper| upper.ifindex == ifindex)
    }

    async fn read_addresses(&mut self) {
        let Host::Pair { port, .. } = self.host else { return };
        match announcer::addresses_behind(&*self.devices, port).await {
            Ok(announced) => {
                self.announced = announced;
                self.announcer_task.know(self.announced.clone());
            }
            Err(error) => self.warn_of(Err(error)),
        }
    }

    async fn report(&mut self, slot: Slot, mac: Mac) -> Result<(), SysError> {
        // Which groups somebody behind a port has joined is not known.
        let Host::Pair { port, .. } = self.host else { return Ok(()) };
        let Some(ifindex) = self.slaves.get(&slot).map(|slave| slave.ifindex) else { return Ok(()) };
        let frames = membership::reports_behind(&*self.devices, port, mac).await?;
        self.announcer_task.send(slot, ifindex, frames);
        Ok(())
    }

    /// Somebody, too, if it is not known whom the bond talks to: its host is behind a port, or elsewhere.
    async fn ask_neighbours(&self) -> Asked {
        let Host::Pair { bond, .. } = self.host else { return Asked::Somebody };
        match self.devices.ask_neighbours(bond).await {
            Ok(0) => Asked::Nobody,
            Ok(_) => Asked::Somebody,
            Err(error) => {
                self.warn_of(Err(error));
                Asked::Somebody
            }
        }
    }

    fn write_options(&self, options: &BondOptions) {
        let guard = GuardState::new(self.wanted.guard, self.data_plane.kernel(), options);
        self.mirror.update_bond(|bond| {
            let flags = bond.flags() & !OPTION_FLAGS | option_flags(options, guard);
            bond.with_flags(flags).with_policy(options.fail_over_mac)
        });
    }

    /// What people do to bond0 goes on to the slaves, as the driver's ndo_change_mtu and ndo_set_rx_mode do.
    async fn host_changed(&mut self, link: &LinkInfo) {
        if !link.mac.is_zero()
            && link.mac != self.mirror.bond().host_mac()
            && matches!(self.host, Host::Pair { .. })
        {
            // Set by hand: packets translate between it and the wire until the engine has said what becomes of it.
            self.mirror.update_bond(|bond| bond.with_host_mac(link.mac));
            self.engine.event(self.id, Event::BondMacFound { mac: link.mac });
        }
        if matches!(self.host, Host::Pair { .. }) && link.name != self.device_name {
            self.device_name.clone_from(&link.name);
            let (bond, device) = (&self.bond, &link.name);
            warn!(
                "{bond}: its device is called {device} now; xbond, its files and its commands say {bond} as before"
            );
        }
        if link.mtu != self.mtu {
            self.mtu = link.mtu;
            for ifindex in self.slaves.values().map(|slave| slave.ifindex).chain([self.host.port()]) {
                let answer = self.devices.set_mtu_of_member(ifindex, link.mtu).await;
                self.warn_of(answer.map(drop));
            }
        }
        let promisc = link.promiscuity > 0;
        if promisc != self.host.promisc() {
            self.host.set_promisc(promisc);
            for slave in self.slaves.values() {
                let wanted = promisc || slave.found.promisc;
                let answer = self.devices.set(slave.ifindex, LinkSetting::Promisc(wanted)).await;
                self.warn_of(answer.map(drop));
            }
        }
    }

    /// Of all devices, in an order in which none of them is ever given a frame larger than its MTU.
    async fn set_mtu(&mut self, mtu: u32) -> Result<(), AgentError> {
        let slaves = self.slaves.values().map(|slave| slave.ifindex);
        let mut devices: Vec<_> = slaves.chain([self.host.port()]).collect();
        if let Host::Pair { bond, .. } = self.host {
            devices.push(bond);
        }
        if mtu < self.mtu {
            devices.reverse();
        }
        let former = std::mem::replace(&mut self.mtu, mtu);
        for (place, &device) in devices.iter().enumerate() {
            let Err(error) = self.set_mtu_of(device, mtu).await else { continue };
            for &done in devices[..place].iter().rev() {
                let answer = self.set_mtu_of(done, former).await;
                self.warn_of(answer.map(drop));
            }
            self.mtu = former;
            return Err(error.into());
        }
        Ok(())
    }

    async fn set_mtu_of(&self, device: u32, mtu: u32) -> Result<LinkInfo, SysError> {
        match self.host {
            Host::Pair { bond, .. } if bond == device => {
                self.devices.set(device, LinkSetting::Mtu(mtu)).await
            }
            _ => self.devices.set_mtu_of_member(device, mtu).await,
        }
    }

    /// Returns the slaves that are not in this network namespace, and are not restored.
    async fn tear_down(mut self) -> Result<Vec<Found>, AgentError> {
        let proof = self.proof();
        let absent = self.record.absent(&*self.devices).await;
        let data_plane = self.data_plane;
        let detach = async move || waiting(|| data_plane.remove()).map_err(crate::store::StoreError::from);
        let answer = self.record.restore(&*self.devices, &proof, detach).await;
        for left in self.record.settle(answer)? {
            warn!("{}: {}", self.bond, text::unconfirmed(&self.bond, &left.name));
        }
        Ok(absent)
    }

    /// The interfaces that this task knows to be the bond's: it made them that, or adopted them from what the kernel has.
    fn proof(&self) -> Ownership {
        let ends = [self.host.device(), self.host.port()];
        Ownership::new(self.record.mark(), self.slaves.values().map(|slave| slave.ifindex).chain(ends))
    }

    fn warn_of_restored(&self, map: &str) {
        let text = format!("BPF map {map} was modified by another process; restored");
        self.recording.add(Entry::Restored(text));
    }

    fn warn_of(&self, answer: Result<(), SysError>) {
        match answer {
            // Gone devices are told by link events.
            Err(error) if !error.is_gone() => self.recording.warn(error.to_string()),
            _ => {}
        }
    }
}

/// What waits for RTNL inside a system call, for as long as somebody else has it: other tasks go on meanwhile.
pub(super) fn waiting<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// The flags of [`BondEntry`] that say what the options are.
const OPTION_FLAGS: u32 = BondEntry::ALL_SLAVES_ACTIVE
    | BondEntry::MONITOR
    | BondEntry::VALIDATE_ACTIVE
    | BondEntry::VALIDATE_BACKUP
    | BondEntry::FILTER
    | BondEntry::GUARD;

/// What packets have to know of the options.
pub fn option_flags(options: &BondOptions, guard: GuardState) -> u32 {
    let validate = options.arp_validate;
    [
        (options.all_slaves_active, BondEntry::ALL_SLAVES_ACTIVE),
        (options.arp_interval > 0, BondEntry::MONITOR),
        (validate.validates_active(), BondEntry::VALIDATE_ACTIVE),
        (validate.validates_backup(), BondEntry::VALIDATE_BACKUP),
        (validate.filters(), BondEntry::FILTER),
        (guard == GuardState::On, BondEntry::GUARD),
    ]
    .into_iter()
    .fold(0, |flags, (on, flag)| if on { flags | flag } else { flags })
}

/// The hook that a configuration means.
pub fn hook(datapath: crate::config::Datapath, has_port: bool) -> Hook {
    use crate::config::Datapath;
    match datapath {
        Datapath::Auto if has_port => Hook::Xdp,
        Datapath::Auto | Datapath::Tc => Hook::Tc,
        Datapath::Xdp => Hook::Xdp,
        Datapath::XdpGeneric => Hook::XdpGeneric,
    }
}
