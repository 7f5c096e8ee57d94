//! Metrics for Prometheus, in both of its formats. packaging/prometheus has rules for them.

use std::{collections::HashSet, fmt};

use bond_core::{command::Reason, status::MiiStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{
    json::{Bond, Report, Slave, Ticks},
    path::PathStatus,
    wording::CLOCK_OFF,
};

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For clients that accept it.
    OpenMetrics,
    /// Prometheus' own text format, for all others.
    Prometheus,
}

impl Format {
    /// Returns the format for a client that accepts these media types.
    pub fn of(accept: Option<&str>) -> Self {
        let accepts = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if accepts { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the content type for HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Encodes everything in a report of an agent.
pub fn show(report: Report, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(report)));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => in_prometheus_format(&text),
    }
}

/// Encodes the metrics of node_exporter's bonding collector alone, for a file that its textfile collector reads: that
/// collector itself reads bonds of the driver only.
pub fn node_exporter_text(report: Report) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(NodeBonding(report)));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut text, &registry);
    in_prometheus_format(&text)
}

/// Returns OpenMetrics text in Prometheus' format. There, HELP and TYPE of a counter have the name of its samples, and
/// there are no units and no mark of the end.
fn in_prometheus_format(text: &str) -> String {
    let counters: HashSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut lines = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let named = ["# HELP ", "# TYPE "].into_iter().find_map(|kind| {
            let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
            counters.contains(name).then(|| format!("{kind}{name}_total {rest}"))
        });
        lines.push_str(named.as_deref().unwrap_or(line));
        lines.push('\n');
    }
    lines
}

/// A report that is encoded without counting anything here.
#[derive(Debug)]
struct Metrics(Report);

/// A report of which only node_exporter's metrics are encoded.
#[derive(Debug)]
struct NodeBonding(Report);

impl Collector for NodeBonding {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        node_bonding(&self.0, &mut encoder)
    }
}

/// Encodes what node_exporter reads of a bond of the driver: bonding/slaves, and how many of these have the MII status up.
/// Names, labels and help texts are node_exporter's: a host can have bonds of both kinds, and it exports a metric with two
/// help texts as an error.
fn node_bonding(report: &Report, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let of_each = |value: fn(&Bond) -> usize| {
        report.bonds.iter().map(move |bond| ([("master", bond.name.as_str())], value(bond) as f64))
    };
    let about = ("node_bonding_slaves", "Number of configured slaves per bonding interface.", None);
    gauges(encoder, about, of_each(|bond| bond.slaves.len()))?;
    let about = ("node_bonding_active", "Number of active slaves per bonding interface.", None);
    gauges(encoder, about, of_each(slaves_up))
}

/// The name of a metric without its unit, its help text, and the unit.
type About = (&'static str, &'static str, Option<Unit>);

/// One of the numbers that a clock has counted.
type CountOfClock = fn(&Ticks) -> u64;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        self.agent(encoder)?;
        self.bonds(encoder)?;
        self.failovers(encoder)?;
        self.clocks(encoder)?;
        self.slaves(encoder)?;
        self.traffic(encoder)?;
        node_bonding(&self.0, encoder)
    }
}

impl Metrics {
    fn agent(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let Some(agent) = &self.0.agent else { return Ok(()) };
        let about = ("xbond_agent_info", "The agent; always 1", None);
        gauges(encoder, about, [([("version", agent.version.as_str())], 1.0)])?;
        let about = ("xbond_agent_start_time", "When the agent was started, since 1970", Some(Unit::Seconds));
        let started =
            agent.started.unix_seconds().map(|seconds| ([("version", agent.version.as_str())], seconds));
        gauges(encoder, about, started)
    }

