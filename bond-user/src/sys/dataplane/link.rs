//! The state of a BPF link, as the kernel reports it.

use std::{io, os::fd::AsFd as _, path::Path};

use super::netkit;

const BPF_LINK_TYPE_TCX: u32 = 11;

/// A link of a network device: tcx, XDP or netkit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLink {
    /// BPF_LINK_TYPE_*
    pub(super) kind: u32,
    /// The device; 0 if the program was detached from it, or the device is gone.
    pub ifindex: u32,
    /// The number of the program, as `bpftool prog show id` takes it.
    pub program: u32,
}

impl DeviceLink {
    /// A tcx link.
    #[cfg(any(test, feature = "fake"))]
    pub(super) fn in_namespace(ifindex: u32, program: u32) -> Self {
        Self { kind: BPF_LINK_TYPE_TCX, ifindex, program }
    }

    /// Reads a pinned link; None if there is no such pin. The kernel takes RTNL for it.
    ///
    /// # Errors
    /// The pin exists and cannot be opened, or is no link of a network device.
    pub fn read(pin: &Path) -> io::Result<Option<Self>> {
        let link = match netkit::open(pin) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        netkit::device_link(link.as_fd()).map(Some)
    }

    /// Returns whether the kernel detaches the program when the device leaves its network namespace: the ifindex is
    /// then always one of the namespace in which the program was attached.
    pub fn stays_in_namespace(&self) -> bool {
        self.kind == BPF_LINK_TYPE_TCX
    }

    /// Returns whether it is a link of XDP.
    pub fn is_xdp(&self) -> bool {
        const BPF_LINK_TYPE_XDP: u32 = 6;
        self.kind == BPF_LINK_TYPE_XDP
    }
}
