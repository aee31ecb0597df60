//! Many sessions of one user.

use tower_keep_core::{End, EndReason, SessionStore, UserId};
use tower_keep_datastore::PathElement;
use tower_keep_testkit::contract::sessions::new_record;

use crate::{builder_in, login, new_project};

/// One transaction cannot write this many sessions.
const MANY: usize = 1_003;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_sessions_than_one_transaction_can_write_are_listed_and_ended() {
    let (project, user) = (new_project("many"), UserId::from(7));
    let store = builder_in(&project).build().await.expect("a store");
    let tenant = [PathElement::Name("Tenant".into(), "acme".into())];
    let elsewhere = builder_in(&project).with_ancestors(tenant).build().await.expect("a store");
    // Another user with the same id has a session below another ancestor.
    let theirs = new_record(&user);
    elsewhere.create(&login(&theirs)).await.expect("a login");
    let mut records = Vec::new();
    for number in 0..MANY as u32 {
        let mut record = new_record(&user);
        record.created = record.created.plus(number);
        record.last_seen = record.created;
        store.create(&login(&record)).await.expect("a login");
        records.push(record);
    }
    let newest = records.last().expect("many");
    let listed = store.list(&user, newest.created, 3).await.expect("no error");
    let expected: Vec<_> = records.iter().rev().take(3).map(|record| record.key).collect();
    assert_eq!(listed.iter().map(|record| record.key).collect::<Vec<_>>(), expected);

    let end = End::new(newest.created, EndReason::Revoked, newest.expires);
    store.revoke_all(&user, Some(&newest.key), &end).await.expect("no error");
    let listed = store.list(&user, newest.created, MANY).await.expect("no error");
    assert_eq!(listed.iter().map(|record| record.key).collect::<Vec<_>>(), [newest.key]);
    store.revoke_all(&user, None, &end).await.expect("no error");
    assert_eq!(store.list(&user, newest.created, MANY).await.expect("no error"), []);
    assert_eq!(elsewhere.list(&user, newest.created, 10).await.expect("no error").len(), 1);
}
