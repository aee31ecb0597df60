//! Limits on a user's sessions: clauses of `create` with a limit.

use std::sync::Arc;

use tower_keep_core::{
    Creation, EndReason, MAX_PER_CALL, SessionLimit, SessionRecord, SessionStore, UserId, WhenFull,
};

use super::calls::{
    HOUR, create, create_session, create_session_with, end_reason, live_keys, load, new_end,
    new_login_with_limit, new_record, new_user_id, revoke, sorted, stored_record, with_change,
};
use crate::contract::tasks::run_concurrently;
use crate::contract::values::now;

/// Creates a session that a request has already used, so it does not end to make room.
async fn create_used_session<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    create_session_with(store, user, |record| record.seen_at = Some(now())).await
}

/// If the limit refuses logins, and all of the user's sessions are used, a login beyond the limit
/// returns `Full` and writes nothing.
pub async fn create_beyond_a_limit_that_refuses_returns_full_and_writes_nothing<S: SessionStore>(
    store: Arc<S>,
) {
    let (user, other_user) = (new_user_id(), new_user_id());
    let (first, second) =
        (create_used_session(&*store, &user).await, create_used_session(&*store, &user).await);
    let to_replace = create_session(&*store, &other_user).await;
    let (record, replacing) = (new_record(&user), [to_replace.key]);
    let limit = SessionLimit::new(2, WhenFull::Refuse);
    let creation = create(&*store, &new_login_with_limit(&record, &replacing, limit)).await;
    assert_eq!(creation, Creation::Full);
    assert_eq!(load(&*store, &record.key).await, None);
    for before in [first, second, to_replace] {
        assert_eq!(stored_record(&*store, &before.key).await, before);
    }
}

/// If the response to a login is lost, no client can use the session of that login. An unused
/// session ends to make room, even if the limit refuses logins. A used session does not end.
pub async fn an_unused_session_ends_to_make_room_for_a_login<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let used = create_used_session(&*store, &user).await;
    let unused = create_session(&*store, &user).await;
    let limit = SessionLimit::new(2, WhenFull::Refuse);
    let record = with_change(&new_record(&user), |record| record.seen_at = Some(now()));
    let creation = create(&*store, &new_login_with_limit(&record, &[], limit)).await;
    let Creation::Created { ended, .. } = creation else { panic!("the unused session makes room") };
    assert_eq!(ended.iter().map(|record| record.key).collect::<Vec<_>>(), [unused.key]);
    assert_eq!(end_reason(&*store, &unused.key).await, Some(EndReason::Limit));
    assert_eq!(stored_record(&*store, &used.key).await, used);
    let creation = create(&*store, &new_login_with_limit(&new_record(&user), &[], limit)).await;
    assert_eq!(creation, Creation::Full, "both sessions are used");
}

/// If a limit is introduced later, a user may already have far more sessions. The next login ends
/// all of the user's sessions except the newest, and returns at least [`MAX_PER_CALL`] of the ended
/// sessions.
pub async fn create_far_beyond_the_limit_ends_all_sessions_except_the_newest<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let many = (MAX_PER_CALL + 5) as u32;
    let mut keys = Vec::new();
    for age in (1..=many).rev() {
        let change = |record: &mut SessionRecord| record.created = now().minus(10 * age);
        keys.push(create_session_with(&*store, &user, change).await.key);
    }
    let limit = SessionLimit::new(4, WhenFull::EndOldest);
    // The oldest session is replaced, so it does not count.
    let replacing = [keys[0]];
    let record = new_record(&user);
    let creation = create(&*store, &new_login_with_limit(&record, &replacing, limit)).await;
    let Creation::Created { ended, .. } = creation else { panic!("the oldest sessions make room") };
    assert!(ended.len() >= MAX_PER_CALL, "only {} ended sessions are returned", ended.len());
    let newest = keys[keys.len() - 3..].iter().copied();
    assert_eq!(live_keys(&*store, &user).await, sorted(newest.chain([record.key])));
    assert_eq!(end_reason(&*store, &keys[0]).await, Some(EndReason::Replaced));
    for key in &keys[1..keys.len() - 3] {
        assert_eq!(end_reason(&*store, key).await, Some(EndReason::Limit));
    }
}

