//! The contract of [`SessionStore`].

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, NewLogin, Rotated, Rotation, Seen, SessionKey, SessionLimit,
    SessionRecord, SessionStore, StoreErrorKind, Timestamp, Touch, UserId, WhenFull,
};

use super::{STEPS, TASKS, compete, interrupted, now, odd_texts, settled, unique};

clauses! {
    SessionStore;
    a_created_session_is_loaded_as_it_was
    unknown_keys_are_nothing_and_insert_nothing
    a_taken_key_conflicts_and_nothing_is_written
    odd_users_are_kept_or_refused
    a_new_login_ends_those_that_it_replaces
    of_two_logins_in_one_session_one_remains
    of_many_logins_in_one_session_one_remains
    a_full_limit_refuses_and_writes_nothing
    a_full_limit_ends_the_oldest
    a_limit_counts_what_lives_and_is_not_replaced
    concurrent_logins_keep_to_the_limit
    a_replay_is_told_once_and_to_its_user
    a_rotation_begins_the_next_generation
    a_rotation_from_another_generation_loses
    a_rotation_of_an_ended_session_loses
    of_many_rotations_one_wins_each_generation
    a_rotation_extends_and_never_shortens
    a_revocation_beats_every_rotation
    seen_marks_its_generation_once
    touch_only_moves_forward
    touch_extends_remembering_only_of_the_remembered
    ended_sessions_are_neither_touched_nor_seen
    of_several_ends_the_first_counts
    an_ended_session_is_kept_as_told
    an_expired_session_can_be_ended
    all_sessions_of_a_user_end_but_one
    a_list_is_of_live_sessions_the_last_used_first
    a_purge_removes_what_expired_in_batches
    what_was_purged_never_comes_back
    a_server_whose_clock_is_behind_sets_nothing_back
    an_interrupted_login_leaves_all_or_nothing
    an_interrupted_rotation_leaves_all_or_nothing
    interrupted_ends_leave_all_or_nothing
}

const HOUR: u32 = 3_600;

/// A key that no other clause uses.
fn new_key() -> SessionKey {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&RandomState::new().hash_one(unique("key")).to_ne_bytes());
    }
    SessionKey::new(bytes)
}

/// A session of this user that begins now: with a key of its own, remembered for a day, and with two
/// days to live.
pub fn new_record(user: &UserId) -> SessionRecord {
    let now = now();
    SessionRecord {
        key: new_key(),
        user: user.clone(),
        generation: 0,
        rotated_at: None,
        seen_at: None,
        salt: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255],
        created: now,
        session_started: now,
        last_seen: now,
        remember_expires: Some(now.plus(24 * HOUR)),
        remember_seconds: 24 * HOUR,
        expires: now.plus(48 * HOUR),
        address: "192.0.2.7".parse().ok(),
        user_agent: "Test/1.0 (🦀; 'quoted')".into(),
        method: "password".into(),
        ended: None,
    }
}

fn new_user() -> UserId {
    unique("user").into()
}

fn login<'a>(record: &'a SessionRecord, replacing: &'a [SessionKey]) -> NewLogin<'a> {
    NewLogin { record, replacing, ended_until: record.created.plus(HOUR), limit: None }
}

async fn create<S: SessionStore>(store: &S, login: &NewLogin<'_>) -> Creation {
    store.create(login).await.expect("a new login is written")
}

/// Creates a session of this user and answers its record.
pub(super) async fn begin<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    let record = new_record(user);
    create(store, &login(&record, &[])).await;
    record
}

async fn load<S: SessionStore>(store: &S, key: &SessionKey) -> Option<SessionRecord> {
    let found = store.load(key).await.expect("a key that is asked for is no fault");
    found.map(|record| SessionRecord::clone(&record))
}

async fn stored<S: SessionStore>(store: &S, key: &SessionKey) -> SessionRecord {
    load(store, key).await.expect("the session is there")
}

async fn end_reason<S: SessionStore>(store: &S, key: &SessionKey) -> Option<EndReason> {
    stored(store, key).await.ended.map(|ended| ended.reason)
}

async fn live<S: SessionStore>(store: &S, user: &UserId) -> Vec<SessionKey> {
    let listed = store.list(user, now(), 1_000).await.expect("a list is no fault");
    listed.iter().map(|record| record.key).collect()
}

