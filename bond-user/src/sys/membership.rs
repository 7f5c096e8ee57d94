//! Reports the bond's multicast groups to the switches after a failover.
//!
//! The kernel sends the same at NETDEV_RESEND_IGMP (`ip_mc_rejoin_groups`, `ipv6_mc_rejoin_groups`): one IGMP report
//! per IPv4 group, in the version that the querier uses, and one MLDv2 report with all IPv6 groups, for the bond and
//! for the devices above it ([`super::topology`]): bridges forward the request as VLANs and macvlans do. Groups with
//! a list of sources are reported without it, which requests more than necessary until the next query.
//!
//! The groups are known only if the bond is in the agent's network namespace: the kernel does not list those of
//! others.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bond_common::mac::Mac;
use bytes::{BufMut as _, BytesMut};
use etherparse::{
    EtherType, Icmpv6Header, Icmpv6Type, IpDscp, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header,
    checksum::u32_16bit_word,
};

use super::{
    Devices, SysError,
    announcer::{Upper, all_uppers, ethernet},
    topology::Layers,
};

/// The file of the calling thread's network namespace; /proc/net is that of the main thread.
const IGMP: &str = "/proc/thread-self/net/igmp";
const IGMP6: &str = "/proc/thread-self/net/igmp6";

/// 224.0.0.1, which is never reported.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// 224.0.0.22 and ff02::16, the destinations of IGMPv3 and MLDv2 reports.
const IGMP3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const MLD2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Type of a record of IGMPv3 and MLDv2: receive from all sources but the listed ones, of which there are none.
const MODE_IS_EXCLUDE: u8 = 2;

/// The groups that a device has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Membership {
    ifindex: u32,
    group: Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    V4(Ipv4Addr, IgmpVersion),
    V6(Ipv6Addr),
}

/// The IGMP version of the querier in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IgmpVersion {
    V1,
    V2,
    V3,
}

/// Returns the frames of one round of membership reports, from this MAC address. `port` is the other end of the bond.
/// There are none for a bond that was moved to another network namespace.
///
/// # Errors
/// The port does not exist, or the links, the addresses or the host's memberships (/proc/net/igmp, igmp6) cannot be
/// read.
pub async fn reports_behind(devices: &dyn Devices, port: u32, mac: Mac) -> Result<Vec<BytesMut>, SysError> {
    let port = devices.link_by_index(port).await?;
    let Some(bond) = port.link.filter(|_| port.link_netns.is_none()) else { return Ok(Vec::new()) };
    let (links, forwarding) = (devices.links(None).await?, devices.forwarding().await?);
    let addresses = devices.addresses(None).await?;
    let above = Layers::new(bond, &links, &forwarding.vlans);
    let uppers = all_uppers(&above, &links, &addresses, &forwarding.entries);
    let mut memberships = igmp(&read(IGMP)?);
    memberships.extend(igmp6(&read(IGMP6)?));
    Ok(reports(mac, &uppers, &memberships))
}

/// Reads a file; a kernel without IPv6, or without multicast, has none. Names of interfaces in it may have any bytes.
fn read(path: &str) -> Result<String, SysError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(SysError::kernel("read the multicast groups", path, error)),
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

/// Parses /proc/net/igmp: a line for each device, and below it one for each of its groups (`igmp_mc_seq_show`).
fn igmp(text: &str) -> Vec<Membership> {
    let mut device = None;
    let mut memberships = Vec::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        if !line.starts_with('\t') {
            let version = match words.next_back() {
                Some("V1") => IgmpVersion::V1,
                Some("V2") => IgmpVersion::V2,
                _ => IgmpVersion::V3,
            };
            device = words.next().and_then(|word| word.parse().ok()).map(|ifindex| (ifindex, version));
        } else if let Some((ifindex, version)) = device
            && let Some(group) = words.next().and_then(|word| u32::from_str_radix(word, 16).ok())
        {
            // The kernel prints the group in network order as a number of the machine's byte order.
            let group = Group::V4(Ipv4Addr::from(group.to_ne_bytes()), version);
            memberships.push(Membership { ifindex, group });
        }
    }
    memberships
}

