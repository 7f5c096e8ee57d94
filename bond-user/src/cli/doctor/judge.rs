//! Turns observed facts into checks with their results.

use bond_core::name::shell_word;

use super::{Check, Verdict};
use crate::{
    report::wording,
    sys::{
        bypassed::Hooked, conflicts::Conflict, dataplane::Hook, enslave::Owner, ethtool::Feature,
        netdev::XdpFeatures, netlink::LinkInfo, offload::Role,
    },
};

const NOT_TRIED: &str = "not tried: that takes CAP_SYS_ADMIN, to make a network namespace for it";

/// Bytes; the maps and programs of a bond take some MB.
const LITTLE_MEMORY: u64 = 64 << 20;

/// The facts about the machine. Errors are texts of the failed calls.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    pub kernel: Result<String, String>,
    /// Whether the kernel is new enough for frames in fragments, and for tcx.
    pub has_xdp: bool,
    pub has_tcx: bool,
    pub capabilities: Result<(), String>,
    pub bpffs: bool,
    /// net.core.bpf_jit_enable; `None` if it cannot be read.
    pub jit: Option<u32>,
    /// The result of reading a device's state by a test run.
    pub device_state: Result<(), String>,
    /// The lockdown mode of the kernel.
    pub lockdown: Option<String>,
    /// The result of creating a veth pair, in a namespace of its own.
    pub veth: PairTrial,
    /// The result of creating a netkit pair there.
    pub netkit: PairTrial,
    /// The result of creating the devices of a clock there.
    pub clock: PairTrial,
    /// The result of mounting a writable sysfs.
    pub queue_ids: Result<(), String>,
    /// memory.max of the control group, in bytes; `None`: no limit.
    pub memory: Option<u64>,
    pub hypervisor: Option<&'static str>,
    pub agent: AgentFacts,
}

/// The agent of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentFacts {
    /// No agent runs.
    None,
    Answers {
        pid: u32,
        /// A sentence for each resource that the agent cannot get, and each bond that it does not manage.
        faults: Vec<String>,
        /// A sentence for each slave of its bonds that sends, and receives nothing back.
        one_way: Vec<String>,
    },
    /// An agent runs, but its report could not be read.
    Unknown(String),
}

/// Whether a device could be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairTrial {
    Yes,
    No(String),
    /// Creating a network namespace for the trial requires CAP_SYS_ADMIN.
    NotTried,
}

/// The facts about an interface.
#[derive(Clone, Debug)]
pub struct Nic {
    pub link: LinkInfo,
    /// Its role in a bond of xbond.
    pub owner: Option<Owner>,
    /// The text about what a bond that is gone has left on it.
    pub remains: Option<String>,
    /// Why it cannot be a slave.
    pub refusal: Option<String>,
    pub driver: Option<String>,
    pub is_virtual_function: bool,
    pub features: Vec<Feature>,
    pub xdp: Option<XdpFeatures>,
    pub has_speed: bool,
    /// Other programs that manage it.
    pub managers: Vec<&'static str>,
    /// The number of its PTP hardware clock.
    pub clock: Option<u32>,
    /// Whether its peer may be on this machine.
    pub has_local_peer: bool,
    /// Hooks of other programs at it.
    pub hooks: Vec<Hooked>,
    /// Whether it has the default route, or the address of the administrator's login.
    pub carries: Option<&'static str>,
    /// Addresses and devices on it that conflict with enslaving.
    pub conflicts: Vec<Conflict>,
    /// DHCP clients that listen on it.
    pub listeners: Vec<String>,
}

/// The checks of one subject.
#[derive(Default)]
struct Checks {
    interface: Option<String>,
    checks: Vec<Check>,
}

impl Checks {
    fn add(&mut self, verdict: Verdict, id: &'static str, text: impl Into<String>) {
        let interface = self.interface.clone();
        self.checks.push(Check { verdict, interface, id, text: text.into() });
    }

    fn ok(&mut self, id: &'static str, text: impl Into<String>) {
        self.add(Verdict::Ok, id, text);
    }

