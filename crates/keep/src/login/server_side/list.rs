//! Listing and ending a user's sessions.

use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionRecord, Timestamp, UserId};

use crate::error::AuthError;
use crate::layer::config::Config;
use crate::session_info::{SessionInfo, public_id_of};
use crate::sessions::Sessions;

/// A list has at most this many sessions, the most recently used first.
pub(in crate::login) const MAX_LISTED: usize = 1_000;

impl<U: AuthUser> Config<U> {
    pub(crate) async fn list_sessions(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        current: Option<&SessionRecord>,
    ) -> Result<Vec<SessionInfo>, AuthError> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MAX_LISTED).await?;
        let is_current =
            |record: &SessionRecord| current.is_some_and(|current| current.key == record.key);
        let info = |record: Arc<SessionRecord>| {
            let is_current = is_current(&record);
            SessionInfo::new(record, is_current)
        };
        Ok(records.into_iter().map(info).collect())
    }

    pub(crate) async fn end_session(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        public_id: &str,
    ) -> Result<bool, AuthError> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MAX_LISTED).await?;
        let Some(record) = records.iter().find(|record| public_id_of(record) == public_id) else {
            return Ok(false);
        };
        let end = self.end_for(EndReason::Revoked);
        Ok(sessions.store.revoke(&[record.key], &end).await? > 0)
    }

    pub(crate) async fn end_all_sessions(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        except: Option<&SessionRecord>,
    ) -> Result<(), AuthError> {
        let end = self.end_for(EndReason::Revoked);
        Ok(sessions.store.revoke_all(user, except.map(|record| &record.key), &end).await?)
    }
}
