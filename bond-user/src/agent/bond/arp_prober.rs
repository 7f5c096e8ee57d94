//! Probes the targets of the ARP monitor. A late probe is indistinguishable from a dead path, so this is a task of its own, in
//! which nothing waits for RTNL: routes are looked up without it, and the devices above the bond are read concurrently, while
//! probes use what was known before.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use bond_common::{
    abi::{Slot, Targets},
    mac::Mac,
};
use bond_core::{
    event::Event,
    options::{ArpValidate, BondOptions},
};
use bytes::BytesMut;
use ipnet::IpNet;
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    agent::bond::{
        engine_handle::{BondId, EngineHandle},
        interface::Host,
    },
    report::{log, wording},
    sys::{
        Devices, SysError,
        dataplane::MapMirror,
        devices::{LookUpRoutes, SendFrames},
        netlink::{Address, VlanTag},
        probe,
    },
};

/// The shortest time between two reads of what is above the bond.
const BETWEEN_READS: Duration = Duration::from_millis(100);

/// How others reach the task. None of it waits: a round that comes late is replaced by the next.
#[derive(Clone)]
pub struct Probing {
    rounds: watch::Sender<Option<ProbeRound>>,
    uppers: Arc<Notify>,
    /// Of the path monitor.
    other_uppers: Arc<Notify>,
}

/// The task's ends of [`Probing`].
pub struct ProbeOrders {
    rounds: watch::Receiver<Option<ProbeRound>>,
    uppers: Arc<Notify>,
}

impl Probing {
    pub fn new() -> (Self, ProbeOrders) {
        let (rounds, received) = watch::channel(None);
        let uppers = Arc::<Notify>::default();
        let other_uppers = Arc::default();
        (Self { rounds, uppers: Arc::clone(&uppers), other_uppers }, ProbeOrders { rounds: received, uppers })
    }

    pub fn round(&self, round: ProbeRound) {
        let _ = self.rounds.send_replace(Some(round));
    }

    /// A device above bond0 came, changed or went, or bond0 itself did.
    pub fn uppers_changed(&self) {
        self.uppers.notify_one();
        self.other_uppers.notify_one();
    }

    /// Returns what is notified of such changes, too.
    pub fn other_uppers(&self) -> Arc<Notify> {
        Arc::clone(&self.other_uppers)
    }
}

/// One question to every target.
#[derive(Clone)]
pub struct ProbeRound {
    pub slot: Slot,
    pub ifindex: u32,
    /// The source of the frames.
    pub mac: Mac,
    pub options: BondOptions,
}

/// The task's state. It ends when all senders are dropped.
pub struct ArpProber {
    id: BondId,
    bond: String,
    mirror: Arc<MapMirror>,
    engine: EngineHandle,
    /// A connection that nothing else uses: look-ups of routes do not queue behind requests that wait for RTNL. Made when
    /// a route is looked up: it takes more memory than the rest of a bond.
    routes: Option<Box<dyn LookUpRoutes>>,
    reader: ReachReader,
    /// As it was read last.
    reach: Option<Reach>,
    /// Being read; at most one is wanted.
    reads: JoinSet<Result<Reach, SysError>>,
    /// When it was read last.
    last_read: Instant,
    /// A device above the bond has changed since.
    has_changed: bool,
    /// Devices by which a target's route leaves, and which were not above the bond when that was read last.
    unknown_devices: HashSet<u32>,
    /// With the ifindex that each is for. Closing one takes the kernel a while.
    sockets: HashMap<Slot, (u32, Box<dyn SendFrames>)>,
    /// Targets that are not probed, or to which there is no route.
    route_faults: RouteFaults,
    /// What the tick sends while no agent runs.
    prepared: Option<Vec<BytesMut>>,
    /// The last round was not sent because this process lacks descriptors, memory or a permission.
    is_short: bool,
}

/// The bond whose targets are probed.
pub struct Of {
    pub id: BondId,
    pub bond: String,
    pub mirror: Arc<MapMirror>,
    pub engine: EngineHandle,
}

