//! The state of a link, from RTM_NEWLINK, and the settings that xbond changes on one.

use std::fmt;

use bond_common::mac::Mac;
use netlink_packet_core::Parseable as _;
pub use netlink_packet_route::link::{In6AddrGenMode, LinkFlags, LinkLayerType, State as OperState};
use netlink_packet_route::{
    AddressFamily,
    link::{
        self as wire, AfSpecInet6, AfSpecUnspec, BridgeStpState, InfoBridge, InfoData, InfoVlan,
        LinkAttribute, LinkMessage, LinkXdp, Prop,
    },
};
use rtnetlink::LinkUnspec;

use super::{NetnsId, PairKind, text::make_readable};
use crate::sys::alias::Alias;

/// The state of a link at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The index.
    pub ifindex: u32,
    /// The name.
    pub name: String,
    /// The alternative names.
    pub altnames: Vec<String>,
    /// ARPHRD_*
    pub layer: LinkLayerType,
    /// IFF_*, as SIOCGIFFLAGS returns them: IFF_PROMISC and IFF_ALLMULTI only if they were set explicitly.
    pub flags: LinkFlags,
    /// Zero if it is not an Ethernet address.
    pub mac: Mac,
    /// IFLA_PERM_ADDRESS. Virtual devices have none.
    pub permanent_mac: Option<Mac>,
    /// Bytes, without the Ethernet header.
    pub mtu: u32,
    /// 0 if the driver sets no limit, or does not report it.
    pub min_mtu: u32,
    /// 0 if the driver sets no limit, or does not report it.
    pub max_mtu: u32,
    /// The number of requests for promiscuous mode, including the flag.
    pub promiscuity: u32,
    /// IFLA_OPERSTATE.
    pub operstate: OperState,
    /// `netif_carrier_ok`
    pub carrier: bool,
    /// ifindex of the bridge, bond, VRF ... of which it is a port.
    pub master: Option<u32>,
    /// The master's kind: "bridge", "bond" ...
    pub master_kind: Option<String>,
    /// "veth", "bridge", "vlan" ...; `None` for hardware.
    pub kind: Option<String>,
    /// IFLA_LINK: ifindex of the peer of a veth or netkit, of the device below a VLAN.
    pub link: Option<u32>,
    /// IFLA_LINK_NETNSID: the namespace of `link`, if that is another one.
    pub link_netns: NetnsId,
    /// The tag of a VLAN device.
    pub vlan: Option<VlanTag>,
    /// Of a bridge with vlan_filtering: the TPID of its VLANs.
    pub filters_vlans: Option<u16>,
    /// Of a bridge: it takes part in STP, the kernel's or a daemon's, so that its ports may be redundant.
    pub has_stp: bool,
    /// The attached XDP program.
    pub xdp: Option<AttachedXdp>,
    /// `None` if the device has no IPv6.
    pub addr_gen_mode: Option<In6AddrGenMode>,
    /// Whether IPv6 forwards on it: it then advertises itself as a router.
    pub ipv6_forwarding: bool,
    /// IFLA_IFALIAS
    pub alias: Option<Alias>,
    /// IFLA_GROUP; 0 is the default.
    pub group: u32,
}

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8
    pub ethertype: u16,
    /// 0 to 4095
    pub vid: u16,
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// The number of the program, as `bpftool prog show id` takes it; the first one if there are several.
    pub program: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// In the NIC.
    Offloaded,
    /// Several modes at once.
    Multiple,
}

impl LinkInfo {
    /// IFF_UP
    pub fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    /// IFF_RUNNING: operationally up.
    pub fn is_running(&self) -> bool {
        self.flags.contains(LinkFlags::Running)
    }

    /// Returns whether frames that are sent by it arrive at another link.
    pub fn is_end_of_pair(&self) -> bool {
        self.pair().is_some()
    }

