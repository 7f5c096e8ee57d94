//! The worker of a bond: what takes time, over netlink and in found.json. One task per bond does it in the order of its
//! [`work`](crate::agent::bond::work), and answers with events.
//!
//! [`enslave`] and [`release`] are the halves of a membership, [`macs`] changes MAC
//! addresses, [`reads`] reads and sends what the engine's clocks ask for, [`pending`] reads what may
//! have changed, [`options`] is about options and the MTU. [`repair`] restores what other
//! processes have changed on the path of the packets.

mod enslave;
mod macs;
mod options;
mod pending;
mod reads;
mod release;
mod repair;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use bond_common::{abi::Slot, mac::Mac};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    agent::{
        AgentError, LinkEventSource,
        bond::{
            announcer::Announcing,
            clock::ClockKeeper,
            engine_handle::{BondId, EngineHandle},
            interface::Host,
            path_check::PathCheck,
            recorder::{Entry, Recording},
            waiting,
            work::{End, Job, Jobs, Request, Urgent, WeakWorkQueue},
        },
    },
    config::Guard,
    report::{log, wording},
    store::{StoreError, record::Record},
    sys::{
        Devices, SysError,
        announcer::Announced,
        dataplane::{DataPlane, Hook, MapMirror},
        devices::ChangeMacs,
        found::Found,
        netlink::LinkSetting,
        ownership::Ownership,
    },
};

pub use self::options::option_flags;

/// A slave, as this task needs it.
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

/// The task's state.
pub struct Worker {
    pub(super) id: BondId,
    pub(super) bond: String,
    /// The name of bond0's device, where that is ours: it may be renamed.
    pub(super) device_name: String,
    pub(super) devices: Arc<dyn Devices>,
    macs: Box<dyn ChangeMacs>,
    pub(super) data_plane: Box<dyn DataPlane>,
    pub(super) mirror: Arc<MapMirror>,
    pub(super) host: Host,
    /// Bytes, of every device of the bond.
    pub(super) mtu: u32,
    engine: EngineHandle,
    record: Record,
    pub(super) recording: Recording,
    pub(super) own_work: WeakWorkQueue,
    pub(super) path_lane: Arc<Mutex<()>>,
    pub(super) hook_changes: Arc<AtomicU64>,
    pub(super) wanted: OwnSettings,
    /// What is announced, as it was when something of it changed last.
    announced: Announced,
    announcer: Announcing,
    /// What the bond's carrier is to be: the port is up or down.
    pub(super) carrier: bool,
    pub(super) is_changed: Arc<AtomicBool>,
    pub(super) slaves: BTreeMap<Slot, SlaveDevice>,
    /// How many times it was tried to restore an interface that is no slave any more, by ifindex.
    unrestored: BTreeMap<u32, u32>,
    /// MAC addresses that slaves receive in addition to their own: those of devices above bond0, and with prearm the bond's.
    pub(super) further_macs: Vec<Mac>,
    /// What is announced has changed, or may have, since it was read.
    is_above_old: bool,
    /// With prearm, once there is a slave: the bond's MAC address.
    prearmed: Option<Mac>,
    pub(super) path: PathCheck,
    clock: ClockKeeper,
    /// Ends the time in which bond0 takes frames with its former MAC address.
    settling: Option<JoinHandle<()>>,
    /// The device above bond0 of which [`Self::warn_of_bridge`] knows already.
    warned_of: Option<u32>,
    /// The master of bond0 for which [`Self::release_loops`] has checked.
    checked_below: Option<u32>,
    /// Of which bond0 is a port, as it was read last.
    master: Option<u32>,
}

