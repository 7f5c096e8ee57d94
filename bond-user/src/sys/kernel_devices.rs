//! The devices of a network namespace: netlink, the ethtool ioctls, /proc/sys and sysfs.

use std::{
    fs, io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bond_common::mac::Mac;
use bond_core::event::{Duplex, Speed};

use super::{
    SysError,
    alias::Alias,
    announcer::FrameSocket,
    bypassed::{self, Hooked},
    devices::{ChangeMacs, Devices, LookUpRoutes, SendFrames, TakeMessages},
    ethtool::{Ethtool, Feature, FeatureState},
    netlink::{
        Address, BlockingNetlink, CountedLink, Forwarding, FramePace, KernelRoute, LinkInfo, LinkPair,
        LinkSetting, Neighbour, Netlink, NetnsId, PairKind, PairPlan, QdiscStats, Raw, ResolvedRoute,
    },
    sysfs::Sysfs,
};

/// The ways to the devices of one network namespace.
#[derive(Clone, Debug)]
pub struct KernelDevices {
    /// The connection for links, addresses and routes.
    pub netlink: Netlink,
    /// The socket for offload features.
    pub ethtool: Ethtool,
    /// Of this network namespace; None where it cannot be mounted.
    sysfs: Option<Arc<Sysfs>>,
}

impl KernelDevices {
    /// Opens those of the calling thread's network namespace. As for [`Netlink::open`], a tokio runtime must be running.
    ///
    /// # Errors
    /// A socket cannot be opened: the process lacks descriptors or memory.
    pub fn open() -> Result<Self, SysError> {
        Ok(Self { netlink: Netlink::open()?, ethtool: Ethtool::open()?, sysfs: None })
    }

    /// [`Self::open`], but no task of the runtime waits while a netlink request waits for RTNL.
    ///
    /// # Errors
    /// A socket or the thread cannot be created: the process lacks descriptors or memory.
    pub fn open_apart() -> Result<Self, SysError> {
        Ok(Self { netlink: Netlink::open_apart()?, ethtool: Ethtool::open()?, sysfs: None })
    }

    /// With this sysfs, by which the transmit queues of devices are assigned.
    #[must_use]
    pub fn with_sysfs(self, sysfs: Option<Arc<Sysfs>>) -> Self {
        Self { sysfs, ..self }
    }

    /// Reached by another connection, as one of another network namespace.
    #[cfg(test)]
    pub fn by(&self, netlink: Netlink) -> Self {
        Self { netlink, ..self.clone() }
    }

    fn sysfs(&self) -> Result<&Sysfs, SysError> {
        self.sysfs
            .as_deref()
            .ok_or_else(|| SysError::kernel("mount", "sysfs", io::ErrorKind::Unsupported.into()))
    }
}

#[async_trait]
impl Devices for KernelDevices {
    async fn link_by_name(&self, name: &str) -> Result<LinkInfo, SysError> {
        self.netlink.link_by_name(name).await
    }

    async fn link_by_index(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        self.netlink.link_by_index(ifindex).await
    }

    async fn links(&self, netns: NetnsId) -> Result<Vec<LinkInfo>, SysError> {
        self.netlink.links(netns).await
    }

    async fn other_namespaces(&self) -> Result<Vec<i32>, SysError> {
        self.netlink.other_namespaces().await
    }

    async fn own_namespace(&self) -> NetnsId {
        self.netlink.own_namespace().await
    }

    fn name_of(&self, ifindex: u32) -> Option<String> {
        // By a socket that is open: names are read each second, of each slave.
        self.ethtool.name_of(ifindex)
    }

    async fn set(&self, ifindex: u32, setting: LinkSetting) -> Result<LinkInfo, SysError> {
        self.netlink.set(ifindex, setting).await
    }

    async fn set_mtu_of_member(&self, ifindex: u32, mtu: u32) -> Result<LinkInfo, SysError> {
        self.netlink.set_mtu_of_member(ifindex, mtu).await
    }

    async fn clear_ipv6(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        self.netlink.clear_ipv6(ifindex).await
    }

    async fn set_alias(&self, ifindex: u32, alias: Option<&Alias>) -> Result<(), SysError> {
        self.netlink.set_alias(ifindex, alias).await
    }

    async fn can_set_mac(&self, link: &LinkInfo) -> Result<bool, SysError> {
        self.netlink.can_set_mac(link).await
    }

    async fn create_pair(&self, kind: PairKind, plan: &PairPlan<'_>) -> Result<LinkPair, SysError> {
        self.netlink.create_pair(kind, plan).await
    }

    async fn delete(&self, ifindex: u32) -> Result<(), SysError> {
        self.netlink.delete(ifindex).await
    }

    async fn add_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        self.netlink.add_unicast(ifindex, mac).await
    }

    async fn del_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        self.netlink.del_unicast(ifindex, mac).await
    }

    async fn unicast(&self, ifindex: u32) -> Result<Vec<Mac>, SysError> {
        self.netlink.unicast(ifindex).await
    }

    async fn forwarding(&self) -> Result<Forwarding, SysError> {
        self.netlink.forwarding().await
    }

    async fn addresses(&self, netns: NetnsId) -> Result<Vec<Address>, SysError> {
        self.netlink.addresses(netns).await
    }

    async fn add_address(&self, address: &Address) -> Result<(), SysError> {
        self.netlink.add_address(address).await
    }

    async fn del_address(&self, address: &Address) -> Result<(), SysError> {
        self.netlink.del_address(address).await
    }

    async fn routes_of(&self, ifindex: u32) -> Result<Vec<KernelRoute>, SysError> {
        self.netlink.routes_of(ifindex).await
    }

    async fn replace_route(&self, route: &KernelRoute) -> Result<(), SysError> {
        self.netlink.replace_route(route).await
    }

    async fn del_route(&self, route: &KernelRoute) -> Result<(), SysError> {
        self.netlink.del_route(route).await
    }

    async fn dump(&self, request: &Raw, what: &str, into: &mut dyn TakeMessages) -> Result<(), SysError> {
        let into = Mutex::new(into);
        let restart = || locked(&into).restart();
        self.netlink.dump_raw(request, what, restart, |(), message| locked(&into).take(message)).await
    }

    async fn send_raw(&self, requests: Vec<(u16, Raw)>) -> Vec<Result<(), rtnetlink::Error>> {
        self.netlink.send_raw(requests).await
    }

    async fn ask_neighbours(&self, ifindex: u32) -> Result<usize, SysError> {
        self.netlink.ask_neighbours(ifindex).await
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, SysError> {
        self.netlink.all_neighbours().await
    }

    async fn ingress_filters(&self, ifindex: u32) -> Result<Vec<String>, SysError> {
        self.netlink.ingress_filters(ifindex).await
    }

    async fn ingress_programs(&self, ifindex: u32) -> Result<Vec<u32>, SysError> {
        self.netlink.ingress_programs(ifindex).await
    }

    async fn hooked(&self, ifindex: u32, name: &str) -> Result<Vec<Hooked>, SysError> {
        bypassed::read_hooks(&self.netlink, ifindex, name).await
    }

    async fn counted_link(&self, ifindex: u32) -> Result<CountedLink, SysError> {
        self.netlink.counted_link(ifindex).await
    }

    async fn qdiscs(&self) -> Result<Vec<QdiscStats>, SysError> {
        self.netlink.qdiscs().await
    }

    async fn set_pace(&self, ifindex: u32, pace: FramePace) -> Result<(), SysError> {
        self.netlink.set_pace(ifindex, pace).await
    }

    fn features(&self, ifindex: u32) -> Result<Vec<Feature>, SysError> {
        self.ethtool.features(ifindex)
    }

    fn request_features(&self, ifindex: u32, wanted: &[FeatureState]) -> Result<(), SysError> {
        self.ethtool.request_features(ifindex, wanted)
    }

    fn speed(&self, ifindex: u32) -> (Speed, Duplex) {
        self.ethtool.speed(ifindex)
    }

    fn driver(&self, ifindex: u32) -> Option<String> {
        self.ethtool.driver(ifindex)
    }

    fn permanent_mac(&self, ifindex: u32) -> Option<Mac> {
        self.ethtool.permanent_mac(ifindex)
    }

    fn has_queues(&self) -> bool {
        self.sysfs.is_some()
    }

    fn send_by_first_queue(&self, device: &str) -> Result<(), SysError> {
        self.sysfs()?.send_by_first_queue(device)
    }

    fn sends_by_first_queue(&self, device: &str) -> Option<bool> {
        self.sysfs.as_ref()?.sends_by_first_queue(device)
    }

    fn read_sysctl(&self, path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn write_sysctl(&self, path: &Path, value: &str) -> io::Result<()> {
        fs::write(path, value)
    }

    fn open_frames(&self, ifindex: u32) -> Result<Box<dyn SendFrames>, SysError> {
        Ok(Box::new(FrameSocket::open(ifindex)?))
    }

    fn open_routes(&self) -> Result<Box<dyn LookUpRoutes>, SysError> {
        Ok(Box::new(Netlink::open()?))
    }

    fn open_macs(&self) -> Result<Box<dyn ChangeMacs>, SysError> {
        Ok(Box::new(BlockingNetlink::open()?))
    }
}

fn locked<'a, 'b>(into: &'a Mutex<&'b mut dyn TakeMessages>) -> MutexGuard<'a, &'b mut dyn TakeMessages> {
    into.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SendFrames for FrameSocket {
    fn send(&self, frame: &[u8]) -> Result<(), SysError> {
        Self::send(self, frame)
    }
}

#[async_trait]
impl LookUpRoutes for Netlink {
    async fn route_to(&self, target: IpAddr) -> Result<Option<ResolvedRoute>, SysError> {
        Self::route_to(self, target).await
    }
}

impl ChangeMacs for BlockingNetlink {
    fn set_mac(&mut self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        Self::set_mac(self, ifindex, mac)
    }
}

/// Tests call what is written for any devices on those of the kernel.
#[cfg(test)]
impl std::ops::Deref for KernelDevices {
    type Target = dyn Devices;

    fn deref(&self) -> &Self::Target {
        self
    }
}
