//! Loads users by id and by login name, and users together with their sessions.

use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::dialect::ArgumentsOf;
use crate::error::Error;
use crate::row::{Columns, READ};
use crate::store::IntoStoreResult;
use crate::{Dialect, Driver, SqlStore};

/// Returns the arguments for an id that has already been found to be valid.
fn known<T>(arguments: Result<Option<T>, sqlx::Error>) -> Result<T, sqlx::Error> {
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
        let row = self.row(deadline, &users.by_id, || known(users.arguments(id))).await?;
        let user = row.map(|row| users.user(&row)).transpose()?;
        // A database may treat different texts as equal: texts in another case, or numbers with
        // more digits.
        Ok(user.filter(|user| user.id() == *id))
    }

    async fn named(&self, login: &str) -> Result<Option<Arc<U>>, Error> {
        if !D::takes(login) {
            return Ok(None);
        }
        let users = &self.shared.users;
        let arguments = || {
            let mut arguments = ArgumentsOf::<D>::default();
            D::Database::bind(&mut arguments, login.into())?;
            Ok(arguments)
        };
        let row = self.row(self.deadline(), &users.by_login_name, arguments).await?;
        row.map(|row| users.user(&row)).transpose()
    }

    async fn login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Error> {
        let (deadline, users) = (self.deadline(), &self.shared.users);
        let guess = || match user_hint.filter(|_| users.guesses) {
            Some(user_hint) => users.arguments(user_hint),
            None => Ok(Some(ArgumentsOf::<D>::default())),
        };
        let is_guess = user_hint.is_some() && guess().map_err(Error::of::<D>)?.is_some();
        if users.guesses && !is_guess {
            let Some(record) = self.find(deadline, key).await? else { return Ok(None) };
            let user = self.user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin { record, user }));
        }
        let arguments = || {
            let mut arguments = known(guess())?;
            D::Database::bind(&mut arguments, key.into())?;
            Ok(arguments)
        };
        let Some(row) = self.row(deadline, &users.login, arguments).await? else { return Ok(None) };
        let first = D::Database::width(&row).saturating_sub(READ);
        let record = Columns::<D::Database>::from(&row, first).session();
        let record = record.map(Arc::new).map_err(Error::of::<D>)?;
        if users.guesses && user_hint != Some(&record.user) {
            let user = self.user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin { record, user }));
        }
        // The column that is null if there is no such user: `keep_found`, the last of the user's
        // columns, or for an `Account` its id, the first column.
        let mark = if users.guesses { first.saturating_sub(1) } else { 0 };
        let is_user = !D::Database::is_null(&row, mark).map_err(Error::of::<D>)?;
        let user = is_user.then(|| users.user(&row)).transpose()?;
        let user = user.filter(|user| user.id() == record.user);
        Ok(Some(StoredLogin { record, user }))
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
        self.named(login_name).await.into_store_result::<D>()
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> LoginStore for SqlStore<D, U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        self.login(key, user_hint).await.into_store_result::<D>()
    }
}