/// Parses /proc/net/igmp6: ifindex, name, group, ... (`igmp6_mc_seq_show`).
fn igmp6(text: &str) -> Vec<Membership> {
    let membership = |line: &str| {
        let mut words = line.split_whitespace();
        let ifindex = words.next()?.parse().ok()?;
        let group = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some(Membership { ifindex, group: Group::V6(Ipv6Addr::from(group)) })
    };
    text.lines().filter_map(membership).collect()
}

fn reports(mac: Mac, uppers: &[Upper], memberships: &[Membership]) -> Vec<BytesMut> {
    let mut frames = Vec::new();
    for upper in uppers.iter().filter(|upper| upper.is_connected) {
        let of_this = || memberships.iter().filter(|member| member.ifindex == upper.ifindex);
        for member in of_this() {
            if let Group::V4(group, version) = member.group
                && group != ALL_HOSTS
            {
                frames.push(igmp_report(upper.own_mac.unwrap_or(mac), upper, group, version));
            }
        }
        let groups = of_this().filter_map(|member| match member.group {
            Group::V6(group) if is_reported(group) => Some(group),
            _ => None,
        });
        let groups: Vec<_> = groups.collect();
        // As many as fit into the smallest MTU of IPv6.
        for groups in groups.chunks(60) {
            frames.push(mld_report(upper.own_mac.unwrap_or(mac), upper, groups));
        }
    }
    frames
}

/// Returns whether a group is reported. MAF_NOREPORT (`mca_alloc`) excludes all nodes, and groups of host scope.
fn is_reported(group: Ipv6Addr) -> bool {
    const LINK_LOCAL: u8 = 2;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    group != all_nodes && group.octets()[1] & 0xf >= LINK_LOCAL
}

