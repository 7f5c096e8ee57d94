//! An AF_XDP socket in copy mode at one queue of an interface, with memory of its own.
//!
//! The kernel's documentation (networking/af_xdp) describes the four rings. Here each frame of the memory belongs either to
//! sending or to receiving, so no frame changes its ring.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use anyhow::{Context as _, Result};
use libc::{c_int, c_void};

/// Frames of each ring, a power of two.
const FRAMES: u32 = 4096;
const FRAME_SIZE: usize = 2048;
const MEMORY: usize = 2 * FRAMES as usize * FRAME_SIZE;

pub struct XdpSocket {
    fd: OwnedFd,
    memory: *mut u8,
    fill: Ring,
    completion: Ring,
    receive: Ring,
    send: Ring,
    /// The offsets of frames that are free for sending.
    free: Vec<u64>,
    /// Frames that were given to the kernel and are not sent yet.
    pending: u32,
}

impl XdpSocket {
    /// Opens a socket at a queue of an interface, and gives it memory for frames.
    ///
    /// # Errors
    /// The kernel has no AF_XDP, this process may not use it, or another socket is bound to the queue.
    pub fn open(ifindex: u32, queue: u32) -> Result<Self> {
        // SAFETY: integers only.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let fd = checked(fd).context("no AF_XDP socket")?;
        // SAFETY: the descriptor is new and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let memory = map(-1, MEMORY, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, 0)?;
        let area = libc::xdp_umem_reg {
            addr: memory as u64,
            len: MEMORY as u64,
            chunk_size: FRAME_SIZE as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&fd, libc::XDP_UMEM_REG, &area).context("the kernel refuses the memory")?;
        for ring in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            set(&fd, ring, &FRAMES).context("the kernel refuses a ring")?;
        }
        let at = offsets(&fd).context("the kernel does not describe the rings")?;
        let ring = |offsets: &libc::xdp_ring_offset, size, page| Ring::map(&fd, offsets, size, page);
        let mut socket = Self {
            memory: memory.cast(),
            fill: ring(&at.fr, size_of::<u64>(), libc::XDP_UMEM_PGOFF_FILL_RING as i64)?,
            completion: ring(&at.cr, size_of::<u64>(), libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64)?,
            receive: ring(&at.rx, size_of::<libc::xdp_desc>(), libc::XDP_PGOFF_RX_RING)?,
            send: ring(&at.tx, size_of::<libc::xdp_desc>(), libc::XDP_PGOFF_TX_RING)?,
            free: (0..FRAMES).map(|frame| u64::from(frame) * FRAME_SIZE as u64).collect(),
            pending: 0,
            fd,
        };
        for frame in FRAMES..2 * FRAMES {
            socket.fill.push(u64::from(frame) * FRAME_SIZE as u64);
        }
        socket.fill.publish();
        socket.bind(ifindex, queue)?;
        Ok(socket)
    }

    fn bind(&self, ifindex: u32, queue: u32) -> Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address lives until the call returns.
        let answer = unsafe {
            libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
        };
        checked(answer)
            .map(drop)
            .with_context(|| format!("cannot bind to queue {queue} of interface {ifindex}"))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns how many frames can be sent now.
    pub fn room(&mut self) -> usize {
        while let Some(frame) = self.completion.pop::<u64>() {
            self.free.push(frame);
            self.pending -= 1;
        }
        self.completion.release();
        self.free.len()
    }

    /// Queues a frame that `write` writes; without [`Self::room`] it is not called.
    pub fn queue(&mut self, length: usize, write: impl FnOnce(&mut [u8])) {
        let Some(frame) = self.free.pop() else { return };
        // SAFETY: the frame is inside of the memory, and belongs to this process until it is published.
        let buffer = unsafe { std::slice::from_raw_parts_mut(self.memory.add(frame as usize), length) };
        write(buffer);
        self.send.push(libc::xdp_desc { addr: frame, len: length as u32, options: 0 });
        self.pending += 1;
    }

    /// Has the kernel send what is queued; in copy mode it does so in this call. Returns how many frames are still queued:
    /// `more` says after each part whether to go on.
    ///
    /// # Errors
    /// The interface is down, or gone.
    pub fn flush(&mut self, mut more: impl FnMut() -> bool) -> io::Result<u32> {
        self.send.publish();
        loop {
            // SAFETY: no data.
            let sent = unsafe {
                libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0)
            };
            if sent < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    // A part of the frames was sent, the slave had no link and dropped one, or its queue is full.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) => {}
                    _ => return Err(error),
                }
            }
            self.room();
            if self.pending == 0 || !more() {
                return Ok(self.pending);
            }
        }
    }

    /// Passes at most `most` received frames to `each`; returns how many there were.
    pub fn receive(&mut self, most: u32, mut each: impl FnMut(&[u8])) -> u32 {
        let mut count = 0;
        while count < most
            && let Some(frame) = self.receive.pop::<libc::xdp_desc>()
        {
            // SAFETY: the kernel has written the frame, which belongs to this process until it is in the fill ring.
            each(unsafe {
                std::slice::from_raw_parts(self.memory.add(frame.addr as usize), frame.len as usize)
            });
            self.fill.push(frame.addr - frame.addr % FRAME_SIZE as u64);
            count += 1;
        }
        self.receive.release();
        self.fill.publish();
        count
    }

    /// Returns how many frames the kernel dropped because the receive ring or the fill ring was full or empty.
    pub fn dropped(&self) -> u64 {
        // SAFETY: integers only; zero is valid.
        let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        get(&self.fd, libc::XDP_STATISTICS, &mut statistics).map_or(0, |()| {
            statistics.rx_dropped + statistics.rx_ring_full + statistics.rx_fill_ring_empty_descs
        })
    }
}