fn rotation(record: &SessionRecord, at: Timestamp) -> Rotation {
    let (key, from) = (record.key, record.generation);
    Rotation { key, from, at, remember_expires: None, expires: at.plus(HOUR) }
}

async fn rotate<S: SessionStore>(store: &S, rotation: &Rotation) -> Option<Rotated> {
    store.rotate(rotation).await.expect("a rotation is no fault")
}

fn end(reason: EndReason) -> End {
    End { at: now(), reason, keep_until: now().plus(HOUR) }
}

async fn revoke<S: SessionStore>(store: &S, key: &SessionKey, end: &End) -> usize {
    store.revoke(std::slice::from_ref(key), end).await.expect("an end is no fault")
}

async fn touch<S: SessionStore>(store: &S, touch: Touch) {
    store.touch(&[touch]).await.expect("a touch is no fault");
}

async fn seen<S: SessionStore>(store: &S, key: SessionKey, generation: u32, at: Timestamp) {
    let mark = Seen { key, generation, at };
    store.seen(&[mark]).await.expect("a mark is no fault");
}

/// Every field comes back as it was written, whatever is in it.
pub async fn a_created_session_is_loaded_as_it_was<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let full = new_record(&user);
    let empty = SessionRecord {
        remember_expires: None,
        remember_seconds: 0,
        address: None,
        user_agent: "".into(),
        method: "".into(),
        ..new_record(&user)
    };
    let extreme = SessionRecord {
        generation: u32::MAX - 1,
        rotated_at: Some(full.created),
        seen_at: Some(full.created.plus(1)),
        salt: [0; 16],
        expires: Timestamp::MAX,
        address: "2001:db8::7".parse().ok(),
        user_agent: "\"\\\u{7f}\n% é 佐藤 🦀 {}".into(),
        method: "x".repeat(64).into(),
        ..new_record(&user)
    };
    for record in [full, empty, extreme] {
        create(&*store, &login(&record, &[])).await;
        assert_eq!(stored(&*store, &record.key).await, record);
    }
}

/// Nothing but `create` inserts, and what is unknown is no fault.
pub async fn unknown_keys_are_nothing_and_insert_nothing<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = new_record(&user);
    assert_eq!(load(&*store, &record.key).await, None);
    assert_eq!(rotate(&*store, &rotation(&record, now())).await, None);
    seen(&*store, record.key, 0, now()).await;
    let expires = now().plus(HOUR);
    let (key, at) = (record.key, now());
    touch(&*store, Touch { key, at, remember_expires: Some(expires), expires }).await;
    assert_eq!(revoke(&*store, &record.key, &end(EndReason::Ended)).await, 0);
    let revoked = store.revoke_all(&user, Some(&record.key), &end(EndReason::Ended)).await;
    assert_eq!(revoked.expect("an unknown user is no fault"), 0);
    create(&*store, &login(&new_record(&new_user()), &[record.key])).await;
    assert_eq!(load(&*store, &record.key).await, None, "only `create` inserts");
    assert_eq!(live(&*store, &user).await, []);
    store.seen(&[]).await.expect("no marks are no fault");
    store.touch(&[]).await.expect("no touches are no fault");
    assert_eq!(store.revoke(&[], &end(EndReason::Ended)).await.expect("no keys are no fault"), 0);
}

/// A key is one session's; the second login with it is refused whole.
pub async fn a_taken_key_conflicts_and_nothing_is_written<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let same_key = SessionRecord { key: record.key, ..new_record(&new_user()) };
    let replacing = [other.key];
    let error = store.create(&login(&same_key, &replacing)).await.expect_err("the key is taken");
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    assert_eq!(stored(&*store, &record.key).await, record);
    assert_eq!(stored(&*store, &other.key).await, other, "nothing was replaced");
}

/// A session of a user with an odd id is kept and listed, or refused and not written.
pub async fn odd_users_are_kept_or_refused<S: SessionStore>(store: Arc<S>) {
    for odd in odd_texts() {
        let record = new_record(&UserId::from(odd.as_str()));
        let is_kept = store.create(&login(&record, &[])).await.is_ok();
        let kept = is_kept.then_some(record.clone());
        assert_eq!(load(&*store, &record.key).await, kept, "{odd:?}");
        let listed = live(&*store, &record.user).await;
        assert_eq!(listed, Vec::from_iter(is_kept.then_some(record.key)), "{odd:?}");
        let ended = store.revoke_all(&record.user, None, &end(EndReason::Ended)).await;
        assert_eq!(ended.expect("an odd id is no fault"), usize::from(is_kept), "{odd:?}");
    }
}

