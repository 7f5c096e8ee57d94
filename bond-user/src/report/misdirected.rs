//! What a report says of frames for the bond that arrived on backups, and of announcements that the clock leaves out.

use std::collections::{BTreeMap, BTreeSet};

use bond_common::{
    abi::Slot,
    clock::{layout::AnnounceList, misdirected::Noted},
    mac::Mac,
};

use super::{
    moment::monotonic,
    wording::{self, MisdirectedAddress},
};
use crate::sys::dataplane::Maps;

/// Returns a warning for each MAC address whose frames keep arriving on a backup in spite of announcements, in whichever VLANs.
/// `slave_in` returns the name of the slave in a slot.
pub fn warnings(bond: &str, maps: &Maps, slave_in: impl Fn(Slot) -> Option<String>) -> Vec<String> {
    let Some(clock) = maps.clock() else { return Vec::new() };
    let now = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
    let warning = |((mac, slot), vlans): (Address, BTreeSet<u16>)| {
        let slave = slot.and_then(&slave_in);
        let address = MisdirectedAddress { slave: slave.as_deref(), mac, vlans: &vlans };
        format!("{bond}: {}", wording::flooded(&address, None))
    };
    by_address(clock.flooded(now)).into_iter().map(warning).collect()
}

/// Returns the warning about announcements that the clock's map has no room for; None if it has.
pub fn left_out(bond: &str, maps: &Maps) -> Option<String> {
    let list = AnnounceList::from_bits(maps.clock()?.entry().list);
    Some(format!("{bond}: {}", wording::not_for_tick(list)?))
}

/// A MAC address, and the slot of the backup that receives its frames.
type Address = (Mac, Option<Slot>);

/// Returns the VLANs of each address.
fn by_address(found: impl Iterator<Item = Noted>) -> BTreeMap<Address, BTreeSet<u16>> {
    let mut addresses: BTreeMap<Address, BTreeSet<u16>> = BTreeMap::new();
    for noted in found {
        addresses.entry((noted.mac(), noted.slot())).or_default().insert(noted.vlan());
    }
    addresses
}
