//! The control socket: HTTP with JSON on a Unix socket. Its peers are known by SO_PEERCRED.

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net,
        },
    },
    path::Path as FilePath,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{self, Body, HttpBody as _},
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State},
    http::{HeaderMap, Method, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bond_core::name::{BondName, InterfaceName, NameError, printable_json, shortened};
use futures_util::StreamExt as _;
use hyper::StatusCode;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    unistd::chown,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::spawn_blocking,
};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, Outcome,
        access::{Access, Peer},
        server::{
            connections::{self, ASKING, Connection},
            query::Scope,
            settle::Deadline,
        },
    },
    api::{
        self, Done, Endpoint, ErrorKind, Failure, MOST_BONDS, MOST_OPTIONS, NewBonds, NewDrain, NewSlave,
        NewTakeover, OptionChange,
    },
    config::{Config, toml},
    report::{json::Report, pending, receipt::Log, wording},
    store::paths::SOCKET,
    sys::directory::Directory,
};

/// Bytes. A request's body is a few settings, or a file.
const LARGEST_BODY: usize = 64 * 1024;

/// When the answer to a change is due: after the seconds of `?wait=SECONDS`, done or not.
impl<S: Send + Sync> FromRequestParts<S> for Deadline {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let wait = match parts.uri.query() {
            None => Some(api::DEFAULT_WAIT),
            Some(query) => query.strip_prefix("wait=").and_then(api::parse_wait),
        };
        wait.map(Self::after).ok_or_else(|| {
            let limit = api::LONGEST_WAIT.as_secs();
            failure(ErrorKind::Refused, &wording::bad_query(limit))
        })
    }
}

/// A socket that has its name and mode, and accepts no connections yet.
pub struct Socket {
    socket: net::UnixListener,
    directory: Directory,
}

/// Its name until it can be connected to.
const PREPARED: &str = "xbond.sock.new";

impl Socket {
    /// Creates the socket under a temporary name, with mode 0660 and the readers' group if there is one, otherwise for
    /// root alone. Only CAP_CHOWN allows to give a file to a group that the process is not in, so this precedes the
    /// drop of capabilities.
    ///
    /// # Errors
    /// The directory does not take the socket, or its mode or group cannot be set.
    pub fn prepare(directory: Directory, access: &Access) -> io::Result<Self> {
        directory.remove_file(PREPARED)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let prepared = directory.path_of(PREPARED);
        let address = UnixAddr::new(&prepared)?;
        match bind(socket.as_raw_fd(), &address) {
            // The file system has no inode left; the socket of the agent that had the lock before has one.
            Err(Errno::ENOSPC | Errno::EDQUOT) => {
                directory.remove_file(SOCKET)?;
                bind(socket.as_raw_fd(), &address)?;
            }
            answer => answer?,
        }
        // First the mode, which takes something away from others, then who has the rest of it.
        fs::set_permissions(&prepared, fs::Permissions::from_mode(0o600))?;
        if let Some(readers) = access.readers() {
            // A service's group is that one already, and its filter of system calls has no chown.
            if fs::metadata(&prepared)?.gid() != readers.as_raw() {
                chown(&prepared, None, Some(readers))?;
            }
            fs::set_permissions(&prepared, fs::Permissions::from_mode(0o660))?;
        }
        Ok(Self { socket: socket.into(), directory })
    }

    /// Accepts connections from now on: the socket gets its name, in place of one that a dead agent left.
    ///
    /// # Errors
    /// The socket cannot listen or be renamed.
    pub fn open(self) -> io::Result<UnixListener> {
        listen(&self.socket, Backlog::MAXCONN)?;
        self.directory.rename(PREPARED, SOCKET)?;
        UnixListener::from_std(self.socket)
    }

    /// Removes its name: it will accept no connections.
    pub fn remove(self) {
        let _ = self.directory.remove_file(PREPARED);
    }
}

/// The bond that a request's path names.
struct OfBond(BondName);

/// The bond and the slave that a request's path names.
struct OfSlave(BondName, InterfaceName);

