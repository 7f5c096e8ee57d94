//! One bond on the engine thread: its engine, and the execution of what that asks for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicBool},
};

use bond_common::{
    abi::{BondEntry, DeviceHandle, Rank, SlaveEntry, Slot},
    names,
};
use bond_core::{
    Engine, Refusal, Time,
    command::{Announce, Batch, Notice, Probe, Publish, Query, Report, Work},
    event::{Event, FoundPaths, Link, Reception},
    status::BondStatus,
};
use tokio::sync::{oneshot, watch};

use super::{
    draft::Drafter,
    follow::{DecisionTimes, Followed, Follower},
    links::{self, Links},
};
use crate::{
    agent::{
        AgentError,
        bond::{
            announcer::Announcing,
            arp_prober::{ProbeRound, Probing},
            confirmer::Confirm,
            engine_handle::{BondInput, Member, Released},
            enslave_request::{EnslaveRequest, Reply},
            interface::Host,
            kernel_monitor,
            ledger::{Ledger, WordChange},
            misdirections::Misdirections,
            path_targets,
            receipt_writer::{Draft, FailoverId},
            recorder::{Entry, Recording},
            work::{Enslave, MacOf, Request, SetMac, Urgent, WorkQueue},
        },
    },
    report::moment::monotonic as now,
    sys::dataplane::{ClockMaps, DeviceReader, MapMirror},
};

/// So long after its last tick the path monitor is taken to stand still: it proves no path. Longer than any period of the clock.
const LAPSE: Time = Time::from_secs(3);

/// What one event led to.
pub(super) struct Decision {
    pub batch: Batch,
    pub times: DecisionTimes,
    /// What the data plane did before, if the event was about that.
    pub followed: Followed,
    /// The request that the event was.
    enslave: Option<Box<EnslaveRequest>>,
}

/// A bond of this thread.
pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) mirror: Arc<MapMirror>,
    pub(super) work: WorkQueue,
    pub(super) recording: Recording,
    pub(super) prober: Probing,
    pub(super) announcer: Announcing,
    pub(super) host: Host,
    pub(super) is_changed: Arc<AtomicBool>,
    status: watch::Sender<BondStatus>,
    /// The engine has handled something since the status was published.
    is_status_old: bool,
    /// [`MapMirror::host_changes`] as of when the data plane knew everything that the engine knows; None if the engine has handled
    /// something since.
    informed: Option<u64>,
    pub(super) links: Links,
    /// When the present trigger was sent, or was due.
    trigger: Time,
    /// What is still to be executed, the oldest first.
    decisions: VecDeque<Decision>,
    pub(super) follower: Follower,
    pub(super) drafter: Drafter,
    pub(super) misdirections: Misdirections,
    pub(super) ledger: Arc<Ledger>,
    /// Answered as soon as nothing is pending.
    settling: Vec<oneshot::Sender<()>>,
    releasing: BTreeMap<Slot, Releasing>,
}

/// A client that waits for the release of a slave.
struct Releasing {
    /// Answered by the worker when the slave is released.
    reply: Reply,
    /// Answered as soon as the slave leaves the bond.
    notes: Option<oneshot::Sender<Vec<Notice>>>,
}

impl Running {
    /// Starts the engine of a bond, and executes what that asks for first.
    pub fn start(member: Member, reader: Option<&DeviceReader>) -> Self {
        let Member {
            id: _,
            bond,
            mut left,
            mirror,
            records,
            ledger,
            work,
            recording,
            prober,
            announcer,
            host,
            is_changed,
            status,
        } = member;
        let slaves = left.iter_mut().flat_map(|(left, _)| &mut left.slaves);
        let links = Links::new(links::present(slaves, reader));
        let now = now();
        let (left, missed) = left.unzip();
        let follower = Follower::new(records, &mirror, now);
        let followed = missed.as_ref().map_or_else(Followed::default, |missed| follower.adopted(missed, now));
        let missed = missed.unwrap_or_default();
        let mut misdirections = Misdirections::default();
        misdirections.add_missed(missed.misdirected, now);
        let (engine, batch) = match left {
            Some(left) => Engine::adopt(now, bond, left),
            None => (Engine::new(bond), Batch::default()),
        };
        // Adopting may elect.
        let decision = Decision { batch, times: DecisionTimes::at(now), followed, enslave: None };
        ledger.follow(mirror.active(), WordChange::MayFailOver);
        let mut running = Self {
            engine,
            mirror,
            work,
            recording,
            prober,
            announcer,
            host,
            is_changed,
            status,
            is_status_old: true,
            informed: None,
            links,
            trigger: now,
            decisions: VecDeque::from([decision]),
            follower,
            drafter: Drafter::new(missed.rounds),
            misdirections,
            ledger,
            settling: Vec::new(),
            releasing: BTreeMap::new(),
        };
        running.execute(reader);
        // The data plane may have changed ACTIVE since it was read for this.
        running.follow_data_plane();
        running.execute(reader);
        running
    }

