//! Layer 3 state of a NIC: addresses, routes, neighbours, nexthop objects and rules, with all of their attributes.

mod common;
mod snapshot;

use common::eventually;
use proptest::{
    prelude::*,
    sample::subsequence,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use serde_json::Value;
use xbond_tests::{Lab, NetNs, Xbond, skip_if_unable, xbond};

/// One of each kind and attribute that the kernel supports. `{dev}` is the NIC.
const STATE: [&str; 69] = [
    "address add 10.0.0.1/24 dev {dev} label {dev}:web",
    "address add 10.0.0.2/24 dev {dev} metric 77",
    "address add 10.1.0.1 peer 10.1.0.2/32 dev {dev}",
    "address add 10.0.3.1/24 brd 10.0.3.127 dev {dev} noprefixroute",
    "address add 10.0.4.1/24 dev {dev} scope link valid_lft 900 preferred_lft 0",
    "address add 10.0.5.1/24 dev {dev} metric 300",
    "address add fd00::1/64 dev {dev}",
    "address add fd00::2/64 dev {dev} nodad valid_lft 900 preferred_lft 600",
    "address add fd01::1/64 dev {dev} noprefixroute home nodad",
    "address add fd02::1/64 dev {dev} metric 9",
    "address add fd03::1 peer fd03::2/128 dev {dev}",
    "address add fe80::1/64 dev {dev}",
    "route add 192.0.2.0/24 dev {dev} scope link",
    "route add 20.0.0.0/8 via inet6 fe80::9 dev {dev}",
    "route add 21.0.0.0/8 via 10.0.0.9 mtu lock 1300 advmss 1200 realm 5 initcwnd 7",
    "route add 22.0.0.0/8 via 10.0.0.9 tos 8",
    "route add 22.0.0.0/8 via 10.0.0.8",
    "route append 22.0.0.0/8 via 10.0.0.7",
    "route add 23.0.0.0/8 nexthop via 10.0.0.8 weight 3 nexthop via 10.0.0.9",
    "route add 24.0.0.0/8 encap ip6 dst fd00::9 dev {dev}",
    "route add 26.0.0.0/8 via 192.0.2.77 metric 50 proto 42 table 1000",
    "route add 27.0.0.0/8 via 203.0.113.1 dev {dev} onlink",
    "route add 28.0.0.0/8 via 10.0.0.9 src 10.0.0.2 proto bird",
    "route add local 30.0.0.0/8 dev {dev}",
    "route add broadcast 31.0.0.255 dev {dev} table 9",
    "route add 10.0.3.0/24 dev {dev} proto kernel scope link src 10.0.3.1 metric 100",
    "route del 10.0.5.0/24 dev {dev} proto kernel",
    "route add 32.0.0.0/8 dev lo src 10.0.0.1",
    // Routes through gateways that no route reaches any more.
    "address add 10.0.9.1/24 dev {dev} metric 400",
    "route add 33.0.0.0/8 via 10.0.9.9 proto 42",
    "route add 34.0.0.0/8 nexthop via 10.0.9.8 weight 3 nexthop via 10.0.9.9",
    "nexthop add id 12 via 10.0.9.7 dev {dev}",
    "address del 10.0.9.1/24 dev {dev}",
    "address add fd09::1/64 dev {dev} nodad",
    "-6 route add 2001:db8:a::/48 via fd09::9 metric 7",
    "-6 route add 2001:db8:b::/48 via fd09::9 table 77",
    "address del fd09::1/64 dev {dev}",
    "nexthop add id 5 via 10.0.0.7 dev {dev} proto 42",
    "nexthop add id 6 via fd00::7 dev {dev}",
    "nexthop add id 7 encap ip id 9 dst 10.0.0.9 via 10.0.0.9 dev {dev}",
    "nexthop add id 8 dev lo",
    "nexthop add id 10 group 5,3/8,7",
    "nexthop add id 11 group 5 type resilient buckets 4",
    "route add 25.0.0.0/8 nhid 10",
    "route add 25.1.0.0/16 nhid 11 metric 3",
    "route add 25.2.0.0/16 nhid 7",
    "-6 route add 2001:db8:9::/48 nhid 6",
    "-6 route add 2001:db8:1::/48 via fd00::9 expires 900 pref high",
    "-6 route add 2001:db8:2::/48 from fd00::/64 via fd00::9 dev {dev}",
    "-6 route add 2001:db8:3::/48 encap seg6 mode encap segs fd00::7 dev {dev}",
    "-6 route add 2001:db8:4::/48 nexthop via fd00::8 weight 2 nexthop via fd00::9",
    "-6 route add 2001:db8:5::/48 via fd00::9 mtu 1400 table 77 metric 5 proto static",
    "-6 route add 2001:db8:6::/48 via fe80::9 dev {dev} src fd00::1",
    "-6 route add local 2001:db8:7::/48 dev {dev}",
    "-6 route add anycast 2001:db8:8::1/128 dev {dev}",
    "-6 route add default via fe80::99 dev {dev} proto ra metric 100",
    "-6 route add fd01::/64 dev {dev} proto kernel metric 100",
    "-6 route del fd02::/64 dev {dev}",
    "neighbour add 10.0.0.50 lladdr 02:00:00:00:00:50 dev {dev} nud permanent",
    "neighbour add 10.0.0.52 lladdr 02:00:00:00:00:52 dev {dev} nud noarp",
    "neighbour add 10.0.0.53 lladdr 02:00:00:00:00:53 dev {dev} nud permanent extern_learn",
    "neighbour add fd00::50 lladdr 02:00:00:00:00:51 dev {dev} nud permanent router",
    "neighbour add proxy 10.0.0.51 dev {dev}",
    "neighbour add proxy fd00::51 dev {dev}",
    "rule add priority 100 iif {dev} lookup 1000",
    "rule add priority 101 oif {dev} from 10.0.0.0/24 lookup 9",
    "rule add priority 102 not iif {dev} tos 8 lookup 77 suppress_prefixlength 3",
    "-6 rule add priority 103 iif {dev} from fd00::/64 lookup 77 protocol 42",
    "-6 rule add priority 104 from all lookup 77",
];

const LISTS: [&str; 10] = [
    "-4 address show",
    "-6 address show",
    "-4 route show table all",
    "-6 route show table all",
    "-4 rule show",
    "-6 rule show",
    "nexthop show",
    "neighbour show nud permanent nud noarp",
    "-4 neighbour show proxy",
    "-6 neighbour show proxy",
];

/// Creates a host whose first NIC has all of it.
fn host_with_state() -> Lab {
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    for device in ["lo", "enp0s8"] {
        lab.host.ip(&format!("link set {device} up")).unwrap();
    }
    lab.host.sysctl("ipv6/conf/enp0s8/accept_ra", "0").unwrap();
    snapshot::await_ipv6(&lab.host, "enp0s8");
    lab
}

fn add_state(host: &NetNs, commands: &[&str]) {
    for command in commands {
        host.ip(&command.replace("{dev}", "enp0s8")).unwrap();
    }
    for family in ["-4", "-6"] {
        eventually(
            "no address is tentative",
            || host.ip(&format!("{family} -oneline address show tentative")).unwrap(),
            String::is_empty,
        );
    }
}

type State = Vec<(String, Vec<String>)>;

/// Returns all lists, with the device's own name and ifindex replaced.
fn state(host: &NetNs, device: &str) -> State {
    let of = |list: &&str| {
        let text = host.ip(&format!("-details -json {list}")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Array(Vec::new()));
        let mut lines: Vec<_> = value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry_of(entry, list, device))
            .collect();
        // The kernel lists IPv6 routes in the order of their creation.
        if list.contains("-6 route") || list.contains("neighbour") {
            lines.sort();
        }
        ((*list).to_owned(), lines)
    };
    LISTS.iter().map(of).collect()
}

