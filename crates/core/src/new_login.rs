//! What a login asks of a store of sessions, and what the store returns.

use std::sync::Arc;

use crate::session::{SessionKey, SessionRecord};
use crate::session_limit::SessionLimit;
use crate::timestamp::Timestamp;

/// A new login to write; see [`SessionStore::create`](crate::SessionStore::create).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewLogin<'a> {
    /// The new record, which has not ended.
    pub record: &'a SessionRecord,
    /// The sessions of the same browser that this login replaces: usually one, or two if the
    /// session cookie and the remember cookie belonged to different logins.
    pub replacing: &'a [SessionKey],
    /// Until when the records of the sessions that this login ends are kept.
    pub keep_ended_until: Timestamp,
    /// How many live sessions the user may have; `None` for any number.
    pub limit: Option<SessionLimit>,
    /// Whether the user is notified of sessions that have ended because of a replay. If not, the
    /// next login that notifies the user returns them.
    pub notifies_user: bool,
}

impl<'a> NewLogin<'a> {
    /// Creates a login that replaces no session, has no limit, and notifies the user.
    pub const fn new(record: &'a SessionRecord, keep_ended_until: Timestamp) -> Self {
        Self { record, replacing: &[], keep_ended_until, limit: None, notifies_user: true }
    }
}

/// The result of [`SessionStore::create`](crate::SessionStore::create).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The login was written. The records are as they were before the call. A store creates this
    /// variant with [`created`](Self::created).
    #[non_exhaustive]
    Created {
        /// The sessions that ended because of the limit: all of them, or at least
        /// [`MAX_PER_CALL`](crate::MAX_PER_CALL) if there are more.
        ended: Vec<Arc<SessionRecord>>,
        /// The user's sessions that ended because of a replay, and of whose end the user was not
        /// notified before: all of them, or [`MAX_PER_CALL`](crate::MAX_PER_CALL) if there are
        /// more. Empty if the login does not notify the user.
        replays: Vec<Arc<SessionRecord>>,
    },
    /// Nothing was written: the user is at the limit.
    Full,
}

impl Creation {
    /// Creates the result of a login that was written; see [`Created`](Self::Created) for the two
    /// lists.
    pub const fn created(ended: Vec<Arc<SessionRecord>>, replays: Vec<Arc<SessionRecord>>) -> Self {
        Self::Created { ended, replays }
    }
}
