//! The upper side of a bond: bond0 and its port, or an existing port.

/// What is behind the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// bond0, the other end of the port.
    Pair { bond: u32, port: u32, promisc: bool },
    /// An existing port, and behind it a container, a virtual machine, or a network.
    Port { port: u32, promisc: bool },
}

impl Host {
    /// Returns the ifindex of the lower side.
    pub fn port(&self) -> u32 {
        match *self {
            Self::Pair { port, .. } | Self::Port { port, .. } => port,
        }
    }

    /// Returns the ifindex of the device whose settings are copied to the slaves.
    pub fn device(&self) -> u32 {
        match *self {
            Self::Pair { bond, .. } => bond,
            Self::Port { port, .. } => port,
        }
    }

    /// Whether slaves receive everything for it.
    pub fn promisc(&self) -> bool {
        match *self {
            Self::Pair { promisc, .. } | Self::Port { promisc, .. } => promisc,
        }
    }

    pub fn set_promisc(&mut self, wanted: bool) {
        match self {
            Self::Pair { promisc, .. } | Self::Port { promisc, .. } => *promisc = wanted,
        }
    }
}

/// Bytes of an interface's name, without the final zero (IFNAMSIZ).
const NAME_LENGTH: usize = 15;
/// Far more bonds than one namespace has.
const MAX_NUMBERED: u32 = 1000;

/// The names that a bond's port may have, best first: `bond0-port`, or where that is too long, `xbp` and a
/// number.
pub fn port_names(bond: &str) -> impl Iterator<Item = String> {
    let name = format!("{bond}-port");
    let fits = name.len() <= NAME_LENGTH;
    let numbered = (0..MAX_NUMBERED).filter(move |_| !fits).map(|number| format!("xbp{number}"));
    Some(name).filter(|_| fits).into_iter().chain(numbered)
}

#[cfg(test)]
mod tests {
    use super::port_names;

    #[test]
    fn a_ports_name_fits_an_interface() {
        for (bond, port) in [("bond0", "bond0-port"), ("bond012345", "bond012345-port")] {
            assert_eq!(port_names(bond).collect::<Vec<_>>(), [port]);
        }
        assert!(port_names("bond0123456").take(3).eq(["xbp0", "xbp1", "xbp2"]));
    }
}
