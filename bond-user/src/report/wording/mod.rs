//! Sentences about bonds, for the log, errors and `xbond show`.

/// Defines a function for each sentence; its arguments are the words in braces.
macro_rules! sentences {
    ($($(#[$doc:meta])* $name:ident($($word:ident),*) => $sentence:literal;)*) => {
        $($(#[$doc])* pub fn $name($($word: impl Display),*) -> String {
            format!($sentence)
        })*
    };
}

mod agent;
mod cli;
mod import;
mod log;
mod misdirected;
mod notices;
mod orphaned;
mod path;
mod server;
mod takeover;

use std::{
    fmt::{self, Display},
    time::Duration,
};

use bond_common::{
    clock::layout::{AnnounceList, ClockEntry, TickEntry},
    mac::Mac,
};
use bond_core::{
    command::{Reason, Trigger},
    damping::Damping,
    name::shell_word,
    options::{BondOptions, Unmonitored},
    purpose::Purpose,
    watch::Watch,
};

use crate::{
    report::{
        drain::{Damped, Drained},
        moment::Moment,
        receipt::{Announcement, Announcer, Peers},
    },
    sys::{conflicts::Conflict, found::Found},
};

pub use self::{
    agent::*, cli::*, import::*, log::*, misdirected::*, notices::*, orphaned::*, path::*, server::*,
    takeover::*,
};

/// The slave that gives the bond its MAC address is absent.
pub fn mac_of_absent(bond: &str, slave: &str) -> String {
    format!(
        "{bond}: mac = {slave}: this slave does not exist, so the bond has the MAC address of its first slave until it is created again"
    )
}

/// Returns a sentence that begins with the name of the bond that it is about, as many do by themselves.
pub fn of_bond(bond: &str, sentence: String) -> String {
    let is_named = sentence.strip_prefix(bond).is_some_and(|rest| rest.starts_with([':', ' ']));
    if is_named { sentence } else { format!("{bond}: {sentence}") }
}

/// Returns the warning about an active slave that receives no unicast, for `show` and the log.
pub fn no_unicast(slave: &str, sent: u64) -> String {
    format!(
        "{slave}: {sent} frames sent, no unicast received since it became active; \
         the port may accept only its own MAC: use fail_over_mac=active"
    )
}

/// The warning about an orphaned bond while an agent runs.
pub const ORPHANED: &str = "another agent left it, and this one does not manage it: its MAC addresses are not changed, failovers \
                            are not announced, and link events are not followed; `xbond add` takes it over, `xbond down` takes it down";

/// A part of the data plane or a device that another process has changed.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathFault {
    /// A BPF program is no longer attached to this device.
    Detached { device: String },
    /// The BPF link on this device runs another program.
    Replaced { device: String },
    /// A pin is gone.
    Unpinned { pin: String },
    /// An entry of a device map.
    DeviceMap { map: &'static str, key: u32 },
    /// A device is up where it has to be down, or the reverse.
    Carrier { device: String, up: bool },
    /// A setting of a device is not the wanted one.
    Setting { device: String, wanted: String },
    /// A part could not be read.
    Unknown { what: String, why: String },
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detached { device } => {
                write!(f, "{device}: its BPF program was detached by another process")
            }
            Self::Replaced { device } => {
                write!(f, "{device}: its BPF program was replaced by another process")
            }
            Self::Unpinned { pin } => write!(f, "the pin {pin} was removed by another process"),
            Self::DeviceMap { map, key } => {
                write!(f, "BPF map {map}: entry {key} was modified by another process")
            }
            Self::Carrier { device, up: true } => {
                write!(f, "{device}: was set up by another process although no slave is up")
            }
            Self::Carrier { device, up: false } => {
                write!(f, "{device}: was set down by another process: the bond has no carrier")
            }
            Self::Setting { device, wanted } => {
                write!(f, "{device}: was changed by another process: the bond needs {wanted}")
            }
            Self::Unknown { what, why } => write!(f, "{what}: cannot be checked: {why}"),
        }
    }
}

/// A fact about the packets' path that another program or the administrator decides.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathNote {
    /// A program runs before the bond's on this device.
    Ahead { device: String, program: u32 },
    /// A chain or filter at a slave's hook, by a sentence of [`bypassed`].
    Bypassed { device: String, text: String },
    /// bond0 is administratively down.
    BondDown { device: String },
}

