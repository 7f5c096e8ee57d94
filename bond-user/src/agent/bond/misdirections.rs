//! Frames for the bond that arrived on backups, as EVENTS reports them: collected, so that the log has one line for each MAC
//! address and slave, however many VLANs a switch has it in.

use std::collections::BTreeSet;

use bond_common::{
    abi::Slot,
    clock::misdirected::Noted,
    event::{DataPlaneEvent, EventRecord},
    mac::Mac,
};
use bond_core::Time;

/// How long further VLANs of a MAC address are waited for.
const WINDOW: Time = Time::from_millis(100);

/// A record of EVENTS about an address whose frames arrived on a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misdirection {
    pub noted: Noted,
    /// Announcements did not help: a switch sends the frames to all ports.
    pub is_flooded: bool,
}

impl Misdirection {
    /// Returns what a record of EVENTS reports; None for other records.
    pub fn of(record: &EventRecord) -> Option<Self> {
        match record.event()? {
            DataPlaneEvent::Misdirected(noted) => Some(Self { noted, is_flooded: false }),
            DataPlaneEvent::Flooded(noted) => Some(Self { noted, is_flooded: true }),
            DataPlaneEvent::HostMacLearned(_)
            | DataPlaneEvent::FailedOver(_)
            | DataPlaneEvent::Ticked(..)
            | DataPlaneEvent::Announced(_) => None,
        }
    }
}

/// What one line of the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misdirected {
    pub mac: Mac,
    /// The slot of the backup.
    pub slot: Option<Slot>,
    /// VLAN identifiers; 0: without a tag.
    pub vlans: BTreeSet<u16>,
    pub is_flooded: bool,
    /// It happened while no agent ran.
    pub is_missed: bool,
    /// The number of records.
    pub times: u32,
    since: Time,
}

impl Misdirected {
    fn new(found: Misdirection, is_missed: bool, now: Time) -> Self {
        let Misdirection { noted, is_flooded } = found;
        let vlans = BTreeSet::from([noted.vlan()]);
        Self { mac: noted.mac(), slot: noted.slot(), vlans, is_flooded, is_missed, times: 1, since: now }
    }

    fn has_line_with(&self, other: &Self) -> bool {
        let line = |of: &Self| (of.mac, of.slot, of.is_flooded, of.is_missed);
        line(self) == line(other)
    }
}

/// What was reported and not logged yet.
#[derive(Debug, Default)]
pub struct Misdirections(Vec<Misdirected>);

impl Misdirections {
    /// Adds what records report that no agent has read when they were written.
    pub fn add_missed(&mut self, found: impl IntoIterator<Item = Misdirection>, now: Time) {
        found.into_iter().for_each(|found| self.add(Misdirected::new(found, true, now)));
    }

    /// Adds what a record reports that was just written.
    pub fn add_present(&mut self, found: Misdirection, now: Time) {
        self.add(Misdirected::new(found, false, now));
    }

    fn add(&mut self, new: Misdirected) {
        match self.0.iter_mut().find(|known| known.has_line_with(&new)) {
            Some(known) => {
                known.vlans.extend(new.vlans);
                known.times = known.times.saturating_add(1);
            }
            None => self.0.push(new),
        }
    }

    /// Returns what is to be logged at `now`: what was first reported a tenth of a second ago.
    ///
    /// Of a backup that is `active` by now nothing is: the switch of the former active slave had lost the link, and sent its
    /// frames to all ports until the failover.
    pub fn take_due(&mut self, active: Option<Slot>, now: Time) -> Vec<Misdirected> {
        let due = self.0.extract_if(.., |found| found.since.saturating_add(WINDOW) <= now);
        due.filter(|found| found.slot != active || found.is_missed || found.is_flooded).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mac: u8, vlan: u16, slot: u8, is_flooded: bool) -> Misdirection {
        let noted = Noted::new(Mac::new([2, 0, 0, 0, 0, mac]), vlan, Slot::new(slot).unwrap());
        Misdirection { noted, is_flooded }
    }

    #[test]
    fn a_mac_has_one_line_for_all_its_vlans() {
        let ms = Time::from_millis;
        let mut misdirections = Misdirections::default();
        for vlan in 0..300 {
            misdirections.add_present(found(9, vlan, 1, false), ms(1000 + u64::from(vlan) / 10));
        }
        misdirections.add_present(found(8, 5, 1, false), ms(1050));
        assert_eq!(misdirections.take_due(None, ms(1099)), []);
        let lines = misdirections.take_due(None, ms(1100));
        assert!(matches!(&lines[..], [line] if line.vlans.len() == 300 && line.times == 300), "{lines:?}");
        assert_eq!(misdirections.take_due(None, ms(1149)), []);
        assert_eq!(misdirections.take_due(None, ms(1150)).len(), 1);
        assert_eq!(misdirections.take_due(None, ms(9000)), []);
    }

    #[test]
    fn a_backup_that_has_become_active_has_no_line() {
        let now = Time::from_millis(1000);
        for (is_flooded, is_missed, active, lines) in
            [(false, false, 1, 0), (false, false, 2, 1), (true, false, 1, 1), (false, true, 1, 1)]
        {
            let mut misdirections = Misdirections::default();
            misdirections.add(Misdirected::new(found(9, 0, 1, is_flooded), is_missed, now));
            let due = misdirections.take_due(Slot::new(active), Time::from_millis(1100));
            assert_eq!(due.len(), lines, "{is_flooded} {is_missed} {active}");
        }
    }

    #[test]
    fn lines_differ_by_slave_kind_and_agent() {
        let now = Time::from_millis(1000);
        let mut misdirections = Misdirections::default();
        misdirections.add_missed([found(9, 0, 1, false), found(9, 5, 1, false), found(9, 0, 1, false)], now);
        misdirections.add_present(found(9, 0, 1, false), now);
        misdirections.add_present(found(9, 0, 1, true), now);
        misdirections.add_present(found(9, 0, 2, false), now);
        let lines = misdirections.take_due(None, Time::from_millis(1100));
        let said: Vec<_> = lines
            .iter()
            .map(|line| (line.slot.map(Slot::index), line.is_flooded, line.is_missed, line.times))
            .collect();
        let expected = [
            (Some(1), false, true, 3),
            (Some(1), false, false, 1),
            (Some(1), true, false, 1),
            (Some(2), false, false, 1),
        ];
        assert_eq!(said, expected);
    }
}
