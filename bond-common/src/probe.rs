//! The receiving side of the ARP monitor: which frames that a slave receives show that its path works.

use core::mem::offset_of;

use network_types::{
    arp::ArpHdr,
    eth::EtherType,
    ip::{IpProto, Ipv6Hdr},
};

use crate::{
    abi::{ActiveWord, BondEntry, Slot, Targets},
    wire::{ETHERNET, Frame, nd, payload},
};

const ARP_REPLY: [u8; 2] = 2u16.to_be_bytes();
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The meaning of a received frame for the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The frame does not count as reception.
    Nothing,
    /// The frame counts as reception, without a target: the slave is not validated.
    Traffic,
    /// The frame is an answer to a probe or, on a backup, the probe itself. The value is the index of the target in
    /// [`crate::abi::ProbeTimes::targets`].
    Target(usize),
}

/// The role of a slave in the ARP monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The slave probes: it is active, or it is next in the round robin while no slave is active.
    ArpProber,
    /// Another slave is active. A switch floods the requests of that slave to this one.
    Backup,
    /// No slave is active, and another one probes. An answer may arrive here, because the switch has learned the MAC
    /// address from an earlier round.
    Bystander,
}

impl Role {
    /// Returns the role of the slave at `slot`, according to ACTIVE and to [`Targets::prober`].
    #[inline(always)]
    pub fn of(slot: Slot, word: ActiveWord, targets: &Targets) -> Self {
        match word.active() {
            Some(active) if active == slot => Self::ArpProber,
            Some(_) => Self::Backup,
            None if targets.prober() == Some(slot) => Self::ArpProber,
            None => Self::Bystander,
        }
    }

    /// Returns whether `arp_validate` applies to what the slave receives (`slave_do_arp_validate`).
    #[inline(always)]
    const fn is_validated(self, bond: &BondEntry) -> bool {
        match self {
            Self::ArpProber => bond.has(BondEntry::VALIDATE_ACTIVE),
            Self::Backup | Self::Bystander => bond.has(BondEntry::VALIDATE_BACKUP),
        }
    }
}

/// Returns the meaning of a received frame for the path of its slave (`bond_rcv_validate`).
///
/// A probe that a backup receives counts only after the active slave has received an answer (`bond_arp_rcv`). The
/// reader of PROBES applies that rule.
#[inline(always)]
pub fn hear(frame: &impl Frame, role: Role, bond: &BondEntry, targets: &Targets) -> Heard {
    let validated = role.is_validated(bond);
    if !validated && !bond.has(BondEntry::FILTER) {
        return Heard::Traffic;
    }
    let (ether_type, payload) = payload(frame);
    let target = if ether_type == EtherType::Arp as u16 {
        in_arp(frame, payload, role, targets)
    } else if ether_type == EtherType::Ipv6 as u16 {
        in_neighbour_discovery(frame, payload, role, targets)
    } else {
        return Heard::Nothing;
    };
    match target {
        Message::Other => Heard::Nothing,
        Message::Probe(_) if !validated => Heard::Traffic,
        Message::Probe(None) => Heard::Nothing,
        Message::Probe(Some(index)) => Heard::Target(index),
    }
}

/// The kind of a received frame.
enum Message {
    /// Neither ARP nor a neighbour solicitation or advertisement.
    Other,
    /// ARP, or a neighbour solicitation or advertisement; with the index of the target that it concerns.
    Probe(Option<usize>),
}

/// Parses ARP (`bond_arp_rcv`, `bond_validate_arp`). The driver requires that the frame concerns any address of the
/// bond; here it has to be the source address of the probes to this target.
#[inline(always)]
fn in_arp(frame: &impl Frame, arp: usize, role: Role, targets: &Targets) -> Message {
    let Some(hardware) = frame.read::<2>(arp + offset_of!(ArpHdr, htype)) else { return Message::Other };
    let protocol = frame.read::<2>(arp + offset_of!(ArpHdr, ptype));
    let lengths = frame.read::<2>(arp + offset_of!(ArpHdr, hlen));
    let wanted_protocol = (EtherType::Ipv4 as u16).to_ne_bytes();
    if hardware != ETHERNET || protocol != Some(wanted_protocol) || lengths != Some([6, 4]) {
        return Message::Probe(None);
    }
    let Some(sender) = frame.read::<4>(arp + offset_of!(ArpHdr, spa)) else { return Message::Probe(None) };
    let Some(asked) = frame.read::<4>(arp + offset_of!(ArpHdr, tpa)) else { return Message::Probe(None) };
    Message::Probe(match role {
        Role::ArpProber => targets.find_ipv4(sender, asked),
        Role::Backup => targets.find_ipv4(asked, sender),
        Role::Bystander if frame.read(arp + offset_of!(ArpHdr, oper)) == Some(ARP_REPLY) => {
            targets.find_ipv4(sender, asked)
        }
        Role::Bystander => None,
    })
}