impl fmt::Display for PathNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead { device, program } => write!(
                f,
                "{device}: BPF program id {program} of another process runs before the bond's and may take its packets \
                 (bpftool prog show id {program})"
            ),
            Self::Bypassed { device, text } => write!(f, "{device}: {text}"),
            Self::BondDown { device } => {
                let word = shell_word(device);
                write!(f, "{device} is set down and carries nothing; to set it up: ip link set {word} up")
            }
        }
    }
}

/// Returns the log line for a note that no longer applies.
pub fn no_more(note: &PathNote) -> String {
    match note {
        PathNote::Ahead { device, program } => {
            format!("{device}: BPF program id {program} does not run before the bond's any more")
        }
        PathNote::Bypassed { device, text } => {
            let what = text.split(" does not see").next().unwrap_or(text);
            format!("{device}: {what} was removed")
        }
        PathNote::BondDown { device } => format!("{device} is up again"),
    }
}

/// Returns the log line for MAC addresses that were changed after the record of their failover was written.
pub fn macs_followed(to: Option<&str>, after: Duration) -> String {
    let to = to.unwrap_or("none");
    format!(
        "{to}: the MAC addresses of the failover were changed {} ms after it; its receipt was written before",
        after.as_millis()
    )
}

/// The result of repairing a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The fault was repaired.
    Done,
    /// It cannot be repaired, for this reason.
    Failed(String),
    /// The agent does not repair it, or no fault is known.
    None,
}

/// Returns the text about a fault, for the log and `show`.
pub fn path_fault(fault: &PathFault, repair: &Repair) -> String {
    match repair {
        Repair::Done => format!("{fault}; restored"),
        Repair::Failed(why) => format!("{fault}; it cannot be restored: {why}"),
        Repair::None => fault.to_string(),
    }
}

/// The log line for a round that leaves MAC addresses out.
pub const MACS_CAPPED: &str =
    "more than 1024 MAC addresses are behind the bond; a round announces those that sent last";

/// Returns the log line for a round of announcements.
pub fn announced(announcement: &Announcement) -> String {
    let Announcement { addresses, macs, failed, by, rounds, capped } = *announcement;
    let by = match (by, rounds) {
        (Announcer::Agent, _) => "by the agent".to_owned(),
        (Announcer::Kernel, None | Some(..=1)) => "by the clock".to_owned(),
        (Announcer::Kernel, Some(rounds)) => format!("by the clock in {rounds} rounds"),
    };
    let of = |number: u32, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {many}")),
    };
    let sent = [of(addresses, "address", "addresses"), of(macs, "MAC address", "MAC addresses")];
    let mut sent = sent.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    if capped {
        sent.push_str(if macs > 0 { " (those that sent last; there are more)" } else { " (there are more)" });
    }
    match (sent.is_empty(), failed) {
        (true, 0) => {
            "nothing to announce: no address on the bond or on a device above it, and no MAC address behind it".to_owned()
        }
        (true, failed) => format!("announced nothing: {failed} frames could not be sent"),
        (false, 0) => format!("announced {sent} {by}"),
        (false, failed) => format!("announced {sent} {by}; {failed} frames could not be sent"),
    }
}

/// Returns the warning about a bond whose slaves nothing monitors, unless that is allowed.
pub fn unmonitored(bond: &str, options: &BondOptions, allowed: Unmonitored) -> Option<String> {
    let is_monitored = options.miimon > 0 || options.arp_interval > 0;
    (!is_monitored && allowed == Unmonitored::Refuse).then(|| {
        format!("{bond}: nothing monitors its slaves, and one that fails stays active; set miimon=100, or arp_interval")
    })
}

