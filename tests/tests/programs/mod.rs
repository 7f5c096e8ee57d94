//! The programs on devices that only serve test runs, shared by the tests and the benchmark.

// Each of them uses a part of this module.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use aya::{
    TestRun as _, TestRunOptions, TestRunResult,
    programs::{ProgramInfo, SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use bond_common::{
    abi::{BondEntry, FailOverMac, PORT_STATS, Rank, SlaveEntry, Slot},
    counters::{DropReason, SlotStats},
    mac::Mac,
};
use bond_user::sys::{
    dataplane::{
        BpfDataPlane, BpfPins, DataPlane, DeviceReader, Hook, Kernel, MapMirror, Maps, Pins as _, Port,
    },
    directory::Location,
};
use xbond_tests::{
    frames::{HOST, OWN, Scene, Verdict, Way},
    lab::Datapath,
};

const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// A program of either kind, from its pin.
pub enum Program {
    Tc(SchedClassifier),
    Xdp(Xdp),
}

impl Program {
    pub fn from_pin(hook: Hook, path: &Path) -> Self {
        match hook {
            Hook::Tc => Self::Tc(SchedClassifier::from_pin(path).unwrap()),
            _ => Self::Xdp(Xdp::from_pin(path, XdpAttachType::Interface).unwrap()),
        }
    }

    pub fn test_run(&self, options: TestRunOptions<'_>) -> TestRunResult {
        match self {
            Self::Tc(program) => program.test_run(options),
            Self::Xdp(program) => program.test_run(options),
        }
        .unwrap()
    }

    pub fn info(&self) -> ProgramInfo {
        match self {
            Self::Tc(program) => program.info(),
            Self::Xdp(program) => program.info(),
        }
        .unwrap()
    }
}

/// A data plane on two slaves and a port, in a network namespace and a pin directory of its own.
pub struct Bench {
    pub dir: PathBuf,
    pub hook: Hook,
    pub mirror: Arc<MapMirror>,
    pub maps: Arc<Maps>,
    pub data_plane: Box<dyn DataPlane>,
}

impl Bench {
    pub fn new(hook: Hook, name: &str) -> Self {
        // SAFETY: unshare of this thread's network namespace; it goes with the thread.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "these tests need root");
        for (device, peer) in [("port", "host"), ("slave0", "wire0"), ("slave1", "wire1")] {
            ip(&["link", "add", device, "type", "veth", "peer", "name", peer]);
            // Frames that the kernel sends on its own would be counted with a test's.
            for end in [device, peer] {
                ip(&["link", "set", end, "addrgenmode", "none"]);
            }
        }
        // Each test has a thread of its own.
        let dir =
            Path::new("/sys/fs/bpf").join(format!("xbond_test_{}_{name}_{hook}", nix::unistd::gettid()));
        let data_plane = BpfDataPlane::create(&Location::at(&dir), hook, Arc::new(Kernel::read()));
        let mut data_plane: Box<dyn DataPlane> = Box::new(data_plane.unwrap());
        let port = Port { device: "port", ifindex: index("port"), netkit: None, bond: None };
        data_plane.attach_port(&port).unwrap();
        for (slot, device) in [(0, "slave0"), (1, "slave1")] {
            data_plane.attach_slave(Slot::new(slot).unwrap(), device, index(device)).unwrap();
        }
        let mirror = data_plane.mirror();
        let maps = Arc::clone(mirror.maps());
        let bench = Self { dir, hook, mirror, maps, data_plane };
        bench.set(&Scene::of(FailOverMac::Active));
        bench
    }

    pub fn datapath(&self) -> Datapath {
        if self.hook == Hook::Tc { Datapath::Tc } else { Datapath::Xdp }
    }

    pub fn set(&self, scene: &Scene) {
        for (slot, (wire, own)) in scene.wire_macs().into_iter().zip(OWN).enumerate() {
            let entry = SlaveEntry::new(index(&format!("slave{slot}")), wire, own);
            self.mirror.set_slave(Slot::new(slot as u8).unwrap(), entry);
        }
        self.policy(scene.policy, scene.flags);
        self.switch(scene.active, scene.draining);
    }

    pub fn policy(&self, policy: FailOverMac, flags: u32) {
        let host = if flags & BondEntry::LEARN_HOST_MAC != 0 { Mac::ZERO } else { HOST };
        let entry = BondEntry::new(policy, index("port"), host, 1).with_flags(flags);
        self.mirror.update_bond(|_| entry);
    }

    pub fn switch(&self, active: Option<u8>, draining: Option<u8>) {
        let slot = |index: u8| Slot::new(index).unwrap();
        // The guard may have failed over.
        self.mirror.follow_active(self.maps.active());
        self.mirror.switch(active.map(slot), draining.map(slot), 0b11).unwrap();
    }

    /// Sets the devices up and turns the carrier guard on, or only turns the guard off.
    pub fn guard(&self, scene: &Scene, is_on: bool) {
        self.set(scene);
        if !is_on {
            return;
        }
        let reader = DeviceReader::new(&Kernel::read()).unwrap();
        for device in ["slave0", "wire0", "slave1", "wire1"] {
            ip(&["link", "set", device, "up"]);
        }
        for slot in [0, 1].map(|slot| Slot::new(slot).unwrap()) {
            let entry = self.maps.slave(slot);
            let handle = reader.read(entry.ifindex()).unwrap().unwrap().handle();
            self.mirror.set_slave(slot, entry.with_handle(handle));
        }
        self.mirror.set_rank(Rank::new([]));
        self.policy(scene.policy, scene.flags | BondEntry::GUARD);
    }

    pub fn program(&self, way: Way) -> Program {
        let pin = match way {
            Way::Transmit => String::from("port_tx_prog"),
            Way::Receive(slot) => format!("slave{slot}_rx_prog"),
        };
        Program::from_pin(self.hook, &self.dir.join(pin))
    }

    /// Runs the program on a frame; returns the verdict and the resulting bytes.
    pub fn run(&self, way: Way, frame: &[u8]) -> (Verdict, Vec<u8>) {
        use Verdict::*;
        let before = self.total();
        let mut out = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.program(way).test_run(options);
        out.truncate(result.data_size_out as usize);
        let after = self.total();
        let newly = |&reason: &DropReason| after.dropped(reason) == before.dropped(reason) + 1;
        let counted: Vec<_> = DropReason::ALL.into_iter().filter(newly).collect();
        let verdict = match result.return_value {
            TC_ACT_REDIRECT if self.hook == Hook::Tc => Forwarded,
            TC_ACT_UNSPEC if self.hook == Hook::Tc => Local,
            TC_ACT_SHOT if self.hook == Hook::Tc => Dropped(counted[0]),
            XDP_REDIRECT => Forwarded,
            XDP_PASS => Local,
            XDP_DROP => Dropped(counted[0]),
            other => panic!("action {other}"),
        };
        let forwarded = |stats: &SlotStats| stats.tx_packets + stats.rx_packets;
        assert_eq!(forwarded(&after) - forwarded(&before), (verdict == Forwarded) as u64, "{verdict:?}");
        assert_eq!(counted.len(), matches!(verdict, Dropped(_)) as usize, "{verdict:?} counts {counted:?}");
        let bytes = |stats: &SlotStats| stats.tx_bytes + stats.rx_bytes;
        let forwarded_bytes = if verdict == Forwarded { frame.len() as u64 } else { 0 };
        assert_eq!(bytes(&after) - bytes(&before), forwarded_bytes, "{verdict:?}");
        (verdict, out)
    }

    /// Returns the sum of all counters.
    pub fn total(&self) -> SlotStats {
        let mut sum = SlotStats::default();
        for index in 0..=PORT_STATS {
            sum.add(&self.maps.stats(index).unwrap());
        }
        sum
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        BpfPins.remove(&Location::at(&self.dir)).unwrap();
    }
}

pub fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed by setup");
    assert!(status.success(), "ip {arguments:?}");
}

pub fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}