fn entry_of(entry: &Value, list: &str, device: &str) -> Option<String> {
    let mut entry = entry.clone();
    if list.contains("address") {
        (entry["ifname"] == device).then_some(())?;
        let mut addresses = entry["addr_info"].take();
        for address in addresses.as_array_mut().into_iter().flatten() {
            clean(address);
        }
        return Some(addresses.to_string().replace(device, "DEVICE"));
    }
    let names = ["enp0s8", "enp0s9", "bond0", "bond0-port", "other0", "other1"]
        .iter()
        .filter(|name| **name != device);
    let other = |name: &&str| entry["dev"] == **name || entry["iif"] == **name || entry["oif"] == **name;
    let kernels = entry["protocol"] == "kernel" && list.contains("-6 route");
    // Entries of the kernel for multicast groups, which depend on the frames that are sent.
    let of_group = entry["dst"].as_str().is_some_and(|to| list.contains("neighbour") && to.starts_with("ff"));
    if of_group || kernels && entry["type"] == "multicast" || names.copied().any(|name| other(&name)) {
        return None;
    }
    clean(&mut entry);
    Some(entry.to_string().replace(device, "DEVICE"))
}

/// Removes elapsed times and carrier flags, which vary.
fn clean(entry: &mut Value) {
    for key in ["valid_life_time", "preferred_life_time", "expires"] {
        if let Some(time) = entry.get_mut(key)
            && time.as_u64().is_some_and(|time| (800..=900).contains(&time) || (500..=600).contains(&time))
        {
            *time = "soon".into();
        }
    }
    if let Some(buckets) = entry.get_mut("resilient_args") {
        buckets["unbalanced_time"].take();
    }
    if let Some(flags) = entry.get_mut("flags").and_then(Value::as_array_mut) {
        flags.retain(|flag| flag != "linkdown");
    }
    for hop in entry.get_mut("nexthops").and_then(Value::as_array_mut).into_iter().flatten() {
        clean(hop);
    }
}

