//! The data plane of one bond: its programs loaded and attached, its maps, and their pins.

mod btf;
mod kernel;
mod link;
mod mapped;
mod netkit;
mod watched;
pub mod witness;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{DevMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf},
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
    },
};
use aya_log::EbpfLogger;
use bond_common::{
    abi::{
        ABI_VERSION, ActiveWord, BondEntry, DeviceState, GuardEntry, LinkQuestion, PORT_STATS, ProbeTimes,
        Rank, SlaveEntry, Slot, Targets, WireMacs,
    },
    counters::SlotStats,
    event::EventRecord,
    mac::Mac,
    names,
};
use netkit::DeviceHook;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

pub use kernel::{Kernel, KernelError, TcAttach};
pub use link::DeviceLink;
use mapped::Mapped;
pub use watched::{At, AtHook, Watched};

use super::{
    SysError,
    directory::{Directory, Kind, Location, Trust},
    netlink::BlockingNetlink,
};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bond-ebpf"));

/// Which hooks carry the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Tc,
    /// In the driver.
    Xdp,
    /// In the stack, for devices whose driver has no XDP: slower than tc.
    XdpGeneric,
}

impl Hook {
    fn port_program(self) -> &'static str {
        match self {
            Self::Tc => names::TC_PORT_TX,
            Self::Xdp | Self::XdpGeneric => names::XDP_PORT_TX,
        }
    }

    fn slave_program(self) -> &'static str {
        match self {
            Self::Tc => names::TC_SLAVE_RX,
            Self::Xdp | Self::XdpGeneric => names::XDP_SLAVE_RX,
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
        })
    }
}

