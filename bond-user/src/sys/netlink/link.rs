//! What a link is, as RTM_NEWLINK tells it, and the settings that xbond changes on one.

use std::fmt;

use bond_common::mac::Mac;
use netlink_packet_core::Parseable as _;
pub use netlink_packet_route::link::{In6AddrGenMode, LinkFlags, LinkLayerType, State as OperState};
use netlink_packet_route::{
    AddressFamily,
    link::{
        self as wire, AfSpecInet6, AfSpecUnspec, InfoData, InfoVlan, LinkAttribute, LinkMessage, LinkXdp,
        Prop,
    },
};
use rtnetlink::LinkUnspec;

use super::{NetnsId, PairKind, text::make_readable};
use crate::sys::ownership::Alias;

/// A link at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub ifindex: u32,
    pub name: String,
    pub altnames: Vec<String>,
    /// ARPHRD_*
    pub layer: LinkLayerType,
    /// IFF_*, as SIOCGIFFLAGS gives them: IFF_PROMISC and IFF_ALLMULTI only where they were set by hand.
    pub flags: LinkFlags,
    /// Zero where it is not an Ethernet address.
    pub mac: Mac,
    /// IFLA_PERM_ADDRESS: burned in. Virtual devices have none.
    pub permanent_mac: Option<Mac>,
    /// Bytes, without the Ethernet header.
    pub mtu: u32,
    /// 0 where the driver sets no limit, or does not say.
    pub min_mtu: u32,
    /// 0 where the driver sets no limit, or does not say.
    pub max_mtu: u32,
    /// How many ask for promiscuous mode, the flag included.
    pub promiscuity: u32,
    pub operstate: OperState,
    /// `netif_carrier_ok`
    pub carrier: bool,
    /// ifindex of the bridge, bond, VRF ... whose port it is.
    pub master: Option<u32>,
    /// The master's kind: "bridge", "bond" ...
    pub master_kind: Option<String>,
    /// "veth", "bridge", "vlan" ...; none for hardware.
    pub kind: Option<String>,
    /// IFLA_LINK: ifindex of the peer of a veth or netkit, of the device below a VLAN.
    pub link: Option<u32>,
    /// IFLA_LINK_NETNSID: the namespace of `link`, where it is another one.
    pub link_netns: NetnsId,
    /// The tag of a VLAN device.
    pub vlan: Option<VlanTag>,
    pub xdp: Option<AttachedXdp>,
    /// None where the device has no IPv6.
    pub addr_gen_mode: Option<In6AddrGenMode>,
    /// Its IPv6 forwards: it advertises itself as a router.
    pub ipv6_forwarding: bool,
    /// IFLA_IFALIAS
    pub alias: Option<Alias>,
    /// IFLA_GROUP; 0 is the default.
    pub group: u32,
}

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8
    pub ethertype: u16,
    /// 0 to 4095
    pub vid: u16,
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// As `bpftool prog show id` takes it; the first where there are several.
    pub program: u32,
    pub mode: XdpMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    Native,
    Generic,
    Offloaded,
    /// Several of these at once.
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

    /// What is sent by it comes out of another link.
    pub fn is_end_of_pair(&self) -> bool {
        self.pair().is_some()
    }

    /// Of what pair it is an end.
    pub fn pair(&self) -> Option<PairKind> {
        let kind = self.kind.as_deref()?;
        [PairKind::Veth, PairKind::Netkit].into_iter().find(|pair| pair.name() == kind)
    }

    /// A device with a MAC of its own above another one (`macvlan_device_event` is of macvtaps, too).
    pub fn is_macvlan(&self) -> bool {
        matches!(self.kind.as_deref(), Some("macvlan" | "macvtap"))
    }

    /// A device that sends by the one of IFLA_LINK.
    pub fn is_stacked(&self) -> bool {
        self.vlan.is_some()
            || matches!(self.kind.as_deref(), Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap"))
    }

    /// Whether it has the rx_handler of `lower`, of which the kernel has one for each device
    /// (`netdev_rx_handler_register`): `bond_enslave` answers EBUSY then.
    pub fn takes_frames_of(&self, lower: &Self) -> bool {
        self.link == Some(lower.ifindex)
            && self.link_netns.is_none()
            && matches!(self.kind.as_deref(), Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap"))
    }

    /// IFF_LOWER_UP
    pub fn is_lower_up(&self) -> bool {
        self.flags.contains(LinkFlags::LowerUp)
    }

    /// The driver's link test (`bond_check_dev_link`): `netif_running && netif_carrier_ok`.
    pub fn has_link(&self) -> bool {
        self.is_up() && self.carrier
    }

    /// The same of a message as the kernel sent it, whose texts may have any bytes. None as well of one that is cut.
    pub(super) fn from_body(body: &[u8]) -> Option<Self> {
        let (message, alias) = parse(body)?;
        Some(Self { alias, ..Self::from_message(&message)? })
    }

    /// None for what is not a message about the link itself: a bridge's view of its port (AF_BRIDGE), a
    /// wireless event.
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

/// A message about a link as the kernel sent it, and the link's alias.
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
            // With several programs IFLA_XDP_PROG_ID is missing, and one of the others there.
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

/// How a link shall be, in one respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkSetting {
    /// IFF_UP. A device that is closed loses its routes and IPv6 addresses.
    Up(bool),
    /// Most drivers want the device closed for it (those without IFF_LIVE_ADDR_CHANGE).
    Mac(Mac),
    /// Bytes, without the Ethernet header.
    Mtu(u32),
    /// IFF_NOARP
    Noarp(bool),
    /// IFF_ALLMULTI
    Allmulti(bool),
    /// IFF_PROMISC
    Promisc(bool),
    /// IFLA_INET6_ADDR_GEN_MODE. A device without IPv6 is taken to be set.
    AddrGenMode(In6AddrGenMode),
}

impl LinkSetting {
    /// Whether the link is so.
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
        }
        .build()
    }

    /// What helps where the kernel refuses it and gives no reason.
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
        }
    }
}
