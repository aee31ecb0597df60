//! How users are asked for: the ready type in a table of ours, or the application's in its own.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::{Arguments as _, Encode, Error, FromRow, Type};
use tower_keep_core::{Account, UserId};

use crate::dialect::{ArgumentsOf, RowOf, TypeOf};
use crate::error::Fault;
use crate::row::Columns;
use crate::statement::{Statement, Statements, login_of};
use crate::{Dialect, Driver, Names};

/// How users are asked for, and read.
pub(crate) struct Users<D: Dialect, U> {
    pub(crate) by_id: Statement<D>,
    pub(crate) by_login: Statement<D>,
    pub(crate) login: Statement<D>,
    /// Whether the statement of a login needs the user's id.
    pub(crate) guesses: bool,
    /// Adds an id; false if it can't be one.
    id: fn(&UserId, &mut ArgumentsOf<D>) -> Result<bool, Error>,
    /// The type of the id's column.
    pub(crate) id_type: fn() -> TypeOf<D>,
    pub(crate) read: fn(&RowOf<D>) -> Result<U, Error>,
}

fn text_id<D: Dialect>(id: &UserId, arguments: &mut ArgumentsOf<D>) -> Result<bool, Error> {
    let is_one = D::takes(id.as_str());
    if is_one {
        D::Database::bind(arguments, id.as_str().into())?;
    }
    Ok(is_one)
}

fn typed_id<D: Dialect, I>(id: &UserId, arguments: &mut ArgumentsOf<D>) -> Result<bool, Error>
where
    I: FromStr + Display + Type<D::Database> + for<'q> Encode<'q, D::Database>,
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
            id_type: D::Database::text_type,
            read: |row| Columns::<D::Database>::of(row).account(),
        }
    }
}

impl<D: Dialect, U> Users<D, U> {
    /// Those of the application's own table.
    pub(crate) fn own<I>(by_id: &str, by_login: &str, names: &Names) -> Self
    where
        U: for<'r> FromRow<'r, RowOf<D>>,
        I: FromStr + Display + Type<D::Database> + for<'q> Encode<'q, D::Database>,
    {
        let bare = |select: &str| select.trim().trim_end_matches(';').to_owned();
        let (by_id, by_login) = (bare(by_id), bare(by_login));
        Self {
            // As yet: what they answer is learned when the store is opened.
            login: login_of(&by_id, &["*".to_owned()], names),
            by_id: Statement::plain(by_id),
            by_login: Statement::plain(by_login),
            guesses: true,
            id: typed_id::<D, I>,
            id_type: I::type_info,
            read: |row| U::from_row(row),
        }
    }

    /// The parameter of an id, if it can be one.
    pub(crate) fn arguments(&self, id: &UserId) -> Result<Option<ArgumentsOf<D>>, Error> {
        let mut arguments = ArgumentsOf::<D>::default();
        Ok((self.id)(id, &mut arguments)?.then_some(arguments))
    }

    pub(crate) fn user(&self, row: &RowOf<D>) -> Result<Arc<U>, Fault> {
        (self.read)(row).map(Arc::new).map_err(Fault::of::<D>)
    }
}
