use bond_common::mac::Mac;
use bond_core::name::InterfaceName;

use super::{
    Manner, bring_up,
    observe::CreateFacts,
    plan::{CreatePlan, CreateStep, PlannedSide, plan},
};
use crate::{
    agent::{
        AgentError,
        bond::engine_handle::BondId,
        lifecycle::{
            end::{take_down, undo},
            testing::{Site, bond, busy, fail_each_call},
        },
    },
    api::MissingSlaves,
    sys::{
        SysError,
        found::Found,
        testing::{found, mac},
    },
};

const SPARE: Mac = mac(0xee);
const SLAVES: &str = "slaves = [\"nic0\", \"nic1\"]";

fn observed() -> CreateFacts {
    CreateFacts {
        slaves: vec![Ok(busy(3, "nic0", mac(1))), Ok(found(4, "nic1", mac(2)))],
        port_name: Some(Ok(InterfaceName::new("bond0-port").unwrap())),
        has_queues: true,
        has_tcx: true,
        ..CreateFacts::default()
    }
}

fn gone(name: &str) -> Result<Found, AgentError> {
    Err(SysError::NoSuchInterface(name.to_owned()).into())
}

/// `tc mtu 1500 queues 16 mac ... pair netkit/veth: enslave nic0, configure, settle; warnings`
fn shown(plan: &CreatePlan) -> String {
    let foundation = &plan.foundation;
    let side = match &foundation.side {
        PlannedSide::Pair { kinds, .. } => {
            format!("pair {}", kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join("/"))
        }
        PlannedSide::Port { found, host_mac } => format!("port {} {host_mac:?}", found.name),
    };
    let step = |step: &CreateStep| match step {
        CreateStep::MoveAddresses => "move addresses".to_owned(),
        CreateStep::Enslave { found, .. } => format!("enslave {}", found.name),
        CreateStep::MoveRoutes => "move routes".to_owned(),
        CreateStep::Configure => "configure".to_owned(),
        CreateStep::Settle => "settle".to_owned(),
    };
    let steps: Vec<_> = plan.steps.iter().map(step).chain(plan.warnings.iter().cloned()).collect();
    let (hook, mtu, queues) = (foundation.hook, foundation.mtu, foundation.queues.count());
    let assigned = if foundation.mac_assigned { " assigned" } else { "" };
    format!("{hook} {mtu} queues {queues} {}{assigned} {side}: {}", foundation.mac, steps.join(", "))
}

/// What a file says, what is different, whether slaves may be missing, and what is done.
type Row<'a> = (&'a str, &'a dyn Fn(&mut CreateFacts), MissingSlaves, &'a str);

