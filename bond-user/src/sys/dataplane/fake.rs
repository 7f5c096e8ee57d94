//! A data plane without programs: its maps are files, and its pins say which device a program would be at.

mod ring;
mod words;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use aya_log::EbpfLogger;
use bond_common::{
    abi::{ABI_ADOPTED, ABI_VERSION, PORT_STATS, Slot},
    behind::{BehindEntry, BehindKey},
    counters::SlotStats,
    event::EventRecord,
    heard::FirstHeard,
    mac::Mac,
    names,
};
use nix::errno::Errno;

pub use self::{ring::Ring, words::ProgramMaps};
use super::{
    Attachment, BehindMap, ClockEnd, DataPlane, DataPlaneError, DataPlanes, DeviceLink, Events, Fault,
    FormerMacs, HeardMap, Hook, Kernel, MapMirror, Maps, Pinned, Pins, Port, Replaced, SlotCounters, Unfit,
    Watched,
    mapped::Mapped,
    pins::{self, PORT_PIN, TICK_PATH_PIN, TICK_PIN, remove_pins_of, slave_pin},
};
use crate::sys::{
    directory::{Directory, Location, Trust},
    fake::FakeKernel,
};

/// Bytes of each map's file: more than any has.
const MAP: u64 = 64 << 10;
/// The number of the program of every pin.
const PROGRAM: u32 = 1;

/// Data planes on the devices of a kernel in memory.
pub struct FakeDataPlanes {
    kernel: FakeKernel,
    types: Arc<Kernel>,
    /// EVENTS, by the directory of the pins. They outlive agents.
    rings: Rings,
}

/// EVENTS of the bonds of a machine. Clones are the same ones.
#[derive(Clone, Default)]
pub struct Rings(Arc<Mutex<BTreeMap<PathBuf, Ring>>>);

impl Rings {
    fn of(&self, dir: &Location) -> Ring {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(dir.path()).or_default().clone()
    }

    fn remove(&self, dir: &Location) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&dir.path());
    }
}

impl FakeDataPlanes {
    /// Returns the data planes of a kernel in memory.
    pub fn new(kernel: FakeKernel, types: Arc<Kernel>) -> Self {
        Self::with_rings(kernel, types, Rings::default())
    }

    /// Returns the data planes of a kernel in memory whose EVENTS another agent may have left.
    pub fn with_rings(kernel: FakeKernel, types: Arc<Kernel>, rings: Rings) -> Self {
        Self { kernel, types, rings }
    }

    fn open(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError> {
        let pins = pins::open(dir)?;
        let mirror = MapMirror::new(Arc::new(open_maps(|name| pins.path_of(name))?));
        let (kernel, types) = (self.kernel.clone(), Arc::clone(&self.types));
        let (dir, rings) = (dir.clone(), self.rings.clone());
        Ok(Box::new(FakeDataPlane { kernel, types, dir, hook, mirror: Arc::new(mirror), rings }))
    }
}

impl DataPlanes for FakeDataPlanes {
    fn create(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError> {
        called(&self.kernel, dir, "create the data plane")?;
        let pins = dir.create(0o700).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => DataPlaneError::Exists(dir.path()),
            _ => pin_error(dir)(source),
        })?;
        for name in names::PINNED_MAPS {
            create_map(&pins.path_of(name)).map_err(pin_error(dir))?;
        }
        self.rings.remove(dir);
        self.open(dir, hook)
    }

