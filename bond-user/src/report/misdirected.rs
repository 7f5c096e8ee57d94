//! What a report says of frames for the bond that arrived on backups.

use bond_common::{abi::Slot, clock::misdirected::Noted};

use super::{moment::monotonic, wording};
use crate::sys::dataplane::Maps;

/// Returns a warning for each address whose frames keep arriving on a backup in spite of announcements. `slave_in` returns the
/// name of the slave in a slot.
pub fn warnings(bond: &str, maps: &Maps, slave_in: impl Fn(Slot) -> Option<String>) -> Vec<String> {
    let Some(clock) = maps.clock() else { return Vec::new() };
    let now = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
    let warning = |noted: Noted| wording::flooded(noted.slot().and_then(&slave_in).as_deref(), noted);
    clock.flooded(now).map(|noted| format!("{bond}: {}", warning(noted))).collect()
}
