use std::sync::Arc;

use bond_common::mac::Mac;
use bond_core::{
    event::{Duplex, Speed},
    name::BondName,
    options::SlaveOptions,
    status::{BondStatus, MiiStatus, SlaveState, SlaveStatus},
};
use ipnet::IpNet;

use super::{
    observe::{ReloadFacts, SeenHost, SeenSlave},
    plan::{HostPlan, ReloadPlan, address, plan},
};
use crate::{
    agent::{
        Agent, AgentError, Goal, Outcome,
        lifecycle::{
            configured::route_over,
            slaves::Wanted,
            testing::{Site, becomes, bond, fail_each_call},
        },
        queues::Queues,
    },
    config::{BondConfig, Config},
    sys::{
        SysError,
        fake::FakeKernel,
        netlink::PairKind,
        testing::{found, mac},
    },
};

const BOND: u32 = 6;
/// What the file said before.
const BEFORE: &str = "slaves = [\"nic0\", \"nic1\"]\naddresses = [\"198.51.100.1/24\"]";

fn slave(slot: u8, name: &str, mac: Mac) -> SlaveStatus {
    SlaveStatus {
        slot,
        name: name.to_owned(),
        ifindex: 3 + u32::from(slot),
        state: if slot == 0 { SlaveState::Active } else { SlaveState::Backup },
        mii_status: MiiStatus::Up,
        mac,
        permanent_mac: mac,
        link_failure_count: 0,
        speed: Speed(10_000),
        duplex: Duplex::Full,
        options: SlaveOptions::default(),
        drained: false,
        damping: None,
        path_failed: false,
        no_unicast: None,
    }
}

/// How the bond of [`BEFORE`] is, for a file that wants these slaves.
fn observed(wanted: &BondConfig) -> ReloadFacts {
    let config = bond(BEFORE);
    let slaves = vec![slave(0, "nic0", mac(1)), slave(1, "nic1", mac(2))];
    let joined = |slave: &SlaveStatus| {
        let config = config.slaves.iter().find(|config| config.name == *slave.name).unwrap();
        Wanted::new(config.clone(), Some(slave.ifindex))
    };
    let goal = Goal { wanted: slaves.iter().map(joined).collect(), of_files: true, config: config.clone() };
    let status = BondStatus {
        mac: mac(1),
        carrier: true,
        active_slave: Some("nic0".to_owned()),
        options: config.options.clone(),
        slaves,
    };
    let seen = |name: &str| match status.slaves.iter().position(|slave| slave.name == name) {
        Some(place) => SeenSlave::Member { place, permanent_mac: Some(status.slaves[place].permanent_mac) },
        None => SeenSlave::Free(Ok(found(9, name, mac(9)))),
    };
    ReloadFacts {
        slaves: wanted.slaves.iter().map(|slave| seen(&slave.name)).collect(),
        status,
        queues: Queues::Sixteen,
        pair: Some(PairKind::Veth),
        host: SeenHost::Here {
            ifindex: BOND,
            device: "bond0".to_owned(),
            mtu: 1500,
            addresses: config.addresses.iter().map(|net| address(BOND, net)).collect(),
            routes: config.routes.iter().map(|route| route_over(BOND, route)).collect(),
            mtu_fits: Ok(()),
        },
        goal: Arc::new(goal),
    }
}

