//! What is read, or sent, as often as the engine's clocks say, and what is announced.

use std::{collections::HashSet, time::Duration};

use bond_common::{abi::Slot, mac::Mac};
use bond_core::event::{Event, Link, Neighbours};

use super::{Worker, waiting};
use crate::{
    agent::{
        LinkEventSource,
        bond::{
            announcer::{Prepared, SentRound},
            engine_handle::SpeedAnswer,
            interface::Host,
            recorder::Entry,
            work::Reads,
        },
    },
    report::{moment::monotonic, wording},
    sys::{
        SysError,
        announcer::{self, Learned},
        membership,
    },
};

impl Worker {
    /// Reads what is marked, or sends it.
    pub(super) async fn read(&mut self, reads: Reads) {
        let Reads { links, speeds, report, neighbours, restored, pinned, record } = reads;
        if record {
            self.write_record_again();
        }
        for map in restored {
            self.recording.add(Entry::Restored(wording::map_restored(map)));
        }
        if let Some(pinned) = pinned {
            self.pins_changed(pinned);
        }
        if links {
            self.read_links().await;
        }
        for (slot, number) in Slot::all().zip(speeds) {
            if number.is_some() {
                self.read_speed(slot, number);
            }
        }
        if let Some((slot, mac)) = report {
            let answer = self.send_reports(slot, mac).await;
            self.warn_of(answer);
        }
        if neighbours {
            let asked = self.ask_neighbours().await;
            self.engine.event(self.id, Event::NeighboursAsked(asked));
        }
    }

    /// Reads a slave's speed: the answer to the question of this number, if there is one.
    pub(super) fn read_speed(&self, slot: Slot, number: Option<u32>) {
        let Some(slave) = self.slaves.get(&slot) else { return };
        let (speed, duplex) = waiting(|| self.devices.speed(slave.ifindex));
        self.engine.speed(self.id, SpeedAnswer { slot, number, speed, duplex });
    }

    async fn read_links(&self) {
        let mut links = Vec::new();
        for (&slot, slave) in &self.slaves {
            let up = match self.devices.link_by_index(slave.ifindex).await {
                Ok(link) => link.has_link(),
                // A link event reports it.
                Err(error) if error.is_gone() => false,
                // Nothing is known: it stays as it was.
                Err(error) => {
                    self.recording.warn(wording::link_unread(&slave.name, &error));
                    continue;
                }
            };
            let (speed, duplex) = waiting(|| self.devices.speed(slave.ifindex));
            links.push((slot, Link { speed, duplex, ..Link::new(up) }));
        }
        self.engine.event(self.id, Event::Links(links));
    }

    /// Sends IGMP and MLD reports by a slave.
    async fn send_reports(&mut self, slot: Slot, mac: Mac) -> Result<(), SysError> {
        // The groups that a host behind a port has joined are not known.
        let Host::Pair { port, .. } = self.host else { return Ok(()) };
        let Some(ifindex) = self.slaves.get(&slot).map(|slave| slave.ifindex) else { return Ok(()) };
        let frames = membership::reports_behind(&*self.devices, port, mac).await?;
        self.announcer.send(slot, ifindex, frames);
        Ok(())
    }

    /// Has neighbours of the bond answer. They count as asked, too, if they are not known: the host is behind a port, or in another
    /// namespace.
    async fn ask_neighbours(&self) -> Neighbours {
        let Host::Pair { bond, .. } = self.host else { return Neighbours::Asked };
        match self.devices.ask_neighbours(bond).await {
            Ok(0) => Neighbours::None,
            Ok(_) => Neighbours::Asked,
            Err(error) => {
                self.warn_of(Err(error));
                Neighbours::Asked
            }
        }
    }

    /// Where no events report addresses, or one is still to be handled, they are read after the first round of announcements,
    /// which does not wait for that.
    pub(super) async fn announced(&mut self, round: SentRound) {
        let SentRound { slot, ifindex, mac, prepared } = round;
        let Some(known) = prepared else { return };
        let is_old = self.announced.elsewhere || self.is_above_old || self.has_other_namespaces().await;
        if is_old || self.wanted.link_events == LinkEventSource::Off {
            self.read_addresses().await;
            let prepared = Prepared::new(self.host, &self.announced, mac);
            let sent: HashSet<_> = known.frames().into_iter().collect();
            let missed: Vec<_> =
                prepared.frames().into_iter().filter(|frame| !sent.contains(frame)).collect();
            if !missed.is_empty() {
                self.announcer.send(slot, ifindex, missed);
            }
        }
    }

    /// Returns whether there are other network namespaces, which may have devices above the bond's, and send no events to this one.
    /// The kernel answers without RTNL.
    pub(super) async fn has_other_namespaces(&self) -> bool {
        self.devices.other_namespaces().await.is_ok_and(|others| !others.is_empty())
    }

    /// Has what bridges have learned at other ports announced like what sends through the bond.
    pub(super) fn remember_learned(&self, learned: Vec<Learned>) {
        let now = monotonic();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let sent_at =
            |learned: Learned| Some((learned.behind.key()?, nanos(now.saturating_sub(learned.age))));
        if let Err(error) = self.mirror.add_behind(learned.into_iter().filter_map(sent_at)) {
            self.recording.warn(error.to_string());
        }
    }

    pub(super) async fn read_addresses(&mut self) {
        let Host::Pair { port, .. } = self.host else { return };
        match announcer::addresses_behind(&*self.devices, port).await {
            Ok(mut announced) => {
                self.remember_learned(std::mem::take(&mut announced.learned));
                self.announced = announced;
                self.announcer.know(self.announced.clone());
            }
            Err(error) => self.warn_of(Err(error)),
        }
    }
}
