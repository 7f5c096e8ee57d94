//! Writes a configuration.

use std::fmt::{self, Display, Write as _};

use ::toml::Value;
use bond_core::options::{self, BondOptions, SlaveOptions};

use super::VERSION;
use crate::config::{BondConfig, Config, Literal, OutputDirectory, Route, SlaveConfig};

/// Writes the format of [`super::parse`]; options with their default values are omitted.
pub fn write(config: &Config) -> String {
    let mut text = format!("version = {VERSION}\n");
    let (writers, metrics) = (&config.writers, &config.metrics);
    let path = |directory: &OutputDirectory| string(directory.path.display());
    let (textfile, proc_files) = (config.textfile.as_ref().map(path), config.proc_files.as_ref().map(path));
    if config.key_of_agent().is_some() {
        text.push('\n');
        let mut lines = Lines { text: &mut text };
        lines.table("agent");
        lines.given("writers", writers.as_ref().map(|writers| string(&writers.group)));
        lines.given("metrics", metrics.as_ref().map(|metrics| string(metrics.address)));
        lines.given("textfile", textfile);
        lines.given("proc_files", proc_files);
    }
    for bond in &config.bonds {
        text.push('\n');
        write_bond(&mut text, bond);
    }
    text
}

fn write_bond(text: &mut String, bond: &BondConfig) {
    let table = format!("bond.{}", Key(&bond.name));
    let mut lines = Lines { text };
    lines.table(&table);
    lines.pair("slaves", strings(bond.slaves.iter().map(|slave| &slave.name)));
    for ((key, value), (_, default)) in bond.options.to_pairs().iter().zip(BondOptions::default().to_pairs())
    {
        if *value != default {
            lines.pair(key, option_value(key, value));
        }
    }
    if !bond.addresses.is_empty() {
        lines.pair("addresses", strings(&bond.addresses));
    }
    if !bond.routes.is_empty() {
        lines.pair("routes", Value::Array(bond.routes.iter().map(route_value).collect()));
    }
    for (key, literal) in bond.settings() {
        lines.pair(
            key,
            match literal {
                Literal::Flag(flag) => Value::Boolean(flag),
                Literal::Number(number) => integer(number),
                Literal::Text(text) => string(text),
                Literal::List(texts) => strings(&texts),
                Literal::Table(pairs) => numbers(pairs),
                Literal::Choice(key, texts) => choice(key, &texts),
            },
        );
    }
    for slave in &bond.slaves {
        if *slave == SlaveConfig::new(slave.name.clone()) {
            continue;
        }
        lines.table(&format!("{table}.slave.{}", Key(&slave.name)));
        let defaults = SlaveOptions::default().to_pairs();
        for ((key, value), (_, default)) in slave.options.to_pairs().iter().zip(defaults) {
            if *value != default {
                lines.pair(key, option_value(key, value));
            }
        }
        lines.given("hwaddr", slave.hwaddr.map(string));
        lines.given("mac", slave.mac.map(string));
        lines.given("mtu", slave.mtu.map(integer));
    }
}

/// Builds a document.
struct Lines<'a> {
    text: &'a mut String,
}

impl Lines<'_> {
    fn table(&mut self, name: &str) {
        self.line(format_args!("[{name}]"));
    }

    fn pair(&mut self, key: &str, value: Value) {
        self.line(format_args!("{key} = {value}"));
    }

    fn given(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }

    fn line(&mut self, line: fmt::Arguments) {
        self.text.push_str(&format!("{line}\n"));
    }
}

/// Prints a name as a key: bare if TOML allows that, otherwise quoted.
struct Key<'a>(&'a str);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !self.0.is_empty() && self.0.bytes().all(bare) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                control if control.is_control() => write!(f, "\\u{:04X}", u32::from(control))?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

fn option_value(key: &str, value: &str) -> Value {
    if options::LIST_KEYS.contains(&key) {
        return strings(value.split(','));
    }
    value.parse().map_or_else(|_| string(value), Value::Integer)
}

fn choice(key: &str, texts: &[&str]) -> Value {
    let mut table = ::toml::Table::new();
    table.insert(key.to_owned(), strings(texts));
    Value::Table(table)
}

fn route_value(route: &Route) -> Value {
    let mut table = ::toml::Table::new();
    table.insert("to".to_owned(), string(route.to));
    if let Some(via) = route.via {
        table.insert("via".to_owned(), string(via));
    }
    if let Some(metric) = route.metric {
        table.insert("metric".to_owned(), integer(metric));
    }
    Value::Table(table)
}

fn strings<T: Display>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Array(items.into_iter().map(string).collect())
}

fn string(value: impl Display) -> Value {
    Value::String(value.to_string())
}

/// Returns an inline table of numbers.
fn numbers(pairs: Vec<(&str, String)>) -> Value {
    let number = |text: &str| match text.parse() {
        Ok(integer) => Value::Integer(integer),
        Err(_) => text.parse().map_or_else(|_| string(text), Value::Float),
    };
    Value::Table(pairs.into_iter().map(|(key, value)| (key.to_owned(), number(&value))).collect())
}

pub(super) fn integer(value: u32) -> Value {
    Value::Integer(value.into())
}
