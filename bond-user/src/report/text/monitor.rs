//! The text of `xbond monitor`.

use super::log::{briefly, switched_in};
use crate::report::event::{BondChange, Event, SlaveChange, What};

/// Returns a line of `xbond monitor`.
pub fn event(event: &Event) -> String {
    // To the millisecond: JSON and the log have more.
    let time = event.moment.time.get(..23).unwrap_or(&event.moment.time);
    let bond = event.bond.as_deref().map(|bond| format!("{bond}: ")).unwrap_or_default();
    let up_or_down = |up: bool| if up { "up" } else { "down" };
    let what = match &event.what {
        What::State { active_slave, carrier } => {
            let active = active_slave.as_deref().unwrap_or("none");
            format!("active slave {active}, carrier {}", up_or_down(*carrier))
        }
        What::Failover { receipt } => {
            let [from, to] = [&receipt.from, &receipt.to].map(|slave| slave.as_deref().unwrap_or("none"));
            let why = briefly(receipt.reason, receipt.seen);
            format!("{to} instead of {from}: {why}, {}", switched_in(receipt))
        }
        What::Link { slave, mii_status, delay_ms: None } => format!("{slave}: link {mii_status}"),
        What::Link { slave, mii_status, delay_ms: Some(delay) } => {
            format!("{slave}: link {mii_status} in {delay} ms")
        }
        What::Slave { slave, change: SlaveChange::Joined } => format!("{slave}: joined"),
        What::Slave { slave, change: SlaveChange::Left } => format!("{slave}: left"),
        What::Slave { slave, change: SlaveChange::Drained } => format!("{slave}: drained"),
        What::Slave { slave, change: SlaveChange::Undrained } => format!("{slave}: drain ended"),
        What::Slave { slave, change: SlaveChange::Damped } => format!("{slave}: damped, its link flaps"),
        What::Slave { slave, change: SlaveChange::Undamped } => format!("{slave}: damping ended"),
        What::Slave { slave, change: SlaveChange::PathFailed } => format!("{slave}: path failed"),
        What::Slave { slave, change: SlaveChange::PathRecovered } => format!("{slave}: path answers again"),
        What::Slave { slave, change: SlaveChange::PathProven } => format!("{slave}: path proven"),
        What::Option { slave: None, option, value } => format!("{option}={value}"),
        What::Option { slave: Some(slave), option, value } => format!("{slave}: {option}={value}"),
        What::Carrier { carrier } => format!("carrier {}", up_or_down(*carrier)),
        What::Bond { change: BondChange::Up } => "up".to_owned(),
        What::Bond { change: BondChange::Down } => "down".to_owned(),
        What::Bond { change: BondChange::Kept } => "kept: it carries packets without an agent".to_owned(),
        What::Warning { text } => format!("! {text}"),
        What::Note { text } => text.clone(),
        What::Lagged { missed } => {
            format!("too slow: {missed} events were missed; see xbond show, and start again")
        }
    };
    format!("{time}Z {bond}{what}")
}
