//! Slaves and devices that vanish or appear, the carrier of bond0, and counters.

use super::*;

/// Returns the packets that an interface sent and received, by `ip -s link`.
fn packets(lab: &Lab, name: &str) -> [u64; 2] {
    let text = lab.host.ip(&format!("-j -s link show dev {name}")).unwrap();
    let link: serde_json::Value = serde_json::from_str(&text).unwrap();
    ["tx", "rx"].map(|way| link[0]["stats64"][way]["packets"].as_u64().unwrap())
}

/// Asserts the values of bond0 in `xbond show -j`.
fn has_its_values(lab: &Lab, datapath: Datapath, bond: &serde_json::Value) {
    for (key, value) in [
        ("name", json!("bond0")),
        ("active_slave", json!("enp0s8")),
        ("mac", json!(lab.host.link("bond0").unwrap().mac.to_string())),
        ("carrier", json!(true)),
        ("datapath", json!(datapath.name())),
        ("absent", json!([])),
    ] {
        assert_eq!(bond[key], value, "{key}");
    }
    let options = [("miimon", json!(100)), ("fail_over_mac", json!("active")), ("num_grat_arp", json!(1))];
    for (key, value) in options {
        assert_eq!(bond["options"][key], value, "{key}");
    }
    let names: Vec<_> = bond["slaves"].as_array().unwrap().iter().map(|slave| &slave["name"]).collect();
    assert_eq!(names, SLAVES);
    for (name, state) in SLAVES.iter().zip(["active", "backup"]) {
        let slave = slave(bond, name);
        let mac = json!(lab.mac(name).unwrap().to_string());
        for (key, value) in [
            ("state", json!(state)),
            ("mii_status", json!("up")),
            ("mac", mac.clone()),
            ("permanent_mac", mac),
            ("link_failure_count", json!(0)),
            ("ifindex", json!(lab.host.link(name).unwrap().ifindex)),
            ("warnings", json!([])),
        ] {
            assert_eq!(slave[key], value, "{name}, {key}");
        }
    }
}

/// Sends pings; returns how many packets enp0s8 sent and received then, by xbond and by the kernel. A stray frame may arrive
/// between two readings, but not each time.
fn counted_by_both(lab: &Lab, xbond: &Xbond<'_>) -> ([u64; 2], [u64; 2]) {
    let observe = || {
        let bond = show(xbond);
        let counters = slave(&bond, "enp0s8")["counters"].clone();
        let [tx, rx] = ["tx_packets", "rx_packets"].map(|key| counters[key].as_u64().unwrap());
        ([tx, rx], packets(lab, "enp0s8"))
    };
    let before = observe();
    assert_eq!(lab.host.ping(PEER_V4.into(), 100).unwrap().received, 100);
    let after = observe();
    let difference = |before: [u64; 2], after: [u64; 2]| [after[0] - before[0], after[1] - before[1]];
    (difference(before.0, after.0), difference(before.1, after.1))
}

#[test]
fn show_in_json_has_its_shape_and_agrees_with_ip() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &["fail_over_mac=active"]);
        let whole = xbond.show(BOND).unwrap();
        assert_eq!(whole["version"], 2);
        assert_eq!(whole["bonds"].as_array().unwrap().len(), 1);
        let bond = &whole["bonds"][0];
        has_its_values(&lab, datapath, bond);
        let counted = || counted_by_both(&lab, &xbond);
        let what = format!("{}: xbond's counters and the kernel's", datapath.name());
        let ([tx, rx], _) = eventually(&what, counted, |(ours, kernels)| ours == kernels);
        assert!(tx >= 100 && rx >= 100, "{tx} sent, {rx} received");

        lab.cut("enp0s8", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s9");
        let bond = show(&xbond);
        assert_eq!(slave(&bond, "enp0s8")["link_failure_count"], 1);
        assert_eq!(slave(&bond, "enp0s8")["mii_status"], "down");
        assert_eq!(slave(&bond, "enp0s9")["state"], "active");
    }
}

