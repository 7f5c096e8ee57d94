//! What of the data plane can be checked while another thread changes it: programs at their hooks.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use bond_common::abi::Slot;

use super::netkit::{self, DeviceHook};

/// Where a program of a bond is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// What bond0, or the host behind an existing port, sends: at the port, and of a netkit pair at bond0.
    Port,
    /// At the egress of the pair's ends.
    Ends,
    Slave(Slot),
}

/// A program of a bond at its hook.
#[derive(Clone, Debug)]
pub struct Watched {
    pub at: At,
    pub device: String,
    /// Where other programs may stand ahead of it.
    pub(super) hook: Option<(u32, DeviceHook)>,
    /// None where it may be any device of another namespace.
    pub(super) ifindex: Option<u32>,
    pub(super) link: Arc<OwnedFd>,
    /// As `bpftool prog show id` takes it.
    pub(super) program: u32,
}

/// What became of a program at its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHook {
    Yes,
    /// It was detached, or its device is gone.
    Detached,
    /// Its link runs another program.
    Replaced,
}

impl Watched {
    /// Reads its link. The kernel takes RTNL for it.
    pub fn look(&self) -> io::Result<AtHook> {
        let link = netkit::device_link(self.link.as_fd())?;
        let is_there = match self.ifindex {
            Some(ifindex) => link.ifindex == ifindex,
            None => link.ifindex != 0,
        };
        Ok(match (is_there, link.program == self.program) {
            (false, _) => AtHook::Detached,
            (true, false) => AtHook::Replaced,
            (true, true) => AtHook::Yes,
        })
    }

    /// The numbers of the programs that run before it at its hook, as `bpftool prog show id` takes them. The kernel takes
    /// RTNL for it.
    pub fn ahead(&self) -> io::Result<Vec<u32>> {
        let Some((ifindex, hook)) = self.hook else { return Ok(Vec::new()) };
        let mut programs = netkit::programs(ifindex, hook)?;
        let own = programs.iter().position(|program| *program == self.program);
        programs.truncate(own.unwrap_or_default());
        Ok(programs)
    }
}