/// What can go wrong between xbond and the kernel's BPF.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    #[error("cannot load the BPF programs: {}", error_chain(.0))]
    Load(#[from] aya::EbpfError),
    #[error("cannot load the BPF program {name}: {}", error_chain(.source))]
    Program { name: &'static str, source: ProgramError },
    #[error("the BPF object has no {0}; it was built from other sources")]
    Missing(&'static str),
    #[error("cannot attach {hook} to {device}: {reason}")]
    Attach { hook: Hook, device: String, reason: String },
    #[error("the BPF map {name}: {}", error_chain(.source))]
    Map { name: &'static str, source: aya::maps::MapError },
    #[error("the device map {name}: {}", error_chain(.source))]
    DevMap { name: &'static str, source: aya::maps::xdp::XdpMapError },
    #[error("{0} exists: the bond runs, or was left behind; take it away with `xbond down BOND --force`")]
    Exists(PathBuf),
    #[error(
        "{0}: the bond's pins are gone (bpffs unmounted?); to have it made anew: xbond down, then xbond add"
    )]
    Unpinned(PathBuf),
    #[error("{path}: {source}")]
    Pin { path: PathBuf, source: io::Error },
    #[error("the kernel's log of the programs: {0}")]
    Log(#[from] aya_log::Error),
    #[error("the kernel's types cannot be read from /sys/kernel/btf/vmlinux")]
    NoTypes,
    #[error("the state of device {ifindex}: {reason}")]
    DeviceState { ifindex: u32, reason: String },
}

/// A program at its hook.
enum Attached {
    /// It stays as long as the pin, whoever dies, and as long as [`Held`] has it.
    Link,
    /// A clsact filter, of kernels without tcx (before 6.6): it stays until it is removed.
    Filter(SchedClassifierLink),
    /// One that another agent attached. It cannot be replaced without a gap, and goes on as it is.
    KeptFilter(KeptFilter),
}

struct KeptFilter {
    device: String,
}

impl Drop for KeptFilter {
    fn drop(&mut self) {
        detach_filters(&self.device);
    }
}

/// What is pinned under a bond's directory, by the names of the pins: maps, programs and links. It stays when the pins are
/// removed, and can be pinned again.
#[derive(Default)]
struct Held(BTreeMap<String, Arc<OwnedFd>>);

impl Held {
    /// The maps, from their pins.
    fn maps(pins: &Directory) -> Result<Self, DataPlaneError> {
        let mut held = Self::default();
        names::PINNED_MAPS.into_iter().try_for_each(|name| held.take(pins, name))?;
        Ok(held)
    }

    fn take(&mut self, pins: &Directory, name: &str) -> Result<(), DataPlaneError> {
        let pin_error = |source| DataPlaneError::Pin { path: pins.shown(name), source };
        let object = netkit::open(&pins.path_of(name)).map_err(pin_error)?;
        self.0.insert(name.to_owned(), Arc::new(object));
        Ok(())
    }

    /// A program, and its link if it has one.
    fn take_program(&mut self, pins: &Directory, pin: &str) -> Result<(), DataPlaneError> {
        let ends = [names::PROGRAM_PIN, names::LINK_PIN].map(|end| format!("{pin}_{end}"));
        ends.iter().filter(|name| pins.has(name)).try_for_each(|name| self.take(pins, name))
    }

    fn get(&self, name: &str) -> Option<&Arc<OwnedFd>> {
        self.0.get(name)
    }

    /// Takes a program from its hook, if it is a link, and holds it no more. It is detached here and not by the last
    /// descriptor, which another thread may have.
    fn release(&mut self, pin: &str) {
        if let Some(link) = self.0.remove(&format!("{pin}_{}", names::LINK_PIN)) {
            // A link without a device is detached already.
            let _ = netkit::detach(link.as_fd());
        }
        self.0.remove(&format!("{pin}_{}", names::PROGRAM_PIN));
    }
}

/// While it is held, bond0 takes frames with MACs that it had: [`DataPlane::accept_former_macs`].
pub struct FormerMacs {
    _link: SchedClassifierLink,
}

/// Where the program goes that has what bond0, or whoever is behind an existing port, sends: to the port's ingress.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    pub device: &'a str,
    pub ifindex: u32,
    /// ifindex of bond0 where it and the port are a netkit pair: the program then runs as bond0 sends, too, and sends
    /// from there.
    pub netkit: Option<u32>,
    /// bond0, where it and the port are a pair and both are in the agent's network namespace. Without it the programs at the
    /// egress of the ends stay as they are.
    pub bond: Option<&'a str>,
}

/// The data plane of one bond. Dropping it leaves everything where it is; [`Self::remove`] takes it away.
pub struct DataPlane {
    dir: Location,
    hook: Hook,
    kernel: Arc<Kernel>,
    maps: Arc<Maps>,
    /// The object with the port's program, until that is at its hook.
    port_object: Option<Ebpf>,
    /// The program that is sometimes on bond0.
    host_program: SchedClassifier,
    events: Option<RingBuf<MapData>>,
    port: Option<Attached>,
    slaves: [Option<Attached>; bond_common::abi::MAX_SLAVES],
    /// Under XDP, what copies link-local frames behind the slave's program.
    locals: [Option<Attached>; bond_common::abi::MAX_SLAVES],
    /// What is pinned.
    held: Held,
    tx_ports: DevMap<MapData>,
    rx_port: DevMap<MapData>,
}

impl DataPlane {
    /// Creates the maps, pins them under `dir`, which must not exist, and loads the port's program.
    pub fn create(dir: &Location, hook: Hook, kernel: Arc<Kernel>) -> Result<Self, DataPlaneError> {
        let pin_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => DataPlaneError::Exists(dir.path()),
            _ => DataPlaneError::Pin { path: dir.path(), source },
        };
        dir.create(0o700).map_err(pin_error)?;
        Self::fill(dir, hook, kernel).inspect_err(|_| {
            // Nothing was attached; what could not be removed is named by the next attempt.
            let _ = remove_pins(dir);
        })
    }

    fn fill(dir: &Location, hook: Hook, kernel: Arc<Kernel>) -> Result<Self, DataPlaneError> {
        let pins = open(dir)?;
        let mut object = load_object(&pins, &kernel, PORT_STATS)?;
        // Before the maps are taken out: loading needs them open.
        load(&mut object, hook.port_program(), hook)?;
        for name in [names::TC_HOST_RX, names::TC_PORT_EGRESS, names::TC_BOND_EGRESS] {
            load(&mut object, name, Hook::Tc)?;
        }
        let host_program = take_classifier(&mut object, names::TC_HOST_RX, &pins)?;
        let tx_ports = dev_map(&mut object, names::TX_PORTS)?;
        let rx_port = dev_map(&mut object, names::RX_PORT)?;
        let events = RingBuf::try_from(take(&mut object, names::EVENTS)?)
            .map_err(|source| DataPlaneError::Map { name: names::EVENTS, source })?;
        let maps = Maps::take(&mut object)?;
        Ok(Self {
            dir: dir.clone(),
            hook,
            kernel,
            maps: Arc::new(maps),
            port_object: Some(object),
            host_program,
            events: Some(events),
            port: None,
            slaves: Default::default(),
            locals: Default::default(),
            held: Held::maps(&pins)?,
            tx_ports,
            rx_port,
        })
    }

    /// Takes over what another agent has left under `dir`, which [`Self::left`] has found whole: the maps stay, and so do
    /// the programs until [`Self::replace_port`] and [`Self::replace_slave`].
    pub fn adopt(dir: &Location, hook: Hook, kernel: Arc<Kernel>) -> Result<Self, DataPlaneError> {
        Self::fill(dir, hook, kernel)
    }

    /// Whether the pins are where they were put.
    pub fn check_pins(&self) -> Result<(), DataPlaneError> {
        check_pins(&self.dir)
    }

    /// What is under `dir`, to look at before anything is touched.
    pub fn left(dir: &Location) -> Result<Result<Maps, Unfit>, DataPlaneError> {
        let pins = match open(dir) {
            Err(DataPlaneError::Pin { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(Unfit::NoPort));
            }
            answer => answer?,
        };
        // It comes after the maps, of which there may be some only as long as it is not there.
        if !pins.has(&format!("{PORT_PIN}_{}", names::PROGRAM_PIN)) {
            return Ok(Err(Unfit::NoPort));
        }
        if let Some(missing) = names::PINNED_MAPS.into_iter().find(|name| !pins.has(name)) {
            return Ok(Err(Unfit::NoMap(missing)));
        }
        let found = Maps::abi_version(&pins)?;
        if found != ABI_VERSION {
            return Ok(Err(Unfit::OtherVersion(found)));
        }
        Maps::open_in(&pins).map(Ok)
    }

    /// Puts this version's program in place of the one at the port; no packet is without one. Where another process has
    /// detached it, or removed the pin of its link, it is attached again; returns whether that was so.
    pub fn replace_port(&mut self, port: &Port<'_>) -> Result<bool, DataPlaneError> {
        let &Port { device, ifindex, netkit, .. } = port;
        let pins = open(&self.dir)?;
        let at = Place { dir: &pins, pin: PORT_PIN, device, ifindex, side: TcAttachType::Ingress };
        let way = self.way();
        let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(self.hook.port_program()))?;
        self.port = if way.is_link() && !at.is_there(names::LINK_PIN) {
            None
        } else {
            replace(object, self.hook.port_program(), way, &at)?
        };
        let is_attached = self.port.is_some() && (netkit.is_none() || self.replace_at_bond(device, &pins)?);
        if is_attached {
            self.held.take_program(&pins, PORT_PIN)?;
            if netkit.is_some() {
                self.held.take_program(&pins, BOND_PIN)?;
            }
            self.part_ends(port)?;
        } else {
            self.remove_port_pins(&pins)?;
            self.attach_port(port)?;
        }
        Ok(!is_attached)
    }

    /// The same where bond0 sends. False if the link is not at its hook, or has no pin.
    fn replace_at_bond(&self, port: &str, pins: &Directory) -> Result<bool, DataPlaneError> {
        let mut is_detached = false;
        let replaced = self.at_bond(port, |program| {
            let update = || {
                let link = netkit::open(&pins.path_of(BOND_LINK_PIN))?;
                netkit::update(link.as_fd(), program)
            };
            update().inspect_err(|error: &io::Error| {
                is_detached = matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENOENT));
            })
        });
        match replaced {
            Ok(()) => Ok(true),
            Err(_) if is_detached => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_port_pins(&mut self, pins: &Directory) -> Result<(), DataPlaneError> {
        forget(self.port.take());
        for pin in [PORT_PIN, BOND_PIN] {
            self.held.release(pin);
            remove_pins_of(pins, pin)?;
        }
        Ok(())
    }

    /// Keeps link-local frames of a pair's two ends apart: a daemon that speaks LLDP on every interface would find bond0
    /// and its port to be neighbours. Where bond0 is in another namespace, what is attached stays as it is. Before Linux
    /// 6.6 there is no tcx, and a filter would need a qdisc on bond0, which is the administrator's.
    fn part_ends(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        let &Port { device, ifindex, netkit, bond: Some(bond) } = port else { return Ok(()) };
        if self.kernel.tc() == TcAttach::Clsact {
            return Ok(());
        }
        let pins = open(&self.dir)?;
        // With XDP, and as a netkit pair sends, nobody at the port hears what bond0 sends.
        let speaks_to_port = self.hook == Hook::Tc && netkit.is_none();
        let at_bond = [(names::TC_BOND_EGRESS, BOND_EGRESS_PIN, bond)];
        let ends = [(names::TC_PORT_EGRESS, PORT_EGRESS_PIN, device)];
        for (name, pin, device) in ends.into_iter().chain(at_bond.into_iter().filter(|_| speaks_to_port)) {
            let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(name))?;
            let at = Place { dir: &pins, pin, device, ifindex, side: TcAttachType::Egress };
            self.held.release(pin);
            attach_anew(object, name, self.kernel.tc(), at)?;
            self.held.take_program(&pins, pin)?;
        }
        Ok(())
    }

    /// The same on a slave, without attaching one.
    pub fn replace_slave(
        &mut self,
        slot: Slot,
        device: &str,
        ifindex: u32,
    ) -> Result<Replaced, DataPlaneError> {
        let (pin, pins) = (slave_pin(slot), open(&self.dir)?);
        let at = Place { dir: &pins, pin: &pin, device, ifindex, side: TcAttachType::Ingress };
        let way = self.way();
        if !at.is_there(names::PROGRAM_PIN) || (way.is_link() && !at.is_there(names::LINK_PIN)) {
            return Ok(Replaced::Absent);
        }
        let mut object = load_object(&pins, &self.kernel, slot.index() as u32)?;
        load(&mut object, self.hook.slave_program(), self.hook)?;
        self.slaves[slot.index()] = replace(&mut object, self.hook.slave_program(), way, &at)?;
        self.held.take_program(&pins, &pin)?;
        if self.slaves[slot.index()].is_none() {
            return Ok(Replaced::Detached);
        }
        self.attach_local(&mut object, slot, (device, ifindex))?;
        Ok(Replaced::Done)
    }

    pub fn hook(&self) -> Hook {
        self.hook
    }

    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// What the packets read, to share with whoever decides.
    pub fn maps(&self) -> Arc<Maps> {
        Arc::clone(&self.maps)
    }

    /// The ring buffer of [`bond_common::event::EventRecord`]; once.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, DataPlaneError> {
        self.events.take().ok_or(DataPlaneError::Missing(names::EVENTS))
    }

    /// What EVENTS holds, before [`Self::take_events`].
    pub fn drain_events(&mut self) -> Vec<EventRecord> {
        let mut records = Vec::new();
        while let Some(item) = self.events.as_mut().and_then(RingBuf::next) {
            records.extend(EventRecord::parse(&item));
        }
        records
    }

    /// What the port's program writes to the log; once, before [`Self::forget_object`].
    pub fn take_log(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, DataPlaneError> {
        let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(self.hook.port_program()))?;
        Ok(EbpfLogger::init(object)?)
    }

    /// Frees what is not needed any more when the port's program is at its hook: the object has the instructions of all
    /// programs, and what the verifier was told of them.
    pub fn forget_object(&mut self) {
        self.port_object = None;
    }

    fn way(&self) -> Way {
        Way { hook: self.hook, tc: self.kernel.tc() }
    }

    /// Puts the port's program on the port, and of a netkit pair where bond0 sends.
    pub fn attach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        let &Port { device, ifindex, netkit, .. } = port;
        set(&mut self.rx_port, names::RX_PORT, 0, ifindex)?;
        let pins = open(&self.dir)?;
        let at = Place { dir: &pins, pin: PORT_PIN, device, ifindex, side: TcAttachType::Ingress };
        let way = self.way();
        let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(self.hook.port_program()))?;
        self.port = Some(attach(object, self.hook.port_program(), way, at)?);
        self.held.take_program(&pins, PORT_PIN)?;
        if let Some(bond) = netkit {
            self.at_bond(device, |program| {
                let link = netkit::attach(program, bond)?;
                netkit::pin(link.as_fd(), &pins.path_of(BOND_LINK_PIN))
            })?;
            self.held.take_program(&pins, BOND_PIN)?;
        }
        self.part_ends(port)
    }

    /// Does something with the port's program where bond0 sends.
    fn at_bond(
        &self,
        port: &str,
        attach: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<(), DataPlaneError> {
        let device = format!("the netkit pair of {port}");
        let failed = |reason| DataPlaneError::Attach { hook: self.hook, device, reason };
        let name = self.hook.port_program();
        let object = self.port_object.as_ref().ok_or(DataPlaneError::Missing(name))?;
        let program = object.program(name).and_then(|program| program.try_into().ok());
        let program: &SchedClassifier = program.ok_or(DataPlaneError::Missing(name))?;
        let attached = program.fd().map_err(io::Error::other).and_then(|program| attach(program.as_fd()));
        attached.map_err(|error| failed(error.to_string()))
    }

    /// Has bond0 take for its own what arrives with the MAC of any slave, until the answer is dropped: for the time
    /// in which its MAC changes, because frames that are under way then carry the former one. None where the
    /// kernel has no tcx (before 6.6): a frame may be lost.
    pub fn accept_former_macs(&mut self, bond: &str) -> Result<Option<FormerMacs>, DataPlaneError> {
        if self.kernel.tc() == TcAttach::Clsact {
            return Ok(None);
        }
        let attached = |source: ProgramError| DataPlaneError::Attach {
            hook: Hook::Tc,
            device: bond.to_owned(),
            reason: error_chain(&source),
        };
        let program = &mut self.host_program;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(bond, TcAttachType::Ingress, first).map_err(attached)?;
        Ok(Some(FormerMacs { _link: program.take_link(id).map_err(attached)? }))
    }

    /// Puts a slave's program on the slave. Nothing is delivered until ACTIVE names the slot.
    pub fn attach_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<(), DataPlaneError> {
        let object = self.load_slave(slot)?;
        self.attach_loaded(object, slot, (device, ifindex))
    }

    /// The programs of a slave, loaded.
    fn load_slave(&self, slot: Slot) -> Result<Ebpf, DataPlaneError> {
        let mut object = load_object(&open(&self.dir)?, &self.kernel, slot.index() as u32)?;
        load(&mut object, self.hook.slave_program(), self.hook)?;
        Ok(object)
    }

    fn attach_loaded(
        &mut self,
        mut object: Ebpf,
        slot: Slot,
        (device, ifindex): (&str, u32),
    ) -> Result<(), DataPlaneError> {
        let pins = open(&self.dir)?;
        set(&mut self.tx_ports, names::TX_PORTS, slot.index() as u32, ifindex)?;
        let pin = slave_pin(slot);
        let at = Place { dir: &pins, pin: &pin, device, ifindex, side: TcAttachType::Ingress };
        let attached = attach(&mut object, self.hook.slave_program(), self.way(), at);
        let attached = attached.and_then(|attached| {
            self.slaves[slot.index()] = Some(attached);
            self.held.take_program(&pins, &pin)?;
            self.attach_local(&mut object, slot, (device, ifindex))
        });
        // Else its pins would be in the way of the next one in this slot.
        attached.or_else(|error| self.detach_slave(slot).and(Err(error)))
    }

    /// Puts what copies link-local frames behind an XDP program, which cannot.
    fn attach_local(
        &mut self,
        object: &mut Ebpf,
        slot: Slot,
        (device, ifindex): (&str, u32),
    ) -> Result<(), DataPlaneError> {
        if self.hook == Hook::Tc {
            return Ok(());
        }
        self.locals[slot.index()] = None;
        load(object, names::TC_SLAVE_LOCAL, Hook::Tc)?;
        let (pin, pins) = (local_pin(slot), open(&self.dir)?);
        self.held.release(&pin);
        let at = Place { dir: &pins, pin: &pin, device, ifindex, side: TcAttachType::Ingress };
        self.locals[slot.index()] = Some(attach_anew(object, names::TC_SLAVE_LOCAL, self.kernel.tc(), at)?);
        self.held.take_program(&pins, &pin)
    }

    /// Takes a slave's program away.
    pub fn detach_slave(&mut self, slot: Slot) -> Result<(), DataPlaneError> {
        drop((self.slaves[slot.index()].take(), self.locals[slot.index()].take()));
        for pin in [slave_pin(slot), local_pin(slot)] {
            self.held.release(&pin);
        }
        self.remove_slave_pins(slot)
    }

    /// What is not as this put it of TX_PORTS and RX_PORT.
    pub fn changed_maps(&self, port: u32, slaves: &[Attachment<'_>]) -> Vec<Fault> {
        let mut faults: Vec<_> = changed(&self.rx_port, names::RX_PORT, 0, port).into_iter().collect();
        for slave in slaves {
            let key = slave.slot.index() as u32;
            faults.extend(changed(&self.tx_ports, names::TX_PORTS, key, slave.ifindex));
        }
        faults
    }

    /// The directory of the pins, for people.
    pub fn shown_pins(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// The names of pins that are not there. All of them, where bpffs was unmounted.
    ///
    /// # Errors
    /// They could not be looked for, as without a free descriptor: nothing is known of them.
    pub fn missing_pins(&self) -> io::Result<Vec<String>> {
        let pins = match self.dir.open(Trust::Ours) {
            Ok(pins) => Some(pins),
            Err(error) if is_absence(&error) => None,
            Err(error) => return Err(error),
        };
        let is_missing = |name: &&String| pins.as_ref().is_none_or(|pins| !pins.has(name));
        Ok(self.held.0.keys().filter(is_missing).cloned().collect())
    }

    /// Pins these again, by their names.
    ///
    /// # Errors
    /// There is no bpffs, or something else has such a name.
    pub fn pin_again(&self, missing: &[String]) -> Result<(), DataPlaneError> {
        let pin_error = |source| DataPlaneError::Pin { path: self.dir.path(), source };
        let root = self.dir.root();
        let is_bpffs = statfs(root).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            return Err(DataPlaneError::Unpinned(self.dir.path()));
        }
        let pins = self.dir.make_all(0o700).map_err(pin_error)?;
        if let Some(above) = self.dir.above() {
            // A directory without a witness is collected later, not sooner.
            let _ = above.open(Trust::Ours).and_then(|above| witness::make(&above));
        }
        for name in missing {
            let Some(object) = self.held.get(name) else { continue };
            let pinned = netkit::pin(object.as_fd(), &pins.path_of(name));
            pinned.map_err(|source| DataPlaneError::Pin { path: pins.shown(name), source })?;
        }
        Ok(())
    }

    /// The programs that are links, to be looked at by [`Watched::look`]. Where programs are filters, [`Self::filter`] names
    /// them.
    pub fn watched(&self, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Watched> {
        let mut watched = Vec::new();
        let mut add = |at, pin: &str, device: &str, ifindex: Option<u32>, hook: Option<DeviceHook>| {
            let link = self.held.get(&format!("{pin}_{}", names::LINK_PIN));
            let program = self.held.get(&format!("{pin}_{}", names::PROGRAM_PIN)).or_else(|| {
                self.held.get(&format!("{PORT_PIN}_{}", names::PROGRAM_PIN)).filter(|_| pin == BOND_PIN)
            });
            let program = program.and_then(|program| netkit::number_of_program(program.as_fd()).ok());
            if let (Some(link), Some(program)) = (link, program) {
                let (device, link) = (device.to_owned(), Arc::clone(link));
                let hook = ifindex.zip(hook);
                watched.push(Watched { at, device, hook, ifindex, link, program });
            }
        };
        let is_tc = self.hook == Hook::Tc;
        let ingress = Some(DeviceHook::TcxIngress);
        add(At::Port, PORT_PIN, port.device, Some(port.ifindex), ingress.filter(|_| is_tc));
        // Of bond0 in another namespace the ifindex says nothing here.
        let bond = port.bond.and(port.netkit);
        add(At::Port, BOND_PIN, port.bond.unwrap_or(port.device), bond, Some(DeviceHook::NetkitPrimary));
        add(At::Ends, PORT_EGRESS_PIN, port.device, Some(port.ifindex), None);
        if let Some(bond) = port.bond {
            add(At::Ends, BOND_EGRESS_PIN, bond, None, None);
        }
        for slave in slaves {
            let (at, ifindex) = (At::Slave(slave.slot), Some(slave.ifindex));
            add(at, &slave_pin(slave.slot), slave.device, ifindex, ingress.filter(|_| is_tc));
            add(at, &local_pin(slave.slot), slave.device, ifindex, ingress);
        }
        watched
    }

    /// Whether a program that was looked at is still the one that is to be there.
    pub fn is_current(&self, watched: &Watched) -> bool {
        self.held.0.values().any(|held| Arc::ptr_eq(held, &watched.link))
    }

    /// The filters on this slave, or on the port, where programs are filters.
    pub fn filters(&self, of: Option<Slot>) -> Vec<&'static str> {
        if self.kernel.tc() != TcAttach::Clsact {
            return Vec::new();
        }
        match (self.hook, of) {
            (Hook::Tc, Some(_)) => vec![names::TC_SLAVE_RX],
            (Hook::Tc, None) => vec![names::TC_PORT_TX],
            (Hook::Xdp | Hook::XdpGeneric, Some(_)) => vec![names::TC_SLAVE_LOCAL],
            (Hook::Xdp | Hook::XdpGeneric, None) => Vec::new(),
        }
    }

    /// Stores what RX_PORT and TX_PORTS are to hold.
    pub fn restore_maps(&mut self, port: u32, slaves: &[Attachment<'_>]) -> Result<(), DataPlaneError> {
        set(&mut self.rx_port, names::RX_PORT, 0, port)?;
        slaves.iter().try_for_each(|slave| {
            set(&mut self.tx_ports, names::TX_PORTS, slave.slot.index() as u32, slave.ifindex)
        })
    }

    /// Attaches a slave's program again, which another process has detached. It is loaded first, which takes longest: without
    /// it, the host's own stack receives what comes in.
    pub fn reattach_slave(&mut self, slave: &Attachment<'_>) -> Result<(), DataPlaneError> {
        let object = self.load_slave(slave.slot)?;
        forget(self.slaves[slave.slot.index()].take());
        forget(self.locals[slave.slot.index()].take());
        for pin in [slave_pin(slave.slot), local_pin(slave.slot)] {
            self.held.release(&pin);
        }
        self.remove_slave_pins(slave.slot)?;
        self.attach_loaded(object, slave.slot, (slave.device, slave.ifindex))
    }

    /// Attaches the port's program again, at the port and, of a netkit pair, where bond0 sends.
    pub fn reattach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        let dir = open(&self.dir)?;
        let mut object = load_object(&dir, &self.kernel, PORT_STATS)?;
        load(&mut object, self.hook.port_program(), self.hook)?;
        for name in [names::TC_PORT_EGRESS, names::TC_BOND_EGRESS] {
            load(&mut object, name, Hook::Tc)?;
        }
        self.remove_port_pins(&dir)?;
        self.port_object = Some(object);
        let attached = self.attach_port(port);
        self.port_object = None;
        attached
    }

    /// Attaches the programs at the egress of the pair's ends again.
    pub fn reattach_ends(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        let mut object = load_object(&open(&self.dir)?, &self.kernel, PORT_STATS)?;
        for name in [names::TC_PORT_EGRESS, names::TC_BOND_EGRESS] {
            load(&mut object, name, Hook::Tc)?;
        }
        self.port_object = Some(object);
        let attached = self.part_ends(port);
        self.port_object = None;
        attached
    }

    /// Takes xbond's filters away from a device that is no slave, where programs are filters.
    pub fn detach_filters(&self, device: &str) {
        if self.kernel.tc() == TcAttach::Clsact {
            detach_filters(device);
        }
    }

    fn remove_slave_pins(&self, slot: Slot) -> Result<(), DataPlaneError> {
        let pins = match open(&self.dir) {
            // bpffs was unmounted.
            Err(DataPlaneError::Pin { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            answer => answer?,
        };
        for pin in [slave_pin(slot), local_pin(slot)] {
            remove_pins_of(&pins, &pin)?;
        }
        Ok(())
    }

    /// Takes everything away: programs from their hooks, maps from their pins.
    pub fn remove(mut self) -> Result<(), DataPlaneError> {
        self.port = None;
        self.slaves = Default::default();
        self.locals = Default::default();
        let pins = [PORT_PIN, BOND_PIN, PORT_EGRESS_PIN, BOND_EGRESS_PIN].map(str::to_owned);
        for pin in pins.into_iter().chain(Slot::all().flat_map(|slot| [slave_pin(slot), local_pin(slot)])) {
            self.held.release(&pin);
        }
        remove_pins(&self.dir)
    }

    /// Leaves everything to the kernel: the programs go on.
    pub fn keep(mut self) {
        for attached in self.slaves.iter_mut().chain(&mut self.locals).chain([&mut self.port]) {
            match attached.take() {
                // Dropping it would detach the filter.
                Some(Attached::Filter(link)) => std::mem::forget(link),
                Some(Attached::KeptFilter(filter)) => std::mem::forget(filter),
                Some(Attached::Link) | None => {}
            }
        }
    }
}

/// What became of a slave's program that was to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    Done,
    /// Its link has no device: another process has detached it, or the slave was away in another namespace, which takes
    /// programs from their hooks.
    Detached,
    /// It is not pinned: the slave's set-up was not finished, or its pin was removed.
    Absent,
}

/// A slave whose program is at its hook.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    pub slot: Slot,
    pub device: &'a str,
    pub ifindex: u32,
}

/// A part of the data plane that another process has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program is not at its hook on this device.
    Detached { device: String },
    /// Another program is in its link.
    Replaced { device: String },
    /// An entry of a device map leads elsewhere, or nowhere.
    DeviceMap { map: &'static str, key: u32 },
    /// It could not be looked at: nothing is known.
    Unknown { what: String, why: String },
}

/// Programs under `dir` whose pinned links have no device any more, or another one, or run another program.
fn detached(dir: &Location, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Fault> {
    let pins = match dir.open(Trust::Anyones) {
        Ok(pins) => pins,
        // Pins that are gone are named by `lost_programs`.
        Err(error) if is_absence(&error) => return Vec::new(),
        Err(error) => {
            return vec![Fault::Unknown { what: dir.path().display().to_string(), why: error.to_string() }];
        }
    };
    let program = |pin: &str| {
        let program = netkit::open(&pins.path_of(&format!("{pin}_{}", names::PROGRAM_PIN))).ok()?;
        netkit::number_of_program(program.as_fd()).ok()
    };
    let mut faults = Vec::new();
    let mut look = |pin: &str, of_program: &str, device: &str, ifindex: Option<u32>| {
        let name = format!("{pin}_{}", names::LINK_PIN);
        let device = || device.to_owned();
        let fault = match DeviceLink::read(&pins.path_of(&name)) {
            Ok(None) => None,
            Ok(Some(link)) if ifindex.map_or(link.ifindex == 0, |ifindex| link.ifindex != ifindex) => {
                Some(Fault::Detached { device: device() })
            }
            Ok(Some(link)) if program(of_program).is_some_and(|program| program != link.program) => {
                Some(Fault::Replaced { device: device() })
            }
            Ok(Some(_)) => None,
            Err(why) => Some(Fault::Unknown { what: name, why: why.to_string() }),
        };
        faults.extend(fault);
    };
    look(PORT_PIN, PORT_PIN, port.device, Some(port.ifindex));
    // bond0 may have another ifindex in another namespace.
    look(BOND_PIN, PORT_PIN, port.device, None);
    look(PORT_EGRESS_PIN, PORT_EGRESS_PIN, port.device, Some(port.ifindex));
    if let Some(bond) = port.bond {
        look(BOND_EGRESS_PIN, BOND_EGRESS_PIN, bond, None);
    }
    for slave in slaves {
        for pin in [slave_pin(slave.slot), local_pin(slave.slot)] {
            look(&pin, &pin, slave.device, Some(slave.ifindex));
        }
    }
    // Several of a device are attached again together.
    faults.dedup();
    faults
}

/// Whether an entry of a device map is not the one that is wanted.
fn changed(map: &DevMap<MapData>, name: &'static str, key: u32, ifindex: u32) -> Option<Fault> {
    match map.get(key, 0) {
        Ok(entry) if entry.if_index == ifindex && entry.prog_id.is_none() => None,
        Ok(_) | Err(MapError::KeyNotFound) => Some(Fault::DeviceMap { map: name, key }),
        Err(error) => Some(Fault::Unknown { what: name.to_owned(), why: error_chain(&error) }),
    }
}

/// What is wrong with the data plane under `dir`, of which no agent takes care. `port` has the ifindex of bond0 where
/// that is in this namespace and the pair is a netkit.
pub fn faults(dir: &Location, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Fault> {
    let mut faults = detached(dir, port, slaves);
    let is_xdp = pinned_hook(dir).is_some_and(|hook| hook != Hook::Tc);
    let pins = dir.open(Trust::Anyones).ok();
    let open = |name: &'static str| {
        let data = MapData::from_pin(pins.as_ref()?.path_of(name)).ok()?;
        DevMap::try_from(Map::DevMap(data)).ok()
    };
    if let Some(map) = Some(names::RX_PORT).filter(|_| is_xdp).and_then(open) {
        faults.extend(changed(&map, names::RX_PORT, 0, port.ifindex));
    }
    if let Some(map) = Some(names::TX_PORTS).filter(|_| is_xdp).and_then(open) {
        for slave in slaves {
            let key = slave.slot.index() as u32;
            faults.extend(changed(&map, names::TX_PORTS, key, slave.ifindex));
        }
    }
    faults
}

/// Drops what holds a program that is at its hook no more. A filter is not removed: another one may be in its place.
fn forget(attached: Option<Attached>) {
    match attached {
        Some(Attached::Filter(link)) => std::mem::forget(link),
        Some(Attached::KeptFilter(filter)) => std::mem::forget(filter),
        Some(Attached::Link) | None => {}
    }
}

/// The beginnings of the pins' names.
const PORT_PIN: &str = "port_tx";
/// The port's program where bond0 sends: its link is pinned.
const BOND_PIN: &str = "bond_tx";
const BOND_LINK_PIN: &str = "bond_tx_link";

/// At the egress of the pair's ends.
const PORT_EGRESS_PIN: &str = "port_egress";
const BOND_EGRESS_PIN: &str = "bond_egress";

fn slave_pin(slot: Slot) -> String {
    format!("slave{}_rx", slot.index())
}

fn local_pin(slot: Slot) -> String {
    format!("slave{}_local", slot.index())
}

/// Why what another agent has left cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A map's pin is gone.
    NoMap(&'static str),
    /// No program was attached to the port yet: its bring-up was interrupted.
    NoPort,
    /// It is of this other [`ABI_VERSION`].
    OtherVersion(u32),
}

/// Which hooks carry a bond's packets, by the program that is pinned for its port; None if there is none of ours.
/// Native and generic XDP have the same program: it is told as native.
pub fn pinned_hook(dir: &Location) -> Option<Hook> {
    let pins = dir.open(Trust::Anyones).ok()?;
    let info = ProgramInfo::from_pin(pins.path_of(&format!("{PORT_PIN}_{}", names::PROGRAM_PIN))).ok()?;
    let name = info.name_as_str()?;
    [Hook::Tc, Hook::Xdp].into_iter().find(|hook| hook.port_program().starts_with(name))
}

/// Without pins nothing but an agent holds a bond.
///
/// # Errors
/// [`DataPlaneError::Unpinned`] if they are gone; any other if they could not be looked for, as without a free
/// descriptor: nothing is known of them then.
pub fn check_pins(dir: &Location) -> Result<(), DataPlaneError> {
    match dir.open(Trust::Ours) {
        Ok(pins) if pins.has(names::ACTIVE) => Ok(()),
        Err(source) if !is_absence(&source) => Err(DataPlaneError::Pin { path: dir.path(), source }),
        _ => Err(DataPlaneError::Unpinned(dir.path())),
    }
}

/// Whether a directory could not be opened because there is none. Any other error says nothing about what is in it.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Pins of links that are not there, and have taken their programs from their hooks: of the port and of the slaves in these
/// slots. Where programs are filters there are no links.
pub fn lost_programs(dir: &Location, slots: impl Iterator<Item = Slot>) -> Vec<String> {
    let pins = [PORT_PIN.to_owned()].into_iter().chain(slots.map(slave_pin));
    let links: Vec<_> = pins.map(|pin| format!("{pin}_{}", names::LINK_PIN)).collect();
    let found = dir.open(Trust::Anyones).ok();
    let is_there = |link: &String| found.as_ref().is_some_and(|pins| pins.has(link));
    let (there, lost): (Vec<_>, Vec<_>) = links.into_iter().partition(is_there);
    if there.is_empty() { Vec::new() } else { lost }
}

/// What of a bond's pins is still at a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The program of this pin is attached to the device with this ifindex, in whichever network namespace that is.
    Attached { pin: String, ifindex: u32 },
    /// The device map of this name has an entry: its device exists.
    Device { map: &'static str },
    /// Every link that is pinned has lost its device, and no device map has an entry.
    Nothing,
    /// There is no link that could say it: the bond was never complete, or its programs are filters of clsact.
    Unknown,
}

/// Reads what of the pins in `dir` is still at a device. The device maps are asked first: the kernel takes RTNL to
/// answer for a link.
///
/// # Errors
/// A pin cannot be read: nothing is known then.
pub fn hold(dir: &Directory) -> io::Result<Hold> {
    for (name, keys) in [(names::RX_PORT, 1), (names::TX_PORTS, PORT_STATS)] {
        if !dir.has(name) {
            continue;
        }
        let data = MapData::from_pin(dir.path_of(name)).map_err(io::Error::other)?;
        let map = DevMap::try_from(Map::DevMap(data)).map_err(io::Error::other)?;
        for key in 0..keys {
            match map.get(key, 0) {
                Ok(_) => return Ok(Hold::Device { map: name }),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(io::Error::other(error_chain(&error))),
            }
        }
    }
    let mut links = 0;
    for (pin, _) in dir.entries()?.into_iter().filter(|(pin, _)| pin.ends_with(names::LINK_PIN)) {
        match DeviceLink::read(&dir.path_of(&pin))? {
            Some(DeviceLink { ifindex: 0, .. }) => links += 1,
            Some(DeviceLink { ifindex, .. }) => return Ok(Hold::Attached { pin, ifindex }),
            None => {}
        }
    }
    Ok(if links > 0 { Hold::Nothing } else { Hold::Unknown })
}

/// Programs of a bond, by their pins.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// What attaches them.
    pub links: Vec<DeviceLink>,
    /// All of them, as `bpftool prog show id` takes them: where programs are filters there are no links.
    pub programs: Vec<u32>,
}

impl Pinned {
    /// Reads the pins under `dir`. What is not there, or cannot be read, is left out.
    pub fn read(dir: &Location) -> Self {
        let Ok(pins) = dir.open(Trust::Ours) else { return Self::default() };
        let mut pinned = Self::default();
        for (name, _) in pins.entries().unwrap_or_default() {
            let path = pins.path_of(&name);
            if name.ends_with(names::LINK_PIN) {
                pinned.links.extend(DeviceLink::read(&path).ok().flatten());
            } else if name.ends_with(names::PROGRAM_PIN) {
                pinned.programs.extend(ProgramInfo::from_pin(path).map(|info| info.id()));
            }
        }
        pinned
    }
}

/// Takes xbond's filters away from a device.
pub fn detach_filters(device: &str) {
    for name in [names::TC_PORT_TX, names::TC_SLAVE_RX, names::TC_SLAVE_LOCAL] {
        // All but one of them are not there, nor is any on a device that was not reached.
        let _ = tc::qdisc_detach_program(device, TcAttachType::Ingress, name);
    }
}

/// Removes the pins of a bond, and with the links' pins the programs from their hooks.
pub fn remove_pins(dir: &Location) -> Result<(), DataPlaneError> {
    dir.remove_all().map_err(|source| DataPlaneError::Pin { path: dir.path(), source })
}

/// Removes what pins one program and its link.
fn remove_pins_of(dir: &Directory, pin: &str) -> Result<(), DataPlaneError> {
    for end in [names::LINK_PIN, names::PROGRAM_PIN] {
        remove_pin(dir, &format!("{pin}_{end}"))?;
    }
    Ok(())
}

/// To act upon what is pinned there.
fn open(dir: &Location) -> Result<Directory, DataPlaneError> {
    dir.open(Trust::Ours).map_err(|source| DataPlaneError::Pin { path: dir.path(), source })
}

fn remove_pin(dir: &Directory, name: &str) -> Result<(), DataPlaneError> {
    dir.remove_file(name).map_err(|source| DataPlaneError::Pin { path: dir.shown(name), source })
}

/// The maps that agent and packets share, mapped into memory where they are words.
pub struct Maps {
    active: Mapped<ActiveWord>,
    slaves: Mapped<SlaveEntry>,
    bond: Mapped<BondEntry>,
    /// BOND has words, and is compared as a whole: to see what somebody else has written.
    wanted_bond: Mutex<BondEntry>,
    stats: Mutex<PerCpuArray<MapData, SlotStats>>,
    probes: Mapped<ProbeTimes>,
    targets: Mapped<Targets>,
    guard: Mapped<GuardEntry>,
    /// [`WireMacs`], word by word.
    wire_macs: Mapped<u64>,
    learned: Mapped<u64>,
    /// TARGETS, as BOND.
    wanted_targets: Mutex<Targets>,
}

fn stats_error(source: MapError) -> DataPlaneError {
    DataPlaneError::Map { name: names::STATS, source }
}

impl Maps {
    fn take(object: &mut Ebpf) -> Result<Self, DataPlaneError> {
        let stats = take(object, names::STATS)?;
        let bond: Mapped<BondEntry> = mapped(object, names::BOND, 1)?;
        Ok(Self {
            active: mapped(object, names::ACTIVE, 1)?,
            slaves: mapped(object, names::SLAVES, bond_common::abi::MAX_SLAVES)?,
            wanted_bond: Mutex::new(bond.load(0)),
            bond,
            stats: PerCpuArray::try_from(stats).map(Mutex::new).map_err(stats_error)?,
            probes: mapped(object, names::PROBES, bond_common::abi::MAX_SLAVES)?,
            targets: mapped(object, names::TARGETS, 1)?,
            guard: mapped(object, names::GUARD, 1)?,
            wire_macs: mapped(object, names::WIRE_MACS, bond_common::abi::MAX_SLAVES)?,
            learned: mapped(object, names::LEARNED, 1)?,
            wanted_targets: Mutex::default(),
        })
    }

    /// The maps of a bond that somebody else made, from their pins.
    pub fn open(dir: &Location) -> Result<Self, DataPlaneError> {
        // To look at, whoever's they are: nothing is written through them.
        let pin_error = |source| DataPlaneError::Pin { path: dir.path(), source };
        Self::open_in(&dir.open(Trust::Anyones).map_err(pin_error)?)
    }

    fn open_in(dir: &Directory) -> Result<Self, DataPlaneError> {
        let map = |name: &'static str| {
            MapData::from_pin(dir.path_of(name)).map_err(|source| DataPlaneError::Map { name, source })
        };
        let word = |name| Ok::<_, DataPlaneError>((name, map(name)?));
        let bond: Mapped<BondEntry> = mapped_data(word(names::BOND)?, 1)?;
        Ok(Self {
            active: mapped_data(word(names::ACTIVE)?, 1)?,
            slaves: mapped_data(word(names::SLAVES)?, bond_common::abi::MAX_SLAVES)?,
            wanted_bond: Mutex::new(bond.load(0)),
            bond,
            stats: PerCpuArray::try_from(Map::PerCpuArray(map(names::STATS)?))
                .map(Mutex::new)
                .map_err(stats_error)?,
            probes: mapped_data(word(names::PROBES)?, bond_common::abi::MAX_SLAVES)?,
            targets: mapped_data(word(names::TARGETS)?, 1)?,
            guard: mapped_data(word(names::GUARD)?, 1)?,
            wire_macs: mapped_data(word(names::WIRE_MACS)?, bond_common::abi::MAX_SLAVES)?,
            learned: mapped_data(word(names::LEARNED)?, 1)?,
            wanted_targets: Mutex::default(),
        })
    }

    /// The version of the maps under `dir`, whatever it is.
    fn abi_version(dir: &Directory) -> Result<u32, DataPlaneError> {
        const WORD: usize = BondEntry::ABI_VERSION_AT / 8;
        let map = MapData::from_pin(dir.path_of(names::BOND))
            .map_err(|source| DataPlaneError::Map { name: names::BOND, source })?;
        let entry: Mapped<[u64; WORD + 1]> = mapped_data((names::BOND, map), 1)?;
        // The lower half: the numbers of this machine's kernel and programs have one byte order.
        let word = entry.word(0, WORD).load(Ordering::Acquire).to_ne_bytes();
        Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }

    pub fn active(&self) -> ActiveWord {
        self.active.load(0)
    }

    /// Changes ACTIVE by compare-and-swap, asking `change` again if somebody else was faster.
    /// Returns what was stored.
    pub fn update_active(&self, change: impl Fn(ActiveWord) -> ActiveWord) -> ActiveWord {
        let word = self.active.word(0, 0);
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let next = change(ActiveWord::from_bits(seen));
            match word.compare_exchange(seen, next.bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return next,
                Err(other) => seen = other,
            }
        }
    }

    /// Changes ACTIVE if it is still what the caller knows; else says what it is.
    pub fn exchange_active(&self, known: ActiveWord, next: ActiveWord) -> Result<(), ActiveWord> {
        let word = self.active.word(0, 0);
        let exchanged = word.compare_exchange(known.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire);
        exchanged.map(drop).map_err(ActiveWord::from_bits)
    }

    /// Stores ACTIVE once more as it is, with the generation that follows `known`. Returns what was stored.
    pub fn recount_active(&self, known: ActiveWord) -> ActiveWord {
        self.update_active(|word| known.next(word.active(), word.draining(), word.usable()))
    }

    /// The order in which the carrier guard tries slots.
    pub fn set_rank(&self, rank: Rank) {
        self.guard.word(0, GuardEntry::RANK).store(rank.bits(), Ordering::Release);
    }

    /// What this agent knows of ACTIVE.
    pub fn set_known(&self, word: ActiveWord) {
        self.guard.word(0, GuardEntry::KNOWN).store(word.bits(), Ordering::Release);
    }

    pub fn guard(&self) -> GuardEntry {
        self.guard.load(0)
    }

    pub fn slave(&self, slot: Slot) -> SlaveEntry {
        self.slaves.load(slot.index())
    }

    pub fn set_slave(&self, slot: Slot, entry: SlaveEntry) {
        // Frames go by the port before there is a queue for which they have to.
        if entry.queue_id() != 0 {
            self.choose_way(true);
        }
        self.slaves.store(slot.index(), entry);
        self.wire_macs.store(slot.index(), WireMacs::word_of(&entry));
        self.choose_way(self.has_queues());
    }

    fn choose_way(&self, has_queues: bool) {
        let mut wanted = self.wanted_bond();
        let with_way = with_way(*wanted, has_queues);
        if with_way != *wanted {
            *wanted = with_way;
            self.bond.store(0, with_way);
        }
    }

    fn has_queues(&self) -> bool {
        Slot::all().any(|slot| self.slave(slot).queue_id() != 0)
    }

    pub fn bond(&self) -> BondEntry {
        self.bond.load(0)
    }

    pub fn set_bond(&self, entry: BondEntry) {
        let mut wanted = self.wanted_bond();
        *wanted = with_way(entry, self.has_queues());
        self.bond.store(0, *wanted);
    }

    /// Whether BOND is as it was given.
    pub fn has_wanted_bond(&self) -> bool {
        let wanted = self.wanted_bond();
        self.bond() == *wanted
    }

    /// What BOND was given last. While another thread gives it something else, the two differ for a moment.
    pub fn wanted_bond(&self) -> MutexGuard<'_, BondEntry> {
        // Poisoned or not, it is one entry or the other.
        self.wanted_bond.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a slave heard something.
    pub fn probe_times(&self, slot: Slot) -> ProbeTimes {
        self.probes.load(slot.index())
    }

    /// A slave is new in its slot: what the one before it heard is not its own.
    pub fn reset_probe_times(&self, slot: Slot) {
        self.probes.store(slot.index(), ProbeTimes::NEVER);
    }

    /// Whom the next probes ask.
    pub fn set_targets(&self, targets: Targets) {
        let mut wanted = self.wanted_targets();
        *wanted = targets;
        self.targets.store(0, targets);
    }

    /// Stores TARGETS again if another process has changed it. Returns whether it had.
    pub fn restore_targets(&self) -> bool {
        let wanted = self.wanted_targets();
        let is_changed = *wanted != Targets::default() && self.targets.load(0) != *wanted;
        if is_changed {
            self.targets.store(0, *wanted);
        }
        is_changed
    }

    fn wanted_targets(&self) -> MutexGuard<'_, Targets> {
        // Poisoned or not, it is one round's or another's.
        self.wanted_targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether WIRE_MACS has at this slot what SLAVES is to have there.
    pub fn has_wire_mac(&self, slot: Slot, entry: &SlaveEntry) -> bool {
        self.wire_macs.load(slot.index()) == WireMacs::word_of(entry)
    }

    /// The MAC of the host behind an existing port; zero while it is not known.
    pub fn learned(&self) -> Mac {
        Mac::from_word(self.learned.load(0))
    }

    pub fn set_learned(&self, mac: Mac) {
        self.learned.store(0, mac.to_word());
    }

    /// All CPUs' counters of one slot, or of [`PORT_STATS`].
    pub fn stats(&self, index: u32) -> Result<SlotStats, DataPlaneError> {
        let mut sum = SlotStats::default();
        for of_one_cpu in self.counters().get(&index, 0).map_err(stats_error)?.iter() {
            sum.add(of_one_cpu);
        }
        Ok(sum)
    }

    /// A slot's counters from 0 on, for a slave that comes into it.
    pub fn reset_stats(&self, slot: Slot) -> Result<(), DataPlaneError> {
        let mut counters = self.counters();
        let index = slot.index() as u32;
        let cpus = counters.get(&index, 0).map_err(stats_error)?.len();
        let zero = PerCpuValues::try_from(vec![SlotStats::default(); cpus]);
        let zero = zero.map_err(|source| stats_error(source.into()))?;
        counters.set(index, zero, 0).map_err(stats_error)
    }

    fn counters(&self) -> MutexGuard<'_, PerCpuArray<MapData, SlotStats>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// BOND with what follows from the slaves: whether frames go by the port.
