//! Metrics on a TCP address, for whoever asked for one: GET /metrics and nothing else.
//!
//! Whoever reaches the address may be broken, or hostile: there is a bound on connections, and each has a few
//! seconds from its beginning to its end.

use std::{
    io,
    net::{self, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Agent, AgentError, Outcome, control, reading::Scope};
use crate::{config::Metrics, report::metrics};

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 16;
/// A connection's whole life.
const AT_MOST: Duration = Duration::from_secs(10);
/// Before the next attempt to accept a connection, when there is no descriptor left for it.
const BREATH: Duration = Duration::from_millis(100);

/// An address that is taken, and that nobody is answered at yet.
pub struct Bound {
    address: SocketAddr,
    by: By,
    listener: net::TcpListener,
}

/// Who named the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The command line: whatever files say.
    Flags,
    Files,
}

/// Where metrics are served.
#[derive(Default)]
pub struct Scrapes(Mutex<Option<Serving>>);

struct Serving {
    address: SocketAddr,
    by: By,
    task: AbortHandle,
}

impl Bound {
    /// # Errors
    /// The address cannot be had.
    pub fn new(metrics: &Metrics) -> Result<Self, AgentError> {
        let address = metrics.address;
        let bind = || {
            let listener = net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| AgentError::Metrics { address, source })?;
        let by = if metrics.origin == crate::config::Origin::Flags { By::Flags } else { By::Files };
        Ok(Self { address, by, listener })
    }
}

impl Agent {
    /// Serves metrics there, and nowhere else, until the agent ends.
    pub(super) fn serve_metrics(self: &Arc<Self>, bound: Bound) -> Result<(), AgentError> {
        let Bound { address, by, listener } = bound;
        let listener =
            TcpListener::from_std(listener).map_err(|source| AgentError::Metrics { address, source })?;
        let task = tokio::spawn(serve(listener, Arc::clone(self))).abort_handle();
        self.scrapes.replace(Some(Serving { address, by, task }));
        Ok(())
    }

    /// Moves to where the files that were read again want them. An address that cannot be had changes nothing.
    pub(super) fn move_metrics(self: &Arc<Self>, wanted: Option<&Metrics>, outcome: &mut Outcome) {
        let now = self.scrapes.now();
        if now.is_some_and(|(_, by)| by == By::Flags)
            || now.map(|(address, _)| address) == wanted.map(|metrics| metrics.address)
        {
            return;
        }
        let Some(metrics) = wanted else {
            self.scrapes.replace(None);
            return outcome.changed("metrics are served on the control socket only".to_owned());
        };
        match Bound::new(metrics).and_then(|bound| self.serve_metrics(bound)) {
            Ok(()) => outcome.changed(format!("metrics are served at {}", metrics.address)),
            Err(error) => {
                warn!("{error}");
                outcome.failures.push(error.to_string());
            }
        }
    }

    /// All bonds, as Prometheus reads them.
    pub(super) async fn metrics(&self) -> Result<Response, AgentError> {
        let report = self.report(None, Scope::Bonds).await?;
        Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::show(report)).into_response())
    }
}

impl Scrapes {
    fn now(&self) -> Option<(SocketAddr, By)> {
        self.serving().as_ref().map(|serving| (serving.address, serving.by))
    }

    fn replace(&self, serving: Option<Serving>) {
        if let Some(before) = std::mem::replace(&mut *self.serving(), serving) {
            before.task.abort();
        }
    }

    fn serving(&self) -> std::sync::MutexGuard<'_, Option<Serving>> {
        // Poisoned or not, an address with its task is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, agent: Arc<Agent>) {
    if let Ok(address) = listener.local_addr() {
        info!("metrics at http://{address}/metrics");
    }
    let routes = Router::new().route("/metrics", get(scrape)).with_state(agent);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match accept(&listener).await {
            Ok(stream) => stream,
            Err(error) => {
                warn!("nobody can read metrics for a moment: {error}");
                sleep(BREATH).await;
                continue;
            }
        };
        let routes = routes.clone();
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.keep_alive(false);
            // Who does not speak HTTP, or leaves, has had their answer.
            let answer = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
            let _ = timeout(AT_MOST, answer).await;
            drop(place);
        });
    }
}

async fn accept(listener: &TcpListener) -> io::Result<tokio::net::TcpStream> {
    Ok(listener.accept().await?.0)
}

async fn scrape(State(agent): State<Arc<Agent>>) -> Result<Response, Response> {
    agent.metrics().await.map_err(control::answer)
}
