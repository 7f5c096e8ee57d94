//! Confirms after a failover that peers are heard by the new slave: which of those that had spoken a moment before it were
//! heard, and how soon. Those that were not are asked. A task of its own, because it reads the kernel's tables.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bond_common::{abi::Slot, heard::FirstHeard, mac::Mac};
use bond_core::Time;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    interface::Host,
    receipt_writer::FailoverId,
    recorder::{Entry, Recording},
};
use crate::{
    report::{
        moment::{micros, monotonic},
        receipt::Peers,
    },
    sys::{
        Devices,
        announcer::Announced,
        dataplane::MapMirror,
        peers::{self, Station},
    },
};

/// The time after the switch after which peers that were not heard are asked.
const ASK_AFTER: Duration = Duration::from_millis(20);
/// The time after the switch for which peers are awaited.
const WAIT: Duration = Duration::from_millis(120);
/// How often it is checked meanwhile whether all were heard.
const POLL: Duration = Duration::from_millis(10);
/// The most peers that a receipt names as not heard.
const NAMED_AT_MOST: usize = 16;
/// How long the kernel's tables are awaited: another process may hold RTNL.
const READ_AT_MOST: Duration = Duration::from_secs(2);

/// A failover whose peers are to be confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Confirm {
    pub id: FailoverId,
    /// The new active slave.
    pub slot: Slot,
    pub ifindex: u32,
    pub switched: Time,
}

/// The state of the task. It ends when the sender of failovers is dropped.
pub struct Confirmer {
    pub host: Host,
    pub mirror: Arc<MapMirror>,
    pub devices: Arc<dyn Devices>,
    pub recording: Recording,
    /// What is above the bond.
    pub known: watch::Receiver<Announced>,
}

impl Confirmer {
    pub async fn run(self, mut failovers: watch::Receiver<Option<Confirm>>) {
        // An agent that was killed may have left it open.
        self.close();
        while failovers.changed().await.is_ok() {
            loop {
                let Some(failover) = *failovers.borrow_and_update() else { break };
                tokio::select! {
                    biased;
                    // The next failover supersedes this one.
                    changed = failovers.changed() => if changed.is_err() { break },
                    peers = self.confirm(failover) => {
                        if let Some(peers) = peers {
                            self.recording.add(Entry::Peers(failover.id, peers));
                        }
                        break;
                    }
                }
            }
            self.close();
        }
    }

    /// Has nothing more noted of what the active slave receives.
    fn close(&self) {
        self.mirror.observe(false);
        if let Some(heard) = self.mirror.maps().heard() {
            heard.clear();
        }
    }

    /// Returns None if nothing is known of peers: the host is behind a port or in another network namespace, or the kernel does
    /// not answer.
    async fn confirm(&self, failover: Confirm) -> Option<Peers> {
        let Host::Pair { .. } = self.host else { return None };
        self.mirror.observe(true);
        let known = self.known.borrow().clone();
        if known.elsewhere {
            return None;
        }
        let started = Instant::now();
        let ago = monotonic().saturating_sub(failover.switched);
        let at = |after: Duration| started + after.saturating_sub(ago);
        let neighbours = match timeout(READ_AT_MOST, self.devices.neighbours()).await {
            Ok(Ok(neighbours)) => neighbours,
            Ok(Err(error)) => {
                debug!("peers of a failover are not confirmed: {error}");
                return None;
            }
            Err(_) => return None,
        };
        let expected = peers::expected(&neighbours, &known.uppers);
        if expected.is_empty() {
            return Some(Peers::default());
        }
        self.await_all(&expected, at(ASK_AFTER)).await;
        let heard = self.heard();
        let missing: Vec<_> = expected.iter().filter(|peer| !heard.contains_key(&peer.mac)).collect();
        let mac = self.mirror.slave(failover.slot).wire_mac();
        let requests = peers::requests(missing, &known.uppers, mac);
        let asked = self.send(failover, &requests);
        self.await_all(&expected, at(WAIT)).await;
        // If the data plane has switched a while ago, no program noted who was heard until now.
        let switched = Some(failover.switched).filter(|_| ago <= ASK_AFTER);
        Some(outcome(&expected, &self.heard(), switched, asked))
    }