fn with_way(entry: BondEntry, has_queues: bool) -> BondEntry {
    let by_port = entry.has(BondEntry::NETKIT) && has_queues;
    let flags = entry.flags() & !BondEntry::BY_PORT;
    entry.with_flags(if by_port { flags | BondEntry::BY_PORT } else { flags })
}

/// Asks the kernel for a device's state without netlink, and so without RTNL.
pub struct DeviceReader {
    object: Ebpf,
}

/// The loopback device, which every network namespace has.
const LOOPBACK: u32 = 1;

/// `struct __sk_buff`: its size, and where `ifindex` is.
const SKB_CONTEXT: usize = 192;
const SKB_CONTEXT_IFINDEX: usize = 40;
/// An Ethernet header, and room for a [`DeviceState`].
const PROBE_FRAME: usize = 64;
const ETHERNET_HEADER: usize = 14;

impl DeviceReader {
    /// Loads the programs and reads the loopback device once.
    ///
    /// # Errors
    /// The kernel's BTF cannot be read, the kernel refuses bpf_probe_read_kernel (lockdown), or a test run fails.
    pub fn new(kernel: &Kernel) -> Result<Self, DataPlaneError> {
        if !kernel.has_types() {
            return Err(DataPlaneError::NoTypes);
        }
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global(names::OFFSETS, &kernel.offsets(), true)
            .load(kernel.object())?;
        load(&mut object, names::DEVICE_STATE, Hook::Tc)?;
        // Without it devices are asked one by one.
        let _ = load(&mut object, names::DEVICE_LINKS, Hook::Tc)
            .inspect_err(|error| tracing::info!("links are looked at one by one: {error}"));
        let reader = Self { object };
        // A reader that cannot read would be asked, in vain, at every poll.
        reader.read(LOOPBACK)?;
        Ok(reader)
    }