/// Returns the text about the peers of a failover.
pub fn peers(peers: &Peers) -> String {
    let Peers { expected, heard, heard_us, asked, missing } = peers;
    if *expected == 0 {
        return "no peer was confirmed in the 10 s before".to_owned();
    }
    let peers = if *expected == 1 { "peer" } else { "peers" };
    let mut text = format!("{heard} of {expected} {peers} heard");
    if let Some(us) = heard_us {
        text += &format!(" within {}.{} ms", us / 1000, us % 1000 / 100);
    }
    if *asked > 0 {
        text += &format!("; {asked} asked by unicast");
    }
    if !missing.is_empty() {
        text += &format!("; not heard: {}", missing.join(", "));
        let more = (*expected as usize).saturating_sub(*heard as usize).saturating_sub(missing.len());
        if more > 0 {
            text += &format!(" and {more} more");
        }
    }
    text
}

/// Returns the log line for changes of ACTIVE without a receipt.
pub fn unrecorded(changes: u32) -> String {
    format!(
        "{changes} changes of ACTIVE have no receipt (event buffer full, or an agent died before it wrote them)"
    )
}

/// Returns the line of `xbond show` about the changes of ACTIVE without a receipt since the agent has the bond.
pub fn unrecorded_in_all(changes: u64) -> String {
    format!("changes of ACTIVE without a receipt since the agent has the bond: {changes}")
}

/// Returns the log line for a generation of ACTIVE that another process has changed.
pub fn recounted(found: u32, now: u32) -> String {
    format!("BPF map ACTIVE was modified by another process: its generation was {found}, and is {now} again")
}

/// The warning about a slave or port under datapath=xdp with its far end on this machine.
pub const PARTIAL_CHECKSUMS: &str = "its far end may be on this machine, and hand over frames whose checksums are not \
                                     computed yet; datapath=xdp forwards them so, and DHCP and others discard them; turn \
                                     transmit checksum offload off where they are sent (ethtool -K DEVICE tx off), or \
                                     use datapath=tc";

/// Returns the warning about a bridge above a bond with all_slaves_active.
pub fn all_slaves_active_below(bridge: &str) -> String {
    format!(
        "all_slaves_active=1 below the bridge {bridge}: broadcasts that guests of {bridge} send come back by the backup \
         slaves, {bridge} learns the guests' MACs at the bond, and the guests receive nothing more; set \
         all_slaves_active=0"
    )
}

/// Returns the text about a chain or filter at a slave's hook that the packets of `bond` bypass: with any datapath,
/// or with xdp.
pub fn bypassed(hooked: impl fmt::Display, by_xdp_alone: bool, bond: &str) -> String {
    let when = if by_xdp_alone { " with datapath=xdp" } else { "" };
    format!("{hooked} does not see the packets of {bond}{when}; attach it to {bond} instead")
}

/// What the log says of a bond that is kept.
pub const KEPT: &str = "kept; it carries packets without an agent";
/// What is left to do of a bond that could not be removed whole.
pub fn not_all_restored(bond: &str, error: &impl fmt::Display) -> String {
    let name = shell_word(bond);
    format!("{bond}: not everything could be restored: {error}; try `xbond down {name} --force`")
}

/// Returns the text about an interface that could not be restored while its bond keeps running.
pub fn not_restored_yet(error: &impl fmt::Display) -> String {
    format!(
        "not everything could be restored: {error}; it is tried again when the interface changes, and when the bond ends"
    )
}

/// Returns the text about a bond that is on trial for this remaining time.
pub fn on_trial(bond: &str, left: Duration) -> String {
    if left.is_zero() {
        let name = shell_word(bond);
        return format!(
            "{bond}: not confirmed in time (--confirm): the next agent removes it, `xbond down {name} --force` does now"
        );
    }
    let seconds = left.as_secs_f64().ceil();
    format!(
        "{bond}: not confirmed yet (--confirm): an agent removes it in {seconds} s, unless `xbond confirm` is run before \
         that; while no agent runs it stays, and the next agent removes it"
    )
}

/// The log line for a kept bond if it is not known how long its pins last.
pub const LEFT_TO_MOUNT: &str = "its programs stay as long as its bpffs is mounted: the mounts of process 1 cannot be read, so \
                                 it is not known whether that is longer than this mount namespace exists";
/// Why a bond cannot be kept.
pub const PRIVATE_PINS: &str = "its bpffs is mounted in this mount namespace only, not where process 1 is: its programs would \
                                end with the namespace's last process; mount it outside first: mount -t bpf bpf /sys/fs/bpf";

