//! Why a bond cannot be followed.

use std::{fmt, io, path::PathBuf};

/// Why a bond cannot be followed.
#[derive(Debug)]
#[non_exhaustive]
pub enum FollowError {
    /// No bond can have this name.
    Name(String),
    /// The kernel does not report the number of this network namespace (Linux 5.14 does).
    Namespace(io::Error),
    /// A pinned map cannot be opened.
    Open {
        /// The pin.
        path: PathBuf,
        /// What the kernel returned.
        source: io::Error,
    },
    /// The descriptor is not of the map that is expected, or another version of xbond made it.
    Layout {
        /// The name of the expected map, ACTIVE or SLAVES.
        map: &'static str,
    },
    /// A map cannot be inspected or mapped into memory.
    Map {
        /// The name of the map, ACTIVE or SLAVES.
        map: &'static str,
        /// What the kernel returned.
        source: io::Error,
    },
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "no bond can have the name {name:?}"),
            Self::Namespace(source) => {
                write!(
                    f,
                    "cannot read the number of this network namespace: {source}; xbond needs Linux 5.14"
                )
            }
            Self::Open { path, source } if source.kind() == io::ErrorKind::NotFound => write!(
                f,
                "there is no {}: the bond does not exist in this network namespace (`xbond show` lists its bonds), \
                 or bpffs is not mounted in this mount namespace",
                path.display()
            ),
            Self::Open { path, source } if source.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "{}: {source}; run as root, or have a privileged process open the maps and pass their descriptors",
                path.display()
            ),
            Self::Open { path, source } => write!(f, "cannot open {}: {source}", path.display()),
            Self::Layout { map } => write!(
                f,
                "this is not the map {map} of a bond, or a version of xbond made it whose maps this one does not know"
            ),
            Self::Map { map, source } => write!(f, "cannot map {map}: {source}"),
        }
    }
}

impl std::error::Error for FollowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Namespace(source) | Self::Open { source, .. } | Self::Map { source, .. } => Some(source),
            Self::Name(_) | Self::Layout { .. } => None,
        }
    }
}