fn check(rows: &[Row<'_>]) {
    for (lines, change, missing, expected) in rows {
        let mut observed = observed();
        change(&mut observed);
        let found = match plan(&bond(lines), &Manner::Usual(*missing), observed, SPARE) {
            Ok(plan) => shown(&plan),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, *expected, "{lines}");
    }
}

const AS_IS: &dyn Fn(&mut CreateFacts) = &|_| {};

#[test]
fn a_plan_has_the_steps_in_their_order() {
    use MissingSlaves::{Await, Refuse};
    let moving = format!("{SLAVES}\nmove_addresses = true");
    check(&[
        (
            SLAVES,
            AS_IS,
            Refuse,
            "tc 1500 queues 16 02:00:00:00:00:01 pair netkit/veth: enslave nic0, enslave nic1, configure, settle",
        ),
        (
            &moving,
            AS_IS,
            Await,
            "tc 1500 queues 16 02:00:00:00:00:01 pair netkit/veth: move addresses, enslave nic0, move routes, \
             enslave nic1, configure, settle",
        ),
        (
            // Of the first slave that has any.
            &moving,
            &|observed| observed.slaves.swap(0, 1),
            Await,
            "tc 1500 queues 16 02:00:00:00:00:01 pair netkit/veth: move addresses, enslave nic1, enslave nic0, \
             move routes, configure, settle",
        ),
        (
            "slaves = []",
            &|observed| observed.slaves.clear(),
            Await,
            "tc 1500 queues 16 02:00:00:00:00:ee pair netkit/veth: configure, settle",
        ),
        (
            "slaves = [\"nic0\", \"nic1\"]\nport = \"tap0\"",
            &|observed| observed.port = Some(Ok(found(5, "tap0", mac(3)))),
            Await,
            "xdp 1500 queues 1 02:00:00:00:00:01 port tap0 None: enslave nic0, enslave nic1, settle",
        ),
    ]);
}

#[test]
fn the_bond_has_the_permanent_mac_of_the_slave_that_mac_names() {
    use MissingSlaves::Await;
    let of = |name: &str| format!("{SLAVES}\nmac = \"{name}\"");
    let rest = "pair netkit/veth: enslave nic0, enslave nic1, configure, settle";
    let (second, own) = (of("nic1"), format!("{}\nslave.nic1.mac = \"02:00:00:00:00:77\"", of("nic1")));
    check(&[
        (
            &second,
            &|observed| {
                let changed = Found { mac: mac(9), permanent_mac: Some(mac(2)), ..found(4, "nic1", mac(2)) };
                observed.slaves[1] = Ok(changed);
            },
            Await,
            &format!("tc 1500 queues 16 02:00:00:00:00:02 assigned {rest}"),
        ),
        (
            // Virtual NICs have no permanent one.
            &second,
            &|observed| observed.slaves[1] = Ok(Found { permanent_mac: None, ..found(4, "nic1", mac(2)) }),
            Await,
            &format!("tc 1500 queues 16 02:00:00:00:00:02 assigned {rest}"),
        ),
        (&own, AS_IS, Await, &format!("tc 1500 queues 16 02:00:00:00:00:77 assigned {rest}")),
        (
            &second,
            &|observed| observed.slaves[1] = gone("nic1"),
            Await,
            "tc 1500 queues 16 02:00:00:00:00:01 pair netkit/veth: enslave nic0, configure, settle, bond0: nic1: absent, \
             joins when it appears, bond0: mac = nic1: this slave does not exist, so the bond has the MAC address of its first slave \
             until it is created again",
        ),
    ]);
}

#[test]
fn a_plan_follows_what_the_machine_can() {
    use MissingSlaves::Await;
    let rest = ": enslave nic0, enslave nic1, configure, settle";
    let first = "02:00:00:00:00:01";
    let xdp = format!("{SLAVES}\ndatapath = \"xdp\"");
    let netkit = format!("{SLAVES}\npair = \"netkit\"");
    let with_mac = format!("{SLAVES}\nmac = \"02:00:00:00:00:99\"\nmtu = 1400");
    check(&[
        (
            SLAVES,
            &|observed| observed.has_queues = false,
            Await,
            &format!("tc 1500 queues 1 {first} pair netkit/veth{rest}"),
        ),
        (
            SLAVES,
            &|observed| observed.has_tcx = false,
            Await,
            &format!("tc 1500 queues 16 {first} pair veth{rest}"),
        ),
        (&xdp, AS_IS, Await, &format!("xdp 1500 queues 16 {first} pair veth{rest}")),
        (
            &netkit,
            &|observed| observed.has_tcx = false,
            Await,
            &format!("tc 1500 queues 16 {first} pair netkit{rest}"),
        ),
        (
            &with_mac,
            AS_IS,
            Await,
            &format!("tc 1400 queues 16 02:00:00:00:00:99 assigned pair netkit/veth{rest}"),
        ),
    ]);
}

#[test]
fn a_plan_refuses_what_cannot_be() {
    use MissingSlaves::{Await, Refuse};
    let absent = "bond0: nic1: absent, joins when it appears";
    let only_first = "tc 1500 queues 16 02:00:00:00:00:01 pair netkit/veth: enslave nic0, configure, settle";
    let hwaddr = format!("{SLAVES}\n[bond.bond0.slave.nic1]\nqueue_id = 3");
    check(&[
        (
            SLAVES,
            &|observed| observed.namesake = Some("bridge".to_owned()),
            Await,
            "bond0: an interface of this name exists already (bridge); choose another name for the bond",
        ),
        (SLAVES, &|observed| observed.slaves[1] = gone("nic1"), Await, &format!("{only_first}, {absent}")),
        (
            SLAVES,
            &|observed| observed.slaves[1] = gone("nic1"),
            Refuse,
            "nic1: no such interface in this network namespace",
        ),
        (
            // Queues are known to be one only when the pair is made.
            &hwaddr,
            &|observed| observed.has_queues = false,
            Await,
            "nic1: queue_id=3: bond0 has one transmit queue, because sysfs cannot be mounted; leave queue_id out",
        ),
        (
            SLAVES,
            &|observed| observed.rules = Some(Err(AgentError::NoFiles)),
            Await,
            &AgentError::NoFiles.to_string(),
        ),
        (
            SLAVES,
            &|observed| {
                let (bond, port) = ("bond0".to_owned(), "bond0-port".to_owned());
                observed.port_name = Some(Err(AgentError::PortNameTaken { bond, port }));
            },
            Await,
            "bond0-port: an interface of this name exists already, and the port of bond0 would have it; rename it, or \
             choose another name for the bond",
        ),
    ]);
}

/// A slave that cannot join now is awaited, unless there is no other one.
#[test]
fn a_slave_that_cannot_join_is_awaited() {
    use MissingSlaves::Await;
    let refused = || Err(AgentError::NoFiles);
    let waits = format!("bond0: {}; until then the bond runs without it", AgentError::NoFiles);
    check(&[
        (
            SLAVES,
            &|observed| observed.slaves[0] = refused(),
            Await,
            &format!(
                "tc 1500 queues 16 02:00:00:00:00:02 pair netkit/veth: enslave nic1, configure, settle, {waits}"
            ),
        ),
        (
            SLAVES,
            &|observed| observed.slaves = vec![refused(), gone("nic1")],
            Await,
            &AgentError::NoFiles.to_string(),
        ),
    ]);
}

/// Bonds of every shape.
const SHAPES: [&str; 3] = [
    "slaves = [\"nic0\", \"nic1\"]\naddresses = [\"198.51.100.1/24\"]\nmtu = 1400",
    "slaves = [\"nic0\", \"nic1\"]\nmove_addresses = true\ndatapath = \"xdp\"",
    "slaves = [\"nic0\"]\nport = \"tap0\"",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_whose_creation_fails_at_any_call_is_undone() {
    for lines in SHAPES {
        let config = bond(lines);
        let calls = fail_each_call(async |failure| {
            let Site { kernel, machine, .. } = &Site::new();
            let (id, before) = (BondId(1), kernel.snapshot());
            kernel.fail(Some(failure));
            let answer = bring_up(machine, id, &config, &Manner::Usual(MissingSlaves::Await)).await;
            let failed = kernel.failed();
            kernel.fail(None);
            match &answer {
                Ok(made) => {
                    take_down(machine, (&config.name, id), &made.started.work).await.unwrap();
                }
                Err(error) => undo(machine, id, &config.name, error).await,
            }
            let what = format!("{lines}: {failure:?}: {failed:?}: {:?}", answer.as_ref().err());
            assert_eq!(kernel.snapshot(), before, "{what}");
            assert!(!machine.paths.has(&config.name), "{what}");
            assert!(failed.is_some() || answer.is_ok(), "{what}");
            failed
        })
        .await;
        assert!(calls > 40, "{lines}: {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_is_created_as_planned() {
    let Site { kernel, machine, .. } = &Site::new();
    let config = bond(SHAPES[0]);
    let made = bring_up(machine, BondId(1), &config, &Manner::Usual(MissingSlaves::Await)).await.unwrap();
    let status = made.started.status.borrow().clone();
    let slaves: Vec<_> = status.slaves.iter().map(|slave| slave.name.as_str()).collect();
    assert_eq!((slaves.as_slice(), status.active_slave.as_deref()), (&["nic0", "nic1"][..], Some("nic0")));
    let [bond0, nic1] = ["bond0", "nic1"].map(|name| kernel.link(name).unwrap().info);
    assert_eq!((bond0.mac, bond0.mtu, bond0.is_up(), bond0.carrier), (mac(1), 1400, true, true));
    assert_eq!((nic1.mac, nic1.mtu), (mac(1), 1400));
    assert_eq!(made.maps.active().active().map(|slot| slot.index()), Some(0));
    take_down(machine, (&config.name, BondId(1)), &made.started.work).await.unwrap();
}
