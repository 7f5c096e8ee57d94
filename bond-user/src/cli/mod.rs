//! The command line: all its types here, one file per verb.

mod add;
mod check;
mod client;
mod completions;
mod confirm;
mod doctor;
mod down;
mod export;
mod gc;
mod import;
mod log;
mod man;
mod monitor;
mod output;
mod persist;
mod reload;
mod run;
mod set;
mod show;
mod slave;
mod takeover;
mod top;
mod traffic;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, process::ExitCode, time::Duration};

use bond_core::{
    name::{BondName, InterfaceName},
    purpose::Purpose,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    api,
    config::{BondMac, Datapath, Guard, HostMac, OnExit, Pair, Words, export::Program},
    report::{log::LogFormat, wording},
    sys::{limits, netns},
};

/// Active-backup NIC bonding on eBPF
#[derive(Debug, Parser)]
#[command(name = "xbond", version, disable_help_subcommand = true)]
struct Cli {
    /// Work in this network namespace of `ip netns`
    #[arg(long, global = true, value_name = "NAME", display_order = 900)]
    netns: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create or adopt bonds and manage them, in the foreground
    ///
    /// Bonds are described by files (-c), by RHEL's network scripts (--ifcfg), or by flags. Without any of them the agent
    /// serves the bonds of /etc/xbond/*.toml, if there are any, and those that `xbond add` adds.
    ///
    /// One agent serves all bonds of a network namespace. On SIGHUP it reads its files again, as for `xbond reload`.
    Run(RunArgs),
    /// Add bonds to the running agent: each as a whole, or not at all
    ///
    /// Bonds are described by files (-c), by RHEL's network scripts (--ifcfg), or by flags.
    ///
    /// Slaves that files name join when they appear. An added bond stays until `xbond down` or the end of the agent. Once
    /// a file of the agent names the bond, it belongs to that file.
    Add(AddArgs),
    /// Have the running agent read its files again
    ///
    /// The files win: what `set`, `add-slave`, `del-slave` or `down` changed is reverted. What did not change is not
    /// touched. Bonds that no file names any more are removed, new ones are created. Bonds of `xbond add` are unaffected.
    ///
    /// Each change is printed. A change that needs a new bond (port, mac, datapath, fail_over_mac with slaves) is refused,
    /// and nothing of that bond is changed then. If a file cannot be read, nothing is changed.
    Reload(ReloadArgs),
    /// Print the state of bonds
    Show(ShowArgs),
    /// Print the last failovers of a bond: the trigger, the reason, and the duration of each step
    Log(LogArgs),
    /// Print events of bonds as they happen
    Monitor(MonitorArgs),
    /// Show bonds, rates, failovers and events on the terminal, as they happen
    ///
    /// Keys: q ends it; up, down, page up and page down scroll.
    Top(TopArgs),
    /// Change options of a running bond, or of one of its slaves
    Set(SetArgs),
    /// Enslave an interface: it gets the bond's MTU and, depending on fail_over_mac, its MAC address
    ///
    /// A slave that was added this way is released for good when its interface vanishes, or by `xbond reload` if the bond
    /// belongs to a file. A slave that the file names rejoins.
    AddSlave(AddSlaveArgs),
    /// Release a slave: it is left down, with the MAC address and MTU that it had before
    ///
    /// The active slave hands over first. A slave of a file stays released until the next `xbond reload`.
    DelSlave(DelSlaveArgs),
    /// Take a slave out of use before work on its port, without loss: another slave takes over if it is active
    ///
    /// A drained slave is used only while no other one is up, and its link failures do not count. It stays drained across
    /// restarts of the agent and of the bond, until `xbond undrain`, the end of --for, or the removal of the slave or the bond.
    /// The request is refused if no other slave is up that is not drained. The command returns when peers use the other slave.
    Drain(DrainArgs),
    /// End the drain of a slave
    Undrain(UndrainArgs),
    /// Remove a bond and restore the original state of its slaves
    Down(DownArgs),
    /// Remove what agents left of network namespaces that have ended: pins in /sys/fs/bpf/xbond, files in /run/xbond
    ///
    /// An agent does the same when it starts. Only what is proven to have no user any more is removed; the rest is printed
    /// with the reason why it was left.
    #[command(after_help = "Exit status: 0, or 2 if something could not be removed.")]
    Gc(GcArgs),
    /// Keep the bonds that `run --confirm` and `takeover --confirm` have on trial
    Confirm(ConfirmArgs),
    /// Take a live bond of the kernel's driver over, without interrupting it
    ///
    /// A backup leaves the driver and becomes the active slave of xbond's bond, which gets the addresses, routes, VLANs and
    /// bridge ports of the driver's; the other slaves follow, and the driver's bond is removed. What cannot be moved is refused
    /// by name before anything is changed. A takeover that fails at any step, or that is not confirmed, is led back.
    Takeover(TakeoverArgs),
    /// Give a bond to the kernel's driver, without interrupting it: the way back of `takeover`
    ///
    /// The driver's bond gets the options, slaves, addresses, routes, VLANs and bridge ports of xbond's, which is removed. What
    /// cannot be moved is refused by name before anything is changed.
    Giveback(GivebackArgs),
    /// Check configurations: report errors, values that will be changed or ignored, and common mistakes
    #[command(after_help = "Exit status: 0 without findings, 1 for warnings, 2 for errors.")]
    Check(CheckArgs),
    /// Print a TOML file of existing bonds, and report what has no equivalent in xbond
    Import(ImportArgs),
    /// Print bonds as files of another program, and report what that program cannot express
    Export(ExportArgs),
    /// Check whether this machine and its NICs can run xbond; nothing is changed
    #[command(after_help = "Exit status: 0 if every check is ok, 1 for warnings, 2 for failures.")]
    Doctor(DoctorArgs),
    /// Print the manual page, or that of a verb, as roff: xbond man | man -l -
    Man(ManArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    bonds: BondArgs,
    /// Remove the bonds that this agent creates after this time, unless `xbond confirm` (or Enter on a terminal) keeps them
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    confirm: Option<u32>,
    /// Let members of this group change bonds; they must also be in group xbond, whose members may read
    #[arg(long, value_name = "GROUP")]
    writers: Option<String>,
    /// Poll links at miimon only, without link events; for measurements
    #[arg(long, hide = true)]
    no_link_events: bool,
    /// Serve Prometheus metrics at http://ADDR:PORT/metrics, too; the control socket always does
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Keep the file xbond.prom in this directory current, for node_exporter's textfile collector: node_bonding_slaves and
    /// node_bonding_active
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    textfile: Option<PathBuf>,
    /// Keep a file of each bond in this directory current, with the text of `xbond show --proc`, for programs that read
    /// /proc/net/bonding
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    proc_files: Option<PathBuf>,
    /// Attach tc programs by clsact, as on kernels before 6.6; for tests
    #[arg(long, hide = true)]
    clsact: bool,
    /// The form of the log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormatArg::Auto)]
    log_format: LogFormatArg,
}

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    bonds: BondArgs,
    /// Also write /etc/xbond/BOND.toml, from which the agent creates the bond at the next boot, and files by which
    /// NetworkManager and systemd-networkd leave its slaves alone
    #[arg(long)]
    persist: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct ReloadArgs {
    #[command(flatten)]
    wait: WaitArgs,
}

// How bonds are described. Not a doc comment: that would become the help text of the verbs.
#[derive(Debug, Args)]
struct BondArgs {
    /// A TOML file, or a directory of them; may be repeated
    #[arg(short, long = "config", value_name = "FILE", group = "source")]
    config: Vec<PathBuf>,
    /// A directory of RHEL ifcfg files, which are read and never executed
    #[arg(long, value_name = "DIR", group = "source")]
    ifcfg: Option<PathBuf>,
    /// Name of the bond
    #[arg(long, value_name = "NAME", group = "source")]
    bond: Option<String>,
    /// A slave of the bond; may be repeated, the order decides the bond's MAC address
    #[arg(long = "slave", value_name = "IF", requires = "bond")]
    slave: Vec<String>,
    /// An option of the bonding driver, or a setting of a configuration; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", requires = "bond", value_parser = key_value)]
    options: Vec<(String, String)>,
    /// An address of the bond; may be repeated
    #[arg(long, value_name = "ADDRESS/PREFIX", requires = "bond", value_parser = address)]
    address: Vec<IpNet>,
    /// An existing interface as the upper end, instead of a new device for the bond
    #[arg(long, value_name = "IF", requires = "bond")]
    port: Option<String>,
    /// The MAC address of the host behind --port, learned if not given; without --port the one that the bond keeps under
    /// fail_over_mac=active: an address, or `stable` for that of its first slave
    #[arg(long, value_name = "MAC|stable", requires = "bond")]
    host_mac: Option<HostMac>,
    /// The bond's MAC address, or the slave whose permanent address the bond gets; by default that of its first slave
    #[arg(long, value_name = "MAC|IF", requires = "bond")]
    mac: Option<BondMac>,
    /// MTU of the bond and its slaves, in bytes
    #[arg(long, value_name = "BYTES", requires = "bond")]
    mtu: Option<u32>,
    /// The hooks that carry the packets; for all bonds
    #[arg(long, value_enum)]
    datapath: Option<DatapathArg>,
    /// The kind of the bond's device and its port; auto is netkit for tc where the kernel has it (6.7 on), else veth
    #[arg(long, value_name = "auto|netkit|veth", requires = "bond", conflicts_with = "port", value_parser = word::<Pair>)]
    pair: Option<Pair>,
    /// Whether the data plane may fail over by itself, when a packet finds its slave without a link
    #[arg(long, value_name = "auto|off", requires = "bond", value_parser = word::<Guard>)]
    guard: Option<Guard>,
    /// With fail_over_mac=follow: backups receive the bond's MAC address, too
    #[arg(long, requires = "bond")]
    prearm: bool,
    /// The bond takes over the addresses and routes of the first slave that has any, until the bond is removed
    #[arg(long, requires = "bond", conflicts_with = "port")]
    move_addresses: bool,
    /// What happens to bonds when the agent is asked to end; for all bonds, overrides the files
    #[arg(long, value_enum)]
    on_exit: Option<OnExitArg>,
    /// Accept a bond without any monitoring, which never fails over; TOML files have a key for it
    #[arg(long, conflicts_with = "config")]
    allow_unmonitored: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DatapathArg {
    /// tc for a bond that ends in the host stack, xdp for one that ends in a port
    Auto,
    /// tc hooks: TSO, GRO and checksum offload stay
    Tc,
    /// Native XDP: for forwarders
    Xdp,
    /// XDP in the stack, for drivers without native XDP
    XdpGeneric,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnExitArg {
    /// Bonds are removed, and their slaves are restored
    Down,
    /// Bonds keep running without an agent
    Keep,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormatArg {
    /// Systemd's journal, with fields, if it reads standard error; otherwise text
    Auto,
    /// One sentence per line
    Text,
    /// One JSON object per line, with fields
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(argument: LogFormatArg) -> Self {
        match argument {
            LogFormatArg::Auto => Self::Auto,
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

impl From<OnExitArg> for OnExit {
    fn from(argument: OnExitArg) -> Self {
        match argument {
            OnExitArg::Down => Self::Down,
            OnExitArg::Keep => Self::Keep,
        }
    }
}

impl From<DatapathArg> for Datapath {
    fn from(argument: DatapathArg) -> Self {
        match argument {
            DatapathArg::Auto => Self::Auto,
            DatapathArg::Tc => Self::Tc,
            DatapathArg::Xdp => Self::Xdp,
            DatapathArg::XdpGeneric => Self::XdpGeneric,
        }
    }
}

/// The flag of verbs that change something.
#[derive(Debug, Args)]
struct WaitArgs {
    /// Wait at most this long for the end of the change, then print the steps that are not finished, and exit with 3; the agent
    /// continues
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Only this bond
    bond: Option<BondName>,
    /// Also the bonds of other network namespaces
    #[arg(long, conflicts_with_all = ["bond", "proc"])]
    all_netns: bool,
    /// All options, devices, slots, what was found, and the last failover's steps
    #[arg(short, long, conflicts_with = "proc")]
    details: bool,
    /// Packets that xbond counted and dropped, and that the kernel dropped around it
    #[arg(short, long, conflicts_with = "proc")]
    statistics: bool,
    /// Print JSON, which always has all details
    #[arg(short, long, conflicts_with = "proc")]
    json: bool,
    /// Print the text that the driver shows as /proc/net/bonding/BOND
    #[arg(long)]
    proc: bool,
}

#[derive(Debug, Args)]
struct LogArgs {
    bond: BondName,
    /// With the steps of each failover, and what was dropped during the failover
    #[arg(short, long)]
    details: bool,
    /// Print JSON, which always has all details
    #[arg(short, long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MonitorArgs {
    /// Only this bond
    bond: Option<BondName>,
    /// One JSON object per line
    #[arg(short, long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TopArgs {
    /// Only this bond
    bond: Option<BondName>,
    /// Print one frame as text, without events, and end
    #[arg(long)]
    once: bool,
    /// The time between two reports, from which rates are computed
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
}

#[derive(Debug, Args)]
struct SetArgs {
    bond: BondName,
    /// Change options of this slave: prio, queue_id, watch
    #[arg(long, value_name = "IF")]
    slave: Option<InterfaceName>,
    /// Options of the bonding driver, in order, all or none; or active_slave alone
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct AddSlaveArgs {
    bond: BondName,
    /// The interface
    #[arg(value_name = "IF")]
    slave: InterfaceName,
    /// An option of the slave: prio, queue_id, watch; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    options: Vec<(String, String)>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct DelSlaveArgs {
    bond: BondName,
    /// The slave
    #[arg(value_name = "IF")]
    slave: InterfaceName,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct DrainArgs {
    bond: BondName,
    /// The slave
    #[arg(value_name = "IF")]
    slave: InterfaceName,
    /// End the drain after this time, such as 10m or 1h30m
    #[arg(long = "for", value_name = "TIME", value_parser = drain_time)]
    time: Option<NonZeroU32>,
    /// The reason, for `xbond show` and the log
    #[arg(long, value_name = "TEXT")]
    why: Option<Purpose>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct UndrainArgs {
    bond: BondName,
    /// The slave
    #[arg(value_name = "IF")]
    slave: InterfaceName,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct DownArgs {
    #[arg(required_unless_present = "all")]
    bond: Option<BondName>,
    /// Remove the bond without an agent, from the pins and files that one left
    #[arg(long)]
    force: bool,
    /// Every bond of this network namespace, with an agent or without
    #[arg(long, conflicts_with_all = ["bond", "force"])]
    all: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct GcArgs {
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(short, long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConfirmArgs {}

#[derive(Debug, Args)]
struct TakeoverArgs {
    bond: BondName,
    /// Lead the bond back to the driver after this time, unless `xbond confirm` keeps it
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["undo", "persist"])]
    confirm: Option<NonZeroU32>,
    /// Lead a takeover back that waits for a confirmation
    #[arg(long)]
    undo: bool,
    /// Only print which programs will lose the bond's interface, and what else changes
    #[arg(long, conflicts_with_all = ["undo", "confirm", "persist"])]
    dry_run: bool,
    /// Then write /etc/xbond/BOND.toml, from which the agent creates the bond at the next boot, and files by which
    /// NetworkManager and systemd-networkd leave its slaves alone
    #[arg(long, conflicts_with = "undo")]
    persist: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct GivebackArgs {
    bond: BondName,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// TOML files, directories of them, or directories of ifcfg files, as one configuration
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON, notes included
    #[arg(short, long)]
    json: bool,
    /// Also report what is correct but may surprise
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Args)]
struct ImportArgs {
    #[command(subcommand)]
    source: ImportSource,
}

#[derive(Debug, Subcommand)]
enum ImportSource {
    /// From network scripts of RHEL or SUSE, which are read and never executed
    Ifcfg(PathsArgs),
    /// From bonds of the kernel's driver that are up
    Kernel {
        /// Only this bond
        bond: Option<InterfaceName>,
    },
    /// From .netdev and .network files of systemd-networkd, and their drop-ins
    Networkd(PathsArgs),
    /// From YAML files of netplan, which are merged
    Netplan(PathsArgs),
    /// From keyfiles of NetworkManager
    Nm(PathsArgs),
    /// From interfaces files of ifupdown, ifupdown2 or ifupdown-ng
    Ifupdown(PathsArgs),
    /// From YAML or JSON files of nmstate
    Nmstate(PathsArgs),
    /// From JSON files of teamd
    Team(PathsArgs),
    /// From bond= of a kernel's command line, as dracut reads it
    Dracut(PathsArgs),
}

#[derive(Debug, Args)]
struct PathsArgs {
    /// Files, or directories of them, the first of which wins; by default the directories of this host
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The program: ip stands for commands of iproute2
    #[arg(value_enum)]
    program: ExportProgram,
    /// A bond that runs, or a TOML file (with a slash or .toml in its name), or a directory of them
    #[arg(value_name = "BOND|FILE")]
    source: String,
    /// Write the files into this directory, where none of them may exist, instead of printing them
    #[arg(short, long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportProgram {
    Networkd,
    Netplan,
    Nm,
    Ifupdown,
    Nmstate,
    Ip,
}

impl From<ExportProgram> for Program {
    fn from(argument: ExportProgram) -> Self {
        match argument {
            ExportProgram::Networkd => Self::Networkd,
            ExportProgram::Netplan => Self::Netplan,
            ExportProgram::Nm => Self::Nm,
            ExportProgram::Ifupdown => Self::Ifupdown,
            ExportProgram::Nmstate => Self::Nmstate,
            ExportProgram::Ip => Self::Ip,
        }
    }
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Interfaces to be enslaved; all Ethernet devices if none is given
    #[arg(value_name = "IF")]
    interfaces: Vec<String>,
    /// Print JSON
    #[arg(short, long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ManArgs {
    /// A verb of xbond
    verb: Option<String>,
}

#[derive(Debug, Args)]
struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

fn address(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| wording::not_a_network())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let limit = api::LONGEST_WAIT.as_secs();
    api::parse_wait(text).ok_or_else(|| wording::not_seconds(0, limit))
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| wording::not_seconds(0.1, 3600))
}

fn word<T: Words>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| wording::not_one_of(T::WORDS.join(", ")))
}

fn drain_time(text: &str) -> Result<NonZeroU32, String> {
    let wanted = || wording::not_a_time(text);
    let seconds = humantime::parse_duration(text).map_err(|_| wanted())?.as_secs();
    u32::try_from(seconds).ok().and_then(NonZeroU32::new).ok_or_else(wanted)
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(wording::not_absolute()) }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| wording::not_key_and_value(text))?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// Exit code for input that is refused; clap has the same.
const REFUSED: u8 = 2;
/// Exit code for a change that has begun and is not done yet.
const NOT_YET: u8 = 3;

/// Parses the command line and runs the verb.
pub fn main() -> ExitCode {
    let Cli { netns, verb } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            output::usage(&error);
            return ExitCode::from(REFUSED);
        }
        Err(error) => error.exit(),
    };
    // Below, libraries assume that the few files that they open can be opened.
    let enough = limits::check_files(limits::FILES_OF_COMMAND);
    let inside = enough.and_then(|()| netns.map_or(Ok(()), |name| netns::enter(&name)));
    match inside.map_err(Into::into).and_then(|()| act(verb)) {
        Ok(code) => code,
        Err(error) => {
            // Every error includes its causes.
            output::note(error);
            ExitCode::from(REFUSED)
        }
    }
}

fn act(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Check(arguments) => return check::check(&arguments),
        Verb::Doctor(arguments) => return doctor::doctor(&arguments),
        Verb::Run(arguments) => return Ok(run::run(arguments)),
        Verb::Add(arguments) => return add::add(&arguments),
        Verb::Reload(arguments) => return reload::reload(&arguments),
        Verb::Show(arguments) => show::show(&arguments),
        Verb::Log(arguments) => log::log(&arguments),
        Verb::Monitor(arguments) => monitor::monitor(&arguments),
        Verb::Top(arguments) => top::top(&arguments),
        Verb::Set(arguments) => return set::set(arguments),
        Verb::AddSlave(arguments) => return slave::add(arguments),
        Verb::DelSlave(arguments) => return slave::delete(&arguments),
        Verb::Drain(arguments) => return slave::drain(arguments),
        Verb::Undrain(arguments) => return slave::undrain(&arguments),
        Verb::Down(arguments) => return down::down(&arguments),
        Verb::Gc(arguments) => return gc::gc(&arguments),
        Verb::Takeover(arguments) => return takeover::takeover(&arguments),
        Verb::Giveback(arguments) => return takeover::giveback(&arguments),
        Verb::Confirm(ConfirmArgs {}) => confirm::confirm(),
        Verb::Import(arguments) => import::import(&arguments),
        Verb::Export(arguments) => export::export(&arguments),
        Verb::Man(arguments) => man::man(&arguments),
        Verb::Completions(arguments) => completions::completions(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
