//! Observes the machine and its interfaces without changing them.

use std::{collections::HashSet, fs, thread, time::Duration};

use anyhow::{Result, anyhow};
use bond_common::mac::Mac;
use bond_core::{event::Speed, name::BondName};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};

use super::{
    Check,
    judge::{self, AgentFacts, MachineFacts, Nic, PairTrial},
};
use crate::{
    api::Endpoint,
    cli::{
        check::strict_hypervisor,
        client::{self, NoAgent},
        traffic,
    },
    report::{
        json::{Bond, Report, Slave},
        wording,
    },
    store::{
        elsewhere::{self, FormerSlave},
        paths::{self as paths, Paths},
        record::owner_of,
    },
    sys::{
        Devices, KernelDevices,
        alias::Mark,
        caps,
        clock::{self, ClockNames},
        dataplane::{DeviceReader, Hook, Kernel},
        directory::Trust,
        enslave::EnslavePlan,
        netdev::Netdev,
        netlink::{LinkInfo, LinkLayerType, PairKind, PairPlan},
        netns,
        offload::Role,
        sysfs::Sysfs,
    },
};

/// The default MTU in bytes.
const USUAL_MTU: u32 = 1500;
const LOOPBACK: u32 = 1;

/// Checks the machine, then these interfaces; all Ethernet devices that are above no other device if none is named.
///
/// # Errors
/// An interface that is named does not exist, or the links cannot be read.
pub fn at(interfaces: &[String]) -> Result<Vec<Check>> {
    let mut checks = judge::machine(&machine());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let devices = KernelDevices::open()?;
        let links = devices.netlink.links(None).await?;
        let named = |name: &String| {
            let has_name = |link: &&LinkInfo| link.name == *name || link.altnames.contains(name);
            let found = links.iter().find(has_name).cloned();
            found.ok_or_else(|| anyhow!("{name}: no such interface in this network namespace"))
        };
        let observer = Observer::open(&devices)?;
        let chosen: Vec<LinkInfo> = if interfaces.is_empty() {
            links.iter().filter(|link| could_be_slave(link) && !observer.is_made(link)).cloned().collect()
        } else {
            interfaces.iter().map(named).collect::<Result<_>>()?
        };
        for link in chosen {
            checks.extend(judge::nic(&observer.nic(link).await?));
        }
        anyhow::Ok(())
    })?;
    Ok(checks)
}

/// Returns whether a link is hardware, or of a virtual kind that is used for slaves and not a guest's at a bridge.
fn could_be_slave(link: &LinkInfo) -> bool {
    let is_guests = link.kind.is_some() && link.master.is_some();
    link.layer == LinkLayerType::Ether
        && matches!(link.kind.as_deref(), None | Some("veth" | "tun" | "dummy"))
        && !is_guests
}

fn machine() -> MachineFacts {
    let kernel = Kernel::check(Hook::Tc, USUAL_MTU).map(|()| release()).map_err(|error| error.to_string());
    let read = Kernel::read();
    MachineFacts {
        kernel,
        has_xdp: Kernel::check(Hook::Xdp, USUAL_MTU).is_ok(),
        has_tcx: read.has_tcx(),
        capabilities: caps::check().map_err(|error| error.to_string()),
        bpffs: paths::has_bpffs(),
        jit: number("/proc/sys/net/core/bpf_jit_enable").and_then(|jit| jit.try_into().ok()),
        device_state: DeviceReader::new(&read)
            .and_then(|reader| reader.read(LOOPBACK))
            .map(drop)
            .map_err(|error| error.to_string()),
        lockdown: lockdown(),
        veth: can_make_pair(PairKind::Veth),
        netkit: can_make_pair(PairKind::Netkit),
        clock: can_make(async |devices: &KernelDevices| {
            let bond = BondName::new("bond0".to_owned())?;
            let names = ClockNames::free(devices, &bond).await?;
            clock::create(devices, &names, &Mark::of(&bond), CLOCK_PERIOD).await?;
            Ok(())
        }),
        queue_ids: Sysfs::mount().map(drop).map_err(|error| error.to_string()),
        memory: memory_limit(),
        hypervisor: strict_hypervisor(),
        agent: agent_facts(),
    }
}

