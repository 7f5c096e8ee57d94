//! Why the engine refuses a request.

use bond_common::abi::{MAX_SLAVES, Slot};
use thiserror::Error;

/// The reason why a request was refused. A refused request changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The interface is a slave of this bond.
    #[error("{name} is enslaved already")]
    AlreadyEnslaved {
        /// The interface.
        name: String,
    },
    /// A slave has the index of the interface: one of them has been renamed.
    #[error("{name} has interface index {ifindex}, which is the slave {slave}'s; read the interfaces again")]
    IfindexInUse {
        /// The interface.
        name: String,
        /// Its index.
        ifindex: u32,
        /// The slave that has the index.
        slave: String,
    },
    /// All slots have a slave.
    #[error("the bond has {MAX_SLAVES} slaves, which is the most; release one before {name} is added")]
    TooManySlaves {
        /// The interface.
        name: String,
    },
    /// All free slots were released less than a second ago and are quarantined.
    #[error("all free slots for {name} were released less than 1 s ago; try again in a second")]
    SlotsQuarantined {
        /// The interface.
        name: String,
    },
    /// The MAC address of the interface cannot be changed, and fail_over_mac requires it (`bond_enslave`).
    #[error(
        "{name} cannot change its MAC, and the bond gives its slaves its own; make the bond with fail_over_mac=active"
    )]
    CannotSetMac {
        /// The interface.
        name: String,
    },
    /// The slot has no slave, which may have left.
    #[error("slot {} has no slave; look up the slave by name again", .slot.index())]
    NoSuchSlave {
        /// The slot that the request named.
        slot: Slot,
    },
    /// The slave to make active is not up (`bond_option_active_slave_set`).
    #[error("{name} is not up and cannot be made the active slave; choose one whose MII status is up")]
    NotUp {
        /// The slave.
        name: String,
    },
    /// The bond has no active slave, so there is nothing to switch from (`bond_option_active_slave_set`).
    #[error("the bond has no active slave to take over from; {name} becomes active when it can")]
    NoActiveSlave {
        /// The slave to make active.
        name: String,
    },
    /// Another slave has this queue_id (`bond_option_queue_id_set`).
    #[error("{name}: queue_id={queue_id} is {slave}'s already; set that to another one, or 0, first")]
    QueueIdTaken {
        /// The slave whose option was to be set.
        name: String,
        /// The queue.
        queue_id: u16,
        /// The slave that has the queue.
        slave: String,
    },
    /// The slave to make active is being released.
    #[error("{name} is being released and cannot be made the active slave; choose another one")]
    Leaving {
        /// The slave.
        name: String,
    },
    /// The slave to make active is drained.
    #[error("{name} is drained and cannot be made the active slave; end that first with `xbond undrain`")]
    Drained {
        /// The slave.
        name: String,
    },
    /// Traffic has no other way than the slave to drain.
    #[error("{name} cannot be drained: no other slave is up that is not drained itself")]
    NoOtherUp {
        /// The slave.
        name: String,
    },
    /// fail_over_mac cannot be changed while the bond has slaves (BOND_OPTFLAG_NOSLAVES).
    #[error("fail_over_mac cannot be changed while the bond has slaves; release them first")]
    FailOverMacInUse,
}
