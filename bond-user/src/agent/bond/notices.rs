//! What the engine wants said, as lines of the log and as events.

use bond_core::{
    command::{Failover, Notice, PathChange},
    status::MiiStatus,
};

use crate::report::{
    event::{SlaveChange, What},
    log::{self, Facts},
    moment::Moment,
    receipt::Steps,
    repeats,
    wording::{self, Weight},
};

/// Logs a notice: INFO, or WARN where the administrator should act. `left_out` counts lines that this one stands for.
pub fn log(bond: &str, notice: &Notice, left_out: u32) {
    let (facts, left_out) = (facts(notice, log::of(bond)), repeats::left_out(left_out));
    match wording::notice(notice) {
        (Weight::Info, sentence) => facts.info(format_args!("{sentence}{left_out}")),
        (Weight::Warning, sentence) => facts.warn(format_args!("{sentence}{left_out}")),
    }
}

/// Adds the facts of a notice.
fn facts<'a>(notice: &'a Notice, facts: Facts<'a>) -> Facts<'a> {
    match notice {
        Notice::LinkDelayed { slave, delay_ms, .. } => {
            Facts { slave: Some(slave), delay_ms: Some(*delay_ms), ..facts }
        }
        Notice::LinkChanged { slave, .. }
        | Notice::Enslaved { slave, .. }
        | Notice::Released { slave }
        | Notice::PolicyTurnedActive { slave }
        | Notice::NoUnicast { slave, .. }
        | Notice::Damped { slave, .. }
        | Notice::Path { slave, .. }
        | Notice::UnicastReceived { slave } => facts.slave(slave),
        Notice::DuplicateMacReplaced { slave: interface, mac }
        | Notice::MacRefused { interface, mac }
        | Notice::SlaveMacChanged { slave: interface, mac }
        | Notice::ReleasedMacInUse { slave: interface, mac } => {
            Facts { slave: Some(interface), mac: Some(*mac), ..facts }
        }
        Notice::BondMacChanged { mac } | Notice::BondMacRestored { mac } => {
            Facts { mac: Some(*mac), ..facts }
        }
        Notice::Late { ms, .. } | Notice::Suspended { ms } => {
            Facts { delay_ms: u32::try_from(*ms).ok(), ..facts }
        }
    }
}

/// Logs a failover, WARN if no slave is active any more. `at` is when it happened, if no agent received it then.
pub fn log_failover(bond: &str, failover: &Failover, (generation, steps): (u32, Steps), at: Option<Moment>) {
    let at = at.map(|at| wording::at_without_agent(&at.time)).unwrap_or_default();
    let Failover { from, to, reason, seen, chosen } = failover;
    let why = wording::why(*reason, *seen);
    let facts = Facts {
        from: from.as_deref(),
        to: to.as_deref(),
        reason: Some(*reason),
        trigger: Some(*seen),
        chosen: *chosen,
        generation: Some(generation),
        steps: Some(steps),
        ..log::of(bond)
    };
    let sentence = wording::failover(from.as_deref(), to.as_deref(), why);
    if to.is_some() {
        facts.info(format_args!("{sentence}{at}"));
    } else {
        facts.warn(format_args!("{sentence}{at}"));
    }
}

/// What is counted together where it comes again and again; none of what the engine bounds itself.
pub fn kind(notice: &Notice) -> Option<String> {
    match notice {
        Notice::LinkDelayed { slave, .. } | Notice::LinkChanged { slave, .. } => {
            Some(format!("link of {slave}"))
        }
        Notice::Enslaved { slave, .. } | Notice::Released { slave } => Some(format!("membership of {slave}")),
        Notice::MacRefused { interface, .. } => Some(format!("refused MAC of {interface}")),
        Notice::SlaveMacChanged { slave, .. } => Some(format!("MAC of {slave}")),
        Notice::BondMacChanged { .. } | Notice::BondMacRestored { .. } => Some("MAC of the bond".to_owned()),
        Notice::NoUnicast { slave, .. } | Notice::UnicastReceived { slave } => {
            Some(format!("reception of {slave}"))
        }
        Notice::Damped { slave, .. } => Some(format!("damping of {slave}")),
        Notice::Path { slave, .. } => Some(format!("path of {slave}")),
        Notice::DuplicateMacReplaced { slave, .. } | Notice::ReleasedMacInUse { slave, .. } => {
            Some(format!("duplicate MAC of {slave}"))
        }
        Notice::PolicyTurnedActive { .. } | Notice::Late { .. } | Notice::Suspended { .. } => None,
    }
}

/// Returns the event that reports it.
pub fn event(notice: &Notice) -> What {
    let link = |slave: &str, status: MiiStatus, delay_ms| What::Link {
        slave: slave.to_owned(),
        mii_status: status.to_string(),
        delay_ms,
    };
    let change = |slave: &str, change| What::Slave { slave: slave.to_owned(), change };
    match notice {
        Notice::LinkDelayed { slave, up: false, delay_ms } => {
            link(slave, MiiStatus::GoingDown, Some(*delay_ms))
        }
        Notice::LinkDelayed { slave, up: true, delay_ms } => {
            link(slave, MiiStatus::GoingBack, Some(*delay_ms))
        }
        Notice::LinkChanged { slave, up: false } => link(slave, MiiStatus::Down, None),
        Notice::LinkChanged { slave, up: true } => link(slave, MiiStatus::Up, None),
        Notice::Enslaved { slave, up: _ } => change(slave, SlaveChange::Joined),
        Notice::Released { slave } => change(slave, SlaveChange::Left),
        Notice::Damped { slave, damped: true } => change(slave, SlaveChange::Damped),
        Notice::Damped { slave, damped: false } => change(slave, SlaveChange::Undamped),
        Notice::Path { slave, change: PathChange::Failed } => change(slave, SlaveChange::PathFailed),
        Notice::Path { slave, change: PathChange::Recovered } => change(slave, SlaveChange::PathRecovered),
        Notice::Path { slave, change: PathChange::Proven } => change(slave, SlaveChange::PathProven),
        Notice::PolicyTurnedActive { .. }
        | Notice::DuplicateMacReplaced { .. }
        | Notice::MacRefused { .. }
        | Notice::SlaveMacChanged { .. }
        | Notice::BondMacChanged { .. }
        | Notice::BondMacRestored { .. }
        | Notice::NoUnicast { .. }
        | Notice::Late { .. }
        | Notice::Suspended { .. }
        | Notice::UnicastReceived { .. }
        | Notice::ReleasedMacInUse { .. } => match wording::notice(notice) {
            (Weight::Info, text) => What::Note { text },
            (Weight::Warning, text) => What::Warning { text },
        },
    }
}
