//! The maps of one bond, as a program on its slaves reads them.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    FollowError, MAX_SLAVES, Word, paths,
    sys::{self, Mapping, Shape},
};

const ACTIVE: Shape = Shape { name: "ACTIVE", value_size: 8, entries: 1 };
const SLAVES: Shape = Shape { name: "SLAVES", value_size: 48, entries: MAX_SLAVES as usize };

/// The offsets in a value of SLAVES, in bytes.
const WIRE_MAC: usize = 0;
const IFINDEX: usize = 32;

/// How often [`Follower::active`] reads again while the word changes under it.
const ATTEMPTS: u32 = 8;
/// The shortest interval of [`Follower::wait`] and [`crate::Watch`].
pub(crate) const SHORTEST_INTERVAL: Duration = Duration::from_micros(10);

/// A slave of the bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slave {
    /// Its index in the bond, 0 to 15, which it keeps until it is released. A slot that a slave left stays free for a
    /// second.
    pub slot: u8,
    /// The interface index of its device.
    pub ifindex: u32,
    /// The source MAC address of frames that leave through it while it is active, in wire order. It is the bond's address
    /// under `fail_over_mac=none` and `follow`, the slave's own under `active`. It changes without a change of the word
    /// when the bond's MAC address is changed.
    pub mac: [u8; 6],
}

/// The maps of one bond, mapped read-only.
///
/// It can be shared between threads. It stays valid after the bond is gone, and then reads the last values for ever:
/// [`Self::is_current`] tells the two apart.
#[derive(Debug)]
pub struct Follower {
    active: Mapping,
    slaves: Mapping,
    /// None if the program got the descriptors from another one.
    pins: Option<PathBuf>,
}

impl Follower {
    /// Opens the bond of this name in the network namespace of the calling thread.
    ///
    /// The pins are accessible to root, or to the user of the agent's service. Before Linux 5.19 the call also takes
    /// CAP_BPF if `kernel.unprivileged_bpf_disabled` is set.
    ///
    /// # Errors
    /// There is no such bond, this process may not open its maps, or a version of xbond with other maps made it.
    pub fn open(bond: &str) -> Result<Self, FollowError> {
        Self::open_at(&paths::pins_of(bond)?)
    }

    /// Opens the bond whose maps are pinned in this directory, as `/sys/fs/bpf/xbond/bond0`.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_at(pins: &Path) -> Result<Self, FollowError> {
        let open = |shape: Shape| {
            let path = pins.join(shape.name);
            sys::open_pin(&path).map_err(|source| FollowError::Open { path, source })
        };
        let follower = Self::from_maps(open(ACTIVE)?, open(SLAVES)?)?;
        Ok(Self { pins: Some(pins.to_owned()), ..follower })
    }

    /// Follows the bond with these maps, for a program that may not open pins: a privileged one opens ACTIVE and SLAVES
    /// (BPF_OBJ_GET, without BPF_F_RDONLY: the kernel maps nothing by a read-only descriptor) and passes the descriptors. They
    /// may be closed afterwards; the memory stays read-only.
    ///
    /// # Errors
    /// A descriptor is not of the expected map, or the map cannot be mapped.
    pub fn from_maps(active: impl AsFd, slaves: impl AsFd) -> Result<Self, FollowError> {
        Ok(Self {
            active: Mapping::new(active.as_fd(), ACTIVE)?,
            slaves: Mapping::new(slaves.as_fd(), SLAVES)?,
            pins: None,
        })
    }

    /// Returns ACTIVE as it is at this moment: one load, after which no later load of this thread is older.
    #[inline]
    pub fn word(&self) -> Word {
        Word::from_bits(self.active.word(0))
    }

    /// Returns the active slave, None if the bond has none: for one batch of frames. A program that reads it again before
    /// each batch sends nothing by another slave after a failover, except the batch that it had already begun.
    #[inline]
    pub fn active(&self) -> Option<Slave> {
        self.active_with_word().1
    }

    /// Returns the active slave as [`Self::active`] does, with the word that named it.
    #[inline]
    pub fn active_with_word(&self) -> (Word, Option<Slave>) {
        let mut word = self.word();
        for _ in 0..ATTEMPTS {
            let slave = word.active().and_then(|slot| self.slave(slot));
            // If the word is another one now, the slot may have got another slave between the two loads.
            let now = self.word();
            if now == word {
                return (word, slave);
            }
            word = now;
        }
        (word, word.active().and_then(|slot| self.slave(slot)))
    }

    /// Returns the slave in a slot, None if the slot is free.
    #[inline]
    pub fn slave(&self, slot: u8) -> Option<Slave> {
        if slot >= MAX_SLAVES {
            return None;
        }
        let at = usize::from(slot) * SLAVES.value_size;
        let [a, b, c, d, e, f, _, _] = self.slaves.word(at + WIRE_MAC).to_ne_bytes();
        let ifindex = self.slaves.half(at + IFINDEX);
        (ifindex != 0).then_some(Slave { slot, ifindex, mac: [a, b, c, d, e, f] })
    }

    /// Returns all slaves, in the order of their slots.
    pub fn slaves(&self) -> impl Iterator<Item = Slave> + '_ {
        (0..MAX_SLAVES).filter_map(|slot| self.slave(slot))
    }

    /// Waits until the word is not `seen`, and returns it; returns `seen` after `timeout` (None: no limit). The thread
    /// sleeps, and reads the word once in each `interval`, at least 10 µs.
    pub fn wait(&self, seen: Word, interval: Duration, timeout: Option<Duration>) -> Word {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let interval = interval.max(SHORTEST_INTERVAL);
        loop {
            let word = self.word();
            if word != seen {
                return word;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return seen;
            }
            sys::pause(left.map_or(interval, |left| left.min(interval)), None);
        }
    }

    /// Returns whether the bond still has these maps: false if it was removed, or was created again since. Two system
    /// calls, for a program to call once in a while.
    ///
    /// # Errors
    /// The pin cannot be opened for another reason than that it is gone, or the program got descriptors and no path.
    pub fn is_current(&self) -> io::Result<bool> {
        let Some(pins) = &self.pins else { return Err(io::ErrorKind::Unsupported.into()) };
        match sys::open_pin(&pins.join(ACTIVE.name)) {
            Ok(map) => Ok(sys::info(map.as_fd())?.id == self.active.id()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
