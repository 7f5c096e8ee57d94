//! What the examples share: AF_XDP sockets in copy mode, an XDP program that leaves all other frames to xbond, and the
//! numbered frames.

// Each example uses a part of it.
#![allow(dead_code)]

pub mod frame;
pub mod program;
pub mod socket;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

/// Returns the interface index of a name.
///
/// # Errors
/// There is no such interface.
pub fn ifindex_of(name: &str) -> Result<u32> {
    let text = std::ffi::CString::new(name)?;
    // SAFETY: the text ends with a zero.
    let ifindex = unsafe { libc::if_nametoindex(text.as_ptr()) };
    ensure!(ifindex != 0, "there is no interface {name}");
    Ok(ifindex)
}

/// Returns CLOCK_MONOTONIC in nanoseconds, which all processes of this machine share.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Parses six hexadecimal bytes.
///
/// # Errors
/// The text is something else.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()
        .context("no MAC address")?;
    bytes.try_into().ok().context("a MAC address has six bytes")
}

/// Parses seconds, as 2.5.
///
/// # Errors
/// The text is no number, or negative.
pub fn parse_seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_signal: libc::c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

/// Has SIGINT and SIGTERM end the loop that asks [`is_ended`].
pub fn end_on_signals() {
    let handler: extern "C" fn(libc::c_int) = end;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler stores one word.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Returns whether the program was told to end.
pub fn is_ended() -> bool {
    ENDED.load(Ordering::Relaxed)
}
