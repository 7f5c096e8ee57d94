//! Links of the kernel in memory as rtnetlink messages: VLANs, ports of bridges, bonds of the driver.

use bond_common::mac::Mac;
use netlink_packet_core::NLM_F_CREATE;
use nix::errno::Errno;

use super::{FakeKernel, FakeLink, MacChange, State};
use crate::sys::netlink::{
    LinkFlags, LinkInfo, Raw, VlanTag,
    message::{append, nested},
    numbers::{
        IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA,
        IFLA_INFO_SLAVE_KIND, IFLA_LINK, IFLA_LINKINFO, IFLA_MTU, RTM_NEWLINK, RTM_SETLINK,
    },
};

const HEADER: usize = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_MASTER: u16 = 10;
/// IFLA_VLAN_ID
const VLAN_ID: u16 = 1;
/// IFLA_BOND_MODE, IFLA_BOND_ACTIVE_SLAVE and, of a slave, IFLA_BOND_SLAVE_MII_STATUS.
const MODE: u16 = 1;
const ACTIVE_SLAVE: u16 = 2;
const MII_STATUS: u16 = 2;
/// The settings of a new port of a bridge: IFLA_BRPORT_LEARNING, UNICAST_FLOOD, MCAST_FLOOD, BCAST_FLOOD, ISOLATED.
const NEW_PORT: [(u16, u8); 5] = [(8, 1), (9, 1), (27, 1), (30, 1), (33, 0)];

/// Whether it is about links, as a whole message.
pub fn is_about_link(request: &Raw) -> bool {
    [RTM_NEWLINK, RTM_SETLINK, RTM_GETLINK].contains(&request.kind)
}

/// Returns what a request is called among the calls.
pub fn called(request: &Raw) -> String {
    let what = if request.kind == RTM_SETLINK { "change" } else { "make or change" };
    let name = attribute(request, IFLA_IFNAME).map(text).unwrap_or_default();
    format!("{what} link {} {name}", ifindex_of(request))
}

fn ifindex_of(request: &Raw) -> u32 {
    request.body.get(4..8).and_then(number).unwrap_or(0)
}

