//! The devices of a bond and those that take their place, while both are there.
//!
//! A VLAN cannot be put above another device, and addresses, routes and bridge ports belong to their device. So each
//! device gets a twin, and everything is on both of them before packets take the new way: `prepare_twins`,
//! `turn_over`, `name_twins`. Either twin receives for the host all the time; only the way out
//! changes, by one batch of requests. The same functions lead back.

mod driver;
pub(in crate::sys) mod link;
mod make;
mod port;
mod sysctls;

use std::time::{Duration, Instant};

use bond_common::mac::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use self::{
    driver::{DriverSlave, DriverSlaveOptions, active_slave, is_active_backup, slaves_of},
    link::RawLink,
    port::BridgePort,
};
use self::{
    link::LinkRequest,
    port::{PortPhase, flush},
    sysctls::LOOSE,
};
use super::{
    Devices, SysError,
    alias::Alias,
    found::mac_text,
    layer3::Target,
    netlink::{
        LinkInfo, LinkSetting, OperState, Raw,
        message::{self, Message},
        numbers::{
            IFLA_ADDRESS, IFLA_GROUP, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_MTU, IFLA_TXQLEN,
            RTM_NEWLINK, RTM_SETLINK,
        },
    },
};

/// The kernel reports a carrier of a new device once a second at most.
const READY_WITHIN: Duration = Duration::from_secs(10);
const BETWEEN_CHECKS: Duration = Duration::from_millis(10);

/// A device of the driver's bond, and the one that takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twin {
    /// The name by which others know it: that of the twin that is in use.
    pub name: String,
    /// ifindex of the driver's.
    pub first: u32,
    /// The driver's is called so while the other one is in use.
    pub first_aside: String,
    /// ifindex of xbond's; 0 until it is made.
    pub second: u32,
    /// xbond's is called so while the other one is in use.
    pub second_aside: String,
    /// What makes it a VLAN; None of the bond itself.
    pub vlan: Option<VlanPlan>,
    /// Its settings in the bridge of which it is a port.
    pub port: Option<BridgePort>,
    /// rp_filter, as it was; None if that cannot be read.
    pub source_filter: Option<String>,
}

/// How a VLAN is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlanPlan {
    /// The place of the device below it among the twins.
    pub below: usize,
    /// IFLA_INFO_DATA
    data: Vec<u8>,
    /// None if it has that of the device below it.
    #[serde(with = "mac_text::option")]
    mac: Option<Mac>,
    /// Bytes.
    mtu: u32,
    group: u32,
    queue_length: Option<u32>,
    alias: Option<Alias>,
}

/// Which twin takes the place of the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// xbond's that of the driver's.
    Over,
    /// The driver's that of xbond's.
    Back,
}

impl VlanPlan {
    /// Returns the plan of a VLAN above a device with this MAC address; None of another device.
    pub fn of(link: &RawLink, (below, mac): (usize, Mac)) -> Option<Self> {
        link.info.vlan?;
        Some(Self {
            below,
            data: settable(link.data()?),
            mac: Some(link.info.mac).filter(|own| *own != mac),
            mtu: link.info.mtu,
            group: link.info.group,
            queue_length: link.queue_length(),
            alias: link.info.alias.clone(),
        })
    }
}

/// Returns IFLA_INFO_DATA of a VLAN as the kernel takes it: it lists flags with a mask of all bits, and refuses bits that
/// it does not know.
fn settable(data: &[u8]) -> Vec<u8> {
    /// IFLA_VLAN_FLAGS, and the flags reorder_hdr, gvrp, loose_binding, mvrp and bridge_binding.
    const FLAGS: u16 = 2;
    const KNOWN: u32 = 0x1f;
    let mut taken = Vec::new();
    for (kind, value) in message::nested(data) {
        match value {
            [a, b, c, d, ..] if kind == FLAGS => {
                let flags = u32::from_ne_bytes([*a, *b, *c, *d]) & KNOWN;
                message::append(&mut taken, kind, &[flags.to_ne_bytes(), KNOWN.to_ne_bytes()].concat());
            }
            value => message::append(&mut taken, kind, value),
        }
    }
    taken
}

impl Twin {
    /// Returns the ifindex of the twin whose place is taken.
    pub fn from(&self, way: Way) -> u32 {
        match way {
            Way::Over => self.first,
            Way::Back => self.second,
        }
    }

    fn to(&self, way: Way) -> u32 {
        match way {
            Way::Over => self.second,
            Way::Back => self.first,
        }
    }

