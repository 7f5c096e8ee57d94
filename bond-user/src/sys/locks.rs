//! Finds the holder of a flock(2) lock in the kernel's list.

use std::{fs, io, os::fd::AsFd};

use nix::sys::stat::{fstat, major, minor};

/// Returns the pid of the process that holds a lock of this file; `None` if the kernel does not show it, for example
/// in another pid namespace than the holder's.
pub fn holder(file: impl AsFd) -> Option<u32> {
    let status = fstat(file).ok()?;
    let list =
        fs::read("/proc/locks").and_then(|list| String::from_utf8(list).map_err(io::Error::other)).ok()?;
    holder_in(&list, (major(status.st_dev), minor(status.st_dev)), status.st_ino)
}

/// Parses `1: FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF` (`lock_get_status`); a waiter has `->` after its number.
fn holder_in(list: &str, (major, minor): (u64, u64), inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    list.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, found, ..] if found == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{Flock, FlockArg};

    use super::*;

    #[test]
    fn the_holder_is_the_process_that_has_locked_the_file() {
        let list = "1: POSIX  ADVISORY  WRITE 11 00:1a:1234 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 22 00:1a:12345 0 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 33 00:1b:1234 0 EOF\n\
                    4: FLOCK  ADVISORY  WRITE 44 00:1a:1234 0 EOF\n\
                    4: -> FLOCK  ADVISORY  WRITE 55 00:1a:1234 0 EOF\n\
                    5: FLOCK\n6: FLOCK  ADVISORY  WRITE none 103:02:9 0 EOF\n";
        let table = [
            ((0, 0x1a), 1234, Some(44)),
            ((0, 0x1b), 1234, Some(33)),
            ((0, 0x1c), 1234, None),
            ((0x103, 2), 9, None),
        ];
        for (device, inode, expected) in table {
            assert_eq!(holder_in(list, device, inode), expected, "{device:?} {inode}");
        }
        assert_eq!(holder_in("", (0, 0), 0), None);
    }

    #[test]
    fn the_kernel_names_this_process() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(holder(&file), None);
        let lock = Flock::lock(file.try_clone().unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        // Some containers hide it.
        assert!([Some(std::process::id()), None].contains(&holder(&file)));
        drop(lock);
    }
}
