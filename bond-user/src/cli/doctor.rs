//! `xbond doctor`: can this machine and its NICs do it, and what stands in the way? It changes nothing.

mod judge;
mod look;

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{DoctorArgs, output};

/// Version of the JSON.
const VERSION: u32 = 1;

/// How well it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    verdict: Verdict,
    /// An interface; none: the machine.
    interface: Option<String>,
    /// A word for it that stays the same.
    id: &'static str,
    /// What was found, and unless it is well a way out.
    text: String,
}

/// What `-j` prints.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    checks: &'a [Check],
}

/// The exit code says the worst: 0 all is well, 1 something warns, 2 something fails.
pub fn doctor(arguments: &DoctorArgs) -> Result<ExitCode> {
    let checks = look::at(&arguments.interfaces)?;
    if arguments.json {
        output::print_json(&serde_json::to_string_pretty(&Report { version: VERSION, checks: &checks })?);
    } else {
        output::print(&checks.iter().map(line).collect::<String>());
    }
    let worst = checks.iter().map(|check| check.verdict).max();
    Ok(ExitCode::from(match worst {
        None | Some(Verdict::Ok) => 0,
        Some(Verdict::Warn) => 1,
        Some(Verdict::Fail) => 2,
    }))
}

fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let of = check.interface.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
    format!("{verdict}  {of}{}: {}\n", check.id, check.text)
}
