//! Announces the bond to its neighbours. Until then their packets are lost, so this is a task of its own, in which nothing
//! waits for RTNL: what is announced was read before, by the worker.

use std::{collections::HashMap, sync::Arc};

use bond_common::{
    abi::{ActiveWord, Slot},
    clock::layout::AnnounceList,
    mac::Mac,
};
use bond_core::{Time, event::Event};
use bytes::BytesMut;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::{
    agent::bond::{
        engine_thread::{BondId, EngineHandle},
        interface::Host,
        missed_failovers::TickRound,
        recorder::{Entry, Recording},
        work::{Urgent, WeakWorkQueue},
    },
    report::{
        moment::monotonic,
        receipt::{Announcement, Announcer},
    },
    sys::{
        Devices, SysError,
        announcer::{self, Announced},
        dataplane::{ClockMaps, MapMirror, Maps},
        devices::SendFrames,
    },
};

/// Rounds and frames that may wait to be sent. To send one takes microseconds.
const WAITING: usize = 64;

/// What the task receives.
enum Input {
    /// A round of announcements, by this slave.
    Announce { slot: Slot, ifindex: u32, mac: Mac },
    /// Further frames, by this slave.
    Send { slot: Slot, ifindex: u32, frames: Vec<BytesMut> },
    /// It is a slave from now on.
    Prepare { slot: Slot, ifindex: u32 },
    /// It is no slave any more.
    Forget { slot: Slot },
}

/// How others reach the task. None of it waits.
#[derive(Clone)]
pub struct Announcing {
    inputs: mpsc::Sender<Input>,
    known: watch::Sender<Announced>,
}

/// The task's ends of [`Announcing`].
pub struct AnnounceOrders {
    inputs: mpsc::Receiver<Input>,
    known: watch::Receiver<Announced>,
}

impl Announcing {
    /// `announced` is what is known already of what is to be announced.
    pub fn new(announced: Announced) -> (Self, AnnounceOrders) {
        let (inputs, received) = mpsc::channel(WAITING);
        let (known, to_announce) = watch::channel(announced);
        (Self { inputs, known }, AnnounceOrders { inputs: received, known: to_announce })
    }

    /// Has this announced from now on.
    pub fn know(&self, announced: Announced) {
        let _ = self.known.send_replace(announced);
    }

    /// Has a round sent. False if the task is so far behind that it will not be.
    #[must_use]
    pub fn announce(&self, slot: Slot, ifindex: u32, mac: Mac) -> bool {
        self.inputs.try_send(Input::Announce { slot, ifindex, mac }).is_ok()
    }

    /// Has further frames sent, if the task is not too far behind.
    pub fn send(&self, slot: Slot, ifindex: u32, frames: Vec<BytesMut>) {
        if self.inputs.try_send(Input::Send { slot, ifindex, frames }).is_err() {
            debug!("frames by the slave with ifindex {ifindex} are not sent: too many wait");
        }
    }

    /// It is a slave from now on: its sockets are opened, for which there may be no descriptor left at a failover.
    pub fn prepare(&self, slot: Slot, ifindex: u32) {
        let _ = self.inputs.try_send(Input::Prepare { slot, ifindex });
    }

    /// It is no slave any more. A socket that stays open meanwhile is replaced when another slave has the slot.
    pub fn forget(&self, slot: Slot) {
        let _ = self.inputs.try_send(Input::Forget { slot });
    }
}

/// A round that was sent, or could not be.
pub struct SentRound {
    pub slot: Slot,
    pub ifindex: u32,
    pub mac: Mac,
    /// None if the slave was not active any more.
    pub frames: Option<Vec<BytesMut>>,
}

