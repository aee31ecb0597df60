//! Beginning the next generation: clauses of `rotate`.

use super::*;

fn rotation_from(record: &SessionRecord, from_generation: u32, at: Timestamp) -> Rotation {
    let mut rotation = rotation(record, at);
    rotation.from_generation = from_generation;
    rotation
}

/// Sets what a rotation at this time sets in a record of the first generation.
fn begin_generation(record: &mut SessionRecord, at: Timestamp) {
    (record.generation, record.rotated_at, record.seen_at) = (1, Some(at), None);
    (record.session_started, record.last_seen) = (at, at);
}

/// A rotation that wins sets the fields that the contract names, and nothing else.
pub async fn a_rotation_begins_the_next_generation<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = begin_with(&*store, &user, |record| record.seen_at = Some(now())).await;
    let bystander = begin(&*store, &user).await;
    let at = now().plus(60);
    let expected = changed(&record, |record| begin_generation(record, at));
    let rotated = rotate(&*store, &rotation(&record, at)).await;
    assert_eq!(rotated, Some(Rotated::Won(Arc::new(expected.clone()))));
    assert_eq!(stored(&*store, &record.key).await, expected);
    assert_eq!(stored(&*store, &bystander.key).await, bystander);
    // A login that is not remembered can be confirmed, too.
    let plain = begin_with(&*store, &user, |record| record.remember = None).await;
    let mut longer = rotation(&plain, at);
    longer.remember_expires = Some(at.plus(HOUR));
    let rotated = rotate(&*store, &longer).await;
    let Some(Rotated::Won(rotated)) = rotated else { panic!("nobody else rotates it") };
    assert_eq!((rotated.generation, rotated.remember), (1, None));
}

/// Compare-and-swap: a rotation from an earlier or a later generation changes nothing.
pub async fn a_rotation_from_another_generation_loses<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    rotate(&*store, &rotation(&record, now())).await;
    let before = stored(&*store, &record.key).await;
    for from in [0, 2, 7, u32::MAX] {
        let late = rotation_from(&record, from, now().plus(100));
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
                let rotation = rotation_from(&record, from, now());
                match store.rotate(&rotation).await {
                    Ok(Some(Rotated::Won(next))) => {
                        assert_eq!(next.generation, from + 1);
                        won.push(from);
                    }
                    Ok(Some(Rotated::Lost(other))) => assert!(other.generation > from),
                    Ok(None) => panic!("the session is there"),
                    Err(error) => panic!("losing is not an error: {error:?}"),
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

/// The next generation expires when requested, or when the earlier one would have, whichever is
/// later.
pub async fn a_rotation_extends_and_never_shortens<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    let (remember, expires) = (now().plus(72 * HOUR), now().plus(96 * HOUR));
    let mut longer = rotation(&record, now());
    (longer.remember_expires, longer.expires) = (Some(remember), expires);
    rotate(&*store, &longer).await;
    let extended = stored(&*store, &record.key).await;
    assert_eq!(extended.remember, Some(RememberPeriod::new(remember, 24 * HOUR)));
    assert_eq!(extended.expires, expires);
    let mut shorter = rotation(&extended, now());
    (shorter.remember_expires, shorter.expires) = (Some(now().plus(HOUR)), now().plus(HOUR));
    rotate(&*store, &shorter).await;
    let kept = stored(&*store, &record.key).await;
    assert_eq!((kept.remember, kept.expires), (extended.remember, expires));
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
                        let ended = store.revoke(&[record.key], &end).await.expect("no error");
                        assert_eq!(ended, usize::from(from == 0), "ended once");
                    } else {
                        let rotation = rotation_from(&record, from, now());
                        store.rotate(&rotation).await.expect("losing is not an error");
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
        let next = changed(&record, |record| begin_generation(record, at));
        assert!(found == record || found == next, "{found:?}");
    }
}
