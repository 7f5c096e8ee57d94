//! The netlink client: links, addresses, routes and forwarding entries.

mod address;
mod address_events;
mod blocking;
mod bond;
mod dump;
mod events;
mod forwarding;
#[cfg(test)]
mod fuzz;
mod link;
pub mod message;
mod namespaces;
mod neighbour;
pub mod numbers;
mod qdisc;
mod raw;
mod route;
mod stats;
mod steady;
mod text;

use std::{fmt, io, thread};

use bond_common::mac::Mac;
use netlink_packet_core::{DefaultNla, Emitable as _, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoNetkit, InfoVeth, LinkAttribute, LinkExtentMask, LinkMessage, NetkitMode,
        NetkitPolicy,
    },
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

pub use address::{Address, Lifetime};
pub use address_events::{AddressEvents, Interfaces};
pub use blocking::BlockingNetlink;
pub(super) use blocking::is_passing;
#[cfg(test)]
pub(crate) use bond::recorded as recorded_bonds;
pub use bond::{KernelBond, KernelSlave};
pub use events::{LinkEvent, LinkEvents};
pub use forwarding::{FdbEntry, FdbOwner, Forwarding, PortVlan};
pub use link::{
    AttachedXdp, IPV6_MIN_MTU, In6AddrGenMode, LinkFlags, LinkInfo, LinkLayerType, LinkSetting, OperState,
    VlanTag, XdpMode,
};
pub use neighbour::Neighbour;
pub use qdisc::FramePace;
pub use raw::Raw;
pub use route::{KernelRoute, ResolvedRoute};
pub use stats::{CountedLink, QdiscPlace, QdiscStats};

use super::{
    SysError, ThreadRuntime,
    alias::{Alias, Mark, UNFINISHED_PAIR},
};

/// IFNAMSIZ without the final zero: a longer name is an alternative one.
const NAME_LENGTH: usize = 15;

/// Returns the name of an interface of the calling thread's network namespace, without waiting for RTNL; None if there is
/// no such interface.
pub fn name_of(ifindex: u32) -> Option<String> {
    // nix treats the null pointer of a failure as success, and then the name is empty.
    let name = nix::net::if_::if_indextoname(ifindex).ok()?;
    Some(name.into_string().ok()?).filter(|name| !name.is_empty())
}

/// Returns how messages name an interface: by its name, or by its ifindex if the interface is gone.
pub fn called(ifindex: u32) -> String {
    name_of(ifindex).unwrap_or_else(|| format!("ifindex {ifindex}"))
}

/// The number of another namespace in the client's own network namespace, as in IFLA_LINK_NETNSID; `None` is its own.
pub type NetnsId = Option<i32>;

/// A client of rtnetlink in one network namespace. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Netlink {
    raw: raw::RawConnection,
}

/// Two devices to be created together: frames that are sent by one arrive at the other.
#[derive(Clone, Copy, Debug)]
pub struct PairPlan<'a> {
    /// Name of the end that the host uses.
    pub bond: &'a str,
    /// Name of the end that faces the slaves.
    pub port: &'a str,
    /// The bond's MAC.
    pub mac: Mac,
    /// MTU of both, in bytes.
    pub mtu: u32,
    /// Number of queues from the bond to the port; in the other direction there is one.
    pub queues: u32,
    /// The alias of the bond; `None` for a pair that is deleted soon.
    pub mark: Option<&'a Mark>,
}

/// The kind of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairKind {
    /// veth.
    Veth,
    /// In L2 mode, with the bond as the primary end. Linux 6.7 or later.
    Netkit,
}

impl PairKind {
    /// Returns the kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Netkit => "netkit",
        }
    }
}

impl fmt::Display for PairKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The current state of the two ends of a pair.
#[derive(Clone, Debug)]
pub struct LinkPair {
    /// bond0.
    pub bond: LinkInfo,
    /// The port.
    pub port: LinkInfo,
}

