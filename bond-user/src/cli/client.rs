//! The client of the control socket.

use std::{
    io,
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::{NOT_YET, WaitArgs, output};
use crate::{
    api::{Call, Done, Failure},
    report::{pending, wording},
    store::paths::{LivingAgent, Paths, pid_in_words},
    sys::netns,
};

/// Sends one request to the agent of this network namespace.
///
/// # Errors
/// There is no agent, it does not answer in time, or it refuses the request.
pub fn request<T: DeserializeOwned>(call: &Call, body: Option<serde_json::Value>) -> Result<T> {
    request_in(&Paths::of(netns::cookie()?), call, body)
}

/// Sends one query to the agent of this network namespace.
///
/// # Errors
/// There is no agent, it does not answer in time, or it refuses the query.
pub async fn query<T: DeserializeOwned>(call: &Call) -> Result<T> {
    send(&Paths::of(netns::cookie()?), call, None).await
}

/// Sends one request to the agent of a network namespace.
///
/// # Errors
/// There is no agent, it does not answer in time, or it refuses the request.
pub fn request_in<T: DeserializeOwned>(
    paths: &Paths,
    call: &Call,
    body: Option<serde_json::Value>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(send(paths, call, body))
}

/// Requests a change; returns its answer when it is done, or after `wait`.
///
/// # Errors
/// There is no agent, it refuses the change, or the change fails. With `wait`, no answer in time is no error.
pub fn change(call: Call, body: Option<serde_json::Value>, wait: &WaitArgs) -> Result<Done> {
    let Some(limit) = wait.wait else { return request(&call, body) };
    let call = call.within(limit);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = Paths::of(netns::cookie()?);
    runtime.block_on(async {
        match timeout(limit + LATE_ANSWER, send(&paths, &call, body)).await {
            Ok(done) => done,
            Err(_) => Ok(Done { pending: vec![pending::no_answer(limit)], ..Done::default() }),
        }
    })
}

/// Prints the notes about a change, and the steps that are not done yet.
pub fn finish(done: &Done) -> ExitCode {
    done.notes.iter().for_each(output::note);
    for pending in &done.pending {
        output::note(wording::not_yet(pending));
    }
    if done.pending.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_YET) }
}

/// An agent lives and gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("the agent{} does not answer; is it stopped, or traced?", pid_in_words(*.pid))]
    Silent { pid: Option<u32> },
    #[error("an agent is starting{}, or ending; try again in a moment", pid_in_words(*.pid))]
    Absent { pid: Option<u32> },
}

impl NoAnswer {
    fn silent(paths: &Paths) -> Self {
        Self::Silent { pid: paths.living_agent().and_then(|agent| agent.pid) }
    }

    /// Returns the fact without advice, for an answer that is read without the agent.
    pub fn fact(&self) -> String {
        match self {
            Self::Silent { pid } => wording::agent_silent(pid_in_words(*pid)),
            Self::Absent { pid } => wording::agent_absent(pid_in_words(*pid)),
        }
    }
}

/// No agent runs.
#[derive(Debug, thiserror::Error)]
#[error("no agent runs in this network namespace; start one with `xbond run`")]
pub struct NoAgent;

/// The agent ended before its answer was complete.
#[derive(Debug, thiserror::Error)]
#[error("the agent did not answer: {0}")]
pub struct BrokenOff(hyper::Error);

/// How long a query may wait for its answer. No query waits for RTNL.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// After this time without an answer a change notes that it still waits.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);

/// How much later than its deadline the agent's answer to a change may arrive, before the client stops waiting.
const LATE_ANSWER: Duration = Duration::from_secs(1);

