//! The tables, made and brought up to date.

use sqlx::{Connection, Pool};

use crate::dialect::{ArgumentsOf, ConnectionOf};
use crate::error::Fault;
use crate::row::Columns;
use crate::statement::{Statement, Statements};
use crate::{Dialect, Driver, Names};

/// The newest version of the tables that this crate knows.
pub(crate) fn newest<D: Dialect>() -> i64 {
    D::MIGRATIONS.len() as i64
}

/// Which version the tables have; an error if there are none.
async fn version<D: Dialect>(
    connection: &mut ConnectionOf<D>,
    version: &Statement<D>,
) -> Result<i64, Fault> {
    let none = ArgumentsOf::<D>::default();
    let rows = D::Database::rows(connection, version.sql(), none, false).await;
    let rows = rows.map_err(Fault::of::<D>)?;
    let found = rows.first().map(|row| Columns::<D::Database>::of(row).int()).transpose();
    Ok(found.map_err(Fault::of::<D>)?.flatten().unwrap_or(0))
}

/// Runs what the tables lack. Of several nodes that start at once one does, and the others wait.
pub(crate) async fn migrate<D: Dialect>(
    pool: &Pool<D::Database>,
    names: &Names,
    statements: &Statements<D>,
) -> Result<(), Fault> {
    // Closed at the end, whatever becomes of it: with it go its locks, and what was not committed.
    let mut connection = pool.acquire().await.map_err(Fault::of::<D>)?.detach();
    let done = run::<D>(&mut connection, names, &statements.version).await;
    let _ = connection.close().await;
    done
}

async fn run<D: Dialect>(
    connection: &mut ConnectionOf<D>,
    names: &Names,
    statement: &Statement<D>,
) -> Result<(), Fault> {
    // Who may only read and write can start as well, as long as there is nothing to do.
    if version(connection, statement).await.is_ok_and(|version| version >= newest::<D>()) {
        return Ok(());
    }
    let script = async |connection: &mut ConnectionOf<D>, script: &str| {
        let script = names.in_migration(script);
        D::Database::script(connection, script).await.map_err(Fault::of::<D>)
    };
    script(connection, D::MIGRATIONS_BEGIN).await?;
    let versions = "CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY)";
    script(connection, versions).await?;
    let done = usize::try_from(version(connection, statement).await?).unwrap_or(usize::MAX);
    for migration in D::MIGRATIONS.iter().skip(done) {
        script(connection, migration).await?;
    }
    script(connection, D::MIGRATIONS_END).await
}