/// The parts of a [`Worker`] that bring-up makes.
pub struct Parts {
    pub id: BondId,
    pub bond: String,
    pub devices: Arc<dyn Devices>,
    /// For the one change that must not take long: bond0's MAC address.
    pub macs: Box<dyn ChangeMacs>,
    pub data_plane: Box<dyn DataPlane>,
    /// What BOND holds.
    pub mirror: Arc<MapMirror>,
    pub host: Host,
    /// Bytes, of every device of the bond.
    pub mtu: u32,
    pub engine: EngineHandle,
    pub record: Record,
    pub recording: Recording,
    /// To have more done by this task.
    pub own_work: WeakWorkQueue,
    /// Held while the path of one bond is read.
    pub path_lane: Arc<Mutex<()>>,
    /// The count of changes of filters and chains on this machine, which [`crate::sys::hook_events`] increments.
    pub hook_changes: Arc<AtomicU64>,
    pub wanted: OwnSettings,
    /// What is announced.
    pub announced: Announced,
    pub announcer: Announcing,
    /// Whether the bond has carrier.
    pub carrier: bool,
    /// Set at each event of a device of the bond.
    pub is_changed: Arc<AtomicBool>,
    pub clock: ClockKeeper,
}

/// What is configured beyond the driver's options.
#[derive(Clone, Copy, Debug)]
pub struct OwnSettings {
    pub guard: Guard,
    /// fail_over_mac=follow: every slave receives the bond's MAC address.
    pub prearm: bool,
    pub link_events: LinkEventSource,
}

impl Worker {
    /// `left` are the slaves that another agent has left, with their original states.
    pub fn new(parts: Parts, left: Vec<(Slot, Found)>) -> Self {
        let further_macs = left.first().map(|(_, found)| found.unicast.clone()).unwrap_or_default();
        let wire_mac = |(slot, _): &(Slot, Found)| parts.mirror.slave(*slot).wire_mac();
        let prearmed = left.first().filter(|_| parts.wanted.prearm).map(wire_mac);
        Self {
            id: parts.id,
            device_name: parts.bond.clone(),
            bond: parts.bond,
            devices: parts.devices,
            macs: parts.macs,
            data_plane: parts.data_plane,
            mirror: parts.mirror,
            host: parts.host,
            mtu: parts.mtu,
            engine: parts.engine,
            record: parts.record,
            recording: parts.recording,
            own_work: parts.own_work,
            path_lane: parts.path_lane,
            hook_changes: parts.hook_changes,
            wanted: parts.wanted,
            announced: parts.announced,
            announcer: parts.announcer,
            carrier: parts.carrier,
            is_changed: parts.is_changed,
            slaves: left.into_iter().map(|(slot, found)| (slot, SlaveDevice::new(found))).collect(),
            unrestored: BTreeMap::new(),
            further_macs,
            is_above_old: false,
            prearmed,
            path: PathCheck::default(),
            clock: parts.clock,
            settling: None,
            warned_of: None,
            checked_below: None,
            master: None,
        }
    }