impl<S: Send + Sync> FromRequestParts<S> for OfBond {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let names = Names::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        checked(&names, "name").map(Self).map_err(refused)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfSlave {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let names = Names::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        let bond = checked(&names, "name").map_err(refused)?;
        checked(&names, "slave").map(|slave| Self(bond, slave)).map_err(refused)
    }
}

/// The variable parts of a path, decoded.
type Names = Path<HashMap<String, String>>;

fn checked<T: TryFrom<String, Error = NameError>>(Path(names): &Names, part: &str) -> Result<T, NameError> {
    T::try_from(names.get(part).cloned().unwrap_or_default())
}

fn refused(error: NameError) -> Response {
    answer(AgentError::from(error))
}

/// Serves until the agent ends.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>) {
    let routes = routes(agent);
    connections::serve(listener, |stream, connection| {
        let peer = Peer::of(stream).ok()?;
        Some(routes.clone().layer(Extension(connection)).layer(Extension(peer)))
    })
    .await;
}

/// GET /metrics and nothing else, at the TCP address of the configuration.
pub async fn serve_metrics(listener: TcpListener, agent: Arc<Agent>) {
    let routes =
        Router::new().route(Endpoint::Metrics.template(), get(metrics)).layer(middleware::from_fn(heard));
    let routes = routes.with_state(agent);
    connections::serve(listener, |_, connection| Some(routes.clone().layer(Extension(connection)))).await;
}

async fn heard(Extension(connection): Extension<Connection>, request: Request, next: Next) -> Response {
    connection.has_asked();
    next.run(request).await
}

fn routes(agent: Arc<Agent>) -> Router {
    let router = Endpoint::ALL.into_iter().fold(Router::new(), |router, route| {
        let handler = match route {
            Endpoint::Bonds => get(all),
            Endpoint::AddBonds => post(add),
            Endpoint::Bond => get(one),
            Endpoint::DownBond => delete(down),
            Endpoint::Log => get(log),
            Endpoint::BondEvents => get(events_of_one),
            Endpoint::Events => get(events),
            Endpoint::Metrics => get(metrics),
            Endpoint::SetBond => post(set),
            Endpoint::AddSlave => post(add_slave),
            Endpoint::DelSlave => delete(del_slave),
            Endpoint::SetSlave => post(set_slave),
            Endpoint::Drain => post(drain),
            Endpoint::Undrain => delete(undrain),
            Endpoint::Reload => post(reload),
            Endpoint::Confirm => post(confirm),
            Endpoint::TakeOver => post(take_over),
            Endpoint::UndoTakeover => delete(undo_takeover),
            Endpoint::GiveBack => post(give_back),
        };
        router.route(route.template(), handler)
    });
    router
        .fallback(no_such_request)
        .method_not_allowed_fallback(no_such_request)
        .layer(middleware::map_response(with_failure))
        .layer(middleware::from_fn_with_state(Arc::clone(&agent), let_in))
        .layer(DefaultBodyLimit::disable())
        .with_state(agent)
}

/// Refuses a peer without permission, and reads the whole request before anything is done. A change that has begun is
/// completed, whether or not the peer waits for the answer. The change of a peer that has left before is not begun.
async fn let_in(
    State(agent): State<Arc<Agent>>,
    Extension(peer): Extension<Peer>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    let access = agent.access();
    let allowed = if changes { access.change(&peer) } else { access.read(&peer) };
    if let Err(denied) = allowed {
        return failure(ErrorKind::Denied, &denied.to_string());
    }
    let peer_watch = connection.clone();
    let request = match whole(connection, request).await {
        Ok(request) => request,
        Err(broken_off) => return broken_off,
    };
    if !changes {
        return next.run(request).await;
    }
    // An agent that was stopped finds such requests when it continues.
    if peer_watch.peer_has_left() {
        return failure(ErrorKind::Malformed, &wording::client_left());
    }
    // hyper drops what a connection waits for as soon as its peer leaves.
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => failure(ErrorKind::Internal, &wording::agent_failed(error)),
    }
}