    fn program(&self, name: &'static str) -> Result<&SchedClassifier, DataPlaneError> {
        let program = self.object.program(name).and_then(|program| program.try_into().ok());
        program.ok_or(DataPlaneError::Missing(name))
    }

    /// Which of these devices have a link, by their handles: many for one system call. A device that is not where its
    /// handle says has none; [`Self::read`] tells what became of it.
    pub fn with_link(&self, devices: &[LinkQuestion]) -> Result<Vec<bool>, DataPlaneError> {
        let mut answers = Vec::with_capacity(devices.len());
        for questions in devices.chunks(LinkQuestion::MOST) {
            let mut frame = vec![0; ETHERNET_HEADER];
            frame.extend(questions.iter().flat_map(LinkQuestion::bytes));
            let mut answered = vec![0; frame.len()];
            let options = TestRunOptions {
                data_in: Some(&frame),
                data_out: Some(&mut answered),
                ..TestRunOptions::default()
            };
            let program = self.program(names::DEVICE_LINKS)?;
            let run = program.test_run(options);
            run.map_err(|source| DataPlaneError::Program { name: names::DEVICE_LINKS, source })?;
            let answer = |bytes: &[u8]| bytes[LinkQuestion::ANSWER..].iter().any(|byte| *byte != 0);
            answers.extend(answered[ETHERNET_HEADER..].chunks(size_of::<LinkQuestion>()).map(answer));
        }
        Ok(answers)
    }

