//! Asks the targets of the ARP monitor. A probe that comes late looks like a path that is dead, so this is a task of
//! its own, in which nothing waits for RTNL: routes are looked up without it, and what is above the bond is read
//! beside, while probes go by what was known before.

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
        engine_thread::{BondId, EngineHandle},
        interface::Host,
    },
    report::log,
    sys::{
        Devices, SysError,
        dataplane::MapMirror,
        devices::{LookUpRoutes, SendFrames},
        netlink::{Address, VlanTag},
        probe,
    },
};

/// Between two looks at what is above the bond.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How others reach the task. None of it waits: a round that comes late is replaced by the next.
#[derive(Clone)]
pub struct Probing {
    rounds: watch::Sender<Option<Round>>,
    uppers: Arc<Notify>,
}

/// The task's ends of [`Probing`].
pub struct ProbeOrders {
    rounds: watch::Receiver<Option<Round>>,
    uppers: Arc<Notify>,
}

impl Probing {
    pub fn new() -> (Self, ProbeOrders) {
        let (rounds, asked) = watch::channel(None);
        let uppers = Arc::<Notify>::default();
        (Self { rounds, uppers: Arc::clone(&uppers) }, ProbeOrders { rounds: asked, uppers })
    }

    pub fn round(&self, round: Round) {
        let _ = self.rounds.send_replace(Some(round));
    }

    /// A device above bond0 came, changed or went, or bond0 itself did.
    pub fn uppers_changed(&self) {
        self.uppers.notify_one();
    }
}

/// One question to every target.
#[derive(Clone)]
pub struct Round {
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
    /// a route is asked for: it takes more memory than the rest of a bond.
    routes: Option<Box<dyn LookUpRoutes>>,
    lookout: Lookout,
    /// What was seen last.
    surroundings: Option<Surroundings>,
    /// Being read; at most one is wanted.
    looks: JoinSet<Result<Surroundings, SysError>>,
    /// The last look.
    looked: Instant,
    /// Something has changed since.
    wants_look: bool,
    /// Devices by which a target's route leaves, and which were not above the bond at the last look.
    strangers: HashSet<u32>,
    /// With the ifindex that each is for. Closing one takes the kernel a while.
    sockets: HashMap<Slot, (u32, Box<dyn SendFrames>)>,
    /// Targets that are not asked, or to which there is no route.
    complaints: Complaints,
    /// The last round was not sent because this process lacks something.
    lacks: bool,
}

/// The bond whose targets are asked.
pub struct Of {
    pub id: BondId,
    pub bond: String,
    pub mirror: Arc<MapMirror>,
    pub engine: EngineHandle,
}

/// How targets are reached.
enum Surroundings {
    /// By the kernel's routes through these devices, each with the tags of its frames.
    Here(HashMap<u32, Vec<VlanTag>>),
    /// bond0 is in another namespace, whose routes cannot be looked up: by its addresses.
    Elsewhere(Vec<(Address, Vec<VlanTag>)>),
    /// Nothing is known of who is behind the port.
    Port,
}

/// Reads the surroundings.
#[derive(Clone)]
struct Lookout {
    host: Host,
    devices: Arc<dyn Devices>,
}

impl Lookout {
    async fn look(self) -> Result<Surroundings, SysError> {
        let Host::Pair { port, .. } = self.host else { return Ok(Surroundings::Port) };
        let port = self.devices.link_by_index(port).await?;
        let Some(bond) = port.link else { return Ok(Surroundings::Port) };
        let netns = port.link_netns;
        let above = probe::devices_above(bond, &self.devices.links(netns).await?);
        if netns.is_none() {
            return Ok(Surroundings::Here(above));
        }
        let addresses = self.devices.addresses(netns).await?.into_iter();
        let tagged = |address: Address| above.get(&address.ifindex).map(|tags| (address, tags.clone()));
        Ok(Surroundings::Elsewhere(addresses.filter_map(tagged).collect()))
    }
}

/// What is wrong with the way to a target: logged once, when it has lasted. While a bond comes up, its addresses and
/// routes are not there yet.
#[derive(Debug, Default)]
struct Complaints(HashMap<IpAddr, Complaint>);

#[derive(Debug)]
struct Complaint {
    since: Instant,
    is_logged: bool,
}

