//! Rotations, which begin the next generation of a session: clauses of `rotate`.

use std::sync::Arc;

use tower_keep_core::{
    EndReason, RememberPeriod, Rotated, Rotation, SessionRecord, SessionStore, Timestamp,
};

use super::calls::{
    HOUR, create_session, create_session_with, new_end, new_rotation, new_user_id, revoke, rotate,
    stored_record, with_change,
};
use crate::contract::drops::{DROP_STEPS, poll_then_drop, wait_until_settled};
use crate::contract::tasks::{COMPETING_TASKS, allowed_tasks, run_concurrently};
use crate::contract::values::now;

/// Creates a rotation from the given generation, which may not be the generation of `record`.
fn new_rotation_from(record: &SessionRecord, from_generation: u32, at: Timestamp) -> Rotation {
    let mut rotation = new_rotation(record, at);
    rotation.from_generation = from_generation;
    rotation
}

/// Changes a record of generation 0 in the same way as a rotation at this time.
fn begin_generation_1(record: &mut SessionRecord, at: Timestamp) {
    (record.generation, record.rotated_at, record.seen_at) = (1, Some(at), None);
    (record.session_started, record.last_seen) = (at, at);
}

/// A rotation that wins sets the fields that the contract names, and nothing else.
pub async fn a_rotation_begins_the_next_generation<S: SessionStore>(store: Arc<S>) {
    let user = new_user_id();
    let record = create_session_with(&*store, &user, |record| record.seen_at = Some(now())).await;
    let other = create_session(&*store, &user).await;
    let at = now().plus(60);
    let expected = with_change(&record, |record| begin_generation_1(record, at));
    let rotated = rotate(&*store, &new_rotation(&record, at)).await;
    assert_eq!(rotated, Some(Rotated::Won(Arc::new(expected.clone()))));
    assert_eq!(stored_record(&*store, &record.key).await, expected);
    assert_eq!(stored_record(&*store, &other.key).await, other);
    // A session that is not remembered is rotated when the user confirms the login. It stays not
    // remembered.
    let not_remembered = create_session_with(&*store, &user, |record| record.remember = None).await;
    let mut longer = new_rotation(&not_remembered, at);
    longer.remember_expires = Some(at.plus(HOUR));
    let rotated = rotate(&*store, &longer).await;
    let Some(Rotated::Won(rotated)) = rotated else { panic!("no other call rotates the session") };
    assert_eq!((rotated.generation, rotated.remember), (1, None));
}

/// Compare-and-swap: a rotation from an earlier or a later generation changes nothing.
pub async fn a_rotation_from_another_generation_loses<S: SessionStore>(store: Arc<S>) {
    let record = create_session(&*store, &new_user_id()).await;
    rotate(&*store, &new_rotation(&record, now())).await;
    let before = stored_record(&*store, &record.key).await;
    for from in [0, 2, 7, u32::MAX] {
        let rotation = new_rotation_from(&record, from, now().plus(100));
        let lost = rotate(&*store, &rotation).await;
        assert_eq!(lost, Some(Rotated::Lost(Arc::new(before.clone()))), "from {from}");
    }
    assert_eq!(stored_record(&*store, &record.key).await, before);
}

/// A rotation of an ended session changes nothing.
pub async fn a_rotation_of_an_ended_session_loses<S: SessionStore>(store: Arc<S>) {
    let record = create_session(&*store, &new_user_id()).await;
    revoke(&*store, &record.key, &new_end(EndReason::LoggedOut)).await;
    let before = stored_record(&*store, &record.key).await;
    let lost = rotate(&*store, &new_rotation(&record, now())).await;
    assert_eq!(lost, Some(Rotated::Lost(Arc::new(before.clone()))));
    assert_eq!(stored_record(&*store, &record.key).await, before);
}

/// Many tasks rotate the same session, each task once from every generation. From each generation,
/// exactly one rotation wins. A rotation that loses returns a record of a later generation.
pub async fn exactly_one_concurrent_rotation_from_each_generation_wins<
    S: SessionStore + 'static,
