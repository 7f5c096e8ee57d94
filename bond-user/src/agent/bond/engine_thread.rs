//! The thread on which decisions are made: the engines of all bonds, link state, and ACTIVE.
//!
//! It makes no netlink request and never waits for RTNL, so nobody who holds it can delay a failover.
//! What takes time is handed to the bond's [`crate::agent::bond::worker`] and comes back as an event; what is to be logged and
//! recorded goes to its [`crate::agent::bond::recorder`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bond_common::{
    abi::{ActiveWord, DeviceHandle, DeviceState, LinkQuestion, Rank, SlaveEntry, Slot},
    event::{DataPlaneEvent, EventRecord},
    names,
};
use bond_core::{
    Engine, Left, NewBond, Refusal, Time,
    command::{Command, Notice, Seen},
    event::{Duplex, Event, Heard, Link, Speed},
    status::{BondStatus, Pending},
};
use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use tokio::sync::{oneshot, watch};

use crate::{
    agent::bond::{
        announcer::Announcing,
        arp_prober::{Probing, Round},
        ledger::{Ledger, WordChange},
        link_mail::LinkMail,
        missed_failovers::{Known, MissedChange, MissedFailovers},
        receipt_writer::{Draft, DropsBefore, Made},
        recorder::{Entry, Recording},
        work::Work,
        worker::{Effect, MacOf},
    },
    report::{
        moment::{boottime_ahead, monotonic as now},
        wording as text,
    },
    sys::{
        dataplane::{DeviceReader, Events, MapMirror},
        netlink::{Interfaces, LinkEvent},
    },
};

/// One bond of this agent. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BondId(pub u32);

/// What the thread is told.
pub enum Input {
    Add(Box<Member>),
    Remove(BondId),
    Event {
        bond: BondId,
        event: Event,
    },
    /// An event that may be refused.
    Request {
        bond: BondId,
        event: Event,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What a slave's link is capable of: the answer to the question of this number.
    Speed {
        bond: BondId,
        slot: Slot,
        number: u32,
        speed: Speed,
        duplex: Duplex,
    },
    Status {
        bond: BondId,
        reply: oneshot::Sender<BondStatus>,
    },
    /// Compare the maps of all bonds with what is known.
    CheckMaps,
    /// Answer when nothing of what the engine has decided is pending.
    AwaitSettled {
        bond: BondId,
        reply: oneshot::Sender<()>,
    },
    /// What is pending now?
    Pending {
        bond: BondId,
        reply: oneshot::Sender<Vec<Pending>>,
    },
    /// Is the thread alive?
    Ping {
        reply: oneshot::Sender<()>,
    },
}

/// A bond that joins the thread.
pub struct Member {
    pub id: BondId,
    pub bond: NewBond,
    /// What another agent has left of it, and what the data plane did since.
    pub left: Option<(Left, MissedFailovers)>,
    pub mirror: Arc<MapMirror>,
    /// EVENTS; None if it cannot be read.
    pub records: Option<Box<dyn Events>>,
    pub ledger: Arc<Ledger>,
    pub effects: Work,
    pub recording: Recording,
    pub prober: Probing,
    pub announcer_task: Announcing,
    /// ifindex of bond0, or of the port behind which the host is.
    pub host: u32,
    pub port: u32,
    /// Set at each event of a device of the bond.
    pub is_changed: Arc<AtomicBool>,
    /// Where readers find how the bond is.
    pub status: watch::Sender<BondStatus>,
}

/// Requests, and answers to what the engine has asked for, that may wait for the thread. It waits for nobody, and takes
/// microseconds for each: whoever finds so many before them waits, and not for long.
const INPUTS: usize = 1024;
/// A shorter difference between the clocks is that of the moments at which they are read.
const SUSPENSION: Duration = Duration::from_millis(20);
/// The longest sleep of the thread.
const SLEEP: Duration = Duration::from_secs(3600);

/// How others reach the thread.
#[derive(Clone)]
pub struct EngineHandle {
    /// With the time at which it was told.
    inputs: Sender<(Time, Input)>,
    flags: Arc<Mutex<Flags>>,
    /// There is something in `flags`.
    raised: Sender<()>,
}

/// What the thread has to look at. It says what is, and not how often that was told.
#[derive(Default)]
struct Flags {
    /// Bonds whose data plane has put something into EVENTS.
    events: Vec<BondId>,
    /// Devices of this network namespace that changed or vanished.
    links: LinkMail,
}

/// The thread has ended, which it does only when the agent does.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopping;

impl EngineHandle {
    /// Starts the thread. `reader` is None where the kernel does not let devices be read without netlink;
    /// links are known by netlink's events then.
    pub fn start(reader: Option<Arc<DeviceReader>>) -> std::io::Result<Self> {
        let (inputs, received) = bounded(INPUTS);
        let (raised, seen) = bounded(1);
        let flags = Arc::<Mutex<Flags>>::default();
        let (bonds, boottime_ahead) = (HashMap::new(), boottime_ahead());
        let engine = Loop { reader, bonds, flags: Arc::clone(&flags), boottime_ahead };
        thread::Builder::new().name("engine".into()).spawn(move || engine.run(&received, &seen))?;
        Ok(Self { inputs, flags, raised })
    }

