//! Slaves that come and go while a bond runs: by request, and by themselves.
//!
//! A slave that a file names is wanted: it is enslaved whenever its interface is there, also after the interface
//! vanished and came back, until the administrator releases it. One that `xbond add-slave` or flags added is released for
//! good when its interface vanishes, as in the driver.

use std::sync::{Arc, MutexGuard, PoisonError, atomic::Ordering};

use bond_common::abi::Slot;
use bond_core::{
    command::Notice,
    event::{Elects, Event},
    name::{BondName, InterfaceName, shell_word},
    options::SlaveOptions,
    status::{BondStatus, SlaveStatus},
};
use tokio::time::{Duration, sleep};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, Bond, Goal, Stopping,
        bond::link_mail::LinkFeed,
        lifecycle::{
            checks,
            join::{self, Joining},
            machine::Machine,
        },
    },
    config::SlaveConfig,
    report::{
        event::What,
        log::{self, Facts},
        moment::monotonic,
        repeats::{Repeats, left_out},
        wording,
    },
    store::drains::DrainedSlave,
    sys::netlink::{AddressEvents, LinkEvent, LinkInfo},
};

/// The time between two checks of links and addresses, for what is not urgent.
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// A slave of a file.
#[derive(Clone, Debug)]
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
}

impl Goal {
    /// What its file names and is not enslaved.
    pub(in crate::agent) fn absent<'bond>(
        &'bond self,
        status: &'bond BondStatus,
    ) -> impl Iterator<Item = &'bond Wanted> + 'bond {
        let slaves = self.slaves_named(self.wanted.iter().map(Wanted::name), status);
        self.wanted.iter().zip(slaves).filter(|(_, slave)| slave.is_none()).map(|(wanted, _)| wanted)
    }

    /// The slaves that a file means by these names: each is the interface that was enslaved for its name, whatever that is
    /// called now, or else the one of that name. No slave is meant by two names.
    pub(in crate::agent) fn slaves_named<'name, 'status>(
        &self,
        names: impl Iterator<Item = &'name str>,
        status: &'status BondStatus,
    ) -> Vec<Option<&'status SlaveStatus>> {
        let names: Vec<_> = names.collect();
        let slave = |is_it: &dyn Fn(&SlaveStatus) -> bool| status.slaves.iter().find(|slave| is_it(slave));
        let joined = |name: &str| {
            let ifindex = self.wanted.iter().find(|wanted| wanted.name() == name)?.joined?;
            slave(&|slave| slave.ifindex == ifindex)
        };
        let by_name = |name: &str| match joined(name) {
            Some(joined) => Some(joined).filter(|slave| slave.name == name),
            None => slave(&|slave| slave.name == name),
        };
        let by_names: Vec<_> = names.iter().map(|name| by_name(name)).collect();
        let is_named = |slave: &&SlaveStatus| {
            by_names.iter().flatten().any(|named: &&SlaveStatus| named.ifindex == slave.ifindex)
        };
        let either = |(name, by_name): (&&str, &Option<_>)| {
            by_name.or_else(|| joined(name).filter(|slave| !is_named(slave)))
        };
        names.iter().zip(&by_names).map(either).collect()
    }

    /// From now on these are wanted, and no others.
    pub(in crate::agent) fn want(&mut self, slaves: &[SlaveConfig], status: &BondStatus) {
        let found = self.slaves_named(slaves.iter().map(|slave| slave.name.as_str()), status);
        let wanted = |(slave, found): (&SlaveConfig, Option<&SlaveStatus>)| {
            Wanted::new(slave.clone(), found.map(|slave| slave.ifindex))
        };
        self.wanted = slaves.iter().zip(found).map(wanted).collect();
    }

    /// This slave, which has this name now, is not wanted any more.
    fn release(&mut self, name: &str, ifindex: Option<u32>, status: &BondStatus) {
        let slaves = self.slaves_named(self.wanted.iter().map(Wanted::name), status);
        let is_released = |wanted: &Wanted, slave: Option<&SlaveStatus>| match slave {
            Some(slave) => Some(slave.ifindex) == ifindex,
            None => wanted.name() == name,
        };
        let kept = self.wanted.iter().zip(slaves).filter(|(wanted, slave)| !is_released(wanted, *slave));
        self.wanted = kept.map(|(wanted, _)| wanted.clone()).collect();
    }

    fn wanted_mut(&mut self, name: &str) -> Option<&mut Wanted> {
        self.wanted.iter_mut().find(|wanted| wanted.name() == name)
    }

    /// Whether `link` is one that this bond waits for.
    fn awaits(&self, link: &LinkInfo, status: &BondStatus) -> bool {
        let attempt = Attempt::of(link);
        self.absent(status).any(|wanted| wanted.name() == link.name && wanted.failed != Some(attempt))
    }
}

