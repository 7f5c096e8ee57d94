//! Rules about the network around the bond: MAC addresses, announcements, routes.

use bond_core::options::{self, FailOverMac};

use super::{HostFacts, Rules};

impl Rules<'_> {
    pub(super) fn macs(&mut self, surroundings: &HostFacts) {
        let policy = self.bond.options.fail_over_mac;
        if policy == FailOverMac::Follow && self.bond.mac.is_some() {
            self.warn(
                "mac-of-follow",
                "mac",
                "mac: under fail_over_mac=follow the driver ignores a MAC that is set, and reports success; xbond \
                 gives it to the bond: remove it if both are to do the same",
            );
        }
        self.host_mac();
        match (policy, surroundings.strict_ports) {
            (FailOverMac::Active, _) if self.bond.keeps_mac() => self.note(
                "mac-on-the-wire",
                "host_mac",
                "host_mac: bond0 keeps its MAC at a failover, and frames carry the active slave's: whatever in the network knows \
                 hosts by their MAC (ACLs, DHCP snooping) has to know that of each slave",
            ),
            (FailOverMac::Active, _) => self.note(
                "mac-changes",
                "fail_over_mac",
                "fail_over_mac=active: the bond's MAC changes at each failover, and one that an administrator sets is \
                 ignored by the driver; where the network knows the MAC (DHCP leases, ACLs), use none or follow; where only \
                 the host does (DHCP leases, bridges), set host_mac = \"stable\"",
            ),
            (_, Some(hypervisor)) => {
                let text = format!(
                    "fail_over_mac={}: this machine runs under {hypervisor}, whose ports pass only their own NIC's \
                     MAC unless configured otherwise: the bond receives nothing after its first failover; set fail_over_mac = \
                     \"active\", or allow other MACs there",
                    options::Named::name(policy)
                );
                self.warn("strict-ports", "fail_over_mac", text);
            }
            (FailOverMac::None, None) => self.note(
                "one-mac",
                "fail_over_mac",
                "fail_over_mac=none: all slaves have one MAC; ports that accept only their own NIC's (VirtualBox, \
                 VMware, SR-IOV, port security, clouds) deliver nothing after a failover: set fail_over_mac = \"active\" \
                 there",
            ),
            (FailOverMac::Follow, None) => self.note(
                "follow",
                "fail_over_mac",
                "fail_over_mac=follow: slaves exchange their MACs at a failover, so ports must accept both, and a slave that \
                 is released gets back a MAC that another may still have; release the bond as a whole",
            ),
        }
    }

    /// bond0 keeps its MAC under the other policies anyway.
    fn host_mac(&mut self) {
        let policy = self.bond.options.fail_over_mac;
        if self.bond.keeps_mac() && policy != FailOverMac::Active {
            let text = format!(
                "host_mac: without effect under fail_over_mac={}, where bond0 keeps its MAC anyway; set fail_over_mac = \"active\", \
                 or remove it (mac sets bond0's MAC)",
                options::Named::name(policy)
            );
            self.warn("host-mac-unused", "host_mac", text);
        }
    }

    pub(super) fn announcements(&mut self) {
        let options = &self.bond.options;
        let rounds = options.num_grat_arp;
        let key = if self.is_written("num_unsol_na") { "num_unsol_na" } else { "num_grat_arp" };
        if rounds <= 1 && options.peer_notif_delay > 0 {
            let text = format!(
                "peer_notif_delay={}: without effect with {key}={rounds}, because it is the time between two rounds; \
                 set num_grat_arp = 3, or remove it",
                options.peer_notif_delay
            );
            self.warn("peer-notif-delay", "peer_notif_delay", text);
        }
        match rounds {
            0 => {
                let text = format!(
                    "{key}=0: failovers are not announced, and neighbours and switches send to the old port until \
                     their tables age; set num_grat_arp = 1 or more"
                );
                self.warn("no-announcement", key, text);
            }
            1 => self.note(
                "one-announcement",
                key,
                "num_grat_arp=1: a failover is announced once, and where that frame is lost neighbours send to the \
                 old port until their tables age; set num_grat_arp = 3 and peer_notif_delay = 1000 where frames get \
                 lost",
            ),
            _ => {}
        }
        if options.resend_igmp == 0 {
            self.warn(
                "no-membership",
                "resend_igmp",
                "resend_igmp=0: after a failover multicast is not received until the next query of a router; remove it",
            );
        }
    }

    pub(super) fn network(&mut self) {
        let bond = self.bond;
        for route in &bond.routes {
            let Some(via) = route.via.filter(|_| !bond.addresses.is_empty()) else { continue };
            let link_local = matches!(via, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
            if !link_local && !bond.addresses.iter().any(|address| address.contains(&via)) {
                let text = format!(
                    "route to {} via {via}: in the network of none of the bond's addresses, so the kernel will \
                     refuse it; add an address of that network, or correct the gateway",
                    route.to
                );
                self.warn("gateway", "routes", text);
            }
        }
    }
}
