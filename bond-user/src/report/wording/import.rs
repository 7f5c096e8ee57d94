//! Sentences of `xbond import` about what xbond's bond will not have of the original.

use std::fmt::Display;

sentences! {
    /// A remark, as a comment of the printed file.
    differs(remark) => "Differs: {remark}";
    /// A bond's MAC address depends on which of its slaves exist.
    mac_follows_order(bond, first) => "{bond}: its MAC address is that of the first slave that exists when the bond is created: {first}, if all exist. To get that address in any case: mac = \"{first}\", or mac = an address";
    /// A dialect without directories is imported without paths.
    dialect_needs_path(dialect) => "{dialect} has no directory of its own; name a file or a directory";
    /// None of the dialect's directories exists.
    dialect_not_here(places) => "no directory {places} here; name a file or a directory";
    /// No bond was found.
    nothing_to_import(remarks) => "nothing to import: {remarks}";
    /// The heading of the printed file.
    imported_from(paths, way_out) => "From {paths}. These files would still bring the driver's bond up at boot: {way_out}.";
    /// The driver has no bond of this name.
    no_such_kernel_bond(name) => "{name}: no bond of the kernel's driver in this network namespace; `ip link show type bond` lists them";
    /// The driver has no bond.
    no_kernel_bonds() => "no bond of the kernel's driver in this network namespace";
    /// A bond of another mode.
    other_mode(bond, mode) => "{bond}: mode {mode}: xbond does active-backup only; leave this bond to the kernel's driver";
    /// An option that another one disables.
    idle_option(bond, key, value) => "{bond}: {key}={value} is left out: with the other options it has no effect";
    /// An address of a DHCP client or a router advertisement.
    address_for_a_time(bond, net) => "{bond}: address {net} has a lifetime: a DHCP client or a router advertisement gave it, and has to give it to xbond's {bond} again";
    /// An address with a label.
    label_lost(bond, net, label) => "{bond}: address {net}: its label {label} is lost";
    /// A point-to-point address.
    peer_lost(bond, net, peer) => "{bond}: address {net}: its peer {peer} is lost; add the address by `ip address` instead";
    /// A route of a DHCP client.
    route_of_dhcp(bond, route) => "{bond}: route {route} was added by a DHCP client, which has to add it again";
    /// A route of another table.
    route_of_other_table(bond, route, table) => "{bond}: route {route} is in table {table}, and xbond sets routes of the main table; add it by `ip route` once {bond} is up";
    /// A route with a source address.
    route_source_lost(bond, route, source) => "{bond}: route {route}: its source address {source} is lost; replace the route by `ip route` once {bond} is up";
    /// A device above the bond.
    device_above(upper, kind, bond) => "{upper}: a {kind} above {bond}, which is deleted with it; create it again once xbond's {bond} is up";
    /// The bond is a port of a bridge, for example.
    port_of(bond, master) => "{bond}: a port of {master}; make it a port again once xbond's {bond} is up";
    /// An XDP program is attached to the bond.
    program_on(bond, program) => "{bond}: XDP program id {program} is attached to it; attach it again to xbond's {bond}";
    /// An alternative name of the bond.
    altname_lost(bond, altname) => "{bond}: its alternative name {altname} is lost";
}
