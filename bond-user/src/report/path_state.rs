//! The state of the path monitor, as reports have it.

use serde::{Deserialize, Serialize};

/// The path monitor of a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMonitor {
    /// Addresses of the neighbours that are probed.
    pub targets: Vec<String>,
    /// echo or arp: what counts as an answer now.
    pub method: String,
    /// Why this method is in use.
    pub why: String,
    /// ms from one probe of the active slave to the next.
    pub interval: u64,
    /// After how many silent intervals the active slave is left.
    pub misses: u64,
    /// No target answers through any slave: nothing fails over.
    pub silent: bool,
    /// Failovers by the path monitor since the bond was created.
    pub failovers: u64,
    /// Probes that were sent.
    pub sent: u64,
    /// Probes that the kernel did not send.
    pub refused: u64,
    /// How often echoes stopped while ARP requests were answered.
    pub fallbacks: u64,
    /// How often the active slave was suspected of a path in one direction, and probed faster.
    #[serde(default)]
    pub suspicions: u64,
    /// Why nothing is probed, or not everything that is wanted.
    #[serde(default)]
    pub fault: Option<String>,
}

/// The path of a slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlavePath {
    /// The state of the path.
    pub state: PathStatus,
    /// Why it is in this state.
    pub why: String,
    /// ms since a target answered by this slave; null if none ever did.
    pub last_heard: Option<u64>,
    /// Intervals of silence since then; of a backup the probes that it was to answer, 0 or 1.
    pub misses: u64,
    /// Echoes that came back.
    pub echoes: u64,
    /// ARP answers.
    pub answers: u64,
    /// µs that the last echo was under way; null if none came back.
    pub round_trip: Option<u64>,
    /// It is active, sends, and receives no unicast where it did before; null if it is not so.
    #[serde(default)]
    pub suspicion: Option<Suspicion>,
}

/// Why a slave is suspected of a path in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// ms since it received unicast last.
    pub silence: u64,
    /// Frames that it has sent since.
    pub sent: u64,
}

/// How often a slave is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// As the settings say.
    Often,
    /// Once in a minute: it has never answered as a backup.
    Seldom,
    /// There is no MAC address for that.
    Never,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathStatus {
    /// The targets answer.
    Works,
    /// It has missed an answer.
    Silent,
    /// It was left because it was silent, and has not answered since.
    Failed,
    /// The slave joined, or its link was lost, and it has not answered often enough since (`failback=proven`).
    Unproven,
    /// Nothing is known of it: no target has ever answered by it.
    Unknown,
}
