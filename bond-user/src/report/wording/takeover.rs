//! Sentences about taking bonds of the kernel's driver over: what speaks against it, its stages, and its end.

use std::fmt::Display;

sentences! {
    /// The bond does not exist, or is another device.
    takeover_no_bond() => "there is no bond of the kernel's driver of this name; `ip link show type bond` lists them";
    /// Another mode.
    takeover_other_mode() => "its mode is not active-backup";
    /// The bond is down.
    takeover_down() => "it is down: set it up first, or use `xbond import kernel` and `xbond run`";
    /// The kernel is too old.
    takeover_no_rename() => "this kernel cannot rename an interface that is up (Linux 6.2 and later can)";
    /// The request has settings that no bond of the driver has.
    takeover_own_settings() => "port and move_addresses do not go with a takeover";
    /// No slave is active.
    takeover_no_active() => "it has no active slave";
    /// One slave only.
    takeover_single() => "it has a single slave, and one has to leave the driver while another one carries the packets; enslave a second one first";
    /// No backup is usable.
    takeover_no_backup_up() => "none of its backups is up";
    /// A device above that is no VLAN.
    takeover_above(upper, kind, name) => "{upper}: a {kind} above {name}, which cannot be put above another device; delete it first";
    /// A device above in another network namespace.
    takeover_elsewhere(upper, kind) => "{upper}: a {kind} in another network namespace lies above it, and cannot be put above another device";
    /// A port of something that is no bridge.
    takeover_port_of(name, kind, master) => "{name}: a port of the {kind} {master}; only ports of bridges are moved";
    /// A bridge with STP.
    takeover_stp(name, bridge) => "{name}: a port of {bridge}, which takes part in STP: a new port would not forward for half a minute";
    /// A bridge with VLAN filtering.
    takeover_vlan_filtering(name, bridge) => "{name}: a port of {bridge}, which filters VLANs (vlan_filtering 1)";
    /// A bridge with isolated ports.
    takeover_isolated(port, bridge) => "{port}: an isolated port of {bridge}, which could not reach the bond during a takeover";
    /// An XDP program.
    takeover_xdp(name) => "{name}: an XDP program is attached to it; detach it first, and attach it again afterwards";
    /// An alternative name.
    takeover_altname(name, altname) => "{name}: its alternative name {altname} would be lost: ip link property del dev {name} altname {altname}";
    /// A qdisc that an administrator has chosen.
    takeover_qdisc(name, kind) => "{name}: its qdisc {kind} would be lost: delete it first, and add it again afterwards";
    /// A filter or chain at a hook.
    takeover_hooked(name, hooked) => "{name}: {hooked} is attached to it and would be lost: delete it first, and add it again afterwards";
    /// Static forwarding entries.
    takeover_static_macs(name) => "{name}: it has static entries in a forwarding table, which would be lost; see `bridge fdb show dev {name}`";
    /// The first stage.
    takeover_releases(slave) => "takeover: {slave} leaves the driver and is tried";
    /// The second stage.
    takeover_prepares(count) => "takeover: xbond's bond is made under another name, with everything that {count} devices of the driver's have";
    /// The third stage.
    takeover_joins(slave) => "takeover: {slave} becomes the active slave of xbond's bond";
    /// The fourth stage.
    takeover_turns() => "takeover: routes and bridge ports change over";
    /// The fifth stage.
    takeover_renames() => "takeover: names are exchanged";
    /// The sixth stage.
    takeover_follows(count) => "takeover: the other slaves follow ({count})";
    /// The last stage.
    takeover_finished(bond) => "{bond}: taken over; the driver's bond is removed. Without a file it is not there after the next boot: see `xbond export`, or --persist";
    /// It waits.
    takeover_on_trial(bond, seconds) => "{bond}: taken over on trial: run `xbond confirm` within {seconds} s to keep it; otherwise it is led back";
    /// A step failed.
    takeover_failed(error) => "the takeover failed, and is led back: {error}";
    /// The time is over.
    takeover_unconfirmed() => "the takeover was not confirmed, and is led back";
    /// An agent ended during a takeover.
    takeover_left() => "another agent ended during a takeover, which is led back";
    /// It is led back.
    takeover_back() => "the driver has the bond again, as before the takeover";
    /// It is not led back.
    takeover_not_back(error) => "the takeover could not be led back: {error}; the next agent tries again";
    /// The driver's devices are made.
    giveback_prepares(count) => "giveback: {count} devices of the driver's are made under other names";
    /// bond0 is in another network namespace.
    giveback_elsewhere() => "its interface is in another network namespace";
    /// A backup has no link.
    proof_no_link() => "it has no link after it left the driver's bond";
    /// A backup hears nothing.
    proof_silent() => "it receives nothing of what the bond sends by its active slave: are both in one network, and their VLANs allowed?";
    /// A program with a packet socket that is bound to the interface.
    takeover_packet_socket(program, pid, name) => "{program} (pid {pid}) has a packet socket on {name}, which it loses: restart it after the takeover";
    /// The same of a program that cannot be found.
    takeover_packet_socket_of_unknown(name) => "a program that cannot be seen here has a packet socket on {name}, which it loses: see `ss -0 -p`";
    /// A program that keeps interfaces by their ifindex.
    takeover_keeper(program, pid, kind, bond) => "{program} (pid {pid}) is a {kind}: if it uses {bond}, restart it after the takeover, because {bond} gets another ifindex";
    /// Multicast groups that programs have joined.
    takeover_groups(name, groups) => "{name}: programs have joined {groups} on it, and have to join again after the takeover";
}