/// Reads the whole of a request.
///
/// # Errors
/// The answer to one that broke off.
async fn whole(connection: Connection, request: Request) -> Result<Request, Response> {
    let (head, body) = request.into_parts();
    // A connection that ends leaves the beginning of a body, which is no error to its reader.
    let length = body.size_hint().exact();
    let read = tokio::time::timeout(ASKING, body::to_bytes(body, LARGEST_BODY)).await;
    connection.has_asked();
    let broke_off = |why: &str| failure(ErrorKind::Malformed, &wording::request_broke_off(why));
    Err(match read {
        Ok(Ok(body)) if length.is_none_or(|length| length == body.len() as u64) => {
            return Ok(Request::from_parts(head, Body::from(body)));
        }
        Ok(Ok(body)) => broke_off(&wording::body_incomplete(body.len())),
        Ok(Err(error)) if error.to_string().contains("length limit") => {
            failure(ErrorKind::TooLarge, &wording::request_too_long(LARGEST_BODY))
        }
        Ok(Err(error)) => broke_off(&error.to_string()),
        Err(_) => failure(ErrorKind::TooSlow, &wording::request_too_slow(ASKING.as_secs())),
    })
}

/// Gives a request that did not get as far as an answer of ours the form that all failures have, and JSON the form that a
/// terminal does not execute: its sentences contain text of the request, and its reports names of interfaces.
async fn with_failure(response: Response) -> Response {
    let status = response.status();
    let is_ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_ours {
        return printable(response).await;
    }
    if status.is_success() {
        return response;
    }
    let text = body::to_bytes(response.into_body(), LARGEST_BODY).await.unwrap_or_default();
    let failure = Failure::new(ErrorKind::of_status(status), String::from_utf8_lossy(&text));
    printable((status, Json(failure)).into_response()).await
}

/// Escapes what a terminal would execute, or not show, in an answer that is JSON.
async fn printable(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    // It is in memory, as a whole.
    let json = body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let json = printable_json(&String::from_utf8_lossy(&json));
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(json))
}

async fn no_such_request(method: Method, uri: Uri) -> Response {
    let routes = Endpoint::ALL.map(Endpoint::shown).join(", ");
    let (method, path) = (method.as_str(), uri.to_string());
    let error = wording::no_such_request(shortened(method), shortened(&path), routes);
    failure(ErrorKind::NotFound, &error)
}

/// Parses the bonds of a request, or returns its answer.
async fn parsed(toml: String) -> Result<Config, Response> {
    // It may take longer than other requests are to wait.
    match spawn_blocking(move || toml::parse(FilePath::new("the request"), &toml)).await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(error)) => Err(failure(ErrorKind::Refused, &error.to_string())),
        Err(error) => Err(failure(ErrorKind::Internal, &wording::agent_failed(error))),
    }
}

async fn add(State(agent): State<Arc<Agent>>, until: Deadline, Json(new): Json<NewBonds>) -> Response {
    let NewBonds { toml, missing_slaves } = new;
    let config = match parsed(toml).await {
        Ok(config) => config,
        Err(refusal) => return refusal,
    };
    if let Some(too_many) = too_many(MOST_BONDS, config.bonds.len(), "bonds") {
        return too_many;
    }
    if let Some((key, origin)) = config.key_of_agent() {
        return failure(ErrorKind::Refused, &wording::key_of_agent(origin, key));
    }
    let names: Vec<_> = config.bonds.iter().map(|bond| bond.name.clone()).collect();
    by(until, wording::adding(names.join(", ")), async move {
        let mut done = outcome(agent.add_bonds(config, missing_slaves).await)?;
        for name in &names {
            done.pending.extend(agent.settled(name, until).await);
        }
        Ok(done)
    })
    .await
}

/// Returns the answer to a request that has more of something than one request may have.
fn too_many(limit: usize, found: usize, what: &str) -> Option<Response> {
    (found > limit).then(|| failure(ErrorKind::Refused, &wording::too_many(found, what, limit)))
}

async fn reload(State(agent): State<Arc<Agent>>, until: Deadline) -> Response {
    by(until, wording::reloading(), async move {
        let done = outcome(agent.reload().await)?;
        Ok(Done { pending: agent.all_settled(until).await, ..done })
    })
    .await
}