    fn adopt(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError> {
        called(&self.kernel, dir, "adopt the data plane")?;
        self.open(dir, hook)
    }

    fn pins(&self) -> &dyn Pins {
        self
    }
}

impl Pins for FakeDataPlanes {
    fn left(&self, dir: &Location) -> Result<Result<Maps, Unfit>, DataPlaneError> {
        called(&self.kernel, dir, "read the pins")?;
        let pins = match pins::whole(dir)? {
            Ok(pins) => pins,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let maps = open_maps(|name| pins.path_of(name))?;
        match maps.bond().abi_version() {
            ABI_ADOPTED..=ABI_VERSION => Ok(Ok(maps)),
            other => Ok(Err(Unfit::OtherVersion(other))),
        }
    }

    fn check(&self, dir: &Location) -> Result<(), DataPlaneError> {
        pins::check_pins(dir)
    }

    fn read(&self, dir: &Location) -> Pinned {
        let Ok(pins) = dir.open(Trust::Ours) else { return Pinned::default() };
        let names = pins.entries().unwrap_or_default().into_iter().map(|(name, _)| name);
        let links = names.filter(|name| name.ends_with(names::LINK_PIN));
        let device = |name: String| device_of(&pins, &name).filter(|ifindex| self.kernel.has(*ifindex));
        let link = |name| DeviceLink::in_namespace(device(name).unwrap_or(0), PROGRAM);
        Pinned { links: links.map(link).collect(), programs: vec![PROGRAM] }
    }

    fn remove(&self, dir: &Location) -> Result<(), DataPlaneError> {
        called(&self.kernel, dir, "remove the pins")?;
        pins::remove_pins(dir)
    }

    fn detach_filters(&self, _: &str) {}
}

fn pin_error(dir: &Location) -> impl FnOnce(io::Error) -> DataPlaneError {
    let path = dir.path();
    move |source| DataPlaneError::Pin { path, source }
}

fn called(kernel: &FakeKernel, dir: &Location, what: &str) -> Result<(), DataPlaneError> {
    kernel.note_call(what).map_err(|errno| pin_error(dir)(errno.into()))
}

fn create_map(path: &Path) -> io::Result<()> {
    File::create_new(path)?.set_len(MAP)
}

/// Opens the maps in a directory, which are made where they are missing.
#[cfg(test)]
pub(in crate::sys::dataplane) fn maps_in(directory: &Path) -> Maps {
    for name in names::PINNED_MAPS {
        let _ = create_map(&directory.join(name));
    }
    open_maps(|name| directory.join(name)).unwrap()
}

/// Returns a mirror of the maps in a directory, which are made where they are missing.
#[cfg(test)]
pub fn mirror_in(directory: &Path) -> MapMirror {
    MapMirror::new(Arc::new(maps_in(directory)))
}

fn open_maps(path_of: impl Fn(&str) -> PathBuf) -> Result<Maps, DataPlaneError> {
    let open = |name: &'static str| {
        let file = File::options().read(true).write(true).open(path_of(name));
        file.map(OwnedFd::from).map_err(|source| DataPlaneError::Pin { path: name.into(), source })
    };
    let stats = open(names::STATS)?;
    let counters = Mapped::new(std::os::fd::AsFd::as_fd(&stats), PORT_STATS as usize + 1);
    let counters = counters.map_err(|source| DataPlaneError::Pin { path: names::STATS.into(), source })?;
    let has_clock = names::CLOCK_MAPS.iter().all(|name| path_of(name).exists());
    let maps = Maps::of(has_clock, open, Box::new(FakeCounters(counters)))?;
    Ok(maps.with_behind(Box::new(NothingBehind)).with_heard(Box::new(NothingHeard)))
}

/// HEARD of programs that do not run.
struct NothingHeard;

impl HeardMap for NothingHeard {
    fn read(&self) -> Result<Vec<(Mac, FirstHeard)>, DataPlaneError> {
        Ok(Vec::new())
    }

    fn clear(&self) {}
}

/// BEHIND of programs that do not run.
struct NothingBehind;

impl BehindMap for NothingBehind {
    fn read(&self) -> Result<Vec<(BehindKey, BehindEntry)>, DataPlaneError> {
        Ok(Vec::new())
    }

    fn add(&self, _: &BehindKey, _: &BehindEntry) -> Result<(), DataPlaneError> {
        Ok(())
    }
}

/// The device that a pinned link is at.
fn device_of(pins: &Directory, link: &str) -> Option<u32> {
    fs::read_to_string(pins.path_of(link)).ok()?.parse().ok()
}

struct FakeCounters(Mapped<SlotStats>);

impl SlotCounters for FakeCounters {
    fn read(&self, index: u32) -> Result<SlotStats, DataPlaneError> {
        Ok(self.0.load(index as usize))
    }

    fn reset(&mut self, index: u32) -> Result<(), DataPlaneError> {
        self.0.store(index as usize, SlotStats::default());
        Ok(())
    }
}

/// Returns the maps under `dir`, for what stands for their programs; `None` if they are not there.
pub fn words(dir: &Location, rings: &Rings) -> Option<ProgramMaps> {
    let pins = pins::open(dir).ok()?;
    let maps = open_maps(|name| pins.path_of(name)).ok()?;
    Some(ProgramMaps { maps, ring: rings.of(dir) })
}

struct FakeDataPlane {
    kernel: FakeKernel,
    types: Arc<Kernel>,
    dir: Location,
    hook: Hook,
    mirror: Arc<MapMirror>,
    rings: Rings,
}

impl FakeDataPlane {
    fn attach(&self, pin: &str, device: &str, ifindex: u32) -> Result<(), DataPlaneError> {
        let refused = |errno: Errno| DataPlaneError::Attach {
            hook: self.hook,
            device: device.to_owned(),
            reason: errno.desc().to_owned(),
        };
        self.kernel.note_call(format!("attach {pin} to {device}")).map_err(refused)?;
        if !self.kernel.has(ifindex) {
            return Err(refused(Errno::ENODEV));
        }
        let pins = pins::open(&self.dir)?;
        for (end, contents) in [(names::PROGRAM_PIN, PROGRAM), (names::LINK_PIN, ifindex)] {
            let path = pins.path_of(&format!("{pin}_{end}"));
            fs::write(path, contents.to_string()).map_err(pin_error(&self.dir))?;
        }
        Ok(())
    }

