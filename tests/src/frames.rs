//! Frames on which the programs are tested and measured, with the expected verdict of each: one table for both.

use bond_common::{
    abi::{BondEntry, FailOverMac},
    counters::DropReason,
};
use etherparse::PacketBuilder;

use crate::{Mac, lab::Datapath};

/// bond0's MAC.
pub const HOST: Mac = Mac::new([2, 0, 0, 0, 0, 0xaa]);
/// The slaves' own MAC addresses.
pub const OWN: [Mac; 2] =
    [Mac::new([8, 0, 0x27, 0xe8, 0x26, 0x58]), Mac::new([8, 0, 0x27, 0x27, 0xa9, 0x2d])];
/// A station on the wire.
pub const PEER: Mac = Mac::new([2, 0, 0, 0, 0, 0x77]);
/// A station on a bridge above bond0.
pub const GUEST: Mac = Mac::new([2, 0, 0, 0, 0, 0x99]);
/// The group of all IPv6 nodes.
pub const GROUP: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
/// The group of the nearest bridge.
pub const LLDP: Mac = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

/// The beginning of an IPv4 packet, from the EtherType on.
pub const IPV4: &[u8] = &[0x08, 0x00, 0x45];
/// The beginning of a packet of 802.1X, of its key agreement, and of MACsec.
pub const EAPOL: &[u8] = &[0x88, 0x8e, 1];
const MKA: &[u8] = &[0x88, 0x8e, 3, 5];
const MACSEC: &[u8] = &[0x88, 0xe5, 0x2c];
/// The EtherType of IEEE 802 for local experiments.
const EXPERIMENTAL: &[u8] = &[0x88, 0xb5];

const DOT1Q: [u8; 2] = [0x81, 0x00];
const DOT1AD: [u8; 2] = [0x88, 0xa8];
/// The shortest frame on a wire, without its checksum.
const SHORTEST: usize = 60;

/// Which program runs on the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The port's program.
    Transmit,
    /// The program of the slave in this slot.
    Receive(u8),
}

/// The expected result for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forwarded,
    Local,
    Dropped(DropReason),
}
use Verdict::{Dropped, Forwarded, Local};

/// The bond on which a frame arrives: two slaves, in the slots 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    pub policy: FailOverMac,
    /// The flags of [`BondEntry`].
    pub flags: u32,
    pub active: Option<u8>,
    pub draining: Option<u8>,
}

impl Scene {
    /// Returns a scene in which slot 0 is active and slot 1 a backup.
    pub const fn of(policy: FailOverMac) -> Self {
        Self { policy, flags: 0, active: Some(0), draining: None }
    }

    /// Returns the slaves' source MAC addresses on the wire while they are active.
    pub const fn wire_macs(&self) -> [Mac; 2] {
        match self.policy {
            FailOverMac::Active => OWN,
            FailOverMac::None | FailOverMac::Follow => [HOST; 2],
        }
    }
}

/// A frame and the expected result.
#[derive(Clone, Debug)]
pub struct FrameCase {
    /// Unique among the cases of one policy and way.
    pub name: &'static str,
    pub scene: Scene,
    pub way: Way,
    pub frame: Vec<u8>,
    pub verdict: Verdict,
    pub out: Vec<u8>,
}

impl FrameCase {
    /// Returns whether the program writes into the frame.
    pub fn is_changed(&self) -> bool {
        self.frame != self.out
    }
}

/// Returns the cases of every policy.
pub fn cases(datapath: Datapath) -> Vec<FrameCase> {
    let policies = [FailOverMac::None, FailOverMac::Active, FailOverMac::Follow];
    let scenes = policies.map(Scene::of);
    scenes
        .into_iter()
        .flat_map(|scene| [transmit(scene, datapath), receive(scene, datapath)])
        .flatten()
        .collect()
}

/// Returns a frame of the header and one byte. Test runs accept no shorter frame, and none of IP
/// (net/bpf/test_run.c).
fn runt(destination: Mac, source: Mac) -> Vec<u8> {
    ethernet(destination, source, EXPERIMENTAL)[..15].to_vec()
}

