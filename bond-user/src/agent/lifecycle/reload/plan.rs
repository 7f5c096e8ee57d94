//! What becomes of a bond that is there and stays: decided from what is wanted and what was observed, without a system call.

use std::collections::HashSet;

use bond_core::{
    damping::Damping,
    name::InterfaceName,
    options::{BondOptions, SlaveOptions, Slaves},
    status::{BondStatus, SlaveStatus},
    watch::Watch,
};
use ipnet::IpNet;

use super::observe::{ReloadFacts, SeenHost, SeenSlave};
use crate::{
    agent::{
        AgentError, Goal,
        bond::worker,
        lifecycle::{DEFAULT_MTU, checks, configured::route_over},
    },
    config::{BondConfig, Change, Guard, OnExit, SlaveConfig, WantedClock, WantedPath},
    sys::netlink::{Address, KernelRoute},
};

/// What is to be done.
#[derive(Debug, PartialEq)]
pub struct ReloadPlan {
    pub wanted: BondConfig,
    pub options: Option<BondOptions>,
    pub options_changed: Vec<Setting>,
    /// Interfaces that can be enslaved now.
    pub joins: Vec<SlaveConfig>,
    /// Those that another bond has to release first.
    pub later: Vec<SlaveConfig>,
    /// Names of slaves that no interface has.
    pub absent: Vec<InterfaceName>,
    /// Names that the interfaces have now.
    pub leaves: Vec<String>,
    pub slave_options: Vec<SlaveOptionChange>,
    pub on_exit: Option<OnExit>,
    pub guard: Option<Guard>,
    pub clock: Option<WantedClock>,
    /// The path monitor is to run differently.
    pub path: Option<WantedPath>,
    /// The new settings of damping.
    pub damping: Option<Option<Damping>>,
    /// What slaves need to count as up from now on.
    pub watch: Option<Option<Watch>>,
    pub host: Option<HostPlan>,
}