>(
    store: Arc<S>,
) {
    const GENERATIONS: u32 = 5;
    let record = create_session(&*store, &new_user_id()).await;
    let wins = run_concurrently(COMPETING_TASKS, |_| {
        let (store, record) = (Arc::clone(&store), record.clone());
        async move {
            let mut won_from = Vec::new();
            for from in 0..GENERATIONS {
                let rotation = new_rotation_from(&record, from, now());
                match store.rotate(&rotation).await {
                    Ok(Some(Rotated::Won(next))) => {
                        assert_eq!(next.generation, from + 1);
                        won_from.push(from);
                    }
                    Ok(Some(Rotated::Lost(other))) => assert!(other.generation > from),
                    Ok(None) => panic!("the session is stored"),
                    Err(error) => panic!("losing is not an error: {error:?}"),
                }
            }
            won_from
        }
    })
    .await;
    let mut wins: Vec<_> = wins.into_iter().flatten().collect();
    wins.sort_unstable();
    assert_eq!(
        wins,
        Vec::from_iter(0..GENERATIONS),
        "exactly one rotation from each generation wins"
    );
    assert_eq!(stored_record(&*store, &record.key).await.generation, GENERATIONS);
}

/// A rotation sets `expires` and `remember.expires` to the later of the stored and the given time.
pub async fn a_rotation_extends_and_never_shortens_the_expiry<S: SessionStore>(store: Arc<S>) {
    let record = create_session(&*store, &new_user_id()).await;
    let (remember, expires) = (now().plus(72 * HOUR), now().plus(96 * HOUR));
    let mut longer = new_rotation(&record, now());
    (longer.remember_expires, longer.expires) = (Some(remember), expires);
    rotate(&*store, &longer).await;
    let extended = stored_record(&*store, &record.key).await;
    assert_eq!(extended.remember, Some(RememberPeriod::new(remember, 24 * HOUR)));
    assert_eq!(extended.expires, expires);
    let mut shorter = new_rotation(&extended, now());
    (shorter.remember_expires, shorter.expires) = (Some(now().plus(HOUR)), now().plus(HOUR));
    rotate(&*store, &shorter).await;
    let kept = stored_record(&*store, &record.key).await;
    assert_eq!((kept.remember, kept.expires), (extended.remember, expires));
}

/// If one task ends a session while others rotate the session, the session stays ended, and no
/// later rotation wins.
pub async fn a_revoked_session_stays_ended_during_concurrent_rotations<
    S: SessionStore + 'static,
>(
    store: Arc<S>,
) {
    for _ in 0..10 {
        let record = create_session(&*store, &new_user_id()).await;
        let end = new_end(EndReason::Revoked);
        let revoking_task = allowed_tasks(8) - 1;
        run_concurrently(8, |index| {
            let (store, record) = (Arc::clone(&store), record.clone());
            async move {
                for from in 0..4 {
                    if index == revoking_task {
                        let ended = store
                            .revoke(&[record.key], &end)
                            .await
                            .expect("the call fails only if the store fails");
                        assert_eq!(
                            ended,
                            usize::from(from == 0),
                            "only the first call ends the session"
                        );
                    } else {
                        let rotation = new_rotation_from(&record, from, now());
                        store.rotate(&rotation).await.expect("losing is not an error");
                    }
                }
            }
        })
        .await;
        let after = stored_record(&*store, &record.key).await;
        assert_eq!(after.ended.as_ref().map(|ended| ended.reason), Some(EndReason::Revoked));
        let lost = rotate(&*store, &new_rotation(&after, now())).await;
        assert_eq!(lost, Some(Rotated::Lost(Arc::new(after))));
    }
}

/// If the future of `rotate` is dropped, the store has written either the whole next generation or
/// nothing.
pub async fn dropping_the_future_of_rotate_leaves_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..DROP_STEPS {
        let record = create_session(&*store, &new_user_id()).await;
        let at = now().plus(60);
        poll_then_drop(step, store.rotate(&new_rotation(&record, at))).await;
        let found = wait_until_settled(|| stored_record(&*store, &record.key)).await;
        let rotated = with_change(&record, |record| begin_generation_1(record, at));
        assert!(found == record || found == rotated, "{found:?}");
    }
}
