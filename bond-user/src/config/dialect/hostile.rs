//! Tests of all readers on files that are broken, hostile or enormous: no panic, an end in time, and an error that names its file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

use super::{Dialect, read};
use crate::config::{Config, ConfigError, Problem, toml};

/// How long a reader may take. A build for tests is some times slower than a release.
const WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 6 } else { 1 });

/// Returns the time of this thread on a processor, which does not depend on other programs.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Reads a directory in time. An error names a file in it, or itself, and is no novel. What is imported is a file of xbond's.
pub(super) fn assert_read(dialect: Dialect, directory: &Path, what: &str) -> Result<Config, ConfigError> {
    let started = processor_time();
    let result = read(dialect, &[directory.to_owned()]);
    let took = processor_time() - started;
    assert!(took < WITHIN, "{dialect}: {what}: {took:?}");
    match &result {
        Err(error) => {
            let text = error.to_string();
            // A changed `source` line of ifupdown may name files elsewhere.
            let is_named = text.starts_with(&directory.display().to_string())
                || dialect == Dialect::Ifupdown && text.starts_with('/');
            assert!(is_named, "{dialect}: {what}: {text}");
            assert!(text.len() < 16 * 1024, "{dialect}: {what}: an error of {} bytes", text.len());
        }
        Ok(config) => {
            let written = toml::write(config);
            let again = toml::parse(Path::new("again.toml"), &written);
            let is_long = |error: &ConfigError| matches!(*error.problem, Problem::LongList { .. });
            let bad = again.err().filter(|error| !is_long(error));
            assert!(bad.is_none(), "{dialect}: {what}: {}\n{written}", bad.unwrap());
        }
    }
    result
}

/// The files of a dialect's cases, each with its directory.
fn samples(dialect: Dialect) -> Vec<(PathBuf, PathBuf)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects").join(dialect.to_string());
    let mut cases: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    let mut samples = Vec::new();
    for case in cases {
        let mut files = Vec::new();
        walk(&case, &mut files);
        files.sort();
        samples.extend(files.into_iter().map(|file| (case.clone(), file)));
    }
    samples
}

/// Words that mean something in one dialect or in another, and values at the ends of what there is.
const WORDS: &[&str] = &[
    "",
    "0",
    "-1",
    "4294967296",
    "99999999999999999999",
    "1e9",
    "0x10",
    "null",
    "~",
    "yes",
    "*a",
    "&a",
    "<<",
    "[",
    "{",
    "}",
    "]",
    ":",
    ",",
    ";",
    "=",
    "\"",
    "'",
    "\\",
    "#",
    "|",
    "$(reboot)",
    "`reboot`",
    "bond0",
    "eth0",
    "eth0 eth0",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "../../etc/passwd",
    "active-backup",
    "802.3ad",
    "100ms",
    "1w",
    "192.0.2.1/33",
    "0.0.0.0/0",
    "::",
    "fe80::1%eth0",
    "ff:ff:ff:ff:ff:ff",
    "\u{feff}",
    "\u{202e}",
    "\t",
    "\r",
    "*",
    "[!a]",
    "!eth0",
    "none",
    "inherits",
    "source",
    "glob swp1-9",
    "export export export",
];

/// One change of a text.
#[derive(Clone, Debug)]
enum Mutation {
    DropLine(prop::sample::Index),
    RepeatLine(prop::sample::Index, usize),
    SwapLines(prop::sample::Index, prop::sample::Index),
    Truncate(prop::sample::Index),
    Insert(prop::sample::Index, &'static str),
    /// Replaces the part of a line behind its last `=`, `:` or blank.
    Value(prop::sample::Index, &'static str),
    Indent(prop::sample::Index, usize),
    Byte(prop::sample::Index, char),
}

fn a_mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        place().prop_map(Mutation::DropLine),
        (place(), 1..40usize).prop_map(|(line, times)| Mutation::RepeatLine(line, times)),
        (place(), place()).prop_map(|(a, b)| Mutation::SwapLines(a, b)),
        place().prop_map(Mutation::Truncate),
        (place(), prop::sample::select(WORDS)).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (place(), prop::sample::select(WORDS)).prop_map(|(line, word)| Mutation::Value(line, word)),
        (place(), 0..9usize).prop_map(|(line, blanks)| Mutation::Indent(line, blanks)),
        (place(), any::<char>()).prop_map(|(at, char)| Mutation::Byte(at, char)),
    ]
}

