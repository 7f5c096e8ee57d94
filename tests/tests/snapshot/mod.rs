//! Everything about a host that xbond could change.

// Each test binary uses its own part.
#![allow(dead_code)]

use std::{
    fmt::Write as _,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use xbond_tests::{NetNs, WAIT_LIMIT};

/// A look at a host: a heading and what belongs to it, line by line.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(Vec<(String, Vec<String>)>);

/// Between two looks at what the kernel still changes by itself: link-local addresses, operational states.
const SETTLING: Duration = Duration::from_millis(20);

/// Opens and closes every device: the first time leaves traces that closing does not take away (a queue, a
/// multicast group), which are no change of xbond's. Without duplicate address detection, which takes a second.
pub fn open_once(host: &NetNs) {
    host.sysctl("ipv6/conf/default/accept_dad", "0").unwrap();
    for link in host.links().unwrap() {
        host.sysctl(&format!("ipv6/conf/{}/accept_dad", link.name), "0").unwrap();
        for state in ["up", "down"].iter().filter(|_| link.name != "lo") {
            host.ip(&format!("link set {} {state}", link.name)).unwrap();
        }
    }
}

/// Waits until a device has the address that the kernel gives to it once it has carrier, and until each of its
/// IPv6 addresses has its route, which the kernel makes a little later.
pub fn await_ipv6(host: &NetNs, device: &str) {
    let deadline = Instant::now() + WAIT_LIMIT;
    let complete = || {
        let routes = host.ip(&format!("-6 route show table local dev {device}")).unwrap();
        let addresses = host.ip(&format!("-6 -oneline address show dev {device}")).unwrap();
        let words = addresses.lines().filter_map(|line| line.split_whitespace().nth(3));
        let addresses: Vec<_> = words.filter_map(|word| word.split('/').next()).collect();
        let routed = |address: &&str| routes.contains(&format!("local {address} "));
        addresses.iter().any(|address| address.starts_with("fe80:")) && addresses.iter().all(routed)
    };
    while !complete() {
        assert!(Instant::now() < deadline, "{device} did not get its IPv6 addresses");
        thread::sleep(SETTLING);
    }
}

impl Snapshot {
    /// Links, addresses, routes, offloads, what an agent keeps on disk, and processes.
    pub fn of(host: &NetNs) -> Self {
        let mut parts = Vec::new();
        let mut add = |heading: &str, text: String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            // In the kernel's order, that of creation; a device that was closed in between has a new place.
            lines.sort();
            parts.push((heading.to_owned(), lines));
        };
        let ip = |arguments: &str| host.ip(arguments).unwrap();
        add("links", ip("-details -oneline link"));
        add("addresses", ip("-oneline address").replace(" tentative", ""));
        for family in ["-4", "-6"] {
            // A multicast group's membership makes no route; a link without carrier is still a link.
            add(&format!("routes {family}"), ip(&format!("{family} -oneline route show table all")));
        }
        for link in host.links().unwrap() {
            let features = host.exec(&format!("ethtool -k {}", link.name)).unwrap_or_default();
            add(&format!("features of {}", link.name), features);
            // Further MACs that it receives.
            add(&format!("MACs of {}", link.name), ip(&format!("maddress show dev {}", link.name)));
        }
        add("programs", programs(host));
        add("files", files(host));
        add("processes", processes(host));
        Self(parts)
    }

    /// Waits until the host is as it was, up to what the kernel does by itself in the meantime.
    #[track_caller]
    pub fn assert_holds(&self, host: &NetNs, after: &str) {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let now = Self::of(host);
            if now == *self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{after}: the host is not as it was:\n{}",
                self.difference(&now)
            );
            thread::sleep(SETTLING);
        }
    }

    /// Waits until nothing of xbond's is left but what was there: of a host whose devices are others by now.
    #[track_caller]
    pub fn assert_nothing_left(&self, host: &NetNs, after: &str) {
        const OURS: [&str; 3] = ["programs", "files", "processes"];
        let ours = |all: &Self| {
            Self(all.0.iter().filter(|(heading, _)| OURS.contains(&heading.as_str())).cloned().collect())
        };
        let (then, deadline) = (ours(self), Instant::now() + WAIT_LIMIT);
        loop {
            let now = ours(&Self::of(host));
            if now == then {
                return;
            }
            assert!(Instant::now() < deadline, "{after}: something is left:\n{}", then.difference(&now));
            thread::sleep(SETTLING);
        }
    }

    fn difference(&self, now: &Self) -> String {
        let mut text = String::new();
        let empty = Vec::new();
        let headings = self.0.iter().chain(now.0.iter().filter(|(heading, _)| self.part(heading).is_none()));
        for (heading, _) in headings {
            let (then, now) = (self.part(heading).unwrap_or(&empty), now.part(heading).unwrap_or(&empty));
            let lost = then.iter().filter(|line| !now.contains(line)).map(|line| ('-', line));
            let come = now.iter().filter(|line| !then.contains(line)).map(|line| ('+', line));
            for (sign, line) in lost.chain(come) {
                let _ = writeln!(text, "{heading}: {sign}{line}");
            }
        }
        text
    }

    fn part(&self, heading: &str) -> Option<&Vec<String>> {
        self.0.iter().find(|(name, _)| name == heading).map(|(_, lines)| lines)
    }
}

/// Of every kind, on every hook.
fn programs(host: &NetNs) -> String {
    host.exec("bpftool net show").unwrap()
}

/// No trace: an agent's lock stays, its socket and the witness of its namespace go with the next agent if it is killed,
/// and found.json.new is a write under way.
const PASSING: [&str; 5] = ["lock", "xbond.sock", "xbond.sock.new", "%netns", "found.json.new"];

/// What agents of this namespace keep.
pub fn files(host: &NetNs) -> String {
    let cookie = host.cookie().unwrap().to_string();
    let mut text = String::new();
    for place in ["/run/xbond", "/sys/fs/bpf/xbond"].map(|place| Path::new(place).join(&cookie)) {
        walk(&place, &mut text);
    }
    text
}

/// Files and all directories below this one. Whatever vanishes meanwhile is left out.
fn walk(directory: &Path, text: &mut String) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => panic!("{}: {error}", directory.display()),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| PASSING.iter().any(|passing| name == *passing)) {
            continue;
        }
        let _ = writeln!(text, "{}", path.display());
        if path.is_dir() {
            walk(&path, text);
        }
    }
}

fn processes(host: &NetNs) -> String {
    let pids = host.ip(&format!("netns pids {}", host.name())).unwrap();
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    // Of a zombie the namespace is gone, of threads of this test there is no pid of their own.
    pids.lines().filter(|pid| *pid != std::process::id().to_string()).filter_map(name).collect()
}
