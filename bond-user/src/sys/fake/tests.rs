//! What xbond does to devices, on the kernel in memory: each call fails in turn.

use std::net::IpAddr;

use bond_core::name::BondName;
use nix::errno::Errno;

use super::{FailingCall, FakeKernel, MacChange, Snapshot, When};
use crate::sys::{
    Devices,
    alias::{Alias, Mark},
    conflicts::Conflict,
    dataplane::Hook,
    enslave::{EnslavePlan, RestoreOutcome},
    found::Found,
    netlink::{Address, KernelRoute, LinkSetting},
    ownership::Ownership,
    testing::{mac, mpls_route},
};

fn mark() -> Mark {
    Mark::of(&BondName::new("bond0").unwrap())
}

/// By the alias, and because this process made the interface a slave.
fn proof(found: &Found) -> Ownership {
    Ownership::new(mark(), [found.ifindex])
}

/// A NIC that is up, with addresses, a route and an administrator's alias.
fn busy() -> (FakeKernel, u32) {
    let kernel = FakeKernel::default();
    let nic = kernel.add_nic("nic0", mac(1));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let addresses = [("192.0.2.1", 24), ("192.0.2.2", 24), ("2001:db8::1", 64)];
    let addresses = addresses.map(|(text, bits)| Address::new(nic, ip(text), bits).to_kept());
    let routes = [("0.0.0.0", "192.0.2.9"), ("::", "2001:db8::9")];
    let routes = routes.map(|(to, via)| KernelRoute::new(nic, ip(to), 0, Some(ip(via))).to_kept());
    kernel.add_messages(addresses.into_iter().chain(routes).flatten());
    kernel.change(nic, |link| link.info.alias = Alias::new("uplink to sw1"));
    (kernel, nic)
}

#[tokio::test]
async fn mpls_routes_over_a_slave_are_named_by_their_labels() {
    let (kernel, nic) = busy();
    kernel.add_messages([mpls_route(100, nic), mpls_route(101, nic + 1), mpls_route(1_048_575, nic)]);
    let devices: &dyn Devices = &kernel;
    let of_mpls = async || {
        let mut conflicts = devices.conflicts(nic).await.unwrap();
        conflicts.retain(|conflict| matches!(conflict, Conflict::MplsRoutes { .. }));
        conflicts
    };
    assert!(of_mpls().await.is_empty(), "a kernel without MPLS is not asked");
    kernel.set_sysctl("/proc/sys/net/mpls/platform_labels", "1048576");
    let expected = Conflict::MplsRoutes { labels: vec![100, 1_048_575] };
    assert_eq!(of_mpls().await, [expected]);
    assert!(mpls_route(100, nic).to_string().starts_with("100"));
}

fn plan(hook: Hook) -> EnslavePlan {
    EnslavePlan { mac: Some(mac(0xaa)), mtu: 1400, hook, unicast: vec![mac(0xbb)] }
}

async fn observe(devices: &dyn Devices, hook: Hook) -> Found {
    devices.observe(("nic0", None), &plan(hook), |_| None).await.unwrap()
}

/// Runs `attempt` on fresh kernels, with the first call failing, the second, and so on, until none fails.
async fn fail_each(attempt: impl AsyncFn(&FakeKernel, FailingCall) -> Option<()>) {
    for when in [When::Before, When::After] {
        for call in 1.. {
            let (kernel, _) = busy();
            let failure = FailingCall { call, errno: Errno::EIO, when };
            if attempt(&kernel, failure).await.is_none() {
                assert!(call > 5, "{when:?}: only {call} calls");
                break;
            }
        }
    }
}

#[tokio::test]
async fn enslaving_that_fails_at_any_call_undoes_itself() {
    for hook in [Hook::Tc, Hook::Xdp] {
        fail_each(async |kernel, failure| {
            let devices: &dyn Devices = kernel;
            let found = observe(devices, hook).await;
            let before = kernel.snapshot();
            kernel.fail(Some(failure));
            let answer = devices.enslave(&found, &plan(hook), &mark()).await;
            let failed = kernel.failed()?;
            assert!(answer.is_err(), "{failed}: not noticed");
            assert_eq!(kernel.snapshot(), before, "{failed}");
            Some(())
        })
        .await;
    }
}

#[tokio::test]
async fn restoring_tries_every_step_and_can_be_repeated() {
    fail_each(async |kernel, failure| {
        let devices: &dyn Devices = kernel;
        let found = observe(devices, Hook::Tc).await;
        let before = kernel.snapshot();
        devices.enslave(&found, &plan(Hook::Tc), &mark()).await.unwrap();
        devices.open_slave(found.ifindex).await.unwrap();
        kernel.fail(Some(failure));
        let answer = devices.restore(&found, &proof(&found)).await;
        let failed = kernel.failed()?;
        // A route that is sent again succeeds the second time.
        assert!(answer.is_err() || kernel.snapshot() == before, "{failed}: not noticed");
        devices.restore(&found, &proof(&found)).await.unwrap();
        assert_eq!(kernel.snapshot(), before, "{failed}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_slave_has_what_was_planned() {
    let (kernel, nic) = busy();
    let devices: &dyn Devices = &kernel;
    let found = observe(devices, Hook::Xdp).await;
    assert!(!devices.enslave(&found, &plan(Hook::Xdp), &mark()).await.unwrap().is_up());
    let slave = devices.open_slave(nic).await.unwrap();
    assert_eq!((slave.mac, slave.mtu, slave.is_up()), (mac(0xaa), 1400, true));
    assert!(mark().is_on(&slave) && LinkSetting::Allmulti(true).holds(&slave));
    let link = kernel.link("nic0").unwrap();
    assert!(link.unicast.contains(&mac(0xbb)));
    let is_on = |name: &str| link.features.iter().any(|feature| feature.name == name && feature.active);
    assert!(!is_on("rx-lro") && !is_on("rx-vlan-hw-parse"));
    let left: Vec<_> = devices.addresses_of(nic).await.unwrap().iter().map(|address| address.ip).collect();
    assert!(left.len() == 2 && left.iter().all(IpAddr::is_ipv4), "{left:?}");
}

#[tokio::test]
async fn a_driver_that_never_changes_its_mac_refuses_and_nothing_stays() {
    let (kernel, nic) = busy();
    kernel.change(nic, |link| link.macs = MacChange::Never);
    let devices: &dyn Devices = &kernel;
    let found = observe(devices, Hook::Tc).await;
    let before = kernel.snapshot();
    let error = devices.enslave(&found, &plan(Hook::Tc), &mark()).await.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
    assert_eq!(kernel.snapshot(), before);
}

#[tokio::test]
async fn an_interface_of_another_owner_is_left_as_it_is() {
    let (kernel, nic) = busy();
    let devices: &dyn Devices = &kernel;
    let found = observe(devices, Hook::Tc).await;
    devices.enslave(&found, &plan(Hook::Tc), &mark()).await.unwrap();
    kernel.change(nic, |link| link.info.alias = Alias::new("mine"));
    let before: Snapshot = kernel.snapshot();
    let answer = devices.restore(&found, &Ownership::new(mark(), [])).await.unwrap();
    assert!(matches!(answer, RestoreOutcome::Unconfirmed(link) if link.looks_enslaved));
    assert_eq!(kernel.snapshot(), before);
}
