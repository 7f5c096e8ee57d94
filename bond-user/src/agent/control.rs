//! The control socket: HTTP with JSON on a Unix socket. Its peers are known by SO_PEERCRED.

use std::{fs, io, os::unix::fs::PermissionsExt as _, sync::Arc};

use axum::{
    Json, Router, body,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State, connect_info::Connected},
    http::{Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
    serve::IncomingStream,
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};

use super::{Agent, AgentError, reading::Scope};
use crate::{
    report::{json::Report, metrics},
    sys::SysError,
};

/// A request's body is a few settings.
const LARGEST_BODY: usize = 64 * 1024;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence: what failed, on what, and what to do.
    pub error: String,
}

/// The answer to a change.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// What the driver would have done without a word.
    pub notes: Vec<String>,
}

/// A change of options: keys and values as `xbond set` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub set: Vec<(String, String)>,
}

/// An interface that is to be enslaved, with options as `xbond set --slave` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSlave {
    pub name: String,
    #[serde(default)]
    pub options: Vec<(String, String)>,
}

#[derive(Clone)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().map(|credentials| credentials.uid()).ok() }
    }
}

/// Binds the socket, in place of one that a dead agent left.
pub fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the agent ends.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>) -> io::Result<()> {
    let routes = Router::new()
        .route("/v1/bonds", get(all))
        .route("/v1/events", get(events))
        .route("/v1/bonds/{name}/events", get(events_of_one))
        .route("/metrics", get(metrics))
        .route("/v1/bonds/{name}", get(one))
        .route("/v1/bonds/{name}", delete(down))
        .route("/v1/bonds/{name}/options", post(set))
        .route("/v1/bonds/{name}/slaves", post(add_slave))
        .route("/v1/bonds/{name}/slaves/{slave}", delete(del_slave))
        .route("/v1/bonds/{name}/slaves/{slave}/options", post(set_slave))
        .fallback(no_such_request)
        .method_not_allowed_fallback(no_such_request)
        .layer(middleware::map_response(with_failure))
        .layer(middleware::from_fn(only_root))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(agent);
    axum::serve(listener, routes.into_make_service_with_connect_info::<Peer>()).await
}

async fn only_root(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if peer.uid == Some(0) {
        return next.run(request).await;
    }
    failure(StatusCode::FORBIDDEN, "only root may use this socket")
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
        "{method} {uri}: no such request; there are GET /v1/bonds, GET and DELETE /v1/bonds/NAME, \
         POST /v1/bonds/NAME/options, GET /v1/events, GET /v1/bonds/NAME/events, and GET /metrics"
    );
    failure(StatusCode::NOT_FOUND, &error)
}

async fn all(State(agent): State<Arc<Agent>>) -> Result<Json<Report>, Response> {
    agent.report(None, Scope::All).await.map(Json).map_err(answer)
}

async fn one(State(agent): State<Arc<Agent>>, Path(name): Path<String>) -> Result<Json<Report>, Response> {
    agent.report(Some(&name), Scope::All).await.map(Json).map_err(answer)
}

async fn events(State(agent): State<Arc<Agent>>) -> Result<Response, Response> {
    listen(&agent, None).await
}

async fn events_of_one(
    State(agent): State<Arc<Agent>>,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    listen(&agent, Some(name)).await
}

/// NDJSON, for as long as the reader wants it and keeps up.
async fn listen(agent: &Agent, only: Option<String>) -> Result<Response, Response> {
    let (listener, first) = agent.listen(only.as_deref()).await.map_err(answer)?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, body::Body::from_stream(listener.lines(first, only))).into_response())
}

/// GET /metrics and nothing else, for whoever asked for a port.
pub async fn serve_metrics(listener: TcpListener, agent: Arc<Agent>) -> io::Result<()> {
    let routes = Router::new().route("/metrics", get(metrics)).with_state(agent);
    axum::serve(listener, routes).await
}

async fn metrics(State(agent): State<Arc<Agent>>) -> Result<Response, Response> {
    let report = agent.report(None, Scope::Bonds).await.map_err(answer)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::show(report)).into_response())
}

async fn set(
    State(agent): State<Arc<Agent>>,
    Path(name): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<Done>, Response> {
    agent.set(&name, &change.set).await.map(|notes| Json(Done { notes })).map_err(answer)
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
    agent.set_slave(&name, &slave, &change.set).await.map(done).map_err(answer)
}

fn done((): ()) -> Json<Done> {
    Json(Done::default())
}

fn answer(error: AgentError) -> Response {
    let status = match error {
        AgentError::NoSuchBond(_) => StatusCode::NOT_FOUND,
        AgentError::Option(_)
        | AgentError::Refused(_)
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
    (status, Json(Failure { error: error.to_owned() })).into_response()
}
