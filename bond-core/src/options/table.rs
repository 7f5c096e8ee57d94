//! The table of the driver's options: one row each.
//!
//! A row has the option's key, the type and default of its field, the values that it accepts and, if there are any, its
//! netlink attribute (`IFLA_BOND_*`) and its line in /proc/net/bonding. The row is enough to read, store and show an
//! option; an option that does more when it is set has an arm in [`BondOptions::apply`].

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    ArpAllTargets, ArpValidate, DelayTicks, FailOverMac, OptionError, PrimaryReselect,
    values::{
        AD_SELECTS, Edit as _, Interface, LINKS, MILLISECONDS, MISSES, PEER_NOTIF_DELAY, ROUNDS, SECONDS,
        Shown, Switch, TargetEdit, Targets, Values, Words, XMIT_HASH_POLICIES,
    },
};

/// The row of an option, without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The driver's name of the option.
    pub key: &'static str,
    /// Its description for manuals; each line begins with a space.
    pub help: &'static str,
    /// The number of its attribute in IFLA_INFO_DATA (`IFLA_BOND_*`, linux/if_link.h).
    pub netlink: Option<u16>,
    /// The beginning of its line in /proc/net/bonding/NAME.
    pub title: Option<&'static str>,
    /// Whether the option is accepted without effect in active-backup mode.
    pub unused: bool,
}

/// `Some` of what is there, or `None`.
macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