impl Attempt {
    fn of(link: &LinkInfo) -> Self {
        Self { ifindex: link.ifindex, master: link.master }
    }
}

impl Bond {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        // Poisoned or not, links that wait are whole.
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::agent) fn joining<'a>(&'a self, name: &'a BondName) -> Joining<'a> {
        Joining { bond: name, id: self.id, work: &self.work, hook: self.hook }
    }

    /// Enslaves `link` if it is one that this bond waits for.
    async fn take_in(&self, name: &BondName, machine: &Machine, link: &LinkInfo) -> Result<(), Stopping> {
        let is_wanted = self.goal().wanted.iter().any(|wanted| wanted.name() == link.name);
        // The engine has heard of the link before, and what it answers comes after that.
        if !is_wanted || !self.goal().awaits(link, &machine.engine.status(self.id).await?) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let goal = self.goal();
        if !goal.awaits(link, &machine.engine.status(self.id).await?) {
            return Ok(());
        }
        let Some(wanted) = goal.wanted.iter().find(|wanted| wanted.name() == link.name) else {
            return Ok(());
        };
        let answer = join::join(machine, self.joining(name), &wanted.config).await;
        if let Err(error) = &answer {
            log::of(name).warn(wording::not_enslaved(error, shell_word(name), shell_word(&link.name)));
        }
        self.change_goal(|goal| {
            let Some(wanted) = goal.wanted_mut(&link.name) else { return };
            match answer {
                Ok(ifindex) => (wanted.joined, wanted.failed) = (Some(ifindex), None),
                Err(_) => wanted.failed = Some(Attempt::of(link)),
            }
        });
        Ok(())
    }
}

/// Interfaces that appeared or changed, for one bond: of each how it is by now, at most as many as a file names.
#[derive(Default)]
pub struct Arrivals {
    waiting: Vec<LinkInfo>,
    /// A task takes them.
    is_served: bool,
}

impl Arrivals {
    /// Adds one. Returns whether a task is to be started for it.
    fn add(&mut self, link: LinkInfo) -> bool {
        self.waiting.retain(|waiting| waiting.ifindex != link.ifindex);
        self.waiting.push(link);
        !std::mem::replace(&mut self.is_served, true)
    }

    /// The one that has waited longest. None ends the task.
    fn next(&mut self) -> Option<LinkInfo> {
        self.is_served = !self.waiting.is_empty();
        self.is_served.then(|| self.waiting.remove(0))
    }
}

impl Agent {
    /// Enslaves an interface if a file of the bond names it, without waiting for it: each bond has a task of its own, so
    /// that a slow slave of one delays no other bond.
    fn take_in_soon(self: &Arc<Self>, name: &BondName, bond: &Arc<Bond>, link: &LinkInfo) {
        if !bond.goal().wanted.iter().any(|wanted| wanted.name() == link.name)
            || !bond.arrivals().add(link.clone())
        {
            return;
        }
        let (agent, name, bond) = (Arc::clone(self), name.clone(), Arc::clone(bond));
        tokio::spawn(async move {
            loop {
                let Some(link) = bond.arrivals().next() else { return };
                // A bond on its way down takes none.
                let _ = bond.take_in(&name, &agent.machine, &link).await;
            }
        });
    }