/// Returns the refusal of a slave through which frames would return to the bond.
pub fn goes_round(slave: &str, bond: &str) -> String {
    format!("{slave}: frames that it sends return to {bond} since {bond} became a port; it is released")
}

/// Returns the text about a slave that another process has made a port of another device.
pub fn given_away(slave: &str, master: Option<&str>) -> String {
    format!("{slave}: was made a port of {}, and leaves the bond", master.unwrap_or("something else"))
}

/// Returns the text about a conflict on a slave of `bond`, or on a NIC that is to be one.
pub fn conflict(conflict: &Conflict, slave: &str, bond: &str) -> String {
    match conflict {
        Conflict::Address(address) => {
            let net = format!("{}/{}", address.ip, address.prefix_len);
            let expiry = address
                .lifetime
                .map(|left| format!(" It expires in {} s: {}.", left.valid, run_dhcp_there(bond, slave)))
                .unwrap_or_default();
            format!(
                "has the address {net}, which stays on {slave} with the route to its network: packets that take this route \
                 bypass {bond}, and are not answered.{expiry} Remove it (ip address del {net} dev {}), or have {bond} \
                 take it (--move-addresses takes those of the first slave that has any)",
                shell_word(slave)
            )
        }
        Conflict::Above { name, kind } => format!(
            "the {kind} {name} lies above it and receives nothing while {slave} is a slave of {bond}; create it above {bond} \
             instead"
        ),
        Conflict::MplsRoutes { labels } => {
            let labels: Vec<_> = labels.iter().map(u32::to_string).collect();
            format!(
                "has MPLS routes (labels {}), which stay on it: they bypass {bond}, and MPLS frames that it receives arrive on \
                 {bond}. Delete them, and add them to {bond} (ip -f mpls route; net.mpls.conf.{bond}.input)",
                labels.join(", ")
            )
        }
    }
}

/// Returns the text about an address that is moved from a slave to `bond` and that the kernel removes when its
/// lifetime is over.
pub fn expiring(address: impl fmt::Display, seconds: u32, slave: &str, bond: &str) -> String {
    format!(
        "{address} was assigned to {slave} for a time, by DHCP or router advertisements: {bond} loses it in {seconds} s, and \
         the routes that need it; {}",
        run_dhcp_there(bond, slave)
    )
}

fn run_dhcp_there(bond: &str, slave: &str) -> String {
    format!("run the DHCP client on {bond} instead of {slave}, or give {bond} a static address")
}

/// Returns the text about an interface that a record names, and that the kernel does not confirm to belong to the
/// bond.
pub fn unconfirmed(bond: &str, interface: &str) -> String {
    format!(
        "{interface}: found.json names it, but it has neither the alias xbond:{bond} nor a program of {bond}: it is not \
         changed"
    )
}

/// Whether an interface of this network namespace has the name of a former slave that is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameHere {
    /// No interface has it.
    Free,
    /// Another interface has it.
    Taken,
    /// The interfaces could not be read.
    Unknown,
}

/// Returns the text about a slave that is elsewhere when its bond is removed. A command that names an interface which is
/// here would change the wrong one.
pub fn not_here(found: &Found, here: NameHere) -> String {
    let Found { name, ifindex, .. } = found;
    let mac = found.permanent_mac.unwrap_or(found.mac);
    let what = match here {
        NameHere::Free => format!(
            "{name}: not in this network namespace, so not restored; if it was moved to another one, it still has what the bond set."
        ),
        NameHere::Taken | NameHere::Unknown => format!(
            "the former {name} (MAC {mac}, ifindex {ifindex}): deleted, or moved to another network namespace, so not restored."
        ),
    };
    let returns = "An agent of this network namespace restores it when it returns.";
    match here {
        NameHere::Free => format!("{what} {returns} To restore it there: {}", restoring(found, name)),
        NameHere::Taken => format!("{what} {returns} The {name} that is here now is another interface"),
        NameHere::Unknown => format!("{what} {returns}"),
    }
}

/// Returns the command by which an administrator restores a former slave, which is called `name` now.
pub fn restoring(found: &Found, name: &str) -> String {
    let Found { mac, mtu, .. } = found;
    let switch = |on: bool| if on { "on" } else { "off" };
    format!(
        "ip link set {} down address {mac} mtu {mtu} allmulticast {} promisc {} alias ''",
        shell_word(name),
        switch(found.allmulti),
        switch(found.promisc)
    )
}

