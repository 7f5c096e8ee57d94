//! Configures how this process allocates memory, and returns free memory to the kernel.

use std::fs;

/// Bytes. A larger allocation is mapped, and returns to the kernel when it is freed; so does free memory at the end
/// of the heap. The C library's defaults are the same, but it raises them each time a larger allocation is freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Makes all threads allocate from one arena, which does not keep freed memory. BPF objects are loaded by any thread
/// and soon freed: with an arena for each thread, each would keep the pages of the most that it ever used. Call this
/// before threads are started.
pub fn be_frugal() {
    // Other C libraries have one arena anyway.
    #[cfg(target_env = "gnu")]
    for (option, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: two integers. On failure the setting is unchanged.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Bytes. A process that has grown by this much has something to return.
const WORTH_WHILE: usize = 1 << 20;

/// Returns free memory to the kernel after the process has grown: many bonds that are created, or fail over at once,
/// need much memory for a short time, and the freed parts are between others.
#[derive(Default)]
pub struct Frugal {
    /// Bytes that it had afterwards, or less.
    known: usize,
}

impl Frugal {
    /// Checks the size. Takes a few microseconds, or some milliseconds if memory is returned.
    pub fn check(&mut self) {
        let Some(own) = own() else { return };
        if own < self.known + WORTH_WHILE {
            self.known = self.known.min(own);
            return;
        }
        give_back();
        self.known = self::own().unwrap_or(own);
    }
}

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: an integer. Free pages are returned, and zeroed when they are used again.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Returns the bytes that are in memory and belong to no file.
fn own() -> Option<usize> {
    const PAGE: usize = 4096;
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * PAGE)
}
