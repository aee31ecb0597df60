//! The record, its user and the user's epoch, in one call if the user is found by their key.

use std::sync::Arc;

use futures_util::future::join;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, async_trait,
};

use crate::DatastoreStore;
use crate::error::Fault;
use crate::record::{self, Logins, Stored};

impl<U: AuthUser> DatastoreStore<U> {
    async fn login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Fault> {
        let deadline = self.deadline();
        let (session, logins) = (self.keys().session(key), |user| self.keys().logins(user));
        let user = likely.and_then(|likely| self.keys().user(likely));
        let by_query = likely.filter(|_| user.is_none());
        let of_likely = likely.map(logins);
        let keys = [Some(session.clone()), user.clone(), of_likely.clone()];
        let keys = keys.into_iter().flatten().collect();
        let asked = async {
            match by_query {
                Some(likely) => self.user(likely, deadline).await,
                None => Ok(None),
            }
        };
        let (found, asked) = join(self.client().lookup(keys, None, deadline), asked).await;
        let mut found = found?;
        let Some(stored) = found.remove(&session).map(record::read).transpose()? else {
            return Ok(None);
        };
        let owner = &stored.record.user;
        let (user, of_owner) = if likely == Some(owner) {
            let looked_up = user.and_then(|user| found.remove(&user));
            let user = asked?.or(looked_up.map(|entity| self.read_user(entity)).transpose()?);
            (user, of_likely.and_then(|key| found.remove(&key)))
        } else {
            // A cookie that names nobody, or somebody else.
            let key = logins(owner);
            let of_owner = self.client().lookup(vec![key.clone()], None, deadline);
            let (user, of_owner) = join(self.user(owner, deadline), of_owner).await;
            (user?, of_owner?.remove(&key))
        };
        let epoch = Logins::read(of_owner)?.epoch;
        let is_together = likely == Some(owner);
        let stored = match stored.is_past(&epoch) && !is_together {
            true => self.find_again(&stored, deadline).await?,
            false => Some(stored.applied(&epoch)),
        };
        Ok(stored.map(|Stored { record, .. }| StoredLogin { record: Arc::new(record), user }))
    }
}

#[async_trait]
impl<U: AuthUser> LoginStore for DatastoreStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        Ok(self.login(key, likely).await?)
    }
}
