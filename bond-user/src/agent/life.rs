//! The life of an agent on its runtime: bonds come up, it serves, it ends.

use std::{io, sync::Arc, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, LinkEventSource,
        bond::{engine_handle::EngineHandle, link_mail::LinkFeed},
        lifecycle::{
            add::Adoption,
            end::{Ending, undo},
            returned::restore_returned,
        },
        run::collect_dead,
        server::{control::Socket, metrics::BoundMetrics},
    },
    config::{BondConfig, Config},
    report::{
        log,
        wording::{self, ORPHANED},
    },
    sys::{
        ThreadRuntime,
        netlink::{AddressEvents, LinkEvents},
        notify, signals,
    },
};

/// What an agent begins with.
pub struct Start {
    pub config: Config,
    pub link_events: LinkEventSource,
    /// The control socket, to which nothing can connect yet.
    pub socket: Socket,
    pub metrics: Option<BoundMetrics>,
}

/// The sources of link events and address events.
type Sources = (LinkFeed, AddressEvents);

/// Bonds that could not be brought up, and why.
type Failures = Vec<(BondConfig, AgentError)>;

fn io(what: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |source| AgentError::Io { what, source }
}

impl Agent {
    /// Brings bonds up, serves until the end, and ends. What fails before the control socket is open is undone.
    pub(in crate::agent) async fn live(self: Arc<Self>, start: Start) -> Result<(), AgentError> {
        let Start { config, link_events, socket, metrics } = start;
        let is_ending = signals::is_end_waiting();
        let mut signals = Signals::listen().map_err(io("cannot listen to signals"))?;
        let began = if is_ending {
            Err(AgentError::Interrupted)
        } else {
            self.open_and_bring_up(config, link_events, &mut signals).await
        };
        let sources = match began {
            Ok(sources) => sources,
            Err(error) => {
                socket.remove();
                self.end(Ending::Undo).await?;
                return Err(error);
            }
        };
        if let Err(error) = self.serve(socket) {
            self.end(Ending::Undo).await?;
            return Err(error);
        }
        self.start_tasks(sources, metrics);
        self.say_ready().await?;
        notify::ready();
        self.say_status().await;
        collect_dead(self.machine.cookie);
        self.feed_watchdog();
        self.begin_trial().await;
        let ending = self.follow_signals(&mut signals).await;
        notify::stopping();
        self.machine.confirmation.end();
        // No request comes any more; those that have begun are completed.
        if let Some(serving) = self.serving().take() {
            serving.task.abort();
        }
        self.end(ending).await?;
        match ending {
            Ending::NotConfirmed { seconds } => Err(AgentError::NotConfirmed { seconds }),
            Ending::AsConfigured | Ending::Undo => Ok(()),
        }
    }

    /// Opens the sources of events, and brings the bonds up.
    ///
    /// # Errors
    /// A source cannot be opened, or the agent may not serve its bonds: bonds that are up are to be undone.
    async fn open_and_bring_up(
        &self,
        config: Config,
        link_events: LinkEventSource,
        signals: &mut Signals,
    ) -> Result<Option<Sources>, AgentError> {
        config.notes.iter().for_each(|note| info!("{note}"));
        let sources = match link_events {
            // Before bonds are created, whose addresses they report.
            LinkEventSource::Netlink => {
                Some((listen_to_links(self.machine.engine.clone())?, AddressEvents::open()?))
            }
            LinkEventSource::Off => None,
        };
        for bond in &config.bonds {
            if let Err(error @ AgentError::NotOnTrial { .. }) = self.check_trial(&bond.name) {
                return Err(error);
            }
        }
        {
            let _one_at_a_time = self.machine.enslaving.lock().await;
            restore_returned(&self.machine).await;
        }
        self.settle_takeovers().await;
        let failures = self.bring_up(config.bonds, async || signals.end().await).await?;
        self.keep_in_mind(failures).await?;
        for name in self.orphaned() {
            log::of(&name).warn(ORPHANED);
        }
        Ok(sources)
    }

    /// Adopts or creates the bonds, until `end` becomes ready. Returns those of files that could not be brought up.
    ///
    /// # Errors
    /// It was ended, or a bond that was given by flags could not be brought up.
    pub(in crate::agent) async fn bring_up(
        &self,
        bonds: Vec<BondConfig>,
        mut end: impl AsyncFnMut(),
    ) -> Result<Failures, AgentError> {
        let mut failures = Vec::new();
        for bond in bonds {
            let (name, wanted) = (bond.name.clone(), bond.clone());
            let (id, missing) = (self.new_id(), self.missing_slaves());
            // A bond that runs already is adopted as a whole; a signal that arrives during that is handled after it.
            let answer = match self.adopt(id, &bond, missing).await {
                Ok(Adoption::Done) => Ok(()),
                Ok(Adoption::NothingLeft) => tokio::select! {
                    biased;
                    () = end() => Err(AgentError::Interrupted),
                    answer = self.make(id, bond, missing) => answer,
                },
                Err(error) => Err(error),
            };
            if let Err(error) = answer {
                undo(&self.machine, id, &name, &error).await;
                if self.source.is_none() || matches!(error, AgentError::Interrupted) {
                    return Err(error);
                }
                failures.push((wanted, error));
            } else if let Some(bond) = self.find(&name) {
                bond.change_goal(|goal| goal.of_files = self.source.is_some());
            }
        }
        Ok(failures)
    }

