//! `ping` in a namespace.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::netns::NetNs;

/// What `ping` counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingReport {
    pub sent: u32,
    pub received: u32,
}

impl NetNs {
    /// Sends `count` echo requests, 10 ms apart, and waits up to a second for the last answer.
    ///
    /// # Errors
    /// `ping` cannot be run, or prints no summary. A lost answer is no error.
    pub fn ping(&self, target: IpAddr, count: u32) -> Result<PingReport> {
        self.ping_with(&["-i", "0.01", "-W", "1"], target, count)
    }

    /// Runs `ping -f`: sends each request as soon as the one before is answered, or after 10 ms.
    ///
    /// # Errors
    /// As for [`Self::ping`].
    pub fn ping_flood(&self, target: IpAddr, count: u32) -> Result<PingReport> {
        self.ping_with(&["-f"], target, count)
    }

    /// Runs `ping OPTIONS -c COUNT TARGET`.
    ///
    /// # Errors
    /// As for [`Self::ping`].
    pub fn ping_with(&self, options: &[&str], target: IpAddr, count: u32) -> Result<PingReport> {
        let count = count.to_string();
        let mut command = self.command("ping");
        command.args(["-n", "-q", "-c", &count]).args(options).arg(target.to_string());
        // ping exits with 1 if no answer came, which is a result.
        let output = command.output().context("cannot run ping; `cargo xtask setup` installs it")?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).with_context(|| {
            format!("`ping {target}` in {}: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim())
        })
    }
}

/// Parses the line `3 packets transmitted, 2 received, 33% packet loss, time 20ms`.
fn parse(text: &str) -> Option<PingReport> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let number_before = |word: &str| {
        let part = line.split(", ").find(|part| part.contains(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some(PingReport { sent: number_before("transmitted")?, received: number_before("received")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read() {
        let table = [
            ("3 packets transmitted, 2 received, 33% packet loss, time 20ms", Some((3, 2))),
            ("2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 10ms", Some((2, 0))),
            ("ping: connect: Network is unreachable", None),
        ];
        for (line, expected) in table {
            let report = parse(&format!("PING 192.0.2.1\n\n--- statistics ---\n{line}\n"));
            assert_eq!(report, expected.map(|(sent, received)| PingReport { sent, received }), "{line}");
        }
    }
}
