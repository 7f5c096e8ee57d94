//! How this process gets its memory.

/// Has all threads allocate from one arena. BPF objects are loaded by whichever thread comes next and soon thrown away:
/// with an arena for each thread, each keeps the pages of the most that it ever had. Before there are threads.
pub fn share_one_arena() {
    // Other C libraries have one anyway.
    #[cfg(target_env = "gnu")]
    // SAFETY: two integers. A refusal leaves the arenas as they were.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
