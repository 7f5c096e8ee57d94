//! The receipt of a failover: what was seen, what was done about it, and how long each step took.

use std::{collections::BTreeMap, time::Duration};

use bond_core::command::{Chosen, Reason, Seen};
use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// Version of this format, and of the file that holds it.
pub const VERSION: u32 = 2;

/// The oldest version that is still read: what it lacks has a default.
pub const OLDEST_VERSION: u32 = 1;

/// One change of the active slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub version: u32,
    pub bond: String,
    /// When packets began to use the new slave.
    #[serde(flatten)]
    pub switched: Moment,
    /// Of ACTIVE, since this switch.
    pub generation: u32,
    /// Null where there was none.
    pub from: Option<String>,
    /// Null where none can be.
    pub to: Option<String>,
    pub reason: Reason,
    pub seen: Seen,
    /// Why this slave; null where none can be.
    pub chosen: Option<Chosen>,
    pub steps: Steps,
    /// Packets that the data plane dropped, by reason, from the switch to the end of the last step; while the
    /// bond had no active slave, since it had none. Reasons without drops are left out. Null where no agent looked then.
    pub drops: Option<BTreeMap<String, u64>>,
    /// What the first round of announcements sent; null where there was none: nothing became active, `num_grat_arp` is 0, or the
    /// next failover came first.
    #[serde(default)]
    pub announced: Option<Announcement>,
    /// Changes of ACTIVE just before this one of which there is no receipt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unrecorded: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The first round of announcements after a failover. Frames that the slave's driver or queue did not take count as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// IP addresses, by gratuitous ARP or unsolicited NA.
    pub addresses: u32,
    /// MAC addresses, by RARP.
    pub macs: u32,
    /// Frames that were not sent.
    pub failed: u32,
    pub by: Announcer,
}

impl Announcement {
    /// Frames that were sent.
    pub fn sent(&self) -> u32 {
        self.addresses.saturating_add(self.macs)
    }
}

/// Who sent the announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcer {
    Agent,
}

/// What a failover consists of, in microseconds. One that the data plane made took no longer than any packet does: its
/// first three steps are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// From when the agent could know, as the arrival of a link event, until the engine was told.
    pub detect_us: u64,
    /// The engine's decision.
    pub decide_us: u64,
    /// The store to ACTIVE.
    pub switch_us: u64,
    /// From a switch that the data plane made until the agent heard of it, be it the next agent; null where the agent
    /// made it.
    #[serde(default)]
    pub heard_us: Option<u64>,
    /// From the switch until the last MAC was changed; null where none was to be.
    pub macs_us: Option<u64>,
    /// From the switch until the first round of announcements was sent; null where none was, or all of it failed.
    pub announce_us: Option<u64>,
}

impl Receipt {
    /// From what was seen to the switch; zero of one that the data plane made.
    pub fn duration(&self) -> Duration {
        let Steps { detect_us, decide_us, switch_us, .. } = self.steps;
        Duration::from_micros(detect_us.saturating_add(decide_us).saturating_add(switch_us))
    }
}

/// What `xbond log -j` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    pub version: u32,
    pub bond: String,
    /// The oldest first.
    pub receipts: Vec<Receipt>,
    /// What is missing, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
