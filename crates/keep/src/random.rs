//! Random bytes from the operating system.

use crate::Fault;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Fault::no_randomness)?;
    Ok(bytes)
}
