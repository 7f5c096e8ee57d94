//! `xbond drain` and `xbond undrain`: slaves that are used only while no other one is.

use std::{sync::Arc, time::Duration};

use bond_common::abi::Slot;
use bond_core::{
    event::Event,
    name::{BondName, InterfaceName},
    purpose::Purpose,
    status::BondStatus,
};
use tokio::time::sleep;

use crate::{
    agent::{
        Agent, AgentError,
        lifecycle::{machine::Machine, slaves::slot_of},
    },
    report::{
        drain::Drained,
        event::{SlaveChange, What},
        log, wording,
    },
    store::{
        StoreError,
        drains::{Drain, DrainedSlave},
    },
};

/// Drains end by a clock that runs while the machine is suspended, and timers do not.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

impl Machine {
    /// Returns whether an administrator has drained a slave of a bond.
    pub fn is_drained(&self, slave: DrainedSlave<'_>) -> bool {
        self.drain_of(slave).is_some()
    }

    /// Returns the drain of a slave of a bond, for reports.
    pub fn drained(&self, slave: DrainedSlave<'_>) -> Option<Drained> {
        self.drain_of(slave).as_ref().map(Drain::report)
    }

    fn drain_of(&self, slave: DrainedSlave<'_>) -> Option<Drain> {
        self.drains().of(slave, self.names()).cloned()
    }

    fn begin_drain(&self, drain: Drain) -> Result<(), StoreError> {
        self.drains().begin(drain, self.names())
    }

    /// Ends the drain of a slave in the file, if there is one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end_drain_of(&self, slave: DrainedSlave<'_>) -> Result<(), StoreError> {
        self.drains().end(slave, self.names())
    }

    /// Returns the names of interfaces.
    fn names(&self) -> impl Fn(u32) -> Option<String> {
        |ifindex| self.devices.name_of(ifindex)
    }
}

impl Agent {
    /// Drains a slave: another one takes over if it is active. It stays so, also across restarts of the agent and the bond,
    /// until `time` has passed or [`Self::undrain`].
    ///
    /// # Errors
    /// No other slave is up that is not drained, or the file of drains cannot be written; nothing is changed.
    pub async fn drain(
        &self,
        name: &BondName,
        slave: &InterfaceName,
        time: Option<Duration>,
        why: Option<Purpose>,
    ) -> Result<(), AgentError> {
        let bond = self.bond(name)?;
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        let known = DrainedSlave { bond: name, name: slave, ifindex: ifindex_of(&status, slave) };
        let former = self.machine.drain_of(known);
        self.machine.begin_drain(Drain::begin(known, time, why.clone()))?;
        let answer = self.machine.engine.request(bond.id, Event::SetDrained { slot, drained: true }).await;
        if let Err(refusal) = answer? {
            match former {
                Some(former) => self.machine.begin_drain(former)?,
                None => self.machine.end_drain_of(known)?,
            }
            return Err(refusal.into());
        }
        log::of(name).slave(slave).info(wording::drained(slave, time, why.as_ref()));
        self.announce_drain(name, slave, SlaveChange::Drained);
        Ok(())
    }

    /// Ends the drain of a slave, which need not be enslaved at present. Returns what should be known about it.
    ///
    /// # Errors
    /// The bond has no such slave, and none of this name is drained, or the file of drains cannot be written.
    pub async fn undrain(
        &self,
        name: &BondName,
        slave: &InterfaceName,
        by_itself: bool,
    ) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let known = DrainedSlave { bond: name, name: slave, ifindex: ifindex_of(&status, slave) };
        let Some(drain) = self.machine.drain_of(known) else {
            slot_of(name, &status, slave)?;
            return Ok(vec![wording::not_drained(slave)]);
        };
        self.machine.end_drain_of(known)?;
        // The agent may not know yet that the interface was renamed.
        let find = |ifindex| status.slaves.iter().find(|slave| slave.ifindex == ifindex);
        let found = find(drain.ifindex).or_else(|| find(known.ifindex));
        if let Some(slot) = found.and_then(|slave| Slot::new(slave.slot)) {
            // One that is being released has no use for it any more.
            let _ = self.machine.engine.request(bond.id, Event::SetDrained { slot, drained: false }).await?;
        }
        log::of(name).slave(slave).info(wording::undrained(slave, by_itself));
        self.announce_drain(name, slave, SlaveChange::Undrained);
        Ok(Vec::new())
    }

    fn announce_drain(&self, name: &BondName, slave: &str, change: SlaveChange) {
        self.machine.feed.publish(name, What::Slave { slave: slave.to_owned(), change });
    }

    /// Ends drains after their time.
    pub(in crate::agent) async fn end_drains(self: Arc<Self>) {
        loop {
            let over = self.machine.drains().over();
            for drain in over {
                self.end_drain(&drain).await;
            }
            sleep(BETWEEN_CHECKS).await;
        }
    }

    async fn end_drain(&self, drain: &Drain) {
        let slave = drain.present_name(self.machine.names());
        let ended = match InterfaceName::new(&slave) {
            Ok(slave) if self.find(&drain.bond).is_some() => {
                self.undrain(&drain.bond, &slave, true).await.map(|_| ())
            }
            _ => {
                let slave = DrainedSlave { bond: &drain.bond, name: &slave, ifindex: drain.ifindex };
                self.machine.end_drain_of(slave).map_err(Into::into)
            }
        };
        if let Err(error) = ended {
            log::of(&drain.bond).warn(error);
        }
    }
}

fn ifindex_of(status: &BondStatus, slave: &str) -> u32 {
    status.slaves.iter().find(|known| known.name == slave).map_or(0, |known| known.ifindex)
}