/// How targets are reached.
enum Reach {
    /// By the kernel's routes through these devices, each with the tags of its frames.
    ByRoutes(HashMap<u32, Vec<VlanTag>>),
    /// bond0 is in another namespace, whose routes cannot be looked up: by its addresses.
    ByAddresses(Vec<(Address, Vec<VlanTag>)>),
    /// The addresses of the host behind the port are not known.
    BehindPort,
}

/// Reads how targets are reached.
#[derive(Clone)]
struct ReachReader {
    host: Host,
    devices: Arc<dyn Devices>,
}

impl ReachReader {
    async fn read(self) -> Result<Reach, SysError> {
        let Host::Pair { port, .. } = self.host else { return Ok(Reach::BehindPort) };
        let port = self.devices.link_by_index(port).await?;
        let Some(bond) = port.link else { return Ok(Reach::BehindPort) };
        let netns = port.link_netns;
        let above = probe::devices_above(bond, &self.devices.links(netns).await?);
        if netns.is_none() {
            return Ok(Reach::ByRoutes(above));
        }
        let addresses = self.devices.addresses(netns).await?.into_iter();
        let tagged = |address: Address| above.get(&address.ifindex).map(|tags| (address, tags.clone()));
        Ok(Reach::ByAddresses(addresses.filter_map(tagged).collect()))
    }
}

/// Faults of the routes to targets: each is logged once, when it has lasted. While a bond comes up, its addresses and
/// routes are not there yet.
#[derive(Debug, Default)]
struct RouteFaults(HashMap<IpAddr, RouteFault>);

#[derive(Debug)]
struct RouteFault {
    since: Instant,
    is_logged: bool,
}

impl RouteFaults {
    /// Shorter ones are not logged.
    const LASTS: Duration = Duration::from_secs(5);

    /// Notes a fault at this moment. Returns whether it is to be logged.
    fn is_due(&mut self, target: IpAddr, now: Instant) -> bool {
        let fault = self.0.entry(target).or_insert(RouteFault { since: now, is_logged: false });
        let is_due = !fault.is_logged && now.saturating_duration_since(fault.since) >= Self::LASTS;
        fault.is_logged |= is_due;
        is_due
    }

    /// Notes that the route is right.
    fn settle(&mut self, target: IpAddr) {
        self.0.remove(&target);
    }
}

/// How one target is probed.
enum TargetRoute {
    From {
        tags: Vec<VlanTag>,
        source: IpAddr,
    },
    /// Untagged and from no address, as the driver does: any answer shows that the path works.
    NoRoute,
    /// Its route does not lead through the bond.
    NotThroughBond,
    /// Its route leads through a device that is not known yet.
    Unknown,
}

/// A probe of one target.
enum Probe {
    Arp { tags: Vec<VlanTag>, source: Ipv4Addr, target: Ipv4Addr },
    Ns { tags: Vec<VlanTag>, source: Ipv6Addr, target: Ipv6Addr },
}

impl Probe {
    /// Returns the frame with this source MAC address.
    fn frame(&self, mac: Mac) -> BytesMut {
        match self {
            Self::Arp { tags, source, target } => probe::arp_request(mac, tags, *source, *target),
            Self::Ns { tags, source, target } => probe::neighbour_solicitation(mac, tags, *source, *target),
        }
    }
}

impl ArpProber {
    /// Reading `devices` may wait for RTNL.
    pub fn new(of: Of, host: Host, devices: Arc<dyn Devices>) -> Self {
        let Of { id, bond, mirror, engine } = of;
        Self {
            id,
            bond,
            mirror,
            engine,
            routes: None,
            reader: ReachReader { host, devices },
            reach: None,
            reads: JoinSet::new(),
            last_read: Instant::now(),
            has_changed: false,
            unknown_devices: HashSet::new(),
            sockets: HashMap::new(),
            route_faults: RouteFaults::default(),
            prepared: None,
            is_short: false,
        }
    }

