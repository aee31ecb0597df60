//! The trait of a store that keeps users and session records together.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::StoreResult;
use crate::session::{SessionKey, SessionRecord};
use crate::session_store::SessionStore;
use crate::user_id::UserId;
use crate::user_store::UserStore;

/// Keeps users and session records together, so that an authenticated request needs only one call.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` keeps no session records",
    note = "keep them in another store: `with_sessions_in(records)`, or `SplitStore(users, records)`"
)]
pub trait LoginStore: UserStore + SessionStore {
    /// Returns the record with this key, and the user whom the record names, both as stored now.
    /// Returns `Ok(None)` if there is no such record.
    ///
    /// `user_hint` is the id that the record most probably names. With it, a store can load the
    /// record and the user concurrently. If the record names another user, the call ignores the
    /// hint and returns the user whom the record names.
    ///
    /// The provided method loads the record first, and then its user: the two need not be read at
    /// the same moment. A store that can load both in one round trip implements this method itself.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown key or user is not an error.
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<Self::User>>> {
        let _ = user_hint;
        let Some(record) = self.load(key).await? else { return Ok(None) };
        let user = self.by_id(&record.user).await?;
        Ok(Some(StoredLogin::new(record, user)))
    }
}

/// A session record and its user.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredLogin<U> {
    /// The record.
    pub record: Arc<SessionRecord>,
    /// The user whom the record names; `None` if that user no longer exists.
    pub user: Option<Arc<U>>,
}

impl<U> StoredLogin<U> {
    /// Creates the result of [`load_login`](LoginStore::load_login).
    pub const fn new(record: Arc<SessionRecord>, user: Option<Arc<U>>) -> Self {
        Self { record, user }
    }
}

impl<U> Clone for StoredLogin<U> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), user: self.user.clone() }
    }
}
