//! The statements, once for all databases.

use std::marker::PhantomData;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, Error, SqlSafeStr as _, SqlStr};
use tower_keep_core::MOST_AT_ONCE;

use crate::dialect::ArgumentsOf;
use crate::row::{ACCOUNT, PAST, SESSION};
use crate::{Dialect, Driver, Names, Value};

/// A statement as its database reads it.
pub(crate) struct Statement<D> {
    sql: Arc<str>,
    /// Which value is which parameter: not every database can name one twice.
    order: Box<[usize]>,
    /// Whether it is worth keeping prepared: one that is asked for again.
    is_kept: bool,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Statement<D> {
    /// `$1` and so on stand for values, `{sessions}` and the like for tables.
    fn new(template: &str, names: &Names) -> Self {
        let (mut sql, mut order) = (String::new(), Vec::new());
        let numbered = D::placeholder(1) != D::placeholder(2);
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
        if numbered {
            order.sort_unstable();
            order.dedup();
        }
        Self { order: order.into(), ..Self::plain(sql) }
    }

    /// A statement that is in the database's words already, and whose parameters are given in order.
    pub(crate) fn plain(sql: impl Into<Arc<str>>) -> Self {
        Self { sql: sql.into(), order: [].into(), is_kept: true, dialect: PhantomData }
    }

    pub(crate) fn text(&self) -> &str {
        &self.sql
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    pub(crate) fn sql(&self) -> SqlStr {
        AssertSqlSafe(Arc::clone(&self.sql)).into_sql_str()
    }

    pub(crate) fn arguments(&self, values: &[Value<'_>]) -> Result<ArgumentsOf<D>, Error> {
        let mut arguments = ArgumentsOf::<D>::default();
        for value in self.order.iter().filter_map(|index| values.get(*index)) {
            <D::Database as Driver>::bind(&mut arguments, *value)?;
        }
        Ok(arguments)
    }
}

macro_rules! statements {
    ($($name:ident: $sql:expr;)*) => {
        /// All that is asked of the tables of the migrations.
        pub(crate) struct Statements<D> {
            $(pub(crate) $name: Statement<D>,)*
        }

        impl<D: Dialect> Statements<D> {
            pub(crate) fn new(names: &Names) -> Self {
                Self { $($name: Statement::new(&$sql, names),)* }
            }
        }
    };
}

/// That a session has not ended with its user's earlier epochs.
const IS_PRESENT: &str = "NOT EXISTS (SELECT 1 FROM {epochs} AS past \
    WHERE past.user_id = keep.user_id AND past.epoch > keep.epoch)";

/// The epoch of the user `$1`.
const EPOCH: &str =
    "COALESCE((SELECT past.epoch FROM {epochs} AS past WHERE past.user_id = $1), 0)";

const LATER: &str = "remember_expires = CASE WHEN remember_expires IS NOT NULL \
    THEN {greatest}(remember_expires, COALESCE($2, remember_expires)) END, \
    expires = {greatest}(expires, $3)";

/// Ends sessions that have not ended, of those that follow.
fn end() -> String {
    format!(
        "UPDATE {{sessions}} AS keep SET ended_at = $1, end_reason = $2, expires = $3, \
         successor = $4, told = FALSE WHERE ended_at IS NULL AND {IS_PRESENT} AND "
    )
}

/// The columns of a session of the table `keep`.
fn session() -> String {
    SESSION.map(|column| format!("keep.{column}")).join(", ")
}

/// The same, of a session that is known to be present.
fn present() -> String {
    format!("{}, NULL, NULL, NULL", session())
}

/// Reads sessions, with how they ended with their users' earlier epochs.
fn select() -> String {
    format!("SELECT {}, {} FROM {{sessions}} AS keep {WITH_PAST}", session(), past())
}

const WITH_PAST: &str =
    "LEFT JOIN {epochs} AS past ON past.user_id = keep.user_id AND past.epoch > keep.epoch";

fn past() -> String {
    PAST.map(|column| format!("past.{column}")).join(", ")
}

fn returning<D: Dialect>() -> String {
    // SQLite knows no other name of the table there.
    let columns = || SESSION.join(", ");
    if D::RETURNING { format!(" RETURNING {}, NULL, NULL, NULL", columns()) } else { String::new() }
}

statements! {
    insert: format!(
        "INSERT INTO {{sessions}} ({}, epoch) VALUES ({}, \
         COALESCE((SELECT past.epoch FROM {{epochs}} AS past WHERE past.user_id = $2), 0))",
        SESSION.join(", "),
        (1..=SESSION.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", "),
    );
    load: format!("{} WHERE keep.session_key = $1", select());
    // Of a session, and those that took its place one after the other, the last of so many: its key, its
    // successor if there are more, and whether it has ended.
    standing_for: "WITH RECURSIVE chain (session_key, successor, ended_at, depth) AS ( \
        SELECT session_key, successor, ended_at, 0 FROM {sessions} WHERE session_key = $1 \
        UNION ALL SELECT later.session_key, later.successor, later.ended_at, chain.depth + 1 \
        FROM {sessions} AS later JOIN chain ON later.session_key = chain.successor \
        WHERE chain.depth < 100) \
        SELECT session_key, successor, ended_at FROM chain ORDER BY depth DESC LIMIT 1";
    follow: "UPDATE {sessions} SET successor = $1, expires = {greatest}(expires, $2) \
        WHERE session_key = $3 AND ended_at IS NOT NULL AND successor IS NOT NULL";
    end: format!("{} session_key = $5", end());
    end_live: format!("{} session_key = $5 AND expires > $1", end());
    newest_others_of: format!(
        "SELECT {} FROM {{sessions}} AS keep WHERE keep.user_id = $1 AND keep.epoch = {EPOCH} \
         AND keep.ended_at IS NULL AND keep.session_key <> $2 AND keep.expires > $3 \
         ORDER BY keep.created DESC LIMIT $4{}",
        present(),
        D::FOR_UPDATE,
    );
    epoch: "SELECT epoch FROM {epochs} WHERE user_id = $1";
    // Of a user who never ended all; in the order of an index, so that no other is read.
    any_open_of: "SELECT 1 FROM {sessions} WHERE user_id = $1 AND epoch = 0 AND ended_at IS NULL \
        ORDER BY created LIMIT 1";
    raise: "UPDATE {epochs} SET epoch = $5, ended_at = $1, end_reason = $2, \
        kept_until = {greatest}(kept_until, $3), tidied = FALSE WHERE user_id = $4";
    first_epoch: "INSERT INTO {epochs} (ended_at, end_reason, kept_until, user_id, epoch, tidied) \
        VALUES ($1, $2, $3, $4, $5, FALSE)";
    untold: format!(
        "SELECT {} FROM {{sessions}} AS keep WHERE keep.user_id = $1 AND keep.end_reason = 'replay' \
         AND keep.told = FALSE LIMIT {MOST_AT_ONCE}",
        present(),
    );
    tell: "UPDATE {sessions} SET told = TRUE WHERE session_key = $1";
    rotate: format!(
        "UPDATE {{sessions}} AS keep SET generation = generation + 1, rotated_at = $1, \
         session_started = $1, last_seen = $1, seen_at = NULL, {LATER} \
         WHERE session_key = $4 AND generation = $5 AND ended_at IS NULL AND {IS_PRESENT}{}",
        returning::<D>(),
    );
    seen: format!(
        "UPDATE {{sessions}} AS keep SET seen_at = $1 WHERE session_key = $2 AND generation = $3 \
         AND seen_at IS NULL AND ended_at IS NULL AND {IS_PRESENT}",
    );
    touch: format!(
        "UPDATE {{sessions}} AS keep SET last_seen = {{greatest}}(last_seen, $1), {LATER} \
         WHERE session_key = $4 AND ended_at IS NULL AND {IS_PRESENT}",
    );
    list: format!(
        "SELECT {} FROM {{sessions}} AS keep WHERE keep.user_id = $1 AND keep.epoch = {EPOCH} \
         AND keep.ended_at IS NULL AND keep.expires > $2 ORDER BY keep.last_seen DESC LIMIT $3",
        present(),
    );
    purge: D::PURGE;
    // Users whose sessions ended together, and need not be kept any longer.
    untidy: "SELECT user_id, epoch FROM {epochs} WHERE tidied = FALSE AND kept_until <= $1 \
        ORDER BY kept_until LIMIT 1";
    tidy: D::TIDY;
    tidied: "UPDATE {epochs} SET tidied = TRUE WHERE user_id = $1 AND epoch = $2";
    account_by_id: format!("SELECT {ACCOUNT} FROM {{users}} WHERE id = $1");
    account_by_login: format!("SELECT {ACCOUNT} FROM {{users}} WHERE login = $1");
    insert_account: format!("INSERT INTO {{users}} ({ACCOUNT}) VALUES ($1, $2, $3, $4, $5)");
    // Only where the user is still the one that was read.
    update_account: "UPDATE {users} SET login = $2, password_hash = $3, active = $4, stamp = $5 \
        WHERE id = $1 AND login = $6 AND password_hash = $7 AND active = $8 AND stamp = $9";
    delete_account: "DELETE FROM {users} WHERE id = $1";
    // The user first, then the session.
    login_of_account: format!(
        "SELECT {}, {} FROM {{sessions}} AS keep {WITH_PAST} \
         LEFT JOIN {{users}} AS owner ON owner.id = keep.user_id WHERE keep.session_key = $1",
        ACCOUNT.split(", ").map(|column| format!("owner.{column}")).collect::<Vec<_>>().join(", "),
        of_keep(),
    );
    version: "SELECT MAX(version) FROM {versions}";
}

/// What a session is read from, under names that no table of users has.
fn of_keep() -> String {
    let session = SESSION.map(|column| format!("keep.{column} AS keep_{column}"));
    let past = PAST.map(|column| format!("past.{column} AS past_{column}"));
    [&session[..], &past].concat().join(", ")
}

/// The session and its probable user in one statement: `by_id` is the application's, with the id as
/// its parameter, and answers these columns; the key is the second.
pub(crate) fn login_of<D: Dialect>(by_id: &str, columns: &[String], names: &Names) -> Statement<D> {
    let (sessions, with_past) = (names.fill("{sessions}"), names.fill(WITH_PAST));
    let owner: Vec<_> = columns.iter().map(|column| format!("owner.{column}")).collect();
    let (owner, columns, key) = (owner.join(", "), of_keep(), D::placeholder(2));
    // The line's end ends a comment, too.
    Statement::plain(format!(
        "SELECT {owner}, owner.keep_found, {columns} FROM {sessions} AS keep {with_past} \
         LEFT JOIN (SELECT found.*, 1 AS keep_found FROM ({by_id}\n) AS found) AS owner \
         ON 1 = 1 WHERE keep.session_key = {key}"
    ))
}

/// A statement of the application's with these columns, and no others that its tables may get.
pub(crate) fn only<D: Dialect>(select: &str, columns: &[String]) -> Statement<D> {
    let columns: Vec<_> = columns.iter().map(|column| format!("found.{column}")).collect();
    Statement::plain(format!("SELECT {} FROM ({select}\n) AS found", columns.join(", ")))
}

/// Ends so many sessions.
pub(crate) fn end_some<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let keys: Vec<_> = (5..5 + count).map(|n| format!("${n}")).collect();
    let template = format!("{} session_key IN ({})", end(), keys.join(", "));
    Statement { is_kept: false, ..Statement::new(&template, names) }
}

/// Carries so many sessions of the user `$1` over into the epoch `$3`, from the epoch `$2`.
pub(crate) fn carry<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let keys: Vec<_> = (4..4 + count).map(|n| format!("${n}")).collect();
    let template = format!(
        "UPDATE {{sessions}} SET epoch = $3 WHERE user_id = $1 AND epoch = $2 AND ended_at IS NULL \
         AND session_key IN ({})",
        keys.join(", "),
    );
    Statement { is_kept: false, ..Statement::new(&template, names) }
}

/// Users of the ready type by a number of ids.
pub(crate) fn accounts<D: Dialect>(count: usize, names: &Names) -> Statement<D> {
    let ids: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
    let template = format!("SELECT {ACCOUNT} FROM {{users}} WHERE id IN ({})", ids.join(", "));
    Statement { is_kept: false, ..Statement::new(&template, names) }
}
