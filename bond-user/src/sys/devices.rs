//! The boundary between xbond's logic and the kernel's network devices: what is read of them, and what is changed.
//!
//! The code above (enslaving, restoring, layer 3, bring-up, adoption, reload) is written for any [`Devices`].
//! [`super::KernelDevices`] is the implementation for a network namespace; tests have a kernel in memory
//! (`sys::fake`) that fails at the calls that they choose.

use std::{fmt, io, net::IpAddr, path::Path};

use async_trait::async_trait;
use bond_common::mac::Mac;
use bond_core::event::{Duplex, Speed};

use super::{
    SysError,
    alias::Alias,
    bypassed::Hooked,
    ethtool::{Feature, FeatureState},
    netlink::{
        Address, CountedLink, Forwarding, FramePace, KernelRoute, LinkInfo, LinkPair, LinkSetting, Neighbour,
        NetnsId, PairKind, PairPlan, QdiscStats, Raw, ResolvedRoute,
    },
};

/// Devices of one network namespace. Unless its documentation says otherwise, a function may wait for RTNL; one that is
/// not async blocks its thread for that time.
///
/// # Errors
/// A function returns the kernel's refusal, with what was tried on which device; [`SysError::NoSuchInterface`] if the
/// device does not exist; [`SysError::NoAnswer`] if the result is unknown. A change that the kernel refuses changes
/// nothing.
#[async_trait]
pub trait Devices: fmt::Debug + Send + Sync {
    /// Returns the link of that name, or of that alternative name.
    async fn link_by_name(&self, name: &str) -> Result<LinkInfo, SysError>;

    /// Returns the link of that ifindex.
    async fn link_by_index(&self, ifindex: u32) -> Result<LinkInfo, SysError>;

    /// Returns all links of a namespace.
    async fn links(&self, netns: NetnsId) -> Result<Vec<LinkInfo>, SysError>;

    /// Returns the numbers of other network namespaces, which may have devices above devices of this one.
    async fn other_namespaces(&self) -> Result<Vec<i32>, SysError>;

    /// Returns the number that this network namespace has in itself.
    async fn own_namespace(&self) -> NetnsId;

    /// Returns the name of an interface without waiting for RTNL; None if there is no such interface.
    fn name_of(&self, ifindex: u32) -> Option<String>;

    /// Changes a setting of a link unless it has this value, checks that the value is in effect, and returns the link.
    async fn set(&self, ifindex: u32, setting: LinkSetting) -> Result<LinkInfo, SysError>;

    /// Sets the MTU of a slave or a port, in bytes, without the kernel adding IPv6 addresses.
    async fn set_mtu_of_member(&self, ifindex: u32, mtu: u32) -> Result<LinkInfo, SysError>;

    /// Disables IPv6 addresses of a slave or a port, and removes those that the kernel has added.
    async fn clear_ipv6(&self, ifindex: u32) -> Result<LinkInfo, SysError>;

    /// Sets or removes the alias of a link.
    async fn set_alias(&self, ifindex: u32, alias: Option<&Alias>) -> Result<(), SysError>;

    /// Returns whether the driver can change the MAC address of this device at all.
    async fn can_set_mac(&self, link: &LinkInfo) -> Result<bool, SysError>;

