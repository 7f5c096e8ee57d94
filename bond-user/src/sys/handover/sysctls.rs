//! Settings of a device in /proc/sys/net, which it loses with its end.

use std::path::PathBuf;

use crate::sys::Devices;

/// Names below net/ipv4/conf.
const IPV4: [&str; 27] = [
    "accept_local",
    "accept_redirects",
    "accept_source_route",
    "arp_accept",
    "arp_announce",
    "arp_evict_nocarrier",
    "arp_filter",
    "arp_ignore",
    "arp_notify",
    "bc_forwarding",
    "disable_policy",
    "disable_xfrm",
    "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast",
    "force_igmp_version",
    "forwarding",
    "ignore_routes_with_linkdown",
    "log_martians",
    "medium_id",
    "promote_secondaries",
    "proxy_arp",
    "proxy_arp_pvlan",
    "route_localnet",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "src_valid_mark",
];

/// Names below net/ipv6/conf. Those that decide whether there is IPv6 are the first.
const IPV6: [&str; 30] = [
    "disable_ipv6",
    "forwarding",
    "accept_ra",
    "autoconf",
    "accept_dad",
    "accept_ra_defrtr",
    "accept_ra_from_local",
    "accept_ra_min_hop_limit",
    "accept_ra_mtu",
    "accept_ra_pinfo",
    "accept_ra_rt_info_max_plen",
    "accept_ra_rt_info_min_plen",
    "accept_ra_rtr_pref",
    "accept_redirects",
    "accept_source_route",
    "accept_untracked_na",
    "addr_gen_mode",
    "dad_transmits",
    "drop_unicast_in_l2_multicast",
    "drop_unsolicited_na",
    "force_mld_version",
    "hop_limit",
    "ndisc_notify",
    "optimistic_dad",
    "proxy_ndp",
    "seg6_enabled",
    "suppress_frag_ndisc",
    "use_oif_addrs_only",
    "use_optimistic",
    "use_tempaddr",
];

/// Names below net/ipv4/neigh and net/ipv6/neigh.
const NEIGHBOURS: [&str; 9] = [
    "app_solicit",
    "base_reachable_time_ms",
    "delay_first_probe_time",
    "gc_stale_time",
    "mcast_solicit",
    "proxy_delay",
    "retrans_time_ms",
    "ucast_solicit",
    "unres_qlen_bytes",
];

/// Replies and packets of a network may come by either of two devices.
pub(super) const LOOSE: &str = "2";

fn path(directory: &str, device: &str, name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(directory).join(device).join(name)
}

impl dyn Devices + '_ {
    /// Gives a second device the settings of the first one, as far as the kernel takes them.
    pub(super) fn copy_sysctls(&self, from: &str, to: &str) {
        let of = |directory: &'static str, names: &'static [&'static str]| {
            names.iter().map(move |name| (directory, *name))
        };
        let all = of("ipv4/conf", &IPV4)
            .chain(of("ipv6/conf", &IPV6))
            .chain(of("ipv4/neigh", &NEIGHBOURS))
            .chain(of("ipv6/neigh", &NEIGHBOURS));
        for (directory, name) in all {
            let Some(wanted) = self.read_sysctl(&path(directory, from, name)) else { continue };
            let place = path(directory, to, name);
            if self.read_sysctl(&place).is_some_and(|found| found != wanted) {
                // One that cannot be set stays as the kernel has it by default.
                let _ = self.write_sysctl(&place, wanted.trim());
            }
        }
    }

    /// Returns the filter of source addresses of a device.
    pub fn source_filter(&self, device: &str) -> Option<String> {
        Some(self.read_sysctl(&path("ipv4/conf", device, "rp_filter"))?.trim().to_owned())
    }

    /// Sets the filter of source addresses of a device.
    pub(super) fn set_source_filter(&self, device: &str, value: &str) {
        let place = path("ipv4/conf", device, "rp_filter");
        if self.read_sysctl(&place).is_some_and(|found| found.trim() != value) {
            // A filter that stays is that of the bond's other device.
            let _ = self.write_sysctl(&place, value);
        }
    }
}
