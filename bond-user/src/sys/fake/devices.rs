//! [`Devices`] of the kernel in memory.

use std::{io, net::IpAddr, path::Path};

use async_trait::async_trait;
use bond_common::mac::Mac;
use bond_core::event::{Duplex, Speed};
use nix::errno::Errno;

use super::{FakeKernel, FakeLink, MacChange, State, gate::Passage, links, messages};
use crate::sys::{
    SysError,
    alias::Alias,
    bypassed::Hooked,
    devices::{ChangeMacs, Devices, LookUpRoutes, SendFrames, TakeMessages},
    ethtool::{Feature, FeatureState},
    netlink::message::{INET6, MessageKind},
    netlink::{
        Address, CountedLink, Forwarding, FramePace, IPV6_MIN_MTU, In6AddrGenMode, KernelRoute, LinkFlags,
        LinkInfo, LinkPair, LinkSetting, Neighbour, NetnsId, PairKind, PairPlan, QdiscStats, Raw,
        ResolvedRoute,
    },
};

/// An error of this call, on this device.
fn failed(what: impl Into<String>, on: impl Into<String>) -> impl FnOnce(Errno) -> SysError {
    move |errno| SysError::kernel(what, on, errno.into())
}

impl FakeKernel {
    /// Waits while another process holds RTNL; for ever if the process that calls is to have ended.
    async fn rtnl(&self) {
        let passage = self.inner().rtnl.enter();
        match passage {
            Passage::Begin => {}
            // The sender lives as long as the kernel.
            Passage::Wait(mut held) => drop(held.wait_for(|held| !held).await),
            Passage::Never => std::future::pending().await,
        }
    }

    fn on(&self, ifindex: u32) -> String {
        self.name_of(ifindex).unwrap_or_else(|| format!("ifindex {ifindex}"))
    }

    /// Does something to a link.
    fn to_link<T>(
        &self,
        what: String,
        ifindex: u32,
        act: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, SysError> {
        let on = self.on(ifindex);
        self.call(format!("{what} on {on}"), act).map_err(failed(what, on))
    }
}

#[async_trait]
impl Devices for FakeKernel {
    async fn link_by_name(&self, name: &str) -> Result<LinkInfo, SysError> {
        self.rtnl().await;
        let found = self.call(format!("read link {name}"), |state| Ok(state.named(name)?.info.clone()));
        found.map_err(|errno| match errno {
            Errno::ENODEV => SysError::NoSuchInterface(name.to_owned()),
            errno => failed("read the link", name)(errno),
        })
    }

    async fn link_by_index(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        self.rtnl().await;
        let on = self.on(ifindex);
        let found = self.call(format!("read link {on}"), |state| Ok(state.link(ifindex)?.info.clone()));
        found.map_err(|errno| match errno {
            Errno::ENODEV => SysError::NoSuchInterface(format!("ifindex {ifindex}")),
            errno => failed("read the link", on)(errno),
        })
    }

    async fn links(&self, _: NetnsId) -> Result<Vec<LinkInfo>, SysError> {
        self.rtnl().await;
        let links = |state: &mut State| Ok(state.links.values().map(|link| link.info.clone()).collect());
        self.call("list the links", links).map_err(failed("list", "the links"))
    }

    async fn other_namespaces(&self) -> Result<Vec<i32>, SysError> {
        Ok(Vec::new())
    }

    async fn own_namespace(&self) -> NetnsId {
        None
    }

    fn name_of(&self, ifindex: u32) -> Option<String> {
        self.inner().state.links.get(&ifindex).map(|link| link.info.name.clone())
    }

    async fn set(&self, ifindex: u32, setting: LinkSetting) -> Result<LinkInfo, SysError> {
        self.rtnl().await;
        self.to_link(format!("set {setting}"), ifindex, |state| {
            if !setting.holds(&state.link(ifindex)?.info) {
                apply(state, ifindex, setting)?;
                state.find_carriers();
            }
            Ok(state.link(ifindex)?.info.clone())
        })
    }

    async fn set_mtu_of_member(&self, ifindex: u32, mtu: u32) -> Result<LinkInfo, SysError> {
        self.rtnl().await;
        self.to_link(format!("set member's MTU {mtu}"), ifindex, |state| {
            let had_ipv6 = state.link(ifindex)?.info.mtu >= IPV6_MIN_MTU;
            apply(state, ifindex, LinkSetting::Mtu(mtu))?;
            if !had_ipv6 {
                apply(state, ifindex, LinkSetting::AddrGenMode(In6AddrGenMode::None))?;
            }
            Ok(state.link(ifindex)?.info.clone())
        })
    }

    async fn clear_ipv6(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        self.rtnl().await;
        self.to_link("clear IPv6".to_owned(), ifindex, |state| {
            apply(state, ifindex, LinkSetting::AddrGenMode(In6AddrGenMode::None))?;
            Ok(state.link(ifindex)?.info.clone())
        })
    }

