//! Rows of the tables that the migrations create.

use std::error::Error as StdError;

use tower_keep_core::{
    Account, CounterKey, CounterState, EndReason, Ended, RememberPeriod, SessionDetails,
    SessionKey, SessionRecord, Timestamp, UserId,
};

use crate::driver::Driver;
use crate::value::Value::{self, Bytes, Flag, Int, Text};

/// The columns of a session, in the order in which they are read and written: first the arguments
/// of [`SessionRecord::new`], then the other fields.
pub(crate) const SESSION_COLUMNS: [&str; 18] = [
    "session_key",
    "user_id",
    "salt",
    "created",
    "expires",
    "acting_user",
    "generation",
    "rotated_at",
    "seen_at",
    "session_started",
    "last_seen",
    "remember_expires",
    "remember_seconds",
    "details",
    "ended_at",
    "end_reason",
    "successor",
    "notified",
];

/// The columns that follow [`SESSION_COLUMNS`] where a session is read. They say how the session
/// ended with its epoch, or are null if it did not. A user's epoch is a number; raising it ends all
/// sessions that were created in lower epochs.
pub(crate) const EPOCH_END_COLUMNS: [&str; 3] = ["ended_at", "end_reason", "kept_until"];

/// The number of columns that a session is read from.
pub(crate) const SESSION_WIDTH: usize = SESSION_COLUMNS.len() + EPOCH_END_COLUMNS.len();

/// The columns of an `Account`, in the order in which they are read and written.
pub(crate) const ACCOUNT_COLUMNS: &str = "id, login_name, password_hash, active, security_stamp";

/// The columns of a counter, in the order in which they are read and written.
pub(crate) const COUNTER_COLUMNS: &str = "counter_key, uses, last_use, epoch, expires";

/// Reads the columns of a row from left to right.
pub(crate) struct Columns<'r, DB: Driver> {
    row: &'r DB::Row,
    next: usize,
}

