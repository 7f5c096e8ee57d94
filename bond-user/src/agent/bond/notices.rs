//! What the engine wants said, as lines of the log and as events.

use bond_core::{
    command::{Failover, Notice},
    status::MiiStatus,
};
use tracing::{info, warn};

use crate::report::{
    event::{SlaveChange, What},
    moment::Moment,
    repeats, wording,
};

/// Logs one line, INFO; WARN where the administrator should act. The end of the line says how many others it stands for.
pub fn log(bond: &str, notice: &Notice, left_out: u32) {
    let left_out = repeats::left_out(left_out);
    match sentence(notice) {
        (Weight::Info, sentence) => info!("{bond}: {sentence}{left_out}"),
        (Weight::Warning, sentence) => warn!("{bond}: {sentence}{left_out}"),
    }
}

/// Logs a failover, WARN if no slave is active any more. `at` is when it happened, if no agent received it then.
pub fn log_failover(bond: &str, failover: &Failover, at: Option<Moment>) {
    let at = at.map(|at| format!(", at {} while no agent looked", at.time)).unwrap_or_default();
    let why = wording::why(failover.reason, failover.seen);
    match (&failover.from, &failover.to) {
        (from, Some(to)) => {
            let instead = from.as_ref().map(|from| format!(" instead of {from}")).unwrap_or_default();
            info!("{bond}: active slave {to}{instead}: {why}{at}");
        }
        (from, None) => {
            let from = from.as_deref().unwrap_or("none");
            warn!("{bond}: no active slave instead of {from}: {why}, and no other is up{at}");
        }
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
        | Notice::ReleasedMacInUse { .. } => match sentence(notice) {
            (Weight::Info, text) => What::Note { text },
            (Weight::Warning, text) => What::Warning { text },
        },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Info,
    /// The administrator should act.
    Warning,
}

fn sentence(notice: &Notice) -> (Weight, String) {
    use Weight::{Info, Warning};
    match notice {
        Notice::LinkDelayed { slave, up: false, delay_ms } => {
            (Info, format!("{slave}: link down; disabled if it stays down for {delay_ms} ms"))
        }
        Notice::LinkDelayed { slave, up: true, delay_ms } => {
            (Info, format!("{slave}: link up; enabled if it stays up for {delay_ms} ms"))
        }
        Notice::LinkChanged { slave, up } => (Info, format!("{slave}: link {}", up_or_down(*up))),
        Notice::Enslaved { slave, up } => (Info, format!("{slave}: enslaved, link {}", up_or_down(*up))),
        Notice::Released { slave } => (Info, format!("{slave}: released")),
        Notice::PolicyTurnedActive { slave } => {
            (Warning, format!("{slave}: cannot change its MAC; fail_over_mac is active now"))
        }
        Notice::DuplicateMacReplaced { slave, mac } => {
            (Warning, format!("{slave}: had a MAC that the bond uses; it gets {mac}"))
        }
        Notice::MacRefused { interface, mac } => {
            (Warning, format!("{interface}: does not take the MAC {mac}"))
        }
        Notice::SlaveMacChanged { slave, mac } => {
            (Info, format!("{slave}: its MAC was changed externally to {mac}"))
        }
        Notice::BondMacChanged { mac } => (
            Info,
            format!("its MAC was changed externally to {mac}; all slaves take it (fail_over_mac=none)"),
        ),
        Notice::BondMacRestored { mac } => {
            let what = format!("its MAC was changed externally to {mac}, and is restored");
            (Warning, format!("{what}: it follows from the slaves' unless fail_over_mac=none"))
        }
        Notice::Late { times, ms } => {
            let times = if *times == 1 { "was late".to_owned() } else { format!("was late {times} times,") };
            let what =
                format!("this agent {times} by up to {ms} ms: it was stopped, or got no processor time");
            (Warning, format!("{what}; no slave is judged by that time"))
        }
        Notice::Suspended { ms } => {
            (Info, format!("the machine was suspended for {ms} ms; no slave is judged by that time"))
        }
        Notice::NoUnicast { slave, sent } => (Warning, wording::no_unicast(slave, *sent)),
        Notice::UnicastReceived { slave } => (Info, format!("{slave}: receives unicast now")),
        Notice::ReleasedMacInUse { slave, mac } => {
            let what = format!("{slave}: released with the MAC {mac}, which is still in use in the bond");
            (Warning, format!("{what}; set another one before using it"))
        }
    }
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}
