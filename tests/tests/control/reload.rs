//! Reload: what differs from the files is changed, everything else stays, and a refused change changes nothing.

use super::*;

/// An agent with bond0 of a file, under traffic.
struct Reloads<'lab> {
    host: &'lab NetNs,
    files: Files,
    agent: Xbond<'lab>,
    bond0: u32,
    traffic: TwoWay,
}

impl<'lab> Reloads<'lab> {
    fn start(lab: &'lab Lab, lines: &str) -> Self {
        let files = Files::new();
        files.bond("bond0", lines);
        let agent = files.run(lab);
        meet(lab);
        let bond0 = lab.host.link("bond0").unwrap().ifindex;
        let traffic = traffic(lab, 2_000);
        traffic.wait_for_more(300).unwrap();
        Self { host: &lab.host, files, agent, bond0, traffic }
    }

    /// Reloads; returns what that prints. bond0 stays the same device, and traffic continues.
    fn reload(&self) -> String {
        let said = xbond(self.host, "reload");
        assert_eq!(self.host.link("bond0").unwrap().ifindex, self.bond0, "{said}");
        self.traffic.wait_for_more(100).unwrap();
        said
    }

    /// The files win: a value that the administrator changed is restored.
    fn revert_changes(&self) {
        self.agent.set("bond0", "miimon=50").unwrap();
        self.agent.cli(["del-slave", "bond0", "enp0s9"]).unwrap();
        self.agent.cli(["add-slave", "bond0", "enp0s10", "-o", "prio=3"]).unwrap();
        let said = self.reload();
        assert_eq!(said, "bond0: miimon=100 (was 50)\nbond0: enp0s9: enslaved\nbond0: enp0s10: released\n");
        assert_eq!(self.reload(), "nothing changed\n");
    }

    /// Options, slaves, addresses, routes, MTU.
    fn change_everything(&self) {
        let all = "slaves = [\"enp0s9\", \"enp0s10\", \"later\"]\nmiimon = 50\nupdelay = 100\nprimary = \"enp0s10\"\n\
                   addresses = [\"192.168.99.101/24\", \"198.51.100.1/24\", \"2001:db8::1/64\"]\n\
                   routes = [{ to = \"203.0.113.0/24\", via = \"198.51.100.9\", metric = 5 }]\nmtu = 1400\n\
                   on_exit = \"keep\"\nguard = \"off\"\n[bond.bond0.slave.enp0s9]\nprio = 10\nqueue_id = 2\n";
        self.files.bond("bond0", all);
        assert_eq!(
            self.reload(),
            "bond0: miimon=50 (was 100)\nbond0: updelay=100 (was 0)\nbond0: primary=enp0s10 (was none)\n\
             bond0: guard=off (was auto)\nbond0: enp0s10: enslaved\nbond0: enp0s9: prio=10 (was 0)\nbond0: enp0s9: queue_id=2 (was 0)\n\
             bond0: enp0s8: released\nbond0: mtu=1400 (was 1500)\nbond0: address 198.51.100.1/24: added\n\
             bond0: address 2001:db8::1/64: added\nbond0: route 203.0.113.0/24 via 198.51.100.9 metric 5: set\n\
             bond0: later: absent, joins when it appears\nbond0: on_exit=keep (was down)\n\
             xbond: bond0: enp0s8: released with the MAC 08:00:27:e8:26:58, which is still in use in the bond; \
             set another one before using it\n"
        );
        assert_eq!(active_slave(&self.agent).as_deref(), Some("enp0s10"));
        assert_eq!(show(&self.agent)["guard"], "off: as configured");
        for device in ["bond0", "bond0-port", "enp0s9", "enp0s10"] {
            assert_eq!(self.host.link(device).unwrap().mtu, 1400, "{device}");
        }
        assert!(self.host.ip("route show dev bond0").unwrap().contains("203.0.113.0/24 via 198.51.100.9"));
        assert_eq!(self.reload(), "nothing changed\n");
        assert_eq!(slave(&show(&self.agent), "enp0s9")["queue_id"], 2);
    }

