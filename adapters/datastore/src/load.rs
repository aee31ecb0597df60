//! Loads a session record, its user and the user's epoch. This is one `Lookup` if the user hint is
//! right and users are found by their keys. The user hint is the user whom the cookie names.

use std::sync::Arc;

use futures_util::future::join;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreResult, StoredLogin, UserId, async_trait,
};

use crate::record::{self, LoginState, StoredRecord};
use crate::store::DatastoreStore;

#[async_trait]
impl<U: AuthUser> LoginStore for DatastoreStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<U>>> {
        let deadline = self.deadline();
        let session_entity_key = self.keys().session(key);
        let user_key = user_hint.and_then(|user_hint| self.keys().user(user_hint));
        let user_to_query = user_hint.filter(|_| user_key.is_none());
        let login_state_key = user_hint.map(|user| self.keys().login_state(user));
        let keys = [Some(session_entity_key.clone()), user_key.clone(), login_state_key.clone()];
        let keys = keys.into_iter().flatten().collect();
        let queried_user = async {
            match user_to_query {
                Some(user_hint) => self.find_user(user_hint, deadline).await,
                None => Ok(None),
            }
        };
        let (found, queried_user) =
            join(self.client().lookup(keys, None, deadline), queried_user).await;
        let mut found = found?;
        let Some(stored) = found.remove(&session_entity_key).map(record::read).transpose()? else {
            return Ok(None);
        };
        let owner = &stored.record.user;
        let is_hint_right = user_hint == Some(owner);
        let (user, login_state) = if is_hint_right {
            let user = user_key.and_then(|key| found.remove(&key));
            let user = user.map(|entity| self.read_user(entity)).transpose()?;
            (queried_user?.or(user), login_state_key.and_then(|key| found.remove(&key)))
        } else {
            // There is no user hint, or it names another user.
            let key = self.keys().login_state(owner);
            let login_state = self.client().lookup(vec![key.clone()], None, deadline);
            let (user, login_state) = join(self.find_user(owner, deadline), login_state).await;
            (user?, login_state?.remove(&key))
        };
        let epoch = LoginState::read(login_state)?.epoch;
        // Without a right hint, the record was read before the epoch, and may have changed since
        // that read.
        let stored = match stored.is_ended_by_epoch(&epoch) && !is_hint_right {
            true => self.read_again_with_epoch(&stored, deadline).await?,
            false => Some(stored.apply_epoch(&epoch)),
        };
        Ok(stored.map(|StoredRecord { record, .. }| StoredLogin::new(Arc::new(record), user)))
    }
}