/// An option's key, and its values after and before.
pub type Setting = (&'static str, String, String);

#[derive(Debug, PartialEq)]
pub struct SlaveOptionChange {
    /// The name that its interface has now.
    pub slave: String,
    pub options: SlaveOptions,
    pub changed: Vec<Setting>,
}

/// What becomes of bond0's device.
#[derive(Debug, Default, PartialEq)]
pub struct HostPlan {
    pub ifindex: u32,
    /// The name that it has now.
    pub device: String,
    /// Bytes, after and before.
    pub mtu: Option<(u32, u32)>,
    pub new_addresses: Vec<IpNet>,
    pub old_addresses: Vec<IpNet>,
    pub new_routes: Vec<KernelRoute>,
    pub old_routes: Vec<KernelRoute>,
}

/// Decides what is to be done with a bond.
///
/// # Errors
/// What cannot be done while the bond is there: nothing of it is changed then.
pub fn plan(wanted: BondConfig, observed: ReloadFacts) -> Result<ReloadPlan, AgentError> {
    let name = &wanted.name;
    if let Some(what) = needs_another(&observed, &wanted) {
        return Err(AgentError::NeedsAnother { bond: name.to_string(), what });
    }
    let ReloadFacts { status, goal, queues, slaves, host, .. } = observed;
    let mut options = wanted.options.clone();
    if options.fail_over_mac == goal.config.options.fail_over_mac {
        // The bond may have another one than it was given: where its first slave cannot change its MAC.
        options.fail_over_mac = status.options.fail_over_mac;
    }
    let options_changed = differences(status.options.to_pairs(), options.to_pairs());
    let options = Some(options).filter(|_| !options_changed.is_empty());
    let (mut joins, mut later, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    let mut slave_options = Vec::new();
    for (slave, seen) in wanted.slaves.iter().zip(slaves) {
        checks::check_queue(name, queues, &slave.name, slave.options)?;
        match seen {
            SeenSlave::Member { place, permanent_mac } => {
                let Some(found) = status.slaves.get(place) else { continue };
                check_slave(&goal, slave, (found, permanent_mac))?;
                let changed = differences(found.options.to_pairs(), slave.options.to_pairs());
                if !changed.is_empty() {
                    let (slave, options) = (found.name.clone(), slave.options);
                    slave_options.push(SlaveOptionChange { slave, options, changed });
                }
            }
            SeenSlave::Taken => later.push(slave.clone()),
            SeenSlave::Free(Ok(found)) => {
                checks::check_nic(slave, &found)?;
                joins.push(slave.clone());
            }
            SeenSlave::Free(Err(AgentError::Sys(error))) if error.is_gone() => {
                absent.push(slave.name.clone())
            }
            SeenSlave::Free(Err(error)) => return Err(error),
        }
    }
    let leaves = goal.unwanted(&wanted, &status).collect();
    let host = plan_host(&goal.config, &wanted, host)?;
    let known = &goal.config;
    Ok(ReloadPlan {
        on_exit: other(wanted.on_exit, &known.on_exit),
        guard: other(wanted.guard, &known.guard),
        clock: other(WantedClock::of(&wanted), &WantedClock::of(known)),
        path: other(WantedPath::of(&wanted), &WantedPath::of(known)),
        damping: other(wanted.damping, &known.damping),
        watch: other(wanted.watch, &known.watch),
        wanted,
        options,
        options_changed,
        joins,
        later,
        absent,
        leaves,
        slave_options,
        host,
    })
}

/// Returns what is wanted if it is another one than is known.
fn other<T: PartialEq>(wanted: T, known: &T) -> Option<T> {
    (wanted != *known).then_some(wanted)
}

/// What a slave is given when it is enslaved cannot be changed later.
fn check_slave(
    goal: &Goal,
    wanted: &SlaveConfig,
    (found, permanent_mac): (&SlaveStatus, Option<bond_common::mac::Mac>),
) -> Result<(), AgentError> {
    let before = goal.config.slaves.iter().find(|slave| slave.name == wanted.name);
    let had_mac = before.is_some_and(|slave| slave.mac.is_some());
    if wanted.mac.map_or(had_mac, |mac| mac != found.permanent_mac) {
        let (bond, slave) = (goal.config.name.to_string(), found.name.clone());
        return Err(AgentError::NeedsReleased { bond, slave, key: "mac" });
    }
    if let Some(hwaddr) = wanted.hwaddr.filter(|hwaddr| *hwaddr != found.permanent_mac) {
        let known = before.is_some_and(|slave| slave.hwaddr == Some(hwaddr));
        if !known && permanent_mac != Some(hwaddr) {
            let (slave, found) = (found.name.clone(), found.permanent_mac);
            return Err(AgentError::OtherNic { slave, found, wanted: hwaddr });
        }
    }
    Ok(())
}

/// The MTU that bond0 is to have, in bytes. If the file has none, it is the one that is set, unless the file
/// had a word before.
pub fn wanted_mtu(before: &BondConfig, wanted: &BondConfig) -> Option<u32> {
    wanted.mtu.or(before.mtu.and(Some(DEFAULT_MTU)))
}

/// Plans what a reload changes on bond0. Addresses and routes that are not the file's are kept: another program may
/// have added them.
///
/// # Errors
/// The MTU does not fit a slave or the IPv6 addresses, or bond0 is in another network namespace and would have to
/// change.
pub fn plan_host(
    before: &BondConfig,
    wanted: &BondConfig,
    host: SeenHost,
) -> Result<Option<HostPlan>, AgentError> {
    let (ifindex, device, mtu, addresses, present) = match host {
        SeenHost::None => return Ok(None),
        SeenHost::Elsewhere => return refuse_elsewhere(before, wanted).map(|()| None),
        SeenHost::Here { ifindex, device, mtu, addresses, routes, mtu_fits } => {
            mtu_fits?;
            (ifindex, device, mtu, addresses, routes)
        }
    };
    let mut plan = HostPlan { ifindex, device, ..HostPlan::default() };
    let word = wanted_mtu(before, wanted);
    plan.mtu = word.filter(|word| *word != mtu).map(|word| (word, mtu));
    checks::check_ipv6(wanted, word.unwrap_or(mtu))?;

    let is_there = |net: &IpNet| addresses.iter().any(|found| found.is_same(&address(ifindex, net)));
    let is_wanted = |net: &IpNet| wanted.addresses.contains(net);
    plan.new_addresses = wanted.addresses.iter().copied().filter(|net| !is_there(net)).collect();
    let old = before.addresses.iter().copied();
    plan.old_addresses = old.filter(|net| !is_wanted(net) && is_there(net)).collect();

    let there = |route: &KernelRoute| present.iter().find(|found| found.has_same_key(route));
    let over = |route| route_over(ifindex, route);
    let routes: Vec<_> = wanted.routes.iter().map(over).collect();
    let old = before.routes.iter().map(over);
    plan.old_routes =
        old.filter(|old| there(old).is_some() && !routes.iter().any(|new| new.has_same_key(old))).collect();
    let is_new = |route: &KernelRoute| there(route).is_none_or(|found| found.via != route.via);
    plan.new_routes = routes.into_iter().filter(is_new).collect();
    Ok(Some(plan))
}

/// A bond0 in another network namespace cannot be changed from here.
fn refuse_elsewhere(before: &BondConfig, wanted: &BondConfig) -> Result<(), AgentError> {
    let changes = [
        ("mtu", before.mtu != wanted.mtu),
        ("addresses", before.addresses != wanted.addresses),
        ("routes", before.routes != wanted.routes),
    ];
    match changes.into_iter().find(|(_, changed)| *changed) {
        Some((what, _)) => Err(AgentError::Elsewhere { bond: wanted.name.to_string(), what }),
        None => Ok(()),
    }
}

impl Goal {
    /// Names of its slaves that would not be its slaves any more.
    pub(super) fn unwanted<'a>(
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
fn needs_another(observed: &ReloadFacts, wanted: &BondConfig) -> Option<&'static str> {
    let ReloadFacts { status, goal, pair, .. } = observed;
    let before = &goal.config;
    let hook = |config: &BondConfig| worker::hook(config.datapath, config.port.is_some());
    let slaves = if status.slaves.is_empty() { Slaves::None } else { Slaves::Present };
    let policy = |options: &BondOptions| options.check_change(&wanted.options, slaves).is_err();
    let recreates = |key: &str| match key {
        "datapath" => hook(before) != hook(wanted),
        "pair" => !checks::fits(wanted.pair, *pair),
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

pub fn address(ifindex: u32, net: &IpNet) -> Address {
    Address::new(ifindex, net.addr(), net.prefix_len())
}
