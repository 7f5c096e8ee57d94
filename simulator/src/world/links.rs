//! Link events on their way to the agent: at once, late, or lost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bond_user::{
    agent::simulated::SimulatedAgent,
    sys::{fake::FakeKernel, netlink::LinkEvent},
};

use super::process::Process;

/// What becomes of link events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// They arrive so many milliseconds late.
    By(u64),
    Lost,
}

#[derive(Default)]
struct Shared {
    /// How late they are when nothing is wrong, in milliseconds.
    usual: u64,
    late: Option<Late>,
    /// Those that came since the last call of [`LinkEvents::take_new`].
    new: Vec<LinkEvent>,
}

/// Link events on their way.
#[derive(Default)]
pub struct LinkEvents {
    shared: Arc<Mutex<Shared>>,
    /// Those that are late, with the times at which they arrive.
    waiting: VecDeque<(u64, LinkEvent)>,
}

impl LinkEvents {
    /// Creates those of a machine on which they are usually so many milliseconds late.
    pub fn new(usual: u64) -> Self {
        let links = Self::default();
        links.shared().usual = usual;
        links
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an agent receive link events.
    pub fn listen(&self, kernel: &FakeKernel, agent: &SimulatedAgent) {
        let (agent, shared) = (agent.clone(), Arc::clone(&self.shared));
        kernel.listen(move |event| {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.late {
                None if shared.usual == 0 => {
                    drop(shared);
                    agent.link_event(&event);
                }
                None | Some(Late::By(_)) => shared.new.push(event),
                Some(Late::Lost) => {}
            }
        });
    }

    /// The socket is closed.
    pub fn forget(&mut self) {
        self.waiting.clear();
        self.shared().new.clear();
    }

    /// From now on they are late, or not.
    pub fn set_late(&mut self, late: Option<Late>) {
        self.shared().late = late;
    }

    /// Returns whether they are in time, and none is on its way.
    pub fn are_prompt(&self) -> bool {
        self.waiting.is_empty() && self.shared().late.is_none()
    }

    /// Takes those that came while they are late. Returns when each arrives.
    pub fn take_new(&mut self, now: u64) -> Vec<u64> {
        let (new, by) = {
            let mut shared = self.shared();
            let by = if let Some(Late::By(by)) = shared.late { by } else { shared.usual };
            (std::mem::take(&mut shared.new), by)
        };
        // They keep their order.
        let first = self.waiting.back().map_or(now + by, |(at, _)| (now + by).max(*at));
        let times = vec![first; new.len()];
        self.waiting.extend(new.into_iter().map(|event| (first, event)));
        times
    }

    /// Delivers those whose time has come.
    pub fn deliver_late(&mut self, now: u64, process: Option<&Process>) {
        while let Some((_, event)) = self.waiting.pop_front_if(|(at, _)| *at <= now) {
            if let Some(process) = process {
                process.agent().link_event(&event);
            }
        }
    }

    /// Delivers that some were lost.
    pub fn overrun(&mut self, process: Option<&Process>) {
        self.set_late(None);
        if let Some(process) = process {
            process.agent().link_event(&LinkEvent::Overrun);
        }
    }
}
