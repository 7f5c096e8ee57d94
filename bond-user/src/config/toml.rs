//! Reads and writes xbond's own files, in TOML.

use std::{
    fmt::{self, Display, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use ::toml::{
    Spanned, Value,
    de::{DeString, DeTable, DeValue},
};
use bond_common::{abi::MAX_SLAVES, mac::Mac};
use bond_core::{
    name::{BondName, InterfaceName},
    options::{self, BondOptions, OptionError, Setting, SlaveOptions, closest},
};
use ipnet::IpNet;

use super::{
    BondConfig, Config, ConfigError, Known, Literal, Metrics, Note, Origin, Problem, Route, SlaveConfig,
    Writers,
    lines::LineStarts,
    settings::{self, LiteralKind},
};
use crate::sys::file::{self, FileKind};

const FILE_KEYS: &[&str] = &["version", "agent", "bond"];
const AGENT_KEYS: &[&str] = &["writers", "metrics"];
/// Keys of a bond in addition to its settings and options.
const BOND_KEYS: &[&str] = &["slaves", "slave", "addresses", "routes"];
/// Keys of a slave in addition to its options.
pub(super) const SLAVE_KEYS: &[&str] = &["hwaddr", "mac", "mtu"];
const ROUTE_KEYS: &[&str] = &["to", "via", "metric"];

const VERSION: &str = "1";

/// The most entries of a list of addresses or routes.
const LONGEST_LIST: usize = 1024;

/// Reads files, and the `*.toml` files of directories in the order of their names, and checks the whole.
///
/// # Errors
/// A file cannot be read, or contains a refused setting; the error names the file and, if possible, the line.
pub fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let mut named = Vec::new();
    for path in paths {
        let files = files_of(path)?;
        if files.is_empty() {
            return Err(at_file(path, Problem::NoFiles));
        }
        named.extend(files);
    }
    read_files(&named)
}

/// Reads one directory, which may be empty or missing.
///
/// # Errors
/// Those of [`read`].
pub fn read_if_any(directory: &Path) -> Result<Config, ConfigError> {
    match kind(directory)? {
        FileKind::Absent => Ok(Config::default()),
        FileKind::Directory | FileKind::File => read_files(&files_in(directory)?),
    }
}

fn read_files(files: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut config, mut known) = (Config::default(), Known::default());
    for file in files {
        config.merge_with(parse(file, &text_of(file)?)?, &mut known)?;
    }
    config.check()?;
    let doubts: Vec<_> = config.bonds.iter().flat_map(BondConfig::doubts).collect();
    config.notes.extend(doubts);
    Ok(config)
}

/// Reads one file's text; `path` is for messages. The result is not checked as a whole yet.
///
/// # Errors
/// Those of [`read`].
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let lines = LineStarts::of(text);
    let file = File { path, lines: &lines };
    let root = DeTable::parse(text).map_err(|error| {
        // In one line: the parser's own excerpt repeats path and line.
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        file.refuse(error.span().map(|span| span.start), Problem::Syntax(message))
    })?;

    let mut bonds = Vec::new();
    let mut version = None;
    let mut agent = AgentTable::default();
    for entry in file.entries(root.get_ref()) {
        match entry.key {
            "version" => version = Some(entry.scalar()?),
            "agent" => agent = AgentTable::read(&entry)?,
            "bond" => bonds = entry.table()?,
            _ => return Err(entry.unknown("the file", FILE_KEYS)),
        }
    }
    match version {
        None => return Err(file.refuse(None, Problem::NoVersion)),
        Some(version) if version != VERSION => return Err(file.refuse(None, Problem::OtherVersion(version))),
        Some(_) => {}
    }
    let bonds = bonds.iter().map(bond).collect::<Result<_, _>>()?;
    let AgentTable { writers, metrics } = agent;
    Ok(Config { bonds, writers, metrics, notes: Vec::new() })
}

