//! Redis, by what it is alone in: keys that expire, slots, failovers, and all the ways in which it is
//! away. Each test that breaks a server has one of its own.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tower_keep_core::{
    Account, AuthUser, End, EndReason, LoginStore, NewLogin, Rotation, SessionLimit, SessionRecord,
    SessionStore, StoreError, StoreErrorKind, Touch, UserDirectory, UserFinder, UserId, UserStore,
    WhenFull,
};
use tower_keep_redis::{RedisStore, TlsCertificates, UserFormat};
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::load::Load;
use xtask::servers::{Kind, Server, call_redis};

fn env(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; `cargo xtask servers` starts a server"))
}

/// What no other test's keys begin with.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("r{}-{}:", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn open(url: &str) -> RedisStore {
    RedisStore::builder(url).build().await.expect("a store")
}

/// A store that gives up soon.
async fn impatient(url: &str, millis: u64) -> RedisStore {
    let builder = RedisStore::builder(url).with_timeout(Duration::from_millis(millis));
    builder.build().await.expect("a store")
}

fn server() -> Server {
    Server::start(Kind::Redis).expect("a server")
}

fn ask(port: u16, words: &str) -> String {
    call_redis(port, words).expect("an answer").trim().to_owned()
}

fn login(record: &SessionRecord) -> NewLogin<'_> {
    NewLogin { record, replacing: &[], ended_until: record.expires, limit: None }
}

async fn begin<U: AuthUser>(store: &RedisStore<U>, user: &str) -> SessionRecord {
    let record = new_record(&user.into());
    store.create(&login(&record)).await.expect("a new session");
    record
}

fn end(record: &SessionRecord) -> End {
    End { at: record.created, reason: EndReason::Ended, keep_until: record.expires }
}

fn rotation(record: &SessionRecord) -> Rotation {
    let (key, at, expires) = (record.key, record.created.plus(10), record.expires);
    Rotation { key, from: record.generation, at, remember_expires: None, expires }
}

/// Everything that an error says, for whoever reads the log.
fn said(error: &StoreError) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        said += &format!(": {error}");
        source = error.source();
    }
    said
}

async fn refused(url: &str) -> String {
    let builder = RedisStore::builder(url).with_timeout(Duration::from_secs(2));
    let error = builder.build().await.expect_err("it can't be opened");
    let said = said(&error);
    // What nobody waits for to get better.
    let is_wrong = !said.contains("no connection") || said.contains("WRONGPASS");
    let is_unsupported = error.kind() == StoreErrorKind::Unsupported;
    assert!(is_unsupported || !is_wrong, "{error:?}");
    said
}

// ---- how it is opened ----

