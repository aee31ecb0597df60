//! The limit on a user's live sessions, and which sessions end to make room for a login.

use crate::session::SessionRecord;

/// [`create`](crate::SessionStore::create) ends at most this many of the user's sessions one by
/// one, and returns at most this many replays.
///
/// If a login has to end more sessions, it ends them together. If there are more replays, the next
/// login returns them. So the work of a call does not grow with the number of sessions.
pub const MAX_PER_CALL: usize = 100;

/// The maximum number of a user's live sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionLimit {
    /// The maximum; at least one.
    pub max: usize,
    /// What happens to a login when the user has this many sessions already.
    pub when_full: WhenFull,
}

impl SessionLimit {
    /// Creates a limit of `max` live sessions.
    pub const fn new(max: usize, when_full: WhenFull) -> Self {
        Self { max, when_full }
    }

    /// Returns how many of a user's live sessions a store has to read for [`room`](Self::room), the
    /// newest by `created` first. The number does not depend on how many sessions there are.
    pub fn records_to_read(&self) -> usize {
        self.max.saturating_add(MAX_PER_CALL)
    }

    /// Decides how to make room for one more session. Every store uses this method to plan a login.
    ///
    /// `live` holds the user's live sessions in any order, without the sessions that the login
    /// replaces. If the user has more than [`records_to_read()`](Self::records_to_read) of them,
    /// `live` holds only the newest `records_to_read()` sessions.
    pub fn room<R: AsRef<SessionRecord>>(&self, live: Vec<R>) -> Room<R> {
        let is_complete = live.len() < self.records_to_read();
        let surplus = (live.len() + 1).saturating_sub(self.max);
        let mut oldest_first = live;
        oldest_first.sort_by_key(|record| record.as_ref().created);
        match self.when_full {
            WhenFull::Refuse => {
                let (unused, used): (Vec<_>, Vec<_>) =
                    oldest_first.into_iter().partition(|record| record.as_ref().is_unused());
                if used.len() >= self.max || !is_complete {
                    return Room::None;
                }
                Room::EndEach(unused.into_iter().take(surplus).collect())
            }
            WhenFull::EndOldest if is_complete => {
                oldest_first.truncate(surplus);
                Room::EndEach(oldest_first)
            }
            WhenFull::EndOldest => {
                let stay = oldest_first.split_off(surplus);
                Room::EndAllExcept { stay, ended: oldest_first }
            }
        }
    }
}

/// What happens to a login when the user has as many sessions as the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Sessions that no request has used after their login end to make room, because the response
    /// to their login may have been lost. If this does not make enough room, the login is refused.
    Refuse,
    /// The oldest session ends.
    EndOldest,
}

/// How to make room for one more session; see [`SessionLimit::room`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room<R> {
    /// There is no room: the store writes nothing and returns [`Full`](crate::Creation::Full).
    None,
    /// The store ends these sessions one by one. The oldest is the first, and the list may be
    /// empty.
    EndEach(Vec<R>),
    /// There are too many sessions to end one by one. The store raises the user's
    /// [`Epoch`](crate::Epoch), which ends all of the user's sessions, and moves the records in
    /// `stay` to the new epoch. Instead of raising the epoch, a store that passed *all* live
    /// sessions to [`room`](SessionLimit::room) may end the sessions in `ended` one by one.
    EndAllExcept {
        /// The sessions that don't end.
        stay: Vec<R>,
        /// The sessions that end, of those that were passed to [`room`](SessionLimit::room).
        ended: Vec<R>,
    },
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::sample::{NOW, record};

    fn used(created_after: u32) -> Arc<SessionRecord> {
        let created = NOW.plus(created_after);
        Arc::new(SessionRecord { created, last_seen: created, seen_at: Some(created), ..record() })
    }

    /// Returns how many seconds after `NOW` the records were created.
    fn created_after(records: &[Arc<SessionRecord>]) -> Vec<u32> {
        records.iter().map(|record| record.created.since(NOW)).collect()
    }

    #[test]
    fn a_login_at_the_limit_ends_the_oldest_sessions_or_is_refused() {
        let live: Vec<_> = [30, 10, 20].map(used).into();
        for (max, oldest) in [(1, &[10, 20, 30][..]), (2, &[10, 20]), (3, &[10]), (4, &[])] {
            let room = |when_full| SessionLimit { max, when_full }.room(live.clone());
            let Room::EndEach(ended) = room(WhenFull::EndOldest) else {
                panic!("not ended one by one")
            };
            assert_eq!(created_after(&ended), oldest);
            let is_refused = room(WhenFull::Refuse) == Room::None;
            assert_eq!(is_refused, !oldest.is_empty(), "{max}");
        }
    }

    #[test]
    fn unused_sessions_end_before_a_login_is_refused() {
        let unused = |created_after: u32| {
            let created = NOW.plus(created_after);
            Arc::new(SessionRecord {
                created,
                last_seen: created,
                generation: 0,
                seen_at: None,
                ..record()
            })
        };
        let ended = |max, live: Vec<_>| {
            let limit = SessionLimit { max, when_full: WhenFull::Refuse };
            match limit.room(live) {
                Room::EndEach(ended) => Some(created_after(&ended)),
                _ => None,
            }
        };
        assert_eq!(ended(1, vec![unused(1)]), Some(vec![1]));
        assert_eq!(ended(2, vec![used(1), unused(3), unused(2)]), Some(vec![2, 3]));
        assert_eq!(
            ended(3, vec![used(1), unused(3), unused(2)]),
            Some(vec![2]),
            "only as many as necessary"
        );
        assert_eq!(ended(1, vec![used(1), unused(2)]), None, "the used session fills the limit");
        assert!(!used(1).is_unused());
        let touched = SessionRecord { last_seen: NOW.plus(9), ..(*unused(1)).clone() };
        let rotated = SessionRecord { generation: 1, ..(*unused(1)).clone() };
        assert!(!touched.is_unused() && !rotated.is_unused() && unused(1).is_unused());
    }

    #[test]
    fn too_many_sessions_end_together_except_the_newest() {
        let limit = SessionLimit { max: 3, when_full: WhenFull::EndOldest };
        let read: Vec<_> = (0..limit.records_to_read() as u32).rev().map(used).collect();
        let Room::EndAllExcept { stay, ended } = limit.room(read.clone()) else {
            panic!("ended one by one")
        };
        assert_eq!(created_after(&stay), [101, 102], "the third place is for the login");
        assert_eq!((ended.len(), created_after(&ended[..1])), (101, vec![0]));
        let refuse = SessionLimit { when_full: WhenFull::Refuse, ..limit };
        assert_eq!(refuse.room(read), Room::None);
    }
}
