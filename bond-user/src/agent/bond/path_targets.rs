//! Which targets the path monitor probes, and with which frames: they follow the bond's addresses and routes.
//!
//! The monitor itself runs in the kernel. What it was given last stays when the agent ends.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bond_common::{
    abi::{BondEntry, MAX_SLAVES, Slot},
    mac::Mac,
    path::layout::{MOST_PATH_TARGETS, PathEntry, PathMethod, pair},
};
use bond_core::{Engine, status::BondStatus};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::interface::Host;
use crate::{
    config::{self, PathTarget, WantedPath},
    report::{log, wording},
    sys::{
        Devices, SysError,
        dataplane::{MapMirror, PathProbe},
        devices::LookUpRoutes,
        netlink::{KernelRoute, VlanTag},
        probe,
    },
};

/// The time from one look-up of the targets' routes to the next.
const BETWEEN_LOOK_UPS: Duration = Duration::from_secs(1);
/// So many tags of VLANs fit into a frame of the path monitor.
const MOST_TAGS: usize = 2;

/// How others reach the task, which ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub struct PathOrders {
    wanted: watch::Sender<WantedPath>,
    fault: SharedFault,
}

impl PathOrders {
    /// Has the monitor run so from now on.
    pub fn want(&self, wanted: WantedPath) {
        let _ = self.wanted.send_replace(wanted);
    }

    /// Returns why nothing is probed, or not everything that is wanted; None if everything is.
    pub fn fault(&self) -> Option<String> {
        self.fault.get()
    }
}

/// Why nothing is probed.
#[derive(Clone, Debug, Default)]
struct SharedFault(Arc<Mutex<Option<String>>>);

impl SharedFault {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether it is another one than before.
    fn set(&self, fault: Option<String>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, fault.clone()) != fault
    }
}

/// What the task works with.
pub struct TargetContext {
    pub bond: String,
    pub mirror: Arc<MapMirror>,
    pub host: Host,
    pub devices: Arc<dyn Devices>,
    pub status: watch::Receiver<BondStatus>,
    /// Notified when a device above the bond came, changed or went.
    pub uppers: Arc<Notify>,
    /// A random number, which marks the echoes of this bond if none does yet.
    pub nonce: u64,
}

/// The task.
struct PathTargets {
    of: TargetContext,
    fault: SharedFault,
    /// A connection that nothing else uses: look-ups do not queue behind requests that wait for RTNL.
    routes: Option<Box<dyn LookUpRoutes>>,
    /// The devices through which the bond is reached, with the tags of their frames; None if they have to be read.
    above: Option<HashMap<u32, Vec<VlanTag>>>,
    /// What the maps hold.
    published: Option<(WantedPath, Vec<PathProbe>)>,
}

/// Starts the task.
pub fn start(of: TargetContext, wanted: WantedPath) -> PathOrders {
    let fault = SharedFault::default();
    let (wanted, received) = watch::channel(wanted);
    let task = PathTargets { of, fault: fault.clone(), routes: None, above: None, published: None };
    tokio::spawn(task.run(received));
    PathOrders { wanted, fault }
}

impl PathTargets {
    async fn run(mut self, mut orders: watch::Receiver<WantedPath>) {
        loop {
            let wanted = orders.borrow_and_update().clone();
            self.look_up(&wanted).await;
            tokio::select! {
                biased;
                changed = orders.changed() => if changed.is_err() {
                    return;
                },
                () = self.of.uppers.notified() => self.above = None,
                () = sleep(BETWEEN_LOOK_UPS), if wanted.target.is_on() => {}
            }
        }
    }

