//! The request to enslave an interface, which passes from a client over the engine to the worker, and back.

use bond_common::mac::Mac;
use bond_core::event::NewSlave;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::{agent::AgentError, sys::found::Found};

/// The answer to a request whose last part the worker does.
pub type Reply = oneshot::Sender<Result<(), AgentError>>;

/// An interface that is to be enslaved. It goes to the engine, which accepts or refuses it, then to the worker, which sets it
/// up, and back to the engine: then it is answered.
pub struct EnslaveRequest {
    pub slave: NewSlave,
    /// The original state of the interface.
    pub found: Found,
    /// The MAC address that the slave gets, if one is configured.
    pub mac: Option<Mac>,
    /// Released as soon as the record names the interface, unless the caller holds it for longer.
    pub claim: Option<OwnedMutexGuard<()>>,
    pub reply: Reply,
}
