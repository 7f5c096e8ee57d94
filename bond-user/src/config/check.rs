//! Finds settings of a configuration that are refused, rounded, ignored or overridden, and common mistakes with
//! bonds. Each finding is one sentence with a remedy.

use std::path::{Path, PathBuf};

use bond_core::options::{self, FailOverMac, PrimaryReselect, Unmonitored};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    BondConfig, Config, ConfigError, Datapath, Destination, Known, Lines, Note, Origin, Problem, SlaveConfig,
    ifcfg, toml,
};

/// Milliseconds. Below, seconds may have been meant; above, a link that fails without an event is noticed late.
const USUAL_MIIMON: std::ops::RangeInclusive<u32> = 10..=1000;
/// The highest transmit queue of a bond that a slave can have.
const LAST_QUEUE: u16 = 15;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Correct, but possibly surprising.
    Note,
    /// Accepted, but probably not intended.
    Warning,
    /// Refused.
    Error,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A fact that an administrator should know before the bond runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// A stable identifier.
    pub id: &'static str,
    /// The file, and the line if one causes the finding.
    pub origin: Origin,
    /// The fact, and a remedy.
    pub text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {} [{}]", self.origin, self.severity, self.text, self.id)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (file, line) = match &self.origin {
            Origin::Flags => (None, None),
            Origin::File { path, line } => (Some(path), *line),
        };
        let mut object = serializer.serialize_struct("Finding", 5)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("id", self.id)?;
        object.serialize_field("file", &file)?;
        object.serialize_field("line", &line)?;
        object.serialize_field("text", &self.text)?;
        object.end()
    }
}

/// The known facts about the machine on which the bonds are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// A hypervisor with ports that pass only their own NIC's MAC address by default.
    pub strict_ports: Option<&'static str>,
    /// Chains and filters of other programs at interfaces of this machine.
    pub hooked: Vec<HookedInterface>,
    /// Conflicts on interfaces of this machine.
    pub conflicts: Vec<ConflictOn>,
}

/// A chain or filter at a hook of an interface, which packets of a bond would bypass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookedInterface {
    pub interface: String,
    /// Whether only datapath=xdp bypasses it.
    pub by_xdp_alone: bool,
    /// The text for a bond with this name in place of `{bond}`.
    pub text: String,
}

/// The id of the finding that an address stays on a slave.
pub const ADDRESS_OF_SLAVE: &str = "slave-address";

/// An address or a device on an interface that conflicts with a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictOn {
    pub interface: String,
    /// The id of its finding.
    pub id: &'static str,
    /// The text for a bond with this name in place of `{bond}`.
    pub text: String,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The bonds that could be read.
    pub bonds: Vec<String>,
    /// Their slaves.
    pub slaves: Vec<String>,
    /// The findings, in the order of files and lines.
    pub findings: Vec<Finding>,
}

/// Checks TOML files, directories of them, and directories of ifcfg files, as one configuration.
pub fn check(paths: &[PathBuf], surroundings: &HostFacts) -> Checked {
    let mut read = Read::default();
    for path in paths {
        if ifcfg::is_directory_of_them(path) {
            read.ifcfg(path);
        } else {
            read.toml(path);
        }
    }
    read.finish(surroundings)
}

/// Checks one file's text; `path` is for messages.
pub fn check_text(path: &Path, text: &str, surroundings: &HostFacts) -> Checked {
    let mut read = Read::default();
    read.toml_text(path, text);
    read.finish(surroundings)
}

/// The files that were read; an error in one does not hide errors in others.
#[derive(Default)]
struct Read {
    config: Config,
    known: Known,
    lines: Lines,
    findings: Vec<Finding>,
}

impl Read {
    fn toml(&mut self, path: &Path) {
        let files = match toml::files_of(path) {
            Ok(files) => files,
            Err(error) => return self.refuse(error),
        };
        if files.is_empty() {
            let origin = Origin::File { path: path.to_owned(), line: None };
            return self.refuse(ConfigError::new(origin, Problem::NoFiles));
        }
        for file in files {
            match toml::text_of(&file) {
                Err(error) => self.refuse(error),
                Ok(text) => self.toml_text(&file, &text),
            }
        }
    }

    fn toml_text(&mut self, path: &Path, text: &str) {
        self.lines.add_toml(path, text);
        match toml::parse(path, text) {
            Ok(config) => self.merge(config),
            Err(error) => self.refuse(error),
        }
    }

    fn ifcfg(&mut self, directory: &Path) {
        self.lines.extend(ifcfg::lines(directory));
        // A bond without monitoring is a finding, in addition to the others.
        match ifcfg::read_unchecked(directory, Unmonitored::Allow) {
            Ok(mut config) => {
                for bond in &mut config.bonds {
                    bond.allow_unmonitored = Unmonitored::Refuse;
                    bond.notes.retain(|note| {
                        !matches!(note, Note::Option { note: options::Note::Unmonitored, .. })
                    });
                }
                self.merge(config);
            }
            Err(error) => self.refuse(error),
        }
    }

    fn merge(&mut self, config: Config) {
        if let Err(error) = self.config.merge_with(config, &mut self.known) {
            self.refuse(error);
        }
    }

