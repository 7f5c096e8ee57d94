use libc::{EACCES, EINVAL, ENOTEMPTY, EOPNOTSUPP, EPERM};
use proptest::prelude::*;

use super::*;

fn shown(options: &BondOptions, key: &str) -> String {
    let pair = options.to_pairs().into_iter().find(|(shown, _)| *shown == key);
    pair.map(|(_, value)| value).unwrap_or_default()
}

fn errno<T>(result: &Result<T, OptionError>) -> i32 {
    result.as_ref().err().map_or(0, OptionError::errno)
}

/// A bond without slaves: options and values written one after the other, the error of each, and what is shown then.
fn goes_through(options: &mut BondOptions, steps: &[(&str, &str, i32, &str)]) {
    for (key, value, expected, now) in steps {
        let result = options.set(key, value, Slaves::None);
        assert_eq!(errno(&result), *expected, "{key}={value}: {result:?}");
        assert_eq!(shown(options, key), *now, "after {key}={value}");
    }
}

fn monitored() -> BondOptions {
    BondOptions { miimon: 100, ..BondOptions::default() }
}

/// `ip link add type bond mode active-backup KEY VALUE` on 6.18: what the kernel refuses itself, and what
/// iproute2 refuses before (EINVAL here).
#[test]
fn refusals_of_a_new_bond_are_those_of_the_driver() {
    let table = [
        ("miimon", "-1", EINVAL),
        ("miimon", "4294967296", EINVAL),
        ("miimon", "abc", EINVAL),
        ("fail_over_mac", "3", EINVAL),
        ("fail_over_mac", "foo", EINVAL),
        ("primary_reselect", "3", EINVAL),
        ("primary_reselect", "foo", EINVAL),
        ("updelay", "100", EPERM),
        ("downdelay", "100", EPERM),
        ("arp_interval", "100", 0),
        ("arp_validate", "all", 0),
        ("arp_interval", "-1", EINVAL),
        ("arp_ip_target", "0.0.0.0", EINVAL),
        ("arp_ip_target", "255.255.255.255", EINVAL),
        ("arp_ip_target", "10.0.0.254,10.0.0.254", EINVAL),
        ("num_grat_arp", "256", EINVAL),
        ("num_grat_arp", "-1", EINVAL),
        ("num_unsol_na", "300", EINVAL),
        ("peer_notify_delay", "100", EPERM),
        ("resend_igmp", "256", EINVAL),
        ("min_links", "-1", EINVAL),
        ("lp_interval", "0", EINVAL),
        ("all_slaves_active", "2", EINVAL),
        ("tlb_dynamic_lb", "0", EACCES),
        ("packets_per_slave", "70000", EACCES),
        ("use_carrier", "0", EINVAL),
        ("use_carrier", "1", 0),
        ("use_carrier", "2", EINVAL),
        ("arp_missed_max", "0", EINVAL),
        ("arp_missed_max", "256", EINVAL),
        ("primary", "lo", 0),
        ("active_slave", "lo", EINVAL),
        ("xmit_hash_policy", "layer3+4", 0),
        ("ad_select", "bandwidth", 0),
        ("lacp_rate", "fast", EACCES),
        ("lacp_active", "off", EACCES),
        ("arp_all_targets", "2", EINVAL),
        ("ns_ip6_target", "fd00::254", 0),
        ("ns_ip6_target", "ff02::1", EINVAL),
        ("ns_ip6_target", "fe80::1", 0),
        ("coupled_control", "off", EACCES),
    ];
    for (key, value, expected) in table {
        let mut options = BondOptions::default();
        let result = options.set(key, value, Slaves::None);
        assert_eq!(errno(&result), expected, "{key}={value}: {result:?}");
    }
}

