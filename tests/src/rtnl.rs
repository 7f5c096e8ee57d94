//! A process that holds RTNL, the kernel's one lock for all changes of interfaces.
//!
//! The kernel reads the arguments of an ethtool request while it holds the lock. Here they are on a missing page
//! (userfaultfd), and the kernel waits for it as long as the test needs. The lock is global to the machine: no
//! process can create a link, an address or a namespace until it is released, so hold it for a short time.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _},
    ptr::NonNull,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
};

use crate::{WAIT_LIMIT, netns::NetNs};

const PAGE: usize = 4096;

/// linux/sockios.h and linux/ethtool.h
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GFEATURES: u32 = 0x3a;

/// linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
nix::ioctl_readwrite!(uffdio_api, 0xaa, 0x3f, Api);
nix::ioctl_readwrite!(uffdio_register, 0xaa, 0x00, Register);
nix::ioctl_readwrite!(uffdio_zeropage, 0xaa, 0x04, ZeroPage);

#[repr(C)]
pub struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    length: u64,
}

#[repr(C)]
pub struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
pub struct ZeroPage {
    range: Range,
    mode: u64,
    zeroed: i64,
}

/// `struct uffd_msg`
const MESSAGE: usize = 32;

/// While this lives, no other process gets RTNL.
#[derive(Debug)]
pub struct RtnlHeld {
    faults: File,
    pages: NonNull<libc::c_void>,
    holder: Option<JoinHandle<Result<()>>>,
}

// SAFETY: the pages are touched by the kernel and, after the holder has ended, unmapped; no reference to them exists.
unsafe impl Send for RtnlHeld {}

/// The address of an ethtool request, which only the requesting thread uses.
struct Request(NonNull<libc::c_void>);

// SAFETY: the memory outlives the thread, which is joined before it is unmapped.
unsafe impl Send for Request {}

impl RtnlHeld {
    /// Takes RTNL by a request for the loopback device of a namespace; when this returns, the lock is held.
    ///
    /// # Errors
    /// The process lacks userfaultfd or memory, or the request does not get as far in time.
    pub fn take(netns: &NetNs) -> Result<Self> {
        // SAFETY: the system call takes an integer.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let fd = Errno::result(fd).context("userfaultfd")? as i32;
        // SAFETY: the descriptor is new and has no other owner.
        let faults = unsafe { File::from_raw_fd(fd) };
        let mut api = Api { api: UFFD_API, features: 0, ioctls: 0 };
        // SAFETY: the structure is the kernel's, and lives.
        unsafe { uffdio_api(faults.as_raw_fd(), &raw mut api) }.context("UFFDIO_API")?;
        let length = (2 * PAGE).try_into()?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let pages = unsafe {
            mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        }?;
        // The command at the end of the first page; its arguments would be on the second one.
        let request = pages.as_ptr().wrapping_byte_add(PAGE - size_of::<u32>());
        // SAFETY: inside the first page, and aligned.
        unsafe { request.cast::<u32>().write(ETHTOOL_GFEATURES) };
        let mut held = Self { faults, pages, holder: None };
        let range = held.second_page();
        let mut register = Register { range, mode: UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 };
        // SAFETY: as above.
        unsafe { uffdio_register(held.faults.as_raw_fd(), &raw mut register) }.context("UFFDIO_REGISTER")?;
        let request = Request(NonNull::new(request).context("no address")?);
        held.holder = Some(netns.spawn(move || ask(&request))?);

        let mut ready = [PollFd::new(held.faults.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(WAIT_LIMIT).unwrap_or(PollTimeout::MAX);
        ensure!(
            poll(&mut ready, timeout)? == 1,
            "the request did not reach its arguments within {WAIT_LIMIT:?}"
        );
        let mut message = [0; MESSAGE];
        (&held.faults).read_exact(&mut message).context("read of a page fault")?;
        Ok(held)
    }

    /// Holds RTNL for this long, and releases it.
    ///
    /// # Errors
    /// The request that held the lock failed.
    pub fn for_long(self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        self.release()
    }

    /// Releases RTNL.
    ///
    /// # Errors
    /// The request that held the lock failed.
    pub fn release(mut self) -> Result<()> {
        self.let_go()
    }

    fn second_page(&self) -> Range {
        Range { start: self.pages.as_ptr() as u64 + PAGE as u64, length: PAGE as u64 }
    }

    fn let_go(&mut self) -> Result<()> {
        let Some(holder) = self.holder.take() else { return Ok(()) };
        let mut page = ZeroPage { range: self.second_page(), mode: 0, zeroed: 0 };
        // SAFETY: as above.
        unsafe { uffdio_zeropage(self.faults.as_raw_fd(), &raw mut page) }.context("UFFDIO_ZEROPAGE")?;
        holder.join().map_err(|_| anyhow!("who held RTNL has panicked"))?
    }
}

impl Drop for RtnlHeld {
    fn drop(&mut self) {
        let _ = self.let_go();
        // SAFETY: the mapping of `take`, which is no longer used.
        let _ = unsafe { munmap(self.pages, 2 * PAGE) };
    }
}

/// Sends SIOCETHTOOL; its answer does not matter.
fn ask(request: &Request) -> Result<()> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
    // SAFETY: ifreq is plain data, for which zero bytes are a valid value.
    let mut question: libc::ifreq = unsafe { std::mem::zeroed() };
    question.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    question.ifr_ifru.ifru_data = request.0.as_ptr().cast();
    // SAFETY: a live ifreq whose data is a live ethtool request on two pages.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw const question) };
    Errno::result(answer).context("SIOCETHTOOL")?;
    Ok(())
}