impl Netlink {
    /// Opens the connection for the network namespace in which the calling thread is now. It is a task of the current
    /// tokio runtime; a thread of the runtime blocks while a request waits for RTNL.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Errors
    /// A socket cannot be opened: the process lacks descriptors or memory.
    pub fn open() -> Result<Self, SysError> {
        let (netlink, connection) = Self::connect()?;
        tokio::spawn(connection);
        Ok(netlink)
    }

    /// Opens the connection on a thread of its own, and only that thread blocks while a request waits for RTNL.
    ///
    /// # Errors
    /// A socket or the thread cannot be created: the process lacks descriptors or memory.
    pub fn open_apart() -> Result<Self, SysError> {
        let failed = |error| SysError::kernel("start a thread", "rtnetlink", error);
        let runtime = ThreadRuntime::new().map_err(failed)?;
        let (netlink, connection) = runtime.inside(Self::connect)?;
        let name = "netlink".to_owned();
        thread::Builder::new().name(name).spawn(move || runtime.block_on(connection)).map_err(failed)?;
        Ok(netlink)
    }

    fn connect() -> Result<(Self, impl Future<Output = ()> + Send + 'static), SysError> {
        let (raw, connection) = raw::RawConnection::open()?;
        Ok((Self { raw }, connection))
    }

    /// Returns the link with this name or alternative name.
    ///
    /// # Errors
    /// There is no such device, or the kernel does not answer.
    pub async fn link_by_name(&self, name: &str) -> Result<LinkInfo, SysError> {
        let is_short = name.len() <= NAME_LENGTH;
        let by = if is_short { LinkAttribute::IfName(name.to_owned()) } else { alternative_name(name) };
        let mut request = LinkMessage::default();
        request.attributes.push(by);
        self.link(request, name).await
    }

    /// Returns the link of that ifindex.
    ///
    /// # Errors
    /// There is no such device, or the kernel does not answer.
    pub async fn link_by_index(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        self.link(LinkUnspec::new_with_index(ifindex).build(), &format!("ifindex {ifindex}")).await
    }

    async fn link(&self, mut request: LinkMessage, on: &str) -> Result<LinkInfo, SysError> {
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.ask_raw(reading(&request)).await {
            Ok(answer) => answer.and_then(|answer| LinkInfo::from_body(&answer.body)).ok_or_else(|| {
                let source = io::Error::other("the kernel's answer cannot be read");
                SysError::kernel("read the link", on, source)
            }),
            Err(error) => Err(match SysError::netlink("read the link", on, error) {
                error if error.errno() == Some(Errno::ENODEV) => SysError::NoSuchInterface(on.to_owned()),
                error => error,
            }),
        }
    }