    fn bonds(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let bonds = || self.0.bonds.iter();
        let about =
            ("xbond_bond_info", "A bond, its datapath, its port, and what becomes of it; always 1", None);
        let info = bonds().map(|bond| {
            let on_exit = bond.on_exit.as_deref().unwrap_or_default();
            let what = [("datapath", bond.datapath.as_str()), ("port", &bond.port), ("on_exit", on_exit)];
            let [datapath, port, on_exit] = what;
            ([("bond", bond.name.as_str()), datapath, port, on_exit], 1.0)
        });
        gauges(encoder, about, info)?;
        let of_each =
            |value: fn(&Bond) -> f64| bonds().map(move |bond| ([("bond", bond.name.as_str())], value(bond)));
        let about =
            ("xbond_bond_carrier", "Whether the bond has carrier: any slave's MII status is up", None);
        gauges(encoder, about, of_each(|bond| bond.carrier.into()))?;
        let about = ("xbond_bond_slaves", "Slaves that are enslaved", None);
        gauges(encoder, about, of_each(|bond| bond.slaves.len() as f64))?;
        let about = ("xbond_bond_slaves_up", "Slaves whose MII status is up", None);
        gauges(encoder, about, of_each(|bond| slaves_up(bond) as f64))?;
        let about = ("xbond_bond_slaves_absent", "Slaves that are configured and not there", None);
        gauges(encoder, about, of_each(|bond| bond.absent.len() as f64))
    }