    /// Creates a pair, both ends down. If a step fails, nothing is left of it.
    async fn create_pair(&self, kind: PairKind, plan: &PairPlan<'_>) -> Result<LinkPair, SysError>;

    /// Deletes a device; with an end of a pair, both ends. A missing device counts as success.
    async fn delete(&self, ifindex: u32) -> Result<(), SysError>;

    /// Makes a device receive frames to a further unicast MAC address. EOPNOTSUPP if the driver has no filter for it.
    async fn add_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError>;

    /// Undoes [`Self::add_unicast`]. A missing address counts as success.
    async fn del_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError>;

    /// Returns the unicast MAC addresses that a device receives in addition to its own.
    async fn unicast(&self, ifindex: u32) -> Result<Vec<Mac>, SysError>;

    /// Reads the forwarding tables of bridges and of other devices, and the VLANs of bridges.
    async fn forwarding(&self) -> Result<Forwarding, SysError>;

    /// Returns the addresses of every device of a namespace.
    async fn addresses(&self, netns: NetnsId) -> Result<Vec<Address>, SysError>;

    /// Adds an address. An existing address counts as success.
    async fn add_address(&self, address: &Address) -> Result<(), SysError>;

    /// Deletes an address. A missing address counts as success.
    async fn del_address(&self, address: &Address) -> Result<(), SysError>;

    /// Returns the unicast routes over one device, of all tables.
    async fn routes_of(&self, ifindex: u32) -> Result<Vec<KernelRoute>, SysError>;

    /// Adds a route, or replaces the one of the same network, metric and table over the same device.
    async fn replace_route(&self, route: &KernelRoute) -> Result<(), SysError>;

    /// Deletes a route. A missing route counts as success.
    async fn del_route(&self, route: &KernelRoute) -> Result<(), SysError>;

    /// Reads a list of the kernel's, message by message. `what` names it in an error.
    async fn dump(&self, request: &Raw, what: &str, into: &mut dyn TakeMessages) -> Result<(), SysError>;

    /// Sends requests in this order, each with NLM_F_* flags in addition to REQUEST and ACK. Returns the answers in the same
    /// order.
    async fn send_raw(&self, requests: Vec<(u16, Raw)>) -> Vec<Result<(), rtnetlink::Error>>;

    /// Makes the kernel probe a few neighbours of a device. Returns how many there are to probe.
    async fn ask_neighbours(&self, ifindex: u32) -> Result<usize, SysError>;

    /// Returns the neighbours of all devices, and the addresses that bridges have learnt at their ports.
    async fn neighbours(&self) -> Result<Vec<Neighbour>, SysError>;

    /// Returns the names of the BPF filters at a device's clsact ingress; none without that qdisc.
    async fn ingress_filters(&self, ifindex: u32) -> Result<Vec<String>, SysError>;

    /// Returns the programs of the BPF filters there, as `bpftool prog show id` takes them.
    async fn ingress_programs(&self, ifindex: u32) -> Result<Vec<u32>, SysError>;

    /// Returns what other programs have at the hooks of an interface.
    async fn hooked(&self, ifindex: u32, name: &str) -> Result<Vec<Hooked>, SysError>;

    /// Returns a link with its counters.
    async fn counted_link(&self, ifindex: u32) -> Result<CountedLink, SysError>;

    /// Returns the outermost qdiscs of all devices.
    async fn qdiscs(&self) -> Result<Vec<QdiscStats>, SysError>;

    /// Limits the rate at which a device sends: sch_tbf becomes its root qdisc. EOPNOTSUPP or ENOENT if the kernel has no
    /// sch_tbf.
    async fn set_pace(&self, ifindex: u32, pace: FramePace) -> Result<(), SysError>;

    /// Returns all offload features that the kernel knows, in its order.
    ///
    /// # Errors
    /// The device does not exist, or its driver does not list its features.
    fn features(&self, ifindex: u32) -> Result<Vec<Feature>, SysError>;

    /// Requests these states of features, and does not check the result: a feature may be fixed, or depend on another one.
    ///
    /// # Errors
    /// The device does not exist, or the kernel refuses the request.
    fn request_features(&self, ifindex: u32, wanted: &[FeatureState]) -> Result<(), SysError>;

    /// Returns speed and duplex; both are unknown if the driver does not report them, or the link is down.
    fn speed(&self, ifindex: u32) -> (Speed, Duplex);

    /// Returns the name of the driver; `None` if the device has none.
    fn driver(&self, ifindex: u32) -> Option<String>;

    /// Returns the burned-in MAC address if netlink does not contain it (before Linux 5.6).
    fn permanent_mac(&self, ifindex: u32) -> Option<Mac>;

    /// Returns whether the transmit queues of devices can be assigned to CPUs.
    fn has_queues(&self) -> bool;

    /// Makes every CPU use the first transmit queue of a device for packets that have no assigned queue (XPS).
    ///
    /// # Errors
    /// A file of the device's queues cannot be written.
    fn send_by_first_queue(&self, device: &str) -> Result<(), SysError>;

    /// Returns whether every CPU still uses the first transmit queue; `None` if that cannot be read.
    fn sends_by_first_queue(&self, device: &str) -> Option<bool>;

    /// Returns what a file of /proc/sys contains; None if it cannot be read. It does not wait for RTNL.
    fn read_sysctl(&self, path: &Path) -> Option<String>;

    /// Writes to a file of /proc/sys.
    ///
    /// # Errors
    /// There is no such file, or the kernel refuses the value.
    fn write_sysctl(&self, path: &Path, value: &str) -> io::Result<()>;

    /// Opens a sender of frames by one device. It does not wait for RTNL.
    ///
    /// # Errors
    /// The device does not exist, or the process lacks CAP_NET_RAW or descriptors.
    fn open_frames(&self, ifindex: u32) -> Result<Box<dyn SendFrames>, SysError>;

    /// Opens a connection for looking up routes.
    ///
    /// # Errors
    /// The process lacks descriptors or memory.
    fn open_routes(&self) -> Result<Box<dyn LookUpRoutes>, SysError>;

    /// Opens a connection that changes MAC addresses at once, on the calling thread.
    ///
    /// # Errors
    /// The process lacks descriptors or memory.
    fn open_macs(&self) -> Result<Box<dyn ChangeMacs>, SysError>;
}

/// Receives the messages of a list.
pub trait TakeMessages: Send {
    /// Discards the messages so far: the list was interrupted, and begins again.
    fn restart(&mut self);