/// Returns a frame that XDP sees in several fragments.
fn jumbo(datapath: Datapath, destination: Mac, source: Mac) -> Vec<u8> {
    // Test runs make an skb of one page.
    let payload = match datapath {
        Datapath::Tc => 3000,
        Datapath::Xdp => 9000,
    };
    ethernet(destination, source, &[IPV4, &vec![0; payload - IPV4.len() + 2]].concat())
}

// One thing: a frame in each row.
fn transmit(scene: Scene, datapath: Datapath) -> Vec<FrameCase> {
    // Frames that bond0 sends get the MAC address of slot 0; under active, so do frames with the other slave's
    // address.
    let [wire, _] = scene.wire_macs();
    let of_other = if scene.policy == FailOverMac::Active { wire } else { OWN[1] };
    let from = |source: Mac, rest| ethernet(PEER, source, rest);
    let broadcast_arp = |mac: Mac| arp(Mac::BROADCAST, mac, mac, PEER);
    let cut_arp = |mac: Mac| broadcast_arp(mac)[..20].to_vec();
    let rewritten = [
        ("unicast", from(HOST, IPV4), from(wire, IPV4)),
        ("multicast", ethernet(GROUP, HOST, IPV4), ethernet(GROUP, wire, IPV4)),
        ("with the wire's MAC", from(wire, IPV4), from(wire, IPV4)),
        ("with another slave's MAC", from(OWN[1], IPV4), from(of_other, IPV4)),
        ("a guest's", from(GUEST, IPV4), from(GUEST, IPV4)),
        ("EAPOL", from(HOST, EAPOL), from(wire, EAPOL)),
        ("MKA", from(HOST, MKA), from(HOST, MKA)),
        ("MACsec", from(HOST, MACSEC), from(HOST, MACSEC)),
        ("LLDP", ethernet(LLDP, HOST, IPV4), ethernet(LLDP, wire, IPV4)),
        ("ARP", broadcast_arp(HOST), broadcast_arp(wire)),
        ("a guest's ARP", broadcast_arp(GUEST), broadcast_arp(GUEST)),
        ("NS", solicitation(HOST), solicitation(wire)),
        ("runt", runt(PEER, HOST), runt(PEER, wire)),
        ("a cut ARP", cut_arp(HOST), [&cut_arp(wire)[..12], &cut_arp(HOST)[12..]].concat()),
        ("jumbo", jumbo(datapath, PEER, HOST), jumbo(datapath, PEER, wire)),
    ];
    let case = |name, frame: &[u8], out: &[u8]| FrameCase {
        name,
        scene,
        way: Way::Transmit,
        frame: frame.to_vec(),
        verdict: Forwarded,
        out: out.to_vec(),
    };
    let mut cases: Vec<FrameCase> =
        rewritten.iter().map(|(name, frame, out)| case(name, frame, out)).collect();
    let tagged_names = [
        ("unicast", "802.1Q", "802.1ad", "QinQ"),
        ("EAPOL", "802.1Q EAPOL", "802.1ad EAPOL", "QinQ EAPOL"),
        ("MKA", "802.1Q MKA", "802.1ad MKA", "QinQ MKA"),
        ("ARP", "802.1Q ARP", "802.1ad ARP", "QinQ ARP"),
        ("NS", "802.1Q NS", "802.1ad NS", "QinQ NS"),
    ];
    for (name, one, other, both) in tagged_names {
        let found = rewritten.iter().find(|(of, ..)| *of == name);
        let Some((_, frame, out)) = found.filter(|_| datapath == Datapath::Xdp) else {
            // The kernel moves an skb's outer tag into its metadata before tc sees it.
            continue;
        };
        cases.push(case(one, &tagged(frame, DOT1Q), &tagged(out, DOT1Q)));
        cases.push(case(other, &tagged(frame, DOT1AD), &tagged(out, DOT1AD)));
        let twice = |frame: &[u8]| tagged(&tagged(frame, DOT1Q), DOT1AD);
        cases.push(case(both, &twice(frame), &twice(out)));
    }
    let unsent = |name, active, reason| {
        let frame = from(HOST, IPV4);
        FrameCase { scene: Scene { active, ..scene }, verdict: Dropped(reason), ..case(name, &frame, &frame) }
    };
    cases.push(unsent("no active slave", None, DropReason::NoActiveSlave));
    cases.push(unsent("a slot without slave", Some(9), DropReason::UnknownSlot));
    cases
}

