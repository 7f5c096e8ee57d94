//! Link state: from netlink's events, and read from the devices without netlink.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use bond_common::{
    abi::{DeviceHandle, DeviceState, LinkQuestion, Slot},
    mac::Mac,
};
use bond_core::{
    LeftSlave,
    event::{Event, Link},
};

use super::bond::Running;
use crate::{
    agent::bond::{engine_handle::SpeedAnswer, recorder::Entry, work::Request},
    report::wording,
    sys::{
        dataplane::DeviceReader,
        netlink::{Interfaces, LinkEvent, LinkInfo},
    },
};

/// What is known of the links of a bond's slaves.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The last link of each slave: its speed is read by the worker, its state here.
    known: BTreeMap<Slot, Link>,
    /// A bit for each slot whose speed is to be read when the present batch is executed: reading waits for RTNL and for
    /// firmware, which the MAC addresses of a failover must not do.
    to_read: u16,
    /// The last question for the speed of each: only its answer is of the link as it is now.
    questions: BTreeMap<Slot, Question>,
    /// During a timeout, a bit for each slot whose device was polled and has a link.
    with_link: u16,
    /// Netlink was asked for the links, and has not answered yet.
    awaits_netlink: bool,
    /// The last attempt to read a device failed. Logged when it begins and when it ends.
    is_unreadable: bool,
}

/// A question for the speed of a slave's link.
#[derive(Clone, Copy, Debug, Default)]
struct Question {
    number: u32,
    is_open: bool,
}

/// What an attempt to read a device showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkReading {
    Up,
    /// Without a link, or not in this network namespace any more: netlink says which.
    Down,
    /// It could not be read. The link is as it was.
    Unknown,
}

impl LinkReading {
    fn up(self) -> Option<bool> {
        match self {
            Self::Up => Some(true),
            Self::Down => Some(false),
            Self::Unknown => None,
        }
    }
}

impl<E> From<Result<Option<DeviceState>, E>> for LinkReading {
    fn from(answer: Result<Option<DeviceState>, E>) -> Self {
        match answer {
            Ok(Some(state)) if state.link_up() => Self::Up,
            Ok(_) => Self::Down,
            Err(_) => Self::Unknown,
        }
    }
}

impl Links {
    pub fn new(known: BTreeMap<Slot, Link>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Notes what an event says of links.
    pub fn note(&mut self, event: &Event) {
        if let Event::Joined { slot, link } | Event::Link { slot, link } = event {
            self.known.insert(*slot, *link);
        }
        if let Event::Links(links) = event {
            self.awaits_netlink = false;
            self.known.extend(links.iter().copied());
        }
    }

    /// Notes that these slots have no link.
    pub fn lose(&mut self, slots: u16) {
        self.known.iter_mut().for_each(|(slot, link)| link.up &= slots & slot.bit() == 0);
    }

    /// Forgets the slave of a slot: what is still read of it is not of the next one.
    pub fn forget(&mut self, slot: Slot) {
        self.known.remove(&slot);
        let question = self.questions.entry(slot).or_default();
        *question = Question { number: question.number.wrapping_add(1), is_open: false };
    }

    /// Returns the link of a slave that is up or down now, with what is known of its speed.
    fn link(&mut self, slot: Slot, up: bool) -> Link {
        let before = self.known.get(&slot).copied().unwrap_or(Link::new(false));
        if up != before.up {
            // The speed may be another one now; it is read concurrently.
            self.to_read |= slot.bit();
            let question = self.questions.entry(slot).or_default();
            *question = Question { number: question.number.wrapping_add(1), is_open: true };
        }
        let is_stale = up && self.questions.get(&slot).is_some_and(|question| question.is_open);
        Link { up, is_stale, ..before }
    }

    /// Takes over an answer, if no later one is to come. Returns whether it has done so.
    pub fn accept(&mut self, answer: SpeedAnswer) -> bool {
        let SpeedAnswer { slot, number, speed, duplex } = answer;
        let question = self.questions.entry(slot).or_default();
        // One that was not asked for may be older than a question that is open.
        let is_last = number.map_or(!question.is_open, |number| number == question.number);
        let Some(link) = self.known.get_mut(&slot).filter(|_| is_last) else { return false };
        question.is_open = false;
        *link = Link { speed, duplex, is_stale: false, ..*link };
        true
    }

    /// Returns the slots whose speeds are to be read, with the numbers of the questions.
    pub fn take_questions(&mut self) -> Vec<(Slot, u32)> {
        let to_read = std::mem::take(&mut self.to_read);
        let slots = Slot::all().filter(|slot| to_read & slot.bit() != 0);
        slots.filter_map(|slot| Some((slot, self.questions.get(&slot)?.number))).collect()
    }
}

/// Updates the links of slaves that are taken over to what their devices show now, as far as that can be read, and returns them:
/// the agent has read them by netlink when it began to take the bond over, which may be a while ago.
pub(super) fn present<'a>(
    slaves: impl Iterator<Item = &'a mut LeftSlave>,
    reader: Option<&DeviceReader>,
) -> BTreeMap<Slot, Link> {
    let read =
        |ifindex| reader.map_or(LinkReading::Unknown, |reader| LinkReading::from(reader.read(ifindex)));
    slaves
        .map(|slave| {
            slave.link.up = read(slave.ifindex).up().unwrap_or(slave.link.up);
            (slave.slot, slave.link)
        })
        .collect()
}

