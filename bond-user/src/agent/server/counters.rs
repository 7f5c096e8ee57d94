//! What the kernel counted on devices, as of the last time that it answered: a query does not wait for RTNL.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bond_core::Time;
use tokio::time::timeout;

use crate::{
    report::{
        counted::{Counted, CountedDevice, read},
        moment::monotonic,
        wording,
    },
    sys::{Devices, SysError},
};

/// How long a reader waits for newer counters. The kernel answers in less than a millisecond unless a process holds RTNL.
const READER_AT_MOST: Duration = Duration::from_millis(10);
/// The same while an earlier reading has waited that long already.
const WHILE_HELD_AT_MOST: Duration = Duration::from_millis(2);
/// CounterCache that are older are shown with their age.
const IS_OLD: Time = Time::from_secs(1);
/// Devices of which nothing was asked for so long are forgotten.
const FORGOTTEN_AFTER: Time = Time::from_secs(3600);

/// The counters as they were read last.
#[derive(Default)]
pub struct CounterCache {
    last: Mutex<Last>,
    /// Held by the one reading that is under way.
    lane: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Last {
    /// Readings that were begun.
    begun: u64,
    /// When the one that is under way was begun.
    under_way: Option<Time>,
    /// The number of the last reading that was completed, of which devices, and why it failed.
    completed: u64,
    of: HashSet<u32>,
    failed: Option<String>,
    counted: HashMap<u32, (Time, CountedDevice)>,
}

impl CounterCache {
    /// The counters of these devices: as they are now, or, if the kernel does not answer soon, as they were when it did. A
    /// note says how old they are.
    pub async fn of(
        self: &Arc<Self>,
        kernel: &Arc<dyn Devices>,
        devices: &[u32],
        notes: &mut Vec<String>,
    ) -> Counted {
        let is_kept_waiting = |since: Time| monotonic().saturating_sub(since) > READER_AT_MOST;
        let is_held = self.last().under_way.is_some_and(is_kept_waiting);
        let at_most = if is_held { WHILE_HELD_AT_MOST } else { READER_AT_MOST };
        let is_new = timeout(at_most, self.refresh(kernel, devices)).await.is_ok();
        let (mut counted, mut oldest) = (Counted::new(), None);
        let last = self.last();
        if let Some(error) = last.failed.as_ref().filter(|_| is_new) {
            notes.push(wording::counters_unread(error));
        }
        for ifindex in devices {
            let Some((at, device)) = last.counted.get(ifindex) else { continue };
            counted.insert(*ifindex, device.clone());
            oldest = oldest.max(Some(monotonic().saturating_sub(*at)));
        }
        notes.extend(match oldest {
            None if !is_new && !devices.is_empty() => Some(wording::counters_missing()),
            Some(age) if age > IS_OLD => Some(wording::counters_old(age.as_secs())),
            _ => None,
        });
        counted
    }

    /// Reads the counters of these devices. One reading is under way at a time, and continues if no query waits for it any more:
    /// queries that arrive during it share the next one.
    pub async fn refresh(self: &Arc<Self>, kernel: &Arc<dyn Devices>, devices: &[u32]) {
        let asked = self.last().begun;
        let lane = Arc::clone(&self.lane).lock_owned().await;
        let number = {
            let mut last = self.last();
            if last.completed > asked && devices.iter().all(|device| last.of.contains(device)) {
                return;
            }
            last.begun += 1;
            last.under_way = Some(monotonic());
            last.begun
        };
        let (counters, kernel, devices) = (Arc::clone(self), Arc::clone(kernel), devices.to_vec());
        let reading = tokio::spawn(async move {
            let at = monotonic();
            let answer = read(&*kernel, &devices).await;
            counters.complete(number, at, &devices, answer);
            drop(lane);
        });
        let _ = reading.await;
    }

    fn complete(&self, number: u64, at: Time, devices: &[u32], answer: Result<Counted, SysError>) {
        let mut last = self.last();
        (last.completed, last.under_way) = (number, None);
        last.of = devices.iter().copied().collect();
        match answer {
            Ok(counted) => {
                last.failed = None;
                // What is not there any more has no counters.
                last.counted.retain(|ifindex, (read, ..)| {
                    !devices.contains(ifindex) && at.saturating_sub(*read) < FORGOTTEN_AFTER
                });
                last.counted.extend(counted.into_iter().map(|(ifindex, device)| (ifindex, (at, device))));
            }
            Err(error) => last.failed = Some(error.to_string()),
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Poisoned or not, what was read is whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