#[test]
fn without_a_link_the_bond_has_no_carrier() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        // The first round may come before the far end of a link that has just come up accepts frames.
        let xbond = bond(&lab, datapath, &["fail_over_mac=active", "num_grat_arp=2"]);
        for name in SLAVES {
            lab.cut(name, Cut::Carrier).unwrap();
        }
        let carrier = || lab.host.link(BOND).unwrap().has_carrier();
        eventually("no carrier", carrier, |has| !has);
        assert!(lab.host.ip("-br link show dev bond0").unwrap().contains("NO-CARRIER"));
        let bond = show(&xbond);
        assert_eq!((&bond["carrier"], &bond["active_slave"]), (&json!(false), &json!(null)));

        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.reconnect("enp0s9", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s9");
        eventually("carrier", carrier, |has| *has);
        let announced = |frame: &Frame| frame.ifname == "p1" && frame.announces(HOST_V4.into()).is_some();
        let frame = capture.wait_for(WAIT_LIMIT, announced).unwrap();
        assert_eq!(frame.source(), lab.mac("enp0s9").unwrap());
        meet(&lab);
    }
}

#[test]
fn a_slave_that_is_absent_joins_when_it_appears() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = "version = 1\n[bond.bond0]\nslaves = [\"late0\", \"enp0s8\"]\nmiimon = 100\n\
                fail_over_mac = \"active\"\naddresses = [\"192.168.99.101/24\"]\n";
    file.write_all(text.as_bytes()).unwrap();
    let xbond = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    meet(&lab);
    let bond = show(&xbond);
    assert_eq!((&bond["active_slave"], &bond["absent"]), (&json!("enp0s8"), &json!(["late0"])));
    let text = xbond.cli(["show"]).unwrap();
    assert!(text.lines().any(|line| line.contains("late0") && line.contains("absent")), "{text}");

    let switch = lab.switch.netns.name();
    lab.host.ip(&format!("link add late0 type veth peer name p9 netns {switch}")).unwrap();
    lab.switch.plug("p9").unwrap();
    eventually("absent", || show(&xbond)["absent"].clone(), |absent| *absent == json!([]));
    wait_for_status(&xbond, "late0", "up");
    assert_eq!(slave(&show(&xbond), "late0")["state"], "backup");
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    wait_for_active(&xbond, "late0");
    meet(&lab);
}

#[test]
fn an_active_slave_that_is_deleted_is_failed_over() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &["fail_over_mac=follow"]);
        let traffic = traffic(&lab, 1_000);
        traffic.wait_for_more(100).unwrap();
        let event = Instant::now();
        lab.host.ip("link del enp0s8").unwrap();
        wait_for_active(&xbond, "enp0s9");
        traffic.wait_for_more(500).unwrap();
        let reports = traffic.stop().unwrap();
        report(&format!("{}, active slave deleted", datapath.name()), &reports);
        for report in &reports {
            assert!(matches!(report.recovery(event), Recovery::After(_)), "{report:?}");
        }
        let slaves = show(&xbond)["slaves"].clone();
        assert_eq!(slaves.as_array().unwrap().len(), 1, "{slaves}");
        xbond.stop().unwrap();
    }
}

#[test]
fn a_bond_whose_device_is_deleted_is_removed_and_the_agent_keeps_running() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        lab.host.ip("link set enp0s9 mtu 1400").unwrap();
        let xbond = bond(&lab, datapath, &["fail_over_mac=none"]);
        lab.host.ip("link del bond0").unwrap();
        xbond.wait_for("bond0-port was deleted").unwrap();
        xbond.wait_for("slaves restored").unwrap();
        for nic in &lab.nics {
            let link = lab.host.link(&nic.name).unwrap();
            assert_eq!((link.mac, link.is_up()), (nic.mac, false), "{link:?}");
        }
        assert_eq!(lab.host.link("enp0s9").unwrap().mtu, 1400);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&xbond.cli(["show", "-j"]).unwrap()).unwrap()["bonds"],
            json!([])
        );
        let log = xbond.stop().unwrap();
        assert_eq!(log.lines().filter(|line| line.contains(" WARN ")).count(), 1, "{log}");
    }
}
