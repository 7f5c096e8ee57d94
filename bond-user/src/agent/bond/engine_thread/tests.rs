//! A bond on the engine thread, with maps in files and without devices.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use bond_common::{
    abi::Slot,
    clock::decide::Cause,
    event::{AnnouncedRound, DataPlaneEvent, EventRecord},
};
use bond_core::{
    Engine, NewBond, Refusal,
    command::{Reason, Trigger},
    event::{Event, Link, NewSlave},
    options::{BondOptions, FailOverMac, SlaveOptions},
    status::BondStatus,
};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use super::{bond::Running, follow::DecisionTimes};
use crate::{
    agent::{
        AgentError,
        bond::{
            announcer::{AnnounceOrders, Announcing},
            arp_prober::{ProbeOrders, Probing},
            engine_handle::{BondId, BondInput, Member, Released},
            enslave_request::EnslaveRequest,
            interface::Host,
            ledger::Ledger,
            receipt_writer::ReceiptWriter,
            recorder::Recording,
            work::{End, Enslave, Job, Jobs, MacOf, Request, SetMac, Urgent, WorkQueue},
        },
        feed::Feed,
    },
    report::{moment::monotonic, receipt::Receipt},
    store::receipts,
    sys::{
        announcer::Announced,
        dataplane::{Events, MapMirror, OtherVersion, fake::mirror_in},
        directory::{Location, Trust},
        netlink::LinkEvent,
        testing::{found, mac},
    },
};

const UP: Link = Link::new(true);
const DOWN: Link = Link::new(false);

/// EVENTS, in memory.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<VecDeque<EventRecord>>>);

impl Events for Records {
    fn next(&mut self) -> Option<Result<EventRecord, OtherVersion>> {
        self.0.lock().unwrap().pop_front().map(Ok)
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// A bond, what its worker would do, and another writer of its maps.
struct Bench {
    bond: Running,
    records: Records,
    jobs: Jobs,
    recording: Recording,
    status: watch::Receiver<BondStatus>,
    other: MapMirror,
    directory: TempDir,
    _orders: (AnnounceOrders, ProbeOrders),
}

impl Bench {
    fn new(fail_over_mac: FailOverMac) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mirror = Arc::new(mirror_in(directory.path()));
        let ledger = Arc::new(Ledger::new(Arc::clone(&mirror)));
        let (run, maps) = (Location::at(directory.path()), Arc::clone(mirror.maps()));
        let writer = ReceiptWriter::new("bond0", &run, Feed::default(), maps, Arc::clone(&ledger));
        let recording = Recording::start(writer);
        let (work, jobs) = WorkQueue::new();
        let (announcer, announcements) = Announcing::new(Announced::default());
        let (prober, probes) = Probing::new();
        let options = BondOptions { miimon: 100_000, fail_over_mac, ..BondOptions::default() };
        let bond = NewBond {
            name: "bond0".into(),
            mac: mac(0xb0),
            mac_assigned: false,
            mac_stays: false,
            prearm: false,
            seed: 1,
            options,
            damping: None,
            watch: None,
        };
        let records = Records::default();
        let (shown, status) = watch::channel(Engine::new(bond.clone()).status());
        let member = Member {
            id: BondId(1),
            bond,
            left: None,
            mirror,
            records: Some(Box::new(records.clone())),
            ledger,
            work,
            recording: recording.clone(),
            prober,
            announcer,
            host: Host::Pair { bond: 1, port: 2, promisc: false },
            is_changed: Arc::new(AtomicBool::new(false)),
            status: shown,
        };
        let bond = Running::start(member, None);
        let other = mirror_in(directory.path());
        Self { bond, records, jobs, recording, status, other, directory, _orders: (announcements, probes) }
    }

    /// With slaves that have links; the first is active.
    async fn with_slaves(fail_over_mac: FailOverMac, slaves: u8) -> Self {
        let mut bench = Self::new(fail_over_mac);
        for index in 0..slaves {
            let (enslave, answer) = bench.enslave(index).await;
            bench.set_up(enslave.unwrap());
            answer.await.unwrap().unwrap();
        }
        while bench.job().await.is_some() {}
        bench
    }

    /// Returns the worker's job, and the future answer.
    async fn enslave(&mut self, index: u8) -> (Option<Enslave>, oneshot::Receiver<Result<(), AgentError>>) {
        let (reply, answer) = oneshot::channel();
        let (name, ifindex, mac) = (format!("nic{index}"), 10 + u32::from(index), mac(index));
        let options = SlaveOptions::default();
        let found = found(ifindex, &name, mac);
        let slave = NewSlave { name, ifindex, mac, can_set_mac: true, options, drained: false };
        let request = EnslaveRequest { slave, found, mac: None, claim: None, reply };
        self.bond.take(BondInput::Enslave(Box::new(request)), None);
        loop {
            match self.job().await {
                Some(Job::Request(Request::Enslave(enslave))) => return (Some(enslave), answer),
                Some(_) => {}
                None => return (None, answer),
            }
        }
    }

    /// What the worker does with it.
    fn set_up(&mut self, enslave: Enslave) {
        let Enslave { slot, request, .. } = enslave;
        let input = BondInput::Enslaved { slot, outcome: Ok(UP), reply: request.reply };
        self.bond.take(input, None);
    }

    fn release(&mut self, slot: Slot) -> Result<Released, Refusal> {
        let (reply, mut answer) = oneshot::channel();
        self.bond.take(BondInput::Release { slot, reply }, None);
        answer.try_recv().unwrap()
    }

    /// Returns the worker's next job; None if it has none. MAC addresses are set at once.
    async fn job(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.jobs.next() => {
                if let Some(Job::Urgent(Urgent::SetMac(SetMac { of, mac, .. }))) = &job {
                    let (mac, done) = (*mac, true);
                    let event = match *of {
                        MacOf::Bond => Event::BondMacSet { mac, done },
                        MacOf::Slave(slot) => Event::SlaveMacSet { slot, mac, done },
                    };
                    self.bond.fact(event, None);
                }
                job
            }
            () = std::future::ready(()) => None,
        }
    }

