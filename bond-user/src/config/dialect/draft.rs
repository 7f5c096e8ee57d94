//! A bond as a file of another program describes it, before the rules of xbond are applied.
//!
//! All dialects end here, so that the same mistakes have the same findings, each with the line that causes it.

use bond_core::{
    name::BondName,
    options::{self, BondOptions, FailOverMac, Named as _, Setting, SlaveOptions, Unmonitored},
    watch::Watch,
};
use ipnet::IpNet;

use crate::config::{
    BondConfig, BondMac, ConfigError, Destination, Note, Origin, Problem, Route, SlaveConfig,
};

/// Milliseconds; the shortest interval of a link monitor that can only be a mistake of units.
const LONG_INTERVAL: u32 = 10_000;
/// Milliseconds; the shortest delay that is probably a mistake of units.
const LONG_DELAY: u32 = 60_000;

/// The most slaves, targets, addresses and routes that a file may give to one bond: more than the lists of xbond's own files
/// may have together. Readers compare each with the others.
const MOST_ITEMS: usize = 1024;
/// The most findings about one bond.
const MOST_NOTES: usize = 1024;
/// The most bonds of one import.
const MOST_BONDS: usize = 64;

/// A value, and where it is written.
pub(super) type At<T> = (T, Origin);

/// An option of the driver as a file has it.
struct Given {
    key: String,
    value: String,
    /// The key and value in the words of the file.
    text: String,
    origin: Origin,
}

/// A route whose gateway is on the link, whatever addresses there are.
pub(super) struct OnLink {
    pub(super) route: Route,
    pub(super) origin: Origin,
    /// The key that makes it so, in the words of the file.
    pub(super) key: String,
}

/// A bond of a file, in the driver's units.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) origin: Origin,
    options: Vec<Given>,
    /// Slaves, targets, addresses and routes so far, also those that were left out as given twice.
    items: usize,
    pub(super) slaves: Vec<At<SlaveConfig>>,
    pub(super) addresses: Vec<At<IpNet>>,
    pub(super) routes: Vec<At<Route>>,
    /// Routes whose gateway is on the link, whatever addresses there are.
    pub(super) on_link: Vec<OnLink>,
    pub(super) mac: Option<At<BondMac>>,
    pub(super) mtu: Option<At<u32>>,
    /// What a slave needs to count as up.
    pub(super) watch: Option<Watch>,
    pub(super) notes: Vec<Note>,
}

impl Draft {
    pub(super) fn new(name: &str, origin: Origin) -> Self {
        Self {
            name: name.to_owned(),
            origin,
            options: Vec::new(),
            items: 0,
            slaves: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            on_link: Vec::new(),
            mac: None,
            mtu: None,
            watch: None,
            notes: Vec::new(),
        }
    }

    /// Sets an option. A later value replaces an earlier one.
    pub(super) fn set(&mut self, key: &str, value: impl ToString, text: impl ToString, origin: &Origin) {
        self.unset(key);
        self.push(key, value.to_string(), text.to_string(), origin);
    }

    /// Adds a target to an option that is a list of them.
    ///
    /// # Errors
    /// The file gives too much to the bond.
    pub(super) fn target(
        &mut self,
        key: &str,
        target: &str,
        text: impl ToString,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        self.count(origin)?;
        self.push(key, target.to_owned(), text.to_string(), origin);
        Ok(())
    }

    fn push(&mut self, key: &str, value: String, text: String, origin: &Origin) {
        self.options.push(Given { key: key.to_owned(), value, text, origin: origin.clone() });
    }

