//! Logins beyond the limit: clauses of `create` with a limit.

use super::*;

/// Creates a session that a request has already used.
async fn begin_used<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    begin_with(store, user, |record| record.seen_at = Some(now())).await
}

/// If the limit refuses logins, a login beyond it leaves everything unchanged.
pub async fn a_full_limit_refuses_and_writes_nothing<S: SessionStore>(store: Arc<S>) {
    let (user, stranger) = (new_user(), new_user());
    let (one, two) = (begin_used(&*store, &user).await, begin_used(&*store, &user).await);
    let elsewhere = begin(&*store, &stranger).await;
    let (record, replacing) = (new_record(&user), [elsewhere.key]);
    let limit = SessionLimit::new(2, WhenFull::Refuse);
    let creation = create(&*store, &login_with_limit(&record, &replacing, limit)).await;
    assert_eq!(creation, Creation::Full);
    assert_eq!(load(&*store, &record.key).await, None);
    for untouched in [one, two, elsewhere] {
        assert_eq!(stored(&*store, &untouched.key).await, untouched);
    }
}

/// A login whose response was lost leaves a session that no client can use. Such a session ends to
/// make room, and a session that was used does not.
pub async fn a_session_that_was_never_used_keeps_nobody_out<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let used = begin_used(&*store, &user).await;
    let lost = begin(&*store, &user).await;
    let limit = SessionLimit::new(2, WhenFull::Refuse);
    let record = changed(&new_record(&user), |record| record.seen_at = Some(now()));
    let creation = create(&*store, &login_with_limit(&record, &[], limit)).await;
    let Creation::Created { ended, .. } = creation else { panic!("the lost one makes room") };
    assert_eq!(ended.iter().map(|record| record.key).collect::<Vec<_>>(), [lost.key]);
    assert_eq!(end_reason(&*store, &lost.key).await, Some(EndReason::Limit));
    assert_eq!(stored(&*store, &used.key).await, used);
    let creation = create(&*store, &login_with_limit(&new_record(&user), &[], limit)).await;
    assert_eq!(creation, Creation::Full, "both are used");
}

/// If a user has far more sessions than the limit, as when the limit is new, all except the newest
/// end at the same moment.
pub async fn far_too_many_sessions_end_at_once_except_the_newest<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let many = (MAX_AT_ONCE + 5) as u32;
    let mut keys = Vec::new();
    for age in (1..=many).rev() {
        let change = |record: &mut SessionRecord| record.created = now().minus(10 * age);
        keys.push(begin_with(&*store, &user, change).await.key);
    }
    let limit = SessionLimit::new(4, WhenFull::EndOldest);
    // Another session, of the same browser, is replaced and does not count.
    let replacing = [keys[0]];
    let record = new_record(&user);
    let creation = create(&*store, &login_with_limit(&record, &replacing, limit)).await;
    let Creation::Created { ended, .. } = creation else { panic!("the oldest make room") };
    assert!(ended.len() >= MAX_AT_ONCE, "{} are reported", ended.len());
    let mut live_keys = live(&*store, &user).await;
    live_keys.sort();
    let mut expected: Vec<_> = keys[keys.len() - 3..].to_vec();
    expected.push(record.key);
    expected.sort();
    assert_eq!(live_keys, expected);
    assert_eq!(end_reason(&*store, &keys[0]).await, Some(EndReason::Replaced));
    for key in &keys[1..keys.len() - 3] {
        assert_eq!(end_reason(&*store, key).await, Some(EndReason::Limit));
    }
}

