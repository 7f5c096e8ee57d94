//! Sentences of the agent's servers: the control socket, metrics, and published files.

use std::{fmt::Display, io};

sentences! {
    /// A change has another query than `wait`.
    bad_query(limit) => "a change takes the query wait=SECONDS, from 0 to {limit}, and no other";
    /// The client has left.
    client_left() => "the client has left before its change began; nothing was changed";
    /// A task of the agent panicked.
    agent_failed(error) => "the agent failed: {error}";
    /// A request is incomplete.
    request_broke_off(why) => "the request broke off: {why}";
    /// A request's body is incomplete.
    body_incomplete(bytes) => "{bytes} bytes of its body came";
    /// A request's body is too long.
    request_too_long(limit) => "the request is longer than the length limit of {limit} bytes";
    /// A request was not complete in time.
    request_too_slow(seconds) => "the request was not complete within {seconds} seconds";
    /// There is no such route.
    no_such_request(method, path, routes) => "{method} {path}: no such request; there are {routes}";
    /// A request has too many bonds or options.
    too_many(found, what, limit) => "the request has {found} {what}, and one request at most {limit}: send several requests";
    /// `xbond confirm` succeeded.
    confirmed() => "confirmed: it stays";
    /// All places for event streams are taken.
    no_more_streams() => "the agent serves no further event streams; try again later";
    /// All places for requests are taken.
    too_busy() => "the agent has as many requests as it serves at once; try again";
    /// What a change is called while it is not finished.
    adding(bonds) => "adding {bonds}";
    /// What a change is called while it is not finished.
    reloading() => "the reload";
    /// What a change is called while it is not finished.
    changing_options(bond) => "{bond}: the change of options";
    /// What a change is called while it is not finished.
    changing_options_of(bond, slave) => "{bond}: {slave}: the change of options";
    /// What a change is called while it is not finished.
    taking_down(bond) => "taking {bond} down";
    /// A takeover.
    taking_over(bond) => "the takeover of {bond}";
    /// The way back of a takeover.
    leading_back(bond) => "leading {bond} back to the driver";
    /// A request to take over has no such bond.
    takeover_other_bond(bond) => "the request does not describe {bond}";
    /// What a change is called while it is not finished.
    enslaving(bond, slave) => "{bond}: enslaving {slave}";
    /// What a change is called while it is not finished.
    releasing(bond, slave) => "{bond}: releasing {slave}";
    /// What a change is called while it is not finished.
    draining(bond, slave) => "{bond}: draining {slave}";
    /// What a change is called while it is not finished.
    undraining(bond, slave) => "{bond}: ending the drain of {slave}";
    /// Counters cannot be read.
    counters_unread(error) => "the devices' counters cannot be read: {error}";
    /// Counters were never read.
    counters_missing() => "the devices' counters are missing: the kernel has not answered yet; another process may hold RTNL";
    /// Counters are old.
    counters_old(seconds) => "the devices' counters are {seconds} s old: the kernel has not answered yet; another process may hold RTNL";
    /// A reload turned the address of metrics off.
    metrics_on_socket_only() => "metrics are served on the control socket only";
    /// A reload changed the address of metrics.
    metrics_served_at(address) => "metrics are served at {address}";
    /// Files cannot be written.
    files_unwritten(key, why) => "{key}: {why}; the agent keeps trying";
    /// A reload changed the directory of files.
    files_written_to(key, path) => "{key}: written to {path}";
    /// A reload turned files off.
    files_not_written(key) => "{key}: not written any more";
    /// Files are written after a failure.
    files_written_again(key) => "{key}: written again";
    /// A file system does not answer.
    file_system_silent(directory, seconds) => "{directory}: the file system has not answered for {seconds} s";
    /// Who may change bonds.
    writers_are(group) => "root and members of group {group} may change bonds";
    /// Who may change bonds.
    only_root_writes() => "only root may change bonds";
    /// The control socket cannot be restored.
    socket_removed(socket, error) => "{socket}: was removed by another process: {error}";
}

/// Why a group of writers does not work: it does not exist.
pub const NO_SUCH_GROUP: &str = "no such group";

/// Why a group of writers does not work: the group of readers does not exist.
pub const NO_GROUP_OF_READERS: &str = "no such group, and writers have to be in it, too, to reach the agent";

/// Returns what to do about an address for metrics that cannot be had.
pub fn remedy_of_address(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        "the service may open no sockets of IP: copy /usr/share/doc/xbond/examples/metrics.conf to \
         /etc/systemd/system/xbond.service.d/, run `systemctl daemon-reload` and restart xbond"
    } else {
        "choose another address or port"
    }
}