/// The task's state. It ends when all senders are dropped.
pub struct AnnouncerTask {
    pub id: BondId,
    pub host: Host,
    pub mirror: Arc<MapMirror>,
    pub devices: Arc<dyn Devices>,
    pub engine: EngineHandle,
    /// Weak: the worker ends when all others have dropped theirs.
    pub work: WeakWorkQueue,
    pub recording: Recording,
    /// With the ifindex that each is for. Open as long as it is a slave: to close one takes the kernel a while.
    pub sockets: HashMap<Slot, (u32, Box<dyn SendFrames>)>,
    pub rounds: Rounds,
}

/// The rounds of announcements of one failover that this agent has sent, or knows that the tick has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// [`ActiveWord::switches`] of the failover.
    switches: u8,
    number: u8,
}

impl Rounds {
    /// Returns the rounds that were sent before this agent began: it announces an adopted bond once more.
    pub fn before(maps: &Maps) -> Self {
        let turn = maps.clock().map(|clock| clock.ticks().turn).unwrap_or_default();
        Self { switches: turn.switches(), number: turn.rounds() }
    }

    /// Returns the number of the next round of the failover to `word`, from 1.
    fn next(&mut self, word: ActiveWord) -> u8 {
        if self.switches != word.switches() {
            *self = Self { switches: word.switches(), number: 0 };
        }
        self.number = self.number.saturating_add(1);
        self.number
    }
}

impl AnnouncerTask {
    pub async fn run(mut self, mut orders: AnnounceOrders) {
        self.prepare_tick(&orders.known.borrow_and_update());
        loop {
            let input = tokio::select! {
                biased;
                input = orders.inputs.recv() => match input {
                    Some(input) => input,
                    None => return,
                },
                Ok(()) = orders.known.changed() => {
                    self.prepare_tick(&orders.known.borrow_and_update());
                    continue;
                }
            };
            match input {
                Input::Announce { slot, ifindex, mac } => {
                    let frames = frames(self.host, &orders.known.borrow(), mac);
                    self.announce((slot, ifindex, mac), frames);
                    self.prepare_tick(&orders.known.borrow());
                }
                Input::Send { slot, ifindex, frames } => {
                    if self.is_active(slot)
                        && let (_, Err(error)) = self.send(slot, ifindex, &frames)
                    {
                        self.warn_of(&error);
                    }
                }
                Input::Prepare { slot, ifindex } => {
                    // What fails here is reported when there is something to send.
                    if self.sockets.get(&slot).is_none_or(|(of, _)| *of != ifindex)
                        && let Ok(socket) = self.devices.open_frames(ifindex)
                    {
                        self.sockets.insert(slot, (ifindex, socket));
                    }
                }
                Input::Forget { slot } => drop(self.sockets.remove(&slot)),
            }
        }
    }

    /// Has the tick announce the same when no agent does. It rewrites the source address as that of any frame of bond0.
    fn prepare_tick(&self, known: &Announced) {
        let host_mac = self.mirror.bond().host_mac();
        let mac = if host_mac.is_zero() { self.mirror.maps().learned() } else { host_mac };
        // Of a host that was not heard yet nothing is known.
        let frames = if mac.is_zero() { Vec::new() } else { frames(self.host, known, mac) };
        self.mirror.set_announcements(&frames);
    }

    /// Returns what the tick announces in the round that it has claimed, and when it claimed that. It may not have sent all
    /// frames yet.
    fn by_tick(&self) -> (Time, Announcement) {
        let maps = self.mirror.maps().clock();
        let ticks = maps.map(ClockMaps::ticks).unwrap_or_default();
        let planned = maps.map_or(0, |maps| AnnounceList::from_bits(maps.entry().list).count);
        let failed = u32::try_from(ticks.refused_of_round).unwrap_or(u32::MAX);
        let announcement = of_round(self.host, planned.saturating_sub(failed), failed, Announcer::Kernel);
        (Time::from_nanos(ticks.claimed_at), announcement)
    }

    /// Claims the next round, which the tick sends otherwise. False if the tick has claimed it.
    fn claim(&mut self) -> bool {
        let word = self.mirror.maps().active();
        let round = self.rounds.next(word);
        let now = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.mirror.maps().clock().is_none_or(|clock| clock.claim(word, round, now))
    }

