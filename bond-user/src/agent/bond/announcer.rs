//! Announces the bond to its neighbours. Until then their packets are lost, so this is a task of its own, in which nothing
//! waits for RTNL: what is announced was read before, by the worker.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bond_common::{
    abi::{ActiveWord, Slot},
    behind::{BehindKey, MOST_BEHIND},
    clock::layout::AnnounceList,
    mac::Mac,
};
use bond_core::{Time, event::Event};
use bytes::BytesMut;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::{
    agent::bond::{
        confirmer::{Confirm, Confirmer},
        engine_handle::{BondId, EngineHandle},
        interface::Host,
        missed_failovers::TickRound,
        recorder::{Entry, Recording},
        work::{Urgent, WeakWorkQueue},
    },
    report::{
        moment::monotonic,
        receipt::{Announcement, Announcer},
        wording,
    },
    sys::{
        Devices, SysError,
        announcer::{self, Announced, MacBehind, Upper},
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
    failovers: watch::Sender<Option<Confirm>>,
}

/// The task's ends of [`Announcing`].
pub struct AnnounceOrders {
    inputs: mpsc::Receiver<Input>,
    known: watch::Receiver<Announced>,
    failovers: watch::Receiver<Option<Confirm>>,
}

impl Announcing {
    /// `announced` is what is known already of what is to be announced.
    pub fn new(announced: Announced) -> (Self, AnnounceOrders) {
        let (inputs, received) = mpsc::channel(WAITING);
        let (known, to_announce) = watch::channel(announced);
        let (failovers, to_confirm) = watch::channel(None);
        let orders = AnnounceOrders { inputs: received, known: to_announce, failovers: to_confirm };
        (Self { inputs, known, failovers }, orders)
    }

    /// Has this announced from now on.
    pub fn know(&self, announced: Announced) {
        let _ = self.known.send_replace(announced);
    }

    /// Has the tick's announcements prepared again: the bond's MAC address, which they name, has changed.
    pub fn host_mac_changed(&self) {
        self.known.send_modify(|_| {});
    }

    /// Has the peers of a failover confirmed, in place of those of an earlier one.
    pub fn confirm(&self, failover: Confirm) {
        let _ = self.failovers.send_replace(Some(failover));
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

    /// It is no slave any more. A socket that stays open is replaced when another slave has the slot.
    pub fn forget(&self, slot: Slot) {
        let _ = self.inputs.try_send(Input::Forget { slot });
    }
}

/// A round that was sent, or could not be.
pub struct SentRound {
    pub slot: Slot,
    pub ifindex: u32,
    pub mac: Mac,
    /// What it announced besides MAC addresses that have sent through the bond; None if the slave was not active any more.
    pub prepared: Option<Prepared>,
}

/// What one round announces, besides MAC addresses that have sent through the bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Frames that announce addresses.
    addresses: Vec<BytesMut>,
    macs: Vec<MacBehind>,
}

impl Prepared {
    /// Prepares a round from this MAC address of the bond.
    pub fn new(host: Host, announced: &Announced, mac: Mac) -> Self {
        match host {
            Host::Pair { .. } => {
                let addresses = announcer::frames(mac, &announced.uppers);
                let bonds = announced.has_unknown_user.then(|| MacBehind { mac, tags: Vec::new() });
                Self { addresses, macs: announced.macs.iter().cloned().chain(bonds).collect() }
            }
            // Of a host behind a port only the MAC address is known.
            Host::Port { .. } => {
                Self { addresses: Vec::new(), macs: vec![MacBehind { mac, tags: Vec::new() }] }
            }
        }
    }

    /// Returns all its frames.
    pub fn frames(&self) -> Vec<BytesMut> {
        self.addresses.iter().cloned().chain(self.macs.iter().map(announcer::reverse_arp)).collect()
    }
}

/// A round that is being sent.
struct Sending {
    slot: Slot,
    ifindex: u32,
    mac: Mac,
    prepared: Prepared,
    /// Frames that announce MAC addresses, and are still to be sent.
    left: VecDeque<BytesMut>,
    /// When the next of them are sent.
    due: Instant,
    announcement: Announcement,
}

/// The most MAC addresses that are announced at once, as by a tick; then there is a pause. A switch learns each by its CPU.
const MACS_AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(10);

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
    pub rounds: SentRounds,
    pub progress: Progress,
}

/// A round that is to be sent: by which slave, its ifindex, and from which MAC address of the bond.
type Order = (Slot, u32, Mac);

