//! The HTTP API of an agent: its endpoints, its bodies, and its kinds of errors.
//!
//! Client ([`crate::cli`]) and server ([`crate::agent::server`]) are both built from what is here, so that an endpoint or a
//! field cannot be spelled in two ways.

mod body;
mod endpoint;
mod error_kind;
mod wait;

pub use self::{
    body::{
        Done, Failure, MOST_BONDS, MOST_OPTIONS, MissingSlaves, NewBonds, NewDrain, NewSlave, NewTakeover,
        OptionChange,
    },
    endpoint::{Call, Endpoint},
    error_kind::ErrorKind,
    wait::{DEFAULT_WAIT, LONGEST_WAIT, parse_wait},
};
