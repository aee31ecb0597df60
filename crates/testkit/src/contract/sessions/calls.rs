//! The calls of a store of sessions that must succeed, and the values that they take.

use std::hash::{BuildHasher, RandomState};

use tower_keep_core::{
    Creation, End, EndReason, NewLogin, RememberPeriod, Rotated, Rotation, SeenMark,
    SessionDetails, SessionKey, SessionLimit, SessionRecord, SessionStore, Timestamp, Touch,
    UserId,
};

use crate::contract::values::{now, unique_text};

/// One hour, in seconds.
pub(super) const HOUR: u32 = 3_600;

/// Creates a key that no other clause uses.
pub(super) fn new_key() -> SessionKey {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&RandomState::new().hash_one(unique_text("key")).to_ne_bytes());
    }
    SessionKey::new(bytes)
}

/// Creates the record of a session of this user that begins now. The record has a new key. The
/// session is remembered for a day and expires after two days.
pub fn new_record(user: &UserId) -> SessionRecord {
    let now = now();
    let salt = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255];
    let mut record = SessionRecord::new(new_key(), user.clone(), salt, now, now.plus(48 * HOUR));
    record.remember = Some(RememberPeriod::new(now.plus(24 * HOUR), 24 * HOUR));
    let details = r#"{"method":"password","user_agent":"Test/1.0 (🦀; 'quoted')"}"#;
    record.details = SessionDetails::new(details);
    record
}

/// Returns a copy of the record with `change` applied.
pub(super) fn with_change(
    record: &SessionRecord,
    change: impl FnOnce(&mut SessionRecord),
) -> SessionRecord {
    let mut record = record.clone();
    change(&mut record);
    record
}

pub(super) fn new_user_id() -> UserId {
    unique_text("user").into()
}

/// Creates a login with this record that replaces these sessions. Sessions that the login ends are
/// kept for an hour.
pub(super) fn new_login<'a>(
    record: &'a SessionRecord,
    replacing: &'a [SessionKey],
) -> NewLogin<'a> {
    let mut login = NewLogin::new(record, record.created.plus(HOUR));
    login.replacing = replacing;
    login
}

pub(super) fn new_login_with_limit<'a>(
    record: &'a SessionRecord,
    replacing: &'a [SessionKey],
    limit: SessionLimit,
) -> NewLogin<'a> {
    let mut login = new_login(record, replacing);
    login.limit = Some(limit);
    login
}

pub(super) async fn create<S: SessionStore>(store: &S, login: &NewLogin<'_>) -> Creation {
    store.create(login).await.expect("create fails only for a taken key or if the store fails")
}

/// Creates a session of this user in the store, and returns its record.
pub(crate) async fn create_session<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    create_session_with(store, user, |_| {}).await
}

/// Applies `change` to a [`new_record`] of this user, creates the session in the store, and returns
/// the record.
pub(crate) async fn create_session_with<S: SessionStore>(
    store: &S,
    user: &UserId,
    change: impl FnOnce(&mut SessionRecord),
) -> SessionRecord {
    let record = with_change(&new_record(user), change);
    create(store, &new_login(&record, &[])).await;
    record
}

pub(super) async fn load<S: SessionStore>(store: &S, key: &SessionKey) -> Option<SessionRecord> {
    let found = store.load(key).await.expect("load fails only if the store fails");
    found.map(|record| SessionRecord::clone(&record))
}

/// Returns the stored record with this key.
pub(crate) async fn stored_record<S: SessionStore>(store: &S, key: &SessionKey) -> SessionRecord {
    load(store, key).await.expect("the record is stored")
}

/// Returns why the stored session ended, or `None` if it has not ended.
pub(super) async fn end_reason<S: SessionStore>(store: &S, key: &SessionKey) -> Option<EndReason> {
    stored_record(store, key).await.ended.map(|ended| ended.reason)
}

/// Returns at most `limit` of the user's sessions that are live at `now`.
pub(super) async fn list<S: SessionStore>(
    store: &S,
    user: &UserId,
    now: Timestamp,
    limit: usize,
) -> Vec<SessionRecord> {
    let listed = store.list(user, now, limit).await.expect("list fails only if the store fails");
    listed.iter().map(|record| SessionRecord::clone(record)).collect()
}

/// Returns the keys of the user's live sessions, in ascending order.
pub(super) async fn live_keys<S: SessionStore>(store: &S, user: &UserId) -> Vec<SessionKey> {
    sorted(list(store, user, now(), 1_000).await.iter().map(|record| record.key))
}

/// Returns these keys in ascending order.
pub(super) fn sorted(keys: impl IntoIterator<Item = SessionKey>) -> Vec<SessionKey> {
    let mut keys = Vec::from_iter(keys);
    keys.sort();
    keys
}

/// Creates a rotation from the generation of `record`. The session then expires an hour after `at`,
/// or later if its stored expiry is later.
pub(crate) fn new_rotation(record: &SessionRecord, at: Timestamp) -> Rotation {
    Rotation::new(record.key, record.generation, at, at.plus(HOUR))
}

pub(crate) async fn rotate<S: SessionStore>(store: &S, rotation: &Rotation) -> Option<Rotated> {
    store.rotate(rotation).await.expect("rotate fails only if the store fails")
}

/// Creates an end at the current time. The ended sessions are kept for an hour.
pub(crate) fn new_end(reason: EndReason) -> End {
    End::new(now(), reason, now().plus(HOUR))
}

pub(crate) async fn revoke<S: SessionStore>(store: &S, key: &SessionKey, end: &End) -> usize {
    let keys = std::slice::from_ref(key);
    store.revoke(keys, end).await.expect("revoke fails only if the store fails")
}

pub(crate) async fn revoke_all<S: SessionStore>(
    store: &S,
    user: &UserId,
    except: Option<&SessionKey>,
    end: &End,
) {
    let result = store.revoke_all(user, except, end).await;
    result.expect("revoke_all fails only if the store fails");
}

/// Creates a touch that also extends the expiry of the remember cookie.
pub(super) fn new_touch_with_remember(
    key: SessionKey,
    at: Timestamp,
    remember_expires: Timestamp,
    expires: Timestamp,
) -> Touch {
    let mut touch = Touch::new(key, at, expires);
    touch.remember_expires = Some(remember_expires);
    touch
}

pub(crate) async fn touch<S: SessionStore>(store: &S, touches: &[Touch]) {
    store.touch(touches).await.expect("touch fails only if the store fails");
}

pub(crate) async fn mark_seen<S: SessionStore>(store: &S, marks: &[SeenMark]) {
    store.mark_seen(marks).await.expect("mark_seen fails only if the store fails");
}

pub(super) async fn purge<S: SessionStore>(store: &S, before: Timestamp, limit: usize) -> usize {
    store.purge(before, limit).await.expect("purge fails only if the store fails")
}

/// Purges all records that expired at `before` or earlier, including records of other clauses.
pub(super) async fn purge_all<S: SessionStore>(store: &S, before: Timestamp) {
    while purge(store, before, 1_000).await > 0 {}
}
