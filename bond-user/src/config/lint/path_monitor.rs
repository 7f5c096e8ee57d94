//! Rules about the path monitor.

use std::net::IpAddr;

use bond_common::path::layout::PathEntry;

use super::Rules;
use crate::config::{Clock, Failback, PathMethod, PathTarget, WantedClock, WantedPath};

impl Rules<'_> {
    pub(super) fn path_monitor(&mut self) {
        let wanted = WantedPath::of(self.bond);
        if !wanted.target.is_on() {
            for key in ["path_interval", "path_misses", "path_method"] {
                if self.is_written(key) {
                    let text = format!(
                        "{key}: without effect without path_target; set path_target, or remove {key}"
                    );
                    self.warn("path-idle", key, text);
                }
            }
            if wanted.failback == Failback::Proven {
                self.warn(
                    "path-idle",
                    "failback",
                    "failback = \"proven\": without path_target no path is ever proven, and a slave takes back as soon as its link \
                     is up; set path_target = \"gateway\", or to a neighbour of the bond, or remove failback",
                );
            }
            return;
        }
        if self.bond.clock == Clock::Off {
            self.warn(
                "path-clock",
                "path_target",
                "path_target: the path monitor runs in the ticks of the clock, which clock = \"off\" has turned off: nothing is \
                 probed; remove clock",
            );
        }
        if self.bond.options.arp_interval > 0 {
            self.warn(
                "path-beside-arp",
                "path_target",
                "path_target: with arp_interval the ARP monitor judges the slaves, and the path monitor is off; set miimon instead \
                 of arp_interval, or remove path_target",
            );
        }
        let period = WantedClock::of(self.bond).period;
        if wanted.interval < period {
            let (interval, period) = (wanted.interval.as_millis(), period.as_millis());
            let text = format!(
                "path_interval={interval}: below clock_interval={period}, so that probes leave only each {period} ms; lower \
                 clock_interval, or raise path_interval"
            );
            self.warn("path-interval", "path_interval", text);
        }
        let least = u128::from(PathEntry::ARP_INTERVAL / 1_000_000);
        if wanted.method == PathMethod::Arp
            && self.is_written("path_interval")
            && wanted.interval.as_millis() < least
        {
            let text = format!(
                "path_interval={}: with path_method = \"arp\" targets are asked each {least} ms, because their control plane \
                 answers; write {least} or more, or path_method = \"auto\"",
                wanted.interval.as_millis()
            );
            self.warn("path-interval", "path_interval", text);
        }
        self.path_neighbours(&wanted.target);
    }

    /// Finds targets that are in no network of the bond. A bond without addresses says nothing about that.
    fn path_neighbours(&mut self, target: &PathTarget) {
        let PathTarget::Hosts(hosts) = target else { return };
        if self.bond.addresses.is_empty() {
            return;
        }
        for host in hosts {
            if !self.bond.addresses.iter().any(|address| address.contains(&IpAddr::V4(*host))) {
                let text = format!(
                    "path_target={host}: no address of this bond is in its network; only neighbours can be probed: choose one, or \
                     path_target = \"gateway\", unless an address that is set elsewhere is in its network"
                );
                self.warn("path-neighbour", "path_target", text);
            }
        }
    }
}