fn receive(scene: Scene, datapath: Datapath) -> Vec<FrameCase> {
    let wire = scene.wire_macs();
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    let same = |frame: Vec<u8>| (frame.clone(), frame);
    let draining = Scene { draining: Some(1), ..scene };
    let all = Scene { flags: BondEntry::ALL_SLAVES_ACTIVE, ..scene };
    let backup = Dropped(DropReason::Backup);
    let rows = [
        // Active slave: every frame is delivered, and the slave's MAC address as destination becomes bond0's.
        ("unicast", scene, 0, Forwarded, (to(wire[0]), to(HOST))),
        ("to bond0's MAC", scene, 0, Forwarded, same(to(HOST))),
        ("to another slave's MAC", scene, 0, Forwarded, (to(wire[1]), to(HOST))),
        ("to a guest", scene, 0, Forwarded, same(to(GUEST))),
        ("multicast", scene, 0, Forwarded, same(to(GROUP))),
        ("broadcast", scene, 0, Forwarded, same(to(Mac::BROADCAST))),
        ("LLDP", scene, 0, Local, same(to(LLDP))),
        ("ARP", scene, 0, Forwarded, (arp(wire[0], PEER, PEER, wire[0]), arp(HOST, PEER, PEER, HOST))),
        ("NS", scene, 0, Forwarded, same(solicitation(PEER))),
        ("802.1Q", scene, 0, Forwarded, (tagged(&to(wire[0]), DOT1Q), tagged(&to(HOST), DOT1Q))),
        ("runt", scene, 0, Forwarded, (runt(wire[0], PEER), runt(HOST, PEER))),
        ("jumbo", scene, 0, Forwarded, (jumbo(datapath, wire[0], PEER), jumbo(datapath, HOST, PEER))),
        // Draining slave: unicast frames are delivered.
        ("unicast, draining", draining, 1, Forwarded, (to(wire[1]), to(HOST))),
        ("multicast, draining", draining, 1, Dropped(DropReason::DrainingMulticast), same(to(GROUP))),
        ("LLDP, draining", draining, 1, Local, same(to(LLDP))),
        ("unicast, backup", scene, 1, backup, same(to(wire[1]))),
        ("broadcast, backup", scene, 1, backup, same(to(Mac::BROADCAST))),
        ("LLDP, backup", scene, 1, Local, same(to(LLDP))),
        ("broadcast, all_slaves_active", all, 1, Forwarded, same(to(Mac::BROADCAST))),
    ];
    let case = |(name, scene, slot, verdict, (frame, out))| FrameCase {
        name,
        scene,
        way: Way::Receive(slot),
        frame,
        verdict,
        out,
    };
    rows.into_iter().map(case).collect()
}

/// Returns a frame of the addresses and the bytes that follow, padded to the minimum length.
pub fn ethernet(destination: Mac, source: Mac, rest: &[u8]) -> Vec<u8> {
    let mut frame = [&destination.bytes()[..], &source.bytes(), rest].concat();
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// Returns an ARP request.
pub fn arp(destination: Mac, source: Mac, sender: Mac, target: Mac) -> Vec<u8> {
    let fields = [
        &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1][..],
        &sender.bytes(),
        &[192, 168, 99, 101],
        &target.bytes(),
        &[192, 168, 99, 1],
    ];
    ethernet(destination, source, &fields.concat())
}

/// Returns a neighbour solicitation with a correct checksum.
pub fn solicitation(source: Mac) -> Vec<u8> {
    let message = [&[0xfe; 16][..], &[1, 1], &source.bytes()].concat();
    let builder = PacketBuilder::ethernet2(source.bytes(), GROUP.bytes())
        .ipv6([0xfd; 16], [0xff; 16], 255)
        .icmpv6_raw(135, 0, [0; 4]);
    let mut frame = Vec::new();
    builder.write(&mut frame, &message).expect("writing to a Vec cannot fail");
    frame
}

/// Inserts a tag of this type after the addresses.
pub fn tagged(frame: &[u8], tag: [u8; 2]) -> Vec<u8> {
    [&frame[..12], &tag, &[0x20, 5], &frame[12..]].concat()
}
