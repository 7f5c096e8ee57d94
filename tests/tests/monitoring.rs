//! Alerts and the dashboard: their queries are about metrics and labels that an agent has.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use common::{BOND, bond, eventually};
use serde_json::Value;
use xbond_tests::{Cut, Lab, WAIT_LIMIT, Xbond, lab::Datapath, skip_if_unable};

/// The labels of each metric.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// Labels that Prometheus adds.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];

/// Words of PromQL that a list of labels follows.
const BEFORE_LABELS: [&str; 4] = ["by", "without", "on", "ignoring"];

fn scrape(lab: &Lab) -> Metrics {
    let cookie = lab.host.cookie().unwrap().to_string();
    let mut stream = UnixStream::connect(Path::new("/run/xbond").join(cookie).join("xbond.sock")).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: xbond\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let sample = |line: &str| {
        let (name, rest) = line.split_once('{')?;
        let (labels, _) = rest.rsplit_once('}')?;
        let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        Some((name.to_owned(), labels.collect()))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// A word of PromQL, or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// Something in quotes.
    Text,
    Sign(char),
}

fn tokens(query: &str) -> Vec<Token> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => 2 + rest[1..].find('"').expect("a text has an end"),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(match first {
            '"' => Token::Text,
            _ if is_word(first) => Token::Word(token.to_owned()),
            _ => Token::Sign(first),
        });
        rest = after.trim_start();
    }
    tokens
}

/// Returns the words in the braces or parentheses that open at a token.
fn in_list(tokens: &[Token], opens: usize) -> Vec<&str> {
    let inside = tokens.iter().skip(opens + 1).take_while(|token| !matches!(token, Token::Sign('}' | ')')));
    let words = inside.filter_map(|token| match token {
        Token::Word(word) => Some(word.as_str()),
        Token::Text | Token::Sign(_) => None,
    });
    words.collect()
}

/// Returns what a query asks for that is not there: a metric, or a label of it.
fn faults(query: &str, metrics: &Metrics) -> Vec<String> {
    let tokens = tokens(query);
    let (mut faults, mut known, mut named) = (Vec::new(), BTreeSet::from(OF_PROMETHEUS), Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        if BEFORE_LABELS.contains(&word.as_str()) {
            named.extend(in_list(&tokens, at + 1));
        } else if word.starts_with("xbond_") || word.starts_with("node_bonding_") {
            let Some(labels) = metrics.get(word) else {
                faults.push(format!("no metric {word}"));
                continue;
            };
            known.extend(labels.iter().map(String::as_str));
            if tokens.get(at + 1) == Some(&Token::Sign('{')) {
                let selected = in_list(&tokens, at + 1).into_iter();
                let bad = selected.filter(|label| !labels.contains(*label) && !OF_PROMETHEUS.contains(label));
                faults.extend(bad.map(|label| format!("{word} has no label {label}")));
            }
        }
    }
    faults.extend(
        named.iter().filter(|label| !known.contains(*label)).map(|label| format!("no label {label}")),
    );
    faults
}

fn packaging(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the expressions of the rules.
fn expressions() -> Vec<String> {
    let rules = packaging("prometheus/xbond.rules.yml");
    let ends = |line: &&str| {
        ["for:", "labels:", "annotations:"].iter().any(|key| line.trim_start().starts_with(key))
    };
    let expression = |rest: &str| {
        let lines = rest.lines().take_while(|line| !ends(line));
        lines.collect::<Vec<_>>().join(" ").replace(">-", " ")
    };
    rules.split("expr:").skip(1).map(expression).collect()
}

/// Returns the queries of the dashboard, and the labels of their legends.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&packaging("grafana/xbond.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let target = |target: &Value| {
        let legend = target["legendFormat"].as_str().unwrap();
        let labels = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
        let labels = labels.map(|(label, _)| label.to_owned()).collect();
        (target["expr"].as_str().unwrap().to_owned(), labels)
    };
    targets.map(target).collect()
}

fn after_a_failover(lab: &Lab) -> Xbond<'_> {
    let xbond = bond(lab, Datapath::Tc, &[]);
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let is_recorded = |show: &Value| show["bonds"][0]["last_failover"]["to"] == "enp0s9";
    eventually("a receipt", || xbond.show(BOND).unwrap(), is_recorded);
    xbond
}

/// Rules that name metrics which do not exist are never true, and panels stay empty.
#[test]
fn queries_use_metrics_and_labels_that_exist() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = after_a_failover(&lab);
    let metrics = scrape(&lab);
    let (expressions, panels) = (expressions(), panels());
    assert!(expressions.len() >= 6 && panels.len() >= 25, "{expressions:?} {panels:?}");
    for query in expressions.iter().chain(panels.iter().map(|(query, _)| query)) {
        assert_eq!(faults(query, &metrics), [""; 0], "{query}");
    }
    for (query, labels) in &panels {
        let as_list = format!("sum by ({}) ({query})", labels.join(", "));
        assert_eq!(faults(&as_list, &metrics), [""; 0], "{as_list}");
    }
    xbond.stop().unwrap();
}

#[test]
fn a_query_of_an_unknown_metric_is_found() {
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let metrics = Metrics::from([("xbond_a".to_owned(), labels(&["bond"]))]);
    for (query, fault) in [
        ("rate(xbond_b[5m])", "no metric xbond_b"),
        ("xbond_a{slave=~\"a{b}\"} == 0", "xbond_a has no label slave"),
        ("sum by (job, slave) (xbond_a)", "no label slave"),
    ] {
        assert_eq!(faults(query, &metrics), [fault]);
    }
    assert_eq!(faults("sum by (job, bond) (xbond_a{bond=~\"$bond\", job=\"x\"}) > 1", &metrics), [""; 0]);
}
