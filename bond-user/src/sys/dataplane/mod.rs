//! The data plane of one bond: what the agent requests of it, and what it reports.
//!
//! [`BpfDataPlane`] is the kernel's BPF. Tests have one in memory.

mod attach;
mod behind;
mod bpf;
mod btf;
mod clock_maps;
mod device_reader;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod heard;
mod held;
mod kernel;
mod link;
mod mapped;
mod maps;
mod mirror;
mod netkit;
mod path_maps;
mod pins;
mod watched;
pub mod witness;
mod words;

use std::{any::Any, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use aya::programs::ProgramError;
use aya_log::EbpfLogger;
use bond_common::{abi::Slot, event::EventRecord, names};

use attach::error_chain;
pub use behind::BehindMap;
pub use bpf::{BpfDataPlane, BpfDataPlanes, BpfPins};
pub use clock_maps::ClockMaps;
pub use device_reader::DeviceReader;
pub use heard::HeardMap;
pub use kernel::{Kernel, KernelError, TcAttach};
pub use link::DeviceLink;
pub use maps::{Maps, SlotCounters};
pub use mirror::{MapMirror, PathProbe};
use netkit::DeviceHook;
pub use path_maps::PathMaps;
pub use pins::{Hold, Pinned, faults, hold, learned, lost_programs, pinned_hook};
pub use watched::{At, AtHook, Watched};

use super::directory::Location;

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bond-ebpf"));

/// The hooks at which the programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Programs of tc.
    Tc,
    /// XDP in the driver.
    Xdp,
    /// XDP in the stack, for devices with a driver without XDP: slower than tc.
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

/// Errors of xbond's calls to the kernel's BPF.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
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
    #[error("{0} exists: the bond runs, or was left behind; remove it with `xbond down BOND --force`")]
    Exists(PathBuf),
    #[error(
        "{0}: the bond's pins are gone (bpffs unmounted?); to create it again: xbond down, then xbond add"
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

/// Creates data planes, or adopts those of another agent.
pub trait DataPlanes: Send + Sync {
    /// Creates the maps, pins them under `dir`, which must not exist, and loads the port's program.
    ///
    /// # Errors
    /// `dir` exists ([`DataPlaneError::Exists`]), or the kernel refuses a map, a pin or the program. Nothing is left of it.
    fn create(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError>;

    /// Adopts the data plane that another agent has left under `dir`, and that [`Pins::left`] has found complete. The maps
    /// stay, and so do the programs until [`DataPlane::replace_port`] and [`DataPlane::replace_slave`].
    ///
    /// # Errors
    /// A pin cannot be opened, or the kernel refuses a program of this version.
    fn adopt(&self, dir: &Location, hook: Hook) -> Result<Box<dyn DataPlane>, DataPlaneError>;

    /// Returns the access to the pins.
    fn pins(&self) -> &dyn Pins;
}

/// The pins of bonds, with or without an agent.
pub trait Pins: Send + Sync {
    /// Returns the maps under `dir`, to be checked before anything is changed.
    ///
    /// # Errors
    /// A pin that exists cannot be opened or read. Missing or unsuitable maps are no error, but the inner result.
    fn left(&self, dir: &Location) -> Result<Result<Maps, Unfit>, DataPlaneError>;

    /// Checks that there are pins: without them nothing but an agent holds a bond.
    ///
    /// # Errors
    /// [`DataPlaneError::Unpinned`] if they are gone; any other if they cannot be checked, for example without a free
    /// descriptor: their state is unknown then.
    fn check(&self, dir: &Location) -> Result<(), DataPlaneError>;

    /// Reads which programs are pinned under `dir`. A pin that is missing or cannot be read is left out.
    fn read(&self, dir: &Location) -> Pinned;

    /// Removes the pins of a bond, and with the links' pins the programs from their hooks.
    ///
    /// # Errors
    /// A pin cannot be removed; those before it are.
    fn remove(&self, dir: &Location) -> Result<(), DataPlaneError>;

    /// Removes xbond's filters from a device.
    fn detach_filters(&self, device: &str);
}

/// The events that the programs of one bond report: the ring buffer EVENTS.
pub trait Events: Send {
    /// Returns the oldest record that was not read yet, or that it is of another version.
    fn next(&mut self) -> Option<Result<EventRecord, OtherVersion>>;

    /// Returns a descriptor that becomes readable when there is a record; `None` if there is nothing to wait for.
    ///
    /// # Errors
    /// The process lacks descriptors.
    fn descriptor(&self) -> io::Result<Option<OwnedFd>>;
}

/// A record that is of another version of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherVersion;

/// The data plane of one bond. Dropping it changes nothing in the kernel; [`Self::remove`] removes it.
pub trait DataPlane: Send + Sync {
    /// Checks that the pins exist.
    ///
    /// # Errors
    /// As [`Pins::check`].
    fn check_pins(&self) -> Result<(), DataPlaneError>;

    /// Replaces the program at the port by this version's, without a packet in between. A program that another process has
    /// detached, or whose pin was removed, is attached again. Returns whether that was necessary.
    ///
    /// # Errors
    /// The kernel refuses the program; the former one stays.
    fn replace_port(&mut self, port: &Port<'_>) -> Result<bool, DataPlaneError>;

    /// Replaces the program at a slave. It attaches none.
    ///
    /// # Errors
    /// The kernel refuses the program; the former one stays.
    fn replace_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<Replaced, DataPlaneError>;

    /// Returns the hooks that carry the packets.
    fn hook(&self) -> Hook;

    /// Returns the kernel for which the programs were loaded.
    fn kernel(&self) -> &Kernel;

    /// Returns the mirror of the maps, to share with the engine and the tasks of the bond.
    fn mirror(&self) -> Arc<MapMirror>;

    /// Takes EVENTS out, once.
    ///
    /// # Errors
    /// It was taken out before.
    fn take_events(&mut self) -> Result<Box<dyn Events>, DataPlaneError>;

    /// Reads what EVENTS holds, before [`Self::take_events`].
    fn drain_events(&mut self) -> Vec<EventRecord>;

    /// Takes out the reader of the port's program's log, once, before [`Self::forget_object`].
    ///
    /// # Errors
    /// The program has no log, or it was taken out before.
    fn take_log(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, DataPlaneError>;

    /// Frees what is not needed any more when the port's program is at its hook: the object has the instructions of all
    /// programs, and the options for the verifier.
    fn forget_object(&mut self);

    /// Attaches the port's program to the port, and with a netkit pair to the end by which bond0 sends.
    ///
    /// # Errors
    /// The kernel does not attach it; nothing of it is left.
    fn attach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError>;

    /// Makes bond0 accept frames to the MAC address of any slave until the returned value is dropped: while its own address
    /// changes, frames that are under way carry the former one. Returns `None` if the kernel has no tcx (before 6.6): a
    /// frame may be lost then.
    ///
    /// # Errors
    /// The kernel does not attach the program.
    fn accept_former_macs(&mut self, bond: &str) -> Result<Option<FormerMacs>, DataPlaneError>;

    /// Attaches a slave's program to the slave. Nothing is delivered until ACTIVE names the slot.
    ///
    /// # Errors
    /// It cannot be loaded or attached; nothing of it is left.
    fn attach_slave(&mut self, slot: Slot, device: &str, ifindex: u32) -> Result<(), DataPlaneError>;

    /// Attaches the tick to the receiving end of the clock's pair, and the path monitor to the sending end, or replaces them
    /// there.
    ///
    /// # Errors
    /// A program cannot be loaded or attached.
    fn attach_tick(&mut self, receiver: ClockEnd<'_>, sender: ClockEnd<'_>) -> Result<(), DataPlaneError>;

    /// Detaches the tick and the path monitor, and removes their pins.
    ///
    /// # Errors
    /// A pin cannot be removed.
    fn detach_tick(&mut self) -> Result<(), DataPlaneError>;

    /// Detaches a slave's program, and removes its pins.
    ///
    /// # Errors
    /// A pin cannot be removed.
    fn detach_slave(&mut self, slot: Slot) -> Result<(), DataPlaneError>;

    /// Returns which entries of TX_PORTS and RX_PORT another process has changed.
    fn changed_maps(&self, port: u32, slaves: &[Attachment<'_>]) -> Vec<Fault>;

    /// Returns the directory of the pins, for messages.
    fn shown_pins(&self) -> String;

    /// Returns the names of pins that are missing: all of them, where bpffs was unmounted.
    ///
    /// # Errors
    /// They cannot be checked, for example without a free descriptor: their state is unknown.
    fn missing_pins(&self) -> io::Result<Vec<String>>;

    /// Pins these again, by their names.
    ///
    /// # Errors
    /// There is no bpffs, or another object has such a name.
    fn pin_again(&self, missing: &[String]) -> Result<(), DataPlaneError>;

    /// Returns the programs that are links, to be checked by [`Watched::read`]. Where programs are filters, [`Self::filters`]
    /// names them.
    fn watched(&self, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Watched>;

    /// Returns whether a program that was checked is still the one that belongs to its hook.
    fn is_current(&self, watched: &Watched) -> bool;

    /// Returns the names of the filters on this slave, or on the port, where programs are filters.
    fn filters(&self, of: Option<Slot>) -> Vec<&'static str>;

    /// Restores RX_PORT and TX_PORTS.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    fn restore_maps(&mut self, port: u32, slaves: &[Attachment<'_>]) -> Result<(), DataPlaneError>;

    /// Attaches a slave's program again that another process has detached. It is loaded first, which takes longest: without
    /// it, the host's own stack receives the slave's frames.
    ///
    /// # Errors
    /// It cannot be loaded or attached.
    fn reattach_slave(&mut self, slave: &Attachment<'_>) -> Result<(), DataPlaneError>;

    /// Attaches the port's program again, at the port and with a netkit pair at the end by which bond0 sends.
    ///
    /// # Errors
    /// It cannot be loaded or attached.
    fn reattach_port(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError>;

    /// Attaches the programs at the egress of the pair's ends again.
    ///
    /// # Errors
    /// One cannot be loaded or attached.
    fn reattach_ends(&mut self, port: &Port<'_>) -> Result<(), DataPlaneError>;

    /// Removes xbond's filters from a device that is no slave, where programs are filters.
    fn detach_filters(&self, device: &str);

    /// Removes everything: programs from their hooks, maps from their pins.
    ///
    /// # Errors
    /// A pin cannot be removed.
    fn remove(self: Box<Self>) -> Result<(), DataPlaneError>;

    /// Drops the agent's handles; the programs stay at their hooks, and the maps at their pins.
    fn keep(self: Box<Self>);
}

/// An end of the clock's pair.
#[derive(Clone, Copy, Debug)]
pub struct ClockEnd<'a> {
    /// The name of the device.
    pub device: &'a str,
    /// Its index.
    pub ifindex: u32,
}

/// While this is held, bond0 accepts frames with its former MAC addresses: [`DataPlane::accept_former_macs`].
pub struct FormerMacs {
    _held: Box<dyn Any + Send + Sync>,
}

/// Where the program runs on frames that bond0, or the host behind an existing port, sends: at the port's ingress.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// The name of the port.
    pub device: &'a str,
    /// Its index.
    pub ifindex: u32,
    /// ifindex of bond0 where it and the port are a netkit pair: the program then also runs as bond0 sends, and
    /// transmits from there.
    pub netkit: Option<u32>,
    /// bond0, where it and the port are a pair and both are in the agent's network namespace. Without it the programs
    /// at the egress of the ends are not changed.
    pub bond: Option<&'a str>,
}

/// What became of a slave's program that was to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The program was replaced.
    Done,
    /// Its link has no device: another process has detached it, or the slave was in another namespace, and the kernel
    /// detached it.
    Detached,
    /// It is not pinned: the slave's set-up was not finished, or its pin was removed.
    Absent,
}

/// A slave with an attached program.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// The slave's slot.
    pub slot: Slot,
    /// The name of the slave.
    pub device: &'a str,
    /// Its index.
    pub ifindex: u32,
}

/// A part of the data plane that another process has changed.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program is not attached to this device.
    Detached { device: String },
    /// Another program is in its link.
    Replaced { device: String },
    /// An entry of a device map has another device, or none.
    DeviceMap { map: &'static str, key: u32 },
    /// The check failed: nothing is known.
    Unknown { what: String, why: String },
}

/// Why what another agent has left cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A map's pin is gone.
    NoMap(&'static str),
    /// No program was attached to the port yet: its bring-up was interrupted.
    NoPort,
    /// The maps have this other [`bond_common::abi::ABI_VERSION`].
    OtherVersion(u32),
}