    /// Runs until it receives the end.
    pub async fn run(mut self, mut jobs: Jobs) {
        for (slot, slave) in &self.slaves {
            self.announcer.prepare(*slot, slave.ifindex);
        }
        let learned = std::mem::take(&mut self.announced.learned);
        self.remember_learned(learned);
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
                    if let Some(clock) = self.mirror.maps().clock() {
                        // Ticks need not wait until they take the agent for absent.
                        clock.note_agent(0);
                    }
                    self.data_plane.keep();
                    let _ = reply.send(());
                    return;
                }
                Job::Urgent(job) => {
                    self.is_above_old = jobs.wants_look_above();
                    self.do_urgent(job).await;
                }
                Job::Read(reads) => self.read(reads).await,
                Job::Request(request) => {
                    self.is_above_old = jobs.wants_look_above();
                    self.do_request(request).await;
                }
                Job::Check(pending) => self.check_pending(pending, &jobs).await,
            }
        }
        self.recording.finish().await;
        self.keep_record();
    }

    async fn do_urgent(&mut self, job: Urgent) {
        match job {
            Urgent::SetMac(change) => self.set_mac(change).await,
            Urgent::SetCarrier(up) => {
                self.carrier = up;
                let answer = self.devices.set(self.host.port(), LinkSetting::Up(up)).await;
                self.warn_of(answer.map(drop));
                self.recording.add(Entry::Carrier(up));
            }
            Urgent::SetOptions(options) => self.set_options(&options).await,
            Urgent::SetGuard(guard) => self.wanted.guard = guard,
            Urgent::SetClock(wanted) => {
                self.clock.want(wanted);
                self.keep_clock().await;
            }
            Urgent::Announced(round) => self.announced(*round).await,
        }
    }

    async fn do_request(&mut self, request: Request) {
        match request {
            Request::Enslave(enslave) => self.enslave(enslave).await,
            Request::Release { slot, mac, reply } => self.release(slot, mac, reply).await,
            Request::Forget { slot, reply } => self.forget(slot, reply),
            Request::SetMac(change) => self.set_mac(change).await,
            Request::WarnOfMaster { slot, master } => self.warn_of_master(slot, master).await,
            Request::TidyRecord { reply } => {
                let _ = reply.send(self.tidy_record().await);
            }
            Request::RecordConfigured { configured, reply } => {
                let _ = reply.send(self.record.set_configured(configured).map_err(AgentError::from));
            }
            Request::RecordTrial { trial, reply } => {
                let _ = reply.send(self.record.set_trial(trial).map_err(AgentError::from));
            }
            Request::SetMtu { mtu, reply } => {
                let _ = reply.send(self.set_mtu(mtu).await);
            }
            Request::RepairPath(seen) => self.repair_path(*seen).await,
            Request::Settle { reply } => self.recording.add(Entry::Reached(reply)),
            Request::AwaitRecords { reply } => self.recording.add(Entry::Await(reply)),
        }
    }

    /// Leaves found.json to the next agent or `xbond down`, also if another process has removed it since the last check.
    fn keep_record(&self) {
        if !self.record.is_written() {
            self.write_record_again();
        }
    }

    /// Without found.json no other agent could adopt the bond, and no command restore its slaves.
    fn write_record_again(&self) {
        self.recording.warn(match self.record.write_again() {
            Ok(()) => wording::record_restored(),
            Err(error) => wording::record_removed(error),
        });
    }

    /// Another process has unmounted bpffs, or removed files in it: only this agent holds the programs at their hooks now. Or
    /// it is mounted again.
    fn pins_changed(&mut self, pinned: bool) {
        if pinned {
            log::of(&self.bond).info(wording::pins_exist_again());
        } else if !self.check_maps() {
            self.recording.warn(wording::PINS_GONE);
        }
    }

    /// Returns the slaves that are not in this network namespace, and are not restored.
    async fn tear_down(mut self) -> Result<Vec<Found>, AgentError> {
        let proof = self.proof();
        let absent = self.record.absent(&*self.devices).await;
        let data_plane = self.data_plane;
        let detach = async move || waiting(|| data_plane.remove()).map_err(StoreError::from);
        let answer = self.record.restore(&*self.devices, &proof, detach).await;
        for left in self.record.settle(answer)? {
            log::of(&self.bond).warn(wording::unconfirmed(&self.bond, &left.name));
        }
        Ok(absent)
    }

    /// Returns the interfaces that this task knows to be the bond's: it made them that, or adopted them from what the kernel
    /// has.
    fn proof(&self) -> Ownership {
        let ends = [self.host.device(), self.host.port()];
        let slaves = self.slaves.values().map(|slave| slave.ifindex);
        Ownership::new(self.record.mark(), slaves.chain(ends))
    }

    /// Logs an error. A device that is gone is none: a link event reports it.
    fn warn_of(&self, answer: Result<(), SysError>) {
        if let Err(error) = answer
            && !error.is_gone()
        {
            self.recording.warn(error.to_string());
        }
    }
}

/// Returns the hook that a configuration means.
pub fn hook(datapath: crate::config::Datapath, has_port: bool) -> Hook {
    use crate::config::Datapath;
    match datapath {
        Datapath::Auto if has_port => Hook::Xdp,
        Datapath::Auto | Datapath::Tc => Hook::Tc,
        Datapath::Xdp => Hook::Xdp,
        Datapath::XdpGeneric => Hook::XdpGeneric,
    }
}
