//! Opening a store, and the errors where it can't be opened.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_keep_core::{
    Account, AuthUser, LoginStore, SessionStore, StoreErrorKind, UserDirectory, UserId, UserLookup,
    UserStore,
};
use tower_keep_redis::{RedisStore, TlsCertificates, UserFormat};
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;
use xtask::servers::{Kind, Server};

use crate::{ask, begin, build_error, end, env, error_text, login, open, prefix, rotation, server};
use tower_keep_testkit::contract::users::replace;

#[tokio::test]
async fn what_is_wrong_shows_at_the_start_and_says_what_to_do() {
    let (one, cluster, sentinel) =
        (env("REDIS_URL"), env("REDIS_CLUSTER_URL"), env("REDIS_SENTINEL_URL"));
    let node = cluster.replace("redis+cluster", "redis");
    for (url, words) in [
        (node.split(',').next().unwrap_or_default().to_owned(), "redis+cluster://"),
        (one.replace("redis://", "redis+cluster://"), "use a redis:// URL"),
        (one.replace(":secret@", ":wrong-secret@"), "WRONGPASS"),
        (cluster.replace(":secret@", ":wrong-secret@"), "WRONGPASS"),
        (one.replace(":secret@", ""), "NOAUTH"),
        (sentinel.replace("/keep", "/other"), "the sentinels call \"other\""),
        ("redis://127.0.0.1:1".to_owned(), "no connection to 127.0.0.1:1"),
        ("redis://no-such-host.invalid".to_owned(), "no connection to no-such-host.invalid"),
        ("postgres://:wrong-secret@127.0.0.1".to_owned(), "redis+cluster://"),
    ] {
        let said = build_error(&url).await;
        assert!(said.contains(words), "{url}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let builder = RedisStore::builder(&one).with_reads_from_replicas();
    assert!(error_text(&builder.build().await.expect_err("no replicas")).contains("sentinels"));
    let builder = RedisStore::builder(&one).with_key_prefix("a{b}");
    assert!(error_text(&builder.build().await.expect_err("braces")).contains("braces"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_and_a_database_of_its_own_will_do() {
    let server = server();
    let socket = server.directory().join("socket");
    let url = format!("redis+unix://{}?db=3&pass=secret", socket.display());
    let store = open(&url).await;
    let record = begin(&store, "1").await;
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
    assert!(ask(server.port(), "INFO keyspace").contains("db3:"));
    let other = open(&format!("{}/2", server.url())).await;
    assert!(other.load(&record.key).await.expect("no error").is_none());
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
    // The server runs as another user.
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
    let said = build_error(&url).await;
    assert!(said.contains("certificate"), "an authority that nobody knows: {said}");
    let root_cert = Some(root.into_bytes());
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let store = RedisStore::builder(url).with_certificates(certificates).build().await;
    let store = store.expect("a store");
    let record = begin(&store, "1").await;
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
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

/// The permissions that the README lists for every kind of server.
const RIGHTS: &str = "ACL SETUSER site on >site-secret ~keep:* +get +mget +set +del +exists +pttl \
                      +pexpire +zadd +zrem +zcard +zrange +zrevrange +zrangebyscore +zrevrangebyscore +rename +unlink +eval +evalsha +info";

fn as_site(url: &str) -> String {
    url.replace(":secret@", "site:site-secret@")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_what_the_readme_lists_is_enough() {
    let server = server();
    assert_eq!(ask(server.port(), RIGHTS), "OK");
    let url = as_site(&server.url());
    let store = open(&url).await;
    contract::run_all(|| async { store.clone() }).await;
    assert_eq!(ask(server.port(), "ACL SETUSER site -info -evalsha -eval"), "OK");
    let store = open(&url).await;
    let record = new_record(&"1".into());
    let error = store.create(&login(&record)).await.expect_err("no right");
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    assert!(error_text(&error).contains("NOPERM"), "{}", error_text(&error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_behind_sentinels_and_in_a_cluster_with_what_is_listed_for_them() {
    for (kind, more) in [
        (Kind::RedisSentinel, "+role"),
        (Kind::RedisCluster, "+cluster|slots +asking +wait +readonly"),
    ] {
        let mut servers = Server::start(kind).expect("servers");
        let own = (kind == Kind::RedisCluster).then_some(servers.port());
        let members =
            servers.members().iter().filter(|member| member.kind() != Kind::RedisSentinel);
        let ports: Vec<u16> = own.into_iter().chain(members.map(Server::port)).collect();
        for port in ports {
            assert_eq!(ask(port, &format!("{RIGHTS} {more}")), "OK");
        }
        let builder = RedisStore::builder(as_site(&servers.url()));
        let builder = match kind {
            Kind::RedisCluster => builder.with_replicas_to_wait_for(1).with_reads_from_replicas(),
            _ => builder,
        };
        let store = builder.build().await.expect("rights that are enough");
        let account = Account::new(7, "ada", "hash");
        store.insert(&account).await.expect("a new account");
        let record = begin(&store, "7").await;
        let found = store.load_login(&record.key, Some(account.id())).await.expect("no error");
        assert_eq!(found.and_then(|found| found.user).as_deref(), Some(&account));
        store.rotate(&rotation(&record)).await.expect("no error").expect("it is there");
        assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("no error"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opens_while_a_master_of_its_cluster_is_away() {
    let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let url = cluster.url();
    cluster.members()[1].suspend();
    let builder = RedisStore::builder(&url).with_timeout(Duration::from_secs(2));
    let store = builder.build().await.expect("at once");
    let mut responses = Vec::new();
    for id in 0..30_u64 {
        responses.push(store.by_id(&id.into()).await.is_ok());
    }
    assert!(responses.contains(&true), "users in other slots are found");
    cluster.members()[1].resume();
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

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.email.as_bytes())
    }
}

fn member(id: u64) -> Member {
    Member { id, email: format!("{id}@example.com"), tags: vec!["a".into(), "é\0".into()] }
}

/// A format with lines instead of JSON.
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
            let found = store.by_login_name("1@example.com").await.expect("no error");
            assert_eq!(found.as_deref(), Some(&one));
            let renamed = Member { email: "new".into(), ..one.clone() };
            assert!(replace(&store, &renamed).await.expect("no error"));
            assert!(store.by_login_name("1@example.com").await.expect("no error").is_none());
            let record = begin(&store, "1").await;
            let login = store.load_login(&record.key, Some(&1.into())).await.expect("no error");
            assert_eq!(login.expect("a login").user.as_deref(), Some(&renamed));
            let both = store.by_ids(&[2.into(), 3.into(), 1.into()]).await.expect("no error");
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
    let begun = begin(&store, "42").await;
    let user = ask(server.port(), "GET keep:{42}:user");
    assert!(user.ends_with(r#" {"id":"42","login_name":"ada","password_hash":"hash"}"#), "{user}");
    assert!(ask(server.port(), "GET keep:login:ada").ends_with(" 42"));
    let keys = ask(server.port(), "KEYS keep:{42}:session:*");
    let line = ask(server.port(), &format!("GET {keys}"));
    let details = begun.details.as_str();
    assert!(line.starts_with("1 0 0 - - ") && line.ends_with(&format!(" - {details}")), "{line}");
}