    /// Returns when the engine needs to be called.
    pub fn deadline(&self) -> Option<Time> {
        self.engine.poll_timeout()
    }

    /// Sets when the trigger of what comes next was sent, or was due.
    pub fn set_trigger(&mut self, at: Time) {
        self.trigger = at;
    }

    pub fn take(&mut self, input: BondInput, reader: Option<&DeviceReader>) {
        match input {
            BondInput::Event(event) => self.fact(event, reader),
            BondInput::Request { event, reply } => {
                let answer = self.request(event, reader);
                let _ = reply.send(answer);
            }
            BondInput::Enslave(request) => self.enslave(request, reader),
            BondInput::Enslaved { slot, outcome, reply } => self.enslaved(slot, outcome, reply, reader),
            BondInput::Release { slot, reply } => {
                let answer = self.release(slot, reader);
                let _ = reply.send(answer);
            }
            BondInput::Speed(answer) => {
                if self.links.accept(answer) {
                    let (slot, speed, duplex) = (answer.slot, answer.speed, answer.duplex);
                    self.fact(Event::Speed { slot, speed, duplex }, reader);
                }
            }
            BondInput::AwaitSettled { reply } => {
                self.settling.push(reply);
                self.answer_if_settled();
            }
            BondInput::Pending { reply } => {
                let _ = reply.send(self.engine.pending().collect());
            }
            BondInput::Status { reply } => {
                self.publish_status();
                let _ = reply.send(self.engine.status());
            }
        }
    }

    /// Handles an event that is a fact, and executes what follows.
    pub fn fact(&mut self, event: Event, reader: Option<&DeviceReader>) {
        self.handle_fact(event);
        self.execute(reader);
    }

    /// Handles an event that is a fact; the engine refuses only requests.
    pub(super) fn handle_fact(&mut self, event: Event) {
        self.links.note(&event);
        self.follow_data_plane();
        let _ = self.handle(event, Followed::default());
    }

    /// Lets the engine decide, and has what it asks for executed after what was decided before.
    pub(super) fn handle(&mut self, event: Event, followed: Followed) -> Result<(), Refusal> {
        let decision = self.decide(event)?;
        self.decisions.push_back(Decision { followed, ..decision });
        Ok(())
    }

    fn decide(&mut self, event: Event) -> Result<Decision, Refusal> {
        let handled = now();
        let batch = self.engine.handle(handled, event)?;
        if self.engine.take_change() {
            self.is_status_old = true;
            self.informed = None;
        }
        let times = DecisionTimes { trigger: self.trigger, handled, decided: now() };
        Ok(Decision { batch, times, followed: Followed::default(), enslave: None })
    }

    fn request(&mut self, event: Event, reader: Option<&DeviceReader>) -> Result<(), Refusal> {
        self.follow_data_plane();
        let answer = self.handle(event, Followed::default());
        self.execute(reader);
        self.publish_status();
        answer
    }

    fn enslave(&mut self, request: Box<EnslaveRequest>, reader: Option<&DeviceReader>) {
        self.follow_data_plane();
        match self.decide(Event::Join(request.slave.clone())) {
            Ok(decision) => {
                self.decisions.push_back(Decision { enslave: Some(request), ..decision });
            }
            Err(refusal) => {
                let _ = request.reply.send(Err(refusal.into()));
            }
        }
        self.execute(reader);
    }

    fn enslaved(
        &mut self,
        slot: Slot,
        outcome: Result<Link, AgentError>,
        reply: Reply,
        reader: Option<&DeviceReader>,
    ) {
        let event = match &outcome {
            Ok(link) => Event::Joined { slot, link: *link },
            Err(_) => Event::JoinFailed { slot },
        };
        self.fact(event, reader);
        // Readers see it as a slave before the request is answered.
        self.publish_status();
        let _ = reply.send(outcome.map(drop));
    }