/// The same bond written to through sysfs on 6.18, one option after the other, and what it then showed.
#[test]
fn a_bond_without_slaves_goes_through_the_states_of_the_driver() {
    let steps = [
        ("mode", "foo", EINVAL, "active-backup"),
        ("mode", "9", EINVAL, "active-backup"),
        ("mode", "-1", EINVAL, "active-backup"),
        ("mode", "1 extra", EINVAL, "active-backup"),
        ("mode", "active-backupx", EINVAL, "active-backup"),
        ("miimon", "abc", EINVAL, "0"),
        ("miimon", "-5", EINVAL, "0"),
        ("miimon", "4294967297", EINVAL, "0"),
        ("miimon", "1", 0, "1"),
        ("updelay", "100", 0, "100"),
        ("downdelay", "100", 0, "100"),
        ("fail_over_mac", "3", EINVAL, "none"),
        ("fail_over_mac", "ACTIVE", EINVAL, "none"),
        ("fail_over_mac", "active:1", EINVAL, "none"),
        ("fail_over_mac", "active", 0, "active"),
        ("fail_over_mac", "0", 0, "none"),
        ("primary_reselect", "9", EINVAL, "always"),
        ("arp_ip_target", "+10.0.0.254", 0, "10.0.0.254"),
        ("arp_ip_target", "+10.0.0.254", EINVAL, "10.0.0.254"),
        ("arp_ip_target", "-10.0.0.253", EINVAL, "10.0.0.254"),
        ("arp_ip_target", "+0.0.0.0", EINVAL, "10.0.0.254"),
        ("arp_ip_target", "+255.255.255.255", EINVAL, "10.0.0.254"),
        ("arp_ip_target", "-10.0.0.254", 0, ""),
        ("arp_validate", "9", EINVAL, "none"),
        ("arp_validate", "all", 0, "all"),
        ("arp_validate", "filter_active", 0, "filter_active"),
        ("arp_all_targets", "all", 0, "all"),
        ("arp_interval", "-1", EINVAL, "0"),
        ("arp_interval", "100", 0, "100"),
        ("miimon", "100", 0, "100"),
        ("arp_validate", "active", 0, "active"),
        ("arp_interval", "100", 0, "100"),
        ("arp_missed_max", "0", EINVAL, "2"),
        ("arp_missed_max", "3", 0, "3"),
        ("num_grat_arp", "256", EINVAL, "1"),
        ("resend_igmp", "300", EINVAL, "1"),
        ("min_links", "x", EINVAL, "0"),
        ("all_slaves_active", "5", EINVAL, "0"),
        ("primary", "slave0", 0, "slave0"),
    ];
    let mut options = BondOptions::default();
    goes_through(&mut options, &steps);
}

/// The tables of bond_options.c have names for some numbers, and most have one for the default.
#[test]
fn numbers_and_defaults_have_names() {
    let table = [
        ("miimon", "maxval", 0, "2147483647"),
        ("miimon", "default", 0, "0"),
        ("miimon", "100", 0, "100"),
        ("updelay", "200", 0, "200"),
        ("updelay", "off", 0, "0"),
        ("peer_notif_delay", "maxval", 0, "300000"),
        ("peer_notif_delay", "off", 0, "0"),
        ("peer_notif_delay", "default", EINVAL, "0"),
        ("num_grat_arp", "off", 0, "0"),
        ("num_grat_arp", "maxval", 0, "255"),
        ("num_grat_arp", "default", 0, "1"),
        ("num_grat_arp", "minval", EINVAL, "1"),
        ("resend_igmp", "maxval", 0, "255"),
        ("resend_igmp", "default", 0, "1"),
        ("arp_missed_max", "maxval", 0, "255"),
        ("arp_missed_max", "minval", 0, "1"),
        ("arp_missed_max", "default", 0, "2"),
        ("arp_missed_max", "off", EINVAL, "2"),
        ("lp_interval", "maxval", 0, "2147483647"),
        ("lp_interval", "minval", 0, "1"),
        ("min_links", "maxval", 0, "2147483647"),
        ("min_links", "off", 0, "0"),
        ("fail_over_mac", "follow", 0, "follow"),
        ("fail_over_mac", "default", 0, "none"),
        ("primary_reselect", "2", 0, "failure"),
        ("primary_reselect", "default", 0, "always"),
        ("all_slaves_active", "on", 0, "1"),
        ("all_slaves_active", "default", 0, "0"),
        ("mode", "default", EOPNOTSUPP, "active-backup"),
    ];
    let mut options = BondOptions::default();
    goes_through(&mut options, &table);
    assert_eq!(errno(&options.set("use_carrier", "default", Slaves::None)), 0);
}