    /// An address of another owner on bond0 stays. An address of a file is removed with the file, unless both have it.
    fn keep_addresses_of_others(&self) {
        self.host.ip("address add 198.51.100.77/24 dev bond0").unwrap();
        self.files.bond(
            "bond0",
            "slaves = [\"enp0s9\", \"enp0s10\"]\nmiimon = 50\naddresses = [\"192.168.99.101/24\", \
             \"198.51.100.2/24\"]\nroutes = [{ to = \"203.0.113.0/24\", via = \"198.51.100.8\", metric = 5 }]\n",
        );
        assert_eq!(
            self.reload(),
            "bond0: updelay=0 (was 100)\nbond0: primary=none (was enp0s10)\n\
             bond0: guard=auto (was off)\nbond0: enp0s9: prio=0 (was 10)\n\
             bond0: enp0s9: queue_id=0 (was 2)\nbond0: mtu=1500 (was 1400)\nbond0: address 198.51.100.2/24: added\n\
             bond0: route 203.0.113.0/24 via 198.51.100.8 metric 5: set\nbond0: address 198.51.100.1/24: removed\n\
             bond0: address 2001:db8::1/64: removed\nbond0: on_exit=down (was keep)\n"
        );
        let addresses = self.host.ip("-oneline address show dev bond0").unwrap();
        for (address, there) in
            [("99.101/24", true), ("100.1/24", false), ("100.2/24", true), ("2001:db8", false)]
        {
            assert_eq!(addresses.contains(address), there, "{address}: {addresses}");
        }
        assert!(self.host.ip("route show dev bond0").unwrap().contains("203.0.113.0/24 via 198.51.100.8"));
        assert_eq!(self.reload(), "nothing changed\n");
    }

    /// SIGHUP has the same effect as `xbond reload`.
    fn reload_by_signal(&self) {
        let position = self.agent.log().len();
        let lines = "slaves = [\"enp0s9\", \"enp0s10\"]\nmiimon = 70\naddresses = [\"192.168.99.101/24\"]\n";
        self.files.bond("bond0", lines);
        self.agent.signal(Signal::SIGHUP).unwrap();
        self.agent.wait_for_after(position, "bond0: address 198.51.100.2/24: removed").unwrap();
        assert_eq!(show(&self.agent)["options"]["miimon"], 70);
    }

    fn end(self, what: &str) {
        self.traffic.wait_for_more(300).unwrap();
        lossless(self.traffic, what);
        self.agent.stop().unwrap();
    }
}

#[test]
fn reload_changes_what_changed_and_nothing_else() {
    skip_if_unable!();
    let nics = [&Nic::scenario()[..], &[Nic::new("enp0s10", [8, 0, 0x27, 0, 0, 3])]].concat();
    let lab = Lab::builder().nics(nics).build().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let addresses = r#"addresses = ["192.168.99.101/24"]"#;
    let lines = format!("slaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n{addresses}");
    let reloads = Reloads::start(&lab, &lines);
    assert_eq!(reloads.reload(), "nothing changed\n");
    reloads.revert_changes();
    reloads.change_everything();
    reloads.keep_addresses_of_others();
    reloads.reload_by_signal();
    reloads.end("all reloads");
    before.assert_holds(&lab.host, "an agent that reloaded");
}

