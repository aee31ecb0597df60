//! Users: the ready type in a table of ours, or the application's in its own.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::{Arguments as _, Encode, Error, FromRow, Type};
use tower_keep_core::{
    Account, AuthUser, LoginStore, SessionKey, StoreError, StoredLogin, UserDirectory, UserId,
    UserStore, async_trait,
};

use crate::dialect::{ArgumentsOf, RowOf};
use crate::error::Fault;
use crate::lease::Lease;
use crate::row::{Columns, SESSION};
use crate::statement::{Statement, Statements, accounts, login_of};
use crate::store::{Answer, refused};
use crate::{Dialect, Driver, Names, SqlStore, Value};

/// How many users are asked for in one statement.
const IDS_AT_ONCE: usize = 1_000;

type DatabaseOf<D> = <D as Dialect>::Database;

/// How users are asked for, and read.
pub(crate) struct Users<D: Dialect, U> {
    pub(crate) by_id: Statement<D>,
    pub(crate) by_login: Statement<D>,
    pub(crate) login: Statement<D>,
    /// Whether the statement of a login needs the user's id.
    guesses: bool,
    /// Adds an id; false if it can't be one.
    id: fn(&UserId, &mut ArgumentsOf<D>) -> Result<bool, Error>,
    read: fn(&RowOf<D>) -> Result<U, Error>,
}

fn text_id<D: Dialect>(id: &UserId, arguments: &mut ArgumentsOf<D>) -> Result<bool, Error> {
    let is_one = D::takes(id.as_str());
    if is_one {
        DatabaseOf::<D>::bind(arguments, id.as_str().into())?;
    }
    Ok(is_one)
}

fn typed_id<D: Dialect, I>(id: &UserId, arguments: &mut ArgumentsOf<D>) -> Result<bool, Error>
where
    I: FromStr + Display + Type<DatabaseOf<D>> + for<'q> Encode<'q, DatabaseOf<D>>,
{
    if !D::takes(id.as_str()) {
        return Ok(false);
    }
    let Some(id) = id.parse::<I>() else { return Ok(false) };
    arguments.add(id).map_err(Error::Encode)?;
    Ok(true)
}

impl<D: Dialect> Users<D, Account> {
    /// Those of the ready type.
    pub(crate) fn ready(names: &Names) -> Self {
        let Statements { account_by_id, account_by_login, login_of_account, .. } =
            Statements::new(names);
        Self {
            by_id: account_by_id,
            by_login: account_by_login,
            login: login_of_account,
            guesses: false,
            id: text_id::<D>,
            read: |row| Columns::<DatabaseOf<D>>::of(row).account(),
        }
    }
}

impl<D: Dialect, U> Users<D, U> {
    /// Those of the application's own table.
    pub(crate) fn own<I>(by_id: &str, by_login: &str, names: &Names) -> Self
    where
        U: for<'r> FromRow<'r, RowOf<D>>,
        I: FromStr + Display + Type<DatabaseOf<D>> + for<'q> Encode<'q, DatabaseOf<D>>,
    {
        let bare = |select: &str| select.trim().trim_end_matches(';').to_owned();
        let (by_id, by_login) = (bare(by_id), bare(by_login));
        Self {
            login: login_of(&by_id, names),
            by_id: Statement::plain(by_id),
            by_login: Statement::plain(by_login),
            guesses: true,
            id: typed_id::<D, I>,
            read: |row| U::from_row(row),
        }
    }

    /// Whether the database can run the statements, and the user type read what they answer.
    pub(crate) async fn check(&self, lease: &mut Lease<D>) -> Result<(), Fault> {
        let selects = [
            ("the SELECT of a user by id", &self.by_id),
            ("the SELECT of a user by login name", &self.by_login),
        ];
        for (what, select) in selects {
            let columns = lease.columns(select).await.map_err(|fault| fault.explained(what))?;
            self.check_columns(lease, what, &columns).await?;
        }
        let joined = "the SELECT of a user by id does not stand within another, for which its columns \
            need names of their own";
        lease.columns(&self.login).await.map_err(|fault| fault.explained(joined)).map(drop)
    }

    /// Reads a row of these columns that is nobody's.
    async fn check_columns(
        &self,
        lease: &mut Lease<D>,
        what: &str,
        columns: &[(String, String)],
    ) -> Result<(), Fault> {
        let sample = |(name, column_type): &(String, String)| {
            let value = D::sample(column_type).unwrap_or_else(|| "NULL".to_owned());
            format!("{value} AS {}", D::quoted(name))
        };
        let samples: Vec<_> = columns.iter().map(sample).collect();
        let statement = Statement::plain(format!("SELECT {}", samples.join(", ")));
        let rows = lease.rows(&statement, Ok(ArgumentsOf::<D>::default())).await?;
        // What else fails may be the sample's fault: it is no real user.
        let is_wrong = |error: &Error| match error {
            Error::ColumnNotFound(_) => true,
            Error::ColumnDecode { source, .. } => source.to_string().contains("mismatched types"),
            _ => false,
        };
        match rows.iter().find_map(|row| (self.read)(row).err().filter(is_wrong)) {
            Some(error) => Err(Fault::of::<D>(error).explained(format!(
                "{what} does not answer what the user type reads; name each column there, or rename \
                 the type's field"
            ))),
            None => Ok(()),
        }
    }

