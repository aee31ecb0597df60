//! Loads a session record, its user and the user's epoch, in one call if the user is found by their
//! key.

use std::sync::Arc;

use futures_util::future::join;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, async_trait,
};

use crate::DatastoreStore;
use crate::error::Error;
use crate::record::{self, Logins, Stored};

impl<U: AuthUser> DatastoreStore<U> {
    async fn load_session_and_user(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Error> {
        let deadline = self.deadline();
        let (session, logins) = (self.keys().session(key), |user| self.keys().logins(user));
        let user = user_hint.and_then(|user_hint| self.keys().user(user_hint));
        let by_query = user_hint.filter(|_| user.is_none());
        let of_hint = user_hint.map(logins);
        let keys = [Some(session.clone()), user.clone(), of_hint.clone()];
        let keys = keys.into_iter().flatten().collect();
        let queried = async {
            match by_query {
                Some(user_hint) => self.find_user(user_hint, deadline).await,
                None => Ok(None),
            }
        };
        let (found, queried) = join(self.client().lookup(keys, None, deadline), queried).await;
        let mut found = found?;
        let Some(stored) = found.remove(&session).map(record::read).transpose()? else {
            return Ok(None);
        };
        let owner = &stored.record.user;
        let (user, of_owner) = if user_hint == Some(owner) {
            let looked_up = user.and_then(|user| found.remove(&user));
            let user = queried?.or(looked_up.map(|entity| self.read_user(entity)).transpose()?);
            (user, of_hint.and_then(|key| found.remove(&key)))
        } else {
            // There is no user hint, or it names another user.
            let key = logins(owner);
            let of_owner = self.client().lookup(vec![key.clone()], None, deadline);
            let (user, of_owner) = join(self.find_user(owner, deadline), of_owner).await;
            (user?, of_owner?.remove(&key))
        };
        let epoch = Logins::read(of_owner)?.epoch;
        let is_together = user_hint == Some(owner);
        let stored = match stored.is_past(&epoch) && !is_together {
            true => self.reread_with_epoch(&stored, deadline).await?,
            false => Some(stored.apply_epoch(&epoch)),
        };
        Ok(stored.map(|Stored { record, .. }| StoredLogin::new(Arc::new(record), user)))
    }
}

#[async_trait]
impl<U: AuthUser> LoginStore for DatastoreStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        Ok(self.load_session_and_user(key, user_hint).await?)
    }
}
