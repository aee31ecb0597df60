//! The fields of a record: clauses about values that a store returns as they were written.

use std::sync::Arc;

use tower_keep_core::{
    Creation, EndReason, RememberPeriod, Rotated, SeenMark, SessionDetails, SessionLimit,
    SessionRecord, SessionStore, Timestamp, Touch, WhenFull,
};

use super::calls::{
    HOUR, create, create_session_with, list, mark_seen, new_end, new_login, new_login_with_limit,
    new_record, new_rotation, new_user_id, revoke, revoke_all, rotate, stored_record, touch,
    with_change,
};
use crate::contract::values::{now, unusual_details};

/// `load` returns every field as `create` wrote it, including empty and extreme values.
pub async fn load_returns_every_field_as_create_wrote_it<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let full = new_record(&user);
    let empty = with_change(&new_record(&user), |record| {
        record.remember = None;
        record.details = SessionDetails::default();
    });
    let extreme = with_change(&new_record(&user), |record| {
        record.generation = u32::MAX - 1;
        record.rotated_at = Some(full.created);
        record.seen_at = Some(full.created.plus(1));
        record.salt = [0; 16];
        record.expires = Timestamp::MAX;
    });
    for record in [full, empty, extreme] {
        create(&*store, &new_login(&record, &[])).await;
        assert_eq!(stored_record(&*store, &record.key).await, record);
    }
}

/// The details are an opaque text. No call changes a byte of this text.
pub async fn every_call_keeps_the_details_byte_for_byte<S: SessionStore>(store: Arc<S>) {
    for text in unusual_details() {
        let change = |record: &mut SessionRecord| record.details = SessionDetails::new(&*text);
        for (call, record) in records_of_every_call(&*store, change).await {
            assert_eq!(record.details.as_str(), text, "{call}");
        }
    }
}

/// No call changes or removes `acting_user`, or sets it where it is `None`.
pub async fn every_call_keeps_the_acting_user<S: SessionStore>(store: Arc<S>) {
    for acting_user in [None, Some(new_user_id()), Some(7.into()), Some("é 佐藤 🦀".into())] {
        let change = |record: &mut SessionRecord| record.acting_user = acting_user.clone();
        for (call, record) in records_of_every_call(&*store, change).await {
            assert_eq!(record.acting_user, acting_user, "{call}");
        }
    }
}

/// Every call keeps both fields of `remember`, and keeps `None` if the login is not remembered.
pub async fn every_call_keeps_both_fields_of_the_remember_period<S: SessionStore>(store: Arc<S>) {
    let short = RememberPeriod::new(now().plus(HOUR), 1);
    let long = RememberPeriod::new(Timestamp::MAX, u32::MAX);
    for remember in [None, Some(short), Some(long)] {
        let change = |record: &mut SessionRecord| record.remember = remember;
        for (call, record) in records_of_every_call(&*store, change).await {
            assert_eq!(record.remember, remember, "{call}");
        }
    }
}

/// Records, each with a description of the call that returned the record or last wrote it.
type RecordsAfterCalls = Vec<(&'static str, SessionRecord)>;

/// Creates sessions with this change, makes every call that reads or writes a session, and returns
/// the records after each call.
async fn records_of_every_call<S: SessionStore>(
    store: &S,
    change: impl Fn(&mut SessionRecord),
) -> RecordsAfterCalls {
    let mut records = records_of_a_live_session(store, &change).await;
    records.extend(records_of_ended_sessions(store, &change).await);
    records
}

/// Makes the calls that don't end a session.
async fn records_of_a_live_session<S: SessionStore>(
    store: &S,
    change: &impl Fn(&mut SessionRecord),
) -> RecordsAfterCalls {
    let user = new_user_id();
    let record = create_session_with(store, &user, change).await;
    let (key, at, expires) = (record.key, now(), now().plus(99 * HOUR));
    let mut records = vec![("create", stored_record(store, &key).await)];
    for rotation in [new_rotation(&record, at); 2] {
        let (call, returned) = match rotate(store, &rotation).await {
            Some(Rotated::Won(returned)) => ("a rotation that wins", returned),
            Some(Rotated::Lost(returned)) => ("a rotation that loses", returned),
            None => panic!("the session is stored"),
        };
        records.push((call, SessionRecord::clone(&returned)));
        records.push((call, stored_record(store, &key).await));
    }
    mark_seen(store, &[SeenMark::new(key, 1, at)]).await;
    records.push(("mark_seen", stored_record(store, &key).await));
    touch(store, &[Touch::new(key, at.plus(9), expires)]).await;
    records.push(("touch", stored_record(store, &key).await));
    revoke_all(store, &user, Some(&key), &new_end(EndReason::Revoked)).await;
    records.push(("revoke_all except this session", stored_record(store, &key).await));
    let listed = list(store, &user, at, 1_000).await;
    assert_eq!(listed.len(), 1, "the session is live");
    records.extend(listed.into_iter().map(|record| ("list", record)));
    records
}

/// Makes the calls that end sessions or change ended sessions.
async fn records_of_ended_sessions<S: SessionStore>(
    store: &S,
    change: &impl Fn(&mut SessionRecord),
) -> RecordsAfterCalls {
    let user = new_user_id();
    let replayed = create_session_with(store, &user, change).await;
    let oldest = create_session_with(store, &user, change).await;
    revoke(store, &replayed.key, &new_end(EndReason::Replay)).await;
    let mut records = vec![("revoke", stored_record(store, &replayed.key).await)];
    let (record, limit) = (new_record(&user), SessionLimit::new(1, WhenFull::EndOldest));
    let creation = create(store, &new_login_with_limit(&record, &[], limit)).await;
    let Creation::Created { ended, replays, .. } = creation else {
        panic!("the oldest session ends, so there is room")
    };
    let returned = ended.iter().chain(&replays).map(|record| SessionRecord::clone(record));
    records.extend(returned.map(|record| ("a login that returns the record", record)));
    let replaced = create_session_with(store, &user, change).await;
    for new in [new_record(&user), new_record(&user)] {
        create(store, &new_login(&new, &[replaced.key])).await;
    }
    let revoked = create_session_with(store, &user, change).await;
    revoke_all(store, &user, None, &new_end(EndReason::Revoked)).await;
    for (call, record) in [
        ("a login that notifies of a replay", replayed),
        ("a login that ends the oldest session", oldest),
        ("a login that replaces the session", replaced),
        ("revoke_all", revoked),
    ] {
        let record = stored_record(store, &record.key).await;
        assert!(record.ended.is_some(), "the session has ended: {call}");
        records.push((call, record));
    }
    records
}
