//! Setting an interface up as a slave: all of it, or nothing.

use std::sync::Arc;

use bond_common::{abi::Slot, mac::Mac};
use bond_core::event::Link;
use tokio::sync::OwnedMutexGuard;

use super::{SlaveDevice, Worker, waiting};
use crate::{
    agent::{
        AgentError,
        bond::{enslave_request::EnslaveRequest, path_check::hooked_at, recorder::Entry, work::Enslave},
    },
    report::{log, wording},
    sys::{
        SysError,
        dataplane::Hook,
        enslave::EnslavePlan,
        found::Found,
        netlink::{LinkInfo, LinkSetting},
        ownership::Ownership,
    },
};

/// Why an interface is no slave, and whether its original state is restored.
struct NotSetUp {
    error: AgentError,
    is_undone: bool,
}

impl Worker {
    /// Sets an interface up, and hands the outcome to the engine, which answers the request.
    pub(super) async fn enslave(&mut self, enslave: Enslave) {
        let Enslave { slot, mac, request } = enslave;
        let EnslaveRequest { slave, found, mac: configured, claim, reply } = *request;
        let outcome = self.try_enslave(slot, slave.name, found, mac.or(configured), claim).await;
        self.engine.enslaved(self.id, slot, outcome, reply);
    }

    async fn try_enslave(
        &mut self,
        slot: Slot,
        name: String,
        found: Found,
        mac: Option<Mac>,
        claim: Option<OwnedMutexGuard<()>>,
    ) -> Result<Link, AgentError> {
        self.data_plane.check_pins()?;
        let prearmed = self.wanted.prearm.then(|| self.mirror.slave(slot).wire_mac());
        let mut unicast = self.further_macs.clone();
        if let Some(mac) = prearmed {
            unicast.retain(|known| Some(*known) != self.prearmed);
            unicast.push(mac);
        }
        // On disk before the first change: the next agent, or `xbond down --force`, can undo a half-made bond.
        let found = self.record_found(Found { unicast: unicast.clone(), ..found }).await?;
        // Other tasks read in the record whose it is.
        drop(claim);
        let plan = EnslavePlan { mac, mtu: self.mtu, hook: self.data_plane.hook(), unicast };
        let ifindex = found.ifindex;
        let link = match self.set_up(slot, &name, &found, &plan).await {
            Ok(link) => link,
            Err(NotSetUp { error, is_undone }) => {
                // A restored interface is no longer the bond's. The original state of another one is still needed.
                let recorded =
                    if is_undone { self.record.remove(ifindex) } else { self.record.depart(ifindex) };
                if let Err(error) = recorded {
                    log::of(&self.bond).warn(format_args!("{name}: {error}"));
                }
                return Err(error);
            }
        };
        self.further_macs = plan.unicast;
        self.prearmed = prearmed.or(self.prearmed);
        if self.host.promisc() {
            let answer = self.devices.set(ifindex, LinkSetting::Promisc(true)).await;
            self.warn_of(answer.map(drop));
        }
        self.warn_of_device(&name, ifindex).await;
        let (speed, duplex) = self.devices.speed(ifindex);
        self.slaves.insert(slot, SlaveDevice { name, ..SlaveDevice::new(found) });
        Ok(Link { speed, duplex, ..Link::new(link.has_link()) })
    }

    /// Reports what keeps packets of a new slave from the bond, or from others, without an error.
    async fn warn_of_device(&mut self, name: &str, ifindex: u32) {
        let (bond, hook) = (&self.bond, self.data_plane.hook());
        let hooked = hooked_at(&*self.devices, bond, (name, ifindex), hook).await;
        for note in &hooked {
            self.recording.warn(note.to_string());
        }
        match self.devices.conflicts(ifindex).await {
            Ok(conflicts) => conflicts.iter().for_each(|conflict| {
                self.recording.warn(format!("{name}: {}", wording::conflict(conflict, name, bond)))
            }),
            Err(error) => self.recording.warn(wording::conflicts_unread(&error, name)),
        }
        self.path.notes.hooked.extend(hooked);
        self.recording.add(Entry::Notes { all: self.path.notes.all(), logged: true });
        if hook != Hook::Tc && self.devices.has_peer_on_this_machine(ifindex) {
            // It may be as it should; nothing shows from here whether it is.
            log::of(bond).info(format_args!("{name}: {}", wording::PARTIAL_CHECKSUMS));
        }
    }

    /// Records the state of an interface, until it is the recorded one: it may change while it is written.
    async fn record_found(&mut self, mut found: Found) -> Result<Found, AgentError> {
        /// One whose routes change all the time is enslaved nevertheless.
        const READINGS: usize = 5;
        // It returns, and gets back at the end what it had at first.
        if let Some(known) = self.record.released_giver().filter(|known| known.ifindex == found.ifindex) {
            let found = Found { name: found.name, unicast: found.unicast, ..known.clone() };
            self.record.add(found.clone())?;
            return Ok(found);
        }
        // What the bond took from it already is not there any more.
        if let Some(known) = self.record.slave(found.ifindex) {
            found.layer3 = Arc::clone(&known.layer3);
            self.record.add(found.clone())?;
            return Ok(found);
        }
        // It could not be restored when it left, and is as the bond left it.
        if let Some(known) = self.record.away().iter().find(|known| known.is_of_device_of(&found))
            && self.record.mark().is_on(&self.devices.link_by_index(found.ifindex).await?)
        {
            let known = known.clone();
            let former = known.ifindex;
            let found = if former == found.ifindex {
                Found { name: found.name, unicast: found.unicast, ..known }
            } else {
                known.here_as(found)
            };
            self.record.add(found.clone())?;
            self.record.returned(former)?;
            return Ok(found);
        }
        self.record.add(found.clone())?;
        for _ in 0..READINGS {
            match self.devices.observe_again(&found).await {
                Ok(None) => break,
                Ok(Some(changed)) => found = changed,
                Err(error) => {
                    self.record.remove(found.ifindex)?;
                    return Err(error.into());
                }
            }
            self.record.add(found.clone())?;
        }
        Ok(found)
    }

    /// All of it, or nothing.
    async fn set_up(
        &mut self,
        slot: Slot,
        name: &str,
        found: &Found,
        plan: &EnslavePlan,
    ) -> Result<LinkInfo, NotSetUp> {
        self.devices.enslave(found, plan, &self.record.mark()).await.map_err(|error| {
            let is_undone = !matches!(error, SysError::NotUndone { .. });
            NotSetUp { error: error.into(), is_undone }
        })?;
        // While it is closed: in between the host's own stack would answer on it for bond0's addresses.
        let attached = waiting(|| self.data_plane.attach_slave(slot, name, found.ifindex));
        let answer = match attached {
            Ok(()) => {
                self.announcer.prepare(slot, found.ifindex);
                self.devices.open_slave(found.ifindex).await.map_err(AgentError::from)
            }
            Err(error) => Err(error.into()),
        };
        let error = match answer {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        let proof = Ownership::new(self.record.mark(), [found.ifindex]);
        let mut is_undone = true;
        for undone in [
            self.devices.close_to_restore(found, &proof).await.map_err(AgentError::from),
            waiting(|| self.data_plane.detach_slave(slot)).map_err(AgentError::from),
            self.devices.restore(found, &proof).await.map(drop).map_err(AgentError::from),
        ] {
            if let Err(error) = undone {
                is_undone = false;
                log::of(&self.bond).warn(format_args!("{name}: {}", wording::not_restored_yet(&error)));
            }
        }
        Err(NotSetUp { error, is_undone })
    }
}
