//! Users by id and by login name, and users with their sessions.

use std::sync::Arc;

use sqlx::Error;
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserFinder, UserId, UserStore,
    async_trait,
};

use crate::dialect::ArgumentsOf;
use crate::error::Fault;
use crate::row::{Columns, READ};
use crate::store::Answer;
use crate::{Dialect, Driver, SqlStore};

/// An id that was asked for and is there.
fn known<T>(arguments: Result<Option<T>, Error>) -> Result<T, Error> {
    arguments?.ok_or(Error::RowNotFound)
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    pub(crate) async fn user(
        &self,
        deadline: Instant,
        id: &UserId,
    ) -> Result<Option<Arc<U>>, Fault> {
        let users = &self.shared.users;
        if users.arguments(id).map_err(Fault::of::<D>)?.is_none() {
            return Ok(None);
        }
        let row = self.row(deadline, &users.by_id, || known(users.arguments(id))).await?;
        let user = row.map(|row| users.user(&row)).transpose()?;
        // A database may take one text for another: other case, more digits.
        Ok(user.filter(|user| user.id() == *id))
    }

    async fn named(&self, login: &str) -> Result<Option<Arc<U>>, Fault> {
        if !D::takes(login) {
            return Ok(None);
        }
        let users = &self.shared.users;
        let arguments = || {
            let mut arguments = ArgumentsOf::<D>::default();
            D::Database::bind(&mut arguments, login.into())?;
            Ok(arguments)
        };
        let row = self.row(self.deadline(), &users.by_login, arguments).await?;
        row.map(|row| users.user(&row)).transpose()
    }

    async fn login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Fault> {
        let (deadline, users) = (self.deadline(), &self.shared.users);
        let guess = || match likely.filter(|_| users.guesses) {
            Some(likely) => users.arguments(likely),
            None => Ok(Some(ArgumentsOf::<D>::default())),
        };
        let is_guess = likely.is_some() && guess().map_err(Fault::of::<D>)?.is_some();
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
        let record = record.map(Arc::new).map_err(Fault::of::<D>)?;
        if users.guesses && likely != Some(&record.user) {
            let user = self.user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin { record, user }));
        }
        // The mark of a user is the last of the user's columns, or the id is the first.
        let mark = if users.guesses { first.saturating_sub(1) } else { 0 };
        let is_user = !D::Database::is_null(&row, mark).map_err(Fault::of::<D>)?;
        let user = is_user.then(|| users.user(&row)).transpose()?;
        let user = user.filter(|user| user.id() == record.user);
        Ok(Some(StoredLogin { record, user }))
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> UserStore for SqlStore<D, U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        self.user(self.deadline(), id).await.answer::<D>()
    }
}

/// Names of the ready users are compared byte for byte. Of the application's own users it is the
/// database's matter which names are the same: the collation of the column.
#[async_trait]
impl<D: Dialect, U: AuthUser> UserFinder for SqlStore<D, U> {
    async fn by_login(&self, login: &str) -> Result<Option<Arc<U>>, StoreError> {
        self.named(login).await.answer::<D>()
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> LoginStore for SqlStore<D, U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        self.login(key, likely).await.answer::<D>()
    }
}
