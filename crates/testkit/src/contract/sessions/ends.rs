//! Ending and removing sessions: clauses of `revoke`, `revoke_all`, `list` and `purge`.

use super::*;

/// Ending is idempotent: the time, the reason and the successor of the first end stay.
pub async fn of_several_ends_the_first_counts<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = begin(&*store, &user).await;
    let first = end(EndReason::LoggedOut);
    assert_eq!(revoke(&*store, &record.key, &first).await, 1, "it was live before");
    let before = stored(&*store, &record.key).await;
    let later = End::new(now().plus(30), EndReason::Replay, Timestamp::MAX);
    assert_eq!(revoke(&*store, &record.key, &later).await, 0, "it is not live any more");
    revoke_all(&*store, &user, None, &later).await;
    create(&*store, &login(&new_record(&user), &[record.key])).await;
    assert_eq!(stored(&*store, &record.key).await, before);
}

/// A reason that this version does not know comes from a newer node. Its word stays, whichever
/// calls write the record again.
pub async fn an_unknown_reason_keeps_its_word<S: SessionStore>(store: Arc<S>) {
    for word in ["of_a_newer_node", "_sixteen_letters", "x"] {
        let user = new_user();
        let (one, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
        let unknown = end(word.parse().expect("a reason may have this word"));
        assert_eq!(revoke(&*store, &one.key, &unknown).await, 1, "it was live before");
        revoke_all(&*store, &user, None, &unknown).await;
        for record in [&one, &other] {
            let before = stored(&*store, &record.key).await;
            let reason = before.ended.as_ref().map(|ended| ended.reason.to_string());
            assert_eq!(reason.as_deref(), Some(word));
            assert_eq!(revoke(&*store, &record.key, &end(EndReason::Replay)).await, 0);
            for new in [new_record(&user), new_record(&user)] {
                create(&*store, &login(&new, &[record.key])).await;
            }
            let lost = rotate(&*store, &rotation(record, now())).await;
            assert_eq!(lost, Some(Rotated::Lost(Arc::new(before.clone()))));
            assert_eq!(stored(&*store, &record.key).await, before);
        }
        // The other session ended together with all, so it may show the later end.
        let before = stored(&*store, &one.key).await;
        revoke_all(&*store, &user, None, &end(EndReason::Revoked)).await;
        assert_eq!(stored(&*store, &one.key).await, before);
    }
}

/// An ended session holds when and why it ended. It is kept as long as requested, whether that is
/// longer or shorter than before.
pub async fn an_ended_session_is_kept_as_requested<S: SessionStore>(store: Arc<S>) {
    for (reason, hours) in [(EndReason::LoggedOut, 1), (EndReason::Replay, 99)] {
        let record = begin(&*store, &new_user()).await;
        let end = End::new(now(), reason, record.created.plus(hours * HOUR));
        assert_eq!(revoke(&*store, &record.key, &end).await, 1);
        let after = stored(&*store, &record.key).await;
        let ended = after.ended.clone().expect("it was ended");
        assert_eq!((ended.at, ended.reason), (end.at, reason));
        assert_eq!((ended.successor, ended.notified), (None, false));
        assert_eq!(after.expires, end.keep_until);
        let mut expected = record;
        (expected.ended, expected.expires) = (after.ended.clone(), after.expires);
        assert_eq!(after, expected, "and nothing else changes");
    }
}

/// Another server's clock may be behind, so a session that has expired by this clock can still be
/// ended.
pub async fn an_expired_session_can_be_ended<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    for all in [false, true] {
        let record = begin_with(&*store, &user, |record| record.expires = now().plus(2)).await;
        let end = End::new(now().plus(10), EndReason::Revoked, now().plus(HOUR));
        if all {
            revoke_all(&*store, &user, None, &end).await;
        } else {
            let ended = revoke(&*store, &record.key, &end).await;
            assert_eq!(ended, 0, "it was not live any more");
        }
        assert_eq!(end_reason(&*store, &record.key).await, Some(EndReason::Revoked));
    }
}

