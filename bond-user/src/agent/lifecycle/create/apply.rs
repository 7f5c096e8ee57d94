//! Doing what a plan says. Each change is on disk, in found.json, before it is made.

use bond_common::{abi::BondEntry, mac::Mac};
use nix::errno::Errno;

use super::{
    Created,
    plan::{CreatePlan, CreateStep, Foundation, Giver, PlannedSide, enslave_plan},
};
use crate::{
    agent::{
        AgentError,
        bond::{engine_handle::BondId, guard::GuardState, interface::Host, worker},
        lifecycle::{
            checks::check_queue,
            configured::{configure, configured},
            join,
            machine::Machine,
            move_addresses::Moved,
            port::port_of,
            start::{Plane, Started, start},
        },
        queues::Queues,
    },
    config::BondConfig,
    report::{log, wording},
    store::record::{Ends, Record},
    sys::{
        alias::Mark,
        announcer::Announced,
        dataplane::{Hook, Port},
        enslave::EnslavePlan,
        found::Found,
        netlink::{self, LinkSetting, PairKind, PairPlan},
        offload::{self, Role},
    },
};

/// Creates the bond of this plan. If it fails, or is dropped half-way, [`crate::store::record::undo`] restores everything.
///
/// # Errors
/// A step failed. The steps before it stay for the undo.
pub async fn apply(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    plan: CreatePlan,
) -> Result<Created, AgentError> {
    let CreatePlan { foundation, steps, warnings, wanted } = plan;
    warnings.iter().for_each(|warning| log::of(&config.name).warn(warning));
    let (plane, side) = lay(machine, config, &foundation).await?;
    let maps = plane.data_plane.mirror().maps().clone();
    let started = start(machine, id, config, plane)?;
    for note in config.notes.iter().chain(&config.doubts()) {
        log::of(&config.name).info(note);
    }
    let moved = moved(config, &foundation, side.host);
    let bond = Building { machine, id, config, host: side.host, started: &started, moved };
    for step in &steps {
        bond.take(step).await?;
    }
    let Side { host, pair, port_name: port, queues, .. } = side;
    Ok(Created { hook: foundation.hook, queues, host, pair, port, maps, started, wanted })
}

/// What goes from the giver to bond0.
fn moved(config: &BondConfig, foundation: &Foundation, host: Host) -> Option<(Moved, Giver)> {
    let giver = foundation.giver.as_ref()?;
    let moved = Moved::of([&giver.from], &config.name, (host.device(), foundation.mac))?;
    Some((moved, giver.clone()))
}

/// A bond that has its engine.
struct Building<'a> {
    machine: &'a Machine,
    id: BondId,
    config: &'a BondConfig,
    host: Host,
    started: &'a Started,
    moved: Option<(Moved, Giver)>,
}

impl Building<'_> {
    async fn take(&self, step: &CreateStep) -> Result<(), AgentError> {
        let Self { machine, id, config, started, .. } = *self;
        let devices = &*machine.devices;
        match step {
            CreateStep::MoveAddresses => match &self.moved {
                Some((moved, giver)) => {
                    moved.take_addresses(devices, &giver.rules, &Mark::of(&config.name)).await
                }
                None => Ok(()),
            },
            CreateStep::Enslave { slave, found } => {
                join::enslave(machine, (&config.name, id), (slave, (**found).clone()), None).await
            }
            CreateStep::MoveRoutes => match &self.moved {
                Some((moved, _)) => moved.take_routes(devices).await,
                None => Ok(()),
            },
            CreateStep::Configure => {
                let bond = self.host.device();
                configure(devices, bond, config).await?;
                started.work.check(|pending| pending.addresses.insert(bond));
                Ok(())
            }
            CreateStep::Settle => join::settle(machine, id, &started.work).await,
        }
    }
}

/// Makes what a bond stands on.
async fn lay(
    machine: &Machine,
    config: &BondConfig,
    foundation: &Foundation,
) -> Result<(Plane, Side), AgentError> {
    let Foundation { hook, mtu, queues, mac, .. } = *foundation;
    machine.paths.make_run_of(&config.name)?;
    let record = Record::new(&machine.paths, &config.name, foundation.shape());
    let mut record = record.on_trial(machine.confirmation.of_new_bond());
    record.save()?;
    let mut data_plane = machine.planes.create(&machine.paths.pins_of(&config.name), hook)?;
    machine.paths.link_pins(&config.name);
    let side = make_side(machine, config, foundation, &mut record).await?;
    if side.queues != queues {
        record.set_queues(side.queues.count())?;
        for slave in &config.slaves {
            check_queue(&config.name, side.queues, &slave.name, slave.options)?;
        }
    }
    let bond = side.pair.map(|_| foundation.device.as_str());
    data_plane.attach_port(&side.place(bond))?;
    if let Host::Port { port, .. } = side.host {
        machine.devices.open_slave(port).await?;
    }
    if side.pair.is_none() && hook != Hook::Tc && machine.devices.has_peer_on_this_machine(side.host.port()) {
        log::of(&config.name).slave(&side.port_name).info(format_args!(
            "{}: {}",
            side.port_name,
            wording::PARTIAL_CHECKSUMS
        ));
    }
    let options = config.options.clone();
    let guard = GuardState::new(config.guard, &machine.kernel, &options);
    let entry = BondEntry::new(options.fail_over_mac, side.host.port(), side.host_mac, machine.cookie)
        .with_host_device(side.host_device)
        .with_flags(side.flags | of_host_mac(config) | worker::option_flags(&options, guard));
    data_plane.mirror().update_bond(|_| entry);
    if let Host::Pair { bond, .. } = side.host {
        record.set_configured(configured(bond, config))?;
    }
    if let Some(Giver { from, rules }) = &foundation.giver {
        record.add_giver(from.clone(), rules)?;
    }
    if foundation.carrier {
        machine.devices.set(side.host.port(), LinkSetting::Up(true)).await?;
    }
    let plane = Plane {
        data_plane,
        host: side.host,
        mtu,
        mac,
        mac_assigned: foundation.mac_assigned,
        options,
        record,
        announced: Announced::default(),
        carrier: foundation.carrier,
        left: None,
    };
    Ok((plane, side))
}

