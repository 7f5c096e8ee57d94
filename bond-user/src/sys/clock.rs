//! The veth pair in which the frames of the clock circulate.
//!
//! ```text
//!   bond0-clk0 -- tbf: one frame in each period --> bond0-clk1: tc_tick
//!        ^                                                 |
//!        +------------------- redirect --------------------+
//! ```

use std::time::Duration;

use bond_common::{
    clock::frame::{ClockFrame, FRAMES, LENGTH},
    mac::Mac,
};
use bond_core::name::{BondName, InterfaceName};
use serde::{Deserialize, Serialize};

use super::{
    Devices, SysError,
    alias::Mark,
    ethtool::FeatureState,
    netlink::{FramePace, In6AddrGenMode, LinkSetting, PairKind, PairPlan},
};

/// Bytes: so small that there is no IPv6 on the ends, and that the qdisc's burst is larger than a frame of this size.
const MTU: u32 = 100;
/// Far more bonds than one namespace has.
const MAX_NUMBERED: u32 = 1000;

/// The names of the two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockNames {
    /// The end that frames are sent by, in the pace of its qdisc.
    pub sender: InterfaceName,
    /// The end at which they arrive, and tick.
    pub receiver: InterfaceName,
}

impl ClockNames {
    /// Returns the names that the clock of a bond may have, best first: `bond0-clk0` and `bond0-clk1`, or where these are too
    /// long, `xbc0-clk0` and `xbc0-clk1`, with the next number, and so on.
    pub fn of(bond: &BondName) -> impl Iterator<Item = Self> + use<> {
        let names = |stem: &str| {
            let name = |end: u8| InterfaceName::new(format!("{stem}-clk{end}"));
            Some(Self { sender: name(0).ok()?, receiver: name(1).ok()? })
        };
        let own = names(bond);
        let numbers = 0..if own.is_some() { 0 } else { MAX_NUMBERED };
        own.into_iter().chain(numbers.filter_map(move |number| names(&format!("xbc{number}"))))
    }

    /// Returns the first of these names that no interface has.
    ///
    /// # Errors
    /// The kernel does not answer, or all are taken.
    pub async fn free(devices: &dyn Devices, bond: &BondName) -> Result<Self, SysError> {
        for names in Self::of(bond) {
            if names.are_free(devices).await? {
                return Ok(names);
            }
        }
        Err(SysError::NoFreeName(bond.to_string()))
    }

    async fn are_free(&self, devices: &dyn Devices) -> Result<bool, SysError> {
        for name in [&self.sender, &self.receiver] {
            match devices.link_by_name(name).await {
                Err(error) if error.is_gone() => {}
                answer => return answer.map(|_| false),
            }
        }
        Ok(true)
    }
}

/// The ifindexes of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockPair {
    /// ifindex of the sending end.
    pub sender: u32,
    /// ifindex of the receiving end.
    pub receiver: u32,
}

/// Creates the pair, both ends up, and paces it. Frames that arrive are dropped until the tick is attached.
///
/// # Errors
/// It cannot be created, or paced (no sch_tbf): nothing of it is left, unless the error says so.
pub async fn create(
    devices: &dyn Devices,
    names: &ClockNames,
    mark: &Mark,
    period: Duration,
) -> Result<ClockPair, SysError> {
    let plan = PairPlan {
        bond: &names.sender,
        port: &names.receiver,
        // No frame is sent to it, and the tick ignores it.
        mac: Mac::new([0x02, b'x', b'b', b'c', b'l', b'k']),
        mtu: MTU,
        queues: 1,
        mark: Some(mark),
    };
    let made = devices.create_pair(PairKind::Veth, &plan).await?;
    let pair = ClockPair { sender: made.bond.ifindex, receiver: made.port.ifindex };
    match prepare(devices, pair, period).await {
        Ok(()) => Ok(pair),
        Err(first) => Err(first.after_undoing(devices.delete(pair.sender).await)),
    }
}