#[test]
fn options_without_effect_are_kept_and_noted_unless_default() {
    let steps = [
        ("min_links", "0", 0, "0", false),
        ("min_links", "3", 0, "3", true),
        ("xmit_hash_policy", "9", EINVAL, "layer2", false),
        ("xmit_hash_policy", "layer3+4", 0, "layer3+4", true),
        ("ad_select", "2", 0, "count", true),
        ("lp_interval", "0", EINVAL, "1", false),
        ("lp_interval", "30", 0, "30", true),
        ("lp_interval", "1", 0, "1", false),
    ];
    let mut options = monitored();
    for (key, value, expected, now, is_noted) in steps {
        let result = options.set(key, value, Slaves::Present);
        assert_eq!(errno(&result), expected, "{key}={value}: {result:?}");
        assert_eq!(shown(&options, key), now, "after {key}={value}");
        let noted = result.is_ok_and(|notes| notes == [Note::Unused { key }]);
        assert_eq!(noted, is_noted, "{key}={value}");
    }
}

#[test]
fn with_slaves_the_driver_fixes_mode_and_fail_over_mac() {
    let table = [
        ("fail_over_mac", "active", ENOTEMPTY),
        ("fail_over_mac", "none", ENOTEMPTY),
        ("mode", "active-backup", ENOTEMPTY),
        ("miimon", "0", 0),
        ("miimon", "50", 0),
        ("primary", "slave1", 0),
        ("primary", "lo", 0),
        ("active_slave", "lo", EINVAL),
    ];
    for (key, value, expected) in table {
        let result = monitored().set(key, value, Slaves::Present);
        assert_eq!(errno(&result), expected, "{key}={value}: {result:?}");
    }
}

/// Where xbond says more than the driver, or does not accept what can have no effect.
#[test]
fn xbond_differs_from_the_driver_on_purpose() {
    let table = [
        // sysfs takes the first number.
        ("miimon", "1 0", EINVAL),
        // sysfs wants a sign (EPERM), netlink none.
        ("arp_ip_target", "10.0.0.254", 0),
        ("arp_ip_target", "+abc", EINVAL),
        // Cut off by the driver, and then perhaps the name of another NIC.
        ("primary", "abcdefghijklmnopqrstuvwxyz", EINVAL),
        ("mode", "balance-rr", EOPNOTSUPP),
        ("mode", "4", EOPNOTSUPP),
        ("queue_id", "slave0:1", EINVAL),
    ];
    for (key, value, expected) in table {
        let result = BondOptions::default().set(key, value, Slaves::None);
        assert_eq!(errno(&result), expected, "{key}={value}: {result:?}");
    }
}

#[test]
fn values_parse_by_name_by_number_and_as_sysfs_shows_them() {
    for value in ["follow", "2", " follow ", "follow 2"] {
        let mut options = BondOptions::default();
        assert_eq!(options.set("fail_over_mac", value, Slaves::None), Ok(vec![]), "{value}");
        assert_eq!(options.fail_over_mac, FailOverMac::Follow, "{value}");
    }
    assert_eq!(errno(&BondOptions::default().set("fail_over_mac", "follow 1", Slaves::None)), EINVAL);

    for (number, name) in ArpValidate::NAMES.iter().enumerate() {
        let by_name = Setting::parse("arp_validate", name);
        assert_eq!(by_name, Setting::parse("arp_validate", &number.to_string()));
        assert_eq!(by_name, Ok(Setting::Option(BondOption::ArpValidate(ArpValidate::VALUES[number]))));
    }
    assert_eq!(ArpValidate::FilterBackup as usize, ArpValidate::VALUES.len() - 1);
}

