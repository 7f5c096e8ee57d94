//! What `/v1/events` tells: one JSON object a line.

use serde::{Deserialize, Serialize};

use super::{moment::Moment, receipt::Receipt};

/// Version of this format. An event of a failover has its receipt: what raises the receipt's version raises this one.
pub const VERSION: u32 = 2;

/// Something that happened to a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub version: u32,
    /// When it was told.
    #[serde(flatten)]
    pub moment: Moment,
    /// Null where it is not of one bond.
    pub bond: Option<String>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// How a bond is when the reader begins to listen: the first line of each.
    State {
        active_slave: Option<String>,
        carrier: bool,
    },
    /// The active slave changed, and everything that goes with it is done.
    Failover {
        receipt: Receipt,
    },
    /// A slave's MII status changed; it becomes final after `delay_ms`, if there is a delay.
    Link {
        slave: String,
        mii_status: String,
        delay_ms: Option<u32>,
    },
    Slave {
        slave: String,
        change: SlaveChange,
    },
    /// Set by `xbond set`; of a slave, if it is named.
    Option {
        slave: Option<String>,
        option: String,
        value: String,
    },
    /// The bond's own.
    Carrier {
        carrier: bool,
    },
    Bond {
        change: BondChange,
    },
    /// Someone should act.
    Warning {
        text: String,
    },
    Note {
        text: String,
    },
    /// The last line of a reader that was slower than the events: so many were not told.
    Lagged {
        missed: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlaveChange {
    Joined,
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BondChange {
    Up,
    Down,
    /// The agent ends; the bond goes on.
    Kept,
}

impl Event {
    pub fn new(bond: Option<&str>, what: What) -> Self {
        Self { version: VERSION, moment: Moment::now(), bond: bond.map(str::to_owned), what }
    }

    /// The line, its end included.
    pub fn line(&self) -> String {
        // Strings and numbers under string keys: nothing that JSON could refuse.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}
