//! Numbers of the kernel's headers: families, attributes, flags.

#![expect(missing_docs, reason = "the kernel's names and numbers")]

/// AF_INET, AF_INET6 and AF_MPLS, as in headers.
pub const INET: u8 = libc::AF_INET as u8;
pub const INET6: u8 = libc::AF_INET6 as u8;
pub const MPLS: u8 = 28;

/// Flags of an attribute's type.
pub(super) const NLA_F_NESTED: u16 = 1 << 15;
pub(super) const NLA_TYPE_MASK: u16 = 0x3fff;

pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
pub const IFA_LABEL: u16 = 3;
pub const IFA_CACHEINFO: u16 = 6;
pub const IFA_FLAGS: u16 = 8;
pub const IFA_PROTO: u16 = 11;

pub const RTA_DST: u16 = 1;
pub const RTA_SRC: u16 = 2;
pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;
pub const RTA_PRIORITY: u16 = 6;
pub const RTA_PREFSRC: u16 = 7;
pub const RTA_MULTIPATH: u16 = 9;
pub const RTA_CACHEINFO: u16 = 12;
pub const RTA_TABLE: u16 = 15;
pub const RTA_VIA: u16 = 18;
pub const RTA_ENCAP_TYPE: u16 = 21;
pub const RTA_ENCAP: u16 = 22;
pub const RTA_EXPIRES: u16 = 23;
pub const RTA_NH_ID: u16 = 30;

pub const NDA_DST: u16 = 1;
pub const NDA_CACHEINFO: u16 = 3;
pub const NDA_PROBES: u16 = 4;
pub const NDA_IFINDEX: u16 = 8;
pub const NDA_FLAGS_EXT: u16 = 15;

pub const FRA_IIFNAME: u16 = 3;
pub const FRA_PRIORITY: u16 = 6;
pub const FRA_OIFNAME: u16 = 17;

pub const NHA_ID: u16 = 1;
pub const NHA_GROUP: u16 = 2;
pub const NHA_OIF: u16 = 5;
pub const NHA_GATEWAY: u16 = 6;
pub const NHA_ENCAP_TYPE: u16 = 7;
pub const NHA_ENCAP: u16 = 8;
pub const NHA_RES_GROUP: u16 = 12;
/// Attributes that only the kernel's answers have: NHA_GROUPS, NHA_MASTER, NHA_RES_BUCKET, NHA_OP_FLAGS,
/// NHA_GROUP_STATS, NHA_HW_STATS_USED.
pub(super) const NHA_ANSWERS: [u16; 6] = [9, 10, 13, 14, 15, 17];
/// Within NHA_RES_GROUP.
pub(super) const NHA_RES_GROUP_UNBALANCED_TIME: u16 = 4;

/// Flags of a next hop that a user may set: RTNH_F_PERVASIVE and RTNH_F_ONLINK. The others are its state.
pub(super) const RTNH_SETTABLE: u8 = 2 | 4;
/// RTM_F_CLONED
pub(super) const CLONED: u32 = 0x200;
/// FIB_RULE_PERMANENT and FIB_RULE_INVERT; the others are its state.
pub(super) const RULE_SETTABLE: u32 = 1 | 2;
/// IFA_F_NODAD | HOMEADDRESS | MANAGETEMPADDR | NOPREFIXROUTE | MCAUTOJOIN
pub(super) const ADDRESS_SETTABLE: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
pub const IFA_F_NODAD: u32 = 0x02;
/// Flag of an IPv6 address: the kernel chose it, for privacy, and will replace it.
pub const IFA_F_TEMPORARY: u32 = 0x01;
/// Flag of an IPv6 address: the kernel derived it from a secret and the network.
pub const IFA_F_STABLE_PRIVACY: u32 = 0x800;
/// Seconds; no limit.
pub(super) const INFINITY: u32 = u32::MAX;
/// USER_HZ, the unit of rta_expires.
pub(super) const TICKS_PER_SECOND: u32 = 100;
