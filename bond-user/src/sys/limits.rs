//! Whether there is memory enough: an allocation that fails in the middle of a change would end the process there.

use std::{io, num::NonZeroUsize};

use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    resource::{Resource, getrlimit},
};

use super::SysError;

/// Bytes of address space that an agent may take, most of it never touched: threads have stacks, and glibc reserves an
/// arena for each.
const ADDRESS_SPACE: usize = 1 << 30;

/// Says so if the process may not have as much address space as an agent takes (RLIMIT_AS, `ulimit -v`).
pub fn check() -> Result<(), SysError> {
    let Some(length) = NonZeroUsize::new(ADDRESS_SPACE) else { return Ok(()) };
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    match unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) } {
        Ok(place) => {
            // SAFETY: the mapping from above, which nobody uses.
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
