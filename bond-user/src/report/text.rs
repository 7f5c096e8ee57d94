//! The text of `xbond show`, `xbond log` and `xbond monitor`, in 80 columns.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use bond_core::{
    command::{Chosen, Reason, Seen},
    name::shell_word,
};

use super::{
    event::{BondChange, Event, SlaveChange, What},
    json::{AnswerSource, Bond, Counters, Device, OriginalState, Report, Slave},
    receipt::{Announcement, Announcer, Receipt, Steps},
};
use crate::sys::{conflicts::Conflict, found::Found};

/// How much `xbond show` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// All settings and known values.
    pub details: bool,
    /// The counters of xbond and of the kernel.
    pub statistics: bool,
}

/// Returns the warning about an active slave that receives no unicast, for `show` and the log.
pub fn no_unicast(slave: &str, sent: u64) -> String {
    format!(
        "{slave}: {sent} frames sent, no unicast received since it became active; \
         the port may accept only its own MAC: use fail_over_mac=active"
    )
}

/// The warning about an orphaned bond while an agent runs.
pub const ORPHANED: &str = "another agent left it, and this one does not serve it: nobody moves its MACs, announces, or fails over \
                            by link events; `xbond add` takes it over, `xbond down` takes it down";

/// A part of the data plane or a device that another process has changed.
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

/// Returns the log line for a round of announcements.
pub fn announced(announcement: &Announcement) -> String {
    let Announcement { addresses, macs, failed, by } = *announcement;
    let by = match by {
        Announcer::Agent => "by the agent",
    };
    let of = |number: u32, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {many}")),
    };
    let sent = [of(addresses, "address", "addresses"), of(macs, "MAC address", "MAC addresses")];
    let sent = sent.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    match (sent.is_empty(), failed) {
        (true, 0) => {
            "nothing to announce: no address on the bond or on a VLAN or macvlan above it (bridges above it are not announced)"
                .to_owned()
        }
        (true, failed) => format!("announced nothing: {failed} frames could not be sent"),
        (false, 0) => format!("announced {sent} {by}"),
        (false, failed) => format!("announced {sent} {by}; {failed} frames could not be sent"),
    }
}

/// Returns the log line for changes of ACTIVE without a receipt.
pub fn unrecorded(changes: u32) -> String {
    format!(
        "{changes} changes of ACTIVE have no receipt (event buffer full, or an agent died before it wrote them)"
    )
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
    format!("{bond}: not everything could be put back: {error}; try `xbond down {name} --force`")
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
    format!("{slave}: what it sends comes back to {bond} since {bond} was made a port; it leaves the bond")
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

/// What is said of a slave that is elsewhere when its bond is removed.
pub fn not_here(found: &Found) -> String {
    let Found { name, mac, mtu, .. } = found;
    let (device, allmulti) = (shell_word(name), if found.allmulti { "on" } else { "off" });
    format!(
        "{name}: not in this network namespace, so not restored; if it was moved to another one, it still has what the bond set. \
         To restore it there: ip link set {device} down address {mac} mtu {mtu} allmulticast {allmulti} alias ''"
    )
}

/// Why another slave is active. The link that the ARP monitor judges is the path to its targets: the carrier may be there.
pub fn why(reason: Reason, seen: Seen) -> &'static str {
    match reason {
        Reason::LinkFailed if seen == Seen::ArpMonitor => "the ARP monitor got no answer through it",
        Reason::LinkFailed => "its link failed",
        Reason::CarrierGuard => "a packet found its carrier gone",
        Reason::LinkRecovered if seen == Seen::ArpMonitor => "the ARP monitor gets answers again",
        Reason::LinkRecovered => "a link came back",
        Reason::Left => "it left the bond",
        Reason::Joined => "a slave joined",
        Reason::Requested => "asked for by hand",
        Reason::OptionChanged => "an option changed",
    }
}

fn seen_by(seen: Seen) -> &'static str {
    match seen {
        Seen::LinkEvent => "a link event",
        Seen::Miimon => "miimon",
        Seen::Delay => "the end of updelay or downdelay",
        Seen::ArpMonitor => "the ARP monitor",
        Seen::Request => "a request",
        Seen::SlaveJoined => "a slave that joined",
        Seen::SlaveLeft => "a slave that left",
        Seen::Guard => "the data plane's guard",
    }
}

fn because(chosen: Chosen) -> &'static str {
    match chosen {
        Chosen::Primary => "the primary",
        Chosen::Prio => "the highest prio that is up",
        Chosen::FirstEnslaved => "the first in enslave order that is up",
        Chosen::OnlyOneUp => "the only one that is up",
        Chosen::Better => "faster, as primary_reselect=better asks",
        Chosen::UsedEarly => "used early: nothing was up, it has the least updelay left",
        Chosen::Kept => "kept: nothing was better",
        Chosen::Administrator => "named by hand",
        Chosen::Guard => "the guard's first that was alive",
    }
}

