//! Writing logins: clauses of `create` and `load`.

use std::sync::Arc;

use tower_keep_core::{
    Creation, EndReason, MAX_PER_CALL, SeenMark, SessionRecord, SessionStore, StoreErrorKind,
    UserId,
};

use super::calls::{
    HOUR, create, create_session, end_reason, live_keys, load, mark_seen, new_end, new_login,
    new_record, new_rotation, new_touch_with_remember, new_user_id, revoke, revoke_all, rotate,
    sorted, stored_record, touch, with_change,
};
use crate::contract::drops::{DROP_STEPS, poll_then_drop, wait_until_settled};
use crate::contract::tasks::run_concurrently;
use crate::contract::values::{now, unusual_texts};

/// Only `create` inserts records. Unknown keys and users are not an error.
pub async fn unknown_keys_are_not_an_error_and_insert_nothing<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let record = new_record(&user);
    assert_eq!(load(&*store, &record.key).await, None);
    assert_eq!(rotate(&*store, &new_rotation(&record, now())).await, None);
    let (key, at, expires) = (record.key, now(), now().plus(HOUR));
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    touch(&*store, &[new_touch_with_remember(key, at, expires, expires)]).await;
    assert_eq!(revoke(&*store, &record.key, &new_end(EndReason::Revoked)).await, 0);
    revoke_all(&*store, &user, Some(&record.key), &new_end(EndReason::Revoked)).await;
    create(&*store, &new_login(&new_record(&new_user_id()), &[record.key])).await;
    assert_eq!(load(&*store, &record.key).await, None, "only `create` inserts");
    assert_eq!(live_keys(&*store, &user).await, []);
    mark_seen(&*store, &[]).await;
    touch(&*store, &[]).await;
    assert_eq!(
        store
            .revoke(&[], &new_end(EndReason::Revoked))
            .await
            .expect("the call fails only if the store fails"),
        0
    );
}

/// Two sessions can't have the same key. If the key is taken, `create` returns a conflict and
/// writes nothing.
pub async fn create_with_a_taken_key_conflicts_and_writes_nothing<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let (record, other) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    let same_key =
        with_change(&new_record(&new_user_id()), |login_record| login_record.key = record.key);
    let replacing = [other.key];
    let error =
        store.create(&new_login(&same_key, &replacing)).await.expect_err("the key is taken");
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    assert_eq!(stored_record(&*store, &record.key).await, record);
    assert_eq!(
        stored_record(&*store, &other.key).await,
        other,
        "the session in `replacing` has not ended"
    );
}

/// If a user has an unusual id, a session of the user is either stored and listed, or `create`
/// returns an error and writes nothing.
pub async fn sessions_of_unusual_user_ids_are_stored_as_given_or_rejected<S: SessionStore>(
    store: Arc<S>,
) {
    for id in unusual_texts() {
        let record = new_record(&UserId::from(id.as_str()));
        let is_stored = store.create(&new_login(&record, &[])).await.is_ok();
        let expected = is_stored.then_some(record.clone());
        assert_eq!(load(&*store, &record.key).await, expected, "{id:?}");
        let listed = live_keys(&*store, &record.user).await;
        assert_eq!(listed, Vec::from_iter(is_stored.then_some(record.key)), "{id:?}");
        revoke_all(&*store, &record.user, None, &new_end(EndReason::Revoked)).await;
        assert_eq!(live_keys(&*store, &record.user).await, [], "{id:?}");
    }
}