/// Returns the commands by which an administrator removes what a bond has set on a slave whose original state is not known.
/// `mac` is its own MAC address, if it has another one.
pub fn cleaning(interface: &str, mac: Option<Mac>) -> String {
    let name = shell_word(interface);
    let address = mac.map(|mac| format!("ip link set {name} address {mac}; ")).unwrap_or_default();
    format!("{address}ip link set {name} promisc off allmulticast off addrgenmode eui64 alias ''")
}

/// Returns the text about an interface with the alias of a bond that does not exist. `remedy` restores it.
pub fn left_on(interface: &str, bond: &str, remedy: &str) -> String {
    format!(
        "{interface} was a slave of {bond}, which does not exist any more, and still has what the bond set. To restore it: \
         {remedy}"
    )
}

/// Adds to the text of [`left_on`] how many times an agent could not restore the interface.
pub fn left_after(text: &str, tries: u32) -> String {
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    format!("{text} (an agent has tried to restore it {times}; its log says why it could not)")
}

/// Why another slave is active. The link that the ARP monitor judges is the path to its targets: the carrier may be there.
pub fn why(reason: Reason, seen: Trigger) -> &'static str {
    match reason {
        Reason::LinkFailed if is_arp(seen) => "the ARP monitor got no answer through it",
        Reason::LinkFailed => "its link failed",
        Reason::CarrierGuard => "a packet found its carrier gone",
        Reason::LinkRecovered if is_arp(seen) => "the ARP monitor gets answers again",
        Reason::LinkRecovered => "a link came back",
        Reason::Left => "it left the bond",
        Reason::Joined => "a slave joined",
        Reason::Requested => "requested",
        Reason::OptionChanged => "an option changed",
        Reason::Drained => "it was drained",
        Reason::Undrained => "its drain ended",
        Reason::DampingEnded => "its link is stable again",
        Reason::Path => "its path is silent: no target answers through it",
        Reason::PathRecovered => "its path answers again",
    }
}

/// Returns the text about a slave whose damping begins or ends.
pub fn damped(slave: &str, damped: bool) -> String {
    if damped {
        format!(
            "{slave}: its link flaps; it is used only while no other slave is up, until its link is stable"
        )
    } else {
        format!("{slave}: its link is stable again; it is used like the others")
    }
}

/// Returns the text about a slave that is drained from now on: `time` is the length of the drain, None without an end.
pub fn drained(slave: &str, time: Option<Duration>, why: Option<&Purpose>) -> String {
    let time = time.map(|time| format!(" for {}", humantime::format_duration(time))).unwrap_or_default();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("{slave}: drained{time}{why}")
}

/// Returns the text about a slave that is not drained any more.
pub fn undrained(slave: &str, by_itself: bool) -> String {
    if by_itself {
        format!("{slave}: its drain ended after its time; it is used like the others")
    } else {
        format!("{slave}: its drain ended; it is used like the others")
    }
}

/// Returns the line of `xbond show` about a drained slave.
pub fn is_drained(slave: &str, drained: &Drained) -> String {
    let left =
        drained.seconds_left.map(|left| format!(" for another {}", in_words(left))).unwrap_or_default();
    let why = drained.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{slave} is drained{left}{why}")
}