/// Prints the bonds, one after the other.
pub fn show(report: &Report, amount: Amount) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = show_report(&mut text, report, amount);
    text
}

fn show_report(text: &mut String, report: &Report, amount: Amount) -> fmt::Result {
    if report.source == AnswerSource::Maps {
        writeln!(text, "no agent: from the pinned maps")?;
    } else if report.bonds.is_empty() && report.orphaned.is_empty() && report.gone.is_empty() {
        writeln!(text, "no bonds; `xbond add` makes one")?;
    }
    for (number, bond) in report.bonds.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        show_bond(text, bond, report, amount)?;
    }
    report.gone.iter().try_for_each(|sentence| writeln!(text, "! {sentence}"))?;
    report.orphaned.iter().try_for_each(|name| writeln!(text, "! {name}: {ORPHANED}"))?;
    report.missing.iter().try_for_each(|sentence| writeln!(text, "! {sentence}"))?;
    if amount.statistics
        && let Some(softnet) = &report.softnet
    {
        writeln!(
            text,
            "  softnet, all CPUs: dropped {}, time_squeeze {}",
            softnet.dropped, softnet.time_squeeze
        )?;
    }
    if amount.details
        && let Some(agent) = &report.agent
    {
        let age = age(agent.started.until(&report.moment));
        writeln!(
            text,
            "agent {}, pid {}, started {age} ago ({})",
            agent.version, agent.pid, agent.started.time
        )?;
    }
    // Without an agent, the notes concern bonds that cannot be read.
    if amount.statistics || amount.details || report.source == AnswerSource::Maps {
        report.notes.iter().try_for_each(|note| writeln!(text, "! {note}"))?;
    }
    Ok(())
}

/// Options that are shown even with their default values.
const ALWAYS_SHOWN: [&str; 2] = ["fail_over_mac", "miimon"];

fn show_bond(text: &mut String, bond: &Bond, report: &Report, amount: Amount) -> fmt::Result {
    let carrier = if bond.carrier { "up" } else { "DOWN" };
    let active = bond.active_slave.as_deref().unwrap_or("none");
    writeln!(text, "{}: active slave {active}, carrier {carrier}, mac {}", bond.name, bond.mac)?;
    let mut options = format!("datapath={} port={}", bond.datapath, bond.port);
    if amount.details {
        show_details(text, bond)?;
        options = "options".to_owned();
    }
    for (name, value) in &bond.options {
        if amount.details || ALWAYS_SHOWN.contains(&name.as_str()) || !is_default(name, value) {
            write!(options, " {name}={}", plain(value))?;
        }
    }
    wrap(text, "  ", &options)?;
    if !(bond.slaves.is_empty() && bond.absent.is_empty()) {
        row(text, ["SLAVE", "STATE", "MII", "MAC", "FAILED", "TX", "RX"])?;
    }
    for slave in &bond.slaves {
        show_slave(text, slave)?;
    }
    for absent in &bond.absent {
        writeln!(text, "  {absent:<16}absent: it joins when it appears")?;
    }
    // The first active slave of a bond is shown with details only.
    let is_news = |last: &&Receipt| last.from.is_some() || last.reason != Reason::Joined;
    if let Some(last) = bond.last_failover.as_ref().filter(|last| amount.details || is_news(last)) {
        let age = age(last.switched.until(&report.moment));
        wrap_below(text, "  ", "    ", &format!("last failover {age} ago: {}", change(last)))?;
        if amount.details {
            show_receipt(text, "    ", last)?;
        }
    }
    if amount.details {
        bond.slaves.iter().try_for_each(|slave| show_slave_details(text, slave))?;
    }
    if amount.statistics {
        show_statistics(text, bond)?;
    }
    for warning in bond.warnings.iter().chain(bond.slaves.iter().flat_map(|slave| &slave.warnings)) {
        // In one line of any length, as in the log, so that it can be searched for.
        writeln!(text, "  ! {warning}")?;
    }
    Ok(())
}

fn show_slave(text: &mut String, slave: &Slave) -> fmt::Result {
    let failed = slave.link_failure_count.map_or_else(|| "-".to_owned(), |failed| count(failed.into()));
    let [tx, rx] = [slave.counters.tx_packets, slave.counters.rx_packets].map(count);
    row(text, [&slave.name, &slave.state, &slave.mii_status, &slave.mac, &failed, &tx, &rx])
}

/// Prints a row of 80 columns.
fn row(text: &mut String, [name, state, mii, mac, failed, tx, rx]: [&str; 7]) -> fmt::Result {
    writeln!(text, "  {name:<16}{state:<7}{mii:<11}{mac:<18}{failed:>6}{tx:>10}{rx:>10}")
}