/// A login ends the sessions that it replaces, even those of another user. It becomes their
/// successor.
pub async fn a_login_ends_the_sessions_that_it_replaces<S: SessionStore>(store: Arc<S>) {
    let (user, other_user) = (new_user_id(), new_user_id());
    let first = create_session(&*store, &user).await;
    let second = create_session(&*store, &other_user).await;
    let not_replaced = create_session(&*store, &other_user).await;
    let new = new_record(&user);
    let replacing = [first.key, second.key];
    let creation = create(&*store, &new_login(&new, &replacing)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    for replaced in [first, second] {
        let record = stored_record(&*store, &replaced.key).await;
        let ended = record.ended.expect("the session was replaced");
        assert_eq!((ended.at, ended.reason), (new.created, EndReason::Replaced));
        assert_eq!((ended.successor, ended.notified), (Some(new.key), false));
        assert_eq!(record.expires, new.created.plus(HOUR), "kept until `keep_ended_until`");
    }
    assert_eq!(live_keys(&*store, &user).await, [new.key]);
    assert_eq!(live_keys(&*store, &other_user).await, [not_replaced.key]);
}

/// If several logins replace the same session, each of them ends the session of the login before
/// it. The replaced session gets the latest login as its successor.
pub async fn a_login_that_replaces_a_replaced_session_ends_its_successor<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let first = create_session(&*store, &user).await;
    let replacing = [first.key];
    let (second, third, fourth) = (new_record(&user), new_record(&user), new_record(&user));
    for new in [&second, &third, &fourth] {
        create(&*store, &new_login(new, &replacing)).await;
    }
    assert_eq!(live_keys(&*store, &user).await, [fourth.key]);
    let ended = stored_record(&*store, &first.key).await.ended.expect("the session was replaced");
    assert_eq!(ended.at, second.created, "the first end is kept");
    assert_eq!(ended.successor, Some(fourth.key), "the latest login is the successor");
    for replaced in [second, third] {
        assert_eq!(end_reason(&*store, &replaced.key).await, Some(EndReason::Replaced));
    }
    // A session that ended for another reason has no successor, and a login does not replace it.
    revoke(&*store, &fourth.key, &new_end(EndReason::LoggedOut)).await;
    create(&*store, &new_login(&new_record(&user), &[fourth.key])).await;
    assert_eq!(end_reason(&*store, &fourth.key).await, Some(EndReason::LoggedOut));
}

/// A script may log in repeatedly and send the cookie of its first login each time. However often
/// the script logs in, only the session of its latest login is live.
pub async fn very_many_logins_that_replace_the_same_session_leave_one_live_session<
    S: SessionStore,
>(
    store: Arc<S>,
) {
    // This is more than MySQL's default `cte_max_recursion_depth` of 1,000.
    const LOGINS: u32 = 1_100;
    let user = new_user_id();
    let first = create_session(&*store, &user).await;
    let mut latest = first.key;
    for number in 0..LOGINS {
        let created = first.created.plus(number);
        let record = with_change(&new_record(&user), |record| record.created = created);
        create(&*store, &new_login(&record, &[first.key])).await;
        latest = record.key;
    }
    assert_eq!(live_keys(&*store, &user).await, [latest]);
    let ended = stored_record(&*store, &first.key).await;
    assert_eq!(
        ended.expires,
        first.created.plus(LOGINS - 1 + HOUR),
        "each login extends the time for which the replaced record is kept"
    );
}

/// If many logins replace the same session concurrently, exactly one of their sessions remains
/// live.
pub async fn concurrent_logins_that_replace_the_same_session_leave_one_live_session<
    S: SessionStore + 'static,
>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let first = create_session(&*store, &user).await;
    let successes = run_concurrently(10, |_| {
        let (store, user, replacing) = (Arc::clone(&store), user.clone(), [first.key]);
        async move {
            let record = new_record(&user);
            store.create(&new_login(&record, &replacing)).await.is_ok()
        }
    })
    .await;
    assert!(successes.contains(&true), "at least one login is written");
    assert_eq!(live_keys(&*store, &user).await.len(), 1);
}

