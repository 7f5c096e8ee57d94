//! The control socket: HTTP with JSON on a Unix socket. Its peers are known by SO_PEERCRED.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net},
    },
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use axum::{
    Extension, Json, Router,
    body::{self, Body, HttpBody as _},
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use futures_util::StreamExt as _;
use nix::{
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    unistd::chown,
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    agent::{
        Agent, AgentError, MissingSlaves, Outcome,
        server::{
            access::{Access, Peer},
            connections::{self, ASKING, Connection},
            query::Scope,
        },
    },
    config::toml,
    report::{json::Report, receipt::Log},
    sys::SysError,
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
}

/// A change of options: keys and values as `xbond set` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
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
    pub name: String,
    #[serde(default)]
    pub options: Vec<(String, String)>,
}

/// A socket that has its name and mode, but nobody can connect to it yet.
pub struct Socket {
    socket: net::UnixListener,
    prepared: PathBuf,
}

impl Socket {
    /// Mode 0660 and of the readers' group, if there is one; else of root alone. To give a file to a group that
    /// one is not in takes CAP_CHOWN: this comes before capabilities are given up.
    pub fn prepare(path: &FilePath, access: &Access) -> io::Result<Self> {
        let prepared = path.with_extension("sock.new");
        match fs::remove_file(&prepared) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(&prepared)?)?;
        // First the mode, which takes something away from others, then who has the rest of it.
        fs::set_permissions(&prepared, fs::Permissions::from_mode(0o600))?;
        if let Some(readers) = access.readers() {
            chown(&prepared, None, Some(readers))?;
            fs::set_permissions(&prepared, fs::Permissions::from_mode(0o660))?;
        }
        Ok(Self { socket: socket.into(), prepared })
    }

    /// From now on it can be connected to, in place of one that a dead agent left.
    pub fn open(self, path: &FilePath) -> io::Result<UnixListener> {
        listen(&self.socket, Backlog::MAXCONN)?;
        fs::rename(&self.prepared, path)?;
        UnixListener::from_std(self.socket)
    }

    /// Nobody will connect to it.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.prepared);
    }
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

/// Who may not ask is told so. Of the others the whole request is read before anything is done, and a change that was
/// begun is brought to its end, whether or not anybody waits for the answer. Who leaves at once may not have been heard.
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
    let answer = answer_when_read(connection, request, next);
    if !changes {
        return answer.await;
    }
    // The connection ends as soon as its peer leaves, and with it what it waits for itself.
    match tokio::spawn(answer).await {
        Ok(response) => response,
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the agent failed: {error}")),
    }
}

async fn answer_when_read(connection: Connection, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // A connection that ends leaves the beginning of a body, which is no error to whoever reads it.
    let length = body.size_hint().exact();
    let read = tokio::time::timeout(ASKING, body::to_bytes(body, LARGEST_BODY)).await;
    connection.has_asked();
    let broke_off = |why: &str| failure(StatusCode::BAD_REQUEST, &format!("the request broke off: {why}"));
    match read {
        Ok(Ok(body)) if length.is_none_or(|length| length == body.len() as u64) => {
            next.run(Request::from_parts(head, Body::from(body))).await
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
    }
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
         POST /v1/bonds/NAME/slaves/IF/options, POST /v1/reload, GET /v1/events, GET /v1/bonds/NAME/events, \
         GET /v1/bonds/NAME/log, and GET /metrics"
    );
    failure(StatusCode::NOT_FOUND, &error)
}