/// If the limit ends the oldest sessions, it ends no more than necessary.
pub async fn a_full_limit_ends_the_oldest<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let mut records = Vec::new();
    for age in [30, 50, 10, 40] {
        let change = |record: &mut SessionRecord| record.created = now().minus(age);
        records.push(begin_with(&*store, &user, change).await);
    }
    let record = new_record(&user);
    let limit = SessionLimit::new(3, WhenFull::EndOldest);
    let creation = create(&*store, &login_with_limit(&record, &[], limit)).await;
    let Creation::Created { ended, .. } = creation else { panic!("the oldest make room") };
    assert!(ended.iter().all(|record| record.ended.is_none()), "returned as they were before");
    let mut ended: Vec<_> = ended.iter().map(|record| record.key).collect();
    ended.sort();
    let mut oldest = [records[1].key, records[3].key];
    oldest.sort();
    assert_eq!(ended, oldest, "the oldest by `created` end, and are returned");
    for key in oldest {
        let old = stored(&*store, &key).await;
        let ended = old.ended.expect("it made room");
        assert_eq!((ended.at, ended.reason), (record.created, EndReason::Limit));
        assert_eq!((ended.successor, old.expires), (None, record.created.plus(HOUR)));
    }
    assert_eq!(live(&*store, &user).await.len(), 3);
}

/// Sessions that have ended or expired, are another user's, or are being replaced don't count.
pub async fn a_limit_counts_what_is_live_and_not_replaced<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let ended = begin(&*store, &user).await;
    revoke(&*store, &ended.key, &end(EndReason::LoggedOut)).await;
    begin_with(&*store, &user, |record| record.expires = now()).await;
    begin(&*store, &new_user()).await;
    let replaced = begin(&*store, &user).await;
    let (record, replacing) = (new_record(&user), [replaced.key]);
    let limit = SessionLimit::new(1, WhenFull::Refuse);
    let creation = create(&*store, &login_with_limit(&record, &replacing, limit)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    // The replaced session now has a successor, which does not count either.
    let record = new_record(&user);
    let creation = create(&*store, &login_with_limit(&record, &replacing, limit)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    assert_eq!(live(&*store, &user).await, [record.key]);
}

/// Only live sessions count, however many of a user's newest sessions have expired and are not yet
/// removed.
pub async fn a_limit_looks_past_what_has_expired<S: SessionStore>(store: Arc<S>) {
    let (user, crowd) = (new_user(), new_user());
    let many = (MAX_AT_ONCE + 10) as u32;
    let (mut few, mut crowded) = (Vec::new(), Vec::new());
    for (user, keys, count) in [(&user, &mut few, 3), (&crowd, &mut crowded, many)] {
        for age in (1..=count).rev() {
            let used = |record: &mut SessionRecord| {
                record.created = now().minus(1_000 + 10 * age);
                record.seen_at = Some(now());
                record.expires = now().plus(HOUR + age);
            };
            keys.push(begin_with(&*store, user, used).await.key);
        }
        for age in 1..=many {
            let expired = |record: &mut SessionRecord| {
                (record.created, record.expires) = (now().minus(age), now());
            };
            begin_with(&*store, user, expired).await;
        }
    }
    let record = new_record(&user);
    let refusing = login_with_limit(&record, &[], SessionLimit::new(3, WhenFull::Refuse));
    assert_eq!(create(&*store, &refusing).await, Creation::Full);
    for (user, keys) in [(user, few), (crowd, crowded)] {
        let record = new_record(&user);
        let limit = SessionLimit::new(3, WhenFull::EndOldest);
        let creation = create(&*store, &login_with_limit(&record, &[], limit)).await;
        assert!(matches!(creation, Creation::Created { .. }), "the oldest make room");
        let mut live_keys = live(&*store, &user).await;
        live_keys.sort();
        let mut expected = keys[keys.len() - 2..].to_vec();
        expected.push(record.key);
        expected.sort();
        assert_eq!(live_keys, expected, "the newest of those that are live");
    }
}

/// A user never has more sessions than the limit, however many logins are concurrent.
pub async fn concurrent_logins_keep_to_the_limit<S: SessionStore + 'static>(store: Arc<S>) {
    for when_full in [WhenFull::Refuse, WhenFull::EndOldest] {
        let (user, limit) = (new_user(), SessionLimit::new(3, when_full));
        let tasks = compete(20, |_| {
            let (store, user) = (Arc::clone(&store), user.clone());
            async move {
                let record = new_record(&user);
                store.create(&login_with_limit(&record, &[], limit)).await.is_ok()
            }
        })
        .await
        .len();
        assert_eq!(live(&*store, &user).await.len(), tasks.min(3), "{when_full:?}");
    }
}