    fn warn(&mut self, id: &'static str, text: impl Into<String>) {
        self.add(Verdict::Warn, id, text);
    }

    fn fail(&mut self, id: &'static str, text: impl Into<String>) {
        self.add(Verdict::Fail, id, text);
    }
}

pub fn machine(found: &MachineFacts) -> Vec<Check> {
    let mut checks = Checks::default();
    kernel(found, &mut checks);
    programs(found, &mut checks);
    carrier_guard(found, &mut checks);
    pairs(found, &mut checks);
    clock(found, &mut checks);
    queues_and_memory(found, &mut checks);
    surroundings(found, &mut checks);
    checks.checks
}

/// Judges the kernel's version, and what this process may do.
fn kernel(found: &MachineFacts, checks: &mut Checks) {
    match &found.kernel {
        Ok(release) => checks.ok("kernel", format!("Linux {release}")),
        Err(error) => checks.fail("kernel", error),
    }
    match &found.capabilities {
        Ok(()) => checks.ok("capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON are there"),
        Err(error) => checks.fail("capabilities", error),
    }
    if found.has_tcx {
        checks.ok("tc", "programs attach by tcx, before all filters");
    } else {
        checks.warn(
            "tc",
            "programs attach as clsact filters, and filters of others may come first; Linux 6.6 has tcx",
        );
    }
    if found.has_xdp {
        checks.ok("xdp", "the kernel hands XDP programs frames in fragments");
    } else {
        checks.warn("xdp", "datapath=xdp needs Linux 5.18 (frames in fragments); use datapath=tc");
    }
}

/// Judges how BPF programs run, and where they are pinned.
fn programs(found: &MachineFacts, checks: &mut Checks) {
    match found.jit {
        Some(0) => {
            checks.warn("jit", "BPF programs are interpreted, and slow; sysctl -w net.core.bpf_jit_enable=1")
        }
        Some(_) => checks.ok("jit", "BPF programs are compiled"),
        None => {
            checks.ok("jit", "net.core.bpf_jit_enable cannot be read here; kernels without it always compile")
        }
    }
    if found.bpffs {
        checks.ok("bpffs", "/sys/fs/bpf is mounted");
    } else {
        checks.warn(
            "bpffs",
            "/sys/fs/bpf is no BPF file system: `xbond run` as root mounts it, the service does not; \
             mount -t bpf bpf /sys/fs/bpf",
        );
    }
}

/// Judges the pairs of devices of which a bond and its port consist.
fn pairs(found: &MachineFacts, checks: &mut Checks) {
    match &found.veth {
        PairTrial::Yes => checks.ok("veth", "pairs of devices can be made"),
        PairTrial::NotTried => checks.ok("veth", NOT_TRIED),
        PairTrial::No(error) if found.netkit == PairTrial::Yes => {
            checks.warn(
                "veth",
                format!("{error}; without veth there is no bond0 of datapath=xdp: modprobe veth"),
            );
        }
        PairTrial::No(error) => {
            checks.fail("veth", format!("{error}; without veth there is no bond0: modprobe veth"))
        }
    }
    let netkit = match found.netkit {
        PairTrial::Yes => "there: of datapath=tc, bond0 and its port are a netkit pair, unless pair=veth",
        PairTrial::NotTried => NOT_TRIED,
        PairTrial::No(_) => {
            "not there with 16 transmit queues (Linux 6.7 on, with CONFIG_NETKIT; 7.3 does not): bond0 and its port are a veth pair"
        }
    };
    checks.ok("netkit", netkit);
}

/// Judges the clock, by which an idle bond fails over and is announced without an agent.
fn clock(found: &MachineFacts, checks: &mut Checks) {
    match &found.clock {
        _ if matches!(found.veth, PairTrial::No(_)) => checks.ok("clock", "off: it needs a veth pair"),
        PairTrial::Yes if found.device_state.is_err() => checks.ok(
            "clock",
            "announces failovers without an agent; it does not fail over, as it cannot see links (carrier-guard)",
        ),
        PairTrial::Yes => checks.ok("clock", "an idle bond fails over and is announced without an agent"),
        PairTrial::NotTried => checks.ok("clock", NOT_TRIED),
        PairTrial::No(error) => checks.warn(
            "clock",
            format!(
                "{error}; without it an idle bond fails over and is announced only while an agent runs; it needs the \
                 qdisc tbf: modprobe sch_tbf"
            ),
        ),
    }
}

