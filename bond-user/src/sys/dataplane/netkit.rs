//! BPF system calls that aya lacks: links of a netkit pair, of which one runs as the pair's primary end sends, and
//! queries of a device's hook.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::link::DeviceLink;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};

/// Makes `program` run as the pair's primary end sends, until the returned link is closed and its pins are removed.
/// `primary` is an ifindex of the calling thread's network namespace.
///
/// # Errors
/// `primary` is no primary end of a netkit pair, or the kernel refuses the program.
pub fn attach(program: BorrowedFd<'_>, primary: u32) -> io::Result<OwnedFd> {
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_LINK_CREATE takes; all of it is zero.
    let create = unsafe { &mut attribute.link_create };
    create.__bindgen_anon_1.prog_fd = number(program);
    create.__bindgen_anon_2.target_ifindex = primary;
    create.attach_type = bpf_attach_type::BPF_NETKIT_PRIMARY as u32;
    let link = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attribute)?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Replaces the program of `link` by `program`, without a packet in between. Fails with ENOLINK if its device is
/// gone.
///
/// # Errors
/// ENOLINK if the device of the link is gone; otherwise the kernel refuses the program.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_LINK_UPDATE takes; all of it is zero.
    let update = unsafe { &mut attribute.link_update };
    update.link_fd = number(link);
    update.__bindgen_anon_1.new_prog_fd = number(program);
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attribute).map(drop)
}

/// Opens a link by its pin.
///
/// # Errors
/// There is no such pin, it is no link, or the process may not open it.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_OBJ_GET takes; all of it is zero.
    let get = unsafe { &mut attribute.__bindgen_anon_4 };
    get.pathname = path.as_ptr() as u64;
    let link = bpf(bpf_cmd::BPF_OBJ_GET, &mut attribute)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Reads the kernel's `struct bpf_link_info` of a link, up to this length.
///
/// # Errors
/// The descriptor is no BPF object.
pub fn info(link: BorrowedFd<'_>, info: &mut [u32; 32]) -> io::Result<()> {
    let mut attribute = attribute();
    attribute.info.bpf_fd = number(link);
    attribute.info.info_len = size_of_val(info) as u32;
    attribute.info.info = info.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attribute).map(drop)
}

/// Detaches the program of a link. The link stays, without a device, until it is closed and its pins are removed.
///
/// # Errors
/// The link has no device any more, or cannot be detached (EOPNOTSUPP).
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = attribute();
    attribute.link_detach.link_fd = number(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attribute).map(drop)
}

/// Reads a link of a network device. The kernel takes RTNL for it.
///
/// # Errors
/// The descriptor is no BPF object.
pub fn device_link(link: BorrowedFd<'_>) -> io::Result<DeviceLink> {
    // struct bpf_link_info: type, id, prog_id, and from 16 on the part of its type, which begins with the ifindex.
    const KIND: usize = 0;
    const PROGRAM: usize = 2;
    const IFINDEX: usize = 4;
    let mut found = [0_u32; 32];
    info(link, &mut found)?;
    Ok(DeviceLink { kind: found[KIND], ifindex: found[IFINDEX], program: found[PROGRAM] })
}

/// Returns the number of a program, as `bpftool prog show id` takes it.
///
/// # Errors
/// The descriptor is no BPF object.
pub fn number_of_program(program: BorrowedFd<'_>) -> io::Result<u32> {
    // struct bpf_prog_info: type, id.
    const ID: usize = 1;
    let mut found = [0_u32; 32];
    info(program, &mut found)?;
    Ok(found[ID])
}

/// A hook at which several programs of a device run in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceHook {
    /// tcx, for what the device receives.
    TcxIngress,
    /// The primary end of a netkit pair, for what it sends.
    NetkitPrimary,
}

/// Returns the numbers of the programs at a device's hook, in the order in which they run; if there are more than 64,
/// the first ones. `ifindex` belongs to the calling thread's network namespace. The kernel takes RTNL for it.
///
/// # Errors
/// The device does not exist (ENODEV), or the kernel has no such hook (EINVAL).
pub fn programs(ifindex: u32, hook: DeviceHook) -> io::Result<Vec<u32>> {
    let mut found = [0_u32; 64];
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_PROG_QUERY takes; all of it is zero.
    let query = unsafe { &mut attribute.query };
    query.__bindgen_anon_1.target_ifindex = ifindex;
    query.attach_type = match hook {
        DeviceHook::TcxIngress => bpf_attach_type::BPF_TCX_INGRESS,
        DeviceHook::NetkitPrimary => bpf_attach_type::BPF_NETKIT_PRIMARY,
    } as u32;
    query.prog_ids = found.as_mut_ptr() as u64;
    query.__bindgen_anon_2.count = found.len() as u32;
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attribute) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(found.into()),
        // No program has been there yet.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    // SAFETY: the kernel has written the number of programs here.
    let count = unsafe { attribute.query.__bindgen_anon_2.count };
    Ok(found.into_iter().take(count as usize).collect())
}

/// Pins a link at `path`, which must not exist and must lie in a bpffs.
///
/// # Errors
/// The path exists, is in another file system, or the process may not write there.
pub fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_OBJ_PIN takes; all of it is zero.
    let pin = unsafe { &mut attribute.__bindgen_anon_4 };
    pin.pathname = path.as_ptr() as u64;
    pin.bpf_fd = number(link);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attribute).map(drop)
}

pub(super) fn attribute() -> bpf_attr {
    // SAFETY: the attribute is plain data, for which zero bytes are a valid value.
    unsafe { std::mem::zeroed() }
}

pub(super) fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

pub(super) fn bpf(command: bpf_cmd, attribute: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attribute is complete, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attribute, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