impl Drop for XdpSocket {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made.
        unsafe { libc::munmap(self.memory.cast(), MEMORY) };
    }
}

/// One ring that this process shares with the kernel: one of the two produces, the other consumes.
struct Ring {
    start: *mut c_void,
    length: usize,
    producer: *const AtomicU32,
    consumer: *const AtomicU32,
    entries: *mut u8,
    /// The next entry of this process.
    next: u32,
}

impl Ring {
    fn map(fd: &OwnedFd, at: &libc::xdp_ring_offset, entry: usize, page: i64) -> Result<Self> {
        let length = at.desc as usize + FRAMES as usize * entry;
        let start = map(fd.as_raw_fd(), length, libc::MAP_SHARED | libc::MAP_POPULATE, page)?;
        // SAFETY: the kernel's offsets are inside of the mapping.
        let within = |offset: u64| unsafe { start.cast::<u8>().add(offset as usize) };
        Ok(Self {
            start,
            length,
            producer: within(at.producer).cast(),
            consumer: within(at.consumer).cast(),
            entries: within(at.desc),
            next: 0,
        })
    }

    fn place<T>(&self) -> *mut T {
        // SAFETY: an entry of the ring, which wraps.
        unsafe { self.entries.cast::<T>().add((self.next % FRAMES) as usize) }
    }

    /// Writes the next entry. The caller has no more frames than the ring has entries.
    fn push<T>(&mut self, value: T) {
        // SAFETY: the entry belongs to this process until it is published.
        unsafe { self.place::<T>().write(value) };
        self.next = self.next.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the word is in the mapping.
        unsafe { &*self.producer }.store(self.next, Ordering::Release);
    }

    fn pop<T: Copy>(&mut self) -> Option<T> {
        // SAFETY: the word is in the mapping.
        if unsafe { &*self.producer }.load(Ordering::Acquire) == self.next {
            return None;
        }
        // SAFETY: the kernel has published the entry.
        let value = unsafe { self.place::<T>().read() };
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    fn release(&self) {
        fence(Ordering::Release);
        // SAFETY: the word is in the mapping.
        unsafe { &*self.consumer }.store(self.next, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

fn checked(answer: c_int) -> io::Result<c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn map(fd: c_int, length: usize, flags: c_int, page: i64) -> Result<*mut c_void> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, fd, page) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error()).context("cannot map memory");
    }
    Ok(start)
}

fn set<T>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value lives until the call returns.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    checked(answer).map(drop)
}

fn get<T>(fd: &OwnedFd, option: c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `length` bytes.
    let answer = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, ptr::from_mut(value).cast(), &raw mut length)
    };
    checked(answer).map(drop)
}

fn offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: integers only; zero is valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    get(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    Ok(offsets)
}
