//! What of a bond is taken over: decided from what is wanted and what was observed, without a system call.

use bond_common::abi::{BondEntry, Slot};
use bond_core::options::{BondOptions, FailOverMac};

use super::{
    Misfit,
    observe::{AdoptFacts, LeftPins, SeenBond, SeenSlot},
};
use crate::{
    agent::{
        bond::{interface::Host, worker},
        lifecycle::checks,
        queues::Queues,
    },
    config::BondConfig,
    store::record::{Record, RecordedPair, Shape},
    sys::{
        dataplane::{Hook, Unfit},
        found::Found,
        netlink::{In6AddrGenMode, LinkInfo, LinkSetting, PairKind},
        ownership::Ownership,
    },
};

/// What becomes of what is left.
#[derive(Debug)]
pub enum AdoptPlan {
    Adopt(Box<Takeover>),
    /// It carries nothing: it is removed, and the bond is created.
    Remove(Remains),
}

/// Why what is left carries nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// It was not finished.
    Unfinished,
    /// Its port, of this name, does not exist in this network namespace.
    Portless(String),
}

/// A bond that is taken over: its port's program is replaced first, then these steps are taken, and then its engine starts.
#[derive(Debug)]
pub struct Takeover {
    pub hook: Hook,
    pub queues: Queues,
    pub host: Host,
    /// What bond0 and the port are made of, if they were made for the bond.
    pub made_of: Option<PairKind>,
    pub port: LinkInfo,
    /// bond0, where it is in this network namespace.
    pub bond: Option<LinkInfo>,
    /// Those that are wanted, with the policy that is in force.
    pub options: BondOptions,
    pub steps: Vec<AdoptStep>,
    /// What the kernel confirmed to be the bond's before anything was changed.
    pub proof: Ownership,
}

/// A step of taking a bond over.
#[derive(Clone, Debug, PartialEq)]
pub enum AdoptStep {
    /// Devices of a bond without aliases get them.
    GiveAliases,
    /// A slave's program is replaced. If it is not at its hook any more, the slave is restored.
    Replace { slot: Slot, found: Box<Found>, link: Box<LinkInfo> },
    /// A slave that was not set up to the end, or was away, is restored. It may join again.
    Restore { slot: Slot, found: Box<Found>, link: Box<LinkInfo> },
    /// A slave that is gone leaves. It has no name if it was about to be enslaved.
    Forget { slot: Slot, ifindex: u32, name: Option<String> },
    /// An interface that was changed, and is in no slot, is closed, if restoring it closes it: its program is about to go.
    CloseStray { found: Box<Found> },
    /// What may be left in a slot without a slave is removed: it was being released.
    Clear { slot: Slot },
    /// An interface that was changed, and is in no slot, is restored.
    RestoreStray { found: Box<Found> },
}

/// Decides what becomes of it.
///
/// # Errors
/// What does not fit: the bond keeps running without an agent.
pub fn plan(config: &BondConfig, cookie: u64, observed: &AdoptFacts) -> Result<AdoptPlan, Misfit> {
    let seen = match &observed.pinned {
        LeftPins::Whole(_, seen) => seen,
        // Version 0 is that of a map that was not written yet.
        LeftPins::Nothing | LeftPins::Unfit(Unfit::NoPort | Unfit::OtherVersion(0)) => {
            return Ok(AdoptPlan::Remove(Remains::Unfinished));
        }
        LeftPins::Unfit(Unfit::NoMap(name)) => return Err(Misfit::NoMap(name)),
        LeftPins::Unfit(Unfit::OtherVersion(found)) => return Err(Misfit::OtherVersion { found: *found }),
    };
    if seen.entry.port_ifindex() == 0 {
        // Its agent was killed before packets had a port.
        return Ok(AdoptPlan::Remove(Remains::Unfinished));
    }
    if seen.entry.netns_cookie() != cookie {
        return Err(Misfit::OtherNamespace);
    }
    plan_of(config, seen, observed.record.as_ref().ok_or(Misfit::NoRecord)?)
}