/// Returns the offset of a character.
fn offset(text: &str, at: &prop::sample::Index) -> usize {
    let offsets: Vec<_> = text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect();
    *at.get(&offsets)
}

fn mutated(text: &str, mutation: &Mutation) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if lines.is_empty() {
        return text.to_owned();
    }
    match mutation {
        Mutation::DropLine(at) => drop(lines.remove(at.index(lines.len()))),
        Mutation::RepeatLine(at, times) => {
            let place = at.index(lines.len());
            lines[place] = lines[place].repeat(*times);
        }
        Mutation::SwapLines(a, b) => lines.swap(a.index(text.lines().count()), b.index(text.lines().count())),
        Mutation::Truncate(at) => return text[..offset(text, at)].to_owned(),
        Mutation::Insert(at, word) => {
            let (before, after) = text.split_at(offset(text, at));
            return [before, word, after].concat();
        }
        Mutation::Value(at, word) => {
            let place = at.index(lines.len());
            let line = lines[place].trim_end().to_owned();
            let kept = line.rfind(['=', ':', ' ']).map_or(0, |end| end + 1);
            lines[place] = format!("{}{word}\n", &line[..kept]);
        }
        Mutation::Indent(at, blanks) => {
            let place = at.index(lines.len());
            lines[place] = " ".repeat(*blanks) + lines[place].trim_start();
        }
        Mutation::Byte(at, char) => {
            let start = offset(text, at);
            let end = text[start..].chars().next().map_or(start, |old| start + old.len_utf8());
            return format!("{}{char}{}", &text[..start], &text[end..]);
        }
    }
    lines.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// All files of a case, one of them changed.
    #[test]
    fn a_changed_file_is_imported_or_named(
        sample in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(a_mutation(), 1..5),
    ) {
        for dialect in Dialect::ALL {
            let samples = samples(*dialect);
            let (case, file) = sample.get(&samples);
            let directory = tempfile::tempdir().unwrap();
            for other in fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                fs::copy(&other, directory.path().join(other.file_name().unwrap())).unwrap();
            }
            let text = fs::read_to_string(file).unwrap();
            let text = mutations.iter().fold(text, |text, mutation| mutated(&text, mutation));
            fs::write(directory.path().join(file.file_name().unwrap()), &text).unwrap();
            let _ = assert_read(*dialect, directory.path(), &format!("{}: {mutations:?}", file.display()));
        }
    }
}

/// Returns `count` copies of a text with their numbers for `{}`.
fn numbered(template: &str, count: usize) -> String {
    (0..count).map(|number| template.replace("{}", &number.to_string())).collect()
}

const IFCFG: &str = "DEVICE=bond0\nBONDING_OPTS=\"mode=1 miimon=100\"\n";
const NETDEV: &str = "[NetDev]\nName=bond0\nKind=bond\n[Bond]\nMode=active-backup\n";
const KEYFILE: &str =
    "[connection]\ntype=bond\nuuid=u\ninterface-name=bond0\n[bond]\nmode=active-backup\n[ethernet]\n";
const NETPLAN: &str =
    "network:\n version: 2\n bonds:\n  bond0: {parameters: {mode: active-backup}, interfaces: &x [eth0]}\n";
const INTERFACES: &str = "iface bond0 inet manual\nbond-mode 1\n";
const STATE: &str = "interfaces:\n- {name: bond0, type: bond, link-aggregation: {mode: active-backup}}\n";
const TEAM: &str = "{\"device\": \"team0\", \"runner\": {\"name\": \"activebackup\"}, ";
const CMDLINE: &str = "bond=bond0:eth0,eth1:mode=active-backup\n";

