//! The documents: their console blocks run as printed, and the reference has every key, id, verb and metric.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{PipeReader, Read as _, pipe},
    os::{
        fd::AsFd as _,
        unix::{fs::symlink, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use bond_common::{
    clock::layout::{ClockEntry, TickEntry},
    mac::Mac,
};
use bond_core::{
    name::BondName,
    options::{BondOptions, Unmonitored},
};
use bond_user::report::wording::{self, FailsOver, MisdirectedAddress, PathFault, PathNote, Repair};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;
use xbond_tests::{
    Lab, NetNs,
    console::{self, PageStep},
    skip_if_unable, wait_limit,
};

/// Verbs whose exit status 1 means that they worked and have findings.
const REPORTERS: [&str; 2] = ["xbond check", "xbond doctor"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The environment of a shell in a lab's host: its own directories where commands write, and `xbond` in the PATH.
struct Console<'lab> {
    netns: &'lab NetNs,
    /// The process that holds the mount namespace.
    holder: Child,
    directory: TempDir,
}

/// `/run`, `/etc` and `/sys/fs/bpf` of its own: every page uses names there, and the machine's stay unchanged.
const MOUNTS: &str = "set -e; mount -t tmpfs tmpfs /run; cp -a /etc \"$1/etc\"; mkdir -p \"$1/etc/xbond\"; \
                      mount --bind \"$1/etc\" /etc; mount -t bpf bpf /sys/fs/bpf; echo ready; exec sleep infinity";

impl<'lab> Console<'lab> {
    fn open(netns: &'lab NetNs) -> Self {
        let directory = TempDir::with_prefix("xbond-console-").unwrap();
        fs::create_dir(directory.path().join("bin")).unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        symlink(xbond_tests::xbond::binary().unwrap(), directory.path().join("bin/xbond")).unwrap();
        let mut holder = netns.command("unshare");
        holder.args(["--mount", "--propagation", "private", "sh", "-c", MOUNTS, "sh"]).arg(directory.path());
        let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        holder.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        Self { netns, holder, directory }
    }

    /// Returns a command in this mount and network namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = self.netns.command("nsenter");
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg(format!("--wd={}", self.directory.path().join("work").display())).arg("--").arg(program);
        command
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.directory.path().join("bin").display()));
        command
    }

    fn start(&self, text: &str) -> Running {
        let (output, end) = pipe().unwrap();
        let errors = self.directory.path().join("errors");
        let stderr = File::create(&errors).unwrap();
        // A shell starts its background jobs, of which these tests may be one, with these signals ignored, and so do they.
        let mut command = self.command("env");
        command
            .args(["--default-signal=INT,QUIT", "bash", "-c", text])
            .stdin(Stdio::null())
            .stdout(end)
            .stderr(stderr)
            .process_group(0);
        Running { child: command.spawn().unwrap(), output, seen: String::new(), errors }
    }

    fn write(&self, path: &str, text: &str) {
        let mut tee = self.command("tee");
        let mut tee = tee.arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut tee.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(tee.wait().unwrap().success(), "{path}");
    }
}

impl Drop for Console<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A command that was started, with its own process group.
struct Running {
    child: Child,
    output: PipeReader,
    seen: String,
    errors: PathBuf,
}

impl Running {
    /// Reads its output until `enough`, or until its end. Returns false at its end.
    fn read_until(&mut self, enough: impl Fn(&[&str]) -> bool) -> bool {
        let deadline = Instant::now() + wait_limit();
        while !enough(&self.seen.lines().collect::<Vec<_>>()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut readable = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            assert!(!left.is_zero(), "not within {:?}\n{}", wait_limit(), self.printed());
            if poll(&mut readable, timeout).unwrap() == 0 {
                continue;
            }
            let mut bytes = [0; 4096];
            let length = self.output.read(&mut bytes).unwrap();
            if length == 0 {
                return false;
            }
            self.seen += &String::from_utf8_lossy(&bytes[..length]);
        }
        true
    }

    fn interrupt(&mut self) -> ExitStatus {
        killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        self.read_until(|_| false);
        self.child.wait().unwrap()
    }