    /// Reads the state of a device of the calling thread's network namespace; None if there is no such device.
    ///
    /// # Errors
    /// The state could not be read: nothing is known of the device then, and least of all that its link is down.
    pub fn read(&self, ifindex: u32) -> Result<Option<DeviceState>, DataPlaneError> {
        let error = |reason: String| DataPlaneError::DeviceState { ifindex, reason };
        let mut context = [0; SKB_CONTEXT];
        context[SKB_CONTEXT_IFINDEX..SKB_CONTEXT_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let frame = [0; PROBE_FRAME];
        let mut answer = [0; PROBE_FRAME];
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut answer),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = match self.program(names::DEVICE_STATE)?.test_run(options) {
            Ok(result) => result,
            Err(source) if has_errno(&source, libc::ENODEV) => return Ok(None),
            Err(source) => return Err(error(error_chain(&source))),
        };
        if result.return_value != 0 {
            return Err(error("the kernel's memory could not be read".into()));
        }
        DeviceState::parse(&answer[ETHERNET_HEADER..])
            .filter(|state| state.ifindex() == ifindex)
            .map(Some)
            .ok_or_else(|| error("the answer is about another device".into()))
    }
}

/// How a program gets to its hook.
#[derive(Clone, Copy)]
struct Way {
    hook: Hook,
    tc: TcAttach,
}

