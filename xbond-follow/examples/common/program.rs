//! The XDP program of the examples, written as instructions, because they are few: frames of one EtherType go to
//! the AF_XDP socket of their queue, and all others pass to xbond's program at tc.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use super::{frame::ETHERTYPE, socket::XdpSocket};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const REDIRECT_MAP: u32 = 51;
const XDP_PASS: u32 = 2;
const QUEUES: u32 = 64;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The program at one interface. It is detached on drop.
pub struct Program {
    _link: OwnedFd,
    map: OwnedFd,
}

impl Program {
    /// Attaches the program to an interface, in the driver if that can run it.
    ///
    /// # Errors
    /// The kernel refuses the program, or another one is attached.
    pub fn attach(ifindex: u32) -> Result<Self> {
        let map =
            MapCreate { kind: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: QUEUES, flags: 0 };
        let map = bpf(MAP_CREATE, &map).context("cannot create an XSKMAP")?;
        let code = instructions(&map);
        let load = ProgramLoad {
            kind: PROG_TYPE_XDP,
            count: code.len() as u32,
            instructions: code.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: *b"follow_example\0\0",
            ifindex: 0,
            expected_attach_type: ATTACH_XDP,
        };
        let program = bpf(PROG_LOAD, &load).context("cannot load the XDP program")?;
        let link = LinkCreate { program: number(&program), ifindex, attach_type: ATTACH_XDP, flags: 0 };
        let link = bpf(LINK_CREATE, &link).context("cannot attach the XDP program")?;
        Ok(Self { _link: link, map })
    }

    /// Passes the frames of a queue to this socket.
    ///
    /// # Errors
    /// The socket is not bound to that queue.
    pub fn redirect(&self, queue: u32, socket: &XdpSocket) -> Result<()> {
        let value = socket.fd().as_raw_fd().cast_unsigned();
        let update = MapUpdate {
            map: number(&self.map),
            key: (&raw const queue) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        call(MAP_UPDATE_ELEM, &update).map(drop).context("cannot put the socket into the XSKMAP")
    }
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// An instruction: operation, registers, offset, constant.
const fn instruction(operation: u8, to: u8, from: u8, offset: i16, constant: u32) -> u64 {
    operation as u64
        | ((to | from << 4) as u64) << 8
        | (offset.cast_unsigned() as u64) << 16
        | (constant as u64) << 32
}

fn instructions(map: &OwnedFd) -> [u64; 15] {
    let (load_half, load_word, add, copy, set) = (0x69, 0x61, 0x07, 0xbf, 0xb7);
    let (jump_if_above, jump_if_not, call, exit, load_map) = (0x2d, 0x55, 0x85, 0x95, 0x18);
    [
        // Registers 2 and 3: the begin and the end of the frame.
        instruction(load_word, 2, 1, 0, 0),
        instruction(load_word, 3, 1, 4, 0),
        instruction(copy, 4, 2, 0, 0),
        instruction(add, 4, 0, 0, 14),
        // A frame without an Ethernet header, or of another type, passes.
        instruction(jump_if_above, 4, 3, 8, 0),
        instruction(load_half, 5, 2, 12, 0),
        instruction(jump_if_not, 5, 0, 6, u16::from_ne_bytes(ETHERTYPE.to_be_bytes()).into()),
        // The index of the queue; a frame of a queue without a socket passes.
        instruction(load_word, 2, 1, 16, 0),
        instruction(load_map, 1, 1, 0, number(map)),
        0,
        instruction(set, 3, 0, 0, XDP_PASS),
        instruction(call, 0, 0, 0, REDIRECT_MAP),
        instruction(exit, 0, 0, 0, 0),
        instruction(set, 0, 0, 0, XDP_PASS),
        instruction(exit, 0, 0, 0, 0),
    ]
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: these commands return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes of the command; what they point to lives until the call returns.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
