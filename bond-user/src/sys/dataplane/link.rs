//! What a BPF link holds, as the kernel says it.

use std::{io, os::fd::AsFd as _, path::Path};

use super::netkit;

/// A link of a network device: tcx, XDP or netkit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLink {
    /// BPF_LINK_TYPE_*
    kind: u32,
    /// The device; 0 if the program was detached from it, or the device is gone.
    pub ifindex: u32,
    /// The program, as `bpftool prog show id` takes it.
    pub program: u32,
}

impl DeviceLink {
    /// Reads a pinned link; None if there is no such pin. The kernel takes RTNL for it.
    pub fn read(pin: &Path) -> io::Result<Option<Self>> {
        let link = match netkit::open(pin) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // struct bpf_link_info: type, id, prog_id, and at 16 what is of its type, which begins with the ifindex.
        const PROGRAM: usize = 2;
        const IFINDEX: usize = 4;
        let mut info = [0_u32; 32];
        netkit::info(link.as_fd(), &mut info)?;
        Ok(Some(Self { kind: info[0], ifindex: info[IFINDEX], program: info[PROGRAM] }))
    }

    /// The kernel detaches the program when the device leaves its network namespace: the ifindex counts in the one in
    /// which it was attached.
    pub fn stays_in_namespace(&self) -> bool {
        const BPF_LINK_TYPE_TCX: u32 = 11;
        self.kind == BPF_LINK_TYPE_TCX
    }

    pub fn is_xdp(&self) -> bool {
        const BPF_LINK_TYPE_XDP: u32 = 6;
        self.kind == BPF_LINK_TYPE_XDP
    }
}