async fn send<T: DeserializeOwned>(paths: &Paths, call: &Call, body: Option<serde_json::Value>) -> Result<T> {
    let (status, bytes) = if call.is_query() {
        let answer = timeout(ANSWER_WITHIN, async {
            match exchange(paths, call, None).await {
                // The agent was killed at this moment. Only queries are repeated.
                Err(error) if error.is::<BrokenOff>() => exchange(paths, call, None).await,
                answer => answer,
            }
        });
        answer.await.map_err(|_| NoAnswer::silent(paths))??
    } else {
        let mut change = pin!(exchange(paths, call, body));
        // A change may take long; a stopped agent does not begin one whose client has disconnected.
        match timeout(CHANGE_WITHIN, &mut change).await {
            Ok(answer) => answer?,
            Err(_) => {
                let seconds = CHANGE_WITHIN.as_secs();
                output::note(format_args!(
                    "the agent has not answered for {seconds} s; is it stopped, or traced? Still waiting; Ctrl-C withdraws a \
                     change that has not begun"
                ));
                change.await?
            }
        }
    };
    if status.is_success() {
        return serde_json::from_slice(&bytes).context(wording::other_version());
    }
    Err(failure(status, &bytes))
}

async fn exchange(
    paths: &Paths,
    call: &Call,
    body: Option<serde_json::Value>,
) -> Result<(StatusCode, Bytes)> {
    let response = ask(paths, call, body).await?;
    Ok((response.status(), whole(response).await?))
}

/// Returns the lines of an answer without an end.
///
/// # Errors
/// There is no agent, it does not answer in time, or it refuses the request.
pub async fn lines(call: &Call) -> Result<AnswerLines> {
    let paths = Paths::of(netns::cookie()?);
    let response = timeout(ANSWER_WITHIN, ask(&paths, call, None)).await;
    let response = response.map_err(|_| NoAnswer::silent(&paths))??;
    let status = response.status();
    if status.is_success() {
        return Ok(AnswerLines { body: response.into_body(), read: Vec::new() });
    }
    Err(failure(status, &whole(response).await?))
}

pub struct AnswerLines {
    body: Incoming,
    read: Vec<u8>,
}

impl AnswerLines {
    /// Returns the next line, without its end. Returns `None` at the end of the answer, whatever ended it; an
    /// incomplete line is dropped.
    ///
    /// # Errors
    /// None at present: an answer that breaks off has ended.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.pop();
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend(frame.data_ref().into_iter().flatten()),
                // An agent that ends does not complete its answer.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

async fn ask(paths: &Paths, call: &Call, body: Option<serde_json::Value>) -> Result<Response<Incoming>> {
    let socket = paths.socket();
    let stream = match connect(paths).await {
        Ok(stream) => stream,
        Err(error) if is_absent(&error) && !call.is_query() => await_socket(paths).await?,
        Err(error) => match error.kind() {
            _ if is_absent(&error) => match paths.living_agent() {
                Some(LivingAgent { pid }) => bail!(NoAnswer::Absent { pid }),
                None => bail!(NoAgent),
            },
            // The queue of its socket is full of clients that it did not accept.
            io::ErrorKind::WouldBlock => bail!(NoAnswer::silent(paths)),
            io::ErrorKind::PermissionDenied => bail!(wording::socket_denied(socket.display())),
            _ => bail!(wording::agent_unreachable(socket.display(), &error)),
        },
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(BrokenOff)?;
    tokio::spawn(connection);
    let body = body.map(|value| value.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(call.method.clone())
        .uri(&call.path)
        .header("host", "xbond")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await;
    Ok(response.map_err(BrokenOff)?)
}

async fn connect(paths: &Paths) -> io::Result<UnixStream> {
    UnixStream::connect(paths.open_socket()?.path()).await
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// A change is for the agent that lives, even if another process has just removed its socket: the agent creates it again.
async fn await_socket(paths: &Paths) -> Result<UnixStream> {
    const LIMIT: Duration = Duration::from_secs(3);
    const PAUSE: Duration = Duration::from_millis(50);
    let until = Instant::now() + LIMIT;
    loop {
        let Some(agent) = paths.hidden_agent() else { bail!(NoAgent) };
        if Instant::now() >= until {
            bail!(agent);
        }
        tokio::time::sleep(PAUSE).await;
        if let Ok(stream) = connect(paths).await {
            return Ok(stream);
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(BrokenOff)?.to_bytes())
}

fn failure(status: StatusCode, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => {
            output::print_lines(&failure.changes);
            anyhow!("{}", failure.error)
        }
        Err(_) => anyhow!(wording::answered_with(status)),
    }
}
