//! The sentences of the agent's log, one line each. Lines about a bond begin with its name, which the log adds.

use std::fmt::Display;

sentences! {
    /// A bond was removed.
    down() => "down, slaves restored";
    /// A bond was removed, and these slaves are elsewhere.
    down_without(absent) => "down, slaves restored; not restored: {absent}";
    /// The agent ends, and `on_exit` is `keep`.
    cannot_be_kept(error) => "it cannot be kept, and is taken down: {error}";
    /// The agent ends, and `on_exit` is `keep`.
    kept_unchecked(error) => "its pins cannot be checked, and it is kept: {error}";
    /// The port vanished.
    deleted_with_namespace(port) => "{port} was deleted with the network namespace that its device was in";
    /// A lost bond runs again.
    recreated() => "recreated";
    /// EVENTS cannot be read.
    events_unread(error) => "what the programs report is not read: {error}";
    /// The programs' log cannot be read.
    program_log_unread(error) => "the log of the programs is not read: {error}";
    /// An adopting agent removed a route of a former configuration.
    route_removed(route) => "route {route}: removed, the configuration does not name it any more";
    /// An adopting agent removed an address of a former configuration.
    address_removed(net) => "address {net}: removed, the configuration does not name it any more";
    /// An agent finds a bond without its port.
    port_gone(port) => "its port {port} is gone, so it carries nothing: what is left of it is removed, and it is created again";
    /// An agent finds a bond that was not restored completely.
    unrestored_first() => "it was removed, but not everything could be restored: the rest is restored first";
    /// An agent finds a bond that is half created.
    unfinished_first() => "an agent ended while it created this bond: what it left is removed first";
    /// found.json of an adopted bond cannot be written.
    record_unchanged(error) => "{error}; the bond is adopted, and its record is unchanged";
    /// The addresses of an adopted bond cannot be read.
    addresses_unread(error) => "its addresses cannot be read yet: {error}";
    /// An adopting agent does not find a slave.
    slave_gone(slave) => "{slave} is gone, or is another interface by now; it is no slave any more";
    /// An adopting agent finds a slot of a half-enslaved interface.
    half_enslaved(ifindex) => "interface {ifindex} was not enslaved completely, and is no slave";
    /// An adopting agent restores a slave.
    set_up_incomplete(slave) => "{slave}: its set-up is incomplete, or it was away since; it is restored";
    /// An adopting agent restores an interface of the record.
    in_no_slot(slave) => "{slave}: is in no slot of the bond, and is restored";
    /// A bond was adopted.
    adopted(slaves) => "adopted, with {slaves}";
    /// An adopted bond has a further slave.
    in_no_file(slave) => "{slave} is a slave that no file names; it stays until `xbond reload` or `xbond del-slave`";
    /// Transmit queues cannot be assigned.
    no_queue_ids(error) => "no slave can have a queue_id: {error}";
    /// The end of a trial cannot be recorded.
    trial_unrecorded(error) => "{error}; an agent after this one may remove the bond some seconds earlier";
    /// A slave of a file cannot be enslaved.
    not_enslaved(error, bond, slave) => "{error}; when that is corrected: xbond add-slave {bond} {slave}";
    /// `xbond add-slave`.
    added(slave) => "{slave}: added by request";
    /// The socket of link events failed.
    no_link_events(error) => "no further link events, so links are polled at miimon only: {error}";
    /// The socket of address events failed.
    no_address_events(error) => "no further events about addresses, so announcements may be out of date: {error}";
    /// All links were to be read again.
    links_unread(error) => "{error}; slaves that appeared or vanished since are not known";
    /// A reload changed nothing.
    nothing_differs() => "reload: nothing differs from the files";
    /// Metrics are served at an address that appears later.
    metrics_without_interface(address) => "metrics: no interface has the address {address} yet";
    /// Metrics are served.
    metrics_at(address) => "metrics at http://{address}/metrics";
    /// A change was completed after its answer.
    finished(what) => "{what} is finished";
    /// A change failed after its answer.
    failed(what, error) => "{what} failed: {error}";
    /// The kernel's types cannot be read.
    netlink_only(error) => "links are known by netlink only, and the data plane does not read them: {error}";
    /// The collection failed.
    not_collected(error) => "directories of ended network namespaces were not removed: {error}";
    /// The abstract socket cannot be served.
    not_found_without_directory(error) => "other agents do not find this one if its run directory is removed: {error}";
    /// A file of the run directory.
    path_restored(path) => "{path}: was removed by another process; restored";
    /// A slave vanished.
    interface_gone(slave) => "{slave}: the interface is gone";
    /// A slave with moved addresses was released.
    addresses_stay(slave) => "the addresses and routes of {slave} stay on the bond; they are restored to it when the bond is removed";
    /// The process has no descriptor for a connection.
    not_accepted(error) => "a connection waits, because it cannot be accepted: {error}; raise ulimit -n or LimitNOFILE= of the unit, or end clients that hold connections";
    /// A former slave returned after its bond was removed.
    returned_late(slave, bond) => "{slave}: returned, and is no slave of {bond} any more; restored";
    /// A former slave returned, and cannot be restored completely.
    unrestored_again(error, tries, left) => "{error} (attempt {tries}; the agent tries again in 5 s); {left}";
    /// A former slave cannot be restored, and the agent has given up.
    unrestored_for_now(error, tries, left) => "{error} (attempt {tries}; the next one follows when an agent starts, or it is enslaved); {left}";
    /// A slave that was away returned, and cannot be restored completely.
    unrestored(slave, error, remedy) => "{slave}: returned, and cannot be restored: {error}; to restore it: {remedy}";
    /// A slave that was away returned, and the agent has given up.
    unrestored_last(slave, error, remedy) => "{slave}: returned, and cannot be restored: {error}; the agent does not try again; to restore it: {remedy}";
    /// A slave that was away returned.
    returned_renamed(former, name) => "{former}: returned, renamed to {name}; restored";
    /// A slave that was away returned.
    returned(slave) => "{slave}: returned; restored";
    /// bpffs was mounted again.
    pins_exist_again() => "its pins exist again";
    /// A MAC change cannot be prepared.
    unprepared_mac_change(error) => "a frame may be lost while its MAC changes: {error}";
    /// bond0 was renamed.
    device_renamed(device, bond) => "its device is called {device} now; xbond, its files and its commands use the name {bond} as before";
    /// A slave's link stays unknown.
    link_unread(slave, error) => "{slave}: its link cannot be read: {error}";
    /// A new slave's surroundings cannot be read.
    conflicts_unread(error, name) => "{error}; other addresses and devices of {name} are not known";
    /// Routes cannot be looked up.
    targets_unprobed(error) => "targets are not probed, and no slave is judged until they are: {error}";
    /// A target of the ARP monitor.
    no_route(target) => "no route to the target {target}, and arp_validate is set";
    /// A target of the ARP monitor.
    route_elsewhere(target) => "the route to the target {target} is not through the bond: it is not probed";
    /// `move_addresses`.
    address_moved(address, slave) => "{address} from {slave}";
    /// `move_addresses`.
    routes_moved(routes, slave) => "{routes} routes from {slave}, those of the kernel included";
    /// EVENTS has an unknown record.
    unknown_event() => "the programs sent an event of another version";
    /// The programs' log ended.
    log_ended(error) => "what the programs report is not read any more: {error}";
}
