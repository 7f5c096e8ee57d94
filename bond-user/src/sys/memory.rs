//! How this process gets its memory, and gives it back.

use std::fs;

/// Bytes. More than that at once is mapped, and goes back to the kernel when it is freed; so does what is free at the
/// end of the heap. These are the C library's own numbers. It raises them each time something larger is freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Has all threads allocate from one arena, which does not keep what it had once. BPF objects are loaded by whichever
/// thread comes next and soon thrown away: with an arena for each thread, each keeps the pages of the most that it ever
/// had. Before there are threads.
pub fn be_frugal() {
    // Other C libraries have one arena anyway.
    #[cfg(target_env = "gnu")]
    for (option, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: two integers. A refusal leaves it as it was.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Bytes. A process that is so much larger than it was has something to give back.
const WORTH_WHILE: usize = 1 << 20;

/// Gives free memory back to the kernel, where the process has grown: many bonds that come, or fail over at once, need
/// much for a moment, and it is between other things when it is freed.
#[derive(Default)]
pub struct Frugal {
    /// Bytes that it had afterwards, or less.
    known: usize,
}

impl Frugal {
    /// Takes a few microseconds, or some milliseconds if something is given back.
    pub fn look(&mut self) {
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
    // SAFETY: an integer. Free pages are given back, and zeroed when they are used again.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Bytes that are in memory and of no file.
fn own() -> Option<usize> {
    const PAGE: usize = 4096;
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * PAGE)
}