/// All of a user's sessions end, except the given one. Other users' sessions don't.
pub async fn all_sessions_of_a_user_end_except_one<S: SessionStore>(store: Arc<S>) {
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
    let all = End::new(now(), EndReason::Revoked, now().plus(2 * HOUR));
    revoke_all(&*store, &user, Some(&stays.key), &all).await;
    let after = stored(&*store, &record.key).await;
    let ended = after.ended.clone().expect("it has ended");
    assert_eq!((ended.at, ended.reason), (all.at, EndReason::Revoked));
    assert_eq!((ended.successor, ended.notified, after.expires), (None, false, all.keep_until));
    let mut expected = record.clone();
    (expected.ended, expected.expires) = (after.ended.clone(), after.expires);
    assert_eq!(after, expected, "and nothing else changes");
    let (key, at, expires) = (record.key, now().plus(5), now().plus(99 * HOUR));
    touch(&*store, &[remembered_touch(key, at, expires, expires)]).await;
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
    let lost = rotate(&*store, &rotation(&record, at)).await;
    assert_eq!(lost, Some(Rotated::Lost(Arc::new(after.clone()))));
    assert_eq!(revoke(&*store, &key, &end(EndReason::Replay)).await, 0);
    let new = new_record(&user);
    let creation = create(&*store, &login(&new, &[key])).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
    assert_eq!(stored(&*store, &key).await, after);
    assert_eq!(stored(&*store, &gone.key).await, gone, "of several ends the first counts");
    assert_eq!(stored(&*store, &stays.key).await, stays);
    let mut live_keys = live(&*store, &user).await;
    live_keys.sort();
    let mut expected = [stays.key, new.key];
    expected.sort();
    assert_eq!(live_keys, expected, "a login after it is live");
    // An ended session does not count towards a limit either.
    let limit = SessionLimit::new(3, WhenFull::Refuse);
    let creation = create(&*store, &login_with_limit(&new_record(&user), &[], limit)).await;
    assert_eq!(creation, Creation::created(vec![], vec![]));
}

/// What a store keeps about a user lasts as long as the user's sessions are used, even if that is
/// longer than was known when they logged in.
pub async fn a_session_that_outlives_its_login_by_use_ends_with_all<S: SessionStore>(
    store: Arc<S>,
) {
    let user = new_user();
    let ago = |hours: u32| now().minus(hours * HOUR);
    let short = |record: &mut SessionRecord| {
        (record.created, record.expires) = (ago(10), ago(5));
        (record.session_started, record.last_seen) = (record.created, record.created);
    };
    let key = begin_with(&*store, &user, short).await.key;
    touch(&*store, &[Touch::new(key, ago(6), now().plus(48 * HOUR))]).await;
    purge_all(&*store, ago(2)).await;
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
        let change = |record: &mut SessionRecord| record.last_seen = now().plus(used);
        records.push(begin_with(&*store, &user, change).await);
    }
    let ended = begin(&*store, &user).await;
    revoke(&*store, &ended.key, &end(EndReason::Revoked)).await;
    let short = begin_with(&*store, &user, |record| record.expires = now().plus(HOUR)).await;
    begin(&*store, &new_user()).await;
    let (at, order) = (now().plus(HOUR + 10), [1, 3, 0, 2]);
    let listed = list(&*store, &user, at, 1_000).await;
    assert_eq!(listed, order.map(|index| records[index].clone()));
    let two = list(&*store, &user, at, 2).await;
    assert_eq!(two, [records[1].clone(), records[3].clone()]);
    assert!(live(&*store, &user).await.contains(&short.key), "it was live an hour ago");
}

/// Purges two records at a time.
async fn purge_in_pairs<S: SessionStore>(store: &S, before: Timestamp) {
    loop {
        let purged = purge(store, before, 2).await;
        assert!(purged <= 2, "{purged} are more than the limit of 2");
        if purged == 0 {
            break;
        }
    }
}

