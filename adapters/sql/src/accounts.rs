//! Finds and stores `Account` users.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    Account, AuthUser, ChangeUser, Modified, StoreError, StoreErrorKind, UserDirectory, UserId,
    async_trait,
};

use crate::dialect::Dialect;
use crate::error::{Error, IntoStoreResult};
use crate::statements::select_accounts;
use crate::store::SqlStore;
use crate::value::Value;

/// The maximum number of users that one statement reads.
const IDS_AT_ONCE: usize = 1_000;

/// Returns an error if the database can't store this user.
fn check_storable<D: Dialect>(user: &Account) -> Result<(), Error> {
    if !D::can_store(user.id().as_str()) {
        return Err(Error::unstorable("user id"));
    }
    if !D::can_store(user.login_name()) {
        return Err(Error::unstorable("login name"));
    }
    Ok(())
}

/// Returns the error of a call that could not change a user before its deadline, because other
/// calls changed the same user before each attempt.
fn contended() -> Error {
    Error::new(
        StoreErrorKind::Unavailable,
        "other calls changed the same user before each attempt; try again later",
    )
}

/// Returns the values of this user's columns, without the id.
fn values_without_id<'a>(user: &'a Account, security_stamp: &'a [u8]) -> [Value<'a>; 4] {
    [
        user.login_name().into(),
        user.password_hash().into(),
        Value::Flag(user.is_active()),
        Value::Bytes(Some(security_stamp)),
    ]
}

impl<D: Dialect> SqlStore<D> {
    async fn insert_account(&self, user: &Account) -> Result<(), Error> {
        check_storable::<D>(user)?;
        let stamp = user.security_stamp();
        let values = [&[user.id().as_str().into()], &values_without_id(user, &stamp)[..]].concat();
        let insert = &self.statements().insert_account;
        self.run(self.deadline(), insert, || insert.arguments(&values)).await.map(drop)
    }

    /// Replaces the stored user `before` with `after`. Returns `false` if the stored user has
    /// changed or was deleted in the meantime.
    async fn compare_and_swap(
        &self,
        deadline: Instant,
        before: &Account,
        after: &Account,
    ) -> Result<bool, Error> {
        check_storable::<D>(after)?;
        let (stamp, stamp_before) = (after.security_stamp(), before.security_stamp());
        let id = [Value::from(after.id().as_str())];
        let new_values = values_without_id(after, &stamp);
        let expected_values = values_without_id(before, &stamp_before);
        let values = [&id[..], &new_values, &expected_values].concat();
        let update = &self.statements().update_account;
        Ok(self.run(deadline, update, || update.arguments(&values)).await? > 0)
    }
}

#[async_trait]
impl<D: Dialect> UserDirectory for SqlStore<D> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Account>>>, StoreError> {
        let (deadline, users) = (self.deadline(), &self.shared.users);
        let mut found = HashMap::new();
        let storable: Vec<_> = ids.iter().filter(|id| D::can_store(id.as_str())).collect();
        for ids in storable.chunks(IDS_AT_ONCE) {
            let select = select_accounts::<D>(ids.len(), &self.shared.names);
            let values: Vec<Value<'_>> = ids.iter().map(|id| id.as_str().into()).collect();
            let rows = self
                .rows(deadline, &select, || select.arguments(&values))
                .await
                .into_store_result::<D>()?;
            for row in rows {
                let account = users.read_user(&row).into_store_result::<D>()?;
                found.insert(account.id().clone(), account);
            }
        }
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    async fn insert(&self, user: &Account) -> Result<(), StoreError> {
        self.insert_account(user).await.into_store_result::<D>()
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, Account>,
    ) -> Result<Modified<Account>, StoreError> {
        let deadline = self.deadline();
        loop {
            let stored = self.load_user(deadline, id).await.into_store_result::<D>()?;
            let Some(stored) = stored else { return Ok(Modified::Missing) };
            let after = match Modified::next(&stored, change, D::NAME)? {
                ControlFlow::Continue(after) => after,
                ControlFlow::Break(done) => return Ok(done),
            };
            let swapped = self.compare_and_swap(deadline, &stored, &after).await;
            if swapped.into_store_result::<D>()? {
                return Ok(Modified::Changed(after));
            }
            if Instant::now() >= deadline {
                return Err(contended().into_store_error::<D>());
            }
        }
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        if !D::can_store(id.as_str()) {
            return Ok(false);
        }
        let delete = &self.statements().delete_account;
        let deleted =
            self.run(self.deadline(), delete, || delete.arguments(&[id.as_str().into()])).await;
        deleted.map(|rows| rows > 0).into_store_result::<D>()
    }
}
