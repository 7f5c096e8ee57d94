//! Who an adopted bond is: its MAC address and flags, and what happened to it while no agent ran.

use bond_common::{
    abi::{ActiveWord, BondEntry, Slot},
    mac::Mac,
};
use bond_core::{Time, command::Notice, options::FailOverMac};

use super::plan::Takeover;
use crate::{
    agent::{
        bond::{
            guard::GuardState,
            interface::Host,
            missed_failovers::{Known, MissedFailovers},
            notices, worker,
        },
        lifecycle::machine::Machine,
    },
    config::BondConfig,
    report::{log, moment::monotonic, receipt::Receipt, wording},
    store::receipts,
    sys::{
        dataplane::{DataPlane, Maps},
        directory::Trust,
    },
};

/// What packets go by from now on, and which MAC address is the bond's.
pub struct AdoptedIdentity {
    pub entry: BondEntry,
    pub mac: Mac,
    pub mac_assigned: bool,
}

/// Returns who the bond is. `wire` is the MAC address that its first slave has on the wire.
pub fn identity(
    machine: &Machine,
    config: &BondConfig,
    adoption: &Takeover,
    (found, host_device): (BondEntry, Option<u64>),
    wire: Option<Mac>,
) -> AdoptedIdentity {
    let Takeover { bond, options, .. } = adoption;
    let mut entry = entry(machine, config, adoption, found, host_device);
    let set_without_agent = bond.as_ref().map(|bond| bond.mac).filter(|mac| *mac != entry.host_mac());
    let mac = match (options.fail_over_mac, set_without_agent) {
        (FailOverMac::None, Some(mac)) => {
            notices::log(&config.name, &Notice::BondMacChanged { mac }, 0);
            entry = entry.with_host_mac(mac);
            mac
        }
        // It is restored.
        (FailOverMac::Active, _) => entry.host_mac(),
        (FailOverMac::None | FailOverMac::Follow, _) => wire.unwrap_or(entry.host_mac()),
    };
    // A bond without slaves takes the MAC address of its first one, and keeps that.
    let keeps = config.keeps_mac() && options.fail_over_mac == FailOverMac::Active && wire.is_some();
    let mac_assigned = config.mac.is_some() || keeps || mac != wire.unwrap_or(mac);
    AdoptedIdentity { entry, mac, mac_assigned }
}

/// What packets go by from now on.
fn entry(
    machine: &Machine,
    config: &BondConfig,
    adoption: &Takeover,
    found: BondEntry,
    host_device: Option<u64>,
) -> BondEntry {
    let Takeover { host, bond, options, .. } = adoption;
    let guard = GuardState::new(config.guard, &machine.kernel, options);
    // The path monitor does not stop meanwhile: without what slaves note, every path would be silent.
    let stays = BondEntry::LEARN_HOST_MAC | BondEntry::QUEUE_IDS | BondEntry::NETKIT | BondEntry::PATH;
    let turned = if options.fail_over_mac == found.policy() { BondEntry::POLICY_TURNED } else { 0 };
    let host_mac_stays = if config.keeps_mac() { BondEntry::HOST_MAC_STAYS } else { 0 };
    let kept = found.flags() & (stays | turned) | host_mac_stays;
    let host_mac = match (host, bond) {
        // The former agent was changing it. In all other cases a different MAC address was set by another process.
        (Host::Pair { .. }, Some(bond)) if found.has(BondEntry::HOST_MAC_MOVES) => bond.mac,
        (Host::Pair { .. }, _) => found.host_mac(),
        (Host::Port { .. }, _) => config.host_mac_address().unwrap_or(found.host_mac()),
    };
    let learned = kept & BondEntry::LEARN_HOST_MAC != 0;
    BondEntry::new(
        options.fail_over_mac,
        found.port_ifindex(),
        if learned { Mac::ZERO } else { host_mac },
        machine.cookie,
    )
    .with_host_device(host_device.unwrap_or(found.host_device()))
    .with_flags(kept | worker::option_flags(options, guard))
}

/// Returns which failovers no agent has recorded, and ACTIVE as of the last receipt. `slot_of` finds the slot of a slave.
pub fn missed(
    machine: &Machine,
    config: &BondConfig,
    maps: &Maps,
    data_plane: &mut dyn DataPlane,
    slot_of: impl Fn(&str) -> Option<Slot>,
) -> (MissedFailovers, ActiveWord) {
    let name = &config.name;
    let word = maps.active();
    let last = receipts::read(&machine.paths.run_of(name), Trust::Ours).ok().and_then(|mut all| all.pop());
    let known = on_record(maps.guard().known(), word, last.as_ref(), slot_of);
    let known_until = Known {
        word: known,
        // GUARD does not say.
        at: Time::ZERO,
        switched_at: Time::from_nanos(maps.guard().switched_at()),
        now: monotonic(),
    };
    let mut missed = MissedFailovers::new(known_until, word, data_plane.drain_events());
    data_plane.mirror().follow_active(word);
    if missed.is_foreign {
        let last = missed.changes.last().map_or(known, |last| last.word);
        missed.word = data_plane.mirror().recount_active(last);
        log::of(name).warn(wording::recounted(word.generation(), missed.word.generation()));
    }
    (missed, known)
}

/// ACTIVE after the last change that is on a receipt. GUARD has it only when no receipt was open: an agent that dies before
/// leaves receipts of later changes.
fn on_record(
    known: ActiveWord,
    word: ActiveWord,
    last: Option<&Receipt>,
    slot_of: impl Fn(&str) -> Option<Slot>,
) -> ActiveWord {
    let Some(last) = last else { return known };
    if last.generation == word.generation() {
        return if word.changes_since(known).is_some() { word } else { known };
    }
    let before = ActiveWord::from_bits(u64::from(last.generation.wrapping_sub(1)) << 32);
    let recorded = before.next(last.to.as_deref().and_then(slot_of), None, known.usable());
    let is_after = |word: ActiveWord, earlier| word.changes_since(earlier).is_some_and(|changes| changes > 0);
    if is_after(recorded, known) && is_after(word, recorded) { recorded } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::receipt;

    fn word(generation: u32, active: u8) -> ActiveWord {
        let before = ActiveWord::from_bits(u64::from(generation.wrapping_sub(1)) << 32);
        before.next(Slot::new(active), None, 0b11)
    }

    #[test]
    fn a_receipt_after_the_known_word_is_on_record() {
        let slot_of = |name: &str| Slot::new(if name == "enp0s9" { 1 } else { 0 });
        let to = Some("enp0s9".to_owned());
        for (known, now, last, expected) in [
            (7, 9, None, 7),
            // The agent died after it had written all receipts, or some of them.
            (7, 9, Some(9), 9),
            (7, 9, Some(8), 8),
            (u32::MAX, 2, Some(1), 1),
            // It was known, or it is of another count.
            (7, 9, Some(7), 7),
            (7, 9, Some(6), 7),
            (7, 9, Some(70), 7),
            (7, 3, Some(3), 7),
        ] {
            let last = last.map(|generation| Receipt { generation, to: to.clone(), ..receipt() });
            let found = on_record(word(known, 0), word(now, 0), last.as_ref(), slot_of);
            assert_eq!(found.generation(), expected, "{known} {now} {last:?}");
            let is_recorded = last.is_some_and(|last| last.generation == expected && expected != now);
            assert!(!is_recorded || expected == known || found.active() == Slot::new(1), "{found:?}");
        }
    }
}