/// Returns the state of the NIC once the kernel has created the routes of its IPv6 addresses, which takes a moment.
fn settled(host: &NetNs) -> State {
    let last = std::cell::RefCell::new(state(host, "enp0s8"));
    let observe = || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = state(host, "enp0s8");
        (last.replace(now.clone()) == now, now)
    };
    eventually("two readings are the same", observe, |(same, _)| *same).1
}

/// Waits until a device has the state that was recorded before.
#[track_caller]
fn assert_holds(before: &State, host: &NetNs, device: &str, when: &str) {
    let deadline = std::time::Instant::now() + xbond_tests::WAIT_LIMIT;
    while state(host, device) != *before && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_same(before, &state(host, device), when);
}

#[track_caller]
fn assert_same(before: &State, after: &State, when: &str) {
    let mut text = String::new();
    for ((list, before), (_, after)) in before.iter().zip(after).filter(|(before, after)| before != after) {
        text += &format!("{list}:\n");
        let missing = before.iter().filter(|line| !after.contains(line));
        let new = after.iter().filter(|line| !before.contains(line));
        text.extend(missing.map(|line| format!("- {line}\n")).chain(new.map(|line| format!("+ {line}\n"))));
        if before.len() == after.len() && before.iter().all(|line| after.contains(line)) {
            text += &format!("order: {before:#?}\n{after:#?}\n");
        }
    }
    assert!(text.is_empty(), "{when}:\n{text}");
}

