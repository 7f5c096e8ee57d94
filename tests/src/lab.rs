//! The lab: a host with NICs, a switch, and a peer, each in its namespace.
//!
//! ```text
//!  host                    switch                 peer
//!    enp0s8 --------- p0 \
//!                         br0 --- peer -------- eth0 192.168.99.1/24, fd00:99::1/64
//!    enp0s9 --------- p1 /
//! ```

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Mac,
    netns::{self, NetNs},
    switch::{Policy, Switch},
    tap::TapWire,
};

/// The address of the reference scenario's bond0, /24; tests assign it.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 101);
/// The peer's address, /24.
pub const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 1);
/// An address for bond0 in the peer's prefix, /64.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 0x101);
/// The peer's address, /64.
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1);

/// The peer's interface.
pub const PEER_NIC: &str = "eth0";
const PEER_PORT: &str = "peer";

/// A NIC of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    pub name: String,
    /// The permanent MAC address.
    pub mac: Mac,
}

impl Nic {
    pub fn new(name: &str, mac: [u8; 6]) -> Self {
        Self { name: name.to_owned(), mac: Mac::new(mac) }
    }

    /// The two NICs of the reference scenario.
    pub fn scenario() -> Vec<Self> {
        vec![
            Self::new("enp0s8", [0x08, 0x00, 0x27, 0xe8, 0x26, 0x58]),
            Self::new("enp0s9", [0x08, 0x00, 0x27, 0x27, 0xa9, 0x2d]),
        ]
    }
}

/// The type of the host's NICs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    #[default]
    Veth,
    /// Slower, but a carrier cut loses no packet that was sent before it.
    Tap,
}

/// The datapath that the bond will use: traffic that XDP redirects needs complete checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Datapath {
    #[default]
    Tc,
    Xdp,
}

impl Datapath {
    /// Returns the name for `xbond run --datapath`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }
}

/// A way in which a link fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The cable is pulled: the NIC loses its carrier.
    Carrier,
    /// `ip link set NIC down` in the host.
    Admin,
    /// The switch's port stops forwarding, and the carrier stays: only probes detect it.
    Silent,
}

/// The components of a lab; by default the reference scenario on an ordinary switch.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    name: Option<String>,
    nics: Vec<Nic>,
    wire: Wire,
    policy: Policy,
    datapath: Datapath,
    mtu: u32,
    two_switches: bool,
}

impl LabBuilder {
    /// Sets a fixed first part of the namespaces' names. A lab of that name that an earlier run left is replaced.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    pub fn nics(mut self, nics: impl IntoIterator<Item = Nic>) -> Self {
        self.nics = nics.into_iter().collect();
        self
    }

    pub fn wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }

    pub fn switch(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    pub fn datapath(mut self, datapath: Datapath) -> Self {
        self.datapath = datapath;
        self
    }

    /// Sets the MTU of every link of the lab, in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Connects every second NIC to a second switch, which a trunk joins to the first one. The peer is at the first.
    pub fn two_switches(mut self) -> Self {
        self.two_switches = true;
        self
    }

    /// Creates the namespaces, the switch, the NICs and the peer.
    ///
    /// # Errors
    /// `ip` or `tc` fails; what was created is removed on drop.
    pub fn build(self) -> Result<Lab> {
        let stem = self.name.clone().unwrap_or_else(netns::unique_stem);
        let netns = |role: &str| {
            let name = format!("{stem}-{role}");
            if self.name.is_some() {
                netns::remove(&name);
            }
            NetNs::create(&name)
        };
        let (host, peer) = (netns("host")?, netns("peer")?);
        let switch = Switch::create(netns("switch")?, self.policy, self.mtu)?;
        if self.two_switches {
            switch.add_second()?;
        }
        let mut lab = Lab { host, peer, switch, nics: self.nics.clone(), wires: Vec::new() };
        for (index, nic) in lab.nics.iter().enumerate() {
            let port = Switch::port(index);
            let Nic { name, mac } = nic;
            match self.wire {
                Wire::Veth => connect(&lab.host, name, &lab.switch, &port)?,
                Wire::Tap => {
                    lab.wires.push(TapWire::create((&lab.host, name), (&lab.switch.netns, &port))?);
                }
            }
            lab.host.ip(&format!("link set {name} address {mac} mtu {}", self.mtu))?;
            if self.two_switches && index % 2 == 1 {
                lab.switch.plug_into_second(&port)?;
            } else {
                lab.switch.plug(&port)?;
            }
            if self.datapath == Datapath::Xdp {
                // On a wire checksums are complete. Frames that the bridge's GRO merged and then segmented have none.
                lab.switch.netns.exec(&format!("ethtool -K {port} tx off"))?;
            }
            lab.switch.guard(&port, *mac)?;
        }
        lab.connect_peer(&self)?;
        Ok(lab)
    }
}

