//! Rules about the link monitors: miimon, its delays, and the ARP monitor.

use bond_core::options::{self, Named as _, Unmonitored};

use super::Rules;
use crate::config::Destination;

/// Milliseconds. Below, seconds may have been meant; above, a link that fails without an event is noticed late.
const USUAL_MIIMON: std::ops::RangeInclusive<u32> = 10..=1000;

impl Rules<'_> {
    pub(super) fn miimon(&mut self) {
        let options = &self.bond.options;
        let (miimon, downdelay, updelay) = (options.miimon, options.downdelay, options.updelay);
        if miimon == 0 {
            return;
        }
        if self.bond.allow_unmonitored == Unmonitored::Allow {
            let text = "allow_unmonitored: without effect, because the links are monitored; remove it";
            self.warn("allow-unmonitored", "allow_unmonitored", text);
        }
        if miimon < *USUAL_MIIMON.start() {
            let text = format!(
                "miimon={miimon}: milliseconds; if seconds are meant, as by a bare MIIMonitorSec of \
                 systemd-networkd, write {}, and else 10 or more",
                miimon * 1000
            );
            self.warn("miimon-unit", "miimon", text);
        }
        if miimon > *USUAL_MIIMON.end() {
            let text = format!(
                "miimon={miimon}: a link that dies without an event is noticed up to {miimon} ms late, and even \
                 events of NICs that are in no bond come up to a second late; set miimon = 100"
            );
            self.warn("miimon-long", "miimon", text);
        }
        if downdelay > 0 {
            let text = format!(
                "downdelay={downdelay}: for this many ms after its link failed the dead slave stays active and all \
                 frames are lost, even if another one is up, and the carrier guard is off; leave it out unless links flap"
            );
            self.warn("downdelay", "downdelay", text);
        }
        if updelay > 0 {
            let text = format!(
                "updelay={updelay}: not waited for while the bond has no active slave: the first link that comes \
                 back is used at once; no option changes that"
            );
            self.note("updelay", "updelay", text);
        }
        if self.bond.path_target.is_on() {
            return;
        }
        self.note(
            "path",
            "miimon",
            "miimon: sees links, not paths: a switch that is up and forwards nothing, or in one direction only, or a NIC that reports \
             a carrier without a link, keeps its slave active; to find that, set path_target, or use arp_interval and arp_ip_target instead",
        );
    }

    pub(super) fn arp_monitor(&mut self) {
        let options = &self.bond.options;
        let targets = options.arp_ip_target.len() + options.ns_ip6_target.len();
        let validate = options.arp_validate;
        let validates = self.bond.options.arp_validate.validates_active();
        let all_targets = options.arp_all_targets == options::ArpAllTargets::All;
        if options.arp_interval == 0 {
            for key in ["arp_validate", "arp_all_targets", "arp_missed_max"] {
                if self.is_written(key) {
                    let text = format!(
                        "{key}: accepted without arp_interval, and without effect then; set arp_interval and \
                         arp_ip_target instead of miimon, or remove {key}"
                    );
                    self.warn("arp-idle", key, text);
                }
            }
            return;
        }
        if !validates {
            let counts =
                if validate.filters() { "any ARP or neighbour discovery" } else { "anything at all" };
            let key = if self.is_written("arp_validate") { "arp_validate" } else { "arp_interval" };
            let text = format!(
                "arp_validate={}: a slave counts as up while it receives {counts}, other hosts' broadcasts included, so a \
                 path that loses only what this host sends is never noticed; set arp_validate = \"all\"",
                validate.name()
            );
            self.warn("arp-validate", key, text);
        }
        if all_targets && !validates {
            self.warn(
                "arp-all-targets",
                "arp_all_targets",
                "arp_all_targets=all: without effect unless answers are validated; set arp_validate = \"all\" or \
                 \"active\"",
            );
        }
        if targets == 1 {
            let key = if options.arp_ip_target.is_empty() { "ns_ip6_target" } else { "arp_ip_target" };
            let text = format!(
                "{key}: there is only one target, and while it does not answer the bond is down; name a second one"
            );
            self.warn("one-target", key, text);
        }
        self.paths_to_targets();
    }

    /// Finds targets that no address or route of the bond reaches. A bond without addresses says nothing about that.
    fn paths_to_targets(&mut self) {
        let options = &self.bond.options;
        if self.bond.addresses.is_empty() {
            return;
        }
        let v4 = options.arp_ip_target.iter().map(|ip| ("arp_ip_target", (*ip).into()));
        let v6 = options.ns_ip6_target.iter().map(|ip| ("ns_ip6_target", (*ip).into()));
        let targets: Vec<(&str, std::net::IpAddr)> = v4.chain(v6).collect();
        for (key, target) in targets {
            let reached = self.bond.addresses.iter().any(|address| address.contains(&target))
                || self.bond.routes.iter().any(|route| match route.to {
                    Destination::Prefix(prefix) => prefix.contains(&target),
                    Destination::Default => {
                        route.via.map_or(target.is_ipv4(), |via| via.is_ipv4() == target.is_ipv4())
                    }
                });
            if !reached {
                let text = format!(
                    "{key}={target}: no address or route of this bond leads there; unless one that is set \
                     elsewhere does, it is probed from 0.0.0.0 or not at all: add a route, or choose a neighbour"
                );
                self.warn("target-path", key, text);
            }
        }
    }
}
