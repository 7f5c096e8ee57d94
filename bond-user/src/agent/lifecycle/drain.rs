//! `xbond drain` and `xbond undrain`: slaves that are used only while no other one is.

use std::{sync::Arc, time::Duration};

use bond_common::abi::Slot;
use bond_core::{
    event::Event,
    name::{BondName, InterfaceName},
    purpose::Purpose,
    status::{BondStatus, SlaveStatus},
};
use tokio::time::sleep;

use crate::{
    agent::{Agent, AgentError, lifecycle::machine::Machine, options::slot_of},
    report::{
        drain::Drained,
        event::{SlaveChange, What},
        log, wording,
    },
    store::drains::Drain,
};

/// Drains end by a clock that runs while the machine is suspended, and timers do not.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

impl Machine {
    /// Returns whether an administrator has drained a slave of a bond.
    pub fn is_drained(&self, bond: &BondName, slave: &str, ifindex: u32) -> bool {
        self.drains().of(bond, slave, ifindex).is_some()
    }

    /// Returns the drain of a slave of a bond, for reports.
    pub fn drained(&self, bond: &BondName, slave: &str, ifindex: u32) -> Option<Drained> {
        self.drains().of(bond, slave, ifindex).map(Drain::report)
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
        let ifindex = ifindex_of(&status, slave);
        let former = self.machine.drains().of(name, slave, ifindex).cloned();
        let drain = Drain::begin(name, (slave, ifindex), time, why.clone());
        self.machine.drains().begin(drain)?;
        let answer = self.machine.engine.request(bond.id, Event::SetDrained { slot, drained: true }).await;
        if let Err(refusal) = answer? {
            match former {
                Some(former) => self.machine.drains().begin(former)?,
                None => self.machine.drains().end(name, slave, ifindex)?,
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
        let ifindex = ifindex_of(&status, slave);
        if !self.machine.is_drained(name, slave, ifindex) {
            slot_of(name, &status, slave)?;
            return Ok(vec![wording::not_drained(slave)]);
        }
        // The slave may have been renamed since it was drained.
        let drained = self.machine.drains().of(name, slave, ifindex).map_or(ifindex, |drain| drain.ifindex);
        self.machine.drains().end(name, slave, drained)?;
        let is_it = |known: &&SlaveStatus| known.name == **slave || known.ifindex == drained;
        if let Some(slot) = status.slaves.iter().find(is_it).and_then(|known| Slot::new(known.slot)) {
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
        let ended = match InterfaceName::new(&drain.slave) {
            Ok(slave) if self.find(&drain.bond).is_some() => {
                self.undrain(&drain.bond, &slave, true).await.map(|_| ())
            }
            _ => self.machine.drains().end(&drain.bond, &drain.slave, drain.ifindex).map_err(Into::into),
        };
        if let Err(error) = ended {
            log::of(&drain.bond).warn(error);
        }
    }
}

fn ifindex_of(status: &BondStatus, slave: &str) -> u32 {
    status.slaves.iter().find(|known| known.name == slave).map_or(0, |known| known.ifindex)
}
