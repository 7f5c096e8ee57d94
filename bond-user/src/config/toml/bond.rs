//! Reads the tables of a bond, its slaves and its routes.

use ::toml::de::DeValue;
use bond_common::abi::MAX_SLAVES;
use bond_core::{
    damping::Damping,
    name::BondName,
    options::{BondOptions, OptionError, Setting, SlaveOptions},
    watch::Watch,
};
use ipnet::IpNet;

use super::{BOND_KEYS, SLAVE_KEYS, bond_keys, entry::Entry};
use crate::config::{
    BondConfig, ConfigError, Note, Problem, Route, SlaveConfig,
    settings::{self, LiteralKind},
};

const ROUTE_KEYS: &[&str] = &["to", "via", "metric"];

pub(super) fn bond(table: &Entry) -> Result<BondConfig, ConfigError> {
    let name = BondName::new(table.key).map_err(|error| table.refuse(error.into()))?;
    let mut bond = BondConfig::new(name, table.origin());
    let mut options = Vec::new();
    let mut slave_tables = Vec::new();
    for entry in table.table()? {
        match entry.key {
            "slaves" => bond.slaves = slaves(table.key, &entry)?,
            "slave" if !matches!(entry.value, DeValue::Table(_)) => {
                let known = BOND_KEYS.iter().copied().filter(|key| *key != "slave").collect::<Vec<_>>();
                return Err(entry.unknown(table.key, &known));
            }
            "slave" => slave_tables = entry.table()?,
            "addresses" => bond.addresses = addresses(&entry)?,
            "routes" => bond.routes = entry.list()?.iter().map(route).collect::<Result<_, _>>()?,
            key if settings::KEYS.contains(&key) => setting(&mut bond, &entry)?,
            key => {
                let text = entry.option_text();
                // Parsed only for the line of an error; the value is read again with the others.
                match (Setting::parse(key, text.as_deref().unwrap_or_default()), text) {
                    (Err(OptionError::Unknown { .. }), _) => {
                        let known = bond_keys();
                        return Err(entry.unknown(table.key, &known));
                    }
                    (_, Err(wrong_type)) => return Err(wrong_type),
                    (Err(error), Ok(_)) => return Err(entry.refuse(error.into())),
                    (Ok(_), Ok(text)) => options.push((key, text)),
                }
            }
        }
    }
    for slave_table in &slave_tables {
        let slave = bond.slaves.iter_mut().find(|slave| slave.name == slave_table.key);
        let Some(slave) = slave else {
            let (bond, slave) = (bond.name.into(), slave_table.key.to_owned());
            return Err(slave_table.refuse(Problem::NotASlave { bond, slave }));
        };
        fill_slave(slave, slave_table)?;
    }

    let pairs = options.iter().map(|(key, value)| (*key, value.as_str()));
    let (options, notes) = BondOptions::from_pairs(pairs, bond.allow_unmonitored)
        .map_err(|error| table.refuse(Problem::OfBond { bond: bond.name.to_string(), error }))?;
    bond.options = options;
    bond.notes = notes.into_iter().map(|note| Note::Option { bond: bond.name.to_string(), note }).collect();
    Ok(bond)
}

fn setting(bond: &mut BondConfig, entry: &Entry) -> Result<(), ConfigError> {
    let row = settings::ROWS.iter().find(|row| row.key == entry.key);
    let text = match row.map(|row| row.literal) {
        Some(LiteralKind::Flag) => entry.boolean()?.to_string(),
        Some(LiteralKind::Number) => entry.integer()?,
        Some(LiteralKind::Table) => entry.pairs(&Damping::KEYS)?,
        Some(LiteralKind::List) => entry.text_or_list()?,
        Some(LiteralKind::Choice) => entry.choice(&Watch::KEYS)?,
        Some(LiteralKind::Text) | None => entry.string()?.to_owned(),
    };
    match bond.set(entry.key, &text) {
        Some(Err(wanted)) => Err(entry.bad_value(&text, wanted)),
        Some(Ok(())) | None => Ok(()),
    }
}

pub(super) fn slaves(bond: &str, entry: &Entry) -> Result<Vec<SlaveConfig>, ConfigError> {
    let names = entry.strings()?;
    if names.len() > MAX_SLAVES {
        return Err(entry.refuse(Problem::TooManySlaves { bond: bond.to_owned(), slaves: names.len() }));
    }
    names.into_iter().map(|name| Ok(SlaveConfig::new(entry.interface_name(name)?))).collect()
}

fn fill_slave(slave: &mut SlaveConfig, table: &Entry) -> Result<(), ConfigError> {
    for entry in table.table()? {
        match entry.key {
            "hwaddr" => slave.hwaddr = Some(entry.mac()?),
            "mac" => slave.mac = Some(entry.mac()?),
            "mtu" => slave.mtu = Some(entry.number("a number of bytes")?),
            key if SlaveOptions::KEYS.contains(&key) => {
                let text = if key == "watch" { entry.choice(&Watch::KEYS)? } else { entry.option_text()? };
                slave.options.set(key, &text).map_err(|error| entry.refuse(error.into()))?;
            }
            _ => {
                let known = [SLAVE_KEYS, SlaveOptions::KEYS].concat();
                return Err(entry.unknown(&format!("slave {}", table.key), &known));
            }
        }
    }
    Ok(())
}

pub(super) fn addresses(entry: &Entry) -> Result<Vec<IpNet>, ConfigError> {
    const WANTED: &str = "an address with its prefix length, like 192.0.2.1/24";
    entry.list()?.iter().map(|item| item.parsed(WANTED)).collect()
}

pub(super) fn route(entry: &Entry) -> Result<Route, ConfigError> {
    let mut to = None;
    let mut via = None;
    let mut metric = None;
    for entry in entry.table()? {
        match entry.key {
            "to" => to = Some(entry.parsed("default, or a prefix like 192.0.2.0/24")?),
            "via" => via = Some(entry.parsed("an address without a prefix length")?),
            "metric" => metric = Some(entry.number("a number")?),
            _ => return Err(entry.unknown("a route", ROUTE_KEYS)),
        }
    }
    let to = to.ok_or_else(|| entry.refuse(Problem::Missing { key: "to" }))?;
    Ok(Route { to, via, metric })
}