fn show_details(text: &mut String, bond: &Bond) -> fmt::Result {
    let unknown = || "unknown".to_owned();
    let bond_ifindex = bond.ifindex.map_or_else(|| "none".to_owned(), |ifindex| ifindex.to_string());
    let mtu = bond.mtu.map_or_else(unknown, |mtu| mtu.to_string());
    let host_mac = bond.host_mac.clone().unwrap_or_else(unknown);
    let on_exit = bond.on_exit.as_deref().map(|on_exit| format!(" on_exit={on_exit}")).unwrap_or_default();
    let port_ifindex = bond.port_ifindex;
    let pair = bond.pair.as_ref().map(|pair| format!(" pair={pair}")).unwrap_or_default();
    let devices = format!(
        "datapath={}{pair} port={} ifindex={bond_ifindex} port_ifindex={port_ifindex} host_mac={host_mac} \
         mtu={mtu}{on_exit}",
        bond.datapath, bond.port
    );
    wrap(text, "  ", &devices)?;
    let draining = bond.draining_slave.as_deref().unwrap_or("none");
    writeln!(text, "  ACTIVE: generation {}, draining {draining}", bond.generation)?;
    wrap(text, "  ", &format!("carrier guard {}", bond.guard))?;
    if let Some(of) = &bond.addresses_of {
        wrap(
            text,
            "  ",
            &format!("has the addresses of {of}, which gets them back when the bond is removed"),
        )?;
    }
    writeln!(text, "  pins {}", bond.pins)?;
    writeln!(text, "  files {}", bond.files)
}

fn show_slave_details(text: &mut String, slave: &Slave) -> fmt::Result {
    let speed = slave.speed.map_or_else(|| "unknown".to_owned(), |speed| format!("{speed}Mb/s"));
    let duplex = slave.duplex.as_deref().unwrap_or("unknown");
    let Slave { ifindex, slot, queue_id, wire_mac, permanent_mac, .. } = slave;
    writeln!(text, "  {}:", slave.name)?;
    let mut details = format!("permanent_mac={permanent_mac} wire_mac={wire_mac}");
    write!(details, " ifindex={ifindex} slot={slot} speed={speed} duplex={duplex}")?;
    if let Some(prio) = slave.prio {
        write!(details, " prio={prio}")?;
    }
    write!(details, " queue_id={queue_id}")?;
    wrap(text, "    ", &details)?;
    match &slave.found {
        Some(found) => show_found(text, found),
        None => writeln!(text, "    found: not recorded"),
    }
}

fn show_found(text: &mut String, found: &OriginalState) -> fmt::Result {
    let up = if found.up { "up" } else { "down" };
    let mut words = format!("found {up}, mac {}, mtu {}", found.mac, found.mtu);
    for (what, list) in
        [("addresses", &found.addresses), ("routes", &found.routes), ("offloads", &found.features)]
    {
        if !list.is_empty() {
            write!(words, "; {what} {}", list.join(", "))?;
        }
    }
    wrap(text, "    ", &words)
}

/// Prints the counters of xbond, then those of the kernel.
fn show_statistics(text: &mut String, bond: &Bond) -> fmt::Result {
    counters_row(
        text,
        "COUNTED",
        ["TX", "TX BYTES", "STAMPED", "RX", "RX BYTES", "REWRITTEN"].map(str::to_owned),
    )?;
    for slave in &bond.slaves {
        let Counters { tx_packets, tx_bytes, tx_stamped, rx_packets, rx_bytes, rx_rewritten, .. } =
            slave.counters;
        let numbers = [tx_packets, tx_bytes, tx_stamped, rx_packets, rx_bytes, rx_rewritten];
        counters_row(text, &slave.name, numbers.map(count))?;
    }
    writeln!(text, "  DROPPED BY XBOND")?;
    let slaves = bond.slaves.iter().map(|slave| (&slave.name, &slave.counters.drops));
    for (name, drops) in slaves.chain([(&bond.port, &bond.drops)]) {
        wrap(text, "  ", &format!("{name:<15} {}", reasons(drops)))?;
    }
    if bond.devices.is_empty() {
        return Ok(());
    }
    let titles = ["RX DROP", "TX DROP", "MISSED", "NOHANDLER", "OTHERHOST", "QDISC"];
    counters_row(text, "DROPPED AROUND", titles.map(str::to_owned))?;
    for device in &bond.devices {
        let Device { rx_dropped, tx_dropped, rx_missed, rx_nohandler, rx_otherhost_dropped, .. } = *device;
        let numbers =
            [rx_dropped, tx_dropped, rx_missed, rx_nohandler, rx_otherhost_dropped, device.qdisc_drops()];
        counters_row(text, &device.name, numbers.map(count))?;
    }
    Ok(())
}

/// Prints a row of 78 columns.
fn counters_row(text: &mut String, name: &str, [a, b, c, d, e, f]: [String; 6]) -> fmt::Result {
    writeln!(text, "  {name:<16}{a:>10}{b:>10}{c:>10}{d:>10}{e:>10}{f:>10}")
}