    async fn set_alias(&self, ifindex: u32, alias: Option<&Alias>) -> Result<(), SysError> {
        self.rtnl().await;
        let what = alias
            .map_or_else(|| "clear the alias".to_owned(), |alias| format!("set alias {:?}", alias.text()));
        self.to_link(what, ifindex, |state| {
            state.link_mut(ifindex)?.info.alias = alias.cloned();
            Ok(())
        })
    }

    async fn can_set_mac(&self, link: &LinkInfo) -> Result<bool, SysError> {
        self.rtnl().await;
        self.to_link(format!("set MAC {}", link.mac), link.ifindex, |state| {
            // The kernel forgets the neighbours of a device whose MAC address is set, even to the one that it has.
            state.forget_messages(|message| {
                message.kind() == MessageKind::Neighbour && message.ifindex() == link.ifindex
            });
            Ok(state.link(link.ifindex)?.macs != MacChange::Never)
        })
    }

    async fn create_pair(&self, kind: PairKind, plan: &PairPlan<'_>) -> Result<LinkPair, SysError> {
        self.rtnl().await;
        let (what, has_netkit) =
            (format!("create a {kind} pair with {}", plan.port), self.inner().has_netkit);
        let (port, bond) = (self.new_ifindex(), self.new_ifindex());
        let made = self.call(format!("{what} on {}", plan.bond), |state| {
            if kind == PairKind::Netkit && !has_netkit {
                return Err(Errno::EOPNOTSUPP);
            }
            if state.named(plan.bond).is_ok() || state.named(plan.port).is_ok() {
                return Err(Errno::EEXIST);
            }
            for (own, other, name) in [(port, bond, plan.port), (bond, port, plan.bond)] {
                let mut link = FakeLink::new(own, name, plan.mac);
                link.info.mtu = plan.mtu;
                link.info.kind = Some(kind.name().to_owned());
                link.info.link = Some(other);
                link.info.alias = plan.mark.map(|mark| mark.alias().clone());
                link.driver = Some(kind.name().to_owned());
                link.macs = MacChange::Live;
                if own == port {
                    link.info.mac = Mac::new([0x02, 0xfe, 0, 0, 0, port as u8]);
                    link.info.flags |= LinkFlags::Noarp;
                    link.info.addr_gen_mode = Some(In6AddrGenMode::None);
                }
                state.links.insert(own, link);
            }
            state.find_carriers();
            Ok(LinkPair { bond: state.link(bond)?.info.clone(), port: state.link(port)?.info.clone() })
        });
        let undone = made.inspect_err(|_| {
            // All of it, or nothing, as the real one undoes its steps.
            self.alter(|state| state.delete(bond));
        });
        undone.map_err(failed(what, plan.bond))
    }

    async fn delete(&self, ifindex: u32) -> Result<(), SysError> {
        self.rtnl().await;
        self.to_link("delete".to_owned(), ifindex, |state| {
            state.delete(ifindex);
            Ok(())
        })
    }

    async fn add_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        self.rtnl().await;
        self.to_link(format!("add unicast MAC {mac}"), ifindex, |state| {
            let link = state.link_mut(ifindex)?;
            if !link.filters {
                return Err(Errno::EOPNOTSUPP);
            }
            link.unicast.insert(mac);
            Ok(())
        })
    }

    async fn del_unicast(&self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        self.rtnl().await;
        self.to_link(format!("delete unicast MAC {mac}"), ifindex, |state| {
            if let Some(link) = state.links.get_mut(&ifindex) {
                link.unicast.remove(&mac);
            }
            Ok(())
        })
    }

    async fn forwarding(&self) -> Result<Forwarding, SysError> {
        self.rtnl().await;
        Ok(Forwarding::default())
    }

    async fn unicast(&self, ifindex: u32) -> Result<Vec<Mac>, SysError> {
        self.rtnl().await;
        let macs = |link: &FakeLink| link.unicast.iter().copied().collect();
        self.to_link("list the unicast MACs".to_owned(), ifindex, |state| {
            Ok(state.links.get(&ifindex).map(macs).unwrap_or_default())
        })
    }

    async fn addresses(&self, _: NetnsId) -> Result<Vec<Address>, SysError> {
        self.rtnl().await;
        self.call("list the addresses", |state| Ok(messages::addresses(state)))
            .map_err(failed("list", "the addresses"))
    }

    async fn add_address(&self, address: &Address) -> Result<(), SysError> {
        self.rtnl().await;
        let what = format!("add address {}/{}", address.ip, address.prefix_len);
        self.to_link(what, address.ifindex, |state| messages::add_address(state, address))
    }

