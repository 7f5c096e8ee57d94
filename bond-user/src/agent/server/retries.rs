//! Resources that were not available when the agent started: an address for metrics that another process has bound, a
//! group of writers that does not exist yet. Bonds come up without them, `show` reports them, and the agent tries again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    agent::{Agent, AgentError, access::Access, server::metrics::BoundMetrics},
    config::{Metrics, Writers},
    report::wording,
};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The missing resources, each with the reason.
#[derive(Default)]
pub struct Retries(Mutex<Missing>);

#[derive(Default)]
struct Missing {
    metrics: Option<(Metrics, String)>,
    writers: Option<(Writers, String)>,
}

impl Retries {
    fn missing(&self) -> MutexGuard<'_, Missing> {
        // Poisoned or not, it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the metrics that are configured and not served.
    pub fn metrics(&self) -> Option<Metrics> {
        self.missing().metrics.as_ref().map(|(metrics, _)| metrics.clone())
    }

    /// Records why metrics cannot be served; None if they are served, or not configured.
    pub fn set_metrics(&self, missing: Option<(&Metrics, &AgentError)>) {
        self.missing().metrics = missing.map(|(metrics, error)| (metrics.clone(), error.to_string()));
    }

    fn writers(&self) -> Option<Writers> {
        self.missing().writers.as_ref().map(|(writers, _)| writers.clone())
    }

    /// Records why the group of writers cannot be used; None if it can, or if none is configured.
    pub fn set_writers(&self, missing: Option<(&Writers, &AgentError)>) {
        self.missing().writers = missing.map(|(writers, error)| (writers.clone(), error.to_string()));
    }

    /// Returns a sentence for each missing resource.
    pub fn sentences(&self) -> Vec<String> {
        let missing = self.missing();
        let metrics = missing.metrics.iter().map(|(_, why)| wording::metrics_missing(why));
        metrics.chain(missing.writers.iter().map(|(_, why)| wording::writers_missing(why))).collect()
    }
}

/// Binds the address of the metrics, if one is configured.
pub fn bind(metrics: Option<&Metrics>, retries: &Retries) -> Option<BoundMetrics> {
    let metrics = metrics?;
    BoundMetrics::new(metrics).inspect_err(|error| retries.set_metrics(Some((metrics, error)))).ok()
}

/// Reads the groups of readers and writers.
///
/// # Errors
/// The groups cannot be read.
pub fn access(writers: Option<&Writers>, retries: &Retries) -> Result<Access, AgentError> {
    match Access::of(writers) {
        Err(error @ AgentError::NoSuchGroup { .. }) => {
            retries.set_writers(writers.map(|writers| (writers, &error)));
            Access::of(None)
        }
        answer => answer,
    }
}

impl Agent {
    /// Logs the missing resources, and tries again until all are available.
    pub(in crate::agent) async fn retry_missing(self: Arc<Self>) {
        self.retries.sentences().iter().for_each(|sentence| warn!("{sentence}"));
        let mut pause = tokio::time::interval(PAUSE);
        while !self.retries.sentences().is_empty() {
            pause.tick().await;
            self.retry_metrics();
            self.retry_writers().await;
        }
    }

    fn retry_metrics(self: &Arc<Self>) {
        let Some(metrics) = self.retries.metrics() else { return };
        match BoundMetrics::new(&metrics).and_then(|bound| self.serve_metrics(bound)) {
            Ok(()) => self.retries.set_metrics(None),
            Err(error) => self.retries.set_metrics(Some((&metrics, &error))),
        }
    }

    async fn retry_writers(&self) {
        let Some(writers) = self.retries.writers() else { return };
        let read_groups = {
            let writers = writers.clone();
            move || Access::of(Some(&writers))
        };
        // The database of groups may be slow.
        let Ok(answer) = tokio::task::spawn_blocking(read_groups).await else { return };
        // A reload may have been faster.
        if self.retries.writers() != Some(writers.clone()) {
            return;
        }
        match answer {
            Ok(access) => {
                info!("{access}");
                self.set_access(access);
            }
            Err(error) => self.retries.set_writers(Some((&writers, &error))),
        }
    }

    /// Sets who may send requests from now on.
    pub(in crate::agent) fn set_access(&self, access: Access) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
        self.retries.set_writers(None);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Origin;

    #[test]
    fn failed_resources_are_reported_until_a_retry_succeeds() {
        let retries = Retries::default();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = Metrics { address: taken.local_addr().unwrap(), origin: Origin::Flags };
        assert!(bind(Some(&metrics), &retries).is_none());
        let writers = Writers { group: "no-such-group".into(), origin: Origin::Flags };
        assert_eq!(access(Some(&writers), &retries).unwrap(), Access::of(None).unwrap());
        let sentences = retries.sentences();
        assert!(sentences[0].starts_with("metrics are not served: cannot serve metrics at"), "{sentences:?}");
        assert!(sentences[1].contains("no-such-group: no such group; the agent keeps"), "{sentences:?}");
        retries.set_metrics(None);
        retries.set_writers(None);
        assert_eq!(retries.sentences(), [""; 0]);
    }

    /// No interface has an address in 192.0.2.0/24: bond0 gets its address after the agent has bound it.
    #[test]
    fn an_address_that_is_not_there_yet_can_be_bound() {
        for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let metrics = Metrics { address: address.parse().unwrap(), origin: Origin::Flags };
            assert!(BoundMetrics::new(&metrics).is_ok(), "{address}");
        }
    }
}
