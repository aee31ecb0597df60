//! Where accounts and sessions are stored. Each store needs one line here, and no handler knows
//! which store is used.

use std::error::Error;
use std::sync::Arc;

use tower_keep::Account;
use tower_keep::store::{LoginStore, UserDirectory};
use tower_keep_memory::MemoryStore;
use tower_keep_sqlite::SqliteStore;

/// A store of accounts and of sessions.
pub(crate) trait Store: UserDirectory<User = Account> + LoginStore {}

impl<S: UserDirectory<User = Account> + LoginStore> Store for S {}

/// Opens the store with this URL and creates its tables.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    Ok(match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "memory" => Arc::new(MemoryStore::new()),
        "sqlite" => Arc::new(SqliteStore::builder(url).migrate().build().await.map_err(why)?),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let builder = tower_keep_postgres::PostgresStore::builder(url);
            Arc::new(builder.migrate().build().await.map_err(why)?)
        }
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => {
            let builder = tower_keep_mysql::MySqlStore::builder(url);
            Arc::new(builder.migrate().build().await.map_err(why)?)
        }
        #[cfg(feature = "redis")]
        scheme if scheme.starts_with("redis") => {
            Arc::new(tower_keep_redis::RedisStore::builder(url).build().await.map_err(why)?)
        }
        #[cfg(feature = "datastore")]
        "datastore" => {
            Arc::new(tower_keep_datastore::DatastoreStore::builder(url).build().await.map_err(why)?)
        }
        #[cfg(not(feature = "postgres"))]
        "postgres" | "postgresql" => return Err(without("postgres")),
        #[cfg(not(feature = "mysql"))]
        "mysql" | "mariadb" => return Err(without("mysql")),
        #[cfg(not(feature = "redis"))]
        scheme if scheme.starts_with("redis") => return Err(without("redis")),
        #[cfg(not(feature = "datastore"))]
        "datastore" => return Err(without("datastore")),
        // The error does not quote the whole URL, which may contain a password.
        other => {
            let known = "memory, sqlite:PATH, postgres://…, mysql://…, redis://… or datastore://…";
            return Err(
                format!("--store takes {known}, and nothing that begins with {other:?}").into()
            );
        }
    })
}

/// Returns the error for a store that this quickstart was built without. It says how to build it.
#[cfg(any(
    test,
    not(all(feature = "postgres", feature = "mysql", feature = "redis", feature = "datastore"))
))]
fn without(feature: &str) -> Box<dyn Error> {
    let words = "this was built without that store: cargo run --features";
    format!("{words} {feature} -- --store {feature}://…").into()
}

/// Returns the text of a store's error, which says what to do, and of its source, which says what
/// happened.
fn why(error: tower_keep::store::StoreError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_left_out_names_its_feature() {
        let said = without("postgres").to_string();
        assert!(said.contains("cargo run --features postgres"), "{said}");
    }
}
