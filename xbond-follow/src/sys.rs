//! The system calls: opening and mapping a pinned BPF map, the number of the network namespace, an eventfd, a pause.

use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    time::Duration,
};

use crate::FollowError;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The part of `union bpf_attr` for BPF_OBJ_GET.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct MapInfo {
    kind: u32,
    pub(crate) id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; 16],
}

/// What a map has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Bytes, a multiple of 8.
    pub(crate) value_size: usize,
    pub(crate) entries: usize,
}

impl Shape {
    const fn bytes(self) -> usize {
        self.value_size * self.entries
    }

    fn is_of(self, info: &MapInfo) -> bool {
        let name = info.name.iter().take_while(|byte| **byte != 0);
        info.kind == BPF_MAP_TYPE_ARRAY
            && info.key_size == 4
            && info.value_size as usize == self.value_size
            && info.max_entries as usize == self.entries
            && info.map_flags & BPF_F_MMAPABLE != 0
            && name.eq(self.name.as_bytes())
    }
}

/// Calls bpf(2).
///
/// # Safety
/// `attr` is the part of `union bpf_attr` that belongs to the command, and its pointers are valid.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for the attributes; the kernel reads as many bytes as the size says.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Opens a pinned object, for reading and writing: the kernel maps a map into memory only by such a descriptor, also where
/// the memory is read-only.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the path lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &attr) }?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Returns what the kernel reports of a map.
pub(crate) fn info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let attr = ObjGetInfo {
        bpf_fd: map.as_raw_fd().cast_unsigned(),
        info_len: size_of::<MapInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes, all of whose values are valid.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }?;
    Ok(info)
}

/// The values of an array map, read-only in this process's memory.
///
/// It stays mapped after the bond is gone; the values then change no more.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    shape: Shape,
    id: u32,
}

// SAFETY: the memory is shared with the kernel and read by atomic loads only; no thread has more rights than another.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the values of a map, which has to have this shape.
    pub(crate) fn new(map: BorrowedFd<'_>, shape: Shape) -> Result<Self, FollowError> {
        let error = |source| FollowError::Map { map: shape.name, source };
        let info = info(map).map_err(error)?;
        if !shape.is_of(&info) {
            return Err(FollowError::Layout { map: shape.name });
        }
        // SAFETY: a new mapping at an address that the kernel chooses; it rounds the length up to pages, as it did when
        // it allocated the map.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), shape.bytes(), libc::PROT_READ, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Self { start, shape, id: info.id })
            }
            _ => Err(error(io::Error::last_os_error())),
        }
    }

    /// Returns the kernel's number of the map.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Loads the aligned 64-bit word at `offset`, in bytes from the first value; 0 if there is none.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> u64 {
        if !offset.is_multiple_of(8) || offset + 8 > self.shape.bytes() {
            return 0;
        }
        // SAFETY: aligned, and inside of the mapping, which lives as long as `self`. The memory may be read-only: relaxed
        // loads of this size do not write.
        let word = unsafe { &*self.start.as_ptr().add(offset).cast::<AtomicU64>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        word
    }

    /// Loads the aligned 32-bit word at `offset`; 0 if there is none.
    #[inline]
    pub(crate) fn half(&self, offset: usize) -> u32 {
        if !offset.is_multiple_of(4) || offset + 4 > self.shape.bytes() {
            return 0;
        }
        // SAFETY: as in `word`.
        let half = unsafe { &*self.start.as_ptr().add(offset).cast::<AtomicU32>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        half
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.shape.bytes()) };
    }
}

/// Returns the kernel's number of this thread's network namespace.
pub(crate) fn netns_cookie() -> io::Result<u64> {
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Returns whether a bpffs is mounted there.
pub(crate) fn is_bpffs(path: &str) -> bool {
    let Ok(path) = CString::new(path) else { return false };
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills the structure if it returns 0.
    unsafe {
        libc::statfs(path.as_ptr(), status.as_mut_ptr()) == 0
            && status.assume_init_ref().f_type == libc::BPF_FS_MAGIC
    }
}

/// Creates an eventfd that does not block.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd.
pub(crate) fn notify(event: &impl AsFd) {
    // SAFETY: eight bytes that live until the call returns. It fails only if the counter is full, and then the descriptor
    // is readable already.
    unsafe { libc::write(event.as_fd().as_raw_fd(), (&raw const ONE).cast(), size_of::<u64>()) };
}

static ONE: u64 = 1;

/// Returns the value of an eventfd and sets it to 0.
pub(crate) fn take(event: &impl AsFd) -> u64 {
    let mut count = 0u64;
    // SAFETY: the kernel writes eight bytes, or none.
    unsafe { libc::read(event.as_fd().as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    count
}

/// Sleeps for this time; returns true at once if the descriptor becomes readable.
pub(crate) fn pause(time: Duration, until: Option<BorrowedFd<'_>>) -> bool {
    let mut poll =
        libc::pollfd { fd: until.map_or(-1, |fd| fd.as_raw_fd()), events: libc::POLLIN, revents: 0 };
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: the structures live until the call returns. A descriptor of -1 is ignored.
    unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, ptr::null()) > 0 }
}

/// Blocks all signals for this thread: they are for the threads of the program.
pub(crate) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills the set that the second one reads.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut());
    }
}
