//! The part of the data plane that can be checked while another thread changes it: attached programs.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use bond_common::abi::Slot;

use super::netkit::{self, DeviceHook};

/// Where a program of a bond is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// At the port, and for a netkit pair also at bond0: for frames that bond0, or the host behind an existing port,
    /// sends.
    Port,
    /// At the egress of the pair's ends.
    Ends,
    /// A slave.
    Slave(Slot),
}

/// An attached program of a bond.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The hook.
    pub at: At,
    /// The device of the hook.
    pub device: String,
    /// The hook at which other programs may run before it.
    pub(super) hook: Option<(u32, DeviceHook)>,
    /// `None` if it may be any device of another namespace.
    pub(super) ifindex: Option<u32>,
    pub(super) link: Arc<OwnedFd>,
    /// The number of the program, as `bpftool prog show id` takes it.
    pub(super) program: u32,
}

/// The state of a program at its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHook {
    /// The program is there.
    Yes,
    /// It was detached, or its device is gone.
    Detached,
    /// Its link runs another program.
    Replaced,
}

impl Watched {
    /// Reads its link. The kernel takes RTNL for it.
    ///
    /// # Errors
    /// The kernel does not return the link's state.
    pub fn read(&self) -> io::Result<AtHook> {
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

    /// Returns the numbers of the programs that run before it at its hook, as `bpftool prog show id` takes them. The
    /// kernel takes RTNL for it.
    ///
    /// # Errors
    /// The device does not exist any more, or the kernel does not list its programs.
    pub fn ahead(&self) -> io::Result<Vec<u32>> {
        let Some((ifindex, hook)) = self.hook else { return Ok(Vec::new()) };
        let mut programs = netkit::programs(ifindex, hook)?;
        let own = programs.iter().position(|program| *program == self.program);
        programs.truncate(own.unwrap_or_default());
        Ok(programs)
    }
}