    /// Takes the next message.
    fn take(&mut self, message: Raw);
}

/// Sends frames by one device.
pub trait SendFrames: fmt::Debug + Send + Sync {
    /// Sends a whole frame. It blocks for at most 100 ms.
    ///
    /// # Errors
    /// The kernel did not queue the frame: ENETDOWN if the device is down, ENOBUFS without carrier or space.
    fn send(&self, frame: &[u8]) -> Result<(), SysError>;
}

/// Looks up routes, without waiting for RTNL.
#[async_trait]
pub trait LookUpRoutes: Send + Sync {
    /// Returns the path to a host that the kernel would choose now; `None` if there is none, or the host is this one.
    async fn route_to(&self, target: IpAddr) -> Result<Option<ResolvedRoute>, SysError>;
}

/// Changes MAC addresses, for the moments that must be short.
pub trait ChangeMacs: Send + Sync {
    /// Changes the MAC address of a device at once, whatever it was. Waits for RTNL.
    ///
    /// # Errors
    /// The device does not exist, or refuses the address.
    fn set_mac(&mut self, ifindex: u32, mac: Mac) -> Result<(), SysError>;
}

/// A list that is made of messages.
struct Collected<C, S, E> {
    collected: C,
    start: S,
    each: E,
}

impl<C: Send, S: Fn() -> C + Send, E: Fn(&mut C, Raw) + Send> TakeMessages for Collected<C, S, E> {
    fn restart(&mut self) {
        self.collected = (self.start)();
    }

    fn take(&mut self, message: Raw) {
        (self.each)(&mut self.collected, message);
    }
}

impl dyn Devices + '_ {
    /// Returns the addresses of one device.
    ///
    /// # Errors
    /// The kernel does not list the addresses.
    pub async fn addresses_of(&self, ifindex: u32) -> Result<Vec<Address>, SysError> {
        let mut addresses = self.addresses(None).await?;
        addresses.retain(|address| address.ifindex == ifindex);
        Ok(addresses)
    }

    /// Reads a list: `each` is called with every message, `start` makes what it collects into, once for each attempt.
    pub(super) async fn collect<C: Send>(
        &self,
        request: &Raw,
        what: &str,
        start: impl Fn() -> C + Send,
        each: impl Fn(&mut C, Raw) + Send,
    ) -> Result<C, SysError> {
        let mut list = Collected { collected: start(), start, each };
        self.dump(request, what, &mut list).await?;
        Ok(list.collected)
    }

    /// Returns what an interface is called in messages: its name, or its ifindex where it is gone.
    pub fn called(&self, ifindex: u32) -> String {
        self.name_of(ifindex).unwrap_or_else(|| format!("ifindex {ifindex}"))
    }

    /// Returns whether what sends to the device may be on this machine, and leave checksums for a NIC to compute: the far end
    /// of a veth pair, or the virtual machine of a tap.
    pub fn has_peer_on_this_machine(&self, ifindex: u32) -> bool {
        self.driver(ifindex).is_some_and(|driver| driver == "veth" || driver == "tun")
    }
}