    fn refuse(&mut self, error: ConfigError) {
        let origin = match error.problem.place() {
            Some((bond, key)) => self.lines.of(bond, None, key).cloned().unwrap_or(error.origin),
            None => error.origin,
        };
        let text = error.problem.to_string();
        self.findings.push(Finding { severity: Severity::Error, id: "refused", origin, text });
    }

    fn finish(mut self, surroundings: &HostFacts) -> Checked {
        let mut refused = false;
        for bond in &std::mem::take(&mut self.config.bonds) {
            if let Err(problem) = bond.check() {
                let origin = problem.key().and_then(|key| self.lines.of(&bond.name, None, key));
                let origin = origin.unwrap_or(&bond.origin).clone();
                self.refuse(ConfigError::new(origin, problem));
                refused = true;
            }
            let mut rules = Rules { bond, lines: &self.lines, findings: &mut self.findings };
            rules.apply(surroundings);
            self.config.bonds.push(bond.clone());
        }
        if !refused && let Err(error) = self.config.check() {
            self.refuse(error);
        }
        for note in &self.config.notes {
            let origin = note.origin().unwrap_or_default();
            let (severity, text) = (Severity::Warning, note.text());
            self.findings.push(Finding { severity, id: "left-out", origin, text });
        }
        self.findings.sort_by(|a, b| position(a).cmp(&position(b)));
        let slaves = self.config.bonds.iter().flat_map(|bond| &bond.slaves);
        let slaves = slaves.map(|slave| slave.name.to_string()).collect();
        let bonds = self.config.bonds.into_iter().map(|bond| bond.name.into()).collect();
        Checked { bonds, slaves, findings: self.findings }
    }
}

fn position(finding: &Finding) -> (Option<&Path>, Option<usize>) {
    match &finding.origin {
        Origin::Flags => (None, None),
        Origin::File { path, line } => (Some(path), *line),
    }
}