    /// Returns the kind of the pair of which it is an end.
    pub fn pair(&self) -> Option<PairKind> {
        let kind = self.kind.as_deref()?;
        [PairKind::Veth, PairKind::Netkit].into_iter().find(|pair| pair.name() == kind)
    }

    /// Returns whether it is a bridge of the kernel's.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// Returns whether it has its own MAC address above another device (`macvlan_device_event` includes macvtaps).
    pub fn is_macvlan(&self) -> bool {
        matches!(self.kind.as_deref(), Some("macvlan" | "macvtap"))
    }

    /// Returns whether it sends by the device of IFLA_LINK.
    pub fn is_stacked(&self) -> bool {
        self.vlan.is_some()
            || matches!(self.kind.as_deref(), Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap"))
    }

    /// Returns whether it has the rx_handler of `lower`, of which the kernel has one for each device
    /// (`netdev_rx_handler_register`): `bond_enslave` returns EBUSY then.
    pub fn takes_frames_of(&self, lower: &Self) -> bool {
        self.link == Some(lower.ifindex)
            && self.link_netns.is_none()
            && matches!(self.kind.as_deref(), Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap"))
    }

    /// Returns whether it may be a port of Open vSwitch, or of a switch in user space, that this host itself uses: the kernel
    /// does not say by which device its frames leave.
    pub fn may_be_switch_port(&self) -> bool {
        matches!(self.kind.as_deref(), Some("tun" | "openvswitch")) && self.layer == LinkLayerType::Ether
    }

    /// IFF_LOWER_UP
    pub fn is_lower_up(&self) -> bool {
        self.flags.contains(LinkFlags::LowerUp)
    }

    /// Returns the result of the driver's link test (`bond_check_dev_link`): `netif_running && netif_carrier_ok`.
    pub fn has_link(&self) -> bool {
        self.is_up() && self.carrier
    }

    /// Parses a message as the kernel sent it, with texts that may have any bytes. Also returns `None` if it is
    /// truncated.
    pub(in crate::sys) fn from_body(body: &[u8]) -> Option<Self> {
        let (message, alias) = parse(body)?;
        Some(Self { alias, ..Self::from_message(&message)? })
    }

    /// Converts a message. Returns `None` if it does not describe the link itself: a bridge's view of its port
    /// (AF_BRIDGE), a wireless event.
    pub(crate) fn from_message(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        let about_link = header.interface_family == AddressFamily::Unspec
            && !message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Wireless(_)));
        if !about_link {
            return None;
        }
        let mut link = Self {
            ifindex: header.index,
            name: String::new(),
            altnames: Vec::new(),
            layer: header.link_layer_type,
            flags: header.flags,
            mac: Mac::ZERO,
            permanent_mac: None,
            mtu: 0,
            min_mtu: 0,
            max_mtu: 0,
            promiscuity: 0,
            operstate: OperState::Unknown,
            carrier: false,
            master: None,
            master_kind: None,
            kind: None,
            link: None,
            link_netns: None,
            vlan: None,
            filters_vlans: None,
            has_stp: false,
            xdp: None,
            addr_gen_mode: None,
            ipv6_forwarding: false,
            alias: None,
            group: 0,
        };
        for attribute in &message.attributes {
            link.take(attribute);
        }
        Some(link)
    }

