//! A kernel in memory: links, what stands on them, and what tests want to go wrong.
//!
//! It has as much of the kernel's behaviour as xbond's logic depends on. Closing a device takes its routes, neighbours and
//! IPv6 addresses; most devices do not take a MAC address while they are open; of a pair, both ends go. It makes no routes
//! and addresses by itself.
//!
//! Every call that can fail has a number and a line in [`FakeKernel::calls`], and one of them can be made to fail, before or
//! after it did its work. [`FakeKernel::snapshot`] says whether everything is as it was.
//!
//! Simulators let others hold RTNL ([`FakeKernel::set_rtnl_held`]), and decide about each call
//! ([`FakeKernel::judge_calls`]). [`time`] and [`random`] are the clocks and the random numbers of their threads.

mod devices;
mod gate;
mod links;
mod messages;
pub mod random;
#[cfg(test)]
mod tests;
pub mod time;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bond_common::{
    abi::{DeviceHandle, DeviceState, LinkQuestion},
    mac::Mac,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::errno::Errno;
use tokio::sync::Notify;

use self::gate::Gate;
use super::{
    ethtool::Feature,
    netlink::message::Message,
    netlink::{In6AddrGenMode, LinkEvent, LinkFlags, LinkInfo, LinkLayerType, OperState},
};

/// A link of the kernel in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeLink {
    /// What netlink says of it.
    pub info: LinkInfo,
    /// Its offload features.
    pub features: Vec<Feature>,
    /// Further unicast MAC addresses that it receives.
    pub unicast: BTreeSet<Mac>,
    /// The name of its driver.
    pub driver: Option<String>,
    /// What its driver says of its MAC address.
    pub macs: MacChange,
    /// Of hardware: its far end has a link.
    pub cable: bool,
    /// Whether the driver has a filter for unicast MAC addresses.
    pub filters: bool,
    /// Every CPU sends by its first queue.
    pub first_queue: bool,
    /// What makes it a device of its kind (IFLA_INFO_DATA).
    pub data: Vec<u8>,
    /// Its settings as a port or slave of its master (IFLA_INFO_SLAVE_DATA).
    pub port_data: Vec<u8>,
}

/// How a driver changes the MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacChange {
    /// Also while the device is open.
    Live,
    /// While the device is closed.
    Closed,
    /// Not at all.
    Never,
}

/// What the kernel in memory holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    links: BTreeMap<u32, FakeLink>,
    /// Addresses, routes, neighbours, rules and nexthop objects, in the order in which they were added.
    messages: Vec<Message>,
    sysctls: BTreeMap<PathBuf, String>,
}

/// Everything that [`FakeKernel`] holds, at one moment.
#[derive(Clone, PartialEq)]
pub struct Snapshot(State);

/// A line for each link and message: what differs shows in a comparison of the two texts.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for link in self.0.links.values() {
            writeln!(f, "{link:?}")?;
        }
        for message in &self.0.messages {
            writeln!(f, "{:?} {message} of {}", message.kind(), message.ifindex())?;
        }
        writeln!(f, "{:?}", self.0.sysctls)
    }
}

/// A call that is to fail.
#[derive(Clone, Copy, Debug)]
pub struct FailingCall {
    /// Its number; the first one is 1.
    pub call: usize,
    /// Its error.
    pub errno: Errno,
    /// What it has done.
    pub when: When,
}

/// What a call that fails has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    Before,
    /// Everything: only the answer is an error.
    After,
    /// Nothing, and no later call does anything either: the process is as good as dead.
    Dead,
}

type Listener = Box<dyn Fn(LinkEvent) + Send>;

/// Decides whether a call fails, and how, by its line.
type Judge = Box<dyn FnMut(&str) -> Option<(Errno, When)> + Send>;

#[derive(Default)]
struct Inner {
    state: State,
    next_ifindex: u32,
    has_netkit: bool,
    has_queues: bool,
    calls: Vec<String>,
    failure: Option<FailingCall>,
    failed: Option<String>,
    judge: Option<Judge>,
    listener: Option<Listener>,
    /// The links as the listener knows them.
    known: BTreeMap<u32, LinkInfo>,
    rtnl: Gate,
}

/// A kernel in memory. Clones are the same one.
#[derive(Clone)]
pub struct FakeKernel(Arc<Mutex<Inner>>);

impl fmt::Debug for FakeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeKernel")
    }
}