/// The last part of the driver's run on delays.
#[test]
fn delays_are_kept_in_ticks_of_miimon() {
    let mut options = monitored();
    let mut set = |key: &str, value: &str| {
        let result = options.set(key, value, Slaves::Present);
        (result, options.updelay, options.downdelay)
    };
    let rounded = |key, from, to| Ok(vec![Note::Rounded { key, from, to, miimon: 100 }]);
    assert_eq!(set("updelay", "250"), (rounded("updelay", 250, 200), 200, 0));
    assert_eq!(set("downdelay", "199"), (rounded("downdelay", 199, 100), 200, 100));

    let rescaled = |key, from, to, miimon| Note::Rescaled { key, from, to, miimon };
    let notes = vec![rescaled("updelay", 200, 60, 30), rescaled("downdelay", 100, 30, 30)];
    assert_eq!(set("miimon", "30"), (Ok(notes), 60, 30));
    let notes = vec![rescaled("updelay", 60, 0, 0), rescaled("downdelay", 30, 0, 0), Note::Unmonitored];
    assert_eq!(set("miimon", "0"), (Ok(notes), 0, 0));

    assert_eq!(errno(&set("updelay", "100").0), EPERM);
    assert_eq!(errno(&set("downdelay", "-1").0), EINVAL);
    assert_eq!(errno(&set("peer_notif_delay", "100").0), EPERM);

    let notes = vec![rescaled("updelay", 0, 200, 100), rescaled("downdelay", 0, 100, 100)];
    assert_eq!(set("miimon", "100"), (Ok(notes), 200, 100));
    assert_eq!(options.parked_delays, DelayTicks::default());
}

#[test]
fn a_delay_that_miimon_would_make_too_long_is_refused_and_changes_nothing() {
    let mut options = BondOptions { miimon: 1, updelay: 3_000_000, ..BondOptions::default() };
    let before = options.clone();
    let error = options.set("miimon", "1000", Slaves::None).unwrap_err();
    let said =
        "miimon=1000: updelay, 3000000 ticks of miimon, would be too long; set a smaller updelay first";
    assert_eq!(error.to_string(), said);
    assert_eq!(options, before);
}

#[test]
fn the_monitors_exclude_each_other() {
    let mut options = monitored();
    let notes = options.set("arp_interval", "200", Slaves::None);
    let expected =
        [Note::TurnedOff { key: "miimon", by: "arp_interval" }, Note::NoTargets { arp_interval: 200 }];
    assert_eq!(notes, Ok(expected.to_vec()));
    assert_eq!((options.miimon, options.arp_interval), (0, 200));

    options.arp_validate = ArpValidate::All;
    let notes = options.set("miimon", "50", Slaves::None);
    let off = ["arp_interval", "arp_validate"].map(|key| Note::TurnedOff { key, by: "miimon" });
    assert_eq!(notes, Ok(off.to_vec()));
    assert_eq!(off[1].to_string(), "arp_validate: set to none, because miimon was set");
    assert_eq!((options.miimon, options.arp_interval), (50, 0));
    assert_eq!(options.arp_validate, ArpValidate::None);
}

#[test]
fn a_monitor_without_targets_is_noted() {
    let mut options = BondOptions::default();
    let notes = options.set("arp_interval", "200", Slaves::None);
    assert_eq!(notes, Ok(vec![Note::NoTargets { arp_interval: 200 }]));
    // Of several options, the last word counts.
    assert!(options.still(&Note::NoTargets { arp_interval: 200 }));
    options.set("ns_ip6_target", "fd00::1", Slaves::None).unwrap();
    assert!(!options.still(&Note::NoTargets { arp_interval: 200 }));
    assert_eq!(options.set("arp_interval", "100", Slaves::None), Ok(vec![]));
    // In a configuration the order does not matter.
    let pairs = [("arp_interval", "100"), ("arp_ip_target", "192.0.2.1,192.0.2.2"), ("arp_validate", "all")];
    let (options, notes) = BondOptions::from_pairs(pairs, Unmonitored::Refuse).unwrap();
    assert_eq!((options.arp_interval, options.arp_ip_target.len(), notes), (100, 2, vec![]));
}

#[test]
fn lists_of_targets_are_replaced_or_edited() {
    let mut options = BondOptions::default();
    for (value, now) in [
        ("192.0.2.1,192.0.2.2", "192.0.2.1,192.0.2.2"),
        ("+192.0.2.3, +192.0.2.4", "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4"),
        ("-192.0.2.2", "192.0.2.1,192.0.2.3,192.0.2.4"),
        ("192.0.2.9", "192.0.2.9"),
        ("", ""),
    ] {
        options.set("arp_ip_target", value, Slaves::Present).unwrap();
        assert_eq!(shown(&options, "arp_ip_target"), now, "after {value:?}");
    }
    for wrong in ["+192.0.2.1,192.0.2.2", "192.0.2.1,+192.0.2.2", ",", "192.0.2.1,", "+", "fd00::1"] {
        let result = options.set("arp_ip_target", wrong, Slaves::Present);
        assert_eq!(errno(&result), EINVAL, "{wrong}");
    }

    let full: Vec<_> = (1..=MAX_TARGETS).map(|host| format!("fd00::{host:x}")).collect();
    options.set("ns_ip6_target", &full.join(","), Slaves::Present).unwrap();
    let error = options.set("ns_ip6_target", "+fd00::ff", Slaves::Present).unwrap_err();
    assert_eq!(error.to_string(), "ns_ip6_target=fd00::ff: one target too many; a bond has at most 16");
    assert_eq!(options.ns_ip6_target.len(), MAX_TARGETS);
}