    fn failovers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let about = ("xbond_failovers", "Changes of the active slave since the agent has the bond", None);
        let failovers = self.0.bonds.iter().flat_map(|bond| {
            Reason::ALL.map(|reason| {
                let count = bond.failovers.get(&reason).copied().unwrap_or_default();
                ([("bond", bond.name.as_str()), ("reason", reason_name(reason))], count)
            })
        });
        counters(encoder, about, failovers)?;
        let about = (
            "xbond_path_faults",
            "What another process has changed on the path of the packets and could not be restored",
            None,
        );
        let faults = self.0.bonds.iter();
        gauges(
            encoder,
            about,
            faults.map(|bond| ([("bond", bond.name.as_str())], bond.path_faults.len() as f64)),
        )?;
        let about = (
            "xbond_path_restored",
            "How often something was restored that another process had changed, since the agent has the bond",
            None,
        );
        let restored = self.0.bonds.iter().map(|bond| ([("bond", bond.name.as_str())], bond.path_restored));
        counters(encoder, about, restored)?;
        let about = (
            "xbond_unrecorded_changes",
            "Changes of ACTIVE that are in no receipt, since the agent has the bond",
            None,
        );
        let unrecorded =
            self.0.bonds.iter().map(|bond| ([("bond", bond.name.as_str())], bond.unrecorded_changes));
        counters(encoder, about, unrecorded)?;
        let last = || {
            let bonds = self.0.bonds.iter();
            bonds.filter_map(|bond| Some(([("bond", bond.name.as_str())], bond.last_failover.as_ref()?)))
        };
        let about = (
            "xbond_last_failover_timestamp",
            "When the active slave changed last, since 1970",
            Some(Unit::Seconds),
        );
        let at = last().filter_map(|(labels, receipt)| Some((labels, receipt.switched.unix_seconds()?)));
        gauges(encoder, about, at)?;
        let about = (
            "xbond_last_failover_duration",
            "From when the agent could know of the last change to the switch",
            Some(Unit::Seconds),
        );
        gauges(encoder, about, last().map(|(labels, receipt)| (labels, receipt.duration().as_secs_f64())))
    }

    fn clocks(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        // Without those that are off as configured.
        let bonds = self.0.bonds.iter().filter(|bond| bond.clock != CLOCK_OFF);
        let clocks: Vec<_> =
            bonds.filter_map(|bond| Some(([("bond", bond.name.as_str())], bond.ticks.as_ref()?))).collect();
        let about = ("xbond_clock_running", "Whether the bond's clock in the kernel ticks", None);
        gauges(encoder, about, clocks.iter().map(|(of, clock)| (*of, clock.running.into())))?;
        let table: [(About, CountOfClock); 5] = [
            (("xbond_clock_ticks", "Ticks of the bond's clock", None), |clock| clock.ticks),
            (("xbond_clock_late_ticks", "Ticks that came more than half a period late", None), |clock| {
                clock.late
            }),
            (
                ("xbond_clock_injected_frames", "Frames that a tick put in again because one was lost", None),
                |clock| clock.injected,
            ),
            (
                ("xbond_clock_refused_frames", "Frames that the tick did not expect, and dropped", None),
                |clock| clock.refused,
            ),
            (("xbond_clock_failovers", "Changes of the active slave by ticks", None), |clock| {
                clock.failovers
            }),
        ];
        for (about, value) in table {
            counters(encoder, about, clocks.iter().map(|(of, clock)| (*of, value(clock))))?;
        }
        Ok(())
    }

    fn slaves(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let of_each =
            |value: fn(&Slave) -> f64| self.slave_labels().map(move |(labels, slave)| (labels, value(slave)));
        let about = ("xbond_slave_active", "Whether it is the active slave", None);
        gauges(encoder, about, of_each(|slave| (slave.state == "active").into()))?;
        let about = ("xbond_slave_mii_status", "1 for the status that the slave has, 0 for the others", None);
        let statuses = self.slave_labels().flat_map(|([bond, name], slave)| {
            MiiStatus::ALL.map(|status| {
                let has_it = slave.mii_status == status.to_string();
                ([bond, name, ("status", mii_name(status))], f64::from(u8::from(has_it)))
            })
        });
        gauges(encoder, about, statuses)?;
        let about = (
            "xbond_slave_no_unicast",
            "Whether the active slave sends and has not been sent anything since it became active",
            None,
        );
        gauges(encoder, about, of_each(|slave| slave.no_unicast.into()))?;
        let about = ("xbond_slave_drained", "Whether the administrator has drained the slave", None);
        gauges(encoder, about, of_each(|slave| slave.drained.is_some().into()))?;
        let about = (
            "xbond_slave_path_failed",
            "Whether the path monitor found that the slave's path does not work",
            None,
        );
        gauges(encoder, about, of_each(|slave| has_failed_path(slave).into()))?;
        let about = ("xbond_slave_damped", "Whether the slave is suppressed because its link flaps", None);
        gauges(encoder, about, of_each(|slave| slave.damped.into()))?;
        let about = (
            "xbond_slave_damping_penalty",
            "Failures of the slave's link, each halved in every half_life of damping",
            None,
        );
        let penalty = |slave: &Slave| slave.damping.as_ref().map_or(0.0, |damping| damping.penalty);
        gauges(encoder, about, of_each(penalty))?;
        let about = (
            "xbond_slave_link_failures",
            "Failures of the slave's link, as the driver's Link Failure Count",
            None,
        );
        let failures = self
            .slave_labels()
            .map(|(labels, slave)| (labels, slave.link_failure_count.unwrap_or_default().into()));
        counters(encoder, about, failures)
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let both_ways = |value: fn(&Slave) -> [u64; 2]| {
            self.slave_labels().flat_map(move |([bond, name], slave)| {
                let [transmit, receive] = value(slave);
                [
                    ([bond, name, ("direction", "transmit")], transmit),
                    ([bond, name, ("direction", "receive")], receive),
                ]
            })
        };
        let about =
            ("xbond_slave_packets", "Packets that went by the slave; one of TSO or GRO counts once", None);
        let packets = both_ways(|slave| [slave.counters.tx_packets, slave.counters.rx_packets]);
        counters(encoder, about, packets)?;
        let about =
            ("xbond_slave_traffic", "What went by the slave, with Ethernet headers", Some(Unit::Bytes));
        let bytes = both_ways(|slave| [slave.counters.tx_bytes, slave.counters.rx_bytes]);
        counters(encoder, about, bytes)?;
        let about =
            ("xbond_slave_dropped_packets", "Packets that xbond dropped at the slave, by reason", None);
        let drops = self.slave_labels().flat_map(|([bond, name], slave)| {
            let drops = slave.counters.drops.iter();
            drops.map(move |(reason, count)| ([bond, name, ("reason", reason.as_str())], *count))
        });
        counters(encoder, about, drops)?;
        let about = (
            "xbond_slave_misdirected_packets",
            "Packets for the bond that the slave received as a backup: a switch had the address on the wrong port",
            None,
        );
        counters(
            encoder,
            about,
            self.slave_labels().map(|(labels, slave)| (labels, slave.counters.misdirected)),
        )?;
        let about = ("xbond_port_dropped_packets", "Packets that xbond dropped at the port, by reason", None);
        let drops = self.0.bonds.iter().flat_map(|bond| {
            let drops = bond.drops.iter();
            drops.map(move |(reason, count)| {
                ([("bond", bond.name.as_str()), ("reason", reason.as_str())], *count)
            })
        });
        counters(encoder, about, drops)
    }

    fn slave_labels(&self) -> impl Iterator<Item = ([(&'static str, &str); 2], &Slave)> {
        self.0.bonds.iter().flat_map(|bond| {
            let of_bond = ("bond", bond.name.as_str());
            bond.slaves.iter().map(move |slave| ([of_bond, ("slave", slave.name.as_str())], slave))
        })
    }
}

fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder,
    (name, help, unit): About,
    values: impl IntoIterator<Item = ([(&'a str, &'a str); N], f64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counters<'a, const N: usize>(
    encoder: &mut DescriptorEncoder,
    (name, help, unit): About,
    values: impl IntoIterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn slaves_up(bond: &Bond) -> usize {
    let up = MiiStatus::Up.to_string();
    bond.slaves.iter().filter(|slave| slave.mii_status == up).count()
}

fn has_failed_path(slave: &Slave) -> bool {
    slave.path.as_ref().is_some_and(|path| path.state == PathStatus::Failed)
}

/// Returns the name of a reason in JSON.
fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::LinkFailed => "link_failed",
        Reason::CarrierGuard => "carrier_guard",
        Reason::LinkRecovered => "link_recovered",
        Reason::Left => "left",
        Reason::Joined => "joined",
        Reason::Requested => "requested",
        Reason::OptionChanged => "option_changed",
        Reason::Drained => "drained",
        Reason::Undrained => "undrained",
        Reason::DampingEnded => "damping_ended",
        Reason::Path => "path",
        Reason::PathRecovered => "path_recovered",
    }
}