async fn confirm(State(agent): State<Arc<Agent>>) -> Result<Json<Done>, Response> {
    let mut changes = agent.confirm_takeovers().await.map_err(answer)?;
    match agent.confirm().await {
        Ok(()) => changes.push(wording::confirmed()),
        Err(AgentError::NothingToConfirm) if !changes.is_empty() => {}
        Err(error) => return Err(answer(error)),
    }
    Ok(Json(Done { changes, ..Done::default() }))
}

async fn take_over(
    State(agent): State<Arc<Agent>>,
    OfBond(name): OfBond,
    until: Deadline,
    Json(NewTakeover { toml, confirm }): Json<NewTakeover>,
) -> Response {
    let config = match parsed(toml).await {
        Ok(config) => config,
        Err(refusal) => return refusal,
    };
    let Some(bond) = config.bonds.into_iter().find(|bond| bond.name == name) else {
        return failure(ErrorKind::Refused, &wording::takeover_other_bond(&name));
    };
    by(until, wording::taking_over(&name), async move {
        let limit = confirm.map(|seconds| Duration::from_secs(u32::from(seconds).into()));
        let changes = agent.take_over(bond, limit).await?;
        Ok(Done { changes, ..Done::default() })
    })
    .await
}

async fn give_back(State(agent): State<Arc<Agent>>, OfBond(name): OfBond, until: Deadline) -> Response {
    by(until, wording::leading_back(&name), async move {
        let changes = agent.give_back(&name).await?;
        Ok(Done { changes, ..Done::default() })
    })
    .await
}

async fn undo_takeover(State(agent): State<Arc<Agent>>, OfBond(name): OfBond, until: Deadline) -> Response {
    by(until, wording::leading_back(&name), async move {
        let changes = agent.undo_takeover(&name).await?;
        Ok(Done { changes, ..Done::default() })
    })
    .await
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

fn outcome(outcome: Outcome) -> Result<Done, Failure> {
    let Outcome { changes, failures, notes, kind, .. } = outcome;
    if failures.is_empty() {
        return Ok(Done { notes, changes, ..Done::default() });
    }
    Err(Failure { error: failures.join("\n"), kind: kind.unwrap_or_default(), changes })
}

/// The answer to a change: when it is done, or at the deadline that it is not done yet. Then it continues.
async fn by(
    until: Deadline,
    what: String,
    change: impl Future<Output = Result<Done, Failure>> + Send + 'static,
) -> Response {
    let mut change = tokio::spawn(change);
    // The change itself reports at the deadline what is pending: that has a moment more.
    let latest = until.instant() + Duration::from_millis(100);
    let done = match tokio::time::timeout_at(latest, &mut change).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            return failure(ErrorKind::Internal, &wording::agent_failed(error));
        }
        Err(_) => {
            let pending = vec![pending::change(&what)];
            tokio::spawn(async move {
                match change.await {
                    Ok(Ok(_)) => info!("{}", wording::finished(&what)),
                    Ok(Err(failure)) => warn!("{}", wording::failed(&what, &failure.error)),
                    Err(error) => warn!("{}", wording::failed(&what, &error)),
                }
            });
            Ok(Done { pending, ..Done::default() })
        }
    };
    match done {
        Ok(done) if done.pending.is_empty() => Json(done).into_response(),
        Ok(mut done) => {
            done.pending.push(pending::ADVICE.to_owned());
            (StatusCode::ACCEPTED, Json(done)).into_response()
        }
        Err(failed) => answer(failed),
    }
}

async fn all(State(agent): State<Arc<Agent>>) -> Result<Json<Report>, Response> {
    agent.report(None, Scope::All).await.map(Json).map_err(answer)
}

async fn one(State(agent): State<Arc<Agent>>, OfBond(name): OfBond) -> Result<Json<Report>, Response> {
    agent.report(Some(&name), Scope::All).await.map(Json).map_err(answer)
}

