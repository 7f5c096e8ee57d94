//! `xbond doctor`: checks whether this machine and its NICs can run xbond. It changes nothing.

mod judge;
mod observe;

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{DoctorArgs, output};

/// Version of the JSON output.
const VERSION: u32 = 1;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, with limitations.
    Warn,
    /// It does not work.
    Fail,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    verdict: Verdict,
    /// An interface; `None`: the machine.
    interface: Option<String>,
    /// A stable identifier.
    id: &'static str,
    /// The finding, with a remedy unless all is well.
    text: String,
}

/// The output of `-j`.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    checks: &'a [Check],
}

/// Returns an exit code for the worst result: 0 all is well, 1 warnings, 2 failures.
///
/// # Errors
/// The network namespace cannot be read, or an interface that is named does not exist. Results are no error.
pub fn doctor(arguments: &DoctorArgs) -> Result<ExitCode> {
    let checks = observe::at(&arguments.interfaces)?;
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