fn queues_and_memory(found: &MachineFacts, checks: &mut Checks) {
    match &found.queue_ids {
        Ok(()) => checks.ok("queue-id", "slaves can have a queue_id"),
        Err(error) => {
            checks.ok("queue-id", format!("no slave can have a queue_id, all else works: {error}"));
        }
    }
    match found.memory {
        Some(limit) if limit < LITTLE_MEMORY => {
            let text = format!(
                "this control group may have {} MB, of which the maps of bonds are part; raise memory.max to 64 MB \
                 or more",
                limit >> 20
            );
            checks.warn("memory", text);
        }
        _ => checks
            .ok("memory", "no limit that maps would reach: they count to the control group, not to memlock"),
    }
}

/// Judges the hypervisor below this machine, and the agent that runs here.
fn surroundings(found: &MachineFacts, checks: &mut Checks) {
    match found.hypervisor {
        Some(hypervisor) => {
            let text = format!(
                "{hypervisor}: its ports pass only their own NIC's MAC unless configured otherwise; use \
                 fail_over_mac=active, or allow other MACs there"
            );
            checks.warn("hypervisor", text);
        }
        None => checks.ok("hypervisor", "none that is known to refuse foreign MACs"),
    }
    match &found.agent {
        AgentFacts::None => checks.ok("agent", "none runs in this network namespace"),
        AgentFacts::Answers { pid, faults, .. } if faults.is_empty() => {
            checks.ok("agent", format!("pid {pid} runs and reports no faults of its own"));
        }
        AgentFacts::Answers { faults, .. } => faults.iter().for_each(|fault| checks.warn("agent", fault)),
        AgentFacts::Unknown(why) => checks.warn("agent", format!("its report is missing: {why}")),
    }
    if let AgentFacts::Answers { one_way, .. } = &found.agent {
        match one_way.as_slice() {
            [] => checks.ok("one-way", "no slave that the agent's bonds probe is suspected"),
            suspicions => suspicions.iter().for_each(|suspicion| checks.warn("one-way", suspicion)),
        }
    }
}

fn carrier_guard(found: &MachineFacts, checks: &mut Checks) {
    match (&found.device_state, found.lockdown.as_deref()) {
        (Ok(()), _) => checks.ok("carrier-guard", "the data plane can see by itself whether a link is alive"),
        (Err(_), Some("confidentiality")) => checks.warn(
            "carrier-guard",
            "the kernel is locked down for confidentiality and refuses bpf_probe_read_kernel: links are known by \
             netlink only; boot with lockdown=integrity",
        ),
        (Err(error), _) => {
            let text = format!(
                "the state of devices cannot be read: {error}; links are known by netlink only, as on kernels without \
                 BTF (CONFIG_DEBUG_INFO_BTF)"
            );
            checks.warn("carrier-guard", text);
        }
    }
}

pub fn nic(found: &Nic) -> Vec<Check> {
    let mut checks = Checks { interface: Some(found.link.name.clone()), checks: Vec::new() };
    slave_and_link(found, &mut checks);
    if let Some(text) = &found.remains {
        checks.warn("remains", text);
    }
    xdp(found, &mut checks);
    vlan(found, &mut checks);
    mac_and_speed(found, &mut checks);
    conflicts(found, &mut checks);
    hooks(found, &mut checks);
    managers(found, &mut checks);
    checks.checks
}

