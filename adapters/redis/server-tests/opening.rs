//! Opening a store, and the errors if a store can't be opened.

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

use crate::{
    build_error, end, env_variable, error_text, log_in, new_login, open_store, rotation,
    run_command, start_server, unused_prefix,
};
use tower_keep_testkit::contract::users::replace;

#[tokio::test]
async fn build_reports_a_wrong_url_or_setting_and_says_what_to_do() {
    let (one, cluster, sentinel) = (
        env_variable("REDIS_URL"),
        env_variable("REDIS_CLUSTER_URL"),
        env_variable("REDIS_SENTINEL_URL"),
    );
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
        let error = build_error(&url).await;
        assert!(error.contains(words), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let builder = RedisStore::builder(&one).with_reads_from_replicas();
    assert!(error_text(&builder.build().await.expect_err("no replicas")).contains("sentinels"));
    let builder = RedisStore::builder(&one).with_key_prefix("a{b}");
    assert!(error_text(&builder.build().await.expect_err("braces")).contains("braces"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_works_over_a_unix_socket_and_in_a_database_other_than_0() {
    let server = start_server();
    let socket = server.directory().join("socket");
    let url = format!("redis+unix://{}?db=3&pass=secret", socket.display());
    let store = open_store(&url).await;
    let record = log_in(&store, "1").await;
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
    assert!(run_command(server.port(), "INFO keyspace").contains("db3:"));
    let other = open_store(&format!("{}/2", server.url())).await;
    assert!(other.load(&record.key).await.expect("no error").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_connects_over_tls_with_a_certificate_authority_of_its_own() {
    let mut authority = rcgen::CertificateParams::new([]).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let root = authority.self_signed(&authority_key).expect("a certificate").pem();
    let key = rcgen::KeyPair::generate().expect("a key");
    let server_cert = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let server_cert = server_cert.signed_by(&key, &issuer).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    // The server runs as another operating-system user, who has to be able to read the files.
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a directory");
    let files =
        [("root", root.clone()), ("server", server_cert.pem()), ("key", key.serialize_pem())];
    for (name, text) in files {
        std::fs::write(path(name), text).expect("a file");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("a free port").port().to_string();
    let (root_file, server_file, key_file) = (path("root"), path("server"), path("key"));
    let _server = Server::start_redis(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &server_file,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &root_file,
        "--tls-auth-clients",
        "no",
    ])
    .expect("a server");
    let url = format!("rediss://:secret@localhost:{port}");
    let error = build_error(&url).await;
    assert!(error.contains("certificate"), "the system does not know the authority: {error}");
    let root_cert = Some(root.into_bytes());
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let store = RedisStore::builder(url).with_certificates(certificates).build().await;
    let store = store.expect("a store");
    let record = log_in(&store, "1").await;
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
}

#[tokio::test]
async fn build_logs_a_warning_if_the_server_may_evict_keys() {
    let log_of_build = |server: &Server| {
        let url = server.url();
        async move {
            let log = Log::default();
            let writer = log.clone();
            let subscriber =
                tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
            let guard = tracing::subscriber::set_default(subscriber.finish());
            open_store(&url).await;
            drop(guard);
            let log = log.0.lock().expect("no writer panics");
            String::from_utf8_lossy(&log).into_owned()
        }
    };
    let server = Server::start_redis(&["--maxmemory-policy", "allkeys-lru"]).expect("a server");
    let log = log_of_build(&server).await;
    assert!(log.contains("WARN") && log.contains("noeviction"), "{log}");
    assert!(log.contains("allkeys-lru"), "{log}");
    assert_eq!(run_command(server.port(), "CONFIG SET maxmemory-policy noeviction"), "OK");
    assert_eq!(log_of_build(&server).await, "");
}

/// The log of this thread.
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
const PERMISSIONS: &str = "ACL SETUSER site on >site-secret ~keep:* +get +mget +set +del +exists +pttl \
                      +pexpire +zadd +zrem +zcard +zrange +zrevrange +zrangebyscore +zrevrangebyscore +rename +unlink +eval +evalsha +info";

/// Returns the URL with the name and the password of the user `site`, who has only these
/// permissions.
fn url_of_site(url: &str) -> String {
    url.replace(":secret@", "site:site-secret@")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_permissions_in_the_readme_are_enough_for_one_server() {
    let server = start_server();
    assert_eq!(run_command(server.port(), PERMISSIONS), "OK");
    let url = url_of_site(&server.url());
    let store = open_store(&url).await;
    contract::run_all(|| async { store.clone() }).await;
    assert_eq!(run_command(server.port(), "ACL SETUSER site -info -evalsha -eval"), "OK");
    let store = open_store(&url).await;
    let record = new_record(&"1".into());
    let error = store.create(&new_login(&record)).await.expect_err("a missing permission");
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    assert!(error_text(&error).contains("NOPERM"), "{}", error_text(&error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_permissions_in_the_readme_are_enough_for_sentinel_and_for_a_cluster() {
    for (kind, more_permissions) in [
        (Kind::RedisSentinel, "+role"),
        (Kind::RedisCluster, "+cluster|slots +asking +wait +readonly"),
    ] {
        let mut servers = Server::start(kind).expect("servers");
        let first_node = (kind == Kind::RedisCluster).then_some(servers.port());
        let members =
            servers.members().iter().filter(|member| member.kind() != Kind::RedisSentinel);
        let ports: Vec<u16> = first_node.into_iter().chain(members.map(Server::port)).collect();
        for port in ports {
            assert_eq!(run_command(port, &format!("{PERMISSIONS} {more_permissions}")), "OK");
        }
        let builder = RedisStore::builder(url_of_site(&servers.url()));
        let builder = match kind {
            Kind::RedisCluster => builder.with_replicas_to_wait_for(1).with_reads_from_replicas(),
            _ => builder,
        };
        let store = builder.build().await.expect("enough permissions");
        let account = Account::new(7, "ada", "hash");
        store.insert(&account).await.expect("a new account");
        let record = log_in(&store, "7").await;
        let found = store.load_login(&record.key, Some(account.id())).await.expect("no error");
        assert_eq!(found.and_then(|found| found.user).as_deref(), Some(&account));
        store.rotate(&rotation(&record)).await.expect("no error").expect("a record");
        assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("no error"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opens_while_one_master_of_its_cluster_hangs() {
    let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let url = cluster.url();
    cluster.members()[1].suspend();
    let builder = RedisStore::builder(&url).with_timeout(Duration::from_secs(2));
    let store = builder.build().await.expect("the other masters respond");
    let mut responses = Vec::new();
    for id in 0..30_u64 {
        responses.push(store.by_id(&id.into()).await.is_ok());
    }
    assert!(responses.contains(&true), "users in the slots of the other masters are found");
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

/// A format that writes a line for each field, instead of JSON.
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
async fn users_of_an_application_type_are_stored_as_json_or_in_its_own_format() {
    for variable in ["REDIS_URL", "REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder =
            || RedisStore::builder(env_variable(variable)).with_key_prefix(unused_prefix());
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
            let record = log_in(&store, "1").await;
            let login = store.load_login(&record.key, Some(&1.into())).await.expect("no error");
            assert_eq!(login.expect("a login").user.as_deref(), Some(&renamed));
            let both = store.by_ids(&[2.into(), 3.into(), 1.into()]).await.expect("no error");
            let both: Vec<_> = both.iter().map(Option::as_deref).collect();
            assert_eq!(both, [Some(&two), None, Some(&renamed)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_sessions_are_readable_with_redis_cli() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    store.insert(&Account::new(42, "ada", "hash")).await.expect("new");
    let record = log_in(&store, "42").await;
    let user = run_command(server.port(), "GET keep:{42}:user");
    assert!(user.ends_with(r#" {"id":"42","login_name":"ada","password_hash":"hash"}"#), "{user}");
    assert!(run_command(server.port(), "GET keep:login:ada").ends_with(" 42"));
    let key = run_command(server.port(), "KEYS keep:{42}:session:*");
    let line = run_command(server.port(), &format!("GET {key}"));
    let details = record.details.as_str();
    assert!(line.starts_with("1 0 0 - - ") && line.ends_with(&format!(" - {details}")), "{line}");
}
