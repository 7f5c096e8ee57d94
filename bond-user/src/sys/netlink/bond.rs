//! Bonds of the kernel's own driver, from its netlink attributes (IFLA_INFO_DATA of kind bond).

use bond_common::mac::Mac;
use bond_core::options;
use netlink_packet_core::Nla as _;
use netlink_packet_route::link::{
    InfoBond, InfoBondPort, InfoData, InfoPortData, LinkAttribute, LinkExtentMask, LinkInfo as Part,
    LinkMessage,
};

use super::{
    LinkInfo, Netlink, Raw,
    link::{ethernet_mac, parse},
    reading,
};
use crate::sys::SysError;

/// A bond of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelBond {
    /// The bond's link.
    pub link: LinkInfo,
    /// The driver's name of the mode: "active-backup" ...
    pub mode: String,
    /// Options that have an effect in active-backup, with the driver's names and numbers.
    pub options: Vec<(&'static str, String)>,
    /// In the order of their ifindex, which may differ from the order in which they were enslaved.
    pub slaves: Vec<KernelSlave>,
}

/// A slave of a bond of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSlave {
    /// The slave's name.
    pub name: String,
    /// The address that it had before it was enslaved.
    pub permanent_mac: Option<Mac>,
    /// The driver's option prio.
    pub prio: i32,
    /// The driver's option queue_id.
    pub queue_id: u16,
}

impl Netlink {
    /// Returns the bonds of the driver, and all links.
    ///
    /// # Errors
    /// The kernel does not list the links.
    pub async fn kernel_bonds(&self) -> Result<(Vec<KernelBond>, Vec<LinkInfo>), SysError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let each = |messages: &mut Vec<_>, raw: Raw| {
            messages.extend(parse(&raw.body).map(|(message, _)| message));
        };
        let messages = self.dump_raw(&reading(&request), "the links", Vec::new, each).await?;
        let links = messages.iter().filter_map(LinkInfo::from_message).collect();
        Ok((bonds(&messages), links))
    }
}

/// Returns the bonds among these links.
fn bonds(messages: &[LinkMessage]) -> Vec<KernelBond> {
    messages.iter().filter_map(|message| bond(message, messages)).collect()
}

fn bond(message: &LinkMessage, all: &[LinkMessage]) -> Option<KernelBond> {
    let parts = info(message).find_map(|part| match part {
        Part::Data(InfoData::Bond(parts)) => Some(parts),
        _ => None,
    })?;
    let link = LinkInfo::from_message(message)?;
    let mut bond = KernelBond { mode: String::new(), options: Vec::new(), slaves: Vec::new(), link };
    for part in parts {
        match part {
            InfoBond::Mode(mode) => bond.mode = mode.to_string(),
            part => bond.options.extend(option(part, all)),
        }
    }
    bond.slaves = all.iter().filter_map(|slave| slave_of(slave, bond.link.ifindex)).collect();
    Some(bond)
}

/// Converts an attribute that the table of options contains to key and value.
fn option(part: &InfoBond, all: &[LinkMessage]) -> Option<(&'static str, String)> {
    let row = options::ROWS.iter().find(|row| row.netlink == Some(part.kind()))?;
    let value = match part {
        InfoBond::Primary(ifindex) => {
            let primary = all.iter().find(|link| link.header.index == *ifindex)?;
            LinkInfo::from_message(primary)?.name
        }
        InfoBond::ArpIpTarget(addresses) => list(addresses)?,
        InfoBond::NsIp6Target(addresses) => list(addresses)?,
        number => {
            let mut bytes = vec![0; number.value_len()];
            number.emit_value(&mut bytes);
            match bytes[..] {
                [byte] => byte.to_string(),
                [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).to_string(),
                _ => return None,
            }
        }
    };
    Some((row.key, value))
}

/// Joins addresses with commas; returns `None` if there are none.
fn list<A: ToString>(addresses: &[A]) -> Option<String> {
    let items: Vec<_> = addresses.iter().map(A::to_string).collect();
    Some(items.join(",")).filter(|list| !list.is_empty())
}