fn agent_facts() -> AgentFacts {
    match client::request::<Report>(&Endpoint::Bonds.call(), None) {
        Ok(report) => {
            let orphaned = report.orphaned.iter().map(|name| format!("{name}: {}", wording::ORPHANED));
            let faults = report.missing.iter().chain(&report.gone).cloned().chain(orphaned).collect();
            let of_bond = |bond: &Bond| {
                let slaves = bond.slaves.iter();
                let of_slave = |slave: &Slave| wording::one_way_suspicion(&slave.name, slave.path.as_ref()?);
                slaves.filter_map(of_slave).map(|text| format!("{}: {text}", bond.name)).collect::<Vec<_>>()
            };
            let one_way = report.bonds.iter().flat_map(of_bond).collect();
            AgentFacts::Answers { pid: report.agent.map_or(0, |agent| agent.pid), faults, one_way }
        }
        Err(error) if error.is::<NoAgent>() => AgentFacts::None,
        Err(error) => AgentFacts::Unknown(error.to_string()),
    }
}

fn release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "?".into(), |names| names.release().to_string_lossy().into_owned())
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Returns the mode in brackets of `none integrity [confidentiality]`.
fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Returns memory.max of this process' control group (version 2).
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{path}/memory.max"))
}

/// The period of a clock whose configuration has none.
const CLOCK_PERIOD: Duration = Duration::from_millis(10);

/// The number of queues of a bond's pair, which some kernels refuse for netkit.
const QUEUES: u32 = 16;

/// Creates a pair for a bond.
fn can_make_pair(kind: PairKind) -> PairTrial {
    can_make(async move |devices: &KernelDevices| {
        let mac = Mac::new([0x02, 0, 0, 0, 0, 1]);
        let plan =
            PairPlan { bond: "bond0", port: "bond0-port", mac, mtu: USUAL_MTU, queues: QUEUES, mark: None };
        devices.netlink.create_pair(kind, &plan).await?;
        Ok(())
    })
}

/// Creates something in a network namespace of its own, which vanishes with its thread.
fn can_make(create: impl AsyncFnOnce(&KernelDevices) -> Result<()> + Send + 'static) -> PairTrial {
    let make = move || -> Result<Option<()>> {
        // Not allowed in a container, or without root, which is no fault of pairs.
        if unshare(CloneFlags::CLONE_NEWNET) == Err(Errno::EPERM) {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            create(&KernelDevices::open()?).await?;
            Ok(Some(()))
        })
    };
    let thread = match thread::Builder::new().spawn(make) {
        Ok(thread) => thread,
        Err(error) => return PairTrial::No(wording::no_thread(error)),
    };
    match thread.join() {
        Ok(Ok(Some(()))) => PairTrial::Yes,
        Ok(Ok(None)) => PairTrial::NotTried,
        Ok(Err(error)) => PairTrial::No(error.to_string()),
        Err(_) => PairTrial::No(wording::attempt_failed()),
    }
}

/// Facts that are read once for all interfaces.
struct Observer<'a> {
    devices: &'a KernelDevices,
    netdev: Option<Netdev>,
    paths: Paths,
}

impl<'a> Observer<'a> {
    fn open(devices: &'a KernelDevices) -> Result<Self> {
        Ok(Self { devices, netdev: Netdev::open().ok().flatten(), paths: Paths::of(netns::cookie()?) })
    }

    /// Returns whether xbond created the link, for a bond.
    fn is_made(&self, link: &LinkInfo) -> bool {
        let owner = owner_of(&self.paths, link);
        owner.is_some_and(|owner| owner.role != Role::Slave && link.is_end_of_pair())
    }

    /// Returns the text about a link that has the alias of a bond and is none of its devices.
    fn remains(&self, link: &LinkInfo) -> Option<String> {
        let alias = link.alias.as_ref().filter(|alias| alias.is_mark())?;
        let text = alias.text();
        let bond = text.split_once(':').map_or(&*text, |(_, bond)| bond);
        let former = elsewhere::read(&self.paths, Trust::Anyones).unwrap_or_default();
        let is_it = |former: &&FormerSlave| {
            former.found.ifindex == link.ifindex
                || former.found.permanent_mac.is_some() && former.found.permanent_mac == link.permanent_mac
        };
        let former = former.iter().filter(|former| Mark::of(&former.bond).is_on(link)).find(is_it);
        let remedy = match former {
            Some(former) => wording::restoring(&former.found, &link.name),
            None => wording::cleaning(&link.name, link.permanent_mac.filter(|&mac| mac != link.mac)),
        };
        let text = wording::left_on(&link.name, bond, &remedy);
        let tries = former.map_or(0, |former| former.tries);
        Some(if tries > 0 { wording::left_after(&text, tries) } else { text })
    }

