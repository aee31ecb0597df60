//! What ends and goes: clauses of `revoke`, `revoke_all`, `list` and `purge`.

use super::*;

/// Ending is idempotent: time, reason and successor of the first end stay.
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

/// An ended session says when and why, and is kept as long as was asked, longer or shorter.
pub async fn an_ended_session_is_kept_as_told<S: SessionStore>(store: Arc<S>) {
    for (reason, hours) in [(EndReason::LoggedOut, 1), (EndReason::Replay, 99)] {
        let record = begin(&*store, &new_user()).await;
        let end = End { at: now(), reason, keep_until: record.created.plus(hours * HOUR) };
        assert_eq!(revoke(&*store, &record.key, &end).await, 1);
        let after = stored(&*store, &record.key).await;
        let ended = after.ended.clone().expect("it was ended");
        assert_eq!((ended.at, ended.reason), (end.at, reason));
        assert_eq!((ended.successor, ended.told), (None, false));
        assert_eq!(after.expires, end.keep_until);
        let expected =
            SessionRecord { ended: after.ended.clone(), expires: after.expires, ..record };
        assert_eq!(after, expected, "and nothing else changes");
    }
}

/// Another server's clock may be behind, so what has expired here is ended too.
pub async fn an_expired_session_can_be_ended<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    for all in [false, true] {
        let record = SessionRecord { expires: now().plus(2), ..new_record(&user) };
        create(&*store, &login(&record, &[])).await;
        let end =
            End { at: now().plus(10), reason: EndReason::Ended, keep_until: now().plus(HOUR) };
        if all {
            revoke_all(&*store, &user, None, &end).await;
        } else {
            let ended = revoke(&*store, &record.key, &end).await;
            assert_eq!(ended, 0, "it did not live any more");
        }
        assert_eq!(end_reason(&*store, &record.key).await, Some(EndReason::Ended));
    }
}

/// All of a user's sessions end, the named one excepted, and nobody else's.
pub async fn all_sessions_of_a_user_end_but_one<S: SessionStore>(store: Arc<S>) {
    let (user, stranger) = (new_user(), new_user());
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(begin(&*store, &user).await.key);
    }
    let elsewhere = begin(&*store, &stranger).await;
    let end = end(EndReason::Ended);
    revoke_all(&*store, &user, Some(&keys[2]), &end).await;
    assert_eq!(live(&*store, &user).await, [keys[2]]);
    assert_eq!(end_reason(&*store, &keys[0]).await, Some(EndReason::Ended));
    // Another user's session is no exception that counts.
    revoke_all(&*store, &user, Some(&elsewhere.key), &end).await;
    assert_eq!(live(&*store, &user).await, []);
    assert_eq!(stored(&*store, &elsewhere.key).await, elsewhere);
}

/// A session that ended with all others has ended for every call, and says when and why.
pub async fn an_end_of_all_holds_for_every_call<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, stays) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let gone = begin(&*store, &user).await;
    revoke(&*store, &gone.key, &end(EndReason::LoggedOut)).await;
    let gone = stored(&*store, &gone.key).await;
    let all = End { at: now(), reason: EndReason::Ended, keep_until: now().plus(2 * HOUR) };
    revoke_all(&*store, &user, Some(&stays.key), &all).await;
    let after = stored(&*store, &record.key).await;
    let ended = after.ended.clone().expect("it has ended");
    assert_eq!((ended.at, ended.reason), (all.at, EndReason::Ended));
    assert_eq!((ended.successor, ended.told, after.expires), (None, false, all.keep_until));
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
    // It takes no place either.
    let limit = Some(SessionLimit { most: 3, when_full: WhenFull::Refuse });
    let creation = create(&*store, &NewLogin { limit, ..login(&new_record(&user), &[]) }).await;
    assert_eq!(creation, Creation::Created { ended: vec![], replays: vec![] });
}

/// What a store keeps of a user lasts as long as the sessions that are used, whatever was known at their
/// login.
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
    revoke_all(&*store, &user, None, &end(EndReason::Ended)).await;
    assert_eq!(live(&*store, &user).await, []);
    assert_eq!(end_reason(&*store, &key).await, Some(EndReason::Ended));
}

/// What stays at one end of all is like the others at the next, and what has ended stays so.
pub async fn what_stays_at_one_end_of_all_ends_at_the_next<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (one, two) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let end = end(EndReason::Ended);
    revoke_all(&*store, &user, Some(&one.key), &end).await;
    let three = begin(&*store, &user).await;
    // It goes on as before.
    assert!(matches!(rotate(&*store, &rotation(&one, now())).await, Some(Rotated::Won(_))));
    revoke_all(&*store, &user, Some(&three.key), &end).await;
    assert_eq!(live(&*store, &user).await, [three.key]);
    for ended in [&one, &two] {
        revoke_all(&*store, &user, Some(&ended.key), &end).await;
        assert_eq!(live(&*store, &user).await, [], "nothing brings it back");
        assert_eq!(end_reason(&*store, &ended.key).await, Some(EndReason::Ended));
    }
    assert_eq!(end_reason(&*store, &three.key).await, Some(EndReason::Ended));
    let four = begin(&*store, &user).await;
    assert_eq!(live(&*store, &user).await, [four.key]);
}

/// A list shows what lives, in order of the last use, and no more than was asked for.
pub async fn a_list_is_of_live_sessions_the_last_used_first<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let mut records = Vec::new();
    for used in [20, 40, 10, 30] {
        let record = SessionRecord { last_seen: now().plus(used), ..new_record(&user) };
        create(&*store, &login(&record, &[])).await;
        records.push(record);
    }
    let ended = begin(&*store, &user).await;
    revoke(&*store, &ended.key, &end(EndReason::Ended)).await;
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

/// Records that have expired go, ended ones too, never more at once than was asked for; others stay.
pub async fn a_purge_removes_what_expired_in_batches<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    // What other clauses have left.
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

/// What ended together goes when it need not be kept any longer, in batches; what ended by itself when
/// its own time has come.
pub async fn a_purge_removes_what_ended_together<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    // What other clauses have left.
    while store.purge(before, 1_000).await.expect("a purge is no fault") > 0 {}
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(begin(&*store, &user).await.key);
    }
    let (stays, replayed) = (begin(&*store, &user).await, begin(&*store, &user).await);
    revoke(&*store, &replayed.key, &end(EndReason::Replay)).await;
    let all = End { at: now(), reason: EndReason::Ended, keep_until: before };
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

/// Late calls for a session that was purged leave it gone.
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
    assert_eq!(revoke(&*store, &key, &end(EndReason::Ended)).await, 0);
    assert_eq!(load(&*store, &key).await, None);
    assert_eq!(live(&*store, &user).await, []);
}

/// A dropped end has ended a session, whole; or not. A dropped touch or mark likewise.
pub async fn interrupted_ends_leave_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..STEPS {
        let user = new_user();
        let (one, two) = (begin(&*store, &user).await, begin(&*store, &user).await);
        let (keys, end) = ([one.key, two.key], end(EndReason::Ended));
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
        // Of another session, as a touch may be slow.
        let record = begin(&*store, &user).await;
        let marks = [Seen { key: record.key, generation: 0, at }];
        interrupted(step, store.seen(&marks)).await;
        let marked = settled(|| stored(&*store, &record.key)).await;
        let after = SessionRecord { seen_at: Some(at), ..record.clone() };
        assert!(marked == record || marked == after, "{marked:?}");
    }
}