    fn printed(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        format!("it printed:\n{}and on standard error:\n{errors}", self.seen)
    }
}

/// Runs a page's blocks in a lab: their output must be what the page shows.
fn run(page: &str) {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let console = Console::open(&lab.host);
    let mut agents: Vec<Running> = Vec::new();
    let mut commands = 0;
    for step in console::steps(&read(page)).unwrap() {
        match step {
            PageStep::NotRun { .. } => {}
            PageStep::File { path, text } => console.write(&path, &text),
            PageStep::Command(command) => {
                commands += 1;
                agents.extend(run_command(page, &console, &command));
            }
        }
    }
    for mut agent in agents.into_iter().rev() {
        let status = agent.interrupt();
        assert!(status.success(), "{page}: at its end an agent: {status}; {}", agent.printed());
    }
    assert!(commands > 0, "{page} has no block that is run");
}

/// Runs one command. An agent that is not interrupted is returned.
fn run_command(page: &str, console: &Console, command: &console::Command) -> Option<Running> {
    let console::Command { line, text, output, is_interrupted } = command;
    let at = format!("{page}:{line}: {text}");
    let is_agent = text.starts_with("xbond ") && text.contains(" run");
    let mut running = console.start(text);
    if !is_agent && !is_interrupted {
        running.read_until(|_| false);
        let status = running.child.wait().unwrap();
        let reports = REPORTERS.iter().any(|verb| text.starts_with(verb)) && status.code() == Some(1);
        assert!(status.success() || reports, "{at}: {status}; {}", running.printed());
        let lines: Vec<_> = running.seen.lines().collect();
        assert!(output.is_empty() || console::matches(output, &lines), "{at}: {}", running.printed());
        return None;
    }
    let ready = |lines: &[&str]| lines.iter().any(|line| line.contains("ready"));
    let continues = running.read_until(|lines| console::begins(output, lines) && (!is_agent || ready(lines)));
    assert!(continues, "{at}: ended; {}", running.printed());
    if !is_interrupted {
        return Some(running);
    }
    let status = running.interrupt();
    assert!(!is_agent || status.success(), "{at}: {status}; {}", running.printed());
    None
}

#[test]
fn the_readme_runs() {
    run("README.md");
}

#[test]
fn the_guide_to_installing_runs() {
    run("docs/guide/install.md");
}

#[test]
fn the_guide_to_configuring_runs() {
    run("docs/guide/configure.md");
}

#[test]
fn the_guide_to_operating_runs() {
    run("docs/guide/operate.md");
}

#[test]
fn the_guide_to_containers_runs() {
    run("docs/guide/containers.md");
}

#[test]
fn the_guide_to_troubleshooting_runs() {
    run("docs/guide/troubleshooting.md");
}

/// No other test would notice a page that no test runs.
#[test]
fn every_page_with_blocks_to_run_is_run() {
    let here = fs::read_to_string(root().join(file!())).unwrap();
    for entry in fs::read_dir(root().join("docs/guide")).unwrap() {
        let page = format!("docs/guide/{}", entry.unwrap().file_name().display());
        let steps = console::steps(&read(&page)).unwrap();
        let has_commands = steps.iter().any(|step| matches!(step, PageStep::Command(_)));
        assert_eq!(has_commands, here.contains(&format!("run(\"{page}\")")), "{page}");
    }
}

/// Fails with the names that a page does not have in backquotes.
#[track_caller]
fn assert_named(page: &str, names: impl IntoIterator<Item = String>) {
    let text = read(page);
    let missing: BTreeSet<_> =
        names.into_iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{page} does not name {missing:?}");
}

/// Returns the pages of the book, and the documents next to it.
fn pages() -> Vec<String> {
    let directories = ["docs", "docs/guide", "docs/internals", "docs/reference"];
    let files = directories.iter().flat_map(|directory| {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        entries.map(move |entry| format!("{directory}/{}", entry.unwrap().file_name().to_str().unwrap()))
    });
    files.chain(["README.md".to_owned()]).filter(|page| page.ends_with(".md")).collect()
}