/// Plans the adoption of a bond whose creation was finished.
///
/// # Errors
/// The bond has another shape than its configuration wants, and adoption cannot change that ([`Misfit`]).
pub fn plan_of(config: &BondConfig, seen: &SeenBond, record: &Record) -> Result<AdoptPlan, Misfit> {
    let Shape { pair, port, datapath, queues } = record.shape();
    let portless = || {
        let made = pair.as_ref().map(|pair| pair.port.to_string());
        let name = made.or(port.as_ref().map(|port| port.name.clone()));
        Ok(AdoptPlan::Remove(Remains::Portless(name.unwrap_or_default())))
    };
    let Some(port_link) = &seen.port else { return portless() };
    let made_of = port_link.pair().filter(|_| pair.is_some());
    if pair.is_some() && made_of.is_none() {
        return portless();
    }
    let hook = worker::hook(config.datapath, config.port.is_some());
    same("datapath", Some(datapath), Some(hook.to_string()))?;
    same("port", port.as_ref().map(|port| port.name.clone()), config.port.clone().map(Into::into))?;
    let queues = match (&config.port, queues) {
        (Some(_), _) => Queues::OfPort,
        (None, 0 | 1) => Queues::One,
        (None, _) => Queues::Sixteen,
    };
    for slave in &config.slaves {
        checks::check_queue(&config.name, queues, &slave.name, slave.options)?;
    }
    if !checks::fits(config.pair, made_of) {
        same("pair", made_of.map(|kind| kind.to_string()), Some(config.pair.to_string()))?;
    }
    let Some(host) = host(pair.as_ref(), port_link, seen.bond.as_ref()) else { return portless() };
    if let Some(bond) = &seen.bond {
        checks::check_ipv6(config, config.mtu.unwrap_or(bond.mtu))?;
    }
    let slaves = slaves(seen, record);
    let options = policy(config, seen, slaves.is_empty())?;
    // A slave whose MAC the bond was to have may have been absent when the bond was created.
    let mac = config.mac_address().filter(|_| !slaves.is_empty());
    let keeps = config.keeps_mac() && options.fail_over_mac == FailOverMac::Active;
    let mac = mac.or(config.host_mac_address().filter(|_| keeps && !slaves.is_empty()));
    let used = slaves.first().map(|(seen, ..)| seen.entry.wire_mac()).filter(|_| mac.is_some());
    let used = used.map(|wire| if keeps { seen.entry.host_mac() } else { wire });
    if options.fail_over_mac == FailOverMac::Active && !slaves.is_empty() {
        let of_bond0 = |stays: bool| Some(if stays { "stable" } else { "the active slave's" }.to_owned());
        let found = seen.entry.has(BondEntry::HOST_MAC_STAYS);
        same("host_mac", of_bond0(found), of_bond0(config.keeps_mac()))?;
    }
    same("its MAC", used.map(|mac| mac.to_string()), mac.map(|mac| mac.to_string()))?;
    let proof = seen.proof.clone().ok_or(Misfit::NoRecord)?;
    let steps = steps(seen, record, &slaves);
    let (port, bond) = (port_link.clone(), seen.bond.clone());
    Ok(AdoptPlan::Adopt(Box::new(Takeover {
        hook,
        queues,
        host,
        made_of,
        port,
        bond,
        options,
        steps,
        proof,
    })))
}

fn same(what: &'static str, found: Option<String>, wanted: Option<String>) -> Result<(), Misfit> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    if found == wanted {
        return Ok(());
    }
    Err(Misfit::Differs { what, found: text(found), wanted: text(wanted) })
}

/// None if the port of a pair has no other end.
fn host(pair: Option<&RecordedPair>, port: &LinkInfo, bond: Option<&LinkInfo>) -> Option<Host> {
    match (pair, port.link) {
        (Some(_), Some(peer)) => {
            let promisc = bond.is_some_and(|bond| bond.promiscuity > 0);
            Some(Host::Pair { bond: peer, port: port.ifindex, promisc })
        }
        (Some(_), None) => None,
        (None, _) => Some(Host::Port { port: port.ifindex, promisc: false }),
    }
}