/// Makes the ends as the clock needs them: in its pace, without addresses, up.
///
/// # Errors
/// What cannot be set; what was set before stays.
pub async fn prepare(devices: &dyn Devices, pair: ClockPair, period: Duration) -> Result<(), SysError> {
    devices.set(pair.sender, LinkSetting::AddrGenMode(In6AddrGenMode::None)).await?;
    devices.set(pair.sender, LinkSetting::Noarp(true)).await?;
    own_ring(devices, pair)?;
    devices.set_pace(pair.sender, FramePace { bytes: LENGTH as u32, period }).await?;
    for end in [pair.sender, pair.receiver] {
        devices.set(end, LinkSetting::Up(true)).await?;
    }
    await_queue(devices, pair.sender).await
}

/// Waits until the device has its queue: until the kernel has noticed the carrier (linkwatch), its queue is noop, and a frame
/// that is sent round is dropped. A queue that is late costs the frames, which the agent puts in again.
async fn await_queue(devices: &dyn Devices, sender: u32) -> Result<(), SysError> {
    const ATTEMPTS: u32 = 50;
    const BETWEEN: Duration = Duration::from_millis(2);
    for _ in 0..ATTEMPTS {
        if devices.link_by_index(sender).await?.is_running() {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(())
}

/// Has frames arrive by a ring of the receiver's own (NAPI) instead of the backlog of the CPU, where a flood of other packets
/// would drop them: GRO at the receiver, and no TSO at the sender (`veth_skb_is_eligible_for_gro`).
fn own_ring(devices: &dyn Devices, pair: ClockPair) -> Result<(), SysError> {
    let feature = |name: &str, on| FeatureState { name: name.to_owned(), on };
    let known = devices.features(pair.sender)?;
    let tso = known.iter().map(|feature| feature.name.as_str());
    let tso = tso.filter(|name| name.starts_with("tx-tcp")).map(|name| feature(name, false));
    devices.request_features(pair.sender, &tso.collect::<Vec<_>>())?;
    devices.request_features(pair.receiver, &[feature("rx-gro", true)])
}

/// Puts the frames in. `sequences` are those that the tick expects. A frame that circulates already is refused by the tick.
///
/// # Errors
/// The sending end has no packet socket, or does not take a frame; the frames before it are in.
pub fn inject(devices: &dyn Devices, pair: ClockPair, sequences: [u64; FRAMES]) -> Result<(), SysError> {
    let frames = devices.open_frames(pair.sender)?;
    for (number, sequence) in (0..).zip(sequences) {
        frames.send(&ClockFrame { number, sequence }.bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bond: &str) -> Vec<[String; 2]> {
        let names = ClockNames::of(&BondName::new(bond).unwrap());
        names.take(2).map(|names| [names.sender, names.receiver].map(String::from)).collect()
    }

    #[test]
    fn the_ends_of_every_bonds_clock_have_a_name() {
        assert_eq!(names("bond0"), [["bond0-clk0", "bond0-clk1"]]);
        assert_eq!(names("bond012345"), [["bond012345-clk0", "bond012345-clk1"]]);
        for long in ["bond0123456", "0123456789abcde"] {
            assert_eq!(names(long), [["xbc0-clk0", "xbc0-clk1"], ["xbc1-clk0", "xbc1-clk1"]], "{long}");
        }
    }

    /// Network managers and udev leave the ends alone: see packaging/deb.
    #[test]
    fn the_files_of_the_package_match_the_names() {
        let files = [
            (include_str!("../../../packaging/deb/10-xbond.link"), ["*-clk0", "*-clk1"]),
            (include_str!("../../../packaging/deb/10-xbond.network"), ["*-clk0", "*-clk1"]),
            (
                include_str!("../../../packaging/deb/networkmanager.conf"),
                ["interface-name:*-clk0", "interface-name:*-clk1"],
            ),
            (include_str!("../../../packaging/deb/73-xbond.rules"), ["*-clk[01]", "*-clk[01]"]),
        ];
        for bond in ["bond0", "0123456789abcde"] {
            let [sender, receiver] = &names(bond)[0];
            assert!(sender.ends_with("-clk0") && receiver.ends_with("-clk1"), "{bond}");
        }
        for (file, patterns) in files {
            assert!(patterns.iter().all(|pattern| file.contains(pattern)), "{file}");
        }
    }
}
