//! /proc/net/softnet_stat: packets that the kernel's receive path dropped before any program ran.

use std::{fs, io};

const FILE: &str = "/proc/net/softnet_stat";

/// Sums over all CPUs since the machine was started, of all network namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// Packets for which a CPU's backlog had no space (`net.core.netdev_max_backlog`).
    pub dropped: u64,
    /// How often a CPU ran out of budget with packets left (`net.core.netdev_budget`).
    pub time_squeeze: u64,
}

impl Softnet {
    /// Reads the table of this machine.
    ///
    /// # Errors
    /// The file cannot be read, or is no such table.
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string(FILE)?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("{FILE}: not the table that it should be")))
    }

    /// Parses a line of hexadecimal columns per CPU; the first three are processed, dropped, time_squeeze.
    fn parse(text: &str) -> Option<Self> {
        let mut sum = Self::default();
        for line in text.lines() {
            let mut columns = line.split_whitespace().map(|column| u64::from_str_radix(column, 16).ok());
            let (_, dropped, time_squeeze) = (columns.next()??, columns.next()??, columns.next()??);
            sum.dropped += dropped;
            sum.time_squeeze += time_squeeze;
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_summed() {
        let text =
            "0000272d 0000000a 00000001 00000000 00000000\n000034d9 00000010 00000002 00000000 00000000\n";
        assert_eq!(Softnet::parse(text), Some(Softnet { dropped: 26, time_squeeze: 3 }));
        for wrong in ["0000272d 0000000a\n", "0000272d xyz 0\n"] {
            assert_eq!(Softnet::parse(wrong), None, "{wrong}");
        }
        Softnet::read().unwrap();
    }
}
