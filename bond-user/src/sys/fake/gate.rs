//! What async calls wait for before they begin: that no other process holds RTNL, and that their process still lives.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// RTNL, and the life of the process that calls.
pub struct Gate {
    held: watch::Sender<bool>,
    /// So many async calls may still begin; `None` for any number.
    left: Option<usize>,
    stopped: Arc<Notify>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { held: watch::Sender::new(false), left: None, stopped: Arc::default() }
    }
}

/// What an async call does first.
pub enum Passage {
    Begin,
    /// Another process holds RTNL.
    Wait(watch::Receiver<bool>),
    /// The process has ended.
    Never,
}

impl Gate {
    pub fn set_held(&mut self, held: bool) {
        self.held.send_replace(held);
    }

    pub fn stop_after(&mut self, calls: Option<usize>) {
        self.left = calls;
    }

    pub fn stopped(&self) -> Arc<Notify> {
        Arc::clone(&self.stopped)
    }

    pub fn enter(&mut self) -> Passage {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                self.stopped.notify_one();
                return Passage::Never;
            }
            *left -= 1;
        }
        let held = self.held.subscribe();
        let is_held = *held.borrow();
        if is_held { Passage::Wait(held) } else { Passage::Begin }
    }
}
