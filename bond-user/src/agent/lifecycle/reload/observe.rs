//! How a bond is that a file may change.

use std::{collections::HashSet, sync::Arc};

use bond_common::mac::Mac;
use bond_core::status::BondStatus;

use super::plan::wanted_mtu;
use crate::{
    agent::{
        Agent, AgentError, Bond, Goal,
        lifecycle::{DEFAULT_MTU, join},
        queues::Queues,
    },
    config::{BondConfig, SlaveConfig},
    sys::{
        dataplane::{Kernel, KernelError},
        enslave::EnslavePlan,
        found::Found,
        netlink::{Address, KernelRoute, LinkInfo, PairKind},
    },
};

/// A bond as it is.
pub struct ReloadFacts {
    pub status: BondStatus,
    pub goal: Arc<Goal>,
    pub queues: Queues,
    pub pair: Option<PairKind>,
    /// What the wanted slaves are, in their order.
    pub slaves: Vec<SeenSlave>,
    pub host: SeenHost,
}

/// What an interface is that a file names.
#[derive(Debug)]
pub enum SeenSlave {
    /// A slave of the bond: the place in the status. Its burned-in MAC address as the kernel says it, where the file's
    /// HWADDR is not the one that the engine knows.
    Member { place: usize, permanent_mac: Option<Mac> },
    /// Another bond releases it first.
    Taken,
    /// As it was found, or why it cannot be a slave.
    Free(Result<Found, AgentError>),
}

/// bond0's device.
#[derive(Debug)]
pub enum SeenHost {
    /// The bond ends in a port.
    None,
    /// It is in another network namespace.
    Elsewhere,
    Here {
        ifindex: u32,
        /// The name that it has now.
        device: String,
        /// Bytes.
        mtu: u32,
        addresses: Vec<Address>,
        routes: Vec<KernelRoute>,
        /// Whether the datapath takes the MTU that is wanted.
        mtu_fits: Result<(), KernelError>,
    },
}

impl Agent {
    /// Reads how a bond is. Nothing is changed. `released` are the interfaces that bonds will release.
    ///
    /// # Errors
    /// The kernel does not answer, or the agent is stopping.
    pub(super) async fn observe_bond(
        &self,
        bond: &Bond,
        wanted: &BondConfig,
        released: &HashSet<String>,
    ) -> Result<ReloadFacts, AgentError> {
        let status = self.machine.engine.status(bond.id).await?;
        let goal = bond.goal();
        let known = goal.slaves_named(wanted.slaves.iter().map(|slave| slave.name.as_str()), &status);
        let ifindexes: Vec<_> = known.into_iter().map(|slave| slave.map(|slave| slave.ifindex)).collect();
        let mut slaves = Vec::new();
        for (slave, ifindex) in wanted.slaves.iter().zip(ifindexes) {
            let place =
                ifindex.and_then(|ifindex| status.slaves.iter().position(|slave| slave.ifindex == ifindex));
            slaves.push(match place {
                Some(place) => {
                    let permanent_mac = self.permanent_mac(&status, place, slave).await?;
                    SeenSlave::Member { place, permanent_mac }
                }
                None if released.contains(slave.name.as_str()) => SeenSlave::Taken,
                None => {
                    let plan =
                        EnslavePlan { mac: None, mtu: DEFAULT_MTU, hook: bond.hook, unicast: Vec::new() };
                    SeenSlave::Free(
                        join::observe(&self.machine, (&slave.name, Some(&wanted.name)), &plan).await,
                    )
                }
            });
        }
        let host = self.observe_host(bond, &goal, wanted).await?;
        let (queues, pair) = (bond.queues, bond.pair);
        Ok(ReloadFacts { status, goal, queues, pair, slaves, host })
    }

    async fn permanent_mac(
        &self,
        status: &BondStatus,
        place: usize,
        slave: &SlaveConfig,
    ) -> Result<Option<Mac>, AgentError> {
        let Some(found) = status.slaves.get(place) else { return Ok(None) };
        match slave.hwaddr {
            Some(hwaddr) if hwaddr != found.permanent_mac => {
                Ok(self.machine.devices.link_by_index(found.ifindex).await?.permanent_mac)
            }
            _ => Ok(Some(found.permanent_mac)),
        }
    }

    /// Reads bond0's device, for a configuration that is wanted.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(in crate::agent::lifecycle) async fn observe_host(
        &self,
        bond: &Bond,
        goal: &Goal,
        wanted: &BondConfig,
    ) -> Result<SeenHost, AgentError> {
        if goal.config.port.is_some() {
            return Ok(SeenHost::None);
        }
        let devices = &*self.machine.devices;
        let port = devices.link_by_index(bond.maps.bond().port_ifindex()).await?;
        let (Some(ifindex), None) = (port.link, port.link_netns) else { return Ok(SeenHost::Elsewhere) };
        let LinkInfo { name: device, mtu, .. } = devices.link_by_index(ifindex).await?;
        let mtu_fits = wanted_mtu(&goal.config, wanted).map_or(Ok(()), |mtu| Kernel::check(bond.hook, mtu));
        let (addresses, routes) = (devices.addresses_of(ifindex).await?, devices.routes_of(ifindex).await?);
        Ok(SeenHost::Here { ifindex, device, mtu, addresses, routes, mtu_fits })
    }
}
