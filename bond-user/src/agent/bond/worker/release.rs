//! Slaves that leave, by request or because their interfaces vanish, and what was a slave and returns.

use bond_common::{abi::Slot, mac::Mac};

use super::{Worker, waiting};
use crate::{
    agent::{AgentError, bond::enslave_request::Reply},
    report::{log, wording},
    sys::{
        enslave::RestoreOutcome,
        found::{Found, Lower},
        netlink::{Interfaces, LinkInfo},
        ownership::Ownership,
    },
};

impl Worker {
    pub(super) async fn release(&mut self, slot: Slot, mac: Option<Mac>, reply: Option<Reply>) {
        let answer = self.try_release(slot, mac).await;
        match (reply, answer) {
            (Some(reply), answer) => {
                let _ = reply.send(answer);
            }
            (None, Err(error)) => log::of(&self.bond).warn(error),
            (None, Ok(())) => {}
        }
    }

    /// Every step is tried; the first error is the answer.
    async fn try_release(&mut self, slot: Slot, mac: Option<Mac>) -> Result<(), AgentError> {
        let proof = self.proof();
        let Some(slave) = self.slaves.remove(&slot) else { return Ok(()) };
        self.announcer.forget(slot);
        // The record knows the MACs of devices above bond0 that it was given since it was found.
        let found = self.record.slave(slave.ifindex).unwrap_or(&slave.found);
        let closed = self.devices.close_to_release(found, &proof).await;
        let detached = waiting(|| self.data_plane.detach_slave(slot));
        let released = self.devices.release(found, mac, &proof).await;
        if self.record.has_addresses_of(slave.ifindex) {
            log::of(&self.bond).warn(wording::addresses_stay(&slave.name));
            // By its alias the kernel confirms at the end that it is to get them.
            let mark = self.record.mark();
            let marked = self.devices.set_alias(slave.ifindex, Some(mark.alias())).await;
            self.warn_of(marked.map(drop));
        }
        let recorded = match &released {
            Ok(RestoreOutcome::Unconfirmed(link)) if link.looks_enslaved => self.record.depart(slave.ifindex),
            Ok(_) => self.record.remove(slave.ifindex),
            // How it was found is still needed.
            Err(_) => self.record.depart(slave.ifindex),
        };
        closed?;
        detached?;
        released?;
        Ok(recorded?)
    }

    /// The device of a slave vanished: removes what is left of the slave.
    pub(super) fn forget(&mut self, slot: Slot, reply: Option<Reply>) {
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
        let Some(slave) = self.slaves.remove(&slot) else { return };
        self.announcer.forget(slot);
        log::of(&self.bond).slave(&slave.name).warn(wording::interface_gone(&slave.name));
        if let Err(error) = waiting(|| self.data_plane.detach_slave(slot)) {
            log::of(&self.bond).warn(error);
        }
        if let Err(error) = self.record.depart(slave.ifindex) {
            log::of(&self.bond).warn(error);
        }
    }

    /// What was a slave and was moved to another network namespace left in the state that it had in the bond. When it returns,
    /// its original state is restored, and it may be enslaved again.
    pub(super) async fn appeared(
        &mut self,
        interfaces: &Interfaces,
        links: &[LinkInfo],
    ) -> Result<(), AgentError> {
        let is_slave = |link: &&LinkInfo| self.slaves.values().any(|slave| slave.ifindex == link.ifindex);
        let (slaves, others): (Vec<_>, Vec<_>) =
            links.iter().filter(|link| interfaces.contains(link.ifindex)).partition(is_slave);
        for link in slaves {
            // It was restored before it was enslaved again; that original state is in its own record.
            if let Some(ifindex) = self.away(link).map(|found| found.ifindex) {
                self.record.returned(ifindex)?;
            }
        }
        for link in others {
            self.take_back(link).await?;
        }
        Ok(())
    }

    /// Has the record name no interface but those that are slaves, and restores those that went away and are here again: the
    /// next slave may be one of them, and is to be found with its original state.
    pub(super) async fn tidy_record(&mut self) -> Result<(), AgentError> {
        let is_slave = |ifindex| self.slaves.values().any(|slave| slave.ifindex == ifindex);
        self.record.remove_others(is_slave)?;
        if self.record.away().is_empty() {
            return Ok(());
        }
        let links = self.devices.links(None).await?;
        self.appeared(&Interfaces::any(), &links).await
    }

    /// Restores an interface if it was a slave that went away.
    async fn take_back(&mut self, link: &LinkInfo) -> Result<(), AgentError> {
        /// Of an interface that refuses what it had: closing it is an event that leads here again.
        const ATTEMPTS: u32 = 3;
        let Some(found) = self.away(link).cloned() else { return Ok(()) };
        let attempts = self.unrestored.entry(link.ifindex).or_default();
        *attempts += 1;
        if *attempts > ATTEMPTS {
            return Ok(());
        }
        let attempt = *attempts;
        // Only its alias came back with it: no program of the bond is attached to it.
        let outcome = match self.devices.restore(&found, &Ownership::new(self.record.mark(), [])).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let remedy = wording::restoring(&found, &link.name);
                self.recording.warn(if attempt < ATTEMPTS {
                    wording::unrestored(&link.name, &error, &remedy)
                } else {
                    wording::unrestored_last(&link.name, &error, &remedy)
                });
                // It is in the record as before.
                return Ok(());
            }
        };
        match outcome {
            RestoreOutcome::Done if link.name != found.name => {
                log::of(&self.bond)
                    .slave(&found.name)
                    .info(wording::returned_renamed(&found.name, &link.name));
            }
            RestoreOutcome::Done => {
                log::of(&self.bond).slave(&found.name).info(wording::returned(&found.name))
            }
            RestoreOutcome::Gone => {}
            RestoreOutcome::Unconfirmed(link) => {
                self.recording.warn(wording::unconfirmed(&self.bond, &link.name));
                if link.looks_enslaved {
                    return Ok(());
                }
            }
        }
        self.unrestored.remove(&link.ifindex);
        // Now, and not before: an agent that dies between the two leaves it to the next one.
        Ok(self.record.returned(found.ifindex)?)
    }

    /// Returns the original state of an interface that was a slave and went away.
    fn away(&self, link: &LinkInfo) -> Option<&Found> {
        let is_it = |found: &&Found| {
            let is_there_again = found.ifindex == link.ifindex && found.lower == Lower::of(link);
            is_there_again || self.devices.is_returned(link, found)
        };
        self.record.away().iter().find(is_it)
    }

    /// Logs that another process has made a slave a port of another device. It leaves then.
    pub(super) async fn warn_of_master(&self, slot: Slot, master: u32) {
        let Some(slave) = self.slaves.get(&slot) else { return };
        let master = self.devices.link_by_index(master).await.map(|link| link.name);
        log::of(&self.bond).warn(wording::given_away(&slave.name, master.ok().as_deref()));
    }
}