impl Complaints {
    /// Shorter ones are not logged.
    const LASTS: Duration = Duration::from_secs(5);

    /// Something is wrong at this moment. True if it is to be logged.
    fn is_due(&mut self, target: IpAddr, now: Instant) -> bool {
        let complaint = self.0.entry(target).or_insert(Complaint { since: now, is_logged: false });
        let is_due = !complaint.is_logged && now.saturating_duration_since(complaint.since) >= Self::LASTS;
        complaint.is_logged |= is_due;
        is_due
    }

    /// Nothing is.
    fn settle(&mut self, target: IpAddr) {
        self.0.remove(&target);
    }
}

/// How one target is asked.
enum Way {
    From {
        tags: Vec<VlanTag>,
        source: IpAddr,
    },
    /// Untagged and from no address, as the driver does: any answer shows that the path works.
    NoRoute,
    /// Its route does not lead through the bond.
    Aside,
    /// Its route leads through a device that is being looked for.
    Unknown,
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
            lookout: Lookout { host, devices },
            surroundings: None,
            looks: JoinSet::new(),
            looked: Instant::now(),
            wants_look: false,
            strangers: HashSet::new(),
            sockets: HashMap::new(),
            complaints: Complaints::default(),
            lacks: false,
        }
    }

    pub async fn run(mut self, mut orders: ProbeOrders) {
        self.look_around();
        loop {
            let next_look = sleep_until(self.looked + BETWEEN_LOOKS);
            tokio::select! {
                biased;
                asked = orders.rounds.changed() => {
                    if asked.is_err() {
                        return;
                    }
                    let round = orders.rounds.borrow_and_update().clone();
                    if let Some(round) = round {
                        self.round(&round).await;
                    }
                }
                Some(seen) = self.looks.join_next() => self.seen(seen),
                () = orders.uppers.notified() => {
                    self.strangers.clear();
                    self.wants_look = true;
                }
                () = next_look, if self.wants_look && self.looks.is_empty() => self.look_around(),
            }
        }
    }

    async fn round(&mut self, round: &Round) {
        match self.ask(round).await {
            Ok(()) => {
                self.lacks = false;
                self.engine.event(self.id, Event::Probed { slot: round.slot });
            }
            Err(error) if error.is_lack() => {
                if !std::mem::replace(&mut self.lacks, true) {
                    log::of(&self.bond).warn(format_args!(
                        "targets are not probed, and no slave is judged until they are: {error}"
                    ));
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
        let is_stale = matches!(self.surroundings, Some(Surroundings::Elsewhere(_)) | None);
        if is_stale && self.looks.is_empty() {
            self.look_around();
        }
    }

    fn look_around(&mut self) {
        (self.looked, self.wants_look) = (Instant::now(), false);
        self.looks.abort_all();
        self.looks.spawn(self.lookout.clone().look());
    }

    fn seen(&mut self, seen: Result<Result<Surroundings, SysError>, JoinError>) {
        match seen {
            Ok(Ok(surroundings)) => self.surroundings = Some(surroundings),
            // bond0 is going.
            Ok(Err(error)) => log::of(&self.bond).debug(error),
            // Another look was wanted instead.
            Err(_) => {}
        }
    }

    /// `bond_arp_send_all`, `bond_ns_send_all`
    async fn ask(&mut self, round: &Round) -> Result<(), SysError> {
        let Round { slot, ifindex, mac, options } = round;
        let mut targets = Targets::default().with_prober(*slot);
        let mut frames: Vec<BytesMut> = Vec::new();
        for (index, &target) in options.arp_ip_target.iter().enumerate() {
            if let Some((tags, source)) = self.way(target.into(), options.arp_validate).await? {
                let source = if let IpAddr::V4(ip) = source { ip } else { Ipv4Addr::UNSPECIFIED };
                targets.set_ipv4(index, target.octets(), source.octets());
                frames.push(probe::arp_request(*mac, &tags, source, target));
            }
        }
        for (index, &target) in options.ns_ip6_target.iter().enumerate() {
            if let Some((tags, source)) = self.way(target.into(), options.arp_validate).await? {
                let source = if let IpAddr::V6(ip) = source { ip } else { Ipv6Addr::UNSPECIFIED };
                targets.set_ipv6(index, target.octets(), source.octets());
                frames.push(probe::neighbour_solicitation(*mac, &tags, source, target));
            }
        }
        // Before the first of them can be answered.
        self.mirror.set_targets(targets);
        let answer = self.send(*slot, *ifindex, &frames);
        if answer.is_err() {
            self.sockets.remove(slot);
        }
        answer
    }

    fn send(&mut self, slot: Slot, ifindex: u32, frames: &[BytesMut]) -> Result<(), SysError> {
        let socket = match self.sockets.remove(&slot) {
            Some((of, socket)) if of == ifindex => socket,
            _ => self.lookout.devices.open_frames(ifindex)?,
        };
        let (_, socket) = self.sockets.entry(slot).or_insert((ifindex, socket));
        frames.iter().try_for_each(|frame| socket.send(frame))
    }

    /// The tags and the source with which a target is asked; None if it is not.
    async fn way(
        &mut self,
        target: IpAddr,
        validate: ArpValidate,
    ) -> Result<Option<(Vec<VlanTag>, IpAddr)>, SysError> {
        let unspecified =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        match self.find_way(target, unspecified).await? {
            Way::From { tags, source } => {
                self.complaints.settle(target);
                Ok(Some((tags, source)))
            }
            Way::NoRoute => {
                if validate != ArpValidate::None && self.complaints.is_due(target, Instant::now()) {
                    log::of(&self.bond)
                        .warn(format_args!("no route to the target {target}, and arp_validate is set"));
                }
                Ok(Some((Vec::new(), unspecified)))
            }
            Way::Aside => {
                if self.complaints.is_due(target, Instant::now()) {
                    log::of(&self.bond).warn(format_args!(
                        "the route to the target {target} is not through the bond: it is not probed"
                    ));
                }
                Ok(None)
            }
            Way::Unknown => Ok(None),
        }
    }

    async fn find_way(&mut self, target: IpAddr, unspecified: IpAddr) -> Result<Way, SysError> {
        while self.surroundings.is_none() {
            // The first look; there is nothing to go by yet.
            let Some(seen) = self.looks.join_next().await else { return Ok(Way::NoRoute) };
            self.seen(seen);
        }
        let above = match &self.surroundings {
            Some(Surroundings::Here(above)) => above,
            Some(Surroundings::Elsewhere(addresses)) => {
                let near = |address: &Address| {
                    IpNet::new(address.ip, address.prefix_len).is_ok_and(|net| net.contains(&target))
                };
                let found = addresses.iter().find(|(address, _)| near(address) && !address.is_tentative());
                let way = found.map(|(address, tags)| Way::From { tags: tags.clone(), source: address.ip });
                return Ok(way.unwrap_or(Way::NoRoute));
            }
            Some(Surroundings::Port) | None => {
                return Ok(Way::From { tags: Vec::new(), source: unspecified });
            }
        };
        let routes = match &mut self.routes {
            Some(routes) => routes,
            none => none.insert(self.lookout.devices.open_routes()?),
        };
        let Some(way) = routes.way_to(target).await? else { return Ok(Way::NoRoute) };
        if let Some(tags) = above.get(&way.ifindex) {
            // While the bond's addresses are tentative the kernel offers ::1, which no host answers.
            let source = way.source.filter(|ip| !ip.is_loopback()).unwrap_or(unspecified);
            return Ok(Way::From { tags: tags.clone(), source });
        }
        // A VLAN above a VLAN comes without an event that tells so.
        if self.strangers.insert(way.ifindex) {
            self.look_around();
            return Ok(Way::Unknown);
        }
        Ok(if self.looks.is_empty() && !self.wants_look { Way::Aside } else { Way::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_logged_once_when_they_have_lasted() {
        let (start, mut complaints) = (Instant::now(), Complaints::default());
        let target = IpAddr::from([192, 0, 2, 1]);
        let at = |ms| start + Duration::from_millis(ms);
        let due: Vec<_> = (0..20).filter(|step| complaints.is_due(target, at(step * 1000))).collect();
        assert_eq!(due, [5]);
        complaints.settle(target);
        // The address is set within a second.
        assert!(!complaints.is_due(target, at(20_000)) && !complaints.is_due(target, at(20_900)));
        complaints.settle(target);
        assert!(!complaints.is_due(target, at(30_000)) && complaints.is_due(target, at(35_000)));
    }
}
