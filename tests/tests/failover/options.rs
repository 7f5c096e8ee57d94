//! Options of a running bond: what they change, and when they are refused.

use super::*;

/// Returns how long it takes until `name` is the active slave.
fn takes_over(xbond: &Xbond<'_>, name: &str, since: Instant) -> Duration {
    wait_for_active(xbond, name);
    since.elapsed()
}

#[test]
fn delays_set_at_run_time_are_kept() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    // Distinguishes a delay from a busy machine.
    let ms = if time_is_no_measure().is_some() { 3000 } else { 600 };
    let delay = Duration::from_millis(ms);

    xbond.set(BOND, &format!("downdelay={ms}")).unwrap();
    let event = lab.cut("enp0s8", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s8", "going down");
    assert_eq!(show(&xbond)["active_slave"], "enp0s8", "the slave stays active during downdelay");
    let took = takes_over(&xbond, "enp0s9", event);
    assert!(took >= delay, "downdelay: {took:?}");

    xbond.set(BOND, &format!("updelay={ms}")).unwrap();
    let event = lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s8", "going back");
    wait_for_status(&xbond, "enp0s8", "up");
    assert!(event.elapsed() >= delay, "updelay: {:?}", event.elapsed());

    // A link that returns within downdelay was never down.
    let failures = slave(&show(&xbond), "enp0s9")["link_failure_count"].clone();
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "going down");
    lab.reconnect("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "up");
    assert_eq!(show(&xbond)["active_slave"], "enp0s9");
    assert_eq!(slave(&show(&xbond), "enp0s9")["link_failure_count"], failures);

    if let Some(reason) = time_is_no_measure() {
        return skip(&format!("a failover without downdelay: {reason}"));
    }
    // Without downdelay the next failover is immediate; the delay would prevent that.
    xbond.set(BOND, "downdelay=0").unwrap();
    let event = lab.cut("enp0s9", Cut::Carrier).unwrap();
    let took = takes_over(&xbond, "enp0s8", event);
    assert!(took < delay, "no downdelay: {took:?}");
}

#[test]
fn miimon_set_at_run_time_takes_effect() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    // Longer than a test waits. The guard would notice the cut with any frame that the host sends.
    let xbond = bond_with(&lab, Datapath::Tc, &["miimon=60000"], &["--no-link-events", "--guard", "off"]);
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s8");
    xbond.set(BOND, "miimon=20").unwrap();
    wait_for_active(&xbond, "enp0s9");
    assert_eq!(show(&xbond)["options"]["miimon"], 20);
    // Also on later changes.
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s8", "up");
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_active(&xbond, "enp0s8");
}

#[test]
fn primary_and_primary_reselect_decide_which_slave_takes_over() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    xbond.set(BOND, "primary=enp0s9").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s9", "a primary that is up takes over when it is set");
    // Both veths have the same speed.
    for (reselect, active) in [("always", "enp0s9"), ("better", "enp0s8"), ("failure", "enp0s8")] {
        xbond.set(BOND, "active_slave=enp0s9").unwrap();
        xbond.set(BOND, &format!("primary_reselect={reselect}")).unwrap();
        lab.cut("enp0s9", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s8");
        lab.reconnect("enp0s9", Cut::Carrier).unwrap();
        wait_for_status(&xbond, "enp0s9", "up");
        // The election happens with the change of the link state.
        assert_eq!(show(&xbond)["active_slave"], active, "primary_reselect={reselect}");
        assert_eq!(show(&xbond)["options"]["primary_reselect"], reselect);
    }
    // Returning to always reselects at once.
    xbond.set(BOND, "primary_reselect=always").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s9");
    // Without a primary, an empty active_slave causes an election without preference: the first enslaved slave wins.
    xbond.set(BOND, "primary_reselect=failure").unwrap();
    xbond.set(BOND, "primary=").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s9");
    xbond.set(BOND, "active_slave=").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s8");
}

/// A NIC whose link returns has another speed than before, as after a new negotiation.
#[test]
fn better_compares_the_speed_of_the_returning_primary() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).wire(Wire::Tap).build().unwrap();
    let set_speed = |slave: &str, speed: u32| {
        lab.host.exec(&format!("ethtool -s {slave} speed {speed} duplex full")).unwrap();
    };
    SLAVES.iter().for_each(|name| set_speed(name, 1000));
    let xbond = bond(&lab, Datapath::Tc, &["primary=enp0s9", "primary_reselect=better"]);
    for (speed, active) in [(100, "enp0s8"), (10_000, "enp0s9"), (100, "enp0s8"), (1000, "enp0s8")] {
        lab.cut("enp0s9", Cut::Carrier).unwrap();
        wait_for_status(&xbond, "enp0s9", "down");
        wait_for_active(&xbond, "enp0s8");
        set_speed("enp0s9", speed);
        lab.reconnect("enp0s9", Cut::Carrier).unwrap();
        eventually(
            "the speed is known",
            || slave(&show(&xbond), "enp0s9"),
            |primary| (&primary["speed"], &primary["mii_status"]) == (&speed.into(), &"up".into()),
        );
        // The speed may have been read before, while the link was down, and not again yet.
        wait_for_active(&xbond, active);
    }
}