#[test]
fn refusals_say_what_to_do() {
    let table = [
        ("fail_over_mac", "foo", "fail_over_mac=foo: not a value; allowed: none (0), active (1), follow (2)"),
        ("mode", "balance-rr", "mode=balance-rr: xbond does active-backup (1) only"),
        ("mode", "foo", "mode=foo: xbond does active-backup (1) only"),
        ("miimon", "0.1", "miimon=0.1: not a value; allowed: 0 to 2147483647 ms"),
        ("peer_notif_delay", "300001", "peer_notif_delay=300001: not a value; allowed: 0 to 300000 ms"),
        ("arp_missed_max", "0", "arp_missed_max=0: not a value; allowed: 1 to 255"),
        (
            "use_carrier",
            "0",
            "use_carrier=0: not a value; allowed: on (1); the kernel has given up the other test of links, so remove it",
        ),
        ("updelay", "200", "updelay=200: needs miimon; set miimon first, for example miimon=100"),
        ("lacp_rate", "fast", "lacp_rate: an option of 802.3ad; xbond does active-backup (1) only"),
        (
            "prio",
            "5",
            "prio=5: an option of a slave, not of the bond; give it to the slave (`xbond set --slave`)",
        ),
        ("failover_mac", "1", "failover_mac: no such option; did you mean fail_over_mac?"),
        ("mii-mon", "1", "mii-mon: no such option; did you mean miimon?"),
        (
            "primary",
            "a/b",
            "primary=a/b: not a value; allowed: the name of an interface; this one contains '/'",
        ),
        ("arp_ip_target", "0.0.0.0", "arp_ip_target=0.0.0.0: not an address that can be a target"),
        ("arp_ip_target", "-192.0.2.1", "arp_ip_target=-192.0.2.1: not a target, so it cannot be removed"),
        (
            "active_slave",
            "eth0",
            "active_slave=eth0: chosen at run time, by `xbond set`; for a lasting preference set primary",
        ),
    ];
    for (key, value, said) in table {
        let error = BondOptions::default().set(key, value, Slaves::None).unwrap_err();
        assert_eq!(error.to_string(), said);
    }
    let error = monitored().set("fail_over_mac", "1", Slaves::Present).unwrap_err();
    assert_eq!(
        error.to_string(),
        "fail_over_mac: can only be set while the bond has no slaves; release them first"
    );
    let error = BondOptions::default().set("speed", "1", Slaves::None).unwrap_err();
    assert!(error.to_string().starts_with("speed: no such option; there are: mode, miimon, "), "{error}");
}

#[test]
fn contradictory_configurations_are_refused() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (
            &[],
            "miimon=0: the kernel accepts this and then never fails over; set miimon=100, or allow it with \
             allow_unmonitored = true / --allow-unmonitored",
        ),
        (&[("downdelay", "200")], "downdelay=200: needs miimon; set miimon first, for example miimon=100"),
        (
            &[("miimon", "100"), ("arp_interval", "100"), ("arp_ip_target", "192.0.2.1")],
            "miimon=100 and arp_interval=100: a bond has one link monitor; set one of them to 0",
        ),
        (
            &[("arp_interval", "100")],
            "arp_interval=100: nothing to probe; set arp_ip_target or ns_ip6_target",
        ),
        (
            &[("miimon", "100"), ("arp_ip_target", "192.0.2.1")],
            "arp_ip_target: never probed while arp_interval is 0; set arp_interval, or remove arp_ip_target",
        ),
        (
            &[("miimon", "100"), ("num_grat_arp", "2"), ("num_unsol_na", "3")],
            "num_grat_arp=2 and num_unsol_na=3: two names of one number; give one",
        ),
        (&[("miimon", "100"), ("miimon", "50")], "miimon: given twice, with different values; give it once"),
        (
            &[("miimon", "100"), ("active_slave", "eth0")],
            "active_slave=eth0: chosen at run time, by `xbond set`; for a lasting preference set primary",
        ),
    ];
    for (pairs, said) in table {
        let error = BondOptions::from_pairs(pairs.iter().copied(), Unmonitored::Refuse).unwrap_err();
        assert_eq!(error.to_string(), *said);
    }
}