    /// Returns all links of a namespace.
    ///
    /// # Errors
    /// The namespace does not exist, or the kernel does not list its links.
    pub async fn links(&self, netns: NetnsId) -> Result<Vec<LinkInfo>, SysError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        request.attributes.extend(netns.map(LinkAttribute::IfNetnsId));
        let each = |links: &mut Vec<_>, raw: Raw| links.extend(LinkInfo::from_body(&raw.body));
        self.dump_raw(&reading(&request), "the links", Vec::new, each).await
    }

    /// Changes a setting of a link, unless it has the value already; returns the link's state afterwards.
    ///
    /// # Errors
    /// The device does not exist, the kernel refuses the setting, or it is not in effect afterwards
    /// ([`SysError::NotKept`]).
    pub async fn set(&self, ifindex: u32, setting: LinkSetting) -> Result<LinkInfo, SysError> {
        let before = self.link_by_index(ifindex).await?;
        if setting.holds(&before) {
            return Ok(before);
        }
        let what = format!("set {setting}");
        self.change_link(&setting.request(ifindex)).await.map_err(|error| {
            SysError::netlink(&*what, &*before.name, error).advise(setting.advice(&before))
        })?;
        let after = self.link_by_index(ifindex).await?;
        if setting.holds(&after) {
            Ok(after)
        } else {
            Err(SysError::NotKept { what, on: after.name, hint: None })
        }
    }

    /// Sets the MTU of a slave or a port.
    ///
    /// Below 1280 bytes a device has no IPv6. Above, the kernel enables it again, with addresses that the device
    /// announces at once (`addrconf_notify`, NETDEV_CHANGEMTU), unless IFLA_OPERSTATE shows it as not ready. Neither
    /// its carrier nor its packets depend on that.
    ///
    /// # Errors
    /// The device does not exist, or the kernel refuses the MTU.
    pub async fn set_mtu_of_member(&self, ifindex: u32, mtu: u32) -> Result<LinkInfo, SysError> {
        let before = self.link_by_index(ifindex).await?;
        if before.mtu >= IPV6_MIN_MTU || mtu < IPV6_MIN_MTU {
            return self.set(ifindex, LinkSetting::Mtu(mtu)).await;
        }
        let operstate = |state| {
            let link = LinkUnspec::new_with_index(ifindex);
            link.append_extra_attribute(LinkAttribute::OperState(state)).build()
        };
        // Sent together: a killed agent leaves it dormant only if it is killed between two system calls.
        let steps = [
            operstate(OperState::Dormant),
            LinkSetting::Mtu(mtu).request(ifindex),
            LinkSetting::AddrGenMode(In6AddrGenMode::None).request(ifindex),
            operstate(OperState::Up),
        ];
        // Each step is then verified, and repeated if it failed.
        self.send_raw(steps.iter().map(|step| (0, about(RTM_SETLINK, step))).collect()).await;
        self.set(ifindex, LinkSetting::Mtu(mtu)).await?;
        self.clear_ipv6(ifindex).await
    }

    /// Makes the kernel give a slave or a port no IPv6 addresses, and removes those that it has added.
    ///
    /// # Errors
    /// The device does not exist, or an address cannot be removed.
    pub async fn clear_ipv6(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        let link = self.set(ifindex, LinkSetting::AddrGenMode(In6AddrGenMode::None)).await?;
        for address in self.addresses_of(ifindex).await?.iter().filter(|address| address.is_automatic()) {
            self.del_address(address).await?;
        }
        Ok(link)
    }

    async fn change_link(&self, link: &LinkMessage) -> Result<(), rtnetlink::Error> {
        self.change_raw(0, about(RTM_SETLINK, link)).await
    }

    /// Sets or removes the alias of a link.
    ///
    /// # Errors
    /// The device does not exist, or the kernel refuses the alias.
    pub async fn set_alias(&self, ifindex: u32, alias: Option<&Alias>) -> Result<(), SysError> {
        self.change_alias(LinkUnspec::new_with_index(ifindex), ifindex, alias).await
    }

    /// Sets the alias of an end of a pair, which completes its creation.
    async fn mark_end(&self, ifindex: u32, mark: &Mark) -> Result<(), SysError> {
        let link = LinkUnspec::new_with_index(ifindex).append_extra_attribute(LinkAttribute::Group(0));
        self.change_alias(link, ifindex, Some(mark.alias())).await
    }

    async fn change_alias(
        &self,
        link: LinkMessageBuilder<LinkUnspec>,
        ifindex: u32,
        alias: Option<&Alias>,
    ) -> Result<(), SysError> {
        let bytes = alias.map(Alias::bytes).unwrap_or_default();
        let attribute = LinkAttribute::Other(DefaultNla::new(text::IFLA_IFALIAS, bytes.to_vec()));
        let answer = self.change_link(&link.append_extra_attribute(attribute).build()).await;
        let what = match alias {
            Some(alias) => format!("set alias {:?}", alias.text()),
            None => "clear the alias".to_owned(),
        };
        answer.map_err(|error| SysError::netlink(what, format!("ifindex {ifindex}"), error))
    }

    /// Returns whether the driver can change the MAC address of this device at all. Requests the current address: a
    /// driver that could change it, but not while the device is up, returns EBUSY.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn can_set_mac(&self, link: &LinkInfo) -> Result<bool, SysError> {
        let setting = LinkSetting::Mac(link.mac);
        let answer = self.change_link(&setting.request(link.ifindex)).await;
        match answer.map_err(|error| SysError::netlink(format!("set {setting}"), &*link.name, error)) {
            Ok(()) => Ok(true),
            Err(error) => match error.errno() {
                Some(Errno::EOPNOTSUPP) => Ok(false),
                Some(Errno::EBUSY) => Ok(true),
                _ => Err(error),
            },
        }
    }

    /// Creates a pair: with the bond's MAC address in the same message, because udev would change it otherwise; the
    /// port with NOARP and without IPv6 addresses. Both ends stay down.
    ///
    /// # Errors
    /// The kernel refuses the pair, or the names are taken. Nothing is left of it.
    pub async fn create_pair(&self, kind: PairKind, plan: &PairPlan<'_>) -> Result<LinkPair, SysError> {
        let group = || LinkAttribute::Group(if plan.mark.is_some() { UNFINISHED_PAIR } else { 0 });
        let port = LinkUnspec::new_with_name(plan.port)
            .mtu(plan.mtu)
            .arp(false)
            .append_extra_attribute(group())
            .append_extra_attribute(LinkAttribute::NumRxQueues(plan.queues))
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .build();
        let (info, data) = match kind {
            PairKind::Veth => (InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(port))),
            PairKind::Netkit => (
                InfoKind::Netkit,
                InfoData::Netkit(vec![
                    InfoNetkit::Peer(port),
                    InfoNetkit::Mode(NetkitMode::L2),
                    // While no program is attached, frames from the bond are dropped. Frames to the bond have been
                    // passed by a slave's program.
                    InfoNetkit::Policy(NetkitPolicy::Drop),
                    InfoNetkit::PeerPolicy(NetkitPolicy::Pass),
                ]),
            ),
        };
        let request = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(info)
            .name(plan.bond)
            .address(plan.mac.bytes().to_vec())
            .mtu(plan.mtu)
            .append_extra_attribute(group())
            .append_extra_attribute(LinkAttribute::NumTxQueues(plan.queues))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1))
            .set_info_data(data)
            .build();
        let what = format!("create a {kind} pair with {}", plan.port);
        let answer =
            self.send_raw(vec![(NLM_F_CREATE | NLM_F_EXCL, about(RTM_NEWLINK, &request))]).await.pop();
        answer.unwrap_or(Ok(())).map_err(|error| advise_pair(SysError::netlink(what, plan.bond, error)))?;
        match self.finish_pair(plan).await {
            Ok(pair) => Ok(pair),
            Err(first) => Err(first.after_undoing(self.delete_by_name(plan.bond).await)),
        }
    }

    async fn finish_pair(&self, plan: &PairPlan<'_>) -> Result<LinkPair, SysError> {
        let port = self.link_by_name(plan.port).await?.ifindex;
        let bond = self.link_by_name(plan.bond).await?.ifindex;
        if let Some(mark) = plan.mark {
            self.mark_end(port, mark).await?;
            self.mark_end(bond, mark).await?;
        }
        self.set(port, LinkSetting::Noarp(true)).await?;
        self.set(port, LinkSetting::AddrGenMode(In6AddrGenMode::None)).await?;
        let port = self.set(port, LinkSetting::Mtu(plan.mtu)).await?;
        self.set(bond, LinkSetting::Mac(plan.mac)).await?;
        let bond = self.set(bond, LinkSetting::Mtu(plan.mtu)).await?;
        Ok(LinkPair { bond, port })
    }

    async fn delete_by_name(&self, name: &str) -> Result<(), SysError> {
        match self.link_by_name(name).await {
            Ok(link) => self.delete(link.ifindex).await,
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a device; for a pair, both ends. A missing device counts as success.
    ///
    /// # Errors
    /// The kernel refuses to delete the device.
    pub async fn delete(&self, ifindex: u32) -> Result<(), SysError> {
        let answer =
            self.change_raw(0, about(RTM_DELLINK, &LinkUnspec::new_with_index(ifindex).build())).await;
        match answer.map_err(|error| SysError::netlink("delete", called(ifindex), error)) {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a device receive frames to a further unicast MAC address (`dev_uc_add`). EOPNOTSUPP if the driver has no
    /// filter for it: then only promiscuous mode helps.
    ///
    /// # Errors
    /// EOPNOTSUPP if the driver has no filter; the device does not exist, or its filter is full.
    pub async fn add_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        let request = RouteNetlinkMessage::NewNeighbour(own_unicast(ifindex, mac));
        let answer = self.change_raw(NLM_F_CREATE | NLM_F_EXCL, request.into()).await;
        let what = format!("add unicast MAC {mac}");
        match answer.map_err(|error| SysError::netlink(what, called(ifindex), error)) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            answer => answer,
        }
    }

    /// Undoes [`Self::add_unicast`]. A missing address counts as success.
    ///
    /// # Errors
    /// The kernel refuses to delete the address.
    pub async fn del_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        let request = RouteNetlinkMessage::DelNeighbour(own_unicast(ifindex, mac));
        let what = format!("delete unicast MAC {mac}");
        let answer = self.change_raw(0, request.into()).await;
        match answer.map_err(|error| SysError::netlink(what, called(ifindex), error)) {
            Err(error) if error.is_gone() || error.errno() == Some(Errno::ENOENT) => Ok(()),
            answer => answer,
        }
    }

    /// Returns the unicast MAC addresses that a device receives in addition to its own.
    ///
    /// # Errors
    /// The kernel does not list the addresses.
    pub async fn unicast(&self, ifindex: u32) -> Result<Vec<Mac>, SysError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        let entries = self.neighbours(request, "the unicast MACs").await?;
        let own = |entry: &&NeighbourMessage| {
            entry.header.ifindex == ifindex && entry.header.flags.contains(NeighbourFlags::Own)
        };
        let macs = entries.iter().filter(own).flat_map(|entry| &entry.attributes).filter_map(|attribute| {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac::new),
                _ => None,
            }
        });
        Ok(macs.filter(|mac| mac.is_unicast()).collect())
    }
}

