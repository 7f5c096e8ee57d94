//! Programs of a netkit pair, for which aya has no calls: one runs as the pair's primary end sends.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};

/// Has `program` run as the pair's primary end sends, until the answer is closed and its pins are gone. `primary` is
/// an ifindex of the calling thread's network namespace.
pub fn attach(program: BorrowedFd<'_>, primary: u32) -> io::Result<OwnedFd> {
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_LINK_CREATE takes; all of it is zero.
    let create = unsafe { &mut attribute.link_create };
    create.__bindgen_anon_1.prog_fd = number(program);
    create.__bindgen_anon_2.target_ifindex = primary;
    create.attach_type = bpf_attach_type::BPF_NETKIT_PRIMARY as u32;
    let link = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attribute)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Puts `program` in the place of the one in `link`, with no packet in between. ENOLINK if its device is gone.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = attribute();
    // SAFETY: the view of the union that BPF_LINK_UPDATE takes; all of it is zero.
    let update = unsafe { &mut attribute.link_update };
    update.link_fd = number(link);
    update.__bindgen_anon_1.new_prog_fd = number(program);
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attribute).map(drop)
}

/// A link, from its pin.
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

/// What the kernel says of a link: `struct bpf_link_info`, as far as it goes.
pub fn info(link: BorrowedFd<'_>, info: &mut [u32; 32]) -> io::Result<()> {
    let mut attribute = attribute();
    attribute.info.bpf_fd = number(link);
    attribute.info.info_len = size_of_val(info) as u32;
    attribute.info.info = info.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attribute).map(drop)
}

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
    // SAFETY: the attribute is whole, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attribute, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