/// The rules for one bond.
struct Rules<'a> {
    bond: &'a BondConfig,
    lines: &'a Lines,
    findings: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn apply(&mut self, surroundings: &HostFacts) {
        self.notes_of_options();
        self.miimon();
        self.arp_monitor();
        self.slaves();
        self.election();
        self.bypassed(surroundings);
        self.macs(surroundings);
        self.announcements();
        self.frames();
        self.network();
    }

    fn warn(&mut self, id: &'static str, key: &str, text: impl AsRef<str>) {
        self.find(Severity::Warning, id, None, key, text);
    }

    fn note(&mut self, id: &'static str, key: &str, text: impl AsRef<str>) {
        self.find(Severity::Note, id, None, key, text);
    }

    fn find(
        &mut self,
        severity: Severity,
        id: &'static str,
        slave: Option<&str>,
        key: &str,
        text: impl AsRef<str>,
    ) {
        let origin = self.lines.of(&self.bond.name, slave, key).unwrap_or(&self.bond.origin).clone();
        let of = slave.map(|slave| format!("{slave}: ")).unwrap_or_default();
        let text = format!("{}: {of}{}", self.bond.name, text.as_ref());
        self.findings.push(Finding { severity, id, origin, text });
    }

    fn is_written(&self, key: &str) -> bool {
        self.lines.of(&self.bond.name, None, key).is_some()
    }

    /// Adds the notes that parsing of the options returned.
    fn notes_of_options(&mut self) {
        for note in &self.bond.notes {
            let Note::Option { note, .. } = note else {
                if let Note::MiimonDropped { miimon, arp_interval, .. } = note {
                    let text = format!(
                        "miimon={miimon}: ignored, because arp_interval={arp_interval} is set after it and a \
                         bond has one link monitor; remove the one that is not meant"
                    );
                    self.warn("miimon-ignored", "miimon", text);
                } else if let Some(Origin::File { path, line }) = note.origin() {
                    let (severity, origin) = (Severity::Warning, Origin::File { path, line });
                    self.findings.push(Finding { severity, id: "left-out", origin, text: note.text() });
                }
                continue;
            };
            match note {
                options::Note::Rounded { key, from, to, miimon } => {
                    let becomes = match to {
                        0 => "0: there is no delay at all".to_owned(),
                        _ => format!("{to} ms"),
                    };
                    let text = format!(
                        "{key}={from}: delays count in whole miimon ({miimon} ms), so it becomes {becomes}, as \
                         in the driver; write {} or {}",
                        to,
                        to + miimon
                    );
                    self.warn("rounded", key, text);
                }
                options::Note::Unused { key: "min_links" } => self.warn(
                    "min-links",
                    "min_links",
                    "min_links: without effect in active-backup, where the bond's carrier is up while one slave's \
                     link is; remove it",
                ),
                options::Note::Unused { key } => {
                    let text = format!("{key}: without effect in active-backup; remove it");
                    self.warn("unused", key, text);
                }
                options::Note::Unmonitored => self.warn(
                    "unmonitored",
                    "miimon",
                    "miimon=0, the driver's default: links are not monitored and the bond never fails over; set \
                     miimon = 100 and remove allow_unmonitored",
                ),
                // Only requests to a running bond cause these, never a configuration.
                options::Note::Rescaled { .. }
                | options::Note::TurnedOff { .. }
                | options::Note::NoTargets { .. } => {
                    self.warn("option", "miimon", format!("{note}"));
                }
            }
        }
    }

    fn miimon(&mut self) {
        let options = &self.bond.options;
        let (miimon, downdelay, updelay) = (options.miimon, options.downdelay, options.updelay);
        if miimon == 0 {
            return;
        }
        if self.bond.allow_unmonitored == Unmonitored::Allow {
            let text = "allow_unmonitored: without effect, because the links are monitored; remove it";
            self.warn("allow-unmonitored", "allow_unmonitored", text);
        }
        if miimon < *USUAL_MIIMON.start() {
            let text = format!(
                "miimon={miimon}: milliseconds; if seconds are meant, as by a bare MIIMonitorSec of \
                 systemd-networkd, write {}, and else 10 or more",
                miimon * 1000
            );
            self.warn("miimon-unit", "miimon", text);
        }
        if miimon > *USUAL_MIIMON.end() {
            let text = format!(
                "miimon={miimon}: a link that dies without an event is noticed up to {miimon} ms late, and even \
                 events of NICs that are in no bond come up to a second late; set miimon = 100"
            );
            self.warn("miimon-long", "miimon", text);
        }
        if downdelay > 0 {
            let text = format!(
                "downdelay={downdelay}: for so many ms after its link is gone the dead slave stays active and all \
                 frames are lost, even if another one is up, and the carrier guard is off; leave it out unless links flap"
            );
            self.warn("downdelay", "downdelay", text);
        }
        if updelay > 0 {
            let text = format!(
                "updelay={updelay}: not waited for while the bond has no active slave: the first link that comes \
                 back is used at once; nothing can be set against that"
            );
            self.note("updelay", "updelay", text);
        }
        self.note(
            "path",
            "miimon",
            "miimon: sees links, not paths: a switch that is up and forwards nothing, or a NIC whose carrier lies, \
             keeps its slave active; to find that, use arp_interval and arp_ip_target instead",
        );
    }

    fn arp_monitor(&mut self) {
        let options = &self.bond.options;
        let targets = options.arp_ip_target.len() + options.ns_ip6_target.len();
        let validate = options.arp_validate;
        let validates = self.bond.options.arp_validate.validates_active();
        let all_targets = options.arp_all_targets == options::ArpAllTargets::All;
        if options.arp_interval == 0 {
            for key in ["arp_validate", "arp_all_targets", "arp_missed_max"] {
                if self.is_written(key) {
                    let text = format!(
                        "{key}: accepted without arp_interval, and without effect then; set arp_interval and \
                         arp_ip_target instead of miimon, or remove {key}"
                    );
                    self.warn("arp-idle", key, text);
                }
            }
            return;
        }
        if validate == options::ArpValidate::None {
            self.warn(
                "arp-validate",
                "arp_interval",
                "arp_validate=none: a slave counts as up while it hears anything at all, other hosts' broadcasts \
                 included; set arp_validate = \"all\"",
            );
        }
        if all_targets && !validates {
            self.warn(
                "arp-all-targets",
                "arp_all_targets",
                "arp_all_targets=all: without effect unless answers are validated; set arp_validate = \"all\" or \
                 \"active\"",
            );
        }
        if targets == 1 {
            let key = if options.arp_ip_target.is_empty() { "ns_ip6_target" } else { "arp_ip_target" };
            let text = format!(
                "{key}: there is one target only, and while it is away the bond is down; name a second one"
            );
            self.warn("one-target", key, text);
        }
        if self.bond.addresses.is_empty() {
            return;
        }
        let v4 = options.arp_ip_target.iter().map(|ip| ("arp_ip_target", (*ip).into()));
        let v6 = options.ns_ip6_target.iter().map(|ip| ("ns_ip6_target", (*ip).into()));
        let targets: Vec<(&str, std::net::IpAddr)> = v4.chain(v6).collect();
        for (key, target) in targets {
            let reached = self.bond.addresses.iter().any(|address| address.contains(&target))
                || self.bond.routes.iter().any(|route| match route.to {
                    Destination::Prefix(prefix) => prefix.contains(&target),
                    Destination::Default => {
                        route.via.map_or(target.is_ipv4(), |via| via.is_ipv4() == target.is_ipv4())
                    }
                });
            if !reached {
                let text = format!(
                    "{key}={target}: no address or route of this bond leads there; unless one that is set \
                     elsewhere does, it is asked from 0.0.0.0 or not at all: add a route, or choose a neighbour"
                );
                self.warn("target-path", key, text);
            }
        }
    }

    fn slaves(&mut self) {
        let bond = self.bond;
        match &bond.slaves[..] {
            [] => self.warn("no-slaves", "slaves", "has no slaves; name them in slaves = [...]"),
            [only] => {
                let text = format!(
                    "{} is the only slave, so there is nothing to fail over to; name a second one",
                    only.name
                );
                self.warn("one-slave", "slaves", text);
            }
            _ => {}
        }
        for (place, slave) in bond.slaves.iter().enumerate() {
            let queue_id = slave.options.queue_id;
            if slave.mtu.is_some() {
                let text = "mtu: without effect, because a slave takes the bond's; set mtu of the bond";
                self.find(Severity::Warning, "slave-mtu", Some(&slave.name), "mtu", text);
            }
            if queue_id > 0 && bond.port.is_some() {
                let text = format!(
                    "queue_id={queue_id}: refused, because the queues of a port are not the bond's; remove it"
                );
                self.find(Severity::Error, "queue-id", Some(&slave.name), "queue_id", text);
            } else if queue_id > LAST_QUEUE {
                let text = format!(
                    "queue_id={queue_id}: refused, because the bond has the transmit queues 1 to {LAST_QUEUE}; \
                     choose one of them"
                );
                self.find(Severity::Error, "queue-id", Some(&slave.name), "queue_id", text);
            }
            let earlier = &bond.slaves[..place];
            if let Some(first) =
                earlier.iter().find(|other| queue_id > 0 && other.options.queue_id == queue_id)
            {
                let text = format!(
                    "queue_id={queue_id}: refused, because {} has it, and a queue is one slave's; give each its own",
                    first.name
                );
                self.find(Severity::Error, "queue-id-twice", Some(&slave.name), "queue_id", text);
            }
        }
    }

    fn election(&mut self) {
        let bond = self.bond;
        let options = &bond.options;
        let prio: Vec<_> = bond.slaves.iter().filter(|slave| slave.options.prio != 0).collect();
        if let Some(primary) = &options.primary {
            if !bond.slaves.iter().any(|slave| slave.name == *primary) {
                let text = format!(
                    "primary={primary}: not one of its slaves, so nothing is preferred until an interface of this \
                     name is enslaved; name a slave"
                );
                self.warn("primary", "primary", text);
            }
            for slave in &prio {
                let text = format!(
                    "prio={}: without effect while primary={primary} is set and up; remove one of the two",
                    slave.options.prio
                );
                self.find(Severity::Warning, "prio", Some(&slave.name), "prio", text);
            }
        }
        match options.primary_reselect {
            PrimaryReselect::Better => self.warn(
                "reselect-better",
                "primary_reselect",
                "primary_reselect=better: takes an unknown speed, as of many virtual NICs, for the fastest, as the \
                 driver does; use always or failure unless `ethtool` shows a speed for every slave",
            ),
            PrimaryReselect::Failure if options.primary.is_none() && prio.is_empty() => self.warn(
                "reselect-idle",
                "primary_reselect",
                "primary_reselect: without effect without primary or prio, because a slave that comes back does not \
                 take over anyway; set primary, or remove it",
            ),
            PrimaryReselect::Always | PrimaryReselect::Failure => {}
        }
    }

    fn bypassed(&mut self, surroundings: &HostFacts) {
        let is_xdp = match self.bond.datapath {
            Datapath::Xdp | Datapath::XdpGeneric => true,
            Datapath::Auto => self.bond.port.is_some(),
            Datapath::Tc => false,
        };
        // bond0 takes the addresses of the first slave that has some; those of the others stay.
        let stays = |conflict: &&ConflictOn| conflict.id == ADDRESS_OF_SLAVE;
        let has_some = |slave: &&SlaveConfig| {
            surroundings.conflicts.iter().filter(stays).any(|conflict| conflict.interface == slave.name)
        };
        let giver = self.bond.slaves.iter().filter(|_| self.bond.move_addresses).find(has_some);
        for slave in &self.bond.slaves {
            let of_slave = surroundings.hooked.iter().filter(|hooked| hooked.interface == slave.name);
            for hooked in of_slave.filter(|hooked| is_xdp || !hooked.by_xdp_alone) {
                let text = format!("{}: {}", slave.name, hooked.text.replace("{bond}", &self.bond.name));
                self.warn("bypassed", "slaves", text);
            }
            let of_slave = surroundings.conflicts.iter().filter(|conflict| conflict.interface == slave.name);
            let is_moved = |conflict: &&ConflictOn| stays(conflict) && giver == Some(slave);
            for conflict in of_slave.filter(|conflict| !is_moved(conflict)) {
                let text = format!("{}: {}", slave.name, conflict.text.replace("{bond}", &self.bond.name));
                self.warn(conflict.id, "slaves", text);
            }
        }
    }

    fn macs(&mut self, surroundings: &HostFacts) {
        let policy = self.bond.options.fail_over_mac;
        if policy == FailOverMac::Follow && self.bond.mac.is_some() {
            self.warn(
                "mac-of-follow",
                "mac",
                "mac: under fail_over_mac=follow the driver ignores a MAC that is set, and says that it was; xbond \
                 gives it to the bond: remove it if both are to do the same",
            );
        }
        match (policy, surroundings.strict_ports) {
            (FailOverMac::Active, _) => self.note(
                "mac-changes",
                "fail_over_mac",
                "fail_over_mac=active: the bond's MAC changes at each failover, and one that is set by hand is \
                 ignored by the driver; where the network knows the MAC (DHCP leases, ACLs), use none or follow",
            ),
            (_, Some(hypervisor)) => {
                let text = format!(
                    "fail_over_mac={}: this machine runs under {hypervisor}, whose ports pass only their own NIC's \
                     MAC unless told otherwise: the bond is deaf after its first failover; set fail_over_mac = \
                     \"active\", or allow other MACs there",
                    options::Named::name(policy)
                );
                self.warn("strict-ports", "fail_over_mac", text);
            }
            (FailOverMac::None, None) => self.note(
                "one-mac",
                "fail_over_mac",
                "fail_over_mac=none: all slaves have one MAC; ports that accept only their own NIC's (VirtualBox, \
                 VMware, SR-IOV, port security, clouds) are deaf after a failover: set fail_over_mac = \"active\" \
                 there",
            ),
            (FailOverMac::Follow, None) => self.note(
                "follow",
                "fail_over_mac",
                "fail_over_mac=follow: MACs change places at a failover, so ports must accept both, and a slave that \
                 is released gets back a MAC that another may still wear; release the bond as a whole",
            ),
        }
    }

    fn announcements(&mut self) {
        let options = &self.bond.options;
        let rounds = options.num_grat_arp;
        let key = if self.is_written("num_unsol_na") { "num_unsol_na" } else { "num_grat_arp" };
        if rounds <= 1 && options.peer_notif_delay > 0 {
            let text = format!(
                "peer_notif_delay={}: without effect with {key}={rounds}, because it is the time between two rounds; \
                 set num_grat_arp = 3, or remove it",
                options.peer_notif_delay
            );
            self.warn("peer-notif-delay", "peer_notif_delay", text);
        }
        match rounds {
            0 => {
                let text = format!(
                    "{key}=0: nobody is told of a failover, and neighbours and switches send to the old port until \
                     their tables age; set num_grat_arp = 1 or more"
                );
                self.warn("no-announcement", key, text);
            }
            1 => self.note(
                "one-announcement",
                key,
                "num_grat_arp=1: a failover is announced once, and where that frame is lost neighbours send to the \
                 old port until their tables age; set num_grat_arp = 3 and peer_notif_delay = 1000 where frames get \
                 lost",
            ),
            _ => {}
        }
        if options.resend_igmp == 0 {
            self.warn(
                "no-membership",
                "resend_igmp",
                "resend_igmp=0: after a failover multicast stays away until the next query of a router; remove it",
            );
        }
    }

    fn frames(&mut self) {
        let bond = self.bond;
        if self.is_written("use_carrier") {
            self.warn(
                "use-carrier",
                "use_carrier",
                "use_carrier: gone from the kernel, where only 1 was left of it; remove it",
            );
        }
        if bond.options.all_slaves_active {
            self.warn(
                "all-slaves-active",
                "all_slaves_active",
                "all_slaves_active=1: what backups receive is delivered too, so every broadcast arrives once per \
                 slave, and a bridge above the bond learns its own guests' MACs at the bond, so that the guests \
                 receive nothing more; remove it unless a switch sends each frame to one port only",
            );
        }
        match bond.datapath {
            Datapath::Xdp if bond.port.is_none() => self.warn(
                "xdp-host",
                "datapath",
                "datapath=xdp: for a bond that ends in this host TCP is slower by it, because segmentation and \
                 checksum offload are off; use datapath = \"tc\" unless frames are forwarded by XDP",
            ),
            Datapath::XdpGeneric => self.warn(
                "xdp-generic",
                "datapath",
                "datapath=xdp-generic: slower than tc, and no NIC needs it; use datapath = \"tc\"",
            ),
            _ => {}
        }
    }

    fn network(&mut self) {
        let bond = self.bond;
        for route in &bond.routes {
            let Some(via) = route.via.filter(|_| !bond.addresses.is_empty()) else { continue };
            let link_local = matches!(via, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
            if !link_local && !bond.addresses.iter().any(|address| address.contains(&via)) {
                let text = format!(
                    "route to {} via {via}: in the network of none of the bond's addresses, so the kernel will \
                     refuse it; add an address of that network, or correct the gateway",
                    route.to
                );
                self.warn("gateway", "routes", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Lines 1 to 4; the lines of a row begin at line 5.
    const BOND: &str = "version = 1\n[bond.bond0]\nslaves = [\"a\", \"b\"]\naddresses = [\"192.0.2.1/24\"]\n";
    const NOTHING: HostFacts = HostFacts { strict_ports: None, hooked: Vec::new(), conflicts: Vec::new() };

    /// Returns the findings as `check` prints them, without the name of the file.
    fn said(text: &str, surroundings: &HostFacts) -> Vec<String> {
        let findings = check_text(Path::new("f"), text, surroundings).findings;
        findings.iter().map(|finding| finding.to_string().trim_start_matches("f:").to_owned()).collect()
    }

    #[test]
    fn addresses_that_move_to_bond0_are_no_finding() {
        let conflict = |interface: &str| ConflictOn {
            interface: interface.to_owned(),
            id: ADDRESS_OF_SLAVE,
            text: format!("has an address that stays on {interface}"),
        };
        let facts = HostFacts { conflicts: vec![conflict("a"), conflict("b")], ..NOTHING };
        let of = |settings: &str| {
            let findings = said(&format!("{BOND}miimon=100\n{settings}"), &facts);
            findings.into_iter().filter(|line| line.contains(ADDRESS_OF_SLAVE)).collect::<Vec<_>>()
        };
        assert_eq!(of("").len(), 2, "{:?}", of(""));
        let found = of("move_addresses=true");
        assert!(matches!(&found[..], [of_b] if of_b.contains("stays on b")), "{found:?}");
    }

    /// One row per finding: lines, and the line, the severity, the id and the beginning of the expected text.
    #[test]
    fn every_common_mistake_is_found() {
        let table = [
            // Values that the driver rounds, ignores or overrides.
            (
                "miimon=100\nupdelay=250",
                "6: warning: bond0: updelay=250: delays count in whole miimon (100 ms), so it becomes 200 ms, as in the driver; write 200 or 300 [rounded]",
            ),
            (
                "miimon=100\nupdelay=30",
                "6: warning: bond0: updelay=30: delays count in whole miimon (100 ms), so it becomes 0: there is no delay at all",
            ),
            ("miimon=100\ndowndelay=150", "6: warning: bond0: downdelay=150: delays count"),
            ("miimon=100\npeer_notif_delay=150", "6: warning: bond0: peer_notif_delay=150: delays count"),
            ("miimon=100\nmin_links=2", "6: warning: bond0: min_links: without effect in active-backup"),
            (
                "miimon=100\nxmit_hash_policy='layer2+3'",
                "6: warning: bond0: xmit_hash_policy: without effect in active-backup; remove it [unused]",
            ),
            ("miimon=100\nuse_carrier=1", "6: warning: bond0: use_carrier: gone from the kernel"),
            (
                "miimon=100\narp_validate='all'",
                "6: warning: bond0: arp_validate: accepted without arp_interval",
            ),
            ("miimon=100\narp_all_targets='all'", "6: warning: bond0: arp_all_targets: accepted without"),
            ("miimon=100\narp_missed_max=3", "6: warning: bond0: arp_missed_max: accepted without"),
            ("miimon=100\nprimary='c'", "6: warning: bond0: primary=c: not one of its slaves"),
            (
                "miimon=100\nprimary='a'\n[bond.bond0.slave.b]\nprio=1",
                "8: warning: bond0: b: prio=1: without effect while primary=a",
            ),
            (
                "miimon=100\nprimary_reselect='better'",
                "6: warning: bond0: primary_reselect=better: takes an unknown speed",
            ),
            (
                "miimon=100\nprimary_reselect='failure'",
                "6: warning: bond0: primary_reselect: without effect without primary or prio",
            ),
            (
                "miimon=100\nfail_over_mac='follow'\nmac='02:00:00:00:00:01'",
                "7: warning: bond0: mac: under fail_over_mac=follow the driver ignores",
            ),
            (
                "miimon=100\nfail_over_mac='active'\nmac='02:00:00:00:00:01'",
                "7: error: bond0: mac has no meaning with fail_over_mac=active",
            ),
            (
                "miimon=100\npeer_notif_delay=100",
                "6: warning: bond0: peer_notif_delay=100: without effect with num_grat_arp=1",
            ),
            ("miimon=100\n[bond.bond0.slave.b]\nmtu=1400", "7: warning: bond0: b: mtu: without effect"),
            ("miimon=100\nallow_unmonitored=true", "6: warning: bond0: allow_unmonitored: without effect"),
            // Values that the driver accepts and that are rarely intended.
            (
                "allow_unmonitored=true",
                "2: warning: bond0: miimon=0, the driver's default: links are not monitored and the bond never fails over; set miimon = 100",
            ),
            (
                "miimon=0",
                "5: error: bond0: miimon=0: the kernel accepts this and then never fails over; set miimon=100",
            ),
            (
                "miimon=100\narp_interval=100\narp_ip_target='192.0.2.9'",
                "6: error: bond0: miimon=100 and arp_interval=100: a bond has one link monitor",
            ),
            ("updelay=200", "5: error: bond0: updelay=200: needs miimon"),
            ("arp_interval=100", "5: error: bond0: arp_interval=100: nothing to probe; set arp_ip_target"),
            (
                "miimon=100\narp_ip_target='192.0.2.9'",
                "6: error: bond0: arp_ip_target: never probed while arp_interval is 0",
            ),
            (
                "miimon=100\nnum_grat_arp=2\nnum_unsol_na=3",
                "7: error: bond0: num_grat_arp=2 and num_unsol_na=3: two names of one number; give one",
            ),
            ("miimon=100\nmode='balance-rr'", "6: error: mode=balance-rr: xbond does active-backup (1) only"),
            ("miimon=100\nlacp_rate=1", "6: error: lacp_rate: an option of 802.3ad"),
            (
                "miimon=100\nuse_carrier=0",
                "6: error: use_carrier=0: not a value; allowed: on (1); the kernel has given up the other test of links, so remove it",
            ),
            ("miimon=100\nmimon=1", "6: error: mimon: no such key in bond0; did you mean miimon?"),
            // The units of delays, and the duration of failures.
            (
                "miimon=1",
                "5: warning: bond0: miimon=1: milliseconds; if seconds are meant, as by a bare MIIMonitorSec of systemd-networkd, write 1000, and else 10 or more",
            ),
            (
                "miimon=5000",
                "5: warning: bond0: miimon=5000: a link that dies without an event is noticed up to 5000 ms late",
            ),
            (
                "miimon=100\ndowndelay=200",
                "6: warning: bond0: downdelay=200: for so many ms after its link is gone the dead slave stays active and all frames are lost",
            ),
            (
                "miimon=100\nupdelay=200",
                "6: note: bond0: updelay=200: not waited for while the bond has no active slave",
            ),
            // A link that is up while the path behind it is dead.
            ("miimon=100", "5: note: bond0: miimon: sees links, not paths"),
            (
                "arp_interval=100\narp_ip_target=['192.0.2.8', '192.0.2.9']",
                "5: warning: bond0: arp_validate=none: a slave counts as up while it hears anything at all",
            ),
            (
                "arp_interval=100\narp_validate=3\narp_ip_target='192.0.2.9'",
                "7: warning: bond0: arp_ip_target: there is one target only",
            ),
            (
                "arp_interval=100\narp_validate=3\nns_ip6_target='2001:db8::1'",
                "7: warning: bond0: ns_ip6_target=2001:db8::1: no address or route of this bond leads there",
            ),
            (
                "arp_interval=100\narp_validate=2\narp_all_targets=1\narp_ip_target='192.0.2.9,192.0.2.8'",
                "7: warning: bond0: arp_all_targets=all: without effect unless answers are validated",
            ),
            // Announcements.
            ("miimon=100\nnum_unsol_na=0", "6: warning: bond0: num_unsol_na=0: nobody is told of a failover"),
            (
                "miimon=100\nresend_igmp=0",
                "6: warning: bond0: resend_igmp=0: after a failover multicast stays away",
            ),
            ("miimon=100\nnum_grat_arp=1", "6: note: bond0: num_grat_arp=1: a failover is announced once"),
            // One MAC address on two ports, and MAC addresses that change.
            (
                "miimon=100\nfail_over_mac=0",
                "6: note: bond0: fail_over_mac=none: all slaves have one MAC; ports that accept only their own",
            ),
            (
                "miimon=100\nfail_over_mac=1",
                "6: note: bond0: fail_over_mac=active: the bond's MAC changes at each failover",
            ),
            ("miimon=100\nfail_over_mac=2", "6: note: bond0: fail_over_mac=follow: MACs change places"),
            // Settings that would fail, or be slow, or duplicate frames.
            (
                "miimon=100\n[bond.bond0.slave.b]\nqueue_id=16",
                "7: error: bond0: b: queue_id=16: refused, because the bond has the transmit queues 1 to 15",
            ),
            (
                "miimon=100\n[bond.bond0.slave.a]\nqueue_id=2\n[bond.bond0.slave.b]\nqueue_id=2",
                "9: error: bond0: b: queue_id=2: refused, because a has it",
            ),
            (
                "miimon=100\nall_slaves_active=1",
                "6: warning: bond0: all_slaves_active=1: what backups receive is delivered too, so every broadcast arrives \
                 once per slave, and a bridge above the bond learns its own guests' MACs",
            ),
            (
                "miimon=100\ndatapath='xdp'",
                "6: warning: bond0: datapath=xdp: for a bond that ends in this host TCP is slower",
            ),
            ("miimon=100\ndatapath='xdp-generic'", "6: warning: bond0: datapath=xdp-generic: slower than tc"),
            (
                "miimon=100\nroutes=[{to='default', via='10.0.0.1'}]",
                "6: warning: bond0: route to default via 10.0.0.1: in the network of none of the bond's addresses",
            ),
            (
                "miimon=100\nroutes=[{to='10.0.0.1/8'}]",
                "6: error: route to 10.0.0.1/8: has bits beyond its prefix length; 10.0.0.0/8 is meant",
            ),
            ("miimon=100\nmtu=1", "6: error: mtu = 1: not an MTU"),
            ("miimon=100\nmtu=9000\nport='a'", "4: error: bond0: addresses cannot be set together with port"),
            (
                "miimon=100\n[bond.x]\nslaves=['b', 'c']\nmiimon=100",
                "6: error: b is a slave of bond0 and a slave of x; it can be only one",
            ),
        ];
        for (lines, expected) in table {
            let said = said(&format!("{BOND}{lines}\n"), &NOTHING);
            assert!(
                said.iter().any(|said| said.starts_with(expected)),
                "{lines}: wanted {expected}, got {said:#?}"
            );
        }
    }

    #[test]
    fn notes_depend_on_the_configuration_and_the_host() {
        let bond = |lines: &str| format!("version = 1\n[bond.bond0]\nmiimon=100\n{lines}\n");
        let strict = HostFacts { strict_ports: Some("VirtualBox"), ..NOTHING };
        let table = [
            (
                bond("slaves=[]"),
                NOTHING,
                "4: warning: bond0: has no slaves; name them in slaves = [...] [no-slaves]",
            ),
            (bond("slaves=['a']"), NOTHING, "4: warning: bond0: a is the only slave"),
            (
                bond("slaves=['a','b']\nport='c'\n[bond.bond0.slave.a]\nqueue_id=1"),
                NOTHING,
                "7: error: bond0: a: queue_id=1: refused, because the queues of a port",
            ),
            (
                bond("slaves=['a','b']\naddresses=['2001:db8::1/64']\nmtu=1000"),
                NOTHING,
                "6: error: mtu = 1000: address 2001:db8::1/64 is IPv6, which needs 1280 bytes",
            ),
            (
                bond("slaves=['a','b']"),
                strict.clone(),
                "2: warning: bond0: fail_over_mac=none: this machine runs under VirtualBox",
            ),
            (
                bond("slaves=['a','b']\nfail_over_mac=2"),
                strict,
                "5: warning: bond0: fail_over_mac=follow: this machine runs under VirtualBox",
            ),
            ("version = 1\n[bond.bond0\n".to_owned(), NOTHING, "2: error: "),
            (
                "[bond.bond0]\n".to_owned(),
                NOTHING,
                " error: no version; write version = 1 at the top [refused]",
            ),
        ];
        for (text, surroundings, expected) in table {
            let said = said(&text, &surroundings);
            assert!(
                said.iter().any(|said| said.starts_with(expected)),
                "{text}: wanted {expected}, got {said:#?}"
            );
        }
    }

    /// Each row has its own finding, and none of the others: a correct bond has notes only.
    #[test]
    fn a_correct_bond_has_only_notes() {
        let good = [
            "miimon=100\nfail_over_mac='active'\nnum_grat_arp=3\npeer_notif_delay=1000\nprimary='a'",
            "arp_interval=200\narp_ip_target=['192.0.2.8', '192.0.2.9']\narp_validate='all'\narp_missed_max=3",
            "miimon=100\nroutes=[{to='default', via='192.0.2.254'}]\nprimary='b'\nprimary_reselect='failure'",
        ];
        for lines in good {
            let findings = check_text(Path::new("f"), &format!("{BOND}{lines}\n"), &NOTHING).findings;
            assert!(
                findings.iter().all(|finding| finding.severity == Severity::Note),
                "{lines}: {findings:#?}"
            );
        }
    }

    #[test]
    fn ifcfg_files_are_checked_by_the_same_rules() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            (
                "ifcfg-bond0",
                "DEVICE=bond0\nTYPE=Bond\nDNS1=192.0.2.1\nBONDING_OPTS='mode=1 miimon=100 arp_interval=100 arp_ip_target=192.0.2.9 min_links=1'\n",
            ),
            ("ifcfg-bond1", "DEVICE=bond1\nBONDING_OPTS=mode=1\n"),
            ("ifcfg-bond2", "DEVICE=bond2\nBONDING_OPTS=mode=1\nONBOOT=no\n"),
            ("ifcfg-eth0", "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\nMTU=1400\n"),
            ("ifcfg-eth1", "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n"),
            ("ifcfg-bond0.5", "DEVICE=bond0.5\nVLAN=yes\n"),
        ];
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let findings = check(&[directory.path().to_owned()], &NOTHING).findings;
        let prefix = format!("{}/ifcfg-", directory.path().display());
        let said: Vec<_> = findings.iter().map(|finding| finding.to_string().replace(&prefix, "")).collect();
        let expected = [
            "bond0: warning: DNS1 is not applied by xbond",
            "bond0:4: warning: bond0: miimon=100: ignored, because arp_interval=100 is set after it",
            "bond0:4: warning: bond0: min_links: without effect",
            "bond0:4: warning: bond0: arp_validate=none",
            "bond0:4: warning: bond0: arp_ip_target: there is one target only",
            "bond1: error: miimon=0: the kernel accepts this and then never fails over",
            "bond1: warning: bond1: has no slaves",
            "bond2: warning: ONBOOT=no: bond2 is left out",
            "eth0:4: warning: bond0: eth0: mtu: without effect",
            "bond0.5: warning: bond0.5 is a VLAN on bond0, which xbond does not make",
        ];
        for expected in expected {
            assert!(said.iter().any(|said| said.starts_with(expected)), "wanted {expected}, got {said:#?}");
        }
    }

    /// The example has every key with an effect, and no finding.
    #[test]
    fn the_example_is_complete_and_good() {
        let text = include_str!("../../../packaging/bond0.toml.example");
        let findings = check_text(Path::new("f"), text, &NOTHING).findings;
        assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
        // Options of the driver that have no effect, are aliases, or have one value only.
        let idle = [
            "mode",
            "num_unsol_na",
            "min_links",
            "use_carrier",
            "xmit_hash_policy",
            "ad_select",
            "lp_interval",
        ];
        let request = "active_slave";
        let keys = [&toml::bond_keys(), toml::SLAVE_KEYS, options::SlaveOptions::KEYS].concat();
        for key in keys.iter().filter(|key| ![request, "slave"].contains(key) && !idle.contains(key)) {
            let has = text
                .lines()
                .any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = ")));
            assert!(has, "{key}");
        }
    }

    #[test]
    fn a_missing_or_binary_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("binary");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        let paths = [directory.path().join("none"), binary, directory.path().to_owned()];
        let findings = check(&paths, &NOTHING).findings;
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        assert_eq!((errors, findings.len()), (3, 3), "{findings:#?}");
    }
}