    fn release(&mut self, slot: Slot, reader: Option<&DeviceReader>) -> Result<Released, Refusal> {
        self.follow_data_plane();
        self.handle(Event::Leave { slot }, Followed::default())?;
        let ((reply, done), (sender, notes)) = (oneshot::channel(), oneshot::channel());
        self.releasing.insert(slot, Releasing { reply, notes: Some(sender) });
        self.execute(reader);
        self.publish_status();
        Ok(Released { done, notes })
    }

    /// Returns the answer that is owed for the release of a slave, which is the worker's to give.
    pub(super) fn take_release(&mut self, slot: Slot) -> Option<Reply> {
        self.releasing.remove(&slot).map(|client| client.reply)
    }

    /// Executes what the engine asks for, until it asks for nothing more.
    pub(super) fn execute(&mut self, reader: Option<&DeviceReader>) {
        while let Some(Decision { batch, times, followed, enslave }) = self.decisions.pop_front() {
            let mac_changes = batch.mac_changes();
            let Batch { publish, queries, reports, announcements, probes, work } = batch;
            publish.into_iter().for_each(|publish| self.publish(publish, times));
            queries.iter().for_each(|query| self.answer(query, reader));
            self.note_releases(&reports, &work);
            let failover = self.record(reports, followed, mac_changes);
            announcements.into_iter().for_each(|round| self.announce(round));
            probes.into_iter().for_each(|round| self.probe(round));
            self.hand_on(work, failover, enslave);
        }
        for (slot, number) in self.links.take_questions() {
            self.work.read(|reads| reads.speeds[slot.index()] = Some(number));
        }
        self.hand_on_rounds();
        if self.informed != Some(self.mirror.host_changes()) {
            self.inform_guard(reader);
        }
        self.ledger.settle();
        self.answer_if_settled();
    }

    /// Sends what was noticed of slaves that are released now to the clients that wait for that. The active slave is released
    /// when it has drained, long after the request.
    fn note_releases(&mut self, reports: &[Report], work: &[Work]) {
        let notes: Vec<_> = reports.iter().filter_map(note_of_release).cloned().collect();
        for work in work {
            if let Work::Release { slot, .. } = work
                && let Some(client) = self.releasing.get_mut(slot).and_then(|client| client.notes.take())
            {
                let _ = client.send(notes.clone());
            }
        }
    }

    fn publish(&mut self, publish: Publish, times: DecisionTimes) {
        match publish {
            Publish::SetPolicy(policy) => self.mirror.update_bond(|bond| {
                bond.with_policy(policy).with_flags(bond.flags() | BondEntry::POLICY_TURNED)
            }),
            Publish::WriteSlave { slot, ifindex, wire_mac, permanent_mac, queue_id } => {
                let mut known = self.mirror.slave(slot);
                if known.ifindex() != ifindex {
                    known = SlaveEntry::default();
                    // Without it the new slave begins with the counters of the former one in its slot.
                    let _ = self.mirror.reset_counters(slot);
                    self.links.forget(slot);
                }
                let entry = SlaveEntry::new(ifindex, wire_mac, permanent_mac)
                    .with_queue_id(queue_id)
                    .with_handle(known.handle())
                    .with_link_failure_count(known.link_failure_count());
                self.write_slave(slot, entry);
            }
            Publish::ClearSlave { slot } => {
                self.links.forget(slot);
                self.mirror.clear_slave(slot);
            }
            Publish::Switch { active, draining, usable } => self.switch((active, draining, usable), times),
        }
    }

    fn answer(&mut self, query: &Query, reader: Option<&DeviceReader>) {
        match query {
            Query::PollLinks => self.poll_links(reader),
            Query::ReadProbes => {
                let slaves = self.engine.slaves().filter(|slave| slave.joined).map(|slave| slave.slot);
                let times = |slot| Reception { slot, times: self.mirror.maps().probe_times(slot) };
                let receptions = slaves.map(times).collect();
                let _ = self.handle(Event::Probes(receptions), Followed::default());
            }
            // Counters that cannot be read are read again at the next time.
            Query::ReadCounters { slot } => {
                if let Ok(stats) = self.mirror.maps().stats(slot.index() as u32) {
                    let (tx_packets, rx_unicast) = (stats.tx_packets, stats.rx_unicast);
                    let counters = Event::Counters { slot: *slot, tx_packets, rx_unicast };
                    let _ = self.handle(counters, Followed::default());
                }
            }
        }
    }

