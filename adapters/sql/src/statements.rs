//! The SQL statements, written once for all databases.

use std::marker::PhantomData;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use tower_keep_core::MAX_PER_CALL;

use crate::dialect::{ArgumentsOf, Dialect};
use crate::driver::Operations;
use crate::names::Names;
use crate::row::{ACCOUNT_COLUMNS, COUNTER_COLUMNS, EPOCH_END_COLUMNS, SESSION_COLUMNS};
use crate::value::Value;

/// A statement in the syntax of its database.
pub(crate) struct Statement<D> {
    sql: Arc<str>,
    /// For each argument to bind, the index of its value. On a database without numbered
    /// placeholders, a value that is used twice is bound twice.
    order: Box<[usize]>,
    /// Whether to keep the statement prepared, because it will be run again.
    is_persistent: bool,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Statement<D> {
    /// Creates a statement from a template, in which `$1` and so on are parameters, and names such
    /// as `{sessions}` are tables.
    fn from_template(template: &str, names: &Names) -> Self {
        let (mut sql, mut order) = (String::new(), Vec::new());
        let is_numbered = D::placeholder(1) != D::placeholder(2);
        let template = names.fill(template).replace("{greatest}", D::GREATEST);
        let mut parts = template.split('$');
        sql.extend(parts.next());
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number = part[..digits].parse().unwrap_or(1);
            order.push(number - 1);
            sql += &D::placeholder(number);
            sql += &part[digits..];
        }
        if is_numbered {
            order.sort_unstable();
            order.dedup();
        }
        Self { order: order.into(), ..Self::from_sql(sql) }
    }