/// If the limit ends the oldest sessions, a login ends only as many as necessary.
pub async fn create_beyond_the_limit_ends_only_the_oldest_sessions<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let mut records = Vec::new();
    for age in [30, 50, 10, 40] {
        let change = |record: &mut SessionRecord| record.created = now().minus(age);
        records.push(create_session_with(&*store, &user, change).await);
    }
    let record = new_record(&user);
    let limit = SessionLimit::new(3, WhenFull::EndOldest);
    let creation = create(&*store, &new_login_with_limit(&record, &[], limit)).await;
    let Creation::Created { ended, .. } = creation else { panic!("the oldest sessions make room") };
    assert!(
        ended.iter().all(|record| record.ended.is_none()),
        "the records are returned as they were before the call"
    );
    let ended = sorted(ended.iter().map(|record| record.key));
    let oldest = [records[1].key, records[3].key];
    assert_eq!(ended, sorted(oldest), "the oldest sessions by `created` end and are returned");
    for key in oldest {
        let after = stored_record(&*store, &key).await;
        let ended = after.ended.expect("the session has ended");
        assert_eq!((ended.at, ended.reason), (record.created, EndReason::Limit));
        assert_eq!((ended.successor, after.expires), (None, record.created.plus(HOUR)));
    }
    assert_eq!(live_keys(&*store, &user).await.len(), 3);
}

/// A limit does not count sessions that have ended, have expired, belong to another user, or are
/// being replaced.
pub async fn a_limit_counts_only_live_sessions_that_are_not_being_replaced<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user_id();
    let ended = create_session(&*store, &user).await;
    revoke(&*store, &ended.key, &new_end(EndReason::LoggedOut)).await;
    create_session_with(&*store, &user, |record| record.expires = now()).await;
    create_session(&*store, &new_user_id()).await;
    let replaced = create_session(&*store, &user).await;
    let (record, replacing) = (new_record(&user), [replaced.key]);
    let limit = SessionLimit::new(1, WhenFull::Refuse);
    let creation = create(&*store, &new_login_with_limit(&record, &replacing, limit)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    // The replaced session now has a successor. The successor is replaced too, so it does not
    // count.
    let record = new_record(&user);
    let creation = create(&*store, &new_login_with_limit(&record, &replacing, limit)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    assert_eq!(live_keys(&*store, &user).await, [record.key]);
}

/// A limit counts only live sessions, even if many newer sessions have expired and were not purged
/// yet.
pub async fn a_limit_never_counts_expired_sessions_however_many_there_are<S: SessionStore>(
    store: Arc<S>,
) {
    let (user_with_few, user_with_many) = (new_user_id(), new_user_id());
    let many = (MAX_PER_CALL + 10) as u32;
    let (mut few_keys, mut many_keys) = (Vec::new(), Vec::new());
    for (user, keys, count) in
        [(&user_with_few, &mut few_keys, 3), (&user_with_many, &mut many_keys, many)]
    {
        for age in (1..=count).rev() {
            let used = |record: &mut SessionRecord| {
                record.created = now().minus(1_000 + 10 * age);
                record.seen_at = Some(now());
                record.expires = now().plus(HOUR + age);
            };
            keys.push(create_session_with(&*store, user, used).await.key);
        }
        for age in 1..=many {
            let expired = |record: &mut SessionRecord| {
                (record.created, record.expires) = (now().minus(age), now());
            };
            create_session_with(&*store, user, expired).await;
        }
    }
    let record = new_record(&user_with_few);
    let login = new_login_with_limit(&record, &[], SessionLimit::new(3, WhenFull::Refuse));
    assert_eq!(create(&*store, &login).await, Creation::Full);
    for (user, keys) in [(user_with_few, few_keys), (user_with_many, many_keys)] {
        let record = new_record(&user);
        let limit = SessionLimit::new(3, WhenFull::EndOldest);
        let creation = create(&*store, &new_login_with_limit(&record, &[], limit)).await;
        assert!(matches!(creation, Creation::Created { .. }), "the oldest sessions make room");
        let newest = keys[keys.len() - 2..].iter().copied();
        assert_eq!(
            live_keys(&*store, &user).await,
            sorted(newest.chain([record.key])),
            "the newest live sessions stay"
        );
    }
}

/// A user never has more live sessions than the limit, even after concurrent logins.
pub async fn concurrent_logins_never_exceed_the_limit<S: SessionStore + 'static>(store: Arc<S>) {
    for when_full in [WhenFull::Refuse, WhenFull::EndOldest] {
        let (user, limit) = (new_user_id(), SessionLimit::new(3, when_full));
        let tasks = run_concurrently(20, |_| {
            let (store, user) = (Arc::clone(&store), user.clone());
            async move {
                let record = new_record(&user);
                store.create(&new_login_with_limit(&record, &[], limit)).await.is_ok()
            }
        })
        .await
        .len();
        assert_eq!(live_keys(&*store, &user).await.len(), tasks.min(3), "{when_full:?}");
    }
}
