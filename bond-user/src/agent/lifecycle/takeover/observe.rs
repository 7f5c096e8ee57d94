//! What a takeover depends on, as it is.

use std::collections::HashMap;

use bond_core::name::BondName;

use super::plan::stack;
use crate::{
    agent::{AgentError, lifecycle::machine::Machine},
    report::wording,
    sys::{
        handover::RawLink,
        layer3::Unrestorable,
        netlink::{Forwarding, QdiscStats, message::Message},
    },
};

/// What was read before anything is changed.
#[derive(Debug, Default)]
pub struct TakeoverFacts {
    /// All links of this network namespace.
    pub links: Vec<RawLink>,
    /// The outermost qdiscs of all devices.
    pub qdiscs: Vec<QdiscStats>,
    /// The forwarding tables.
    pub forwarding: Forwarding,
    /// rp_filter of the bond and of its VLANs, by ifindex.
    pub source_filters: HashMap<u32, String>,
    /// What else cannot be moved, a sentence each.
    pub refused: Vec<String>,
    /// This kernel renames interfaces that are up.
    pub renames_live: bool,
}

/// Reads it all. Nothing is changed.
///
/// # Errors
/// The kernel does not answer.
pub async fn observe(machine: &Machine, bond: &BondName) -> Result<TakeoverFacts, AgentError> {
    let devices = &*machine.devices;
    let links = devices.raw_links().await?;
    let renames_live = renames_live();
    let Some(link) = links.iter().find(|link| link.info.name == **bond) else {
        return Ok(TakeoverFacts { links, renames_live, ..TakeoverFacts::default() });
    };
    let stack = stack(link.info.ifindex, &links);
    let (mut refused, mut source_filters) = (Vec::new(), HashMap::new());
    for link in links.iter().filter(|link| stack.contains(&link.info.ifindex)) {
        let (ifindex, name) = (link.info.ifindex, &link.info.name);
        let layer3 = devices.layer3_of(ifindex, name).await?;
        if let Some(Unrestorable { what, why }) = layer3.unsharable() {
            refused.push(format!("{name}: {what}: {why}"));
        }
        let mpls = devices.mpls_routes_over(ifindex).await?;
        refused.extend(mpls.iter().map(|route: &Message| {
            format!("{name}: {}: {}", wording::mpls_route(route), wording::MPLS_STAYS)
        }));
        let hooked = devices.hooked(ifindex, name).await?;
        refused.extend(hooked.iter().map(|hooked| wording::takeover_hooked(name, hooked)));
        source_filters.extend(devices.source_filter(name).map(|filter| (ifindex, filter)));
    }
    refused.extend(elsewhere(machine, &stack).await?);
    let (qdiscs, forwarding) = (devices.qdiscs().await?, devices.forwarding().await?);
    Ok(TakeoverFacts { links, qdiscs, forwarding, source_filters, refused, renames_live })
}

/// Returns the devices of other network namespaces that lie above one of these.
async fn elsewhere(machine: &Machine, stack: &[u32]) -> Result<Vec<String>, AgentError> {
    let devices = &*machine.devices;
    let mut above = Vec::new();
    for namespace in devices.other_namespaces().await? {
        let links = devices.links(Some(namespace)).await?;
        let Some(ours) = devices.own_namespace().await else { continue };
        let is_above = |ifindex: u32| stack.contains(&ifindex);
        let uppers =
            links.iter().filter(|link| link.link_netns == Some(ours) && link.link.is_some_and(is_above));
        above.extend(
            uppers.filter(|link| !link.is_end_of_pair()).map(|link| {
                wording::takeover_elsewhere(&link.name, link.kind.as_deref().unwrap_or("device"))
            }),
        );
    }
    Ok(above)
}

/// Linux 6.2 and later rename an interface that is up.
fn renames_live() -> bool {
    const FIRST: (u32, u32) = (6, 2);
    let Ok(names) = nix::sys::utsname::uname() else { return false };
    let release = names.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next()) >= Some(FIRST)
}
