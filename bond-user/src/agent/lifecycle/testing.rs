//! A machine in memory, on which tests create, adopt and change bonds.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bond_common::mac::Mac;
use futures_util::future::join_all;
use nix::errno::Errno;
use tempfile::TempDir;

use crate::{
    agent::{
        LinkEventSource,
        bond::engine_thread,
        feed::Feed,
        lifecycle::{
            confirm::Confirmation,
            machine::{Machine, Tasks},
        },
    },
    config::{BondConfig, toml},
    store::{drains::Drains, paths::Paths},
    sys::{
        dataplane::{Kernel, TcAttach, fake::FakeDataPlanes},
        directory::Trust,
        fake::{FailingCall, FakeKernel, Snapshot, When},
        found::Found,
        layer3::Layer3,
        netlink::{Address, KernelRoute},
        testing::{found, mac},
    },
};

/// A machine with the NICs nic0 and nic1, and a port for virtual machines, tap0. nic0 has addresses and routes.
pub struct Site {
    pub kernel: FakeKernel,
    pub machine: Machine,
    _directory: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let kernel = FakeKernel::default();
        let nic0 = kernel.add_nic("nic0", mac(1));
        kernel.add_nic("nic1", mac(2));
        let tap = kernel.add_nic("tap0", mac(3));
        kernel.change(tap, |link| link.info.kind = Some("tun".to_owned()));
        kernel.add_messages(on_nic(nic0));
        // found.json is synchronized to disk before each change: in memory that takes no time.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let machine = machine(&kernel, directory.path());
        Self { kernel, machine, _directory: directory }
    }

    /// For an agent of its own, which takes the machine.
    pub fn into_parts(self) -> (FakeKernel, Machine, TempDir) {
        let Self { kernel, machine, _directory } = self;
        (kernel, machine, _directory)
    }

    /// Another agent of this machine, after the first one has ended.
    pub fn next_agent(&mut self) {
        self.machine = machine(&self.kernel, self._directory.path());
    }
}

fn machine(kernel: &FakeKernel, directory: &Path) -> Machine {
    let engine = engine_thread::start(None).unwrap();
    let events = engine.clone();
    kernel.listen(move |event| events.device(event));
    let types = Arc::new(Kernel::read().without_types().with_tc(TcAttach::Tcx));
    let paths = Paths::below(directory).unwrap();
    Machine {
        paths: paths.clone(),
        cookie: 7,
        planes: Arc::new(FakeDataPlanes::new(kernel.clone(), Arc::clone(&types))),
        kernel: types,
        reader: None,
        devices: Arc::new(kernel.clone()),
        link_events: LinkEventSource::Netlink,
        path_lane: Arc::default(),
        hook_changes: Arc::default(),
        engine,
        tasks: Tasks::default(),
        feed: Feed::default(),
        confirmation: Arc::new(Confirmation::new(None)),
        enslaving: Arc::default(),
        drains: Mutex::new(Drains::new(&paths, Drains::read(&paths, Trust::Ours).unwrap())),
    }
}

/// Addresses and routes of a NIC by which one is logged in.
fn on_nic(nic: u32) -> Vec<crate::sys::netlink::message::Message> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let address = |text, bits| Address::new(nic, ip(text), bits).to_kept();
    let route = |to, via| KernelRoute::new(nic, ip(to), 0, Some(ip(via))).to_kept();
    let all = [
        address("192.0.2.1", 24),
        address("2001:db8::1", 64),
        route("0.0.0.0", "192.0.2.9"),
        route("::", "2001:db8::9"),
    ];
    all.into_iter().flatten().collect()
}

/// A bond of a file with these lines. Links are polled so seldom that calls of a test are in one order.
pub fn bond(lines: &str) -> BondConfig {
    let text = format!("version = 1\n[bond.bond0]\nmiimon = 1000000\n{lines}");
    let config = toml::parse(Path::new("bond0.toml"), &text);
    config.unwrap_or_else(|error| panic!("{lines}: {error}")).bonds.remove(0)
}

/// A NIC with addresses and routes, as it is found.
pub fn busy(ifindex: u32, name: &str, mac: Mac) -> Found {
    Found { layer3: Arc::new(Layer3::of(on_nic(ifindex))), ..found(ifindex, name, mac) }
}

/// Waits until something holds: what follows a link event comes within 100 ms.
pub async fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    const LIMIT: Duration = Duration::from_secs(5);
    const BETWEEN_CHECKS: Duration = Duration::from_millis(10);
    let until = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(BETWEEN_CHECKS).await;
    }
    true
}

/// Waits until everything is so.
pub async fn becomes(kernel: &FakeKernel, wanted: &Snapshot, what: &str) {
    eventually(|| kernel.snapshot() == *wanted).await;
    assert_eq!(kernel.snapshot(), *wanted, "{what}");
}

/// Runs an attempt on fresh machines, with the first call failing, the second, and so on, until none fails. The attempt
/// returns the call that failed, if one did. Returns how many calls an attempt makes.
pub async fn fail_each_call(attempt: impl AsyncFn(FailingCall) -> Option<String>) -> usize {
    fail_each(When::Before, &attempt).await;
    fail_each(When::After, &attempt).await
}

/// [`fail_each_call`], but from the call on that fails all others do, too.
pub async fn die_at_each_call(attempt: impl AsyncFn(FailingCall) -> Option<String>) -> usize {
    fail_each(When::Dead, &attempt).await
}

async fn fail_each(when: When, attempt: &impl AsyncFn(FailingCall) -> Option<String>) -> usize {
    /// Attempts at once: most of an attempt is waiting.
    const AT_ONCE: usize = 8;
    let mut calls = 0;
    for first in (1..).step_by(AT_ONCE) {
        let attempts =
            (first..first + AT_ONCE).map(|call| attempt(FailingCall { call, errno: Errno::EIO, when }));
        let failed = join_all(attempts).await.iter().flatten().count();
        calls = first - 1 + failed;
        if failed < AT_ONCE {
            break;
        }
    }
    calls
}
