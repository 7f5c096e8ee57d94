//! What is explored, and the mistakes that have to be found.

use std::{collections::BTreeSet, thread, time::Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use super::*;

/// Everything in small numbers.
const SMALL: Scope = Scope {
    slots: 2,
    packets: [1, 0, 0],
    ticks: 1,
    links: 1,
    requests: 0,
    announcements: 1,
    deaths: 1,
    pauses: 1,
    silences: 0,
    events: 2,
    overlap: false,
    fault: Fault::None,
};

/// What an exploration found.
struct Explored {
    states: usize,
    violated: Vec<&'static str>,
    /// What is so in some state.
    reached: Vec<&'static str>,
}

/// Explores a scope, until this property is violated if there is one.
fn explore(name: &str, scope: Scope, wanted: Option<&'static str>) -> Explored {
    let start = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let enough = wanted.map_or(HasDiscoveries::All, |wanted| HasDiscoveries::AllOf(BTreeSet::from([wanted])));
    let checker = scope.checker().threads(threads).finish_when(enough).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, depth {}, {:.1} s",
        checker.max_depth(),
        start.elapsed().as_secs_f64()
    );
    let discoveries = checker.discoveries();
    let mut explored = Explored { states, violated: Vec::new(), reached: Vec::new() };
    for property in scope.properties() {
        let Some(path) = discoveries.get(property.name) else { continue };
        if matches!(property.expectation, Expectation::Always) {
            println!("{name}: {}: {:?}", property.name, path.clone().into_actions());
            explored.violated.push(property.name);
        } else {
            explored.reached.push(property.name);
        }
    }
    explored
}

#[test]
fn the_protocol_holds_in_a_small_scope() {
    let Explored { states, violated, reached } = explore("small", SMALL, None);
    assert_eq!(violated, [""; 0]);
    assert_eq!(reached, [BY_GUARD, BY_TICK, BY_AGENT, AGENT_CLAIMS]);
    assert!(states > 10_000, "{states}");
}

/// A planted mistake is found in this scope, as a violation of this property.
fn assert_found(fault: Fault, scope: Scope, property: &'static str) {
    let Explored { violated, .. } = explore(&format!("{fault:?}"), Scope { fault, ..scope }, Some(property));
    assert!(violated.contains(&property), "{fault:?}: {violated:?}");
}

/// Without an agent: processors and ticks.
const DATA_PLANE: Scope =
    Scope { packets: [1, 1, 1], ticks: 2, deaths: 0, announcements: 0, pauses: 0, ..SMALL };

#[test]
fn a_lost_compare_and_swap_is_found() {
    for fault in [Fault::GuardStores, Fault::TickStores, Fault::AgentStores] {
        assert_found(fault, DATA_PLANE, "no change of ACTIVE is lost");
    }
}

/// Announcements by the tick and the agent, which fails over twice.
const ROUNDS_OF_BOTH: Scope = Scope {
    slots: 3,
    packets: [0, 0, 0],
    ticks: 3,
    links: 2,
    announcements: 1,
    deaths: 0,
    pauses: 0,
    silences: 0,
    ..SMALL
};

#[test]
fn a_round_that_is_claimed_twice_is_found() {
    for fault in [Fault::TickClaims, Fault::StaleClaim] {
        assert_found(fault, ROUNDS_OF_BOTH, "each round is claimed once");
    }
}

/// An agent that dies, and its successor.
const DEATH: Scope = Scope { packets: [1, 0, 0], ticks: 0, links: 2, announcements: 0, pauses: 1, ..SMALL };

#[test]
fn a_receipt_that_is_lost_or_written_twice_is_found() {
    assert_found(Fault::EarlyKnown, DEATH, "no failover goes without a receipt or a count");
    assert_found(Fault::ForgottenReceipts, DEATH, "no failover has two receipts");
}

#[test]
fn two_agents_at_once_lose_no_change_and_send_no_round_twice() {
    let Explored { states, violated, .. } = explore("overlap", OVERLAP, None);
    assert_eq!(violated, [""; 0]);
    assert!(states > 10_000, "{states}");
}

#[test]
fn rounds_are_claimed_by_tick_and_agent() {
    let Explored { violated, reached, .. } = explore("rounds", ROUNDS_OF_BOTH, None);
    assert_eq!(violated, [""; 0]);
    assert!(reached.contains(&TICK_CLAIMS) && reached.contains(&AGENT_CLAIMS), "{reached:?}");
}

const OVERLAP: Scope = Scope {
    packets: [1, 0, 0],
    ticks: 1,
    links: 1,
    announcements: 1,
    deaths: 0,
    pauses: 0,
    silences: 0,
    overlap: true,
    ..SMALL
};

#[test]
#[ignore = "takes minutes: cargo test --release -p bond-user --lib protocol -- --ignored --nocapture"]
fn the_protocol_holds_in_large_scopes() {
    let large = [
        ("all", Scope { packets: [1, 1, 0], links: 2, ..SMALL }),
        ("requests", Scope { requests: 1, silences: 1, ..SMALL }),
        ("rounds", Scope { packets: [1, 0, 0], announcements: 2, pauses: 1, ..ROUNDS_OF_BOTH }),
        ("deaths", Scope { packets: [1, 1, 0], ticks: 1, ..DEATH }),
        ("overlap", Scope { packets: [1, 1, 0], announcements: 2, ..OVERLAP }),
        ("processors", Scope { slots: 3, links: 2, pauses: 1, events: 3, ..DATA_PLANE }),
    ];
    for (name, scope) in large {
        assert_eq!(explore(name, scope, None).violated, [""; 0], "{name}");
    }
}
