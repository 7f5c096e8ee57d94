//! Which signs of life make a slave up (`watch`).
//!
//! Without that setting a link is up under miimon, and a slave that receives under ARP monitoring, as in the driver. A sign that
//! no monitor in force can give is not waited for: unknown is not down.

use super::*;
use crate::watch::{Needs, Sign};

/// The families of the ARP monitor's targets that have to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Families {
    /// Those of both, as `arp_all_targets` says.
    Both,
    /// IPv4 targets only.
    Ipv4,
    /// IPv6 targets only.
    Ipv6,
    /// Both families, each as `arp_all_targets` says.
    Each,
}

impl Families {
    pub(super) fn of(watch: Option<Watch>) -> Self {
        let Some(watch) = watch else { return Self::Both };
        match (watch.names(Sign::Arp), watch.names(Sign::Ns), watch.needs()) {
            (true, false, _) => Self::Ipv4,
            (false, true, _) => Self::Ipv6,
            (true, true, Needs::All) => Self::Each,
            (true, true, Needs::Any) | (false, false, _) => Self::Both,
        }
    }
}

impl Engine {
    /// Replaces the setting of the bond.
    pub(super) fn set_watch(&mut self, now: Time, watch: Option<Watch>) {
        self.watch = watch;
        self.inspect(now);
    }

    pub(super) fn watch_of(&self, slave: &Slave) -> Option<Watch> {
        slave.options.watch.or(self.watch)
    }

    /// Returns how a slave is monitored: by its link also next to the ARP monitor, if it watches no answers.
    pub(super) fn monitoring_of(&self, slave: &Slave) -> Monitoring {
        match self.monitoring() {
            Monitoring::Arp if self.watch_of(slave).is_some_and(|watch| !watch.is_probed()) => {
                Monitoring::Mii { updelay: Time::ZERO, downdelay: Time::ZERO }
            }
            other @ (Monitoring::Off | Monitoring::Arp | Monitoring::Mii { .. }) => other,
        }
    }

    /// Returns whether a slave has the signs, other than answers to probes, that it needs.
    pub(super) fn has_signs(&self, slave: &Slave) -> bool {
        let is_path_missing = |watch: Watch| watch.needs_path() && slave.avoided.has_failed_path();
        slave.link.up && !self.watch_of(slave).is_some_and(is_path_missing)
    }

    /// Returns whether a slave that answers probes lacks another sign that it needs.
    pub(super) fn lacks_a_sign(&self, slave: &Slave) -> bool {
        self.watch_of(slave).is_some_and(Watch::needs_link) && !self.has_signs(slave)
    }
}
