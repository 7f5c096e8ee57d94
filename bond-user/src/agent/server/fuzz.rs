//! Fuzz target: requests to the control socket of an agent whose kernel is in memory.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::UnixListener;
use xbond_fuzz::target;

use super::control;
use crate::{
    agent::{
        Agent,
        lifecycle::testing::{Site, bond},
    },
    api::{Endpoint, MissingSlaves},
    config::Config,
    sys::fake::FakeKernel,
};

/// How long an answer may take: some wait for a change, which takes no time in memory.
const WITHIN: Duration = Duration::from_secs(20);

/// The socket of an agent with bond0, whose slave is nic0.
pub(super) struct Server {
    socket: PathBuf,
    pub kernel: FakeKernel,
    /// What the agent keeps files in.
    pub directory: TempDir,
}

impl Server {
    /// Starts an agent that serves as long as the process runs.
    pub fn start() -> Self {
        let (ready, started) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (kernel, machine, directory) = Site::new().into_parts();
                let agent = Arc::new(Agent::in_memory(machine).expect("an agent"));
                let bonds = vec![bond("slaves = [\"nic0\"]")];
                let config = Config { bonds, ..Config::default() };
                let outcome = agent.add_bonds(config, MissingSlaves::Await).await;
                assert_eq!(outcome.failures, Vec::<String>::new());
                let socket = directory.path().join("socket");
                let listener = UnixListener::bind(&socket).expect("a socket");
                ready.send(Self { socket, kernel, directory }).expect("it is awaited");
                control::serve(listener, agent).await;
            });
        });
        started.recv().expect("it starts")
    }

    /// Sends a request, and returns the status and the body of the answer; None if there is no answer. Bytes that may not be a
    /// whole request are `open`: nothing follows them. hyper drops the request of a peer that sends no more, so there may be no
    /// answer then.
    pub fn send(&self, request: &[u8], open: bool) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket).expect("it accepts");
        stream.set_read_timeout(Some(WITHIN)).expect("it has a timeout");
        // It may have answered already, or closed the connection.
        let _ = stream.write_all(request);
        if open {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in time"),
            _ => {}
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        Some((status, body.unwrap_or_default()))
    }
}

/// Returns a request with these names in the path, and this body, as it is sent.
pub(super) fn request(endpoint: Endpoint, (bond, slave): (&[u8], &[u8]), body: &[u8]) -> Vec<u8> {
    let path = endpoint.template().split_inclusive('}').flat_map(|part| {
        let (before, name) = part.split_once('{').unwrap_or((part, ""));
        let name = match name {
            "name}" => bond,
            "slave}" => slave,
            _ => b"",
        };
        [before.as_bytes(), name].concat()
    });
    let mut bytes = format!("{} ", endpoint.method()).into_bytes();
    bytes.extend(path);
    let head = format!(
        " HTTP/1.1\r\nhost: xbond\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    bytes.extend(head.as_bytes());
    bytes.extend(body);
    bytes
}

/// An input: the number of an endpoint, then the names of a bond and a slave and the body, separated by line feeds. Another
/// number: the bytes of a request. Returns the request, and whether it may not be whole.
fn parts(input: &[u8]) -> (Vec<u8>, bool) {
    let (number, rest) = input.split_first().unwrap_or((&0, b""));
    let streams = [Endpoint::Events, Endpoint::BondEvents];
    let endpoint = Endpoint::ALL.get(usize::from(*number)).filter(|found| !streams.contains(found));
    let Some(endpoint) = endpoint else { return (rest.to_vec(), true) };
    let mut parts = rest.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (bond, slave, body) = (part(), part(), part());
    // A name with a blank or a line feed makes it another request, which may wait for more.
    let is_open = [bond, slave].concat().iter().any(|byte| !byte.is_ascii_graphic());
    (request(*endpoint, (bond, slave), body), is_open)
}

#[test]
fn http_requests() {
    static SERVER: OnceLock<Server> = OnceLock::new();
    target("http_requests", |input| {
        let (request, is_open) = parts(input);
        // An answer that streams events does not end.
        if request.windows(6).any(|bytes| bytes == b"events") {
            return;
        }
        let server = SERVER.get_or_init(Server::start);
        if let Some((status, body)) = server.send(&request, is_open) {
            assert_ne!(status, 500, "{body}");
            let is_metrics = body.starts_with("# ");
            if !body.is_empty() && !is_metrics {
                assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
            }
        }
        assert!(server.kernel.link("tap0").is_some(), "an interface that no request may remove is gone");
    });
}
