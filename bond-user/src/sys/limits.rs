//! Checks whether there is enough memory, and whether files can be opened: a failure in the middle of a change, or
//! inside a library that does not expect it, would terminate the process.

use std::{
    fs::File,
    io,
    num::NonZeroUsize,
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    resource::{Resource, getrlimit, setrlimit},
};

use super::SysError;

/// Bytes of address space that an agent may need, most of it never used: threads have stacks, and glibc reserves an
/// arena for each.
const ADDRESS_SPACE: usize = 1 << 30;

/// More files than any command opens at once.
pub const FILES_OF_COMMAND: usize = 16;

/// More files than an agent with one bond has open.
pub const FILES_OF_AGENT: usize = 128;

/// More threads than an agent has.
pub const THREADS_OF_AGENT: usize = 16;

/// Descriptors that are reserved for the end: restoring a bond's devices needs some, and clients may have all others.
const RESERVE: usize = 24;
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Opens descriptors, and reserves them for [`release_files`].
pub fn reserve_files() {
    let files = (0..RESERVE).map_while(|_| File::open("/dev/null").ok());
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
}

/// Closes the reserved descriptors, because restoring needs them now.
pub fn release_files() {
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Checks that `count` further threads can be started (RLIMIT_NPROC, `ulimit -u`, or pids.max of the cgroup).
///
/// # Errors
/// The kernel's error.
pub fn check_threads(count: usize) -> Result<(), SysError> {
    const STACK: usize = 16 << 10;
    let start = |_| {
        let (end, ended) = mpsc::channel::<()>();
        let wait = move || {
            let _ = ended.recv();
        };
        thread::Builder::new().stack_size(STACK).spawn(wait).map(|thread| (end, thread))
    };
    // Those that could be started end with this, too.
    let started: Result<Vec<_>, io::Error> = (0..count).map(start).collect();
    match started {
        Ok(threads) => {
            for (end, thread) in threads {
                drop(end);
                let _ = thread.join();
            }
            Ok(())
        }
        Err(error) => {
            let advice = "raise it: TasksMax= of the unit, pids.max of the cgroup, or ulimit -u";
            Err(SysError::kernel(format!("start {count} threads"), "the limit of processes", error)
                .advise(Some(advice.into())))
        }
    }
}

/// Raises the number of open files to the hard limit (RLIMIT_NOFILE): bonds need some each.
pub fn raise_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If the limit cannot be raised, it may still suffice.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Checks that `count` further files can be opened (RLIMIT_NOFILE, `ulimit -n`, or the machine's limit).
///
/// # Errors
/// The kernel's error, and the limit.
pub fn check_files(count: usize) -> Result<(), SysError> {
    let pairs: Result<Vec<_>, _> = (0..count.div_ceil(2)).map(|_| UnixStream::pair()).collect();
    match pairs {
        Ok(_) => Ok(()),
        Err(error) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            Err(SysError::kernel(format!("open {count} files"), format!("a limit of {limit}"), error)
                .advise(Some("raise it: ulimit -n, LimitNOFILE= of the unit, or sysctl fs.file-max".into())))
        }
    }
}

/// Checks that the process may have as much address space as an agent needs (RLIMIT_AS, `ulimit -v`).
///
/// # Errors
/// The process may not have that much address space; the error gives the limit and how to raise it.
pub fn check() -> Result<(), SysError> {
    let Some(length) = NonZeroUsize::new(ADDRESS_SPACE) else { return Ok(()) };
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    match unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) } {
        Ok(place) => {
            // SAFETY: the mapping from above, which has no users.
            let _ = unsafe { munmap(place, ADDRESS_SPACE) };
            Ok(())
        }
        Err(error) => {
            let limit = getrlimit(Resource::RLIMIT_AS).map_or(0, |(soft, _)| soft);
            Err(SysError::kernel(
                format!("take {} MB of address space, as an agent needs", ADDRESS_SPACE >> 20),
                format!("a limit of {} MB", limit >> 20),
                io::Error::from(error),
            )
            .advise(Some("raise it: ulimit -v, or LimitAS= of the unit".into())))
        }
    }
}
