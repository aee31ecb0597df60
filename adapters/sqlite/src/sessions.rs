//! Session records.

use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Sqlite, Transaction};
use tower_keep_core::{
    Account, Creation, End, EndReason, LoginStore, NewLogin, Rotated, Rotation, Seen, SessionKey,
    SessionLimit, SessionRecord, SessionStore, StoreError, StoredLogin, Timestamp, Touch, UserId,
    WhenFull, async_trait,
};
use tower_keep_sql::{LoginRow, SESSION_COLUMNS, SessionRow, corrupt, seconds};

use crate::{NAME, SqliteStore, fault};

/// The record of a row.
fn read(row: SessionRow) -> Result<Arc<SessionRecord>, StoreError> {
    row.record().map(Arc::new).ok_or_else(|| corrupt(NAME, "a session has a column out of range"))
}

/// Ends one session that has not ended; answers whether it lived until now.
const END: &str = "UPDATE keep_sessions SET ended_at = ?1, end_reason = ?2, successor = ?3, \
    expires = ?4, told = 0 WHERE key = ?5 AND ended_at IS NULL";

/// The session that stands for another: itself, or the last of its successors.
const STANDING_FOR: &str = "WITH RECURSIVE chain (key, successor) AS ( \
    SELECT key, successor FROM keep_sessions WHERE key = ?1 \
    UNION ALL SELECT next.key, next.successor FROM keep_sessions AS next \
    JOIN chain ON next.key = chain.successor) \
    SELECT key FROM chain WHERE successor IS NULL";

impl SqliteStore {
    /// A transaction that writes from its beginning, so that what it reads does not change under it.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writes.begin_with("BEGIN IMMEDIATE").await.map_err(fault)
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    record: &SessionRecord,
) -> Result<(), StoreError> {
    let row = SessionRow::of(record);
    let statement = format!(
        "INSERT INTO keep_sessions ({SESSION_COLUMNS}) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(row.key)
        .bind(row.user_id)
        .bind(row.generation)
        .bind(row.rotated_at)
        .bind(row.seen_at)
        .bind(row.salt)
        .bind(row.created)
        .bind(row.session_started)
        .bind(row.last_seen)
        .bind(row.remember_expires)
        .bind(row.remember_seconds)
        .bind(row.expires)
        .bind(row.address)
        .bind(row.user_agent)
        .bind(row.method)
        .bind(row.ended_at)
        .bind(row.end_reason)
        .bind(row.successor)
        .bind(row.told)
        .execute(connection)
        .await
        .map_err(fault)
        .map(drop)
}

async fn standing_for(
    connection: &mut SqliteConnection,
    key: &SessionKey,
) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query_scalar(STANDING_FOR).bind(&key.as_bytes()[..]);
    query.fetch_optional(connection).await.map_err(fault)
}

async fn end_one(
    connection: &mut SqliteConnection,
    key: &[u8],
    end: &End,
    successor: Option<&SessionKey>,
) -> Result<(), StoreError> {
    sqlx::query(END)
        .bind(seconds(end.at))
        .bind(end.reason.as_str())
        .bind(successor.map(|key| key.as_bytes().to_vec()))
        .bind(seconds(end.keep_until))
        .bind(key)
        .execute(connection)
        .await
        .map_err(fault)
        .map(drop)
}

/// The user's live sessions but the new one and those that it replaces, the oldest first.
async fn live(
    connection: &mut SqliteConnection,
    record: &SessionRecord,
    replaced: &[Vec<u8>],
) -> Result<Vec<SessionRow>, StoreError> {
    let query = sqlx::query_as(
        "SELECT * FROM keep_sessions WHERE user_id = ? AND key <> ? AND ended_at IS NULL \
         AND expires > ? ORDER BY created",
    );
    let query = query.bind(record.user.as_str()).bind(&record.key.as_bytes()[..]);
    let query = query.bind(seconds(record.created));
    let mut live: Vec<SessionRow> = query.fetch_all(connection).await.map_err(fault)?;
    live.retain(|row| !replaced.contains(&row.key));
    Ok(live)
}