    /// Waits until all were heard, or until then.
    async fn await_all(&self, expected: &[Station], until: Instant) {
        loop {
            let heard = self.heard();
            let now = Instant::now();
            if now >= until || expected.iter().all(|peer| heard.contains_key(&peer.mac)) {
                return;
            }
            sleep_until(until.min(now + POLL)).await;
        }
    }

    /// Returns when each station was first heard by the present active slave.
    fn heard(&self) -> HashMap<Mac, Time> {
        let maps = self.mirror.maps();
        let word = maps.active();
        let heard = maps.heard().and_then(|heard| heard.read().ok()).unwrap_or_default();
        let since = |(mac, first): (Mac, FirstHeard)| Some((mac, Time::from_nanos(first.since(word)?)));
        heard.into_iter().filter_map(since).collect()
    }

    /// Returns how many of these frames were sent by the new slave: none if it is not active any more.
    fn send(&self, failover: Confirm, frames: &[bytes::BytesMut]) -> u32 {
        if frames.is_empty() || self.mirror.maps().active().active() != Some(failover.slot) {
            return 0;
        }
        let sent = self.devices.open_frames(failover.ifindex).map(|socket| {
            let sent = frames.iter().take_while(|frame| socket.send(frame).is_ok());
            u32::try_from(sent.count()).unwrap_or(u32::MAX)
        });
        // A link event reports a device that is gone.
        sent.unwrap_or(0)
    }
}

/// Returns what is recorded of the peers: which of those that were expected were heard, and when. A station without a known
/// address, such as a switch, cannot be asked: its silence says nothing, and it counts only if it was heard. Without the
/// time of the switch it is not said when they were heard.
fn outcome(expected: &[Station], heard: &HashMap<Mac, Time>, switched: Option<Time>, asked: u32) -> Peers {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let first = |peer: &Station| heard.get(&peer.mac).copied();
    let says = |peer: &&Station| peer.address.is_some() || first(peer).is_some();
    let expected: Vec<_> = expected.iter().filter(says).collect();
    let times: Vec<_> = expected.iter().filter_map(|peer| first(peer)).collect();
    let missing = expected.iter().filter(|peer| first(peer).is_none()).map(ToString::to_string);
    Peers {
        expected: count(expected.len()),
        heard: count(times.len()),
        heard_us: times
            .iter()
            .max()
            .zip(switched)
            .map(|(last, switched)| micros(last.saturating_sub(switched))),
        asked,
        missing: missing.take(NAMED_AT_MOST).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn heard_peers_are_counted_and_missing_ones_are_named() {
        let address = Some(("192.0.2.7".parse().unwrap(), 3));
        let peer = |last| Station { mac: mac(last), address: address.filter(|_| last >= 3) };
        // The fourth one cannot be asked.
        let expected = [1, 2, 3, 0].map(peer);
        // The first was heard a moment before the time of the switch was taken; the last one is none of them.
        let heard = [(1, 99), (2, 104), (9, 150)].map(|(last, ms)| (mac(last), Time::from_millis(ms)));
        let found = outcome(&expected, &heard.into(), Some(Time::from_millis(100)), 1);
        let missing = vec![format!("192.0.2.7 ({})", mac(3))];
        let wanted = Peers { expected: 3, heard: 2, heard_us: Some(4000), asked: 1, missing };
        assert_eq!(found, wanted);
        let late = outcome(&expected, &heard.into(), None, 1);
        assert_eq!(late, Peers { heard_us: None, ..wanted });
        let none = outcome(&expected, &HashMap::new(), Some(Time::ZERO), 3);
        assert_eq!((none.expected, none.heard, none.heard_us, none.missing.len()), (1, 0, None, 1));
        let many: Vec<_> = (0..100).map(peer).collect();
        let found = outcome(&many, &HashMap::new(), None, 64);
        assert_eq!((found.expected, found.missing.len()), (97, NAMED_AT_MOST));
    }
}