async fn add(State(agent): State<Arc<Agent>>, Json(new): Json<NewBonds>) -> Response {
    match toml::parse(FilePath::new("the request"), &new.toml) {
        Ok(config) => match config.key_of_agent() {
            Some((key, origin)) => {
                let error = format!("{origin}: {key} is for the files that an agent is started with");
                failure(StatusCode::UNPROCESSABLE_ENTITY, &error)
            }
            None => outcome(agent.add_bonds(config, new.missing_slaves).await),
        },
        Err(error) => failure(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

async fn reload(State(agent): State<Arc<Agent>>) -> Response {
    outcome(agent.reload().await)
}

async fn confirm(State(agent): State<Arc<Agent>>) -> Result<Json<Done>, Response> {
    agent.confirm().map_err(answer)?;
    Ok(Json(Done { changes: vec!["confirmed: it stays".to_owned()], ..Done::default() }))
}

fn outcome(outcome: Outcome) -> Response {
    let Outcome { changes, failures, notes, .. } = outcome;
    if failures.is_empty() {
        return Json(Done { notes, changes }).into_response();
    }
    let failure = Failure { error: failures.join("\n"), changes };
    (StatusCode::UNPROCESSABLE_ENTITY, Json(failure)).into_response()
}

async fn all(State(agent): State<Arc<Agent>>) -> Result<Json<Report>, Response> {
    agent.report(None, Scope::All).await.map(Json).map_err(answer)
}

async fn one(State(agent): State<Arc<Agent>>, Path(name): Path<String>) -> Result<Json<Report>, Response> {
    agent.report(Some(&name), Scope::All).await.map(Json).map_err(answer)
}

async fn log(State(agent): State<Arc<Agent>>, Path(name): Path<String>) -> Result<Json<Log>, Response> {
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
    Path(name): Path<String>,
) -> Result<Response, Response> {
    tell(&agent, &connection, Some(name)).await
}

/// NDJSON, for as long as the reader wants it and keeps up.
async fn tell(agent: &Agent, to: &Connection, only: Option<String>) -> Result<Response, Response> {
    let Some(place) = to.stream() else {
        let error = "as many listen to events as the agent tells them at once; ask again";
        return Err(failure(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    let (listener, first) = agent.listen(only.as_deref()).await.map_err(answer)?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let lines = listener.lines(first, only).inspect(move |_| {
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
    Path(name): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<Done>, Response> {
    agent.set(&name, &change.set).await.map(noted).map_err(answer)
}

async fn down(State(agent): State<Arc<Agent>>, Path(name): Path<String>) -> Result<Json<Done>, Response> {
    agent.down(&name).await.map(done).map_err(answer)
}

async fn add_slave(
    State(agent): State<Arc<Agent>>,
    Path(name): Path<String>,
    Json(slave): Json<NewSlave>,
) -> Result<Json<Done>, Response> {
    agent.add_slave(&name, &slave.name, &slave.options).await.map(done).map_err(answer)
}

async fn del_slave(
    State(agent): State<Arc<Agent>>,
    Path((name, slave)): Path<(String, String)>,
) -> Result<Json<Done>, Response> {
    agent.del_slave(&name, &slave).await.map(done).map_err(answer)
}

async fn set_slave(
    State(agent): State<Arc<Agent>>,
    Path((name, slave)): Path<(String, String)>,
    Json(change): Json<Change>,
) -> Result<Json<Done>, Response> {
    agent.set_slave(&name, &slave, &change.set).await.map(noted).map_err(answer)
}

fn done((): ()) -> Json<Done> {
    Json(Done::default())
}

fn noted(notes: Vec<String>) -> Json<Done> {
    Json(Done { notes, ..Done::default() })
}

pub(in crate::agent) fn answer(error: AgentError) -> Response {
    let status = match error {
        AgentError::NoSuchBond(_) | AgentError::Unserved(_) | AgentError::Lost(_) => StatusCode::NOT_FOUND,
        AgentError::Option(_)
        | AgentError::Refused(_)
        | AgentError::NothingToConfirm
        | AgentError::ConfirmedTooLate { .. }
        | AgentError::NoSuchSlave { .. }
        | AgentError::BadName { .. }
        | AgentError::NoSuchQueue { .. }
        | AgentError::Sys(SysError::Refused(_) | SysError::NoSuchInterface(_)) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failure(status, &error.to_string())
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(Failure { error: error.to_owned(), changes: Vec::new() })).into_response()
}
