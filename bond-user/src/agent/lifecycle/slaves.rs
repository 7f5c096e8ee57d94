//! Slaves that come and go while a bond runs: by request, and by themselves.
//!
//! A slave that a file names is wanted: it is enslaved whenever its interface is there, also after the interface
//! vanished and came back, until it is released by hand. One that was added by hand, or by flags, is released for
//! good when its interface vanishes, as in the driver.

use std::sync::Arc;

use bond_core::{
    event::{Elects, Event},
    name::{BondName, InterfaceName},
    options::SlaveOptions,
    status::{BondStatus, SlaveStatus},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, Bond,
        bond::{
            engine_thread::{Input, Stopping},
            worker::Effect,
        },
        lifecycle::create::{self as bring_up, Machine},
        slot_of,
    },
    config::SlaveConfig,
    report::event::What,
    sys::netlink::{LinkEvent, LinkInfo},
};

/// A slave of a file.
pub struct Wanted {
    config: SlaveConfig,
    /// ifindex of the interface that was enslaved for it last, whatever name that has now.
    joined: Option<u32>,
    /// What could not be enslaved last.
    failed: Option<Attempt>,
}

/// An interface that was to be enslaved: another attempt makes sense when one of these has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    ifindex: u32,
    master: Option<u32>,
}

impl Wanted {
    /// `joined` is the ifindex of its interface, if that is enslaved.
    pub fn new(config: SlaveConfig, joined: Option<u32>) -> Self {
        Self { config, joined, failed: None }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    fn is_slave(&self, status: &BondStatus) -> bool {
        self.slave_of(status).is_some()
    }

    /// Its interface among the slaves, whatever name that has now.
    fn slave_of<'status>(&self, status: &'status BondStatus) -> Option<&'status SlaveStatus> {
        let is_it =
            |slave: &&SlaveStatus| Some(slave.ifindex) == self.joined || slave.name == self.config.name;
        status.slaves.iter().find(is_it)
    }
}

impl Bond {
    /// What its file names and is not enslaved.
    pub(in crate::agent) fn absent<'bond>(
        &'bond self,
        status: &'bond BondStatus,
    ) -> impl Iterator<Item = &'bond Wanted> + 'bond {
        self.wanted.iter().filter(|wanted| !wanted.is_slave(status))
    }

    /// The slave that a file means by this name.
    pub(in crate::agent) fn slave_named<'status>(
        &self,
        name: &str,
        status: &'status BondStatus,
    ) -> Option<&'status SlaveStatus> {
        let wanted = self.wanted.iter().find(|wanted| wanted.name() == name);
        match wanted {
            Some(wanted) => wanted.slave_of(status),
            None => status.slaves.iter().find(|slave| slave.name == name),
        }
    }

    /// From now on these are wanted, and no others.
    pub(in crate::agent) fn want(&mut self, slaves: &[SlaveConfig], status: &BondStatus) {
        let wanted = |slave: &SlaveConfig| {
            let joined = self.slave_named(&slave.name, status).map(|slave| slave.ifindex);
            Wanted::new(slave.clone(), joined)
        };
        self.wanted = slaves.iter().map(wanted).collect();
    }

    /// Enslaves `link` if it is one that this bond waits for.
    async fn take_in(&mut self, name: &str, machine: &Machine, link: &LinkInfo) -> Result<(), Stopping> {
        let attempt = Attempt { ifindex: link.ifindex, master: link.master };
        let is_it = |wanted: &&mut Wanted| wanted.name() == link.name && wanted.failed != Some(attempt);
        let Some(wanted) = self.wanted.iter_mut().find(is_it) else { return Ok(()) };
        if wanted.is_slave(&machine.engine.status(self.id).await?) {
            return Ok(());
        }
        // One that was away is put back first.
        bring_up::settle(machine, self.id, &self.effects).await.map_err(|_| Stopping)?;
        match bring_up::join(machine, self.id, &self.effects, self.hook, &wanted.config).await {
            Ok(ifindex) => (wanted.joined, wanted.failed) = (Some(ifindex), None),
            Err(error) => {
                warn!("{name}: {error}; once that is mended: xbond add-slave {name} {}", link.name);
                wanted.failed = Some(attempt);
            }
        }
        Ok(())
    }
}

impl Agent {
    /// Enslaves an interface of this network namespace.
    pub async fn add_slave(
        &self,
        name: &BondName,
        slave: &InterfaceName,
        options: &[(String, String)],
    ) -> Result<(), AgentError> {
        let mut bonds = self.bonds.lock().await;
        let bond = bonds.get_mut(name).ok_or_else(|| self.no_such_bond(name))?;
        let wanted = bond.wanted.iter_mut().find(|wanted| slave == wanted.name());
        let mut config = match &wanted {
            Some(wanted) => wanted.config.clone(),
            None => SlaveConfig::new(slave.as_str()),
        };
        set_options(&mut config.options, options)?;
        bring_up::check_queue(name, bond.queues, slave, config.options)?;
        let ifindex = bring_up::join(&self.machine, bond.id, &bond.effects, bond.hook, &config).await?;
        if let Some(wanted) = wanted {
            wanted.joined = Some(ifindex);
        }
        info!("{name}: {slave}: added by hand");
        Ok(())
    }

