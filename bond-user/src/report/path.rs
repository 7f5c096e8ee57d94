//! What a report says of the path monitor, by its maps alone: with and without an agent.

use std::net::Ipv4Addr;

use bond_common::{
    abi::{ActiveWord, Slot},
    mac::Mac,
    path::layout::{PathEntry, PathHeard, PathMethod, PathState, of_pair},
};

use super::{moment::monotonic, receipt::SilentPath, wording};
use crate::sys::dataplane::Maps;

pub use super::path_state::{PathMonitor, PathStatus, Probed, SlavePath, Suspicion};

/// One moment of the path monitor.
struct Moment<'a> {
    maps: &'a Maps,
    entry: PathEntry,
    state: PathState,
    word: ActiveWord,
    /// CLOCK_MONOTONIC in nanoseconds.
    now: u64,
}

impl<'a> Moment<'a> {
    fn read(maps: &'a Maps) -> Option<Self> {
        let path = maps.clock()?.path();
        let entry = path.entry();
        let now = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
        entry.is_on().then(|| Self { maps, entry, state: path.state(), word: maps.active(), now })
    }

    fn heard(&self, slot: Slot) -> PathHeard {
        self.maps.clock().map(|clock| clock.path().heard(slot)).unwrap_or_default()
    }
}

/// Returns the path monitor; None if it is off. `fault` is what an agent knows.
pub fn monitor(maps: &Maps, fault: Option<String>) -> Option<PathMonitor> {
    let Some(at) = Moment::read(maps) else {
        return fault.map(|fault| PathMonitor { fault: Some(fault), ..PathMonitor::default() });
    };
    let Moment { entry, state, .. } = &at;
    let targets = entry.targets.iter().filter(|pair| **pair != 0).map(|pair| of_pair(*pair).0);
    let is_echo = state.echo != 0;
    Some(PathMonitor {
        targets: targets.map(|target| Ipv4Addr::from(target).to_string()).collect(),
        method: if is_echo { "echo" } else { "arp" }.to_owned(),
        why: wording::path_method(PathMethod::from_number(entry.method), is_echo, state.fallbacks > 0)
            .to_owned(),
        interval: state.pace(entry) / 1_000_000,
        misses: entry.misses,
        silent: state.silent != 0,
        failovers: state.failovers,
        sent: state.sent,
        refused: state.refused,
        fallbacks: state.fallbacks,
        suspicions: state.suspicions,
        fault,
    })
}

/// Returns the path of a slave; None if the path monitor is off.
pub fn of_slave(maps: &Maps, slot: Slot) -> Option<SlavePath> {
    let at = Moment::read(maps)?;
    let (heard, bit) = (at.heard(slot), u64::from(slot.bit()));
    let age = (heard.at() > 0).then(|| at.now.saturating_sub(heard.at()));
    let is_active = at.word.active() == Some(slot);
    let asked_at = at.state.asked_at.get(slot.index()).copied().unwrap_or_default();
    let misses = match (age, is_active) {
        (Some(age), true) => age / at.state.pace(&at.entry).max(1),
        // It was asked a moment ago.
        (Some(_), false) => (heard.arp_at < asked_at && at.now.saturating_sub(asked_at) > ANSWER_TIME).into(),
        (None, _) => 0,
    };
    let probed = match () {
        () if !is_active && at.entry.mac(slot).is_zero() => Probed::Never,
        () if !is_active && at.state.muted & bit != 0 => Probed::Seldom,
        () => Probed::Often,
    };
    let status = match () {
        () if at.state.failed & at.state.unproven & bit != 0 => PathStatus::Unproven,
        () if at.state.failed & bit != 0 => PathStatus::Failed,
        () if age.is_none() || !is_active && at.state.answering & bit == 0 => PathStatus::Unknown,
        () if misses >= if is_active { at.entry.misses } else { 1 } => PathStatus::Silent,
        () => PathStatus::Works,
    };
    let suspicion = (is_active && at.state.suspected_at != 0).then(|| Suspicion {
        silence: at.now.saturating_sub(at.state.received_at) / 1_000_000,
        sent: at.state.sent_since,
    });
    let round_trip = (heard.echo_at > 0).then(|| heard.echo_at.saturating_sub(heard.echo_sent) / 1000);
    Some(SlavePath {
        state: status,
        why: wording::path_status(status, is_active, probed, misses),
        last_heard: age.map(|age| age / 1_000_000),
        misses,
        echoes: heard.echoes,
        answers: heard.arps,
        round_trip,
        suspicion,
    })
}

impl SilentPath {
    /// Reads what was known of the slave in this slot when the path monitor left it; None if it never has.
    pub fn read(maps: &Maps, slot: Slot) -> Option<Self> {
        let at = Moment::read(maps)?;
        let failed_at = at.state.failed_at.get(slot.index()).copied().filter(|at| *at > 0)?;
        let monitor = monitor(maps, None)?;
        let heard = at.heard(slot);
        // What it has heard since then is another matter.
        let last = [heard.echo_at, heard.arp_at].into_iter().filter(|at| *at > 0 && *at <= failed_at).max();
        let last_heard = last.map(|at| (failed_at - at) / 1_000_000);
        Some(Self { targets: monitor.targets, method: monitor.method, last_heard, misses: monitor.misses })
    }
}

/// The time in which a backup answers: nanoseconds.
const ANSWER_TIME: u64 = 200_000_000;

/// Returns the MAC address by which a slave is probed while it is a backup; None if it is not, or there is no path monitor.
pub fn probe_mac(maps: &Maps, slot: Slot) -> Option<Mac> {
    let mac = Moment::read(maps)?.entry.mac(slot);
    Some(mac).filter(|mac| !mac.is_zero())
}