/// Parses neighbour discovery (`bond_na_rcv`, `bond_validate_na`). A backup recognises a solicitation by its target
/// address, where the driver compares the group that it is sent to.
#[inline(always)]
fn in_neighbour_discovery(frame: &impl Frame, ipv6: usize, role: Role, targets: &Targets) -> Message {
    if frame.read(ipv6 + offset_of!(Ipv6Hdr, next_hdr)) != Some([IpProto::Ipv6Icmp as u8]) {
        return Message::Other;
    }
    let icmp = ipv6 + Ipv6Hdr::LEN;
    let Some([kind]) = frame.read(icmp) else { return Message::Other };
    if kind != nd::NEIGHBOUR_SOLICITATION && kind != nd::NEIGHBOUR_ADVERTISEMENT {
        return Message::Other;
    }
    let Some(source) = frame.read::<16>(ipv6 + offset_of!(Ipv6Hdr, src_addr)) else {
        return Message::Probe(None);
    };
    let Some(destination) = frame.read::<16>(ipv6 + offset_of!(Ipv6Hdr, dst_addr)) else {
        return Message::Probe(None);
    };
    Message::Probe(match role {
        Role::ArpProber | Role::Bystander => {
            targets.find_ipv6(source, if destination == ALL_NODES { None } else { Some(destination) })
        }
        Role::Backup => match frame.read::<16>(icmp + 8) {
            Some(asked) => targets.find_ipv6(asked, Some(source)),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{Heard::*, *};
    use crate::{mac::Mac, wire::tests::Bytes};

    const TARGET: [u8; 4] = [10, 0, 0, 254];
    const OTHER: [u8; 4] = [10, 0, 0, 77];
    const OURS: [u8; 4] = [10, 0, 0, 1];
    const TARGET6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54];
    const OURS6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    /// ff02::1:ff00:254
    const SOLICITED: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 2, 0x54];
    const REQUEST: u8 = 1;
    const REPLY: u8 = 2;

    fn arp(operation: u8, sender: [u8; 4], asked: [u8; 4]) -> Vec<u8> {
        [&[0, 1, 8, 0, 6, 4, 0, operation][..], &[2; 6], &sender, &[0; 6], &asked].concat()
    }

    fn neighbour(kind: u8, source: [u8; 16], destination: [u8; 16], about: [u8; 16]) -> Bytes {
        let head = [0x60, 0, 0, 0, 0, 24, 58, 255];
        Bytes::tagged(
            0,
            0x86dd,
            &[&head[..], &source, &destination, &[kind, 0, 0, 0, 0, 0, 0, 0], &about].concat(),
        )
    }

    fn bond(flags: u32) -> BondEntry {
        BondEntry::new(crate::abi::FailOverMac::None, 1, Mac::ZERO, 1).with_flags(flags)
    }

    fn targets() -> Targets {
        let mut targets = Targets::default();
        targets.set_ipv4(0, [10, 0, 0, 9], OURS);
        targets.set_ipv4(1, TARGET, OURS);
        targets.set_ipv6(3, TARGET6, OURS6);
        targets
    }

    const ROLES: [Role; 3] = [Role::ArpProber, Role::Backup, Role::Bystander];

    #[test]
    fn validated_frames_by_role() {
        let arp = |operation, sender, asked| Bytes::tagged(0, 0x0806, &arp(operation, sender, asked));
        let (v4, v6) = (Target(1), Target(16 + 3));
        let nothing = [Nothing; 3];
        #[rustfmt::skip]
        let table = [
            // what                                 frame                                          prober  backup   bystander
            ("an answer",                           arp(REPLY, TARGET, OURS),                      [v4, Nothing, v4]),
            ("the target asks for us",              arp(REQUEST, TARGET, OURS),                    [v4, Nothing, Nothing]),
            ("our request",                         arp(REQUEST, OURS, TARGET),                    [Nothing, v4, Nothing]),
            ("another host's answer to us",          arp(REPLY, OTHER, OURS),                       nothing),
            ("the target's answer to another",      arp(REPLY, TARGET, OTHER),                     nothing),
            ("another's request",                   arp(REQUEST, OTHER, TARGET),                   nothing),
            ("our request for another",             arp(REQUEST, OURS, OTHER),                     nothing),
            ("from 0.0.0.0",                        arp(REPLY, [0; 4], [0; 4]),                    nothing),
            ("an advertisement",                    neighbour(136, TARGET6, OURS6, TARGET6),       [v6, Nothing, v6]),
            ("an advertisement to all",             neighbour(136, TARGET6, ALL_NODES, TARGET6),   [v6, Nothing, v6]),
            ("our solicitation",                    neighbour(135, OURS6, SOLICITED, TARGET6),     [Nothing, v6, Nothing]),
            ("another's solicitation",              neighbour(135, [9; 16], SOLICITED, TARGET6),   nothing),
            ("an advertisement to another",         neighbour(136, TARGET6, [9; 16], TARGET6),     nothing),
            ("another's advertisement",             neighbour(136, [9; 16], OURS6, TARGET6),       nothing),
            ("an echo reply of the target",         neighbour(129, TARGET6, OURS6, TARGET6),       nothing),
            ("IPv4",                                Bytes::tagged(0, 0x0800, &[0x45; 40]),              nothing),
        ];
        let bond = bond(BondEntry::VALIDATE_ACTIVE | BondEntry::VALIDATE_BACKUP);
        for (what, frame, expected) in table {
            let heard = ROLES.map(|role| hear(&frame, role, &bond, &targets()));
            assert_eq!(heard, expected, "{what}");
        }
    }

    #[test]
    fn every_mode_by_role() {
        use BondEntry as B;
        let (a, v, f) = (B::VALIDATE_ACTIVE, B::VALIDATE_BACKUP, B::FILTER);
        let anything = Bytes::tagged(0, 0x0800, &[0x45; 40]);
        let any_arp = Bytes::tagged(0, 0x0806, &arp(REQUEST, OTHER, [1; 4]));
        let any_nd = neighbour(135, [9; 16], SOLICITED, [8; 16]);
        let echo = neighbour(128, [9; 16], [8; 16], [8; 16]);
        // arp_validate -> what prober, backup and bystander make of any frame, and of any ARP or NS.
        let table = [
            ("none", 0, [Traffic; 3], [Traffic; 3]),
            ("active", a, [Nothing, Traffic, Traffic], [Nothing, Traffic, Traffic]),
            ("backup", v, [Traffic, Nothing, Nothing], [Traffic, Nothing, Nothing]),
            ("all", a | v, [Nothing; 3], [Nothing; 3]),
            ("filter", f, [Nothing; 3], [Traffic; 3]),
            ("filter_active", f | a, [Nothing; 3], [Nothing, Traffic, Traffic]),
            ("filter_backup", f | v, [Nothing; 3], [Traffic, Nothing, Nothing]),
        ];
        for (mode, flags, of_any, of_probes) in table {
            let hear = |frame: &Bytes| ROLES.map(|role| hear(frame, role, &bond(flags), &targets()));
            assert_eq!((hear(&anything), hear(&echo)), (of_any, of_any), "{mode}");
            assert_eq!((hear(&any_arp), hear(&any_nd)), (of_probes, of_probes), "{mode}");
        }
    }

    #[test]
    fn tagged_answers_count_and_truncated_ones_do_not() {
        let bond = bond(BondEntry::VALIDATE_ACTIVE);
        let heard = |frame: &Bytes| hear(frame, Role::ArpProber, &bond, &targets());
        for tags in 0..3 {
            let whole = Bytes::tagged(tags, 0x0806, &arp(REPLY, TARGET, OURS));
            assert_eq!(heard(&whole), Target(1), "{tags} tags");
            for length in 0..whole.0.len() {
                assert_eq!(heard(&Bytes(whole.0[..length].to_vec())), Nothing, "{tags} tags, {length} bytes");
            }
        }
        let whole = neighbour(136, TARGET6, OURS6, TARGET6);
        for length in 0..whole.0.len() {
            let _ = heard(&Bytes(whole.0[..length].to_vec()));
        }
    }

    #[test]
    fn a_bond_without_address_probes_from_zero() {
        let mut targets = Targets::default();
        targets.set_ipv4(0, TARGET, [0; 4]);
        let answer = Bytes::tagged(0, 0x0806, &arp(REPLY, TARGET, [0; 4]));
        assert_eq!(hear(&answer, Role::ArpProber, &bond(BondEntry::VALIDATE_ACTIVE), &targets), Target(0));

        targets.set_ipv6(0, TARGET6, [0; 16]);
        let bond = bond(BondEntry::VALIDATE_ACTIVE | BondEntry::VALIDATE_BACKUP);
        let solicitation = neighbour(135, [0; 16], SOLICITED, TARGET6);
        let to_all = neighbour(136, TARGET6, ALL_NODES, TARGET6);
        let heard = |frame: &Bytes| ROLES.map(|role| hear(frame, role, &bond, &targets));
        assert_eq!(heard(&solicitation), [Nothing, Target(16), Nothing]);
        assert_eq!(heard(&to_all), [Target(16), Nothing, Target(16)]);
    }

    #[test]
    fn roles_depend_on_active_and_prober() {
        let [a, b] = [Slot::new(0).unwrap(), Slot::new(1).unwrap()];
        let turn_of_b = Targets::default().with_prober(b);
        let active = ActiveWord::default().next(Some(a), None, 3);
        let no_active = ActiveWord::default().next(None, None, 0);
        // What TARGETS says of the prober may be older than ACTIVE.
        assert_eq!([a, b].map(|slot| Role::of(slot, active, &turn_of_b)), [Role::ArpProber, Role::Backup]);
        assert_eq!(
            [a, b].map(|slot| Role::of(slot, no_active, &turn_of_b)),
            [Role::Bystander, Role::ArpProber]
        );
        assert_eq!(Role::of(a, no_active, &Targets::default()), Role::Bystander);
    }
}
