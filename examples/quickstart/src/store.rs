//! Opens the store of accounts and sessions. The handlers work with any store: to add one, add a
//! branch to `open`.

use std::error::Error;
use std::sync::Arc;

use tower_keep::Account;
use tower_keep::store::{CounterStore, LoginStore, UserDirectory};
use tower_keep_memory::MemoryStore;
use tower_keep_sqlite::SqliteStore;

/// A store of accounts, sessions and counters.
pub(crate) trait Store: UserDirectory<User = Account> + LoginStore + CounterStore {}

impl<S: UserDirectory<User = Account> + LoginStore + CounterStore> Store for S {}

/// Opens the store with this URL. Creates the tables, if it is a store with tables.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    Ok(match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "memory" => Arc::new(MemoryStore::new()),
        "sqlite" => Arc::new(SqliteStore::builder(url).migrate().build().await.map_err(full_text)?),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let builder = tower_keep_postgres::PostgresStore::builder(url);
            Arc::new(builder.migrate().build().await.map_err(full_text)?)
        }
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => {
            let builder = tower_keep_mysql::MySqlStore::builder(url);
            Arc::new(builder.migrate().build().await.map_err(full_text)?)
        }
        #[cfg(feature = "redis")]
        scheme if scheme.starts_with("redis") => {
            Arc::new(tower_keep_redis::RedisStore::builder(url).build().await.map_err(full_text)?)
        }
        #[cfg(feature = "datastore")]
        "datastore" => Arc::new(
            tower_keep_datastore::DatastoreStore::builder(url).build().await.map_err(full_text)?,
        ),
        #[cfg(not(feature = "postgres"))]
        "postgres" | "postgresql" => return Err(not_enabled("postgres")),
        #[cfg(not(feature = "mysql"))]
        "mysql" | "mariadb" => return Err(not_enabled("mysql")),
        #[cfg(not(feature = "redis"))]
        scheme if scheme.starts_with("redis") => return Err(not_enabled("redis")),
        #[cfg(not(feature = "datastore"))]
        "datastore" => return Err(not_enabled("datastore")),
        // The error quotes only the scheme, because the URL may contain a password.
        scheme => {
            let known = "memory, sqlite:PATH, postgres://…, mysql://…, redis://… or datastore://…";
            return Err(format!("unknown store {scheme:?}: --store takes {known}").into());
        }
    })
}

/// Returns the error for a store whose feature is not enabled. Its text says how to enable it.
#[cfg(any(
    test,
    not(all(feature = "postgres", feature = "mysql", feature = "redis", feature = "datastore"))
))]
fn not_enabled(feature: &str) -> Box<dyn Error> {
    let problem = format!("the quickstart was built without the feature `{feature}`");
    format!("{problem}: cargo run --features {feature} -- --store {feature}://…").into()
}

/// Returns the text of a store's error, followed by the text of its source, if there is one.
fn full_text(error: tower_keep::store::StoreError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_store_that_is_not_enabled_names_the_feature() {
        let text = not_enabled("postgres").to_string();
        assert!(text.contains("cargo run --features postgres"), "{text}");
    }
}