/// Enormous files of each dialect, most of which want a comparison of everything with everything.
fn enormous() -> Vec<(Dialect, &'static str, String)> {
    use Dialect::*;
    let with = |head: &str, template: &str, count| head.to_owned() + &numbered(template, count);
    let netplan_list = |items: String| NETPLAN.replace("[eth0]", &format!("[{items}]"));
    let many_bonds =
        |count| with(NETPLAN, "  b{}: {parameters: {mode: active-backup}, addresses: *x}\n", count);
    vec![
        (Ifcfg, "ifcfg-bond0", with(IFCFG, "K{}=v\n", 300_000)),
        (Ifcfg, "ifcfg-bond0", with(IFCFG, "BONDING_SLAVE{}=a{}\n", 100_000)),
        (Ifcfg, "ifcfg-bond0", with(IFCFG, "IPADDR{}=192.0.2.1\n", 100_000)),
        (Ifcfg, "ifcfg-bond0", "export ".repeat(500_000) + IFCFG),
        (Ifcfg, "ifcfg-bond0", IFCFG.replace("miimon=100", &numbered("arp_ip_target=192.0.2.1 ", 100_000))),
        (Networkd, "bond0.netdev", with(NETDEV, "ARPIPTargets=192.0.2.{}\n", 15_000)),
        (Networkd, "bond0.netdev", NETDEV.to_owned() + "ARPIPTargets=" + &numbered("192.0.2.{} ", 5000)),
        (Networkd, "bond0.netdev", with(NETDEV, "K{}=v\n", 49_000)),
        (Networkd, "bond0.netdev", with(NETDEV, "K{}=v\n", 400_000)),
        (Networkd, "bond0.netdev", NETDEV.to_owned() + &"a\\\n".repeat(1_000_000)),
        (Networkd, "a.network", with("[Match]\n", "Name=a{}\n", 40_000) + "[Network]\nBond=bond0\n"),
        (Networkd, "a.network", format!("[Match]\nName={}\n[Network]\nBond=bond0\n", numbered("*{} ", 9000))),
        (Networkd, "a.network", with("[Match]\nName=bond0\n[Network]\n", "Address=192.0.2.{}/24\n", 40_000)),
        (Nm, "bond0", with(KEYFILE, "k{}=v\n", 49_000)),
        (Nm, "bond0", with(KEYFILE, "k{}=v\n", 300_000)),
        (Nm, "bond0", with(KEYFILE, "[ipv4]\naddress{}=192.0.2.1/24\n", 20_000)),
        (Nm, "bond0", KEYFILE.to_owned() + "arp_ip_target=" + &numbered("192.0.2.{},", 4000)),
        (Netplan, "a.yaml", netplan_list(numbered("a{}, ", 6000))),
        (Netplan, "a.yaml", netplan_list(numbered("192.0.2.1/24, ", 4000)) + &many_bonds(4000)),
        (Netplan, "a.yaml", with(NETPLAN, "  b{}: {parameters: {mode: active-backup}}\n", 4000)),
        (Netplan, "a.yaml", with(NETPLAN, " ethernets:\n", 1) + &numbered("  e{}: {}\n", 4000)),
        (Ifupdown, "interfaces", with(INTERFACES, "iface b{} inet manual\nbond-mode 1\n", 100_000)),
        (Ifupdown, "interfaces", with(INTERFACES, "iface b{} inet manual\nbond-mode 1\n", 20_000)),
        (Ifupdown, "interfaces", with(INTERFACES, "bond-slaves a{}\n", 45_000)),
        (Ifupdown, "interfaces", with(INTERFACES, "iface a{} inet manual\nbond-master bond0\n", 20_000)),
        (Ifupdown, "interfaces", with(INTERFACES, "auto /a*{}/\n", 45_000)),
        (Ifupdown, "interfaces", INTERFACES.to_owned() + "bond-slaves " + &numbered("a{} ", 9000)),
        (Ifupdown, "interfaces", INTERFACES.to_owned() + &"a\\\n".repeat(1_000_000)),
        (Nmstate, "a.yml", with(STATE, "- {name: b{}, type: bond}\n", 9000)),
        (Nmstate, "a.yml", with(STATE, "- {name: b{}, type: vlan, vlan: {base-iface: bond0}}\n", 4000)),
        (
            Nmstate,
            "a.yml",
            with(STATE, "routes:\n config:\n", 1) + &numbered(" - {next-hop-interface: b}\n", 9000),
        ),
        (Team, "a.conf", TEAM.to_owned() + "\"ports\": {" + &numbered("\"a{}\": {}, ", 4000) + "\"b\": {}}}"),
        (Dracut, "a.conf", CMDLINE.repeat(40_000)),
        (Dracut, "a.conf", CMDLINE.to_owned() + &numbered("ip=192.0.2.1::::24::bond0:none\n", 40_000)),
        (Dracut, "a.conf", format!("bond=bond0:{}:mode=1\n", numbered("a{},", 9000))),
    ]
}