    pub fn send(&self, input: Input) {
        // A thread that is gone has nothing left to decide.
        let _ = self.inputs.send((now(), input));
    }

    /// The data plane of this bond has put something into EVENTS.
    pub fn data_plane_events(&self, bond: BondId) {
        let mut flags = locked(&self.flags);
        if !flags.events.contains(&bond) {
            flags.events.push(bond);
        }
        drop(flags);
        // If it is raised already, the thread has not looked since.
        let _ = self.raised.try_send(());
    }

    /// A device of this network namespace changed or vanished.
    pub fn device(&self, event: LinkEvent) {
        locked(&self.flags).links.put(now(), event);
        let _ = self.raised.try_send(());
    }

    pub fn event(&self, bond: BondId, event: Event) {
        self.send(Input::Event { bond, event });
    }

    /// The inner result is the engine's answer.
    pub async fn request(&self, bond: BondId, event: Event) -> Result<Result<(), Refusal>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Request { bond, event, reply });
        answer.await.map_err(|_| Stopping)
    }

    /// True as soon as the thread has come to this question; false if it has ended.
    pub async fn is_alive(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Ping { reply });
        answer.await.is_ok()
    }

    pub async fn status(&self, bond: BondId) -> Result<BondStatus, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Status { bond, reply });
        answer.await.map_err(|_| Stopping)
    }
}

impl EngineHandle {
    /// Waits until nothing of what the bond's engine has decided is pending.
    pub async fn settled(&self, bond: BondId) -> Result<(), Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::AwaitSettled { bond, reply });
        answer.await.map_err(|_| Stopping)
    }

    /// Returns what the bond's engine has decided and is not done yet.
    pub async fn pending(&self, bond: BondId) -> Result<Vec<Pending>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Pending { bond, reply });
        answer.await.map_err(|_| Stopping)
    }
}

fn locked(flags: &Mutex<Flags>) -> MutexGuard<'_, Flags> {
    // Poisoned or not, flags are whole.
    flags.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Loop {
    reader: Option<Arc<DeviceReader>>,
    bonds: HashMap<BondId, Running>,
    flags: Arc<Mutex<Flags>>,
    /// As of the last look: it grows while the machine is suspended.
    boottime_ahead: i128,
}

struct Running {
    engine: Engine,
    /// What ACTIVE, SLAVES and GUARD hold, as this thread knows it.
    mirror: Arc<MapMirror>,
    effects: Work,
    recording: Recording,
    prober: Probing,
    announcer_task: Announcing,
    host: u32,
    port: u32,
    is_changed: Arc<AtomicBool>,
    status: watch::Sender<BondStatus>,
    /// The engine has handled something since the status was published.
    is_status_old: bool,
    /// The last link of each slave: its speed is learned by the effects, its state here.
    links: HashMap<Slot, Link>,
    /// Slots whose speeds are to be read when what is in hand is carried out: reading waits for RTNL and for firmware,
    /// and a failover's MACs shall not.
    speeds_to_read: u16,
    /// The last question for the speed of each: only its answer is of the link as it is now.
    speeds_asked: HashMap<Slot, SpeedAsked>,
    /// During a timeout, the slots whose devices were just seen to have a link.
    with_link: u16,
    /// Netlink was asked for the links, and has not answered yet.
    awaits_netlink: bool,
    /// The last attempt to read a device failed. Logged when it begins and when it ends.
    is_blind: bool,
    pace: Pace,
    switch: Switched,
    /// The last store to ACTIVE that the data plane was found to have made.
    followed: Switched,
    /// Those before it of which the engine is about to tell.
    meanwhile: VecDeque<Switched>,
    records: Option<Box<dyn Events>>,
    /// Changes of ACTIVE without a record, just before the last failover of which the engine is about to tell.
    unrecorded: u32,
    /// Records of failovers that are after what ACTIVE was known to hold.
    unfollowed: Vec<EventRecord>,
    ledger: Arc<Ledger>,
    /// What the engine says now is of the time before.
    is_adopting: bool,
    /// Since when there is no active slave, in drops.
    none_since: Option<DropsBefore>,
    /// Answered as soon as nothing is pending.
    settling: Vec<oneshot::Sender<()>>,
}

/// A question for the speed of a slave's link.
#[derive(Clone, Copy, Debug, Default)]
struct SpeedAsked {
    number: u32,
    is_open: bool,
}

/// When the steps of what is in hand were done, for the receipt of a failover.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// The thread was told, or should have woken up.
    told: Time,
    /// The engine was told.
    handled: Time,
    decided: Time,
}

/// A store to ACTIVE, and what led to it: what follows it in the same go may be other events.
#[derive(Clone, Copy, Debug, Default)]
struct Switched {
    pace: Pace,
    at: Time,
    generation: u32,
    by: Writer,
}