    /// Keeps the bonds of files in mind that could not be brought up: bonds of files are independent of each other.
    ///
    /// # Errors
    /// No bond is up, so there is nothing to serve, as with flags. A bond whose trial is over does not count.
    pub(in crate::agent) async fn keep_in_mind(&self, failures: Failures) -> Result<(), AgentError> {
        let is_over = |(_, error): &(_, AgentError)| matches!(error, AgentError::TrialOver { .. });
        let is_refused = self.bonds().is_empty() && !failures.iter().any(is_over);
        for (bond, error) in failures {
            if let AgentError::TrialOver { seconds, .. } = error {
                warn!("{error}");
                self.remember_unconfirmed(bond, true, seconds).await;
            } else if is_refused {
                return Err(error);
            } else {
                self.remember_failed(bond, error.to_string()).await;
            }
        }
        Ok(())
    }

    /// Starts the tasks that serve all bonds.
    fn start_tasks(self: &Arc<Self>, sources: Option<Sources>, metrics: Option<BoundMetrics>) {
        self.accept_askers();
        if let Some(Err(error)) = metrics.map(|bound| self.serve_metrics(bound)) {
            warn!("{error}");
        }
        tokio::spawn(Arc::clone(self).retry_missing());
        tokio::spawn(Arc::clone(self).end_drains());
        if let Some((link_events, address_events)) = sources {
            tokio::spawn(Arc::clone(self).follow_links(link_events));
            tokio::spawn(Arc::clone(self).follow_addresses(address_events));
        }
        tokio::spawn(Arc::clone(self).publish_files());
        tokio::spawn(Arc::clone(self).keep_house());
        tokio::spawn(Arc::clone(self).recreate_lost());
    }

    /// Feeds systemd's watchdog as long as the engine answers, so that an agent whose engine hangs is restarted.
    fn feed_watchdog(&self) {
        let Some(interval) = notify::watchdog() else { return };
        let engine = self.machine.engine.clone();
        tokio::spawn(async move { notify::feed(interval, || engine.is_alive()).await });
    }

    /// Reloads on SIGHUP, until a signal or the end of a trial ends the agent.
    async fn follow_signals(self: &Arc<Self>, signals: &mut Signals) -> Ending {
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    // A task of its own, so that an end need not wait for it.
                    Request::Reload => {
                        let agent = Arc::clone(self);
                        tokio::spawn(async move { agent.reload().await });
                    }
                    Request::End => return Ending::AsConfigured,
                },
                trial = self.machine.confirmation.failed() => {
                    // Bonds of files are not created again by an agent that keeps running.
                    if self.machine.confirmation.is_own() || self.source.is_none() {
                        return Ending::NotConfirmed { seconds: trial.seconds() };
                    }
                    self.undo_trial(&trial).await;
                }
            }
        }
    }
}

/// SIGINT and SIGTERM: the end that on_exit decides about. SIGHUP: files are read again.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

#[derive(PartialEq, Eq)]
enum Request {
    End,
    Reload,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let listening = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // Those that came since the start were held back.
        signals::release()?;
        Ok(listening)
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::End,
            _ = self.terminate.recv() => Request::End,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}

/// Starts the thread that hands link events to the engine as they come. What it returns has them, too, for what is not
/// as urgent.
fn listen_to_links(engine: EngineHandle) -> Result<LinkFeed, AgentError> {
    let feed = LinkFeed::default();
    let runtime = ThreadRuntime::new().map_err(io("cannot start the link events' runtime"))?;
    let mut events = runtime.inside(LinkEvents::open)?;
    let listen = {
        let feed = feed.clone();
        async move {
            loop {
                match events.next().await {
                    Ok(event) => {
                        engine.device(event.clone());
                        feed.put(event);
                    }
                    Err(error) => {
                        warn!("{}", wording::no_link_events(&error));
                        return;
                    }
                }
            }
        }
    };
    thread::Builder::new()
        .name("link-events".into())
        .spawn(move || runtime.block_on(listen))
        .map_err(io("cannot start a thread"))?;
    Ok(feed)
}
