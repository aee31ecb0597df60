//! Users with every kind of key, in a database that other applications write to as well.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tower_keep_core::{
    Account, AuthUser, End, EndReason, LoginName, SessionStore, StoreErrorKind, UserDirectory,
    UserId, UserLookup, UserStore,
};
use tower_keep_datastore::{DatastoreStore, EntityKey, LatLng, PathElement, UserKeys, timestamp};

use crate::{Member, builder, builder_in, env_variable, login, message, new_project};
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_testkit::contract::users::replace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_id_can_be_a_keys_id_or_name_or_a_property() {
    for (keys, ids) in [
        (UserKeys::IdOrName, ["7", "-7", "ada", "0", "佐藤"]),
        (UserKeys::Name, ["7", "-7", "ada", "0", "佐藤"]),
        (UserKeys::TextProperty("uid".into()), ["7", "", "ada", "__ada__", "佐藤"]),
        (UserKeys::IntegerProperty("uid".into()), ["7", "-7", "0", "1", "9223372036854775807"]),
    ] {
        let store = builder("keys").with_user_keys(keys.clone()).with_users(Member::name);
        let store = store.build().await.expect("a store");
        for (number, id) in ids.into_iter().enumerate() {
            let mut member = Member::new(id, &format!("name{number}"));
            store.insert(&member).await.expect("a new user");
            let found = store.by_id(&id.into()).await.expect("no error").expect("the user");
            assert_eq!(*found, member, "{keys:?}");
            member.nickname = Some("nick".to_owned());
            member.username = format!("renamed{number}");
            assert!(replace(&store, &member).await.expect("no error"));
            let found = store.by_login_name(&member.username).await.expect("no error");
            assert_eq!(found.as_deref(), Some(&member), "{keys:?}");
            let taken = store.insert(&Member::new(id, "another")).await.unwrap_err();
            assert_eq!(taken.kind(), StoreErrorKind::Conflict, "{keys:?}");
        }
        let wanted: Vec<UserId> = ids.iter().rev().map(|id| (*id).into()).collect();
        let found = store.by_ids(&wanted).await.expect("no error");
        assert!(
            found
                .iter()
                .zip(&wanted)
                .all(|(found, id)| { found.as_ref().is_some_and(|found| found.id() == *id) })
        );
        for id in ids {
            assert!(store.delete(&id.into()).await.expect("no error"), "{keys:?} {id}");
            assert!(!store.delete(&id.into()).await.expect("no error"), "{keys:?} {id}");
            assert!(store.by_id(&id.into()).await.expect("no error").is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_user_id_returns_ids_that_no_user_has() {
    let store = builder("ids").build().await.expect("a store");
    let (one, other) = (store.new_user_id().await.unwrap(), store.new_user_id().await.unwrap());
    assert_ne!(one, other);
    assert!(one.parse::<i64>().is_some_and(|id| id > 0), "{one:?}");
    store.insert(&Account::new(&one, "ada", "hash")).await.expect("a new account");
    assert!(store.by_id(&one).await.expect("no error").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_with_different_ancestors_namespaces_databases_or_kinds_are_separate() {
    let project = new_project("separate");
    let acme = || [PathElement::Name("Tenant".into(), "acme".into())];
    let other =
        || [PathElement::Name("Tenant".into(), "other".into()), PathElement::Id("Site".into(), 7)];
    let at = |place: &str| {
        let builder = DatastoreStore::builder(format!("datastore://{project}{place}"));
        // Queries in the Datastore emulator also return entities of other databases, so this is the
        // Firestore emulator.
        builder.with_emulator(env_variable("FIRESTORE_URL")).with_timeout(Duration::from_secs(20))
    };
    let stores = [
        at("").build().await.expect("a store"),
        at("").with_ancestors(acme()).build().await.expect("a store"),
        at("").with_ancestors(other()).build().await.expect("a store"),
        at("/tenant").build().await.expect("a store"),
        at("?database=users").build().await.expect("a store"),
        at("/tenant?database=users").build().await.expect("a store"),
        at("").with_kind("Admin").build().await.expect("a store"),
    ];
    for (number, store) in stores.iter().enumerate().rev() {
        let account = Account::new(7, "ada", format!("hash of {number}"));
        store.insert(&account).await.expect("the id and the login name are free");
        for found in [store.by_id(&"7".into()).await, store.by_login_name("ada").await] {
            let found = found.expect("no error").expect("the user");
            assert_eq!(found.password_hash(), account.password_hash());
        }
    }
    let mut keys = Vec::new();
    for store in &stores {
        let record = new_record(&"7".into());
        store.create(&login(&record)).await.expect("a login");
        keys.push(record.key);
    }
    for (store, key) in stores.iter().zip(keys) {
        let listed = store.list(&"7".into(), new_record(&"7".into()).created, 10).await;
        let listed = listed.expect("no error");
        assert!(
            listed.len() == 1 && listed[0].key == key,
            "each store has its own session: {listed:?}"
        );
        let end = End::new(listed[0].created, EndReason::Revoked, listed[0].expires);
        store.revoke_all(&"7".into(), None, &end).await.expect("no error");
    }
    for store in &stores {
        assert_eq!(store.index_users(None, 400).await.expect("no error").looked_at, 1);
        assert!(store.delete(&"7".into()).await.expect("no error"));
        assert!(store.by_login_name("ada").await.expect("no error").is_none());
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rich {
    #[serde(rename = "number")]
    id: i64,
    email: String,
    admin: bool,
    logins: i64,
    nothing: Option<i64>,
    #[serde(with = "timestamp")]
    joined: SystemTime,
    #[serde(with = "serde_bytes")]
    avatar: Vec<u8>,
    home: Option<LatLng>,
    team: Option<EntityKey>,
    scores: Vec<f64>,
    settings: BTreeMap<String, String>,
    bio: String,
}

auth_user_without_stamp!(Rich, id);

impl LoginName for Rich {
    fn login_name(&self) -> &str {
        &self.email
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_of_every_type_are_read_as_they_were_written() {
    let store = builder("rich")
        .with_kind("member")
        .with_login_property("email")
        .with_id_field("number")
        .with_users(Rich::login_name);
    let store = store.build().await.expect("a store");
    let team = EntityKey {
        project: "elsewhere".into(),
        path: vec![PathElement::Id("Team".into(), 3)],
        ..EntityKey::default()
    };
    let rich = Rich {
        id: 7,
        email: "ada@example.com".into(),
        admin: true,
        logins: i64::MAX,
        nothing: None,
        joined: SystemTime::UNIX_EPOCH + Duration::from_micros(1_800_000_000_123_456),
        avatar: vec![0; 4_000],
        home: Some(LatLng { latitude: 52.5, longitude: 13.4 }),
        team: Some(team),
        scores: vec![0.5, -1.0],
        settings: [("theme".to_owned(), "dark".to_owned())].into(),
        bio: "long ".repeat(1_000),
    };
    store.insert(&rich).await.expect("a new user");
    assert_eq!(*store.by_id(&"7".into()).await.unwrap().unwrap(), rich);
    let changed = Rich { home: None, team: None, scores: vec![], bio: "short".into(), ..rich };
    assert!(replace(&store, &changed).await.expect("no error"));
    assert_eq!(*store.by_login_name("ada@example.com").await.unwrap().unwrap(), changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_property_or_the_setting_and_say_what_to_do() {
    let project = new_project("bad");
    let members = builder_in(&project).with_users(Member::name).build().await.expect("a store");
    members.insert(&Member::new("secret-id-7", "ada")).await.expect("a new user");

    #[derive(Serialize, Deserialize)]
    struct Strict {
        id: String,
        username: String,
        password_hash: i64,
    }
    auth_user_without_stamp!(Strict, id);
    let strict = builder_in(&project).with_users(|user: &Strict| &user.username);
    let strict = strict.build().await.expect("a store");
    let error = strict.by_login_name("ada").await.map(drop).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let words =
        "kind `User`, name \"secret-id-7\": property `password_hash`: found string, expected i64";
    assert_eq!(message(&error), words);

    let other_field = builder_in(&project).with_id_field("username").with_users(Member::name);
    let other_field = other_field.build().await.expect("a store");
    let error = other_field.by_id(&"secret-id-7".into()).await.map(drop).unwrap_err();
    assert!(message(&error).contains("missing field `id`"), "{}", message(&error));

    // Settings that fit no user are an error at the start.
    let bad_settings = [
        (builder_in(&project).with_login_property("email"), "with_login_property"),
        (builder_in(&project).with_id_field("key"), "with_id_field"),
        (builder_in(&project).add_unindexed(["username"]), "add_unindexed"),
    ];
    for (builder, words) in bad_settings {
        let error = builder.with_users(Member::name).build().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unsupported);
        assert!(message(&error).contains(words), "{}", message(&error));
    }
    let other_name = builder_in(&project).with_users(|member: &Member| &member.password_hash);
    let other_name = other_name.build().await.expect("a store");
    let error = other_name.insert(&Member::new(8, "grace")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    assert!(message(&error).contains("with_login_property"), "{}", message(&error));

    for bad in ["", "__7__", &"7".repeat(1_501)] {
        let error = members.insert(&Member::new(bad, "grace")).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{bad:?}");
        assert!(members.by_id(&bad.into()).await.expect("no error").is_none());
    }
    let error = members.insert(&Member::new(9, &"n".repeat(1_501))).await.unwrap_err();
    assert!(message(&error).contains("1,500 bytes"), "{}", message(&error));
    assert!(members.by_login_name("grace").await.expect("no error").is_none());
}

/// For a flattened type, serde does not report the skipped fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_a_value_of_a_flattening_type_lacks_is_removed_from_the_entity() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Open {
        id: String,
        username: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        reset_token: Option<String>,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    auth_user_without_stamp!(Open, id);
    let store = builder("flat").with_users(|user: &Open| &user.username);
    let store = store.build().await.expect("a store");
    let mut open = Open {
        id: "ada".into(),
        username: "ada".into(),
        reset_token: Some("token".into()),
        rest: [("one".to_owned(), 1.into()), ("two".to_owned(), 2.into())].into(),
    };
    store.insert(&open).await.expect("a new user");
    open.reset_token = None;
    open.rest.remove("one");
    assert!(replace(&store, &open).await.expect("no error"));
    assert_eq!(*store.by_id(&"ada".into()).await.unwrap().unwrap(), open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_could_not_be_read_again_is_not_written() {
    /// A type that reads the property `nickname` into the field `called`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Aliased {
        id: i64,
        username: String,
        #[serde(default, alias = "nickname")]
        called: Option<String>,
    }
    auth_user_without_stamp!(Aliased, id);
    let project = new_project("again");
    let members = builder_in(&project).with_users(Member::name).build().await.expect("a store");
    let member = Member { nickname: Some("countess".to_owned()), ..Member::new(7, "ada") };
    members.insert(&member).await.expect("a new user");
    let aliased = builder_in(&project).with_users(|user: &Aliased| &user.username);
    let aliased = aliased.build().await.expect("a store");
    let found = aliased.by_login_name("ada").await.expect("no error").expect("there");
    assert_eq!(found.called.as_deref(), Some("countess"));
    let error = replace(&aliased, &found).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    assert!(message(&error).contains("duplicate field `called`"), "{}", message(&error));
    assert_eq!(aliased.by_login_name("ada").await.expect("no error").as_ref(), Some(&found));

    // A new user is not written either, if `AuthUser::id` returns another id than the field `id`
    // holds.
    let doubled = builder_in(&project).with_users(|user: &Doubled| &user.username);
    let doubled = doubled.build().await.expect("a store");
    let error = doubled.insert(&Doubled { id: 4, username: "grace".into() }).await.unwrap_err();
    assert!(message(&error).contains("with_id_field"), "{}", message(&error));
    assert!(members.by_login_name("grace").await.expect("no error").is_none());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Doubled {
    id: i64,
    username: String,
}

impl AuthUser for Doubled {
    fn id(&self) -> UserId {
        (self.id * 2).into()
    }
    fn security_stamp(&self) -> std::borrow::Cow<'_, [u8]> {
        std::borrow::Cow::Borrowed(b"")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_name_may_be_the_id() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Named {
        username: String,
        #[serde(default)]
        visits: i64,
    }
    auth_user_without_stamp!(Named, username);
    let keys = UserKeys::TextProperty("username".into());
    let store = builder("named").with_user_keys(keys).with_users(|user: &Named| &user.username);
    let store = store.build().await.expect("a store");
    let mut ada = Named { username: "ada".into(), visits: 0 };
    store.insert(&ada).await.expect("a new user");
    assert_eq!(store.insert(&ada).await.unwrap_err().kind(), StoreErrorKind::Conflict);
    ada.visits = 1;
    assert!(replace(&store, &ada).await.expect("no error"));
    assert_eq!(*store.by_id(&"ada".into()).await.unwrap().unwrap(), ada);
    assert_eq!(*store.by_login_name("ada").await.unwrap().unwrap(), ada);
    let done = store.index_users(None, 400).await.expect("indexed");
    assert_eq!((done.looked_at, done.written, done.problems.len()), (1, 0, 0));
    assert!(store.delete(&"ada".into()).await.expect("no error"));
    store.insert(&ada).await.expect("the name is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_ttl_policy_purge_leaves_expired_records_to_the_policy() {
    let project = new_project("policy");
    let without_policy = builder_in(&project).build().await.expect("a store");
    let with_policy = builder_in(&project).with_ttl_policy().build().await.expect("a store");
    let (one, other) = (new_record(&"7".into()), new_record(&"7".into()));
    without_policy.create(&login(&one)).await.expect("a login");
    with_policy.create(&login(&other)).await.expect("a login");
    let later = one.expires.plus(1_000_000);
    assert_eq!(with_policy.purge(later, 100).await.expect("no error"), 0);
    assert!(with_policy.load(&other.key).await.expect("no error").is_some());
    // A store with a policy does not index when its records may be deleted, so this purge finds
    // `one`, but not `other`.
    assert_eq!(without_policy.purge(later, 100).await.expect("no error"), 1);
    assert!(without_policy.load(&one.key).await.expect("no error").is_none());
    assert!(without_policy.load(&other.key).await.expect("no error").is_some());
}

/// Python wrote the properties `active` and `security_stamp` of these users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_keeps_the_property_types_that_another_application_wrote() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Raw {
        id: i64,
        username: String,
        password_hash: String,
        active: Option<i64>,
        security_stamp: String,
    }
    auth_user_without_stamp!(Raw, id);
    let project = new_project("flags");
    let raw = builder_in(&project).with_users(|user: &Raw| &user.username);
    let raw = raw.build().await.expect("a store");
    let accounts = builder_in(&project).build().await.expect("a store");
    for (id, active) in [(1, Some(1)), (2, Some(0)), (3, None)] {
        let (username, security_stamp) = (format!("name{id}"), "stamp".to_owned());
        let written =
            Raw { id, username, password_hash: "hash".to_owned(), active, security_stamp };
        raw.insert(&written).await.expect("a new user");
        let account = accounts.by_id(&id.into()).await.expect("no error").expect("there");
        assert_eq!(account.is_active(), active == Some(1), "{active:?}");
        assert_eq!(&*account.security_stamp(), b"stamp");
        let mut changed = Account::clone(&account);
        changed.rehash("another");
        assert!(replace(&accounts, &changed).await.expect("no error"));
        if active.is_some() {
            let found = raw
                .by_id(&id.into())
                .await
                .expect("`active` is still a number, and the stamp a text");
            let expected = Raw { password_hash: "another".to_owned(), ..written };
            assert_eq!(found.as_deref(), Some(&expected));
        }
    }
}

/// The other application changes only the password hash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_another_application_changes_ends_the_logins_of_an_account() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Raw {
        id: i64,
        username: String,
        #[serde(with = "serde_bytes")]
        password_hash: Vec<u8>,
        active: bool,
    }
    auth_user_without_stamp!(Raw, id);
    let project = new_project("stamped");
    let raw = builder_in(&project).with_users(|user: &Raw| &user.username);
    let raw = raw.build().await.expect("a store");
    let accounts = builder_in(&project).build().await.expect("a store");
    // Python wrote the hashes as `bytes`.
    let with_hash = |hash: &str| Raw {
        id: 7,
        username: "ada".to_owned(),
        password_hash: hash.into(),
        active: true,
    };
    raw.insert(&with_hash("one")).await.expect("a new user");
    let stored = async || accounts.by_login_name("ada").await.expect("no error").expect("there");
    let mut account = Account::clone(&*stored().await);
    assert_eq!((account.password_hash(), &*account.security_stamp()), ("one", &b"one"[..]));
    account.rehash("stronger");
    assert!(replace(&accounts, &account).await.expect("no error"));
    assert_eq!(*stored().await, account);
    assert_eq!(&*stored().await.security_stamp(), b"one", "the logins stay");
    let found = raw.by_id(&7.into()).await.expect("the hash is still a blob");
    assert_eq!(found.as_deref(), Some(&with_hash("stronger")));

    assert!(replace(&raw, &with_hash("another")).await.expect("no error"));
    let changed = stored().await;
    // The new security stamp is the new hash, followed by the earlier stamp.
    assert_eq!(
        (changed.password_hash(), &*changed.security_stamp()),
        ("another", &b"anotherone"[..])
    );
    assert!(replace(&accounts, &changed).await.expect("no error"));
    assert_eq!(stored().await, changed);
    assert!(replace(&raw, &with_hash("stronger")).await.expect("no error"));
    let again = stored().await;
    assert_ne!(again.security_stamp(), account.security_stamp(), "the earlier logins stay ended");
    assert_ne!(again.security_stamp(), changed.security_stamp());
}

/// Another application wrote the login name as `bytes`. A lookup finds the name only after the
/// store has written the user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_writes_a_login_name_as_text() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Raw {
        id: i64,
        email: String,
        #[serde(with = "serde_bytes")]
        username: Vec<u8>,
    }
    auth_user_without_stamp!(Raw, id);
    /// A type that reads only text.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Text {
        id: i64,
        email: String,
        username: serde_json::Value,
    }
    auth_user_without_stamp!(Text, id);
    let project = new_project("names");
    let by_email = || builder_in(&project).with_login_property("email");
    let raw = by_email().with_users(|user: &Raw| &user.email).build().await.expect("a store");
    let written = Raw { id: 7, email: "ada@example.com".into(), username: b"ada".to_vec() };
    raw.insert(&written).await.expect("a new user");
    let texts = by_email().with_users(|user: &Text| &user.email).build().await.expect("a store");
    let error = texts.by_id(&7.into()).await.unwrap_err();
    assert!(message(&error).contains("property `username`"), "{}", message(&error));
    let members = builder_in(&project).with_users(Member::name).build().await.expect("a store");
    let member = members.by_id(&7.into()).await.expect("no error").expect("there");
    assert!(replace(&members, &member).await.expect("no error"));
    assert_eq!(members.by_login_name("ada").await.expect("no error"), Some(member));
    let text = texts.by_id(&7.into()).await.expect("the login name is a text").expect("there");
    assert_eq!(text.username, "ada");
    let taken = members.insert(&Member::new(8, "ada")).await.unwrap_err();
    assert_eq!(taken.kind(), StoreErrorKind::Conflict);
}

/// The map's `id` is the user's id, from the entity's key. It hides the property `id`, which
/// belongs to other applications.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_type_that_is_a_map_keeps_the_property_that_its_id_hides() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Document(BTreeMap<String, String>);
    impl AuthUser for Document {
        fn id(&self) -> UserId {
            self.0.get("id").cloned().unwrap_or_default().into()
        }
        fn security_stamp(&self) -> std::borrow::Cow<'_, [u8]> {
            std::borrow::Cow::Borrowed(b"")
        }
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Raw {
        key: String,
        id: i64,
        username: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        theme: Option<String>,
    }
    auth_user_without_stamp!(Raw, key);
    let project = new_project("maps");
    let raw = builder_in(&project).with_id_field("key").with_users(|user: &Raw| &user.username);
    let raw = raw.build().await.expect("a store");
    let documents = builder_in(&project).with_users(|user: &Document| &user.0["username"]);
    let documents = documents.build().await.expect("a store");
    let (key, username, theme) = ("ada".to_owned(), "ada".to_owned(), Some("dark".to_owned()));
    let mut written = Raw { key, id: 7, username, theme };
    raw.insert(&written).await.expect("a new user");
    let found = documents.by_id(&"ada".into()).await.expect("no error").expect("there");
    let mut found = Document::clone(&found);
    assert_eq!(found.0["id"], "ada");
    found.0.remove("theme");
    assert!(replace(&documents, &found).await.expect("no error"));
    written.theme = None;
    assert_eq!(raw.by_id(&"ada".into()).await.unwrap().as_deref(), Some(&written));
}