    /// Hands the reports to the recorder. Returns the failover of this batch, if there is one.
    fn record(
        &mut self,
        reports: Vec<Report>,
        mut followed: Followed,
        mac_changes: usize,
    ) -> Option<FailoverId> {
        let is_failover = |report: &Report| matches!(report, Report::Failover(_));
        // Those before it were made by the data plane, and are over.
        let last = reports.iter().rposition(is_failover);
        let mut id = None;
        for (place, report) in reports.into_iter().enumerate() {
            match report {
                Report::Notice(notice) => self.recording.add(Entry::Notice(notice)),
                Report::Failover(failover) => {
                    let mac_changes = if Some(place) == last { mac_changes } else { 0 };
                    let draft = self.draft(failover, &mut followed, mac_changes);
                    id = Some(draft.id);
                    if Some(place) == last {
                        self.confirm(&draft);
                    }
                    self.ledger.begin();
                    self.recording.add(Entry::Failover(Box::new(draft)));
                }
            }
        }
        id
    }

    /// Has the peers of a failover that is announced confirmed. What the new slave hears is noted from now on.
    fn confirm(&self, draft: &Draft) {
        let Some(slot) = self.mirror.active().active().filter(|_| draft.is_announced && !draft.is_late)
        else {
            return;
        };
        self.mirror.observe(true);
        let ifindex = self.mirror.slave(slot).ifindex();
        self.announcer.confirm(Confirm { id: draft.id, slot, ifindex, switched: draft.switched });
    }

    fn announce(&mut self, round: Announce) {
        let Announce { slot, mac } = round;
        let slave = self.engine.slaves().find(|slave| slave.slot == slot);
        let ifindex = slave.map(|slave| slave.ifindex).unwrap_or_default();
        if !self.announcer.announce(slot, ifindex, mac) {
            // It could not be sent.
            let _ = self.handle(Event::Announced { slot }, Followed::default());
        }
    }

    fn probe(&mut self, round: Probe) {
        let Probe { slot, mac } = round;
        if let Some(slave) = self.engine.slaves().find(|slave| slave.slot == slot) {
            let (ifindex, options) = (slave.ifindex, self.engine.options().clone());
            self.prober.round(ProbeRound { slot, ifindex, mac, options });
        }
    }

    /// Hands to the worker what takes time. `failover` is the one that the MAC addresses belong to, `enslave` the request
    /// that was accepted.
    fn hand_on(
        &mut self,
        work: Vec<Work>,
        failover: Option<FailoverId>,
        mut enslave: Option<Box<EnslaveRequest>>,
    ) {
        for work in work {
            match work {
                Work::SetCarrier(up) => self.work.urgent(Urgent::SetCarrier(up)),
                Work::SetSlaveMac { slot, mac } => {
                    self.work.urgent(Urgent::SetMac(SetMac::new(MacOf::Slave(slot), mac, failover)));
                }
                Work::SetBondMac(mac) => {
                    self.work.urgent(Urgent::SetMac(SetMac::new(MacOf::Bond, mac, failover)));
                }
                Work::Enslave { slot, mac } => match enslave.take() {
                    Some(request) => self.work.request(Request::Enslave(Enslave { slot, mac, request })),
                    // An event that no request came with: there is no interface to set up.
                    None => self.handle_fact(Event::JoinFailed { slot }),
                },
                Work::Release { slot, mac } => {
                    let reply = self.take_release(slot);
                    self.work.request(Request::Release { slot, mac, reply });
                }
                Work::SendReports { slot, mac } => self.work.read(|reads| reads.report = Some((slot, mac))),
                Work::AskNeighbours => self.work.read(|reads| reads.neighbours = true),
            }
        }
    }

