//! Reads complete and consistent lists from the kernel.
//!
//! The kernel returns a list (NLM_F_DUMP) in several parts, which causes two problems. A socket can have one list at
//! a time, and another request is refused with EBUSY: so the users of a connection take turns. And if a list changes
//! while it is being read, its messages carry NLM_F_DUMP_INTR: it may lack an entry that existed all the time, and is
//! requested again.

use std::{io, sync::Arc, time::Duration};

use netlink_packet_route::RouteNetlinkMessage;
use tokio::sync::{Mutex, MutexGuard};

use super::{Netlink, Raw};
use crate::sys::SysError;

/// No machine changes its links during each of this many attempts.
const ATTEMPTS: u32 = 100;
/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(2);

/// The lock by which the users of a connection take turns.
#[derive(Clone, Debug, Default)]
pub struct RequestLock(Arc<Mutex<()>>);

impl RequestLock {
    /// Waits for the lock.
    pub(super) async fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().await
    }
}

/// Why a list could not be read.
pub(super) enum DumpFault {
    /// The next attempt may succeed.
    Passing(SysError),
    Lasting(SysError),
}

impl DumpFault {
    /// Returns the fault of a list that changed while it was read.
    pub(super) fn changed(what: &str) -> Self {
        let source = io::Error::other("changed whenever it was read");
        Self::Passing(SysError::kernel("list", what, source))
    }
}

/// The number of failed attempts to read a list.
#[derive(Debug, Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// There are no further attempts.
    pub(super) async fn after(&mut self, fault: DumpFault) -> Result<(), SysError> {
        self.0 += 1;
        match fault {
            DumpFault::Passing(_) if self.0 < ATTEMPTS => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            DumpFault::Passing(error) | DumpFault::Lasting(error) => Err(error),
        }
    }
}

impl Netlink {
    /// Returns the kernel's list for this request; `what` names its entries, for the error.
    pub(in crate::sys) async fn list(
        &self,
        request: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, SysError> {
        let each = |list: &mut Vec<_>, raw: Raw| list.extend(raw.parse());
        self.dump_raw(&request.into(), what, Vec::new, each).await
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use tokio::time::timeout;

    use super::Netlink;
    use crate::sys::testing::{in_namespace, veth};

    /// Enough links for a list in several parts.
    const PAIRS: u32 = 150;

    /// Another thread than the requesting ones reads the connection, as in an agent.
    #[test]
    fn many_lists_at_once_on_one_connection() {
        in_namespace(async |devices| {
            for number in 0..PAIRS {
                veth(&devices, &format!("eth{number}"), &format!("far{number}")).await;
            }
            let lists = || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
                runtime.unwrap().block_on(async {
                    let netlink = Netlink::open().unwrap();
                    let list = async |netlink: Netlink| {
                        for _ in 0..10 {
                            assert_eq!(netlink.links(None).await.unwrap().len() as u32, 2 * PAIRS + 1);
                            netlink.addresses(None).await.unwrap();
                            // A list that is abandoned half-way disturbs no other.
                            let _ = timeout(Duration::from_micros(300), netlink.links(None)).await;
                        }
                    };
                    let asking: Vec<_> = (0..8).map(|_| tokio::spawn(list(netlink.clone()))).collect();
                    for one in asking {
                        one.await.unwrap();
                    }
                });
            };
            // A new thread is in the namespace of the thread that starts it.
            thread::spawn(lists).join().unwrap();
        });
    }
}
