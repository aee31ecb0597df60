//! What is checked when a store is opened, and what is learned.

use sqlx::{Error, TypeInfo as _};
use tower_keep_core::{AuthUser, StoreErrorKind};

use crate::dialect::{ArgumentsOf, Sample, TypeOf};
use crate::driver::Shape;
use crate::error::{Cause, Fault};
use crate::lease::Lease;
use crate::migrate::newest;
use crate::row::Columns;
use crate::statement::{Statement, login_of, only};
use crate::users::Users;
use crate::{Dialect, Driver, Names, SqlStore};

/// The version of the tables.
pub(crate) async fn version<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<i64, Fault> {
    let none = || Ok(ArgumentsOf::<D>::default());
    let row = store.row(store.deadline(), &store.statements().version, none).await?;
    let found = row.map(|row| Columns::<D::Database>::of(&row).int()).transpose();
    Ok(found.map_err(Fault::of::<D>)?.flatten().unwrap_or(0))
}

/// Whether the tables are as this crate needs them.
pub(crate) async fn check_version<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<(), Fault> {
    let found = version(store).await.map_err(|fault| {
        if fault.cause != Cause::Kind(StoreErrorKind::Unsupported) {
            return fault;
        }
        fault.explained(
            "tower-keep's tables are missing, or this user may not read them: call `migrate()` on the \
             builder, or apply the files in the adapter's `migrations`",
        )
    })?;
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
    Ok(())
}

impl<D: Dialect, U: AuthUser> Users<D, U> {
    /// Whether the database can run the application's statements, and the user type read what they
    /// answer. From then on they answer just that, whatever columns the tables get.
    pub(crate) async fn learn(&mut self, lease: &mut Lease<D>, names: &Names) -> Result<(), Fault> {
        if !self.guesses {
            return Ok(());
        }
        let by_id = "the SELECT of a user by id";
        let columns = self.check(lease, by_id, &self.by_id, (self.id_type)()).await?;
        let login = login_of(self.by_id.text(), &columns, names);
        let parameters = vec![(self.id_type)()];
        lease.read(&login, parameters).await.map_err(|fault| {
            let mend = "needs columns with names of their own, as it stands within another";
            fault.explained(format!("{by_id} {mend}"))
        })?;
        self.login = login;
        self.by_id = only(self.by_id.text(), &columns);
        let by_login = "the SELECT of a user by login name";
        let text = D::Database::text_type();
        let columns = self.check(lease, by_login, &self.by_login, text).await?;
        self.by_login = only(self.by_login.text(), &columns);
        Ok(())
    }

    /// The statement's columns, between quotes.
    async fn check(
        &self,
        lease: &mut Lease<D>,
        what: &str,
        select: &Statement<D>,
        parameter: TypeOf<D>,
    ) -> Result<Vec<String>, Fault> {
        let shape = lease.read(select, vec![parameter]).await;
        let Shape { columns, parameters } = shape.map_err(|fault| fault.explained(what))?;
        // PostgreSQL counts what it was told of, named or not.
        let parameters = if select.text().contains(['$', '?', ':', '@']) { parameters } else { 0 };
        if parameters != 1 {
            let words = format!("{what} has {parameters} parameters, and needs one");
            return Err(Fault::new(StoreErrorKind::Unsupported, words));
        }
        self.check_columns(lease, what, &columns).await?;
        Ok(columns.iter().map(|(name, _)| D::quoted(name)).collect())
    }

    /// Reads a row of these columns that is nobody's.
    async fn check_columns(
        &self,
        lease: &mut Lease<D>,
        what: &str,
        columns: &[(String, TypeOf<D>)],
    ) -> Result<(), Fault> {
        let value = |column| match D::sample(column) {
            Sample::Of(value) => value,
            Sample::Unlike(_) => "NULL".to_owned(),
        };
        let samples: Vec<_> = columns.iter().map(|(_, column)| value(column)).collect();
        let user = self.sample(lease, columns, &samples).await?;
        if let Err(error) = user
            && is_wrong(&error)
        {
            return Err(Fault::of::<D>(error).explained(format!(
                "{what} does not answer what the user type reads; name each column there, or rename \
                 the type's field"
            )));
        }
        for (index, (name, column)) in columns.iter().enumerate() {
            let with = |value| [&samples[..index], &[value], &samples[index + 1..]].concat();
            if let Sample::Unlike(others) = D::sample(column) {
                for other in others {
                    if self.sample(lease, columns, &with((*other).to_owned())).await?.is_ok() {
                        let words = format!(
                            "{what} returns the column `{name}` of the type {}, which the user type \
                             does not read: cast it there, or give the field another type",
                            column.name()
                        );
                        return Err(Fault::new(StoreErrorKind::Unsupported, words));
                    }
                }
            }
            let Some(values) = D::padded(column) else { continue };
            let mut ids = Vec::new();
            for value in values {
                ids.extend(self.sample(lease, columns, &with(value)).await?.map(|user| user.id()));
            }
            if ids.first() != ids.last() {
                let words = format!(
                    "{what} returns the column `{name}` with spaces at its end, and the id is made of \
                     it: an id with spaces is not found again; cast it to text there, or give the \
                     column such a type"
                );
                return Err(Fault::new(StoreErrorKind::Unsupported, words));
            }
        }
        Ok(())
    }

    /// A user who is read from these values of the columns.
    async fn sample(
        &self,
        lease: &mut Lease<D>,
        columns: &[(String, TypeOf<D>)],
        values: &[String],
    ) -> Result<Result<U, Error>, Fault> {
        let named = columns.iter().zip(values);
        let named: Vec<_> =
            named.map(|((name, _), value)| format!("{value} AS {}", D::quoted(name))).collect();
        let statement = Statement::plain(format!("SELECT {}", named.join(", ")));
        let row = lease.row(&statement, Ok(ArgumentsOf::<D>::default())).await?;
        Ok(row.map_or(Err(Error::RowNotFound), |row| (self.read)(&row)))
    }
}

/// Whether no row of these columns' types can be read. What else fails may be the sample's fault: it is
/// no real user.
fn is_wrong(error: &Error) -> bool {
    match error {
        Error::ColumnNotFound(_) => true,
        Error::ColumnDecode { source, .. } => {
            let said = source.to_string();
            // sqlx takes any text for a UUID's bytes, and says so when it reads one.
            said.contains("mismatched types") || said.contains("xpected 16 bytes")
        }
        _ => false,
    }
}