    fn take(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name.clone_from(name),
            LinkAttribute::PropList(properties) => {
                self.altnames = properties
                    .iter()
                    .filter_map(|property| match property {
                        Prop::AltIfName(name) => Some(name.clone()),
                        _ => None,
                    })
                    .collect();
            }
            LinkAttribute::Address(bytes) => self.mac = ethernet_mac(bytes).unwrap_or_default(),
            LinkAttribute::PermAddress(bytes) => {
                self.permanent_mac = ethernet_mac(bytes).filter(|mac| !mac.is_zero());
            }
            LinkAttribute::Mtu(mtu) => self.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => self.alias = Alias::new(alias.as_str()),
            LinkAttribute::Group(group) => self.group = *group,
            LinkAttribute::MinMtu(mtu) => self.min_mtu = *mtu,
            LinkAttribute::MaxMtu(mtu) => self.max_mtu = *mtu,
            LinkAttribute::Promiscuity(count) => self.promiscuity = *count,
            LinkAttribute::OperState(state) => self.operstate = *state,
            LinkAttribute::Carrier(carrier) => self.carrier = *carrier != 0,
            LinkAttribute::Controller(ifindex) => {
                self.master = Some(*ifindex).filter(|&ifindex| ifindex != 0)
            }
            LinkAttribute::Link(ifindex) => self.link = Some(*ifindex).filter(|&ifindex| ifindex != 0),
            LinkAttribute::LinkNetNsId(id) => self.link_netns = Some(*id),
            LinkAttribute::LinkInfo(parts) => self.take_kind(parts),
            LinkAttribute::Xdp(parts) => self.xdp = attached_xdp(parts),
            LinkAttribute::AfSpecUnspec(families) => {
                for family in families {
                    if let AfSpecUnspec::Inet6(parts) = family {
                        self.take_inet6(parts);
                    }
                }
            }
            _ => {}
        }
    }

    fn take_kind(&mut self, parts: &[wire::LinkInfo]) {
        for part in parts {
            match part {
                wire::LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                wire::LinkInfo::PortKind(kind) => self.master_kind = Some(kind.to_string()),
                wire::LinkInfo::Data(InfoData::Vlan(parts)) => {
                    let mut tag = VlanTag { ethertype: 0x8100, vid: 0 };
                    for part in parts {
                        match part {
                            InfoVlan::Id(vid) => tag.vid = *vid,
                            InfoVlan::Protocol(protocol) => tag.ethertype = (*protocol).into(),
                            _ => {}
                        }
                    }
                    self.vlan = Some(tag);
                }
                wire::LinkInfo::Data(InfoData::Bridge(parts)) => {
                    let filters = parts.iter().any(|part| matches!(part, InfoBridge::VlanFiltering(true)));
                    let protocol = parts.iter().find_map(|part| match part {
                        InfoBridge::VlanProtocol(protocol) => Some((*protocol).into()),
                        _ => None,
                    });
                    self.filters_vlans = filters.then(|| protocol.unwrap_or(0x8100));
                    let is_on = |part: &_| matches!(part, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled);
                    self.has_stp = parts.iter().any(is_on);
                }
                _ => {}
            }
        }
    }

    fn take_inet6(&mut self, parts: &[AfSpecInet6]) {
        for part in parts {
            match part {
                AfSpecInet6::AddrGenMode(mode) => self.addr_gen_mode = Some(*mode),
                AfSpecInet6::DevConf(conf) => self.ipv6_forwarding = conf.forwarding != 0,
                _ => {}
            }
        }
    }
}

/// Parses a message about a link as the kernel sent it; also returns the link's alias.
pub(super) fn parse(body: &[u8]) -> Option<(LinkMessage, Option<Alias>)> {
    let mut body = body.to_vec();
    let alias = make_readable(&mut body);
    Some((LinkMessage::parse(&body).ok()?, alias))
}

pub(super) fn ethernet_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac::new)
}

fn attached_xdp(parts: &[LinkXdp]) -> Option<AttachedXdp> {
    use netlink_packet_route::link::XdpAttached;
    let (mut program, mut mode) = (None, None);
    for part in parts {
        match part {
            LinkXdp::Attached(attached) => {
                mode = match attached {
                    XdpAttached::Driver => Some(XdpMode::Native),
                    XdpAttached::SocketBuffer => Some(XdpMode::Generic),
                    XdpAttached::Hardware => Some(XdpMode::Offloaded),
                    XdpAttached::Multiple => Some(XdpMode::Multiple),
                    _ => None,
                };
            }
            // With several programs IFLA_XDP_PROG_ID is missing, and one of the other attributes exists.
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                program = program.or(Some(*id));
            }
            _ => {}
        }
    }
    Some(AttachedXdp { program: program?, mode: mode? })
}