/// Whether a failover of the guard came after ACTIVE was `word`.
fn is_after(record: &EventRecord, word: ActiveWord) -> bool {
    match record.event() {
        Some(DataPlaneEvent::FailedOver(after) | DataPlaneEvent::Ticked(after, _)) => {
            after.changes_since(word).is_some_and(|changes| changes > 0)
        }
        Some(DataPlaneEvent::HostMacLearned(_) | DataPlaneEvent::Announced(_)) | None => false,
    }
}

impl Switched {
    /// A failover of the guard at `at`, or if that is zero at an unknown time, that is followed at `now`.
    fn by_guard(at: Time, word: ActiveWord, now: Time) -> Self {
        let at = if at.is_zero() { now } else { at.min(now) };
        let pace = Pace { told: at, handled: now, decided: now };
        Self { pace, at, generation: word.generation(), by: Writer::DataPlane }
    }
}

/// What an attempt to read a device showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Up,
    /// Without a link, or not in this network namespace any more: netlink tells which.
    Down,
    /// It could not be read. The link is as it was.
    Nothing,
}

impl Sight {
    fn up(self) -> Option<bool> {
        match self {
            Self::Up => Some(true),
            Self::Down => Some(false),
            Self::Nothing => None,
        }
    }
}

impl<E> From<Result<Option<DeviceState>, E>> for Sight {
    fn from(answer: Result<Option<DeviceState>, E>) -> Self {
        match answer {
            Ok(Some(state)) if state.link_up() => Self::Up,
            Ok(_) => Self::Down,
            Err(_) => Self::Nothing,
        }
    }
}

/// Who stored ACTIVE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Agent,
    DataPlane,
}

impl Loop {
    fn run(mut self, inputs: &Receiver<(Time, Input)>, raised: &Receiver<()>) {
        loop {
            let next = self.bonds.values().filter_map(|bond| bond.engine.poll_timeout()).min();
            let sleep = next.map_or(SLEEP, |next| next.saturating_sub(now()).min(SLEEP));
            let input = select_biased! {
                recv(raised) -> raised => {
                    if raised.is_err() {
                        return;
                    }
                    None
                }
                recv(inputs) -> input => match input {
                    Ok(input) => Some(input),
                    Err(_) => return,
                },
                default(sleep) => None,
            };
            self.notice_suspension();
            // Before the input: whoever asks for the status means what happened before.
            self.take_flags();
            if let Some((told, input)) = input {
                self.bonds.values_mut().for_each(|bond| bond.pace.told = told);
                self.take(input);
            }
            self.tick();
            self.bonds.values_mut().for_each(Running::publish_status);
        }
    }

    /// A machine that is suspended stops the clock that deadlines are of.
    fn notice_suspension(&mut self) {
        let ahead = boottime_ahead();
        let time = Duration::from_nanos(u64::try_from(ahead - self.boottime_ahead).unwrap_or_default());
        self.boottime_ahead = ahead;
        if time >= SUSPENSION {
            for bond in self.bonds.values_mut() {
                bond.fact(Event::Suspended { time }, self.reader.as_deref());
            }
        }
    }

    fn take_flags(&mut self) {
        let (events, links) = {
            let mut flags = locked(&self.flags);
            (std::mem::take(&mut flags.events), flags.links.take())
        };
        let reader = self.reader.as_deref();
        for bond in events {
            if let Some(bond) = self.bonds.get_mut(&bond) {
                bond.follow_data_plane();
                bond.hear_of_others();
                bond.carry_out(reader);
            }
        }
        for (told, event) in links {
            for bond in self.bonds.values_mut() {
                bond.pace.told = told;
                bond.device(&event, reader);
            }
        }
    }

    /// Timeouts that have passed, also while inputs keep coming.
    fn tick(&mut self) {
        let now = now();
        self.look_at_all(now);
        for bond in self.bonds.values_mut() {
            if let Some(due) = bond.engine.poll_timeout().filter(|due| *due <= now) {
                bond.pace.told = due;
                bond.fact(Event::Timeout, self.reader.as_deref());
            }
            bond.with_link = 0;
        }
    }

    /// Looks at the links of all bonds that are due, at once: most of them are as they were, and a system call for each
    /// slave would be most of what an agent of many bonds does.
    fn look_at_all(&mut self, now: Time) {
        let Some(reader) = &self.reader else { return };
        let is_due = |bond: &&mut Running| bond.engine.poll_timeout().is_some_and(|due| due <= now);
        let mut due: Vec<&mut Running> = self.bonds.values_mut().filter(is_due).collect();
        let questions: Vec<_> = due.iter().flat_map(|bond| bond.questions()).collect();
        let devices: Vec<_> = questions.iter().map(|(_, question)| *question).collect();
        // What remains unanswered is asked one by one.
        let answers = reader.with_link(&devices).unwrap_or_default();
        let mut answered = questions.iter().zip(answers);
        for bond in &mut due {
            let own = bond.questions().count();
            for ((slot, _), has_link) in answered.by_ref().take(own) {
                bond.with_link |= if has_link { slot.bit() } else { 0 };
            }
        }
    }