/// The kernel deletes the other addresses of a network with the first one, and routes; packets would be lost.
#[test]
fn removing_an_address_does_not_touch_another() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let files = Files::new();
    let describe = |addresses: &str| {
        let routes = "routes = [{ to = \"203.0.113.0/24\", via = \"192.168.99.1\" }]";
        let text = format!("slaves = [\"enp0s8\"]\nmiimon = 100\naddresses = [{addresses}]\n{routes}");
        files.bond("bond0", &text);
    };
    describe(r#""192.168.99.7/24", "192.168.99.101/24""#);
    let agent = files.run(&lab);
    meet(&lab);
    let traffic = traffic(&lab, 5_000);
    traffic.wait_for_more(500).unwrap();
    describe(r#""192.168.99.101/24""#);
    assert_eq!(xbond(&lab.host, "reload"), "bond0: address 192.168.99.7/24: removed\n");
    traffic.wait_for_more(500).unwrap();
    // The kernel deletes the routes of the subnet's other addresses and restores them (`__inet_del_ifa`). On an
    // emulated machine packets arrive in between.
    match time_is_no_measure() {
        None => lossless(traffic, "an address that stays"),
        Some(_) => {
            for direction in traffic.stop().unwrap() {
                assert_eq!(direction.duplicated, 0, "an address that stays: {direction:?}");
                let on_the_way = direction.lost - direction.refused;
                assert!(on_the_way * 50 < direction.sent, "an address that stays: {direction:?}");
            }
        }
    }
    assert!(lab.host.ip("route show dev bond0").unwrap().contains("203.0.113.0/24 via 192.168.99.1"));
    let sysctl = lab.host.exec("cat /proc/sys/net/ipv4/conf/bond0/promote_secondaries").unwrap();
    assert_eq!(sysctl.trim(), "0");
    agent.stop().unwrap();
}

#[test]
fn bonds_follow_their_files_and_pass_slaves_on() {
    skip_if_unable!();
    let nics = (0..4).map(|number| Nic::new(&format!("nic{number}"), [2, 0, 0, 0, 1, number]));
    let lab = Lab::builder().nics(nics).build().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let files = Files::new();
    let address = "addresses = [\"192.168.99.101/24\"]";
    files.bond("bond0", &format!("slaves = [\"nic0\", \"nic1\"]\nmiimon = 100\n{address}"));
    files.bond("bond1", "slaves = [\"nic2\"]\nmiimon = 100");
    let agent = files.run(&lab);
    meet(&lab);
    let traffic = traffic(&lab, 2_000);
    traffic.wait_for_more(300).unwrap();

    files.bond("bond0", &format!("slaves = [\"nic0\"]\nmiimon = 100\n{address}"));
    files.bond("bond1", "slaves = [\"nic1\", \"nic2\"]\nmiimon = 100");
    files.bond("bond2", "slaves = [\"nic3\"]\nmiimon = 100");
    assert_eq!(
        xbond(host, "reload"),
        "bond0: nic1: released\nbond1: nic1: enslaved\n\
         bond2 ready: active slave nic3, carrier up, datapath tc\n"
    );
    // The only address of a bond that is removed; and an address of the administrator, which no file adds or removes.
    agent.cli(["down", "bond2"]).unwrap();
    agent.cli(words("add --bond manual --slave nic3 -o miimon=100")).unwrap();
    files.remove("bond2");
    files.remove("bond1");
    files.bond("bond0", &format!("slaves = [\"nic0\", \"nic2\"]\nmiimon = 100\n{address}"));
    assert_eq!(xbond(host, "reload"), "bond1: down, no file names it any more\nbond0: nic2: enslaved\n");
    agent.cli(["down", "manual"]).unwrap();
    traffic.wait_for_more(300).unwrap();
    lossless(traffic, "a bond next to others that are created and removed");
    agent.stop().unwrap();
    before.assert_holds(host, "bonds that came and went");
}

/// A bond's lines for the tests of refusals.
const GOOD: &str = "slaves = [\"enp0s8\"]\nmiimon = 100\naddresses = [\"192.168.99.101/24\"]\n";

/// Returns lines that a reload cannot apply to bond0, and what it prints then.
fn refused_lines(files: &Files) -> Vec<(&'static str, String)> {
    let another = |what: &str| {
        format!(
            "xbond: bond0: {what} cannot be changed while the bond is there: xbond down bond0, then xbond reload\n? 2\n"
        )
    };
    vec![
        ("mac = \"02:00:00:00:00:77\"\nmiimon = 60", another("mac")),
        ("datapath = \"xdp\"\nmiimon = 60", another("datapath")),
        ("prearm = true\nfail_over_mac = \"follow\"\nmiimon = 60", another("prearm")),
        ("fail_over_mac = \"active\"\nmiimon = 60", another("fail_over_mac")),
        (
            "miimon = 60\n[bond.bond0.slave.enp0s8]\nmac = \"02:00:00:00:00:78\"",
            "xbond: bond0: enp0s8: mac cannot be changed while it is a slave: xbond del-slave bond0 enp0s8, then \
             xbond reload\n? 2\n"
                .into(),
        ),
        (
            "miimon = 60\n[bond.bond0.slave.enp0s8]\nhwaddr = \"02:00:00:00:00:78\"",
            "xbond: bond0: enp0s8: has MAC 08:00:27:e8:26:58, but HWADDR says 02:00:00:00:00:78; this is another NIC than \
             the file means\n? 2\n"
                .into(),
        ),
        (
            "miimon = 60\n[bond.bond0.slave.enp0s8]\nqueue_id = 77",
            "xbond: bond0: enp0s8: queue_id=77: bond0 has transmit queues 1 to 15; choose one of them, or 0 for none\n? 2\n"
                .into(),
        ),
        (
            "miimon = 60\nmiimonn = 1",
            format!(
                "xbond: {}/bond0.toml:6: miimonn: no such key in bond0; did you mean miimon?; nothing was changed\n? 2\n",
                files.path()
            ),
        ),
    ]
}

/// A slave that cannot be one, next to a change of another bond, which is made.
fn refuse_slaves(host: &NetNs, files: &Files) {
    let with = |other: &str| {
        format!("{GOOD}mtu = 1400\n").replace("[\"enp0s8\"]", &format!("[\"enp0s8\", \"{other}\"]"))
    };
    files.bond("bond0", &with("lo"));
    assert_eq!(
        xbond(host, "reload"),
        format!(
            "xbond: {}/bond0.toml:2: \"lo\" cannot be an interface here: it is the loopback device; nothing was changed\n? 2\n",
            files.path()
        )
    );
    files.bond("bond0", &with("bond1"));
    files.remove("bond1");
    files.bond("bond2", "slaves = []\nmiimon = 60");
    let said = xbond(host, "reload");
    assert!(
        said.ends_with("? 2\n") && said.contains("bond1: down") && said.contains("bond2 ready"),
        "{said}"
    );
    assert!(said.contains("xbond: bond0: bond1: belongs to the bond bond1"), "{said}");
    assert_eq!(host.link("bond0").unwrap().mtu, 1500);
}

/// The same bond in two files, and no file.
fn refuse_files(host: &NetNs, files: &Files) {
    let path = files.path();
    files.bond("bond0", GOOD);
    files.write("bond0-again.toml", &format!("version = 1\n[bond.bond0]\n{GOOD}"));
    let twice = format!(
        "xbond: {path}/bond0.toml:2: bond bond0 is already defined in {path}/bond0-again.toml:2; nothing was changed\n? 2\n"
    );
    assert_eq!(xbond(host, "reload"), twice);
    for entry in fs::read_dir(path).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let none = format!("xbond: {path}: no files named *.toml in this directory; nothing was changed\n? 2\n");
    assert_eq!(xbond(host, "reload"), none);
}

#[test]
fn a_refused_reload_changes_nothing() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let reloads = Reloads::start(&lab, GOOD);
    let (files, agent) = (&reloads.files, &reloads.agent);
    files.bond("bond1", "slaves = []\nmiimon = 100");
    assert!(reloads.reload().starts_with("bond1 ready"));
    let now = Snapshot::of(host);
    let state =
        || (show(agent)["options"].clone(), agent.show("bond1").unwrap()["bonds"][0]["options"].clone());
    let was = state();
    for (lines, said) in refused_lines(files) {
        files.bond("bond0", &format!("slaves = [\"enp0s8\"]\naddresses = [\"192.0.2.1/24\"]\n{lines}"));
        assert_eq!(reloads.reload(), said, "{lines}");
        assert_eq!(state(), was, "{lines}");
        now.assert_holds(host, lines);
    }
    refuse_slaves(host, files);
    refuse_files(host, files);
    reloads.end("refused reloads");
    before.assert_holds(host, "refused reloads");
}

#[test]
fn an_agent_of_flags_has_no_files_to_reload() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let agent = Xbond::run(&lab.host, words(BOND0)).unwrap();
    assert_eq!(
        xbond(&lab.host, "reload"),
        "xbond: this agent was started by flags: there is no file to read again; use `xbond set`, `xbond add` and \
         `xbond down`\n? 2\n"
    );
    agent.stop().unwrap();
}
