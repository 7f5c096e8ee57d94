//! Programs that the product lacks, of a few instructions each, for comparison. And the verifier's output for the
//! product's own programs.

// Each benchmark uses a part of this module.
#![allow(dead_code)]

use std::{
    collections::HashSet,
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya_obj::{
    EbpfSectionKind, Object, ProgramSection,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_info, bpf_prog_type},
};
use bond_common::{abi::Offsets, names};
use bond_user::sys::dataplane::{Hook, Kernel};

/// linux/bpf.h
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const LOG_STATISTICS: u32 = 4;
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;
const HELPER_TAIL_CALL: i32 = 12;
const HELPER_PROBE_READ_KERNEL: i32 = 113;
const HELPER_REDIRECT: i32 = 23;
const HELPER_REDIRECT_MAP: i32 = 51;

/// Opcodes of instructions.
const MOV_IMMEDIATE: u8 = 0xb7;
const MOV: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const LOAD_IMMEDIATE_64: u8 = 0x18;
const LOAD_WORD: u8 = 0x61;
const LOAD_DOUBLE_WORD: u8 = 0x79;
const ADD: u8 = 0x0f;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_LEFT_IMMEDIATE: u8 = 0x67;
const JUMP_IF_EQUAL_IMMEDIATE: u8 = 0x15;
const ATOMIC_ADD_DOUBLE_WORD: u8 = 0xdb;
const STORE_IMMEDIATE_WORD: u8 = 0x62;
const JUMP_IF_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> bpf_insn {
    // SAFETY: an instruction is plain data, for which zero bytes are a valid value.
    let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
    instruction.code = code;
    instruction.set_dst_reg(target);
    instruction.set_src_reg(source);
    instruction.off = offset;
    instruction.imm = immediate;
    instruction
}

fn load_map(register: u8, map: BorrowedFd<'_>) -> [bpf_insn; 2] {
    [instruction(LOAD_IMMEDIATE_64, register, PSEUDO_MAP_FD, 0, map.as_raw_fd()), instruction(0, 0, 0, 0, 0)]
}

/// Returns an action.
pub fn empty(action: i32) -> Vec<bpf_insn> {
    vec![instruction(MOV_IMMEDIATE, 0, 0, 0, action), instruction(EXIT, 0, 0, 0, 0)]
}