    fn active(&self) -> Option<usize> {
        self.other.maps().active().active().map(Slot::index)
    }

    async fn receipts(&self) -> Vec<Receipt> {
        self.recording.finish().await;
        receipts::read(&Location::at(self.directory.path()), Trust::Ours).unwrap()
    }
}

fn slot(index: u8) -> Slot {
    Slot::new(index).unwrap()
}

#[tokio::test]
async fn an_enslave_request_is_answered_when_readers_see_the_slave() {
    let mut bench = Bench::new(FailOverMac::None);
    let (enslave, mut answer) = bench.enslave(0).await;
    assert!(answer.try_recv().is_err(), "it is not set up yet");
    bench.set_up(enslave.unwrap());
    answer.try_recv().unwrap().unwrap();
    assert_eq!(bench.status.borrow().active_slave.as_deref(), Some("nic0"));
    assert_eq!(bench.active(), Some(0));
}

#[tokio::test]
async fn a_refused_enslave_request_is_answered_and_makes_no_work() {
    let mut bench = Bench::with_slaves(FailOverMac::None, 1).await;
    let (enslave, answer) = bench.enslave(0).await;
    assert!(enslave.is_none());
    let error = answer.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("nic0"), "{error}");
}

#[tokio::test]
async fn a_failed_enslave_request_is_answered_with_its_error() {
    let mut bench = Bench::new(FailOverMac::None);
    let (enslave, answer) = bench.enslave(0).await;
    let Enslave { slot, request, .. } = enslave.unwrap();
    let outcome = Err(AgentError::NoSuchBond("bond9".into()));
    bench.bond.take(BondInput::Enslaved { slot, outcome, reply: request.reply }, None);
    assert!(matches!(answer.await.unwrap(), Err(AgentError::NoSuchBond(_))));
    assert!(bench.status.borrow().slaves.is_empty());
}

#[tokio::test]
async fn a_release_is_answered_by_the_worker() {
    let mut bench = Bench::with_slaves(FailOverMac::None, 2).await;
    let mut released = bench.release(slot(1)).unwrap();
    let Some(Job::Request(Request::Release { reply: Some(reply), .. })) = bench.job().await else {
        panic!("no release")
    };
    assert!(released.done.try_recv().is_err(), "it is not released yet");
    reply.send(Ok(())).unwrap();
    released.done.await.unwrap().unwrap();
    assert!(bench.release(slot(9)).is_err());
}

