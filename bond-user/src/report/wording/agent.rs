//! Sentences of the agent about its bonds: what `xbond run`, `reload` and other changes print, and lines of the log.

use std::fmt::Display;

sentences! {
    /// An agent without bonds is ready.
    ready_without_bonds() => "ready: {NO_BONDS}";
    /// A bond is ready. `missing` begins with a semicolon, or is empty.
    ready(bond, active, carrier, datapath, missing) => "{bond} ready: active slave {active}, carrier {carrier}, datapath {datapath}{missing}";
    /// Slaves that are not enslaved yet, at the end of a sentence.
    not_enslaved_yet(slaves) => "; not enslaved yet: {slaves}";
    /// The option `primary` names an interface that is no slave.
    primary_absent(primary) => "primary={primary}: is no slave yet; it takes over when it is one, and up";
    /// The option `prio` of a slave has no effect.
    prio_idle(slave, primary) => "{slave}: prio: without effect while the primary, {primary}, can be used";
    /// The programs learned a MAC address.
    host_mac_learned(mac) => "the host behind the port has {mac}";
    /// The program that reads devices fails.
    links_by_netlink(error) => "links are read by netlink until then: {error}";
    /// The program that reads devices works again.
    links_without_netlink() => "links are read without netlink again";
    /// The kernel dropped link events.
    events_overrun() => "links changed faster than they could be followed; all of them are read again";
    /// Lines of the log were dropped.
    lines_dropped(count) => "{count} lines of this log were dropped: they came faster than they could be written";
    /// Steps of failovers were dropped.
    steps_dropped(count) => "{count} steps of failovers are in no receipt: they came faster than they could be recorded";
    /// The peers of a failover cannot be written to its receipt.
    receipt_without_peers(file, error) => "a receipt has no peers: {file}: {error}";
    /// A receipt cannot be written, and is dropped.
    receipt_lost(file, error) => "the receipt of a failover is lost: {file}: {error}";
    /// A receipt cannot be written now.
    receipt_later(file, error) => "the receipt of a failover is written later: {file}: {error}";
    /// found.json was removed, and is restored.
    record_restored() => "its found.json was removed by another process; restored";
    /// found.json was removed, and cannot be restored.
    record_removed(error) => "its found.json was removed by another process: {error}";
    /// A map was changed, and is restored.
    map_restored(map) => "BPF map {map} was modified by another process; restored";
    /// The question of `xbond run --confirm` on a terminal.
    press_enter(seconds) => "press Enter within {seconds} s to keep this, or run `xbond confirm`; otherwise everything is undone";
    /// The question of `xbond run --confirm` without a terminal.
    run_confirm(seconds) => "run `xbond confirm` within {seconds} s to keep this; otherwise everything is undone";
    /// A bond's device was deleted. `text` is the sentence about the bond.
    device_deleted(text, port) => "{text} ({port} was deleted)";
    /// How a deleted bond of a file returns.
    recreated_by_reload() => "`xbond reload` recreates it";
    /// How a deleted bond of `xbond add` returns. `word` is its name for a shell.
    recreated_by_add(word) => "`xbond add` recreates it, `xbond down {word}` forgets it";
    /// A slave of a configuration does not exist.
    slave_absent(slave) => "{slave}: absent, joins when it appears";
    /// A slave of a configuration is refused.
    slave_awaited(bond, error) => "{bond}: {error}; until then the bond runs without it";
    /// A reload changed a setting or an option.
    changed(key, after, before) => "{key}={after} (was {before})";
    /// A reload changed a setting.
    set_to(key, value) => "{key}={value}";
    /// A reload added an address.
    address_added(net) => "address {net}: added";
    /// A reload removed an address.
    address_deleted(net) => "address {net}: removed";
    /// A reload added or replaced a route.
    route_set(route) => "route {route}: set";
    /// A reload removed a route.
    route_deleted(route) => "route {route}: removed";
    /// MPLS routes are on a slave whose addresses are to be moved.
    mpls_route(route) => "MPLS route {route}";
    /// Directories of ended namespaces remain.
    no_collection_thread(error) => "directories of ended network namespaces were not removed: cannot start a thread: {error}";
}

/// There is no bond.
pub const NO_BONDS: &str = "no bonds; `xbond add` creates one";

/// Why the addresses of a slave with MPLS routes are not moved.
pub const MPLS_STAYS: &str = "MPLS routes are not moved; delete it, and add it to the bond then";

/// Returns the status of the agent for systemd: the number of bonds that are up, and a sentence about each other one.
pub fn status(bonds: usize, lost: &[String]) -> String {
    let noun = if bonds == 1 { "bond" } else { "bonds" };
    let lost: String = lost.iter().map(|sentence| format!("; {sentence}")).collect();
    format!("{bonds} {noun} up{lost}")
}

/// Why the carrier guard is off: the kernel.
pub const GUARD_WITHOUT_TYPES: &str = "this kernel does not let programs read devices (no BTF, or lockdown)";
/// Why the carrier guard is off: links are not judged.
pub const GUARD_WITHOUT_MIIMON: &str = "miimon is 0";
/// Why the carrier guard is off: a lost link does not count at once.
pub const GUARD_WITH_DOWNDELAY: &str = "downdelay delays failovers";

/// Why the clock does not run: it is being started.
pub const CLOCK_STARTING: &str = "it is being started";

/// What a slave's first transmit queue needs.
pub const FIRST_QUEUE: &str = "XPS of the first transmit queue for every CPU";

/// Returns what a slave's offload feature needs.
pub fn feature_wanted(name: &str, on: bool) -> String {
    format!("{name} {}", if on { "on" } else { "off" })
}

/// Returns what a slave's filter needs.
pub fn unicast_wanted(mac: impl Display) -> String {
    format!("unicast filter {mac}")
}
