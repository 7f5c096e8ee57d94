//! What the engine wants said, as lines of the log.

use tracing::{info, warn};

use crate::{
    bond::command::{Notice, Reason},
    report::text,
};

/// One line, INFO; WARN where someone should act.
pub fn log(bond: &str, notice: &Notice) {
    match notice {
        Notice::Failover { from, to: Some(to), reason } => match from {
            Some(from) => info!("{bond}: active slave {to} instead of {from}: {}", why(*reason)),
            None => info!("{bond}: active slave {to}: {}", why(*reason)),
        },
        Notice::Failover { from, to: None, reason } => {
            let from = from.as_deref().unwrap_or("none");
            warn!("{bond}: no active slave instead of {from}: {}, and no other is up", why(*reason));
        }
        Notice::LinkDelayed { slave, up: false, delay_ms } => {
            info!("{bond}: {slave}: link down; disabled if it stays down for {delay_ms} ms");
        }
        Notice::LinkDelayed { slave, up: true, delay_ms } => {
            info!("{bond}: {slave}: link up; enabled if it stays up for {delay_ms} ms");
        }
        Notice::LinkChanged { slave, up } => info!("{bond}: {slave}: link {}", up_or_down(*up)),
        Notice::Enslaved { slave, up } => info!("{bond}: {slave}: enslaved, link {}", up_or_down(*up)),
        Notice::Released { slave } => info!("{bond}: {slave}: released"),
        Notice::PolicyTurnedActive { slave } => {
            warn!("{bond}: {slave}: cannot change its MAC; fail_over_mac is active now");
        }
        Notice::DuplicateMacReplaced { slave, mac } => {
            warn!("{bond}: {slave}: wore a MAC that the bond uses; it gets {mac}");
        }
        Notice::MacRefused { interface, mac } => {
            warn!("{bond}: {interface}: does not take the MAC {mac}");
        }
        Notice::Unheard { slave, sent } => warn!("{bond}: {}", text::unheard(slave, *sent)),
        Notice::HeardAgain { slave } => info!("{bond}: {slave}: receives unicast now"),
        Notice::ReleasedMacInUse { slave, mac } => {
            warn!(
                "{bond}: {slave}: released with the MAC {mac}, which is still in use in the bond; \
                 set another one before using it"
            );
        }
    }
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::LinkFailed => "its link failed",
        Reason::CarrierGuard => "a packet found its carrier gone",
        Reason::LinkRecovered => "a link came back",
        Reason::Left => "it left the bond",
        Reason::Joined => "a slave joined",
        Reason::Requested => "asked for by hand",
        Reason::OptionChanged => "an option changed",
    }
}
