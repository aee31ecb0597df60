//! The contract of [`SessionStore`].

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, MAX_PER_CALL, NewLogin, RememberPeriod, Rotated, Rotation, SeenMark,
    SessionDetails, SessionKey, SessionLimit, SessionRecord, SessionStore, StoreErrorKind,
    Timestamp, Touch, UserId, WhenFull,
};

use super::{
    COMPETING_TASKS, DROP_STEPS, allowed_tasks, now, poll_then_drop, run_concurrently, unique_text,
    unusual_details, unusual_texts, wait_until_settled,
};

mod create;
mod ends;
mod fields;
mod limits;
mod rotations;
mod usage;

pub use create::*;
pub use ends::*;
pub use fields::*;
pub use limits::*;
pub use rotations::*;
pub use usage::*;

clauses! {
    SessionStore;
    load_returns_every_field_as_create_wrote_it
    every_call_keeps_the_details_byte_for_byte
    every_call_keeps_the_acting_user
    every_call_keeps_both_fields_of_the_remember_period
    unknown_keys_are_not_an_error_and_insert_nothing
    create_with_a_taken_key_conflicts_and_writes_nothing
    sessions_of_unusual_user_ids_are_stored_as_given_or_rejected
    a_login_ends_the_sessions_that_it_replaces
    a_login_that_replaces_a_replaced_session_ends_its_successor
    concurrent_logins_that_replace_the_same_session_leave_one_live_session
    very_many_logins_that_replace_the_same_session_leave_one_live_session
    create_beyond_a_limit_that_refuses_returns_full_and_writes_nothing
    an_unused_session_ends_to_make_room_for_a_login
    create_beyond_the_limit_ends_only_the_oldest_sessions
    a_limit_counts_only_live_sessions_that_are_not_being_replaced
    a_limit_never_counts_expired_sessions_however_many_there_are
    create_far_beyond_the_limit_ends_all_sessions_except_the_newest
    concurrent_logins_never_exceed_the_limit
    a_user_is_notified_of_a_replay_once
    many_replays_are_returned_in_batches
    a_rotation_begins_the_next_generation
    a_rotation_from_another_generation_loses
    a_rotation_of_an_ended_session_loses
    exactly_one_concurrent_rotation_from_each_generation_wins
    a_rotation_extends_and_never_shortens_the_expiry
    a_revoked_session_stays_ended_during_concurrent_rotations
    a_generation_is_marked_as_seen_once
    touch_only_moves_last_seen_and_expires_forward
    touch_extends_the_remember_period_only_of_remembered_logins
    touch_and_mark_seen_do_not_change_ended_sessions
    only_the_first_end_of_a_session_is_kept
    every_call_keeps_an_unknown_end_reason
    a_revoked_session_is_kept_until_keep_until
    an_expired_session_can_be_ended
    revoke_all_ends_all_sessions_of_a_user_except_the_given_session
    every_call_treats_a_session_that_revoke_all_ended_as_ended
    a_session_kept_by_one_revoke_all_ends_with_the_next
    revoke_all_ends_a_session_whose_expiry_a_touch_extended
    list_returns_live_sessions_most_recently_used_first
    a_purge_removes_expired_records_in_batches
    a_purge_removes_sessions_that_revoke_all_ended
    no_call_brings_back_a_purged_session
    a_clock_that_is_behind_moves_no_time_back_except_by_a_rotation
    dropping_the_future_of_create_leaves_all_or_nothing
    dropping_the_future_of_rotate_leaves_all_or_nothing
    dropping_the_future_of_revoke_touch_or_mark_seen_leaves_all_or_nothing
}

/// One hour, in seconds.
const HOUR: u32 = 3_600;

/// Creates a key that no other clause uses.
fn new_key() -> SessionKey {
    use std::hash::{BuildHasher, RandomState};
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
fn with_change(record: &SessionRecord, change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
    let mut record = record.clone();
    change(&mut record);
    record
}

fn new_user_id() -> UserId {
    unique_text("user").into()
}

/// Creates a login with this record that replaces these sessions. Sessions that the login ends are
/// kept for an hour.
fn new_login<'a>(record: &'a SessionRecord, replacing: &'a [SessionKey]) -> NewLogin<'a> {
    let mut login = NewLogin::new(record, record.created.plus(HOUR));
    login.replacing = replacing;
    login
}

fn new_login_with_limit<'a>(
    record: &'a SessionRecord,
    replacing: &'a [SessionKey],
    limit: SessionLimit,
) -> NewLogin<'a> {
    let mut login = new_login(record, replacing);
    login.limit = Some(limit);
    login
}