/// Further addresses of bond0, and the addresses of a VLAN above it.
const ADDRESSES: [(&str, &str); 5] = [
    ("192.168.99.102/24", "bond0"),
    ("198.51.100.7/32", "bond0"),
    ("fd00:99::101/64", "bond0"),
    ("192.0.2.5/24", "bond0.5"),
    ("2001:db8:5::5/64", "bond0.5"),
];

/// Adds a VLAN; not every kernel has them.
fn add_vlan(lab: &Lab) -> bool {
    match lab.host.ip("link add bond0.5 link bond0 type vlan id 5") {
        Ok(_) => {
            lab.host.ip("link set bond0.5 up").unwrap();
            true
        }
        Err(error) if format!("{error:#}").contains("Unknown device type") => false,
        Err(error) => panic!("{error:#}"),
    }
}

/// Returns the source and announced MAC addresses of the frames at a port that announce this address.
fn announced(frames: &[Frame], port: &str, address: IpAddr) -> Vec<(Mac, Mac)> {
    let of_port = frames.iter().filter(|frame| frame.ifname == port && !frame.outgoing);
    of_port.filter_map(|frame| Some((frame.source(), frame.announces(address)?))).collect()
}

#[test]
fn addresses_are_announced_as_often_as_asked_for_by_the_new_active_slave() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    for fail_over_mac in ["none", "active", "follow"] {
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={fail_over_mac}")]);
        let has_vlan = add_vlan(&lab);
        let addresses: Vec<_> =
            ADDRESSES.into_iter().filter(|(_, device)| *device == BOND || has_vlan).collect();
        for (address, device) in &addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            lab.host.ip(&format!("address add {address} dev {device}{nodad}")).unwrap();
        }
        let bare = |address: &str| address.split('/').next().unwrap().parse::<IpAddr>().unwrap();
        let mut addresses: Vec<_> = addresses.iter().map(|(address, _)| bare(address)).collect();
        addresses.push(HOST_V4.into());

        let mut active = SLAVES[0];
        for (setting, rounds) in [("num_grat_arp=1", 1), ("num_unsol_na=3", 3), ("num_grat_arp=0", 0)] {
            let what = format!("{fail_over_mac}, {setting}");
            xbond.set(BOND, setting).unwrap();
            let (old, new) = (active, other(active));
            active = new;
            let capture = Capture::start(&lab.switch.netns).unwrap();
            xbond.set(BOND, &format!("active_slave={new}")).unwrap();
            let mac: Mac = show(&xbond)["mac"].as_str().unwrap().parse().unwrap();
            let expected =
                if fail_over_mac == "active" { lab.mac(new).unwrap() } else { lab.mac("enp0s8").unwrap() };
            assert_eq!(mac, expected, "{what}");

            let port = lab.port(new).unwrap();
            let whole = |frames: &Vec<Frame>| {
                addresses.iter().all(|address| announced(frames, &port, *address).len() >= rounds)
            };
            eventually(&what, || capture.frames(), whole);
            // Time for some more rounds, which must not come.
            thread::sleep(MIIMON * 4);
            let frames = capture.stop().unwrap();
            for address in &addresses {
                let seen = announced(&frames, &port, *address);
                assert_eq!(seen, vec![(mac, mac); rounds], "{what}, {address}");
                let by_old = announced(&frames, &lab.port(old).unwrap(), *address);
                assert_eq!(by_old, [], "{what}, {address} by {old}");
            }
            let tags: Vec<_> =
                frames.iter().filter(|frame| frame.announces(bare("192.0.2.5")).is_some()).collect();
            assert!(tags.iter().all(|frame| frame.vlans() == [5]), "{what}: {tags:?}");
        }
        xbond.stop().unwrap();
        if !has_vlan && fail_over_mac == "follow" {
            skip("the addresses of a VLAN: this kernel has no VLANs");
        }
    }
}

/// Removes the counters that a stray frame or a tick changes.
fn uncounted(mut bond: serde_json::Value) -> serde_json::Value {
    for slave in bond["slaves"].as_array_mut().unwrap() {
        slave["counters"].take();
    }
    bond["drops"].take();
    bond["ticks"].take();
    bond
}

#[test]
fn a_refused_setting_changes_nothing() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "down");
    for (settings, reason) in [
        (&["active_slave=enp0s9"][..], "enp0s9 is not up"),
        (&["active_slave=enp0s10"], "no slave enp0s10"),
        (&["miimon=-1"], "miimon"),
        (&["miimon=1s"], "miimon"),
        (&["num_grat_arp=256"], "num_grat_arp"),
        (&["primary_reselect=sometimes"], "primary_reselect"),
        (&["fail_over_mac=active"], "fail_over_mac"),
        (&["mimon=50"], "mimon"),
        // All options or none.
        (&["miimon=50", "downdelay=never"], "downdelay"),
        (&["miimon=50", "active_slave=enp0s8"], "active_slave"),
    ] {
        let before = uncounted(show(&xbond));
        let error = xbond.cli([&["set", BOND], settings].concat()).unwrap_err().to_string();
        assert!(error.contains(reason), "{settings:?}: {error}");
        assert_eq!(uncounted(show(&xbond)), before, "{settings:?}");
    }
    assert!(xbond.set("bond1", "miimon=50").unwrap_err().to_string().contains("bond1"));
}