    /// Enslaves an interface of this network namespace. Returns what stands on it and does not go with the bond.
    ///
    /// # Errors
    /// There is no such bond, it has the slave, an option is refused, or the interface is. Nothing was changed then.
    pub async fn add_slave(
        &self,
        name: &BondName,
        slave: &InterfaceName,
        options: &[(String, String)],
    ) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        let _turn = bond.turn.lock().await;
        if self.machine.engine.status(bond.id).await?.slaves.iter().any(|known| slave == known.name.as_str())
        {
            let (bond, slave) = (name.to_string(), slave.to_string());
            return Err(AgentError::AlreadySlave { bond, slave });
        }
        let wanted = bond.goal().wanted.iter().find(|wanted| slave == wanted.name()).cloned();
        let mut config = wanted.map_or_else(|| SlaveConfig::new(slave.clone()), |wanted| wanted.config);
        set_options(&mut config.options, options)?;
        checks::check_queue(name, bond.queues, slave, config.options)?;
        let ifindex = join::join(&self.machine, bond.joining(name), &config).await?;
        bond.change_goal(|goal| {
            if let Some(wanted) = goal.wanted_mut(slave) {
                wanted.joined = Some(ifindex);
            }
        });
        log::of(name).slave(slave).info(wording::added(slave));
        // As the worker has logged them.
        let conflicts = self.machine.devices.conflicts(ifindex).await.unwrap_or_default();
        Ok(conflicts
            .iter()
            .map(|conflict| format!("{slave}: {}", wording::conflict(conflict, slave, name)))
            .collect())
    }

    /// Releases a slave. If it is the active one, another takes over first. Returns what the administrator should know.
    ///
    /// # Errors
    /// There is no such bond or slave, the engine refuses the release, or the slave's state could not be restored.
    pub async fn del_slave(&self, name: &BondName, slave: &str) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        let turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        let ifindex = status.slaves.iter().find(|known| known.name == slave).map(|known| known.ifindex);
        let released = self.machine.engine.release(bond.id, slot).await??;
        bond.change_goal(|goal| {
            goal.release(slave, ifindex, &status);
        });
        // The release has begun, whether or not that can be written.
        let known = DrainedSlave { bond: name, name: slave, ifindex: ifindex.unwrap_or_default() };
        if let Err(error) = self.machine.end_drain_of(known) {
            log::of(name).slave(slave).warn(error);
        }
        // It drains first, and others need not wait for that.
        drop(turn);
        released.done.await.map_err(|_| Stopping)??;
        let notes = released.notes.await.unwrap_or_default();
        let is_its = |notice: &&Notice| matches!(notice, Notice::ReleasedMacInUse { slave: released, .. } if released == slave);
        Ok(notes.iter().filter(is_its).map(|notice| wording::notice(notice).1).collect())
    }

    /// Changes options of a slave; all of them, or none.
    ///
    /// # Errors
    /// There is no such bond or slave, or an option is refused. Nothing was changed then.
    pub async fn set_slave(
        &self,
        name: &BondName,
        slave: &str,
        settings: &[(String, String)],
    ) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        // Held over the whole change: two that come at once do not undo each other.
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        let known = status.slaves.iter().find(|known| known.name == slave);
        let before = known.map(|slave| slave.options).unwrap_or_default();
        let mut options = before;
        set_options(&mut options, settings)?;
        checks::check_queue(name, bond.queues, slave, options)?;
        self.machine.engine.request(bond.id, Event::SetSlaveOptions { slot, options }).await??;
        for option in settings.iter().filter_map(|(key, _)| Elects::of(key)) {
            self.machine.engine.request(bond.id, Event::Written(option)).await??;
        }
        for (key, value) in changed(before.to_pairs(), options.to_pairs()) {
            Facts { option: Some(key), value: Some(&value), ..log::of(name).slave(slave) }
                .info(format_args!("{slave}: {key}={value}"));
            let (slave, option) = (Some(slave.to_owned()), key.to_owned());
            self.machine.feed.publish(name, What::Option { slave, option, value });
        }
        let primary = status.options.primary.as_ref().filter(|primary| {
            settings.iter().any(|(key, _)| key == "prio")
                && status.slaves.iter().any(|slave| slave.name == **primary)
        });
        let notes: Vec<_> = primary.map(|primary| wording::prio_idle(slave, primary)).into_iter().collect();
        for note in &notes {
            log::of(name).info(note);
        }
        Ok(notes)
    }

    /// Handles link events in addition to the engine: arrivals of slaves, and ends of bonds.
    pub(in crate::agent) async fn follow_links(self: Arc<Self>, feed: LinkFeed) {
        let mut overruns = Repeats::default();
        loop {
            for event in feed.take().await {
                let links = match event {
                    LinkEvent::Changed(link) => vec![*link],
                    LinkEvent::Deleted { ifindex, moved, .. } => {
                        for (_, bond) in
                            self.all().iter().filter(|(_, bond)| moved && bond.host.device() == ifindex)
                        {
                            bond.is_elsewhere.store(true, Ordering::Relaxed);
                        }
                        self.take_down_soon(ifindex);
                        continue;
                    }
                    LinkEvent::Overrun => {
                        if let Some(count) = overruns.admit(monotonic(), "overrun") {
                            info!("{}{}", wording::events_overrun(), left_out(count));
                        }
                        self.catch_up().await
                    }
                };
                self.restore_returned_soon(&links);
                for (name, bond) in self.all() {
                    for link in &links {
                        if bond.is_host(link) {
                            bond.is_elsewhere.store(false, Ordering::Relaxed);
                        }
                        self.take_in_soon(&name, &bond, link);
                    }
                }
            }
            sleep(BETWEEN_CHECKS).await;
        }
    }

    /// Has the bonds read addresses that have changed.
    pub(in crate::agent) async fn follow_addresses(self: Arc<Self>, mut events: AddressEvents) {
        loop {
            match events.next().await {
                Ok(changed) => {
                    for (_, bond) in self.all() {
                        bond.work.check(|pending| pending.addresses.merge(&changed));
                    }
                }
                Err(error) => {
                    warn!("{}", wording::no_address_events(&error));
                    return;
                }
            }
            sleep(BETWEEN_CHECKS).await;
        }
    }

    /// Takes down a bond whose port is gone, if there is one, without waiting for it.
    fn take_down_soon(self: &Arc<Self>, ifindex: u32) {
        if self.all().iter().any(|(_, bond)| bond.maps.bond().port_ifindex() == ifindex) {
            let agent = Arc::clone(self);
            tokio::spawn(async move { agent.take_down_without_port(ifindex).await });
        }
    }

    /// All links, after events were lost: each is sent to the engine, and so are slaves that are gone.
    async fn catch_up(self: &Arc<Self>) -> Vec<LinkInfo> {
        let links = match self.machine.devices.links(None).await {
            Ok(links) => links,
            Err(error) => {
                warn!("{}", wording::links_unread(&error));
                return Vec::new();
            }
        };
        let is_gone = |ifindex: &u32| !links.iter().any(|link| link.ifindex == *ifindex);
        let mut ports = Vec::new();
        for (_, bond) in self.all() {
            ports.push(bond.maps.bond().port_ifindex());
            let status = bond.status();
            for ifindex in status.slaves.iter().map(|slave| slave.ifindex).filter(is_gone) {
                let gone = LinkEvent::Deleted { ifindex, end_of_pair: false, moved: false };
                self.machine.engine.device(gone);
            }
        }
        for port in ports.into_iter().filter(is_gone) {
            self.take_down_soon(port);
        }
        for link in &links {
            self.machine.engine.device(LinkEvent::Changed(Box::new(link.clone())));
        }
        links
    }
}