/// Judges whether the interface can be a slave, and whether its link is up.
fn slave_and_link(found: &Nic, checks: &mut Checks) {
    match (&found.owner, &found.refusal) {
        (Some(Owner { bond, role: Role::Slave }), _) => {
            checks.ok("slave", format!("is one already, of {bond}"));
        }
        (Some(Owner { bond, role: Role::Port }), _) => {
            checks.ok("slave", format!("is none, but the port of {bond}"));
        }
        (_, Some(refusal)) => {
            let of = format!("{}: ", found.link.name);
            checks.fail("slave", refusal.strip_prefix(&of).unwrap_or(refusal));
        }
        (_, None) => {
            let driver = found.driver.as_deref().unwrap_or("unknown");
            checks.ok("slave", format!("can be one (driver {driver})"));
        }
    }
    if !found.link.is_up() {
        checks.ok("link", "down; enslaving brings it up");
    } else if found.link.has_link() {
        checks.ok("link", "up, with carrier");
    } else {
        checks.warn("link", "up, without carrier; check its cable and the switch");
    }
}

/// Judges whether the interface receives for other MAC addresses, and what primary_reselect=better makes of its speed.
fn mac_and_speed(found: &Nic, checks: &mut Checks) {
    if found.is_virtual_function {
        checks.warn(
            "mac",
            "an SR-IOV virtual function, whose MAC the host may pin (spoof checking); use fail_over_mac=active, or \
             `ip link set PF vf N trust on spoofchk off` on the host",
        );
    } else if found.driver.as_deref() == Some("virtio_net") {
        checks.warn(
            "mac",
            "virtio: what the host lets pass is not seen from here; use fail_over_mac=active unless the host's \
             port takes other MACs (libvirt: trustGuestRxFilters, no clean-traffic filter)",
        );
    } else {
        checks.ok("mac", "nothing is known against another MAC");
    }
    if found.has_speed {
        checks.ok("speed", "known");
    } else {
        checks.warn(
            "speed",
            "unknown, which primary_reselect=better takes for the fastest; use always or failure",
        );
    }
}

/// Judges DHCP clients, addresses and devices on the interface, which conflict with a bond above it.
fn conflicts(found: &Nic, checks: &mut Checks) {
    if found.managers.is_empty() && found.listeners.is_empty() {
        checks.ok("managed", "no other network manager");
    }
    let bond = found.owner.as_ref().map_or("the bond", |owner| owner.bond.as_str());
    for listener in &found.listeners {
        let text = format!(
            "{listener} listens on it, as DHCP clients do: its addresses expire on {bond}; run it on {bond} instead"
        );
        checks.warn("managed", text);
    }
    for conflict in &found.conflicts {
        let id = match conflict {
            Conflict::Address(_) => "addresses",
            Conflict::Above { .. } => "above",
            Conflict::MplsRoutes { .. } => "mpls",
        };
        checks.warn(id, wording::conflict(conflict, &found.link.name, bond));
    }
}

/// Judges hooks of other programs, and uses of the interface itself that a bond does not have.
fn hooks(found: &Nic, checks: &mut Checks) {
    for hooked in found.hooks.iter().filter(|hooked| hooked.is_bypassed(Hook::Xdp)) {
        let bond = found.owner.as_ref().map_or("its bond", |owner| owner.bond.as_str());
        checks.warn("hooks", wording::bypassed(hooked, !hooked.is_bypassed(Hook::Tc), bond));
    }
    if let Some(clock) = found.clock {
        let text =
            format!("has /dev/ptp{clock}: run ptp4l on it, not on the bond, which has no hardware clock");
        checks.ok("ptp", text);
    }
    if found.has_local_peer {
        checks.ok("checksums", format!("only for datapath=xdp: {}", wording::PARTIAL_CHECKSUMS));
    }
    if found.hooks.is_empty() {
        checks.ok("hooks", "no chains or filters of other programs");
    }
}

/// Judges other programs that configure the interface, and traffic of this host that it carries.
fn managers(found: &Nic, checks: &mut Checks) {
    for manager in &found.managers {
        let text = format!("{manager} configures it as well; {}", unmanage(manager, &found.link.name));
        checks.warn("managed", text);
    }
    if let Some(what) = found.carries {
        let text = format!(
            "has {what}, which enslaving takes from it; have the bond take them (--move-addresses), for a trial first \
             (--confirm 60)"
        );
        checks.warn("traffic", text);
    }
}

