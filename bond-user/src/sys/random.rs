//! The kernel's random numbers.

use super::SysError;

/// Returns a random number that no other process can predict.
///
/// # Errors
/// The kernel gives no random numbers, for example because a filter of system calls refuses getrandom(2).
pub fn number() -> Result<u64, SysError> {
    #[cfg(any(test, feature = "fake"))]
    if let Some(number) = super::fake::random::number() {
        return Ok(number);
    }
    getrandom::u64().map_err(|error| SysError::kernel("read random numbers", "the kernel", error.into()))
}