    fn announce(&mut self, (slot, ifindex, mac): (Slot, u32, Mac), frames: Vec<BytesMut>) {
        let frames = Some(frames).filter(|_| self.is_active(slot));
        let is_ours = frames.is_none() || self.claim();
        let (sent, result) = match &frames {
            Some(frames) if is_ours => self.send(slot, ifindex, frames),
            Some(_) | None => (0, Ok(())),
        };
        let at = monotonic();
        // Once the engine knows of it, the record of the failover is about to be finished.
        if let Some(frames) = &frames {
            self.recording.add(if is_ours {
                Entry::Announced(at, announcement(self.host, frames.len(), sent))
            } else {
                let (at, announcement) = self.by_tick();
                Entry::TickAnnounces(at, announcement)
            });
        }
        if let Err(error) = result {
            self.warn_of(&error);
        }
        if let Some(work) = self.work.upgrade() {
            work.urgent(Urgent::Announced(Box::new(SentRound { slot, ifindex, mac, frames })));
        }
        self.engine.event(self.id, Event::Announced { slot });
    }

    /// Nothing is announced by a slave that is not active any more: neighbours would send to a port that delivers nothing.
    fn is_active(&self, slot: Slot) -> bool {
        self.mirror.maps().active().active() == Some(slot)
    }

    /// Sends frames up to the first that fails, and returns how many were sent.
    fn send(&mut self, slot: Slot, ifindex: u32, frames: &[BytesMut]) -> (usize, Result<(), SysError>) {
        if frames.is_empty() {
            return (0, Ok(()));
        }
        let socket = match self.sockets.remove(&slot) {
            Some((of, socket)) if of == ifindex => socket,
            _ => match self.devices.open_frames(ifindex) {
                Ok(socket) => socket,
                Err(error) => return (0, Err(error)),
            },
        };
        let failed =
            frames.iter().enumerate().find_map(|(sent, frame)| Some((sent, socket.send(frame).err()?)));
        self.sockets.insert(slot, (ifindex, socket));
        match failed {
            Some((sent, error)) => (sent, Err(error)),
            None => (frames.len(), Ok(())),
        }
    }

    fn warn_of(&self, error: &SysError) {
        // A link event reports a device that is gone.
        if !error.is_gone() {
            self.recording.warn(error.to_string());
        }
    }
}

/// What a round of `frames` frames, of which `sent` were sent, has announced.
pub fn announcement(host: Host, frames: usize, sent: usize) -> Announcement {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    of_round(host, count(sent), count(frames.saturating_sub(sent)), Announcer::Agent)
}

/// Returns what ticks have announced in these rounds of one failover, and when the first was sent; None if there is none.
pub fn of_ticks(host: Host, rounds: &[TickRound]) -> Option<(Time, Announcement)> {
    let first = rounds.first()?;
    let announcement = of_round(host, first.round.sent.into(), first.round.failed.into(), Announcer::Kernel);
    let number = rounds.iter().map(|round| round.round.number.into()).max();
    Some((first.at, Announcement { rounds: number, ..announcement }))
}

/// Each frame of a round is of one address; of a host behind a port only the MAC address is known.
fn of_round(host: Host, sent: u32, failed: u32, by: Announcer) -> Announcement {
    let (addresses, macs) = match host {
        Host::Pair { .. } => (sent, 0),
        Host::Port { .. } => (0, sent),
    };
    Announcement { addresses, macs, failed, by, rounds: None }
}

/// One round.
pub fn frames(host: Host, announced: &Announced, mac: Mac) -> Vec<BytesMut> {
    match host {
        Host::Pair { .. } => announcer::frames(mac, &announced.uppers),
        Host::Port { .. } => vec![announcer::reverse_arp(mac)],
    }
}
