//! The sentences about what the engine has noticed.

use bond_core::command::Notice;

/// How the log marks a sentence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The administrator may want to know.
    Info,
    /// The administrator should act.
    Warning,
}

/// Returns how a notice is logged, and its sentence.
pub fn notice(notice: &Notice) -> (Weight, String) {
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
        Notice::NoUnicast { slave, sent } => (Warning, super::no_unicast(slave, *sent)),
        Notice::Path { slave, change } => (Info, super::path_changed(slave, *change)),
        Notice::Damped { slave, damped } => (Info, super::damped(slave, *damped)),
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

/// Returns the sentence about a change of the active slave.
pub fn failover(from: Option<&str>, to: Option<&str>, why: &str) -> String {
    match (from, to) {
        (None, Some(to)) => format!("active slave {to}: {why}"),
        (Some(from), Some(to)) => format!("active slave {to} instead of {from}: {why}"),
        (from, None) => {
            format!("no active slave instead of {}: {why}, and no other is up", from.unwrap_or("none"))
        }
    }
}

/// Returns the end of a sentence about what happened while no agent ran.
pub fn at_without_agent(time: &str) -> String {
    format!(", at {time} without an agent")
}
