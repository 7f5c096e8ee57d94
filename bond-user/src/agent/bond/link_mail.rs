//! Link events that wait for a reader who is not as fast as the kernel: of each interface how it is by now, and not all
//! that it went through.

use std::{collections::HashMap, sync::Arc};

use bond_core::Time;

use super::mailbox::Mailbox;
use crate::{
    report::moment::monotonic,
    sys::netlink::{LinkEvent, LinkInfo},
};

/// Interfaces of which something may wait. With more, events count as lost, and all links are read.
const AT_MOST: usize = 4096;

/// What waits, the interface that has waited longest first.
#[derive(Debug, Default)]
pub struct LinkMail {
    order: Vec<u32>,
    interfaces: HashMap<u32, Waiting>,
    /// Since when events are lost.
    overrun: Option<Time>,
}

/// What became of one interface. Its index may be another interface's by now: then it was deleted before.
#[derive(Debug)]
struct Waiting {
    /// When the oldest of it was received.
    since: Time,
    deleted: Option<Deleted>,
    changed: Option<Box<LinkInfo>>,
}

/// What [`LinkEvent::Deleted`] says.
#[derive(Clone, Copy, Debug)]
struct Deleted {
    end_of_pair: bool,
    moved: bool,
}

impl LinkMail {
    /// Adds an event that was received at this time.
    pub fn put(&mut self, at: Time, event: LinkEvent) {
        let (ifindex, deleted, changed) = match event {
            LinkEvent::Changed(link) => (link.ifindex, None, Some(link)),
            LinkEvent::Deleted { ifindex, end_of_pair, moved } => {
                (ifindex, Some(Deleted { end_of_pair, moved }), None)
            }
            LinkEvent::Overrun => return self.overrun(at),
        };
        if !self.interfaces.contains_key(&ifindex) {
            if self.interfaces.len() >= AT_MOST {
                return self.overrun(at);
            }
            self.order.push(ifindex);
        }
        let waiting =
            self.interfaces.entry(ifindex).or_insert(Waiting { since: at, deleted: None, changed: None });
        waiting.deleted = deleted.or(waiting.deleted);
        // What a link was before it was deleted is of no interest.
        waiting.changed = changed;
    }

    /// The receiver reads all links again.
    fn overrun(&mut self, at: Time) {
        self.overrun.get_or_insert(at);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.order.is_empty() && self.overrun.is_none()
    }

    /// Everything that waits, with the time since when it does.
    pub fn take(&mut self) -> Vec<(Time, LinkEvent)> {
        let mut events = Vec::with_capacity(self.order.len() + 1);
        for ifindex in self.order.drain(..) {
            let Some(Waiting { since, deleted, changed }) = self.interfaces.remove(&ifindex) else {
                continue;
            };
            if let Some(Deleted { end_of_pair, moved }) = deleted {
                events.push((since, LinkEvent::Deleted { ifindex, end_of_pair, moved }));
            }
            events.extend(changed.map(|link| (since, LinkEvent::Changed(link))));
        }
        events.extend(self.overrun.take().map(|since| (since, LinkEvent::Overrun)));
        events
    }
}

/// [`LinkMail`] from a thread to a task.
#[derive(Clone, Default)]
pub struct LinkFeed(Arc<Mailbox<LinkMail>>);

impl LinkFeed {
    pub fn put(&self, event: LinkEvent) {
        self.0.change(|mail| mail.put(monotonic(), event));
    }

    /// Waits until there is something, and takes all of it.
    pub async fn take(&self) -> Vec<LinkEvent> {
        loop {
            let events = self.0.waiting().take();
            if !events.is_empty() {
                return events.into_iter().map(|(_, event)| event).collect();
            }
            self.0.woken().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn changed(ifindex: u32, mtu: u32) -> LinkEvent {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes = vec![LinkAttribute::IfName("eth".into()), LinkAttribute::Mtu(mtu)];
        LinkEvent::Changed(Box::new(LinkInfo::from_message(&message).unwrap()))
    }

    fn deleted(ifindex: u32) -> LinkEvent {
        LinkEvent::Deleted { ifindex, end_of_pair: false, moved: false }
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn each_interface_keeps_its_last_state_with_the_first_time() {
        let of_pair = LinkEvent::Deleted { ifindex: 1, end_of_pair: true, moved: true };
        /// What is put, one each millisecond, and what is taken, with its time.
        type Case<'a> = (&'a [LinkEvent], &'a [(u64, LinkEvent)]);
        let table: [Case<'_>; 6] = [
            (&[], &[]),
            (&[changed(1, 1), changed(2, 1), changed(1, 2)], &[(0, changed(1, 2)), (1, changed(2, 1))]),
            (&[changed(1, 1), deleted(1)], &[(0, deleted(1))]),
            (&[deleted(1), changed(1, 7)], &[(0, deleted(1)), (0, changed(1, 7))]),
            (
                &[of_pair.clone(), changed(1, 7), deleted(1), changed(1, 8)],
                &[(0, deleted(1)), (0, changed(1, 8))],
            ),
            (
                &[LinkEvent::Overrun, changed(1, 1), LinkEvent::Overrun],
                &[(1, changed(1, 1)), (0, LinkEvent::Overrun)],
            ),
        ];
        for (put, taken) in table {
            let mut mail = LinkMail::default();
            (0..).zip(put).for_each(|(ms, event)| mail.put(at(ms), event.clone()));
            assert_eq!(mail.is_empty(), put.is_empty());
            let taken: Vec<_> = taken.iter().map(|(ms, event)| (at(*ms), event.clone())).collect();
            assert_eq!(mail.take(), taken, "{put:?}");
            assert!(mail.is_empty() && mail.take().is_empty());
        }
    }

    #[test]
    fn more_interfaces_than_it_takes_are_an_overrun() {
        let mut mail = LinkMail::default();
        (0..2 * AT_MOST as u32).for_each(|ifindex| mail.put(at(0), changed(ifindex, 1)));
        let taken = mail.take();
        assert_eq!(taken.len(), AT_MOST + 1);
        assert_eq!(taken.last(), Some(&(at(0), LinkEvent::Overrun)));
    }
}
