//! Rows of the tables that the adapters' migrations make.

use std::sync::Arc;

use sqlx::FromRow;
use tower_keep_core::{Account, EndReason, Ended, SessionKey, SessionRecord, Timestamp, UserId};

/// The columns of a session, in the order in which [`SessionRow`]'s fields are bound.
pub const SESSION_COLUMNS: &str = "key, user_id, generation, rotated_at, seen_at, salt, created, \
    session_started, last_seen, remember_expires, remember_seconds, expires, address, user_agent, \
    method, ended_at, end_reason, successor, told";

/// A session record as a row. Times are seconds since 1970.
#[derive(Clone, Debug, FromRow)]
#[expect(missing_docs, reason = "the fields are those of a session record")]
pub struct SessionRow {
    pub key: Vec<u8>,
    pub user_id: String,
    pub generation: i64,
    pub rotated_at: Option<i64>,
    pub seen_at: Option<i64>,
    pub salt: Vec<u8>,
    pub created: i64,
    pub session_started: i64,
    pub last_seen: i64,
    pub remember_expires: Option<i64>,
    pub remember_seconds: i64,
    pub expires: i64,
    pub address: Option<String>,
    pub user_agent: String,
    pub method: String,
    pub ended_at: Option<i64>,
    pub end_reason: Option<String>,
    pub successor: Option<Vec<u8>>,
    pub told: bool,
}

/// A moment as the databases keep it.
pub fn seconds(time: Timestamp) -> i64 {
    i64::from(time.as_secs())
}

impl SessionRow {
    /// The row of a record.
    pub fn of(record: &SessionRecord) -> Self {
        let ended = record.ended.as_ref();
        Self {
            key: record.key.as_bytes().to_vec(),
            user_id: record.user.as_str().to_owned(),
            generation: record.generation.into(),
            rotated_at: record.rotated_at.map(seconds),
            seen_at: record.seen_at.map(seconds),
            salt: record.salt.to_vec(),
            created: seconds(record.created),
            session_started: seconds(record.session_started),
            last_seen: seconds(record.last_seen),
            remember_expires: record.remember_expires.map(seconds),
            remember_seconds: record.remember_seconds.into(),
            expires: seconds(record.expires),
            address: record.address.map(|address| address.to_string()),
            user_agent: record.user_agent.as_ref().to_owned(),
            method: record.method.as_ref().to_owned(),
            ended_at: ended.map(|ended| seconds(ended.at)),
            end_reason: ended.map(|ended| ended.reason.as_str().to_owned()),
            successor: ended.and_then(|ended| Some(ended.successor?.as_bytes().to_vec())),
            told: ended.is_some_and(|ended| ended.told),
        }
    }

    /// The record of a row; `None` if a column holds what none of ours does.
    pub fn record(self) -> Option<SessionRecord> {
        let time = |seconds: i64| u32::try_from(seconds).ok().map(Timestamp::from_secs);
        let ended = match (self.ended_at, self.end_reason) {
            (None, _) => None,
            (Some(at), reason) => Some(Ended {
                at: time(at)?,
                reason: EndReason::from_word(&reason?)?,
                successor: self.successor.map(|bytes| key(&bytes)).transpose().ok()?,
                told: self.told,
            }),
        };
        Some(SessionRecord {
            key: key(&self.key).ok()?,
            user: UserId::from(self.user_id),
            generation: u32::try_from(self.generation).ok()?,
            rotated_at: self.rotated_at.map(|at| time(at).ok_or(())).transpose().ok()?,
            seen_at: self.seen_at.map(|at| time(at).ok_or(())).transpose().ok()?,
            salt: self.salt.try_into().ok()?,
            created: time(self.created)?,
            session_started: time(self.session_started)?,
            last_seen: time(self.last_seen)?,
            remember_expires: self
                .remember_expires
                .map(|at| time(at).ok_or(()))
                .transpose()
                .ok()?,
            remember_seconds: u32::try_from(self.remember_seconds).ok()?,
            expires: time(self.expires)?,
            address: self.address.map(|address| address.parse()).transpose().ok()?,
            user_agent: self.user_agent.into(),
            method: self.method.into(),
            ended,
        })
    }
}

fn key(bytes: &[u8]) -> Result<SessionKey, std::array::TryFromSliceError> {
    bytes.try_into().map(SessionKey::new)
}

/// A user of the ready type as a row.
#[derive(Clone, FromRow)]
#[expect(missing_docs, reason = "the fields are those of an account")]
pub struct AccountRow {
    pub id: String,
    pub login: String,
    pub password_hash: String,
    pub active: bool,
    pub stamp: Vec<u8>,
}

impl AccountRow {
    /// The account of a row.
    pub fn account(self) -> Arc<Account> {
        let account = Account::new(self.id, self.login, self.password_hash);
        Arc::new(account.with_active(self.active).with_stamp(self.stamp))
    }
}

/// A session and, if there is one, its user: a left join of the two tables.
#[derive(FromRow)]
#[expect(missing_docs, reason = "the fields are those of an account")]
pub struct LoginRow {
    /// The session.
    #[sqlx(flatten)]
    pub session: SessionRow,
    pub id: Option<String>,
    pub login: Option<String>,
    pub password_hash: Option<String>,
    pub active: Option<bool>,
    pub stamp: Option<Vec<u8>>,
}

impl LoginRow {
    /// The record, and its user.
    pub fn split(self) -> (Option<SessionRecord>, Option<Arc<Account>>) {
        let account = || {
            let row = AccountRow {
                id: self.id?,
                login: self.login?,
                password_hash: self.password_hash?,
                active: self.active?,
                stamp: self.stamp?,
            };
            Some(row.account())
        };
        (self.session.record(), account())
    }
}