    fn answer_if_settled(&mut self) {
        if !self.settling.is_empty() && self.engine.pending().next().is_none() {
            self.publish_status();
            // A request that was answered by its deadline does not wait any more.
            for reply in self.settling.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    /// Publishes for readers how the bond is now.
    pub fn publish_status(&mut self) {
        if std::mem::take(&mut self.is_status_old) {
            let status = self.engine.status();
            self.status.send_if_modified(|shown| {
                let is_new = *shown != status;
                *shown = status;
                is_new
            });
        }
    }

    /// Stores that the agent runs: ticks of the clock then leave to it what does not have to be done at once. Has a clock that
    /// stands still started again.
    pub fn note_agent(&self, now: u64) {
        let Some(clock) = self.mirror.maps().clock() else { return };
        clock.note_agent(now);
        if clock.has_stopped(now) {
            self.work.check(|pending| pending.clock = true);
        }
    }

    /// Has the engine know what the path monitor has found, if that is something else than it knows.
    pub fn follow_paths(&mut self, reader: Option<&DeviceReader>) {
        let Some(path) = self.mirror.maps().clock().map(ClockMaps::path) else { return };
        let entry = self.mirror.path();
        let probed = entry.is_on().then_some(entry.macs);
        if probed != self.follower.probed {
            self.follower.probed = probed;
            // The slaves have to receive the answers.
            self.work.check(|pending| pending.uppers = true);
        }
        // The time first: what is read after it is at least as new.
        let seen_at = Time::from_nanos(path.seen_at());
        let found = FoundPaths {
            failed: path.failed(),
            unproven: path.unproven(),
            wants_proof: entry.wants_proof() && now().saturating_sub(seen_at) < LAPSE,
            seen_at,
        };
        let is_same = self.follower.paths == Some(FoundPaths { seen_at: Time::ZERO, ..found });
        if !is_same || self.engine.awaits_paths() {
            self.follower.paths = Some(FoundPaths { seen_at: Time::ZERO, ..found });
            self.fact(Event::Paths(found), reader);
        }
    }

    /// Compares the maps with what was written to them.
    pub fn check_maps(&mut self, reader: Option<&DeviceReader>) {
        self.follow_data_plane();
        self.execute(reader);
        self.restore_maps();
    }

    /// Writes to the maps again what another process has changed in an emergency, or by mistake.
    pub(super) fn restore_maps(&self) {
        let foreign = self.mirror.restore();
        if !foreign.is_empty() {
            self.work.read(|reads| reads.restored.extend(foreign));
        }
    }

    /// Reports what another process had written where something else is written now.
    pub(super) fn overwritten(&self, map: &'static str, was_foreign: bool) {
        if was_foreign {
            self.work.read(|reads| _ = reads.restored.insert(map));
        }
    }

    fn write_slave(&self, slot: Slot, entry: SlaveEntry) {
        self.overwritten(names::SLAVES, self.mirror.set_slave(slot, entry));
    }

    /// Writes what the carrier guard goes by: each slave's device, and the order in which they are tried.
    fn inform_guard(&mut self, reader: Option<&DeviceReader>) {
        let entries = self.mirror.slaves();
        // Before what is read below.
        let host_changes = self.mirror.host_changes();
        let mut is_complete = true;
        for slave in self.engine.slaves() {
            let entry = entries[slave.slot.index()];
            if entry.ifindex() != slave.ifindex {
                is_complete = false;
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
                is_complete &= state.is_some();
            }
            if wanted != entry {
                self.write_slave(slave.slot, wanted);
            }
        }
        let rank = Rank::new(self.engine.rank());
        if self.mirror.rank() != rank {
            self.overwritten(names::GUARD, self.mirror.set_rank(rank));
        }
        let (preference, avoided) = (self.engine.preference(), self.engine.avoided_by_agent().into());
        let clock = self.mirror.clock();
        if (clock.preference, clock.avoided) != (preference, avoided) {
            self.mirror.update_clock(|clock| (clock.preference, clock.avoided) = (preference, avoided));
        }
        kernel_monitor::follow_slaves(&self.mirror, &self.engine);
        path_targets::follow_slaves(&self.mirror, &self.engine);
        self.informed = is_complete.then_some(host_changes);
    }
}

/// Returns the notice of a report that the client who has a slave released should read, too.
fn note_of_release(report: &Report) -> Option<&Notice> {
    match report {
        Report::Notice(notice @ Notice::ReleasedMacInUse { .. }) => Some(notice),
        Report::Notice(_) | Report::Failover(_) => None,
    }
}
