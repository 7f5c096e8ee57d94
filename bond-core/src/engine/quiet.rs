//! Events after which the bond is as it was: most polls of most bonds.

use super::*;

impl Engine {
    /// Returns whether an event may have changed what the status, the orders of slaves, or another answer about this bond says
    /// since this was asked last.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Returns whether an event, before it is handled, is a poll that is due, or one that finds every link as it is known.
    pub(super) fn is_quiet(&self, now: Time, event: &Event) -> bool {
        let is_of_polls = if let Event::Links(links) = event {
            let is_known = |(slot, link): &(Slot, Link)| {
                self.slave(*slot).is_some_and(|slave| slave.has_joined() && slave.link == *link)
            };
            self.open.is_none() && self.drain.is_none() && links.iter().all(is_known)
        } else {
            *event == Event::Timeout && self.deadlines_but_poll().all(|at| at > now)
        };
        is_of_polls && !self.is_late(now) && self.is_steady(now)
    }

    /// Returns whether [`Self::inspect`] would find every state as it is.
    fn is_steady(&self, now: Time) -> bool {
        self.joined_slaves().all(|slave| slave.state == self.next_state(now, slave, self.active.is_none()))
    }
}
