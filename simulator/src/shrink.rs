//! The shortest list of events that still fails.

use crate::{plan::Plan, run, world::check::Violation};

/// Returns a plan that fails, too, with as few events of a plan that fails as are found, and how it fails.
///
/// # Errors
/// The simulator itself has failed.
pub fn shrink(plan: &Plan, violation: Violation) -> anyhow::Result<(Plan, Violation)> {
    let (mut best, mut how) = (plan.clone(), violation);
    let mut parts = 2;
    while best.events.len() > 1 {
        let size = best.events.len().div_ceil(parts);
        let mut has_shrunk = false;
        for part in 0..parts {
            let (from, to) = (part * size, ((part + 1) * size).min(best.events.len()));
            if from >= to {
                break;
            }
            let mut fewer = best.clone();
            fewer.events.drain(from..to);
            if let Some(violation) = run(&fewer)?.violation {
                (best, how, has_shrunk) = (fewer, violation, true);
                break;
            }
        }
        if has_shrunk {
            parts = parts.saturating_sub(1).max(2);
        } else if size == 1 {
            break;
        } else {
            parts = (2 * parts).min(best.events.len());
        }
    }
    let none = Plan { events: Vec::new(), ..best.clone() };
    match run(&none)?.violation {
        Some(violation) => Ok((none, violation)),
        None => Ok((best, how)),
    }
}