/// A slave that is there, as it was found.
type There<'a> = (&'a SeenSlot, &'a Found, &'a LinkInfo);

/// In the order in which they were enslaved.
fn slaves<'a>(seen: &'a SeenBond, record: &'a Record) -> Vec<There<'a>> {
    let there = |seen: &'a SeenSlot| Some((seen, record.slave(seen.entry.ifindex())?, seen.link.as_ref()?));
    let mut slaves: Vec<_> = seen.slots.iter().filter_map(there).collect();
    let place = |ifindex| record.slaves().iter().position(|found| found.ifindex == ifindex);
    slaves.sort_by_key(|(_, found, _)| place(found.ifindex));
    slaves
}

fn steps(seen: &SeenBond, record: &Record, slaves: &[There<'_>]) -> Vec<AdoptStep> {
    let mut steps = Vec::new();
    if !record.has_aliases() {
        steps.push(AdoptStep::GiveAliases);
    }
    for &(SeenSlot { slot, .. }, found, link) in slaves {
        let (slot, is_whole) = (*slot, is_set_up(found, link));
        let (found, link) = (Box::new(found.clone()), Box::new(link.clone()));
        steps.push(if is_whole {
            AdoptStep::Replace { slot, found, link }
        } else {
            AdoptStep::Restore { slot, found, link }
        });
    }
    let is_there = |slot| slaves.iter().any(|(seen, ..)| seen.slot == slot);
    for gone in seen.slots.iter().filter(|seen| !is_there(seen.slot)) {
        let ifindex = gone.entry.ifindex();
        let name = record.slave(ifindex).map(|found| found.name.clone());
        steps.push(AdoptStep::Forget { slot: gone.slot, ifindex, name });
    }
    let is_in_slot = |found: &&Found| seen.slots.iter().any(|seen| seen.entry.ifindex() == found.ifindex);
    let strays: Vec<_> = record.slaves().iter().filter(|found| !is_in_slot(found)).collect();
    steps.extend(strays.iter().map(|found| AdoptStep::CloseStray { found: Box::new(Found::clone(found)) }));
    let is_used = |slot: &Slot| seen.slots.iter().any(|seen| seen.slot == *slot);
    steps.extend(Slot::all().filter(|slot| !is_used(slot)).map(|slot| AdoptStep::Clear { slot }));
    steps.extend(strays.into_iter().map(|found| AdoptStep::RestoreStray { found: Box::new(found.clone()) }));
    steps
}

/// In another network namespace a device loses what it is with IPv6, and is closed: its set-up is not whole any more. Of one
/// whose set-up was not finished it is the opening that is missing.
fn is_set_up(found: &Found, link: &LinkInfo) -> bool {
    let is_prepared =
        found.addr_gen_mode.is_none() || LinkSetting::AddrGenMode(In6AddrGenMode::None).holds(link);
    let was_opened = found.allmulti || link.is_up() || LinkSetting::Allmulti(true).holds(link);
    is_prepared && was_opened
}

/// The options that are wanted, with the policy that is in force.
fn policy(config: &BondConfig, seen: &SeenBond, is_empty: bool) -> Result<BondOptions, Misfit> {
    let mut options = config.options.clone();
    let (found, wanted) = (seen.entry.policy(), options.fail_over_mac);
    if found == wanted || is_empty {
        return Ok(options);
    }
    // A first slave that cannot change its MAC turned the policy. It may have left since. A former version did not note it.
    let was_turned = seen.entry.has(BondEntry::POLICY_TURNED) || seen.has_fixed_mac;
    if found == FailOverMac::Active && was_turned {
        options.fail_over_mac = found;
        return Ok(options);
    }
    let name = |policy: FailOverMac| {
        let options = BondOptions { fail_over_mac: policy, ..BondOptions::default() };
        let pairs = options.to_pairs();
        pairs.into_iter().find(|(key, _)| *key == "fail_over_mac").map(|(_, value)| value).unwrap_or_default()
    };
    Err(Misfit::Differs { what: "fail_over_mac", found: name(found), wanted: name(wanted) })
}
