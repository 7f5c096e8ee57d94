//! When a change is done: the engine has nothing pending, the worker has carried out what was asked for, and
//! every failover has its record.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    agent::{
        Agent, Stopping,
        bond::{
            engine_handle::BondId,
            work::{Request, WorkQueue},
        },
    },
    report::pending,
};

/// When a request is answered at the latest, whether or not it is done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline after this time from now.
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// Returns the time of the deadline.
    pub fn instant(self) -> Instant {
        self.0
    }
}

impl Agent {
    /// Waits until what was decided about this bond is done. Returns what is not done at the deadline, a sentence each;
    /// nothing of a bond that is gone.
    pub(in crate::agent) async fn settled(&self, name: &str, until: Deadline) -> Vec<String> {
        let Some((id, work)) = self.find(name).map(|bond| (bond.id, bond.work.clone())) else {
            return Vec::new();
        };
        if timeout_at(until.0, self.settle(id, &work)).await.is_ok() {
            return Vec::new();
        }
        match self.machine.engine.pending(id).await {
            Ok(open) if open.is_empty() => vec![pending::of_kernel(name)],
            Ok(open) => open.iter().map(|open| pending::sentence(name, open)).collect(),
            Err(Stopping) => Vec::new(),
        }
    }

    /// All bonds of this agent.
    pub(in crate::agent) async fn all_settled(&self, until: Deadline) -> Vec<String> {
        let mut pending = Vec::new();
        for (name, _) in self.all() {
            pending.extend(self.settled(&name, until).await);
        }
        pending
    }

    async fn settle(&self, id: BondId, work: &WorkQueue) -> Result<(), Stopping> {
        // What was changed on bond0 before this request may not have been reported yet.
        work.check(|pending| pending.host = true);
        carried_out(work).await?;
        loop {
            // The engine first: what it received before leads to work and records, which the task then has in its queue.
            self.machine.engine.settled(id).await?;
            carried_out(work).await?;
            if self.machine.engine.pending(id).await?.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Waits until the worker has done everything that it was asked for before, and every failover has its record.
async fn carried_out(work: &WorkQueue) -> Result<(), Stopping> {
    work.ask(|reply| Request::AwaitRecords { reply }).await
}
