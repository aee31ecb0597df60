//! Checks the tables and the application's statements when a store is opened, and finds out which
//! columns the statements return.

use sqlx::TypeInfo as _;
use tower_keep_core::{AuthUser, StoreErrorKind};

use crate::dialect::{ArgumentsOf, Sample, TypeOf};
use crate::driver::Shape;
use crate::error::{Cause, Error};
use crate::lease::Lease;
use crate::migrate::newest;
use crate::row::Columns;
use crate::statement::{Statement, login_of, with_columns};
use crate::users::Users;
use crate::{Dialect, Driver, Names, SqlStore};

/// Returns the version of the tables.
pub(crate) async fn version<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<i64, Error> {
    let none = || Ok(ArgumentsOf::<D>::default());
    let row = store.row(store.deadline(), &store.statements().version, none).await?;
    let found = row.map(|row| Columns::<D::Database>::of(&row).int()).transpose();
    Ok(found.map_err(Error::of::<D>)?.flatten().unwrap_or(0))
}

/// Returns an error unless the tables have the version that this crate needs.
pub(crate) async fn check_version<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<(), Error> {
    let found = version(store).await.map_err(|error| {
        if error.cause != Cause::Kind(StoreErrorKind::Unsupported) {
            return error;
        }
        error.explained(
            "tower-keep's tables are missing, or this user may not read them: call `migrate()` on the \
             builder, or apply the files in the adapter's `migrations`",
        )
    })?;
    let newest = newest::<D>();
    let fix = if found < newest {
        "call `migrate()` on the builder, or apply the later files in the adapter's `migrations`"
    } else {
        "the tables were created by a later release of tower-keep: update tower-keep"
    };
    if found != newest {
        let message =
            format!("the tables have version {found}, and this release needs {newest}: {fix}");
        return Err(Error::new(StoreErrorKind::Unsupported, message));
    }
    Ok(())
}

impl<D: Dialect, U: AuthUser> Users<D, U> {
    /// Checks that the database can run the application's statements, and that the user type can
    /// read the rows that they return. Adapts the statements so that they return exactly the
    /// present columns, even if the tables get more.
    pub(crate) async fn check_and_adapt(
        &mut self,
        lease: &mut Lease<D>,
        names: &Names,
    ) -> Result<(), Error> {
        if !self.needs_user_hint {
            return Ok(());
        }
        let by_id = "the SELECT of a user by id";
        let columns = self.check(lease, by_id, &self.by_id, (self.id_type)()).await?;
        let login = login_of(self.by_id.text(), &columns, names);
        let parameters = vec![(self.id_type)()];
        lease.describe(&login, parameters).await.map_err(|error| {
            let fix = "must return columns with distinct names, because it is used as a subquery";
            error.explained(format!("{by_id} {fix}"))
        })?;
        self.login = login;
        self.by_id = with_columns(self.by_id.text(), &columns);
        let by_login_name = "the SELECT of a user by login name";
        let text = D::Database::text_type();
        let columns = self.check(lease, by_login_name, &self.by_login_name, text).await?;
        self.by_login_name = with_columns(self.by_login_name.text(), &columns);
        Ok(())
    }

    /// Checks a statement and returns its columns, quoted.
    async fn check(
        &self,
        lease: &mut Lease<D>,
        what: &str,
        select: &Statement<D>,
        parameter: TypeOf<D>,
    ) -> Result<Vec<String>, Error> {
        let shape = lease.describe(select, vec![parameter]).await;
        let Shape { columns, parameters } = shape.map_err(|error| error.explained(what))?;
        // PostgreSQL counts every parameter whose type it was given, even if the statement does not
        // use it.
        let parameters = if select.text().contains(['$', '?', ':', '@']) { parameters } else { 0 };
        if parameters != 1 {
            let message = format!("{what} has {parameters} parameters, and needs one");
            return Err(Error::new(StoreErrorKind::Unsupported, message));
        }
        self.check_columns(lease, what, &columns).await?;
        Ok(columns.iter().map(|(name, _)| D::quoted(name)).collect())
    }

    /// Checks that the user type can read a made-up row of these columns, which belongs to no user.
    async fn check_columns(
        &self,
        lease: &mut Lease<D>,
        what: &str,
        columns: &[(String, TypeOf<D>)],
    ) -> Result<(), Error> {
        let value = |column| match D::sample(column) {
            Sample::Of(value) => value,
            Sample::Unlike(_) => "NULL".to_owned(),
        };
        let samples: Vec<_> = columns.iter().map(|(_, column)| value(column)).collect();
        let user = self.sample(lease, columns, &samples).await?;
        if let Err(error) = user
            && is_mismatch(&error)
        {
            return Err(Error::of::<D>(error).explained(format!(
                "{what} does not return the columns that the user type reads; name each column \
                 there, or rename the type's field"
            )));
        }
        for (index, (name, column)) in columns.iter().enumerate() {
            let with = |value| [&samples[..index], &[value], &samples[index + 1..]].concat();
            if let Sample::Unlike(others) = D::sample(column) {
                for other in others {
                    if self.sample(lease, columns, &with((*other).to_owned())).await?.is_ok() {
                        let message = format!(
                            "{what} returns the column `{name}` of the type {}, which the user type \
                             does not read: cast it there, or give the field another type",
                            column.name()
                        );
                        return Err(Error::new(StoreErrorKind::Unsupported, message));
                    }
                }
            }
            let Some(values) = D::padded_samples(column) else { continue };
            let mut ids = Vec::new();
            for value in values {
                ids.extend(self.sample(lease, columns, &with(value)).await?.map(|user| user.id()));
            }
            if ids.first() != ids.last() {
                let message = format!(
                    "{what} returns the column `{name}`, which the database pads with spaces, and the \
                     id is read from it: such an id is not found again; cast it to text there, or \
                     change the column's type"
                );
                return Err(Error::new(StoreErrorKind::Unsupported, message));
            }
        }
        Ok(())
    }

    /// Reads a user from these values of the columns.
    async fn sample(
        &self,
        lease: &mut Lease<D>,
        columns: &[(String, TypeOf<D>)],
        values: &[String],
    ) -> Result<Result<U, sqlx::Error>, Error> {
        let named = columns.iter().zip(values);
        let named: Vec<_> =
            named.map(|((name, _), value)| format!("{value} AS {}", D::quoted(name))).collect();
        let statement = Statement::plain(format!("SELECT {}", named.join(", ")));
        let row = lease.row(&statement, Ok(ArgumentsOf::<D>::default())).await?;
        Ok(row.map_or(Err(sqlx::Error::RowNotFound), |row| (self.read)(&row)))
    }
}

/// Checks whether the error means that no row of these columns' types can be read. Any other error
/// may come from the sample, which is not a real user.
fn is_mismatch(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::ColumnNotFound(_) => true,
        sqlx::Error::ColumnDecode { source, .. } => {
            let message = source.to_string();
            // sqlx accepts any text as the bytes of a UUID, and returns this error only when it
            // reads one.
            message.contains("mismatched types") || message.contains("xpected 16 bytes")
        }
        _ => false,
    }
}
