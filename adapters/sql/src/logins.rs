//! Loads users by id and by login name, and users together with their sessions.

use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::dialect::{ArgumentsOf, Dialect};
use crate::driver::Operations;
use crate::error::{Error, IntoStoreResult};
use crate::row::{Columns, SESSION_WIDTH};
use crate::store::SqlStore;

/// Returns the arguments of an id for which [`Users::arguments`](crate::users::Users::arguments)
/// has returned `Some` before.
fn arguments_of_valid_id<T>(arguments: Result<Option<T>, sqlx::Error>) -> Result<T, sqlx::Error> {
    arguments?.ok_or(sqlx::Error::RowNotFound)
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    pub(crate) async fn load_user(
        &self,
        deadline: Instant,
        id: &UserId,
    ) -> Result<Option<Arc<U>>, Error> {
        let users = &self.shared.users;
        if users.arguments(id).map_err(Error::of::<D>)?.is_none() {
            return Ok(None);
        }
        let row =
            self.row(deadline, &users.by_id, || arguments_of_valid_id(users.arguments(id))).await?;
        let user = row.map(|row| users.read_user(&row)).transpose()?;
        // A database may treat different ids as equal, such as `ada` and `ADA`, or numbers that it
        // rounds.
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
        row.map(|row| users.read_user(&row)).transpose()
    }

    /// Loads a session and its user. `user_hint` is the user to whom the session probably belongs.
    /// An `Account` always needs one statement. A user of the application's own type needs one
    /// statement if the hint is right, otherwise two.
    async fn find_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Error> {
        let (deadline, users) = (self.deadline(), &self.shared.users);
        let hint_arguments = || match user_hint.filter(|_| users.is_custom) {
            Some(user_hint) => users.arguments(user_hint),
            None => Ok(Some(ArgumentsOf::<D>::default())),
        };
        let has_hint = user_hint.is_some() && hint_arguments().map_err(Error::of::<D>)?.is_some();
        if users.is_custom && !has_hint {
            let Some(record) = self.find_session(deadline, key).await? else { return Ok(None) };
            let user = self.load_user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin::new(record, user)));
        }
        let arguments = || {
            let mut arguments = arguments_of_valid_id(hint_arguments())?;
            D::Database::bind(&mut arguments, key.into())?;
            Ok(arguments)
        };
        let row = self.row(deadline, &users.session_with_user, arguments).await?;
        let Some(row) = row else { return Ok(None) };
        let session_column = D::Database::width(&row).saturating_sub(SESSION_WIDTH);
        let record = Columns::<D::Database>::starting_at(session_column, &row).session();
        let record = record.map(Arc::new).map_err(Error::of::<D>)?;
        if users.is_custom && user_hint != Some(&record.user) {
            let user = self.load_user(deadline, &record.user).await?;
            return Ok(Some(StoredLogin::new(record, user)));
        }
        // This column is null if the user does not exist. For the application's own users it is
        // `keep_found`, the last column before the session. For an `Account` it is the id, the
        // first column.
        let presence_column = if users.is_custom { session_column.saturating_sub(1) } else { 0 };
        let user_exists = !D::Database::is_null(&row, presence_column).map_err(Error::of::<D>)?;
        let user = user_exists.then(|| users.read_user(&row)).transpose()?;
        let user = user.filter(|user| user.id() == record.user);
        Ok(Some(StoredLogin::new(record, user)))
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> UserStore for SqlStore<D, U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        self.load_user(self.deadline(), id).await.into_store_result::<D>()
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