async fn create<S: SessionStore>(store: &S, login: &NewLogin<'_>) -> Creation {
    store.create(login).await.expect("create fails only for a taken key or if the store fails")
}

/// Creates a session of this user in the store, and returns its record.
pub(super) async fn create_session<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    create_session_with(store, user, |_| {}).await
}

/// Applies `change` to a [`new_record`] of this user, creates the session in the store, and returns
/// the record.
pub(super) async fn create_session_with<S: SessionStore>(
    store: &S,
    user: &UserId,
    change: impl FnOnce(&mut SessionRecord),
) -> SessionRecord {
    let record = with_change(&new_record(user), change);
    create(store, &new_login(&record, &[])).await;
    record
}

async fn load<S: SessionStore>(store: &S, key: &SessionKey) -> Option<SessionRecord> {
    let found = store.load(key).await.expect("load fails only if the store fails");
    found.map(|record| SessionRecord::clone(&record))
}

/// Returns the stored record with this key.
pub(super) async fn stored_record<S: SessionStore>(store: &S, key: &SessionKey) -> SessionRecord {
    load(store, key).await.expect("the record is stored")
}

/// Returns why the stored session ended, or `None` if it has not ended.
async fn end_reason<S: SessionStore>(store: &S, key: &SessionKey) -> Option<EndReason> {
    stored_record(store, key).await.ended.map(|ended| ended.reason)
}

/// Returns at most `limit` of the user's sessions that are live at `now`.
async fn list<S: SessionStore>(
    store: &S,
    user: &UserId,
    now: Timestamp,
    limit: usize,
) -> Vec<SessionRecord> {
    let listed = store.list(user, now, limit).await.expect("list fails only if the store fails");
    listed.iter().map(|record| SessionRecord::clone(record)).collect()
}

/// Returns the keys of the user's live sessions.
async fn live_keys<S: SessionStore>(store: &S, user: &UserId) -> Vec<SessionKey> {
    list(store, user, now(), 1_000).await.iter().map(|record| record.key).collect()
}

/// Creates a rotation from the generation of `record`. The session then expires an hour after `at`,
/// or later if its stored expiry is later.
pub(super) fn new_rotation(record: &SessionRecord, at: Timestamp) -> Rotation {
    Rotation::new(record.key, record.generation, at, at.plus(HOUR))
}

pub(super) async fn rotate<S: SessionStore>(store: &S, rotation: &Rotation) -> Option<Rotated> {
    store.rotate(rotation).await.expect("rotate fails only if the store fails")
}

/// Creates an end at the current time. The ended sessions are kept for an hour.
pub(super) fn new_end(reason: EndReason) -> End {
    End::new(now(), reason, now().plus(HOUR))
}

pub(super) async fn revoke<S: SessionStore>(store: &S, key: &SessionKey, end: &End) -> usize {
    let keys = std::slice::from_ref(key);
    store.revoke(keys, end).await.expect("revoke fails only if the store fails")
}

pub(super) async fn revoke_all<S: SessionStore>(
    store: &S,
    user: &UserId,
    except: Option<&SessionKey>,
    end: &End,
) {
    let result = store.revoke_all(user, except, end).await;
    result.expect("revoke_all fails only if the store fails");
}

/// Creates a touch that also extends the expiry of the remember cookie.
fn new_touch_with_remember(
    key: SessionKey,
    at: Timestamp,
    remember_expires: Timestamp,
    expires: Timestamp,
) -> Touch {
    let mut touch = Touch::new(key, at, expires);
    touch.remember_expires = Some(remember_expires);
    touch
}

pub(super) async fn touch<S: SessionStore>(store: &S, touches: &[Touch]) {
    store.touch(touches).await.expect("touch fails only if the store fails");
}

pub(super) async fn mark_seen<S: SessionStore>(store: &S, marks: &[SeenMark]) {
    store.mark_seen(marks).await.expect("mark_seen fails only if the store fails");
}

async fn purge<S: SessionStore>(store: &S, before: Timestamp, limit: usize) -> usize {
    store.purge(before, limit).await.expect("purge fails only if the store fails")
}

/// Purges all records that expired at `before` or earlier, including records of other clauses.
async fn purge_all<S: SessionStore>(store: &S, before: Timestamp) {
    while purge(store, before, 1_000).await > 0 {}
}
