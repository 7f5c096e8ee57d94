//! Fault injection: whatever happens to a bond and its agent, in the end traffic flows where there is a slave that
//! can carry it, nothing is left behind, and the log reports what happened.
//!
//! By default each test injects a few faults of its kind. XBOND_KILLS, XBOND_FLAPS and XBOND_RTNL_SECONDS set other
//! numbers, and XBOND_SEED repeats a run.

mod agents;
#[path = "../common/mod.rs"]
mod common;
mod interfaces;
mod killed;
mod maps;
mod resources;
mod rtnl;
#[path = "../snapshot/mod.rs"]
mod snapshot;

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, SLAVES, active_slave, alone, bond, brisk, builder, concurrently, eventually, lab, meet, show,
    slave, traffic, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use snapshot::Snapshot;
use tempfile::NamedTempFile;
use xbond_tests::{
    Capture, Cut, HOST_V4, Lab, Mac, NetNs, Nic, PEER_V4, Policy, Recovery, WAIT_LIMIT, Xbond,
    flow::FlowReport,
    has_tcx,
    lab::{Datapath, Wire},
    rtnl::RtnlHeld,
    skip, skip_if_unable,
    stp_nic::StpNic,
    xbond,
};
const MIIMON: Duration = Duration::from_millis(100);

/// Returns a number that the environment may set.
fn asked_for(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Random numbers (SplitMix64); the test prints the seed, and XBOND_SEED sets it.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = asked_for("XBOND_SEED", u64::from(now.subsec_nanos()));
        println!("XBOND_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

/// Writes a file that describes bond0 with these slaves.
fn file(policy: &str, slaves: &[&str]) -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    write_file(&file, policy, slaves, "");
    file
}

fn write_file(file: &NamedTempFile, policy: &str, slaves: &[&str], more: &str) {
    let text = format!(
        "version = 1\n[bond.{BOND}]\nslaves = {slaves:?}\nmiimon = 100\nfail_over_mac = \"{policy}\"\naddresses = \
         [\"{HOST_V4}/24\"]\n{more}"
    );
    fs::write(file.path(), text).unwrap();
}

fn run<'lab>(lab: &'lab Lab, file: &NamedTempFile) -> Xbond<'lab> {
    Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap()
}

/// Asserts that some consecutive packets arrive in both directions.
#[track_caller]
fn assert_traffic(lab: &Lab, what: &str) {
    let flow = || {
        meet(lab);
        let traffic = traffic(lab, 2_000);
        traffic.wait_for_more(500).unwrap();
        traffic.stop().unwrap()
    };
    let is_whole = |report: &FlowReport| (report.lost, report.duplicated) == (0, 0);
    // The fault also affected the switch, which may not have recovered yet: what stays broken is xbond's defect.
    let mut reports = flow();
    for _ in 0..2 {
        if reports.iter().all(is_whole) {
            return;
        }
        reports = flow();
    }
    for (direction, report) in ["to peer", "to host"].iter().zip(&reports) {
        assert!(is_whole(report), "{what}, {direction}: {:?}", **report);
    }
}

fn macs(lab: &Lab) -> [Mac; 3] {
    [BOND, SLAVES[0], SLAVES[1]].map(|name| lab.host.link(name).unwrap().mac)
}

fn own_macs(lab: &Lab) -> [Mac; 2] {
    SLAVES.map(|name| lab.mac(name).unwrap())
}

/// Returns the path of a pin of bond0.
fn pin(lab: &Lab, name: &str) -> PathBuf {
    ["/sys/fs/bpf/xbond", &lab.host.cookie().unwrap().to_string(), BOND, name].iter().collect()
}

/// Returns a value of a map, in bpftool's output.
fn peek(lab: &Lab, map: &str, key: u32) -> Vec<u8> {
    let pin = pin(lab, map);
    let text = lab.host.exec(&format!(
        "bpftool -j map lookup pinned {} key {}",
        pin.display(),
        bytes(&key.to_ne_bytes())
    ));
    let value: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let byte = |byte: &serde_json::Value| {
        u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    value["value"].as_array().unwrap().iter().map(byte).collect()
}

/// Writes a value of a map.
fn poke(lab: &Lab, map: &str, key: u32, value: &[u8]) {
    let pin = pin(lab, map);
    let (key, value) = (bytes(&key.to_ne_bytes()), bytes(value));
    lab.host.exec(&format!("bpftool map update pinned {} key {key} value {value}", pin.display())).unwrap();
}

fn bytes(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

/// Returns the word in ACTIVE with another active slot, or with none.
fn active_word(word: &[u8], active: Option<u64>) -> [u8; 8] {
    let word = u64::from_ne_bytes(word.try_into().unwrap());
    let cleared = word & !0xf001;
    let word = active.map_or(0, |slot| cleared | slot << 12 | 1);
    word.to_ne_bytes()
}

fn reaches_peer(lab: &Lab) -> bool {
    lab.host.ping(PEER_V4.into(), 1).unwrap().received == 1
}