fn set_options(options: &mut SlaveOptions, settings: &[(String, String)]) -> Result<(), AgentError> {
    Ok(settings.iter().try_for_each(|(key, value)| options.set(key, value))?)
}

/// Returns those pairs of `after` that differ from the pair of `before` with the same key. Both have the same keys.
pub(in crate::agent) fn changed(
    before: Vec<(&'static str, String)>,
    after: Vec<(&'static str, String)>,
) -> Vec<(&'static str, String)> {
    before.into_iter().zip(after).filter(|(before, after)| before != after).map(|(_, after)| after).collect()
}

/// Returns the slot of a slave by its name.
///
/// # Errors
/// [`AgentError::NoSuchSlave`].
pub fn slot_of(bond: &str, status: &BondStatus, slave: &str) -> Result<Slot, AgentError> {
    let found = status.slaves.iter().find(|known| known.name == slave);
    found
        .and_then(|slave| Slot::new(slave.slot))
        .ok_or_else(|| AgentError::NoSuchSlave { bond: bond.to_owned(), slave: slave.to_owned() })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn link(ifindex: u32, mtu: u32) -> LinkInfo {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes = vec![LinkAttribute::IfName(format!("eth{ifindex}")), LinkAttribute::Mtu(mtu)];
        LinkInfo::from_message(&message).unwrap()
    }

    #[test]
    fn one_task_handles_the_arrivals_of_a_bond_and_ends_after_the_last() {
        let mut arrivals = Arrivals::default();
        assert!(arrivals.add(link(1, 1)), "a task is started");
        assert!(!arrivals.add(link(2, 1)) && !arrivals.add(link(1, 2)), "it runs");
        assert_eq!(arrivals.next(), Some(link(2, 1)));
        // While it enslaves one, others come.
        assert!(!arrivals.add(link(3, 1)));
        assert_eq!(
            [arrivals.next(), arrivals.next(), arrivals.next()],
            [Some(link(1, 2)), Some(link(3, 1)), None]
        );
        assert!(arrivals.add(link(4, 1)), "the next one starts another");
    }
}