/// Bytes; RFC 8200, section 5: a device with a smaller MTU has no IPv6.
pub const IPV6_MIN_MTU: u32 = 1280;

/// The wanted value of one setting of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkSetting {
    /// IFF_UP. A device that is set down loses its routes and IPv6 addresses.
    Up(bool),
    /// Most drivers require the device to be down (those without IFF_LIVE_ADDR_CHANGE).
    Mac(Mac),
    /// Bytes, without the Ethernet header.
    Mtu(u32),
    /// IFF_NOARP
    Noarp(bool),
    /// IFF_ALLMULTI
    Allmulti(bool),
    /// IFF_PROMISC
    Promisc(bool),
    /// IFLA_INET6_ADDR_GEN_MODE. A device without IPv6 counts as set.
    AddrGenMode(In6AddrGenMode),
    /// IFLA_MASTER: the bridge or bond of which it is a port.
    Master(Option<u32>),
}

impl LinkSetting {
    /// Returns whether the link has this value.
    pub fn holds(self, link: &LinkInfo) -> bool {
        let flag = |flag| link.flags.contains(flag);
        match self {
            Self::Up(on) => flag(LinkFlags::Up) == on,
            Self::Mac(mac) => link.mac == mac,
            Self::Mtu(mtu) => link.mtu == mtu,
            Self::Noarp(on) => flag(LinkFlags::Noarp) == on,
            Self::Allmulti(on) => flag(LinkFlags::Allmulti) == on,
            Self::Promisc(on) => flag(LinkFlags::Promisc) == on,
            Self::AddrGenMode(mode) => link.addr_gen_mode.is_none_or(|found| found == mode),
            Self::Master(master) => link.master == master,
        }
    }

    pub(super) fn request(self, ifindex: u32) -> LinkMessage {
        let link = LinkUnspec::new_with_index(ifindex);
        match self {
            Self::Up(true) => link.up(),
            Self::Up(false) => link.down(),
            Self::Mac(mac) => link.address(mac.bytes().to_vec()),
            Self::Mtu(mtu) => link.mtu(mtu),
            Self::Noarp(on) => link.arp(!on),
            Self::Allmulti(on) => link.allmulticast(on),
            Self::Promisc(on) => link.promiscuous(on),
            Self::AddrGenMode(mode) => link.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![
                AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]),
            ])),
            Self::Master(master) => link.controller(master.unwrap_or(0)),
        }
        .build()
    }

    /// Returns advice for the case that the kernel refuses the change without a reason.
    pub(super) fn advice(self, link: &LinkInfo) -> Option<String> {
        match self {
            Self::Mtu(mtu) if link.max_mtu != 0 && mtu > link.max_mtu => {
                Some(format!("the NIC takes at most {}", link.max_mtu))
            }
            Self::Mtu(mtu) if mtu < link.min_mtu => Some(format!("the NIC takes at least {}", link.min_mtu)),
            Self::Mtu(_) => Some("give the bond an mtu that all its slaves take".to_owned()),
            Self::Mac(_) if link.is_up() => Some("the NIC may have to be down for it".to_owned()),
            _ => None,
        }
    }
}

impl fmt::Display for LinkSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut flag = |name, on| write!(f, "{name} {}", if on { "on" } else { "off" });
        match *self {
            Self::Up(on) => f.write_str(if on { "up" } else { "down" }),
            Self::Mac(mac) => write!(f, "MAC {mac}"),
            Self::Mtu(mtu) => write!(f, "MTU {mtu}"),
            Self::Noarp(on) => flag("arp", !on),
            Self::Allmulti(on) => flag("allmulticast", on),
            Self::Promisc(on) => flag("promisc", on),
            Self::AddrGenMode(mode) => write!(f, "addrgenmode {mode}"),
            Self::Master(Some(master)) => write!(f, "master ifindex {master}"),
            Self::Master(None) => f.write_str("nomaster"),
        }
    }
}
