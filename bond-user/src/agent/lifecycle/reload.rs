//! Files that are read again: bonds become what the files say now, whatever was changed by hand since.
//!
//! What is to be done is found out first, by comparing what is wanted with what is there. What cannot be done while
//! a bond is there is refused then, and nothing of that bond is changed. What did not change is not touched.

use std::{collections::HashSet, sync::Arc};

use bond_core::{
    event::Event,
    name::{BondName, InterfaceName},
    options::{BondOptions, SlaveOptions, Slaves},
    status::{BondStatus, SlaveStatus},
};
use ipnet::IpNet;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, Bond, Goal, MissingSlaves, Outcome, Phase,
        bond::{
            engine_thread::Stopping,
            worker::{self as effects, Effect},
        },
        lifecycle::{
            checks,
            configured::{self, route_over},
            create::DEFAULT_MTU,
            join,
        },
        server::access::Access,
        slot_of,
    },
    config::{BondConfig, Change, Config, Guard, OnExit, SlaveConfig},
    sys::{
        dataplane::Kernel,
        enslave::EnslavePlan,
        netlink::{Address, KernelRoute, LinkInfo},
        notify,
        sysctl::PromoteSecondaries,
    },
};

/// What becomes of a bond that is there and stays.
struct Plan {
    wanted: BondConfig,
    options: Option<BondOptions>,
    options_changed: Vec<Setting>,
    /// Interfaces that can be enslaved now.
    joins: Vec<SlaveConfig>,
    /// Those that another bond has to release first.
    later: Vec<SlaveConfig>,
    /// Names of slaves that no interface has.
    absent: Vec<InterfaceName>,
    /// Names that the interfaces have now.
    leaves: Vec<String>,
    slave_options: Vec<SlaveChange>,
    on_exit: Option<OnExit>,
    guard: Option<Guard>,
    host: Option<HostPlan>,
}

