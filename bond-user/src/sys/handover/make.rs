//! Makes a bond of the kernel's driver, on the way back to it.

use bond_common::mac::Mac;
use bond_core::options::{BondOptions, ROWS};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::link::LinkRequest;
use crate::sys::{
    Devices, SysError,
    netlink::{
        message,
        numbers::{IFLA_ADDRESS, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_MTU, RTM_NEWLINK},
    },
};

/// IFLA_BOND_MODE, and the mode active-backup.
const MODE: (u16, u8) = (1, 1);
/// Options whose attribute is a byte: primary_reselect, fail_over_mac, num_grat_arp, all_slaves_active, arp_missed_max.
const BYTES: [u16; 5] = [12, 13, 16, 17, 30];
/// Options that the driver has on by default: resend_igmp, num_grat_arp.
const ON_BY_DEFAULT: [u16; 2] = [15, 16];
/// IFLA_BOND_PRIMARY names an interface, IFLA_BOND_ARP_IP_TARGET and NS_IP6_TARGET lists.
const PRIMARY: u16 = 11;
const LISTS: [u16; 2] = [8, 31];
/// The driver's words for the numbers 0, 1, 2 ... of the options that have words, by their attributes.
const WORDS: [(u16, &[&str]); 4] = [
    (12, &["always", "better", "failure"]),
    (13, &["none", "active", "follow"]),
    (9, &["none", "active", "backup", "all", "filter", "filter_active", "filter_backup"]),
    (10, &["any", "all"]),
];

/// Returns the attributes (IFLA_INFO_DATA) of a bond of the driver with these options, without its primary.
fn attributes(options: &BondOptions) -> Vec<u8> {
    let mut data = Vec::new();
    message::append(&mut data, MODE.0, &[MODE.1]);
    for (key, value) in options.to_pairs() {
        let row = ROWS.iter().find(|row| row.key == key);
        let Some(attribute) = row.and_then(|row| row.netlink).filter(|kind| *kind != PRIMARY) else {
            continue;
        };
        if LISTS.contains(&attribute) {
            append_list(&mut data, attribute, &value);
            continue;
        }
        let words = WORDS.iter().find(|(kind, _)| *kind == attribute).map(|(_, words)| words);
        let by_word = words.and_then(|words| words.iter().position(|word| *word == value));
        let number = by_word.and_then(|place| u32::try_from(place).ok()).or_else(|| value.parse().ok());
        match number {
            // The driver refuses some of them although they are off.
            None => {}
            Some(0) if !ON_BY_DEFAULT.contains(&attribute) => {}
            Some(number) if BYTES.contains(&attribute) => {
                message::append(&mut data, attribute, &[u8::try_from(number).unwrap_or(u8::MAX)]);
            }
            Some(number) => message::append(&mut data, attribute, &number.to_ne_bytes()),
        }
    }
    data
}

fn append_list(data: &mut Vec<u8>, attribute: u16, value: &str) {
    let mut list = Vec::new();
    let addresses = value.split(',').filter_map(|address| address.parse::<std::net::IpAddr>().ok());
    for (place, address) in (0_u16..).zip(addresses) {
        match address {
            std::net::IpAddr::V4(address) => message::append(&mut list, place, &address.octets()),
            std::net::IpAddr::V6(address) => message::append(&mut list, place, &address.octets()),
        }
    }
    if !list.is_empty() {
        message::append(data, attribute, &list);
    }
}

impl dyn Devices + '_ {
    /// Makes a bond of the driver without slaves, which is down. Returns its ifindex.
    ///
    /// # Errors
    /// The kernel has no bonding driver, or refuses an option.
    pub async fn make_driver_bond(
        &self,
        name: &str,
        options: &BondOptions,
        (mac, mtu): (Mac, u32),
    ) -> Result<u32, SysError> {
        let request = LinkRequest::new(RTM_NEWLINK, 0)
            .name(name)
            .with(IFLA_ADDRESS, &mac.bytes())
            .number(IFLA_MTU, mtu)
            .of_kind((IFLA_INFO_KIND, IFLA_INFO_DATA), "bond", &attributes(options));
        let request = (NLM_F_CREATE | NLM_F_EXCL, request.raw());
        self.change_raw_link("create a bond of the kernel's driver", name, request).await?;
        Ok(self.link_by_name(name).await?.ifindex)
    }

    /// Sets the primary of a bond of the driver.
    ///
    /// # Errors
    /// The driver refuses it.
    pub async fn set_driver_primary(&self, bond: u32, slave: u32) -> Result<(), SysError> {
        let mut data = Vec::new();
        message::append(&mut data, PRIMARY, &slave.to_ne_bytes());
        let parts = (IFLA_INFO_KIND, IFLA_INFO_DATA);
        let request = LinkRequest::new(RTM_NEWLINK, bond).of_kind(parts, "bond", &data).raw();
        self.change_raw_link("set the primary", &self.called(bond), (0, request)).await
    }
}

#[cfg(test)]
mod tests {
    use bond_core::options::Unmonitored;

    use super::*;

    #[test]
    fn options_become_the_drivers_attributes() {
        let pairs = [
            ("arp_interval", "200"),
            ("arp_ip_target", "192.0.2.1,192.0.2.2"),
            ("arp_validate", "backup"),
            ("fail_over_mac", "follow"),
            ("primary", "eth0"),
        ];
        let (options, _) = BondOptions::from_pairs(pairs, Unmonitored::Refuse).unwrap();
        let data = attributes(&options);
        let all: Vec<_> = message::nested(&data).map(|(kind, value)| (kind, value.to_vec())).collect();
        let value =
            |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| value.clone());
        assert_eq!((value(1), value(13)), (Some(vec![1]), Some(vec![2])));
        assert_eq!(value(7), Some(200_u32.to_ne_bytes().to_vec()));
        assert_eq!(value(9), Some(2_u32.to_ne_bytes().to_vec()));
        assert_eq!((value(3), value(11)), (None, None));
        let targets: Vec<_> = value(8).unwrap();
        let targets: Vec<_> = message::nested(&targets).map(|(_, value)| value.to_vec()).collect();
        assert_eq!(targets, [vec![192, 0, 2, 1], vec![192, 0, 2, 2]]);
        // As the kernel's own attributes are read.
        assert_eq!(value(16), Some(vec![1]));
    }
}
