//! Reads a session record together with its user.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreResult, StoredLogin, UserId, async_trait,
};

use crate::access::Access;
use crate::epoch::StoredEpoch;
use crate::record::read_record;
use crate::store::RedisStore;

#[async_trait]
impl<U: AuthUser> LoginStore for RedisStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<U>>> {
        let deadline = self.deadline();
        let mut candidate = user_hint.cloned();
        let mut is_owner = false;
        loop {
            if let Some(user) = &candidate {
                let keys = self.keys().of(user);
                let names = [keys.session(key), keys.user(), keys.epoch()];
                let names = names.each_ref().map(String::as_str);
                let values = self.get_all(names, 2, Access::Read, deadline).await?;
                if let [Some(record), stored, epoch] = values {
                    let (record, created_in) = read_record(*key, user.clone(), &record)?;
                    let record = StoredEpoch::read(epoch)?.epoch.apply_to(record, created_in);
                    let record = Arc::new(record);
                    let user = stored.map(|stored| self.shared.users.read(user, &stored));
                    let user = user.transpose()?.map(|found| Arc::new(found.user));
                    return Ok(Some(StoredLogin::new(record, user)));
                }
            }
            if is_owner {
                return Ok(None);
            }
            // There is no hint, or the user of the hint has no such record. The owner key names the
            // record's user.
            let owner = Box::pin(self.session_owner(key, None, Access::Read, deadline)).await?;
            match owner {
                Some(owner) if candidate.as_ref() != Some(&owner) => candidate = Some(owner),
                _ => return Ok(None),
            }
            is_owner = true;
        }
    }
}
