//! Neighbours: the stations that answer for addresses on a link.

use std::{net::IpAddr, time::Duration};

use bond_common::mac::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};
use nix::errno::Errno;

use super::Netlink;
use crate::sys::SysError;

/// How many neighbours are probed at once: any answer suffices.
const ASKED_AT_ONCE: usize = 8;

impl Netlink {
    /// Makes the kernel probe a few neighbours of a device, confirmed ones first (NUD_PROBE: a unicast ARP request or
    /// neighbour solicitation). Returns how many there are to probe, including those for which the kernel is
    /// resolving, or has failed to resolve, the address: these it probes by itself.
    ///
    /// # Errors
    /// The device does not exist, its neighbours cannot be listed, or the kernel refuses to probe one.
    pub async fn ask_neighbours(&self, ifindex: u32) -> Result<usize, SysError> {
        let on = || super::called(ifindex);
        // The list of a missing device would be empty.
        self.link_by_index(ifindex).await?;
        let entries = self.neighbours(NeighbourMessage::default(), "the neighbours").await?;
        let of_device = || entries.iter().filter(|entry| entry.header.ifindex == ifindex);
        let with = |states: &[NeighbourState]| {
            let entries = of_device().filter(|entry| states.contains(&entry.header.state));
            entries.filter_map(destination).collect::<Vec<_>>()
        };
        use NeighbourState::{Delay, Failed, Incomplete, Probe, Reachable, Stale};
        let known = [with(&[Reachable]), with(&[Delay, Probe, Stale])].concat();
        for address in known.iter().take(ASKED_AT_ONCE) {
            let request = RouteNetlinkMessage::NewNeighbour(entry(ifindex, *address, Probe));
            let answer = self.change_raw(NLM_F_CREATE | NLM_F_REPLACE, request.into()).await;
            match answer.map_err(|error| SysError::netlink(format!("ask {address}"), on(), error)) {
                // The kernel has just deleted it.
                Err(error) if error.errno() == Some(Errno::EINVAL) => {}
                answer => answer?,
            }
        }
        Ok(known.len() + with(&[Incomplete, Failed]).len())
    }

    /// Returns the neighbours of all devices, and the addresses that bridges have learnt at their ports, each with the time
    /// since it spoke.
    ///
    /// # Errors
    /// The kernel does not list the neighbours, or the entries of the bridges.
    pub async fn all_neighbours(&self) -> Result<Vec<Neighbour>, SysError> {
        let mut learnt = NeighbourMessage::default();
        learnt.header.family = AddressFamily::Bridge;
        let neighbours = self.neighbours(NeighbourMessage::default(), "the neighbours").await?;
        let learnt = self.neighbours(learnt, "what bridges have learnt").await?;
        Ok(neighbours.iter().chain(&learnt).filter_map(Neighbour::of).collect())
    }

    /// Returns the kernel's list for this request, of all devices.
    pub(super) async fn neighbours(
        &self,
        request: NeighbourMessage,
        what: &str,
    ) -> Result<Vec<NeighbourMessage>, SysError> {
        let entries = self.list(RouteNetlinkMessage::GetNeighbour(request), what).await?;
        let entry = |message| match message {
            RouteNetlinkMessage::NewNeighbour(entry) => Some(entry),
            _ => None,
        };
        Ok(entries.into_iter().filter_map(entry).collect())
    }
}

/// A station that the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The device by which it is reached, or the port of a bridge.
    pub ifindex: u32,
    /// The MAC address.
    pub mac: Mac,
    /// None: a bridge has learnt the MAC address.
    pub address: Option<IpAddr>,
    /// Since the kernel had a proof of it: an answer, or for a bridge a frame.
    pub age: Duration,
}

impl Neighbour {
    /// Returns None for what is no other station, or has no MAC address yet.
    fn of(entry: &NeighbourMessage) -> Option<Self> {
        use NeighbourState::{Failed, Incomplete, Noarp, Permanent};
        if matches!(entry.header.state, Failed | Incomplete | Noarp | Permanent) {
            return None;
        }
        let mac = entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac::new),
            _ => None,
        });
        let times = entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::CacheInfo(times) => Some(*times),
            _ => None,
        })?;
        let address = destination(entry);
        let is_learnt = entry.header.family == AddressFamily::Bridge;
        let age = if is_learnt { times.updated } else { times.confirmed };
        Some(Self {
            ifindex: entry.header.ifindex,
            mac: mac.filter(|mac| mac.is_unicast())?,
            address: if is_learnt { None } else { Some(address?) },
            age: CLOCK_TICK * age,
        })
    }
}

/// The unit of the kernel's ages (USER_HZ).
pub(super) const CLOCK_TICK: Duration = Duration::from_millis(10);

fn entry(ifindex: u32, address: IpAddr, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = ifindex;
    message.header.state = state;
    // The type of a unicast entry.
    message.header.kind = RouteType::Unspec;
    let address = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

fn destination(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_EXCL;

    use super::*;
    use crate::sys::{
        netlink::LinkSetting,
        testing::{in_namespace, mac, veth},
    };

    #[test]
    fn known_neighbours_are_asked_and_others_counted() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (link, far) = veth(&devices, "eth1", "far1").await;
            for ifindex in [link.ifindex, far.ifindex] {
                netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
            }
            assert_eq!(netlink.ask_neighbours(link.ifindex).await.unwrap(), 0);
            let add = |ifindex: u32, address: &str, state| {
                let mut message = entry(ifindex, address.parse().unwrap(), state);
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac(9).bytes().to_vec()));
                let request = RouteNetlinkMessage::NewNeighbour(message);
                netlink.change_raw(NLM_F_CREATE | NLM_F_EXCL, request.into())
            };
            use NeighbourState::{Failed, Permanent, Probe, Reachable, Stale};
            for (address, state) in [
                ("192.0.2.1", Stale),
                ("192.0.2.2", Reachable),
                ("192.0.2.3", Failed),
                ("192.0.2.4", Permanent),
                ("2001:db8::1", Stale),
            ] {
                add(link.ifindex, address, state).await.unwrap();
            }
            add(far.ifindex, "192.0.2.5", Stale).await.unwrap();
            assert_eq!(netlink.ask_neighbours(link.ifindex).await.unwrap(), 4);
            let entries = netlink.neighbours(NeighbourMessage::default(), "the neighbours").await.unwrap();
            let probed = entries.iter().filter(|entry| entry.header.state == Probe);
            let mut probed: Vec<_> =
                probed.filter_map(destination).map(|address| address.to_string()).collect();
            probed.sort();
            assert_eq!(probed, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
            assert!(netlink.ask_neighbours(4711).await.unwrap_err().is_gone());
        });
    }
}
