//! packaging/grafana/xbond.json, a dashboard for Grafana: made from the tables of metrics in docs/reference/metrics.md, and a
//! table of panels here.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xtask_common::machine;

const REFERENCE: &str = "docs/reference/metrics.md";

/// The columns of Grafana's grid.
const COLUMNS: usize = 24;
/// The height of a panel, in rows of the grid.
const HEIGHT: usize = 8;

/// What a panel is.
#[derive(Clone, Copy)]
enum Kind {
    /// Values now, one for each series.
    Stat,
    /// Values over time.
    Graph,
    /// 0 or 1 over time, in a row for each series.
    States,
}

impl Kind {
    /// Returns Grafana's name.
    fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Graph => "timeseries",
            Self::States => "state-timeline",
        }
    }
}

/// A panel: one query, whose description is that of its first metric in the reference.
struct Panel {
    title: &'static str,
    kind: Kind,
    /// Grafana's name of the unit.
    unit: &'static str,
    /// `$of` stands for the bonds that are chosen.
    query: &'static str,
    legend: &'static str,
}

/// Rows of panels with their titles; panels of a row share its width.
const ROWS: &[(&str, &[Panel])] = &[
    (
        "Bonds",
        &[
            panel("Carrier", Kind::Stat, "bool_yes_no", "xbond_bond_carrier{$of}", "{{instance}} {{bond}}"),
            panel("Slaves up", Kind::Stat, "none", "xbond_bond_slaves_up{$of}", "{{instance}} {{bond}}"),
            panel("Slaves", Kind::Stat, "none", "xbond_bond_slaves{$of}", "{{instance}} {{bond}}"),
            panel(
                "Absent slaves",
                Kind::Stat,
                "none",
                "xbond_bond_slaves_absent{$of}",
                "{{instance}} {{bond}}",
            ),
        ],
    ),
    (
        "Slaves",
        &[
            panel(
                "Active slave",
                Kind::States,
                "bool_yes_no",
                "xbond_slave_active{$of}",
                "{{instance}} {{bond}} {{slave}}",
            ),
            panel(
                "MII status is up",
                Kind::States,
                "bool_yes_no",
                "xbond_slave_mii_status{$of, status=\"up\"}",
                "{{instance}} {{bond}} {{slave}}",
            ),
        ],
    ),
    (
        "Failovers",
        &[
            panel(
                "Failovers",
                Kind::Graph,
                "none",
                "sum by (instance, bond, reason) (increase(xbond_failovers_total{$of}[$__rate_interval]))",
                "{{instance}} {{bond}} {{reason}}",
            ),
            panel(
                "Link failures",
                Kind::Graph,
                "none",
                "increase(xbond_slave_link_failures_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}} {{slave}}",
            ),
            panel(
                "Time since the last failover",
                Kind::Stat,
                "s",
                "time() - xbond_last_failover_timestamp_seconds{$of}",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Duration of the last failover",
                Kind::Stat,
                "s",
                "xbond_last_failover_duration_seconds{$of}",
                "{{instance}} {{bond}}",
            ),
        ],
    ),
    (
        "Traffic",
        &[
            panel(
                "Traffic",
                Kind::Graph,
                "bps",
                "8 * rate(xbond_slave_traffic_bytes_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}} {{slave}} {{direction}}",
            ),
            panel(
                "Packets",
                Kind::Graph,
                "pps",
                "rate(xbond_slave_packets_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}} {{slave}} {{direction}}",
            ),
        ],
    ),
    (
        "Drops",
        &[
            panel(
                "Dropped at slaves",
                Kind::Graph,
                "pps",
                "rate(xbond_slave_dropped_packets_total{$of}[$__rate_interval]) > 0",
                "{{instance}} {{bond}} {{slave}} {{reason}}",
            ),
            panel(
                "Dropped at the port",
                Kind::Graph,
                "pps",
                "rate(xbond_port_dropped_packets_total{$of}[$__rate_interval]) > 0",
                "{{instance}} {{bond}} {{reason}}",
            ),
            panel(
                "Misdirected frames",
                Kind::Graph,
                "pps",
                "rate(xbond_slave_misdirected_packets_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}} {{slave}}",
            ),
        ],
    ),
    (
        "Conditions",
        &[
            panel(
                "Receives no unicast",
                Kind::States,
                "bool_yes_no",
                "xbond_slave_no_unicast{$of}",
                "{{instance}} {{bond}} {{slave}}",
            ),
            panel(
                "Drained",
                Kind::States,
                "bool_yes_no",
                "xbond_slave_drained{$of}",
                "{{instance}} {{bond}} {{slave}}",
            ),
            panel(
                "Damped",
                Kind::States,
                "bool_yes_no",
                "xbond_slave_damped{$of}",
                "{{instance}} {{bond}} {{slave}}",
            ),
            panel(
                "Damping penalty",
                Kind::Graph,
                "none",
                "xbond_slave_damping_penalty{$of}",
                "{{instance}} {{bond}} {{slave}}",
            ),
            panel(
                "Path failed",
                Kind::States,
                "bool_yes_no",
                "xbond_slave_path_failed{$of}",
                "{{instance}} {{bond}} {{slave}}",
            ),
        ],
    ),
    (
        "Clock",
        &[
            panel(
                "Clock runs",
                Kind::Stat,
                "bool_yes_no",
                "xbond_clock_running{$of}",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Ticks",
                Kind::Graph,
                "hertz",
                "rate(xbond_clock_ticks_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Late ticks",
                Kind::Graph,
                "none",
                "increase(xbond_clock_late_ticks_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Failovers by ticks",
                Kind::Graph,
                "none",
                "increase(xbond_clock_failovers_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Re-injected frames",
                Kind::Graph,
                "none",
                "increase(xbond_clock_injected_frames_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Refused frames",
                Kind::Graph,
                "none",
                "increase(xbond_clock_refused_frames_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
        ],
    ),
    (
        "Agent",
        &[
            panel(
                "Uptime",
                Kind::Stat,
                "s",
                "time() - xbond_agent_start_time_seconds{instance=~\"$instance\"}",
                "{{instance}} {{version}}",
            ),
            panel("Path faults", Kind::Stat, "none", "xbond_path_faults{$of}", "{{instance}} {{bond}}"),
            panel(
                "Restored changes of other processes",
                Kind::Graph,
                "none",
                "increase(xbond_path_restored_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
            panel(
                "Failovers without a receipt",
                Kind::Graph,
                "none",
                "increase(xbond_unrecorded_changes_total{$of}[$__rate_interval])",
                "{{instance}} {{bond}}",
            ),
        ],
    ),
];

/// Metrics that no panel shows: what identifies an agent or a bond, and node_exporter's, which its dashboards show.
#[cfg(test)]
const NOT_SHOWN: [&str; 4] =
    ["xbond_agent_info", "xbond_bond_info", "node_bonding_slaves", "node_bonding_active"];

const fn panel(
    title: &'static str,
    kind: Kind,
    unit: &'static str,
    query: &'static str,
    legend: &'static str,
) -> Panel {
    Panel { title, kind, unit, query, legend }
}

/// Writes the file.
///
/// # Errors
/// The reference cannot be read, a panel's metric is not in it, or the file cannot be written.
pub fn write() -> Result<()> {
    let path = path();
    fs::write(&path, text()?).with_context(|| format!("cannot write {}", path.display()))
}

fn path() -> PathBuf {
    machine::root().join("packaging/grafana/xbond.json")
}

fn text() -> Result<String> {
    let reference = fs::read_to_string(machine::root().join(REFERENCE)).context(REFERENCE)?;
    Ok(format!("{}\n", serde_json::to_string_pretty(&dashboard(&metrics(&reference))?)?))
}

/// Returns the metrics of the reference with their meanings.
fn metrics(reference: &str) -> BTreeMap<&str, &str> {
    let row = |line: &'_ str| -> Option<(usize, usize, usize)> {
        let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").collect();
        let [name, _, meaning] = cells[..] else { return None };
        let name = name.strip_suffix('`').filter(|name| name.contains('_'))?;
        Some((name.len(), line.len() - meaning.len(), meaning.strip_suffix(" |")?.len()))
    };
    let metric = |line| {
        let (name, start, length) = row(line)?;
        Some((&line[3..3 + name], &line[start..start + length]))
    };
    reference.lines().filter_map(metric).filter(|(name, _)| is_metric(name)).collect()
}

fn is_metric(word: &str) -> bool {
    word.starts_with("xbond_") || word.starts_with("node_bonding_")
}

/// Returns the metrics in a query.
fn metrics_in(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| is_metric(word))
}

