//! Takeovers on a machine in memory: what is refused, and that everything is as it was whichever call fails.

use std::{sync::Arc, time::Duration};

use bond_core::name::BondName;
use tempfile::TempDir;

use super::{observe::TakeoverFacts, plan::plan};
use crate::{
    agent::{
        Agent, AgentError,
        lifecycle::testing::{Site, becomes, bond, fail_each_call},
    },
    config::BondConfig,
    store::takeovers::{self, TakeoverStage},
    sys::{
        Devices,
        directory::Trust,
        fake::{FakeKernel, When},
        netlink::{Address, KernelRoute, QdiscPlace, QdiscStats},
        testing::mac,
    },
};

/// A bond of the driver with a VLAN, and a bridge above another VLAN.
struct Driven {
    kernel: FakeKernel,
    agent: Arc<Agent>,
    name: BondName,
    _directory: TempDir,
}

fn config() -> BondConfig {
    let mut config = bond("slaves = [\"eth0\", \"eth1\"]");
    config.mac = Some(crate::config::BondMac::Address(mac(0x11)));
    config
}

fn driven() -> Driven {
    let (kernel, machine, directory) = Site::new().into_parts();
    let slaves = [("eth0", 0x11), ("eth1", 0x12)].map(|(name, last)| kernel.add_nic(name, mac(last)));
    let bond = kernel.add_driver_bond("bond0", &slaves);
    let vlan = kernel.add_vlan("bond0.5", bond, 5);
    let other = kernel.add_vlan("bond0.6", bond, 6);
    kernel.add_bridge("br0", other);
    for (device, ip, via) in [(bond, "192.0.2.7", "192.0.2.254"), (vlan, "198.51.100.7", "198.51.100.254")] {
        let address = Address::new(device, ip.parse().unwrap(), 24).to_kept();
        let route = KernelRoute::new(device, "203.0.113.0".parse().unwrap(), 24, via.parse().ok()).to_kept();
        kernel.add_messages(address.into_iter().chain(route));
    }
    let agent = Arc::new(Agent::in_memory(machine).unwrap());
    Driven { kernel, agent, name: BondName::new("bond0").unwrap(), _directory: directory }
}

impl Driven {
    async fn facts(&self) -> TakeoverFacts {
        let devices: &dyn Devices = &self.kernel;
        TakeoverFacts {
            links: devices.raw_links().await.unwrap(),
            renames_live: true,
            ..TakeoverFacts::default()
        }
    }

