//! Random numbers of a thread that are the same each time.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Gives this thread the numbers of this seed, or those of the kernel.
pub fn seed(seed: Option<u64>) {
    STATE.set(seed);
}

/// Returns the next number (SplitMix64); `None` on a thread with the kernel's numbers.
pub fn number() -> Option<u64> {
    let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}