    /// Looks the targets up, and publishes what has changed.
    async fn look_up(&mut self, wanted: &WantedPath) {
        if !wanted.target.is_on() {
            self.fault.set(None);
            return self.stop();
        }
        if self.of.status.borrow().options.arp_interval > 0 {
            self.note_fault(Some(wording::PATH_BESIDE_ARP.to_owned()));
            return self.stop();
        }
        // A map that cannot be read now is read again with the next look-up.
        if let Err(error) = self.of.mirror.read_behind() {
            log::of(&self.of.bond).debug(error);
        }
        match self.probes(&wanted.target).await {
            Ok((probes, fault)) => {
                // Targets that cannot be reached for a moment, while addresses change, are not given up.
                let has_known = self.published.as_ref().is_some_and(|(_, known)| !known.is_empty());
                self.note_fault(fault);
                if !probes.is_empty() || !has_known || self.wants_others(wanted) {
                    self.publish(wanted, probes);
                }
            }
            // Nothing is known of the routes now.
            Err(error) => {
                self.above = None;
                log::of(&self.of.bond).debug(error);
            }
        }
    }

    fn wants_others(&self, wanted: &WantedPath) -> bool {
        self.published.as_ref().is_none_or(|(known, _)| known.target != wanted.target)
    }

    fn note_fault(&self, fault: Option<String>) {
        if self.fault.set(fault.clone())
            && let Some(fault) = fault
        {
            log::of(&self.of.bond).warn(wording::path_fault_of_targets(&fault));
        }
    }

    fn stop(&mut self) {
        self.published = None;
        self.of.mirror.update_path(|entry| entry.interval = 0);
        self.set_flag(false);
    }

    fn publish(&mut self, wanted: &WantedPath, probes: Vec<PathProbe>) {
        if self.published.as_ref().is_some_and(|(known, of)| known == wanted && *of == probes) {
            return;
        }
        let settings = |entry: &mut PathEntry| {
            entry.interval = u64::try_from(wanted.interval.as_nanos()).unwrap_or(u64::MAX);
            entry.misses = wanted.misses.into();
            entry.method = method(wanted.method) as u64;
            entry.proof = wanted.proof();
            if entry.nonce == 0 {
                // The lowest bits are the slot's, and zero stands for none.
                entry.nonce = self.of.nonce & !0xf | 0x10;
            }
        };
        // A change of the settings, or an agent that adopts the bond, forgets nothing that is known of the targets.
        let pairs = |probes: &[PathProbe]| {
            let mut pairs: Vec<_> = probes.iter().map(|probe| probe.pair).collect();
            pairs.resize(MOST_PATH_TARGETS, 0);
            pairs
        };
        let held = self.of.mirror.path().targets;
        if held.as_slice() == pairs(&probes)
            && self.published.as_ref().is_none_or(|(_, known)| *known == probes)
        {
            self.of.mirror.update_path(settings);
        } else {
            self.of.mirror.set_path(&probes, settings);
        }
        self.set_flag(!probes.is_empty());
        self.published = Some((wanted.clone(), probes));
    }

    fn set_flag(&self, on: bool) {
        if self.of.mirror.bond().has(BondEntry::PATH) != on {
            let flags = |flags: u32| if on { flags | BondEntry::PATH } else { flags & !BondEntry::PATH };
            self.of.mirror.update_bond(|bond| bond.with_flags(flags(bond.flags())));
        }
    }

    /// Returns the probes of the targets that are neighbours of the bond, and what is wrong with the others.
    async fn probes(&mut self, target: &PathTarget) -> Result<(Vec<PathProbe>, Option<String>), SysError> {
        let Host::Pair { bond, .. } = self.of.host else {
            return Ok((Vec::new(), Some(wording::PATH_BEHIND_PORT.to_owned())));
        };
        if self.above.is_none() {
            let port = self.of.devices.link_by_index(self.of.host.port()).await?;
            if port.link_netns.is_some() {
                return Ok((Vec::new(), Some(wording::PATH_ELSEWHERE.to_owned())));
            }
            self.above = Some(probe::devices_above(bond, &self.of.devices.links(None).await?));
        }
        let hosts = match target {
            PathTarget::Off => Vec::new(),
            PathTarget::Hosts(hosts) => hosts.clone(),
            PathTarget::Gateway => match self.gateway().await? {
                Ok(gateway) => vec![gateway],
                Err(fault) => return Ok((Vec::new(), Some(fault))),
            },
        };
        let (mut probes, mut fault) = (Vec::new(), None);
        for host in hosts {
            match self.probe(host).await? {
                Ok(probe) => probes.push(probe),
                Err(why) => fault = fault.or(Some(why)),
            }
        }
        Ok((probes, fault))
    }

