//! The error of all changes to the system.

use std::{fmt, io};

use netlink_packet_core::ErrorMessage;
use nix::errno::Errno;

/// A failed operation: what, on which device or file, why, and what helps.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum SysError {
    /// The kernel returned an error.
    #[error("{what} on {on}: {}{}", Reason(source), Hint(hint))]
    Kernel { what: String, on: String, source: io::Error, hint: Option<String> },
    /// The kernel reported success, and the setting is not in effect.
    #[error("{what} on {on}: accepted, but it did not stay so{}", Hint(hint))]
    NotKept { what: String, on: String, hint: Option<String> },
    /// The kernel could not be queried, or its answer was lost: the result of the request is unknown.
    #[error("{what} on {on}: the kernel gave no answer; it may lack memory: see `dmesg`, and try again")]
    NoAnswer { what: String, on: String },
    /// There is no such interface in this network namespace.
    #[error("{0}: no such interface in this network namespace")]
    NoSuchInterface(String),
    /// All names that the pair of the bond's clock may have are taken.
    #[error(
        "{0}: interfaces that are no clock of this bond have all names of its clock; rename or delete them: see `ip link`"
    )]
    NoFreeName(String),
    /// `ip netns` has no namespace of this name.
    #[error("{0:?}: no such network namespace; `ip netns list` lists them")]
    NoSuchNamespace(String),
    /// The interface cannot be enslaved in its current state.
    #[error(transparent)]
    Refused(#[from] super::enslave::Refusal),
    /// A file of xbond's has content that xbond did not write.
    #[error("{file}: {problem}")]
    BadFile { file: String, problem: String },
    /// Capabilities are missing.
    #[error("xbond needs {missing}, which this process does not have; run it with sudo")]
    NotPrivileged { missing: String },
    /// The operation failed, and the steps before it could not all be undone.
    #[error("{first}; undoing it failed too: {undoing}")]
    NotUndone { first: Box<SysError>, undoing: Box<SysError> },
}

impl SysError {
    /// Returns an error of a system call. `what` was tried, such as "set MTU 9000", on the device or file `on`.
    pub(super) fn kernel(what: impl Into<String>, on: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel { what: what.into(), on: on.into(), source, hint: None }
    }

    /// Returns the error of a netlink request, with the kernel's own explanation if it gives one.
    pub(super) fn netlink(what: impl Into<String>, on: impl Into<String>, error: rtnetlink::Error) -> Self {
        let (source, hint) = match error {
            rtnetlink::Error::RequestFailed => return Self::NoAnswer { what: what.into(), on: on.into() },
            rtnetlink::Error::NetlinkError(error) => (error.to_io(), explanation(&error)),
            other => (io::Error::other(other.to_string()), None),
        };
        Self::Kernel { what: what.into(), on: on.into(), source, hint }
    }

    /// Returns this error, after the steps before it were undone.
    pub(super) fn after_undoing<T>(self, undone: Result<T, Self>) -> Self {
        match undone {
            Ok(_) => self,
            Err(undoing) => Self::NotUndone { first: Box::new(self), undoing: Box::new(undoing) },
        }
    }

    /// Adds advice, unless there is some already.
    pub(super) fn advise(mut self, advice: Option<String>) -> Self {
        if let Self::Kernel { hint, .. } | Self::NotKept { hint, .. } = &mut self
            && hint.is_none()
        {
            *hint = advice;
        }
        self
    }

    /// Returns the error number, if a system call or netlink request gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// Returns whether this process lacks descriptors, memory or a permission: the error then gives no information
    /// about the device.
    pub fn is_lack(&self) -> bool {
        let of_errno = |errno| {
            use Errno::{EACCES, EMFILE, ENFILE, ENOMEM, EPERM};
            // ENOBUFS is none: a device without carrier drops a frame that is sent on it with this error.
            [EMFILE, ENFILE, ENOMEM, EPERM, EACCES].contains(&errno)
        };
        matches!(self, Self::NoAnswer { .. }) || self.errno().is_some_and(of_errno)
    }

    /// Returns whether the device has vanished, so that nothing is left to do on it.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NoSuchInterface(_)) || self.errno() == Some(Errno::ENODEV)
    }
}

/// Returns NLMSGERR_ATTR_MSG of an extended acknowledgement. With NETLINK_CAP_ACK the attributes follow the header of
/// the request.
fn explanation(error: &ErrorMessage) -> Option<String> {
    const REQUEST_HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let mut rest = error.header.get(REQUEST_HEADER..)?;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == NLMSGERR_ATTR_MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches(['\0', '.']).to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Formats an io::Error without "(os error 22)".
struct Reason<'a>(&'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => f.write_str(Errno::from_raw(number).desc()),
            None => self.0.fmt(f),
        }
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(attributes: &[u8]) -> rtnetlink::Error {
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZero::new(-libc::EINVAL);
        error.header = [&[0; 16][..], attributes].concat();
        rtnetlink::Error::NetlinkError(error)
    }

    #[test]
    fn one_sentence_with_the_kernels_explanation() {
        let text = *b"mtu greater than device maximum\0";
        let attribute = [&[4 + text.len() as u8, 0, 1, 0][..], &text].concat();
        let other = [8, 0, 2, 0, 1, 2, 3, 4];
        for attributes in [attribute.clone(), [&other[..], &attribute].concat()] {
            let error = SysError::netlink("set MTU 9000", "enp0s8", answer(&attributes));
            assert_eq!(
                error.to_string(),
                "set MTU 9000 on enp0s8: Invalid argument (mtu greater than device maximum)"
            );
            assert_eq!(error.errno(), Some(Errno::EINVAL));
        }
    }

    #[test]
    fn a_truncated_or_malformed_answer_has_no_explanation() {
        for attributes in [&[][..], &[0, 0, 1, 0], &[9, 0, 1, 0, b'x'], &[3], &[1, 0, 9, 9, 0, 0, 0, 0]] {
            let error = SysError::netlink("set MTU 9000", "enp0s8", answer(attributes));
            assert_eq!(error.to_string(), "set MTU 9000 on enp0s8: Invalid argument", "{attributes:?}");
        }
    }
}