/// What the task keeps of rounds.
#[derive(Default)]
pub struct Progress {
    /// The round of which MAC addresses are still to be announced.
    sending: Option<Sending>,
    /// Rounds of the same failover that are due, and wait until that one is sent: none of its MAC addresses is left out.
    waiting: VecDeque<Order>,
    /// How many addresses and MAC addresses are prepared for the tick.
    for_tick: (usize, usize),
    /// The clock has no room for some of them.
    leaves_out: bool,
}

/// The rounds of announcements of one failover that this agent has sent, or knows that the tick has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentRounds {
    /// [`ActiveWord::switches`] of the failover.
    switches: u8,
    number: u8,
}

impl SentRounds {
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
        tokio::spawn(self.confirmer(&orders).run(orders.failovers.clone()));
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
                () = due(self.progress.sending.as_ref()) => {
                    self.send_macs();
                    self.announce_waiting(&orders.known.borrow());
                    continue;
                }
            };
            match input {
                Input::Announce { slot, ifindex, mac } => {
                    self.order((slot, ifindex, mac));
                    self.announce_waiting(&orders.known.borrow());
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

    /// Returns the task that confirms peers.
    fn confirmer(&self, orders: &AnnounceOrders) -> Confirmer {
        Confirmer {
            host: self.host,
            mirror: Arc::clone(&self.mirror),
            devices: Arc::clone(&self.devices),
            recording: self.recording.clone(),
            known: orders.known.clone(),
        }
    }

    /// Has the tick announce the same when no agent does. It rewrites the source address as that of any frame of bond0, and
    /// reads itself what has sent through the bond.
    fn prepare_tick(&mut self, known: &Announced) {
        let host_mac = self.mirror.bond().host_mac();
        let mac = if host_mac.is_zero() { self.mirror.maps().learned() } else { host_mac };
        // Of a host that was not heard yet nothing is known.
        let prepared = if mac.is_zero() { Prepared::default() } else { Prepared::new(self.host, known, mac) };
        let macs: Vec<_> = prepared.macs.iter().map(announcer::reverse_arp).collect();
        self.progress.for_tick = self.mirror.set_announcements(&prepared.addresses, &macs);
        let list = self.mirror.maps().clock().map(|clock| AnnounceList::from_bits(clock.entry().list));
        let left_out = list.and_then(wording::not_for_tick);
        if let Some(text) = left_out.as_ref().filter(|_| !self.progress.leaves_out) {
            self.recording.warn(text);
        }
        self.progress.leaves_out = left_out.is_some();
    }

    /// Sends what the tick has no room for in a round that it has claimed. Returns the numbers of addresses and MAC addresses.
    fn send_left_out(&mut self, slot: Slot, ifindex: u32, prepared: &Prepared) -> (u32, u32) {
        let (addresses, macs) = self.progress.for_tick;
        let addresses = prepared.addresses.get(addresses..).unwrap_or_default();
        let macs = prepared.macs.get(macs..).unwrap_or_default();
        let macs: Vec<_> = macs.iter().map(announcer::reverse_arp).collect();
        let mut send = |frames: &[BytesMut]| {
            let (sent, result) = self.send(slot, ifindex, frames);
            if let Err(error) = result {
                self.warn_of(&error);
            }
            count(sent)
        };
        (send(addresses), send(&macs))
    }

    /// Returns what the tick announces in the round that it has claimed, and when it claimed that. It may not have sent all
    /// frames yet.
    fn by_tick(&self) -> (Time, Announcement) {
        let maps = self.mirror.maps();
        let ticks = maps.clock().map(ClockMaps::ticks).unwrap_or_default();
        let failed = u32::try_from(ticks.refused_of_round).unwrap_or(u32::MAX);
        let (addresses, macs) = self.progress.for_tick;
        let behind = maps.behind().map_or(0, |behind| behind.len().min(MOST_BEHIND));
        let announcement = Announcement {
            addresses: count(addresses).saturating_sub(failed),
            macs: count(macs + behind),
            failed,
            ..Announcement::by(Announcer::Kernel)
        };
        (Time::from_nanos(ticks.claimed_at), announcement)
    }

    /// Claims the next round, which the tick sends otherwise. False if the tick has claimed it.
    fn claim(&mut self) -> bool {
        let word = self.mirror.maps().active();
        let round = self.rounds.next(word);
        let now = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.mirror.maps().clock().is_none_or(|clock| clock.claim(word, round, now))
    }

    /// Has a round sent after those that wait. One by another slave ends them: they are of a failover before.
    fn order(&mut self, order: Order) {
        let (slot, ifindex, _) = order;
        let is_of_same = |sending: &Sending| (sending.slot, sending.ifindex) == (slot, ifindex);
        if !self.progress.sending.as_ref().is_none_or(is_of_same) {
            if let Some(former) = self.progress.sending.take() {
                self.break_off(former);
            }
            for (slot, ifindex, mac) in std::mem::take(&mut self.progress.waiting) {
                self.hand_over(SentRound { slot, ifindex, mac, prepared: None });
            }
        }
        self.progress.waiting.push_back(order);
    }

    /// Announces the rounds that wait, until one is to be continued later.
    fn announce_waiting(&mut self, known: &Announced) {
        while self.progress.sending.is_none()
            && let Some(order) = self.progress.waiting.pop_front()
        {
            self.announce(order, Prepared::new(self.host, known, order.2), known);
            self.prepare_tick(known);
        }
    }

    fn announce(&mut self, (slot, ifindex, mac): Order, prepared: Prepared, known: &Announced) {
        if !self.is_active(slot) {
            return self.hand_over(SentRound { slot, ifindex, mac, prepared: None });
        }
        if !self.claim() {
            let (at, mut announcement) = self.by_tick();
            let (addresses, macs) = self.send_left_out(slot, ifindex, &prepared);
            announcement.addresses += addresses;
            announcement.macs += macs;
            // Once the engine knows of it, the record of the failover is about to be finished.
            self.recording.add(Entry::TickAnnounces(at, announcement));
            return self.hand_over(SentRound { slot, ifindex, mac, prepared: Some(prepared) });
        }
        let (sent, result) = self.send(slot, ifindex, &prepared.addresses);
        let mut announcement = Announcement {
            addresses: count(sent),
            failed: count(prepared.addresses.len() - sent),
            ..Announcement::by(Announcer::Agent)
        };
        // What the port sent is read only now: neighbours wait for the addresses.
        let (macs, is_capped) = self.macs_behind(&prepared, known, mac);
        announcement.capped = is_capped;
        let mut left: VecDeque<_> = macs.iter().map(announcer::reverse_arp).collect();
        if let Err(error) = result {
            self.warn_of(&error);
            announcement.failed += count(left.len());
            left.clear();
        }
        self.progress.sending =
            Some(Sending { slot, ifindex, mac, prepared, left, due: Instant::now(), announcement });
        self.send_macs();
    }

    /// Returns the MAC addresses that a round announces, those that sent last first after those that the kernel lists, and
    /// whether it leaves some out.
    fn macs_behind(&self, prepared: &Prepared, known: &Announced, bond: Mac) -> (Vec<MacBehind>, bool) {
        let found = match self.mirror.maps().behind() {
            Ok(found) => found,
            Err(error) => {
                self.recording.warn(error.to_string());
                Vec::new()
            }
        };
        let slaves = self.mirror.slaves();
        let is_ours = |mac: Mac| {
            let host = [bond, self.mirror.bond().host_mac()];
            host.contains(&mac)
                || slaves.iter().any(|slave| [slave.wire_mac(), slave.permanent_mac()].contains(&mac))
        };
        choose_macs(prepared, known, found.iter().map(|(key, _)| key), is_ours)
    }

    /// Sends what is due of the round that is being sent.
    fn send_macs(&mut self) {
        let Some(mut sending) = self.progress.sending.take() else { return };
        let (slot, ifindex) = (sending.slot, sending.ifindex);
        if !self.is_active(slot) {
            return self.break_off(sending);
        }
        let frames: Vec<_> = sending.left.drain(..sending.left.len().min(MACS_AT_ONCE)).collect();
        let (sent, result) = self.send(slot, ifindex, &frames);
        sending.announcement.macs += count(sent);
        if let Err(error) = result {
            self.warn_of(&error);
            sending.announcement.failed += count(frames.len() - sent + sending.left.len());
            sending.left.clear();
        }
        if sending.left.is_empty() {
            return self.finish(sending);
        }
        sending.due = Instant::now() + PAUSE;
        self.progress.sending = Some(sending);
    }

    /// Ends a round because another slave is active. It is not recorded: the receipt that is open is that of the next failover.
    fn break_off(&self, sending: Sending) {
        let Sending { slot, ifindex, mac, prepared, .. } = sending;
        self.hand_over(SentRound { slot, ifindex, mac, prepared: Some(prepared) });
    }

    /// Ends a round, and records what it announced.
    fn finish(&self, sending: Sending) {
        let Sending { slot, ifindex, mac, prepared, announcement, .. } = sending;
        if announcement.capped {
            self.recording.add(Entry::Info(wording::MACS_CAPPED.to_owned()));
        }
        self.recording.add(Entry::Announced(monotonic(), announcement));
        self.hand_over(SentRound { slot, ifindex, mac, prepared: Some(prepared) });
    }

    fn hand_over(&self, round: SentRound) {
        let slot = round.slot;
        if let Some(work) = self.work.upgrade() {
            work.urgent(Urgent::Announced(Box::new(round)));
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

/// Waits until the next frames of a round are due; for ever if there is no round.
async fn due(sending: Option<&Sending>) {
    match sending {
        Some(sending) => sleep_until(sending.due).await,
        None => std::future::pending().await,
    }
}

/// Returns the MAC addresses of a round, each once, and whether there are more than [`MOST_BEHIND`] of those in `behind`, the
/// first of which are taken.
fn choose_macs<'a>(
    prepared: &Prepared,
    known: &Announced,
    behind: impl Iterator<Item = &'a BehindKey>,
    is_ours: impl Fn(Mac) -> bool,
) -> (Vec<MacBehind>, bool) {
    let mut seen: HashSet<MacBehind> = known.uppers.iter().filter_map(Upper::announced_mac).collect();
    let mut macs = Vec::new();
    macs.extend(prepared.macs.iter().filter(|behind| seen.insert((*behind).clone())).cloned());
    let mut taken = 0;
    for behind in behind.map(MacBehind::from).filter(|behind| !is_ours(behind.mac)) {
        if !seen.insert(behind.clone()) {
            continue;
        }
        if taken == MOST_BEHIND {
            return (macs, true);
        }
        taken += 1;
        macs.push(behind);
    }
    (macs, false)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Returns what ticks have announced in these rounds of one failover, and when the first was sent; None if there is none.
pub fn of_ticks(rounds: &[TickRound]) -> Option<(Time, Announcement)> {
    let first = rounds.first()?;
    let number = rounds.iter().map(|round| round.round.number.into()).max();
    let announcement = Announcement {
        addresses: first.round.sent.into(),
        macs: first.round.macs.into(),
        failed: first.round.failed.into(),
        rounds: number,
        capped: first.round.is_capped,
        ..Announcement::by(Announcer::Kernel)
    };
    Some((first.at, announcement))
}

#[cfg(test)]
mod tests {
    use bond_common::behind::Tag;

    use super::*;
    use crate::sys::netlink::VlanTag;

    const TAG: VlanTag = VlanTag { ethertype: 0x8100, vid: 5 };

    fn mac(last: u16) -> Mac {
        let [high, low] = last.to_be_bytes();
        Mac::new([2, 0, 0, 0, high, low])
    }

    #[test]
    fn each_mac_is_announced_once_and_the_bonds_own_are_not() {
        let upper = Upper {
            ifindex: 7,
            tags: Vec::new(),
            own_mac: Some(mac(7)),
            router: false,
            is_connected: true,
            is_reached: true,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let listed = MacBehind { mac: mac(8), tags: vec![TAG] };
        let known = Announced { uppers: vec![upper], macs: vec![listed.clone()], ..Announced::default() };
        let prepared = Prepared::new(Host::Pair { bond: 7, port: 8, promisc: false }, &known, mac(1));
        assert_eq!((prepared.addresses.len(), prepared.frames().len()), (1, 2));
        let tagged = [Tag::new(0x8100, 5), Tag::NONE];
        let untagged = [Tag::NONE; 2];
        let behind = [(1, untagged), (7, untagged), (7, tagged), (8, tagged), (8, untagged), (9, untagged)];
        let behind = behind.map(|(last, tags)| BehindKey::new(mac(last), tags));
        let (macs, is_capped) = choose_macs(&prepared, &known, behind.iter(), |found| found == mac(1));
        let of = |last, tags: &[VlanTag]| MacBehind { mac: mac(last), tags: tags.to_vec() };
        assert_eq!(macs, [listed, of(7, &[TAG]), of(8, &[]), of(9, &[])]);
        assert!(!is_capped);
    }

    #[test]
    fn the_bonds_mac_is_announced_alone_for_a_user_whose_address_is_not_known() {
        let known = Announced { has_unknown_user: true, ..Announced::default() };
        let prepared = Prepared::new(Host::Pair { bond: 7, port: 8, promisc: true }, &known, mac(1));
        assert_eq!(prepared.macs, [MacBehind { mac: mac(1), tags: Vec::new() }]);
        let (macs, _) = choose_macs(&prepared, &known, std::iter::empty(), |found| found == mac(1));
        assert_eq!(macs, prepared.macs);
    }

    #[test]
    fn no_more_macs_are_announced_than_the_most() {
        let behind =
            |number| (0..number).map(|last| BehindKey::new(mac(last), [Tag::NONE; 2])).collect::<Vec<_>>();
        for (number, expected) in [(1023, (1023, false)), (1024, (1024, false)), (1025, (1024, true))] {
            let keys = behind(number);
            let (macs, is_capped) =
                choose_macs(&Prepared::default(), &Announced::default(), keys.iter(), |_| false);
            assert_eq!((macs.len(), is_capped), expected);
        }
    }
}