/// Writes the format of [`parse`]; options with their default values are omitted.
pub fn write(config: &Config) -> String {
    let mut text = format!("version = {VERSION}\n");
    let (writers, metrics) = (&config.writers, &config.metrics);
    if writers.is_some() || metrics.is_some() {
        text.push('\n');
        let mut lines = Lines { text: &mut text };
        lines.table("agent");
        lines.given("writers", writers.as_ref().map(|writers| string(&writers.group)));
        lines.given("metrics", metrics.as_ref().map(|metrics| string(metrics.address)));
    }
    for bond in &config.bonds {
        text.push('\n');
        write_bond(&mut text, bond);
    }
    text
}

/// Returns the file itself, or the `*.toml` files of a directory in the order of their names.
pub(super) fn files_of(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    match kind(path)? {
        FileKind::Directory => files_in(path),
        FileKind::File | FileKind::Absent => Ok(vec![path.to_owned()]),
    }
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = file::list(directory).map_err(|error| at_file(directory, error.into()))?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// Returns the text of one file.
pub(super) fn text_of(path: &Path) -> Result<String, ConfigError> {
    let bytes = file::read(path).map_err(|error| at_file(path, error.into()))?;
    String::from_utf8(bytes).map_err(|_| at_file(path, Problem::NotText))
}

fn kind(path: &Path) -> Result<FileKind, ConfigError> {
    file::kind(path).map_err(|error| at_file(path, error.into()))
}

fn at_file(path: &Path, problem: Problem) -> ConfigError {
    ConfigError::new(Origin::File { path: path.to_owned(), line: None }, problem)
}

/// The table of settings for the agent itself.
#[derive(Default)]
struct AgentTable {
    writers: Option<Writers>,
    metrics: Option<Metrics>,
}

impl AgentTable {
    fn read(table: &Entry) -> Result<Self, ConfigError> {
        let mut agent = Self::default();
        for entry in table.table()? {
            let origin = entry.origin();
            match entry.key {
                "writers" => agent.writers = Some(Writers { group: entry.string()?.to_owned(), origin }),
                "metrics" => {
                    let address = entry.parsed("an address and a port, like 127.0.0.1:9815")?;
                    agent.metrics = Some(Metrics { address, origin });
                }
                _ => return Err(entry.unknown("agent", AGENT_KEYS)),
            }
        }
        Ok(agent)
    }
}

fn bond(table: &Entry) -> Result<BondConfig, ConfigError> {
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

/// Returns every key that a file can have.
pub fn keys() -> Vec<&'static str> {
    [AGENT_KEYS, &bond_keys(), SLAVE_KEYS, SlaveOptions::KEYS].concat()
}

/// Returns every key of a bond's table.
pub(super) fn bond_keys() -> Vec<&'static str> {
    [BOND_KEYS, settings::KEYS, options::KEYS].concat()
}

fn setting(bond: &mut BondConfig, entry: &Entry) -> Result<(), ConfigError> {
    let row = settings::ROWS.iter().find(|row| row.key == entry.key);
    let text = match row.map(|row| row.literal) {
        Some(LiteralKind::Flag) => entry.boolean()?.to_string(),
        Some(LiteralKind::Number) => entry.integer()?,
        Some(LiteralKind::Text) | None => entry.string()?.to_owned(),
    };
    match bond.set(entry.key, &text) {
        Some(Err(wanted)) => Err(entry.bad_value(&text, wanted)),
        Some(Ok(())) | None => Ok(()),
    }
}

fn slaves(bond: &str, entry: &Entry) -> Result<Vec<SlaveConfig>, ConfigError> {
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
                let text = entry.option_text()?;
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

fn addresses(entry: &Entry) -> Result<Vec<IpNet>, ConfigError> {
    const WANTED: &str = "an address with its prefix length, like 192.0.2.1/24";
    entry.list()?.iter().map(|item| item.parsed(WANTED)).collect()
}

fn route(entry: &Entry) -> Result<Route, ConfigError> {
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

/// A file, and the offsets of its lines.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a Path,
    lines: &'a LineStarts,
}

impl<'a> File<'a> {
    /// Returns the entries in the order of the file.
    fn entries(self, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
        let mut entries: Vec<_> = table.iter().map(|(key, value)| Entry::new(self, key, value)).collect();
        entries.sort_by_key(|entry| entry.start);
        entries
    }

    fn origin(self, byte: Option<usize>) -> Origin {
        Origin::File { path: self.path.to_owned(), line: byte.map(|byte| self.lines.line(byte)) }
    }

    fn refuse(self, byte: Option<usize>, problem: Problem) -> ConfigError {
        ConfigError::new(self.origin(byte), problem)
    }
}

/// A key and its value, or a value in the list of a key.
struct Entry<'a> {
    file: File<'a>,
    key: &'a str,
    value: &'a DeValue<'a>,
    /// The offset in the file where it begins.
    start: usize,
}

