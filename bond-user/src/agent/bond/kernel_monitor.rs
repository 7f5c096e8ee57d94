//! What the tick needs to know for ARP and NS monitoring while no agent runs.

use bond_common::{
    abi::Rank,
    clock::monitor::{MonitorEntry, RoundRobin},
};
use bond_core::{
    Engine,
    options::{ArpAllTargets, BondOptions},
};

use crate::sys::dataplane::MapMirror;

/// What the tick has to know of the options.
pub fn follow_options(entry: &mut MonitorEntry, options: &BondOptions) {
    let validate = options.arp_validate;
    entry.interval = u64::from(options.arp_interval) * 1_000_000;
    entry.missed_max = options.arp_missed_max.into();
    entry.flags = if validate.validates_backup() { MonitorEntry::BACKUPS_WAIT } else { 0 };
    let of_all = options.arp_all_targets == ArpAllTargets::All;
    entry.required = MonitorEntry::required_of(
        options.arp_ip_target.len(),
        options.ns_ip6_target.len(),
        of_all && validate.validates_active(),
        of_all && validate.validates_backup(),
    );
}

/// Writes what the tick has to know of the slaves.
pub fn follow_slaves(mirror: &MapMirror, engine: &Engine) {
    let order = engine.enslave_order();
    let since = u64::try_from(engine.arp_targets_since().as_nanos()).unwrap_or_default();
    mirror.update_monitor(|entry| {
        entry.joined = order.iter().fold(0, |mask, slot| mask | u64::from(slot.bit()));
        entry.first = order.first().map_or(0, |slot| slot.index()) as u64;
        entry.turns = RoundRobin::new(order.iter().copied()).bits();
        entry.merit = Rank::new(engine.merit_order()).bits();
        entry.targets_since = since;
    });
}

#[cfg(test)]
mod tests {
    use bond_core::options::ArpValidate;

    use super::*;

    #[test]
    fn the_tick_monitors_as_the_options_say() {
        use ArpAllTargets::{All, Any};
        use ArpValidate::{Active, Backup, Filter, FilterBackup, None};
        let (prober, others) = (0x0001_0003, 0x0001_0003_u64 << 32);
        for (arp_validate, arp_all_targets, required, flags) in [
            (None, All, 0, 0),
            (Filter, All, 0, 0),
            (Active, Any, 0, 0),
            (Active, All, prober, 0),
            (Backup, All, others, MonitorEntry::BACKUPS_WAIT),
            (FilterBackup, Any, 0, MonitorEntry::BACKUPS_WAIT),
            (ArpValidate::All, All, prober | others, MonitorEntry::BACKUPS_WAIT),
        ] {
            let options = BondOptions {
                arp_interval: 200,
                arp_missed_max: 3,
                arp_validate,
                arp_all_targets,
                arp_ip_target: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
                ns_ip6_target: vec![[0xfd; 16].into()],
                ..BondOptions::default()
            };
            let mut entry = MonitorEntry::default();
            follow_options(&mut entry, &options);
            let expected = MonitorEntry {
                interval: 200_000_000,
                missed_max: 3,
                flags,
                required,
                ..MonitorEntry::default()
            };
            assert_eq!(entry, expected, "{arp_validate:?} {arp_all_targets:?}");
        }
    }
}
