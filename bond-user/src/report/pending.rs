//! Sentences about the steps of a change that are not finished.

use std::time::Duration;

use bond_core::status::Pending;

/// Returns a sentence about a decision of the engine that is not executed yet.
pub fn sentence(bond: &str, pending: &Pending) -> String {
    match pending {
        Pending::Election => format!("{bond}: the election waits until the speed of a slave has been read"),
        Pending::BondMac(mac) => format!("{bond}: its MAC address is not {mac} yet"),
        Pending::SlaveMac { slave, mac } => format!("{bond}: the MAC address of {slave} is not {mac} yet"),
        Pending::Announcement => format!("{bond}: the active slave is not announced yet"),
        Pending::Draining { slave } => format!("{bond}: peers may still send to {slave}"),
    }
}

/// Returns a sentence about a bond whose task waits for the kernel.
pub fn of_kernel(bond: &str) -> String {
    format!("{bond}: the kernel has not done yet what was asked of it")
}

/// Returns a sentence about a change that is not finished, as `releasing eth0 from bond0`.
pub fn change(what: &str) -> String {
    format!("{what} is not finished; the agent continues, and logs an error if it fails")
}

/// Returns a sentence about a change for which the agent sent no answer at all within `limit`.
pub fn no_answer(limit: Duration) -> String {
    let seconds = limit.as_secs_f64();
    format!(
        "the agent has not answered within {seconds} s; is it stopped, or traced? A change that it has not begun is withdrawn"
    )
}

/// Explains why a change may be pending, and for how long.
pub const ADVICE: &str =
    "another process may hold RTNL, the kernel's lock for interfaces; see `xbond show` and `xbond log`";

#[cfg(test)]
mod tests {
    use bond_common::mac::Mac;

    use super::*;

    #[test]
    fn sentences_name_the_bond_and_what_is_missing() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        for (pending, expected) in [
            (Pending::Election, "bond0: the election waits until the speed of a slave has been read"),
            (Pending::BondMac(mac), "bond0: its MAC address is not 02:00:00:00:00:01 yet"),
            (
                Pending::SlaveMac { slave: "s0".into(), mac },
                "bond0: the MAC address of s0 is not 02:00:00:00:00:01 yet",
            ),
            (Pending::Announcement, "bond0: the active slave is not announced yet"),
            (Pending::Draining { slave: "s0".into() }, "bond0: peers may still send to s0"),
        ] {
            assert_eq!(sentence("bond0", &pending), expected);
        }
    }
}
