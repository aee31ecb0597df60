//! Recording the use of sessions: clauses of `mark_seen` and `touch`.

use super::*;

/// A generation is marked as seen once, with the first time. Marks of other generations have no
/// effect.
pub async fn a_generation_is_marked_as_seen_once<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
    rotate(&*store, &rotation(&record, now())).await;
    for generation in [0, 2] {
        mark_seen(&*store, &[SeenMark::new(record.key, generation, now())]).await;
        assert_eq!(stored(&*store, &record.key).await.seen_at, None, "of another generation");
    }
    let (first, later) = (now().plus(5), now().plus(9));
    let marks = [(record.key, 1), (other.key, 0), (new_key(), 0)];
    let marks = marks.map(|(key, generation)| SeenMark::new(key, generation, first));
    mark_seen(&*store, &marks).await;
    mark_seen(&*store, &[SeenMark::new(record.key, 1, later)]).await;
    assert_eq!(stored(&*store, &record.key).await.seen_at, Some(first));
    let expected = changed(&other, |record| record.seen_at = Some(first));
    assert_eq!(stored(&*store, &other.key).await, expected, "and nothing else changes");
}

/// A touch only moves the last use and the expiry forward, and changes nothing else.
pub async fn touch_only_moves_forward<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let (at, expires) = (now().plus(100), now().plus(99 * HOUR));
    let both = [record.key, other.key];
    let touches = both.map(|key| Touch::new(key, at, expires));
    touch(&*store, &touches).await;
    for record in [&record, &other] {
        let expected = changed(record, |record| {
            (record.last_seen, record.expires) = (at, expires);
        });
        assert_eq!(stored(&*store, &record.key).await, expected);
    }
    let (at, expires) = (now().minus(100), now().plus(HOUR));
    touch(&*store, &[Touch::new(record.key, at, expires)]).await;
    assert_eq!(stored(&*store, &record.key).await.last_seen, touches[0].at);
    assert_eq!(stored(&*store, &record.key).await.expires, touches[0].expires);
}

/// A touch extends `remember.expires` only if the login is remembered.
pub async fn touch_extends_remembering_only_of_the_remembered<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let remembered = begin(&*store, &user).await;
    let plain = begin_with(&*store, &user, |record| record.remember = None).await;
    for (hours, expected) in [(72, 72), (48, 72)] {
        let (at, expires) = (now(), now().plus(99 * HOUR));
        let until = remembered.created.plus(hours * HOUR);
        let both = [remembered.key, plain.key];
        touch(&*store, &both.map(|key| remembered_touch(key, at, until, expires))).await;
        let after = stored(&*store, &remembered.key).await;
        let expected = remembered.created.plus(expected * HOUR);
        assert_eq!(after.remember, Some(RememberPeriod::new(expected, 24 * HOUR)));
        assert_eq!(stored(&*store, &plain.key).await.remember, None);
    }
}

/// Late marks and touches don't change a session that has ended.
pub async fn ended_sessions_are_neither_touched_nor_marked<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    revoke(&*store, &record.key, &end(EndReason::LoggedOut)).await;
    let before = stored(&*store, &record.key).await;
    let (key, at, expires) = (record.key, now().plus(50), now().plus(99 * HOUR));
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    touch(&*store, &[remembered_touch(key, at, expires, expires)]).await;
    assert_eq!(stored(&*store, &key).await, before);
}

/// Two servers whose clocks differ by minutes use one session.
pub async fn a_server_whose_clock_is_behind_sets_nothing_back<S: SessionStore>(store: Arc<S>) {
    let ahead = now();
    let behind = ahead.minus(300);
    let record = begin(&*store, &new_user()).await;
    let key = record.key;
    rotate(&*store, &rotation(&record, ahead)).await;
    for at in [ahead, behind] {
        mark_seen(&*store, &[SeenMark::new(key, 1, at)]).await;
    }
    touch(&*store, &[remembered_touch(key, behind, behind, behind.plus(HOUR))]).await;
    let after = stored(&*store, &key).await;
    assert_eq!((after.seen_at, after.last_seen), (Some(ahead), ahead));
    assert_eq!(after.expires, record.expires);
    assert_eq!(after.remember, record.remember);
    // The compare-and-swap compares generations, not times.
    let rotated = rotate(&*store, &rotation(&after, behind)).await;
    let Some(Rotated::Won(next)) = rotated else { panic!("nobody else rotates it") };
    assert_eq!((next.generation, next.rotated_at), (2, Some(behind)));
    let keep_until = now().plus(HOUR);
    let first = End::new(ahead, EndReason::Revoked, keep_until);
    assert_eq!(revoke(&*store, &key, &first).await, 1);
    let second = End::new(behind, EndReason::Replay, keep_until);
    assert_eq!(revoke(&*store, &key, &second).await, 0);
    let ended = stored(&*store, &key).await.ended.expect("it was ended");
    assert_eq!((ended.at, ended.reason), (ahead, EndReason::Revoked));
}