    fn target(&self, way: Way, mac: Mac) -> Target<'_> {
        let names = Some((&*self.name, &*self.name));
        Target { from: self.from(way), to: self.to(way), names, mac: Some(mac) }
    }
}

impl dyn Devices + '_ {
    /// Makes the VLANs that are missing above the bond that takes the place of the other one. They are down.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub async fn make_vlans(&self, twins: &mut [Twin], way: Way) -> Result<(), SysError> {
        for place in 0..twins.len() {
            let Some((name, plan)) = twins.get(place).and_then(|twin| {
                let plan = twin.vlan.as_ref().filter(|_| twin.to(way) == 0)?;
                let name = if way == Way::Over { &twin.second_aside } else { &twin.first_aside };
                Some((name.clone(), plan.clone()))
            }) else {
                continue;
            };
            let below = twins.get(plan.below).map_or(0, |below| below.to(way));
            let made = self.make_vlan(&name, &plan, below).await?;
            if let Some(twin) = twins.get_mut(place) {
                *(if way == Way::Over { &mut twin.second } else { &mut twin.first }) = made.ifindex;
            }
        }
        Ok(())
    }

    async fn make_vlan(&self, name: &str, plan: &VlanPlan, below: u32) -> Result<LinkInfo, SysError> {
        let mut request = LinkRequest::new(RTM_NEWLINK, 0)
            .name(name)
            .number(IFLA_LINK, below)
            .number(IFLA_MTU, plan.mtu)
            .number(IFLA_GROUP, plan.group)
            .of_kind((IFLA_INFO_KIND, IFLA_INFO_DATA), "vlan", &plan.data);
        if let Some(mac) = plan.mac {
            request = request.with(IFLA_ADDRESS, &mac.bytes());
        }
        if let Some(length) = plan.queue_length {
            request = request.number(IFLA_TXQLEN, length);
        }
        let request = (NLM_F_CREATE | NLM_F_EXCL, request.raw());
        self.change_raw_link("create a vlan", name, request).await?;
        let made = self.link_by_name(name).await?;
        if plan.alias.is_some() {
            self.set_alias(made.ifindex, plan.alias.as_ref()).await?;
        }
        Ok(made)
    }

    /// Gives each device's twin everything that the device has, so that it receives and could send. Nothing is sent by
    /// it yet.
    ///
    /// # Errors
    /// The kernel refuses something. What was done stays.
    pub async fn prepare_twins(&self, twins: &[Twin], way: Way) -> Result<(), SysError> {
        for twin in twins {
            let (from, to) =
                (self.link_by_index(twin.from(way)).await?, self.link_by_index(twin.to(way)).await?);
            self.copy_sysctls(&from.name, &to.name);
            self.set_source_filter(&from.name, LOOSE);
            self.set_source_filter(&to.name, LOOSE);
            if let Some(mode) = from.addr_gen_mode {
                self.set(to.ifindex, LinkSetting::AddrGenMode(mode)).await?;
            }
            self.set(to.ifindex, LinkSetting::Up(true)).await?;
            if let Some(port) = &twin.port {
                // Before there are two ports, they are kept apart.
                self.set_port(port, from.ifindex, PortPhase::Leading).await?;
                self.set(to.ifindex, LinkSetting::Master(Some(port.bridge))).await?;
                self.set_port(port, to.ifindex, PortPhase::Silent).await?;
            }
            let layer3 = self.layer3_of(from.ifindex, &from.name).await?;
            let target = twin.target(way, to.mac);
            self.put_addresses(&layer3, &target).await?;
            self.put_neighbours(&layer3, &target).await?;
        }
        self.await_running(twins, way).await
    }

    async fn set_port(&self, port: &BridgePort, ifindex: u32, phase: PortPhase) -> Result<(), SysError> {
        let request = (0, port.request(ifindex, phase));
        self.change_raw_link("set the bridge port", &self.called(ifindex), request).await
    }

    /// Waits until the kernel sends by all of them: it notices the carrier of a new device late.
    async fn await_running(&self, twins: &[Twin], way: Way) -> Result<(), SysError> {
        let until = Instant::now() + READY_WITHIN;
        for twin in twins {
            loop {
                let link = self.link_by_index(twin.to(way)).await?;
                if link.is_lower_up() && matches!(link.operstate, OperState::Up | OperState::Unknown) {
                    break;
                }
                if Instant::now() >= until {
                    let what = "wait for the carrier".to_owned();
                    return Err(SysError::NotKept { what, on: link.name, hint: None });
                }
                tokio::time::sleep(BETWEEN_CHECKS).await;
            }
        }
        Ok(())
    }

    /// Has everything sent by the twins from now on.
    ///
    /// # Errors
    /// The kernel refuses a route or a port. What was done stays.
    pub async fn turn_over(&self, twins: &[Twin], way: Way) -> Result<(), SysError> {
        let (mut adds, mut deletes) = (Vec::new(), Vec::new());
        for twin in twins {
            let target = twin.target(way, Mac::ZERO);
            self.copy_neighbours(&target).await?;
            let moves = self.route_moves(&target).await?;
            adds.extend(moves.adds);
            deletes.extend(moves.deletes);
        }
        // Routes to gateways last, which need the others.
        let (by_gateway, direct): (Vec<_>, Vec<_>) =
            adds.into_iter().partition(|(_, route)| route.has_gateway());
        let mut batch = Batch::default();
        direct.into_iter().chain(by_gateway).for_each(|(flags, route)| batch.add_route(flags, &route));
        for (twin, port) in twins.iter().filter_map(|twin| Some((twin, twin.port.as_ref()?))) {
            let (from, to) = (twin.from(way), twin.to(way));
            batch.port(&twin.name, port.request(from, PortPhase::Silent));
            batch.port(&twin.name, port.request(to, PortPhase::Taking));
            batch.port(&twin.name, flush(from));
        }
        batch.send(self).await?;
        // Only when the twins have all of them.
        let mut batch = Batch::default();
        deletes.iter().for_each(|route| batch.delete_route(route));
        batch.send(self).await
    }

    /// Gives the twin in use the name, and the other one its name aside.
    ///
    /// # Errors
    /// A name is taken, or the kernel renames no interface that is up (before Linux 6.2).
    pub async fn name_twins(&self, twins: &[Twin], way: Way) -> Result<(), SysError> {
        let mut batch = Batch::default();
        for twin in twins {
            let aside = match way {
                Way::Over => &twin.first_aside,
                Way::Back => &twin.second_aside,
            };
            for (ifindex, name) in [(twin.from(way), aside), (twin.to(way), &twin.name)] {
                if self.name_of(ifindex).is_some_and(|found| found != *name) {
                    batch.rename(ifindex, name);
                }
            }
        }
        batch.send(self).await
    }

    /// Gives the twins in use the settings that both could not have at once.
    ///
    /// # Errors
    /// The kernel refuses the settings of a port.
    pub async fn finish_twins(&self, twins: &[Twin], way: Way) -> Result<(), SysError> {
        for twin in twins {
            let ifindex = twin.to(way);
            if let Some(port) = &twin.port {
                self.set_port(port, ifindex, PortPhase::Alone).await?;
            }
            if let (Some(name), Some(filter)) = (self.name_of(ifindex), &twin.source_filter) {
                self.set_source_filter(&name, filter);
            }
        }
        Ok(())
    }
}