    fn take(&mut self, input: Input) {
        let reader = self.reader.as_deref();
        match input {
            Input::Add(member) => {
                let id = member.id;
                let mut running = Running::new(*member);
                running.ledger.follow(running.mirror.active(), WordChange::MayFailOver);
                running.carry_out(reader);
                running.meanwhile.clear();
                running.is_adopting = false;
                // The data plane may have changed ACTIVE since it was read for this.
                running.follow_data_plane();
                running.carry_out(reader);
                self.bonds.insert(id, running);
            }
            Input::Remove(id) => {
                self.bonds.remove(&id);
            }
            Input::Event { bond, event } => {
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.fact(event, reader);
                }
            }
            Input::Request { bond, event, reply } => {
                // A dropped reply tells the asker that the bond is gone.
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.follow_data_plane();
                    let answer = bond.handle(event);
                    bond.carry_out(reader);
                    bond.publish_status();
                    let _ = reply.send(answer);
                }
            }
            Input::CheckMaps => {
                for bond in self.bonds.values_mut() {
                    bond.follow_data_plane();
                    bond.carry_out(reader);
                    bond.restore_maps();
                }
            }
            Input::Speed { bond, slot, number, speed, duplex } => {
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.speed((slot, number), (speed, duplex), reader);
                }
            }
            Input::AwaitSettled { bond, reply } => {
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.settling.push(reply);
                    bond.answer_if_settled();
                }
            }
            Input::Pending { bond, reply } => {
                if let Some(bond) = self.bonds.get(&bond) {
                    let _ = reply.send(bond.engine.pending().collect());
                }
            }
            Input::Ping { reply } => {
                let _ = reply.send(());
            }
            Input::Status { bond, reply } => {
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.publish_status();
                    let _ = reply.send(bond.engine.status());
                }
            }
        }
    }
}

impl Running {
    /// A bond as its engine begins; what that asks for is still to be carried out.
    fn new(member: Member) -> Self {
        let Member {
            id: _,
            bond,
            left,
            mirror,
            records,
            ledger,
            effects,
            recording,
            prober,
            announcer_task,
            host,
            port,
            is_changed,
            status,
        } = member;
        let slaves = left.iter().flat_map(|(left, _)| &left.slaves);
        let links = slaves.map(|slave| (slave.slot, slave.link)).collect();
        let now = now();
        let followed = |at, word| Switched::by_guard(at, word, now);
        let (left, meanwhile) = left.unzip();
        let changes = meanwhile.iter().flat_map(|meanwhile| &meanwhile.changes);
        let failovers = changes.filter(|change| change.for_engine().is_failover());
        Self {
            engine: match left {
                Some(left) => Engine::adopt(now, bond, left),
                None => Engine::new(bond),
            },
            effects,
            recording,
            prober,
            announcer_task,
            host,
            port,
            is_changed,
            links,
            speeds_to_read: 0,
            speeds_asked: HashMap::new(),
            status,
            is_status_old: true,
            with_link: 0,
            awaits_netlink: false,
            is_blind: false,
            // Adopting may elect.
            pace: Pace { told: now, handled: now, decided: now },
            switch: Switched::default(),
            followed: followed(Time::from_nanos(mirror.maps().guard().switched_at()), mirror.active()),
            is_adopting: meanwhile.is_some(),
            meanwhile: failovers.map(|change| followed(change.at, change.word)).collect(),
            records,
            unrecorded: meanwhile.as_ref().map_or(0, |meanwhile| meanwhile.unrecorded),
            unfollowed: Vec::new(),
            ledger,
            none_since: None,
            settling: Vec::new(),
            mirror,
        }
    }

    /// An event that is a fact; the engine refuses only requests.
    fn fact(&mut self, event: Event, reader: Option<&DeviceReader>) {
        match &event {
            Event::Joined { slot, link } | Event::Link { slot, link } => {
                self.links.insert(*slot, *link);
            }
            Event::Links(links) => {
                self.awaits_netlink = false;
                self.links.extend(links.iter().copied());
            }
            _ => {}
        }
        self.follow_data_plane();
        let _ = self.handle(event);
        self.carry_out(reader);
    }

    fn handle(&mut self, event: Event) -> Result<(), Refusal> {
        self.is_status_old = true;
        self.pace.handled = now();
        let answer = self.engine.handle(self.pace.handled, event);
        self.pace.decided = now();
        answer
    }

    /// What readers are shown from now on.
    fn publish_status(&mut self) {
        if std::mem::take(&mut self.is_status_old) {
            let status = self.engine.status();
            self.status.send_if_modified(|shown| {
                let is_new = *shown != status;
                *shown = status;
                is_new
            });
        }
    }

    /// Tells the engine, before anything else, if the data plane has changed ACTIVE: or its next decision would undo
    /// that.
    fn follow_data_plane(&mut self) {
        if let Some(found) = self.mirror.active_change() {
            self.active_is(found);
        }
    }