#[tokio::test]
async fn what_is_wrong_shows_at_the_start_and_names_the_mend() {
    let (one, cluster, sentinel) =
        (env("REDIS_URL"), env("REDIS_CLUSTER_URL"), env("REDIS_SENTINEL_URL"));
    let node = cluster.replace("redis+cluster", "redis");
    for (url, words) in [
        (node.split(',').next().unwrap_or_default().to_owned(), "redis+cluster://"),
        (one.replace("redis://", "redis+cluster://"), "let the URL begin with redis://"),
        (one.replace(":secret@", ":wrong-secret@"), "WRONGPASS"),
        (cluster.replace(":secret@", ":wrong-secret@"), "WRONGPASS"),
        (one.replace(":secret@", ""), "NOAUTH"),
        (sentinel.replace("/keep", "/other"), "the sentinels call \"other\""),
        ("redis://127.0.0.1:1".to_owned(), "no connection to 127.0.0.1:1"),
        ("redis://no-such-host.invalid".to_owned(), "no connection to no-such-host.invalid"),
        ("postgres://:wrong-secret@127.0.0.1".to_owned(), "redis+cluster://"),
    ] {
        let said = refused(&url).await;
        assert!(said.contains(words), "{url}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let builder = RedisStore::builder(&one).with_reads_from_replicas();
    assert!(said(&builder.build().await.expect_err("no replicas")).contains("sentinels"));
    let builder = RedisStore::builder(&one).with_key_prefix("a{b}");
    assert!(said(&builder.build().await.expect_err("braces")).contains("braces"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_and_a_database_of_its_own_will_do() {
    let server = server();
    let socket = server.directory().join("socket");
    let url = format!("redis+unix://{}?db=3&pass=secret", socket.display());
    let store = open(&url).await;
    let record = begin(&store, "1").await;
    assert_eq!(store.load(&record.key).await.expect("no fault").as_deref(), Some(&record));
    assert!(ask(server.port(), "INFO keyspace").contains("db3:"));
    let other = open(&format!("{}/2", server.url())).await;
    assert!(other.load(&record.key).await.expect("no fault").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_can_be_encrypted() {
    let mut authority = rcgen::CertificateParams::new([]).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let root = authority.self_signed(&authority_key).expect("a certificate").pem();
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let own = own.signed_by(&key, &issuer).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    // The server runs as somebody else.
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a directory");
    for (name, text) in [("root", root.clone()), ("own", own.pem()), ("key", key.serialize_pem())] {
        std::fs::write(path(name), text).expect("a file");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("a free port").port().to_string();
    let (root_file, own_file, key_file) = (path("root"), path("own"), path("key"));
    let _server = Server::start_redis(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &own_file,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &root_file,
        "--tls-auth-clients",
        "no",
    ])
    .expect("a server");
    let url = format!("rediss://:secret@localhost:{port}");
    let said = refused(&url).await;
    assert!(said.contains("certificate"), "an authority that nobody knows: {said}");
    let root_cert = Some(root.into_bytes());
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let store = RedisStore::builder(url).with_certificates(certificates).build().await;
    let store = store.expect("a store");
    let record = begin(&store, "1").await;
    assert_eq!(store.load(&record.key).await.expect("no fault").as_deref(), Some(&record));
}

#[tokio::test]
async fn a_server_that_evicts_is_warned_of() {
    let said = |server: &Server| {
        let url = server.url();
        async move {
            let log = Log::default();
            let writer = log.clone();
            let subscriber =
                tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
            let guard = tracing::subscriber::set_default(subscriber.finish());
            open(&url).await;
            drop(guard);
            let log = log.0.lock().expect("no writer panics");
            String::from_utf8_lossy(&log).into_owned()
        }
    };
    let server = Server::start_redis(&["--maxmemory-policy", "allkeys-lru"]).expect("a server");
    let warned = said(&server).await;
    assert!(warned.contains("WARN") && warned.contains("noeviction"), "{warned}");
    assert!(warned.contains("allkeys-lru"), "{warned}");
    assert_eq!(ask(server.port(), "CONFIG SET maxmemory-policy noeviction"), "OK");
    assert_eq!(said(&server).await, "");
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_what_the_readme_lists_is_enough() {
    let server = server();
    let rights = "ACL SETUSER site on >site-secret ~keep:* +get +mget +set +del +exists +pttl +pexpire \
        +zadd +zrem +zcard +zrange +zrangebyscore +eval +evalsha +info";
    assert_eq!(ask(server.port(), rights), "OK");
    let url = server.url().replace(":secret@", "site:site-secret@");
    let store = open(&url).await;
    contract::run_all(|| async { store.clone() }).await;
    assert_eq!(ask(server.port(), "ACL SETUSER site -info -evalsha -eval"), "OK");
    let store = open(&url).await;
    let record = new_record(&"1".into());
    let error = store.create(&login(&record)).await.expect_err("no right");
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    assert!(said(&error).contains("NOPERM"), "{}", said(&error));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    id: u64,
    email: String,
    tags: Vec<String>,
}

impl AuthUser for Member {
    fn id(&self) -> UserId {
        self.id.into()
    }

    fn stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.email.as_bytes())
    }
}

fn member(id: u64) -> Member {
    Member { id, email: format!("{id}@example.com"), tags: vec!["a".into(), "é\0".into()] }
}

/// Lines instead of JSON.
struct Lines;

impl UserFormat<Member> for Lines {
    fn write(&self, member: &Member) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        Ok([&[member.id.to_string(), member.email.clone()][..], &member.tags[..]]
            .concat()
            .join("\n")
            .into_bytes())
    }

    fn read(&self, bytes: &[u8]) -> Result<Member, Box<dyn Error + Send + Sync>> {
        let mut lines = std::str::from_utf8(bytes)?.lines();
        let id = lines.next().ok_or("no id")?.parse()?;
        let email = lines.next().ok_or("no e-mail")?.to_owned();
        Ok(Member { id, email, tags: lines.map(str::to_owned).collect() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_users_are_kept_in_either_format() {
    for variable in ["REDIS_URL", "REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = || RedisStore::builder(env(variable)).with_key_prefix(prefix());
        let email: fn(&Member) -> &str = |member| &member.email;
        let json = builder().with_users(email).build().await.expect("a store");
        let lines = builder().with_users_in(Lines, email).build().await.expect("a store");
        for store in [json, lines] {
            let (one, two) = (member(1), member(2));
            store.insert(&one).await.expect("new");
            store.insert(&two).await.expect("new");
            let found = store.by_login("1@example.com").await.expect("no fault");
            assert_eq!(found.as_deref(), Some(&one));
            let renamed = Member { email: "new".into(), ..one.clone() };
            assert!(store.update(&renamed).await.expect("no fault"));
            assert!(store.by_login("1@example.com").await.expect("no fault").is_none());
            let record = begin(&store, "1").await;
            let login = store.load_login(&record.key, Some(&1.into())).await.expect("no fault");
            assert_eq!(login.expect("a login").user.as_deref(), Some(&renamed));
            let both = store.by_ids(&[2.into(), 3.into(), 1.into()]).await.expect("no fault");
            let both: Vec<_> = both.iter().map(Option::as_deref).collect();
            assert_eq!(both, [Some(&two), None, Some(&renamed)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_can_be_read_with_redis_cli() {
    let server = server();
    let store = open(&server.url()).await;
    store.insert(&Account::new(42, "ada", "hash")).await.expect("new");
    begin(&store, "42").await;
    let user = ask(server.port(), "GET keep:{42}:user");
    assert!(user.ends_with(r#" {"id":"42","login":"ada","password_hash":"hash"}"#), "{user}");
    assert!(ask(server.port(), "GET keep:login:ada").ends_with(" 42"));
    let keys = ask(server.port(), "KEYS keep:{42}:session:*");
    let record = ask(server.port(), &format!("GET {keys}"));
    assert!(record.starts_with("1 0 - - ") && record.contains(" 8 passwordTest/1.0"), "{record}");
}

// ---- what lasts how long ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_expire_by_themselves_and_whose_they_are_is_known_longer() {
    let server = server();
    let store = open(&server.url()).await;
    let seconds = |pattern: &str| -> i64 {
        let key = ask(server.port(), &format!("KEYS {pattern}"));
        assert_eq!(key.lines().count(), 1, "{pattern}: {key}");
        ask(server.port(), &format!("TTL {key}")).parse().expect("a number")
    };
    let all = |at_least: i64| {
        let record = seconds("keep:{1}:session:*");
        assert!((at_least - 5..=at_least + 5).contains(&record), "{record} is not {at_least}");
        assert!(seconds("keep:session:*") > record, "whose it is");
        assert!(seconds("keep:{1}:live") >= record, "the user's list");
    };
    let record = SessionRecord {
        expires: new_record(&"1".into()).created.plus(1_000),
        ..new_record(&"1".into())
    };
    store.create(&login(&record)).await.expect("new");
    all(1_300);
    let (key, at, expires) = (record.key, record.created, record.created.plus(5_000));
    let touch = Touch { key, at, remember_expires: None, expires };
    store.touch(&[touch]).await.expect("no fault");
    all(5_300);
    let earlier = Touch { expires: record.created.plus(10), ..touch };
    store.touch(&[earlier]).await.expect("no fault");
    all(5_300);
    let longer = Rotation { expires: record.created.plus(9_000), ..rotation(&record) };
    store.rotate(&longer).await.expect("no fault");
    all(9_300 - 10);
    // An end may keep it for longer, or for less long.
    let ended = begin(&store, "2").await;
    for (hours, all_of) in [(99, false), (1, true)] {
        let record = if all_of { begin(&store, "3").await } else { ended.clone() };
        let end = End { keep_until: record.created.plus(hours * 3_600), ..end(&record) };
        let done = match all_of {
            true => store.revoke_all(&record.user, None, &end).await,
            false => store.revoke(&[record.key], &end).await,
        };
        assert_eq!(done.expect("no fault"), 1);
        let user = &record.user;
        let kept = seconds(&format!("keep:{{{user}}}:session:*"));
        let expected = i64::from(hours) * 3_600 + 300;
        assert!((expected - 5..=expected).contains(&kept), "{kept} is not {expected}");
        // Of no list any more, and still found by its key.
        assert_eq!(ask(server.port(), &format!("EXISTS keep:{{{user}}}:live")), "0");
        assert!(store.load(&record.key).await.expect("no fault").expect("kept").ended.is_some());
    }
    let found = store.load(&ended.key).await.expect("no fault");
    assert!(found.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_forgets_what_has_long_expired() {
    let server = server();
    let store = open(&server.url()).await;
    let first = begin(&store, "1").await;
    // Three days later by the application's clock, and nobody has looked at the list.
    let later = SessionRecord {
        created: first.created.plus(5 * 24 * 3_600),
        expires: first.created.plus(9 * 24 * 3_600),
        ..new_record(&"1".into())
    };
    store.create(&login(&later)).await.expect("new");
    assert_eq!(ask(server.port(), "ZCARD keep:{1}:live"), "1");
    assert!(store.load(&first.key).await.expect("no fault").is_none(), "with the record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_gone_after_the_time_that_was_asked_for() {
    let server = server();
    let builder = RedisStore::builder(server.url()).with_user_ttl(Duration::from_millis(400));
    let store = builder.build().await.expect("a store");
    let account = Account::new(1, "ada", "hash");
    store.insert(&account).await.expect("new");
    let life = |key: &str| -> i64 {
        ask(server.port(), &format!("PTTL {key}")).parse().expect("a number")
    };
    assert!((1..=400).contains(&life("keep:{1}:user")));
    assert!(life("keep:login:ada") > 400, "the name is theirs for longer");
    assert_eq!(ask(server.port(), "PEXPIRE keep:login:ada 5000"), "1");
    assert!(store.update(&account).await.expect("no fault"));
    assert!(life("keep:login:ada") > 5_000, "and gets longer with them");
    while store.by_id(account.id()).await.expect("no fault").is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.by_login("ada").await.expect("no fault").is_none());
    store.insert(&Account::new(2, "ada", "hash")).await.expect("the name is free");
}

// ---- login names ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_broken_off_leaves_a_name_free() {
    let server = server();
    let store = open(&server.url()).await;
    // As an insert leaves them that was broken off after the first step, and after the second.
    ask(server.port(), "SET keep:login:ada \"00000000000000aa 1\"");
    ask(server.port(), "SET keep:login:grace \"00000000000000bb 2\"");
    ask(server.port(), "SET keep:{2}:pending:00000000000000bb 1 EX 60");
    for (id, name) in [(3, "ada"), (4, "grace")] {
        assert!(store.by_login(name).await.expect("no fault").is_none());
        store.insert(&Account::new(id, name, "")).await.expect("nobody has it");
        let found = store.by_login(name).await.expect("no fault").expect("theirs");
        assert_eq!(found.id(), &UserId::from(id));
    }
    // Whoever was at it finds the claim gone.
    assert_eq!(ask(server.port(), "EXISTS keep:{2}:pending:00000000000000bb"), "0");
    // One that a failover has lost comes back when the user is next written.
    ask(server.port(), "DEL keep:login:grace");
    assert!(store.by_login("grace").await.expect("no fault").is_none());
    assert!(store.update(&Account::new(4, "grace", "")).await.expect("no fault"));
    assert!(store.by_login("grace").await.expect("no fault").is_some());
    // A renamed user whose old name was not freed any more does not have it.
    assert!(store.update(&Account::new(3, "lovelace", "")).await.expect("no fault"));
    ask(server.port(), "SET keep:login:ada \"00000000000000cc 3\"");
    assert!(store.by_login("ada").await.expect("no fault").is_none());
    store.insert(&Account::new(5, "ada", "")).await.expect("nobody has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_name_finds_it_taken_when_it_is() {
    let server = server();
    let store = open(&server.url()).await;
    for round in 0..10 {
        ask(server.port(), "FLUSHALL");
        ask(server.port(), "SET keep:login:ada \"00000000000000aa 1\"");
        ask(server.port(), "SET keep:{1}:pending:00000000000000aa 1 EX 60");
        let waiting = store.clone();
        let insert = tokio::spawn(async move { waiting.insert(&Account::new(2, "ada", "")).await });
        // Around the moment at which the other loses patience.
        tokio::time::sleep(Duration::from_millis(195 + round * 5)).await;
        let port = server.port();
        // As the last step of the first one's insert.
        let done = ask(
            port,
            "EVAL \"if redis.call('DEL', KEYS[1]) == 1 then redis.call('SET', KEYS[2], ARGV[1]) \
             return 1 end return 0\" 2 keep:{1}:pending:00000000000000aa keep:{1}:user \
             '1 00000000000000aa {\\\"id\\\":\\\"1\\\",\\\"login\\\":\\\"ada\\\",\\\"password_hash\\\":\\\"\\\"}'"
                .replace("\\\"", "\"")
                .as_str(),
        );
        let second = insert.await.expect("no panic");
        assert_eq!(second.is_ok(), done == "0", "round {round}: {done}, {second:?}");
        let holder = store.by_login("ada").await.expect("no fault").expect("one has it");
        assert_eq!(holder.id().as_str(), if second.is_ok() { "2" } else { "1" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_in_a_list_lets_no_session_too_many_in() {
    let server = server();
    let store = open(&server.url()).await;
    for round in 0..40_u64 {
        let user = UserId::from(round);
        // What is left in the list of a record that has expired.
        let gone = begin(&store, user.as_str()).await;
        let record = ask(server.port(), &format!("KEYS keep:{{{round}}}:session:*"));
        ask(server.port(), &format!("DEL {record}"));
        assert!(store.list(&user, gone.created, 10).await.expect("no fault").is_empty());
        let when_full = if round % 2 == 0 { WhenFull::Refuse } else { WhenFull::EndOldest };
        let limit = Some(SessionLimit { most: 1, when_full });
        let logins: Vec<_> = (0..4)
            .map(|_| {
                let (store, record) = (store.clone(), new_record(&user));
                tokio::spawn(async move {
                    let login = NewLogin { limit, ..login(&record) };
                    store.create(&login).await.expect("no fault")
                })
            })
            .collect();
        for login in logins {
            login.await.expect("no panic");
        }
        assert_eq!(store.list(&user, gone.created, 10).await.expect("no fault").len(), 1);
    }
}

// ---- slots ----

/// The ports of a cluster's nodes, and which has this key.
fn ports(url: &str) -> Vec<u16> {
    let first = url.rsplit_once('@').and_then(|(_, hosts)| hosts.split(',').next());
    let port = first.and_then(|host| host.rsplit_once(':')?.1.parse().ok()).expect("a port");
    let slots = ask(port, "CLUSTER SLOTS");
    let mut lines = slots.lines().peekable();
    let mut masters = Vec::new();
    // First and last slot, then host, port and id of the master, and of each replica.
    while let Some(line) = lines.next() {
        if line == "127.0.0.1" && masters.len() < 3 {
            let port: u16 = lines.next().and_then(|port| port.parse().ok()).expect("a port");
            masters.push(port);
            // Its replica.
            while lines.peek().is_some_and(|line| line.parse::<u16>().is_err() || line.len() > 5) {
                if lines.next() == Some("127.0.0.1") {
                    lines.next();
                }
            }
        }
    }
    masters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed() {
    let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let store = impatient(&cluster.url(), 5_000).await;
    let mut kept = Vec::new();
    for id in 0..60_u64 {
        store.insert(&Account::new(id, format!("user{id}"), "")).await.expect("new");
        kept.push(begin(&store, &id.to_string()).await);
    }
    let from = cluster.port();
    let to = cluster.members()[0].port();
    let (from_id, to_id) = (ask(from, "CLUSTER MYID"), ask(to, "CLUSTER MYID"));
    let slot = |key: &str| -> u16 {
        ask(from, &format!("CLUSTER KEYSLOT {key}")).parse().expect("a slot")
    };
    // One whose slot is the first node's.
    let of_first = |id: &u64| slot(&format!("{{{id}}}")) < 16_384 / 3;
    let id = (0..60_u64).find(of_first).expect("some user");
    let moving = slot(&format!("{{{id}}}"));
    let record = &kept[id as usize];
    let stays = begin(&store, &id.to_string()).await;
    let is_whole = async |when: &str| {
        let user = UserId::from(id);
        let found = store.load_login(&stays.key, Some(&user)).await;
        let found = found.unwrap_or_else(|error| panic!("{when}: {}", said(&error)));
        let found = found.unwrap_or_else(|| panic!("{when}: the record is gone"));
        assert!(found.user.is_some(), "{when}: the user is gone");
        let found = store.by_id(&user).await.expect(when);
        assert!(found.is_some(), "{when}: the user is gone");
        let listed = store.list(&user, record.created, 10).await.expect(when);
        assert!(listed.iter().any(|listed| listed.key == stays.key), "{when}: {listed:?}");
    };
    is_whole("before").await;
    assert_eq!(ask(to, &format!("CLUSTER SETSLOT {moving} IMPORTING {from_id}")), "OK");
    assert_eq!(ask(from, &format!("CLUSTER SETSLOT {moving} MIGRATING {to_id}")), "OK");
    is_whole("nothing has moved yet").await;
    let keys = ask(from, &format!("CLUSTER GETKEYSINSLOT {moving} 100"));
    let keys: Vec<&str> = keys.lines().collect();
    assert!(keys.len() >= 3, "{keys:?}");
    let migrate = |key: &str| {
        let words = format!("MIGRATE 127.0.0.1 {to} {key} 0 1000 AUTH secret");
        assert!(["OK", "NOKEY"].contains(&ask(from, &words).as_str()), "{key}");
    };
    // The user's list there, their session here: who reads finds both.
    let (list, rest): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.ends_with(":live"));
    assert_eq!(list.len(), 1);
    migrate(list[0]);
    is_whole("half has moved").await;
    // Who writes waits until they are together.
    let other = begin(&store, &format!("{id}-elsewhere")).await;
    let (waiting, how) = (store.clone(), end(record));
    let keys = [record.key, other.key];
    let revoke = tokio::spawn(async move { waiting.revoke(&keys, &how).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!revoke.is_finished());
    rest.iter().for_each(|key| migrate(key));
    assert_eq!(revoke.await.expect("no panic").expect("it was asked again"), 2);
    assert_eq!(store.list(&id.into(), record.created, 10).await.expect("no fault").len(), 1);
    is_whole("all has moved, and the slot not yet").await;
    for port in [to, from] {
        assert_eq!(ask(port, &format!("CLUSTER SETSLOT {moving} NODE {to_id}")), "OK");
    }
    is_whole("the slot has moved").await;
    begin(&store, &id.to_string()).await;
    assert_eq!(store.revoke(&[stays.key], &end(record)).await.expect("no fault"), 1);
    assert_eq!(store.list(&id.into(), record.created, 10).await.expect("no fault").len(), 1);
}

#[tokio::test]
async fn keys_are_in_the_slots_where_the_store_looks() {
    let url = env("REDIS_CLUSTER_URL");
    assert_eq!(ports(&url).len(), 3);
    let store = RedisStore::builder(&url).with_key_prefix(prefix()).build().await.expect("a store");
    for odd in ["", "{", "}", "{}", "}{", "{a}b", "a}b{c}", "%", "%7D", "佐藤", "a b"] {
        let (id, login) = (format!("{odd}id"), format!("{odd}login"));
        store.insert(&Account::new(id.as_str(), login.as_str(), "")).await.expect("new");
        assert!(store.by_login(&login).await.expect("no fault").is_some(), "{odd:?}");
        let record = begin(&store, &id).await;
        let user = UserId::from(id);
        let found = store.load_login(&record.key, Some(&user)).await.expect("no fault");
        assert!(found.expect("the record").user.is_some(), "{odd:?}");
        assert_eq!(store.revoke_all(&user, None, &end(&record)).await.expect("no fault"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_answer_where_they_may_and_the_master_where_they_cannot() {
    for variable in ["REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = RedisStore::builder(env(variable)).with_key_prefix(prefix());
        let store = builder.with_reads_from_replicas().build().await.expect("a store");
        for id in 0..50_u64 {
            let account = Account::new(id, format!("user{id}"), "");
            store.insert(&account).await.expect("new");
            assert!(store.by_id(account.id()).await.expect("no fault").is_some(), "{variable}");
            let record = begin(&store, &id.to_string()).await;
            // Sooner than any replica can have them.
            for likely in [None, Some(account.id())] {
                let found = store.load_login(&record.key, likely).await.expect("no fault");
                assert!(found.expect("a record").user.is_some(), "{variable}");
            }
        }
        contract::users::run_all(|| async { store.clone() }).await;
    }
}

// ---- faults ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_while_idle_are_not_noticed() {
    let mut server = server();
    let store = open(&server.url()).await;
    let record = begin(&store, "1").await;
    for round in 0..3 {
        server.kill();
        server.run().expect("it comes back");
        match round {
            // It knows no scripts any more, either.
            0 => drop(begin(&store, "1").await),
            1 => assert!(store.load(&record.key).await.expect("asked again").is_some()),
            _ => assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("again"), 1),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_empty_knows_nobody_and_takes_new_logins() {
    let mut server = Server::start_redis(&["--appendonly", "no"]).expect("a server");
    let store = open(&server.url()).await;
    store.insert(&Account::new(1, "ada", "")).await.expect("new");
    let record = begin(&store, "1").await;
    server.kill();
    server.run().expect("it comes back");
    let likely = UserId::from("1");
    assert!(store.load_login(&record.key, Some(&likely)).await.expect("no fault").is_none());
    assert!(store.by_login("ada").await.expect("no fault").is_none());
    contract::run_all(|| async { store.clone() }).await;
}

/// All calls that a request can lead to fail with one of these kinds, in time.
async fn all_fail(store: &RedisStore, record: &SessionRecord, kinds: &[StoreErrorKind]) {
    let user = record.user.clone();
    let other = new_record(&user);
    let errors = [
        store.load_login(&record.key, Some(&user)).await.map(drop),
        store.load(&record.key).await.map(drop),
        store.by_login("ada").await.map(drop),
        store.by_ids(std::slice::from_ref(&user)).await.map(drop),
        store.list(&user, record.created, 10).await.map(drop),
    ];
    for result in errors.into_iter().chain(writes(store, record, &other).await) {
        let error = result.expect_err("it can't");
        assert!(kinds.contains(&error.kind()), "{}", said(&error));
    }
}

/// What the calls that write answer.
async fn writes(
    store: &RedisStore,
    record: &SessionRecord,
    other: &SessionRecord,
) -> [Result<(), StoreError>; 4] {
    [
        store.create(&login(other)).await.map(drop),
        store.rotate(&rotation(record)).await.map(drop),
        store.revoke(&[record.key], &end(record)).await.map(drop),
        store.insert(&Account::new(7, "seven", "")).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_unavailable_at_once() {
    let mut server = server();
    let store = open(&server.url()).await;
    let record = begin(&store, "1").await;
    server.kill();
    let begun = Instant::now();
    all_fail(&store, &record, &[StoreErrorKind::Unavailable]).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.run().expect("it comes back");
    let patience = Instant::now() + Duration::from_secs(5);
    while store.load(&record.key).await.is_err() {
        assert!(Instant::now() < patience, "it recovers by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_in_time_and_no_queue_grows() {
    let server = server();
    let timeout = Duration::from_millis(500);
    let builder = RedisStore::builder(server.url()).with_timeout(timeout).with_max_waiting(10);
    let store = builder.build().await.expect("a store");
    let record = begin(&store, "1").await;
    server.freeze(true);
    let begun = Instant::now();
    let loads: Vec<_> = (0..500)
        .map(|_| {
            let (store, key) = (store.clone(), record.key);
            tokio::spawn(async move {
                let begun = Instant::now();
                let error = store.load(&key).await.expect_err("it hangs");
                (error.kind(), begun.elapsed())
            })
        })
        .collect();
    let (mut timed_out, mut turned_away) = (0, 0);
    for load in loads {
        match load.await.expect("no panic") {
            (StoreErrorKind::Timeout, _) => timed_out += 1,
            (StoreErrorKind::Unavailable, took) if took < timeout / 2 => turned_away += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((timed_out, turned_away), (10, 490));
    all_fail(&store, &record, &[StoreErrorKind::Timeout, StoreErrorKind::Unavailable]).await;
    assert!(begun.elapsed() < timeout * 15, "{:?}", begun.elapsed());
    server.freeze(false);
    let patience = Instant::now() + Duration::from_secs(5);
    while store.load(&record.key).await.is_err() {
        assert!(Instant::now() < patience, "it recovers by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What was given up may have been done by now; what is new is done.
    begin(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_its_data_is_unavailable_until_it_has() {
    let mut server = Server::start_redis(&["--appendonly", "no"]).expect("a server");
    let store = open(&server.url()).await;
    let mut records = Vec::new();
    for _ in 0..100 {
        records.push(begin(&store, "1").await);
    }
    assert_eq!(ask(server.port(), "SAVE"), "OK");
    server.kill();
    server.add_arguments(&[
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    server.begin().expect("it starts");
    let (mut loading, begun) = (0, Instant::now());
    loop {
        match store.load(&records[0].key).await {
            Ok(found) => break assert_eq!(found.as_deref(), Some(&records[0])),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", said(&error));
                loading += usize::from(said(&error).contains("LOADING"));
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(loading > 0, "it was seen loading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_is_unavailable_for_logins() {
    let (server, other) = (server(), server());
    let store = open(&server.url()).await;
    let record = begin(&store, "1").await;
    // Not in step with the other, so that it keeps what it has.
    assert_eq!(ask(server.port(), "CONFIG SET masterauth wrong"), "OK");
    assert_eq!(ask(server.port(), &format!("REPLICAOF 127.0.0.1 {}", other.port())), "OK");
    for result in writes(&store, &record, &new_record(&"1".into())).await {
        let error = result.expect_err("it only reads");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", said(&error));
        assert!(said(&error).contains("READONLY"), "{}", said(&error));
    }
    let found = store.load(&record.key).await.expect("it still reads");
    assert_eq!(found.as_deref(), Some(&record));
    assert_eq!(ask(server.port(), "REPLICAOF NO ONE"), "OK");
    begin(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_unavailable_for_logins_and_loses_nothing() {
    let server = server();
    let store = open(&server.url()).await;
    store.insert(&Account::new(1, "ada", "")).await.expect("new");
    let record = begin(&store, "1").await;
    assert_eq!(ask(server.port(), "CONFIG SET maxmemory 1000"), "OK");
    let other = new_record(&"1".into());
    let keys = ask(server.port(), "KEYS *");
    for result in writes(&store, &record, &other).await {
        let error = result.expect_err("there is no memory");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", said(&error));
        assert!(said(&error).contains("OOM"), "{}", said(&error));
    }
    let sorted = |keys: String| {
        let mut keys: Vec<_> = keys.lines().map(str::to_owned).collect();
        keys.sort();
        keys
    };
    assert_eq!(sorted(ask(server.port(), "KEYS *")), sorted(keys), "nothing half-written");
    let likely = UserId::from("1");
    let found = store.load_login(&record.key, Some(&likely)).await.expect("it still reads");
    assert_eq!(*found.expect("a login").record, record);
    assert_eq!(ask(server.port(), "CONFIG SET maxmemory 0"), "OK");
    store.create(&login(&other)).await.expect("there is memory again");
    assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("no fault"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_value_of_ours_is_corrupt_and_not_quoted() {
    let server = server();
    let store = open(&server.url()).await;
    let user = UserId::from("1");
    for write in ["LPUSH", "SET"] {
        for key in ["keep:{1}:user", "record", "keep:login:ada"] {
            ask(server.port(), "FLUSHALL");
            store.insert(&Account::new(1, "ada", "")).await.expect("new");
            let record = begin(&store, "1").await;
            let name = match key {
                "record" => ask(server.port(), "KEYS keep:{1}:session:*"),
                other => other.to_owned(),
            };
            ask(server.port(), &format!("DEL {name}"));
            ask(server.port(), &format!("{write} {name} secret-of-somebody"));
            let mut results = vec![];
            if key == "keep:login:ada" {
                results.push(store.by_login("ada").await.map(drop));
            } else {
                results.push(store.load_login(&record.key, Some(&user)).await.map(drop));
                results.push(store.load_login(&record.key, None).await.map(drop));
            }
            if key == "keep:{1}:user" {
                results.push(store.by_id(&user).await.map(drop));
                results.push(store.by_login("ada").await.map(drop));
                results.push(store.update(&Account::new(1, "ada", "")).await.map(drop));
            }
            if key == "record" {
                results.push(store.list(&user, record.created, 10).await.map(drop));
                results.push(store.revoke(&[record.key], &end(&record)).await.map(drop));
                results.push(store.revoke_all(&user, None, &end(&record)).await.map(drop));
                results.push(store.rotate(&rotation(&record)).await.map(drop));
            }
            for result in results {
                let error = result.expect_err("it can't be read");
                assert_eq!(
                    error.kind(),
                    StoreErrorKind::Corrupt,
                    "{write} {key}: {}",
                    said(&error)
                );
                assert!(!said(&error).contains("somebody"), "{}", said(&error));
            }
        }
    }
    // A user who can't be read can still be removed.
    ask(server.port(), "FLUSHALL");
    ask(server.port(), "SET keep:{1}:user nonsense");
    assert!(store.delete(&user).await.expect("no fault"));
    assert!(store.by_id(&user).await.expect("no fault").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_for_replicas_says_when_they_do_not_have_it() {
    let alone = server();
    let builder = |url: String| {
        let timeout = Duration::from_millis(700);
        RedisStore::builder(url).with_replicas_to_wait_for(1).with_timeout(timeout)
    };
    let store = builder(alone.url()).build().await.expect("a store");
    let record = new_record(&"1".into());
    let error = store.create(&login(&record)).await.expect_err("there is no replica");
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert!(said(&error).contains("0 of 1 replicas"), "{}", said(&error));
    for variable in ["REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = builder(env(variable)).with_timeout(Duration::from_secs(10));
        let store = builder.with_key_prefix(prefix()).build().await.expect("a store");
        contract::sessions::run_all(|| async { store.clone() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_does_not_have_is_lost_with_the_master_unless_it_was_waited_for() {
    for replicas in [0, 1] {
        let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
        let builder = RedisStore::builder(cluster.url()).with_timeout(Duration::from_millis(800));
        let store = builder.with_replicas_to_wait_for(replicas).build().await.expect("a store");
        let slot = |id: &u64| -> u16 {
            let words = format!("CLUSTER KEYSLOT {{{id}}}");
            ask(cluster.port(), &words).parse().expect("a slot")
        };
        let id = (0..).find(|id| SECOND.contains(&usize::from(slot(id)))).expect("some user");
        let user = UserId::from(id);
        let old = begin(&store, user.as_str()).await;
        let [master, _, _, replica, _] = cluster.members() else { panic!("six nodes") };
        let offset = |server: &Server| {
            let info = ask(server.port(), "INFO replication");
            info.lines()
                .find_map(|line| line.strip_prefix("master_repl_offset:"))
                .map(str::to_owned)
        };
        while offset(master) != offset(replica) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        replica.freeze(true);
        // Its socket would take in what is sent to it meanwhile.
        assert_eq!(ask(master.port(), "CLIENT KILL TYPE replica"), "1");
        let ended = store.revoke_all(&user, None, &end(&old)).await;
        let new = new_record(&user);
        let created = store.create(&login(&new)).await;
        master.kill();
        replica.freeze(false);
        let patience = Instant::now() + Duration::from_secs(20);
        let kept = loop {
            match store.load_login(&old.key, Some(&user)).await {
                Ok(found) => break found.expect("it was there before"),
                Err(error) => assert!(Instant::now() < patience, "{}", said(&error)),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // The end of one session and the beginning of another never were.
        assert!(kept.record.ended.is_none());
        let found = store.load_login(&new.key, Some(&user)).await.expect("no fault");
        assert!(found.is_none());
        match replicas {
            0 => assert!(ended.is_ok() && created.is_ok(), "and nobody was told"),
            _ => {
                for kind in [ended.map(drop), created.map(drop)] {
                    let kind = kind.expect_err("it was not confirmed").kind();
                    assert_eq!(kind, StoreErrorKind::Timeout);
                }
            }
        }
    }
}

// ---- under load ----

/// The slots of a cluster's second master.
const SECOND: std::ops::Range<usize> = 16_384 / 3..16_384 * 2 / 3;

const CLIENTS: usize = 64;
/// How soon everybody is served again.
const RECOVERY: Duration = Duration::from_secs(1);

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_is_killed_under_load_and_comes_back() {
    let mut server = server();
    let store = impatient(&server.url(), 1_000).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let killed = Instant::now();
    server.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (server, back) = in_background(move || {
        let before = Instant::now();
        server.run().expect("it comes back");
        (server, (before, Instant::now()))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let late = load.stop().await.served_but_for(killed, back.0, back.1);
    assert!(late <= RECOVERY, "the last failed {late:?} after the server was back");
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_hangs_under_load_and_goes_on() {
    let server = server();
    let store = impatient(&server.url(), 1_000).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let frozen = Instant::now();
    server.freeze(true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let until = Instant::now();
    server.freeze(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    // What was begun just before it went on may be answered by it.
    let until = until - Duration::from_secs(1);
    let late = load.stop().await.served_but_for(frozen, until, until + Duration::from_secs(1));
    assert!(late <= RECOVERY, "the last failed {late:?} after the server went on");
}

/// Of how many writes in which the last word was given nothing is left.
#[derive(Debug)]
struct Lost {
    writes: usize,
    /// How long before the server died the earliest of them was confirmed.
    earliest: Duration,
}

/// A master with a replica dies under load, by `harm`; the replica takes over.
async fn a_master_dies_under_load(
    mut cluster: Server,
    replicas: usize,
    longest_away: Duration,
    harm: impl FnOnce(&mut Server) + Send + 'static,
) -> Lost {
    let port = cluster.port();
    let builder = RedisStore::builder(cluster.url()).with_timeout(Duration::from_secs(1));
    let store = builder.with_replicas_to_wait_for(replicas).build().await.expect("a store");
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let victim = &mut cluster.members()[0];
    let harmed = Instant::now();
    harm(victim);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let last = Instant::now() - Duration::from_secs(3);
    let outcome = load.stop().await;
    let mut lost = Lost { writes: 0, earliest: Duration::ZERO };
    let mut away: HashMap<bool, Duration> = HashMap::new();
    for (number, seen) in outcome.0.iter().enumerate() {
        let slot: usize =
            ask(port, &format!("CLUSTER KEYSLOT {{{number}}}")).parse().expect("a slot");
        let is_victims = SECOND.contains(&slot);
        for (at, step) in &seen.faults {
            let after = at.saturating_duration_since(harmed);
            // Who is logged in stays so, unless it is the victim who knows; logging in and out also needs
            // the name's slot and the session's.
            assert!(is_victims || *step != "/secret", "client {number}, {step}, after {after:?}");
            let longest = away.entry(is_victims).or_default();
            *longest = (*longest).max(after);
        }
        if !is_victims {
            assert!(seen.slowest < Duration::from_secs(1), "client {number}: {:?}", seen.slowest);
        }
        assert!(seen.faults.iter().all(|(at, _)| *at + Duration::from_secs(1) > harmed));
        assert!(seen.served.iter().any(|at| *at > last), "client {number} is served again");
        for wrong in &seen.wrong {
            // A word that was given after the replica had taken over is not lost.
            assert!(wrong.confirmed < harmed + Duration::from_secs(1), "{wrong:?}");
            lost.writes += 1;
            lost.earliest = lost.earliest.max(harmed.saturating_duration_since(wrong.confirmed));
        }
    }
    let confirmed: usize = outcome.0.iter().map(|seen| seen.confirmed).sum();
    println!("last refused: {away:?}; of {confirmed} logins and logouts lost: {lost:?}");
    let longest = away.values().max().copied().unwrap_or_default();
    assert!(longest < longest_away, "the replica has taken over, and it was noticed");
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_of_a_cluster_is_killed_under_load_and_its_replica_takes_over() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let lost = a_master_dies_under_load(cluster, 0, Duration::from_secs(6), Server::kill).await;
    assert!(lost.earliest < Duration::from_secs(1), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_waits_for_its_replica_is_not_lost_with_the_master() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    // There is a replica to wait for again when the dead one is back.
    let lost = a_master_dies_under_load(cluster, 1, Duration::from_secs(11), |victim| {
        victim.kill();
        std::thread::sleep(Duration::from_secs(5));
        victim.run().expect("it comes back");
    })
    .await;
    assert_eq!(lost.writes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_of_a_cluster_hangs_under_load_and_its_replica_takes_over() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let lost = a_master_dies_under_load(cluster, 0, Duration::from_secs(6), |victim| {
        victim.freeze(true);
        std::thread::sleep(Duration::from_secs(5));
        victim.freeze(false);
    })
    .await;
    assert!(lost.earliest < Duration::from_secs(1), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_master_of_sentinels_is_killed_under_load_and_its_replica_takes_over() {
    let mut sentinels = Server::start(Kind::RedisSentinel).expect("sentinels");
    let store = impatient(&sentinels.url(), 1_000).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let killed = Instant::now();
    // The machine of the master and of the first sentinel, as it were.
    sentinels.freeze(true);
    sentinels.members()[0].kill();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let outcome = load.stop().await;
    let faults = outcome.0.iter().flat_map(|seen| &seen.faults).map(|(at, _)| *at);
    let away = faults.max().expect("it was noticed").saturating_duration_since(killed);
    let wrong: Vec<_> = outcome.0.iter().flat_map(|seen| &seen.wrong).collect();
    println!("last refused after {away:?}; lost: {}", wrong.len());
    for wrong in wrong {
        assert!(wrong.confirmed < killed + Duration::from_secs(1), "{wrong:?}");
    }
    sentinels.freeze(false);
    for seen in &outcome.0 {
        let last = killed + Duration::from_secs(12);
        assert!(seen.served.iter().any(|at| *at > last), "everybody is served again");
    }
}
