//! Choosing the cookie that counts, if a request sent several of one name.

use super::contents::{Contents, Opened};
use super::jar::FoundValues;
use super::seal::Sealer;

/// Compares several cookies of one name that all have a valid seal, to decide which of them counts.
pub(crate) trait ByRecency {
    /// Checks whether both cookies belong to the same user.
    fn is_same_user(&self, other: &Self) -> bool;

    /// Returns a value that is greater, the later the cookie was made or renewed. The cookie with
    /// the greatest value counts.
    fn recency(&self) -> (u32, u32);
}

/// Opens all cookies that were sent under one name, and returns the cookie that counts.
///
/// The order in which the cookies were sent does not matter. Several cookies of one user, all with
/// a valid seal, are left over from a change of path or domain: the latest cookie counts. If two
/// cookies are equally recent, the cookie whose bytes are greater counts. If the cookies belong to
/// different users, an attacker has planted one of them (a sibling domain can do that), and none of
/// them counts.
pub(crate) fn choose<T: Contents + ByRecency>(
    found: &FoundValues<'_>,
    sealer: &Sealer,
) -> Option<Opened<T>> {
    let mut values = found.values();
    let first = values.next()?;
    let mut chosen = sealer.open::<T>(first);
    let mut chosen_value = first;
    // Browsers send one cookie of this name. The loop is for clients that send more.
    for value in values {
        let Some(opened) = sealer.open::<T>(value) else { continue };
        match &chosen {
            Some(other) if !other.cookie.is_same_user(&opened.cookie) => {
                tracing::debug!(
                    "a request sent cookies of different users under one name, all with a valid \
                     signature: none of them counts"
                );
                return None;
            }
            Some(other)
                if (other.cookie.recency(), chosen_value) >= (opened.cookie.recency(), value) => {}
            _ => (chosen, chosen_value) = (Some(opened), value),
        }
    }
    chosen
}