#[test]
fn enormous_files_end_in_time() {
    for (number, (dialect, name, text)) in enormous().into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        if dialect == Dialect::Networkd && name != "bond0.netdev" {
            fs::write(directory.path().join("bond0.netdev"), NETDEV).unwrap();
        }
        fs::write(directory.path().join(name), &text).unwrap();
        let beginning: String = text.chars().skip(40).take(80).collect();
        let _ = assert_read(dialect, directory.path(), &format!("{number}: {beginning:?}"));
    }
}

#[test]
fn many_files_end_in_time() {
    let one = |dialect, name: &str, text: &str| (dialect, name.to_owned(), text.to_owned());
    let table = [
        one(Dialect::Ifcfg, "ifcfg-eth{}", "DEVICE=eth{}\nMASTER=bond0\nSLAVE=yes\nUUID={}\n"),
        one(
            Dialect::Ifcfg,
            "ifcfg-bond0-range{}",
            "IPADDR_START=192.0.2.0\nIPADDR_END=192.0.2.255\nPREFIX=24\n",
        ),
        one(Dialect::Networkd, "{}.network", "[Match]\nName=a{}\n[Network]\nBond=bond0\n"),
        one(
            Dialect::Nm,
            "{}",
            "[connection]\ntype=ethernet\ninterface-name=a{}\nmaster=bond0\nslave-type=bond\n",
        ),
    ];
    for (dialect, name, text) in table {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..1000 {
            let fill = |template: &str| template.replace("{}", &number.to_string());
            fs::write(directory.path().join(fill(&name)), fill(&text)).unwrap();
        }
        let head = [("ifcfg-bond0", IFCFG), ("bond0.netdev", NETDEV), ("bond0.nmconnection", KEYFILE)];
        for (name, text) in head {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let _ = assert_read(dialect, directory.path(), &name);
    }
}

/// What is refused, and with which words.
#[test]
fn limits_are_named_with_their_file() {
    let table = [
        (
            Dialect::Networkd,
            "bond0.netdev",
            NETDEV.to_owned() + &"a\\\n".repeat(40_000),
            ":6: a line of more than 65536 bytes",
        ),
        (
            Dialect::Nm,
            "a",
            numbered("[connection]\nk{}=v\n", 50_001),
            ": with it, the files of this import have more than 50000",
        ),
        (
            Dialect::Ifupdown,
            "interfaces",
            INTERFACES.to_owned() + "bond-slaves " + &numbered("a{} ", 1025),
            ":3: bond0: more than 1024 slaves, targets, addresses and routes, the limit for a bond",
        ),
        (
            Dialect::Ifupdown,
            "interfaces",
            numbered("iface b{} inet manual\nbond-mode 1\n", 65),
            ": 65 bonds; an import takes at most 64: name fewer files",
        ),
        (
            Dialect::Ifupdown,
            "interfaces",
            INTERFACES.to_owned() + &numbered("k{} v\n", 1025),
            ":1: bond0: more than 1024 keys",
        ),
    ];
    for (dialect, name, text, said) in table {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(name), text).unwrap();
        let error = assert_read(dialect, directory.path(), name).unwrap_err().to_string();
        let place = if dialect == Dialect::Nm { "/a" } else { "" };
        assert!(
            error.contains(&format!("{name}{said}")) || error.contains(&format!("{place}{said}")),
            "{error}"
        );
    }
}
