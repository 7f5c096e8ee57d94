//! The control socket: HTTP with JSON on a Unix socket. Its peers are known by SO_PEERCRED.

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net},
    },
    path::Path as FilePath,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{self, Body, HttpBody as _},
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State},
    http::{Method, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bond_core::name::{BondName, InterfaceName, NameError};
use futures_util::StreamExt as _;
use nix::{
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    unistd::chown,
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentError, MissingSlaves, Outcome,
        kind::Kind,
        server::{
            access::{Access, Peer},
            connections::{self, ASKING, Connection},
            query::Scope,
            settle::{self, DEFAULT_WAIT, Deadline},
        },
    },
    config::toml,
    report::{json::Report, pending, receipt::Log},
    store::paths::SOCKET,
    sys::directory::Directory,
};

/// Bytes. A request's body is a few settings, or a file.
const LARGEST_BODY: usize = 64 * 1024;
/// The body of every answer that is not a success.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence: what failed, on what, and what to do. A line each, if several things failed.
    pub error: String,
    /// What was done nevertheless, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// The answer to a change.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// What the driver would have done without a word.
    pub notes: Vec<String>,
    /// What was done, a line each, where the request does not say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What of it is not done yet, a sentence each; the status is 202 then. The agent continues with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
}

/// When the answer to a change is due: after the seconds of `?wait=SECONDS`, done or not.
impl<S: Send + Sync> FromRequestParts<S> for Deadline {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let wait = match parts.uri.query() {
            None => Some(DEFAULT_WAIT),
            Some(query) => query.strip_prefix("wait=").and_then(settle::wait),
        };
        wait.map(Self::after).ok_or_else(|| {
            let limit = settle::LONGEST_WAIT.as_secs();
            let error = format!("a change takes the query wait=SECONDS, from 0 to {limit}, and no other");
            failure(StatusCode::UNPROCESSABLE_ENTITY, &error)
        })
    }
}

/// A change of options: keys and values as `xbond set` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionChange {
    pub set: Vec<(String, String)>,
}

/// Bonds that are to be made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBonds {
    /// As in a file.
    pub toml: String,
    #[serde(default)]
    pub missing_slaves: MissingSlaves,
}

/// An interface that is to be enslaved, with options as `xbond set --slave` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSlave {
    pub name: InterfaceName,
    #[serde(default)]
    pub options: Vec<(String, String)>,
}

/// A socket that has its name and mode, but nobody can connect to it yet.
pub struct Socket {
    socket: net::UnixListener,
    directory: Directory,
}

/// Its name until it can be connected to.
const PREPARED: &str = "xbond.sock.new";

impl Socket {
    /// Mode 0660 and of the readers' group, if there is one; else of root alone. To give a file to a group that
    /// one is not in takes CAP_CHOWN: this comes before capabilities are given up.
    pub fn prepare(directory: Directory, access: &Access) -> io::Result<Self> {
        directory.remove_file(PREPARED)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let prepared = directory.path_of(PREPARED);
        bind(socket.as_raw_fd(), &UnixAddr::new(&prepared)?)?;
        // First the mode, which takes something away from others, then who has the rest of it.
        fs::set_permissions(&prepared, fs::Permissions::from_mode(0o600))?;
        if let Some(readers) = access.readers() {
            chown(&prepared, None, Some(readers))?;
            fs::set_permissions(&prepared, fs::Permissions::from_mode(0o660))?;
        }
        Ok(Self { socket: socket.into(), directory })
    }

    /// From now on it can be connected to, in place of one that a dead agent left.
    pub fn open(self) -> io::Result<UnixListener> {
        listen(&self.socket, Backlog::MAXCONN)?;
        self.directory.rename(PREPARED, SOCKET)?;
        UnixListener::from_std(self.socket)
    }

    /// Nobody will connect to it.
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
    answer(error.into())
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

/// GET /metrics and nothing else, for whoever asked for a port.
pub async fn serve_metrics(listener: TcpListener, agent: Arc<Agent>) {
    let routes = Router::new().route("/metrics", get(metrics)).layer(middleware::from_fn(heard));
    let routes = routes.with_state(agent);
    connections::serve(listener, |_, connection| Some(routes.clone().layer(Extension(connection)))).await;
}

async fn heard(Extension(connection): Extension<Connection>, request: Request, next: Next) -> Response {
    connection.has_asked();
    next.run(request).await
}

fn routes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/bonds", get(all))
        .route("/v1/bonds", post(add))
        .route("/v1/bonds/{name}", get(one))
        .route("/v1/bonds/{name}/log", get(log))
        .route("/v1/bonds/{name}/events", get(events_of_one))
        .route("/v1/events", get(events))
        .route("/metrics", get(metrics))
        .route("/v1/bonds/{name}", delete(down))
        .route("/v1/bonds/{name}/options", post(set))
        .route("/v1/bonds/{name}/slaves", post(add_slave))
        .route("/v1/bonds/{name}/slaves/{slave}", delete(del_slave))
        .route("/v1/bonds/{name}/slaves/{slave}/options", post(set_slave))
        .route("/v1/reload", post(reload))
        .route("/v1/confirm", post(confirm))
        .fallback(no_such_request)
        .method_not_allowed_fallback(no_such_request)
        .layer(middleware::map_response(with_failure))
        .layer(middleware::from_fn_with_state(Arc::clone(&agent), let_in))
        .layer(DefaultBodyLimit::disable())
        .with_state(agent)
}