    async fn del_address(&self, address: &Address) -> Result<(), SysError> {
        self.rtnl().await;
        let what = format!("delete address {}/{}", address.ip, address.prefix_len);
        self.to_link(what, address.ifindex, |state| {
            messages::del_address(state, address);
            Ok(())
        })
    }

    async fn routes_of(&self, ifindex: u32) -> Result<Vec<KernelRoute>, SysError> {
        self.rtnl().await;
        self.to_link("list the routes".to_owned(), ifindex, |state| Ok(messages::routes_of(state, ifindex)))
    }

    async fn replace_route(&self, route: &KernelRoute) -> Result<(), SysError> {
        self.rtnl().await;
        self.to_link(format!("add route {route}"), route.ifindex, |state| {
            messages::replace_route(state, route)
        })
    }

    async fn del_route(&self, route: &KernelRoute) -> Result<(), SysError> {
        self.rtnl().await;
        self.to_link(format!("delete route {route}"), route.ifindex, |state| {
            messages::del_route(state, route);
            Ok(())
        })
    }

    async fn dump(&self, request: &Raw, what: &str, into: &mut dyn TakeMessages) -> Result<(), SysError> {
        self.rtnl().await;
        let list = |state: &mut State| {
            Ok(if links::is_about_link(request) {
                links::listed(state)
            } else {
                messages::listed(state, request)
            })
        };
        let listed = self.call(format!("list {what}"), list);
        listed.map_err(failed("list", what))?.into_iter().for_each(|message| into.take(message));
        Ok(())
    }

    async fn send_raw(&self, requests: Vec<(u16, Raw)>) -> Vec<Result<(), rtnetlink::Error>> {
        self.rtnl().await;
        let send = |(flags, request): (u16, Raw)| {
            if links::is_about_link(&request) {
                let new = self.new_ifindex();
                let sent =
                    self.call(links::called(&request), |state| links::send(state, flags, &request, new));
                return sent.map_err(messages::error);
            }
            let what = messages::called(&request);
            self.call(what, |state| messages::send(state, flags, request)).map_err(messages::error)
        };
        requests.into_iter().map(send).collect()
    }