/// `miimon=.. guard=.. +nic2 -nic1 mtu=.. +address`, in the order in which it is done.
fn shown(plan: &ReloadPlan) -> String {
    let ReloadPlan {
        options_changed, joins, later, absent, leaves, slave_options, on_exit, guard, host, ..
    } = plan;
    let mut words: Vec<_> = options_changed.iter().map(|(key, after, _)| format!("{key}={after}")).collect();
    words.extend(guard.map(|guard| format!("guard={guard}")));
    words.extend(joins.iter().map(|slave| format!("+{}", slave.name)));
    words.extend(slave_options.iter().flat_map(|change| {
        change.changed.iter().map(|(key, after, _)| format!("{}:{key}={after}", change.slave))
    }));
    words.extend(leaves.iter().map(|slave| format!("-{slave}")));
    words.extend(later.iter().map(|slave| format!("later +{}", slave.name)));
    words.extend(absent.iter().map(|slave| format!("absent {slave}")));
    words.extend(on_exit.map(|on_exit| format!("on_exit={on_exit}")));
    if let Some(HostPlan { mtu, new_addresses, old_addresses, new_routes, old_routes, .. }) = host {
        let nets =
            |sign: char, nets: &[IpNet]| nets.iter().map(|net| format!("{sign}{net}")).collect::<Vec<_>>();
        words.extend(mtu.map(|(mtu, _)| format!("mtu={mtu}")));
        words.extend(nets('+', new_addresses));
        words.extend(new_routes.iter().map(|route| format!("+{route}")));
        words.extend(old_routes.iter().map(|route| format!("-{route}")));
        words.extend(nets('-', old_addresses));
    }
    words.join(" ")
}

/// What a file says now, what is different, and what is done.
type Row<'a> = (&'a str, &'a dyn Fn(&mut ReloadFacts), &'a str);

