//! What a store keeps as it was written: clauses about the fields of a record.

use super::*;

/// Every field is loaded as it was written, whatever its value is.
pub async fn a_created_session_is_loaded_as_it_was<S: SessionStore>(store: Arc<S>) {
    let user = new_user();
    let full = new_record(&user);
    let empty = changed(&new_record(&user), |record| {
        record.remember = None;
        record.details = SessionDetails::default();
    });
    let extreme = changed(&new_record(&user), |record| {
        record.generation = u32::MAX - 1;
        record.rotated_at = Some(full.created);
        record.seen_at = Some(full.created.plus(1));
        record.salt = [0; 16];
        record.expires = Timestamp::MAX;
    });
    for record in [full, empty, extreme] {
        create(&*store, &login(&record, &[])).await;
        assert_eq!(stored(&*store, &record.key).await, record);
    }
}

/// The details are an opaque text. No call changes a byte of it.
pub async fn the_details_come_back_byte_for_byte<S: SessionStore>(store: Arc<S>) {
    for text in odd_details() {
        let change = |record: &mut SessionRecord| record.details = SessionDetails::new(&*text);
        for (call, record) in records_of_every_call(&*store, change).await {
            assert_eq!(record.details.as_str(), text, "{call}");
        }
    }
}

/// No call changes who acts as the user, nor whether anybody does.
pub async fn the_acting_user_comes_back<S: SessionStore>(store: Arc<S>) {
    for acting_user in [None, Some(new_user()), Some(7.into()), Some("é 佐藤 🦀".into())] {
        let change = |record: &mut SessionRecord| record.acting_user = acting_user.clone();
        for (call, record) in records_of_every_call(&*store, change).await {
            assert_eq!(record.acting_user, acting_user, "{call}");
        }
    }
}

/// A remember period comes back with its expiry and its length. A login that is not remembered
/// comes back with neither.
pub async fn a_remember_period_comes_back_with_both_parts<S: SessionStore>(store: Arc<S>) {
    let short = RememberPeriod::new(now().plus(HOUR), 1);
    let long = RememberPeriod::new(Timestamp::MAX, u32::MAX);
    for remember in [None, Some(short), Some(long)] {
        let change = |record: &mut SessionRecord| record.remember = remember;
        for (call, record) in records_of_every_call(&*store, change).await {
            assert_eq!(record.remember, remember, "{call}");
        }
    }
}

/// Records, each with the call that returned it or wrote it last.
type Records = Vec<(&'static str, SessionRecord)>;

/// Creates sessions with this change, makes every call that reads or writes a session, and returns
/// the records after each of the calls.
async fn records_of_every_call<S: SessionStore>(
    store: &S,
    change: impl Fn(&mut SessionRecord),
) -> Records {
    let mut records = live_records(store, &change).await;
    records.extend(ended_records(store, &change).await);
    records
}

async fn live_records<S: SessionStore>(store: &S, change: &impl Fn(&mut SessionRecord)) -> Records {
    let user = new_user();
    let record = begin_with(store, &user, change).await;
    let (key, at, expires) = (record.key, now(), now().plus(99 * HOUR));
    let mut records = vec![("create", stored(store, &key).await)];
    for rotation in [rotation(&record, at); 2] {
        let (call, returned) = match rotate(store, &rotation).await {
            Some(Rotated::Won(returned)) => ("a rotation that wins", returned),
            Some(Rotated::Lost(returned)) => ("a rotation that loses", returned),
            None => panic!("the session is there"),
        };
        records.push((call, SessionRecord::clone(&returned)));
        records.push((call, stored(store, &key).await));
    }
    mark_seen(store, &[SeenMark::new(key, 1, at)]).await;
    records.push(("mark_seen", stored(store, &key).await));
    touch(store, &[Touch::new(key, at.plus(9), expires)]).await;
    records.push(("touch", stored(store, &key).await));
    revoke_all(store, &user, Some(&key), &end(EndReason::Revoked)).await;
    records.push(("revoke_all except this one", stored(store, &key).await));
    let listed = list(store, &user, at, 1_000).await;
    assert_eq!(listed.len(), 1, "the session is live");
    records.extend(listed.into_iter().map(|record| ("list", record)));
    records
}

async fn ended_records<S: SessionStore>(
    store: &S,
    change: &impl Fn(&mut SessionRecord),
) -> Records {
    let user = new_user();
    let replayed = begin_with(store, &user, change).await;
    let oldest = begin_with(store, &user, change).await;
    revoke(store, &replayed.key, &end(EndReason::Replay)).await;
    let mut records = vec![("revoke", stored(store, &replayed.key).await)];
    let (new, limit) = (new_record(&user), SessionLimit::new(1, WhenFull::EndOldest));
    let creation = create(store, &login_with_limit(&new, &[], limit)).await;
    let Creation::Created { ended, replays, .. } = creation else { panic!("the oldest ends") };
    let returned = ended.iter().chain(&replays).map(|record| SessionRecord::clone(record));
    records.extend(returned.map(|record| ("returned by a login", record)));
    let replaced = begin_with(store, &user, change).await;
    for new in [new_record(&user), new_record(&user)] {
        create(store, &login(&new, &[replaced.key])).await;
    }
    let last = begin_with(store, &user, change).await;
    revoke_all(store, &user, None, &end(EndReason::Revoked)).await;
    for (call, record) in [
        ("a login that notifies of a replay", replayed),
        ("a login that ends the oldest session", oldest),
        ("a login that replaces", replaced),
        ("revoke_all", last),
    ] {
        let record = stored(store, &record.key).await;
        assert!(record.ended.is_some(), "{call} ended it");
        records.push((call, record));
    }
    records
}
