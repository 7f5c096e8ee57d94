//! Determines whether a network namespace still exists, without a reference to the namespace.
//!
//! The kernel removes a device from a device map (BPF_MAP_TYPE_DEVMAP) when it unregisters the device. `lo` of a
//! namespace cannot be deleted or moved: the kernel unregisters it when the namespace ends, and only then. So a
//! pinned device map with `lo` as its one entry shows whether the namespace lives, whatever keeps it alive: a
//! process, a file descriptor in a process that cannot be read, a bind mount in another mount namespace, or a socket.
//! The map itself keeps nothing alive, and no packet passes through it.
//!
//! The alternatives are worse. A search of `/proc/*/ns/net`, `/proc/*/fd` and `/run/netns` finds namespaces that
//! live, but not all of them, so it proves the death of none. Inode numbers of namespaces are reused. Handles of
//! namespace files exist since Linux 6.18 only, and need CAP_SYS_ADMIN. BPF links of a namespace (flow dissector,
//! sk_lookup) would run a program for its packets.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::netkit::{self, attribute, bpf, number};
use crate::sys::directory::{Directory, EntryKind};

/// The name of the pin. No bond's directory has it: names of bonds have no percent sign.
pub const WITNESS: &str = "%netns";
/// The name of the map, as `bpftool` shows it.
const MAP: &[u8] = b"NETNS";
/// ifindex of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
const KEY: u32 = 0;

/// The state of a network namespace according to its witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// The network namespace exists.
    Lives,
    /// `lo` was unregistered, which ends the namespace.
    Ended,
    /// There is no witness: an older xbond created the directory, or it is incomplete.
    None,
}

/// Pins a witness of the calling thread's network namespace in `dir`, unless one exists that shows the namespace to
/// live.
///
/// # Errors
/// The map cannot be created or pinned, or the object of its name cannot be read.
pub fn make(dir: &Directory) -> io::Result<()> {
    match ask(dir)? {
        Testimony::Lives => return Ok(()),
        Testimony::Ended => dir.remove_file(WITNESS)?,
        Testimony::None => {}
    }
    let map = create()?;
    let (key, value) = (KEY, LOOPBACK);
    let mut element = attribute();
    // SAFETY: the view of the union that BPF_MAP_UPDATE_ELEM takes; all of it is zero.
    let update = unsafe { &mut element.__bindgen_anon_2 };
    update.map_fd = number(&map);
    update.key = &raw const key as u64;
    update.__bindgen_anon_1.value = &raw const value as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut element)?;
    netkit::pin(map.as_fd(), &dir.path_of(WITNESS))
}

/// Reads the witness in `dir`.
///
/// # Errors
/// The object of its name is no device map, or cannot be read: nothing is known then.
pub fn ask(dir: &Directory) -> io::Result<Testimony> {
    match dir.kind(WITNESS) {
        None => return Ok(Testimony::None),
        Some(EntryKind::File) => {}
        Some(_) => return Err(not_a_witness(dir)),
    }
    let map = match netkit::open(&dir.path_of(WITNESS)) {
        Ok(map) => map,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Testimony::None),
        Err(error) => return Err(error),
    };
    if !is_device_map(map.as_fd())? {
        return Err(not_a_witness(dir));
    }
    let (key, mut value) = (KEY, 0_u32);
    let mut element = attribute();
    // SAFETY: the view of the union that BPF_MAP_LOOKUP_ELEM takes; all of it is zero.
    let lookup = unsafe { &mut element.__bindgen_anon_2 };
    lookup.map_fd = number(&map);
    lookup.key = &raw const key as u64;
    lookup.__bindgen_anon_1.value = &raw mut value as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut element) {
        Ok(_) => Ok(Testimony::Lives),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Testimony::Ended),
        Err(error) => Err(error),
    }
}

fn not_a_witness(dir: &Directory) -> io::Error {
    io::Error::other(format!("{} is no device map of one entry", dir.shown(WITNESS).display()))
}

fn create() -> io::Result<OwnedFd> {
    let mut map = attribute();
    // SAFETY: the view of the union that BPF_MAP_CREATE takes; all of it is zero.
    let create = unsafe { &mut map.__bindgen_anon_1 };
    create.map_type = bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
    create.key_size = size_of_val(&KEY) as u32;
    create.value_size = size_of_val(&LOOPBACK) as u32;
    create.max_entries = 1;
    for (to, from) in create.map_name.iter_mut().zip(MAP) {
        *to = from.cast_signed();
    }
    let map = bpf(bpf_cmd::BPF_MAP_CREATE, &mut map)?;
    // SAFETY: the descriptor is new and no other part of the process has it.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// Returns whether this is a device map with keys and values as [`create`] makes them.
fn is_device_map(map: BorrowedFd<'_>) -> io::Result<bool> {
    // struct bpf_map_info: type, id, key_size, value_size, max_entries.
    let mut info = [0_u32; 32];
    netkit::info(map, &mut info)?;
    let [kind, _, key_size, value_size, entries, ..] = info;
    let wanted = [size_of_val(&KEY) as u32, size_of_val(&LOOPBACK) as u32, 1];
    Ok(kind == bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32 && [key_size, value_size, entries] == wanted)
}