    /// The device that a program is at, if that still exists.
    fn attached(&self, pin: &str) -> Option<u32> {
        let device = device_of(&pins::open(&self.dir).ok()?, &format!("{pin}_{}", names::LINK_PIN))?;
        Some(device).filter(|device| self.kernel.has(*device))
    }
}

impl DataPlane for FakeDataPlane {
    fn check_pins(&self) -> Result<(), DataPlaneError> {
        pins::check_pins(&self.dir)
    }

    fn replace_port(&mut self, port: &Port<'_>) -> Result<bool, DataPlaneError> {
        let was_detached = self.attached(PORT_PIN).is_none();
        self.attach(PORT_PIN, port.device, port.ifindex)?;
        Ok(was_detached)
    }

    fn replace_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<Replaced, DataPlaneError> {
        let (pin, pins) = (slave_pin(slot), pins::open(&self.dir)?);
        if !pins.has(&format!("{pin}_{}", names::LINK_PIN)) {
            return Ok(Replaced::Absent);
        }
        if self.attached(&pin).is_none() {
            return Ok(Replaced::Detached);
        }
        self.attach(&pin, device, ifindex)?;
        Ok(Replaced::Done)
    }

    fn hook(&self) -> Hook {
        self.hook
    }

    fn kernel(&self) -> &Kernel {
        &self.types
    }

    fn mirror(&self) -> Arc<MapMirror> {
        Arc::clone(&self.mirror)
    }

    fn take_events(&mut self) -> Result<Box<dyn Events>, DataPlaneError> {
        Ok(Box::new(self.rings.of(&self.dir)))
    }

    fn drain_events(&mut self) -> Vec<EventRecord> {
        self.rings.of(&self.dir).drain()
    }

    fn take_log(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, DataPlaneError> {
        Err(DataPlaneError::Missing("a log"))
    }

    fn forget_object(&mut self) {}

    fn attach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        self.attach(PORT_PIN, port.device, port.ifindex)
    }

    fn accept_former_macs(&mut self, _: &str) -> Result<Option<FormerMacs>, DataPlaneError> {
        Ok(None)
    }

    fn attach_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<(), DataPlaneError> {
        self.attach(&slave_pin(slot), device, ifindex)
    }

    fn attach_tick(&mut self, receiver: ClockEnd<'_>, sender: ClockEnd<'_>) -> Result<(), DataPlaneError> {
        self.attach(TICK_PIN, receiver.device, receiver.ifindex)?;
        self.attach(TICK_PATH_PIN, sender.device, sender.ifindex)
    }

    fn detach_tick(&mut self) -> Result<(), DataPlaneError> {
        called(&self.kernel, &self.dir, "detach the tick")?;
        let pins = pins::open(&self.dir)?;
        [TICK_PIN, TICK_PATH_PIN].into_iter().try_for_each(|pin| remove_pins_of(&pins, pin))
    }

    fn detach_slave(&mut self, slot: Slot) -> Result<(), DataPlaneError> {
        called(&self.kernel, &self.dir, &format!("detach slot {}", slot.index()))?;
        remove_pins_of(&pins::open(&self.dir)?, &slave_pin(slot))
    }

    fn changed_maps(&self, _: u32, _: &[Attachment<'_>]) -> Vec<Fault> {
        Vec::new()
    }

    fn shown_pins(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn missing_pins(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn pin_again(&self, _: &[String]) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn watched(&self, _: &Port<'_>, _: &[Attachment<'_>]) -> Vec<Watched> {
        Vec::new()
    }

    fn is_current(&self, _: &Watched) -> bool {
        true
    }

    fn filters(&self, _: Option<Slot>) -> Vec<&'static str> {
        Vec::new()
    }

    fn restore_maps(&mut self, _: u32, _: &[Attachment<'_>]) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn reattach_slave(&mut self, slave: &Attachment<'_>) -> Result<(), DataPlaneError> {
        self.attach_slave(slave.slot, slave.device, slave.ifindex)
    }

    fn reattach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError> {
        self.attach_port(port)
    }

    fn reattach_ends(&mut self, _: &Port<'_>) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn detach_filters(&self, _: &str) {}

    fn remove(self: Box<Self>) -> Result<(), DataPlaneError> {
        called(&self.kernel, &self.dir, "remove the data plane")?;
        pins::remove_pins(&self.dir)
    }

    fn keep(self: Box<Self>) {}
}