macro_rules! bond_options {
    ($(
        $(#[doc = $doc:literal])+
        $key:ident $(or $alias:literal)?: $field:ty = $default:expr, $variant:ident($set:ty) of $values:expr
        $(, netlink $netlink:literal)? $(, title $title:literal)? $(, unused $unused:literal)?;
    )*) => {
        /// The options of a bond in active-backup mode, in the units and with the defaults of the driver.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct BondOptions {
            $($(#[doc = $doc])+ pub $key: $field,)*
            /// The delays while miimon is 0, when their milliseconds read 0: the next miimon restores them. All
            /// zero otherwise.
            pub parked_delays: DelayTicks,
        }

        impl Default for BondOptions {
            fn default() -> Self {
                Self { $($key: $default,)* parked_delays: DelayTicks::default() }
            }
        }

        /// One option of a bond with one of its values.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum BondOption {
            /// active-backup, the only mode here.
            Mode,
            /// Another name of num_grat_arp.
            NumUnsolNa(u8),
            /// On, the only value that the driver has left of it.
            UseCarrier,
            $($(#[doc = $doc])+ $variant($set),)*
        }

        /// Every option that [`Setting::parse`](super::Setting::parse) takes, by its first name.
        pub const KEYS: &[&str] = &["mode", $(stringify!($key),)* "num_unsol_na", "use_carrier", "active_slave"];

        /// Every option that has a field in [`BondOptions`], in the order in which options are shown.
        pub const ROWS: &[Row] = &[$(Row {
            key: stringify!($key),
            help: concat!($($doc),+),
            netlink: optional!($($netlink)?),
            title: optional!($($title)?),
            unused: false $(|| $unused)?,
        },)*];

        impl BondOption {
            /// Reads an option of the table by its key or alias; None: the table has none of this name.
            pub(super) fn parse(key: &str, value: &str) -> Option<Result<Self, OptionError>> {
                $(if key == stringify!($key) $(|| key == $alias)? {
                    return Some($values.parse(stringify!($key), value).map(Self::$variant));
                })*
                None
            }

            /// Returns the option's first name.
            pub fn key(&self) -> &'static str {
                match self {
                    Self::Mode => "mode",
                    Self::NumUnsolNa(_) => "num_unsol_na",
                    Self::UseCarrier => "use_carrier",
                    $(Self::$variant(_) => stringify!($key),)*
                }
            }

            /// Stores the value, whatever else the driver does when this option is set.
            ///
            /// # Errors
            /// A list of targets cannot be edited so.
            pub(super) fn store(self, options: &mut BondOptions) -> Result<(), OptionError> {
                match self {
                    Self::Mode | Self::UseCarrier => {}
                    Self::NumUnsolNa(rounds) => options.num_grat_arp = rounds,
                    $(Self::$variant(value) => value.apply(&mut options.$key)?,)*
                }
                Ok(())
            }
        }

        impl BondOptions {
            /// Returns the options that have a field, as they are shown, in the order of the table.
            pub(super) fn rows(&self) -> Vec<(&'static str, Shown<'_>)> {
                vec![$((stringify!($key), $values.show(&self.$key)),)*]
            }
        }
    };
}

bond_options! {
    /// Milliseconds between two polls of the links; 0: no MII monitoring.
    miimon: u32 = 0, Miimon(u32) of MILLISECONDS, netlink 3, title "MII Polling Interval (ms)";
    /// Milliseconds that a link must be back before its slave is used, a multiple of miimon.
    updelay: u32 = 0, Updelay(u32) of MILLISECONDS, netlink 4, title "Up Delay (ms)";
    /// Milliseconds that a link must be gone before its slave is taken down, a multiple of miimon.
    downdelay: u32 = 0, Downdelay(u32) of MILLISECONDS, netlink 5, title "Down Delay (ms)";
    /// Milliseconds between two rounds of announcements, a multiple of miimon; 0: every miimon. sysfs and iproute2
    /// have a name each.
    peer_notif_delay or "peer_notify_delay": u32 = 0, PeerNotifDelay(u32) of PEER_NOTIF_DELAY, netlink 28,
        title "Peer Notification Delay (ms)";
    /// Rounds of announcements at a failover; the driver's num_grat_arp and num_unsol_na are this one number.
    num_grat_arp: u8 = 1, NumGratArp(u8) of ROUNDS, netlink 16;
    /// Which MAC address the bond and each slave have, and what a failover changes.
    fail_over_mac: FailOverMac = FailOverMac::None, FailOverMac(FailOverMac) of Words::new(), netlink 13;
    /// Name of the preferred slave, which need not exist.
    primary: Option<String> = None, Primary(Option<String>) of Interface, netlink 11;
    /// When a better slave than the active one takes over.
    primary_reselect: PrimaryReselect = PrimaryReselect::Always, PrimaryReselect(PrimaryReselect) of Words::new(),
        netlink 12;
    /// Milliseconds between two probes; 0: no ARP monitoring.
    arp_interval: u32 = 0, ArpInterval(u32) of MILLISECONDS, netlink 7, title "ARP Polling Interval (ms)";
    /// Intervals without reception after which a slave is down.
    arp_missed_max: u8 = 2, ArpMissedMax(u8) of MISSES, netlink 30, title "ARP Missed Max";
    /// IPv4 addresses that are probed.
    arp_ip_target: Vec<Ipv4Addr> = Vec::new(), ArpIpTarget(TargetEdit<Ipv4Addr>) of Targets::new(), netlink 8,
        title "ARP IP target/s (n.n.n.n form)";
    /// IPv6 addresses that are probed.
    ns_ip6_target: Vec<Ipv6Addr> = Vec::new(), NsIp6Target(TargetEdit<Ipv6Addr>) of Targets::new(), netlink 31,
        title "NS IPv6 target/s (xx::xx form)";
    /// Which received frames show that a slave is alive.
    arp_validate: ArpValidate = ArpValidate::None, ArpValidate(ArpValidate) of Words::new(), netlink 9;
    /// Whether one target that answers is enough.
    arp_all_targets: ArpAllTargets = ArpAllTargets::Any, ArpAllTargets(ArpAllTargets) of Words::new(), netlink 10;
    /// Whether the bond receives what arrives on backups.
    all_slaves_active: bool = false, AllSlavesActive(bool) of Switch, netlink 17;
    /// IGMP and MLD reports after a failover.
    resend_igmp: u8 = 1, ResendIgmp(u8) of ROUNDS, netlink 15;
    /// Slaves that must be up for the bond to have carrier, in other modes.
    min_links: u32 = 0, MinLinks(u32) of LINKS, netlink 18, unused true;
    /// How other modes spread packets.
    xmit_hash_policy: &'static str = "layer2", XmitHashPolicy(&'static str) of XMIT_HASH_POLICIES, unused true;
    /// How 802.3ad chooses its aggregator.
    ad_select: &'static str = "stable", AdSelect(&'static str) of AD_SELECTS, unused true;
    /// Seconds between learning packets of other modes.
    lp_interval: u32 = 1, LpInterval(u32) of SECONDS, unused true;
}