    fn left(&self) -> Vec<TakeoverStage> {
        let left = takeovers::read(&self.agent.machine.paths, Trust::Ours).unwrap();
        left.into_iter().map(|left| left.stage).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_has_a_twin_for_each_device_after_the_one_below_it() {
    let driven = driven();
    let plan = plan(&config(), &driven.facts().await).unwrap();
    let twins: Vec<_> = plan
        .record
        .twins
        .iter()
        .map(|twin| {
            let below = twin.vlan.as_ref().map(|vlan| vlan.below);
            (&*twin.name, &*twin.first_aside, &*twin.second_aside, below, twin.port.is_some())
        })
        .collect();
    assert_eq!(
        twins,
        [
            ("bond0", "xbo0", "xbt0", None, false),
            ("bond0.5", "xbo1", "xbt1", Some(0), false),
            ("bond0.6", "xbo2", "xbt2", Some(0), true),
        ]
    );
    let others: Vec<_> = plan.record.others.iter().map(|nic| nic.name.to_string()).collect();
    assert_eq!((plan.record.first.name.to_string(), others), ("eth1".to_owned(), vec!["eth0".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_moved_is_refused_by_name() {
    type Change = fn(&Driven, &mut TakeoverFacts);
    let table: [(&str, Change); 9] = [
        ("a single slave", |driven, facts| {
            let eth1 = driven.kernel.link("eth1").unwrap().info.ifindex;
            facts.links.retain(|link| link.info.ifindex != eth1);
        }),
        ("none of its backups is up", |driven, facts| {
            let eth1 = driven.kernel.link("eth1").unwrap().info.ifindex;
            let eth1 = facts.links.iter_mut().find(|link| link.info.ifindex == eth1).unwrap();
            eth1.clear_port_data();
        }),
        ("no bond of the kernel's driver", |_, facts| facts.links.clear()),
        ("cannot rename an interface that is up", |_, facts| facts.renames_live = false),
        ("takes part in STP", |_, facts| {
            let br0 = facts.links.iter_mut().find(|link| link.info.name == "br0").unwrap();
            br0.info.has_stp = true;
        }),
        ("filters VLANs", |_, facts| {
            let br0 = facts.links.iter_mut().find(|link| link.info.name == "br0").unwrap();
            br0.info.filters_vlans = Some(0x8100);
        }),
        ("mv0: a macvlan above bond0.5", |driven, facts| {
            let below = driven.kernel.link("bond0.5").unwrap().info.ifindex;
            let mut upper = facts.links.iter().find(|link| link.info.name == "br0").unwrap().clone();
            upper.info.name = "mv0".to_owned();
            (upper.info.kind, upper.info.link) = (Some("macvlan".to_owned()), Some(below));
            facts.links.push(upper);
        }),
        ("bond0: its qdisc htb", |driven, facts| {
            let ifindex = driven.kernel.link("bond0").unwrap().info.ifindex;
            facts.qdiscs.push(QdiscStats {
                ifindex,
                kind: "htb".to_owned(),
                at: QdiscPlace::Root,
                drops: 0,
                overlimits: 0,
                requeues: 0,
                queued: 0,
            });
        }),
        ("bond0: a filter", |_, facts| facts.refused.push("bond0: a filter".to_owned())),
    ];
    for (said, change) in table {
        let driven = driven();
        let mut facts = driven.facts().await;
        change(&driven, &mut facts);
        let error = plan(&config(), &facts).unwrap_err();
        assert!(matches!(error, AgentError::CannotTakeOver { .. }), "{error}");
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_is_led_back_until_it_is_confirmed() {
    let driven = driven();
    let before = driven.kernel.snapshot();
    let limit = Some(Duration::from_secs(600));
    let lines = driven.agent.take_over(config(), limit).await.unwrap();
    assert_eq!(lines.len(), 7, "{lines:#?}");
    assert_eq!(driven.left(), [TakeoverStage::OnTrial]);
    let kind = |name: &str| driven.kernel.link(name).unwrap().info.kind;
    assert_eq!((kind("bond0").as_deref(), kind("xbo0").as_deref()), (Some("veth"), Some("bond")));
    assert!(driven.agent.down(&driven.name).await.is_err());
    driven.agent.undo_takeover(&driven.name).await.unwrap();
    becomes(&driven.kernel, &before, "led back").await;
    assert_eq!(driven.left(), []);

    driven.agent.take_over(config(), limit).await.unwrap();
    let done = driven.agent.confirm_takeovers().await.unwrap();
    assert_eq!((done.len(), driven.left()), (1, vec![]));
    assert!(driven.kernel.link("xbo0").is_none());
    assert!(driven.agent.undo_takeover(&driven.name).await.is_err());
    let status = driven.agent.find(&driven.name).unwrap().status();
    assert_eq!(status.slaves.iter().map(|slave| &*slave.name).collect::<Vec<_>>(), ["eth1", "eth0"]);
    driven.agent.down(&driven.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_as_it_was_whichever_call_of_a_takeover_fails() {
    let calls = fail_each_call(async |failure| {
        let driven = driven();
        let before = driven.kernel.snapshot();
        driven.kernel.fail(Some(failure));
        let answer = driven.agent.take_over(config(), Some(Duration::from_secs(600))).await;
        let failed = driven.kernel.failed();
        driven.kernel.fail(None);
        let what = format!("{failure:?}: {failed:?}: {answer:?}");
        match answer {
            // What is not part of the takeover itself may fail without an effect on it.
            Ok(_) => drop(driven.agent.undo_takeover(&driven.name).await.unwrap()),
            // The way back met the failure, and is gone again.
            Err(AgentError::NotLedBack { .. }) => driven.agent.settle_takeovers().await,
            Err(_) => {}
        }
        becomes(&driven.kernel, &before, &what).await;
        assert_eq!(driven.left(), [], "{what}");
        failed
    })
    .await;
    assert!(calls > 60, "{calls} calls");
}

/// An agent that dies is followed by another one, which leads back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_agent_leads_back_wherever_the_first_one_died() {
    let calls = crate::agent::lifecycle::testing::die_at_each_call(async |failure| {
        assert_eq!(failure.when, When::Dead);
        let driven = driven();
        let before = driven.kernel.snapshot();
        driven.kernel.fail(Some(failure));
        let answer = driven.agent.take_over(config(), Some(Duration::from_secs(600))).await;
        let failed = driven.kernel.failed();
        driven.kernel.fail(None);
        let what = format!("{failure:?}: {failed:?}: {answer:?}");
        if answer.is_ok() {
            driven.agent.undo_takeover(&driven.name).await.unwrap();
        } else {
            driven.agent.settle_takeovers().await;
        }
        becomes(&driven.kernel, &before, &what).await;
        assert_eq!(driven.left(), [], "{what}");
        failed
    })
    .await;
    assert!(calls > 60, "{calls} calls");
}

impl Driven {
    /// Returns which devices there are, and the master of each.
    fn shape(&self) -> Vec<String> {
        let names = ["bond0", "bond0.5", "bond0.6", "eth0", "eth1"];
        let of = |name: &str| {
            let info = self.kernel.link(name).unwrap_or_else(|| panic!("no {name}")).info;
            let master = info.master.map(|master| self.kernel.name_of(master).unwrap());
            format!("{name} {} {}", info.kind.unwrap_or_default(), master.unwrap_or_default())
        };
        names.into_iter().map(of).collect()
    }

    fn has_aside(&self) -> bool {
        ["xbo", "xbt"].iter().any(|word| {
            ["0", "1", "2", "0s", "0p"].iter().any(|end| self.kernel.link(&format!("{word}{end}")).is_some())
        })
    }
}

const OF_DRIVER: [&str; 5] =
    ["bond0 bond ", "bond0.5 vlan ", "bond0.6 vlan br0", "eth0  bond0", "eth1  bond0"];
const OF_XBOND: [&str; 5] = ["bond0 veth ", "bond0.5 vlan ", "bond0.6 vlan br0", "eth0  ", "eth1  "];

async fn taken() -> Driven {
    let driven = driven();
    driven.agent.take_over(config(), None).await.unwrap();
    assert_eq!(driven.shape(), OF_XBOND);
    driven
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_is_given_to_the_driver() {
    let driven = taken().await;
    driven.agent.give_back(&driven.name).await.unwrap();
    assert_eq!(
        (driven.shape(), driven.has_aside(), driven.left()),
        (OF_DRIVER.map(str::to_owned).to_vec(), false, vec![])
    );
    assert!(driven.agent.find(&driven.name).is_none());
    assert!(driven.agent.give_back(&driven.name).await.is_err());
    // And taken over again.
    driven.agent.take_over(config(), None).await.unwrap();
    assert_eq!(driven.shape(), OF_XBOND);
    driven.agent.down(&driven.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_is_whole_whichever_call_of_a_giveback_fails() {
    let calls = fail_each_call(async |failure| {
        let driven = taken().await;
        driven.kernel.fail(Some(failure));
        let answer = driven.agent.give_back(&driven.name).await;
        let failed = driven.kernel.failed();
        driven.kernel.fail(None);
        // What was begun is completed.
        driven.agent.settle_takeovers().await;
        let what = format!("{failure:?}: {failed:?}: {answer:?}: {:?}", driven.kernel.snapshot());
        let is_ours = driven.agent.find(&driven.name).is_some();
        let wanted = if is_ours { OF_XBOND } else { OF_DRIVER };
        assert_eq!(
            (driven.shape(), driven.has_aside()),
            (wanted.map(str::to_owned).to_vec(), false),
            "{what}"
        );
        assert_eq!(driven.left(), [], "{what}");
        failed
    })
    .await;
    assert!(calls > 60, "{calls} calls");
}