#[test]
fn a_configuration_is_read_in_any_order() {
    let pairs =
        [("updelay", "250"), ("fail_over_mac", "1"), ("min_links", "2"), ("miimon", "100"), ("mode", "1")];
    let (options, notes) = BondOptions::from_pairs(pairs, Unmonitored::Refuse).unwrap();
    let expected =
        BondOptions { updelay: 200, fail_over_mac: FailOverMac::Active, min_links: 2, ..monitored() };
    assert_eq!(options, expected);
    assert_eq!(
        notes.iter().map(Note::to_string).collect::<Vec<_>>(),
        [
            "updelay=250: not a multiple of miimon (100), rounded to 200 ms",
            "min_links: accepted, without effect in active-backup",
        ]
    );

    let same_twice = [("miimon", "100"), ("num_grat_arp", "3"), ("num_unsol_na", "3"), ("miimon", "100")];
    let (options, _) = BondOptions::from_pairs(same_twice, Unmonitored::Refuse).unwrap();
    assert_eq!(options, BondOptions { num_grat_arp: 3, ..monitored() });

    let unmonitored = [("updelay", "0"), ("arp_interval", "0")];
    let (options, notes) = BondOptions::from_pairs(unmonitored, Unmonitored::Allow).unwrap();
    assert_eq!((options, notes), (BondOptions::default(), vec![Note::Unmonitored]));
}

#[test]
fn a_change_of_policy_needs_a_bond_without_slaves() {
    let wanted = BondOptions { fail_over_mac: FailOverMac::Follow, ..monitored() };
    assert_eq!(errno(&monitored().check_change(&wanted, Slaves::Present)), ENOTEMPTY);
    assert_eq!(monitored().check_change(&wanted, Slaves::None), Ok(()));
    let faster = BondOptions { miimon: 10, ..monitored() };
    assert_eq!(monitored().check_change(&faster, Slaves::Present), Ok(()));
}

#[test]
fn json_has_numbers_as_numbers_and_names_as_names() {
    let options = BondOptions { ns_ip6_target: vec!["fd00::1".parse().unwrap()], ..monitored() };
    let expected = serde_json::json!({
        "mode": "active-backup", "miimon": 100, "updelay": 0, "downdelay": 0, "peer_notif_delay": 0,
        "num_grat_arp": 1, "fail_over_mac": "none", "primary": null, "primary_reselect": "always",
        "arp_interval": 0, "arp_ip_target": [], "ns_ip6_target": ["fd00::1"], "arp_validate": "none",
        "arp_all_targets": "any", "arp_missed_max": 2, "all_slaves_active": 0, "resend_igmp": 1,
        "min_links": 0, "xmit_hash_policy": "layer2", "ad_select": "stable", "lp_interval": 1,
    });
    assert_eq!(serde_json::to_value(&options).unwrap(), expected);
    let slave = SlaveOptions { prio: -5, queue_id: 2, watch: "all=carrier,path".parse().ok() };
    let expected = serde_json::json!({ "prio": -5, "queue_id": 2, "watch": "all=carrier,path" });
    assert_eq!(serde_json::to_value(slave).unwrap(), expected);
}

#[test]
fn slave_options_have_their_ranges() {
    let mut options = SlaveOptions::default();
    for (key, value, expected) in [
        ("prio", "-2147483648", 0),
        ("prio", "2147483648", EINVAL),
        ("prio", "x", EINVAL),
        ("prio", "--1", EINVAL),
        ("queue_id", "65535", 0),
        ("queue_id", "65536", EINVAL),
        ("queue_id", "-1", EINVAL),
        ("watch", "arp", 0),
        ("watch", "link", EINVAL),
    ] {
        assert_eq!(errno(&options.set(key, value)), expected, "{key}={value}");
    }
    assert_eq!(options, SlaveOptions { prio: i32::MIN, queue_id: u16::MAX, watch: "arp".parse().ok() });
    options.set("watch", "bond").unwrap();
    assert_eq!(options.watch, None);
    let error = options.set("priority", "1").unwrap_err();
    assert_eq!(error.to_string(), "priority: no such option; there are: prio, queue_id, watch");
}

