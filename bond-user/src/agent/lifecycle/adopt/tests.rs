use bond_common::abi::{BondEntry, FailOverMac, SlaveEntry, Slot};
use bond_core::name::{BondName, InterfaceName};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    adopt,
    observe::{AdoptFacts, LeftPins, SeenBond, SeenSlot},
    plan::{AdoptPlan, AdoptStep, Remains, plan, plan_of},
};
use crate::{
    agent::{
        AgentError,
        bond::{engine_handle::BondId, work::End},
        lifecycle::{
            create::{Manner, bring_up},
            end::take_down,
            testing::{Site, bond, die_at_each_call, fail_each_call},
        },
    },
    api::MissingSlaves,
    config::BondConfig,
    store::{
        paths::Paths,
        record::{Record, RecordedPair, Shape},
    },
    sys::{
        alias::Mark,
        dataplane::Unfit,
        netlink::{In6AddrGenMode, LinkInfo},
        ownership::Ownership,
        testing::{self, found, mac},
    },
};

const COOKIE: u64 = 7;
const PORT: u32 = 5;
const BOND: u32 = 6;
const SLAVES: &str = "slaves = [\"nic0\", \"nic1\"]";

fn bond0() -> BondName {
    BondName::new("bond0").unwrap()
}

/// A bond of a pair with nic0 and nic1, as its agent has recorded it.
fn record(directory: &TempDir) -> Record {
    let paths = Paths::below(directory.path()).unwrap();
    paths.make_run_of(&bond0()).unwrap();
    let pair = Some(RecordedPair::new(bond0(), InterfaceName::new("bond0-port").unwrap()));
    let shape = Shape { pair, port: None, datapath: "tc".to_owned(), queues: 16 };
    let mut record = Record::new(&paths, &bond0(), shape);
    record.add(found(3, "nic0", mac(1))).unwrap();
    record.add(found(4, "nic1", mac(2))).unwrap();
    record
}

fn end(ifindex: u32, name: &str, peer: u32) -> LinkInfo {
    LinkInfo { kind: Some("veth".to_owned()), link: Some(peer), mtu: 1500, ..testing::link(ifindex, name) }
}

/// A slave as enslaving makes it.
fn slave(slot: u8, ifindex: u32, name: &str) -> SeenSlot {
    let link = LinkInfo {
        mac: mac(1),
        permanent_mac: Some(mac(slot + 1)),
        addr_gen_mode: Some(In6AddrGenMode::None),
        ..testing::link(ifindex, name)
    };
    let entry = SlaveEntry::new(ifindex, mac(1), mac(slot + 1));
    SeenSlot { slot: Slot::new(slot).unwrap(), entry, link: Some(link) }
}

/// Everything of it is there.
fn seen() -> SeenBond {
    SeenBond {
        entry: BondEntry::new(FailOverMac::None, PORT, mac(1), COOKIE),
        slots: vec![slave(0, 3, "nic0"), slave(1, 4, "nic1")],
        port: Some(end(PORT, "bond0-port", BOND)),
        bond: Some(end(BOND, "bond0", PORT)),
        host_device: None,
        has_fixed_mac: false,
        proof: Some(Ownership::new(Mark::of(&bond0()), [])),
    }
}

/// `nic0 replaced, nic1 restored`, without the slots that are cleared.
fn shown(plan: &AdoptPlan) -> String {
    let adoption = match plan {
        AdoptPlan::Adopt(adoption) => adoption,
        AdoptPlan::Remove(Remains::Unfinished) => return "removed: unfinished".to_owned(),
        AdoptPlan::Remove(Remains::Portless(port)) => return format!("removed: {port} is gone"),
    };
    let step = |step: &AdoptStep| match step {
        AdoptStep::GiveAliases => Some("aliases".to_owned()),
        AdoptStep::Replace { link, .. } => Some(format!("{} replaced", link.name)),
        AdoptStep::Restore { link, .. } => Some(format!("{} restored", link.name)),
        AdoptStep::Forget { slot, name, .. } => Some(format!("slot {} of {name:?} emptied", slot.index())),
        AdoptStep::CloseStray { .. } | AdoptStep::Clear { .. } => None,
        AdoptStep::RestoreStray { found } => Some(format!("stray {} restored", found.name)),
    };
    adoption.steps.iter().filter_map(step).collect::<Vec<_>>().join(", ")
}

