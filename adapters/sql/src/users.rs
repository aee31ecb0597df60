//! Reads users: `Account` users from tower-keep's table, or the application's own users from the
//! application's own table.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::{Arguments as _, Encode, FromRow, Type};
use tower_keep_core::{Account, UserId};

use crate::dialect::{ArgumentsOf, Dialect, RowOf, TypeOf};
use crate::driver::Operations;
use crate::error::Error;
use crate::names::Names;
use crate::row::Columns;
use crate::statements::{
    Statement, select_account_by, select_session_with_account, select_session_with_user,
};

/// The statements that select users, and the function that reads a user from a row.
pub(crate) struct Users<D: Dialect, U> {
    pub(crate) by_id: Statement<D>,
    pub(crate) by_login_name: Statement<D>,
    pub(crate) session_with_user: Statement<D>,
    /// Whether the statements are the application's own. If so, `session_with_user` has two
    /// parameters: the user's id, and the session's key. Otherwise it has only the key.
    pub(crate) is_custom: bool,
    /// Adds an id to the arguments. Returns `false` if the text can't be an id of this type.
    bind_id: fn(&UserId, &mut ArgumentsOf<D>) -> Result<bool, sqlx::Error>,
    /// The type of the id's column.
    pub(crate) id_type: fn() -> TypeOf<D>,
    pub(crate) read: fn(&RowOf<D>) -> Result<U, sqlx::Error>,
}

fn bind_text_id<D: Dialect>(
    id: &UserId,
    arguments: &mut ArgumentsOf<D>,
) -> Result<bool, sqlx::Error> {
    let can_be_id = D::can_store(id.as_str());
    if can_be_id {
        D::Database::bind(arguments, id.as_str().into())?;
    }
    Ok(can_be_id)
}

fn bind_typed_id<D: Dialect, I>(
    id: &UserId,
    arguments: &mut ArgumentsOf<D>,
) -> Result<bool, sqlx::Error>
where
    I: FromStr + Display + Type<D::Database> + for<'q> Encode<'q, D::Database>,
{
    if !D::can_store(id.as_str()) {
        return Ok(false);
    }
    let Some(id) = id.parse::<I>() else { return Ok(false) };
    arguments.add(id).map_err(sqlx::Error::Encode)?;
    Ok(true)
}

impl<D: Dialect> Users<D, Account> {
    /// Creates the statements for `Account` users.
    pub(crate) fn of_accounts(names: &Names) -> Self {
        Self {
            by_id: select_account_by("id", names),
            by_login_name: select_account_by("login_name", names),
            session_with_user: select_session_with_account(names),
            is_custom: false,
            bind_id: bind_text_id::<D>,
            id_type: D::Database::text_type,
            read: |row| Columns::<D::Database>::of(row).account(),
        }
    }
}

impl<D: Dialect, U> Users<D, U> {
    /// Creates the statements for users in the application's own table.
    pub(crate) fn custom<I>(by_id: &str, by_login_name: &str, names: &Names) -> Self
    where
        U: for<'r> FromRow<'r, RowOf<D>>,
        I: FromStr + Display + Type<D::Database> + for<'q> Encode<'q, D::Database>,
    {
        let without_semicolon = |select: &str| select.trim().trim_end_matches(';').to_owned();
        let (by_id, by_login_name) = (without_semicolon(by_id), without_semicolon(by_login_name));
        Self {
            // `check_and_name_columns` replaces these statements with ones that name each column.
            session_with_user: select_session_with_user(&by_id, &["*".to_owned()], names),
            by_id: Statement::from_sql(by_id),
            by_login_name: Statement::from_sql(by_login_name),
            is_custom: true,
            bind_id: bind_typed_id::<D, I>,
            id_type: I::type_info,
            read: |row| U::from_row(row),
        }
    }

    /// Returns each statement with its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &Statement<D>)> {
        let Self { by_id, by_login_name, session_with_user, .. } = self;
        [
            ("user_by_id", by_id),
            ("user_by_login_name", by_login_name),
            ("session_with_user", session_with_user),
        ]
        .into_iter()
    }

    /// Returns the arguments for an id, or `None` if the text can't be an id of this type.
    pub(crate) fn arguments(&self, id: &UserId) -> Result<Option<ArgumentsOf<D>>, sqlx::Error> {
        let mut arguments = ArgumentsOf::<D>::default();
        Ok((self.bind_id)(id, &mut arguments)?.then_some(arguments))
    }

    pub(crate) fn read_user(&self, row: &RowOf<D>) -> Result<Arc<U>, Error> {
        (self.read)(row).map(Arc::new).map_err(Error::of::<D>)
    }
}