    /// Returns the gateway of the default route over the bond, of the lowest metric, or why there is none to probe.
    async fn gateway(&self) -> Result<Result<Ipv4Addr, String>, SysError> {
        let mut routes = Vec::new();
        for device in self.above.iter().flatten().map(|(device, _)| *device) {
            routes.extend(self.of.devices.routes_of(device).await?);
        }
        let fault = || match ipv6_gateway_of(&routes) {
            Some(gateway) => wording::path_gateway_ipv6(gateway),
            None => wording::NO_GATEWAY.to_owned(),
        };
        Ok(gateway_of(&routes).ok_or_else(fault))
    }

    /// Returns the probe of a target, or why it cannot be probed.
    async fn probe(&mut self, target: Ipv4Addr) -> Result<Result<PathProbe, String>, SysError> {
        let routes = match &mut self.routes {
            Some(routes) => routes,
            none => none.insert(self.of.devices.open_routes()?),
        };
        let Some(route) = routes.route_to(target.into()).await? else {
            return Ok(Err(wording::path_no_route(target)));
        };
        let Some(tags) = self.above.as_ref().and_then(|above| above.get(&route.ifindex)) else {
            return Ok(Err(wording::path_elsewhere(target)));
        };
        let Some(IpAddr::V4(source)) = route.source else { return Ok(Err(wording::path_no_route(target))) };
        if let Some(via) = route.via {
            return Ok(Err(wording::path_indirect(target, via)));
        }
        if tags.len() > MOST_TAGS {
            return Ok(Err(wording::path_too_many_tags(target)));
        }
        Ok(Ok(probe_of(tags, source, target)))
    }
}

/// Returns the gateway of the default route with the lowest metric in the main table.
fn gateway_of(routes: &[KernelRoute]) -> Option<Ipv4Addr> {
    let is_default = |route: &&KernelRoute| route.prefix_len == 0 && route.table == KernelRoute::MAIN;
    let gateway = |route: &KernelRoute| match (route.to, route.via) {
        (IpAddr::V4(_), Some(IpAddr::V4(via))) => Some((route.metric, via)),
        _ => None,
    };
    routes.iter().filter(is_default).filter_map(gateway).min().map(|(_, via)| via)
}

/// Returns the IPv6 gateway of a default route in the main table, also of one for IPv4 (RFC 8950).
fn ipv6_gateway_of(routes: &[KernelRoute]) -> Option<Ipv6Addr> {
    let defaults = routes.iter().filter(|route| route.prefix_len == 0 && route.table == KernelRoute::MAIN);
    let gateways = defaults.filter_map(|route| match route.via {
        Some(IpAddr::V6(via)) => Some((route.metric, via)),
        Some(IpAddr::V4(_)) | None => None,
    });
    gateways.min().map(|(_, via)| via)
}

/// Returns the probe of a neighbour with these tags from this address of ours.
fn probe_of(tags: &[VlanTag], source: Ipv4Addr, target: Ipv4Addr) -> PathProbe {
    let echo = probe::echo(tags, source).to_vec();
    let request = probe::arp_request(Mac::ZERO, tags, source, target).to_vec();
    let payload = (14 + 4 * tags.len()) as u32;
    PathProbe { pair: pair(target.octets(), source.octets()), payload, echo, request }
}

