//! Bonds of an agent whose kernel is in memory: what requests, links and other processes do to them.

use std::time::Duration;

use bond_core::{
    name::{BondName, InterfaceName},
    status::BondStatus,
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    returned::restore_returned,
    testing::{Site, becomes, bond, eventually, fail_each_call},
};
use crate::{
    agent::{Agent, AgentError, server::query::Scope},
    api::MissingSlaves,
    config::{Change, Config, settings},
    store::{elsewhere, record},
    sys::{
        directory::Trust,
        fake::{FakeKernel, FakeLink, MacChange},
        netlink::{In6AddrGenMode, LinkFlags},
        testing::{mac, mpls_route},
    },
};

const TWO_SLAVES: &str = "slaves = [\"nic0\", \"nic1\"]\naddresses = [\"198.51.100.1/24\"]";
const ONE_SLAVE: &str = "slaves = [\"nic0\"]";

/// A bond of an agent, and what it runs on.
struct Running {
    kernel: FakeKernel,
    agent: Agent,
    name: BondName,
    _directory: TempDir,
}

impl Running {
    async fn new(lines: &str) -> Self {
        let (kernel, machine, directory) = Site::new().into_parts();
        let agent = Agent::in_memory(machine).unwrap();
        let config = Config { bonds: vec![bond(lines)], ..Config::default() };
        let outcome = agent.add_bonds(config, MissingSlaves::Await).await;
        assert_eq!(outcome.failures, Vec::<String>::new());
        Self { kernel, agent, name: BondName::new("bond0").unwrap(), _directory: directory }
    }

    fn ifindex(&self, name: &str) -> u32 {
        self.kernel.link(name).unwrap().info.ifindex
    }

    async fn status(&self) -> BondStatus {
        let bond = self.agent.find(&self.name).unwrap();
        self.agent.machine.engine.status(bond.id).await.unwrap()
    }

    /// Waits until the engine has published such a status.
    async fn until(&self, what: &str, holds: impl FnMut(&BondStatus) -> bool) {
        let mut status = self.agent.find(&self.name).unwrap().status.clone();
        let waited = timeout(Duration::from_secs(5), status.wait_for(holds)).await;
        assert!(waited.is_ok_and(|status| status.is_ok()), "{what}: {:?}", self.status().await);
    }

    async fn set(&self, key: &str, value: &str) -> Result<Vec<String>, AgentError> {
        self.agent.set(&self.name, &[(key.to_owned(), value.to_owned())]).await
    }
}

