//! A set of sessions, in the order in which they were created.

use std::collections::BTreeSet;

use tower_keep_core::{SessionKey, Timestamp};

/// When a session was created, and its key.
type Entry = (Timestamp, SessionKey);

/// The maximum number of entries in [`SessionSet::Few`]. With more entries, a tree takes no more
/// memory than a vector.
const MAX_FEW: usize = 8;

/// A sorted set of sessions. A set of few sessions, which most users have, takes little memory. In
/// a set of many sessions, every operation takes logarithmic time.
pub(crate) enum SessionSet {
    Few(Vec<Entry>),
    Many(BTreeSet<Entry>),
}

impl Default for SessionSet {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl SessionSet {
    pub(crate) fn insert(&mut self, entry: Entry) {
        match self {
            Self::Few(few) => match few.binary_search(&entry) {
                Ok(_) => {}
                Err(index) if few.len() < MAX_FEW => {
                    few.reserve_exact(1);
                    few.insert(index, entry);
                }
                Err(_) => {
                    let mut many: BTreeSet<_> = few.drain(..).collect();
                    many.insert(entry);
                    *self = Self::Many(many);
                }
            },
            Self::Many(many) => {
                many.insert(entry);
            }
        }
    }

    /// Removes a session. Returns `false` if it was not in the set.
    pub(crate) fn remove(&mut self, entry: &Entry) -> bool {
        match self {
            Self::Few(few) => match few.binary_search(entry) {
                Ok(index) => {
                    few.remove(index);
                    true
                }
                Err(_) => false,
            },
            Self::Many(many) => many.remove(entry),
        }
    }

    /// Removes the oldest session, and returns its key.
    pub(crate) fn pop_oldest(&mut self) -> Option<SessionKey> {
        let oldest = match self {
            Self::Few(few) if few.is_empty() => None,
            Self::Few(few) => Some(few.remove(0)),
            Self::Many(many) => many.pop_first(),
        };
        oldest.map(|(_, key)| key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// Iterates over the keys, the newest session first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &SessionKey> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().rev();
        few.chain(many.into_iter().flatten().rev()).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: u32) -> Entry {
        (Timestamp::from_secs(created), SessionKey::new([created as u8; 32]))
    }

    #[test]
    fn few_and_many_sessions_are_kept_in_order() {
        for count in [1, 2, MAX_FEW as u32, MAX_FEW as u32 + 1, 100] {
            let mut set = SessionSet::default();
            for created in (0..count).rev().chain(0..count) {
                set.insert(entry(created));
            }
            let newest: Vec<_> = set.newest_first().copied().collect();
            assert_eq!(
                newest,
                (0..count).rev().map(|created| entry(created).1).collect::<Vec<_>>()
            );
            assert!(set.remove(&entry(count / 2)) && !set.remove(&entry(count / 2)));
            let mut popped = Vec::new();
            while let Some(key) = set.pop_oldest() {
                popped.push(key);
            }
            let expected = (0..count).filter(|created| *created != count / 2);
            let expected = expected.map(|created| entry(created).1);
            assert_eq!(popped, expected.collect::<Vec<_>>());
            assert!(set.is_empty());
        }
    }
}