/// A login over a login ends the old one, of whichever user, and notes which one came after it.
pub async fn a_new_login_ends_those_that_it_replaces<S: SessionStore>(store: Arc<S>) {
    let (user, other) = (new_user(), new_user());
    let (one, two) = (begin(&*store, &user).await, begin(&*store, &other).await);
    let bystander = begin(&*store, &other).await;
    let new = new_record(&user);
    let replacing = [one.key, two.key];
    let creation = create(&*store, &login(&new, &replacing)).await;
    assert_eq!(creation, Creation::Created { ended: vec![], replays: vec![] });
    for replaced in [one, two] {
        let record = stored(&*store, &replaced.key).await;
        let ended = record.ended.expect("it was replaced");
        assert_eq!((ended.at, ended.reason), (new.created, EndReason::Replaced));
        assert_eq!((ended.successor, ended.told), (Some(new.key), false));
        assert_eq!(record.expires, new.created.plus(HOUR), "kept as long as was asked");
    }
    assert_eq!(live(&*store, &user).await, [new.key]);
    assert_eq!(live(&*store, &other).await, [bystander.key]);
}

/// Two logins over one session, the second of which does not know of the first: the second remains.
pub async fn of_two_logins_in_one_session_one_remains<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let first = begin(&*store, &user).await;
    let replacing = [first.key];
    let (second, third, fourth) = (new_record(&user), new_record(&user), new_record(&user));
    for new in [&second, &third, &fourth] {
        create(&*store, &login(new, &replacing)).await;
    }
    assert_eq!(live(&*store, &user).await, [fourth.key]);
    let successor = stored(&*store, &first.key).await.ended.expect("replaced").successor;
    assert_eq!(successor, Some(second.key), "of several ends the first counts");
    for replaced in [second, third] {
        assert_eq!(end_reason(&*store, &replaced.key).await, Some(EndReason::Replaced));
    }
    // A session that was ended for another reason has no successor to follow.
    revoke(&*store, &fourth.key, &end(EndReason::LoggedOut)).await;
    create(&*store, &login(&new_record(&user), &[fourth.key])).await;
    assert_eq!(end_reason(&*store, &fourth.key).await, Some(EndReason::LoggedOut));
}

/// However many logins replace one session at once: one remains.
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

/// With a limit that refuses, one login too many leaves everything as it was.
pub async fn a_full_limit_refuses_and_writes_nothing<S: SessionStore>(store: Arc<S>) {
    let (user, stranger) = (new_user(), new_user());
    let (one, two) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let elsewhere = begin(&*store, &stranger).await;
    let (record, replacing) = (new_record(&user), [elsewhere.key]);
    let limit = Some(SessionLimit { most: 2, when_full: WhenFull::Refuse });
    let creation = create(&*store, &NewLogin { limit, ..login(&record, &replacing) }).await;
    assert_eq!(creation, Creation::Full);
    assert_eq!(load(&*store, &record.key).await, None);
    for untouched in [one, two, elsewhere] {
        assert_eq!(stored(&*store, &untouched.key).await, untouched);
    }
}

/// With a limit that ends the oldest, as many end as there must.
pub async fn a_full_limit_ends_the_oldest<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let mut records = Vec::new();
    for age in [30, 50, 10, 40] {
        let record = SessionRecord { created: now().minus(age), ..new_record(&user) };
        create(&*store, &login(&record, &[])).await;
        records.push(record);
    }
    let record = new_record(&user);
    let limit = Some(SessionLimit { most: 3, when_full: WhenFull::EndOldest });
    let creation = create(&*store, &NewLogin { limit, ..login(&record, &[]) }).await;
    let Creation::Created { ended, .. } = creation else { panic!("the oldest make room") };
    assert!(ended.iter().all(|record| record.ended.is_none()), "answered as they were before");
    let mut ended: Vec<_> = ended.iter().map(|record| record.key).collect();
    ended.sort();
    let mut oldest = [records[1].key, records[3].key];
    oldest.sort();
    assert_eq!(ended, oldest, "the oldest by `created` end, and are answered");
    for key in oldest {
        let old = stored(&*store, &key).await;
        let ended = old.ended.expect("it made room");
        assert_eq!((ended.at, ended.reason), (record.created, EndReason::Limit));
        assert_eq!((ended.successor, old.expires), (None, record.created.plus(HOUR)));
    }
    assert_eq!(live(&*store, &user).await.len(), 3);
}