    /// Releases a slave. If it is the active one, another takes over first.
    pub async fn del_slave(&self, name: &BondName, slave: &str) -> Result<(), AgentError> {
        let mut bonds = self.bonds.lock().await;
        let bond = bonds.get_mut(name).ok_or_else(|| self.no_such_bond(name))?;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        let ifindex = status.slaves.iter().find(|known| known.name == slave).map(|known| known.ifindex);
        let (reply, released) = oneshot::channel();
        let _ = bond.effects.send(Effect::AwaitRelease { slot, reply });
        self.machine.engine.request(bond.id, Event::Leave { slot }).await??;
        bond.wanted.retain(|wanted| wanted.name() != slave && wanted.joined != ifindex);
        // It drains first, and others need not wait for that.
        drop(bonds);
        released.await.map_err(|_| Stopping)?
    }

    /// Changes options of a slave; all of them, or none.
    pub async fn set_slave(
        &self,
        name: &BondName,
        slave: &str,
        settings: &[(String, String)],
    ) -> Result<Vec<String>, AgentError> {
        // Held over the whole change: two that come at once do not undo each other.
        let bonds = self.bonds.lock().await;
        let bond = bonds.get(name).ok_or_else(|| self.no_such_bond(name))?;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        let known = status.slaves.iter().find(|known| known.name == slave);
        let mut options = known.map(|slave| slave.options).unwrap_or_default();
        set_options(&mut options, settings)?;
        bring_up::check_queue(name, bond.queues, slave, options)?;
        self.machine.engine.request(bond.id, Event::SetSlaveOptions { slot, options }).await??;
        for option in settings.iter().filter_map(|(key, _)| Elects::of(key)) {
            self.machine.engine.request(bond.id, Event::Written(option)).await??;
        }
        for (key, value) in settings {
            info!("{name}: {slave}: {key}={value}");
            let (slave, option, value) = (Some(slave.to_owned()), key.clone(), value.clone());
            self.machine.feed.tell(name, What::Option { slave, option, value });
        }
        let primary = status.options.primary.as_ref().filter(|primary| {
            settings.iter().any(|(key, _)| key == "prio")
                && status.slaves.iter().any(|slave| slave.name == **primary)
        });
        let notes: Vec<_> = primary
            .map(|primary| format!("{slave}: prio: without effect while the primary, {primary}, can be used"))
            .into_iter()
            .collect();
        for note in &notes {
            info!("{name}: {note}");
        }
        Ok(notes)
    }

    /// What link events ask for beside the engine's work.
    pub(in crate::agent) async fn follow_links(
        self: Arc<Self>,
        mut changes: mpsc::UnboundedReceiver<LinkEvent>,
    ) {
        while let Some(event) = changes.recv().await {
            let links = match event {
                LinkEvent::Changed(link) => vec![*link],
                LinkEvent::Deleted { ifindex, moved, .. } => {
                    for bond in self.bonds.lock().await.values_mut().filter(|_| moved) {
                        bond.is_elsewhere |= bond.host.device() == ifindex;
                    }
                    self.take_down_without_port(ifindex).await;
                    continue;
                }
                LinkEvent::AddressChanged { .. } => continue,
                LinkEvent::Overrun => self.catch_up().await,
            };
            for (name, bond) in &mut *self.bonds.lock().await {
                for link in &links {
                    if bond.is_host(link) {
                        bond.is_elsewhere = false;
                    }
                    // Only an agent that ends has no engine.
                    let Ok(()) = bond.take_in(name, &self.machine, link).await else { return };
                }
            }
        }
    }

    /// All links, after events were lost: the engine is told of each, and of slaves that are gone.
    async fn catch_up(&self) -> Vec<LinkInfo> {
        info!("links changed faster than they could be followed; all of them are read again");
        let links = match self.machine.devices.netlink.links(None).await {
            Ok(links) => links,
            Err(error) => {
                warn!("{error}; slaves that came or went meanwhile are not known");
                return Vec::new();
            }
        };
        let is_gone = |ifindex: &u32| !links.iter().any(|link| link.ifindex == *ifindex);
        let mut ports = Vec::new();
        for bond in self.bonds.lock().await.values() {
            ports.push(bond.maps.bond().port_ifindex());
            let Ok(status) = self.machine.engine.status(bond.id).await else { return Vec::new() };
            for ifindex in status.slaves.iter().map(|slave| slave.ifindex).filter(is_gone) {
                let gone = LinkEvent::Deleted { ifindex, end_of_pair: false, moved: false };
                self.machine.engine.send(Input::Device(gone));
            }
        }
        for port in ports.into_iter().filter(is_gone) {
            self.take_down_without_port(port).await;
        }
        for link in &links {
            self.machine.engine.send(Input::Device(LinkEvent::Changed(Box::new(link.clone()))));
        }
        links
    }
}

fn set_options(options: &mut SlaveOptions, settings: &[(String, String)]) -> Result<(), AgentError> {
    Ok(settings.iter().try_for_each(|(key, value)| options.set(key, value))?)
}
