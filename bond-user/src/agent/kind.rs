//! What kind of error an [`AgentError`] is, which decides about the HTTP status of the answer.

use nix::errno::Errno;

use crate::{
    agent::AgentError,
    store::paths::PathError,
    sys::{
        SysError,
        dataplane::{DataPlaneError, KernelError},
    },
};

/// Whose fault an error is, and what a client can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 422: what is asked for cannot be, as it is asked for.
    Refused,
    /// 404: what the request is about does not exist.
    NotFound,
    /// 409: it cannot be in the present state of the bond or of the agent.
    Conflict,
    /// 503: the agent ends.
    Unavailable,
    /// 500: the kernel or the file system failed.
    Internal,
}

impl AgentError {
    /// Returns the kind of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sys(error) => of_sys(error),
            Self::Unconfigured { error, .. } => of_sys(error),
            Self::DataPlane(error) => of_data_plane(error),
            Self::Kernel(KernelError::Unknown(_)) => Kind::Internal,
            Self::Kernel(
                KernelError::TooOld { .. }
                | KernelError::TooOldForXdp { .. }
                | KernelError::TooOldForMtu { .. },
            ) => Kind::Refused,
            Self::Place(PathError::Occupied { .. }) => Kind::Conflict,
            Self::Place(PathError::Io { .. } | PathError::Bpffs(_) | PathError::Private) => Kind::Internal,
            Self::Option(_)
            | Self::Refused(_)
            | Self::Name(_)
            | Self::NoSuchQueue { .. }
            | Self::Small { .. }
            | Self::NoNetkit(_)
            | Self::OtherNic { .. }
            | Self::BadConfig(_)
            | Self::NoSuchGroup { .. }
            | Self::OwnSetting { .. }
            | Self::ActiveSlaveAlone => Kind::Refused,
            Self::NoSuchBond(_)
            | Self::Orphaned(_)
            | Self::Lost(_)
            | Self::NothingLeft(_)
            | Self::NoSuchSlave { .. } => Kind::NotFound,
            Self::OtherRecord { .. }
            | Self::OtherMaps { .. }
            | Self::NameTaken { .. }
            | Self::PortNameTaken { .. }
            | Self::CannotAdopt { .. }
            | Self::HasBond(_)
            | Self::AlreadySlave { .. }
            | Self::NoFiles
            | Self::NeedsAnother { .. }
            | Self::NeedsReleased { .. }
            | Self::Elsewhere { .. }
            | Self::NotConfirmed { .. }
            | Self::NotOnTrial { .. }
            | Self::TrialOver { .. }
            | Self::ConfirmedTooLate { .. }
            | Self::NothingToConfirm => Kind::Conflict,
            Self::Stopping(_) | Self::Interrupted => Kind::Unavailable,
            Self::File { .. }
            | Self::BadRecord { .. }
            | Self::NotRecorded { .. }
            | Self::NotPutBack { .. }
            | Self::Unconfirmed { .. }
            | Self::NotRestored { .. }
            | Self::Metrics { .. }
            | Self::Io { .. } => Kind::Internal,
        }
    }
}

fn of_sys(error: &SysError) -> Kind {
    match error {
        SysError::Refused(_) | SysError::NoSuchInterface(_) | SysError::NoSuchNamespace(_) => Kind::Refused,
        SysError::Kernel { .. } => match error.errno() {
            // The kernel, or the driver, does not take the value.
            Some(Errno::EINVAL | Errno::ERANGE | Errno::EOPNOTSUPP | Errno::EADDRNOTAVAIL) => Kind::Refused,
            Some(Errno::EEXIST | Errno::EBUSY) => Kind::Conflict,
            _ => Kind::Internal,
        },
        SysError::NoAnswer { .. }
        | SysError::NotKept { .. }
        | SysError::BadFile { .. }
        | SysError::NotPrivileged { .. }
        | SysError::NotUndone { .. } => Kind::Internal,
    }
}