impl<'a> Entry<'a> {
    fn new(file: File<'a>, key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { file, key: key.get_ref(), value: value.get_ref(), start: key.span().start }
    }

    fn origin(&self) -> Origin {
        self.file.origin(Some(self.start))
    }

    fn refuse(&self, problem: Problem) -> ConfigError {
        self.file.refuse(Some(self.start), problem)
    }

    fn unknown(&self, table: &str, known: &[&'static str]) -> ConfigError {
        self.refuse(Problem::UnknownKey {
            key: self.key.to_owned(),
            table: table.to_owned(),
            closest: closest(self.key, known.iter().copied()),
            known: known.to_vec(),
        })
    }

    fn wrong_type(&self, wanted: &'static str) -> ConfigError {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(Problem::WrongType { key: self.key.to_owned(), found, wanted })
    }

    fn bad_value(&self, value: &str, wanted: impl Display) -> ConfigError {
        let (key, value) = (self.key.to_owned(), value.to_owned());
        self.refuse(Problem::BadValue { key, value, wanted: wanted.to_string() })
    }

    fn table(&self) -> Result<Vec<Entry<'a>>, ConfigError> {
        match self.value {
            DeValue::Table(table) => Ok(self.file.entries(table)),
            _ => Err(self.wrong_type("a table")),
        }
    }

    fn list(&self) -> Result<Vec<Entry<'a>>, ConfigError> {
        let DeValue::Array(items) = self.value else { return Err(self.wrong_type("a list")) };
        if items.len() > LONGEST_LIST {
            let (key, entries) = (self.key.to_owned(), items.len());
            return Err(self.refuse(Problem::LongList { key, entries, limit: LONGEST_LIST }));
        }
        let item = |item: &'a Spanned<DeValue<'a>>| Entry {
            file: self.file,
            key: self.key,
            value: item.get_ref(),
            start: item.span().start,
        };
        Ok(items.iter().map(item).collect())
    }

    fn string(&self) -> Result<&'a str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.wrong_type("text"))
    }

    /// Returns the checked name of an interface.
    fn interface_name(&self, name: &str) -> Result<InterfaceName, ConfigError> {
        InterfaceName::new(name).map_err(|error| self.refuse(error.into()))
    }

    fn strings(&self) -> Result<Vec<&'a str>, ConfigError> {
        self.list()?.iter().map(Entry::string).collect()
    }

    fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// Returns text, or an integer in decimal.
    fn scalar(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Ok(integer.to_string()),
                // Beyond every range; the option's own error names the valid range.
                Err(_) => Ok(integer.to_string()),
            },
            _ => Err(self.wrong_type("text or an integer")),
        }
    }

    /// Returns an option's value: a scalar, or a list of addresses if the option takes several.
    fn option_text(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::Array(_) if options::LIST_KEYS.contains(&self.key) => Ok(self.strings()?.join(",")),
            _ => self.scalar(),
        }
    }

    /// Returns an integer, in decimal.
    fn integer(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::Integer(_) => self.scalar(),
            _ => Err(self.wrong_type("a number")),
        }
    }

    fn number(&self, wanted: &'static str) -> Result<u32, ConfigError> {
        let DeValue::Integer(integer) = self.value else { return Err(self.wrong_type(wanted)) };
        u32::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| self.bad_value(&integer.to_string(), wanted))
    }

    fn parsed<T: FromStr>(&self, wanted: &'static str) -> Result<T, ConfigError> {
        let text = self.string()?;
        text.parse().map_err(|_| self.bad_value(text, wanted))
    }

    fn mac(&self) -> Result<Mac, ConfigError> {
        self.parsed("a MAC address of the form 08:00:27:e8:26:58")
    }
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