#[tokio::test]
async fn the_release_of_a_slave_that_vanishes_while_it_drains_is_answered() {
    let mut bench = Bench::with_slaves(FailOverMac::None, 2).await;
    let _released = bench.release(slot(0)).unwrap();
    assert_eq!(bench.active(), Some(1));
    while let Some(job) = bench.job().await {
        assert!(!matches!(job, Job::Request(_) | Job::End(End::Keep { .. })), "it drains first");
    }
    let gone = LinkEvent::Deleted { ifindex: 10, end_of_pair: false, moved: false };
    bench.bond.device(&gone, None);
    loop {
        match bench.job().await {
            Some(Job::Request(Request::Forget { reply, .. })) => return assert!(reply.is_some()),
            Some(_) => {}
            None => panic!("it is not forgotten"),
        }
    }
}

#[tokio::test]
async fn a_failover_is_recorded_with_the_macs_of_its_batch() {
    let mut bench = Bench::with_slaves(FailOverMac::Active, 2).await;
    bench.bond.fact(Event::Link { slot: slot(0), link: DOWN }, None);
    assert_eq!(bench.active(), Some(1));
    let Some(Job::Urgent(Urgent::SetMac(change))) = bench.job().await else { panic!("no MAC address") };
    assert_eq!((change.of, change.mac), (MacOf::Bond, mac(1)));
    assert!(matches!(change.failover, Some((_, 1))), "it is a step of the failover");
    let receipt = bench.receipts().await.pop().unwrap();
    let Receipt { from, to, reason, seen, generation, .. } = receipt;
    assert_eq!((from.as_deref(), to.as_deref()), (Some("nic0"), Some("nic1")));
    assert_eq!((reason, seen), (Reason::LinkFailed, Trigger::LinkEvent));
    assert_eq!(generation, bench.other.maps().active().generation());
}

/// The guard failed over between the decision and its switch: the engine's switch is not made, and is decided again.
#[tokio::test]
async fn a_switch_that_comes_after_the_guards_follows_it() {
    let mut bench = Bench::with_slaves(FailOverMac::None, 3).await;
    bench.other.follow_active(bench.other.maps().active());
    let by_guard = bench.other.switch(Some(slot(1)), None, 0b110).unwrap();
    let now = monotonic();
    let times = DecisionTimes { trigger: now, handled: now, decided: now };
    bench.bond.switch((Some(slot(2)), None, 0b100), times);
    assert_eq!(bench.other.maps().active(), by_guard, "the guard's word stays");
    bench.bond.execute(None);
    bench.bond.publish_status();
    assert_eq!(bench.status.borrow().active_slave.as_deref(), Some("nic1"));
    let receipt = bench.receipts().await.pop().unwrap();
    assert_eq!((receipt.reason, receipt.seen), (Reason::CarrierGuard, Trigger::Guard));
    assert_eq!(receipt.generation, by_guard.generation());
}

/// A tick failed over and announced it; then the former slave's link returned, and ACTIVE changed once more.
#[tokio::test]
async fn a_failover_is_recorded_with_its_announcement_though_its_slave_has_returned() {
    let mut bench = Bench::with_slaves(FailOverMac::None, 2).await;
    bench.other.follow_active(bench.other.maps().active());
    let by_tick = bench.other.switch(Some(slot(1)), None, 0b10).unwrap();
    bench.other.switch(Some(slot(1)), None, 0b11).unwrap();
    let generation = by_tick.generation();
    let round = AnnouncedRound { generation, sent: 2, macs: 0, is_capped: false, failed: 0, number: 1 };
    let now = u64::try_from(monotonic().as_nanos()).unwrap();
    bench.records.0.lock().unwrap().extend([
        EventRecord::new(now, DataPlaneEvent::Ticked(by_tick, Cause::LinkLost)),
        EventRecord::new(now + 1, DataPlaneEvent::Announced(round)),
    ]);
    bench.bond.data_plane_events(None);
    let receipt = bench.receipts().await.pop().unwrap();
    assert_eq!((receipt.generation, receipt.to.as_deref()), (generation, Some("nic1")));
    assert_eq!(receipt.announced.map(|announcement| announcement.addresses), Some(2));
}

#[tokio::test]
async fn what_another_process_wrote_to_the_maps_is_restored_and_reported() {
    let mut bench = Bench::with_slaves(FailOverMac::None, 1).await;
    let entry = bench.other.maps().slave(slot(0));
    bench.other.clear_slave(slot(0));
    bench.bond.check_maps(None);
    assert_eq!(bench.other.maps().slave(slot(0)), entry);
    let Some(Job::Read(reads)) = bench.job().await else { panic!("nothing is reported") };
    assert_eq!(reads.restored, [bond_common::names::SLAVES].into());
}