#[test]
fn prose_has_at_most_120_columns() {
    for page in pages().iter().filter(|page| *page != "docs/BENCHMARKS.md") {
        let text = read(page);
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            let is_prose = !is_code && !line.trim_start().starts_with('|');
            assert!(!is_prose || line.chars().count() <= 120, "{page}:{}: {line}", number + 1);
        }
    }
}

/// Returns the texts of the Rust files below a directory.
fn sources(directory: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
    texts
}

/// Returns the string literals that follow `call` in a text, with any white space between.
fn literals<'text>(text: &'text str, call: &str) -> Vec<&'text str> {
    let after = text.split(call).skip(1);
    after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).collect()
}

/// Returns whether a text has the form of a finding's id: words with hyphens.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

#[test]
fn the_reference_has_every_id_of_check_and_doctor() {
    let texts = ["bond-user/src/config", "bond-user/src/cli/doctor"]
        .map(|directory| sources(&root().join(directory)));
    let mut ids = BTreeSet::new();
    for text in texts.concat() {
        for call in [
            ".warn(",
            ".note(",
            ".ok(",
            ".fail(",
            "id: ",
            "Severity::Warning, ",
            "Severity::Error, ",
            "Severity::Note, ",
        ] {
            ids.extend(literals(&text, call).into_iter().filter(|id| is_id(id)).map(str::to_owned));
        }
    }
    assert!(ids.len() >= 60, "the sources have too few ids of the expected form: {ids:?}");
    assert_named("docs/reference/checks.md", ids);
}

/// Returns the first column of a table in a section of a page: the words in backquotes of each row.
fn first_column(page: &str, section: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let (_, after) =
        text.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let section = after.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cell = |row: &str| row.split(" | ").next().unwrap().trim_end_matches('`').to_owned();
    rows.map(|row| cell(row).split("`, `").map(str::to_owned).collect()).collect()
}

/// Returns each warning that `xbond show` can print.
fn warnings_of_show() -> Vec<String> {
    let bond = BondName::new("bond0").unwrap();
    let (by_itself, second) = (FailsOver { guard: true, clock: false }, Duration::from_secs(1));
    let device = || "enp0s8".to_owned();
    let faults = [
        PathFault::Detached { device: device() },
        PathFault::Replaced { device: device() },
        PathFault::Unpinned { pin: "tc_port_tx".to_owned() },
        PathFault::DeviceMap { map: "TX_PORTS", key: 1 },
        PathFault::Carrier { device: device(), up: true },
        PathFault::Carrier { device: device(), up: false },
        PathFault::Setting { device: device(), wanted: "mtu 1500".to_owned() },
        PathFault::Unknown { what: device(), why: "ENOMEM".to_owned() },
    ];
    let notes = [
        PathNote::Ahead { device: device(), program: 7 },
        PathNote::Bypassed { device: device(), text: wording::bypassed("nft chain x", true, "bond0") },
        PathNote::BondDown { device: device() },
    ];
    let (clock, ticks) = (ClockEntry { period: 10_000_000, ..ClockEntry::default() }, TickEntry::default());
    let vlans = BTreeSet::from([0]);
    let misdirected = MisdirectedAddress { slave: None, mac: Mac::BROADCAST, vlans: &vlans };
    let unmonitored = BondOptions { miimon: 0, ..BondOptions::default() };
    let mut warnings = vec![
        wording::no_unicast("enp0s8", 7),
        wording::flooded(&misdirected, None),
        wording::path_fault(&faults[0], &Repair::Failed("EBUSY".to_owned())),
        wording::clock_stands("bond0", &wording::clock(&clock, &ticks, None, second * 9)),
        wording::PINS_GONE.to_owned(),
        wording::ORPHANED.to_owned(),
        wording::on_trial("bond0", second),
        wording::on_trial("bond0", Duration::ZERO),
        wording::not_confirmed(&bond, 60, ""),
        wording::not_brought_up(&bond, "bond0.toml:1", None),
        wording::gone_with_namespace(&bond, None),
        wording::deleted(&bond, ""),
        wording::metrics_missing(""),
        wording::writers_missing(""),
        wording::no_active_slave("bond0", &[], by_itself),
        wording::dead_active_slave("bond0", "enp0s8", false, by_itself),
        wording::unadoptable(&bond, None),
        wording::without_port(&bond),
        wording::pin_lost(&bond, "tc_port_tx"),
        wording::host_mac_changed(&bond, Mac::ZERO, Mac::BROADCAST),
        wording::slave_missing("enp0s8"),
        wording::clock_off(&bond, true),
        wording::clock_off(&bond, false),
        wording::unmonitored("bond0", &unmonitored, Unmonitored::Refuse).unwrap(),
    ];
    warnings.extend(faults.iter().map(ToString::to_string));
    warnings.extend(notes.iter().map(ToString::to_string));
    warnings
}

