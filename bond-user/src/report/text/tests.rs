//! Tests of the text of `xbond show`, `log` and `monitor`.

use std::{collections::BTreeMap, time::Duration};

use bond_core::command::{Chosen, Reason, Trigger};

use super::columns::age;
use super::*;
use crate::report::{
    event::{BondChange, Event, SlaveChange, What},
    json::{AnswerSource, Report},
    receipt::{Announcement, Announcer, Peers, Receipt, Steps},
    testing,
    wording::{PathFault, Repair, announced, no_unicast, path_fault},
};

/// Asserts that all lines but warnings fit.
#[track_caller]
fn fits(shown: &str) {
    let is_warning = |line: &&str| line.trim_start().starts_with('!');
    let long = shown.lines().filter(|line| !is_warning(line)).find(|line| line.chars().count() > 80);
    assert_eq!(long, None, "{shown}");
}

#[test]
fn a_bond_is_shown_in_80_columns() {
    let shown = show(&testing::report(vec![testing::bond()]), Amount::default());
    insta::assert_snapshot!(shown, @r"
    bond0: active slave enp0s9, carrier up, mac 08:00:27:e8:26:58
      datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          backup going down 08:00:27:e8:26:58      1    12345M         7
      enp0s9          active up         08:00:27:e8:26:58      1    12345M         7
      enp0s10         absent: it joins when it appears
      last failover 2 min 1 s ago: enp0s9 instead of enp0s8, its link failed
      ! enp0s9: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
    ");
    fits(&shown);
}

#[test]
fn a_quiet_bond_takes_few_lines() {
    let shown = show(&testing::report(vec![testing::plain_bond()]), Amount::default());
    insta::assert_snapshot!(shown, @r"
    bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
      datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          active up         08:00:27:e8:26:58      1    12345M         7
      enp0s9          backup up         08:00:27:e8:26:58      1    12345M         7
    ");
}

#[test]
fn show_with_details_has_all_values() {
    let amount = Amount { details: true, statistics: false };
    let shown = show(&testing::report(vec![testing::bond()]), amount);
    insta::assert_snapshot!(shown, @r"
    bond0: active slave enp0s9, carrier up, mac 08:00:27:e8:26:58
      datapath=tc pair=netkit port=bond0-port ifindex=7 port_ifindex=6
      host_mac=08:00:27:e8:26:58 mtu=1500 on_exit=keep
      ACTIVE: generation 7, draining enp0s8
      carrier guard off: downdelay delays failovers
      clock on, every 10 ms
      bond0-clk0, bond0-clk1: 360000 ticks, late 3, failovers 1, re-injected 1
      pins /sys/fs/bpf/xbond/4711/bond0
      files /run/xbond/4711/bond0
      options ad_select=stable all_slaves_active=0 arp_all_targets=any
      arp_interval=0 arp_ip_target=none arp_missed_max=2 arp_validate=none
      downdelay=0 fail_over_mac=none lp_interval=1 miimon=100 min_links=0
      mode=active-backup ns_ip6_target=none num_grat_arp=1 peer_notif_delay=0
      primary=none primary_reselect=always resend_igmp=1 updelay=200
      xmit_hash_policy=layer2
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          backup going down 08:00:27:e8:26:58      1    12345M         7
      enp0s9          active up         08:00:27:e8:26:58      1    12345M         7
      enp0s10         absent: it joins when it appears
      last failover 2 min 1 s ago: enp0s9 instead of enp0s8, its link failed
        seen by a link event; chosen: the only one that is up
        detect 143 us, decide 12 us, switch 2 us
        after the switch: MACs +412 us, announced 2 addresses by the agent +320 us
        dropped during the failover: backup 3; generation 7
      enp0s8:
        permanent_mac=08:00:27:e8:26:58 wire_mac=08:00:27:e8:26:58 ifindex=3 slot=0
        speed=1000Mb/s duplex=full prio=0 queue_id=0
        found up, mac 08:00:27:e8:26:58, mtu 1500; addresses 192.0.2.8/24,
        2001:db8::8/64; routes default via 192.0.2.1 metric 0; offloads rx-lro on
      enp0s9:
        permanent_mac=08:00:27:e8:26:58 wire_mac=08:00:27:e8:26:58 ifindex=4 slot=1
        speed=unknown duplex=unknown prio=10 queue_id=0
        found: not recorded
      ! enp0s9: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
    agent 0.1.0, pid 815, started 5 min 6 s ago (2026-01-02T03:01:00.678901Z)
    ");
    fits(&shown);
}

#[test]
fn show_with_statistics_has_the_counters() {
    let amount = Amount { details: false, statistics: true };
    let mut report = testing::report(vec![testing::plain_bond()]);
    report.notes.push("the devices' counters are missing: another process holds RTNL".into());
    let shown = show(&report, amount);
    insta::assert_snapshot!(shown, @r"
    bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
      datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          active up         08:00:27:e8:26:58      1    12345M         7
      enp0s9          backup up         08:00:27:e8:26:58      1    12345M         7
      COUNTED                 TX  TX BYTES REWRITTEN        RX  RX BYTES REWRITTEN
      enp0s8              12345M    18765G         9         7      1234         5
      enp0s9              12345M    18765G         9         7      1234         5
      DROPPED BY XBOND
      enp0s8          backup 37
      enp0s9          backup 37
      bond0-port      no_active_slave 2
      DROPPED AROUND     RX DROP   TX DROP    MISSED NOHANDLER OTHERHOST     QDISC
      bond0                    0         0         0         0         0         6
      bond0-port               0         0         0         0         0         6
      enp0s8                  11        22        33        44        55         6
      softnet, all CPUs: dropped 0, time_squeeze 4
    ! the devices' counters are missing: another process holds RTNL
    ");
    fits(&shown);
}

#[test]
fn without_an_agent_the_first_line_reports_it() {
    let mut bond = testing::plain_bond();
    bond.options.retain(|key, _| key == "fail_over_mac");
    bond.slaves[1].link_failure_count = None;
    bond.slaves[1].warnings.push("enp0s9: no link now".into());
    let report = Report { source: AnswerSource::Maps, agent: None, ..testing::report(vec![bond]) };
    let shown = show(&report, Amount::default());
    insta::assert_snapshot!(shown, @r"
    no agent: from the pinned maps
    bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
      datapath=tc port=bond0-port fail_over_mac=none
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          active up         08:00:27:e8:26:58      1    12345M         7
      enp0s9          backup up         08:00:27:e8:26:58      -    12345M         7
      ! enp0s9: no link now
    ");
}

#[test]
fn without_an_answer_the_first_line_says_why() {
    let line = |no_answer: Option<&str>, bonds| {
        let no_answer = no_answer.map(str::to_owned);
        let report = Report {
            source: AnswerSource::Maps,
            agent: None,
            no_answer,
            notes: vec![],
            ..testing::report(bonds)
        };
        show(&report, Amount::default()).lines().next().unwrap_or_default().to_owned()
    };
    let silent = Some("the agent (pid 7) does not answer");
    let bonds = || vec![testing::plain_bond()];
    assert_eq!(line(silent, bonds()), "the agent (pid 7) does not answer: from the pinned maps");
    assert_eq!(line(silent, vec![]), "the agent (pid 7) does not answer: from the pinned maps");
    assert_eq!(line(None, bonds()), "no agent: from the pinned maps");
    let nothing = "no bonds, and no agent runs in this network namespace; start one with `xbond run`";
    assert_eq!(line(None, vec![]), nothing);
}

fn receipts() -> Vec<Receipt> {
    let first = Receipt {
        switched: testing::moment(1),
        generation: 1,
        from: None,
        to: Some("enp0s8".into()),
        reason: Reason::Joined,
        seen: Trigger::SlaveJoined,
        steps: Steps { macs_us: None, ..testing::receipt().steps },
        drops: Some(BTreeMap::new()),
        ..testing::receipt()
    };
    let mut last = Receipt { switched: testing::moment(900), to: None, chosen: None, ..testing::receipt() };
    last.steps = Steps { detect_us: 12_345, announce_us: None, ..last.steps };
    last.announced = None;
    let by_guard = Receipt {
        switched: testing::moment(960),
        reason: Reason::CarrierGuard,
        seen: Trigger::Guard,
        chosen: Some(Chosen::Guard),
        steps: Steps { heard_us: Some(61_000_000), announce_us: Some(61_000_999), ..Steps::default() },
        drops: None,
        ..testing::receipt()
    };
    vec![first, testing::receipt(), last, by_guard]
}

#[test]
fn a_log_is_a_table() {
    let shown = log(&receipts(), false);
    insta::assert_snapshot!(shown, @r"
    TIME (UTC)           FROM            TO               SWITCHED WHY
    2026-01-02 03:00:01  none            enp0s8             157 us slave joined
    2026-01-02 03:04:05  enp0s8          enp0s9             157 us link failed
    2026-01-02 03:15:00  enp0s8          none                12 ms link failed
    2026-01-02 03:16:00  enp0s8          enp0s9          in kernel carrier guard
    ");
    fits(&shown);
    let mut wide = testing::receipt();
    (wide.from, wide.to) = (Some("abcdefghijklmno".into()), Some("abcdefghijklmno".into()));
    (wide.steps.detect_us, wide.reason) = (9_999_999, Reason::LinkRecovered);
    fits(&log(&[wide], false));
    insta::assert_snapshot!(log(&[], false), @"no failover yet");
}

/// The slave may have a carrier, so no line reports a failed link.
#[test]
fn a_failover_of_the_arp_monitor_reports_no_answer() {
    let of = |reason| Receipt { reason, seen: Trigger::ArpMonitor, ..receipts()[1].clone() };
    let both = [of(Reason::LinkFailed), of(Reason::LinkRecovered)];
    for (details, lines) in [
        (false, ["no probe answer", "answers again"]),
        (true, ["the ARP monitor got no answer", "the ARP monitor gets answers"]),
    ] {
        // The text without its line breaks.
        let shown = log(&both, details).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lines.iter().all(|line| shown.contains(line)) && !shown.contains("link"), "{shown}");
    }
}

#[test]
fn a_log_with_details_has_the_steps() {
    let shown = log(&receipts(), true);
    insta::assert_snapshot!(shown, @r"
    2026-01-02T03:00:01.678901Z enp0s8 instead of none, a slave joined
      seen by a slave that joined; chosen: the only one that is up
      detect 143 us, decide 12 us, switch 2 us
      after the switch: announced 2 addresses by the agent +320 us
      dropped during the failover: nothing; generation 1
    2026-01-02T03:04:05.678901Z enp0s9 instead of enp0s8, its link failed
      seen by a link event; chosen: the only one that is up
      detect 143 us, decide 12 us, switch 2 us
      after the switch: MACs +412 us, announced 2 addresses by the agent +320 us
      dropped during the failover: backup 3; generation 7
    2026-01-02T03:15:00.678901Z none instead of enp0s8, its link failed
      seen by a link event
      detect 12 ms, decide 12 us, switch 2 us
      after the switch: MACs +412 us
      dropped during the failover: backup 3; generation 7
    2026-01-02T03:16:00.678901Z enp0s9 instead of enp0s8, a packet found its carrier
        gone
      seen by the carrier guard; chosen: the data plane's first that had a link
      switched in the kernel; the agent was notified +61 s
      after the switch: announced 2 addresses by the agent +61 s
      dropped during the failover: not known; generation 7
    ");
    fits(&shown);
}

// One thing: a table, with a row for each event.
#[test]
fn events_are_a_line_each() {
    let slave = || "enp0s8".to_owned();
    let events = [
        What::State { active_slave: Some(slave()), carrier: true },
        What::Link { slave: slave(), mii_status: "going down".into(), delay_ms: Some(200) },
        What::Link { slave: slave(), mii_status: "down".into(), delay_ms: None },
        What::Failover { receipt: testing::receipt() },
        What::Carrier { carrier: false },
        What::Slave { slave: slave(), change: SlaveChange::Joined },
        What::Slave { slave: slave(), change: SlaveChange::Left },
        What::Option { slave: None, option: "updelay".into(), value: "200".into() },
        What::Option { slave: Some(slave()), option: "prio".into(), value: "10".into() },
        What::Bond { change: BondChange::Up },
        What::Bond { change: BondChange::Down },
        What::Bond { change: BondChange::Kept },
        What::Warning { text: no_unicast("enp0s8", 312) },
        What::Note { text: "enp0s8: receives unicast now".into() },
        What::Lagged { missed: 7 },
    ];
    let events = events.map(|what| Event {
        version: crate::report::event::VERSION,
        moment: testing::moment(5),
        bond: Some("bond0".into()),
        what,
    });
    let texts: Vec<_> = events.iter().map(event).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    2026-01-02T03:00:05.678Z bond0: active slave enp0s8, carrier up
    2026-01-02T03:00:05.678Z bond0: enp0s8: link going down in 200 ms
    2026-01-02T03:00:05.678Z bond0: enp0s8: link down
    2026-01-02T03:00:05.678Z bond0: enp0s9 instead of enp0s8: link failed, 157 us
    2026-01-02T03:00:05.678Z bond0: carrier down
    2026-01-02T03:00:05.678Z bond0: enp0s8: joined
    2026-01-02T03:00:05.678Z bond0: enp0s8: left
    2026-01-02T03:00:05.678Z bond0: updelay=200
    2026-01-02T03:00:05.678Z bond0: enp0s8: prio=10
    2026-01-02T03:00:05.678Z bond0: up
    2026-01-02T03:00:05.678Z bond0: down
    2026-01-02T03:00:05.678Z bond0: kept: it carries packets without an agent
    2026-01-02T03:00:05.678Z bond0: ! enp0s8: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
    2026-01-02T03:00:05.678Z bond0: enp0s8: receives unicast now
    2026-01-02T03:00:05.678Z bond0: too slow: 7 events were missed; see xbond show, and start again
    ");
    let lines: String = events.iter().map(Event::line).collect();
    insta::assert_snapshot!(lines, @r#"
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"state","active_slave":"enp0s8","carrier":true}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"link","slave":"enp0s8","mii_status":"going down","delay_ms":200}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"link","slave":"enp0s8","mii_status":"down","delay_ms":null}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"failover","receipt":{"version":2,"bond":"bond0","time":"2026-01-02T03:04:05.678901Z","monotonic_us":245678901,"generation":7,"from":"enp0s8","to":"enp0s9","reason":"link_failed","seen":"link_event","chosen":"only_one_up","steps":{"detect_us":143,"decide_us":12,"switch_us":2,"heard_us":null,"macs_us":412,"announce_us":320},"drops":{"backup":3},"announced":{"addresses":2,"macs":0,"failed":0,"by":"agent"}}}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"carrier","carrier":false}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"slave","slave":"enp0s8","change":"joined"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"slave","slave":"enp0s8","change":"left"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"option","slave":null,"option":"updelay","value":"200"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"option","slave":"enp0s8","option":"prio","value":"10"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"bond","change":"up"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"bond","change":"down"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"bond","change":"kept"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"warning","text":"enp0s8: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"note","text":"enp0s8: receives unicast now"}
    {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"lagged","missed":7}
    "#);
    for (event, line) in events.iter().zip(lines.lines()) {
        assert_eq!(&serde_json::from_str::<Event>(line).unwrap(), event);
    }
}

#[test]
fn a_round_of_announcements_lists_what_was_sent() {
    let round = |addresses, macs, failed| {
        announced(&Announcement { addresses, macs, failed, ..Announcement::by(Announcer::Agent) })
    };
    assert_eq!(round(1, 0, 0), "announced 1 address by the agent");
    assert_eq!(
        round(3, 1, 2),
        "announced 3 addresses and 1 MAC address by the agent; 2 frames could not be sent"
    );
    assert_eq!(round(0, 0, 2), "announced nothing: 2 frames could not be sent");
    assert!(round(0, 0, 0).starts_with("nothing to announce: no address"));
    let capped = Announcement { macs: 1024, capped: true, ..Announcement::by(Announcer::Kernel) };
    assert_eq!(
        announced(&capped),
        "announced 1024 MAC addresses (those that sent last; there are more) by the clock"
    );
    for (rounds, expected) in
        [(1, "announced 2 addresses by the clock"), (3, "announced 2 addresses by the clock in 3 rounds")]
    {
        let by = Announcer::Kernel;
        let of_clock = Announcement { addresses: 2, rounds: Some(rounds), ..Announcement::by(by) };
        assert_eq!(announced(&of_clock), expected);
    }
}

#[test]
fn faults_are_described_in_sentences() {
    let fault = || PathFault::Detached { device: "enp0s8".into() };
    let failed = Repair::Failed("Device or resource busy".into());
    let texts = [Repair::Done, failed, Repair::None].map(|repair| path_fault(&fault(), &repair));
    insta::assert_snapshot!(texts.join("\n"), @r"
    enp0s8: its BPF program was detached by another process; restored
    enp0s8: its BPF program was detached by another process; it cannot be restored: Device or resource busy
    enp0s8: its BPF program was detached by another process
    ");
}

#[test]
fn ages_have_two_units() {
    let table = [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")];
    for (seconds, expected) in table {
        assert_eq!(age(Duration::from_secs(seconds)), expected);
    }
}

#[test]
fn peers_are_a_sentence() {
    let missing = vec!["192.0.2.7 (02:00:00:00:00:07)".to_owned(), "02:00:00:00:00:08".to_owned()];
    let some = Peers { expected: 38, heard: 36, heard_us: Some(4123), asked: 2, missing };
    let table = [
        (Peers::default(), "no peer was confirmed in the 10 s before"),
        (
            Peers { expected: 1, heard: 1, heard_us: Some(950), ..Peers::default() },
            "1 of 1 peer heard within 0.9 ms",
        ),
        (
            some.clone(),
            "36 of 38 peers heard within 4.1 ms; 2 asked by unicast; \
             not heard: 192.0.2.7 (02:00:00:00:00:07), 02:00:00:00:00:08",
        ),
        (
            Peers { heard: 0, heard_us: None, asked: 0, ..some },
            "0 of 38 peers heard; not heard: 192.0.2.7 (02:00:00:00:00:07), 02:00:00:00:00:08 and 36 more",
        ),
    ];
    for (peers, expected) in table {
        assert_eq!(crate::report::wording::peers(&peers), expected);
    }
}
