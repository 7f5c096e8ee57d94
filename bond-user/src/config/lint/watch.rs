//! Rules about what slaves need to count as up.

use bond_core::watch::{Needs, Sign, Watch};

use super::{Rules, Severity};

impl Rules<'_> {
    pub(super) fn watch(&mut self) {
        let bond = self.bond;
        let of_slaves =
            bond.slaves.iter().filter_map(|slave| Some((Some(&*slave.name), slave.options.watch?)));
        let all: Vec<_> = bond.watch.map(|watch| (None, watch)).into_iter().chain(of_slaves).collect();
        for (slave, watch) in all {
            for text in self.faults_of(watch) {
                self.find(Severity::Warning, "watch", slave, "watch", format!("watch = {watch}: {text}"));
            }
        }
    }

    /// Returns what is wrong with it in this bond.
    fn faults_of(&self, watch: Watch) -> Vec<&'static str> {
        let options = &self.bond.options;
        let is_probed = options.arp_interval > 0;
        let mut faults = Vec::new();
        if watch.is_link_enough() {
            faults.push(
                "a slave without a link neither sends nor receives, so that any of carrier and others is carrier alone; write \
                 carrier, or all of them",
            );
        }
        if watch.names(Sign::Path) && (is_probed || !self.bond.path_target.is_on()) {
            faults.push(
                "nothing probes paths, so that path is never missing; set path_target, and miimon instead of arp_interval, or \
                 leave path out",
            );
        }
        let has_targets =
            [(Sign::Arp, options.arp_ip_target.is_empty()), (Sign::Ns, options.ns_ip6_target.is_empty())];
        if !is_probed && watch.is_probed() {
            faults.push(
                "arp and ns are answers to the ARP monitor's probes, which are not sent; set arp_interval and targets, or leave \
                 them out",
            );
        } else if has_targets.iter().any(|(sign, none)| *none && watch.names(*sign)) {
            faults.push("there is no target of that family; add one to arp_ip_target or ns_ip6_target");
        } else if watch.is_probed() && !options.arp_validate.validates_active() {
            faults.push(
                "without arp_validate any frame counts as an answer of both families; set arp_validate = \"all\" or \"active\"",
            );
        }
        if watch.needs() == Needs::All && is_probed && !watch.is_probed() {
            faults.push("arp_interval is set, and the answers to its probes do not count; add arp or ns, or set miimon instead");
        }
        faults
    }
}