fn bond0(more: &[&'static str]) -> Vec<&'static str> {
    let mut line = vec!["--bond", "bond0", "--slave", "enp0s8", "--slave", "enp0s9", "-o", "miimon=100"];
    line.extend(more);
    line
}

#[test]
fn layer_3_state_is_restored() {
    skip_if_unable!();
    for more in [&[][..], &["--move-addresses"], &["-o", "fail_over_mac=active", "--move-addresses"]] {
        let lab = host_with_state();
        add_state(&lab.host, &STATE);
        let before = settled(&lab.host);
        let xbond = Xbond::run(&lab.host, bond0(more)).unwrap();
        xbond.stop().unwrap();
        assert_holds(&before, &lab.host, "enp0s8", &format!("stopped, {more:?}"));

        let xbond = Xbond::run(&lab.host, bond0(more)).unwrap();
        xbond.kill().unwrap();
        xbond::cli(&lab.host, ["down", "bond0", "--force"]).unwrap();
        assert_holds(&before, &lab.host, "enp0s8", &format!("killed, {more:?}"));
    }
}

#[test]
fn the_bond_takes_the_layer_3_state_of_a_slave_unchanged() {
    skip_if_unable!();
    let lab = host_with_state();
    add_state(&lab.host, &STATE);
    let before = settled(&lab.host);
    let xbond = Xbond::run(&lab.host, bond0(&["--move-addresses"])).unwrap();
    // Its own link-local address appears with the carrier.
    assert_holds(&before, &lab.host, "bond0", "on bond0");
    xbond.stop().unwrap();
    assert_holds(&before, &lab.host, "enp0s8", "on the slave again");
}

/// State that the kernel does not hand out, or that cannot be on the bond, is named, and nothing is changed.
#[test]
fn addresses_and_routes_that_cannot_be_moved_are_refused_by_name() {
    skip_if_unable!();
    let lab = host_with_state();
    let host = &lab.host;
    let table = [
        (
            vec!["address add 10.0.0.1/24 dev {dev} label {dev}:45678901"],
            vec![],
            "enp0s8: its address 10.0.0.1/24 with label enp0s8:45678901 cannot be moved to bond0123456: the label",
        ),
        (
            vec!["rule add priority 7 iif {dev} lookup 9", "rule add priority 7 from all lookup 10"],
            vec!["rule del priority 7", "rule del priority 7"],
            "enp0s8: its rule 7: iif enp0s8 cannot be moved to bond0123456: another rule of this priority",
        ),
    ];
    for (make, unmake, expected) in table {
        add_state(host, &["address add 10.9.0.1/24 dev {dev}"]);
        add_state(host, &make);
        let found = snapshot::Snapshot::of(host);
        let line =
            ["run", "--bond", "bond0123456", "--slave", "enp0s8", "-o", "miimon=100", "--move-addresses"];
        let error = xbond::cli(host, line).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        found.assert_holds(host, expected);
        for command in unmake {
            host.ip(command).unwrap();
        }
        host.ip("address flush dev enp0s8").unwrap();
    }
}

/// Routes of other devices keep their source address, and their order relative to the slave's.
#[test]
fn routes_of_other_devices_are_unchanged() {
    skip_if_unable!();
    let lab = host_with_state();
    let host = &lab.host;
    host.ip("link add other0 type veth peer name other1").unwrap();
    for command in [
        "link set other0 up",
        "link set other1 up",
        "address add 10.0.0.1/24 dev enp0s8",
        "address add 10.0.0.2/24 dev other0",
        "route add 20.0.0.0/8 dev other0 src 10.0.0.1",
        "route add 21.0.0.0/8 dev enp0s8",
        "route append 21.0.0.0/8 dev other0",
        "route append 22.0.0.0/8 dev other0",
        "route append 22.0.0.0/8 dev enp0s8",
        "route add 23.0.0.0/8 nexthop via 10.0.0.8 dev enp0s8 nexthop via 10.0.0.9 dev other0 weight 2",
        "address add fd00::1/64 dev enp0s8 nodad",
        "address add fd01::1/64 dev other0 nodad",
        "-6 route add 2001:db8::/32 nexthop via fd00::8 dev enp0s8 nexthop via fd01::9 dev other0",
        "nexthop add id 1 via 10.0.0.8 dev enp0s8",
        "nexthop add id 2 via 10.0.0.9 dev other0",
        "nexthop add id 3 group 1/2,7",
        "route add 24.0.0.0/8 nhid 3",
    ] {
        host.ip(command).unwrap();
    }
    let routes = || host.ip("-4 route show table all").unwrap() + &host.ip("-6 route show").unwrap();
    let observe = || {
        // The kernel lists IPv6 routes of one metric in the order of their creation.
        let routes = routes().replace(" linkdown", "");
        let lines =
            routes.lines().filter(|line| !line.starts_with("fe80::/64")).map(|line| format!("{line}\n"));
        lines.collect::<String>() + &host.ip("nexthop").unwrap()
    };
    eventually("the carriers are seen", routes, |text| !text.contains("linkdown"));
    let before = observe();
    for more in [&[][..], &["--move-addresses"]] {
        let xbond = Xbond::run(host, bond0(more)).unwrap();
        if !more.is_empty() {
            let text = host.ip("route show 23.0.0.0/8").unwrap() + &host.ip("nexthop show id 3").unwrap();
            assert!(text.contains("via 10.0.0.8 dev bond0") && text.contains("group 1/2,7"), "{text}");
            let text = host.ip("-6 route show 2001:db8::/32").unwrap();
            assert!(text.contains("via fd00::8 dev bond0") && !text.contains("enp0s8"), "{text}");
        }
        xbond.stop().unwrap();
        eventually(&format!("as before, {more:?}:\n{before}"), observe, |after| *after == before);
    }
}

/// The bond keeps the addresses of a slave that is released, and the NIC gets them back when the bond is removed.
#[test]
fn a_released_slave_gets_its_addresses_back_when_the_bond_ends() {
    skip_if_unable!();
    for (how, again) in [("stop", false), ("kill", false), ("stop", true)] {
        let lab = host_with_state();
        let host = &lab.host;
        add_state(host, &STATE);
        let before = settled(host);
        let xbond = Xbond::run(host, bond0(&["--move-addresses"])).unwrap();
        xbond.cli(["del-slave", "bond0", "enp0s8"]).unwrap();
        assert_holds(&before, host, "bond0", "after del-slave");
        let shown = || xbond.cli(["show", "-d", "bond0"]).unwrap();
        assert!(shown().contains("has the addresses of enp0s8, which gets them back when"), "{}", shown());
        if again {
            xbond.cli(["add-slave", "bond0", "enp0s8"]).unwrap();
            assert!(!shown().contains("has the addresses of enp0s8"), "{}", shown());
        }
        if how == "kill" {
            xbond.kill().unwrap();
            assert!(xbond::cli(host, ["show", "-d"]).unwrap().contains("has the addresses of enp0s8"));
            xbond::cli(host, ["down", "bond0", "--force"]).unwrap();
        } else {
            xbond.stop().unwrap();
        }
        assert_holds(&before, host, "enp0s8", &format!("{how}, again: {again}"));
    }
}

/// A NIC that has another use by then is not changed.
#[test]
fn a_released_slave_that_became_another_masters_port_is_not_changed() {
    skip_if_unable!();
    let lab = host_with_state();
    let host = &lab.host;
    add_state(host, &["address add 10.0.0.1/24 dev {dev}"]);
    let xbond = Xbond::run(host, bond0(&["--move-addresses"])).unwrap();
    xbond.cli(["del-slave", "bond0", "enp0s8"]).unwrap();
    host.ip("link add br0 type bridge").unwrap();
    host.ip("link set enp0s8 master br0").unwrap();
    let log = xbond.stop().unwrap();
    assert!(log.contains("enp0s8: does not get its addresses back: it belongs to something else"), "{log}");
    assert!(!host.ip("address show dev enp0s8").unwrap().contains("10.0.0.1"));
    assert!(host.ip("link show dev enp0s8").unwrap().contains("master br0"));
}

/// Changes of an administrator while the bond is up: on bond0 (`{dev}`), and on another device.
const CHANGES: [&str; 12] = [
    "address add 10.44.0.1/24 dev {dev}",
    "address del 10.0.0.1/24 dev {dev}",
    "address del fd00::2/64 dev {dev}",
    "route add 40.0.0.0/8 dev {dev}",
    "route del 192.0.2.0/24 dev {dev}",
    "route replace 28.0.0.0/8 dev {dev} mtu 1400",
    "-6 route add 2001:db8:40::/48 dev {dev}",
    "-6 route del 2001:db8:9::/48 dev {dev}",
    "neighbour replace 10.0.0.50 lladdr 02:00:00:00:00:99 dev {dev} nud permanent",
    "address add 10.55.0.1/24 dev other0",
    "route add 41.0.0.0/8 dev other0 src 10.55.0.1",
    "-6 route add 2001:db8:41::/48 dev other0 metric 7",
];

/// Returns a route or an address with any attributes; the kernel may refuse it.
fn any_command() -> impl Strategy<Value = String> {
    let route = (0_u8..4, 1_u32..60, 1_u32..200, 1_u32..6, 0_u32..3).prop_map(|(kind, net, metric, proto, table)| {
        let table = [254, 1000, 77][table as usize];
        let to = format!("{}.0.0.0/8", 50 + net);
        let tail = format!("proto {} table {table} metric {metric}", 100 + proto);
        match kind {
            0 => format!("route add {to} dev {{dev}} {tail}"),
            1 => format!("route add {to} via 10.0.0.{net} dev {{dev}} onlink {tail} mtu {}", 1000 + metric),
            2 => format!("-6 route add 2001:db8:{net:x}00::/40 dev {{dev}} {tail}"),
            _ => format!("route add {to} nexthop via 10.0.0.8 dev {{dev}} onlink weight {proto} nexthop via 10.0.0.9 dev {{dev}} onlink table {table}"),
        }
    });
    let address = (0_u8..3, 1_u32..200, 8_u32..32).prop_map(|(kind, host, length)| match kind {
        0 => format!("address add 10.77.{host}.1/{length} dev {{dev}}"),
        1 => format!("address add 10.78.{host}.1/24 dev {{dev}} metric {length} noprefixroute"),
        _ => format!("address add fd77:{host:x}::1/64 dev {{dev}} nodad"),
    });
    prop_oneof![route, address]
}

#[derive(Clone, Debug)]
struct Case {
    state: Vec<&'static str>,
    more: Vec<String>,
    changes: Vec<&'static str>,
    moves: bool,
    datapath: &'static str,
    kills: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let state = subsequence(STATE.to_vec(), 5..40);
    let more = prop::collection::vec(any_command(), 0..12);
    let changes = subsequence(CHANGES.to_vec(), 0..CHANGES.len());
    let datapath = prop_oneof![Just("tc"), Just("xdp")];
    (state, more, changes, any::<bool>(), datapath, any::<bool>()).prop_map(
        |(state, more, changes, moves, datapath, kills)| Case {
            state,
            more,
            changes,
            moves,
            datapath,
            kills,
        },
    )
}

/// Returns the state of other devices.
fn others(host: &NetNs) -> String {
    let list = |list: &str| host.ip(list).unwrap().replace(" linkdown", "");
    list("-4 route show table all dev other0")
        + &list("-6 route show table all dev other0")
        + &list("-o address show dev other0")
}

fn returns(case: &Case) {
    let lab = host_with_state();
    let host = &lab.host;
    host.ip("link add other0 type veth peer name other1").unwrap();
    ["other0", "other1"].iter().for_each(|name| drop(host.ip(&format!("link set {name} up")).unwrap()));
    let commands = case.state.iter().map(|line| (*line).to_owned()).chain(case.more.iter().cloned());
    // The kernel refuses a line that depends on an omitted one.
    commands.for_each(|line| drop(host.ip(&line.replace("{dev}", "enp0s8"))));
    add_state(host, &[]);
    let before = settled(host);
    let mut more = vec!["--datapath", case.datapath];
    more.extend(case.moves.then_some("--move-addresses"));
    let xbond = match Xbond::run(host, bond0(&more)) {
        Ok(xbond) => xbond,
        Err(error) => {
            assert!(format!("{error:#}").contains("cannot be"), "{error:#}");
            return assert_holds(&before, host, "enp0s8", "refused");
        }
    };
    if case.moves {
        assert_holds(&before, host, "bond0", "on bond0");
    }
    case.changes.iter().for_each(|line| drop(host.ip(&line.replace("{dev}", "bond0"))));
    let foreign = others(host);
    if case.kills {
        xbond.kill().unwrap();
        xbond::cli(host, ["down", "bond0", "--force"]).unwrap();
    } else {
        xbond.stop().unwrap();
    }
    assert_holds(&before, host, "enp0s8", "at the end");
    assert_eq!(others(host), foreign, "other devices");
}

/// Random parts of the state, with random routes and addresses, and changes by an administrator while the bond is up.
/// The cases are the same in each run; XBOND_LAYER3_CASES sets another number, with its own seed (XBOND_LAYER3_SEED).
#[test]
fn addresses_and_routes_of_a_nic_are_always_restored() {
    skip_if_unable!();
    let number = |name: &str, default: u32| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let cases = number("XBOND_LAYER3_CASES", 4);
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number("XBOND_LAYER3_SEED", 1).to_le_bytes());
    let config = Config { cases, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let run = |case: Case| {
        let returned = std::panic::catch_unwind(|| returns(&case));
        returned.map_err(|_| TestCaseError::fail("it did not return"))
    };
    if let Err(error) = runner.run(&any_case(), run) {
        panic!("{error}");
    }
}