    /// Adds an address.
    ///
    /// # Errors
    /// The file gives too much to the bond.
    pub(super) fn address(&mut self, address: IpNet, origin: Origin) -> Result<(), ConfigError> {
        self.count(&origin)?;
        self.addresses.push((address, origin));
        Ok(())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// The file gives too much to the bond.
    pub(super) fn route(&mut self, route: Route, origin: Origin) -> Result<(), ConfigError> {
        self.count(&origin)?;
        self.routes.push((route, origin));
        Ok(())
    }

    /// Adds a route whose gateway is on the link by the key `key`.
    ///
    /// # Errors
    /// The file gives too much to the bond.
    pub(super) fn route_on_link(
        &mut self,
        route: Route,
        origin: Origin,
        key: String,
    ) -> Result<(), ConfigError> {
        self.count(&origin)?;
        self.on_link.push(OnLink { route, origin, key });
        Ok(())
    }

    /// Counts a slave, target, address or route of the file, before the reader does anything with it.
    ///
    /// # Errors
    /// It is one too many.
    fn count(&mut self, origin: &Origin) -> Result<(), ConfigError> {
        self.items += 1;
        if self.items <= MOST_ITEMS {
            return Ok(());
        }
        let text = format!(
            "{}: more than {MOST_ITEMS} slaves, targets, addresses and routes, the limit for a bond",
            self.name
        );
        Err(ConfigError::new(origin.clone(), Problem::Unsupported(text)))
    }

    pub(super) fn unset(&mut self, key: &str) {
        self.options.retain(|given| given.key != key);
    }

    /// Returns the value that was set last.
    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|given| given.key == key).map(|given| given.value.as_str())
    }

    /// Notes that networkd gives a bond without this key a MAC address of its own. Under fail_over_mac=active it is the active
    /// slave's, here as there.
    pub(super) fn note_mac_of_networkd(&mut self, key: &str) {
        if self.option("fail_over_mac") == Some(FailOverMac::Active.name()) {
            return;
        }
        let text = format!(
            "{}: no {key}: networkd makes one of the machine's id and the name, and xbond's bond has that of its first \
             slave; to keep the present one, set mac",
            self.name
        );
        let origin = self.origin.clone();
        self.note(&origin, text);
    }

    pub(super) fn note(&mut self, origin: &Origin, text: impl Into<String>) {
        self.notes.push(differs(origin, text));
    }

    /// Counts a slave that a file names. Returns whether it is new; one that is not has a note.
    ///
    /// # Errors
    /// The file gives too much to the bond.
    pub(super) fn is_new_slave(&mut self, name: &str, origin: &Origin) -> Result<bool, ConfigError> {
        self.count(origin)?;
        let Some((_, first)) = self.slaves.iter().find(|(slave, _)| slave.name == *name) else {
            return Ok(true);
        };
        let text = format!("{}: {name} is a slave already, by {first}: named once", self.name);
        self.note(origin, text);
        Ok(false)
    }

    /// Adds a slave, if it is not one already.
    ///
    /// # Errors
    /// The file gives too much to the bond.
    pub(super) fn slave(&mut self, slave: SlaveConfig, origin: Origin) -> Result<(), ConfigError> {
        if self.is_new_slave(&slave.name, &origin)? {
            self.slaves.push((slave, origin));
        }
        Ok(())
    }

    /// Applies xbond's rules.
    ///
    /// `without_mode`: what to write where no mode is given, which is balance-rr in every dialect.
    ///
    /// # Errors
    /// The line and the reason why xbond cannot have this bond.
    pub(super) fn finish(mut self, without_mode: &str) -> Result<BondConfig, ConfigError> {
        let name =
            BondName::new(&self.name).map_err(|error| ConfigError::new(self.origin.clone(), error.into()))?;
        if self.notes.len() > MOST_NOTES {
            let text = format!("{name}: more than {MOST_NOTES} keys that xbond does not apply; remove them");
            return Err(ConfigError::new(self.origin, Problem::Unsupported(text)));
        }
        if self.option("mode").is_none() {
            let text = format!(
                "{name}: no mode, which means balance-rr; xbond does active-backup only: {without_mode}"
            );
            return Err(ConfigError::new(self.origin, Problem::Unsupported(text)));
        }
        for given in &self.options {
            // Parsed only for the line of an error; all are read together below.
            Setting::parse(&given.key, &given.value)
                .map_err(|error| ConfigError::new(given.origin.clone(), error.into()))?;
        }
        self.leave_out_idle_options();
        self.decide_on_link();
        self.leave_out_doubled();

        let mut bond = BondConfig::new(name, self.origin.clone());
        bond.watch = self.watch;
        let pairs = self.options.iter().map(|given| (given.key.as_str(), given.value.as_str()));
        let (options, notes) = BondOptions::from_pairs(pairs, Unmonitored::Allow).map_err(|error| {
            let origin = self.origin_of(error.key());
            ConfigError::new(origin, error.into())
        })?;
        self.note_options(&options, notes);
        self.note_units(&options);
        if !options.is_monitored() {
            bond.allow_unmonitored = Unmonitored::Allow;
            let text = super::unmonitored(&self.name);
            let origin = self.origin_of(Some("miimon"));
            self.note(&origin, text);
        }
        if let Some((_, origin)) = self.mac.take_if(|_| options.fail_over_mac == FailOverMac::Active) {
            let text = format!(
                "{}: its MAC address is left out: under fail_over_mac=active the bond has its active slave's",
                self.name
            );
            self.note(&origin, text);
        }
        self.note_slaves(&options);

        bond.options = options;
        bond.slaves = self.slaves.iter().map(|(slave, _)| slave.clone()).collect();
        bond.addresses = self.addresses.iter().map(|(address, _)| *address).collect();
        bond.routes = self.routes.iter().map(|(route, _)| route.clone()).collect();
        bond.mac = self.mac.as_ref().map(|(mac, _)| mac.clone());
        bond.mtu = self.mtu.as_ref().map(|(mtu, _)| *mtu);
        bond.check().map_err(|problem| self.refuse(problem))?;
        bond.notes = self.notes;
        Ok(bond)
    }

    /// The driver accepts some options that have no effect with the others; a configuration may not have them.
    fn leave_out_idle_options(&mut self) {
        let is_off = |key: &str| matches!(self.option(key).map(str::trim), None | Some("0" | ""));
        let has_targets = ["arp_ip_target", "ns_ip6_target"].iter().any(|key| !is_off(key));
        let (no_miimon, no_arp) = (is_off("miimon"), is_off("arp_interval") || !has_targets);
        let is_idle = |given: &Given| match given.key.as_str() {
            "arp_interval" => given.value.trim() != "0" && !has_targets,
            "arp_ip_target" | "ns_ip6_target" => no_arp,
            "updelay" | "downdelay" | "peer_notif_delay" => no_miimon && given.value.trim() != "0",
            _ => false,
        };
        let (idle, used): (Vec<_>, Vec<_>) = std::mem::take(&mut self.options).into_iter().partition(is_idle);
        self.options = used;
        for Given { key, text, origin, .. } in idle {
            let needs = match key.as_str() {
                "arp_interval" => "targets to probe",
                "arp_ip_target" | "ns_ip6_target" => "an ARP interval",
                _ => "MII monitoring",
            };
            let text = format!("{}: {text} is left out: without {needs} it has no effect", self.name);
            self.note(&origin, text);
        }
    }

    /// Keeps those routes whose gateway is on the link by an address of the bond, too.
    fn decide_on_link(&mut self) {
        for OnLink { route, origin, key } in std::mem::take(&mut self.on_link) {
            let near = route.via.and_then(|via| self.addresses.iter().find(|(net, _)| net.contains(&via)));
            let text = match near {
                Some((address, _)) => {
                    let text = format!(
                        "{}: {key} is redundant: the gateway is in the network of {address}; the route is kept without it",
                        self.name
                    );
                    self.routes.push((route, origin.clone()));
                    text
                }
                None => {
                    format!("{}: a route with {key} is left out: xbond's routes do not have that", self.name)
                }
            };
            self.note(&origin, text);
        }
    }

    fn leave_out_doubled(&mut self) {
        let mut known = std::collections::HashSet::new();
        let doubled: Vec<_> = self.addresses.extract_if(.., |(address, _)| !known.insert(*address)).collect();
        for (address, origin) in doubled {
            let text = format!("{}: address {address} is given twice: set once", self.name);
            self.note(&origin, text);
        }
        let mut known: Vec<Route> = Vec::new();
        for (route, origin) in std::mem::take(&mut self.routes) {
            let route = normal(route);
            if known.contains(&route) {
                self.note(&origin, format!("{}: route to {} is given twice: set once", self.name, route.to));
            } else {
                known.push(route.clone());
                self.routes.push((route, origin));
            }
        }
    }

    fn note_options(&mut self, options: &BondOptions, notes: Vec<options::Note>) {
        for note in notes.into_iter().filter(|note| *note != options::Note::Unmonitored) {
            let key = match &note {
                options::Note::Rounded { key, .. } | options::Note::Unused { key } => Some(*key),
                _ => None,
            };
            let origin = self.origin_of(key);
            let text = match &note {
                options::Note::Rounded { key, from, to, miimon } => format!(
                    "{}: {key}={from} becomes {to}: delays count in whole miimon ({miimon} ms), as in the driver",
                    self.name
                ),
                _ => format!("{}: {note}", self.name),
            };
            self.note(&origin, text);
        }
        if let (Some(primary), None) = (&options.primary, self.named(options.primary.as_deref())) {
            let origin = self.origin_of(Some("primary"));
            self.note(&origin, format!("{}: primary={primary} is not one of its slaves", self.name));
        }
    }

    /// Notes values that are more likely seconds or milliseconds in the wrong place.
    fn note_units(&mut self, options: &BondOptions) {
        let values = [
            ("miimon", options.miimon, LONG_INTERVAL),
            ("arp_interval", options.arp_interval, LONG_INTERVAL),
            ("updelay", options.updelay, LONG_DELAY),
            ("downdelay", options.downdelay, LONG_DELAY),
            ("peer_notif_delay", options.peer_notif_delay, LONG_DELAY),
        ];
        for (key, ms, _) in values.into_iter().filter(|(_, ms, limit)| ms >= limit) {
            let given = self.options.iter().rev().find(|given| given.key == key);
            let written = given.map_or_else(|| format!("{key}={ms}"), |given| given.text.clone());
            let text = format!(
                "{}: {written} is {} s ({key} = {ms}); if a shorter time is meant, check the unit, and change {key}",
                self.name,
                ms / 1000
            );
            let origin = self.origin_of(Some(key));
            self.note(&origin, text);
        }
    }

    fn note_slaves(&mut self, options: &BondOptions) {
        if self.slaves.is_empty() {
            let origin = self.origin.clone();
            self.note(&origin, format!("{}: has no slaves", self.name));
        }
        let of_slaves: Vec<_> = self
            .slaves
            .iter()
            .filter(|(slave, _)| slave.mtu.is_some() && slave.mtu != self.mtu.as_ref().map(|(mtu, _)| *mtu))
            .map(|(slave, origin)| {
                let text = format!(
                    "{}: {}: its own MTU has no effect: a slave takes the bond's",
                    self.name, slave.name
                );
                differs(origin, text)
            })
            .collect();
        self.notes.extend(of_slaves);
        let prefers = |(slave, _): &&At<SlaveConfig>| slave.options.prio != SlaveOptions::default().prio;
        if let (Some(primary), Some((slave, origin))) = (&options.primary, self.slaves.iter().find(prefers)) {
            let text = format!(
                "{}: {}: prio={} has no effect while primary={primary} is up",
                self.name, slave.name, slave.options.prio
            );
            self.notes.push(differs(origin, text));
        }
    }

    fn named(&self, name: Option<&str>) -> Option<&SlaveConfig> {
        self.slaves.iter().map(|(slave, _)| slave).find(|slave| Some(slave.name.as_str()) == name)
    }

    fn origin_of(&self, key: Option<&str>) -> Origin {
        let given = self.options.iter().rev().find(|given| Some(given.key.as_str()) == key);
        given.map_or(&self.origin, |given| &given.origin).clone()
    }

    fn refuse(&self, problem: Problem) -> ConfigError {
        let key = problem.key();
        let first = |origin: Option<&Origin>| origin.cloned().unwrap_or_else(|| self.origin.clone());
        let origin = match key {
            Some("mac") => first(self.mac.as_ref().map(|(_, origin)| origin)),
            Some("mtu") => first(self.mtu.as_ref().map(|(_, origin)| origin)),
            Some("addresses") => first(self.addresses.first().map(|(_, origin)| origin)),
            Some("routes") => first(self.routes.first().map(|(_, origin)| origin)),
            Some("slaves" | "hwaddr") => first(self.slaves.last().map(|(_, origin)| origin)),
            key => self.origin_of(key),
        };
        ConfigError::new(origin, problem)
    }
}