/// What a file says, what is different, and what is done.
type Row<'a> = (&'a str, &'a dyn Fn(&mut SeenBond), &'a str);

fn check(rows: &[Row<'_>]) {
    let directory = tempfile::tempdir().unwrap();
    let record = record(&directory);
    for (lines, change, expected) in rows {
        let mut seen = seen();
        change(&mut seen);
        let found = plan_of(&bond(lines), &seen, &record);
        let found = found.as_ref().map_or_else(ToString::to_string, shown);
        assert_eq!(found, *expected, "{lines}");
    }
}

const AS_IS: &dyn Fn(&mut SeenBond) = &|_| {};

#[test]
fn what_is_whole_is_replaced_and_the_rest_is_restored_or_forgotten() {
    check(&[
        (SLAVES, AS_IS, "nic0 replaced, nic1 replaced"),
        // In the order in which they were enslaved, whatever their slots are.
        (SLAVES, &|seen| seen.slots.reverse(), "nic0 replaced, nic1 replaced"),
        ("slaves = []", AS_IS, "nic0 replaced, nic1 replaced"),
        (SLAVES, &|seen| seen.slots[1].link = None, "nic0 replaced, slot 1 of Some(\"nic1\") emptied"),
        (
            SLAVES,
            &|seen| seen.slots.push(SeenSlot { link: None, ..slave(2, 99, "nic2") }),
            "nic0 replaced, nic1 replaced, slot 2 of None emptied",
        ),
        (SLAVES, &|seen| seen.slots.truncate(1), "nic0 replaced, stray nic1 restored"),
        (
            // It was in another network namespace.
            SLAVES,
            &|seen| {
                let link = seen.slots[0].link.as_mut().unwrap();
                link.addr_gen_mode = Some(In6AddrGenMode::Eui64);
            },
            "nic0 restored, nic1 replaced",
        ),
    ]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let with = |line: &str| format!("{SLAVES}\n{line}");
    let of_active = |seen: &mut SeenBond| seen.entry = seen.entry.with_policy(FailOverMac::Active);
    check(&[
        (SLAVES, &|seen| seen.port = None, "removed: bond0-port is gone"),
        (SLAVES, &|seen| seen.port = Some(testing::link(PORT, "bond0-port")), "removed: bond0-port is gone"),
        (&with("datapath = \"xdp\""), AS_IS, "datapath is tc, and the configuration says xdp"),
        (&with("port = \"tap0\"\ndatapath = \"tc\""), AS_IS, "port is none, and the configuration says tap0"),
        (&with("pair = \"netkit\""), AS_IS, "pair is veth, and the configuration says netkit"),
        (
            &with("mac = \"02:00:00:00:00:99\""),
            AS_IS,
            "its MAC is 02:00:00:00:00:01, and the configuration says 02:00:00:00:00:99",
        ),
        (
            &with("mac = \"02:00:00:00:00:99\""),
            &|seen| seen.slots.clear(),
            "stray nic0 restored, stray nic1 restored",
        ),
        (SLAVES, &of_active, "fail_over_mac is active, and the configuration says none"),
        (
            SLAVES,
            // Its first slave had turned the policy.
            &|seen| {
                of_active(seen);
                seen.has_fixed_mac = true;
            },
            "nic0 replaced, nic1 replaced",
        ),
        (
            SLAVES,
            // That slave has left since.
            &|seen| {
                of_active(seen);
                seen.entry = seen.entry.with_flags(BondEntry::POLICY_TURNED);
            },
            "nic0 replaced, nic1 replaced",
        ),
    ]);
}

#[test]
fn what_was_not_finished_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let of = |record, pinned| {
        let plan = plan(&bond(SLAVES), COOKIE, &AdoptFacts { record, pinned });
        plan.as_ref().map_or_else(ToString::to_string, shown)
    };
    let table = [
        (LeftPins::Nothing, "removed: unfinished"),
        (LeftPins::Unfit(Unfit::NoPort), "removed: unfinished"),
        (LeftPins::Unfit(Unfit::OtherVersion(0)), "removed: unfinished"),
        (LeftPins::Unfit(Unfit::NoMap("SLAVES")), "its map SLAVES is not pinned any more"),
    ];
    for (pinned, expected) in table {
        assert_eq!(of(Some(record(&directory)), pinned), expected);
    }
    let other = of(None, LeftPins::Unfit(Unfit::OtherVersion(1)));
    assert!(other.starts_with("its maps are of version 1, and this xbond's of "), "{other}");
}

/// A bond that an agent has made and left.
async fn left_bond(config: &BondConfig) -> Site {
    let mut site = Site::new();
    let id = BondId(1);
    let made = bring_up(&site.machine, id, config, &Manner::Usual(MissingSlaves::Await)).await.unwrap();
    site.machine.engine.remove(id);
    let (reply, kept) = oneshot::channel();
    made.started.work.end(End::Keep { reply });
    kept.await.unwrap();
    site.next_agent();
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_fails_at_any_call_leaves_the_bond_as_it_was() {
    let config = bond("slaves = [\"nic0\", \"nic1\"]\naddresses = [\"198.51.100.1/24\"]\nmtu = 1400");
    let unused = Site::new().kernel.snapshot();
    let calls = fail_each_call(async |failure| {
        let Site { kernel, machine, .. } = &left_bond(&config).await;
        let (left, id) = (kernel.snapshot(), BondId(2));
        kernel.fail(Some(failure));
        let answer = adopt(machine, id, &config, MissingSlaves::Await).await;
        let failed = kernel.failed();
        kernel.fail(None);
        let what = format!("{failure:?}: {failed:?}: {:?}", answer.as_ref().err());
        let made = match answer {
            Ok(made) => made.unwrap(),
            Err(error) => {
                assert!(matches!(error, AgentError::CannotAdopt { .. }), "{what}");
                assert_eq!(kernel.snapshot(), left, "{what}");
                assert!(machine.tasks.take(id).is_none(), "{what}: its task still runs");
                let again = adopt(machine, BondId(3), &config, MissingSlaves::Await).await;
                again.unwrap_or_else(|error| panic!("{what}, and again: {error}")).unwrap()
            }
        };
        let status = made.started.status.borrow().clone();
        let slaves: Vec<_> = status.slaves.iter().map(|slave| slave.name.as_str()).collect();
        assert_eq!((slaves.as_slice(), status.carrier), (&["nic0", "nic1"][..], true), "{what}");
        take_down(machine, (&config.name, id), &made.started.work).await.unwrap();
        assert_eq!(kernel.snapshot(), unused, "{what}");
        failed
    })
    .await;
    assert!(calls > 30, "{calls} calls");
}

/// From a call on the agent does nothing any more, and does not undo what it did: the next one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_left_that_died_at_any_call_is_removed_or_adopted() {
    let unused = Site::new().kernel.snapshot();
    for lines in [
        "slaves = [\"nic0\", \"nic1\"]\naddresses = [\"198.51.100.1/24\"]\nmtu = 1400",
        "slaves = [\"nic0\", \"nic1\"]\nmove_addresses = true",
    ] {
        let config = bond(lines);
        let calls = die_at_each_call(async |failure| {
            let mut site = Site::new();
            site.kernel.fail(Some(failure));
            let id = BondId(1);
            let made = bring_up(&site.machine, id, &config, &Manner::Usual(MissingSlaves::Await)).await;
            if let Some(task) = site.machine.tasks.take(id) {
                task.abort();
                let _ = task.await;
            }
            site.machine.engine.remove(id);
            let failed = site.kernel.failed();
            site.kernel.fail(None);
            site.next_agent();
            let Site { kernel, machine, .. } = &site;
            let what = format!("{lines}: {failure:?}: {failed:?}: {:?}", made.as_ref().err());
            let adopted = adopt(machine, BondId(2), &config, MissingSlaves::Await).await;
            match adopted.unwrap_or_else(|error| panic!("{what}, and then: {error}")) {
                Some(made) => {
                    take_down(machine, (&config.name, BondId(2)), &made.started.work).await.unwrap();
                }
                None => assert!(!machine.paths.has(&config.name), "{what}"),
            }
            assert_eq!(kernel.snapshot(), unused, "{what}");
            failed
        })
        .await;
        assert!(calls > 30, "{calls} calls");
    }
}
