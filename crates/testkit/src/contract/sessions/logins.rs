//! What a login writes: clauses of `create` and `load`.

use super::*;

/// Only `create` inserts, and unknown keys and users are not an error.
pub async fn unknown_keys_are_nothing_and_insert_nothing<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = new_record(&user);
    assert_eq!(load(&*store, &record.key).await, None);
    assert_eq!(rotate(&*store, &rotation(&record, now())).await, None);
    let (key, at, expires) = (record.key, now(), now().plus(HOUR));
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    touch(&*store, &[remembered_touch(key, at, expires, expires)]).await;
    assert_eq!(revoke(&*store, &record.key, &end(EndReason::Revoked)).await, 0);
    revoke_all(&*store, &user, Some(&record.key), &end(EndReason::Revoked)).await;
    create(&*store, &login(&new_record(&new_user()), &[record.key])).await;
    assert_eq!(load(&*store, &record.key).await, None, "only `create` inserts");
    assert_eq!(live(&*store, &user).await, []);
    mark_seen(&*store, &[]).await;
    touch(&*store, &[]).await;
    assert_eq!(store.revoke(&[], &end(EndReason::Revoked)).await.expect("no error"), 0);
}

/// Two sessions can't have the same key: the second login is rejected and nothing of it is written.
pub async fn a_taken_key_conflicts_and_nothing_is_written<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let same_key = changed(&new_record(&new_user()), |new| new.key = record.key);
    let replacing = [other.key];
    let error = store.create(&login(&same_key, &replacing)).await.expect_err("the key is taken");
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    assert_eq!(stored(&*store, &record.key).await, record);
    assert_eq!(stored(&*store, &other.key).await, other, "nothing was replaced");
}

/// A session of a user with an odd id is either stored and listed, or rejected and not written.
pub async fn odd_users_are_kept_or_refused<S: SessionStore>(store: Arc<S>) {
    for odd in odd_texts() {
        let record = new_record(&UserId::from(odd.as_str()));
        let is_kept = store.create(&login(&record, &[])).await.is_ok();
        let kept = is_kept.then_some(record.clone());
        assert_eq!(load(&*store, &record.key).await, kept, "{odd:?}");
        let listed = live(&*store, &record.user).await;
        assert_eq!(listed, Vec::from_iter(is_kept.then_some(record.key)), "{odd:?}");
        revoke_all(&*store, &record.user, None, &end(EndReason::Revoked)).await;
        assert_eq!(live(&*store, &record.user).await, [], "{odd:?}");
    }
}

/// A login ends the sessions that it replaces, even another user's, and becomes their successor.
pub async fn a_new_login_ends_those_that_it_replaces<S: SessionStore>(store: Arc<S>) {
    let (user, other) = (new_user(), new_user());
    let (one, two) = (begin(&*store, &user).await, begin(&*store, &other).await);
    let bystander = begin(&*store, &other).await;
    let new = new_record(&user);
    let replacing = [one.key, two.key];
    let creation = create(&*store, &login(&new, &replacing)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    for replaced in [one, two] {
        let record = stored(&*store, &replaced.key).await;
        let ended = record.ended.expect("it was replaced");
        assert_eq!((ended.at, ended.reason), (new.created, EndReason::Replaced));
        assert_eq!((ended.successor, ended.notified), (Some(new.key), false));
        assert_eq!(record.expires, new.created.plus(HOUR), "kept as long as requested");
    }
    assert_eq!(live(&*store, &user).await, [new.key]);
    assert_eq!(live(&*store, &other).await, [bystander.key]);
}

/// If two logins replace one session, and the second does not know of the first, the second
/// remains.
pub async fn of_two_logins_in_one_session_one_remains<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let first = begin(&*store, &user).await;
    let replacing = [first.key];
    let (second, third, fourth) = (new_record(&user), new_record(&user), new_record(&user));
    for new in [&second, &third, &fourth] {
        create(&*store, &login(new, &replacing)).await;
    }
    assert_eq!(live(&*store, &user).await, [fourth.key]);
    let ended = stored(&*store, &first.key).await.ended.expect("replaced");
    assert_eq!(ended.at, second.created, "of several ends the first counts");
    assert_eq!(ended.successor, Some(fourth.key), "and the last login is its successor");
    for replaced in [second, third] {
        assert_eq!(end_reason(&*store, &replaced.key).await, Some(EndReason::Replaced));
    }
    // A session that was ended for another reason has no successor to follow.
    revoke(&*store, &fourth.key, &end(EndReason::LoggedOut)).await;
    create(&*store, &login(&new_record(&user), &[fourth.key])).await;
    assert_eq!(end_reason(&*store, &fourth.key).await, Some(EndReason::LoggedOut));
}

