//! Interfaces as `ip link` shows them.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    Mac,
    netns::{self, NetNs},
};

/// An interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Link {
    pub ifindex: u32,
    #[serde(rename = "ifname")]
    pub name: String,
    #[serde(rename = "address", default, deserialize_with = "mac")]
    pub mac: Mac,
    /// As `ip` prints them, without IFF_: UP, LOWER_UP, NO-CARRIER, ALLMULTI, PROMISC, ...
    pub flags: Vec<String>,
    pub operstate: String,
    /// Bytes.
    pub mtu: u32,
    /// Name of the bond, bridge or other device that holds the interface.
    #[serde(default)]
    pub master: Option<String>,
}

impl Link {
    /// Administratively up.
    pub fn is_up(&self) -> bool {
        self.has("UP")
    }

    /// Up and with carrier.
    pub fn has_carrier(&self) -> bool {
        self.has("LOWER_UP")
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag)
    }
}

impl NetNs {
    /// Returns the interfaces of the namespace.
    ///
    /// # Errors
    /// `ip` fails, or prints something else than expected.
    pub fn links(&self) -> Result<Vec<Link>> {
        parse(&self.ip("-json link show")?)
    }

    /// Returns the interface of this name.
    ///
    /// # Errors
    /// There is none, or `ip` fails.
    pub fn link(&self, name: &str) -> Result<Link> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.with_context(|| format!("no interface {name} in {}", self.name()))
    }
}

/// Returns whether this kernel has devices of this kind, which may be followed by arguments that it needs: `vlan id 5`.
///
/// # Errors
/// The namespace for the attempt cannot be created.
pub fn is_there(kind: &str) -> Result<bool> {
    let netns = NetNs::create(&format!("{}-kind", netns::unique_stem()))?;
    if netns.ip(&format!("link add probe type {kind}")).is_ok() {
        return Ok(true);
    }
    // Some lie above another device.
    netns.ip("link add below type veth peer name other")?;
    Ok(netns.ip(&format!("link add link below name probe type {kind}")).is_ok())
}

fn parse(json: &str) -> Result<Vec<Link>> {
    serde_json::from_str(json).context("cannot read the output of `ip -json link show`")
}

/// Devices without Ethernet have addresses of other lengths.
fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.split(':').count() == 6 { text.parse().map_err(D::Error::custom) } else { Ok(Mac::ZERO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_ip_is_read() {
        let json = r#"[{"ifindex":7,"link_index":6,"ifname":"enp0s8","flags":["NO-CARRIER","BROADCAST","UP"],
            "mtu":1500,"qdisc":"noqueue","operstate":"DOWN","address":"08:00:27:e8:26:58",
            "link_netnsid":0},
            {"ifindex":2,"ifname":"sit0","flags":["NOARP"],"mtu":1480,"operstate":"DOWN","address":"0.0.0.0"}]"#;
        let links = parse(json).unwrap();
        assert_eq!(links[0].mac.to_string(), "08:00:27:e8:26:58");
        assert!(links[0].is_up() && !links[0].has_carrier());
        assert!(!links[1].is_up() && links[1].mac.is_zero());
    }
}
