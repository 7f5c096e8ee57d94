//! The data plane of one bond in the kernel's BPF: its programs loaded and attached, its maps, and their pins.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{DevMap, MapData, RingBuf},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use aya_log::EbpfLogger;
use bond_common::{
    abi::{PORT_STATS, Slot},
    event::EventRecord,
    names,
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{
    At, Attachment, ClockEnd, DataPlane, DataPlaneError, DataPlanes, DeviceHook, Events, Fault, FormerMacs,
    Hook, Kernel, MapMirror, Maps, OtherVersion, Pinned, Pins, Port, Replaced, TcAttach, Unfit, Watched,
    attach::{
        AttachMethod, AttachPoint, attach, attach_new, dev_map, error_chain, load, load_object, replace, set,
        take, take_classifier,
    },
    held::Held,
    netkit,
    pins::{
        self, BOND_EGRESS_PIN, BOND_LINK_PIN, BOND_PIN, PORT_EGRESS_PIN, PORT_PIN, TICK_PATH_PIN, TICK_PIN,
        changed, is_absence, local_pin, open, remove_pins_of, slave_pin,
    },
    witness,
};
use crate::sys::directory::{Directory, Location, Trust};

/// The pins of bonds in bpffs.
#[derive(Clone, Copy, Debug, Default)]
pub struct BpfPins;

impl Pins for BpfPins {
    fn left(&self, dir: &Location) -> Result<Result<Maps, Unfit>, DataPlaneError> {
        pins::left(dir)
    }

    fn check(&self, dir: &Location) -> Result<(), DataPlaneError> {
        pins::check_pins(dir)
    }

    fn read(&self, dir: &Location) -> Pinned {
        Pinned::read(dir)
    }

    fn remove(&self, dir: &Location) -> Result<(), DataPlaneError> {
        pins::remove_pins(dir)
    }

    fn detach_filters(&self, device: &str) {
        pins::detach_filters(device);
    }
}

/// Data planes of programs for this kernel.
#[derive(Clone)]
pub struct BpfDataPlanes {
    kernel: Arc<Kernel>,
    pins: BpfPins,
}

impl BpfDataPlanes {
    /// Returns the data planes of this kernel.
    pub fn new(kernel: Arc<Kernel>) -> Self {
        Self { kernel, pins: BpfPins }
    }
}

impl DataPlanes for BpfDataPlanes {
    fn create(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError> {
        Ok(Box::new(BpfDataPlane::create(dir, hook, Arc::clone(&self.kernel))?))
    }

    fn adopt(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError> {
        Ok(Box::new(BpfDataPlane::adopt(dir, hook, Arc::clone(&self.kernel))?))
    }

    fn pins(&self) -> &dyn Pins {
        &self.pins
    }
}

impl Events for RingBuf<MapData> {
    fn next(&mut self) -> Option<Result<EventRecord, OtherVersion>> {
        let item = Self::next(self)?;
        Some(EventRecord::parse(&item).ok_or(OtherVersion))
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        self.as_fd().try_clone_to_owned().map(Some)
    }
}

/// A program at its hook.
pub(super) enum Attached {
    /// It stays as long as the pin, whichever process ends, and as long as [`Held`] has it.
    Link,
    /// A clsact filter, of kernels without tcx (before 6.6): it stays until it is removed.
    Filter(SchedClassifierLink),
    /// One that another agent attached. It cannot be replaced without a gap, and stays as it is.
    KeptFilter(KeptFilter),
}

pub(super) struct KeptFilter {
    pub(super) device: String,
}

impl Drop for KeptFilter {
    fn drop(&mut self) {
        pins::detach_filters(&self.device);
    }
}

/// The data plane of one bond. Dropping it leaves everything where it is; [`DataPlane::remove`] takes it away.
pub struct BpfDataPlane {
    dir: Location,
    hook: Hook,
    kernel: Arc<Kernel>,
    mirror: Arc<MapMirror>,
    /// The object with the port's program, until that is at its hook.
    port_object: Option<Ebpf>,
    /// The program that is sometimes on bond0.
    host_program: SchedClassifier,
    events: Option<RingBuf<MapData>>,
    port: Option<Attached>,
    slaves: [Option<Attached>; bond_common::abi::MAX_SLAVES],
    /// Under XDP, what copies link-local frames behind the slave's program.
    locals: [Option<Attached>; bond_common::abi::MAX_SLAVES],
    /// At the clock's pair.
    tick: Option<Attached>,
    tick_path: Option<Attached>,
    /// What is pinned.
    held: Held,
    tx_ports: DevMap<MapData>,
    rx_port: DevMap<MapData>,
}

impl BpfDataPlane {
    /// Creates the maps, pins them under `dir`, which must not exist, and loads the port's program.
    ///
    /// # Errors
    /// `dir` exists ([`DataPlaneError::Exists`]), cannot be created, or the kernel refuses a map, a pin or the program.
    /// The pins that were created are removed.
    pub fn create(dir: &Location, hook: Hook, kernel: Arc<Kernel>) -> Result<Self, DataPlaneError> {
        let pin_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => DataPlaneError::Exists(dir.path()),
            _ => DataPlaneError::Pin { path: dir.path(), source },
        };
        dir.create(0o700).map_err(pin_error)?;
        Self::fill(dir, hook, kernel).inspect_err(|_| {
            // Nothing was attached; what could not be removed is named by the next attempt.
            let _ = pins::remove_pins(dir);
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
            mirror: Arc::new(MapMirror::new(Arc::new(maps))),
            port_object: Some(object),
            host_program,
            events: Some(events),
            port: None,
            slaves: Default::default(),
            locals: Default::default(),
            tick: None,
            tick_path: None,
            held: Held::maps(&pins)?,
            tx_ports,
            rx_port,
        })
    }

    /// Takes over what another agent has left under `dir`, which [`Pins::left`] has found whole: the maps stay, and so do
    /// the programs until [`DataPlane::replace_port`] and [`DataPlane::replace_slave`].
    ///
    /// # Errors
    /// A pinned map or program cannot be opened, or the kernel refuses a program of this version.
    pub fn adopt(dir: &Location, hook: Hook, kernel: Arc<Kernel>) -> Result<Self, DataPlaneError> {
        Self::fill(dir, hook, kernel)
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
        // With XDP, and with a netkit pair, taps at the port do not see what bond0 sends.
        let speaks_to_port = self.hook == Hook::Tc && netkit.is_none();
        let at_bond = [(names::TC_BOND_EGRESS, BOND_EGRESS_PIN, bond)];
        let ends = [(names::TC_PORT_EGRESS, PORT_EGRESS_PIN, device)];
        for (name, pin, device) in ends.into_iter().chain(at_bond.into_iter().filter(|_| speaks_to_port)) {
            let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(name))?;
            let at = AttachPoint { dir: &pins, pin, device, ifindex, side: TcAttachType::Egress };
            self.held.release(pin);
            attach_new(object, name, self.kernel.tc(), at)?;
            self.held.take_program(&pins, pin)?;
        }
        Ok(())
    }

    fn method(&self) -> AttachMethod {
        AttachMethod { hook: self.hook, tc: self.kernel.tc() }
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
        let at = AttachPoint { dir: &pins, pin: &pin, device, ifindex, side: TcAttachType::Ingress };
        let attached = attach(&mut object, self.hook.slave_program(), self.method(), at);
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
        let at = AttachPoint { dir: &pins, pin: &pin, device, ifindex, side: TcAttachType::Ingress };
        self.locals[slot.index()] = Some(attach_new(object, names::TC_SLAVE_LOCAL, self.kernel.tc(), at)?);
        self.held.take_program(&pins, &pin)
    }

    /// Attaches a program, which is loaded, to an end of the clock's pair, or replaces it there.
    fn attach_at_clock(
        &mut self,
        object: &mut Ebpf,
        name: &'static str,
        at: AttachPoint<'_>,
    ) -> Result<Attached, DataPlaneError> {
        let way = AttachMethod { hook: Hook::Tc, tc: self.kernel.tc() };
        if way.is_link()
            && at.is_there(names::LINK_PIN)
            && let Some(attached) = replace(object, name, way, &at)?
        {
            return Ok(attached);
        }
        self.held.release(at.pin);
        attach_new(object, name, self.kernel.tc(), at)
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
}

impl DataPlane for BpfDataPlane {
    fn check_pins(&self) -> Result<(), DataPlaneError> {
        pins::check_pins(&self.dir)
    }

    fn replace_port(&mut self, port: &Port<'_>) -> Result<bool, DataPlaneError> {
        let &Port { device, ifindex, netkit, .. } = port;
        let pins = open(&self.dir)?;
        let at = AttachPoint { dir: &pins, pin: PORT_PIN, device, ifindex, side: TcAttachType::Ingress };
        let method = self.method();
        let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(self.hook.port_program()))?;
        self.port = if method.is_link() && !at.is_there(names::LINK_PIN) {
            None
        } else {
            replace(object, self.hook.port_program(), method, &at)?
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

    fn replace_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<Replaced, DataPlaneError> {
        let (pin, pins) = (slave_pin(slot), open(&self.dir)?);
        let at = AttachPoint { dir: &pins, pin: &pin, device, ifindex, side: TcAttachType::Ingress };
        let method = self.method();
        if !at.is_there(names::PROGRAM_PIN) || (method.is_link() && !at.is_there(names::LINK_PIN)) {
            return Ok(Replaced::Absent);
        }
        let mut object = load_object(&pins, &self.kernel, slot.index() as u32)?;
        load(&mut object, self.hook.slave_program(), self.hook)?;
        self.slaves[slot.index()] = replace(&mut object, self.hook.slave_program(), method, &at)?;
        self.held.take_program(&pins, &pin)?;
        if self.slaves[slot.index()].is_none() {
            return Ok(Replaced::Detached);
        }
        self.attach_local(&mut object, slot, (device, ifindex))?;
        Ok(Replaced::Done)
    }

    fn hook(&self) -> Hook {
        self.hook
    }

    fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    fn mirror(&self) -> Arc<MapMirror> {
        Arc::clone(&self.mirror)
    }

    fn take_events(&mut self) -> Result<Box<dyn Events>, DataPlaneError> {
        let events = self.events.take().ok_or(DataPlaneError::Missing(names::EVENTS))?;
        Ok(Box::new(events))
    }

    fn drain_events(&mut self) -> Vec<EventRecord> {
        let mut records = Vec::new();
        while let Some(record) = self.events.as_mut().and_then(Events::next) {
            records.extend(record);
        }
        records
    }

    fn take_log(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, DataPlaneError> {
        let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(self.hook.port_program()))?;
        Ok(EbpfLogger::init(object)?)
    }

    fn forget_object(&mut self) {
        self.port_object = None;
    }

    fn attach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        let &Port { device, ifindex, netkit, .. } = port;
        set(&mut self.rx_port, names::RX_PORT, 0, ifindex)?;
        let pins = open(&self.dir)?;
        let at = AttachPoint { dir: &pins, pin: PORT_PIN, device, ifindex, side: TcAttachType::Ingress };
        let method = self.method();
        let object = self.port_object.as_mut().ok_or(DataPlaneError::Missing(self.hook.port_program()))?;
        self.port = Some(attach(object, self.hook.port_program(), method, at)?);
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

    fn accept_former_macs(&mut self, bond: &str) -> Result<Option<FormerMacs>, DataPlaneError> {
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
        Ok(Some(FormerMacs { _held: Box::new(program.take_link(id).map_err(attached)?) }))
    }

    fn attach_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<(), DataPlaneError> {
        let object = self.load_slave(slot)?;
        self.attach_loaded(object, slot, (device, ifindex))
    }

    fn attach_tick(&mut self, receiver: ClockEnd<'_>, sender: ClockEnd<'_>) -> Result<(), DataPlaneError> {
        let pins = open(&self.dir)?;
        let mut object = load_object(&pins, &self.kernel, PORT_STATS)?;
        for (name, (end, pin, side)) in [
            (names::TC_TICK, (receiver, TICK_PIN, TcAttachType::Ingress)),
            (names::TC_TICK_PATH, (sender, TICK_PATH_PIN, TcAttachType::Egress)),
        ] {
            load(&mut object, name, Hook::Tc)?;
            let at = AttachPoint { dir: &pins, pin, device: end.device, ifindex: end.ifindex, side };
            let attached = self.attach_at_clock(&mut object, name, at)?;
            *(if pin == TICK_PIN { &mut self.tick } else { &mut self.tick_path }) = Some(attached);
            self.held.take_program(&pins, pin)?;
        }
        Ok(())
    }

    fn detach_tick(&mut self) -> Result<(), DataPlaneError> {
        (self.tick, self.tick_path) = (None, None);
        let pins = open(&self.dir)?;
        [TICK_PIN, TICK_PATH_PIN].into_iter().try_for_each(|pin| {
            self.held.release(pin);
            remove_pins_of(&pins, pin)
        })
    }

    fn detach_slave(&mut self, slot: Slot) -> Result<(), DataPlaneError> {
        drop((self.slaves[slot.index()].take(), self.locals[slot.index()].take()));
        for pin in [slave_pin(slot), local_pin(slot)] {
            self.held.release(&pin);
        }
        self.remove_slave_pins(slot)
    }

    fn changed_maps(&self, port: u32, slaves: &[Attachment<'_>]) -> Vec<Fault> {
        let mut faults: Vec<_> = changed(&self.rx_port, names::RX_PORT, 0, port).into_iter().collect();
        for slave in slaves {
            let key = slave.slot.index() as u32;
            faults.extend(changed(&self.tx_ports, names::TX_PORTS, key, slave.ifindex));
        }
        faults
    }

    fn shown_pins(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn missing_pins(&self) -> io::Result<Vec<String>> {
        let pinned = match self.dir.open(Trust::Ours) {
            Ok(pins) => pins.listed()?,
            Err(error) if is_absence(&error) => HashSet::new(),
            Err(error) => return Err(error),
        };
        Ok(self.held.names().filter(|name| !pinned.contains(*name)).cloned().collect())
    }

    fn pin_again(&self, missing: &[String]) -> Result<(), DataPlaneError> {
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

    fn watched(&self, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Watched> {
        let mut watched = Vec::new();
        let mut add = |at, pin: &str, device: &str, ifindex: Option<u32>, hook: Option<DeviceHook>| {
            let link = self.held.get(&format!("{pin}_{}", names::LINK_PIN));
            let of_port = || self.held.number_of_program(PORT_PIN).filter(|_| pin == BOND_PIN);
            let program = self.held.number_of_program(pin).or_else(of_port);
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

    fn is_current(&self, watched: &Watched) -> bool {
        self.held.has(&watched.link)
    }

    fn filters(&self, of: Option<Slot>) -> Vec<&'static str> {
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

    fn restore_maps(&mut self, port: u32, slaves: &[Attachment<'_>]) -> Result<(), DataPlaneError> {
        set(&mut self.rx_port, names::RX_PORT, 0, port)?;
        slaves.iter().try_for_each(|slave| {
            set(&mut self.tx_ports, names::TX_PORTS, slave.slot.index() as u32, slave.ifindex)
        })
    }

    fn reattach_slave(&mut self, slave: &Attachment<'_>) -> Result<(), DataPlaneError> {
        let object = self.load_slave(slave.slot)?;
        forget(self.slaves[slave.slot.index()].take());
        forget(self.locals[slave.slot.index()].take());
        for pin in [slave_pin(slave.slot), local_pin(slave.slot)] {
            self.held.release(&pin);
        }
        self.remove_slave_pins(slave.slot)?;
        self.attach_loaded(object, slave.slot, (slave.device, slave.ifindex))
    }

    fn reattach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
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

    fn reattach_ends(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        let mut object = load_object(&open(&self.dir)?, &self.kernel, PORT_STATS)?;
        for name in [names::TC_PORT_EGRESS, names::TC_BOND_EGRESS] {
            load(&mut object, name, Hook::Tc)?;
        }
        self.port_object = Some(object);
        let attached = self.part_ends(port);
        self.port_object = None;
        attached
    }

    fn detach_filters(&self, device: &str) {
        if self.kernel.tc() == TcAttach::Clsact {
            pins::detach_filters(device);
        }
    }

    fn remove(mut self: Box<Self>) -> Result<(), DataPlaneError> {
        self.port = None;
        self.slaves = Default::default();
        self.locals = Default::default();
        (self.tick, self.tick_path) = (None, None);
        let pins = [PORT_PIN, BOND_PIN, PORT_EGRESS_PIN, BOND_EGRESS_PIN, TICK_PIN, TICK_PATH_PIN];
        let pins = pins.map(str::to_owned);
        for pin in pins.into_iter().chain(Slot::all().flat_map(|slot| [slave_pin(slot), local_pin(slot)])) {
            self.held.release(&pin);
        }
        pins::remove_pins(&self.dir)
    }

    fn keep(mut self: Box<Self>) {
        for attached in self.slaves.iter_mut().chain(&mut self.locals).chain([
            &mut self.port,
            &mut self.tick,
            &mut self.tick_path,
        ]) {
            match attached.take() {
                // Dropping it would detach the filter.
                Some(Attached::Filter(link)) => std::mem::forget(link),
                Some(Attached::KeptFilter(filter)) => std::mem::forget(filter),
                Some(Attached::Link) | None => {}
            }
        }
    }
}

/// Drops what holds a program that is at its hook no more. A filter is not removed: another one may be in its place.
fn forget(attached: Option<Attached>) {
    match attached {
        Some(Attached::Filter(link)) => std::mem::forget(link),
        Some(Attached::KeptFilter(filter)) => std::mem::forget(filter),
        Some(Attached::Link) | None => {}
    }
}
