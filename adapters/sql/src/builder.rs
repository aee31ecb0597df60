//! How a store is opened.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Encode, FromRow, Pool, Type};
use tower_keep_core::{Account, AuthUser, StoreError};

use crate::check::{check_version, version};
use crate::dialect::RowOf;
use crate::error::Fault;
use crate::migrate::{migrate, newest};
use crate::statement::Statements;
use crate::store::{Answer, Shared};
use crate::users::Users;
use crate::{Dialect, Names, Pools, Settings, SqlStore};

const TIMEOUT: Duration = Duration::from_secs(3);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);
const CONNECTIONS: u32 = 10;

/// What makes the statements for users, when the tables' names are known.
type MakeUsers<D, U> = Box<dyn FnOnce(&Names) -> Users<D, U> + Send>;

enum Source<D: Dialect> {
    Url(String),
    Pool(Pool<D::Database>),
}

/// Opens a store: by a URL, or on the application's own pool.
///
/// [`build`](Self::build) checks everything once, so that what is missing shows at the start.
#[must_use = "a builder does nothing until `build()`"]
pub struct SqlStoreBuilder<D: Dialect, U = Account> {
    source: Source<D>,
    settings: Settings,
    names: Names,
    migrates: bool,
    users: MakeUsers<D, U>,
}

/// Shows no URL, which holds a password.
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
    /// A store in the database of this URL, with a pool of its own.
    pub fn builder(url: impl Into<String>) -> SqlStoreBuilder<D> {
        SqlStoreBuilder::new(Source::Url(url.into()))
    }

    /// A store on the application's pool, with the settings that it has.
    ///
    /// Let the pool test a connection that was idle before it hands it out, as it does unless told
    /// otherwise: what meets a dead one is asked again where nothing can have been written, and a single
    /// statement that writes is not. The database gives up what takes too long by the connections' own
    /// settings (`statement_timeout`, `innodb_lock_wait_timeout`, `busy_timeout`), which this leaves alone.
    pub fn builder_on(pool: Pool<D::Database>) -> SqlStoreBuilder<D> {
        SqlStoreBuilder::new(Source::Pool(pool))
    }
}

impl<D: Dialect> SqlStoreBuilder<D> {
    fn new(source: Source<D>) -> Self {
        let settings =
            Settings { timeout: TIMEOUT, max_connections: CONNECTIONS, transaction_pooling: false };
        let users = Box::new(|names: &Names| Users::ready(names));
        Self { source, settings, names: Names::default(), migrates: false, users }
    }
}

impl<D: Dialect, U: AuthUser> SqlStoreBuilder<D, U> {
    /// Makes the tables if there are none, and brings them up to date.
    ///
    /// Any number of nodes may do so at once: one works, and the others wait. Without it, the tables
    /// have to be there, by the files in the adapter's `migrations`.
    pub fn migrate(mut self) -> Self {
        self.migrates = true;
        self
    }

    /// Users of the application's own type, from its own table.
    ///
    /// The two statements are in the database's words, with one parameter each: the id, and the login
    /// name. `I` is the type of the id's column: `i32`, `i64`, `String`, `Uuid` (with the adapter's feature
    /// `uuid`), or any other that reads and writes one text per id. An id that can't be one is nobody's.
    /// The columns need names of their own. [`build`](Self::build) has the database check the statements, and reads a
    /// made-up row, so that a missing table or column shows at once; rights show when they are needed.
    ///
    /// The store is then a `UserFinder`, and no `UserDirectory`: the application writes its table itself.
    pub fn with_users<V, I>(
        self,
        by_id: impl Into<String>,
        by_login: impl Into<String>,
    ) -> SqlStoreBuilder<D, V>
    where
        V: AuthUser + for<'r> FromRow<'r, RowOf<D>>,
        I: FromStr + Display + Type<D::Database> + for<'q> Encode<'q, D::Database>,
    {
        let Self { source, settings, names, migrates, .. } = self;
        let (by_id, by_login) = (by_id.into(), by_login.into());
        let users = Box::new(move |names: &Names| Users::own::<I>(&by_id, &by_login, names));
        SqlStoreBuilder { source, settings, names, migrates, users }
    }

    /// How long a call to the store takes at most, waiting for a connection included; 3 s unless told
    /// otherwise, an hour at most. Without a free connection in time the store is
    /// [unavailable](tower_keep_core::StoreErrorKind::Unavailable); without an answer it is a
    /// [timeout](tower_keep_core::StoreErrorKind::Timeout). The database gives up a little earlier.
    /// Migrations take as long as they take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout.clamp(Duration::from_millis(1), LONGEST_TIMEOUT);
        self
    }

    /// How many connections the store opens at most; 10 unless told otherwise. For a pool of your own,
    /// set it there.
    pub fn with_max_connections(mut self, most: u32) -> Self {
        self.settings.max_connections = most;
        self
    }

    /// What the names of tables and indexes begin with; `keep_` unless told otherwise.
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.set_prefix(prefix.into());
        self
    }

    #[doc(hidden)]
    pub fn set_schema(mut self, schema: String) -> Self {
        self.names.set_schema(schema);
        self
    }

    #[doc(hidden)]
    pub fn set_transaction_pooling(mut self) -> Self {
        self.settings.transaction_pooling = true;
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// The database can't be reached; the tables are missing or of another version; a statement for
    /// the application's users can't be run, or answers other columns than the type reads. The error's
    /// text says what to do.
    pub async fn build(self) -> Result<SqlStore<D, U>, StoreError> {
        self.open().await.answer::<D>()
    }

    async fn open(self) -> Result<SqlStore<D, U>, Fault> {
        let Self { source, settings, names, migrates, users } = self;
        names.check()?;
        let pools = match source {
            Source::Url(url) => D::open(&url, &settings).await.map_err(Fault::of::<D>)?,
            Source::Pool(pool) => Pools::one(pool),
        };
        let (statements, users) = (Statements::new(&names), users(&names));
        let shared = Shared { pools, settings, names, statements, users };
        let mut store = SqlStore { shared: Arc::new(shared) };
        // Who may only read and write can start as well, as long as there is nothing to do.
        if migrates && version(&store).await.ok().is_none_or(|found| found < newest::<D>()) {
            migrate(&store).await?;
        }
        check_version(&store).await?;
        let mut lease = store.learner().await?;
        // Nobody else has it yet.
        if let Some(Shared { users, names, .. }) = Arc::get_mut(&mut store.shared) {
            users.learn(&mut lease, names).await?;
        }
        store.learned(lease).await?;
        Ok(store)
    }
}