fn unmanage(manager: &str, name: &str) -> String {
    match manager {
        "NetworkManager" => format!(
            "nmcli device set {} managed no, and permanently [device-{name}] match-device=interface-name:{name} \
             managed=0 in /etc/NetworkManager/conf.d",
            shell_word(name)
        ),
        _ => format!("put [Match] Name={name} [Link] Unmanaged=yes first into /etc/systemd/network"),
    }
}

fn xdp(found: &Nic, checks: &mut Checks) {
    if let (Some(xdp), Some(Owner { bond, .. })) = (found.link.xdp, &found.owner) {
        let text = format!("program id {} is attached; {bond} works with it", xdp.program);
        checks.ok("xdp", text);
        return;
    }
    if let Some(xdp) = found.link.xdp {
        let text = format!(
            "program id {} is attached: datapath=tc works with it; for datapath=xdp detach it: ip link set {} xdp off",
            xdp.program,
            shell_word(&found.link.name)
        );
        checks.warn("xdp", text);
        return;
    }
    match found.xdp {
        None => checks.ok("xdp", "the kernel does not say what the driver can (Linux 6.3 on); datapath=tc needs none"),
        Some(features) if !features.is_native() || !features.redirects() => {
            checks.warn("xdp", "the driver has no native XDP with redirects; use datapath=tc");
        }
        Some(features) if !features.has_fragments() => checks.warn(
            "xdp",
            "the driver's XDP takes no frames in fragments, so a large MTU may be refused; use datapath=tc, or an \
             MTU of 1500",
        ),
        Some(features) if !features.is_target() => checks.ok(
            "xdp",
            "native, with redirects and fragments; the driver takes redirected frames once it has a program",
        ),
        Some(_) => checks.ok("xdp", "native, with redirects and fragments"),
    }
}

