//! Programs that hold the interface of a bond, and lose it when another one takes its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{report::wording, sys::netlink::LinkInfo};

/// Programs that keep the ifindex of an interface, by their names in /proc/PID/comm, and what they are.
const KEEPERS: [(&str, &str); 21] = [
    ("dhclient", "DHCP client"),
    ("dhcpcd", "DHCP client"),
    ("udhcpc", "DHCP client"),
    ("systemd-network", "network manager"),
    ("NetworkManager", "network manager"),
    ("connmand", "network manager"),
    ("wickedd", "network manager"),
    ("bird", "routing daemon"),
    ("bird6", "routing daemon"),
    ("zebra", "routing daemon"),
    ("bgpd", "routing daemon"),
    ("ospfd", "routing daemon"),
    ("ospf6d", "routing daemon"),
    ("babeld", "routing daemon"),
    ("keepalived", "VRRP daemon"),
    ("radvd", "router advertisement daemon"),
    ("dnsmasq", "DHCP server"),
    ("dhcpd", "DHCP server"),
    ("lldpd", "LLDP daemon"),
    ("avahi-daemon", "mDNS daemon"),
    ("corosync", "cluster daemon"),
];

/// A process.
type Program = (u32, String);

/// Returns a sentence for each program that loses the bond's interface, and for what is bound to it.
pub fn warnings(bond: &str, stack: &[LinkInfo]) -> Vec<String> {
    let processes = processes(Path::new("/proc"));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let names: BTreeMap<u32, &str> = stack.iter().map(|link| (link.ifindex, &*link.name)).collect();
    let mut warnings = Vec::new();
    let mut holders = BTreeSet::new();
    for (ifindex, inode) in packet_sockets(&read("/proc/self/net/packet")) {
        let Some(name) = names.get(&ifindex) else { continue };
        match owner(&processes, inode) {
            Some((pid, program)) => {
                holders.insert(pid);
                warnings.push(wording::takeover_packet_socket(&program, pid, name));
            }
            None => warnings.push(wording::takeover_packet_socket_of_unknown(name)),
        }
    }
    for (pid, program) in &processes {
        let kind = KEEPERS.iter().find(|(name, _)| program.as_str() == *name);
        if let Some((_, kind)) = kind.filter(|_| !holders.contains(pid)) {
            warnings.push(wording::takeover_keeper(program, pid, kind, bond));
        }
    }
    for (device, groups) in joined_groups(&read("/proc/self/net/igmp")) {
        if names.values().any(|name| *name == device) {
            warnings.push(wording::takeover_groups(&device, groups.join(", ")));
        }
    }
    warnings
}

/// Returns interface and inode of each packet socket that is bound to one, from the text of /proc/net/packet.
fn packet_sockets(text: &str) -> Vec<(u32, u64)> {
    let socket = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (ifindex, inode) = (words.get(4)?.parse().ok()?, words.last()?.parse().ok()?);
        Some((ifindex, inode)).filter(|(ifindex, _)| *ifindex != 0)
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// Returns the multicast groups that programs have joined on each interface, from the text of /proc/net/igmp.
fn joined_groups(text: &str) -> Vec<(String, Vec<String>)> {
    /// The kernel joins it by itself.
    const ALL_HOSTS: [u8; 4] = [224, 0, 0, 1];
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut device = String::new();
    for line in text.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        if line.starts_with(char::is_numeric) {
            device = words.get(1).map_or_else(String::new, |name| name.trim_end_matches(':').to_owned());
            continue;
        }
        let group = words.first().and_then(|group| u32::from_str_radix(group, 16).ok());
        let Some(group) = group.map(u32::to_ne_bytes).filter(|group| *group != ALL_HOSTS) else { continue };
        let group = std::net::Ipv4Addr::from(group).to_string();
        match found.iter_mut().find(|(name, _)| *name == device) {
            Some((_, groups)) => groups.push(group),
            None => found.push((device.clone(), vec![group])),
        }
    }
    found
}

fn processes(proc: &Path) -> Vec<Program> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let process = |path: PathBuf| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned()))
    };
    entries.filter_map(|entry| process(entry.path())).collect()
}

/// Returns the process that has a socket open.
fn owner(processes: &[Program], inode: u64) -> Option<Program> {
    let wanted = format!("socket:[{inode}]");
    let has = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target.as_os_str() == wanted.as_str())
    };
    processes.iter().find(|(pid, _)| has(*pid)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_sockets_of_an_interface_are_found_by_ifindex_and_inode() {
        let text = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                    ffff888003a7b000 3      3    0003   5     1 0      0      20941\n\
                    ffff888003a7b800 3      2    88cc   0     1 0      101    20942\n\
                    broken\n";
        assert_eq!(packet_sockets(text), [(5, 20941)]);
    }

    #[test]
    fn groups_that_programs_joined_are_found() {
        let text = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                    1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                    5\tbond0     :     2      V3\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n\
                    \t\t\t\t010000E0     1 0:00000000\t\t0\n";
        assert_eq!(joined_groups(text), [("bond0".to_owned(), vec!["224.0.0.251".to_owned()])]);
    }

    /// This process has a socket and is found by it.
    #[test]
    fn the_owner_of_a_socket_is_found() {
        use std::os::{fd::AsRawFd as _, unix::net::UnixDatagram};
        let socket = UnixDatagram::unbound().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let text = link.to_string_lossy().into_owned();
        let inode = text.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap();
        let found = owner(&processes(Path::new("/proc")), inode).unwrap();
        assert_eq!(found.0, std::process::id());
    }
}