    /// Creates a statement from SQL in the database's own syntax. The caller binds the arguments
    /// itself, in the order of the placeholders.
    pub(crate) fn from_sql(sql: impl Into<Arc<str>>) -> Self {
        Self { sql: sql.into(), order: [].into(), is_persistent: true, dialect: PhantomData }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.sql
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    pub(crate) fn sql(&self) -> SqlStr {
        AssertSqlSafe(Arc::clone(&self.sql)).into_sql_str()
    }

    /// Returns the arguments, from the values of `$1` and so on in the template.
    pub(crate) fn arguments(&self, values: &[Value<'_>]) -> Result<ArgumentsOf<D>, sqlx::Error> {
        let mut arguments = ArgumentsOf::<D>::default();
        for value in self.order.iter().filter_map(|index| values.get(*index)) {
            D::Database::bind(&mut arguments, *value)?;
        }
        Ok(arguments)
    }
}

macro_rules! statements {
    ($($name:ident: $sql:expr;)*) => {
        /// The statements on the tables that the migrations create.
        pub(crate) struct Statements<D> {
            $(pub(crate) $name: Statement<D>,)*
        }

        impl<D: Dialect> Statements<D> {
            pub(crate) fn new(names: &Names) -> Self {
                Self { $($name: Statement::from_template(&$sql, names),)* }
            }

            /// Returns each statement with its name.
            pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &Statement<D>)> {
                [$((stringify!($name), &self.$name)),*].into_iter()
            }
        }
    };
}

/// The condition that a session did not end with its epoch. A user's epoch is a number; raising it
/// ends all sessions of lower epochs. In the statements, `keep` is an alias of the table of
/// sessions, and `past` is an alias of the table of epochs.
const NOT_ENDED_WITH_EPOCH: &str = "NOT EXISTS (SELECT 1 FROM {epochs} AS past \
    WHERE past.user_id = keep.user_id AND past.epoch > keep.epoch)";

/// The epoch of the user `$1`.
const EPOCH: &str =
    "COALESCE((SELECT past.epoch FROM {epochs} AS past WHERE past.user_id = $1), 0)";

/// Sets the session's expiry times to `$2` and `$3` if these are later.
const EXTEND: &str = "remember_expires = CASE WHEN remember_expires IS NOT NULL \
    THEN {greatest}(remember_expires, COALESCE($2, remember_expires)) END, \
    expires = {greatest}(expires, $3)";

/// Returns the beginning of an `UPDATE` that ends sessions that have not ended yet. The caller
/// appends a condition that selects the sessions.
fn end_sessions_where() -> String {
    format!(
        "UPDATE {{sessions}} AS keep SET ended_at = $1, end_reason = $2, expires = $3, \
         successor = $4, notified = FALSE WHERE ended_at IS NULL AND {NOT_ENDED_WITH_EPOCH} AND "
    )
}

/// Returns the columns of a session.
fn session_columns() -> String {
    SESSION_COLUMNS.map(|column| format!("keep.{column}")).join(", ")
}

/// Returns the columns of a session that is known not to have ended with its epoch, and nulls in
/// place of [`EPOCH_END_COLUMNS`].
fn columns_without_epoch_end() -> String {
    format!("{}, NULL, NULL, NULL", session_columns())
}

/// Returns a `SELECT` of [`SESSION_COLUMNS`] and [`EPOCH_END_COLUMNS`], without a `WHERE` clause.
fn select_sessions() -> String {
    let epoch_end = EPOCH_END_COLUMNS.map(|column| format!("past.{column}")).join(", ");
    format!("SELECT {}, {epoch_end} FROM {{sessions}} AS keep {JOIN_EPOCH_END}", session_columns())
}

/// Joins [`EPOCH_END_COLUMNS`] to a session. They are null if the session did not end with its
/// epoch.
const JOIN_EPOCH_END: &str =
    "LEFT JOIN {epochs} AS past ON past.user_id = keep.user_id AND past.epoch > keep.epoch";

/// Returns the `RETURNING` clause that makes an `UPDATE` return the session, or an empty text if
/// the database has no such clause.
fn returning<D: Dialect>() -> String {
    // SQLite does not accept a table's alias in `RETURNING`.
    let columns = || SESSION_COLUMNS.join(", ");
    if D::RETURNING { format!(" RETURNING {}, NULL, NULL, NULL", columns()) } else { String::new() }
}

/// Returns the statement that removes at most `$2` rows of a table that have expired at `$1`.
fn purge<D: Dialect>(table: &str, key: &str) -> String {
    D::PURGE.replace("{table}", table).replace("{key}", key)
}

statements! {
    insert: format!(
        "INSERT INTO {{sessions}} ({}, epoch) VALUES ({}, \
         COALESCE((SELECT past.epoch FROM {{epochs}} AS past WHERE past.user_id = $2), 0))",
        SESSION_COLUMNS.join(", "),
        (1..=SESSION_COLUMNS.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", "),
    );
    load: format!("{} WHERE keep.session_key = $1", select_sessions());
    // Follows at most 100 successors of a session. Returns the last one's key, its successor (null
    // at the end of the chain), and when it ended (null if it has not).
    last_successor_of: "WITH RECURSIVE chain (session_key, successor, ended_at, depth) AS ( \
        SELECT session_key, successor, ended_at, 0 FROM {sessions} WHERE session_key = $1 \
        UNION ALL SELECT later.session_key, later.successor, later.ended_at, chain.depth + 1 \
        FROM {sessions} AS later JOIN chain ON later.session_key = chain.successor \
        WHERE chain.depth < 100) \
        SELECT session_key, successor, ended_at FROM chain ORDER BY depth DESC LIMIT 1";
    set_successor: "UPDATE {sessions} SET successor = $1, expires = {greatest}(expires, $2) \
        WHERE session_key = $3 AND ended_at IS NOT NULL AND successor IS NOT NULL";
    end_session: format!("{} session_key = $5", end_sessions_where());
    end_live_session: format!("{} session_key = $5 AND expires > $1", end_sessions_where());
    newest_others_of: format!(
        "SELECT {} FROM {{sessions}} AS keep WHERE keep.user_id = $1 AND keep.epoch = {EPOCH} \
         AND keep.ended_at IS NULL AND keep.session_key <> $2 AND keep.expires > $3 \
         ORDER BY keep.created DESC LIMIT $4{}",
        columns_without_epoch_end(),
        D::FOR_UPDATE,
    );
    epoch: "SELECT epoch FROM {epochs} WHERE user_id = $1";
    // The store runs this statement only for a user without a row in `{epochs}`, whose sessions all
    // have epoch 0. The order is that of an index, so the database reads only one session.
    any_session_of: "SELECT 1 FROM {sessions} WHERE user_id = $1 AND epoch = 0 \
        AND ended_at IS NULL ORDER BY created LIMIT 1";
    raise_epoch: "UPDATE {epochs} SET epoch = $5, ended_at = $1, end_reason = $2, \
        kept_until = {greatest}(kept_until, $3), purged = FALSE WHERE user_id = $4";
    insert_epoch: "INSERT INTO {epochs} (ended_at, end_reason, kept_until, user_id, epoch, purged) \
        VALUES ($1, $2, $3, $4, $5, FALSE)";
    to_notify: format!(
        "SELECT {} FROM {{sessions}} AS keep WHERE keep.user_id = $1 AND keep.end_reason = 'replay' \
         AND keep.notified = FALSE LIMIT {MAX_PER_CALL}",
        columns_without_epoch_end(),
    );
    mark_notified: "UPDATE {sessions} SET notified = TRUE WHERE session_key = $1";
    rotate: format!(
        "UPDATE {{sessions}} AS keep SET generation = generation + 1, rotated_at = $1, \
         session_started = $1, last_seen = $1, seen_at = NULL, {EXTEND} \
         WHERE session_key = $4 AND generation = $5 AND ended_at IS NULL \
         AND {NOT_ENDED_WITH_EPOCH}{}",
        returning::<D>(),
    );
    mark_seen: format!(
        "UPDATE {{sessions}} AS keep SET seen_at = $1 WHERE session_key = $2 AND generation = $3 \
         AND seen_at IS NULL AND ended_at IS NULL AND {NOT_ENDED_WITH_EPOCH}",
    );
    touch: format!(
        "UPDATE {{sessions}} AS keep SET last_seen = {{greatest}}(last_seen, $1), {EXTEND} \
         WHERE session_key = $4 AND ended_at IS NULL AND {NOT_ENDED_WITH_EPOCH}",
    );
    list: format!(
        "SELECT {} FROM {{sessions}} AS keep WHERE keep.user_id = $1 AND keep.epoch = {EPOCH} \
         AND keep.ended_at IS NULL AND keep.expires > $2 ORDER BY keep.last_seen DESC LIMIT $3",
        columns_without_epoch_end(),
    );
    purge: purge::<D>("{sessions}", "session_key");
    // Returns a user with sessions that ended with their epoch and need not be kept any longer.
    epoch_to_purge: "SELECT user_id, epoch FROM {epochs} WHERE purged = FALSE AND kept_until <= $1 \
        ORDER BY kept_until LIMIT 1";
    purge_earlier_epochs: D::PURGE_EARLIER_EPOCHS;
    mark_purged: "UPDATE {epochs} SET purged = TRUE WHERE user_id = $1 AND epoch = $2";
    insert_account:
        format!("INSERT INTO {{users}} ({ACCOUNT_COLUMNS}) VALUES ($1, $2, $3, $4, $5)");
    // Writes only if the stored user has not changed since it was read.
    update_account: "UPDATE {users} SET login_name = $2, password_hash = $3, active = $4, security_stamp = $5 \
        WHERE id = $1 AND login_name = $6 AND password_hash = $7 AND active = $8 AND security_stamp = $9";
    delete_account: "DELETE FROM {users} WHERE id = $1";
    insert_counter: format!("INSERT INTO {{counters}} ({COUNTER_COLUMNS}) VALUES ($1, $2, $3, $4, $5)");
    // Writes only if the counter has not changed since it was read.
    update_counter: "UPDATE {counters} SET uses = $2, last_use = $3, epoch = $4, expires = $5 \
        WHERE counter_key = $1 AND uses = $6 AND last_use = $7 AND epoch = $8 AND expires = $9";
    give_back: "UPDATE {counters} SET uses = uses - 1, \
        last_use = CASE WHEN last_use = $1 THEN $2 ELSE last_use END \
        WHERE counter_key = $3 AND epoch = $4 AND uses > 0";
    reset_counter: "UPDATE {counters} SET uses = 0, \
        epoch = CASE WHEN epoch < 9223372036854775807 THEN epoch + 1 ELSE epoch END \
        WHERE counter_key = $1";
    purge_counters: purge::<D>("{counters}", "counter_key");
    version: "SELECT MAX(version) FROM {versions}";
}

/// Returns the columns that a session is read from. Their aliases differ from the names of the
/// user's columns.
fn aliased_session_columns() -> String {
    let session = SESSION_COLUMNS.map(|column| format!("keep.{column} AS keep_{column}"));
    let past = EPOCH_END_COLUMNS.map(|column| format!("past.{column} AS past_{column}"));
    [&session[..], &past].concat().join(", ")
}

/// Creates the statement that selects the `Account` whose `column` has the value `$1`.
pub(crate) fn select_account_by<D: Dialect>(column: &str, names: &Names) -> Statement<D> {
    let template = format!("SELECT {ACCOUNT_COLUMNS} FROM {{users}} WHERE {column} = $1");
    Statement::from_template(&template, names)
}

/// Creates the statement that selects the session with the key `$1` together with its `Account`.
/// The user's columns come first, then the session's.
pub(crate) fn select_session_with_account<D: Dialect>(names: &Names) -> Statement<D> {
    let owner: Vec<_> =
        ACCOUNT_COLUMNS.split(", ").map(|column| format!("owner.{column}")).collect();
    let template = format!(
        "SELECT {}, {} FROM {{sessions}} AS keep {JOIN_EPOCH_END} \
         LEFT JOIN {{users}} AS owner ON owner.id = keep.user_id WHERE keep.session_key = $1",
        owner.join(", "),
        aliased_session_columns(),
    );
    Statement::from_template(&template, names)
}

/// Creates the statement that selects a session together with a user. `by_id` is the application's
/// statement, which returns `columns`. The first parameter is the user's id, which `by_id` uses.
/// The second parameter is the session's key.
pub(crate) fn select_session_with_user<D: Dialect>(
    by_id: &str,
    columns: &[String],
    names: &Names,
) -> Statement<D> {
    let (sessions, join) = (names.fill("{sessions}"), names.fill(JOIN_EPOCH_END));
    let owner: Vec<_> = columns.iter().map(|column| format!("owner.{column}")).collect();
    let (owner, columns, key) = (owner.join(", "), aliased_session_columns(), D::placeholder(2));
    // The line break ends a comment at the end of `by_id`.
    Statement::from_sql(format!(
        "SELECT {owner}, owner.keep_found, {columns} FROM {sessions} AS keep {join} \
         LEFT JOIN (SELECT found.*, 1 AS keep_found FROM ({by_id}\n) AS found) AS owner \
         ON 1 = 1 WHERE keep.session_key = {key}"
    ))
}

/// Wraps an application's statement so that it returns exactly these columns, even if columns are
/// added to its tables.
pub(crate) fn select_columns<D: Dialect>(select: &str, columns: &[String]) -> Statement<D> {
    let columns: Vec<_> = columns.iter().map(|column| format!("found.{column}")).collect();
    Statement::from_sql(format!("SELECT {} FROM ({select}\n) AS found", columns.join(", ")))
}

/// Creates the statement that ends `count` sessions.
pub(crate) fn end_sessions<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let keys: Vec<_> = (5..5 + count).map(|n| format!("${n}")).collect();
    let template = format!("{} session_key IN ({})", end_sessions_where(), keys.join(", "));
    Statement { is_persistent: false, ..Statement::from_template(&template, names) }
}