fn interface(name: &str) -> InterfaceName {
    InterfaceName::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_fails_over_when_a_link_event_says_so() {
    let running = Running::new(TWO_SLAVES).await;
    let nic0 = running.ifindex("nic0");
    running.kernel.change(nic0, |link| link.cable = false);
    running.until("nic1 takes over", |status| status.active_slave.as_deref() == Some("nic1")).await;
    running.kernel.change(nic0, |link| link.cable = true);
    running
        .until("nic0 is a backup", |status| status.slaves.iter().all(|slave| slave.speed.0 == 10_000))
        .await;
    running.set("active_slave", "nic0").await.unwrap();
    running.until("nic0 is asked for", |status| status.active_slave.as_deref() == Some("nic0")).await;
    let bond = running.agent.find(&running.name).unwrap();
    running.agent.machine.engine.settled(bond.id).await.unwrap();
    assert_eq!(bond.maps.active().active().map(|slot| slot.index()), Some(0));
    running.agent.down(&running.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_without_any_link_has_no_carrier() {
    let running = Running::new(TWO_SLAVES).await;
    for name in ["nic0", "nic1"] {
        running.kernel.change(running.ifindex(name), |link| link.cable = false);
    }
    running.until("no carrier", |status| !status.carrier && status.active_slave.is_none()).await;
    let has_carrier = || running.kernel.link("bond0").unwrap().info.carrier;
    assert!(eventually(|| !has_carrier()).await, "{:?}", running.kernel.snapshot());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slave_that_cannot_join_is_as_it_was_whichever_call_fails() {
    let calls = fail_each_call(async |failure| {
        let running = Running::new(ONE_SLAVE).await;
        let before = running.kernel.snapshot();
        running.kernel.fail(Some(failure));
        let answer = running.agent.add_slave(&running.name, &interface("nic1"), &[]).await;
        let failed = running.kernel.failed();
        running.kernel.fail(None);
        let what = format!("{failure:?}: {failed:?}: {answer:?}");
        let slaves = running.status().await.slaves.len();
        assert_eq!(slaves, if answer.is_ok() { 2 } else { 1 }, "{what}");
        if answer.is_ok() {
            running.agent.del_slave(&running.name, "nic1").await.unwrap();
            // As the driver does, it is left closed.
            let closed = running.kernel.link("nic1").unwrap();
            assert_eq!((closed.info.is_up(), closed.info.alias), (false, None), "{what}");
        } else {
            becomes(&running.kernel, &before, &what).await;
        }
        failed
    })
    .await;
    assert!(calls > 20, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_refused_changes_nothing() {
    let running = Running::new(TWO_SLAVES).await;
    let (before, status) = (running.kernel.snapshot(), running.status().await);
    let refusals = [
        running.set("miimon", "-1").await.unwrap_err().to_string(),
        running.set("active_slave", "nic9").await.unwrap_err().to_string(),
        running.set("mode", "802.3ad").await.unwrap_err().to_string(),
        running.set("datapath", "xdp").await.unwrap_err().to_string(),
        running.agent.add_slave(&running.name, &interface("nic0"), &[]).await.unwrap_err().to_string(),
        running.agent.add_slave(&running.name, &interface("nic9"), &[]).await.unwrap_err().to_string(),
        running.agent.add_slave(&running.name, &interface("bond0"), &[]).await.unwrap_err().to_string(),
        running.agent.del_slave(&running.name, "nic9").await.unwrap_err().to_string(),
    ];
    assert_eq!(running.status().await, status, "{refusals:?}");
    assert_eq!(running.kernel.snapshot(), before, "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_setting_that_a_running_bond_can_take_is_set() {
    let values = [
        ("allow_unmonitored", "true"),
        ("mtu", "1400"),
        ("on_exit", "keep"),
        ("guard", "off"),
        ("clock", "off"),
        ("clock_interval", "25"),
        ("damping", "half_life=30,suppress=4,reuse=2.5,max=120"),
        ("path_target", "192.0.2.1"),
        ("path_interval", "20"),
        ("path_misses", "5"),
        ("path_method", "arp"),
        ("failback", "proven"),
        ("watch", "all=carrier,path"),
    ];
    let live = settings::ROWS.iter().filter(|row| row.change == Change::Live).map(|row| row.key);
    assert_eq!(values.map(|(key, _)| key).as_slice(), live.collect::<Vec<_>>());
    let running = Running::new(TWO_SLAVES).await;
    for (key, value) in values {
        running.set(key, value).await.unwrap();
        let config = running.agent.find(&running.name).unwrap().goal().config.clone();
        assert!(config.settings().iter().any(|(known, _)| *known == key), "{key}: {config:?}");
    }
    assert_eq!(running.kernel.link("bond0").unwrap().info.mtu, 1400);
}

/// The kernel removes IPv6 addresses below this MTU.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mtu_that_addresses_of_the_bond_do_not_survive_is_refused() {
    let running = Running::new("slaves = [\"nic0\", \"nic1\"]\naddresses = [\"2001:db8::1/64\"]").await;
    let before = running.kernel.snapshot();
    let error = running.set("mtu", "1000").await.unwrap_err().to_string();
    assert!(error.contains("1280"), "{error}");
    assert_eq!(running.kernel.snapshot(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_are_changed_while_the_bond_runs() {
    let running = Running::new(TWO_SLAVES).await;
    running.set("primary", "nic1").await.unwrap();
    running.until("its primary is active", |status| status.active_slave.as_deref() == Some("nic1")).await;
    let settings = [("queue_id".to_owned(), "3".to_owned())];
    running.agent.set_slave(&running.name, "nic0", &settings).await.unwrap();
    let status = running.status().await;
    assert_eq!(status.slaves[0].options.queue_id, 3);
    running.agent.set_slave(&running.name, "nic1", &settings).await.unwrap_err();
    let report = running.agent.report(None, Scope::Bonds).await.unwrap();
    let shown = serde_json::to_value(&report).unwrap();
    assert_eq!(shown["bonds"][0]["active_slave"], "nic1", "{shown}");
}

/// The path check: what only the bond sets on its devices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_changes_on_a_device_is_restored() {
    let running = Running::new(TWO_SLAVES).await;
    let (before, bond) = (running.kernel.snapshot(), running.agent.find(&running.name).unwrap());
    let [nic0, port] = ["nic0", "bond0-port"].map(|name| running.ifindex(name));
    type Change<'a> = (&'a str, u32, &'a dyn Fn(&mut FakeLink));
    let changes: [Change<'_>; 5] = [
        ("all multicast", nic0, &|link| link.info.flags.remove(LinkFlags::Allmulti)),
        ("MTU", nic0, &|link| link.info.mtu = 1300),
        ("IPv6 addresses", nic0, &|link| link.info.addr_gen_mode = Some(In6AddrGenMode::Eui64)),
        ("the port's MTU", port, &|link| link.info.mtu = 1300),
        ("LRO", nic0, &|link| {
            link.info.mtu = 1300;
            link.features
                .iter_mut()
                .filter(|feature| feature.name == "rx-lro")
                .for_each(|lro| lro.active = true);
        }),
    ];
    for (what, ifindex, change) in changes {
        running.kernel.change(ifindex, change);
        assert_ne!(running.kernel.snapshot(), before, "{what}");
        bond.work.check(|pending| pending.path = true);
        becomes(&running.kernel, &before, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bond0_is_followed_by_its_slaves() {
    let running = Running::new(TWO_SLAVES).await;
    let bond0 = running.ifindex("bond0");
    running.kernel.change(bond0, |link| {
        link.info.mtu = 1400;
        link.info.mac = mac(0x42);
    });
    running.until("its MAC address is the bond's", |status| status.mac == mac(0x42)).await;
    let link = |name| running.kernel.link(name).unwrap().info;
    let follow = || ["nic0", "nic1", "bond0-port"].iter().all(|name| link(name).mtu == 1400);
    assert!(eventually(follow).await, "{:?}", running.kernel.snapshot());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slave_that_cannot_change_its_mac_turns_the_policy() {
    let (kernel, machine, _directory) = Site::new().into_parts();
    let nic0 = kernel.link("nic0").unwrap().info.ifindex;
    kernel.change(nic0, |link| link.macs = MacChange::Never);
    let agent = Agent::in_memory(machine).unwrap();
    let config = Config { bonds: vec![bond(TWO_SLAVES)], ..Config::default() };
    let outcome = agent.add_bonds(config, MissingSlaves::Await).await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    let report = agent.report(None, Scope::All).await.unwrap();
    let shown = serde_json::to_value(&report).unwrap();
    assert_eq!(shown["bonds"][0]["options"]["fail_over_mac"], "active", "{shown}");
    assert_eq!(kernel.link("nic1").unwrap().info.mac, mac(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_whose_port_is_deleted_is_removed() {
    let unused = Site::new().kernel.snapshot();
    let running = Running::new(TWO_SLAVES).await;
    let port = running.ifindex("bond0-port");
    running.kernel.remove(port);
    running.agent.take_down_without_port(port).await;
    assert!(running.agent.find(&running.name).is_none());
    assert_eq!(running.kernel.snapshot(), unused);
    assert_eq!(running.agent.lost_bonds(None).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_fails_at_any_call_is_completed_by_the_next() {
    let unused = Site::new().kernel.snapshot();
    for lines in [TWO_SLAVES, "slaves = [\"nic0\", \"nic1\"]\nmove_addresses = true\ndatapath = \"xdp\""] {
        let calls = fail_each_call(async |failure| {
            let Running { kernel, agent, name, _directory } = &Running::new(lines).await;
            kernel.fail(Some(failure));
            let answer = agent.down(name).await;
            let failed = kernel.failed();
            kernel.fail(None);
            let what = format!("{lines}: {failure:?}: {failed:?}: {answer:?}");
            let machine = &agent.machine;
            if machine.paths.has(name) {
                assert!(answer.is_err(), "{what}: not noticed");
                let again = record::undo(&machine.paths, name, &machine.system()).await;
                assert!(again.is_ok(), "{what}, and again: {again:?}");
            }
            assert_eq!(kernel.snapshot(), unused, "{what}");
            assert!(!machine.paths.has(name), "{what}");
            failed
        })
        .await;
        assert!(calls > 20, "{lines}: {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_slave_that_returns_is_restored_before_it_is_enslaved_again() {
    let Running { kernel, agent, name, _directory } = &Running::new(TWO_SLAVES).await;
    let enslaved = kernel.link("nic1").unwrap().info;
    kernel.remove(enslaved.ifindex);
    assert!(eventually(|| agent.find(name).unwrap().status().slaves.len() == 1).await, "it is no slave");
    let notes = agent.down(name).await.unwrap();
    assert!(
        matches!(&notes[..], [note] if note.contains("nic1: not in this network namespace")),
        "{notes:?}"
    );
    let returned = kernel.add_nic("nic1", mac(2));
    kernel.change(returned, |link| {
        (link.info.mac, link.info.mtu, link.info.alias) = (enslaved.mac, 1400, enslaved.alias.clone());
    });
    let config = Config { bonds: vec![bond(TWO_SLAVES)], ..Config::default() };
    let outcome = agent.add_bonds(config, MissingSlaves::Await).await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    agent.down(name).await.unwrap();
    let after = kernel.link("nic1").unwrap().info;
    assert_eq!((after.mac, after.mtu, after.alias), (mac(2), 1500, None));
    assert_eq!(elsewhere::read(&agent.machine.paths, Trust::Ours).unwrap(), []);
}

/// Returns an agent without a bond, whose former slave nic1 is here again as its bond left it.
async fn with_returned_slave() -> Running {
    let running = Running::new(TWO_SLAVES).await;
    let Running { kernel, agent, name, .. } = &running;
    let enslaved = kernel.link("nic1").unwrap().info;
    kernel.remove(enslaved.ifindex);
    assert!(eventually(|| agent.find(name).unwrap().status().slaves.len() == 1).await, "it is no slave");
    agent.down(name).await.unwrap();
    let returned = kernel.add_nic("nic1", mac(2));
    kernel.change(returned, |link| {
        (link.info.mac, link.info.mtu, link.info.alias) = (enslaved.mac, 1400, enslaved.alias.clone());
    });
    running
}

fn former_slaves(agent: &Agent) -> Vec<(String, u32)> {
    let former = elsewhere::read(&agent.machine.paths, Trust::Ours).unwrap();
    former.into_iter().map(|former| (former.found.name, former.tries)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_slave_that_cannot_be_restored_is_kept_and_tried_again() {
    let Running { kernel, agent, _directory, .. } = &with_returned_slave().await;
    let nic1 = kernel.link("nic1").unwrap().info.ifindex;
    kernel.change(nic1, |link| link.macs = MacChange::Never);
    restore_returned(&agent.machine).await;
    assert_eq!(former_slaves(agent), [("nic1".to_owned(), 1)]);
    for _ in 0..9 {
        agent.try_returned_again().await;
    }
    assert_eq!(former_slaves(agent), [("nic1".to_owned(), 5)], "the agent gives up");
    kernel.change(nic1, |link| link.macs = MacChange::Closed);
    agent.try_returned_again().await;
    assert_eq!(former_slaves(agent), [("nic1".to_owned(), 5)], "only a start or a bond tries again");
    restore_returned(&agent.machine).await;
    assert_eq!(former_slaves(agent), []);
    let after = kernel.link("nic1").unwrap().info;
    assert_eq!((after.mac, after.mtu, after.alias), (mac(2), 1500, None));
}

/// Also if it could not be restored before it is enslaved again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_slave_is_as_it_was_at_the_end_whichever_call_fails() {
    let calls = fail_each_call(async |failure| {
        let Running { kernel, agent, name, _directory } = &with_returned_slave().await;
        kernel.fail(Some(failure));
        let config = Config { bonds: vec![bond(TWO_SLAVES)], ..Config::default() };
        let outcome = agent.add_bonds(config, MissingSlaves::Await).await;
        let failed = kernel.failed();
        kernel.fail(None);
        let what = format!("{failure:?}: {failed:?}: {:?}", outcome.failures);
        let enslaved = kernel.link("nic1").unwrap();
        let is_slave = agent.find(name).is_some_and(|bond| bond.status().slaves.len() == 2);
        restore_returned(&agent.machine).await;
        assert!(!is_slave || kernel.link("nic1").unwrap() == enslaved, "{what}: it is a slave");
        if agent.find(name).is_some() {
            agent.down(name).await.unwrap();
        } else if agent.machine.paths.has(name) {
            record::undo(&agent.machine.paths, name, &agent.machine.system()).await.unwrap();
        }
        let after = kernel.link("nic1").unwrap().info;
        assert_eq!((after.mac, after.mtu, after.alias), (mac(2), 1500, None), "{what}");
        assert_eq!(former_slaves(agent), [], "{what}");
        failed
    })
    .await;
    assert!(calls > 20, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_names_an_interface_that_has_the_name_of_a_former_slave() {
    let Running { kernel, agent, name, _directory } = &Running::new(TWO_SLAVES).await;
    let former = kernel.link("nic1").unwrap().info.ifindex;
    kernel.remove(former);
    assert!(eventually(|| agent.find(name).unwrap().status().slaves.len() == 1).await, "it is no slave");
    kernel.add_nic("nic1", mac(9));
    let notes = agent.down(name).await.unwrap();
    let expected = format!(
        "the former nic1 (MAC {}, ifindex {former}): deleted, or moved to another network namespace, so not restored. An agent \
         of this network namespace restores it when it returns. The nic1 that is here now is another interface",
        mac(2)
    );
    assert_eq!(notes, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_release_of_a_slave_whose_mac_the_bond_keeps_has_a_note() {
    let Running { agent, name, _directory, .. } = &Running::new(TWO_SLAVES).await;
    let notes = agent.del_slave(name, "nic0").await.unwrap();
    let expected =
        format!("nic0: released with the MAC {}, which is still in use in the bond; set another one", mac(1));
    assert!(matches!(&notes[..], [note] if note.starts_with(&expected)), "{notes:?}");
    assert_eq!(agent.del_slave(name, "nic1").await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_not_moved_from_a_slave_with_an_mpls_route() {
    let (kernel, machine, _directory) = Site::new().into_parts();
    kernel.set_sysctl("/proc/sys/net/mpls/platform_labels", "100000");
    kernel.add_messages([mpls_route(100, kernel.link("nic0").unwrap().info.ifindex)]);
    let before = kernel.snapshot();
    let agent = Agent::in_memory(machine).unwrap();
    let config =
        Config { bonds: vec![bond(&format!("{TWO_SLAVES}\nmove_addresses = true"))], ..Config::default() };
    let outcome = agent.add_bonds(config, MissingSlaves::Await).await;
    assert!(
        matches!(&outcome.failures[..], [error] if error.contains("MPLS route 100")),
        "{:?}",
        outcome.failures
    );
    assert_eq!(kernel.snapshot(), before);
}