/// Returns the report of `igmp_send_report`.
fn igmp_report(mac: Mac, upper: &Upper, group: Ipv4Addr, version: IgmpVersion) -> BytesMut {
    const IGMP_V1_REPORT: u8 = 0x12;
    const IGMP_V2_REPORT: u8 = 0x16;
    const IGMP_V3_REPORT: u8 = 0x22;
    let (destination, mut igmp) = match version {
        IgmpVersion::V1 => (group, vec![IGMP_V1_REPORT, 0, 0, 0]),
        IgmpVersion::V2 => (group, vec![IGMP_V2_REPORT, 0, 0, 0]),
        // One record, without sources and further data.
        IgmpVersion::V3 => {
            (IGMP3_ROUTERS, vec![IGMP_V3_REPORT, 0, 0, 0, 0, 0, 0, 1, MODE_IS_EXCLUDE, 0, 0, 0])
        }
    };
    igmp.extend(group.octets());
    let checksum = u32_16bit_word::add_slice(0, &igmp);
    // The checksum is computed in the machine's byte order.
    igmp[2..4].copy_from_slice(&u32_16bit_word::ones_complement(checksum).to_ne_bytes());
    let source = upper.addresses.iter().find_map(|address| match address {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let mut header = Ipv4Header {
        total_len: 0,
        time_to_live: 1,
        protocol: IpNumber::IGMP,
        source: source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        destination: destination.octets(),
        dont_fragment: true,
        // Router alert.
        options: Ipv4Options::from([148, 4, 0, 0]),
        dscp: IpDscp::CS6,
        ..Ipv4Header::default()
    };
    // This fails only for payloads of more than 64 kB.
    let _ = header.set_payload_len(igmp.len());
    header.header_checksum = header.calc_header_checksum();
    let [_, b, c, d] = destination.octets();
    let to = Mac::new([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
    let mut frame = ethernet(to, mac, &upper.tags, EtherType::IPV4);
    frame.put_slice(&header.to_bytes());
    frame.put_slice(&igmp);
    frame
}

/// Returns the report of `mld_send_report`, from the link-local address, or from :: without one.
fn mld_report(mac: Mac, upper: &Upper, groups: &[Ipv6Addr]) -> BytesMut {
    const MLD2_REPORT: u8 = 143;
    /// Hop-by-hop options: ICMPv6 follows; router alert for MLD, padded to 8 bytes.
    const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
    let source = upper.addresses.iter().find_map(|address| match address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(*ip),
        _ => None,
    });
    let source = source.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let mut records = BytesMut::new();
    for group in groups {
        records.put_slice(&[MODE_IS_EXCLUDE, 0, 0, 0]);
        records.put_slice(&group.octets());
    }
    let [high, low] = (groups.len() as u16).to_be_bytes();
    let mut icmp = Icmpv6Header::new(Icmpv6Type::Unknown {
        type_u8: MLD2_REPORT,
        code_u8: 0,
        bytes5to8: [0, 0, high, low],
    });
    // This fails only for payloads of more than 4 GB.
    let _ = icmp.update_checksum(source.octets(), MLD2_ROUTERS.octets(), &records);
    let icmp = icmp.to_bytes();
    let ipv6 = Ipv6Header {
        payload_length: (ROUTER_ALERT.len() + icmp.len() + records.len()) as u16,
        next_header: IpNumber::IPV6_HEADER_HOP_BY_HOP,
        hop_limit: 1,
        source: source.octets(),
        destination: MLD2_ROUTERS.octets(),
        ..Ipv6Header::default()
    };
    let mut frame = ethernet(Mac::new([0x33, 0x33, 0, 0, 0, 0x16]), mac, &upper.tags, EtherType::IPV6);
    frame.put_slice(&ipv6.to_bytes());
    frame.put_slice(&ROUTER_ALERT);
    frame.put_slice(&icmp);
    frame.put_slice(&records);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::VlanTag;

    const BOND_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x10]);

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
    }

    fn upper(ifindex: u32, tags: &[VlanTag], addresses: &[&str]) -> Upper {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Upper {
            ifindex,
            tags: tags.to_vec(),
            own_mac: None,
            router: false,
            is_connected: true,
            is_reached: true,
            addresses,
        }
    }

    fn v4(ifindex: u32, group: [u8; 4], version: IgmpVersion) -> Membership {
        Membership { ifindex, group: Group::V4(group.into(), version) }
    }

    fn v6(ifindex: u32, group: &str) -> Membership {
        Membership { ifindex, group: Group::V6(group.parse().unwrap()) }
    }

    #[test]
    fn the_kernels_lists_are_read() {
        let number = |group: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(group));
        let text = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t{}     1 0:00000000\t\t0\n\
             7\tbond0     :     2      V2\n\t\t\t\t{}     1 0:00000000\t\t1\n\t\t\t\t{}     1 0:00000000\t\t0\n",
            number([224, 0, 0, 1]),
            number([239, 1, 1, 1]),
            number([224, 0, 0, 251]),
        );
        let expected = [
            v4(1, [224, 0, 0, 1], IgmpVersion::V3),
            v4(7, [239, 1, 1, 1], IgmpVersion::V2),
            v4(7, [224, 0, 0, 251], IgmpVersion::V2),
        ];
        assert_eq!(igmp(&text), expected);
        let text = "7    bond0           ff0200000000000000000001ff000010     1 00000004 0\n\
                    1    lo              ff020000000000000000000000000001     1 0000000C 0\n";
        assert_eq!(igmp6(text), [v6(7, "ff02::1:ff00:10"), v6(1, "ff02::1")]);
        for torn in ["", "x", "7 bond0", "7\tbond0\n\t\t\t\tzz"] {
            assert_eq!((igmp(torn), igmp6(torn)), (vec![], vec![]), "{torn:?}");
        }
    }

    /// The driver was observed to send frames of 54 bytes with one record of type 2 for each group, from the bond's
    /// first address, and one of 110 bytes for two IPv6 groups.
    #[test]
    fn frames_are_those_of_the_kernel() {
        let uppers = [upper(7, &[], &["10.0.0.1", "fd00::1", "fe80::ff:fe00:10"])];
        let memberships = [
            v4(7, [239, 2, 2, 2], IgmpVersion::V3),
            v4(7, [224, 0, 0, 1], IgmpVersion::V3),
            v4(9, [239, 9, 9, 9], IgmpVersion::V3),
            v6(7, "ff02::1:ff00:10"),
            v6(7, "ff02::1"),
            v6(7, "ff01::5"),
            v6(7, "ff02::1:ff00:1"),
        ];
        let frames = reports(BOND_MAC, &uppers, &memberships);
        let expected = [
            "01005e000016 020000000010 0800
             46c0 0028 0000 4000 01 02 KKKK 0a000001 e0000016 94040000
             22 00 KKKK 0000 0001 02 00 0000 ef020202",
            "333300000016 020000000010 86dd
             60000000 0038 00 01 fe80000000000000000000fffe000010 ff020000000000000000000000000016
             3a00 0502 0000 0100
             8f 00 KKKK 0000 0002
             02 00 0000 ff0200000000000000000001ff000010
             02 00 0000 ff0200000000000000000001ff000001",
        ];
        assert_eq!(frames.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [54, 110]);
        for (frame, expected) in frames.iter().zip(expected) {
            let expected = expected.replace("KKKK", "0000");
            let mut bytes = frame.to_vec();
            for checksum in if frame.len() == 54 { &[24, 40][..] } else { &[64] } {
                assert_ne!(bytes[*checksum..checksum + 2], [0, 0]);
                bytes[*checksum..checksum + 2].fill(0);
            }
            assert_eq!(bytes, hex(&expected), "{bytes:02x?}");
        }
    }

    /// A receiver checks that the sum of all words, including the checksum, is all ones.
    #[test]
    fn checksums_are_right() {
        let sum = |bytes: &[u8]| u32_16bit_word::ones_complement(u32_16bit_word::add_slice(0, bytes));
        let v3 = upper(7, &[], &["10.0.0.1"]);
        for version in [IgmpVersion::V1, IgmpVersion::V2, IgmpVersion::V3] {
            let frame = igmp_report(BOND_MAC, &v3, Ipv4Addr::new(239, 255, 1, 2), version);
            assert_eq!((sum(&frame[14..38]), sum(&frame[38..])), (0, 0), "{version:?}");
        }
        let frame = mld_report(BOND_MAC, &upper(7, &[], &[]), &["ff05::1:3".parse().unwrap()]);
        let icmp = &frame[62..];
        let pseudo = [&frame[22..54], &(icmp.len() as u32).to_be_bytes(), &[0, 0, 0, 58], icmp].concat();
        assert_eq!(sum(&pseudo), 0);
        assert_eq!(frame[22..38], [0; 16], "no link-local address");
    }

    #[test]
    fn an_older_querier_gets_its_version_and_a_vlan_its_tag() {
        let tag = VlanTag { ethertype: 0x8100, vid: 5 };
        let vlan = Upper { own_mac: Some(Mac::new([2, 0, 0, 0, 0, 0x55])), ..upper(8, &[tag], &[]) };
        for (version, kind) in [(IgmpVersion::V1, 0x12), (IgmpVersion::V2, 0x16)] {
            let [frame] =
                &reports(BOND_MAC, std::slice::from_ref(&vlan), &[v4(8, [239, 129, 1, 2], version)])[..]
            else {
                panic!("one frame");
            };
            assert_eq!(frame[..18], hex("01005e010102 020000000055 8100 0005 0800"));
            // From the unspecified address, to the group.
            assert_eq!(frame[30..38], [0, 0, 0, 0, 239, 129, 1, 2]);
            assert_eq!((frame[42], &frame[46..]), (kind, &[239, 129, 1, 2][..]));
        }
    }

    #[test]
    fn many_groups_take_several_reports() {
        let memberships: Vec<_> = (1..=61).map(|last| v6(7, &format!("ff05::{last}"))).collect();
        let lengths: Vec<_> =
            reports(BOND_MAC, &[upper(7, &[], &[])], &memberships).iter().map(|frame| frame.len()).collect();
        assert_eq!(lengths, [14 + 56 + 60 * 20, 14 + 56 + 20]);
        assert!(lengths[0] - 14 <= 1280);
    }
}
