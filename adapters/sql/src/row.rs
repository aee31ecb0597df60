//! Rows of the tables that the migrations create.

use std::error::Error as StdError;

use tower_keep_core::{Account, EndReason, Ended, SessionKey, SessionRecord, Timestamp, UserId};

use crate::dialect::ArgumentsOf;
use crate::statement::Statement;
use crate::{Dialect, Driver};

/// The columns of a session, in the order in which they are read and written.
pub(crate) const SESSION: [&str; 19] = [
    "session_key",
    "user_id",
    "generation",
    "rotated_at",
    "seen_at",
    "salt",
    "created",
    "session_started",
    "last_seen",
    "remember_expires",
    "remember_seconds",
    "expires",
    "address",
    "user_agent",
    "method",
    "ended_at",
    "end_reason",
    "successor",
    "notified",
];

/// The columns that follow those of [`SESSION`] where a session is read: how it ended with its
/// epoch, or three nulls.
pub(crate) const PAST: [&str; 3] = ["ended_at", "end_reason", "kept_until"];

/// The number of columns that a session is read from.
pub(crate) const READ: usize = SESSION.len() + PAST.len();

/// The columns of an `Account`, in the order in which they are read and written.
pub(crate) const ACCOUNT: &str = "id, login_name, password_hash, active, security_stamp";

/// Reads the columns of a row from left to right.
pub(crate) struct Columns<'r, DB: Driver> {
    row: &'r DB::Row,
    next: usize,
}

fn wrong(what: impl Into<Box<dyn StdError + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

fn present<T>(value: Option<T>) -> Result<T, sqlx::Error> {
    value.ok_or_else(|| wrong("unexpected null in a column of tower-keep's tables"))
}

fn time(seconds: i64) -> Result<Timestamp, sqlx::Error> {
    u32::try_from(seconds).map(Timestamp::from_secs).map_err(wrong)
}

fn key(bytes: &[u8]) -> Result<SessionKey, sqlx::Error> {
    bytes.try_into().map(SessionKey::new).map_err(wrong)
}

fn end_reason(word: Option<String>) -> Result<EndReason, sqlx::Error> {
    present(word)?.parse().map_err(wrong)
}

impl<'r, DB: Driver> Columns<'r, DB> {
    pub(crate) fn of(row: &'r DB::Row) -> Self {
        Self::from(row, 0)
    }

    pub(crate) fn from(row: &'r DB::Row, first: usize) -> Self {
        Self { row, next: first }
    }

    fn next(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn int(&mut self) -> Result<Option<i64>, sqlx::Error> {
        DB::int(self.row, self.next())
    }

    fn number(&mut self) -> Result<u32, sqlx::Error> {
        present(self.int()?)?.try_into().map_err(wrong)
    }

    fn time(&mut self) -> Result<Timestamp, sqlx::Error> {
        time(present(self.int()?)?)
    }

    fn some_time(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        self.int()?.map(time).transpose()
    }

    fn some_text(&mut self) -> Result<Option<String>, sqlx::Error> {
        DB::text(self.row, self.next())
    }

    pub(crate) fn text(&mut self) -> Result<String, sqlx::Error> {
        present(self.some_text()?)
    }

    pub(crate) fn some_key(&mut self) -> Result<Option<SessionKey>, sqlx::Error> {
        self.some_bytes()?.map(|bytes| key(&bytes)).transpose()
    }

    fn some_bytes(&mut self) -> Result<Option<Vec<u8>>, sqlx::Error> {
        DB::bytes(self.row, self.next())
    }

    fn bytes(&mut self) -> Result<Vec<u8>, sqlx::Error> {
        present(self.some_bytes()?)
    }

    fn flag(&mut self) -> Result<bool, sqlx::Error> {
        present(DB::flag(self.row, self.next())?)
    }

    pub(crate) fn key(&mut self) -> Result<SessionKey, sqlx::Error> {
        key(&self.bytes()?)
    }

    /// Reads a session. The columns are those of [`SESSION`], which are in the order of the
    /// record's fields, followed by those of [`PAST`].
    pub(crate) fn session(&mut self) -> Result<SessionRecord, sqlx::Error> {
        let record = SessionRecord {
            key: self.key()?,
            user: UserId::from(self.text()?),
            generation: self.number()?,
            rotated_at: self.some_time()?,
            seen_at: self.some_time()?,
            salt: self.bytes()?.try_into().map_err(|_| wrong("a salt has a wrong length"))?,
            created: self.time()?,
            session_started: self.time()?,
            last_seen: self.time()?,
            remember_expires: self.some_time()?,
            remember_seconds: self.number()?,
            expires: self.time()?,
            address: self.some_text()?.map(|text| text.parse().map_err(wrong)).transpose()?,
            user_agent: self.text()?.into(),
            method: self.text()?.into(),
            ended: self.ended()?,
        };
        let (at, reason, keep_until) = (self.some_time()?, self.some_text()?, self.some_time()?);
        // If there are two ends, the first one counts.
        let Some(at) = at.filter(|_| record.ended.is_none()) else { return Ok(record) };
        let (reason, expires) = (end_reason(reason)?, present(keep_until)?);
        let ended = Some(Ended { at, reason, successor: None, notified: false });
        Ok(SessionRecord { ended, expires, ..record })
    }

    fn ended(&mut self) -> Result<Option<Ended>, sqlx::Error> {
        let (at, reason) = (self.some_time()?, self.some_text()?);
        let (successor, notified) = (self.some_key()?, self.flag()?);
        let Some(at) = at else { return Ok(None) };
        let reason = end_reason(reason)?;
        Ok(Some(Ended { at, reason, successor, notified }))
    }

    /// Reads a user from the columns of [`ACCOUNT`].
    pub(crate) fn account(&mut self) -> Result<Account, sqlx::Error> {
        let account = Account::new(self.text()?, self.text()?, self.text()?);
        Ok(account.with_active(self.flag()?).with_security_stamp(self.bytes()?))
    }
}

/// Returns the parameters of the statement that inserts a record, in the order of [`SESSION`].
pub(crate) fn session_arguments<D: Dialect>(
    insert: &Statement<D>,
    record: &SessionRecord,
) -> Result<ArgumentsOf<D>, sqlx::Error> {
    use crate::Value::{Bytes, Flag, Text};
    let address = record.address.map(|address| address.to_string());
    let ended = record.ended.as_ref();
    let successor = ended.and_then(|ended| ended.successor.as_ref());
    let values = [
        (&record.key).into(),
        record.user.as_str().into(),
        record.generation.into(),
        record.rotated_at.into(),
        record.seen_at.into(),
        Bytes(Some(&record.salt)),
        record.created.into(),
        record.session_started.into(),
        record.last_seen.into(),
        record.remember_expires.into(),
        record.remember_seconds.into(),
        record.expires.into(),
        Text(address.as_deref()),
        record.user_agent.as_ref().into(),
        record.method.as_ref().into(),
        ended.map(|ended| ended.at).into(),
        Text(ended.map(|ended| ended.reason.as_str())),
        Bytes(successor.map(|key| &key.as_bytes()[..])),
        Flag(ended.is_some_and(|ended| ended.notified)),
    ];
    insert.arguments(&values)
}