/// Returns a route whose destination is the default one in the model's form: a prefix of length 0 with a gateway is that.
fn normal(route: Route) -> Route {
    match (route.to, route.via) {
        (Destination::Prefix(prefix), Some(via))
            if prefix.prefix_len() == 0 && prefix.addr().is_ipv4() == via.is_ipv4() =>
        {
            Route { to: Destination::Default, ..route }
        }
        (Destination::Prefix(prefix), None) if prefix.prefix_len() == 0 && prefix.addr().is_ipv4() => {
            Route { to: Destination::Default, ..route }
        }
        _ => route,
    }
}

pub(super) fn differs(origin: &Origin, text: impl Into<String>) -> Note {
    Note::Differs { origin: origin.clone(), text: text.into() }
}

/// Checks the number of bonds of an import, before they are read.
///
/// # Errors
/// They are too many; `origin` is that of the file or directory.
pub(super) fn check_number(bonds: usize, origin: impl FnOnce() -> Origin) -> Result<(), ConfigError> {
    if bonds <= MOST_BONDS {
        return Ok(());
    }
    let text = format!("{bonds} bonds; an import takes at most {MOST_BONDS}: name fewer files");
    Err(ConfigError::new(origin(), Problem::Unsupported(text)))
}

/// Puts bonds that were read together. One that xbond cannot have is a note, unless no other remains.
///
/// # Errors
/// There is no bond, or the only ones are refused, or two describe one interface.
pub(super) fn gather(
    bonds: Vec<Result<BondConfig, ConfigError>>,
    notes: Vec<Note>,
    none: impl FnOnce() -> ConfigError,
) -> Result<crate::config::Config, ConfigError> {
    let mut config = crate::config::Config { notes, ..Default::default() };
    let mut first = None;
    for bond in bonds {
        match bond {
            Ok(bond) => {
                let found = crate::config::Config { bonds: vec![bond], ..Default::default() };
                config.merge(found)?;
            }
            Err(error) => {
                config.notes.push(differs(&error.origin, format!("left out: {}", error.problem)));
                first.get_or_insert(error);
            }
        }
    }
    if config.bonds.is_empty() {
        return Err(first.unwrap_or_else(none));
    }
    config.check()?;
    Ok(config)
}
