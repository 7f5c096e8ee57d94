//! What waits for one task, and a signal that something was added to it. Adding never waits.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// A value that others add to and one task takes from.
#[derive(Debug, Default)]
pub struct Mailbox<T> {
    waiting: Mutex<T>,
    added: Notify,
}

impl<T> Mailbox<T> {
    /// Locks what waits. The lock is held for a moment only, never while something is awaited.
    pub fn waiting(&self) -> MutexGuard<'_, T> {
        // Poisoned or not, every part of it is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, and wakes the task.
    pub fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.waiting());
        self.wake();
    }

    /// Wakes the task, now or as soon as it waits.
    pub fn wake(&self) {
        self.added.notify_one();
    }

    /// Waits until the task is woken.
    pub async fn woken(&self) {
        self.added.notified().await;
    }
}

/// What waits, and knows when no more is added.
pub trait Close {
    fn close(&mut self);
}

/// The adders' end of a mailbox, which is closed when this is dropped.
pub struct Open<T: Close>(pub Arc<Mailbox<T>>);

impl<T: Close> Drop for Open<T> {
    fn drop(&mut self) {
        self.0.change(T::close);
    }
}

impl<T: Close> Deref for Open<T> {
    type Target = Mailbox<T>;

    fn deref(&self) -> &Mailbox<T> {
        &self.0
    }
}
