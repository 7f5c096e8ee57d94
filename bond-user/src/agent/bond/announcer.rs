//! Tells the neighbours where the bond is. Their packets go where nobody listens until then, so this is a task of its
//! own, in which nothing waits for RTNL: what is announced was found out before, by the bond's task, which goes on
//! being asked for the rest.

use std::{collections::HashMap, sync::Arc};

use bond_common::{abi::Slot, mac::Mac};
use bond_core::{Time, event::Event};
use bytes::BytesMut;
use tokio::sync::mpsc;

use crate::{
    agent::bond::{
        engine_thread::{BondId, EngineHandle},
        interface::Host,
        worker::Effect,
    },
    report::{
        moment::monotonic,
        receipt::{Announcement, Announcer},
    },
    sys::{
        SysError,
        announcer::{self, Announced, FrameSocket},
        dataplane::Maps,
    },
};

/// What the task is told.
pub enum Input {
    /// What is to be announced from now on.
    Know(Announced),
    /// A round of announcements, by this slave.
    Announce { slot: Slot, ifindex: u32, mac: Mac },
    /// Further frames, by this slave.
    Send { slot: Slot, ifindex: u32, frames: Vec<BytesMut> },
    /// It is no slave any more.
    Forget { slot: Slot },
}

/// A round that was sent, or could not be.
pub struct Told {
    pub slot: Slot,
    pub ifindex: u32,
    pub mac: Mac,
    /// None if the slave was not active any more.
    pub frames: Option<Vec<BytesMut>>,
    /// How many of them were sent.
    pub sent: usize,
    pub at: Time,
    pub result: Result<(), SysError>,
}

/// The task's state. It ends when nobody can tell it anything any more.
pub struct Herald {
    pub id: BondId,
    pub host: Host,
    pub maps: Arc<Maps>,
    pub engine: EngineHandle,
    /// Weak: the bond's task ends when nobody else can ask it for anything.
    pub effects: mpsc::WeakUnboundedSender<Effect>,
    pub announced: Announced,
    /// With the ifindex that each is for. Open from the first frame on: to close one takes the kernel a while.
    pub sockets: HashMap<Slot, (u32, FrameSocket)>,
}

impl Herald {
    pub async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Know(announced) => self.announced = announced,
                Input::Announce { slot, ifindex, mac } => self.announce(slot, ifindex, mac),
                Input::Send { slot, ifindex, frames } => {
                    if self.is_active(slot)
                        && let (_, Err(error)) = self.send(slot, ifindex, &frames)
                    {
                        self.tell(Effect::Failed(error));
                    }
                }
                Input::Forget { slot } => drop(self.sockets.remove(&slot)),
            }
        }
    }

    fn announce(&mut self, slot: Slot, ifindex: u32, mac: Mac) {
        let frames = self.is_active(slot).then(|| frames(self.host, &self.announced, mac));
        let (sent, result) = match &frames {
            Some(frames) => self.send(slot, ifindex, frames),
            None => (0, Ok(())),
        };
        let at = monotonic();
        // The bond's task first: once the engine knows of it, the record of the failover is about to be finished.
        self.tell(Effect::Announced(Box::new(Told { slot, ifindex, mac, frames, sent, at, result })));
        self.engine.event(self.id, Event::Announced { slot });
    }

    /// By a slave that is active no more nothing is announced: its neighbours would send where nobody listens.
    fn is_active(&self, slot: Slot) -> bool {
        self.maps.active().active() == Some(slot)
    }

    /// Sends frames up to the first that fails, and returns how many were sent.
    fn send(&mut self, slot: Slot, ifindex: u32, frames: &[BytesMut]) -> (usize, Result<(), SysError>) {
        if frames.is_empty() {
            return (0, Ok(()));
        }
        let socket = match self.sockets.remove(&slot) {
            Some((of, socket)) if of == ifindex => socket,
            _ => match FrameSocket::open(ifindex) {
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

    fn tell(&self, effect: Effect) {
        if let Some(effects) = self.effects.upgrade() {
            let _ = effects.send(effect);
        }
    }
}

/// What a round of `frames` frames, of which `sent` were sent, has announced: each frame is of one address.
pub fn announcement(host: Host, frames: usize, sent: usize) -> Announcement {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (addresses, macs) = match host {
        Host::Pair { .. } => (count(sent), 0),
        Host::Port { .. } => (0, count(sent)),
    };
    Announcement { addresses, macs, failed: count(frames.saturating_sub(sent)), by: Announcer::Agent }
}

/// One round.
pub fn frames(host: Host, announced: &Announced, mac: Mac) -> Vec<BytesMut> {
    match host {
        Host::Pair { .. } => announcer::frames(mac, &announced.uppers),
        Host::Port { .. } => vec![announcer::reverse_arp(mac)],
    }
}