/// Returns a further unicast MAC address of a device, as an entry of its forwarding table.
fn own_unicast(ifindex: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
    message
}

/// Makes the kernel explain errors in words, without repeating the request.
fn explain_errors(socket: &netlink_sys::Socket) -> io::Result<()> {
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

fn reading(request: &LinkMessage) -> Raw {
    about(RTM_GETLINK, request)
}

fn about(kind: u16, link: &LinkMessage) -> Raw {
    let mut body = vec![0; link.buffer_len()];
    link.emit(&mut body);
    Raw { kind, body }
}

/// Returns IFLA_ALT_IFNAME, which the library has only as a part of IFLA_PROP_LIST.
fn alternative_name(name: &str) -> LinkAttribute {
    const IFLA_ALT_IFNAME: u16 = 53;
    LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, [name.as_bytes(), b"\0"].concat()))
}

fn advise_pair(error: SysError) -> SysError {
    let advice = match error.errno() {
        Some(Errno::EEXIST) => Some("one of the names is taken: see `ip link`"),
        Some(Errno::EOPNOTSUPP) => Some("this kernel lacks the module"),
        _ => None,
    };
    error.advise(advice.map(str::to_owned))
}

#[cfg(test)]
impl Netlink {
    /// Creates a bridge with this port. Returns its ifindex.
    pub async fn create_bridge(&self, name: &str, port: u32) -> u32 {
        let request = about(RTM_NEWLINK, &rtnetlink::LinkBridge::new(name).build());
        self.change_raw(NLM_F_CREATE | NLM_F_EXCL, request).await.unwrap();
        let bridge = self.link_by_name(name).await.unwrap().ifindex;
        let join = LinkUnspec::new_with_index(port).controller(bridge).build();
        self.change_link(&join).await.unwrap();
        bridge
    }