fn method(method: config::PathMethod) -> PathMethod {
    match method {
        config::PathMethod::Auto => PathMethod::Auto,
        config::PathMethod::Echo => PathMethod::Echo,
        config::PathMethod::Arp => PathMethod::Arp,
    }
}

/// Writes what the path monitor has to know of the slaves.
pub fn follow_slaves(mirror: &MapMirror, engine: &Engine) {
    let slaves: Vec<_> = engine
        .slaves()
        .filter(|slave| slave.joined)
        .map(|slave| {
            let entry = mirror.slave(slave.slot);
            Macs {
                slot: slave.slot,
                own: slave.mac,
                permanent: entry.permanent_mac(),
                wire: entry.wire_mac(),
            }
        })
        .collect();
    let macs = probe_macs(&slaves, mirror.active().active(), |mac| mirror.is_behind(mac));
    mirror.update_path(|entry| {
        entry.joined = slaves.iter().fold(0, |mask, slave| mask | u64::from(slave.slot.bit()));
        entry.macs = macs;
    });
}

/// The MAC addresses of a slave.
#[derive(Clone, Copy, Debug)]
struct Macs {
    slot: Slot,
    own: Mac,
    permanent: Mac,
    wire: Mac,
}

/// Returns the MAC address by which each slot is probed while it is a backup: one that stands at no other port of the
/// switches, so that none of their tables moves. That is the permanent one, unless the active slave or a host behind the bond
/// has it; then the slave's present one, and if that is taken, too, a locally administered one that follows from the
/// permanent one.
fn probe_macs(slaves: &[Macs], active: Option<Slot>, is_behind: impl Fn(Mac) -> bool) -> [u64; MAX_SLAVES] {
    let mut macs = [0; MAX_SLAVES];
    for slave in slaves {
        let others = || slaves.iter().filter(|other| other.slot != slave.slot);
        // What the active slave sends with, and what others may send with as backups.
        let is_taken = |mac: Mac| {
            is_behind(mac)
                || others().any(|other| mac == other.permanent || mac == other.own)
                || slaves
                    .iter()
                    .any(|other| Some(other.slot) == active && other.slot != slave.slot && mac == other.wire)
        };
        let wanted = [slave.permanent, slave.own].into_iter().chain(made_up(slave.permanent));
        let mac = wanted.into_iter().find(|mac| mac.is_unicast() && !is_taken(*mac));
        if let Some(place) = macs.get_mut(slave.slot.index()) {
            *place = mac.unwrap_or(Mac::ZERO).to_word();
        }
    }
    macs
}