impl Way {
    /// It is a link, which a pin holds; a filter of clsact is none.
    fn is_link(self) -> bool {
        self.hook != Hook::Tc || self.tc == TcAttach::Tcx
    }
}

/// Where a program goes, and under which name it is pinned.
struct Place<'a> {
    dir: &'a Directory,
    pin: &'a str,
    device: &'a str,
    ifindex: u32,
    /// For tc: what the device receives, or what it sends.
    side: TcAttachType,
}

impl Place<'_> {
    fn name(&self, end: &str) -> String {
        format!("{}_{end}", self.pin)
    }

    fn path(&self, end: &str) -> PathBuf {
        self.dir.path_of(&self.name(end))
    }

    /// For people.
    fn shown(&self, end: &str) -> PathBuf {
        self.dir.shown(&self.name(end))
    }

    fn is_there(&self, end: &str) -> bool {
        self.dir.kind(&self.name(end)) == Some(Kind::File)
    }
}

fn attach(
    object: &mut Ebpf,
    name: &'static str,
    Way { hook, tc }: Way,
    at: Place<'_>,
) -> Result<Attached, DataPlaneError> {
    let pin_error = |end: &str, source: aya::pin::PinError| DataPlaneError::Pin {
        path: at.shown(end),
        source: io::Error::other(source),
    };
    let refused = |reason: String| DataPlaneError::Attach { hook, device: at.device.to_owned(), reason };
    let unattached = |source: ProgramError| {
        let no_xdp = hook != Hook::Tc && has_errno(&source, libc::EOPNOTSUPP);
        refused(if no_xdp { NO_XDP.into() } else { error_chain(&source) })
    };

    let link: FdLink = match hook {
        Hook::Tc => {
            let program = classifier(object, name)?;
            program
                .pin(at.path(names::PROGRAM_PIN))
                .map_err(|source| pin_error(names::PROGRAM_PIN, source))?;
            if tc == TcAttach::Clsact {
                return attach_clsact(program, &at).map(Attached::Filter).map_err(refused);
            }
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(at.device, at.side, first).map_err(unattached)?;
            let link = program.take_link(id).map_err(unattached)?;
            link.try_into().map_err(|_| refused("the kernel gave no tcx link".into()))?
        }
        Hook::Xdp | Hook::XdpGeneric => {
            let program = xdp(object, name)?;
            program
                .pin(at.path(names::PROGRAM_PIN))
                .map_err(|source| pin_error(names::PROGRAM_PIN, source))?;
            let mode = if hook == Hook::Xdp { XdpMode::Driver } else { XdpMode::Skb };
            let id = program.attach_to_if_index(at.ifindex, mode).map_err(unattached)?;
            let link = program.take_link(id).map_err(unattached)?;
            // A refused link falls back to netlink, which no pin holds: no driver XDP, it says.
            match link.try_into() {
                Ok(link) => link,
                Err(_) => {
                    let program = program.fd().map_err(unattached)?.as_fd();
                    clear_xdp(at.ifindex, program, mode).map_err(|error| refused(error.to_string()))?;
                    return Err(refused(NO_XDP.into()));
                }
            }
        }
    };
    link.pin(at.path(names::LINK_PIN))
        .map(|_| Attached::Link)
        .map_err(|source| pin_error(names::LINK_PIN, source))
}