fn dashboard(metrics: &BTreeMap<&str, &str>) -> Result<Value> {
    let mut panels = Vec::new();
    let mut y = 0;
    for (title, row) in ROWS {
        panels.push(json!({
            "id": panels.len() + 1, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
        }));
        y += 1;
        let in_line = row.len().min(4);
        for (number, panel) in row.iter().enumerate() {
            let width = COLUMNS / in_line;
            let (x, y) = (number % in_line * width, y + number / in_line * HEIGHT);
            let id = panels.len() + 1;
            panels.push(in_grafana(panel, id, [x, y, width], metrics)?);
        }
        y += row.len().div_ceil(in_line) * HEIGHT;
    }
    Ok(json!({
        "title": "xbond", "uid": "xbond", "tags": ["xbond", "network"], "editable": true,
        "schemaVersion": 39, "version": 1, "refresh": "30s", "timezone": "",
        "time": { "from": "now-6h", "to": "now" },
        "templating": { "list": [
            { "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source" },
            variable("instance", "label_values(xbond_agent_info, instance)"),
            variable("bond", "label_values(xbond_bond_info{instance=~\"$instance\"}, bond)"),
        ] },
        "panels": panels,
    }))
}

fn variable(name: &str, query: &str) -> Value {
    json!({
        "name": name, "type": "query", "label": name, "query": query, "definition": query, "datasource": source(),
        "refresh": 2, "includeAll": true, "multi": true, "sort": 1,
        "current": { "text": "All", "value": "$__all" },
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn in_grafana(
    panel: &Panel,
    id: usize,
    [x, y, width]: [usize; 3],
    metrics: &BTreeMap<&str, &str>,
) -> Result<Value> {
    let name =
        metrics_in(panel.query).next().with_context(|| format!("{}: queries no metric", panel.title))?;
    let meaning = metrics.get(name).with_context(|| format!("{REFERENCE} has no {name}"))?;
    let query = panel.query.replace("$of", "instance=~\"$instance\", bond=~\"$bond\"");
    Ok(json!({
        "id": id, "type": panel.kind.name(), "title": panel.title, "datasource": source(),
        "description": format!("{name}: {meaning}"),
        "gridPos": { "x": x, "y": y, "w": width, "h": HEIGHT },
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
        "targets": [{ "refId": "A", "datasource": source(), "expr": query, "legendFormat": panel.legend }],
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_dashboard_is_as_the_list_of_metrics_makes_it() {
        let file = fs::read_to_string(path()).unwrap();
        assert!(
            file == text().unwrap(),
            "packaging/grafana/xbond.json is not current; run `cargo xtask docs`"
        );
    }

    #[test]
    fn each_metric_is_shown() {
        let reference = fs::read_to_string(machine::root().join(REFERENCE)).unwrap();
        let all = metrics(&reference);
        assert!(all.len() > 25, "{all:?}");
        let panels = ROWS.iter().flat_map(|(_, row)| row.iter());
        let shown: BTreeSet<_> = panels.flat_map(|panel| metrics_in(panel.query)).chain(NOT_SHOWN).collect();
        assert_eq!(shown, all.into_keys().collect());
    }

    #[test]
    fn panels_do_not_overlap() {
        let reference = fs::read_to_string(machine::root().join(REFERENCE)).unwrap();
        let board = dashboard(&metrics(&reference)).unwrap();
        let mut taken = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{panel}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{panel}");
            }
        }
    }
}
