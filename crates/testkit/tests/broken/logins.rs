//! `load_login`, wrong for the clauses that it breaks.

use std::sync::Arc;

use tower_keep_core::{
    Account, LoginStore, SessionKey, SessionStore, StoreResult, StoredLogin, UserId, UserStore,
    async_trait,
};
use tower_keep_testkit::contract::sessions::new_record;

use crate::store::{BrokenStore, lock};

#[async_trait]
impl LoginStore for BrokenStore {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<Account>>> {
        let Some(mut record) = self.load(key).await? else {
            let invents_record = self.breaks("load_login_returns_none_for_an_unknown_key");
            let Some(user) = user_hint.filter(|_| invents_record) else { return Ok(None) };
            let record = Arc::new(new_record(user));
            return Ok(Some(StoredLogin::new(record, None)));
        };
        if self.breaks("load_login_returns_every_field_of_the_record") {
            Arc::make_mut(&mut record).acting_user = None;
        }
        let id = match user_hint {
            Some(user_hint) if self.breaks("load_login_ignores_a_wrong_user_hint") => user_hint,
            _ => &record.user,
        };
        let mut user = self.inner.by_id(id).await?;
        if self.breaks("load_login_returns_the_record_and_its_user_as_stored_now") {
            let mut outdated_users = lock(&self.outdated_users);
            user = user.map(|user| outdated_users.entry(id.clone()).or_insert(user).clone());
        }
        if user.is_none() && self.breaks("load_login_returns_no_user_if_the_user_was_deleted") {
            return Ok(None);
        }
        Ok(Some(StoredLogin::new(record, user)))
    }
}