    /// Moves a link to another network namespace.
    pub async fn move_to(&self, ifindex: u32, netns: &std::fs::File) {
        let netns = std::os::fd::AsRawFd::as_raw_fd(netns);
        let request = LinkUnspec::new_with_index(ifindex).setns_by_fd(netns).build();
        self.change_link(&request).await.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_core::NLM_F_APPEND;
    use netlink_packet_route::link::Prop;

    use super::*;
    use crate::sys::{
        KernelDevices,
        testing::{in_namespace, mac, veth},
    };

    #[test]
    fn a_pair_is_created_as_planned_and_deleted_at_once() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let plan =
                PairPlan { bond: "bond0", port: "bond0-port", mac: mac(1), mtu: 1400, queues: 1, mark: None };
            let LinkPair { bond, port } = netlink.create_pair(PairKind::Veth, &plan).await.unwrap();
            assert_eq!((bond.name.as_str(), bond.mac, bond.mtu), ("bond0", mac(1), 1400));
            assert_eq!((port.name.as_str(), port.mtu), ("bond0-port", 1400));
            assert_eq!((bond.link, port.link), (Some(port.ifindex), Some(bond.ifindex)));
            assert_eq!(bond.kind.as_deref(), Some("veth"));
            assert!(port.flags.contains(LinkFlags::Noarp) && !bond.flags.contains(LinkFlags::Noarp));
            assert!(matches!(port.addr_gen_mode, None | Some(In6AddrGenMode::None)));
            let error = netlink.create_pair(PairKind::Veth, &plan).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EEXIST));
            assert!(
                error.to_string().starts_with("create a veth pair with bond0-port on bond0: File exists")
            );
            netlink.delete(bond.ifindex).await.unwrap();
            netlink.delete(bond.ifindex).await.unwrap();
            let error = netlink.link_by_name("bond0-port").await.unwrap_err();
            assert!(error.is_gone());
            assert_eq!(error.to_string(), "bond0-port: no such interface in this network namespace");
        });
    }

    /// As in a bring-up that is interrupted, and undone at once.
    #[test]
    fn an_unawaited_request_is_executed_before_the_next_one() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let plan =
                PairPlan { bond: "bond0", port: "port0", mac: mac(1), mtu: 1400, queues: 1, mark: None };
            for _ in 0..50 {
                {
                    let creation = std::pin::pin!(netlink.create_pair(PairKind::Veth, &plan));
                    assert!(futures_util::poll!(creation).is_pending());
                }
                let bond = netlink.link_by_name("bond0").await.unwrap();
                netlink.delete(bond.ifindex).await.unwrap();
            }
        });
    }

    /// The group marks it from the message on that creates it, and then the alias.
    #[test]
    fn a_pair_has_the_alias_of_its_bond() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let mark = Mark::of(&bond_core::name::BondName::new("bond0").unwrap());
            let plan =
                |mark| PairPlan { bond: "bond0", port: "port0", mac: mac(1), mtu: 1400, queues: 1, mark };
            let mut events = LinkEvents::open().unwrap();
            let LinkPair { bond, .. } =
                netlink.create_pair(PairKind::Veth, &plan(Some(&mark))).await.unwrap();
            let mut groups = Vec::new();
            for name in ["bond0", "port0"] {
                let link = netlink.link_by_name(name).await.unwrap();
                assert_eq!((mark.is_on(&link), link.group), (true, 0), "{name}");
            }
            while groups.len() < 2 {
                if let LinkEvent::Changed(link) = events.next().await.unwrap() {
                    groups.push((mark.is_on(&link), link.group));
                }
            }
            assert_eq!(groups, [(false, UNFINISHED_PAIR); 2]);
            netlink.delete(bond.ifindex).await.unwrap();
            let LinkPair { bond, port } = netlink.create_pair(PairKind::Veth, &plan(None)).await.unwrap();
            assert_eq!([(bond.alias, bond.group), (port.alias, port.group)], [(None, 0), (None, 0)]);
        });
    }

    #[test]
    fn a_netkit_pair_has_the_bonds_mac() {
        in_namespace(async |devices| {
            let plan =
                PairPlan { bond: "bond0", port: "port0", mac: mac(1), mtu: 1400, queues: 1, mark: None };
            match devices.netlink.create_pair(PairKind::Netkit, &plan).await {
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => eprintln!("skipped: {error}"),
                answer => {
                    let LinkPair { bond, port } = answer.unwrap();
                    assert_eq!((bond.mac, bond.mtu, port.mtu), (mac(1), 1400, 1400));
                    assert_eq!((bond.kind.as_deref(), bond.link), (Some("netkit"), Some(port.ifindex)));
                }
            }
        });
    }

    #[test]
    fn settings_take_effect_and_can_be_reverted() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (found, _) = veth(&devices, "eth1", "far1").await;
            let on = [
                LinkSetting::Mac(mac(2)),
                LinkSetting::Mtu(9000),
                LinkSetting::Noarp(true),
                LinkSetting::Allmulti(true),
                LinkSetting::Promisc(true),
                LinkSetting::AddrGenMode(In6AddrGenMode::None),
                LinkSetting::Up(true),
            ];
            let off = [
                LinkSetting::Up(false),
                LinkSetting::AddrGenMode(In6AddrGenMode::Eui64),
                LinkSetting::Promisc(false),
                LinkSetting::Allmulti(false),
                LinkSetting::Noarp(false),
                LinkSetting::Mtu(found.mtu),
                LinkSetting::Mac(found.mac),
            ];
            for (settings, name) in [(on, "on"), (on, "on again"), (off, "off"), (off, "off again")] {
                for setting in settings {
                    let link = netlink.set(found.ifindex, setting).await.unwrap();
                    assert!(setting.holds(&link), "{name}: {setting}");
                }
                let link = netlink.link_by_index(found.ifindex).await.unwrap();
                assert!(settings.iter().all(|setting| setting.holds(&link)), "{name}: {link:?}");
            }
            assert_eq!(netlink.link_by_index(found.ifindex).await.unwrap(), found);
        });
    }

    #[test]
    fn a_refused_mtu_names_the_limit() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let error = devices.netlink.set(link.ifindex, LinkSetting::Mtu(70_000)).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "set MTU 70000 on eth1: Invalid argument (mtu greater than device maximum)"
            );
        });
    }

    #[test]
    fn a_mac_is_changed_without_a_runtime() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let mut blocking = BlockingNetlink::open().unwrap();
            for last in [7, 8, 8] {
                blocking.set_mac(link.ifindex, mac(last)).unwrap();
                assert_eq!(devices.netlink.link_by_index(link.ifindex).await.unwrap().mac, mac(last));
            }
            let error = blocking.set_mac(link.ifindex, Mac::BROADCAST).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EADDRNOTAVAIL));
            assert!(blocking.set_mac(9999, mac(7)).unwrap_err().is_gone());
            assert!(devices.netlink.can_set_mac(&link).await.unwrap());
        });
    }

    #[test]
    fn further_unicast_macs_come_and_go() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (link, _) = veth(&devices, "eth1", "far1").await;
            for _ in 0..2 {
                netlink.add_unicast(link.ifindex, mac(9)).await.unwrap();
                assert_eq!(netlink.unicast(link.ifindex).await.unwrap(), [mac(9)]);
            }
            for _ in 0..2 {
                netlink.del_unicast(link.ifindex, mac(9)).await.unwrap();
                assert_eq!(netlink.unicast(link.ifindex).await.unwrap(), []);
            }
        });
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Creates a veth, both ends up.
    async fn veth_up(devices: &KernelDevices, name: &str, far: &str) -> u32 {
        let (near, far) = veth(devices, name, far).await;
        for ifindex in [near.ifindex, far.ifindex] {
            devices.netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
        }
        near.ifindex
    }

    #[test]
    fn an_address_is_added_and_deleted_once() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let bond = veth_up(&devices, "bond0", "port0").await;
            let addresses = [
                Address::new(bond, ip("192.0.2.1"), 24),
                Address::new(bond, ip("192.0.2.2"), 24),
                Address { flags: libc::IFA_F_NODAD, ..Address::new(bond, ip("2001:db8::1"), 64) },
            ];
            for address in addresses.iter().chain(&addresses) {
                netlink.add_address(address).await.unwrap();
            }
            let present = netlink.addresses_of(bond).await.unwrap();
            for address in &addresses {
                let same: Vec<_> = present.iter().filter(|found| found.is_same(address)).collect();
                assert_eq!(same.len(), 1, "{address:?}");
                assert_eq!(same[0].broadcast, address.broadcast);
                assert!(!same[0].is_tentative() && !same[0].by_kernel && same[0].lifetime.is_none());
            }
            for address in addresses.iter().chain(&addresses) {
                netlink.del_address(address).await.unwrap();
            }
            let present = netlink.addresses_of(bond).await.unwrap();
            assert!(present.iter().all(|address| address.by_kernel), "{present:?}");
        });
    }

    #[test]
    fn a_route_replaces_that_of_its_device_only() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let bond = veth_up(&devices, "bond0", "port0").await;
            let other = veth_up(&devices, "eth9", "far9").await;
            netlink.add_address(&Address::new(bond, ip("192.0.2.1"), 24)).await.unwrap();
            let of_v6 = Address { flags: libc::IFA_F_NODAD, ..Address::new(bond, ip("2001:db8::1"), 64) };
            netlink.add_address(&of_v6).await.unwrap();
            let default = |via: &str, metric| KernelRoute {
                metric,
                ..KernelRoute::new(bond, ip("0.0.0.0"), 0, Some(ip(via)))
            };
            let v6 = KernelRoute::new(bond, ip("2001:db8:1::"), 48, Some(ip("2001:db8::9")));
            // The second replaces the first, the third is another route.
            for route in
                [default("192.0.2.9", 0), default("192.0.2.8", 0), default("192.0.2.7", 5), v6.clone()]
            {
                netlink.replace_route(&route).await.unwrap();
                netlink.replace_route(&route).await.unwrap();
            }
            let ours = async || {
                let mut routes = netlink.routes_of(bond).await.unwrap();
                routes.retain(|route| !route.is_automatic());
                routes
            };
            assert_eq!(ours().await, [default("192.0.2.8", 0), default("192.0.2.7", 5), v6.clone()]);

            netlink.add_address(&Address::new(other, ip("198.51.100.1"), 24)).await.unwrap();
            let theirs = KernelRoute::new(other, ip("0.0.0.0"), 0, Some(ip("198.51.100.9")));
            let error = netlink.replace_route(&theirs).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EEXIST));
            assert_eq!(ours().await.len(), 3, "{error}");

            for route in [default("192.0.2.8", 0), default("192.0.2.7", 5), v6] {
                netlink.del_route(&route).await.unwrap();
                netlink.del_route(&route).await.unwrap();
            }
            assert_eq!(ours().await, []);
        });
    }

    #[test]
    fn a_port_names_its_master_and_that_kind() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let bridge = netlink.create_bridge("br0", link.ifindex).await;
            let link = netlink.link_by_index(link.ifindex).await.unwrap();
            assert_eq!((link.master, link.master_kind.as_deref()), (Some(bridge), Some("bridge")));
            let names: Vec<_> =
                netlink.links(None).await.unwrap().into_iter().map(|link| link.name).collect();
            assert!(["lo", "eth1", "far1", "br0"].iter().all(|name| names.iter().any(|found| found == name)));
        });
    }

    #[test]
    fn a_long_name_is_an_alternative_one() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let name = "a-name-of-more-than-fifteen-bytes";
            let names = vec![Prop::AltIfName(name.to_owned())];
            let request = LinkUnspec::new_with_index(link.ifindex);
            let request = request.append_extra_attribute(LinkAttribute::PropList(names)).build();
            let request = RouteNetlinkMessage::NewLinkProp(request);
            let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND;
            devices.netlink.change_raw(flags, request.into()).await.unwrap();
            let found = devices.netlink.link_by_name(name).await.unwrap();
            assert_eq!((found.ifindex, found.altnames), (link.ifindex, vec![name.to_owned()]));
        });
    }
}
