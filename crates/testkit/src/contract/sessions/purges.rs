//! Removing records: clauses of `purge`.

use std::sync::Arc;

use tower_keep_core::{Creation, End, EndReason, SeenMark, SessionRecord, SessionStore, Timestamp};

use super::calls::{
    HOUR, create, create_session, create_session_with, end_reason, live_keys, load, mark_seen,
    new_end, new_login, new_record, new_rotation, new_touch_with_remember, new_user_id, purge,
    purge_all, revoke, revoke_all, rotate, stored_record, touch,
};
use crate::contract::values::now;

/// Purges all records that expired at `before` or earlier, at most two records with each call.
async fn purge_in_pairs<S: SessionStore>(store: &S, before: Timestamp) {
    loop {
        let purged = purge(store, before, 2).await;
        assert!(purged <= 2, "the call removed {purged} records, more than the limit of 2");
        if purged == 0 {
            break;
        }
    }
}

/// A purge removes expired records, including those of ended sessions, and at most `limit` of them
/// in one call. Other records stay.
pub async fn a_purge_removes_expired_records_in_batches<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let before = now().minus(HOUR);
    purge_all(&*store, before).await;
    let mut expired = Vec::new();
    for ago in [0, 1, 10, HOUR, 24 * HOUR] {
        let change = |record: &mut SessionRecord| record.expires = before.minus(ago);
        expired.push(create_session_with(&*store, &user, change).await.key);
    }
    let ended = create_session(&*store, &user).await;
    let end = End::new(now(), EndReason::LoggedOut, before);
    revoke(&*store, &ended.key, &end).await;
    expired.push(ended.key);
    let other = create_session(&*store, &user).await;
    purge_in_pairs(&*store, before).await;
    for key in expired {
        assert_eq!(load(&*store, &key).await, None, "the record has expired");
    }
    assert_eq!(stored_record(&*store, &other.key).await, other);
    assert_eq!(live_keys(&*store, &user).await, [other.key]);
}

/// A purge removes the sessions that `revoke_all` ended, in batches, once the `keep_until` of
/// `revoke_all` has passed. A session that `revoke` ended is kept until the `keep_until` of
/// `revoke`.
pub async fn a_purge_removes_sessions_that_revoke_all_ended<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let before = now().minus(HOUR);
    purge_all(&*store, before).await;
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(create_session(&*store, &user).await.key);
    }
    let (except, replayed) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    revoke(&*store, &replayed.key, &new_end(EndReason::Replay)).await;
    let end = End::new(now(), EndReason::Revoked, before);
    revoke_all(&*store, &user, Some(&except.key), &end).await;
    purge_in_pairs(&*store, before).await;
    for key in ended {
        assert_eq!(load(&*store, &key).await, None, "`keep_until` has passed");
    }
    assert_eq!(stored_record(&*store, &except.key).await, except);
    assert_eq!(end_reason(&*store, &replayed.key).await, Some(EndReason::Replay));
    let creation = create(&*store, &new_login(&new_record(&user), &[])).await;
    let Creation::Created { replays, .. } = creation else { panic!("there is no limit") };
    assert_eq!(replays.len(), 1, "the replay is stored, and the user was not notified of it yet");
}

/// Calls with the key of a purged session don't insert its record again.
pub async fn no_call_brings_back_a_purged_session<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let before = now().minus(HOUR);
    let record =
        create_session_with(&*store, &user, |record| record.expires = before.minus(1)).await;
    purge_all(&*store, before).await;
    let (key, at, expires) = (record.key, now(), now().plus(HOUR));
    touch(&*store, &[new_touch_with_remember(key, at, expires, expires)]).await;
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    assert_eq!(rotate(&*store, &new_rotation(&record, at)).await, None);
    assert_eq!(revoke(&*store, &key, &new_end(EndReason::Revoked)).await, 0);
    assert_eq!(load(&*store, &key).await, None);
    assert_eq!(live_keys(&*store, &user).await, []);
}
