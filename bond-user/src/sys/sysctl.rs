//! Settings that only /proc/sys can change, in the calling thread's network namespace.

use std::path::PathBuf;

use super::Devices;

/// While this lives, the other IPv4 addresses of a network stay when its first one is deleted; by default the kernel
/// deletes them. If /proc/sys is read-only, the default applies.
#[derive(Debug)]
pub struct PromoteSecondaries<'a> {
    devices: &'a dyn Devices,
    path: PathBuf,
    before: String,
}

impl<'a> PromoteSecondaries<'a> {
    /// Of this device. None if it is so anyway, or cannot be had.
    pub fn of(devices: &'a dyn Devices, device: &str) -> Option<Self> {
        let path = ["/proc/sys/net/ipv4/conf", device, "promote_secondaries"].iter().collect::<PathBuf>();
        let before = devices.read_sysctl(&path)?;
        if before.trim() != "0" {
            return None;
        }
        devices.write_sysctl(&path, "1").ok()?;
        Some(Self { devices, path, before })
    }
}

impl Drop for PromoteSecondaries<'_> {
    fn drop(&mut self) {
        // A device that is gone has no settings.
        let _ = self.devices.write_sysctl(&self.path, &self.before);
    }
}
