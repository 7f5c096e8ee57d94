//! Events.

use std::fmt;

use bond_user::sys::fake::MacChange;
use nix::errno::Errno;

/// An event at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// Its place in the plan of the seed, which stays when others are left out.
    pub number: usize,
    /// Virtual milliseconds since the start.
    pub at: u64,
    /// The event.
    pub event: Event,
}

/// Where an agent is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {
    /// Wherever it is.
    Now,
    /// Before it makes so many further calls.
    AtCall(u16),
}

/// Something that happens to the machine, to its agent, or that a client requests. NICs and bonds are named by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The far end of a cable is connected, or not.
    Cable { nic: usize, connected: bool },
    /// `ip link set NIC up`, or down.
    Admin { nic: usize, up: bool },
    /// The NIC vanishes.
    Unplug { nic: usize },
    /// It returns with another ifindex, closed.
    PlugIn { nic: usize },
    /// From now on its driver takes MAC addresses so.
    Macs { nic: usize, how: MacChange },
    /// Another process holds RTNL for so many milliseconds.
    HoldRtnl { ms: u64 },
    /// Link events arrive late by so many milliseconds, for a while.
    DelayLinkEvents { by: u64, ms: u64 },
    /// Link events are lost for a while (ENOBUFS); then the socket says so.
    LoseLinkEvents { ms: u64 },
    /// The call after so many others fails, before or after its work.
    FailCall { calls: u16, errno: Errno, is_done: bool },
    /// The agent is killed, and the next one started after so many milliseconds.
    Kill { point: KillPoint, ms: u64 },
    /// The agent gets SIGTERM, and the next one is started after so many milliseconds.
    Terminate { ms: u64 },
    /// The agent is stopped (SIGSTOP) for so many milliseconds.
    Stop { ms: u64 },
    /// The machine is suspended for so many milliseconds.
    Suspend { ms: u64 },
    /// The time of day is set ahead by so many seconds, or back.
    SetTimeOfDay { seconds: i64 },
    /// The last line of the receipts loses so many bytes, if no agent runs.
    TearReceipts { bond: usize, bytes: u64 },
    /// Another process writes to the entry of a slot in SLAVES.
    OverwriteSlave { bond: usize, slot: u8 },
    /// Another process writes to BOND.
    OverwriteBond { bond: usize },
    /// The host sends, or is silent.
    Traffic { bond: usize, on: bool },
    /// `xbond set`
    Set { bond: usize, key: &'static str, value: String },
    /// `xbond add-slave`
    AddSlave { bond: usize, nic: usize },
    /// `xbond del-slave`
    DelSlave { bond: usize, nic: usize },
    /// `xbond down`
    Down { bond: usize },
    /// `xbond reload`: bonds become what their files say.
    Reload,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: &bool, yes: &'static str, no: &'static str| if *on { yes } else { no };
        match self {
            Self::Cable { nic, connected } => {
                write!(f, "cable of nic{nic} {}", on(connected, "connected", "pulled"))
            }
            Self::Admin { nic, up } => write!(f, "ip link set nic{nic} {}", on(up, "up", "down")),
            Self::Unplug { nic } => write!(f, "nic{nic} vanishes"),
            Self::PlugIn { nic } => write!(f, "nic{nic} returns"),
            Self::Macs { nic, how } => write!(f, "the driver of nic{nic} takes MAC addresses: {how:?}"),
            Self::HoldRtnl { ms } => write!(f, "another process holds RTNL for {ms} ms"),
            Self::DelayLinkEvents { by, ms } => write!(f, "link events are {by} ms late for {ms} ms"),
            Self::LoseLinkEvents { ms } => write!(f, "link events are lost for {ms} ms"),
            Self::FailCall { calls, errno, is_done } => {
                write!(
                    f,
                    "call {calls} from now fails with {errno:?}{}",
                    on(is_done, ", although it is done", "")
                )
            }
            Self::Kill { point: KillPoint::Now, ms } => {
                write!(f, "the agent is killed, the next one starts after {ms} ms")
            }
            Self::Kill { point: KillPoint::AtCall(call), ms } => {
                write!(f, "the agent is killed at call {call} from now, the next one starts after {ms} ms")
            }
            Self::Terminate { ms } => write!(f, "SIGTERM, the next agent starts after {ms} ms"),
            Self::Stop { ms } => write!(f, "SIGSTOP for {ms} ms"),
            Self::Suspend { ms } => write!(f, "the machine is suspended for {ms} ms"),
            Self::SetTimeOfDay { seconds } => write!(f, "the time of day is set by {seconds} s"),
            Self::TearReceipts { bond, bytes } => {
                write!(f, "the last line of the receipts of bond{bond} is torn by {bytes} bytes")
            }
            Self::OverwriteSlave { bond, slot } => {
                write!(f, "another process writes to SLAVES of bond{bond} at {slot}")
            }
            Self::OverwriteBond { bond } => write!(f, "another process writes to BOND of bond{bond}"),
            Self::Traffic { bond, on: sends } => {
                write!(f, "the host {} by bond{bond}", on(sends, "sends", "sends nothing"))
            }
            Self::Set { bond, key, value } => write!(f, "xbond set bond{bond} {key}={value}"),
            Self::AddSlave { bond, nic } => write!(f, "xbond add-slave bond{bond} nic{nic}"),
            Self::DelSlave { bond, nic } => write!(f, "xbond del-slave bond{bond} nic{nic}"),
            Self::Down { bond } => write!(f, "xbond down bond{bond}"),
            Self::Reload => write!(f, "xbond reload"),
        }
    }
}
