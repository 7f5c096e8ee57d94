//! Fixed values for the tests of all reports.

use std::collections::BTreeMap;

use bond_core::{
    command::{Chosen, Reason, Trigger},
    options::BondOptions,
};

use super::{
    json::{
        AgentInfo, AnswerSource, Bond, Counters, Device, OriginalState, Qdisc, Report, Slave,
        SoftnetCounters, Ticks, VERSION,
    },
    moment::Moment,
    receipt::{self, Announcement, Announcer, Receipt, Steps},
};

/// Returns the moment this many seconds after the machine was started.
pub fn moment(seconds: u64) -> Moment {
    let time = format!("2026-01-02T03:{:02}:{:02}.678901Z", seconds / 60 % 60, seconds % 60);
    Moment { time, monotonic_us: seconds * 1_000_000 + 678_901 }
}

/// Returns a receipt of a failover with all fields.
pub fn receipt() -> Receipt {
    Receipt {
        version: receipt::VERSION,
        bond: "bond0".into(),
        switched: moment(245),
        generation: 7,
        from: Some("enp0s8".into()),
        to: Some("enp0s9".into()),
        reason: Reason::LinkFailed,
        seen: Trigger::LinkEvent,
        chosen: Some(Chosen::OnlyOneUp),
        steps: Steps {
            detect_us: 143,
            decide_us: 12,
            switch_us: 2,
            heard_us: None,
            macs_us: Some(412),
            announce_us: Some(320),
        },
        drops: Some([("backup".to_owned(), 3)].into()),
        announced: Some(Announcement { addresses: 2, ..Announcement::by(Announcer::Agent) }),
        peers: None,
        path: None,
        unrecorded: 0,
    }
}

/// Returns the report of a slave.
pub fn slave(name: &str, state: &str, mii_status: &str) -> Slave {
    Slave {
        name: name.into(),
        ifindex: 3,
        slot: 0,
        state: state.into(),
        mii_status: mii_status.into(),
        mac: "08:00:27:e8:26:58".into(),
        wire_mac: "08:00:27:e8:26:58".into(),
        permanent_mac: "08:00:27:e8:26:58".into(),
        link_failure_count: Some(1),
        speed: Some(1000),
        duplex: Some("full".into()),
        prio: Some(0),
        queue_id: 0,
        counters: Counters {
            tx_packets: 12_345_678_901,
            tx_bytes: 18_765_432_109_876,
            tx_rewritten: 9,
            rx_packets: 7,
            rx_bytes: 1234,
            rx_unicast: 6,
            rx_rewritten: 5,
            rx_link_local: 4,
            guard_failovers: 2,
            drops: [("backup".to_owned(), 37), ("runt".to_owned(), 0)].into(),
            misdirected: 0,
        },
        found: Some(OriginalState {
            up: true,
            mac: "08:00:27:e8:26:58".into(),
            mtu: 1500,
            addresses: vec!["192.0.2.8/24".into(), "2001:db8::8/64".into()],
            routes: vec!["default via 192.0.2.1 metric 0".into()],
            features: vec!["rx-lro on".into()],
        }),
        path: None,
        drained: None,
        damped: false,
        damping: None,
        no_unicast: false,
        warnings: Vec::new(),
    }
}

fn device(name: &str, ifindex: u32, count: u64) -> Device {
    let kind = if count > 0 { "fq_codel" } else { "noqueue" };
    Device {
        name: name.into(),
        ifindex,
        rx_dropped: count,
        tx_dropped: 2 * count,
        rx_errors: 0,
        tx_errors: 0,
        rx_missed: 3 * count,
        rx_nohandler: 4 * count,
        rx_otherhost_dropped: 5 * count,
        qdiscs: vec![Qdisc {
            kind: kind.into(),
            at: "root".into(),
            drops: 6,
            overlimits: 0,
            requeues: 1,
            queued: 0,
        }],
    }
}

/// Returns a bond with two slaves, one absent slave, and a failover two minutes ago.
pub fn bond() -> Bond {
    let options = BondOptions { miimon: 100, updelay: 200, ..BondOptions::default() };
    let mut active = slave("enp0s9", "active", "up");
    active.warnings = vec![super::wording::no_unicast("enp0s9", 312)];
    active.no_unicast = true;
    (active.ifindex, active.slot, active.prio, active.speed, active.duplex) = (4, 1, Some(10), None, None);
    active.found = None;
    Bond {
        name: "bond0".into(),
        ifindex: Some(7),
        active_slave: Some("enp0s9".into()),
        draining_slave: Some("enp0s8".into()),
        generation: 7,
        mac: "08:00:27:e8:26:58".into(),
        host_mac: Some("08:00:27:e8:26:58".into()),
        host_mac_stays: false,
        carrier: true,
        datapath: "tc".into(),
        pair: Some("netkit".into()),
        port: "bond0-port".into(),
        port_ifindex: 6,
        guard: "off: downdelay delays failovers".into(),
        clock: "on, every 10 ms".into(),
        path: None,
        ticks: Some(Ticks {
            running: true,
            period: Some(10),
            devices: vec!["bond0-clk0".into(), "bond0-clk1".into()],
            ticks: 360_000,
            late: 3,
            injected: 1,
            refused: 0,
            failovers: 1,
            unsent: 0,
        }),
        mtu: Some(1500),
        on_exit: Some("keep".into()),
        pins: "/sys/fs/bpf/xbond/4711/bond0".into(),
        files: "/run/xbond/4711/bond0".into(),
        options: serde_json::to_value(options).unwrap().as_object().unwrap().clone(),
        drops: [("no_active_slave".to_owned(), 2), ("runt".to_owned(), 0)].into(),
        slaves: vec![slave("enp0s8", "backup", "going down"), active],
        absent: vec!["enp0s10".into()],
        addresses_of: None,
        failovers: [(Reason::LinkFailed, 3), (Reason::Joined, 1)].into(),
        unrecorded_changes: 0,
        path_faults: Vec::new(),
        path_restored: 0,
        last_failover: Some(receipt()),
        warnings: Vec::new(),
        devices: vec![device("bond0", 7, 0), device("bond0-port", 6, 0), device("enp0s8", 3, 11)],
    }
}

/// Returns a bond without anything to report.
pub fn plain_bond() -> Bond {
    Bond {
        draining_slave: None,
        slaves: vec![slave("enp0s8", "active", "up"), slave("enp0s9", "backup", "up")],
        active_slave: Some("enp0s8".into()),
        absent: Vec::new(),
        failovers: BTreeMap::new(),
        last_failover: None,
        ..bond()
    }
}

/// Returns a report of these bonds.
pub fn report(bonds: Vec<Bond>) -> Report {
    Report {
        version: VERSION,
        source: AnswerSource::Agent,
        no_answer: None,
        moment: moment(366),
        agent: Some(AgentInfo { version: "0.1.0".into(), pid: 815, started: moment(60) }),
        softnet: Some(SoftnetCounters { dropped: 0, time_squeeze: 4 }),
        notes: Vec::new(),
        bonds,
        orphaned: Vec::new(),
        gone: Vec::new(),
        missing: Vec::new(),
    }
}