async fn log(State(agent): State<Arc<Agent>>, OfBond(name): OfBond) -> Result<Json<Log>, Response> {
    agent.log(&name).await.map(Json).map_err(answer)
}

async fn events(
    State(agent): State<Arc<Agent>>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Response> {
    stream(&agent, &connection, None).await
}

async fn events_of_one(
    State(agent): State<Arc<Agent>>,
    Extension(connection): Extension<Connection>,
    OfBond(name): OfBond,
) -> Result<Response, Response> {
    stream(&agent, &connection, Some(name)).await
}

/// NDJSON, for as long as the reader wants it and keeps up.
async fn stream(agent: &Agent, to: &Connection, only: Option<BondName>) -> Result<Response, Response> {
    let Some(place) = to.stream() else {
        return Err(failure(ErrorKind::Unavailable, &wording::no_more_streams()));
    };
    let (listener, first) = agent.listen(only.as_ref()).await.map_err(answer)?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let lines = listener.lines(first, only.map(String::from)).inspect(move |_| {
        // Held as long as the stream lasts.
        let _ = &place;
    });
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn metrics(State(agent): State<Arc<Agent>>, asked: HeaderMap) -> Result<Response, Response> {
    agent.metrics(&asked).await.map_err(answer)
}

async fn set(
    State(agent): State<Arc<Agent>>,
    OfBond(name): OfBond,
    until: Deadline,
    Json(change): Json<OptionChange>,
) -> Response {
    if let Some(too_many) = too_many(MOST_OPTIONS, change.set.len(), "options") {
        return too_many;
    }
    by(until, wording::changing_options(&name), async move {
        let notes = agent.set(&name, &change.set).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn down(State(agent): State<Arc<Agent>>, OfBond(name): OfBond, until: Deadline) -> Response {
    by(until, wording::taking_down(&name), async move {
        let notes = agent.down(&name).await?;
        Ok(Done { notes, ..Done::default() })
    })
    .await
}

async fn add_slave(
    State(agent): State<Arc<Agent>>,
    OfBond(name): OfBond,
    until: Deadline,
    Json(slave): Json<NewSlave>,
) -> Response {
    if let Some(too_many) = too_many(MOST_OPTIONS, slave.options.len(), "options") {
        return too_many;
    }
    by(until, wording::enslaving(&name, &slave.name), async move {
        let notes = agent.add_slave(&name, &slave.name, &slave.options).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn del_slave(
    State(agent): State<Arc<Agent>>,
    OfSlave(name, slave): OfSlave,
    until: Deadline,
) -> Response {
    by(until, wording::releasing(&name, &slave), async move {
        let notes = agent.del_slave(&name, &slave).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn set_slave(
    State(agent): State<Arc<Agent>>,
    OfSlave(name, slave): OfSlave,
    until: Deadline,
    Json(change): Json<OptionChange>,
) -> Response {
    if let Some(too_many) = too_many(MOST_OPTIONS, change.set.len(), "options") {
        return too_many;
    }
    by(until, wording::changing_options_of(&name, &slave), async move {
        let notes = agent.set_slave(&name, &slave, &change.set).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn drain(
    State(agent): State<Arc<Agent>>,
    OfSlave(name, slave): OfSlave,
    until: Deadline,
    Json(NewDrain { seconds, why }): Json<NewDrain>,
) -> Response {
    by(until, wording::draining(&name, &slave), async move {
        let time = seconds.map(|seconds| Duration::from_secs(u32::from(seconds).into()));
        agent.drain(&name, &slave, time, why).await?;
        Ok(Done { pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn undrain(
    State(agent): State<Arc<Agent>>,
    OfSlave(name, slave): OfSlave,
    until: Deadline,
) -> Response {
    by(until, wording::undraining(&name, &slave), async move {
        let notes = agent.undrain(&name, &slave, false).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

fn answer(failed: impl Into<Failure>) -> Response {
    let failure = failed.into();
    (failure.kind.status(), Json(failure)).into_response()
}

fn failure(kind: ErrorKind, error: &str) -> Response {
    answer(Failure::new(kind, error))
}
