//! How this process gets its memory.

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

/// Gives back to the kernel what is free between other things. Whoever allocates meanwhile waits some milliseconds.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: an integer. Free pages are given back, and zeroed when they are used again.
    unsafe {
        libc::malloc_trim(0)
    };
}
