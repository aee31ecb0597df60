//! Users of the ready type, found and kept.

use std::collections::HashMap;
use std::sync::Arc;

use tower_keep_core::{Account, AuthUser, StoreError, UserDirectory, UserId, async_trait};

use crate::error::Fault;
use crate::statement::{Statement, accounts};
use crate::store::{Answer, refused};
use crate::{Dialect, SqlStore, Value};

/// How many users are asked for in one statement.
const IDS_AT_ONCE: usize = 1_000;

/// Whether the ready type's table takes this user.
fn check_taken<D: Dialect>(user: &Account) -> Result<(), Fault> {
    if !D::takes(user.id().as_str()) {
        return Err(refused("user id"));
    }
    if !D::takes(user.login()) {
        return Err(refused("login name"));
    }
    Ok(())
}

impl<D: Dialect> SqlStore<D> {
    async fn put(&self, statement: &Statement<D>, user: &Account) -> Result<u64, Fault> {
        check_taken::<D>(user)?;
        let stamp = user.stamp();
        let values = [
            user.id().as_str().into(),
            user.login().into(),
            user.password_hash().into(),
            Value::Flag(user.is_active()),
            Value::Bytes(Some(&stamp)),
        ];
        self.run(self.deadline(), statement, || statement.arguments(&values)).await
    }
}

#[async_trait]
impl<D: Dialect> UserDirectory for SqlStore<D> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Account>>>, StoreError> {
        let (deadline, users) = (self.deadline(), &self.shared.users);
        let mut found = HashMap::new();
        let possible: Vec<_> = ids.iter().filter(|id| D::takes(id.as_str())).collect();
        for ids in possible.chunks(IDS_AT_ONCE) {
            let select = accounts::<D>(ids.len(), &self.shared.names);
            let values: Vec<Value<'_>> = ids.iter().map(|id| id.as_str().into()).collect();
            let rows =
                self.rows(deadline, &select, || select.arguments(&values)).await.answer::<D>()?;
            for row in rows {
                let account = users.user(&row).answer::<D>()?;
                found.insert(account.id().clone(), account);
            }
        }
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    async fn insert(&self, user: &Account) -> Result<(), StoreError> {
        self.put(&self.statements().insert_account, user).await.map(drop).answer::<D>()
    }

    async fn update(&self, user: &Account) -> Result<bool, StoreError> {
        let written = self.put(&self.statements().update_account, user).await;
        written.map(|rows| rows > 0).answer::<D>()
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        if !D::takes(id.as_str()) {
            return Ok(false);
        }
        let delete = &self.statements().delete_account;
        let deleted =
            self.run(self.deadline(), delete, || delete.arguments(&[id.as_str().into()])).await;
        deleted.map(|rows| rows > 0).answer::<D>()
    }
}
