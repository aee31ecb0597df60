//! The contract of [`SessionStore`].

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, MAX_AT_ONCE, NewLogin, RememberPeriod, Rotated, Rotation, SeenMark,
    SessionDetails, SessionKey, SessionLimit, SessionRecord, SessionStore, StoreErrorKind,
    Timestamp, Touch, UserId, WhenFull,
};

use super::{
    STEPS, TASKS, compete, interrupted, now, odd_details, odd_texts, settled, tasks, unique,
};

mod ends;
mod fields;
mod limits;
mod logins;
mod rotations;
mod usage;

pub use ends::*;
pub use fields::*;
pub use limits::*;
pub use logins::*;
pub use rotations::*;
pub use usage::*;

clauses! {
    SessionStore;
    a_created_session_is_loaded_as_it_was
    the_details_come_back_byte_for_byte
    the_acting_user_comes_back
    a_remember_period_comes_back_with_both_parts
    unknown_keys_are_nothing_and_insert_nothing
    a_taken_key_conflicts_and_nothing_is_written
    odd_users_are_kept_or_refused
    a_new_login_ends_those_that_it_replaces
    of_two_logins_in_one_session_one_remains
    of_many_logins_in_one_session_one_remains
    however_many_logins_send_one_old_cookie_one_session_remains
    a_full_limit_refuses_and_writes_nothing
    a_session_that_was_never_used_keeps_nobody_out
    a_full_limit_ends_the_oldest
    a_limit_counts_what_is_live_and_not_replaced
    a_limit_looks_past_what_has_expired
    far_too_many_sessions_end_at_once_except_the_newest
    concurrent_logins_keep_to_the_limit
    a_user_is_notified_of_a_replay_once
    many_replays_are_returned_in_batches
    a_rotation_begins_the_next_generation
    a_rotation_from_another_generation_loses
    a_rotation_of_an_ended_session_loses
    of_many_rotations_one_wins_each_generation
    a_rotation_extends_and_never_shortens
    a_revocation_beats_every_rotation
    a_generation_is_marked_as_seen_once
    touch_only_moves_forward
    touch_extends_remembering_only_of_the_remembered
    ended_sessions_are_neither_touched_nor_marked
    of_several_ends_the_first_counts
    an_unknown_reason_keeps_its_word
    an_ended_session_is_kept_as_requested
    an_expired_session_can_be_ended
    all_sessions_of_a_user_end_except_one
    an_end_of_all_holds_for_every_call
    what_stays_at_one_end_of_all_ends_at_the_next
    a_session_that_outlives_its_login_by_use_ends_with_all
    a_list_is_of_live_sessions_the_last_used_first
    a_purge_removes_what_expired_in_batches
    a_purge_removes_what_ended_together
    what_was_purged_never_comes_back
    a_server_whose_clock_is_behind_sets_nothing_back
    an_interrupted_login_leaves_all_or_nothing
    an_interrupted_rotation_leaves_all_or_nothing
    interrupted_ends_leave_all_or_nothing
}

const HOUR: u32 = 3_600;

/// Creates a key that no other clause uses.
fn new_key() -> SessionKey {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&RandomState::new().hash_one(unique("key")).to_ne_bytes());
    }
    SessionKey::new(bytes)
}

/// Creates the record of a session of this user that begins now. It has a key of its own, is
/// remembered for a day and expires after two days.
pub fn new_record(user: &UserId) -> SessionRecord {
    let now = now();
    let salt = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255];
    let mut record = SessionRecord::new(new_key(), user.clone(), salt, now, now.plus(48 * HOUR));
    record.remember = Some(RememberPeriod::new(now.plus(24 * HOUR), 24 * HOUR));
    let details = r#"{"method":"password","user_agent":"Test/1.0 (🦀; 'quoted')"}"#;
    record.details = SessionDetails::new(details);
    record
}

/// Returns a copy of the record with this change.
fn changed(record: &SessionRecord, change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
    let mut record = record.clone();
    change(&mut record);
    record
}

fn new_user() -> UserId {
    unique("user").into()
}

fn login<'a>(record: &'a SessionRecord, replacing: &'a [SessionKey]) -> NewLogin<'a> {
    let mut login = NewLogin::new(record, record.created.plus(HOUR));
    login.replacing = replacing;
    login
}

fn login_with_limit<'a>(
    record: &'a SessionRecord,
    replacing: &'a [SessionKey],
    limit: SessionLimit,
) -> NewLogin<'a> {
    let mut login = login(record, replacing);
    login.limit = Some(limit);
    login
}

async fn create<S: SessionStore>(store: &S, login: &NewLogin<'_>) -> Creation {
    store.create(login).await.expect("a new login is written")
}

/// Creates a session of this user in the store, and returns its record.
pub(super) async fn begin<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    begin_with(store, user, |_| {}).await
}

/// Creates a session of this user with changes to its [`new_record`], and returns its record.
pub(super) async fn begin_with<S: SessionStore>(
    store: &S,
    user: &UserId,
    change: impl FnOnce(&mut SessionRecord),
) -> SessionRecord {
    let record = changed(&new_record(user), change);
    create(store, &login(&record, &[])).await;
    record
}

async fn load<S: SessionStore>(store: &S, key: &SessionKey) -> Option<SessionRecord> {
    let found = store.load(key).await.expect("load fails only if the store fails");
    found.map(|record| SessionRecord::clone(&record))
}

pub(super) async fn stored<S: SessionStore>(store: &S, key: &SessionKey) -> SessionRecord {
    load(store, key).await.expect("the session is there")
}

async fn end_reason<S: SessionStore>(store: &S, key: &SessionKey) -> Option<EndReason> {
    stored(store, key).await.ended.map(|ended| ended.reason)
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
async fn live<S: SessionStore>(store: &S, user: &UserId) -> Vec<SessionKey> {
    list(store, user, now(), 1_000).await.iter().map(|record| record.key).collect()
}

pub(super) fn rotation(record: &SessionRecord, at: Timestamp) -> Rotation {
    Rotation::new(record.key, record.generation, at, at.plus(HOUR))
}

pub(super) async fn rotate<S: SessionStore>(store: &S, rotation: &Rotation) -> Option<Rotated> {
    store.rotate(rotation).await.expect("rotate fails only if the store fails")
}

pub(super) fn end(reason: EndReason) -> End {
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
    let done = store.revoke_all(user, except, end).await;
    done.expect("revoke_all fails only if the store fails");
}

/// Creates a touch that also extends the expiry of the remember cookie.
fn remembered_touch(
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

/// Purges all records that expired until `before`, including those of other clauses.
async fn purge_all<S: SessionStore>(store: &S, before: Timestamp) {
    while purge(store, before, 1_000).await > 0 {}
}