/// Returns the reasons with a count of dropped packets.
fn reasons(drops: &BTreeMap<String, u64>) -> String {
    let some = drops.iter().filter(|(_, count)| **count > 0);
    let some: Vec<_> = some.map(|(reason, count)| format!("{reason} {count}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

/// Returns the text about a file of receipts with foreign content.
pub fn damaged(path: &str, bytes: usize) -> String {
    format!(
        "{path}: {bytes} bytes are no receipts: the file is damaged, or another process has written to it; receipts may be \
         missing"
    )
}

/// Prints the receipts, the oldest first: a line each, and with `details` all of their fields.
pub fn log(receipts: &[Receipt], details: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = show_log(&mut text, receipts, details);
    text
}

fn show_log(text: &mut String, receipts: &[Receipt], details: bool) -> fmt::Result {
    if receipts.is_empty() {
        return writeln!(text, "no failover yet");
    }
    if !details {
        writeln!(text, "{:<21}{:<16}{:<16}{:>9} WHY", "TIME (UTC)", "FROM", "TO", "SWITCHED")?;
    }
    for receipt in receipts {
        let time = receipt.switched.time.as_str();
        if details {
            wrap_below(text, "", "    ", &format!("{time} {}", change(receipt)))?;
            show_receipt(text, "  ", receipt)?;
            continue;
        }
        let seconds = time.get(..19).unwrap_or(time).replace('T', " ");
        let [from, to] = [&receipt.from, &receipt.to].map(|slave| slave.as_deref().unwrap_or("none"));
        let took = switched_in(receipt);
        writeln!(text, "{seconds:<21}{from:<16}{to:<16}{took:>9} {}", briefly(receipt.reason, receipt.seen))?;
    }
    Ok(())
}

/// Returns how long the agent took, in 9 columns.
fn switched_in(receipt: &Receipt) -> String {
    match receipt.seen {
        Seen::Guard => "in kernel".to_owned(),
        _ => short(receipt.duration()),
    }
}

/// Returns [`why`], in 16 columns.
fn briefly(reason: Reason, seen: Seen) -> &'static str {
    match reason {
        Reason::LinkFailed if seen == Seen::ArpMonitor => "no probe answer",
        Reason::LinkRecovered if seen == Seen::ArpMonitor => "answers again",
        Reason::LinkFailed => "link failed",
        Reason::CarrierGuard => "carrier guard",
        Reason::LinkRecovered => "link came back",
        Reason::Left => "slave left",
        Reason::Joined => "slave joined",
        Reason::Requested => "by hand",
        Reason::OptionChanged => "option changed",
    }
}

/// Returns a sentence without its full stop.
fn change(receipt: &Receipt) -> String {
    let to = receipt.to.as_deref().unwrap_or("none");
    let why = why(receipt.reason, receipt.seen);
    match (&receipt.from, receipt.reason) {
        // It is not known which slave it was.
        (None, Reason::CarrierGuard) => format!("{to}, {why}"),
        (from, _) => format!("{to} instead of {}, {why}", from.as_deref().unwrap_or("none")),
    }
}

fn show_receipt(text: &mut String, indent: &str, receipt: &Receipt) -> fmt::Result {
    let mut seen = format!("seen by {}", seen_by(receipt.seen));
    if let Some(chosen) = receipt.chosen {
        write!(seen, "; chosen: {}", because(chosen))?;
    }
    wrap(text, indent, &seen)?;
    let Steps { detect_us, decide_us, switch_us, heard_us, macs_us, announce_us } = receipt.steps;
    match (receipt.seen, heard_us) {
        (Seen::Guard, Some(heard)) => {
            writeln!(text, "{indent}switched in the kernel; the agent heard +{}", took(heard))?;
        }
        (Seen::Guard, None) => writeln!(text, "{indent}switched in the kernel")?,
        _ => {
            let [detect, decide, switch] = [detect_us, decide_us, switch_us].map(took);
            writeln!(text, "{indent}detect {detect}, decide {decide}, switch {switch}")?;
        }
    }
    let announced = receipt.announced.as_ref().map_or_else(|| "announced".to_owned(), announced);
    let after = [("MACs", macs_us), (&announced, announce_us)];
    let after: Vec<_> =
        after.into_iter().filter_map(|(what, done)| Some(format!("{what} +{}", took(done?)))).collect();
    if !after.is_empty() {
        wrap(text, indent, &format!("after the switch: {}", after.join(", ")))?;
    }
    if receipt.announced.is_some() && announce_us.is_none() {
        wrap(text, indent, &announced)?;
    }
    let dropped = match &receipt.drops {
        None => "not known".to_owned(),
        Some(drops) => reasons(drops),
    };
    wrap(text, indent, &format!("dropped meanwhile: {dropped}; generation {}", receipt.generation))?;
    if receipt.unrecorded > 0 {
        wrap(text, indent, &format!("just before it: {}", unrecorded(receipt.unrecorded)))?;
    }
    Ok(())
}

/// Returns a line of `xbond monitor`.
pub fn event(event: &Event) -> String {
    // To the millisecond: JSON and the log have more.
    let time = event.moment.time.get(..23).unwrap_or(&event.moment.time);
    let bond = event.bond.as_deref().map(|bond| format!("{bond}: ")).unwrap_or_default();
    let up_or_down = |up: bool| if up { "up" } else { "down" };
    let what = match &event.what {
        What::State { active_slave, carrier } => {
            let active = active_slave.as_deref().unwrap_or("none");
            format!("active slave {active}, carrier {}", up_or_down(*carrier))
        }
        What::Failover { receipt } => {
            let [from, to] = [&receipt.from, &receipt.to].map(|slave| slave.as_deref().unwrap_or("none"));
            let why = briefly(receipt.reason, receipt.seen);
            format!("{to} instead of {from}: {why}, {}", switched_in(receipt))
        }
        What::Link { slave, mii_status, delay_ms: None } => format!("{slave}: link {mii_status}"),
        What::Link { slave, mii_status, delay_ms: Some(delay) } => {
            format!("{slave}: link {mii_status} in {delay} ms")
        }
        What::Slave { slave, change: SlaveChange::Joined } => format!("{slave}: joined"),
        What::Slave { slave, change: SlaveChange::Left } => format!("{slave}: left"),
        What::Option { slave: None, option, value } => format!("{option}={value}"),
        What::Option { slave: Some(slave), option, value } => format!("{slave}: {option}={value}"),
        What::Carrier { carrier } => format!("carrier {}", up_or_down(*carrier)),
        What::Bond { change: BondChange::Up } => "up".to_owned(),
        What::Bond { change: BondChange::Down } => "down".to_owned(),
        What::Bond { change: BondChange::Kept } => "kept: it carries packets without an agent".to_owned(),
        What::Warning { text } => format!("! {text}"),
        What::Note { text } => text.clone(),
        What::Lagged { missed } => {
            format!("too slow: {missed} events were missed; see xbond show, and start again")
        }
    };
    format!("{time}Z {bond}{what}")
}

/// Formats a number in at most 9 columns: exactly up to ten million, then in thousands, millions or billions (10^9).
fn count(number: u64) -> String {
    match number {
        0..10_000_000 => number.to_string(),
        10_000_000..1_000_000_000 => format!("{}k", number / 1_000),
        1_000_000_000..1_000_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// Formats a time in at most 8 columns.
fn short(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..10_000 => format!("{us} us"),
        us @ 10_000..10_000_000 => format!("{} ms", us / 1_000),
        us => format!("{} s", us / 1_000_000),
    }
}

/// Formats microseconds.
fn took(us: u64) -> String {
    short(Duration::from_micros(us))
}

/// Returns the two largest units of a time.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn is_default(name: &str, value: &serde_json::Value) -> bool {
    let defaults = serde_json::to_value(bond_core::options::BondOptions::default());
    defaults.is_ok_and(|defaults| defaults.get(name) == Some(value))
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "none".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) if values.is_empty() => "none".to_owned(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Wraps words in lines of at most 80 columns; further lines are indented a little more.
fn wrap(text: &mut String, indent: &str, words: &str) -> fmt::Result {
    wrap_below(text, indent, indent, words)
}

/// Wraps words; lines after the first have another indentation.
fn wrap_below(text: &mut String, first: &str, indent: &str, words: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in words.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > 80 {
            writeln!(text, "{}", line.trim_end())?;
            line = indent.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(text, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    /// Asserts that all lines but warnings fit.
    #[track_caller]
    fn fits(shown: &str) {
        let is_warning = |line: &&str| line.trim_start().starts_with('!');
        let long = shown.lines().filter(|line| !is_warning(line)).find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{shown}");
    }

    #[test]
    fn a_bond_is_shown_in_80_columns() {
        let shown = show(&testing::report(vec![testing::bond()]), Amount::default());
        insta::assert_snapshot!(shown, @r"
        bond0: active slave enp0s9, carrier up, mac 08:00:27:e8:26:58
          datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
          SLAVE           STATE  MII        MAC               FAILED        TX        RX
          enp0s8          backup going down 08:00:27:e8:26:58      1    12345M         7
          enp0s9          active up         08:00:27:e8:26:58      1    12345M         7
          enp0s10         absent: it joins when it appears
          last failover 2 min 1 s ago: enp0s9 instead of enp0s8, its link failed
          ! enp0s9: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
        ");
        fits(&shown);
    }

    #[test]
    fn a_quiet_bond_takes_few_lines() {
        let shown = show(&testing::report(vec![testing::plain_bond()]), Amount::default());
        insta::assert_snapshot!(shown, @r"
        bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
          datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
          SLAVE           STATE  MII        MAC               FAILED        TX        RX
          enp0s8          active up         08:00:27:e8:26:58      1    12345M         7
          enp0s9          backup up         08:00:27:e8:26:58      1    12345M         7
        ");
    }

    #[test]
    fn show_with_details_has_all_values() {
        let amount = Amount { details: true, statistics: false };
        let shown = show(&testing::report(vec![testing::bond()]), amount);
        insta::assert_snapshot!(shown, @r"
        bond0: active slave enp0s9, carrier up, mac 08:00:27:e8:26:58
          datapath=tc pair=netkit port=bond0-port ifindex=7 port_ifindex=6
          host_mac=08:00:27:e8:26:58 mtu=1500 on_exit=keep
          ACTIVE: generation 7, draining enp0s8
          carrier guard off: downdelay delays failovers
          pins /sys/fs/bpf/xbond/4711/bond0
          files /run/xbond/4711/bond0
          options ad_select=stable all_slaves_active=0 arp_all_targets=any
          arp_interval=0 arp_ip_target=none arp_missed_max=2 arp_validate=none
          downdelay=0 fail_over_mac=none lp_interval=1 miimon=100 min_links=0
          mode=active-backup ns_ip6_target=none num_grat_arp=1 peer_notif_delay=0
          primary=none primary_reselect=always resend_igmp=1 updelay=200
          xmit_hash_policy=layer2
          SLAVE           STATE  MII        MAC               FAILED        TX        RX
          enp0s8          backup going down 08:00:27:e8:26:58      1    12345M         7
          enp0s9          active up         08:00:27:e8:26:58      1    12345M         7
          enp0s10         absent: it joins when it appears
          last failover 2 min 1 s ago: enp0s9 instead of enp0s8, its link failed
            seen by a link event; chosen: the only one that is up
            detect 143 us, decide 12 us, switch 2 us
            after the switch: MACs +412 us, announced 2 addresses by the agent +320 us
            dropped meanwhile: backup 3; generation 7
          enp0s8:
            permanent_mac=08:00:27:e8:26:58 wire_mac=08:00:27:e8:26:58 ifindex=3 slot=0
            speed=1000Mb/s duplex=full prio=0 queue_id=0
            found up, mac 08:00:27:e8:26:58, mtu 1500; addresses 192.0.2.8/24,
            2001:db8::8/64; routes default via 192.0.2.1 metric 0; offloads rx-lro on
          enp0s9:
            permanent_mac=08:00:27:e8:26:58 wire_mac=08:00:27:e8:26:58 ifindex=4 slot=1
            speed=unknown duplex=unknown prio=10 queue_id=0
            found: not recorded
          ! enp0s9: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
        agent 0.1.0, pid 815, started 5 min 6 s ago (2026-01-02T03:01:00.678901Z)
        ");
        fits(&shown);
    }

    #[test]
    fn show_with_statistics_has_the_counters() {
        let amount = Amount { details: false, statistics: true };
        let mut report = testing::report(vec![testing::plain_bond()]);
        report.notes.push("the devices' counters are missing: somebody holds RTNL".into());
        let shown = show(&report, amount);
        insta::assert_snapshot!(shown, @r"
        bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
          datapath=tc port=bond0-port fail_over_mac=none miimon=100 updelay=200
          SLAVE           STATE  MII        MAC               FAILED        TX        RX
          enp0s8          active up         08:00:27:e8:26:58      1    12345M         7
          enp0s9          backup up         08:00:27:e8:26:58      1    12345M         7
          COUNTED                 TX  TX BYTES   STAMPED        RX  RX BYTES REWRITTEN
          enp0s8              12345M    18765G         9         7      1234         5
          enp0s9              12345M    18765G         9         7      1234         5
          DROPPED BY XBOND
          enp0s8          backup 37
          enp0s9          backup 37
          bond0-port      no_active_slave 2
          DROPPED AROUND     RX DROP   TX DROP    MISSED NOHANDLER OTHERHOST     QDISC
          bond0                    0         0         0         0         0         6
          bond0-port               0         0         0         0         0         6
          enp0s8                  11        22        33        44        55         6
          softnet, all CPUs: dropped 0, time_squeeze 4
        ! the devices' counters are missing: somebody holds RTNL
        ");
        fits(&shown);
    }

    #[test]
    fn without_an_agent_the_first_line_reports_it() {
        let mut bond = testing::plain_bond();
        bond.options.retain(|key, _| key == "fail_over_mac");
        bond.slaves[1].link_failure_count = None;
        bond.slaves[1].warnings.push("enp0s9: no link now".into());
        let report = Report { source: AnswerSource::Maps, agent: None, ..testing::report(vec![bond]) };
        let shown = show(&report, Amount::default());
        insta::assert_snapshot!(shown, @r"
        no agent: from the pinned maps
        bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
          datapath=tc port=bond0-port fail_over_mac=none
          SLAVE           STATE  MII        MAC               FAILED        TX        RX
          enp0s8          active up         08:00:27:e8:26:58      1    12345M         7
          enp0s9          backup up         08:00:27:e8:26:58      -    12345M         7
          ! enp0s9: no link now
        ");
    }

    fn receipts() -> Vec<Receipt> {
        let first = Receipt {
            switched: testing::moment(1),
            generation: 1,
            from: None,
            to: Some("enp0s8".into()),
            reason: Reason::Joined,
            seen: Seen::SlaveJoined,
            steps: Steps { macs_us: None, ..testing::receipt().steps },
            drops: Some(BTreeMap::new()),
            ..testing::receipt()
        };
        let mut last =
            Receipt { switched: testing::moment(900), to: None, chosen: None, ..testing::receipt() };
        last.steps = Steps { detect_us: 12_345, announce_us: None, ..last.steps };
        last.announced = None;
        let by_guard = Receipt {
            switched: testing::moment(960),
            reason: Reason::CarrierGuard,
            seen: Seen::Guard,
            chosen: Some(Chosen::Guard),
            steps: Steps { heard_us: Some(61_000_000), announce_us: Some(61_000_999), ..Steps::default() },
            drops: None,
            ..testing::receipt()
        };
        vec![first, testing::receipt(), last, by_guard]
    }

    #[test]
    fn a_log_is_a_table() {
        let shown = log(&receipts(), false);
        insta::assert_snapshot!(shown, @r"
        TIME (UTC)           FROM            TO               SWITCHED WHY
        2026-01-02 03:00:01  none            enp0s8             157 us slave joined
        2026-01-02 03:04:05  enp0s8          enp0s9             157 us link failed
        2026-01-02 03:15:00  enp0s8          none                12 ms link failed
        2026-01-02 03:16:00  enp0s8          enp0s9          in kernel carrier guard
        ");
        fits(&shown);
        let mut wide = testing::receipt();
        (wide.from, wide.to) = (Some("abcdefghijklmno".into()), Some("abcdefghijklmno".into()));
        (wide.steps.detect_us, wide.reason) = (9_999_999, Reason::LinkRecovered);
        fits(&log(&[wide], false));
        insta::assert_snapshot!(log(&[], false), @"no failover yet");
    }

    /// The slave may have a carrier, so no line reports a failed link.
    #[test]
    fn a_failover_of_the_arp_monitor_reports_no_answer() {
        let of = |reason| Receipt { reason, seen: Seen::ArpMonitor, ..receipts()[1].clone() };
        let both = [of(Reason::LinkFailed), of(Reason::LinkRecovered)];
        for (details, lines) in [
            (false, ["no probe answer", "answers again"]),
            (true, ["the ARP monitor got no answer", "the ARP monitor gets answers"]),
        ] {
            // The text without its line breaks.
            let shown = log(&both, details).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(lines.iter().all(|line| shown.contains(line)) && !shown.contains("link"), "{shown}");
        }
    }

    #[test]
    fn a_log_with_details_has_the_steps() {
        let shown = log(&receipts(), true);
        insta::assert_snapshot!(shown, @r"
        2026-01-02T03:00:01.678901Z enp0s8 instead of none, a slave joined
          seen by a slave that joined; chosen: the only one that is up
          detect 143 us, decide 12 us, switch 2 us
          after the switch: announced 2 addresses by the agent +320 us
          dropped meanwhile: nothing; generation 1
        2026-01-02T03:04:05.678901Z enp0s9 instead of enp0s8, its link failed
          seen by a link event; chosen: the only one that is up
          detect 143 us, decide 12 us, switch 2 us
          after the switch: MACs +412 us, announced 2 addresses by the agent +320 us
          dropped meanwhile: backup 3; generation 7
        2026-01-02T03:15:00.678901Z none instead of enp0s8, its link failed
          seen by a link event
          detect 12 ms, decide 12 us, switch 2 us
          after the switch: MACs +412 us
          dropped meanwhile: backup 3; generation 7
        2026-01-02T03:16:00.678901Z enp0s9 instead of enp0s8, a packet found its carrier
            gone
          seen by the data plane's guard; chosen: the guard's first that was alive
          switched in the kernel; the agent heard +61 s
          after the switch: announced 2 addresses by the agent +61 s
          dropped meanwhile: not known; generation 7
        ");
        fits(&shown);
    }

    #[test]
    fn events_are_a_line_each() {
        let slave = || "enp0s8".to_owned();
        let events = [
            What::State { active_slave: Some(slave()), carrier: true },
            What::Link { slave: slave(), mii_status: "going down".into(), delay_ms: Some(200) },
            What::Link { slave: slave(), mii_status: "down".into(), delay_ms: None },
            What::Failover { receipt: testing::receipt() },
            What::Carrier { carrier: false },
            What::Slave { slave: slave(), change: SlaveChange::Joined },
            What::Slave { slave: slave(), change: SlaveChange::Left },
            What::Option { slave: None, option: "updelay".into(), value: "200".into() },
            What::Option { slave: Some(slave()), option: "prio".into(), value: "10".into() },
            What::Bond { change: BondChange::Up },
            What::Bond { change: BondChange::Down },
            What::Bond { change: BondChange::Kept },
            What::Warning { text: no_unicast("enp0s8", 312) },
            What::Note { text: "enp0s8: receives unicast now".into() },
            What::Lagged { missed: 7 },
        ];
        let events = events.map(|what| Event {
            version: crate::report::event::VERSION,
            moment: testing::moment(5),
            bond: Some("bond0".into()),
            what,
        });
        let texts: Vec<_> = events.iter().map(event).collect();
        insta::assert_snapshot!(texts.join("\n"), @r"
        2026-01-02T03:00:05.678Z bond0: active slave enp0s8, carrier up
        2026-01-02T03:00:05.678Z bond0: enp0s8: link going down in 200 ms
        2026-01-02T03:00:05.678Z bond0: enp0s8: link down
        2026-01-02T03:00:05.678Z bond0: enp0s9 instead of enp0s8: link failed, 157 us
        2026-01-02T03:00:05.678Z bond0: carrier down
        2026-01-02T03:00:05.678Z bond0: enp0s8: joined
        2026-01-02T03:00:05.678Z bond0: enp0s8: left
        2026-01-02T03:00:05.678Z bond0: updelay=200
        2026-01-02T03:00:05.678Z bond0: enp0s8: prio=10
        2026-01-02T03:00:05.678Z bond0: up
        2026-01-02T03:00:05.678Z bond0: down
        2026-01-02T03:00:05.678Z bond0: kept: it carries packets without an agent
        2026-01-02T03:00:05.678Z bond0: ! enp0s8: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active
        2026-01-02T03:00:05.678Z bond0: enp0s8: receives unicast now
        2026-01-02T03:00:05.678Z bond0: too slow: 7 events were missed; see xbond show, and start again
        ");
        let lines: String = events.iter().map(Event::line).collect();
        insta::assert_snapshot!(lines, @r#"
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"state","active_slave":"enp0s8","carrier":true}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"link","slave":"enp0s8","mii_status":"going down","delay_ms":200}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"link","slave":"enp0s8","mii_status":"down","delay_ms":null}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"failover","receipt":{"version":2,"bond":"bond0","time":"2026-01-02T03:04:05.678901Z","monotonic_us":245678901,"generation":7,"from":"enp0s8","to":"enp0s9","reason":"link_failed","seen":"link_event","chosen":"only_one_up","steps":{"detect_us":143,"decide_us":12,"switch_us":2,"heard_us":null,"macs_us":412,"announce_us":320},"drops":{"backup":3},"announced":{"addresses":2,"macs":0,"failed":0,"by":"agent"}}}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"carrier","carrier":false}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"slave","slave":"enp0s8","change":"joined"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"slave","slave":"enp0s8","change":"left"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"option","slave":null,"option":"updelay","value":"200"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"option","slave":"enp0s8","option":"prio","value":"10"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"bond","change":"up"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"bond","change":"down"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"bond","change":"kept"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"warning","text":"enp0s8: 312 frames sent, no unicast received since it became active; the port may accept only its own MAC: use fail_over_mac=active"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"note","text":"enp0s8: receives unicast now"}
        {"version":2,"time":"2026-01-02T03:00:05.678901Z","monotonic_us":5678901,"bond":"bond0","event":"lagged","missed":7}
        "#);
        for (event, line) in events.iter().zip(lines.lines()) {
            assert_eq!(&serde_json::from_str::<Event>(line).unwrap(), event);
        }
    }

    #[test]
    fn a_round_of_announcements_lists_what_was_sent() {
        let round = |addresses, macs, failed| {
            announced(&Announcement { addresses, macs, failed, by: Announcer::Agent })
        };
        assert_eq!(round(1, 0, 0), "announced 1 address by the agent");
        assert_eq!(
            round(3, 1, 2),
            "announced 3 addresses and 1 MAC address by the agent; 2 frames could not be sent"
        );
        assert_eq!(round(0, 0, 2), "announced nothing: 2 frames could not be sent");
        assert!(round(0, 0, 0).starts_with("nothing to announce: no address"));
    }

    #[test]
    fn faults_are_described_in_sentences() {
        let fault = || PathFault::Detached { device: "enp0s8".into() };
        let failed = Repair::Failed("Device or resource busy".into());
        let texts = [Repair::Done, failed, Repair::None].map(|repair| path_fault(&fault(), &repair));
        insta::assert_snapshot!(texts.join("\n"), @r"
        enp0s8: its BPF program was detached by another process; restored
        enp0s8: its BPF program was detached by another process; it cannot be restored: Device or resource busy
        enp0s8: its BPF program was detached by another process
        ");
    }

    #[test]
    fn ages_have_two_units() {
        let table = [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")];
        for (seconds, expected) in table {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }
}
