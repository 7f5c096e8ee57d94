//! The kinds of errors of the API, which decide about the HTTP status of an answer.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

/// Whose fault an error is, and what a client can do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is incomplete, or no JSON.
    Malformed,
    /// The peer may not do that.
    Denied,
    /// The bond, the slave or the endpoint does not exist.
    NotFound,
    /// The request did not arrive in time.
    TooSlow,
    /// It cannot be done in the present state of the bond or of the agent.
    Conflict,
    /// The body is too long.
    TooLarge,
    /// The body is not declared as JSON.
    NotJson,
    /// What is asked for is not possible in this way.
    Refused,
    /// The kernel or the file system failed.
    #[default]
    Internal,
    /// The agent ends, or has as many requests as it serves.
    Unavailable,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Denied,
        Self::NotFound,
        Self::TooSlow,
        Self::Conflict,
        Self::TooLarge,
        Self::NotJson,
        Self::Refused,
        Self::Internal,
        Self::Unavailable,
    ];

    /// Returns the status of an answer with such an error.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the kind of an answer with this status: [`Self::Malformed`] for another 4xx, [`Self::Internal`] for any
    /// other one.
    pub fn of_status(status: StatusCode) -> Self {
        let other = if status.is_client_error() { Self::Malformed } else { Self::Internal };
        Self::ALL.into_iter().find(|kind| kind.status() == status).unwrap_or(other)
    }

    /// Returns the name in the body of an answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::TooSlow => "too_slow",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::Refused => "refused",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_status_and_a_name_of_its_own() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::of_status(kind.status()), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for (status, kind) in [
            (StatusCode::IM_A_TEAPOT, ErrorKind::Malformed),
            (StatusCode::NOT_IMPLEMENTED, ErrorKind::Internal),
        ] {
            assert_eq!(ErrorKind::of_status(status), kind);
        }
    }

    #[test]
    fn the_reference_lists_each_kind_with_its_status() {
        let reference = include_str!("../../../docs/reference/http.md");
        for kind in ErrorKind::ALL {
            let row = format!("| {} | `{}` |", kind.status().as_u16(), kind.name());
            assert!(reference.contains(&row), "docs/reference/http.md has no row {row}");
        }
    }
}