/// Returns the flag of [`BondEntry`] that follows from `host_mac`.
fn of_host_mac(config: &BondConfig) -> u32 {
    if config.keeps_mac() { BondEntry::HOST_MAC_STAYS } else { 0 }
}

/// Makes bond0 and its port, or takes the port that exists.
async fn make_side(
    machine: &Machine,
    config: &BondConfig,
    foundation: &Foundation,
    record: &mut Record,
) -> Result<Side, AgentError> {
    let Foundation { hook, mtu, queues, mac, .. } = *foundation;
    let mark = record.mark();
    match &foundation.side {
        PlannedSide::Pair { names, kinds } => {
            let (bond, port) = (foundation.device.as_str(), names.port.as_str());
            let plan = PairPlan { bond, port, mac, mtu, queues: queues.count().into(), mark: Some(&mark) };
            let side = make_pair(machine, &plan, kinds, (hook, queues)).await?;
            record.made(Ends { bond: side.host.device(), port: side.host.port() })?;
            Ok(side)
        }
        PlannedSide::Port { found, host_mac } => {
            take_port(machine, found, &enslave_plan(config), (&mark, *host_mac)).await
        }
    }
}

/// A bond's side that is not the wire, as it was made.
struct Side {
    host: Host,
    pair: Option<PairKind>,
    port_name: String,
    /// As they can be used.
    queues: Queues,
    host_mac: Mac,
    host_device: u64,
    /// Of [`BondEntry`].
    flags: u32,
}

impl Side {
    fn place<'a>(&'a self, bond: Option<&'a str>) -> Port<'a> {
        port_of(&self.port_name, self.host, self.pair, bond)
    }
}

/// Makes a pair of the first of these kinds that the kernel has.
async fn create_pair(
    machine: &Machine,
    plan: &PairPlan<'_>,
    kinds: &[PairKind],
) -> Result<(PairKind, netlink::LinkPair), AgentError> {
    let lacks = || AgentError::NoNetkit(plan.bond.to_owned());
    let (&last, others) = kinds.split_last().ok_or_else(lacks)?;
    for &kind in others {
        match machine.devices.create_pair(kind, plan).await {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {}
            answer => return Ok((kind, answer?)),
        }
    }
    match machine.devices.create_pair(last, plan).await {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) && last == PairKind::Netkit => Err(lacks()),
        answer => Ok((last, answer?)),
    }
}

async fn make_pair(
    machine: &Machine,
    plan: &PairPlan<'_>,
    kinds: &[PairKind],
    (hook, queues): (Hook, Queues),
) -> Result<Side, AgentError> {
    let (kind, made) = create_pair(machine, plan, kinds).await?;
    offload::apply(&*machine.devices, &made.bond, Role::Bond, hook)?;
    offload::apply(&*machine.devices, &made.port, Role::Port, hook)?;
    let mut queues = queues;
    if queues == Queues::Sixteen
        && let Err(error) = machine.devices.send_by_first_queue(plan.bond)
    {
        // The kernel's hash spreads flows over the queues now. Programs that take all queues for one do not mind.
        log::of(plan.bond).warn(wording::no_queue_ids(&error));
        queues = Queues::One;
    }
    let (bond, port) = (made.bond.ifindex, made.port.ifindex);
    let device = machine.reader.as_ref().and_then(|reader| reader.read(bond).ok().flatten());
    Ok(Side {
        host: Host::Pair { bond, port, promisc: false },
        pair: Some(kind),
        port_name: plan.port.to_owned(),
        queues,
        host_mac: plan.mac,
        host_device: device.map_or(0, |state| state.handle().device()),
        flags: [
            (queues == Queues::Sixteen, BondEntry::QUEUE_IDS),
            (kind == PairKind::Netkit, BondEntry::NETKIT),
        ]
        .into_iter()
        .fold(0, |flags, (on, flag)| if on { flags | flag } else { flags }),
    })
}

/// An existing device becomes the port: like a slave, it takes everything in and has no addresses. It stays closed until its
/// program is attached.
async fn take_port(
    machine: &Machine,
    found: &Found,
    plan: &EnslavePlan,
    (mark, host_mac): (&Mark, Option<Mac>),
) -> Result<Side, AgentError> {
    let link = machine.devices.enslave(found, plan, mark).await?;
    machine.devices.set(link.ifindex, LinkSetting::Promisc(true)).await?;
    Ok(Side {
        host: Host::Port { port: link.ifindex, promisc: false },
        pair: None,
        port_name: link.name,
        queues: Queues::OfPort,
        host_mac: host_mac.unwrap_or(Mac::ZERO),
        host_device: 0,
        flags: if host_mac.is_some() { 0 } else { BondEntry::LEARN_HOST_MAC },
    })
}