fn in_words(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Returns the line of `xbond show` about a damped slave. `now` is the time of the report.
pub fn is_damped(slave: &str, damping: Option<&Damped>, now: &Moment) -> String {
    let text = format!("{slave} is damped: its link flapped");
    let Some(Damped { penalty, since: Some(since), seconds_left: Some(left) }) = damping else { return text };
    let (since, left) = (in_words(since.until(now).as_secs()), in_words(*left));
    format!("{text}; since {since}, penalty {penalty:.1}; used like the others in {left} if it does not flap")
}

/// The file of drained slaves cannot be read.
pub fn drains_unread(error: &impl Display) -> String {
    format!("{error}; slaves that were drained are used like the others")
}

/// The drain of a slave that is not drained is ended.
pub fn not_drained(slave: &str) -> String {
    format!("{slave}: it was not drained")
}

/// Returns whether the ARP monitor has seen it, of the agent or in the kernel.
pub fn is_arp(seen: Trigger) -> bool {
    matches!(seen, Trigger::ArpMonitor | Trigger::ArpTick)
}

/// The clock stood still, or its pair was gone.
pub const CLOCK_RESTARTED: &str =
    "the clock stood still, or another process had removed its devices; it runs again";

/// The configuration has turned the clock off.
pub const CLOCK_STOPPED: &str = "the clock is off";

/// A target is behind so many VLANs that the tick cannot send its probe.
pub const PROBES_TOO_LONG: &str = "a target of the ARP monitor is behind more than two VLANs: without an agent no target is probed, and no path is judged";

/// Returns the text about a clock that cannot run.
pub fn no_clock(why: &str) -> String {
    format!("no clock runs, so an idle bond fails over and is announced only while an agent runs: {why}")
}

/// Why a clock is off that is not wanted.
pub const AS_CONFIGURED: &str = "as configured";

/// The state of a clock that is not wanted.
pub const CLOCK_OFF: &str = "off: as configured";

/// Returns the text about announcements that the clock's map has no room for, for `show` and the log; None if it has.
pub fn not_for_tick(list: AnnounceList) -> Option<String> {
    let AnnounceList { count, left_out, .. } = list;
    (left_out > 0).then(|| {
        let wanted = count.saturating_add(left_out.into());
        format!(
            "{left_out} of {wanted} announcements are sent only while an agent runs: the clock has room for {count}, IPv4 \
             addresses first, then IPv6 addresses, then MAC addresses"
        )
    })
}

/// Why a part of the data plane is off while no agent runs: only that is known.
pub const LEFT_OFF: &str = "when the last agent ended";

/// The state of a clock of a bond that an earlier version has left.
pub const NO_CLOCK_MAPS: &str = "off: an earlier version of xbond created the bond";

/// Returns what a configuration says of the clock: `off`, or `auto, every 10 ms`. `period` is None for a clock that is off.
pub fn wanted_clock(period: Option<Duration>) -> String {
    period.map_or_else(|| "off".to_owned(), |period| format!("auto, every {} ms", period.as_millis()))
}

/// Returns what slaves need to count as up.
pub fn wanted_watch(watch: Option<Watch>) -> String {
    watch.map_or_else(|| "monitor".to_owned(), |watch| watch.to_string())
}

/// Returns the settings of damping, or `off`.
pub fn wanted_damping(damping: Option<Damping>) -> String {
    damping.map_or_else(|| "off".to_owned(), |damping| damping.to_string())
}

/// Returns the state of a clock: `on, every 10 ms`, `off: as configured` or `stands still for 3 s`. `off` is the reason why it
/// does not run, where that is known; `now` is the time of the machine's CLOCK_MONOTONIC.
pub fn clock(entry: &ClockEntry, ticks: &TickEntry, off: Option<&str>, now: Duration) -> String {
    let period = Duration::from_nanos(entry.period);
    if period.is_zero() {
        return format!("off: {}", off.unwrap_or(LEFT_OFF));
    }
    let silent = now.saturating_sub(Duration::from_nanos(ticks.last));
    if !clock_ticks(entry, ticks, now) {
        let for_long = if ticks.ticks == 0 { String::new() } else { format!(" for {}", in_seconds(silent)) };
        return format!("stands still{for_long}: an idle bond does not fail over without an agent");
    }
    format!("on, every {} ms", period.as_millis())
}

/// Returns whether the last tick of a clock was not too long before `now`.
pub fn clock_ticks(entry: &ClockEntry, ticks: &TickEntry, now: Duration) -> bool {
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    entry.period > 0 && !ticks.has_stopped(now, entry.period)
}

/// Returns the warning about a clock that was started and does not tick.
pub fn clock_stands(bond: &str, state: &str) -> String {
    format!("{bond}: its clock {state}")
}

fn in_seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} s", time.as_secs())
    }
}

/// Returns the text about a file of receipts with foreign content.
pub fn damaged(path: &str, bytes: usize) -> String {
    format!(
        "{path}: {bytes} bytes are no receipts: the file is damaged, or another process has written to it; receipts may be \
         missing"
    )
}
