//! The kind of each [`AgentError`], which decides about the HTTP status of the answer.

use std::io;

use nix::errno::Errno;

use crate::{
    agent::AgentError,
    api::ErrorKind,
    store::{StoreError, paths::PathError},
    sys::{
        SysError,
        dataplane::{DataPlaneError, KernelError},
    },
};

impl AgentError {
    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sys(error) => of_sys(error),
            Self::Unconfigured { error, .. } => of_sys(error),
            Self::DataPlane(error) => of_data_plane(error),
            Self::Kernel(KernelError::Unknown(_)) => ErrorKind::Internal,
            Self::Kernel(
                KernelError::TooOld { .. }
                | KernelError::TooOldForXdp { .. }
                | KernelError::TooOldForMtu { .. },
            ) => ErrorKind::Refused,
            Self::Store(error) => of_store(error),
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
            | Self::BadSetting { .. }
            | Self::ActiveSlaveAlone => ErrorKind::Refused,
            Self::NoSuchBond(_)
            | Self::Orphaned(_)
            | Self::Lost(_)
            | Self::NoTakeover { .. }
            | Self::NoSuchSlave { .. } => ErrorKind::NotFound,
            Self::NameTaken { .. }
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
            | Self::CannotTakeOver { .. }
            | Self::CannotGiveBack { .. }
            | Self::TakeoverOnTrial { .. }
            | Self::NothingToConfirm => ErrorKind::Conflict,
            Self::NotTakenOver { error, .. } => error.kind(),
            Self::Stopping(_) | Self::Interrupted => ErrorKind::Unavailable,
            Self::Metrics { source, .. } => of_address(source),
            Self::Socket { .. }
            | Self::NotRecorded { .. }
            | Self::NotLedBack { .. }
            | Self::NotProven { .. }
            | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

fn of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::Sys(error) => of_sys(error),
        StoreError::DataPlane(error) => of_data_plane(error),
        StoreError::NothingLeft(_) => ErrorKind::NotFound,
        StoreError::Place(PathError::Occupied { .. })
        | StoreError::OtherRecord { .. }
        | StoreError::OtherMaps { .. } => ErrorKind::Conflict,
        StoreError::Place(PathError::Io { .. } | PathError::Bpffs(_) | PathError::Private)
        | StoreError::Runtime(_)
        | StoreError::File { .. }
        | StoreError::BadRecord { .. }
        | StoreError::NoRecord { .. }
        | StoreError::Unconfirmed { .. }
        | StoreError::NotRestored { .. } => ErrorKind::Internal,
    }
}

/// Returns the kind of an address at which nothing can be served.
fn of_address(error: &io::Error) -> ErrorKind {
    if error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return ErrorKind::Refused;
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => ErrorKind::Conflict,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied => {
            ErrorKind::Refused
        }
        _ => ErrorKind::Internal,
    }
}

fn of_sys(error: &SysError) -> ErrorKind {
    match error {
        SysError::Refused(_) | SysError::NoSuchInterface(_) | SysError::NoSuchNamespace(_) => {
            ErrorKind::Refused
        }
        SysError::Kernel { .. } => match error.errno() {
            // The kernel, or the driver, does not take the value.
            Some(Errno::EINVAL | Errno::ERANGE | Errno::EOPNOTSUPP | Errno::EADDRNOTAVAIL) => {
                ErrorKind::Refused
            }
            Some(Errno::EEXIST | Errno::EBUSY) => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        },
        SysError::NoFreeName(_) => ErrorKind::Conflict,
        SysError::NoAnswer { .. }
        | SysError::NotKept { .. }
        | SysError::BadFile { .. }
        | SysError::NotPrivileged { .. }
        | SysError::NotUndone { .. } => ErrorKind::Internal,
    }
}

fn of_data_plane(error: &DataPlaneError) -> ErrorKind {
    match error {
        // The driver has no such hook, or another program has it.
        DataPlaneError::Attach { .. } => ErrorKind::Refused,
        DataPlaneError::Exists(_) | DataPlaneError::Unpinned(_) => ErrorKind::Conflict,
        DataPlaneError::Load(_)
        | DataPlaneError::Program { .. }
        | DataPlaneError::Missing(_)
        | DataPlaneError::Map { .. }
        | DataPlaneError::DevMap { .. }
        | DataPlaneError::Pin { .. }
        | DataPlaneError::Log(_)
        | DataPlaneError::NoTypes
        | DataPlaneError::DeviceState { .. } => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use bond_common::mac::Mac;
    use bond_core::name::BondName;

    use super::*;
    use crate::{
        agent::{Stopping, queues::Queues},
        config::Origin,
        sys::dataplane::Hook,
    };

    fn kernel(errno: i32) -> AgentError {
        let source = io::Error::from_raw_os_error(errno);
        SysError::Kernel { what: "set".into(), on: "eth0".into(), source, hint: None }.into()
    }

    fn metrics(errno: i32) -> AgentError {
        let source = io::Error::from_raw_os_error(errno);
        AgentError::Metrics { address: "127.0.0.1:80".parse().unwrap(), source }
    }

    fn io_error() -> io::Error {
        io::Error::from_raw_os_error(libc::EIO)
    }

    /// The match above has no arm for all others, so a new error gets its kind when it is added.
    // One thing: a table, with a row for each error.
    #[test]
    fn every_error_has_its_kind() {
        let (b, s) = (|| "bond0".to_owned(), || "eth0".to_owned());
        let attach = DataPlaneError::Attach { hook: Hook::Xdp, device: s(), reason: "no XDP".into() };
        let table: Vec<(ErrorKind, Vec<AgentError>)> = vec![
            (
                ErrorKind::Refused,
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
                    metrics(libc::EACCES),
                    kernel(libc::EINVAL),
                    kernel(libc::EOPNOTSUPP),
                    attach.into(),
                ],
            ),
            (
                ErrorKind::NotFound,
                vec![
                    AgentError::NoSuchBond(b()),
                    AgentError::Orphaned(b()),
                    AgentError::Lost(b()),
                    StoreError::NothingLeft(b()).into(),
                    AgentError::NoSuchSlave { bond: b(), slave: s() },
                ],
            ),
            (
                ErrorKind::Conflict,
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
                    StoreError::OtherMaps { bond: b(), found: 1 }.into(),
                    StoreError::OtherRecord { path: "f".into(), found: 1, wanted: 2 }.into(),
                    StoreError::from(PathError::Occupied { owner: None }).into(),
                    metrics(libc::EADDRINUSE),
                    DataPlaneError::Exists("p".into()).into(),
                    DataPlaneError::Unpinned("p".into()).into(),
                    kernel(libc::EBUSY),
                ],
            ),
            (ErrorKind::Unavailable, vec![Stopping.into(), AgentError::Interrupted]),
            (
                ErrorKind::Internal,
                vec![
                    StoreError::File { path: "f".into(), source: io_error() }.into(),
                    AgentError::Socket { path: "f".into(), source: io_error() },
                    metrics(libc::EMFILE),
                    AgentError::Io { what: "x", source: io_error() },
                    StoreError::BadRecord { path: "f".into(), problem: s() }.into(),
                    StoreError::NoRecord { bond: b(), fault: s(), commands: s() }.into(),
                    StoreError::Unconfirmed { bond: b(), names: vec![s()], files: "f".into() }.into(),
                    StoreError::NotRestored { bond: b(), failures: s(), files: "f".into() }.into(),
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
