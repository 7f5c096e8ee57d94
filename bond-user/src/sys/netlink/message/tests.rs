//! Tests of messages and their changes.

use super::*;
use super::{address::label_for, numbers::INFINITY};

const NO_NAMES: Substitute<'_> =
    Substitute { from: 3, to: 7, names: None, elapsed: Duration::from_secs(100) };

fn message(kind: MessageKind, header: &[u8], attributes: Attributes<'_>) -> Message {
    let mut body = header.to_vec();
    body.resize(kind.header(), 0);
    for (kind, value) in attributes {
        append(&mut body, *kind, value);
    }
    Message::checked(kind, body).unwrap()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

type Attributes<'a> = &'a [(u16, &'a [u8])];

/// An attribute that no kernel has yet.
const FUTURE: (u16, &[u8]) = (99, b"later");

#[test]
fn only_the_device_of_a_route_changes() {
    let cases: [(Attributes<'_>, Attributes<'_>); 4] = [
        (
            &[(RTA_DST, &[20, 0, 0, 0]), (RTA_OIF, &words(&[3])), FUTURE],
            &[(RTA_DST, &[20, 0, 0, 0]), (RTA_OIF, &words(&[7])), FUTURE],
        ),
        (
            &[(RTA_OIF, &words(&[9])), (RTA_VIA, &[10, 0, 1, 2])],
            &[(RTA_OIF, &words(&[9])), (RTA_VIA, &[10, 0, 1, 2])],
        ),
        // 50 000 ticks of 10 ms are 500 s.
        (&[(RTA_CACHEINFO, &words(&[1, 2, 50_000, 0, 0, 0, 0, 0]))], &[(RTA_EXPIRES, &words(&[400]))]),
        (
            &[(RTA_OIF, &words(&[3])), (RTA_GATEWAY, &[10, 0, 0, 1]), (RTA_NH_ID, &words(&[5]))],
            &[(RTA_NH_ID, &words(&[5]))],
        ),
    ];
    for (found, expected) in cases {
        let header = [INET, 8, 0, 0, 254, 4, 0, 1];
        let route = message(MessageKind::Route, &header, found);
        assert_eq!(route.route_for(&NO_NAMES).unwrap(), message(MessageKind::Route, &header, expected));
    }
    let expired =
        message(MessageKind::Route, &[INET6], &[(RTA_CACHEINFO, &words(&[0, 0, 9_000, 0, 0, 0, 0, 0]))]);
    assert_eq!(expired.route_for(&NO_NAMES), None);
}

#[test]
fn next_hops_of_a_route_change_one_by_one_and_lose_their_state() {
    // Each with its gateway; RTNH_F_DEAD is 1, RTNH_F_ONLINK 4, RTNH_F_LINKDOWN 16.
    let hop = |flags: u8, ifindex: u32| {
        let mut hop = [&16u16.to_ne_bytes()[..], &[flags, 2], &ifindex.to_ne_bytes()].concat();
        append(&mut hop, RTA_GATEWAY, &[10, 0, 0, 8]);
        hop
    };
    let found = [hop(1 | 4, 3), hop(16, 9)].concat();
    let expected = [hop(4, 7), hop(0, 9)].concat();
    let route = message(MessageKind::Route, &[INET], &[(RTA_MULTIPATH, &found)]);
    assert_eq!(route.route_devices(), [3, 9]);
    let moved = route.route_for(&NO_NAMES).unwrap();
    assert_eq!(moved, message(MessageKind::Route, &[INET], &[(RTA_MULTIPATH, &expected)]));
    assert_eq!(moved.canonical_route(), moved.route_for(&NO_NAMES).unwrap().canonical_route());
}

#[test]
fn labels_and_rules_follow_the_name_of_the_device() {
    let names = Some(("eth0", "bond0"));
    for (label, expected) in [("eth0", "bond0"), ("eth0:1", "bond0:1"), ("web", "web")] {
        assert_eq!(label_for(label.as_bytes(), names), expected.as_bytes(), "{label}");
    }
    let rule =
        |iif: &[u8]| message(MessageKind::Rule, &[INET], &[(FRA_IIFNAME, iif), (FRA_PRIORITY, &words(&[9]))]);
    let substitute = Substitute { names, ..NO_NAMES };
    assert_eq!(rule(b"eth0\0").rule_for(&substitute), rule(b"bond0\0"));
    assert_eq!(rule(b"eth01\0").rule_for(&substitute), rule(b"eth01\0"));
}

#[test]
fn lifetimes_keep_running_and_state_is_the_kernels() {
    const PERMANENT: u32 = 0x80;
    let address = |flags: u32, left: &[u32], ifindex: u32| {
        let header = [&[INET6, 64, flags as u8, 0][..], &words(&[ifindex])].concat();
        message(
            MessageKind::Address,
            &header,
            &[(IFA_FLAGS, &words(&[flags])), (IFA_CACHEINFO, &words(left))],
        )
    };
    let cases = [
        ([50, 150, 1, 2], Some([0, 50, 1, 2])),
        ([INFINITY, INFINITY, 1, 2], Some([INFINITY, INFINITY, 1, 2])),
        ([0, INFINITY, 1, 2], Some([0, INFINITY, 1, 2])),
        ([50, 100, 1, 2], None),
    ];
    for (found, expected) in cases {
        let moved = address(PERMANENT | 0x200, &found, 3).address_for(&NO_NAMES, IFA_F_NODAD);
        assert_eq!(moved, expected.map(|left| address(0x200 | IFA_F_NODAD, &left, 7)), "{found:?}");
    }
}

#[test]
fn messages_are_written_and_read() {
    let route = message(MessageKind::Route, &[INET, 8], &[(RTA_DST, &[20, 0, 0, 0]), FUTURE]);
    let text = serde_json::to_string(&route).unwrap();
    assert!(text.starts_with("\"route 0208"), "{text}");
    assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), route);
    for wrong in ["", "route", "route 02", "route 0g", "link 00", "address 0", "address 00000000000000000500"]
    {
        assert!(serde_json::from_value::<Message>(wrong.into()).is_err(), "{wrong}");
    }
}

#[test]
fn a_route_is_named_as_ip_names_it() {
    let table = [
        (vec![0], vec![(RTA_TABLE, words(&[254]))], "default"),
        (
            vec![8],
            vec![(RTA_DST, vec![20, 0, 0, 0]), (RTA_GATEWAY, vec![10, 0, 0, 1])],
            "20.0.0.0/8 via 10.0.0.1 table 0",
        ),
        (vec![0], vec![(RTA_TABLE, words(&[9])), (RTA_NH_ID, words(&[5]))], "default nhid 5 table 9"),
    ];
    for (bits, attributes, expected) in table {
        let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let header = [&[INET][..], &bits, &[0, 0, 0, 4, 0, 1]].concat();
        assert_eq!(message(MessageKind::Route, &header, &attributes).to_string(), expected);
    }
}
