//! Records everything about a host that xbond could change.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::{
    fmt::Write as _,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use xbond_tests::{NetNs, WAIT_LIMIT};

/// The recorded state of a host: headings, each with its lines.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(Vec<(String, Vec<String>)>);

/// Time between two polls of state that the kernel still changes by itself: link-local addresses, operational states.
const SETTLING: Duration = Duration::from_millis(20);

/// Sets every device up and down: the first time leaves traces that setting it down does not remove (a queue, a
/// multicast group), and which xbond would not have caused. Disables duplicate address detection, which takes a
/// second.
pub fn open_once(host: &NetNs) {
    host.sysctl("ipv6/conf/default/accept_dad", "0").unwrap();
    // The ends of a clock have no IPv6, and setting them down would stop it.
    for link in host.links().unwrap().into_iter().filter(|link| !link.name.contains("-clk")) {
        host.sysctl(&format!("ipv6/conf/{}/accept_dad", link.name), "0").unwrap();
        for state in ["up", "down"].iter().filter(|_| link.name != "lo") {
            host.ip(&format!("link set {} {state}", link.name)).unwrap();
        }
    }
}

/// Waits until a device has the address that the kernel assigns once it has carrier, and until each of its IPv6
/// addresses has its route, which the kernel creates a little later.
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
    /// Records links, addresses, routes, offloads, files of agents, and processes.
    pub fn of(host: &NetNs) -> Self {
        let mut parts = Vec::new();
        let mut add = |heading: &str, text: String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            // The kernel lists them in the order of creation; a device that was set down in between has another
            // position.
            lines.sort();
            parts.push((heading.to_owned(), lines));
        };
        let ip = |arguments: &str| host.ip(arguments).unwrap();
        add("links", ip("-details -oneline link"));
        add("addresses", ip("-oneline address").replace(" tentative", ""));
        for family in ["-4", "-6"] {
            // Memberships of groups add no routes, and the routes of a device without carrier are listed, too.
            add(&format!("routes {family}"), ip(&format!("{family} -oneline route show table all")));
        }
        for link in host.links().unwrap() {
            let features = host.exec(&format!("ethtool -k {}", link.name)).unwrap_or_default();
            add(&format!("features of {}", link.name), features);
            // Further MAC addresses that the device receives.
            add(&format!("MACs of {}", link.name), ip(&format!("maddress show dev {}", link.name)));
        }
        add("programs", programs(host));
        add("files", files(host));
        add("processes", processes(host));
        Self(parts)
    }

    /// Waits until the host has the recorded state, except for what the kernel changes by itself.
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
                "{after}: the host differs from before:\n{}",
                self.difference(&now)
            );
            thread::sleep(SETTLING);
        }
    }

    /// Waits until nothing of xbond's is left in addition to what was recorded, on a host that has other devices by
    /// now.
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

/// Lists programs of every kind, on every hook.
fn programs(host: &NetNs) -> String {
    host.exec("bpftool net show").unwrap()
}

/// Files that are no trace: an agent's lock stays; the next agent removes socket and witness of a killed one; and
/// found.json.new is a write in progress.
const PASSING: [&str; 5] = ["lock", "xbond.sock", "xbond.sock.new", "%netns", "found.json.new"];

/// Lists the files of agents of this namespace.
pub fn files(host: &NetNs) -> String {
    let cookie = host.cookie().unwrap().to_string();
    let mut text = String::new();
    for place in ["/run/xbond", "/sys/fs/bpf/xbond"].map(|place| Path::new(place).join(&cookie)) {
        walk(&place, &mut text);
    }
    text
}

/// Lists files and all directories below this one. A file that vanishes in the meantime is omitted.
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
    // A zombie has no namespace any more, and threads of this test have no pid of their own.
    pids.lines().filter(|pid| *pid != std::process::id().to_string()).filter_map(name).collect()
}