    fn active_is(&mut self, found: ActiveWord) {
        let MissedFailovers { word: found, changes, unrecorded, is_foreign: _ } = self.meanwhile_until(found);
        // The guard saw these without a link. Whoever has one again at the next look may have another speed.
        let lost = self.mirror.active().usable() & !found.usable();
        self.links.iter_mut().for_each(|(slot, link)| link.up &= lost & slot.bit() == 0);
        self.mirror.follow_active(found);
        self.ledger.follow(found, WordChange::MayFailOver);
        self.unrecorded = unrecorded;
        if unrecorded > 0 {
            self.recording.add(Entry::Unrecorded(unrecorded));
        }
        let (active, draining, usable) = (found.active(), found.draining(), found.usable());
        // Of the guard's words none is so; a tick may leave no active slave.
        let is_recorded = changes.last().is_some_and(|last| last.word == found);
        let is_foreign = !is_recorded && active.is_none_or(|slot| usable & slot.bit() == 0);
        if is_foreign && self.engine.has_active() {
            self.effects.read(|reads| _ = reads.restored.insert(names::ACTIVE));
        }
        let for_engine = changes.iter().map(MissedChange::for_engine).collect();
        let mut failovers: Vec<_> =
            changes.into_iter().filter(|change| change.for_engine().is_failover()).collect();
        let last = failovers.pop_if(|last| last.word.active() == active);
        let now = now();
        let by_guard = |change: MissedChange| Switched::by_guard(change.at, change.word, now);
        self.meanwhile = failovers.into_iter().map(by_guard).collect();
        let _ = self.handle(Event::ActiveChanged { changes: for_engine, active, draining, usable });
        let Pace { handled, decided, .. } = self.pace;
        // The word is stored a moment before the time is, and the record after both.
        let at =
            last.map_or_else(|| Time::from_nanos(self.mirror.maps().guard().switched_at()), |last| last.at);
        let at = if at > self.switch.at { at.min(handled) } else { handled };
        let pace = Pace { told: at, handled, decided };
        self.followed = Switched { pace, at, generation: found.generation(), by: Writer::DataPlane };
    }

    /// What happened since ACTIVE was known to this thread. Where another process has stored a generation of its own, counting
    /// goes on from what was known: generations of receipts only grow.
    fn meanwhile_until(&mut self, found: ActiveWord) -> MissedFailovers {
        self.read_records();
        let records = std::mem::take(&mut self.unfollowed);
        let known = Known {
            word: self.mirror.active(),
            at: self.switch.at.max(self.followed.at),
            switched_at: Time::from_nanos(self.mirror.maps().guard().switched_at()),
            now: now(),
        };
        // What came after `found` was read is for the next time.
        self.unfollowed = records.iter().filter(|record| is_after(record, found)).copied().collect();
        let mut meanwhile = MissedFailovers::new(known, found, records);
        if meanwhile.is_foreign {
            let last = meanwhile.changes.last().map_or(known.word, |last| last.word);
            meanwhile.word = self.mirror.recount_active(last);
            let (found, now) = (found.generation(), meanwhile.word.generation());
            if found != last.generation() {
                self.recording.warn(text::recounted(found, now));
            }
        }
        meanwhile
    }

    /// Reads EVENTS. Records that are of no failover go to the log.
    fn read_records(&mut self) {
        while let Some(record) = self.records.as_mut().and_then(|records| records.next()) {
            let record = record.ok();
            match record.and_then(|record| record.event()) {
                Some(DataPlaneEvent::FailedOver(_) | DataPlaneEvent::Ticked(..)) => {
                    self.unfollowed.extend(record);
                }
                Some(DataPlaneEvent::Announced(_)) => {}
                Some(DataPlaneEvent::HostMacLearned(mac)) => {
                    self.recording.add(Entry::Info(format!("the host behind the port has {mac}")));
                }
                None => self.recording.warn("the programs sent an event of another version"),
            }
        }
    }

    /// What is in EVENTS although ACTIVE is as it was known: failovers that were followed before their records came.
    fn hear_of_others(&mut self) {
        self.read_records();
        let word = self.mirror.active();
        self.unfollowed.retain(|record| is_after(record, word));
    }

    /// Writes to the maps again what another process has changed in an emergency, or by mistake.
    fn restore_maps(&self) {
        let foreign = self.mirror.restore();
        if !foreign.is_empty() {
            self.effects.read(|reads| reads.restored.extend(foreign));
        }
    }

    /// Reports what another process had written where something else is written now.
    fn overwritten(&self, map: &'static str, was_foreign: bool) {
        if was_foreign {
            self.effects.read(|reads| _ = reads.restored.insert(map));
        }
    }

    fn write_slave(&self, slot: Slot, entry: SlaveEntry) {
        self.overwritten(names::SLAVES, self.mirror.set_slave(slot, entry));
    }

    /// What the carrier guard goes by: each slave's device, and the order in which they are tried.
    fn inform_guard(&mut self, reader: Option<&DeviceReader>) {
        let mut changed = Vec::new();
        for slave in self.engine.slaves() {
            let entry = self.mirror.slave(slave.slot);
            if entry.ifindex() != slave.ifindex {
                continue;
            }
            let mut wanted = entry.with_link_failure_count(slave.link_failure_count);
            if !slave.joined {
                wanted = wanted.with_handle(DeviceHandle::NONE);
            } else if wanted.handle() == DeviceHandle::NONE {
                // A device that cannot be read now is read again after the next event. Until then the guard does not
                // judge it.
                let state = reader.and_then(|reader| reader.read(slave.ifindex).ok().flatten());
                wanted = wanted.with_handle(state.map_or(DeviceHandle::NONE, |state| state.handle()));
            }
            if wanted != entry {
                changed.push((slave.slot, wanted));
            }
        }
        changed.into_iter().for_each(|(slot, entry)| self.write_slave(slot, entry));
        let rank = Rank::new(self.engine.rank());
        if self.mirror.rank() != rank {
            self.overwritten(names::GUARD, self.mirror.set_rank(rank));
        }
        let preference = self.engine.preference();
        if self.mirror.clock().preference != preference {
            self.mirror.update_clock(|clock| clock.preference = preference);
        }
    }