impl Default for FakeKernel {
    fn default() -> Self {
        // Numbers that no interface of a small machine has: what is looked up elsewhere by mistake is not found.
        let first = 1_000_001;
        Self(Arc::new(Mutex::new(Inner { next_ifindex: first, has_queues: true, ..Inner::default() })))
    }
}

impl FakeKernel {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a NIC that is open and has a link. Returns its ifindex.
    pub fn add_nic(&self, name: &str, mac: Mac) -> u32 {
        let mut inner = self.inner();
        let ifindex = inner.next_ifindex;
        inner.next_ifindex += 1;
        let mut link = FakeLink::new(ifindex, name, mac);
        link.info.permanent_mac = Some(mac);
        link.info.flags |= LinkFlags::Up;
        inner.state.links.insert(ifindex, link);
        inner.state.find_carriers();
        ifindex
    }

    /// Adds a NIC as [`Self::add_nic`] does, under the name of one that is there no more, and reports it. Its link is down.
    pub fn plug_in(&self, name: &str, mac: Mac) -> u32 {
        let ifindex = self.new_ifindex();
        self.alter(|state| {
            let mut link = FakeLink::new(ifindex, name, mac);
            link.info.permanent_mac = Some(mac);
            state.links.insert(ifindex, link);
        });
        ifindex
    }

    /// Changes a link, as an administrator or a cable does, without a call.
    ///
    /// # Panics
    /// There is no such link.
    pub fn change(&self, ifindex: u32, change: impl FnOnce(&mut FakeLink)) {
        self.alter(|state| {
            let link = state.links.get_mut(&ifindex);
            change(link.unwrap_or_else(|| unreachable!("no link {ifindex}")));
        });
    }

    /// Removes a link, as when its module is unloaded, without a call.
    pub fn remove(&self, ifindex: u32) {
        self.alter(|state| state.delete(ifindex));
    }

    /// Adds messages, in this order, without a call.
    pub fn add_messages(&self, messages: impl IntoIterator<Item = Message>) {
        self.inner().state.messages.extend(messages);
    }

    /// Sets what a file of /proc/sys contains.
    pub fn set_sysctl(&self, path: impl Into<PathBuf>, value: &str) {
        self.inner().state.sysctls.insert(path.into(), value.to_owned());
    }

    /// Whether pairs of netkit devices can be made.
    pub fn set_netkit(&self, has_netkit: bool) {
        self.inner().has_netkit = has_netkit;
    }

    /// Whether transmit queues can be assigned.
    pub fn set_queues(&self, has_queues: bool) {
        self.inner().has_queues = has_queues;
    }

    /// Has this called with every change of a link from now on.
    pub fn listen(&self, listener: impl Fn(LinkEvent) + Send + 'static) {
        let mut inner = self.inner();
        inner.known = inner.state.infos();
        inner.listener = Some(Box::new(listener));
    }

    /// Has nothing called any more.
    pub fn listen_no_more(&self) {
        self.inner().listener = None;
    }

    /// Has each call from now on decided about by its line, and no line kept.
    pub fn judge_calls(&self, judge: impl FnMut(&str) -> Option<(Errno, When)> + Send + 'static) {
        self.inner().judge = Some(Box::new(judge));
    }

    /// Lets another process hold RTNL, or release it. While it does, calls that are async do not begin.
    pub fn set_rtnl_held(&self, held: bool) {
        self.inner().rtnl.set_held(held);
    }

    /// Lets the process end when it has begun so many more async calls, before the next one: that and all later ones never
    /// return. `None`: it lives.
    pub fn stop_after(&self, calls: Option<usize>) {
        self.inner().rtnl.stop_after(calls);
    }

    /// Returns what is notified when a process ends so.
    pub fn stopped(&self) -> Arc<Notify> {
        self.inner().rtnl.stopped()
    }