#[test]
fn the_guide_has_an_entry_for_each_warning_of_show() {
    let page = "docs/guide/troubleshooting.md";
    let entries: Vec<String> = first_column(page, "Warnings of `xbond show`").concat();
    let warnings = warnings_of_show();
    for warning in &warnings {
        assert!(entries.iter().any(|entry| warning.contains(entry)), "{page} has no entry for: {warning}");
    }
    for entry in &entries {
        assert!(warnings.iter().any(|warning| warning.contains(entry)), "no warning contains: {entry}");
    }
    // What the sources of reports call is in the list above, or is no warning.
    let others = [
        "clock",
        "clock_ticks",
        "of_bond",
        "nameless",
        "NO_CLOCK_MAPS",
        "LEFT_OFF",
        "recreated_by_reload",
        "recreated_by_add",
    ];
    let own = read("tests/tests/book.rs");
    for source in
        ["store/offline.rs", "agent/server/query.rs", "agent/server/retries.rs", "agent/lifecycle/lost.rs"]
    {
        let text = read(&format!("bond-user/src/{source}"));
        for rest in text.split("wording::").skip(1).filter(|rest| !rest.starts_with(['{', 's'])) {
            let name: String =
                rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let is_known = own.contains(&format!("wording::{name}")) || others.contains(&&*name);
            assert!(
                is_known || name == "recreated",
                "{source}: {name} is not among the warnings of this test"
            );
        }
    }
}

#[test]
fn the_guide_has_an_entry_for_each_finding_of_doctor() {
    let page = "docs/guide/troubleshooting.md";
    let entries: BTreeSet<String> =
        first_column(page, "Findings of `xbond doctor`").concat().into_iter().collect();
    let text = read("bond-user/src/cli/doctor/judge.rs");
    let (text, _) = text.split_once("\nmod tests").unwrap();
    let mut ids: BTreeSet<String> =
        [".warn(", ".fail("].into_iter().flat_map(|call| literals(text, call)).map(str::to_owned).collect();
    // The ids of conflicts.
    ids.extend(literals(text, "=> ").into_iter().filter(|id| is_id(id)).map(str::to_owned));
    assert!(ids.len() > 15, "the source has too few findings of the expected form: {ids:?}");
    assert_eq!(entries, ids, "{page} has other ids than the source");
}

#[test]
fn the_reference_has_every_request() {
    let text = read("docs/reference/http.md");
    let requests = bond_user::api::Endpoint::ALL.map(bond_user::api::Endpoint::shown);
    let missing: Vec<_> = requests.iter().filter(|shown| !text.contains(&format!("| `{shown}` |"))).collect();
    assert!(missing.is_empty(), "docs/reference/http.md does not name {missing:?}");
}

#[test]
fn the_reference_has_every_metric_and_reason_of_drops() {
    let text = read("bond-user/src/report/metrics.rs");
    let kinds: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("# TYPE ")).collect();
    assert!(kinds.len() >= 15, "the sources have too few metrics of the expected form: {kinds:?}");
    let names = kinds.iter().map(|kind| match kind.split_once(' ').unwrap() {
        (name, "counter") => format!("{name}_total"),
        (name, _) => name.to_owned(),
    });
    let reasons = bond_common::counters::DropReason::ALL.map(|reason| reason.name().to_owned());
    assert_named("docs/reference/metrics.md", names.chain(reasons));
}

