//! Login names stay unique, even beside those that other applications write without a check.

use serde::{Deserialize, Serialize};
use tower_keep_core::{StoreErrorKind, UserDirectory, UserLookup, UserStore};
use tower_keep_datastore::{Cursor, DatastoreStore, UserKeys};

use crate::{Member, in_project, message, project};
use tower_keep_testkit::contract::users::replace;

/// Opens a store that writes users as another library would. Its prefix is different, so it ignores
/// the index entities of the store under test.
async fn others(project: &str, prefix: &str) -> DatastoreStore<Member> {
    let builder = in_project(project).with_kind_prefix(prefix).with_users(Member::name);
    builder.build().await.expect("a store")
}

async fn own(project: &str) -> DatastoreStore<Member> {
    in_project(project).with_users(Member::name).build().await.expect("a store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_others_are_found_and_their_names_are_taken() {
    let project = project("beside");
    let (theirs, own) = (others(&project, "Other").await, own(&project).await);
    theirs.insert(&Member::new(1, "ada")).await.expect("a new user");
    assert!(own.by_login_name("ada").await.expect("no error").is_some());
    let error = own.insert(&Member::new(2, "ada")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    own.insert(&Member::new(2, "grace")).await.expect("a new user");
    let error = replace(&own, &Member::new(2, "ada")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    // The other application renames its user and deletes one. This store's index entities stay, but
    // their names are free.
    own.index_users(None, 400).await.expect("indexed");
    replace(&theirs, &Member::new(1, "lovelace")).await.expect("renamed");
    own.insert(&Member::new(3, "ada")).await.expect("the name is free");
    assert!(theirs.delete(&"3".into()).await.expect("deleted"));
    own.insert(&Member::new(4, "ada")).await.expect("the name is free");
    assert_eq!(own.by_login_name("ada").await.expect("no error").expect("there").id, "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_users_are_indexed_batch_by_batch_and_from_where_it_was_left() {
    let project = project("index");
    let (theirs, own) = (others(&project, "Other").await, own(&project).await);
    for number in 1..=25 {
        let member = Member::new(number, &format!("name{number}"));
        theirs.insert(&member).await.expect("a new user");
    }
    // Two users have the same name, because neither store checks the other's index.
    others(&project, "Elsewhere").await.insert(&Member::new(30, "twice")).await.expect("new");
    let unseen = in_project(&project).with_kind_prefix("Third").with_login_property("nickname");
    let unseen =
        unseen.with_users(|member: &Member| member.nickname.as_deref().unwrap_or_default());
    let unseen = unseen.build().await.expect("a store");
    let twice = Member { nickname: Some("x".to_owned()), ..Member::new(31, "twice") };
    unseen.insert(&twice).await.expect("new");

    // Nothing says which user has the name, so no user is found by it.
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
        // After an interruption, only the text of the cursor is left.
        from = Some(next.to_string().parse::<Cursor>().expect("a cursor"));
    }
    assert_eq!((batches, written), (3, 26));
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let one_of = [
        "User 31: `username` is the same as that of User 30",
        "User 30: `username` is the same as that of User 31",
    ];
    assert!(shown.len() == 1 && one_of.contains(&&*shown[0]), "{shown:?}");
    // Now the index entity says which user has it.
    let owner = own.by_login_name("twice").await.expect("no error").expect("somebody").id.clone();
    assert!(shown[0].ends_with(&owner), "{shown:?} {owner}");
    let again = own.index_users(None, 400).await.expect("indexed");
    assert_eq!((again.looked_at, again.written, again.problems.len()), (27, 0, 1));
    assert!("not base64!".parse::<Cursor>().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whom_nobody_can_look_up_is_a_problem() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Numbered {
        id: i64,
        username: i64,
        login: String,
    }
    without_stamp!(Numbered, id);
    let project = project("problems");
    let numbered = in_project(&project).with_login_property("login");
    let numbered = numbered.with_users(|user: &Numbered| &user.login);
    let numbered = numbered.build().await.expect("a store");
    let user = Numbered { id: 7, username: 42, login: "ada".to_owned() };
    numbered.insert(&user).await.expect("a new user");
    let own = own(&project).await;
    own.insert(&Member::new(8, "42")).await.expect("a new user");
    for _ in 0..2 {
        let done = own.index_users(None, 400).await.expect("indexed");
        let shown: Vec<_> = done.problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["User 7: `username` is missing, of another type, or not indexed"]);
        assert_eq!(done.written, 0);
    }
}

/// A user who is found by name is the one that their id finds at the next request. Otherwise it is
/// an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_for_whom_their_id_also_names() {
    let project = project("alike");
    let with = |keys: UserKeys| in_project(&project).with_user_keys(keys).with_users(Member::name);
    let by_name = with(UserKeys::Name).build().await.expect("a store");
    let by_either = with(UserKeys::IdOrName).build().await.expect("a store");
    by_name.insert(&Member::new("42", "named")).await.expect("a new user");
    by_either.insert(&Member::new("42", "numbered")).await.expect("a new user");
    for (store, own, other) in [(&by_name, "named", "numbered"), (&by_either, "numbered", "named")]
    {
        assert_eq!(store.by_id(&"42".into()).await.unwrap().unwrap().username, own);
        assert_eq!(store.by_login_name(own).await.unwrap().unwrap().username, own);
        let error = store.by_login_name(other).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(message(&error).contains("UserKeys::Name"), "{}", message(&error));
    }
    let text = with(UserKeys::TextProperty("uid".into())).build().await.expect("a store");
    let integer = with(UserKeys::IntegerProperty("uid".into())).build().await.expect("a store");
    text.insert(&Member::new("7", "text")).await.expect("a new user");
    integer.insert(&Member::new("7", "integer")).await.expect("a new user");
    for (store, own, other) in [(&text, "text", "integer"), (&integer, "integer", "text")] {
        assert_eq!(store.by_id(&"7".into()).await.unwrap().unwrap().username, own);
        let error = store.by_login_name(other).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    }
}

/// An application may write an id twice, without a check of an index. A user is found by name only
/// if the id finds the same user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_for_another_who_has_the_same_id_property() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Raw {
        id: i64,
        uid: String,
        username: String,
        password_hash: String,
    }
    without_stamp!(Raw, id);
    let project = project("twins");
    let raw = in_project(&project).with_users(|user: &Raw| &user.username);
    let raw = raw.build().await.expect("a store");
    let accounts = in_project(&project).with_user_keys(UserKeys::TextProperty("uid".into()));
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
    let words = "`uid` of an entity of kind `User` is also another's";
    assert!(message(&error).contains(words), "{}", message(&error));
    let unindexed = in_project(&project).add_unindexed(["uid"]);
    let unindexed = unindexed.with_users(|user: &Raw| &user.username);
    let unindexed = unindexed.build().await.expect("a store");
    let grace = Raw { uid: "u-8".to_owned(), ..twin(3, "grace") };
    unindexed.insert(&grace).await.expect("a new user");
    let error = accounts.by_login_name("grace").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let words = "`uid` of an entity of kind `User` is not indexed";
    assert!(message(&error).contains(words), "{}", message(&error));
}
