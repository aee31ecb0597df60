//! Ending sessions: clauses of `revoke` and `revoke_all`.

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, Ended, RememberPeriod, Rotated, SeenMark, SessionLimit,
    SessionRecord, SessionStore, Timestamp, Touch, WhenFull,
};

use super::calls::{
    HOUR, create, create_session, create_session_with, end_reason, live_keys, load, mark_seen,
    new_end, new_login, new_login_with_limit, new_record, new_rotation, new_touch_with_remember,
    new_user_id, purge_all, revoke, revoke_all, rotate, sorted, stored_record, touch, with_change,
};
use crate::contract::drops::{DROP_STEPS, poll_then_drop, wait_until_settled};
use crate::contract::values::now;

/// Returns the record of a live session as it is stored after this end. Only `ended` and `expires`
/// change.
fn as_ended(record: &SessionRecord, end: &End) -> SessionRecord {
    with_change(record, |record| {
        (record.ended, record.expires) = (Some(Ended::new(end.at, end.reason)), end.keep_until);
    })
}

/// If a session is ended several times, the record keeps the time, the reason and the successor of
/// the first end.
pub async fn only_the_first_end_of_a_session_is_kept<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let record = create_session(&*store, &user).await;
    let first = new_end(EndReason::LoggedOut);
    assert_eq!(revoke(&*store, &record.key, &first).await, 1, "live before the call");
    let before = stored_record(&*store, &record.key).await;
    let later = End::new(now().plus(30), EndReason::Replay, Timestamp::MAX);
    assert_eq!(revoke(&*store, &record.key, &later).await, 0, "no longer live");
    revoke_all(&*store, &user, None, &later).await;
    create(&*store, &new_login(&new_record(&user), &[record.key])).await;
    assert_eq!(stored_record(&*store, &record.key).await, before);
}

/// A newer node may have stored an end reason that this version does not know. Calls of this
/// version keep the word of that reason.
pub async fn every_call_keeps_an_unknown_end_reason<S: SessionStore>(store: Arc<S>) {
    for word in ["of_a_newer_node", "_sixteen_letters", "x"] {
        let user = new_user_id();
        let (ended_alone, ended_with_all) =
            (create_session(&*store, &user).await, create_session(&*store, &user).await);
        let unknown = new_end(word.parse().expect("this word is a valid end reason"));
        assert_eq!(revoke(&*store, &ended_alone.key, &unknown).await, 1, "live before the call");
        revoke_all(&*store, &user, None, &unknown).await;
        for record in [&ended_alone, &ended_with_all] {
            let before = stored_record(&*store, &record.key).await;
            let reason = before.ended.as_ref().map(|ended| ended.reason.to_string());
            assert_eq!(reason.as_deref(), Some(word));
            assert_eq!(revoke(&*store, &record.key, &new_end(EndReason::Replay)).await, 0);
            for new in [new_record(&user), new_record(&user)] {
                create(&*store, &new_login(&new, &[record.key])).await;
            }
            let lost = rotate(&*store, &new_rotation(record, now())).await;
            assert_eq!(lost, Some(Rotated::Lost(Arc::new(before.clone()))));
            assert_eq!(stored_record(&*store, &record.key).await, before);
        }
        // For `ended_with_all`, the store may return the end of the latest `revoke_all`, so only
        // `ended_alone` is checked.
        let before = stored_record(&*store, &ended_alone.key).await;
        revoke_all(&*store, &user, None, &new_end(EndReason::Revoked)).await;
        assert_eq!(stored_record(&*store, &ended_alone.key).await, before);
    }
}

/// `revoke` stores when and why the session ended, and sets `expires` to `keep_until`, whether that
/// is earlier or later than the stored value.
pub async fn a_revoked_session_is_kept_until_keep_until<S: SessionStore>(store: Arc<S>) {
    for (reason, hours) in [(EndReason::LoggedOut, 1), (EndReason::Replay, 99)] {
        let record = create_session(&*store, &new_user_id()).await;
        let end = End::new(now(), reason, record.created.plus(hours * HOUR));
        assert_eq!(revoke(&*store, &record.key, &end).await, 1);
        assert_eq!(stored_record(&*store, &record.key).await, as_ended(&record, &end));
    }
}