    fn device(&mut self, event: &LinkEvent, reader: Option<&DeviceReader>) {
        match event {
            LinkEvent::Changed(link) => {
                let is_ours = [self.host, self.port].contains(&link.ifindex)
                    || self.engine.slaves().any(|slave| slave.ifindex == link.ifindex);
                if is_ours {
                    self.is_changed.store(true, Ordering::Release);
                }
                if link.ifindex == self.host {
                    self.effects.look(|looks| looks.host = true);
                } else if link.link == Some(self.host) && link.link_netns.is_none() && !link.is_end_of_pair()
                {
                    self.uppers_changed();
                }
                let Some((slot, renamed, mac_changed)) = self
                    .engine
                    .slaves()
                    .find(|slave| slave.ifindex == link.ifindex)
                    .map(|slave| (slave.slot, slave.name != link.name, slave.mac != link.mac))
                else {
                    // IFLA_LINK of a link that was moved here counts in another namespace.
                    let below = link.link.filter(|_| link.link_netns.is_none() && !link.is_end_of_pair());
                    self.effects.look(|looks| {
                        looks.appeared.insert(link.ifindex);
                        below.into_iter().for_each(|below| looks.below.insert(below));
                    });
                    return;
                };
                if renamed {
                    self.fact(Event::Renamed { slot, name: link.name.clone() }, reader);
                }
                if let Some(master) = link.master {
                    // The kernel would release it from a bond of its own (`do_set_master`).
                    self.effects.send(Effect::GivenAway { slot, master });
                    self.fact(Event::Leave { slot }, reader);
                    return;
                }
                if mac_changed {
                    self.effects.look(|looks| looks.slave_macs |= slot.bit());
                }
                self.observe(slot, link.ifindex, link.has_link(), reader);
            }
            LinkEvent::Deleted { ifindex, end_of_pair, .. } => {
                let slot =
                    self.engine.slaves().find(|slave| slave.ifindex == *ifindex).map(|slave| slave.slot);
                let Some(slot) = slot else {
                    // An end of a pair lies above nothing; of many bonds, each would look at all links when one goes.
                    // bond0 itself is one, and may have gone to another namespace.
                    if !end_of_pair || *ifindex == self.host {
                        self.uppers_changed();
                    }
                    return;
                };
                self.fact(Event::Gone { slot }, reader);
                self.effects.send(Effect::Forget { slot });
            }
            // Events were lost: the next look at the links finds out, and it is made now.
            LinkEvent::Overrun => {
                self.is_changed.store(true, Ordering::Release);
                self.effects.look(|looks| looks.addresses = Interfaces::any());
                self.poll_links(reader);
            }
        }
    }

    fn uppers_changed(&self) {
        self.effects.look(|looks| looks.uppers = true);
        self.prober.uppers_changed();
    }

    /// Tells the engine a slave's link.
    fn observe(&mut self, slot: Slot, ifindex: u32, said: bool, reader: Option<&DeviceReader>) {
        let seen = self.read_device(slot, ifindex, reader);
        let link = self.link(slot, seen.up().unwrap_or(said));
        self.fact(Event::Link { slot, link }, reader);
    }

    /// What may be asked of the slaves' devices by their handles: whether links that were up still are.
    fn questions(&self) -> impl Iterator<Item = (Slot, LinkQuestion)> {
        let was_up = |slot: &Slot| self.links.get(slot).is_some_and(|link| link.up);
        let known = Slot::all()
            .zip(self.mirror.slaves())
            .filter(move |(slot, entry)| was_up(slot) && entry.handle() != DeviceHandle::NONE);
        known.map(|(slot, entry)| (slot, LinkQuestion::new(entry.ifindex(), entry.handle())))
    }

    /// Reads a slave's device, without netlink.
    fn read_device(&mut self, slot: Slot, ifindex: u32, reader: Option<&DeviceReader>) -> Sight {
        if self.with_link & slot.bit() != 0 {
            self.set_blind(None);
            return Sight::Up;
        }
        let Some(reader) = reader else { return Sight::Nothing };
        let answer = reader.read(ifindex);
        self.set_blind(answer.as_ref().err().map(ToString::to_string));
        Sight::from(answer)
    }

    /// Logs that devices cannot be read any more, for this reason, or that they can again.
    fn set_blind(&mut self, why: Option<String>) {
        let is_blind = why.is_some();
        if is_blind != std::mem::replace(&mut self.is_blind, is_blind) {
            self.recording.add(match why {
                Some(why) => Entry::Warn(format!("links are read by netlink until then: {why}")),
                None => Entry::Info("links are read without netlink again".to_owned()),
            });
        }
    }