/// Attaches a tc program, which is loaded, in place of one that another agent may have attached there. In between there is none.
fn attach_anew(
    object: &mut Ebpf,
    name: &'static str,
    tc: TcAttach,
    at: Place<'_>,
) -> Result<Attached, DataPlaneError> {
    if tc == TcAttach::Clsact {
        // It is no link that would end with its pin.
        let _ = tc::qdisc_detach_program(at.device, at.side, name);
    }
    remove_pins_of(at.dir, at.pin)?;
    attach(object, name, Way { hook: Hook::Tc, tc }, at)
}

/// The new program takes the place of the old one in its link, and then its pin. None if the link has no device any more.
fn replace(
    object: &mut Ebpf,
    name: &'static str,
    way: Way,
    at: &Place<'_>,
) -> Result<Option<Attached>, DataPlaneError> {
    let refused =
        |reason: String| DataPlaneError::Attach { hook: way.hook, device: at.device.to_owned(), reason };
    let failed = |source: ProgramError| refused(error_chain(&source));
    if !way.is_link() {
        return Ok(Some(Attached::KeptFilter(KeptFilter { device: at.device.to_owned() })));
    }
    let pin = at.path(names::LINK_PIN);
    let link = || PinnedLink::from_pin(&pin).map_err(|error| refused(error_chain(&error)));
    let fit = |_| refused(format!("{} is a link of another kind", at.shown(names::LINK_PIN).display()));
    let fresh = at.path("new");
    remove_pin(at.dir, &at.name("new"))?;
    let pin_error = |source| DataPlaneError::Pin { path: at.shown("new"), source };
    match way.hook {
        Hook::Tc => {
            let program = classifier(object, name)?;
            program.pin(&fresh).map_err(|source| pin_error(io::Error::other(source)))?;
            match program.attach_to_link(FdLink::from(link()?).try_into().map_err(fit)?) {
                Ok(id) => drop(program.take_link(id).map_err(failed)?),
                Err(error) if has_errno(&error, libc::ENOLINK) => {
                    return remove_pin(at.dir, &at.name("new")).map(|()| None);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Hook::Xdp | Hook::XdpGeneric => {
            let program = xdp(object, name)?;
            program.pin(&fresh).map_err(|source| pin_error(io::Error::other(source)))?;
            match program.attach_to_link(FdLink::from(link()?).try_into().map_err(fit)?) {
                Ok(id) => drop(program.take_link(id).map_err(failed)?),
                Err(error) if has_errno(&error, libc::ENOLINK) => {
                    return remove_pin(at.dir, &at.name("new")).map(|()| None);
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
    at.dir.rename(&at.name("new"), &at.name(names::PROGRAM_PIN)).map_err(pin_error)?;
    Ok(Some(Attached::Link))
}

fn attach_clsact(program: &mut SchedClassifier, at: &Place<'_>) -> Result<SchedClassifierLink, String> {
    match tc::qdisc_add_clsact(at.device) {
        Ok(()) | Err(tc::TcError::AlreadyAttached) => {}
        // Somebody's, or that of an earlier bond: it stays when its filters go.
        Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error_chain(&error)),
    }
    let first = TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() });
    let id = program.attach_with_options(at.device, at.side, first).map_err(|error| error_chain(&error))?;
    program.take_link(id).map_err(|error| error_chain(&error))
}

/// Takes a program away that was attached by netlink.
fn clear_xdp(ifindex: u32, program: BorrowedFd<'_>, mode: XdpMode) -> Result<(), SysError> {
    let is_generic = mode == XdpMode::Skb;
    BlockingNetlink::open()?.clear_xdp(ifindex, program, is_generic)
}

const NO_XDP: &str = "its driver has no XDP of this kind; use datapath=tc";

/// Whether a system call failed so.
fn has_errno(error: &ProgramError, errno: i32) -> bool {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error() == Some(errno))
}

/// An error with its causes; aya's say the system call and keep the errno below.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Loads the objects of all bonds. A new `EbpfLoader` reads the types of the whole kernel, which is most of the time and
/// memory of loading an object, and here nothing asks for them.
static LOADER: LazyLock<Mutex<EbpfLoader<'static>>> = LazyLock::new(|| {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    Mutex::new(loader)
});

/// Values of [`names::SLOT`], which the loader refers to.
static SLOTS: [u32; PORT_STATS as usize + 1] = {
    let mut slots = [0; PORT_STATS as usize + 1];
    let mut slot = 0;
    while slot <= PORT_STATS {
        slots[slot as usize] = slot;
        slot += 1;
    }
    slots
};

fn load_object(dir: &Directory, kernel: &Kernel, slot: u32) -> Result<Ebpf, DataPlaneError> {
    let slot = SLOTS.get(slot as usize).ok_or(DataPlaneError::Missing(names::SLOT))?;
    // What an earlier load gave it is replaced here, whether that was successful or not.
    let mut loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    loader.override_global(names::SLOT, slot, true);
    loader.override_global(names::OFFSETS, kernel.offsets_in_place(), true);
    for name in names::PINNED_MAPS {
        loader.map_pin_path(name, dir.path_of(name));
    }
    Ok(loader.load(kernel.object())?)
}

/// Hands a program to the verifier.
fn load(object: &mut Ebpf, name: &'static str, hook: Hook) -> Result<(), DataPlaneError> {
    match hook {
        Hook::Tc => classifier(object, name)?.load(),
        Hook::Xdp | Hook::XdpGeneric => xdp(object, name)?.load(),
    }
    .map_err(|source| DataPlaneError::Program { name, source })
}

fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DataPlaneError> {
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(DataPlaneError::Missing(name))
}

/// A loaded program without its object, by a pin that is gone afterwards: aya has no other way, and gets numbers of
/// programs only where the agent may do everything.
fn take_classifier(
    object: &mut Ebpf,
    name: &'static str,
    dir: &Directory,
) -> Result<SchedClassifier, DataPlaneError> {
    const TAKEN: &str = "taken";
    let path = dir.path_of(TAKEN);
    remove_pin(dir, TAKEN)?;
    let pinned = classifier(object, name)?.pin(&path);
    let pin_error = |source| DataPlaneError::Pin { path: dir.shown(TAKEN), source: io::Error::other(source) };
    pinned.map_err(pin_error)?;
    let program = SchedClassifier::from_pin(&path);
    remove_pin(dir, TAKEN)?;
    program.map_err(|source| DataPlaneError::Program { name, source })
}

fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataPlaneError> {
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(DataPlaneError::Missing(name))
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DataPlaneError> {
    object.take_map(name).ok_or(DataPlaneError::Missing(name))
}

fn mapped<T: Pod>(object: &mut Ebpf, name: &'static str, length: usize) -> Result<Mapped<T>, DataPlaneError> {
    match take(object, name)? {
        Map::Array(data) => mapped_data((name, data), length),
        _ => Err(DataPlaneError::Missing(name)),
    }
}

fn mapped_data<T: Pod>(
    (name, data): (&'static str, MapData),
    length: usize,
) -> Result<Mapped<T>, DataPlaneError> {
    let path = || PathBuf::from(name);
    Mapped::new(&data, length).map_err(|source| DataPlaneError::Pin { path: path(), source })
}

fn dev_map(object: &mut Ebpf, name: &'static str) -> Result<DevMap<MapData>, DataPlaneError> {
    DevMap::try_from(take(object, name)?).map_err(|source| DataPlaneError::Map { name, source })
}

fn set(map: &mut DevMap<MapData>, name: &'static str, key: u32, ifindex: u32) -> Result<(), DataPlaneError> {
    map.set(key, ifindex, None, 0).map_err(|source| DataPlaneError::DevMap { name, source })
}

/// The MAC that a bond without bond0 has learned, if it has.
pub fn learned(dir: &Location) -> Result<Mac, DataPlaneError> {
    let error = |source| DataPlaneError::Map { name: names::LEARNED, source };
    let data = MapData::from_pin(open(dir)?.path_of(names::LEARNED)).map_err(error)?;
    let map = aya::maps::Array::<_, u64>::try_from(Map::Array(data)).map_err(error)?;
    map.get(&0, 0).map(Mac::from_word).map_err(error)
}
