//! Numbers of rtnetlink messages about links. include/uapi/linux/rtnetlink.h, if_link.h.

pub(in crate::sys) const RTM_NEWLINK: u16 = 16;
pub(in crate::sys) const RTM_GETLINK: u16 = 18;
pub(in crate::sys) const RTM_SETLINK: u16 = 19;
pub(in crate::sys) const IFLA_ADDRESS: u16 = 1;
pub(in crate::sys) const IFLA_IFNAME: u16 = 3;
pub(in crate::sys) const IFLA_MTU: u16 = 4;
pub(in crate::sys) const IFLA_LINK: u16 = 5;
pub(in crate::sys) const IFLA_TXQLEN: u16 = 13;
pub(in crate::sys) const IFLA_LINKINFO: u16 = 18;
pub(in crate::sys) const IFLA_GROUP: u16 = 27;
pub(in crate::sys) const IFLA_EXT_MASK: u16 = 29;
pub(in crate::sys) const RTEXT_FILTER_SKIP_STATS: u32 = 8;
pub(in crate::sys) const IFLA_INFO_KIND: u16 = 1;
pub(in crate::sys) const IFLA_INFO_DATA: u16 = 2;
pub(in crate::sys) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(in crate::sys) const IFLA_INFO_SLAVE_DATA: u16 = 5;