    /// The link of a slave that is up or down now, with what is known of its speed.
    fn link(&mut self, slot: Slot, up: bool) -> Link {
        let before = self.links.get(&slot).copied().unwrap_or(Link::new(false));
        if up != before.up {
            // The speed may be another one now; it is asked for beside, and told when it is known.
            self.speeds_to_read |= slot.bit();
            let asked = self.speeds_asked.entry(slot).or_default();
            *asked = SpeedAsked { number: asked.number.wrapping_add(1), is_open: true };
        }
        let is_stale = up && self.speeds_asked.get(&slot).is_some_and(|asked| asked.is_open);
        Link { up, is_stale, ..before }
    }

    /// What a slave's link is capable of was read.
    fn speed(
        &mut self,
        (slot, number): (Slot, u32),
        (speed, duplex): (Speed, Duplex),
        reader: Option<&DeviceReader>,
    ) {
        let asked = self.speeds_asked.get_mut(&slot).filter(|asked| asked.number == number);
        if let (Some(asked), Some(link)) = (asked, self.links.get_mut(&slot)) {
            asked.is_open = false;
            *link = Link { speed, duplex, is_stale: false, ..*link };
            self.fact(Event::Speed { slot, speed, duplex }, reader);
        }
    }

    /// What is read of the slot's former slave is not of the next one.
    fn speed_is_another(&mut self, slot: Slot) {
        let asked = self.speeds_asked.entry(slot).or_default();
        *asked = SpeedAsked { number: asked.number.wrapping_add(1), is_open: false };
    }

    fn poll_links(&mut self, reader: Option<&DeviceReader>) {
        self.restore_maps();
        let slaves = self.engine.slaves().filter(|slave| slave.joined);
        let slaves: Vec<_> = slaves.map(|slave| (slave.slot, slave.ifindex)).collect();
        let mut links = Vec::new();
        for &(slot, ifindex) in &slaves {
            // What cannot be read is as it was, and netlink is asked.
            if let Some(up) = self.read_device(slot, ifindex, reader).up() {
                links.push((slot, self.link(slot, up)));
            }
        }
        if links.len() < slaves.len() && !self.awaits_netlink {
            self.awaits_netlink = true;
            self.effects.read(|reads| reads.links = true);
        }
        if !links.is_empty() || slaves.is_empty() {
            let awaits_netlink = self.awaits_netlink;
            self.fact(Event::Links(links), reader);
            self.awaits_netlink = awaits_netlink;
        }
    }

