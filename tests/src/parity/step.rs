//! The steps of a scenario, as text.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error, Result, bail};

/// One step. Its text is what a scenario has after `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `bond KEY=VALUE... : SLAVE...`: a bond, its slaves enslaved in order, set up.
    Bond { options: Vec<(String, String)>, slaves: Vec<Slave> },
    /// `remove`: removes the bond.
    Remove,
    /// `enslave SLAVE`.
    Enslave(String),
    /// `release SLAVE`.
    Release(String),
    /// `set KEY=VALUE`.
    Set { key: String, value: String },
    /// `prio SLAVE NUMBER` or `queue_id SLAVE NUMBER`.
    SlaveOption { key: SlaveKey, slave: String, value: String },
    /// `frames SLAVE`: the switch sends a frame of each kind to the slave; the record lists which of them the packet
    /// sockets of the slave and of the bond receive.
    Frames(String),
    /// `proc`: records /proc/net/bonding/BOND without the version in its first line.
    Proc,
    /// `get KEY`: records the option's value.
    Get { key: String },
    /// `promiscuous`: records which devices are promiscuous.
    Promiscuous,
    /// `address ADDRESS/PREFIX`: adds an address to the bond.
    Address(String),
    /// `group ADDRESS`: the host joins this IPv4 multicast group on the bond.
    Group(String),
    /// `peer ADDRESS/PREFIX off` removes this address from the peer; `on` adds it.
    Peer { address: String, state: Switched },
    /// `vlan ID ADDRESS/PREFIX`: a VLAN device above the bond.
    Vlan { id: u16, address: String },
    /// `macvlan LOWER MAC ADDRESS/PREFIX`: a macvlan above the bond or a VLAN above it.
    Macvlan { lower: String, mac: String, address: String },
    /// `carrier SLAVE off` removes the carrier, `admin SLAVE off` sets the slave down, `path SLAVE off` makes the
    /// switch drop its frames in both directions.
    Link { slave: String, link: LinkPart, state: Switched },
    /// `device ARGUMENTS`: arguments of `ip link set`.
    Device { arguments: String },
}

/// `slave0`, or `slave0/prio=5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slave {
    pub name: String,
    pub prio: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveKey {
    Prio,
    QueueId,
}

impl SlaveKey {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prio => "prio",
            Self::QueueId => "queue_id",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPart {
    Carrier,
    Admin,
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    On,
    Off,
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let step = match verb {
            "bond" => {
                // Not any colon: values may contain some.
                let apart = rest.strip_prefix(": ").map(|slaves| ("", slaves));
                let apart = apart.or_else(|| rest.split_once(" : "));
                let apart = apart.or_else(|| rest.strip_suffix(" :").map(|options| (options, "")));
                let (options, slaves) = apart.context("no ` : ` before the slaves")?;
                let options = options.split_whitespace().map(pair).collect::<Result<_>>()?;
                let slaves = slaves.split_whitespace().map(str::parse).collect::<Result<_>>()?;
                Self::Bond { options, slaves }
            }
            "remove" => Self::Remove,
            "enslave" => Self::Enslave(rest.to_owned()),
            "release" => Self::Release(rest.to_owned()),
            "prio" | "queue_id" => {
                let key = if verb == "prio" { SlaveKey::Prio } else { SlaveKey::QueueId };
                let (slave, value) = rest.split_once(' ').context("no number after the slave")?;
                Self::SlaveOption { key, slave: slave.to_owned(), value: value.to_owned() }
            }
            "frames" => Self::Frames(rest.to_owned()),
            "proc" => Self::Proc,
            "set" => {
                let (key, value) = pair(rest)?;
                Self::Set { key, value }
            }
            "get" => Self::Get { key: rest.to_owned() },
            "promiscuous" => Self::Promiscuous,
            "address" => Self::Address(rest.to_owned()),
            "group" => Self::Group(rest.to_owned()),
            "peer" => {
                let (address, state) = rest.split_once(' ').context("neither on nor off")?;
                Self::Peer { address: address.to_owned(), state: state.parse()? }
            }
            "vlan" => {
                let (id, address) = rest.split_once(' ').context("no address after the VLAN's ID")?;
                Self::Vlan { id: id.parse().context("the VLAN's ID")?, address: address.to_owned() }
            }
            "macvlan" => {
                let words: Vec<_> = rest.split(' ').map(str::to_owned).collect();
                let words = <[String; 3]>::try_from(words);
                let [lower, mac, address] =
                    words.ok().context("neither more nor less than a device, a MAC and an address")?;
                Self::Macvlan { lower, mac, address }
            }
            "carrier" | "admin" | "path" => {
                let (slave, state) = rest.split_once(' ').context("neither on nor off")?;
                let link = match verb {
                    "carrier" => LinkPart::Carrier,
                    "admin" => LinkPart::Admin,
                    _ => LinkPart::Path,
                };
                Self::Link { slave: slave.to_owned(), link, state: state.parse()? }
            }
            "device" => Self::Device { arguments: rest.to_owned() },
            _ => bail!("`{verb}` is no step"),
        };
        Ok(step)
    }
}

impl FromStr for Slave {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, option)) = text.split_once('/') else {
            return Ok(Self { name: text.to_owned(), prio: None });
        };
        let prio = option.strip_prefix("prio=").with_context(|| format!("`{option}` is not prio=NUMBER"))?;
        Ok(Self { name: name.to_owned(), prio: Some(prio.parse().context("prio")?) })
    }
}

impl fmt::Display for Slave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.prio.map_or(Ok(()), |prio| write!(f, "/prio={prio}"))
    }
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl FromStr for Switched {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => bail!("`{text}` is neither on nor off"),
        }
    }
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

impl Step {
    /// Returns whether this happens to the bond from outside: no agent is asked for anything.
    pub fn is_from_outside(&self) -> bool {
        matches!(self, Self::Peer { .. } | Self::Link { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bond { options, slaves } => {
                f.write_str("bond")?;
                options.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
                f.write_str(" :")?;
                slaves.iter().try_for_each(|slave| write!(f, " {slave}"))
            }
            Self::Remove => f.write_str("remove"),
            Self::Enslave(slave) => write!(f, "enslave {slave}"),
            Self::Release(slave) => write!(f, "release {slave}"),
            Self::SlaveOption { key, slave, value } => write!(f, "{} {slave} {value}", key.name()),
            Self::Frames(slave) => write!(f, "frames {slave}"),
            Self::Proc => f.write_str("proc"),
            Self::Set { key, value } => write!(f, "set {key}={value}"),
            Self::Get { key } => write!(f, "get {key}"),
            Self::Promiscuous => f.write_str("promiscuous"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Group(address) => write!(f, "group {address}"),
            Self::Peer { address, state } => write!(f, "peer {address} {state}"),
            Self::Vlan { id, address } => write!(f, "vlan {id} {address}"),
            Self::Macvlan { lower, mac, address } => write!(f, "macvlan {lower} {mac} {address}"),
            Self::Link { slave, link, state } => {
                let link = match link {
                    LinkPart::Carrier => "carrier",
                    LinkPart::Admin => "admin",
                    LinkPart::Path => "path",
                };
                write!(f, "{link} {slave} {state}")
            }
            Self::Device { arguments } => write!(f, "device {arguments}"),
        }
    }
}
