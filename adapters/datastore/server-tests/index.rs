//! Login names stay unique, even if other applications write users without checking whether a
//! login name is taken.

use serde::{Deserialize, Serialize};
use tower_keep_core::{StoreErrorKind, UserDirectory, UserLookup, UserStore};
use tower_keep_datastore::{Cursor, DatastoreStore, UserKeys};

use crate::{Member, builder_in, message, new_project};
use tower_keep_testkit::contract::users::replace;

/// Opens a store that writes users as another application would. Both stores share the users. The
/// prefix changes only the kinds of the index entities and the sessions, so neither store sees the
/// other's index entities.
async fn other_application(project: &str, prefix: &str) -> DatastoreStore<Member> {
    let builder = builder_in(project).with_kind_prefix(prefix).with_users(Member::name);
    builder.build().await.expect("a store")
}

/// Opens the store under test.
async fn own_store(project: &str) -> DatastoreStore<Member> {
    builder_in(project).with_users(Member::name).build().await.expect("a store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_other_applications_are_found_and_their_login_names_are_taken() {
    let project = new_project("beside");
    let (theirs, own) = (other_application(&project, "Other").await, own_store(&project).await);
    theirs.insert(&Member::new(1, "ada")).await.expect("a new user");
    assert!(own.by_login_name("ada").await.expect("no error").is_some());
    let error = own.insert(&Member::new(2, "ada")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    own.insert(&Member::new(2, "grace")).await.expect("a new user");
    let error = replace(&own, &Member::new(2, "ada")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    // The other application renames one user and deletes another. The index entities of the store
    // under test remain, but the old login names are free.
    own.index_users(None, 400).await.expect("indexed");
    replace(&theirs, &Member::new(1, "lovelace")).await.expect("renamed");
    own.insert(&Member::new(3, "ada")).await.expect("the name is free");
    assert!(theirs.delete(&"3".into()).await.expect("deleted"));
    own.insert(&Member::new(4, "ada")).await.expect("the name is free");
    assert_eq!(own.by_login_name("ada").await.expect("no error").expect("there").id, "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_users_works_in_batches_and_continues_from_a_cursor() {
    let project = new_project("index");
    let (theirs, own) = (other_application(&project, "Other").await, own_store(&project).await);
    for number in 1..=25 {
        let member = Member::new(number, &format!("name{number}"));
        theirs.insert(&member).await.expect("a new user");
    }
    // Two users get the same `username`: the store that inserts the second user compares only
    // `nickname`, its own login property.
    other_application(&project, "Elsewhere")
        .await
        .insert(&Member::new(30, "twice"))
        .await
        .expect("new");
    let by_nickname =
        builder_in(&project).with_kind_prefix("Third").with_login_property("nickname");
    let by_nickname =
        by_nickname.with_users(|member: &Member| member.nickname.as_deref().unwrap_or_default());
    let by_nickname = by_nickname.build().await.expect("a store");
    let twice = Member { nickname: Some("x".to_owned()), ..Member::new(31, "twice") };
    by_nickname.insert(&twice).await.expect("new");

    // No index entity says which of the two users owns the login name, so the lookup is an error.
    let error = own.by_login_name("twice").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(message(&error).contains("index_users"), "{}", message(&error));

    let (mut from, mut batches, mut written, mut problems) = (None, 0, 0, Vec::new());
    loop {
        let done = own.index_users(from.as_ref(), 10).await.expect("indexed");
        assert!(done.looked_at <= 10);
        (batches, written) = (batches + 1, written + done.written);
        problems.extend(done.problems);
        let Some(next) = done.next else { break };
        // An application can store the text of the cursor, and continue after an interruption.
        from = Some(next.to_string().parse::<Cursor>().expect("a cursor"));
    }
    assert_eq!((batches, written), (3, 26));
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let one_of = [
        "User 31: `username` is the same as that of User 30",
        "User 30: `username` is the same as that of User 31",
    ];
    assert!(shown.len() == 1 && one_of.contains(&&*shown[0]), "{shown:?}");
    // An index entity now says which of the two users owns the login name.
    let owner = own.by_login_name("twice").await.expect("no error").expect("a user").id.clone();
    assert!(shown[0].ends_with(&owner), "{shown:?} {owner}");
    let again = own.index_users(None, 400).await.expect("indexed");
    assert_eq!((again.looked_at, again.written, again.problems.len()), (27, 0, 1));
    assert!("not base64!".parse::<Cursor>().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_users_reports_a_user_whose_login_name_is_not_a_text() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Numbered {
        id: i64,
        username: i64,
        login: String,
    }
    auth_user_without_stamp!(Numbered, id);
    let project = new_project("problems");
    let numbered = builder_in(&project).with_login_property("login");
    let numbered = numbered.with_users(|user: &Numbered| &user.login);
    let numbered = numbered.build().await.expect("a store");
    let user = Numbered { id: 7, username: 42, login: "ada".to_owned() };
    numbered.insert(&user).await.expect("a new user");
    let own = own_store(&project).await;
    own.insert(&Member::new(8, "42")).await.expect("a new user");
    for _ in 0..2 {
        let done = own.index_users(None, 400).await.expect("indexed");
        let shown: Vec<_> = done.problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["User 7: `username` is missing, of another type, or not indexed"]);
        assert_eq!(done.written, 0);
    }
}

/// The request after a login looks the user up by id. So a lookup by login name is an error if the
/// user's id finds another user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_by_login_name_fails_if_the_id_is_also_another_users_key() {
    let project = new_project("alike");
    let with_keys =
        |keys: UserKeys| builder_in(&project).with_user_keys(keys).with_users(Member::name);
    let keyed_by_name = with_keys(UserKeys::Name).build().await.expect("a store");
    let keyed_by_id_or_name = with_keys(UserKeys::IdOrName).build().await.expect("a store");
    keyed_by_name.insert(&Member::new("42", "named")).await.expect("a new user");
    keyed_by_id_or_name.insert(&Member::new("42", "numbered")).await.expect("a new user");
    for (store, own_name, other_name) in
        [(&keyed_by_name, "named", "numbered"), (&keyed_by_id_or_name, "numbered", "named")]
    {
        assert_eq!(store.by_id(&"42".into()).await.unwrap().unwrap().username, own_name);
        assert_eq!(store.by_login_name(own_name).await.unwrap().unwrap().username, own_name);
        let error = store.by_login_name(other_name).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(message(&error).contains("UserKeys::Name"), "{}", message(&error));
    }
    let text = with_keys(UserKeys::TextProperty("uid".into())).build().await.expect("a store");
    let integer =
        with_keys(UserKeys::IntegerProperty("uid".into())).build().await.expect("a store");
    text.insert(&Member::new("7", "text")).await.expect("a new user");
    integer.insert(&Member::new("7", "integer")).await.expect("a new user");
    for (store, own_name, other_name) in [(&text, "text", "integer"), (&integer, "integer", "text")]
    {
        assert_eq!(store.by_id(&"7".into()).await.unwrap().unwrap().username, own_name);
        let error = store.by_login_name(other_name).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    }
}

/// Another application may give two users the same id, because it does not check an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_by_login_name_fails_if_the_id_property_finds_another_user() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Raw {
        id: i64,
        uid: String,
        username: String,
        password_hash: String,
    }
    auth_user_without_stamp!(Raw, id);
    let project = new_project("twins");
    let raw = builder_in(&project).with_users(|user: &Raw| &user.username);
    let raw = raw.build().await.expect("a store");
    let accounts = builder_in(&project).with_user_keys(UserKeys::TextProperty("uid".into()));
    let accounts = accounts.build().await.expect("a store");
    let twin = |id, username: &str| Raw {
        id,
        uid: "u-7".to_owned(),
        username: username.to_owned(),
        password_hash: "hash".to_owned(),
    };
    raw.insert(&twin(1, "ada")).await.expect("a new user");
    assert_eq!(accounts.index_users(None, 400).await.expect("indexed").problems, []);
    raw.insert(&twin(2, "bob")).await.expect("a new user");
    for found in [accounts.by_login_name("ada").await, accounts.by_id(&"u-7".into()).await] {
        assert_eq!(found.expect("no error").expect("there").login_name(), "ada");
    }
    let error = accounts.by_login_name("bob").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let words = "`uid` of an entity of kind `User` is also the id of another user";
    assert!(message(&error).contains(words), "{}", message(&error));
    let unindexed = builder_in(&project).add_unindexed(["uid"]);
    let unindexed = unindexed.with_users(|user: &Raw| &user.username);
    let unindexed = unindexed.build().await.expect("a store");
    let grace = Raw { uid: "u-8".to_owned(), ..twin(3, "grace") };
    unindexed.insert(&grace).await.expect("a new user");
    let error = accounts.by_login_name("grace").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let words = "`uid` of an entity of kind `User` is not indexed";
    assert!(message(&error).contains(words), "{}", message(&error));
}
