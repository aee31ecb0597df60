//! Ending and removing sessions: clauses of `revoke`, `revoke_all`, `list` and `purge`.

use super::*;

/// Ending is idempotent: the time, the reason and the successor of the first end stay.
pub async fn of_several_ends_the_first_counts<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = begin(&*store, &user).await;
    let first = end(EndReason::LoggedOut);
    assert_eq!(revoke(&*store, &record.key, &first).await, 1, "it lived until now");
    let before = stored(&*store, &record.key).await;
    let later = End { at: now().plus(30), reason: EndReason::Replay, keep_until: Timestamp::MAX };
    assert_eq!(revoke(&*store, &record.key, &later).await, 0, "it lives no more");
    revoke_all(&*store, &user, None, &later).await;
    create(&*store, &login(&new_record(&user), &[record.key])).await;
    assert_eq!(stored(&*store, &record.key).await, before);
}

/// An ended session holds when and why it ended. It is kept as long as requested, whether that is
/// longer or shorter than before.
pub async fn an_ended_session_is_kept_as_requested<S: SessionStore>(store: Arc<S>) {
    for (reason, hours) in [(EndReason::LoggedOut, 1), (EndReason::Replay, 99)] {
        let record = begin(&*store, &new_user()).await;
        let end = End { at: now(), reason, keep_until: record.created.plus(hours * HOUR) };
        assert_eq!(revoke(&*store, &record.key, &end).await, 1);
        let after = stored(&*store, &record.key).await;
        let ended = after.ended.clone().expect("it was ended");
        assert_eq!((ended.at, ended.reason), (end.at, reason));
        assert_eq!((ended.successor, ended.notified), (None, false));
        assert_eq!(after.expires, end.keep_until);
        let expected =
            SessionRecord { ended: after.ended.clone(), expires: after.expires, ..record };
        assert_eq!(after, expected, "and nothing else changes");
    }
}

/// Another server's clock may be behind, so a session that has expired by this clock can still be
/// ended.
pub async fn an_expired_session_can_be_ended<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    for all in [false, true] {
        let record = SessionRecord { expires: now().plus(2), ..new_record(&user) };
        create(&*store, &login(&record, &[])).await;
        let end =
            End { at: now().plus(10), reason: EndReason::Revoked, keep_until: now().plus(HOUR) };
        if all {
            revoke_all(&*store, &user, None, &end).await;
        } else {
            let ended = revoke(&*store, &record.key, &end).await;
            assert_eq!(ended, 0, "it did not live any more");
        }
        assert_eq!(end_reason(&*store, &record.key).await, Some(EndReason::Revoked));
    }
}

/// All of a user's sessions end, except the given one. Other users' sessions don't.
pub async fn all_sessions_of_a_user_end_but_one<S: SessionStore>(store: Arc<S>) {
    let (user, stranger) = (new_user(), new_user());
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(begin(&*store, &user).await.key);
    }
    let elsewhere = begin(&*store, &stranger).await;
    let end = end(EndReason::Revoked);
    revoke_all(&*store, &user, Some(&keys[2]), &end).await;
    assert_eq!(live(&*store, &user).await, [keys[2]]);
    assert_eq!(end_reason(&*store, &keys[0]).await, Some(EndReason::Revoked));
    // Another user's session as the exception has no effect.
    revoke_all(&*store, &user, Some(&elsewhere.key), &end).await;
    assert_eq!(live(&*store, &user).await, []);
    assert_eq!(stored(&*store, &elsewhere.key).await, elsewhere);
}

/// A session that ended together with all others has ended for every call. Its record holds when
/// and why.
pub async fn an_end_of_all_holds_for_every_call<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, stays) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let gone = begin(&*store, &user).await;
    revoke(&*store, &gone.key, &end(EndReason::LoggedOut)).await;
    let gone = stored(&*store, &gone.key).await;
    let all = End { at: now(), reason: EndReason::Revoked, keep_until: now().plus(2 * HOUR) };
    revoke_all(&*store, &user, Some(&stays.key), &all).await;
    let after = stored(&*store, &record.key).await;
    let ended = after.ended.clone().expect("it has ended");
    assert_eq!((ended.at, ended.reason), (all.at, EndReason::Revoked));
    assert_eq!((ended.successor, ended.notified, after.expires), (None, false, all.keep_until));
    let expected =
        SessionRecord { ended: after.ended.clone(), expires: after.expires, ..record.clone() };
    assert_eq!(after, expected, "and nothing else changes");
    let (key, at, expires) = (record.key, now().plus(5), now().plus(99 * HOUR));
    touch(&*store, Touch { key, at, remember_expires: Some(expires), expires }).await;
    seen(&*store, key, 0, at).await;
    let lost = rotate(&*store, &rotation(&record, at)).await;
    assert_eq!(lost, Some(Rotated::Lost(Arc::new(after.clone()))));
    assert_eq!(revoke(&*store, &key, &end(EndReason::Replay)).await, 0);
    let new = new_record(&user);
    let creation = create(&*store, &login(&new, &[key])).await;
    assert_eq!(creation, Creation::Created { ended: vec![], replays: vec![] });
    assert_eq!(stored(&*store, &key).await, after);
    assert_eq!(stored(&*store, &gone.key).await, gone, "of several ends the first counts");
    assert_eq!(stored(&*store, &stays.key).await, stays);
    let mut alive = live(&*store, &user).await;
    alive.sort();
    let mut expected = [stays.key, new.key];
    expected.sort();
    assert_eq!(alive, expected, "a login after it lives");
    // An ended session does not count towards a limit either.
    let limit = Some(SessionLimit { most: 3, when_full: WhenFull::Refuse });
    let creation = create(&*store, &NewLogin { limit, ..login(&new_record(&user), &[]) }).await;
    assert_eq!(creation, Creation::Created { ended: vec![], replays: vec![] });
}

