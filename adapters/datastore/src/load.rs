//! The record and its user, together: in one call, if the user is found by their key.

use std::sync::Arc;

use futures_util::future::join;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, async_trait,
};

use crate::DatastoreStore;
use crate::error::Fault;
use crate::record;

impl<U: AuthUser> DatastoreStore<U> {
    async fn login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Fault> {
        let deadline = self.deadline();
        let session = self.keys().session(key);
        let user = likely.and_then(|likely| self.keys().user(likely));
        let by_query = likely.filter(|_| user.is_none());
        let keys = [Some(session.clone()), user.clone()].into_iter().flatten().collect();
        let asked = async {
            match by_query {
                Some(likely) => self.user(likely, deadline).await,
                None => Ok(None),
            }
        };
        let (found, asked) = join(self.client().lookup(keys, None, deadline), asked).await;
        let mut found = found?;
        let Some(record) = found.remove(&session).map(record::read).transpose()? else {
            return Ok(None);
        };
        let record = Arc::new(record);
        let user = if likely != Some(&record.user) {
            // A cookie that names nobody, or somebody else.
            self.user(&record.user, deadline).await?
        } else {
            let looked_up = user.and_then(|user| found.remove(&user));
            asked?.or(looked_up.map(|entity| self.read_user(entity)).transpose()?)
        };
        Ok(Some(StoredLogin { record, user }))
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
