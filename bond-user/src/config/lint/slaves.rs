//! Rules about slaves, and which of them becomes active.

use bond_core::options::PrimaryReselect;

use super::{ABSENT_PORT, ABSENT_SLAVE, HostFacts, Rules, Severity};

/// The highest transmit queue of a bond that a slave can have.
const LAST_QUEUE: u16 = 15;

impl Rules<'_> {
    pub(super) fn slaves(&mut self) {
        let bond = self.bond;
        match &bond.slaves[..] {
            [] => self.warn("no-slaves", "slaves", "has no slaves; name them in slaves = [...]"),
            [only] => {
                let text = format!(
                    "{} is the only slave, so there is nothing to fail over to; name a second one",
                    only.name
                );
                self.warn("one-slave", "slaves", text);
            }
            _ => {}
        }
        for (place, slave) in bond.slaves.iter().enumerate() {
            let queue_id = slave.options.queue_id;
            if slave.mtu.is_some() {
                let text = "mtu: without effect, because a slave takes the bond's; set mtu of the bond";
                self.find(Severity::Warning, "slave-mtu", Some(&slave.name), "mtu", text);
            }
            if queue_id > 0 && bond.port.is_some() {
                let text = format!(
                    "queue_id={queue_id}: refused, because the queues of a port are not the bond's; remove it"
                );
                self.find(Severity::Error, "queue-id", Some(&slave.name), "queue_id", text);
            } else if queue_id > LAST_QUEUE {
                let text = format!(
                    "queue_id={queue_id}: refused, because the bond has the transmit queues 1 to {LAST_QUEUE}; \
                     choose one of them"
                );
                self.find(Severity::Error, "queue-id", Some(&slave.name), "queue_id", text);
            }
            let earlier = &bond.slaves[..place];
            if let Some(first) =
                earlier.iter().find(|other| queue_id > 0 && other.options.queue_id == queue_id)
            {
                let text = format!(
                    "queue_id={queue_id}: refused, because {} has it, and a queue is one slave's; give each its own",
                    first.name
                );
                self.find(Severity::Error, "queue-id-twice", Some(&slave.name), "queue_id", text);
            }
        }
    }

    /// Reports the interfaces that this machine does not have: a slave joins when it appears, a port has to exist.
    /// Where this machine has none of them, the files may be for another one, and that is only a note.
    pub(super) fn absent(&mut self, surroundings: &HostFacts) {
        let is_absent = |name: &str| surroundings.absent.iter().any(|absent| absent == name);
        let severity = if surroundings.is_other_machine { Severity::Note } else { Severity::Warning };
        let bond = self.bond;
        let slaves = bond.slaves.iter().map(|slave| slave.name.as_str()).filter(|name| is_absent(name));
        let slaves: Vec<_> = slaves.collect();
        if !slaves.is_empty() {
            let text = format!(
                "no interface {} on this machine: the bond starts without it, and enslaves it when it appears; correct \
                 the name if it is misspelt",
                slaves.join(" or ")
            );
            self.find(severity, ABSENT_SLAVE, None, "slaves", text);
        }
        if let Some(port) = bond.port.as_ref().filter(|port| is_absent(port)) {
            let text = format!(
                "port={port}: no such interface on this machine, and the bond does not start without it; create it first, or \
                 correct the name"
            );
            self.find(severity, ABSENT_PORT, None, "port", text);
        }
    }

    pub(super) fn election(&mut self) {
        let bond = self.bond;
        let options = &bond.options;
        let prio: Vec<_> = bond.slaves.iter().filter(|slave| slave.options.prio != 0).collect();
        if let Some(primary) = &options.primary {
            if !bond.slaves.iter().any(|slave| slave.name == *primary) {
                let text = format!(
                    "primary={primary}: not one of its slaves, so nothing is preferred until an interface of this \
                     name is enslaved; name a slave"
                );
                self.warn("primary", "primary", text);
            }
            for slave in &prio {
                let text = format!(
                    "prio={}: without effect while primary={primary} is set and up; remove one of the two",
                    slave.options.prio
                );
                self.find(Severity::Warning, "prio", Some(&slave.name), "prio", text);
            }
        }
        if options.primary.is_none() && prio.is_empty() && self.is_written("primary_reselect") {
            let text = "primary_reselect: without effect without primary or prio, because a slave that comes back does not \
                        take over anyway; set primary, or remove it";
            self.warn("reselect-idle", "primary_reselect", text);
        }
        if options.primary_reselect == PrimaryReselect::Better {
            let text = "primary_reselect=better: takes an unknown speed, as of many virtual NICs, for the fastest, as the \
                        driver does; use always or failure unless `ethtool` shows a speed for every slave";
            self.warn("reselect-better", "primary_reselect", text);
        }
    }
}