#[test]
fn every_key_is_taken_and_shown_by_its_own_name() {
    for key in KEYS {
        let parsed = Setting::parse(key, "1");
        assert!(!matches!(parsed, Err(OptionError::Unknown { .. })), "{key}: {parsed:?}");
        if let Ok(Setting::Option(option)) = parsed {
            assert_eq!(option.key(), *key);
        }
    }
}

fn a_setting() -> impl Strategy<Value = (&'static str, String)> {
    let value = prop_oneof![
        Just(String::new()),
        (0u32..10).prop_map(|small| small.to_string()),
        (0u32..=2000).prop_map(|ms| ms.to_string()),
        any::<i64>().prop_map(|any| any.to_string()),
        prop::sample::select(&["active", "follow", "always", "all", "+192.0.2.1", "-192.0.2.1", "eth0"][..])
            .prop_map(str::to_owned),
    ];
    (prop::sample::select(KEYS), value)
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(key in ".*", value in ".*") {
        let _ = BondOptions::default().set(&key, &value, Slaves::None);
        let _ = SlaveOptions::default().set(&key, &value);
        for key in KEYS {
            let _ = BondOptions::default().set(key, &value, Slaves::None);
        }
    }

    #[test]
    fn delays_are_always_multiples_of_miimon(settings in prop::collection::vec(a_setting(), 0..30)) {
        let mut options = BondOptions::default();
        for (key, value) in settings {
            let before = options.clone();
            if options.set(key, &value, Slaves::None).is_err() {
                options = before;
            }
            prop_assert!(options.miimon == 0 || options.arp_interval == 0);
            for delay in [options.updelay, options.downdelay, options.peer_notif_delay] {
                prop_assert!(delay.is_multiple_of(options.miimon), "{:?}", options);
                prop_assert!(delay <= MAX_MS);
            }
            prop_assert!(options.miimon == 0 || options.parked_delays == DelayTicks::default());
        }
    }

    #[test]
    fn shown_options_read_back(settings in prop::collection::vec(a_setting(), 0..30)) {
        let mut options = monitored();
        for (key, value) in settings {
            if !matches!(key, "arp_ip_target" | "ns_ip6_target") {
                let _ = options.set(key, &value, Slaves::None);
            }
        }
        options.parked_delays = DelayTicks::default();
        if options.arp_interval > 0 {
            options.arp_ip_target = vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        }
        let pairs = options.to_pairs();
        let pairs = pairs.iter().map(|(key, value)| (*key, value.as_str()));
        let (read, _) = BondOptions::from_pairs(pairs, Unmonitored::Allow).unwrap();
        prop_assert_eq!(read, options);
    }
}

#[test]
fn a_long_word_is_no_mistyped_key_and_is_not_repeated() {
    let long = "miimon".repeat(1 << 18);
    let begun = std::time::Instant::now();
    for word in [long.clone(), long.replace('o', "\u{e9}")] {
        for (key, value) in
            [(word.as_str(), "1"), ("miimon", &word), ("mode", &word), ("prio", &word), ("primary", &word)]
        {
            let refused = Setting::parse(key, value).unwrap_err().to_string();
            assert!(refused.len() < 2000 && !refused.contains("did you mean"), "{refused}");
        }
    }
    // To compare it with every key takes minutes.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    assert_eq!(closest("miimonnn", KEYS.iter().copied()), Some("miimon"));
}

#[test]
fn a_number_with_a_unit_is_refused_as_one() {
    for (value, allowed) in [
        ("100ms", "a number without unit, 0 to 2147483647 ms"),
        ("0.1 s", "a number without unit, 0 to 2147483647 ms"),
        ("fast", "0 to 2147483647 ms"),
        ("-1", "0 to 2147483647 ms"),
    ] {
        let refused = Setting::parse("miimon", value).unwrap_err().to_string();
        assert_eq!(refused, format!("miimon={value}: not a value; allowed: {allowed}"));
    }
}
