//! Metrics on the TCP address of the configuration: GET /metrics and nothing else.

use std::{
    io,
    net::{self, SocketAddr},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use tokio::{net::TcpListener, task::AbortHandle};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, Outcome,
        server::{control, query::Scope},
    },
    config::Metrics,
    report::{
        metrics::{self, Format},
        wording,
    },
};

/// An address that is bound, at which no request is answered yet.
pub struct BoundMetrics {
    address: SocketAddr,
    by: By,
    listener: net::TcpListener,
}

/// Who named the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The command line, which overrides files.
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

impl BoundMetrics {
    /// # Errors
    /// The address cannot be had.
    pub fn new(metrics: &Metrics) -> Result<Self, AgentError> {
        let address = metrics.address;
        let bind = || {
            let listener = match net::TcpListener::bind(address) {
                // It may be bond0's, which gets it later.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bind_freely(address)?,
                answer => answer?,
            };
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| AgentError::Metrics { address, source })?;
        let by = if metrics.origin == crate::config::Origin::Flags { By::Flags } else { By::Files };
        Ok(Self { address, by, listener })
    }
}

/// Binds an address that no interface has (`IP_FREEBIND`, for both versions of IP): it is served as soon as one has it.
fn bind_freely(address: SocketAddr) -> io::Result<net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(128)?)?;
    info!("{}", wording::metrics_without_interface(address.ip()));
    Ok(socket.into())
}

impl Agent {
    /// Serves metrics there, and nowhere else, until the agent ends.
    pub(in crate::agent) fn serve_metrics(self: &Arc<Self>, bound: BoundMetrics) -> Result<(), AgentError> {
        let BoundMetrics { address, by, listener } = bound;
        let listener =
            TcpListener::from_std(listener).map_err(|source| AgentError::Metrics { address, source })?;
        let task = tokio::spawn(serve(listener, Arc::clone(self))).abort_handle();
        self.scrapes.replace(Some(Serving { address, by, task }));
        Ok(())
    }

    /// Moves to where the files that were read again want them. An address that cannot be had changes nothing.
    pub(in crate::agent) fn move_metrics(self: &Arc<Self>, wanted: Option<&Metrics>, outcome: &mut Outcome) {
        let now = self.scrapes.now();
        let missing = self.retries.metrics();
        if missing.as_ref().is_some_and(|missing| missing.origin == crate::config::Origin::Flags) {
            return;
        }
        if now.map(|(address, _)| address) == wanted.map(|metrics| metrics.address) {
            self.retries.set_metrics(None);
        }
        if now.is_some_and(|(_, by)| by == By::Flags)
            || now.map(|(address, _)| address) == wanted.map(|metrics| metrics.address)
        {
            return;
        }
        let Some(metrics) = wanted else {
            self.scrapes.replace(None);
            self.retries.set_metrics(None);
            return outcome.changed(wording::metrics_on_socket_only());
        };
        match BoundMetrics::new(metrics).and_then(|bound| self.serve_metrics(bound)) {
            Ok(()) => {
                self.retries.set_metrics(None);
                outcome.changed(wording::metrics_served_at(metrics.address));
            }
            Err(error) => {
                if missing.is_some() {
                    self.retries.set_metrics(Some((metrics, &error)));
                }
                warn!("{error}");
                outcome.fail_of_agent(&error);
            }
        }
    }

    /// Returns the metrics of all bonds, in the format that the client accepts.
    pub(in crate::agent) async fn metrics(&self, asked: &HeaderMap) -> Result<Response, AgentError> {
        let accept = asked.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::of(accept);
        let report = self.report(None, Scope::Bonds).await?;
        Ok(([(header::CONTENT_TYPE, format.content_type())], metrics::show(report, format)).into_response())
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
        info!("{}", wording::metrics_at(address));
    }
    control::serve_metrics(listener, agent).await;
}