/// So often is a connection read after a request for a change, before the change begins: a body takes one reading more.
const READS: usize = 4;

/// Who may not ask is told so. Of the others the whole request is read before anything is done, and a change that was
/// begun is brought to its end, whether or not the peer waits for the answer. The change of a peer that has left before is not
/// begun.
async fn let_in(
    State(agent): State<Arc<Agent>>,
    Extension(peer): Extension<Peer>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    let access = agent.access();
    let allowed = if changes { access.change(&peer) } else { access.look(&peer) };
    if let Err(denied) = allowed {
        return failure(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let request = match whole(connection, request).await {
        Ok(request) => request,
        Err(broken_off) => return broken_off,
    };
    if !changes {
        return next.run(request).await;
    }
    // hyper reads the connection again meanwhile, and drops this if the peer has left: a change that nobody waits for
    // before it begins, as one that a stopped agent finds when it continues, is not made.
    for _ in 0..READS {
        tokio::task::yield_now().await;
    }
    // The connection ends as soon as its peer leaves, and with it what it waits for itself.
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the agent failed: {error}")),
    }
}

/// Reads the whole of a request.
///
/// # Errors
/// The answer to one that broke off.
async fn whole(connection: Connection, request: Request) -> Result<Request, Response> {
    let (head, body) = request.into_parts();
    // A connection that ends leaves the beginning of a body, which is no error to whoever reads it.
    let length = body.size_hint().exact();
    let read = tokio::time::timeout(ASKING, body::to_bytes(body, LARGEST_BODY)).await;
    connection.has_asked();
    let broke_off = |why: &str| failure(StatusCode::BAD_REQUEST, &format!("the request broke off: {why}"));
    Err(match read {
        Ok(Ok(body)) if length.is_none_or(|length| length == body.len() as u64) => {
            return Ok(Request::from_parts(head, Body::from(body)));
        }
        Ok(Ok(body)) => broke_off(&format!("{} bytes of its body came", body.len())),
        Ok(Err(error)) if error.to_string().contains("length limit") => {
            let error = format!("the request is longer than the length limit of {LARGEST_BODY} bytes");
            failure(StatusCode::PAYLOAD_TOO_LARGE, &error)
        }
        Ok(Err(error)) => broke_off(&error.to_string()),
        Err(_) => {
            let error = format!("the request did not come to its end within {} seconds", ASKING.as_secs());
            failure(StatusCode::REQUEST_TIMEOUT, &error)
        }
    })
}

/// Gives a request that did not get as far as an answer of ours the form that all failures have.
async fn with_failure(response: Response) -> Response {
    let status = response.status();
    let is_ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if status.is_success() || is_ours {
        return response;
    }
    let text = body::to_bytes(response.into_body(), LARGEST_BODY).await.unwrap_or_default();
    failure(status, &String::from_utf8_lossy(&text))
}

async fn no_such_request(method: Method, uri: Uri) -> Response {
    let error = format!(
        "{method} {uri}: no such request; there are GET and POST /v1/bonds, GET and DELETE /v1/bonds/NAME, \
         POST /v1/bonds/NAME/options, POST /v1/bonds/NAME/slaves, DELETE /v1/bonds/NAME/slaves/IF, \
         POST /v1/bonds/NAME/slaves/IF/options, POST /v1/reload, POST /v1/confirm, GET /v1/events, GET /v1/bonds/NAME/events, \
         GET /v1/bonds/NAME/log, and GET /metrics"
    );
    failure(StatusCode::NOT_FOUND, &error)
}

async fn add(State(agent): State<Arc<Agent>>, until: Deadline, Json(new): Json<NewBonds>) -> Response {
    let config = match toml::parse(FilePath::new("the request"), &new.toml) {
        Ok(config) => config,
        Err(error) => return failure(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    };
    if let Some((key, origin)) = config.key_of_agent() {
        let error = format!("{origin}: {key} is for the files that an agent is started with");
        return failure(StatusCode::UNPROCESSABLE_ENTITY, &error);
    }
    let names: Vec<_> = config.bonds.iter().map(|bond| bond.name.clone()).collect();
    by(until, format!("adding {}", names.join(", ")), async move {
        let mut done = outcome(agent.add_bonds(config, new.missing_slaves).await)?;
        for name in &names {
            done.pending.extend(agent.settled(name, until).await);
        }
        Ok(done)
    })
    .await
}

async fn reload(State(agent): State<Arc<Agent>>, until: Deadline) -> Response {
    by(until, "the reload".to_owned(), async move {
        let done = outcome(agent.reload().await)?;
        Ok(Done { pending: agent.all_settled(until).await, ..done })
    })
    .await
}

async fn confirm(State(agent): State<Arc<Agent>>) -> Result<Json<Done>, Response> {
    agent.confirm().await.map_err(answer)?;
    Ok(Json(Done { changes: vec!["confirmed: it stays".to_owned()], ..Done::default() }))
}

/// Why a change failed.
struct Failed(StatusCode, Failure);

impl From<AgentError> for Failed {
    fn from(error: AgentError) -> Self {
        Self(status_of(error.kind()), Failure { error: error.to_string(), changes: Vec::new() })
    }
}

fn outcome(outcome: Outcome) -> Result<Done, Failed> {
    let Outcome { changes, failures, notes, kind, .. } = outcome;
    if failures.is_empty() {
        return Ok(Done { notes, changes, ..Done::default() });
    }
    let failure = Failure { error: failures.join("\n"), changes };
    Err(Failed(status_of(kind.unwrap_or(Kind::Refused)), failure))
}

/// The answer to a change: when it is done, or at the deadline that it is not done yet. Then it continues.
async fn by(
    until: Deadline,
    what: String,
    change: impl Future<Output = Result<Done, Failed>> + Send + 'static,
) -> Response {
    let mut change = tokio::spawn(change);
    // Of its own accord it says at the deadline what is pending: that has a moment more.
    let latest = until.instant() + Duration::from_millis(100);
    let done = match tokio::time::timeout_at(latest, &mut change).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the agent failed: {error}"));
        }
        Err(_) => {
            let pending = vec![pending::change(&what)];
            tokio::spawn(async move {
                match change.await {
                    Ok(Ok(_)) => info!("{what} is finished"),
                    Ok(Err(Failed(_, failure))) => warn!("{what} failed: {}", failure.error),
                    Err(error) => warn!("{what} failed: {error}"),
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
        Err(Failed(status, failure)) => (status, Json(failure)).into_response(),
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
    tell(&agent, &connection, None).await
}

async fn events_of_one(
    State(agent): State<Arc<Agent>>,
    Extension(connection): Extension<Connection>,
    OfBond(name): OfBond,
) -> Result<Response, Response> {
    tell(&agent, &connection, Some(name)).await
}

/// NDJSON, for as long as the reader wants it and keeps up.
async fn tell(agent: &Agent, to: &Connection, only: Option<BondName>) -> Result<Response, Response> {
    let Some(place) = to.stream() else {
        let error = "the agent serves no further event streams; try again later";
        return Err(failure(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    let (listener, first) = agent.listen(only.as_ref()).await.map_err(answer)?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let lines = listener.lines(first, only.map(String::from)).inspect(move |_| {
        // Held as long as it goes on.
        let _ = &place;
    });
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn metrics(State(agent): State<Arc<Agent>>) -> Result<Response, Response> {
    agent.metrics().await.map_err(answer)
}

async fn set(
    State(agent): State<Arc<Agent>>,
    OfBond(name): OfBond,
    until: Deadline,
    Json(change): Json<OptionChange>,
) -> Response {
    by(until, format!("{name}: the change of options"), async move {
        let notes = agent.set(&name, &change.set).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn down(State(agent): State<Arc<Agent>>, OfBond(name): OfBond, until: Deadline) -> Response {
    by(until, format!("taking {name} down"), async move {
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
    by(until, format!("{name}: enslaving {}", slave.name), async move {
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
    by(until, format!("{name}: releasing {slave}"), async move {
        agent.del_slave(&name, &slave).await?;
        Ok(Done { pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

async fn set_slave(
    State(agent): State<Arc<Agent>>,
    OfSlave(name, slave): OfSlave,
    until: Deadline,
    Json(change): Json<OptionChange>,
) -> Response {
    by(until, format!("{name}: {slave}: the change of options"), async move {
        let notes = agent.set_slave(&name, &slave, &change.set).await?;
        Ok(Done { notes, pending: agent.settled(&name, until).await, ..Done::default() })
    })
    .await
}

pub(in crate::agent) fn answer(error: AgentError) -> Response {
    failure(status_of(error.kind()), &error.to_string())
}

fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(Failure { error: error.to_owned(), changes: Vec::new() })).into_response()
}