fn check(rows: &[Row<'_>]) {
    for (lines, change, expected) in rows {
        let wanted = bond(lines);
        let mut observed = observed(&wanted);
        change(&mut observed);
        let found = plan(wanted, observed);
        assert_eq!(found.as_ref().map_or_else(ToString::to_string, shown), *expected, "{lines}");
    }
}

const AS_IS: &dyn Fn(&mut ReloadFacts) = &|_| {};

#[test]
fn a_plan_has_only_what_differs() {
    let with = |lines: &str| format!("{BEFORE}\n{lines}");
    check(&[
        (BEFORE, AS_IS, ""),
        (&with("guard = \"off\"\non_exit = \"keep\"\nmtu = 1400"), AS_IS, "guard=off on_exit=keep mtu=1400"),
        (&with("num_grat_arp = 3"), AS_IS, "num_grat_arp=3"),
        (
            "slaves = [\"nic0\", \"nic2\"]\naddresses = [\"198.51.100.2/24\"]",
            AS_IS,
            "+nic2 -nic1 +198.51.100.2/24 -198.51.100.1/24",
        ),
        (&with("[bond.bond0.slave.nic1]\nqueue_id = 3\nprio = 2"), AS_IS, "nic1:prio=2 nic1:queue_id=3"),
        // An address that another process has removed is added again, and one that it has added stays.
        (
            BEFORE,
            &|observed| {
                let SeenHost::Here { addresses, .. } = &mut observed.host else { return };
                *addresses = vec![address(BOND, &"203.0.113.1/24".parse().unwrap())];
            },
            "+198.51.100.1/24",
        ),
        // Another bond releases it first.
        (
            "slaves = [\"nic0\", \"nic1\", \"nic2\"]\naddresses = [\"198.51.100.1/24\"]",
            &|observed| observed.slaves[2] = SeenSlave::Taken,
            "later +nic2",
        ),
        (
            "slaves = [\"nic0\", \"nic1\", \"nic2\"]\naddresses = [\"198.51.100.1/24\"]",
            &|observed| {
                let gone = SysError::NoSuchInterface("nic2".to_owned());
                observed.slaves[2] = SeenSlave::Free(Err(gone.into()));
            },
            "absent nic2",
        ),
    ]);
}

#[test]
fn a_plan_refuses_what_needs_another_bond_or_slave() {
    let with = |lines: &str| format!("{BEFORE}\n{lines}");
    let needs = |what: &str| {
        format!(
            "bond0: {what} cannot be changed while the bond is there: xbond down bond0, then xbond reload"
        )
    };
    let three = "slaves = [\"nic0\", \"nic1\", \"nic2\"]\naddresses = [\"198.51.100.1/24\"]";
    check(&[
        (&with("datapath = \"xdp\""), AS_IS, &needs("datapath")),
        (&with("pair = \"netkit\""), AS_IS, &needs("pair")),
        (&with("pair = \"veth\""), AS_IS, ""),
        (&with("fail_over_mac = \"active\""), AS_IS, &needs("fail_over_mac")),
        (
            &with("[bond.bond0.slave.nic1]\nmac = \"02:00:00:00:00:77\""),
            AS_IS,
            "bond0: nic1: mac cannot be changed while it is a slave: xbond del-slave bond0 nic1, then xbond reload",
        ),
        (
            &with("[bond.bond0.slave.nic1]\nqueue_id = 3"),
            &|observed| observed.queues = Queues::OfPort,
            "nic1: queue_id=3: bond0 ends in a port, whose queues are not the bond's; leave queue_id out",
        ),
        (
            three,
            &|observed| observed.slaves[2] = SeenSlave::Free(Err(AgentError::NoFiles)),
            &AgentError::NoFiles.to_string(),
        ),
        (
            &with("mtu = 1400"),
            &|observed| observed.host = SeenHost::Elsewhere,
            "bond0: its interface is in another network namespace; mtu has to be changed there",
        ),
        (BEFORE, &|observed| observed.host = SeenHost::Elsewhere, ""),
    ]);
}

/// What the file says now: another slave, address, MTU and options.
const AFTER: &str = "slaves = [\"nic0\", \"nic1\"]\naddresses = [\"198.51.100.2/24\"]\nmtu = 1400\nguard = \"off\"\n\
                     resend_igmp = 3";
const ONE_SLAVE: &str = "slaves = [\"nic0\"]\naddresses = [\"198.51.100.1/24\"]";

async fn become_as(agent: &Agent, lines: &str) -> Outcome {
    let config = Config { bonds: vec![bond(lines)], ..Config::default() };
    let mut outcome = Outcome::default();
    agent.become_as(config, &mut outcome).await.unwrap();
    outcome
}

/// An agent with a bond of one slave.
async fn with_bond() -> (FakeKernel, Agent, tempfile::TempDir) {
    let (kernel, machine, directory) = Site::new().into_parts();
    let agent = Agent::in_memory(machine).unwrap();
    let outcome = become_as(&agent, ONE_SLAVE).await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    (kernel, agent, directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_fails_at_any_call_is_completed_by_the_next() {
    let name = BondName::new("bond0").unwrap();
    let unused = Site::new().kernel.snapshot();
    let (kernel, agent, _directory) = with_bond().await;
    let outcome = become_as(&agent, AFTER).await;
    assert_eq!((outcome.failures, outcome.changes.len()), (Vec::new(), 6), "{:?}", outcome.changes);
    let wanted = kernel.snapshot();
    let calls = fail_each_call(async |failure| {
        let (kernel, agent, _directory) = &with_bond().await;
        kernel.fail(Some(failure));
        let outcome = become_as(agent, AFTER).await;
        let failed = kernel.failed();
        kernel.fail(None);
        let again = become_as(agent, AFTER).await;
        let what = format!("{failure:?}: {failed:?}: {:?}, and again: {again:?}", outcome.failures);
        assert_eq!(again.failures, Vec::<String>::new(), "{what}");
        // What was changed although the answer was an error is followed by a link event.
        becomes(kernel, &wanted, &what).await;
        assert_eq!(become_as(agent, AFTER).await.changes, Vec::<String>::new(), "{what}");
        agent.down(&name).await.unwrap();
        assert_eq!(kernel.snapshot(), unused, "{what}");
        failed
    })
    .await;
    assert!(calls > 30, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_is_refused_changes_nothing() {
    let (kernel, agent, _directory) = &with_bond().await;
    let before = kernel.snapshot();
    for line in ["datapath = \"xdp\"", "fail_over_mac = \"active\"", "port = \"tap0\""] {
        let outcome = become_as(agent, &format!("{AFTER}\n{line}")).await;
        assert_eq!((outcome.changes.len(), outcome.failures.len()), (0, 1), "{line}: {outcome:?}");
        assert_eq!(kernel.snapshot(), before, "{line}");
    }
}