    fn arguments(&self, id: &UserId) -> Result<Option<ArgumentsOf<D>>, Error> {
        let mut arguments = ArgumentsOf::<D>::default();
        Ok((self.id)(id, &mut arguments)?.then_some(arguments))
    }

    fn user(&self, row: &RowOf<D>) -> Result<Arc<U>, Fault> {
        (self.read)(row).map(Arc::new).map_err(Fault::of::<D>)
    }
}

/// An id that was asked for and is there.
fn known<T>(arguments: Result<Option<T>, Error>) -> Result<T, Error> {
    arguments?.ok_or(Error::RowNotFound)
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    async fn user(&self, id: &UserId) -> Result<Option<Arc<U>>, Fault> {
        let users = &self.shared.users;
        if users.arguments(id).map_err(Fault::of::<D>)?.is_none() {
            return Ok(None);
        }
        let row = self.row(&users.by_id, || known(users.arguments(id))).await?;
        let user = row.map(|row| users.user(&row)).transpose()?;
        // A database may take one text for another: other case, more digits.
        Ok(user.filter(|user| user.id() == *id))
    }

    /// The user with this login name, by the SELECT of [`with_users`](crate::SqlStoreBuilder::with_users).
    ///
    /// Which names are the same is the database's matter: the collation of the column.
    ///
    /// # Errors
    ///
    /// Faults alone; an unknown or impossible name is `Ok(None)`.
    pub async fn user_by_login(&self, login: &str) -> Result<Option<Arc<U>>, StoreError> {
        if !D::takes(login) {
            return Ok(None);
        }
        let users = &self.shared.users;
        let arguments = || {
            let mut arguments = ArgumentsOf::<D>::default();
            DatabaseOf::<D>::bind(&mut arguments, login.into())?;
            Ok(arguments)
        };
        let row = self.row(&users.by_login, arguments).await.answer::<D>()?;
        row.map(|row| users.user(&row)).transpose().answer::<D>()
    }

    async fn login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, Fault> {
        let users = &self.shared.users;
        let guess = || match likely.filter(|_| users.guesses) {
            Some(likely) => users.arguments(likely),
            None => Ok(Some(ArgumentsOf::<D>::default())),
        };
        let is_guess = likely.is_some() && guess().map_err(Fault::of::<D>)?.is_some();
        if users.guesses && !is_guess {
            let Some(record) = self.find(key).await? else { return Ok(None) };
            let user = self.user(&record.user).await?;
            return Ok(Some(StoredLogin { record, user }));
        }
        let arguments = || {
            let mut arguments = known(guess())?;
            DatabaseOf::<D>::bind(&mut arguments, key.into())?;
            Ok(arguments)
        };
        let Some(row) = self.row(&users.login, arguments).await? else { return Ok(None) };
        let first = DatabaseOf::<D>::width(&row).saturating_sub(SESSION.len());
        let record = Columns::<DatabaseOf<D>>::from(&row, first).session();
        let record = record.map(Arc::new).map_err(Fault::of::<D>)?;
        if users.guesses && likely != Some(&record.user) {
            let user = self.user(&record.user).await?;
            return Ok(Some(StoredLogin { record, user }));
        }
        // The mark of a user is the last of the user's columns, or the id is the first.
        let mark = if users.guesses { first.saturating_sub(1) } else { 0 };
        let is_user = !DatabaseOf::<D>::is_null(&row, mark).map_err(Fault::of::<D>)?;
        let user = is_user.then(|| users.user(&row)).transpose()?;
        let user = user.filter(|user| user.id() == record.user);
        Ok(Some(StoredLogin { record, user }))
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> UserStore for SqlStore<D, U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        self.user(id).await.answer::<D>()
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

/// The parameters of a user, in the order of the columns.
fn values(user: &Account) -> [Value<'_>; 4] {
    [
        user.id().as_str().into(),
        user.login().into(),
        user.password_hash().into(),
        Value::Flag(user.is_active()),
    ]
}

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
        let values = [&values(user)[..], &[Value::Bytes(Some(&stamp))]].concat();
        self.run(statement, || statement.arguments(&values)).await
    }
}

#[async_trait]
impl<D: Dialect> UserDirectory for SqlStore<D> {
    async fn by_login(&self, login: &str) -> Result<Option<Arc<Account>>, StoreError> {
        self.user_by_login(login).await
    }

    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Account>>>, StoreError> {
        let users = &self.shared.users;
        let mut found = HashMap::new();
        let possible: Vec<_> = ids.iter().filter(|id| D::takes(id.as_str())).collect();
        for ids in possible.chunks(IDS_AT_ONCE) {
            let select = accounts::<D>(ids.len(), &self.shared.names);
            let values: Vec<Value<'_>> = ids.iter().map(|id| id.as_str().into()).collect();
            let rows = self.rows(&select, || select.arguments(&values)).await.answer::<D>()?;
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
        let deleted = self.run(delete, || delete.arguments(&[id.as_str().into()])).await;
        deleted.map(|rows| rows > 0).answer::<D>()
    }
}
