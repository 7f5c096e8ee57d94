//! Whether the data plane's carrier guard is on for a bond.

use std::fmt;

use bond_core::options::BondOptions;

use crate::{
    report::wording,
    {config::Guard, sys::dataplane::Kernel},
};

/// What a bond's carrier guard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardState {
    On,
    /// With the reason.
    Off(&'static str),
}

impl GuardState {
    /// Of a bond with these options, on this kernel.
    pub fn new(wanted: Guard, kernel: &Kernel, options: &BondOptions) -> Self {
        match wanted {
            Guard::Off => Self::Off(wording::AS_CONFIGURED),
            Guard::Auto if !kernel.has_types() => Self::Off(wording::GUARD_WITHOUT_TYPES),
            // A link that is lost is not what counts, or not yet.
            Guard::Auto if options.miimon == 0 => Self::Off(wording::GUARD_WITHOUT_MIIMON),
            Guard::Auto if options.downdelay > 0 => Self::Off(wording::GUARD_WITH_DOWNDELAY),
            Guard::Auto => Self::On,
        }
    }
}

impl fmt::Display for GuardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("on"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_and_other_monitors_turn_it_off() {
        let kernel = Kernel::read();
        let options = |miimon, downdelay| BondOptions { miimon, downdelay, ..BondOptions::default() };
        if kernel.has_types() {
            assert_eq!(GuardState::new(Guard::Auto, &kernel, &options(100, 0)), GuardState::On);
        }
        for (wanted, kernel, options, why) in [
            (Guard::Off, kernel.clone(), options(100, 0), "as configured"),
            (Guard::Auto, kernel.clone().without_types(), options(100, 0), "lockdown"),
            (Guard::Auto, kernel.clone(), options(0, 0), "miimon is 0"),
            (Guard::Auto, kernel.clone(), options(100, 200), "downdelay"),
        ] {
            let state = GuardState::new(wanted, &kernel, &options).to_string();
            assert!(state.starts_with("off: ") && (state.contains(why) || !kernel.has_types()), "{state}");
        }
    }
}
