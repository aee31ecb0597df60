//! Opens a store.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Encode, FromRow, Pool, Type};
use tower_keep_core::{Account, AuthUser, StoreError, StoreErrorKind};

use crate::check::{check_version, tables_version};
use crate::dialect::{Dialect, RowOf, Schemas, TransactionPooling};
use crate::error::{Error, IntoStoreResult};
use crate::migrate::{migrate, newest_version};
use crate::names::Names;
use crate::pools::{Pools, Settings};
use crate::statements::Statements;
use crate::store::{Shared, SqlStore};
use crate::users::Users;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);
const DEFAULT_CONNECTIONS: u32 = 10;

/// Creates the statements for users once the tables' names are known.
type MakeUsers<D, U> = Box<dyn FnOnce(&Names) -> Users<D, U> + Send>;

enum Source<D: Dialect> {
    Url(String),
    Pool(Pool<D::Database>),
}

/// Opens a store from a URL, or on the application's own pool.
///
/// [`build`](Self::build) checks the tables and the application's statements once, so a missing
/// table or column is an error at startup.
#[must_use = "a builder does nothing until `build()`"]
pub struct SqlStoreBuilder<D: Dialect, U = Account> {
    source: Source<D>,
    settings: Settings,
    names: Names,
    migrates: bool,
    make_users: MakeUsers<D, U>,
}

/// Does not show the URL, because it contains a password.
impl<D: Dialect, U> fmt::Debug for SqlStoreBuilder<D, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, names, migrates, .. } = self;
        f.debug_struct("SqlStoreBuilder")
            .field("database", &D::NAME)
            .field("settings", settings)
            .field("names", names)
            .field("migrates", migrates)
            .finish_non_exhaustive()
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Creates a builder for a store in the database at this URL. The store has its own connection
    /// pool.
    pub fn builder(url: impl Into<String>) -> SqlStoreBuilder<D> {
        SqlStoreBuilder::new(Source::Url(url.into()))
    }

    /// Creates a builder for a store on the application's pool. The settings of the pool stay as
    /// they are.
    ///
    /// Let the pool test idle connections before it hands them out, as it does by default. If a
    /// call gets a dead connection, the store repeats the call only if nothing can have been
    /// written. A write that is a single statement is not repeated.
    ///
    /// The database aborts a statement after the time that is set on the pool's connections
    /// (`statement_timeout`, `innodb_lock_wait_timeout`, `busy_timeout`). The store does not change
    /// these settings of the connections. In PostgreSQL it sets `statement_timeout` for each of its
    /// own transactions, which ends with the transaction.
    pub fn builder_on(pool: Pool<D::Database>) -> SqlStoreBuilder<D> {
        SqlStoreBuilder::new(Source::Pool(pool))
    }
}

impl<D: Dialect> SqlStoreBuilder<D> {
    fn new(source: Source<D>) -> Self {
        let settings = Settings {
            timeout: DEFAULT_TIMEOUT,
            max_connections: DEFAULT_CONNECTIONS,
            forget: None,
        };
        let make_users = Box::new(|names: &Names| Users::of_accounts(names));
        Self { source, settings, names: Names::default(), migrates: false, make_users }
    }
}

impl<D: Dialect, U: AuthUser> SqlStoreBuilder<D, U> {
    /// Creates the tables if there are none, and updates them to the newest version.
    ///
    /// Any number of nodes may do this at the same time: one runs the migrations, and the others
    /// wait. Without this setting the tables must exist already: create them with the files in the
    /// adapter's `migrations`.
    pub fn migrate(mut self) -> Self {
        self.migrates = true;
        self
    }

