//! Lists of the kernel's, whole and of one moment.
//!
//! The kernel makes a list (NLM_F_DUMP) piece by piece, and two things come in between. A socket has one list at a
//! time, and another one is refused with EBUSY: so whoever shares the connection waits for their turn. And where a
//! list changes while it is told, its messages carry NLM_F_DUMP_INTR: it may lack something that was there all the
//! time, and is asked for again.

use std::{io, sync::Arc, time::Duration};

use netlink_packet_route::RouteNetlinkMessage;
use tokio::sync::{Mutex, MutexGuard};

use super::{Netlink, Raw};
use crate::sys::SysError;

/// Whatever a machine does, it does not change its links at every one of so many attempts.
const ATTEMPTS: u32 = 100;
/// Before the next attempt.
const PAUSE: Duration = Duration::from_millis(2);

/// The turn of those who share a connection.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Mutex<()>>);

impl Turn {
    /// Waits for it.
    pub(super) async fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().await
    }
}

/// Why there is no list.
pub(super) enum DumpFault {
    /// The next attempt may succeed.
    Passing(SysError),
    Lasting(SysError),
}

impl DumpFault {
    /// The list changed while it was read.
    pub(super) fn changed(what: &str) -> Self {
        let source = io::Error::other("changed whenever it was read");
        Self::Passing(SysError::kernel("list", what, source))
    }
}

/// How often a list was read in vain.
#[derive(Debug, Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// There is none.
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
    /// What the kernel lists for this request; `what` is listed, for the error.
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

    /// Enough links for a list of several pieces.
    const PAIRS: u32 = 150;

    /// The connection is read by another thread than those that ask, as in an agent.
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
                            // One that is given up half-way is in nobody's way.
                            let _ = timeout(Duration::from_micros(300), netlink.links(None)).await;
                        }
                    };
                    let asking: Vec<_> = (0..8).map(|_| tokio::spawn(list(netlink.clone()))).collect();
                    for one in asking {
                        one.await.unwrap();
                    }
                });
            };
            // A thread is in the namespace of the one that starts it.
            thread::spawn(lists).join().unwrap();
        });
    }
}
