//! Where accounts and sessions are kept: one line for each store, and no handler knows which.

use std::error::Error;
use std::sync::Arc;

use tower_keep::{Account, LoginStore, UserDirectory};
use tower_keep_memory::MemoryStore;
use tower_keep_sqlite::SqliteStore;

/// A store of accounts and of sessions.
pub(crate) trait Store: UserDirectory<User = Account> + LoginStore {}

impl<S: UserDirectory<User = Account> + LoginStore> Store for S {}

/// Opens the store of this URL, and makes its tables.
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
        // Not the whole of it, which may hold a password.
        other => {
            let known = "memory, sqlite:PATH, postgres://…, mysql://…, redis://… or datastore://…";
            return Err(
                format!("--store takes {known}, and nothing that begins with {other:?}").into()
            );
        }
    })
}

/// This quickstart was built without a store; what to build it with.
#[cfg(any(
    test,
    not(all(feature = "postgres", feature = "mysql", feature = "redis", feature = "datastore"))
))]
fn without(feature: &str) -> Box<dyn Error> {
    let words = "this was built without that store: cargo run --features";
    format!("{words} {feature} -- --store {feature}://…").into()
}

/// A store's error says what to do about it, and what happened underneath.
fn why(error: tower_keep::StoreError) -> String {
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