/// An option's key, and its values after and before.
type Setting = (&'static str, String, String);

struct SlaveChange {
    /// The name that its interface has now.
    slave: String,
    options: SlaveOptions,
    changed: Vec<Setting>,
}

/// What becomes of bond0's device.
#[derive(Default)]
struct HostPlan {
    ifindex: u32,
    /// The name that it has now.
    device: String,
    /// Bytes, after and before.
    mtu: Option<(u32, u32)>,
    new_addresses: Vec<IpNet>,
    old_addresses: Vec<IpNet>,
    new_routes: Vec<KernelRoute>,
    old_routes: Vec<KernelRoute>,
}

impl Agent {
    /// Reads the files again that the agent was started with, and makes its bonds what they say.
    ///
    /// A file system that does not answer delays other reloads only: files are read before the agent's locks are taken.
    pub async fn reload(self: &Arc<Self>) -> Outcome {
        // The reload that reads first is the first to apply what it has read.
        let _turn = self.reloading.lock().await;
        notify::reloading();
        let outcome = match self.read_again().await {
            Ok((config, access)) => self.become_what_was_read(config, access).await,
            Err(error) => {
                warn!("{error}");
                Outcome::failed(&error)
            }
        };
        notify::ready();
        outcome
    }

    async fn become_what_was_read(self: &Arc<Self>, config: Config, access: Access) -> Outcome {
        let phase = self.phase.lock().await;
        if *phase == Phase::Ending {
            return Outcome::failed(&Stopping.into());
        }
        let mut outcome = Outcome::default();
        if access != self.access() {
            outcome.changed(access.to_string());
        }
        self.set_access(access);
        self.move_metrics(config.metrics.as_ref(), &mut outcome);
        if let Err(stopping) = self.become_as(config, &mut outcome).await {
            outcome.failures.push(stopping.to_string());
        }
        if outcome.changes.is_empty() && outcome.failures.is_empty() {
            info!("reload: the files say what is there already");
        }
        outcome
    }

    async fn read_again(&self) -> Result<(Config, Access), AgentError> {
        let source = self.source.clone().ok_or(AgentError::NoFiles)?;
        let writers = self.writers.clone();
        let read = move || {
            let config = source.read()?;
            let access = Access::of(writers.as_ref().or(config.writers.as_ref()))?;
            Ok((config, access))
        };
        // Files and the database of groups may be slow.
        tokio::task::spawn_blocking(read).await.map_err(|_| Stopping)?
    }

    async fn become_as(&self, config: Config, outcome: &mut Outcome) -> Result<(), Stopping> {
        self.forget_lost_but(&config).await;
        let named: HashSet<_> = config.bonds.iter().map(|bond| bond.name.clone()).collect();
        let released = self.to_be_released(&config).await?;
        let (mut plans, mut new, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in config.bonds {
            let name = &wanted.name.clone();
            match self.find(name) {
                None => new.push(wanted),
                Some(bond) => match self.plan(&bond, wanted, &released).await {
                    Ok(plan) => plans.push(plan),
                    Err(error) => outcome.fail(name, &error),
                },
            }
        }
        let is_gone = |(name, bond): &(BondName, Arc<Bond>)| bond.goal().of_files && !named.contains(name);
        gone.extend(self.all().into_iter().filter(is_gone).map(|(name, _)| name));

        // Interfaces that go from one bond to another are released by the first before the second wants them.
        for name in gone {
            let Some(bond) = self.bonds().remove(&name) else { continue };
            match self.take_down(&name, &bond).await {
                Ok(()) => outcome.changed(format!("{name}: down, no file has it any more")),
                Err(error) => outcome.fail(&name, &error),
            }
        }
        for plan in &plans {
            self.begin(plan, outcome).await;
        }
        for plan in plans {
            self.finish(plan, outcome).await;
        }
        for wanted in new {
            let (name, failures) = (wanted.name.clone(), outcome.failures.len());
            self.add_or_undo(wanted.clone(), MissingSlaves::Await, outcome).await;
            if let Some(bond) = self.find(&name) {
                bond.change_goal(|goal| goal.of_files = true);
            } else if let Some(why) = outcome.failures.get(failures).cloned() {
                self.remember_failed(wanted, why).await;
            }
        }
        Ok(())
    }

    /// Names of interfaces that are slaves, and will not be slaves of the same bond any more.
    async fn to_be_released(&self, config: &Config) -> Result<HashSet<String>, Stopping> {
        let mut released = HashSet::new();
        for (name, bond) in self.all() {
            let status = self.machine.engine.status(bond.id).await?;
            let goal = bond.goal();
            match config.bonds.iter().find(|wanted| wanted.name == name) {
                Some(wanted) => released.extend(goal.unwanted(wanted, &status)),
                None if goal.of_files => released.extend(status.slaves.into_iter().map(|slave| slave.name)),
                None => {}
            }
        }
        Ok(released)
    }

    /// What is to be done with a bond, or why it cannot be done.
    async fn plan(
        &self,
        bond: &Bond,
        wanted: BondConfig,
        released: &HashSet<String>,
    ) -> Result<Plan, AgentError> {
        let status = self.machine.engine.status(bond.id).await?;
        let name = &wanted.name;
        if let Some(what) = needs_another(bond, &wanted, &status) {
            return Err(AgentError::NeedsAnother { bond: name.to_string(), what });
        }
        let mut options = wanted.options.clone();
        let goal = bond.goal();
        if options.fail_over_mac == goal.config.options.fail_over_mac {
            // The bond may have another one than it was given: where its first slave cannot change its MAC.
            options.fail_over_mac = status.options.fail_over_mac;
        }
        let options_changed = differences(status.options.to_pairs(), options.to_pairs());
        let options = Some(options).filter(|_| !options_changed.is_empty());

        let (mut joins, mut later, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        let mut slave_options = Vec::new();
        let known = goal.slaves_named(wanted.slaves.iter().map(|slave| slave.name.as_str()), &status);
        for (slave, known) in wanted.slaves.iter().zip(known) {
            checks::check_queue(name, bond.queues, &slave.name, slave.options)?;
            if let Some(found) = known {
                self.check_slave(bond, slave, found).await?;
                let changed = differences(found.options.to_pairs(), slave.options.to_pairs());
                if !changed.is_empty() {
                    let (slave, options) = (found.name.clone(), slave.options);
                    slave_options.push(SlaveChange { slave, options, changed });
                }
            } else if released.contains(slave.name.as_str()) {
                later.push(slave.clone());
            } else {
                let plan = EnslavePlan { mac: None, mtu: DEFAULT_MTU, hook: bond.hook, unicast: Vec::new() };
                match join::observe(&self.machine, (&slave.name, Some(name)), &plan).await {
                    Ok(found) => {
                        checks::check_nic(slave, &found)?;
                        joins.push(slave.clone());
                    }
                    Err(AgentError::Sys(error)) if error.is_gone() => absent.push(slave.name.clone()),
                    Err(error) => return Err(error),
                }
            }
        }
        let leaves = goal.unwanted(&wanted, &status).collect();
        let on_exit = Some(wanted.on_exit).filter(|on_exit| *on_exit != goal.config.on_exit);
        let guard = Some(wanted.guard).filter(|guard| *guard != goal.config.guard);
        let host = self.plan_host(bond, &wanted).await?;
        Ok(Plan {
            wanted,
            options,
            options_changed,
            joins,
            later,
            absent,
            leaves,
            slave_options,
            on_exit,
            guard,
            host,
        })
    }

    /// What a slave is given when it is enslaved cannot be changed later.
    async fn check_slave(
        &self,
        bond: &Bond,
        wanted: &SlaveConfig,
        found: &SlaveStatus,
    ) -> Result<(), AgentError> {
        let goal = bond.goal();
        let before = goal.config.slaves.iter().find(|slave| slave.name == wanted.name);
        let had_mac = before.is_some_and(|slave| slave.mac.is_some());
        if wanted.mac.map_or(had_mac, |mac| mac != found.permanent_mac) {
            let (bond, slave) = (goal.config.name.to_string(), found.name.clone());
            return Err(AgentError::NeedsReleased { bond, slave, key: "mac" });
        }
        if let Some(hwaddr) = wanted.hwaddr.filter(|hwaddr| *hwaddr != found.permanent_mac) {
            let link = self.machine.devices.link_by_index(found.ifindex).await?;
            let known = before.is_some_and(|slave| slave.hwaddr == Some(hwaddr));
            if !known && link.permanent_mac != Some(hwaddr) {
                let (slave, found) = (found.name.clone(), found.permanent_mac);
                return Err(AgentError::OtherNic { slave, found, wanted: hwaddr });
            }
        }
        Ok(())
    }

    /// Addresses and routes that are not the file's stay: others may have put them there.
    async fn plan_host(&self, bond: &Bond, wanted: &BondConfig) -> Result<Option<HostPlan>, AgentError> {
        let goal = bond.goal();
        let before = &goal.config;
        if before.port.is_some() {
            return Ok(None);
        }
        let devices = &*self.machine.devices;
        let port = devices.link_by_index(bond.maps.bond().port_ifindex()).await?;
        let ifindex = match (port.link, port.link_netns) {
            (Some(ifindex), None) => ifindex,
            _ => {
                let changes = [
                    ("mtu", before.mtu != wanted.mtu),
                    ("addresses", before.addresses != wanted.addresses),
                    ("routes", before.routes != wanted.routes),
                ];
                let bond = || wanted.name.to_string();
                return match changes.into_iter().find(|(_, changed)| *changed) {
                    Some((what, _)) => Err(AgentError::Elsewhere { bond: bond(), what }),
                    None => Ok(None),
                };
            }
        };
        let LinkInfo { name: device, mtu, .. } = devices.link_by_index(ifindex).await?;
        let mut plan = HostPlan { ifindex, device, ..HostPlan::default() };
        // Without a word of the file's the MTU is whoever's who has set it, unless the file had a word before.
        let word = wanted.mtu.or(before.mtu.and(Some(DEFAULT_MTU)));
        if let Some(mtu) = word {
            Kernel::check(bond.hook, mtu)?;
        }
        plan.mtu = word.filter(|word| *word != mtu).map(|word| (word, mtu));
        checks::check_ipv6(wanted, word.unwrap_or(mtu))?;

        let present = devices.addresses_of(ifindex).await?;
        let is_there = |net: &IpNet| present.iter().any(|found| found.is_same(&address(ifindex, net)));
        let is_wanted = |net: &IpNet| wanted.addresses.contains(net);
        plan.new_addresses = wanted.addresses.iter().copied().filter(|net| !is_there(net)).collect();
        let old = before.addresses.iter().copied();
        plan.old_addresses = old.filter(|net| !is_wanted(net) && is_there(net)).collect();

        let present = devices.routes_of(ifindex).await?;
        let there = |route: &KernelRoute| present.iter().find(|found| found.has_same_key(route));
        let over = |route| route_over(ifindex, route);
        let routes: Vec<_> = wanted.routes.iter().map(over).collect();
        let old = before.routes.iter().map(over);
        plan.old_routes = old
            .filter(|old| there(old).is_some() && !routes.iter().any(|new| new.has_same_key(old)))
            .collect();
        let is_new = |route: &KernelRoute| there(route).is_none_or(|found| found.via != route.via);
        plan.new_routes = routes.into_iter().filter(is_new).collect();
        Ok(Some(plan))
    }

    /// Options come first, which may say who is to take over, and slaves before others go.
    async fn begin(&self, plan: &Plan, outcome: &mut Outcome) {
        let name = &plan.wanted.name;
        if let Some(options) = &plan.options {
            match self.replace_options(name, options).await {
                Ok(()) => say(outcome, name, &plan.options_changed),
                Err(error) => outcome.fail(name, &error),
            }
        }
        if let Some(guard) = plan.guard {
            match self.set_guard(name, guard).await {
                Ok(before) => outcome.changed(format!("{name}: guard={guard} (was {before})")),
                Err(error) => outcome.fail(name, &error),
            }
        }
        for slave in &plan.joins {
            self.enslave_wanted(name, slave, outcome).await;
        }
        for SlaveChange { slave, options, changed } in &plan.slave_options {
            match self.replace_slave_options(name, slave, *options).await {
                Ok(()) => say(outcome, &format!("{name}: {slave}"), changed),
                Err(error) => outcome.fail(name, &error),
            }
        }
        for slave in &plan.leaves {
            match self.del_slave(name, slave).await {
                Ok(()) => outcome.changed(format!("{name}: {slave}: released")),
                Err(error) => outcome.fail(name, &error),
            }
        }
    }

    async fn finish(&self, plan: Plan, outcome: &mut Outcome) {
        let Plan { wanted, later, absent, on_exit, host, .. } = plan;
        for slave in &later {
            self.enslave_wanted(&wanted.name, slave, outcome).await;
        }
        let failures = outcome.failures.len();
        if let Some(host) = host {
            self.change_host(&wanted, &host, outcome).await;
        }
        let host_failed = outcome.failures.len() > failures;
        let Some(bond) = self.find(&wanted.name) else { return };
        let _turn = bond.turn.lock().await;
        let Ok(status) = self.machine.engine.status(bond.id).await else { return };
        let goal = bond.goal();
        let awaited = |slave: &str| goal.wanted.iter().any(|wanted| wanted.name() == slave);
        for slave in absent.iter().filter(|slave| !awaited(slave)) {
            outcome.changed(format!("{}: {slave}: absent, joins when it appears", wanted.name));
        }
        if let Some(on_exit) = on_exit {
            outcome.changed(format!("{}: on_exit={on_exit} (was {})", wanted.name, goal.config.on_exit));
        }
        let before = &goal.config;
        bond.change_goal(|goal| {
            goal.want(&wanted.slaves, &status);
            goal.of_files = true;
            goal.config = wanted.clone();
            if host_failed {
                // The next reload takes away what this one could not.
                goal.config.addresses.extend(before.addresses.iter().copied());
                goal.config.routes.extend(before.routes.iter().cloned());
            }
        });
        if wanted != (BondConfig { origin: wanted.origin.clone(), ..before.clone() }) {
            for note in wanted.notes.iter().chain(&wanted.doubts()) {
                info!("{note}");
                outcome.notes.push(note.to_string());
            }
        }
    }

    async fn enslave_wanted(&self, name: &BondName, slave: &SlaveConfig, outcome: &mut Outcome) {
        let answer = match self.find(name) {
            Some(bond) => {
                let _turn = bond.turn.lock().await;
                join::join(&self.machine, bond.joining(name), slave).await
            }
            None => Err(AgentError::NoSuchBond(name.to_string())),
        };
        match answer {
            Ok(_) => outcome.changed(format!("{name}: {}: enslaved", slave.name)),
            Err(error) => outcome.fail(name, &error),
        }
    }

    async fn replace_options(&self, name: &str, options: &BondOptions) -> Result<(), AgentError> {
        let bond = self.find(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        let _turn = bond.turn.lock().await;
        self.set_options(&bond, options.clone()).await
    }

    async fn replace_slave_options(
        &self,
        name: &str,
        slave: &str,
        options: SlaveOptions,
    ) -> Result<(), AgentError> {
        let bond = self.find(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        Ok(self.machine.engine.request(bond.id, Event::SetSlaveOptions { slot, options }).await??)
    }

    /// Changes bond0's device, with what is on it by a configuration on record before it is there, and until it is gone.
    async fn change_host(&self, wanted: &BondConfig, plan: &HostPlan, outcome: &mut Outcome) {
        let name = &wanted.name;
        let Some(bond) = self.find(name) else { return };
        let there = configured::configured(plan.ifindex, wanted);
        let before = configured::configured(plan.ifindex, &bond.goal().config);
        if let Err(error) = configured::record_configured(&bond.effects, there.clone().and(&before)).await {
            return outcome.fail(name, &error);
        }
        let failures = outcome.failures.len();
        self.set_up_host(wanted, plan, outcome).await;
        if outcome.failures.len() == failures
            && let Err(error) = configured::record_configured(&bond.effects, there).await
        {
            outcome.fail(name, &error);
        }
    }

    /// New addresses and routes come before old ones go.
    async fn set_up_host(&self, wanted: &BondConfig, plan: &HostPlan, outcome: &mut Outcome) {
        let (name, devices) = (&wanted.name, &self.machine.devices);
        if let Some((mtu, before)) = plan.mtu {
            match self.set_mtu(name, mtu).await {
                Ok(()) => outcome.changed(format!("{name}: mtu={mtu} (was {before})")),
                Err(error) => outcome.fail(name, &error),
            }
        }
        for net in &plan.new_addresses {
            match devices.add_address(&address(plan.ifindex, net)).await {
                Ok(()) => outcome.changed(format!("{name}: address {net}: added")),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        for route in &plan.new_routes {
            match devices.replace_route(route).await {
                Ok(()) => outcome.changed(format!("{name}: route {route}: set")),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        for route in &plan.old_routes {
            match devices.del_route(route).await {
                Ok(()) => outcome.changed(format!("{name}: route {route}: removed")),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        if plan.old_addresses.is_empty() {
            return;
        }
        let _others_stay = PromoteSecondaries::of(&**devices, &plan.device);
        for net in &plan.old_addresses {
            match devices.del_address(&address(plan.ifindex, net)).await {
                Ok(()) => outcome.changed(format!("{name}: address {net}: removed")),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        // Where they could not be told to stay, and for routes that had a deleted address as their source.
        for net in &wanted.addresses {
            if let Err(error) = devices.add_address(&address(plan.ifindex, net)).await {
                outcome.fail(name, &error.into());
            }
        }
        for route in &wanted.routes {
            if let Err(error) = devices.replace_route(&route_over(plan.ifindex, route)).await {
                outcome.fail(name, &error.into());
            }
        }
    }

    /// The former one is the answer.
    async fn set_guard(&self, name: &str, guard: Guard) -> Result<Guard, AgentError> {
        let bond = self.find(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        let _turn = bond.turn.lock().await;
        let options = self.machine.engine.status(bond.id).await?.options;
        bond.effects.send(Effect::SetGuard(guard));
        bond.effects.send(Effect::Options(Box::new(options)));
        Ok(bond.change_goal(|goal| std::mem::replace(&mut goal.config.guard, guard)))
    }

    async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), AgentError> {
        let (reply, done) = oneshot::channel();
        let bond = self.find(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        bond.effects.send(Effect::SetMtu { mtu, reply });
        done.await.map_err(|_| Stopping)?
    }
}

impl Goal {
    /// Names of its slaves that would not be its slaves any more.
    fn unwanted<'a>(
        &'a self,
        wanted: &'a BondConfig,
        status: &'a BondStatus,
    ) -> impl Iterator<Item = String> + 'a {
        let known = self.slaves_named(wanted.slaves.iter().map(|slave| slave.name.as_str()), status);
        let kept: HashSet<_> = known.into_iter().flatten().map(|slave| slave.ifindex).collect();
        status
            .slaves
            .iter()
            .filter(move |slave| !kept.contains(&slave.ifindex))
            .map(|slave| slave.name.clone())
    }
}

/// What of a configuration takes another bond, in words, if anything does.
fn needs_another(bond: &Bond, wanted: &BondConfig, status: &BondStatus) -> Option<&'static str> {
    let goal = bond.goal();
    let before = &goal.config;
    let hook = |config: &BondConfig| effects::hook(config.datapath, config.port.is_some());
    let slaves = if status.slaves.is_empty() { Slaves::None } else { Slaves::Present };
    let policy = |options: &BondOptions| options.check_change(&wanted.options, slaves).is_err();
    let recreates = |key: &str| match key {
        "datapath" => hook(before) != hook(wanted),
        "pair" => !checks::fits(wanted.pair, bond.pair),
        _ => true,
    };
    let settings = before.settings_that_differ(wanted).filter(|row| row.change == Change::Recreate);
    settings
        .map(|row| row.key)
        .find(|key| recreates(key))
        .or_else(|| (policy(&before.options) && policy(&status.options)).then_some("fail_over_mac"))
}

fn differences(before: Vec<(&'static str, String)>, after: Vec<(&'static str, String)>) -> Vec<Setting> {
    let changed =
        |((key, after), (_, before)): (_, (_, String))| (after != before).then_some((key, after, before));
    after.into_iter().zip(before).filter_map(changed).collect()
}

/// A line for each option.
fn say(outcome: &mut Outcome, of: &str, changed: &[Setting]) {
    let word = |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
    for (key, after, before) in changed {
        outcome.changed(format!("{of}: {key}={} (was {})", word(after), word(before)));
    }
}

fn address(ifindex: u32, net: &IpNet) -> Address {
    Address::new(ifindex, net.addr(), net.prefix_len())
}
