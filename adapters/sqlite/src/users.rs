//! Users of the ready type.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{QueryBuilder, Sqlite};
use tower_keep_core::{
    Account, AuthUser, StoreError, UserDirectory, UserId, UserStore, async_trait,
};
use tower_keep_sql::AccountRow;

use crate::{SqliteStore, fault};

/// SQLite takes 32,766 parameters in a statement.
const IDS_AT_ONCE: usize = 10_000;

#[async_trait]
impl UserStore for SqliteStore {
    type User = Account;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Account>>, StoreError> {
        let row = sqlx::query_as("SELECT * FROM keep_users WHERE id = ?").bind(id.as_str());
        let row: Option<AccountRow> = row.fetch_optional(&self.reads).await.map_err(fault)?;
        Ok(row.map(AccountRow::account))
    }
}

#[async_trait]
impl UserDirectory for SqliteStore {
    async fn by_login(&self, login: &str) -> Result<Option<Arc<Account>>, StoreError> {
        let row = sqlx::query_as("SELECT * FROM keep_users WHERE login = ?").bind(login);
        let row: Option<AccountRow> = row.fetch_optional(&self.reads).await.map_err(fault)?;
        Ok(row.map(AccountRow::account))
    }

    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Account>>>, StoreError> {
        let mut found = HashMap::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM keep_users WHERE id IN (");
            let mut list = query.separated(", ");
            ids.iter().for_each(|id| {
                list.push_bind(id.as_str());
            });
            list.push_unseparated(")");
            let rows: Vec<AccountRow> =
                query.build_query_as().fetch_all(&self.reads).await.map_err(fault)?;
            found.extend(rows.into_iter().map(|row| {
                let account = row.account();
                (account.id().clone(), account)
            }));
        }
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    async fn insert(&self, user: &Account) -> Result<(), StoreError> {
        let insert = sqlx::query(
            "INSERT INTO keep_users (id, login, password_hash, active, stamp) \
             VALUES (?, ?, ?, ?, ?)",
        );
        let insert = insert.bind(user.id().as_str()).bind(user.login()).bind(user.password_hash());
        let insert = insert.bind(user.is_active()).bind(user.stamp().into_owned());
        insert.execute(&self.writes).await.map_err(fault).map(drop)
    }

    async fn update(&self, user: &Account) -> Result<bool, StoreError> {
        let update = sqlx::query(
            "UPDATE keep_users SET login = ?, password_hash = ?, active = ?, stamp = ? \
             WHERE id = ?",
        );
        let update = update.bind(user.login()).bind(user.password_hash()).bind(user.is_active());
        let update = update.bind(user.stamp().into_owned()).bind(user.id().as_str());
        let done = update.execute(&self.writes).await.map_err(fault)?;
        Ok(done.rows_affected() > 0)
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        let delete = sqlx::query("DELETE FROM keep_users WHERE id = ?").bind(id.as_str());
        let done = delete.execute(&self.writes).await.map_err(fault)?;
        Ok(done.rows_affected() > 0)
    }
}
