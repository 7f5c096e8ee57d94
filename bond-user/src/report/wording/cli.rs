//! Sentences of the command line: its errors, notes and headings.

use std::fmt::Display;

sentences! {
    /// The file of `xbond add`, or a request, has a key of the agent.
    key_of_agent(origin, key) => "{origin}: {key} is for the files that an agent is started with";
    /// `xbond add` without a description.
    nothing_to_add() => "nothing to add: give files (-c FILE), network scripts (--ifcfg DIR), or --bond; `xbond reload` reads the agent's own files again";
    /// `xbond add --persist` wrote files of network managers.
    managers_read_files() => "network managers read their files when they are reloaded: networkctl reload, nmcli general reload";
    /// A step of a change is not done yet.
    not_yet(pending) => "not yet: {pending}";
    /// The agent lives and gives no answer. `pid`: ` (pid 7)`, or nothing.
    agent_silent(pid) => "the agent{pid} does not answer";
    /// An agent holds the lock and has no socket.
    agent_absent(pid) => "an agent is starting{pid}, or ending";
    /// An answer cannot be parsed.
    other_version() => "the agent's answer is of another version";
    /// The socket cannot be opened.
    socket_denied(socket) => "{socket}: only root and members of group xbond, if there is one, may connect to the agent; run it with sudo";
    /// The socket cannot be connected to.
    agent_unreachable(socket, error) => "cannot connect to the agent at {socket}: {error}";
    /// An answer without a sentence.
    answered_with(status) => "the agent answered with HTTP status {status}";
    /// `xbond down` without an agent.
    down_needs_force(bond, word) => "no agent runs in this network namespace; to take {bond} down without one: xbond down {word} --force";
    /// A directory cannot be created.
    no_directory_possible(path) => "{path}: not a directory, and none can be created there";
    /// A file cannot be created or written.
    cannot_write(path) => "{path}: cannot be written";
    /// A bond is unknown.
    no_such_bond(bond) => "{bond}: no such bond; `xbond show` lists them";
    /// A bond is unknown, and no agent answers.
    no_such_bond_here(bond) => "{bond}: no such bond in this network namespace; `xbond show` lists them";
    /// `xbond export` of a bond that ends in a port.
    port_not_exported(bond) => "{bond}: ends in an existing port, which bonds of other programs do not; export its file instead";
    /// The interface of a bond vanished while it was read.
    bond_interface_gone(bond) => "{bond}: its interface is gone";
    /// Receipts that are read without the agent.
    from_file_of_receipts(why) => "{why}: from the file of receipts";
    /// The maps of a bond cannot be read.
    maps_unread(bond) => "{bond}: its maps cannot be read: whether it failed over since its agent ended is not known";
    /// `xbond man` of an unknown verb.
    no_such_verb(verb, verbs) => "{verb}: xbond has no such verb; there are: {verbs}";
    /// The manual page's section about keys.
    keys_of_bond() => "In a configuration, and after -o. The first are xbond's, the others the bonding driver's.";
    /// `xbond monitor` did not read fast enough.
    events_lost() => "events came faster than they were read here, and some were lost; start again";
    /// The agent ended while `xbond monitor` ran.
    agent_ended() => "the agent has ended; bonds that it kept run without it: see xbond show";
    /// `xbond add --persist` would overwrite a file.
    file_exists(path) => "{path} exists; nothing was changed. Remove it, or leave --persist out";
    /// `--allow-unmonitored` without a description of a bond.
    unmonitored_without_bond(directory) => "--allow-unmonitored is for flags and --ifcfg; a file in {directory} has a key for it";
    /// `xbond show --all-netns` found nothing.
    nothing_anywhere() => "no network namespace that can be reached from here has bonds or an agent";
    /// `xbond show --proc` without an agent.
    proc_needs_agent(why) => "--proc shows options, which only an agent knows, and {why}; leave --proc out";
    /// No agent runs, as a part of a sentence.
    none_runs() => "none runs";
    /// The heading of a network namespace with a name.
    namespace_named(name) => "network namespace {name}";
    /// The heading of the command's network namespace.
    namespace_current() => "this network namespace";
    /// The heading of a network namespace without a name.
    namespace_nameless(cookie) => "network namespace without a name, cookie {cookie}";
    /// Nothing of a network namespace could be read.
    namespace_unread() => "it could not be read";
    /// A thread of the command panicked.
    thread_failed() => "a thread of this command failed";
    /// Files of `ip netns` that are no network namespaces.
    stale_namespaces(names) => "left out, because these are no network namespaces: {names}";
    /// `xbond top` without a terminal.
    no_terminal() => "standard input and output are no terminal; `xbond top --once` prints one frame";
    /// `xbond top` cannot set up the terminal.
    terminal_unusable() => "cannot set up the terminal";
    /// The agent of `xbond top` stopped answering.
    silent_for(seconds) => "the agent has not answered for {seconds} s";
    /// A thread of `xbond doctor` cannot be started.
    no_thread(error) => "cannot start a thread: {error}";
    /// An argument is no address of a network.
    not_a_network() => "not an IP address with the length of its prefix, as 192.0.2.1/24";
    /// An argument is no number of seconds.
    not_seconds(least, most) => "not a number of seconds from {least} to {most}";
    /// An argument is no word of a list.
    not_one_of(words) => "not one of {words}";
    /// An argument is no time.
    not_a_time(text) => "{text}: not a time from 1s to 100 years, such as 10m or 1h30m";
    /// An argument is a relative path.
    not_absolute() => "not an absolute path";
    /// An argument is no pair.
    not_key_and_value(text) => "{text}: not KEY=VALUE";
    /// An attempt of `xbond doctor` panicked.
    attempt_failed() => "the attempt failed";
}