/// What a store keeps about a user lasts as long as the user's sessions are used, even if that is
/// longer than was known when they logged in.
pub async fn a_session_that_outlives_its_login_by_use_ends_with_all<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user();
    let ago = |hours: u32| now().minus(hours * HOUR);
    let (created, expires) = (ago(10), ago(5));
    let record = SessionRecord { created, last_seen: created, expires, ..new_record(&user) };
    let record = SessionRecord { session_started: created, ..record };
    create(&*store, &login(&record, &[])).await;
    let (key, expires) = (record.key, now().plus(48 * HOUR));
    touch(&*store, Touch { key, at: ago(6), remember_expires: None, expires }).await;
    while store.purge(ago(2), 1_000).await.expect("no fault") > 0 {}
    assert_eq!(live(&*store, &user).await, [key]);
    revoke_all(&*store, &user, None, &end(EndReason::Revoked)).await;
    assert_eq!(live(&*store, &user).await, []);
    assert_eq!(end_reason(&*store, &key).await, Some(EndReason::Revoked));
}

/// A session that stays when all others end will end the next time, like the others. A session that
/// has ended stays ended.
pub async fn what_stays_at_one_end_of_all_ends_at_the_next<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (one, two) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let end = end(EndReason::Revoked);
    revoke_all(&*store, &user, Some(&one.key), &end).await;
    let three = begin(&*store, &user).await;
    // The session continues as before.
    assert!(matches!(rotate(&*store, &rotation(&one, now())).await, Some(Rotated::Won(_))));
    revoke_all(&*store, &user, Some(&three.key), &end).await;
    assert_eq!(live(&*store, &user).await, [three.key]);
    for ended in [&one, &two] {
        revoke_all(&*store, &user, Some(&ended.key), &end).await;
        assert_eq!(live(&*store, &user).await, [], "nothing brings it back");
        assert_eq!(end_reason(&*store, &ended.key).await, Some(EndReason::Revoked));
    }
    assert_eq!(end_reason(&*store, &three.key).await, Some(EndReason::Revoked));
    let four = begin(&*store, &user).await;
    assert_eq!(live(&*store, &user).await, [four.key]);
}

/// A list holds live sessions, the most recently used first, and at most as many as requested.
pub async fn a_list_is_of_live_sessions_the_last_used_first<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let mut records = Vec::new();
    for used in [20, 40, 10, 30] {
        let record = SessionRecord { last_seen: now().plus(used), ..new_record(&user) };
        create(&*store, &login(&record, &[])).await;
        records.push(record);
    }
    let ended = begin(&*store, &user).await;
    revoke(&*store, &ended.key, &end(EndReason::Revoked)).await;
    let short = SessionRecord { expires: now().plus(HOUR), ..new_record(&user) };
    create(&*store, &login(&short, &[])).await;
    begin(&*store, &new_user()).await;
    let (at, order) = (now().plus(HOUR + 10), [1, 3, 0, 2]);
    let listed = store.list(&user, at, 1_000).await.expect("a list is no fault");
    let listed: Vec<_> = listed.iter().map(|record| SessionRecord::clone(record)).collect();
    assert_eq!(listed, order.map(|index| records[index].clone()));
    let two = store.list(&user, at, 2).await.expect("a list is no fault");
    assert_eq!(
        two.iter().map(|record| record.key).collect::<Vec<_>>(),
        [records[1].key, records[3].key]
    );
    assert!(live(&*store, &user).await.contains(&short.key), "an hour ago it lived");
}