/// A lab. Dropping it removes everything, including processes in it.
#[derive(Debug)]
pub struct Lab {
    /// The namespace of the NICs, all down, and of `xbond`.
    pub host: NetNs,
    /// The peer, with the addresses [`PEER_V4`] and [`PEER_V6`].
    pub peer: NetNs,
    pub switch: Switch,
    pub nics: Vec<Nic>,
    wires: Vec<TapWire>,
}

impl Lab {
    pub fn builder() -> LabBuilder {
        LabBuilder {
            name: None,
            nics: Nic::scenario(),
            wire: Wire::default(),
            policy: Policy::default(),
            datapath: Datapath::default(),
            mtu: 1500,
            two_switches: false,
        }
    }

    /// Creates the reference scenario's NICs on an ordinary switch.
    ///
    /// # Errors
    /// As for [`LabBuilder::build`].
    pub fn scenario() -> Result<Self> {
        Self::builder().build()
    }

    fn connect_peer(&self, wanted: &LabBuilder) -> Result<()> {
        let peer = &self.peer;
        connect(peer, PEER_NIC, &self.switch, PEER_PORT)?;
        self.switch.plug(PEER_PORT)?;
        if wanted.datapath == Datapath::Xdp {
            peer.exec(&format!("ethtool -K {PEER_NIC} tx off"))?;
        }
        peer.ip(&format!("address add {PEER_V4}/24 dev {PEER_NIC}"))?;
        peer.ip(&format!("address add {PEER_V6}/64 dev {PEER_NIC} nodad"))?;
        peer.ip(&format!("link set {PEER_NIC} mtu {} up", wanted.mtu))?;
        self.switch.wait_for_forwarding(PEER_PORT)
    }

    /// Returns the permanent MAC address of a NIC.
    ///
    /// # Errors
    /// There is no such NIC.
    pub fn mac(&self, nic: &str) -> Result<Mac> {
        Ok(self.nics[self.index(nic)?].mac)
    }

    /// Returns the switch's port to which a NIC is connected.
    ///
    /// # Errors
    /// There is no such NIC.
    pub fn port(&self, nic: &str) -> Result<String> {
        self.index(nic).map(Switch::port)
    }

    fn index(&self, nic: &str) -> Result<usize> {
        let place = self.nics.iter().position(|known| known.name == nic);
        place.with_context(|| format!("the lab has no NIC {nic}"))
    }

    /// Makes the link of `nic` fail. Returns the time just before.
    ///
    /// # Errors
    /// There is no such NIC, or its link cannot be changed.
    pub fn cut(&self, nic: &str, cut: Cut) -> Result<Instant> {
        self.set_link(nic, cut, false)
    }

    /// Undoes a [`cut`](Self::cut). Returns the time just before.
    ///
    /// # Errors
    /// There is no such NIC, or its link cannot be changed.
    pub fn reconnect(&self, nic: &str, cut: Cut) -> Result<Instant> {
        self.set_link(nic, cut, true)
    }

    fn set_link(&self, nic: &str, cut: Cut, good: bool) -> Result<Instant> {
        let index = self.index(nic)?;
        let state = if good { "up" } else { "down" };
        let start = Instant::now();
        match cut {
            Cut::Carrier => match self.wires.get(index) {
                Some(tap) => tap.set_carrier(good)?,
                None => self.switch.set_up(&Switch::port(index), good)?,
            },
            Cut::Admin => drop(self.host.ip(&format!("link set {nic} {state}"))?),
            Cut::Silent => self.switch.set_forwarding(&Switch::port(index), good)?,
        }
        Ok(start)
    }

    /// Leaves namespaces and processes behind on drop. Only a lab of veths can outlive its process.
    ///
    /// # Errors
    /// The lab has taps.
    pub fn keep(&mut self) -> Result<()> {
        ensure!(self.wires.is_empty(), "a lab of taps ends with its process");
        for netns in [&mut self.host, &mut self.peer, &mut self.switch.netns] {
            netns.keep();
        }
        Ok(())
    }
}

