//! The little that only /proc/sys can do. It is that of the calling thread's network namespace.

use std::{fs, path::PathBuf};

/// While it lives, the other IPv4 addresses of a network stay when the first one of it is deleted; the kernel would
/// take them away. Somebody who has /proc/sys read-only does without it.
#[derive(Debug)]
pub struct PromoteSecondaries {
    path: PathBuf,
    before: String,
}

impl PromoteSecondaries {
    /// Of this device. None if it is so anyway, or cannot be had.
    pub fn of(device: &str) -> Option<Self> {
        let path = ["/proc/sys/net/ipv4/conf", device, "promote_secondaries"].iter().collect::<PathBuf>();
        let before = fs::read_to_string(&path).ok()?;
        if before.trim() != "0" {
            return None;
        }
        fs::write(&path, "1").ok()?;
        Some(Self { path, before })
    }
}

impl Drop for PromoteSecondaries {
    fn drop(&mut self) {
        // A device that is gone has no settings.
        let _ = fs::write(&self.path, &self.before);
    }
}