/// An expired session can be ended, because it may still be live by the clock of another server.
pub async fn an_expired_session_can_be_ended<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    for with_revoke_all in [false, true] {
        let record =
            create_session_with(&*store, &user, |record| record.expires = now().plus(2)).await;
        let end = End::new(now().plus(10), EndReason::Revoked, now().plus(HOUR));
        if with_revoke_all {
            revoke_all(&*store, &user, None, &end).await;
        } else {
            let ended = revoke(&*store, &record.key, &end).await;
            assert_eq!(ended, 0, "the session was no longer live");
        }
        assert_eq!(end_reason(&*store, &record.key).await, Some(EndReason::Revoked));
    }
}

/// `revoke_all` ends all of a user's sessions except the given session, and no session of another
/// user.
pub async fn revoke_all_ends_all_sessions_of_a_user_except_the_given_session<S: SessionStore>(
    store: Arc<S>,
) {
    let (user, other_user) = (new_user_id(), new_user_id());
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(create_session(&*store, &user).await.key);
    }
    let other = create_session(&*store, &other_user).await;
    let end = new_end(EndReason::Revoked);
    revoke_all(&*store, &user, Some(&keys[2]), &end).await;
    assert_eq!(live_keys(&*store, &user).await, [keys[2]]);
    assert_eq!(end_reason(&*store, &keys[0]).await, Some(EndReason::Revoked));
    // If `except` is a session of another user, all of the user's sessions end.
    revoke_all(&*store, &user, Some(&other.key), &end).await;
    assert_eq!(live_keys(&*store, &user).await, []);
    assert_eq!(stored_record(&*store, &other.key).await, other);
}

/// Every call treats a session that `revoke_all` ended as ended. The record holds when and why the
/// session ended.
pub async fn every_call_treats_a_session_that_revoke_all_ended_as_ended<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let (record, except) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    let logged_out = create_session(&*store, &user).await;
    revoke(&*store, &logged_out.key, &new_end(EndReason::LoggedOut)).await;
    let logged_out = stored_record(&*store, &logged_out.key).await;
    let end = End::new(now(), EndReason::Revoked, now().plus(2 * HOUR));
    revoke_all(&*store, &user, Some(&except.key), &end).await;
    let after = stored_record(&*store, &record.key).await;
    assert_eq!(after, as_ended(&record, &end));
    let (key, at, expires) = (record.key, now().plus(5), now().plus(99 * HOUR));
    touch(&*store, &[new_touch_with_remember(key, at, expires, expires)]).await;
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    let lost = rotate(&*store, &new_rotation(&record, at)).await;
    assert_eq!(lost, Some(Rotated::Lost(Arc::new(after.clone()))));
    assert_eq!(revoke(&*store, &key, &new_end(EndReason::Replay)).await, 0);
    let new = new_record(&user);
    let creation = create(&*store, &new_login(&new, &[key])).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    assert_eq!(stored_record(&*store, &key).await, after);
    assert_eq!(stored_record(&*store, &logged_out.key).await, logged_out, "the first end is kept");
    assert_eq!(stored_record(&*store, &except.key).await, except);
    assert_eq!(
        live_keys(&*store, &user).await,
        sorted([except.key, new.key]),
        "the session of a later login is live"
    );
    // A limit does not count a session that `revoke_all` ended.
    let limit = SessionLimit::new(3, WhenFull::Refuse);
    let creation = create(&*store, &new_login_with_limit(&new_record(&user), &[], limit)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
}

/// A store may keep data about a user, such as the user's epoch: the number that `revoke_all`
/// raises. A purge must not remove this data while the user has a live session, even if a touch has
/// extended the session beyond the expiry that the login wrote.
pub async fn revoke_all_ends_a_session_whose_expiry_a_touch_extended<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let ago = |hours: u32| now().minus(hours * HOUR);
    let expired_unless_touched = |record: &mut SessionRecord| {
        (record.created, record.expires) = (ago(10), ago(5));
        (record.session_started, record.last_seen) = (record.created, record.created);
    };
    let key = create_session_with(&*store, &user, expired_unless_touched).await.key;
    touch(&*store, &[Touch::new(key, ago(6), now().plus(48 * HOUR))]).await;
    purge_all(&*store, ago(2)).await;
    assert_eq!(live_keys(&*store, &user).await, [key]);
    revoke_all(&*store, &user, None, &new_end(EndReason::Revoked)).await;
    assert_eq!(live_keys(&*store, &user).await, []);
    assert_eq!(end_reason(&*store, &key).await, Some(EndReason::Revoked));
}