/// Creates the statement that carries `count` sessions of the user `$1` over from the epoch `$2`
/// into the epoch `$3`.
pub(crate) fn carry_over<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let keys: Vec<_> = (4..4 + count).map(|n| format!("${n}")).collect();
    let template = format!(
        "UPDATE {{sessions}} SET epoch = $3 WHERE user_id = $1 AND epoch = $2 AND ended_at IS NULL \
         AND session_key IN ({})",
        keys.join(", "),
    );
    Statement { is_persistent: false, ..Statement::from_template(&template, names) }
}

/// Creates the statement that selects the `Account` users with `count` ids.
pub(crate) fn select_accounts<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let ids: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
    let template =
        format!("SELECT {ACCOUNT_COLUMNS} FROM {{users}} WHERE id IN ({})", ids.join(", "));
    Statement { is_persistent: false, ..Statement::from_template(&template, names) }
}

/// Creates the statement that selects `count` counters.
pub(crate) fn select_counters<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let keys: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
    let template = format!(
        "SELECT {COUNTER_COLUMNS} FROM {{counters}} WHERE counter_key IN ({})",
        keys.join(", "),
    );
    // Calls with few counters are common, so these statements will be run again.
    Statement { is_persistent: count <= 4, ..Statement::from_template(&template, names) }
}
