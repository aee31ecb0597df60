//! Loads users by id and by login name, and users together with their sessions.

use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::dialect::ArgumentsOf;
use crate::error::Error;
use crate::row::{Columns, SESSION_WIDTH};
use crate::store::IntoStoreResult;
use crate::{Dialect, Driver, SqlStore};

/// Returns the arguments for an id that has already been found to be valid.
fn valid<T>(arguments: Result<Option<T>, sqlx::Error>) -> Result<T, sqlx::Error> {
    arguments?.ok_or(sqlx::Error::RowNotFound)
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    pub(crate) async fn user(
        &self,
        deadline: Instant,
        id: &UserId,
    ) -> Result<Option<Arc<U>>, Error> {
        let users = &self.shared.users;
        if users.arguments(id).map_err(Error::of::<D>)?.is_none() {
            return Ok(None);
        }
        let row = self.row(deadline, &users.by_id, || valid(users.arguments(id))).await?;
        let user = row.map(|row| users.user(&row)).transpose()?;
        // A database may treat different texts as equal: texts in another case, or numbers with
        // more digits.
        Ok(user.filter(|user| user.id() == *id))
    }

    async fn user_by_login_name(&self, login_name: &str) -> Result<Option<Arc<U>>, Error> {
        if !D::can_store(login_name) {
            return Ok(None);
        }
        let users = &self.shared.users;
        let arguments = || {
            let mut arguments = ArgumentsOf::<D>::default();
            D::Database::bind(&mut arguments, login_name.into())?;
            Ok(arguments)
        };
        let row = self.row(self.deadline(), &users.by_login_name, arguments).await?;
        row.map(|row| users.user(&row)).transpose()
    }

    async fn find_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Error> {
        let (deadline, users) = (self.deadline(), &self.shared.users);
        let hint_arguments = || match user_hint.filter(|_| users.needs_user_hint) {
            Some(user_hint) => users.arguments(user_hint),
            None => Ok(Some(ArgumentsOf::<D>::default())),
        };
        let has_hint = user_hint.is_some() && hint_arguments().map_err(Error::of::<D>)?.is_some();
        if users.needs_user_hint && !has_hint {
            let Some(record) = self.find(deadline, key).await? else { return Ok(None) };
            let user = self.user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin::new(record, user)));
        }
        let arguments = || {
            let mut arguments = valid(hint_arguments())?;
            D::Database::bind(&mut arguments, key.into())?;
            Ok(arguments)
        };
        let Some(row) = self.row(deadline, &users.login, arguments).await? else { return Ok(None) };
        let first = D::Database::width(&row).saturating_sub(SESSION_WIDTH);
        let record = Columns::<D::Database>::starting_at(first, &row).session();
        let record = record.map(Arc::new).map_err(Error::of::<D>)?;
        if users.needs_user_hint && user_hint != Some(&record.user) {
            let user = self.user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin::new(record, user)));
        }
        // The column that is null if there is no such user: `keep_found`, the last of the user's
        // columns, or for an `Account` its id, the first column.
        let presence_column = if users.needs_user_hint { first.saturating_sub(1) } else { 0 };
        let user_exists = !D::Database::is_null(&row, presence_column).map_err(Error::of::<D>)?;
        let user = user_exists.then(|| users.user(&row)).transpose()?;
        let user = user.filter(|user| user.id() == record.user);
        Ok(Some(StoredLogin::new(record, user)))
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> UserStore for SqlStore<D, U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        self.user(self.deadline(), id).await.into_store_result::<D>()
    }
}

/// Login names of `Account` users are compared byte for byte. For the application's own users, the
/// collation of the column decides which login names are equal.
#[async_trait]
impl<D: Dialect, U: AuthUser> UserLookup for SqlStore<D, U> {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<U>>, StoreError> {
        self.user_by_login_name(login_name).await.into_store_result::<D>()
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> LoginStore for SqlStore<D, U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        self.find_login(key, user_hint).await.into_store_result::<D>()
    }
}