/// A session that a `revoke_all` kept as `except` ends with the next `revoke_all`. A session that
/// has ended stays ended, even if a later `revoke_all` names it as `except`.
pub async fn a_session_kept_by_one_revoke_all_ends_with_the_next<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let (first, second) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    let end = new_end(EndReason::Revoked);
    revoke_all(&*store, &user, Some(&first.key), &end).await;
    let third = create_session(&*store, &user).await;
    // The first session was not ended, so it can be rotated.
    assert!(matches!(rotate(&*store, &new_rotation(&first, now())).await, Some(Rotated::Won(_))));
    revoke_all(&*store, &user, Some(&third.key), &end).await;
    assert_eq!(live_keys(&*store, &user).await, [third.key]);
    for ended in [&first, &second] {
        revoke_all(&*store, &user, Some(&ended.key), &end).await;
        assert_eq!(
            live_keys(&*store, &user).await,
            [],
            "`except` does not bring back an ended session"
        );
        assert_eq!(end_reason(&*store, &ended.key).await, Some(EndReason::Revoked));
    }
    assert_eq!(end_reason(&*store, &third.key).await, Some(EndReason::Revoked));
    let fourth = create_session(&*store, &user).await;
    assert_eq!(live_keys(&*store, &user).await, [fourth.key]);
}

/// If the future of `revoke` or `revoke_all` is dropped, either all of the sessions have ended, or
/// none has. If the future of `touch` or `mark_seen` is dropped, the store has written either the
/// whole change of a session or nothing.
pub async fn dropping_the_future_of_revoke_touch_or_mark_seen_leaves_all_or_nothing<
    S: SessionStore,
>(
    store: Arc<S>,
) {
    for step in 0..DROP_STEPS {
        let user = new_user_id();
        let first = create_session(&*store, &user).await;
        let second = create_session(&*store, &user).await;
        let (keys, end) = ([first.key, second.key], new_end(EndReason::Revoked));
        match step % 2 {
            0 => poll_then_drop(step, store.revoke(&keys, &end)).await,
            _ => poll_then_drop(step, store.revoke_all(&user, None, &end)).await,
        }
        let read = || async { (load(&*store, &first.key).await, load(&*store, &second.key).await) };
        let (Some(first_after), Some(second_after)) = wait_until_settled(read).await else {
            panic!("both records are kept")
        };
        assert_eq!(
            first_after.ended.is_some(),
            second_after.ended.is_some(),
            "both have ended, or neither"
        );
        for (after, before) in [(first_after, first), (second_after, second)] {
            let expected = if after.ended.is_some() { as_ended(&before, &end) } else { before };
            assert_eq!(after, expected);
        }
        let record = create_session(&*store, &user).await;
        let (at, remember_expires, expires) =
            (now().plus(9), now().plus(72 * HOUR), now().plus(99 * HOUR));
        let touches = [new_touch_with_remember(record.key, at, remember_expires, expires)];
        poll_then_drop(step, store.touch(&touches)).await;
        let found = wait_until_settled(|| stored_record(&*store, &record.key)).await;
        let after = with_change(&record, |record| {
            (record.last_seen, record.expires) = (at, expires);
            record.remember = Some(RememberPeriod::new(remember_expires, 24 * HOUR));
        });
        assert!(found == record || found == after, "{found:?}");
        // The store may still be writing the touch, so the mark is for another session.
        let record = create_session(&*store, &user).await;
        let marks = [SeenMark::new(record.key, 0, at)];
        poll_then_drop(step, store.mark_seen(&marks)).await;
        let marked = wait_until_settled(|| stored_record(&*store, &record.key)).await;
        let after = with_change(&record, |record| record.seen_at = Some(at));
        assert!(marked == record || marked == after, "{marked:?}");
    }
}