    /// Does what the engine wants done, until it wants nothing more.
    fn carry_out(&mut self, reader: Option<&DeviceReader>) {
        let (mut has_failed_over, mut has_macs) = (false, false);
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::PollLinks => self.poll_links(reader),
                Command::ReadCounters { slot } => self.read_counters(slot),
                Command::ReadProbes => self.read_probes(),
                Command::WriteSlave { slot, ifindex, wire_mac, permanent_mac, queue_id } => {
                    let known = Some(self.mirror.slave(slot)).filter(|known| known.ifindex() == ifindex);
                    if known.is_none() {
                        // Without it the new slave begins with the counters of the former one in its slot.
                        let _ = self.mirror.reset_counters(slot);
                        self.links.remove(&slot);
                        self.speed_is_another(slot);
                    }
                    let known = known.unwrap_or_default();
                    let entry = SlaveEntry::new(ifindex, wire_mac, permanent_mac)
                        .with_queue_id(queue_id)
                        .with_handle(known.handle())
                        .with_link_failure_count(known.link_failure_count());
                    self.write_slave(slot, entry);
                }
                Command::ClearSlave { slot } => {
                    self.links.remove(&slot);
                    self.speed_is_another(slot);
                    self.mirror.clear_slave(slot);
                }
                Command::Switch { active, draining, usable } => {
                    let before = self.mirror.active();
                    let change =
                        if active == before.active() { WordChange::None } else { WordChange::MayFailOver };
                    match self.mirror.switch(active, draining, usable) {
                        Ok(next) => {
                            self.ledger.follow(next, change);
                            let (pace, generation) = (self.pace, next.generation());
                            self.switch = Switched { pace, at: now(), generation, by: Writer::Agent };
                        }
                        // The data plane was faster. The engine follows, and decides again.
                        Err(found) => {
                            self.active_is(found);
                            self.switch = self.followed;
                        }
                    }
                }
                Command::Notify(notice) => {
                    if let Some(draft) = self.draft(&notice) {
                        has_failed_over = true;
                        self.ledger.begin();
                        self.recording.add(Entry::Failover(Box::new(draft)));
                    }
                    if matches!(notice, Notice::PolicyTurnedActive { .. }) {
                        self.effects.send(Effect::PolicyTurnedActive);
                    }
                    self.recording.add(Entry::Notice(notice));
                }
                Command::Enslave { slot, mac } => {
                    let joining = self.engine.slaves().find(|slave| slave.slot == slot);
                    if let Some(slave) = joining {
                        let name = slave.name.to_owned();
                        self.effects.send(Effect::Enslave { slot, ifindex: slave.ifindex, name, mac });
                    }
                }
                Command::Probe { slot, mac } => {
                    if let Some(slave) = self.engine.slaves().find(|slave| slave.slot == slot) {
                        let (ifindex, options) = (slave.ifindex, self.engine.options().clone());
                        self.prober.round(Round { slot, ifindex, mac, options });
                    }
                }
                Command::Announce { slot, mac } => {
                    let slave = self.engine.slaves().find(|slave| slave.slot == slot);
                    let ifindex = slave.map(|slave| slave.ifindex).unwrap_or_default();
                    if !self.announcer_task.announce(slot, ifindex, mac) {
                        // It could not be sent.
                        let _ = self.engine.handle(now(), Event::Announced { slot });
                    }
                }
                Command::Release { slot, mac } => self.effects.send(Effect::Release { slot, mac }),
                Command::SetCarrier(up) => self.effects.send(Effect::SetCarrier(up)),
                Command::SetSlaveMac { slot, mac } => {
                    has_macs = true;
                    self.effects.send(Effect::SetMac { of: MacOf::Slave(slot), mac, answers: 1 });
                }
                Command::SetBondMac(mac) => {
                    has_macs = true;
                    self.effects.send(Effect::SetMac { of: MacOf::Bond, mac, answers: 1 });
                }
                Command::Report { slot, mac } => self.effects.read(|reads| reads.report = Some((slot, mac))),
                Command::AskNeighbours => self.effects.read(|reads| reads.neighbours = true),
            }
        }
        if has_failed_over && has_macs {
            self.effects.send(Effect::FailedOver);
        } else if has_failed_over {
            self.recording.add(Entry::FirstPartDone);
        }
        let to_read = std::mem::take(&mut self.speeds_to_read);
        for slot in Slot::all().filter(|slot| to_read & slot.bit() != 0) {
            let number = self.speeds_asked.get(&slot).map(|asked| asked.number);
            self.effects.read(|reads| reads.speeds[slot.index()] = number);
        }
        self.inform_guard(reader);
        self.ledger.settle();
        self.unrecorded = 0;
        self.answer_if_settled();
    }

    fn answer_if_settled(&mut self) {
        if !self.settling.is_empty() && self.engine.pending().next().is_none() {
            self.publish_status();
            // A request that has been answered already waits no more.
            for reply in self.settling.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    /// What is known of a failover here. The switch is made: nothing waits for this.
    fn draft(&mut self, notice: &Notice) -> Option<Draft> {
        let Notice::Failover { from, to, reason, seen, chosen } = notice else { return None };
        let (made, nobody_looked) = match seen {
            Seen::Guard | Seen::Tick => match self.meanwhile.pop_front() {
                Some(made) => (made, true),
                None => (self.followed, self.is_adopting),
            },
            _ => (self.switch, false),
        };
        let is_last = !nobody_looked || self.meanwhile.is_empty() && self.is_adopting;
        let unrecorded = if is_last { std::mem::take(&mut self.unrecorded) } else { 0 };
        let Switched { pace: Pace { told, handled, decided }, at, generation, by } = made;
        let heard = handled.saturating_sub(told);
        let (seen, made) = match by {
            Writer::Agent => {
                let (decide, switch) = (decided.saturating_sub(handled), at.saturating_sub(decided));
                (*seen, Made::ByAgent { detect: heard, decide, switch })
            }
            Writer::DataPlane => {
                let by_tick = *seen == Seen::Tick;
                (if by_tick { Seen::Tick } else { Seen::Guard }, Made::ByDataPlane { heard })
            }
        };
        let slots = self.engine.slaves().map(|slave| slave.slot.index() as u32);
        let now = DropsBefore::read(self.mirror.maps(), slots);
        let before = self.none_since.take().filter(|_| from.is_none()).or_else(|| now.clone());
        let before = before.filter(|_| !nobody_looked);
        self.none_since = now.filter(|_| to.is_none());
        Some(Draft {
            from: from.clone(),
            to: to.clone(),
            reason: *reason,
            seen,
            chosen: *chosen,
            made,
            switched: at,
            generation,
            before,
            is_late: nobody_looked,
            unrecorded,
            is_announced: to.is_some() && self.engine.options().num_grat_arp > 0,
        })
    }

    fn read_probes(&mut self) {
        let slaves = self.engine.slaves().filter(|slave| slave.joined);
        let heard =
            slaves.map(|slave| Heard { slot: slave.slot, times: self.mirror.maps().probe_times(slave.slot) });
        let heard = heard.collect();
        let _ = self.handle(Event::Probes(heard));
    }

    fn read_counters(&mut self, slot: Slot) {
        // Without counters there is nothing to tell; the next look may succeed.
        if let Ok(stats) = self.mirror.maps().stats(slot.index() as u32) {
            let (tx_packets, rx_unicast) = (stats.tx_packets, stats.rx_unicast);
            let _ = self.engine.handle(now(), Event::Counters { slot, tx_packets, rx_unicast });
        }
    }
}