    async fn nic(&self, link: LinkInfo) -> Result<Nic> {
        let KernelDevices { netlink, ethtool, .. } = self.devices;
        let devices: &dyn Devices = self.devices;
        let plan = EnslavePlan { mac: None, mtu: USUAL_MTU, hook: Hook::Tc, unicast: Vec::new() };
        let observed = devices.observe((&link.name, None), &plan, |link| owner_of(&self.paths, link)).await;
        let carries = traffic::carried_by(netlink, link.ifindex).await?;
        let owner = owner_of(&self.paths, &link);
        Ok(Nic {
            remains: if owner.is_none() { self.remains(&link) } else { None },
            owner,
            refusal: observed.err().map(|error| error.to_string()),
            driver: ethtool.driver(link.ifindex),
            is_virtual_function: fs::exists(format!("/sys/class/net/{}/device/physfn", link.name))
                .unwrap_or(false),
            features: ethtool.features(link.ifindex).unwrap_or_default(),
            xdp: self.netdev.as_ref().and_then(|netdev| netdev.xdp_features(link.ifindex).ok().flatten()),
            has_speed: !link.is_up() || ethtool.speed(link.ifindex).0 != Speed::UNKNOWN,
            managers: managers(link.ifindex),
            clock: ethtool.hardware_clock(link.ifindex),
            has_local_peer: ethtool.has_peer_on_this_machine(link.ifindex),
            hooks: self.devices.hooked(link.ifindex, &link.name).await.unwrap_or_default(),
            carries,
            conflicts: devices.conflicts(link.ifindex).await.unwrap_or_default(),
            listeners: listeners(link.ifindex),
            link,
        })
    }
}

/// Programs that configure interfaces by DHCP, with their names in /proc (15 characters at most).
const DHCP_CLIENTS: [&str; 8] =
    ["dhclient", "dhcpcd", "udhcpc", "udhcpc6", "dhcp6c", "NetworkManager", "systemd-network", "connmand"];

/// Returns the DHCP clients that listen on an interface by a packet socket, as far as this process may see them.
fn listeners(ifindex: u32) -> Vec<String> {
    let is_client = |name: &str| DHCP_CLIENTS.contains(&name);
    let named = packet_listeners(ifindex).into_iter().filter(|(_, name)| is_client(name));
    named.map(|(pid, name)| format!("{name} (pid {pid})")).collect()
}

/// Returns the processes with a packet socket that is bound to an interface, by pid and name. Only root sees the
/// processes of other users.
fn packet_listeners(ifindex: u32) -> Vec<(u32, String)> {
    // The file of this thread: the process may be in another network namespace.
    let sockets = fs::read_to_string("/proc/thread-self/net/packet").unwrap_or_default();
    let inode_on = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let inode = fields.get(8)?;
        (fields.get(4)?.parse() == Ok(ifindex)).then(|| format!("socket:[{inode}]"))
    };
    let inodes: HashSet<_> = sockets.lines().skip(1).filter_map(inode_on).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let numbers = |path: &str| -> Vec<u32> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let holds = |pid: &u32| {
        let directory = format!("/proc/{pid}/fd");
        numbers(&directory).into_iter().any(|fd| {
            let target = fs::read_link(format!("{directory}/{fd}"));
            target.is_ok_and(|target| target.to_str().is_some_and(|target| inodes.contains(target)))
        })
    };
    let name =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    numbers("/proc").into_iter().filter(holds).map(|pid| (pid, name(pid))).collect()
}

fn managers(ifindex: u32) -> Vec<&'static str> {
    let file = |path: &str| fs::read_to_string(format!("{path}/{ifindex}")).unwrap_or_default();
    let network_manager =
        file("/run/NetworkManager/devices").lines().any(|line| line.trim() == "managed=true");
    let networkd = file("/run/systemd/netif/links");
    let networkd = networkd.lines().any(|line| {
        line.strip_prefix("ADMIN_STATE=")
            .is_some_and(|state| !matches!(state, "unmanaged" | "initialized" | "pending"))
    });
    [("NetworkManager", network_manager), ("systemd-networkd", networkd)]
        .into_iter()
        .filter(|(_, manages)| *manages)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{
        announcer::FrameSocket,
        testing::{in_namespace, veth},
    };

    #[test]
    fn processes_that_listen_on_an_interface_by_a_packet_socket_are_found() {
        in_namespace(async |devices| {
            let (link, far) = veth(&devices, "eth1", "far1").await;
            let listener = FrameSocket::open(link.ifindex).unwrap();
            let here = std::process::id();
            let found = |ifindex| packet_listeners(ifindex).iter().any(|(pid, _)| *pid == here);
            assert!(found(link.ifindex) && !found(far.ifindex));
            drop(listener);
            assert!(!found(link.ifindex));
        });
    }
}
