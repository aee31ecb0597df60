//! The contract of [`SessionStore`].

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, MOST_AT_ONCE, NewLogin, Rotated, Rotation, SeenMark, SessionKey,
    SessionLimit, SessionRecord, SessionStore, StoreErrorKind, Timestamp, Touch, UserId, WhenFull,
};

use super::{STEPS, TASKS, compete, interrupted, now, odd_texts, settled, tasks, unique};

mod ends;
mod limits;
mod logins;
mod notes;
mod rotations;

pub use ends::*;
pub use limits::*;
pub use logins::*;
pub use notes::*;
pub use rotations::*;

clauses! {
    SessionStore;
    a_created_session_is_loaded_as_it_was
    unknown_keys_are_nothing_and_insert_nothing
    a_taken_key_conflicts_and_nothing_is_written
    odd_users_are_kept_or_refused
    a_new_login_ends_those_that_it_replaces
    of_two_logins_in_one_session_one_remains
    of_many_logins_in_one_session_one_remains
    however_many_logins_show_one_old_cookie_one_session_remains
    a_full_limit_refuses_and_writes_nothing
    a_session_that_was_never_used_keeps_nobody_out
    a_full_limit_ends_the_oldest
    a_limit_counts_what_lives_and_is_not_replaced
    a_limit_looks_past_what_has_expired
    far_too_many_sessions_end_at_once_but_the_newest
    concurrent_logins_keep_to_the_limit
    a_user_is_notified_of_a_replay_once
    many_replays_are_returned_in_batches
    a_rotation_begins_the_next_generation
    a_rotation_from_another_generation_loses
    a_rotation_of_an_ended_session_loses
    of_many_rotations_one_wins_each_generation
    a_rotation_extends_and_never_shortens
    a_revocation_beats_every_rotation
    seen_marks_its_generation_once
    touch_only_moves_forward
    touch_extends_remembering_only_of_the_remembered
    ended_sessions_are_neither_touched_nor_seen
    of_several_ends_the_first_counts
    an_ended_session_is_kept_as_requested
    an_expired_session_can_be_ended
    all_sessions_of_a_user_end_but_one
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
    SessionRecord {
        key: new_key(),
        user: user.clone(),
        generation: 0,
        rotated_at: None,
        seen_at: None,
        salt: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255],
        created: now,
        session_started: now,
        last_seen: now,
        remember_expires: Some(now.plus(24 * HOUR)),
        remember_seconds: 24 * HOUR,
        expires: now.plus(48 * HOUR),
        address: "192.0.2.7".parse().ok(),
        user_agent: "Test/1.0 (🦀; 'quoted')".into(),
        method: "password".into(),
        ended: None,
    }
}

fn new_user() -> UserId {
    unique("user").into()
}

fn login<'a>(record: &'a SessionRecord, replacing: &'a [SessionKey]) -> NewLogin<'a> {
    NewLogin { record, replacing, ended_until: record.created.plus(HOUR), limit: None }
}

async fn create<S: SessionStore>(store: &S, login: &NewLogin<'_>) -> Creation {
    store.create(login).await.expect("a new login is written")
}

/// Creates a session of this user in the store, and returns its record.
pub(super) async fn begin<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    let record = new_record(user);
    create(store, &login(&record, &[])).await;
    record
}

async fn load<S: SessionStore>(store: &S, key: &SessionKey) -> Option<SessionRecord> {
    let found = store.load(key).await.expect("a key that is asked for is no fault");
    found.map(|record| SessionRecord::clone(&record))
}

async fn stored<S: SessionStore>(store: &S, key: &SessionKey) -> SessionRecord {
    load(store, key).await.expect("the session is there")
}

async fn end_reason<S: SessionStore>(store: &S, key: &SessionKey) -> Option<EndReason> {
    stored(store, key).await.ended.map(|ended| ended.reason)
}

async fn live<S: SessionStore>(store: &S, user: &UserId) -> Vec<SessionKey> {
    let listed = store.list(user, now(), 1_000).await.expect("a list is no fault");
    listed.iter().map(|record| record.key).collect()
}

fn rotation(record: &SessionRecord, at: Timestamp) -> Rotation {
    let (key, from) = (record.key, record.generation);
    Rotation { key, from, at, remember_expires: None, expires: at.plus(HOUR) }
}

async fn rotate<S: SessionStore>(store: &S, rotation: &Rotation) -> Option<Rotated> {
    store.rotate(rotation).await.expect("a rotation is no fault")
}

fn end(reason: EndReason) -> End {
    End { at: now(), reason, keep_until: now().plus(HOUR) }
}

async fn revoke<S: SessionStore>(store: &S, key: &SessionKey, end: &End) -> usize {
    store.revoke(std::slice::from_ref(key), end).await.expect("an end is no fault")
}

async fn revoke_all<S: SessionStore>(
    store: &S,
    user: &UserId,
    but: Option<&SessionKey>,
    end: &End,
) {
    store.revoke_all(user, but, end).await.expect("an end is no fault");
}

async fn touch<S: SessionStore>(store: &S, touch: Touch) {
    store.touch(&[touch]).await.expect("a touch is no fault");
}

async fn seen<S: SessionStore>(store: &S, key: SessionKey, generation: u32, at: Timestamp) {
    let mark = SeenMark { key, generation, at };
    store.seen(&[mark]).await.expect("a mark is no fault");
}
