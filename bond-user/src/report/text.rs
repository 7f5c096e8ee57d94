//! The text of `xbond show`, in 80 columns.

use std::fmt::{self, Write as _};

use super::json::{Bond, Slave};

/// What SCENARIO-like networks need to be told: the message of `show` and of the log.
pub fn unheard(slave: &str, sent: u64) -> String {
    format!(
        "{slave}: {sent} frames sent, no unicast received since it became active; \
         the port may accept only its own MAC: use fail_over_mac=active"
    )
}

/// The bonds, one after the other.
pub fn show(bonds: &[Bond]) -> String {
    let mut text = String::new();
    for (number, bond) in bonds.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = show_bond(&mut text, bond);
    }
    text
}

/// Options whose value is worth a line although it is the default.
const ALWAYS_SHOWN: [&str; 2] = ["fail_over_mac", "miimon"];

fn show_bond(text: &mut String, bond: &Bond) -> fmt::Result {
    let carrier = if bond.carrier { "up" } else { "DOWN" };
    let active = bond.active_slave.as_deref().unwrap_or("none");
    writeln!(text, "{}: active slave {active}, carrier {carrier}, mac {}", bond.name, bond.mac)?;
    let mut options = format!("datapath={} port={}", bond.datapath, bond.port);
    for (name, value) in &bond.options {
        if ALWAYS_SHOWN.contains(&name.as_str()) || !is_default(name, value) {
            write!(options, " {name}={}", plain(value))?;
        }
    }
    wrap(text, &options)?;
    if !bond.slaves.is_empty() {
        row(text, ["SLAVE", "STATE", "MII", "MAC", "FAILED", "TX", "RX"])?;
    }
    for slave in &bond.slaves {
        show_slave(text, slave)?;
    }
    for absent in &bond.absent {
        writeln!(text, "  {absent:<16}absent: it joins when it appears")?;
    }
    for warning in bond.slaves.iter().flat_map(|slave| &slave.warnings) {
        // In one line however long, as in the log: people search for it.
        writeln!(text, "  ! {warning}")?;
    }
    Ok(())
}

fn show_slave(text: &mut String, slave: &Slave) -> fmt::Result {
    let [failed, tx, rx] =
        [slave.link_failure_count.into(), slave.counters.tx_packets, slave.counters.rx_packets].map(count);
    row(text, [&slave.name, &slave.state, &slave.mii_status, &slave.mac, &failed, &tx, &rx])
}

/// 80 columns.
fn row(text: &mut String, [name, state, mii, mac, failed, tx, rx]: [&str; 7]) -> fmt::Result {
    writeln!(text, "  {name:<16}{state:<7}{mii:<11}{mac:<18}{failed:>6}{tx:>10}{rx:>10}")
}

/// A number in at most 9 columns: exact up to ten million, then in thousands, millions or milliards.
fn count(number: u64) -> String {
    match number {
        0..10_000_000 => number.to_string(),
        10_000_000..1_000_000_000 => format!("{}k", number / 1_000),
        1_000_000_000..1_000_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

fn is_default(name: &str, value: &serde_json::Value) -> bool {
    let defaults = serde_json::to_value(crate::bond::options::BondOptions::default());
    defaults.is_ok_and(|defaults| defaults.get(name) == Some(value))
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Words in lines of at most 80 columns.
fn wrap(text: &mut String, words: &str) -> fmt::Result {
    const INDENT: &str = "  ";
    let mut line = INDENT.to_owned();
    let mut is_empty = true;
    for word in words.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > 80 {
            writeln!(text, "{line}")?;
            line = INDENT.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(text, "{line}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{bond::options::BondOptions, report::json::Counters};

    fn bond() -> Bond {
        let options = BondOptions { miimon: 100, updelay: 200, ..BondOptions::default() };
        let options = serde_json::to_value(options).unwrap().as_object().unwrap().clone();
        let slave = |name: &str, state: &str, mii: &str, warnings| Slave {
            name: name.into(),
            ifindex: 3,
            state: state.into(),
            mii_status: mii.into(),
            mac: "08:00:27:e8:26:58".into(),
            permanent_mac: "08:00:27:e8:26:58".into(),
            link_failure_count: 1,
            speed: None,
            duplex: None,
            prio: 0,
            queue_id: 0,
            counters: Counters { tx_packets: 12_345_678_901, rx_packets: 7, ..Counters::default() },
            warnings,
        };
        Bond {
            name: "bond0".into(),
            active_slave: Some("enp0s9".into()),
            mac: "08:00:27:e8:26:58".into(),
            carrier: true,
            datapath: "tc".into(),
            port: "bond0-port".into(),
            guard: "on".into(),
            options,
            drops: BTreeMap::new(),
            slaves: vec![
                slave("enp0s8", "backup", "going down", vec![]),
                slave("enp0s9", "active", "up", vec![unheard("enp0s9", 312)]),
            ],
            absent: vec!["enp0s10".into()],
        }
    }

    #[test]
    fn a_bond_is_shown_in_80_columns() {
        let shown = show(&[bond()]);
        insta::assert_snapshot!(shown, @r"
        bond0: active slave enp0s9, carrier up, mac 08:00:27:e8:26:58
          datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
          SLAVE           STATE  MII        MAC               FAILED        TX        RX
          enp0s8          backup going down 08:00:27:e8:26:58      1    12345M         7
          enp0s9          active up         08:00:27:e8:26:58      1    12345M         7
          enp0s10         absent: it joins when it appears
          ! enp0s9: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
        ");
        let warning = |line: &&str| line.starts_with("  !");
        assert!(shown.lines().filter(|line| !warning(line)).all(|line| line.chars().count() <= 80));
    }
}