/// A script that logs in repeatedly, and each time sends the cookie that it got first, has only one
/// session.
pub async fn however_many_logins_send_one_old_cookie_one_session_remains<S: SessionStore>(
    store: Arc<S>,
) {
    // This is more than the number of references that databases follow.
    const LOGINS: u32 = 1_100;
    let user = new_user();
    let first = begin(&*store, &user).await;
    let mut last = first.key;
    for number in 0..LOGINS {
        let created = first.created.plus(number);
        let record = changed(&new_record(&user), |record| record.created = created);
        create(&*store, &login(&record, &[first.key])).await;
        last = record.key;
    }
    assert_eq!(live(&*store, &user).await, [last]);
    let ended = stored(&*store, &first.key).await;
    assert_eq!(
        ended.expires,
        first.created.plus(LOGINS - 1 + HOUR),
        "it is kept as long as logins send it"
    );
}

/// If many logins replace one session concurrently, one remains.
pub async fn of_many_logins_in_one_session_one_remains<S: SessionStore + 'static>(store: Arc<S>) {
    let user = new_user();
    let first = begin(&*store, &user).await;
    let created = compete(10, |_| {
        let (store, user, replacing) = (Arc::clone(&store), user.clone(), [first.key]);
        async move {
            let record = new_record(&user);
            store.create(&login(&record, &replacing)).await.is_ok()
        }
    })
    .await;
    assert!(created.iter().any(|created| *created), "some login is written");
    assert_eq!(live(&*store, &user).await.len(), 1);
}

/// A replay is returned by the user's next login, but by no later login and no other user's login.
pub async fn a_user_is_notified_of_a_replay_once<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (replayed, ended) = (begin(&*store, &user).await, begin(&*store, &user).await);
    revoke(&*store, &replayed.key, &end(EndReason::Replay)).await;
    revoke(&*store, &ended.key, &end(EndReason::Revoked)).await;
    let notified = |creation: Creation| match creation {
        Creation::Created { replays, .. } => {
            let must_notify = |record: &Arc<SessionRecord>| {
                record.ended.as_ref().is_some_and(|ended| !ended.notified)
            };
            assert!(replays.iter().all(must_notify), "returned as they were before");
            replays.iter().map(|record| record.key).collect::<Vec<_>>()
        }
        Creation::Full => panic!("there is no limit"),
    };
    let stranger = new_record(&new_user());
    assert_eq!(notified(create(&*store, &login(&stranger, &[])).await), []);
    let (first, second) = (new_record(&user), new_record(&user));
    assert_eq!(notified(create(&*store, &login(&first, &[])).await), [replayed.key]);
    let record = stored(&*store, &replayed.key).await;
    assert!(record.ended.is_some_and(|ended| ended.notified && ended.reason == EndReason::Replay));
    assert_eq!(notified(create(&*store, &login(&second, &[])).await), [], "notified once");
}

/// A login returns a bounded number of replays, however many the user has to be notified of.
pub async fn many_replays_are_returned_in_batches<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let mut keys = Vec::new();
    for _ in 0..MAX_AT_ONCE + 10 {
        keys.push(begin(&*store, &user).await.key);
    }
    for some in keys.chunks(50) {
        store.revoke(some, &end(EndReason::Replay)).await.expect("no error");
    }
    let mut notified = Vec::new();
    for expected in [MAX_AT_ONCE, 10, 0] {
        let creation = create(&*store, &login(&new_record(&user), &[])).await;
        let Creation::Created { replays, .. } = creation else { panic!("there is no limit") };
        assert_eq!(replays.len(), expected);
        notified.extend(replays.iter().map(|record| record.key));
    }
    notified.sort();
    keys.sort();
    assert_eq!(notified, keys, "each once");
}

/// A dropped login has written its record and ended the old session, or neither.
pub async fn an_interrupted_login_leaves_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..STEPS {
        let user = new_user();
        let old = begin(&*store, &user).await;
        let (new, replacing) = (new_record(&user), [old.key]);
        interrupted(step, store.create(&login(&new, &replacing))).await;
        let read = || async {
            let mut keys = live(&*store, &user).await;
            keys.sort();
            let ended = stored(&*store, &old.key).await.ended.is_some();
            (keys, load(&*store, &new.key).await.is_some(), ended)
        };
        let found = settled(read).await;
        let (done, undone) = ((vec![new.key], true, true), (vec![old.key], false, false));
        assert!(found == done || found == undone, "{found:?}");
    }
}