    /// Returns the ifindex of a link, without a call.
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.inner().state.named(name).ok().map(|link| link.info.ifindex)
    }

    /// Returns whether a device is up and has carrier, without a call.
    pub fn has_link(&self, ifindex: u32) -> bool {
        self.inner().state.links.get(&ifindex).is_some_and(|link| link.info.carrier)
    }

    /// Returns all links, without a call.
    pub fn all_links(&self) -> Vec<LinkInfo> {
        self.inner().state.links.values().map(|link| link.info.clone()).collect()
    }

    /// Returns the state of a device, as programs read it; `None` if there is no such device.
    pub fn device_state(&self, ifindex: u32) -> Option<DeviceState> {
        let inner = self.inner();
        let link = inner.state.links.get(&ifindex)?;
        Some(DeviceState::new(handle(ifindex), link.info.mac, ifindex, link.info.carrier))
    }

    /// Returns whether a device has a link, as programs answer that.
    pub fn answers(&self, question: &LinkQuestion) -> bool {
        question.handle() == handle(question.ifindex())
            && self.inner().state.links.get(&question.ifindex()).is_some_and(|link| link.info.carrier)
    }

    /// Has a call fail, counted from now on; or none.
    pub fn fail(&self, failure: Option<FailingCall>) {
        let mut inner = self.inner();
        inner.calls.clear();
        (inner.failure, inner.failed) = (failure, None);
    }

    /// Returns the call that was made to fail since [`Self::fail`].
    pub fn failed(&self) -> Option<String> {
        self.inner().failed.clone()
    }

    /// Returns the calls since [`Self::fail`], a line each.
    pub fn calls(&self) -> Vec<String> {
        self.inner().calls.clone()
    }

    /// Returns everything as it is, in an order of its own.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.inner().state.clone();
        state.messages = state.messages.into_iter().map(messages::without_nodad).collect();
        state.messages.sort_by_cached_key(|message| (message.kind(), message.creation().body));
        Snapshot(state)
    }

    /// Returns a link, without a call.
    pub fn link(&self, name: &str) -> Option<FakeLink> {
        self.inner().state.links.values().find(|link| link.info.name == name).cloned()
    }

    /// Returns whether there is such a device, without a call.
    pub fn has(&self, ifindex: u32) -> bool {
        self.inner().state.links.contains_key(&ifindex)
    }

    /// Makes a call, which may be the one that is to fail.
    pub(super) fn call<T>(
        &self,
        what: impl fmt::Display,
        act: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let failure = self.note(what);
        if let Some(FailingCall { errno, when: When::Before | When::Dead, .. }) = failure {
            return Err(errno);
        }
        let done = self.alter(act)?;
        match failure {
            Some(failure) => Err(failure.errno),
            None => Ok(done),
        }
    }

    /// Makes a call that does its work elsewhere.
    ///
    /// # Errors
    /// It is to fail.
    pub(super) fn note_call(&self, what: impl fmt::Display) -> Result<(), Errno> {
        self.note(what).map_or(Ok(()), |failure| Err(failure.errno))
    }

    fn note(&self, what: impl fmt::Display) -> Option<FailingCall> {
        let mut inner = self.inner();
        if let Some(mut judge) = inner.judge.take() {
            drop(inner);
            let failure = judge(&what.to_string());
            self.inner().judge.get_or_insert(judge);
            return failure.map(|(errno, when)| FailingCall { call: 0, errno, when });
        }
        inner.calls.push(what.to_string());
        let number = inner.calls.len();
        let failure = inner.failure.filter(|failure| {
            failure.call == number || failure.when == When::Dead && failure.call < number
        })?;
        inner.failed = inner.calls.last().cloned();
        Some(failure)
    }

    /// Changes what there is, and reports which links that has changed.
    fn alter<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut inner = self.inner();
        let answer = change(&mut inner.state);
        inner.state.find_carriers();
        let Inner { state, known, listener, .. } = &mut *inner;
        if let Some(listener) = listener {
            known.retain(|&ifindex, former| {
                let stays = state.links.contains_key(&ifindex);
                if !stays {
                    let end_of_pair = former.is_end_of_pair();
                    listener(LinkEvent::Deleted { ifindex, end_of_pair, moved: false });
                }
                stays
            });
            for (ifindex, link) in &state.links {
                if known.get(ifindex) != Some(&link.info) {
                    known.insert(*ifindex, link.info.clone());
                    listener(LinkEvent::Changed(Box::new(link.info.clone())));
                }
            }
        }
        answer
    }

    fn new_ifindex(&self) -> u32 {
        let mut inner = self.inner();
        inner.next_ifindex += 1;
        inner.next_ifindex - 1
    }
}

/// The handle of a device: an address that no other one has.
fn handle(ifindex: u32) -> DeviceHandle {
    const FIRST: u64 = 0xffff_8880_0000_0000;
    const NET: u64 = 0xffff_8881_0000_0000;
    DeviceHandle::new(FIRST + (u64::from(ifindex) << 12), NET)
}

impl State {
    fn infos(&self) -> BTreeMap<u32, LinkInfo> {
        self.links.iter().map(|(ifindex, link)| (*ifindex, link.info.clone())).collect()
    }

    fn link(&self, ifindex: u32) -> Result<&FakeLink, Errno> {
        self.links.get(&ifindex).ok_or(Errno::ENODEV)
    }

