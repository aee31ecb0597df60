//! Reads a session record together with its user.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, async_trait,
};

use crate::RedisStore;
use crate::epoch::StoredEpoch;
use crate::error::Error;
use crate::record::read;
use crate::servers::Access;

impl<U: AuthUser> RedisStore<U> {
    async fn find_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Error> {
        let deadline = self.deadline();
        let mut user = user_hint.cloned();
        let mut is_sure = false;
        loop {
            if let Some(user) = &user {
                let keys = self.keys().of(user);
                let names = [keys.session(key), keys.user(), keys.epoch()];
                let names = names.each_ref().map(String::as_str);
                let values = self.get_all(names, 2, Access::Read, deadline).await?;
                if let [Some(record), stored, epoch] = values {
                    let (record, created_in) = read(*key, user.clone(), &record)?;
                    let record = StoredEpoch::read(epoch)?.epoch.apply_to(record, created_in);
                    let record = Arc::new(record);
                    let user = stored.map(|stored| self.shared.users.read(user, &stored));
                    let user = user.transpose()?.map(|found| Arc::new(found.user));
                    return Ok(Some(StoredLogin::new(record, user)));
                }
            }
            if is_sure {
                return Ok(None);
            }
            // The cookie names no user, or another one.
            let owner = Box::pin(self.owner(key, None, Access::Read, deadline)).await?;
            match owner {
                Some(owner) if user.as_ref() != Some(&owner) => user = Some(owner),
                _ => return Ok(None),
            }
            is_sure = true;
        }
    }
}

#[async_trait]
impl<U: AuthUser> LoginStore for RedisStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        Ok(self.find_login(key, user_hint).await?)
    }
}