/// Creates a veth pair between a host and a port of the switch.
fn connect(host: &NetNs, nic: &str, switch: &Switch, port: &str) -> Result<()> {
    let (host, switch) = (host.name(), switch.netns.name());
    let line = format!("ip link add name {nic} netns {host} type veth peer name {port} netns {switch}");
    let mut words = line.split(' ');
    let mut command = std::process::Command::new(words.next().unwrap_or_default());
    netns::output(command.args(words)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::{Capture, Flow, FlowOptions, Frame, Listener, PacketSocket, Recovery, WAIT_LIMIT, datagram};

    const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];
    const EVERYBODY: [u8; 6] = [0xff; 6];
    const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 0x7b];

    /// Returns a UDP frame that `number` distinguishes from others.
    fn frame(source: [u8; 6], destination: [u8; 6], number: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(source, destination);
        let builder = builder.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 1).udp(number, number);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"xbond").unwrap();
        bytes
    }

    fn is(bytes: &[u8]) -> impl Fn(&Frame) -> bool {
        move |frame| !frame.outgoing && frame.bytes == bytes
    }

    /// Returns a lab with the peer and both NICs up, without a bond.
    fn lab(builder: LabBuilder) -> Lab {
        let lab = builder.build().unwrap();
        for nic in &lab.nics {
            lab.host.ip(&format!("link set {} up", nic.name)).unwrap();
        }
        for nic in &lab.nics {
            lab.switch.wait_for_forwarding(&lab.port(&nic.name).unwrap()).unwrap();
        }
        lab
    }

    /// Sends each frame, and returns which of them arrive before a last one that must arrive.
    fn arrive(from: &PacketSocket, to: (&NetNs, &str), frames: &[Vec<u8>], last: &[u8]) -> Vec<bool> {
        let capture = Capture::start_on(to.0, to.1).unwrap();
        for frame in frames {
            from.send(frame).unwrap();
        }
        from.send(last).unwrap();
        capture.wait_for(WAIT_LIMIT, is(last)).unwrap();
        let seen = capture.stop().unwrap();
        frames.iter().map(|frame| seen.iter().any(is(frame))).collect()
    }

    #[test]
    fn the_virtualbox_switch_takes_only_frames_from_the_burned_in_mac() {
        crate::skip_if_unable!();
        for (policy, foreign) in [(Policy::VirtualBox, false), (Policy::Learning, true)] {
            let lab = lab(Lab::builder().switch(policy));
            let burned_in = lab.mac("enp0s8").unwrap().bytes();
            let socket = PacketSocket::open(&lab.host, "enp0s8").unwrap();
            let frames = [
                frame(burned_in, EVERYBODY, 1),
                frame(OTHER, EVERYBODY, 2),
                frame(lab.mac("enp0s9").unwrap().bytes(), EVERYBODY, 3),
            ];
            let arrived = arrive(&socket, (&lab.peer, PEER_NIC), &frames, &frame(burned_in, EVERYBODY, 9));
            assert_eq!(arrived, [true, foreign, foreign], "{policy:?}");
            let refused = lab.switch.refused("p0").unwrap();
            assert_eq!(refused >= 2, policy == Policy::VirtualBox, "{policy:?}: {refused} refused");
        }
    }

    #[test]
    fn the_virtualbox_switch_delivers_only_frames_for_the_nic() {
        crate::skip_if_unable!();
        for (policy, foreign) in [(Policy::VirtualBox, false), (Policy::Learning, true)] {
            let lab = lab(Lab::builder().switch(policy));
            let burned_in = lab.mac("enp0s9").unwrap().bytes();
            let socket = PacketSocket::open(&lab.peer, PEER_NIC).unwrap();
            // The bridge does not know OTHER and floods the frame.
            let [own, other, group] = [burned_in, OTHER, GROUP].map(|to| frame([2, 0, 0, 0, 0, 1], to, 1));
            let last = frame([2, 0, 0, 0, 0, 1], EVERYBODY, 9);
            let arrived = arrive(&socket, (&lab.host, "enp0s9"), &[own, other, group], &last);
            assert_eq!(arrived, [true, foreign, true], "{policy:?}");
        }
    }

    #[test]
    fn tags_of_both_kinds_pass_the_switch_and_are_captured_in_place() {
        crate::skip_if_unable!();
        let lab = lab(Lab::builder());
        let plain = frame(lab.mac("enp0s8").unwrap().bytes(), EVERYBODY, 5);
        let tagged = |tags: &[u8]| [&plain[..12], tags, &plain[12..]].concat();
        let frames = [tagged(&[0x81, 0, 0, 7]), tagged(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7])];
        let socket = PacketSocket::open(&lab.host, "enp0s8").unwrap();
        let arrived = arrive(&socket, (&lab.peer, PEER_NIC), &frames, &plain);
        assert_eq!(arrived, [true, true]);
    }

    #[test]
    fn each_kind_of_cut_is_visible_and_is_repaired() {
        crate::skip_if_unable!();
        for wire in [Wire::Veth, Wire::Tap] {
            let lab = lab(Lab::builder().wire(wire));
            let carrier = || lab.host.link("enp0s8").unwrap().has_carrier();
            let up = || lab.host.link("enp0s8").unwrap().is_up();
            for cut in [Cut::Carrier, Cut::Admin, Cut::Silent] {
                assert!(up() && carrier(), "{wire:?} before {cut:?}");
                lab.cut("enp0s8", cut).unwrap();
                assert_eq!((up(), carrier()), (cut != Cut::Admin, cut == Cut::Silent), "{wire:?} {cut:?}");
                lab.reconnect("enp0s8", cut).unwrap();
            }
            assert!(up() && carrier(), "{wire:?}");
        }
    }

    /// Returns a host with an address on its NIC, and without a bond.
    fn with_address(builder: LabBuilder) -> Lab {
        let lab = lab(builder);
        lab.host.ip(&format!("address add {HOST_V4}/24 dev enp0s8")).unwrap();
        lab
    }

    #[test]
    fn a_flow_counts_what_a_silent_port_swallows() {
        crate::skip_if_unable!();
        for wire in [Wire::Veth, Wire::Tap] {
            let lab = with_address(Lab::builder().wire(wire));
            let options = FlowOptions { rate: 2_000, ..FlowOptions::default() };
            let start =
                || Flow::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), options).unwrap();

            let whole = start();
            whole.wait_for_more(500).unwrap();
            let whole = whole.stop().unwrap();
            assert_eq!((whole.lost, whole.duplicated, whole.refused), (0, 0, 0), "{wire:?}: {whole:?}");

            let holed = start();
            holed.wait_for_more(200).unwrap();
            let event = lab.cut("enp0s8", Cut::Silent).unwrap();
            let sent_before = holed.arrived();
            let outage = Duration::from_millis(100);
            std::thread::sleep(outage);
            lab.reconnect("enp0s8", Cut::Silent).unwrap();
            holed.wait_for_more(1).unwrap();
            let holed = holed.stop().unwrap();
            // 100 ms of 2000 packets a second; load may delay the repair, but cannot make it earlier.
            assert!(holed.lost >= 190, "{wire:?}: {} lost", holed.lost);
            assert!(holed.received >= sent_before && holed.longest_gap >= outage, "{wire:?}");
            match holed.recovery(event) {
                Recovery::After(time) => assert!(time >= outage, "{wire:?}: {time:?}"),
                Recovery::Never => panic!("{wire:?}: never"),
            }
        }
    }

    #[test]
    fn a_flow_over_a_cut_link_never_recovers() {
        crate::skip_if_unable!();
        let lab = with_address(Lab::builder());
        let options = FlowOptions { rate: 1_000, ..FlowOptions::default() };
        let flow = Flow::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), options).unwrap();
        flow.wait_for_more(100).unwrap();
        let event = lab.cut("enp0s8", Cut::Carrier).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let report = flow.stop().unwrap();
        assert_eq!(report.recovery(event), Recovery::Never);
        assert!(report.lost >= 500, "{} lost", report.lost);
    }

    #[test]
    fn multicast_and_broadcast_frames_are_received() {
        crate::skip_if_unable!();
        let lab = with_address(Lab::builder());
        let group = Ipv4Addr::new(239, 1, 2, 3);
        lab.peer.ip(&format!("route add 239.0.0.0/8 dev {PEER_NIC}")).unwrap();
        let member = Listener::join(&lab.host, group, HOST_V4).unwrap();
        datagram::send(&lab.peer, PEER_V4, (group, member.port()), b"to the group").unwrap();
        member.expect(b"to the group").unwrap();

        let listener = Listener::open(&lab.host).unwrap();
        let everybody = Ipv4Addr::new(192, 168, 99, 255);
        lab.peer.ip(&format!("address change {PEER_V4}/24 broadcast {everybody} dev {PEER_NIC}")).unwrap();
        datagram::send(&lab.peer, PEER_V4, (everybody, listener.port()), b"to all").unwrap();
        listener.expect(b"to all").unwrap();
    }

    #[test]
    fn bulk_and_ping_over_jumbo_frames_both_ways() {
        crate::skip_if_unable!();
        let lab = with_address(Lab::builder().mtu(9000));
        let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
        let report = lab.host.ping(PEER_V4.into(), 3).unwrap();
        assert_eq!((report.sent, report.received), (3, 3));
        lab.host.exec(&format!("ping -c 1 -W 5 -M do -s 8972 {PEER_V4}")).unwrap();
        for (from, to) in [(host, peer), (peer, host)] {
            let bulk = crate::Bulk::start(from, to, 16 << 20).unwrap();
            bulk.wait_for(1 << 20).unwrap();
            assert_eq!(bulk.finish().unwrap().bytes, 16 << 20);
        }
    }
}