/// Sessions that ended, expired, are another user's or are being replaced take no place.
pub async fn a_limit_counts_what_lives_and_is_not_replaced<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let ended = begin(&*store, &user).await;
    revoke(&*store, &ended.key, &end(EndReason::LoggedOut)).await;
    let expired = SessionRecord { expires: now(), ..new_record(&user) };
    create(&*store, &login(&expired, &[])).await;
    begin(&*store, &new_user()).await;
    let replaced = begin(&*store, &user).await;
    let (record, replacing) = (new_record(&user), [replaced.key]);
    let limit = Some(SessionLimit { most: 1, when_full: WhenFull::Refuse });
    let creation = create(&*store, &NewLogin { limit, ..login(&record, &replacing) }).await;
    assert_eq!(creation, Creation::Created { ended: vec![], replays: vec![] });
    // The replaced one stands for its successor, which takes no place either.
    let record = new_record(&user);
    let creation = create(&*store, &NewLogin { limit, ..login(&record, &replacing) }).await;
    assert_eq!(creation, Creation::Created { ended: vec![], replays: vec![] });
    assert_eq!(live(&*store, &user).await, [record.key]);
}

/// However many logins of one user at once: never more sessions than the limit.
pub async fn concurrent_logins_keep_to_the_limit<S: SessionStore + 'static>(store: Arc<S>) {
    for when_full in [WhenFull::Refuse, WhenFull::EndOldest] {
        let (user, limit) = (new_user(), Some(SessionLimit { most: 3, when_full }));
        compete(20, |_| {
            let (store, user) = (Arc::clone(&store), user.clone());
            async move {
                let record = new_record(&user);
                store.create(&NewLogin { limit, ..login(&record, &[]) }).await.is_ok()
            }
        })
        .await;
        assert_eq!(live(&*store, &user).await.len(), 3, "{when_full:?}");
    }
}

/// The user's next login learns of a replay, and no login after that, nor any other user's.
pub async fn a_replay_is_told_once_and_to_its_user<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (replayed, ended) = (begin(&*store, &user).await, begin(&*store, &user).await);
    revoke(&*store, &replayed.key, &end(EndReason::Replay)).await;
    revoke(&*store, &ended.key, &end(EndReason::Ended)).await;
    let told = |creation: Creation| match creation {
        Creation::Created { replays, .. } => {
            let is_untold = |record: &Arc<SessionRecord>| {
                record.ended.as_ref().is_some_and(|ended| !ended.told)
            };
            assert!(replays.iter().all(is_untold), "answered as they were before");
            replays.iter().map(|record| record.key).collect::<Vec<_>>()
        }
        Creation::Full => panic!("there is no limit"),
    };
    let stranger = new_record(&new_user());
    assert_eq!(told(create(&*store, &login(&stranger, &[])).await), []);
    let (first, second) = (new_record(&user), new_record(&user));
    assert_eq!(told(create(&*store, &login(&first, &[])).await), [replayed.key]);
    let record = stored(&*store, &replayed.key).await;
    assert!(record.ended.is_some_and(|ended| ended.told && ended.reason == EndReason::Replay));
    assert_eq!(told(create(&*store, &login(&second, &[])).await), [], "told once");
}

/// Winning sets what the contract names, and nothing else.
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
    // A login that is not remembered can be confirmed all the same.
    let plain = SessionRecord { remember_expires: None, remember_seconds: 0, ..new_record(&user) };
    create(&*store, &login(&plain, &[])).await;
    let longer = Rotation { remember_expires: Some(at.plus(HOUR)), ..rotation(&plain, at) };
    let rotated = rotate(&*store, &longer).await;
    let Some(Rotated::Won(rotated)) = rotated else { panic!("nobody else rotates it") };
    assert_eq!((rotated.generation, rotated.remember_expires), (1, None));
}

/// Compare and swap: what has moved on, or not yet got there, is not swapped.
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

/// Fifty tasks rotate one session through five generations: each generation has one winner, and
/// whoever loses sees a record that is at least as far.
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