/// Returns the MII status without spaces, which are unusual in a label's value.
fn mii_name(status: MiiStatus) -> &'static str {
    match status {
        MiiStatus::Up => "up",
        MiiStatus::GoingDown => "going_down",
        MiiStatus::Down => "down",
        MiiStatus::GoingBack => "going_back",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn reasons_have_the_names_that_json_has() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason_name(reason));
        }
    }

    /// `promtool check metrics` asks for this.
    #[test]
    fn every_sample_has_a_help_and_a_type_in_both_formats() {
        for format in [Format::OpenMetrics, Format::Prometheus] {
            let shown = show(testing::report(vec![testing::bond()]), format);
            let about = |kind: &str| -> HashSet<_> {
                let lines = shown.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(' '));
                lines.filter(|(_, rest)| !rest.is_empty()).map(|(name, _)| name.to_owned()).collect()
            };
            let (helps, types) = (about("# HELP "), about("# TYPE "));
            assert_eq!(helps, types, "{format:?}");
            let samples = shown.lines().filter(|line| !line.starts_with('#'));
            let mut described = HashSet::new();
            for sample in samples.filter_map(|line| line.split(['{', ' ']).next()) {
                let name = match format {
                    Format::OpenMetrics => sample.strip_suffix("_total").unwrap_or(sample),
                    Format::Prometheus => sample,
                };
                assert!(helps.contains(name), "{format:?}: {sample}");
                described.insert(name.to_owned());
            }
            assert_eq!(described, helps, "{format:?}");
        }
    }

    #[test]
    fn only_clients_that_accept_openmetrics_receive_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (Some(prometheus), Format::OpenMetrics),
            (Some("*/*"), Format::Prometheus),
            (None, Format::Prometheus),
        ] {
            assert_eq!(Format::of(accept), expected, "{accept:?}");
        }
        let shown = show(testing::report(vec![testing::bond()]), Format::Prometheus);
        let counter: Vec<_> = shown.lines().filter(|line| line.contains("xbond_path_restored")).collect();
        assert_eq!(
            counter,
            [
                "# HELP xbond_path_restored_total How often something was restored that another process had changed, since \
                 the agent has the bond",
                "# TYPE xbond_path_restored_total counter",
                "xbond_path_restored_total{bond=\"bond0\"} 0",
            ]
        );
        assert!(!shown.contains("# UNIT") && !shown.contains("# EOF"), "{shown}");
    }

    // One thing: the whole text for one bond.
    #[test]
    fn metrics_show_a_bond() {
        let shown = show(testing::report(vec![testing::bond()]), Format::OpenMetrics);
        insta::assert_snapshot!(shown, @r#"
        # HELP xbond_agent_info The agent; always 1
        # TYPE xbond_agent_info gauge
        xbond_agent_info{version="0.1.0"} 1.0
        # HELP xbond_agent_start_time_seconds When the agent was started, since 1970
        # TYPE xbond_agent_start_time_seconds gauge
        # UNIT xbond_agent_start_time_seconds seconds
        xbond_agent_start_time_seconds{version="0.1.0"} 1767322860.678901
        # HELP xbond_bond_info A bond, its datapath, its port, and what becomes of it; always 1
        # TYPE xbond_bond_info gauge
        xbond_bond_info{bond="bond0",datapath="tc",port="bond0-port",on_exit="keep"} 1.0
        # HELP xbond_bond_carrier Whether the bond has carrier: any slave's MII status is up
        # TYPE xbond_bond_carrier gauge
        xbond_bond_carrier{bond="bond0"} 1.0
        # HELP xbond_bond_slaves Slaves that are enslaved
        # TYPE xbond_bond_slaves gauge
        xbond_bond_slaves{bond="bond0"} 2.0
        # HELP xbond_bond_slaves_up Slaves whose MII status is up
        # TYPE xbond_bond_slaves_up gauge
        xbond_bond_slaves_up{bond="bond0"} 1.0
        # HELP xbond_bond_slaves_absent Slaves that are configured and not there
        # TYPE xbond_bond_slaves_absent gauge
        xbond_bond_slaves_absent{bond="bond0"} 1.0
        # HELP xbond_failovers Changes of the active slave since the agent has the bond
        # TYPE xbond_failovers counter
        xbond_failovers_total{bond="bond0",reason="link_failed"} 3
        xbond_failovers_total{bond="bond0",reason="carrier_guard"} 0
        xbond_failovers_total{bond="bond0",reason="link_recovered"} 0
        xbond_failovers_total{bond="bond0",reason="left"} 0
        xbond_failovers_total{bond="bond0",reason="joined"} 1
        xbond_failovers_total{bond="bond0",reason="requested"} 0
        xbond_failovers_total{bond="bond0",reason="option_changed"} 0
        xbond_failovers_total{bond="bond0",reason="drained"} 0
        xbond_failovers_total{bond="bond0",reason="undrained"} 0
        xbond_failovers_total{bond="bond0",reason="damping_ended"} 0
        xbond_failovers_total{bond="bond0",reason="path"} 0
        xbond_failovers_total{bond="bond0",reason="path_recovered"} 0
        # HELP xbond_path_faults What another process has changed on the path of the packets and could not be restored
        # TYPE xbond_path_faults gauge
        xbond_path_faults{bond="bond0"} 0.0
        # HELP xbond_path_restored How often something was restored that another process had changed, since the agent has the bond
        # TYPE xbond_path_restored counter
        xbond_path_restored_total{bond="bond0"} 0
        # HELP xbond_unrecorded_changes Changes of ACTIVE that are in no receipt, since the agent has the bond
        # TYPE xbond_unrecorded_changes counter
        xbond_unrecorded_changes_total{bond="bond0"} 0
        # HELP xbond_last_failover_timestamp_seconds When the active slave changed last, since 1970
        # TYPE xbond_last_failover_timestamp_seconds gauge
        # UNIT xbond_last_failover_timestamp_seconds seconds
        xbond_last_failover_timestamp_seconds{bond="bond0"} 1767323045.678901
        # HELP xbond_last_failover_duration_seconds From when the agent could know of the last change to the switch
        # TYPE xbond_last_failover_duration_seconds gauge
        # UNIT xbond_last_failover_duration_seconds seconds
        xbond_last_failover_duration_seconds{bond="bond0"} 0.000157
        # HELP xbond_clock_running Whether the bond's clock in the kernel ticks
        # TYPE xbond_clock_running gauge
        xbond_clock_running{bond="bond0"} 1.0
        # HELP xbond_clock_ticks Ticks of the bond's clock
        # TYPE xbond_clock_ticks counter
        xbond_clock_ticks_total{bond="bond0"} 360000
        # HELP xbond_clock_late_ticks Ticks that came more than half a period late
        # TYPE xbond_clock_late_ticks counter
        xbond_clock_late_ticks_total{bond="bond0"} 3
        # HELP xbond_clock_injected_frames Frames that a tick put in again because one was lost
        # TYPE xbond_clock_injected_frames counter
        xbond_clock_injected_frames_total{bond="bond0"} 1
        # HELP xbond_clock_refused_frames Frames that the tick did not expect, and dropped
        # TYPE xbond_clock_refused_frames counter
        xbond_clock_refused_frames_total{bond="bond0"} 0
        # HELP xbond_clock_failovers Changes of the active slave by ticks
        # TYPE xbond_clock_failovers counter
        xbond_clock_failovers_total{bond="bond0"} 1
        # HELP xbond_slave_active Whether it is the active slave
        # TYPE xbond_slave_active gauge
        xbond_slave_active{bond="bond0",slave="enp0s8"} 0.0
        xbond_slave_active{bond="bond0",slave="enp0s9"} 1.0
        # HELP xbond_slave_mii_status 1 for the status that the slave has, 0 for the others
        # TYPE xbond_slave_mii_status gauge
        xbond_slave_mii_status{bond="bond0",slave="enp0s8",status="up"} 0.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s8",status="going_down"} 1.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s8",status="down"} 0.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s8",status="going_back"} 0.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s9",status="up"} 1.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s9",status="going_down"} 0.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s9",status="down"} 0.0
        xbond_slave_mii_status{bond="bond0",slave="enp0s9",status="going_back"} 0.0
        # HELP xbond_slave_no_unicast Whether the active slave sends and has not been sent anything since it became active
        # TYPE xbond_slave_no_unicast gauge
        xbond_slave_no_unicast{bond="bond0",slave="enp0s8"} 0.0
        xbond_slave_no_unicast{bond="bond0",slave="enp0s9"} 1.0
        # HELP xbond_slave_drained Whether the administrator has drained the slave
        # TYPE xbond_slave_drained gauge
        xbond_slave_drained{bond="bond0",slave="enp0s8"} 0.0
        xbond_slave_drained{bond="bond0",slave="enp0s9"} 0.0
        # HELP xbond_slave_path_failed Whether the path monitor found that the slave's path does not work
        # TYPE xbond_slave_path_failed gauge
        xbond_slave_path_failed{bond="bond0",slave="enp0s8"} 0.0
        xbond_slave_path_failed{bond="bond0",slave="enp0s9"} 0.0
        # HELP xbond_slave_damped Whether the slave is suppressed because its link flaps
        # TYPE xbond_slave_damped gauge
        xbond_slave_damped{bond="bond0",slave="enp0s8"} 0.0
        xbond_slave_damped{bond="bond0",slave="enp0s9"} 0.0
        # HELP xbond_slave_damping_penalty Failures of the slave's link, each halved in every half_life of damping
        # TYPE xbond_slave_damping_penalty gauge
        xbond_slave_damping_penalty{bond="bond0",slave="enp0s8"} 0.0
        xbond_slave_damping_penalty{bond="bond0",slave="enp0s9"} 0.0
        # HELP xbond_slave_link_failures Failures of the slave's link, as the driver's Link Failure Count
        # TYPE xbond_slave_link_failures counter
        xbond_slave_link_failures_total{bond="bond0",slave="enp0s8"} 1
        xbond_slave_link_failures_total{bond="bond0",slave="enp0s9"} 1
        # HELP xbond_slave_packets Packets that went by the slave; one of TSO or GRO counts once
        # TYPE xbond_slave_packets counter
        xbond_slave_packets_total{bond="bond0",slave="enp0s8",direction="transmit"} 12345678901
        xbond_slave_packets_total{bond="bond0",slave="enp0s8",direction="receive"} 7
        xbond_slave_packets_total{bond="bond0",slave="enp0s9",direction="transmit"} 12345678901
        xbond_slave_packets_total{bond="bond0",slave="enp0s9",direction="receive"} 7
        # HELP xbond_slave_traffic_bytes What went by the slave, with Ethernet headers
        # TYPE xbond_slave_traffic_bytes counter
        # UNIT xbond_slave_traffic_bytes bytes
        xbond_slave_traffic_bytes_total{bond="bond0",slave="enp0s8",direction="transmit"} 18765432109876
        xbond_slave_traffic_bytes_total{bond="bond0",slave="enp0s8",direction="receive"} 1234
        xbond_slave_traffic_bytes_total{bond="bond0",slave="enp0s9",direction="transmit"} 18765432109876
        xbond_slave_traffic_bytes_total{bond="bond0",slave="enp0s9",direction="receive"} 1234
        # HELP xbond_slave_dropped_packets Packets that xbond dropped at the slave, by reason
        # TYPE xbond_slave_dropped_packets counter
        xbond_slave_dropped_packets_total{bond="bond0",slave="enp0s8",reason="backup"} 37
        xbond_slave_dropped_packets_total{bond="bond0",slave="enp0s8",reason="runt"} 0
        xbond_slave_dropped_packets_total{bond="bond0",slave="enp0s9",reason="backup"} 37
        xbond_slave_dropped_packets_total{bond="bond0",slave="enp0s9",reason="runt"} 0
        # HELP xbond_slave_misdirected_packets Packets for the bond that the slave received as a backup: a switch had the address on the wrong port
        # TYPE xbond_slave_misdirected_packets counter
        xbond_slave_misdirected_packets_total{bond="bond0",slave="enp0s8"} 0
        xbond_slave_misdirected_packets_total{bond="bond0",slave="enp0s9"} 0
        # HELP xbond_port_dropped_packets Packets that xbond dropped at the port, by reason
        # TYPE xbond_port_dropped_packets counter
        xbond_port_dropped_packets_total{bond="bond0",reason="no_active_slave"} 2
        xbond_port_dropped_packets_total{bond="bond0",reason="runt"} 0
        # HELP node_bonding_slaves Number of configured slaves per bonding interface.
        # TYPE node_bonding_slaves gauge
        node_bonding_slaves{master="bond0"} 2.0
        # HELP node_bonding_active Number of active slaves per bonding interface.
        # TYPE node_bonding_active gauge
        node_bonding_active{master="bond0"} 1.0
        # EOF
        "#);
    }

    #[test]
    fn the_text_for_node_exporter_has_its_two_metrics_alone() {
        let text = node_exporter_text(testing::report(vec![testing::bond()]));
        insta::assert_snapshot!(text, @r#"
        # HELP node_bonding_slaves Number of configured slaves per bonding interface.
        # TYPE node_bonding_slaves gauge
        node_bonding_slaves{master="bond0"} 2.0
        # HELP node_bonding_active Number of active slaves per bonding interface.
        # TYPE node_bonding_active gauge
        node_bonding_active{master="bond0"} 1.0
        "#);
    }

    /// The expression of NodeBondingDegraded in node_exporter's mixin: `(node_bonding_slaves - node_bonding_active) != 0`.
    #[test]
    fn node_exporters_alert_is_raised_by_each_slave_that_is_not_up() {
        let value = |text: &str, name: &str| -> f64 {
            let start = format!("{name}{{master=\"bond0\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
        };
        for (statuses, degraded) in [
            (["up", "up"], false),
            (["up", "down"], true),
            (["going down", "up"], true),
            (["up", "going back"], true),
            (["down", "down"], true),
        ] {
            let slaves = statuses.map(|status| testing::slave(status, "backup", status)).to_vec();
            let report = testing::report(vec![Bond { slaves, ..testing::bond() }]);
            let texts = [show(report.clone(), Format::Prometheus), node_exporter_text(report)];
            for text in texts {
                let missing = value(&text, "node_bonding_slaves") - value(&text, "node_bonding_active");
                assert_eq!(missing != 0.0, degraded, "{statuses:?}");
            }
        }
    }
}