fn of_data_plane(error: &DataPlaneError) -> Kind {
    match error {
        // The driver has no such hook, or another program has it.
        DataPlaneError::Attach { .. } => Kind::Refused,
        DataPlaneError::Exists(_) | DataPlaneError::Unpinned(_) => Kind::Conflict,
        DataPlaneError::Load(_)
        | DataPlaneError::Program { .. }
        | DataPlaneError::Missing(_)
        | DataPlaneError::Map { .. }
        | DataPlaneError::DevMap { .. }
        | DataPlaneError::Pin { .. }
        | DataPlaneError::Log(_)
        | DataPlaneError::NoTypes
        | DataPlaneError::DeviceState { .. } => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bond_common::mac::Mac;
    use bond_core::name::BondName;

    use super::*;
    use crate::{
        agent::bond::{engine_thread::Stopping, interface::Queues},
        config::Origin,
        sys::dataplane::Hook,
    };

    fn kernel(errno: i32) -> AgentError {
        let source = io::Error::from_raw_os_error(errno);
        SysError::Kernel { what: "set".into(), on: "eth0".into(), source, hint: None }.into()
    }

    fn io_error() -> io::Error {
        io::Error::from_raw_os_error(libc::EIO)
    }

    /// The match above has no arm for all others, so a new error gets its kind when it is added.
    #[test]
    fn every_error_has_its_kind() {
        let (b, s) = (|| "bond0".to_owned(), || "eth0".to_owned());
        let attach = DataPlaneError::Attach { hook: Hook::Xdp, device: s(), reason: "no XDP".into() };
        let table: Vec<(Kind, Vec<AgentError>)> = vec![
            (
                Kind::Refused,
                vec![
                    AgentError::ActiveSlaveAlone,
                    BondName::new("a/b").unwrap_err().into(),
                    SysError::NoSuchInterface(s()).into(),
                    AgentError::NoNetkit(b()),
                    AgentError::NoSuchQueue { bond: b(), slave: s(), queue_id: 3, queues: Queues::One },
                    AgentError::OtherNic { slave: s(), found: Mac::ZERO, wanted: Mac::BROADCAST },
                    AgentError::NoSuchGroup {
                        origin: Origin::Flags,
                        group: "g".into(),
                        why: "no such group",
                    },
                    KernelError::TooOldForXdp { found: "5.15".into() }.into(),
                    kernel(libc::EINVAL),
                    kernel(libc::EOPNOTSUPP),
                    attach.into(),
                ],
            ),
            (
                Kind::NotFound,
                vec![
                    AgentError::NoSuchBond(b()),
                    AgentError::Orphaned(b()),
                    AgentError::Lost(b()),
                    AgentError::NothingLeft(b()),
                    AgentError::NoSuchSlave { bond: b(), slave: s() },
                ],
            ),
            (
                Kind::Conflict,
                vec![
                    AgentError::HasBond(b()),
                    AgentError::NameTaken { name: b(), kind: "veth".into() },
                    AgentError::PortNameTaken { bond: b(), port: s() },
                    AgentError::CannotAdopt { bond: b(), why: s() },
                    AgentError::NoFiles,
                    AgentError::NeedsAnother { bond: b(), what: "port" },
                    AgentError::NeedsReleased { bond: b(), slave: s(), key: "mac" },
                    AgentError::Elsewhere { bond: b(), what: "mtu" },
                    AgentError::NothingToConfirm,
                    AgentError::ConfirmedTooLate { seconds: 1 },
                    AgentError::NotConfirmed { seconds: 1 },
                    AgentError::NotOnTrial { bond: b() },
                    AgentError::TrialOver { bond: b(), seconds: 1 },
                    AgentError::OtherMaps { bond: b(), found: 1 },
                    AgentError::OtherRecord { path: "f".into(), found: 1, wanted: 2 },
                    PathError::Occupied { owner: None }.into(),
                    DataPlaneError::Exists("p".into()).into(),
                    DataPlaneError::Unpinned("p".into()).into(),
                    kernel(libc::EBUSY),
                ],
            ),
            (Kind::Unavailable, vec![Stopping.into(), AgentError::Interrupted]),
            (
                Kind::Internal,
                vec![
                    AgentError::File { path: "f".into(), source: io_error() },
                    AgentError::Io { what: "x", source: io_error() },
                    AgentError::BadRecord { path: "f".into(), problem: s() },
                    AgentError::NotPutBack { bond: b(), fault: s(), commands: s() },
                    AgentError::Unconfirmed { bond: b(), names: vec![s()], files: "f".into() },
                    AgentError::NotRestored { bond: b(), failures: s(), files: "f".into() },
                    PathError::Private.into(),
                    DataPlaneError::NoTypes.into(),
                    kernel(libc::ENOMEM),
                    kernel(libc::EPERM),
                ],
            ),
        ];
        for (kind, errors) in table {
            errors.iter().for_each(|error| assert_eq!(error.kind(), kind, "{error}"));
        }
    }
}
