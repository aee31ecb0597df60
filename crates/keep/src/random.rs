//! Random bytes from the operating system.

use crate::error::AuthError;

/// Returns `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(AuthError::no_randomness)?;
    Ok(bytes)
}