/// Returns locally administered MAC addresses that follow from another one.
fn made_up(mac: Mac) -> impl Iterator<Item = Mac> {
    let [a, b, c, d, e, f] = mac.bytes();
    (1..=MAX_SLAVES as u8).map(move |number| Mac::new([a & !1 | 2, b, c, d, e ^ 0x80, f ^ number]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac::new([0x08, 0, 0x27, 0, 0, last])
    }

    #[test]
    fn the_gateway_is_that_of_the_best_default_route_over_the_bond() {
        let route = |to: &str, via: Option<&str>, metric| {
            let to: ipnet::IpNet = to.parse().unwrap();
            let via = via.map(|via| via.parse().unwrap());
            KernelRoute { metric, ..KernelRoute::new(3, to.addr(), to.prefix_len(), via) }
        };
        let routes = [
            route("192.0.2.0/24", None, 0),
            route("0.0.0.0/0", Some("192.0.2.9"), 200),
            route("0.0.0.0/0", Some("192.0.2.1"), 100),
            route("0.0.0.0/0", None, 0),
            route("::/0", Some("fe80::1"), 0),
            route("198.51.100.0/24", Some("192.0.2.7"), 0),
            KernelRoute { table: 7, ..route("0.0.0.0/0", Some("192.0.2.8"), 0) },
        ];
        assert_eq!(gateway_of(&routes), Some([192, 0, 2, 1].into()));
        assert_eq!(gateway_of(&routes[3..]), None);
        assert_eq!(ipv6_gateway_of(&routes[3..]), Some("fe80::1".parse().unwrap()));
        let over_ipv6 = [route("0.0.0.0/0", Some("fe80::7"), 0)];
        assert_eq!(
            (gateway_of(&over_ipv6), ipv6_gateway_of(&over_ipv6)),
            (None, Some("fe80::7".parse().unwrap()))
        );
        assert_eq!(ipv6_gateway_of(&routes[..3]), None);
    }

    #[test]
    fn backups_are_probed_by_mac_addresses_of_no_other_port() {
        // Two slaves: (own, permanent, wire) of each, the active one, and the MAC address of each as a backup.
        let table = [
            // none: both have the bond's, which is the first one's.
            ([(1, 1, 1), (1, 2, 1)], 0, [None, Some(mac(2))]),
            ([(1, 1, 1), (1, 2, 1)], 1, [None, Some(mac(2))]),
            // active: each has its own.
            ([(1, 1, 1), (2, 2, 2)], 0, [Some(mac(1)), Some(mac(2))]),
            // follow: the second one is active with the bond's, and the first one has the second one's.
            ([(2, 1, 1), (1, 2, 1)], 1, [None, None]),
            // A bond with a MAC address of its own.
            ([(9, 1, 9), (9, 2, 9)], 0, [Some(mac(1)), Some(mac(2))]),
        ];
        for (row, (slaves, active, expected)) in table.into_iter().enumerate() {
            let slaves: Vec<_> = slaves
                .into_iter()
                .enumerate()
                .map(|(index, (own, permanent, wire))| Macs {
                    slot: slot(index as u8),
                    own: mac(own),
                    permanent: mac(permanent),
                    wire: mac(wire),
                })
                .collect();
            let macs = probe_macs(&slaves, Some(slot(active)), |_| false);
            let found = [0, 1].map(|index| Mac::from_word(macs[index]));
            let taken: Vec<_> =
                slaves.iter().flat_map(|slave| [slave.own, slave.permanent, slave.wire]).collect();
            for (index, expected) in expected.into_iter().enumerate() {
                match expected {
                    Some(expected) => assert_eq!(found[index], expected, "row {row}, slot {index}"),
                    None => assert!(found[index].is_unicast() && !taken.contains(&found[index]), "row {row}"),
                }
            }
            assert_ne!(found[0], found[1], "row {row}");
        }
    }

    #[test]
    fn an_echo_is_from_and_to_our_own_address() {
        let tags = [VlanTag { ethertype: 0x8100, vid: 5 }];
        let probe = probe_of(&tags, [192, 0, 2, 7].into(), [192, 0, 2, 1].into());
        assert_eq!(probe.payload, 18);
        let ip = &probe.echo[18..];
        assert_eq!((&ip[12..16], &ip[16..20], ip[8]), (&[192, 0, 2, 7][..], &[192, 0, 2, 7][..], 255));
        assert_eq!(ip.len(), bond_common::path::answer::echo::END);
        assert_eq!(ip[22..24], 3785u16.to_be_bytes());
        let sum: u32 = ip[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the checksum of the header");
        assert_eq!((&probe.request[18 + 14..18 + 18], probe.request[7]), (&[192, 0, 2, 7][..], 0));
    }

    #[test]
    fn no_probe_carries_the_mac_address_of_a_host_behind_the_bond() {
        let slave =
            |index: u8| Macs { slot: slot(index), own: mac(1), permanent: mac(1 + index), wire: mac(1) };
        let guests = [mac(2), made_up(mac(2)).next().unwrap()];
        let macs = probe_macs(&[slave(0), slave(1)], Some(slot(0)), |mac| guests.contains(&mac));
        assert_eq!(Mac::from_word(macs[1]), made_up(mac(2)).nth(1).unwrap());
    }
}
