//! Programs loaded, and put at their hooks.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    sync::{LazyLock, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMap, Map, MapData},
    pin::PinError,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
    },
};
use bond_common::{abi::PORT_STATS, names};

use super::{
    DataPlaneError, Hook, Kernel, TcAttach, behind,
    bpf::{Attached, KeptFilter},
    pins::{remove_pin, remove_pins_of},
};
use crate::sys::{
    SysError,
    directory::{Directory, EntryKind},
    netlink::BlockingNetlink,
};

/// How a program gets to its hook.
#[derive(Clone, Copy)]
pub(super) struct AttachMethod {
    pub(super) hook: Hook,
    pub(super) tc: TcAttach,
}

impl AttachMethod {
    /// It is a link, which a pin holds; a filter of clsact is none.
    pub(super) fn is_link(self) -> bool {
        self.hook != Hook::Tc || self.tc == TcAttach::Tcx
    }
}

/// Where a program goes, and under which name it is pinned.
pub(super) struct AttachPoint<'a> {
    pub(super) dir: &'a Directory,
    pub(super) pin: &'a str,
    pub(super) device: &'a str,
    pub(super) ifindex: u32,
    /// For tc: what the device receives, or what it sends.
    pub(super) side: TcAttachType,
}

impl AttachPoint<'_> {
    pub(super) fn name(&self, end: &str) -> String {
        format!("{}_{end}", self.pin)
    }

    pub(super) fn path(&self, end: &str) -> PathBuf {
        self.dir.path_of(&self.name(end))
    }

    /// For people.
    pub(super) fn shown(&self, end: &str) -> PathBuf {
        self.dir.shown(&self.name(end))
    }

    pub(super) fn is_there(&self, end: &str) -> bool {
        self.dir.kind(&self.name(end)) == Some(EntryKind::File)
    }
}

pub(super) fn attach(
    object: &mut Ebpf,
    name: &'static str,
    AttachMethod { hook, tc }: AttachMethod,
    at: AttachPoint<'_>,
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
pub(super) fn attach_new(
    object: &mut Ebpf,
    name: &'static str,
    tc: TcAttach,
    at: AttachPoint<'_>,
) -> Result<Attached, DataPlaneError> {
    if tc == TcAttach::Clsact {
        // It is no link that would end with its pin.
        let _ = tc::qdisc_detach_program(at.device, at.side, name);
    }
    remove_pins_of(at.dir, at.pin)?;
    attach(object, name, AttachMethod { hook: Hook::Tc, tc }, at)
}

/// The new program takes the place of the old one in its link, and then its pin. None if the link has no device any more.
pub(super) fn replace(
    object: &mut Ebpf,
    name: &'static str,
    method: AttachMethod,
    at: &AttachPoint<'_>,
) -> Result<Option<Attached>, DataPlaneError> {
    let refused =
        |reason: String| DataPlaneError::Attach { hook: method.hook, device: at.device.to_owned(), reason };
    let failed = |source: ProgramError| refused(error_chain(&source));
    if !method.is_link() {
        return Ok(Some(Attached::KeptFilter(KeptFilter { device: at.device.to_owned() })));
    }
    let pin = at.path(names::LINK_PIN);
    let link = || PinnedLink::from_pin(&pin).map_err(|error| refused(error_chain(&error)));
    let fit = |_| refused(format!("{} is a link of another kind", at.shown(names::LINK_PIN).display()));
    let fresh = at.path("new");
    remove_pin(at.dir, &at.name("new"))?;
    let pin_error = |source| DataPlaneError::Pin { path: at.shown("new"), source };
    let pinned = |pinned: Result<(), PinError>| pinned.map_err(|source| pin_error(io::Error::other(source)));
    let link = FdLink::from(link()?);
    let replaced = match method.hook {
        Hook::Tc => {
            let program = classifier(object, name)?;
            pinned(program.pin(&fresh))?;
            let id = program.attach_to_link(link.try_into().map_err(fit)?);
            id.and_then(|id| program.take_link(id).map(drop))
        }
        Hook::Xdp | Hook::XdpGeneric => {
            let program = xdp(object, name)?;
            pinned(program.pin(&fresh))?;
            let id = program.attach_to_link(link.try_into().map_err(fit)?);
            id.and_then(|id| program.take_link(id).map(drop))
        }
    };
    match replaced {
        Ok(()) => {}
        // The device of the link is gone.
        Err(error) if has_errno(&error, libc::ENOLINK) => {
            return remove_pin(at.dir, &at.name("new")).map(|()| None);
        }
        Err(error) => return Err(failed(error)),
    }
    at.dir.rename(&at.name("new"), &at.name(names::PROGRAM_PIN)).map_err(pin_error)?;
    Ok(Some(Attached::Link))
}

pub(super) fn attach_clsact(
    program: &mut SchedClassifier,
    at: &AttachPoint<'_>,
) -> Result<SchedClassifierLink, String> {
    match tc::qdisc_add_clsact(at.device) {
        Ok(()) | Err(tc::TcError::AlreadyAttached) => {}
        // Another process's, or that of an earlier bond: it stays when its filters are removed.
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
pub(super) fn has_errno(error: &ProgramError, errno: i32) -> bool {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error() == Some(errno))
}

/// An error with its causes; aya's say the system call and keep the errno below.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
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
    loader.map_max_entries(names::BEHIND, behind::entries());
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

pub(super) fn load_object(dir: &Directory, kernel: &Kernel, slot: u32) -> Result<Ebpf, DataPlaneError> {
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
pub(super) fn load(object: &mut Ebpf, name: &'static str, hook: Hook) -> Result<(), DataPlaneError> {
    let mut attempts = 0;
    loop {
        let loaded = match hook {
            Hook::Tc => classifier(object, name)?.load(),
            Hook::Xdp | Hook::XdpGeneric => xdp(object, name)?.load(),
        };
        attempts += 1;
        match loaded {
            // A signal has interrupted the verifier (`do_check`), as libbpf expects, too.
            Err(source) if attempts < LOADS_AT_MOST && has_errno(&source, libc::EAGAIN) => {}
            loaded => return loaded.map_err(|source| DataPlaneError::Program { name, source }),
        }
    }
}

/// As PROG_LOAD_ATTEMPTS of libbpf.
const LOADS_AT_MOST: u32 = 5;

pub(super) fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DataPlaneError> {
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(DataPlaneError::Missing(name))
}

/// A loaded program without its object, by a pin that is gone afterwards: aya has no other method, and gets numbers of
/// programs only where the agent may do everything.
pub(super) fn take_classifier(
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

pub(super) fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataPlaneError> {
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(DataPlaneError::Missing(name))
}

pub(super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DataPlaneError> {
    object.take_map(name).ok_or(DataPlaneError::Missing(name))
}

pub(super) fn dev_map(object: &mut Ebpf, name: &'static str) -> Result<DevMap<MapData>, DataPlaneError> {
    DevMap::try_from(take(object, name)?).map_err(|source| DataPlaneError::Map { name, source })
}

pub(super) fn set(
    map: &mut DevMap<MapData>,
    name: &'static str,
    key: u32,
    ifindex: u32,
) -> Result<(), DataPlaneError> {
    map.set(key, ifindex, None, 0).map_err(|source| DataPlaneError::DevMap { name, source })
}