    fn link_mut(&mut self, ifindex: u32) -> Result<&mut FakeLink, Errno> {
        self.links.get_mut(&ifindex).ok_or(Errno::ENODEV)
    }

    fn named(&self, name: &str) -> Result<&FakeLink, Errno> {
        self.links.values().find(|link| link.info.name == name).ok_or(Errno::ENODEV)
    }

    /// Removes a link with what stands on it, and of a pair both ends.
    fn delete(&mut self, ifindex: u32) {
        let Some(gone) = self.links.remove(&ifindex) else { return };
        self.forget_messages(|message| messages::is_on(message, ifindex));
        if let Some(peer) = gone.info.link.filter(|_| gone.info.is_end_of_pair()) {
            self.delete(peer);
        }
        let above =
            self.links.values().filter(|link| link.info.vlan.is_some() && link.info.link == Some(ifindex));
        let above: Vec<u32> = above.map(|link| link.info.ifindex).collect();
        above.into_iter().for_each(|vlan| self.delete(vlan));
        gone.info.master.into_iter().for_each(|master| links::elect(self, master));
        for link in self.links.values_mut().filter(|link| link.info.master == Some(ifindex)) {
            (link.info.master, link.info.master_kind) = (None, None);
            link.port_data.clear();
        }
    }

    fn forget_messages(&mut self, is_gone: impl Fn(&Message) -> bool) {
        self.messages.retain(|message| !is_gone(message));
    }

    /// A link is what its far end makes it.
    fn find_carriers(&mut self) {
        let up: BTreeSet<u32> =
            self.links.values().filter(|link| link.info.is_up()).map(|link| link.info.ifindex).collect();
        // Slaves before their bonds, and these before their VLANs.
        let depth = |link: &FakeLink| match link.info.kind.as_deref() {
            Some("bond") => 1,
            Some("vlan") => 2,
            _ => 0,
        };
        let mut order: Vec<_> = self.links.values().map(|link| (depth(link), link.info.ifindex)).collect();
        order.sort_unstable();
        for (_, ifindex) in order {
            let Some(of_below) = self.links.get(&ifindex).map(|link| links::carrier_of(self, &link.info))
            else {
                continue;
            };
            let Some(link) = self.links.get_mut(&ifindex) else { continue };
            let is_far_up = match link.info.link.filter(|_| link.info.is_end_of_pair()) {
                Some(peer) => up.contains(&peer),
                None => of_below.unwrap_or(link.cable),
            };
            let carrier = link.info.is_up() && is_far_up;
            link.info.carrier = carrier;
            link.info.flags.set(LinkFlags::Running, carrier);
            link.info.flags.set(LinkFlags::LowerUp, carrier);
            link.info.operstate = if carrier { OperState::Up } else { OperState::Down };
        }
    }
}

impl FakeLink {
    /// An Ethernet device of MTU 1500 that is closed.
    fn new(ifindex: u32, name: &str, mac: Mac) -> Self {
        let info = LinkInfo {
            mac,
            mtu: 1500,
            min_mtu: 68,
            max_mtu: 9000,
            addr_gen_mode: Some(In6AddrGenMode::Eui64),
            ..blank(ifindex, name)
        };
        let feature = |(name, on): &(&str, bool)| Feature {
            name: (*name).to_owned(),
            active: *on,
            wanted: *on,
            fixed: false,
        };
        Self {
            info,
            features: FEATURES.iter().map(feature).collect(),
            unicast: BTreeSet::new(),
            driver: Some("fake".to_owned()),
            macs: MacChange::Closed,
            cable: true,
            filters: true,
            first_queue: false,
            data: Vec::new(),
            port_data: Vec::new(),
        }
    }
}

/// Offload features of a device, and which of them are on.
const FEATURES: [(&str, bool); 12] = [
    ("rx-lro", true),
    ("rx-gro", false),
    ("rx-gro-hw", true),
    ("rx-vlan-filter", true),
    ("rx-vlan-hw-parse", true),
    ("rx-vlan-stag-hw-parse", true),
    ("tx-checksum-ipv4", true),
    ("tx-checksum-ip-generic", true),
    ("tx-checksum-ipv6", true),
    ("tx-checksum-sctp", true),
    ("tx-vlan-hw-insert", true),
    ("tx-vlan-stag-hw-insert", true),
];

/// A link about which nothing is known but that it is an Ethernet device.
fn blank(ifindex: u32, name: &str) -> LinkInfo {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    LinkInfo::from_message(&message).unwrap_or_else(|| unreachable!("it is a message about a link"))
}