fn vlan(found: &Nic, checks: &mut Checks) {
    let is_stuck = |name: &str| found.features.iter().any(|f| f.name == name && f.active && f.fixed);
    if is_stuck("rx-vlan-filter") {
        checks.warn(
            "vlan",
            "rx-vlan-filter cannot be turned off: the NIC is made promiscuous, so that VLANs on the bond are received; \
             nothing is to be done",
        );
    } else if is_stuck("rx-vlan-hw-parse") || is_stuck("rx-vlan-stag-hw-parse") {
        checks
            .warn("vlan", "the NIC always strips VLAN tags, which datapath=xdp would lose; use datapath=tc");
    } else {
        checks.ok("vlan", "nothing is filtered or stripped permanently");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{
        netlink::{AttachedXdp, LinkFlags, XdpMode},
        testing::link,
    };

    fn good_machine() -> MachineFacts {
        MachineFacts {
            kernel: Ok("6.18.0".into()),
            has_xdp: true,
            has_tcx: true,
            capabilities: Ok(()),
            bpffs: true,
            jit: Some(1),
            device_state: Ok(()),
            lockdown: Some("none".into()),
            veth: PairTrial::Yes,
            netkit: PairTrial::Yes,
            clock: PairTrial::Yes,
            queue_ids: Ok(()),
            memory: None,
            hypervisor: None,
            agent: AgentFacts::None,
        }
    }

    fn good_nic() -> Nic {
        let mut link = link(2, "eth0");
        link.flags |= LinkFlags::Running;
        link.carrier = true;
        Nic {
            owner: None,
            remains: None,
            link,
            refusal: None,
            driver: Some("ixgbe".into()),
            is_virtual_function: false,
            features: Vec::new(),
            xdp: Some(XdpFeatures::new(0x7f)),
            has_speed: true,
            managers: Vec::new(),
            clock: None,
            has_local_peer: false,
            hooks: Vec::new(),
            carries: None,
            conflicts: Vec::new(),
            listeners: Vec::new(),
        }
    }

    #[test]
    fn missing_resources_of_an_agent_are_warnings() {
        let of = |agent| {
            let checks = machine(&MachineFacts { agent, ..good_machine() });
            let of_agent = checks.into_iter().filter(|check| check.id == "agent");
            of_agent.map(|check| (check.verdict, check.text)).collect::<Vec<_>>()
        };
        let faults = ["metrics: address in use", "bond1: orphaned"].map(str::to_owned);
        let warned = of(AgentFacts::Answers { pid: 7, faults: faults.to_vec(), one_way: vec![] });
        assert_eq!(warned, faults.map(|fault| (Verdict::Warn, fault)));
        assert_eq!(of(AgentFacts::Answers { pid: 7, faults: vec![], one_way: vec![] })[0].0, Verdict::Ok);
        assert_eq!(of(AgentFacts::Unknown("it is stopped".into()))[0].0, Verdict::Warn);
    }

    #[test]
    fn suspicions_of_a_running_bond_are_warnings() {
        let of = |one_way| {
            let agent = AgentFacts::Answers { pid: 7, faults: vec![], one_way };
            let checks = machine(&MachineFacts { agent, ..good_machine() });
            let found = checks.into_iter().filter(|check| check.id == "one-way");
            found.map(|check| (check.verdict, check.text)).collect::<Vec<_>>()
        };
        let suspicion = "bond0: enp0s8: one-way suspicion".to_owned();
        assert_eq!(of(vec![suspicion.clone()]), [(Verdict::Warn, suspicion)]);
        assert_eq!(of(vec![])[0].0, Verdict::Ok);
    }

    #[test]
    fn a_healthy_machine_passes_every_check() {
        let checks = [machine(&good_machine()), nic(&good_nic())].concat();
        assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:#?}");
    }

    /// Each row has one fault, and the only text that it may cause.
    #[test]
    fn missing_features_are_reported_with_a_remedy() {
        type Change = fn(&mut MachineFacts);
        let table: [(Change, Verdict, &str, &str); 13] = [
            (|m| m.kernel = Err("Linux 5.4 is too old".into()), Verdict::Fail, "kernel", "too old"),
            (
                |m| m.capabilities = Err("xbond needs CAP_BPF; run it with sudo".into()),
                Verdict::Fail,
                "capabilities",
                "sudo",
            ),
            (|m| m.has_tcx = false, Verdict::Warn, "tc", "Linux 6.6"),
            (|m| m.has_xdp = false, Verdict::Warn, "xdp", "use datapath=tc"),
            (|m| m.jit = Some(0), Verdict::Warn, "jit", "bpf_jit_enable=1"),
            (|m| m.bpffs = false, Verdict::Warn, "bpffs", "mount -t bpf bpf /sys/fs/bpf"),
            (|m| m.device_state = Err("no BTF".into()), Verdict::Warn, "carrier-guard", "no BTF"),
            (
                |m| {
                    m.device_state = Err("EPERM".into());
                    m.lockdown = Some("confidentiality".into());
                },
                Verdict::Warn,
                "carrier-guard",
                "lockdown=integrity",
            ),
            (
                |m| m.veth = PairTrial::No("not supported".into()),
                Verdict::Warn,
                "veth",
                "no bond0 of datapath=xdp",
            ),
            (
                |m| {
                    m.veth = PairTrial::No("not supported".into());
                    m.netkit = PairTrial::No("not supported".into());
                },
                Verdict::Fail,
                "veth",
                "there is no bond0: modprobe veth",
            ),
            (|m| m.clock = PairTrial::No("ENOENT".into()), Verdict::Warn, "clock", "modprobe sch_tbf"),
            (|m| m.memory = Some(8 << 20), Verdict::Warn, "memory", "may have 8 MB"),
            (|m| m.hypervisor = Some("VirtualBox"), Verdict::Warn, "hypervisor", "fail_over_mac=active"),
        ];
        for (change, verdict, id, text) in table {
            let mut found = good_machine();
            change(&mut found);
            assert_one_is_bad(&machine(&found), verdict, id, text);
        }
    }

    #[test]
    fn obstacles_of_a_nic_are_reported_with_a_remedy() {
        let stuck = |name: &str| Feature { name: name.into(), active: true, wanted: true, fixed: true };
        type Change = Box<dyn Fn(&mut Nic)>;
        let table: Vec<(Change, Verdict, &str, &str)> = vec![
            (
                Box::new(|n| n.refusal = Some("eth0: already a port of bridge br0; remove it".into())),
                Verdict::Fail,
                "slave",
                "already a port of",
            ),
            (Box::new(|n| n.link.carrier = false), Verdict::Warn, "link", "without carrier"),
            (
                Box::new(|n| n.link.xdp = Some(AttachedXdp { program: 77, mode: XdpMode::Native })),
                Verdict::Warn,
                "xdp",
                "program id 77 is attached",
            ),
            (Box::new(|n| n.xdp = Some(XdpFeatures::default())), Verdict::Warn, "xdp", "no native XDP"),
            (Box::new(|n| n.xdp = Some(XdpFeatures::new(7))), Verdict::Warn, "xdp", "no frames in fragments"),
            (
                Box::new(move |n| n.features = vec![stuck("rx-vlan-filter")]),
                Verdict::Warn,
                "vlan",
                "promiscuous",
            ),
            (
                Box::new(move |n| n.features = vec![stuck("rx-vlan-hw-parse")]),
                Verdict::Warn,
                "vlan",
                "use datapath=tc",
            ),
            (Box::new(|n| n.is_virtual_function = true), Verdict::Warn, "mac", "SR-IOV"),
            (Box::new(|n| n.driver = Some("virtio_net".into())), Verdict::Warn, "mac", "virtio"),
            (Box::new(|n| n.has_speed = false), Verdict::Warn, "speed", "primary_reselect=better"),
            (
                Box::new(|n| n.managers = vec!["NetworkManager"]),
                Verdict::Warn,
                "managed",
                "nmcli device set eth0 managed no",
            ),
            (Box::new(|n| n.managers = vec!["systemd-networkd"]), Verdict::Warn, "managed", "Unmanaged=yes"),
            (
                Box::new(|n| n.remains = Some("eth0 was a slave of bond0".to_owned())),
                Verdict::Warn,
                "remains",
                "was a slave of bond0",
            ),
            (
                Box::new(|n| n.carries = Some("the default route")),
                Verdict::Warn,
                "traffic",
                "has the default route",
            ),
        ];
        for (change, verdict, id, text) in table {
            let mut found = good_nic();
            change(&mut found);
            assert_one_is_bad(&nic(&found), verdict, id, text);
        }
    }

    #[test]
    fn roles_that_xbond_gave_an_interface_are_no_obstacles() {
        let (slave, port) = ("is one already, of bond0", "is none, but the port of bond0");
        for (role, text) in [(Role::Slave, slave), (Role::Port, port)] {
            let mut found = good_nic();
            found.owner = Some(Owner { bond: "bond0".into(), role });
            found.refusal = Some("eth0: already a slave".into());
            found.link.xdp = Some(AttachedXdp { program: 77, mode: XdpMode::Native });
            let checks = nic(&found);
            assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:#?}");
            assert_eq!(checks[0].text, text);
        }
    }

    /// Unprivileged, or in a container: unknown facts cause no warning.
    #[test]
    fn an_untried_feature_is_no_failure() {
        let not_tried = PairTrial::NotTried;
        let not_tried = MachineFacts {
            veth: not_tried.clone(),
            netkit: not_tried.clone(),
            clock: not_tried,
            ..good_machine()
        };
        let no_sysfs = MachineFacts { queue_ids: Err("EROFS".into()), ..good_machine() };
        for found in [not_tried, no_sysfs] {
            let checks = machine(&found);
            assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:#?}");
        }
    }

    #[track_caller]
    fn assert_one_is_bad(checks: &[Check], verdict: Verdict, id: &str, text: &str) {
        let bad: Vec<_> = checks.iter().filter(|check| check.verdict != Verdict::Ok).collect();
        let [bad] = bad[..] else { panic!("{id}: {bad:#?}") };
        assert!(bad.verdict == verdict && bad.id == id && bad.text.contains(text), "{id}: {bad:#?}");
    }
}