/// If a session ended because of a replay, the next login of the user returns its record. Later
/// logins of the user, and logins of other users, don't.
pub async fn a_user_is_notified_of_a_replay_once<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let (replayed, revoked) =
        (create_session(&*store, &user).await, create_session(&*store, &user).await);
    revoke(&*store, &replayed.key, &new_end(EndReason::Replay)).await;
    revoke(&*store, &revoked.key, &new_end(EndReason::Revoked)).await;
    let replayed_keys = |creation: Creation| match creation {
        Creation::Created { replays, .. } => {
            let is_not_notified = |record: &Arc<SessionRecord>| {
                record.ended.as_ref().is_some_and(|ended| !ended.notified)
            };
            assert!(
                replays.iter().all(is_not_notified),
                "the records are returned as they were before the call"
            );
            replays.iter().map(|record| record.key).collect::<Vec<_>>()
        }
        Creation::Full => panic!("there is no limit"),
    };
    let other_user = new_record(&new_user_id());
    assert_eq!(replayed_keys(create(&*store, &new_login(&other_user, &[])).await), []);
    let (first, second) = (new_record(&user), new_record(&user));
    assert_eq!(replayed_keys(create(&*store, &new_login(&first, &[])).await), [replayed.key]);
    let record = stored_record(&*store, &replayed.key).await;
    assert!(record.ended.is_some_and(|ended| ended.notified && ended.reason == EndReason::Replay));
    assert_eq!(
        replayed_keys(create(&*store, &new_login(&second, &[])).await),
        [],
        "the user was already notified"
    );
}

/// A login of a program can't notify its user of a replay. So it returns no replay, and the next
/// login of a browser returns it.
pub async fn a_login_that_notifies_nobody_leaves_the_replays_to_the_next_login<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let replayed = create_session(&*store, &user).await;
    revoke(&*store, &replayed.key, &new_end(EndReason::Replay)).await;
    for (notifies_user, expected) in [(false, 0), (true, 1), (true, 0)] {
        let record = new_record(&user);
        let mut login = new_login(&record, &[]);
        login.notifies_user = notifies_user;
        let Creation::Created { replays, .. } = create(&*store, &login).await else {
            panic!("there is no limit")
        };
        assert_eq!(replays.len(), expected, "notifies the user: {notifies_user}");
    }
}

/// A login returns at most [`MAX_PER_CALL`] replays. The next logins return the rest.
pub async fn many_replays_are_returned_in_batches<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let mut keys = Vec::new();
    for _ in 0..MAX_PER_CALL + 10 {
        keys.push(create_session(&*store, &user).await.key);
    }
    for chunk in keys.chunks(50) {
        store
            .revoke(chunk, &new_end(EndReason::Replay))
            .await
            .expect("the call fails only if the store fails");
    }
    let mut notified = Vec::new();
    for expected in [MAX_PER_CALL, 10, 0] {
        let creation = create(&*store, &new_login(&new_record(&user), &[])).await;
        let Creation::Created { replays, .. } = creation else { panic!("there is no limit") };
        assert_eq!(replays.len(), expected);
        notified.extend(replays.iter().map(|record| record.key));
    }
    assert_eq!(sorted(notified), sorted(keys), "each replay is returned once");
}

/// If the future of `create` is dropped, the store has either inserted the record and ended the
/// replaced session, or done neither.
pub async fn dropping_the_future_of_create_leaves_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..DROP_STEPS {
        let user = new_user_id();
        let old = create_session(&*store, &user).await;
        let (new, replacing) = (new_record(&user), [old.key]);
        poll_then_drop(step, store.create(&new_login(&new, &replacing))).await;
        let read = || async {
            let keys = live_keys(&*store, &user).await;
            let ended = stored_record(&*store, &old.key).await.ended.is_some();
            (keys, load(&*store, &new.key).await.is_some(), ended)
        };
        let found = wait_until_settled(read).await;
        let (all, nothing) = ((vec![new.key], true, true), (vec![old.key], false, false));
        assert!(found == all || found == nothing, "{found:?}");
    }
}
