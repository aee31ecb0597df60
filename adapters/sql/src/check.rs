//! What is checked when a store is opened.

use sqlx::Error;
use tower_keep_core::{AuthUser, StoreErrorKind};

use crate::dialect::ArgumentsOf;
use crate::error::{Cause, Fault};
use crate::lease::Lease;
use crate::migrate::newest;
use crate::row::Columns;
use crate::statement::Statement;
use crate::users::Users;
use crate::{Dialect, SqlStore};

/// Whether the tables are as this crate needs them, and the application's as it says.
pub(crate) async fn check<D: Dialect, U: AuthUser>(store: &SqlStore<D, U>) -> Result<(), Fault> {
    let none = || Ok(ArgumentsOf::<D>::default());
    let row = store.row(&store.statements().version, none).await.map_err(|fault| {
        if fault.cause != Cause::Kind(StoreErrorKind::Unsupported) {
            return fault;
        }
        fault.explained(
            "tower-keep's tables are missing: call `migrate()` on the builder, or apply the files in \
             the adapter's `migrations`",
        )
    })?;
    let found = row.map(|row| Columns::<D::Database>::of(&row).int()).transpose();
    let found = found.map_err(Fault::of::<D>)?.flatten().unwrap_or(0);
    let newest = newest::<D>();
    let mend = if found < newest {
        "call `migrate()` on the builder, or apply the later files in the adapter's `migrations`"
    } else {
        "they are of a later release of tower-keep: run that"
    };
    if found != newest {
        let words =
            format!("the tables have version {found}, and this release needs {newest}: {mend}");
        return Err(Fault::new(StoreErrorKind::Unsupported, words));
    }
    store.check_users().await
}

impl<D: Dialect, U> Users<D, U> {
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
}