fn corrupt(what: impl Into<Box<dyn StdError + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

fn not_null<T>(value: Option<T>) -> Result<T, sqlx::Error> {
    value.ok_or_else(|| corrupt("unexpected null in a column of tower-keep's tables"))
}

fn key(bytes: &[u8]) -> Result<SessionKey, sqlx::Error> {
    bytes.try_into().map(SessionKey::new).map_err(corrupt)
}

fn end_reason(word: Option<String>) -> Result<EndReason, sqlx::Error> {
    not_null(word)?.parse().map_err(corrupt)
}

impl<'r, DB: Driver> Columns<'r, DB> {
    pub(crate) fn of(row: &'r DB::Row) -> Self {
        Self::starting_at(0, row)
    }

    pub(crate) fn starting_at(first: usize, row: &'r DB::Row) -> Self {
        Self { row, next: first }
    }

    fn next(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn int(&mut self) -> Result<Option<i64>, sqlx::Error> {
        DB::int(self.row, self.next())
    }

    fn optional_number(&mut self) -> Result<Option<u32>, sqlx::Error> {
        self.int()?.map(|number| number.try_into().map_err(corrupt)).transpose()
    }

    fn number(&mut self) -> Result<u32, sqlx::Error> {
        not_null(self.optional_number()?)
    }

    fn time(&mut self) -> Result<Timestamp, sqlx::Error> {
        self.number().map(Timestamp::from_secs)
    }

    fn optional_time(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(self.optional_number()?.map(Timestamp::from_secs))
    }

    fn optional_text(&mut self) -> Result<Option<String>, sqlx::Error> {
        DB::text(self.row, self.next())
    }

    pub(crate) fn text(&mut self) -> Result<String, sqlx::Error> {
        not_null(self.optional_text()?)
    }

    pub(crate) fn optional_key(&mut self) -> Result<Option<SessionKey>, sqlx::Error> {
        self.optional_bytes()?.map(|bytes| key(&bytes)).transpose()
    }

    fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>, sqlx::Error> {
        DB::bytes(self.row, self.next())
    }

    fn bytes(&mut self) -> Result<Vec<u8>, sqlx::Error> {
        not_null(self.optional_bytes()?)
    }

    fn flag(&mut self) -> Result<bool, sqlx::Error> {
        not_null(DB::flag(self.row, self.next())?)
    }

    pub(crate) fn key(&mut self) -> Result<SessionKey, sqlx::Error> {
        key(&self.bytes()?)
    }

    /// Reads a session from [`SESSION_COLUMNS`], followed by [`EPOCH_END_COLUMNS`].
    pub(crate) fn session(&mut self) -> Result<SessionRecord, sqlx::Error> {
        let (key, user, salt) = (self.key()?, UserId::from(self.text()?), self.salt()?);
        let mut record = SessionRecord::new(key, user, salt, self.time()?, self.time()?);
        record.acting_user = self.optional_text()?.map(UserId::from);
        record.generation = self.number()?;
        record.rotated_at = self.optional_time()?;
        record.seen_at = self.optional_time()?;
        record.session_started = self.time()?;
        record.last_seen = self.time()?;
        record.remember = self.remember()?;
        record.details = SessionDetails::new(self.text()?);
        record.ended = self.ended()?;
        self.apply_epoch_end(&mut record)?;
        Ok(record)
    }

    fn salt(&mut self) -> Result<[u8; 16], sqlx::Error> {
        self.bytes()?
            .try_into()
            .map_err(|_| corrupt("the salt of a session does not have 16 bytes"))
    }

    fn remember(&mut self) -> Result<Option<RememberPeriod>, sqlx::Error> {
        match (self.optional_time()?, self.optional_number()?) {
            (Some(expires), Some(seconds)) => Ok(Some(RememberPeriod::new(expires, seconds))),
            (None, None) => Ok(None),
            _ => Err(corrupt("only one of `remember_expires` and `remember_seconds` is null")),
        }
    }

    fn ended(&mut self) -> Result<Option<Ended>, sqlx::Error> {
        let (at, reason) = (self.optional_time()?, self.optional_text()?);
        let (successor, notified) = (self.optional_key()?, self.flag()?);
        let Some(at) = at else { return Ok(None) };
        let mut ended = Ended::new(at, end_reason(reason)?);
        ended.successor = successor;
        ended.notified = notified;
        Ok(Some(ended))
    }

    /// Reads [`EPOCH_END_COLUMNS`]. If the session ended with its epoch, the record gets that end,
    /// unless the session had ended individually before.
    fn apply_epoch_end(&mut self, record: &mut SessionRecord) -> Result<(), sqlx::Error> {
        let (at, reason) = (self.optional_time()?, self.optional_text()?);
        let kept_until = self.optional_time()?;
        if let Some(at) = at.filter(|_| record.ended.is_none()) {
            record.ended = Some(Ended::new(at, end_reason(reason)?));
            record.expires = not_null(kept_until)?;
        }
        Ok(())
    }

    /// Reads a counter from [`COUNTER_COLUMNS`].
    pub(crate) fn counter(&mut self) -> Result<(CounterKey, CounterState), sqlx::Error> {
        let key = self.bytes()?.try_into().map(CounterKey::new);
        let key = key.map_err(|_| corrupt("the key of a counter does not have 32 bytes"))?;
        let (count, last) = (self.number()?, self.time()?);
        let epoch = not_null(self.int()?)?.try_into().map_err(corrupt)?;
        Ok((key, CounterState::new(count, last, epoch, self.time()?)))
    }

    /// Reads a user from [`ACCOUNT_COLUMNS`].
    pub(crate) fn account(&mut self) -> Result<Account, sqlx::Error> {
        let account = Account::new(self.text()?, self.text()?, self.text()?);
        Ok(account.with_active(self.flag()?).with_security_stamp(self.bytes()?))
    }
}

/// Returns the values of a session's [`SESSION_COLUMNS`], in their order.
pub(crate) fn session_values(record: &SessionRecord) -> [Value<'_>; SESSION_COLUMNS.len()] {
    let ended = record.ended.as_ref();
    let successor = ended.and_then(|ended| ended.successor.as_ref());
    [
        (&record.key).into(),
        record.user.as_str().into(),
        Bytes(Some(&record.salt)),
        record.created.into(),
        record.expires.into(),
        Text(record.acting_user.as_ref().map(UserId::as_str)),
        record.generation.into(),
        record.rotated_at.into(),
        record.seen_at.into(),
        record.session_started.into(),
        record.last_seen.into(),
        record.remember.map(|remember| remember.expires).into(),
        Int(record.remember.map(|remember| remember.seconds.into())),
        record.details.as_str().into(),
        ended.map(|ended| ended.at).into(),
        Text(ended.map(|ended| ended.reason.as_str())),
        Bytes(successor.map(|key| &key.as_bytes()[..])),
        Flag(ended.is_some_and(|ended| ended.notified)),
    ]
}

/// Returns the values of a counter's [`COUNTER_COLUMNS`], in their order.
pub(crate) fn counter_values<'a>(key: &'a CounterKey, state: &CounterState) -> [Value<'a>; 5] {
    let CounterState { count, last, epoch, expires, .. } = *state;
    [key.into(), count.into(), last.into(), Int(i64::try_from(epoch).ok()), expires.into()]
}
