//! Events of `/v1/events`: one JSON object a line.

use bond_core::name::printable_json;
use serde::{Deserialize, Serialize};

use super::{moment::Moment, receipt::Receipt};

/// Version of this format. An event of a failover contains its receipt: a new version of receipts requires a new one
/// here.
pub const VERSION: u32 = 2;

/// An event of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Version of the format.
    pub version: u32,
    /// When it was sent.
    #[serde(flatten)]
    pub moment: Moment,
    /// Null for an event that concerns no single bond.
    pub bond: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The state of a bond when the reader begins to listen: the first line for each bond.
    State {
        /// The active slave, if there is one.
        active_slave: Option<String>,
        /// Whether the bond has a carrier.
        carrier: bool,
    },
    /// The active slave changed, and everything that belongs to the failover is done.
    Failover {
        /// The receipt of the failover.
        receipt: Receipt,
    },
    /// A slave's MII status changed; it becomes final after `delay_ms`, if there is a delay.
    Link {
        /// The slave.
        slave: String,
        /// Its MII status, as in reports.
        mii_status: String,
        /// Milliseconds until the status becomes final.
        delay_ms: Option<u32>,
    },
    /// A slave joined or left, or its use changed.
    Slave {
        /// The slave.
        slave: String,
        /// What changed.
        change: SlaveChange,
    },
    /// An option was set by `xbond set`; an option of the slave, if there is one.
    Option {
        /// The slave, for an option of a slave.
        slave: Option<String>,
        /// The driver's name of the option.
        option: String,
        /// Its new value.
        value: String,
    },
    /// The carrier of the bond changed.
    Carrier {
        /// Whether the bond has a carrier now.
        carrier: bool,
    },
    /// A bond was created, removed or kept.
    Bond {
        /// What changed.
        change: BondChange,
    },
    /// The administrator should act.
    Warning {
        /// The sentence of the log.
        text: String,
    },
    /// A message of the log that requires no action.
    Note {
        /// The sentence of the log.
        text: String,
    },
    /// The last line for a reader that was slower than the events, with the number of lost ones.
    Lagged {
        /// The number of lost events.
        missed: u64,
    },
}

/// What changed about a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlaveChange {
    /// It was enslaved.
    Joined,
    /// It was released, or its interface vanished.
    Left,
    /// The administrator drained it.
    Drained,
    /// The drain ended.
    Undrained,
    /// It is used only while no other is up, because its link flaps.
    Damped,
    /// Its damping ended.
    Undamped,
    /// The path monitor found that its path does not work.
    PathFailed,
    /// Its path answers again.
    PathRecovered,
    /// It had joined, or its link had returned, and its path has answered often enough.
    PathProven,
}

/// What changed about a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BondChange {
    /// It was created or adopted.
    Up,
    /// It was removed.
    Down,
    /// The agent ends; the bond keeps running.
    Kept,
}

impl Event {
    /// Returns an event of now; `bond` is the bond that it is about.
    pub fn new(bond: Option<&str>, what: What) -> Self {
        Self { version: VERSION, moment: Moment::now(), bond: bond.map(str::to_owned), what }
    }

    /// Returns the line, including its end.
    pub fn line(&self) -> String {
        // Strings and numbers with string keys: JSON can represent all of them.
        printable_json(&serde_json::to_string(self).unwrap_or_default()) + "\n"
    }
}
