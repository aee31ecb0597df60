//! The emulator dies under load, and comes back with what it had written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use tower_keep_core::{Account, UserDirectory};
use tower_keep_datastore::DatastoreStore;
use tower_keep_tests::load::{Load, site};
use tower_keep_tests::{Browser, Http};
use xtask::servers::{Kind, Server};

const CLIENTS: usize = 16;
const DOWN: Duration = Duration::from_secs(4);
/// How soon everybody is served again; the emulator is slow at first, and so is a machine that does other
/// things besides.
const RECOVERY: Duration = Duration::from_secs(8);
const AFTERWARDS: Duration = Duration::from_secs(12);

fn server() -> Server {
    Server::start(Kind::Datastore).expect("an emulator")
}

async fn open(server: &Server) -> DatastoreStore {
    let builder = DatastoreStore::builder("datastore://load").with_emulator(server.url());
    builder.with_timeout(Duration::from_secs(2)).build().await.expect("a store")
}

async fn back(mut server: Server) -> (Server, Instant) {
    let back = tokio::task::spawn_blocking(move || {
        server.run().expect("it comes back");
        (server, Instant::now())
    });
    back.await.expect("it comes back")
}

/// Clients log in, look and log out, while the emulator ends and writes down what it was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_ends_under_load_and_comes_back() {
    let mut server = server();
    let load = Load::start(Arc::new(open(&server).await), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let ended = Instant::now();
    server.stop();
    let (until, down) = (Instant::now(), ended.elapsed());
    tokio::time::sleep(DOWN).await;
    let (server, back) = back(server).await;
    tokio::time::sleep(AFTERWARDS).await;
    let late = load.stop().await.served_but_for(ended + down, until + DOWN, back);
    assert!(late <= RECOVERY, "the last failed {late:?} after the emulator was back");
    drop(server);
}

/// Clients only look, because what the emulator was told in the last seconds would be lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_killed_under_load_and_comes_back() {
    let mut server = server();
    let store = open(&server).await;
    let mut names = Vec::new();
    for number in 0..CLIENTS {
        names.push(format!("user{number}"));
        let account = Account::new(number as u64 + 1, &names[number], "hash");
        store.insert(&account).await.expect("a new account");
    }
    let address = site(Arc::new(store)).await;
    let mut browsers: Vec<Browser> = Vec::new();
    for name in &names {
        let mut browser = Browser::new(Http::to(address));
        let answer = browser.get(&format!("/login?user={name}")).await;
        assert_eq!(answer.status, StatusCode::OK);
        browsers.push(browser);
    }
    // Ended once, it has it all on its disk.
    server.stop();
    server.run().expect("it comes back");
    let is_over = Arc::new(AtomicBool::new(false));
    let clients = browsers.into_iter().zip(names).map(|(mut browser, name)| {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let (mut served, mut refused) = (Vec::new(), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let at = Instant::now();
                let answer = browser.get("/secret").await;
                match answer.status {
                    StatusCode::OK => {
                        assert_eq!(answer.text(), name, "somebody else's secret");
                        served.push(at);
                    }
                    StatusCode::SERVICE_UNAVAILABLE => {
                        assert!(!answer.headers.contains_key(http::header::SET_COOKIE));
                        refused.push(at);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => panic!("{name}: {other}: a logged-in user was turned away"),
                }
            }
            (served, refused)
        })
    });
    let clients: Vec<_> = clients.collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let killed = Instant::now();
    server.kill();
    tokio::time::sleep(DOWN).await;
    let (server, back) = back(server).await;
    tokio::time::sleep(AFTERWARDS).await;
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        let (served, refused) = client.await.expect("what a client saw");
        assert!(served.iter().any(|at| *at < killed) && served.iter().any(|at| *at > back));
        assert!(refused.iter().any(|at| *at > killed), "noticed");
        let late = refused.last().map(|at| at.saturating_duration_since(back)).unwrap_or_default();
        assert!(late <= RECOVERY, "the last failed {late:?} after the emulator was back");
    }
    drop(server);
}