    pub async fn run(mut self, mut orders: ProbeOrders) {
        self.read_reach();
        loop {
            let next_read = sleep_until(self.last_read + BETWEEN_READS);
            tokio::select! {
                biased;
                changed = orders.rounds.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let round = orders.rounds.borrow_and_update().clone();
                    if let Some(round) = round {
                        self.round(&round).await;
                    }
                }
                Some(seen) = self.reads.join_next() => self.seen(seen),
                () = orders.uppers.notified() => {
                    self.unknown_devices.clear();
                    self.has_changed = true;
                }
                () = next_read, if self.has_changed && self.reads.is_empty() => self.read_reach(),
            }
        }
    }

    async fn round(&mut self, round: &ProbeRound) {
        match self.ask(round).await {
            Ok(()) => {
                self.is_short = false;
                self.engine.event(self.id, Event::Probed { slot: round.slot });
            }
            Err(error) if error.is_lack() => {
                if !std::mem::replace(&mut self.is_short, true) {
                    log::of(&self.bond).warn(wording::targets_unprobed(&error));
                }
                return self.engine.event(self.id, Event::NotProbed { slot: round.slot });
            }
            // The engine notices if it lasts; otherwise it would be logged at each interval.
            Err(error) => {
                log::of(&self.bond).debug(error);
                self.engine.event(self.id, Event::ProbeFailed { slot: round.slot });
            }
        }
        // No event reports addresses of another namespace. A first read that failed is repeated.
        let is_stale = matches!(self.reach, Some(Reach::ByAddresses(_)) | None);
        if is_stale && self.reads.is_empty() {
            self.read_reach();
        }
    }

    fn read_reach(&mut self) {
        (self.last_read, self.has_changed) = (Instant::now(), false);
        self.reads.abort_all();
        self.reads.spawn(self.reader.clone().read());
    }

    fn seen(&mut self, seen: Result<Result<Reach, SysError>, JoinError>) {
        match seen {
            Ok(Ok(reach)) => self.reach = Some(reach),
            // bond0 is going.
            Ok(Err(error)) => log::of(&self.bond).debug(error),
            // Another read replaced it.
            Err(_) => {}
        }
    }

    /// `bond_arp_send_all`, `bond_ns_send_all`
    async fn ask(&mut self, round: &ProbeRound) -> Result<(), SysError> {
        let ProbeRound { slot, ifindex, mac, options } = round;
        let mut targets = Targets::default().with_prober(*slot);
        let mut probes: Vec<Probe> = Vec::new();
        for (index, &target) in options.arp_ip_target.iter().enumerate() {
            if let Some((tags, source)) = self.way(target.into(), options.arp_validate).await? {
                let source = if let IpAddr::V4(ip) = source { ip } else { Ipv4Addr::UNSPECIFIED };
                targets.set_ipv4(index, target.octets(), source.octets());
                probes.push(Probe::Arp { tags, source, target });
            }
        }
        for (index, &target) in options.ns_ip6_target.iter().enumerate() {
            if let Some((tags, source)) = self.way(target.into(), options.arp_validate).await? {
                let source = if let IpAddr::V6(ip) = source { ip } else { Ipv6Addr::UNSPECIFIED };
                targets.set_ipv6(index, target.octets(), source.octets());
                probes.push(Probe::Ns { tags, source, target });
            }
        }
        // Before the first of them can be answered.
        self.mirror.set_targets(targets);
        self.prepare_tick(&probes);
        let frames: Vec<_> = probes.iter().map(|probe| probe.frame(*mac)).collect();
        let answer = self.send(*slot, *ifindex, &frames);
        if answer.is_err() {
            self.sockets.remove(slot);
        }
        answer
    }

    /// Has the tick send the same while no agent runs.
    fn prepare_tick(&mut self, probes: &[Probe]) {
        let frames: Vec<_> = probes.iter().map(|probe| probe.frame(Mac::ZERO)).collect();
        if self.prepared.as_ref() != Some(&frames) {
            if !self.mirror.set_probes(&frames) && self.mirror.maps().clock().is_some() {
                log::of(&self.bond).warn(wording::PROBES_TOO_LONG);
            }
            self.prepared = Some(frames);
        }
    }

    fn send(&mut self, slot: Slot, ifindex: u32, frames: &[BytesMut]) -> Result<(), SysError> {
        let socket = match self.sockets.remove(&slot) {
            Some((of, socket)) if of == ifindex => socket,
            _ => self.reader.devices.open_frames(ifindex)?,
        };
        let (_, socket) = self.sockets.entry(slot).or_insert((ifindex, socket));
        frames.iter().try_for_each(|frame| socket.send(frame))
    }

    /// Returns the tags and the source with which a target is probed; None if it is not.
    async fn way(
        &mut self,
        target: IpAddr,
        validate: ArpValidate,
    ) -> Result<Option<(Vec<VlanTag>, IpAddr)>, SysError> {
        let unspecified =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        match self.find_route(target, unspecified).await? {
            TargetRoute::From { tags, source } => {
                self.route_faults.settle(target);
                Ok(Some((tags, source)))
            }
            TargetRoute::NoRoute => {
                if validate != ArpValidate::None && self.route_faults.is_due(target, Instant::now()) {
                    log::of(&self.bond).warn(wording::no_route(target));
                }
                Ok(Some((Vec::new(), unspecified)))
            }
            TargetRoute::NotThroughBond => {
                if self.route_faults.is_due(target, Instant::now()) {
                    log::of(&self.bond).warn(wording::route_elsewhere(target));
                }
                Ok(None)
            }
            TargetRoute::Unknown => Ok(None),
        }
    }

    async fn find_route(&mut self, target: IpAddr, unspecified: IpAddr) -> Result<TargetRoute, SysError> {
        while self.reach.is_none() {
            // It was not read yet.
            let Some(seen) = self.reads.join_next().await else { return Ok(TargetRoute::NoRoute) };
            self.seen(seen);
        }
        let above = match &self.reach {
            Some(Reach::ByRoutes(above)) => above,
            Some(Reach::ByAddresses(addresses)) => {
                let near = |address: &Address| {
                    IpNet::new(address.ip, address.prefix_len).is_ok_and(|net| net.contains(&target))
                };
                let found = addresses.iter().find(|(address, _)| near(address) && !address.is_tentative());
                let way =
                    found.map(|(address, tags)| TargetRoute::From { tags: tags.clone(), source: address.ip });
                return Ok(way.unwrap_or(TargetRoute::NoRoute));
            }
            Some(Reach::BehindPort) | None => {
                return Ok(TargetRoute::From { tags: Vec::new(), source: unspecified });
            }
        };
        let routes = match &mut self.routes {
            Some(routes) => routes,
            none => none.insert(self.reader.devices.open_routes()?),
        };
        let Some(way) = routes.route_to(target).await? else { return Ok(TargetRoute::NoRoute) };
        if let Some(tags) = above.get(&way.ifindex) {
            // While the bond's addresses are tentative the kernel offers ::1, which no host answers.
            let source = way.source.filter(|ip| !ip.is_loopback()).unwrap_or(unspecified);
            return Ok(TargetRoute::From { tags: tags.clone(), source });
        }
        // No event reports a VLAN above a VLAN.
        if self.unknown_devices.insert(way.ifindex) {
            self.read_reach();
            return Ok(TargetRoute::Unknown);
        }
        Ok(if self.reads.is_empty() && !self.has_changed {
            TargetRoute::NotThroughBond
        } else {
            TargetRoute::Unknown
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_logged_once_when_they_have_lasted() {
        let (start, mut route_faults) = (Instant::now(), RouteFaults::default());
        let target = IpAddr::from([192, 0, 2, 1]);
        let at = |ms| start + Duration::from_millis(ms);
        let due: Vec<_> = (0..20).filter(|step| route_faults.is_due(target, at(step * 1000))).collect();
        assert_eq!(due, [5]);
        route_faults.settle(target);
        // The address is set within a second.
        assert!(!route_faults.is_due(target, at(20_000)) && !route_faults.is_due(target, at(20_900)));
        route_faults.settle(target);
        assert!(!route_faults.is_due(target, at(30_000)) && route_faults.is_due(target, at(35_000)));
    }
}