fn attribute(request: &Raw, wanted: u16) -> Option<&[u8]> {
    find(request.body.get(HEADER..)?, wanted)
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    nested(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn number(value: &[u8]) -> Option<u32> {
    value.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

/// Replaces an attribute, or adds it.
fn put(attributes: &mut Vec<u8>, wanted: u16, value: &[u8]) {
    let mut changed = Vec::new();
    let mut is_there = false;
    for (kind, former) in nested(attributes) {
        is_there |= kind == wanted;
        append(&mut changed, kind, if kind == wanted { value } else { former });
    }
    if !is_there {
        append(&mut changed, wanted, value);
    }
    *attributes = changed;
}

/// What the kernel lists of the links.
pub fn listed(state: &State) -> Vec<Raw> {
    state.links.values().map(message).collect()
}

fn message(link: &FakeLink) -> Raw {
    let info = &link.info;
    let mut body = vec![0, 0, 1, 0];
    body.extend(info.ifindex.to_ne_bytes());
    body.extend(info.flags.bits().to_ne_bytes());
    body.extend([0; 4]);
    append(&mut body, IFLA_IFNAME, &[info.name.as_bytes(), b"\0"].concat());
    append(&mut body, IFLA_ADDRESS, &info.mac.bytes());
    append(&mut body, IFLA_MTU, &info.mtu.to_ne_bytes());
    for (kind, value) in [(IFLA_LINK, info.link), (IFLA_MASTER, info.master)] {
        value.into_iter().for_each(|value| append(&mut body, kind, &value.to_ne_bytes()));
    }
    let mut parts = Vec::new();
    if let Some(kind) = &info.kind {
        append(&mut parts, IFLA_INFO_KIND, kind.as_bytes());
        // The kernel says nothing more of a pair.
        if !link.data.is_empty() {
            append(&mut parts, IFLA_INFO_DATA, &link.data);
        }
    }
    if let Some(kind) = &info.master_kind {
        append(&mut parts, IFLA_INFO_SLAVE_KIND, kind.as_bytes());
        append(&mut parts, IFLA_INFO_SLAVE_DATA, &link.port_data);
    }
    append(&mut body, IFLA_LINKINFO, &parts);
    Raw { kind: RTM_NEWLINK, body }
}

/// Carries a request out. `new` is the ifindex of a link that it makes.
///
/// # Errors
/// EEXIST for a name that is taken, ENODEV without the link, EINVAL for a slave that is not up.
pub fn send(state: &mut State, flags: u16, request: &Raw, new: u32) -> Result<(), Errno> {
    if let Some(name) = attribute(request, IFLA_IFNAME).map(text)
        && state.named(&name).is_ok_and(|taken| taken.info.ifindex != ifindex_of(request))
    {
        return Err(Errno::EEXIST);
    }
    let parts = attribute(request, IFLA_LINKINFO).unwrap_or_default();
    if flags & NLM_F_CREATE != 0 {
        return make(state, request, parts, new);
    }
    let ifindex = ifindex_of(request);
    if let Some(active) = find(parts, IFLA_INFO_DATA).and_then(|data| find(data, ACTIVE_SLAVE)) {
        let slave = state.link(number(active).unwrap_or(0))?;
        if slave.info.master != Some(ifindex) || !slave.info.carrier {
            return Err(Errno::EINVAL);
        }
        put(&mut state.link_mut(ifindex)?.data, ACTIVE_SLAVE, active);
    }
    let link = state.link_mut(ifindex)?;
    for (kind, value) in find(parts, IFLA_INFO_SLAVE_DATA).into_iter().flat_map(nested) {
        if find(&link.port_data, kind).is_some() {
            put(&mut link.port_data, kind, value);
        }
    }
    if let Some(name) = attribute(request, IFLA_IFNAME) {
        link.info.name = text(name);
    }
    Ok(())
}

fn make(state: &mut State, request: &Raw, parts: &[u8], new: u32) -> Result<(), Errno> {
    let name = attribute(request, IFLA_IFNAME).map(text).ok_or(Errno::EINVAL)?;
    if find(parts, IFLA_INFO_KIND) == Some(&b"bond"[..]) {
        let mac = attribute(request, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()).map(Mac::new);
        let mut link = FakeLink::new(new, &name, mac.ok_or(Errno::EINVAL)?);
        link.info.kind = Some("bond".to_owned());
        link.macs = MacChange::Live;
        append(&mut link.data, MODE, &[1]);
        state.links.insert(new, link);
        return Ok(());
    }
    let below = attribute(request, IFLA_LINK).and_then(number).ok_or(Errno::EINVAL)?;
    let mut link = FakeLink::new(new, &name, state.link(below)?.info.mac);
    link.data = find(parts, IFLA_INFO_DATA).ok_or(Errno::EINVAL)?.to_vec();
    as_vlan(&mut link, below);
    state.links.insert(new, link);
    Ok(())
}

fn as_vlan(link: &mut FakeLink, below: u32) {
    let vid = find(&link.data, VLAN_ID).and_then(|vid| vid.try_into().ok()).map_or(0, u16::from_ne_bytes);
    link.info.vlan = Some(VlanTag { ethertype: 0x8100, vid });
    link.info.kind = Some("vlan".to_owned());
    link.info.link = Some(below);
}

/// Makes a link a port or slave of another one, or of none, as the kernel does.
///
/// # Errors
/// EPERM for a slave of the driver that is up.
pub fn set_master(state: &mut State, ifindex: u32, master: Option<u32>) -> Result<(), Errno> {
    let kind = master.map(|master| state.link(master).map(|link| link.info.kind.clone())).transpose()?;
    let kind = kind.flatten();
    let link = state.link_mut(ifindex)?;
    let was_slave = link.info.master_kind.as_deref() == Some("bond");
    link.port_data.clear();
    match kind.as_deref() {
        Some("bond") if link.info.is_up() => return Err(Errno::EPERM),
        Some("bond") => {
            link.info.flags |= LinkFlags::Up;
            append(&mut link.port_data, MII_STATUS, &[0]);
        }
        Some("bridge") => NEW_PORT.iter().for_each(|(kind, on)| append(&mut link.port_data, *kind, &[*on])),
        _ if was_slave => link.info.flags.remove(LinkFlags::Up),
        _ => {}
    }
    let former = std::mem::replace(&mut link.info.master, master);
    link.info.master_kind = kind;
    for bond in former.into_iter().chain(master) {
        elect(state, bond);
    }
    Ok(())
}

/// The driver's bond has an active slave as long as it has slaves.
pub(super) fn elect(state: &mut State, bond: u32) {
    let slaves: Vec<u32> = state
        .links
        .values()
        .filter(|link| link.info.master == Some(bond))
        .map(|link| link.info.ifindex)
        .collect();
    let Some(bond) = state.links.get_mut(&bond).filter(|link| link.info.kind.as_deref() == Some("bond"))
    else {
        return;
    };
    let active = find(&bond.data, ACTIVE_SLAVE).and_then(number);
    if active.is_none_or(|active| !slaves.contains(&active)) {
        put(&mut bond.data, ACTIVE_SLAVE, &slaves.first().copied().unwrap_or(0).to_ne_bytes());
    }
}

/// Whether a link has a carrier by what is below it; None if its cable decides.
pub(super) fn carrier_of(state: &State, link: &LinkInfo) -> Option<bool> {
    let has_carrier = |ifindex: u32| state.links.get(&ifindex).is_some_and(|below| below.info.carrier);
    match link.kind.as_deref() {
        Some("vlan") => Some(link.link.is_some_and(has_carrier)),
        Some("bond") => {
            let slaves = state.links.values().filter(|slave| slave.info.master == Some(link.ifindex));
            Some(slaves.into_iter().any(|slave| slave.info.carrier))
        }
        _ => None,
    }
}

impl FakeKernel {
    /// Adds a bond of the driver with these slaves, which is up. Returns its ifindex.
    pub fn add_driver_bond(&self, name: &str, slaves: &[u32]) -> u32 {
        let mac = self.with_link(slaves.first().copied().unwrap_or(0), |link| link.info.mac);
        let bond = self.add_device(name, "bond", mac, |link| append(&mut link.data, MODE, &[1]));
        for slave in slaves {
            self.change(*slave, |link| link.info.flags.remove(LinkFlags::Up));
            self.alter(|state| {
                let _ = set_master(state, *slave, Some(bond));
            });
        }
        bond
    }

    /// Adds a VLAN that is up. Returns its ifindex.
    pub fn add_vlan(&self, name: &str, below: u32, vid: u16) -> u32 {
        let mac = self.with_link(below, |link| link.info.mac);
        self.add_device(name, "vlan", mac, |link| {
            append(&mut link.data, VLAN_ID, &vid.to_ne_bytes());
            as_vlan(link, below);
        })
    }

    /// Adds a bridge that is up, with this port. Returns its ifindex.
    pub fn add_bridge(&self, name: &str, port: u32) -> u32 {
        let mac = self.with_link(port, |link| link.info.mac);
        let bridge = self.add_device(name, "bridge", mac, |_| {});
        self.alter(|state| {
            let _ = set_master(state, port, Some(bridge));
        });
        bridge
    }

    /// Reads something of a link; what is read of a link that does not exist is empty.
    fn with_link<T: Default>(&self, ifindex: u32, read: impl FnOnce(&FakeLink) -> T) -> T {
        self.inner().state.links.get(&ifindex).map(read).unwrap_or_default()
    }

    fn add_device(&self, name: &str, kind: &str, mac: Mac, shape: impl FnOnce(&mut FakeLink)) -> u32 {
        let ifindex = self.add_nic(name, mac);
        self.change(ifindex, |link| {
            link.info.kind = Some(kind.to_owned());
            link.info.permanent_mac = None;
            link.macs = MacChange::Live;
            shape(link);
        });
        ifindex
    }
}