    /// Reads users of the application's own type from its own table.
    ///
    /// The two statements are in the database's SQL dialect. Each has one parameter: the id in the
    /// first, the login name in the second. The columns that a statement returns need distinct
    /// names.
    ///
    /// `I` is the type of the id's column: `i32`, `i64`, `String`, `Uuid` (with the adapter's
    /// feature `uuid`), or any other type with `FromStr` and `Display` that parses and displays
    /// each id as one and the same text. If an id can't be parsed as this type, no user has it.
    ///
    /// [`build`](Self::build) lets the database check the statements, and reads a made-up row. So a
    /// missing table or column is an error of `build`. A missing privilege is an error only of the
    /// first call that needs it.
    ///
    /// The store then implements `UserLookup`, but not `UserDirectory`: the application writes its
    /// table itself.
    pub fn with_users<V, I>(
        self,
        by_id: impl Into<String>,
        by_login_name: impl Into<String>,
    ) -> SqlStoreBuilder<D, V>
    where
        V: AuthUser + for<'r> FromRow<'r, RowOf<D>>,
        I: FromStr + Display + Type<D::Database> + for<'q> Encode<'q, D::Database>,
    {
        let Self { source, settings, names, migrates, .. } = self;
        let (by_id, by_login_name) = (by_id.into(), by_login_name.into());
        let make_users =
            Box::new(move |names: &Names| Users::custom::<I>(&by_id, &by_login_name, names));
        SqlStoreBuilder { source, settings, names, migrates, make_users }
    }

    /// Sets the maximum duration of a call to the store, including the time it waits for a
    /// connection. The default is 3 s, and the maximum is an hour.
    ///
    /// If no connection is free in time, the call returns an error of the kind
    /// [unavailable](tower_keep_core::StoreErrorKind::Unavailable). If the database does not
    /// respond in time, the kind is [timeout](tower_keep_core::StoreErrorKind::Timeout). On
    /// connections that the store opens, the database aborts its statements a little earlier, if it
    /// has a setting for that. Migrations have no timeout.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout.clamp(Duration::from_millis(1), MAX_TIMEOUT);
        self
    }

    /// Sets the maximum number of connections that the store opens. The default is 10. For a pool
    /// of your own, set it on the pool.
    pub fn with_max_connections(mut self, max: u32) -> Self {
        self.settings.max_connections = max;
        self
    }

    /// Sets the prefix of the names of tables and indexes. The default is `keep_`.
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.set_prefix(prefix.into());
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// Returns an error if the database can't be reached, if the tables are missing or don't have
    /// the version that this release needs, or if a statement for the application's users can't be
    /// run or does not return the columns that the user type reads. The error's text says what to
    /// do.
    pub async fn build(self) -> Result<SqlStore<D, U>, StoreError> {
        self.open().await.into_store_result::<D>()
    }

    async fn open(self) -> Result<SqlStore<D, U>, Error> {
        let Self { source, settings, names, migrates, make_users } = self;
        names.check().map_err(|message| Error::new(StoreErrorKind::Unsupported, message))?;
        let pools = match source {
            Source::Url(url) => D::open(&url, &settings).await.map_err(Error::of::<D>)?,
            Source::Pool(pool) => Pools::one(pool),
        };
        let (statements, users) = (Statements::new(&names), make_users(&names));
        let shared = Shared { pools, settings, names, statements, users };
        let mut store = SqlStore { shared: Arc::new(shared) };
        // If the tables are up to date, no migration is begun. So a database user who may not
        // create tables can open the store, too.
        let is_outdated = |version| version < newest_version::<D>();
        if migrates && tables_version(&store).await.ok().is_none_or(is_outdated) {
            migrate(&store).await?;
        }
        check_version(&store).await?;
        let mut lease = store.begin_check().await?;
        // The store has no clone yet, so this is always `Some`.
        if let Some(Shared { users, names, .. }) = Arc::get_mut(&mut store.shared) {
            users.check_and_name_columns(&mut lease, names).await?;
        }
        store.finish_check(lease).await?;
        Ok(store)
    }
}

/// Only for databases whose tables can be in a schema.
impl<D: Schemas, U: AuthUser> SqlStoreBuilder<D, U> {
    /// Sets the schema of the tables. The default is the connection's default schema. The schema
    /// must exist already: create it with `CREATE SCHEMA`.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.names.set_schema(schema.into());
        self
    }
}

/// Only for databases that work behind a proxy that pools transactions.
impl<D: TransactionPooling, U: AuthUser> SqlStoreBuilder<D, U> {
    /// Makes the store work through a proxy that gives each transaction another connection, such as
    /// PgBouncer in transaction mode. No statement is kept prepared, and each statement is sent
    /// within a transaction. If the application passes its own pool, the adapter's docs say which
    /// settings the pool needs.
    pub fn with_transaction_pooling(mut self) -> Self {
        self.settings.forget = Some(D::FORGET);
        self
    }
}