#[test]
fn each_alert_has_a_runbook_and_a_row_in_the_reference() {
    let rules = read("packaging/prometheus/xbond.rules.yml");
    let alerts: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 6, "{alerts:?}");
    let runbooks = read("docs/guide/runbooks.md");
    let headings = runbooks.lines().filter_map(|line| line.strip_prefix("## "));
    // The other ones are about alerts of other projects.
    let headings: BTreeSet<_> = headings.filter(|heading| heading.starts_with("Xbond")).collect();
    assert_eq!(headings, alerts);
    let reference = read("docs/reference/metrics.md");
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `Xbond")?.split_once('`'));
    assert_eq!(
        rows.map(|(name, _)| format!("Xbond{name}")).collect::<BTreeSet<_>>(),
        alerts.iter().map(|alert| (*alert).to_owned()).collect()
    );
}

#[test]
fn the_reference_has_every_definition_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&read("docs/xbond.schema.json")).unwrap();
    let definitions = schema["$defs"].as_object().unwrap();
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let receipt = &definitions["receipt"]["properties"];
    let words = ["reason", "seen", "chosen"].map(|field| names(&receipt[field]["enum"])).concat();
    let steps = receipt["steps"]["properties"].as_object().unwrap().keys().cloned();
    let events = definitions["event"]["oneOf"].as_array().unwrap();
    let events =
        events.iter().filter_map(|event| event["properties"]["event"]["const"].as_str().map(str::to_owned));
    assert!(words.len() > 20);
    assert_named(
        "docs/reference/json.md",
        definitions.keys().cloned().chain(words).chain(steps).chain(events),
    );
}

/// Returns what `xbond ARGUMENTS --help` prints.
fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(xbond_tests::xbond::binary().unwrap());
    let output = command.args(arguments).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_has_every_verb_and_flag() {
    let top = help(&[]);
    let (_, verbs) = top.split_once("Commands:\n").unwrap();
    let verbs: Vec<&str> = verbs
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() >= 15, "{verbs:?}");
    let page = read("docs/reference/cli.md");
    // Flags of several verbs, which the page describes once, before the verbs.
    const COMMON: [&str; 3] = ["help", "netns", "wait"];
    let (above, _) = page.split_once("\n## xbond ").unwrap();
    assert!(COMMON[1..].iter().all(|flag| above.contains(&format!("--{flag} "))));
    for verb in verbs {
        let (_, section) =
            page.split_once(&format!("\n## xbond {verb}\n")).unwrap_or_else(|| panic!("no {verb}"));
        let section = section.split("\n## ").next().unwrap();
        for line in help(&[verb]).lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
            let flag = line.split_whitespace().find_map(|word| word.strip_prefix("--")).unwrap_or_default();
            let common = COMMON.contains(&flag);
            assert!(
                common || section.contains(&format!("--{flag}")),
                "{verb}: --{flag} is not in its section"
            );
        }
    }
}

/// Directories of the repository, and of bond-user's sources, with which a path in the documents may begin.
const ROOTS: [&str; 13] = [
    "bond-common/",
    "bond-core/",
    "bond-ebpf/",
    "bond-user/",
    "docs/",
    "packaging/",
    "tests/",
    "xtask/",
    "agent/",
    "cli/",
    "config/",
    "store/",
    "sys/",
];

#[test]
fn paths_that_the_documents_name_exist() {
    let mut pages = vec!["README.md".to_owned()];
    for directory in ["docs/internals", "docs/guide"] {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        pages.extend(entries.map(|entry| format!("{directory}/{}", entry.unwrap().file_name().display())));
    }
    let exists = |path: &str| root().join(path).exists() || root().join("bond-user/src").join(path).exists();
    for page in pages {
        let text = read(&page);
        let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let paths =
            quoted.filter(|path| ROOTS.iter().any(|start| path.starts_with(start)) && !path.contains(' '));
        let missing: Vec<_> = paths.filter(|path| !exists(path)).collect();
        assert!(missing.is_empty(), "{page} names {missing:?}");
    }
}