    async fn ask_neighbours(&self, ifindex: u32) -> Result<usize, SysError> {
        self.rtnl().await;
        self.to_link("ask the neighbours".to_owned(), ifindex, |state| state.link(ifindex).map(|_| 0))
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, SysError> {
        self.rtnl().await;
        Ok(Vec::new())
    }

    async fn ingress_filters(&self, _: u32) -> Result<Vec<String>, SysError> {
        self.rtnl().await;
        Ok(Vec::new())
    }

    async fn ingress_programs(&self, _: u32) -> Result<Vec<u32>, SysError> {
        self.rtnl().await;
        Ok(Vec::new())
    }

    async fn hooked(&self, _: u32, _: &str) -> Result<Vec<Hooked>, SysError> {
        self.rtnl().await;
        Ok(Vec::new())
    }

    async fn counted_link(&self, ifindex: u32) -> Result<CountedLink, SysError> {
        self.rtnl().await;
        Ok(CountedLink { link: self.link_by_index(ifindex).await?, stats: None })
    }

    async fn qdiscs(&self) -> Result<Vec<QdiscStats>, SysError> {
        self.rtnl().await;
        Ok(Vec::new())
    }

    async fn set_pace(&self, ifindex: u32, pace: FramePace) -> Result<(), SysError> {
        self.rtnl().await;
        self.to_link(format!("pace {} bytes in {:?}", pace.bytes, pace.period), ifindex, |state| {
            state.link(ifindex).map(drop)
        })
    }

    fn features(&self, ifindex: u32) -> Result<Vec<Feature>, SysError> {
        self.to_link("read the offload features".to_owned(), ifindex, |state| {
            Ok(state.link(ifindex)?.features.clone())
        })
    }

    fn request_features(&self, ifindex: u32, wanted: &[FeatureState]) -> Result<(), SysError> {
        self.to_link("set the offload features".to_owned(), ifindex, |state| {
            let link = state.link_mut(ifindex)?;
            for feature in link.features.iter_mut().filter(|feature| !feature.fixed) {
                if let Some(state) = wanted.iter().find(|state| state.name == feature.name) {
                    (feature.wanted, feature.active) = (state.on, state.on);
                }
            }
            Ok(())
        })
    }

    fn speed(&self, ifindex: u32) -> (Speed, Duplex) {
        match self.inner().state.links.get(&ifindex) {
            Some(link) if link.info.carrier => (Speed(10_000), Duplex::Full),
            _ => (Speed::UNKNOWN, Duplex::Unknown),
        }
    }

    fn driver(&self, ifindex: u32) -> Option<String> {
        self.inner().state.links.get(&ifindex)?.driver.clone()
    }

    fn permanent_mac(&self, ifindex: u32) -> Option<Mac> {
        self.inner().state.links.get(&ifindex)?.info.permanent_mac
    }

    fn has_queues(&self) -> bool {
        self.inner().has_queues
    }

    fn send_by_first_queue(&self, device: &str) -> Result<(), SysError> {
        let what = "set XPS of the first queue";
        let set = self.call(format!("{what} on {device}"), |state| {
            let ifindex = state.named(device)?.info.ifindex;
            state.link_mut(ifindex)?.first_queue = true;
            Ok(())
        });
        set.map_err(failed(what, device))
    }

    fn sends_by_first_queue(&self, device: &str) -> Option<bool> {
        self.inner().state.named(device).ok().map(|link| link.first_queue)
    }

    fn read_sysctl(&self, path: &Path) -> Option<String> {
        self.inner().state.sysctls.get(path).cloned()
    }

    fn write_sysctl(&self, path: &Path, value: &str) -> io::Result<()> {
        let written = self.call(format!("write {}", path.display()), |state| {
            *state.sysctls.get_mut(path).ok_or(Errno::ENOENT)? = value.to_owned();
            Ok(())
        });
        Ok(written?)
    }

    fn open_frames(&self, ifindex: u32) -> Result<Box<dyn SendFrames>, SysError> {
        self.to_link("open a packet socket".to_owned(), ifindex, |state| {
            state.link(ifindex)?;
            Ok(Box::new(Nowhere) as Box<dyn SendFrames>)
        })
    }

    fn open_routes(&self) -> Result<Box<dyn LookUpRoutes>, SysError> {
        Ok(Box::new(Nowhere))
    }

    fn open_macs(&self) -> Result<Box<dyn ChangeMacs>, SysError> {
        self.note_call("open a socket").map_err(failed("open a socket", "rtnetlink"))?;
        Ok(Box::new(Macs(self.clone())))
    }
}

/// Frames and look-ups that lead nowhere.
#[derive(Debug)]
struct Nowhere;

impl SendFrames for Nowhere {
    fn send(&self, _: &[u8]) -> Result<(), SysError> {
        Ok(())
    }
}

#[async_trait]
impl LookUpRoutes for Nowhere {
    async fn route_to(&self, _: IpAddr) -> Result<Option<ResolvedRoute>, SysError> {
        Ok(None)
    }
}

/// Changes MAC addresses at once.
struct Macs(FakeKernel);

impl ChangeMacs for Macs {
    fn set_mac(&mut self, ifindex: u32, mac: Mac) -> Result<(), SysError> {
        self.0.to_link(format!("set MAC {mac} at once"), ifindex, |state| {
            apply(state, ifindex, LinkSetting::Mac(mac))
        })
    }
}

/// Does to a link what the kernel does.
fn apply(state: &mut State, ifindex: u32, setting: LinkSetting) -> Result<(), Errno> {
    let link = state.link_mut(ifindex)?;
    match setting {
        LinkSetting::Up(on) => {
            link.info.flags.set(LinkFlags::Up, on);
            if !on {
                state.forget_messages(|message| messages::goes_when_closed(message, ifindex));
            }
        }
        LinkSetting::Mac(mac) => {
            match link.macs {
                MacChange::Never => return Err(Errno::EOPNOTSUPP),
                MacChange::Closed if link.info.is_up() => return Err(Errno::EBUSY),
                MacChange::Closed | MacChange::Live => link.info.mac = mac,
            }
            state.forget_messages(|message| {
                message.kind() == MessageKind::Neighbour && message.ifindex() == ifindex
            });
        }
        LinkSetting::Mtu(mtu) => {
            if !(link.info.min_mtu..=link.info.max_mtu).contains(&mtu) {
                return Err(Errno::EINVAL);
            }
            link.info.mtu = mtu;
            if mtu < IPV6_MIN_MTU {
                link.info.addr_gen_mode = None;
                state.forget_messages(|message| {
                    messages::is_on(message, ifindex) && message.family() == INET6
                });
            } else if link.info.addr_gen_mode.is_none() {
                link.info.addr_gen_mode = Some(In6AddrGenMode::Eui64);
            }
        }
        LinkSetting::Noarp(on) => link.info.flags.set(LinkFlags::Noarp, on),
        LinkSetting::Allmulti(on) => link.info.flags.set(LinkFlags::Allmulti, on),
        LinkSetting::Promisc(on) => {
            let is_on = link.info.flags.contains(LinkFlags::Promisc);
            link.info.flags.set(LinkFlags::Promisc, on);
            link.info.promiscuity = link.info.promiscuity - u32::from(is_on) + u32::from(on);
        }
        LinkSetting::AddrGenMode(mode) => {
            link.info.addr_gen_mode = link.info.addr_gen_mode.map(|_| mode);
        }
        LinkSetting::Master(master) => links::set_master(state, ifindex, master)?,
    }
    Ok(())
}
