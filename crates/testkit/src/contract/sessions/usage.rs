//! The use of sessions: clauses of `mark_seen`, `touch` and `list`.

use std::sync::Arc;

use tower_keep_core::{
    End, EndReason, RememberPeriod, Rotated, SeenMark, SessionRecord, SessionStore, Touch,
};

use super::calls::{
    HOUR, create_session, create_session_with, list, live_keys, mark_seen, new_end, new_key,
    new_rotation, new_touch_with_remember, new_user_id, revoke, rotate, stored_record, touch,
    with_change,
};
use crate::contract::values::now;

/// The first mark of the current generation sets `seen_at`. Later marks, and marks of other
/// generations, change nothing.
pub async fn a_generation_is_marked_as_seen_once<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let (record, other) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    rotate(&*store, &new_rotation(&record, now())).await;
    for generation in [0, 2] {
        mark_seen(&*store, &[SeenMark::new(record.key, generation, now())]).await;
        assert_eq!(
            stored_record(&*store, &record.key).await.seen_at,
            None,
            "a mark of another generation changes nothing"
        );
    }
    let (first, later) = (now().plus(5), now().plus(9));
    let marks = [(record.key, 1), (other.key, 0), (new_key(), 0)];
    let marks = marks.map(|(key, generation)| SeenMark::new(key, generation, first));
    mark_seen(&*store, &marks).await;
    mark_seen(&*store, &[SeenMark::new(record.key, 1, later)]).await;
    assert_eq!(stored_record(&*store, &record.key).await.seen_at, Some(first));
    let expected = with_change(&other, |record| record.seen_at = Some(first));
    assert_eq!(stored_record(&*store, &other.key).await, expected, "only `seen_at` changes");
}

/// A touch moves `last_seen` and `expires` forward, never back, and changes nothing else.
pub async fn touch_only_moves_last_seen_and_expires_forward<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let (record, other) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    let (at, expires) = (now().plus(100), now().plus(99 * HOUR));
    let both = [record.key, other.key];
    let touches = both.map(|key| Touch::new(key, at, expires));
    touch(&*store, &touches).await;
    for record in [&record, &other] {
        let expected = with_change(record, |record| {
            (record.last_seen, record.expires) = (at, expires);
        });
        assert_eq!(stored_record(&*store, &record.key).await, expected);
    }
    let (at, expires) = (now().minus(100), now().plus(HOUR));
    touch(&*store, &[Touch::new(record.key, at, expires)]).await;
    assert_eq!(stored_record(&*store, &record.key).await.last_seen, touches[0].at);
    assert_eq!(stored_record(&*store, &record.key).await.expires, touches[0].expires);
}

/// A touch moves `remember.expires` forward, never back, and only if the login is remembered.
pub async fn touch_extends_the_remember_period_only_of_remembered_logins<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let remembered = create_session(&*store, &user).await;
    let not_remembered = create_session_with(&*store, &user, |record| record.remember = None).await;
    for (requested_hours, expected_hours) in [(72, 72), (48, 72)] {
        let (at, expires) = (now(), now().plus(99 * HOUR));
        let remember_expires = remembered.created.plus(requested_hours * HOUR);
        let both = [remembered.key, not_remembered.key];
        touch(
            &*store,
            &both.map(|key| new_touch_with_remember(key, at, remember_expires, expires)),
        )
        .await;
        let after = stored_record(&*store, &remembered.key).await;
        let expected = remembered.created.plus(expected_hours * HOUR);
        assert_eq!(after.remember, Some(RememberPeriod::new(expected, 24 * HOUR)));
        assert_eq!(stored_record(&*store, &not_remembered.key).await.remember, None);
    }
}

/// A mark or a touch that arrives after the session has ended changes nothing.
pub async fn touch_and_mark_seen_do_not_change_ended_sessions<S: SessionStore>(store: Arc<S>) {
    let record = create_session(&*store, &new_user_id()).await;
    revoke(&*store, &record.key, &new_end(EndReason::LoggedOut)).await;
    let before = stored_record(&*store, &record.key).await;
    let (key, at, expires) = (record.key, now().plus(50), now().plus(99 * HOUR));
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    touch(&*store, &[new_touch_with_remember(key, at, expires, expires)]).await;
    assert_eq!(stored_record(&*store, &key).await, before);
}

/// `list` returns live sessions, the most recently used first, and at most `limit` of them.
pub async fn list_returns_live_sessions_most_recently_used_first<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let mut records = Vec::new();
    for seconds in [20, 40, 10, 30] {
        let change = |record: &mut SessionRecord| record.last_seen = now().plus(seconds);
        records.push(create_session_with(&*store, &user, change).await);
    }
    let ended = create_session(&*store, &user).await;
    revoke(&*store, &ended.key, &new_end(EndReason::Revoked)).await;
    let expiring_soon =
        create_session_with(&*store, &user, |record| record.expires = now().plus(HOUR)).await;
    create_session(&*store, &new_user_id()).await;
    let (later, order) = (now().plus(HOUR + 10), [1, 3, 0, 2]);
    let listed = list(&*store, &user, later, 1_000).await;
    assert_eq!(listed, order.map(|index| records[index].clone()));
    let first_two = list(&*store, &user, later, 2).await;
    assert_eq!(first_two, [records[1].clone(), records[3].clone()]);
    assert!(
        live_keys(&*store, &user).await.contains(&expiring_soon.key),
        "the session is live now"
    );
}

/// Two servers with clocks that differ by five minutes write the same session. A call of the server
/// with the earlier clock moves no time of the session back, unless the call is a rotation: the
/// contract of `rotate` requires that a rotation sets times even if the stored times are later.
pub async fn a_clock_that_is_behind_moves_no_time_back_except_by_a_rotation<S: SessionStore>(
    store: Arc<S>,
) {
    let ahead = now();
    let behind = ahead.minus(300);
    let record = create_session(&*store, &new_user_id()).await;
    let key = record.key;
    rotate(&*store, &new_rotation(&record, ahead)).await;
    for at in [ahead, behind] {
        mark_seen(&*store, &[SeenMark::new(key, 1, at)]).await;
    }
    touch(&*store, &[new_touch_with_remember(key, behind, behind, behind.plus(HOUR))]).await;
    let after = stored_record(&*store, &key).await;
    assert_eq!((after.seen_at, after.last_seen), (Some(ahead), ahead));
    assert_eq!(after.expires, record.expires);
    assert_eq!(after.remember, record.remember);
    // The compare-and-swap compares generations, not times.
    let rotated = rotate(&*store, &new_rotation(&after, behind)).await;
    let Some(Rotated::Won(next)) = rotated else { panic!("no other call rotates the session") };
    assert_eq!((next.generation, next.rotated_at), (2, Some(behind)));
    let keep_until = now().plus(HOUR);
    let first = End::new(ahead, EndReason::Revoked, keep_until);
    assert_eq!(revoke(&*store, &key, &first).await, 1);
    let second = End::new(behind, EndReason::Replay, keep_until);
    assert_eq!(revoke(&*store, &key, &second).await, 0);
    let ended = stored_record(&*store, &key).await.ended.expect("the session was revoked");
    assert_eq!((ended.at, ended.reason), (ahead, EndReason::Revoked));
}