fn integer(value: u32) -> Value {
    Value::Integer(value.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Datapath, Destination, Guard, MTU_RANGE, OnExit, Pair};
    use bond_core::options::{FailOverMac, Unmonitored};

    /// A pattern of values of every type.
    const VALUE: &str =
        "-?[0-9]{1,25}|0x[0-9a-f]{1,20}|\"[^\"\\\\]*\"|\\[\"[a-z0-9.,/]*\"\\]|true|1e9|1979-05-27";

    fn read_text(text: &str) -> Result<Config, ConfigError> {
        let config = parse(Path::new("a.toml"), text)?;
        config.check()?;
        Ok(config)
    }

    fn refusal(text: &str) -> String {
        read_text(text).expect_err(text).to_string()
    }

    /// Returns a bond of a valid configuration, followed by these lines.
    fn bond_with(lines: &str) -> String {
        format!("version = 1\n[bond.bond0]\nslaves = [\"a\", \"b\"]\nmiimon = 100\n{lines}")
    }

    #[test]
    fn every_key_is_read() {
        let config = read_text(
            r#"
            version = 1
            [bond.bond0]
            slaves = ["enp0s8", "enp0s9"]
            fail_over_mac = "follow"
            miimon = 100
            updelay = "200"
            primary = "enp0s9"
            mac = "02:00:00:00:00:01"
            addresses = ["192.168.99.101/24", "2001:db8::1/64"]
            routes = [{ to = "default", via = "192.168.99.1", metric = 100 }, { to = "10.0.0.0/8" }]
            mtu = 9000
            datapath = "xdp-generic"
            pair = "veth"
            on_exit = "keep"
            guard = "off"
            prearm = true
            [bond.bond0.slave.enp0s9]
            prio = -10
            queue_id = 2
            hwaddr = "08:00:27:27:a9:2d"
            mac = "02:00:00:00:00:02"
            mtu = 1500
            [bond.wire]
            slaves = []
            port = "eth3"
            host_mac = "02:00:00:00:00:03"
            allow_unmonitored = true
            "#,
        )
        .unwrap();

        let [bond, wire] = &config.bonds[..] else { panic!("{config:?}") };
        let names: Vec<_> = bond.slaves.iter().map(|slave| slave.name.as_str()).collect();
        assert_eq!((bond.name.as_str(), names), ("bond0", vec!["enp0s8", "enp0s9"]));
        let expected = BondOptions {
            fail_over_mac: FailOverMac::Follow,
            miimon: 100,
            updelay: 200,
            primary: Some("enp0s9".to_owned()),
            ..BondOptions::default()
        };
        assert_eq!(bond.options, expected);
        assert_eq!(bond.mac, "02:00:00:00:00:01".parse().ok());
        assert_eq!(
            bond.addresses.iter().map(IpNet::to_string).collect::<Vec<_>>(),
            ["192.168.99.101/24", "2001:db8::1/64"]
        );
        let default = Route { to: Destination::Default, via: "192.168.99.1".parse().ok(), metric: Some(100) };
        let on_link =
            Route { to: Destination::Prefix("10.0.0.0/8".parse().unwrap()), via: None, metric: None };
        assert_eq!(bond.routes, [default, on_link]);
        assert_eq!((bond.mtu, bond.datapath, bond.on_exit), (Some(9000), Datapath::XdpGeneric, OnExit::Keep));
        assert_eq!((bond.pair, config.bonds[1].pair), (Pair::Veth, Pair::Auto));
        assert_eq!((bond.guard, bond.prearm, config.bonds[1].prearm), (Guard::Off, true, false));
        assert_eq!(bond.slaves[0], SlaveConfig::named("enp0s8"));
        let slave = SlaveConfig {
            options: SlaveOptions { prio: -10, queue_id: 2 },
            hwaddr: "08:00:27:27:a9:2d".parse().ok(),
            mac: "02:00:00:00:00:02".parse().ok(),
            mtu: Some(1500),
            ..SlaveConfig::named("enp0s9")
        };
        assert_eq!(bond.slaves[1], slave);
        assert_eq!((wire.port.as_deref(), wire.allow_unmonitored), (Some("eth3"), Unmonitored::Allow));
        assert_eq!(wire.host_mac, "02:00:00:00:00:03".parse().ok());
        let unmonitored = Note::Option { bond: "wire".to_owned(), note: options::Note::Unmonitored };
        assert_eq!(wire.notes, [unmonitored]);
    }

    #[test]
    fn refusals_name_file_line_and_remedy() {
        let table = [
            ("", "a.toml: no version; write version = 1 at the top"),
            ("version = 2", "a.toml: version = 2: this xbond reads version 1"),
            ("version = 1\nbonds = 1", "a.toml:2: bonds: no such key in the file; did you mean bond?"),
            ("version = 1\nbond = 3", "a.toml:2: bond: an integer where a table is wanted"),
            (
                "version = 1\n[agent]\nreaders = \"x\"",
                "a.toml:3: readers: no such key in agent; there are: writers, metrics",
            ),
            ("version = 1\n[agent]\nwriters = 4", "a.toml:3: writers: an integer where text is wanted"),
        ];
        for (text, said) in table {
            assert_eq!(refusal(text), said);
        }

        let in_bond = [
            ("failover_mac = 1", "a.toml:5: failover_mac: no such key in bond0; did you mean fail_over_mac?"),
            ("adresses = []", "a.toml:5: adresses: no such key in bond0; did you mean addresses?"),
            (
                "fail_over_mac = \"foo\"",
                "a.toml:5: fail_over_mac=foo: not a value; allowed: none (0), active (1), follow (2)",
            ),
            ("updelay = -1", "a.toml:5: updelay=-1: not a value; allowed: 0 to 2147483647 ms"),
            (
                "updelay = 1.5",
                "a.toml:5: updelay: a number with a fraction where text or an integer is wanted",
            ),
            ("primary = [\"a\"]", "a.toml:5: primary: a list where text or an integer is wanted"),
            (
                "\nlacp_rate = 1",
                "a.toml:6: lacp_rate: an option of 802.3ad; xbond does active-backup (1) only",
            ),
            ("mode = 4", "a.toml:5: mode=4: xbond does active-backup (1) only"),
            (
                "arp_ip_target = [\"192.0.2.1\"]",
                "a.toml:2: bond0: arp_ip_target: never probed while arp_interval is 0; set arp_interval, or \
                 remove arp_ip_target",
            ),
            (
                "addresses = [\"192.0.2.1\"]",
                "a.toml:5: addresses = 192.0.2.1: not an address with its prefix length, like 192.0.2.1/24",
            ),
            ("addresses = [\"0.0.0.0/8\"]", "a.toml:2: 0.0.0.0/8: not an address that a host can have"),
            ("routes = [{ via = \"192.0.2.1\" }]", "a.toml:5: no to, and xbond goes by it"),
            (
                "routes = [{ to = \"10.0.0.1/8\" }]",
                "a.toml:2: route to 10.0.0.1/8: has bits beyond its prefix length; 10.0.0.0/8 is meant",
            ),
            (
                "routes = [{ to = \"10.0.0.0/8\", via = \"fd00::1\" }]",
                "a.toml:2: route to 10.0.0.0/8 via fd00::1: IPv4 and IPv6 cannot be mixed",
            ),
            ("mtu = 67", "a.toml:2: mtu = 67: not an MTU; allowed: 68 to 65535 bytes"),
            ("mtu = -1", "a.toml:5: mtu = -1: not a number of bytes"),
            ("mac = \"8:0\"", "a.toml:5: mac = 8:0: not a MAC address of the form 08:00:27:e8:26:58"),
            (
                "mac = \"01:00:5e:00:00:01\"",
                "a.toml:2: mac = 01:00:5e:00:00:01: not the address of one station; it is zero or a group",
            ),
            (
                "mac = \"02:00:00:00:00:01\"\nfail_over_mac = 1",
                "a.toml:2: bond0: mac has no meaning with fail_over_mac=active: the bond wears its active \
                 slave's MAC",
            ),
            ("datapath = \"ebpf\"", "a.toml:5: datapath = ebpf: not one of auto, tc, xdp, xdp-generic"),
            ("pair = \"tun\"", "a.toml:5: pair = tun: not one of auto, netkit, veth"),
            (
                "pair = \"netkit\"\ndatapath = \"xdp\"",
                "a.toml:2: bond0: pair=netkit carries no datapath=xdp, which takes a veth pair; leave one of the two \
                 out",
            ),
            (
                "port = \"eth3\"\npair = \"veth\"",
                "a.toml:2: bond0: pair cannot be set together with port, which is there already: no pair is made",
            ),
            ("guard = \"on\"", "a.toml:5: guard = on: not one of auto, off"),
            (
                "prearm = true",
                "a.toml:2: bond0: prearm is for fail_over_mac=follow, where the bond's MAC moves from NIC to NIC; leave it \
                 out",
            ),
            ("on_exit = \"stay\"", "a.toml:5: on_exit = stay: not one of down, keep"),
            (
                "host_mac = \"02:00:00:00:00:01\"",
                "a.toml:2: bond0: host_mac belongs to a port; set port, or use mac for the bond's own \
                 address",
            ),
            (
                "port = \"eth3\"\nmtu = 1500",
                "a.toml:2: bond0: mtu cannot be set together with port: the host behind the port has its own",
            ),
            ("port = \"a\"", "a.toml:2: a is a slave of bond0 and the port of bond0; it can be only one"),
            ("port = \"lo\"", "a.toml:2: \"lo\" cannot be an interface here: it is the loopback device"),
            (
                "[bond.bond0.slave.c]\nprio = 1",
                "a.toml:5: slave c has a table, but is not in slaves = [...] of bond0",
            ),
            (
                "[bond.bond0.slave.a]\nprio = 1\nspeed = 2",
                "a.toml:7: speed: no such key in slave a; there are: hwaddr, mac, mtu, prio, queue_id",
            ),
            (
                "[bond.bond0.slave.a]\nprio = \"high\"",
                "a.toml:6: prio=high: not a value; allowed: -2147483648 to 2147483647",
            ),
            (
                "[bond.bond1]\nslaves = [\"b\"]\nmiimon = 100",
                "a.toml:5: b is a slave of bond0 and a slave of bond1; it can be only one",
            ),
            ("miimon = 50", "a.toml:5: duplicate key"),
        ];
        for (lines, said) in in_bond {
            assert_eq!(refusal(&bond_with(lines)), said);
        }

        let names = [
            ("\"\"", "is empty"),
            ("\"..\"", "is a directory"),
            ("\"a b\"", "contains white space"),
            ("\"a/b\"", "contains '/'"),
            ("\"a:b\"", "contains ':'"),
            ("abcdefghijklmnop", "is longer than 15 bytes"),
        ];
        for (name, fault) in names {
            let text = format!("version = 1\n[bond.{name}]\nmiimon = 100");
            let bare = name.trim_matches('"');
            assert_eq!(refusal(&text), format!("a.toml:2: {bare:?} cannot be an interface here: it {fault}"));
        }
    }

    #[test]
    fn slaves_are_counted_and_duplicates_refused() {
        let with = |slaves: Vec<String>| {
            refusal(&format!("version = 1\n[bond.bond0]\nmiimon = 100\nslaves = {slaves:?}"))
        };
        let twice = with(["a", "b", "a"].map(str::to_owned).to_vec());
        assert_eq!(twice, "a.toml:2: bond0: slave a is named twice");
        let many = with((0..17).map(|number| format!("eth{number}")).collect());
        assert_eq!(many, "a.toml:4: bond0: 17 slaves; a bond has at most 16");
    }

    #[test]
    fn files_merge_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bond: &str| {
            fs::write(directory.path().join(name), format!("version = 1\n[bond.{bond}]\nmiimon = 100\n"))
                .unwrap();
        };
        let paths = [directory.path().to_owned()];
        let empty = read(&paths).unwrap_err().to_string();
        assert_eq!(empty, format!("{}: no files named *.toml in this directory", directory.path().display()));

        write("20-b.toml", "bond2");
        write("10-a.toml", "bond1");
        write("30-c.toml.bak", "bond3");
        let config = read(&paths).unwrap();
        assert_eq!(
            config.bonds.iter().map(|bond| bond.name.as_str()).collect::<Vec<_>>(),
            ["bond1", "bond2"]
        );
        let lonely = |bond: &str| Note::NoSlaves { bond: bond.to_owned() };
        assert_eq!(config.notes, [lonely("bond1"), lonely("bond2")]);

        write("30-c.toml", "bond1");
        let at = |name: &str| directory.path().join(name).display().to_string();
        assert_eq!(
            read(&paths).unwrap_err().to_string(),
            format!("{}:2: bond bond1 is already defined in {}:2", at("30-c.toml"), at("10-a.toml"))
        );
    }

    #[test]
    fn a_default_directory_may_be_empty_or_missing() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("nosuch")] {
            assert_eq!(read_if_any(&path).unwrap(), Config::default());
        }
        fs::write(directory.path().join("a.toml"), "version = 1\n[bond.bond0]\nmiimon = 100\n").unwrap();
        assert_eq!(read_if_any(directory.path()).unwrap().bonds[0].name, "bond0");
    }

    #[test]
    fn an_agent_has_one_group_of_writers() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, group: &str| {
            let text = format!("version = 1\n[agent]\nwriters = \"{group}\"\n");
            fs::write(directory.path().join(name), text).unwrap();
        };
        write("10-a.toml", "netadmin");
        write("20-b.toml", "netadmin");
        let config = read(&[directory.path().to_owned()]).unwrap();
        assert_eq!(config.writers.as_ref().unwrap().group, "netadmin");
        assert_eq!(read_text(&super::write(&config)).unwrap().writers.unwrap().group, "netadmin");
        write("20-b.toml", "wheel");
        let error = read(&[directory.path().to_owned()]).unwrap_err().to_string();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let said = format!(
            "{}:3: writers is netadmin already in {}:3; an agent has one group of them",
            at("20-b.toml"),
            at("10-a.toml")
        );
        assert_eq!(error, said);
    }

    #[test]
    fn a_primary_that_is_no_slave_is_a_warning() {
        let config = read_text(&bond_with("primary = \"c\"")).unwrap();
        let doubts: Vec<_> = config.bonds[0].doubts().iter().map(Note::to_string).collect();
        assert_eq!(doubts, ["bond0: primary=c is not one of its slaves"]);
    }

    prop_compose! {
        fn a_slave(name: String)(
            prio in any::<i32>(),
            queue_id in any::<u16>(),
            hwaddr in prop::option::of(Just(Mac::new([2, 0, 0, 0, 0, 1]))),
            mtu in prop::option::of(MTU_RANGE),
        ) -> SlaveConfig {
            let options = SlaveOptions { prio, queue_id };
            SlaveConfig { options, hwaddr, mtu, ..SlaveConfig::named(&name) }
        }
    }

    prop_compose! {
        fn a_bond()(
            name in "[a-z.\"'#\u{e9}-]{3,7}",
            slaves in (a_slave("enp0s8".to_owned()), a_slave("eth1.5".to_owned())),
            miimon in 1..1000u32,
            ticks in 0..20u32,
            primary in prop::option::of(Just("eth1.5".to_owned())),
            hosts in prop::collection::btree_set(1..255u8, 0..4),
            metric in prop::option::of(any::<u32>()),
            mtu in prop::option::of(MTU_RANGE),
            datapath in prop::sample::select(Datapath::ALL),
            pair in prop::sample::select(Pair::ALL),
            on_exit in prop::sample::select(OnExit::ALL),
            guard in prop::sample::select(Guard::ALL),
        ) -> BondConfig {
            let address = |host: u8| IpNet::new([192, 0, 2, host].into(), 24).unwrap();
            let has_ipv6 = mtu.is_none_or(|mtu| mtu >= crate::sys::netlink::IPV6_MIN_MTU);
            let routes = [
                Route { to: Destination::Default, via: "192.0.2.1".parse().ok(), metric },
                Route { to: Destination::Prefix("2001:db8::/32".parse().unwrap()), via: None, metric },
            ];
            BondConfig {
                slaves: vec![slaves.0, slaves.1],
                options: BondOptions { miimon, updelay: ticks * miimon, primary, ..BondOptions::default() },
                addresses: hosts.into_iter().map(address).collect(),
                routes: routes.into_iter().filter(|route| route.via.is_some() || has_ipv6).collect(),
                mtu,
                datapath,
                pair: if pair == Pair::Netkit && !matches!(datapath, Datapath::Auto | Datapath::Tc) {
                    Pair::Veth
                } else {
                    pair
                },
                on_exit,
                guard,
                ..BondConfig::new(BondName::new(name).unwrap(), Origin::Flags)
            }
        }
    }

    /// The example is valid unchanged, with any of its commented keys, and with ARP monitoring instead of miimon.
    #[test]
    fn the_example_is_valid() {
        let example = include_str!("../../../packaging/bond0.toml.example");
        let config = read_text(example).unwrap();
        assert_eq!(config.bonds[0].doubts(), []);
        let commented: Vec<_> = example.lines().filter_map(|line| line.strip_prefix('#')).collect();
        let keys: Vec<_> = commented.iter().filter(|line| !line.starts_with(' ')).collect();
        assert!(keys.len() > 10, "{keys:?}");
        let uncommented = |text: &str, key: &str| text.replace(&format!("\n#{key}"), &format!("\n{key}"));
        let (arp, alone): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| key.starts_with("arp_") || key.starts_with("ns_ip6_"));
        for key in alone {
            let text = uncommented(example, key);
            assert!(read_text(&text).is_ok(), "{key}: {:?}", read_text(&text));
        }
        let text = example.replace("\nmiimon", "\n#miimon");
        let text = arp.iter().fold(text, |text, key| uncommented(&text, key));
        let options = read_text(&text).unwrap().bonds[0].options.clone();
        assert_eq!((options.miimon, options.arp_interval, arp.len()), (0, 200, 6));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).*", lines in "([a-z_]{1,9} = [\\[\\]{}\"0-9a-z,]*\n){0,5}") {
            let _ = read_text(&text);
            let _ = read_text(&bond_with(&lines));
        }

        #[test]
        fn no_value_of_a_key_makes_it_panic(
            key in prop::sample::select(bond_keys()),
            value in VALUE,
        ) {
            let _ = read_text(&bond_with(&format!("{key} = {value}")));
        }

        #[test]
        fn a_written_bond_reads_back(bond in a_bond()) {
            let written = write(&Config { bonds: vec![bond.clone()], ..Config::default() });
            let read = read_text(&written);
            let mut read = read.map_err(|error| TestCaseError::fail(format!("{error}\n{written}")))?;
            read.bonds[0].origin = Origin::Flags;
            prop_assert_eq!(&read.bonds[0], &bond, "{}", written);
        }
    }

    #[test]
    fn settings_of_the_agent_are_read() {
        let text = "version = 1\n[agent]\nmetrics = \"[::1]:9815\"\n";
        let config = parse(Path::new("a.toml"), text).unwrap();
        let address = "[::1]:9815".parse().unwrap();
        let origin = Origin::File { path: "a.toml".into(), line: Some(3) };
        assert_eq!(config.metrics, Some(Metrics { address, origin }));
        assert_eq!(write(&config), "version = 1\n\n[agent]\nmetrics = \"[::1]:9815\"\n");

        let refused = |text: &str| parse(Path::new("a.toml"), text).unwrap_err().to_string();
        let error = refused("version = 1\nagent = { metrics = \"9815\" }\n");
        assert!(error.contains("a.toml:2") && error.contains("127.0.0.1:9815"), "{error}");
        let error = refused("version = 1\n[agent]\nmetric = \"[::1]:9815\"\n");
        assert!(error.contains("metrics"), "{error}");

        let mut first = parse(Path::new("a.toml"), text).unwrap();
        let second = parse(Path::new("b.toml"), text).unwrap();
        let error = first.merge(second).unwrap_err().to_string();
        assert!(error.contains("b.toml:3") && error.contains("already set in a.toml:3"), "{error}");
    }
}