/// A purge removes records that have expired, including ended ones, and at most as many as
/// requested in one call. Other records stay.
pub async fn a_purge_removes_what_expired_in_batches<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    purge_all(&*store, before).await;
    let mut expired = Vec::new();
    for ago in [0, 1, 10, HOUR, 24 * HOUR] {
        let change = |record: &mut SessionRecord| record.expires = before.minus(ago);
        expired.push(begin_with(&*store, &user, change).await.key);
    }
    let ended = begin(&*store, &user).await;
    let end = End::new(now(), EndReason::LoggedOut, before);
    revoke(&*store, &ended.key, &end).await;
    expired.push(ended.key);
    let other = begin(&*store, &user).await;
    purge_in_pairs(&*store, before).await;
    for key in expired {
        assert_eq!(load(&*store, &key).await, None, "it has expired");
    }
    assert_eq!(stored(&*store, &other.key).await, other);
    assert_eq!(live(&*store, &user).await, [other.key]);
}

/// A purge removes sessions that ended together once they need not be kept any longer, in batches.
/// A session that ended individually is removed when its own time has come.
pub async fn a_purge_removes_what_ended_together<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    purge_all(&*store, before).await;
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(begin(&*store, &user).await.key);
    }
    let (stays, replayed) = (begin(&*store, &user).await, begin(&*store, &user).await);
    revoke(&*store, &replayed.key, &end(EndReason::Replay)).await;
    let all = End::new(now(), EndReason::Revoked, before);
    revoke_all(&*store, &user, Some(&stays.key), &all).await;
    purge_in_pairs(&*store, before).await;
    for key in ended {
        assert_eq!(load(&*store, &key).await, None, "it need not be kept any longer");
    }
    assert_eq!(stored(&*store, &stays.key).await, stays);
    assert_eq!(end_reason(&*store, &replayed.key).await, Some(EndReason::Replay));
    let creation = create(&*store, &login(&new_record(&user), &[])).await;
    let Creation::Created { replays, .. } = creation else { panic!("there is no limit") };
    assert_eq!(replays.len(), 1, "the user was not notified of it");
}

/// Late calls for a purged session do not bring it back.
pub async fn what_was_purged_never_comes_back<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let before = now().minus(HOUR);
    let record = begin_with(&*store, &user, |record| record.expires = before.minus(1)).await;
    purge_all(&*store, before).await;
    let (key, at, expires) = (record.key, now(), now().plus(HOUR));
    touch(&*store, &[remembered_touch(key, at, expires, expires)]).await;
    mark_seen(&*store, &[SeenMark::new(key, 0, at)]).await;
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
        let read = || async { (load(&*store, &one.key).await, load(&*store, &two.key).await) };
        let (Some(first), Some(second)) = settled(read).await else { panic!("both are kept") };
        assert_eq!(first.ended.is_some(), second.ended.is_some(), "both have ended, or neither");
        for (record, before) in [(first, one), (second, two)] {
            let expected = end.apply_to(&before, None).filter(|_| record.ended.is_some());
            assert_eq!(record, expected.unwrap_or(before));
        }
        let record = begin(&*store, &user).await;
        let (at, until, expires) = (now().plus(9), now().plus(72 * HOUR), now().plus(99 * HOUR));
        let touches = [remembered_touch(record.key, at, until, expires)];
        interrupted(step, store.touch(&touches)).await;
        let found = settled(|| stored(&*store, &record.key)).await;
        let after = changed(&record, |record| {
            (record.last_seen, record.expires) = (at, expires);
            record.remember = Some(RememberPeriod::new(until, 24 * HOUR));
        });
        assert!(found == record || found == after, "{found:?}");
        // This uses another session, because the touch may be slow.
        let record = begin(&*store, &user).await;
        let marks = [SeenMark::new(record.key, 0, at)];
        interrupted(step, store.mark_seen(&marks)).await;
        let marked = settled(|| stored(&*store, &record.key)).await;
        let after = changed(&record, |record| record.seen_at = Some(at));
        assert!(marked == record || marked == after, "{marked:?}");
    }
}