impl Running {
    /// Returns what may be asked of the slaves' devices by their handles: whether links that were up still are.
    pub fn questions(&self) -> Vec<(Slot, LinkQuestion)> {
        let was_up = |slot: &Slot| self.links.known.get(slot).is_some_and(|link| link.up);
        let entries = Slot::all().zip(self.mirror.slaves());
        let known = entries.filter(|(slot, entry)| was_up(slot) && entry.handle() != DeviceHandle::NONE);
        known.map(|(slot, entry)| (slot, LinkQuestion::new(entry.ifindex(), entry.handle()))).collect()
    }

    /// Notes the slots whose devices have a link, until [`Self::forget_polled`].
    pub fn polled(&mut self, with_link: impl Iterator<Item = Slot>) {
        self.links.with_link = with_link.fold(self.links.with_link, |mask, slot| mask | slot.bit());
    }

    pub fn forget_polled(&mut self) {
        self.links.with_link = 0;
    }

    /// Handles an event of a device of this network namespace.
    pub fn device(&mut self, event: &LinkEvent, reader: Option<&DeviceReader>) {
        match event {
            LinkEvent::Changed(link) => self.device_changed(link, reader),
            LinkEvent::Deleted { ifindex, end_of_pair, .. } => {
                self.device_deleted(*ifindex, *end_of_pair, reader);
            }
            // Events were lost: all links are polled now.
            LinkEvent::Overrun => {
                self.is_changed.store(true, Ordering::Release);
                self.work.check(|pending| pending.addresses = Interfaces::any());
                self.poll_links(reader);
                self.execute(reader);
            }
        }
    }

    fn device_changed(&mut self, link: &LinkInfo, reader: Option<&DeviceReader>) {
        let slave = self.engine.slaves().find(|slave| slave.ifindex == link.ifindex);
        if slave.is_some() || [self.host.device(), self.host.port()].contains(&link.ifindex) {
            self.is_changed.store(true, Ordering::Release);
        }
        if link.ifindex == self.host.device() {
            self.work.check(|pending| pending.host = true);
        } else if link.link == Some(self.host.device()) && link.link_netns.is_none() && !link.is_end_of_pair()
        {
            self.uppers_changed();
        }
        let Some(slave) = slave else {
            // IFLA_LINK of a link that was moved here counts in another namespace.
            let below = link.link.filter(|_| link.link_netns.is_none() && !link.is_end_of_pair());
            // A bridge that comes up, or another port of one; a port of a switch that has, or had, the bond's MAC address.
            let itself = Some(link.ifindex).filter(|_| link.is_bridge() || link.may_be_switch_port());
            let related = below.into_iter().chain(link.master).chain(itself);
            if link.may_be_switch_port() && self.is_bonds(link.mac) {
                self.uppers_changed();
            }
            return self.work.check(|pending| {
                pending.appeared.insert(link.ifindex);
                related.for_each(|ifindex| pending.related.insert(ifindex));
            });
        };
        let (slot, is_renamed, has_other_mac) = (slave.slot, slave.name != link.name, slave.mac != link.mac);
        if is_renamed {
            self.fact(Event::Renamed { slot, name: link.name.clone() }, reader);
        }
        if let Some(master) = link.master {
            // The kernel would release it from a bond of its own (`do_set_master`).
            self.work.request(Request::WarnOfMaster { slot, master });
            return self.fact(Event::Leave { slot }, reader);
        }
        if has_other_mac {
            self.work.check(|pending| pending.slave_macs |= slot.bit());
        }
        let reading = self.read_device(slot, link.ifindex, reader);
        let link = self.links.link(slot, reading.up().unwrap_or(link.has_link()));
        if link.up && !link.is_stale {
            // The link may have been down for so short that it is up again, with another speed.
            self.work.check(|pending| pending.speeds |= slot.bit());
        }
        self.fact(Event::Link { slot, link }, reader);
    }

