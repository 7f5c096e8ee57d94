//! A counter that one thread increments and another awaits.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Incrementing it costs two atomic operations while no thread waits, so it may be done per packet.
pub struct Progress {
    count: AtomicU64,
    /// The lowest count that a thread waits for.
    awaited: AtomicU64,
    lock: Mutex<()>,
    reached: Condvar,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            awaited: AtomicU64::new(u64::MAX),
            lock: Mutex::new(()),
            reached: Condvar::new(),
        }
    }
}

impl Progress {
    pub fn add(&self, amount: u64) {
        let count = self.count.fetch_add(amount, Ordering::SeqCst) + amount;
        // A waiter stores the awaited count before it reads the counter, so one of the two sees the other.
        if count >= self.awaited.load(Ordering::SeqCst) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.reached.notify_all();
        }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Returns whether the count reached `target` within `timeout`.
    pub fn wait(&self, target: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.awaited.fetch_min(target, Ordering::SeqCst);
        while self.count() < target {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = self.reached.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.awaited.store(u64::MAX, Ordering::SeqCst);
        true
    }
}
