//! Beginning the next generation: clauses of `rotate`.

use super::*;

/// A rotation that wins sets the fields that the contract names, and nothing else.
pub async fn a_rotation_begins_the_next_generation<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = SessionRecord { seen_at: Some(now()), ..new_record(&user) };
    create(&*store, &login(&record, &[])).await;
    let bystander = begin(&*store, &user).await;
    let at = now().plus(60);
    let expected = SessionRecord {
        generation: 1,
        rotated_at: Some(at),
        seen_at: None,
        session_started: at,
        last_seen: at,
        ..record.clone()
    };
    let rotated = rotate(&*store, &rotation(&record, at)).await;
    assert_eq!(rotated, Some(Rotated::Won(Arc::new(expected.clone()))));
    assert_eq!(stored(&*store, &record.key).await, expected);
    assert_eq!(stored(&*store, &bystander.key).await, bystander);
    // A login that is not remembered can be confirmed, too.
    let plain = SessionRecord { remember_expires: None, remember_seconds: 0, ..new_record(&user) };
    create(&*store, &login(&plain, &[])).await;
    let longer = Rotation { remember_expires: Some(at.plus(HOUR)), ..rotation(&plain, at) };
    let rotated = rotate(&*store, &longer).await;
    let Some(Rotated::Won(rotated)) = rotated else { panic!("nobody else rotates it") };
    assert_eq!((rotated.generation, rotated.remember_expires), (1, None));
}

/// Compare-and-swap: a rotation from an earlier or a later generation changes nothing.
pub async fn a_rotation_from_another_generation_loses<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    rotate(&*store, &rotation(&record, now())).await;
    let before = stored(&*store, &record.key).await;
    for from in [0, 2, 7, u32::MAX] {
        let late = Rotation { from, ..rotation(&record, now().plus(100)) };
        let lost = rotate(&*store, &late).await;
        assert_eq!(lost, Some(Rotated::Lost(Arc::new(before.clone()))), "from {from}");
    }
    assert_eq!(stored(&*store, &record.key).await, before);
}

/// An ended session has no next generation.
pub async fn a_rotation_of_an_ended_session_loses<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    revoke(&*store, &record.key, &end(EndReason::LoggedOut)).await;
    let before = stored(&*store, &record.key).await;
    let lost = rotate(&*store, &rotation(&record, now())).await;
    assert_eq!(lost, Some(Rotated::Lost(Arc::new(before.clone()))));
    assert_eq!(stored(&*store, &record.key).await, before);
}

/// Fifty tasks rotate one session through five generations. Each generation has one winner, and a
/// loser gets a record that is at least as far.
pub async fn of_many_rotations_one_wins_each_generation<S: SessionStore + 'static>(store: Arc<S>) {
    const GENERATIONS: u32 = 5;
    let record = begin(&*store, &new_user()).await;
    let wins = compete(TASKS, |_| {
        let (store, record) = (Arc::clone(&store), record.clone());
        async move {
            let mut won = Vec::new();
            for from in 0..GENERATIONS {
                let rotation = Rotation { from, ..rotation(&record, now()) };
                match store.rotate(&rotation).await {
                    Ok(Some(Rotated::Won(next))) => {
                        assert_eq!(next.generation, from + 1);
                        won.push(from);
                    }
                    Ok(Some(Rotated::Lost(other))) => assert!(other.generation > from),
                    Ok(None) => panic!("the session is there"),
                    Err(error) => panic!("a lost race is no fault: {error:?}"),
                }
            }
            won
        }
    })
    .await;
    let mut wins: Vec<_> = wins.into_iter().flatten().collect();
    wins.sort_unstable();
    assert_eq!(wins, Vec::from_iter(0..GENERATIONS), "one winner for each generation");
    assert_eq!(stored(&*store, &record.key).await.generation, GENERATIONS);
}

/// The next generation lives as long as requested, or as long as the earlier one would have,
/// whichever is longer.
pub async fn a_rotation_extends_and_never_shortens<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    let longer = Rotation {
        remember_expires: Some(now().plus(72 * HOUR)),
        expires: now().plus(96 * HOUR),
        ..rotation(&record, now())
    };
    rotate(&*store, &longer).await;
    let extended = stored(&*store, &record.key).await;
    assert_eq!(extended.expires, longer.expires);
    assert_eq!(extended.remember_expires, longer.remember_expires);
    let shorter = Rotation {
        remember_expires: Some(now().plus(HOUR)),
        expires: now().plus(HOUR),
        ..rotation(&extended, now())
    };
    rotate(&*store, &shorter).await;
    let kept = stored(&*store, &record.key).await;
    assert_eq!(kept.expires, longer.expires);
    assert_eq!(kept.remember_expires, longer.remember_expires);
}

/// If a session is ended while many tasks rotate it, it stays ended and no later rotation wins.
pub async fn a_revocation_beats_every_rotation<S: SessionStore + 'static>(store: Arc<S>) {
    for _ in 0..10 {
        let record = begin(&*store, &new_user()).await;
        let end = end(EndReason::Revoked);
        let last = tasks(8) - 1;
        compete(8, |index| {
            let (store, record) = (Arc::clone(&store), record.clone());
            async move {
                for from in 0..4 {
                    if index == last {
                        let ended = store.revoke(&[record.key], &end).await.expect("no fault");
                        assert_eq!(ended, usize::from(from == 0), "ended once");
                    } else {
                        let rotation = Rotation { from, ..rotation(&record, now()) };
                        store.rotate(&rotation).await.expect("a lost race is no fault");
                    }
                }
            }
        })
        .await;
        let after = stored(&*store, &record.key).await;
        assert_eq!(after.ended.as_ref().map(|ended| ended.reason), Some(EndReason::Revoked));
        let lost = rotate(&*store, &rotation(&after, now())).await;
        assert_eq!(lost, Some(Rotated::Lost(Arc::new(after))));
    }
}

/// A dropped rotation has written the next generation completely, or not at all.
pub async fn an_interrupted_rotation_leaves_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..STEPS {
        let record = begin(&*store, &new_user()).await;
        let at = now().plus(60);
        interrupted(step, store.rotate(&rotation(&record, at))).await;
        let found = settled(|| stored(&*store, &record.key)).await;
        let next = SessionRecord {
            generation: 1,
            rotated_at: Some(at),
            session_started: at,
            last_seen: at,
            ..record.clone()
        };
        assert!(found == record || found == next, "{found:?}");
    }
}