    fn device_deleted(&mut self, ifindex: u32, end_of_pair: bool, reader: Option<&DeviceReader>) {
        let slave = self.engine.slaves().find(|slave| slave.ifindex == ifindex);
        let Some(slot) = slave.map(|slave| slave.slot) else {
            // An end of a pair lies above nothing; of many bonds, each would read all links when one goes.
            // bond0 itself is one, and may have gone to another namespace.
            if !end_of_pair || ifindex == self.host.device() {
                self.uppers_changed();
            }
            return;
        };
        self.fact(Event::Gone { slot }, reader);
        let reply = self.take_release(slot);
        self.work.request(Request::Forget { slot, reply });
    }

    /// Returns whether the data plane takes this MAC address for the bond's: that of bond0, or of a slave.
    fn is_bonds(&self, mac: Mac) -> bool {
        mac == self.mirror.bond().host_mac()
            || self.mirror.slaves().iter().any(|slave| slave.wire_mac() == mac)
    }

    fn uppers_changed(&self) {
        self.work.check(|pending| pending.uppers = true);
        self.prober.uppers_changed();
    }

    /// Reads a slave's device, without netlink.
    fn read_device(&mut self, slot: Slot, ifindex: u32, reader: Option<&DeviceReader>) -> LinkReading {
        if self.links.with_link & slot.bit() != 0 {
            self.set_unreadable(None);
            return LinkReading::Up;
        }
        let Some(reader) = reader else { return LinkReading::Unknown };
        let answer = reader.read(ifindex);
        self.set_unreadable(answer.as_ref().err().map(ToString::to_string));
        LinkReading::from(answer)
    }

    /// Logs that devices cannot be read any more, for this reason, or that they can again.
    fn set_unreadable(&mut self, why: Option<String>) {
        let is_unreadable = why.is_some();
        if is_unreadable != std::mem::replace(&mut self.links.is_unreadable, is_unreadable) {
            self.recording.add(match why {
                Some(why) => Entry::Warn(wording::links_by_netlink(why)),
                None => Entry::Info(wording::links_without_netlink()),
            });
        }
    }

    /// Reads the links of all slaves, and lets the engine decide on them together. The caller executes what follows.
    pub(super) fn poll_links(&mut self, reader: Option<&DeviceReader>) {
        self.restore_maps();
        let slaves = self.engine.slaves().filter(|slave| slave.joined);
        let slaves: Vec<_> = slaves.map(|slave| (slave.slot, slave.ifindex)).collect();
        let mut links = Vec::new();
        for &(slot, ifindex) in &slaves {
            // What cannot be read is as it was, and netlink is asked.
            if let Some(up) = self.read_device(slot, ifindex, reader).up() {
                links.push((slot, self.links.link(slot, up)));
            }
        }
        if links.len() < slaves.len() && !self.links.awaits_netlink {
            self.links.awaits_netlink = true;
            self.work.read(|reads| reads.links = true);
        }
        if !links.is_empty() || slaves.is_empty() {
            let awaits_netlink = self.links.awaits_netlink;
            self.handle_fact(Event::Links(links));
            self.links.awaits_netlink = awaits_netlink;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_read_is_not_down() {
        assert_eq!(LinkReading::from(Err::<Option<DeviceState>, _>(nix::errno::Errno::ENOMEM)).up(), None);
        assert_eq!(LinkReading::from(Ok::<_, nix::errno::Errno>(None)).up(), Some(false));
    }
}