/// Ends as many of the oldest as it takes, or answers `None` if there is no room.
async fn make_room(
    connection: &mut SqliteConnection,
    login: &NewLogin<'_>,
    limit: SessionLimit,
    replaced: &[Vec<u8>],
) -> Result<Option<Vec<Arc<SessionRecord>>>, StoreError> {
    let mut oldest = live(connection, login.record, replaced).await?;
    let surplus = (oldest.len() + 1).saturating_sub(limit.most);
    if surplus > 0 && limit.when_full == WhenFull::Refuse {
        return Ok(None);
    }
    oldest.truncate(surplus);
    let (at, keep_until) = (login.record.created, login.ended_until);
    for row in &oldest {
        let end = End { at, reason: EndReason::Limit, keep_until };
        end_one(connection, &row.key, &end, None).await?;
    }
    oldest.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// The user's replays that were not told yet, which are told by this.
async fn tell(
    connection: &mut SqliteConnection,
    user: &UserId,
) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
    let untold = "user_id = ? AND end_reason = 'replay' AND told = 0";
    let query = format!("SELECT * FROM keep_sessions WHERE {untold}");
    let query = sqlx::query_as(AssertSqlSafe(query)).bind(user.as_str());
    let rows: Vec<SessionRow> = query.fetch_all(&mut *connection).await.map_err(fault)?;
    if !rows.is_empty() {
        let tell = format!("UPDATE keep_sessions SET told = 1 WHERE {untold}");
        let tell = sqlx::query(AssertSqlSafe(tell)).bind(user.as_str());
        tell.execute(connection).await.map_err(fault)?;
    }
    rows.into_iter().map(read).collect()
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        let record = login.record;
        let mut write = self.write().await?;
        insert(&mut write, record).await?;
        let mut replaced = Vec::new();
        for key in login.replacing {
            replaced.extend(standing_for(&mut write, key).await?);
        }
        let ended = match login.limit {
            None => Vec::new(),
            Some(limit) => match make_room(&mut write, login, limit, &replaced).await? {
                Some(ended) => ended,
                // Dropped, the transaction is rolled back.
                None => return Ok(Creation::Full),
            },
        };
        let (at, keep_until) = (record.created, login.ended_until);
        let end = End { at, reason: EndReason::Replaced, keep_until };
        for key in &replaced {
            end_one(&mut write, key, &end, Some(&record.key)).await?;
        }
        let replays = tell(&mut write, &record.user).await?;
        write.commit().await.map_err(fault)?;
        Ok(Creation::Created { ended, replays })
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        let query = sqlx::query_as("SELECT * FROM keep_sessions WHERE key = ?");
        let query = query.bind(&key.as_bytes()[..]);
        let row: Option<SessionRow> = query.fetch_optional(&self.reads).await.map_err(fault)?;
        row.map(read).transpose()
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let update = sqlx::query_as(
            "UPDATE keep_sessions SET generation = generation + 1, rotated_at = ?1, \
             session_started = ?1, last_seen = ?1, seen_at = NULL, \
             remember_expires = MAX(remember_expires, COALESCE(?2, remember_expires)), \
             expires = MAX(expires, ?3) \
             WHERE key = ?4 AND generation = ?5 AND ended_at IS NULL RETURNING *",
        );
        let update = update.bind(seconds(rotation.at)).bind(rotation.remember_expires.map(seconds));
        let update = update.bind(seconds(rotation.expires)).bind(&rotation.key.as_bytes()[..]);
        let update = update.bind(i64::from(rotation.from));
        let row: Option<SessionRow> = update.fetch_optional(&self.writes).await.map_err(fault)?;
        match row {
            Some(row) => read(row).map(Rotated::Won).map(Some),
            None => Ok(self.load(&rotation.key).await?.map(Rotated::Lost)),
        }
    }

    async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError> {
        if marks.is_empty() {
            return Ok(());
        }
        let mut write = self.write().await?;
        for mark in marks {
            let update = sqlx::query(
                "UPDATE keep_sessions SET seen_at = ? \
                 WHERE key = ? AND generation = ? AND seen_at IS NULL AND ended_at IS NULL",
            );
            let update = update.bind(seconds(mark.at)).bind(&mark.key.as_bytes()[..]);
            let update = update.bind(i64::from(mark.generation));
            update.execute(&mut *write).await.map_err(fault)?;
        }
        write.commit().await.map_err(fault)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        if touches.is_empty() {
            return Ok(());
        }
        let mut write = self.write().await?;
        for touch in touches {
            let update = sqlx::query(
                "UPDATE keep_sessions SET last_seen = MAX(last_seen, ?1), \
                 remember_expires = MAX(remember_expires, COALESCE(?2, remember_expires)), \
                 expires = MAX(expires, ?3) WHERE key = ?4 AND ended_at IS NULL",
            );
            let update = update.bind(seconds(touch.at)).bind(touch.remember_expires.map(seconds));
            let update = update.bind(seconds(touch.expires)).bind(&touch.key.as_bytes()[..]);
            update.execute(&mut *write).await.map_err(fault)?;
        }
        write.commit().await.map_err(fault)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        let mut lived = 0;
        let mut write = self.write().await?;
        for key in keys {
            let query = sqlx::query_scalar(
                "SELECT expires > ? FROM keep_sessions WHERE key = ? AND ended_at IS NULL",
            );
            let query = query.bind(seconds(end.at)).bind(&key.as_bytes()[..]);
            let lives: Option<bool> = query.fetch_optional(&mut *write).await.map_err(fault)?;
            lived += usize::from(lives == Some(true));
            end_one(&mut write, key.as_bytes(), end, None).await?;
        }
        write.commit().await.map_err(fault)?;
        Ok(lived)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<usize, StoreError> {
        let others = "user_id = ?1 AND ended_at IS NULL AND (?2 IS NULL OR key <> ?2)";
        let but = but.map(|key| key.as_bytes().to_vec());
        let count = format!("SELECT COUNT(*) FROM keep_sessions WHERE {others} AND expires > ?3");
        let update = format!(
            "UPDATE keep_sessions SET ended_at = ?3, end_reason = ?4, expires = ?5, told = 0 \
             WHERE {others}"
        );
        let mut write = self.write().await?;
        let count = sqlx::query_scalar(AssertSqlSafe(count)).bind(user.as_str()).bind(&but);
        let count = count.bind(seconds(end.at));
        let lived: i64 = count.fetch_one(&mut *write).await.map_err(fault)?;
        let update = sqlx::query(AssertSqlSafe(update)).bind(user.as_str()).bind(&but);
        let update = update.bind(seconds(end.at)).bind(end.reason.as_str());
        let update = update.bind(seconds(end.keep_until));
        update.execute(&mut *write).await.map_err(fault)?;
        write.commit().await.map_err(fault)?;
        Ok(usize::try_from(lived).unwrap_or_default())
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        let query = sqlx::query_as(
            "SELECT * FROM keep_sessions WHERE user_id = ? AND ended_at IS NULL AND expires > ? \
             ORDER BY last_seen DESC LIMIT ?",
        );
        let query = query.bind(user.as_str()).bind(seconds(now));
        let query = query.bind(i64::try_from(most).unwrap_or(i64::MAX));
        let rows: Vec<SessionRow> = query.fetch_all(&self.reads).await.map_err(fault)?;
        rows.into_iter().map(read).collect()
    }

    async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let delete = sqlx::query(
            "DELETE FROM keep_sessions WHERE key IN \
             (SELECT key FROM keep_sessions WHERE expires <= ? LIMIT ?)",
        );
        let delete = delete.bind(seconds(before)).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let done = delete.execute(&self.writes).await.map_err(fault)?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or_default())
    }
}

#[async_trait]
impl LoginStore for SqliteStore {
    async fn load_login(
        &self,
        key: &SessionKey,
        _likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<Account>>, StoreError> {
        let query = sqlx::query_as(
            "SELECT * FROM keep_sessions AS session \
             LEFT JOIN keep_users AS user ON user.id = session.user_id WHERE session.key = ?",
        );
        let query = query.bind(&key.as_bytes()[..]);
        let row: Option<LoginRow> = query.fetch_optional(&self.reads).await.map_err(fault)?;
        let Some((record, user)) = row.map(LoginRow::split) else { return Ok(None) };
        let record = record.ok_or_else(|| corrupt(NAME, "a session has a column out of range"))?;
        Ok(Some(StoredLogin { record: Arc::new(record), user }))
    }
}