/// A purge removes records that have expired, including ended ones, and at most as many as
/// requested in one call. Other records stay.
pub async fn a_purge_removes_what_expired_in_batches<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    // Purge what other clauses have left.
    while store.purge(before, 1_000).await.expect("a purge is no fault") > 0 {}
    let mut expired = Vec::new();
    for ago in [0, 1, 10, HOUR, 24 * HOUR] {
        let record = SessionRecord { expires: before.minus(ago), ..new_record(&user) };
        create(&*store, &login(&record, &[])).await;
        expired.push(record.key);
    }
    let ended = begin(&*store, &user).await;
    let end = End { at: now(), reason: EndReason::LoggedOut, keep_until: before };
    revoke(&*store, &ended.key, &end).await;
    expired.push(ended.key);
    let alive = begin(&*store, &user).await;
    loop {
        let batch = store.purge(before, 2).await.expect("a purge is no fault");
        assert!(batch <= 2, "{batch} are more than the 2 that were asked for");
        if batch == 0 {
            break;
        }
    }
    for key in expired {
        assert_eq!(load(&*store, &key).await, None, "it has expired");
    }
    assert_eq!(stored(&*store, &alive.key).await, alive);
    assert_eq!(live(&*store, &user).await, [alive.key]);
}

/// A purge removes sessions that ended together once they need not be kept any longer, in batches.
/// A session that ended individually is removed when its own time has come.
pub async fn a_purge_removes_what_ended_together<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    // Purge what other clauses have left.
    while store.purge(before, 1_000).await.expect("a purge is no fault") > 0 {}
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(begin(&*store, &user).await.key);
    }
    let (stays, replayed) = (begin(&*store, &user).await, begin(&*store, &user).await);
    revoke(&*store, &replayed.key, &end(EndReason::Replay)).await;
    let all = End { at: now(), reason: EndReason::Revoked, keep_until: before };
    revoke_all(&*store, &user, Some(&stays.key), &all).await;
    loop {
        let batch = store.purge(before, 2).await.expect("a purge is no fault");
        assert!(batch <= 2, "{batch} are more than the 2 that were asked for");
        if batch == 0 {
            break;
        }
    }
    for key in ended {
        assert_eq!(load(&*store, &key).await, None, "it need not be kept any longer");
    }
    assert_eq!(stored(&*store, &stays.key).await, stays);
    assert_eq!(end_reason(&*store, &replayed.key).await, Some(EndReason::Replay));
    let creation = create(&*store, &login(&new_record(&user), &[])).await;
    let Creation::Created { replays, .. } = creation else { panic!("there is no limit") };
    assert_eq!(replays.len(), 1, "what is to be told is kept");
}

/// Late calls for a purged session do not bring it back.
pub async fn what_was_purged_never_comes_back<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    let record = SessionRecord { expires: before.minus(1), ..new_record(&user) };
    create(&*store, &login(&record, &[])).await;
    while store.purge(before, 1_000).await.expect("a purge is no fault") > 0 {}
    let (key, at, expires) = (record.key, now(), now().plus(HOUR));
    touch(&*store, Touch { key, at, remember_expires: Some(expires), expires }).await;
    seen(&*store, key, 0, at).await;
    assert_eq!(rotate(&*store, &rotation(&record, at)).await, None);
    assert_eq!(revoke(&*store, &key, &end(EndReason::Revoked)).await, 0);
    assert_eq!(load(&*store, &key).await, None);
    assert_eq!(live(&*store, &user).await, []);
}

/// A dropped end has ended all of the sessions or none. A dropped touch or mark is written
/// completely or not at all.
pub async fn interrupted_ends_leave_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..STEPS {
        let user = new_user();
        let (one, two) = (begin(&*store, &user).await, begin(&*store, &user).await);
        let (keys, end) = ([one.key, two.key], end(EndReason::Revoked));
        match step % 2 {
            0 => interrupted(step, store.revoke(&keys, &end)).await,
            _ => interrupted(step, store.revoke_all(&user, None, &end)).await,
        }
        let look = || async { (load(&*store, &one.key).await, load(&*store, &two.key).await) };
        let (Some(first), Some(second)) = settled(look).await else { panic!("both are kept") };
        assert_eq!(first.ended.is_some(), second.ended.is_some(), "both have ended, or neither");
        for (record, before) in [(first, one), (second, two)] {
            let expires = if record.ended.is_some() { end.keep_until } else { before.expires };
            assert_eq!(record, SessionRecord { ended: record.ended.clone(), expires, ..before });
        }
        let record = begin(&*store, &user).await;
        let (key, at, expires) = (record.key, now().plus(9), now().plus(99 * HOUR));
        let remember_expires = Some(now().plus(72 * HOUR));
        let touches = [Touch { key, at, remember_expires, expires }];
        interrupted(step, store.touch(&touches)).await;
        let found = settled(|| stored(&*store, &key)).await;
        let after = SessionRecord { last_seen: at, remember_expires, expires, ..record.clone() };
        assert!(found == record || found == after, "{found:?}");
        // This uses another session, because the touch may be slow.
        let record = begin(&*store, &user).await;
        let marks = [SeenMark { key: record.key, generation: 0, at }];
        interrupted(step, store.seen(&marks)).await;
        let marked = settled(|| stored(&*store, &record.key)).await;
        let after = SessionRecord { seen_at: Some(at), ..record.clone() };
        assert!(marked == record || marked == after, "{marked:?}");
    }
}