fn slave_of(message: &LinkMessage, bond: u32) -> Option<KernelSlave> {
    let parts = info(message).find_map(|part| match part {
        Part::PortData(InfoPortData::BondPort(parts)) => Some(parts),
        _ => None,
    })?;
    let link = LinkInfo::from_message(message).filter(|link| link.master == Some(bond))?;
    let mut slave = KernelSlave { name: link.name, permanent_mac: None, prio: 0, queue_id: 0 };
    for part in parts {
        match part {
            InfoBondPort::PermHwaddr(bytes) => slave.permanent_mac = ethernet_mac(bytes),
            InfoBondPort::Prio(prio) => slave.prio = *prio,
            InfoBondPort::QueueId(queue_id) => slave.queue_id = *queue_id,
            _ => {}
        }
    }
    Some(slave)
}

fn info(message: &LinkMessage) -> impl Iterator<Item = &Part> {
    message.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(parts) => parts.as_slice(),
        _ => &[],
    })
}

/// Returns three bonds as Linux 6.12 described them, for tests: RTM_NEWLINK without its header, a line of hexadecimal
/// each.
#[cfg(test)]
pub(crate) fn recorded() -> (Vec<KernelBond>, Vec<LinkInfo>) {
    use netlink_packet_core::{NetlinkDeserializable as _, NetlinkHeader};
    use netlink_packet_route::RouteNetlinkMessage;

    const RTM_NEWLINK: u16 = 16;
    let mut header = NetlinkHeader::default();
    header.message_type = RTM_NEWLINK;
    let message = |line: &str| {
        let pairs = line.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        match RouteNetlinkMessage::deserialize(&header, &bytes).unwrap() {
            RouteNetlinkMessage::NewLink(message) => message,
            other => panic!("{other:?}"),
        }
    };
    let text = include_str!("../../../../tests/fixtures/kernel-bonds.hex");
    let messages: Vec<LinkMessage> = text.lines().map(message).collect();
    let links = messages.iter().filter_map(LinkInfo::from_message).collect();
    (bonds(&messages), links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_bonds_are_read_as_they_were_recorded() {
        let (bonds, links) = recorded();
        let names: Vec<_> = bonds.iter().map(|bond| (bond.link.name.as_str(), bond.mode.as_str())).collect();
        assert_eq!(names, [("bond0", "active-backup"), ("bond1", "active-backup"), ("bond2", "802.3ad")]);
        assert_eq!(links.len(), 11);

        let option = |bond: usize, key: &str| {
            bonds[bond].options.iter().find(|(name, _)| *name == key).unwrap().1.clone()
        };
        let table = [
            (0, "miimon", "100"),
            (0, "updelay", "200"),
            (0, "num_grat_arp", "3"),
            (0, "primary", "eth1"),
            (0, "primary_reselect", "2"),
            (0, "fail_over_mac", "0"),
            (1, "arp_interval", "200"),
            (1, "arp_ip_target", "192.0.2.1,192.0.2.2"),
            (1, "ns_ip6_target", "2001:db8::1"),
            (1, "arp_validate", "3"),
            (1, "arp_missed_max", "4"),
            (1, "fail_over_mac", "1"),
        ];
        for (bond, key, value) in table {
            assert_eq!(option(bond, key), value, "{key}");
        }
        let slave = |name: &str, last, prio, queue_id| KernelSlave {
            name: name.to_owned(),
            permanent_mac: Some(Mac::new([2, 0, 0, 0, 0, last])),
            prio,
            queue_id,
        };
        assert_eq!(bonds[0].slaves, [slave("eth0", 0x10, 10, 3), slave("eth1", 0x11, 0, 0)]);
        assert_eq!(bonds[0].link.mac, Mac::new([2, 0, 0, 0, 0, 0x77]));
        assert_eq!(bonds[1].slaves, [slave("eth2", 0x12, 0, 0)]);
    }
}
