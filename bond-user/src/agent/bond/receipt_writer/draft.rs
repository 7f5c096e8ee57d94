//! A failover as the engine's thread hands it over: the first half of a receipt.

use std::collections::BTreeMap;

use bond_common::{
    abi::PORT_STATS,
    counters::{DROP_REASONS, DropReason},
};
use bond_core::{ChangedBy, Time, command::Failover};

use crate::{
    report::{
        moment::micros,
        receipt::{Announcement, SilentPath, Steps},
    },
    sys::dataplane::Maps,
};

/// A failover of one bond, by which what completes its record is assigned to it. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverId(pub u64);

/// A failover, with the data of the engine's thread. It says what its record waits for.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: FailoverId,
    pub failover: Failover,
    pub made: Made,
    /// The time of the switch.
    pub switched: Time,
    pub generation: u32,
    /// `None` if they are not known: no agent was running then, or they could not be read.
    pub before: Option<DropsBefore>,
    /// Whether no agent received the guard's failover when it happened.
    pub is_late: bool,
    /// Changes of ACTIVE just before it without a receipt.
    pub unrecorded: u32,
    /// The number of MAC addresses that were decided to be changed together with it.
    pub mac_changes: usize,
    /// Whether the new slave will be announced.
    pub is_announced: bool,
    /// What ticks have announced already, and when.
    pub announced: Option<(Time, Announcement)>,
    /// What the path monitor knew of the path that it has left.
    pub path: Option<SilentPath>,
}

/// Which part of xbond made the failover, and how long that took.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    ByAgent {
        detect: Time,
        decide: Time,
        switch: Time,
    },
    ByDataPlane {
        /// The carrier guard, as a packet found the active slave without a link, or a tick of the clock.
        by: ChangedBy,
        /// From the switch until the agent was notified.
        notified: Time,
    },
}

impl Made {
    pub fn steps(self) -> Steps {
        match self {
            Self::ByAgent { detect, decide, switch } => Steps {
                detect_us: micros(detect),
                decide_us: micros(decide),
                switch_us: micros(switch),
                ..Steps::default()
            },
            Self::ByDataPlane { by: _, notified } => {
                Steps { heard_us: Some(micros(notified)), ..Steps::default() }
            }
        }
    }
}

/// The data plane's drop counters at the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropsBefore {
    /// Counters of STATS.
    paths: Vec<u32>,
    drops: [u64; DROP_REASONS],
}

impl DropsBefore {
    /// Reads the counters of the port, and of these slots. Returns `None` if a counter cannot be read.
    pub fn read(maps: &Maps, slots: impl Iterator<Item = u32>) -> Option<Self> {
        let paths: Vec<_> = slots.chain([PORT_STATS]).collect();
        let drops = drops(maps, &paths)?;
        Some(Self { paths, drops })
    }

    /// Returns the packets dropped since then, by reason. Returns `None` if a counter cannot be read.
    pub(super) fn since(&self, maps: &Maps) -> Option<BTreeMap<String, u64>> {
        let now = drops(maps, &self.paths)?;
        let since = |reason: DropReason| {
            let count = now[reason as usize].saturating_sub(self.drops[reason as usize]);
            (count > 0).then(|| (reason.name().to_owned(), count))
        };
        Some(DropReason::ALL.into_iter().filter_map(since).collect())
    }
}

fn drops(maps: &Maps, paths: &[u32]) -> Option<[u64; DROP_REASONS]> {
    let mut sum = [0; DROP_REASONS];
    for place in paths {
        for (sum, more) in sum.iter_mut().zip(maps.stats(*place).ok()?.drops) {
            *sum += more;
        }
    }
    Some(sum)
}