/// XDP: redirects every frame to the first device of a devmap.
pub fn redirect_map(map: BorrowedFd<'_>) -> Vec<bpf_insn> {
    let [low, high] = load_map(1, map);
    vec![
        low,
        high,
        instruction(MOV_IMMEDIATE, 2, 0, 0, 0),
        instruction(MOV_IMMEDIATE, 3, 0, 0, 0),
        instruction(CALL, 0, 0, 0, HELPER_REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// tc: redirects every packet to the egress of a device.
pub fn redirect(ifindex: u32) -> Vec<bpf_insn> {
    vec![
        instruction(MOV_IMMEDIATE, 1, 0, 0, ifindex.cast_signed()),
        instruction(MOV_IMMEDIATE, 2, 0, 0, 0),
        instruction(CALL, 0, 0, 0, HELPER_REDIRECT),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// tc, egress: counts packets that a device gets while its carrier bit is clear, in one of the two words of `counts`,
/// selected by the word in `which`. Passes everything. Both maps are arrays of one value.
pub fn count_without_carrier(
    offsets: Offsets,
    which: BorrowedFd<'_>,
    counts: BorrowedFd<'_>,
) -> Vec<bpf_insn> {
    /// `net_device.state`
    const LINK_STATE_NOCARRIER: i32 = 1 << 2;
    const TCX_NEXT: i32 = -1;
    const FRAME: u8 = 10;
    // Reads a word of the kernel's memory, at an offset from register `from`, to the stack.
    let read = |from: u8, offset: u32| {
        [
            instruction(MOV, 3, from, 0, 0),
            instruction(ADD_IMMEDIATE, 3, 0, 0, offset.cast_signed()),
            instruction(MOV, 1, FRAME, 0, 0),
            instruction(ADD_IMMEDIATE, 1, 0, 0, -8),
            instruction(MOV_IMMEDIATE, 2, 0, 0, 8),
            instruction(CALL, 0, 0, 0, HELPER_PROBE_READ_KERNEL),
            instruction(LOAD_DOUBLE_WORD, 6, FRAME, -8, 0),
        ]
    };
    let value = |register: u8, map: BorrowedFd<'_>| {
        let [mut low, high] = load_map(register, map);
        low.set_src_reg(PSEUDO_MAP_VALUE);
        [low, high]
    };
    let mut count = Vec::new();
    count.extend(value(1, which));
    count.extend([
        instruction(LOAD_DOUBLE_WORD, 2, 1, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 1),
        instruction(SHIFT_LEFT_IMMEDIATE, 2, 0, 0, 3),
    ]);
    count.extend(value(1, counts));
    count.extend([
        instruction(ADD, 1, 2, 0, 0),
        instruction(MOV_IMMEDIATE, 2, 0, 0, 1),
        instruction(ATOMIC_ADD_DOUBLE_WORD, 1, 2, 0, 0),
    ]);
    let mut program = Vec::new();
    // The context of a tc program is the sk_buff itself.
    program.extend(read(1, offsets.skb_dev));
    program.extend(read(6, offsets.state));
    program.extend([
        instruction(AND_IMMEDIATE, 6, 0, 0, LINK_STATE_NOCARRIER),
        instruction(JUMP_IF_EQUAL_IMMEDIATE, 6, 0, count.len() as i16, 0),
    ]);
    program.extend(count);
    program.extend(empty(TCX_NEXT));
    program
}

/// Undoes the changes of another program to `frame`, where that left `changed`, and jumps to the program in
/// `programs`, so that a repeated test run changes the frame each time.
pub fn refresh(hook: Hook, frame: &[u8], changed: &[u8], programs: BorrowedFd<'_>) -> Vec<bpf_insn> {
    let (data, end) = if hook == Hook::Tc { (76, 80) } else { (0, 4) };
    let words: Vec<_> = frame.chunks_exact(4).zip(changed.chunks_exact(4)).enumerate().collect();
    let differing = words.iter().filter(|(_, (was, is))| was != is);
    let stores: Vec<_> = differing
        .map(|(place, (was, _))| {
            let word = i32::from_ne_bytes([was[0], was[1], was[2], was[3]]);
            instruction(STORE_IMMEDIATE_WORD, 2, 0, 4 * *place as i16, word)
        })
        .collect();
    let reach = stores.last().map_or(0, |store| i32::from(store.off) + 4);
    let jump = stores.len() as i16 + 5;
    let [low, high] = load_map(2, programs);
    let mut program = vec![
        instruction(MOV, 6, 1, 0, 0),
        instruction(LOAD_WORD, 2, 1, data, 0),
        instruction(LOAD_WORD, 3, 1, end, 0),
        instruction(MOV, 4, 2, 0, 0),
        instruction(ADD_IMMEDIATE, 4, 0, 0, reach),
        instruction(JUMP_IF_GREATER, 4, 3, jump, 0),
    ];
    program.extend(stores);
    program.extend([
        instruction(MOV, 1, 6, 0, 0),
        low,
        high,
        instruction(MOV_IMMEDIATE, 3, 0, 0, 0),
        instruction(CALL, 0, 0, 0, HELPER_TAIL_CALL),
    ]);
    program.extend(empty(0));
    program
}

/// A loaded program without a pin.
pub struct Loaded {
    pub fd: OwnedFd,
    /// The log of the verifier.
    pub log: String,
}

/// Loads instructions into the kernel, which verifies them.
pub fn load(hook: Hook, program: &[bpf_insn]) -> Result<Loaded> {
    // Programs can only jump to programs of their own kind.
    let (kind, flags, attach) = match hook {
        Hook::Tc => (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0, 0),
        Hook::Xdp | Hook::XdpGeneric => {
            (bpf_prog_type::BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, bpf_attach_type::BPF_XDP as u32)
        }
    };
    let mut log = vec![0_u8; 1 << 16];
    let license = c"Dual MIT/GPL";
    // SAFETY: the attribute is plain data, for which zero bytes are a valid value.
    let mut attribute: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the view of the union that BPF_PROG_LOAD takes; all of it is zero.
    let load = unsafe { &mut attribute.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.prog_flags = flags;
    load.expected_attach_type = attach;
    load.insns = program.as_ptr() as u64;
    load.insn_cnt = program.len() as u32;
    load.license = license.as_ptr() as u64;
    load.log_level = LOG_STATISTICS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len() as u32;
    let loaded = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attribute);
    log.retain(|&byte| byte != 0);
    let log = String::from_utf8_lossy(&log).into_owned();
    let fd = loaded.with_context(|| format!("the kernel refuses a program: {log}"))?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(Loaded { fd: unsafe { OwnedFd::from_raw_fd(fd) }, log })
}

impl Loaded {
    /// Pins the program for aya.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the attribute is plain data, for which zero bytes are a valid value.
        let mut attribute: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the view of the union that BPF_OBJ_PIN takes; all of it is zero.
        let pin = unsafe { &mut attribute.__bindgen_anon_4 };
        pin.pathname = name.as_ptr() as u64;
        pin.bpf_fd = self.fd.as_raw_fd() as u32;
        bpf(bpf_cmd::BPF_OBJ_PIN, &mut attribute)
            .with_context(|| format!("cannot pin {}", path.display()))?;
        Ok(())
    }
}

/// Creates an array with one program, as a jump target.
pub fn program_array(program: BorrowedFd<'_>) -> Result<MapData> {
    let wanted = aya_obj::Map::new_from_params(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32, 4, 4, 1, 0);
    let map = MapData::create(wanted, "programs", None)?;
    set(&map, &program.as_raw_fd().to_ne_bytes()).context("cannot put a program into an array")?;
    Ok(map)
}

/// Creates an array of one value, of this many words.
pub fn words(name: &str, count: u32) -> Result<MapData> {
    let wanted = aya_obj::Map::new_from_params(bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, 4, 8 * count, 1, 0);
    MapData::create(wanted, name, None).with_context(|| format!("cannot make the map {name}"))
}

/// Sets the first value of a map.
pub fn set(map: &MapData, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    // SAFETY: the attribute is plain data, for which zero bytes are a valid value.
    let mut attribute: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the view of the union that BPF_MAP_UPDATE_ELEM takes; all of it is zero.
    let update = unsafe { &mut attribute.__bindgen_anon_2 };
    update.map_fd = map.fd().as_fd().as_raw_fd() as u32;
    update.key = (&raw const key) as u64;
    update.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attribute).map(drop)
}

/// Makes the values of a map constants for the verifier.
fn freeze(map: &MapData) -> io::Result<()> {
    // SAFETY: the attribute is plain data, for which zero bytes are a valid value.
    let mut attribute: bpf_attr = unsafe { std::mem::zeroed() };
    attribute.__bindgen_anon_2.map_fd = map.fd().as_fd().as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attribute).map(drop)
}

/// How a program checks whether a slave has a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceReads {
    /// Fields of the device by plain loads, or by one helper call each, as before Linux 6.2.
    pub by: Loads,
    /// Packets that pass between two checks: one less than a power of two.
    pub skips: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loads {
    RdonlyCast,
    ProbeReadKernel,
}

impl DeviceReads {
    /// The product's way.
    pub const PRODUCT: Self = Self { by: Loads::RdonlyCast, skips: 0 };
}

/// Loads a program of the product that checks in this way, with its maps pinned in `dir`; also returns the verifier's
/// log.
pub fn product(hook: Hook, name: &str, slot: u32, reads: DeviceReads, dir: &Path) -> Result<Loaded> {
    let kernel = Kernel::read();
    let mut object = Object::parse(kernel.object())?;
    let mut offsets = kernel.offsets();
    if reads.by == Loads::ProbeReadKernel {
        offsets.net_device_type = 0;
    }
    // SAFETY: six integers in C layout.
    let offsets = unsafe { std::mem::transmute::<Offsets, [u8; size_of::<Offsets>()]>(offsets) };
    let (slot, skips) = (slot.to_ne_bytes(), reads.skips.to_ne_bytes());
    let constants = [(names::SLOT, &slot[..]), (names::OFFSETS, &offsets), (names::GUARD_SKIPS, &skips)];
    object.patch_map_data(constants.map(|(name, value)| (name, (value, true))).into_iter().collect())?;
    let mut maps = Vec::new();
    for (name, wanted) in object.maps.drain() {
        let map = if names::PINNED_MAPS.contains(&name.as_str()) {
            MapData::from_pin(dir.join(&name))?
        } else {
            let map = MapData::create(wanted.clone(), &name, None)?;
            if wanted.section_kind() == EbpfSectionKind::Rodata {
                set(&map, wanted.data())?;
                freeze(&map)?;
            }
            map
        };
        maps.push((name, map, wanted));
    }
    let text: HashSet<_> = object.functions.keys().map(|(section, _)| *section).collect();
    let places = maps.iter().map(|(name, map, wanted)| (name.as_str(), map.fd().as_fd().as_raw_fd(), wanted));
    object.relocate_maps(places, &text)?;
    object.relocate_calls(&text)?;
    let program = object.programs.get(name).with_context(|| format!("no program {name}"))?;
    let fits = matches!(
        (&program.section, hook),
        (ProgramSection::SchedClassifier, Hook::Tc) | (ProgramSection::Xdp { .. }, Hook::Xdp)
    );
    anyhow::ensure!(fits, "{name} is no program for {hook}");
    load(hook, &object.functions[&program.function_key()].instructions)
}

/// Returns the number before `word`, or after it, in the verifier's log.
pub fn counted(log: &str, word: &str) -> Option<f64> {
    let words: Vec<&str> = log.split_whitespace().collect();
    let place = words.iter().position(|found| *found == word)?;
    words.get(place + 1)?.split('+').map(|number| number.parse::<f64>().ok()).sum()
}

/// The calls of a program, counted in its instructions after the verifier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// Calls of helpers and kernel functions.
    pub helpers: usize,
    /// Look-ups in arrays, which the verifier inlines, and maps passed to helpers.
    pub maps: usize,
}

pub fn calls(program: BorrowedFd<'_>) -> Result<Calls> {
    let mut instructions = vec![0_u64; 1 << 16];
    // SAFETY: both are plain data, for which zero bytes are a valid value.
    let (mut info, mut attribute): (bpf_prog_info, bpf_attr) = unsafe { std::mem::zeroed() };
    info.xlated_prog_len = 8 * instructions.len() as u32;
    info.xlated_prog_insns = instructions.as_mut_ptr() as u64;
    attribute.info.bpf_fd = program.as_raw_fd() as u32;
    attribute.info.info_len = size_of_val(&info) as u32;
    attribute.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attribute).context("cannot read a program")?;
    instructions.truncate(info.xlated_prog_len as usize / 8);
    let mut calls = Calls::default();
    for instruction in instructions {
        let [code, registers, ..] = instruction.to_ne_bytes();
        match (code, registers >> 4) {
            (CALL, _) => calls.helpers += 1,
            (LOAD_IMMEDIATE_64, PSEUDO_MAP_FD) => calls.maps += 1,
            _ => {}
        }
    }
    Ok(calls)
}

fn bpf(command: bpf_cmd, attribute: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attribute is complete, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attribute, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