/// Requests that are sent together, and what each of them is called.
#[derive(Default)]
struct Batch(Vec<(BatchStep, u16, Raw)>);

struct BatchStep {
    what: String,
    on: String,
    /// Errors that say that it is so already.
    done: &'static [Errno],
}

impl Batch {
    fn add(
        &mut self,
        (what, on): (impl Into<String>, impl Into<String>),
        done: &'static [Errno],
        request: (u16, Raw),
    ) {
        self.0.push((BatchStep { what: what.into(), on: on.into(), done }, request.0, request.1));
    }

    fn add_route(&mut self, flags: u16, route: &Message) {
        self.add((format!("add route {route}"), "the twin"), &[Errno::EEXIST], (flags, route.creation()));
    }

    fn delete_route(&mut self, route: &Message) {
        let done = &[Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
        self.add((format!("delete route {route}"), "the twin"), done, (0, route.deletion()));
    }

    fn port(&mut self, name: &str, request: Raw) {
        self.add(("set the bridge port", name), &[], (0, request));
    }

    fn rename(&mut self, ifindex: u32, name: &str) {
        let request = LinkRequest::new(RTM_SETLINK, ifindex).name(name).raw();
        self.add((format!("rename ifindex {ifindex}"), name), &[], (0, request));
    }

    /// # Errors
    /// The first one that failed; those after it were sent as well.
    async fn send(self, devices: &(dyn Devices + '_)) -> Result<(), SysError> {
        let (steps, requests): (Vec<_>, Vec<_>) =
            self.0.into_iter().map(|(step, flags, raw)| (step, (flags, raw))).unzip();
        for (step, answer) in steps.into_iter().zip(devices.send_raw(requests).await) {
            let BatchStep { what, on, done } = step;
            match answer.map_err(|error| SysError::netlink(what, on, error)) {
                Err(error) if error.errno().is_none_or(|errno| !done.contains(&errno)) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
