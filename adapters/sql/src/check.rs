//! Checks the tables and the application's statements when a store is opened. Each statement then
//! names the columns that it returns.

use sqlx::TypeInfo as _;
use tower_keep_core::{AuthUser, StoreErrorKind};

use crate::cause::Cause;
use crate::dialect::{ArgumentsOf, Dialect, Sample, TypeOf};
use crate::driver::{Operations, Shape};
use crate::error::Error;
use crate::lease::Lease;
use crate::migrate::newest_version;
use crate::names::Names;
use crate::row::Columns;
use crate::statements::{Statement, select_columns, select_session_with_user};
use crate::store::SqlStore;
use crate::users::Users;

/// Returns the version of the tables, or 0 if they have none.
pub(crate) async fn tables_version<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<i64, Error> {
    let no_arguments = || Ok(ArgumentsOf::<D>::default());
    let row = store.row(store.deadline(), &store.statements().version, no_arguments).await?;
    let found = row.map(|row| Columns::<D::Database>::of(&row).int()).transpose();
    Ok(found.map_err(Error::of::<D>)?.flatten().unwrap_or(0))
}

/// Returns an error unless the tables have the version that this crate needs.
pub(crate) async fn check_version<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<(), Error> {
    let found = tables_version(store).await.map_err(|error| {
        if error.cause != Cause::Kind(StoreErrorKind::Unsupported) {
            return error;
        }
        error.explained(
            "tower-keep's tables are missing, or the database user has no privilege to read them: call \
             `migrate()` on the builder, apply the files in the adapter's `migrations`, or grant the \
             privilege",
        )
    })?;
    let newest = newest_version::<D>();
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
    /// read the rows that they return. Then rewrites each statement so that it names its columns.
    /// So a column that is added to a table later does not change the rows of a `SELECT *`.
    pub(crate) async fn check_and_name_columns(
        &mut self,
        lease: &mut Lease<D>,
        names: &Names,
    ) -> Result<(), Error> {
        if !self.is_custom {
            return Ok(());
        }
        let name = "the SELECT of a user by id";
        let columns = self.check_statement(lease, name, &self.by_id, (self.id_type)()).await?;
        let session_with_user = select_session_with_user(self.by_id.as_str(), &columns, names);
        let parameters = vec![(self.id_type)()];
        lease.describe(&session_with_user, parameters).await.map_err(|error| {
            let rule = "must return columns with distinct names, because it is used as a subquery";
            error.explained(format!("{name} {rule}"))
        })?;
        self.session_with_user = session_with_user;
        self.by_id = select_columns(self.by_id.as_str(), &columns);
        let name = "the SELECT of a user by login name";
        let text = D::Database::text_type();
        let columns = self.check_statement(lease, name, &self.by_login_name, text).await?;
        self.by_login_name = select_columns(self.by_login_name.as_str(), &columns);
        Ok(())
    }

    /// Checks a statement and returns the names of its columns, quoted. `statement_name` is the
    /// subject of the error texts.
    async fn check_statement(
        &self,
        lease: &mut Lease<D>,
        statement_name: &str,
        select: &Statement<D>,
        parameter: TypeOf<D>,
    ) -> Result<Vec<String>, Error> {
        let shape = lease.describe(select, vec![parameter]).await;
        let Shape { columns, parameters } =
            shape.map_err(|error| error.explained(statement_name))?;
        // PostgreSQL counts the parameter whose type was passed to `describe`, even if the
        // statement has no placeholder.
        let parameters =
            if select.as_str().contains(['$', '?', ':', '@']) { parameters } else { 0 };
        if parameters != 1 {
            let message =
                format!("{statement_name} has {parameters} parameters, and must have one");
            return Err(Error::new(StoreErrorKind::Unsupported, message));
        }
        self.check_columns(lease, statement_name, &columns).await?;
        Ok(columns.iter().map(|(name, _)| D::quoted(name)).collect())
    }

    /// Checks that the user type can read a made-up row with these columns.
    async fn check_columns(
        &self,
        lease: &mut Lease<D>,
        statement_name: &str,
        columns: &[(String, TypeOf<D>)],
    ) -> Result<(), Error> {
        let sample_or_null = |column_type| match D::sample(column_type) {
            Sample::Of(value) => value,
            Sample::Padded([value, _]) => value.to_owned(),
            Sample::OfOtherTypes(_) => "NULL".to_owned(),
        };
        let samples: Vec<_> =
            columns.iter().map(|(_, column_type)| sample_or_null(column_type)).collect();
        let user = self.read_made_up_row(lease, columns, &samples).await?;
        if let Err(error) = user
            && is_column_mismatch(&error)
        {
            return Err(Error::of::<D>(error).explained(format!(
                "{statement_name} does not return the columns that the user type reads; change the \
                 columns in the SELECT, or the fields of the user type"
            )));
        }
        for (index, (name, column_type)) in columns.iter().enumerate() {
            let sample = D::sample(column_type);
            let values = match &sample {
                Sample::Of(_) => continue,
                Sample::Padded(values) => &values[..],
                Sample::OfOtherTypes(values) => values,
            };
            let mut users = Vec::new();
            for value in values {
                let row =
                    [&samples[..index], &[(*value).to_owned()], &samples[index + 1..]].concat();
                users.extend(self.read_made_up_row(lease, columns, &row).await?);
            }
            let message = match sample {
                // The id differs between the two rows, so it is read from this column.
                Sample::Padded(_)
                    if users.first().map(AuthUser::id) != users.last().map(AuthUser::id) =>
                {
                    format!(
                        "{statement_name} returns the user's id in the column `{name}`, which the \
                         database pads with spaces, so no user would be found by this id: cast the \
                         column to text in the SELECT, or change its type in the table"
                    )
                }
                Sample::OfOtherTypes(_) if !users.is_empty() => format!(
                    "{statement_name} returns the column `{name}` of the type {}, which the user \
                     type can't read: cast the column in the SELECT, or give the field another type",
                    column_type.name()
                ),
                _ => continue,
            };
            return Err(Error::new(StoreErrorKind::Unsupported, message));
        }
        Ok(())
    }

    /// Reads a user from a row with these columns and values. The outer result is an error if the
    /// database can't return the row, and the inner one if the user type can't read it.
    async fn read_made_up_row(
        &self,
        lease: &mut Lease<D>,
        columns: &[(String, TypeOf<D>)],
        values: &[String],
    ) -> Result<Result<U, sqlx::Error>, Error> {
        let named_values: Vec<_> = columns
            .iter()
            .zip(values)
            .map(|((name, _), value)| format!("{value} AS {}", D::quoted(name)))
            .collect();
        let statement = Statement::from_sql(format!("SELECT {}", named_values.join(", ")));
        let row = lease.row(&statement, Ok(ArgumentsOf::<D>::default())).await?;
        Ok(row.map_or(Err(sqlx::Error::RowNotFound), |row| (self.read)(&row)))
    }
}

/// Checks whether the error means that the user type can read no row with these columns. Any other
/// error may come from the values of the made-up row, which belongs to no user.
fn is_column_mismatch(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::ColumnNotFound(_) => true,
        sqlx::Error::ColumnDecode { source, .. } => {
            let message = source.to_string();
            // For a `Uuid` field, sqlx's check of types also accepts a text column. The second text
            // is the error when sqlx then decodes a value that does not have 16 bytes.
            message.contains("mismatched types") || message.contains("xpected 16 bytes")
        }
        _ => false,
    }
}
