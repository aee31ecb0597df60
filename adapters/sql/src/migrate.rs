//! Creates the tables and updates them to the newest version.

use sqlx::pool::PoolConnection;

use crate::dialect::{ArgumentsOf, ConnectionOf, Dialect};
use crate::driver::{Operations, Query};
use crate::error::Error;
use crate::row::Columns;
use crate::store::SqlStore;

/// Returns the newest version of the tables that this crate knows.
pub(crate) fn newest_version<D: Dialect>() -> i64 {
    D::MIGRATIONS.len() as i64
}

/// A connection that is closed when this guard is dropped. Closing it releases its locks and rolls
/// back its open transaction. After a success, [`migrate`] returns the connection to the pool
/// instead.
struct MigrationConnection<D: Dialect>(Option<PoolConnection<D::Database>>);

impl<D: Dialect> Drop for MigrationConnection<D> {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// Runs the migrations that the tables don't have yet. If several nodes start at the same time, one
/// node runs the migrations and the others wait.
pub(crate) async fn migrate<D: Dialect, U>(store: &SqlStore<D, U>) -> Result<(), Error> {
    let connection = store.pool().acquire().await.map_err(Error::of::<D>)?;
    let mut guard = MigrationConnection::<D>(Some(connection));
    if let Some(connection) = guard.0.as_deref_mut() {
        run_migrations(connection, store).await?;
    }
    drop(guard.0.take());
    Ok(())
}

async fn run_migrations<D: Dialect, U>(
    connection: &mut ConnectionOf<D>,
    store: &SqlStore<D, U>,
) -> Result<(), Error> {
    let names = &store.shared.names;
    let run_script = async |connection: &mut ConnectionOf<D>, sql: String| {
        D::Database::script(connection, sql).await.map_err(Error::of::<D>)
    };
    run_script(connection, D::migrations_begin(names)).await?;
    let create_versions =
        "CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY)";
    run_script(connection, names.in_migration(create_versions)).await?;
    let sql = store.statements().version.sql();
    let arguments = ArgumentsOf::<D>::default();
    let query = Query { sql, arguments, is_persistent: false };
    let row = D::Database::row(connection, query).await.map_err(Error::of::<D>)?;
    let applied = row.map(|row| Columns::<D::Database>::of(&row).int()).transpose();
    let applied = applied.map_err(Error::of::<D>)?.flatten().unwrap_or(0);
    let applied = usize::try_from(applied).unwrap_or(usize::MAX);
    for migration in D::MIGRATIONS.iter().skip(applied) {
        run_script(connection, names.in_migration(migration)).await?;
    }
    run_script(connection, D::migrations_end(names)).await
}
