//! The receipt of a failover: its trigger, the steps, and the duration of each step.

use std::{collections::BTreeMap, time::Duration};

use bond_core::command::{Chosen, Reason, Trigger};
use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// Version of this format, and of the file that holds it.
pub const VERSION: u32 = 2;

/// The oldest version that can be read: missing fields have defaults.
pub const OLDEST_VERSION: u32 = 1;

/// One change of the active slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of the format.
    pub version: u32,
    /// The bond.
    pub bond: String,
    /// When packets began to use the new slave.
    #[serde(flatten)]
    pub switched: Moment,
    /// Generation of ACTIVE since this switch.
    pub generation: u32,
    /// Null if there was none.
    pub from: Option<String>,
    /// Null if there can be none.
    pub to: Option<String>,
    /// Why there was a failover.
    pub reason: Reason,
    /// What triggered it.
    pub seen: Trigger,
    /// Why this slave was chosen; null if there can be none.
    pub chosen: Option<Chosen>,
    /// How long its steps took.
    pub steps: Steps,
    /// Packets that the data plane dropped, by reason, from the switch to the end of the last step; if the bond had no
    /// active slave before, from the loss of the former one. Reasons without drops are omitted. Null if no agent was
    /// running then.
    pub drops: Option<BTreeMap<String, u64>>,
    /// What the first round of announcements sent; null if there was none: no slave became active, `num_grat_arp` is
    /// 0, or the next failover came first.
    #[serde(default)]
    pub announced: Option<Announcement>,
    /// Peers that had spoken in the ten seconds before, and that the new slave has heard; left out if that is not known: nothing was
    /// announced, the host's neighbours are not known, no agent was running then, or the receipt is a moment old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Box<Peers>>,
    /// What the path monitor knew of the path that it left; left out unless the reason is `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Box<SilentPath>>,
    /// Changes of ACTIVE just before this one without a receipt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unrecorded: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The first round of announcements after a failover. Frames that the slave's driver or queue did not accept count as
/// failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// IP addresses, announced by gratuitous ARP or unsolicited NA.
    pub addresses: u32,
    /// MAC addresses, announced by RARP.
    pub macs: u32,
    /// Frames that were not sent.
    pub failed: u32,
    /// Who sent the announcements.
    pub by: Announcer,
    /// The rounds that the clock is known to have sent; `None` if the agent sends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// Addresses, or MAC addresses behind the bond, were left out, because there are more than a round announces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capped: bool,
}

impl Announcement {
    /// Creates the announcement of nothing.
    pub const fn by(by: Announcer) -> Self {
        Self { addresses: 0, macs: 0, failed: 0, by, rounds: None, capped: false }
    }

    /// Returns the number of frames that were sent.
    pub fn sent(&self) -> u32 {
        self.addresses.saturating_add(self.macs)
    }
}

/// The path of an active slave that was left because it was silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentPath {
    /// The targets that did not answer.
    pub targets: Vec<String>,
    /// echo or arp: how they were probed.
    pub method: String,
    /// ms from the last answer to the failover; null if none had come by this slave.
    pub last_heard: Option<u64>,
    /// `path_misses`: so many intervals passed without an answer.
    pub misses: u64,
}

/// Peers after a failover: stations that had spoken in the ten seconds before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// The number of peers that had sent in the last 10 s.
    pub expected: u32,
    /// Those that the new slave has heard within 120 ms.
    pub heard: u32,
    /// From the switch until the last of these was heard first; null if none was heard.
    pub heard_us: Option<u64>,
    /// Unicast requests that were sent to peers not heard after 20 ms.
    pub asked: u32,
    /// Peers that were not heard, at most 16: `192.0.2.7 (02:00:00:00:00:07)`, or the MAC address alone.
    pub missing: Vec<String>,
}

/// Who sent the announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcer {
    /// The agent.
    Agent,
    /// A tick of the clock in the kernel.
    Kernel,
}

/// The steps of a failover, in microseconds. A failover of the data plane took no longer than any packet does: its
/// first three steps are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// From when the agent could know, such as the arrival of a link event, until the engine received it.
    pub detect_us: u64,
    /// The engine's decision.
    pub decide_us: u64,
    /// The store to ACTIVE.
    pub switch_us: u64,
    /// From a switch of the data plane until the agent, or the next agent, was notified; null if the agent made the
    /// switch.
    #[serde(default)]
    pub heard_us: Option<u64>,
    /// From the switch until the last MAC address was changed; null if there were none to change.
    pub macs_us: Option<u64>,
    /// From the switch until the first round of announcements was sent; null if there was none, or all of it failed.
    pub announce_us: Option<u64>,
}

impl Steps {
    /// Returns the microseconds from the trigger to the switch.
    pub fn until_switch_us(&self) -> u64 {
        self.detect_us.saturating_add(self.decide_us).saturating_add(self.switch_us)
    }
}

impl Receipt {
    /// Returns whether this is the receipt of the same failover as `other`.
    pub fn is_of_failover(&self, other: &Self) -> bool {
        self.generation == other.generation && self.switched == other.switched
    }

    /// Returns the time from the trigger to the switch; zero if the data plane made it.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.steps.until_switch_us())
    }
}

/// The output of `xbond log -j`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Version of the format.
    pub version: u32,
    /// The bond.
    pub bond: String,
    /// The oldest first.
    pub receipts: Vec<Receipt>,
    /// What is missing, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