/// The next generation lives as long as was asked, or as the one before would have.
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

/// A session that is ended while many rotate it is ended, and nobody wins after that.
pub async fn a_revocation_beats_every_rotation<S: SessionStore + 'static>(store: Arc<S>) {
    for _ in 0..10 {
        let record = begin(&*store, &new_user()).await;
        let end = end(EndReason::Ended);
        compete(8, |index| {
            let (store, record) = (Arc::clone(&store), record.clone());
            async move {
                for from in 0..4 {
                    if index == 7 {
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
        assert_eq!(after.ended.as_ref().map(|ended| ended.reason), Some(EndReason::Ended));
        let lost = rotate(&*store, &rotation(&after, now())).await;
        assert_eq!(lost, Some(Rotated::Lost(Arc::new(after))));
    }
}

/// A generation is seen once, at the first time, and no other generation with it.
pub async fn seen_marks_its_generation_once<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
    rotate(&*store, &rotation(&record, now())).await;
    for generation in [0, 2] {
        seen(&*store, record.key, generation, now()).await;
        assert_eq!(stored(&*store, &record.key).await.seen_at, None, "of another generation");
    }
    let (first, later) = (now().plus(5), now().plus(9));
    let marks = [(record.key, 1), (other.key, 0), (new_key(), 0)];
    let marks = marks.map(|(key, generation)| Seen { key, generation, at: first });
    store.seen(&marks).await.expect("marks are no fault");
    seen(&*store, record.key, 1, later).await;
    assert_eq!(stored(&*store, &record.key).await.seen_at, Some(first));
    let expected = SessionRecord { seen_at: Some(first), ..other.clone() };
    assert_eq!(stored(&*store, &other.key).await, expected, "and nothing else changes");
}

/// A touch moves the last use and the expiry forward, and changes nothing else.
pub async fn touch_only_moves_forward<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let (record, other) = (begin(&*store, &user).await, begin(&*store, &user).await);
    let (at, expires) = (now().plus(100), now().plus(99 * HOUR));
    let both = [record.key, other.key];
    let touches = both.map(|key| Touch { key, at, remember_expires: None, expires });
    store.touch(&touches).await.expect("touches are no fault");
    for record in [&record, &other] {
        let expected = SessionRecord { last_seen: at, expires, ..record.clone() };
        assert_eq!(stored(&*store, &record.key).await, expected);
    }
    let (at, expires) = (now().minus(100), now().plus(HOUR));
    touch(&*store, Touch { key: record.key, at, remember_expires: None, expires }).await;
    assert_eq!(stored(&*store, &record.key).await.last_seen, touches[0].at);
    assert_eq!(stored(&*store, &record.key).await.expires, touches[0].expires);
}

/// Only a login that is remembered is remembered for longer.
pub async fn touch_extends_remembering_only_of_the_remembered<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let remembered = begin(&*store, &user).await;
    let plain = SessionRecord { remember_expires: None, remember_seconds: 0, ..new_record(&user) };
    create(&*store, &login(&plain, &[])).await;
    for (hours, expected) in [(72, 72), (48, 72)] {
        let (at, expires) = (now(), now().plus(99 * HOUR));
        let until = remembered.created.plus(hours * HOUR);
        let both = [remembered.key, plain.key];
        let touches = both.map(|key| Touch { key, at, remember_expires: Some(until), expires });
        store.touch(&touches).await.expect("touches are no fault");
        let after = stored(&*store, &remembered.key).await.remember_expires;
        assert_eq!(after, Some(remembered.created.plus(expected * HOUR)));
        assert_eq!(stored(&*store, &plain.key).await.remember_expires, None);
    }
}

/// What has ended is not changed by late notes of its use.
pub async fn ended_sessions_are_neither_touched_nor_seen<S: SessionStore>(store: Arc<S>) {
    let record = begin(&*store, &new_user()).await;
    revoke(&*store, &record.key, &end(EndReason::LoggedOut)).await;
    let before = stored(&*store, &record.key).await;
    let (key, at, expires) = (record.key, now().plus(50), now().plus(99 * HOUR));
    seen(&*store, key, 0, at).await;
    touch(&*store, Touch { key, at, remember_expires: Some(expires), expires }).await;
    assert_eq!(stored(&*store, &key).await, before);
}

/// Ending is idempotent: time, reason and successor of the first end stay.
pub async fn of_several_ends_the_first_counts<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let record = begin(&*store, &user).await;
    let first = end(EndReason::LoggedOut);
    assert_eq!(revoke(&*store, &record.key, &first).await, 1, "it lived until now");
    let before = stored(&*store, &record.key).await;
    let later = End { at: now().plus(30), reason: EndReason::Replay, keep_until: Timestamp::MAX };
    assert_eq!(revoke(&*store, &record.key, &later).await, 0, "it lives no more");
    let all = store.revoke_all(&user, None, &later).await;
    assert_eq!(all.expect("an end is no fault"), 0);
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
        let ended = if all {
            store.revoke_all(&user, None, &end).await.expect("an end is no fault")
        } else {
            revoke(&*store, &record.key, &end).await
        };
        assert_eq!(ended, 0, "it did not live any more");
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
    let others = store.revoke_all(&user, Some(&keys[2]), &end).await;
    assert_eq!(others.expect("an end is no fault"), 4);
    assert_eq!(live(&*store, &user).await, [keys[2]]);
    assert_eq!(end_reason(&*store, &keys[0]).await, Some(EndReason::Ended));
    // Another user's session is no exception that counts.
    let all = store.revoke_all(&user, Some(&elsewhere.key), &end).await;
    assert_eq!(all.expect("an end is no fault"), 1);
    assert_eq!(live(&*store, &user).await, []);
    assert_eq!(stored(&*store, &elsewhere.key).await, elsewhere);
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
    let end = End { at: before, reason: EndReason::LoggedOut, keep_until: before };
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

/// Two servers whose clocks differ by minutes use one session.
pub async fn a_server_whose_clock_is_behind_sets_nothing_back<S: SessionStore>(store: Arc<S>) {
    let ahead = now();
    let behind = ahead.minus(300);
    let record = begin(&*store, &new_user()).await;
    let key = record.key;
    rotate(&*store, &rotation(&record, ahead)).await;
    seen(&*store, key, 1, ahead).await;
    seen(&*store, key, 1, behind).await;
    let expires = behind.plus(HOUR);
    touch(&*store, Touch { key, at: behind, remember_expires: Some(behind), expires }).await;
    let after = stored(&*store, &key).await;
    assert_eq!((after.seen_at, after.last_seen), (Some(ahead), ahead));
    assert_eq!(after.expires, record.expires);
    assert_eq!(after.remember_expires, record.remember_expires);
    // The compare-and-swap goes by generations, not by times.
    let rotated = rotate(&*store, &rotation(&after, behind)).await;
    let Some(Rotated::Won(next)) = rotated else { panic!("nobody else rotates it") };
    assert_eq!((next.generation, next.rotated_at), (2, Some(behind)));
    let (first, second) =
        (End { at: ahead, ..end(EndReason::Ended) }, End { at: behind, ..end(EndReason::Replay) });
    assert_eq!(revoke(&*store, &key, &first).await, 1);
    assert_eq!(revoke(&*store, &key, &second).await, 0);
    let ended = stored(&*store, &key).await.ended.expect("it was ended");
    assert_eq!((ended.at, ended.reason), (ahead, EndReason::Ended));
}

/// A dropped login is written, and the old one ended; or neither.
pub async fn an_interrupted_login_leaves_all_or_nothing<S: SessionStore>(store: Arc<S>) {
    for step in 0..STEPS {
        let user = new_user();
        let old = begin(&*store, &user).await;
        let (new, replacing) = (new_record(&user), [old.key]);
        interrupted(step, store.create(&login(&new, &replacing))).await;
        let look = || async {
            let mut keys = live(&*store, &user).await;
            keys.sort();
            let ended = stored(&*store, &old.key).await.ended.is_some();
            (keys, load(&*store, &new.key).await.is_some(), ended)
        };
        let found = settled(look).await;
        let (done, undone) = ((vec![new.key], true, true), (vec![old.key], false, false));
        assert!(found == done || found == undone, "{found:?}");
    }
}

/// A dropped rotation has begun the next generation, whole; or not.
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
        let marks = [Seen { key, generation: 0, at }];
        interrupted(step, store.seen(&marks)).await;
        let marked = settled(|| stored(&*store, &key)).await;
        let after = SessionRecord { seen_at: Some(at), ..found.clone() };
        assert!(marked == found || marked == after, "{marked:?}");
    }
}
